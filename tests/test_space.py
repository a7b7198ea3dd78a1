"""Search spaces, with exact expectations."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import msgspec
import numpy as np
import pytest

from tunesmith.space import (
    Categorical,
    Config,
    Constant,
    Float,
    Integer,
    Ordinal,
    Prior,
    Space,
    decode_hook,
    encode_hook,
    forbid,
    less_than,
)

NAN = math.nan


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ordered(config: Config) -> bool:
    return config["lo"] < config["hi"]


@pytest.fixture
def space() -> Space:
    return Space(
        {
            "lr": Float(1e-4, 1.0, log=True),
            "batch": Ordinal([16, 32, 64]),
            "kernel": Categorical(
                {
                    "linear": None,
                    "rbf": Space({"gamma": Float(0.0, 1.0)}),
                    "poly": Space({"degree": Integer(2, 5), "gamma": Float(0.0, 1.0)}),
                }
            ),
            "seed": 7,
        },
        constraints=[forbid({"batch": 64, "kernel": "poly"})],
    )


# -- construction -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Float(0.0, 1.0, log=True), ValueError, r"low=0.0 must be > 0 when log=True"),
        (lambda: Integer(0, 8, log=True), ValueError, r"low=0 must be > 0 when log=True"),
        (lambda: Float(2, 1), ValueError, r"low=2.0 must be < high=1.0"),
        (lambda: Float(1, 1), ValueError, r"low and high are both 1.0: use Constant\(1.0\)"),
        (lambda: Integer(3, 3), ValueError, r"use Constant\(3\)"),
        (lambda: Float(0, math.inf), ValueError, r"high=inf must be finite"),
        (lambda: Float(math.nan, 1), ValueError, r"low=nan must be finite"),
        (lambda: Float("0", 1), TypeError, r"low='0' must be a number"),
        (lambda: Float(False, 1), TypeError, r"low=False must be a number"),
        (lambda: Float(0, 1, 0.1), TypeError, r"log=0.1 must be True or False"),
        (lambda: Float(0, 1, step=0), ValueError, r"step=0.0 must be > 0"),
        (lambda: Float(0, 1, step=-0.1), ValueError, r"step=-0.1 must be > 0"),
        (lambda: Float(0, 1, step=2), ValueError, r"step=2.0 must be at most high - low = 1.0"),
        (lambda: Float(0, 1, step=1e-17), ValueError, r"too many levels"),
        (lambda: Float(1.0, 1.0 + 1e-15), ValueError, r"too close"),
        (lambda: Integer(0, 2**60), ValueError, r"too many levels"),
        (lambda: Integer(0, 10**400), ValueError, r"too many levels"),
        (lambda: Integer(1, 2**45, log=True), ValueError, r"too many levels"),
        (lambda: Integer(1.0, 5), TypeError, r"low=1.0 must be an integer"),
        (lambda: Integer(1, True), TypeError, r"high=True must be an integer"),
        (lambda: Integer(1, 5, step=None), TypeError, r"step=None must be an integer"),
        (lambda: Ordinal([]), ValueError, r"values must not be empty"),
        (lambda: Ordinal([1, 2, 1]), ValueError, r"values must differ, and 1 is given twice"),
        (lambda: Ordinal([1, math.nan]), ValueError, r"nan must be finite"),
        (lambda: Categorical([]), ValueError, r"options must not be empty"),
        (lambda: Categorical("abc"), TypeError, r"options='abc' must be a list"),
        (lambda: Categorical({"a", "b"}), TypeError, r"must be a list"),
        (lambda: Categorical([[1], [2]]), TypeError, r"\[1\] must be a string, a number, a boolean or None"),
        (lambda: Categorical({"a": Float(0, 1)}), TypeError, r"option 'a' must carry a Space or None"),
        (lambda: Constant([1]), TypeError, r"value \[1\] must be a string"),
        (lambda: Float(0, 1, prior=Prior(2.0, 0.5)), ValueError, r"mode of the prior, 2.0, must be a number from 0.0"),
        (lambda: Categorical(["a"], prior=Prior("b", 0.5)), ValueError, r"'b', must be 'a'"),
        (lambda: Float(0, 1, prior=0.5), TypeError, r"prior=0.5 must be a Prior"),
        (lambda: Prior(1, 0), ValueError, r"confidence=0.0 must be in \(0, 1\]"),
        (lambda: Prior(1, "sure"), ValueError, r"confidence='sure' must be one of low, medium, high"),
        (lambda: Space({"": 1}), ValueError, r"name must not be empty"),
        (lambda: Space({1: 1}), TypeError, r"name must be a string, not 1"),
        (lambda: Space({"x": [1, 2]}), TypeError, r"parameter 'x' must be a domain .* not \[1, 2\]"),
        (lambda: Space({"x": math.inf}), ValueError, r"parameter 'x': value inf must be finite"),
        (lambda: Space([("x", 1)]), TypeError, r"mapping"),
        (lambda: Space({"x": 1}, [less_than("x", "y")]), ValueError, r"less_than\('x', 'y'\) names an unknown .* 'y'"),
        (lambda: Space({"x": 1}, [forbid({"z": 1})]), ValueError, r"names an unknown parameter 'z'"),
        (lambda: Space({"x": 1}, [forbid({"x": 2})]), ValueError, r"'x' must be 1"),
        (lambda: Space({"x": 1, "y": "a"}, [less_than("x", "y")]), TypeError, r"compares numbers, and 'y' has others"),
        (lambda: Space({"x": 1}, ["x < y"]), TypeError, r"constraint 'x < y' must be less_than"),
        (lambda: less_than("x", "x"), ValueError, r"can never hold"),
        (lambda: forbid({}), ValueError, r"at least one"),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_arguments_are_normalised():
    assert Float(0, 1) == Float(0.0, 1.0)
    assert type(Float(np.float32(0), np.int64(1)).high) is float
    assert type(Integer(np.int64(0), 3).low) is int
    assert Ordinal(np.array([1, 2])).values == (1, 2)
    assert all(type(value) is int for value in Ordinal(np.array([1, 2])).values)
    assert Categorical(["a", "b"]).branches == (None, None)
    assert Categorical({"a": None, "b": Space({})}).options == ("a", "b")
    assert [Prior(1, name).confidence for name in ("low", "medium", "high")] == [0.25, 0.5, 0.75]
    assert Float(0, 1, prior=Prior(1, "high")).prior == Prior(1.0, 0.75)
    assert Categorical([1, 1.0, True]).options == (1, 1.0, True)


def test_high_is_lowered_to_the_grid():
    assert Float(0.0, 1.0, step=0.3).high == 0.9
    assert Integer(1, 10, step=4).high == 9
    assert Float(0.0, 0.3, step=0.1).high == 0.3
    assert Float(0.1, 0.3, step=0.2).high == 0.3
    assert Float(0.0, 1.0, step=1 / 3).high == 1.0


def test_structs_are_frozen():
    with pytest.raises(AttributeError):
        Float(0, 1).low = 2.0


def test_the_same_name_twice_in_one_configuration():
    inner = Categorical({"a": Space({"x": 1}), "b": None})
    with pytest.raises(ValueError, match="'x' can occur twice"):
        Space({"x": 2, "c": inner})
    with pytest.raises(ValueError, match="'x' can occur twice"):
        Space({"c": inner, "d": inner})
    with pytest.raises(ValueError, match="'c' can occur twice"):
        Space({"c": Categorical({"a": Space({"c": 1})})})


# -- columns ------------------------------------------------------------------------------------------------------


def test_columns(space):
    described = [(c.name, c.kind, c.levels, c.parent, c.options) for c in space.columns]
    assert described == [
        ("lr", "continuous", 0, None, ()),
        ("batch", "ordered", 3, None, ()),
        ("kernel", "unordered", 3, None, ()),
        ("gamma", "continuous", 0, 2, (1, 2)),  # one column for both branches
        ("degree", "ordered", 4, 2, (2,)),
    ]
    assert list(space) == ["lr", "batch", "kernel", "seed"]
    assert space["seed"] == Constant(7)
    assert space.size == math.inf


def test_different_domains_of_one_name_are_different_columns():
    space = Space({"k": Categorical({"a": Space({"x": Float(0, 1)}), "b": Space({"x": Float(0, 2)})})})
    assert [(c.name, c.options) for c in space.columns] == [("k", ()), ("x", (0,)), ("x", (1,))]
    np.testing.assert_array_equal(space.encode({"k": "b", "x": 1.0}), [0.75, NAN, 0.5])
    assert space.decode([0.9, 0.1, 0.25]) == {"k": "b", "x": 0.5}


def test_types_of_constants_keep_columns_apart():
    space = Space({"k": Categorical({"a": Space({"x": Ordinal([0, 1])}), "b": Space({"x": Ordinal([False, True])})})})
    assert len(space.columns) == 3


def test_equal_nested_branches_are_merged():
    deep = Categorical({"p": Space({"z": Integer(0, 1)}), "q": None})
    space = Space({"k": Categorical({"a": Space({"n": deep}), "b": Space({"n": deep, "y": 1}), "c": None})})
    assert [(c.name, c.parent, c.options) for c in space.columns] == [
        ("k", None, ()),
        ("n", 0, (0, 1)),
        ("z", 1, (0,)),
    ]
    assert space.size == 3 + 3 + 1
    assert len(list(space.configs())) == 7
    assert {"k": "b", "n": "p", "z": 1, "y": 1} in list(space.configs())


def test_priors_in_columns():
    space = Space(
        {
            "lr": Float(1e-4, 1.0, log=True, prior=Prior(1e-3, "high")),
            "n": Integer(1, 4, prior=Prior(2, 1.0)),
            "k": Categorical(["a", "b"], prior=Prior("b", 0.1)),
            "o": Ordinal([1, 2]),
        }
    )
    assert [c.prior for c in space.columns] == [(pytest.approx(0.25), 0.75), (0.375, 1.0), (0.75, 0.1), None]


# -- the unit cube ------------------------------------------------------------------------------------------------


def test_encode_and_decode(space):
    config = {"lr": 0.01, "batch": 64, "kernel": "rbf", "gamma": 0.25, "seed": 7}
    u = space.encode(config)
    np.testing.assert_allclose(u, [0.5, 5 / 6, 0.5, 0.25, NAN], rtol=1e-12)
    assert u.dtype == np.float64
    assert space.decode(u) == config | {"lr": pytest.approx(0.01, rel=1e-12)}
    assert list(space.decode(u)) == list(config)
    assert space.decode([2.0, -1.0, 0.0, NAN, NAN]) == {"lr": 1.0, "batch": 16, "kernel": "linear", "seed": 7}


def test_decode_refuses(space):
    with pytest.raises(ValueError, match="parameter 'gamma' is active, and its column 3 is NaN"):
        space.decode([0.5, 0.5, 0.5, NAN, NAN])
    with pytest.raises(ValueError, match=r"shape \(2,\) is given, the space has 5 columns"):
        space.decode([0.5, 0.5])
    with pytest.raises(ValueError, match="column 3 is NaN"):
        space.snap([0.5, 0.5, 0.5, NAN, NAN])
    with pytest.raises(ValueError, match="5 columns"):
        space.snap([[0.5, 0.5]])


def test_snap(space):
    points = [[0.3, 0.1, 0.9, 0.2, 0.3], [1.5, 0.99, 0.1, 0.2, 0.3], [0.0, 0.4, 0.4, -0.2, NAN]]
    want = [[0.3, 1 / 6, 5 / 6, 0.2, 0.375], [1.0, 5 / 6, 1 / 6, NAN, NAN], [0.0, 0.5, 0.5, 0.0, NAN]]
    np.testing.assert_allclose(space.snap(points), want, rtol=1e-12)
    np.testing.assert_allclose(space.snap(points[0]), want[0], rtol=1e-12)
    assert space.snap(np.empty((0, 5))).shape == (0, 5)


def test_a_space_without_columns():
    space = Space({"x": 1})
    assert space.encode({"x": 1}).shape == (0,)
    assert space.decode([]) == {"x": 1}
    assert space.snap(np.empty((2, 0))).shape == (2, 0)
    assert space.size == 1
    assert list(space.configs()) == [{"x": 1}]
    assert list(Space({}).configs()) == [{}]


def test_integers_have_equal_bins():
    space = Space({"n": Integer(1, 5)})
    assert [space.decode([u])["n"] for u in (0.0, 0.19, 0.21, 0.5, 0.99, 1.0)] == [1, 1, 2, 3, 5, 5]
    assert space.encode({"n": 1}) == [0.1]
    counts = np.bincount([space.sample(generator)["n"] for generator in [rng()] for _ in range(5000)])[1:]
    assert np.all(abs(counts / 5000 - 0.2) < 0.03)


def test_logarithmic_integers():
    space = Space({"n": Integer(1, 3, log=True)})
    edges = [-math.log(1.5), math.log(1.5), math.log(2.5), math.log(3.5)]
    centres = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    want = [(centre - edges[0]) / (edges[-1] - edges[0]) for centre in centres]
    got = [space.encode({"n": n})[0] for n in (1, 2, 3)]
    np.testing.assert_allclose(got, want, rtol=1e-14)
    border = (edges[1] - edges[0]) / (edges[-1] - edges[0])
    assert [space.decode([u])["n"] for u in (0.0, border - 1e-9, border + 1e-9, 1.0)] == [1, 1, 2, 3]


@pytest.mark.parametrize("domain", [Integer(-(2**49), 2**49), Integer(1, 2**40, log=True), Integer(0, 2**50 - 1)])
def test_huge_ranges_stay_exact(domain):
    space = Space({"n": domain})
    for n in (domain.low, domain.low + 1, domain.high // 3, domain.high // 2 + 1, domain.high - 1, domain.high):
        assert space.decode(space.encode({"n": n})) == {"n": n}
        moved = {space.perturb({"n": n}, generator)["n"] for generator in [rng()] for _ in range(40)}
        assert moved - {n}


def test_grids_of_floats_have_no_binary_noise():
    space = Space({"x": Float(0.0, 1.0, step=0.1)})
    assert [config["x"] for config in space.configs()] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert np.array_equal(space.encode({"x": 0.1 + 0.2}), space.encode({"x": 0.3}))
    assert space.key({"x": 0.1 + 0.2}) == space.key({"x": 0.3})
    assert Space({"x": Float(0.0, 0.3, step=0.1)}).contains({"x": 3 * 0.1})
    log = Space({"x": Float(0.5, 2.0, log=True, step=0.5)})
    assert [config["x"] for config in log.configs()] == [0.5, 1.0, 1.5, 2.0]


def test_ends_of_continuous_ranges_are_exact():
    space = Space({"x": Float(0.1, 0.7), "y": Float(1e-5, 0.1, log=True)})
    assert space.decode([0, 0]) == {"x": 0.1, "y": 1e-5}
    assert space.decode([1, 1]) == {"x": 0.7, "y": 0.1}
    np.testing.assert_array_equal(space.encode({"x": 0.7, "y": 0.1}), [1, 1])


# -- checking -----------------------------------------------------------------------------------------------------

GOOD = {"lr": 0.01, "batch": 64, "kernel": "rbf", "gamma": 0.25, "seed": 7}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 2.0}, r"parameter 'lr'=2.0: must be a number from 0.0001 to 1.0"),
        ({"lr": "fast"}, r"parameter 'lr'='fast': must be a number"),
        ({"lr": True}, r"parameter 'lr'=True: must be a number"),
        ({"lr": NAN}, r"parameter 'lr'=nan: must be a number"),
        ({"batch": 48}, r"parameter 'batch'=48: must be one of 16, 32, 64"),
        ({"batch": 16.0}, r"parameter 'batch'=16.0: must be one of"),
        ({"batch": [16]}, r"parameter 'batch'=\[16\]: must be one of"),
        ({"kernel": "cubic"}, r"parameter 'kernel'='cubic': must be one of 'linear', 'rbf', 'poly'"),
        ({"seed": 8}, r"parameter 'seed'=8: must be 7"),
        ({"momentum": 0.9}, r"parameter 'momentum'=0.9 is unknown: the space has lr, batch, kernel, gamma"),
        ({"degree": 3}, r"parameter 'degree'=3 is active only where 'kernel' is 'poly'"),
        ({"kernel": "linear"}, r"parameter 'gamma'=0.25 is active only where 'kernel' is 'rbf' or 'poly'"),
        ({"kernel": "poly"}, r"parameter 'degree' is missing: it must be an integer from 2 to 5"),
        ({"kernel": "poly", "degree": 2.0}, r"parameter 'degree'=2.0: must be an integer"),
        ({"kernel": "poly", "degree": 2}, r"constraint forbid\(.*\) is broken by 'batch'=64, 'kernel'='poly'"),
    ],
)
def test_check(space, change, message):
    space.check(GOOD)
    with pytest.raises(ValueError, match=message):
        space.check(GOOD | change)
    assert space.contains(GOOD)
    assert not space.contains(GOOD | change)


def test_off_the_grid():
    space = Space({"n": Integer(2, 10, step=4), "x": Float(0, 1, step=0.25)})
    with pytest.raises(ValueError, match=r"'n'=4: must be an integer from 2 to 10 in steps of 4"):
        space.check({"n": 4, "x": 0.25})
    with pytest.raises(ValueError, match=r"'x'=0.3: must be a number from 0.0 to 1.0 in steps of 0.25"):
        space.check({"n": 6, "x": 0.3})
    with pytest.raises(ValueError, match=r"'n'=inf"):
        space.check({"n": math.inf, "x": 0.25})


def test_numbers_of_other_types_are_accepted_where_nothing_is_lost():
    space = Space({"x": Float(0, 2), "n": Integer(0, 2), "o": Ordinal([0.0, 0.5]), "k": Categorical(["a", 1])})
    space.check({"x": 1, "n": np.int64(1), "o": 0, "k": np.int64(1)})
    space.check({"x": np.float32(1), "n": 1, "o": np.float64(0.5), "k": np.str_("a")})
    assert not space.contains({"x": 1, "n": np.float32(1), "o": 0.5, "k": "a"})


def test_keys():
    space = Space({"x": Float(0, 2), "k": Categorical([1, 1.0, True, "1", None])})
    keys = [space.key({"x": 1.0, "k": option}) for option in (1, 1.0, True, "1", None)]
    assert len(set(keys)) == 5
    assert space.key({"k": 1, "x": 1}) == keys[0]
    assert space.key({"k": np.int64(1), "x": np.float64(1)}) == keys[0]


def test_types_tell_options_apart():
    space = Space({"k": Categorical([1, 1.0, True])})
    options = [space.decode(space.encode({"k": option}))["k"] for option in (1, 1.0, True)]
    assert [type(option) for option in options] == [int, float, bool]


# -- constraints --------------------------------------------------------------------------------------------------


def test_less_than_is_strict():
    space = Space({"lo": Integer(0, 2), "hi": Integer(0, 2)}, [less_than("lo", "hi")])
    assert [tuple(config.values()) for config in space.configs()] == [(0, 1), (0, 2), (1, 2)]
    assert space.size == 9
    assert not space.allows(space.encode({"lo": 1, "hi": 1}))
    with pytest.raises(ValueError, match=r"less_than\('lo', 'hi'\) is broken by 'lo'=1, 'hi'=1"):
        space.check({"lo": 1, "hi": 1})


def test_functions():
    space = Space({"lo": Integer(0, 2), "hi": Integer(0, 2)}, [ordered])
    assert len(list(space.configs())) == 3
    with pytest.raises(ValueError, match="constraint ordered is broken by 'lo'=2, 'hi'=1"):
        space.check({"lo": 2, "hi": 1})
    stored = Space.from_json(space.to_json())
    assert stored == space
    assert stored != Space(space, [lambda config: True])
    assert stored.to_json() == space.to_json()
    stored.encode({"lo": 2, "hi": 1})
    with pytest.raises(RuntimeError, match="constraint 'ordered' is a Python function: pass the space that has it"):
        stored.check({"lo": 0, "hi": 1})
    with pytest.raises(RuntimeError, match="ordered"):
        stored.sample(rng())


def test_constraints_on_inactive_parameters_hold():
    space = Space(
        {"k": Categorical({"a": Space({"x": Integer(0, 3)}), "b": None}), "y": Integer(0, 3)},
        [less_than("x", "y"), forbid({"x": 0, "y": 1})],
    )
    space.check({"k": "b", "y": 0})
    assert not space.contains({"k": "a", "x": 1, "y": 0})
    assert not space.contains({"k": "a", "x": 0, "y": 1})
    space.check({"k": "a", "x": 0, "y": 2})


def test_constraints_of_a_branch_hold_in_this_branch_only():
    both = {"lo": Integer(0, 1), "hi": Integer(0, 1)}
    space = Space({"k": Categorical({"strict": Space(both, [less_than("lo", "hi")]), "free": Space(both)})})
    assert len(space.columns) == 3
    found = [tuple(config.values()) for config in space.configs()]
    assert found == [("strict", 0, 1), ("free", 0, 0), ("free", 0, 1), ("free", 1, 0), ("free", 1, 1)]
    generator = rng()
    config = space.sample(generator)
    for _ in range(50):
        config = space.perturb(config, generator, resample=0.3)
        space.check(config)


def test_true_is_not_one_to_a_constraint():
    space = Space({"k": Categorical([1, True])}, [forbid({"k": True})])
    assert list(space.configs()) == [{"k": 1}]


def test_constraints_that_leave_nothing():
    space = Space({"x": Integer(5, 9), "y": Integer(0, 4)}, [less_than("x", "y")])
    with pytest.raises(
        ValueError,
        match=r"constraints leave \(almost\) nothing: each of 25 .* breaks one, such as less_than\('x', 'y'\)",
    ):
        space.sample(rng())
    assert list(space.configs()) == []
    wide = Space({"x": Float(5, 9), "y": Float(0, 4)}, [less_than("x", "y")])
    with pytest.raises(ValueError, match=r"each of 51000 draws breaks one, such as less_than\('x', 'y'\); loosen it"):
        wide.sample(rng())


def test_continuous_spaces_have_no_list(space):
    with pytest.raises(ValueError, match="continuous"):
        space.configs()


# -- JSON and identity --------------------------------------------------------------------------------------------


def test_json_form():
    space = Space({"x": Float(0, 1), "k": Categorical({"a": None, "b": Space({"c": 1})})}, [forbid({"x": 0.5})])
    assert msgspec.json.decode(space.to_json()) == {
        "domains": {
            "x": {"kind": "float", "low": 0.0, "high": 1.0, "log": False, "step": None, "prior": None},
            "k": {
                "kind": "categorical",
                "options": ["a", "b"],
                "prior": None,
                "branches": [None, {"domains": {"c": {"kind": "constant", "value": 1}}, "constraints": []}],
            },
        },
        "constraints": [{"kind": "forbid", "values": {"x": 0.5}}],
    }


def test_a_space_is_a_field_of_a_struct(space):
    class Holder(msgspec.Struct):
        space: Space
        other: Space | None = None
        number: float = 0.0

    encoded = msgspec.json.encode(Holder(space, number=np.float32(0.5)), enc_hook=encode_hook)
    decoded = msgspec.json.decode(encoded, type=Holder, dec_hook=decode_hook)
    assert decoded.space == space
    assert decoded.other is None
    assert decoded.number == 0.5
    with pytest.raises(NotImplementedError, match="object has no JSON form"):
        msgspec.json.encode(object(), enc_hook=encode_hook)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({}, "domains"),
        ({"domains": {"lr": {"kind": "float", "low": 0.0, "high": 1.0, "log": True}}}, "parameter 'lr': low=0.0 must"),
        ({"domains": {"lr": {"kind": "float", "low": 0.0, "high": 1.0, "steps": 1}}}, "parameter 'lr': .*steps"),
        ({"domains": {"lr": {"kind": "normal"}}}, "parameter 'lr': Invalid value 'normal'"),
        ({"domains": {}, "constraints": [{"kind": "eval", "code": "1"}]}, "Invalid value 'eval'"),
        ({"domains": {}, "constraints": [{"kind": "less_than", "smaller": "a", "larger": "b"}]}, "unknown .* 'a'"),
        ({"domains": {}, "extra": 1}, "extra"),
        (
            {
                "domains": {
                    "k": {"kind": "categorical", "options": ["a"], "branches": [{"domains": {"x": {"kind": "flat"}}}]}
                }
            },
            "parameter 'k': parameter 'x': Invalid value 'flat'",
        ),
        ({"domains": {"k": {"kind": "categorical", "options": ["a"], "branches": [None, None]}}}, "2 branches"),
    ],
)
def test_bad_json_says_what_is_wrong(form, message):
    with pytest.raises(ValueError, match=f"not a search space: .*{message}"):
        Space.from_json(form)
    with pytest.raises(ValueError, match=message):
        Space.from_json(msgspec.json.encode(form).decode())


def test_stored_functions_execute_nothing():
    form = {
        "domains": {"x": {"kind": "constant", "value": 1}},
        "constraints": [{"kind": "function", "name": "os.abort"}],
    }
    space = Space.from_json(form)
    with pytest.raises(RuntimeError, match=r"os\.abort"):
        space.check({"x": 1})


def test_equality_repr_and_copies(space):
    assert Space({"a": 1, "b": 2}) != Space({"b": 2, "a": 1})  # the columns' order differs
    assert Space({"a": 1}) != Space({"a": True})
    assert space != "space"
    assert len({space, Space(space, space.constraints)}) == 1
    assert pickle.loads(pickle.dumps(space)) == copy.deepcopy(space) == space
    small = Space({"x": Float(0, 1, log=False), "k": Categorical({"a": None, "b": Space({"n": Integer(1, 3)})})})
    assert repr(small) == (
        "Space({'x': Float(low=0.0, high=1.0), "
        "'k': Categorical({'a': None, 'b': Space({'n': Integer(low=1, high=3)})})})"
    )
    assert eval(repr(small)) == small
    assert eval(repr(space)) == space


# -- sizes and lists ----------------------------------------------------------------------------------------------


def test_size():
    branch = Space({"n": Integer(1, 4), "o": Ordinal([1, 2, 3])})
    space = Space({"k": Categorical({"a": branch, "b": None}), "x": Float(0, 1, step=0.5), "c": 1})
    assert space.size == (4 * 3 + 1) * 3
    assert Space({"k": Categorical({"a": Space({"x": Float(0, 1)}), "b": None})}).size == math.inf
    assert len({space.key(config) for config in space.configs()}) == space.size


# -- moves --------------------------------------------------------------------------------------------------------


def perturbed(domain, value, n=200, **options):
    space, generator = Space({"x": domain}), rng()
    return {space.perturb({"x": value}, generator, **options)["x"] for _ in range(n)}


def test_logarithmic_numbers_move_by_the_factor():
    got = sorted(perturbed(Float(1e-4, 1.0, log=True), 0.01))
    assert got == pytest.approx([0.01 / 1.2, 0.01 * 1.2])


def test_linear_numbers_far_from_zero_move_by_the_factor():
    got = sorted(perturbed(Float(0.0, 1.0), 0.5, factor=1.5))
    assert got == pytest.approx([0.5 / 1.5, 0.5 * 1.5])
    got = sorted(perturbed(Float(-1.0, 1.0), -0.5))
    assert got == pytest.approx([-0.5 * 1.2, -0.5 / 1.2])


def test_zero_moves():
    step = 0.05 * 2 * math.log(1.2)
    assert sorted(perturbed(Float(-1.0, 1.0), 0.0)) == pytest.approx([-step, step])
    one_way = perturbed(Float(0.0, 1.0), 0.0)  # the bound is a mirror
    assert [min(one_way), max(one_way)] == pytest.approx([step / 2, step / 2])


def test_linear_moves_are_reversible():
    space, generator = Space({"x": Float(-10.0, 30.0)}), rng()
    for _ in range(100):
        start = space.sample(generator)["x"]
        for there in perturbed(Float(-10.0, 30.0), start, 20):
            back = perturbed(Float(-10.0, 30.0), there, 20)
            assert any(math.isclose(start, x, rel_tol=1e-9, abs_tol=1e-9) for x in back)


def test_bounds_are_mirrors():
    assert sorted(perturbed(Float(0.1, 1.0, log=True), 1.0)) == pytest.approx([1 / 1.2])
    assert sorted(perturbed(Float(0.1, 1.0, log=True), 1 / 1.1)) == pytest.approx([1 / 1.32, 1 / (1.2 / 1.1)])


def test_integers_and_grids_move_by_a_level_or_the_factor_and_stay_at_their_ends():
    assert perturbed(Integer(0, 10), 2) == {1, 3}
    assert perturbed(Integer(0, 10), 0) == {0, 1}
    assert perturbed(Integer(0, 10), 10) == {8, 9, 10}
    assert perturbed(Integer(1, 3), 3) == {2, 3}
    assert perturbed(Integer(1, 1024, log=True), 1) == {1, 2}
    assert perturbed(Integer(1, 1024, log=True), 100) == {83, 84, 119, 120, 121}
    assert perturbed(Integer(0, 100, step=10), 50) == {40, 60}
    assert perturbed(Float(0.0, 1.0, step=0.1), 0.5) == {0.4, 0.6}
    assert perturbed(Float(-1.0, 1.0, step=0.25), 0.0) == {-0.25, 0.25}


def test_ordinals_step_to_a_neighbour_or_stay_at_their_ends():
    assert perturbed(Ordinal([16, 32, 64, 128]), 32) == {16, 64}
    assert perturbed(Ordinal([16, 32, 64]), 64) == {32, 64}
    assert perturbed(Ordinal(["small", "large"]), "small") == {"small", "large"}
    assert perturbed(Ordinal([1]), 1) == {1}


def visits(domain, move, steps=40_000):
    """How often each level is visited by a walk, its neighbours' visits apart enough to be independent."""
    space, generator = Space({"x": domain}), rng(4)
    values = [config["x"] for config in space.configs()]
    config, counts = {"x": values[0]}, dict.fromkeys(values, 0)
    for _ in range(steps):
        config = move(space, config, generator)
        counts[config["x"]] += 1
    return np.array(list(counts.values())) / steps


