"""Dense layers whose optimizer update is part of the backward pass: the gradient of the weights is never stored.

A population of small networks is bound by memory traffic: with the usual two passes the gradient of each weight is
written by one and read by the other. Here the backward pass of a layer returns, in the place of the gradient, **the
layer after its update** (SGD with momentum and weight decay), and ``jax.value_and_grad`` becomes the training step::

    layers = [fused.with_momentum(layer) for layer in layers]  # each {"w": [inputs, outputs], "b": [outputs]}

    def loss(layers, rates, x, y):
        x = fused.dense(layers[0], rates, x)
        return cross_entropy(fused.dense(layers[1], rates, x, relu=True), y)

    value, layers = jax.value_and_grad(loss)(layers, rates, x, y)  # the layers after the update

What comes back is no gradient, hence the conditions:

* every layer is used exactly once in the loss, and all of its arrays are given to ``dense``;
* the loss is differentiated as it is: a factor in front of it is a factor of the gradient;
* nothing is done with the "gradient": no clipping by a global norm, no averaging over batches or devices.

On a GPU one kernel, in Triton's language, reads a tile of the weights and of their momentum once, adds its share to
the gradient of the inputs, and writes both back in place. That is for inputs of 16 bits (weights stay in float32):
with float32 inputs the kernel was no faster than XLA. For these, where there are no kernels (`_launch` says where), and
where shapes do not suit them, the same formula is plain JAX. ``vmap`` over members adds programs to the kernel.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp

from tunesmith.kernels import _launch

Layer = dict[str, Any]  # {"w", "b", "momentum": {"w", "b"}}

_BATCHES = (16, 32, 64, 128)  # tiles of x and of the results have the whole batch


class Tiles(NamedTuple):
    """How a kernel is cut: it reads tiles of ``rows`` x ``columns`` of the weights; powers of two, 16 or more."""

    rows: int
    columns: int
    warps: int
    stages: int


class Plan(NamedTuple):
    """What is known when a layer is traced; the tiles are those that were fastest on an H100."""

    relu: bool = False
    forward: Tiles = Tiles(64, 64, 4, 2)
    backward: Tiles = Tiles(32, 64, 4, 2)


class Rates(NamedTuple):
    """Of SGD; scalars that may be traced."""

    lr: Any
    momentum: Any
    weight_decay: Any


def with_momentum(layer: Layer) -> Layer:
    """``{"w", "b"}`` with momentum of zero, as ``dense`` takes it."""
    return {**layer, "momentum": jax.tree.map(jnp.zeros_like, layer)}


def dense(layer: Layer, rates: Any, x: Any, *, relu: bool = False) -> Any:
    """``x @ w + b``; the "gradient" of ``layer`` is the layer after one step of SGD.

    With ``g`` the gradient of a weight or bias ``w``, and ``m`` its momentum: ``m' = momentum * m + g + weight_decay *
    w`` and ``w' = w - lr * m'`` (as ``torch.optim.SGD`` without dampening). The gradient of ``x`` is the usual one, of
    the weights before the update; that of ``rates`` is zero.

    Args:
        layer: ``{"w": [inputs, outputs], "b": [outputs], "momentum": {"w", "b"}}`` in float32; see ``with_momentum``.
        rates: has the scalars ``lr``, ``momentum`` and ``weight_decay`` by name; they may be traced.
        x: [batch, inputs]. Products are computed in its type (float32 has the device's default precision), sums and
            the update in float32; the result has its type. On CUDA there are kernels for batches of 16, 32, 64 or 128
            rows of 16 bits.
        relu: use ``max(x, 0)`` for ``x``: the activation of the layer before, which then is not stored.

    Raises:
        ValueError: shapes or types that do not fit.
    """
    _check(layer, x)
    rates = Rates(*(jnp.asarray(rates[name], jnp.float32) for name in Rates._fields))
    return _dense(Plan(relu), layer, rates, x)


def _check(layer: Layer, x: Any) -> None:
    if "momentum" not in layer:
        raise ValueError(f"the layer has {sorted(layer)} and no 'momentum': make it by fused.with_momentum(layer)")
    w, b = layer["w"], layer["b"]
    if w.ndim != 2 or b.shape != w.shape[1:]:
        raise ValueError(f"w is {w.shape} and b is {b.shape}: they must be [inputs, outputs] and [outputs]")
    if x.ndim != 2 or x.shape[1] != w.shape[0]:
        raise ValueError(f"x is {x.shape}: with w {w.shape} it must be [batch, {w.shape[0]}]; reshape it")
    for name in ("w", "b"):
        if layer["momentum"][name].shape != layer[name].shape:
            raise ValueError(f"momentum of {name} is {layer['momentum'][name].shape}, {name} is {layer[name].shape}")
        if layer[name].dtype != jnp.float32 or layer["momentum"][name].dtype != jnp.float32:
            raise ValueError(f"{name} and its momentum must be float32; {name} is {layer[name].dtype}: cast x instead")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x is {x.dtype}: cast it to float32 or bfloat16")


# -- the function and its derivative ----------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dense(plan: Plan, layer: Layer, rates: Rates, x: Any) -> Any:
    ways = partial(_forward_kernel, plan), partial(_forward, plan)
    return _choose(*ways, x, x, layer["w"], layer["b"])


def _dense_fwd(plan: Plan, *args: Any) -> tuple[Any, Any]:
    layer, rates, x = jax.tree.map(lambda given: given.value, args)
    wanted = () if args[2].perturbed else None  # the gradient of data is not
    return _dense(plan, layer, rates, x), (layer, rates, x, wanted)


def _dense_bwd(plan: Plan, saved: Any, dy: Any) -> tuple[Layer, None, Any]:
    layer, rates, x, wanted = saved
    ways = (partial(way, plan, wanted is not None) for way in (_backward_kernel, _backward))
    after, dx = _choose(*ways, x, layer, rates, x, dy)
    return after, None, dx


_dense.defvjp(_dense_fwd, _dense_bwd, symbolic_zeros=True)


def _choose(kernel: Any, plain: Any, x: Any, *args: Any) -> Any:
    """``kernel(*args)`` where platform, batch and type suit it, else ``plain(*args)``."""
    if len(x) not in _BATCHES or x.dtype not in (jnp.bfloat16, jnp.float16):
        return plain(*args)
    return _launch.choose(kernel, plain, *args)


def _updated(w: Any, m: Any, slope: Any, rates: Rates) -> tuple[Any, Any]:
    m = rates.momentum * m + (slope + rates.weight_decay * w)
    return w - rates.lr * m, m


def _product(a: Any, b: Any, over: tuple[int, int]) -> Any:
    """Of two matrices, over these axes, summed in float32."""
    return lax.dot_general(a, b, ((over[:1], over[1:]), ((), ())), preferred_element_type=jnp.float32)


# -- plain JAX --------------------------------------------------------------------------------------------------------


def _active(plan: Plan, x: Any) -> Any:
    return jnp.maximum(x, 0) if plan.relu else x


def _forward(plan: Plan, x: Any, w: Any, b: Any) -> Any:
    return (_product(_active(plan, x), w.astype(x.dtype), (1, 0)) + b).astype(x.dtype)


def _backward(plan: Plan, wanted: bool, layer: Layer, rates: Rates, x: Any, dy: Any) -> tuple[Layer, Any]:
    momentum = layer["momentum"]
    w, m_w = _updated(layer["w"], momentum["w"], _product(_active(plan, x), dy, (0, 0)), rates)
    b, m_b = _updated(layer["b"], momentum["b"], dy.sum(0, dtype=jnp.float32), rates)
    after = {"w": w, "b": b, "momentum": {"w": m_w, "b": m_b}}
    if not wanted:
        return after, None
    dx = _product(dy, layer["w"].astype(dy.dtype), (1, 1))
    return after, (jnp.where(x > 0, dx, 0) if plan.relu else dx).astype(x.dtype)


# -- kernels ----------------------------------------------------------------------------------------------------------


class Shape(NamedTuple):
    """Of a layer."""

    batch: int
    inputs: int
    outputs: int


def _forward_kernel(plan: Plan, x: Any, w: Any, b: Any) -> Any:
    shape = Shape(len(x), *w.shape)
    tiles = _fitting(plan.forward, shape)

    def launched(x: Any, w: Any, b: Any) -> Any:
        members = max(len(x), len(w), len(b))
        return _launch.launch(
            "dense_forward",
            [x, w, b],
            [_array((members, shape.batch, shape.outputs), x.dtype)],
            programs=-(-shape.outputs // tiles.columns) * members,
            constants={
                "shape": shape, "tiles": tiles, "relu": plan.relu,
                "x_step": _launch.step(x, members), "w_step": _launch.step(w, members),
                "b_step": _launch.step(b, members),
            },
            warps=tiles.warps, stages=tiles.stages,
        )[0]  # fmt: skip

    return _launch.of_member(launched)(x, w, b)


def _backward_kernel(plan: Plan, wanted: bool, layer: Layer, rates: Rates, x: Any, dy: Any) -> tuple[Layer, Any]:
    shape = Shape(len(x), *layer["w"].shape)
    tiles = _fitting(plan.backward, shape)

    def launched(*arrays: Any) -> list[Any]:
        rates, x, dy, layer = arrays[:3], arrays[3], arrays[4], arrays[5:]
        members = max(len(array) for array in arrays)
        layer = tuple(jnp.broadcast_to(array, (members, *array.shape[1:])) for array in layer)
        after: list[Any] = [_array(array.shape, array.dtype) for array in layer]
        slope = _array((members, shape.batch, shape.inputs), x.dtype) if wanted else None
        return _launch.launch(
            "dense_backward",
            [*rates, x, dy, *layer],
            [*after, slope],
            programs=-(-shape.inputs // tiles.rows) * members,
            constants={
                "shape": shape, "tiles": tiles, "relu": plan.relu,
                "rate_steps": tuple(_launch.step(rate, members) for rate in rates),
                "x_step": _launch.step(x, members), "dy_step": _launch.step(dy, members),
            },
            warps=tiles.warps, stages=tiles.stages,
            in_place={5: 0, 6: 1, 7: 2, 8: 3},  # the layer
        )  # fmt: skip

    momentum = layer["momentum"]
    old = layer["w"], momentum["w"], layer["b"], momentum["b"]
    w, m_w, b, m_b, *dx = _launch.of_member(launched)(*rates, x, dy, *old)
    return {"w": w, "b": b, "momentum": {"w": m_w, "b": m_b}}, dx[0] if wanted else None


def _fitting(tiles: Tiles, shape: Shape) -> Tiles:
    """No longer than the axes."""
    rows, columns = (max(16, 1 << (size - 1).bit_length()) for size in shape[1:])
    return tiles._replace(rows=min(tiles.rows, rows), columns=min(tiles.columns, columns))


def _array(shape: tuple[int, ...], kind: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, kind)  # type: ignore[no-untyped-call]
