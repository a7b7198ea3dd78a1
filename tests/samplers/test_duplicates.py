"""Studies that may try a configuration again: noisy values on few configurations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from tunesmith import Categorical, Goal, Integer, Space, samplers
from tunesmith.records import AnyEvent, Asked, Failed, Told
from tunesmith.samplers.base import Points, Walk
from tunesmith.testing import finite, mixed

LOSS = [Goal("loss")]
FEW = Space({"a": Integer(1, 5), "b": Categorical(["x", "y", "z"])})  #: 15 configurations
BEST = {"a": 4, "b": "y"}


def noisy(config: Any, rng: np.random.Generator) -> float:
    return float((config["a"] - 4) ** 2 / 4 + {"x": 1.0, "y": 0.0, "z": 0.6}[config["b"]] + 0.25 * rng.normal())


def tried(sampler: Any, seed: int, trials: int = 100) -> list[Any]:
    """What is tried, one after another, where every proposal is taken."""
    state = sampler.init(FEW, LOSS, np.random.default_rng(seed), duplicates=True)
    noise = np.random.default_rng([seed, 1])
    configs = []
    for trial in range(trials):
        point = sampler.ask(state, np.random.default_rng([seed, 2, trial]))
        assert point is not None
        config = FEW.decode(point)
        configs.append(config)
        state = sampler.tell(state, Asked(trial, 0, trial, config, 0, 1))
        state = sampler.tell(state, Told(trial, trial, 0, {"loss": [noisy(config, noise)]}))
    return configs


@pytest.mark.parametrize(
    ("sampler", "least"),
    [
        (samplers.RegularizedEvolution(), 0.4),
        (samplers.NSGA2(population=8), 0.25),
        (samplers.DEHB(), 0.3),
        (samplers.CMAES(), 0.25),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_best_of_a_few_noisy_configurations_is_tried_most(sampler: Any, least: float) -> None:
    """Its share of the trials 30 to 100, over 10 seeds, is several times that of random search, 1/15."""
    shares = [np.mean([config == BEST for config in tried(sampler, seed)[30:]]) for seed in range(10)]
    assert np.mean(shares) > least


@pytest.mark.parametrize("sequence", ["sobol", "halton"])
def test_a_sequence_takes_every_configuration_equally_often(sequence: Any) -> None:
    counts = Counter(tuple(config.values()) for config in tried(samplers.QMC(sequence), 0, 150))
    assert len(counts) == 15 and min(counts.values()) >= 7 and max(counts.values()) <= 13


def test_a_grid_is_gone_through_again_and_again() -> None:
    configs = tried(samplers.Grid(), 0, 50)
    assert configs == [*FEW.configs(), *FEW.configs(), *FEW.configs(), *FEW.configs()][:50]


def test_a_sequence_goes_on_where_its_own_points_were_taken() -> None:
    """Others do not move it, whether they are new or points of the sequence that come later."""
    points = [FEW.encode({"a": a, "b": "x"}) for a in (1, 2, 2, 3)]
    walk = Walk(FEW, Points(FEW, lambda: iter(points)), duplicates=True)
    seen = []
    for trial, own in enumerate([None, {"a": 5, "b": "z"}, None, {"a": 3, "b": "x"}, None, None]):
        point = walk.next()
        assert point is not None
        config = FEW.decode(point)
        if own is None:
            seen.append(config["a"])
        walk.tell(Asked(trial, 0, trial, own or config, 0, 1))
    assert seen == [1, 2, 2, 3]
    first = walk.next()
    assert first is not None and FEW.decode(first)["a"] == 1  # and again


@pytest.mark.parametrize(
    "sampler",
    [
        samplers.RegularizedEvolution(population=4, sample=2),
        samplers.NSGA2(population=4),
        samplers.DEHB(population=4),
        samplers.CMAES(population=4),
        samplers.CMAES(restarts="bipop", branches=1),
        samplers.CMAES(restarts="none"),
        samplers.PriorBand(),
        samplers.QMC(),
        samplers.Uniform(),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
@pytest.mark.parametrize("make_space", [finite, mixed])
def test_many_workers(sampler: Any, make_space: Any) -> None:
    """Twelve jobs are out, some fail and some go on: the same events give the same answers again."""
    space, rng = make_space(), np.random.default_rng(0)
    state = sampler.init(space, LOSS, np.random.default_rng(1), duplicates=True)
    events: list[AnyEvent] = []
    answers: list[tuple[int, int, Any]] = []  # after so many events, for this trial
    out: dict[int, tuple[Any, int]] = {}  # by trial: its configuration, and where its job starts
    going_on: list[int] = []
    trial = 0
    while trial < 150 or out:
        news: AnyEvent
        if going_on:
            done = going_on.pop()
            out[done] = out[done][0], 1
            news = Asked(trial, 0, done, out[done][0], 1, 2)
        elif trial < 150 and len(out) < 12:
            point = sampler.ask(state, np.random.default_rng(trial))
            assert point is not None
            answers.append((len(events), trial, point))
            config = space.decode(point)
            space.check(config)
            out[trial] = config, 0
            news = Asked(trial, 0, trial, config, 0, 1)
            trial += 1
        else:
            done = list(out)[int(rng.integers(len(out)))]
            start = out[done][1]
            if rng.random() < 0.1:
                news = Failed(done, done, "on purpose")
            else:
                news = Told(done, done, start, {"loss": [rng.normal()]})
            if start == 0 and done % 3 == 0 and isinstance(news, Told):
                going_on.append(done)
            else:
                del out[done]
        events.append(news)
        state = sampler.tell(state, news)
    again = sampler.init(space, LOSS, np.random.default_rng(1), duplicates=True)
    told = 0
    for number, asked, point in answers:
        while told < number:
            again = sampler.tell(again, events[told])
            told += 1
        np.testing.assert_array_equal(sampler.ask(again, np.random.default_rng(asked)), point)
