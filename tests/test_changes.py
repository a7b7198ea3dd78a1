"""From every scheduler to every other, and from every sampler to every other, in the middle of a study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tunesmith import Study, replay, samplers
from tunesmith.schedulers import (
    ASHA,
    FIRE,
    MFPBT,
    PB2,
    PBT,
    Backtrack,
    Chain,
    FreezeThaw,
    Full,
    Hyperband,
    Median,
    Plateau,
    PredictiveTermination,
    Race,
    SuccessiveHalving,
    TTest,
)
from tunesmith.testing import GOAL, mixed, play

SMALL: dict[str, Any] = {"population": 5, "ready": 2, "steps": 8}
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "Full": lambda: Full(6),
    "seeds": lambda: Full(4, seeds=2),
    "Race": lambda: Race(4, seeds=3),
    "Median": lambda: Median(6, every=2, min_trials=2),
    "Plateau": lambda: Plateau(6, every=2, patience=1),
    "PredictiveTermination": lambda: PredictiveTermination(6, every=2),
    "FreezeThaw": lambda: FreezeThaw(6, every=2),
    "ASHA": lambda: ASHA(9),
    "ASHA that stops": lambda: ASHA(9, stopping=True, brackets=2),
    "SuccessiveHalving": lambda: SuccessiveHalving(9),
    "Hyperband": lambda: Hyperband(9),
    "Chain": lambda: Chain(SuccessiveHalving(4, eta=2, rounds=1), PBT(population=3, ready=2, steps=8)),
    "PBT": lambda: PBT(**SMALL),
    "synchronous PBT": lambda: PBT(**SMALL, synchronous=True, exploit=TTest(window=4)),
    "Backtrack": lambda: PBT(**SMALL, backtrack=Backtrack(rungs=1)),
    "PB2": lambda: PBT(**SMALL, explore=PB2(window=20)),
    "MFPBT": lambda: MFPBT(**SMALL),
    "FIRE": lambda: FIRE(**SMALL, synchronous=True),
}
SAMPLERS: dict[str, Callable[[], Any]] = {
    "Uniform": samplers.Uniform,
    "Grid": lambda: samplers.Grid(3),
    "QMC": samplers.QMC,
    "Auto": samplers.Auto,
    "TPE": lambda: samplers.TPE(startup=4),
    "GP": lambda: samplers.GP(startup=4),
    "CMAES": lambda: samplers.CMAES(population=4),
    "RegularizedEvolution": lambda: samplers.RegularizedEvolution(population=4, sample=2),
    "NSGA2": lambda: samplers.NSGA2(population=4),
    "BOHB": samplers.BOHB,
    "DEHB": lambda: samplers.DEHB(population=4),
    "PriorBand": samplers.PriorBand,
}


@pytest.mark.parametrize("first", SCHEDULERS)
def test_from_a_scheduler_to_every_other_and_back(first: str) -> None:
    for number, (name, second) in enumerate(SCHEDULERS.items()):
        study = Study(mixed(), GOAL, samplers.QMC(), SCHEDULERS[first](), seed=number, trials=14)
        rng = np.random.default_rng(number)
        out = [study.ask(), study.ask()]  # two jobs are out at the time of the change
        play(study, rng, workers=3, faults=0.15, jobs=8 + number)
        study.change(scheduler=second())
        for job in out:
            assert job is not None
            study.tell(job, {"score": 0.5})
        play(study, rng, workers=3, faults=0.15, jobs=12)
        study.change(scheduler=SCHEDULERS[first]())
        play(study, rng, workers=3, faults=0.15)
        assert not study.running and study.ask() is None, name
        assert replay(study) == [], name


@pytest.mark.parametrize("first", SAMPLERS)
def test_from_a_sampler_to_every_other(first: str) -> None:
    for number, (name, second) in enumerate(SAMPLERS.items()):
        study = Study(mixed(), GOAL, SAMPLERS[first](), ASHA(9), seed=number, trials=22)
        rng = np.random.default_rng(number)
        play(study, rng, workers=3, faults=0.15, jobs=12)
        study.change(sampler=second())
        play(study, rng, workers=3, faults=0.15)
        assert len(study.trials) == 22, name
        assert all(study.space.contains(trial.config) for trial in study.trials)
        assert replay(study) == [], name


@pytest.mark.parametrize("first", ["Median", "ASHA", "Full"])
def test_a_population_after_another_scheduler_begins_with_the_oldest_trials(first: str) -> None:
    study = Study(mixed(), GOAL, samplers.QMC(), SCHEDULERS[first](), trials=9)
    play(study, np.random.default_rng(0), workers=1, faults=0.0)
    study.change(scheduler=PBT(population=4, ready=2, steps=12))
    ids = set[int]()
    while job := study.ask():
        ids.add(job.trial)
        study.tell(job, {"score": [0.5] * (job.until - job.start)})
    assert {number for number in ids if number < 9} <= {0, 1, 2, 3} and ids and replay(study) == []
