"""How well are the costs of jobs predicted, and what does the model itself cost?

    python benchmarks/costs.py

Networks of 1 to 4 layers of 8 to 1,024 units are trained for 1 or 3 epochs on 1,024 rows, in batches of 8 to 512, by
SGD or Adam. The model is told the processor time of the first 5, 10, 20, ... of them and predicts that of 40 others.
Then 10,000 made-up jobs are told with 1 and with 27 reports each.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy

import argparse  # noqa: E402
import math  # noqa: E402
import time  # noqa: E402
from itertools import pairwise  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

import tunesmith as ts  # noqa: E402
from tunesmith.costs import CostModel  # noqa: E402
from tunesmith.records import Asked, Told  # noqa: E402

SPACE = ts.Space(
    {
        "lr": ts.Float(1e-4, 1.0, log=True),
        "width": ts.Integer(8, 1024, log=True),
        "depth": ts.Integer(1, 4),
        "batch": ts.Integer(8, 512, log=True),
        "optimizer": ts.Categorical({"sgd": ts.Space({"momentum": ts.Float(0.0, 0.99)}), "adam": None}),
    }
)
TOLD = (5, 10, 20, 40, 80, 160)


def train(config: dict[str, Any], epochs: int) -> float:
    """Seconds of processor time."""
    began = time.process_time()
    x, y = torch.randn(1024, 64), torch.randint(0, 10, (1024,))
    sizes = [64, *[config["width"]] * config["depth"]]
    layers = [layer for a, b in pairwise(sizes) for layer in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], 10))
    if config["optimizer"] == "sgd":
        optimizer = torch.optim.SGD(net.parameters(), lr=config["lr"], momentum=config["momentum"])
    else:
        optimizer = torch.optim.Adam(net.parameters(), lr=config["lr"])
    for _ in range(epochs):
        for rows in torch.randperm(1024).split(config["batch"]):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return time.process_time() - began


def learned(jobs: list[tuple[dict[str, Any], int, float]], reports: int = 1) -> tuple[CostModel, float]:
    """A model of jobs (configuration, steps, seconds), and the seconds of an event."""
    model, events = CostModel(SPACE), []
    for trial, (config, steps, seconds) in enumerate(jobs):
        events.append(Asked(trial, 0, trial, config, 0, steps))
        cuts = np.linspace(0, steps, min(reports, steps) + 1).astype(int).tolist()
        for a, b in pairwise(cuts):
            events.append(Told(trial, trial, a, {"loss": [1.0] * (b - a)}, seconds * (b - a) / steps))
    began = time.process_time()
    for event in events:
        model.tell(event)
    return model, (time.process_time() - began) / len(events)


def accuracy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    train(SPACE.sample(rng), 1)
    jobs = []
    for _ in range(max(TOLD) + 40):
        config, epochs = SPACE.sample(rng), int(rng.choice([1, 3]))
        jobs.append((config, epochs, train(config, epochs)))
    told, rest = jobs[: max(TOLD)], jobs[max(TOLD) :]
    rates = np.log([seconds / epochs for _, epochs, seconds in rest])
    print(f"seconds an epoch: {np.exp(rates.min()):.4f} to {np.exp(rates.max()):.2f}")
    print("| jobs told | typical error of one job | error of the sum of 40 | within 2 deviations |\n|--:|--:|--:|--:|")
    for count in TOLD:
        model, _ = learned(told[:count])
        costs = [model.predict(config, 0, epochs) for config, epochs, _ in rest]
        took = np.array([seconds for *_, seconds in rest])
        expected, sd = np.array(costs).T
        typical = math.exp(np.sqrt(np.mean(np.log(expected / took) ** 2)))
        inside = np.mean(np.abs(took - expected) < 2 * sd)
        print(f"| {count} | x {typical:.2f} | {expected.sum() / took.sum() - 1:+.0%} | {inside:.0%} |")


def speed() -> None:
    rng = np.random.default_rng(0)
    jobs = []
    for _ in range(10_000):
        config = SPACE.sample(rng)
        jobs.append((config, 27, 1.0 + 0.01 * config["width"] * math.exp(0.1 * rng.normal())))
    for reports in (1, 27):
        print(f"10,000 jobs, {reports} reports each: {1e6 * learned(jobs, reports)[1]:.1f} us an event")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    torch.set_num_threads(1)
    accuracy(parser.parse_args().seed)
    speed()
