"""A study while it runs: a live table on a terminal or in a notebook, a plain line now and then elsewhere.

Names and texts of a study may come from anyone: nothing in them reaches a terminal that does something there.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from tunesmith import samplers
from tunesmith._tables import as_html
from tunesmith.errors import printable
from tunesmith.noise import Estimate
from tunesmith.records import Goal
from tunesmith.study import Study
from tunesmith.tables import Row
from tunesmith.trials import Status, Trial

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

LIVE = 0.25  #: seconds between two pictures on a terminal
PLAIN = 5.0  #: seconds between two lines elsewhere
SHARE = 0.02  #: of the time at most goes into looking, however large the study is
FEW = 5  #: steps that are timed before it is said how long the rest will take
ROWS = 20  #: members that are shown in a notebook


class Snapshot(NamedTuple):
    """How far a study is.

    ``best`` is the best trial, ``bests`` has every goal with the best trial by it and its value, ``part`` is what is
    done of the whole, where the end is known.
    """

    trials: int
    counts: Counter[Status]
    steps: int
    best: Trial | None
    bests: list[tuple[Goal, Trial, float]]
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
    part = _part(study, members)
    return Snapshot(len(trials), counts, steps, study.best, study.bests(), study.estimate(), members, part)


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
    """Whether somebody looks: at a notebook, or at a terminal for which rich is there."""
    return _in_notebook() or (stream.isatty() and find_spec("rich") is not None)


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


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
        self._cell: Any = None
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
        self._first = self._timed = snapshot(study)
        self._began = self._timed_since = time.monotonic()
        line = chosen(study, self.workers)
        if line:
            self.stream.write(printable(line) + "\n")
        if self.stream.isatty():
            self._live = _live(self.stream)
        elif self.stream is sys.stderr and _in_notebook():
            self._cell = _cell()
        self._next = self._began + (1.0 if self._live is None and self._cell is None else 0.0)

    def _end(self) -> None:
        """Leave the last picture standing."""
        if self._study is not None:
            self._show(self._study)
        if self._live is not None:
            self._live.stop()
        self._live = self._cell = None

    def _show(self, study: Study) -> None:
        began = time.monotonic()
        now = snapshot(study)
        if self._timed.steps == self._first.steps:  # what came before the first step was a start
            self._timed, self._timed_since = now, began
        if self._live is not None:
            self._live.update(self._picture(study, now, self._live.console.size.height - 6), refresh=True)
        elif self._cell is not None:
            self._cell.update(_Shown(self._line(study, now), *_member_rows(study, now, ROWS)))
        else:
            self.stream.write(self._line(study, now) + "\n")
            self.stream.flush()
        ended = time.monotonic()
        pause = LIVE if self._live is not None else 4 * LIVE if self._cell is not None else PLAIN
        self._next = ended + max(pause, (ended - began) / SHARE)

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
        for number, (goal, trial, value) in enumerate(now.bests):
            mean = interval(now.estimate) if now.estimate is not None and number == 0 else short(value)
            parts.append(f"best {goal.metric} {mean} (trial {trial.id})")
        left = self._left(now, elapsed)
        if left is not None:
            parts.append(f"left {duration(left)}")
        return printable("  ".join(" ".join(part.split()) for part in parts))

    def _left(self, now: Snapshot, elapsed: float) -> float | None:
        """Seconds that the run will take yet, where that can be told: from its end, or from the steps so far."""
        left = [] if self.seconds is None else [max(0.0, self.seconds - elapsed)]
        timed = self._timed
        if now.part is not None and timed.part is not None and now.part > timed.part:
            if now.part == 1.0:
                left.append(0.0)
            elif now.steps - timed.steps >= FEW:
                since = self._began + elapsed - self._timed_since
                left.append(since * (1 - now.part) / (now.part - timed.part))
        return min(left, default=None)

    def _picture(self, study: Study, now: Snapshot, room: int) -> RenderableType:
        """The members, the best ones first, above the line."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        rows, more = _member_rows(study, now, max(3, room))
        numbers = 4 + len(study.goals)  # columns before those of the parameters
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, name in enumerate(rows[0] if rows else ()):
            justify: Any = "right" if place < numbers and name != "status" else "left"
            table.add_column(Text(short(name)), justify=justify, no_wrap=True)  # no markup
        for row in rows:
            best = now.best is not None and row["trial"] == now.best.id
            style = "bold" if best else "red" if row["status"] == "failed" else ""
            table.add_row(*(Text(short(cell)) for cell in row.values()), style=style)
        rest = [Text(f"and {more} more", style="dim")] if more else []
        return Group(table, *rest, Text(self._line(study, now)))


class _Shown:
    """A picture in a notebook."""

    def __init__(self, line: str, rows: list[Row], more: int) -> None:
        self.line, self.rows, self.more = line, rows, more

    def __repr__(self) -> str:
        return self.line

    def _repr_html_(self) -> str:
        return as_html(self.rows, self.line + (f"; {self.more} members more" if self.more else ""))


def _member_rows(study: Study, now: Snapshot, room: int) -> tuple[list[Row], int]:
    """The best members as rows of a table: their values by every goal and the parameters that vary; and how many more
    there are.
    """
    members = sorted(now.members, key=lambda trial: _rank(trial, study.goals[0]))
    names = _varying(members)
    rows: list[Row] = []
    for trial in members[:room]:
        row: Row = {"trial": trial.id, "from": trial.parent, "step": trial.step, "status": trial.status}
        values = {goal.metric: trial.value(goal) for goal in study.goals}
        for kind, some in (("metrics", values), ("params", {name: trial.config.get(name) for name in names})):
            row |= {f"{kind}.{name}" if name in row else name: value for name, value in some.items()}
        rows.append(row)
    return rows, max(0, len(members) - room)


def _rank(trial: Trial, goal: Goal) -> tuple[bool, float, int]:
    value = trial.value(goal)
    if value is None or trial.status == "failed":
        return True, 0.0, trial.id
    return False, goal.loss(value), trial.id


def _varying(trials: list[Trial]) -> list[str]:
    """The parameters that are not the same everywhere."""
    names = dict.fromkeys(name for trial in trials for name in trial.config)
    return [name for name in names if len({repr(trial.config.get(name)) for trial in trials}) > 1]


def short(value: Any) -> str:
    """A value in a narrow column."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else printable(" ".join(str(value).split()))


def interval(estimate: Estimate) -> str:
    """A mean over training seeds, with its 95% interval."""
    seeds = f"{estimate.count} seed{'s' if estimate.count > 1 else ''}"
    return f"{estimate.mean:.4g} ± {(estimate.high - estimate.low) / 2:.2g} ({seeds})"


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours, minutes and seconds."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _cell() -> Any:
    """An output of the notebook that can be drawn anew; None where there is no IPython."""
    try:
        notebook = import_module("IPython.display")
    except ModuleNotFoundError:
        return None
    return notebook.display(_Shown("", [], 0), display_id=True)


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
