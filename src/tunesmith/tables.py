"""Trials as rows, for tables of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from html import escape
from typing import Any

from tunesmith.errors import printable
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


def text(value: Any) -> str:
    """A value as a person reads it in a table: four significant digits, nothing for None, one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(" ".join(str(value).split()))[:60]


def as_text(rows: Sequence[Mapping[str, Any]], more: int = 0) -> str:
    """Rows as aligned columns under their names; numbers stand right."""
    if not rows:
        return ""
    names = list(rows[0])
    head = [text(name) for name in names]
    cells = [[text(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(head)]
    right = [all(row[name] is None or isinstance(row[name], int | float) for row in rows) for name in names]
    lines = []
    for line in [head, *cells]:
        aligned = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        lines.append("  ".join(aligned).rstrip())
    return "\n".join([*lines, f"... and {more} more"] if more else lines)


def as_html(rows: Sequence[Mapping[str, Any]], caption: str = "") -> str:
    """Rows as an HTML table."""
    head = "".join(f"<th>{escape(text(name))}</th>" for name in (rows[0] if rows else ()))
    body = "".join(f"<tr>{''.join(f'<td>{escape(text(value))}</td>' for value in row.values())}</tr>" for row in rows)
    title = f"<caption>{escape(printable(caption))}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
