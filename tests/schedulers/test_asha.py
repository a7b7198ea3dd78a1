"""ASHA: promotion and stopping, any order of results, asynchronous Hyperband."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Fidelity, Float, Goal, Integer, Ordinal, Space, Study, replay, samplers
from tunesmith.records import Asked, Told
from tunesmith.schedulers import ASHA, Scheduler
from tunesmith.schedulers._trust import Trust
from tunesmith.testing import GOAL, SchedulerConformance, play

SPACE = Space({"x": Float(0.0, 1.0)})
LOSS = Goal("loss")


class TestASHA(SchedulerConformance):
    trials = 60

    def make(self) -> Scheduler[Any]:
        return ASHA(27)


class TestASHAStopping(SchedulerConformance):
    trials = 60

    def make(self) -> Scheduler[Any]:
        return ASHA(27, stopping=True)


class TestASHABrackets(SchedulerConformance):
    trials = 60

    def make(self) -> Scheduler[Any]:
        return ASHA(27, eta=2, brackets=3)


class TestASHAAuto(SchedulerConformance):
    trials = 30

    def make(self) -> Scheduler[Any]:
        return ASHA(27, brackets="auto")


def told(study: Study, loss: float) -> Any:
    job = study.ask()
    study.tell(job, {"loss": loss})
    return job


def test_promotes_the_best_third_as_soon_as_there_is_one() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=ASHA(9))
    jobs = [told(study, loss) for loss in (0.5, 0.3, 0.9)]
    assert [job.until for job in jobs] == [1, 1, 1]
    job = study.ask()
    assert (job.trial, job.start, job.until) == (1, 1, 3)
    study.tell(job, {"loss": 0.2})
    assert [told(study, loss).until for loss in (0.4, 0.8)] == [1, 1]  # of four or five trials only the best goes on
    assert told(study, 0.1).until == 1
    assert study.ask().trial == 5  # of six the best two are 0.1 and 0.3, which was promoted


def test_the_highest_rung_goes_first() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=ASHA(9))
    jobs = [study.ask() for _ in range(12)]
    for job in jobs[:9]:
        study.tell(job, {"loss": job.trial})
    promoted = [study.ask() for _ in range(3)]
    assert [job.until for job in promoted] == [3, 3, 3]
    for job in promoted:
        study.tell(job, {"loss": job.trial})
    for job in jobs[9:]:
        study.tell(job, {"loss": -1})
    assert (study.ask().until, study.ask().until) == (9, 3)


def test_the_first_at_a_rung_goes_on_in_the_stopping_variant() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=ASHA(9, stopping=True))
    assert [told(study, loss).until for loss in (0.5, 0.4, 0.3)] == [1, 3, 9]
    assert [told(study, loss).until for loss in (0.9, 0.6)] == [1, 1]  # worse than the best third: stopped
    first = told(study, 0.1)
    assert first.until == 1 and study.ask().trial == first.trial
    assert sorted(trial.step for trial in study.trials) == [1, 1, 1, 9]


def reference(results: dict[int, list[tuple[float, int]]], failed: Counter[int], promoted: set[tuple[int, int]],
              steps: tuple[int, ...], eta: int) -> tuple[int, int] | None:  # fmt: skip
    """ASHA's get_job (Li et al. 2020, Algorithm 2): the trial to promote and its rung; None: a new trial."""
    for k in reversed(range(len(steps) - 1)):
        ranked = sorted(results[k])
        count = len(ranked) + failed[k]
        for _, trial in ranked[: count // eta]:
            if (k, trial) not in promoted:
                return trial, k
    return None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(2, 4))
