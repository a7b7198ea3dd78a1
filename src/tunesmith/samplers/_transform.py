"""Values made fit for a Gaussian process: the bad tail drawn in, skewness taken out, mean 0 and deviation 1.

What is minimised needs resolution near its best values, and of the worst no more than that they are bad. So values far
above the median are first drawn in smoothly, in units of how far the good half spreads. Then the power transform of Yeo
and Johnson (2000, Biometrika 87) makes them as normal as it can, of those powers that stretch the good side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.samplers.base import Floats

REACH = 3.0  #: the bad tail begins so many spreads of the good half above the median, and is drawn into as many again
GOOD = 0.1  #: the spread of the good half is the distance from the median to this quantile
POWERS = tuple(i / 10 for i in range(-10, 11))  #: 1 changes nothing; the less, the more the good side is stretched
GREATEST = 1e307  #: values are clipped to it, so that their differences don't overflow
LONGEST = 1e50  #: the same of distances in units of the room, for their powers


@dataclass(frozen=True)
class Transform:
    """An increasing function of values.

    Attributes:
        center: the median of the values that were fitted.
        room: the length into which the bad tail is drawn, and how far above the center it begins.
        power: of Yeo and Johnson's transform.
        before: mean and deviation before that transform, from the center on in units of the room.
        after: mean and deviation after it.
    """

    center: float
    room: float
    power: float
    before: tuple[float, float]
    after: tuple[float, float]

    @classmethod
    def fit(cls, y: Floats, powers: Sequence[float] = POWERS) -> Transform:
        """The transform that gives the values [n], n > 0, all finite, mean 0 and deviation 1 (0 if all are equal).

        Of the ``powers`` it takes the one that makes them most normal.
        """
        values = np.clip(y, -GREATEST, GREATEST)
        center, room = float(np.median(values)), REACH * _spread(values)
        drawn = _drawn(values, center, room)
        before = _moments(drawn)
        standard = (drawn - before[0]) / before[1]
        power = max(powers, key=lambda power: _likelihood(standard, power)) if drawn.std() > 0 else 1.0
        return cls(center, room, power, before, _moments(_powered(standard, power)))

    def apply(self, y: Floats) -> Floats:
        """Values in the surrogate's units; of any shape, as those of ``invert``."""
        standard = (_drawn(y, self.center, self.room) - self.before[0]) / self.before[1]
        result: Floats = (_powered(standard, self.power) - self.after[0]) / self.after[1]
        return result

    def log_slopes(self, y: Floats) -> Floats:
        """Logarithms of the slopes at the values [n], but for a number that no power changes."""
        standard = (_drawn(y, self.center, self.room) - self.before[0]) / self.before[1]
        slopes: Floats = (self.power - 1) * np.sign(standard) * np.log1p(np.abs(standard)) - math.log(self.after[1])
        return slopes

    def invert(self, z: Floats) -> Floats:
        """What ``apply`` was given; where that lay far out in the bad tail, a value there."""
        drawn = _unpowered(z * self.after[1] + self.after[0], self.power) * self.before[1] + self.before[0]
        tail = 1 + np.arctanh(np.clip(drawn - 1, 0.0, 1 - 1e-12))
        result: Floats = self.center + self.room * np.where(drawn > 1, tail, drawn)
        return result


def balanced(excess: Floats) -> tuple[Floats, float]:
    """By how much a constraint is broken [n], with deviation 1, and where the limit is then.

    Each side of the limit is reckoned in its own median, and beyond a few of it drawn in, so that no side hides what
    happens on the other.
    """
    values = np.clip(excess, -GREATEST, GREATEST)
    over, under = (values[side] for side in (values > 0, values < 0))
    rooms = [REACH * float(np.median(np.abs(side))) if len(side) else 0.0 for side in (over, under)]
    drawn = np.where(values > 0, _drawn(values, 0.0, rooms[0] or 1.0), -_drawn(-values, 0.0, rooms[1] or 1.0))
    mean, deviation = _moments(drawn)
    return (drawn - mean) / deviation, -mean / deviation


def _spread(values: Floats) -> float:
    """How far the good half spreads; if it doesn't, how far the next worse value is; 1 if there is none."""
    median = float(np.median(values))
    spread = (median - float(np.quantile(values, GOOD))) or (median - float(values.min()))
    worse = values[values > median]
    return spread or (float(worse.min()) - median if len(worse) else 1.0)


def _drawn(y: Floats, center: float, room: float) -> Floats:
    """Distances from the center in units of the room, those beyond 1 drawn in below 2."""
    with np.errstate(over="ignore"):
        values = np.clip((np.clip(y, -GREATEST, GREATEST) - center) / room, -LONGEST, LONGEST)
    return np.where(values > 1, 1 + np.tanh(np.maximum(values, 1.0) - 1), values)


def _moments(values: Floats) -> tuple[float, float]:
    """Mean and deviation, 1 where all are equal."""
    return float(values.mean()), float(values.std()) or 1.0


def _powered(values: Floats, power: float) -> Floats:
    """Yeo and Johnson's transform, for powers below 2."""
    up, down = np.maximum(values, 0.0), np.maximum(-values, 0.0)
    bad = np.expm1(power * np.log1p(up)) / power if power else np.log1p(up)
    good: Floats = np.expm1((2 - power) * np.log1p(down)) / (2 - power)
    return bad - good


def _unpowered(values: Floats, power: float) -> Floats:
    """The inverse of ``_powered``; of what lies above its greatest value, a great one."""
    up, down = np.maximum(values, 0.0), np.maximum(-values, 0.0)
    bad = np.expm1(np.log(np.maximum(1 + power * up, 1e-6)) / power) if power else np.expm1(np.minimum(up, 100.0))
    good: Floats = np.expm1(np.log1p((2 - power) * down) / (2 - power))
    return bad - good


def _likelihood(values: Floats, power: float) -> float:
    """Log likelihood of a power, the transformed values being normal."""
    jacobian = (power - 1) * float((np.sign(values) * np.log1p(np.abs(values))).sum())
    return jacobian - len(values) * math.log(float(_powered(values, power).std()))
