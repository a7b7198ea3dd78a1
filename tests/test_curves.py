"""Forecasts of learning curves: right where the truth is known, calibrated, and never without an answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tunesmith.curves import Extrapolator, extrapolate

STEPS = np.arange(1, 31)
Floats = NDArray[np.float64]


def curves(rng: np.random.Generator, n: int, noise: float = 0.01) -> Floats:
    """Power laws and exponentials that fall to different ends: [n, 30]."""
    end, drop = rng.uniform(0.1, 0.6, (n, 1)), rng.uniform(0.3, 1.0, (n, 1))
    power, rate = rng.uniform(0.5, 1.5, (n, 1)), rng.uniform(0.05, 0.4, (n, 1))
    falling = np.where(rng.random((n, 1)) < 0.5, STEPS**-power, np.exp(-rate * (STEPS - 1)))
    found: Floats = end + drop * falling + noise * rng.normal(size=(n, len(STEPS)))
    return found


def cut(values: Floats, after: int) -> Floats:
    """Only the first values are known."""
    return np.where(np.arange(values.shape[1]) < after, values, np.nan)


def test_better_than_the_last_value() -> None:
    """Ends that are a third of the way off are predicted nearer than by what was seen last."""
    truth = curves(np.random.default_rng(0), 80)
    known = np.concatenate([truth[:40], cut(truth[40:], 8)])
    forecast = extrapolate(STEPS, known, 30).median[40:]
    ours, last = abs(forecast - truth[40:, -1]).mean(), abs(truth[40:, 7] - truth[40:, -1]).mean()
    assert ours < 0.5 * last


def test_intervals_hold_what_they_promise() -> None:
    hits = []
    for seed in range(8):
        truth = curves(np.random.default_rng(seed), 60)
        known = np.concatenate([truth[:30], cut(truth[30:], 8)])
        forecast = extrapolate(STEPS, known, 30)
        low, high = forecast.quantile(np.array([0.05, 0.95])).T
        hits.append((low[30:] <= truth[30:, -1]) & (truth[30:, -1] <= high[30:]))
    assert 0.8 < np.mean(hits) <= 0.99


def test_a_finished_curve_ends_where_it_has_ended() -> None:
    truth = curves(np.random.default_rng(1), 10)
    np.testing.assert_allclose(extrapolate(STEPS, truth, 30).median, truth[:, -1], rtol=1e-6)


def test_scale_and_shift_change_nothing_but_scale_and_shift() -> None:
    truth = curves(np.random.default_rng(2), 20)
    known = np.concatenate([truth[:8], cut(truth[8:], 10)])
    plain, moved = extrapolate(STEPS, known, 30).median, extrapolate(STEPS, 1e4 * known - 7.0, 30).median
    np.testing.assert_allclose(moved, 1e4 * plain - 7.0, rtol=1e-3, atol=30.0)


def test_curves_that_cross_are_learned_from_those_that_have_ended() -> None:
    """The lower at the beginning, the higher at the end: who looks best early is not predicted best."""
    rng = np.random.default_rng(3)
    late = rng.uniform(0.0, 1.0, (60, 1))
    truth = (1 - late) + (2 * late - 1) * STEPS / 30 + 0.01 * rng.normal(size=(60, 30))
    known = np.concatenate([truth[:40], cut(truth[40:], 10)])
    forecast = extrapolate(STEPS, known, 30).median[40:]
    assert np.corrcoef(forecast, truth[40:, -1])[0, 1] > 0.8 > 0 > np.corrcoef(truth[40:, 0], truth[40:, -1])[0, 1]


VALUES = st.floats(-1e12, 1e12) | st.sampled_from([0.0, 1.0, 1e-300, 1e300, -1e300, np.nan])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(VALUES, min_size=5, max_size=5), min_size=0, max_size=6))
def test_there_is_always_an_answer(rows: list[list[float]]) -> None:
    values = np.array(rows).reshape(-1, 5)
    forecast = Extrapolator([1, 2, 4, 8, 16], values, 16).forecast(values)
    below = forecast.below(np.array([-1.0, 0.0, 1.0]))
    assert below.shape == (len(values), 3) and ((below >= 0) & (below <= 1)).all()
    assert (np.diff(below, axis=1) >= -1e-12).all()
    assert not np.isnan(forecast.quantile(np.array([0.1, 0.5, 0.9]))).any()


@pytest.mark.parametrize(("steps", "until"), [([2, 1], 5), ([0, 1], 5), ([1, 9], 5)])
def test_bad_steps(steps: list[int], until: int) -> None:
    with pytest.raises(ValueError, match=r"steps|until"):
        extrapolate(steps, np.ones((1, 2)), until)
