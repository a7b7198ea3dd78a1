"""Points that honour constraints of which nothing is known but whether they hold: found, and left by random moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Point = NDArray[np.float64]  #: [d], without NaN: what is not active has a place too

TRIES = 50_000  #: points that a search looks at, about
TURN = 100  #: of them in one part of the cube without any progress, after which it goes on to another part
HALVINGS = 7  #: sizes of these parts
SHRINKS = 40  #: by which a move gives up


class Cube(NamedTuple):
    """The columns that moves may change.

    Attributes:
        ordered: those that move.
        unordered: those that are drawn anew.
        rates: [d], by how much a value changes with its position, where that is the same everywhere; 1 elsewhere.
    """

    ordered: Sequence[int]
    unordered: Sequence[int]
    rates: Point


def find(conflicts: Callable[[Point], int], cube: Cube, rng: np.random.Generator) -> Point | None:
    """A point that breaks no constraint, or None.

    By turns in all of the cube and in parts of it, at its ends, its middle and elsewhere. In each of them two columns
    or all are drawn anew, and kept where no more constraints break than before.

    Args:
        conflicts: how many constraints a point breaks.
        cube: the columns.
        rng: source of randomness.
    """
    d, ordered, tries = len(cube.rates), list(cube.ordered), 0
    for turn in count():
        scale = 0.5 ** (turn // 5 % HALVINGS)
        places = (np.zeros(d), np.ones(d), np.full(d, 0.5), rng.integers(0, 2, d).astype(float), rng.random(d))
        centre = places[turn % 5]

        def place(centre: Point = centre, scale: float = scale) -> Point:
            point = rng.random(d)
            point[ordered] = centre[ordered] + scale * (point[ordered] - centre[ordered])
            return point

        point = place()
        least, idle = conflicts(point), 0
        while least and idle < TURN:
            trial = place()
            if rng.random() < 0.5:
                changed = rng.integers(d, size=2)
                fresh, trial = trial, point.copy()
                trial[changed] = fresh[changed]
            broken = conflicts(trial)
            idle = 0 if broken < least else idle + 1
            if broken <= least:
                point, least = trial, broken
            tries += 1
        if not least:
            return point
        if tries >= TRIES:
            break
    return None


def leave(
    point: Point,
    allows: Callable[[Point], bool],
    cube: Cube,
    rng: np.random.Generator,
    steps: int,
    reach: float = np.inf,
) -> Point:
    """Where a random walk from a point that is allowed arrives; it becomes uniform among those that it can reach.

    A step is along one column, along two so that the sum of their values or its difference stays, or in any direction
    (hit-and-run, Smith 1984), to a random place there; where that is not allowed, nearer and nearer (Neal 2003).

    Args:
        point: where it begins.
        allows: whether a point honours the constraints.
        cube: the columns that may change.
        rng: source of randomness.
        steps: how many.
        reach: length of a step at most.
    """
    ordered, unordered = list(cube.ordered), list(cube.unordered)
    for _ in range(steps if ordered or unordered else 0):
        if rng.random() * (len(ordered) + len(unordered)) < len(unordered):
            trial = point.copy()
            trial[unordered[rng.integers(len(unordered))]] = rng.random()
            point = trial if allows(trial) else point
            continue
        direction = np.zeros(len(point))
        kind = rng.integers(3)
        if kind == 2 or len(ordered) == 1:
            direction[ordered] = rng.standard_normal(len(ordered))
        elif kind == 1:
            first, second = rng.choice(len(ordered), 2, replace=False)
            direction[ordered[first]] = 1 / cube.rates[ordered[first]]
            direction[ordered[second]] = rng.choice((-1, 1)) / cube.rates[ordered[second]]
        else:
            direction[ordered[rng.integers(len(ordered))]] = 1.0
        point = _slide(point, direction / np.abs(direction).max(), allows, rng, reach)
    return point


def _slide(
    point: Point, direction: Point, allows: Callable[[Point], bool], rng: np.random.Generator, reach: float
) -> Point:
    """A random place on the line through a point that is allowed, by slice sampling."""
    moves = direction != 0
    ends = np.sort([-point[moves] / direction[moves], (1 - point[moves]) / direction[moves]], axis=0)
    low, high = float(ends[0].max()), float(ends[1].min())
    if reach < np.inf:
        begin = -2 * reach * rng.random()
        low, high = max(low, begin), min(high, begin + 2 * reach)
    for _ in range(SHRINKS):
        t = low + (high - low) * rng.random()
        trial = np.clip(point + t * direction, 0.0, 1.0)
        if allows(trial):
            return trial
        low, high = (t, high) if t < 0 else (low, t)
    return point
