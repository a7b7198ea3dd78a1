"""The one loop: asks a study for jobs while a slot is free, has them run, and tells what came out."""

from __future__ import annotations

import logging
import math
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from tunesmith.checkpoints import Checkpoints, Saved
from tunesmith.errors import printable, shortened
from tunesmith.execution.base import ENDLESS, SAVES, ExecutionError, Executor, Failure, Report, Target
from tunesmith.execution.leases import Lease
from tunesmith.records import RETRIED, TO_THE_END, AnyEvent
from tunesmith.storage.base import LostError, StoreError, open_store
from tunesmith.study import Batch, Job, Study
from tunesmith.trials import Checkpoint, Trial

Outcome = Literal["done", "interrupted", "seconds", "target", "stopped"]
Callback = Callable[[Study, Trial], object]

log = logging.getLogger("tunesmith")

_POLL = (0.02, 0.5)  # seconds between two looks at what other drivers did: the first, and at most
_LEASES = 1.0  # seconds between two looks at the file of the study and at the leases of others
_PATIENT = 10.0  # seconds of waiting for others after which this is said
_PROGRESS = 0.1  # seconds between two calls of `progress`
_SPARE = 16  # checkpoints that may be written beyond those that were kept last time, before the next sweep
_SPARE_BYTES = 64 * 2**20  # the same in bytes
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HEADLINE = 500  # characters of a headline
_RESTARTS = 3  # so many trials that begin again at step 0 are named, the others counted


def drive(
    study: Study,
    executor: Executor,
    *,
    checkpoints: Checkpoints | None = None,
    seconds: float | None = None,
    max_failures: int | None = None,
    progress: Callable[[Study], object] | None = None,
    callback: Callback | None = None,
    lease: float = 60.0,
    target: Target | None = None,
) -> Outcome:
    """Work on a study until it is done. Several drivers may work on one study.

    Ctrl-C, SIGTERM or SIGHUP lets the running jobs save their state after their present step and ends the run; the
    study goes on exactly there when it is driven again. A second one ends it at once. The executor is closed in any
    case.

    Args:
        study: what to work on.
        executor: where jobs run.
        checkpoints: where the executor saves states; those that no job may need any more are removed.
        seconds: end the run after so long, as Ctrl-C does.
        max_failures: give up after so many failed trials in a row. By default 10 more than there are slots as long as
            no trial of this run has succeeded, later 100.
        progress: called with the study now and then, and at the end.
        callback: called with the study and each trial that has come to its end, in success or failure.
            ``study.stop()`` in it ends the run.
        lease: a driver on another machine that has not been heard of for so many seconds has vanished.
        target: end the run, as Ctrl-C does, when the value of a trial reaches it.

    Returns:
        Why the run has ended.

    Raises:
        ExecutionError: too many trials have failed, none can be started, or no state can be saved.
        StoreError: the store can't be used any more. If its file was deleted or replaced, all that the study has is
            written into a new one beside it, which the message names.
    """
    study.outcome = ""
    path = getattr(study.store, "path", None)
    held = Lease(None if path is None else Path(f"{path}.leases"), lease)
    until = None if seconds is None else time.monotonic() + seconds
    retention = _Retention(study, checkpoints)
    driver = _Driver(study, executor, retention, held, max_failures, progress, callback, until, target)
    try:
        with held, _signals(driver):
            try:
                study.remember_limit()
                study.outcome = driver.run()
                return study.outcome
            except Exception:
                with suppress(Exception):
                    driver.flush()
                raise
            finally:
                driver.end()
    except StoreError as error:
        raise _rescued(study, driver.unwritten, error) from error
    finally:
        executor.close()


def _rescued(study: Study, unwritten: list[AnyEvent], error: StoreError) -> StoreError:
    """What to raise for an error of the store: where its file was lost, what it held is saved before.

    Args:
        study: what was worked on.
        unwritten: events that the store has perhaps not taken any more.
        error: of the store.
    """
    check, rescue = (getattr(study.store, method, None) for method in ("check", "rescue"))
    if check is None or rescue is None:
        return error
    try:
        check()
        return error
    except LostError as lost:
        what = lost.what
    try:
        study.sync()  # the file that is open can still be read
        path = rescue()
        with closing(open_store(path, study.name)) as rescued:
            if unwritten and unwritten[0] not in rescued.read():
                rescued.append(unwritten)
    except StoreError as failure:
        return StoreError(f"{what}; what it had could not be saved: {failure}")
    return StoreError(f"{what}; all that it had is in {path} now: move that to where it was, and go on")


