"""A small neural network that learns to tell images apart, in JAX: a population of it is one program.

One *step* of the study is a fixed number of minibatch updates followed by one evaluation, as in
:mod:`tunesmith.workloads.mlp`; the hyperparameters are the same, too, but for label smoothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tunesmith.execution.jax_task import JaxTask
from tunesmith.space import Float, Space
from tunesmith.workloads import images

if TYPE_CHECKING:
    from jax import Array


def space() -> Space:
    """What is searched: everything that the training can change from one step to the next."""
    return Space(
        {
            "lr": Float(1e-4, 1.0, log=True),
            "momentum": Float(0.0, 0.99),
            "weight_decay": Float(1e-6, 1e-1, log=True),
            "dropout": Float(0.0, 0.8),
        }
    )


@dataclass(frozen=True)
class DenseNetwork:
    """Perceptrons with ReLU and dropout, trained by SGD with momentum: the pure functions for ``JaxTask``.

    Attributes:
        images: the data set, as for `tunesmith.workloads.images.load`.
        data_dir: see there.
        hidden: widths of the hidden layers.
        batch: images in a minibatch, drawn with replacement.
        updates: minibatch updates a step.
    """

    images: str = "digits"
    data_dir: str | None = None
    hidden: tuple[int, ...] = (32,)
    batch: int = 64
    updates: int = 100

    @cached_property
    def data(self) -> dict[str, tuple[Any, Any]]:
        """Images [n, pixels] uint8 and labels [n] of each part."""
        parts = images.load(self.images, self.data_dir)
        split = {"train": parts.train, "validation": parts.validation, "test": parts.test}
        return {name: (part.images, part.labels.astype("int32")) for name, part in split.items()}

    def init(self, config: Mapping[str, Any], key: Array, data: Any) -> dict[str, Any]:
        """Fresh weights (He et al. 2015), and momentum buffers of zeros."""
        import jax
        from jax import numpy as jnp

        inputs, labels = self.data["train"]
        widths = (inputs.shape[1], *self.hidden, int(labels.max()) + 1)
        keys = jax.random.split(key, len(widths) - 1)
        weights = [
            {"w": jax.random.normal(key, shape) * (2 / shape[0]) ** 0.5, "b": jnp.zeros(shape[1])}
            for key, shape in zip(keys, pairwise(widths), strict=True)
        ]
        return {"weights": weights, "momentum": jax.tree.map(jnp.zeros_like, weights)}

    def step(
        self, state: dict[str, Any], config: Mapping[str, Any], key: Array, data: Any
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """So many updates, then an evaluation.

        Returns:
            the state and its metrics: ``accuracy`` on the validation images (the goal), ``loss`` (mean of the training
            loss over this step, in nats) and ``test_accuracy``, which is for reports: nothing decides by it.
        """
        import jax

        inputs, labels = data["train"]

        def update(state: dict[str, Any], key: Array) -> tuple[dict[str, Any], Array]:
            which, mask = jax.random.split(key)
            rows = jax.random.randint(which, (self.batch,), 0, len(labels))
            value, slope = jax.value_and_grad(loss)(
                state["weights"], inputs[rows], labels[rows], config["dropout"], mask
            )
            slope = jax.tree.map(lambda g, w: g + config["weight_decay"] * w, slope, state["weights"])
            momentum = jax.tree.map(lambda m, g: config["momentum"] * m + g, state["momentum"], slope)
            weights = jax.tree.map(lambda w, m: w - config["lr"] * m, state["weights"], momentum)
            return {"weights": weights, "momentum": momentum}, value

        state, losses = jax.lax.scan(update, state, jax.random.split(key, self.updates))
        metrics = {"loss": losses.mean()}
        for name, part in (("accuracy", "validation"), ("test_accuracy", "test")):
            metrics[name] = (logits(state["weights"], data[part][0]).argmax(-1) == data[part][1]).mean()
        return state, metrics


def logits(weights: list[dict[str, Array]], inputs: Array, dropout: Any = None, key: Any = None) -> Array:
    """The logits [n, classes] of images uint8 [n, pixels]; with dropout in every hidden layer."""
    import jax

    hidden = inputs / 255
    for number, layer in enumerate(weights[:-1]):
        hidden = jax.nn.relu(hidden @ layer["w"] + layer["b"])
        if key is not None:
            kept = jax.random.uniform(jax.random.fold_in(key, number), hidden.shape) >= dropout
            hidden = hidden * kept / (1 - dropout)
    return hidden @ weights[-1]["w"] + weights[-1]["b"]


def loss(weights: list[dict[str, Array]], inputs: Array, labels: Array, dropout: Array, key: Array) -> Array:
    """The mean cross entropy of a minibatch, in nats."""
    import jax

    chances = jax.nn.log_softmax(logits(weights, inputs, dropout, key))
    return -jax.numpy.take_along_axis(chances, labels[:, None], 1).mean()


vectorised_mlp = JaxTask(DenseNetwork())  #: for the command line: ``tunesmith.workloads.vectorised_mlp:vectorised_mlp``
