"""Hard constraints: declared rules, functions and their identity, and what happens on every rung."""

from __future__ import annotations

import functools
import itertools
import math
import pickle
import subprocess
import sys
import textwrap

import msgspec
import numpy as np
import pytest

import tunesmith as ts
from tunesmith._constraints import digest
from tunesmith.space import SpaceError, SumAtMost, SumTo

WEIGHTS = ("a", "b", "c")
MIXTURE = {name: ts.Float(0.0, 1.0) for name in WEIGHTS}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> None:
    text = str(error.value)
    assert "\n" not in text and 10 < len(text) < 600, text


# -- declared rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ts.sum_to("ab", 1), TypeError, r"sum_to\('ab', 1\) must name parameters in a list"),
        (lambda: ts.sum_to(5, 1), TypeError, r"sum_to\(5, 1\) must name parameters in a list"),
        (lambda: ts.sum_to(["a"], 1), ValueError, "at least two parameters: what stands alone is a Constant"),
        (lambda: ts.sum_to(["a", "a"], 1), ValueError, "names a parameter twice"),
        (lambda: ts.sum_to(["a", 3], 1), TypeError, "the name of a parameter is a string, not 3"),
        (lambda: ts.sum_to(["a", "b"], math.nan), ValueError, "total=nan must be finite"),
        (lambda: ts.sum_to(["a", "b"], 10**400), ValueError, "total=1000.* must be finite"),
        (lambda: ts.sum_at_most({}, 1), ValueError, "at least one parameter a weight"),
        (lambda: ts.sum_at_most({"a": 0}, 1), ValueError, "none the weight 0"),
        (lambda: ts.sum_at_most({"a": "x"}, 1), TypeError, "the weight of 'a'='x' must be a number"),
        (lambda: ts.sum_at_most(["a"], None), TypeError, "limit=None must be a number"),
        (lambda: ts.less_than("a", 2), TypeError, "the name of a parameter is a string, not 2"),
        (lambda: ts.less_than("a\udc80", "b"), ValueError, r"'a\\udc80' has half a character"),
        (lambda: ts.forbid([("a", 1)]), ValueError, "must name at least one parameter and its value"),
        (lambda: ts.require(3, "name"), TypeError, "the first argument must be a function"),
        (lambda: ts.require(len, ""), TypeError, "name='' must be a string that is not empty"),
        (lambda: ts.Space(MIXTURE, [ts.sum_to(["a", "z"], 1)]), ValueError, "names an unknown parameter 'z'"),
        (lambda: ts.Space(MIXTURE, [ts.sum_to(WEIGHTS, 4)]), ValueError, "can't hold: the sum is 0.0 at least and 3.0"),
        (
            lambda: ts.Space(dict.fromkeys("ab", ts.Integer(1, 9, step=2)), [ts.sum_to(["a", "b"], 5)]),
            ValueError, "can't hold: the sum goes in steps of 2 from 2.0",
        ),
        (
            lambda: ts.Space({"a": ts.Float(0.1, 1, log=True), "b": ts.Float(0, 1)}, [ts.sum_to(["a", "b"], 1)]),
            ValueError, "adds on a linear scale, and 'a' has log=True",
        ),
        (
            lambda: ts.Space({"a": ts.Ordinal([0, 1]), "b": ts.Float(0, 1)}, [ts.sum_to(["a", "b"], 1)]),
            TypeError, "adds Float or Integer, and 'a' is neither",
        ),
        (
            lambda: ts.Space({"a": ts.Integer(0, 1), "b": ts.Float(0, 1)}, [ts.sum_to(["a", "b"], 1)]),
            ValueError, "adds what is continuous, or else what has one and the same step",
        ),
        (
            lambda: ts.Space({"a": ts.Float(0, 1, fixed=True), "b": ts.Float(0, 1)}, [ts.sum_to(["a", "b"], 1)]),
            ValueError, "names some parameters that are fixed and some that are not",
        ),
        (
            lambda: ts.Space(MIXTURE, [ts.sum_to(["a", "b"], 1), ts.sum_to(["b", "c"], 1)]),
            ValueError, r"'b' stands in sum_to\(\['a', 'b'\], 1.0\) already",
        ),
        (
            lambda: ts.Space({"a": ts.Categorical(["x", "y"]), "b": 1}, [ts.sum_at_most(["a", "b"], 1)]),
            TypeError, "adds numbers, and 'a' has others",
        ),
        (
            lambda: ts.Space({"f": ts.Fidelity(1, 2), "b": ts.Float(0, 1)}, [ts.sum_to(["f", "b"], 2)]),
            ValueError, "can't hold on every rung: 'f' is a fidelity",
        ),
        (lambda: ts.Space({"f": ts.Fidelity(1, 2)}, [ts.forbid({"f": 1})]), ValueError, "forbids every configuration"),
        (lambda: ts.Space(MIXTURE, ts.sum_to), TypeError, "must be a list, such as"),
        (lambda: ts.Space(MIXTURE, "a < b"), TypeError, "must be a list, such as"),
    ],
)  # fmt: skip
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message) as found:
        make()
    one_line(found)


