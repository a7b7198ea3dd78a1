"""The studies that ``chaos.py`` breaks, and a driver of them: ``python -m tunesmith.testing._victim FOLDER``.

Their training makes one whole number of all hyperparameters that it was ever given and of the number of its steps. A
step that is lost, repeated or skipped, or begun from the wrong weights, shows in every value after it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from tunesmith import samplers, schedulers
from tunesmith.errors import TunesmithError
from tunesmith.execution import Command, JaxTask, current_job, run
from tunesmith.records import Constraint, Goal
from tunesmith.space import Categorical, Integer, Ordinal, Space
from tunesmith.study import Study

FOLDER = "TUNESMITH_CHAOS"  #: names the folder of the study in the environment of all its processes
MODULUS = 9973  #: of states: whole numbers of float32 are exact, so all kinds of tasks compute the same


class Plan(msgspec.Struct, frozen=True):
    """A study and how it is driven.

    Attributes:
        task: name of the training code, among ``TASKS``.
        scheduler, sampler, goals: names, among those below.
        seed: of the study.
        workers: jobs at once.
        every: how often states are saved: ``checkpoint_every`` of ``tune``.
        diverges: a state that is a multiple of it is a failure; 0: there is none.
        nap: seconds that a step takes.
    """

    task: str
    scheduler: str
    sampler: str
    goals: str
    seed: int
    workers: int
    every: str
    diverges: int
    nap: float = 0.005


# -- the parts of a study -----------------------------------------------------------------------------------------

_PERTURB = schedulers.Perturb(resample=0.3)
_PBT: dict[str, Any] = {"population": 4, "ready": 4, "steps": 16}

#: by name: the scheduler, and how many trials are started in all, where that does not follow from it
SCHEDULERS: dict[str, tuple[Callable[[], Any], int | None]] = {
    "Full": (lambda: schedulers.Full(12), 7),
    "Full with seeds": (lambda: schedulers.Full(6, seeds=2), 10),
    "Race": (lambda: schedulers.Race(6, seeds=3), 10),
    "Median": (lambda: schedulers.Median(12, every=3, min_trials=2), 8),
    "Plateau": (lambda: schedulers.Plateau(12, every=2, patience=2), 8),
    "FreezeThaw": (lambda: schedulers.FreezeThaw(9, every=3), 8),
    "ASHA": (lambda: schedulers.ASHA(9), 12),
    "ASHA that stops": (lambda: schedulers.ASHA(9, stopping=True), 12),
    "SuccessiveHalving": (lambda: schedulers.SuccessiveHalving(9, rounds=1), None),
    "Hyperband": (lambda: schedulers.Hyperband(9, rounds=1), None),
    "PBT": (lambda: schedulers.PBT(**_PBT), None),
    "PBT with Backtrack": (lambda: schedulers.PBT(**_PBT, backtrack=schedulers.Backtrack(rungs=1)), None),
    "synchronous PBT": (lambda: schedulers.PBT(**_PBT, explore=_PERTURB, synchronous=True), None),
    "synchronous PB2": (lambda: schedulers.PBT(**_PBT, explore=schedulers.PB2(), synchronous=True), None),
    "synchronous MFPBT": (lambda: schedulers.MFPBT(population=6, ready=4, steps=16, synchronous=True), None),
    "FIRE": (lambda: schedulers.FIRE(population=6, ready=4, steps=16), None),
    "synchronous FIRE": (lambda: schedulers.FIRE(population=6, ready=4, steps=16, synchronous=True), None),
    "Chain": (
        lambda: schedulers.Chain(
            schedulers.SuccessiveHalving(3, size=4, rounds=1),
            schedulers.PBT(population=3, ready=3, steps=12, synchronous=True),
        ),
        None,
    ),
}
#: schedulers that copy weights, so that training code must save its state
COPYING = {name for name in SCHEDULERS if "PB" in name or "FIRE" in name or name == "Chain"}
ONE_GOAL = {"Race", "FreezeThaw", "Plateau", "FIRE", "synchronous FIRE"}  #: schedulers that take one goal

SAMPLERS: dict[str, Callable[[], Any]] = {
    "Uniform": lambda: samplers.Uniform(),
    "QMC": lambda: samplers.QMC(),
    "Grid": lambda: samplers.Grid(levels=4),
    "Auto": lambda: samplers.Auto(),
    "TPE": lambda: samplers.TPE(startup=4),
    "GP": lambda: samplers.GP(startup=4),
    "RegularizedEvolution": lambda: samplers.RegularizedEvolution(population=4, sample=2),
    "NSGA2": lambda: samplers.NSGA2(population=4),
}
FIXED = {"Uniform", "QMC", "Grid"}  #: samplers whose proposals do not depend on what was told

#: schedulers whose studies are the same whatever happens on the way: with any sampler, and with one of ``FIXED``
SAME_WITH_ANY = {"synchronous PBT", "synchronous PB2", "synchronous MFPBT", "synchronous FIRE"}
SAME_WITH_FIXED = {"Full", "SuccessiveHalving", "Hyperband", "Chain"}

GOALS: dict[str, tuple[tuple[Goal, ...], tuple[Constraint, ...]]] = {
    "one": ((Goal("x"),), ()),
    "maximised": ((Goal("y", maximise=True),), ()),
    "best step": ((Goal("x", scope="best"),), ()),
    "two": ((Goal("x"), Goal("y", maximise=True)), ()),
    "constrained": ((Goal("x"),), (Constraint("z", 8.0),)),
}


def space(task: str) -> Space:
    """What is searched; with branches, unless the task is one program."""
    numbers: dict[str, Any] = {"a": Integer(1, 997), "b": Ordinal([1, 10, 100, 1000])}
    if task == "vectorised":
        return Space(numbers)
    return Space(numbers | {"kind": Categorical({"plain": None, "shifted": Space({"shift": Integer(1, 99)})})})


def mixed(x: Any, config: Mapping[str, Any], step: Any) -> Any:
    """The state after one more step."""
    return (17 * x + config["a"] * step + config["b"] + config.get("shift", 0)) % MODULUS


def measured(x: Any) -> dict[str, Any]:
    """The metrics of a state."""
    return {"x": x, "y": (31 * x) % 101, "z": x % 10}


def has_diverged(x: Any, diverges: int) -> bool:
    """Whether a state is a failure."""
    return bool(diverges) and x % diverges == 0


# -- the training code --------------------------------------------------------------------------------------------


@cache
def here() -> Plan:
    """The plan of the study that this process belongs to."""
    return msgspec.json.decode((Path(os.environ[FOLDER]) / "plan.json").read_bytes(), type=Plan)


def note(trial: int, step: int) -> None:
    """Write down that a step was trained; -1 where it is one of several trials. That takes its time.

    Where the disk is full it can't be written; nothing of that step will be told.
    """
    file = os.open(Path(os.environ[FOLDER]) / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with suppress(OSError):
        os.write(file, f"{trial:5d} {step:5d}\n".encode())
    os.close(file)
    time.sleep(here().nap)


def advance(x: int, config: Mapping[str, Any], step: int) -> int:
    """Train one step, or diverge."""
    x = mixed(x, config, step)
    note(current_job().trial, step)
    if has_diverged(x, here().diverges):
        raise ArithmeticError("the training has diverged")
    return x


def generating(config: dict[str, Any], state: dict[str, int] | None = None) -> Iterator[Any]:
    """A generator."""
    x, step = (0, 0) if state is None else (state["x"], state["step"])
    while True:
        step += 1
        x = advance(x, config, step)
        yield measured(x), {"x": x, "step": step}


def reporting(trial: Any) -> None:
    """A function that reports."""
    x = 0 if trial.state is None else trial.state["x"]
    while True:
        x = advance(x, trial.config, trial.step + 1)
        trial.report(measured(x), state={"x": x})


class Training:
    """A class."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin."""
        self.config, self.x, self.count = config, 0, 0

    def step(self) -> dict[str, Any]:
        """Train one step."""
        self.count += 1
        self.x = advance(self.x, self.config, self.count)
        return measured(self.x)

    def save(self, path: Path) -> None:
        """Write the state into two files."""
        (path / "x").write_text(str(self.x))
        (path / "count").write_text(str(self.count))

    def load(self, path: Path) -> None:
        """Go on."""
        self.x, self.count = int((path / "x").read_text()), int((path / "count").read_text())


