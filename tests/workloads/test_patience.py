"""The toys that tell a greedy population from a patient one, and who solves them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tunesmith import Goal, Study, samplers
from tunesmith.cli.expressions import construct
from tunesmith.schedulers import FIRE, MFPBT, PB2, PBT, Full
from tunesmith.workloads.toy import Decay, Quadratic


def train(task: Any, h: Any) -> float:
    """The final loss of a schedule, a function of the share of the training that is done."""
    state = task.init({})
    for step in range(task.steps):
        name = "lr" if isinstance(task, Quadratic) else "h"
        state, metrics = task.step(state, {name: h(step / task.steps)})
    return float(metrics["loss"])


def best(task: Any, scheduler: Any, population: int, seed: int) -> float:
    """The best final loss of a population, or of random search with as many trials, from the same beginning."""
    limit = population if isinstance(scheduler, Full) else None
    study = Study(task.space(), Goal("loss"), samplers.Uniform(), scheduler, seed=seed, trials=limit)
    for config in task.first(population, np.random.default_rng(seed)):
        study.enqueue(config)
    states: dict[Any, Any] = {}
    while jobs := study.ask(population):
        for job in jobs:
            state = task.init(job.config) if not job.start else None
            state = state or states.get((job.trial, job.start)) or states[job.parent, job.start]
            values = []
            for _ in range(job.start, job.until):
                state, metrics = task.step(task.load(task.save(state), job.config), job.config)
                values.append(metrics["loss"])
            states[job.trial, job.until] = state
            study.tell(job, {"loss": values})
    winner = study.best
    assert winner is not None
    return winner.last("loss") or math.nan


# -- the toys ---


def test_plain_decay_is_exact() -> None:
    assert train(Decay(), lambda t: 0.0) == pytest.approx((0.9 * 0.996**1000) ** 2)
    assert train(Decay(), lambda t: 1.0) == pytest.approx((0.9 * 0.998**1000) ** 2)


def test_what_deceives() -> None:
    """Low h is the better one at first, and the worse one in the end; following the target is the best."""
    task = Decay(deceptive=True)
    short = Decay(deceptive=True, steps=task.steps)
    early = [short.init({}), short.init({})]
    for _ in range(100):
        early = [short.step(state, {"h": h})[0] for state, h in zip(early, (0.0, 1.0), strict=True)]
    assert early[0][1] < early[1][1]
    assert train(task, lambda t: 1 - t) < 0.1 * train(task, lambda t: 0.0)
    assert train(task, lambda t: 1 - t) == pytest.approx(0.81 * math.exp(-4 * 1.5), rel=0.02)


def test_shocks_come_as_often_as_they_should_and_are_reproducible() -> None:
    task = Decay(shocks=0.01)
    count = 0
    for seed in range(20):
        state = task.init({}, np.random.default_rng(seed))
        for _ in range(1000):
            state, _ = task.step(state, {"h": 1.0})
            count += state[1] == 0.9
        assert task.load(task.save(state), {}) == state
    assert 150 < count < 250


def test_a_learning_rate_that_is_lowered_early_loses() -> None:
    """Greedy: the learning rate that is best for the next steps, again and again. Patient: a decay in time."""
    task = Quadratic()
    state, rates = task.init({}), np.geomspace(1e-3, 1.9, 25)
    for _ in range(50):
        after = []
        for rate in rates:
            then = state
            for _ in range(20):
                then, metrics = task.step(then, {"lr": rate})
            after.append((metrics["loss"], then))
        greedy, state = min(after)
    constant = min(train(task, lambda t, rate=rate: rate) for rate in rates)
    patient = train(task, lambda t: 0.3 * 0.01 ** max(0.0, (t - 0.2) / 0.8))
    assert patient < 0.6 * constant < 0.6 * greedy


def test_a_learning_rate_that_is_too_high_diverges_and_stays_finite() -> None:
    assert 1e5 < train(Quadratic(), lambda t: 2.9) < 1e6


# -- who solves them ---


def test_a_bandit_needs_fewer_members_where_greed_is_right() -> None:
    options = {"population": 4, "ready": 50, "steps": 1000}
    pb2 = [best(Decay(), PBT(**options, explore=PB2()), 4, seed) for seed in range(3)]
    pbt = [best(Decay(), PBT(**options), 4, seed) for seed in range(3)]
    random = [best(Decay(), Full(1000), 4, seed) for seed in range(3)]
    assert max(pb2) < 0.5 * min(pbt) and max(pbt) < 0.5 * min(random)


def test_patience_pays_where_greed_deceives() -> None:
    """Decisions that follow each other soon: the greedy population falls behind, FIRE does not."""
    options = {"population": 16, "ready": 10, "steps": 1000}
    pbt = [best(Decay(deceptive=True), PBT(**options), 16, seed) for seed in range(3)]
    fire = [best(Decay(deceptive=True), FIRE(**options), 16, seed) for seed in range(3)]
    assert np.median(fire) < 0.5 * np.median(pbt)


@pytest.mark.parametrize(
    "text",
    [
        "PBT(population=4, ready=50, steps=200, explore=PB2(window=20))",
        "PBT(population=4, ready=50, steps=200, backtrack=Backtrack(rungs=1))",
        "MFPBT(population=4, ready=50, steps=200, frequencies=[1, 2])",
        "FIRE(population=5, ready=50, steps=200)",
    ],
)
def test_every_kind_is_reached_by_its_name(text: str) -> None:
    from tunesmith import schedulers

    known = {name: getattr(schedulers, name) for name in schedulers.__all__}
    assert best(Quadratic(steps=200), construct(text, known, "scheduler"), 5, 0) < 2.0
    assert MFPBT.__name__ in known
