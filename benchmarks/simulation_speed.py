"""Processor time of simulated searches: so many trials on so many virtual workers, each in a process of its own.

    python benchmarks/simulation_speed.py
    python benchmarks/simulation_speed.py --workers 64 --trials 1000 --schedulers "ASHA(max_steps=27)"

The curves are a formula, or a table of 1,000 recorded configurations, from which every job plays the nearest one. A job
is one decision of the scheduler, the sampler (uniform draws) and one report; the log is in memory.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy

import argparse  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

SCHEDULERS = ("Full(steps=81)", "ASHA(max_steps=81)", "ASHA(max_steps=81, stopping=True)", "Hyperband(max_steps=81)")
RECORDED = 1_000
STEPS = 81


def _curve(config: dict[str, Any], start: int, until: int) -> tuple[dict[str, list[float]], list[float]]:
    """A loss that falls with the steps, and steps of 10 to 100 seconds."""
    floor, rate = sum((config[f"x{i}"] - 0.3) ** 2 for i in range(6)), 0.1 + config["x0"]
    losses = [floor + 1 / (1 + rate * step) for step in range(start + 1, until + 1)]
    return {"loss": losses}, [10 + 90 * config["x1"]] * (until - start)


def measure(scheduler: str, trials: int, workers: int, recorded: bool) -> dict[str, float]:
    """Seconds of the processor, and what was simulated."""
    import tunesmith as ts
    from tunesmith.cli.expressions import construct
    from tunesmith.execution import Curve, Recorded, simulate

    space = ts.Space({f"x{i}": ts.Float(0.0, 1.0) for i in range(6)})
    rng = np.random.default_rng(0)
    configs = [space.sample(rng) for _ in range(RECORDED)]
    curves: Any = (
        Recorded(space, [Curve(config, *_curve(config, 0, STEPS)) for config in configs])
        if recorded
        else lambda job: _curve(job.config, job.start, job.until)
    )
    made = construct(scheduler, vars(ts.schedulers), "scheduler")
    study = ts.Study(space, ts.Goal("loss"), sampler=ts.samplers.Uniform(), scheduler=made, trials=trials)
    began = time.process_time()
    found = simulate(study, curves, workers)
    spent = time.process_time() - began
    return {"cpu": spent, "jobs": found.jobs, "steps": found.steps, "hours": found.seconds / 3600}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedulers", nargs="+", default=SCHEDULERS)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*json.loads(options.one))))
        return
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, one thread")
    print(f"{options.trials:,} trials, {options.workers:,} workers; CPU time")
    print("| scheduler | curves | jobs | steps | simulated hours | seconds | ms a job |")
    print("|---|---|--:|--:|--:|--:|--:|", flush=True)
    for scheduler in options.schedulers:
        for recorded in (False, True):
            case = json.dumps([scheduler, options.trials, options.workers, recorded])
            done = subprocess.run(
                [sys.executable, __file__, "--one", case], capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(done.stderr)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| `{scheduler}` | {'table' if recorded else 'formula'} | {found['jobs']:,} | {found['steps']:,} | "
                f"{found['hours']:.3g} | {found['cpu']:.3g} | {1000 * found['cpu'] / found['jobs']:.3g} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