class Program:
    """Pure functions of JAX."""

    def init(self, config: Mapping[str, Any], key: Any) -> Any:
        """The state and the number of steps."""
        from jax import numpy as jnp

        return {"x": jnp.int32(0), "step": jnp.int32(0)}

    def step(self, state: Any, config: Mapping[str, Any], key: Any) -> Any:
        """One step; a member that has diverged tells what is no number."""
        import jax
        from jax import numpy as jnp

        step = state["step"] + 1
        kind: Any = jax.ShapeDtypeStruct
        step = jax.pure_callback(_noted, kind((), "int32"), step, vmap_method="expand_dims")
        x = mixed(state["x"], config, step)
        metrics = {name: value.astype("float32") for name, value in measured(x).items()}
        diverges = here().diverges
        if diverges:
            metrics = {name: jnp.where(x % diverges == 0, jnp.nan, value) for name, value in metrics.items()}
        return {"x": x, "step": step}, metrics


def _noted(step: Any) -> Any:
    note(-1, 0)
    return step


def forgetting(trial: Any) -> None:
    """A function that reports and saves nothing."""
    x = 0
    while True:
        x = advance(x, trial.config, trial.step + 1)
        trial.report(measured(x))


def command(*words: str) -> Command:
    """A program that knows nothing of this package."""
    return Command([sys.executable, "-I", "-S", str(Path(__file__).with_name("_victim_command.py")), *words])


