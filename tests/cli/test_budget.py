"""Budgets on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Misuse = Callable[..., str]


def test_a_budget_of_time_ends_the_search_and_a_larger_one_goes_on(call: Any, code: str) -> None:
    done = call("run", f"{code}:train", "--budget", "0.05s", "--sampler", "Uniform", "--json")
    first = json.loads(done.out)
    assert first["outcome"] == "done" and first["trials"] >= 1
    assert first["spent"].endswith(" of 0.05 s") and "the budget is used up" in first["message"]
    assert " spent " in done.err
    more = first["trials"] + 3
    words = ("--budget", "1h", "--trials", more, "-q", "--json")
    second = json.loads(call("resume", "study.db", f"{code}:train", *words).out)
    assert second["trials"] == more and second["spent"].endswith(" of 60 min")
    assert call("replay", "study.db").out.endswith("0 differences\n")


def test_a_budget_of_money(call: Any, code: str) -> None:
    done = call("run", f"{code}:train", "--budget", "$0.01", "--price", "720", "--sampler", "Uniform", "-q")
    assert done.code == 0 and "of $0.01" in done.out


def test_status_shows_no_budget_where_none_is_known(call: Any, code: str) -> None:
    call("run", f"{code}:train", "--budget", "0.02s", "--sampler", "Uniform", "-q")
    found = json.loads(call("status", "study.db", "--json").out)
    assert found["spent"] is None and found["seconds"] > 0
    assert "spent" not in call("status", "study.db").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "2"), "--budget: '2' is no budget: write 90s, 30m, 2h, 1.5d or '$20'"),
        (("--budget", "$20"), "needs a price"),
        (("--budget", "2h", "--price", "3"), "a price is for a budget in money"),
        (("--budget", "0s"), "seconds=0.0 must be a number over 0"),
        (("--trials", "2", "--price", "3"), "--price is for a budget in dollars"),
        ((), "give --trials, --seconds, --budget, --patience, or a --scheduler"),
    ],
)
def test_misuse(misuse: Misuse, code: str, words: tuple[str, ...], message: str) -> None:
    assert message in misuse("run", f"{code}:train", *words)
