"""Several goals and outcome constraints as fitness of a population."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tunesmith import Constraint, Float, Goal, Space, Study, replay, samplers
from tunesmith.schedulers import ASHA, PB2, PBT, Backtrack, Chain, Jitter, Tournament, Truncation, TTest
from tunesmith.schedulers._standing import Standing, ranked
from tunesmith.study import Job
from tunesmith.testing import mixed

PLANE = Space({"x": Float(0.0, 1.0), "y": Float(0.0, 1.0)})
GOALS = [Goal("near"), Goal("far")]


def run(study: Study, tell: Any, workers: int = 8) -> Study:
    while jobs := study.ask(workers):
        for job in jobs:
            study.tell(job, tell(job))
    return study


def members(*losses: tuple[float, ...], broken: Any = ()) -> list[Standing]:
    excess = [*broken, *[0.0] * (len(losses) - len(broken))]
    return sorted(Standing(excess[i], loss, i, i, 10) for i, loss in enumerate(losses))


def order(standings: list[Standing]) -> list[int]:
    return [one.trial for one in ranked(standings)]


# -- who is better? ---


def test_one_goal_is_ordered_by_constraints_loss_and_age() -> None:
    assert order(members((3.0,), (1.0,), (1.0,), (0.0,), broken=(0, 0, 0, 0.5))) == [1, 2, 0, 3]


def test_several_goals_are_ordered_by_fronts_and_loneliness() -> None:
    front = [(0.0, 4.0), (1.0, 2.0), (1.1, 1.9), (4.0, 0.0)]
    found = order(members((5.0, 5.0), *front, (2.0, 3.0)))
    assert set(found[:2]) == {1, 4} and set(found[2:4]) == {2, 3} and found[4:] == [5, 0]


def test_who_breaks_a_constraint_is_behind_whatever_the_goals() -> None:
    broken = members((0.0, 0.0), (1.0, 1.0), (9.0, 9.0), (8.0, 8.0), broken=(2.0, math.inf, 0.0, 0.0))
    assert order(broken) == [3, 2, 0, 1]


def test_better_is_domination() -> None:
    a, b, c = members((1.0, 1.0), (1.0, 2.0), (0.0, 3.0))[1:] + members((1.0, 1.0))
    both = {one.losses: one for one in (a, b, c)}
    assert both[1.0, 1.0].beats(both[1.0, 2.0]) and not both[1.0, 2.0].beats(both[1.0, 1.0])
    assert not both[1.0, 1.0].beats(both[1.0, 1.0])


@pytest.mark.parametrize("rule", [Truncation(0.3), Tournament()])
def test_exploit_goes_by_this_order(rule: Any) -> None:
    ranking = ranked(members(*((float(i), 9.0 - i) for i in range(5)), *((6.0 + i, 12.0 + i) for i in range(5))))
    rng = np.random.default_rng(0)
    for place, member in enumerate(ranking):
        donors = {rule.select(member, ranking, rng) for _ in range(30)} - {None}
        assert all(ranking.index(donor) < place for donor in donors if donor)
    assert donors  # of the last one


# -- in a study ---


def two(job: Job) -> dict[str, float]:
    """Two ends of the x axis, and y is to be small for both."""
    return {"near": job.config["x"] + job.config["y"], "far": 1 - job.config["x"] + job.config["y"]}


@pytest.mark.parametrize("explore", [Jitter(0.1), PB2()])
def test_a_population_comes_to_the_front_and_stays_spread(explore: Any) -> None:
    scheduler = PBT(population=12, ready=1, steps=25, exploit=Truncation(0.25), explore=explore)
    study = run(Study(PLANE, GOALS, samplers.QMC(), scheduler), two, 12)
    replaced = {trial.replaces for trial in study.trials}
    last = [trial.config for trial in study.trials if trial.id not in replaced]
    assert np.median([config["y"] for config in last]) < 0.15
    assert np.ptp([config["x"] for config in last]) > 0.5
    assert replay(study) == []


def test_members_that_break_a_constraint_die_out() -> None:
    """The best loss is forbidden: the population ends where it is allowed."""
    rule = [Constraint("size", 0.5)]
    scheduler = PBT(population=10, ready=1, steps=25, exploit=Truncation(0.3), explore=Jitter(0.05))
    study = Study(PLANE, Goal("loss"), samplers.QMC(), scheduler, constraints=rule)
    run(study, lambda job: {"loss": -job.config["x"], "size": job.config["x"]}, 10)
    replaced = {trial.replaces for trial in study.trials}
    last = [trial.config["x"] for trial in study.trials if trial.id not in replaced]
    assert sum(x <= 0.5 for x in last) >= 6 and 0.4 < np.median(last) < 0.55
    assert replay(study) == []


def test_t_test_goes_by_constraints_first() -> None:
    rng = np.random.default_rng(0)
    broken, fine = (Standing(b, (0.0,), i, i, 10, (0.0, 0.0)) for i, b in enumerate((1.0, 0.0)))
    ranking = sorted([broken, fine])
    assert TTest().select(broken, ranking, rng) is fine and TTest().select(fine, ranking, rng) is None


def test_a_chain_with_several_goals() -> None:
    """The front survives, also its ends; dominated trials do not."""
    scheduler = Chain(ASHA(3), PBT(population=4, ready=3, steps=9))
    study = run(Study(PLANE, GOALS, samplers.QMC(), scheduler, trials=24), two)
    assert max(trial.step for trial in study.trials) == 9 and replay(study) == []
    first = [trial.config for trial in study.trials if trial.parent is None and trial.step > 3]
    assert first and np.ptp([config["x"] for config in first]) > 0.3


@pytest.mark.parametrize("seed", range(2))
def test_replay_with_faults(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scheduler = PBT(population=6, ready=2, steps=14, explore=PB2(), backtrack=Backtrack())
    goals, rules = [Goal("a"), Goal("b", maximise=True)], [Constraint("c", 0.8)]
    study = Study(mixed(), goals, samplers.QMC(), scheduler, constraints=rules, seed=seed)
    while jobs := study.ask(4):
        for job in jobs:
            a, b, c = rng.random(3)
            study.tell(job, {"a": math.nan if a > 0.9 else a, "b": b, "c": c})
    assert replay(study) == []
