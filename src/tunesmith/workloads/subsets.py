"""Less data for cheap trials: nested subsets of a data set, representative subsets, smaller images.

Subsets are arrays of row numbers, int64. With the same seed they are nested, also over several calls: each is a prefix
of the larger ones, so that a trial that is promoted sees again what it has seen before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tunesmith.rng import stream

Rows = NDArray[np.int64]

BLOCK = 1 << 22  #: pixels that are resized at once

# -- nested subsets -------------------------------------------------------------------------------------------------


def nested(labels: ArrayLike, sizes: Sequence[int | float], seed: int = 0) -> list[Rows]:
    """Nested random subsets in which every class has the share that it has in the whole.

    Rows are given to the classes in turn, as seats are to parties by Webster's method (Sainte-Lague): the next one
    goes to the class with the largest ``n / (k + 1/2)``, where n is its size and k the rows that it has. This method
    never takes a seat away when there are more, so that the subsets are nested. Every class gets its first row before
    any gets its second.

    Args:
        labels: the class of every row, [n]; for regression, see :func:`quantiles`.
        sizes: of the subsets: whole numbers from 1 to n, or fractions (floats) over 0 to 1.0, at least one row.
        seed: which rows of a class come first.

    Returns:
        One array of row numbers for each of ``sizes``, in their order.

    Raises:
        ValueError: ``labels`` is empty or has another shape, a size is out of its range.
        TypeError: a size is no number.
    """
    classes = _vector("labels", labels)
    rng = stream(seed, "nested subsets")
    order = _by_class(classes, len(classes), lambda rows, count: rng.permutation(rows))
    return [order[:count] for count in _counts(sizes, len(classes))]


def random(n: int, sizes: Sequence[int | float], seed: int = 0) -> list[Rows]:
    """Nested random subsets of n rows, whatever their classes; arguments and errors as in :func:`nested`."""
    order = stream(seed, "random subsets").permutation(n)
    return [order[:count] for count in _counts(sizes, n)]


def quantiles(targets: ArrayLike, bins: int = 10) -> Rows:
    """Classes for a regression problem: which of ``bins`` groups of (nearly) equal size a target lies in, [n].

    Equal targets may be parted: the groups are of the sorted rows.

    Raises:
        ValueError: ``targets`` is empty, has another shape or a NaN, or ``bins`` is not at least 1.
    """
    values = _vector("targets", targets)
    if bins < 1:
        raise ValueError(f"bins={bins} must be at least 1")
    if np.isnan(values.astype(np.float64)).any():
        raise ValueError("targets has a NaN: leave these rows out")
    groups = np.empty(len(values), dtype=np.int64)
    groups[np.argsort(values, kind="stable")] = np.arange(len(values)) * bins // len(values)
    return groups


def _counts(sizes: Sequence[int | float], n: int) -> list[int]:
    """Numbers of rows from numbers and fractions."""
    counts = []
    for size in sizes:
        if isinstance(size, float | np.floating):
            if not 0 < size <= 1:
                raise ValueError(f"size {size} of {n} rows: a fraction must be over 0 and at most 1.0")
            counts.append(max(1, round(float(size) * n)))
        elif isinstance(size, bool) or not isinstance(size, int | np.integer):
            raise TypeError(f"size {size!r} must be a whole number of rows, or a fraction of them as a float")
        elif not 1 <= size <= n:
            raise ValueError(f"size {size} of {n} rows: it must be from 1 to {n}; a fraction is a float, such as 0.1")
        else:
            counts.append(int(size))
    return counts


def _by_class(labels: NDArray[Any], size: int, choose: Callable[[Rows, int], Rows]) -> Rows:
    """The first ``size`` rows of an order in which the classes take turns.

    Args:
        labels: [n].
        size: how many rows.
        choose: gives the first ``count`` rows of a class, in order, from all its rows.
    """
    names, members, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    taken = np.concatenate([np.arange(count) for count in sizes])  # rows that the class has before this one
    turn = np.repeat(np.arange(len(names)), sizes)
    due = np.where(taken == 0, -1.0, (taken + 0.5) / sizes[turn])
    turns = turn[np.lexsort((-sizes[turn], due))][:size]  # where equal, the larger class first
    order = np.empty(size, dtype=np.int64)
    for name in range(len(names)):  # also a class without a turn, so that the randomness of the next is the same
        places = np.flatnonzero(turns == name)
        order[places] = choose(np.flatnonzero(members == name), len(places))
    return order


# -- representative subsets -------------------------------------------------------------------------------------------


def k_centre(features: ArrayLike, size: int, seed: int = 0, labels: ArrayLike | None = None) -> Rows:
    """Rows that leave no row far from all of them: greedy k-centre (Gonzalez 1985).

    The first row is random; each next one is the row that is farthest from those chosen so far. For every k, the
    largest distance of a row from the first k is at most twice what the best k rows could reach. It takes O(n size d)
    time, and memory for a copy of the features and n numbers. Outliers come early: the subset covers the data, it does
    not represent its density.

    Args:
        features: [n, ...], compared by Euclidean distance; integers are taken as float32.
        size: how many rows.
        seed: of the first row.
        labels: [n]; where given, the classes take turns as in :func:`nested`, each with centres of its own.

    Returns:
        Row numbers [size] in the order in which they were chosen: every prefix is a subset.

    Raises:
        ValueError: shapes do not fit, the size is not from 1 to n, or a feature is not finite.
    """
    x = _matrix(features, size)
    rng = stream(seed, "k-centre")
    return _chosen(x, size, labels, lambda part, count: _farthest(part, count, int(rng.integers(len(part)))))


def _farthest(x: NDArray[Any], size: int, first: int) -> Rows:
    """Gonzalez' order of the rows of x [n, d]."""
    x = _centred(x)  # distances stay, rounding errors shrink
    squares = np.einsum("ij,ij->i", x, x)
    nearest = np.full(len(x), np.inf, dtype=x.dtype)
    order = np.empty(size, dtype=np.int64)
    for k in range(size):
        row = first if k == 0 else int(nearest.argmax())
        order[k] = row
        np.minimum(nearest, np.maximum(squares - 2 * (x @ x[row]) + squares[row], 0), out=nearest)
        nearest[row] = -1  # never again, also where all distances are 0
    return order


