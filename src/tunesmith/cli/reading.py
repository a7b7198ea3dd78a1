"""The commands that look at a study. None of them writes to it, or makes a file that was not asked for."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tunesmith.analysis import figures, surrogates, tables
from tunesmith.analysis import schedule as schedules
from tunesmith.analysis.rungs import plot_rungs
from tunesmith.cli import output, retraining
from tunesmith.cli.errors import Misuse
from tunesmith.definition import NOTHING
from tunesmith.errors import TunesmithError, install
from tunesmith.noise import Estimate
from tunesmith.progress import interval
from tunesmith.records import Asked, Goal, Spec
from tunesmith.replay import replay as decide_again
from tunesmith.storage import SQLiteStore
from tunesmith.study import Study
from tunesmith.tables import Row, used
from tunesmith.trials import Trial

Address = Annotated[str, typer.Argument(metavar="STORE", help="The file of the study.", show_default=False)]
Name = Annotated[str | None, typer.Option("--name", help="Which study, if the store holds several.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.")]


def find(store: str, name: str | None) -> Study:
    """The study in a store, opened for reading; its name may be left out where there is only one."""
    return Study.open(store, name or only_name(store))


def only_name(store: str) -> str:
    """The name of the only study in a store."""
    file = SQLiteStore(Path(store), create=False)
    names = file.names()
    file.close()
    if not names:
        raise TunesmithError(f"{store} holds no study")
    if len(names) > 1:
        raise Misuse(f"{store} holds several studies, choose one with --name: {', '.join(names)}")
    return names[0]


def status(store: Address, name: Name = None, json: Json = False) -> None:
    """How a study stands."""
    with find(store, name) as study:
        found = summary(study)
    if json:
        output.as_json(found)
    else:
        output.pairs(brief(found))


def summary(study: Study) -> dict[str, Any]:
    """How a study stands: its definition, its trials, its best."""
    counts = Counter(trial.status for trial in study.trials)
    best = study.best
    return {
        "name": study.name,
        "store": str(getattr(study.store, "address", "memory")),
        "goals": [_goal(goal) for goal in study.goals],
        "sampler": _written(study.definition.sampler, NOTHING.sampler),
        "scheduler": _written(study.definition.scheduler, NOTHING.scheduler),
        "seed": study.definition.seed,
        "trials": len(study.trials),
        "running": counts["running"],
        "waiting": counts["waiting"],
        "paused": counts["paused"],
        "complete": counts["complete"],
        "failed": counts["failed"],
        "steps": sum(trial.step - trial.start for trial in study.trials),
        "seconds": round(study.trials.seconds, 3),
        "spent": None if study.budget is None else study.budget.spent(study.trials.seconds),
        "message": study.message or study.stopped,
        "notes": study.notes or None,
        "best": None if best is None else _trial(best, study),
    }


def _goal(goal: Goal) -> str:
    """A goal in words, with the steps that count where it is not the last one."""
    scope = "" if goal.scope == "last" else f" ({goal.scope})"
    return f"{'maximise' if goal.maximise else 'minimise'} {goal.metric}{scope}"


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """A summary as a person reads it: without what is nothing."""
    best = found["best"]
    if best is not None:
        mean = "" if best["estimate"] is None else f"; mean {_interval(best['estimate'])}"
        best = f"trial {best['trial']}, step {best['step']}: {output.text(best['metrics'])}{mean}"
    return {key: value for key, value in (found | {"best": best}).items() if value not in (None, "")}


def _written(spec: Spec, make: Callable[[Spec], Any]) -> str:
    """A sampler or a scheduler as one writes it."""
    try:
        return repr(make(spec))
    except TunesmithError:  # not built in
        return f"{spec.name}({', '.join(f'{key}={value!r}' for key, value in spec.options.items())})"


def best(
    store: Address,
    name: Name = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", metavar="DIR", help="Copy the state that its training has saved into this folder."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """The best trial, or the Pareto front of several goals."""
    with find(store, name) as study:
        several = len(study.goals) > 1
        winners = study.front if several else [study.best] if study.best else []
        found = [_trial(trial, study) for trial in winners]
        if checkpoint is not None:
            for winner, row in zip(winners, found, strict=True):
                row["checkpoint"] = str(_copy_state(study, winner, checkpoint, several))
    if not found:
        raise TunesmithError(f"no trial of study {study.name!r} has a result yet")
    if json:
        output.as_json(found if several else found[0])
        return
    for trial in found:
        estimate = trial["estimate"]
        mean = {} if estimate is None else {f"mean {estimate['metric']}": _interval(estimate)}
        output.pairs({"trial": trial["trial"], "step": trial["step"], **trial["metrics"], **mean})
        output.line()
        output.pairs(trial["config"])
        more = {key: trial[key] for key in ("notes", "checkpoint") if trial.get(key)}
        if more:
            output.line()
            output.pairs(more)
        if trial is not found[-1]:
            output.line()


def _copy_state(study: Study, trial: Trial, folder: Path, several: bool) -> Path:
    """Copy the state of a trial into a folder; of several trials into one each."""
    saved = study.checkpoint(trial)
    source = study.use_checkpoints() / saved.where
    study.load(trial)  # says what is wrong with it, before anything is copied
    target = folder / (f"trial-{trial.id}" if several else "") / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
    return target


def _trial(trial: Trial, study: Study) -> dict[str, Any]:
    estimate = study.estimate(trial)
    return {
        "trial": trial.id,
        "status": trial.status,
        "parent": trial.parent,
        "step": trial.step,
        "metrics": trial.metrics | {goal.metric: trial.value(goal) for goal in study.goals if trial.reports},
        "estimate": None if estimate is None else {"metric": study.goals[0].metric, **asdict(estimate)},
        "config": dict(trial.measured or trial.config),
        "notes": dict(trial.notes),
        "seconds": trial.seconds,
        "error": trial.error or None,
    }


def _interval(estimate: dict[str, Any]) -> str:
    """The mean of a configuration over training seeds."""
    return interval(Estimate(**{name: estimate[name] for name in estimate if name != "metric"}))


def trials(
    store: Address,
    name: Name = None,
    population: Annotated[
        bool, typer.Option("--population", help="Only members that nobody replaced, best first.")
    ] = False,
    json: Json = False,
) -> None:
    """A table with a row for every trial."""
    with find(store, name) as study:
        rows = tables.population_table(study) if population else tables.trials_table(study)
    if json:
        output.as_json(rows)
    else:
        output.table(used(rows))


def schedule(
    store: Address,
    name: Name = None,
    trial: Annotated[int | None, typer.Option("--trial", help="Of this trial instead of the best one.")] = None,
    out: Output = None,
    retrain: Annotated[
        str | None,
        typer.Option("--retrain", metavar="TARGET", help="Train this code again, with the schedule and without."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="How often to train again.")] = 3,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Trainings at once, in worker processes if over 1.")
    ] = 1,
    json: Json = False,
) -> None:
    """Hyperparameters over steps, as the best trial found them."""
    with find(store, name) as study:
        found = schedules.schedule(study, trial)
        goal, space = study.goals[0], study.space
    if out is not None:
        out.write_text(found.to_json() + "\n", encoding="utf-8")
    if retrain is not None:
        compared = retraining.compare(found, goal, space, retrain, seeds, workers)
        if json:
            output.as_json(compared)
        else:
            retraining.describe(compared)
    elif json:
        output.line(found.to_json())
    else:
        output.table([{"from": s.start, "to": s.until, "trial": s.trial, **s.config} for s in found.segments])


_FIGURES: dict[str, Callable[[Study], Any]] = {
    "schedule": lambda study: figures.plot_schedule(schedules.schedule(study), study),
    "lineage": figures.plot_lineage,
    "curves": figures.plot_curves,
    "rungs": plot_rungs,
}


def plot(
    store: Address,
    kind: Annotated[
        Literal["schedule", "lineage", "curves", "rungs", "surrogate"],
        typer.Argument(help="What to draw.", show_default=False),
    ],
    name: Name = None,
    parameter: Annotated[
        str | None, typer.Option("--parameter", help="Along which the surrogate is drawn; by default the first one.")
    ] = None,
    out: Output = None,
    json: Json = False,
) -> None:
    """Draw the schedule, the lineage, the learning curves, the rungs, or the sampler's model."""
    if parameter is not None and kind != "surrogate":
        raise Misuse(f"--parameter is for the surrogate, not for the {kind}")
    file = out or Path(f"{kind}.png")
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise Misuse(f"{file}: the ending must be .png, .svg or .pdf")
    try:
        import matplotlib  # noqa: F401 - figures need it
    except ModuleNotFoundError:
        raise Misuse(f"pictures need matplotlib: {install('figures')}") from None
    with find(store, name) as study:
        figure = surrogates.plot_surrogate(study, parameter) if kind == "surrogate" else _FIGURES[kind](study)
    figure.savefig(file)
    _report(file, json)


