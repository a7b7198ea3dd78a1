"""Trials that do not get better any more are stopped, each by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Constraint, Float, Goal, Space, Study, replay, samplers
from tunesmith.schedulers import Full, Plateau, Scheduler
from tunesmith.testing import SchedulerConformance
from tunesmith.trials import Checkpoint

SPACE = Space({"x": Float(0.0, 1.0)})
LOSS = Goal("loss")


class TestPlateau(SchedulerConformance):
    trials = 30

    def make(self) -> Scheduler[Any]:
        return Plateau(10, every=2, patience=2)


class TestPlateauWithDelta(SchedulerConformance):
    trials = 30

    def make(self) -> Scheduler[Any]:
        return Plateau(11, every=3, patience=1, min_delta=0.02)


def ends(rule: Plateau, *curves: list[float], maximise: bool = False) -> list[int]:
    """Where each of the curves is stopped."""
    study = Study(SPACE, Goal("loss", maximise), sampler=samplers.Uniform(), scheduler=rule, trials=len(curves))
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": curves[job.trial][job.start : job.until]})
    assert replay(study) == []
    return [trial.step for trial in study.trials]


def test_after_so_many_slices_without_improvement() -> None:
    falling, flat, late = [5.0, 4, 3, 2, 1, 0], [5.0] * 6, [5.0, 5, 4, 4, 4, 4]
    assert ends(Plateau(6, patience=2), falling, flat, late) == [6, 3, 5]
    assert ends(Plateau(6, every=2, patience=1), falling, flat, late) == [6, 4, 6]
    assert ends(Plateau(6, patience=2), [-loss for loss in late], maximise=True) == [5]


def test_the_best_value_counts() -> None:
    """A value that is worse than before and recovers is no improvement."""
    assert ends(Plateau(8, patience=3), [3.0, 1, 9, 8, 7, 6, 5, 4]) == [5]


def test_small_improvements_count_together() -> None:
    slow = [1 - 0.01 * step for step in range(20)]
    assert ends(Plateau(20, patience=3, min_delta=0.025), slow) == [20]
    assert ends(Plateau(20, patience=3, min_delta=0.035), slow) == [4]


def test_an_improvement_of_exactly_min_delta_is_none() -> None:
    assert ends(Plateau(4, patience=1, min_delta=0.5), [2.0, 1.5, 1.0, 0.5], [2.0, 1.0, 0.5, 0.0]) == [2, 3]


def test_several_goals_none_may_improve() -> None:
    goals = [LOSS, Goal("accuracy", maximise=True), Goal("size", once=True)]
    study = Study(
        SPACE, goals, sampler=samplers.Uniform(), scheduler=Plateau(6, patience=1, min_delta=(0.5, 0.1, 0.0)), trials=2
    )
    curves = [[(9, 0.1), (9, 0.3), (9, 0.5), (7, 0.5), (6.8, 0.5)], [(9, 0.1), (8.5, 0.15)]]
    while (job := study.ask()) is not None:
        loss, accuracy = curves[job.trial][job.start]
        study.tell(job, {"loss": loss, "accuracy": accuracy} | ({} if job.once["size"] else {"size": 3.0}))
    assert [trial.step for trial in study.trials] == [5, 2]


def test_to_break_constraints_by_less_is_an_improvement() -> None:
    study = Study(
        SPACE,
        LOSS,
        sampler=samplers.Uniform(),
        scheduler=Plateau(6, patience=1),
        trials=1,
        constraints=Constraint("error", 0.1),
    )
    errors = [0.3, 0.2, 0.1, 0.05]
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": 1.0 + job.start, "error": errors[job.start]})
    assert study.trials[0].step == 4  # from 0.1 on the constraint holds, and the loss at step 3 stays the best


def test_a_trial_told_again_is_judged_by_what_it_was_told_last() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Plateau(6, every=2, patience=1), trials=1)
    study.tell(study.ask(), {"loss": [3.0, 2.0]}, checkpoint=Checkpoint(0, 2, "where", "digest"))
    job = study.ask()
    study.tell(job, {"loss": 0.0}, step=3)  # progress that is lost
    study.fail(job, "vanished", "lost")
    job = study.ask()
    assert (job.start, job.until) == (2, 4)
    study.tell(job, {"loss": [2.5, 2.5]})
    assert study.ask() is None and study.trials[0].step == 4
    assert replay(study) == []


def test_after_a_migration_trials_go_on() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Full(3), trials=2)
    curves = [[3.0, 2, 1, 1, 1, 1, 1], [3.0, 3, 3, 3]]
    for _ in range(2):
        job = study.ask()
        study.tell(job, {"loss": curves[job.trial][:3]})
    study.change(scheduler=Plateau(7, every=2, patience=1))
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": curves[job.trial][job.start : job.until]})
    assert [trial.step for trial in study.trials] == [6, 3]
    assert replay(study) == []


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=12, max_size=12), st.integers(1, 4), st.integers(1, 4),
    st.sampled_from([0.0, 1.0]),
)  # fmt: skip
def test_as_the_naive_rule(curve: list[int], every: int, patience: int, delta: float) -> None:
    expected = 12
    for step in range(every, 12, every):
        before = curve[: max(0, step - patience * every)]
        if before and min(before) - min(curve[:step]) <= delta:
            expected = step
            break
    assert ends(Plateau(12, every, patience, delta), [float(loss) for loss in curve]) == [expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 11}, "every=11 must be from 1 to max_steps=10"),
        ({"patience": 0}, "patience=0 must be at least 1"),
        ({"min_delta": -0.1}, "min_delta=-0.1 must be at least 0"),
        ({"min_delta": (0.1, float("nan"))}, r"min_delta=\(0.1, nan\) must be at least 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plateau(10, **arguments)


def test_one_min_delta_a_goal() -> None:
    with pytest.raises(ValueError, match=r"min_delta=\(0.1, 0.2\) must have one number for each of 1 goals"):
        Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Plateau(10, min_delta=(0.1, 0.2)))
