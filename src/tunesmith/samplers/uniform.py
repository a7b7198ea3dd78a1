"""Random search (Bergstra & Bengio 2012)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec
import numpy as np

from tunesmith.records import Constraint, Event, Goal
from tunesmith.samplers.base import Point
from tunesmith.space import Space


class Uniform(msgspec.Struct, frozen=True):
    """Independent draws, uniform in the unit cube: log parameters uniform in their logarithm."""

    learns: ClassVar[bool] = False

    def init(
        self, space: Space, goals: Sequence[Goal], rng: np.random.Generator, constraints: Sequence[Constraint] = ()
    ) -> Space:
        """The space is all there is to remember."""
        return space

    def tell(self, state: Space, event: Event) -> Space:
        """Nothing is learned."""
        return state

    def ask(self, state: Space, rng: np.random.Generator, until: int = 1) -> Point:
        """A draw that satisfies the constraints."""
        return state.encode(state.sample(rng))
