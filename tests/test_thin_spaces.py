"""Spaces of which the constraints leave little: what is drawn lies in them, and is drawn evenly."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, ks_2samp, kstest

import tunesmith as ts
from tunesmith._sums import apportioned, shared

NAMES = [f"n{i}" for i in range(7)]
WEIGHTS = [f"w{i}" for i in range(10)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def chain(names: Any) -> list[Any]:
    return [ts.less_than(one, other) for one, other in itertools.pairwise(names)]


def some(domain: Any, names: Any) -> dict[str, Any]:
    return dict.fromkeys(names, domain)


# -- uniform ----------------------------------------------------------------------------------------------------------

FINITE = {
    "chain": ts.Space(some(ts.Integer(0, 9), NAMES), chain(NAMES)),
    "partial order": ts.Space(
        some(ts.Integer(0, 4), NAMES),
        [ts.less_than(*pair.split()) for pair in ("n0 n1", "n0 n2", "n1 n3", "n2 n3", "n3 n4", "n5 n4", "n6 n5")],
    ),
    "unequal ranges": ts.Space(
        {"a": ts.Integer(0, 9), "b": ts.Integer(3, 6), "c": ts.Integer(2, 12, step=2),
         "d": ts.Ordinal([1, 5, 7, 11, 12]), "e": ts.Integer(4, 8)},
        chain("abcde"),
    ),
    "with a constant": ts.Space({**some(ts.Integer(0, 9), "abc"), "top": 4}, chain(["a", "b", "c", "top"])),
    "sum": ts.Space(some(ts.Integer(0, 6), "abcd"), [ts.sum_to(list("abcd"), 6)]),
    "sum of a grid": ts.Space(some(ts.Float(0.0, 1.0, step=0.1), "abc"), [ts.sum_to(list("abc"), 1)]),
    "sum of unequal ranges": ts.Space(
        {"a": ts.Integer(0, 2), "b": ts.Integer(0, 3), "c": ts.Integer(1, 5), "d": ts.Integer(0, 6)},
        [ts.sum_to(list("abcd"), 8)],
    ),
    "ordered sum": ts.Space(
        {"a": ts.Integer(0, 4), "b": ts.Integer(0, 4), "c": ts.Integer(0, 5), "d": ts.Integer(0, 6)},
        [ts.sum_to(list("abcd"), 8), ts.less_than("a", "b"), ts.sum_at_most(["c", "d"], 6)],
    ),
    "limited sum": ts.Space(some(ts.Integer(0, 6), "abcd"), [ts.sum_at_most({"a": 1, "b": 2, "c": 1, "d": 1}, 4)]),
    "differences": ts.Space(
        some(ts.Integer(0, 6), "abcd"), [ts.sum_at_most({"a": 1, "b": -1}, -4), ts.sum_at_most({"c": -1, "d": -1}, -10)]
    ),
    "forbidden": ts.Space(
        some(ts.Categorical(list(range(12))), "abc"),
        [ts.forbid({"a": i, "b": j}) for i in range(12) for j in range(12) if i != j and (i, j) != (3, 5)]
        + [ts.forbid({"a": i, "c": j}) for i in range(12) for j in range(12) if (i + j) % 11],
    ),
    "function": ts.Space(some(ts.Integer(0, 9), "abcd"), [lambda c: c["a"] * c["b"] == 12 and c["c"] + c["d"] == 3]),
}  # fmt: skip


@pytest.mark.parametrize("kind", FINITE)
def test_draws_are_uniform_in_what_is_left(kind):
    """Against the list of all configurations, by the test of chi squared."""
    space, generator = FINITE[kind], rng(1)
    every = [space.key(config) for config in space.configs()]
    assert len(every) / space.size < 0.15
    n = 25 * len(every)
    counts = Counter(space.key(space.sample(generator)) for _ in range(n))
    assert counts.keys() <= set(every)
    statistic = sum((counts[key] - 25) ** 2 / 25 for key in every)
    assert chi2.sf(statistic, len(every) - 1) > 1e-3


def test_a_chain_of_continuous_parameters_is_that_of_sorted_draws():
    space, generator = ts.Space(some(ts.Float(0, 1), NAMES), chain(NAMES)), rng()
    found = np.array([list(space.sample(generator).values()) for _ in range(1500)])
    assert all(kstest(found[:, i], "beta", (i + 1, 7 - i)).pvalue > 1e-3 for i in range(7))


def test_unequal_continuous_ranges_are_those_of_rejection():
    """On logarithmic scales too, where the unit cube is uniform in the logarithm."""
    domains = {
        "a": ts.Float(1, 100, log=True), "b": ts.Float(1, 100), "c": ts.Float(2, 50, log=True), "d": ts.Float(0, 80),
        "e": ts.Integer(1, 60, log=True),
    }  # fmt: skip
    space, free = ts.Space(domains, [*chain("abcd"), ts.sum_at_most(["a", "e"], 20)]), ts.Space(domains)
    generator = rng()
    want = [config for config in (free.sample(generator) for _ in range(40_000)) if space.contains(config)]
    found = [space.sample(generator) for _ in range(1000)]
    assert len(want) < 0.05 * 40_000
    assert all(ks_2samp([c[name] for c in want], [c[name] for c in found]).pvalue > 1e-3 for name in domains)


@pytest.mark.parametrize("low", [0.0, 0.02])
def test_weights_are_uniform_on_the_simplex(low):
    space, generator = ts.Space(some(ts.Float(low, 1.0), WEIGHTS), [ts.sum_to(WEIGHTS, 1)]), rng()
    found = np.array([list(space.sample(generator).values()) for _ in range(1500)])
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)
    above = (found - low) / (1 - 10 * low)
    assert all(kstest(above[:, i], "beta", (1, 9)).pvalue > 1e-3 for i in range(10))
    assert kstest(above[:, :3].sum(axis=1), "beta", (3, 7)).pvalue > 1e-3


def test_bounded_weights_are_those_of_rejection():
    space = ts.Space({**some(ts.Float(0, 0.3), "abc"), "d": ts.Float(0.1, 0.9)}, [ts.sum_to(list("abcd"), 1)])
    generator = rng()
    draws = generator.dirichlet(np.ones(4), 60_000)
    want = draws[(draws[:, :3] <= 0.3).all(axis=1) & (draws[:, 3] >= 0.1) & (draws[:, 3] <= 0.9)]
    found = np.array([list(space.sample(generator).values()) for _ in range(1000)])
    assert all(ks_2samp(want[:, i], found[:, i]).pvalue > 1e-3 for i in range(4))


def test_a_function_is_searched_for_and_then_left_by_a_random_walk():
    """A 40,320th of the cube; the sum of eight uniform weights that are at most 1 has the mean 8/9."""
    names = WEIGHTS[:8]
    space, generator = ts.Space(some(ts.Float(0, 1), names), [lambda c: sum(c.values()) <= 1]), rng()
    found = np.array([list(space.sample(generator).values()) for _ in range(150)])
    assert found.sum(axis=1).mean() == pytest.approx(8 / 9, abs=0.03)
    assert all(kstest(found[:, i], "beta", (1, 8)).pvalue > 1e-3 for i in range(8))


def test_a_thin_branch_is_drawn_as_often_as_the_others():
    thin = ts.Space(some(ts.Integer(1, 100), NAMES), chain(NAMES))
    mixture = ts.Space(some(ts.Float(0, 1), WEIGHTS), [ts.sum_to(WEIGHTS, 1)])
    space = ts.Space({"k": ts.Categorical({"thin": thin, "mixture": mixture, "free": None})})
    generator = rng()
    counts = Counter(space.sample(generator)["k"] for _ in range(600))
    assert all(150 < counts[option] < 250 for option in ("thin", "mixture", "free"))


@pytest.mark.parametrize(
    ("domains", "rules"),
    [
        (some(ts.Integer(1, 100), "abcd"), [lambda c: c["a"] == c["b"] == c["c"] == c["d"]]),
        (some(ts.Integer(0, 100), NAMES), [lambda c: sum(c.values()) == 100]),
        (some(ts.Float(-1, 1), NAMES), [lambda c: abs(sum(v * v for v in c.values()) - 1) < 1e-3]),
        (some(ts.Integer(1, 512), NAMES), [lambda c: math.prod(c.values()) <= 1e6]),
        (some(ts.Float(0, 1), "ab"), [lambda c: abs(c["a"] - 0.737) < 3e-3, lambda c: abs(c["b"] - 0.218) < 3e-3]),
        (
            some(ts.Categorical(list("xyz")), NAMES * 2),
            [lambda c, pair=pair: c[pair[0]] == c[pair[1]] for pair in itertools.pairwise(NAMES)],
        ),
        (
            {"width": ts.Integer(8, 4096), "heads": ts.Integer(1, 64), "each": ts.Integer(1, 999)},
            [lambda c: c["width"] == c["heads"] * c["each"]],
        ),
    ],
)
def test_functions_of_every_kind_are_honoured(domains, rules):
    space = ts.Space(domains, rules)
    for seed in range(4):
        generator = rng(seed)
        config = space.sample(generator)
        space.check(config)
        space.check(space.perturb(config, generator))
        space.check(space.sample(generator, near=[config]))


def test_many_mild_rules_are_a_thin_space():
    names = [f"x{i}" for i in range(30)]
    pairs = [ts.less_than(*names[i : i + 2]) for i in range(0, 30, 2)]
    functions = [lambda c, i=i: c[names[i]] < c[names[i + 1]] for i in range(0, 30, 2)]
    for rules in (pairs, functions):
        space, generator = ts.Space(some(ts.Float(0, 1), names), rules), rng()
        for _ in range(5):
            config = space.sample(generator)
            assert space.contains(config) and space.contains(space.perturb(config, generator))


# -- known configurations -------------------------------------------------------------------------------------------


def on_the_simplex(config):
    return abs(sum(config.values()) - 1) < 1e-6


def test_known_configurations_are_where_the_draws_begin():
    space, generator = ts.Space(some(ts.Float(0, 1), WEIGHTS), [on_the_simplex]), rng()
    with pytest.raises(ValueError, match=r"constraints leave \(almost\) nothing: .* on_the_simplex; loosen it"):
        space.sample(generator)
    near = [dict.fromkeys(WEIGHTS, 0.1)]
    found = np.array([list(space.sample(generator, near).values()) for _ in range(40)])
    assert len(np.unique(found.round(4), axis=0)) == 40 and found.max() > 0.25
    assert np.abs(found.mean(axis=0) - 0.1).max() < 0.06
    assert space.sample(rng(5), near) == space.sample(rng(5), iter(near)) != space.sample(rng(6), near)


def test_known_configurations_that_break_the_constraints_are_passed_over():
    space, generator = ts.Space(some(ts.Float(0, 1), WEIGHTS), [on_the_simplex]), rng()
    near = [{"x": 1}, dict.fromkeys(WEIGHTS, 0.2), dict.fromkeys(WEIGHTS, 0.1), {**dict.fromkeys(WEIGHTS, 0.1), "y": 2}]
    assert all(space.contains(space.sample(generator, near)) for _ in range(5))
    with pytest.raises(ValueError, match=r"leave \(almost\) nothing"):
        space.sample(generator, near[:2])


def test_moves_follow_what_the_constraints_leave():
    """Where all of a configuration moving at once breaks them, it still moves, and stays near."""
    space, generator = ts.Space(some(ts.Float(0, 1), WEIGHTS), [on_the_simplex]), rng()
    start = dict.fromkeys(WEIGHTS, 0.1)
    for move in (space.perturb, lambda config, generator: space.jitter(config, generator, 0.1)):
        found = [move(start, generator) for _ in range(20)]
        assert all(space.contains(config) for config in found)
        moved = np.array([[abs(config[name] - 0.1) for name in WEIGHTS] for config in found])
        assert (moved.max(axis=1) > 0.01).mean() > 0.8 and moved.max() < 0.9
    outside = dict.fromkeys(WEIGHTS, 0.2)
    assert space.contains(space.perturb(outside, generator, near=[start]))
    assert space.contains(space.nearest(outside, generator, near=[start]))
    with pytest.raises(ValueError, match=r"leave \(almost\) nothing"):
        space.jitter(outside, generator, 0.1)


@pytest.mark.parametrize("kind", FINITE)
def test_moves_stay_in_thin_spaces(kind):
    space, generator = FINITE[kind], rng()
    config, seen = space.sample(generator), set()
    for i in range(60):
        config = space.perturb(config, generator) if i % 2 else space.jitter(config, generator, 0.1)
        space.check(config)
        seen.add(space.key(config))
    assert len(seen) > 2 or kind in ("forbidden", "function")


# -- totals ---------------------------------------------------------------------------------------------------------


def test_amounts_are_scaled_and_cut_off():
    assert shared([1, 2, 1], [9, 9, 9], 8) == [2, 4, 2]
    assert shared([1, 2, 1], [9, 3, 9], 8) == [2.5, 3, 2.5]
    assert shared([0, 0], [1, 3], 2) == [0.5, 1.5]
    assert shared([1, 0, 0], [1, 3, 1], 3) == [1, 1.5, 0.5]
    assert shared([1, 1], [1, 1], 5) == [1, 1] and shared([1, 1], [1, 1], -1) == [0, 0]
    assert apportioned([1, 1, 1], [9, 9, 9], 5) == [2, 2, 1]
    assert apportioned([5, 1, 0], [3, 9, 9], 7) == [3, 4, 0] and apportioned([1, 2], [3, 3], 3) == [1, 2]
    generator = rng()
    for _ in range(200):
        k = int(generator.integers(1, 6))
        room = generator.integers(0, 9, k)
        total = int(generator.integers(0, room.sum() + 1))
        found = apportioned(generator.random(k).round(1).tolist(), room.tolist(), total)
        assert sum(found) == total and all(0 <= one <= most for one, most in zip(found, room, strict=True))


def test_every_point_of_the_cube_has_the_total():
    space = ts.Space({**some(ts.Float(0, 1), WEIGHTS), "x": ts.Integer(1, 3)}, [ts.sum_to(WEIGHTS, 1)])
    points = rng().random((100, 11))
    points[:3] = [[0.0], [1.0], [0.5]]
    snapped = space.snap(points)
    assert all(space.allows(point) for point in points)
    np.testing.assert_allclose(snapped[:, :10].sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(space.snap(snapped), snapped)
    for point, there in zip(points, snapped, strict=True):
        config = space.decode(point)
        assert math.fsum(config[name] for name in WEIGHTS) == pytest.approx(1.0, abs=1e-12)
        np.testing.assert_allclose(space.encode(config), there, atol=1e-12)
        assert space.key(config) == space.key(space.decode(space.encode(config)))
    ratios = points[3:, :10] / points[3:, :1]  # what the parameters have above their lows keeps its proportions
    np.testing.assert_allclose(snapped[3:, :10] / snapped[3:, :1], ratios, rtol=1e-9)


def test_spread_covers_the_simplex_where_snap_is_close_to_its_middle():
    space, points = ts.Space(some(ts.Float(0, 1), WEIGHTS), [ts.sum_to(WEIGHTS, 1)]), rng().random((2000, 10))
    spread, snapped = space.spread(points), space.snap(points)
    assert kstest(spread[:, 0], "beta", (1, 9)).pvalue > 1e-3 > kstest(snapped[:, 0], "beta", (1, 9)).pvalue
    np.testing.assert_array_equal(space.spread(points[0]), spread[0])
    np.testing.assert_array_equal(space.snap(spread), spread)
    free = ts.Space({"x": ts.Float(0, 1), "k": ts.Categorical([1, 2])})
    np.testing.assert_array_equal(free.spread(points[:, :2]), free.snap(points[:, :2]))
    with pytest.raises(ValueError, match="the space has 10 columns"):
        space.spread(points[:, :3])


def test_totals_of_branches_hold_where_they_are_taken():
    """The two branches share their columns, and only one of them has the rule."""
    weights = some(ts.Float(0, 1), "abc")
    space = ts.Space(
        {"k": ts.Categorical({"sum": ts.Space(weights, [ts.sum_to(list("abc"), 1)]), "free": ts.Space(weights)})}
    )
    assert len(space.columns) == 4
    points = rng().random((200, 4))
    for snap in (space.snap, space.spread):
        snapped = snap(points)
        taken = snapped[:, 0] < 0.5
        np.testing.assert_allclose(snapped[taken, 1:].sum(axis=1), 1.0, atol=1e-12)
        np.testing.assert_array_equal(snapped[~taken, 1:], points[~taken, 1:])
    config, generator = space.sample(rng()), rng()
    for _ in range(50):
        config = space.perturb(config, generator, resample=0.3)
        space.check(config)
        assert (abs(config["a"] + config["b"] + config["c"] - 1) < 1e-9) >= (config["k"] == "sum")


def test_only_what_is_active_adds_up():
    """Experts that are left out have no weight, and the others share the total."""
    more = ts.Space(
        {"c": ts.Float(0, 1), "n": ts.Categorical({"three": None, "four": ts.Space({"d": ts.Float(0, 1)})})}
    )
    space = ts.Space(
        {"a": ts.Float(0, 1), "b": ts.Float(0, 1), "k": ts.Categorical({"two": None, "more": more}), "rest": 0.5},
        [ts.sum_to(["a", "b", "c", "d", "rest"], 2)],
    )
    generator, seen = rng(), Counter()
    for _ in range(60):
        config = space.sample(generator)
        assert sum(config.get(name, 0) for name in ("a", "b", "c", "d")) == pytest.approx(1.5)
        seen[len(config)] += 1
        np.testing.assert_allclose(space.snap(space.encode(config)), space.encode(config), atol=1e-12)
        space.check(space.perturb(config, generator, resample=0.2))
    assert set(seen) == {4, 6, 7}


def test_perturb_multiplies_weights_and_keeps_their_total():
    """Ratios of two weights walk evenly up and down: no weight drifts to the total, and none to 0."""
    names = ["a", "b", "c"]
    space, generator = ts.Space(some(ts.Float(0, 1), names), [ts.sum_to(names, 1)]), rng()
    start = {"a": 0.3, "b": 0.3, "c": 0.4}
    logs = [math.log(c["a"] / c["b"]) for c in (space.perturb(start, generator) for _ in range(2000))]
    assert set(np.round(logs, 6)) == {round(x, 6) for x in (-2 * math.log(1.2), 0.0, 2 * math.log(1.2))}
    assert abs(np.mean(logs)) < 0.03
    assert space.contains(space.perturb({"a": 1.0, "b": 0.0, "c": 0.0}, generator))


def test_finite_totals_are_listed_without_going_through_everything():
    space = ts.Space(some(ts.Integer(0, 50), WEIGHTS), [ts.sum_to(WEIGHTS, 2)])
    assert space.size == 51**10 and len(list(space.configs())) == math.comb(11, 2)
    ordered = ts.Space(some(ts.Integer(1, 100), NAMES), chain(NAMES))
    assert list(next(ordered.configs()).values()) == [1, 2, 3, 4, 5, 6, 7]
    limited = ts.Space(some(ts.Integer(0, 50), WEIGHTS), [ts.sum_at_most(WEIGHTS, 1)])
    assert len(list(limited.configs())) == 11
    lists = ts.Space(some(ts.Float(0, 1), WEIGHTS), [ts.sum_to(WEIGHTS, 1)])
    assert len(list(lists.configs(levels=5))) == math.comb(13, 4)
    assert [c["x"] for c in ts.Space({"x": ts.Float(1, 100, log=True)}).configs(3)] == pytest.approx([1, 10, 100])
    for levels in (None, 1):
        with pytest.raises(ValueError, match=r"give levels=|levels=1 must be at least 2"):
            lists.configs(levels)


def test_nothing_is_left():
    for space, message in (
        (
            ts.Space(some(ts.Integer(0, 3), "abcde"), chain("abcde")),
            "each of 1024 configurations breaks one, such as less",
        ),
        (ts.Space(some(ts.Float(0, 1), "ab"), [ts.less_than("a", "b"), ts.less_than("b", "a")]), "51000 draws"),
        (
            ts.Space(some(ts.Float(1, 2), "ab"), [ts.sum_at_most(["a", "b"], 1)]),
            "51000 draws breaks one, such as sum_at",
        ),
        (ts.Space({"x": ts.Float(0, 1)}, [lambda c: False]), "51000 draws breaks one, such as test_nothing"),
    ):
        with pytest.raises(ValueError, match=message) as found:
            space.sample(rng())
        assert "\n" not in str(found.value) and len(str(found.value)) < 400
