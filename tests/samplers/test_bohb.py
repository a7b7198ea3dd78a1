from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith import Float, Goal, Space, Study, replay
from tunesmith.records import Asked, Failed, Told
from tunesmith.samplers import BOHB, TPE, Sampler, Uniform
from tunesmith.samplers.base import FAILED, OBSERVED, PENDING
from tunesmith.schedulers import ASHA, Hyperband
from tunesmith.testing import GOAL, SamplerConformance, finite, mixed, nested, play


class TestBOHB(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return BOHB()


def folded(sampler: Any, study: Study) -> Any:
    state = sampler.init(study.space, study.goals, np.random.default_rng(0))
    for event in study.events()[1:]:
        state = sampler.tell(state, event)
    return state


def test_one_proposal_in_three_is_a_uniform_draw_and_the_others_are_the_models() -> None:
    study = Study(mixed(), GOAL, Uniform(), Hyperband(9), trials=40)
    play(study, np.random.default_rng(0), faults=0.1)
    state = folded(BOHB(), study)
    model = BOHB().highest(state)
    assert model is not None
    uniform = 0
    for seed in range(300):
        proposed, expected = np.random.default_rng(seed), np.random.default_rng(seed)
        point = BOHB().ask(state, proposed, 1)
        if expected.random() < 1 / 3:
            uniform += 1
            other = study.space.encode(study.space.sample(expected))
        else:
            found = TPE(candidates=64).ask(model, expected, 1)
            assert found is not None
            other = found
        np.testing.assert_array_equal(point, other)
    assert uniform == pytest.approx(100, abs=25)


def trained(sampler: BOHB, state: Any, trial: int, loss: float | None, until: int = 1, start: int = 0) -> Any:
    """A job of the trial at x = trial / 100 that ends at ``until``."""
    state = sampler.tell(state, Asked(trial, 0, trial, {"x": trial / 100}, start, until))
    if loss is None:
        return sampler.tell(state, Failed(trial, trial, "on purpose"))
    return sampler.tell(state, Told(trial, trial, start, {"loss": [loss] * (until - start)}))


def test_the_model_is_that_of_the_highest_rung_with_enough_results() -> None:
    sampler = BOHB(model=TPE(startup=4))
    state = sampler.init(Space({"x": Float(0.0, 1.0)}), [Goal("loss")], np.random.default_rng(0))
    for trial in range(8):
        assert (sampler.highest(state) is None) == (trial < 4)
        state = trained(sampler, state, trial, float(trial))
    for trial in range(5):
        assert sampler.highest(state) is state.models[1]
        state = trained(sampler, state, trial, float(-trial) if trial else None, until=3, start=1)
    high = sampler.highest(state)
    assert high is state.models[3]
    assert high.history.losses[:, 0].tolist()[1:] == [-1.0, -2.0, -3.0, -4.0]
    assert high.history.status.tolist() == [FAILED] + [OBSERVED] * 4
    assert state.models[1].history.status.tolist() == [FAILED] + [OBSERVED] * 7  # failed later: bad on all its rungs


def test_who_is_on_the_way_is_known_to_the_model_of_that_rung() -> None:
    sampler = BOHB(uniform=0.0)
    state = sampler.init(Space({"x": Float(0.0, 1.0)}), [Goal("loss")], np.random.default_rng(0))
    for trial in range(12):
        state = trained(sampler, state, trial, float(trial))
    state = sampler.tell(state, Asked(12, 0, 12, {"x": 0.5}, 0, 1))
    state = sampler.tell(state, Asked(13, 0, 0, {"x": 0.0}, 1, 3))
    assert state.models[1].history.status.tolist() == [OBSERVED] * 12 + [PENDING]
    assert state.models[3].history.status.tolist() == [PENDING]


def test_the_log_holds_the_options_of_the_model(tmp_path: Any) -> None:
    sampler = BOHB(uniform=0.1, model=TPE(startup=5, weights="uniform"))
    with Study(mixed(), GOAL, sampler, Hyperband(9), store=tmp_path / "study.db", trials=10) as study:
        play(study, np.random.default_rng(0))
    with Study.open(tmp_path / "study.db") as again:
        assert again.sampling()[0] == sampler and replay(again) == []


@pytest.mark.parametrize("make_space", [mixed, nested, finite])
@pytest.mark.parametrize("scheduler", [Hyperband(9, rounds=2), ASHA(9)])
def test_replay_over_rungs_with_many_workers(make_space: Any, scheduler: Any) -> None:
    study = Study(make_space(), GOAL, BOHB(), scheduler, seed=3, trials=60)
    play(study, np.random.default_rng(3), workers=12, faults=0.1)
    assert replay(study) == []


def best(sampler: Any, seed: int, steps: int = 27 * 25) -> float:
    """Regret in full training after so many steps of Hyperband."""
    space = Space({f"x{i}": Float(0.0, 1.0) for i in range(4)})
    study = Study(space, Goal("loss"), sampler, Hyperband(27), seed=seed)
    spent, found = 0, np.inf
    while spent < steps and (job := study.ask()):
        x = np.array([job.config[f"x{i}"] for i in range(4)])
        loss = float(((x - (0.3, 0.7, 0.55, 0.2)) ** 2).sum())
        study.tell(job, {"loss": [loss + (0.5 + x[0]) / step for step in range(job.start + 1, job.until + 1)]})
        spent += job.until - job.start
        found = min(found, loss) if job.until == 27 else found
    return found


def test_it_beats_random_search_over_the_same_brackets() -> None:
    ours = [best(BOHB(), seed) for seed in range(12)]
    blind = [best(Uniform(), seed) for seed in range(12)]
    assert np.median(ours) < 0.4 * np.median(blind)
    assert sum(a < b for a, b in zip(ours, blind, strict=True)) >= 9


@pytest.mark.parametrize("uniform", [-0.1, 1.1])
def test_options_are_checked(uniform: float) -> None:
    with pytest.raises(ValueError, match=rf"uniform={uniform} must be in \[0, 1\]"):
        BOHB(uniform)
