"""Where learning curves will end: a posterior predictive for partial curves, learned from all curves of a study.

The value of a curve at the share ``x`` of the way to the step that is predicted is taken as

    ``a + b * shape(x) + wandering(x) + noise``

where ``shape`` is one of a bank: families of curves with their nonlinear parameters on a grid (Domhan, Springenberg and
Hutter 2015, "Speeding up automatic hyperparameter optimization of deep neural networks by extrapolation of learning
curves"), and the curves that have been seen to their end (Chandrashekaran and Lane 2017, "Speeding up hyper-parameter
optimization by extrapolation of learning curves using previous builds"). ``wandering`` is Brownian motion, ``noise``
independent. Given the shape and the size of the noise all else is normal, so the posterior of ``a`` and ``b`` is known
in closed form, the whole posterior is a finite sum, and many curves are done in a few calls of numpy. Nothing is drawn.

Three things are learned from the study, which is what makes the predictions worth having:

* the scale of the values (:class:`tunesmith._curves.Scale`), on which everything else happens;
* the distribution of the values that curves end with, as a mixture around those seen and predicted so far; it is the
  prior of ``a``;
* how often curves that were seen to their end had ended elsewhere than their first part said: that share of every
  prediction is the distribution of all curves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from tunesmith._curves import (
    BOUND,
    Floats,
    Ints,
    Mixture,
    Points,
    Scale,
    families,
    normalise_logs,
    normalised,
    together,
    wandering,
)
from tunesmith._threads import one_thread

NOISE = np.geomspace(0.002, 1.0, 7)  #: standard deviations of the noise, equally likely
DROP = 0.25, 0.5  #: ``b``: mean and standard deviation
TRUST, DOUBT = 0.7, 0.35  #: so much of a change that is extrapolated is believed, and so much of it is uncertain
EXAMPLES = 24  #: so many curves seen to their end are shapes and are looked back at
SHARE, HALF = 0.3, 5.0  #: the prior probability of these shapes: half of SHARE where there are HALF, and SHARE of many
LOOKS = (0.25, 0.5, 0.75)  #: shares of the way at which is asked what the curves seen had said
UNRELATED = 1.0, 2.0  #: before any was seen: so many had ended elsewhere, and so many had not
NOVEL, WIDE = 3.0, 1.5  #: the distribution of all ends has such a wide part, with the weight of so many curves
FLAT = 1 / 3.0**2  #: precision of ``a`` (its mean is 1) before the distribution of all ends is taken into account
SHARPENED = 2  #: how often what unfinished curves say is sharpened by what they say together
NARROW = 0.01  #: of kernels
BLOCKS = 24  #: of ends, where there are many
COMPONENTS = 48  #: of a mixture
SAMPLE = 128  #: so many unfinished curves are enough
ROUNDS = 20  #: of EM
TINY = 1e-300


@dataclass(frozen=True)
class Forecast:
    """Predictive distributions of the values of n curves at a later step. They are never NaN."""

    scale: Scale
    mixture: Mixture

    def below(self, threshold: ArrayLike) -> Floats:
        """The probability that a value is less than ``threshold``: [n], for an array of thresholds [n, *its shape]."""
        thresholds = np.asarray(threshold, dtype=np.float64)
        found = self.mixture.below(self.scale.warp(thresholds.reshape(1, -1)))
        return found.reshape(-1, *thresholds.shape)

    def quantile(self, q: ArrayLike) -> Floats:
        """The value that is not exceeded with probability ``q``: [n], for an array [n, *its shape].

        Raises:
            ValueError: ``q`` is not in (0, 1).
        """
        levels = np.asarray(q, dtype=np.float64)
        if not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"q={q!r} must be in (0, 1)")
        wanted = levels.reshape(1, -1)
        reach = 40 * np.sqrt(self.mixture.variances)
        low, high = ((self.mixture.means + side * reach) for side in (-1, 1))
        low, high = low.min(axis=1, keepdims=True) + 0 * wanted, high.max(axis=1, keepdims=True) + 0 * wanted
        for _ in range(60):
            middle = (low + high) / 2
            under = self.mixture.below(middle) < wanted
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return self.scale.unwarp(high).reshape(-1, *levels.shape)

    @property
    def median(self) -> Floats:
        """The best guess of the values: [n]."""
        return self.quantile(0.5)

    @property
    def mean(self) -> Floats:
        """The means of the values: [n]. Where a curve may yet diverge they are far above the medians."""
        values, weights = self._nodes()
        mean: Floats = (values * weights).sum(axis=1)
        return mean

    @property
    def sd(self) -> Floats:
        """The standard deviations of the values: [n]."""
        values, weights = self._nodes()
        gaps = values - (values * weights).sum(axis=1, keepdims=True)
        largest = abs(gaps).max(axis=1, keepdims=True)
        shares = np.divide(gaps, largest, out=np.zeros_like(gaps), where=largest > 0)
        sd: Floats = largest[:, 0] * np.sqrt((shares**2 * weights).sum(axis=1))
        return sd

    def _nodes(self) -> tuple[Floats, Floats]:
        """Values [n, k] and weights [n, k] of sum 1 with about these distributions."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(9)
        mixture, flat = self.mixture, (-1, self.mixture.weights.shape[1] * len(nodes))
        z = mixture.means[:, :, None] + np.sqrt(mixture.variances)[:, :, None] * nodes
        both = mixture.weights[:, :, None] * (weights / weights.sum())
        return self.scale.unwarp(z.reshape(flat)), both.reshape(flat)


