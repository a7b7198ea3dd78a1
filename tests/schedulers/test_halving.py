"""Successive halving and Hyperband: who survives, against the papers' tables."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Categorical, Constraint, Float, Goal, Integer, Space, Study, replay, samplers
from tunesmith.schedulers import Hyperband, Scheduler, SuccessiveHalving
from tunesmith.testing import SchedulerConformance, play

SPACE = Space({"x": Float(0.0, 1.0)})
LOSS = Goal("loss")


class TestSuccessiveHalving(SchedulerConformance):
    trials = 40

    def make(self) -> Scheduler[Any]:
        return SuccessiveHalving(27)


class TestSuccessiveHalvingInRounds(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return SuccessiveHalving(9, size=7, rounds=2)


class TestHyperband(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return Hyperband(9, rounds=1)


class TestHyperbandEndless(SchedulerConformance):
    trials = 50

    def make(self) -> Scheduler[Any]:
        return Hyperband(16, min_steps=2, eta=2)


def run(study: Study, loss: Any = lambda job: job.config["x"]) -> list[Any]:
    """One job after the other; returns them."""
    jobs = []
    while (job := study.ask()) is not None:
        jobs.append(job)
        study.tell(job, {"loss": loss(job)})
    return jobs


def test_hyperband_has_the_brackets_of_the_paper() -> None:
    """R = 81, eta = 3: the table of Li et al. 2018."""
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Hyperband(81, rounds=1))
    jobs = run(study)
    starts = Counter(job.until for job in jobs if job.start == 0)
    assert starts == {1: 81, 3: 34, 9: 15, 27: 8, 81: 5}
    ends = Counter(trial.step for trial in study.trials)
    # brackets 81-27-9-3-1, 34-11-3-1, 15-5-1, 8-2, 5: who stops where
    assert ends == {1: 54, 3: 18 + 23, 9: 6 + 8 + 10, 27: 2 + 2 + 4 + 6, 81: 1 + 1 + 1 + 2 + 5}
    spent = sum(job.until - job.start for job in jobs)
    assert spent == 81 + 2 * 27 + 6 * 9 + 18 * 3 + 54 + 34 * 3 + 11 * 6 + 3 * 18 + 54 + 15 * 9 + 5 * 18 + 54 + (
        8 * 27 + 2 * 54 + 5 * 81
    )
    assert replay(study) == []


def test_the_best_of_every_rung_go_on() -> None:
    study = Study(SPACE, LOSS, samplers.QMC(), SuccessiveHalving(27, rounds=1))
    run(study)
    by_loss = sorted(study.trials, key=lambda trial: trial.config["x"])
    assert [trial.step for trial in by_loss] == [27] + [9] * 2 + [3] * 6 + [1] * 18
    assert study.best is by_loss[0]


def test_only_resumes_cost_steps() -> None:
    """A promoted trial goes on where it stands: its steps are told once each."""
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Hyperband(9, rounds=2))
    seen: dict[int, int] = {}
    for job in run(study):
        assert job.start == seen.get(job.trial, 0)
        seen[job.trial] = job.until


def test_free_workers_begin_with_the_next_bracket() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=SuccessiveHalving(3, rounds=2))
    jobs = [study.ask() for _ in range(6)]
    assert all(job is not None and job.until == 1 for job in jobs) and study.ask() is None
    for job in jobs[:3]:
        study.tell(job, {"loss": job.config["x"]})
    promoted = study.ask()
    assert promoted.until == 3 and promoted.trial in {job.trial for job in jobs[:3]} and study.ask() is None


@pytest.mark.parametrize(("scheduler", "trials"), [(Hyperband(9, rounds=1), 17), (SuccessiveHalving(9, rounds=2), 18)])
def test_the_end_of_the_rounds_is_said(scheduler: Any, trials: int) -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=scheduler, trials=50)
    job = study.ask()
    assert job is not None and study.message == ""
    study.fail(job)
    run(study)
    rounds = scheduler.rounds
    assert len(study.trials) == trials
    assert study.message == f"all {trials} trials of rounds={rounds} were started, and their brackets are over"


@pytest.mark.parametrize("trials", [1, 2, 5, 20, 26])
def test_a_bracket_that_cannot_fill_promotes_among_those_it_has(trials: int) -> None:
    """`trials` is less than the bracket wants: the search still ends with a trial that is trained in full."""
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=SuccessiveHalving(27), trials=trials)
    run(study)
    assert len(study.trials) == trials and max(trial.step for trial in study.trials) == 27
    assert replay(study) == [] and study.message == f"all {trials} trials were started"


def test_a_finite_space_ends_with_a_full_training() -> None:
    space = Space({"a": Integer(1, 5), "b": Categorical(["x", "y"])})
    study = Study(space, LOSS, sampler=samplers.Uniform(), scheduler=Hyperband(27))
    run(study, lambda job: job.config["a"])
    assert len(study.trials) == 10 and max(trial.step for trial in study.trials) == 27
    assert replay(study) == []


def test_more_trials_later() -> None:
    """Raised limits open the bracket again; what was promoted counts."""
    study = Study(SPACE, LOSS, samplers.QMC(), SuccessiveHalving(9, rounds=1), trials=4)
    run(study)
    study.limit = None
    run(study)
    assert len(study.trials) == 9 and replay(study) == []
    assert sum(trial.step >= 3 for trial in study.trials) >= 3


def test_failed_trials_count_as_the_worst() -> None:
    study = Study(SPACE, LOSS, samplers.QMC(), SuccessiveHalving(9, rounds=1))
    while (job := study.ask()) is not None:
        if job.config["x"] < 0.5 and job.until == 1:
            study.fail(job, "on purpose")
        else:
            study.tell(job, {"loss": job.config["x"]})
    left = sorted((trial for trial in study.trials if trial.status != "failed"), key=lambda t: t.config["x"])
    assert [trial.step for trial in left] == [9, 3, 3, *[1] * (len(left) - 3)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.sampled_from([0.0, 0.1, 0.5]))
def test_results_in_any_order(seed: int, workers: int, faults: float) -> None:
    """Never more trials than the brackets have, never a step beyond the last rung, replay exact."""
    goals = [Goal("score", maximise=True)]
    study = Study(SPACE, goals, sampler=samplers.Uniform(), scheduler=Hyperband(9, rounds=2), seed=seed)
    play(study, np.random.default_rng(seed), workers=workers, faults=faults, jobs=500)
    assert len(study.trials) == 2 * (9 + 5 + 3) and not study.running and replay(study) == []
    told = [trial.step for trial in study.trials if trial.status != "failed"]
    assert all(step in (1, 3, 9) for step in told)
    if not faults:
        assert Counter(told) == {1: 2 * 6, 3: 2 * (2 + 4), 9: 2 * (1 + 1 + 3)}


def test_constraints_come_first() -> None:
    study = Study(SPACE, LOSS, samplers.QMC(), SuccessiveHalving(3, rounds=1, size=9),
                  constraints=[Constraint("size", 0.5)])  # fmt: skip
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": job.config["x"], "size": 1.0 - job.config["x"]})
    promoted = [trial.config["x"] for trial in study.trials if trial.step == 3]
    fine = sorted(trial.config["x"] for trial in study.trials if trial.config["x"] >= 0.5)
    assert sorted(promoted) == fine[:3]


def test_several_goals() -> None:
    """Accuracy against latency: the front is promoted, not the best of one goal alone."""
    space = Space({"x": Float(0.0, 1.0), "y": Float(0.0, 1.0)})
    study = Study(space, [LOSS, Goal("latency")], samplers.QMC(), SuccessiveHalving(9, rounds=1, size=27))
    while (job := study.ask()) is not None:
        x, y = job.config["x"], job.config["y"]
        study.tell(job, {"loss": x + y, "latency": 1 - x + y})
    promoted = [trial.config["y"] for trial in study.trials if trial.step >= 3]
    stopped = [trial.config["y"] for trial in study.trials if trial.step == 1]
    assert len(promoted) == 9 and max(promoted) < np.median(stopped)
    assert len(study.front) > 1 and replay(study) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hyperband(0), "max_steps=0 must be at least min_steps=1"),
        (lambda: Hyperband(9, min_steps=0), "min_steps=0 must be at least 1"),
        (lambda: SuccessiveHalving(9, eta=1), "eta=1 must be at least 2"),
        (lambda: SuccessiveHalving(9, size=0), "size=0 must be at least 1"),
        (lambda: Hyperband(9, rounds=0), "rounds=0 must be at least 1"),
    ],
)
def test_bad_options(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
