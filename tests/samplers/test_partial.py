"""Values of trials that are partly trained, in the terms of the last step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tunesmith import Float, Goal, Space
from tunesmith.records import Asked, Told
from tunesmith.samplers._partial import extrapolated, lines
from tunesmith.samplers.base import History


def curves(n: int, seed: int = 0) -> np.ndarray:
    """Values at three steps, each a noisy linear function of the one before: [n, 3]."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=n)
    second = 2.0 + 0.5 * first + 0.1 * rng.normal(size=n)
    return np.column_stack([first, second, -1.0 + 3.0 * second + 0.1 * rng.normal(size=n)])


def halved(values: np.ndarray, share: float = 3.0) -> np.ndarray:
    """As successive halving sees them: at each step only the best of the one before."""
    seen = values.copy()
    for j in range(1, values.shape[1]):
        left = np.flatnonzero(~np.isnan(seen[:, j - 1]))
        stop = left[np.argsort(seen[left, j - 1])][int(len(left) / share) :]
        seen[stop, j:] = np.nan
    return seen


def test_selection_is_no_bias() -> None:
    """The lines are those of all trials, though only the best third goes on each time."""
    shifts, slopes, known, trust = lines(halved(curves(3000)))
    assert known.all()
    variance = 2.25 * 1 + 9 * 0.01 + 0.01  # at the last rung: of the first values, and of the noise of two steps
    np.testing.assert_allclose(trust, [2.25 / variance, 1 - 0.01 / variance, 1.0], atol=0.02)
    np.testing.assert_allclose(slopes, [1.5, 3.0, 1.0], rtol=0.05)
    np.testing.assert_allclose(shifts, [5.0, -1.0, 0.0], atol=0.05)


def test_early_values_that_mislead_are_turned_over() -> None:
    values = curves(300)
    values[:, 0] *= -1
    slopes = lines(halved(values)).slopes
    assert slopes[0] < -1 and slopes[1] > 2


def test_early_values_that_say_nothing_become_equal() -> None:
    rng = np.random.default_rng(0)
    values = halved(np.column_stack([5.0 + 0.01 * rng.normal(size=300), rng.normal(size=300)]))
    shifts, slopes, _, trust = lines(values)
    assert np.ptp(shifts[0] + slopes[0] * values[:, 0]) < 0.3 and trust[0] < 0.01


def test_few_trials_only_shift() -> None:
    """With one that has gone on, the others are expected to fall as far."""
    values = np.array([[1.0, 0.5], [2.0, np.nan], [3.0, np.nan]])
    shifts, slopes, _, _ = lines(values)
    assert shifts.tolist() == [-0.5, 0.0] and slopes.tolist() == [1.0, 1.0]


def test_trials_that_have_nothing_in_common_are_left_as_they_are() -> None:
    shifts, slopes, known, _ = lines(np.array([[1.0, 2.0, np.nan], [np.nan, np.nan, 7.0]]))
    assert shifts.tolist() == [1.0, 0.0, 0.0] and slopes.tolist() == [1.0, 1.0, 1.0]
    assert known.tolist() == [False, False, True]


def test_who_begins_later_is_compared_at_the_step_after() -> None:
    """And a step in between that one lacks is no hindrance."""
    values = curves(600)
    values[:200, 0] = np.nan  # began at the second step
    values[200:400, 1] = np.nan
    shifts, slopes, _, _ = lines(values)
    np.testing.assert_allclose(slopes, [1.5, 3.0, 1.0], rtol=0.1)
    np.testing.assert_allclose(shifts, [5.0, -1.0, 0.0], atol=0.1)


def test_some_diverged_trials_have_little_power() -> None:
    values = halved(curves(300))
    typical = np.array([-1.0, 1.5, 3.5])

    def expected() -> np.ndarray:
        shifts, slopes, _, _ = lines(values)
        found: np.ndarray = shifts + slopes * typical
        return found

    before = expected()
    values[np.argsort(-values[:, 0])[:10], 0] = 1e9
    values[np.flatnonzero(~np.isnan(values[:, 2]))[0], 2] = 1e9
    np.testing.assert_allclose(expected(), before, atol=0.4)


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1e12, 1e300])
def test_units_are_no_matter(scale: float) -> None:
    values = halved(curves(100))
    plain, scaled = lines(values), lines(values * scale)
    np.testing.assert_allclose(scaled.shifts / scale, plain.shifts, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scaled.slopes, plain.slopes, rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.data())
def test_always_finite(n: int, r: int, data: st.DataObject) -> None:
    """Whatever the values, with one at least at each step."""
    numbers = st.floats(-1.7e308, 1.7e308, allow_nan=False)
    values = data.draw(arrays(np.float64, (n, r), elements=numbers))
    lacks = data.draw(arrays(np.bool_, (n, r)))
    lacks[data.draw(st.integers(0, n - 1))] = False
    values[lacks] = np.nan
    shifts, slopes, _, trust = lines(values)
    assert (trust >= 0).all() and (trust <= 1).all() and trust[-1] == 1
    assert np.isfinite(shifts).all() and np.isfinite(slopes).all() and shifts[-1] == 0 and slopes[-1] == 1


def test_observations_in_the_terms_of_the_last_rung() -> None:
    past = History(Space({"x": Float(0.0, 1.0)}), [Goal("loss"), Goal("other", maximise=True)])

    def advance(trial: int, start: int, until: int, loss: float) -> None:
        past.tell(Asked(0, 0, trial, {"x": trial / 8}, start, until))
        past.tell(Told(0, trial, until - 1, {"loss": [loss], "other": [2 * loss]}))

    for trial in range(8):
        advance(trial, 0, 1, float(trial))
    values, known, _ = extrapolated(past, 0, past.last)
    assert values.tolist() == [float(trial) for trial in range(8)] and known.all()
    for trial in range(4):
        advance(trial, 1, 3, trial - 3.0)
    for j, factor in enumerate([1.0, -2.0]):
        values, known, _ = extrapolated(past, j, past.last)
        np.testing.assert_allclose(values, [factor * (trial - 3.0) for trial in range(8)], atol=1e-9)
        assert known.all()
    advance(8, 0, 9, 5.0)
    assert extrapolated(past, 0, past.last).known.tolist() == [False] * 8 + [True]