LEVELS = {
    "ordinal": Ordinal([16, 32, 64, 128]),
    "two": Ordinal(["a", "b"]),
    "integer": Integer(1, 4),
    "large numbers": Integer(20, 30),
    "many": Integer(0, 12),
    "both signs": Integer(-6, 6),
    "grid": Float(0.0, 1.0, step=0.125),
    "logarithmic": Integer(1, 8, log=True),
    "logarithmic grid": Float(0.5, 3.0, log=True, step=0.5),
}


@pytest.mark.parametrize(
    ("kind", "factor"),
    [(kind, factor) for kind in LEVELS for factor in (1.2, 2.0) if factor < 2 or not kind.startswith("logarithmic")],
)
def test_without_selection_all_levels_are_visited_equally_often(kind, factor):
    """Of logarithmic grids, as long as the factor is less than one level and a half."""
    share = visits(LEVELS[kind], lambda space, config, generator: space.perturb(config, generator, factor))
    assert share * len(share) == pytest.approx(np.ones(len(share)), abs=0.17)


@pytest.mark.parametrize("kind", [kind for kind in LEVELS if not kind.startswith("logarithmic")])
@pytest.mark.parametrize("scale", [0.01, 0.2, 1.5])
def test_jitter_visits_all_levels_equally_often_too(kind, scale):
    share = visits(LEVELS[kind], lambda space, config, generator: space.jitter(config, generator, scale))
    assert share * len(share) == pytest.approx(np.ones(len(share)), abs=0.2)


