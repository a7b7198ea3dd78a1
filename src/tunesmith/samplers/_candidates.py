"""Points of any space to look at: spread over it with all its branches, or mutations of points that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from tunesmith.samplers.base import Bools, Floats
from tunesmith.space import Column, Space

EXHAUSTIVE = 16  #: ordered columns up to so many levels are gone through level by level, beyond they are smooth
LISTED = 1024  #: ordered columns up to so many levels move by levels, beyond by Gaussian steps
SCALES = (0.3, 0.1, 0.03, 0.01, 1e-3)  #: deviations of the Gaussian steps around the incumbents

Box = tuple[Floats, Floats]  #: [d] lowest and [d] highest position


# -- what is known of a space -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """What the search knows of the columns of a space.

    Attributes:
        smooth: [d], continuous columns and ordered ones of many levels.
        ordered: [d]
        unordered: [d]
        levels: by column: the positions of its levels; None where it is continuous or has too many.
        shares: by column with branches: [levels], up to which uniform draws give an option; None for the others.
        below: by column: the columns that depend on it, directly or not.
    """

    smooth: Bools
    ordered: Bools
    unordered: Bools
    levels: tuple[Floats | None, ...]
    shares: tuple[Floats | None, ...]
    below: tuple[tuple[int, ...], ...]

    @property
    def discrete(self) -> list[int]:
        """The columns that move by levels."""
        return [j for j, levels in enumerate(self.levels) if levels is not None and len(levels) > 1]


@lru_cache(maxsize=64)
def layout(space: Space) -> Layout:
    """What the search knows of the columns of a space, worked out once."""
    columns = space.columns
    below: list[tuple[int, ...]] = [()] * len(columns)
    for j in reversed(range(len(columns))):
        direct = [i for i, column in enumerate(columns) if column.parent == j]
        below[j] = tuple(sorted({*direct, *(i for child in direct for i in below[child])}))
    return Layout(
        smooth=np.array(
            [c.kind == "continuous" or (c.kind == "ordered" and c.levels > EXHAUSTIVE) for c in columns], bool
        ),
        ordered=np.array([c.kind == "ordered" for c in columns], bool),
        unordered=np.array([c.kind == "unordered" for c in columns], bool),
        levels=tuple(space.positions(j) if _listed(column) else None for j, column in enumerate(columns)),
        shares=_shares(columns),
        below=tuple(below),
    )


def _listed(column: Column) -> bool:
    """Whether the search goes by the levels of a column; of numbers with very many it does not."""
    return column.kind == "unordered" or 0 < column.levels <= LISTED


def _shares(columns: Sequence[Column]) -> tuple[Floats | None, ...]:
    """How often each option with branches is drawn: half the draws treat options alike, half the leaves of the tree."""
    leaves = np.ones(len(columns))
    shares: list[Floats | None] = [None] * len(columns)
    for j in reversed(range(len(columns))):
        children = [i for i, column in enumerate(columns) if column.parent == j]
        if not children:
            continue
        branches: dict[tuple[int, ...], list[int]] = {}
        for option in range(columns[j].levels):
            branches.setdefault(tuple(i for i in children if option in columns[i].options), []).append(option)
        chance = np.full(columns[j].levels, 0.5 / columns[j].levels)
        sizes = {branch: leaves[list(branch)].prod() for branch in branches}
        leaves[j] = sum(sizes.values())
        for branch, options in branches.items():
            chance[options] += 0.5 * sizes[branch] / leaves[j] / len(options)
        shares[j] = np.cumsum(chance)
    return tuple(shares)


# -- candidates ---------------------------------------------------------------------------------------------------


def draws(space: Space, rng: np.random.Generator, count: int, box: Box | None = None) -> Floats:
    """Points spread over the space as a Latin hypercube, in which every branch has its share: [count, d], snapped.

    Constraints are not looked at; ``box`` bounds all but the unordered columns.
    """
    known = layout(space)
    order = rng.permuted(np.tile(np.arange(count)[:, None], (1, len(space.columns))), axis=0)
    points = (order + rng.random(order.shape)) / count
    for j, shares in enumerate(known.shares):
        if shares is not None:
            options = np.minimum(np.searchsorted(shares, points[:, j], side="right"), len(shares) - 1)
            points[:, j] = (options + 0.5) / len(shares)
    if box is not None:
        points = np.where(known.unordered, points, box[0] + points * (box[1] - box[0]))
    return space.snap(points)


def neighbours(
    space: Space, points: Floats, rng: np.random.Generator, count: int, scales: Sequence[float] = SCALES
) -> Floats:
    """Mutations of points: one active column changed or several, as many as a log-uniform draw says.

    A number makes a Gaussian step, mirrored at the faces; with up to 1024 levels, of at least one level. An unordered
    column takes another of its options. Columns that become active with it are drawn, or as often taken from the first
    of the points that has them. Constraints are not looked at.

    Args:
        space: of the points.
        points: [k, d], snapped, the best first, k > 0; each is changed equally often.
        rng: source of randomness.
        count: of mutations.
        scales: deviations of the steps in the unit cube; each mutation draws one of them.

    Returns:
        [count, d], snapped.
    """
    known = layout(space)
    base = points[np.arange(count) % len(points)]
    changed = _chosen(known, base, rng)
    scale = rng.choice(np.asarray(scales), size=count)[:, None]
    step = scale * rng.standard_normal(base.shape)
    moved = np.where(changed & ~known.unordered, 1 - np.abs(1 - (base + step) % 2), base)
    for j in known.discrete:
        rows = np.flatnonzero(changed[:, j])
        levels = known.levels[j]
        assert levels is not None
        at = np.searchsorted(levels, base[rows, j] - 1e-9)
        if known.unordered[j]:
            to = (at + rng.integers(1, len(levels), size=len(rows))) % len(levels)
        else:
            to = np.searchsorted((levels[1:] + levels[:-1]) / 2, moved[rows, j])
            side = np.where(step[rows, j] > 0, 1, -1)
            side = np.where((at + side < 0) | (at + side >= len(levels)), -side, side)
            to = np.where(to == at, at + side, to)
        moved[rows, j] = levels[to]
    return space.snap(_filled(moved, points, rng))


def _chosen(known: Layout, base: Floats, rng: np.random.Generator) -> Bools:
    """Which columns of the points [n, d] change: from one to all of the active ones that can."""
    able = ~np.isnan(base) & (known.smooth | np.isin(np.arange(base.shape[1]), known.discrete))
    count = np.floor(np.maximum(able.sum(axis=1), 1) ** rng.random(len(base)) + rng.random(len(base))).astype(int)
    order = np.argsort(np.where(able, rng.random(base.shape), 2.0), axis=1)
    ranks = np.argsort(order, axis=1)
    chosen: Bools = able & (ranks < count[:, None])
    return chosen


def _filled(points: Floats, donors: Floats, rng: np.random.Generator) -> Floats:
    """Inactive columns given values, for the case that they become active: drawn, or those of the first donor."""
    drawn = rng.random(points.shape)
    has = ~np.isnan(donors)
    first = np.where(has.any(axis=0), donors[has.argmax(axis=0), np.arange(points.shape[1])], drawn)
    copy = rng.random(len(points)) < 0.5
    return np.where(np.isnan(points), np.where(copy[:, None], first, drawn), points)


def every(space: Space) -> Floats:
    """All points of a finite space."""
    levels = [known for known in layout(space).levels if known is not None]
    points = np.array(list(product(*levels)), dtype=np.float64)
    return np.unique(space.snap(points), axis=0) if levels else points
