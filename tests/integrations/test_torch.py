"""After a fork the new hyperparameters hold, and the optimizer's memory is restored."""

from __future__ import annotations

import copy
import re
import subprocess
import sys

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR
from torch.utils._pytree import tree_flatten

import tunesmith as ts
from tunesmith.execution import Checkpoints
from tunesmith.integrations.torch import load_optimizer, load_scheduler

pytestmark = [  # of SequentialLR in some versions, and of what is nested in it
    pytest.mark.filterwarnings("ignore:.*epoch parameter.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
]

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


ROUNDS = 14  # long enough for every phase, restart and reduction below
LOSSES = [3.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.9]  # with plateaus

#: every schedule of torch, made from a base learning rate
SCHEDULES = {
    "lambda": lambda opt, lr: lr_scheduler.LambdaLR(opt, lambda epoch: 1 / (1 + epoch)),
    "lambdas": lambda opt, lr: lr_scheduler.LambdaLR(opt, [lambda epoch: 0.9**epoch, lambda epoch: 1 / (1 + epoch)]),
    "multiplicative": lambda opt, lr: lr_scheduler.MultiplicativeLR(opt, lambda epoch: 0.5 + 0.04 * epoch),
    "step": lambda opt, lr: lr_scheduler.StepLR(opt, step_size=3, gamma=0.3),
    "multistep": lambda opt, lr: lr_scheduler.MultiStepLR(opt, [2, 5, 5, 9], gamma=0.3),
    "constant": lambda opt, lr: lr_scheduler.ConstantLR(opt, factor=0.3, total_iters=5),
    "linear": lambda opt, lr: lr_scheduler.LinearLR(opt, start_factor=0.3, total_iters=7),
    "exponential": lambda opt, lr: lr_scheduler.ExponentialLR(opt, gamma=0.83),
    "polynomial": lambda opt, lr: lr_scheduler.PolynomialLR(opt, total_iters=9, power=1.7),
    "cosine": lambda opt, lr: lr_scheduler.CosineAnnealingLR(opt, T_max=5),
    "restarts": lambda opt, lr: lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=2, T_mult=2),
    "onecycle": lambda opt, lr: lr_scheduler.OneCycleLR(opt, max_lr=lr, total_steps=20),
    "onecycle in three": lambda opt, lr: lr_scheduler.OneCycleLR(opt, max_lr=lr, total_steps=17, three_phase=True),
    "cyclic": lambda opt, lr: lr_scheduler.CyclicLR(opt, lr / 10, lr, step_size_up=3, mode="triangular2"),
    "cyclic, own scale": lambda opt, lr: lr_scheduler.CyclicLR(
        opt, lr / 10, lr, step_size_up=3, scale_fn=lambda x: 0.7**x, scale_mode="iterations"
    ),
    "plateau": lambda opt, lr: lr_scheduler.ReduceLROnPlateau(opt, factor=0.3, patience=1),
    "plateau, cooling": lambda opt, lr: lr_scheduler.ReduceLROnPlateau(opt, patience=0, cooldown=2, min_lr=lr / 50),
    "averaging": lambda opt, lr: SWALR(opt, swa_lr=lr / 7, anneal_epochs=6),
    "averaging, linear": lambda opt, lr: SWALR(opt, swa_lr=lr / 7, anneal_epochs=20, anneal_strategy="linear"),
    "sequence": lambda opt, lr: lr_scheduler.SequentialLR(
        opt,
        [
            lr_scheduler.ConstantLR(opt, factor=0.5, total_iters=2),
            lr_scheduler.ExponentialLR(opt, gamma=0.9),
            lr_scheduler.CosineAnnealingLR(opt, T_max=5),
        ],
        milestones=[2, 6],
    ),
    "sequence with momentum": lambda opt, lr: lr_scheduler.SequentialLR(
        opt,
        [lr_scheduler.OneCycleLR(opt, max_lr=lr, total_steps=12), lr_scheduler.StepLR(opt, step_size=2, gamma=0.5)],
        milestones=[7],
    ),
    "sequence in a sequence": lambda opt, lr: lr_scheduler.SequentialLR(
        opt,
        [
            lr_scheduler.SequentialLR(
                opt,
                [lr_scheduler.LinearLR(opt, 0.2, total_iters=3), lr_scheduler.ExponentialLR(opt, gamma=0.8)],
                milestones=[3],
            ),
            lr_scheduler.CosineAnnealingLR(opt, T_max=9),
        ],
        milestones=[6],
    ),
    "chain in a sequence": lambda opt, lr: lr_scheduler.SequentialLR(
        opt,
        [
            lr_scheduler.ChainedScheduler(
                [lr_scheduler.LinearLR(opt, 0.2, total_iters=3), lr_scheduler.ExponentialLR(opt, gamma=0.8)]
            ),
            lr_scheduler.CosineAnnealingLR(opt, T_max=9),
        ],
        milestones=[6],
    ),
    "chain": lambda opt, lr: lr_scheduler.ChainedScheduler(
        [
            lr_scheduler.LinearLR(opt, start_factor=0.2, total_iters=4),
            lr_scheduler.ExponentialLR(opt, gamma=0.9),
            lr_scheduler.MultiplicativeLR(opt, lambda epoch: 1 - 0.01 * epoch),
        ]
    ),
    "chain with momentum": lambda opt, lr: lr_scheduler.ChainedScheduler(
        [lr_scheduler.OneCycleLR(opt, max_lr=lr, total_steps=20), lr_scheduler.ExponentialLR(opt, gamma=0.9)]
    ),
    "warm up, then plateau": lambda opt, lr: [
        lr_scheduler.LinearLR(opt, start_factor=0.2, total_iters=3),
        lr_scheduler.ReduceLROnPlateau(opt, factor=0.3, patience=1),
    ],
    "plateau before a decay": lambda opt, lr: [
        lr_scheduler.ReduceLROnPlateau(opt, factor=0.3, patience=1),
        lr_scheduler.ExponentialLR(opt, gamma=0.9),
    ],
}
ALL_OF_TORCH = {*lr_scheduler.__all__, "SWALR"} - {"LRScheduler"}


