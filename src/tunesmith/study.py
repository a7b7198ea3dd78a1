"""A study: a log, the state folded from it, and the two doors ``ask`` and ``tell``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from shutil import rmtree
from threading import RLock
from typing import Any, NamedTuple, overload
from weakref import finalize

import msgspec
import numpy as np

from tunesmith import samplers, schedulers, temporary
from tunesmith._tables import as_html
from tunesmith.checkpoints import Checkpoints, folder_of, of_user
from tunesmith.costs import Budget, check_budget
from tunesmith.decide import Decided, Decider
from tunesmith.definition import (
    Given,
    StudyError,
    as_goals,
    changed,
    check_algorithm,
    check_definition,
    check_fill,
    check_limits,
    difference,
    difference_of_spaces,
    spec,
)
from tunesmith.errors import clean, install, printable, shortened
from tunesmith.fold import Fold
from tunesmith.hints import hints
from tunesmith.incumbents import Incumbents, Leader, losses
from tunesmith.log import Log
from tunesmith.metrics import Metrics, as_series, without_texts
from tunesmith.noise import Estimate
from tunesmith.records import (
    FAILURES,
    AnyEvent,
    Asked,
    Changed,
    Checkpointed,
    Constraint,
    Ended,
    Enqueued,
    Failed,
    FailureKind,
    Goal,
    Limited,
    Noted,
    Opened,
    Stopped,
    Told,
)
from tunesmith.reports import check_seconds, notes, once_metrics, told
from tunesmith.rng import stream, subseed
from tunesmith.samplers.base import Sampler
from tunesmith.schedulers.base import Scheduler
from tunesmith.space import Config, Scalar, Space
from tunesmith.storage.base import Store, open_store
from tunesmith.tables import SHOWN, Row, trial_rows, used
from tunesmith.trials import Checkpoint, Trial, Trials

ONE_BY_ONE = 8  #: up to so many asks are written one by one, which other writers can't undo
RUNNERS_UP = 8  #: where configurations are repeated, so many of the next ones keep their checkpoints

log = logging.getLogger("tunesmith")


class Job(NamedTuple):
    """Advance ``trial`` from step ``start`` to step ``until``.

    ``sources`` are the checkpoints to start from, the best first; empty for a new trial that is no fork. ``seed``
    seeds the training: it belongs to the trial. ``repeat`` is how many earlier trials had the same configuration: 0
    for the first; it may serve as the number of a fold. ``once`` has the metrics that are measured once a trial, with
    the value that this trial was told, or None where it is still to be measured. ``fidelities`` names the
    parameters whose values in ``config`` belong to this job's rung. ``forked`` is the step at which the trial took over
    the weights of ``parent``. ``final`` says that no trial is trained any further than ``until``.
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
    final: bool = False


