"""Gaussian-process regression against dense algebra, finite differences and what is known of the data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Categorical, Float, Integer, Space
from tunesmith.samplers._kernel import CODE, Kernel, active_with, matern, squared_distances
from tunesmith.samplers._surrogate import Surrogate, _loss
from tunesmith.space import Column
from tunesmith.testing import mixed, nested, spaces

CASES = [(make, warp, steps) for make in (mixed, nested) for warp in (False, True) for steps in (False, True)]


def cube(d: int) -> Space:
    return Space({f"x{i}": Float(0.0, 1.0) for i in range(d)})


def drawn(space: Space, n: int, seed: int = 0) -> np.ndarray:
    return space.snap(np.random.default_rng(seed).random((n, len(space.columns))))


def around(kernel: Kernel, seed: int = 0, spread: float = 0.3) -> np.ndarray:
    """Hyperparameters somewhere near the prior's mode."""
    theta = kernel.prior[:, 0] + spread * np.random.default_rng(seed).normal(size=kernel.size)
    theta[-1] = -4.0
    return theta


def surrogate(space: Space, warp: bool = False, steps: bool = False, n: int = 25, seed: int = 0) -> Surrogate:
    """With steps, the points are at rungs from 1 to 27."""
    kernel, rng = Kernel(space.columns, warp, steps), np.random.default_rng(seed)
    points = drawn(space, n, seed)
    if steps:
        points = np.column_stack([points, np.log(3.0 ** (np.arange(n) % 4 - 3))])
    return Surrogate.condition(kernel, around(kernel), points, rng.normal(size=n), rng.integers(1, 4, n).astype(float))


