"""The layer whose gradient is the layer after the update, beside plain ``jax.grad`` and SGD."""

from functools import partial
from itertools import pairwise

import pytest

jax = pytest.importorskip("jax")

import numpy as np  # noqa: E402
from jax import numpy as jnp  # noqa: E402

from tunesmith.kernels import fused  # noqa: E402

RATES = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
SMALL = fused.Tiles(16, 32, 4, 2)  # so that small layers have several tiles
PLAN = fused.Plan(True, SMALL, SMALL)


@pytest.fixture(autouse=True)
def _in_full_precision():
    """Of references and formulas: on a GPU products of float32 are of TensorFloat-32 otherwise."""
    with jax.default_matmul_precision("highest"):
        yield


def layer(inputs, outputs, seed=0):
    w, b, m_w, m_b = (jax.random.normal(key, (inputs, outputs)) for key in jax.random.split(jax.random.key(seed), 4))
    return {"w": w / inputs**0.5, "b": b[0], "momentum": {"w": m_w / 4, "b": m_b[0] / 4}}


def given(batch, inputs, outputs, kind=jnp.float32):
    x, dy = (jax.random.normal(jax.random.key(n), (batch, n)).astype(kind) for n in (inputs, outputs))
    return layer(inputs, outputs), fused.Rates(**{k: jnp.float32(v) for k, v in RATES.items()}), x, dy


def close(found, expected, bound=2e-5):
    """Every array, in norm: with bfloat16 single values near the edge of a ReLU may differ."""

    def check(one, other):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        assert one.shape == other.shape and np.linalg.norm(one - other) <= bound * np.linalg.norm(other)

    jax.tree.map(check, found, expected)


# -- the kernels beside the formulas ----------------------------------------------------------------------------------

F32, F16 = (jnp.float32, 2e-5), (jnp.float16, 1e-3)  # the interpreter has no products of bfloat16
CASES = [  # shape, kind, relu, is the gradient of x wanted
    ((16, 32, 32), F16, True, True),  # tiles that fit
    ((32, 50, 40), F32, False, False),  # and edges in both dimensions of the weights
    ((32, 50, 40), F32, True, True),
    ((16, 1, 1), F32, True, False),
]


@pytest.mark.parametrize(("shape", "kind", "relu", "wanted"), CASES)
def test_kernels_are_the_formulas(interpreted, shape, kind, relu, wanted):
    plan, (kind, bound) = PLAN._replace(relu=relu), kind
    old, rates, x, dy = given(*shape, kind)
    y = jax.jit(partial(fused._forward_kernel, plan))(x, old["w"], old["b"])
    assert y.dtype == kind
    close(y, fused._forward(plan, x, old["w"], old["b"]), bound)
    found, dx = jax.jit(partial(fused._backward_kernel, plan, wanted))(old, rates, x, dy)
    expected, slope = fused._backward(plan, wanted, old, rates, x, dy)
    close(found, expected)
    assert (dx is not None) == wanted
    if wanted:
        assert dx.dtype == kind
        close(dx, slope, bound)


def test_what_is_not_a_number_stays_so(interpreted):
    """A member that diverges must not look healthy because its activations are dropped."""
    old, rates, x, dy = given(16, 32, 32)
    x = x.at[3, 5].set(jnp.nan)
    y = fused._forward_kernel(PLAN, x, old["w"], old["b"])
    assert jnp.isnan(y[3]).all() and not jnp.isnan(y[:3]).any()
    found, _ = fused._backward_kernel(PLAN, True, old, rates, x, dy)
    assert jnp.isnan(found["w"][5]).all() and not jnp.isnan(found["w"][:5]).any()


# -- training ---------------------------------------------------------------------------------------------------------


def cross_entropy(logits, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits.astype(jnp.float32)), y[:, None], 1).mean()


def plain_loss(layers, x, y):
    for number, each in enumerate(layers):
        x = jax.nn.relu(x) if number else x
        x = x @ each["w"].astype(x.dtype) + each["b"].astype(x.dtype)
    return cross_entropy(x, y)


