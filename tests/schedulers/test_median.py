"""The median stopping rule against a naive implementation of it, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_low
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Constraint, Float, Goal, Space, Study, replay, samplers
from tunesmith.records import Asked, Failed, Told
from tunesmith.schedulers import Full, Median, Scheduler
from tunesmith.schedulers.median import Quantile
from tunesmith.study import Job
from tunesmith.testing import SchedulerConformance
from tunesmith.trials import Checkpoint

SPACE = Space({"x": Float(0.0, 1.0)})
LOSS = Goal("loss")


class TestMedian(SchedulerConformance):
    trials = 30

    def make(self) -> Scheduler[Any]:
        return Median(10, every=2, min_trials=2)


class TestQuarter(SchedulerConformance):
    trials = 40

    def make(self) -> Scheduler[Any]:
        return Median(11, every=3, min_steps=5, min_trials=1, quantile=0.25)


def train(study: Study, curves: Sequence[Sequence[float]], order: Sequence[int] | None = None) -> list[int]:
    """Train trial after trial on its curve, and say where each one stands in the end."""
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": list(curves[job.trial][job.start : job.until])})
    return [trial.step for trial in study.trials]


def tell(study: Study, job: Job, loss: float) -> None:
    """The same loss at every step, and a checkpoint."""
    saved = Checkpoint(job.trial, job.until, "where", "digest")
    study.tell(job, {"loss": [loss] * (job.until - job.start)}, checkpoint=saved)


def made(rule: Median, trials: int, **more: Any) -> Study:
    return Study(SPACE, more.pop("goals", LOSS), sampler=samplers.Uniform(), scheduler=rule, trials=trials, **more)


def test_behind_the_median_of_the_averages() -> None:
    """The averages at step 2 are 1.5, 3, 5, then 6.05, then 7: more than half must be better than a trial's best."""
    curves = [[2.0, 1.0, 1, 1], [3.0, 3.0, 3, 3], [5.0, 5.0, 5, 5], [9.0, 3.1, 3, 3], [9.0, 5, 4, 4], [9.0, 5.1, 4, 4]]
    assert train(made(Median(4, every=2, min_trials=3), 6), curves) == [4, 4, 4, 2, 4, 2]


def test_the_best_value_so_far_counts_not_the_last() -> None:
    curves = [[2.0, 2.0, 2.0]] * 3 + [[1.5, 9.0, 9.0]]
    assert train(made(Median(3, min_trials=3), 4), curves) == [3, 3, 3, 3]


def test_equal_is_not_behind() -> None:
    """Also where the average of equal values comes out a bit smaller by rounding."""
    curves = [[0.1] * 30] * 20
    assert train(made(Median(30, min_trials=1), 20), curves) == [30] * 20


def test_nothing_is_stopped_before_there_are_others_or_steps_enough() -> None:
    curves = [[float(number)] * 6 for number in range(8)]
    assert train(made(Median(6, min_trials=5), 8), curves) == [6, 6, 6, 6, 6, 1, 1, 1]
    study = made(Median(6, every=2, min_steps=3, min_trials=1), 8)
    assert train(study, curves) == [6, 4, 4, 4, 4, 4, 4, 4]
    assert [(job.start, job.until) for job in asked(study) if job.trial == 0] == [(0, 4), (4, 6)]


@pytest.mark.parametrize(("quantile", "stopped"), [(0.1, 18), (0.25, 15), (0.5, 10), (0.75, 5), (0.9, 2)])
def test_a_quantile_stops_so_many(quantile: float, stopped: int) -> None:
    """The last of 21 trials, whatever its place among them is."""
    found = 0
    for place in range(20):
        curves = [[float(number)] * 2 for number in range(20)] + [[place + 0.5] * 2]
        study = made(Median(2, min_trials=20, quantile=quantile), 21)
        found += train(study, curves)[-1] == 1
    assert found == pytest.approx(stopped, abs=1)


def test_to_maximise() -> None:
    curves = [[float(number)] * 2 for number in (5, 5, 5, 4, 6)]
    assert train(made(Median(2, min_trials=3), 5, goals=Goal("loss", maximise=True)), curves) == [2, 2, 2, 1, 2]


def test_trials_that_were_stopped_or_failed_count_where_they_came() -> None:
    """Nobody is complete, and the rule stops; a trial that has failed before the step is not among the others."""
    study = made(Median(4, every=2, min_trials=3), 9)
    jobs = [study.ask() for _ in range(5)]
    for job, loss in zip(jobs, [1.0, 2.0, 3.0, 4.0, None], strict=True):
        if loss is None:
            study.fail(job, "on purpose")
        else:
            tell(study, job, loss)
    assert study.keep() >= {(0, 2), (1, 2), (2, 2)}
    going_on = [study.ask() for _ in range(4)]
    assert [job.trial for job in going_on] == [0, 1, 2, 5]  # the fourth was behind three others
    study.fail(going_on[0], "on purpose")
    tell(study, going_on[3], 2.5)  # the averages of the others are 1, 2, 3, 4
    assert study.ask().trial == 5


