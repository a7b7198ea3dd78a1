"""The ten-line case."""

from __future__ import annotations

import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from numbers import Real
from typing import Any

from tunesmith import schedulers
from tunesmith.checkpoints import Checkpoints
from tunesmith.costs import Budget
from tunesmith.definition import as_goals, check_algorithm
from tunesmith.execution.adapters import as_task
from tunesmith.execution.base import ExecutionError, Executor, Target
from tunesmith.execution.command import Command
from tunesmith.execution.devices import Device
from tunesmith.execution.driver import Callback, Outcome, drive
from tunesmith.execution.inline import Inline
from tunesmith.execution.processes import Processes
from tunesmith.execution.session import Options
from tunesmith.execution.stacks import StackedTask
from tunesmith.execution.vectorised import for_study
from tunesmith.execution.worker import refuse_in_worker
from tunesmith.hints import hints
from tunesmith.progress import Progress, can_show
from tunesmith.records import Constraint, Goal
from tunesmith.samplers.base import Sampler
from tunesmith.schedulers.base import Scheduler
from tunesmith.space import Config, Space
from tunesmith.storage.base import Store
from tunesmith.study import Study

log = logging.getLogger("tunesmith")


@hints
def tune(
    train: Any,
    space: Space | Mapping[str, Any],
    *,
    maximise: str | None = None,
    minimise: str | None = None,
    goals: Sequence[Goal] | Goal = (),
    constraints: Sequence[Constraint] = (),
    sampler: Sampler[Any] | None = None,
    scheduler: Scheduler[Any] | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    target: float | None = None,
    patience: int | None = None,
    budget: Budget | None = None,
    steps: int | None = None,
    seeds: int | None = None,
    duplicates: bool = False,
    enqueue: Sequence[Config] = (),
    workers: int = 1,
    devices: Device | Sequence[Device] | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    name: str = "study",
    seed: int | None = None,
    time_limit: float | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    checkpoint_every: float | str | None = None,
    progress: Callable[[Study], object] | bool | None = None,
    callback: Callback | None = None,
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
        scheduler: which job is next; by default every trial is trained for ``steps`` steps. One of your own says
            itself how many: ``Full()`` one, ``Full(None)`` as many as the training code has.
        trials: how many trials are started in all, those of earlier runs and repeats of a configuration included; the
            forks by which a population goes on with copies of its members do not count.
        seconds: how long this run may take; what is running then goes on in the next one.
        target: end this run when a trial has reached this value of the first goal, with all constraints satisfied.
        patience: end this run when so many trials have ended since the best one began.
        budget: what all trials may cost together, those of earlier runs included: ``Budget(seconds=3600)`` of one
            worker, or ``Budget(dollars=20, price=2.5)`` where an hour of a worker costs 2.50.
        steps: steps of every trial at the most, where there is no scheduler. By default the training code decides when
            it is over: the last report counts.
        seeds: how often every configuration is trained, where there is no scheduler; 1 by default. Each time is a trial
            of its own with another seed, and ``study.best`` goes by their means.
        duplicates: whether samplers may propose configurations that were tried already.
        enqueue: configurations, or parts of them, that are tried first; those that were tried already are passed over.
        workers: jobs at once. One runs in this process; more run in worker processes.
        devices: where worker processes run: see :func:`tunesmith.execution.devices.parse`.
        store: None for memory, the path of a SQLite file, or a store.
        name: name of the study in the store.
        seed: all randomness follows from it; 0 by default, and that of the study where it exists.
        time_limit: seconds that a job may take; makes a worker process of the only worker, too.
        checkpoints: directory for states; by default next to the store, and a temporary one, which lives as long as the
            study, where that is in memory.
        checkpoint_every: how often a state is saved while a job goes on: seconds (60 by default), or ``"100 steps"``.
            Saving takes a twentieth of the time at most, whatever is said here.
        progress: True shows how it goes, a function is called with the study now and then and at the end; by default
            it is shown on a terminal (with the extra ``cli``) and in a notebook.
        callback: called with the study and each trial that has come to its end. ``study.stop()`` in it ends the run.

    Returns:
        The study, also after Ctrl-C: ``study.best``, ``study.trials``; ``study.outcome`` says why the run has ended.

    Raises:
        ValueError: the goals are not clear, or the search would never end.
        ExecutionError: too many trials fail, none can be started, a worker can't start, or no state can be saved. Every
            exception that comes out of a run has the study so far as its attribute ``study``.
    """
    refuse_in_worker()
    as_task(train)  # says now what is wrong with it
    _check_limits(trials=trials, workers=workers, patience=patience)
    for option, given in (("steps", steps), ("seeds", seeds)):
        if scheduler is not None and given is not None:
            raise ValueError(f"{option}={given} is for studies without a scheduler: give it to the scheduler")
    if scheduler is None:
        scheduler = schedulers.Full(steps, 1 if seeds is None else seeds)
    check_algorithm("scheduler", scheduler)
    if not isinstance(space, Mapping):
        raise TypeError(f"space must be a Space or a dict such as {{'lr': Float(1e-5, 1e-1, log=True)}}, not {space!r}")
    if not isinstance(enqueue, Iterable) or not all(isinstance(config, Mapping) for config in enqueue):
        raise TypeError(f"enqueue must be a list of configurations, such as [{{'lr': 0.1}}], not {enqueue!r}")
    space = space if isinstance(space, Space) else Space(space)
    check_end(space, scheduler, trials, seconds, budget, patience, duplicates=duplicates)
    study = Study(
        space, _goals(maximise, minimise, goals), sampler, scheduler, store, name=name, seed=seed,
        constraints=constraints, duplicates=duplicates, trials=trials, budget=budget, patience=patience,
    )  # fmt: skip
    try:
        for config in enqueue:
            study.enqueue(config)
        run(
            study,
            train,
            workers=workers,
            devices=devices,
            time_limit=time_limit,
            seconds=seconds,
            target=target,
            checkpoints=checkpoints,
            checkpoint_every=checkpoint_every,
            progress=progress,
            callback=callback,
        )
    except BaseException as error:
        error.study = study  # type: ignore[attr-defined]  # so that nothing is lost where the study is in memory
        raise
    return study


@hints
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
    checkpoint_every: float | str | None = None,
    progress: Callable[[Study], object] | bool | None = None,
    callback: Callback | None = None,
    max_failures: int | None = None,
) -> Outcome:
    """Work on an existing study; the arguments are those of :func:`tune`.

    Args:
        max_failures: see :func:`tunesmith.execution.driver.drive`.

    Returns:
        Why the run has ended: ``"done"``, ``"interrupted"``, ``"seconds"``, ``"target"`` or ``"stopped"``.
    """
    if not isinstance(study, Study):
        raise TypeError(f"run needs a study, not {study!r}: Study(...) makes one, Study.open(path) opens one")
    _check_limits(workers=workers)
    _check_seconds(seconds, time_limit)
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(f"progress={progress!r} must be True, False, None or a function of the study")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback={callback!r} must be a function of the study and a trial")
    if isinstance(train, Command):
        _warn_of_unused(train, study.space)
    root = study.use_checkpoints(checkpoints)
    with ExitStack() as stack:
        metrics = [goal.metric for goal in study.goals] + [rule.metric for rule in study.constraints]
        aim = _target(study, target)
        every = checkpoint_interval(checkpoint_every)
        space = study.space if study.space.valued else None
        best = tuple(goal for goal in study.goals if goal.scope == "best")
        options = Options(tuple(dict.fromkeys(metrics)), str(root), best=best, target=aim, space=space, **every)
        executor: Executor
        if workers == 1 and devices is None and time_limit is None:
            task = as_task(train)
            executor = for_study(task, options, study) if isinstance(task, StackedTask) else Inline(task, options)
        else:
            executor = Processes(train, options, workers=workers, devices=devices, time_limit=time_limit)
        if progress is None:
            progress = can_show(sys.stderr)
        if isinstance(progress, bool):
            progress = stack.enter_context(Progress(seconds, workers=workers)) if progress else None
        return drive(
            study,
            executor,
            checkpoints=Checkpoints(root),
            seconds=seconds,
            max_failures=max_failures,
            progress=progress,
            callback=callback,
            target=aim,
        )


_EVERY = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|sec|seconds?|m|min|minutes?|h|hours?|steps?)?\s*")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def checkpoint_interval(every: float | str | None) -> dict[str, Any]:
    """The options of sessions for ``checkpoint_every``: seconds, ``"30s"``, ``"5 min"``, ``"100 steps"``; None: 60 s.

    Raises:
        TypeError, ValueError: it is none of these, or not over 0.
    """
    if every is None:
        return {}
    if isinstance(every, bool) or not isinstance(every, int | float | str):
        raise TypeError(f"checkpoint_every={every!r} must be seconds, or a text such as '100 steps'")
    found = _EVERY.fullmatch(every) if isinstance(every, str) else None
    if isinstance(every, str) and found is None:
        raise ValueError(f"checkpoint_every={every!r} must be seconds, such as 30 or '5 min', or '100 steps'")
    number, unit = (float(found[1]), found[2] or "s") if found else (float(every), "s")
    if not 0 < number < math.inf:
        raise ValueError(f"checkpoint_every={every!r} must be over 0")
    if unit.startswith("step"):
        if number != int(number):
            raise ValueError(f"checkpoint_every={every!r} must be a whole number of steps")
        return {"checkpoint_steps": int(number)}
    return {"checkpoint_seconds": number * _UNITS[unit[0]]}


def _warn_of_unused(command: Command, space: Space) -> None:
    unused = command.unused(space)
    if unused:
        log.warning(
            "no argument of the command takes %s: write %s where it belongs, or read $TUNESMITH_CONFIG",
            ", ".join(map(repr, unused)), " and ".join(f"{{{name}}}" for name in unused),
        )  # fmt: skip


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
    goals = as_goals(goals)
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
    for name, given in (("seconds", seconds), ("time_limit", time_limit)):
        if isinstance(given, bool) or not isinstance(given, Real | None):
            raise TypeError(f"{name} must be a number of seconds, not {given!r}")
    if seconds is not None and not seconds >= 0:
        raise ValueError(f"seconds={seconds} must be at least 0")
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit={time_limit} must be over 0")


def is_endless(space: Space, scheduler: Any, duplicates: bool) -> bool:
    """Whether there is always another trial to start."""
    return bool(scheduler.endless) and (duplicates or math.isinf(space.size))


def check_end(space: Space, scheduler: Any, *limits: object, duplicates: bool = False) -> None:
    """Most schedulers start one trial after the other: without a limit only a finite space ends them, in which nothing
    is tried twice.
    """
    if is_endless(space, scheduler, duplicates) and all(limit is None for limit in limits):
        raise ValueError(
            "the search would never end: give trials=, seconds=, budget=, patience=, "
            "or a scheduler with an end of its own"
        )


__all__ = ["ExecutionError", "run", "tune"]
