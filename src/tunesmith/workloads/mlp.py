"""A small neural network that learns to tell images apart: the workload of the demo.

One *step* of the study is ``updates`` minibatch updates followed by one evaluation, so that a step costs the same for
every configuration and that a value is there for every decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from tunesmith.space import Float, Space
from tunesmith.workloads import images

BATCH = 64
_HIDDEN = {"digits": (32,), "fashion-mnist": (128,)}
_UPDATES = {"digits": 20, "fashion-mnist": 100}
_CHUNK = 2000  # images evaluated at a time: keeps the activations in the processor's cache


def space() -> Space:
    """What is searched: everything that the training of the network can change from one step to the next."""
    return Space(
        {
            "lr": Float(1e-4, 1.0, log=True),
            "momentum": Float(0.0, 0.99),
            "weight_decay": Float(1e-6, 1e-1, log=True),
            "dropout": Float(0.0, 0.8),
            "label_smoothing": Float(0.0, 0.3),
        }
    )


class ImageMLP:
    """A perceptron with ReLU, dropout before every layer but the first, trained by SGD with momentum.

    Equal configuration and seed give an equal training; ``save`` holds everything that the next step depends on, the
    random generator included, so that a loaded task goes on exactly where the saved one stood. The global state of
    PyTorch's generator is neither read nor changed.

    Args:
        data: ``digits`` or ``fashion-mnist``.
        data_dir: see `images.load`.
        updates: minibatch updates a step; by default 20 for the digits and 100 for Fashion-MNIST.
    """

    def __init__(self, data: str = "digits", data_dir: str | Path | None = None, updates: int | None = None) -> None:
        torch.set_num_threads(1)
        parts = images.load(data, data_dir)
        self.train, self.validation, self.test = (
            (torch.from_numpy(part.images.copy()), torch.from_numpy(part.labels.copy()))
            for part in (parts.train, parts.validation, parts.test)
        )
        self.widths = (parts.pixels, *_HIDDEN[data], parts.classes)
        self.updates = updates or _UPDATES[data]

    def setup(self, config: Mapping[str, Any], seed: int = 0) -> None:
        """Fresh weights (He initialisation) and a fresh optimizer."""
        self.generator = torch.Generator().manual_seed(seed % 2**63)
        self.weights: list[torch.Tensor] = []
        self.biases: list[torch.Tensor] = []
        for inputs, outputs in zip(self.widths[:-1], self.widths[1:], strict=True):
            weight = torch.randn(outputs, inputs, generator=self.generator) * (2 / inputs) ** 0.5
            self.weights.append(weight.requires_grad_())
            self.biases.append(torch.zeros(outputs, requires_grad=True))
        self.optimizer = torch.optim.SGD([*self.weights, *self.biases])
        self.reconfigure(config)

    def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Go on with other hyperparameters: weights and momentum buffers stay."""
        self.dropout = float(config["dropout"])
        self.label_smoothing = float(config["label_smoothing"])
        for group in self.optimizer.param_groups:
            group.update({name: float(config[name]) for name in ("lr", "momentum", "weight_decay")})

    def step(self) -> dict[str, float]:
        """``updates`` minibatches drawn with replacement, then an evaluation.

        Returns:
            ``accuracy`` on the validation images (the goal), ``loss`` (mean training loss of this step, in nats) and
            ``test_accuracy``, which is for reports: nothing may decide by it.
        """
        inputs, labels = self.train
        total = 0.0
        for _ in range(self.updates):
            batch = torch.randint(len(labels), (BATCH,), generator=self.generator)
            logits = self._forward(inputs[batch], self.dropout)
            loss = functional.cross_entropy(logits, labels[batch], label_smoothing=self.label_smoothing)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.item()
        return {
            "accuracy": self._accuracy(*self.validation),
            "loss": total / self.updates,
            "test_accuracy": self._accuracy(*self.test),
        }

    def save(self) -> dict[str, Any]:
        """Weights, biases, momentum buffers (empty before the first step with momentum) and the generator's state."""
        state = self.optimizer.state
        buffers = [state[p].get("momentum_buffer") if p in state else None for p in (*self.weights, *self.biases)]
        return {
            "weights": [weight.detach().clone() for weight in self.weights],
            "biases": [bias.detach().clone() for bias in self.biases],
            "momentum": [None if buffer is None else buffer.clone() for buffer in buffers],
            "generator": self.generator.get_state(),
        }

    def load(self, tree: Mapping[str, Any]) -> None:
        """Take over a saved state. The hyperparameters are those of ``setup`` or ``reconfigure``, not the saved run's."""
        parameters = (*self.weights, *self.biases)
        with torch.no_grad():
            for parameter, saved in zip(parameters, (*tree["weights"], *tree["biases"]), strict=True):
                parameter.copy_(saved)
        self.optimizer.state.clear()
        for parameter, saved in zip(parameters, tree["momentum"], strict=True):
            if saved is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = saved.clone()
        self.generator.set_state(tree["generator"])

    def _forward(self, batch: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
        """Logits [n, classes] of images [n, pixels]."""
        hidden = batch.float() / 255
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if depth:
                hidden = torch.relu(hidden)
                if dropout:
                    keep = torch.rand(hidden.shape, generator=self.generator) >= dropout
                    hidden = hidden * keep / (1 - dropout)
            hidden = functional.linear(hidden, weight, bias)
        return hidden

    @torch.no_grad()
    def _accuracy(self, inputs: torch.Tensor, labels: torch.Tensor) -> float:
        """Share of images whose class has the largest logit."""
        right = 0
        for chunk, truth in zip(inputs.split(_CHUNK), labels.split(_CHUNK), strict=True):
            right += int((self._forward(chunk).argmax(1) == truth).sum())
        return right / len(labels)
