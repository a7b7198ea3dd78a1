"""Trials as rows, for tables of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any

from tunesmith.noise import Estimate
from tunesmith.records import Goal

Row = dict[str, Any]

SHOWN = 20  #: rows that a representation shows


def trial_rows(
    shown: Iterable[Any], trials: Any, goals: Sequence[Goal], estimate: Callable[[Any], Estimate | None]
) -> list[Row]:
    """One flat row a trial; every row has the same columns.

    Columns: trial, status, parent, replaces, start, step, seconds, error, then ``params.<name>``, ``metrics.<name>``
    (the last value; of a goal with another scope the value by it) and ``notes.<name>`` for every name that occurs
    in the study; None where a trial has none. The parameters are those with which the values were measured. Where
    configurations were repeated also repeat_of, the first trial of the configuration, and the configuration's
    ``estimate.mean``, ``estimate.low``, ``estimate.high`` and ``estimate.count`` (see ``Study.estimate``).

    Args:
        shown: the trials that have a row.
        trials: all of the study, from which the columns follow.
        goals: of the study.
        estimate: of a trial's configuration.
    """
    parameters = dict.fromkeys(name for trial in trials for name in trial.config)
    metrics = dict.fromkeys(name for trial in trials for report in trial.reports for name in report.metrics)
    notes = dict.fromkeys(name for trial in trials for name in trial.notes)
    scopes = {goal.metric: goal for goal in goals if goal.scope != "last"}
    rows = []
    for trial in shown:
        config = trial.measured or trial.config
        last = trial.metrics
        for name, goal in scopes.items():
            if name in last:
                last[name] = trial.value(goal)
        row: Row = {
            "trial": trial.id,
            "status": trial.status,
            "parent": trial.parent,
            "replaces": trial.replaces,
            "start": trial.start,
            "step": trial.step,
            "seconds": trial.seconds,
            "error": trial.error,
        }
        row |= {f"params.{name}": config.get(name) for name in parameters}
        row |= {f"metrics.{name}": last.get(name) for name in metrics}
        row |= {f"notes.{name}": trial.notes.get(name) for name in notes}
        if trials.repeated:
            found = estimate(trial)
            row["repeat_of"] = trial.repeat_of
            row |= {f"estimate.{field.name}": getattr(found, field.name, None) for field in fields(Estimate)}
        rows.append(row)
    return rows


def used(rows: Sequence[Row]) -> list[Row]:
    """The rows without the columns in which nothing stands."""
    empty = {key for key in (rows[0] if rows else ()) if all(row[key] in (None, "") for row in rows)}
    return [{key: value for key, value in row.items() if key not in empty} for row in rows]
