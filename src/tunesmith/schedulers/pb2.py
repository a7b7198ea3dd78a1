"""PB2: population based bandits (Parker-Holder et al. 2020, arXiv:2002.02518), an explore rule of populations.

A copy's hyperparameters are not perturbed but chosen: a Gaussian process says what an interval of training is worth
with given hyperparameters, at a given time, from a given loss, and the copy takes those with the largest upper
confidence bound. The process forgets: the covariance between two times falls with their distance (Bogunovic et al.
2016, arXiv:1601.06650). Categorical parameters are chosen first, by a bandit, EXP3.M (Uchiya et al. 2010) with the
forgetting of EXP3.S (Auer et al. 2002), and then the others given them, as in PB2-Mix (arXiv:2106.15883).

Kernel, data and bound are those of the authors' code. Ours are: an interval is compared with those that begin at the
same step; times count in decisions; the bound has the standard deviation, as in the paper, where the code has the
variance; candidates are drawn; categories have a code in the kernel; failures count; and the details of the bandit,
whose reward is a rank among the intervals that begin at the same step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tunesmith._threads import one_thread
from tunesmith.hints import Options
from tunesmith.schedulers._standing import Gain, Past
from tunesmith.space import Column, Config, Space

Floats = NDArray[np.float64]

MIXED = 0.01  #: alpha of EXP3.S, one over the number of rounds that are thought of
CLIP = 2.0  #: values, which are standardised, are cut off at this size
MOST_FORGETTING = 0.5  #: greatest epsilon
# Logarithms of variance, squared length-scale, epsilon, noise: start, least, greatest
HYPERPARAMETERS = np.log([[1.0, 0.3, 0.1, 0.1], [1e-2, 1e-3, 1e-4, 1e-3], [1e2, 1e1, MOST_FORGETTING, 1.0]])
FITS = 20  #: iterations of a fit
UNIFORM, LOCAL = 512, 256  #: candidates drawn from everywhere, and around the best one at each of two scales
SCALES = (0.1, 0.02)  #: deviations of those in the unit cube


class PB2(Options, frozen=True, tag="pb2"):
    """The hyperparameters of a copy by a time-varying Gaussian-process bandit.

    Every interval of training that has ended is a data point: its step, the loss at its beginning, its hyperparameters,
    and by how much a step of it has improved the loss, against the other intervals from the same step (with several
    goals: the mean of their standardised improvements). One that has failed counts as the worst seen. Intervals that
    are out count with the variance alone, so that copies that are made at the same time differ. Of the first interval
    of a fresh trial the first step is where it begins, since nothing is known of step 0; where only its end was told it
    teaches nothing.

    Hyperparameters with an order are positions in the unit cube, so logarithms, integers and ordinals need nothing
    special. Parameters that are inactive in an interval lie in the middle of their range there, and the choice that
    makes them inactive sets it apart; in a copy those that the chosen categories make active are chosen, the others
    have no value.

    Args:
        window: the model sees so many intervals, the latest ones.
        gamma: share of draws of a category that are uniform (EXP3.M's exploration), in (0, 1].
    """

    window: int = 100
    gamma: float = 0.2
    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ValueError(f"PB2: window={self.window} must be at least 2")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"PB2: gamma={self.gamma} must be in (0, 1]")

    @one_thread
    def explore(self, space: Space, config: Config, rng: np.random.Generator, past: Past) -> Config:
        """The configuration that promises most at this time, inside the space; a neighbour of the given one where no
        candidate honours the constraints. What is fixed stays.
        """
        kept, held = _held(space, config, rng)
        gains = [gain for gain in past.gains[-self.window :] if space.contains(gain.config)]
        pending = [gain for gain in past.pending if space.contains(gain.config)]
        values = _values(gains)
        rows = [space.encode(gain.config) for gain in [*gains, *pending]]
        points = np.array(rows).reshape(len(rows), len(space.columns))
        chosen = self._categories(space.columns, gains, points[: len(gains)], values, held, rng)
        model = _fit(space.columns, past, [*gains, *pending], points, values)
        best = _maximise(space, chosen, held, model, rng)
        if best is None:
            return space.perturb(config, rng)
        return {name: kept.get(name, value) for name, value in space.decode(best).items()}

    def _categories(
        self,
        columns: Sequence[Column],
        gains: Sequence[Gain],
        points: Floats,
        values: Floats,
        held: dict[int, float],
        rng: np.random.Generator,
    ) -> dict[int, int]:
        """A level for every unordered column that the levels before it leave active."""
        levels: dict[int, int] = {}
        rewards = _rewards(gains, values)
        for j, column in enumerate(columns):
            inactive = column.parent is not None and levels.get(column.parent) not in column.options
            if column.kind != "unordered" or inactive:
                continue
            if j in held:
                levels[j] = min(int(held[j] * column.levels), column.levels - 1)
                continue
            played = ~np.isnan(points[:, j])
            arms = np.minimum(points[played, j] * column.levels, column.levels - 1).astype(int)
            starts = np.array([gain.start for gain in gains])[played]
            share = exp3m(starts, arms, rewards[played], column.levels, self.gamma)
            levels[j] = int(rng.choice(column.levels, p=share))
        return levels


def _held(space: Space, config: Config, rng: np.random.Generator) -> tuple[Config, dict[int, float]]:
    """What a copy takes over as it is: the parameters, and the positions of their columns."""
    if not space.fixed:
        return {}, {}
    whole = space.nearest(config, rng)
    point = space.encode(whole)
    columns = [j for j, column in enumerate(space.columns) if column.fixed and not math.isnan(point[j])]
    return {name: value for name, value in whole.items() if name in space.fixed}, {j: float(point[j]) for j in columns}


def _values(gains: Sequence[Gain]) -> Floats:
    """What each interval was worth: [n], standardised; the larger the better.

    It is compared with the intervals that begin at the same step. A loss that falls steeply at first would otherwise
    leave nothing to see of the later intervals, all alike; the bound would be that of the variance alone, which is
    greatest at the bounds of the space.
    """
    ended = [gain for gain in gains if gain.after is not None]
    if not ended:
        return np.zeros(len(gains))
    before = np.array([gain.before for gain in ended])
    after = np.array([gain.after for gain in ended])
    steps = np.array([[gain.until - gain.start] for gain in ended])
    starts = np.array([gain.start for gain in ended])
    with np.errstate(over="ignore", invalid="ignore"):
        improved = np.nan_to_num((before - after) / steps)
        for start in np.unique(starts):
            improved[starts == start] = _standardised(improved[starts == start])
        mean = _standardised(improved).mean(axis=1)
    known = np.clip(np.nan_to_num(mean), -CLIP, CLIP)
    values = np.full(len(gains), known.min())
    values[[gain.after is not None for gain in gains]] = known
    return values


def _standardised(columns: Floats) -> Floats:
    """Columns with mean 0 and deviation 1, or 0 where all entries are equal."""
    largest = np.abs(columns).max(axis=0)
    columns = columns / np.where(largest > 0, largest, 1.0)  # so that nothing overflows
    apart: Floats = columns - columns.mean(axis=0)
    deviation = apart.std(axis=0)
    return apart / np.where(deviation > 0, deviation, 1.0)


# -- the categories: EXP3.M that forgets ------------------------------------------------------------------------


def _rewards(gains: Sequence[Gain], values: Floats) -> Floats:
    """The share of the intervals from the same step that an interval is at least as good as: [n], in [0, 1]."""
    rewards = np.zeros(len(gains))
    starts = np.array([gain.start for gain in gains])
    for start in set(starts.tolist()):
        rows = np.flatnonzero(starts == start)
        same = values[rows]
        rewards[rows] = ((same < same[:, None]).sum(axis=1) + 0.5 * (same == same[:, None]).sum(axis=1)) / len(rows)
    return rewards


def exp3m(starts: NDArray[np.int64], arms: NDArray[np.int64], rewards: Floats, k: int, gamma: float) -> Floats:
    """The probabilities with which EXP3.M plays its arms next.

    The intervals that begin at one step are a round; who plays an arm several times in a round gets the mean of what
    it gave. Every round mixes a share ``MIXED`` of all weights into each (EXP3.S), so that an arm can come back.

    Args:
        starts: [n], the round of each play.
        arms: [n], in 0 to k - 1.
        rewards: [n], in [0, 1].
        k: number of arms.
        gamma: share of draws that are uniform.

    Returns:
        [k].
    """
    weights = np.full(k, 1 / k)
    for start in np.unique(starts):
        here = starts == start
        plays = min(k, int(here.sum()))
        chance = np.minimum(1.0, plays * ((1 - gamma) * weights + gamma / k))
        for arm in np.unique(arms[here]):
            estimate = rewards[here & (arms == arm)].mean() / chance[arm]
            weights[arm] *= math.exp(plays * gamma * estimate / k)
        weights += math.e * MIXED / k * weights.sum()
        weights /= weights.sum()
    shares = (1 - gamma) * weights + gamma / k
    shares /= shares.sum()
    return shares


# -- the others: a time-varying Gaussian process ------------------------------------------------------------------


@dataclass(frozen=True)
class _Model:
    """The process given the data, seen from the place where the copy begins.

    Attributes:
        theta: log variance, log squared length-scale, log epsilon, log noise.
        columns: of the space.
        where: [m], the coordinates of the losses at the copy's beginning.
        features: [n + p, m + f], of the data and of what is pending.
        fading: [n + p], by which the covariance with the copy is smaller for the time between.
        weights: [n], the inverse covariance of the data times its values.
        factor: [n + p, n + p], the Cholesky factor with what is pending, for variances.
        kappa: factor of the deviation in the bound.
    """

    theta: Floats
    columns: Sequence[Column]
    where: Floats
    features: Floats
    fading: Floats
    weights: Floats
    factor: Floats
    kappa: float

    def bound(self, points: Floats) -> Floats:
        """The upper confidence bound of points [c, d]: [c]. Pending intervals count in the deviation alone."""
        from scipy.linalg import solve_triangular

        variance, length = np.exp(self.theta[:2])
        places = np.repeat(self.where[None], len(points), axis=0)
        features = np.concatenate([places, _embed(self.columns, points)], axis=1)
        covariance = variance * np.exp(-_squared(features, self.features) / length) * self.fading
        half: Floats = solve_triangular(self.factor, covariance.T, lower=True, check_finite=False)
        deviation = np.sqrt(np.maximum(variance - (half**2).sum(axis=0), 0.0))
        bound: Floats = covariance[:, : len(self.weights)] @ self.weights + self.kappa * deviation
        return bound


def _fit(columns: Sequence[Column], past: Past, gains: Sequence[Gain], points: Floats, values: Floats) -> _Model:
    """The process at the most likely hyperparameters; the first ``len(values)`` of the intervals have ended."""
    n = len(values)
    before = np.array([gain.before for gain in gains]).reshape(len(gains), len(past.losses))
    with np.errstate(over="ignore", invalid="ignore"):
        low = np.minimum(before.min(axis=0, initial=math.inf), past.losses)
        span = np.maximum(before.max(axis=0, initial=-math.inf), past.losses) - low
        places = np.nan_to_num((np.vstack([before, past.losses]) - low) / np.where(span > 0, span, 1.0))
    features = np.concatenate([places[:-1], _embed(columns, points)], axis=1)
    times = np.array([gain.start for gain in gains]) / past.ready
    squared, apart = _squared(features, features), np.abs(times[:, None] - times)
    theta = _likely(squared[:n, :n], apart[:n, :n], values)
    variance, length, epsilon, noise = np.exp(theta)
    covariance = variance * np.exp(-squared / length) * (1 - epsilon) ** (apart / 2) + noise * np.eye(len(gains))
    factor = np.linalg.cholesky(covariance)
    weights = np.linalg.solve(covariance[:n, :n], values)
    fading = (1 - epsilon) ** (np.abs(times - past.step / past.ready) / 2)
    kappa = math.sqrt(max(0.0, 0.2 * math.log(max(1.0, 0.4 * n))))
    return _Model(theta, columns, places[-1], features, fading, weights, factor, kappa)


def _likely(squared: Floats, apart: Floats, values: Floats) -> Floats:
    """The hyperparameters of the greatest likelihood; those of the start where there is little data."""
    from scipy.linalg.lapack import dpotri
    from scipy.optimize import minimize

    start: Floats = HYPERPARAMETERS[0]
    bounds = list(zip(*HYPERPARAMETERS[1:], strict=True))
    if len(values) < 4 or not np.ptp(values):
        return start

    def loss(theta: Floats) -> tuple[float, Floats]:
        variance, length, epsilon, noise = np.exp(theta)
        clean = variance * np.exp(math.log1p(-epsilon) / 2 * apart - squared / length)
        factor = np.linalg.cholesky(clean + noise * np.eye(len(values)))
        half = dpotri(factor, lower=1)[0]  # its upper half is 0, as that of the factor
        inverse = half + half.T
        inverse[diagonal] /= 2
        weights = inverse @ values
        slope = inverse - np.outer(weights, weights)
        pull = slope * clean
        by_epsilon = -epsilon / (1 - epsilon) * float(np.vdot(pull, apart)) / 2
        gradient = [pull.sum(), float(np.vdot(pull, squared)) / length, by_epsilon, noise * np.trace(slope)]
        evidence = -0.5 * float(values @ weights) - float(np.log(factor[diagonal]).sum())
        return -evidence, np.array(gradient) / 2

    diagonal = np.diag_indices(len(values))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": FITS})
    theta: Floats = found.x
    return theta


def _maximise(
    space: Space, chosen: dict[int, int], held: dict[int, float], model: _Model, rng: np.random.Generator
) -> Floats | None:
    """The point with the greatest bound of the candidates that honour the constraints; None where none does."""
    fixed = list(chosen)
    positions = np.array([space.positions(j)[level] for j, level in chosen.items()])
    best: Floats | None = None
    for scale in (0.0, *SCALES):
        if scale and best is None:
            return None
        if best is None:
            cube = rng.random((UNIFORM, len(space.columns)))
        else:
            centre = np.nan_to_num(best, nan=0.5)
            cube = centre + scale * rng.standard_normal((LOCAL, len(space.columns)))
            cube[0] = centre
        cube[:, fixed] = positions
        cube[:, list(held)] = list(held.values())
        candidates = space.snap(cube)
        order = np.argsort(-model.bound(candidates), kind="stable")
        best = next((candidates[row] for row in order if space.allows(candidates[row])), None)
    return best


def _embed(columns: Sequence[Column], points: Floats) -> Floats:
    """Features [n, f]: a position, 0.5 where inactive; of an unordered column a code, any two options 1 apart."""
    parts = [np.empty((len(points), 0))]
    for j, column in enumerate(columns):
        u = points[:, j]
        if column.kind != "unordered":
            parts.append(np.nan_to_num(u, nan=0.5)[:, None])
        else:
            level = np.minimum(np.nan_to_num(u) * column.levels, column.levels - 1).astype(int)
            code = (level[:, None] == np.arange(column.levels)) * math.sqrt(0.5)
            parts.append(np.where(np.isnan(u)[:, None], math.sqrt(0.5) / column.levels, code))
    return np.concatenate(parts, axis=1)


def _squared(a: Floats, b: Floats) -> Floats:
    """Squared distances between the rows of [n, f] and [m, f]: [n, m]."""
    squared: Floats = np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0.0)
    return squared
