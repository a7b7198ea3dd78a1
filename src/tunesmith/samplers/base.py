"""The protocol of a sampler, and what samplers that follow a fixed sequence share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tunesmith.records import Asked, Event, Goal
from tunesmith.space import Space

S = TypeVar("S")
Point = NDArray[np.float64]  #: [d], one number in [0, 1] a column of the space, NaN where a branch is not taken


class Sampler(Protocol[S]):
    """Where to look next. Hyperparameters stand in the object, frozen; the state is a separate record.

    A sampler is a fold over the log: the same events give the same state, and ``ask`` never changes it.
    """

    def init(self, space: Space, goals: Sequence[Goal], rng: np.random.Generator) -> S:
        """The state before the first event. ``rng`` is the same at every init of a study."""
        ...

    def tell(self, state: S, event: Event) -> S:
        """The state after an ``Asked`` of a new trial, a ``Told`` or a ``Failed``."""
        ...

    def ask(self, state: S, rng: np.random.Generator) -> Point | None:
        """The next point, or None where there is nothing left to propose."""
        ...


@dataclass(slots=True)
class Walk:
    """State of a sampler that goes through a fixed sequence of points and passes over those already taken."""

    space: Space
    points: Iterator[Point]
    seen: list[tuple[bytes, Point]] = field(default_factory=list)
    taken: set[bytes] = field(default_factory=set)
    cursor: int = 0

    def tell(self, event: Event) -> None:
        """Note the configuration of a new trial."""
        if type(event) is Asked:
            self.taken.add(self.space.key(event.config))

    def next(self, patience: int | None = None) -> Point | None:
        """The first point of the sequence that is not taken; None at the end of the sequence.

        With ``patience``, the search ends after so many new points and returns the last one of them.
        """
        while self.cursor < len(self.seen) and self.seen[self.cursor][0] in self.taken:
            self.cursor += 1
        if self.cursor < len(self.seen):
            return self.seen[self.cursor][1]
        for tries, point in enumerate(self.points, 1):
            key = self.space.key(self.space.decode(point))
            self.seen.append((key, point))
            if key not in self.taken or tries == patience:
                return point
            self.cursor += 1
        return None
