"""Learning-rate schedules: a factor of the learning rate at every update, as a pure function that may be traced.

All take the number of the update, from 0, and the number of updates in all; shares are of that number. What is tuned
about them are numbers, so they are parameters of the same space as the optimizer's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tunesmith.optimizers.base import Array, OptimizerError, library

_TINY = 1e-12  # a warm-up of no updates divides by it


def constant(step: Array, steps: int) -> Array:
    """1 throughout."""
    return _share(step) * 0 + 1


def linear(step: Array, steps: int, end: Any = 0.0, decay: Any = 1.0) -> Array:
    """From 1 to ``end`` along a line, within the first share ``decay`` of the updates, and then constant."""
    return 1 - (1 - end) * _clip(_share(step) / (decay * steps))


def cosine(step: Array, steps: int, end: Any = 0.0) -> Array:
    """From 1 to ``end`` along half of a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts)."""
    angle = math.pi * _clip(_share(step) / steps)
    return end + (1 - end) * (1 + library(angle).cos(angle)) / 2


def staircase(step: Array, steps: int, factor: Any = 0.1, every: Any = 1 / 3) -> Array:
    """Times ``factor`` after every share ``every`` of the updates."""
    done = _share(step) / (every * steps)
    return factor ** library(done).floor(done + 1e-6)  # 1/3 of 99 is 33, not 32.999


def warmup(step: Array, steps: int, share: Any = 0.05) -> Array:
    """From nearly 0 to 1 along a line within the first ``share`` of the updates: a factor for another schedule."""
    return _clip((_share(step) + 1) / (share * steps + _TINY))


def trapezoid(step: Array, steps: int, share: Any = 0.05, decay: Any = 0.2) -> Array:
    """A warm-up, then constant, then to 0 along a line within the last share ``decay`` (warm-up, stable, decay)."""
    left = (steps - _share(step)) / (decay * steps + _TINY)
    return warmup(step, steps, share) * _clip(left)


SCHEDULES: dict[str, Callable[..., Array]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "staircase": staircase,
    "warmup": warmup,
    "trapezoid": trapezoid,
}
"""The schedules by their names."""


def schedule(name: str) -> Callable[..., Array]:
    """A schedule by its name.

    Raises:
        OptimizerError: there is none of this name.
    """
    if name not in SCHEDULES:
        raise OptimizerError(f"there is no schedule {name!r}; there are {', '.join(SCHEDULES)}")
    return SCHEDULES[name]


def _share(step: Array) -> Array:
    """The number of an update as a floating-point number."""
    if not hasattr(step, "dtype"):
        return np.float64(step)
    return step * 1.0


def _clip(share: Array) -> Array:
    """Between 0 and 1."""
    return library(share).clip(share, 0, 1)
