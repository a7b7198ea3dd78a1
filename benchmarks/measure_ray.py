"""Measurements of Ray Tune; called by ``overhead.py``. Ray is started before the clock is."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import measuring
from measuring import Result

os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_DEDUP_LOGS": "0"}

import ray
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

logging.disable(logging.WARNING)


def begin() -> None:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.get(ray.remote(lambda: 0).remote())  # the first worker is there


class Toy(tune.Trainable):
    """The toy problem of ``tunesmith.workloads.toy``."""

    def setup(self, config: dict[str, Any]) -> None:
        self.theta = [0.9, 0.9]

    def step(self) -> dict[str, float]:
        self.theta = [t - 0.02 * self.config[h] * t for t, h in zip(self.theta, ("h0", "h1"), strict=True)]
        return {"q": 1.2 - sum(t**2 for t in self.theta)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "theta.json").write_text(json.dumps(self.theta))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self.theta = json.loads((Path(checkpoint_dir) / "theta.json").read_text())

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True


class Counter(tune.Callback):
    """Counts member-steps."""

    results = 0

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        self.results += 1


def population(steps: int, reuse: bool = True, members: int = 16) -> Result:
    """A member-step of PBT on the toy, a checkpoint every step."""
    begin()
    with measuring.folder() as folder:
        ranges = {"h0": tune.uniform(-10, 10), "h1": tune.uniform(-10, 10)}
        rule = PopulationBasedTraining(
            time_attr="training_iteration", perturbation_interval=1, hyperparam_mutations=dict(ranges)
        )
        tuner = tune.Tuner(
            Toy,
            param_space=ranges,
            tune_config=tune.TuneConfig(
                metric="q", mode="max", scheduler=rule, num_samples=members, reuse_actors=reuse
            ),
            run_config=tune.RunConfig(
                storage_path=str(folder),
                verbose=0,
                stop={"training_iteration": steps},
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
                callbacks=[counter := Counter()],
            ),
        )
        begin_ = time.perf_counter()
        results = tuner.fit()
        wall = time.perf_counter() - begin_
        assert len(results) == members and not results.errors
    return {"value": wall / counter.results, "steps": counter.results}


def trivial(config: dict[str, Any]) -> dict[str, float]:
    return {"loss": math.log(config["lr"]) ** 2}


def trials(count: int, reuse: bool = True) -> Result:
    """So many trials that cost nothing."""
    begin()
    with measuring.folder() as folder:
        tuner = tune.Tuner(
            trivial,
            param_space={
                "lr": tune.loguniform(*measuring.RATE),
                "momentum": tune.uniform(*measuring.MOMENTUM),
                "dropout": tune.uniform(*measuring.DROPOUT),
                "layers": tune.randint(measuring.LAYERS[0], measuring.LAYERS[1] + 1),
                "units": tune.lograndint(measuring.UNITS[0], measuring.UNITS[1] + 1),
                "activation": tune.choice(measuring.ACTIVATIONS),
            },
            tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=count, reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
        )
        begin_ = time.perf_counter()
        results = tuner.fit()
        wall = time.perf_counter() - begin_
        assert len(results) == count and not results.errors
    return {"value": wall}


if __name__ == "__main__":
    measuring.main(globals())
