"""The trust region against traces by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.samplers._region import FIRST, LEAST, MOST, box, side

NAN = np.nan


def trace(*better: bool) -> np.ndarray:
    """Losses that begin with 0 and 1, of which each further one is or is not the best yet."""
    best, values = 0.0, [0.0, 1.0]
    for improved in better:
        best -= improved
        values.append(best if improved else 0.5)
    return np.array(values)


W, L = True, False


@pytest.mark.parametrize(
    ("better", "wanted"),
    [
        ((), FIRST),
        ((L, L), FIRST),  # the second value was a failure too
        ((L, L, L), FIRST / 2),
        ((L, L, W, L, L, L), FIRST),
        ((W, W), FIRST),
        ((W, W, W), MOST),
        ((W, W, L, W, W), FIRST),
        ((W,) * 9, MOST),
        ((W, W, W, L, L, L, L), FIRST),
        ((L,) * 7, FIRST / 4),
        ((L, L, L, W, W, W), FIRST),
    ],
)
def test_side_by_hand(better: tuple[bool, ...], wanted: float) -> None:
    """Three improvements in a row double the side, four failures in a row halve it."""
    assert side(trace(*better), 2) == wanted


def test_more_columns_have_more_patience() -> None:
    assert side(trace(*[L] * 8), 10) == FIRST
    assert side(trace(*[L] * 9), 10) == FIRST / 2


def test_too_small_a_region_starts_over() -> None:
    sides = [side(trace(*[L] * n), 1) for n in range(60)]
    assert min(sides) >= LEAST and min(sides) < 2 * LEAST
    first = sides.index(min(sides))
    assert FIRST in sides[first:]


def test_an_improvement_must_be_worth_its_name() -> None:
    values = np.array([0.0, 1.0, *(-1e-4 * np.arange(1, 12))])
    assert side(values, 1) < FIRST


@pytest.mark.parametrize("n", [1, 2, 9])
def test_equal_values_are_failures(n: int) -> None:
    assert side(np.full(n, 3.0), 1) == FIRST / 2 ** ((n - 1) // 4)


def test_extreme_values() -> None:
    huge = np.array([1.7e308, 0.0, -1.7e308, 1.0])
    assert side(huge, 1) == FIRST
    assert side(np.array([0.0, 1e-300, -1e-300, -2e-300, -3e-300]), 1) == MOST


def test_the_box_is_a_cube_of_this_side_in_the_middle() -> None:
    low, high = box(np.array([0.5, 0.6]), np.array([3.0, 3.0]), 0.2)
    np.testing.assert_allclose(low, [0.4, 0.5])
    np.testing.assert_allclose(high, [0.6, 0.7])


def test_the_box_is_longer_where_the_function_is_smoother() -> None:
    low, high = box(np.array([0.5, 0.5, 0.5]), np.array([0.1, 0.4, 0.2]), 0.2)
    np.testing.assert_allclose(high - low, [0.1, 0.4, 0.2])
    assert np.prod(high - low) == pytest.approx(0.2**3)


def test_the_box_ends_with_the_cube() -> None:
    low, high = box(np.array([0.02, 0.95]), np.ones(2), 0.2)
    np.testing.assert_allclose(low, [0.0, 0.85])
    np.testing.assert_allclose(high, [0.12, 1.0])


def test_inactive_columns_are_not_bounded_and_do_not_count() -> None:
    """Neither does the box bound them, nor do their length-scales change its volume."""
    low, high = box(np.array([0.5, NAN, 0.5]), np.array([1.0, 1e3, 1.0]), 0.2)
    np.testing.assert_allclose(low, [0.4, 0.0, 0.4])
    np.testing.assert_allclose(high, [0.6, 1.0, 0.6])