class Extrapolator:
    """What the curves of a study say about where curves end. Smaller values are better.

    Multiplying all values by a positive number and shifting them does the same to every forecast. Equal curves give
    equal forecasts: there is no randomness.

    Args:
        steps: [m] ascending, at least 1.
        values: [n, m], one row a curve; NaN where a curve has no value, or none yet.
        until: the step that is predicted, at least the last of ``steps``. Curves with a value there are *finished*.

    Raises:
        ValueError: arguments that are not so.
    """

    @one_thread
    def __init__(self, steps: ArrayLike, values: ArrayLike, until: int) -> None:
        self.steps, self.until = _steps(steps, until), until
        curves = self._curves(values)
        curves = curves[~np.isnan(curves).all(axis=1)]
        last = np.array([curve[~np.isnan(curve)][-1] for curve in curves])
        self.scale = Scale.of(last, np.nanmin(curves, axis=1, initial=BOUND), np.nanmax(curves, axis=1, initial=-BOUND))
        self._points = Points(self.steps, until)
        self._wandering = wandering(self._points.x)
        z, counts = self._points.of(self.scale.warp(curves))
        finished = np.flatnonzero(counts[:, -1] > 0)
        examples = finished[np.argsort(z[finished, -1], kind="stable")]
        examples = examples[_evenly(len(examples), EXAMPLES)]
        self._bank, self._prior = self._shapes(z[examples])
        self._unrelated = np.full(len(LOOKS), UNRELATED[0] / sum(UNRELATED))
        ends = self._ends(z, counts, finished)
        self._population = _population(ends)
        if len(examples):
            self._look_back(z[examples], counts[examples], ends, np.searchsorted(finished, examples))

    @one_thread
    def forecast(self, values: ArrayLike) -> Forecast:
        """Where curves [n, m], over the same steps, will end. A curve without a value is one that has not begun.

        A finished curve ends where it has ended.
        """
        z, counts = self._points.of(self.scale.warp(self._curves(values)))
        parts = (self._fit(z[i : i + SAMPLE], counts[i : i + SAMPLE]) for i in range(0, max(len(z), 1), SAMPLE))
        mixture = together([part.times(self._population, COMPONENTS) for part in parts])
        mixture = mixture.mixed(self._population, self._unrelated[self._look(counts)][:, None])
        ended = counts[:, -1] > 0
        mixture.weights[ended] = 1 / mixture.weights.shape[1]
        mixture.means[ended], mixture.variances[ended] = z[ended, -1:], 1e-20
        return Forecast(self.scale, mixture)

    def _curves(self, values: ArrayLike) -> Floats:
        """Values [n, m] as floats; what is not finite counts as not known."""
        curves = np.asarray(values, dtype=np.float64)
        if curves.ndim != 2 or curves.shape[1] != len(self.steps):
            raise ValueError(f"values must be of shape [n, {len(self.steps)}], one row a curve, not {curves.shape}")
        return np.where(np.isfinite(curves), np.clip(curves, -BOUND, BOUND), np.nan)

    def _shapes(self, examples: Floats) -> tuple[Floats, Floats]:
        """The bank [k, p]: members of the families and curves seen to their end, gaps filled; its prior [k]."""
        x = self._points.x
        share = SHARE * len(examples) / (len(examples) + HALF)
        bank, prior = [], []
        for probability, members in families(x).values():
            bank.append(members)
            prior.append(np.full(len(members), (1 - share) * probability / len(members)))
        if len(examples):
            seen = ~np.isnan(examples)
            filled = [np.interp(x, x[s], curve[s]) for s, curve in zip(seen, examples, strict=True)]
            bank.append(normalised(np.array(filled)))
            prior.append(np.full(len(examples), share / len(examples)))
        return np.concatenate(bank), np.concatenate(prior)

    # -- one curve --------------------------------------------------------------------------------------------------

    def _fit(self, z: Floats, counts: Floats, *, examples: bool = False) -> Mixture:
        """What curves [n, p] by themselves say about their ends: their posterior where every end is as likely.

        ``examples``: they are the examples of the bank, and none may be its own shape.
        """
        n, noise = len(z), len(NOISE)
        logs = np.empty((n, len(self._wandering), noise, len(self._bank)))
        means, variances = np.empty_like(logs), np.empty_like(logs)
        patterns, members = np.unique(counts[:, :-1], axis=0, return_inverse=True)
        for k, pattern in enumerate(patterns):  # curves with values at the same steps share all but these values
            rows = np.flatnonzero(members.reshape(-1) == k)
            for w, covariance in enumerate(self._wandering):
                logs[rows, w], means[rows, w], variances[rows, w] = self._regress(z[rows], pattern, covariance)
        if examples:
            own = np.arange(n)
            logs[own, :, :, len(self._bank) - n + own] = -np.inf
        flat = n, math.prod(logs.shape[1:])
        whole = Mixture(normalise_logs(logs.reshape(flat)), means.reshape(flat), variances.reshape(flat))
        mixture = whole.heaviest(COMPONENTS)
        now = np.array([_now(curve) for curve in z[:, :-1]])[:, None]
        change = np.where(np.isnan(now), 0.0, mixture.means - now)
        return replace(
            mixture, means=mixture.means - (1 - TRUST) * change, variances=mixture.variances + (DOUBT * change) ** 2
        )

    def _regress(self, z: Floats, pattern: Floats, covariance: Floats) -> tuple[Floats, Floats, Floats]:
        """Bayesian linear regression of curves [n, p] on each shape, for each size of the noise.

        Args:
            z: curves with values at the same points.
            pattern: [p - 1], how many values a point is the mean of; 0 where there is none.
            covariance: of wandering [p, p].

        Returns:
            The logarithm of prior times evidence [n, noise, shapes], and of the value at the end the posterior means
            [n, noise, shapes] and variances [noise, shapes].
        """
        seen = np.flatnonzero(pattern)
        root = np.linalg.cholesky(covariance[np.ix_(seen, seen)] + np.diag(1 / pattern[seen]))
        columns = np.concatenate([np.ones((1, len(seen))), covariance[-1:, seen], self._bank[:, seen], z[:, seen]])
        white = np.linalg.solve(root, columns.T)
        one, end, shapes, y = (
            white[:, 0],
            white[:, 1],
            white[:, 2 : 2 + len(self._bank)],
            white[:, 2 + len(self._bank) :],
        )
        sharp = 1 / NOISE[:, None] ** 2
        # the posterior of (a, b) has the precision [[aa, ab], [ab, bb]]
        aa, ab = FLAT + sharp * (one @ one), sharp * (one @ shapes)
        bb = 1 / DROP[1] ** 2 + sharp * (shapes**2).sum(axis=0)
        determinant = aa * bb - ab**2
        ha = (y.T @ one)[:, None, None] * sharp + FLAT
        hb = (y.T @ shapes)[:, None, :] * sharp + DROP[0] / DROP[1] ** 2
        a, b = (bb * ha - ab * hb) / determinant, (aa * hb - ab * ha) / determinant
        fixed = np.log(self._prior) - np.log(determinant) / 2 - len(seen) * np.log(NOISE)[:, None]
        logs = fixed - np.log(np.diag(root)).sum() + (ha * a + hb * b - (y**2).sum(axis=0)[:, None, None] * sharp) / 2
        # the value at the end is a, which the shapes do not change, plus what wandering goes on with
        by_a, by_b = 1 - end @ one, -(end @ shapes)
        means = a * by_a + b * by_b + (y.T @ end)[:, None, None]
        spread = (bb * by_a**2 - 2 * ab * by_a * by_b + aa * by_b**2) / determinant
        return logs, means, spread + (1 + covariance[-1, -1] - end @ end) / sharp

    # -- all curves -------------------------------------------------------------------------------------------------

    def _ends(self, z: Floats, counts: Floats, finished: Ints) -> Mixture:
        """Where curves have ended or will, one component a curve, the finished ones first.

        What unfinished curves say by themselves is too wide; it is sharpened by what all of them say together.
        """
        seen = z[finished, -1]
        going = np.flatnonzero(counts[:, -1] == 0)
        some = going[_evenly(len(going), SAMPLE)]
        weights = np.append(np.ones(len(seen)), np.full(len(some), len(going) / max(len(some), 1)))

        def ends(guess: Mixture) -> Mixture:
            means = np.append(seen, guess.mean())[None]
            variances = np.append(np.zeros(len(seen)), guess.variance())[None]
            return Mixture(weights[None], means, variances)

        guess = alone = self._fit(z[some], counts[some])
        for _ in range(SHARPENED if len(some) else 0):
            guess = alone.times(_population(ends(guess)), COMPONENTS)
        return ends(guess)

    def _look_back(self, z: Floats, counts: Floats, ends: Mixture, places: Ints) -> None:
        """Learn from finished curves [n, p], whose ``places`` among all ends are known, how often they ended elsewhere
        than their first part had said: the mixing proportion of the distribution of all other curves, by EM.
        """
        population = together([_population(_without(ends, place)) for place in places])
        truth = z[:, -1:]
        elsewhere = population.density(truth)
        for k, share in enumerate(LOOKS):
            early = self._points.x <= share
            before = self._fit(np.where(early, z, np.nan), np.where(early, counts, 0.0), examples=True)
            expected = before.times(population, COMPONENTS).density(truth)
            for _ in range(ROUNDS):
                mine = self._unrelated[k] * elsewhere
                blamed = mine / (mine + (1 - self._unrelated[k]) * expected + TINY)
                self._unrelated[k] = (UNRELATED[0] + blamed.sum()) / (sum(UNRELATED) + len(z))

    def _look(self, counts: Floats) -> Ints:
        """Which of the ``LOOKS`` is nearest to the last value of each curve [n]."""
        last = np.where(counts[:, :-1] > 0, self._points.x[:-1], 0.0).max(axis=1, initial=0.0)
        nearest: Ints = abs(last[:, None] - np.array(LOOKS)).argmin(axis=1)
        return nearest


