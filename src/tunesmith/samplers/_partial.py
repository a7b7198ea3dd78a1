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
    """

    shifts: Floats
    slopes: Floats
    known: Bools


def lines(values: Floats) -> Lines:
    """From one rung to the next a regression over the configurations that have a value at both.

    Where one lacks a value at a rung, it has what is to be expected there by those before.

    Args:
        values: [n, r] of n configurations, NaN where there is none; one at least in each column.
    """
    size = max(float(np.nanmax(np.abs(values))), np.finfo(np.float64).tiny)
    scaled = values / size
    shifts, slopes, known = np.zeros(1), np.ones(1), np.ones(1, dtype=np.bool_)
    expected = scaled[:, 0]
    for later in scaled.T[1:]:
        both = ~np.isnan(expected) & ~np.isnan(later)
        shift, slope = _line(expected, later, both)
        expected = np.where(np.isnan(later), shift + slope * expected, later)
        shifts, slopes = np.append(shift + slope * shifts, 0.0), np.append(slope * slopes, 1.0)
        known = np.append(known & both.any(), True)
    with np.errstate(over="ignore"):
        return Lines(np.clip(shifts * size, -GREATEST, GREATEST), slopes, known)


def _line(before: Floats, after: Floats, both: Bools) -> tuple[float, float]:
    """Shift and slope of a line through the values [n] of the configurations that have ``both``.

    The slope is the mean of its posterior, where it is 1 with deviation 1 before; the noise is what is left by 1. The
    shift is a median: a bad tail, or the first few configurations, have little power.
    """
    if not both.any():
        return 0.0, 1.0
    x, y = _drawn(before)[both], _drawn(after)[both]
    x, y = x - x.mean(), y - y.mean()
    noise = float(np.mean((y - x) ** 2))
    weight = float(x @ x) + noise
    slope = (float(x @ y) + noise) / weight if weight > 0 else 1.0
    return float(np.quantile(after[both] - slope * before[both], 0.5, method="lower")), slope


def _drawn(values: Floats) -> Floats:
    """The values [n], what is far above the median brought nearer."""
    good, median = np.nanquantile(values, (0.1, 0.5))
    return np.minimum(values, median + REACH * (median - good)) if median > good else values


def extrapolated(history: History, outcome: int, chosen: NDArray[np.int64]) -> tuple[Floats, Bools]:
    """Observations as they are to be expected at the last rung, and whether anything is known of that.

    Args:
        history: where they stand.
        outcome: which column of ``seen_values``.
        chosen: [k], which observations.

    Returns:
        [k] and [k]
    """
    values: Floats = history.seen_values[chosen, outcome]
    if len(history.rungs) < 2:
        return values, np.ones(len(values), dtype=np.bool_)
    shifts, slopes, known = lines(history.curves(outcome))
    at = np.searchsorted(history.rungs, history.seen_steps[chosen])
    with np.errstate(over="ignore"):
        return np.clip(shifts[at] + slopes[at] * values, -GREATEST, GREATEST), known[at]