class Training:
    """A network of two parameter groups with an optimizer and schedules, as a user writes it."""

    def __init__(self, kind="momentum", schedule="step", lr=0.1, state=None, **options):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        groups = [{"params": self.model[0].parameters()}, {"params": self.model[2].parameters(), "lr": lr / 3}]
        self.optimizer = OPTIMIZERS[kind](groups, lr, **options)
        made = [] if schedule is None else SCHEDULES[schedule](self.optimizer, lr)
        self.schedulers = made if isinstance(made, list) else [made]
        self.rounds = 0
        if state is not None:
            self.load(state)

    def load(self, state):
        self.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        for scheduler, its in zip(self.schedulers, state["schedulers"], strict=True):
            load_scheduler(scheduler, its)
        self.rounds = state["rounds"]

    def state(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "rounds": self.rounds,
        }

    def step(self):
        data = torch.linspace(-1, 1, 24).reshape(8, 3) + 0.01 * self.rounds

        def loss():
            self.optimizer.zero_grad()
            value = (self.model(data) - data[:, :2]).square().mean()
            value.backward()
            return value

        self.optimizer.step(loss)
        for scheduler in self.schedulers:
            if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                scheduler.step(LOSSES[self.rounds])
            else:
                scheduler.step()
        self.rounds += 1

    def run(self, until):
        while self.rounds < until:
            self.step()
        return self

    def seen(self):
        """All that a load could get wrong."""
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        weights = [parameter.detach().clone() for parameter in self.model.parameters()]
        return {"groups": copy.deepcopy(groups), "weights": weights}

    def rates(self):
        return [float(group["lr"]) for group in self.optimizer.param_groups]


