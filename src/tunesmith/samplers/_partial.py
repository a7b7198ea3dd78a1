"""Values of trials that are partly trained, brought to the terms of the last rung.

Losses fall while a trial is trained, and they spread or draw together. Since only the best trials are trained on, means
and deviations at two rungs can't be compared: the later values come from better trials. What can be compared are the
values of the same trials at both rungs. A regression of the later ones on the earlier ones has no bias, since it is the
earlier ones by which the trials were chosen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.samplers.base import Bools, Floats, History

REACH = 3.0  #: a slope is found without what is so many spreads of the good half above the median
GREATEST = 1e307  #: results are clipped to it


class Lines(NamedTuple):
    """What is to be expected at the last of r rungs, as a linear function of the value at each.

    Attributes:
        shifts: [r]
        slopes: [r]
        known: [r], False where no configuration leads to the last rung: then the line is that of equal values.
        trust: [r], the share of the variance at the last rung that the line explains, in [0, 1]; 1 at the last rung.
    """

    shifts: Floats
    slopes: Floats
    known: Bools
    trust: Floats


def lines(values: Floats) -> Lines:
    """From one rung to the next a regression over the configurations that have a value at both.

    Where one lacks a value at a rung, it has what is to be expected there by those before.

    Args:
        values: [n, r] of n configurations, NaN where there is none; one at least in each column.
    """
    size = max(float(np.nanmax(np.abs(values))), np.finfo(np.float64).tiny)
    scaled = values / size
    expected = scaled[:, 0]
    shifts, slopes, noises, known = np.zeros(1), np.ones(1), np.zeros(1), np.ones(1, dtype=np.bool_)
    variances = [np.nanvar(_drawn(expected))]
    for later in scaled.T[1:]:
        both = ~np.isnan(expected + later)
        shift, slope, noise = _line(expected, later, both)
        expected = np.where(np.isnan(later), shift + slope * expected, later)
        shifts, slopes = np.append(shift + slope * shifts, 0.0), np.append(slope * slopes, 1.0)
        noises, known = np.append(slope**2 * noises + noise, 0.0), np.append(known & both.any(), True)
        variances.append(np.nanvar(_drawn(expected)))
    signal = slopes**2 * variances
    whole = signal + noises
    trust = np.where(whole > 0, signal / np.where(whole > 0, whole, 1.0), 1.0)
    with np.errstate(over="ignore"):
        return Lines(np.clip(shifts * size, -GREATEST, GREATEST), slopes, known, trust)


def _line(before: Floats, after: Floats, both: Bools) -> tuple[float, float, float]:
    """A line through the values [n] of the configurations that have ``both``: shift, slope and variance of the rest.

    The slope is the mean of its posterior, where it is 1 with deviation 1 before; the noise is what is left by 1. The
    shift is a median: a bad tail, or the first few configurations, have little power.
    """
    if not both.any():
        return 0.0, 1.0, 0.0
    x, y = _drawn(before)[both], _drawn(after)[both]
    x, y = x - x.mean(), y - y.mean()
    noise = float(np.mean((y - x) ** 2))
    weight = float(x @ x) + noise
    slope = (float(x @ y) + noise) / weight if weight > 0 else 1.0
    shift = float(np.quantile(after[both] - slope * before[both], 0.5, method="lower"))
    return shift, slope, float(np.mean((y - slope * x) ** 2))


def _drawn(values: Floats) -> Floats:
    """The values [n], what is far above the median brought nearer."""
    known = values[~np.isnan(values)]
    tenth, half = (len(known) - 1) // 10, (len(known) - 1) // 2
    good, median = np.partition(known, (tenth, half))[[tenth, half]]
    return np.minimum(values, median + REACH * (median - good)) if median > good else values


class Extrapolated(NamedTuple):
    """Observations as they are to be expected at the last rung.

    Attributes:
        values: [k]
        known: [k], whether anything is known of that; otherwise values are as they are.
        trust: [k], how much they say, in [0, 1].
    """

    values: Floats
    known: Bools
    trust: Floats


def extrapolated(history: History, outcome: int, chosen: NDArray[np.int64]) -> Extrapolated:
    """Observations as they are to be expected at the last rung; as they are, where there is one rung.

    Args:
        history: where they stand.
        outcome: which column of ``seen_values``.
        chosen: [k], which observations.
    """
    values: Floats = history.seen_values[chosen, outcome]
    if len(history.rungs) < 2:
        return Extrapolated(values, np.ones(len(values), dtype=np.bool_), np.ones(len(values)))
    found = lines(history.curves(outcome))
    at = np.searchsorted(history.rungs, history.seen_steps[chosen])
    with np.errstate(over="ignore"):
        values = np.clip(found.shifts[at] + found.slopes[at] * values, -GREATEST, GREATEST)
    return Extrapolated(values, found.known[at], found.trust[at])
