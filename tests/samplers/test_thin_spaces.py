"""Where the constraints leave little, every sampler gets all of its trials, each of them allowed and new."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tunesmith import Float, Goal, Integer, Space, Study, less_than, replay, samplers, sum_at_most, sum_to

NAMES = [f"n{i}" for i in range(7)]
WEIGHTS = [f"w{i}" for i in range(10)]
CHAIN = [less_than(one, other) for one, other in itertools.pairwise(NAMES)]


def few(config: dict[str, Any]) -> bool:
    return sum(config.values()) <= 1


SPACES = {
    "10 weights that sum to 1": Space(dict.fromkeys(WEIGHTS, Float(0, 1)), [sum_to(WEIGHTS, 1)]),
    "10 counts that sum to 12": Space(dict.fromkeys(WEIGHTS, Integer(0, 12)), [sum_to(WEIGHTS, 12)]),
    "8 weights of a sum that is at most 1": Space(
        dict.fromkeys(WEIGHTS[:8], Float(0, 1)), [sum_at_most(WEIGHTS[:8], 1)]
    ),
    "8 weights and a function": Space(dict.fromkeys(WEIGHTS[:8], Float(0, 1)), [few]),
    "a chain of 7 integers": Space(dict.fromkeys(NAMES, Integer(1, 100)), CHAIN),
}
EVERY = sorted(name for name in samplers.__all__ if hasattr(getattr(samplers, name), "ask") and name != "Sampler")


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", EVERY)
def test_all_trials_are_had(name: str, kind: str) -> None:
    if name == "Grid" and kind == "a chain of 7 integers":
        pytest.skip("the five levels of the grid have no chain of seven")
    space = SPACES[kind]
    study = Study(space, Goal("loss"), getattr(samplers, name)(), trials=40)
    goal = np.linspace(0.0, 0.25, len(space))
    while (job := study.ask()) is not None:
        space.check(job.config)
        study.tell(job, {"loss": float(((np.array(list(job.config.values())) - goal) ** 2).sum())})
    assert len({space.key(trial.config) for trial in study.trials}) == len(study.trials) == 40
    if name not in ("GP", "Auto", "CMAES"):  # these take long
        assert replay(study) == []


@pytest.mark.parametrize("name", ["GP", "CMAES", "TPE"])
def test_models_find_the_weights(name: str) -> None:
    """Better than the best of as many draws in the median."""
    space = Space(dict.fromkeys(WEIGHTS[:5], Float(0, 1)), [sum_to(WEIGHTS[:5], 1)])
    goal = np.array([0.05, 0.1, 0.2, 0.25, 0.4])

    def loss(config: dict[str, Any]) -> float:
        return float(((np.array(list(config.values())) - goal) ** 2).sum())

    study = Study(space, Goal("loss"), getattr(samplers, name)(), trials=40)
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": loss(job.config)})
    rng = np.random.default_rng(0)
    draws = [min(loss(space.sample(rng)) for _ in range(40)) for _ in range(25)]
    assert study.best is not None and loss(study.best.config) < np.median(draws)
