"""Kinds of population based training against each other and random search, at equal population and equal steps.

    python benchmarks/pbt_variants.py --seeds 20                  # the toy problems
    python benchmarks/pbt_variants.py --data digits --seeds 10    # a small network on real images

All methods have the same first generation and may use ``population * steps`` steps of training, whatever they do with
them. Printed are the median over seeds and its 95% interval (bootstrap): of the base-10 logarithm of the best member's
final loss for the toys, of its test accuracy in percent for the images, where the validation images select.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from tunesmith import Goal, Study, samplers
from tunesmith.schedulers import FIRE, MFPBT, PB2, PBT, Backtrack, Full, Tournament, TTest
from tunesmith.workloads import toy

TOYS: dict[str, Any] = {
    "plain": toy.Decay(),
    "deceptive": toy.Decay(deceptive=True),
    "quadratic": toy.Quadratic(),
    "shocks": toy.Decay(shocks=0.01),
}
METHODS: dict[str, Callable[..., Any]] = {
    "random search": lambda steps, **_: Full(steps),
    "PBT, truncation": PBT,
    "PBT, t-test": lambda **options: PBT(**options, exploit=TTest()),
    "PBT, tournament": lambda **options: PBT(**options, exploit=Tournament()),
    "PBT, backtracking": lambda **options: PBT(**options, backtrack=Backtrack()),
    "PB2": lambda **options: PBT(**options, explore=PB2()),
    "MF-PBT, (1, 4)": MFPBT,
    "FIRE-PBT": FIRE,
}
LEAST = {"FIRE-PBT": 5}  #: members
DEAR = {"PB2"}  #: not measured with many members that decide often
MANY = 800  #: decisions of all members together


def train(study: Study, task: Any, population: int, ready: int, steps: int) -> int:
    """Work on a study, all members side by side, until its steps are used; how many were."""
    saved: dict[tuple[int, int], Any] = {}
    used = 0
    while jobs := study.ask(min(population, -(-(population * steps - used) // ready))):
        done = []
        for job in jobs:
            if job.start == 0:
                state = task.init(job.config, np.random.default_rng(job.seed))
            else:
                own = (job.trial, job.start)
                state = task.load(saved[own if own in saved else (job.parent, job.start)], job.config)
            values: dict[str, list[float]] = {}
            for _ in range(job.start, job.until):
                state, metrics = task.step(state, job.config)
                for name, value in metrics.items():
                    values.setdefault(name, []).append(value)
            saved[job.trial, job.until] = task.save(state)
            used += job.until - job.start
            done.append(values)
        study.tell(jobs, done)
    return used


def play(case: tuple[str, str, int, int, int, int]) -> tuple[float, int]:
    """One run of a method: its figure, and the steps it used."""
    problem, method, population, ready, steps, seed = case
    scheduler = METHODS[method](population=population, ready=ready, steps=steps)
    trials = population if method == "random search" else None
    rng = np.random.default_rng(seed)
    if problem in TOYS:
        task = TOYS[problem]
        study = Study(
            task.space(), Goal("loss"), sampler=samplers.Uniform(), scheduler=scheduler, seed=seed, trials=trials
        )
        first = task.first(population, rng)
    else:
        from tunesmith.workloads import mlp

        task = mlp.ImageMLP()
        space, goal = mlp.space(problem), Goal("accuracy", maximise=True)
        study = Study(space, goal, sampler=samplers.Uniform(), scheduler=scheduler, seed=seed, trials=trials)
        first = [space.sample(rng) for _ in range(population)]
    for config in first:
        study.enqueue(config)
    used = train(study, task, population, ready, steps)
    best = study.best
    assert best is not None
    if problem in TOYS:
        return float(np.log10(best.last("loss") or np.nan)), used
    return 100 * (best.last("test_accuracy") or np.nan), used


def interval(values: list[float]) -> str:
    """Median and its 95% interval by the bootstrap."""
    drawn = np.random.default_rng(0).choice(values, (5000, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return f"{np.median(values):.2f} [{low:.2f}, {high:.2f}]"


def cases(problem: str, populations: list[int], ready: int, steps: int) -> Iterator[tuple[str, int]]:
    """Which method with how many members."""
    for method in METHODS:
        for population in populations:
            many = population * steps // ready > MANY
            if population >= LEAST.get(method, 2) and not (method in DEAR and many):
                yield method, population


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["digits", "fashion-mnist"], help="real images in place of the toys")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--populations", type=int, nargs="+")
    parser.add_argument("--ready", type=int, nargs="+", help="steps between two decisions")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    problems = [arguments.data] if arguments.data else list(TOYS)
    populations = arguments.populations or ([8] if arguments.data else [4, 8, 16, 32])
    steps = 60 if arguments.data else 1000
    began = time.perf_counter()
    with ProcessPoolExecutor(arguments.workers) as pool:
        for problem in problems:
            for ready in arguments.ready or ([3] if arguments.data else [50, 20]):
                print(f"\n{problem}: {steps} steps, ready={ready}, {arguments.seeds} seeds\n")
                print("| method | " + " | ".join(f"{population} members" for population in populations) + " |")
                print("|---|" + "--:|" * len(populations))
                every = list(cases(problem, populations, ready, steps))
                runs = [(problem, *case, ready, steps, seed) for case in every for seed in range(arguments.seeds)]
                found = dict(zip(runs, pool.map(play, runs), strict=True))
                for method in METHODS:
                    cells = []
                    for population in populations:
                        mine = [found[run] for run in runs if run[1:3] == (method, population)]
                        assert all(used == population * steps for _, used in mine), "the budgets are not equal"
                        cells.append(interval([value for value, _ in mine]) if mine else "")
                    print(f"| {method} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
