"""Where `GP` ends and `TPE` begins: the limits that `Auto` goes by.

    python benchmarks/auto_rule.py
    python benchmarks/auto_rule.py --seeds 10 --sections columns

Regret of both after the same evaluations: in ever more columns, one after the other; and with ever more jobs at once,
which are all told together. Medians over seeds, and the processor time of an ask and tell.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy

import argparse  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

import tunesmith as ts  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent / "quality"))

import problems  # noqa: E402

COLUMNS = (20, 60, 100)
JOBS = (1, 16, 64)
SAMPLERS = {"GP": ts.samplers.GP, "TPE": ts.samplers.TPE}


def problem(name: str) -> Any:
    """A problem of benchmarks/quality, or ``levy`` and ``rosenbrock`` in any dimension, as in ``levy-60``."""
    kind, _, columns = name.rpartition("-")
    if kind == "levy" and int(columns) > 20:
        return problems._continuous(name, problems.levy, int(columns), -10.0, 10.0, 0.0, 200, 0.0, 6.0)
    if kind == "rosenbrock" and int(columns) > 20:
        return problems._continuous(name, problems.rosenbrock, int(columns), -5.0, 10.0, 0.0, 200)
    return problems.get(name)


def play(name: str, sampler: str, seed: int, evaluations: int, jobs: int) -> tuple[float, float]:
    """Regret, and CPU milliseconds an evaluation."""
    searched = problem(name)
    study = ts.Study(searched.space, ts.Goal("loss"), SAMPLERS[sampler](), seed=seed)
    best, spent, done = np.inf, 0.0, 0
    while done < evaluations:
        begin = time.process_time()
        asked = study.ask(min(jobs, evaluations - done))
        spent += time.process_time() - begin
        losses = [searched.evaluate(job.config) for job in asked]
        begin = time.process_time()
        study.tell(asked, [{"loss": loss} for loss in losses])
        spent += time.process_time() - begin
        best, done = min(best, *losses), done + len(asked)
    return best - searched.optimum, 1000 * spent / evaluations


def table(cases: list[tuple[str, int, int]], seeds: int, pool: ProcessPoolExecutor) -> None:
    """A row for each (problem, evaluations, jobs at once)."""
    print("| problem | evaluations | jobs at once | GP | TPE | ratio | GP, ms | TPE, ms |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    runs = {
        (case, sampler): [pool.submit(play, case[0], sampler, seed, *case[1:]) for seed in range(seeds)]
        for case in cases
        for sampler in SAMPLERS
    }
    for case in cases:
        (gp, gp_ms), (tpe, tpe_ms) = (np.median([run.result() for run in runs[case, s]], axis=0) for s in SAMPLERS)
        cells = [
            case[0],
            case[1],
            case[2],
            f"{gp:.3g}",
            f"{tpe:.3g}",
            f"{tpe / gp:.2g}",
            f"{gp_ms:.1f}",
            f"{tpe_ms:.1f}",
        ]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sections", nargs="+", default=["columns", "jobs"], choices=["columns", "jobs"])
    given = parser.parse_args()
    with ProcessPoolExecutor(given.workers) as pool:
        if "columns" in given.sections:
            table([(f"{kind}-{d}", 200, 1) for kind in ("levy", "rosenbrock") for d in COLUMNS], given.seeds, pool)
        if "jobs" in given.sections:
            names = ("hartmann-6", "levy-6", "mixed-ackley-10", "branches")
            table([(name, 192, jobs) for name in names for jobs in JOBS], given.seeds, pool)


if __name__ == "__main__":
    main()
