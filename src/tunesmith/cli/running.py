"""The commands that train: ``run``, ``resume`` and ``demo``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tunesmith import samplers, schedulers
from tunesmith.cli import output, reading, spaces, targets
from tunesmith.cli.errors import Misuse
from tunesmith.cli.expressions import construct
from tunesmith.costs import Budget
from tunesmith.errors import install
from tunesmith.execution import Command, as_task
from tunesmith.execution import run as execute
from tunesmith.execution.tune import is_endless
from tunesmith.records import Goal
from tunesmith.space import Space
from tunesmith.study import Study


class _Samplers(Mapping[str, Any]):
    """All samplers by name; each is loaded when it is used."""

    names = tuple(name for name in samplers.__all__ if name != "Sampler")

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        return getattr(samplers, name)


SAMPLERS = _Samplers()
PARTS = {name: getattr(schedulers, name) for name in schedulers.__all__ if name != "Scheduler"}
SCHEDULERS = {name: part for name, part in PARTS.items() if hasattr(part, "ask")}

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[TARGET | -- COMMAND...]",
        help="file.py:name or package.module:name, or behind -- a command in which {lr} stands for the value of lr.",
        show_default=False,
    ),
]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="Start no more trials than this, in all.")]
Seconds = Annotated[float | None, typer.Option("--seconds", min=0, help="End the run after so long; resume goes on.")]
Value = Annotated[
    float | None, typer.Option("--target", help="End the run when a trial has reached this value of the first goal.")
]
Spend = Annotated[
    str | None,
    typer.Option("--budget", help="What all trials may cost together: 90s, 30m, 2h of one worker, or '$20'."),
]
Price = Annotated[
    float | None, typer.Option("--price", help="What an hour of a worker costs, in dollars, for a --budget in dollars.")
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Jobs at once, in worker processes if over 1.")]
Devices = Annotated[
    list[str] | None,
    typer.Option("--devices", help="A place for a worker: cpu, cpu:4, cuda:0, cuda:0:0.5 (repeatable)."),
]
TimeLimit = Annotated[float | None, typer.Option("--time-limit", min=0, help="Seconds that one job may take.")]
Patience = Annotated[
    int | None, typer.Option("--patience", min=1, help="End the run when so many trials in a row were no better.")
]
Every = Annotated[
    str | None,
    typer.Option("--checkpoint-every", help="Save states of running jobs so often: seconds (60), or '100 steps'."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@dataclass(frozen=True)
class Code:
    """What to train, and what its module defines beside it."""

    train: Any
    beside: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def find(cls, target: str | None, command: list[str] | None) -> Code:
        """From a target, or from the words of a command."""
        if (target is None) == (not command):
            raise Misuse("name the code: either file.py:function, or a command behind --")
        if command:
            return cls(Command(command))
        train, module = targets.load(str(target))
        try:
            as_task(train)
        except TypeError as error:
            raise Misuse(f"{target}: {error}") from error
        return cls(train, vars(module))


def run(
    context: typer.Context,
    target: Target = None,
    space: Annotated[
        str | None, typer.Option("--space", help="A .toml or .json file, or a name in the target's file ('space').")
    ] = None,
    minimise: Annotated[
        list[str] | None, typer.Option("--minimise", metavar="METRIC", help="A goal (repeatable).")
    ] = None,
    maximise: Annotated[
        list[str] | None, typer.Option("--maximise", metavar="METRIC", help="A goal (repeatable).")
    ] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help="Such as QMC or 'Grid(levels=5)'.")] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Such as 'PBT(population=16, ready=200, steps=4000)'.")
    ] = None,
    trials: Trials = None,
    seconds: Seconds = None,
    value: Value = None,
    patience: Patience = None,
    budget: Spend = None,
    price: Price = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Steps of every trial at the most, without a scheduler."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Trials of every configuration, without a scheduler.")
    ] = None,
    workers: Workers = 1,
    devices: Devices = None,
    time_limit: TimeLimit = None,
    checkpoint_every: Every = None,
    store: Annotated[
        Path, typer.Option("--store", help="The file of the study; one that is there is continued.")
    ] = Path("study.db"),
    name: Annotated[str, typer.Option("--name", help="Name of the study in the store.")] = "study",
    seed: Annotated[
        int | None, typer.Option("--seed", help="All randomness follows from it; 0 by default.", show_default=False)
    ] = None,
    quiet: Quiet = False,
    json: reading.Json = False,
) -> None:
    """Search for the best configuration of some training code."""
    code = Code.find(target, context.obj)
    searched = _space(space, code)
    chosen = _scheduler(scheduler, steps, seeds, code)
    spend = _budget(budget, price)
    _check_end(searched, chosen, False, trials, seconds, spend, patience)
    with Study(
        searched,
        _goals(minimise or [], maximise or [], code),
        construct(sampler, SAMPLERS, "sampler") if sampler else code.beside.get("sampler", samplers.Auto()),
        chosen,
        _checked(store),
        name=name,
        seed=seed,
        constraints=code.beside.get("constraints", ()),
        trials=trials,
        budget=spend,
        patience=patience,
    ) as study:
        _train(study, code, seconds, value, workers, devices, time_limit, checkpoint_every, quiet, json)


def resume(
    context: typer.Context,
    store: reading.Address,
    target: Target = None,
    name: reading.Name = None,
    trials: Trials = None,
    seconds: Seconds = None,
    value: Value = None,
    patience: Patience = None,
    budget: Spend = None,
    price: Price = None,
    workers: Workers = 1,
    devices: Devices = None,
    time_limit: TimeLimit = None,
    checkpoint_every: Every = None,
    quiet: Quiet = False,
    json: reading.Json = False,
) -> None:
    """Go on with a study where it stands, up to as many trials as the run before wanted if nothing else is said."""
    with reading.find(store, name) as there:
        name, stored = there.name, there.space
        if all(limit is None for limit in (trials, seconds, budget, patience)):
            trials = there.limited
    code = Code.find(target, context.obj)
    given = {part: code.beside.get(part) for part in ("space", "sampler", "scheduler")}
    if given["space"] != stored:
        given["space"] = None
    spend = _budget(budget, price)
    with Study.open(store, name, trials=trials, budget=spend, patience=patience, **given) as study:
        _check_end(study.space, study.scheduler, study.definition.duplicates, trials, seconds, spend, patience)
        _train(study, code, seconds, value, workers, devices, time_limit, checkpoint_every, quiet, json)


def _space(text: str | None, code: Code) -> Space:
    if text is not None and text.endswith((".toml", ".json")):
        return spaces.read(Path(text))
    name = text or "space"
    if name not in code.beside:
        raise Misuse(f"there is no space: give --space FILE.toml, or define `{name}` beside the target")
    space = code.beside[name]
    return space if isinstance(space, Space) else Space(space)


def _goals(minimise: list[str], maximise: list[str], code: Code) -> list[Goal]:
    goals = [Goal(metric) for metric in minimise] + [Goal(metric, maximise=True) for metric in maximise]
    found = goals or code.beside.get("goals", [])
    if not found:
        raise Misuse("say what to optimise: --minimise METRIC or --maximise METRIC")
    return [found] if isinstance(found, Goal) else list(found)


def _scheduler(text: str | None, steps: int | None, seeds: int | None, code: Code) -> Any:
    given = {name: value for name, value in (("steps", steps), ("seeds", seeds)) if value is not None}
    if text is not None:
        for name, value in given.items():
            raise Misuse(f"--{name} is for studies without a scheduler: write {name}={value} into --scheduler")
        return construct(text, SCHEDULERS, "scheduler", PARTS)
    if given or "scheduler" not in code.beside:
        return schedulers.Full(steps, 1 if seeds is None else seeds)
    return code.beside["scheduler"]


def _check_end(space: Space, scheduler: Any, duplicates: bool, *limits: object) -> None:
    """As :func:`tunesmith.execution.tune.check_end`, in the words of the command line."""
    if is_endless(space, scheduler, duplicates) and all(limit is None for limit in limits):
        raise Misuse(
            "the search would never end: give --trials, --seconds, --budget, --patience, or a --scheduler with an end "
            "of its own"
        )


def _budget(text: str | None, price: float | None) -> Budget | None:
    if text is None:
        if price is not None:
            raise Misuse("--price is for a budget in dollars: --budget '$20'")
        return None
    try:
        return Budget.parse(text, price)
    except ValueError as error:
        raise Misuse(f"--budget: {error}") from None


def _checked(store: Path) -> Path:
    if store.is_dir():
        raise Misuse(f"--store {store} is a folder; name a file, such as {store / 'study.db'}")
    return store


def _train(
    study: Study,
    code: Code,
    seconds: float | None,
    value: float | None,
    workers: int,
    devices: list[str] | None,
    time_limit: float | None,
    checkpoint_every: str | None,
    quiet: bool,
    json: bool,
) -> None:
    """Run a study, and say how it stands afterwards."""
    outcome = execute(
        study,
        code.train,
        workers=workers,
        devices=devices,
        time_limit=time_limit,
        seconds=seconds,
        target=value,
        checkpoint_every=checkpoint_every,
        progress=not quiet,
    )
    found = {"outcome": outcome, **reading.summary(study)}
    if json:
        output.as_json(found)
    else:
        output.pairs(reading.brief(found))
    if outcome == "interrupted":
        raise typer.Exit(130)


def _say(line: str) -> None:
    """What happens next, beside the results."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def demo(
    data: Annotated[
        Literal["digits", "fashion-mnist"], typer.Option("--data", help="Real images to train on.")
    ] = "digits",
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Where the idx files of Fashion-MNIST lie.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for what is found.")] = Path("demo-out"),
    population: Annotated[int, typer.Option("--population", min=2, help="Members, and trials of random search.")] = 16,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of every member.")] = None,
    ready: Annotated[int | None, typer.Option("--ready", min=1, help="Steps between two decisions.")] = None,
    workers: Workers = 2,
    seed: Annotated[int, typer.Option("--seed", help="All randomness follows from it.")] = 0,
    quiet: Quiet = False,
    json: reading.Json = False,
) -> None:
    """Population based training against random search, on real images."""
    for module in ("torch", "safetensors", "matplotlib"):
        if find_spec(module) is None:
            raise Misuse(f"the demo needs {module}: {install('demo')}")
    from tunesmith.workloads import demo

    said = {} if quiet else {"say": _say}
    result = demo.run(data, data_dir, out, population, steps, ready, workers, seed, progress=not quiet, **said)
    if json:
        found = {"outcome": result.outcome, "rows": result.rows, "files": [str(file) for file in result.files]}
        output.as_json(found)
    elif result.outcome == "interrupted":
        output.line(f"interrupted; the same command goes on: the study is {result.files[0]}")
    else:
        output.line(f"\n{result.table}\n")
        output.pairs({file.name: str(file) for file in result.files})
        output.line(f"\n{result.conclusion}")
    if result.outcome == "interrupted":
        raise typer.Exit(130)
