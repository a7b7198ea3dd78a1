"""Convolutions of a population: an implicit product of matrices, in Pallas's Triton dialect.

A convolution is a product: row ``r`` of the left matrix is the patch of the image around pixel ``r`` (``size * size *
inputs`` values), the right one are the filters. Written out the left matrix is ``size ** 2`` times the image; here its
tiles are gathered by the kernel from the image itself, mostly from the caches, and never stored. That works for each
member alone, so ``vmap`` merely adds a dimension to the grid. (XLA's own convolution with filters for each member is a
grouped one, and slower than the members one by one.) Where there are few outputs, a row of the product is a group of
neighbouring pixels: their patches overlap, and are loaded as one.

Three products make up training, two kernels:

* the result: patches of the images times filters;
* the slope of the images: patches of the result's slope times transposed filters. With stride 2 a pixel in an even
  row meets other filter rows than one in an odd row: the four kinds of pixels ("phases") have filters of their own;
* the slope of the filters: transposed patches times the result's slope, in parts of the rows that XLA adds up.

Sizes need not be powers of two, images of 28 x 28 or 7 x 7 are fine: what sticks out of a tile is masked. Other kinds
of numbers than `KINDS`, and other devices, take a plain formula that writes the patches out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

KINDS = (jnp.bfloat16, jnp.float16, jnp.float32)  # what the kernels multiply; others take the plain formula


@dataclass(frozen=True)
class Tiles:
    """How a product is cut up.

    A program does ``rows`` pixels by ``outputs`` outputs, ``depth`` values of the patches at a time; for the slope of
    the filters ``depth`` values by ``outputs`` outputs, ``rows`` pixels at a time, ``span`` in all. A pixel may be a
    group of up to ``group`` neighbours, with all of their outputs. Powers of two; but for the last, at least 16.
    """

    rows: int
    depth: int
    group: int
    warps: int
    stages: int
    outputs: int = 64
    span: int = 4096


PRODUCT = Tiles(rows=64, depth=64, group=4, warps=4, stages=2)
SLOPE = Tiles(rows=64, depth=64, group=4, warps=4, stages=3)


def conv(x: Any, filters: Any, stride: int = 1) -> Any:
    """Convolution with zero padding ("same"): a pixel of the result is the sum over the filter centred on it.

    ``x`` is [batch, height, width, inputs], ``filters`` [size, size, inputs, outputs] with an odd size, ``stride`` 1 or
    2. The result is [batch, ceil(height / stride), ceil(width / stride), outputs] in the kind of ``x``; with stride 2
    its pixels are those of stride 1 in rows and columns 0, 2, 4 ... Sums are in float32. Filters of another kind than
    ``x`` are rounded to it, and their slope is not rounded: keep them in float32. On an NVIDIA GPU float32 is
    multiplied as tf32. Of one member; ``vmap`` gives each its own filters. May be differentiated once, in reverse.

    Raises ValueError where a shape, the stride or a kind does not fit.
    """
    _check(x, filters, stride)
    return _conv(x, filters, stride)


def _check(x: Any, filters: Any, stride: int) -> None:
    if x.ndim != 4:
        raise ValueError(f"x has shape {x.shape}; give [batch, height, width, inputs]")
    if filters.ndim != 4 or filters.shape[0] != filters.shape[1] or filters.shape[0] % 2 == 0:
        raise ValueError(f"filters have shape {filters.shape}; give [size, size, inputs, outputs] with an odd size")
    if filters.shape[2] != x.shape[3]:
        raise ValueError(f"filters of {filters.shape[2]} inputs do not fit x with {x.shape[3]}: make them equal")
    if stride not in (1, 2):
        raise ValueError(f"stride is {stride}; give 1 or 2")
    for name, value in (("x", x), ("filters", filters)):
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(f"{name} are of kind {value.dtype}; give floating point numbers")
        if 0 in value.shape:
            raise ValueError(f"{name} have shape {value.shape}; give at least one of each")


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: Any, filters: Any, stride: int) -> Any:
    return _choice(x, _result, _formula, x, filters, stride)


def _forward(x: Any, filters: Any, stride: int) -> tuple[Any, Any]:
    return _conv(x, filters, stride), (x, filters)


def _backward(stride: int, saved: Any, slope: Any) -> tuple[Any, Any]:
    """One choice for each: where the slope of the images is not used, it is not computed."""
    x, filters = saved
    return (
        _choice(x, _slope_of_images, _formula_of_images, x, filters, slope, stride),
        _choice(x, _slope_of_filters, _formula_of_filters, x, filters, slope, stride),
    )


_conv.defvjp(_forward, _backward)


def _choice(x: Any, kernel: Any, formula: Any, *given: Any) -> Any:
    *arrays, stride = given
    filters = arrays[1]
    if x.dtype not in KINDS or max(x.size, x.size // filters.shape[2] * filters.shape[3]) >= 2**31:
        return formula(*arrays, stride)
    return lax.platform_dependent(*arrays, cuda=partial(kernel, stride=stride), default=partial(formula, stride=stride))


# -- the plain formula -----------------------------------------------------------------------------------------------


def _formula(x: Any, filters: Any, stride: int) -> Any:
    """Shifted copies, one product."""
    size, _, inputs, outputs = filters.shape
    height, width = x.shape[1:3]
    margin = (size // 2, size // 2)
    padded = jnp.pad(x, ((0, 0), margin, margin, (0, 0)))
    shifts = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]
    matrix = filters.astype(x.dtype).reshape(size * size * inputs, outputs)
    sums = jnp.matmul(jnp.concatenate(shifts, -1), matrix, preferred_element_type=jnp.float32)
    return sums.astype(x.dtype)


def _formula_of_images(x: Any, filters: Any, slope: Any, stride: int) -> Any:
    return jax.vjp(lambda x: _formula(x, filters, stride), x)[1](slope)[0]


def _formula_of_filters(x: Any, filters: Any, slope: Any, stride: int) -> Any:
    return jax.vjp(lambda filters: _formula(x, filters, stride), filters)[1](slope)[0]


# -- the kernels -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patches:
    """Which values make up the patches, and where the results stand.

    ``source`` and ``target`` are [batch, height, width, channels]. The target's pixels of a phase are those of equal
    ``row % phases`` and ``column % phases``; their patches are ``taps`` by ``taps`` source pixels, and the patches of
    neighbours of one phase lie ``stride`` source pixels apart. ``group`` neighbours in a row share one row of the
    product: their patches overlap, and so fewer values are loaded.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    taps: int
    stride: int
    phases: int
    margin: int
    group: int

    @property
    def across(self) -> int:
        """Pixels in a row of a group's patches."""
        return self.taps + (self.group - 1) * self.stride

    @property
    def depth(self) -> int:
        """Values of a group's patches."""
        return self.taps * self.across * self.source[3]

    @property
    def outputs(self) -> int:
        """Results of a group."""
        return self.group * self.target[3]

    @property
    def extent(self) -> tuple[int, int, int]:
        """Of one phase: batch, rows, groups in a row."""
        batch, height, width, _ = self.target
        return batch, pl.cdiv(height, self.phases), pl.cdiv(width, self.phases * self.group)

    @property
    def rows(self) -> int:
        """Groups of one phase: rows of the product."""
        return math.prod(self.extent)

    def first(self, phase: Any) -> Any:
        """The first source row (column) of a phase's first patch."""
        return lax.div(phase + self.margin, self.phases) - (self.taps - 1)

    def places(self, row: Any) -> tuple[Any, Any, Any]:
        """Image, row and group of these rows of the product."""
        _, height, width = self.extent
        inner = lax.rem(row, height * width)
        return lax.div(row, height * width), lax.div(inner, width), lax.rem(inner, width)

    def pixels(self, row: Any, phase: tuple[Any, Any]) -> tuple[Any, ...]:
        """Of these rows' patches: where the first value stands, its pixel, whether there is such a row."""
        _, height, width, channels = self.source
        image, top, left = self.places(row)
        top = top * self.stride + self.first(phase[0])
        left = left * (self.stride * self.group) + self.first(phase[1])
        return ((image * height + top) * width + left) * channels, top, left, row < self.rows

    def values(self, number: Any) -> tuple[Any, ...]:
        """Of the values of these numbers in any patch: how far from the first, in pixels too, whether there is one."""
        _, _, width, channels = self.source
        tap, channel = lax.div(number, channels), lax.rem(number, channels)
        down, right = lax.div(tap, self.across), lax.rem(tap, self.across)
        return (down * width + right) * channels + channel, down, right, number < self.depth

    def results(self, row: Any, phase: tuple[Any, Any], output: Any) -> tuple[Any, Any]:
        """[rows, outputs]: where the results stand in the target, and whether they do."""
        _, height, width, channels = self.target
        image, i, left = self.places(row)
        number, channel = lax.div(output, channels), lax.rem(output, channels)
        i, left = i * self.phases + phase[0], left * (self.group * self.phases) + phase[1]
        right = number * self.phases
        place = (((image * height + i) * width + left) * channels)[:, None] + (right * channels + channel)[None, :]
        inside = ((row < self.rows) & (i < height))[:, None] & (output < self.outputs)[None, :]
        return place, inside & (left[:, None] + right[None, :] < width)

    def load(self, source: Any, pixels: tuple[Any, ...], values: tuple[Any, ...]) -> Any:
        """[pixels, values], zero outside of the image."""
        _, height, width, _ = self.source
        place, i, j = (pixel[:, None] + value[None, :] for pixel, value in zip(pixels[:3], values[:3], strict=True))
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width) & pixels[3][:, None] & values[3][None, :]
        return plgpu.load(source.at[place], mask=inside, other=0)