def test_logarithmic_grids_of_many_levels_do_not_drift():
    """Equally often at all levels would be a drift to large numbers: half of them are over 2,000."""
    space, generator = Space({"n": Integer(1, 4000, log=True)}), rng()
    config, logs = {"n": 60}, []
    for _ in range(40_000):
        config = space.perturb(config, generator, factor=1.5)
        logs.append(math.log(config["n"]) / math.log(4000))
    quarters = np.histogram(logs, bins=[0.2, 0.4, 0.6, 0.8, 1.0])[0]
    assert quarters / quarters.mean() == pytest.approx(np.ones(4), abs=0.17)


@pytest.mark.parametrize("domain", [Float(0.01, 1.0, log=True), Float(-2.0, 5.0), Float(0.0, 1.0), Float(3.0, 4.0)])
def test_continuous_numbers_are_uniform_in_the_coordinate_in_which_they_move(domain):
    space, generator = Space({"x": domain}), rng()
    axis = domain.axis()
    config, places = {"x": domain.low}, []
    for _ in range(20_000):
        config = space.perturb(config, generator, factor=float(1.2 + 0.3 * generator.random()))
        places.append((axis._z(config["x"]) - axis.bottom) / (axis.top - axis.bottom))
    counts = np.histogram(places, bins=5, range=(0, 1))[0]
    assert counts / counts.mean() == pytest.approx(np.ones(5), abs=0.17)


