from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tunesmith.pareto import crowding, hypervolume, order, ranks, reference, select


def dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


def peeled(values):
    """Ranks by the definition."""
    found, left, rank = np.full(len(values), -1), set(range(len(values))), 0
    while left:
        front = {i for i in left if not any(dominates(values[j], values[i]) for j in left)}
        found[list(front)] = rank
        left -= front
        rank += 1
    return found


def inclusion_exclusion(values, corner):
    """Volume by the definition, exponential in the number of points."""
    total = 0.0
    for subset in range(1, 2 ** len(values)):
        rows = [i for i in range(len(values)) if subset >> i & 1]
        total -= (-1) ** len(rows) * np.prod(np.maximum(0, corner - values[rows].max(axis=0)))
    return total


points = st.integers(1, 5).flatmap(
    lambda m: arrays(np.float64, st.tuples(st.integers(1, 9), st.just(m)), elements=st.integers(-4, 4).map(float))
)


@given(points)
def test_ranks_follow_the_definition(values):
    np.testing.assert_array_equal(ranks(values), peeled(values))


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_ranks_of_many(m):
    values = np.random.default_rng(m).random((150, m))
    np.testing.assert_array_equal(ranks(values), peeled(values))


def test_ranks_of_extreme_values():
    values = np.array([[np.inf, 0.0], [0.0, np.inf], [1e308, -1e308], [-np.inf, 1.0], [np.inf, np.inf], [np.inf, 0.0]])
    np.testing.assert_array_equal(ranks(values), peeled(values))
    assert ranks(np.empty((0, 2))).shape == (0,)


def test_ranks_of_ten_thousand_points():
    values = np.random.default_rng(0).random((10_000, 2))
    found = ranks(values)
    for level in (0, 1, 50):
        front = values[found == level]
        ordered = front[np.argsort(front[:, 0])]
        assert (np.diff(ordered[:, 1]) < 0).all()  # nobody dominates anybody
    for point in values[found == 50][:20]:
        assert ((values[found == 49] <= point).all(axis=1)).any()


def test_crowding_of_known_points():
    values = np.array([[0.0, 4.0], [1.0, 2.0], [1.0, 2.0], [3.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(crowding(values), [np.inf, 3 / 4 + 3 / 4, 0, 3 / 4 + 2 / 4, np.inf])
    assert crowding(values[:1]).tolist() == [np.inf]
    assert crowding(np.empty((0, 2))).shape == (0,)


def test_crowding_of_extreme_values():
    values = np.array([[-np.inf, np.inf], [0.0, 0.0], [1e308, -1e308], [5e307, -5e307]])
    assert not np.isnan(crowding(values)).any()
    assert not np.isnan(crowding(np.array([[1e-320, 0.0], [2e-320, 0.0], [3e-320, 0.0]]))).any()


@settings(max_examples=60, deadline=None)
@given(points)
def test_hypervolume_is_that_of_the_union(values):
    corner = np.full(values.shape[1], 3.0)
    inside = values[(values < corner).all(axis=1)]
    assert hypervolume(values, corner) == pytest.approx(inclusion_exclusion(inside, corner), rel=1e-9, abs=1e-9)


def test_hypervolume_of_known_fronts():
    assert hypervolume(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]), np.array([4.0, 4.0])) == pytest.approx(6)
    assert hypervolume(np.array([[2.0]]), np.array([5.0])) == pytest.approx(3)
    corners = 1.0 - np.eye(4)  # four slabs of the unit cube, each 2 wide in one direction
    assert hypervolume(corners, np.full(4, 2.0)) == pytest.approx(1 + 4 * 1)
    assert hypervolume(np.array([[5.0, 5.0], [0.0, 9.0]]), np.array([4.0, 4.0])) == 0
    assert hypervolume(np.empty((0, 2)), np.ones(2)) == 0


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_hypervolume_against_monte_carlo(m):
    rng = np.random.default_rng(m)
    values = rng.random((40, m))
    draws = rng.random((40_000, m))
    share = np.mean([(values <= draw).all(axis=1).any() for draw in draws])
    assert hypervolume(values, np.ones(m)) == pytest.approx(share, abs=0.01)


def test_hypervolume_of_extreme_values():
    assert hypervolume(np.array([[-1e300, -1e300]]), np.zeros(2)) == np.inf
    assert hypervolume(np.array([[-np.inf, 0.0]]), np.ones(2)) == pytest.approx(1e307)
    assert hypervolume(np.array([[0.0, 0.0, 0.0]]), np.array([1e-200, 1e-200, 1e200])) == pytest.approx(1e-200)


@settings(max_examples=60, deadline=None)
@given(points)
def test_hypervolume_grows_and_ignores_the_dominated(values):
    corner = np.full(values.shape[1], 5.0)
    whole = hypervolume(values, corner)
    assert hypervolume(values[1:], corner) <= whole + 1e-9
    assert hypervolume(values[ranks(values) == 0], corner) == pytest.approx(whole)


@settings(max_examples=60, deadline=None)
@given(points, st.integers(0, 10))
def test_selection_is_greedy(values, k):
    corner = np.full(values.shape[1], 3.0)
    chosen = select(values, corner, k)
    assert len(set(chosen.tolist())) == len(chosen) == min(k, len(values))
    for i in range(len(chosen)):
        best = max(hypervolume(values[[*chosen[:i], j]], corner) for j in range(len(values)))
        assert hypervolume(values[chosen[: i + 1]], corner) == pytest.approx(best)


def test_selection_of_extreme_values():
    values = np.array([[1e300, -1e300], [0.0, 0.0], [-np.inf, np.inf], [1e300, -1e300]])
    assert sorted(select(values, reference(values), 4)) == [0, 1, 2, 3]
    assert select(np.empty((0, 2)), np.ones(2), 3).shape == (0,)


def test_reference_is_worse_than_the_worst():
    values = np.array([[1.0, -2.0, 0.0, 0.0], [2.0, -4.0, -5.0, 0.0]])
    np.testing.assert_allclose(reference(values), [2.2, -1.8, 0.5, 1.0])
    huge = reference(np.array([[1.7e308, -1e308, np.inf, -np.inf]]))
    assert np.isfinite(huge).all()


def test_order_of_known_trials():
    losses = np.array([[0.0, 0.0], [1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [4.0, 4.0], [np.nan, 1.0], [0.0, 1.0]])
    excess = np.array([[0.2], [-1.0], [0.0], [-5.0], [-1.0], [np.nan], [0.1]])
    assert np.argsort(order(losses, excess)).tolist() == [1, 3, 2, 4, 6, 0, 5]


def test_order_of_one_goal_is_that_of_its_values():
    losses = np.array([[3.0], [1.0], [np.nan], [1.0], [-1e300]])
    assert order(losses, np.empty((5, 0))).tolist() == [3, 1, 4, 2, 0]


def test_order_weighs_constraints_alike_and_fears_the_unknown():
    excess = np.array([[1000.0, 0.0], [0.0, 0.2], [500.0, 0.1], [np.nan, -1.0]])
    assert order(np.zeros((4, 1)), excess).tolist() == [0, 1, 2, 3]
    assert order(np.zeros((2, 1)), np.array([[np.nan], [1e308]])).tolist() == [0, 1]


@given(points)
def test_order_is_a_permutation_in_which_the_dominated_come_later(values):
    places = order(values, np.empty((len(values), 0)))
    assert sorted(places) == list(range(len(values)))
    for i, one in enumerate(values):
        for j, other in enumerate(values):
            if dominates(one, other):
                assert places[i] < places[j]
