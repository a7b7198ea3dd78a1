"""A study: a log, the state folded from it, and the two doors ``ask`` and ``tell``."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from threading import RLock
from typing import Any, NamedTuple, overload

import numpy as np

from tunesmith import samplers, schedulers
from tunesmith.costs import Budget, check_budget
from tunesmith.definition import (
    Given,
    StudyError,
    changed,
    check_definition,
    check_filled,
    difference,
    difference_of_spaces,
    fit,
    spec,
)
from tunesmith.fold import Fold
from tunesmith.incumbents import Incumbents, losses
from tunesmith.metrics import Metrics, as_series
from tunesmith.noise import Estimate
from tunesmith.records import (
    AnyEvent,
    Asked,
    Changed,
    Checkpointed,
    Constraint,
    Enqueued,
    Failed,
    FailureKind,
    Goal,
    Opened,
    Told,
)
from tunesmith.rng import subseed
from tunesmith.space import Config, Space
from tunesmith.storage.base import Store, StoreError, open_store
from tunesmith.trials import Checkpoint, Trial, Trials

FEW = 8  #: up to so many asks are written one by one, which other writers can't undo
CONTENDERS = 8  #: where configurations are repeated, so many of the next ones keep their checkpoints


class Job(NamedTuple):
    """Advance ``trial`` from step ``start`` to step ``until``.

    ``sources`` are the checkpoints to start from, the best first; empty for a new trial that is no fork. ``seed``
    seeds the training: it belongs to the trial. ``repeat`` is how many earlier trials had the same configuration: 0
    for the first; it may serve as the number of a fold. ``once`` has the metrics that are measured once a trial, with
    the value that this trial was told, or None where it is still to be measured. ``fidelities`` names the
    parameters whose values in ``config`` belong to this job's rung. ``forked`` is the step at which the trial took over
    the weights of ``parent``.
    """

    ask: int
    trial: int
    config: Config
    start: int
    until: int
    parent: int | None
    worker: str
    seed: int
    sources: tuple[Checkpoint, ...] = ()
    repeat: int = 0
    once: Mapping[str, float | None] = {}
    fidelities: tuple[str, ...] = ()
    forked: int | None = None


class Study:
    """A search, as a log of what was asked and what was told.

    With the same arguments, a study that exists in the store is continued. A study is safe for threads, and
    several processes may work on one store.

    Args:
        space: what may vary.
        goals: what to minimise or maximise.
        sampler: where to look next; uniform draws by default.
        scheduler: which job is next; by default every trial is one step.
        store: None for memory, the path of a SQLite file, or a store.
        name: name of the study in the store.
        seed: all randomness follows from it.
        constraints: outcome constraints that the best trial has to satisfy.
        trials: start no more trials than this, repeats of a configuration included. A property of the run: raise it
            to go on.
        budget: ask for nothing that would cost more than this, such as ``Budget(seconds=3600)``, with all that was told
            so far. A property of the run, too.

    Raises:
        StudyError: the store has a study of this name that is defined otherwise.
        StoreError: the store can't be used.
    """

    def __init__(
        self,
        space: Space,
        goals: Sequence[Goal] | Goal,
        sampler: Any = None,
        scheduler: Any = None,
        store: str | os.PathLike[str] | Store | None = None,
        *,
        name: str = "study",
        seed: int = 0,
        constraints: Sequence[Constraint] | Constraint = (),
        trials: int | None = None,
        budget: Budget | None = None,
    ) -> None:
        sampler = samplers.Uniform() if sampler is None else sampler
        scheduler = schedulers.Full() if scheduler is None else scheduler
        goals = (goals,) if isinstance(goals, Goal) else tuple(goals)
        constraints = (constraints,) if isinstance(constraints, Constraint) else tuple(constraints)
        check_definition(space, goals, sampler, scheduler, seed, trials)
        check_budget(budget)
        opened = Opened(space, goals, spec(sampler), spec(scheduler), seed, constraints)
        scheduler.init(space, goals, constraints)  # says now what it can't do
        self._begin(open_store(store, name), name, Given((space,), (sampler,), (scheduler,)), trials, budget)
        try:
            if self._fold.number == 0 and not self._append([opened], after=0):
                self.sync()
            other = difference(self.definition, opened)
            if other:
                raise StudyError(f"study {name!r} exists and is defined otherwise: {other}. Use another name or "
                                 "store, or Study.open(...).change(...) to go on with another definition")  # fmt: skip
        except BaseException:
            self.close()
            raise

    def _begin(self, store: Store, name: str, given: Given, limit: int | None, budget: Budget | None) -> None:
        self.store = store
        self.name = name
        self.limit = limit
        self.budget = budget
        self.given = given
        self._lock = RLock()
        self._batch: list[AnyEvent] | None = None
        self._judged: tuple[Fold, int, Incumbents] | None = None
        try:
            with _quiet_collector():
                events = store.read()
                self._fold = Fold(given, deciding=not events)
                self._fold_all(events)
        except BaseException:
            store.close()
            raise

    @classmethod
    def open(
        cls,
        store: str | os.PathLike[str] | Store,
        name: str = "study",
        *,
        space: Space | None = None,
        sampler: Any = None,
        scheduler: Any = None,
        trials: int | None = None,
        budget: Budget | None = None,
    ) -> Study:
        """A study from its log alone. Nothing in the log is executed.

        Args:
            store: path of a SQLite file, or a store.
            name: name of the study in the store.
            space: the space with its Python functions, where the study has constraints that are functions.
            sampler: the sampler of the study, where it is not built in.
            scheduler: the scheduler of the study, where it is not built in.
            trials: start no more trials than this.
            budget: ask for nothing that would cost more than this.

        Raises:
            StudyError: the store has no such study.
            StoreError: the store can't be used.
        """
        check_budget(budget)
        study = cls.__new__(cls)
        given = Given().plus(space, sampler, scheduler)
        study._begin(open_store(store, name, create=False), name, given, trials, budget)
        if study._fold.number == 0:
            names: list[str] = getattr(study.store, "names", list)()
            study.close()
            there = f"it has {', '.join(map(repr, names))}" if names else "it is empty"
            raise StudyError(f"{store}: there is no study {name!r}; {there}")
        if space is not None and space != study.space:
            study.close()
            raise StudyError(f"study {name!r} has another space: {difference_of_spaces(study.space, space)}")
        return study

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        best, estimate, metric = self.best, self.estimate(), self.goals[0].metric
        mean = estimate.mean if estimate is not None else None if best is None else best.last(metric)
        value = "" if mean is None else f", best {metric}={mean:.6g}"
        return f"Study({self.name!r}, {len(self.trials)} trials{value})"

    # -- the log --------------------------------------------------------------------------------------------------

    def sync(self) -> int:
        """Fold what others have written. Returns how many events that were."""
        with self._lock:
            events = self.store.read(self._fold.number)
            self._fold_all(events)
            return len(events)

    def events(self) -> list[AnyEvent]:
        """The whole log."""
        return self.store.read()

    def _fold_all(self, events: Sequence[AnyEvent]) -> None:
        fold = self._fold.fold
        try:
            for event in events:
                fold(event)
        except (LookupError, ValueError, AttributeError) as error:
            raise StoreError(f"study {self.name!r}: event {self._fold.number} makes no sense: {error!r}") from error

    def _report(self, events: Sequence[AnyEvent]) -> None:
        """Write what a worker says, now or at the end of the batch."""
        if self._batch is None:
            self._append(events)
        else:
            self._batch += events

    def _append(self, events: Sequence[AnyEvent], after: int | None = None) -> bool:
        """Write events and fold them, in the order of the log. False: others were first, nothing was written."""
        number = self.store.append(events, after)
        if number == self._fold.number + len(events):
            self._fold_all(events)
        elif number:
            self.sync()
        return number > 0

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Everything that is told or failed inside is one transaction, written at the end."""
        with self._lock:
            self._batch = []
            try:
                yield
            finally:
                events, self._batch = self._batch, None
                if events:
                    self._append(events)

    def _deciding(self) -> Fold:
        """The folded state with sampler and scheduler; a study that was opened has folded only its trials so far."""
        if not self._fold.deciding:
            self._rebuild()
        return self._fold

    def _rebuild(self) -> None:
        """Fold the whole log anew, with the states of sampler and scheduler."""
        with _quiet_collector():
            self._fold = Fold(self.given)
            self._fold_all(self.store.read())

    # -- ask and tell ---------------------------------------------------------------------------------------------

    @overload
    def ask(self, n: None = None, *, worker: str = "") -> Job | None: ...
    @overload
    def ask(self, n: int, *, worker: str = "") -> list[Job]: ...
    def ask(self, n: int | None = None, *, worker: str = "") -> Job | list[Job] | None:
        """The next job, or the next ``n`` (fewer where there are fewer); many are one transaction.

        None, or an empty list, means "wait" while a job is out (``study.running``), and that the study is done
        when none is; ``study.message`` may say why.
        """
        with self._lock:
            self.sync()
            self._deciding()
            wanted = 1 if n is None else n
            asked = self._ask_many(wanted, worker) if wanted > FEW else self._ask_few(wanted, worker)
            jobs = [self._job(self.trials[event.trial]) for event in asked]
            return jobs if n is not None else jobs[0] if jobs else None

    def _decide(self, worker: str) -> Asked | None:
        if self.budget is not None:
            return self._fold.afford(self.budget, worker, self.limit)
        return self._fold.decide(worker, self.limit)

    def _ask_one(self, worker: str) -> list[Asked]:
        event = self._decide(worker)
        if event is not None and not self._append([event]):  # another process has decided this ask
            with self.store.exclusive():
                self.sync()
                event = self._decide(worker)
                if event is not None:
                    self._append([event])
        return [] if event is None else [event]

    def _ask_many(self, n: int, worker: str) -> list[Asked]:
        """Decide each ask on the ones before it and write all together; one by one if others write meanwhile."""
        before = self._fold.number
        asked: list[Asked] = []
        while len(asked) < n and (event := self._decide(worker)) is not None:
            asked.append(event)
            self._fold.fold(event)
        if not asked or self.store.append(asked, after=before):
            return asked
        self._rebuild()
        return self._ask_few(n, worker)

    def _ask_few(self, n: int, worker: str) -> list[Asked]:
        asked: list[Asked] = []
        while len(asked) < n and (one := self._ask_one(worker)):
            asked += one
        return asked

    def _job(self, trial: Trial) -> Job:
        """The job that is out for a trial."""
        folded = self._fold
        sources = tuple(folded.trials.sources(trial, trial.step)) if trial.step else ()
        seed = subseed(folded.definition.seed, "train", trial.id)
        return Job(
            trial.ask, trial.id, trial.config, trial.step, trial.until, trial.parent, trial.worker, seed, sources,
            trial.repeat, self._once(trial), tuple(self.space.fidelities),
            None if trial.parent is None else trial.start,
        )  # fmt: skip

    def _once(self, trial: Trial | None = None) -> dict[str, float | None]:
        """The metrics that are measured once, with what the trial (None: a new one) was told of them, if it was."""
        names = {rule.metric for rule in self._rules if rule.once}
        return {name: None if trial is None else trial.last(name) for name in sorted(names)}

    def _known(self, trial: Trial) -> dict[str, float | None]:
        """The same, with what the present batch says of the trial."""
        once = self._once(trial)
        if self._batch and None in once.values():
            told = (event for event in reversed(self._batch) if type(event) is Told and event.trial == trial.id)
            latest = next(told, None)
            once = once if latest is None else {name: latest.metrics[name][-1] for name in once}
        return once

    @overload
    def tell(self, job: Job, metrics: Metrics, *, step: int | None = None, seconds: float = 0.0,
             checkpoint: Checkpoint | None = None) -> None: ...  # fmt: skip
    @overload
    def tell(self, job: Sequence[Job], metrics: Sequence[Metrics]) -> None: ...
    def tell(
        self,
        job: Job | Sequence[Job],
        metrics: Metrics | Sequence[Metrics],
        *,
        step: int | None = None,
        seconds: float = 0.0,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Say what a job has reached; a list of jobs and a list of metrics is one transaction.

        A value that is not finite, of a goal or a constraint, fails the trial.

        Args:
            job: what was asked.
            metrics: by name: one value, which holds at the job's ``until`` (or at ``step``), or a list with one
                value a step, from where the trial was last told. A metric that is measured once may be missing, or
                None, after the first step of the trial that had it.
            step: the step of the (last) value. Short of ``until`` it is progress, and the job goes on.
            seconds: what these steps have cost, in time of one worker.
            checkpoint: the state at that step, if it was saved.

        Raises:
            ValueError, TypeError: a goal's metric is missing, lists differ in length, a value is no number.
        """
        with self._lock:
            if not isinstance(job, Job):
                if not isinstance(job, Sequence):
                    raise TypeError(f"tell needs a job as ask gives it, not {job!r}: ask gives None where none is left")
                with self.batch():
                    for one, its in zip(job, metrics, strict=True):
                        self.tell(one, its)  # type: ignore[call-overload]
                return
            self._check_job(job)
            self._report(self._told(job, metrics, step, seconds, checkpoint))  # type: ignore[arg-type]

    def _told(
        self, job: Job, metrics: Metrics, step: int | None, seconds: float, checkpoint: Checkpoint | None
    ) -> list[AnyEvent]:
        """The events of a tell: the values, up to the first that is not finite."""
        series, single = as_series(metrics, self._rules, self._known(self.trials[job.trial]))
        count = max(map(len, series.values()), default=0)
        if step is None:
            step = job.until if single else max(job.start, self.trials[job.trial].step) + count
        start = step - count
        if start < 0 or step > job.until:
            raise ValueError(f"trial {job.trial}: told up to step {step}, the job is from {job.start} to {job.until}")
        self._check_seconds(job, seconds, step)
        watched = {rule.metric for rule in self._rules}
        broken = [(i, name) for name in watched for i, v in enumerate(series[name]) if v is None]
        if not broken:
            events: list[AnyEvent] = [Told(job.ask, job.trial, start, series, seconds)]
            if checkpoint is not None:
                events.insert(0, Checkpointed(job.ask, job.trial, checkpoint.step, checkpoint.where, checkpoint.digest))
            return events
        first, name = min(broken)
        events = []
        if first:
            kept = {name: values[:first] for name, values in series.items()}
            events.append(Told(job.ask, job.trial, start, kept, seconds))
        error = f"{name} is not finite at step {start + first + 1}"
        return [*events, Failed(job.ask, job.trial, error, "non-finite")]

    def _check_seconds(self, job: Job, seconds: float, step: int) -> None:
        if seconds < 0:
            raise ValueError(f"trial {job.trial}: seconds={seconds} must be at least 0")
        if self.budget is not None and step == job.until and not seconds and not self.trials[job.trial].seconds:
            raise ValueError(f"trial {job.trial}: the study has a budget: tell needs seconds=, what the job has cost")

    def written(self, ask: int, checkpoint: Checkpoint) -> None:
        """Say that a state was written after it was told by the job of this ask."""
        with self._lock:
            self._report([Checkpointed(ask, *checkpoint)])

    def fail(self, job: Job, error: str, kind: FailureKind = "raised") -> None:
        """Say that a job has failed. Kinds ``lost`` and ``crashed`` are asked again, the others end the trial."""
        with self._lock:
            self._check_job(job)
            self._report([Failed(job.ask, job.trial, str(error), kind)])

    def _check_job(self, job: Job) -> None:
        """Say by ValueError that a job is none of this study: in the log its events would make no sense."""
        if job.trial >= len(self.trials):
            self.sync()  # asked for elsewhere
        if not (0 <= job.trial < len(self.trials) and 0 <= job.ask < self._fold.asks):
            raise ValueError(f"study {self.name!r} has not asked for trial {job.trial}: the job is another study's")

    def add(self, config: Config, metrics: Metrics, step: int = 1) -> Trial:
        """A result that someone already has: the samplers learn from it, and it is never asked. A further result of a
        configuration that the study has counts as a repeat of it.

        Args:
            config: a configuration of the space.
            metrics: its values, as in ``tell``.
            step: the training step at which they were measured.

        Raises:
            ValueError: the configuration is not in the space, or a metric is missing or not finite.
        """
        with self._lock:
            self.space.check(config)
            config = {**self.space.at(config, 1.0), **config}
            series, _ = as_series(metrics, self._rules, self._once())
            if step < max(1, len(next(iter(series.values())))):
                raise ValueError(f"add: step={step} must be at least 1, and the number of values")
            if any(v is None for rule in self.goals for v in series[rule.metric]):
                raise ValueError(f"add: {dict(metrics)} is not finite")
            while True:
                self.sync()
                ask, trial = self._fold.asks, len(self.trials)
                same = self._fold.first(config)
                first = None if same is None else same.id
                asked = Asked(ask, self._fold.number, trial, config, 0, step, repeat_of=first, tags=("added",))
                count = len(next(iter(series.values())))
                if self._append([asked, Told(ask, trial, step - count, series)], after=self._fold.number):
                    return self.trials[trial]

    def enqueue(self, config: Config) -> bool:
        """Try this configuration next. False, and nothing is done, if it is queued or was tried already.

        Raises:
            ValueError: the configuration is not in the space.
        """
        with self._lock:
            self.space.check(config)
            self.sync()
            return not self._deciding().known(config) and self._append([Enqueued(self.space.at(config, 1.0))])

    def change(
        self,
        *,
        space: Space | None = None,
        sampler: Any = None,
        scheduler: Any = None,
        fill: Config | None = None,
    ) -> None:
        """Go on with another space, sampler or scheduler. The change is an event of the log.

        Args:
            space: the space from now on. Trials outside it stay in the study; samplers pass over them.
            sampler: the sampler from now on.
            scheduler: the scheduler from now on, for instance with more steps.
            fill: the value that each parameter which is new had in all trials so far.

        Raises:
            StudyError: a parameter is new and ``fill`` lacks it.
        """
        with self._lock:
            self.sync()
            fill = fill or {}
            if space is not None:
                for trial in self.trials:
                    check_filled(space, fit(space, trial.config, fill))
            given = self.given.plus(space, sampler, scheduler)
            event = Changed(space, sampler and spec(sampler), scheduler and spec(scheduler), fill)
            after = changed(self.definition, event)
            given.sampler(after.sampler)
            chosen = given.scheduler(after.scheduler)
            chosen.init(after.space, after.goals, after.constraints)  # says now what it can't do
            self.given = self._fold.given = given
            self._append([event])

    # -- views ----------------------------------------------------------------------------------------------------

    @property
    def space(self) -> Space:
        """What may vary."""
        return self._fold.definition.space

    @property
    def goals(self) -> tuple[Goal, ...]:
        """What to minimise or maximise."""
        return self._fold.definition.goals

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """Outcome constraints."""
        return self._fold.definition.constraints

    @property
    def _rules(self) -> list[Goal | Constraint]:
        return [*self.goals, *self.constraints]

    @property
    def definition(self) -> Opened:
        """Space, goals, sampler, scheduler, seed: as of now."""
        return self._fold.definition

    @property
    def trials(self) -> Trials:
        """All trials, as far as the log was folded (see ``sync``)."""
        return self._fold.trials

    @property
    def running(self) -> list[Job]:
        """The jobs that are out, here and elsewhere."""
        with self._lock:
            return [self._job(trial) for trial in self.trials.running.values()]

    @property
    def message(self) -> str:
        """Why the last ``ask`` gave nothing, where there is more to say than "wait"."""
        return self._fold.message

    def losses(self, trial: Trial) -> tuple[float, ...] | None:
        """The latest value of every goal, to be minimised; None for a trial that has failed, breaks a constraint, or
        was not told one of them.
        """
        return losses(trial, self.goals, self.constraints)

    @property
    def best(self) -> Trial | None:
        """The trial with the best latest value of the first goal; none that has failed or breaks a constraint.

        Where a configuration was trained more than once, the latest trial of the configuration with the best posterior
        mean (see :mod:`tunesmith.noise`); ``estimate()`` gives that mean.
        """
        return next(self._incumbents().ranked(), None)

    def estimate(self, trial: Trial | int | None = None) -> Estimate | None:
        """The mean of the first goal over training seeds, for the configuration of a trial, with its interval.

        Args:
            trial: a trial or its number; by default the best one.

        Returns:
            None where no configuration was trained twice, so that nothing is known of the noise, and for a
            configuration that can't be the best: at least half of its trials have failed or break a constraint.
        """
        trial = self.best if trial is None else self.trials[trial] if isinstance(trial, int) else trial
        return None if trial is None else self._incumbents().estimate(trial)

    @property
    def front(self) -> list[Trial]:
        """The trials that no other one beats in every goal (the Pareto front), by number. Of a configuration that was
        trained more than once the latest one, by the posterior mean of every goal.
        """
        return self._incumbents().front()

    def _incumbents(self) -> Incumbents:
        """All configurations as they stand; made anew after every event."""
        folded = self._fold
        if self._judged is None or self._judged[0] is not folded or self._judged[1] != folded.number:
            self._judged = (
                folded,
                folded.number,
                Incumbents(self.trials, self.goals, self.constraints, tuple(self.space.fidelities)),
            )
        return self._judged[2]

    def sampling(self) -> tuple[Any, Any, np.random.Generator]:
        """The sampler, its state, which is not to be changed, and the randomness of its next proposal: for a look at
        what it has learned. ``sampler.ask(state, rng)`` is what it proposes next.
        """
        with self._lock:
            return self._deciding().sampling()

    def startable(self) -> set[tuple[int, int]]:
        """The states, as (trial, step), that the scheduler may still start another job from."""
        with self._lock:
            return self._deciding().keep()

    def needed(self) -> set[tuple[int, int]]:
        """The states, as (trial, step), that may still be needed: by a job that is out or may be asked, and the best
        trial's, with those of the next ones in case it does not stay the best.
        """
        with self._lock:
            needed = self._deciding().keep()
            needed |= {(trial.id, trial.step) for trial in (*self.trials.running.values(), *self.trials.waiting)}
            ranked = list(self._incumbents().ranked())
            rest = (trial for trial in ranked if (trial.id, trial.step) not in needed)  # they change no more
            few = CONTENDERS if self.trials.repeated else 1  # a repeat may make the best one fall behind several
            return needed | {(trial.id, trial.step) for trial in (*ranked[:1], *islice(rest, few))}

    def keep(self) -> set[tuple[int, int]]:
        """The checkpoints, as (trial, step), that must stay: of the states that may still be needed, whether the log
        knows of them yet or not, and the ones to fall back on.
        """
        with self._lock:
            needed, sources = self.needed(), self.trials.sources
            found = [source for trial, step in needed for source in sources(self.trials[trial], step)[:2]]
            return needed | {(source.trial, source.step) for source in found}


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """No garbage collection while a log is read: it makes a million objects, none of them garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