def test_decides_as_the_paper_does(seed: int, workers: int, eta: int) -> None:
    """Any order of results and failures, against a reference that sorts everything."""
    rng = np.random.default_rng(seed)
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=ASHA(eta**3, eta=eta))
    steps = study.scheduler.rungs
    results: dict[int, list[tuple[float, int]]] = defaultdict(list)
    failed: Counter[int] = Counter()
    promoted: set[tuple[int, int]] = set()
    out: list[Any] = []
    for _ in range(80):
        if len(out) < workers:
            expected = reference(results, failed, promoted, steps, eta)
            job = study.ask()
            if expected is None:
                assert (job.start, job.until) == (0, steps[0])
            else:
                assert (job.trial, job.until) == (expected[0], steps[expected[1] + 1])
                promoted.add((expected[1], expected[0]))
            out.append(job)
        if len(out) == workers or rng.random() < 0.3:
            job = out.pop(int(rng.integers(len(out))))
            k = steps.index(job.until)
            if rng.random() < 0.1:
                study.fail(job, "on purpose")
                failed[k] += 1
            else:
                loss = float(rng.integers(6))
                study.tell(job, {"loss": loss})
                results[k].append((loss, job.trial))
    assert replay(study) == []


def test_each_bracket_begins_one_rung_higher() -> None:
    study = Study(SPACE, GOAL, sampler=samplers.Uniform(), scheduler=ASHA(27, brackets=4), trials=400)
    play(study, np.random.default_rng(0), workers=8, jobs=5000)
    first = Counter(event.until for event in study.events() if isinstance(event, Asked) and event.start == 0)
    shares = np.array([27, 9 * 4 / 3, 3 * 2, 4])
    expected = 400 * shares / shares.sum()
    assert set(first) <= {1, 3, 9, 27}
    np.testing.assert_allclose([first[1], first[3], first[9], first[27]], expected, atol=4 * np.sqrt(100))
    assert replay(study) == []


@pytest.mark.parametrize("trials", [1, 2, 10])
@pytest.mark.parametrize("stopping", [False, True])
def test_few_trials_end_with_a_full_training(trials: int, stopping: bool) -> None:
    study = Study(SPACE, LOSS, samplers.QMC(), ASHA(27, stopping=stopping), trials=trials)
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": job.config["x"]})
    assert len(study.trials) == trials and max(trial.step for trial in study.trials) == 27 and replay(study) == []


def test_a_finite_space_is_promoted_to_the_end() -> None:
    study = Study(Space({"a": Integer(1, 9)}), LOSS, sampler=samplers.Uniform(), scheduler=ASHA(27))
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": job.config["a"]})
    steps = {trial.config["a"]: trial.step for trial in study.trials}
    assert (len(steps) == 9 and steps[1] == 27 and "nothing is left" not in study.message) or study.message
    assert replay(study) == []


def test_keeps_only_what_may_go_on() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=ASHA(9))
    for loss in (3, 1, 2):
        told(study, loss)
    assert study.startable() == {(0, 1), (1, 1), (2, 1)}
    assert told(study, 0.5).trial == 1
    assert study.startable() == {(0, 1), (2, 1), (1, 3)}


def search(loss: Any, trials: int, workers: int = 1) -> Study:
    """A study with curves ``loss(x, step)``."""
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=ASHA(27, brackets="auto"), trials=trials)
    while jobs := study.ask(workers):
        for job in jobs:
            study.tell(job, {"loss": [loss(job.config["x"], step) for step in range(job.start + 1, job.until + 1)]})
    assert replay(study) == []
    return study


def starts(study: Study) -> list[int]:
    return [event.until for event in study.events() if isinstance(event, Asked) and event.start == 0]


@pytest.mark.parametrize("workers", [1, 8])
def test_rungs_that_order_as_the_end_does_are_trusted(workers: int) -> None:
    study = search(lambda x, step: x + 1 / step, 200, workers)
    asked = starts(study)
    assert asked[:8] == [27] * 2 + [1] * 6 and set(asked) == {1, 27}
    full = 27 * asked.count(27)
    assert 0.1 < full / sum(trial.step for trial in study.trials) < 0.35
    assert study._log.decider.scheduling()[1].trust.first == 0


def test_rungs_that_mislead_are_not() -> None:
    """The better at the end, the worse until step 20: every trial is trained in full."""
    study = search(lambda x, step: x if step > 20 else 1 - x, 30)
    assert set(starts(study)) == {27} and {trial.step for trial in study.trials} == {27}


