"""Execution in virtual time: jobs play curves that are known beforehand, and the clock jumps from one end to the next.

The schedule is the one that so many workers would have kept with jobs of these lengths. A worker that is free asks at
once; everything that ends at one moment is told before anybody asks; decisions take no time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.execution.base import Executor, Report
from tunesmith.execution.session import INTERRUPTED
from tunesmith.execution.tune import check_end
from tunesmith.metrics import as_series
from tunesmith.records import Constraint, Goal
from tunesmith.study import Batch, Job, Study
from tunesmith.trials import open_ended, scoped

Floats = NDArray[np.float64]
Kind = Literal["exact", "neighbour", "continued"]


class Played(NamedTuple):
    """What a job does.

    Attributes:
        metrics: by name, one value a step for the steps ``start + 1, ..., until``. The first one of a goal or a
            constraint that is not finite ends the job, and the trial fails there; nothing needs to follow it.
        seconds: what the steps take: one number each, or one for all of them, of which each has an equal share.
        kind: how the curve is known: see :class:`tunesmith.execution.recorded.Recorded`.
        ended: the training comes to its end by itself with the last of these values, which may be before ``until``.
            There may be none, where it had done so before.
    """

    metrics: Mapping[str, Sequence[float]]
    seconds: float | Sequence[float]
    kind: Kind = "exact"
    ended: bool = False


Curves = Callable[[Job], Played | tuple[Mapping[str, Sequence[float]], float | Sequence[float]]]
"""What is played: a function of the job. The answer should depend on the job's ``config``, ``start`` and ``until``, for
noise on its ``seed``, and for forks on its ``parent`` alone: a plain tuple will do.
"""


@dataclass(frozen=True)
class Run:
    """A job in virtual time.

    Attributes:
        job: what was asked.
        metrics: by name, one value a step.
        kind: how the curve is known.
        begun: when a worker took the job.
        spent: [k], seconds from then until each step was done.
        ended: when the worker was free again.
        over: the training has come to its end by itself.
    """

    job: Job
    metrics: dict[str, list[float]]
    kind: Kind
    begun: float
    spent: Floats
    ended: float
    over: bool = False

    @property
    def times(self) -> Floats:
        """When each step was done: [k]."""
        return self.begun + self.spent

    def until(self, deadline: float) -> Run:
        """What of it is done at a deadline."""
        if self.ended <= deadline:
            return self
        count = int(np.searchsorted(self.times, deadline, side="right"))
        metrics = {name: values[:count] for name, values in self.metrics.items()}
        return Run(self.job, metrics, self.kind, self.begun, self.spent[:count], deadline)


class Simulated(Executor):
    """An executor in virtual time: a job ends when its curve says so, and ``wait`` advances the clock to that moment.

    Args:
        curves: what is played.
        workers: how many jobs run at once.
        rules: the goals and constraints, whose metrics must be there and finite.
        overhead: seconds that every job takes before its first step, such as loading a checkpoint.
        seconds: at this time all jobs that are out are cut, with a failure of kind ``lost``.

    Attributes:
        clock: seconds since the beginning.
        deadline: when jobs are cut; infinity without one.
        runs: what every job that has ended did, in the order of their ends.

    Raises:
        ValueError: an argument is out of range; from ``submit``: the curve of the job is not one.
    """

    slots = 1

    def __init__(
        self,
        curves: Curves,
        workers: int = 1,
        *,
        rules: Sequence[Goal | Constraint],
        overhead: float = 0.0,
        seconds: float | None = None,
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"workers={workers!r} must be a whole number, at least 1")
        if not 0 <= overhead < math.inf:
            raise ValueError(f"overhead={overhead} must be a number of seconds, at least 0")
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"seconds={seconds} must be at least 0")
        self.slots = workers
        self.clock = 0.0
        self.deadline = math.inf if seconds is None else float(seconds)
        self.runs: list[Run] = []
        self._curves, self._rules, self._overhead = curves, tuple(rules), overhead
        self._out: list[tuple[float, int, Run]] = []  # heap by end, then by ask

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now; none at the deadline."""
        return self.slots - len(self._out) if self.clock < self.deadline else 0

    def submit(self, job: Job) -> None:
        """Begin a job now."""
        played = Played(*self._curves(job))
        metrics, each, over = _series(played, self._rules, job)
        spent = self._overhead + np.cumsum(each)
        taken = float(spent[-1]) if len(spent) else self._overhead
        run = Run(job, metrics, played.kind, self.clock, spent, self.clock + taken, over)
        heappush(self._out, (run.ended, job.ask, run))

    def wait(self, timeout: float = 0.0) -> list[Report]:
        """Advance the clock to the next end, or to the deadline; the reports of all jobs that end there, in order.

        No real time passes, whatever ``timeout`` is.
        """
        if not self._out:
            return []
        self.clock = min(self._out[0][0], self.deadline)
        reports = []
        while self._out and (self._out[0][0] <= self.clock or self.clock >= self.deadline):
            reports.append(self._end(heappop(self._out)[2]))
        return reports

    def _end(self, run: Run) -> Report:
        """Cut a run where the clock stands, and report it."""
        done = run.until(self.clock)
        self.runs.append(done)
        job, count = run.job, len(done.spent)
        whole = done is run
        seconds = float(done.spent[-1]) if count else run.ended - run.begun if whole else 0.0
        metrics = done.metrics if count else {}
        return Report(
            job.ask, job.start, metrics, seconds, done=True, failure=None if whole else INTERRUPTED,
            ended=whole and run.over,
        )  # fmt: skip

    def interrupt(self) -> None:
        """Cut all jobs that are out where the clock stands."""
        self.deadline = self.clock

    def close(self) -> None:
        """Forget the jobs that are out."""
        self._out.clear()


