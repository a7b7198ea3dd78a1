"""The search for the maximum of an acquisition function, over all kinds of spaces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Categorical, Float, Integer, Ordinal, Space, forbid, less_than
from tunesmith.samplers._candidates import draws, layout, neighbours
from tunesmith.samplers._search import maximise
from tunesmith.samplers.base import Bools, Floats
from tunesmith.testing import mixed, nested, spaces


class Given:
    """An acquisition from a function of one point and its slope by central differences."""

    def __init__(self, space: Space, function: Callable[[Floats], float]) -> None:
        self.space, self.function, self.calls = space, function, 0

    def value(self, points: Floats) -> Floats:
        self.calls += 1
        return np.array([self.function(point) for point in points])

    def gradient(self, points: Floats) -> tuple[Floats, Floats]:
        slopes = np.zeros_like(points)
        for j, column in enumerate(self.space.columns):
            if column.kind != "unordered":
                up, down = points.copy(), points.copy()
                up[:, j] += 1e-6
                down[:, j] -= 1e-6
                slopes[:, j] = np.nan_to_num(self.value(up) - self.value(down)) / 2e-6
        return self.value(points), slopes


class Waves:
    """An acquisition with many maxima everywhere, flat where branches differ, as a function of the seed."""

    def __init__(self, space: Space, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.weights = rng.normal(0, 2.5, (8, len(space.columns)))
        self.phase, self.size = rng.uniform(0, 6, 8), rng.choice([1.0, 1e-9, 1e9])
        self.smooth = np.array([column.kind != "unordered" for column in space.columns], dtype=bool)

    def value(self, points: Floats) -> Floats:
        return self.gradient(points)[0]

    def gradient(self, points: Floats) -> tuple[Floats, Floats]:
        inner = np.nan_to_num(points, nan=-0.5) @ self.weights.T + self.phase
        slopes = np.where(self.smooth & ~np.isnan(points), np.cos(inner) @ self.weights, 0.0)
        return self.size * np.sin(inner).sum(axis=1), self.size * slopes


def samples(space: Space, count: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return np.array([space.encode(space.sample(rng)) for _ in range(count)]).reshape(count, len(space.columns))


def check(space: Space, points: Floats) -> None:
    np.testing.assert_array_equal(space.snap(points), points)
    assert all(space.allows(point) for point in points)


# -- candidates ---------------------------------------------------------------------------------------------------


@given(spaces(constraints=False), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_candidates_are_snapped(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for points in (draws(space, rng, 30), neighbours(space, samples(space, 3), rng, 30)):
        assert points.shape == (30, len(space.columns))
        np.testing.assert_array_equal(space.snap(points), points)


def test_every_branch_has_its_share() -> None:
    deep = Space({"a": Categorical({k: Space({k: Float(0, 1)}) for k in "wxyz"})})
    space = Space({"top": Categorical({**dict.fromkeys("bcdefghi"), "deep": deep})})
    points = draws(space, np.random.default_rng(0), 1000)
    share = (~np.isnan(points[:, 2:])).mean(axis=0)
    assert (share > 0.08).all()  # each of five branches; uniform draws give each of these four 1/36
    assert np.unique(points[:, 0]).size == 9


def test_draws_fill_the_box() -> None:
    space = Space({"x": Float(0.0, 1.0), "n": Integer(0, 99), "c": Categorical(["a", "b"])})
    low, high = np.array([0.2, 0.5, 0.4]), np.array([0.3, 0.7, 0.5])
    points = draws(space, np.random.default_rng(0), 64, (low, high))
    assert (points[:, :2] >= low[:2]).all() and (points[:, :2] <= high[:2]).all()
    assert np.ptp(points[:, 0]) > 0.09 and np.ptp(points[:, 1]) > 0.18 and np.unique(points[:, 2]).size == 2


def test_neighbours_change_what_can_change() -> None:
    space = Space(
        {
            "x": Float(0.0, 1.0),
            "n": Integer(1, 40),
            "log": Integer(1, 300, log=True),
            "one": Ordinal([7]),
            "kind": Categorical({"a": None, "b": Space({"y": Float(0.0, 1.0)}), "c": None}),
        }
    )
    base = space.encode({"x": 0.5, "n": 20, "log": 10, "one": 7, "kind": "a"})
    donor = space.encode({"x": 0.1, "n": 1, "log": 1, "one": 7, "kind": "b", "y": 0.625})
    found = neighbours(space, np.array([base, donor]), np.random.default_rng(0), 2000, [0.01])
    for origin, new in ((base, found[::2]), (donor, found[1::2])):
        assert (np.nan_to_num(new) != np.nan_to_num(origin)).any(axis=1).all()
    first = found[::2]
    changed = first[:, :5] != base[:5]
    assert not changed[:, 3].any() and (changed[:, [0, 1, 2, 4]].mean(axis=0) > 0.3).all()
    assert 0.2 < (changed.sum(axis=1) == 1).mean() < 0.8 and (changed.sum(axis=1) == 4).any()
    configs = [space.decode(point) for point in first]
    assert {config["n"] for config in configs} <= {18, 19, 20, 21, 22} and len(
        {config["log"] for config in configs}
    ) > 2
    assert np.abs(first[:, 0] - 0.5).max() < 0.05
    opened = [config["y"] for config in configs if config["kind"] == "b"]
    assert 0.3 < np.mean(np.isclose(opened, 0.625)) < 0.7 and len({config["kind"] for config in configs}) == 3


def test_levels_are_those_of_the_space() -> None:
    space = Space({"k": Categorical({"a": None, "b": Space({"n": Integer(1, 100, log=True), "m": Integer(0, 9)})})})
    levels = layout(space).levels
    n, m = (space.columns[j].name for j in (1, 2))
    assert (n, m) == ("n", "m")
    np.testing.assert_array_equal(levels[1], [space.encode({"k": "b", "n": i, "m": 0})[1] for i in range(1, 101)])
    np.testing.assert_array_equal(levels[2], (np.arange(10) + 0.5) / 10)


# -- the search ---------------------------------------------------------------------------------------------------


@given(spaces(), st.integers(0, 2**31), st.integers(0, 3), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_result_is_snapped_and_allowed(space: Space, seed: int, k: int, tried: bool, boxed: bool) -> None:
    incumbents = samples(space, k, seed)
    rows = {point.tobytes() for point in incumbents}

    def known(points: Floats) -> Bools:
        return np.array([point.tobytes() in rows for point in points], dtype=np.bool_)

    d = len(space.columns)
    point = maximise(
        Waves(space, seed), space, incumbents, np.random.default_rng(seed), candidates=64, starts=3,
        known=known if tried else None, box=(np.full(d, 0.3), np.full(d, 0.6)) if boxed else None,
    )  # fmt: skip
    assert point.shape == (d,)
    check(space, point[None])
    if tried and space.size > 3:
        assert not known(point[None])[0] or boxed or space.constraints


@pytest.mark.parametrize("make", [mixed, nested])
@pytest.mark.parametrize("seed", range(5))
def test_the_result_beats_many_draws(make: Callable[[], Space], seed: int) -> None:
    space = make()
    waves, rng = Waves(space, seed), np.random.default_rng(seed)
    point = maximise(waves, space, samples(space, 5, seed), rng)
    check(space, point[None])
    many = draws(space, rng, 4000)
    many = many[[space.allows(one) for one in many]]
    assert waves.value(point[None])[0] >= np.quantile(waves.value(many), 0.998)
    np.testing.assert_array_equal(point, maximise(waves, space, samples(space, 5, seed), np.random.default_rng(seed)))


@pytest.mark.parametrize("target", [0.3137, 0.9999, 1.0, 1.2])
def test_a_peak_near_a_face(target: float) -> None:
    space = Space({name: Float(0.0, 1.0) for name in "abcd"})
    wanted = np.array([target, 0.2, 0.7, target])
    for seed in range(3):
        peak = Given(space, lambda u: -np.log1p(100 * ((u - wanted) @ ((u - wanted) * [1, 4, 9, 30]))))
        point = maximise(peak, space, samples(space, 3), np.random.default_rng(seed))
        np.testing.assert_allclose(point, np.minimum(wanted, 1.0), atol=1e-5)


def test_a_narrow_peak_beside_the_incumbent() -> None:
    space = Space({name: Float(0.0, 1.0) for name in "abc"})
    incumbent = np.array([[0.4, 0.5, 0.6]])
    wanted = incumbent[0] + [1e-3, -2e-3, 1e-3]
    peak = Given(space, lambda u: -np.minimum(np.sum((u - wanted) ** 2) * 1e5, 20.0))
    point = maximise(peak, space, incumbent, np.random.default_rng(0))
    np.testing.assert_allclose(point, wanted, atol=1e-5)


def test_all_kinds_of_columns_together() -> None:
    many = {f"c{i}": Categorical(list("abcdef")) for i in range(5)}
    numbers = {f"n{i}": Integer(0, 9) for i in range(2)}
    space = Space({**many, **numbers, "big": Integer(1, 5000, log=True), "x": Float(0, 1), "y": Float(0, 1)})
    rng = np.random.default_rng(0)
    for seed in range(5):
        wanted = samples(space, 1, seed)[0]

        def badness(u: Floats, wanted: Floats = wanted) -> float:
            numeric = 20 * (u[5:] - wanted[5:])
            return -float(np.sum(u[:5] != wanted[:5]) + np.log1p(numeric @ numeric))

        point = maximise(Given(space, badness), space, samples(space, 5, seed + 9), rng)
        np.testing.assert_array_equal(point[:8], wanted[:8])
        np.testing.assert_allclose(point[8:], wanted[8:], atol=1e-5)


def test_a_small_branch_is_found() -> None:
    branch = Space({"b": Categorical({**dict.fromkeys("klmnopqr"), "in": Space({"y": Float(0, 1), "z": Float(0, 1)})})})
    space = Space({"a": Categorical({**dict.fromkeys("cdefghij"), "in": branch}), "x": Float(0, 1)})
    wanted = space.encode({"a": "in", "b": "in", "y": 0.9, "z": 0.2, "x": 0.1})

    def value(u: Floats) -> float:
        if np.isnan(u).any():
            return -1.0 - float((u[-1] - 0.6) ** 2)
        return -2.0 + 4.0 * float(np.exp(-50 * np.sum((u - wanted) ** 2)))

    for seed in range(3):
        incumbents = np.array([space.encode({"a": "c", "x": 0.6}), space.encode({"a": "d", "x": 0.61})])
        point = maximise(Given(space, value), space, incumbents, np.random.default_rng(seed))
        np.testing.assert_allclose(point, wanted, atol=1e-4)


def test_a_tight_constraint() -> None:
    inside = [less_than("a", "b"), lambda config: config["b"] < config["a"] + 0.02, forbid({"c": "x"})]
    space = Space({"a": Float(0, 1), "b": Float(0, 1), "c": Categorical(["x", "y"])}, constraints=inside)
    for seed in range(3):
        peak = Given(space, lambda u: -abs(u[0] - 0.8) - abs(u[1] - 0.6) + 5 * (u[2] < 0.5))
        point = maximise(peak, space, samples(space, 3, seed), np.random.default_rng(seed))
        check(space, point[None])
        assert peak.value(point[None])[0] > -0.22  # at best -0.2, from (0.6, 0.6) to (0.8, 0.8)


def test_the_ascent_slides_along_a_constraint() -> None:
    space = Space({"a": Float(0, 1), "b": Float(0, 1), "z": Float(0, 1)}, constraints=[less_than("a", "b")])
    peak = Given(space, lambda u: -10 * (u[0] - 0.8) ** 2 - 10 * (u[1] - 0.4) ** 2 - (u[2] - 0.3) ** 2)
    for seed in range(3):
        point = maximise(peak, space, samples(space, 3, seed), np.random.default_rng(seed))
        check(space, point[None])
        np.testing.assert_allclose(point, [0.6, 0.6, 0.3], atol=0.05)
        assert peak.value(point[None])[0] > -0.81


def test_a_finite_space_is_searched_whole() -> None:
    space = Space({"a": Categorical({"p": None, "q": Space({"n": Integer(1, 9)})}), "b": Ordinal([1, 2, 4])})
    value = Given(space, lambda u: float(np.nansum(np.sin(37 * u))))
    every = np.array([space.encode(config) for config in space.configs()])
    order = np.argsort(-value.value(every))
    tried: set[bytes] = set()
    value.calls = 0
    for row in order:  # one after another, the best first
        point = maximise(
            value, space, every[:0], np.random.default_rng(0),
            known=lambda points: np.array([one.tobytes() in tried for one in points]),
        )  # fmt: skip
        np.testing.assert_array_equal(point, every[row])
        tried.add(point.tobytes())
    assert value.calls == len(every) == 30


@pytest.mark.parametrize("space", [Space({"n": Integer(1, 400, log=True)}), Space({"n": Integer(1, 9999)}), Space({})])
def test_one_column_or_none(space: Space) -> None:
    best = space.snap(np.full(len(space.columns), 0.61))
    point = maximise(Given(space, lambda u: -float(abs(u - best).sum())), space, best[None], np.random.default_rng(0))
    np.testing.assert_array_equal(point, best)


def test_an_incumbent_may_be_the_best() -> None:
    space = Space({"x": Float(0.0, 1.0), "c": Categorical(list("abcdefgh"))})
    incumbent = space.encode({"x": 0.123456, "c": "g"})
    spike = Given(space, lambda u: float((u == incumbent).all()))
    point = maximise(spike, space, incumbent[None], np.random.default_rng(0))
    np.testing.assert_array_equal(point, incumbent)


def test_what_was_tried_is_passed_over() -> None:
    space = Space({f"n{i}": Integer(0, 9) for i in range(4)})
    distance = Given(space, lambda u: -float(np.sum(np.abs(u - 0.55))))
    top = space.snap(np.full((1, 4), 0.55))
    point = maximise(distance, space, top, np.random.default_rng(0), known=lambda p: (p == top).all(axis=1))
    assert distance.value(point[None])[0] == pytest.approx(-0.1)


def test_a_box_bounds_the_ascent() -> None:
    space = Space({"x": Float(0, 1), "y": Float(0, 1), "c": Categorical(["a", "b"])})
    slope = Given(space, lambda u: u[0] - u[1] + u[2])
    box = np.array([0.2, 0.4, 0.0]), np.array([0.3, 0.6, 1.0])
    point = maximise(slope, space, np.array([[0.25, 0.5, 0.25]]), np.random.default_rng(0), box=box)
    np.testing.assert_allclose(point, [0.3, 0.4, 0.75])


def test_few_calls_suffice() -> None:
    space, waves = mixed(), Waves(mixed(), 0)
    sizes: list[int] = []
    inner = waves.gradient
    waves.gradient = lambda points: (sizes.append(len(points)), inner(points))[1]  # type: ignore[method-assign]
    maximise(waves, space, samples(space, 5), np.random.default_rng(0))
    assert sum(sizes) < 2500 and len(sizes) < 150
