"""The trial that is selected, and its value over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from tunesmith.comparison import over_seeds, select


def test_the_best_is_selected_and_the_first_of_equal_ones():
    assert select([3.0, 1.0, 1.0, math.inf]) == 1
    assert select([3.0, 1.0, 1.0, -math.inf], maximise=True) == 0
    with pytest.raises(ValueError, match="all of 2 trials diverged, there is none to select"):
        select([math.inf, math.inf])
    with pytest.raises(ValueError, match="NaN"):
        select([math.nan, 1.0])


def test_few_seeds_have_students_interval():
    values = [0.91, 0.94, 0.92, 0.95, 0.93]
    found = over_seeds(values, maximise=True)
    expected = ttest_1samp(values, 0).confidence_interval(0.9)
    assert found.values == tuple(values)
    assert (found.mean, found.method) == (pytest.approx(0.93), "t")
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_many_seeds_are_resampled():
    values = np.random.default_rng(0).normal(size=40)
    found, same = over_seeds(values, seed=3), over_seeds(values, seed=3)
    assert found == same
    assert found.method == "bootstrap"
    assert found.low < found.mean < found.high
    assert found != over_seeds(values, seed=4)
    equal = over_seeds([2.0] * 30)
    assert [equal.low, equal.mean, equal.high] == pytest.approx([2.0] * 3, rel=1e-12)


def test_one_seed_says_nothing_of_others():
    found = over_seeds([0.5])
    assert (found.mean, found.low, found.high, found.method) == (0.5, -math.inf, math.inf, "none")


def test_a_diverged_seed_leaves_no_mean_and_all_values():
    found = over_seeds([0.5, math.inf, 0.6])
    assert math.isnan(found.mean)
    assert math.isnan(found.low)
    assert (found.diverged, found.method, found.values) == (1, "none", (0.5, math.inf, 0.6))
    assert over_seeds([0.5, -math.inf], maximise=True).values == (0.5, -math.inf)


def test_what_is_refused():
    with pytest.raises(ValueError, match="over_seeds: values of shape"):
        over_seeds([])
    with pytest.raises(ValueError, match="over_seeds: value 0 is NaN"):
        over_seeds([math.nan])
    with pytest.raises(ValueError, match="level"):
        over_seeds([1.0], level=2)
