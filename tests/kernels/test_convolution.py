"""Convolutions of a population: the kernels are interpreted, and lowered for a GPU, on any machine."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

jax = pytest.importorskip("jax")

from jax import numpy as jnp  # noqa: E402

from tunesmith.kernels import convolution  # noqa: E402
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


@partial(jax.jit, static_argnames="stride")
def kernels(x: Any, filters: Any, slope: Any, stride: int) -> tuple[Any, ...]:
    """The same by the kernels, interpreted."""
    return (
        convolution._result(x, filters, stride, SMALL, True),
        convolution._slope_of_images(x, filters, slope, stride, SMALL, True),
        convolution._slope_of_filters(x, filters, slope, stride, SMALL, True),
    )


def close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    for one, other in zip(found, wanted, strict=True):
        scale = float(abs(other).max())
        np.testing.assert_allclose(one.astype(jnp.float32), other, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_kernels(shape: tuple[int, ...]) -> None:
    close(kernels(*arrays(shape), shape[-1]), slopes(partial(reference, stride=shape[-1]), *arrays(shape)))


def test_kernels_of_a_population() -> None:
    members = [arrays(shape) for shape in SHAPES[:1] * 3]
    x, filters, slope = (
        jnp.stack(each) * jnp.arange(1.0, 4)[:, None, None, None, None] for each in zip(*members, strict=True)
    )
    found = jax.vmap(partial(kernels, stride=1))(x, filters, slope)
    close(found, jax.vmap(partial(slopes, partial(reference, stride=1)))(x, filters, slope))


def test_kernels_in_half_precision() -> None:
    x, filters, slope = arrays(SHAPES[1], jnp.bfloat16)
    found = kernels(x, filters.astype(jnp.float32), slope, 2)
    assert [each.dtype for each in found] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    wanted = slopes(partial(reference, stride=2), *(each.astype(jnp.float32) for each in (x, filters, slope)))
    close(found[:2], wanted[:2], 1 / 128)
    close(found[2:], wanted[2:])  # the sums are not rounded


@settings(deadline=None, max_examples=5)
@given(
    st.tuples(*[st.integers(1, high) for high in (3, 7, 7, 5, 5)], st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]))
)
def test_formula(shape: tuple[int, ...]) -> None:
    given_ = arrays(shape)
    stride = shape[-1]
    close(slopes(partial(conv, stride=stride), *given_), slopes(partial(reference, stride=stride), *given_))


def test_formula_in_half_precision() -> None:
    x, filters, slope = arrays(SHAPES[0])
    found = slopes(conv, x.astype(jnp.bfloat16), filters, slope.astype(jnp.bfloat16))
    assert [each.dtype for each in found] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    close(found, slopes(partial(reference, stride=1), x, filters, slope), 1 / 32)


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
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")
def test_lowers_for_a_gpu(shape: tuple[int, ...], kind: Any) -> None:
    x, filters, _ = arrays(shape, kind)

    def loss(x: Any, filters: Any) -> Any:
        return conv(x, filters, shape[-1]).astype(jnp.float32).sum()

    slope = jax.grad(loss, (0, 1))
    for function, given_ in ((slope, (x, filters)), (jax.vmap(slope), (x[None], filters[None]))):
        try:
            text = jax.jit(function).trace(*given_).lower(lowering_platforms=("cuda",)).as_text()
        except RuntimeError as error:
            pytest.skip(str(error))  # JAX 0.11 lowers only where there is a GPU
        assert text.count("triton") >= 2
        assert "stablehlo.dot_general" not in text


@pytest.mark.parametrize("shape", [(8, 32, 32, 3, 16, 3, 1), (8, 28, 28, 16, 32, 3, 2)], ids=str)
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")
def test_on_a_gpu(shape: tuple[int, ...]) -> None:
    if jax.default_backend() != "gpu":
        pytest.skip("needs a GPU")
    x, filters, slope = arrays(shape)
    found = slopes(partial(conv, stride=shape[-1]), x.astype(jnp.bfloat16), filters, slope.astype(jnp.bfloat16))
    close(found, slopes(partial(reference, stride=shape[-1]), x, filters, slope), 1 / 32)


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
