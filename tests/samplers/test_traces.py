"""Whatever happens, and whoever asks in between: what a sampler proposes follows from what it was told."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Categorical, Float, Goal, Integer, Space, less_than, samplers
from tunesmith.records import AnyEvent, Asked, Failed, Told
from tunesmith.testing import finite, mixed, nested, no_hang

LOSS = [Goal("loss")]
SPACES = [
    finite(),
    mixed(),
    nested(),
    Space({"n": Integer(1, 3)}),
    Space({"c": Categorical(["x", "y"]), "x": Float(0.0, 1.0)}),
    Space({"a": Integer(0, 300, step=3), "b": Integer(1, 9, log=True)}, constraints=[less_than("b", "a")]),
    Space({"only": 1}),
]
SAMPLERS = [
    samplers.Uniform(),
    samplers.Grid(levels=3),
    samplers.QMC(),
    samplers.RegularizedEvolution(population=4, sample=2),
    samplers.NSGA2(population=4),
    samplers.DEHB(population=4),
    samplers.PriorBand(),
    samplers.CMAES(population=4),
    samplers.CMAES(restarts="bipop", branches=1),
]
moves = st.tuples(
    st.sampled_from(["ask", "ask", "elsewhere", "result", "result", "fail", "further"]),
    st.integers(0, 11),
    st.integers(0, 3),
)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SPACES), st.booleans(), st.lists(moves, min_size=20, max_size=80), st.integers(0, 3))
def test_a_state_follows_from_what_it_was_told(
    sampler: Any, space: Space, duplicates: bool, sequence: list[tuple[str, int, int]], seed: int
) -> None:
    """Up to a dozen jobs are out; some proposals come from elsewhere; trials go on, fail and have equal values."""
    busy, quiet = (sampler.init(space, LOSS, np.random.default_rng(seed), duplicates=duplicates) for _ in range(2))
    out: dict[int, tuple[Any, int]] = {}  # by trial: its configuration, and where its job starts
    paused: dict[int, tuple[Any, int]] = {}
    trials = 0
    with no_hang():
        for number, (move, which, value) in enumerate(sequence):
            news: AnyEvent
            if move in ("ask", "elsewhere") and len(out) < 12:
                proposed = sampler.ask(busy, np.random.default_rng(number))
                if move == "elsewhere" or proposed is None:
                    config = space.sample(np.random.default_rng([seed, number]))
                else:
                    config = space.decode(proposed)
                space.check(config)
                news = Asked(number, 0, trials, config, 0, 1)
                out[trials] = config, 0
                trials += 1
            elif move == "further" and paused:
                trial = list(paused)[which % len(paused)]
                out[trial] = config, start = paused.pop(trial)
                news = Asked(number, 0, trial, config, start, 2 * start + 1)
            elif move in ("result", "fail") and out:
                trial = list(out)[which % len(out)]
                config, start = out.pop(trial)
                if move == "fail":
                    news = Failed(number, trial, "on purpose")
                else:
                    news = Told(number, trial, start, {"loss": [float(value)] * (start + 1)})
                    paused[trial] = config, 2 * start + 1
            else:
                continue
            busy, quiet = sampler.tell(busy, news), sampler.tell(quiet, news)
            for state in (busy, copy.deepcopy(quiet)):
                sampler.ask(state, np.random.default_rng(which))
        answers = [[sampler.ask(state, np.random.default_rng(i)) for i in range(2)] for state in (busy, quiet)]
    for one, other in zip(*answers, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)