def plain_step(layers, rates, x, y):
    weights = [{"w": each["w"], "b": each["b"]} for each in layers]
    loss, slopes = jax.value_and_grad(plain_loss)(weights, x, y)
    after = []
    for each, slope in zip(layers, slopes, strict=True):
        m = {n: rates["momentum"] * each["momentum"][n] + slope[n] + rates["weight_decay"] * each[n] for n in slope}
        after.append({n: each[n] - rates["lr"] * m[n] for n in m} | {"momentum": m})
    return after, loss


def fused_loss(layers, rates, x, y):
    for number, each in enumerate(layers):
        x = fused.dense(each, rates, x, relu=number > 0)
    return cross_entropy(x, y)


def fused_step(layers, rates, x, y):
    loss, layers = jax.value_and_grad(fused_loss)(layers, rates, x, y)
    return layers, loss


def population(kind, members=3):
    layers = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *(layer(a, b, n) for n in range(members)))
              for a, b in ((20, 40), (40, 5))]  # fmt: skip
    rates = {name: value * jnp.linspace(0.1, 1, members) for name, value in RATES.items()}
    x = jax.random.normal(jax.random.key(0), (3, members, 16, 20)).astype(kind)
    return layers, rates, x, jax.random.randint(jax.random.key(1), (3, members, 16), 0, 5)


def trained(step, layers, rates, xs, ys):
    """All members, as many updates as there are minibatches; each member has its own rates."""
    return jax.jit(lambda: jax.lax.scan(lambda s, d: jax.vmap(step)(s, rates, *d), layers, (xs, ys)))()


@pytest.mark.parametrize("kind", [jnp.float32, jnp.bfloat16])
def test_a_population_trains_as_with_gradients_and_sgd(kind):
    found = trained(fused_step, *population(kind))
    close(found, trained(plain_step, *population(jnp.float32)), 1e-4 if kind == jnp.float32 else 0.02)
    assert not np.allclose(found[0][0]["w"][0], population(kind)[0][0]["w"][0])


def test_a_population_trains_by_kernels(interpreted, monkeypatch):
    monkeypatch.setattr(fused, "Plan", partial(fused.Plan, forward=SMALL, backward=SMALL))
    found = trained(fused_step, *population(jnp.float16))
    close(found, trained(plain_step, *population(jnp.float32)), 0.003)


def test_the_loss_alone_is_that_of_the_weights():
    layers, rates, x, y = jax.tree.map(lambda leaf: leaf[0], population(jnp.float32))
    close(fused_loss(layers, rates, x[0], y[0]), plain_loss(layers, x[0], y[0]))


def test_momentum_starts_at_zero():
    new = fused.with_momentum({"w": jnp.ones((3, 2)), "b": jnp.ones(2)})
    found, _ = fused_step([new], RATES, jnp.ones((4, 3)), jnp.zeros(4, int))
    expected, _ = plain_step([new], RATES, jnp.ones((4, 3)), jnp.zeros(4, int))
    close(found, expected)
    assert new["momentum"]["w"].shape == (3, 2) and not new["momentum"]["w"].any()


def test_rates_have_no_gradient_and_data_has_one_where_it_is_asked_for():
    old, x = layer(6, 4), jax.random.normal(jax.random.key(3), (8, 6))
    y = jnp.arange(8) % 4
    rates, dx = jax.grad(partial(fused_loss, [old]), argnums=(0, 1))(RATES, x, y)
    assert all(slope == 0 for slope in rates.values())
    close(dx, jax.grad(partial(plain_loss, [old]))(x, y))


# -- what is compiled for a GPU ---------------------------------------------------------------------------------------


