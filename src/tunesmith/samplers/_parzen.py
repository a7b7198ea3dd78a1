"""Parzen estimators over the unit cube: mixtures of product kernels, one component an observation and one the prior.

The kernels are those of Bergstra et al. 2011 ("Algorithms for hyper-parameter optimization"), multiplied over the
columns. A number's kernel is a normal cut to [0, 1], of an ordered column its mass in each level's bin; an unordered
column's gives its own level more than the rest. A component that lacks a column, since its branch was not taken, has
the prior's kernel there, so that every component integrates to 1 over all points of all branches.

All densities are against the uniform one: 0 is the logarithm of the density of a uniform draw, whatever the kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from tunesmith.samplers._prior import LEAST
from tunesmith.samplers.base import Floats
from tunesmith.space import Column, Space

Bandwidth = Literal["hyperopt", "scott", "optuna"]
Integers = NDArray[np.int64]

TABLE = 32  #: an ordered column of more levels is treated as a continuous one: a bin is then narrower than a kernel
FINE = 4096  #: positions that are looked at to find the levels of a column
TINY = 1e-300  #: least mass of a bin
ROOT = np.sqrt(2 * np.pi)


class Coded(NamedTuple):
    """Points as the kernels want them; -1 or NaN where a column is inactive.

    Attributes:
        numbers: [n, normal] positions.
        bins: [grid, n] levels.
        nominal: [nominal, n] levels.
    """

    numbers: Floats
    bins: Integers
    nominal: Integers

    def take(self, rows: NDArray[Any]) -> Coded:
        """Some of the points."""
        return Coded(self.numbers[rows], self.bins[:, rows], self.nominal[:, rows])


class Layout:
    """Columns of a space, by the way in which they are computed.

    Args:
        space: where the points come from.
        chosen: indices of the columns to look at.
        centres: of the levels, as `levels` gives them.

    Attributes:
        normal, grid, nominal: indices of columns with a density, with bins, and without an order.
        mode, spread: [normal + grid] the prior's normal: the middle with deviation 1, or what an expert believes.
        centres, edges: [grid, most levels], [grid, most levels + 1] of the bins, filled up with 1.
        belief, even: [nominal, most levels] the prior's mass of each level, and that of no prior; filled up with 0.
    """

    def __init__(self, space: Space, chosen: Sequence[int], centres: Mapping[int, Floats]) -> None:
        columns = {j: space.columns[j] for j in chosen}
        few = [j for j in columns if j in centres]
        unordered = [j for j, column in columns.items() if column.kind == "unordered"]
        self.columns, self.dimensions = tuple(chosen), len(columns)
        self.grid, self.nominal = np.array(few, dtype=np.int64), np.array(unordered, dtype=np.int64)
        self.normal = np.array([j for j in columns if j not in few and j not in unordered], dtype=np.int64)
        beliefs = [columns[j].prior or (0.5, 0.0) for j in (*self.normal, *few)]
        self.mode = np.array([mode for mode, _ in beliefs])
        self.spread = np.array([max(1 - confidence, LEAST) for _, confidence in beliefs])
        self._levels([columns[j] for j in unordered])
        width = max((len(centres[j]) for j in few), default=0)
        self.centres, self.edges = np.ones((len(few), width)), np.ones((len(few), width + 1))
        for k, j in enumerate(few):
            self.centres[k, : len(centres[j])] = centres[j]
            self.edges[k, 0] = 0.0
            for level in range(len(centres[j]) - 1):  # a centre is the middle of its bin
                self.edges[k, level + 1] = 2 * centres[j][level] - self.edges[k, level]
        self.rows, self.inner = np.arange(len(few))[:, None], self.edges[:, 1:-1, None]
        self.widths = np.maximum(self.edges[:, 1:] - self.edges[:, :-1], TINY)[:, None]

    def _levels(self, unordered: Sequence[Column]) -> None:
        self.levels = np.array([column.levels for column in unordered], dtype=np.int64)[:, None]
        self.belief = np.zeros((len(unordered), int(self.levels.max(initial=1))))
        for row, column in zip(self.belief, unordered, strict=True):
            mode, confidence = column.prior or (0.0, 0.0)
            row[: column.levels] = max(1 - confidence, 1e-12) / column.levels
            row[int(mode * column.levels)] += confidence
        self.even = (np.arange(self.belief.shape[1]) < self.levels) / self.levels

    def code(self, points: Floats) -> Coded:
        """The points [n, d], as `space.snap` gives them, for the kernels of these columns."""
        u, v = points[:, self.grid].T, points[:, self.nominal].T
        bins = np.where(np.isnan(u), -1, (u[:, None] >= self.inner).sum(axis=1))
        nominal = np.where(np.isnan(v), -1.0, v * self.levels).astype(np.int64)
        return Coded(points[:, self.normal], bins, nominal)


def levels(space: Space) -> dict[int, Floats]:
    """Positions of the levels of the ordered columns that have few, by the index of the column."""
    few = (j for j, column in enumerate(space.columns) if column.kind == "ordered" and column.levels <= TABLE)
    return {j: space.positions(j) for j in few}


def bandwidths(values: Floats, mode: Floats, rule: Bandwidth, dimensions: int) -> Floats:
    """Deviations of the kernels at values [n, c] in [0, 1] (NaN: none), before they are clipped: [n, c].

    Args:
        values: centres of the kernels.
        mode: [c], where the prior is centred; it counts as a neighbour.
        rule: ``"hyperopt"``: the distance to the farther one of the two neighbours (Bergstra et al. 2011); ``"scott"``:
            ``1.059 n^(-1/5)`` times the deviation or the scaled quartile range, whichever is smaller; ``"optuna"``:
            ``0.2 n^(-1/(dimensions+4))``.
        dimensions: number of columns that a kernel is a product over.
    """
    if rule == "hyperopt":
        padded = np.full((len(values) + 3, values.shape[1]), np.nan)
        padded[1:-2], padded[-2] = values, mode
        order = padded[1:-1].argsort(axis=0)
        padded[1:-1] = np.take_along_axis(padded[1:-1], order, axis=0)
        gaps = padded[1:] - padded[:-1]
        found = np.empty_like(gaps[1:])
        np.put_along_axis(found, order, np.fmax(gaps[:-1], gaps[1:]), axis=0)
        kept: Floats = found[:-1]
        return kept
    count = (~np.isnan(values)).sum(axis=0).clip(1)
    if rule == "optuna":
        return np.broadcast_to(0.2 * count ** (-1 / (dimensions + 4)), values.shape)
    known, padded = np.isfinite(values), np.sort(np.vstack([values, np.full((1, values.shape[1]), np.nan)]), axis=0)
    mean = np.where(known, values, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / count)
    spread = np.fmin(deviation, (_quantile(padded, count, 0.75) - _quantile(padded, count, 0.25)) / 1.34)
    return np.broadcast_to(1.059 * spread * count**-0.2, values.shape)


def _quantile(ordered: Floats, count: Integers, share: float) -> Floats:
    """The quantile of the first ``count`` [c] values of each column [n, c], between neighbours linear: [c]."""
    position = share * (count - 1)
    low = position.astype(np.int64)
    below, above = (np.take_along_axis(ordered, at[None], axis=0)[0] for at in (low, np.minimum(low + 1, count - 1)))
    quantile: Floats = below + (position - low) * (above - below)
    return quantile


def between(centres: Floats, present: NDArray[np.bool_], mode: Floats) -> Floats:
    """The hyperopt rule for bins, by level: neighbours are the levels that are ``present``, and the prior's mode.

    All of shape [c, levels] but the mode, [c].
    """
    seen = np.full((len(centres), centres.shape[1] + 2), np.nan)
    seen[:, 1:-1][present] = centres[present]
    at = mode[:, None]
    below = np.fmax(np.fmax.accumulate(seen, axis=1)[:, :-2], np.where(at < centres, at, np.nan))
    above = np.fmin(np.fmin.accumulate(seen[:, ::-1], axis=1)[:, -3::-1], np.where(at > centres, at, np.nan))
    gaps = np.fmax(centres - below, above - centres)
    return np.where(np.isnan(gaps), 1.0, gaps)


class Mixture:
    """A weighted mixture of product kernels, one component a point and one, the last, for the prior.

    Args:
        layout: the columns to look at.
        points: k points, as ``layout.code`` gives them.
        weights: [k], at least 0.
        prior: weight of the prior's component.
        rule: of the bandwidths.
        floor: least bandwidth; with k points at least ``(k + 2)^-2``, and ``1 / (k + 2)`` where there are bins.
        expert: whether the prior is what experts believe; otherwise a wide normal and even masses.
    """

    def __init__(
        self, layout: Layout, points: Coded, weights: Floats, prior: float = 1.0,
        rule: Bandwidth = "hyperopt", floor: float = 0.0, expert: bool = True,
    ) -> None:  # fmt: skip
        self.layout = layout
        mode = layout.mode if expert else np.full_like(layout.mode, 0.5)
        spread = layout.spread if expert else np.ones_like(layout.spread)
        self.belief = layout.belief if expert else layout.even
        self.weights = np.append(weights, prior)
        self.weights /= self.weights.sum()
        self.keep = 1 / (1 + layout.levels / len(self.weights))  # Optuna's pseudo-counts: the rest is the prior's
        lacking = np.full((len(layout.nominal), 1), -1)
        self.nominal = np.concatenate([points.nominal, lacking], axis=1)
        split = len(layout.normal)
        kernels = len(weights) + 2.0
        self._numbers(points.numbers, mode[:split], spread[:split], rule, max(floor, kernels**-2))
        self._bins(points, mode[split:], spread[split:], rule, max(floor, 1 / kernels))

    def _numbers(self, values: Floats, mode: Floats, spread: Floats, rule: Bandwidth, floor: float) -> None:
        """Centres and widths [k + 1, normal] of the kernels that have a density."""
        centre, width = np.empty((2, len(values) + 1, len(mode)))
        centre[:-1], centre[-1] = values, mode
        width[:-1], width[-1] = bandwidths(values, mode, rule, self.layout.dimensions), spread
        np.minimum(np.maximum(width[:-1], floor), 1.0, out=width[:-1])
        lacking = np.isnan(centre)
        self.centre, self.width = np.where(lacking, mode, centre), np.where(lacking, spread, width)
        inside = ndtr((1 - self.centre) / self.width) - ndtr(-self.centre / self.width)
        quadratic = -0.5 / self.width**2
        linear = -2 * quadratic * self.centre
        constant = -0.5 * linear * self.centre - np.log(ROOT * self.width * inside)
        self.terms = np.concatenate([quadratic, linear, constant], axis=1).T

    def _bins(self, points: Coded, mode: Floats, spread: Floats, rule: Bandwidth, floor: float) -> None:
        """Levels [grid, k + 1] of the kernels that have bins, and the kernel of each level; the last is the prior's."""
        layout = self.layout
        count, width = layout.centres.shape
        self.bins = np.concatenate([points.bins, np.full((count, 1), -1)], axis=1)
        self.middles, self.widths = np.empty((2, count, width + 1))
        self.table = np.zeros((count, width + 1, width + 1))  # the last column: of inactive points
        if not count:
            return
        present = np.zeros((count, width + 1), dtype=np.bool_)
        present[layout.rows, self.bins] = True
        if rule == "hyperopt":
            wide = between(layout.centres, present[:, :-1], mode)
        else:
            values = np.where(self.bins < 0, np.nan, layout.centres[layout.rows, self.bins]).T
            wide = bandwidths(values, mode, rule, layout.dimensions)[:1].T
        self.middles[:, :-1], self.middles[:, -1] = layout.centres, mode
        self.widths[:, :-1], self.widths[:, -1] = np.minimum(np.maximum(wide, floor), 1.0), spread
        below = ndtr((layout.edges[:, None] - self.middles[:, :, None]) / self.widths[:, :, None])
        mass = below[:, :, 1:] - below[:, :, :-1]
        inside = below[:, :, -1:] - below[:, :, :1]
        self.table[:, :, :-1] = np.log(np.maximum(mass, TINY) / (inside * layout.widths))

    def log_kernels(self, points: Coded) -> Floats:
        """Logarithm of each component's density at the points, without the columns that are inactive: [n, k + 1]."""
        layout = self.layout
        active = ~np.isnan(points.numbers)
        x = np.where(active, points.numbers, 0.0)
        total: Floats = np.concatenate([x * x, x, active], axis=1) @ self.terms
        if len(layout.grid):
            rows = layout.rows[:, :, None]
            total += self.table[rows, self.bins[:, None], points.bins[:, :, None]].sum(axis=0)
        if len(layout.nominal):
            inactive = points.nominal < 0
            rows = np.arange(len(layout.nominal))[:, None]
            prior = np.where(inactive, 1.0, self.belief[rows, points.nominal] * layout.levels)
            miss = np.where(inactive, 1.0, (1 - self.keep) * prior)
            hit = np.where(inactive, 1.0, miss + self.keep * layout.levels)
            same = points.nominal[:, :, None] == self.nominal[:, None]
            total += np.where(same, np.log(hit / miss)[:, :, None], 0.0).sum(axis=0)
            total += np.log(prior / miss).T @ (self.nominal < 0) + np.log(miss).sum(axis=0)[:, None]
        return total

    def log_density(self, points: Coded) -> Floats:
        """Logarithm of the density at n points: [n]. Columns that are inactive are integrated out."""
        logs = self.log_kernels(points)
        top = logs.max(axis=1)
        logs -= top[:, None]
        density: Floats = np.log(np.exp(logs, out=logs) @ self.weights) + top
        return density

    def draw(self, points: Floats, rng: np.random.Generator) -> None:
        """Fill in what is NaN in the points [n, d], in this layout's columns, by draws given the rest of the point.

        The rest must be the same in all points.
        """
        layout, weights = self.layout, self.weights
        missing = np.isnan(points[0])
        if not missing.all():
            logs = self.log_kernels(layout.code(points[:1]))[0]
            weights = weights * np.exp(logs - logs.max())
        share = np.cumsum(weights)
        chosen = np.searchsorted(share[:-1], rng.random(len(points)) * share[-1], side="right")
        bins = self.bins[:, chosen]
        centre = np.concatenate([self.centre[chosen].T, self.middles[layout.rows, bins]])
        width = np.concatenate([self.width[chosen].T, self.widths[layout.rows, bins]])
        low, high = ndtr(-centre / width), ndtr((1 - centre) / width)
        numbers = centre + width * ndtri(low + rng.random(centre.shape) * (high - low))
        kept = self.nominal[:, chosen]
        uniform, again = rng.random((2, *kept.shape))
        fresh = (uniform[:, :, None] > np.cumsum(self.belief, axis=1)[:, None]).sum(axis=2)
        level = np.where((kept >= 0) & (again < self.keep), kept, np.minimum(fresh, layout.levels - 1))
        drawn = np.concatenate([numbers, (level + 0.5) / layout.levels])
        columns = np.concatenate([layout.normal, layout.grid, layout.nominal])
        points[:, columns[missing[columns]]] = drawn[missing[columns]].T
