from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith import Categorical, Constraint, Float, Goal, Space, Study, replay, samplers
from tunesmith.pareto import hypervolume
from tunesmith.records import Asked, Failed, Told
from tunesmith.samplers import NSGA2, Sampler
from tunesmith.testing import GOAL, SamplerConformance, finite, mixed, nested, play

GOALS = [Goal("f1"), Goal("f2")]


class TestNSGA2(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return NSGA2()


class TestSmallPopulation(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return NSGA2(population=4, crossover=0.5, mutation=2.0)


def zdt1(config: Any) -> dict[str, float]:
    x = list(config.values())
    g = 1 + 9 * sum(x[1:]) / (len(x) - 1)
    return {"f1": x[0], "f2": g * (1 - (x[0] / g) ** 0.5)}


def volume(sampler: Any, seed: int, trials: int = 140, limit: float | None = None) -> float:
    """Hypervolume of the allowed results on ZDT1 of five parameters, under (1.1, 6)."""
    space = Space({f"x{i}": Float(0.0, 1.0) for i in range(5)})
    rules = [] if limit is None else [Constraint("over", limit)]
    study = Study(space, GOALS, sampler, trials=trials, seed=seed, constraints=rules)
    found = []
    while job := study.ask():
        values = zdt1(job.config)
        over = abs(values["f1"] - 0.5)
        study.tell(job, values | {"over": over})
        if limit is None or over <= limit:
            found.append((values["f1"], values["f2"]))
    return hypervolume(np.array(found).reshape(-1, 2), np.array([1.1, 6.0]))


def test_its_front_has_more_volume_than_that_of_random_search() -> None:
    ours = [volume(NSGA2(), seed) for seed in range(3)]
    blind = [volume(samplers.Uniform(), seed) for seed in range(3)]
    assert min(ours) > max(blind)


def test_constraints_are_honoured_first() -> None:
    ours = [volume(NSGA2(), seed, 140, 0.05) for seed in range(5)]
    blind = [volume(samplers.Uniform(), seed, 140, 0.05) for seed in range(5)]
    assert np.median(ours) > np.median(blind)


def test_the_worst_leaves_by_rank_then_crowding() -> None:
    sampler = NSGA2(population=4)
    state = sampler.init(Space({"x": Float(0.0, 1.0)}), GOALS, np.random.default_rng(0))
    values = [(0.0, 4.0), (4.0, 0.0), (1.0, 3.0), None, (1.2, 2.9), (5.0, 5.0), (3.0, 1.0)]
    alive = []
    for trial, pair in enumerate(values):
        state = sampler.tell(state, Asked(trial, 0, trial, {"x": trial / 10}, 0, 1))
        event = Failed(trial, trial, "x") if pair is None else Told(trial, trial, 0, {"f1": [pair[0]], "f2": [pair[1]]})
        state = sampler.tell(state, event)
        alive.append(set(state.members))
    assert alive[3:] == [{0, 1, 2, 3}, {0, 1, 2, 4}, {0, 1, 2, 4}, {0, 1, 4, 6}]


def test_one_that_has_left_comes_back_with_a_further_result() -> None:
    sampler = NSGA2(population=3)
    state = sampler.init(Space({"x": Float(0.0, 1.0)}), GOALS, np.random.default_rng(0))
    for trial in range(5):
        state = sampler.tell(state, Asked(trial, 0, trial, {"x": trial / 10}, 0, 1))
        state = sampler.tell(state, Told(trial, trial, 0, {"f1": [float(trial)], "f2": [float(trial)]}))
    assert set(state.members) == {0, 1, 2}
    for trial, members in [(1, {0, 1, 2}), (4, {0, 1, 4}), (3, {1, 3, 4})]:
        state = sampler.tell(state, Asked(9, 0, trial, {"x": trial / 10}, 1, 2))
        state = sampler.tell(state, Told(9, trial, 1, {"f1": [9.0], "f2": [9.0]}))
        assert set(state.members) == members


def test_children_lie_about_their_parents() -> None:
    space = Space({f"x{i}": Float(0.0, 1.0) for i in range(400)})
    sampler, rng = NSGA2(), np.random.default_rng(0)
    child = sampler.cross(space, np.full(400, 0.4), np.full(400, 0.6), rng)
    assert abs(child.mean() - 0.45) < 0.02  # half are the mother's, half are spread evenly about the mean
    assert (np.abs(child - 0.4) < 1e-12).sum() == pytest.approx(200, abs=40)
    assert np.abs(np.abs(child - 0.5) - 0.1).mean() < 0.02
    steps = np.abs(NSGA2(mutation=400.0).mutate(space, np.full(400, 0.5), rng) - 0.5)
    assert steps.mean() == pytest.approx(1 / 7, rel=0.2)  # the mean of the polynomial distribution


def test_what_depends_on_a_branch_comes_with_it() -> None:
    branches = {"a": Space({"p": Float(0.0, 1.0)}), "b": Space({"q": Float(0.0, 1.0), "r": Float(0.0, 1.0)})}
    space = Space({"c": Categorical(branches)})
    mother, father = space.encode({"c": "a", "p": 0.1}), space.encode({"c": "b", "q": 0.2, "r": 0.3})
    rng = np.random.default_rng(0)
    found = [space.decode(NSGA2().cross(space, mother, father, rng)) for _ in range(40)]
    assert {child["c"] for child in found} == {"a", "b"}
    for child in found:
        assert child == pytest.approx({"c": "a", "p": 0.1} if child["c"] == "a" else {"c": "b", "q": 0.2, "r": 0.3})


@pytest.mark.parametrize("make_space", [mixed, nested, finite])
def test_replay_with_many_workers(make_space: Any) -> None:
    study = Study(make_space(), [GOAL], NSGA2(population=6), seed=3, trials=120)
    play(study, np.random.default_rng(3), workers=16, faults=0.2)
    assert replay(study) == []


def test_options_are_checked() -> None:
    for options, message in [
        ({"population": 1}, "population=1 must be at least 2"),
        ({"crossover": -0.1}, r"crossover=-0.1 must be in \[0, 1\]"),
        ({"mutation": 0.0}, "mutation=0.0 must be > 0 and finite"),
        ({"crossover_index": float("inf")}, "crossover_index=inf must be > 0 and finite"),
        ({"mutation_index": -1.0}, "mutation_index=-1.0 must be > 0 and finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            NSGA2(**options)  # type: ignore[arg-type]
