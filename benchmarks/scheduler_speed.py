"""Processor time of a report and the decision on it, after so many trials of 27 steps, in memory, on one thread.

    python benchmarks/scheduler_speed.py
    python benchmarks/scheduler_speed.py --counts 1000 10000 --peer-python .venv-bench/bin/python

A study first trains so many trials. Then 100 more are trained, one report a step, and after each report the scheduler
is asked what to do next: tunesmith by ``tell`` and ``ask``, Optuna by ``report`` and ``should_prune``. Beside it, the
whole first part: time a report where each job is told as one list.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import time

STEPS, MORE = 27, 100
OURS = {
    "ASHA": "ASHA(27)",
    "ASHA, stopping": "ASHA(27, stopping=True)",
    "Hyperband": "Hyperband(27)",
    "Median": "Median(27)",
}
PEERS = {
    "ASHA, stopping": "SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)",
    "Hyperband": "HyperbandPruner(min_resource=1, max_resource=27, reduction_factor=3)",
    "Median": "MedianPruner()",
}


def loss(trial: int, step: int) -> float:
    """Better with every step, a little noisy."""
    noise = random.Random(1000 * trial + step)
    return random.Random(trial).random() + (1 + 0.1 * noise.random()) / step


def tunesmith(which: str, count: int) -> dict[str, float]:
    """Microseconds."""
    import tunesmith as ts
    from tunesmith import schedulers

    scheduler = eval(OURS[which], vars(schedulers))
    study = ts.Study(
        ts.Space({"x": ts.Float(0.0, 1.0)}),
        ts.Goal("loss"),
        sampler=ts.samplers.Uniform(),
        scheduler=scheduler,
        trials=count,
    )
    begin, reports = time.process_time(), 0
    while (job := study.ask()) is not None:
        values = [loss(job.trial, step) for step in range(job.start + 1, job.until + 1)]
        reports += len(values)
        study.tell(job, {"loss": values})
    bulk = time.process_time() - begin - reports * _cost_of_loss()
    study.limit = count + MORE
    spent, told = 0.0, 0
    begin = time.process_time()
    job = study.ask()
    while job is not None:
        for step in range(job.start + 1, job.until + 1):
            value = loss(job.trial, step)
            begin = time.process_time()
            study.tell(job, {"loss": value}, step=step)
            if step == job.until:
                job = study.ask()
            spent += time.process_time() - begin
            told += 1
    return {"one by one": 1e6 * spent / told, "as lists": 1e6 * bulk / reports}


def optuna(which: str, count: int) -> dict[str, float]:
    """Microseconds; the first trials are added in bulk, all steps of each."""
    import optuna as package
    from optuna.distributions import FloatDistribution
    from optuna.trial import create_trial

    package.logging.set_verbosity(package.logging.ERROR)
    pruner = eval(PEERS[which], vars(package.pruners))
    study = package.create_study(sampler=package.samplers.RandomSampler(seed=0), pruner=pruner)
    study.add_trials([
        create_trial(
            params={"x": 0.5}, distributions={"x": FloatDistribution(0.0, 1.0)}, value=loss(trial, STEPS),
            intermediate_values={step: loss(trial, step) for step in range(1, STEPS + 1)},
        )
        for trial in range(count)
    ])  # fmt: skip
    spent, told = 0.0, 0
    for number in range(count, count + MORE):
        trial = study.ask({"x": FloatDistribution(0.0, 1.0)})
        for step in range(1, STEPS + 1):
            value = loss(number, step)
            begin = time.process_time()
            trial.report(value, step)
            pruned = trial.should_prune()
            spent += time.process_time() - begin
            told += 1
            if pruned:
                break
        study.tell(trial, value)
    return {"one by one": 1e6 * spent / told}


def _cost_of_loss() -> float:
    begin = time.process_time()
    for trial in range(1000):
        loss(trial, 3)
    return (time.process_time() - begin) / 1000


def measured(python: str, package: str, which: str, count: int) -> dict[str, float] | None:
    """In a fresh process; None where the package is missing."""
    command = [python, __file__, "--one", package, which, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=[100, 1_000, 5_000, 10_000])
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has Optuna")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        package, which, count = given.one
        print(json.dumps({"tunesmith": tunesmith, "optuna": optuna}[package](which, int(count))))
        return
    print(f"Python {platform.python_version()}; microseconds of processor time a report with its decision")
    print("| scheduler | trials | tunesmith | Optuna | ratio | tunesmith, told as lists |")
    print("|---|--:|--:|--:|--:|--:|")
    for which in OURS:
        for count in given.counts:
            ours = measured(sys.executable, "tunesmith", which, count)
            peer = measured(given.peer_python, "optuna", which, count) if which in PEERS else None
            if ours is None:
                raise SystemExit(f"{which} with {count} trials has failed")
            one = ours["one by one"]
            theirs = ("", "") if peer is None else (f"{peer['one by one']:.0f}", f"{peer['one by one'] / one:.1f}")
            cells = [which, f"{count:,}", f"{one:.0f}", *theirs, f"{ours['as lists']:.1f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