def covariance(model: Surrogate, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    kernel = model.kernel
    scaled = [kernel.scaled(model.theta, kernel.embed(points)) for points in (a, b)]
    return kernel.covariance(model.theta, *scaled)


# -- the kernel ---------------------------------------------------------------------------------------------------


def test_matern_and_its_derivative():
    r = np.array([0.0, 0.3, 1.0, 5.0])
    value, slope = matern(r**2)
    np.testing.assert_allclose(value, (1 + math.sqrt(5) * r + 5 / 3 * r**2) * np.exp(-math.sqrt(5) * r))
    step = (matern(r**2 + 1e-6)[0] - matern(np.maximum(r**2 - 1e-6, 0))[0]) / np.where(r > 0, 2e-6, 1e-6)
    np.testing.assert_allclose(slope, step, rtol=2e-3)


def test_kernel_of_numbers_by_hand():
    """Every column has its own length-scale; the scale multiplies."""
    kernel = Kernel(cube(2).columns)
    theta = np.log([0.5, 2.0, 3.0, 0.01])
    a, b = np.array([[0.1, 0.9]]), np.array([[0.4, 0.2]])
    squared = np.array((0.3 / 0.5) ** 2 + (0.7 / 2.0) ** 2)
    found = kernel.covariance(theta, *(kernel.scaled(theta, kernel.embed(x)) for x in (a, b)))
    np.testing.assert_allclose(found, [[3.0 * matern(squared)[0]]])


def test_options_are_equally_far_apart():
    space = Space({"a": Categorical(list("xyzw")), "b": Categorical(list(range(CODE * 3)))})
    kernel = Kernel(space.columns)
    few = np.column_stack([(np.arange(4) + 0.5) / 4, np.full(4, 0.5 / (CODE * 3))])
    features = kernel.embed(few)
    np.testing.assert_allclose(squared_distances(features, features), 1 - np.eye(4), atol=1e-12)
    many = np.column_stack([np.full(CODE * 3, 0.125), (np.arange(CODE * 3) + 0.5) / (CODE * 3)])
    features = kernel.embed(many)
    apart = squared_distances(features, features)[~np.eye(CODE * 3, dtype=bool)]
    assert abs(apart.mean() - 1) < 0.02 and apart.min() > 0.3


def test_inactive_values_are_equal():
    """Two points of one branch are as far apart as their active columns say, whatever else the space has."""
    branches = {"a": Space({"u": Float(0, 1)}), "b": Space({"v": Float(0, 1), "w": Categorical([1, 2, 3])})}
    small, large = Space({"m": Categorical({"a": branches["a"]})}), Space({"m": Categorical(branches)})
    values = {}
    for space in (small, large):
        kernel = Kernel(space.columns)
        theta = np.zeros(kernel.size)
        points = np.array([space.encode({"m": "a", "u": u}) for u in (0.2, 0.9)])
        scaled = kernel.scaled(theta, kernel.embed(points))
        values[space] = kernel.covariance(theta, scaled[:1], scaled[1:])
    np.testing.assert_allclose(values[small], values[large])


def test_length_scale_of_the_switch_parts_the_branches():
    space = Space({"m": Categorical({"a": Space({"u": Float(0, 1)}), "b": None})})
    kernel = Kernel(space.columns)
    points = np.array([space.encode({"m": "a", "u": 0.5}), space.encode({"m": "b"})])
    near, far = np.zeros(kernel.size), np.zeros(kernel.size)
    near[0], far[0] = 4.0, -4.0
    found = [
        kernel.covariance(theta, *(kernel.scaled(theta, kernel.embed(p[None])) for p in points)).item()
        for theta in (near, far)
    ]
    assert found[0] > 0.8 * kernel.variance(near) and found[1] < 1e-6


@settings(max_examples=40, deadline=None)
@given(spaces(), st.booleans(), st.booleans(), st.integers(0, 100))
def test_kernel_is_positive_semidefinite(space: Space, warp: bool, steps: bool, seed: int):
    kernel = Kernel(space.columns, warp, steps)
    assert len(kernel.prior) == len(kernel.bounds) == kernel.size
    theta = np.clip(around(kernel, seed, 1.0), *kernel.bounds.T)
    points = drawn(space, 30, seed)
    scaled = kernel.scaled(theta, kernel.embed(points))
    matrix = kernel.covariance(theta, scaled, scaled)
    np.testing.assert_allclose(np.diag(matrix), kernel.variance(theta), rtol=1e-6)
    assert np.linalg.eigvalsh(matrix).min() > -1e-6 * kernel.variance(theta)
    model = Surrogate.condition(kernel, theta, points, np.zeros(30))
    assert all(np.isfinite(values).all() for values in model.gradients(drawn(space, 5, seed + 1)))


def test_the_step_is_one_more_coordinate():
    """As a column that is a number would be; a point that lacks it is at the last step."""
    kernel, wider = Kernel(cube(2).columns, steps=True), Kernel(cube(3).columns)
    theta, rng = around(wider), np.random.default_rng(0)
    points = np.column_stack([rng.random((6, 2)), -rng.random(6)])
    found = kernel.embed(points)
    np.testing.assert_array_equal(found, wider.embed(points))
    np.testing.assert_array_equal(kernel.embed(points[:, :2]), wider.embed(points * [1, 1, 0]))
    scaled = kernel.scaled(theta, found)
    np.testing.assert_array_equal(kernel.covariance(theta, scaled, scaled), wider.covariance(theta, scaled, scaled))
    np.testing.assert_array_equal(kernel.prior[:2], Kernel(cube(2).columns).prior[:2])


def test_columns_that_are_active_together():
    def column(parent: int | None = None, *options: int, kind: str = "unordered", levels: int = 4) -> Column:
        return Column("x", kind, levels, parent, options)  # type: ignore[arg-type]

    columns = [column(), column(0, 0, 1), column(0, 0, levels=2), column(2, 1), column(0, 3), column()]
    assert active_with(columns, 0) == pytest.approx(1 + 2 / 4 + 1 / 4 + 1 / 8 + 1 / 4 + 1)
    assert active_with(columns, 1) == pytest.approx(1 + 1 + 1 / 2 + 1 / 4 + 0 + 1)
    assert active_with(columns, 3) == pytest.approx(1 + 1 + 1 + 1 + 0 + 1)
    assert active_with(columns, 4) == pytest.approx(3)


# -- the posterior ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "warp", "steps"), CASES)
def test_posterior_against_a_dense_solve(make, warp, steps):
    model = surrogate(make(), warp, steps)
    points = drawn(make(), 7, seed=1)
    dense = covariance(model, model.points, model.points) + np.diag(np.exp(model.theta[-1]) / model.counts)
    cross = covariance(model, points, model.points)
    mean = cross @ np.linalg.solve(dense, model.y)
    np.testing.assert_allclose(model.means(points), mean, rtol=1e-8, atol=1e-10)
    cov = covariance(model, points, points) - cross @ np.linalg.solve(dense, cross.T)
    np.testing.assert_allclose(model.predict(points)[0], mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.predict(points)[1], np.sqrt(np.diag(cov)), rtol=1e-8)


@pytest.mark.parametrize(("make", "warp", "steps"), CASES)
def test_likelihood_gradient(make, warp, steps):
    """Against central differences, with repeated measurements."""
    model = surrogate(make(), warp, steps)
    features = model.kernel.embed(model.points)

    def loss(theta):
        return _loss(theta, model.kernel, features, model.y, model.counts)

    steps = 1e-5 * np.eye(model.kernel.size)
    numeric = [(loss(model.theta + step)[0] - loss(model.theta - step)[0]) / 2e-5 for step in steps]
    np.testing.assert_allclose(loss(model.theta)[1], numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("make", "warp", "steps"), CASES)
@pytest.mark.parametrize("fantasies", [False, True])
def test_posterior_gradients(make, warp, steps, fantasies):
    """Against central differences in the numeric columns that are active; 0 in all others."""
    space = make()
    model = surrogate(space, warp, steps)
    if fantasies:
        y = np.random.default_rng(0).normal(size=(4, len(model.y) + 3))
        model = model.extend(drawn(space, 3, seed=5), y, np.append(model.counts, np.ones(3)))
    points = np.where(np.isnan(p := drawn(space, 6, seed=2)), np.nan, np.clip(p, 0.05, 0.95))
    unordered = [column.kind == "unordered" for column in space.columns]
    points[:, unordered] = p[:, unordered]
    mean, sd, dmean, dsd = model.gradients(points)
    np.testing.assert_allclose(mean, model.predict(points)[0], atol=1e-12)
    np.testing.assert_allclose(sd, model.predict(points)[1])
    for j in range(len(space.columns)):
        if unordered[j]:
            assert not dmean[..., j].any() and not dsd[:, j].any()
            continue
        step = np.zeros(points.shape)
        step[:, j] = 1e-6
        (up, wide), (down, narrow) = model.predict(points + step), model.predict(points - step)
        np.testing.assert_allclose(dmean[..., j], (up - down) / 2e-6, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(dsd[:, j], (wide - narrow) / 2e-6, rtol=1e-4, atol=1e-6)
        assert not dmean[..., np.isnan(points[:, j]), j].any()


@pytest.mark.parametrize(("make", "warp", "steps"), CASES)
def test_extended_is_conditioned_anew(make, warp, steps):
    whole = surrogate(make(), warp, steps)
    n, rng = len(whole.y) - 6, np.random.default_rng(3)
    part = Surrogate.condition(whole.kernel, whole.theta, whole.points[:n], rng.normal(size=n), whole.counts[:n])
    step = part.extend(whole.points[n : n + 2], rng.normal(size=n + 2), whole.counts[: n + 2])
    points = drawn(make(), 5, seed=4)
    for again in (
        step.extend(whole.points[n + 2 :], whole.y, whole.counts),
        whole.extend(whole.points[:0], whole.y, whole.counts),
    ):
        np.testing.assert_allclose(again.predict(points), whole.predict(points), rtol=1e-8, atol=1e-8)
    more = whole.counts + np.eye(len(whole.y))[0]
    recounted = whole.extend(whole.points[:0], whole.y, more)
    anew = Surrogate.condition(whole.kernel, whole.theta, whole.points, whole.y, more)
    np.testing.assert_allclose(recounted.predict(points), anew.predict(points), rtol=1e-8, atol=1e-8)


def test_several_vectors_of_values():
    """Each fantasy is the posterior had it come true, all with the same deviation."""
    model, pending = surrogate(nested()), drawn(nested(), 3, seed=5)
    points, y = drawn(nested(), 8, seed=6), np.random.default_rng(0).normal(size=(4, len(model.y) + 3))
    together, counts = np.concatenate([model.points, pending]), np.append(model.counts, np.ones(3))
    means, sd = model.extend(pending, y, counts).predict(points)
    assert means.shape == (4, 8) and sd.shape == (8,)
    for values, mean in zip(y, means, strict=True):
        alone = Surrogate.condition(model.kernel, model.theta, together, values, counts)
        np.testing.assert_allclose(np.array([mean, sd]), alone.predict(points), atol=1e-8)


def test_what_was_told_early_informs_the_end():
    """The less, the shorter the length-scale of the step."""
    kernel = Kernel(cube(1).columns, steps=True)
    points, y = np.array([[0.3, -2.0], [0.8, 0.0]]), np.array([-1.0, 1.0])
    means = []
    for length in (100.0, 3.0, 0.01):
        theta = np.log([0.1, length, 1.0, 1e-6])
        means.append(Surrogate.condition(kernel, theta, points, y).means(np.array([[0.3]]))[0])
    assert means[0] == pytest.approx(-1.0, abs=0.01) and -0.9 < means[1] < -0.3 and abs(means[2]) < 0.01


# -- the fit ------------------------------------------------------------------------------------------------------


def fitted(f, d: int, n: int, noise: float = 0.0, **options) -> Surrogate:
    rng = np.random.default_rng(0)
    points = rng.random((n, d))
    y = f(points) + noise * rng.normal(size=n)
    return Surrogate.fit(Kernel(cube(d).columns), points, (y - y.mean()) / y.std(), **options)


def smooth(points: np.ndarray) -> np.ndarray:
    return np.sin(5 * points[:, 0]) + np.cos(3 * points[:, 1])


def test_noiseless_data_are_interpolated():
    model = fitted(smooth, 2, 40)
    assert model.noise < 1e-5
    np.testing.assert_allclose(model.predict(model.points)[0], model.y, atol=1e-3)


def test_noise_is_recovered():
    model = fitted(smooth, 2, 150, noise=0.3)
    y_deviation = 1 / np.std(smooth(model.points) + 0)  # noise adds little to it
    assert 0.6 < math.sqrt(model.noise) / (0.3 * y_deviation) < 1.4
    assert np.abs(model.predict(model.points)[0] - model.y).max() > 0.2


def test_repeated_measurements_are_trusted_more():
    kernel = Kernel(cube(1).columns)
    theta = np.log([0.2, 1.0, 0.5])
    points, y = np.array([[0.1], [0.9]]), np.array([1.0, 1.0])
    mean, sd = Surrogate.condition(kernel, theta, points, y, np.array([1.0, 10.0])).predict(points)
    assert mean[1] > mean[0] + 0.2 and sd[1] < sd[0]


def test_columns_that_do_not_matter_get_long_length_scales():
    model = fitted(lambda x: np.sin(6 * x[:, 0]), 3, 40)
    assert model.theta[0] + math.log(5) < model.theta[1:3].min()


def test_warping_straightens():
    """A function that lives near one end is told better with warping."""
    rng = np.random.default_rng(0)
    points, test = rng.random((25, 1)), np.linspace(0.01, 0.99, 50)[:, None]

    def f(x: np.ndarray) -> np.ndarray:
        return np.sin(8 * np.log(x[:, 0] + 0.01))

    error = [
        np.abs(
            Surrogate.fit(Kernel(cube(1).columns, warp), points, f(points), restarts=4).predict(test)[0] - f(test)
        ).mean()
        for warp in (False, True)
    ]
    assert error[1] < 0.7 * error[0]


def test_few_points_tell_which_branch_is_better():
    """A branch that was good everywhere is expected to be so in its unseen corners."""
    space = Space({"m": Categorical({c: Space({f"{c}{i}": Float(0, 1) for i in range(3)}) for c in "abc"})})
    points = drawn(space, 24, seed=3)
    branch = np.floor(points[:, 0] * 3).astype(int)
    assert np.bincount(branch, minlength=3).min() >= 3
    rng = np.random.default_rng(0)
    y = np.array([0.0, 1.0, 1.0])[branch] + 0.3 * rng.normal(size=24)
    model = Surrogate.fit(Kernel(space.columns), points, (y - y.mean()) / y.std())
    fresh = drawn(space, 300, seed=4)
    mean, at = model.predict(fresh)[0], np.floor(fresh[:, 0] * 3).astype(int)
    assert (mean[at == 0] < -0.3).all() and (mean[at != 0] > -0.3).mean() > 0.95


def test_fit_is_deterministic_and_improves_on_its_start():
    first, second = fitted(smooth, 2, 20), fitted(smooth, 2, 20)
    np.testing.assert_array_equal(first.theta, second.theta)
    features = first.kernel.embed(first.points)

    def loss(theta):
        return _loss(theta, first.kernel, features, first.y, first.counts)[0]

    assert loss(first.theta) < loss(first.kernel.prior[:, 0]) - 1
    warm = Surrogate.fit(first.kernel, first.points, first.y, theta=first.theta, restarts=0, iterations=5)
    assert loss(warm.theta) <= loss(first.theta) + 1e-9
    assert loss(fitted(smooth, 2, 20, restarts=4).theta) <= loss(first.theta)


@pytest.mark.parametrize("y", [[0.7], [1.0, -1.0], [0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 1.0, -1.0]])
@pytest.mark.parametrize("same", [False, True])
def test_degenerate_data(y, same):
    """One point, two, constant values, and the same point again and again with different values."""
    points = drawn(mixed(), len(y))
    points = np.repeat(points[:1], len(y), axis=0) if same else points
    model = Surrogate.fit(Kernel(mixed().columns), points, np.array(y))
    for values in (*model.predict(points), *model.gradients(points)):
        assert np.isfinite(values).all()
    assert (model.predict(points)[1] > 0).all()


def test_nearly_singular():
    """Hundreds of points that nearly coincide, hardly any noise, and long length-scales."""
    kernel = Kernel(cube(2).columns)
    points = 0.5 + 1e-9 * np.random.default_rng(0).random((200, 2))
    theta = kernel.bounds[:, 1].copy()
    theta[-1] = -60.0
    model = Surrogate.condition(kernel, theta, points, np.zeros(200))
    longer = model.extend(points[:3], np.zeros(203))
    assert all(np.isfinite(values).all() for values in longer.gradients(points[:2]))


def test_no_columns():
    model = Surrogate.fit(Kernel(()), np.empty((3, 0)), np.array([-1.0, 0.0, 1.0]))
    mean, sd = model.predict(np.empty((2, 0)))
    np.testing.assert_allclose(mean, 0.0, atol=1e-9)
    assert (sd > 0).all() and model.gradients(np.empty((2, 0)))[2].shape == (2, 0)


def test_integers_are_numbers():
    """An ordered column enters by its position, with a gradient."""
    space = Space({"n": Integer(1, 9)})
    points = drawn(space, 9)
    y = (points[:, 0] - 0.5) ** 2 * 12 - 1
    model = Surrogate.fit(Kernel(space.columns), points, y)
    assert (np.sign(model.gradients(np.array([[0.1], [0.9]]))[2][:, 0]) == [-1, 1]).all()