def test_sums_of_what_is_active():
    at_most, to = ts.sum_at_most({"a": 1, "b": -2}, 1), ts.sum_to(["a", "b"], 1)
    assert [at_most(config) for config in ({"a": 1, "b": 0}, {"a": 3, "b": 1}, {"a": 3.1, "b": 1})] == [
        True,
        True,
        False,
    ]
    assert [at_most(config) for config in ({}, {"a": 2}, {"b": 2})] == [True, False, True]
    assert [to(config) for config in ({}, {"a": 1}, {"a": 0.3, "b": 0.7}, {"a": 0.3, "b": 0.8})] == [
        True,
        True,
        True,
        False,
    ]
    assert to({"a": 0.1 + 0.2, "b": 0.7}) and ts.sum_to(list("abc"), 0.3)({"a": 0.1, "b": 0.1, "c": 0.1})
    assert ts.sum_at_most(["a", "b"], 0.3)({"a": 0.1, "b": 0.2})


def test_sum_rules_are_data():
    space = ts.Space(MIXTURE, [ts.sum_to(WEIGHTS, 1), ts.sum_at_most({"a": 1, "b": 2}, 1.5)])
    assert msgspec.json.decode(space.to_json())["constraints"] == [
        {"kind": "sum_to", "names": ["a", "b", "c"], "total": 1.0},
        {"kind": "sum_at_most", "weights": {"a": 1.0, "b": 2.0}, "limit": 1.5},
    ]
    again = ts.Space.from_json(space.to_json())
    assert again == space and again.constraints == space.constraints
    assert repr(again.constraints) == "(sum_to(['a', 'b', 'c'], 1.0), sum_at_most({'a': 1.0, 'b': 2.0}, 1.5))"
    assert pickle.loads(pickle.dumps(space)) == space
    assert isinstance(again.constraints[0], SumTo) and isinstance(again.constraints[1], SumAtMost)
    assert again.contains(again.sample(rng()))
    with pytest.raises(ValueError, match=r"constraint sum_to.* is broken by 'a'=0.5, 'b'=0.25, 'c'=0.5"):
        space.check({"a": 0.5, "b": 0.25, "c": 0.5})


# -- functions ------------------------------------------------------------------------------------------------------

LIMIT = 3


def f(config):
    return config["x"] < LIMIT


def same(config):
    """Only the docstring and the name of the variable differ."""
    return config["x"] < LIMIT


def other_constant(config):
    return config["x"] < 4


def made(limit):
    return lambda config: config["x"] < limit


def with_default(limit):
    def check(config, limit=limit):
        return config["x"] < limit

    return check


class Callable:
    def __init__(self, limit):
        self.limit = limit

    def __call__(self, config):
        return config["x"] < self.limit

    def method(self, config):
        return config["x"] > self.limit


def test_digests_tell_what_functions_do():
    assert digest(f) == digest(same)
    apart = [
        f, other_constant, made(1), made(2), with_default(1), with_default(2), Callable(1), Callable(2),
        Callable(1).method, functools.partial(f, y=1), functools.partial(f, y=2), made((1, 2)), made([1, 2]),
        made(np.array([1, 2])), made(f), made({"a": 1}), len, lambda config: config["x"] in {1, 2, 3},
    ]  # fmt: skip
    assert len({digest(one) for one in apart}) == len(apart)
    for make in (made, with_default, Callable):
        assert digest(make(1.5)) == digest(make(1.5))


def test_digests_are_the_same_in_every_process():
    code = """
        from tunesmith._constraints import digest
        def outer(n):
            return lambda c: c["x"] in {"p", "q", "r", "s"} and c["y"] < n and (lambda: n)()
        print(digest(outer(3)))
    """
    found = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }  # fmt: skip
    assert len(found) == 1


