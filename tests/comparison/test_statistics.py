"""The best of k against its definition, against laws that are known, and at the edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from tunesmith.comparison import band, best_of, reach, resampled
from tunesmith.comparison.statistics import jackknife, survival, weights

values = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5, -4.0, 1e6, np.inf]), min_size=1, max_size=7)
numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


def drawn(trials, k, replace):
    """The best of all ways to draw k trials, in the order of quality."""
    ways = itertools.product(trials, repeat=k) if replace else itertools.permutations(trials, k)
    return np.sort([min(way) for way in ways])


@given(values, st.integers(1, 4), st.booleans())
def test_it_is_that_of_all_ways_to_draw(trials, k, replace):
    k = k if replace else min(k, len(trials))
    best = drawn(trials, k, replace)
    found = best_of(trials, [k], replace=replace)
    if np.isinf(best).any():
        assert np.isnan(found.mean[0])
        assert "the mean is undefined" in found.note
    else:
        np.testing.assert_allclose(found.mean[0], best.mean(), rtol=1e-12, atol=1e-9)
        assert found.note == ""
    for level, quantile in ((0.05, found.low), (0.5, found.median), (0.95, found.high)):
        assert quantile[0] == best[int(np.ceil(level * len(best) - 1e-6)) - 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=5), st.integers(1, 3))
def test_what_is_reported_is_that_of_the_selected_trial(trials, k):
    """Where several are equally good, each of them equally often."""
    k = min(k, len(trials))
    mean = np.mean(
        [
            np.mean([test for validation, test in way if validation == min(way)[0]])
            for way in itertools.permutations(trials, k)
        ]
    )
    validation, test = zip(*trials, strict=True)
    np.testing.assert_allclose(best_of(validation, [k], report=test).mean, [mean], rtol=1e-12, atol=1e-12)


@given(numbers, st.booleans())
def test_maximising_is_minimising_of_the_opposite(trials, replace):
    up, down = best_of(trials, replace=replace, maximise=True), best_of(-np.array(trials), replace=replace)
    for one, other in ((up.mean, down.mean), (up.median, down.median), (up.low, down.high), (up.high, down.low)):
        np.testing.assert_array_equal(one, -other)


@given(numbers, st.booleans())
def test_more_trials_are_never_worse(trials, replace):
    found = best_of(trials, replace=replace)
    for curve in (found.median, found.low, found.high):
        assert (np.diff(curve) <= 0).all()
    assert (np.diff(found.mean) <= 1e-9 * np.abs(trials).max()).all()
    assert (found.low <= found.median).all()
    assert (found.median <= found.high).all()


@given(numbers, st.randoms(use_true_random=False))
def test_the_order_of_trials_is_nothing(trials, random):
    shuffled = random.sample(trials, len(trials))
    np.testing.assert_array_equal(best_of(trials).mean, best_of(shuffled).mean)
    np.testing.assert_array_equal(band(trials).low, band(shuffled).low)


@pytest.mark.parametrize("replace", [False, True])
def test_the_weights_are_a_law(replace):
    n, budgets = 200, np.arange(1, 201)
    chance = weights(n, budgets, replace)
    np.testing.assert_allclose(chance.sum(axis=1), 1, rtol=1e-12)
    assert (chance >= 0).all()
    assert (np.diff(survival(n, budgets, replace), axis=1) <= 0).all()


def test_the_law_of_uniform_values_is_beta():
    """The best of k uniform values has the law Beta(1, k)."""
    n, budgets = 20_000, [1, 2, 8, 32, 100]
    grid = (np.arange(n) + 0.5) / n  # values at even distances: the law itself
    found = best_of(grid, budgets, replace=True)
    law = beta(1, np.array(budgets))
    np.testing.assert_allclose(found.mean, law.mean(), rtol=1e-3)
    for curve, level in ((found.low, 0.05), (found.median, 0.5), (found.high, 0.95)):
        np.testing.assert_allclose(curve, law.ppf(level), atol=1 / n)


def test_without_replacement_the_mean_is_unbiased_and_with_it_is_not():
    """Of exponential values the mean of the best of k is 1 / k."""
    rng, budgets = np.random.default_rng(0), [1, 5, 10]
    samples = [rng.exponential(size=10) for _ in range(4000)]
    truth = 1 / np.array(budgets)
    unbiased = np.mean([best_of(each, budgets).mean for each in samples], axis=0)
    biased = np.mean([best_of(each, budgets, replace=True).mean for each in samples], axis=0)
    np.testing.assert_allclose(unbiased, truth, rtol=0.05)
    assert biased[-1] > 1.3 * truth[-1]


@pytest.mark.parametrize("replace", [False, True])
def test_resampling_comes_to_the_same(replace):
    trials = np.random.default_rng(1).normal(size=30)
    budgets = [1, 3, 10, 30]
    rows = resampled(trials, budgets, draws=20_000, seed=4, replace=replace)
    exact = best_of(trials, budgets, replace=replace)
    assert rows.shape == (20_000, 4)
    np.testing.assert_allclose(rows.mean(axis=0), exact.mean, atol=0.03)
    assert (np.diff(rows, axis=1) <= 0).all()
    np.testing.assert_array_equal(rows, resampled(trials, budgets, draws=20_000, seed=4, replace=replace))
    assert (rows != resampled(trials, budgets, draws=20_000, seed=5, replace=replace)).any()
    up = resampled(-trials, budgets, draws=20_000, seed=4, replace=replace, maximise=True)
    np.testing.assert_array_equal(up, -rows)


def test_diverged_trials_are_the_worst_ones():
    trials = [0.3, np.inf, 0.1, np.inf, np.inf]
    found = best_of(trials)
    assert found.mean[:3].tolist() == pytest.approx([np.nan] * 3, nan_ok=True)
    np.testing.assert_allclose(found.mean[3:], [0.1 * 4 / 5 + 0.3 / 5, 0.1])  # at most one of the two is left out
    assert found.median.tolist() == [np.inf, 0.3, 0.1, 0.1, 0.1]
    assert found.high.tolist() == [np.inf, np.inf, np.inf, 0.3, 0.1]
    expected = "the mean is undefined up to k = 3: 3 of 5 trials diverged, and one of them may be the best of k"
    assert found.note == expected
    assert np.isnan(best_of(trials, replace=True).mean).all()
    assert "for every k" in best_of(trials, replace=True).note
    assert np.isnan(best_of([0.0] * 99 + [np.inf], [1000], replace=True).mean[0])  # however small its chance


def test_all_diverged():
    found = best_of([np.inf] * 3)
    assert np.isnan(found.mean).all()
    assert (found.median == np.inf).all()
    for statistic, percentile in itertools.product(("median", "mean"), (False, True)):
        interval = band([np.inf] * 9, [1, 2], statistic=statistic, percentile=percentile, draws=10)
        if statistic == "median":
            assert (interval.estimate == np.inf).all()
            assert (interval.low == np.inf).all()
            assert (interval.high == np.inf).all()
        else:
            assert np.isnan([interval.estimate, interval.low, interval.high]).all()
    assert (best_of([-np.inf] * 3, maximise=True).median == -np.inf).all()


def test_one_trial():
    found = best_of([2.0])
    assert [found.mean.tolist(), found.median.tolist(), found.low.tolist()] == [[2.0]] * 3
    for statistic in ("median", "mean"):
        interval = band([2.0], statistic=statistic)
        assert (interval.low.tolist(), interval.high.tolist()) == ([-np.inf], [np.inf])
    assert resampled([2.0], draws=3).tolist() == [[2.0]] * 3


def test_all_equal():
    for options in ({}, {"statistic": "mean"}, {"percentile": True}, {"statistic": "mean", "percentile": True}):
        interval = band([1.5] * 20, [1, 2, 4], **options)
        for ends in (interval.estimate, interval.low, interval.high):
            np.testing.assert_allclose(ends, 1.5, rtol=1e-12)


def test_how_far_trials_reach():
    assert [reach(n) for n in (1, 4, 5, 20, 50, 100)] == [0, 0, 1, 4, 11, 23]
    n = 100
    found = band(np.arange(n), [reach(n), reach(n) + 1, n, 10 * n])
    assert np.isfinite(found.low).tolist() == [True, False, False, False]
    assert np.isfinite(found.high).all()
    up = band(-np.arange(n), [reach(n), reach(n) + 1], maximise=True)
    assert np.isfinite(up.high).tolist() == [True, False]
    mean = band(np.arange(n), [reach(n), reach(n) + 1], statistic="mean")
    assert np.isfinite(mean.low).tolist() == np.isfinite(mean.high).tolist() == [True, False]


@pytest.mark.parametrize("n", [20, 50, 100])
def test_the_places_of_the_median_are_those_of_the_binomial_law(n):
    """Between whole places the probability is that of a binomial; the interval is the tightest one that reaches it."""
    for k in (1, 2, 4):
        p = 1 - 0.5 ** (1 / k)
        found = band(np.arange(1.0, n + 1), [k])  # values are their own places
        low, high = int(np.floor(found.low[0])), int(np.ceil(found.high[0]))
        outer = binom.cdf(high - 1, n, p) - binom.cdf(low - 1, n, p)
        inner = binom.cdf(high - 2, n, p) - binom.cdf(low, n, p)
        assert inner < 0.9 < outer


@given(st.lists(st.floats(0.1, 100), min_size=5, max_size=40))
def test_the_median_and_its_band_go_with_monotone_changes_of_the_values(trials):
    found, changed = best_of(trials), best_of(np.log(trials))
    for one, other in ((found.median, changed.median), (found.low, changed.low), (found.high, changed.high)):
        np.testing.assert_allclose(np.log(one), other, atol=1e-12)
    scaled = band(3 * np.array(trials) + 1).low
    np.testing.assert_allclose(scaled, 3 * band(trials).low + 1, rtol=1e-9)


@given(numbers)
def test_bands_hold_the_estimate_and_shrink_with_the_level(trials):
    wide, narrow = band(trials, [1], level=0.95), band(trials, [1], level=0.5)
    assert wide.low[0] <= narrow.low[0] <= narrow.high[0] <= wide.high[0]
    assert wide.low[0] <= wide.estimate[0] <= wide.high[0]


def test_the_jackknife_is_that_of_the_definition():
    trials = np.sort(np.random.default_rng(2).normal(size=12))
    for k in (1, 3, 11):
        left_out = [best_of(np.delete(trials, i), [k]).mean[0] for i in range(12)]
        assert jackknife(trials, k) == pytest.approx(np.sqrt(11 * np.var(left_out)))


def test_equal_seeds_give_equal_bands():
    trials = np.random.default_rng(3).normal(size=30)
    for options in ({"statistic": "mean"}, {"statistic": "mean", "percentile": True}):
        one, same, other = (band(trials, [4], seed=seed, **options) for seed in (1, 1, 2))
        assert (one.low[0], one.high[0]) == (same.low[0], same.high[0])
        assert (one.low[0], one.high[0]) != (other.low[0], other.high[0])


def test_ten_thousand_trials():
    trials = np.random.default_rng(5).random(10_000)
    budgets = np.arange(1, 1001)
    for replace in (False, True):
        np.testing.assert_allclose(best_of(trials, budgets, replace=replace).mean, 1 / (budgets + 1), rtol=0.25)
    assert len(band(trials, budgets).low) == 1000


@pytest.mark.parametrize("function", [best_of, resampled, band])
@pytest.mark.parametrize(
    ("trials", "options", "error", "message"),
    [
        ([], {}, ValueError, r"shape \(0,\): give one number for each of at least one trial"),
        ([[1.0, 2.0]], {}, ValueError, r"shape \(1, 2\)"),
        ([1.0, float("nan")], {}, ValueError, "value 1 is NaN: write inf for a trial that diverged"),
        ([float("nan")], {"maximise": True}, ValueError, "value 0 is NaN: write -inf"),
        ([-np.inf, 1.0], {}, ValueError, "value 0 is -inf, better than every number: write inf"),
        ([np.inf, 1.0], {"maximise": True}, ValueError, "value 0 is inf, better than every number: write -inf"),
        (["a", "b"], {}, TypeError, "values must be one number for every trial"),
        (["1.0", "2.0"], {}, TypeError, "values must be one number for every trial"),
        ([None, 1.0], {}, TypeError, "values must be one number for every trial"),
        ([[1.0], [1.0, 2.0]], {}, TypeError, "values must be one number for every trial"),
        ([1j], {}, TypeError, "values must be one number for every trial"),
        ([1.0, 2.0], {"budgets": [0]}, ValueError, "must be at least 1"),
        ([1.0, 2.0], {"budgets": []}, ValueError, "at least one of them"),
        ([1.0, 2.0], {"budgets": [1.5]}, TypeError, "must be whole numbers"),
        ([1.0, 2.0], {"budgets": [True]}, TypeError, "must be whole numbers"),
        ([1.0, 2.0], {"maximise": 1}, TypeError, "must be True or False"),
    ],
)
def test_what_is_refused(function, trials, options, error, message):
    with pytest.raises(error, match=message) as caught:
        function(trials, **options)
    assert str(caught.value).startswith(function.__name__)
    assert "\n" not in str(caught.value)


def test_more_trials_than_there_are():
    for call in (
        lambda: best_of([1.0, 2.0], [3]),
        lambda: resampled([1.0, 2.0], [3], replace=False),
        lambda: band([1.0, 2.0], [3], statistic="mean"),
        lambda: band([1.0, 2.0], [3], percentile=True),
    ):
        with pytest.raises(ValueError, match="a budget of 3 is more than the 2 trials there are"):
            call()
    assert best_of([1.0, 2.0], [3], replace=True).mean[0] == pytest.approx(1 + 1 / 8)


def test_other_refusals():
    with pytest.raises(ValueError, match="2 values and 3 in report"):
        best_of([1, 2], report=[1, 2, 3])
    with pytest.raises(ValueError, match="best_of: report: value 0 is NaN"):
        best_of([1, 2], report=[np.nan, 1])
    with pytest.raises(ValueError, match="statistic='mode' must be 'median' or 'mean'"):
        band([1, 2], statistic="mode")
    with pytest.raises(ValueError, match="level=1"):
        band([1, 2], level=1)
    with pytest.raises(ValueError, match="draws=0"):
        band([1, 2], draws=0)
    with pytest.raises(TypeError, match=r"n=2\.5"):
        reach(2.5)