OPTIMIZERS = {
    "momentum": lambda groups, lr, **more: optim.SGD(groups, **{"lr": lr, "momentum": 0.9} | more),
    "adam": lambda groups, lr, **more: optim.AdamW(groups, lr=lr, **more),
}
#: every optimizer of torch; LBFGS takes one group only, and SparseAdam sparse gradients
OTHERS = {
    "SGD": {"momentum": 0.9, "nesterov": True}, "Adam": {"amsgrad": True}, "AdamW": {}, "NAdam": {}, "RAdam": {},
    "Adamax": {}, "Adagrad": {"lr_decay": 0.01}, "Adadelta": {}, "Adafactor": {}, "ASGD": {"lambd": 0.01, "t0": 3},
    "RMSprop": {"momentum": 0.5, "centered": True}, "Rprop": {},
}  # fmt: skip
OPTIMIZERS |= {
    name: lambda groups, lr, name=name, **more: getattr(optim, name)(groups, lr=lr, **OTHERS[name] | more)
    for name in OTHERS
}


def through_a_file(state, folder):
    saved = Checkpoints(folder).save(0, 1, state)
    return Checkpoints(folder).load(saved.where, saved.digest)


def assert_same(one, other):
    """Equal to the bit."""
    leaves, others = tree_flatten(one), tree_flatten(other)
    assert leaves[1] == others[1]
    for leaf, its in zip(leaves[0], others[0], strict=True):
        assert type(leaf) is type(its)
        assert torch.equal(leaf, its) if isinstance(leaf, torch.Tensor) else leaf == its


def names(scheduler):
    return {type(scheduler).__name__}.union(*(names(inner) for inner in getattr(scheduler, "_schedulers", ())))


def test_every_schedule_of_torch_is_tried():
    assert (
        set().union(*(names(one) for kind in SCHEDULES for one in Training(schedule=kind).schedulers)) == ALL_OF_TORCH
    )


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_training_that_is_loaded_again_and_again_is_the_uninterrupted_one(kind, optimizer, tmp_path):
    """To the bit, with a load before every step: weights, learning rates, momentum."""
    whole, parts = Training(optimizer, kind), Training(optimizer, kind)
    for _ in range(ROUNDS):
        whole.step()
        parts.step()
        parts = Training(optimizer, kind, state=through_a_file(parts.state(), tmp_path))
        assert_same(parts.seen(), whole.seen())
        assert [one.get_last_lr() for one in parts.schedulers][-1] == whole.rates()


@pytest.mark.parametrize("at", [1, 6])
@pytest.mark.parametrize("order", ["schedule made late", "schedule loaded first"])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_in_another_order(kind, order, at):
    whole = Training("adam", kind).run(at)
    state = copy.deepcopy(whole.state())
    parts = Training("adam", None if "late" in order else kind)
    parts.model.load_state_dict(state["model"])
    if "late" in order:
        load_optimizer(parts.optimizer, state["optimizer"])
        made = SCHEDULES[kind](parts.optimizer, 0.1)
        parts.schedulers = made if isinstance(made, list) else [made]
    for scheduler, its in zip(parts.schedulers, state["schedulers"], strict=True):
        load_scheduler(scheduler, its)
    if "first" in order:
        load_optimizer(parts.optimizer, state["optimizer"])
    parts.rounds = at
    assert_same(parts.seen(), whole.seen())
    assert_same(parts.run(at + 3).seen(), whole.run(at + 3).seen())


@pytest.mark.parametrize("at", range(ROUNDS))
@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_new_base_takes_the_place_of_the_old_one(kind, at):
    """The learning rates are those of a training that had the new base from the beginning."""
    old, wanted = Training(schedule=kind).run(at), Training(schedule=kind, lr=0.02).run(at)
    forked = Training(schedule=kind, lr=0.02, state=old.state())
    for _ in range(ROUNDS - at):
        assert forked.rates() == pytest.approx(wanted.rates(), rel=1e-9, abs=1e-15)
        groups = zip(forked.optimizer.param_groups, wanted.optimizer.param_groups, strict=True)
        assert all(one["momentum"] == other["momentum"] for one, other in groups)
        forked.step()
        wanted.step()