def test_several_goals_behind_in_all() -> None:
    goals = [Goal("loss"), Goal("accuracy", maximise=True)]
    study = made(Median(2, min_trials=3), 6, goals=goals)
    values = [(1, 0.9), (2, 0.8), (3, 0.7), (9, 0.95), (0.5, 0.1), (9, 0.1)]
    while (job := study.ask()) is not None:
        loss, accuracy = values[job.trial]
        study.tell(job, {"loss": loss, "accuracy": accuracy})
    assert [trial.step for trial in study.trials] == [2, 2, 2, 2, 2, 1]


def test_who_breaks_a_constraint_is_behind_all_who_do_not() -> None:
    """And trials that break it, however good, don't make those fall behind that don't."""
    study = made(Median(2, min_trials=3), 8, constraints=Constraint("size", 10.0))
    values = [(1, 30), (1, 30), (1, 30), (9, 5), (8, 5), (7, 5), (0.5, 20), (7, 5)]
    while (job := study.ask()) is not None:
        loss, size = values[job.trial]
        study.tell(job, {"loss": loss, "size": size})
    assert [trial.step for trial in study.trials] == [2, 2, 2, 2, 2, 2, 2, 2]
    job = None
    study = made(Median(2, min_trials=3), 5, constraints=Constraint("size", 10.0))
    values = [(9, 5), (9, 5), (9, 5), (0.5, 20), (9, 5)]
    while (job := study.ask()) is not None:
        loss, size = values[job.trial]
        study.tell(job, {"loss": loss, "size": size})
    assert [trial.step for trial in study.trials] == [2, 2, 2, 1, 2]


def test_the_best_of_those_that_wait_goes_first() -> None:
    study = made(Median(4, min_trials=50), 50)
    jobs = [study.ask() for _ in range(6)]
    for job, loss in zip(jobs, [3.0, 1.0, 2.0, 1.0, 5.0, 4.0], strict=True):
        tell(study, job, loss)
    assert study.keep() == {(trial, 1) for trial in range(6)}
    assert [study.ask().trial for _ in range(8)] == [1, 3, 2, 0, 5, 4, 6, 7]


def test_after_a_migration_the_past_counts() -> None:
    """Trials of ``Full`` fill the steps of the rule that takes over, and those of a shorter one go on."""
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Full(4), trials=4)
    train(study, [[float(number)] * 4 for number in range(4)])
    study.change(scheduler=Median(6, every=2, min_trials=3))
    curves = [[float(number)] * 6 for number in (0, 1, 2, 3, 0.5, 2.5)]
    study.limit = 6
    assert train(study, curves) == [6, 6, 6, 4, 6, 2]
    assert replay(study) == []


# -- against the naive rule --------------------------------------------------------------------------------------


def asked(study: Study) -> list[Asked]:
    return [event for event in study.events() if isinstance(event, Asked)]


class Naive:
    """The rule as it is written: lists, and a count over all of them."""

    def __init__(self, rule: Median) -> None:
        self.rule = rule
        self.values: dict[int, dict[int, float]] = {}
        self.until: dict[int, int] = {}
        self.averages: dict[int, dict[int, float]] = {}
        self.going: set[int] = set()
        """Trials that are to be resumed."""

    def fold(self, event: Any) -> None:
        if isinstance(event, Asked) and "retry" not in event.tags:
            assert event.trial in self.going if event.trial in self.values else not self.going
            self.values.setdefault(event.trial, {})
            self.until[event.trial] = event.until
            self.going.discard(event.trial)
        elif isinstance(event, Told):
            values = {step: loss for step, loss in self.values[event.trial].items() if step <= event.start}
            values |= dict(enumerate(event.metrics["loss"], event.start + 1))
            self.values[event.trial] = values
            if event.step >= self.until[event.trial] and event.step < self.rule.max_steps and not self.behind(event):
                self.going.add(event.trial)

    def behind(self, event: Told) -> bool:
        rule, step, values = self.rule, event.step, list(self.values[event.trial].values())
        assert step % rule.every == 0 and step >= rule.min_steps
        others = self.averages.setdefault(step, {})
        count = sum(mean < min(values) for mean in others.values())
        enough = len(others) >= rule.min_trials
        verdict = enough and count > rule.quantile * len(others)
        assert event.trial not in others
        others[event.trial] = sum(values) / len(values)
        return verdict


