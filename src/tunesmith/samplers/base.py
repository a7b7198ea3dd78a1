"""The protocol of a sampler, and what samplers share: a walk along a sequence, and the history as arrays."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tunesmith.pareto import order
from tunesmith.records import Asked, Constraint, Event, Failed, Goal, Told, losses
from tunesmith.rng import stream
from tunesmith.space import Column, Space

S = TypeVar("S")
T = TypeVar("T")
Point = NDArray[np.float64]  #: [d], one number in [0, 1] a column of the space, NaN where a branch is not taken
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Values = tuple[float, ...]  #: losses, then excesses, of one trial at one step


class Sampler(Protocol[S]):
    """Where to look next. Hyperparameters stand in the object, frozen; the state is a separate record.

    A sampler is a fold over the log: the same events give the same state. ``tell`` may change the state in place;
    ``ask`` must leave no trace in it that any later answer depends on, also where an exception ends it half-way.
    ``copy.deepcopy`` of a state must give one that answers alike.

    A sampler with a model may also have a method ``view(state, points [n, d], rng) -> View`` for pictures. It changes
    nothing, and raises ValueError as long as there is no model yet. ``learns`` may be False: it proposes the same
    whatever comes out.
    """

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> S:
        """The state before the first event. ``rng`` is the same at every init of a study.

        With ``duplicates`` the study may try a configuration again, and the sampler proposes known ones wherever its
        algorithm leads there; otherwise it avoids them.
        """
        ...

    def tell(self, state: S, event: Event) -> S:
        """The state after an ``Asked`` of a new trial, a ``Told`` or a ``Failed``."""
        ...

    def ask(self, state: S, rng: np.random.Generator, until: int = 1) -> Point | None:
        """The next point, or None where there is nothing left to propose.

        The trial will be trained to step ``until`` at first; most samplers propose the same for every step.
        """
        ...


class View(NamedTuple):
    """What a sampler's model says about n points.

    Attributes:
        acquisition: [n], what the sampler looks for the maximum of, up to an increasing function.
        curves: [n] each. Of a regression ``mean``, ``low`` and ``high``: the first goal's loss and its 95% interval. Of
            densities ``better`` and ``worse``: of the better trials and the rest, against the uniform one.
    """

    acquisition: Floats
    curves: dict[str, Floats]


class Points:
    """A fixed sequence of points, each of which is worked out when it is first looked at.

    Args:
        space: where the points lie.
        begin: begins the sequence. It gives the same points at every call.
    """

    def __init__(self, space: Space, begin: Callable[[], Iterator[Point]]) -> None:
        self.space, self.begin = space, begin
        self._known: list[tuple[bytes, Point]] = []
        self._rest: Iterator[Point] | None = None

    def at(self, index: int) -> tuple[bytes, Point] | None:
        """The point at a place of the sequence, with its key; None behind the end."""
        while index >= len(self._known):
            rest, self._rest = self._rest, None  # an exception ends an iterator: it is kept only where there was none
            if rest is None:
                rest = islice(self.begin(), len(self._known), None)
            point = next(rest, None)
            if point is not None:
                self._known.append((self.space.key(self.space.decode(point)), point))
            self._rest = rest
            if point is None:
                return None
        return self._known[index]

    def __deepcopy__(self, memo: dict[int, Any]) -> Points:
        """The same sequence, worked out anew: iterators can't be copied."""
        return Points(self.space, self.begin)


