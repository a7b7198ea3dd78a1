"""Nothing warns, and intervals hold their estimates, whatever finite or infinite numbers trials have."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.comparison import (
    band,
    beats_band,
    best_of,
    better,
    crossing,
    gap,
    no_worse,
    over_seeds,
    pays,
    profile,
    score,
    speed_up,
)

ends = st.sampled_from([np.inf, 0.0, 1.0, 1.5e308, -1.7e308, 5e-324])
trials = st.lists(st.floats(allow_nan=False, allow_infinity=False) | ends, min_size=1, max_size=30)
times = st.lists(st.floats(1e-150, 1e150) | st.just(np.inf), min_size=3, max_size=3)


def holds(interval):
    known = ~np.isnan(interval.estimate)
    assert (interval.low <= interval.high)[known & ~np.isnan(interval.low)].all()
    return interval


@given(trials)
def test_of_one_optimizer(values):
    for replace in (False, True):
        found = best_of(values, replace=replace)
        assert (found.low <= found.median).all()
    holds(band(values))
    holds(band(values, statistic="mean", draws=20))
    holds(band(values, percentile=True, draws=20))
    holds(band(values, percentile=True, statistic="mean", draws=20))
    over_seeds(values, draws=20)


@given(trials, trials)
def test_of_two_optimizers(one, other):
    for interval in (holds(beats_band(one, other)), holds(gap(one, other))):
        assert (interval.low <= interval.estimate).all()
        assert (interval.estimate <= interval.high).all()
    holds(beats_band(one, other, percentile=True, draws=20))
    found = crossing(one, other, draws=20)
    assert 1 <= found.low <= found.high
    for verdict in (no_worse(one, other, 1), better(one, other, 1), pays(one, other, draws=20)):
        assert "\n" not in str(verdict)
        assert "nan" not in str(verdict)


@given(times, times)
def test_of_times(one, other):
    assert (score([one, other]) <= 1).all()
    assert (np.diff(profile([one, other]).share) >= 0).all()
    assert speed_up(one, other)[1] <= 3
