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

On CUDA one kernel (Pallas, Triton) reads a tile of the weights and of their momentum once, adds its share to the
gradient of the inputs, and writes both back in place. That is for inputs of 16 bits (weights stay in float32):
with float32 inputs the kernel was no faster than XLA. For these, elsewhere, and where shapes do not suit the kernel,
the same formula is plain JAX. ``vmap`` over members adds a dimension to the kernel's grid.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

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
    interpret: bool = False  # the kernels run on any platform, slowly


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
    return _choose(plan, *ways, x, x, layer["w"], layer["b"])


def _dense_fwd(plan: Plan, *args: Any) -> tuple[Any, Any]:
    layer, rates, x = jax.tree.map(lambda given: given.value, args)
    wanted = () if args[2].perturbed else None  # the gradient of data is not
    return _dense(plan, layer, rates, x), (layer, rates, x, wanted)


def _dense_bwd(plan: Plan, saved: Any, dy: Any) -> tuple[Layer, None, Any]:
    layer, rates, x, wanted = saved
    ways = (partial(way, plan, wanted is not None) for way in (_backward_kernel, _backward))
    after, dx = _choose(plan, *ways, x, layer, rates, x, dy)
    return after, None, dx


_dense.defvjp(_dense_fwd, _dense_bwd, symbolic_zeros=True)


def _choose(plan: Plan, kernel: Any, plain: Any, x: Any, *args: Any) -> Any:
    """``kernel(*args)`` where platform, batch and type suit it, else ``plain(*args)``."""
    if plan.interpret:
        return kernel(*args)
    if len(x) not in _BATCHES or x.dtype not in (jnp.bfloat16, jnp.float16):
        return plain(*args)
    return lax.platform_dependent(*args, cuda=kernel, default=plain)


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


class _Span(NamedTuple):
    """``size`` places of an axis from ``start`` on; those from ``limit`` on are outside of the array."""

    start: Any
    size: int
    limit: int


def _tiles(limit: int, size: int) -> tuple[int, int]:
    """How many tiles cover an axis, and their size: what was asked for, if the axis is not shorter."""
    size = min(size, max(16, pl.next_power_of_2(limit)))
    return pl.cdiv(limit, size), size


def _mask(spans: tuple[_Span, ...]) -> Any:
    mask = None
    for axis, (start, size, limit) in enumerate(spans):
        if limit % size:
            inside = start + lax.broadcasted_iota(jnp.int32, [span.size for span in spans], axis) < limit
            mask = inside if mask is None else mask & inside
    return mask


def _load(ref: Any, *spans: _Span) -> Any:
    """A tile; zeros outside of the array."""
    mask = _mask(spans)
    place = ref.at[tuple(pl.ds(span.start, span.size) for span in spans)]
    return plgpu.load(place, mask=mask, other=None if mask is None else jnp.zeros((), ref.dtype))


def _store(ref: Any, value: Any, *spans: _Span) -> None:
    place = ref.at[tuple(pl.ds(span.start, span.size) for span in spans)]
    plgpu.store(place, value.astype(ref.dtype), mask=_mask(spans))


def _call(plan: Plan, tiles: Tiles, kernel: Any, grid: tuple[int, ...], shapes: Any, aliases: Any, *args: Any) -> Any:
    return pl.pallas_call(
        kernel,
        grid=grid,
        out_shape=shapes,
        input_output_aliases=aliases,
        interpret=plan.interpret,
        compiler_params=plgpu.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
    )(*args)


def _forward_kernel(plan: Plan, x: Any, w: Any, b: Any) -> Any:
    """A program makes ``columns`` outputs of the whole batch, so that the weights are read once."""
    inputs, outputs = w.shape
    (down, rows), (across, columns) = _tiles(inputs, plan.forward.rows), _tiles(outputs, plan.forward.columns)
    batch = _Span(0, len(x), len(x))

    def kernel(x_ref: Any, w_ref: Any, b_ref: Any, y_ref: Any) -> None:
        here = _Span(pl.program_id(0) * columns, columns, outputs)

        def add(i: Any, y: Any) -> Any:
            span = _Span(i * rows, rows, inputs)
            x = _active(plan, _load(x_ref, batch, span))
            return y + _product(x, _load(w_ref, span, here).astype(x.dtype), (1, 0))

        y = lax.fori_loop(0, down, add, jnp.zeros((batch.size, columns), jnp.float32))
        _store(y_ref, y + _load(b_ref, here)[None], batch, here)

    shape = jax.eval_shape(partial(_forward, plan), x, w, b)
    return _call(plan, plan.forward, kernel, (across,), shape, {}, x, w, b)


def _backward_kernel(plan: Plan, wanted: bool, layer: Layer, rates: Rates, x: Any, dy: Any) -> tuple[Layer, Any]:
    """A program updates ``rows`` rows of the weights: it holds these columns of ``x`` and goes along the outputs.

    With the same tile of the weights it adds to the gradient of ``x``, and then writes the new tile in its place.
    """
    inputs, outputs = layer["w"].shape
    (down, rows), (across, columns) = _tiles(inputs, plan.backward.rows), _tiles(outputs, plan.backward.columns)
    batch = _Span(0, len(x), len(x))

    def kernel(*refs: Any) -> None:
        rates, (x_ref, dy_ref, *old), new = Rates(*(ref[...] for ref in refs[:3])), refs[3:9], refs[9:13]
        here = _Span(pl.program_id(0) * rows, rows, inputs)
        active = _active(plan, _load(x_ref, batch, here))

        def update(j: Any, dx: Any) -> Any:
            span = _Span(j * columns, columns, outputs)
            dy, w, m = _load(dy_ref, batch, span), _load(old[0], here, span), _load(old[1], here, span)
            for ref, value in zip(new[:2], _updated(w, m, _product(active, dy, (0, 0)), rates), strict=True):
                _store(ref, value, here, span)
            return dx + _product(dy, w.astype(dy.dtype), (1, 1)) if wanted else dx

        dx = lax.fori_loop(0, across, update, jnp.zeros((batch.size, rows), jnp.float32) if wanted else ())
        if wanted:  # x is read again: it would take registers all the way
            dx = jnp.where(_load(x_ref, batch, here) > 0, dx, 0) if plan.relu else dx
            _store(refs[13], dx, batch, here)

        @pl.when(pl.program_id(0) == 0)
        def biases() -> None:
            def update(j: Any, nothing: None) -> None:
                span = _Span(j * columns, columns, outputs)
                slope = _load(dy_ref, batch, span).astype(jnp.float32).sum(0)
                values = _updated(_load(old[2], span), _load(old[3], span), slope, rates)
                for ref, value in zip(new[2:], values, strict=True):
                    _store(ref, value, span)

            lax.fori_loop(0, across, update, None)

    momentum = layer["momentum"]
    old = (layer["w"], momentum["w"], layer["b"], momentum["b"])
    shapes = jax.eval_shape(lambda *same: same, *old, *([x] if wanted else []))
    aliases = {5: 0, 6: 1, 7: 2, 8: 3}  # the layer is updated in place
    w, m_w, b, m_b, *dx = _call(plan, plan.backward, kernel, (down,), shapes, aliases, *rates, x, dy, *old)
    return {"w": w, "b": b, "momentum": {"w": m_w, "b": m_b}}, dx[0] if wanted else None
