"""Does PB2's forgetting help, and how often does it choose a bound of the space?

    python benchmarks/pb2_forgetting.py --seeds 20

A stand-in for a training with hyperparameters in the unit cube, whose best value moves from 0.8 to 0.2 in the course
of it, in one coordinate, and stays in the middle in the others; ``--still`` lets it stay at 0.5 everywhere. For each
way of choosing are printed the median over seeds, with its 95% interval (bootstrap), of the natural logarithm of the
best member's final loss; the share of the chosen coordinates that lie on a bound, which is never best here; the
distance of the chosen first coordinate from the best one (median); and the fitted epsilon (median). In the last two
rows the model does not see the loss with which an interval begins, which tells it the time, too.
"""

from __future__ import annotations

import argparse
import math
from typing import Any
from unittest.mock import patch

import numpy as np

from tunesmith import Float, Goal, Space, Study, samplers
from tunesmith.schedulers import PB2, PBT, pb2

STEPS, READY = 60, 5
NEVER = math.log(1.0001e-4)  #: an epsilon that forgets nothing
WIDTH = 0.15  #: distance from the best at which a step gains 1/e of what it could
EDGE = 1e-3
METHODS: dict[str, dict[str, Any]] = {
    "perturb": {"explore": None},
    "PB2": {},
    "PB2, forgets nothing": {"epsilon": (NEVER, NEVER)},
    "PB2, epsilon 0.1": {"epsilon": (math.log(0.1), math.log(0.1))},
    "PB2, epsilon 0.5": {"epsilon": (math.log(0.5), math.log(0.5))},
    "PB2 without losses": {"blind": True},
    "PB2 without losses, forgets nothing": {"blind": True, "epsilon": (NEVER, NEVER)},
}


def best(step: int, still: bool) -> float:
    """The best value of the first coordinate."""
    return 0.5 if still else 0.8 - 0.6 * step / STEPS


def play(method: str, dimensions: int, population: int, still: bool, noise: float, plain: bool, seed: int) -> Any:
    """One run: the logarithm of the best loss, what was chosen at which step, and the fitted epsilons."""
    space = Space({f"h{j}": Float(0.0, 1.0) for j in range(dimensions)})
    options = METHODS[method]
    scheduler = PBT(population=population, ready=READY, steps=STEPS, synchronous=True)
    if "explore" not in options:
        scheduler = PBT(population=population, ready=READY, steps=STEPS, synchronous=True, explore=PB2())
    study = Study(space, Goal("loss"), samplers.QMC(), scheduler, seed=seed)
    bounds = pb2.HYPERPARAMETERS.copy()
    if "epsilon" in options:
        bounds[0, 2] = options["epsilon"][0]
        bounds[1:, 2] = options["epsilon"]
    rng, states, epsilons = np.random.default_rng(seed), dict[tuple[int, int], float](), list[float]()
    likely, fit = pb2._likely, pb2._fit

    def fitted(*given: Any) -> Any:
        theta = likely(*given)
        epsilons.append(float(np.exp(theta[2])))
        return theta

    def blind(columns: Any, past: Any, gains: Any, points: Any, values: Any) -> Any:
        if "blind" in options:
            past, gains = past._replace(losses=(0.0,)), [gain._replace(before=(0.0,)) for gain in gains]
        return fit(columns, past, gains, points, values)

    patches = {"HYPERPARAMETERS": bounds, "_likely": fitted, "_fit": blind}
    with patch.multiple(pb2, **patches):
        while (job := study.ask()) is not None:
            source = job.trial if (job.trial, job.start) in states else job.parent
            loss = 0.0 if job.start == 0 else states[source, job.start]
            told = []
            for step in range(job.start, job.until):
                wanted = np.array([best(step, still), *[0.5] * (dimensions - 1)])
                away = np.array(list(job.config.values())) - wanted
                loss -= 0.1 * float(np.exp(-((away / WIDTH) ** 2)).mean())
                told.append((math.exp(loss) if plain else loss) + noise * rng.normal())
            states[job.trial, job.until] = loss
            study.tell(job, {"loss": told})
    final = min(loss for (_, step), loss in states.items() if step == STEPS)
    copies = [(trial.start, *trial.config.values()) for trial in study.trials if trial.parent is not None]
    return final, np.array(copies), epsilons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--dimensions", type=int, default=3)
    parser.add_argument("--population", type=int, default=8)
    parser.add_argument("--still", action="store_true", help="the best value does not move")
    parser.add_argument("--noise", type=float, default=0.01, help="deviation of what is told")
    parser.add_argument(
        "--plain", action="store_true", help="tell the loss, which falls steeply first, not its logarithm"
    )
    given = parser.parse_args()
    print("| method | log of the loss | chosen on a bound | away from the best | epsilon |\n|---|--:|--:|--:|--:|")
    for method in METHODS:
        runs = [
            play(method, given.dimensions, given.population, given.still, given.noise, given.plain, seed)
            for seed in range(given.seeds)
        ]
        finals = np.array([final for final, _, _ in runs])
        drawn = np.median(np.random.default_rng(0).choice(finals, (5000, len(finals))), axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        copies = np.concatenate([found for _, found, _ in runs])
        chosen = copies[:, 1:]
        share = np.mean((chosen < EDGE) | (chosen > 1 - EDGE))
        away = np.median([abs(row[1] - best(int(row[0]), given.still)) for row in copies])
        epsilon = [value for *_, found in runs for value in found]
        shown = f"{np.median(epsilon):.3f}" if epsilon else ""
        print(
            f"| {method} | {np.median(finals):.2f} [{low:.2f}, {high:.2f}] | {share:.0%} | {away:.2f} | {shown} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
