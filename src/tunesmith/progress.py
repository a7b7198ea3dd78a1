"""A study while it runs: a live table on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from tunesmith import samplers
from tunesmith.noise import Estimate
from tunesmith.records import Goal
from tunesmith.study import Study
from tunesmith.trials import Status, Trial

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

LIVE = 0.25  #: seconds between two pictures on a terminal
PLAIN = 5.0  #: seconds between two lines elsewhere
SHARE = 0.02  #: of the time at most goes into looking, however large the study is


class Snapshot(NamedTuple):
    """How far a study is. ``part`` is what is done of the whole, where the end is known."""

    trials: int
    counts: Counter[Status]
    steps: int
    best: Trial | None
    estimate: Estimate | None
    members: list[Trial]
    part: float | None


def snapshot(study: Study) -> Snapshot:
    """Look at a study."""
    trials = study.trials
    steps = sum(trial.step - trial.start for trial in trials)
    replaced = {trial.replaces for trial in trials}
    members = [trial for trial in trials if trial.id not in replaced]
    counts = Counter(trial.status for trial in trials)
    return Snapshot(len(trials), counts, steps, study.best, study.estimate(), members, _part(study, members))


def _part(study: Study, members: list[Trial]) -> float | None:
    """What is done: of all steps of the population, of all trials that may be started, or of the budget: the most."""
    options = study.definition.scheduler.options
    whole, steps = options.get("population") or study.limit, options.get("steps")
    parts = [] if study.budget is None else [study.trials.seconds / study.budget.limit]
    if whole and steps:
        done = sum(steps if trial.status == "failed" else min(trial.step, steps) for trial in members)
        parts.append(done / (whole * steps))
    return min(1.0, max(parts)) if parts else None


def can_show(stream: TextIO) -> bool:
    """Whether somebody looks: at a terminal, for which rich is there, or at a notebook."""
    notebook = "ipykernel" in sys.modules
    return (stream.isatty() or notebook) and find_spec("rich") is not None


def chosen(study: Study, workers: int = 1) -> str:
    """What ``Auto`` has chosen for the study and why, in one line; empty with any other sampler."""
    if study.definition.sampler.name != "Auto":
        return ""
    sampler, why = samplers.Auto().choose(study.space, study.goals, len(study.trials), workers)
    return f"sampler: {type(sampler).__name__}, since {why}"


class Progress:
    """Shows a study while it runs: a context manager, to be called with the study as often as you like.

        with Progress() as progress:
            tune(..., progress=progress)

    Args:
        seconds: the time that the run may take, if that is limited.
        workers: jobs at once, for the line that says what ``Auto`` has chosen.
        stream: where to write; standard error by default.
    """

    def __init__(self, seconds: float | None = None, stream: TextIO | None = None, workers: int = 1) -> None:
        self.seconds, self.workers = seconds, workers
        self.stream = sys.stderr if stream is None else stream
        self._study: Study | None = None
        self._live: Live | None = None
        self._next = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def __call__(self, study: Study) -> None:
        """Show the study if it is time; with another study than before, begin anew below."""
        if self._study is not study:
            self._end()
            self._begin(study)
        if time.monotonic() >= self._next:
            self._show(study)

    def _begin(self, study: Study) -> None:
        self._study = study
        self._goal = study.goals[0]
        self._first = snapshot(study)
        self._began = time.monotonic()
        line = chosen(study, self.workers)
        if line:
            self.stream.write(line + "\n")
        if self.stream.isatty():
            self._live = _live(self.stream)
        self._next = self._began + (0.0 if self._live else 1.0)

    def _end(self) -> None:
        """Leave the last picture standing."""
        if self._study is not None:
            self._show(self._study)
        if self._live is not None:
            self._live.stop()

    def _show(self, study: Study) -> None:
        began = time.monotonic()
        now = snapshot(study)
        if self._live is not None:
            self._live.update(self._picture(study, now, self._live.console.size.height - 6), refresh=True)
        else:
            self.stream.write(self._line(study, now) + "\n")
            self.stream.flush()
        ended = time.monotonic()
        self._next = ended + max(PLAIN if self._live is None else LIVE, (ended - began) / SHARE)

    def _line(self, study: Study, now: Snapshot) -> str:
        """The study in one line."""
        elapsed = time.monotonic() - self._began
        rate = (now.steps - self._first.steps) / max(elapsed, 1e-9)
        states: tuple[Status, ...] = ("running", "paused", "waiting", "failed")
        some = ", ".join(f"{now.counts[state]} {state}" for state in states if now.counts[state])
        parts = [
            study.name,
            duration(elapsed),
            f"trials {now.trials}" + (f" ({some})" if some else ""),
            f"steps {now.steps} ({rate:.3g}/s)",
        ]
        if study.budget is not None:
            parts.append(f"spent {study.budget.spent(study.trials.seconds)}")
        if now.best is not None:
            value = short(now.best.last(self._goal.metric)) if now.estimate is None else interval(now.estimate)
            parts.append(f"best {self._goal.metric} {value} (trial {now.best.id})")
        left = self._left(now, elapsed)
        if left is not None:
            parts.append(f"left {duration(left)}")
        return "  ".join(parts)

    def _left(self, now: Snapshot, elapsed: float) -> float | None:
        """Seconds that the run will take yet, where that can be told."""
        left = [] if self.seconds is None else [max(0.0, self.seconds - elapsed)]
        if now.part is not None and self._first.part is not None and now.part > self._first.part:
            left.append(elapsed * (1 - now.part) / (now.part - self._first.part))
        return min(left, default=None)

    def _picture(self, study: Study, now: Snapshot, room: int) -> RenderableType:
        """The members, the best ones first, above the line."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        room = max(3, room)
        members = sorted(now.members, key=lambda trial: _rank(trial, self._goal))
        names = _varying(members)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("trial", "from", "step", self._goal.metric):
            table.add_column(name, justify="right", no_wrap=True)
        for name in ("status", *names):
            table.add_column(name, no_wrap=True)
        for trial in members[:room]:
            value = trial.last(self._goal.metric)
            cells = (trial.id, trial.parent, trial.step, value, trial.status, *(trial.config.get(n) for n in names))
            style = "bold" if now.best is trial else "red" if trial.status == "failed" else ""
            table.add_row(*(Text(short(cell)) for cell in cells), style=style)
        more = [Text(f"and {len(members) - room} more", style="dim")] if len(members) > room else []
        return Group(table, *more, Text(self._line(study, now)))


def _rank(trial: Trial, goal: Goal) -> tuple[bool, float, int]:
    value = trial.last(goal.metric)
    if value is None or trial.status == "failed":
        return True, 0.0, trial.id
    return False, goal.loss(value), trial.id


def _varying(trials: list[Trial]) -> list[str]:
    """The parameters that are not the same everywhere."""
    names = dict.fromkeys(name for trial in trials for name in trial.config)
    return [name for name in names if len({repr(trial.config.get(name)) for trial in trials}) > 1]


def short(value: Any) -> str:
    """A value in a narrow column."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def interval(estimate: Estimate) -> str:
    """A mean over training seeds, with its 95% interval."""
    seeds = f"{estimate.count} seed{'s' if estimate.count > 1 else ''}"
    return f"{estimate.mean:.4g} ± {(estimate.high - estimate.low) / 2:.2g} ({seeds})"


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
    live = Live(console=Console(file=stream), auto_refresh=False)  # what is logged appears above it
    live.start()
    return live
