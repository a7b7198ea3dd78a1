"""What :mod:`tunesmith.curves` is made of: points of curves, a scale for values, families of shapes, mixtures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BOUND = 1e300  #: larger values count as this
FAR = 1e4  #: and on the scale, lower ones as minus this
POINTS = 48  #: of a curve at most; where there are more steps, points are means over neighbouring ones
CURVATURE = 2.0  #: of the scale: how soon differences above the best value count by their ratio
RANGE = 0.1  #: the scale's unit is at least so much of what a typical curve spans
ORIGIN = 0.03  #: the logarithm of time is that of the share of the way and this


class Points:
    """Which steps make one point of a curve: one each, or more and more of them where there are many steps.

    Attributes:
        x: [p] ascending, share of the way to the step that is predicted; the last one, 1, is this step alone.
    """

    def __init__(self, steps: Ints, until: int) -> None:
        before = steps[steps < until]
        bins = np.arange(len(before))
        if len(before) >= POINTS:
            spread = np.sqrt(before / until) * (POINTS - 1)
            bins = np.unique(spread.astype(np.int64), return_inverse=True)[1]
        count = int(bins.max(initial=-1)) + 1
        means = np.bincount(bins, before, count) / np.bincount(bins, minlength=count)
        self.x: Floats = np.append(means / until, 1.0)
        self._point = np.append(bins, np.full(len(steps) - len(before), count))

    def of(self, values: Floats) -> tuple[Floats, Floats]:
        """Curves [n, steps] as points [n, p], NaN where nothing is known, and how many values each is the mean of."""
        seen = np.isfinite(values)
        counts, sums = np.zeros((2, len(self.x), len(values)))
        np.add.at(counts, self._point, seen.T)
        np.add.at(sums, self._point, np.where(seen, values, 0.0).T)
        return np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan).T, counts.T


class Scale(NamedTuple):
    """Values on a scale of their own: 0 is the best last value so far, 1 is near the median, and less is better.

    Above 0 the scale is logarithmic in the end, so that one diverging curve does not hide the differences between all
    others. It moves with the values: where all are multiplied and shifted, nothing changes on the scale.
    """

    best: float
    unit: float
    worst: float

    @classmethod
    def of(cls, last: Floats, lowest: Floats, highest: Floats) -> Scale:
        """The scale of a study, by the last, the lowest and the highest value of every curve [n], bounded."""
        if not len(last):
            return cls(0.0, 1.0, 1.0)
        best, spans = float(last.min()), highest - lowest
        unit = max(float(np.median(last)) - best, RANGE * float(np.median(spans)))
        return cls(best, unit or float(np.ptp(last)) or float(spans.max()), float(highest.max()))

    def warp(self, values: Floats) -> Floats:
        """From values to the scale; NaN stays NaN. Where all values are equal any other one is far away."""
        gaps = np.clip(values, -BOUND, BOUND) - self.best
        with np.errstate(over="ignore"):
            z = np.clip(gaps / self.unit if self.unit else np.sign(gaps) * BOUND, -FAR, BOUND)
        warped: Floats = np.where(z > 0, np.log1p(CURVATURE * np.maximum(z, 0.0)) / CURVATURE, z)
        return warped

    def unwarp(self, z: Floats) -> Floats:
        """From the scale to values, at most three times as far from the best one as the worst one seen."""
        raised = np.expm1(np.clip(CURVATURE * z, 0.0, 700.0)) / CURVATURE
        with np.errstate(over="ignore"):
            values: Floats = self.best + np.where(z > 0, raised, z) * self.unit
        return np.minimum(values, self.best + 3 * (self.worst - self.best))


def families(x: Floats) -> dict[str, tuple[float, Floats]]:
    """The families of curves over the points x [p] ascending to 1: prior probability, and members [k, p].

    They are those of Domhan et al. 2015 ("Speeding up automatic hyperparameter optimization of deep neural networks by
    extrapolation of learning curves", section 3.1) up to position and height, which are fitted, and others that rise or
    drop late. Nonlinear parameters are on a grid, so the members of a family are alike.
    """
    scales = np.geomspace(0.01, 3.0, 11)
    members: dict[str, tuple[float, list[Floats]]] = {
        "constant": (0.12, [np.zeros_like(x)]),
        "power law": (0.18, [(x + x0) ** -c for c in (0.25, 0.5, 1.0, 2.0) for x0 in (0.0, 0.03, 0.1)]),
        "logarithm": (0.12, [-np.log(x + x0) for x0 in (0.0, 0.03, 0.1, 0.5)]),
        "inverse logarithm": (0.03, [1 / np.log(math.e + x / s) for s in (0.01, 0.1, 1.0)]),
        "parabola": (0.08, [*(-(x**c) for c in (0.5, 1.0, 2.0)), np.cos(np.pi * x)]),
        "Janoschek": (0.18, [np.exp(-((x / s) ** c)) for s in scales for c in (0.5, 1.0, 2.0, 4.0)]),
        "Hill": (0.18, [1 / (1 + (x / s) ** c) for s in scales for c in (1.0, 2.0, 4.0)]),
        "overfitting": (0.06, [np.exp(-x / s) + h * x for s in (0.02, 0.07, 0.2) for h in (0.1, 0.3, 1.0, 3.0)]),
        "late drop": (
            0.05,
            [
                np.exp(-x / s) + h / (1 + np.exp((x - at) / 0.01))
                for s in (0.03, 0.2)
                for at in (0.35, 0.5, 0.65, 0.8, 0.93)
                for h in (0.3, 1.0)
            ],
        ),
    }
    return {name: (share, normalised(np.array(shapes))) for name, (share, shapes) in members.items()}


def normalised(shapes: Floats) -> Floats:
    """Shapes [k, p] that end at 0 and span 1, or nothing."""
    shapes = shapes - shapes[:, -1:]
    spans = np.ptp(shapes, axis=1, keepdims=True)
    return shapes / np.where(spans > 0, spans, 1.0)


def wandering(x: Floats) -> list[Floats]:
    """How curves wander off their shape, in three ways: covariances [p, p], as multiples of the variance of the noise.

    Brownian motion in the logarithm of time, a little or much of it, and in time.
    """
    log = np.log1p(x / ORIGIN) / math.log1p(1 / ORIGIN)
    return [strength**2 * np.minimum.outer(time, time) for time, strength in ((log, 1.0), (log, 5.0), (x, 5.0))]


@dataclass(frozen=True)
class Mixture:
    """Mixtures of normal distributions, one a row: weights (of sum 1), means and variances, each [n, c]."""

    weights: Floats
    means: Floats
    variances: Floats

    def map(self, change: Callable[[Floats], Floats]) -> Mixture:
        """The same change of weights, means and variances."""
        return Mixture(change(self.weights), change(self.means), change(self.variances))

    def mean(self) -> Floats:
        """[n, 1]."""
        mean: Floats = (self.weights * self.means).sum(axis=1, keepdims=True)
        return mean

    def variance(self) -> Floats:
        """[n, 1]."""
        variance: Floats = (self.weights * (self.variances + (self.means - self.mean()) ** 2)).sum(1, keepdims=True)
        return variance

    def heaviest(self, count: int) -> Mixture:
        """The ``count`` heaviest components of every row, and the others as one of the same mean and variance."""
        if self.weights.shape[1] <= count:
            return self
        order = np.argpartition(-self.weights, count, axis=1)
        kept = self.map(lambda part: np.take_along_axis(part, order[:, :count], axis=1))
        others = self.map(lambda part: np.take_along_axis(part, order[:, count:], axis=1))
        share = others.weights.sum(axis=1, keepdims=True)
        even = np.full_like(others.weights, 1 / others.weights.shape[1])
        rest = replace(others, weights=np.divide(others.weights, share, out=even, where=share > 0))
        whole = replace(kept, weights=kept.weights / (1 - share))
        return whole.mixed(Mixture(np.ones_like(share), rest.mean(), rest.variance()), share)

    def mixed(self, other: Mixture, share: Floats) -> Mixture:
        """A ``share`` [n, 1] of the mixtures ``other`` [n, c] (or [1, c]) among these."""
        n = len(self.weights)
        mine = replace(self, weights=self.weights * (1 - share))
        theirs = other.map(lambda part: np.broadcast_to(part, (n, part.shape[1])))
        return together([mine, replace(theirs, weights=theirs.weights * share)], axis=1)

    def times(self, other: Mixture, count: int) -> Mixture:
        """The product of the densities with those of ``other`` [n, c] (or [1, c]), normalised, ``count`` components."""
        m, v = self.means[:, :, None], self.variances[:, :, None]
        means, variances = other.means[:, None, :], other.variances[:, None, :]
        total = v + variances
        with np.errstate(divide="ignore"):
            logs = np.log(self.weights)[:, :, None] + np.log(other.weights)[:, None, :]
        logs = logs - ((m - means) ** 2 / total + np.log(total)) / 2
        flat = -1, self.weights.shape[1] * other.weights.shape[1]
        products = ((m * variances + means * v) / total, v * variances / total)
        weights = normalise_logs(logs.reshape(flat))
        return Mixture(weights, *(part.reshape(flat) for part in products)).heaviest(count)

    def below(self, z: Floats) -> Floats:
        """Probabilities to be less than z [n, k] (or [1, k]): [n, k]."""
        from scipy.special import ndtr

        scaled = (z[:, :, None] - self.means[:, None, :]) / np.sqrt(self.variances)[:, None, :]
        found: Floats = np.minimum((ndtr(scaled) * self.weights[:, None, :]).sum(axis=2), 1.0)
        return found

    def density(self, z: Floats) -> Floats:
        """Densities at z [n, 1]: [n]."""
        peaks = np.exp(-((z - self.means) ** 2) / (2 * self.variances)) / np.sqrt(2 * math.pi * self.variances)
        found: Floats = (peaks * self.weights).sum(axis=1)
        return found


def together(mixtures: Sequence[Mixture], axis: int = 0) -> Mixture:
    """Mixtures below each other, or their components side by side."""
    weights, means, variances = zip(*((one.weights, one.means, one.variances) for one in mixtures), strict=True)
    return Mixture(*(np.concatenate(parts, axis=axis) for parts in (weights, means, variances)))


def normalise_logs(logs: Floats) -> Floats:
    """Weights [n, c] of sum 1 from their logarithms [n, c]."""
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    normal: Floats = weights / weights.sum(axis=1, keepdims=True)
    return normal
