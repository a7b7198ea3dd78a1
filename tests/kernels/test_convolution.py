"""Convolutions of a population: the kernels are interpreted, and lowered for a GPU, on any machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

jax = pytest.importorskip("jax")

from jax import numpy as jnp  # noqa: E402

from tunesmith.kernels import _launch, convolution  # noqa: E402
from tunesmith.kernels.convolution import Tiles, conv  # noqa: E402

SMALL = Tiles(rows=32, depth=32, group=4, warps=4, stages=2, outputs=32, span=64)
SHAPES = [  # batch, height, width, inputs, outputs, size, stride
    (1, 8, 8, 16, 16, 3, 1),
    (1, 8, 8, 16, 32, 3, 2),
    (2, 7, 5, 3, 5, 3, 2),
    (1, 6, 5, 1, 17, 5, 1),
    (1, 5, 6, 17, 3, 5, 2),
    (3, 5, 4, 4, 4, 1, 2),
]


def reference(x: Any, filters: Any, stride: int) -> Any:
    margin = (filters.shape[0] // 2,) * 2
    names = ("NHWC", "HWIO", "NHWC")
    exact = jax.lax.Precision.HIGHEST
    return jax.lax.conv_general_dilated(
        x, filters, (stride, stride), (margin, margin), dimension_numbers=names, precision=exact
    )


def arrays(shape: tuple[int, ...], kind: Any = np.float32) -> tuple[Any, Any, Any]:
    """Images, filters, the slope of the result."""
    batch, height, width, inputs, outputs, size, stride = shape
    rng = np.random.default_rng(sum(shape))
    shapes = (
        (batch, height, width, inputs),
        (size, size, inputs, outputs),
        (batch, -(-height // stride), -(-width // stride), outputs),
    )
    return tuple(jnp.asarray(rng.normal(size=each), kind) for each in shapes)  # type: ignore[return-value]


@partial(jax.jit, static_argnums=0)
def slopes(function: Any, x: Any, filters: Any, slope: Any) -> tuple[Any, ...]:
    """The result, the slopes of the images and of the filters."""
    result, back = jax.vjp(function, x, filters)
    return (result, *back(slope))


def kernels(x: Any, filters: Any, slope: Any, stride: int) -> tuple[Any, ...]:
    """The same by the kernels."""
    return (
        convolution._result(x, filters, stride, SMALL),
        convolution._slope_of_images(x, filters, slope, stride, SMALL),
        convolution._slope_of_filters(x, filters, slope, stride, SMALL),
    )


def close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    for one, other in zip(found, wanted, strict=True):
        scale = float(abs(other).max())
        np.testing.assert_allclose(one.astype(jnp.float32), other, atol=tolerance * scale, rtol=0)


# -- the kernels, interpreted: products in full precision, sums in another order ---------------------------------------


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_kernels(interpreted: None, shape: tuple[int, ...]) -> None:
    found = jax.jit(partial(kernels, stride=shape[-1]))(*arrays(shape))
    close(found, slopes(partial(reference, stride=shape[-1]), *arrays(shape)))


@pytest.mark.parametrize("shared", [(), (0,), (1, 2)], ids=["none", "images", "the others"])
def test_kernels_of_a_population(interpreted: None, shared: tuple[int, ...]) -> None:
    members = [arrays(shape) for shape in SHAPES[:1] * 3]
    given_ = [jnp.stack(each) * jnp.arange(1.0, 4)[:, None, None, None, None] for each in zip(*members, strict=True)]
    given_ = [each[1] if number in shared else each for number, each in enumerate(given_)]
    axes = [None if number in shared else 0 for number in range(3)]
    found = jax.jit(jax.vmap(partial(kernels, stride=1), axes))(*given_)
    close(found, jax.vmap(partial(slopes, partial(reference, stride=1)), axes)(*given_))


def test_kernels_in_half_precision(interpreted: None) -> None:
    x, filters, slope = arrays(SHAPES[1], jnp.float16)  # the interpreter has no products of bfloat16
    found = jax.jit(partial(kernels, stride=2))(x, filters.astype(jnp.float32), slope)
    wanted = slopes(partial(reference, stride=2), *(each.astype(jnp.float32) for each in (x, filters, slope)))
    half_precision(found, wanted, jnp.float16, 1e-5)


def half_precision(found: Any, wanted: Any, kind: Any, tolerance: float) -> None:
    """Of numbers that ``kind`` has: sums in float32, rounded to it at last but for the slope of the filters."""
    assert [each.dtype for each in found] == [kind, kind, jnp.float32]
    close(found[:2], wanted[:2], float(jnp.finfo(kind).eps))
    close(found[2:], wanted[2:], tolerance)


# -- the plain formula -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=5)
@given(
    st.tuples(*[st.integers(1, high) for high in (3, 7, 7, 5, 5)], st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]))
)
def test_formula(shape: tuple[int, ...]) -> None:
    given_, stride = arrays(shape), shape[-1]
    with pytest.MonkeyPatch.context() as patch, jax.default_matmul_precision("highest"):
        patch.setattr(_launch, "reason", lambda: "the formula is tested")
        close(slopes(partial(conv, stride=stride), *given_), slopes(partial(reference, stride=stride), *given_))


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_formula_in_half_precision(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    monkeypatch.setattr(_launch, "reason", lambda: "the formula is tested")
    x, filters, slope = arrays(shape, jnp.bfloat16)
    found = slopes(partial(conv, stride=shape[-1]), x, filters.astype(jnp.float32), slope)
    wanted = slopes(partial(reference, stride=shape[-1]), *(each.astype(jnp.float32) for each in (x, filters, slope)))
    half_precision(found, wanted, jnp.bfloat16, 1e-5)


# -- what is chosen ----------------------------------------------------------------------------------------------------


def test_trains_inside_of_scan_and_vmap() -> None:
    x, filters, _ = arrays((2, 4, 4, 3, 4, 3, 1))

    def train(filters: Any, lr: Any) -> Any:
        def update(filters: Any, _: None) -> tuple[Any, Any]:
            loss, slope = jax.value_and_grad(lambda f: jnp.square(conv(x, f) - 1).mean())(filters)
            return filters - lr * slope, loss

        return jax.lax.scan(update, filters, None, length=5)[1]

    losses = jax.jit(jax.vmap(train))(jnp.stack([filters, filters]), jnp.array([0.01, 0.02]))
    assert (losses[:, 1:] < losses[:, :-1]).all()
    assert losses[1, -1] < losses[0, -1]


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float32], ids=["bf16", "f32"])
@pytest.mark.parametrize(
    "shape", [(8, 32, 32, 3, 16, 3, 1), (8, 28, 28, 16, 32, 3, 2), (8, 7, 7, 64, 64, 5, 1)], ids=str
)
def test_lowers_for_a_gpu(pretended: Callable[..., str], shape: tuple[int, ...], kind: Any) -> None:
    x, filters, _ = arrays(shape, kind)

    def loss(x: Any, filters: Any) -> Any:
        return conv(x, filters, shape[-1]).astype(jnp.float32).sum()

    slope = jax.grad(loss, (0, 1))
    for text in (pretended(slope, x, filters), pretended(jax.vmap(slope), x[None], filters[None])):
        assert text.count("@triton_kernel_call_ffi") == 2
        assert "stablehlo.dot_general" not in text


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float32], ids=["bf16", "f32"])
@pytest.mark.parametrize(
    "shape", [(8, 32, 32, 3, 16, 3, 1), (8, 28, 28, 16, 32, 3, 2), (8, 7, 7, 64, 64, 5, 1)], ids=str
)
def test_on_a_gpu(on_a_gpu: None, shape: tuple[int, ...], kind: Any) -> None:
    """Tensor cores drop bits where they align the summands; TensorFloat-32 takes ten bits of each factor."""
    x, filters, slope = arrays((2, *shape[1:]), kind)
    exact = [each.astype(jnp.float32) for each in (x, filters, slope)]
    function = partial(slopes, partial(conv, stride=shape[-1]))
    found = function(x, exact[1], slope)
    wanted = slopes(partial(reference, stride=shape[-1]), *exact)
    if kind == jnp.float32:
        close(found, wanted, 2.0**-9)
    else:
        half_precision(found, wanted, kind, 1e-4)
    twice = jax.vmap(function)(*(jnp.stack([each, 2 * each]) for each in (x, exact[1], slope)))
    for alone, both in zip(found, twice, strict=True):
        np.testing.assert_array_equal(alone, both[0])
        np.testing.assert_array_equal(4 * alone, both[1])  # a power of two changes no rounding


@pytest.mark.parametrize(
    ("x", "filters", "stride", "words"),
    [
        ((4, 4, 3), (3, 3, 3, 8), 1, "give \\[batch, height, width, inputs\\]"),
        ((1, 4, 4, 3), (3, 5, 3, 8), 1, "odd size"),
        ((1, 4, 4, 3), (2, 2, 3, 8), 1, "odd size"),
        ((1, 4, 4, 3), (3, 3, 4, 8), 1, "filters of 4 inputs do not fit x with 3"),
        ((1, 4, 4, 3), (3, 3, 3, 8), 3, "stride is 3; give 1 or 2"),
        ((0, 4, 4, 3), (3, 3, 3, 8), 1, "at least one"),
    ],
)
def test_bad_shapes(x: tuple[int, ...], filters: tuple[int, ...], stride: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        conv(jnp.zeros(x), jnp.zeros(filters), stride)


def test_bad_kind() -> None:
    with pytest.raises(ValueError, match="x are of kind int32; give floating point numbers"):
        conv(jnp.zeros((1, 4, 4, 3), jnp.int32), jnp.zeros((3, 3, 3, 8)))
