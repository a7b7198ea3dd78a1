from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tunesmith.workloads import mlp

CONFIG = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "dropout": 0.2, "label_smoothing": 0.1}


def task(config: dict[str, Any] = CONFIG, seed: int = 0) -> mlp.ImageMLP:
    made = mlp.ImageMLP("digits", updates=5)
    made.setup(config, seed)
    return made


def test_the_space_describes_the_configuration() -> None:
    mlp.space().check(CONFIG)


def test_it_learns() -> None:
    learner = task()
    first = learner.step()
    for _ in range(15):
        last = learner.step()
    assert set(last) == {"accuracy", "loss", "test_accuracy"}
    assert last["loss"] < first["loss"]
    assert last["accuracy"] > 0.85 and last["test_accuracy"] > 0.85


def test_equal_seeds_give_equal_trainings_whatever_the_global_generator_does() -> None:
    torch.manual_seed(1)
    a = [task(seed=3).step() for _ in range(1)]
    torch.manual_seed(2)
    before = torch.get_rng_state()
    b = [task(seed=3).step() for _ in range(1)]
    assert a == b
    assert torch.equal(before, torch.get_rng_state())
    assert task(seed=4).step() != a[0]


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_loaded_task_goes_on_exactly(steps: int, momentum: float) -> None:
    config = {**CONFIG, "momentum": momentum}
    original = task(config)
    for _ in range(steps):
        original.step()
    tree = original.save()
    copy = task(config, seed=99)
    copy.step()
    copy.load(tree)
    assert [original.step() for _ in range(2)] == [copy.step() for _ in range(2)]


def test_a_saved_state_does_not_change_with_the_training() -> None:
    learner = task()
    learner.step()
    tree = learner.save()
    before = [leaf.clone() for leaf in tree["weights"]]
    learner.step()
    assert all(torch.equal(a, b) for a, b in zip(before, tree["weights"], strict=True))


def test_after_a_load_the_new_hyperparameters_hold() -> None:
    source = task()
    source.step()
    frozen = {**CONFIG, "lr": 1e-4, "momentum": 0.0, "weight_decay": 1e-6}
    fork = task(frozen)
    fork.load(source.save())
    group = fork.optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-4, 0.0, 1e-6)
    before = fork.save()["weights"][0].clone()
    fork.step()
    assert torch.allclose(before, fork.weights[0].detach(), atol=1e-3)
    assert not torch.allclose(before, task().weights[0].detach(), atol=1e-3)


def test_reconfigure_changes_what_comes_next() -> None:
    a, b = task(), task()
    a.step(), b.step()
    b.reconfigure({**CONFIG, "dropout": 0.7})
    assert a.step()["loss"] < b.step()["loss"]


def test_a_diverging_configuration_still_reports() -> None:
    learner = task({**CONFIG, "lr": 1.0, "momentum": 0.99})
    for _ in range(10):
        metrics = learner.step()
    assert np.isfinite(metrics["accuracy"])
