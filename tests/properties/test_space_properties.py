"""Properties of every search space."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tunesmith.space import (
    Categorical,
    Config,
    Constant,
    Domain,
    Float,
    Integer,
    Ordinal,
    Space,
    SpaceConstraint,
    SumTo,
    less_than,
    sum_at_most,
    sum_to,
)
from tunesmith.testing import configs, domains, spaces

settings.register_profile(
    "space",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
QUICK = settings(settings.get_profile("space"))
SEEDS = st.integers(0, 2**32)


def width(domain: Domain) -> float:
    return domain.high - domain.low if isinstance(domain, Float | Integer) else 0.0


def same(space: Space, a: Config, b: Config) -> bool:
    """Equal configurations, up to the rounding of what is continuous."""
    u, v = space.encode(a), space.encode(b)
    gridded = [column.kind != "continuous" for column in space.columns]
    return (
        list(a) == list(b)
        and np.array_equal(u[gridded], v[gridded], equal_nan=True)
        and np.allclose(u, v, rtol=0, atol=1e-12, equal_nan=True)
    )


@QUICK
@given(spaces())
def test_json_round_trip(space: Space):
    again = Space.from_json(space.to_json())
    assert again == space
    assert hash(again) == hash(space)
    assert again.columns == space.columns
    assert again.to_json() == space.to_json()
    assert Space.from_json(msgspec.json.decode(space.to_json())) == space


@QUICK
@given(st.data())
def test_decode_inverts_encode(data: st.DataObject):
    space = data.draw(spaces())
    config = data.draw(configs(space))
    u = space.encode(config)
    assert same(space, space.decode(u), config)
    assert list(space.decode(u)) == list(config)


@QUICK
@given(st.data())
def test_nothing_may_be_missing(data: st.DataObject):
    space = data.draw(spaces())
    config = data.draw(configs(space))
    assert space.contains({}) == (not config)
    for missing in config:
        assert not space.contains({name: value for name, value in config.items() if name != missing})


@QUICK
@given(st.data())
def test_parts_are_completed(data: st.DataObject):
    space = data.draw(spaces())
    config = data.draw(configs(space))
    names = data.draw(st.sets(st.sampled_from(sorted(config)))) if config else set()
    part = {name: config[name] for name in names}
    draft = data.draw(st.none() | configs(space))
    found = space.complete(part, np.random.default_rng(0), draft)
    if found is not None:
        assert space.contains(found) and part.items() <= found.items()
    else:
        assert space.constraints  # there is one, but it may be hard to find
    assert space.complete(config, np.random.default_rng(0), draft) == config


@QUICK
@given(st.data())
def test_discrete_values_come_back_exactly(data: st.DataObject):
    space = Space({"x": data.draw(domains())})
    config = data.draw(configs(space))
    u = space.encode(config)
    again = space.decode(u)
    if not space.columns or space.columns[0].kind != "continuous":
        assert again == config
        assert type(again["x"]) is type(config["x"])
        assert np.array_equal(space.encode(again), u)
    else:
        domain = space["x"]
        assert math.isclose(again["x"], config["x"], rel_tol=1e-12, abs_tol=1e-12 * width(domain))
        assert domain.low <= again["x"] <= domain.high


@QUICK
@given(st.data())
def test_every_level_has_a_bin_of_its_own(data: st.DataObject):
    domain = data.draw(domains())
    space = Space({"x": domain})
    assume(space.columns and space.columns[0].levels)
    k = space.columns[0].levels
    values = list(itertools.islice((config["x"] for config in space.configs()), 300))
    centres = [space.encode({"x": value})[0] for value in values]
    assert all(a < b for a, b in itertools.pairwise(centres))
    assert [space.decode([u])["x"] for u in centres] == values
    assert len(values) == min(k, 300)
    edges = [space.decode([0.0])["x"], space.decode([1.0])["x"]]
    assert edges[0] == values[0]
    if k <= 300:
        assert edges[1] == values[-1]


@QUICK
@given(st.data())
def test_snap_of_many_points_is_encode_of_decode_of_each(data: st.DataObject):
    space = data.draw(spaces(constraints=False))
    d = len(space.columns)
    rows = st.lists(st.floats(-0.5, 1.5), min_size=d, max_size=d)
    random = np.random.default_rng(data.draw(SEEDS)).random((20, d))
    points = np.array([*data.draw(st.lists(rows, max_size=5)), *random])
    before = points.copy()
    snapped = space.snap(points)
    assert np.array_equal(points, before)
    gridded = [column.kind != "continuous" for column in space.columns]
    for point, got in zip(points, snapped, strict=True):
        want = space.encode(space.decode(point))
        assert np.array_equal(got[gridded], want[gridded], equal_nan=True)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
        assert np.array_equal(space.snap(point), got, equal_nan=True)
    assert np.array_equal(space.snap(snapped), snapped, equal_nan=True)


@QUICK
@given(spaces(), SEEDS)
def test_samples_lie_in_the_space(space: Space, seed: int):
    rng = np.random.default_rng(seed)
    for _ in range(5):
        config = space.sample(rng)
        space.check(config)
        assert space.allows(space.encode(config))
        assert space.key(config) == space.key(dict(reversed(config.items())))


@QUICK
@given(spaces(), SEEDS, st.sampled_from([0.0, 0.25]), st.floats(1.01, 10.0), st.floats(0.001, 2.0))
def test_moves_never_leave_the_space(space: Space, seed: int, resample: float, factor: float, scale: float):
    rng = np.random.default_rng(seed)
    perturbed = jittered = space.sample(rng)
    for _ in range(25):
        perturbed = space.perturb(perturbed, rng, factor=factor, resample=resample)
        space.check(perturbed)
        jittered = space.jitter(jittered, rng, scale)
        space.check(jittered)


@QUICK
@given(st.data())
def test_numbers_and_ordinals_can_always_move(data: st.DataObject):
    domain = data.draw(domains())
    assume(not isinstance(domain, Categorical | Constant))
    assume(not isinstance(domain, Ordinal) or len(domain.values) > 1)
    space = Space({"x": domain})
    config = data.draw(configs(space))
    rng = np.random.default_rng(data.draw(SEEDS))
    for move in (space.perturb, lambda config, rng: space.jitter(config, rng, 1e-6)):
        moved = {space.key(move(config, rng)) for _ in range(40)}
        assert moved != {space.key(config)}


@QUICK
@given(st.data())
def test_moves_between_levels_are_symmetric(data: st.DataObject):
    """From level to level as often as back: so without selection no level is visited more often than another."""
    domain = data.draw(
        st.sampled_from([Ordinal([1, 5, 6]), Integer(0, 5), Integer(10, 14), Float(1.0, 2.0, step=0.25)])
    )
    factor = data.draw(st.sampled_from([1.1, 1.2, 1.5, 2.0, 3.0]))
    space, rng = Space({"x": domain}), np.random.default_rng(data.draw(SEEDS))
    values = [config["x"] for config in space.configs()]
    tries = 600
    counts = np.array(
        [
            [found.count(other) for other in values]
            for found in ([space.perturb({"x": v}, rng, factor)["x"] for _ in range(tries)] for v in values)
        ]
    )
    assert np.abs(counts - counts.T).max() < 6 * math.sqrt(tries / 2)


@QUICK
@given(spaces(), SEEDS)
def test_what_cannot_move_stays(space: Space, seed: int):
    rng = np.random.default_rng(seed)
    config = space.sample(rng)
    for moved in (space.perturb(config, rng), space.jitter(config, rng, 0.1)):
        assert list(moved) == list(config)  # without resampling no branch changes
        for name, domain in space.items():
            if isinstance(domain, Categorical | Constant):
                assert moved[name] == config[name]


@QUICK
@given(spaces(max_depth=1), spaces(max_depth=1), SEEDS)
def test_moves_bring_the_configurations_of_another_space_into_this_one(old: Space, new: Space, seed: int):
    rng = np.random.default_rng(seed)
    config = old.sample(rng)
    new.check(new.perturb(config, rng))
    new.check(new.jitter(config, rng, 0.1))


@QUICK
@given(spaces())
def test_finite_spaces_are_listed_without_repetition(space: Space):
    assume(space.size <= 300)
    found = list(space.configs())
    assert len({space.key(config) for config in found}) == len(found)
    free = Space(space)
    assert len(list(free.configs())) == space.size
    assert found == [config for config in free.configs() if space.contains(config)]
    assert all(list(space.decode(space.encode(config))) == list(config) for config in found)


@QUICK
@given(spaces(), SEEDS)
def test_parents_come_first_and_decide(space: Space, seed: int):
    u = space.snap(np.random.default_rng(seed).random(len(space.columns)))
    for i, column in enumerate(space.columns):
        if column.parent is None:
            assert not np.isnan(u[i])
            assert column.options == ()
        else:
            assert column.parent < i
            parent = space.columns[column.parent]
            taken = not np.isnan(u[column.parent]) and int(u[column.parent] * parent.levels) in column.options
            assert taken == (not np.isnan(u[i]))


# -- totals, limits and orders --------------------------------------------------------------------------------------


@st.composite
def ruled(draw: st.DrawFn) -> Space:
    """Spaces with sums and orders between up to six parameters, some of them in a branch, that can be honoured."""
    names = [f"p{i}" for i in range(draw(st.integers(2, 6)))]
    step = draw(st.sampled_from([None, None, 0.25, 1]))
    domains: dict[str, Domain] = {}
    for name in names:
        low = draw(st.integers(-3, 3)) * (step or 1.0)
        high = low + draw(st.integers(1, 6)) * (step or 1.0)
        domains[name] = Integer(int(low), int(high)) if step == 1 else Float(low, high, step=step)
    inside = {name: domains.pop(name) for name in names[2:] if draw(st.booleans())}
    branch = Space({**inside, "extra": Categorical([1, 2])})
    space = Space({**domains, "k": Categorical({"with": branch, "without": None}), "c": 0})
    config = next(
        config
        for config in (space.sample(np.random.default_rng(draw(SEEDS))) for _ in itertools.count())
        if config["k"] == "with"
    )
    rules: list[SpaceConstraint] = []
    if draw(st.booleans()):
        some = draw(st.lists(st.sampled_from(names), min_size=2, unique=True))
        rules.append(sum_to(some, math.fsum(config[name] for name in some)))
    if draw(st.booleans()):
        weights = draw(st.dictionaries(st.sampled_from(names), st.sampled_from([1, -1, 2.5]), min_size=1))
        rules.append(sum_at_most(weights, sum(weight * config[name] for name, weight in weights.items()) + 0.5))
    for one, other in itertools.pairwise(sorted(names[:3], key=config.__getitem__)):
        if config[one] < config[other]:
            rules.append(less_than(one, other))
    return Space(space, rules)


@settings(QUICK, max_examples=40)
@given(ruled(), SEEDS)
def test_ruled_spaces_are_honoured_by_all_that_draws_and_moves(space: Space, seed: int):
    rng = np.random.default_rng(seed)
    for _ in range(4):
        config = space.sample(rng)
        space.check(config)
        assert space.allows(space.encode(config)) and same(space, space.decode(space.encode(config)), config)
        assert same(space, space.nearest(config, rng), config)
        for new in (space.perturb(config, rng, resample=0.2), space.jitter(config, rng, 0.2)):
            space.check(new)
    assert Space.from_json(space.to_json()) == space


@settings(QUICK, max_examples=40)
@given(ruled(), SEEDS)
def test_points_of_ruled_spaces_are_snapped_to_their_totals(space: Space, seed: int):
    points = np.random.default_rng(seed).random((30, len(space.columns)))
    for snap in (space.snap, space.spread):
        snapped = snap(points)
        np.testing.assert_array_equal(space.snap(snapped), snapped)
        for point in snapped:
            config = space.decode(point)
            np.testing.assert_allclose(space.encode(config), point, rtol=0, atol=1e-12)
            active = {column.name for column, u in zip(space.columns, point, strict=True) if not np.isnan(u)}
            for rule in space.constraints:
                if isinstance(rule, SumTo) and active >= set(rule.names):
                    assert rule(config)
    np.testing.assert_allclose(space.snap(points), [space.encode(space.decode(p)) for p in points], rtol=0, atol=1e-12)


@QUICK
@given(st.data())
def test_what_is_fixed_never_moves(data: st.DataObject):
    plain = data.draw(spaces())
    names = data.draw(st.sets(st.sampled_from(sorted(plain)))) if plain else set()
    free = {name for name, domain in plain.items() if isinstance(domain, Constant)}
    domains = {name: replace(plain[name], fixed=True) if name in names - free else plain[name] for name in plain}
    space = Space(domains, plain.constraints)
    assert space.fixed >= names and Space.from_json(space.to_json()) == space
    rng = np.random.default_rng(data.draw(SEEDS))
    config = space.sample(rng)
    kept = {name: value for name, value in config.items() if name in space.fixed}
    for new in (space.perturb(config, rng, resample=0.5), space.jitter(config, rng, 0.3), space.nearest(config, rng)):
        assert {name: value for name, value in new.items() if name in space.fixed} == kept


@pytest.mark.parametrize("text", [b"", b"[]", b'{"domains": 3}', b'{"domains": {"x": 1}}', b'{"domains": {"x": {}}}'])
@pytest.mark.parametrize("end", [b"", b"}"])
def test_bad_json_is_a_value_error(text: bytes, end: bytes):
    with pytest.raises(ValueError, match="not a search space"):
        Space.from_json(text + end)


@QUICK
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda t: (
            st.lists(t)
            | st.dictionaries(
                st.sampled_from(
                    ["kind", "domains", "low", "high", "options", "values", "constraints", "float", "categorical"]
                ),
                t,
            )
        ),
    )
)
def test_any_dict_is_a_space_or_a_value_error(form: object):
    if not isinstance(form, dict):
        form = {"domains": {"x": form}}
    try:
        Space.from_json(form)
    except ValueError as error:
        assert str(error).startswith("not a search space")


@QUICK
@given(spaces())
def test_positions_are_where_the_levels_are_snapped_to(space: Space) -> None:
    for j, column in enumerate(space.columns):
        if column.kind == "continuous":
            with pytest.raises(ValueError, match="is continuous"):
                space.positions(j)
        elif column.levels <= 64:
            positions = space.positions(j)
            assert len(positions) == column.levels and (np.diff(positions) > 0).all()
            points = np.full((column.levels, len(space.columns)), 0.5)
            at, path = column, []
            while at.parent is not None:
                path.append((at.parent, at.options[0]))
                at = space.columns[at.parent]
            for parent, option in path:
                points[:, parent] = (option + 0.5) / space.columns[parent].levels
            points[:, j] = positions
            np.testing.assert_array_equal(space.snap(points)[:, j], positions)
