"""Local worker processes: isolated, warm between jobs, each tied to a device."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from tunesmith import temporary
from tunesmith.execution.adapters import as_task
from tunesmith.execution.base import ExecutionError, Executor, Failure, Report
from tunesmith.execution.devices import LOOK, Device, check, parse
from tunesmith.execution.session import Options
from tunesmith.execution.worker import MARK, READY, Broken, Setup, refuse_in_worker

if TYPE_CHECKING:
    from tunesmith.study import Job

_GOODBYE = 5.0  # seconds that an idle worker has to end by itself
_STARTS = 3  # so many workers in a row may die while they start, until the run ends
_LOOK = 0.5  # a worker whose children hold its pipe open is found dead within these seconds


class _Worker:
    """A process, the pipe to it, the job it has: since when, how many seconds of it were told, and its last report, if
    its code runs on after the last step.
    """

    def __init__(self, environment: dict[str, str], warm: int) -> None:
        ours, theirs = connection.Pipe()
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        code = f"import sys; sys.path[:] = {sys.path!r}; from tunesmith.execution.worker import main; "
        self.process = subprocess.Popen(
            [sys.executable, *flags, "-c", f"{code}main({theirs.fileno()})"],
            env=os.environ | environment | {MARK: "1"},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            process_group=0,
        )
        theirs.close()
        self.connection = ours
        self.environment = environment
        self.warm: deque[int] = deque(maxlen=warm)
        self.job: Job | None = None
        self.since = monotonic()
        self.told = 0.0
        self.last: Report | None = None
        self.ready = False

    def send(self, message: Any) -> None:
        """Send; if the worker has just died, ``wait`` will see it."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def give(self, job: Job) -> None:
        self.job, self.since, self.told, self.last = job, monotonic(), 0.0, None
        self.send(job)

    def kill(self) -> int:
        """End the process and everything it has started. Returns its exit status."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.connection.close()
        return self.process.wait()


class Processes(Executor):
    """Runs jobs in worker processes. A crash, a kill or a hang ends one job; the worker is replaced.

    Args:
        train: training code, as for :func:`tunesmith.execution.adapters.as_task`.
        options: how the workers' sessions work.
        workers: number of processes, where no devices are given.
        devices: see :func:`tunesmith.execution.devices.parse`.
        time_limit: seconds that a job may take; then it fails with kind ``timeout``.

    Raises:
        ExecutionError: ``train`` can't be sent to another process, or this process is itself a worker.
        ValueError: a device is none, is given away more than once, or is not there.
    """

    def __init__(
        self,
        train: Any,
        options: Options,
        *,
        workers: int = 1,
        devices: Device | Sequence[Device] | None = None,
        time_limit: float | None = None,
    ) -> None:
        refuse_in_worker()
        as_task(train)  # says now what is wrong with it
        slots = parse(devices, workers)
        certain = check(slots)
        code, code_in_script = _pickled(train)
        space, space_in_script = _pickled(options.space and options.space.unconstrained())
        preparation = _preparation() if code_in_script or space_in_script else None
        self._setup = Setup(preparation, code, replace(options, space=None), space)
        self._time_limit = time_limit
        self._false_starts = 0
        self._stop = False
        self._told_to_stop = False
        environments = [slot.environment(len(slots)) for slot in slots]
        for slot, environment in zip(slots, environments, strict=True):
            if slot.gpu and not certain:
                environment[LOOK] = slot.name
        self._workers = [_Worker(environment, options.warm) for environment in environments]
        for worker in self._workers:
            worker.send(self._setup)

    @property
    def slots(self) -> int:
        """The number of workers."""
        return len(self._workers)

    @property
    def free(self) -> int:
        """Workers without a job."""
        return sum(worker.job is None for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Give a job to a free worker, if possible to one that has the trial warm."""
        free = [worker for worker in self._workers if worker.job is None]
        worker = max(free, key=lambda worker: (job.trial in worker.warm, worker.ready))
        if worker.process.poll() is not None and worker.ready:
            worker = self._replace(worker)
        worker.give(job)

    def wait(self, timeout: float) -> list[Report]:
        """The reports that have come in; waits for the first one at most ``timeout`` seconds.

        Raises:
            ExecutionError: a worker can't start.
        """
        busy = {worker.connection: worker for worker in self._workers if worker.job is not None}
        if self._stop and not self._told_to_stop:
            self._told_to_stop = True
            for worker in busy.values():
                worker.send("stop")
        reports: list[Report] = []
        if busy:
            for ready in connection.wait(list(busy), min(timeout, _LOOK)):
                reports += self._receive(busy[ready])  # type: ignore[index]
        for worker in list(self._workers):
            reports += self._check(worker)
        return reports

    def interrupt(self) -> None:
        """End the running jobs after their present step."""
        self._stop = True

    def close(self) -> None:
        """Let idle workers end; kill the others."""
        for worker in self._workers:
            if worker.job is None and worker.ready:
                worker.send(None)
        until = monotonic() + _GOODBYE
        for worker in self._workers:
            if worker.job is None and worker.ready:
                with suppress(subprocess.TimeoutExpired):
                    worker.process.wait(max(0.0, until - monotonic()))
            worker.kill()
        self._workers = []
        temporary.sweep()

    def _receive(self, worker: _Worker) -> list[Report]:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._died(worker)
        if isinstance(message, Broken):
            raise ExecutionError(f"a worker process could not start: {message.error}")
        if message == READY:
            worker.ready, worker.since, self._false_starts = True, monotonic(), 0
            return []
        if message.ahead:
            worker.last = message
            return []
        worker.told += message.seconds
        if message.done:
            assert worker.job is not None
            if worker.job.trial not in worker.warm:
                worker.warm.append(worker.job.trial)
            worker.job = None
        return [message]

    def _check(self, worker: _Worker) -> list[Report]:
        """Whether a worker has died although its pipe is open, or has taken too long."""
        if worker.job is None or not worker.ready:
            return []
        if self._time_limit is not None and monotonic() - worker.since > self._time_limit:
            worker.kill()
            return self._end(
                worker, Failure(f"a job took longer than time_limit={self._time_limit:g} seconds", "timeout")
            )
        if worker.process.poll() is not None and not worker.connection.poll():
            return self._died(worker)
        return []

    def _died(self, worker: _Worker) -> list[Report]:
        status = worker.kill()
        cause = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        if not worker.ready:
            return self._start_again(worker, cause)
        hint = "; the system may have run out of memory" if status == -signal.SIGKILL else ""
        return self._end(worker, Failure(f"the worker process ended under this job with {cause}{hint}", "crashed"))

    def _start_again(self, worker: _Worker, cause: str) -> list[Report]:
        """Give the job of a worker that died before it was ready to another one."""
        self._false_starts += 1
        if self._false_starts == _STARTS:
            raise ExecutionError(
                f"{_STARTS} worker processes in a row have ended while they were starting, with {cause}"
            )
        new = self._replace(worker)
        if worker.job is not None:
            new.give(worker.job)
        return []

    def _end(self, worker: _Worker, failure: Failure) -> list[Report]:
        """Put a new worker in the place of one that was killed, and report what became of its job."""
        job, last, seconds = worker.job, worker.last, max(0.0, monotonic() - worker.since - worker.told)
        self._replace(worker)
        if job is None:
            return []
        if last is not None:  # it was trained to its end
            warning = f"trial {job.trial} is complete, but after its last step {failure.error}\n"
            return [replace(last, seconds=seconds, warning=last.warning + warning, ahead=False)]
        return [Report(job.ask, job.start, seconds=seconds, done=True, failure=failure)]

    def _replace(self, worker: _Worker) -> _Worker:
        worker.kill()
        temporary.sweep()
        new = _Worker(worker.environment, worker.warm.maxlen or 0)
        self._workers[self._workers.index(worker)] = new
        new.send(self._setup)
        return new


def _pickled(train: Any) -> tuple[bytes, bool]:
    """Training code, or a space with values, as bytes for another process, and whether that must import the running
    script to read them.

    Raises:
        ExecutionError: it can't be done.
    """
    try:
        code = pickle.dumps(train)
        in_script = b"__main__" in code
        if not in_script or Path(getattr(sys.modules["__main__"], "__file__", "")).is_file():
            return code, in_script
        problem = "it is defined in an interactive session"
    except Exception as error:
        problem = str(error)
    try:
        import cloudpickle

        return bytes(cloudpickle.dumps(train)), False
    except ModuleNotFoundError:
        way_out = (
            "define it at the top level of a file, install cloudpickle, or use workers=1 without devices and time_limit"
        )
    except Exception as error:
        problem, way_out = str(error), "keep open files, locks and the like out of it"
    raise ExecutionError(f"{train!r} can't be sent to worker processes ({problem}): {way_out}")


def _preparation() -> dict[str, Any]:
    """How a worker imports the script that is running, without executing its ``if __name__ == "__main__":`` part."""
    from multiprocessing import spawn

    preparation: dict[str, Any] = spawn.get_preparation_data("worker")
    del preparation["authkey"]
    return preparation
