"""The ten-line case."""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunesmith import samplers, schedulers
from tunesmith.costs import Budget
from tunesmith.execution.adapters import as_task
from tunesmith.execution.base import ExecutionError, Executor, Target
from tunesmith.execution.checkpoints import Checkpoints
from tunesmith.execution.devices import Device
from tunesmith.execution.driver import Outcome, drive
from tunesmith.execution.inline import Inline
from tunesmith.execution.processes import Processes
from tunesmith.execution.session import Options
from tunesmith.execution.stacks import StackedTask
from tunesmith.execution.vectorised import for_study
from tunesmith.execution.worker import refuse_in_worker
from tunesmith.progress import Progress
from tunesmith.records import Constraint, Goal
from tunesmith.space import Space
from tunesmith.storage.base import Store
from tunesmith.study import Study


def tune(
    train: Any,
    space: Space | Mapping[str, Any],
    *,
    maximise: str | None = None,
    minimise: str | None = None,
    goals: Sequence[Goal] | Goal = (),
    constraints: Sequence[Constraint] = (),
    sampler: Any = None,
    scheduler: Any = None,
    trials: int | None = None,
    seconds: float | None = None,
    target: float | None = None,
    budget: Budget | None = None,
    steps: int | None = None,
    seeds: int | None = None,
    workers: int = 1,
    devices: Device | Sequence[Device] | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    name: str = "study",
    seed: int = 0,
    time_limit: float | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    progress: Callable[[Study], object] | bool | None = None,
) -> Study:
    """Search for the best configuration of some training code. With the same store, an earlier search goes on.

    Args:
        train: training code: a generator, a function, a class, a ``Command`` or a ``Task``; see
            :func:`tunesmith.execution.adapters.as_task`.
        space: what may vary.
        maximise: name of the one metric to maximise; or
        minimise: of the one to minimise; or
        goals: all goals.
        constraints: outcome constraints that the best trial has to satisfy.
        sampler: where to look next; :class:`tunesmith.samplers.Auto` by default.
        scheduler: which job is next; by default every trial is trained for ``steps`` steps.
        trials: how many trials are started in all, those of earlier runs and repeats of a configuration included.
        seconds: how long this run may take; what is running then goes on in the next one.
        target: end this run when a trial has reached this value of the first goal, with all constraints satisfied.
        budget: what all trials may cost together, those of earlier runs included: ``Budget(seconds=3600)`` of one
            worker, or ``Budget(dollars=20, price=2.5)`` where an hour of a worker costs 2.50.
        steps: steps of every trial, where there is no scheduler; 1 by default.
        seeds: how often every configuration is trained, where there is no scheduler; 1 by default. Each time is a trial
            of its own with another seed, and ``study.best`` goes by their means.
        workers: jobs at once. One runs in this process; more run in worker processes.
        devices: where worker processes run: see :func:`tunesmith.execution.devices.parse`.
        store: None for memory, the path of a SQLite file, or a store.
        name: name of the study in the store.
        seed: all randomness follows from it.
        time_limit: seconds that a job may take; makes a worker process of the only worker, too.
        checkpoints: directory for states; by default next to the store, ``x.checkpoints/study`` for ``x.db``, and a
            temporary one where the study is in memory.
        progress: True shows how it goes, a function is called with the study now and then and at the end; by default
            it is shown on a terminal (with the extra ``cli``).

    Returns:
        The study, also after Ctrl-C: ``study.best``, ``study.trials``.

    Raises:
        ValueError: the goals are not clear, or the search would never end.
        ExecutionError: too many trials fail, a worker can't start, or no state can be saved.
    """
    refuse_in_worker()
    as_task(train)  # says now what is wrong with it
    _check_limits(trials=trials, workers=workers)
    for option, given in (("steps", steps), ("seeds", seeds)):
        if scheduler is not None and given is not None:
            raise ValueError(f"{option}={given} is for studies without a scheduler: give it to the scheduler")
    if scheduler is None:
        scheduler = schedulers.Full(1 if steps is None else steps, 1 if seeds is None else seeds)
    if not isinstance(space, Mapping):
        raise TypeError(f"space must be a Space or a dict such as {{'lr': Float(1e-5, 1e-1, log=True)}}, not {space!r}")
    space = space if isinstance(space, Space) else Space(space)
    check_end(space, scheduler, trials, seconds, budget)
    study = Study(
        space, _goals(maximise, minimise, goals), samplers.Auto() if sampler is None else sampler, scheduler, store,
        name=name, seed=seed, constraints=constraints, trials=trials, budget=budget,
    )  # fmt: skip
    try:
        run(
            study,
            train,
            workers=workers,
            devices=devices,
            time_limit=time_limit,
            seconds=seconds,
            target=target,
            checkpoints=checkpoints,
            progress=progress,
        )
    except BaseException:
        study.close()
        raise
    return study