def _result(x: Any, filters: Any, stride: int, tiles: Tiles = PRODUCT, interpret: bool = False) -> Any:
    size, _, inputs, outputs = filters.shape
    target = (x.shape[0], -(-x.shape[1] // stride), -(-x.shape[2] // stride), outputs)
    patches = Patches(x.shape, target, size, stride, 1, size // 2, _group(target, 1, tiles))
    return _product(patches, x, filters.reshape(1, size, size, inputs, outputs), tiles, interpret)


def _slope_of_images(
    x: Any, filters: Any, slope: Any, stride: int, tiles: Tiles = PRODUCT, interpret: bool = False
) -> Any:
    """It comes from the results it is part of: by filter rows ``(phase + margin) % stride + stride * tap``.

    The last of them meets the first source row.
    """
    size, _, inputs, outputs = filters.shape
    margin, taps = size // 2, -(-size // stride)
    patches = Patches(slope.shape, x.shape, taps, 1, stride, margin, _group(x.shape, stride, tiles))
    longer = jnp.pad(filters, ((0, taps * stride - size),) * 2 + ((0, 0),) * 2)
    split = longer.reshape(taps, stride, taps, stride, inputs, outputs)[::-1, :, ::-1]
    turned = jnp.roll(split, -margin, (1, 3))  # by phase
    matrix = turned.transpose(1, 3, 0, 2, 5, 4).reshape(stride * stride, taps, taps, outputs, inputs)
    return _product(patches, slope, matrix, tiles, interpret)


def _product(patches: Patches, source: Any, filters: Any, tiles: Tiles, interpret: bool) -> Any:
    """Patches times filters [phase, taps, taps, inputs, outputs]."""
    depth, wide = _cut(patches.depth, tiles.depth, source), _cut(patches.outputs, tiles.outputs)
    matrix = _padded(_grouped(patches, filters.astype(source.dtype)), depth, wide)

    def conv_product(source_ref: Any, matrix_ref: Any, result_ref: Any) -> None:
        row = pl.program_id(0) * tiles.rows + jnp.arange(tiles.rows)
        output = pl.program_id(1) * wide + jnp.arange(wide)
        phase = lax.div(pl.program_id(2), patches.phases), lax.rem(pl.program_id(2), patches.phases)
        pixels = patches.pixels(row, phase)

        def add(number: Any, total: Any) -> Any:
            left = patches.load(source_ref, pixels, patches.values(number * depth + jnp.arange(depth)))
            right = matrix_ref[pl.ds(number * depth, depth), :]
            return total + jnp.dot(left, right, preferred_element_type=jnp.float32)

        zero = jnp.zeros((tiles.rows, wide), jnp.float32)
        total = lax.fori_loop(0, matrix.shape[1] // depth, add, zero)
        place, inside = patches.results(row, phase, output)
        plgpu.store(result_ref.at[place], total.astype(source.dtype), mask=inside)

    size = math.prod(patches.target)
    result = pl.pallas_call(
        conv_product,
        out_shape=_array((size,), source.dtype),
        grid=(pl.cdiv(patches.rows, tiles.rows), matrix.shape[2] // wide, patches.phases**2),
        in_specs=[
            pl.BlockSpec((source.size,), lambda row, output, phase: (0,)),
            pl.BlockSpec((None, matrix.shape[1], wide), lambda row, output, phase: (phase, 0, output)),
        ],
        out_specs=pl.BlockSpec((size,), lambda row, output, phase: (0,)),
        compiler_params=plgpu.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
        interpret=interpret,
    )(source.reshape(-1), matrix)
    return result.reshape(patches.target)


def _slope_of_filters(
    x: Any, filters: Any, slope: Any, stride: int, tiles: Tiles = SLOPE, interpret: bool = False
) -> Any:
    """The transposed patches times ``slope``: programs for parts of the rows, summed here."""
    size = filters.shape[0]
    patches = Patches(x.shape, slope.shape, size, stride, 1, size // 2, _group(slope.shape, 1, tiles))
    depth, wide = _cut(patches.depth, tiles.depth), _cut(patches.outputs, tiles.outputs)
    rows = _cut(patches.rows, tiles.rows, x)
    steps = max(1, min(tiles.span, pl.next_power_of_2(patches.rows)) // rows)
    parts = pl.cdiv(patches.rows, steps * rows)
    deep, broad = pl.cdiv(patches.depth, depth), pl.cdiv(patches.outputs, wide)

    def conv_slope_of_filters(source_ref: Any, slope_ref: Any, part_ref: Any) -> None:
        values = patches.values(pl.program_id(0) * depth + jnp.arange(depth))
        output = pl.program_id(1) * wide + jnp.arange(wide)
        first = pl.program_id(2) * (steps * rows) + jnp.arange(rows)

        def add(number: Any, total: Any) -> Any:
            row = first + number * rows
            left = patches.load(source_ref, patches.pixels(row, (0, 0)), values)
            place, inside = patches.results(row, (0, 0), output)
            right = plgpu.load(slope_ref.at[place], mask=inside, other=0)
            return total + jnp.dot(left.T, right, preferred_element_type=jnp.float32)

        part_ref[...] = lax.fori_loop(0, steps, add, jnp.zeros((depth, wide), jnp.float32))

    total = pl.pallas_call(
        conv_slope_of_filters,
        out_shape=_array((parts, deep * depth, broad * wide), jnp.float32),
        grid=(deep, broad, parts),
        in_specs=[pl.BlockSpec((each.size,), lambda inner, output, part: (0,)) for each in (x, slope)],
        out_specs=pl.BlockSpec((None, depth, wide), lambda inner, output, part: (part, inner, output)),
        compiler_params=plgpu.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
        interpret=interpret,
    )(x.reshape(-1), slope.reshape(-1))
    return _ungrouped(patches, total.sum(0)).astype(filters.dtype)


def _group(target: tuple[int, ...], phases: int, tiles: Tiles) -> int:
    """As many neighbours as a tile has place for."""
    fit = tiles.outputs // pl.next_power_of_2(target[3])
    return max(1, min(tiles.group, fit, pl.next_power_of_2(pl.cdiv(target[2], phases))))


def _grouped(patches: Patches, filters: Any) -> Any:
    """[phase, depth, outputs]: the filters of a group's neighbours, each moved on by the stride."""
    moved = [
        jnp.pad(filters, ((0, 0), (0, 0), (at, patches.across - patches.taps - at), (0, 0), (0, 0)))
        for at in range(0, patches.group * patches.stride, patches.stride)
    ]
    return jnp.stack(moved, -2).reshape(len(filters), patches.depth, patches.outputs)


def _ungrouped(patches: Patches, matrix: Any) -> Any:
    """[taps, taps, inputs, outputs]: the sum over a group's neighbours, each moved back."""
    whole = matrix[: patches.depth, : patches.outputs].reshape(
        patches.taps, patches.across, patches.source[3], patches.group, patches.target[3]
    )
    starts = range(0, patches.group * patches.stride, patches.stride)
    return sum(whole[:, at : at + patches.taps, :, number] for number, at in enumerate(starts))


def _array(shape: tuple[int, ...], kind: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, kind)  # type: ignore[no-untyped-call]


def _cut(size: int, tile: int, kind: Any = None) -> int:
    """A tile's length for this size; half of it for values of 4 bytes."""
    tile = tile // 2 if kind is not None and kind.dtype == jnp.float32 else tile
    return max(16, min(tile, pl.next_power_of_2(size)))


def _padded(matrix: Any, depth: int, wide: int) -> Any:
    """With zeros, to whole tiles."""
    _, rows, columns = matrix.shape
    return jnp.pad(matrix, ((0, 0), (0, -rows % depth), (0, -columns % wide)))
