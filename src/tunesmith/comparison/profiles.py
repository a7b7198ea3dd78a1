"""Several workloads at once: performance profiles, the score of AlgoPerf, and the mean speed-up.

Times are arrays [optimizers, workloads] of steps or seconds to a target, over 0, in any unit: only their ratios count.
Infinite where the target was not reached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tunesmith import check
from tunesmith.comparison.statistics import Floats, numbers

LIMIT = 4.0  #: AlgoPerf counts what takes longer than this many times the best one as not solved


@dataclass(frozen=True, eq=False)
class Profile:
    """On which share of the workloads an optimizer is within a factor of the best one, for every factor.

    A step function: ``share[:, i]`` holds from ``factors[i]`` up to the next factor, the last one for ever; below the
    first factor, which is 1, nothing is.

    Attributes:
        factors: where any optimizer's share changes, in ascending order [f].
        share: [optimizers, f].
    """

    factors: Floats
    share: Floats

    def at(self, factor: float) -> Floats:
        """The share of each optimizer within one factor: [optimizers]."""
        i = int(np.searchsorted(self.factors, factor, side="right"))
        return self.share[:, i - 1] if i else np.zeros(len(self.share))


def ratios(times: ArrayLike) -> Floats:
    """Times [optimizers, workloads] over the best of each workload: at least 1; infinite where the target was not
    reached, also if nobody has reached it.

    Raises:
        TypeError: the times are no numbers.
        ValueError: they are no table, NaN, or not over 0.
    """
    found = _times(times)
    best = found.min(axis=0)
    with np.errstate(invalid="ignore", over="ignore"):  # infinity over infinity
        return np.where(np.isinf(found), np.inf, found / best)


def profile(times: ArrayLike) -> Profile:
    """Performance profiles (Dolan and More 2002, "Benchmarking optimization software with performance profiles").

    Args:
        times: [optimizers, workloads].
    """
    found = ratios(times)
    factors = np.unique(np.concatenate([[1.0], found[np.isfinite(found)]]))
    share = (found[:, :, None] <= factors).mean(axis=1)
    return Profile(factors, share)


def score(times: ArrayLike, limit: float = LIMIT) -> Floats:
    """AlgoPerf's score: the mean share of workloads within a factor of the best, over factors from 1 to the limit.

    The integral of the profile's step function, exactly: a workload with the ratio r adds limit - r where r <= limit.
    AlgoPerf takes the integral by trapezoids over a grid.

    Args:
        times: [optimizers, workloads].
        limit: over 1; 4 in AlgoPerf (Dahl et al. 2023, "Benchmarking neural network training algorithms").

    Returns:
        [optimizers], from 0 (nothing is solved within the limit) to 1 (the best one on every workload).

    Raises:
        ValueError: as ``ratios``, or the limit is not over 1.
    """
    check.inside("score", 1, math.inf, limit=limit)
    found = ratios(times)
    solved = np.where(found <= limit, limit - found, 0.0)
    scores: Floats = solved.mean(axis=1) / (limit - 1)
    return scores


def study_times(times: ArrayLike) -> float:
    """The time of an optimizer on a workload as AlgoPerf has it: the median over studies of the best of their trials.

    Args:
        times: [studies, trials]; infinite where a trial did not reach the target.

    Returns:
        Infinite if half of the studies or more did not reach it.
    """
    fastest = _times(times).min(axis=1)
    ordered = np.sort(fastest)
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)


def speed_up(one: ArrayLike, other: ArrayLike) -> tuple[float, int]:
    """How many times faster one is than the other, as the geometric mean over workloads, and over how many of them.

    Args:
        one, other: times [workloads].

    Returns:
        The mean over the workloads on which both reached the target, NaN if there is none; and their number.
    """
    rows = [np.atleast_1d(_numbers(times)) for times in (one, other)]
    if rows[0].shape != rows[1].shape:
        raise ValueError(f"times of shapes {rows[0].shape} and {rows[1].shape}: give both for the same workloads")
    found = _times(np.stack(rows))
    both = np.isfinite(found).all(axis=0)
    if not both.any():
        return math.nan, 0
    logarithms = np.log(found[:, both])
    return float(np.exp((logarithms[1] - logarithms[0]).mean())), int(both.sum())


def _times(times: ArrayLike) -> Floats:
    """A table of times, checked."""
    found = _numbers(times)
    if found.ndim != 2 or not found.size:
        raise ValueError(f"times of shape {found.shape}: give a table with at least one row and one column")
    if np.isnan(found).any():
        raise ValueError("times: one is NaN: write inf where the target was not reached")
    if not (found > 0).all():
        raise ValueError(f"times: {found.min()} is not over 0")
    return found


def _numbers(times: ArrayLike) -> Floats:
    found = numbers(times)
    if found is None:
        raise TypeError("times must be numbers, as many in each row")
    return found
