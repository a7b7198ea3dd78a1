"""Acquisition functions: what a point is worth to be tried next, from what surrogates say about it.

Losses are minimised and acquisitions maximised. First the rules, functions of a normal belief about one value, with
their derivatives: expected improvement (Jones et al. 1998) and probability of improvement, both also as logarithms that
stay exact where the functions themselves underflow (Ament et al. 2023, arXiv:2310.20708), and the confidence bound
(Srinivas et al. 2010). Then the acquisitions: objects with two methods,

* ``value(points [q, d])`` gives [q];
* ``gradient(points [q, d])`` gives the values [q] and their derivatives [q, d] with respect to the unit cube, 0 in
  inactive and unordered columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, ndtr

from tunesmith.samplers._boxes import boxes
from tunesmith.samplers._prior import LEAST, log_marginal, log_prior
from tunesmith.samplers._surrogate import Surrogate
from tunesmith.samplers.base import Bools, Floats
from tunesmith.space import Column

TINY = 1e-60  #: least deviation that the rules reckon with
OUTSIDE = -1e9  #: value outside a branch
SURE = 1e8  #: measurements whose mean has (nearly) no noise
FAR = 50.0  #: so many deviations away, the tail is a series
EPSILON = 1e-15  #: least share of a box in what lies below its upper end
DOUBT = 0.01  #: density where experts believe nothing to be, against that at their mode
AUGMENT = 0.05  #: weight of the sum in the scalarisation of ParEGO

Terms = tuple[Floats, Floats, Floats]  #: value, its derivative by the mean, and by the deviation
Ints = NDArray[np.intp]
Rule = Callable[[Floats, Floats, Floats], Terms]

# -- rules --------------------------------------------------------------------------------------------------------


def log_ei(mean: Floats, sd: Floats, best: Floats) -> Terms:
    """Logarithm of the expected improvement below ``best``. The arguments are broadcast against each other."""
    z, sd = _standard(mean, sd, best)
    log_h, density, mass = _log_h(z)
    return log_h + np.log(sd), -mass / sd, density / sd


def ei(mean: Floats, sd: Floats, best: Floats) -> Terms:
    """Expected improvement below ``best``."""
    z, sd = _standard(mean, sd, best)
    log_h, _, _ = _log_h(z)
    return sd * np.exp(log_h), -ndtr(z), _density(z)


def log_pi(mean: Floats, sd: Floats, best: Floats) -> Terms:
    """Logarithm of the probability to be below ``best``."""
    z, sd = _standard(mean, sd, best)
    t = np.maximum(-z, 0.0)
    scaled = erfcx(t / math.sqrt(2))  # 2 Phi(-t) exp(t^2 / 2)
    log = np.where(z < 0, -0.5 * t * t + np.log(scaled / 2), np.log1p(-ndtr(-np.maximum(z, 0.0))))
    ratio = np.where(z < 0, math.sqrt(2 / math.pi) / scaled, _density(z) / ndtr(np.maximum(z, 0.0)))
    return log, -ratio / sd, -z * ratio / sd


def pi(mean: Floats, sd: Floats, best: Floats) -> Terms:
    """Probability to be below ``best``."""
    z, sd = _standard(mean, sd, best)
    return ndtr(z), -_density(z) / sd, -z * _density(z) / sd


def ucb(mean: Floats, sd: Floats, beta: Floats) -> Terms:
    """How low the value may be: the mean less ``beta`` deviations, with its sign changed. ``beta`` = 0: the mean."""
    value = beta * sd - mean
    return value, np.full_like(value, -1.0), np.broadcast_to(np.asarray(beta, dtype=np.float64), value.shape)


def _log_sum(values: Floats, axis: int) -> Floats:
    """log(sum(exp(values))) along an axis."""
    most = values.max(axis=axis, keepdims=True)
    total: Floats = np.log(np.exp(values - most).sum(axis=axis)) + most.squeeze(axis)
    return total


LOGARITHMIC: tuple[Rule, ...] = (log_ei, log_pi)


def _standard(mean: Floats, sd: Floats, best: Floats) -> tuple[Floats, Floats]:
    """By how many deviations the mean lies below ``best``, and the deviation, kept away from 0."""
    sd = np.maximum(sd, TINY)
    return (best - mean) / sd, sd


def _density(z: Floats) -> Floats:
    found: Floats = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return found


def _log_h(z: Floats) -> Terms:
    """For h(z) = phi(z) + z Phi(z): log h, phi / h and Phi / h, each to (nearly) full precision for every z.

    Below -1, h = phi(z) r with r = 1 - t Phi(-t) / phi(t) and t = -z, from the scaled complementary error function;
    far out r is the series 1/t^2 - 3/t^4 + 15/t^6 - ..., which the difference would cancel.
    """
    near = np.maximum(z, -1.0)
    phi, cdf = _density(near), ndtr(near)
    h = phi + near * cdf
    t = np.maximum(-z, 1.0)
    mills = math.sqrt(math.pi / 2) * erfcx(t / math.sqrt(2))
    square = 1 / (t * t)
    series = square * (1 - square * (3 - square * (15 - square * (105 - square * 945))))
    r = np.where(t < FAR, 1 - t * mills, series)
    tail = z < -1
    log = np.where(tail, -0.5 * t * t - 0.5 * math.log(2 * math.pi) + np.log(r), np.log(h))
    return log, np.where(tail, 1 / r, phi / h), np.where(tail, mills / r, cdf / h)


# -- acquisitions -------------------------------------------------------------------------------------------------


class Acquisition(Protocol):
    """What a point is worth to be tried next; see the module."""

    def value(self, points: Floats) -> Floats:
        """The values of points [q, d]: [q]."""
        ...

    def gradient(self, points: Floats) -> tuple[Floats, Floats]:
        """The values [q] of points [q, d], and their derivatives [q, d]."""
        ...


class Model(Protocol):
    """What acquisitions need of a surrogate: a normal belief about the value at each point.

    A surrogate has one mean [q]; with S fantasies of what pending points will give, there are S means [S, q], and one
    deviation [q], which does not depend on what they give.
    """

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Mean [q] or [S, q] and deviation [q]."""
        ...

    def gradients(self, points: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Mean, deviation, and their derivatives [q, d] or [S, q, d], and [q, d]."""
        ...


class Expected:
    """A rule, averaged over fantasies; of a rule in logarithms, the logarithm of the average.

    Args:
        model: with one mean or S means.
        rule: one of the rules above.
        best: what the rule compares with: one number, or one for each fantasy [S].
    """

    def __init__(self, model: Model, rule: Rule, best: float | Floats) -> None:
        self.model, self.rule = model, rule
        self.best = np.atleast_1d(np.asarray(best, dtype=np.float64))[:, None]

    def value(self, points: Floats) -> Floats:
        """The values of points [q, d]: [q]."""
        mean, sd = self.model.predict(points)
        return self._average(self.rule(np.atleast_2d(mean), sd, self.best)[0])[0]

    def gradient(self, points: Floats) -> tuple[Floats, Floats]:
        """The values [q] of points [q, d], and their derivatives [q, d]."""
        mean, sd, dmean, dsd = self.model.gradients(points)
        values, by_mean, by_sd = self.rule(np.atleast_2d(mean), sd, self.best)
        average, share = self._average(values)
        slopes = (share * by_mean)[:, :, None] * dmean.reshape(-1, *dsd.shape)
        return average, slopes.sum(axis=0) + (share * by_sd).sum(axis=0)[:, None] * dsd

    def _average(self, values: Floats) -> tuple[Floats, Floats]:
        """The average of [S, q] over S, and how much each one weighs in its derivative."""
        if self.rule not in LOGARITHMIC:
            return values.mean(axis=0), np.full_like(values, 1 / len(values))
        total = _log_sum(values, axis=0)
        return total - math.log(len(values)), np.exp(values - total)


def drawn(model: Surrogate, points: Floats, rng: np.random.Generator, count: int) -> tuple[Surrogate, Floats]:
    """Draws [count, k] of the values at points [k, d], without noise, and the model as if they had been seen.

    With the points that were observed, and those pending, this is noisy expected improvement (Letham et al. 2019):
    ``Expected(model, log_ei, values.min(axis=1))``. With one draw at many candidates it is Thompson sampling:
    ``Expected(model, ucb, 0.0)`` is the function drawn, and between the candidates what is expected given them:
    flatter than a draw. The best candidate should be among the incumbents of the search.
    """
    n, mean = len(model.points), model.predict(points)[0]
    counts = np.concatenate([model.counts, np.full(len(points), SURE)])
    seen = model.extend(points, np.concatenate([model.y, mean]), counts)
    values = mean + rng.normal(size=(count, len(points))) @ np.tril(seen.factor[n:, n:]).T  # as sure as they are seen
    known = np.broadcast_to(model.y, (count, n))
    return seen.extend(points[:0], np.concatenate([known, values], axis=1), counts), values


class Belief:
    """What experts believe: ``weight`` times the logarithm of their prior (piBO, Hvarfner et al. 2022).

    Here the prior is mixed with a uniform share: no point is said to be more than ``1 / DOUBT`` times less likely than
    the mode, whatever the confidence and the number of columns, so that a wrong belief is soon outweighed.

    Args:
        columns: of the space.
        weight: beta / n, which fades with the number n of observations.
    """

    def __init__(self, columns: Sequence[Column], weight: float) -> None:
        self.columns, self.weight, self.peak = columns, weight, _peak(columns)

    def value(self, points: Floats) -> Floats:
        """The values of points [q, d]: [q]."""
        return self._mixed(points)[0]

    def gradient(self, points: Floats) -> tuple[Floats, Floats]:
        """The values [q] of points [q, d], and their derivatives [q, d]."""
        value, share = self._mixed(points)
        slopes = np.zeros_like(points)
        for j, column in enumerate(self.columns):
            if column.prior is not None and column.kind != "unordered":
                mode, confidence = column.prior
                slopes[:, j] = np.nan_to_num(mode - points[:, j]) / max(1 - confidence, LEAST) ** 2
        return value, self.weight * share[:, None] * slopes

    def _mixed(self, points: Floats) -> tuple[Floats, Floats]:
        """The values [q], and the share [q] that the prior has in the density."""
        believed = (1 - DOUBT) * np.exp(log_prior(self.columns, points) - self.peak)
        density = DOUBT + believed
        return self.weight * np.log(density), believed / density


def _peak(columns: Sequence[Column]) -> float:
    """Logarithm of the prior's greatest density in all branches."""
    peaks = np.zeros(len(columns))  # by column: of itself and what depends on it
    for j in reversed(range(len(columns))):
        column = columns[j]
        below = [i for i, other in enumerate(columns) if other.parent == j]
        if below:
            positions = (np.arange(column.levels) + 0.5) / column.levels
            carried = [sum(peaks[i] for i in below if level in columns[i].options) for level in range(column.levels)]
            peaks[j] = (log_marginal(column, positions) + carried).max()
        elif column.prior is not None:
            peaks[j] = log_marginal(column, np.array(column.prior[:1]))[0]
    return float(sum(peaks[j] for j, column in enumerate(columns) if column.parent is None))


class Branch:
    """Holds a search to one option of a column that opens branches: 0 there, and far below all else elsewhere.

    Args:
        column: index of the column.
        level: of the option.
        levels: how many options there are.
    """

    def __init__(self, column: int, level: int, levels: int) -> None:
        self.column, self.level, self.levels = column, level, levels

    def holds(self, points: Floats) -> Bools:
        """Which of the points [q, d] take the option: [q]."""
        taken: Bools = np.floor(points[:, self.column] * self.levels) == self.level
        return taken

    def value(self, points: Floats) -> Floats:
        """The values of points [q, d]: [q]."""
        return np.where(self.holds(points), 0.0, OUTSIDE)

    def gradient(self, points: Floats) -> tuple[Floats, Floats]:
        """The values [q] of points [q, d], and their derivatives [q, d]."""
        return self.value(points), np.zeros_like(points)


class Sum:
    """The sum of acquisitions: of logarithms, as expected improvement times the probability to be feasible.

    A constraint that a model says is met up to ``limit`` is ``Expected(model, log_pi, limit)`` (Gardner et al. 2014).
    Where nothing feasible is known yet there is no improvement, and the sum has the constraints only.
    """

    def __init__(self, terms: Sequence[Acquisition]) -> None:
        self.terms = tuple(terms)

    def value(self, points: Floats) -> Floats:
        """The values of points [q, d]: [q]."""
        total: Floats = np.sum([term.value(points) for term in self.terms], axis=0)
        return total

    def gradient(self, points: Floats) -> tuple[Floats, Floats]:
        """The values [q] of points [q, d], and their derivatives [q, d]."""
        values, slopes = zip(*(term.gradient(points) for term in self.terms), strict=True)
        return np.sum(values, axis=0), np.sum(slopes, axis=0)


# -- several goals ------------------------------------------------------------------------------------------------


class Hypervolume:
    """Logarithm of the expected hypervolume improvement (Emmerich et al. 2006), exact for independent goals.

    The improvement is a sum over the boxes of what is not dominated, and in each box a product over the goals of
    EI(u) - EI(l), the improvements below the box's upper and its lower corner (Yang et al. 2019). All of it is reckoned
    in logarithms.

    Args:
        models: one for each goal, with one mean or S means each.
        fronts: values [n, m] that are known, one array; or one for each fantasy, with what it holds for the pending
            points.
        reference: [m], as ``_boxes.beyond`` gives it.
    """

    def __init__(self, models: Sequence[Model], fronts: Sequence[Floats], reference: Floats) -> None:
        self.models = tuple(models)
        self.cells = [_Cells(front, reference) for front in fronts]

    def value(self, points: Floats) -> Floats:
        """The values of points [q, d]: [q]."""
        beliefs = [model.predict(points) for model in self.models]
        values = []
        for s, cells in enumerate(self.cells):
            sides = [cells.sides(j, np.atleast_2d(mean)[s], sd)[0] for j, (mean, sd) in enumerate(beliefs)]
            values.append(_log_sum(np.sum(sides, axis=0), axis=1))
        average: Floats = _log_sum(np.array(values), axis=0) - math.log(len(values))
        return average

    def gradient(self, points: Floats) -> tuple[Floats, Floats]:
        """The values [q] of points [q, d], and their derivatives [q, d]."""
        beliefs = [model.gradients(points) for model in self.models]
        values, slopes = [], []
        for s, cells in enumerate(self.cells):
            sides = [cells.sides(j, np.atleast_2d(mean)[s], sd) for j, (mean, sd, _, _) in enumerate(beliefs)]
            volumes = np.sum([side[0] for side in sides], axis=0)
            values.append(_log_sum(volumes, axis=1))
            share = np.exp(volumes - values[-1][:, None])
            slope = np.zeros_like(points)
            for (_, by_mean, by_sd), (_, _, dmean, dsd) in zip(sides, beliefs, strict=True):
                slope += (share * by_mean).sum(axis=1)[:, None] * dmean.reshape(-1, *dsd.shape)[s]
                slope += (share * by_sd).sum(axis=1)[:, None] * dsd
            slopes.append(slope)
        total = _log_sum(np.array(values), axis=0)
        average: Floats = np.einsum("sq,sqd->qd", np.exp(values - total), slopes)
        return total - math.log(len(values)), average


class _Cells:
    """Boxes, with the distinct edges that they have along each goal, since a belief is compared with each edge once."""

    def __init__(self, front: Floats, reference: Floats) -> None:
        lower, upper = boxes(front, reference)
        self.edges: list[Floats] = []
        self.at: list[tuple[Ints, Ints]] = []  # by goal: which edges are the lower and the upper end of each box
        for j in range(len(reference)):
            edges, where = np.unique(np.concatenate([lower[:, j], upper[:, j]]), return_inverse=True)
            self.edges.append(edges)
            self.at.append((where[: len(lower)], where[len(lower) :]))

    def sides(self, j: int, mean: Floats, sd: Floats) -> Terms:
        """log(EI(u) - EI(l)) of goal ``j`` and its derivatives, for beliefs [q] and all boxes: [q, k]."""
        edges, (lower, upper) = self.edges[j], self.at[j]
        found = log_ei(mean[:, None], sd[:, None], np.maximum(edges, -1e30))
        value, by_mean, by_sd = (part[:, upper] for part in found)
        low, low_mean, low_sd = (part[:, lower] for part in found)
        gap = np.minimum(np.where(edges[lower] == -np.inf, -np.inf, low - value), -EPSILON)
        left, share = -np.expm1(gap), np.exp(gap)
        return value + np.log(left), (by_mean - share * low_mean) / left, (by_sd - share * low_sd) / left


def chebyshev(losses: Floats, weights: Floats) -> Floats:
    """Several goals made one: the augmented Chebyshev scalarisation of ParEGO (Knowles 2006).

    Args:
        losses: [n, m], scaled here to [0, 1] in each column.
        weights: [m], not negative, with sum 1; drawn from ``rng.dirichlet(np.ones(m))`` at each ask.

    Returns:
        [n], to be minimised.
    """
    low, span = losses.min(axis=0), np.ptp(losses, axis=0)
    weighted = weights * (losses - low) / np.where(span > 0, span, 1.0)
    scalar: Floats = weighted.max(axis=1) + AUGMENT * weighted.sum(axis=1)
    return scalar
