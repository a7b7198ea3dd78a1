from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith import Categorical, Float, Goal, Prior, Space, Study, replay
from tunesmith.records import Asked, Failed, Told
from tunesmith.samplers import DEHB, Sampler, Uniform
from tunesmith.samplers._prior import fading
from tunesmith.samplers.dehb import filled, ranked
from tunesmith.schedulers import ASHA, Hyperband
from tunesmith.testing import GOAL, SamplerConformance, finite, mixed, nested, play

LINE = Space({"x": Float(0.0, 1.0)})


class TestDEHB(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return DEHB()


class TestSmallPopulation(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return DEHB(population=4, factor=1.0, crossover=0.9, eta=2)


def begun(sampler: DEHB, space: Space, goals: Any = None) -> Any:
    return sampler.init(space, goals or [Goal("loss")], np.random.default_rng(0))


def asked(sampler: Any, state: Any, trial: int, config: Any, until: int = 1, start: int = 0) -> Any:
    return sampler.tell(state, Asked(trial, 0, trial, config, start, until))


def told(sampler: Any, state: Any, trial: int, loss: float | None, until: int = 1, start: int = 0) -> Any:
    if loss is None:
        return sampler.tell(state, Failed(trial, trial, "on purpose"))
    return sampler.tell(state, Told(trial, trial, start, {"loss": [loss] * (until - start)}))


def trained(sampler: Any, state: Any, trial: int, loss: float | None, until: int = 1, start: int = 0) -> Any:
    """A job of the trial at x = trial / 100 that ends at ``until``."""
    state = asked(sampler, state, trial, {"x": trial / 100}, until, start)
    return told(sampler, state, trial, loss, until, start)


def test_a_child_that_is_not_worse_takes_the_place() -> None:
    sampler = DEHB(population=4)
    state = begun(sampler, LINE)
    for trial, loss in enumerate([4.0, None, 2.0, 1.0]):
        state = trained(sampler, state, trial, loss)
    assert state.members == {1: {0: 0, 2: 2, 3: 3}}  # the slot of the failed one is empty
    for trial, loss in [(4, 4.0), (5, 9.0), (6, 2.1), (7, None)]:
        state = trained(sampler, state, trial, loss)
    assert state.members == {1: {0: 4, 1: 5, 2: 2, 3: 3}}


def test_slots_are_given_when_a_job_is_asked() -> None:
    sampler = DEHB(population=4)
    state = begun(sampler, LINE)
    for trial in range(6):
        state = asked(sampler, state, trial, {"x": trial / 100})
    state = asked(sampler, state, 2, {"x": 0.02})  # the same job again: its worker has vanished
    for trial in (5, 2, 4, 1):
        state = told(sampler, state, trial, float(trial))
    assert state.members == {1: {0: 4, 1: 1, 2: 2}} and state.asked[1] == 6


def test_who_goes_on_competes_on_the_next_rung() -> None:
    sampler = DEHB(population=4)
    state = begun(sampler, LINE)
    for trial in range(6):
        state = trained(sampler, state, trial, float(trial))
    for trial in (0, 1):
        state = trained(sampler, state, trial, 0.1, until=3, start=1)
    state = trained(sampler, state, 6, 0.5, until=3)
    assert state.members == {1: {0: 0, 1: 1, 2: 2, 3: 3}, 3: {0: 0, 1: 1, 2: 6}}


def test_steps_that_are_no_rungs_are_passed_over() -> None:
    sampler = DEHB(population=4)
    state = begun(sampler, LINE)
    for step in range(1, 8):
        state = trained(sampler, state, 0, 1.0, until=step, start=step - 1)
    assert {step: set(members.values()) for step, members in state.members.items() if members} == {
        step: {0} for step in state.history.rungs
    }
    assert 7 > len(state.history.rungs) > 1


def test_constraints_and_several_goals_decide_who_is_worse() -> None:
    sampler, goals = DEHB(population=4), [Goal("loss"), Goal("cost")]
    state = begun(sampler, LINE, goals)
    values = [(1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (2.0, 2.0), (0.5, 1.0), (0.5, 2.0), (2.0, 0.5)]
    for trial, (loss, cost) in enumerate(values):
        state = asked(sampler, state, trial, {"x": trial / 100})
        state = sampler.tell(state, Told(trial, trial, 0, {"loss": [loss], "cost": [cost]}))
    assert state.members == {1: {0: 0, 1: 5, 2: 6, 3: 7}}  # only the dominated child has lost


def test_where_parents_come_from() -> None:
    sampler = DEHB(population=5)
    state = begun(sampler, LINE)
    for trial in range(5):
        assert not len(sampler.parents(state, 1))
        state = trained(sampler, state, trial, float(5 - trial))
    assert sampler.parents(state, 1).tolist() == [4, 3, 2, 1, 0]  # its own subpopulation, all of it
    assert sampler.parents(state, 3).tolist() == [4, 3, 2, 1]  # the best of the next lower rung
    for trial in range(5):
        state = trained(sampler, state, trial, float(trial), until=3, start=1)
    for trial in range(4):
        state = trained(sampler, state, trial, float(trial), until=9, start=3)
    assert sampler.parents(state, 9).tolist() == [0, 1, 2, 3]
    assert sampler.parents(state, 3).tolist() == [4, 3, 2, 1]
    assert sampler.parents(state, 1).tolist() == [0, 1, 2, 3]  # the lowest rung: of the highest one
    state = told(sampler, asked(sampler, state, 3, {"x": 0.03}, 27, 9), 3, None)
    assert sampler.parents(state, 1).tolist() == [0, 1, 2, 4]  # the failed one is no parent


def test_a_mutant_is_a_parent_plus_a_share_of_a_difference() -> None:
    space = Space({f"x{i}": Float(0.0, 1.0) for i in range(3)})
    points = np.array([[0.9, 0.9, 0.9], [0.5, 0.4, 0.9], [0.6, 0.2, 0.8], [0.4, 0.6, 0.2]])
    rng = np.random.default_rng(0)
    mutants = np.array([DEHB(crossover=1.0).cross(space, points, rng) for _ in range(200)])
    np.testing.assert_allclose(mutants[:, :2], [[0.6, 0.2]] * 200)
    assert mutants[:, 2].min() < 0.05 and mutants[:, 2].max() > 0.95  # 1.2 is outside: drawn anew
    children = np.array([DEHB(crossover=0.0).cross(space, points, rng) for _ in range(200)])
    assert ((children != 0.9).sum(axis=1) == 1).all()
    half = np.array([DEHB().cross(space, points, rng) for _ in range(600)])
    assert (half[:, 0] != 0.9).mean() == pytest.approx((1 + 0.5 * 2) / 3, abs=0.12)


def test_what_a_parent_lacks_is_drawn_for_a_share_from_the_prior() -> None:
    branch = Space({"y": Float(0.0, 1.0), "z": Float(0.0, 1.0, prior=Prior(0.7, 1.0))})
    space = Space({"c": Categorical({"no": None, "yes": branch})})
    points = filled(space, np.array([[0.25, np.nan, np.nan]] * 3000), np.random.default_rng(0))
    assert (points[:, 0] == 0.25).all()
    assert points[:, 1].mean() == pytest.approx(0.5, abs=0.02) and points[:, 1].std() == pytest.approx(
        12**-0.5, abs=0.01
    )
    assert np.mean(points[:, 2] < 0.5) == pytest.approx(0.5 * (1 - fading(0)), abs=0.03)
    assert np.mean(np.abs(points[:, 2] - 0.7) < 0.1) == pytest.approx(
        fading(0) * 0.95 + (1 - fading(0)) * 0.2, abs=0.03
    )


def test_only_rows_with_values_at_the_step_are_ranked() -> None:
    sampler = DEHB()
    state = begun(sampler, LINE)
    for trial, loss in enumerate([2.0, 1.0, None]):
        state = trained(sampler, state, trial, loss)
    assert ranked(state.history, [0, 1, 2], 1).tolist() == [1, 0]
    assert ranked(state.history, [0, 1, 2], 3).tolist() == [] == ranked(state.history, [], 1).tolist()


@pytest.mark.parametrize("make_space", [mixed, nested, finite])
@pytest.mark.parametrize("scheduler", [Hyperband(9, rounds=2), ASHA(9)])
def test_replay_over_rungs_with_many_workers(make_space: Any, scheduler: Any) -> None:
    study = Study(make_space(), GOAL, DEHB(population=4), scheduler, seed=3, trials=60)
    play(study, np.random.default_rng(3), workers=12, faults=0.1)
    assert replay(study) == []


def best(sampler: Any, seed: int, steps: int = 27 * 40) -> float:
    """Regret in full training after so many steps of Hyperband, with mixed parameters and a branch."""
    adam = Space({"b": Float(0.0, 1.0)})
    space = Space({"x": Float(0.0, 1.0), "c": Categorical(list("pqrs")), "o": Categorical({"adam": adam, "sgd": None})})
    study = Study(space, Goal("loss"), sampler, Hyperband(27), seed=seed)
    spent, found = 0, np.inf
    while spent < steps and (job := study.ask()):
        config: Any = job.config
        loss = (config["x"] - 0.3) ** 2 + 0.1 * "pqrs".index(config["c"])
        loss += (config["b"] - 0.8) ** 2 if config["o"] == "adam" else 0.2
        study.tell(job, {"loss": [loss + 0.5 * config["x"] / step for step in range(job.start + 1, job.until + 1)]})
        spent += job.until - job.start
        found = min(found, loss) if job.until == 27 else found
    return found


def test_it_beats_random_search_over_the_same_brackets() -> None:
    ours = [best(DEHB(), seed) for seed in range(7)]
    blind = [best(Uniform(), seed) for seed in range(7)]
    assert np.median(ours) < 0.2 * np.median(blind)
    assert sum(a < b for a, b in zip(ours, blind, strict=True)) >= 6


def test_options_are_checked() -> None:
    for options, message in [
        ({"population": 3}, "population=3 must be at least 4"),
        ({"factor": 0.0}, r"factor=0.0 must be in \(0, 2\]"),
        ({"crossover": 1.5}, r"crossover=1.5 must be in \[0, 1\]"),
        ({"eta": 1}, "eta=1 must be at least 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            DEHB(**options)  # type: ignore[arg-type]
