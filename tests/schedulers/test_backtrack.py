"""Members that break go back to an earlier rung."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tunesmith import Float, Goal, Space, Study, replay, samplers
from tunesmith.schedulers import PBT, Backtrack
from tunesmith.study import Job
from tunesmith.testing import GOAL, mixed, play
from tunesmith.trials import Checkpoint, Trial

SPACE = Space({"h": Float(0.01, 100.0, log=True)})


def population(**options: Any) -> PBT:
    return PBT(**{"population": 5, "ready": 2, "steps": 20, "backtrack": Backtrack(), **options})


def run(scheduler: PBT, value: Callable[[Job], float], workers: int = 5) -> Study:
    """All members side by side; every job that is no fresh start begins at a checkpoint that was kept."""
    study = Study(SPACE, Goal("loss"), samplers.QMC(), scheduler)
    saved: set[tuple[int, int]] = set()
    while True:
        saved &= study.keep()
        jobs = study.ask(workers)
        if not jobs:
            return study
        for job in jobs:
            assert job.start == 0 or (job.trial, job.start) in saved or (job.parent, job.start) in saved
        for job in jobs:
            study.tell(job, {"loss": value(job)}, checkpoint=Checkpoint(job.trial, job.until, "w", "d"))
            saved.add((job.trial, job.until))


def returned(study: Study) -> list[Trial]:
    """The forks that go back."""
    return [t for t in study.trials if t.replaces is not None and t.start < study.trials[t.replaces].step]


def loss(job: Job) -> float:
    """It falls as the training goes on."""
    return 1 / job.until + job.trial / 1e6


def test_nothing_happens_where_nothing_breaks() -> None:
    logs = [[t.config for t in run(population(backtrack=b), loss).trials] for b in (None, Backtrack())]
    assert logs[0] == logs[1]


def test_where_some_collapse_they_copy_the_best_at_once() -> None:
    """More than the share that truncation replaces, and without a step more."""
    broken = {(0, 6), (2, 6), (3, 6)}
    study = run(population(), lambda job: 9.0 if (job.trial, job.until) in broken else loss(job))
    forks = {t.replaces: t.parent for t in study.trials if t.start == 6}
    assert {0, 2, 3} <= set(forks) and {forks[0], forks[2], forks[3]} <= {1, 4}
    assert not returned(study) and sum(t.step - t.start for t in study.trials) == 5 * 20
    assert replay(study) == []


def test_where_all_collapse_they_go_back() -> None:
    """To the rung before, as a copy of one of its best; once, since it does not happen again."""
    study = run(population(), lambda job: 9.0 if job.until == 8 and job.trial < 8 else loss(job))
    back = returned(study)
    assert len(back) == 5 and {t.start for t in back} == {6}
    for fork in back:
        assert fork.parent is not None and 6 in {report.step for report in study.trials[fork.parent].reports}
    assert sum(t.step - t.start for t in study.trials) == 5 * 20 + 5 * 2
    best = study.best
    assert best is not None and best.step == 20 and replay(study) == []


def test_a_place_goes_back_so_often_at_most() -> None:
    study = run(population(backtrack=Backtrack(times=2)), lambda job: 9.0 if job.until >= 8 else loss(job))
    assert len(returned(study)) <= 5 * 2
    assert max(t.step for t in study.trials) == 20 and not study.running


def test_looking_further_back() -> None:
    """What counts is how all stood so many decisions ago; the newest rung that is better than that is gone back to."""
    values = {2: 1.0, 4: 0.5, 6: 0.9, 8: 1.3}
    study = run(population(backtrack=Backtrack(rungs=3)), lambda job: values.get(job.until, 0.1) + job.trial / 1e6)
    assert {t.start for t in returned(study)} == {6}
    shallow = run(population(), lambda job: values.get(job.until, 0.1) + job.trial / 1e6)
    assert {t.start for t in returned(shallow)} == {4}


def test_a_place_that_fails_again_and_again_begins_further_back() -> None:
    """From the rung at 6 everything fails: the first replacement tries it again, the second goes back."""
    fails = {"left": 2}

    def value(job: Job) -> float:
        if job.start == 6 and (job.trial == 0 or study_of[job.trial] == 0) and fails["left"]:
            fails["left"] -= 1
            return math.nan
        return loss(job)

    study_of: dict[int, int] = {}
    study = Study(SPACE, Goal("loss"), samplers.QMC(), population())
    while jobs := study.ask(5):
        for job in jobs:
            replaced = study.trials[job.trial].replaces
            study_of.setdefault(job.trial, job.trial if replaced is None else study_of[replaced])
        for job in jobs:
            study.tell(job, {"loss": value(job)})
    place = [t for t in study.trials if study_of[t.id] == 0]
    failed = [t for t in place if t.status == "failed"]
    after = [next(t for t in place if t.replaces == f.id) for f in failed]
    assert [t.start for t in after] == [6, 4]
    assert replay(study) == []


def test_a_synchronous_study_is_the_same_with_any_workers() -> None:
    scheduler = population(synchronous=True)
    logs = []
    for workers in (1, 3, 5):
        study = run(scheduler, lambda job: 9.0 if job.until == 8 and job.trial < 12 else loss(job), workers)
        assert returned(study) and replay(study) == []
        logs.append([(t.config, t.start) for t in study.trials])
    assert logs[0] == logs[1] == logs[2]


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_replay_with_faults(synchronous: bool, seed: int) -> None:
    scheduler = population(population=6, backtrack=Backtrack(rungs=2), synchronous=synchronous)
    study = Study(mixed(), GOAL, samplers.QMC(), scheduler, seed=seed)
    play(study, np.random.default_rng(seed), workers=4, faults=0.4, jobs=400)
    assert replay(study) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Backtrack(rungs=0), "rungs=0 must be at least 1"),
        (lambda: Backtrack(times=0), "times=0 must be at least 1"),
    ],
)
def test_wrong_use(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
