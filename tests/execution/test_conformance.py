"""Every executor passes the conformance suite."""

from __future__ import annotations

from typing import Any

from tunesmith.execution import Executor, Inline, Options, Processes, as_task
from tunesmith.testing import ExecutorConformance


class TestInline(ExecutorConformance):
    def make(self, train: Any, options: Options) -> Executor:
        return Inline(as_task(train), options)


class TestProcesses(ExecutorConformance):
    def make(self, train: Any, options: Options) -> Executor:
        return Processes(train, options, workers=2)
