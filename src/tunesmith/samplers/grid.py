"""Grid search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from tunesmith.hints import Options
from tunesmith.records import Constraint, Event, Goal
from tunesmith.samplers.base import Point, Points, Walk
from tunesmith.space import Space


class Grid(Options, frozen=True):
    """Every combination, in order, the last parameter fastest; then the study ends.

    A study that allows duplicates goes through all of them again and again.

    Args:
        levels: values taken of a continuous parameter, evenly spread from its low to its high bound. Of every other
            parameter all values are taken.
    """

    levels: int = 5

    learns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise ValueError(f"Grid: levels={self.levels} must be at least 2")

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> Walk:
        """A walk over the grid."""
        return Walk(space, Points(space, partial(_points, space, self.levels)), duplicates=duplicates)

    def tell(self, state: Walk, event: Event) -> Walk:
        """Pass over what was tried."""
        state.tell(event)
        return state

    def ask(self, state: Walk, rng: np.random.Generator, until: int = 1) -> Point | None:
        """The first combination that was not tried; None after the last. With duplicates the next one in order."""
        return state.next()


def _points(space: Space, levels: int) -> Iterator[Point]:
    """The combinations, worked out one by one: there may be very many."""
    return (space.encode(config) for config in space.configs(levels))
