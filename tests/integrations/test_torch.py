"""After a fork the new hyperparameters hold, and the optimizer's memory is restored."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from tunesmith.execution import Checkpoints
from tunesmith.integrations.torch import load_optimizer, load_scheduler

OLD = {"sgd": {"lr": 0.1, "momentum": 0.9}, "adam": {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.1}}
NEW = {"sgd": {"lr": 0.02, "momentum": 0.5}, "adam": {"lr": 0.02, "betas": (0.8, 0.999), "weight_decay": 0.0}}
KINDS = {"sgd": optim.SGD, "adam": optim.Adam}


def train(model, optimizer, scheduler=None, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def made(kind, options):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return model, KINDS[kind](model.parameters(), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_new_hyperparameters_and_old_memory(kind, tmp_path):
    model, optimizer = made(kind, OLD[kind])
    train(model, optimizer)
    saved = Checkpoints(tmp_path).save(0, 3, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    tree = Checkpoints(tmp_path).load(saved.where, saved.digest)

    _, naive = made(kind, NEW[kind])
    naive.load_state_dict(tree["optimizer"])
    assert naive.param_groups[0]["lr"] == OLD[kind]["lr"]  # that is the trap

    other_model, other = made(kind, NEW[kind])
    other_model.load_state_dict(tree["model"])
    load_optimizer(other, tree["optimizer"])
    for name, value in NEW[kind].items():
        assert other.param_groups[0][name] == value
    before, after = optimizer.state_dict()["state"], other.state_dict()["state"]
    assert before.keys() == after.keys()
    for index, memory in before.items():
        for name, value in memory.items():
            torch.testing.assert_close(after[index][name], value)
    train(other_model, other, steps=1)  # it goes on


def test_equal_hyperparameters_go_on_as_if_nothing_had_been(tmp_path):
    model, optimizer = made("adam", OLD["adam"])
    train(model, optimizer)
    saved = Checkpoints(tmp_path).save(0, 3, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    tree = Checkpoints(tmp_path).load(saved.where, saved.digest)
    other_model, other = made("adam", OLD["adam"])
    other_model.load_state_dict(tree["model"])
    load_optimizer(other, tree["optimizer"])
    train(model, optimizer)
    train(other_model, other)
    torch.testing.assert_close(other_model.state_dict(), model.state_dict())


def test_other_parameter_groups_are_refused():
    _, optimizer = made("sgd", OLD["sgd"])
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    other = optim.SGD([{"params": one.parameters()}, {"params": two.parameters(), "lr": 0.5}], lr=0.1)
    with pytest.raises(ValueError, match="parameter group"):
        load_optimizer(other, optimizer.state_dict())


SCHEDULES = {
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5),
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch)),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.001),
    "exponential": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, gamma=0.9),
    "onecycle": lambda optimizer: lr_scheduler.OneCycleLR(
        optimizer, max_lr=optimizer.param_groups[0]["lr"], total_steps=20
    ),
    "restarts": lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=3),
    "sequence": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=2),
            lr_scheduler.ExponentialLR(optimizer, gamma=0.9),
        ],
        milestones=[2],
    ),
}


@pytest.mark.filterwarnings("ignore:.*epoch parameter.*:UserWarning")
@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedule_goes_on_with_the_new_base(kind):
    """As if it had been trained with the new base learning rate from the beginning."""
    model, optimizer = made("sgd", OLD["sgd"])
    scheduler = SCHEDULES[kind](optimizer)
    train(model, optimizer, scheduler, steps=5)

    wanted_model, wanted = made("sgd", NEW["sgd"])
    wanted_scheduler = SCHEDULES[kind](wanted)
    train(wanted_model, wanted, wanted_scheduler, steps=5)

    other_model, other = made("sgd", NEW["sgd"])
    other_scheduler = SCHEDULES[kind](other)
    load_optimizer(other, optimizer.state_dict())
    load_scheduler(other_scheduler, scheduler.state_dict())
    assert other_scheduler.last_epoch == 5
    for _ in range(5):
        assert other.param_groups[0]["lr"] == pytest.approx(wanted.param_groups[0]["lr"], rel=1e-6)
        train(wanted_model, wanted, wanted_scheduler, steps=1)
        train(other_model, other, other_scheduler, steps=1)


def test_plateau_keeps_its_counters_and_the_new_rate():
    _, optimizer = made("sgd", OLD["sgd"])
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
    for _ in range(3):
        scheduler.step(1.0)
    _, other = made("sgd", NEW["sgd"])
    other_scheduler = lr_scheduler.ReduceLROnPlateau(other, patience=5)
    load_scheduler(other_scheduler, scheduler.state_dict())
    assert (other_scheduler.best, other_scheduler.num_bad_epochs) == (1.0, 2)
    assert other_scheduler.patience == 5
    assert other.param_groups[0]["lr"] == NEW["sgd"]["lr"]
