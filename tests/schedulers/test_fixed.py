"""What is chosen once (``fixed=True``) belongs to the weights: no population changes it in a copy."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

import tunesmith as ts
from tunesmith.schedulers import ASHA, FIRE, MFPBT, PB2, PBT, Chain, Jitter, Perturb

UNIT = ts.Float(0.0, 1.0)

SPACES = {
    "plain": ts.Space(
        {
            "lr": ts.Float(1e-4, 1.0, log=True),
            "width": ts.Ordinal([8, 16, 32], fixed=True),
            "layers": ts.Integer(1, 9, fixed=True),
            "scale": ts.Float(0.0, 1.0, fixed=True),
            "fifty": 50,
        }
    ),
    "branches": ts.Space(
        {
            "lr": UNIT,
            "kind": ts.Categorical(
                {
                    "dense": ts.Space({"width": ts.Ordinal([8, 16, 32], fixed=True), "decay": UNIT}),
                    "attention": ts.Space({"heads": ts.Integer(1, 8)}),
                    "none": None,
                },
                fixed=True,
            ),
            "optimizer": ts.Categorical(
                {
                    "sgd": ts.Space({"momentum": UNIT, "nesterov": ts.Categorical([True, False], fixed=True)}),
                    "adam": None,
                }
            ),
        }
    ),
    "constraints": ts.Space(
        {"low": ts.Integer(1, 50, fixed=True), "high": ts.Integer(1, 50), "lr": UNIT},
        [ts.less_than("low", "high"), lambda config: config["high"] - config["low"] < 25],
    ),
}

KINDS: dict[str, Callable[[Any], Any]] = {
    "PBT": lambda explore: PBT(population=6, ready=1, steps=8, explore=explore),
    "asynchronous": lambda explore: PBT(population=6, ready=1, steps=8, explore=explore, synchronous=False),
    "weights": lambda explore: PBT(population=6, ready=1, steps=8, explore=explore, inherit="weights"),
    "hyperparameters": lambda explore: PBT(population=6, ready=1, steps=8, explore=explore, inherit="hyperparameters"),
    "MFPBT": lambda explore: MFPBT(population=8, ready=1, steps=8, frequencies=(1, 2), explore=explore),
    "FIRE": lambda explore: FIRE(population=8, ready=1, steps=8, explore=explore),
    "Chain": lambda explore: Chain(
        ASHA(max_steps=4, min_steps=1, eta=2), PBT(population=4, ready=1, steps=8, explore=explore)
    ),
}
EXPLORE = {"perturb": Perturb(), "resample": Perturb(resample=1.0), "jitter": Jitter(0.5), "PB2": PB2(), "none": None}


def play(space: ts.Space, scheduler: Any, seed: int) -> ts.Study:
    """A study with random values, failures, and up to three jobs out."""
    study = ts.Study(space, ts.Goal("loss"), ts.samplers.Uniform(), scheduler, seed=seed, trials=60)
    rng, out = random.Random(seed), []
    while True:
        while len(out) < 3 and (job := study.ask()) is not None:
            out.append(job)
        if not out:
            return study
        job = out.pop(rng.randrange(len(out)))
        if rng.random() < 0.1:
            study.fail(job, "no")
        else:
            study.tell(job, {"loss": [rng.random() for _ in range(job.start, job.until)]})


@pytest.mark.parametrize("explore", EXPLORE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", SPACES)
def test_forks_keep_what_is_fixed(which: str, kind: str, explore: str) -> None:
    space, forks, moved = SPACES[which], 0, 0
    for seed in range(2):
        study = play(space, KINDS[kind](EXPLORE[explore]), seed)
        for trial in study.trials:
            space.check(trial.config)
            if trial.parent is None:
                continue
            parent = study.trials[trial.parent].config
            forks += 1
            moved += parent != trial.config
            both = space.fixed & parent.keys() & trial.config.keys()
            assert {name: trial.config[name] for name in both} == {name: parent[name] for name in both}
            if "kind" in parent and parent["kind"] == "dense":
                assert "width" in trial.config
        assert ts.replay(study) == []
    assert forks > 5
    assert moved or (explore == "none" and kind in ("PBT", "asynchronous", "Chain"))