def test_categoricals_change_only_when_drawn_anew():
    domain = Categorical(["a", "b", "c"])
    assert perturbed(domain, "b") == {"b"}
    assert perturbed(domain, "b", resample=1.0) == {"a", "b", "c"}
    assert perturbed(Constant("z"), "z", resample=1.0) == {"z"}
    space, generator = Space({"x": domain}), rng()
    changed = sum(space.perturb({"x": "b"}, generator, resample=0.3) != {"x": "b"} for _ in range(3000))
    assert changed / 3000 == pytest.approx(0.3 * 2 / 3, abs=0.03)


def test_resampling_is_uniform_in_the_cube():
    got = list(perturbed(Float(1e-4, 1.0, log=True), 0.01, 4000, resample=1.0))
    positions = np.sort((np.log10(got) + 4) / 4)
    assert np.max(abs(positions - np.linspace(0, 1, len(positions)))) < 0.03


def test_branches_follow_a_changed_option(space):
    generator = rng()
    config = {"lr": 0.01, "batch": 16, "kernel": "rbf", "gamma": 0.25, "seed": 7}
    gammas: dict[str, list[float]] = {"rbf": [], "poly": []}
    for _ in range(400):
        new = space.perturb(config, generator, resample=0.3)
        space.check(new)
        if new["kernel"] in gammas:
            gammas[new["kernel"]].append(new["gamma"])
    near = (pytest.approx(0.25 * 1.2), pytest.approx(0.25 / 1.2))
    for found in gammas.values():  # the column that both options share is kept, and moves as usual
        assert sum(gamma in near for gamma in found) / len(found) == pytest.approx(0.7, abs=0.08)