class Incumbent(NamedTuple):
    """A value of the first goal that no earlier one had reached."""

    seconds: float
    trial: int
    step: int
    value: float


@dataclass(frozen=True)
class Simulation:
    """What a study has cost in virtual time, and when it found what.

    Attributes:
        goal: the first goal of the study.
        outcome: ``"done"``, or ``"seconds"`` where the time was up before.
        workers: how many there were.
        seconds: when the last worker was free again.
        worker_seconds: what all workers together were busy for.
        jobs, trials, failed, steps: so many were done, were trained, have failed, were trained.
        kinds: jobs by how their curve is known.
        incumbents: the best value so far, in the order of time. Every step counts from the moment when it is done, with
            what its trial is worth after it by the scope of the goal. Steps that break an outcome constraint do not
            count.
    """

    goal: Goal
    outcome: Literal["done", "seconds"]
    workers: int
    seconds: float
    worker_seconds: float
    jobs: int
    trials: int
    failed: int
    steps: int
    kinds: dict[Kind, int]
    incumbents: tuple[Incumbent, ...]

    @property
    def idle(self) -> float:
        """Seconds that all workers together were waiting for a job."""
        return max(0.0, self.workers * self.seconds - self.worker_seconds)

    @property
    def best(self) -> float | None:
        """The best value that was reached."""
        return self.incumbents[-1].value if self.incumbents else None

    def time_to(self, value: float) -> float | None:
        """When a value at least as good was reached first, in seconds; None where it never was."""
        wanted = self.goal.loss(value)
        return next((found.seconds for found in self.incumbents if self.goal.loss(found.value) <= wanted), None)


def simulate(
    study: Study,
    curves: Curves,
    workers: int = 1,
    *,
    seconds: float | None = None,
    trials: int | None = None,
    overhead: float = 0.0,
) -> Simulation:
    """Work on a study in virtual time until it is done or the time is up. The same arguments give the same log.

    Args:
        study: what to work on; it is told as if the jobs had been trained, with the seconds that they took.
        curves: what is played: a function of the job, or :class:`tunesmith.execution.recorded.Recorded`.
        workers: how many jobs run at once.
        seconds: of virtual time. Jobs that are out at the end are told as far as they have come, and given back: since
            no states are kept, whoever goes on with the study trains these trials from their start again.
        trials: start no more trials than this; by default what the study says.
        overhead: seconds that every job takes before its first step, such as loading a checkpoint.

    Raises:
        ValueError: an argument is out of range, the search would never end, jobs of the study are out, or a curve does
            not fit its job.
    """
    if study.trials.running:
        raise ValueError(f"study {study.name!r}: {len(study.trials.running)} jobs are out, which nobody here would end")
    if trials is not None:
        study.limit = trials
    check_end(study.space, study.scheduler, study.limit, seconds, study.budget)
    executor = Simulated(curves, workers, rules=(*study.goals, *study.constraints), overhead=overhead, seconds=seconds)
    out: dict[int, Job] = {}
    while executor.free:
        for job in study.ask(executor.free):
            executor.submit(job)
            out[job.ask] = job
        reports = executor.wait()
        if not reports:
            break
        with study.batch() as batch:
            for report in reports:
                _tell(batch, out.pop(report.ask), report)
    return _summary(study, executor)


def _tell(batch: Batch, job: Job, report: Report) -> None:
    if report.metrics:
        step = report.start + max(map(len, report.metrics.values()))
        batch.tell(job, report.metrics, step=step, seconds=report.seconds, ended=report.ended)
    elif report.ended:
        batch.tell(job, seconds=report.seconds, ended=True)
    if report.failure is not None:
        batch.fail(job, report.failure.error, report.failure.kind)


