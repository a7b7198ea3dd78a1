"""Hyperparameters of samplers, schedulers and their parts: a value that is none is one line that names it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from tunesmith import Goal, Space, replay, samplers, schedulers
from tunesmith.definition import StudyError
from tunesmith.records import Opened, Spec
from tunesmith.space import Float
from tunesmith.storage import MemoryStore
from tunesmith.study import Study

NEEDED: dict[str, dict[str, Any]] = {
    "PBT": {"population": 4, "ready": 1, "steps": 4},
    "MFPBT": {"population": 4, "ready": 1, "steps": 4},
    "FIRE": {"population": 5, "ready": 1, "steps": 4},
    "Chain": {
        "first": schedulers.ASHA(max_steps=3),
        "then": schedulers.PBT(population=3, ready=1, steps=6),
    },
}
LADDERS = ("ASHA", "Hyperband", "SuccessiveHalving", "Median", "Plateau", "FreezeThaw", "PredictiveTermination")
NEEDED |= {name: {"max_steps": 9} for name in LADDERS}
PARTS = {
    name: part
    for module in (samplers, schedulers)
    for name in module.__all__
    if isinstance(part := getattr(module, name), type) and issubclass(part, msgspec.Struct)
}
VALUES: list[Any] = ["x", None, 2.5, True, math.nan, math.inf, -1, 0, 10**30, [], {}, ["a"], object()]


def test_all_are_here() -> None:
    assert len(PARTS) > 30 and set(NEEDED) <= set(PARTS)
    for name, part in PARTS.items():
        part(**NEEDED.get(name, {}))


@pytest.mark.parametrize("name", PARTS)
def test_a_value_is_taken_or_refused_in_one_line(name: str) -> None:
    part = PARTS[name]
    kinds = {field.name: field.type for field in msgspec.structs.fields(part)}
    for option, kind in kinds.items():
        for value in VALUES:
            try:
                part(**NEEDED.get(name, {}) | {option: value})
            except (TypeError, ValueError) as error:
                text = str(error)
                assert option in text and "must" in text and "\n" not in text and len(text) < 300, (option, value)
            else:
                msgspec.convert(value, kind)  # it has the type that the signature says


@pytest.mark.parametrize(
    "spec",
    [
        Spec("CMAES", {"population": 10**9}),
        Spec("TPE", {"candidates": 10**9}),
        Spec("GP", {"fantasies": 10**9}),
        Spec("TPE", {"startup": "3"}),
    ],
    ids=str,
)
def test_a_stranger_can_not_hold_up_a_reader(spec: Spec) -> None:
    store = MemoryStore()
    full = Spec("Full", {"steps": 1, "seeds": 1})
    store.append([Opened(Space({"x": Float(0.0, 1.0)}), (Goal("loss"),), spec, full, 0)])
    study = Study.open(store)
    with pytest.raises(StudyError, match=spec.name):
        study.ask()
    study.change(sampler=samplers.Uniform())
    assert study.ask() is not None and replay(study) == []