def test_two_functions_are_two_constraints():
    domains = {"x": ts.Integer(0, 9)}
    low, high = ts.Space(domains, [lambda c: c["x"] < 3]), ts.Space(domains, [lambda c: c["x"] > 6])
    assert low != high
    assert low == ts.Space(domains, [lambda c: c["x"] < 3])
    assert ts.Space.from_json(low.to_json()) == low != ts.Space.from_json(high.to_json())
    assert len({low, high, ts.Space.from_json(low.to_json())}) == 2
    branch = [ts.Space({"k": ts.Categorical({"a": space, "b": None})}) for space in (low, high)]
    assert branch[0] != branch[1] and ts.Space.from_json(branch[0].to_json()) == branch[0]


def test_a_function_that_counts_its_calls_stays_the_same():
    calls = []
    space = ts.Space({"x": ts.Integer(0, 9)}, [lambda c: calls.append(c) or True])
    stored = ts.Space.from_json(space.to_json())
    space.sample(rng())
    assert calls and stored == space == ts.Space(space, space.constraints)


def test_logs_without_digests_and_of_other_versions_go_by_the_name():
    space = ts.Space({"x": ts.Integer(0, 9)}, [f])
    form = msgspec.json.decode(space.to_json())
    assert form["constraints"] == [{"kind": "function", "name": "f", "digest": digest(f)}]
    for change in ({}, {"digest": "2.7-0123456789abcdef"}):
        form["constraints"] = [{"kind": "function", "name": "f", **change}]
        assert ts.Space.from_json(form) == space
    form["constraints"] = [{"kind": "function", "name": "f", "digest": digest(other_constant)}]
    assert ts.Space.from_json(form) != space


def test_a_name_of_ones_own():
    domains = {"x": ts.Integer(0, 9)}
    one, two = (ts.Space(domains, [ts.require(function, "small")]) for function in (f, other_constant))
    assert one == two != ts.Space(domains, [ts.require(f, "large")])
    assert msgspec.json.decode(one.to_json())["constraints"] == [{"kind": "function", "name": "small"}]
    assert one == ts.Space.from_json(one.to_json())
    assert one == ts.Space(domains, [ts.require(f, name="small")])
    assert all(one.sample(generator)["x"] < 3 for generator in [rng()] for _ in range(20))
    with pytest.raises(ValueError, match="constraint small is broken by 'x'=5"):
        one.check({"x": 5})
    assert ts.Space(domains, [f]) == ts.Space(domains, [ts.require(other_constant, "f")])  # a study that has begun


def test_a_study_goes_on_with_the_same_function_only(tmp_path):
    store, domains = tmp_path / "study.db", {"x": ts.Float(0, 1)}
    spaces = {name: ts.Space(domains, [rule]) for name, rule in (("low", lambda c: c["x"] < 0.5), ("high", made(2)))}
    study = ts.Study(spaces["low"], ts.Goal("y"), store=store)
    study.tell(study.ask(), {"y": 1.0})
    study.close()
    with pytest.raises(ts.TunesmithError, match="is a function with other code"):
        ts.Study(ts.Space(domains, [lambda c: c["x"] > 0.5]), ts.Goal("y"), store=store)
    with ts.Study(ts.Space(domains, [lambda c: c["x"] < 0.5]), ts.Goal("y"), store=store) as study:
        study.change(space=spaces["high"])
        for _ in range(5):
            study.tell(study.ask(), {"y": 1.0})
        assert ts.replay(study) == []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda c: c["y"] < 1, r"fails for \{'x': .*\}: KeyError: 'y'"),
        (lambda c: 1 / 0, r"ZeroDivisionError: division by zero"),
        (lambda c: print(end=""), r"gives None for \{'x': .*\}: return True or False"),
        (lambda c: np.array([True, False]), r"ValueError: The truth value of an array"),
        (lambda: True, r"TypeError: .* takes 0 positional arguments"),
    ],
)
def test_functions_that_fail(function, message):
    space = ts.Space({"x": ts.Float(0, 1)}, [function])
    for use in (lambda: space.sample(rng()), lambda: space.check({"x": 0.5}), lambda: space.allows([0.5])):
        with pytest.raises(SpaceError, match=message) as found:
            use()
        one_line(found)
        assert isinstance(found.value, ts.TunesmithError) and "<lambda>" in str(found.value)
        assert isinstance(found.value.__cause__, Exception) or "gives None" in str(found.value)


def test_a_failure_of_many_parameters_is_one_short_line():
    space = ts.Space({f"parameter{i}": ts.Float(0, 1) for i in range(300)}, [lambda c: c["missing"]])
    with pytest.raises(SpaceError, match="KeyError: 'missing'") as found:
        space.sample(rng())
    one_line(found)
    with pytest.raises(ValueError, match=r"is broken by 'parameter0'=.*\(300\)") as found:
        ts.Space(space, [lambda c: False]).check(dict.fromkeys(space, 0.5))
    assert len(str(found.value)) < 1000


