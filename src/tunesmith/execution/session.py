"""Where training happens: one session a worker, which keeps the states of its last trials warm."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock, Thread
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

from tunesmith.checkpoints import CheckpointError, Checkpoints, Saved
from tunesmith.errors import TunesmithError, shortened
from tunesmith.execution.base import (
    CURRENT,
    ENDLESS,
    REQUIRED,
    SAVES,
    ContinueError,
    CrashedError,
    EndedError,
    Failure,
    OptionError,
    Report,
    Target,
    Task,
    as_metrics,
    current_job,
)
from tunesmith.metrics import without_others
from tunesmith.records import Goal
from tunesmith.rng import stream
from tunesmith.space import Config, Scalar, Space, SpaceError
from tunesmith.trials import open_ended

if TYPE_CHECKING:
    from tunesmith.study import Job

INTERRUPTED = Failure("interrupted", "lost")
_HERE = Path(__file__).parent
_OURS = (str(_HERE), str(_HERE.parent / "checkpoints.py"), str(_HERE.parent / "trees.py"))  # frames nobody looks for
_LEAST = 0.05  # seconds between two looks at what could be reported meanwhile
_FRAMES = 20  # that many of the user's frames, the innermost, are in a report


@dataclass(frozen=True)
class Options:
    """How sessions work.

    Attributes:
        required: metrics that every step must have: those of the goals and constraints.
        root: directory of the checkpoints; None writes none.
        warm: states of that many trials are kept in memory between jobs.
        checkpoint_seconds: in a long job a checkpoint is written that often; at a job's end always. Saving takes a
            twentieth of the time at most, by what the last save has taken.
        checkpoint_steps: the same in steps; instead of ``checkpoint_seconds`` where it is given.
        best: the goals whose best value counts: the state of a step that is the best one so far by one is saved.
        report_seconds: in a long job progress is reported that often.
        target: a step that reaches it ends the job; the study decides what becomes of the rest.
        space: has the values of options that training code gets instead of their names; None where no option has one.
    """

    required: tuple[str, ...]
    root: str | None = None
    warm: int = 2
    checkpoint_seconds: float = 60.0
    checkpoint_steps: int | None = None
    best: tuple[Goal, ...] = ()
    report_seconds: float = 0.25
    target: Target | None = None
    space: Space | None = None

    def values(self, config: Config) -> dict[str, Any]:
        """What training code gets for a configuration.

        Raises:
            OptionError: the value of an option is not known here.
        """
        if self.space is None:
            return dict(config)
        try:
            return self.space.values(config)
        except (ValueError, SpaceError) as error:
            raise OptionError(str(error)) from None


SAVING = 0.05  #: of the time of a job at most goes into saving its state while it trains


class Pace:
    """When the state of a training is to be saved: every so many seconds or steps, but not so often that it takes more
    than a share ``SAVING`` of the time.

    Args:
        options: how often.
        step: where the training stands.
    """

    def __init__(self, options: Options, step: int) -> None:
        self._options = options
        self.step: int | None = None  # of the last save
        self._began, self._time, self._took = step, perf_counter(), 0.0

    def due(self, step: int) -> bool:
        """Whether to save now, at this step."""
        since = perf_counter() - self._time
        if since * SAVING < self._took * (1 - SAVING):
            return False
        if self._options.checkpoint_steps is not None:
            return step - (self._began if self.step is None else self.step) >= self._options.checkpoint_steps
        return since >= self._options.checkpoint_seconds

    def saved(self, step: int, seconds: float) -> None:
        """A save of this step is done, and has taken so long."""
        self.step, self._time, self._took = step, perf_counter(), seconds


@dataclass
class _Pending:
    """Steps that were trained and not yet reported."""

    ask: int
    start: int
    since: float
    rows: list[dict[str, float]] = field(default_factory=list)
    notes: dict[str, Scalar] = field(default_factory=dict)
    warning: str = ""
    best: dict[str, float] = field(default_factory=dict)
    """The least loss of a step of this job, by goals whose best value counts."""
    training: bool = False
    """The next step is being trained, so that another thread may report those before."""

    @property
    def step(self) -> int:
        return self.start + len(self.rows)

    def report(
        self, saved: Saved | None = None, done: bool = False, failure: Failure | None = None, ended: bool = False
    ) -> Report:
        """Report the pending steps and reset."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        metrics = {name: [row.get(name, math.nan) for row in self.rows] for name in names}
        now = perf_counter()
        seconds = now - self.since
        report = Report(
            self.ask, self.start, metrics, seconds, saved, done, failure, self.warning, ended, self.notes
        )  # fmt: skip
        self.start, self.rows, self.since, self.warning, self.notes = self.step, [], now, "", {}
        return report