@pytest.mark.parametrize("at", [0, 1, 4, 7, 11])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_forks_of_forks(kind, at):
    """There and back: what counts is the base rate of the configuration, however often it was changed."""
    wanted = Training(schedule=kind).run(at)
    state = wanted.state()
    for lr in (0.02, 0.7, 0.1):
        state = Training(schedule=kind, lr=lr, state=state).state()
    assert Training(schedule=kind, state=state).rates() == pytest.approx(wanted.rates(), rel=1e-9, abs=1e-15)


def test_what_a_state_holds_is_not_changed_by_loading_it():
    training = Training("adam", "onecycle").run(3)
    state = training.state()
    before = copy.deepcopy(state)
    Training("adam", "onecycle", lr=0.02, state=state).run(6)
    assert_same(state, before)
    assert_same(Training("adam", "onecycle", state=state).run(9).seen(), training.run(9).seen())


CHANGED = {  # a schedule, and the same kind with other hyperparameters
    "step": lambda opt, lr: lr_scheduler.StepLR(opt, step_size=2, gamma=0.9),
    "multistep": lambda opt, lr: lr_scheduler.MultiStepLR(opt, [3, 4], gamma=0.7),
    "constant": lambda opt, lr: lr_scheduler.ConstantLR(opt, factor=0.7, total_iters=6),
    "linear": lambda opt, lr: lr_scheduler.LinearLR(opt, start_factor=0.1, total_iters=9),
    "exponential": lambda opt, lr: lr_scheduler.ExponentialLR(opt, gamma=0.97),
    "polynomial": lambda opt, lr: lr_scheduler.PolynomialLR(opt, total_iters=12, power=1.1),
    "cosine": lambda opt, lr: lr_scheduler.CosineAnnealingLR(opt, T_max=9, eta_min=0.001),
    "restarts": lambda opt, lr: lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=3, eta_min=0.001),
    "onecycle": lambda opt, lr: lr_scheduler.OneCycleLR(opt, max_lr=lr, total_steps=16, div_factor=3, max_momentum=0.7),
    "cyclic": lambda opt, lr: lr_scheduler.CyclicLR(opt, lr / 4, lr, step_size_up=2, base_momentum=0.5),
    "lambda": lambda opt, lr: lr_scheduler.LambdaLR(opt, lambda epoch: 0.5**epoch),
    "averaging": lambda opt, lr: SWALR(opt, swa_lr=lr / 2, anneal_epochs=15),
    "sequence": lambda opt, lr: lr_scheduler.SequentialLR(
        opt,
        [
            lr_scheduler.ConstantLR(opt, factor=0.9, total_iters=3),
            lr_scheduler.ExponentialLR(opt, gamma=0.95),
            lr_scheduler.CosineAnnealingLR(opt, T_max=9),
        ],
        milestones=[3, 5],
    ),
    "chain": lambda opt, lr: lr_scheduler.ChainedScheduler(
        [
            lr_scheduler.LinearLR(opt, start_factor=0.3, total_iters=6),
            lr_scheduler.ExponentialLR(opt, gamma=0.95),
            lr_scheduler.MultiplicativeLR(opt, lambda epoch: 1 - 0.01 * epoch),
        ]
    ),
}


@pytest.mark.parametrize("at", range(ROUNDS))
@pytest.mark.parametrize("kind", CHANGED)
def test_other_hyperparameters_of_a_schedule_count_from_its_beginning(kind, at, monkeypatch):
    """Those of a schedule that was made with them: also where the old one was at another phase at this step."""
    state = Training(schedule=kind).run(at).state()
    monkeypatch.setitem(SCHEDULES, kind, CHANGED[kind])
    wanted, forked = Training(schedule=kind, lr=0.02).run(at), Training(schedule=kind, lr=0.02, state=state)
    for _ in range(at, ROUNDS):
        assert forked.rates() == pytest.approx(wanted.rates(), rel=1e-9)
        forked.step()
        wanted.step()


