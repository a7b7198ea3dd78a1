"""Acquisition functions against high precision, finite differences, closed forms and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Categorical, Float, Integer, Prior, Space
from tunesmith.pareto import hypervolume
from tunesmith.samplers import _acquisition as acquisition
from tunesmith.samplers._acquisition import (
    Belief,
    Expected,
    Hypervolume,
    Sum,
    chebyshev,
    drawn,
    ei,
    log_ei,
    log_pi,
    pi,
    ucb,
)
from tunesmith.samplers._boxes import beyond, boxes
from tunesmith.samplers._kernel import Kernel
from tunesmith.samplers._surrogate import Surrogate

SPACE = Space(
    {
        "x": Float(0.0, 1.0, prior=Prior(0.7)),
        "kind": Categorical({"a": None, "b": Space({"y": Float(0.0, 1.0)})}),
        "n": Integer(1, 40, prior=Prior(5, "low")),
    }
)
SMOOTH = [0, 2, 3]  # the columns x, y and n
RULES = [log_ei, ei, log_pi, pi, ucb]


def precise(name: str, mean: float, sd: float, best: float) -> Any:
    """The rules with 60 digits."""
    with mpmath.workdps(60):
        z = (mpmath.mpf(best) - mpmath.mpf(mean)) / mpmath.mpf(sd)
        cdf = mpmath.erfc(-z / mpmath.sqrt(2)) / 2
        pdf = mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi)
        if name == "pi":
            return mpmath.log(cdf), -pdf / cdf / sd, -z * pdf / cdf / sd
        with mpmath.extradps(60):
            h = pdf + z * cdf
        return mpmath.log(h) + mpmath.log(sd), -cdf / h / sd, pdf / h / sd


# -- rules --------------------------------------------------------------------------------------------------------

ZS = [s * 10.0**k for s in (-1, 1) for k in np.linspace(-4, 8, 25)] + [0.0, -1.0, -0.999, -49.9, -50.0, -50.1, -25.3]


@pytest.mark.parametrize("z", ZS)
@pytest.mark.parametrize(("name", "rule"), [("ei", log_ei), ("pi", log_pi)])
def test_logarithms_are_exact_everywhere(z: float, name: str, rule: acquisition.Rule) -> None:
    found = [float(part) for part in rule(np.array(-z), np.array(1.0), np.array(0.0))]
    wanted = [float(part) for part in precise(name, -z, 1.0, 0.0)]
    assert found == pytest.approx(wanted, rel=2e-12, abs=1e-13)


@pytest.mark.parametrize("sd", [1e-50, 1e-12, 1e-3, 1e3, 1e12])
@pytest.mark.parametrize("z", [-1e8, -60.0, -3.0, 0.0, 2.0])
def test_tiny_and_huge_deviations(sd: float, z: float) -> None:
    for name, rule in (("ei", log_ei), ("pi", log_pi)):
        found = [float(part) for part in rule(np.array(-z * sd), np.array(sd), np.array(0.0))]
        assert found == pytest.approx([float(part) for part in precise(name, -z * sd, sd, 0.0)], rel=2e-12)


def test_rules_stay_finite_where_nothing_is_uncertain() -> None:
    mean, best = np.array([-1.0, 0.0, 1.0, 1e6]), np.zeros(1)
    for rule in RULES:
        assert all(np.isfinite(part).all() for part in rule(mean, np.zeros(4), best))


@given(st.floats(-30, 30), st.floats(1e-3, 1e3), st.floats(-30, 30))
def test_the_logarithms_are_those_of_the_plain_rules(mean: float, sd: float, best: float) -> None:
    args = np.array(mean), np.array(sd), np.array(best)
    for log, plain in ((log_ei, ei), (log_pi, pi)):
        value, by_mean, by_sd = log(*args)
        expected = plain(*args)
        assert np.exp(value) == pytest.approx(expected[0], rel=1e-9, abs=1e-300)
        assert np.exp(value) * by_mean == pytest.approx(expected[1], rel=1e-9, abs=1e-300)
        assert np.exp(value) * by_sd == pytest.approx(expected[2], rel=1e-9, abs=1e-300)


def test_expected_improvement_is_one() -> None:
    draws = np.random.default_rng(0).normal(0.3, 0.8, 1_000_000)
    arguments = np.array(0.3), np.array(0.8), np.array(-0.1)
    assert ei(*arguments)[0] == pytest.approx(np.maximum(-0.1 - draws, 0).mean(), rel=0.01)
    assert pi(*arguments)[0] == pytest.approx((draws < -0.1).mean(), rel=0.01)
    assert ucb(np.array(0.3), np.array(0.8), np.array(2.0))[0] == pytest.approx(1.3)


# -- a small surrogate --------------------------------------------------------------------------------------------


@dataclass
class Stub:
    """A Gaussian process with a squared-exponential kernel; with S rows of values it has S means."""

    points: np.ndarray
    values: np.ndarray  # [n] or [S, n]
    noise: float = 1e-4
    scale: float = 0.4

    def features(self, points: np.ndarray) -> np.ndarray:
        inactive = np.isnan(points[:, [2]])
        return np.hstack([np.nan_to_num(points, nan=0.0), 0.3 * inactive])

    def kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        gap = self.features(a)[:, None] - self.features(b)[None]
        return np.exp(-0.5 * (gap**2).sum(-1) / self.scale**2)

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.gradients(points)[:2]

    def gradients(self, points: np.ndarray) -> tuple[np.ndarray, ...]:
        cov = self.kernel(self.points, self.points) + self.noise * np.eye(len(self.points))
        cross = self.kernel(points, self.points)
        weights = np.linalg.solve(cov, self.values.T)
        solved = np.linalg.solve(cov, cross.T).T
        sd = np.sqrt(np.maximum(1 - (cross * solved).sum(1), 1e-12))
        gap = self.features(self.points)[None, :, :4] - self.features(points)[:, None, :4]
        slope = cross[:, :, None] * gap / self.scale**2
        slope[:, :, 1] = 0.0
        slope[:, :, 2] *= ~np.isnan(points[:, [2]])
        dmean = np.einsum("qnd,n...->...qd", slope, weights)
        return (cross @ weights).T, sd, dmean, -np.einsum("qnd,qn->qd", slope, solved) / sd[:, None]

    def fantasies(self, pending: np.ndarray, rng: np.random.Generator, count: int) -> Stub:
        mean, sd = self.predict(pending)
        outcomes = mean + sd * rng.standard_normal((count, len(pending)))
        old = np.broadcast_to(self.values, (count, len(self.points)))
        return replace(self, points=np.vstack([self.points, pending]), values=np.hstack([old, outcomes]))


def stub(seed: int = 0) -> Stub:
    rng = np.random.default_rng(seed)
    return Stub(points(rng, 12), rng.standard_normal(12))


def points(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.array([SPACE.encode(SPACE.sample(rng)) for _ in range(count)])


def fantasy(seed: int = 0) -> Stub:
    rng = np.random.default_rng(seed + 100)
    return stub(seed).fantasies(points(rng, 3), rng, 5)


BESTS = np.array([-1.5, -1.0, -1.2, -2.0, -0.9])
FRONT = np.array([[-1.0, 0.5], [0.0, 0.0], [0.5, -1.0]])
FRONT3 = np.array([[-1.0, 0.5, 0.2], [0.0, 0.0, 0.0], [0.5, -1.0, 0.4], [0.6, 0.6, -0.7]])
ACQUISITIONS: dict[str, Callable[[], acquisition.Acquisition]] = {
    **{rule.__name__: lambda rule=rule: Expected(stub(), rule, -1.0) for rule in RULES},
    **{f"pending {rule.__name__}": lambda rule=rule: Expected(fantasy(), rule, BESTS) for rule in RULES},
    "far away": lambda: Expected(stub(), log_ei, -40.0),
    "several bests": lambda: Expected(stub(), log_ei, BESTS),
    "a function drawn": lambda: Expected(stub(3), ucb, 0.0),
    "belief": lambda: Belief(SPACE.columns, 0.7),
    "constrained, with belief": lambda: Sum(
        [
            Expected(fantasy(), log_ei, BESTS),
            Expected(stub(1), log_pi, -0.3),
            Expected(fantasy(2), log_pi, 0.5),
            Belief(SPACE.columns, 10 / 30),
        ]
    ),
    "only feasibility": lambda: Sum([Expected(stub(1), log_pi, -3.0), Expected(stub(2), log_pi, -30.0)]),
    "two goals": lambda: Hypervolume([stub(0), stub(1)], [FRONT], np.ones(2)),
    "two goals, pending": lambda: Hypervolume([fantasy(0), fantasy(1)], [FRONT - s for s in range(5)], np.ones(2)),
    "two goals, far": lambda: Hypervolume([stub(0), stub(1)], [FRONT - 30.0], np.ones(2) - 30),
    "three goals": lambda: Hypervolume([stub(0), stub(1), stub(2)], [FRONT3], np.ones(3)),
}


def check_gradients(chosen: acquisition.Acquisition, rtol: float = 2e-5) -> None:
    at = np.clip(points(np.random.default_rng(7), 9), 0.01, 0.99)
    values, slopes = chosen.gradient(at)
    assert values.shape == (9,) and slopes.shape == at.shape and not slopes[:, 1].any()
    assert not slopes[np.isnan(at)].any()
    np.testing.assert_allclose(values, chosen.value(at), rtol=1e-7)
    step = 1e-6
    for j in SMOOTH:
        up, down = at.copy(), at.copy()
        up[:, j] += step
        down[:, j] -= step
        difference = (chosen.value(up) - chosen.value(down)) / (2 * step)
        np.testing.assert_allclose(slopes[:, j], difference, rtol=rtol, atol=1e-6 * np.abs(values).max())


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    check_gradients(ACQUISITIONS[name]())


def test_fantasies_are_averaged_before_the_logarithm() -> None:
    at, model = points(np.random.default_rng(1), 6), fantasy()
    mean, sd = model.predict(at)
    for log, plain in ((log_ei, ei), (log_pi, pi)):
        each = [plain(mean[s], sd, BESTS[s])[0] for s in range(5)]
        np.testing.assert_allclose(np.exp(Expected(model, log, BESTS).value(at)), np.mean(each, axis=0))
        np.testing.assert_allclose(Expected(model, plain, BESTS).value(at), np.mean(each, axis=0))


def test_a_pending_point_is_worth_little_more() -> None:
    model, rng = stub(), np.random.default_rng(0)
    at = points(rng, 200)
    best = at[[np.argmax(Expected(model, log_ei, -1.0).value(at))]]
    later = model.fantasies(best, rng, 32)
    bests = np.minimum(-1.0, later.values[:, -1])
    assert Expected(later, log_ei, bests).value(best)[0] < Expected(model, log_ei, -1.0).value(best)[0] - 2


# -- the real surrogate -------------------------------------------------------------------------------------------


def surrogate(noise: float = 0.01) -> Surrogate:
    """The process of the samplers, at the mode of its prior but for the noise, with 15 values."""
    rng, kernel = np.random.default_rng(5), Kernel(SPACE.columns)
    theta = kernel.prior[:, 0].copy()
    theta[-1] = math.log(noise)
    return Surrogate.condition(kernel, theta, points(rng, 15), rng.standard_normal(15))


def pending() -> acquisition.Acquisition:
    rng, model = np.random.default_rng(6), surrogate()
    later, values = drawn(model, points(rng, 3), rng, 8)
    return Expected(later, log_ei, np.minimum(model.y.min(), values.min(axis=1)))


def noisy() -> acquisition.Acquisition:
    model = surrogate(0.1)
    seen, values = drawn(model, model.points, np.random.default_rng(8), 8)
    return Expected(seen, log_ei, values.min(axis=1))


def thompson() -> acquisition.Acquisition:
    rng = np.random.default_rng(9)
    return Expected(drawn(surrogate(), points(rng, 60), rng, 1)[0], ucb, 0.0)


@pytest.mark.parametrize("make", [pending, noisy, thompson])
def test_gradients_with_the_surrogate(make: Callable[[], acquisition.Acquisition]) -> None:
    check_gradients(make(), 5e-4)


def test_each_draw_is_the_posterior_had_it_been_seen() -> None:
    """Without noise in what was drawn; what was observed stays as it was, and deviations only shrink."""
    rng, model = np.random.default_rng(0), surrogate()
    out, at = points(rng, 4), points(rng, 30)
    seen, values = drawn(model, out, rng, 5)
    means, sd = seen.predict(at)
    assert values.shape == (5, 4) and means.shape == (5, 30) and (sd <= model.predict(at)[1] + 1e-9).all()
    together, counts = np.concatenate([model.points, out]), np.append(model.counts, np.full(4, acquisition.SURE))
    for drawn_values, mean in zip(values, means, strict=True):
        y = np.append(model.y, drawn_values)
        alone = Surrogate.condition(model.kernel, model.theta, together, y, counts)
        np.testing.assert_allclose(np.array([mean, sd]), alone.predict(at), atol=1e-6)


def test_draws_at_points_seen_or_alike_change_little_between_them() -> None:
    """Points that nearly coincide make no wild functions: all stay within a few deviations of what was believed."""
    rng, model = np.random.default_rng(0), surrogate(1e-6)
    near = np.repeat(model.points[:1], 20, axis=0)
    near[:, [0, 3]] += 1e-5 * rng.standard_normal((20, 2))
    seen, _ = drawn(model, np.concatenate([model.points, near]), rng, 16)
    at = points(rng, 200)
    mean, sd = model.predict(at)
    assert (np.abs(seen.predict(at)[0] - mean) / sd).max() < 6


def test_a_function_drawn_goes_through_its_values() -> None:
    rng, model = np.random.default_rng(0), surrogate()
    at = points(rng, 80)
    seen, values = drawn(model, at, rng, 3)
    mean, sd = seen.predict(at)
    np.testing.assert_allclose(mean, values, atol=1e-3)
    assert sd.max() < 1e-2 * model.predict(at)[1].max()


def test_functions_drawn_are_distributed_as_the_posterior() -> None:
    rng, model = np.random.default_rng(0), surrogate()
    seen, _ = drawn(model, points(rng, 150), rng, 400)
    at = points(rng, 40)
    mean, sd = model.predict(at)
    draws = seen.predict(at)[0]
    assert np.abs((draws.mean(axis=0) - mean) / sd).max() < 5 / math.sqrt(400)
    ratio = draws.std(axis=0) / sd
    assert ratio.max() < 1.15 and np.median(ratio) > 0.9  # less than 1 far from all candidates


def test_noisy_improvement_does_not_fall_for_luck() -> None:
    """The best value of a noisy function at which others nearby were bad is no reason to come back."""
    kernel = Kernel(Space({"x": Float(0.0, 1.0)}).columns)
    theta = kernel.prior[:, 0].copy()
    theta[0], theta[-1] = math.log(0.2), math.log(0.5)
    x = np.array([[0.2], [0.21], [0.19], [0.2001], [0.8], [0.81], [0.79], [0.8001]])
    model = Surrogate.condition(kernel, theta, x, np.array([-2.5, 1.0, 1.2, 1.1, -1.0, -1.1, -0.9, -0.8]))
    seen, values = drawn(model, x, np.random.default_rng(0), 64)
    lucky, good = Expected(seen, log_ei, values.min(axis=1)).value(np.array([[0.23], [0.83]]))
    assert good > lucky
    assert values.min(axis=1).mean() > -2.0


# -- several goals ------------------------------------------------------------------------------------------------


@dataclass
class Sure:
    """A belief that is the same everywhere."""

    mean: float
    sd: float

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(points), self.mean), np.full(len(points), self.sd)

    def gradients(self, points: np.ndarray) -> tuple[np.ndarray, ...]:
        return *self.predict(points), np.zeros_like(points), np.zeros_like(points)


def worth(mean: np.ndarray, sd: float, front: np.ndarray, reference: np.ndarray) -> float:
    models = [Sure(value, sd) for value in mean]
    return float(Hypervolume(models, [front], reference).value(np.zeros((1, 1)))[0])


FRONTS = [
    st.lists(st.tuples(*[st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 1.25])] * m), max_size=12).map(
        lambda rows, m=m: np.array(rows).reshape(-1, m)
    )
    for m in (2, 3, 4)
]


@given(st.one_of(FRONTS))
def test_boxes_are_what_is_not_dominated(front: np.ndarray) -> None:
    m = front.shape[1]
    lower, upper = boxes(front, np.ones(m))
    assert (lower < upper).all()
    at = np.random.default_rng(0).uniform(-3, 1, (300, m))
    inside = ((lower <= at[:, None]) & (at[:, None] < upper)).all(axis=2).sum(axis=1)
    dominated = (front <= at[:, None]).all(axis=2).any(axis=1)
    np.testing.assert_array_equal(inside, ~dominated)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_number_of_boxes(m: int) -> None:
    front = np.abs(np.random.default_rng(0).standard_normal((30, m)))
    front /= np.linalg.norm(front, axis=1, keepdims=True)
    most = {1: 1, 2: 31, 3: 61}[m]
    assert len(boxes(-front if m > 1 else front, np.full(m, 2.0))[0]) <= most


@given(st.one_of(FRONTS[:2]), st.integers(0, 2**31))
@settings(max_examples=40)
def test_improvement_of_a_sure_point(front: np.ndarray, seed: int) -> None:
    m = front.shape[1]
    point, reference = np.random.default_rng(seed).uniform(-3, 1, m), np.ones(m)
    gain = hypervolume(np.vstack([front, point]), reference) - hypervolume(front, reference)
    assert math.exp(worth(point, 1e-9, front, reference)) == pytest.approx(gain, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("front", [FRONT, FRONT3, FRONT3[:0]], ids=["two", "three", "none"])
def test_expected_improvement_of_hypervolume(front: np.ndarray) -> None:
    m = front.shape[1]
    mean, reference = np.linspace(-0.3, 0.4, m), np.ones(m)
    draws = np.random.default_rng(0).normal(mean, 0.7, (4000, m))
    base = hypervolume(front, reference)
    gains = [hypervolume(np.vstack([front, draw]), reference) - base for draw in draws]
    error = 4 * np.std(gains) / math.sqrt(len(gains))
    assert math.exp(worth(mean, 0.7, front, reference)) == pytest.approx(np.mean(gains), abs=error)


def test_hypervolume_without_a_front_is_a_product() -> None:
    models, reference = [Sure(0.3, 0.5), Sure(2.0, 0.1)], np.array([1.0, -3.0])
    wanted = sum(log_ei(*map(np.array, (m.mean, m.sd, r)))[0] for m, r in zip(models, reference, strict=True))
    found = Hypervolume(models, [np.empty((0, 2))], reference).value(np.zeros((2, 1)))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_hypervolume_of_fantasies_is_averaged() -> None:
    at, models, fronts = points(np.random.default_rng(2), 4), [fantasy(0), fantasy(1)], [FRONT - s for s in range(5)]
    each = []
    for s, front in enumerate(fronts):
        single = [replace(model, values=model.values[s]) for model in models]
        each.append(np.exp(Hypervolume(single, [front], np.ones(2)).value(at)))
    np.testing.assert_allclose(np.exp(Hypervolume(models, fronts, np.ones(2)).value(at)), np.mean(each, axis=0))


def test_reference_lies_beyond_the_front() -> None:
    np.testing.assert_allclose(beyond(np.array([[-2.0, 1.0], [3.0, 0.0]])), [3.5, 1.1])
    np.testing.assert_allclose(beyond(np.array([[-2.0, 1.0]])), [-1.9, 1.1])


def test_chebyshev_prefers_the_heavier_goal() -> None:
    losses = np.array([[0.0, 100.0], [1.0, 50.0], [2.0, 0.0]])
    np.testing.assert_allclose(chebyshev(losses, np.array([0.5, 0.5])), [0.525, 0.275, 0.525])
    assert chebyshev(losses, np.array([0.9, 0.1])).argmin() == 0
    assert chebyshev(losses, np.array([0.1, 0.9])).argmin() == 2
    assert np.isfinite(chebyshev(np.ones((3, 2)), np.array([0.5, 0.5]))).all()


@pytest.mark.parametrize("confidence", [0.5, 1.0])
def test_a_belief_forbids_nothing(confidence: float) -> None:
    """However sure experts are, and in however many columns: from the mode, whichever branch it is in, to anywhere."""
    sure = Float(0.0, 1.0, prior=Prior(0.9, confidence))
    branches = {"a": Space({f"a{i}": sure for i in range(8)}), "b": Space({"b": sure}), "c": None}
    space = Space({"x": sure, "kind": Categorical(branches, prior=Prior("b", confidence)), "n": Integer(1, 9)})
    belief = Belief(space.columns, 2.0)
    at = space.snap(np.random.default_rng(0).random((2000, len(space.columns))))
    values = belief.value(at)
    assert values.min() >= 2 * math.log(acquisition.DOUBT) and values.max() <= 0
    modes = np.full((3, len(space.columns)), 0.9)
    modes[:, 1] = np.array([1, 3, 5]) / 6
    tops = belief.value(space.snap(modes))
    assert tops.max() == pytest.approx(0, abs=1e-9) and (tops >= 2 * math.log(acquisition.DOUBT)).all()
