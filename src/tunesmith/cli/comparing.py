"""Which optimizer is better, and how sure is that? From a table of trials, whoever has trained them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tunesmith.cli import output, reading, targets
from tunesmith.cli.errors import Misuse
from tunesmith.comparison import Outcomes, Verdict, band, best_of, better, pays, protocol, rank_matrix, reach, score
from tunesmith.comparison.spaces import Edge
from tunesmith.optimizers import RULES
from tunesmith.optimizers.taxonomy import contains


def compare(
    workload: Annotated[
        str | None, typer.Argument(help="What to train: file.py:Workload, with epochs and train(make_optimizer, seed).")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Instead: a CSV file with a row a trial: optimizer, trial, final, ..."),
    ] = None,
    optimizers: Annotated[
        str | None, typer.Option("--optimizers", help=f"Names with commas: {','.join(RULES)}.")
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials of each optimizer.")] = 50,
    store: Annotated[
        Path, typer.Option("--store", help="File of the studies, one an optimizer; those that are there go on.")
    ] = Path("comparison.db"),
    target: Annotated[
        float | None, typer.Option("--target", help="A validation value: epochs to it are told as steps.")
    ] = None,
    refine: Annotated[
        int, typer.Option("--refine", min=0, help="Widen ranges whose ends the best trials are near, so often at most.")
    ] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Trainings at once, in processes if over 1.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="All searches follow from it.")] = 0,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the table of results to this file.")] = None,
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
    """Compare optimizers by the best of k trials, with intervals: of your workload, or from a table of results."""
    if (workload is None) == (results is None):
        raise Misuse("give what to train, file.py:Workload, or a table of what was trained, --results table.csv")
    near: dict[str, list[Edge]] = {}
    if results is not None:
        table, source = Outcomes.read(results), str(results)
    else:
        assert workload is not None
        names = [name.strip() for name in (optimizers or ",".join(RULES)).split(",")]
        made, _ = targets.load(workload)
        given = {"trials": trials, "store": store, "workers": workers, "seed": seed, "target": target, "refine": refine}
        table, near = protocol.compare(made, names, **given)  # type: ignore[arg-type]
        source = "the workload"
    if csv is not None:
        csv.write_text(output.as_csv(_rows(table)), encoding="utf-8")
    for column in [measure, *([] if report is None else [report])]:
        if column not in table.measures:
            raise Misuse(f"{source} has no column {column!r}; it has {', '.join(table.measures)}")
    found = [_compared(table, workload, measure, report, budget, maximise) for workload in table.workloads]
    scores = _scores(table, measure)
    if json:
        whole = {"measure": measure, "workloads": found, "scores": scores, "notes": list(table.notes)}
        output.as_json(whole | {"edges": {name: [asdict(edge) for edge in some] for name, some in near.items()}})
        return
    for one in found:
        _show(one, len(found) > 1)
    if scores:
        output.line("AlgoPerf's score over the workloads, by steps to the target (1: always the first one)")
        output.table([{"optimizer": name, "score": value} for name, value in scores.items()])
        output.line()
    for note in table.notes:
        output.line(f"note: {note}")
    for name, some in near.items():
        for edge in some:
            output.line(f"note: {name}: {edge}; better ones may lie beyond (--refine 1 widens it)")


def _rows(table: Outcomes) -> list[dict[str, Any]]:
    """A row a training, as ``--results`` reads it."""
    rows = []
    for row in table.rows:
        measures = {name: row.measures.get(name, "") for name in table.measures}
        named = {"optimizer": row.optimizer, "workload": row.workload, "trial": row.trial, "seed": row.seed}
        rows.append({**named, **measures, "failed": "yes" if row.failed else "no"})
    return rows


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