def herding(features: ArrayLike, size: int, labels: ArrayLike | None = None) -> Rows:
    """Rows whose mean is that of all rows: greedy mean matching, the herding of a finite set.

    Each next row is the one that brings the mean of the chosen rows nearest to the mean of all. Where all rows are of
    one length, this is Welling's herding (2009; kernel herding of Chen, Welling and Smola 2010, with the linear kernel)
    without repetition; it is how iCaRL (Rebuffi et al. 2017) chooses exemplars. It takes O(n size d) time. There is no
    randomness in it.

    Args:
        features: [n, ...]; integers are taken as float32. What is matched is the mean of these, so give the features
            of a network, or random Fourier features, to match more than the mean of the inputs.
        size: how many rows.
        labels: [n]; where given, the classes take turns as in :func:`nested`, each with its own mean.

    Returns:
        Row numbers [size] in the order in which they were chosen: every prefix is a subset.

    Raises:
        ValueError: as :func:`k_centre`.
    """
    return _chosen(_matrix(features, size), size, labels, _matching)


def _matching(x: NDArray[Any], size: int) -> Rows:
    """The rows of x [n, d] by greedy mean matching.

    With the mean as origin, the next row is the one that brings the sum s of the chosen rows nearest to 0:
    the least ``|s + x|^2 = |s|^2 + 2 s x + |x|^2``.
    """
    x = _centred(x)
    squares = np.einsum("ij,ij->i", x, x)
    total = np.zeros(x.shape[1], dtype=x.dtype)
    order = np.empty(size, dtype=np.int64)
    for k in range(size):
        row = int((2 * (x @ total) + squares).argmin())
        order[k] = row
        total += x[row]
        squares[row] = np.inf  # never again
    return order


def _centred(x: NDArray[Any]) -> NDArray[Any]:
    """The rows with their mean as origin, in their own precision."""
    return np.asarray(x - x.mean(axis=0, dtype=np.float64).astype(x.dtype))


