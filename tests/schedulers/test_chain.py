"""Hyperband whose survivors continue under PBT."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith import Float, Goal, Space, Study, replay, samplers
from tunesmith.schedulers import ASHA, PBT, Chain, Hyperband, Scheduler, SuccessiveHalving, TTest
from tunesmith.testing import SchedulerConformance, play

SPACE = Space({"x": Float(0.0, 1.0)})
LOSS = Goal("loss")


class TestChain(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return Chain(Hyperband(9, rounds=1), PBT(population=4, ready=3, steps=18))


class TestChainOfASHA(SchedulerConformance):
    trials = 30

    def make(self) -> Scheduler[Any]:
        return Chain(ASHA(9), PBT(population=4, ready=4, steps=20, synchronous=True))


def run(study: Study) -> list[Any]:
    jobs = []
    while (job := study.ask()) is not None:
        jobs.append(job)
        study.tell(job, {"loss": job.config["x"] + 1 / job.until})
    return jobs


def test_the_best_survivors_are_the_population() -> None:
    study = Study(SPACE, LOSS, samplers.QMC(), Chain(Hyperband(9, rounds=1), PBT(population=3, ready=2, steps=15)))
    jobs = run(study)
    halving = [job for job in jobs if job.until <= 9]
    later = jobs[len(halving) :]
    full = sorted((job.config["x"], job.trial) for job in halving if job.until == 9)
    assert len(full) == 5 and all(job.start >= 9 for job in later)
    first = [job for job in later if job.start == 9]
    assert {job.parent if job.parent is not None else job.trial for job in first} <= {trial for _, trial in full[:3]}
    assert sum(job.until - job.start for job in later) == 3 * 6 and max(job.until for job in later) == 15
    assert any(job.parent is not None for job in later) and replay(study) == []


def test_a_limit_of_trials_ends_the_first_one() -> None:
    study = Study(
        SPACE,
        LOSS,
        sampler=samplers.Uniform(),
        scheduler=Chain(ASHA(9), PBT(population=8, ready=3, steps=12)),
        trials=60,
    )
    jobs = run(study)
    survivors = [job for job in jobs if job.until == 9]
    assert len(survivors) > 8
    assert sum(job.until - job.start for job in jobs if job.start >= 9) == 3 * 8
    assert replay(study) == []


def test_one_survivor_is_no_population() -> None:
    study = Study(
        SPACE,
        LOSS,
        sampler=samplers.Uniform(),
        scheduler=Chain(SuccessiveHalving(9, rounds=1), PBT(population=4, ready=3, steps=12)),
    )
    run(study)
    assert max(trial.step for trial in study.trials) == 9


@pytest.mark.parametrize("seed", range(3))
def test_replay_with_faults(seed: int) -> None:
    scheduler = Chain(Hyperband(9, rounds=2), PBT(population=6, ready=3, steps=18))
    study = Study(SPACE, Goal("score", maximise=True), sampler=samplers.Uniform(), scheduler=scheduler, seed=seed)
    play(study, np.random.default_rng(seed), workers=5, faults=0.2, jobs=400)
    assert max(trial.step for trial in study.trials) == 18 and replay(study) == []


def test_bad_options() -> None:
    with pytest.raises(ValueError, match=r"then.steps=9 must be over first.max_steps=9"):
        Chain(Hyperband(9), PBT(population=4, ready=3, steps=9))
    t_test = PBT(population=4, ready=3, steps=12, exploit=TTest())
    with pytest.raises(ValueError, match="TTest compares values of one goal"):
        Study(SPACE, [LOSS, Goal("b")], sampler=samplers.Uniform(), scheduler=Chain(Hyperband(9), t_test))
