"""Optimizers of optax as rules, and rules as optimizers of PyTorch."""

from __future__ import annotations

import io

import jax
import numpy as np
import optax
import pytest
import torch
from jax import numpy as jnp

from tunesmith.optimizers import RULES, OptimizerError
from tunesmith.optimizers.adapters import Optax, torch_optimizer
from tunesmith.optimizers.base import apply

MAKERS = [optax.adam, optax.adamw, optax.lion, optax.lamb, optax.sgd, optax.adafactor, optax.contrib.muon]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_any_optimizer_of_optax_with_a_learning_rate_a_member(make):
    rule = Optax(make)
    params = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
    rates = jnp.array([0.01, 0.1])

    def gradients(seed):
        return jax.tree.map(lambda p: jax.random.normal(jax.random.key(seed), p.shape), params)

    def train(lr):
        now, state = params, rule.init(params)
        for seed in range(5):
            grads = gradients(seed)
            updates, state = rule.update(grads, state, now, {"lr": lr})
            now = apply(now, updates)
        return now

    def theirs(lr):
        optimizer = make(learning_rate=float(lr))
        now, state = params, optimizer.init(params)
        for seed in range(5):
            grads = gradients(seed)
            updates, state = optimizer.update(grads, state, now)
            now = optax.apply_updates(now, updates)
        return now

    together = jax.jit(jax.vmap(train))(rates)
    for member in range(2):
        jax.tree.map(
            lambda ours, wanted, m=member: np.testing.assert_allclose(ours[m], wanted, rtol=2e-5, atol=2e-6),
            together, theirs(rates[member]),
        )  # fmt: skip


def test_the_hyperparameters_of_optax_by_our_names():
    assert Optax(optax.adamw).defaults["lr"] is None
    assert Optax(optax.adamw).defaults["beta1"] == 0.9
    assert "weight_decay" not in Optax(optax.adamw, weight_decay=0.1).defaults
    assert repr(Optax(optax.lion)) == "Optax(lion)"
    with pytest.raises(OptimizerError, match="lion has no argument 'momentum'; it has learning_rate, b1, b2"):
        Optax(optax.lion, momentum=0.9)
    with pytest.raises(OptimizerError, match="Optax has no hyperparameter 'rho'"):
        Optax(optax.lion).update({}, {}, {}, {"lr": 0.1, "rho": 1})


def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_trains_a_module_and_goes_on_from_what_was_saved(name):
    model = module()
    optimizer = torch_optimizer(RULES[name], model.parameters(), lr=0.05)
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
    y = x[:, :1] - x[:, 1:2]

    def steps(model, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    first = steps(model, optimizer, 10)
    saved = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), saved)
    last = steps(model, optimizer, 40)
    assert last < first
    again = module()
    other = torch_optimizer(RULES[name], again.parameters(), lr=0.05)
    weights, state = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
    again.load_state_dict(weights)
    other.load_state_dict(state)
    assert steps(again, other, 40) == pytest.approx(last, rel=1e-6)


def test_schedulers_of_pytorch_and_groups_find_the_hyperparameters():
    model = module()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.5, "beta1": 0.5}]
    optimizer = torch_optimizer(RULES["nadam"], groups, lr=0.1)
    assert [(group["lr"], group["beta1"]) for group in optimizer.param_groups] == [(0.1, 0.9), (0.5, 0.5)]
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.05])
    assert type(optimizer).__name__ == "NAdam"
    with pytest.raises(OptimizerError, match="NAdam has no hyperparameter 'momentum'"):
        torch_optimizer(RULES["nadam"], model.parameters(), lr=0.1, momentum=0.9)
