"""Which of two optimizers is better, against the definition, laws that are known, and at the edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.comparison import beats, beats_band, best_of, crossing, gap, rank_matrix, reach

few = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5, np.inf]), min_size=1, max_size=4)
many = st.lists(st.one_of(st.integers(-5, 5).map(float), st.just(np.inf)), min_size=1, max_size=30)


def counted(one, other, k, ties, replace):
    """The share of all pairs of searches that one of them wins."""

    def searches(trials):
        return itertools.product(trials, repeat=k) if replace else itertools.permutations(trials, k)

    pairs = [(min(a), min(b)) for a, b in itertools.product(searches(one), list(searches(other)))]
    return np.mean([1.0 if a < b else ties if a == b else 0.0 for a, b in pairs])


@given(few, few, st.integers(1, 3), st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
def test_it_is_that_of_all_pairs_of_searches(one, other, k, ties, replace):
    k = k if replace else min(k, len(one), len(other))
    found = beats(one, other, [k], ties=ties, replace=replace)
    np.testing.assert_allclose(found, [counted(one, other, k, ties, replace)], atol=1e-12)


@given(many, many, st.booleans())
def test_the_two_sides_sum_to_one(one, other, replace):
    np.testing.assert_allclose(beats(one, other, replace=replace) + beats(other, one, replace=replace), 1, atol=1e-12)


@given(many, many)
def test_at_least_as_good_and_strictly_worse_sum_to_one(one, other):
    np.testing.assert_allclose(beats(one, other, ties=1.0) + beats(other, one, ties=0.0), 1, atol=1e-12)


@given(many, many, st.randoms(use_true_random=False))
def test_only_the_order_of_the_values_counts(one, other, random):
    changed = [np.exp(np.array(each)) for each in (one, other)]
    found = beats(one, other)
    np.testing.assert_array_equal(beats(*changed), found)
    np.testing.assert_array_equal(beats(random.sample(one, len(one)), random.sample(other, len(other))), found)
    np.testing.assert_array_equal(beats(-np.array(one), -np.array(other), maximise=True), found)


@given(many, many)
def test_its_interval_holds_it_and_changes_sides(one, other):
    found, turned = beats_band(one, other), beats_band(other, one)
    assert (found.low <= found.estimate).all()
    assert (found.estimate <= found.high).all()
    np.testing.assert_allclose(found.low, 1 - turned.high, atol=1e-9)
    np.testing.assert_allclose(found.estimate, beats(one, other))


def test_against_the_law_of_exponential_values():
    """The best of k exponential values is exponential with a rate that is k times as large: rates decide alone."""
    places = (np.arange(4000) + 0.5) / 4000
    one, other = -np.log(places) / 3, -np.log(places)
    np.testing.assert_allclose(beats(one, other, [1, 2, 8, 32], replace=True), 3 / 4, atol=2e-3)


def test_one_trial_each_is_the_statistic_of_mann_and_whitney():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 9, 30).astype(float), rng.integers(1, 10, 40).astype(float)
    statistic = mannwhitneyu(other, one).statistic
    np.testing.assert_allclose(beats(one, other, [1])[0], statistic / (30 * 40))


def test_the_matrix_of_ranks():
    rng = np.random.default_rng(1)
    values = {name: rng.normal(size=20) + shift for name, shift in (("sgd", 1.0), ("adam", 0.0), ("same", 0.0))}
    values["same"] = values["adam"]
    matrix = rank_matrix(values, 4)
    np.testing.assert_allclose(matrix + matrix.T, 1)
    assert matrix[1, 0] == pytest.approx(beats(values["adam"], values["sgd"], [4])[0])
    assert matrix[1, 0] > 0.9
    np.testing.assert_allclose(matrix[1, 2], 0.5)
    np.testing.assert_array_equal(rank_matrix({"a": [1.0]}, 1), [[0.5]])
    np.testing.assert_array_equal(rank_matrix(np.array(list(values.values())), 4), matrix)
    upside_down = {name: -each for name, each in values.items()}
    np.testing.assert_allclose(rank_matrix(upside_down, 4, maximise=True), matrix)


def test_all_trials_better_than_all_others():
    found = beats_band(np.arange(20), np.arange(20, 40), [1, 4, 5])
    np.testing.assert_allclose(found.estimate, 1)
    np.testing.assert_allclose(found.high, 1)
    np.testing.assert_allclose(found.low, [0.05 ** (1 / 20), 0.05 ** (4 / 20), 0])  # 5 is beyond the reach of 20 trials
    by_percentiles = beats_band(np.arange(20), np.arange(20, 40), [1, 4, 5], percentile=True, draws=50)
    np.testing.assert_allclose(by_percentiles.low, 1)


def test_all_diverged_and_all_equal():
    for one, other in (([np.inf] * 20, [np.inf] * 20), ([1.0] * 20, [1.0] * 20)):
        assert beats(one, other, [1, 4]).tolist() == [0.5, 0.5]
        assert beats(one, other, [1, 4], ties=1.0).tolist() == [1.0, 1.0]
        found = gap(one, other)
        assert found.estimate.tolist() == found.low.tolist() == found.high.tolist() == [0.0] * 4
        assert crossing(one, other).high == 1
    assert beats([np.inf] * 3, [1.0] * 3).tolist() == [0.0] * 3
    assert gap([np.inf] * 9, [1.0] * 9).low.tolist() == [np.inf] * 2


def test_one_trial_of_each():
    assert beats([1.0], [2.0]).tolist() == [1.0]
    found = beats_band([1.0], [2.0])
    assert (found.low.tolist(), found.high.tolist()) == ([0.0], [1.0])


def test_the_gap_is_the_difference_of_the_medians():
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=60), rng.normal(size=50) + 0.5
    found = gap(one, other)
    budgets = np.arange(1, reach(50) + 1)
    np.testing.assert_array_equal(found.budgets, budgets)
    np.testing.assert_allclose(
        found.estimate, best_of(one, budgets, replace=True).median - best_of(other, budgets, replace=True).median
    )
    assert (found.low <= found.high).all()
    up = gap(-one, -other, maximise=True)
    np.testing.assert_array_equal([up.estimate, up.low, up.high], [found.estimate, found.low, found.high])


def test_a_gap_with_infinite_ends():
    beyond = gap(np.arange(20), np.arange(20), [reach(20), reach(20) + 1, 100])
    assert np.isfinite(beyond.low).tolist() == np.isfinite(beyond.high).tolist() == [True, False, False]
    often = [np.inf] * 9 + [1.0] * 11  # the upper end of its median is infinite
    found = gap(often, [2.0] * 20, [1])
    assert (found.estimate[0], found.low[0], found.high[0]) == (-1.0, -1.0, np.inf)
    assert gap(often, often, [1]).low[0] == -np.inf
    assert gap(often, [np.inf] * 20, [1]).high[0] == 0.0


@given(many, many)
def test_gaps_hold_the_estimate_and_change_sides(one, other):
    found, turned = gap(one, other), gap(other, one)
    assert (found.low <= found.estimate).all()
    assert (found.estimate <= found.high).all()
    np.testing.assert_allclose(found.low, -turned.high, atol=1e-12)


def test_from_where_on_the_wide_search_pays():
    """A wide space has worse and better trials than a narrow one: with few trials it is worse, with many better."""
    places = (np.arange(200) + 0.5) / 200
    wide, narrow = places, 0.2 + 0.1 * places
    found = crossing(wide, narrow)
    medians = best_of(wide, replace=True).median <= best_of(narrow, replace=True).median
    assert found.budget == 1 + np.flatnonzero(~medians[: reach(200)])[-1] + 1
    assert 1 < found.low <= found.budget <= found.high < found.largest == reach(200)
    back = crossing(narrow, wide)
    assert (back.budget, back.low, back.high) == (np.inf, np.inf, np.inf)
    assert crossing(narrow, wide, margin=1.0).high == 1
    assert crossing(wide, narrow, [1, 2]).budget == np.inf


@pytest.mark.parametrize("function", [beats, beats_band, gap, crossing])
@pytest.mark.parametrize(
    ("one", "other", "options", "error", "message"),
    [
        ([], [1.0], {}, ValueError, "at least one trial"),
        ([1.0], [np.nan], {}, ValueError, "value 0 is NaN: write inf"),
        ([1.0, 2.0], [1.0], {"budgets": [0]}, ValueError, "must be at least 1"),
        ([1.0], [1.0], {"maximise": "yes"}, TypeError, "True or False"),
    ],
)
def test_what_is_refused(function, one, other, options, error, message):
    with pytest.raises(error, match=message) as caught:
        function(one, other, **options)
    assert str(caught.value).startswith(function.__name__)
    assert "\n" not in str(caught.value)


def test_other_refusals():
    with pytest.raises(ValueError, match="ties=2"):
        beats([1.0], [1.0], ties=2)
    with pytest.raises(ValueError, match="margin=-1"):
        crossing([1.0], [1.0], margin=-1)
    for function in (beats, beats_band):
        with pytest.raises(ValueError, match="a budget of 2 is more than the 1 trials"):
            function([1.0, 2.0], [1.0], [2])
    for function in (beats_band, gap, crossing):
        with pytest.raises(ValueError, match="level=0"):
            function([1.0], [1.0], level=0)
    for function in (beats_band, crossing):
        with pytest.raises(ValueError, match="draws=0"):
            function([1.0], [1.0], draws=0)
