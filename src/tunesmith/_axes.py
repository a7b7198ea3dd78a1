"""One parameter against [0, 1]: how its values fill the interval, and how they move.

* a continuous parameter fills it linearly, or linearly in its logarithm;
* one with k levels by k bins of equal width; ``encode`` gives the centre of a bin, ``decode`` takes the whole bin;
* a logarithmic grid by the bins between ``log(v - step/2)`` and ``log(v + step/2)`` of its values v; the first bin
  is made symmetric about ``log(low)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from decimal import Decimal
from numbers import Integral, Real
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scalar = str | int | float | bool | None

LONGEST = 100  #: characters of a value that an error shows
LISTED = 20  #: options that an error lists
LARGEST = 2**63 - 1  #: integer that every store can hold

# -- checks -------------------------------------------------------------------------------------------------------


def shown(value: object, longest: int = LONGEST) -> str:
    """A value as an error shows it: in one line, and not without end."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an integer of more than 4300 digits, an object whose repr fails
        text = f"{type(value).__name__} that can't be shown"
    return text if len(text) <= longest else f"{text[: longest - 20]}...{text[-10:]}"


def number(value: object) -> float:
    """A real number as a float; NaN for anything else, booleans included."""
    if type(value) is float:
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # only integers and fractions are that large
            return math.inf if value > 0 else -math.inf  # type: ignore[operator]  # Real lacks >
    return math.nan


def real(name: str, value: object) -> float:
    x = number(value)
    if math.isnan(x) and not isinstance(value, float):
        raise TypeError(f"{name}={shown(value)} must be a number")
    if not abs(x) <= 1e300:
        raise ValueError(f"{name}={shown(value)} must be finite and at most 1e300 in size")
    return x


def integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={shown(value)} must be an integer")
    return int(value)


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}={shown(value)} must be True or False")
    return bool(value)


def text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{name} {shown(value)} has half a character (a lone surrogate), which no file can hold: write it otherwise"
        ) from None
    return str(value)


def scalar(name: str, value: object) -> Scalar:
    if isinstance(value, np.generic):
        value = value.item()
    if value is not None and not isinstance(value, str | int | float):
        raise TypeError(f"{name} {shown(value)} must be a string, a number, a boolean or None")
    if isinstance(value, str):
        return text(name, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} {value!r} must be finite")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"{name} {shown(value)} must be at most 2**63 - 1 in size: write it as a float or a string")
    return value


def scalars(name: str, values: object, example: str) -> tuple[Scalar, ...]:
    """Distinct scalars in the order given; 1, 1.0 and True are three."""
    if isinstance(values, str | bytes | set | frozenset) or not isinstance(values, Iterable):
        raise TypeError(f"{name}={shown(values)} must be a list or a tuple, such as {example}")
    scalars = tuple(scalar(f"{name}:", value) for value in values)
    if not scalars:
        raise ValueError(f"{name} must not be empty: give at least one, such as {example}")
    seen: set[tuple[type, Scalar]] = set()
    for value in scalars:
        if (type(value), value) in seen:
            raise ValueError(f"{name} must differ, and {value!r} is given twice")
        seen.add((type(value), value))
    return scalars


def reflect(x: float, low: float, high: float) -> float:
    """Fold the line into [low, high] like a mirror at both ends (a triangle wave)."""
    width = high - low
    t = (x - low) % (2 * width)
    return low + (t if t <= width else 2 * width - t)


def symlog(x: float, floor: float, height: float = 1.0) -> float:
    """A symmetric logarithm: linear up to ``floor``, where it is ``height``, and logarithmic beyond."""
    size = abs(x) / floor
    return math.copysign(height * size if size <= 1 else height + math.log(size), x)


def symexp(z: float, floor: float, height: float = 1.0) -> float:
    """The inverse of `symlog`."""
    size = abs(z)
    return math.copysign(floor * (size / height if size <= height else math.exp(size - height)), z)


# -- axes: one parameter's values against [0, 1] ------------------------------------------------------------------


