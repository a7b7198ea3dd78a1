"""Profiles and scores against cases that were worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tunesmith.comparison import profile, ratios, score, speed_up, study_times

INF = math.inf
TIMES = [[10.0, 30.0, INF, INF], [20.0, 10.0, 5.0, INF], [50.0, 25.0, 5.0, INF]]  # three optimizers, four workloads

tables = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 5)),
    elements=st.one_of(st.floats(0.1, 1e3), st.just(INF)),
)


def test_ratios_by_hand():
    expected = [[1, 3, INF, INF], [2, 1, 1, INF], [5, 2.5, 1, INF]]
    np.testing.assert_allclose(ratios(TIMES), expected)


def test_a_profile_by_hand():
    found = profile(TIMES)
    np.testing.assert_allclose(found.factors, [1, 2, 2.5, 3, 5])
    np.testing.assert_allclose(found.share[0], [0.25, 0.25, 0.25, 0.5, 0.5])
    np.testing.assert_allclose(found.share[1], [0.5, 0.75, 0.75, 0.75, 0.75])
    np.testing.assert_allclose(found.share[2], [0.25, 0.25, 0.5, 0.5, 0.75])
    np.testing.assert_allclose(found.at(2.9), [0.25, 0.75, 0.5])
    np.testing.assert_allclose(found.at(3), [0.5, 0.75, 0.5])
    np.testing.assert_allclose(found.at(1e9), [0.5, 0.75, 0.75])
    np.testing.assert_allclose(found.at(0.5), [0, 0, 0])


def test_a_score_by_hand():
    """Of four workloads: 3/3 + 1/3, 2/3 + 3/3 + 3/3, and 1.5/3 + 3/3, since 5 times the best is over the limit."""
    np.testing.assert_allclose(score(TIMES), [(1 + 1 / 3) / 4, (2 / 3 + 2) / 4, (0.5 + 1) / 4])
    np.testing.assert_allclose(score(TIMES, limit=6), [(1 + 3 / 5) / 4, (4 / 5 + 2) / 4, (1 / 5 + 3.5 / 5 + 1) / 4])


def test_scores_at_the_ends():
    assert score([[1.0, 2.0]]).tolist() == [1.0]  # alone it is the best one everywhere
    assert score([[1.0], [4.0]]).tolist() == [1.0, 0.0]  # solved at the limit, which adds no area
    assert profile([[1.0], [4.0]]).at(4).tolist() == [1.0, 1.0]
    assert score([[INF], [INF]]).tolist() == [0.0, 0.0]
    assert profile([[INF], [INF]]).share.tolist() == [[0.0], [0.0]]


@given(tables)
def test_the_score_is_the_area_under_the_profile(times):
    found = profile(times)
    ends = np.append(found.factors[found.factors < 4], 4.0)
    area = (found.share[:, : len(ends) - 1] * np.diff(ends)).sum(axis=1)
    np.testing.assert_allclose(score(times), area / 3, atol=1e-12)
    grid = np.linspace(1, 4, 3001)
    shares = np.array([found.at(factor) for factor in grid])
    by_trapezoids = ((shares[1:] + shares[:-1]) / 2 * np.diff(grid)[:, None]).sum(axis=0) / 3
    np.testing.assert_allclose(by_trapezoids, score(times), atol=len(times[0]) * 1e-3)


@given(tables, st.floats(0.01, 100))
def test_units_and_the_order_of_workloads_are_nothing(times, unit):
    np.testing.assert_allclose(score(times * unit), score(times), atol=1e-9)
    np.testing.assert_allclose(score(times[:, ::-1]), score(times), atol=1e-12)
    np.testing.assert_allclose(score(times[::-1])[::-1], score(times), atol=1e-12)
    assert ((score(times) >= 0) & (score(times) <= 1)).all()


def test_the_time_of_studies():
    assert study_times([[9, 5], [7, 30], [INF, 6]]) == 6
    assert study_times([[INF, INF], [7, 30], [INF, 6]]) == 7
    assert study_times([[INF], [7], [INF]]) == INF
    assert study_times([[4.0], [6.0]]) == 5
    assert study_times([[INF], [6.0]]) == INF


def test_a_speed_up():
    assert speed_up([10, 20], [20, 160]) == (pytest.approx(4.0), 2)
    assert speed_up([20, 160], [10, 20]) == (pytest.approx(0.25), 2)
    assert speed_up([10, INF, 5], [20, 7, INF]) == (pytest.approx(2.0), 1)
    mean, count = speed_up([INF], [1])
    assert math.isnan(mean)
    assert count == 0


@pytest.mark.parametrize("function", [ratios, profile, score, study_times])
@pytest.mark.parametrize(
    ("times", "error", "message"),
    [
        ([1.0, 2.0], ValueError, r"shape \(2,\)"),
        ([[]], ValueError, "at least one row and one column"),
        ([[1.0, np.nan]], ValueError, "NaN: write inf where the target was not reached"),
        ([[1.0, 0.0]], ValueError, r"0\.0 is not over 0"),
        ([[1.0], [1.0, 2.0]], TypeError, "as many in each row"),
        ([["1"]], TypeError, "times must be numbers"),
        ([["fast"]], TypeError, "times must be numbers"),
    ],
)
def test_what_is_refused(function, times, error, message):
    with pytest.raises(error, match=message) as caught:
        function(times)
    assert "\n" not in str(caught.value)


def test_other_refusals():
    with pytest.raises(ValueError, match="limit=1"):
        score([[1.0]], limit=1)
    with pytest.raises(ValueError, match="for the same workloads"):
        speed_up([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="not over 0"):
        speed_up([-1.0], [1.0])