def run(
    study: Study,
    train: Any,
    *,
    workers: int = 1,
    devices: Device | Sequence[Device] | None = None,
    time_limit: float | None = None,
    seconds: float | None = None,
    target: float | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    progress: Callable[[Study], object] | bool | None = None,
    max_failures: int | None = None,
) -> Outcome:
    """Work on an existing study; the arguments are those of :func:`tune`.

    Args:
        max_failures: see :func:`tunesmith.execution.driver.drive`.

    Returns:
        Why the run has ended: ``"done"``, ``"interrupted"``, ``"seconds"`` or ``"target"``.
    """
    _check_limits(workers=workers)
    _check_seconds(seconds, time_limit)
    path = getattr(study.store, "path", None)
    if checkpoints is None and path is not None:
        checkpoints = Path(path).with_suffix(".checkpoints") / re.sub(r"[^\w.\- ]|^\.+", "_", study.name)
    with ExitStack() as stack:
        if checkpoints is None:
            temporary = tempfile.TemporaryDirectory(prefix="tunesmith-", ignore_cleanup_errors=True)
            checkpoints = stack.enter_context(temporary)
        root = Path(checkpoints).absolute()
        metrics = [goal.metric for goal in study.goals] + [rule.metric for rule in study.constraints]
        aim = _target(study, target)
        options = Options(tuple(dict.fromkeys(metrics)), str(root), target=aim)
        executor: Executor
        if workers == 1 and devices is None and time_limit is None:
            task = as_task(train)
            executor = for_study(task, options, study) if isinstance(task, StackedTask) else Inline(task, options)
        else:
            executor = Processes(train, options, workers=workers, devices=devices, time_limit=time_limit)
        if progress is None:
            progress = sys.stderr.isatty() and find_spec("rich") is not None
        if isinstance(progress, bool):
            progress = stack.enter_context(Progress(seconds, workers=workers)) if progress else None
        return drive(
            study,
            executor,
            checkpoints=Checkpoints(root),
            seconds=seconds,
            max_failures=max_failures,
            progress=progress,
            target=aim,
        )


def _target(study: Study, value: float | None) -> Target | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"target={value!r} must be a number: a value of {study.goals[0].metric!r} that is good enough")
    return Target(study.goals[0], float(value), tuple(study.constraints))


def _goals(maximise: str | None, minimise: str | None, goals: Sequence[Goal] | Goal) -> tuple[Goal, ...]:
    for name in (maximise, minimise):
        if name is not None and not isinstance(name, str):
            raise TypeError(f"maximise and minimise take the name of one metric, not {name!r}; for several give goals=")
    named = [Goal(name, maximise=name is maximise) for name in (maximise, minimise) if name is not None]
    goals = (goals,) if isinstance(goals, Goal) else tuple(goals)
    if bool(named) == bool(goals) or len(named) > 1:
        raise ValueError(
            'say what to optimise with exactly one of maximise="metric", minimise="metric" and goals=[...]'
        )
    return tuple(named) or goals


def _check_limits(**limits: Any) -> None:
    """Counts are whole numbers from 1 on."""
    for name, limit in limits.items():
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise TypeError(f"{name} must be a whole number, not {limit!r}")
        if limit is not None and limit < 1:
            raise ValueError(f"{name}={limit} must be at least 1")


def _check_seconds(seconds: float | None, time_limit: float | None) -> None:
    if seconds is not None and not seconds >= 0:
        raise ValueError(f"seconds={seconds} must be at least 0")
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit={time_limit} must be over 0")


def check_end(space: Space, scheduler: Any, *limits: object) -> None:
    """Most schedulers start one trial after the other: without a limit only a finite space ends them."""
    if scheduler.endless and all(limit is None for limit in limits) and space.size == float("inf"):
        raise ValueError(
            "the search would never end: give trials=, seconds=, budget=, or a scheduler with an end of its own"
        )


__all__ = ["ExecutionError", "run", "tune"]
