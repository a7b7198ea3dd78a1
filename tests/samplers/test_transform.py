"""The transform of values before they are modelled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import yeojohnson, yeojohnson_llf

from tunesmith.samplers._transform import Transform, _likelihood, _powered, _unpowered

VALUES = st.lists(st.floats(-1e300, 1e300) | st.floats(-10.0, 10.0), min_size=1, max_size=40).map(np.array)


@given(VALUES)
def test_finite_and_increasing(y):
    z = Transform.fit(y).apply(y)
    assert np.isfinite(z).all()
    order = np.argsort(y, kind="stable")
    assert (np.diff(z[order]) >= 0).all()
    assert abs(z.mean()) < 1e-6 and (abs(z.std() - 1) < 1e-6 or z.std() < 1e-6)


@given(st.lists(st.floats(-100.0, 100.0).map(lambda x: round(x, 3)), min_size=1, max_size=40).map(np.array))
def test_good_values_keep_their_order_and_come_back(y):
    transform = Transform.fit(y)
    good = np.unique(y[y <= np.median(y)])
    z = transform.apply(good)
    assert (np.diff(z) > 0).all()
    np.testing.assert_allclose(transform.invert(z), good, rtol=1e-7, atol=1e-7)
    assert (np.diff(transform.invert(np.linspace(-5, 20, 50))) >= 0).all()


@pytest.mark.parametrize("outlier", [1e3, 1e9, 1e300])
def test_outliers_do_not_flatten_the_good_region(outlier):
    y = np.append(np.linspace(0, 1, 20), outlier)
    z = Transform.fit(y).apply(y)
    assert z[19] - z[0] > 1.5 and z[20] < 4 + z[19]


def test_good_outliers_stay():
    y = np.append(np.linspace(0, 1, 20), -5.0)
    z = Transform.fit(y).apply(y)
    assert z[0] - z[20] == pytest.approx(5 * (z[19] - z[0]))


def test_evenly_spread_values_are_standardised():
    y = np.linspace(-3.0, 7.0, 50)
    np.testing.assert_allclose(Transform.fit(y).apply(y), (y - y.mean()) / y.std(), atol=1e-9)


def test_skewness_is_taken_out():
    """Where good values are crowded they are pulled apart."""
    y = np.exp(np.random.default_rng(0).normal(size=200))
    z = Transform.fit(y).apply(y)
    assert abs((z**3).mean()) < 0.3 < 1.5 < (((y - y.mean()) / y.std()) ** 3).mean()
    best, plain = np.sort(z)[:20], np.sort(y)[:20] / y.std()
    assert np.ptp(best) > 2 * np.ptp(plain)


def test_the_good_side_is_never_crowded():
    """A few very good values are not drawn towards the rest."""
    y = -np.exp(np.random.default_rng(0).normal(size=200))
    assert Transform.fit(y).power == 1.0


@pytest.mark.parametrize("power", [-1.0, -0.3, 0.0, 0.5, 1.0])
def test_yeo_johnson(power):
    values = np.linspace(-4, 4, 41)
    found = _powered(values, power)
    np.testing.assert_allclose(found, yeojohnson(values, power), atol=1e-12)
    np.testing.assert_allclose(_unpowered(found, power), values, atol=1e-9)
    assert _likelihood(values, power) == pytest.approx(yeojohnson_llf(power, values))


@pytest.mark.parametrize("y", [[0.0], [5.0], [1e300] * 3, [0.0] * 4, [-2.0] * 5])
def test_one_value_or_equal_ones(y):
    transform = Transform.fit(np.array(y))
    np.testing.assert_allclose(transform.apply(np.array(y)), 0.0, atol=1e-9)
    np.testing.assert_allclose(transform.invert(np.zeros(len(y))), y)
    assert np.isfinite(transform.apply(np.array([1e300, -1e300]) / 1e5)).all()


@pytest.mark.parametrize("y", [[0, 1] * 10, [0] * 15 + [1] * 5, [0] * 5 + [1] * 15, [1e-300, 2e-300, 5e-300]])
def test_ties_and_tiny_values(y):
    y = np.array(y, dtype=float)
    z = Transform.fit(y).apply(y)
    assert z[y == y.min()].max() < z[y > y.min()].min() - 0.5 and np.isfinite(z).all()


def test_offsets():
    """A large offset takes no more resolution than its rounding does."""
    y = 1e9 + 1e-3 * np.arange(30.0)
    np.testing.assert_allclose(
        np.diff(Transform.fit(y).apply(y)), np.diff(np.arange(30) / np.arange(30).std()), rtol=1e-2
    )