def test_plateau_keeps_its_counters_and_its_reductions():
    _, optimizer = made("sgd", OLD["sgd"])
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
    for _ in range(8):
        scheduler.step(1.0)
    _, other = made("sgd", NEW["sgd"])
    other_scheduler = lr_scheduler.ReduceLROnPlateau(other, patience=5)
    load_scheduler(other_scheduler, scheduler.state_dict())
    assert (other_scheduler.best, other_scheduler.num_bad_epochs, other_scheduler.last_epoch) == (1.0, 3, 8)
    assert other_scheduler.patience == 5
    assert other.param_groups[0]["lr"] == pytest.approx(NEW["sgd"]["lr"] / 10)


def members(config, state=None):
    """A generator whose learning rate falls on a plateau."""
    training = Training(schedule="plateau", lr=config["lr"], state=state)
    while True:
        training.step()
        first, second = training.rates()
        yield {"loss": config["lr"], "first": first, "second": second}, training.state


@pytest.mark.parametrize("explore", [None, ts.schedulers.Perturb()])
def test_the_training_of_a_population_does_not_depend_on_who_stays_in_memory(explore):
    """Of four members two stay; they train in turns, so every turn begins with a load, and with another base."""
    scheduler = ts.schedulers.PBT(population=4, ready=3, steps=12, exploit=None, explore=explore)
    study = ts.tune(members, {"lr": ts.Float(0.01, 1.0, log=True)}, minimise="loss", scheduler=scheduler)
    assert len(study.trials) == (4 if explore is None else 16)
    for trial in study.trials:
        training = Training(schedule="plateau", lr=trial.config["lr"]).run(trial.start)
        for step, first, second in zip(*trial.values("first"), trial.values("second")[1], strict=True):
            wanted = training.run(step).rates()
            assert [first, second] == (wanted if explore is None else pytest.approx(wanted, rel=1e-12))


@pytest.mark.parametrize("rounds", [1, 4, 8, 12])
def test_a_plateau_schedule_that_kept_no_note_of_its_base(rounds):
    """Made before the module was imported: the same configuration is recognised, another base up to a factor of 3."""
    training = Training(schedule="plateau").run(rounds)
    state = training.state()
    for its in state["schedulers"]:
        del its["base_lrs"]
    assert Training(schedule="plateau", state=state).rates() == training.rates()
    wanted = [rate * 1.2 for rate in training.rates()]
    assert Training(schedule="plateau", lr=0.12, state=state).rates() == pytest.approx(wanted)


def test_a_learning_rate_that_is_a_tensor_stays_the_same_tensor():
    old = Training("momentum", "exponential", lr=torch.tensor(0.1)).run(3)
    new = Training("momentum", "exponential", lr=torch.tensor(0.2))
    tensors = [group["lr"] for group in new.optimizer.param_groups]
    new.load(old.state())
    assert all(group["lr"] is one for group, one in zip(new.optimizer.param_groups, tensors, strict=True))
    assert new.rates() == pytest.approx([2 * rate for rate in old.rates()])


# -- optimizers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [None, "exponential"])
@pytest.mark.parametrize("kind", OTHERS)
def test_every_optimizer_goes_on_as_if_nothing_had_been(kind, schedule, tmp_path):
    whole, parts = Training(kind, schedule), Training(kind, schedule)
    for _ in range(6):
        whole.step()
        parts.step()
        parts = Training(kind, schedule, state=through_a_file(parts.state(), tmp_path))
        assert_same(parts.seen(), whole.seen())
    assert_same(parts.state()["optimizer"]["state"], whole.state()["optimizer"]["state"])


@pytest.mark.parametrize(
    "flags", [{"foreach": True}, {"foreach": False}, {"fused": True}, {"maximize": True}, {"weight_decay": 0.3}]
)
@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_flags_are_those_of_the_present_configuration(kind, flags):
    state = Training(kind, None).run(3).state()
    forked = Training(kind, None, state=state, **flags)
    for group in forked.optimizer.param_groups:
        assert {name: group[name] for name in flags} == flags
    forked.run(6)
    assert_same(Training(kind, None, state=forked.state()).seen()["weights"], forked.seen()["weights"])


