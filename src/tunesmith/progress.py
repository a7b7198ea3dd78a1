"""A study while it runs: a live table on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from tunesmith.study import Study
from tunesmith.trials import Trial

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

LIVE = 0.25  #: seconds between two pictures on a terminal
PLAIN = 5.0  #: seconds between two lines elsewhere
SHARE = 0.02  #: of the time at most goes into looking, however large the study is


class Snapshot(NamedTuple):
    """How far a study is. ``part`` is what is done of the whole, where the end is known."""

    trials: int
    counts: Counter[str]
    steps: int
    best: Trial | None
    part: float | None


def snapshot(study: Study) -> Snapshot:
    """Look at a study."""
    trials = study.trials
    steps = sum(trial.step - trial.start for trial in trials)
    return Snapshot(len(trials), Counter(trial.status for trial in trials), steps, study.best, _part(study))


def _part(study: Study) -> float | None:
    """What is done: of all steps of the population, or of the trials that will be started."""
    options = study.definition.scheduler.options
    members = options.get("population") or study.limit
    steps = options.get("steps")
    if not members or not steps:
        return None
    present = members_of(study)
    done = sum(steps if trial.status == "failed" else min(trial.step, steps) for trial in present)
    return min(1.0, done / (members * steps))


def members_of(study: Study) -> list[Trial]:
    """The trials that no other one has replaced."""
    replaced = {trial.replaces for trial in study.trials}
    return [trial for trial in study.trials if trial.id not in replaced]


class Progress:
    """Shows a study while it runs. A context manager; call ``update`` as often as you like.

    Args:
        study: what to show.
        seconds: the time that the run may take, if that is limited.
        stream: where to write; standard error by default.
    """

    def __init__(self, study: Study, seconds: float | None = None, stream: TextIO | None = None) -> None:
        self.study = study
        self.seconds = seconds
        self.stream = sys.stderr if stream is None else stream
        self.began = time.monotonic()
        self.first = snapshot(study)
        self._next = 0.0
        self._failed = self.first.counts["failed"]
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self.stream.isatty():
            self._live = _live(self.stream)
        self.update()
        return self

    def __exit__(self, *error: object) -> None:
        self._show(last=True)
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self) -> None:
        """Show the study if it is time, or if the first trial has failed."""
        if time.monotonic() >= self._next or (self._failed == 0 < self.study.trials.failed):
            self._show()

    def _show(self, last: bool = False) -> None:
        began = time.monotonic()
        now = snapshot(self.study)
        self._report_failure(now)
        if self._live is not None:
            self._live.update(self._picture(now), refresh=True)
        else:
            self.stream.write(self.line(now) + "\n")
            self.stream.flush()
        ended = time.monotonic()
        self._next = ended + max(PLAIN if self._live is None else LIVE, (ended - began) / SHARE)

    def _report_failure(self, now: Snapshot) -> None:
        """The first error in full; later ones are only counted."""
        if self._failed == 0 and now.counts["failed"]:
            trial = next(trial for trial in self.study.trials if trial.status == "failed")
            text = f"trial {trial.id} failed ({trial.kind}); later failures are only counted\n{trial.error.rstrip()}"
            if self._live is not None:
                self._live.console.print(text, markup=False, highlight=False)
            else:
                self.stream.write(text + "\n")
        self._failed = now.counts["failed"]

    def line(self, now: Snapshot) -> str:
        """The study in one line."""
        failed = f" ({now.counts['failed']} failed)" if now.counts["failed"] else ""
        parts = [f"{self._elapsed()}", f"trials {now.trials}{failed}", f"steps {now.steps} ({self._rate(now):.3g}/s)"]
        if now.best is not None:
            parts.append(f"best {self._value(now.best)} (trial {now.best.id})")
        left = self._left(now)
        return "  ".join([*parts, f"left {left}"] if left else parts)

    def _elapsed(self) -> str:
        return duration(time.monotonic() - self.began)

    def _rate(self, now: Snapshot) -> float:
        """Steps a second, of all members together."""
        return (now.steps - self.first.steps) / max(time.monotonic() - self.began, 1e-9)

    def _left(self, now: Snapshot) -> str:
        elapsed = time.monotonic() - self.began
        left = [] if self.seconds is None else [max(0.0, self.seconds - elapsed)]
        if now.part is not None and self.first.part is not None and now.part > self.first.part:
            left.append(elapsed * (1 - now.part) / (now.part - self.first.part))
        return duration(min(left)) if left else ""

    def _value(self, trial: Trial) -> str:
        metric = self.study.goals[0].metric
        value = trial.last(metric)
        return f"{metric} {'-' if value is None else format(value, '.4g')}"

    def _picture(self, now: Snapshot) -> RenderableType:
        """The members, the best ones first, above the line."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        assert self._live is not None
        goal = self.study.goals[0]
        members = members_of(self.study)
        members.sort(key=lambda trial: _rank(trial, goal.metric, goal.maximise))
        room = max(3, self._live.console.size.height - 6)
        names = _varying(members)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("trial", "from", "step", goal.metric):
            table.add_column(name, justify="right", no_wrap=True)
        for name in ("status", *names):
            table.add_column(name, no_wrap=True)
        for trial in members[:room]:
            value = trial.last(goal.metric)
            cells = [trial.id, trial.parent, trial.step, value, trial.status, *(trial.config.get(n) for n in names)]
            style = "bold" if now.best is trial else "red" if trial.status == "failed" else ""
            table.add_row(*(Text(short(cell)) for cell in cells), style=style)
        more = f"and {len(members) - room} more" if len(members) > room else ""
        return Group(table, Text(more, style="dim"), Text(self.line(now)))


def _rank(trial: Trial, metric: str, maximise: bool) -> tuple[bool, float, int]:
    value = trial.last(metric)
    lost = value is None or trial.status == "failed"
    return lost, 0.0 if value is None else -value if maximise else value, trial.id


def _varying(trials: list[Trial]) -> list[str]:
    """The parameters that are not the same everywhere."""
    names = dict.fromkeys(name for trial in trials for name in trial.config)
    return [name for name in names if len({repr(trial.config.get(name)) for trial in trials}) > 1]


def short(value: Any) -> str:
    """A value in a narrow column."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours, minutes and seconds."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _live(stream: TextIO) -> Live | None:
    """A live display; None where rich is not installed."""
    try:
        from rich.console import Console
        from rich.live import Live
    except ModuleNotFoundError:
        return None
    live = Live(console=Console(file=stream), auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    live.start()
    return live
