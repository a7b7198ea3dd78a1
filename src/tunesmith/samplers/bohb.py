"""BOHB: a model of the best for the trials that Hyperband starts (Falkner, Klein & Hutter 2018, arXiv:1807.01774)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from tunesmith.records import Constraint, Event, Goal
from tunesmith.samplers.base import Point
from tunesmith.samplers.tpe import TPE, State
from tunesmith.space import Space


class BOHB(msgspec.Struct, frozen=True):
    """One trial in three is a uniform draw, the others come from `TPE`, which models the highest rung that it can.

    The uniform draws see to it that no part of the space is given up for what short trials say.

    Args:
        uniform: share of uniform draws.
        model: where the others come from.
    """

    uniform: float = 1 / 3
    model: TPE = TPE(candidates=64)

    def __post_init__(self) -> None:
        if not 0 <= self.uniform <= 1:
            raise ValueError(f"BOHB: uniform={self.uniform} must be in [0, 1]")

    def init(
        self, space: Space, goals: Sequence[Goal], rng: np.random.Generator, constraints: Sequence[Constraint] = ()
    ) -> State:
        """The state of the model: nothing is told yet."""
        return self.model.init(space, goals, rng, constraints)

    def tell(self, state: State, event: Event) -> State:
        """Let the model learn."""
        return self.model.tell(state, event)

    def ask(self, state: State, rng: np.random.Generator, until: int = 1) -> Point | None:
        """A uniform draw, or what the model proposes."""
        space = state.history.space
        if rng.random() < self.uniform:
            return space.encode(space.sample(rng))
        return self.model.ask(state, rng, until)
