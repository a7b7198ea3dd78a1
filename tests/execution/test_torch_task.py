"""Populations as one program, in PyTorch."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from stacked import Stacked, options
from torch import nn
from torch.func import functional_call, grad_and_value

import tunesmith as ts
from tunesmith.execution import TorchTask, Vectorised


class Counting:
    """What ``tunesmith.testing.executors.counting`` does; it fails by a value that is not finite."""

    def init(self, config, generator):
        return {"n": torch.zeros((), dtype=torch.int32)}

    def step(self, state, config, drawn):
        n = state["n"] + 1
        return {"n": n}, {"score": torch.where(n >= config.get("fails", 10**6), torch.nan, n * config["lr"])}


class Toy:
    static = ("width", "batch")

    def init(self, config, generator):
        zero = torch.zeros((), dtype=torch.int32)
        return {"x": zero, "n": zero, "w": torch.randn(config.get("width", 3), generator=generator)}

    def draw(self, config, generator):
        return torch.rand((), generator=generator)

    def step(self, state, config, drawn):
        if config.get("wrong"):
            raise RuntimeError("a mistake on purpose")
        n = state["n"] + 1
        x = (17 * state["x"] + torch.floor(config["lr"] * 2**12).int() + config.get("k", 0)) % 4093
        score = torch.where(n >= config.get("fails", 10**6), torch.nan, x.double())
        return {"x": x.int(), "n": n, "w": state["w"] * 1}, {"score": score, "noise": drawn}


TOY = Toy()


class Test(Stacked):
    train = TorchTask(Counting(), chunk=8, device="cpu")

    @staticmethod
    @cache
    def task(chunk=8, **given):
        return TorchTask(TOY, chunk=chunk, **({"device": "cpu"} | given))


class Network:
    """A module of the user's."""

    def __init__(self):
        self.x = torch.linspace(-1, 1, 64)[:, None]
        self.module = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))

    def init(self, config, generator):
        return {name: torch.randn(p.shape, generator=generator) * 0.5 for name, p in self.module.named_parameters()}

    def draw(self, config, generator):
        return torch.randint(64, (20, 16), generator=generator)

    def step(self, weights, config, rows):
        def loss(weights, x):
            return (functional_call(self.module, weights, (x,)) - x**2).square().mean()

        for batch in rows:
            slope, _ = grad_and_value(loss)(weights, self.x[batch])
            weights = {name: w - config["lr"] * slope[name] for name, w in weights.items()}
        return weights, loss(weights, self.x)


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_a_module_learns_the_same_alone_and_together(chunk, tmp_path):
    executor = Vectorised(TorchTask(Network(), chunk=chunk, device="cpu"), options(tmp_path), members=4)
    for number in range(4):
        executor.submit(ts.Job(number, number, {"lr": 0.02 * (number + 1)}, 0, 3, None, "", number))
    values = {}
    while len(values) < 4:
        values |= {report.ask: report.metrics["score"] for report in executor.wait(1.0) if report.done}
    executor.close()
    alone = TorchTask(Network(), device="cpu")
    study = ts.tune(alone, {"lr": 0.02}, minimise="score", trials=1, steps=3)
    assert study.trials[0].values("score")[1][-1] < study.trials[0].values("score")[1][0]
    for number, losses in values.items():
        assert losses == pytest.approx(reference(number), rel=1e-4)


def reference(number):
    """The same, written out for one member."""
    from tunesmith.rng import subseed

    pure = Network()
    weights = pure.init({}, torch.Generator().manual_seed(number))
    losses = []
    for step in range(3):
        rows = pure.draw({}, torch.Generator().manual_seed(subseed(number, "step", step)))
        weights, loss = pure.step(weights, {"lr": 0.02 * (number + 1)}, rows)
        losses.append(loss.item())
    return losses


class OnDevice(Network):
    """The same network, where it is to be trained."""

    def __init__(self, device):
        super().__init__()
        self.x = self.x.to(device)

    def step(self, weights, config, rows):
        weights, loss = super().step(weights, config, rows)
        return weights, {"score": loss}


class Waiting(OnDevice):
    """A CUDA graph can't be made of this one: it reads a value in the middle."""

    def step(self, weights, config, rows):
        torch.zeros((), device=self.x.device).item()
        return super().step(weights, config, rows)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("chunk", [1, 8])
@pytest.mark.parametrize("make", [OnDevice, Waiting])
def test_a_cuda_graph_trains_as_the_step_does(make, chunk, caplog):
    def best(graph):
        task = TorchTask(make("cuda"), device="cuda", chunk=chunk, graph=graph)
        pbt = ts.schedulers.PBT(population=8, ready=2, steps=8, synchronous=True)
        study = ts.tune(task, {"lr": ts.Float(1e-3, 0.3, log=True)}, minimise="score", scheduler=pbt)
        assert ts.replay(study) == []
        return [trial.last("score") for trial in study.trials]

    assert best(True) == pytest.approx(best(False), rel=1e-3)
    assert ("can't be a CUDA graph" in caplog.text) == (make is Waiting)
