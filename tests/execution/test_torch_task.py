"""Populations as one program, in PyTorch."""

from __future__ import annotations

import re
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


class Pure:
    """A task of two functions; state and metrics by default are what the functions are given."""

    def __init__(self, init=lambda config, rng: {}, step=lambda state, config, drawn: (state, {"score": config["lr"]})):
        self.init, self.step = init, step


def tuned(task, space=None, **given):
    space = {"lr": ts.Float(0.125, 1.0), **(space or {})}
    given = {"sampler": ts.samplers.QMC(), "trials": 6, "scheduler": ts.schedulers.Full(2)} | given
    study = ts.tune(task, space, maximise="score", **given)
    assert ts.replay(study) == []
    return study


def test_init_is_shown_a_configuration_of_the_space():
    """Not one that lies outside: this one divides by its distance from 1."""

    def init(config, generator):
        assert config["beta"] < 0.9 and config["layers"] in (2, 3)
        return {"x": torch.ones(2) / int(1 / (1 - config["beta"]) - 0.5)}

    study = tuned(TorchTask(Pure(init)), {"beta": ts.Float(0.5, 0.9), "layers": ts.Ordinal([2, 3])})
    assert all(trial.status == "complete" for trial in study.trials)


def test_one_member_whose_init_raises_fails_alone():
    def init(config, generator):
        return {"x": torch.ones(2) / int(config["lr"] < 0.5)} if config["lr"] < 0.5 else {"x": torch.ones(2) / (1 // 0)}

    study = tuned(TorchTask(Pure(init)))
    assert {trial.status for trial in study.trials} == {"complete", "failed"}
    assert all((trial.status == "failed") == (trial.config["lr"] >= 0.5) for trial in study.trials)


@pytest.mark.parametrize("chunk", [1, None])
def test_one_member_whose_step_raises_fails_alone(chunk):
    def step(state, config, drawn):
        if config["lr"].item() > 0.5:
            raise ArithmeticError("on purpose")
        return state, {"score": config["lr"]}

    study = tuned(TorchTask(Pure(step=step), chunk=chunk))
    assert {trial.status for trial in study.trials} == {"complete", "failed"}
    assert all((trial.status == "failed") == (trial.config["lr"] > 0.5) for trial in study.trials)


@pytest.mark.parametrize("chunk", [1, 8])
@pytest.mark.parametrize("state", [{}, [], {"a": {}}])
def test_a_state_may_be_empty(state, chunk, tmp_path):
    study = tuned(TorchTask(Pure(init=lambda config, rng: state), chunk=chunk), store=tmp_path / "study.db")
    assert all(trial.last("score") == pytest.approx(trial.config["lr"]) for trial in study.trials)
    constant = Pure(lambda config, rng: state, lambda state, config, drawn: (state, 3.0))
    assert tuned(TorchTask(constant, chunk=chunk), {"lr": 1}, trials=1).best.last("score") == 3.0


def test_a_dict_may_come_back_in_another_order():
    def step(state, config, drawn):
        return {"b": state["b"] + 1, "a": state["a"]}, {"score": state["b"].sum() - state["a"].sum()}

    task = TorchTask(Pure(lambda config, rng: {"a": torch.ones(1), "b": torch.zeros(2)}, step), chunk=8)
    assert {trial.values("score")[1][-1] for trial in tuned(task).trials} == {1.0}


def ones(config, generator):
    return {"w": torch.ones(3)}


def drawing(state, config, drawn):
    return state, {"score": torch.rand(())}


def reading(state, config, drawn):
    return state, {"score": config["lr"].item()}


def branching(state, config, drawn):
    return state, {"score": config["lr"] if config["lr"] > 0.5 else config["lr"] * 2}


@pytest.mark.parametrize(
    ("pure", "message"),
    [
        (Pure(lambda config, rng: None), "state is None: a state is made of tensors"),
        (Pure(lambda config, rng: {"w": torch.ones(3), "m": None}), "m is None"),
        (Pure(ones, lambda s, c, d: (s, s["w"])), r"the metric has the shape \(3,\)"),
        (Pure(ones, lambda s, c, d: (s, {"score": s["w"]})), r"the metric 'score' has the shape \(3,\)"),
        (Pure(step=lambda s, c, d: (s, {"score": c["lr"] * 1j})), "the metric 'score' is complex"),
        (Pure(step=lambda s, c, d: (s, {"score": "good"})), "the metric 'score' is 'good', a str"),
        (Pure(ones, lambda s, c, d: ({"v": s["w"]}, 0.0)), "first one has, w; it has v"),
        (
            Pure(ones, lambda s, c, d: ({"w": s["w"][:2]}, 0.0)),
            r"w of the state must stay torch.float32\[3\], .* it is torch.float32\[2\]",
        ),
        (Pure(step=drawing), "random numbers belong into draw"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 8, None])
def test_mistakes_are_explained(pure, message, chunk, tmp_path):
    executor = Vectorised(TorchTask(pure, chunk=chunk), options(tmp_path), members=2)
    for number in range(2):
        executor.submit(ts.Job(number, number, {"lr": 0.5}, 0, 1, None, "", 0))
    reports = []
    while len(reports) < 2:
        reports += executor.wait(1.0)
    executor.close()
    assert all(re.search(message, report.failure.error) for report in reports), reports[0].failure.error


@pytest.mark.parametrize("step", [reading, branching])
def test_what_vmap_can_not_do_is_done_one_by_one(step, caplog):
    study = tuned(TorchTask(Pure(step=step)))
    assert all(trial.status == "complete" for trial in study.trials)
    assert "members are trained one after the other; together it fails: vmap" in caplog.text
    with pytest.raises(ts.TunesmithError, match="name the hyperparameter in static or give chunk=1"):
        tuned(TorchTask(Pure(step=step), chunk=8))


def test_a_shape_that_depends_on_a_number_is_explained():
    study = tuned(TorchTask(Pure(lambda config, rng: {"w": torch.ones(config["k"])})), {"k": ts.Integer(1, 3)})
    failed = [trial for trial in study.trials if trial.status == "failed"]
    assert {trial.config["k"] for trial in study.trials if trial not in failed} == {study.trials[0].config["k"]}
    assert failed and all("decides a shape must be static" in trial.error for trial in failed)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_named_before_anything_is_trained(device):
    with pytest.raises(ValueError, match=f"device='{device}': "):
        tuned(TorchTask(Pure(), device=device))


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
