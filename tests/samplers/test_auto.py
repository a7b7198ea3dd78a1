"""The sampler that picks the sampler."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from tunesmith import Float, Goal, Space, Study, replay, samplers, tune
from tunesmith.progress import Progress, chosen
from tunesmith.samplers import Sampler, auto
from tunesmith.testing import GOAL, SamplerConformance, mixed, play


class TestAuto(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return samplers.Auto()


def cube(d: int) -> Space:
    return Space({f"x{i}": Float(0.0, 1.0) for i in range(d)})


@pytest.mark.parametrize(
    ("columns", "goals", "trials", "workers", "name", "reason"),
    [
        (3, 1, 0, 1, "GP", "the study has 3 parameters, 1 goal and 1 job at once; from trial 1,000 on it is TPE"),
        (100, 3, 999, 64, "GP", "100 parameters, 3 goals and 64 jobs at once;"),
        (101, 1, 0, 1, "TPE", "101 parameters are more than 100"),
        (3, 4, 0, 1, "TPE", "4 goals are more than 3"),
        (3, 1, 0, 65, "TPE", "65 jobs at once are more than 64"),
        (3, 1, 1000, 1, "TPE", "1,000 trials are more than 999"),
    ],
)
def test_the_rule(columns: int, goals: int, trials: int, workers: int, name: str, reason: str) -> None:
    sampler, why = samplers.Auto().choose(cube(columns), [Goal(f"g{i}") for i in range(goals)], trials, workers)
    assert type(sampler).__name__ == name and reason in why


def test_it_is_the_chosen_sampler() -> None:
    """Until it changes over, the proposals are those of the sampler in charge with the same randomness."""
    study = Study(mixed(), [GOAL], samplers.Auto())
    play(study, np.random.default_rng(0), jobs=20)
    mine, its = samplers.Auto(), samplers.GP()
    seed = int(np.random.default_rng(5).integers(2**63))
    state = mine.init(study.space, [GOAL], np.random.default_rng(5))
    other = its.init(study.space, [GOAL], np.random.default_rng(seed))
    for event in study.events()[1:]:
        state, other = mine.tell(state, event), its.tell(other, event)
    first, second = mine.ask(state, np.random.default_rng(1)), its.ask(other, np.random.default_rng(1))
    assert first is not None and second is not None
    np.testing.assert_array_equal(first, second)


def test_another_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many trials TPE goes on with all that was told, and replay decides the same."""
    monkeypatch.setattr(auto, "TRIALS", 12)
    study = Study(cube(2), GOAL, samplers.Auto(), trials=30)
    for _ in range(30):
        job = study.ask()
        assert job is not None
        study.tell(job, {"score": -((job.config["x0"] - 0.3) ** 2)})
    assert replay(study) == [] and "TPE, since 30 trials are more than 11" in chosen(study)


def test_many_jobs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "WORKERS", 4)
    study = Study(mixed(), [GOAL], samplers.Auto())
    for job in study.ask(10):
        study.tell(job, {"score": job.config["lr"]})
    assert len(study.ask(3)) == 3 and replay(study) == []


def test_it_is_the_default_of_tune_and_says_what_it_chose() -> None:
    stream = io.StringIO()
    with Progress(stream=stream) as progress:
        study = tune(lambda config: config["x0"], cube(1), minimise="loss", trials=3, progress=progress)
    assert study.definition.sampler.name == "Auto"
    assert stream.getvalue().count("sampler: GP, since the study has 1 parameter, 1 goal and 1 job at once; from") == 1
    assert chosen(Study(cube(1), GOAL, samplers.Uniform())) == ""