class Session:
    """Runs jobs of a task, one at a time.

    Args:
        task: the training code.
        options: how.
        send: takes reports while training code runs, so that what it has reported is not lost with its process: those
            of earlier steps, and the last one of a job whose code runs on. That one comes again, as the last one.
    """

    def __init__(self, task: Task[Any], options: Options, send: Callable[[Report], None] | None = None) -> None:
        self.task = task
        self.options = options
        self._send = send
        self._pending: _Pending | None = None
        self._lock = Lock()
        if send is not None:
            Thread(target=self._report_meanwhile, daemon=True).start()
        self.checkpoints = None if options.root is None else Checkpoints(options.root)
        self.stopping = Event()
        """Once set, the running job ends after its present step."""
        self._warned: set[str] = set()  # what people were told by the task, once
        self._warm: dict[int, tuple[int, Any]] = {}  # trial -> (step, state), the longest unused first

    def run(self, job: Job) -> Iterator[Report]:
        """Train, and say how it goes: progress now and then, and a last report that is ``done``."""
        CURRENT.set(job)
        REQUIRED.set(self.options.required)
        self._pending = pending = _Pending(job.ask, job.start, perf_counter())
        try:
            yield from self._train(job, pending)
        except (Exception, SystemExit) as error:
            if pending.step >= job.until:
                pending.rows.pop()  # the last state could not be saved: told in full, the job would count as done
            yield pending.report(done=True, failure=explain(error))
            del error
            _free_memory()

    def close(self) -> None:
        """Give up all states."""
        while self._warm:
            self._close(self._warm.popitem()[1][1])

    def _train(self, job: Job, pending: _Pending) -> Iterator[Report]:
        options, once = self.options, dict(job.once)
        config = dict(job.config) if getattr(self.task, "names", False) else options.values(job.config)
        state = self._begin(job, config, pending)
        pace = Pace(options, pending.step)
        whole = bool(job.fidelities) and getattr(self.task, "whole", False) and not open_ended(job.until)
        if whole:
            pending.start = job.until - 1  # one step of this task is the whole job
        ended = False
        try:
            while pending.step < job.until:
                try:
                    state, metrics = self._step(state, config, pending)
                except EndedError:
                    if not pending.step:
                        raise  # there is nothing to tell
                    ended = True
                    break
                pending.rows.append(row := self._row(metrics, once, state, pending))
                once = {name: row.get(name) for name in once}
                if not all(math.isfinite(row[name]) for name in options.required):
                    self._close(state)
                    yield pending.report(done=True)  # the study will fail the trial for it
                    return
                better = self._is_better(row, pending)
                enough = options.target is not None and options.target.reached_by_step(row.get)
                if enough or self.stopping.is_set() or pending.step == job.until:
                    break
                saved = self._offered(job.trial, state)
                if saved is None and (better or pace.due(pending.step)):
                    saved = self._save(job.trial, pending.step, state, pace)
                due = perf_counter() - pending.since >= options.report_seconds
                endless = pending.step == ENDLESS and open_ended(job.until)
                if saved is not None or due or endless:
                    yield pending.report(saved)
                    pending.since = perf_counter()
            saved = None if pace.step == pending.step else self._save(job.trial, pending.step, state, pace)
            saved = saved or self._offered(job.trial, state)
        except BaseException:
            self._close(state)
            raise
        ended = ended or ((not job.final or pending.step < job.until) and not whole and self._over(state))
        complete = ended or pending.step >= job.until
        if complete and (ended or job.final):
            self._finish(state, pending, saved, ended)
        elif self._lasts(state):
            self._keep_warm(job.trial, pending.step, state)
        else:
            self._close(state)
        yield pending.report(saved, done=True, failure=None if complete else INTERRUPTED, ended=ended)

    def _step(self, state: Any, config: dict[str, Any], pending: _Pending) -> tuple[Any, Any]:
        """One step of training."""
        pending.training = True
        try:
            return self.task.step(state, config)
        finally:
            with self._lock:
                pending.training = False

    def _report_meanwhile(self) -> None:
        """In a thread of its own: report steps that were trained while the next one takes its time."""
        assert self._send is not None
        while True:
            sleep(max(_LEAST, self.options.report_seconds))
            with self._lock:
                pending = self._pending
                if pending is None or not pending.training or not pending.rows:
                    continue
                if perf_counter() - pending.since >= self.options.report_seconds:
                    self._send(pending.report())

    def _offered(self, trial: int, state: Any) -> Saved | None:
        """A state that the training code has saved by itself, as a checkpoint."""
        offer = getattr(self.task, "offer", None)
        offered = None if offer is None or self.checkpoints is None else offer(state)
        return None if offered is None else self.checkpoints.save(trial, *offered)  # type: ignore[union-attr]

    def _over(self, state: Any) -> bool:
        """Whether the training has come to its end with its last step."""
        over = getattr(self.task, "over", None)
        return over is not None and bool(over(state))

    def _lasts(self, state: Any) -> bool:
        """Whether another job can train this state further."""
        lasts = getattr(self.task, "lasts", None)
        return lasts is None or bool(lasts(state))

    def _is_better(self, row: Mapping[str, float], pending: _Pending) -> bool:
        """Whether a step is the best one of the job so far by a goal whose best value counts."""
        losses = {goal.metric: goal.loss(row[goal.metric]) for goal in self.options.best}
        better = {name: loss for name, loss in losses.items() if loss < pending.best.get(name, math.inf)}
        pending.best |= better
        return bool(better)

    def _row(self, metrics: Any, once: dict[str, float | None], state: Any, pending: _Pending) -> dict[str, float]:
        """The numbers of a step; what else stands among them is a note."""
        numbers, texts = without_others(metrics, self.options.required)
        pending.notes |= texts | self._notes(state)
        return as_metrics(numbers, self.options.required, once)

    def _notes(self, state: Any) -> dict[str, Scalar]:
        """What the training code wants to be remembered."""
        notes = getattr(self.task, "notes", None)
        return {} if notes is None else dict(notes(state))

    def _warn(self, state: Any, pending: _Pending) -> None:
        """What the task has to say to people at the end of a training, once."""
        warning = getattr(self.task, "warning", None)
        text = "" if warning is None else warning(state)
        if text and text not in self._warned:
            self._warned.add(text)
            pending.warning += f"{text}\n"

    def _finish(self, state: Any, pending: _Pending, saved: Saved | None, ended: bool) -> None:
        """The trial has come to its end: let its code do what it does after its last step, and give the state up."""
        try:
            finish = getattr(self.task, "finish", None)
            if finish is not None:
                if self._send is not None:
                    self._send(replace(copy(pending).report(saved, done=True, ended=ended), ahead=True))
                finish(state)
            pending.notes |= self._notes(state)
            self._warn(state, pending)
            self._close(state)
        except (Exception, SystemExit) as error:
            pending.warning += f"trial {current_job().trial} is complete, but its code failed after the last step:\n"
            pending.warning += explain(error).error + "\n"

    def _begin(self, job: Job, config: dict[str, Any], pending: _Pending) -> Any:
        """The state to go on from, as near to the start of the job as there is one: that of step 0 where there is none.

        Only a fork of a trial that has saved nothing can't begin: its weights are those of the other trial.
        """
        step, state = self._warm.pop(job.trial, (-1, None))
        if step == job.start:
            return state
        if step >= 0:
            self._close(state)
        lost: list[str] = []
        for source in job.sources if self.checkpoints is not None else ():
            CURRENT.set(job._replace(start=source.step))
            try:
                state = self.task.load(self.checkpoints.load(source.where, source.digest), config)  # type: ignore[union-attr]
            except CheckpointError as error:
                lost.append(str(error))
            except ContinueError as error:
                if job.forked:
                    raise
                lost.append(str(error))
                break
            else:
                pending.start = source.step
                if lost:
                    pending.warning += f"{'; '.join(lost)}; going on from an earlier state\n"
                return state
        if job.forked and not job.sources:
            raise ContinueError(
                f"trial {job.trial} is a copy of trial {job.parent} and should go on from its state at step "
                f"{job.forked}, but this training code saves no state: {SAVES}; then begin a new study"
            )
        if lost:
            pending.warning += f"trial {job.trial} begins again at step 0: {'; '.join(lost)}\n"
        pending.start = 0
        CURRENT.set(job._replace(start=0))
        return self.task.init(config, stream(job.seed, "train"))

    def _save(self, trial: int, step: int, state: Any, pace: Pace) -> Saved | None:
        if self.checkpoints is None:
            return None
        begun = perf_counter()
        tree = self.task.save(state)
        saved = None if tree is None else self.checkpoints.save(trial, step, tree)
        if saved is not None:
            pace.saved(step, perf_counter() - begun)
        return saved

    def _keep_warm(self, trial: int, step: int, state: Any) -> None:
        self._warm[trial] = (step, state)
        while len(self._warm) > self.options.warm:
            self._close(self._warm.pop(next(iter(self._warm)))[1])

    def _close(self, state: Any) -> None:
        close = getattr(self.task, "close", None)
        if close is not None:
            close(state)


def explain(error: BaseException) -> Failure:
    """A failure with a traceback of the user's frames only; a message alone where there are none."""
    failure = _explained(error)
    return replace(failure, error=shortened(failure.error))


def _explained(error: BaseException) -> Failure:
    if isinstance(error, CheckpointError | OptionError):
        return Failure(str(error), "lost", fatal=True)
    if isinstance(error, ContinueError):
        return Failure(str(error), fatal=True)
    if isinstance(error, CrashedError):
        return Failure(str(error), "crashed")
    if isinstance(error, EndedError | TunesmithError):
        return Failure(str(error))
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    if isinstance(error, KeyError) and frames is None:
        return Failure(str(error.args[0]))
    text = "".join(traceback.format_exception(type(error), error, frames, limit=-_FRAMES)).rstrip()
    full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "RESOURCE_EXHAUSTED" in text
    full = full or "can't allocate memory" in text  # PyTorch on a processor
    return Failure(text, "out-of-memory" if full else "raised")


def _free_memory() -> None:
    """Give the memory of a failed training back to the device."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
