from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
from cmaes import CatCMAwM

from tunesmith import Categorical, Float, Goal, Integer, Ordinal, Prior, Space, Study, replay, samplers
from tunesmith.errors import install
from tunesmith.records import Asked, Failed, Told
from tunesmith.rng import subseed
from tunesmith.samplers import CMAES, Sampler
from tunesmith.samplers.cma import combinations
from tunesmith.testing import SamplerConformance, finite, mixed, nested, no_hang, play


class TestCMAES(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return CMAES()


class TestOneSearch(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return CMAES(branches=1, restarts="bipop", population=5, sigma=0.5)


def cube(d: int, low: float = 0.0, high: float = 1.0) -> Space:
    return Space({f"x{i}": Float(low, high) for i in range(d)})


def minimised(space: Space, sampler: CMAES, f: Any, trials: int, seed: int = 0) -> list[float]:
    study = Study(space, Goal("loss"), sampler, trials=trials, seed=seed)
    values = []
    while job := study.ask():
        values.append(f(job.config))
        study.tell(job, {"loss": values[-1]})
    return values


def offspring(state: Any, sampler: CMAES, n: int, f: Any) -> list[np.ndarray[Any, Any]]:
    """Points of a search that is driven without a study."""
    points = []
    for trial in range(n):
        point = sampler.ask(state, np.random.default_rng(trial))
        assert point is not None
        points.append(point)
        config = state.history.space.decode(point)
        state = sampler.tell(state, Asked(trial, 0, trial, config, 0, 1))
        state = sampler.tell(state, Told(trial, trial, 0, {"loss": [f(point)]}))
    return points


def test_it_is_the_library() -> None:
    """One worker on a continuous space: the points of the library's own loop, with the same seeds."""

    def f(x: np.ndarray[Any, Any]) -> float:
        return float(((x - 0.3) ** 2 * 10.0 ** np.arange(4)).sum())

    sampler = CMAES()
    state = sampler.init(cube(4), [Goal("loss")], np.random.default_rng(0))
    found = offspring(state, sampler, 160, f)
    library = CatCMAwM(
        x_space=[[0.0, 1.0]] * 4, mean=np.full(4, 0.5), sigma=sampler.sigma, cov=np.eye(4), population_size=8
    )
    expected: list[np.ndarray[Any, Any]] = []
    for generation in range(20):
        library.reseed_rng(subseed(state.searches[0].seed, "run 0", generation) % 2**32)
        drawn = [library.ask() for _ in range(8)]
        expected += [solution.x for solution in drawn]
        places = np.argsort(np.argsort([f(solution.x) for solution in drawn]))
        library.tell([(solution, float(place)) for solution, place in zip(drawn, places, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_sphere_and_ellipsoid_to_known_precision() -> None:
    space = cube(4, -5.0, 5.0)
    sphere = minimised(space, CMAES(), lambda c: sum((v - 1.2) ** 2 for v in c.values()), 600)
    assert min(sphere) < 1e-8
    bent = minimised(
        space, CMAES(), lambda c: sum(1e3 ** (i / 3) * (v - 1.2) ** 2 for i, v in enumerate(c.values())), 1000
    )
    assert min(bent) < 1e-6


def test_mixed_space_finds_its_optimum() -> None:
    space = Space(
        {"x": Float(-1.0, 1.0), "n": Integer(0, 20), "o": Ordinal([1, 2, 4, 8]), "c": Categorical(list("abcde"))}
    )

    def f(c: Any) -> float:
        return (c["x"] - 0.3) ** 2 + 0.1 * abs(c["n"] - 13) + abs(c["o"] - 4) + (0.0 if c["c"] == "d" else 1.0)

    best = [min(minimised(space, CMAES(), f, 250, seed)) for seed in range(3)]
    assert np.median(best) < 1e-3


def conditional() -> Space:
    return Space(
        {
            "model": Categorical(
                {
                    "small": Space({"p": Float(0.0, 1.0)}),
                    "large": Space({f"q{i}": Float(0.0, 1.0) for i in range(4)}),
                    "none": None,
                }
            )
        }
    )


def branch_loss(config: Any) -> float:
    if config["model"] == "none":
        return 0.5
    if config["model"] == "small":
        return 0.3 + (config["p"] - 0.2) ** 2
    return float(2 * sum((config[f"q{i}"] - 0.3 - 0.1 * i) ** 2 for i in range(4)))


@pytest.mark.parametrize("sampler", [CMAES(), CMAES(branches=1)], ids=["a search each", "one search"])
def test_branches_are_found(sampler: CMAES) -> None:
    ours = [min(minimised(conditional(), sampler, branch_loss, 100, seed)) for seed in range(5)]
    blind = [min(minimised(conditional(), samplers.Uniform(), branch_loss, 100, seed)) for seed in range(5)]  # type: ignore[arg-type]
    assert np.median(ours) < np.median(blind)


def test_combinations_of_branches() -> None:
    assert combinations(conditional().columns, 12) == [{0: 0}, {0: 1}, {0: 2}]
    assert len(combinations(nested().columns, 12)) == 2 + 3 + 1
    assert combinations(nested().columns, 5) == [{}]
    assert combinations(mixed().columns, 12) == [{5: 0}, {5: 1}, {5: 2}]
    assert combinations(finite().columns, 12) == [{}]


@pytest.mark.parametrize("restarts", ["ipop", "bipop", "none"])
def test_restarts_when_it_has_converged(restarts: Any) -> None:
    sampler = CMAES(restarts=restarts)
    state = sampler.init(cube(2), [Goal("loss")], np.random.default_rng(0))
    offspring(state, sampler, 600, lambda x: float(np.round(np.abs(x - 0.4).max(), 1)))
    search = state.searches[0]
    if restarts == "none":
        assert search.run == 0 and search.size == 6
    elif restarts == "ipop":
        assert search.run >= 1 and search.size == 6 * 2**search.run
    else:
        assert search.run >= 2 and search.doublings < search.run


def test_workers_beyond_the_population_get_points_and_late_results_count_once() -> None:
    sampler = CMAES(population=4)
    state = sampler.init(cube(2), [Goal("loss")], np.random.default_rng(0))
    search = state.searches[0]
    for trial in range(10):
        point = sampler.ask(state, np.random.default_rng(trial))
        assert point is not None
        state = sampler.tell(state, Asked(trial, 0, trial, state.history.space.decode(point), 0, 1))
    order = [9, 2, 5, 0, 1, 3, 4, 6, 7, 8]
    generations = []
    for trial in order:
        event = Failed(trial, trial, "on purpose") if trial == 2 else Told(trial, trial, 0, {"loss": [float(trial)]})
        state = sampler.tell(state, event)
        generations.append(search.library.generation)
    assert generations == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]  # two of the ten are too late for the second generation


def test_further_training_ranks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generation of which two points were trained on before the last result came."""
    found: list[list[float]] = []
    monkeypatch.setattr(CatCMAwM, "tell", lambda self, pairs: found.append([place for _, place in pairs]))
    sampler = CMAES(population=4)
    state = sampler.init(cube(2), [Goal("loss")], np.random.default_rng(0))
    for trial in range(4):
        point = sampler.ask(state, np.random.default_rng(trial))
        assert point is not None
        state = sampler.tell(state, Asked(trial, 0, trial, state.history.space.decode(point), 0, 1))
    for trial, start, loss in [(0, 0, 3.0), (1, 0, 1.0), (2, 0, 2.0), (1, 1, 9.0), (0, 1, 8.0)]:
        state = sampler.tell(
            state, Asked(9, 0, trial, state.history.space.decode(state.history.points[trial]), start, start + 1)
        )
        state = sampler.tell(state, Told(9, trial, start, {"loss": [loss]}))
    assert state.searches[0].best == 0 and not found
    state = sampler.tell(state, Told(3, 3, 0, {"loss": [0.0]}))
    assert found[0] == [0.0, 1.0, 3.0, 2.0]


def test_results_from_elsewhere_do_not_count() -> None:
    sampler = CMAES(population=4)
    state = sampler.init(cube(2), [Goal("loss")], np.random.default_rng(0))
    for trial in range(8):
        state = sampler.tell(state, Asked(trial, 0, trial, {"x0": trial / 8, "x1": 0.5}, 0, 1))
        state = sampler.tell(state, Told(trial, trial, 0, {"loss": [0.0]}))
    assert state.searches[0].library.generation == 0


@pytest.mark.parametrize("make_space", [mixed, nested, finite])
def test_replay_with_many_workers(make_space: Any) -> None:
    study = Study(make_space(), [Goal("score", maximise=True)], CMAES(population=4), seed=3, trials=120)
    play(study, np.random.default_rng(3), workers=16, faults=0.2)
    assert replay(study) == []


def test_it_begins_nearer_to_the_modes_the_surer_they_are() -> None:
    found = []
    for confidence in (0.2, 0.7, 1.0):
        prior = Prior(0.9, confidence)
        space = Space({"x": Float(0.0, 1.0, prior=prior), "c": Categorical(list(range(8)), Prior(5, confidence))})
        sampler = CMAES(sigma=0.05)
        state = sampler.init(space, [Goal("loss")], np.random.default_rng(0))
        points = np.array([slot.point for slot in map(state.searches[0].slot, range(400))])
        found.append((points[:, 0].mean(), (points[:, 1] == 5.5 / 8).mean()))
    expected = [(0.5 + 0.4 * c, c + (1 - c) / 8) for c in (0.2, 0.7, 0.75)]  # more than 0.75 is not believed
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_a_wrong_prior_forbids_nothing() -> None:
    """The option that is believed best with confidence 1 is worse than all others."""
    space = Space({"x": Float(0.0, 1.0), "c": Categorical(list("abcd"), Prior("d", 1.0))})
    best = [min(minimised(space, CMAES(), lambda c: c["x"] + (c["c"] != "a"), 80, seed)) for seed in range(5)]
    assert max(best) < 0.5


def test_a_population_does_not_grow_where_nothing_is_left_to_try() -> None:
    """Equal losses restart a search with a larger population; where most is known, it would double again and again."""
    space = Space({"n": Integer(1, 300)})
    study = Study(space, Goal("loss"), CMAES(population=4))
    with no_hang():
        while job := study.ask():
            study.tell(job, {"loss": 0.0})
    search = study.sampling()[1].searches[0]
    assert len(study.trials) == 300 and 8 <= search.size <= 300


def test_asking_more_often_than_there_are_draws_to_tell_apart() -> None:
    """All draws of a generation are pending, for any number of further asks."""
    sampler = CMAES()
    state = sampler.init(Space({"n": Integer(1, 3)}), [Goal("loss")], np.random.default_rng(0))
    with no_hang():
        for trial in range(10):
            point = sampler.ask(state, np.random.default_rng(trial))
            assert point is not None
            config = state.history.space.decode(point)
            state = sampler.tell(state, Asked(trial, 0, trial, config, 0, 1))
    assert state.searches[0].proposal() is None and state.history.size == 3


def test_long_integers_are_numbers() -> None:
    space = Space({"n": Integer(1, 2**40), "m": Integer(0, 5000)})
    values = minimised(space, CMAES(), lambda c: abs(c["n"] - 2**39) / 2**40 + abs(c["m"] - 4000) / 5000, 150)
    assert min(values) < 0.01


def test_options_are_checked() -> None:
    for options, message in [
        ({"population": 3}, "population=3 must be at least 4"),
        ({"sigma": 0.0}, r"sigma=0.0 must be in \(0, 1\]"),
        ({"restarts": "often"}, "restarts='often' must be"),
        ({"branches": 0}, "branches=0 must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            CMAES(**options)  # type: ignore[arg-type]


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(ImportError, match=re.escape(install("cmaes"))):
        CMAES().init(cube(2), [Goal("loss")], np.random.default_rng(0))
