"""Population based training of a PyTorch network on scikit-learn's digits, with worker processes and a stored study.

Run it, stop it with Ctrl-C, run it again: it goes on where it was. Needs the extra ``demo``.
"""

from __future__ import annotations

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import tunesmith as ts
from tunesmith.integrations.torch import load_optimizer

SPACE = ts.Space({"lr": ts.Float(1e-4, 1.0, log=True), "momentum": ts.Float(0.0, 0.99), "dropout": ts.Float(0.0, 0.8)})


class Digits:
    """One step is 20 updates; a member can be saved, loaded into another process, and forked."""

    def setup(self, config: dict, seed: int) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        x, y = load_digits(return_X_y=True)
        x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        self.train, self.validation = order[:1200], order[1200:1500]
        self.x, self.y = x, y
        self.dropout = nn.Dropout(config["dropout"])
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), self.dropout, nn.Linear(64, 10))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=config["lr"], momentum=config["momentum"])

    def step(self) -> dict:
        self.model.train()
        for _ in range(20):
            batch = self.train[torch.randint(len(self.train), (128,))]
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(self.x[batch]), self.y[batch]).backward()
            self.optimizer.step()
        self.model.eval()
        with torch.no_grad():
            guess = self.model(self.x[self.validation]).argmax(1)
        return {"accuracy": (guess == self.y[self.validation]).float().mean().item()}

    def save(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }

    def load(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])  # the momentum buffers, not the old learning rate
        torch.set_rng_state(state["random"])


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    pbt = ts.schedulers.PBT(population=8, ready=max(1, steps // 10), steps=steps)
    study = ts.tune(
        Digits, SPACE, maximise="accuracy", scheduler=pbt, sampler=ts.samplers.QMC(), workers=2, store="digits.db"
    )
    print(study.best.config, study.best.metrics)
