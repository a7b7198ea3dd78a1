"""What users tell of a job, checked and made into the events of the log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tunesmith.errors import clean
from tunesmith.metrics import Metrics, as_series, without_texts
from tunesmith.records import AnyEvent, Checkpointed, Constraint, Ended, Failed, Goal, Noted, Told
from tunesmith.space import Scalar
from tunesmith.trials import Checkpoint, Trial, open_ended

MAX_SECONDS = 1e9  #: no job takes longer


def told(
    ask: int,
    trial: int,
    start: int,
    until: int,
    done: int,
    metrics: Metrics | None,
    rules: Sequence[Goal | Constraint],
    once: Mapping[str, float | None],
    *,
    step: int | None = None,
    seconds: float = 0.0,
    checkpoint: Checkpoint | None = None,
    ended: bool = False,
) -> list[AnyEvent]:
    """The events of a tell: the values, up to the first of a goal or constraint that is not finite, and the end.

    Args:
        ask, trial, start, until: of the job.
        done: the step up to which values were told before.
        metrics: as a user tells them; None or empty where only the end of the training is told.
        rules: the goals and constraints, whose metrics must be there.
        once: the metrics that are measured once, with what is known of them.
        step, seconds, checkpoint, ended: see ``Study.tell``.

    Raises:
        ValueError, TypeError: a rule's metric is missing, lists differ in length, a value is no number, the step does
            not belong to the job.
    """
    check_seconds(seconds, f"trial {trial}")
    saved: list[AnyEvent] = []
    if checkpoint is not None:
        if not isinstance(checkpoint, Checkpoint):
            raise TypeError(f"trial {trial}: checkpoint={checkpoint!r} must be a Checkpoint")
        saved = [Checkpointed(ask, trial, checkpoint.step, checkpoint.where, checkpoint.digest)]
    if not metrics and ended:
        return [*saved, Ended(ask, trial, done, float(seconds))]
    numbers, texts = without_texts(metrics, [rule.metric for rule in rules])
    series, single = as_series(numbers, rules, once)
    count = len(next(iter(series.values())))
    if step is None:
        whole = single and not ended and not open_ended(until)
        step, ended = until if whole else done + count, ended or (single and not whole)
    elif isinstance(step, bool) or not isinstance(step, int):
        raise TypeError(f"trial {trial}: step={step!r} must be a whole number")
    begin = step - count
    if begin < 0 or step > until:
        raise ValueError(f"trial {trial}: told up to step {step}, the job is from {start} to {until}")
    events: list[AnyEvent] = [Noted(notes(texts), trial)] if texts else []
    watched = {rule.metric for rule in rules}
    broken = [(i, name) for name in watched for i, value in enumerate(series[name]) if value is None]
    if broken:
        first, name = min(broken)
        if first:
            kept = {name: values[:first] for name, values in series.items()}
            events.append(Told(ask, trial, begin, kept, float(seconds)))
        error = f"{name} is not finite at step {begin + first + 1}"
        return [*events, Failed(ask, trial, error, "non-finite", 0.0 if first else float(seconds))]
    events += [*saved, Told(ask, trial, begin, series, float(seconds))]
    if ended:
        events.append(Ended(ask, trial, step))
    return events


def check_seconds(seconds: object, what: str) -> None:
    """Raise unless these are seconds that a job may take."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{what}: seconds={seconds!r} must be a number")
    if not seconds >= 0:
        raise ValueError(f"{what}: seconds={seconds} must be at least 0")
    if seconds > MAX_SECONDS:
        raise ValueError(f"{what}: seconds={seconds} must be at most {MAX_SECONDS:g}")


def notes(given: Mapping[Any, Any]) -> dict[str, Scalar]:
    """Notes as the log holds them.

    Raises:
        TypeError, ValueError: a name is no string, or a value neither a string, a finite number, True, False nor None.
    """
    if not isinstance(given, Mapping) or not given:
        raise TypeError(f"notes are given by name, such as note(author='...'), not {given!r}")
    found: dict[str, Scalar] = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise TypeError(f"the name of a note must be a string, not {name!r}")
        value = value.item() if hasattr(value, "item") and callable(value.item) else value
        if value is not None and not isinstance(value, str | int | float | bool):
            raise TypeError(f"note {name}={value!r} must be a string, a number, True, False or None: str(...) it")
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
            value = str(value)
        found[clean(name)] = clean(value) if isinstance(value, str) else value
    return found


def once_metrics(rules: Iterable[Goal | Constraint], trial: Trial | None = None) -> dict[str, float | None]:
    """The metrics that are measured once, with what the trial (None: a new one) was told of them, if it was."""
    names = sorted({rule.metric for rule in rules if rule.once})
    return {name: None if trial is None else trial.last(name) for name in names}
