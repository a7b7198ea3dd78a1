"""Covariance of values between points of a space: Matern-5/2 over an embedding of all kinds of columns.

A point becomes a row of features, and the covariance depends on distances between features alone, so that it is
positive semi-definite whatever the space is made of. A number enters by its position, an unordered column by a code in
which any two options are 1 apart (Hamming distance), an inactive column by the centre of what it could be: two inactive
values are equal, and how far branches are apart is the length-scale of the column that opens them. Where there are
branches, a second term depends on the columns that open them alone: a few points tell that one is better all over.

The prior of the length-scales grows with the number of columns (Hvarfner et al. 2024, arXiv:2402.02229), counted here
as those that are active together.

Where values come from different steps of the training, the logarithm of the step is one more coordinate of a point, and
has a length-scale of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tunesmith.samplers.base import Floats, switches
from tunesmith.space import Column

CODE = 64  #: features at most that an unordered column takes
EDGE = 1e-9  #: positions are kept so far from 0 and 1 before they are warped
ROOT5 = math.sqrt(5.0)

# Mode and deviation of the normal priors of logarithms, least and greatest value
LENGTH = (math.sqrt(2) - 3.0, math.sqrt(3), math.log(0.01), math.log(1e3))  #: for one column; + log(columns) / 2
WARP = (0.0, 0.75, -2.0, 2.0)
SCALE = (0.0, 1.0, -4.0, 4.0)
OFFSET = (-1.0, 1.5, -7.0, 4.0)
NOISE = (-5.0, 2.0, math.log(1e-7), 1.0)
STEP = (math.log(4.0), 1.0, math.log(0.1), math.log(1e3))  #: of logarithms of steps


class Slopes(NamedTuple):
    """A covariance [n, m], its second term, and the derivatives of both with respect to squared distances [n, m].

    The second term, which the covariance includes, and its derivative are None where there are no branches.
    """

    covariance: Floats
    slope: Floats
    offset: Floats | None
    offset_slope: Floats | None


class Kernel:
    """The covariance function of a space, built once for its columns.

    Hyperparameters ``theta`` [size] are logarithms: the length-scale of every column, and of the step if ``steps``; if
    ``warp``, the concentrations a and b of every continuous column; the variance of the first term; where there are
    branches, that of the second; the variance of the noise.

    Args:
        columns: of the space.
        warp: whether positions of continuous columns are warped by Kumaraswamy's distribution function
            (Snoek et al. 2014, arXiv:1402.0929).
        steps: whether points [n, d] have one coordinate more, the logarithm of ``step / last``: [n, d + 1]. Those that
            lack it are taken to be at the last step.

    Attributes:
        size: number of hyperparameters.
        prior: [size, 2], mode and deviation of the normal prior of each.
        bounds: [size, 2], the least and the greatest value of each.
    """

    def __init__(self, columns: Sequence[Column], warp: bool = False, steps: bool = False) -> None:
        self.columns, self.warp, self.steps = tuple(columns), warp, steps
        d = len(self.columns)
        self._codes = [_code(column.levels) if column.kind == "unordered" else None for column in self.columns]
        widths = [1 if code is None else code.shape[1] for code in self._codes]
        self._column = np.repeat(np.arange(d + steps), widths + [1] * steps)  # of each feature; d: the step
        self._at = np.cumsum([0, *widths])  # first feature of each column
        self._numeric = np.array([j for j, code in enumerate(self._codes) if code is None], dtype=np.intp)
        continuous = [j for j, column in enumerate(self.columns) if warp and column.kind == "continuous"]
        self._warped = self._at[continuous]
        opening = switches(self.columns)
        self._offset = np.flatnonzero([j in opening for j in self._column])
        scales = [SCALE] + [OFFSET] * bool(opening) + [NOISE]
        table = np.array([LENGTH] * d + [STEP] * steps + [WARP] * (2 * len(continuous)) + scales)
        table[:d, 0] += np.log([active_with(self.columns, j) for j in range(d)]) / 2
        self.size, self.prior, self.bounds = len(table), table[:, :2], table[:, 2:]

    def complete(self, points: Floats) -> Floats:
        """The points with the coordinate of the step, if there is one: that of the last step, where they lack it."""
        if not self.steps or points.shape[1] > len(self.columns):
            return points
        return np.concatenate([points, np.zeros((len(points), 1))], axis=1)

    def embed(self, points: Floats) -> Floats:
        """Features [n, f] of points [n, d]. They depend on no hyperparameter: ``scaled`` warps and scales them."""
        features = np.empty((len(points), len(self._column)))
        features[:, len(self._column) - self.steps :] = self.complete(points)[:, len(self.columns) :]
        features[:, self._at[self._numeric]] = np.nan_to_num(points[:, self._numeric], nan=0.5)
        for j, code in enumerate(self._codes):
            if code is not None:
                u = points[:, j]
                inactive = np.isnan(u)
                levels = np.minimum(np.where(inactive, 0.0, u) * len(code), len(code) - 1).astype(np.intp)
                at = slice(self._at[j], self._at[j + 1])
                features[:, at] = np.where(inactive[:, None], code.mean(axis=0), code[levels])
        return features

    def scaled(self, theta: Floats, features: Floats) -> Floats:
        """Features [n, f], warped and divided by their length-scales."""
        if len(self._warped):
            features = features.copy()
            features[:, self._warped] = self._warping(theta, features)[0]
        scaled: Floats = features / np.exp(theta[self._column])
        return scaled

    def covariance(self, theta: Floats, a: Floats, b: Floats) -> Floats:
        """Covariance [n, m] between points of scaled features [n, f] and [m, f], without noise."""
        return self.slopes(theta, a, b).covariance

    def slopes(self, theta: Floats, a: Floats, b: Floats) -> Slopes:
        """The covariance between scaled features [n, f] and [m, f], and its derivatives."""
        covariance, slope = matern(squared_distances(a, b))
        scale = math.exp(theta[-3 if len(self._offset) else -2])
        covariance *= scale
        slope *= scale
        if not len(self._offset):
            return Slopes(covariance, slope, None, None)
        offset, steep = matern(squared_distances(a[:, self._offset], b[:, self._offset]))
        variance = math.exp(theta[-2])
        offset *= variance
        steep *= variance
        covariance += offset
        return Slopes(covariance, slope, offset, steep)

    def variance(self, theta: Floats) -> float:
        """Variance of the value at any point, without noise."""
        return float(np.exp(theta[-3 if len(self._offset) else -2 : -1]).sum())

    def gradient(self, theta: Floats, features: Floats, scaled: Floats, w: Floats, parts: Slopes) -> Floats:
        """Half the sum of ``w`` [n, n] times the derivatives of the covariance: [size], 0 for the noise.

        Args:
            theta: [size]
            features: [n, f], of the points.
            scaled: [n, f], the same, scaled.
            w: symmetric; the derivative of twice the log likelihood with respect to the covariance.
            parts: what ``slopes`` gives for these points.
        """
        pull = _pull(w * parts.slope, scaled)
        total = np.zeros(self.size)
        if parts.offset is not None and parts.offset_slope is not None:
            pull[:, self._offset] += _pull(w * parts.offset_slope, scaled[:, self._offset])
            total[-2] = np.vdot(w, parts.offset) / 2
        total[-3 if len(self._offset) else -2] = np.vdot(w, parts.covariance) / 2 - total[-2]
        d, k = len(self.columns) + self.steps, len(self._warped)
        total[:d] = -np.bincount(self._column, np.einsum("ij,ij->j", pull, scaled), d)
        if k:
            pull = pull[:, self._warped] / np.exp(theta[self._column[self._warped]])
            _, _, by_a, by_b = self._warping(theta, features)
            total[d : d + 2 * k] = np.concatenate([(pull * by_a).sum(axis=0), (pull * by_b).sum(axis=0)])
        return total

    def to_cube(self, theta: Floats, points: Floats, slopes: Floats) -> Floats:
        """Derivatives with respect to scaled features [..., q, f], turned into those to points [q, d]: [..., q, d].

        0 for inactive and unordered columns, and without the step.
        """
        at = self._at[self._numeric]
        step = np.repeat(np.exp(-theta[self._column])[None], len(points), axis=0)
        if len(self._warped):
            step[:, self._warped] *= self._warping(theta, self.embed(points))[1]
        result = np.zeros((*slopes.shape[:-1], len(self.columns)))
        result[..., self._numeric] = np.where(np.isnan(points[:, self._numeric]), 0.0, (slopes * step)[..., at])
        return result

    def _warping(self, theta: Floats, features: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """1 - (1 - u^a)^b of the warped features [n, k], and its derivatives to u, log a and log b."""
        d, k = len(self.columns) + self.steps, len(self._warped)
        a, b = np.exp(theta[d : d + 2 * k]).reshape(2, k)
        u = np.clip(features[:, self._warped], EDGE, 1 - EDGE)
        power = u**a
        rest = 1 - power
        outer = rest**b
        inner = a * b * power * outer / rest
        return 1 - outer, inner / u, inner * np.log(u), -b * outer * np.log(rest)


def matern(squared: Floats) -> tuple[Floats, Floats]:
    """(1 + r sqrt 5 + 5/3 r^2) exp(-r sqrt 5) of squared distances r^2, and its derivative with respect to these."""
    root = np.sqrt(squared)
    root *= ROOT5
    slope = np.exp(-root)
    value = squared * slope
    value *= 5.0 / 3.0
    root += 1.0
    slope *= root
    value += slope
    slope *= -5.0 / 6.0
    return value, slope


def squared_distances(a: Floats, b: Floats) -> Floats:
    """Squared Euclidean distances between the rows of [n, f] and [m, f]: [n, m]."""
    squared: Floats = a @ (-2.0 * b.T)
    squared += np.einsum("ij,ij->i", a, a)[:, None]
    squared += np.einsum("ij,ij->i", b, b)
    np.maximum(squared, 0.0, out=squared)
    return squared


def active_with(columns: Sequence[Column], j: int) -> float:
    """How many columns are active on average where column ``j`` is, itself included."""
    chosen: dict[int, set[int]] = {}
    at = columns[j]
    while at.parent is not None:
        chosen[at.parent] = set(at.options)
        at = columns[at.parent]
    shares: list[float] = []
    for column in columns:
        share = 1.0
        if column.parent is not None:
            levels = chosen.get(column.parent, set(range(columns[column.parent].levels)))
            share = shares[column.parent] * len(levels.intersection(column.options)) / len(levels)
        shares.append(share)
    return sum(shares)


def _pull(weights: Floats, scaled: Floats) -> Floats:
    """Derivatives [n, f] of half the sum of ``weights`` [n, n] times squared distances."""
    pull: Floats = 2 * (weights.sum(axis=1)[:, None] * scaled - weights @ scaled)
    return pull


def _code(levels: int) -> Floats:
    """Features of the options of an unordered column, any two at squared distance 1: [levels, f].

    Those of more than ``CODE`` options are random signs, at about this distance.
    """
    if levels <= CODE:
        return np.eye(levels, dtype=np.float64) * math.sqrt(0.5)
    signs = np.random.default_rng(0).integers(0, 2, (levels, CODE))
    return np.where(signs, 1.0, -1.0) * math.sqrt(0.5 / CODE)
