"""Run optimizers on tables of learning curves in virtual time, and append one JSON row a run to a file.

    python benchmarks/fidelity/run.py --optimizers random 'tunesmith:TPE()+ASHA(R)' --tables recorded --workers 1 16
    /path/to/other/python benchmarks/fidelity/run.py --optimizers optuna-tpe-hyperband --out results.jsonl

Time is counted in trainings: one is the mean time of a full training in the table. Decisions take no time. Runs that
the file has already are passed over, so a run can go on after an interruption, and several interpreters with different
packages can fill one file. What isn't installed is named and left out.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy: every run has one thread

import argparse  # noqa: E402
import fnmatch  # noqa: E402
import heapq  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from importlib import metadata  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402

import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

import peers  # noqa: E402
import tables  # noqa: E402

ENOUGH = 0.01  #: a run ends when this regret is reached, also among the trials that were trained in full
WALL = 4  #: trainings, one after the other, that there is time for with any number of workers
PACKAGES = {"tunesmith": "tunesmith", "random": "tunesmith", "optuna": "optuna", "syne": "syne-tune", "smac": "smac"}


class Key(NamedTuple):
    """What a run is."""

    table: str
    optimizer: str
    workers: int
    seed: int
    limit: float


class Timer:
    """Processor time of the calls it makes."""

    seconds = 0.0

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.process_time()
        try:
            return function(*arguments)
        finally:
            self.seconds += time.process_time() - begin


@dataclass(order=True)
class Task:
    """A job on a worker, in a heap by the time of its next report.

    Attributes:
        at: when the peer hears next of it.
        number: of the task.
        times: [k], when each of the job's steps is done.
        told: how many steps the peer has heard of.
    """

    at: float
    number: int
    job: peers.Job = field(compare=False)
    values: np.ndarray = field(compare=False)
    times: np.ndarray = field(compare=False)
    told: int = field(default=0, compare=False)


class Floor:
    """Workers in virtual time, and what they have found."""

    def __init__(self, table: tables.Table, peer: peers.Peer, workers: int, limit: float, timer: Timer) -> None:
        self.table, self.peer, self.limit, self.timer = table, peer, limit, timer
        self.free, self.clock = workers, 0.0
        self.out: list[Task] = []
        self.numbers = itertools.count()
        self.found: list[np.ndarray] = []  #: [k, 3] of each report: time, value, step
        self.best = self.best_full = np.inf

    def begin(self) -> None:
        """Give the free workers what the peer has for them."""
        for job in self.timer(self.peer.ask, self.free) if self.free else ():
            values = self.table.values(job.config, job.start, job.until)
            times = self.clock + np.cumsum(self.table.seconds(job.config, job.start, job.until))
            first = times[0] if self.peer.stepwise else times[-1]
            heapq.heappush(self.out, Task(float(first), next(self.numbers), job, values, times))
            self.free -= 1

    def advance(self) -> None:
        """Go to the next report, and tell the peer all that is due then."""
        self.clock = self.out[0].at
        while self.out and self.out[0].at <= self.clock:
            self.report(heapq.heappop(self.out))

    def report(self, task: Task) -> None:
        job, told = task.job, task.told
        task.told = told + 1 if self.peer.stepwise else len(task.values)
        step = job.start + task.told
        values, times = task.values[told : task.told], task.times[told : task.told]
        self.note(values, times, step)
        begun = task.times[told - 1] if told else times[0] - self.table.seconds(job.config, job.start, job.start + 1)[0]
        goes_on = self.timer(self.peer.tell, job, step, values.tolist(), float(times[-1] - begun))
        if goes_on and task.told < len(task.values):
            task.at = float(task.times[task.told])
            heapq.heappush(self.out, task)
        else:
            self.free += 1

    def note(self, values: np.ndarray, times: np.ndarray, step: int) -> None:
        steps = np.arange(step - len(values) + 1, step + 1)
        self.found.append(np.column_stack([times, values, steps]))
        self.best = min(self.best, values.min())
        if step == self.table.steps:
            self.best_full = min(self.best_full, values[-1])

    def end(self) -> None:
        """Stop here; of the jobs that are out, what the peer hasn't heard of counts as well."""
        for task in self.out:
            self.note(task.values[task.told :], task.times[task.told :], task.job.until)

    def records(self, full: bool) -> np.ndarray:
        """[k, 3]: time, value and step of every value better than all before it; ``full``: at the last step alone."""
        rows = np.concatenate(self.found) if self.found else np.empty((0, 3))
        rows = rows[(rows[:, 0] <= min(self.clock, self.limit)) & ((rows[:, 2] == self.table.steps) | (not full))]
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        before = np.minimum.accumulate(np.concatenate([[np.inf], rows[:, 1]]))[:-1]
        return rows[rows[:, 1] < before]