@pytest.mark.parametrize(
    ("kind", "before", "now"),
    [
        ("Adam", {"amsgrad": False}, {"amsgrad": True}),
        ("AdamW", {"amsgrad": False}, {"amsgrad": True}),
        ("AdamW", {"amsgrad": True}, {"amsgrad": False}),
        ("RMSprop", {"momentum": 0, "centered": False}, {"momentum": 0.9, "centered": True}),
        ("RMSprop", {"momentum": 0.9, "centered": True}, {"momentum": 0, "centered": False}),
        ("SGD", {"momentum": 0, "nesterov": False}, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_a_memory_that_the_old_hyperparameters_did_not_need_begins_empty(kind, before, now):
    state = Training(kind, None, **before).run(3).state()
    forked = Training(kind, None, state=state, **now).run(5)
    for group in forked.optimizer.param_groups:
        assert {name: group[name] for name in now} == now


def test_the_step_size_of_asgd_is_made_of_the_new_learning_rate():
    """It keeps the size of its next step in its memory."""
    for schedule in (None, "exponential"):
        state = Training("ASGD", schedule).run(3).state()
        forked, wanted = Training("ASGD", schedule, lr=0.02, state=state), Training("ASGD", schedule, lr=0.02).run(3)
        for group, other in zip(forked.optimizer.param_groups, wanted.optimizer.param_groups, strict=True):
            for parameter, its in zip(group["params"], other["params"], strict=True):
                eta = forked.optimizer.state[parameter]["eta"]
                torch.testing.assert_close(eta, wanted.optimizer.state[its]["eta"])


@pytest.mark.parametrize("history", [2, 4, 9])
def test_lbfgs_goes_on_with_another_length_of_its_history(history, tmp_path):
    def made(history):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return model, optim.LBFGS(model.parameters(), lr=0.5, max_iter=3, history_size=history)

    def train(model, optimizer, steps):
        def loss():
            optimizer.zero_grad()
            value = (model(torch.eye(3)) - torch.arange(6.0).reshape(3, 2)).pow(4).mean()
            value.backward()
            return value

        for _ in range(steps):
            optimizer.step(loss)

    model, optimizer = made(4)
    train(model, optimizer, 3)
    tree = through_a_file({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path)
    other_model, other = made(history)
    other_model.load_state_dict(tree["model"])
    load_optimizer(other, tree["optimizer"])
    train(other_model, other, 5)
    train(model, optimizer, 5)
    if history == 4:
        assert_same(other_model.state_dict(), model.state_dict())
    assert len(other.state_dict()["state"][0]["old_dirs"]) <= history


def test_sparse_adam_and_muon(tmp_path):
    def made(kind):
        torch.manual_seed(0)
        if kind == "sparse":
            model = nn.Embedding(5, 3, sparse=True)
            return model, optim.SparseAdam(model.parameters(), lr=0.1), torch.tensor([0, 3])
        model = nn.Linear(3, 4, bias=False)
        return model, optim.Muon(model.parameters(), lr=0.1), torch.eye(3)

    for kind in ["sparse", *(["muon"] if hasattr(optim, "Muon") else [])]:
        model, optimizer, data = made(kind)
        parts, other, _ = made(kind)
        for _ in range(4):
            for one, its in ((model, optimizer), (parts, other)):
                its.zero_grad()
                one(data).square().sum().backward()
                its.step()
            tree = through_a_file({"model": parts.state_dict(), "optimizer": other.state_dict()}, tmp_path)
            parts, other, _ = made(kind)
            parts.load_state_dict(tree["model"])
            load_optimizer(other, tree["optimizer"])
            assert_same(parts.state_dict(), model.state_dict())


@pytest.mark.parametrize("missing", ["torch", "torch.optim"])
def test_without_torch_the_extra_is_named(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import tunesmith.integrations.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    if missing == "torch":
        assert re.match(
            r"ModuleNotFoundError: tunesmith.integrations.torch needs PyTorch: pip install .*\[torch\]", last
        )
    else:
        assert "needs PyTorch" not in last and "ModuleNotFoundError" in last
