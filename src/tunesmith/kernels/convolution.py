"""Convolutions of a population: an implicit product of matrices, by kernels in Triton's language.

A convolution is a product: row ``r`` of the left matrix is the patch of the image around pixel ``r`` (``size * size *
inputs`` values), the right one are the filters. Written out the left matrix is ``size ** 2`` times the image; here its
tiles are gathered by the kernel from the image itself, mostly from the caches, and never stored. That works for each
member alone: ``vmap`` merely adds programs. (XLA's own convolution with filters for each member is a grouped one, and
slower than the members one by one.) Where there are few outputs, a row of the product is a group of neighbouring
pixels: their patches overlap, and are loaded as one.

Three products make up training, two kernels:

* the result: patches of the images times filters;
* the slope of the images: patches of the result's slope times transposed filters. With stride 2 a pixel in an even
  row meets other filter rows than one in an odd row: the four kinds of pixels ("phases") have filters of their own;
* the slope of the filters: transposed patches times the result's slope, in parts of the rows that XLA adds up.

Sizes need not be powers of two, images of 28 x 28 or 7 x 7 are fine: what sticks out of a tile is masked. Other kinds
of numbers than `KINDS`, and places without kernels (`_launch` says which), take a plain formula that writes the patches
out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from tunesmith.kernels import _launch

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
    return _launch.choose(partial(kernel, stride=stride), partial(formula, stride=stride), *arrays)


# -- the plain formula: sums in float32 and one rounding, as in the kernels --------------------------------------------


def _formula(x: Any, filters: Any, stride: int) -> Any:
    """Shifted copies, one product."""
    matrix = filters.astype(x.dtype).reshape(-1, filters.shape[3])
    return jnp.matmul(_shifted(x, len(filters), stride), matrix, preferred_element_type=jnp.float32).astype(x.dtype)


def _shifted(x: Any, size: int, stride: int) -> Any:
    """The patches, written out."""
    height, width = x.shape[1:3]
    margin = (size // 2, size // 2)
    padded = jnp.pad(x, ((0, 0), margin, margin, (0, 0)))
    shifts = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]
    return jnp.concatenate(shifts, -1)


def _formula_of_images(x: Any, filters: Any, slope: Any, stride: int) -> Any:
    """The slopes of the patches, each added to where its values are from."""
    matrix = filters.astype(slope.dtype).reshape(-1, filters.shape[3])
    patches = jnp.matmul(slope, matrix.T, preferred_element_type=jnp.float32)
    shifted = partial(_shifted, size=len(filters), stride=stride)
    return jax.linear_transpose(shifted, _array(x.shape, patches.dtype))(patches)[0].astype(x.dtype)


def _formula_of_filters(x: Any, filters: Any, slope: Any, stride: int) -> Any:
    """The patches, transposed, times the slope."""
    over = ((0, 1, 2), (0, 1, 2)), ((), ())
    matrix = lax.dot_general(_shifted(x, len(filters), stride), slope, over, preferred_element_type=jnp.float32)
    return matrix.reshape(filters.shape).astype(filters.dtype)


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
    def height(self) -> int:
        """Of the source."""
        return self.source[1]

    @property
    def width(self) -> int:
        """Of the source."""
        return self.source[2]

    @property
    def channels(self) -> int:
        """Of the source."""
        return self.source[3]

    @property
    def target_height(self) -> int:
        """Of the target."""
        return self.target[1]

    @property
    def target_width(self) -> int:
        """Of the target."""
        return self.target[2]

    @property
    def target_channels(self) -> int:
        """Of the target."""
        return self.target[3]

    @property
    def across(self) -> int:
        """Pixels in a row of a group's patches."""
        return self.taps + (self.group - 1) * self.stride

    @property
    def depth(self) -> int:
        """Values of a group's patches."""
        return self.taps * self.across * self.channels

    @property
    def outputs(self) -> int:
        """Results of a group."""
        return self.group * self.target_channels

    @property
    def down(self) -> int:
        """Rows of pixels in one phase."""
        return -(-self.target_height // self.phases)

    @property
    def right(self) -> int:
        """Groups in a row of one phase."""
        return -(-self.target_width // (self.phases * self.group))

    @property
    def rows(self) -> int:
        """Groups of one phase: rows of the product."""
        return self.target[0] * self.down * self.right

    @property
    def results(self) -> int:
        """Values of the target."""
        return math.prod(self.target)


@dataclass(frozen=True)
class Cut:
    """Tiles of ``rows``, of ``depth`` values and of ``outputs``, and how many there are of each.

    ``down`` counts tiles of rows, for the slope of the filters those of one of ``parts``.
    """

    rows: int
    depth: int
    outputs: int
    down: int
    deep: int
    across: int
    parts: int = 1


def _result(x: Any, filters: Any, stride: int, tiles: Tiles = PRODUCT) -> Any:
    size, outputs = filters.shape[0], filters.shape[3]
    target = (x.shape[0], -(-x.shape[1] // stride), -(-x.shape[2] // stride), outputs)
    patches = Patches(x.shape, target, size, stride, 1, size // 2, _group(target, 1, tiles))
    return _product(patches, x, filters[None], tiles)


def _slope_of_images(x: Any, filters: Any, slope: Any, stride: int, tiles: Tiles = PRODUCT) -> Any:
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
    return _product(patches, slope, matrix, tiles)


def _product(patches: Patches, source: Any, filters: Any, tiles: Tiles) -> Any:
    """Patches times filters [phase, taps, taps, inputs, outputs]."""
    rows, depth = tiles.rows, _cut(patches.depth, tiles.depth, source)
    outputs = _cut(patches.outputs, tiles.outputs)
    down, deep, across = map(_tiles, (patches.rows, patches.depth, patches.outputs), (rows, depth, outputs))
    cut = Cut(rows, depth, outputs, down, deep, across)
    margins = (0, deep * depth - patches.depth), (0, across * outputs - patches.outputs)
    matrix = jnp.pad(_grouped(patches, filters.astype(source.dtype)), ((0, 0), *margins))

    def launched(source: Any, matrix: Any) -> Any:
        members = max(len(source), len(matrix))
        return _launch.launch(
            "conv_product",
            [source, matrix],
            [_array((members, *patches.target), source.dtype)],
            programs=down * across * patches.phases**2 * members,
            constants={
                "patches": patches, "cut": cut,
                "source_step": _launch.step(source, members), "matrix_step": _launch.step(matrix, members),
            },
            warps=tiles.warps, stages=tiles.stages,
        )[0]  # fmt: skip

    return _launch.of_member(launched)(source, matrix)


def _slope_of_filters(x: Any, filters: Any, slope: Any, stride: int, tiles: Tiles = SLOPE) -> Any:
    """The transposed patches times ``slope``: programs for parts of the rows, summed here."""
    size = filters.shape[0]
    patches = Patches(x.shape, slope.shape, size, stride, 1, size // 2, _group(slope.shape, 1, tiles))
    depth, outputs = _cut(patches.depth, tiles.depth), _cut(patches.outputs, tiles.outputs)
    rows = _cut(patches.rows, tiles.rows, x)
    down = max(1, min(tiles.span, _power(patches.rows)) // rows)
    deep, across, parts = map(_tiles, (patches.depth, patches.outputs, patches.rows), (depth, outputs, down * rows))
    cut = Cut(rows, depth, outputs, down, deep, across, parts)

    def launched(x: Any, slope: Any) -> Any:
        members = max(len(x), len(slope))
        return _launch.launch(
            "conv_slope_of_filters",
            [x, slope],
            [_array((members, parts, deep * depth, across * outputs), jnp.float32)],
            programs=deep * across * parts * members,
            constants={
                "patches": patches, "cut": cut,
                "source_step": _launch.step(x, members), "slope_step": _launch.step(slope, members),
            },
            warps=tiles.warps, stages=tiles.stages,
        )[0]  # fmt: skip

    return _ungrouped(patches, _launch.of_member(launched)(x, slope).sum(0)).astype(filters.dtype)


def _group(target: tuple[int, ...], phases: int, tiles: Tiles) -> int:
    """As many neighbours as a tile has place for."""
    fit = tiles.outputs // _power(target[3])
    return max(1, min(tiles.group, fit, _power(_tiles(target[2], phases))))


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
        patches.taps, patches.across, patches.channels, patches.group, patches.target_channels
    )
    starts = range(0, patches.group * patches.stride, patches.stride)
    return sum(whole[:, at : at + patches.taps, :, number] for number, at in enumerate(starts))


def _array(shape: tuple[int, ...], kind: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, kind)  # type: ignore[no-untyped-call]


def _cut(size: int, tile: int, kind: Any = None) -> int:
    """A tile's length for this size; half of it for values of 4 bytes."""
    tile = tile // 2 if kind is not None and kind.dtype == jnp.float32 else tile
    return max(16, min(tile, _power(size)))


def _tiles(size: int, tile: int) -> int:
    """How many tiles cover it."""
    return -(-size // tile)


def _power(size: int) -> int:
    """The next power of two."""
    return 1 << (size - 1).bit_length()
