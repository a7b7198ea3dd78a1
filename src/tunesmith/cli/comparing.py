"""Which optimizer is better, and how sure is that? From a table of trials, whoever has trained them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tunesmith.cli import output, reading
from tunesmith.cli.errors import Misuse
from tunesmith.comparison import Outcomes, Verdict, band, best_of, better, pays, rank_matrix, reach, score
from tunesmith.optimizers import RULES
from tunesmith.optimizers.taxonomy import contains


def compare(
    results: Annotated[
        Path, typer.Option("--results", help="A CSV file with a row a trial: optimizer, trial, final, ...")
    ],
    measure: Annotated[str, typer.Option("--measure", help="The column that says how good a trial is.")] = "final",
    report: Annotated[
        str | None, typer.Option("--report", help="A column that is shown of the best trials, such as final.test.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option("--budget", min=1, help="Trials for each; by default as many as can be told about.")
    ] = None,
    maximise: Annotated[bool, typer.Option("--maximise/--minimise", help="Larger is better.")] = False,
    json: reading.Json = False,
) -> None:
    """Compare optimizers by the best of k trials, with intervals, from a table of results."""
    table = Outcomes.read(results)
    for column in [measure, *([] if report is None else [report])]:
        if column not in table.measures:
            raise Misuse(f"{results} has no column {column!r}; it has {', '.join(table.measures)}")
    found = [_compared(table, workload, measure, report, budget, maximise) for workload in table.workloads]
    scores = _scores(table, measure)
    if json:
        output.as_json({"measure": measure, "workloads": found, "scores": scores, "notes": list(table.notes)})
        return
    for one in found:
        _show(one, len(found) > 1)
    if scores:
        output.line("AlgoPerf's score over the workloads, by steps to the target (1: always the first one)")
        output.table([{"optimizer": name, "score": value} for name, value in scores.items()])
        output.line()
    for note in table.notes:
        output.line(f"note: {note}")


def _compared(
    table: Outcomes, workload: str, measure: str, report: str | None, budget: int | None, maximise: bool
) -> dict[str, Any]:
    """What is to be said of one workload."""
    names = [name for name in table.optimizers if _trials(table, name, workload)]
    values = {name: table.values(name, workload, measure, maximise=maximise) for name in names}
    least = min(map(len, values.values()))
    if budget is not None and budget > least:
        raise Misuse(
            f"--budget {budget}: an optimizer has {least} trials of {workload!r}, so the best of {least} at most"
        )
    k = budget or max(1, reach(least))
    rows: list[dict[str, Any]] = []
    for name in names:
        curve, sure = best_of(values[name], [k], maximise=maximise), band(values[name], [k], maximise=maximise)
        row = {
            "optimizer": name, "trials": len(values[name]), "failed": int(np.isinf(values[name]).sum()),
            "median": _plain(curve.median[0]), "low": _plain(sure.low[0]), "high": _plain(sure.high[0]),
        }  # fmt: skip
        if report is not None:
            of = table.values(name, workload, report)
            row[report] = _plain(best_of(values[name], [k], report=of, maximise=maximise).median[0])
        rows.append(row)
    rows.sort(key=lambda row: math.inf if row["median"] is None else row["median"] * (-1 if maximise else 1))
    matrix = rank_matrix({row["optimizer"]: values[row["optimizer"]] for row in rows}, k, maximise=maximise)
    return {
        "workload": workload, "budget": k, "reach": reach(least), "optimizers": rows,
        "beats": [[float(chance) for chance in line] for line in matrix],
        "verdicts": [asdict(verdict) for verdict in _verdicts(values, [row["optimizer"] for row in rows], k, maximise)],
    }  # fmt: skip


def _trials(table: Outcomes, optimizer: str, workload: str) -> bool:
    return any(row.optimizer == optimizer and row.workload == workload for row in table.rows)


def _verdicts(values: dict[str, Any], ranked: list[str], k: int, maximise: bool) -> Iterator[Verdict]:
    """Whether the best one is better than the next one, and whether more general optimizers pay."""
    if len(ranked) > 1:
        yield better(values[ranked[0]], values[ranked[1]], k, names=(ranked[0], ranked[1]), maximise=maximise)
    known = [name for name in ranked if name in RULES]
    for special in known:
        for general in known:
            if general != special and contains(general, special):
                yield pays(values[general], values[special], names=(general, special), maximise=maximise)


def _scores(table: Outcomes, measure: str) -> dict[str, float]:
    """AlgoPerf's score by optimizer, where there are several workloads and steps to a target."""
    steps = measure.replace("final", "steps", 1).replace("best", "steps", 1)
    if len(table.workloads) < 2 or steps not in table.measures:
        return {}
    return dict(zip(table.optimizers, map(float, score(table.times(steps))), strict=True))


def _show(found: dict[str, Any], several: bool) -> None:
    """One workload as text."""
    k = found["budget"]
    of = f" on {found['workload']}" if several else ""
    output.line(f"The best of {k} trials{of}: the median, and its 90% interval")
    output.table(found["optimizers"])
    output.line()
    names = [row["optimizer"] for row in found["optimizers"]]
    if len(names) > 1:
        output.line(f"The probability that the best of {k} of the row is better than that of the column")
        output.table(
            [
                {"": name, **dict(zip(names, chances, strict=True))}
                for name, chances in zip(names, found["beats"], strict=True)
            ]
        )
        output.line()
    for verdict in found["verdicts"]:
        output.line(f"{verdict['claim']}: {verdict['answer']} ({verdict['reason']})")
    if found["verdicts"]:
        output.line()


def _plain(value: Any) -> float | None:
    """A number, or None where trials do not tell."""
    return float(value) if np.isfinite(value) else None