@dataclass(slots=True)
class Walk:
    """State of a sampler that goes through a fixed sequence of points and passes over those already taken.

    With ``duplicates`` it takes every point of the sequence in turn, whether it was tried before or not, and after the
    last one begins again.

    Attributes:
        seed: of random draws that follow on the end of the sequence; None: the end is the end.
        asked: how many jobs were asked.
        taken: all configurations that were asked, by their keys.
        place: with ``duplicates``, the next one of the sequence.
        cursor: all points before it are taken. It only saves looking at them again.
    """

    space: Space
    points: Points
    seed: int | None = None
    duplicates: bool = False
    asked: int = 0
    taken: dict[bytes, Point] = field(default_factory=dict)
    place: int = 0
    cursor: int = 0

    def tell(self, event: Event) -> None:
        """Note the configuration of a new trial."""
        if type(event) is not Asked:
            return
        point = self.space.encode(event.config)
        self.asked += 1
        self.taken[point.tobytes()] = point
        if self.duplicates and event.parent is None:
            due = self.points.at(self.place)
            if due is not None and identity(self.space, due[1]) == rounded(point):
                self.place += 1
                if self.seed is None and self.points.at(self.place) is None:
                    self.place = 0

    def next(self, patience: int | None = None) -> Point | None:
        """The first point of the sequence that is not taken; None at the end of the sequence, or a draw.

        With ``patience``, the sequence is searched for so many points more than jobs were asked; where all of these
        are taken, the answer is one of the first of them.
        """
        if self.duplicates:
            due = self.points.at(self.place)
            return self._after_the_end(patience) if due is None else due[1]
        while patience is None or self.cursor < self.asked + patience:
            found = self.points.at(self.cursor)
            if found is None:
                return self._after_the_end(patience)
            if found[0] not in self.taken:
                return found[1]
            self.cursor += 1
        found = self.points.at(self.asked % patience)
        return self._after_the_end(patience) if found is None else found[1]

    def _after_the_end(self, patience: int | None) -> Point | None:
        """A draw that is not taken, if there is one among the first ``patience``."""
        if self.seed is None:
            return None
        rng = stream(self.seed, "after the end", self.asked)
        for _ in range(patience or 1):
            point = self.random(rng)
            if self.duplicates or self.space.key(self.space.decode(point)) not in self.taken:
                break
        return point

    def random(self, rng: np.random.Generator) -> Point:
        """A random point that the constraints allow; see ``random_point``."""
        return random_point(self.space, rng, self.taken.values())


NEAR = 64  #: known points near which the allowed ones of a thin space are looked for


def random_point(space: Space, rng: np.random.Generator, known: Collection[Point] = ()) -> Point:
    """A random point that the constraints allow. Where they allow little, it may lie near one of the known points."""
    near = (space.decode(point) for point in spread(known))  # worked out only where it is needed
    return space.encode(space.sample(rng, near=near))