def test_a_function_can_not_change_the_configuration():
    space = ts.Space({"x": ts.Float(0, 1), "y": ts.Float(0, 1)}, [lambda c: c.pop("x") >= 0 or c.clear() is None])
    assert set(space.sample(rng())) == {"x", "y"}


def test_numpy_answers_count():
    space = ts.Space({"x": ts.Integer(0, 9)}, [lambda c: np.bool_(c["x"] > 5), lambda c: np.float64(c["x"] % 2)])
    assert {config["x"] for config in space.configs()} == {7, 9}


# -- fidelities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "domain"),
    [
        (ts.less_than("batch", "share"), ts.Integer(1, 100)),
        (ts.less_than("share", "batch"), ts.Integer(1, 200)),
        (ts.sum_at_most(["batch", "share"], 120), ts.Integer(1, 100)),
        (ts.sum_at_most({"batch": 1, "share": -1}, 0), ts.Integer(1, 100)),
        (lambda c: c["batch"] <= c["share"], ts.Integer(1, 100)),
        (lambda c: 2 * c["share"] >= c["batch"] >= c["share"] / 20, ts.Integer(1, 100)),
    ],
)
def test_rules_hold_on_every_rung(rule, domain):
    space = ts.Space({"batch": domain, "share": ts.Fidelity(8, 64)}, [rule])
    generator = rng()
    for _ in range(30):
        config = space.sample(generator)
        moved = space.perturb(config, generator, resample=0.5)
        assert all(rule(space.at(one, i / 6)) for one in (config, moved) for i in range(7))
    study = ts.Study(space, ts.Goal("y"), scheduler=ts.schedulers.ASHA(max_steps=9), trials=20)
    while (job := study.ask()) is not None:
        assert rule(job.config)
        study.tell(job, {"y": -job.config["batch"]})


def test_a_rule_on_a_fidelity_names_the_rung():
    space = ts.Space({"batch": ts.Integer(1, 100), "size": ts.Fidelity(8, 64)}, [ts.less_than("batch", "size")])
    with pytest.raises(ValueError, match=r"less_than\('batch', 'size'\) is broken by 'batch'=20, 'size'=8"):
        space.check({"batch": 20, "size": 64})
    space.check({"batch": 7})


def test_a_forbidden_value_of_a_fidelity_forbids_the_rest():
    space = ts.Space(
        {"net": ts.Categorical(["small", "big"]), "size": ts.Fidelity(8, 64)}, [ts.forbid({"net": "big", "size": 16})]
    )
    assert [config["net"] for config in space.configs()] == ["small"]


def test_two_fidelities_in_one_rule_are_looked_at_between():
    """They cross between their ends: 10 ** p and 1 + 9 p meet at both, and lie apart between."""
    fidelities = {"a": ts.Fidelity(1.0, 10.0), "b": ts.Fidelity(1.0, 10.0, log=False)}
    space = ts.Space({"x": ts.Float(0, 5), **fidelities}, [ts.sum_at_most({"b": 1, "a": -1, "x": 1}, 3)])
    worst = max(1 + 9 * p - 10**p for p in (i / 8 for i in range(9)))
    found = [space.sample(generator)["x"] for generator in [rng()] for _ in range(300)]
    assert max(found) <= 3 - worst + 1e-9 < 3


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_with_odd_characters_are_kept_or_refused():
    names = ["a b", "é", "日本", "tab\t", 'quote"', "dot.ted", "\x1b[31m", "a" * 500]
    space = ts.Space({name: ts.Float(0, 1) for name in names}, [ts.sum_to(names, 1)])
    assert ts.Space.from_json(space.to_json()) == space
    config = space.sample(rng())
    assert space.contains(config) and list(config) == names
    for make in (
        lambda: ts.Space({"a\udc80": 1}),
        lambda: ts.Space({"a": "\udc80"}),
        lambda: ts.Categorical(["a", "\ud800"]),
        lambda: ts.Prior("\udc80"),
        lambda: ts.forbid({"a": "\udc80"}),
        lambda: ts.require(len, "\udc80"),
    ):
        with pytest.raises(ValueError, match=r"\\ud.*has half a character \(a lone surrogate\)") as found:
            make()
        one_line(found)
        str(found.value).encode()


def test_every_pair_of_rules_is_apart():
    rules = [ts.less_than("a", "b"), ts.forbid({"a": 1}), ts.sum_to(["a", "b"], 1), ts.sum_at_most(["a", "b"], 1)]
    for one, two in itertools.combinations(rules, 2):
        assert one != two
