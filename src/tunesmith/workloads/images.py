"""Real images, split once and for all into training, validation and test.

* ``digits``: 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn (the test part of the UCI set).
* ``fashion-mnist``: 70,000 articles of clothing of 28 x 28 pixels (Xiao, Rasul and Vollgraf 2017), read from idx files.

Validation is for every decision of a study. Test is for reports only.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import install
from tunesmith.rng import stream

DATASETS = ("digits", "fashion-mnist")
FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it
_UNSIGNED_BYTE = 0x08  # the idx code of the only element type that image sets use


@dataclass(frozen=True)
class Split:
    """Images and their classes: ``images`` uint8 [n, pixels] from 0 to 255, ``labels`` int64 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Images:
    """A data set in three parts that have no image in common."""

    train: Split
    validation: Split
    test: Split

    @property
    def pixels(self) -> int:
        """Number of inputs of a model."""
        return int(self.train.images.shape[1])

    @property
    def classes(self) -> int:
        """Number of outputs of a model."""
        return int(self.train.labels.max()) + 1


def load(name: str, data_dir: str | Path | None = None) -> Images:
    """A data set by name; loaded once in a process.

    Args:
        name: ``digits`` or ``fashion-mnist``.
        data_dir: where the four idx files of Fashion-MNIST lie, compressed (``.gz``) or not; by default where Debian's
            package ``dataset-fashion-mnist`` puts them. The digits need none.

    Raises:
        ValueError: unknown name, or a file that is no idx file or is cut short.
        FileNotFoundError: a file is missing; the message says which, and how to get it.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    return _load(name, None if data_dir is None else Path(data_dir))


@lru_cache(maxsize=2)
def _load(name: str, data_dir: Path | None) -> Images:
    return _digits() if name == "digits" else _fashion_mnist(data_dir or FASHION_MNIST_DIR)


def _digits() -> Images:
    """60% training, 20% validation, 20% test, by one fixed permutation."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError(f"the digits come with scikit-learn: {install('data')}") from None
    data: Any = load_digits()
    images = np.round(data.data * (255 / 16)).astype(np.uint8)
    labels = data.target.astype(np.int64)
    order = stream(0, "digits").permutation(len(labels))
    train, validation, test = np.split(order, [len(order) * 6 // 10, len(order) * 8 // 10])
    return Images(*(Split(images[part], labels[part]) for part in (train, validation, test)))


def _fashion_mnist(directory: Path) -> Images:
    """The first 50,000 official training images, the other 10,000 for validation, the 10,000 official test images."""
    images, labels = _pair(directory, "train")
    held_out = len(labels) // 6
    return Images(
        Split(images[:-held_out], labels[:-held_out]),
        Split(images[-held_out:], labels[-held_out:]),
        Split(*_pair(directory, "t10k")),
    )


def _pair(directory: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [n, pixels] and labels [n] of one official part."""
    images = read_idx(_find(directory, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_find(directory, f"{part}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(
            f"{directory}: the {part} files have shapes {images.shape} and {labels.shape}, "
            "expected [n, rows, columns] and [n]: they are not a pair of images and labels"
        )
    return images.reshape(len(images), -1), labels.astype(np.int64)


def _find(directory: Path, name: str) -> Path:
    """The file, or its compressed form."""
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"Fashion-MNIST is not complete: {name} (or {name}.gz) is missing in {directory}. Install Debian's package "
        "dataset-fashion-mnist, or give the directory of the four idx files (--data-dir)"
    )


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes, compressed with gzip or not.

    The format: two zero bytes, the element type, the number of dimensions, each dimension as a big-endian 32-bit
    integer, then the elements in C order.

    Raises:
        ValueError: the file is no idx file, holds another element type, or is shorter or longer than it says.
    """
    path = Path(path)
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: cut short or damaged ({error}): fetch it again") from None
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"{path}: not an idx file (it starts with {content[:4].hex() or 'nothing'}): fetch it again")
    if content[2] != _UNSIGNED_BYTE:
        raise ValueError(f"{path}: elements of type 0x{content[2]:02x}, expected unsigned bytes (0x08)")
    start = 4 + 4 * content[3]
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], dtype=">u4")) if len(content) >= start else ()
    expected = start + int(np.prod(shape, dtype=np.int64))
    if not shape or len(content) != expected:
        raise ValueError(f"{path}: {len(content)} bytes, expected {expected}: cut short or damaged, fetch it again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()