def _chosen(x: NDArray[Any], size: int, labels: ArrayLike | None, choose: Callable[[NDArray[Any], int], Rows]) -> Rows:
    """Rows of x, from all or class by class."""
    if labels is None:
        return choose(x, size)
    classes = _vector("labels", labels)
    if len(classes) != len(x):
        raise ValueError(f"{len(classes)} labels are given for {len(x)} rows of features")
    return _by_class(classes, size, lambda rows, count: rows[choose(x[rows], count)])


def _vector(name: str, values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} of shape {array.shape} must be one value a row: [n], at least one")
    return array


def _matrix(features: ArrayLike, size: int) -> NDArray[Any]:
    """Features as floats [n, d], checked with the size."""
    x = np.asarray(features)
    if x.ndim < 2 or not len(x):
        raise ValueError(f"features of shape {x.shape} must be [n, d] or [n, ...], with at least one row")
    x = x.reshape(len(x), -1)
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError("features must be finite: one is NaN or infinite")
    _counts([size], len(x))
    return x


# -- smaller images ---------------------------------------------------------------------------------------------------

Axes = Literal["nhw", "nhwc", "nchw"]


def resize(images: NDArray[Any], size: int | tuple[int, int], axes: Axes = "nhw") -> NDArray[Any]:
    """Smaller images, by area: each new pixel is the mean of the area that it covers, parts of pixels included.

    This keeps the mean of an image, and makes fine patterns grey instead of coarse ones (little aliasing). Where the
    old size is a multiple of the new one, it is the mean over blocks of pixels, PyTorch's ``interpolate(mode="area")``.

    Args:
        images: uint8 or floats; what its axes are says ``axes``.
        size: height and width of the new images, or one number for both; at most those of the old ones.
        axes: ``"nhw"`` (images, height, width), ``"nhwc"`` or ``"nchw"`` (with channels).

    Returns:
        Images of the same type and the same order of axes; uint8 is rounded to the nearest.

    Raises:
        ValueError: the number of axes is another one, or the size is not from 1 to that of the images.
        TypeError: the images are neither uint8 nor floats.
    """
    if axes not in ("nhw", "nhwc", "nchw"):
        raise ValueError(f"axes={axes!r} must be 'nhw', 'nhwc' or 'nchw'")
    images = np.asarray(images)
    if images.ndim != len(axes):
        raise ValueError(f"images of shape {images.shape} have {images.ndim} axes, axes={axes!r} says {len(axes)}")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"images of type {images.dtype} must be uint8 or floats")
    last = np.moveaxis(images, (axes.index("h"), axes.index("w")), (-2, -1))
    height, width = _shape(size, last.shape[-2:])
    flat = last.reshape(-1, *last.shape[-2:])
    small = _resized(flat, height, width).reshape(*last.shape[:-2], height, width)
    return np.ascontiguousarray(np.moveaxis(small, (-2, -1), (axes.index("h"), axes.index("w"))))


def _shape(size: int | tuple[int, int], old: tuple[int, ...]) -> tuple[int, int]:
    """Height and width, at most the old ones."""
    sides = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(sides) != 2 or not all(1 <= new <= side for new, side in zip(sides, old, strict=False)):
        raise ValueError(f"size={size} must be one or two numbers from 1 to the images' own height and width, {old}")
    return int(sides[0]), int(sides[1])


def _resized(images: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Images [n, h, w] as [n, height, width], in blocks of bounded memory."""
    work = np.result_type(images.dtype, np.float32)
    tall = _overlaps(images.shape[1], height).astype(work)
    wide = _overlaps(images.shape[2], width).astype(work)
    small = np.empty((len(images), height, width), dtype=images.dtype)
    count = max(1, BLOCK // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), count):
        block = tall @ images[start : start + count].astype(work) @ wide.T
        small[start : start + count] = np.rint(block) if images.dtype == np.uint8 else block
    return small


def _overlaps(old: int, new: int) -> NDArray[np.float64]:
    """Weights [new, old] of the old pixels in the new ones: which part of a new pixel lies in an old one."""
    ratio = old / new
    begins = np.arange(new)[:, None] * ratio
    pixels = np.arange(old)
    covered: NDArray[np.float64] = np.minimum(begins + ratio, pixels + 1) - np.maximum(begins, pixels)
    return covered.clip(0.0) / ratio
