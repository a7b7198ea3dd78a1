"""What the trials of an optimizer say about the best of k of them: its distribution, its curve over k, and bands.

The best of k trials that are drawn from n is the i-th best of all with a probability that depends on n and k alone. So
everything here is a weighted sum over sorted trials, and exact:

* without replacement (the default), the probability that the best of k is none of the i best is C(n - i, k) / C(n, k).
  The mean is unbiased for that of k new trials (Tang et al. 2020, "Showing your work doesn't always work"); k <= n.
* with replacement it is ((n - i) / n)^k: the limit of the bootstrap that Choi et al. 2019 ("On empirical comparisons of
  optimizers for deep learning", appendix C) and Dodge et al. 2019 ("Show your work") use. Biased where k is not small
  beside n: it never sees values better than the best trial, and sees that one too often.

Trials are arrays [n] of one number each, which is minimised unless ``maximise`` is said. A trial that diverged is the
worst value there is: infinity (minus infinity where larger is better). NaN is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

from tunesmith import check
from tunesmith.rng import stream

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Literal["median", "mean"]

LEVEL = 0.9  #: probability that an interval covers what it is for: from 5 to 95%
DRAWS = 1000  #: resamples of a bootstrap
BLOCK = 64  #: budgets that are worked on at once, so that tables stay small
ROUNDING = 1e-9  #: sums of probabilities are taken for a quantile's level where they miss it by less


@dataclass(frozen=True, eq=False)
class Curve:
    """The distribution of the best of k trials; one entry for each budget k, in the units of the values.

    Attributes:
        budgets: k, in ascending order.
        mean: NaN where a diverged trial may be the best one, since its infinity has weight: then it is undefined.
        median: the smallest (where larger is better, largest) value that the best of k reaches with probability 1/2.
        low, high: the values at 5 and 95%, by the same rule.
        note: says where the mean is undefined and why; empty otherwise.
    """

    budgets: Ints
    mean: Floats
    median: Floats
    low: Floats
    high: Floats
    note: str = ""


@dataclass(frozen=True, eq=False)
class Band:
    """An estimate for each budget k and its interval; ``low`` and ``high`` are infinite where there is no bound."""

    budgets: Ints
    estimate: Floats
    low: Floats
    high: Floats


# -- the law of the best of k -----------------------------------------------------------------------------------------


def survival(n: int, budgets: Ints, replace: bool) -> Floats:
    """P(the best of k of n trials is none of the i best) for budgets [b] and i = 0, ..., n: [b, n + 1]."""
    better = np.arange(n + 1)
    k = budgets[:, None]
    if replace:
        kept: Floats = ((n - better) / n) ** k
        return kept
    left = n - better[:-1]  # if none of the i best is drawn, then not the next one either: all k are of the others left
    steps = np.maximum(0, left - k) / left
    return np.concatenate([np.ones((len(budgets), 1)), np.cumprod(steps, axis=1)], axis=1)


def weights(n: int, budgets: Ints, replace: bool) -> Floats:
    """P(the best of k of n trials is the i-th best) for budgets [b]: [b, n]. What underflows stays over 0."""
    found = -np.diff(survival(n, budgets, replace), axis=1)
    possible = replace | (np.arange(n) <= n - budgets[:, None])
    return np.where(possible, np.maximum(found, np.finfo(np.float64).tiny), 0.0)


def position(probabilities: Floats, level: float) -> Ints:
    """The first place of each row at which the sum of probabilities [b, n] reaches a level: [b]."""
    reached: Ints = (np.cumsum(probabilities, axis=1) >= level - ROUNDING).argmax(axis=1)
    return reached


def best_of(
    values: ArrayLike,
    budgets: Sequence[int] | Ints | None = None,
    *,
    report: ArrayLike | None = None,
    replace: bool = False,
    maximise: bool = False,
) -> Curve:
    """The exact distribution of the best of k of n trials for every k.

    Args:
        values: of the trials [n], by which the best is selected, such as validation errors.
        budgets: the k that are asked for, at least 1; 1, ..., n unless given. Takes O(n) for each.
        report: what is reported of the selected trial [n], such as its test error; ``values`` unless given. Trials that
            are equally good are selected equally often.
        replace: draw with replacement (see the module).
        maximise: larger is better, of ``values`` and of ``report``.

    Raises:
        ValueError: no trials, NaN, a trial better than every number, k < 1, or k > n without replacement.
    """
    selected = trials("best_of", values, maximise)
    reported = selected if report is None else trials("best_of: report", report, maximise)
    n = len(selected)
    if len(reported) != n:
        raise ValueError(f"best_of: {n} values and {len(reported)} in report: give one each for every trial")
    k = checked_budgets("best_of", budgets, n, replace)
    order = np.lexsort((reported, selected))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(rank(selected[order])) > 0]))
    sizes = np.diff(np.concatenate([starts, [n]]))
    shown = np.argsort(reported[order], kind="stable")
    outcome = reported[order][shown]
    rows = []
    for block in blocks(k):
        tied = np.add.reduceat(weights(n, block, replace), starts, axis=1) / sizes
        chance = np.repeat(tied, sizes, axis=1)[:, shown]
        quantiles = [outcome[position(chance, level)] for level in (0.05, 0.5, 0.95)]
        rows.append(np.stack([_mean(chance, outcome), *quantiles]))
    mean, low, median, high = np.concatenate(rows, axis=1)
    note = _undefined(k, mean, int(np.isinf(outcome).sum()), n)
    if maximise:
        return Curve(k, -mean, -median, -high, -low, note)
    return Curve(k, mean, median, low, high, note)


def resampled(
    values: ArrayLike,
    budgets: Sequence[int] | Ints | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    replace: bool = True,
    maximise: bool = False,
) -> Floats:
    """The best of the first k of trials that are drawn one after the other, many times: what ``best_of`` has exactly.

    A row is one search that could have been: it never gets worse from one budget to the next.

    Args:
        values, budgets, replace, maximise: as of ``best_of``.
        draws: how many searches.
        seed: equal seeds give equal draws.

    Returns:
        [draws, budgets].
    """
    found = trials("resampled", values, maximise)
    n = len(found)
    k = checked_budgets("resampled", budgets, n, replace)
    check.whole("resampled", 1, draws=draws)
    generator = stream(seed, "resampled")
    if replace:
        drawn = generator.integers(0, n, (draws, int(k[-1])))
    else:
        drawn = generator.permuted(np.tile(np.arange(n), (draws, 1)), axis=1)[:, : k[-1]]
    best = np.minimum.accumulate(found[drawn], axis=1)[:, k - 1]
    return -best if maximise else best


# -- bands of the curve -----------------------------------------------------------------------------------------------


def reach(n: int, level: float = LEVEL) -> int:
    """The largest k for which n trials bound the median of the best of k from both sides; 0 where there is none.

    That median is the quantile 1 - (1/2)^(1/k) of a single trial. All of n trials are worse than it with probability
    (1/2)^(n / k); where that is more than (1 - level) / 2 the trials do not say how good the best of k may get. At 90%
    that is k <= n / 4.3: 11 of 50 trials, 23 of 100.
    """
    check.whole("reach", 1, n=n)
    check.inside("reach", 0, 1, level=level)
    return math.floor(n / math.log2(2 / (1 - level)) + ROUNDING)


def band(
    values: ArrayLike,
    budgets: Sequence[int] | Ints | None = None,
    *,
    statistic: Statistic = "median",
    percentile: bool = False,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
    maximise: bool = False,
) -> Band:
    """An interval for the median or the mean of the best of k trials that are yet to be run, for every k.

    The bands are for each k by itself, not for all k at once.

    * Of the median: by order statistics, whatever the distribution, without resampling. The median of the best of k is
      the quantile 1 - (1/2)^(1/k) of a single trial, and between two order statistics, at places that need not be
      whole, it lies with the wanted probability (Hutson 1999, "Calculating nonparametric confidence intervals for
      quantiles using fractional order statistics"). Beyond ``reach(n)`` the better end is open: minus infinity, or
      infinity where larger is better.
    * Of the mean: the studentised bootstrap (Efron and Tibshirani 1993, section 12.5) of the unbiased mean, with
      standard errors by the jackknife. Beyond ``reach(n)`` both ends are open; NaN if a trial diverged.
    * ``percentile``: of either, from 5 to 95% of the exact values of resampled trials, as in the paper. Its coverage
      falls where k is not small beside n; it is here to be compared with.

    Coverage of 90% bands where k is within ``reach(n)``, on uniform and exponential values, n = 20, 50 and 100
    (``tests/comparison/coverage.py``; 4000 samples of each for the first, 1000 for the others, so that a figure is
    uncertain by 0.005 or 0.01): the median 0.89 to 0.92; the mean 0.89 to 0.94, most where k is near the reach; by
    percentiles the median 0.86 to 0.90 and the mean 0.84 to 0.91, least with 20 trials.

    Args:
        values, budgets, maximise: as of ``best_of``; k may be larger than n for the median.
        level: probability that an interval covers.
        draws, seed: of the bootstrap, which takes O(draws n) for each budget.

    Raises:
        ValueError: as ``best_of``; k > n unless it is the median by order statistics.
    """
    found = np.sort(trials("band", values, maximise))
    n = len(found)
    check.inside("band", 0, 1, level=level)
    check.whole("band", 1, draws=draws)
    if statistic not in ("median", "mean"):
        raise ValueError(f"band: statistic={statistic!r} must be 'median' or 'mean'")
    k = checked_budgets("band", budgets, n, replace=statistic == "median" and not percentile)
    if percentile:
        estimate, low, high = _percentile_band(found, k, statistic, level, draws, seed)
    elif statistic == "mean":
        scale = size(found)
        with np.errstate(over="ignore"):  # ends beyond all numbers are infinite
            estimate, low, high = (scale * ends for ends in _studentised_band(found / scale, k, level, draws, seed))
    else:
        estimate, low, high = _ordered_band(found, k, level)
    return Band(k, -estimate, -high, -low) if maximise else Band(k, estimate, low, high)


def _ordered_band(values: Floats, budgets: Ints, level: float) -> tuple[Floats, Floats, Floats]:
    """The median of the best of k as a quantile of sorted values [n], and its interval by order statistics."""
    n = len(values)
    quantile = _quantile(budgets)
    estimate = values[middle(n, budgets)]
    low = _at(values, _place(n, quantile, (1 + level) / 2))
    high = _at(values, _place(n, quantile, (1 - level) / 2))
    return estimate, low, high


def _quantile(budgets: Ints) -> Floats:
    """Which quantile of a single trial is the median of the best of k [b]: 1 - (1/2)^(1/k)."""
    found: Floats = -np.expm1(np.log(0.5) / budgets)
    return found


def middle(n: int, budgets: Ints) -> Ints:
    """Which of n sorted trials, counted from 0, estimates the median of the best of k new ones [b]."""
    found: Ints = np.ceil(n * _quantile(budgets) - ROUNDING).astype(np.int64) - 1
    return found


def _place(n: int, quantile: Floats, chance: float) -> Floats:
    """The place i, whole or not, at which the i-th of n values lies below a quantile of their law with this chance.

    The law of the i-th smallest uniform value is Beta(i, n + 1 - i); the chance falls with i, so i is found by halving.
    """
    low, high = np.zeros_like(quantile), np.full_like(quantile, n + 1)
    for _ in range(60):
        place = (low + high) / 2
        below = betainc(place, n + 1 - place, quantile) > chance
        low, high = np.where(below, place, low), np.where(below, high, place)
    return (low + high) / 2


def _at(values: Floats, places: Floats) -> Floats:
    """Values between sorted ones [n] at places from 1 to n; infinite outside of them."""
    n = len(values)
    below = np.clip(np.floor(places).astype(int), 1, n)
    above = np.minimum(below + 1, n)
    share = np.clip(places - below, 0, 1)
    left, right = values[below - 1], values[above - 1]
    with np.errstate(invalid="ignore"):  # a share of 0 of infinity
        between = np.clip((1 - share) * left + share * right, left, right)
    between = np.where((share == 0) | (left == right), left, between)
    return np.where(places < 1, -np.inf, np.where(places > n, np.inf, between))


def resamples(values: Floats, draws: int, seed: int, purpose: str) -> Floats:
    """As many trials drawn with replacement from values [n], sorted: [draws, n]."""
    drawn = stream(seed, purpose).integers(0, len(values), (draws, len(values)))
    return np.sort(values[drawn], axis=1)


def percentiles(drawn: Floats, level: float) -> tuple[Floats, Floats]:
    """The two ends between which this share of draws [draws, ...] lies; values that were drawn, also infinite ones."""
    ordered = np.sort(drawn, axis=0)
    outside = (1 - level) / 2
    last = len(ordered) - 1
    return ordered[math.floor(outside * last)], ordered[math.ceil((1 - outside) * last)]


def _percentile_band(
    values: Floats, budgets: Ints, statistic: Statistic, level: float, draws: int, seed: int
) -> tuple[Floats, Floats, Floats]:
    """The statistic of the best of k of sorted values [n], and the interval in which that of resamples lies."""
    drawn = resamples(values, draws, seed, "band")
    estimate, low, high = [], [], []
    for block in blocks(budgets):
        chance = weights(len(values), block, replace=False)
        if statistic == "median":
            at = position(chance, 0.5)
            estimate.append(values[at])
            repeated = drawn[:, at]
        else:
            estimate.append(_mean(chance, values))
            finite = np.isfinite(values).all()
            repeated = drawn @ chance.T if finite else np.full((draws, len(block)), np.nan)
        ends = percentiles(repeated, level)
        low.append(ends[0])
        high.append(ends[1])
    return np.concatenate(estimate), np.concatenate(low), np.concatenate(high)


def _studentised_band(
    values: Floats, budgets: Ints, level: float, draws: int, seed: int
) -> tuple[Floats, Floats, Floats]:
    """The unbiased mean of the best of k of sorted values [n], and its interval by the studentised bootstrap."""
    n = len(values)
    last = reach(n, level)
    drawn = resamples(values, draws, seed, "band") if np.isfinite(values).all() else None
    estimate, low, high = [], [], []
    for k in budgets:
        one = np.array([k])
        mean = float(_mean(weights(n, one, replace=False), values)[0])
        if drawn is None:  # one has diverged
            ends = (math.nan, math.nan)
        elif k > last:
            ends = (-math.inf, math.inf)
        elif values[0] == values[-1]:
            ends = (mean, mean)
        else:
            chance = weights(n, one, replace=False)[0]
            truth = float(weights(n, one, replace=True)[0] @ values)  # of the law from which the resamples are drawn
            errors = jackknife(drawn, k)
            gaps = drawn @ chance - truth
            with np.errstate(divide="ignore", invalid="ignore"):
                deviations = np.where(gaps == 0, 0.0, gaps / errors)
            below, above = percentiles(deviations, level)
            error = float(jackknife(values, k))
            ends = (mean - error * float(above), mean - error * float(below)) if error else (mean, mean)
        estimate.append(mean)
        low.append(ends[0])
        high.append(ends[1])
    return np.array(estimate), np.array(low), np.array(high)


def jackknife(values: Floats, k: int) -> Floats:
    """Standard errors, by the jackknife, of the unbiased mean of the best of k of sorted values [..., n]: [...].

    Without the i-th value, those before it keep their place among n - 1, and those behind it move up by one.
    """
    n = values.shape[-1]
    chance = weights(n - 1, np.array([k]), replace=False)[0]
    nothing = np.zeros((*values.shape[:-1], 1))
    before = np.concatenate([nothing, np.cumsum(chance * values[..., :-1], axis=-1)], axis=-1)
    behind = np.concatenate([np.cumsum((chance * values[..., 1:])[..., ::-1], axis=-1)[..., ::-1], nothing], axis=-1)
    left_out = before + behind
    errors: Floats = np.sqrt((n - 1) * left_out.var(axis=-1))
    return errors


# -- what all of them share -------------------------------------------------------------------------------------------


def trials(owner: str, values: ArrayLike, maximise: bool = False) -> Floats:
    """Values of trials [n] as numbers to be minimised.

    Raises:
        TypeError: they are no numbers, or ``maximise`` is no flag.
        ValueError: there are none, they are not one number a trial, one is NaN, or one is better than every number.
    """
    check.flag(owner, maximise=maximise)
    found = numbers(values)
    if found is None:
        raise TypeError(f"{owner}: values must be one number for every trial")
    if found.ndim != 1 or not len(found):
        raise ValueError(f"{owner}: values of shape {found.shape}: give one number for each of at least one trial")
    worst = "-inf" if maximise else "inf"
    missing = np.flatnonzero(np.isnan(found))
    if len(missing):
        raise ValueError(f"{owner}: value {missing[0]} is NaN: write {worst} for a trial that diverged")
    found = -found if maximise else found
    endless = np.flatnonzero(np.isneginf(found))
    if len(endless):
        which = "inf" if maximise else "-inf"
        raise ValueError(
            f"{owner}: value {endless[0]} is {which}, better than every number: write {worst} for a trial that diverged"
        )
    return found


def size(values: Floats) -> float:
    """The power of 2 below the largest finite absolute value [n], so that values divided by it can be squared."""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    return math.ldexp(1.0, math.frexp(largest or 1.0)[1] - 1)


def numbers(values: ArrayLike) -> Floats | None:
    """Values as an array of its own, None if they are no numbers: text, nothing at all, rows of different lengths."""
    try:
        found = np.asarray(values)
    except (TypeError, ValueError):
        return None
    return found.astype(np.float64) if found.dtype.kind in "iuf" else None


def checked_budgets(owner: str, budgets: Any, n: int, replace: bool) -> Ints:
    """Budgets in ascending order, each once; 1, ..., n where none are given.

    Raises:
        TypeError: they are no whole numbers.
        ValueError: there are none, one is under 1, or one is over n and nothing may be drawn twice.
    """
    check.flag(owner, replace=replace)
    if budgets is None:
        return np.arange(1, n + 1)
    found = np.unique(np.asarray(budgets))
    if found.dtype.kind not in "iu" and len(found):
        raise TypeError(f"{owner}: budgets={budgets!r} must be whole numbers")
    if not len(found) or found[0] < 1:
        raise ValueError(f"{owner}: budgets={budgets!r} must be at least 1, and at least one of them")
    if not replace and found[-1] > n:
        raise ValueError(f"{owner}: a budget of {found[-1]} is more than the {n} trials there are")
    return found.astype(np.int64)


def blocks(budgets: Ints) -> Iterator[Ints]:
    """The budgets, a few at a time."""
    for start in range(0, len(budgets), BLOCK):
        yield budgets[start : start + BLOCK]


def rank(values: Floats) -> Ints:
    """The place of each value [n] among the distinct ones: equal values have equal places, also infinite ones."""
    places: Ints = np.unique(values, return_inverse=True)[1].reshape(-1)
    return places


def _mean(chance: Floats, values: Floats) -> Floats:
    """Means [b] of values [n] under probabilities [b, n]; NaN where infinity has weight."""
    finite = np.isfinite(values)
    found = chance[:, finite] @ values[finite]
    return np.where((chance[:, ~finite] > 0).any(axis=1), np.nan, found)


def _undefined(budgets: Ints, mean: Floats, diverged: int, n: int) -> str:
    """Where the mean is undefined, and why."""
    without = budgets[np.isnan(mean)]
    if not len(without):
        return ""
    where = "for every k" if len(without) == len(budgets) else f"up to k = {without[-1]}"
    return f"the mean is undefined {where}: {diverged} of {n} trials diverged, and one of them may be the best of k"
