"""``tunesmith optimizers``: the rules, and what contains what."""

from __future__ import annotations

import json
from typing import Any

from tunesmith.optimizers import RULES
from tunesmith.optimizers.taxonomy import INCLUSIONS


def test_the_rules_and_the_graph(call: Any) -> None:
    said = call("optimizers")
    assert said.code == 0 and said.err == ""
    for name, rule in RULES.items():
        assert f"\n{name:9} lr" in "\n" + said.out
        assert all(line in said.out for line in rule.formula)
        assert len(rule.formula) >= 1
    assert "sgd -+- momentum -+- rmsprop\n" in said.out
    assert "     |            `- adam --- adamw\n" in said.out
    assert "     `- nesterov --- nadam --- nadamw\n" in said.out


def test_as_json(call: Any) -> None:
    found = json.loads(call("optimizers", "--json").out)
    assert [one["name"] for one in found["optimizers"]] == list(RULES)
    assert found["optimizers"][1]["hyperparameters"] == {"lr": None, "momentum": 0.9}
    assert [(one["special"], one["general"]) for one in found["inclusions"]] == [
        (one.special, one.general) for one in INCLUSIONS
    ]
