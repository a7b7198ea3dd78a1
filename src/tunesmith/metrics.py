"""Metrics as users tell them, made into what a log holds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.errors import clean
from tunesmith.records import Constraint, Goal

Values = float | Sequence[float | None] | None  #: one value, or one a step; None only where it is measured once
Metrics = Mapping[str, Values]


def without_texts(metrics: Any, required: Collection[str]) -> tuple[Any, dict[str, str]]:
    """Metrics without those that are texts, and these: they are notes, unless a number is required of them."""
    if not isinstance(metrics, Mapping):
        return metrics, {}
    texts = {name: value for name, value in metrics.items() if isinstance(value, str) and name not in required}
    return {name: values for name, values in metrics.items() if name not in texts} if texts else metrics, texts


def as_series(
    metrics: Metrics, rules: Sequence[Goal | Constraint], once: Mapping[str, float | None] | None = None
) -> tuple[dict[str, list[float | None]], bool]:
    """Metrics as lists of equal length with None for what is not finite, and whether they were single values.

    Args:
        metrics: as a user tells them.
        rules: the goals and constraints, whose metrics must be there.
        once: the metrics that are measured once, with the value that is known, if one is. Where ``metrics`` have no
            value of one of them it keeps the value that it had.

    Raises:
        ValueError, TypeError: a rule's metric is missing, lists differ in length, a value is no number.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be a dict such as {{'{rules[0].metric}': 0.5}}, not {metrics!r}")
    for name in metrics:
        if not isinstance(name, str):
            raise TypeError(f"the name of a metric must be a string, not {name!r}")
    metrics = {clean(name): values for name, values in metrics.items()}
    held = once or {}
    known = {name: value for name, value in held.items() if value is not None}
    metrics = {name: values for name, values in metrics.items() if values is not None or name not in held}
    for rule in (rule for rule in rules if rule.metric not in known):
        if rule.metric not in metrics:
            raise ValueError(f"metrics lack {rule.metric!r}; they have {', '.join(map(repr, metrics)) or 'nothing'}")
    single = not any(isinstance(values, (list, tuple, np.ndarray)) for values in metrics.values())
    series = {name: _numbers(name, [values] if single else values, name in held) for name, values in metrics.items()}
    if len({len(values) for values in series.values()}) != 1 or not len(next(iter(series.values()))):
        lengths = ", ".join(f"{name}: {len(values)}" for name, values in series.items())
        raise ValueError(f"metrics must all have the same number of values, at least one: {lengths}")
    count = len(next(iter(series.values())))
    for name in held:
        series[name] = _kept(series.get(name, [None] * count), known.get(name))
    return series, single


def _kept(values: Sequence[float | None], known: float | None) -> list[float | None]:
    """A metric that is measured once, with the last value that was known in the place of each None."""
    kept: list[float | None] = []
    for value in values:
        known = known if value is None else value
        kept.append(known)
    return kept


def _numbers(name: str, values: Any, gaps: bool) -> list[float | None]:
    """Values of a metric as floats, None for what is not finite; with ``gaps`` values may be None."""
    try:
        floats = [math.nan if gaps and value is None else _float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise TypeError(f"metric {name!r}: {values!r} is not a number, nor a list with one number a step") from error
    return [value if math.isfinite(value) else None for value in floats]


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return math.inf
