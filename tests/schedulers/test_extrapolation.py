"""Schedulers that extrapolate: who is stopped, who is advanced, and whatever comes in whatever order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Constraint, Float, Goal, Space, Study, replay, samplers
from tunesmith.records import Asked, Told
from tunesmith.schedulers import FreezeThaw, Full, PredictiveTermination, Scheduler
from tunesmith.schedulers._outlook import Outlook
from tunesmith.study import Job
from tunesmith.testing import SchedulerConformance
from tunesmith.trials import Checkpoint

SPACE = Space({"x": Float(0.0, 1.0)})
LOSS = Goal("loss")


class TestPredictiveTermination(SchedulerConformance):
    trials = 12

    def make(self) -> Scheduler[Any]:
        return PredictiveTermination(10, every=4, min_trials=2)


class TestPredictiveTerminationLate(SchedulerConformance):
    trials = 12

    def make(self) -> Scheduler[Any]:
        return PredictiveTermination(11, every=3, delta=0.3, min_steps=5, min_trials=4)


class TestFreezeThaw(SchedulerConformance):
    trials = 12

    def make(self) -> Scheduler[Any]:
        return FreezeThaw(10, every=4)


class TestFreezeThawSmallBasket(SchedulerConformance):
    trials = 12

    def make(self) -> Scheduler[Any]:
        return FreezeThaw(9, every=5, basket=2)


SCHEDULERS = [PredictiveTermination(12, every=3, min_trials=3), FreezeThaw(12, every=3)]


def curve(job: Job) -> list[float]:
    """Falls to what x says: the lower x the better."""
    return [job.config["x"] + 1.0 / step for step in range(job.start + 1, job.until + 1)]


def done(study: Study, sign: float = 1.0) -> Study:
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": [sign * value for value in curve(job)]})
    return study


def spent(study: Study) -> int:
    return sum(trial.step for trial in study.trials)


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda one: type(one).__name__)
def test_where_curves_say_all_most_trials_are_left_early(scheduler: Scheduler[Any]) -> None:
    study = done(Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=scheduler, trials=30))
    best = min(study.trials, key=lambda trial: trial.config["x"])
    assert study.best is best and best.step == 12
    assert spent(study) < 0.7 * 30 * 12
    assert replay(study) == []


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda one: type(one).__name__)
def test_to_maximise_is_to_minimise_the_opposite(scheduler: Scheduler[Any]) -> None:
    plain = done(Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=scheduler, trials=15))
    mirrored = done(
        Study(SPACE, Goal("loss", maximise=True), sampler=samplers.Uniform(), scheduler=scheduler, trials=15), sign=-1.0
    )
    jobs = [[(e.trial, e.start, e.until) for e in s.events() if isinstance(e, Asked)] for s in (plain, mirrored)]
    assert jobs[0] == jobs[1]


def test_so_many_are_trained_in_full_before_one_is_stopped() -> None:
    study = done(
        Study(
            SPACE,
            LOSS,
            sampler=samplers.Uniform(),
            scheduler=PredictiveTermination(12, every=2, min_steps=3, min_trials=6),
            trials=30,
        )
    )
    steps = [trial.step for trial in study.trials]
    assert steps[:6] == [12] * 6
    assert 4 in steps and min(steps) == 4  # no slice ends before step 3


def test_no_more_are_frozen_than_the_basket_holds() -> None:
    scheduler = FreezeThaw(12, every=2, basket=3)
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=scheduler, trials=20)
    state = scheduler.init(SPACE, [LOSS])
    for event in done(study).events()[1:]:
        state = scheduler.tell(state, event)
        assert len(set(state.frozen) - state.outlook.spared) <= 3
        assert set(state.chances) == set(state.frozen)
    assert any(trial.step == 12 for trial in study.trials)


def test_of_equal_trials_the_oldest_goes_first() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=FreezeThaw(6), trials=5)
    jobs = [study.ask() for _ in range(5)]
    for job in reversed(jobs):
        study.tell(job, {"loss": 1.0})
    assert study.ask().trial == 0


# -- what they share ---------------------------------------------------------------------------------------------


def outlook(losses: list[list[float]], steps: int, constraint: list[float] | None = None) -> Outlook:
    """With these curves."""
    rules = [] if constraint is None else [Constraint("size", 1.0)]
    found = Outlook(steps, [LOSS], rules)
    for trial, values in enumerate(losses):
        metrics: dict[str, list[float | None]] = {"loss": list(values)}
        if constraint is not None:
            metrics["size"] = [constraint[trial]] * len(values)
        found.tell(Told(trial, trial, 0, metrics))
    return found


def test_who_breaks_a_constraint_is_not_the_best() -> None:
    assert outlook([[3.0, 2.0], [1.0, 1.0], [4.0]], 2, constraint=[0.0, 2.0, 0.0]).best == 2.0
    assert outlook([[3.0, 2.0], [1.0, 1.0]], 2, constraint=[3.0, 2.0]).best == math.inf


def test_values_told_again_and_values_beyond_the_end() -> None:
    """After a crash from an earlier checkpoint on; and of trials that another scheduler has trained for longer."""
    found = outlook([[5.0, 4.0, 3.0, 2.0, 1.0]], 4)
    assert found.best == 2.0 and found.finished == 1
    found.tell(Told(1, 1, 0, {"loss": [9.0, 8.0]}))
    found.tell(Told(1, 1, 1, {"loss": [7.0, 6.0]}))
    assert found.curves[1] == [9.0, 7.0, 6.0]
    assert found.learn() and len(found.chances([0, 1], 2.0)) == 2


def test_the_mean_chance_is_that_of_a_new_trial() -> None:
    """Where the model sees too little hope in all that are judged at a step, the chances there are raised."""
    found = outlook([[3.0, 2.0]], 2)
    assert found.corrected(1, 0.1) == 0.1
    for _ in range(95):
        found.judged(1, 0.05, newcomer=0.2)
        found.judged(2, 0.4, newcomer=0.2)
    assert found.corrected(1, 0.05) == pytest.approx(0.05 * 100 / (5 + 95 / 4))
    assert found.corrected(1, 0.9) == 1.0
    assert found.corrected(2, 0.1) == found.corrected(3, 0.1) == 0.1


def test_a_tenth_of_all_steps_goes_to_trials_without_hope() -> None:
    found = Outlook(10, [LOSS], [])
    spared = 0
    for trial in range(200):
        found.tell(Told(trial, trial, 0, {"loss": [1.0] * 4}))
        if found.spare(trial, 4):
            spared += 1
            found.tell(Told(trial, trial, 4, {"loss": [1.0] * 6}))
    assert len(found.spared) == spared
    assert 0.08 < 6 * spared / (4 * 200 + 6 * spared) <= 0.1


def test_curves_are_fitted_so_often_as_they_have_grown_by_a_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    monkeypatch.setattr("tunesmith.schedulers._outlook.Extrapolator", lambda *_: fits.append(1))
    found = Outlook(9, [LOSS], [])
    for trial in range(3000):
        found.tell(Told(trial, trial, 0, {"loss": [1.0] * (9 if trial % 3 == 0 else 2)}))
        found.learn()
    assert 20 <= len(fits) <= 2 * (8 + math.log(3000, 1.2))


# -- whatever comes ------------------------------------------------------------------------------------------------


def interleave(study: Study, rng: np.random.Generator, workers: int, faults: float) -> None:
    """Curves of few different values, at times beyond a limit, told in parts and out of order, with failures."""
    out: list[Job] = []
    while True:
        job = study.ask() if len(out) < workers else None
        if job is not None:
            out.append(job)
            if rng.random() < 0.6:
                continue
        if not out:
            return
        job = out.pop(int(rng.integers(len(out))))
        count = job.until - job.start
        losses, sizes = (rng.integers(0, 5, count) * 0.5).tolist(), rng.integers(0, 2, count).tolist()
        part = int(rng.integers(count))
        if part and rng.random() < 0.5:
            saved = Checkpoint(job.trial, job.start + part, "part", "digest")
            told = {"loss": losses[:part], "size": sizes[:part]}
            study.tell(job, told, checkpoint=saved if rng.random() < 0.5 else None)
            losses, sizes = losses[part:], sizes[part:]
        if rng.random() < faults:
            study.fail(job, "on purpose", "lost" if rng.random() < 0.7 else "raised")
        else:
            end = Checkpoint(job.trial, job.until, "end", "digest")
            study.tell(job, {"loss": losses, "size": sizes}, checkpoint=end)


@settings(deadline=None, max_examples=5)
@given(
    st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.0, 0.2]), st.integers(1, 4),
    st.sampled_from([FreezeThaw, PredictiveTermination]),
)  # fmt: skip
def test_whatever_comes(seed: int, workers: int, faults: float, every: int, kind: type[Any]) -> None:
    few = {"basket": 4} if kind is FreezeThaw else {"min_trials": 2, "delta": 0.2}
    study = Study(
        SPACE,
        LOSS,
        sampler=samplers.Uniform(),
        scheduler=kind(9, every=every, **few),
        constraints=Constraint("size", 0.5),
        trials=9,
        seed=seed,
    )
    interleave(study, np.random.default_rng(seed), workers, faults)
    assert not study.running and replay(study) == []
    for trial in study.trials:
        assert trial.status == "failed" or trial.step == 9 or trial.step % every == 0
    assert any(trial.step == 9 or trial.status == "failed" for trial in study.trials)


def test_after_a_migration_the_past_counts() -> None:
    """Curves of trials that were trained for longer are learned from as far as the end."""
    for scheduler in SCHEDULERS:
        study = done(Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Full(20), trials=5))
        study.change(scheduler=scheduler)
        study.limit = 20
        assert spent(done(study)) < 5 * 20 + 15 * 12
        assert replay(study) == []


def test_one_goal_only() -> None:
    for scheduler in SCHEDULERS:
        with pytest.raises(ValueError, match="extrapolates one goal, the study has 2: make the others constraints"):
            Study(SPACE, [LOSS, Goal("size")], sampler=samplers.Uniform(), scheduler=scheduler)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (PredictiveTermination, {"every": 11}, "every=11 must be from 1 to max_steps=10"),
        (PredictiveTermination, {"min_steps": 0}, "min_steps=0 must be from 1 to max_steps=10"),
        (PredictiveTermination, {"min_trials": 0}, "min_trials=0 must be at least 1"),
        (PredictiveTermination, {"delta": 0.0}, r"delta=0.0 must be in \(0, 1\)"),
        (FreezeThaw, {"every": 0}, "every=0 must be from 1 to max_steps=10"),
        (FreezeThaw, {"basket": 0}, "basket=0 must be at least 1"),
    ],
)
def test_bad_arguments(kind: type[Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(10, **arguments)
