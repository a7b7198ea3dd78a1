"""Training in the process of the driver: nothing is copied, and nothing is isolated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunesmith.execution.base import Executor, Report, Task
from tunesmith.execution.session import Options, Session

if TYPE_CHECKING:
    from tunesmith.study import Job


class Inline(Executor):
    """Runs one job at a time, while the driver waits for its reports."""

    slots = 1

    def __init__(self, task: Task[Any], options: Options) -> None:
        self._session = Session(task, options)
        self._running: Iterator[Report] | None = None

    @property
    def free(self) -> int:
        """1, or 0 while a job is running."""
        return int(self._running is None)

    def submit(self, job: Job) -> None:
        """Take a job; ``wait`` trains."""
        self._running = self._session.run(job)

    def wait(self, timeout: float) -> list[Report]:
        """Train until there is something to report, however long it takes."""
        if self._running is None:
            return []
        report = next(self._running)
        if report.done:
            self._running = None
        return [report]

    def interrupt(self) -> None:
        """End the running job after its present step."""
        self._session.stopping.set()

    def close(self) -> None:
        """Give up all states."""
        if self._running is not None:
            self._running.close()  # type: ignore[attr-defined]
            self._running = None
        self._session.close()
