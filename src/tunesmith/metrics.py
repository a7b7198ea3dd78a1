"""Metrics as users tell them, made into what a log holds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.errors import clean
from tunesmith.records import Constraint, Goal

Values = float | Sequence[float | None] | None  #: one value, or one a step; None where there is none
Metrics = Mapping[str, Values]

LONGEST_NOTE = 1000  #: characters that are kept of what stands among the numbers and is neither a number nor a text


def without_texts(metrics: Any, required: Collection[str]) -> tuple[Any, dict[str, str]]:
    """Metrics without those that are texts, and these: they are notes, unless a number is required of them."""
    if not isinstance(metrics, Mapping):
        return metrics, {}
    texts = {name: value for name, value in metrics.items() if isinstance(value, str) and name not in required}
    return {name: values for name, values in metrics.items() if name not in texts} if texts else metrics, texts


def without_others(metrics: Any, required: Collection[str]) -> tuple[Any, dict[str, str]]:
    """The metrics of one step without those that are no numbers, and these as texts: a list, an array or an object that
    training code gives beside its numbers must not fail a trial that was trained.
    """
    if not isinstance(metrics, Mapping):
        return metrics, {}
    others = {name: value for name, value in metrics.items() if name not in required and not is_number(value)}
    if not others:
        return metrics, {}
    texts = {str(name): value if isinstance(value, str) else _shortened(str(value)) for name, value in others.items()}
    return {name: value for name, value in metrics.items() if name not in others}, texts


def is_number(value: Any) -> bool:
    """Whether training code may give this as the value of a metric; None is a value that is missing."""
    if value is None or type(value) is float:
        return True
    if isinstance(value, str | bytes):
        return False
    try:
        as_float(value)
    except (TypeError, ValueError, RuntimeError):  # PyTorch raises a RuntimeError for a tensor of several numbers
        return False
    return True


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_NOTE else f"{text[:LONGEST_NOTE]}..."


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
    beside = metrics.keys() - {rule.metric for rule in rules}
    lists = [name for name, values in metrics.items() if _is_list(values)]
    if lists and len(lists) < len(metrics):
        one = next(name for name in metrics if name not in lists)
        raise TypeError(
            f"metric {lists[0]!r} is a list and {one!r} is not, {metrics[one]!r}: give a number of each, or of each a "
            "list with one number a step"
        )
    single = not lists
    series = {
        name: _numbers(name, [values] if single else values, name in held or name in beside)
        for name, values in metrics.items()
    }
    if len({len(values) for values in series.values()}) != 1 or not len(next(iter(series.values()))):
        lengths = ", ".join(f"{name}: {len(values)}" for name, values in series.items())
        raise ValueError(f"metrics must all have the same number of values, at least one: {lengths}")
    count = len(next(iter(series.values())))
    for name in held:
        series[name] = _kept(series.get(name, [None] * count), known.get(name))
    return series, single


def _is_list(values: Any) -> bool:
    return isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim > 0)


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
        floats = [math.nan if gaps and value is None else as_float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise TypeError(f"metric {name!r}: {values!r} is not a number, nor a list with one number a step") from error
    return [value if math.isfinite(value) else None for value in floats]


def as_float(value: Any) -> float:
    """A number as a float; infinite where it is an integer beyond all floats."""
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return math.inf
