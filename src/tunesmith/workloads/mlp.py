"""A small neural network that learns to tell images apart: the workload of the demo.

One *step* of the study is a fixed number of minibatch updates followed by one evaluation. So a step costs the same for
every configuration, and there is a value for every decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.space import Float, Space
from tunesmith.workloads import images

BATCH = 128
HIDDEN = {"digits": 32, "fashion-mnist": 64}
UPDATES = {"digits": 10, "fashion-mnist": 50}
_CHUNK = 2000  # images evaluated at a time: keeps the activations in the processor's cache


def space(data: str = "digits") -> Space:
    """What is searched: everything that the training can change from one step to the next; and on which data."""
    return Space(
        {
            "data": data,
            "lr": Float(1e-4, 1.0, log=True),
            "momentum": Float(0.0, 0.99),
            "weight_decay": Float(1e-6, 1e-1, log=True),
            "dropout": Float(0.0, 0.8),
            "label_smoothing": Float(0.0, 0.3),
        }
    )


@dataclass
class Network:
    """A network in training: the state of the task."""

    parameters: list[Tensor]
    """Weight [outputs, inputs] and bias [outputs] of the first layer, then of the second."""
    optimizer: torch.optim.SGD
    generator: torch.Generator
    """Draws the minibatches and the dropout."""

    def logits(self, batch: Tensor, dropout: float = 0.0) -> Tensor:
        """The logits [n, classes] of images uint8 [n, pixels]."""
        first, first_bias, second, second_bias = self.parameters
        hidden = torch.relu(functional.linear(batch.float() / 255, first, first_bias))
        if dropout:
            keep = torch.rand(hidden.shape, generator=self.generator) >= dropout
            hidden = hidden * keep / (1 - dropout)
        return functional.linear(hidden, second, second_bias)

    @torch.no_grad()
    def accuracy(self, inputs: Tensor, labels: Tensor) -> float:
        """The share of images whose own class has the largest logit."""
        parts = zip(torch.split(inputs, _CHUNK), torch.split(labels, _CHUNK), strict=True)
        return sum(int((self.logits(part).argmax(1) == truth).sum()) for part, truth in parts) / len(labels)


@dataclass(frozen=True)
class ImageMLP:
    """A task: a perceptron with one hidden layer of ReLU and dropout, trained by SGD with momentum, on one thread.

    Equal seeds and configurations give equal trainings. A saved state holds everything that the next step depends on,
    the random generator included, so a loaded one goes on exactly where the saved one stood. PyTorch's global generator
    is neither used nor changed.

    The configuration names the data: ``digits`` or ``fashion-mnist``.

    Attributes:
        data_dir: see `tunesmith.workloads.images.load`.
        updates: minibatch updates a step; by default 10 for the digits and 50 for Fashion-MNIST.
    """

    data_dir: str | None = None
    updates: int | None = None

    def init(self, config: Mapping[str, Any], rng: np.random.Generator) -> Network:
        """Fresh weights (He et al. 2015)."""
        torch.set_num_threads(1)
        parts = images.load(config["data"], self.data_dir)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        widths = (parts.pixels, HIDDEN[config["data"]], parts.classes)
        parameters = []
        for inputs, outputs in pairwise(widths):
            parameters.append(torch.randn(outputs, inputs, generator=generator) * (2 / inputs) ** 0.5)
            parameters.append(torch.zeros(outputs))
        return _network(parameters, generator)

    def step(self, network: Network, config: Mapping[str, Any]) -> tuple[Network, dict[str, float]]:
        """Minibatches drawn with replacement, then an evaluation.

        Returns:
            the network and its metrics: ``accuracy`` on the validation images (the goal), ``loss`` (mean of the
            training loss over this step, in nats) and ``test_accuracy``, which is for reports: nothing decides by it.
        """
        parts = images.load(config["data"], self.data_dir)
        inputs, labels = torch.from_numpy(parts.train.images), torch.from_numpy(parts.train.labels)
        for group in network.optimizer.param_groups:
            group.update({name: config[name] for name in ("lr", "momentum", "weight_decay")})
        updates = self.updates or UPDATES[config["data"]]
        total = 0.0
        for _ in range(updates):
            batch = torch.randint(len(labels), (BATCH,), generator=network.generator)
            logits = network.logits(inputs[batch], config["dropout"])
            loss = functional.cross_entropy(logits, labels[batch], label_smoothing=config["label_smoothing"])
            network.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            network.optimizer.step()
            total += loss.item()
        held_out = {"accuracy": parts.validation, "test_accuracy": parts.test}
        metrics = {
            name: network.accuracy(torch.from_numpy(part.images), torch.from_numpy(part.labels))
            for name, part in held_out.items()
        }
        return network, {"loss": total / updates, **metrics}

    def save(self, network: Network) -> dict[str, Any]:
        """Parameters, momentum buffers (None where there are none) and the generator's state."""
        state = network.optimizer.state
        return {
            "parameters": [parameter.detach() for parameter in network.parameters],
            "momentum": [state[p].get("momentum_buffer") if p in state else None for p in network.parameters],
            "generator": network.generator.get_state(),
        }

    def load(self, tree: Mapping[str, Any], config: Mapping[str, Any]) -> Network:
        """A network with copies of what was saved. No hyperparameter is: each step takes those of its configuration."""
        torch.set_num_threads(1)
        network = _network([saved.clone() for saved in tree["parameters"]], torch.Generator())
        network.generator.set_state(tree["generator"])
        for parameter, saved in zip(network.parameters, tree["momentum"], strict=True):
            if saved is not None:
                network.optimizer.state[parameter]["momentum_buffer"] = saved.clone()
        return network


def _network(parameters: list[Tensor], generator: torch.Generator) -> Network:
    for parameter in parameters:
        parameter.requires_grad_()
    return Network(parameters, torch.optim.SGD(parameters, foreach=False), generator)


image_mlp = ImageMLP()  #: for the command line: ``tunesmith.workloads.mlp:image_mlp``
