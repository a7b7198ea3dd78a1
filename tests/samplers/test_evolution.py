from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith import Categorical, Float, Goal, Integer, Prior, Space, Study, replay, samplers
from tunesmith.records import Asked, Failed, Told
from tunesmith.samplers import RegularizedEvolution, Sampler
from tunesmith.samplers._prior import fading
from tunesmith.samplers.base import History
from tunesmith.samplers.evolution import admitted, completed, moved, niche
from tunesmith.testing import GOAL, SamplerConformance, finite, mixed, nested, play


class TestRegularizedEvolution(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return RegularizedEvolution()


class TestSmallPopulation(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return RegularizedEvolution(population=4, sample=2, niches=0.0)


def told(sampler: Any, state: Any, trial: int, config: Any, loss: float | None) -> Any:
    state = sampler.tell(state, Asked(trial, 0, trial, config, 0, 1))
    return result(sampler, state, trial, loss)


def result(sampler: Any, state: Any, trial: int, loss: float | None) -> Any:
    failed = loss is None
    return sampler.tell(state, Failed(trial, trial, "x") if failed else Told(trial, trial, 0, {"loss": [loss]}))


def begun(sampler: Any, space: Space) -> Any:
    return sampler.init(space, [Goal("loss")], np.random.default_rng(0))


def test_the_oldest_dies_however_good_it_is() -> None:
    sampler = RegularizedEvolution(population=3, sample=3)
    state = begun(sampler, Space({"x": Float(0.0, 1.0)}))
    alive = []
    for trial, loss in enumerate([0.0, 5.0, None, 3.0, 4.0, 1.0]):
        state = told(sampler, state, trial, {"x": trial / 10}, loss)
        alive.append(list(state.members))
    assert alive == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]


def test_age_counts_from_the_result() -> None:
    sampler = RegularizedEvolution(population=2, sample=2)
    state = begun(sampler, Space({"x": Float(0.0, 1.0)}))
    for trial in range(4):
        state = sampler.tell(state, Asked(trial, 0, trial, {"x": trial / 10}, 0, 1))
    for trial in (3, 0, 2):
        state = result(sampler, state, trial, 1.0)
    assert state.members == [0, 2]


def test_further_training_wins_and_brings_back_to_life() -> None:
    sampler = RegularizedEvolution(population=3, sample=3)
    state = begun(sampler, Space({"x": Float(0.0, 1.0)}))
    for trial in range(5):
        state = told(sampler, state, trial, {"x": trial / 10}, float(trial))
    assert state.members == [2, 3, 4] and state.places([2, 3, 4]).tolist() == [0, 1, 2]
    for trial, members in [(3, [2, 3, 4]), (1, [3, 4, 1])]:  # alive, and dead
        state = sampler.tell(state, Asked(9, 0, trial, {"x": trial / 10}, 1, 3))
        state = sampler.tell(state, Told(9, trial, 1, {"loss": [0.0, 7.0 + trial]}))
        assert state.members == members
    assert state.places([3, 4, 1]).tolist() == [1, 2, 0]


def test_a_child_is_its_parent_but_for_one_place() -> None:
    space = Space({f"x{i}": Float(0.0, 1.0) for i in range(3)} | {"c": Categorical([1, 2, 3]), "n": Integer(1, 9)})
    sampler = RegularizedEvolution(population=2, sample=2)
    state = begun(sampler, space)
    best = {"x0": 0.1, "x1": 0.2, "x2": 0.3, "c": 2, "n": 4}
    state = told(sampler, state, 0, best, 0.0)
    state = told(sampler, state, 1, best | {"x0": 0.9, "c": 1, "n": 8}, None)
    sizes = []
    for seed in range(40):
        point = sampler.ask(state, np.random.default_rng(seed))
        assert point is not None
        child = space.decode(point)
        changed = min(
            (sum(child[k] != pytest.approx(parent[k]) for k in best), i)
            for i, parent in enumerate([best, best | {"x0": 0.9, "c": 1, "n": 8}])
        )
        sizes.append(changed)
    assert {size for size, _ in sizes} == {1}
    assert sum(parent == 0 for _, parent in sizes) > 20  # the failed one wins only against itself


@pytest.mark.parametrize("u", [0.5 / 7, 3.5 / 7, 6.5 / 7])
def test_levels_move_by_at_least_one(u: float) -> None:
    column = Space({"n": Integer(1, 7)}).columns[0]
    for step in (-0.9, -1e-9, 0.0, 1e-9, 0.4):
        new = moved(column, u, step, np.random.default_rng(0))
        assert 0 <= new <= 1 and int(new * 7) != int(u * 7)


def test_options_change_to_any_other_one() -> None:
    column = Space({"c": Categorical([1, 2, 3, 4])}).columns[0]
    rng = np.random.default_rng(0)
    found = [int(moved(column, 2.5 / 4, 0.1, rng) * 4) for _ in range(300)]
    assert set(found) == {0, 1, 3} and min(found.count(level) for level in (0, 1, 3)) > 60


def test_what_becomes_active_is_drawn_from_its_prior_less_and_less() -> None:
    branch = Space({"x": Float(0.0, 1.0, prior=Prior(0.8, 1.0))})
    space = Space({"c": Categorical({"no": None, "yes": branch})})
    rng = np.random.default_rng(0)
    shares = []
    for known in (0, 20, 100):
        drawn = np.array([completed(space, np.array([0.75, np.nan]), rng, known)[1] for _ in range(3000)])
        assert np.mean(drawn < 0.4) == pytest.approx(0.4 * (1 - fading(known)), abs=0.03)  # where the prior has nothing
        shares.append(float(np.mean(np.abs(drawn - 0.8) < 0.1)))  # where it has 95% of its draws
    assert shares == pytest.approx(
        [fading(known) * 0.95 + (1 - fading(known)) * 0.2 for known in (0, 20, 100)], abs=0.03
    )
    assert np.isnan(completed(space, np.array([0.25, 0.3]), rng)[1])


def test_a_used_up_neighbourhood_is_left() -> None:
    space = Space({"n": Integer(1, 9)})
    history = History(space, [Goal("loss")])
    for trial, n in enumerate([3, 4, 5, 6]):
        history.tell(Asked(trial, 0, trial, {"n": n}, 0, 1))

    def step(point: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return space.snap(point + 1 / 9)

    assert space.decode(admitted(history, space.encode({"n": 3}), step, np.random.default_rng(0))) == {"n": 7}


def test_niches_are_the_trials_of_one_branch() -> None:
    space = nested()
    study = Study(space, [GOAL], samplers.Uniform(), trials=40)  # type: ignore[arg-type]
    play(study, np.random.default_rng(0), faults=0.2)
    history = History(space, [GOAL])
    for event in study.events()[1:]:
        history.tell(event)
    rows = [niche(history, np.random.default_rng(seed)) for seed in range(20)]
    assert all(len(set(history.points[row, 0])) == 1 or not len(row) for row in rows)
    assert len({tuple(row) for row in rows}) > 3
    assert not len(niche(History(finite(), [GOAL]), np.random.default_rng(0)))


def cells() -> Space:
    """Four nodes, each with an operation, some of which have a size or a rate."""

    def operation() -> Categorical:
        return Categorical(
            {
                "skip": None,
                "conv": Space({"kernel": Integer(1, 7)}),
                "pool": None,
                "drop": Space({"rate": Float(0.0, 1.0)}),
                "zero": None,
            }
        )

    def renamed(i: int) -> Categorical:
        found = operation()
        named = [branch and Space({f"{k}{i}": v for k, v in branch.items()}) for branch in found.branches]
        return Categorical(dict(zip(found.options, named, strict=True)))

    return Space({f"op{i}": renamed(i) for i in range(4)})


def cell_loss(config: Any) -> float:
    worth = {"skip": 0.6, "conv": 0.1, "pool": 0.5, "drop": 0.2, "zero": 1.0}
    total = sum((i + 1) * worth[config[f"op{i}"]] for i in range(4))
    total += sum(0.1 * abs(config[f"kernel{i}"] - i - 2) for i in range(4) if f"kernel{i}" in config)
    return total + sum((config[f"rate{i}"] - 0.5) ** 2 for i in range(4) if f"rate{i}" in config)


def best(sampler: Any, seed: int, trials: int = 120) -> float:
    study = Study(cells(), Goal("loss"), sampler, trials=trials, seed=seed)
    while job := study.ask():
        study.tell(job, {"loss": cell_loss(job.config)})
    assert study.best is not None
    return study.best.metrics["loss"]


def test_it_beats_random_search_on_an_architecture_like_space() -> None:
    ours = [best(RegularizedEvolution(), seed) for seed in range(7)]
    blind = [best(samplers.Uniform(), seed) for seed in range(7)]
    assert np.median(ours) < np.median(blind) - 0.1
    assert sum(a < b for a, b in zip(ours, blind, strict=True)) >= 6


@pytest.mark.parametrize("make_space", [mixed, nested, finite])
def test_replay_with_many_workers(make_space: Any) -> None:
    study = Study(make_space(), [GOAL], RegularizedEvolution(population=6, sample=3), seed=3, trials=120)
    play(study, np.random.default_rng(3), workers=16, faults=0.2)
    assert replay(study) == []


def test_options_are_checked() -> None:
    for options, message in [
        ({"population": 1}, "population=1 must be at least 2"),
        ({"sample": 0}, r"sample=0 must be in 1..population=20"),
        ({"sample": 21}, r"sample=21 must be in 1..population=20"),
        ({"niches": 1.5}, r"niches=1.5 must be in \[0, 1\]"),
        ({"scale": 0.0}, r"scale=0.0 must be in \(0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            RegularizedEvolution(**options)  # type: ignore[arg-type]
