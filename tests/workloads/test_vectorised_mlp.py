"""The population of small networks as one JAX program."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import tunesmith as ts
from tunesmith.execution import JaxTask
from tunesmith.workloads.vectorised_mlp import DenseNetwork, logits, space, vectorised_mlp


def test_a_population_learns_the_digits():
    pbt = ts.schedulers.PBT(population=8, ready=1, steps=4)
    study = ts.tune(JaxTask(DenseNetwork(updates=40), chunk=8), space(), maximise="accuracy", scheduler=pbt)
    assert study.best.last("accuracy") > 0.85
    assert study.best.last("test_accuracy") > 0.8
    assert ts.replay(study) == []
    assert isinstance(vectorised_mlp, JaxTask)


def test_dropout_keeps_the_mean_and_drops_nothing_at_zero():
    pure = DenseNetwork(hidden=(64,))
    weights = pure.init({}, jax.random.key(0), pure.data)["weights"]
    images = pure.data["train"][0][:16]
    plain = logits(weights, images)
    assert plain.shape == (16, 10)
    np.testing.assert_array_equal(plain, logits(weights, images, 0.0, jax.random.key(1)))
    many = jax.vmap(lambda key: logits(weights, images, 0.5, key))(jax.random.split(jax.random.key(2), 4000))
    assert np.abs(many.mean(0) - plain).max() < 0.15


def test_an_update_is_plain_gradient_descent():
    """Without a hidden layer, momentum, decay and dropout: against the gradient written out."""
    pure = DenseNetwork(hidden=(), batch=64, updates=1)
    config = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "dropout": 0.0}
    state = pure.init(config, jax.random.key(0), pure.data)
    after, metrics = pure.step(state, config, jax.random.key(1), jax.device_put(pure.data))
    which, _ = jax.random.split(jax.random.split(jax.random.key(1), 1)[0])
    rows = np.asarray(jax.random.randint(which, (64,), 0, len(pure.data["train"][1])))
    x, y = pure.data["train"][0][rows] / 255, pure.data["train"][1][rows]
    weights = np.asarray(state["weights"][0]["w"], float)
    chances = np.exp(x @ weights)
    chances /= chances.sum(1, keepdims=True)
    np.testing.assert_allclose(
        after["weights"][0]["w"], weights - 0.1 * x.T @ (chances - np.eye(10)[y]) / 64, atol=1e-5
    )
    assert metrics["loss"] == pytest.approx(-np.log(chances[np.arange(64), y]).mean(), rel=1e-4)
