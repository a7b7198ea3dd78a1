"""What the measurements of all packages share: the problem, the clocks, and how they are called.

A measurement is a function that returns ``{"value": ..., "cpu": ...}``: the figure by the clock on the wall, and what
it would be if only the processor's time for it counted. It runs in a fresh process, ``python measure_x.py NAME JSON``.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

Result = dict[str, Any]

UNITS = (16, 512)
LAYERS = (1, 8)
RATE = (1e-5, 1.0)
MOMENTUM = (0.0, 0.99)
DROPOUT = (0.0, 0.8)
ACTIVATIONS = ("relu", "gelu", "tanh")


class Time:
    """Seconds on the wall, and of the processor: of this process and of its children that have ended."""

    wall = cpu = 0.0


@contextmanager
def clock() -> Iterator[Time]:
    """Measures its body."""
    time_, cpu, wall = Time(), _cpu(), time.perf_counter()
    yield time_
    time_.wall, time_.cpu = time.perf_counter() - wall, _cpu() - cpu


def _cpu() -> float:
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@contextmanager
def folder() -> Iterator[Path]:
    """A directory that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def rate(prepare: Callable[[], Callable[[], object]], processes: int, seconds: float) -> Result:
    """How often a second the function that ``prepare`` makes can be called, by so many processes together."""
    context = get_context("fork")
    barrier, queue = context.Barrier(processes), context.SimpleQueue()

    def work() -> None:
        step = prepare()
        for _ in range(3):
            step()
        barrier.wait()
        count, cpu, begin = 0, time.process_time(), time.perf_counter()
        while time.perf_counter() < begin + seconds:
            step()
            count += 1
        queue.put((count, begin, time.perf_counter(), time.process_time() - cpu))

    crew = [context.Process(target=work) for _ in range(processes)]
    for process in crew:
        process.start()
    counts, begins, ends, cpus = zip(*(queue.get() for _ in crew), strict=True)
    for process in crew:
        process.join()
    return {"value": sum(counts) / (max(ends) - min(begins)), "cpu": sum(counts) / sum(cpus), "count": sum(counts)}


def typical(call: Callable[[], object], times: int) -> Result:
    """Median seconds of a call, and its mean seconds of the processor."""
    walls = []
    cpu = time.process_time()
    for _ in range(times):
        begin = time.perf_counter()
        call()
        walls.append(time.perf_counter() - begin)
    return {"value": statistics.median(walls), "cpu": (time.process_time() - cpu) / times}


def start(script: str, name: str, **arguments: Any) -> subprocess.Popen[bytes]:
    """Another measurement as a process that leads a session of its own."""
    command = [sys.executable, script, name, json.dumps(arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def kill_all(process: subprocess.Popen[bytes]) -> float:
    """Kill -9 a process and everything that it has started. Returns when that was."""
    doomed, found = [], [process.pid]
    while found:
        doomed += found
        found = [child for parent in found for child in _children(parent)]
    now = time.perf_counter()
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    return now


def _children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def main(measurements: dict[str, Any]) -> None:
    """Run the measurement that the command line names, and print what it returns."""
    print(json.dumps(measurements[sys.argv[1]](**json.loads(sys.argv[2]))))