def replay(store: Address, name: Name = None, json: Json = False) -> None:
    """Decide every job again; exit code 1 if one differs."""
    with find(store, name) as study:
        differences = decide_again(study)
        decisions = sum(isinstance(event, Asked) for event in study.events())
    if json:
        output.as_json({"decisions": decisions, "differences": [d._asdict() for d in differences]})
    else:
        output.table([d._asdict() for d in differences])
        output.line(f"{decisions} decisions, {len(differences)} differences")
    if differences:
        raise typer.Exit(1)


def export(
    store: Address,
    out: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A .csv, .json or .parquet file; without it CSV on the screen."),
    ] = None,
    name: Name = None,
    every_step: Annotated[
        bool, typer.Option("--every-step", help="A row for every step instead of every trial.")
    ] = False,
    json: Json = False,
) -> None:
    """All trials as CSV, JSON or Parquet."""
    with find(store, name) as study:
        rows = _steps(study) if every_step else tables.trials_table(study)
    if out is None:
        if json:
            output.as_json(rows)
        else:
            sys.stdout.write(output.as_csv(rows))
        return
    if out.suffix == ".csv":
        out.write_text(output.as_csv(rows), encoding="utf-8")
    elif out.suffix == ".json":
        out.write_text(output.encode(rows), encoding="utf-8")
    elif out.suffix == ".parquet":
        _parquet(rows, out)
    else:
        raise Misuse(f"{out}: the ending must be .csv, .json or .parquet")
    _report(out, json)


def _steps(study: Study) -> list[Row]:
    """One row for every step of every trial: trial, step and the metrics."""
    names = list(dict.fromkeys(name for trial in study.trials for name in trial.metrics))
    rows = []
    for trial in study.trials:
        curves = {name: dict(zip(*trial.values(name), strict=True)) for name in names}
        told = sorted(set().union(*curves.values()))
        rows += [{"trial": trial.id, "step": step, **{n: curves[n].get(step) for n in names}} for step in told]
    return rows


def _parquet(rows: list[Row], file: Path) -> None:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise Misuse(f"Parquet needs pyarrow: {install('parquet')}; or export .csv or .json") from None
    parquet.write_table(arrow.Table.from_pylist(rows), file)


def _report(file: Path, json: bool) -> None:
    if json:
        output.as_json({"file": str(file)})
    else:
        output.line(str(file))
