"""Less data: nested and representative subsets, smaller images."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.workloads import subsets

RNG = np.random.default_rng(0)
UNEVEN = np.repeat(["a", "b", "c", "d"], [500, 300, 195, 5])


def shares(labels: np.ndarray) -> dict[Any, int]:
    return dict(zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True))


# -- nested subsets -------------------------------------------------------------------------------------------------


def test_every_class_keeps_its_share() -> None:
    tenth, third, half, whole = subsets.nested(UNEVEN, [0.1, 300, 0.5, 1.0])
    assert shares(UNEVEN[tenth]) == {"a": 50, "b": 30, "c": 19, "d": 1}
    assert shares(UNEVEN[third]) == {"a": 150, "b": 90, "c": 59, "d": 1}
    assert len(half) == 500 and sorted(whole) == list(range(1000))
    assert tenth.dtype == np.int64


def test_every_class_comes_once_before_any_comes_twice() -> None:
    (few,) = subsets.nested(UNEVEN, [4])
    assert UNEVEN[few].tolist() == ["a", "b", "c", "d"]
    (fewer,) = subsets.nested(UNEVEN, [2])
    assert UNEVEN[fewer].tolist() == ["a", "b"]


LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(labels=LABELS, seed=st.integers(0, 1000))
def test_subsets_are_nested_and_balanced(labels: list[int], seed: int) -> None:
    array = np.array(labels)
    n, sizes = len(labels), list(range(1, len(labels) + 1))
    whole = shares(array)
    found = subsets.nested(array, sizes, seed)
    for size, rows in zip(sizes, found, strict=True):
        assert len(rows) == len(set(rows.tolist())) == size
        assert rows.tolist() == found[-1][:size].tolist()
        there = shares(array[rows])
        assert len(there) == min(size, len(whole))
        if size >= len(whole) * 2:
            exact = [whole[name] * size / n for name in whole]
            slack = 1 + sum(max(0.0, 1 - part) for part in exact)  # of classes that got their one row too early
            assert all(abs(there[name] - part) <= slack for name, part in zip(whole, exact, strict=True))


def test_subsets_of_several_calls_are_nested() -> None:
    (small,), (large,) = subsets.nested(UNEVEN, [0.01]), subsets.nested(UNEVEN, [0.4])
    assert small.tolist() == large[:10].tolist()
    assert subsets.random(50, [5])[0].tolist() == subsets.random(50, [20])[0][:5].tolist()


def test_another_seed_gives_other_rows() -> None:
    one, two = subsets.nested(UNEVEN, [50], seed=1)[0], subsets.nested(UNEVEN, [50], seed=2)[0]
    assert set(one) != set(two) and shares(UNEVEN[one]) == shares(UNEVEN[two])
    assert set(subsets.random(100, [50], seed=1)[0]) != set(subsets.random(100, [50], seed=2)[0])


def test_every_row_of_a_class_is_as_likely() -> None:
    labels = np.repeat([0, 1], [20, 10])
    counts = np.zeros(30)
    for seed in range(600):
        counts[subsets.nested(labels, [9], seed)[0]] += 1
    assert counts[:20].sum() == counts[20:].sum() * 2 == 3600
    assert np.abs(counts / 600 - 0.3).max() < 0.075  # four standard deviations


def test_random_subsets() -> None:
    small, large = subsets.random(100, [0.1, 100])
    assert small.tolist() == large[:10].tolist() and sorted(large) == list(range(100))


def test_quantiles_of_a_regression_problem() -> None:
    targets = RNG.exponential(size=1003)
    groups = subsets.quantiles(targets, 4)
    assert np.bincount(groups).tolist() == [251, 251, 251, 250]
    for low, high in ((0, 1), (1, 2), (2, 3)):
        assert targets[groups == low].max() <= targets[groups == high].min()
    (rows,) = subsets.nested(groups, [40])
    assert np.bincount(groups[rows]).tolist() == [10] * 4
    assert np.bincount(subsets.quantiles(np.zeros(6), 3)).tolist() == [2, 2, 2]
    assert len(set(subsets.quantiles([3.0, 1.0], 10).tolist())) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: subsets.nested(UNEVEN, [0]), "size 0 of 1000 rows: it must be from 1 to 1000"),
        (lambda: subsets.nested(UNEVEN, [1001]), "size 1001 of 1000 rows"),
        (lambda: subsets.nested(UNEVEN, [1.5]), "size 1.5 of 1000 rows: a fraction must be over 0 and at most 1.0"),
        (lambda: subsets.nested(UNEVEN, [float("nan")]), "a fraction must be"),
        (lambda: subsets.nested(UNEVEN, [True]), "size True must be a whole number"),
        (lambda: subsets.nested(UNEVEN, ["10%"]), "size '10%' must be a whole number"),
        (lambda: subsets.nested(np.zeros((3, 2)), [1]), r"labels of shape \(3, 2\)"),
        (lambda: subsets.nested([], [1]), "at least one"),
        (lambda: subsets.quantiles([1.0, np.nan]), "targets has a NaN"),
        (lambda: subsets.quantiles([1.0], 0), "bins=0"),
        (lambda: subsets.k_centre(np.zeros(5), 2), r"features of shape \(5,\)"),
        (lambda: subsets.k_centre(np.full((5, 2), np.inf), 2), "must be finite"),
        (lambda: subsets.herding(np.zeros((5, 2)), 6), "size 6 of 5 rows"),
        (lambda: subsets.herding(np.zeros((5, 2)), 3, labels=[1, 2]), "2 labels are given for 5 rows"),
        (lambda: subsets.resize(np.zeros((1, 4, 4)), 5), r"size=5 must be .* from 1 to .* \(4, 4\)"),
        (lambda: subsets.resize(np.zeros((1, 4, 4)), (2, 0)), r"size=\(2, 0\)"),
        (lambda: subsets.resize(np.zeros((1, 4, 4)), (2, 2, 2)), "one or two numbers"),  # type: ignore[arg-type]
        (lambda: subsets.resize(np.zeros((4, 4)), 2), "have 2 axes, axes='nhw' says 3"),
        (lambda: subsets.resize(np.zeros((1, 4, 4)), 2, "hwn"), "axes='hwn' must be"),  # type: ignore[arg-type]
        (lambda: subsets.resize(np.zeros((1, 4, 4), int), 2), "int64 must be uint8 or floats"),
    ],
)
def test_misuse(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


# -- representative subsets -------------------------------------------------------------------------------------------


def radius(x: np.ndarray, rows: Any) -> float:
    """The largest distance of a row from the nearest chosen one."""
    return float(np.linalg.norm(x[:, None] - x[list(rows)][None], axis=2).min(axis=1).max())


def farthest(x: np.ndarray, size: int, first: int) -> list[int]:
    """Gonzalez' algorithm, as one writes it down."""
    order = [first]
    while len(order) < size:
        nearest = np.linalg.norm(x[:, None] - x[order][None], axis=2).min(axis=1)
        order.append(int(nearest.argmax()))
    return order


