"""Optimizers against each other on the digits, each tuned in a space of its own.

    tunesmith compare examples/compare_optimizers.py:Digits --trials 25 --report final.test --target 0.1

A workload is a class with ``epochs`` and ``train``, a generator that yields metrics after every epoch; ``validation``
is what trials are compared by.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional


class Digits:
    """A small network; errors on 500 validation and 497 test images."""

    epochs = 15

    def train(self, make_optimizer: Any, seed: int) -> Iterator[dict[str, float]]:
        """One training."""
        torch.manual_seed(seed)
        images, labels = load_digits(return_X_y=True)
        x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        optimizer = make_optimizer(model.parameters())
        for _ in range(self.epochs):
            for rows in torch.randperm(800).split(50):
                optimizer.zero_grad()
                functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                wrong = (model(x).argmax(1) != y).float()
            yield {"validation": wrong[800:1300].mean().item(), "test": wrong[1300:].mean().item()}