def _summary(study: Study, executor: Simulated) -> Simulation:
    runs, trials = executor.runs, {run.job.trial for run in executor.runs}
    return Simulation(
        goal=study.goals[0],
        outcome="done" if executor.free else "seconds",
        workers=executor.slots,
        seconds=executor.clock,
        worker_seconds=math.fsum(run.ended - run.begun for run in runs),
        jobs=len(runs),
        trials=len(trials),
        failed=sum(study.trials[trial].status == "failed" for trial in trials),
        steps=sum(len(run.spent) for run in runs),
        kinds=dict(Counter(run.kind for run in runs)),
        incumbents=tuple(_incumbents(runs, study.goals[0], study.constraints)),
    )


def losses(
    metrics: Mapping[str, Sequence[float]], goal: Goal, constraints: Iterable[Constraint], before: Sequence[float] = ()
) -> Floats:
    """What steps are worth by a goal, by its scope, to be minimised: [k]; infinity where that is not finite or breaks a
    constraint. The trial had the values ``before`` at its earlier steps.
    """
    values = [*before, *metrics[goal.metric]]
    found: Floats = np.asarray(scoped(goal, values)[len(before) :], dtype=np.float64)
    found = np.where(np.isfinite(found), -found if goal.maximise else found, np.inf)
    for rule in constraints:
        found[~(np.asarray(metrics[rule.metric], dtype=np.float64) <= rule.at_most)] = np.inf
    return found


def _incumbents(runs: Sequence[Run], goal: Goal, constraints: Sequence[Constraint]) -> Iterable[Incumbent]:
    """Every step after which its trial was worth more than all trials had been before."""
    if not runs:
        return
    times = np.concatenate([run.times for run in runs])
    curves: dict[int, dict[int, float]] = {}  # by trial and step
    parts = []
    for run in runs:
        curve = curves.setdefault(run.job.trial, {})
        earlier = [value for step, value in curve.items() if step <= run.job.start] if goal.scope != "last" else []
        parts.append(losses(run.metrics, goal, constraints, earlier))
        curve.update(enumerate(run.metrics[goal.metric], run.job.start + 1))
    worth = np.concatenate(parts)
    lengths = np.array([len(run.spent) for run in runs])
    owners, firsts = np.repeat(np.arange(len(runs)), lengths), np.cumsum(lengths) - lengths
    order = np.argsort(times, kind="stable")
    before = np.minimum.accumulate(np.concatenate([[np.inf], worth[order]]))[:-1]
    for index in order[worth[order] < before].tolist():
        job = runs[owners[index]].job
        step = job.start + index - int(firsts[owners[index]]) + 1
        yield Incumbent(float(times[index]), job.trial, step, goal.loss(float(worth[index])))


def _series(
    played: Played, rules: Sequence[Goal | Constraint], job: Job
) -> tuple[dict[str, list[float]], Floats, bool]:
    """The metrics of a job, NaN where they are not finite; what each step takes, up to the first at which a rule's is
    not; and whether the training comes to its end by itself with them.
    """
    if played.ended and not any(map(np.size, played.metrics.values())):
        return {rule.metric: [] for rule in rules}, np.zeros(0), True
    try:
        series, _ = as_series(played.metrics, rules, job.once)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the curve of trial {job.trial}: {error}") from error
    given = len(next(iter(series.values())))
    free = played.ended or open_ended(job.until)
    steps = given if free else job.until - job.start
    broken = [series[rule.metric].index(None) for rule in rules if None in series[rule.metric]]
    count = min(broken) + 1 if broken else given
    if given > min(steps, job.until - job.start) or (count < steps and not broken):
        raise ValueError(
            f"the curve of trial {job.trial} has {given} values for the {job.until - job.start} steps from "
            f"{job.start + 1} to {job.until}: give one each"
        )
    metrics = {name: [math.nan if v is None else v for v in values[:count]] for name, values in series.items()}
    return metrics, _durations(played.seconds, steps, count, job), free and not broken


def _durations(seconds: float | Sequence[float], steps: int, count: int, job: Job) -> Floats:
    """What each of the first ``count`` steps of so many takes: [count]."""
    given = np.asarray(seconds, dtype=np.float64)
    each = np.full(count, given / steps) if given.ndim == 0 else given[:count]
    if len(each) != count or not (each >= 0).all() or not np.isfinite(each).all():
        raise ValueError(
            f"the curve of trial {job.trial}: seconds={seconds!r} must be one number, or one a step, from 0 on"
        )
    return each
