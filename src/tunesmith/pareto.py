"""Several goals at once: non-domination ranks, crowding, hypervolume, and an order of all trials from them.

Everything is minimised and free of NaN, unless said otherwise. One point dominates another if it is nowhere worse and
somewhere better.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BOUND = 1e307  #: larger values count as this, so that differences stay finite


def ranks(values: Floats) -> Ints:
    """Non-domination ranks (Deb et al. 2002): 0 for the Pareto front, 1 for the front of the rest, and so on.

    Args:
        values: [n, m]; may be infinite. Equal points have equal ranks.

    Returns:
        [n]. Takes O(n log n) for up to two columns, O(m n^2) at most for more.
    """
    distinct, inverse = np.unique(values, axis=0, return_inverse=True)  # in lexicographic order
    m = values.shape[1]
    if m == 1:
        found = np.arange(len(distinct))
    elif m == 2:
        found = _ranks2(distinct)
    else:
        found = _peeled(distinct)
    ranked: Ints = found[inverse.reshape(-1)]
    return ranked


def _ranks2(points: Floats) -> Ints:
    """Ranks of distinct points in lexicographic order: the length of the longest chain that ends in each."""
    lowest: list[float] = []  # by rank: the second value of the last point of this rank
    found = np.empty(len(points), dtype=np.int64)
    for i, second in enumerate(points[:, 1].tolist()):
        rank = bisect_right(lowest, second)
        lowest[rank : rank + 1] = [second]
        found[i] = rank
    return found


def _peeled(points: Floats) -> Ints:
    """Ranks of distinct points in lexicographic order, one front after another."""
    found = np.empty(len(points), dtype=np.int64)
    left = np.arange(len(points))
    rank = 0
    while len(left):
        front = _front(points[left])
        found[left[front]] = rank
        left = left[~front]
        rank += 1
    return found


def _front(points: Floats) -> Bools:
    """Which of the distinct points in lexicographic order are dominated by none: [n]."""
    front = np.zeros(len(points), dtype=np.bool_)
    left = np.arange(len(points))
    while len(left):
        front[left[0]] = True
        left = left[(points[left] < points[left[0]]).any(axis=1)]
    return front


def crowding(values: Floats) -> Floats:
    """Crowding distances within one front (Deb et al. 2002, section III-B): how lonely each point is.

    Args:
        values: [n, m].

    Returns:
        [n]: the sum over the columns of the distance between the two neighbours, as a share of the column's range; inf
        at the ends of a column. Of equal points the first one counts, the others have 0.
    """
    distinct, first = np.unique(np.clip(values, -BOUND, BOUND), axis=0, return_index=True)
    total = np.zeros(len(distinct))
    for column in distinct.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        total[order[:1]] = total[order[-1:]] = np.inf
        span = np.ptp(ordered) if len(ordered) else 0.0
        if span > 0:
            total[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    distances = np.zeros(len(values))
    distances[first] = total
    return distances


def reference(values: Floats) -> Floats:
    """A reference point a little worse than the worst: ``max(1.1 worst, 0.9 worst)`` in every column.

    Where the worst is 0, a tenth of the column's range above it (1 if there is no range).

    Args:
        values: [n, m], n > 0.

    Returns:
        [m], finite.
    """
    values = np.clip(values, -BOUND, BOUND)
    worst = values.max(axis=0)
    span = worst - values.min(axis=0)
    return np.where(worst == 0, np.where(span > 0, span / 10, 1.0), np.maximum(1.1 * worst, 0.9 * worst))


def hypervolume(values: Floats, reference: Floats) -> float:
    """Volume of what the points dominate up to the reference point, exactly.

    Args:
        values: [n, m].
        reference: [m]; points that are not better in every column count nothing.

    Returns:
        The volume; inf where it is larger than a float.
    """
    inside = values[(values < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    gains, spans = _gains(inside, reference)
    with np.errstate(over="ignore", under="ignore"):
        return float(_volume(gains) * np.prod(spans))


def select(values: Floats, reference: Floats, k: int) -> Ints:
    """A subset of large hypervolume: one point after another, each time the one that adds most.

    The result has at least 1 - 1/e of the largest volume that k points can have. Contributions only shrink, so an old
    one is a bound, and only the points that look best are computed again (lazy greedy).

    Args:
        values: [n, m].
        reference: [m].
        k: how many points; all, if there are fewer.

    Returns:
        [min(k, n)], rows of ``values`` in the order of their choice; ties go to the lower row.
    """
    if not len(values):
        return np.empty(0, dtype=np.int64)
    gains, _ = _gains(values, reference)
    heap = [(-float(volume), row, 0) for row, volume in enumerate(np.prod(gains, axis=1))]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < k:
        volume, row, after = heapq.heappop(heap)
        if after < len(chosen) and volume < 0:
            covered = _volume(np.minimum(gains[chosen], gains[row]))
            heapq.heappush(heap, (min(0.0, covered - float(np.prod(gains[row]))), row, len(chosen)))
        else:
            chosen.append(row)
    return np.array(chosen, dtype=np.int64)


def _gains(values: Floats, reference: Floats) -> tuple[Floats, Floats]:
    """By how much points are better than the reference, as shares of the largest gain: [n, m], and those gains [m]."""
    gains = np.clip(reference, -BOUND, BOUND) - np.clip(values, -BOUND, BOUND)
    gains = np.where((gains > 0).all(axis=1, keepdims=True), gains, 0.0)
    spans = gains.max(axis=0)
    return gains / np.where(spans > 0, spans, 1.0), spans


def _volume(gains: Floats) -> float:
    """Volume of the union of the boxes from 0 to each point [n, m], m > 0.

    Two and three columns by a sweep; more by slices along the last column, as the exclusive volumes of WFG (While,
    Bradstreet & Barone 2012), so that each level has one column less.
    """
    m = gains.shape[1]
    if m == 1:
        return float(gains.max(initial=0.0))
    gains = gains[np.argsort(-gains[:, -1], kind="stable")]
    if m == 2:
        width = np.maximum.accumulate(gains[:, 0])
        return float(np.sum(np.diff(width, prepend=0.0) * gains[:, 1]))
    if m == 3:
        return _volume3(gains)
    total = 0.0
    for i, gain in enumerate(gains[:, :-1]):
        covered = _volume(_undominated(np.minimum(gains[:i, :-1], gain))) if i else 0.0
        total += float(gains[i, -1]) * max(0.0, float(np.prod(gain)) - covered)
    return total


def _volume3(gains: Floats) -> float:
    """The volume for three columns, sorted by the last one: the area below the staircase grows level by level."""
    widths = np.sort(gains[:, 0])
    steps = np.diff(widths, prepend=0.0)
    heights = np.zeros(len(gains))  # of the staircase above each step
    depths = np.diff(gains[:, 2], append=0.0)
    total = 0.0
    for (x, y), ends, depth in zip(gains[:, :2], np.searchsorted(widths, gains[:, 0], "right"), depths, strict=True):
        if x > 0:
            np.maximum(heights[:ends], y, out=heights[:ends])
        total -= float(depth) * float(heights @ steps)
    return total


def _undominated(gains: Floats) -> Floats:
    """The distinct points that no other one beats."""
    losses = np.unique(-gains, axis=0)
    return -losses[_front(losses)]


def order(losses: Floats, excess: Floats) -> Ints:
    """The place of every trial among all: constrained domination (Deb et al. 2002, section VI), made a total order.

    First come those that break no constraint, by rank and then by crowding within their rank, the lonely ones first;
    then those that do, by how much they break (each constraint as a share of the largest excess), then as before;
    last those without values.

    Args:
        losses: [n, m]; rows with NaN have failed.
        excess: [n, c], by how much each outcome constraint is broken; NaN counts as broken most.

    Returns:
        [n], a permutation of 0 to n - 1: 0 is the best. Ties go to the earlier row.
    """
    n = len(losses)
    failed = np.isnan(losses).any(axis=1)
    rank = np.zeros(n, dtype=np.int64)
    lonely = np.zeros(n)
    over = np.where(failed, 0.0, _violation(excess))
    for level in (over > 0, over == 0):
        rows = np.flatnonzero(level & ~failed)
        rank[rows] = ranks(losses[rows])
        lonely[rows] = _within(losses[rows], rank[rows])
    places = np.empty(n, dtype=np.int64)
    places[np.lexsort((-lonely, rank, over, failed))] = np.arange(n)
    return places


def _within(losses: Floats, rank: Ints) -> Floats:
    """Crowding distances, rank by rank: [n]."""
    distances = np.zeros(len(losses))
    if losses.shape[1] > 1:
        for level in range(int(rank.max(initial=-1)) + 1):
            rows = np.flatnonzero(rank == level)
            distances[rows] = crowding(losses[rows])
    return distances


def _violation(excess: Floats) -> Floats:
    """Total excess over the constraints [n], each as a share of the largest; 0 where none is broken."""
    over = np.clip(excess, 0.0, BOUND)
    largest = np.fmax.reduce(over, axis=0, initial=0.0)
    shares = np.nan_to_num(over / np.where(largest > 0, largest, 1.0), nan=1.0)
    total: Floats = shares.sum(axis=1)
    return total
