"""An exception at any line of an ask, such as Ctrl-C, changes no later answer."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from tunesmith import Study, samplers
from tunesmith.records import AnyEvent
from tunesmith.samplers import base
from tunesmith.schedulers import ASHA
from tunesmith.testing import GOAL, finite, mixed, nested, play

FOLDER = str(Path(base.__file__).parent)
OTHERS = ("gp.py", "tpe.py", "auto.py")  #: tested on their own
SAMPLERS = [
    samplers.Uniform(),
    samplers.Grid(),
    samplers.QMC(),
    samplers.QMC("halton"),
    samplers.RegularizedEvolution(population=5, sample=3),
    samplers.NSGA2(population=5),
    samplers.DEHB(population=4),
    samplers.PriorBand(),
    samplers.BOHB(),
    samplers.CMAES(population=4),
]


class Interrupts:
    """A trace function that raises KeyboardInterrupt at one line of the samplers' own code, when it comes by first.

    Args:
        line: file and number; None: never. ``passed`` has the lines that came by.
    """

    def __init__(self, line: tuple[str, int] | None = None) -> None:
        self.line, self.passed = line, set[tuple[str, int]]()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(FOLDER) or name.endswith(OTHERS):
            return None
        if event == "line":
            here = name, frame.f_lineno
            self.passed.add(here)
            if here == self.line:
                self.line = None
                raise KeyboardInterrupt
        return self

    def ask(self, sampler: Any, state: Any, seed: int) -> Any:
        """An ask, which may be interrupted."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            return sampler.ask(state, np.random.default_rng(seed), 3)
        finally:
            sys.settrace(before)


def folded(sampler: Any, space: Any, events: Sequence[AnyEvent]) -> Any:
    state = sampler.init(space, [GOAL], np.random.default_rng(0))
    for event in events:
        state = sampler.tell(state, event)
    return state


def answers(sampler: Any, state: Any, later: Sequence[AnyEvent]) -> list[Any]:
    """What a state answers now and after some more events."""
    found = []
    for event in (None, *later):
        state = state if event is None else sampler.tell(state, event)
        found += [sampler.ask(state, np.random.default_rng(seed), 3) for seed in range(2)]
    return found


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("make_space", [mixed, nested, finite])
@pytest.mark.parametrize("told", [0, 25])
def test_interrupted_at_every_line(sampler: Any, make_space: Any, told: int) -> None:
    space = make_space()
    if isinstance(sampler, samplers.Grid) and make_space is nested:
        sampler = samplers.Grid(levels=2)
    study = Study(space, [GOAL], sampler, ASHA(9), seed=1, trials=12)
    play(study, np.random.default_rng(1), workers=5, faults=0.1)
    events = study.events()[1:]
    early, later = events[:told], events[told : told + 4]
    expected = answers(sampler, folded(sampler, space, early), later)
    state = folded(sampler, space, early)
    lines = set()
    for seed in range(4):
        watching = Interrupts()
        watching.ask(sampler, copy.deepcopy(state), seed)
        lines |= {(line, seed) for line in watching.passed if line not in {known for known, _ in lines}}
    assert len(lines) >= 3
    for line, seed in sorted(lines):
        fresh = copy.deepcopy(state)
        with pytest.raises(KeyboardInterrupt):
            Interrupts(line).ask(sampler, fresh, seed)
        np.testing.assert_array_equal(answers(sampler, fresh, later), expected, err_msg=f"{line}")
