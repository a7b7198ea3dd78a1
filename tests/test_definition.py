"""What defines a study: in which words it is said that two definitions differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import tunesmith as ts
from tunesmith.definition import difference_of_spaces

UNIT = ts.Float(0.0, 1.0)
GOAL = ts.Goal("loss")


def under(limit: float) -> Callable[[Mapping[str, Any]], bool]:
    return lambda config: config["a"] < limit


def rule(config: Mapping[str, Any]) -> bool:
    return True


def space(names: str = "ab", constraints: Sequence[Any] = (), **more: Any) -> ts.Space:
    return ts.Space(dict.fromkeys(names, UNIT) | more, constraints)


def branch(*arguments: Any) -> ts.Space:
    return space("x", o=ts.Categorical({"s": space(*arguments), "t": None}))


DIFFERENCES = {
    "nothing": (space(), space(), "^$"),
    "the order": (space("ab", [rule]), space("ba", [rule]), "the order of the parameters is a, b, given is b, a"),
    "a new parameter": (space("a"), space("ab"), r"parameter 'b' is not in the study, given is Float\("),
    "a parameter that is gone": (space("ab"), space("a"), r"parameter 'b' is Float\(.*\), given is none"),
    "a domain": (space("a"), space("", a=ts.Integer(0, 1)), r"parameter 'a' is Float\(.*\), given is Integer\("),
    "equal options": (
        space("", a=ts.Categorical([True, False])),
        space("", a=ts.Categorical([1, 0])),
        r"parameter 'a' is Categorical\(\[True, False\]\), given is Categorical\(\[1, 0\]\)",
    ),
    "the code of a function": (
        space("ab", [rule, under(0.3)]),
        space("ab", [rule, under(0.6)]),
        r"^the constraint 'under.<locals>.<lambda>' is a function with other code, or with other values .*require",
    ),
    "a function": (space("ab", [under(0.3)]), space("ab", [rule]), r"constraint is under.*lambda>, given is rule$"),
    "a new function": (space("ab"), space("ab", [rule]), "a constraint is not in the study, given is rule$"),
    "a function that is gone": (space("ab", [rule]), space("ab"), "a constraint is rule, given is none$"),
    "a rule": (
        space("ab", [ts.less_than("a", "b")]),
        space("ab", [ts.less_than("b", "a")]),
        r"a constraint is less_than\('a', 'b'\), given is less_than\('b', 'a'\)",
    ),
    "the order in a branch": (branch("ab"), branch("ba"), "^in the branch o='s' the order of the parameters is a, b"),
    "a function in a branch": (
        branch("ab", [under(0.3)]),
        branch("ab", [under(0.6)]),
        "^in the branch o='s' the constraint 'under.*' is a function with other code",
    ),
}


@pytest.mark.parametrize(("stored", "given", "words"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_what_differs_between_spaces_is_named(stored: ts.Space, given: ts.Space, words: str, tmp_path: Path) -> None:
    found = difference_of_spaces(stored, given)
    assert re.search(words, found), found
    assert "\n" not in found and "0x" not in found
    ts.Study(stored, GOAL, store=tmp_path / "a.db").close()
    if not found:
        ts.Study(given, GOAL, store=tmp_path / "a.db").close()
        return
    with pytest.raises(ts.TunesmithError, match=re.escape(found.lstrip("^"))):
        ts.Study(given, GOAL, store=tmp_path / "a.db")
