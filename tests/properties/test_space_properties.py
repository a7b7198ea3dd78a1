"""Properties of every search space."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tunesmith.space import Categorical, Config, Constant, Domain, Float, Integer, Ordinal, Space
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
def test_numbers_and_ordinals_always_move(data: st.DataObject):
    domain = data.draw(domains())
    assume(not isinstance(domain, Categorical | Constant))
    assume(not isinstance(domain, Ordinal) or len(domain.values) > 1)
    space = Space({"x": domain})
    config = data.draw(configs(space))
    rng = np.random.default_rng(data.draw(SEEDS))
    moved = {space.key(space.perturb(config, rng)) for _ in range(20)}
    if space.columns[0].kind == "ordered":
        assert space.key(config) not in moved
        assert space.key(space.jitter(config, rng, 1e-6)) != space.key(config)
    else:
        assert moved != {space.key(config)}


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