class _Driver:
    """The state of one run."""

    def __init__(
        self,
        study: Study,
        executor: Executor,
        retention: _Retention,
        lease: Lease,
        max_failures: int | None,
        progress: Callable[[Study], object] | None,
        callback: Callback | None,
        until: float | None,
        target: Target | None,
    ) -> None:
        self.study = study
        self.executor = executor
        self.retention = retention
        self.lease = lease
        self.failures = _Failures(max_failures, executor.slots)
        self.restarts = _Restarts()
        self.progress, self.callback = progress, callback
        self.until, self.target = until, target
        self.out: dict[int, Job] = {}
        self.stopped: Outcome | None = None
        self.unwritten: list[AnyEvent] = []
        """What is being written to the log."""
        self._pause = _POLL[0]
        self._next_look = 0.0
        self._shared = False
        self._warn_waiting_at: float | None = None
        self._warned_endless = False
        self._shown = 0.0

    def run(self) -> Outcome:
        """Until the study is done, or the run is stopped and no job is out."""
        while True:
            self._limit_time()
            self._look_at_others()
            self._share()
            if self.study.stopped:
                self.stop("stopped")
            asked = self._ask() if self.stopped is None else []
            for job in asked:
                self.executor.submit(job)
            if not self.out and self.stopped is not None:
                self.flush()
                self._check_store()
                return self.stopped
            if not self.out and not self.study.trials.running:
                self.flush()
                self._check_store()
                self.failures.check_end(self.study)
                return "done"
            reports = self.executor.wait(self._patience())
            if reports:
                self._tell(reports)
            elif not self.out:
                self._wait_for_others()
            self._pause = _POLL[0] if asked or reports else min(self._pause * 1.5, _POLL[1])
            self._show(_PROGRESS)

    def stop(self, why: Outcome) -> None:
        """Ask for nothing more, and let running jobs come to an end."""
        if self.stopped is None:
            self.stopped = why
            self.executor.interrupt()

    def end(self) -> None:
        """Give up the jobs that are still out, so that anyone can go on with them."""
        with suppress(Exception), self.study.batch() as batch:
            for job in self.out.values():
                batch.fail(job, "the driver ended", "lost")
        with suppress(Exception):
            self.retention.sweep({})
        self._show(0.0)
        self.failures.summary()
        self.restarts.summary()

    def flush(self) -> None:
        """Have the states written that are in memory alone and may still be needed."""
        with self.study.batch() as batch:
            for ask, trial, saved in self.executor.flush(self.study.needed()):
                batch.written(ask, Checkpoint(trial, saved.step, saved.where, saved.digest))
                self.retention.note(saved)

    def _share(self) -> None:
        """When others come to work on the study, they need what is in memory here."""
        if not self._shared and (self.lease.others() or self._others()):
            self._shared = True
            self.executor.share()
            self.flush()

    def _others(self) -> bool:
        return any(trial.worker != self.lease.id for trial in self.study.trials.running.values())

    def _ask(self) -> list[Job]:
        free = self.executor.free
        jobs = self.study.ask(free, worker=self.lease.id) if free else []
        self.out.update((job.ask, job) for job in jobs)
        return jobs

    def _patience(self) -> float:
        """Seconds to wait for reports: short where a slot is free and other drivers' news may fill it."""
        return self._pause if self.executor.free and self.stopped is None else _POLL[1]

    def _tell(self, reports: list[Report]) -> None:
        """Everything that came in, as one transaction."""
        told = {self.out[report.ask].trial for report in reports}
        with self.study.batch() as batch:
            self.unwritten = batch.events
            for report in reports:
                self._tell_one(report, batch)
        self.unwritten = []
        for report in reports:
            self.restarts.say(self.out[report.ask], report)
            if report.done:
                self._end_job(report)
        trials = [self.study.trials[number] for number in told]
        self._check_target(trials)
        self._warn_if_endless(trials)
        self.retention.sweep_if_due(self.out)

    def _end_job(self, report: Report) -> None:
        """A job is over: count it, and say so."""
        job = self.out.pop(report.ask)
        if report.failure is not None and report.failure.fatal and not self._saves(report.failure):
            raise ExecutionError(report.failure.error)
        trial = self.study.trials[job.trial]
        if trial.status == "failed" or report.failure is None:
            self.failures.count(trial)
        if self.callback is not None and trial.status in ("complete", "failed"):
            self.callback(self.study, trial)

    def _check_target(self, trials: Iterable[Trial]) -> None:
        """End the run if one of the trials has reached the target."""
        target = self.target
        if target is None:
            return
        for trial in trials:
            if trial.status != "failed" and target.reached(trial.value(target.goal), trial.last):
                self.stop("target")

    def _warn_if_endless(self, trials: Iterable[Trial]) -> None:
        """Say that a training may never end, where nothing but its own end would end it."""
        if self._warned_endless or self.study.trials.horizon != TO_THE_END:
            return
        for trial in trials:
            if trial.id == 0 and not trial.ended and trial.step >= ENDLESS:
                self._warned_endless = True
                log.warning(
                    "trial 0 has reported %d times and has not ended: without a limit it goes on until its code ends "
                    "by itself; if that never happens, say how long trials are with steps=...", trial.step
                )  # fmt: skip

    def _saves(self, failure: Failure) -> bool:
        """Whether only this trial has no state to go on from: then it alone fails."""
        return failure.kind not in RETRIED and any(trial.checkpoints for trial in self.study.trials)

    def _tell_one(self, report: Report, batch: Batch) -> None:
        job, saved, failure = self.out[report.ask], report.saved, report.failure
        count = max(map(len, report.metrics.values()), default=0)
        checkpoint = Checkpoint(job.trial, saved.step, saved.where, saved.digest) if saved else None
        if saved is not None:
            self.retention.note(saved)
        if count:
            step, seconds = report.start + count, report.seconds
            batch.tell(job, report.metrics, step=step, seconds=seconds, checkpoint=checkpoint, ended=report.ended)
        elif report.ended:
            batch.tell(job, seconds=report.seconds, checkpoint=checkpoint, ended=True)
        if report.notes:
            batch.note(job, report.notes)
        if failure is not None:
            batch.fail(job, failure.error, failure.kind, seconds=0.0 if count else report.seconds)

    def _check_store(self) -> None:
        """Raise StoreError if the file of the study is not where it was: what is written there now is lost."""
        check = getattr(self.study.store, "check", None)
        if check is not None:
            check()

    def _look_at_others(self) -> None:
        """Give up the jobs of drivers that have vanished, and see what others have reached."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LEASES
        self._check_store()
        self.study.sync()
        self._check_target(self.study.trials if self.target is not None else ())
        gone = {
            worker
            for worker in {trial.worker for trial in self.study.trials.running.values()}
            if self.lease.vanished(worker)
        }
        if not gone:
            return
        with self.study.batch() as batch:
            for job in self.study.running:
                if job.worker in gone:
                    batch.fail(job, f"the driver {job.worker} vanished", "lost")

    def _wait_for_others(self) -> None:
        if self._warn_waiting_at is None:
            self._warn_waiting_at = time.monotonic() + _PATIENT
        elif time.monotonic() > self._warn_waiting_at:
            self._warn_waiting_at = math.inf
            ids = ", ".join(map(str, self.study.trials.running))
            log.warning(
                "waiting for jobs that others have asked for: trials %s; study.fail(job, ..., 'lost') frees them", ids
            )
        time.sleep(self._pause)

    def _limit_time(self) -> None:
        if self.until is not None and time.monotonic() > self.until:
            self.stop("seconds")

    def _show(self, every: float) -> None:
        now = time.monotonic()
        if self.progress is not None and now - self._shown >= every:
            self.progress(self.study)
            self._shown = now


class _Restarts:
    """Says what reports warn of, and which trials begin again at step 0 as there is no state to go on from."""

    def __init__(self) -> None:
        self.asks: set[int] = set()
        """Jobs that were to go on from a later step and have begun at step 0."""
        self.saves_nothing = False
        self.said: set[str] = set()
        """Warnings that were shown."""

    def say(self, job: Job, report: Report) -> None:
        """A report has come in."""
        again = job.ask not in self.asks and bool(report.metrics) and report.start == 0 < job.start
        if again:
            self.asks.add(job.ask)
        warning = report.warning
        if again and job.sources and len(self.asks) > _RESTARTS:
            warning = warning.partition("\n")[2]  # the first line says that it begins again
        if warning and warning not in self.said:
            self.said.add(warning)
            log.warning("%s", printable(warning.rstrip()))
        if again and not job.sources and not self.saves_nothing:
            self.saves_nothing = True
            log.warning(
                "trial %d stood at step %d and begins again at step 0: this training code saves no state, so only what "
                "is in the memory of its worker can go on; to save states, %s", job.trial, job.start, SAVES,
            )  # fmt: skip

    def summary(self) -> None:
        """Say how many there were, where not all were named."""
        times = len(self.asks)
        if times > 1:
            log.warning("%d times a trial has begun again at step 0, as there was no state to go on from", times)


class _Failures:
    """Failed trials: each error is logged once and counted, and too many in a row end the run."""

    def __init__(self, limit: int | None, slots: int) -> None:
        self.limit = limit
        self.slots = slots
        self.errors: Counter[str] = Counter()
        self.succeeded = False
        self.row = 0
        self.forks: Counter[str] = Counter()
        """Forks that have failed since the last one that has not, by the headline of their error."""

    def count(self, trial: Trial) -> None:
        """A job has ended.

        Raises:
            ExecutionError: this was one failure too many.
        """
        if trial.status != "failed":
            self.succeeded, self.row = True, 0
            if trial.parent is not None:
                self.forks.clear()
            return
        self.row += 1
        error = printable(trial.error)
        self.errors[error] += 1
        if self.errors[error] == 1:
            log.warning("a trial has failed:\n%s", error)
        limit = self.limit if self.limit is not None else 100 if self.succeeded else 10 + self.slots
        if self.row >= limit:
            (first, times), *_ = self.errors.items()
            raise ExecutionError(
                f"{self.row} trials in a row have failed, so the run ends; the first error ({times} times):\n{first}"
            )
        if trial.parent is not None:
            self._count_fork(trial)

    def _count_fork(self, trial: Trial) -> None:
        """A population whose forks all fail for one reason only wastes time, however well its first members train."""
        reason = headline(printable(trial.error))
        self.forks[reason] += 1
        if len(self.forks) == 1 and self.forks[reason] >= 10 + self.slots and self.limit is None:
            raise ExecutionError(f"{self.forks[reason]} forks in a row have failed for one reason: {reason}")

    def check_end(self, study: Study) -> None:
        """The study is done.

        Raises:
            ExecutionError: every trial has failed, or none could be started.
        """
        if study.barred and not study.trials:
            raise ExecutionError(f"no trial can be started: {study.message}")
        if not self.errors:
            return
        (first, times), *_ = self.errors.items()
        if all(trial.status == "failed" for trial in study.trials):
            raise ExecutionError(
                f"all {len(study.trials)} trials of the study have failed; the first error ({times} times):\n{first}"
            )
        if study.message:
            log.warning("%s; the first error (%d times): %s", printable(study.message), times, headline(first))

    def summary(self) -> None:
        """Say how often the logged errors have come again."""
        for error, times in self.errors.items():
            if times > 1:
                log.warning("%d trials have failed with: %s", times, headline(error))


def headline(error: str) -> str:
    """The line of a traceback that names the exception, whatever notes follow it; of another text the last line."""
    lines = error.splitlines() or [""]
    found = next((line for line in reversed(lines) if re.match(r"[\w.]*[A-Z]\w*(: |$)", line)), lines[-1])
    return shortened(found, _HEADLINE)


class _Retention:
    """Removes checkpoints now and then, so that the disk holds at most about half as much more than what is needed."""

    def __init__(self, study: Study, checkpoints: Checkpoints | None) -> None:
        self.study = study
        self.checkpoints = checkpoints
        self.written = self.written_bytes = 0  # since the last sweep
        self.kept = -_SPARE  # the first one is followed by a sweep: there may be leftovers of earlier runs
        self.kept_bytes = 0

    def note(self, saved: Saved) -> None:
        """A checkpoint was written."""
        self.written += 1
        self.written_bytes += saved.size

    def sweep_if_due(self, out: dict[int, Job]) -> None:
        """Remove what no job may need any more, if much has been written since the last time."""
        many = self.written > self.kept + _SPARE
        large = self.written_bytes > max(_SPARE_BYTES, self.kept_bytes / 2)
        if many or large:
            self.sweep(out)

    def sweep(self, out: dict[int, Job]) -> None:
        """Remove what no job may need any more; ``out`` are the jobs of this driver."""
        if self.checkpoints is None or not self.written:
            return
        found = self.checkpoints.files()
        self.study.sync()  # after looking: what was saved since then is not in question
        running = self.study.trials.running
        newest = {id: trial.checkpoints[-1].step if trial.checkpoints else -1 for id, trial in running.items()}
        keep = self.study.keep()
        keep.update((source.trial, source.step) for job in out.values() for source in job.sources)
        keep.update((trial, step) for trial, step in found if step > newest.get(trial, step))  # saved, but not yet told
        self.kept, self.kept_bytes = self.checkpoints.sweep(keep, among=found), self.checkpoints.size()
        self.written = self.written_bytes = 0


@contextmanager
def _signals(driver: _Driver) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP stop the driver; a second one ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if driver.stopped == "interrupted":
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        driver.stop("interrupted")
        driver.stopped = "interrupted"
        log.warning("stopping after the present step; once more ends at once")

    previous: dict[int, Any] = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