def interleave(study: Study, rng: np.random.Generator, workers: int, faults: float) -> list[Any]:
    """Random curves of few different values, told in parts and out of order, with failures."""
    out: list[Job] = []
    while True:
        job = study.ask() if len(out) < workers else None
        if job is not None:
            out.append(job)
            if rng.random() < 0.6:
                continue
        if not out:
            return study.events()
        job = out.pop(int(rng.integers(len(out))))
        values = (rng.integers(0, 5, job.until - job.start) * 0.5).tolist()
        part = int(rng.integers(len(values)))
        if part and rng.random() < 0.5:
            saved = Checkpoint(job.trial, job.start + part, "part", "digest")
            study.tell(job, {"loss": values[:part]}, checkpoint=saved if rng.random() < 0.5 else None)
            values = values[part:]
        if rng.random() < faults:
            study.fail(job, "on purpose", "lost" if rng.random() < 0.7 else "raised")
        else:
            study.tell(job, {"loss": values}, checkpoint=Checkpoint(job.trial, job.until, "end", "digest"))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.0, 0.2]), st.integers(1, 4), st.integers(1, 7),
    st.integers(1, 6), st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.95]),
)  # fmt: skip
def test_as_the_naive_rule(
    seed: int, workers: int, faults: float, every: int, min_steps: int, min_trials: int, quantile: float
) -> None:
    rule = Median(9, every, min_steps, min_trials, quantile)
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=rule, trials=25, seed=seed)
    naive = Naive(rule)
    for event in interleave(study, np.random.default_rng(seed), workers, faults):
        naive.fold(event)
    assert not naive.going
    assert replay(study) == []
    complete = [trial for trial in study.trials if trial.status == "complete"]
    assert all(trial.step == 9 or trial.step % every == 0 for trial in complete)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_a_quantile_of_two_heaps(numbers: list[int], share: float) -> None:
    quantile = Quantile(share)
    for count, number in enumerate(numbers, 1):
        quantile.add((float(number % 3), float(number)))
        ordered = sorted((float(n % 3), float(n)) for n in numbers[:count])
        assert quantile.value == ordered[math.floor(share * (count - 1))]
        assert len(quantile) == count
    middle = Quantile(0.5)
    for number in numbers:
        middle.add((0.0, float(number)))
    assert middle.value == (0.0, median_low(numbers))


def test_a_decision_takes_logarithmic_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in comparisons of values, with 20,000 trials at one step."""
    compared = 0

    class Counted(tuple):
        def __lt__(self, other: Any) -> bool:
            nonlocal compared
            compared += 1
            return tuple.__lt__(self, other)

    monkeypatch.setattr("tunesmith.schedulers.median._negated", lambda v: Counted((-v[0], -v[1])))
    quantile = Quantile(0.5)
    for loss in np.random.default_rng(0).random(20_000).tolist():
        before = compared
        quantile.add(Counted((0.0, loss)))
        assert compared - before <= 6 * math.log2(len(quantile) + 1) + 6
    assert compared > 20_000


def test_states_of_stopped_trials_are_forgotten() -> None:
    """What is kept of a trial that was stopped is one number a step at which it was judged."""
    rule = Median(3, min_trials=2)
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=rule, trials=200)
    state = rule.init(SPACE, [LOSS])
    train(study, [[float(number)] * 3 for number in range(200)])
    for event in study.events():
        if isinstance(event, Asked | Told | Failed):
            rule.tell(state, event)
    assert not state.slices.courses and not state.slices.waiting and not list(rule.keep(state))
    assert len(state.averages[1][0]) == 200 and len(state.averages[2][0]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 11}, "every=11 must be from 1 to max_steps=10"),
        ({"min_steps": 0}, "min_steps=0 must be from 1 to max_steps=10"),
        ({"min_trials": 0}, "min_trials=0 must be at least 1"),
        ({"quantile": 1.0}, r"quantile=1.0 must be in \(0, 1\)"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Median(10, **arguments)


@pytest.mark.parametrize("order", [1, -1])
def test_a_training_that_is_over_stands_as_it_did(order: int) -> None:
    """As if its last value had been told at every step up to the end, whoever comes first."""
    rng = np.random.default_rng(0)
    curves = [rng.normal(size=20).cumsum() for _ in range(8)]
    ends = [4, 20, 9, 20, 1, 20, 20, 13][::order]

    def averages(over: bool) -> dict[int, tuple[int, float]]:
        study = Study(Space({"x": Float(0.0, 1.0)}), Goal("loss"), samplers.Uniform(), Median(20, min_trials=100))
        for curve, end in zip(curves, ends, strict=True):
            curve[end:] = curve[end - 1]
            trial = len(study.trials)
            while (trial == len(study.trials) or study.startable()) and (job := study.ask()):
                ended = over and job.until == end < 20
                study.tell(job, {"loss": list(curve[job.start : job.until])}, ended=ended)
            assert study.trials[trial].step == (end if over else 20)
        _, state = study._log.decider.scheduling()
        return {step: (len(one), pytest.approx(one.value[1])) for step, [one] in state.averages.items()}

    found = averages(over=False)
    assert averages(over=True) == found and {count for count, _ in found.values()} == {8}
