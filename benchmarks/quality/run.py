"""Run optimizers on problems, and append one JSON row a run to a file.

    python benchmarks/quality/run.py --optimizers 'tunesmith:TPE()' random optuna-tpe --problems synthetic conditional
    /path/to/other/python benchmarks/quality/run.py --optimizers smac --problems all --out results.jsonl

Runs that the file has already are passed over, so a run can go on after an interruption, and several interpreters with
different packages can fill one file. What isn't installed is named and left out.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy: every run has one thread

import argparse  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import multiprocessing  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from functools import cache  # noqa: E402
from importlib import metadata  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

import peers  # noqa: E402
import problems  # noqa: E402

CHECKPOINTS = (10, 25, 50, 75, 100, 150, 200)
REJECTIONS = 20  #: proposals in a row that may break a hard constraint and cost nothing
PACKAGES = {"tunesmith": "tunesmith", "optuna": "optuna", "hyperopt": "hyperopt", "smac": "smac", "ax": "ax-platform",
            "hebo": "hebo", "random": "numpy"}  # fmt: skip

problem_of = cache(problems.get)


class Timer:
    """Processor time of the calls it makes."""

    seconds = 0.0

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.process_time()
        try:
            return function(*arguments)
        finally:
            self.seconds += time.process_time() - begin


def play(name: str, optimizer: str, seed: int, evaluations: int) -> dict[str, Any]:
    """One run: its row, in which ``best`` is the best value (without noise) after so many evaluations."""
    problem = problem_of(name)
    evaluations = evaluations or problem.evaluations
    noise = np.random.default_rng([seed, 1])
    timer = Timer()
    peer = timer(peers.make, optimizer, problem.space, seed, evaluations)
    best, curve, failures, rejections = math.inf, {}, 0, 0
    count = 0
    while count < evaluations:
        config, in_a_row = timer(peer.ask), 0
        while config is not None and not problem.space.contains(config) and in_a_row < REJECTIONS:
            timer(peer.reject)
            config, in_a_row, rejections = timer(peer.ask), in_a_row + 1, rejections + 1
        if config is None:
            break
        loss = problem.evaluate(config) if problem.space.contains(config) else math.nan
        failed = math.isnan(loss)
        failures += failed
        timer(peer.tell, None if failed else loss + problem.noise * noise.standard_normal())
        best = best if failed else min(best, loss)
        count += 1
        if count in CHECKPOINTS or count == evaluations:
            curve[count] = best
    curve |= {at: best for at in CHECKPOINTS if count < at <= evaluations}  # nothing was left to try
    return {
        "problem": name, "optimizer": label(optimizer), "seed": seed, "evaluations": evaluations,
        "optimum": problem.optimum, "best": {str(at): value for at, value in sorted(curve.items())},
        "cpu": round(timer.seconds, 4), "failures": failures, "rejections": rejections, "version": _version(optimizer),
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


def attempt(run: tuple[str, str, int, int]) -> dict[str, Any] | str:
    try:
        return play(*run)
    except Exception:
        return f"{run}: {traceback.format_exc(limit=-4)}"


def _done(path: Path) -> set[tuple[str, str, int, int]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(row["problem"], row["optimizer"], row["seed"], row["evaluations"]) for row in rows}


def _usable(chosen: list[str], what: str, check: Callable[[str], object]) -> list[str]:
    """Those whose packages are installed; prints the others."""
    found = []
    for name in chosen:
        try:
            check(name)
            found.append(name)
        except (ImportError, AttributeError) as error:
            print(f"left out: {what} {name} ({error})", flush=True)
    return found


def _results(runs: list[tuple[str, str, int, int]], workers: int) -> Iterator[dict[str, Any] | str]:
    if workers == 1:
        yield from map(attempt, runs)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(attempt, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizers", nargs="+", default=["random", "tunesmith:TPE()", "tunesmith:GP()"])
    parser.add_argument("--problems", nargs="+", default=["synthetic"], help="names, groups, shell patterns, or all")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=0, help="default: 100, or 200 in 20 dimensions")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results.jsonl"))
    parser.add_argument("--list", action="store_true", help="only print the problems")
    options = parser.parse_args()
    if options.list:
        for name, (group, _) in problems.FACTORIES.items():
            print(f"{group:12} {name}")
        return
    chosen = _usable(problems.names(options.problems), "problem", problem_of)
    unit = problems.get("branin").space
    optimizers = _usable(options.optimizers, "optimizer", lambda name: peers.make(name, unit, 0, 10))
    counts = {name: options.evaluations or problem_of(name).evaluations for name in chosen}
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    every = [(name, optimizer, seed, counts[name]) for seed in seeds for name in chosen for optimizer in optimizers]
    done = _done(options.out)
    runs = [run for run in every if (run[0], label(run[1]), *run[2:]) not in done]
    print(f"{len(runs)} runs; Python {platform.python_version()}, {options.workers} processes", flush=True)
    begin, failed = time.perf_counter(), 0
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a") as file:
        for number, row in enumerate(_results(runs, options.workers), 1):
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
