"""What noisy values say about the configurations that gave them: a normal model fitted to all of them.

The true means of the configurations are taken as draws from one normal distribution, and the values of a configuration
as draws around its mean, with one variance for all. The three parameters are estimated from the values themselves
(empirical Bayes: Efron and Morris 1975, "Data analysis using Stein's estimator and its generalizations"): the posterior
of a configuration lies between the mean of its own values and the mean of all configurations, and the fewer values it
has the nearer to the latter. So a single lucky value does not win against the mean of many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95  #: probability that an interval covers the mean of its configuration
LEAST = 4  #: fewer configurations say nothing about how configurations differ
REACH = 25.0  #: ``between`` is searched so far from its scale, in logarithms
GRID, ROUNDS = 64, 4  #: points of a grid, and how often it is refined


@dataclass(frozen=True)
class Estimate:
    """The mean of a configuration over training seeds, with its 95% interval, in the units of the metric.

    ``count`` is the number of values that it rests on.
    """

    mean: float
    low: float
    high: float
    count: int


class Noise(NamedTuple):
    """The model: means of configurations are N(mean, between), values of a configuration N(its mean, within).

    ``freedom`` are the degrees of freedom of ``within``: 0 where no configuration has two values, and nothing is known
    about the noise. ``error`` is the variance of ``mean``.
    """

    mean: float
    between: float
    within: float
    freedom: int
    error: float

    def means(self, means: Floats, counts: Floats) -> Floats:
        """Posterior means of configurations [k], of the means and numbers of their values [k]."""
        return means - (1 - self._weights(counts)) * (means - self.mean)

    def variances(self, counts: Floats) -> Floats:
        """Posterior variances of configurations [k] with so many values [k]; the last term is what the mean of all
        configurations, itself an estimate, adds.
        """
        weights = self._weights(counts)
        return weights * self.within / counts + (1 - weights) ** 2 * self.error

    def _weights(self, counts: Floats) -> Floats:
        """What the mean of so many own values weighs, against the mean of all configurations."""
        if self.within == 0 or math.isinf(self.between):
            return np.ones(len(counts))
        return self.between / (self.between + self.within / counts)

    @property
    def reach(self) -> float:
        """Half the width of an interval, in standard deviations: Student's t, since ``within`` is an estimate."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, (1 + LEVEL) / 2))


def fit(means: Floats, counts: Floats, squares: Floats) -> Noise:
    """The model of configurations [k], k >= 1.

    ``within`` is the pooled variance. ``mean`` and ``between`` maximise their (restricted) likelihood, which is as good
    where lucky configurations were picked to be repeated; plain moments would be biased by that. The likelihood is
    multiplied by ``between`` (Li and Lahiri 2010, "An adjusted maximum likelihood method for solving small area
    estimation problems"), so that its maximum is never at 0, where all configurations would look the same.

    Args:
        means: mean of the values of every configuration.
        counts: how many values it has.
        squares: the sum of their squared deviations from it.
    """
    k, freedom = len(means), int(counts.sum()) - len(means)
    with np.errstate(over="ignore", invalid="ignore"):
        within = float(squares.sum()) / freedom if freedom else 0.0
        total = float(means.var(ddof=1)) if k > 1 else math.inf
    if not math.isfinite(within):  # too large for squares: as good as unknown
        within, freedom = 0.0, 0
    if within == 0 or k < LEAST or not math.isfinite(total):
        return Noise(0.0, math.inf, within, freedom, 0.0)
    evidence = _evidence(means, counts, within)
    between = evidence.maximum(total + within)
    weights = evidence.sizes / (between + evidence.errors)
    mean = float(weights @ evidence.centres / weights.sum())
    return Noise(mean, between, within, freedom, float(1 / weights.sum()))


def _evidence(means: Floats, counts: Floats, within: float) -> _Evidence:
    """Configurations by the number of their values: those with the same number are alike."""
    number = counts.astype(np.intp)
    sizes = np.bincount(number).astype(np.float64)
    kinds = np.flatnonzero(sizes)
    centres = np.bincount(number, weights=means)[kinds] / sizes[kinds]
    squared = (means - centres[np.searchsorted(kinds, number)]) ** 2
    spread = np.bincount(number, weights=squared)[kinds].astype(np.float64)
    return _Evidence(sizes[kinds], centres, spread, within / kinds)


class _Evidence(NamedTuple):
    """What is known of ``between``, by kind of configuration: their number, the mean of their means, the sum of squared
    deviations from it, and the variance that noise gives to each.
    """

    sizes: Floats
    centres: Floats
    spread: Floats
    errors: Floats

    def slope(self, between: Floats) -> Floats:
        """Derivative of the logarithm of likelihood times ``between``, by the logarithm of ``between`` [g]: [g]."""
        weights = 1 / (between[:, None] + self.errors)
        sums = weights @ self.sizes
        gaps = self.centres - (weights @ (self.sizes * self.centres) / sums)[:, None]
        misfit = (weights**2 * (self.spread + self.sizes * gaps**2)).sum(axis=1)
        slope: Floats = 1 + between / 2 * (misfit - sums + weights**2 @ self.sizes / sums)
        return slope

    def maximum(self, scale: float) -> float:
        """Where the slope is 0, by a grid that is refined."""
        low, high = math.log(scale) - REACH, math.log(scale) + REACH
        for _ in range(ROUNDS):
            grid = np.linspace(low, high, GRID)
            last = int(np.flatnonzero(self.slope(np.exp(grid)) > 0)[-1])
            low, high = grid[last], grid[min(last + 1, GRID - 1)]
        return math.exp((low + high) / 2)
