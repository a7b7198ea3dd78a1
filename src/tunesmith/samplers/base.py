"""The protocol of a sampler, and what samplers share: a walk along a sequence, and the history as arrays."""

from __future__ import annotations

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
Point = NDArray[np.float64]  #: [d], one number in [0, 1] a column of the space, NaN where a branch is not taken
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


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
    every = max(1, len(known) // NEAR)
    near = (space.decode(point) for point in islice(known, 0, None, every))  # worked out only where it is needed
    return space.encode(space.sample(rng, near=near))


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

    Attributes, one row a configuration in the order in which they were asked (views, not to be written):
        points: [n, d] in the unit cube, NaN where a branch is not taken.
        losses: [n, m], to be minimised, at the last step at which a job was done, NaN until observed.
        excess: [n, c], by how much each outcome constraint is broken there (negative: slack), NaN until observed.
        steps: [n], the training step of the values.
        counts: [n], how many trials the values are the mean of.
        status: [n], ``PENDING``, ``OBSERVED`` or ``FAILED``.
        last: [n], the observation at the last rung, where observed.

    Attributes, one row an observation, which is a configuration at a rung, in the order of the first value (views too):
        seen_rows: [N], the row of the configuration.
        seen_steps: [N], the step.
        seen_values: [N, m + c], losses and excess.
        seen_counts: [N], how many trials they are the mean of; 0 where all have failed since.
    """

    def __init__(
        self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = (), duplicates: bool = False
    ) -> None:
        self.space, self.goals, self.constraints = space, tuple(goals), tuple(constraints)
        self.duplicates = duplicates
        self.size = self.seen = 0
        width = len(goals) + len(self.constraints)
        self._points, self._values = np.empty((16, len(space.columns))), np.empty((16, width))
        self._steps, self._counts, self._last = np.zeros((3, 16), dtype=np.int64)
        self._status = np.zeros(16, dtype=np.uint8)
        self._seen_rows, self._seen_steps, self._seen_counts = np.zeros((3, 16), dtype=np.int64)
        self._seen_values = np.empty((16, width))
        self._rows: dict[bytes, int] = {}
        self._row_of: dict[int, int] = {}  # by trial
        self._until: dict[int, int] = {}  # by trial: where its job ends
        self._passed: dict[int, dict[int, Floats]] = {}  # by trial that is out, and step: values at rungs on its way
        self._trials: list[dict[int, dict[int, Floats]]] = []  # by row, trial and step: values; a failed trial has none
        self._seen: list[dict[int, int]] = []  # by row and step: which observation
        self._rungs: Counter[int] = Counter()  # by step: how many observations

    points = property(lambda self: self._points[: self.size])
    losses = property(lambda self: self._values[: self.size, : len(self.goals)])
    excess = property(lambda self: self._values[: self.size, len(self.goals) :])
    steps = property(lambda self: self._steps[: self.size])
    counts = property(lambda self: self._counts[: self.size])
    status = property(lambda self: self._status[: self.size])
    last = property(lambda self: self._last[: self.size])
    seen_rows = property(lambda self: self._seen_rows[: self.seen])
    seen_steps = property(lambda self: self._seen_steps[: self.seen])
    seen_values = property(lambda self: self._seen_values[: self.seen])
    seen_counts = property(lambda self: self._seen_counts[: self.seen])

    @property
    def rungs(self) -> list[int]:
        """The steps at which there are observations now, ascending."""
        return sorted(self._rungs)

    def rung(self, step: int) -> Rung:
        """The observations at a step."""
        chosen = np.flatnonzero((self.seen_steps == step) & (self.seen_counts > 0))
        values = self.seen_values[chosen]
        return Rung(self.seen_rows[chosen], values[:, : len(self.goals)], values[:, len(self.goals) :])

    def curves(self, outcome: int) -> Floats:
        """The values of an outcome, a column of ``seen_values``, of every configuration at every rung: [n, rungs].

        NaN where there is none.
        """
        table = np.full((self.size, len(self._rungs)), np.nan)
        there = np.flatnonzero(self.seen_counts)
        at = np.searchsorted(self.rungs, self.seen_steps[there])
        table[self.seen_rows[there], at] = self.seen_values[there, outcome]
        return table

    def observations(self, row: int) -> dict[int, int]:
        """The observations of a configuration, by step, as indices of ``seen_rows`` and so on (not to be written)."""
        return self._seen[row]

    def known(self, points: Floats) -> Bools:
        """Which of the points [k, d], as ``space.snap`` gives them, are not to be proposed again: [k].

        Those that stand in the history; none with ``duplicates``.
        """
        if self.duplicates:
            return np.zeros(len(points), dtype=np.bool_)
        return np.array([point.tobytes() in self._rows for point in points], dtype=np.bool_)

    def tell(self, event: Event) -> int | None:
        """Fold an event. Returns the row whose values or status it has changed, if it has."""
        if type(event) is Asked:
            return self._asked(event)
        if type(event) is Told:
            return self._told(event)
        if type(event) is Failed and event.trial in self._row_of:
            row = self._row_of[event.trial]
            before = [step for own in self._trials[row].values() for step in own]
            self._trials[row][event.trial] = {}
            return self._settle(row, before)
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
        self._room(row, "_points", "_values", "_steps", "_counts", "_status", "_last")
        self._points[row] = point
        self._values[row] = np.nan
        self._trials.append({})
        self._seen.append({})
        self.size += 1
        return row

    def _told(self, event: Told) -> int | None:
        row = self._row_of.get(event.trial)
        if row is None:
            return None
        passed = self._passed.setdefault(event.trial, {})
        if not self.space.fidelities:  # otherwise what is told on the way is worth more than what is told at the rung
            for step in self._rungs:
                if event.start < step <= event.step and np.isfinite(values := self._valued(event, step)).all():
                    passed[step] = values
        if event.step < self._until[event.trial]:
            return None
        passed[event.step] = self._valued(event, event.step)
        self._trials[row].setdefault(event.trial, {}).update(self._passed.pop(event.trial))
        return self._settle(row, passed)

    def _valued(self, event: Told, step: int) -> Floats:
        """The losses and excesses at a step of a report."""
        at = step - event.start - 1
        rules = [(event.metrics[rule.metric][at], rule.at_most) for rule in self.constraints]
        over = [np.nan if value is None else value - at_most for value, at_most in rules]
        return np.array([*losses(self.goals, event.metrics, at), *over])

    def _settle(self, row: int, changed: Iterable[int]) -> int:
        """The values of a row from those of its trials, of which some have changed at these steps."""
        for step in sorted(changed):
            self._observe(row, step)
        reached = [step for own in self._trials[row].values() for step in own]
        if not reached:
            self._status[row], self._values[row], self._counts[row] = FAILED, np.nan, 0
            return row
        step = max(reached)
        self._status[row], self._steps[row] = OBSERVED, step
        self._values[row], self._counts[row] = self._mean(row, step)
        self._last[row] = self._seen[row][max(self._seen[row])]
        return row

    def _mean(self, row: int, step: int) -> tuple[Floats, int]:
        """The mean of what the trials of a row have at a step, and of how many."""
        values = [own[step] for own in self._trials[row].values() if step in own]
        mean: Floats = values[0] if len(values) == 1 else np.mean(values, axis=0)
        return mean, len(values)

    def _observe(self, row: int, step: int) -> None:
        """Take in what the trials of a row have at a step now."""
        seen = self._seen[row]
        if not any(step in own for own in self._trials[row].values()):
            if step in seen:
                self._seen_counts[seen.pop(step)] = 0
                self._rungs -= Counter([step])
            return
        if step not in seen:
            if any(rung < step < APART * rung for rung in seen):
                return
            self._room(self.seen, "_seen_rows", "_seen_steps", "_seen_values", "_seen_counts")
            self._seen_rows[self.seen], self._seen_steps[self.seen] = row, step
            self._rungs[step] += 1
            seen[step] = self.seen
            self.seen += 1
        at = seen[step]
        self._seen_values[at], self._seen_counts[at] = self._mean(row, step)

    def _room(self, index: int, *names: str) -> None:
        """Make these arrays long enough for an index."""
        for name in names:
            buffer = getattr(self, name)
            if index == len(buffer):
                setattr(self, name, np.concatenate([buffer, np.zeros_like(buffer)]))