class Axis(ABC):
    """How the values of one parameter lie in [0, 1], and how they move. ``rule`` says what a value must be."""

    __slots__ = ("kind", "levels", "rule")

    kind: Literal["continuous", "ordered", "unordered"]
    levels: int
    rule: str

    @abstractmethod
    def encode(self, value: object) -> float:
        """Position of a value; ValueError where it breaks the rule."""

    @abstractmethod
    def decode(self, u: float) -> Scalar:
        """The value at ``u`` in [0, 1]."""

    @abstractmethod
    def snap(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """The representable positions nearest to ``u`` in [0, 1], shape [n]."""

    @abstractmethod
    def nearest(self, value: object) -> Scalar:
        """The value brought into the domain; ValueError where none is near it."""

    @abstractmethod
    def between(self, low: float, high: float, rng: np.random.Generator) -> Scalar:
        """One of the values from ``low`` to ``high``, uniform in [0, 1]; None where there is none. For numbers only."""

    @abstractmethod
    def ends(self, low: float, high: float) -> tuple[float, float] | None:
        """The least and the greatest of the values from ``low`` to ``high``; None where there is none."""

    def canonical(self, value: object) -> Scalar:
        """The value in the parameter's own type; ValueError where it breaks the rule."""
        self.encode(value)
        return self.nearest(value)

    @abstractmethod
    def perturb(self, value: Scalar, rng: np.random.Generator, shift: float) -> Scalar:
        """A neighbour at the distance ``shift`` (the logarithm of a factor), up or down; the ends are mirrors."""

    @abstractmethod
    def jitter(self, value: Scalar, rng: np.random.Generator, scale: float) -> Scalar:
        """A Gaussian step of the deviation ``scale`` in [0, 1]."""


class Line(Axis):
    """A continuous interval."""

    __slots__ = ("bottom", "floor", "high", "log", "low", "span", "start", "top")

    def __init__(self, low: float, high: float, log: bool):
        self.kind, self.levels = "continuous", 0
        self.rule = f"must be a number from {low} to {high}"
        self.low, self.high, self.log = low, high, log
        self.start = math.log(low) if log else low
        self.span = math.log(high) - self.start if log else high - low
        self.floor = 0.05 * (high - low)
        self.bottom, self.top = self._z(low), self._z(high)

    def encode(self, value: object) -> float:
        x = value if type(value) is float else number(value)
        if not self.low <= x <= self.high:
            raise ValueError(self.rule)
        return ((math.log(x) if self.log else x) - self.start) / self.span

    def decode(self, u: float) -> float:
        x = self.start + u * self.span
        return self._clip(math.exp(x) if self.log else x)

    def snap(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        return u

    def nearest(self, value: object) -> float:
        x = number(value)
        if math.isnan(x):
            raise ValueError(self.rule)
        return self._clip(x)

    def between(self, low: float, high: float, rng: np.random.Generator) -> float | None:
        ends = self.ends(low, high)
        if ends is None:
            return None
        least, most = self.encode(ends[0]), self.encode(ends[1])
        return min(max(self.decode(least + (most - least) * rng.random()), ends[0]), ends[1])

    def ends(self, low: float, high: float) -> tuple[float, float] | None:
        low, high = max(low, self.low), min(high, self.high)
        return (low, high) if low <= high else None

    def perturb(self, value: Scalar, rng: np.random.Generator, shift: float) -> float:
        """Equal steps up and down cancel in the coordinate z; the bounds are mirrors, so that z becomes uniform."""
        step = shift if rng.random() < 0.5 else -shift
        z = reflect(self._z(number(value)) + step, self.bottom, self.top)
        return self._clip(math.exp(z) if self.log else symexp(z, self.floor))

    def jitter(self, value: Scalar, rng: np.random.Generator, scale: float) -> float:
        return self.decode(reflect(self.encode(value) + scale * rng.standard_normal(), 0.0, 1.0))

    def _z(self, x: float) -> float:
        """``log x``; for linear scales a symmetric logarithm, linear within ``floor`` of zero so that zero can move."""
        return math.log(x) if self.log else symlog(x, self.floor)

    def _clip(self, x: float) -> float:
        return self.low if x < self.low else self.high if x > self.high else x


class Levels(Axis):
    """Finitely many values, numbered from 0; bins of equal width."""

    __slots__ = ()

    @abstractmethod
    def level(self, value: object) -> int:
        """The number of a value; ValueError where it breaks the rule."""

    @abstractmethod
    def value(self, level: int) -> Scalar:
        """The value with this number."""

    def centre(self, level: int) -> float:
        """The position of a level."""
        return (level + 0.5) / self.levels

    def index(self, u: float) -> int:
        """The level whose bin holds ``u`` in [0, 1]."""
        return min(int(u * self.levels), self.levels - 1)

    def encode(self, value: object) -> float:
        return self.centre(self.level(value))

    def decode(self, u: float) -> Scalar:
        return self.value(self.index(u))

    def snap(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        return (np.minimum(np.floor(u * self.levels), self.levels - 1) + 0.5) / self.levels

    def edge(self, level: int) -> float:
        """Where the bin of a level begins."""
        return level / self.levels

    def jitter(self, value: Scalar, rng: np.random.Generator, scale: float) -> Scalar:
        old, step = self.level(value), scale * rng.standard_normal()
        u = self.centre(old) + step
        if self.edge(old) < u < self.edge(old + 1):  # too short a step becomes one level, so that small ones move too
            return self.beside_or_stay(old, 1 if step > 0 else -1)
        return self.value(self.index(reflect(u, 0.0, 1.0)))

    def beside_or_stay(self, level: int, direction: int) -> Scalar:
        """The neighbour's value, the same at an end: that is symmetric, so all levels are visited equally often."""
        new = level + direction
        return self.value(new if 0 <= new < self.levels else level)


class Grid(Levels):
    """The numbers low, low + step, ..., high; ``whole`` for integers."""

    __slots__ = ("digits", "high", "line", "low", "step", "whole")

    def __init__(self, low: float, high: float, step: float, log: bool, whole: bool):
        self.low, self.high, self.step, self.whole = low, high, step, whole
        self.kind, self.levels = "ordered", math.floor((high - low) / step + 1e-9) + 1
        self.digits = 0 if whole else max(decimals(low), decimals(step))
        self.high = self.value(self.levels - 1)
        self.rule = f"must be {'an integer' if whole else 'a number'} from {low} to {self.high}"
        if not whole or step != 1:
            self.rule += f" in steps of {step}"
        self.line = Line(low, self.high, log)

    def level(self, value: object) -> int:
        x = number(value)
        if math.isfinite(x) and (not self.whole or type(value) is int or isinstance(value, Integral)):
            level = self.beside(x)
            if math.isclose(x, self.value(level), rel_tol=4e-16, abs_tol=0.0 if self.whole else 1e-9 * self.step):
                return level
        raise ValueError(self.rule)

    def value(self, level: int) -> float:
        x = self.low + level * self.step
        return x if self.whole else min(round(x, self.digits), self.high)  # rounded: 0.3, not 0.30000000000000004

    def beside(self, x: float) -> int:
        """The level nearest to a number."""
        return min(max(math.floor((x - self.low) / self.step + 0.5), 0), self.levels - 1)

    def nearest(self, value: object) -> Scalar:
        return self.value(self.beside(self.line.nearest(value)))

    def between(self, low: float, high: float, rng: np.random.Generator) -> Scalar:
        levels = self._levels(low, high)
        if levels is None:
            return None
        least, most = self.edge(levels[0]), self.edge(levels[1] + 1)
        level = self.index(least + (most - least) * rng.random())
        return self.value(min(max(level, levels[0]), levels[1]))

    def ends(self, low: float, high: float) -> tuple[float, float] | None:
        levels = self._levels(low, high)
        return None if levels is None else (self.value(levels[0]), self.value(levels[1]))

    def _levels(self, low: float, high: float) -> tuple[int, int] | None:
        """The first and the last level whose value lies between ``low`` and ``high``."""
        if low > self.high or high < self.low:
            return None
        first, last = self.beside(max(low, self.low)), self.beside(min(high, self.high))
        first += self.value(first) < low
        last -= self.value(last) > high
        return (first, last) if first <= last else None

    def perturb(self, value: Scalar, rng: np.random.Generator, shift: float) -> Scalar:
        """A random place of the level's cell moves by ``shift``, and the level is where it arrives.

        It moves in a symmetric logarithm that is linear where ``shift`` is less than one level and a half, so that
        it moves one level there, and beyond as a continuous number does; the outer edges of the cells are mirrors, so
        that a move of one level that would leave stays. These moves are symmetric in the cells' widths. Of a linear
        grid, whose cells are narrower at large numbers, they are accepted so often that all levels are visited
        equally often (Metropolis et al. 1953). A logarithmic grid of many levels stays uniform in the logarithm,
        where equally often would be a drift to large numbers.
        """
        floor, height = 1.5 * self.step / shift, 1.5
        if not self.line.log and self.line.floor > floor:
            floor, height = self.line.floor, 1.0

        def z(level: float) -> float:
            return symlog(self.low + level * self.step, floor, height)

        old = self.level(value)
        step = shift if rng.random() < 0.5 else -shift
        place = reflect(z(old + rng.random() - 0.5) + step, z(-0.5), z(self.levels - 0.5))
        new = self.beside(symexp(place, floor, height))
        if not self.line.log and new != old:
            before, after = z(old + 0.5) - z(old - 0.5), z(new + 0.5) - z(new - 0.5)
            if rng.random() * after > before:
                return self.value(old)
        return self.value(new)


class LogGrid(Grid):
    """A grid whose bins lie in the logarithm."""

    __slots__ = ("span", "start")

    def __init__(self, low: float, high: float, step: float, log: bool, whole: bool):
        super().__init__(low, high, step, log, whole)
        self.start = 2 * math.log(low) - math.log(low + step / 2)
        self.span = self._edge(self.levels) - self.start

    def _edge(self, level: int) -> float:
        """The lower edge of a level's bin."""
        return math.log(self.low + (level - 0.5) * self.step) if level else self.start

    def edge(self, level: int) -> float:
        return (self._edge(level) - self.start) / self.span

    def centre(self, level: int) -> float:
        return ((self._edge(level) + self._edge(level + 1)) / 2 - self.start) / self.span

    def index(self, u: float) -> int:
        return self.beside(math.exp(self.start + u * self.span))

    def snap(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        # Not numpy's exp and log: their last bit differs from that of `math`, and `snap` agrees with `encode`.
        levels, where = np.unique([self.index(x) for x in u.tolist()], return_inverse=True)
        return np.array([self.centre(level) for level in levels.tolist()], dtype=np.float64)[where]


class Table(Levels):
    """Listed values, in order or not."""

    __slots__ = ("index_of", "values")

    def __init__(self, values: tuple[Scalar, ...], ordered: bool):
        self.kind, self.levels, self.values = "ordered" if ordered else "unordered", len(values), values
        listed = ", ".join(map(shown, values[:LISTED])) + (f", ... ({len(values)})" if len(values) > LISTED else "")
        self.rule = f"must be {'one of ' if len(values) > 1 else ''}{listed}"
        self.index_of = {(type(value), value): level for level, value in enumerate(values)}

    def level(self, value: object) -> int:
        if isinstance(value, np.generic):
            value = value.item()
        for kind in (type(value), float) if type(value) is int else (type(value),):
            try:
                return self.index_of[kind, value]  # type: ignore[index]  # any other value is not found
            except (KeyError, TypeError):
                continue
        raise ValueError(self.rule)

    def value(self, level: int) -> Scalar:
        return self.values[level]

    def nearest(self, value: object) -> Scalar:
        try:
            return self.values[self.level(value)]
        except ValueError:
            x = number(value)
            if self.kind == "unordered" or not all(math.isfinite(number(known)) for known in (x, *self.values)):
                raise
            return min(self.values, key=lambda known: abs(number(known) - x))

    def between(self, low: float, high: float, rng: np.random.Generator) -> Scalar:
        inside = [value for value in self.values if low <= number(value) <= high]
        return inside[rng.integers(len(inside))] if inside else None

    def ends(self, low: float, high: float) -> tuple[float, float] | None:
        inside = [number(value) for value in self.values if low <= number(value) <= high]
        return (min(inside), max(inside)) if inside else None

    def perturb(self, value: Scalar, rng: np.random.Generator, shift: float) -> Scalar:
        if self.kind == "unordered":
            return value
        return self.beside_or_stay(self.level(value), 1 if rng.random() < 0.5 else -1)

    def jitter(self, value: Scalar, rng: np.random.Generator, scale: float) -> Scalar:
        return value if self.kind == "unordered" else super().jitter(value, rng, scale)


class Held(Levels):
    """An interval from which nobody chooses: ``full``, its greatest number, stands for all of it."""

    __slots__ = ("full", "low", "whole")

    def __init__(self, low: float, full: float, whole: bool):
        self.kind, self.levels, self.low, self.full, self.whole = "ordered", 1, low, full, whole
        self.rule = f"must be {'an integer' if whole else 'a number'} from {low} to {full}"

    def level(self, value: object) -> int:
        x = number(value)
        if self.low <= x <= self.full and (not self.whole or isinstance(value, Integral)):
            return 0
        raise ValueError(self.rule)

    def value(self, level: int) -> Scalar:
        return self.full

    def nearest(self, value: object) -> Scalar:
        x = number(value)
        if not self.low <= x <= self.full:
            return self.full
        return int(x) if self.whole else x

    def between(self, low: float, high: float, rng: np.random.Generator) -> Scalar:
        return self.full

    def ends(self, low: float, high: float) -> tuple[float, float]:
        return self.low, self.full

    def perturb(self, value: Scalar, rng: np.random.Generator, shift: float) -> Scalar:
        return value

    def jitter(self, value: Scalar, rng: np.random.Generator, scale: float) -> Scalar:
        return value


def decimals(x: float) -> int:
    """The number of decimal places in the shortest notation of a number."""
    return max(0, -int(Decimal(repr(x)).as_tuple().exponent))