def test_values_of_before_a_migration():
    narrow = Space(
        {
            "x": Float(0.0, 0.1),
            "n": Integer(1, 4),
            "o": Ordinal([16, 32]),
            "k": Categorical(["a", "b"]),
            "new": Integer(0, 9),
        }
    )
    before = {"x": 0.9, "n": 50, "o": 64, "k": "gone", "dropped": 3}
    generator = rng()
    found = [narrow.perturb(before, generator) for _ in range(100)]
    assert [config["x"] for config in found] == pytest.approx([0.1 / 1.2] * 100)
    assert {config["n"] for config in found} == {3, 4}
    assert {config["o"] for config in found} == {16, 32}
    assert {config["k"] for config in found} == {"a", "b"}
    assert {config["new"] for config in found} == set(range(10))
    assert before == {"x": 0.9, "n": 50, "o": 64, "k": "gone", "dropped": 3}


def test_moves_honour_constraints():
    space = Space({"lo": Integer(0, 9), "hi": Integer(0, 9)}, [less_than("lo", "hi")])
    generator = rng()
    config = {"lo": 4, "hi": 5}
    for _ in range(200):
        config = space.perturb(config, generator)
        assert config["lo"] < config["hi"]
        config = space.jitter(config, generator, 0.3)
        assert config["lo"] < config["hi"]