def extrapolate(steps: ArrayLike, values: ArrayLike, until: int) -> Forecast:
    """Where the curves of a study will end: one call for :class:`Extrapolator` and its forecast of the same curves."""
    return Extrapolator(steps, values, until).forecast(values)


def _steps(steps: ArrayLike, until: int) -> Ints:
    """Checked."""
    found = np.asarray(steps)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"steps must be a list of integers, not {steps!r}")
    if (np.diff(found, prepend=0) < 1).any():
        raise ValueError(f"steps must ascend and be at least 1, not {found.tolist()}")
    if isinstance(until, bool) or not isinstance(until, int | np.integer) or until < max(1, *found.tolist(), 1):
        raise ValueError(f"until={until} must be an integer, at least the last step, {max(found, default=1)}")
    return found.astype(np.int64)


def _now(curve: Floats) -> float:
    """Where a curve [p] stands: the median of its last three points, NaN where it has none."""
    seen = curve[~np.isnan(curve)][-3:]
    return float(np.median(seen)) if len(seen) else math.nan


def _evenly(n: int, count: int) -> Ints:
    """``count`` of n indices at most, evenly, the first and the last among them."""
    return np.arange(n) if n <= count else np.round(np.linspace(0, n - 1, count)).astype(np.int64)


def _without(ends: Mixture, place: int) -> Mixture:
    """All ends but one."""
    return ends.map(lambda part: np.delete(part, place, axis=1))


