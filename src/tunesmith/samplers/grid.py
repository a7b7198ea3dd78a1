"""Grid search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import msgspec
import numpy as np

from tunesmith.records import Constraint, Event, Goal
from tunesmith.samplers.base import Point, Walk
from tunesmith.space import Column, Space


class Grid(msgspec.Struct, frozen=True):
    """Every combination, in order, the last parameter fastest; then the study ends.

    Args:
        levels: values taken of a continuous parameter, from its low to its high bound, and at the most of an
            ordered one, evenly spread. Categorical parameters are taken whole.
    """

    levels: int = 5

    learns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise ValueError(f"Grid: levels={self.levels} must be at least 2")

    def init(
        self, space: Space, goals: Sequence[Goal], rng: np.random.Generator, constraints: Sequence[Constraint] = ()
    ) -> Walk:
        """A walk over the grid."""
        return Walk(space, _points(space, self.levels))

    def tell(self, state: Walk, event: Event) -> Walk:
        """Pass over what was tried."""
        state.tell(event)
        return state

    def ask(self, state: Walk, rng: np.random.Generator, until: int = 1) -> Point | None:
        """The first combination that was not tried; None after the last."""
        return state.next()


def _points(space: Space, levels: int) -> Iterator[Point]:
    """All combinations that the constraints allow, each once; branches that are not taken are left out."""

    def grow(point: Point, index: int) -> Iterator[Point]:
        if index == len(space.columns):
            snapped = space.snap(point)
            if space.allows(snapped):
                yield snapped
            return
        column = space.columns[index]
        for u in _positions(column, levels) if _active(space, point, column) else (np.nan,):
            point[index] = u
            yield from grow(point, index + 1)

    yield from grow(np.full(len(space.columns), np.nan), 0)


def _positions(column: Column, levels: int) -> Sequence[float]:
    if column.kind == "continuous":
        return [i / (levels - 1) for i in range(levels)]
    count = column.levels
    if column.kind == "unordered" or count <= levels:
        return [(i + 0.5) / count for i in range(count)]
    return sorted({(round(i * (count - 1) / (levels - 1)) + 0.5) / count for i in range(levels)})


def _active(space: Space, point: Point, column: Column) -> bool:
    if column.parent is None:
        return True
    u = point[column.parent]
    options = space.columns[column.parent].levels
    return bool(u == u) and min(int(u * options), options - 1) in column.options