@pytest.mark.parametrize("seed", range(5))
def test_k_centre_takes_the_farthest_row(seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(80, 6))
    order = subsets.k_centre(x, 20, seed)
    assert order.tolist() == farthest(x, 20, int(order[0]))
    assert subsets.k_centre(x, 5, seed).tolist() == order[:5].tolist()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_radius_is_at_most_twice_the_best(size: int) -> None:
    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=(14, 2))
        best = min(radius(x, rows) for rows in combinations(range(14), size))
        assert radius(x, subsets.k_centre(x, size, seed)) <= 2 * best + 1e-12


def test_k_centre_of_equal_rows_takes_each_once() -> None:
    x = np.zeros((6, 3), dtype=np.float32)
    assert sorted(subsets.k_centre(x, 6)) == list(range(6))
    x[3] = 1.0
    assert 3 in subsets.k_centre(x, 2)


def matching(x: np.ndarray, size: int) -> list[int]:
    """Greedy mean matching, as one writes it down: the next row brings the mean nearest to that of all."""
    order: list[int] = []
    while len(order) < size:
        rest = [row for row in range(len(x)) if row not in order]
        gaps = [np.linalg.norm(x.mean(axis=0) - x[[*order, row]].mean(axis=0)) for row in rest]
        order.append(rest[int(np.argmin(gaps))])
    return order


@pytest.mark.parametrize("seed", range(5))
def test_herding_matches_the_mean(seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(40, 5)) + 3.0
    order = subsets.herding(x, 15)
    assert order.tolist() == matching(x, 15)
    assert subsets.herding(x, 4).tolist() == order[:4].tolist()


