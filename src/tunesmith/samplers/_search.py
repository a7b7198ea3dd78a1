"""Search of a whole space for the maximum of an acquisition function, whatever its columns, branches and constraints.

Many candidates are valued at once: draws, in which every branch has its share, and neighbours of the incumbents. From
the best of them, of different branches, climb a quasi-Newton ascent over the smooth columns and moves of one
discrete column at a time, by turns, until neither improves.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tunesmith.samplers._acquisition import Acquisition
from tunesmith.samplers._ascent import CLOSE, RADIUS, Ascent, Ints
from tunesmith.samplers._candidates import Box, draws, every, layout, neighbours
from tunesmith.samplers.base import Bools, Floats, Point, random_point
from tunesmith.space import Space

DRAWS = 4  #: times that candidates are drawn where the constraints leave few of them
ROUNDS = 4  #: turns of ascent and discrete moves
STEPS = 32  #: of one ascent
TRIAL = 8  #: of these, before only the leaders go on
LEADERS = 3  #: starts that are improved to the end
SWEEPS = 8  #: discrete moves of one turn
GAIN = 1e-6  #: least gain of a move, as a share of the value
SLIDES = 16  #: lengths of a move along a constraint that holds the ascent up
BESIDE = 1e-3  #: distance of the points that give the constraint's normal
HALVINGS = 12  #: in finding how far a constraint lets go
INWARD = 0.01  #: how far a move along a constraint leads away from it, as a share of its length
APART = 0.05  #: least distance of two starts in one branch
MANY = 32  #: levels of an unordered column that one sweep looks at
NEAR = np.array([-8, -4, -2, -1, 1, 2, 4, 8])  #: moves of an ordered column of many levels


def maximise(
    acquisition: Acquisition,
    space: Space,
    incumbents: Floats,
    rng: np.random.Generator,
    *,
    candidates: int = 512,
    starts: int = 6,
    known: Callable[[Floats], Bools] | None = None,
    box: Box | None = None,
) -> Point:
    """The point of the space at which an acquisition is greatest, as far as can be found.

    Args:
        acquisition: what to maximise.
        space: where.
        incumbents: [k, d], the best points so far, the best first; there may be none. They are candidates too.
        rng: source of randomness.
        candidates: how many points are valued at first. A finite space of no more is searched whole.
        starts: how many of them are improved.
        known: says which points [q, d] were tried before: [q]. They are passed over while there are others.
        box: lowest and highest position in all but the unordered columns.

    Returns:
        [d], snapped and allowed.

    Raises:
        ValueError: where the constraints leave (almost) nothing of the space.
    """
    search = _Search(acquisition, space, rng, known, box)
    sizes = [math.inf if levels is None else len(levels) for levels in search.layout.levels]
    whole = math.prod(sizes) <= candidates
    pool = search.usable(every(space)) if whole else search.pool(incumbents, candidates)
    if not len(pool):
        return random_point(space, rng, incumbents)
    values = acquisition.value(pool)
    order = np.argsort(-values, kind="stable")
    pool, values = pool[order], values[order]
    if whole:
        first: Point = pool[0]
        return first
    search.remember(pool)
    chosen = _diverse(pool, starts)
    points, values = search.improve(pool[chosen], values[chosen])
    best: Point = points[int(np.argmax(values))]
    return best


def _diverse(pool: Floats, starts: int) -> Ints:
    """Rows of the pool [q, d], the best first: an equal share of every branch, and none close to a better one."""
    _, branch = np.unique(np.isnan(pool), axis=0, return_inverse=True)
    left = np.full(branch.max() + 1, -(-starts // (branch.max() + 1)))
    filled = np.nan_to_num(pool)
    free = np.ones(len(pool), dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < starts and free.any():
        row = int(free.argmax())
        chosen.append(row)
        left[branch[row]] -= 1
        free &= (left[branch] > 0) & ((branch != branch[row]) | (np.abs(filled - filled[row]).max(axis=1) > APART))
    rest = np.setdiff1d(np.arange(len(pool)), chosen)
    return np.concatenate([np.array(chosen, dtype=np.intp), rest[: starts - len(chosen)]])


def _leaders(values: Floats, rows: Ints) -> Ints:
    """Those of the rows that are among the best few of all values."""
    leads = np.zeros(len(values), dtype=np.bool_)
    leads[np.argsort(-values, kind="stable")[:LEADERS]] = True
    return rows[leads[rows]]


class _Search:
    """One search: the acquisition, and which points may be proposed."""

    def __init__(
        self,
        acquisition: Acquisition,
        space: Space,
        rng: np.random.Generator,
        known: Callable[[Floats], Bools] | None,
        box: Box | None,
    ) -> None:
        d = len(space.columns)
        self.acquisition, self.space, self.rng, self.known, self.box = acquisition, space, rng, known, box
        self.layout = layout(space)
        low, high = box or (np.zeros(d), np.ones(d))
        self.donors: dict[int, tuple[Floats, Floats]] = {}
        self.low = np.where(self.layout.unordered, 0.0, low)
        self.high = np.where(self.layout.unordered, 1.0, high)

    # candidates

    def allowed(self, points: Floats) -> Bools:
        """Which of the points [q, d] honour the hard constraints."""
        return np.array([self.space.allows(point) for point in points], dtype=np.bool_)

    def usable(self, points: Floats) -> Floats:
        """Those of the points that are allowed and, where there are such, were not tried before."""
        points = points[self.allowed(points)]
        if self.known is not None:
            new = points[~self.known(points)]
            return new if len(new) else points
        return points

    def pool(self, incumbents: Floats, count: int) -> Floats:
        """Draws and neighbours of the incumbents, half of each, and the incumbents: those that are usable."""
        pool = np.empty((0, len(self.space.columns)))
        for _ in range(DRAWS):
            drawn = [draws(self.space, self.rng, count - len(incumbents[:1]) * count // 2, self.box)]
            if len(incumbents):
                near = np.concatenate([neighbours(self.space, incumbents, self.rng, count // 2), incumbents])
                drawn.append(self.space.snap(np.clip(near, self.low, self.high)))
            pool = np.concatenate([pool, self.usable(np.concatenate(drawn))])
            if len(pool) >= count // 2:
                break
        return pool

    # improvement

    def remember(self, pool: Floats) -> None:
        """Keep the best candidate of every option that has a branch; ``pool`` has the best first."""
        for j, shares in enumerate(self.layout.shares):
            if shares is not None:
                options, first = np.unique(pool[:, j], return_index=True)
                self.donors[j] = options, pool[first]

    def improve(self, points: Floats, values: Floats) -> tuple[Floats, Floats]:
        """Ascent over the smooth columns and moves of the others by turns: points [s, d] and their values [s]."""
        points, values = points.copy(), values.copy()
        rows, smooth = np.arange(len(points)), self.layout.smooth
        for _ in range(ROUNDS):
            stuck = self.climb(points, values, rows, smooth)
            moved: set[int] = set()
            for _ in range(SWEEPS):
                rows = self.sweep(points, values, rows, stuck)
                if not len(rows):
                    break
                moved.update(rows.tolist())
                rows = _leaders(values, rows)
            if not moved:
                break
            rows = _leaders(values, np.array(sorted(moved), dtype=np.intp))
            smooth = smooth & ~self.layout.ordered
        return points, values

    def climb(self, points: Floats, values: Floats, rows: Ints, smooth: Bools) -> Bools:
        """Improve rows of the points, and their values, in the smooth columns. Returns which a constraint held up."""
        stuck = np.zeros(len(points), dtype=np.bool_)
        if not (smooth & ~np.isnan(points[rows])).any():
            return stuck
        climb = Ascent(self.acquisition, points[rows], smooth, self.low, self.high)
        for step in range(STEPS):
            if step == TRIAL:
                climb.running = _leaders(climb.values, climb.running)
            trial = climb.propose()
            if not len(trial):
                break
            climb.judge(trial, self.allowed(trial))
        ends = self.space.snap(climb.points)
        worth = climb.values
        if not np.array_equal(ends, climb.points, equal_nan=True):
            worth = np.where(self.allowed(ends), self.acquisition.value(ends), -np.inf)
        up = worth > values[rows]
        if self.known is not None:
            up &= ~self.known(ends)
        points[rows[up]], values[rows[up]] = ends[up], worth[up]
        stuck[rows] = climb.blocked
        return stuck

    def sweep(self, points: Floats, values: Floats, rows: Ints, stuck: Bools) -> Ints:
        """The best single move of each of the rows, made where it improves. Returns the rows that have moved."""
        moves = [self.moves(points, rows, j) for j in self.layout.discrete]
        moves += [self.slides(points[row], row) for row in _leaders(values, rows[stuck[rows]])]
        if not moves:
            return rows[:0]
        origin, trial = (np.concatenate(part) for part in zip(*moves, strict=True))
        trial = self.space.snap(np.clip(trial, self.low, self.high))
        if self.known is not None:
            new = ~self.known(trial)
            origin, trial = origin[new], trial[new]
        worth = self.acquisition.value(trial) if len(trial) else np.empty(0)
        better = []
        for row in rows:
            own = np.flatnonzero((origin == row) & (worth > values[row] + GAIN * abs(values[row])))
            for at in own[np.argsort(-worth[own], kind="stable")]:
                if self.space.allows(trial[at]):
                    points[row], values[row] = trial[at], worth[at]
                    better.append(row)
                    break
        return np.array(better, dtype=np.intp)

    def slides(self, point: Point, row: int) -> tuple[Ints, Floats]:
        """Points along the boundary of a hard constraint that holds the ascent up, and the row they come from.

        How far the ascent may go from the point, and from beside it in each smooth column, gives the boundary's normal;
        what the normal leaves of the slope is the direction.
        """
        free = np.flatnonzero(self.layout.smooth & ~np.isnan(point))
        slope = self.acquisition.gradient(point[None])[1][0, free]
        upwards = slope / max(np.linalg.norm(slope), 1e-300)
        beside = np.where(point[free] + BESIDE <= self.high[free], BESIDE, -BESIDE)
        feet = np.vstack([np.zeros(len(free)), np.diag(beside)]) + point[free]
        reach = self.reach(point, free, feet, upwards)
        normal = (reach[0] - reach[1:]) / beside
        normal /= max(np.linalg.norm(normal), 1e-300)
        along = slope - (slope @ normal) * normal
        lengths = np.geomspace(RADIUS, CLOSE, SLIDES)[:, None]
        trial = np.tile(point, (SLIDES, 1))
        trial[:, free] += lengths * (along / max(np.linalg.norm(along), 1e-300) - INWARD * normal)
        return np.full(SLIDES, row), trial

    def reach(self, point: Point, free: Ints, feet: Floats, upwards: Floats) -> Floats:
        """How far from each foot [q, f] the constraints let go, between -10 and 10 times ``BESIDE``, by halving."""
        far = np.full(len(feet), 10 * BESIDE)
        least = -far
        trial = np.tile(point, (len(feet), 1))
        for _ in range(HALVINGS):
            middle = (least + far) / 2
            trial[:, free] = feet + middle[:, None] * upwards
            ok = self.allowed(trial)
            least, far = np.where(ok, middle, least), np.where(ok, far, middle)
        return least

    def moves(self, points: Floats, rows: Ints, j: int) -> tuple[Ints, Floats]:
        """All points that differ from those of the rows in the discrete column ``j``, and the rows they come from.

        Of many levels, only those near by. Columns that become active take their values from the best candidate there.
        """
        levels = self.layout.levels[j]
        assert levels is not None
        rows = rows[~np.isnan(points[rows, j])]
        at = np.searchsorted(levels, points[rows, j] - 1e-9)
        to = np.arange(len(levels))[None, :] + np.zeros_like(at)[:, None]
        if self.layout.smooth[j]:
            to = at[:, None] + NEAR
        elif len(levels) > MANY:
            to = self.rng.integers(len(levels), size=(len(rows), MANY))
        who, which = np.nonzero((to != at[:, None]) & (to >= 0) & (to < len(levels)))
        trial = points[rows[who]]
        trial[:, j] = levels[to[who, which]]
        below = self.layout.below[j]
        if below:
            options, donors = self.donors[j]
            donor = np.minimum(np.searchsorted(options, trial[:, j]), len(options) - 1)
            fill = np.where((options[donor] == trial[:, j])[:, None], donors[donor], np.nan)[:, below]
            trial[:, below] = np.where(np.isnan(trial[:, below]), fill, trial[:, below])
            trial = np.where(np.isnan(trial), self.rng.random(trial.shape), trial)
        return rows[who], trial