def spread(known: Collection[T]) -> Iterator[T]:
    """About ``NEAR`` of them, from the first to the last."""
    return islice(known, 0, None, max(1, len(known) // NEAR))


def identity(space: Space, point: Point) -> bytes:
    """A key for the point as it comes back from the log, where rounding may have moved it a little."""
    return rounded(space.encode(space.decode(point)))


def rounded(point: Point) -> bytes:
    """A key for a point that is the same where another processor rounds its last digits otherwise."""
    return np.round(point, 9).tobytes()


def switches(columns: Sequence[Column]) -> list[int]:
    """Which columns open branches, by their index."""
    return sorted({column.parent for column in columns if column.parent is not None})


PENDING, OBSERVED, FAILED = 0, 1, 2
GREATEST = 1e300  #: variances are clipped to it
APART = 1.4  #: a step is a rung of a configuration if it is by this factor greater than the rung before


class Rung(NamedTuple):
    """What was observed at one step, for k configurations.

    Attributes:
        rows: [k], their rows in the history.
        losses: [k, m]
        excess: [k, c]
    """

    rows: NDArray[np.intp]
    losses: Floats
    excess: Floats


def places(history: History, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of rows in the order of constrained domination and crowding (``pareto.order``), 0 for the best.

    Values at different steps are not compared: those that break no constraint come first, then those that have got
    further, then the better ones. A negative row has no values, as one that has failed.

    Args:
        rows: [n], of the history.

    Returns:
        [n], a permutation of 0 to n - 1.
    """
    rows = np.asarray(rows)
    losses, excess = history.losses[rows], history.excess[rows]
    losses[rows < 0] = np.nan
    known = ~np.isnan(losses).any(axis=1)
    steps = np.where(known, history.steps[rows], 0)
    if len(set(steps[known].tolist())) < 2:
        return order(losses, excess)
    within = np.zeros(len(rows), dtype=np.int64)
    for step in set(steps.tolist()):
        at = np.flatnonzero(steps == step)
        within[at] = order(losses[at], excess[at])
    found = np.empty_like(within)
    found[np.lexsort((within, -steps, (excess > 0).any(axis=1), ~known))] = np.arange(len(rows))
    return found


class History:
    """What was asked and told, as arrays that grow by doubling.

    A configuration is pending until a job of it is done, then it has values; it has failed where all its trials have.
    Trials of one configuration share a row. Every step at which a job of it was done is a rung (of those that are not
    apart by the factor ``APART`` the first one). The values there are the mean over its trials: those with a job done
    there, and those that went past it later and were told a value on their way (unless the rung stands for other
    fidelities too). A trial that goes on keeps its values meanwhile. Forks are left out: their values owe more to the
    weights that they began with.

    What is told of a job on its way is looked at when the job is done, so that it does not matter into how many reports
    the same values are cut.

    Args:
        space: where the configurations come from.
        goals, constraints: what is learned.
        duplicates: whether a configuration may be proposed again; then none is ``known``.

    Its arrays are views, not to be written. Some have a row for each of n configurations, in the order in which they
    were asked; those called ``seen`` have one for each of N observations, in the order of the first value. An
    observation is a configuration at a rung.

    Attributes:
        size, seen: n and N.
        rungs: the steps at which there are observations now, ascending (not to be written).
        live: how many observations count now.
    """

    def __init__(
        self,
        space: Space,
        goals: Sequence[Goal],
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> None:
        self.space, self.goals, self.constraints = space, tuple(goals), tuple(constraints)
        self.duplicates = duplicates
        self.size = self.seen = self.live = 0
        self.rungs: list[int] = []
        width = len(self.goals) + len(self.constraints)
        self._points: Floats = np.empty((16, len(space.columns)))
        self._values: Floats = np.empty((16, width))
        self._steps: Ints = np.zeros(16, dtype=np.int64)
        self._counts: Ints = np.zeros(16, dtype=np.int64)
        self._scatter: Floats = np.zeros((16, width if duplicates else 0))
        self._last: Ints = np.zeros(16, dtype=np.int64)
        self._status: NDArray[np.uint8] = np.zeros(16, dtype=np.uint8)
        self._seen_rows: Ints = np.zeros(16, dtype=np.int64)
        self._seen_steps: Ints = np.zeros(16, dtype=np.int64)
        self._seen_counts: Ints = np.zeros(16, dtype=np.int64)
        self._seen_values: Floats = np.empty((16, width))
        self._rows: dict[bytes, int] = {}
        self._row_of: dict[int, int] = {}  # by trial
        self._until: dict[int, int] = {}  # by trial: where its job ends
        self._on_the_way: dict[int, list[Told]] = {}  # by trial that is out: what it was told before the end of its job
        self._curves: dict[int, dict[int, Values]] = {}  # by trial and step: values; a failed trial has none
        self._trials: list[tuple[int, ...]] = []  # by row: those with values, or failed, in the order of the first ones
        self._seen: list[dict[int, int]] = []  # by row and step: which observation
        self._sizes: Counter[int] = Counter()  # by rung: how many observations

    @property
    def points(self) -> Floats:
        """[n, d] in the unit cube, NaN where a branch is not taken."""
        return self._points[: self.size]

    @property
    def losses(self) -> Floats:
        """[n, m], to be minimised, at the last step at which a job was done, NaN until observed."""
        return self._values[: self.size, : len(self.goals)]

    @property
    def excess(self) -> Floats:
        """[n, c], by how much each outcome constraint is broken there (negative: slack), NaN until observed."""
        return self._values[: self.size, len(self.goals) :]

    @property
    def steps(self) -> Ints:
        """[n], the training step of the values."""
        return self._steps[: self.size]

    @property
    def counts(self) -> Ints:
        """[n], how many trials the values are the mean of."""
        return self._counts[: self.size]

    @property
    def scatter(self) -> Floats:
        """[n, m + c], the variance of the values over these trials; only kept where duplicates are wanted."""
        return self._scatter[: self.size]

    @property
    def status(self) -> NDArray[np.uint8]:
        """[n], ``PENDING``, ``OBSERVED`` or ``FAILED``."""
        return self._status[: self.size]

    @property
    def last(self) -> Ints:
        """[n], the observation at the last rung, where observed."""
        return self._last[: self.size]

    @property
    def seen_rows(self) -> Ints:
        """[N], the row of the configuration."""
        return self._seen_rows[: self.seen]

    @property
    def seen_steps(self) -> Ints:
        """[N], the step."""
        return self._seen_steps[: self.seen]

    @property
    def seen_values(self) -> Floats:
        """[N, m + c], losses and excess."""
        return self._seen_values[: self.seen]

    @property
    def seen_counts(self) -> Ints:
        """[N], how many trials the values are the mean of; 0 where all have failed since."""
        return self._seen_counts[: self.seen]

    @property
    def trials(self) -> int:
        """How many trials were asked for, repeats among them."""
        return len(self._row_of)

    def rung(self, step: int) -> Rung:
        """The observations at a step."""
        chosen = np.flatnonzero((self.seen_steps == step) & (self.seen_counts > 0))
        values = self.seen_values[chosen]
        return Rung(self.seen_rows[chosen], values[:, : len(self.goals)], values[:, len(self.goals) :])

    def curves(self, outcome: int) -> Floats:
        """The values of an outcome, a column of ``seen_values``, of every configuration at every rung: [n, rungs].

        NaN where there is none.
        """
        table = np.full((self.size, len(self.rungs)), np.nan)
        there = np.flatnonzero(self.seen_counts)
        at = np.searchsorted(self.rungs, self.seen_steps[there])
        table[self.seen_rows[there], at] = self.seen_values[there, outcome]
        return table

    def observations(self, row: int) -> dict[int, int]:
        """The observations of a configuration, by step, as indices of ``seen_rows`` and so on (not to be written)."""
        return self._seen[row]

    def known(self, points: Floats) -> Bools:
        """Which of the points [k, d], as ``space.snap`` gives them, need not be proposed any more: [k].

        Those that stand in the history; none where duplicates are wanted.
        """
        return np.zeros(len(points), dtype=np.bool_) if self.duplicates else self.tried(points)

    def tried(self, points: Floats) -> Bools:
        """Which of the points [k, d], as ``space.snap`` gives them, stand in the history: [k]."""
        return np.array([point.tobytes() in self._rows for point in points], dtype=np.bool_)

    def tell(self, event: Event) -> int | None:
        """Fold an event. Returns the row whose values or status it has changed, if it has."""
        if type(event) is Told:
            return self._told(event)
        if type(event) is Asked:
            return self._asked(event)
        if type(event) is Failed and event.trial in self._row_of:
            return self._failed(event.trial)
        return None

    def _asked(self, event: Asked) -> int | None:
        if event.parent is not None:
            return None
        self._until[event.trial] = event.until
        if event.trial in self._row_of:
            return None
        point = self.space.encode(event.config)
        row = self._rows.setdefault(point.tobytes(), self.size)
        self._row_of[event.trial] = row
        if row < self.size:
            if self._status[row] == FAILED:
                self._status[row] = PENDING
                return row
            return None
        if row == len(self._status):
            self._points, self._values = longer(self._points), longer(self._values)
            self._steps, self._counts, self._last = longer(self._steps), longer(self._counts), longer(self._last)
            self._status, self._scatter = longer(self._status), longer(self._scatter)
        self._points[row] = point
        self._values[row] = np.nan
        self._trials.append(())
        self._seen.append({})
        self.size += 1
        return row

    def _told(self, event: Told) -> int | None:
        trial = event.trial
        row = self._row_of.get(trial)
        if row is None:
            return None
        until = event.step
        if until < self._until[trial]:
            self._on_the_way.setdefault(trial, []).append(event)
            return None
        reports = [*self._on_the_way.pop(trial, ()), event]
        values = {step: self._at(reports, step) for step in self._passed(reports, until)}
        values = {step: found for step, found in values.items() if np.isfinite(found).all()}
        values[until] = self._at(reports, until)
        if trial in self._curves:
            self._curves[trial].update(values)
        else:
            self._curves[trial] = values
            self._trials[row] += (trial,)
        return self._settle(row, values)

    def _passed(self, reports: Sequence[Told], until: int) -> list[int]:
        """The rungs before the end of a job whose values can be compared with what was told of it on its way.

        None where there are fidelities: then what is told on the way is worth more than what is told at the rung.
        """
        if self.space.fidelities:
            return []
        start = min(report.start for report in reports)
        return self.rungs[bisect_right(self.rungs, start) : bisect_left(self.rungs, until)]

    def _at(self, reports: Sequence[Told], step: int) -> Values:
        """The losses and excesses at a step, from the latest of the reports that has it; NaN where none has."""
        for report in reversed(reports):
            if report.start < step <= report.step:
                at = step - report.start - 1
                values = losses(self.goals, report.metrics, at)
                if not self.constraints:
                    return values
                told = [report.metrics[rule.metric][at] for rule in self.constraints]
                limits = [rule.at_most for rule in self.constraints]
                over = [math.nan if x is None else x - limit for x, limit in zip(told, limits, strict=True)]
                return *values, *over
        return (math.nan,) * (len(self.goals) + len(self.constraints))

    def _failed(self, trial: int) -> int:
        row = self._row_of[trial]
        self._on_the_way.pop(trial, None)
        before = [step for other in self._trials[row] for step in self._curves[other]]
        if trial not in self._curves:
            self._trials[row] += (trial,)
        self._curves[trial] = {}
        return self._settle(row, before)

    def _settle(self, row: int, changed: Iterable[int]) -> int:
        """The values of a row from those of its trials, of which some have changed at these steps."""
        for step in sorted(changed):
            self._observe(row, step)
        reached = [step for trial in self._trials[row] for step in self._curves[trial]]
        if not reached:
            self._status[row], self._values[row], self._counts[row] = FAILED, np.nan, 0
            return row
        step = max(reached)
        values = self._told_at(row, step)
        self._status[row], self._steps[row] = OBSERVED, step
        self._values[row], self._counts[row] = mean(values), len(values)
        if self.duplicates:
            with np.errstate(over="ignore"):
                self._scatter[row] = np.minimum(np.var(values, axis=0), GREATEST)
        self._last[row] = self._seen[row][max(self._seen[row])]
        return row

    def _told_at(self, row: int, step: int) -> list[Values]:
        """What the trials of a row have at a step."""
        curves = [self._curves[trial] for trial in self._trials[row]]
        return [curve[step] for curve in curves if step in curve]

    def _observe(self, row: int, step: int) -> None:
        """Take in what the trials of a row have at a step now."""
        seen = self._seen[row]
        values = self._told_at(row, step)
        if not values:
            if step in seen:
                self._seen_counts[seen.pop(step)] = 0
                self._count(step, -1)
            return
        if step not in seen:
            if any(rung < step < APART * rung for rung in seen):
                return
            if self.seen == len(self._seen_rows):
                self._seen_rows, self._seen_steps = longer(self._seen_rows), longer(self._seen_steps)
                self._seen_values, self._seen_counts = longer(self._seen_values), longer(self._seen_counts)
            self._seen_rows[self.seen], self._seen_steps[self.seen] = row, step
            seen[step] = self.seen
            self.seen += 1
            self._count(step, 1)
        at = seen[step]
        self._seen_values[at], self._seen_counts[at] = mean(values), len(values)

    def _count(self, step: int, more: int) -> None:
        """There are so many observations more at a step."""
        self.live += more
        self._sizes[step] += more
        if self._sizes[step] == 0:
            del self._sizes[step]
            self.rungs.remove(step)
        elif self._sizes[step] == more:
            insort(self.rungs, step)


def mean(values: Sequence[Values]) -> Values | Floats:
    """The mean over trials, of one at least."""
    if len(values) == 1:
        return values[0]
    average: Floats = np.mean(values, axis=0)
    return average


def longer(buffer: NDArray[Any]) -> NDArray[Any]:
    """An array with room for twice as many."""
    return np.concatenate([buffer, np.zeros_like(buffer)])
