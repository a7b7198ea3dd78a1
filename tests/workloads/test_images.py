from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from tunesmith.workloads import images


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_set(directory: Path, train: int = 12, test: int = 4, pack: bool = False) -> None:
    """A tiny Fashion-MNIST: image i is filled with the value i, label i is i % 10."""
    for part, count in (("train", train), ("t10k", test)):
        pictures = np.repeat(np.arange(count), 784).reshape(count, 28, 28)
        for name, array in (("images-idx3", pictures), ("labels-idx1", np.arange(count) % 10)):
            content = idx(array)
            path = directory / f"{part}-{name}-ubyte{'.gz' if pack else ''}"
            path.write_bytes(gzip.compress(content) if pack else content)


def test_digits_are_split_without_overlap() -> None:
    data = images.load("digits")
    assert (len(data.train), len(data.validation), len(data.test)) == (1078, 359, 360)
    assert (data.pixels, data.classes) == (64, 10)
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int64
    assert data.train.images.max() == 255
    for part in (data.train, data.validation, data.test):
        assert np.bincount(part.labels, minlength=10).min() > 20


def test_the_split_of_the_digits_is_the_same_everywhere() -> None:
    assert images.load("digits").train.labels[:12].tolist() == [4, 9, 7, 9, 7, 0, 8, 6, 1, 4, 4, 8]


def test_a_data_set_is_loaded_once() -> None:
    assert images.load("digits") is images.load("digits")


@pytest.mark.parametrize("pack", [False, True])
def test_idx_files_in_a_directory(tmp_path: Path, pack: bool) -> None:
    write_set(tmp_path, pack=pack)
    data = images.load("fashion-mnist", tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 2, 4)
    assert data.train.images.shape == (10, 784)
    assert data.validation.images[:, 0].tolist() == [10, 11]
    assert data.test.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.skipif(not images.FASHION_MNIST_DIR.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    data = images.load("fashion-mnist")
    assert (len(data.train), len(data.validation), len(data.test)) == (50_000, 10_000, 10_000)
    assert (data.pixels, data.classes) == (784, 10)
    assert np.bincount(data.test.labels).tolist() == [1000] * 10


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown data set 'mnist': choose one of digits, fashion-mnist"):
        images.load("mnist")


def test_a_missing_file_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte.*dataset-fashion-mnist.*--data-dir"):
        images.load("fashion-mnist", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"PNG pixels", "not an idx file"),
        (struct.pack(">BBBBI", 0, 0, 0x0D, 1, 3) + bytes(12), "type 0x0d, expected unsigned bytes"),
        (struct.pack(">BBBB", 0, 0, 8, 3) + bytes(4), "cut short"),
        (struct.pack(">BBBB", 0, 0, 8, 0), "cut short or damaged"),
        (idx(np.arange(10))[:-1], "17 bytes, expected 18: cut short"),
        (idx(np.arange(10)) + b"x", "19 bytes, expected 18"),
        (gzip.compress(idx(np.arange(10)), mtime=0)[:-6], "cut short or damaged"),
        (gzip.compress(idx(np.arange(10)), mtime=0)[:-8] + bytes(8), "cut short or damaged"),
    ],
)
def test_broken_idx_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        images.read_idx(path)


def test_images_and_labels_must_belong_together(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(3)))
    with pytest.raises(ValueError, match="not a pair of images and labels"):
        images.load("fashion-mnist", tmp_path)