def test_where_no_move_is_allowed():
    only = Space({"a": Integer(0, 9), "b": Integer(0, 9)}, [lambda c: (c["a"], c["b"]) in {(0, 0), (9, 9)}])
    assert only.perturb({"a": 0, "b": 0}, rng()) == {"a": 0, "b": 0}
    assert only.jitter({"a": 9, "b": 9}, rng(), 0.01) == {"a": 9, "b": 9}
    assert only.perturb({"a": 0, "b": 5}, rng()) in ({"a": 0, "b": 0}, {"a": 9, "b": 9})  # a sample


@pytest.mark.parametrize("options", [{"factor": 1.0}, {"factor": math.inf}, {"resample": 1.5}, {"resample": NAN}])
def test_perturb_refuses(space, options):
    with pytest.raises(ValueError, match=r"must be"):
        space.perturb(GOOD, rng(), **options)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, NAN])
def test_jitter_refuses(space, scale):
    with pytest.raises(ValueError, match="scale"):
        space.jitter(GOOD, rng(), scale)


def test_jitter_is_gaussian_in_the_cube():
    space, generator = Space({"x": Float(1e-4, 1.0, log=True), "n": Integer(1, 1000), "k": Categorical([1, 2])}), rng()
    start = {"x": 0.01, "n": 500, "k": 1}
    moves = np.array([space.encode(space.jitter(start, generator, 0.05)) for _ in range(4000)]) - space.encode(start)
    assert np.std(moves, axis=0) == pytest.approx([0.05, 0.05, 0.0], rel=0.04)
    assert np.mean(moves, axis=0) == pytest.approx([0, 0, 0], abs=0.003)
    assert {space.jitter({"x": 0.01, "n": 1, "k": 1}, generator, 1e-9)["n"] for _ in range(50)} == {1, 2}
    assert {space.jitter({"x": 0.01, "n": 7, "k": 1}, generator, 1e-9)["n"] for _ in range(50)} == {6, 8}


