"""Greedy and patient members, and evaluators that say who improves fastest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tunesmith import Float, Goal, Space, Study, replay, samplers
from tunesmith.records import Told
from tunesmith.schedulers import FIRE
from tunesmith.schedulers.fire import Evaluation, lead
from tunesmith.study import Job
from tunesmith.testing import GOAL, mixed, play
from tunesmith.trials import Trial

SPACE = Space({"h": Float(0.01, 100.0, log=True)})
FIRE9 = FIRE(population=9, ready=2, steps=20)  #: places 0 to 3 are greedy, 4 to 6 patient, 7 and 8 evaluate


def run(scheduler: FIRE, value: Callable[[Job], Any], workers: int = 9, seed: int = 0) -> Study:
    """All members side by side; the values are losses."""
    study = Study(SPACE, Goal("loss"), samplers.QMC(), scheduler, seed=seed)
    while jobs := study.ask(workers):
        for job in jobs:
            study.tell(job, {"loss": value(job)})
    return study


def slot(study: Study, trial: Trial) -> int:
    """The place in the population that a trial fills."""
    while trial.replaces is not None:
        trial = study.trials[trial.replaces]
    return trial.id


def forks(study: Study, role: str, scheduler: FIRE = FIRE9) -> list[Trial]:
    return [t for t in study.trials if t.parent is not None and scheduler.role(slot(study, t)) == role]


def curve(*best: float, start: int = 0) -> Evaluation:
    return Evaluation([start + i for i in range(len(best))], list(best))


def test_roles() -> None:
    roles = [FIRE9.role(i) for i in range(9)]
    assert roles == ["greedy"] * 4 + ["patient"] * 3 + ["evaluator"] * 2
    small = FIRE(population=5, ready=1, steps=9)
    assert [small.role(i) for i in range(5)] == ["greedy"] * 2 + ["patient"] * 2 + ["evaluator"]
    assert [FIRE(population=22, ready=1, steps=9).role(i) for i in range(22)].count("evaluator") == 6


# -- the comparison of curves ---


def test_the_faster_one_leads_from_where_both_are_equal() -> None:
    slow, fast = curve(1.0, 0.9, 0.8, 0.7), curve(2.0, 1.0, 0.5, 0.2)
    assert lead(fast, slow) == pytest.approx(0.8 - 0.2)
    assert lead(slow, fast) == pytest.approx(0.2 - 0.8)


def test_the_step_at_which_both_are_equal_is_interpolated() -> None:
    assert lead(curve(1.0, 0.9, 0.8), curve(1.5, 0.5, 0.5)) == pytest.approx(0.5 - 0.85)


def test_curves_that_do_not_meet_say_nothing() -> None:
    assert lead(curve(1.0, 0.9), curve(5.0, 4.0, 3.0)) == 0.0
    assert lead(curve(1.0, 0.9), curve(5.0, 4.0, 1.0)) == 0.0  # met at the last step


def test_equal_curves_are_equal_wherever_they_begin() -> None:
    assert lead(curve(1.0, 0.5), curve(1.0, 0.5, start=30)) == 0.0


def test_an_evaluation_is_the_best_so_far_and_a_retry_replaces() -> None:
    evaluation = Evaluation([10], [1.0])
    evaluation.tell(Told(0, 0, 10, {"loss": [0.5, 0.8]}), [0.5, 0.8])
    assert (evaluation.steps, evaluation.best) == ([10, 11, 12], [1.0, 0.5, 0.5])
    evaluation.tell(Told(0, 0, 11, {"loss": [0.3]}), [0.3])
    assert (evaluation.steps, evaluation.best) == ([10, 11, 12], [1.0, 0.5, 0.3])


# -- the population ---


def test_evaluators_take_patient_weights_and_the_best_greedy_hyperparameters() -> None:
    study = run(FIRE9, lambda job: job.config["h"])
    began = forks(study, "evaluator")
    assert began and all(FIRE9.role(slot(study, study.trials[fork.parent or 0])) == "patient" for fork in began)
    assert {fork.start for fork in began} == {2, 6, 10, 14, 18}  # two decisions each
    for fork in began:
        standing = [
            trial.config["h"]
            for trial in study.trials
            if FIRE9.role(slot(study, trial)) == "greedy" and trial.start < fork.start <= trial.step
        ]
        assert fork.config["h"] == min(standing)
    first = [fork.parent for fork in began[:4]]
    assert len(set(first[:3])) == 3  # those that were never evaluated come first


def test_patient_members_are_ranked_by_improvement_not_by_loss() -> None:
    """The patient member of the worst loss improves fastest under greedy hyperparameters: the others copy it."""
    potential: dict[int, float] = {}

    def value(job: Job) -> list[float]:
        place = {4: 3.0, 5: 2.0, 6: 1.0}
        if job.parent is not None and job.trial not in potential:
            potential[job.trial] = potential[job.parent]
        kind = potential.setdefault(job.trial, place.get(job.trial, 0.0))
        trial = study.trials[job.trial]
        speed = 0.3 * kind if FIRE9.role(slot(study, trial)) == "evaluator" else 0.0
        return [1 + kind - speed * (step - trial.start) for step in (job.start + 1, job.until)]

    study = Study(SPACE, Goal("loss"), samplers.QMC(), FIRE9)
    while jobs := study.ask(9):
        for job in jobs:
            study.tell(job, {"loss": value(job)})
    copies = forks(study, "patient")
    assert copies and {potential[fork.id] for fork in copies} == {3.0}
    assert replay(study) == []


def test_greedy_members_copy_an_evaluator_that_is_ahead() -> None:
    def value(job: Job) -> float:
        return 0.1 if FIRE9.role(slot(study, study.trials[job.trial])) == "evaluator" else 1.0 + job.trial / 100

    study = Study(SPACE, Goal("loss"), samplers.QMC(), FIRE9)
    while jobs := study.ask(9):
        for job in jobs:
            study.tell(job, {"loss": value(job)})
    parents = {FIRE9.role(slot(study, study.trials[fork.parent or 0])) for fork in forks(study, "greedy")}
    assert "evaluator" in parents and "patient" not in parents


def test_evaluators_behind_do_not_shelter_greedy_members() -> None:
    """As many greedy members are replaced as without them."""
    study = run(FIRE9, lambda job: 9.0 if job.trial > 6 else job.config["h"])
    assert {fork.start for fork in forks(study, "greedy")} == set(range(2, 20, 2))


def test_a_failed_member_is_replaced_by_its_own_kind() -> None:
    rng = np.random.default_rng(0)
    study = run(FIRE9, lambda job: math.nan if job.start and rng.random() < 0.2 else job.config["h"])
    late = [t for t in study.trials if t.replaces is not None and study.trials[t.replaces].status == "failed"]
    roles = {(FIRE9.role(slot(study, t)), FIRE9.role(slot(study, study.trials[t.parent or 0]))) for t in late}
    assert roles and all((a == "patient") == (b == "patient") for a, b in roles)
    assert replay(study) == []


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("workers", [1, 3, 9])
def test_the_population_trains_its_steps(synchronous: bool, workers: int) -> None:
    scheduler = FIRE(population=9, ready=5, steps=43, span=3, synchronous=synchronous)
    study = run(scheduler, lambda job: job.config["h"], workers)
    assert sum(trial.step - trial.start for trial in study.trials) == 9 * 43
    assert replay(study) == []


def test_a_synchronous_study_is_the_same_with_any_workers() -> None:
    scheduler = FIRE(population=9, ready=3, steps=30, synchronous=True)
    logs = [[t.config for t in run(scheduler, lambda job: job.config["h"], n).trials] for n in (1, 4, 9)]
    assert logs[0] == logs[1] == logs[2]


@pytest.mark.parametrize("seed", range(4))
def test_replay_with_faults(seed: int) -> None:
    study = Study(mixed(), GOAL, samplers.QMC(), FIRE9, seed=seed)
    play(study, np.random.default_rng(seed), workers=6, faults=0.3, jobs=400)
    assert replay(study) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FIRE(population=4, ready=1, steps=9), "population=4 must be at least 5"),
        (lambda: FIRE(population=9, ready=1, steps=9, evaluators=6), "evaluators=6"),
        (lambda: FIRE(population=9, ready=1, steps=9, evaluators=0), "evaluators=0, of which there must be one"),
        (lambda: FIRE(population=9, ready=1, steps=9, span=0), "span=0 must be at least 1"),
        (
            lambda: Study(SPACE, [Goal("a"), Goal("b")], sampler=samplers.Uniform(), scheduler=FIRE9),
            "compares learning curves of one goal",
        ),
    ],
)
def test_wrong_use(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