TASKS: dict[str, Callable[[], Any]] = {
    "generator": lambda: generating,
    "function": lambda: reporting,
    "class": lambda: Training,
    "command": command,
    "vectorised": lambda: JaxTask(Program()),
    "forgetful function": lambda: forgetting,
    "forgetful command": lambda: command("forgets"),
}
FORGETFUL = {"forgetful function", "forgetful command"}  #: training code that saves nothing


def saved(tree: Any) -> int:
    """The state that a task has saved."""
    if isinstance(tree, Path):
        return int((tree / "x").read_text())
    return int(tree["x"] if "x" in tree else tree["state"]["x"])


# -- the driver ---------------------------------------------------------------------------------------------------


def opened(plan: Plan, store: str | Path | None) -> Study:
    """The study of a plan; None: in memory."""
    make, trials = SCHEDULERS[plan.scheduler]
    goals, constraints = GOALS[plan.goals]
    return Study(
        space(plan.task), goals, SAMPLERS[plan.sampler](), make(), store, seed=plan.seed, constraints=constraints,
        trials=trials,
    )  # fmt: skip


def main(folder: str) -> int:
    """Begin the study, or go on with it, as any script would; the exit status."""
    plan = here()
    try:
        with opened(plan, Path(folder) / "study.db") as study:
            (Path(folder) / "ready" / str(os.getpid())).touch()
            outcome = run(
                study, TASKS[plan.task](), workers=plan.workers, checkpoint_every=plan.every, progress=False
            )  # fmt: skip
    except TunesmithError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"outcome": outcome}))
    return 0


if __name__ == "__main__":
    from tunesmith.testing import _victim

    raise SystemExit(_victim.main(sys.argv[1]))  # not of `__main__`: workers import it by its name