def zeros(members, batch, kind, widths=(784, 512, 512, 10)):
    shape = lambda *s, kind=jnp.float32: jax.ShapeDtypeStruct((*members, *s), kind)  # noqa: E731
    layers = [fused.with_momentum({"w": np.zeros((a, b), np.float32), "b": np.zeros(b, np.float32)})
              for a, b in pairwise(widths)]  # fmt: skip
    layers = jax.tree.map(lambda leaf: shape(*leaf.shape), layers)
    return layers, {name: shape() for name in RATES}, shape(batch, widths[0], kind=kind), shape(batch, kind=jnp.int32)


@pytest.mark.parametrize("members", [(), (4,)])
def test_on_cuda_each_layer_is_two_kernels_and_updated_in_place(pretended, members):
    text = pretended(jax.vmap(fused_step) if members else fused_step, *zeros(members, 128, jnp.bfloat16))
    kernels = [line for line in text.splitlines() if "@triton_kernel_call_ffi" in line]
    assert len(kernels) == 6 and "stablehlo.dot_general" not in text
    updates = [line for line in kernels if "output_operand_alias<" in line]
    assert len(updates) == 3 and all(line.count("output_operand_alias<") == 4 for line in updates)
    results = sorted(line.split("=")[0].partition(":")[2].strip() for line in updates)
    assert results == ["4", "5", "5"]  # the first layer's x is data: no gradient is computed


@pytest.mark.parametrize(("batch", "kind"), [(100, jnp.bfloat16), (128, jnp.float32)])
def test_what_does_not_suit_the_kernels_is_plain_jax(pretended, batch, kind):
    plain(pretended(jax.vmap(fused_step), *zeros((2,), batch, kind)))


def test_on_a_processor_it_is_plain_jax():
    step = jax.jit(jax.vmap(fused_step)).trace(*zeros((2,), 128, jnp.bfloat16))
    plain(step.lower(lowering_platforms=("cpu",)).as_text())


def plain(text):
    assert "custom_call" not in text and text.count("stablehlo.dot_general") == 3 + 3 + 2


def test_on_a_gpu_a_population_trains_as_with_gradients_and_sgd(on_a_gpu):
    expected = trained(plain_step, *population(jnp.float32))
    close(trained(fused_step, *population(jnp.bfloat16)), expected, 0.02)  # eight bits a number
    close(trained(fused_step, *population(jnp.float16)), expected, 0.003)  # eleven


def test_on_a_gpu_kernels_are_the_formulas(on_a_gpu):
    """But for numbers that are rounded the other way after sums in another order."""
    for shape in ((128, 784, 512), (64, 50, 40), (16, 1, 1)):
        old, rates, x, dy = given(*shape, jnp.bfloat16)
        plan = fused.Plan(True)
        y = fused._forward_kernel(plan, x, old["w"], old["b"])
        close(y, fused._forward(plan, x, old["w"], old["b"]), 2.0**-9)
        found = fused._backward_kernel(plan, True, old, rates, x, dy)
        expected = fused._backward(plan, True, old, rates, x, dy)
        close(found[0], expected[0], 1e-4)
        close(found[1], expected[1], 2.0**-9)


# -- bad input --------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_said():
    good, x = layer(6, 4), jnp.ones((8, 6))
    cases = [
        ({"w": good["w"], "b": good["b"]}, x, "with_momentum"),
        (good | {"b": jnp.ones(5)}, x, r"b is \(5,\)"),
        (good, jnp.ones((8, 5)), r"x is \(8, 5\).*\[batch, 6\]"),
        (good, jnp.ones((2, 8, 6)), "reshape"),
        (good, jnp.ones((8, 6), int), "cast it to float32"),
        (good | {"w": good["w"].astype(jnp.bfloat16)}, x, "must be float32.*cast x"),
        (good | {"momentum": {"w": jnp.ones((4, 6)), "b": good["b"]}}, x, "momentum of w"),
    ]
    for bad, data, message in cases:
        with pytest.raises(ValueError, match=message):
            fused.dense(bad, RATES, data)
    with pytest.raises(KeyError, match="weight_decay"):
        fused.dense(good, {"lr": 0.1, "momentum": 0.9}, x)