class Study:
    """A search, as a log of what was asked and what was told.

    With the same arguments, a study that exists in the store is continued. A study is safe for threads, and
    several processes may work on one store.

    Attributes:
        outcome: why the last run of this process, by ``tune`` or ``run``, has ended: ``"done"``, ``"interrupted"``,
            ``"seconds"``, ``"target"`` or ``"stopped"``. Empty before its end, and where an exception came out of it.

    Args:
        space: what may vary.
        goals: what to minimise or maximise.
        sampler: where to look next; :class:`tunesmith.samplers.Auto` by default.
        scheduler: which job is next; by default every trial is one step.
        store: None for memory, the path of a SQLite file, or a store.
        name: name of the study in the store.
        seed: all randomness follows from it; 0 by default, and that of the study where it exists.
        constraints: outcome constraints that the best trial has to satisfy.
        duplicates: whether samplers may propose configurations that were tried already: where values are noisy, or a
            finite space is small. Each is a trial of its own, and counts as a repeat of the configuration.
        trials: start no more trials than this, repeats of a configuration included; forks of a population do not
            count. A property of the run: raise it to go on.
        budget: ask for nothing that would cost more than this, such as ``Budget(seconds=3600)``, with all that was told
            so far. A property of the run, too.
        patience: start no more jobs when so many trials have ended since the best one began, without a better one. A
            property of the run, too.

    Raises:
        StudyError: the store has a study of this name that is defined otherwise.
        StoreError: the store can't be used.
    """

    @hints
    def __init__(
        self,
        space: Space,
        goals: Sequence[Goal] | Goal,
        sampler: Sampler[Any] | None = None,
        scheduler: Scheduler[Any] | None = None,
        store: str | os.PathLike[str] | Store | None = None,
        *,
        name: str = "study",
        seed: int | None = None,
        constraints: Sequence[Constraint] | Constraint = (),
        duplicates: bool = False,
        trials: int | None = None,
        budget: Budget | None = None,
        patience: int | None = None,
    ) -> None:
        sampler = samplers.Auto() if sampler is None else sampler
        scheduler = schedulers.Full() if scheduler is None else scheduler
        goals = as_goals(goals)
        constraints = (constraints,) if isinstance(constraints, Constraint) else tuple(constraints)
        number = check_definition(
            space, goals, sampler, scheduler, 0 if seed is None else seed, constraints, duplicates
        )
        opened = Opened(space, goals, spec(sampler), spec(scheduler), number, constraints, duplicates=duplicates)
        scheduler.init(space, goals, constraints)  # says now what it can't do
        given = Given((space,), (sampler,), (scheduler,))
        self._begin(store, name, given, trials, budget, patience, create=True)
        try:
            if self._log.fold.number == 0 and not self._log.append([opened], after=0):
                self._log.sync()
            if seed is None:
                opened = msgspec.structs.replace(opened, seed=self.definition.seed)
            other = difference(self.definition, opened)
            if other:
                raise StudyError(f"study {name!r} exists and is defined otherwise: {other}")
        except BaseException:
            self.close()
            raise

    def _begin(
        self,
        store: str | os.PathLike[str] | Store | None,
        name: str,
        given: Given,
        trials: int | None,
        budget: Budget | None,
        patience: int | None,
        *,
        create: bool,
    ) -> None:
        check_limits(trials=trials, patience=patience)
        check_budget(budget)
        self.name = name
        self.limit, self.budget, self.patience = trials, budget, patience
        self._lock = RLock()
        self._log = Log(open_store(store, name, create=create), name, given)
        self._message = ""
        self._barred = False
        self.outcome: str = ""
        self._leader: Leader | None = None
        self._judged: tuple[Fold, int, Incumbents] | None = None
        self._opened_at = self._log.fold.number
        self._checkpoints: Path | None = None
        self._warned: set[int] = set()
        """Jobs that were over when something was said of them, by ask."""

    @classmethod
    @hints
    def open(
        cls,
        store: str | os.PathLike[str] | Store,
        name: str = "study",
        *,
        space: Space | None = None,
        sampler: Sampler[Any] | None = None,
        scheduler: Scheduler[Any] | None = None,
        trials: int | None = None,
        budget: Budget | None = None,
        patience: int | None = None,
    ) -> Study:
        """A study from its log alone. Nothing in the log is executed.

        Args:
            store: path of a SQLite file, or a store.
            name: name of the study in the store.
            space: the space with its Python functions, where the study has constraints that are functions.
            sampler: the sampler of the study, where it is not built in.
            scheduler: the scheduler of the study, where it is not built in.
            trials, budget, patience: limits of the run, as for ``Study``.

        Raises:
            StudyError: the store has no such study.
            StoreError: the store can't be used.
        """
        study = cls.__new__(cls)
        study._begin(store, name, Given().plus(space, sampler, scheduler), trials, budget, patience, create=False)
        if study._log.fold.number == 0:
            names: list[str] = getattr(study.store, "names", list)()
            study.close()
            there = f"it has {', '.join(map(repr, names))}" if names else "it is empty"
            raise StudyError(f"{store}: there is no study {name!r}; {there}")
        if space is not None and space != study.space:
            study.close()
            raise StudyError(f"study {name!r} has another space: {difference_of_spaces(study.space, space)}")
        return study

    @property
    def store(self) -> Store:
        """Where the log is."""
        return self._log.store

    @property
    def given(self) -> Given:
        """Objects of the user, for what the log can't make again."""
        return self._log.given

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- the log --------------------------------------------------------------------------------------------------

    @property
    def _fold(self) -> Fold:
        return self._log.fold

    def sync(self) -> int:
        """Fold what others have written. Returns how many events that were."""
        with self._lock:
            return self._log.sync()

    def events(self) -> list[AnyEvent]:
        """The whole log."""
        return self.store.read()

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Collect what several jobs have to say, and write it as one transaction at the end::

            with study.batch() as batch:
                for job, loss in zip(jobs, losses):
                    batch.tell(job, {"loss": loss})

        After an exception what was collected before it is written.
        """
        with self._lock:
            batch = Batch(self)
            try:
                yield batch
            finally:
                if batch.events:
                    self._log.append(batch.events)

    # -- ask --------------------------------------------------------------------------------------------------------

    @overload
    def ask(self, n: None = None, *, worker: str = "") -> Job | None: ...
    @overload
    def ask(self, n: int, *, worker: str = "") -> list[Job]: ...
    def ask(self, n: int | None = None, *, worker: str = "") -> Job | list[Job] | None:
        """The next job, or the next ``n`` (fewer where there are fewer); many are one transaction.

        None, or an empty list, means "wait" while a job is out (``study.running``), and that the study is done
        when none is; ``study.message`` may say why.

        An exception of the sampler or the scheduler comes out as it is, and nothing is written then.
        """
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
            raise TypeError(f"ask({n!r}): give a whole number of jobs, at least 0, or nothing for one")
        if not isinstance(worker, str):
            raise TypeError(f"ask: worker={worker!r} must be a string")
        wanted, worker = 1 if n is None else n, clean(worker)
        with self._lock:
            written: list[Asked] = []
            try:
                self._log.sync()
                asked = (self._ask_many if wanted > ONE_BY_ONE else self._ask_few)(wanted, worker, written)
                jobs = [self._job(self.trials[event.trial]) for event in asked]
            except BaseException:
                self._take_back(written)
                raise
            return jobs if n is not None else jobs[0] if jobs else None

    def _take_back(self, written: Sequence[Asked]) -> None:
        """After an exception: jobs that may stand in the log, and that nobody was given, will be asked again."""
        with suppress(Exception):
            self._log.sync()
            running = self.trials.running
            out = (event for event in written if event.trial in running and running[event.trial].ask == event.ask)
            lost = [Failed(event.ask, event.trial, "the ask was interrupted", "lost") for event in out]
            if lost:
                self._log.append(lost)

    def _decide(self, decider: Decider, worker: str, written: list[Asked]) -> list[AnyEvent]:
        """The events of the next decision: a job; where its trial has ended before, with its end; or none."""
        decided = self._decided(decider, worker)
        self._message, self._barred, asked = decided.message, decided.barred, decided.asked
        if asked is None:
            return []
        if "ended" in asked.tags:
            return [asked, Ended(asked.ask, asked.trial, asked.start)]
        written.append(asked)
        return [asked]

    def _decided(self, decider: Decider, worker: str) -> Decided:
        number, why = decider.fold.stopped
        if number > self._opened_at:
            return Decided(None, f"the study was stopped: {why}")
        if self.patience is not None:
            best = self._best(decider.fold)
            later = () if best is None else islice(decider.fold.trials, best.id + 1, None)
            ended = islice((trial for trial in later if trial.status not in ("running", "waiting")), self.patience)
            if best is not None and sum(1 for _ in ended) >= self.patience:
                return Decided(None, f"{self.patience} trials have ended since trial {best.id}, and none was better")
        if self.budget is not None:
            return decider.afford(self.budget, worker, self.limit)
        return decider.decide(worker, self.limit)

    def _ask_few(self, n: int, worker: str, written: list[Asked]) -> list[Asked]:
        """Decide and write one job after the other, which other writers can't undo."""
        asked: list[Asked] = []
        while len(asked) < n:
            events = self._decide(self._log.decider, worker, written)
            if events and not self._log.append(events):  # another process has decided this ask
                del written[len(asked) :]
                with self.store.exclusive():
                    self._log.sync()
                    events = self._decide(self._log.decider, worker, written)
                    events = events if events and self._log.append(events) else []
            if not events:
                break
            asked += [event for event in events if isinstance(event, Asked) and "ended" not in event.tags]
        return asked

    def _ask_many(self, n: int, worker: str, written: list[Asked]) -> list[Asked]:
        """Decide each ask on the ones before it and write all together; one by one if others write meanwhile."""
        decider = self._log.decider

        def decide() -> list[AnyEvent]:
            return self._decide(decider, worker, written) if len(written) < n else []

        if self._log.write_ahead(decide):
            return list(written)
        written.clear()
        return self._ask_few(n, worker, written)

    def _job(self, trial: Trial) -> Job:
        """The job that is out for a trial."""
        trials, horizon = self.trials, self.trials.horizon
        sources = tuple(trials.sources(trial, trial.step)) if trial.step else ()
        return Job(
            trial.ask, trial.id, trial.config, trial.step, trial.until, trial.parent, trial.worker,
            subseed(self.definition.seed, "train", trial.id), sources, trial.repeat,
            once_metrics(self._rules, trial), tuple(self.space.fidelities),
            None if trial.parent is None else trial.start, horizon is not None and trial.until >= horizon,
        )  # fmt: skip

    # -- tell -------------------------------------------------------------------------------------------------------

    @overload
    def tell(self, job: Job, metrics: Metrics | None = None, *, step: int | None = None, seconds: float = 0.0,
             checkpoint: Checkpoint | None = None, ended: bool = False) -> None: ...  # fmt: skip
    @overload
    def tell(self, job: Sequence[Job], metrics: Sequence[Metrics]) -> None: ...
    def tell(
        self,
        job: Job | Sequence[Job],
        metrics: Metrics | Sequence[Metrics] | None = None,
        *,
        step: int | None = None,
        seconds: float = 0.0,
        checkpoint: Checkpoint | None = None,
        ended: bool = False,
    ) -> None:
        """Say what a job has reached; a list of jobs and a list of metrics is one transaction.

        What is said of a job that is over (it was told to its end, has failed, or was given up) does not count; a
        warning says so. A value that is not finite, of a goal or a constraint, fails the trial. A text beside the
        numbers is a note.

        Args:
            job: what was asked.
            metrics: by name: one value, which holds at the job's ``until`` (or at ``step``), or a list with one
                value a step, from where the trial was last told. A metric that is measured once may be missing, or
                None, after the first step of the trial that had it.
            step: the step of the (last) value. Short of ``until`` it is progress, and the job goes on.
            seconds: what these steps have cost, in time of one worker.
            checkpoint: the state at that step, if it was saved.
            ended: the training has come to its end by itself: the trial is complete, with these values or, without
                any, with those that were told last.

        Raises:
            ValueError, TypeError: a goal's metric is missing, lists differ in length, a value is no number.
        """
        with self.batch() as batch:
            if isinstance(job, Job):
                batch.tell(job, metrics, step=step, seconds=seconds, checkpoint=checkpoint, ended=ended)  # type: ignore[arg-type]
                return
            if not isinstance(job, Sequence):
                raise TypeError(f"tell needs a Job from ask(), not {job!r} (ask gives None where none is left)")
            if not isinstance(metrics, Sequence) or len(metrics) != len(job):
                raise TypeError(f"tell: {len(job)} jobs need a list of {len(job)} metrics, not {metrics!r}")
            for one, its in zip(job, metrics, strict=True):
                batch.tell(one, its)  # type: ignore[arg-type]

    def fail(
        self, job: Job, error: str | BaseException = "failed", kind: FailureKind = "raised", *, seconds: float = 0.0
    ) -> None:
        """Say that a job has failed. Kinds ``lost`` and ``crashed`` are asked again, the others end the trial.

        Args:
            job: what was asked.
            error: what went wrong. Of a long text the beginning and the end are kept.
            kind: ``raised``, ``crashed``, ``lost``, ``non-finite``, ``timeout`` or ``out-of-memory``.
            seconds: what the job has cost since it was last told.
        """
        with self.batch() as batch:
            batch.fail(job, error, kind, seconds=seconds)

    def written(self, ask: int, checkpoint: Checkpoint) -> None:
        """Say that a state was written after it was told by the job of this ask."""
        with self.batch() as batch:
            batch.written(ask, checkpoint)

    def _check_job(self, job: Job) -> Trial:
        """The trial of a job. ValueError where the job is none of this study: its events would make no sense."""
        if not isinstance(job, Job):
            raise TypeError(f"a Job from ask() is needed, not {job!r} (ask gives None where none is left)")
        if job.trial >= len(self.trials) or job.ask >= self._fold.asks:
            self.sync()  # asked for elsewhere
        if not (0 <= job.trial < len(self.trials) and 0 <= job.ask < self._fold.asks):
            raise ValueError(f"study {self.name!r} has not asked for trial {job.trial}: the job is another study's")
        return self.trials[job.trial]

    @hints
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
        if not isinstance(config, Mapping):
            raise TypeError(f"add needs a configuration, such as {{'lr': 0.1}}, not {config!r}")
        with self._lock:
            self.space.check(config)
            config = {**self.space.at(config, 1.0), **config}
            numbers, texts = without_texts(metrics, [rule.metric for rule in self._rules])
            series, _ = as_series(numbers, self._rules, once_metrics(self._rules))
            count = len(next(iter(series.values())))
            if isinstance(step, bool) or not isinstance(step, int) or step < max(1, count):
                raise ValueError(f"add: step={step!r} must be a whole number, at least 1 and the number of values")
            if any(value is None for rule in self._rules for value in series[rule.metric]):
                raise ValueError(f"add: {dict(metrics)} is not finite")
            while True:
                self._log.sync()
                fold = self._fold
                same = self._log.decider.first(config)
                first = None if same is None else same.id
                asked = Asked(
                    fold.asks, fold.number, len(fold.trials), config, 0, step, repeat_of=first, tags=("added",)
                )
                events: list[AnyEvent] = [asked, Told(asked.ask, asked.trial, step - count, series)]
                if texts:
                    events.append(Noted(notes(texts), asked.trial))
                if self._log.append(events, after=fold.number):
                    return self.trials[asked.trial]

    @hints
    def enqueue(self, config: Config) -> bool:
        """Try this configuration next; parameters that it lacks are given by the sampler.

        Returns:
            False, and nothing is done, if it is queued or was tried already, or if no more trials will be started
            (``study.message`` says so).

        Raises:
            ValueError: a parameter is not in the space, a value is not allowed, or no configuration has these together.
        """
        if not isinstance(config, Mapping):
            raise TypeError(f"enqueue needs a configuration, such as {{'lr': 0.1}}, not {config!r}")
        with self._lock:
            self._log.sync()
            config = {name: value for name, value in config.items() if name not in self.space.fidelities}
            self.space.check_part(config)
            if self.space.contains(self.space.at(config, 1.0)):
                if self._log.decider.known(config) and not self.definition.duplicates:
                    self._message = "the configuration was tried already, or is queued"
                    return False
            elif self._is_whole(config):
                self.space.check(self.space.at(config, 1.0))
            elif self.space.complete(config, stream(self.definition.seed, "enqueue", self._fold.number)) is None:
                raise ValueError(f"enqueue: no configuration with {config} was found that the constraints allow")
            self._message = self._why_none_starts()
            if self._message:
                return False
            return self._log.append([Enqueued(config)])

    def _why_none_starts(self) -> str:
        """Why the scheduler will start no more trials, whatever the limits of this run; empty where it may."""
        scheduler, _ = self._log.decider.scheduling()
        members, rungs, trials = scheduler.members, scheduler.rungs, self.trials
        if members is not None and not rungs and self._fold.started + len(self._fold.queue) >= members:
            return f"all {members} members of the population have their first configuration"
        if members is not None and rungs and any(trial.until > rungs[-1] for trial in trials):
            return "the trials of the population are chosen"
        if trials and not trials.running and not trials.waiting and not self._log.decider.goes_on():
            return "the search has come to its end: no more trials are started"
        return ""

    def _is_whole(self, config: Config) -> bool:
        """Whether a configuration has every parameter that its branches make active."""
        try:
            self.space.encode(self.space.at(config, 1.0))
        except ValueError:
            return False
        return True

    def note(self, trial: Trial | Job | int | None = None, /, **values: Scalar) -> None:
        """Remember something beside the numbers: texts, numbers, True, False or None, by name.

        A later note of the same name replaces it. Notes are exported with the trials, and found in ``trial.notes`` and
        ``study.notes``.

        Args:
            trial: whose note it is; of the study as a whole by default.
            values: what to remember.
        """
        with self._lock:
            number = self._number_of(trial)
            if number is not None:
                self._trial(number)
            self._log.append([Noted(notes(values), number)])

    def stop(self, why: str = "someone stopped it") -> None:
        """Ask everybody who works on the study now to stop: running jobs save their state, and nothing more is asked.

        Whoever opens the study later goes on with it.
        """
        with self._lock:
            self._log.append([Stopped(clean(str(why)))])

    @property
    def limited(self) -> int | None:
        """How many trials the last run was to start in all (``trials=``); None where it had no such limit."""
        return self._fold.limited

    def remember_limit(self) -> None:
        """Note how many trials this run is to start, so that whoever resumes it need not say it again."""
        with self._lock:
            if self.limit is not None and self.limit != self.limited:
                self._log.append([Limited(self.limit)])

    @property
    def stopped(self) -> str:
        """Why ``stop`` was called since this study was opened; empty where it was not."""
        number, why = self._fold.stopped
        return why if number > self._opened_at else ""

    @hints
    def change(
        self,
        *,
        space: Space | None = None,
        sampler: Sampler[Any] | None = None,
        scheduler: Scheduler[Any] | None = None,
        fill: Config | None = None,
    ) -> None:
        """Go on with another space, sampler or scheduler. The change is an event of the log.

        Args:
            space: the space from now on. Trials outside it stay in the study; samplers pass over them. A parameter that
                was removed and comes back has the values that the trials had.
            sampler: the sampler from now on.
            scheduler: the scheduler from now on, for instance with more steps: trials that have come to the end of the
                old one then go on, from their state where it is among those that ``keep()`` names before the change;
                the others begin again at step 0.
            fill: the value that each parameter which is new had in all trials so far.

        Raises:
            StudyError: a parameter is new and ``fill`` lacks it, or ``fill`` has one of which no trial lacks a value.
        """
        if space is None and sampler is None and scheduler is None:
            raise TypeError("change() needs one of space=, sampler= and scheduler=")
        for kind, part in (("sampler", sampler), ("scheduler", scheduler)):
            if part is not None:
                check_algorithm(kind, part)
        with self._lock:
            self._log.sync()
            fill = dict(fill or {})
            given = self.given.plus(space, sampler, scheduler)
            of_sampler, of_scheduler = (None if part is None else spec(part) for part in (sampler, scheduler))
            event = Changed(space, of_sampler, of_scheduler, fill)
            after = changed(self.definition, event)
            given.sampler(after.sampler)
            chosen = given.scheduler(after.scheduler)
            chosen.init(after.space, after.goals, after.constraints)  # says now what it can't do
            if space is not None:
                check_fill([trial.asked for trial in self.trials], self._fold.fitting(space, fill), space, fill)
            elif fill:
                raise StudyError(f"change: fill={fill} is for a new space, and none is given")
            self._log.give(given)
            self._log.append([event])

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
    def scheduler(self) -> Scheduler[Any]:
        """The scheduler in charge.

        Raises:
            StudyError: it is the user's own, and was not passed.
        """
        chosen: Scheduler[Any] = self.given.scheduler(self.definition.scheduler)
        return chosen

    @property
    def definition(self) -> Opened:
        """Space, goals, sampler, scheduler, seed: as of now."""
        return self._fold.definition

    @property
    def trials(self) -> Trials:
        """All trials, as far as the log was folded (see ``sync``)."""
        return self._fold.trials

    @property
    def notes(self) -> dict[str, Scalar]:
        """Notes on the study as a whole."""
        return dict(self._fold.notes)

    @property
    def running(self) -> list[Job]:
        """The jobs that are out, here and elsewhere."""
        with self._lock:
            return [self._job(trial) for trial in self.trials.running.values()]

    @property
    def message(self) -> str:
        """Why the last ``ask`` gave nothing, where there is more to say than "wait"."""
        return self._message

    @property
    def barred(self) -> bool:
        """Whether the last ``ask`` found no configuration that the constraints of the space allow."""
        return self._barred

    def losses(self, trial: Trial) -> tuple[float, ...] | None:
        """The value of every goal, to be minimised, by its scope; None for a trial that has failed, breaks a
        constraint, or was not told one of them.
        """
        return losses(trial, self.goals, self.constraints)

    def _trial(self, trial: Trial | int) -> Trial:
        """A trial by its number, or as it is."""
        if isinstance(trial, Trial):
            return trial
        if isinstance(trial, bool) or not isinstance(trial, int):
            raise TypeError(f"a trial or its number is needed, not {trial!r}")
        if not 0 <= trial < len(self.trials):
            raise ValueError(f"there is no trial {trial}: the study has {len(self.trials)} trials, from 0 on")
        return self.trials[trial]

    @staticmethod
    def _number_of(trial: Trial | Job | int | None) -> int | None:
        return trial.id if isinstance(trial, Trial) else trial.trial if isinstance(trial, Job) else trial

    @property
    def best(self) -> Trial | None:
        """The trial with the best value of the first goal, by its scope; none that has failed or breaks a constraint.

        Where a configuration was trained more than once, the latest trial of the configuration with the best posterior
        mean (see :mod:`tunesmith.noise`); ``estimate()`` gives that mean. Where there are fidelities it is among the
        trials that have a value at the highest one.
        """
        with self._lock:
            return self._best(self._fold)

    def _best(self, fold: Fold) -> Trial | None:
        if fold.trials.repeated:
            return next(self._incumbents(fold).ranked(), None)
        if self._leader is None or self._leader.trials is not fold.trials:
            definition = fold.definition
            self._leader = Leader(fold.trials, definition.goals, definition.constraints)
        return self._leader.best(tuple(fold.definition.space.fidelities))

    def estimate(self, trial: Trial | int | None = None) -> Estimate | None:
        """The mean of the first goal over training seeds, for the configuration of a trial, with its interval.

        Args:
            trial: a trial or its number; by default the best one.

        Returns:
            None where no configuration was trained twice, so that nothing is known of the noise, and for a
            configuration that can't be the best: at least half of its trials have failed or break a constraint.
        """
        found = self.best if trial is None else self._trial(trial)
        if found is None or not self.trials.repeated:
            return None
        return self._incumbents(self._fold).estimate(found)

    @property
    def front(self) -> list[Trial]:
        """The trials that no other one beats in every goal (the Pareto front), by number. Of a configuration that was
        trained more than once the latest one, by the posterior mean of every goal.
        """
        with self._lock:
            return self._incumbents(self._fold).front()

    def bests(self) -> list[tuple[Goal, Trial, float]]:
        """Every goal with the best trial by it, and its value there: that of the first goal is a mean where
        configurations were repeated. Empty where there is no best trial.
        """
        with self._lock:
            best, estimate, first = self.best, self.estimate(), self.goals[0]
            front = self.front if len(self.goals) > 1 else []
            found = [] if best is None else [(first, best, best.value(first) if estimate is None else estimate.mean)]
            for goal in self.goals[1:]:
                known = [(trial, value) for trial in front if (value := trial.value(goal)) is not None]
                if known:
                    found.append((goal, *min(known, key=lambda pair: goal.loss(pair[1]))))
            return [(goal, trial, value) for goal, trial, value in found if value is not None]

    def _incumbents(self, fold: Fold) -> Incumbents:
        """All configurations as they stand; made anew after every event."""
        if self._judged is None or self._judged[0] is not fold or self._judged[1] != fold.number:
            definition = fold.definition
            fidelities = tuple(definition.space.fidelities)
            found = Incumbents(fold.trials, definition.goals, definition.constraints, fidelities)
            self._judged = fold, fold.number, found
        return self._judged[2]

    def sampling(self) -> tuple[Any, Any, np.random.Generator]:
        """The sampler, its state, which is not to be changed, and the randomness of its next proposal: for a look at
        what it has learned. ``sampler.ask(state, rng)`` is what it proposes next.
        """
        with self._lock:
            return self._log.decider.sampling()

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def startable(self) -> set[tuple[int, int]]:
        """The states, as (trial, step), that the scheduler may still start another job from."""
        with self._lock:
            return self._log.decider.keep()

    def needed(self) -> set[tuple[int, int]]:
        """The states, as (trial, step), that may still be needed: by a job that is out or may be asked; the best
        trial's, with that of the next one in case it does not stay the best; and those of the front. Where the best
        value counts, also the states of its steps, those of trials in training among them.
        """
        with self._lock:
            trials, incumbents = self.trials, self._incumbents(self._fold)
            needed = self._log.decider.keep()
            training = [*trials.running.values(), *trials.waiting]
            needed |= {(trial.id, trial.step) for trial in training}
            ranked = list(incumbents.ranked())
            rest = [trial for trial in ranked if (trial.id, trial.step) not in needed]  # they change no more
            few = RUNNERS_UP if trials.repeated else 1  # a repeat may make the best one fall behind several
            best = [*ranked[:1], *rest[:few]]
            if len(self.goals) > 1:
                # those whose values change no more come back when one that is in training gets worse again
                best += [*incumbents.front(), *incumbents.front(among=set(rest))]
            needed |= {(trial.id, trial.step) for trial in best}
            peaks = [goal for goal in self.goals if goal.scope == "best"]
            steps = {(trial.id, trial.best_step(goal)) for trial in (*best, *training) for goal in peaks}
            return needed | {(trial, step) for trial, step in steps if step is not None}

    def keep(self) -> set[tuple[int, int]]:
        """The checkpoints, as (trial, step), that must stay: of the states that may still be needed, whether the log
        knows of them yet or not, and the ones to fall back on.
        """
        with self._lock:
            needed, sources = self.needed(), self.trials.sources
            found = [source for trial, step in needed for source in sources(self.trials[trial], step)[:2]]
            return needed | {(source.trial, source.step) for source in found}

    def use_checkpoints(self, folder: str | os.PathLike[str] | None = None) -> Path:
        """The directory where states are saved from now on, an absolute path.

        Args:
            folder: by default next to the store, or where the study is in memory a temporary one, which is removed with
                the study.
        """
        with self._lock:
            path = getattr(self.store, "path", None)
            if not isinstance(folder, str | os.PathLike | None):
                raise TypeError(f"checkpoints={folder!r} must be the path of a folder")
            if folder is not None:
                self._checkpoints = Path(folder).absolute()
            elif path is not None:
                self._checkpoints = folder_of(Path(path).absolute(), self.name)
            elif self._checkpoints is None:
                self._checkpoints = temporary.folder()
                finalize(self, rmtree, self._checkpoints, ignore_errors=True)
            return self._checkpoints

    @hints
    def load(self, trial: Trial | int | None = None, *, step: int | None = None) -> Any:
        """The state of a trial as its training code gave it; of code that writes files the directory with them.

        Args:
            trial: a trial or its number; by default the best one.
            step: the state at this step. By default the newest one, or where the first goal counts its best value, the
                newest up to that step.

        A warning says where there is no state of the step with the best value.

        Raises:
            StudyError: there is no such trial, or no state of it was saved.
            CheckpointError: the state can't be read.
        """
        saved = self.checkpoint(trial, step=step)
        best = self._best_step(self.trials[saved.trial]) if step is None else None
        if best not in (None, saved.step):
            log.warning(
                "trial %d has its best value at step %d, and no state of it: this one is of step %d",
                saved.trial, best, saved.step,
            )  # fmt: skip
        root = self._checkpoints if self._checkpoints is not None else self.use_checkpoints()
        return of_user(Checkpoints(root).load(saved.where, saved.digest))

    @hints
    def checkpoint(self, trial: Trial | int | None = None, *, step: int | None = None) -> Checkpoint:
        """Where the state of a trial stands, relative to ``use_checkpoints()``; the arguments are those of ``load``."""
        with self._lock:
            found = self.best if trial is None else self._trial(trial)
            if found is None:
                raise StudyError(f"study {self.name!r} has no best trial yet")
            last = found.step if step is None else step
            best = self._best_step(found) if step is None else None
            states = [saved for saved in found.checkpoints if saved.step <= (last if best is None else best)]
            states = states or [saved for saved in found.checkpoints if step is None]
            if not states or (step is not None and states[-1].step != step):
                there = ", ".join(str(saved.step) for saved in found.checkpoints) or "none"
                which = "" if step is None else f" of step {step}"
                raise StudyError(
                    f"no state{which} of trial {found.id} was saved (steps with one: {there}); docs/task.md says how "
                    "training code saves its state"
                )
            return states[-1]

    def _best_step(self, trial: Trial) -> int | None:
        """The step of the value that counts, where it is the best one and not the last."""
        goal = self.goals[0]
        return trial.best_step(goal) if goal.scope == "best" else None

    def values(self, of: Trial | Job | int | None = None) -> dict[str, Any]:
        """What training code gets for the configuration of a job or a trial: of options that have a value, the value
        instead of the name.

        Args:
            of: a job, a trial or its number; by default the best trial.

        Raises:
            StudyError: there is no best trial yet.
            SpaceError: the study was opened without the space that has the values: ``Study.open(path, space=space)``.
        """
        with self._lock:
            found = self.best if of is None else of if isinstance(of, Job) else self._trial(of)
            if found is None:
                raise StudyError(f"study {self.name!r} has no best trial yet")
            return self.space.values(found.config)

    # -- tables -------------------------------------------------------------------------------------------------------

    def to_dicts(self) -> list[Row]:
        """One flat row a trial; see :func:`tunesmith.tables.trial_rows`."""
        with self._lock:
            return trial_rows(self.trials, self.trials, self.goals, self.estimate)

    def to_pandas(self) -> Any:
        """The same as a ``pandas.DataFrame``, with the trial's number as its index.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"to_pandas() needs pandas: {install('pandas')}") from error
        rows = self.to_dicts()
        columns = list(rows[0]) if rows else ["trial"]
        return pandas.DataFrame(rows, columns=columns).set_index("trial")

    def _headline(self) -> str:
        found = [f"best {goal.metric}={value:.6g} (trial {trial.id})" for goal, trial, value in self.bests()]
        return printable(", ".join([repr(self.name), f"{len(self.trials)} trials", *found]))

    def __repr__(self) -> str:
        return f"Study({self._headline()})"

    def _repr_html_(self) -> str:
        shown = self.trials[-SHOWN:]
        rows = used(trial_rows(shown, self.trials, self.goals, self.estimate))
        return as_html(rows, f"Study {self._headline()}")


class Batch:
    """What several jobs have to say, collected for one transaction; see ``Study.batch``."""

    def __init__(self, study: Study) -> None:
        self.events: list[AnyEvent] = []
        self._study = study
        self._told: dict[int, Told] = {}  # by trial, the last one in this batch
        self._over: set[int] = set()  # jobs that end in this batch, by ask

    def tell(
        self,
        job: Job,
        metrics: Metrics | None = None,
        *,
        step: int | None = None,
        seconds: float = 0.0,
        checkpoint: Checkpoint | None = None,
        ended: bool = False,
    ) -> None:
        """As ``Study.tell``."""
        trial, rules = self._study._check_job(job), self._study._rules
        once, done, values = once_metrics(rules, trial), max(job.start, trial.step), bool(trial.reports)
        earlier = self._told.get(trial.id)
        if earlier is not None:
            done, values = earlier.step, True
            once = {name: earlier.metrics[name][-1] for name in once}
        if ended and not metrics and not values and trial.parent is None:
            self.fail(job, "the training has ended without a value", seconds=seconds)
            return
        events = told(
            job.ask, trial.id, job.start, job.until, done, metrics, rules, once,
            step=step, seconds=seconds, checkpoint=checkpoint, ended=ended,
        )  # fmt: skip
        free = not seconds and not trial.seconds and self._study.budget is not None
        if free and any(isinstance(event, Ended) or getattr(event, "step", 0) == job.until for event in events):
            raise ValueError(f"trial {trial.id}: the study has a budget: tell needs seconds=, what the job has cost")
        if any(isinstance(event, Told | Failed) for event in events):
            self._warn_if_over(job, trial)
        self.events += events
        for event in events:
            if isinstance(event, Told):
                self._told[trial.id] = event
            if isinstance(event, Ended | Failed) or (isinstance(event, Told) and event.step >= job.until):
                self._over.add(job.ask)

    def fail(
        self, job: Job, error: str | BaseException = "failed", kind: FailureKind = "raised", *, seconds: float = 0.0
    ) -> None:
        """As ``Study.fail``."""
        trial = self._study._check_job(job)
        if kind not in FAILURES:
            raise ValueError(f"fail: kind={kind!r} must be one of {', '.join(map(repr, FAILURES))}")
        check_seconds(seconds, f"trial {trial.id}")
        self._warn_if_over(job, trial)
        self._over.add(job.ask)
        text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
        self.events.append(Failed(job.ask, job.trial, shortened(clean(text)), kind, float(seconds)))

    def _warn_if_over(self, job: Job, trial: Trial) -> None:
        """Say, once a job, that what is said of it does not count any more."""
        over = trial.ask != job.ask or trial.status != "running" or job.ask in self._over
        if over and job.ask not in self._study._warned:
            self._study._warned.add(job.ask)
            log.warning(
                "trial %d: its job from step %d to %d is over, so what is said of it now does not count; "
                "study.add(config, metrics) takes a further result", trial.id, job.start, job.until,
            )  # fmt: skip

    def written(self, ask: int, checkpoint: Checkpoint) -> None:
        """As ``Study.written``."""
        self.events.append(Checkpointed(ask, *checkpoint))

    def note(self, trial: Trial | Job | int | None, values: Mapping[str, Scalar]) -> None:
        """As ``Study.note``."""
        self.events.append(Noted(notes(values), Study._number_of(trial)))
