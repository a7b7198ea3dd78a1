"""The protocol of a sampler, and what samplers share: a walk along a sequence, and the history as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tunesmith.records import Asked, Constraint, Event, Failed, Goal, Told, losses
from tunesmith.space import Column, Space

S = TypeVar("S")
Point = NDArray[np.float64]  #: [d], one number in [0, 1] a column of the space, NaN where a branch is not taken
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Sampler(Protocol[S]):
    """Where to look next. Hyperparameters stand in the object, frozen; the state is a separate record.

    A sampler is a fold over the log: the same events give the same state, and ``ask`` never changes it.

    A sampler with a model may also have a method ``view(state, points [n, d], rng) -> View`` for pictures. It changes
    nothing, and raises ValueError as long as there is no model yet.
    """

    def init(
        self, space: Space, goals: Sequence[Goal], rng: np.random.Generator, constraints: Sequence[Constraint] = ()
    ) -> S:
        """The state before the first event. ``rng`` is the same at every init of a study."""
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


@dataclass(slots=True)
class Walk:
    """State of a sampler that goes through a fixed sequence of points and passes over those already taken."""

    space: Space
    points: Iterator[Point]
    seen: list[tuple[bytes, Point]] = field(default_factory=list)
    taken: set[bytes] = field(default_factory=set)
    asked: int = 0  #: how many trials were started
    cursor: int = 0  #: all points before it are taken

    def tell(self, event: Event) -> None:
        """Note the configuration of a new trial."""
        if type(event) is Asked:
            self.asked += 1
            self.taken.add(self.space.key(event.config))

    def next(self, patience: int | None = None) -> Point | None:
        """The first point of the sequence that is not taken; None at the end of the sequence.

        With ``patience``, the sequence is searched for so many points more than trials were started; where all of these
        are taken, the answer is one of the first of them.
        """
        while patience is None or self.cursor < self.asked + patience:
            if self.cursor == len(self.seen):
                point = next(self.points, None)
                if point is None:
                    return None
                self.seen.append((self.space.key(self.space.decode(point)), point))
            if self.seen[self.cursor][0] not in self.taken:
                return self.seen[self.cursor][1]
            self.cursor += 1
        return self.seen[self.asked % patience][1]


def switches(columns: Sequence[Column]) -> list[int]:
    """Which columns open branches, by their index."""
    return sorted({column.parent for column in columns if column.parent is not None})


PENDING, OBSERVED, FAILED = 0, 1, 2


class History:
    """What was asked and told, as arrays with one row a configuration. They grow by doubling.

    A configuration is pending until a job of it is done, then it has values; it has failed where all its trials have.
    Trials of one configuration share a row and its values are their mean at the last step that one of them has
    reached. Forks are left out: their values owe more to the weights that they began with.

    Attributes, one row a configuration in the order in which they were asked (views, not to be written):
        points: [n, d] in the unit cube, NaN where a branch is not taken.
        losses: [n, m], to be minimised, NaN until observed.
        excess: [n, c], by how much each outcome constraint is broken (negative: slack), NaN until observed.
        steps: [n], the training step of the values.
        counts: [n], how many trials the values are the mean of.
        status: [n], ``PENDING``, ``OBSERVED`` or ``FAILED``.
    """

    def __init__(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> None:
        self.space, self.goals, self.constraints = space, tuple(goals), tuple(constraints)
        self.size = 0
        self._points = np.empty((16, len(space.columns)))
        self._values = np.empty((16, len(goals) + len(self.constraints)))
        self._steps = np.zeros(16, dtype=np.int64)
        self._counts = np.zeros(16, dtype=np.int64)
        self._status = np.zeros(16, dtype=np.uint8)
        self._rows: dict[bytes, int] = {}
        self._row_of: dict[int, int] = {}  # by trial
        self._until: dict[int, int] = {}  # by trial: where its job ends
        self._trials: list[dict[int, tuple[int, Floats] | None]] = []  # by row and trial: step and values, None: failed

    points = property(lambda self: self._points[: self.size])
    losses = property(lambda self: self._values[: self.size, : len(self.goals)])
    excess = property(lambda self: self._values[: self.size, len(self.goals) :])
    steps = property(lambda self: self._steps[: self.size])
    counts = property(lambda self: self._counts[: self.size])
    status = property(lambda self: self._status[: self.size])

    def known(self, points: Floats) -> Bools:
        """Which of the points [k, d], as ``space.snap`` gives them, stand in the history: [k]."""
        return np.array([point.tobytes() in self._rows for point in points], dtype=np.bool_)

    def tell(self, event: Event) -> int | None:
        """Fold an event. Returns the row whose values or status it has changed, if it has."""
        if type(event) is Asked:
            return self._asked(event)
        if type(event) is Told:
            return self._told(event)
        if type(event) is Failed and event.trial in self._row_of:
            row = self._row_of[event.trial]
            self._trials[row][event.trial] = None
            return self._settle(row)
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
        if row == len(self._points):
            for name in ("_points", "_values", "_steps", "_counts", "_status"):
                buffer = getattr(self, name)
                setattr(self, name, np.concatenate([buffer, np.zeros_like(buffer)]))
        self._points[row] = point
        self._values[row] = np.nan
        self._trials.append({})
        self.size += 1
        return row

    def _told(self, event: Told) -> int | None:
        row = self._row_of.get(event.trial)
        if row is None or event.step < self._until[event.trial]:
            return None
        excess = [event.metrics[rule.metric][-1] for rule in self.constraints]
        over = [np.nan if v is None else v - rule.at_most for v, rule in zip(excess, self.constraints, strict=True)]
        self._trials[row][event.trial] = event.step, np.array([*losses(self.goals, event.metrics), *over])
        return self._settle(row)

    def _settle(self, row: int) -> int:
        """The values of a row from those of its trials."""
        told = [entry for entry in self._trials[row].values() if entry is not None]
        if not told:
            self._status[row], self._values[row], self._counts[row] = FAILED, np.nan, 0
            return row
        step = max(step for step, _ in told)
        last = [values for at, values in told if at == step]
        self._values[row] = last[0] if len(last) == 1 else np.mean(last, axis=0)
        self._status[row], self._steps[row], self._counts[row] = OBSERVED, step, len(last)
        return row
