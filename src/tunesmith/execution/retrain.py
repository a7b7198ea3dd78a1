"""The schedule or the luck? Trainings from scratch with a schedule, against its last values held constant."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from tunesmith import temporary
from tunesmith.execution.adapters import as_task
from tunesmith.execution.base import SAVES, ExecutionError, Executor, Report
from tunesmith.execution.inline import Inline
from tunesmith.execution.processes import Processes
from tunesmith.execution.session import Options
from tunesmith.execution.stacks import StackedTask
from tunesmith.execution.vectorised import Vectorised
from tunesmith.space import Config, Space
from tunesmith.study import Job
from tunesmith.trials import Checkpoint

Schedule = Callable[[int], Config]  #: the configuration with which a training that stands at a step goes on


@dataclass(frozen=True)
class Retrained:
    """The metrics at the end of trainings from scratch, one dict a seed; entries at the same place form a pair."""

    seeds: tuple[int, ...]
    schedule: tuple[dict[str, float | None], ...]
    constant: tuple[dict[str, float | None], ...]

    def pairs(self, metric: str) -> tuple[list[float], list[float]]:
        """The values of a metric with the schedule and with constant values, of the seeds that have both."""
        both = [(a[metric], b[metric]) for a, b in zip(self.schedule, self.constant, strict=True)]
        known = [(a, b) for a, b in both if a is not None and b is not None]
        return [a for a, _ in known], [b for _, b in known]


class _Stretch(NamedTuple):
    """Steps with one configuration."""

    start: int
    until: int
    config: Config


@dataclass
class _Run:
    """A training from scratch: what is left of it, and where it stands."""

    name: str
    seed: int
    stretches: list[_Stretch]
    source: Checkpoint | None = None


def retrain(
    train: Any,
    schedule: Schedule,
    steps: int,
    *,
    metric: str,
    seeds: Iterable[int] = range(5),
    workers: int = 0,
    space: Space | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Retrained:
    """Train from scratch, for every seed once with the schedule and once with the schedule's last values throughout.

    Where the schedule changes, the training goes on from a checkpoint as a fork does, with the new configuration.

    Args:
        train: training code, as for ``tune``. It must save its state, if the schedule changes at all. A ``JaxTask`` or
            ``TorchTask`` trains all seeds as one program.
        schedule: the configuration as a function of the step.
        steps: how long to train.
        metric: a metric that every step must have.
        seeds: of the trainings; the same for both, so that they start from the same weights.
        workers: that many worker processes; 0 trains in this one.
        space: the space of the study, where options have values for the training code.
        progress: called with the steps done so far, and those of all trainings.

    Raises:
        ExecutionError: a training failed; the message says which.
        ValueError: no steps, or no seeds.
    """
    seeds = tuple(seeds)
    if steps < 1 or not seeds:
        raise ValueError(f"retrain: steps={steps} and seeds={list(seeds)}: at least one of each is needed")
    last = schedule(steps - 1)
    runs = [_Run("the schedule", seed, _stretches(schedule, steps)) for seed in seeds]
    runs += [_Run("constant values", seed, [_Stretch(0, steps, last)]) for seed in seeds]
    with tempfile.TemporaryDirectory(prefix=temporary.prefix()) as root:
        options = Options((metric,), root, warm=1, space=space)
        with contextlib.closing(_executor(train, options, workers, len(runs))) as executor:
            ends = _drive(executor, runs, progress)
    return Retrained(seeds, tuple(ends[: len(seeds)]), tuple(ends[len(seeds) :]))


def _executor(train: Any, options: Options, workers: int, runs: int) -> Executor:
    """Worker processes, or this one: training code that can be stacked then trains all runs side by side."""
    if workers:
        return Processes(train, options, workers=workers)
    task = as_task(train)
    if isinstance(task, StackedTask):
        task.check()
        return Vectorised(task, options, members=runs, save_every_jobs=1)
    return Inline(task, options)


def _stretches(schedule: Schedule, steps: int) -> list[_Stretch]:
    """The schedule as stretches of steps with equal configurations."""
    groups = ((config, list(inside)) for config, inside in groupby(range(steps), key=schedule))
    return [_Stretch(inside[0], inside[-1] + 1, config) for config, inside in groups]


def _drive(
    executor: Executor, runs: list[_Run], progress: Callable[[int, int], object] | None
) -> list[dict[str, float | None]]:
    """Run all stretches of all runs, and collect the last metrics of each."""
    ends: list[dict[str, float | None]] = [{} for _ in runs]
    waiting, out = list(range(len(runs)))[::-1], dict[int, int]()
    done, total, asks = 0, sum(run.stretches[-1].until for run in runs), 0
    started: set[int] = set()
    while waiting or out:
        while waiting and executor.free:
            out[asks] = waiting.pop()
            executor.submit(_job(asks, runs[out[asks]]))
            asks += 1
        for report in executor.wait(1.0):
            number = out[report.ask]
            _check_start(runs[number], report, started)
            done += max(map(len, report.metrics.values()), default=0)
            ends[number].update({name: values[-1] for name, values in report.metrics.items()})
            if report.done:
                del out[report.ask]
                if _advance(runs[number], report):
                    waiting.append(number)
            if progress is not None:
                progress(done, total)
    return ends


def _check_start(run: _Run, report: Report, started: set[int]) -> None:
    """ExecutionError where a stretch has not begun with the state at the end of the one before."""
    begun, wanted = report.ask in started, run.stretches[0].start
    if not begun and report.metrics and report.start != wanted:
        problem = f"this training code saves no state: {SAVES}" if run.source is None else report.warning.strip()
        raise ExecutionError(
            f"the training with {run.name} and seed {run.seed} should go on from step {wanted}, but {problem}"
        )
    started.add(report.ask)


def _job(ask: int, run: _Run) -> Job:
    """The next stretch of a run; every one is a trial of its own, so that it starts from the checkpoint."""
    start, until, config = run.stretches[0]
    sources = () if run.source is None else (run.source,)
    return Job(ask, ask, config, start, until, None, "", run.seed, sources)


def _advance(run: _Run, report: Report) -> bool:
    """Note that a stretch is done; whether there is another one."""
    if report.failure is not None:
        raise ExecutionError(f"the training with {run.name} and seed {run.seed} failed: {report.failure.error}")
    run.stretches.pop(0)
    if report.saved is not None:
        run.source = Checkpoint(report.ask, report.saved.step, report.saved.where, report.saved.digest)
    return bool(run.stretches)
