"""Update rules: the same on numpy, PyTorch and JAX, stacked or one by one, and as PyTorch and optax have them."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest
import torch
from jax import numpy as jnp

from tunesmith.optimizers import RULES, Adam, OptimizerError
from tunesmith.optimizers.base import apply, leaves, tree_map

STEPS = 20
SOME = {
    "sgd": {},
    "momentum": {"momentum": 0.8},
    "nesterov": {"momentum": 0.8},
    "rmsprop": {"momentum": 0.5, "rho": 0.95, "eps": 1e-3},
    "adam": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
    "nadam": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
    "adamw": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "weight_decay": 0.1},
    "nadamw": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "weight_decay": 0.1},
}
LIBRARIES = {
    "numpy": lambda array, kind: array.astype(kind),
    "torch": lambda array, kind: torch.tensor(array.astype(kind)),
    "jax": lambda array, kind: jnp.asarray(array, kind),
}


def lr(step):
    return 0.1 / (1 + step / 10)


def random_tree(rng, *members):
    return {
        "a": rng.normal(size=(*members, 3, 2)),
        "rest": [rng.normal(size=(*members, 4)), (rng.normal(size=members),)],
    }


def trained(rule, given, convert=lambda array: array, members=(), seed=0, update=None):
    """The parameters after some updates by random gradients."""
    rng = np.random.default_rng(seed)
    params = tree_map(convert, random_tree(rng, *members))
    state = rule.init(params)
    for step in range(STEPS):
        grads = tree_map(convert, random_tree(rng, *members))
        now = given if callable(given) is False else given(step)
        updates, state = (update or rule.update)(grads, state, params, {"lr": lr(step), **now})
        params = apply(params, updates)
    return tree_map(np.asarray, params)


def distance(one, other):
    return max(float(np.max(np.abs(a - b))) for a, b in zip(leaves(one), leaves(other), strict=True))


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("name", RULES)
def test_the_same_on_every_library(name, kind):
    with jax.enable_x64(kind == "float64"):
        found = {
            library: trained(RULES[name], SOME[name], lambda array, convert=convert: convert(np.asarray(array), kind))
            for library, convert in LIBRARIES.items()
        }
    assert all(leaf.dtype == kind for one in found.values() for leaf in leaves(one))
    assert distance(found["numpy"], found["torch"]) < (1e-6 if kind == "float32" else 1e-14)
    assert distance(found["numpy"], found["jax"]) < (1e-6 if kind == "float32" else 1e-14)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", RULES)
def test_a_stacked_population_is_its_members_one_by_one(name, library):
    """With hyperparameters of their own, of another type than the parameters."""
    members = 5
    convert = lambda array: LIBRARIES[library](np.asarray(array), "float32")  # noqa: E731
    rng = np.random.default_rng(1)
    usual = {"lr": 0.1, **SOME[name]}
    several = {key: value * rng.uniform(0.5, 1.0, members) for key, value in usual.items()}
    kind = {"numpy": np.asarray, "torch": torch.tensor, "jax": jnp.asarray}[library]
    stacked = trained(RULES[name], {key: kind(values) for key, values in several.items()}, convert, (members,))
    for member in range(members):
        rows = np.random.default_rng(0)
        params = tree_map(convert, tree_map(lambda a, m=member: a[m], random_tree(rows, members)))
        state = RULES[name].init(params)
        for _ in range(STEPS):
            grads = tree_map(convert, tree_map(lambda a, m=member: a[m], random_tree(rows, members)))
            given = {key: float(values[member]) for key, values in several.items()}
            updates, state = RULES[name].update(grads, state, params, given)
            params = apply(params, updates)
        assert distance(tree_map(lambda a, m=member: np.asarray(a)[m], stacked), tree_map(np.asarray, params)) < 2e-6


@pytest.mark.parametrize("name", RULES)
def test_compiled_and_with_traced_hyperparameters_under_vmap(name):
    rule = RULES[name]
    convert = lambda array: jnp.asarray(array, "float32")  # noqa: E731
    plain = trained(rule, SOME[name], convert)
    assert distance(plain, trained(rule, SOME[name], convert, update=jax.jit(rule.update))) < 1e-6

    def update(grads, state, params, given):
        several = {key: jnp.full(2, value) for key, value in given.items()}
        stack = lambda tree: tree_map(lambda a: jnp.stack([a, a]), tree)  # noqa: E731
        updates, after = jax.vmap(rule.update)(stack(grads), stack(state), stack(params), several)
        return tree_map(lambda a: a[1], updates), tree_map(lambda a: a[0], after)

    assert distance(plain, trained(rule, SOME[name], convert, update=update)) < 1e-6


def by_torch(make, **given):
    rng = np.random.default_rng(0)
    params = [torch.tensor(np.asarray(leaf), requires_grad=True) for leaf in leaves(random_tree(rng))]
    optimizer = make(params, lr=1.0, **given)
    for step in range(STEPS):
        for param, grad in zip(params, leaves(random_tree(rng)), strict=True):
            param.grad = torch.tensor(np.asarray(grad))
        for group in optimizer.param_groups:
            group["lr"] = lr(step)
        optimizer.step()
    return [param.detach().numpy() for param in params]


def by_optax(make, **given):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params = tree_map(jnp.asarray, random_tree(rng))
        optimizer = make(learning_rate=lambda step: 0.1 / (1 + step / 10), **given)
        state = optimizer.init(params)
        for _ in range(STEPS):
            updates, state = optimizer.update(tree_map(jnp.asarray, random_tree(rng)), state, params)
            params = optax.apply_updates(params, updates)
        return tree_map(np.asarray, params)


def uncorrected(given):
    """An epsilon that is added after the correction, as one that is added before it."""
    return lambda step: {**given, "eps": given["eps"] * np.sqrt(1 - given["beta2"] ** (step + 1))}


@pytest.mark.parametrize(
    ("name", "make", "given"),
    [
        ("sgd", torch.optim.SGD, {}),
        ("momentum", torch.optim.SGD, {"momentum": 0.8}),
        ("nesterov", torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-3}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ],
)
def test_as_pytorch_has_them(name, make, given):
    ours = SOME[name] if "adam" not in name else uncorrected(SOME[name])
    assert distance(trained(RULES[name], ours), by_torch(make, **given)) < 1e-12


ADAM = {"b1": 0.8, "b2": 0.95, "eps": 1e-3}


@pytest.mark.parametrize(
    ("name", "make", "given"),
    [
        ("momentum", optax.sgd, {"momentum": 0.8}),
        ("nesterov", optax.sgd, {"momentum": 0.8, "nesterov": True}),
        ("adam", optax.adam, ADAM),
        ("adamw", optax.adamw, {**ADAM, "weight_decay": 0.1}),
        (
            "rmsprop",
            optax.rmsprop,
            {"momentum": 0.5, "decay": 0.95, "eps": 1e-3, "eps_in_sqrt": True, "initial_scale": 1.0},
        ),
    ],
)
def test_as_optax_has_them(name, make, given):
    ours = SOME[name] if "adam" not in name else uncorrected(SOME[name])
    assert distance(trained(RULES[name], ours), by_optax(make, **given)) < 1e-6  # its schedule is in float32


def test_what_is_known_to_differ():
    """RMSProp of PyTorch begins with mean squares of 0; its NAdam has a schedule of the momentum."""
    theirs = by_torch(torch.optim.RMSprop, alpha=0.95, momentum=0.5, eps=1e-3)
    assert distance(trained(RULES["rmsprop"], SOME["rmsprop"]), theirs) > 0.1
    theirs = by_torch(torch.optim.NAdam, betas=(0.8, 0.95), eps=1e-3)
    assert distance(trained(RULES["nadam"], uncorrected(SOME["nadam"])), theirs) > 0.01


def test_the_nadam_of_the_paper_by_hand():
    """Two updates of one parameter, FACTS of the rule written out."""
    theta, m, v = 1.0, 0.0, 0.0
    params, state = np.array([1.0]), RULES["nadam"].init(np.array([1.0]))
    for t, g in enumerate((0.5, -0.2)):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        b = np.sqrt(1 - 0.99 ** (t + 1)) / (1 - 0.9 ** (t + 1))
        theta -= 0.1 * b * (0.9 * m + 0.1 * g) / (np.sqrt(v) + 1e-3)
        given = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3}
        updates, state = RULES["nadam"].update(np.array([g]), state, params, given)
        params = params + updates
    np.testing.assert_allclose(params, theta, rtol=1e-14)


def test_wrong_hyperparameters_are_one_line():
    params = {"w": np.zeros(2)}
    state = Adam().init(params)
    with pytest.raises(OptimizerError, match="Adam has no hyperparameter 'momentum'; it has lr, beta1, beta2, eps"):
        Adam().update(params, state, params, {"lr": 0.1, "momentum": 0.9})
    with pytest.raises(OptimizerError, match="it has no usual value"):
        Adam().update(params, state, params, {})
    with pytest.raises(ValueError, match="trees differ"):
        Adam().update({"v": np.zeros(2)}, state, params, {"lr": 0.1})


def test_short_types_keep_their_type_and_count_on():
    params = {"w": jnp.zeros(3, jnp.bfloat16)}
    state = Adam().init(params)
    for _ in range(300):
        updates, state = Adam().update({"w": jnp.ones(3, jnp.bfloat16)}, state, params, {"lr": 0.1})
        params = apply(params, updates)
    assert params["w"].dtype == jnp.bfloat16
    assert float(state["step"]) == 300
