"""Constructors as text: what is understood, and that nothing is executed."""

from __future__ import annotations

import pytest

from tunesmith import schedulers
from tunesmith.cli.errors import Misuse
from tunesmith.cli.expressions import construct
from tunesmith.schedulers import PBT, Full, TTest

KNOWN = {"PBT": PBT, "Full": Full}
PARTS = {name: getattr(schedulers, name) for name in schedulers.__all__}


def read(text: str) -> object:
    return construct(text, KNOWN, "scheduler", PARTS)


def test_a_name_or_a_call() -> None:
    assert read("Full") == Full()
    assert read(" Full() ") == read("Full(steps=1)") == read("Full(1)") == Full(1)
    assert read("PBT(population=4, ready=2, steps=8)") == PBT(population=4, ready=2, steps=8)


def test_parts_inside() -> None:
    expected = PBT(population=4, ready=2, steps=8, exploit=TTest(window=5), explore=None)
    assert read("PBT(population=4, ready=2, steps=8, exploit=TTest(window=5), explore=None)") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("Full(", "cannot be read"),
        ("Full(\0)", "cannot be read"),
        ("3", "is not a name with arguments"),
        ("schedulers.Full(1)", "is not a name with arguments"),
        ("[Full(1)]", "is not a name with arguments"),
        ("Ful(1)", "did you mean Full"),
        ("Hyper(1)", "known: Full, PBT"),
        ("TTest()", "there is no scheduler 'TTest'"),
        ("Full(steps=0)", "must be at least 1"),
        ("Full(step=3)", "step"),
        ("Full(steps=open('x', 'w'))", "there is no scheduler 'open'"),
        ("Full(steps=__import__('os').getpid())", "is not a number"),
        ("Full(steps=[x for x in (1,)][0])", "is not a number"),
        ("Full(**{'steps': 3})", "** is not understood"),
        ("Full(*[3])", "is not a number"),
    ],
)
def test_misuse(text: str, message: str) -> None:
    with pytest.raises(Misuse) as error:
        read(text)
    assert message in str(error.value)


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(Misuse):
        read("Full(steps=" + "(" * 5000 + "1" + ")" * 5000 + ")")
