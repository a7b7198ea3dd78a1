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
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from tunesmith.execution.base import ExecutionError, Executor, Failure, Report, Target
from tunesmith.execution.checkpoints import Checkpoints
from tunesmith.execution.leases import Lease
from tunesmith.records import RETRIED
from tunesmith.study import Job, Study
from tunesmith.trials import Checkpoint, Trial

Outcome = Literal["done", "interrupted", "seconds", "target"]

log = logging.getLogger("tunesmith")

_POLL = (0.02, 0.5)  # seconds between two looks at what other drivers did: the first, and at most
_LEASES = 1.0  # seconds between two looks at the leases of others
_PATIENT = 10.0  # seconds of waiting for others after which this is said
_PROGRESS = 0.1  # seconds between two calls of `progress`
_SPARE = 16  # checkpoints on disk beyond twice those that were kept last time, before the next sweep


def drive(
    study: Study,
    executor: Executor,
    *,
    checkpoints: Checkpoints | None = None,
    seconds: float | None = None,
    max_failures: int | None = None,
    progress: Callable[[Study], object] | None = None,
    lease: float = 60.0,
    target: Target | None = None,
) -> Outcome:
    """Work on a study until it is done. Several drivers may work on one study.

    Ctrl-C or SIGTERM lets the running jobs save their state after their present step and ends the run; the study goes
    on exactly there when it is driven again. A second one ends it at once. The executor is closed in any case.

    Args:
        study: what to work on.
        executor: where jobs run.
        checkpoints: where the executor saves states; those that no job may need any more are removed.
        seconds: end the run after so long, as Ctrl-C does.
        max_failures: give up after so many failed trials in a row. By default 10 more than there are slots as long as
            no trial of this run has succeeded, later 100.
        progress: called with the study now and then, and at the end.
        lease: a driver on another machine that has not been heard of for so many seconds has vanished.
        target: end the run, as Ctrl-C does, when the latest values of a trial reach it.

    Returns:
        Why the run has ended.

    Raises:
        ExecutionError: too many trials have failed, or no state can be saved.
    """
    path = getattr(study.store, "path", None)
    held = Lease(None if path is None else Path(f"{path}.leases"), lease)
    driver = _Driver(study, executor, checkpoints, held, max_failures, progress)
    driver.until = None if seconds is None else time.monotonic() + seconds
    driver.target = target
    try:
        with held, _signals(driver):
            try:
                return driver.run()
            except Exception:
                with suppress(Exception):
                    driver.flush()
                raise
            finally:
                driver.end()
    finally:
        executor.close()


class _Driver:
    """The state of one run."""

    def __init__(
        self,
        study: Study,
        executor: Executor,
        checkpoints: Checkpoints | None,
        lease: Lease,
        max_failures: int | None,
        progress: Callable[[Study], object] | None,
    ) -> None:
        self.study = study
        self.executor = executor
        self.lease = lease
        self.progress = progress
        self.failures = _Failures(max_failures, executor.slots)
        self.retention = _Retention(study, checkpoints)
        self.out: dict[int, Job] = {}
        self.until: float | None = None
        self.target: Target | None = None
        self.stopped: Outcome | None = None
        self._pause = _POLL[0]
        self._look = 0.0
        self._shared = False
        self._patient: float | None = None
        self._shown = 0.0

    def run(self) -> Outcome:
        """Until the study is done, or the run is stopped and no job is out."""
        while True:
            self._limit_time()
            self._take_over()
            self._share()
            asked = self._ask() if self.stopped is None else []
            for job in asked:
                self.executor.submit(job)
            if not self.out and self.stopped is not None:
                self.flush()
                return self.stopped
            if not self.out and not self.study.trials.running:
                self.failures.check_end(self.study)
                self.flush()
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
        with suppress(Exception), self.study.batch():
            for job in self.out.values():
                self.study.fail(job, "the driver ended", "lost")
        self._show(0.0)
        self.failures.summary()

    def flush(self) -> None:
        """Have the states written that are in memory alone and may still be needed."""
        with self.study.batch():
            for ask, trial, saved in self.executor.flush(self.study.needed()):
                self.study.written(ask, Checkpoint(trial, saved.step, saved.where, saved.digest))
                self.retention.written += 1

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
        with self.study.batch():
            for report in reports:
                self._tell_one(report)
        for report in reports:
            if report.note:
                log.warning("%s", report.note.rstrip())
            if not report.done:
                continue
            job = self.out.pop(report.ask)
            if report.failure is not None and report.failure.fatal and not self._saves(report.failure):
                raise ExecutionError(report.failure.error)
            trial = self.study.trials[job.trial]
            if trial.status == "failed" or report.failure is None:
                self.failures.count(trial.status == "failed", trial.error)
        self._aim(self.study.trials[number] for number in told)
        self.retention.sweep(self.out)

    def _aim(self, trials: Iterable[Trial]) -> None:
        """End the run if one of the trials has reached the target."""
        target = self.target
        if target is not None and any(trial.status != "failed" and target.reached(trial.last) for trial in trials):
            self.stop("target")

    def _saves(self, failure: Failure) -> bool:
        """Whether only this trial has no state to go on from: then it alone fails."""
        return failure.kind not in RETRIED and any(trial.checkpoints for trial in self.study.trials)

    def _tell_one(self, report: Report) -> None:
        job, saved, failure = self.out[report.ask], report.saved, report.failure
        count = max(map(len, report.metrics.values()), default=0)
        if count:
            checkpoint = Checkpoint(job.trial, saved.step, saved.where, saved.digest) if saved else None
            self.retention.written += checkpoint is not None
            step = report.start + count
            self.study.tell(job, report.metrics, step=step, seconds=report.seconds, checkpoint=checkpoint)
        if failure is not None:
            self.study.fail(job, failure.error, failure.kind)

    def _take_over(self) -> None:
        """Give up the jobs of drivers that have vanished, and see what others have reached."""
        now = time.monotonic()
        if now < self._look:
            return
        self._look = now + _LEASES
        self.study.sync()
        self._aim(self.study.trials)
        gone = {
            worker
            for worker in {trial.worker for trial in self.study.trials.running.values()}
            if self.lease.vanished(worker)
        }
        for job in self.study.running if gone else ():
            if job.worker in gone:
                self.study.fail(job, f"the driver {job.worker} vanished", "lost")

    def _wait_for_others(self) -> None:
        if self._patient is None:
            self._patient = time.monotonic() + _PATIENT
        elif time.monotonic() > self._patient:
            self._patient = math.inf
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


