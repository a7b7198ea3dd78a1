"""Sub-populations that decide at different frequencies, and migration between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tunesmith import Float, Goal, Space, Study, replay, samplers
from tunesmith.schedulers import MFPBT
from tunesmith.study import Job
from tunesmith.testing import GOAL, mixed, play
from tunesmith.trials import Trial

SPACE = Space({"h": Float(0.01, 100.0, log=True)})


def run(scheduler: MFPBT, value: Callable[[Job], float] = lambda job: job.config["h"], workers: int = 8) -> Study:
    """All members side by side, the first asked first told."""
    study = Study(SPACE, Goal("value", maximise=True), samplers.QMC(), scheduler)
    while jobs := study.ask(workers):
        for job in jobs:
            study.tell(job, {"value": value(job)})
    return study


def slot(study: Study, trial: Trial) -> int:
    """The place in the population that a trial fills."""
    while trial.replaces is not None:
        trial = study.trials[trial.replaces]
    return trial.id


def forks(study: Study) -> list[Trial]:
    return [trial for trial in study.trials if trial.parent is not None]


def donor(study: Study, fork: Trial) -> Trial:
    assert fork.parent is not None
    return study.trials[fork.parent]


def test_a_slow_sub_population_decides_seldom() -> None:
    study = run(MFPBT(population=8, ready=5, steps=100, frequencies=(1, 5)))
    starts: dict[int, set[int]] = {0: set(), 1: set()}
    for fork in forks(study):
        starts[slot(study, fork) // 4].add(fork.start)
    assert starts[1] == {25, 50, 75} and len(starts[0]) > 12


def test_groups_are_as_equal_as_can_be() -> None:
    scheduler = MFPBT(population=11, ready=1, steps=9, frequencies=(1, 2, 4))
    assert [scheduler.group(i) for i in range(11)] == [0] * 4 + [1] * 4 + [2] * 3


def test_migration_is_asymmetric() -> None:
    """From the slow with their hyperparameters, to the slow without; migrants do not explore, copies do."""
    rng = np.random.default_rng(0)
    study = run(MFPBT(population=16, ready=2, steps=60, frequencies=(1, 2)), lambda job: rng.random(), 16)
    seen, unlike = set(), 0
    for fork in forks(study):
        source = donor(study, fork)
        group, other = slot(study, fork) // 8, slot(study, source) // 8
        if group == other:
            assert fork.config != source.config
        elif other > group:
            assert fork.config == source.config
        else:
            alive = [trial.config for trial in study.trials if slot(study, trial) // 8 == group]
            assert fork.config in alive
            unlike += fork.config != source.config
        seen.add((group, other))
    assert seen == {(0, 0), (1, 1), (0, 1), (1, 0)} and unlike > 5


def test_only_a_better_one_migrates() -> None:
    """The best of the others come to the third quarter, the best of it first."""
    study = run(MFPBT(population=8, ready=1, steps=2, frequencies=(1, 1)), lambda job: float(job.trial), 8)
    places = {slot(study, fork): donor(study, fork).id for fork in forks(study)}
    # the places 0 to 3 are ranked 3 2 1 0, and 4 to 7 are 7 6 5 4: 0 and 4 are the worst, 1 and 5 the third
    assert places == {0: 3, 4: 7, 1: 7}


def test_a_failed_member_is_replaced_by_its_own() -> None:
    rng = np.random.default_rng(3)
    scheduler = MFPBT(population=8, ready=2, steps=20, frequencies=(1, 2))
    study = run(scheduler, lambda job: math.nan if job.start and rng.random() < 0.2 else job.config["h"])
    late = [fork for fork in forks(study) if study.trials[fork.replaces or 0].status == "failed"]
    assert late and all(slot(study, fork) // 4 == slot(study, donor(study, fork)) // 4 for fork in late)
    assert sum(trial.step == 20 and trial.status == "complete" for trial in study.trials) >= 8
    assert replay(study) == []


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_population_trains_its_steps(synchronous: bool, workers: int) -> None:
    study = run(MFPBT(population=8, ready=5, steps=43, synchronous=synchronous), workers=workers)
    assert sum(trial.step - trial.start for trial in study.trials) == 8 * 43
    assert replay(study) == []


def test_a_synchronous_study_is_the_same_with_any_workers() -> None:
    scheduler = MFPBT(population=9, ready=3, steps=30, frequencies=(1, 2, 3), synchronous=True)
    logs = [[trial.config for trial in run(scheduler, workers=workers).trials] for workers in (1, 4, 9)]
    assert logs[0] == logs[1] == logs[2]


@pytest.mark.parametrize("seed", range(3))
def test_replay_with_faults_and_several_goals(seed: int) -> None:
    scheduler = MFPBT(population=8, ready=2, steps=16)
    study = Study(mixed(), GOAL, samplers.QMC(), scheduler, seed=seed)
    play(study, np.random.default_rng(seed), workers=5, faults=0.3, jobs=300)
    assert replay(study) == []
    study = Study(SPACE, [Goal("a"), Goal("b")], sampler=samplers.Uniform(), scheduler=scheduler, seed=seed)
    while jobs := study.ask(8):
        for job in jobs:
            study.tell(job, {"a": job.config["h"], "b": 1 / job.config["h"]})
    assert forks(study) and replay(study) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 3}, "population=3 must be at least 4: two for each"),
        ({"frequencies": ()}, r"frequencies=\(\) must be numbers of at least 1"),
        ({"frequencies": (0, 2)}, r"frequencies=\(0, 2\) must be"),
        ({"ready": 0}, "MFPBT: ready=0 must be at least 1"),
    ],
)
def test_wrong_use(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MFPBT(**{"population": 8, "ready": 1, "steps": 9, **options})
