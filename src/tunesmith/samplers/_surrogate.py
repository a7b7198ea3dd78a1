"""Gaussian-process regression over a space (Rasmussen and Williams 2006, chapters 2 and 5).

Hyperparameters are those of the greatest posterior density (MAP), found by L-BFGS-B with analytic gradients. Between
fits the posterior grows by rows of its Cholesky factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dtrtrs
from scipy.optimize import Bounds, minimize

from tunesmith.samplers._kernel import Kernel
from tunesmith.samplers.base import Floats

__all__ = ["Kernel", "Surrogate"]

JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0)  #: tried on the diagonal, in units of the variance
LEAST = 1e-14  #: least variance of the posterior, in units of the prior's
SPREAD = 0.7  #: deviation of further starts from the prior's mode, in deviations of the prior


@dataclass(frozen=True)
class Surrogate:
    """Posterior of a Gaussian process, in the units of y as given (the caller standardises).

    ``y`` may have leading axes, one vector of values for each of several fantasies of what pending points will give;
    then means and their derivatives have these axes too. Deviations do not depend on the values.

    Attributes:
        kernel: the covariance function.
        theta: [p], its log hyperparameters.
        points: [n, d], in the cube, NaN where inactive; [n, d + 1] where the kernel has the step too.
        y: [..., n]
        counts: [n], how many measurements each value is the mean of.
        scaled: [n, f], features of the points.
        factor: [n, n], lower Cholesky factor of the covariance of y; what is above the diagonal means nothing.
        weights: [..., n], the inverse of that covariance times y.
    """

    kernel: Kernel
    theta: Floats
    points: Floats
    y: Floats
    counts: Floats
    scaled: Floats
    factor: Floats
    weights: Floats

    @property
    def noise(self) -> float:
        """Variance of one measurement."""
        return math.exp(self.theta[-1])

    @property
    def evidence(self) -> float:
        """Log posterior density of the hyperparameters, up to a constant."""
        mode, deviation = self.kernel.prior.T
        away = (self.theta - mode) / deviation
        log_determinant = 2 * float(np.log(np.diag(self.factor)).sum())
        return -0.5 * (float(self.y @ self.weights) + log_determinant + float(away @ away))

    # -- posteriors ---------------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        kernel: Kernel,
        points: Floats,
        y: Floats,
        counts: Floats | None = None,
        theta: Floats | None = None,
        restarts: int = 1,
        iterations: int = 50,
    ) -> Surrogate:
        """The posterior at the most probable hyperparameters that were found.

        Args:
            kernel: the covariance function.
            points: [n, d], n > 0.
            y: [n], finite.
            counts: [n], how many measurements each value is the mean of; default: one.
            theta: [p], where to start, as the last fit has found it.
            restarts: further starts: the prior's mode, then fixed draws around it. At least one without ``theta``.
            iterations: steps of the optimiser from each start.
        """
        counts = _counts(y, counts)
        features = kernel.embed(points)
        mode, deviation = kernel.prior.T
        draws = np.random.default_rng(0).normal(size=(restarts, kernel.size)) * SPREAD
        draws[:1] = 0.0
        starts = [*([] if theta is None else [theta]), *(mode + deviation * draws)] or [mode]
        found = [
            minimize(
                _loss,
                np.clip(start, *kernel.bounds.T),
                (kernel, features, y, counts),
                method="L-BFGS-B",
                jac=True,
                bounds=Bounds(*kernel.bounds.T),
                options={"maxiter": iterations, "maxfun": 2 * iterations},
            )
            for start in starts
        ]
        best = min(found, key=lambda result: float(result.fun))
        return cls.condition(kernel, best.x, points, y, counts)

    @classmethod
    def condition(
        cls, kernel: Kernel, theta: Floats, points: Floats, y: Floats, counts: Floats | None = None
    ) -> Surrogate:
        """The posterior at given hyperparameters; arguments as for ``fit``."""
        counts, points = _counts(y, counts), kernel.complete(points)
        scaled = kernel.scaled(theta, kernel.embed(points))
        covariance = kernel.covariance(theta, scaled, scaled)
        covariance.flat[:: len(scaled) + 1] += np.exp(theta[-1]) / counts
        factor = _cholesky(covariance, kernel.variance(theta))
        return cls(kernel, theta, points, y, counts, scaled, factor, _solve(factor, y))

    def extend(self, points: Floats, y_all: Floats, counts_all: Floats | None = None) -> Surrogate:
        """The posterior with further points, at the same hyperparameters, in O(n^2 k).

        Args:
            points: [k, d], the new ones; there may be none, where only values have changed.
            y_all: [..., n + k], all values, since the old ones may have been standardised anew.
            counts_all: [n + k], of all values. Where a count of an old one has changed, the cost is O(n^3).
        """
        counts, n, k = _counts(y_all, counts_all), len(self.points), len(points)
        together = np.concatenate([self.points, self.kernel.complete(points)])
        if not np.array_equal(counts[:n], self.counts):
            return Surrogate.condition(self.kernel, self.theta, together, y_all, counts)
        if not k:
            return replace(self, y=y_all, weights=_solve(self.factor, y_all))
        scaled = self._place(points)
        corner = _forward(self.factor, self.kernel.covariance(self.theta, self.scaled, scaled))
        rest = self.kernel.covariance(self.theta, scaled, scaled) - corner.T @ corner
        rest.flat[:: k + 1] += self.noise / counts[n:]
        factor = np.zeros((n + k, n + k), order="F")
        factor[:n, :n], factor[n:, :n] = self.factor, corner.T
        factor[n:, n:] = _cholesky(rest, self.kernel.variance(self.theta))
        features = np.concatenate([self.scaled, scaled])
        return replace(
            self, points=together, y=y_all, counts=counts, scaled=features, factor=factor, weights=_solve(factor, y_all)
        )

    # -- what they say ------------------------------------------------------------------------------------------------

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Mean [..., q] and deviation [q] of the values at the points [q, d], without noise."""
        scaled = self._place(points)
        covariance = self.kernel.covariance(self.theta, self.scaled, scaled)
        half = _forward(self.factor, covariance)
        return self.weights @ covariance, self._deviation(np.einsum("ij,ij->j", half, half))

    def means(self, points: Floats) -> Floats:
        """The means alone, without a solution for each point: [..., q]."""
        means: Floats = self.weights @ self.kernel.covariance(self.theta, self.scaled, self._place(points))
        return means

    def gradients(self, points: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Mean [..., q], deviation [q], and their derivatives [..., q, d] and [q, d] with respect to the points.

        Derivatives are 0 for inactive and unordered columns.
        """
        kernel, theta = self.kernel, self.theta
        scaled = self._place(points)
        parts = kernel.slopes(theta, scaled, self.scaled)
        half = _forward(self.factor, parts.covariance.T)
        sd = self._deviation(np.einsum("ij,ij->j", half, half))
        by_mean = _steer(parts.slope * self.weights[..., None, :], scaled, self.scaled)
        solved = dtrtrs(self.factor, half, lower=1, trans=1)[0]
        by_variance = _steer(-2.0 * parts.slope * solved.T, scaled, self.scaled)
        mean = self.weights @ parts.covariance.T
        dsd = kernel.to_cube(theta, points, by_variance) / (2 * sd[:, None])
        return mean, sd, kernel.to_cube(theta, points, by_mean), dsd

    def _place(self, points: Floats) -> Floats:
        """Scaled features [q, f] of the points [q, d]."""
        return self.kernel.scaled(self.theta, self.kernel.embed(points))

    def _deviation(self, explained: Floats) -> Floats:
        variance = self.kernel.variance(self.theta)
        return np.sqrt(np.maximum(variance - explained, LEAST * variance))


def _loss(theta: Floats, kernel: Kernel, features: Floats, y: Floats, counts: Floats) -> tuple[float, Floats]:
    """Negative log posterior density of hyperparameters, up to a constant, and its derivatives [p].

    The derivative of the log likelihood with respect to the covariance is W / 2, W = weights weights^T - inverse
    (Rasmussen and Williams 2006, equation 5.9).
    """
    n = len(y)
    scaled = kernel.scaled(theta, features)
    parts = kernel.slopes(theta, scaled, scaled)
    noise = np.exp(theta[-1]) / counts
    covariance = parts.covariance.copy()
    covariance.flat[:: n + 1] += noise
    factor = _cholesky(covariance, kernel.variance(theta))
    weights = _solve(factor, y)
    likelihood = -0.5 * float(y @ weights) - float(np.log(np.diag(factor)).sum())
    lower = np.tril(dpotri(factor, lower=1)[0])
    w = np.multiply.outer(weights, weights) - lower - lower.T
    w.flat[:: n + 1] += np.diag(lower)
    gradient = kernel.gradient(theta, features, scaled, w, parts)
    gradient[-1] = 0.5 * float(np.diag(w) @ noise)
    mode, deviation = kernel.prior.T
    away = (theta - mode) / deviation
    return 0.5 * float(away @ away) - likelihood, away / deviation - gradient


def _steer(weights: Floats, a: Floats, b: Floats) -> Floats:
    """Derivatives to ``a`` [q, f] of the sums of ``weights`` [..., q, n] times squared distances to ``b`` [n, f]."""
    slopes: Floats = 2 * (weights.sum(axis=-1)[..., None] * a - weights @ b)
    return slopes


def _counts(y: Floats, counts: Floats | None) -> Floats:
    return np.ones(y.shape[-1]) if counts is None else np.asarray(counts, dtype=np.float64)


def _cholesky(matrix: Floats, unit: float) -> Floats:
    """Lower Cholesky factor [n, n]. Where rounding stands against it, ever more is added to the diagonal."""
    for jitter in JITTERS:
        shaken = matrix.T.copy(order="K")  # in the order of LAPACK's
        shaken.T.flat[:: len(matrix) + 1] += jitter * unit
        factor: Floats
        factor, failed = dpotrf(shaken, lower=1, clean=0, overwrite_a=1)
        if not failed:
            return factor
    raise ValueError("the covariance of the points is not finite")


def _forward(factor: Floats, right: Floats) -> Floats:
    """The factor's inverse times ``right`` [n, q]."""
    solved: Floats = dtrtrs(factor, right, lower=1)[0]
    return solved


def _solve(factor: Floats, y: Floats) -> Floats:
    """The inverse of the factored matrix times every vector of ``y`` [..., n]."""
    solved: Floats = dtrtrs(factor, _forward(factor, y.T), lower=1, trans=1)[0].T
    return solved
