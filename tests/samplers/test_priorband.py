from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith import Categorical, Float, Goal, Integer, Prior, Space, Study, replay
from tunesmith.records import Asked, Constraint, Failed, Told
from tunesmith.samplers import PriorBand, Sampler, Uniform
from tunesmith.samplers.priorband import from_prior, uniform_share
from tunesmith.schedulers import ASHA, Hyperband
from tunesmith.testing import GOAL, SamplerConformance, finite, mixed, nested, play

LOSS = [Goal("loss")]


class TestPriorBand(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return PriorBand()


class TestSmallSteps(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return PriorBand(eta=2, mutation=0.1, scale=0.01)


def begun(sampler: PriorBand, space: Space, goals: Any = LOSS, constraints: Any = ()) -> Any:
    return sampler.init(space, goals, np.random.default_rng(0), constraints)


def trained(sampler: Any, state: Any, trial: int, config: Any, metrics: Any, until: int = 1, start: int = 0) -> Any:
    """A job that ends at ``until``; its last value is given, the ones before it are the same."""
    state = sampler.tell(state, Asked(trial, 0, trial, config, start, until))
    if metrics is None:
        return sampler.tell(state, Failed(trial, trial, "on purpose"))
    return sampler.tell(state, Told(trial, trial, start, {k: [v] * (until - start) for k, v in metrics.items()}))


def asked(sampler: Any, state: Any, n: int, until: int = 1) -> np.ndarray[Any, Any]:
    return np.array([sampler.ask(state, np.random.default_rng(seed), until) for seed in range(n)])


def believing(mode: float = 0.9, confidence: float = 0.95, columns: int = 2) -> Space:
    return Space({f"x{i}": Float(0.0, 1.0, prior=Prior(mode, confidence)) for i in range(columns)})


def test_the_first_trial_is_the_one_that_experts_believe_best() -> None:
    sampler, space = PriorBand(), nested()
    point = sampler.ask(begun(sampler, space), np.random.default_rng(5))
    assert point is not None and point[0] == pytest.approx(0.5 / 3)  # nothing is believed: the first option
    sampler, space = PriorBand(), believing(0.9)
    np.testing.assert_allclose(sampler.ask(begun(sampler, space), np.random.default_rng(5)), [0.9, 0.9])


def test_the_share_of_uniform_draws_falls_with_the_rung() -> None:
    sampler, space = PriorBand(), believing()
    state = begun(sampler, space)
    assert uniform_share(state.history, 9) == 1 / 2  # nothing shorter is known
    for trial in range(2):
        state = trained(sampler, state, trial, {"x0": 0.1, "x1": trial / 10}, {"loss": 1.0})
    for rung, until in enumerate([1, 3, 9, 27]):
        assert uniform_share(state.history, until) == 1 / (1 + 3**rung)
        points = asked(sampler, state, 400, until)
        far = (np.abs(points - 0.9) > 0.25).any(axis=1).mean()  # five deviations of the prior
        assert far == pytest.approx(0.88 / (1 + 3**rung), abs=0.07)


def test_the_best_are_those_of_the_highest_rung_with_enough_results() -> None:
    sampler, space = PriorBand(), Space({"x": Float(0.0, 1.0)})
    state = begun(sampler, space)
    assert not len(sampler.best(state.history))
    for trial, loss in enumerate([4.0, 2.0, None, 3.0, 1.0, 5.0, 6.0]):
        state = trained(sampler, state, trial, {"x": trial / 10}, None if loss is None else {"loss": loss})
    np.testing.assert_allclose(sampler.best(state.history)[:, 0], [0.4, 0.1])
    for trial, loss in [(0, 0.3), (1, 0.2)]:
        state = trained(sampler, state, trial, {"x": trial / 10}, {"loss": loss}, 3, start=1)
    np.testing.assert_allclose(sampler.best(state.history)[:, 0], [0.4, 0.1])
    state = trained(sampler, state, 3, {"x": 0.3}, {"loss": 0.1}, 3, start=1)
    np.testing.assert_allclose(sampler.best(state.history)[:, 0], [0.3])


def test_a_trial_that_breaks_a_constraint_is_no_incumbent() -> None:
    sampler, space = PriorBand(), Space({"x": Float(0.0, 1.0)})
    state = begun(sampler, space, constraints=[Constraint("size", 1.0)])
    for trial, size in enumerate([2.0, 0.5, 3.0]):
        state = trained(sampler, state, trial, {"x": trial / 10}, {"loss": float(trial), "size": size})
    np.testing.assert_allclose(sampler.best(state.history)[:, 0], [0.1])


def test_the_results_decide_between_prior_and_incumbent() -> None:
    sampler = PriorBand()
    columns = believing(0.9, 0.5).columns
    weights = np.array([2.0, 1.0]) / 3
    near_prior = np.array([[0.9, 0.9], [0.85, 0.92]])
    near_each_other = np.array([[0.1, 0.1], [0.15, 0.08]])
    apart = np.array([[0.1, 0.1], [0.9, 0.9]])
    shares = [sampler.incumbent_share(columns, best[0], best, weights) for best in (near_each_other, apart, near_prior)]
    assert shares[0] > 0.9 and shares == sorted(shares, reverse=True)
    # by hand: one column, one result; two normals cut to [0, 1], around 0.5 and around 1.0
    from scipy.stats import truncnorm

    one = Space({"x": Float(0.0, 1.0, prior=Prior(1.0, 0.5))}).columns
    near = truncnorm.pdf(0.5, -2, 2, loc=0.5, scale=0.25)
    believed = truncnorm.pdf(0.5, -2, 0, loc=1.0, scale=0.5)
    share = sampler.incumbent_share(one, np.array([0.5]), np.array([[0.5]]), np.ones(1))
    assert share == pytest.approx(near / (near + believed))


def test_branches_count_only_where_they_are_taken() -> None:
    sampler, space = PriorBand(), nested()
    rng = np.random.default_rng(0)
    best = np.array([space.encode(space.sample(rng)) for _ in range(30)])
    for incumbent in best:
        assert 0 < sampler.incumbent_share(space.columns, incumbent, best, np.full(30, 1 / 30)) < 1


def test_mutants_differ_from_the_incumbent_in_some_places_by_small_steps() -> None:
    space = Space({f"x{i}": Float(0.0, 1.0) for i in range(8)} | {"c": Categorical([1, 2, 3])})
    sampler, start = PriorBand(), np.array([0.5] * 9)
    rng = np.random.default_rng(0)
    changes = np.array([sampler.mutate(space, start, rng) - start for _ in range(1000)])
    assert (changes != 0).any(axis=1).all()
    assert (changes != 0).mean(axis=0) == pytest.approx(0.5, abs=0.06)
    sizes = np.abs(changes[:, :8][changes[:, :8] != 0])
    assert 0.02 < np.median(sizes) < 0.1 and sizes.max() > 0.35


def test_draws_from_the_prior_fill_the_branches_that_are_taken() -> None:
    branch = Space({"y": Float(0.0, 1.0, prior=Prior(0.2, 0.95))})
    space = Space({"c": Categorical({"no": None, "yes": branch}, prior=Prior("yes", 0.8)), "n": Integer(1, 5)})
    rng = np.random.default_rng(0)
    drawn = [space.decode(from_prior(space, rng)) for _ in range(400)]
    assert np.mean([c["c"] == "yes" for c in drawn]) == pytest.approx(0.9, abs=0.05)
    assert np.mean([c["y"] for c in drawn if "y" in c]) == pytest.approx(0.2, abs=0.02)  # type: ignore[arg-type,type-var]


def test_with_several_goals_there_is_more_than_one_incumbent() -> None:
    space = Space({"x": Float(0.0, 1.0)})
    goals = [Goal("error"), Goal("cost")]
    sampler = PriorBand(mutation=0.01, scale=0.001)
    state = begun(sampler, space, goals)
    for trial, x in enumerate(np.linspace(0.1, 0.9, 9)):
        state = trained(sampler, state, trial, {"x": float(x)}, {"error": x, "cost": 1 - x})
    best = sampler.best(state.history)[:, 0]
    points = asked(sampler, state, 300, until=27)[:, 0]
    close = {int(np.argmin(np.abs(best - point))) for point in points if np.abs(best - point).min() < 0.01}
    assert close == {0, 1, 2}


@pytest.mark.parametrize("make_space", [mixed, nested, finite])
@pytest.mark.parametrize("scheduler", [Hyperband(9, rounds=2), ASHA(9)])
def test_replay_over_rungs_with_many_workers(make_space: Any, scheduler: Any) -> None:
    study = Study(make_space(), GOAL, PriorBand(), scheduler, seed=3, trials=60)
    play(study, np.random.default_rng(3), workers=12, faults=0.1)
    assert replay(study) == []


OPTIMUM = (0.3, 0.7, 0.55, 0.2)


def best(sampler: Any, seed: int, modes: Any = None, steps: int = 400) -> float:
    """Regret in full training after so many steps of Hyperband; the trials differ in how fast they learn."""
    priors = [None] * 4 if modes is None else [Prior(mode, 0.5) for mode in modes]
    space = Space({f"x{i}": Float(0.0, 1.0, prior=prior) for i, prior in enumerate(priors)})
    study = Study(space, Goal("loss"), sampler, Hyperband(27), seed=seed)
    spent, found = 0, np.inf
    while spent < steps and (job := study.ask()):
        x = np.array([job.config[f"x{i}"] for i in range(4)])
        loss = float(((x - OPTIMUM) ** 2).sum())
        study.tell(job, {"loss": [loss + (0.5 + x[0]) / step for step in range(job.start + 1, job.until + 1)]})
        spent += job.until - job.start
        found = min(found, loss) if job.until == 27 else found
    return found


def test_good_priors_help_and_bad_ones_are_recovered_from() -> None:
    def median(sampler: Any, modes: Any = None) -> float:
        return float(np.median([best(sampler, seed, modes) for seed in range(9)]))

    blind = median(Uniform())
    good = median(PriorBand(), [0.35, 0.65, 0.5, 0.25])
    bad = median(PriorBand(), [0.95, 0.05, 0.05, 0.95])
    assert good < 0.5 * bad and good < 0.3 * blind
    assert bad < 0.8 * blind


def test_options_are_checked() -> None:
    for options, message in [
        ({"eta": 1}, "eta=1 must be at least 2"),
        ({"mutation": 0.0}, r"mutation=0.0 must be in \(0, 1\]"),
        ({"scale": 1.0}, r"scale=1.0 must be in \(0, 1\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            PriorBand(**options)  # type: ignore[arg-type]
