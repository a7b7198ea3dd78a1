"""What :mod:`tunesmith.curves` is made of: the families of curves, a scale for values, Gaussian mixtures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BOUND = 1e300  #: larger values count as this
POINTS = 48  #: of a curve; where there are more steps, points are means over neighbouring ones
CURVATURE = 2.0  #: of the scale: how soon differences above the best value count by their ratio
RANGE = 0.1  #: the scale's unit is at least so much of what a typical curve spans
ORIGIN = 0.03  #: the logarithm of time is that of the share of the way and this


class Scale(NamedTuple):
    """Values on a scale of their own: 0 is the best last value so far, 1 is near the median, and better is less.

    Above 0 the scale is logarithmic in the end, so that one diverging curve does not hide the differences between all
    others. It moves with the values: where all are multiplied and shifted, nothing changes on the scale.
    """

    best: float
    unit: float

    @classmethod
    def of(cls, last: Floats, spans: Floats) -> Scale:
        """The scale of a study, by the last value of every curve and the range that the curve spans."""
        if not len(last):
            return cls(0.0, 1.0)
        best = float(last.min())
        unit = max(float(np.median(last)) - best, RANGE * float(np.median(spans)))
        return cls(best, unit or float(np.ptp(last)) or float(spans.max()))

    def warp(self, values: Floats) -> Floats:
        """From values to the scale; NaN stays NaN. Where all values are equal, another one is infinitely far away."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            z = (np.clip(values, -BOUND, BOUND) - self.best) / self.unit
        z = np.where(values == self.best, 0.0, np.clip(z, -BOUND, BOUND) if self.unit else z)
        warped: Floats = np.where(z > 0, np.log1p(CURVATURE * np.maximum(z, 0.0)) / CURVATURE, z)
        return warped

    def unwarp(self, z: Floats) -> Floats:
        """From the scale to values, at most ``BOUND`` from 0."""
        raised = np.expm1(np.clip(CURVATURE * z, 0.0, 690.0)) / CURVATURE
        with np.errstate(over="ignore"):
            values: Floats = self.best + np.where(z > 0, raised, z) * self.unit
        return np.clip(values, -BOUND, BOUND)


def shapes(x: Floats) -> tuple[Floats, Floats]:
    """The families of curves, as a bank of shapes that fall from 1 to 0 as a whole.

    They are those of Domhan et al. 2015 ("Speeding up automatic hyperparameter optimization of deep neural networks by
    extrapolation of learning curves", table 1) but for position and height, which are fitted, with others beside them
    that rise or drop late. Each has its nonlinear parameters on a grid.

    Args:
        x: [m] ascending, share of the way to the step that is predicted; the last one is 1.

    Returns:
        [k, m], and the prior probability of each [k].
    """
    scales = np.geomspace(0.01, 3.0, 11)
    families = {
        "constant": (0.12, [np.zeros_like(x)]),
        "power law": (0.18, [(x + x0) ** -c for c in (0.25, 0.5, 1.0, 2.0) for x0 in (0.0, 0.03, 0.1)]),
        "logarithm": (0.12, [-np.log(x + x0) for x0 in (0.0, 0.03, 0.1, 0.5)]),
        "inverse logarithm": (0.03, [1 / np.log(math.e + x / r) for r in (0.01, 0.1, 1.0)]),
        "power": (0.08, [*(-(x**c) for c in (0.5, 1.0, 2.0)), np.cos(np.pi * x)]),
        "Janoschek": (0.18, [np.exp(-((x / r) ** d)) for r in scales for d in (0.5, 1.0, 2.0, 4.0)]),
        "Hill": (0.18, [1 / (1 + (x / r) ** d) for r in scales for d in (1.0, 2.0, 4.0)]),
        "overfitting": (0.06, [np.exp(-x / r) + h * x for r in (0.02, 0.07, 0.2) for h in (0.1, 0.3, 1.0, 3.0)]),
        "late drop": (
            0.05,
            [
                np.exp(-x / r) + h / (1 + np.exp((x - at) / 0.01))
                for r in (0.03, 0.2)
                for at in (0.35, 0.5, 0.65, 0.8, 0.93)
                for h in (0.3, 1.0)
            ],
        ),
    }
    bank = np.array([shape for _, members in families.values() for shape in members])
    prior = np.concatenate([np.full(len(members), share / len(members)) for share, members in families.values()])
    return normalised(bank), prior