def play(key: Key, optimizer: str) -> dict[str, Any]:
    """One run: its row, in which ``reported`` and ``full`` are lists of (trainings, regret, step), better and better.

    ``used_up`` says that the peer had nothing left to try.
    """
    table = tables.load(key.table)
    finals = table.curves[:, -1]
    training = float(np.nanmean(table.times.sum(1)))
    scale = float(np.nanmedian(finals)) - table.best
    wall = max(key.limit / key.workers, WALL)
    timer = Timer()
    peer = timer(peers.make, optimizer, table, key.seed, key.workers)
    floor = Floor(table, peer, key.workers, wall * training, timer)
    floor.begin()
    enough = table.best + ENOUGH * scale
    while floor.out and floor.clock < floor.limit and max(floor.best, floor.best_full) > enough:
        floor.advance()
        floor.begin()
    used_up = not floor.out and floor.clock < floor.limit
    floor.end()
    traces = {
        name: [
            [round(seconds / training, 4), round((value - table.best) / scale, 5), int(step)]
            for seconds, value, step in floor.records(name == "full")
        ]
        for name in ("reported", "full")
    }
    return key._asdict() | {
        "wall": wall, "ended": round(floor.clock / training, 4), "used_up": used_up,
        "cpu": round(timer.seconds, 3), "version": _version(optimizer), **traces,
    }  # fmt: skip


def label(optimizer: str) -> str:
    """Its name in the results."""
    return optimizer.split("=tunesmith:")[0]


def _version(optimizer: str) -> str:
    package = "tunesmith" if "tunesmith:" in optimizer else PACKAGES[optimizer.split("-")[0]]
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return package


def attempt(run: tuple[Key, str]) -> dict[str, Any] | str:
    try:
        return play(*run)
    except Exception:
        return f"{run}: {traceback.format_exc(limit=-4)}"


def _done(path: Path) -> set[Key]:
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {Key(*(row[name] for name in Key._fields)) for row in rows}


def _usable(chosen: list[str]) -> list[str]:
    """The optimizers whose packages are installed; prints the others."""
    found, table = [], tables.load("synthetic-parallel")
    for name in chosen:
        try:
            peers.make(name, table, 0, 1)
            found.append(name)
        except (ImportError, AttributeError, NameError) as error:
            print(f"left out: {name} ({error})", flush=True)
    return found


def chosen_tables(patterns: list[str]) -> list[str]:
    """Names from names, shell patterns, and the word ``recorded``."""
    known = tables.names()
    patterns = [p for given in patterns for p in (tables.recorded_names() if given == "recorded" else [given])]
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise SystemExit(f"no table is called {pattern!r}; there are recorded, {', '.join(known)}")
    return [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def _results(runs: list[tuple[Key, str]], processes: int) -> Iterator[dict[str, Any] | str]:
    if processes == 1:
        yield from map(attempt, runs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(attempt, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizers", nargs="+", default=["random", "tunesmith:TPE()+ASHA(R)"])
    parser.add_argument("--tables", nargs="+", default=["recorded"], help="names, shell patterns, or recorded")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64], help="in virtual time")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=128, help=f"trainings in all; each worker has time for {WALL}")
    parser.add_argument("--processes", type=int, default=1, help="of this computer")
    parser.add_argument("--out", type=Path, default=Path("results.jsonl"))
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    optimizers, names = _usable(options.optimizers), chosen_tables(options.tables)
    grid = itertools.product(seeds, options.workers, names, optimizers)
    every = [(Key(name, label(o), workers, seed, options.limit), o) for seed, workers, name, o in grid]
    done = _done(options.out)
    runs = [(key, optimizer) for key, optimizer in every if key not in done]
    print(f"{len(runs)} runs; Python {platform.python_version()}, {options.processes} processes", flush=True)
    begin, failed = time.perf_counter(), 0
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a") as file:
        for number, row in enumerate(_results(runs, options.processes), 1):
            if isinstance(row, str):
                failed += 1
                print(row, file=sys.stderr, flush=True)
                continue
            print(json.dumps(row), file=file, flush=True)
            if number % 50 == 0 or number == len(runs):
                print(f"{number} of {len(runs)} runs, {time.perf_counter() - begin:.0f} s", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
