"""Metrics as users tell them, made into what a log holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.records import Constraint, Goal

Values = float | Sequence[float]  #: one value, or one a step
Metrics = Mapping[str, Values]


def as_series(metrics: Metrics, rules: Sequence[Goal | Constraint]) -> tuple[dict[str, list[float | None]], bool]:
    """Metrics as lists of equal length with None for what is not finite, and whether they were single values.

    Raises:
        ValueError, TypeError: a rule's metric is missing, lists differ in length, a value is no number.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be a dict such as {{'{rules[0].metric}': 0.5}}, not {metrics!r}")
    for rule in rules:
        if rule.metric not in metrics:
            raise ValueError(f"metrics lack {rule.metric!r}; they have {', '.join(map(repr, metrics)) or 'nothing'}")
    single = not any(isinstance(values, (list, tuple, np.ndarray)) for values in metrics.values())
    series = {name: _numbers(name, [values] if single else values) for name, values in metrics.items()}
    if len({len(values) for values in series.values()}) != 1 or not len(next(iter(series.values()))):
        lengths = ", ".join(f"{name}: {len(values)}" for name, values in series.items())
        raise ValueError(f"metrics must all have the same number of values, at least one: {lengths}")
    return series, single


def _numbers(name: str, values: Any) -> list[float | None]:
    """Values of a metric as floats, None for what is not finite."""
    try:
        floats = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise TypeError(f"metric {name!r}: {values!r} is not a number, nor a list with one number a step") from error
    return [value if math.isfinite(value) else None for value in floats]
