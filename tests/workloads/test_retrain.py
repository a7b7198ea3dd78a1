from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tunesmith.execution import CheckpointError, Checkpoints, JaxTask
from tunesmith.execution.base import ExecutionError
from tunesmith.execution.retrain import retrain
from tunesmith.workloads.mlp import ImageMLP
from tunesmith.workloads.toy import Toy


def switch(step: int) -> dict[str, Any]:
    """Half of the problem first, then the other half."""
    return {"h0": 1.0, "h1": 0.0} if step < 100 else {"h0": 0.0, "h1": 1.0}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_schedule_that_matters_beats_its_last_values(workers: int) -> None:
    found = retrain(Toy(), switch, 200, metric="q", seeds=range(2), workers=workers)
    shrunk = (0.9 * 0.98**100) ** 2
    schedule, constant = found.pairs("q")
    assert schedule == pytest.approx([1.2 - 2 * shrunk] * 2)
    assert constant == pytest.approx([1.2 - 0.81 - (0.9 * 0.98**200) ** 2] * 2)
    assert found.seeds == (0, 1)


class Pure:
    """The toy, written for ``JaxTask``."""

    def init(self, config: Any, key: Any) -> Any:
        import jax.numpy as jnp

        return jnp.full(2, 0.9)

    def step(self, theta: Any, config: Any, key: Any) -> tuple[Any, dict[str, Any]]:
        import jax.numpy as jnp

        theta = theta * (1 - 0.02 * jnp.stack([config["h0"], config["h1"]]))
        return theta, {"q": 1.2 - jnp.square(theta).sum()}


class Watched(JaxTask):
    """Knows how many members its stacks have room for."""

    def stack(self, group: Any, rows: int) -> Any:
        self.rows = rows
        return super().stack(group, rows)


def test_all_seeds_as_one_program() -> None:
    task = Watched(Pure(), chunk=64)
    found = retrain(task, switch, 200, metric="q", seeds=range(3))
    schedule, constant = found.pairs("q")
    assert schedule == pytest.approx([1.2 - 2 * (0.9 * 0.98**100) ** 2] * 3, rel=1e-5)
    assert constant == pytest.approx([1.2 - 0.81 - (0.9 * 0.98**200) ** 2] * 3, rel=1e-5)
    assert task.rows >= 2 * 3


@pytest.mark.parametrize("workers", [0, 1])
def test_every_stretch_begins_where_the_one_before_ended(workers: int) -> None:
    """Also where a study would write few states to disk."""
    task = JaxTask(Pure(), chunk=64, save_every_jobs=100)
    found = retrain(task, lambda step: {"h0": step % 2, "h1": step % 3}, 6, metric="q", seeds=[0], workers=workers)
    theta = np.full(2, 0.9)
    for step in range(6):
        theta *= 1 - 0.02 * np.array([step % 2, step % 3])
    assert found.pairs("q")[0] == pytest.approx([1.2 - np.square(theta).sum()], rel=1e-5)


def test_a_stretch_whose_state_is_lost_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*given: Any) -> Any:
        raise CheckpointError("the checkpoint is missing")

    monkeypatch.setattr(Checkpoints, "load", missing)
    with pytest.raises(ExecutionError, match=r"schedule and seed 0 should go on from step 100, .* is missing"):
        retrain(JaxTask(Pure(), chunk=64), switch, 200, metric="q", seeds=[0])


def test_progress_counts_the_steps_of_all_trainings() -> None:
    seen: list[tuple[int, int]] = []
    retrain(Toy(), switch, 200, metric="q", seeds=[3], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (400, 400)


def test_a_schedule_of_one_configuration_is_its_own_control() -> None:
    config = {
        "data": "digits",
        "lr": 0.05,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "dropout": 0.2,
        "label_smoothing": 0.1,
    }
    found = retrain(ImageMLP(updates=2), lambda step: config, 3, metric="accuracy", seeds=[1, 2])
    assert found.schedule == found.constant
    assert found.schedule[0] != found.schedule[1]


def test_an_interruption_by_a_change_does_not_change_the_training() -> None:
    one = {
        "data": "digits",
        "lr": 0.05,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "dropout": 0.2,
        "label_smoothing": 0.1,
        "note": 1,
    }
    found = retrain(ImageMLP(updates=2), lambda step: {**one, "note": step}, 3, metric="accuracy", seeds=[1])
    assert found.schedule == found.constant


def generator(config: dict[str, Any]) -> Iterator[float]:
    while True:
        yield 1.0


def fragile(config: dict[str, Any]) -> float:
    raise RuntimeError("broken")


def test_training_code_that_cannot_be_continued() -> None:
    with pytest.raises(
        ExecutionError, match="and seed 0 should go on from step 100, but this training code saves no state: let"
    ):
        retrain(generator, switch, 200, metric="q", seeds=[0])


def test_a_failure_is_named() -> None:
    with pytest.raises(ExecutionError, match=r"seed 7 failed: (?s:.*)broken"):
        retrain(fragile, lambda step: {}, 1, metric="q", seeds=[7])


@pytest.mark.parametrize(("steps", "seeds"), [(0, [1]), (1, [])])
def test_nothing_to_train(steps: int, seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one of each"):
        retrain(Toy(), switch, steps, metric="q", seeds=seeds)
