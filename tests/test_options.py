"""Options of a categorical that are objects, and parameters that are fixed."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import msgspec
import numpy as np
import pytest

import tunesmith as ts
from tunesmith.space import SpaceError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Relu:
    pass


def gelu(x):
    return x


@pytest.fixture
def space() -> ts.Space:
    return ts.Space(
        {
            "activation": ts.Categorical({"relu": Relu, "gelu": gelu, "none": None}),
            "optimizer": ts.Categorical(
                {
                    "sgd": ts.Option(math.sin, ts.Space({"nesterov": ts.Categorical({"yes": 1.5, "no": (1, 2)})})),
                    "adam": ts.Space({"beta": ts.Float(0.8, 0.9)}),
                    "none": ts.Option(None),
                }
            ),
        }
    )


# -- values ---------------------------------------------------------------------------------------------------------


def test_configurations_hold_names_and_training_code_gets_values(space):
    config = {"activation": "relu", "optimizer": "sgd", "nesterov": "no"}
    assert space.contains(config) and space.decode(space.encode(config)) == config
    assert space.values(config) == {"activation": Relu, "optimizer": math.sin, "nesterov": (1, 2)}
    plain = {"activation": "none", "optimizer": "adam", "beta": 0.85}
    assert space.values(plain) == plain and space.values(plain) is not plain
    assert space.values({"activation": "gelu", "optimizer": "none"}) == {"activation": gelu, "optimizer": None}
    assert {c["activation"] for c in (space.sample(g) for g in [rng()] for _ in range(50))} == {"relu", "gelu", "none"}
    assert space.valued and not ts.Space({"a": ts.Categorical(["x", "y"])}).valued
    assert list(space.values()) == [space["activation"], space["optimizer"]]  # as of any mapping


def test_any_object_is_a_value():
    contents: dict[Any, Any] = {
        "list": [1, 2],
        "dict": {"a": 1},
        "function": len,
        "true": True,
        "text": "t",
        3: np.ones(2),
    }
    space = ts.Space({"x": ts.Categorical(contents)})
    for name, value in contents.items():
        assert space.values({"x": name})["x"] is value


def test_the_log_holds_that_there_are_values(space):
    form = msgspec.json.decode(space.to_json())
    assert form["domains"]["activation"] == {
        "kind": "categorical", "options": ["relu", "gelu", "none"], "prior": None, "branches": [None] * 3,
        "values": [True, True, None],
    }  # fmt: skip
    stored = ts.Space.from_json(space.to_json())
    assert stored == space and stored.columns == space.columns and stored.valued and hash(stored) == hash(space)
    assert stored.to_json() == space.to_json()
    stored.check({"activation": "relu", "optimizer": "none"})
    with pytest.raises(
        SpaceError, match="'activation': the value of the option 'relu' is not in the log: pass the space"
    ):
        stored.values({"activation": "relu", "optimizer": "none"})
    assert stored.values({"activation": "none", "optimizer": "adam", "beta": 0.8})["activation"] == "none"
    assert repr(stored["activation"]) == "Categorical({'relu': ..., 'gelu': ..., 'none': None})"
    assert stored["activation"] != ts.Categorical(["relu", "gelu", "none"])
    with pytest.raises(ValueError, match="not a search space"):
        ts.Space.from_json(space.to_json().replace(b"[true,true,null]", b"[true,false,null]"))
    with pytest.raises(ValueError, match="2 values are given for 3 options"):
        ts.Space.from_json(space.to_json().replace(b"[true,true,null]", b"[true,true]"))


def test_a_study_hands_the_users_objects_over(space, tmp_path):
    store = tmp_path / "study.db"
    with ts.Study(space, ts.Goal("y"), store=store) as study:
        study.tell(study.ask(), {"y": 1.0})
    with ts.Study.open(store, space=space) as study:
        assert study.space.values({"activation": "relu", "optimizer": "none"})["activation"] is Relu
    with ts.Study.open(store) as study:
        assert study.space == space and study.ask() is not None
        with pytest.raises(SpaceError, match="pass the space that has it"):
            study.space.values({"activation": "relu", "optimizer": "none"})


def test_options_of_one_name_in_two_branches_keep_their_own_values():
    branches = [ts.Space({"act": ts.Categorical({"relu": value, "gelu": None})}) for value in (1, 2)]
    space = ts.Space({"net": ts.Categorical({"mlp": branches[0], "cnn": branches[1]})})
    assert len(space.columns) == 2  # one column: what is learned is shared
    assert [space.values({"net": net, "act": "relu"})["act"] for net in ("mlp", "cnn")] == [1, 2]
    assert space.values({"net": "mlp", "act": "gelu"})["act"] == "gelu"


def test_copies_keep_the_values(space):
    for again in (copy.copy(space), copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert again == space and again.values({"activation": "relu", "optimizer": "none"})["activation"] is Relu
    wider = ts.Space({**space, "x": 1})
    assert wider.values({"activation": "relu", "optimizer": "none", "x": 1})["activation"] is Relu
    prior = msgspec.structs.replace(space["activation"], prior=ts.Prior("gelu"))
    assert ts.Space({"a": prior}).values({"a": "gelu"}) == {"a": gelu}


def test_an_unknown_option(space):
    with pytest.raises(ValueError, match="parameter 'activation'='swish': must be one of 'relu', 'gelu', 'none'"):
        space.values({"activation": "swish", "optimizer": "none"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ts.Categorical([Relu, gelu]), r"Relu'> must be a string, a number, .* Categorical\(\{'Relu': <class"),
        (lambda: ts.Categorical([1, gelu]), r"give an object a name, Categorical\(\{'gelu': <function gelu"),
        (lambda: ts.Categorical([lambda x: x]), r"Categorical\(\{'<lambda>': <function"),
        (
            lambda: ts.Categorical([(1, 2), (3, 4)]),
            r"\(1, 2\) must be a string.*Categorical\(\{'a name': \(1, 2\), ...\}",
        ),
        (lambda: ts.Categorical([np.ones((100, 100))]), "must be a string, a number"),
        (lambda: ts.Categorical({"a": ts.Float(0, 1)}), "'a' must carry a Space or None, or a value, not Float"),
        (lambda: ts.Categorical({"a": {"x": ts.Float(0, 1)}}), r"must carry its parameters as a Space: Space\(\{'x'"),
        (lambda: ts.Categorical({"a": ts.Option(1, {"x": 1})}), r"'a': space=\{'x': 1\} must be a Space or None"),
        (lambda: ts.Categorical({Relu: 1}), "give an object a name"),
        (lambda: ts.Categorical([]), r"options must not be empty: give at least one, such as Categorical\(\['relu'"),
        (lambda: ts.Categorical({}), "options must not be empty"),
        (lambda: ts.Categorical(5), r"options=5 must be a list or a tuple, such as Categorical"),
        (lambda: ts.Categorical("relu"), r"options='relu' must be a list or a tuple, such as"),
        (lambda: ts.Categorical(["a", "b"], prior="a"), r"prior='a' must be a Prior, such as Prior\(mode="),
        (lambda: ts.Categorical(["a"], fixed="yes"), "fixed='yes' must be True or False"),
    ],
)
def test_one_line_says_what_to_write(make, message):
    with pytest.raises((TypeError, ValueError), match=message) as found:
        make()
    assert "\n" not in str(found.value) and len(str(found.value)) < 600


def test_one_option_is_enough():
    space = ts.Space({"a": ts.Categorical(["only"]), "b": ts.Categorical({"one": Relu})})
    assert space.sample(rng()) == {"a": "only", "b": "one"} and space.size == 1
    assert space.perturb({"a": "only", "b": "one"}, rng(), resample=1.0) == {"a": "only", "b": "one"}


# -- fixed ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fixed() -> ts.Space:
    return ts.Space(
        {
            "lr": ts.Float(1e-4, 1.0, log=True),
            "width": ts.Ordinal([8, 16, 32], fixed=True),
            "depth": ts.Integer(1, 9, fixed=True),
            "share": ts.Float(0.0, 1.0, fixed=True),
            "net": ts.Categorical(
                {
                    "mlp": ts.Space({"drop": ts.Float(0.0, 0.5), "hidden": ts.Integer(1, 99, fixed=True)}),
                    "cnn": ts.Space({"kernel": ts.Categorical([3, 5], fixed=True), "pool": ts.Categorical(["a", "b"])}),
                },
                fixed=True,
            ),
            "seed": 7,
        }
    )


def test_what_is_fixed_is_chosen_once(fixed):
    generator = rng()
    names = {"width", "depth", "share", "net", "hidden", "kernel", "seed"}
    assert fixed.fixed == names
    assert {column.name for column in fixed.columns if column.fixed} == names - {"seed"}
    for _ in range(40):
        config = fixed.sample(generator)
        kept = {name: value for name, value in config.items() if name in names}
        moved = [fixed.perturb(config, generator, resample=resample) for resample in (0.0, 0.5, 1.0)]
        moved += [fixed.jitter(config, generator, 0.5)]
        assert all({name: value for name, value in new.items() if name in names} == kept for new in moved)
        assert all(new["lr"] != config["lr"] for new in moved)
        assert config["net"] == "cnn" or all(new["drop"] != config["drop"] for new in moved)
    assert len({fixed.sample(generator)["width"] for _ in range(50)}) == 3


def test_what_a_fixed_parameter_depends_on_stays_too():
    inner = ts.Space({"k": ts.Categorical({"x": ts.Space({"width": ts.Ordinal([1, 2], fixed=True)}), "y": None})})
    space = ts.Space({"net": ts.Categorical({"a": inner, "b": None}), "free": ts.Categorical([1, 2])})
    assert space.fixed == {"net", "k", "width"}
    config, generator = {"net": "a", "k": "x", "width": 1, "free": 1}, rng()
    found = [space.perturb(config, generator, resample=0.9) for _ in range(50)]
    assert {(c["net"], c["k"], c["width"]) for c in found} == {("a", "x", 1)} and {c["free"] for c in found} == {1, 2}


def test_a_constant_is_fixed_where_its_branch_is():
    space = ts.Space({"net": ts.Categorical({"a": ts.Space({"c": 1}), "b": ts.Space({"c": 2})}), "d": 3})
    assert space.fixed == {"d"}
    assert ts.Space({"f": ts.Fidelity(1, 2), "x": ts.Float(0, 1)}).fixed == frozenset()


def test_fixed_in_the_log(fixed):
    form = msgspec.json.decode(fixed.to_json())["domains"]
    assert form["width"] == {"kind": "ordinal", "values": [8, 16, 32], "prior": None, "fixed": True}
    assert "fixed" not in form["lr"] and form["net"]["fixed"] is True
    again = ts.Space.from_json(fixed.to_json())
    assert again == fixed and again.fixed == fixed.fixed
    assert again != ts.Space({**fixed, "width": ts.Ordinal([8, 16, 32])})
    assert repr(ts.Ordinal([1, 2], fixed=True)) == "Ordinal(values=(1, 2), fixed=True)"
    assert eval(repr(fixed), vars(ts)) == fixed


def test_constraints_that_are_thin_move_only_what_is_not_fixed():
    names = [f"n{i}" for i in range(6)]
    domains = {**dict.fromkeys(names, ts.Float(0.0, 0.9)), "n2": ts.Float(0.1, 0.9, log=True, fixed=True)}
    share = ts.Fidelity(0.1, 1.0)
    space = ts.Space({**domains, "share": share}, [lambda c: abs(sum(c[name] for name in names) - 3.11) < 1e-6])
    start = {**dict.fromkeys(names, 0.5), "n2": 0.61, "share": 0.3}
    assert space.decode(space.encode(start))["n2"] != start["n2"]  # rounded
    generator, config, seen = rng(), start, set()
    for _ in range(30):
        config = space.perturb(config, generator)
        space.check(config)
        seen.add(round(config["n0"], 3))
        assert (config["n2"], config["share"]) == (0.61, 0.3)
    assert len(seen) > 5


def test_fixed_values_of_before_a_migration_are_brought_into_the_space():
    space = ts.Space({"width": ts.Ordinal([8, 16], fixed=True), "x": ts.Integer(0, 9, fixed=True)})
    assert space.perturb({"width": 64, "x": 3}, rng()) == {"width": 16, "x": 3}
    assert {space.perturb({"x": 3}, generator)["width"] for generator in [rng()] for _ in range(30)} == {8, 16}


# -- nearest --------------------------------------------------------------------------------------------------------


def test_a_configuration_of_before_a_migration_is_brought_into_the_space():
    space = ts.Space(
        {
            "x": ts.Float(0.0, 0.1),
            "n": ts.Integer(1, 4),
            "o": ts.Ordinal([16, 32]),
            "k": ts.Categorical({"a": ts.Space({"z": ts.Integer(0, 9)}), "b": None}),
            "new": ts.Integer(0, 9),
        }
    )
    before = {"x": 0.9, "n": 50, "o": 64, "k": "gone", "dropped": 3}
    found = [space.nearest(before, generator) for generator in [rng()] for _ in range(100)]
    assert all(space.contains(config) for config in found)
    assert {(c["x"], c["n"], c["o"]) for c in found} == {(0.1, 4, 32)}
    assert {c["k"] for c in found} == {"a", "b"} and {c["new"] for c in found} == set(range(10))
    assert before == {"x": 0.9, "n": 50, "o": 64, "k": "gone", "dropped": 3}
    config = {"x": 0.05, "n": 2, "o": 16, "k": "a", "z": 3, "new": 5}
    assert space.nearest(config, rng()) == config == space.nearest({**config, "gone": 1}, rng())


def test_nearest_honours_constraints():
    names = ["a", "b", "c"]
    ordered = ts.Space({name: ts.Float(0, 1) for name in names}, [ts.less_than("a", "b"), ts.less_than("b", "c")])
    found = ordered.nearest({"a": 0.5, "b": 0.5, "c": 0.49}, rng())
    assert ordered.contains(found) and all(abs(value - 0.5) < 0.2 for value in found.values())
    mixed = ts.Space({"a": ts.Float(0, 9), "b": ts.Integer(0, 9), "c": ts.Ordinal([1, 3, 5])}, ordered.constraints)
    for seed in range(20):
        found = mixed.nearest({"a": 5.0, "b": 3, "c": 1}, rng(seed))
        mixed.check(found)
        assert [type(value) for value in found.values()] == [float, int, int]
    many = [f"n{i}" for i in range(12)]
    chain = ts.Space(
        dict.fromkeys(many, ts.Integer(0, 200)), [ts.less_than(one, two) for one, two in itertools.pairwise(many)]
    )
    found = chain.nearest(dict.fromkeys(many, 100), rng())
    assert chain.contains(found) and all(abs(value - 100) < 40 for value in found.values())
    weights = ts.Space({name: ts.Float(0, 1) for name in names}, [ts.sum_to(names, 1)])
    assert weights.nearest({"a": 0.4, "b": 0.8, "c": 0.8}, rng()) == pytest.approx({"a": 0.2, "b": 0.4, "c": 0.4})


# -- values of every type -------------------------------------------------------------------------------------------

HUGE = 10**400


@pytest.mark.parametrize("value", [HUGE, -HUGE, 10**5000], ids=["large", "negative", "larger"])
def test_numbers_that_are_too_large_are_one_line(value):
    space = ts.Space({"x": ts.Float(0, 1), "n": ts.Integer(0, 9), "o": ts.Ordinal([1, 2]), "k": ts.Categorical([1, 2])})
    good = {"x": 0.5, "n": 5, "o": 1, "k": 1}
    assert space.contains(good)
    for name in good:
        with pytest.raises(ValueError, match=rf"parameter '{name}'=.*must be") as found:
            space.check({**good, name: value})
        assert len(str(found.value)) < 300
    for make in (
        lambda: ts.Float(0, value), lambda: ts.Float(value, 1), lambda: ts.Integer(-5, value),
        lambda: ts.Integer(value, 5), lambda: ts.Integer(1, value, log=True),
        lambda: ts.Integer(0, abs(value), step=abs(value) // 2),
        lambda: ts.Float(0, 1, step=value), lambda: ts.Ordinal([1, value]), lambda: ts.Categorical([value]),
        lambda: ts.Constant(value), lambda: ts.Space({"x": value}), lambda: ts.Fidelity(1, value),
        lambda: ts.Prior(value), lambda: ts.Prior(1, value),
        lambda: ts.Float(0, 1, prior=ts.Prior(0.5, value)), lambda: ts.forbid({"x": value}),
        lambda: ts.Fidelity(1, 10**30), lambda: ts.Integer(2**62, 2**64, step=2**20), lambda: ts.Constant(2**63),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError)) as found:
            make()
        assert "\n" not in str(found.value) and len(str(found.value)) < 400
    moved = space.perturb({**good, "x": value, "n": value, "o": value}, rng())
    assert space.contains(moved)


def test_scalars_of_numpy_are_as_good_as_pythons():
    ones = {
        "low": np.float32(0.5),
        "high": np.int64(2),
        "log": np.bool_(True),
        "prior": ts.Prior(np.float64(1.0), np.float32(0.5)),
    }
    domain = ts.Float(**ones, fixed=np.True_)
    assert domain == ts.Float(0.5, 2.0, log=True, prior=ts.Prior(1.0, 0.5), fixed=True)
    assert [type(value) for value in (domain.low, domain.log, domain.fixed, domain.prior.mode)] == [
        float,
        bool,
        bool,
        float,
    ]
    assert ts.Integer(np.int32(1), np.uint8(9), step=np.int64(2)) == ts.Integer(1, 9, step=2)
    fidelity = ts.Fidelity(np.int64(1), np.int64(8), log=np.True_)
    assert fidelity.whole and type(fidelity.low) is int and fidelity == ts.Fidelity(1, 8)
    assert ts.Fidelity(np.float32(0.5), np.float64(1.0)) == ts.Fidelity(0.5, 1.0)
    space = ts.Space(
        {np.str_("x"): ts.Float(0, 1), "y": ts.Float(0, 1), "n": ts.Integer(0, 9), "c": np.float32(0.5), "f": fidelity,
         "k": ts.Categorical(np.array(["a", "b"]))},
        [ts.sum_to(np.array(["x", "y"]), np.float32(1)), ts.forbid({"n": np.int64(3)}),
         ts.sum_at_most({"n": np.int8(1)}, np.int64(8))],
    )  # fmt: skip
    assert ts.Space.from_json(space.to_json()) == space
    config = {
        "x": np.float64(0.25),
        "y": np.float32(0.75),
        "n": np.int16(2),
        "c": np.float32(0.5),
        "f": np.int64(8),
        "k": np.str_("a"),
    }
    space.check(config)
    plain = space.decode(space.encode(config))
    assert plain == {"x": 0.25, "y": 0.75, "n": 2, "c": 0.5, "f": 8, "k": "a"}
    for moved in (
        space.nearest(config, rng()),
        space.perturb(config, rng()),
        space.jitter(config, rng(), np.float32(0.1)),
    ):
        assert [type(value) for value in moved.values()] == [float, float, int, float, int, str]
    for option in ({"factor": np.float64(1.5)}, {"resample": np.float32(0.5)}):
        space.check(space.perturb(config, rng(), **option))


@pytest.mark.parametrize("options", [{"factor": "2"}, {"factor": HUGE}, {"resample": None}, {"factor": None}])
def test_options_of_moves_are_checked(options):
    space = ts.Space({"x": ts.Float(0, 1)})
    with pytest.raises(ValueError, match="must be") as found:
        space.perturb({"x": 0.5}, rng(), **options)
    assert len(str(found.value)) < 200
