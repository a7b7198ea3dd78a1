"""Hard constraints that leave very little: a study goes on from the configurations that are known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tunesmith import Float, Goal, Integer, Space, Study, less_than, replay, samplers

NAMES = [f"n{i}" for i in range(7)]
SAMPLERS = [
    samplers.Uniform(),
    samplers.QMC(),
    samplers.QMC("halton"),
    samplers.RegularizedEvolution(population=5, sample=3),
    samplers.NSGA2(population=5),
    samplers.DEHB(population=4),
    samplers.CMAES(),
    samplers.PriorBand(),
    samplers.BOHB(),
]


def ordered() -> Space:
    """Seven integers in ascending order: one in 5,000 configurations."""
    rules = [less_than(a, b) for a, b in pairwise(NAMES)]
    return Space({name: Integer(1, 50) for name in NAMES}, constraints=rules)


def line() -> Space:
    """Three numbers that are nearly equal: one in 5,000 points, by a function of which nothing is known."""
    return Space(
        {name: Float(0.0, 1.0) for name in "abc"},
        constraints=[lambda c: abs(c["a"] - c["b"]) + abs(c["b"] - c["c"]) < 0.01],
    )


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize(
    ("make_space", "known"),
    [(ordered, {name: 4 + 7 * i for i, name in enumerate(NAMES)}), (line, dict.fromkeys("abc", 0.5))],
)
def test_it_goes_on_from_a_known_configuration(sampler: Any, make_space: Any, known: Any) -> None:
    space = make_space()
    study = Study(space, Goal("loss"), sampler, trials=25)
    study.enqueue(known)
    while job := study.ask():
        space.check(job.config)
        study.tell(job, {"loss": sum(map(float, job.config.values()))})
    assert len(study.trials) == len({space.key(trial.config) for trial in study.trials}) == 25
    assert replay(study) == []
