"""What right and wrong priors are worth to samplers, and where trials go that may repeat a configuration.

    python benchmarks/beliefs_and_repeats.py
    python benchmarks/beliefs_and_repeats.py --samplers GP TPE --trials 30 --seeds 15

Priors: a bowl of four numbers and an option. Right priors have their modes .05 beside the optimum, wrong ones at the
other end, with the greatest confidence. Printed is the median regret over seeds.

Duplicates: 15 configurations with noise, and the share of the trials from the 30th to the 100th that the best one gets.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy

import argparse  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

import tunesmith as ts  # noqa: E402

SAMPLERS: dict[str, Callable[[], Any]] = {
    "GP": ts.samplers.GP,
    "Auto": ts.samplers.Auto,
    "TPE": ts.samplers.TPE,
    "CMAES": ts.samplers.CMAES,
    "RegularizedEvolution": ts.samplers.RegularizedEvolution,
    "NSGA2": ts.samplers.NSGA2,
    "NSGA2(8)": lambda: ts.samplers.NSGA2(population=8),
    "DEHB": ts.samplers.DEHB,
    "PriorBand": ts.samplers.PriorBand,
    "Uniform": ts.samplers.Uniform,
}
OPTIMUM = {"x0": 0.7, "x1": 0.3, "x2": 0.6, "x3": 0.4}
MODES: dict[str, dict[str, Any]] = {
    "none": {},
    "right": {"x0": 0.65, "x1": 0.35, "x2": 0.55, "x3": 0.45, "c": "b"},
    "wrong": {"x0": 0.05, "x1": 0.95, "x2": 0.05, "x3": 0.95, "c": "f"},
}
FEW = ts.Space({"a": ts.Integer(1, 5), "b": ts.Categorical(["x", "y", "z"])})
BEST_OF_FEW = {"a": 4, "b": "y"}
WORTH = {"x": 1.0, "y": 0.0, "z": 0.6}


def regret(sampler: Any, modes: dict[str, Any], trials: int, seed: int) -> float:
    """The best value of a study on the bowl, whose optimum is 0."""
    priors = {name: ts.Prior(mode, 1.0) for name, mode in modes.items()}
    numbers = {name: ts.Float(0.0, 1.0, prior=priors.get(name)) for name in OPTIMUM}
    space = ts.Space(numbers | {"c": ts.Categorical(list("abcdef"), prior=priors.get("c"))})
    study = ts.Study(space, ts.Goal("loss"), sampler, trials=trials, seed=seed)
    while job := study.ask():
        loss = sum((float(job.config[name]) - best) ** 2 for name, best in OPTIMUM.items())
        study.tell(job, {"loss": loss + 0.1 * (job.config["c"] != "b")})
    assert study.best is not None
    return study.best.metrics["loss"]


def share(sampler: Any, seed: int) -> float:
    """How much of the trials 30 to 100 of a study with duplicates went to the best configuration."""
    study = ts.Study(FEW, ts.Goal("loss"), sampler, trials=100, seed=seed, duplicates=True)
    noise = np.random.default_rng([seed, 1])
    while job := study.ask():
        loss = (job.config["a"] - 4) ** 2 / 4 + WORTH[job.config["b"]]
        study.tell(job, {"loss": loss + 0.25 * noise.normal()})
    return float(np.mean([dict(trial.config) == BEST_OF_FEW for trial in study.trials[30:]]))


def main() -> None:
    """Print both tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=list(SAMPLERS))
    parser.add_argument("--trials", type=int, default=100, help="of a study with priors")
    parser.add_argument("--seeds", type=int, default=30, help="of studies with priors; a third of it with duplicates")
    options = parser.parse_args()
    print("| sampler | none | right | wrong | best of 15, mean | median |\n|---|--:|--:|--:|--:|--:|")
    for name in options.samplers:
        make = SAMPLERS[name]
        cells = [
            f"{np.median([regret(make(), modes, options.trials, seed) for seed in range(options.seeds)]):.4f}"
            for modes in MODES.values()
        ]
        shares = [share(make(), seed) for seed in range(max(1, options.seeds // 3))]
        cells += [f"{np.mean(shares):.2f}", f"{np.median(shares):.2f}"]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
