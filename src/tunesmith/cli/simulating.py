"""What would it have cost? The trials of a study, played again in virtual time with other workers and schedulers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, get_args

import typer

from tunesmith.cli import output, reading
from tunesmith.cli.errors import Misuse
from tunesmith.cli.expressions import construct
from tunesmith.cli.running import PARTS, SAMPLERS, SCHEDULERS
from tunesmith.definition import StudyError
from tunesmith.errors import TunesmithError
from tunesmith.execution import simulated
from tunesmith.execution.recorded import Recorded
from tunesmith.study import Study

NEAR = {"5%": 0.05, "1%": 0.01}  #: how near to the best recorded value, relative to it
UNITS = {"hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
NOTES = {
    "exact": "jobs that played the curve that was recorded for them",
    "neighbour": "jobs of configurations that were not recorded, played by the nearest one that was",
    "continued": "jobs whose own curve stops earlier, and goes on like that of the nearest configuration that was "
    "trained further; what was stopped for its values then looks better than it is",
}


def simulate(
    store: reading.Address,
    name: reading.Name = None,
    scheduler: Annotated[
        list[str] | None,
        typer.Option("--scheduler", help="Such as 'ASHA(max_steps=81)' (repeatable); by default the study's own."),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option("--sampler", help="Such as QMC; by default the recorded configurations, in their order."),
    ] = None,
    workers: Annotated[
        list[int] | None, typer.Option("--workers", min=1, help="Jobs at once (repeatable); by default 1.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="Start no more trials than this; by default as many as recorded."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0, help="End each search after so long, in virtual time.")
    ] = None,
    overhead: Annotated[
        float, typer.Option("--overhead", min=0, help="Seconds that every job takes before its first step.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="All randomness follows from it.")] = 0,
    json: reading.Json = False,
) -> None:
    """What another scheduler, sampler or number of workers would have cost."""
    with reading.find(store, name) as study:
        if len(study.goals) > 1:
            raise Misuse(f"study {study.name!r} has {len(study.goals)} goals: a simulation compares by one")
        recorded = Recorded.of(study)
        schedulers = {text: construct(text, SCHEDULERS, "scheduler", PARTS) for text in scheduler or ()} or _own(study)
    about = _about(study, recorded)
    rows = []
    for text, chosen in schedulers.items():
        for count in workers or [1]:
            again = Study(
                study.space,
                study.goals,
                construct(sampler, SAMPLERS, "sampler") if sampler else recorded.sampler(),
                chosen,
                seed=seed,
                constraints=study.constraints,
                trials=trials or len(recorded.curves),
            )
            found = simulated.simulate(again, recorded, count, seconds=seconds, overhead=overhead)
            rows.append({"scheduler": text, **_row(found, about["best"]), "message": again.message})
    if json:
        output.as_json({"study": about, "sampler": sampler, "simulations": rows})
    else:
        _print(about, sampler, rows)


def _own(study: Study) -> dict[str, Any]:
    """The scheduler of a study, as one writes it."""
    try:
        own = study.scheduler
    except StudyError:
        raise Misuse(
            f"the scheduler {study.definition.scheduler.name!r} of the study is not built in: give a --scheduler"
        ) from None
    return {repr(own): own}


def _about(study: Study, recorded: Recorded) -> dict[str, Any]:
    """The study that is played."""
    goal, lengths = study.goals[0], [len(curve.seconds) for curve in recorded.curves]
    early = [curve for curve in recorded.curves if len(curve.seconds) < max(lengths)]
    best = min(float(simulated.losses(curve.metrics, goal, study.constraints).min()) for curve in recorded.curves)
    if math.isinf(best):
        raise TunesmithError(
            f"no trial of study {study.name!r} has a value that counts: all have failed or break a constraint"
        )
    return {
        "name": study.name,
        "metric": goal.metric,
        "best": goal.loss(best),
        "trials": len(recorded.curves),
        "steps": sum(lengths),
        "worker_seconds": sum(sum(curve.seconds) for curve in recorded.curves),
        "longest": max(lengths),
        "ended": sum(curve.ended for curve in early),
        "short": sum(not curve.ended for curve in early),
        "left_out": len(study.trials) - len(recorded.curves),
    }


def _row(found: simulated.Simulation, best: float) -> dict[str, Any]:
    """One simulation."""
    goal = found.goal
    return {
        "workers": found.workers,
        "outcome": found.outcome,
        "seconds": found.seconds,
        "worker_seconds": found.worker_seconds,
        "idle_seconds": found.idle,
        "jobs": found.jobs,
        "trials": found.trials,
        "failed": found.failed,
        "steps": found.steps,
        "best": found.best,
        "seconds_to": {
            near: found.time_to(goal.loss(goal.loss(best) + share * abs(best))) for near, share in NEAR.items()
        },
        "kinds": {kind: found.kinds.get(kind, 0) for kind in get_args(simulated.Kind)},
    }


def _print(about: dict[str, Any], sampler: str | None, rows: Sequence[dict[str, Any]]) -> None:
    """The study, the table, and how far it can be believed."""
    longest = max(row["worker_seconds"] for row in (about, *rows))
    unit = next((unit for unit, size in UNITS.items() if longest >= 2 * size), "seconds")
    size, metric = UNITS[unit], about["metric"]
    spent = output.text(about["worker_seconds"] / size)
    output.pairs(
        {
            "study": f"{about['name']}: {about['trials']} trials, {about['steps']} steps, {spent} worker {unit}",
            "best": f"{metric} {output.text(about['best'])}",
            "sampler": sampler or "the recorded configurations, in their order",
        }
    )
    output.line()
    kinds = [kind for kind in rows[0]["kinds"] if any(row["kinds"][kind] for row in rows)]
    output.table(
        [
            {
                "scheduler": row["scheduler"],
                "workers": row["workers"],
                unit: row["seconds"] / size,
                f"worker {unit}": row["worker_seconds"] / size,
                "trials": row["trials"],
                "steps": row["steps"],
                f"best {metric}": row["best"],
                **{f"{unit} to {near}": at and at / size for near, at in row["seconds_to"].items()},
                **{kind: row["kinds"][kind] for kind in kinds},
            }
            for row in rows
        ]
    )
    output.line()
    for note in _notes(about, rows, unit, kinds):
        output.line(note)


def _notes(about: dict[str, Any], rows: Sequence[dict[str, Any]], unit: str, kinds: Sequence[str]) -> Iterator[str]:
    yield f"{unit} to 5%, to 1%: until a value was found that is so near to the best recorded one"
    yield from (f"{kind}: {NOTES[kind]}" for kind in kinds)
    if about["ended"]:
        yield (
            f"{about['ended']} of the {about['trials']} recorded trials have come to their end before step "
            f"{about['longest']} by themselves, as they do here"
        )
    if about["short"]:
        yield (
            f"{about['short']} of the {about['trials']} recorded trials end before step {about['longest']}: "
            "they were stopped early, have failed or are not finished"
        )
    if about["left_out"]:
        yield f"{about['left_out']} trials of the study have no curve, and are left out"
    yield from dict.fromkeys(f"{row['scheduler']}: {row['message']}" for row in rows if row["message"])
