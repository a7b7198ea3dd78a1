from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tunesmith.rng import stream
from tunesmith.workloads.mlp import ImageMLP, Network, space

CONFIG: dict[str, Any] = {
    "data": "digits",
    "lr": 0.05,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "dropout": 0.2,
    "label_smoothing": 0.1,
}
TASK = ImageMLP(updates=5)


def fresh(seed: int = 0) -> Network:
    return TASK.init(CONFIG, stream(seed, "test"))


def train(network: Network, steps: int = 1, config: dict[str, Any] = CONFIG) -> list[dict[str, float]]:
    return [TASK.step(network, config)[1] for _ in range(steps)]


def copied(tree: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint does: what is read back is not what was saved."""
    return {
        "parameters": [leaf.clone() for leaf in tree["parameters"]],
        "momentum": [None if leaf is None else leaf.clone() for leaf in tree["momentum"]],
        "generator": tree["generator"].clone(),
    }


def test_the_space_describes_the_configuration() -> None:
    space().check(CONFIG)


def test_it_learns() -> None:
    history = train(fresh(), 16)
    assert set(history[0]) == {"accuracy", "loss", "test_accuracy"}
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["accuracy"] > 0.85 and history[-1]["test_accuracy"] > 0.85


def test_equal_seeds_give_equal_trainings_whatever_the_global_generator_does() -> None:
    torch.manual_seed(1)
    first = train(fresh(3))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert train(fresh(3)) == first
    assert torch.equal(before, torch.get_rng_state())
    assert train(fresh(4)) != first


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_loaded_state_goes_on_exactly(steps: int, momentum: float) -> None:
    config = {**CONFIG, "momentum": momentum}
    original = fresh()
    train(original, steps, config)
    copy = TASK.load(copied(TASK.save(original)), config)
    assert train(original, 2, config) == train(copy, 2, config)


def test_two_forks_of_one_state_do_not_touch_each_other() -> None:
    source = fresh()
    train(source)
    tree = TASK.save(source)
    one, other = TASK.load(tree, CONFIG), TASK.load(tree, CONFIG)
    train(one, 3)
    assert train(other) == train(source)


def test_after_a_load_the_new_hyperparameters_hold() -> None:
    source = fresh()
    train(source)
    fork = TASK.load(copied(TASK.save(source)), CONFIG)
    before = fork.parameters[0].detach().clone()
    train(fork, 1, {**CONFIG, "lr": 1e-4, "momentum": 0.0, "weight_decay": 1e-6})
    group = fork.optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-4, 0.0, 1e-6)
    moved = (fork.parameters[0].detach() - before).abs().max()
    train(source)
    assert 0 < moved < 0.05 * (source.parameters[0].detach() - before).abs().max()


def test_each_step_takes_its_own_hyperparameters() -> None:
    one, other = fresh(), fresh()
    train(one), train(other)
    assert train(one)[0]["loss"] < train(other, 1, {**CONFIG, "dropout": 0.8})[0]["loss"]


def test_a_diverging_configuration_still_has_an_accuracy() -> None:
    history = train(fresh(), 10, {**CONFIG, "lr": 1.0, "momentum": 0.99})
    assert np.isfinite([metrics["accuracy"] for metrics in history]).all()