def normalised(bank: Floats) -> Floats:
    """Shapes [k, m] that end at 0 and span 1, or nothing."""
    bank = bank - bank[:, -1:]
    spans = np.ptp(bank, axis=1, keepdims=True)
    return bank / np.where(spans > 0, spans, 1.0)


def wandering(x: Floats) -> list[Floats]:
    """How curves wander off their family, three ways: covariances [m, m] beside a noise of variance 1.

    Brownian motion in the logarithm of time, a little or much of it, and in time.
    """
    log = np.log1p(x / ORIGIN) / math.log1p(1 / ORIGIN)
    return [share**2 * np.minimum.outer(time, time) for time, share in ((log, 1.0), (log, 5.0), (x, 5.0))]


@dataclass(frozen=True)
class Mixture:
    """Mixtures of normal distributions, one a row: weights, means and variances, each [n, c]."""

    weights: Floats
    means: Floats
    variances: Floats

    def mean(self) -> Floats:
        """[n, 1]."""
        mean: Floats = (self.weights * self.means).sum(axis=1, keepdims=True)
        return mean

    def variance(self) -> Floats:
        """[n, 1]."""
        variance: Floats = (self.weights * (self.variances + (self.means - self.mean()) ** 2)).sum(1, keepdims=True)
        return variance

    def rows(self, rows: object) -> Mixture:
        """Some of the rows."""
        return Mixture(self.weights[rows], self.means[rows], self.variances[rows])  # type: ignore[index]

    def heaviest(self, count: int) -> Mixture:
        """The ``count`` heaviest components of every row, and the others as one of the same mean and variance."""
        if self.weights.shape[1] <= count:
            return self
        order = np.argpartition(-self.weights, count, axis=1)
        kept, others = (self._components(part) for part in (order[:, :count], order[:, count:]))
        share = others.weights.sum(axis=1, keepdims=True)
        even = np.full_like(others.weights, 1 / others.weights.shape[1])
        rest = replace(others, weights=np.where(share > 0, others.weights / np.where(share > 0, share, 1.0), even))
        columns = zip((kept.weights, kept.means, kept.variances), (share, rest.mean(), rest.variance()), strict=True)
        return Mixture(*(np.concatenate(pair, axis=1) for pair in columns))

    def _components(self, index: NDArray[np.intp]) -> Mixture:
        parts = (self.weights, self.means, self.variances)
        return Mixture(*(np.take_along_axis(part, index, axis=1) for part in parts))

    def times(self, other: Mixture, count: int) -> Mixture:
        """The normalised products of the densities with that of ``other`` [1, c] (or [n, c]), ``count`` components."""
        m, v = self.means[:, :, None], self.variances[:, :, None]
        means, variances = other.means[:, None, :], other.variances[:, None, :]
        total = v + variances
        with np.errstate(divide="ignore"):
            logs = np.log(self.weights)[:, :, None] + np.log(other.weights)[:, None, :]
        logs = logs - ((m - means) ** 2 / total + np.log(total)) / 2
        n = len(m)
        logs = (logs - logs.max(axis=(1, 2), keepdims=True)).reshape(n, -1)
        weights = np.exp(logs)
        weights /= weights.sum(axis=1, keepdims=True)
        product = Mixture(weights, ((m * variances + means * v) / total).reshape(n, -1), (v * variances / total).reshape(n, -1))
        return product.heaviest(count)

    def below(self, z: Floats) -> Floats:
        """Probabilities to be less than z [n, k]: [n, k]."""
        from scipy.special import ndtr

        scaled = (z[:, :, None] - self.means[:, None, :]) / np.sqrt(self.variances)[:, None, :]
        found: Floats = np.clip((ndtr(scaled) * self.weights[:, None, :]).sum(axis=2), 0.0, 1.0)
        return found
