"""Random search (Bergstra & Bengio 2012)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from tunesmith.hints import Options
from tunesmith.records import Asked, Constraint, Event, Goal
from tunesmith.samplers.base import Point, spread
from tunesmith.space import Config, Space


@dataclass(slots=True)
class State:
    """The space, and the configurations that were asked."""

    space: Space
    configs: list[Config] = field(default_factory=list)


class Uniform(Options, frozen=True):
    """Independent draws, uniform in the unit cube: log parameters uniform in their logarithm.

    Where the constraints leave so little that no draw hits it, the draws are made near earlier configurations.
    """

    learns: ClassVar[bool] = False

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> State:
        """Nothing was asked yet."""
        return State(space)

    def tell(self, state: State, event: Event) -> State:
        """Remember what was asked; nothing is learned."""
        if type(event) is Asked and event.parent is None:
            state.configs.append(event.config)
        return state

    def ask(self, state: State, rng: np.random.Generator, until: int = 1) -> Point:
        """A draw that satisfies the constraints."""
        space = state.space
        near = (space.decode(space.encode(config)) for config in spread(state.configs))  # only where it is needed
        return space.encode(space.sample(rng, near=near))
