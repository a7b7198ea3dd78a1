"""A synchronous population is the same study whatever the number of workers, lost jobs, and the order of results."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

import tunesmith as ts
from tunesmith import samplers
from tunesmith.schedulers import PB2, PBT, Backtrack, TTest
from tunesmith.trials import Checkpoint

SPACE = ts.Space(
    {"x": ts.Float(0, 1), "lr": ts.Float(1e-4, 1, log=True), "kind": ts.Categorical(["a", "b"])},
)
POPULATIONS = {
    "perturb": {},
    "PB2": {"explore": PB2()},
    "t-test": {"exploit": TTest(window=2)},
    "backtrack": {"backtrack": Backtrack()},
}


def share(*names: object) -> float:
    """A number in [0, 1) that depends on nothing but these names."""
    return zlib.crc32(repr(names).encode()) / 2**32


def play(options: dict[str, Any], sampler: Any, goals: int, failures: float, workers: int, lost: float) -> Any:
    """A study whose training is a function of the configuration, the step and the seed of the trial."""
    scheduler = PBT(population=6, ready=2, steps=8, synchronous=True, **options)
    metrics = [f"goal {number}" for number in range(goals)]
    study = ts.Study(SPACE, [ts.Goal(metric) for metric in metrics], sampler, scheduler, seed=5)
    order, out = np.random.default_rng(workers), []
    while True:
        while len(out) < workers and (job := study.ask()) is not None:
            out.append(job)
        if not out:
            break
        job = out.pop(int(order.integers(len(out))))
        if order.random() < lost:
            study.fail(job, "the worker is gone", "lost")
        elif share(job.seed, job.until) < failures:
            study.fail(job, "diverged")
        else:
            steps = range(job.start + 1, job.until + 1)
            told = {
                metric: [job.config["x"] + share(job.seed, metric, job.config["lr"], step) for step in steps]
                for metric in metrics
            }
            study.tell(job, told, checkpoint=Checkpoint(job.trial, job.until, "where", "digest"))
    assert ts.replay(study) == []
    return [
        (trial.config, trial.start, trial.step, trial.parent, trial.replaces, trial.status) for trial in study.trials
    ]


@pytest.mark.parametrize("failures", [0.0, 0.15])
@pytest.mark.parametrize("sampler", [samplers.Auto(), samplers.Uniform()], ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("options", POPULATIONS)
def test_a_synchronous_population_is_the_same(options: str, sampler: Any, failures: float) -> None:
    goals = 1 if options == "t-test" else 2
    alone = play(POPULATIONS[options], sampler, goals, failures, workers=1, lost=0.0)
    assert len(alone) > 6
    for workers, lost in ((1, 0.1), (2, 0.0), (3, 0.1), (8, 0.1)):
        assert play(POPULATIONS[options], sampler, goals, failures, workers, lost) == alone, (workers, lost)