def _edges(n: int) -> Ints:
    """Where the blocks of n sorted ends begin: the first ones are of one end each, the later ones larger and larger."""
    if n <= BLOCKS:
        return np.arange(n)
    single = BLOCKS // 2
    return np.append(np.arange(single), np.geomspace(single, n, single, endpoint=False)).astype(np.int64)


def _population(ends: Mixture) -> Mixture:
    """The distribution of all ends [1, c], from one component a curve: a kernel density estimate and a wide part.

    A kernel reaches as far as neighbouring ends lie apart, so a crowd at the best end promises nothing far better.
    Of many curves those that end near each other share a component, except the best ones, which decide what is
    likely to beat them.
    """
    order = np.argsort(ends.means[0], kind="stable")
    weights, means, variances = ends.weights[0, order], ends.means[0, order], ends.variances[0, order]
    n = len(means)
    if not n:
        return Mixture(np.ones((1, 1)), np.ones((1, 1)), np.full((1, 1), WIDE**2))
    apart, i = round(math.sqrt(n)), np.arange(n)
    above, below = np.minimum(i + apart, n - 1), np.maximum(i - apart, 0)
    kernels = np.maximum((means[above] - means[below]) / np.where(above - below > apart, 2, 1), NARROW)
    if n == 1:
        kernels = np.ones(1)
    edges = _edges(n)
    heavy = np.add.reduceat(weights, edges)
    centre = np.add.reduceat(weights * means, edges) / heavy
    spread = np.add.reduceat(weights * (variances + kernels**2 + means**2), edges) / heavy - centre**2
    total = heavy.sum() + NOVEL
    return Mixture(
        np.append(heavy, NOVEL)[None] / total,
        np.append(centre, np.median(means))[None],
        np.append(np.maximum(spread, NARROW**2), WIDE**2)[None],
    )
