"""Checks of hyperparameters, which say what is wrong in one form."""

from __future__ import annotations

import math
from typing import Any


def whole(owner: str, least: int, **values: Any) -> None:
    """Raise TypeError or ValueError unless every value is a whole number, and at least ``least``."""
    integer(owner, **values)
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{owner}: {name}={value} must be at least {least}")


def integer(owner: str, **values: Any) -> None:
    """Raise TypeError unless every value is a whole number."""
    for name, value in values.items():
        if type(value) is not int:
            raise TypeError(f"{owner}: {name}={value!r} must be a whole number")


def real(owner: str, **values: Any) -> None:
    """Raise TypeError or ValueError unless every value is a finite number."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{owner}: {name}={value!r} must be a number")
        if not math.isfinite(value):
            raise ValueError(f"{owner}: {name}={value} must be finite")


def inside(owner: str, low: float, high: float, **values: Any) -> None:
    """Raise TypeError or ValueError unless every value is a number in the open interval (low, high)."""
    real(owner, **values)
    for name, value in values.items():
        if not low < value < high:
            raise ValueError(f"{owner}: {name}={value} must be in ({low}, {high})")


def flag(owner: str, **values: Any) -> None:
    """Raise TypeError unless every value is True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{owner}: {name}={value!r} must be True or False")
