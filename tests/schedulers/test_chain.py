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


@pytest.mark.parametrize("first", [ASHA(9), SuccessiveHalving(9, rounds=1)])
@pytest.mark.parametrize("trials", [1, 3, 5, 30])
@pytest.mark.parametrize("bad", ["", "fails", "ends"])
def test_an_only_survivor_goes_on_by_itself(first: Any, trials: int, bad: str) -> None:
    scheduler = Chain(first, PBT(population=4, ready=9, steps=27))
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=scheduler, trials=trials)
    jobs = []
    while (job := study.ask()) is not None:
        jobs.append(job)
        if bad == "fails" and job.start == 9:
            study.fail(job, "it was too long")
            continue
        ends = bad == "ends" and job.start == 9
        told = range(job.start + 1, job.until + 1 - 5 * ends)
        study.tell(job, {"loss": [job.config["x"] + 1 / step for step in told]}, ended=ends)
    survivors = [job for job in jobs if job.until == 9]
    later = [job for job in jobs if job.until > 9]
    if len(survivors) > 1:
        assert first == ASHA(9) and len(later) > 1
        return
    assert [(job.trial, job.start, job.until) for job in later] == [(survivors[0].trial, 9, 27)]
    trial = study.trials[survivors[0].trial]
    assert (trial.status, trial.step) == {"": ("complete", 27), "fails": ("failed", 9), "ends": ("complete", 22)}[bad]
    assert replay(study) == []
