"""A workload as a user has one: logistic regression on the digits, in PyTorch."""

from __future__ import annotations

import math

import torch
from sklearn.datasets import load_digits
from torch.nn import functional


class Digits:
    epochs = 3

    def train(self, make_optimizer, seed):
        torch.manual_seed(seed)
        images, labels = load_digits(return_X_y=True)
        x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
        parts = {"train": slice(0, 1000), "validation": slice(1000, 1400), "test": slice(1400, None)}
        model = torch.nn.Linear(64, 10)
        optimizer = make_optimizer(model.parameters())
        for _ in range(self.epochs):
            for rows in torch.randperm(1000).split(100):
                optimizer.zero_grad()
                functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                wrong = (model(x).argmax(1) != y).float()
            yield {name: wrong[part].mean().item() for name, part in parts.items()}


class Diverging:
    epochs = 2

    def train(self, make_optimizer, seed):
        weight = torch.ones(1, requires_grad=True)
        optimizer = make_optimizer([weight])
        for _ in range(self.epochs):
            (weight.sum() * 1e30).backward()
            optimizer.step()
            yield {"validation": weight.item() * float("inf")}


class DivergingWithSGD(Diverging):
    def train(self, make_optimizer, seed):
        weight = torch.ones(1, requires_grad=True)
        plain = type(make_optimizer([weight])).__name__ == "SGD"
        yield {"validation": float("nan") if plain else 0.5}
        yield {"validation": 0.4}


class FarAway:
    """The best learning rate is far beyond the range that is searched first."""

    epochs = 1

    def train(self, make_optimizer, seed):
        optimizer = make_optimizer([torch.ones(1, requires_grad=True)])
        yield {"validation": abs(math.log10(optimizer.param_groups[0]["lr"] / 1e3))}


class WithoutValidation:
    epochs = 1

    def train(self, make_optimizer, seed):
        yield {"loss": 1.0}