def test_moves_do_not_drift():
    space, generator = Space({"x": Float(1e-30, 1e30, log=True)}), rng()
    config, steps = {"x": 1.0}, 4000
    for _ in range(steps):
        config = space.perturb(config, generator)
    mean, error = math.log(config["x"]) / steps, math.log(1.2) / math.sqrt(steps)
    assert abs(mean) < 3 * error
    assert (math.log(1.2) + math.log(0.8)) / 2 < -3 * error  # the rule "times 1.2 or 0.8" would be seen


@pytest.mark.parametrize("domain", [Float(0.01, 1.0, log=True), Float(-1.0, 1.0), Integer(1, 30)])
def test_moves_spread_over_the_whole_range(domain):
    space, generator = Space({"x": domain}), rng()
    config = space.sample(generator)
    seen = []
    for _ in range(4000):
        config = space.perturb(config, generator, factor=1.5)
        seen.append(space.encode(config)[0])
    assert min(seen) < 0.1
    assert max(seen) > 0.9


def test_equal_seeds_give_equal_moves(space):
    assert space.sample(rng(3)) == space.sample(rng(3))
    assert space.perturb(GOOD, rng(3), resample=0.5) == space.perturb(GOOD, rng(3), resample=0.5)
    assert space.jitter(GOOD, rng(3), 0.1) == space.jitter(GOOD, rng(3), 0.1)