def test_the_lowest_trusted_rung_is_where_trials_begin() -> None:
    study = search(lambda x, step: x if step > 6 else 1 - x, 250)
    assert set(starts(study)[150:]) == {9, 27} and study._log.decider.scheduling()[1].trust.first == 2


def test_no_curves_no_judgement() -> None:
    """Jobs that tell only their last value say nothing of the rungs: those are trusted as assumed beforehand."""
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=ASHA(27, brackets="auto"), trials=40)
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": job.config["x"]})
    assert set(starts(study)) == {1, 27} and replay(study) == []


def test_agreement_is_counted_over_pairs_and_goals() -> None:
    trust = Trust((1, 3, 9), [LOSS, Goal("size")])
    for trial, (early, late) in enumerate([(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 4.0)]):
        trust.asked(Asked(trial, 0, trial, {}, 0, 9))
        curve = [early, early, early, late, late, late, late, late, late]
        trust.told(Told(trial, trial, 0, {"loss": curve, "size": [-value for value in curve]}))
    assert trust.first == 0  # at rung 0 five of six pairs agree: (5 + 2.25) / 9
    trust = Trust((1, 3, 9), [LOSS])
    for trial, (early, late) in enumerate([(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 0.0)]):
        trust.asked(Asked(trial, 0, trial, {}, 0, 9))
        trust.told(Told(trial, trial, 0, {"loss": [early, late, late, late, late, late, late, late, late]}))
    assert trust.first == 1  # two of six pairs agree at rung 0, all at rung 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"brackets": 0}, "brackets=0 must be 'auto', or from 1 to the number of rungs, 4"),
        ({"brackets": 5}, "brackets=5 must be"),
        ({"brackets": "auto", "stopping": True}, "can't be stopping=True"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ASHA(27, **options)


def test_fidelities_have_no_curves_to_trust() -> None:
    with pytest.raises(ValueError, match="with fidelities give a number"):
        Study(
            Space({**SPACE, "share": Fidelity(0.1, 1.0)}),
            LOSS,
            sampler=samplers.Uniform(),
            scheduler=ASHA(27, brackets="auto"),
        )


@pytest.mark.parametrize("brackets", [1, 2, "auto"])
@pytest.mark.parametrize("goals", [1, 2])
def test_trainings_that_have_ended_by_themselves_do_not_count_as_trained_in_full(brackets, goals):
    """Some end at once, and are bad: then the best of the others is trained to its end, too."""
    names = ["loss", "other"][:goals]
    for seed in range(10):
        study = Study(
            Space({"x": Float(0.0, 1.0), "end": Ordinal([1, 2, 40])}), [Goal(name) for name in names],
            sampler=samplers.QMC(), scheduler=ASHA(27, brackets=brackets), trials=12, seed=seed,
        )  # fmt: skip
        while (job := study.ask()) is not None:
            last = min(job.until, job.config["end"])
            losses = [job.config["x"] + 1 / step for step in range(job.start + 1, last + 1)]
            study.tell(job, dict.fromkeys(names, losses) if losses else None, ended=last < job.until)
        assert replay(study) == []
        assert study.best is not None
        full = [trial for trial in study.trials if trial.step == 27]
        assert full or study.best.ended, (seed, [(trial.id, trial.step, trial.status) for trial in study.trials])


def test_where_all_trainings_end_by_themselves_nobody_is_trained_in_vain():
    study = Study(Space({"x": Float(0.0, 1.0)}), Goal("loss"), scheduler=ASHA(27, brackets=2), trials=20)
    steps = 0
    while (job := study.ask()) is not None:
        last = min(job.until, 4)
        steps += max(0, last - job.start)
        losses = [job.config["x"] + 1 / step for step in range(job.start + 1, last + 1)]
        study.tell(job, {"loss": losses} if losses else None, ended=last < job.until)
    assert study.best is not None and study.best.ended
    assert steps < 20 * 4