def test_herding_of_unit_vectors_is_welling_s() -> None:
    """w <- w + mean - x of the row with the largest w.x, from w = mean, without repetition."""
    x = RNG.normal(size=(60, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    mean, order = x.mean(axis=0), []
    w = mean.copy()
    for _ in range(20):
        scores = x @ w
        scores[order] = -np.inf
        order.append(int(scores.argmax()))
        w += mean - x[order[-1]]
    assert subsets.herding(x, 20).tolist() == order


def test_herding_is_nearer_to_the_mean_than_chance() -> None:
    x = RNG.normal(size=(500, 10)) @ RNG.normal(size=(10, 10))
    gap = lambda rows: np.linalg.norm(x[rows].mean(axis=0) - x.mean(axis=0))  # noqa: E731
    by_chance = np.mean([gap(subsets.random(500, [50], seed)[0]) for seed in range(20)])
    assert gap(subsets.herding(x, 50)) < 0.1 * by_chance


@pytest.mark.parametrize("choose", [subsets.k_centre, subsets.herding])
def test_class_by_class(choose: Any) -> None:
    x = RNG.normal(size=(1000, 4))
    order = choose(x, 100, labels=UNEVEN)
    assert shares(UNEVEN[order]) == {"a": 50, "b": 30, "c": 19, "d": 1}
    assert choose(x, 10, labels=UNEVEN).tolist() == order[:10].tolist()
    assert choose(x, 2, labels=UNEVEN).tolist() == order[:2].tolist()
    if choose is subsets.herding:
        mine = order[UNEVEN[order] == "b"]
        rows = np.flatnonzero(UNEVEN == "b")
        assert mine.tolist() == rows[matching(x[rows], 30)].tolist()


@pytest.mark.parametrize("choose", [subsets.k_centre, subsets.herding])
def test_features_of_any_shape_and_type(choose: Any) -> None:
    images = RNG.integers(0, 255, size=(50, 8, 8), dtype=np.uint8)
    rows = choose(images, 10)
    assert rows.dtype == np.int64 and rows.tolist() == choose(images.reshape(50, 64).astype(np.float64), 10).tolist()
    before = images.astype(np.float32)
    choose(before, 10)
    assert (before == images).all()


# -- smaller images ---------------------------------------------------------------------------------------------------


def by_hand(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Every pixel repeated until the old size is a multiple of the new one; then the mean of blocks."""
    h, w = image.shape
    fine = image.repeat(height, axis=0).repeat(width, axis=1)
    return fine.reshape(height, h, width, w).mean(axis=(1, 3))


@pytest.mark.parametrize("size", [1, 3, 5, 7, 8, (4, 3), (2, 8)])
def test_resizing_is_the_mean_of_areas(size: Any) -> None:
    images = RNG.random((5, 8, 8))
    height, width = (size, size) if isinstance(size, int) else size
    small = subsets.resize(images, size)
    assert small.shape == (5, height, width) and small.dtype == np.float64
    for image, its in zip(images, small, strict=True):
        np.testing.assert_allclose(its, by_hand(image, height, width), rtol=1e-12)
    np.testing.assert_allclose(small.mean(axis=(1, 2)), images.mean(axis=(1, 2)), rtol=1e-12)


@pytest.mark.parametrize("size", [(14, 14), (7, 4), (28, 14)])
def test_torch_agrees_where_the_ratio_is_whole(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    images = RNG.random((3, 2, 28, 28)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(images), size=size, mode="area").numpy()
    np.testing.assert_allclose(subsets.resize(images, size, "nchw"), theirs, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("axes", ["nhw", "nhwc", "nchw"])
def test_axes_and_types(axes: Any, dtype: Any) -> None:
    plain = (RNG.random((4, 3, 9, 6)) * 255).astype(dtype)  # n, c, h, w
    given = {"nhw": plain[:, 0], "nhwc": np.moveaxis(plain, 1, 3), "nchw": plain}[axes]
    small = subsets.resize(given, (3, 2), axes)
    assert small.dtype == dtype and small.flags.c_contiguous
    wanted = plain.astype(np.float64).reshape(4, 3, 3, 3, 2, 3).mean(axis=(3, 5))
    there = small[:, None] if axes == "nhw" else np.moveaxis(small, 3, 1) if axes == "nhwc" else small
    slack = {np.uint8: 0.501, np.float16: 0.2, np.float32: 1e-4, np.float64: 1e-10}[dtype]
    assert np.abs(there.astype(np.float64) - wanted[:, : there.shape[1]]).max() < slack


def test_bytes_are_rounded_not_cut() -> None:
    image = np.array([[[255, 254], [255, 255]]], dtype=np.uint8)
    assert subsets.resize(image, 1).item() == 255
    assert subsets.resize(np.full((1, 5, 5), 255, np.uint8), 3).tolist() == [[[255] * 3] * 3]


def test_fine_patterns_become_grey() -> None:
    stripes = np.tile([0.0, 1.0], (1, 16, 8))
    assert (subsets.resize(stripes, 8) == 0.5).all()
    assert np.ptp(subsets.resize(stripes, 5)) < 0.3


def test_the_same_size_is_the_same_image_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = RNG.random((7, 6, 6)).astype(np.float32)
    assert (subsets.resize(images, 6) == images).all()
    whole = subsets.resize(images, 4)
    monkeypatch.setattr(subsets, "BLOCK", 80)
    assert (subsets.resize(images, 4) == whole).all()
    assert subsets.resize(images[:0], 4).shape == (0, 4, 4)