class _Failures:
    """Failed trials: each error is logged once and counted, and too many in a row end the run."""

    def __init__(self, limit: int | None, slots: int) -> None:
        self.limit = limit
        self.slots = slots
        self.errors: Counter[str] = Counter()
        self.succeeded = False
        self.row = 0

    def count(self, failed: bool, error: str) -> None:
        """A job has ended.

        Raises:
            ExecutionError: this was one failure too many.
        """
        if not failed:
            self.succeeded, self.row = True, 0
            return
        self.row += 1
        self.errors[error] += 1
        if self.errors[error] == 1:
            log.warning("a trial has failed:\n%s", error)
        limit = self.limit if self.limit is not None else 100 if self.succeeded else 10 + self.slots
        if self.row >= limit:
            (first, times), *_ = self.errors.items()
            raise ExecutionError(
                f"{self.row} trials in a row have failed, so the run ends; the first error ({times} times):\n{first}"
            )

    def check_end(self, study: Study) -> None:
        """The study is done.

        Raises:
            ExecutionError: every trial has failed.
        """
        if self.errors and all(trial.status == "failed" for trial in study.trials):
            (first, times), *_ = self.errors.items()
            raise ExecutionError(
                f"all {len(study.trials)} trials of the study have failed; the first error ({times} times):\n{first}"
            )

    def summary(self) -> None:
        """Say how often the logged errors have come again."""
        for error, times in self.errors.items():
            if times > 1:
                log.warning("%d trials have failed with: %s", times, _headline(error))


def _headline(error: str) -> str:
    """The line of a traceback that names the exception, whatever notes follow it; of another text the last line."""
    lines = error.splitlines() or [""]
    return next((line for line in reversed(lines) if re.match(r"[\w.]*[A-Z]\w*(: |$)", line)), lines[-1])


class _Retention:
    """Removes checkpoints now and then, so that the disk holds at most about twice what is needed."""

    def __init__(self, study: Study, checkpoints: Checkpoints | None) -> None:
        self.study = study
        self.checkpoints = checkpoints
        self.written = 0  # checkpoints on disk, as far as this driver knows
        self.kept = -_SPARE  # the first one is followed by a sweep: there may be leftovers of earlier runs

    def sweep(self, out: dict[int, Job]) -> None:
        """Remove what no job may need any more, if much has been written since the last time."""
        if self.checkpoints is None or self.written <= 2 * self.kept + _SPARE:
            return
        found = self.checkpoints.files()
        self.study.sync()  # after looking: what was saved since then is not in question
        running = self.study.trials.running
        newest = {id: trial.checkpoints[-1].step if trial.checkpoints else -1 for id, trial in running.items()}
        keep = self.study.keep()
        keep.update((source.trial, source.step) for job in out.values() for source in job.sources)
        keep.update((trial, step) for trial, step in found if step > newest.get(trial, step))  # saved, but not yet told
        self.written = self.kept = self.checkpoints.sweep(keep, among=found)


@contextmanager
def _signals(driver: _Driver) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the driver; a second one ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if driver.stopped == "interrupted":
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        driver.stop("interrupted")
        driver.stopped = "interrupted"
        log.warning("stopping after the present step; once more ends at once")

    previous: dict[int, Any] = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
