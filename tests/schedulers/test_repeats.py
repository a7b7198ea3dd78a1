"""Schedulers that train a configuration several times: ``Full(seeds=...)`` and ``Race``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Constraint, Float, Goal, Ordinal, Space, Study, replay, samplers
from tunesmith.schedulers import PBT, Full, Race
from tunesmith.study import Job
from tunesmith.testing import GOAL, finite, mixed, play, studies

SPACE = Space({"x": Float(0.0, 1.0), "y": Float(0.0, 1.0)})
LOSS = Goal("loss")


def true(config: Any) -> float:
    return float((config["x"] - 0.3) ** 2 + (config["y"] - 0.3) ** 2)


def noisy(seed: int, sigma: float = 0.1) -> Callable[[Job], float]:
    rng = np.random.default_rng(seed)
    return lambda job: true(job.config) + sigma * rng.normal()


def fill(study: Study, value: Callable[[Job], float], workers: int = 1) -> Study:
    """Work on a study to its end, with that many jobs out at once."""
    out: list[Job] = []
    while True:
        job = study.ask() if len(out) < workers else None
        if job is not None:
            out.append(job)
        elif out:
            done = out.pop(0)
            study.tell(done, {goal.metric: value(done) for goal in study.goals})
        else:
            return study


def counts(study: Study) -> list[int]:
    """Trials of every configuration, in the order of their beginning."""
    return list(Counter(t.id if t.repeat_of is None else t.repeat_of for t in study.trials).values())


# -- Full ---


@pytest.mark.parametrize("workers", [1, 4, 20])
def test_full_trains_every_configuration_so_often(workers: int) -> None:
    study = fill(Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Full(seeds=3), trials=14), noisy(0), workers)
    assert counts(study) == [3, 3, 3, 3, 2] and replay(study) == []
    assert [trial.repeat for trial in study.trials] == [0, 1, 2] * 4 + [0, 1]


def test_a_finite_space_ends_after_all_repeats() -> None:
    study = Study(finite(), GOAL, sampler=samplers.Uniform(), scheduler=Full(seeds=3))
    play(study, np.random.default_rng(0), workers=5)
    assert counts(study) == [3] * 11 and study.ask() is None and "nothing is left" in study.message


def test_code_that_raises_is_not_called_again_for_the_same_configuration() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Full(seeds=5), trials=4)
    while job := study.ask():
        study.fail(job, "on purpose")
    assert counts(study) == [1, 1, 1, 1]


def test_a_configuration_is_owed_its_trials_again_when_others_succeed() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Full(seeds=4), trials=8)
    first, second, third = study.ask(3)
    study.fail(first, "out of luck")
    other = study.ask()
    assert other is not None and other.repeat == 0
    for job in (second, third):
        study.tell(job, {"loss": 1.0})
    fourth = study.ask()
    assert fourth is not None and fourth.config == first.config and replay(study) == []


# -- Race ---


def test_the_race_finds_better_configurations_than_luck() -> None:
    """With as many evaluations, what is chosen by the race is truly better than the luckiest one."""
    found: dict[str, list[float]] = {"race": [], "plain": []}
    for seed in range(50):
        for name, scheduler in (("race", Race()), ("plain", Full())):
            best = fill(
                Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=scheduler, seed=seed, trials=60), noisy(seed)
            ).best
            assert best is not None
            found[name].append(true(best.config))
    race, plain = np.mean(found["race"]), np.mean(found["plain"])
    assert race < 0.75 * plain, f"race {race}, plain {plain}"


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_race_keeps_to_its_limits(workers: int, share: float) -> None:
    study = fill(
        Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Race(seeds=5, share=share), trials=150),
        noisy(1, 1.0),
        workers,
    )
    seeds = counts(study)
    assert max(seeds) == 5 and sum(n - 1 for n in seeds) <= share * 150
    for n in range(1, 151):
        assert sum(trial.repeat > 0 for trial in study.trials[:n]) <= share * n + 1
    assert replay(study) == []


def test_every_configuration_gets_its_first_seeds() -> None:
    study = fill(
        Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Race(seeds=6, first=3, share=0.3), trials=90), noisy(2)
    )
    seeds = counts(study)
    assert min(seeds[:-1]) == 3 and max(seeds) == 6
    assert sum(max(0, n - 3) for n in seeds) <= 0.3 * 90


@pytest.mark.parametrize("workers", [1, 6])
def test_deterministic_values_are_soon_repeated_no_more(workers: int) -> None:
    study = fill(
        Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Race(), trials=80),
        lambda job: true(job.config),
        workers,
    )
    assert 1 <= sum(trial.repeat > 0 for trial in study.trials) <= 2 + workers
    assert study.best is not None
    assert true(study.best.config) == min(true(trial.config) for trial in study.trials)


@pytest.mark.parametrize("workers", [1, 7])
def test_a_finite_space_is_gone_through_once_and_then_the_race_goes_on(workers: int) -> None:
    """What may be spent on new configurations is spent on the race where there are none any more."""
    study = Study(finite(), GOAL, sampler=samplers.Uniform(), scheduler=Race())
    rng = np.random.default_rng(0)
    fill(study, lambda job: float(rng.normal()), workers)
    assert len(counts(study)) == 11 and 22 < len(study.trials) <= 110 and "nothing is left" in study.message
    firsts = [study.space.key(trial.config) for trial in study.trials if trial.repeat_of is None]
    assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize(("gap", "trials"), [(0.0, [40]), (1.0, range(7, 12))], ids=["alike", "unequal"])
def test_a_race_in_a_finite_space_ends_when_it_is_decided_and_says_so(gap: float, trials: Any) -> None:
    """Four configurations that are all alike are trained ``seeds`` times each; clearly unequal ones are not."""
    space = Space({"a": Ordinal([1, 2, 3, 4])})
    study = Study(space, GOAL, sampler=samplers.Uniform(), scheduler=Race(), trials=60)
    fill(study, lambda job: gap * job.config["a"] + (-1) ** job.repeat * 0.01)
    assert len(study.trials) in trials
    assert study.message.startswith("nothing is left to try: all 4 configurations were tried; the race is decided")
    study = Study(space, GOAL, sampler=samplers.Uniform(), scheduler=Race(), trials=5)
    fill(study, lambda job: (-1.0) ** job.repeat)
    assert study.message == "all 5 trials were started"


@pytest.mark.parametrize("before", [Full(4), Full(4, seeds=2), Race(steps=4)])
def test_with_more_steps_trials_go_on(before: Any) -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=before, trials=6)
    fill(study, lambda job: 1.0 + job.trial)
    ended = study.ask()
    assert ended is None and {trial.step for trial in study.trials} == {4}
    study.change(scheduler=Race(steps=9))
    assert {trial.status for trial in study.trials} == {"paused"}
    assert study.startable() == {(trial.id, 4) for trial in study.trials}
    jobs = study.ask(3)
    assert [(job.trial, job.start, job.until) for job in jobs] == [(0, 4, 9), (1, 4, 9), (2, 4, 9)]
    study.fail(jobs[0], "diverged")
    study.fail(jobs[1], "the worker vanished", "lost")
    study.tell(jobs[2], {"loss": 0.5}, ended=True)
    fill(study, lambda job: 1.0 + job.trial)
    assert [trial.step for trial in study.trials] == [4, 9, 5, 9, 9, 9] and study.startable() == set()
    assert replay(study) == []


def test_repeats_that_are_out_count() -> None:
    """While the answer is on its way the same question is not asked by every free worker."""
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Race(seeds=4))
    value = noisy(3, 0.5)
    for _ in range(12):
        study.tell(job := study.ask(1)[0], {"loss": value(job)})
    study.ask(30)
    assert max(counts(study)) <= 4
    assert sum(trial.repeat > 0 for trial in study.trials) <= 0.5 * len(study.trials)


def test_the_noisy_leader_is_challenged_first() -> None:
    """The race is between the best ones: what is clearly worse is not repeated."""
    study = fill(Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Race(), trials=100, seed=5), noisy(5, 0.03))
    often = [t.id for t in study.trials if t.repeat_of is None and len(study.trials.repeated.get(t.id, ())) >= 4]
    ranks = sorted((true(t.config), t.id) for t in study.trials if t.repeat_of is None)
    assert often and {trial for _, trial in ranks[: len(ranks) // 2]} >= set(often)


def test_the_race_passes_over_what_fails_or_breaks_a_constraint() -> None:
    study = Study(
        SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Race(), constraints=[Constraint("memory", 1.0)], trials=80
    )
    value = noisy(6)
    while job := study.ask():
        if job.config["y"] < 0.3:
            study.fail(job, "on purpose")
        else:
            study.tell(job, {"loss": value(job), "memory": 2.0 if job.config["x"] < 0.3 else 0.5})
    for trial in study.trials:
        assert trial.repeat == 0 or (trial.config["x"] >= 0.3 and trial.config["y"] >= 0.3)
    assert any(trial.repeat for trial in study.trials) and replay(study) == []


def test_the_direction_of_the_goal() -> None:
    up = fill(
        Study(SPACE, Goal("score", True), sampler=samplers.Uniform(), scheduler=Race(), trials=50),
        lambda job: -noisy(job.trial)(job),
    )
    down = fill(
        Study(SPACE, Goal("score"), sampler=samplers.Uniform(), scheduler=Race(), trials=50),
        lambda job: noisy(job.trial)(job),
    )
    assert [trial.config for trial in up.trials] == [trial.config for trial in down.trials]
    assert up.best is not None and down.best is not None and up.best.id == down.best.id


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e160, 1e300])
def test_extreme_values(scale: float) -> None:
    rng = np.random.default_rng(0)
    study = fill(
        Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Race(), trials=60),
        lambda job: scale * float(rng.normal()),
        3,
    )
    assert len(study.trials) == 60 and study.best is not None and replay(study) == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    study=studies(
        st.builds(Full, steps=st.integers(1, 6), seeds=st.integers(1, 5))
        | st.builds(
            Race,
            steps=st.integers(1, 6),
            seeds=st.integers(3, 8),
            first=st.integers(1, 3),
            share=st.floats(0.1, 0.9),
            reach=st.floats(0.5, 4.0),
        )
    )
)
def test_any_interleaving_replays_and_nothing_is_evaluated_twice_by_accident(study: Study) -> None:
    assert replay(study) == []
    firsts = [study.space.key(trial.config) for trial in study.trials if trial.repeat_of is None]
    assert len(set(firsts)) == len(firsts)
    for same in study.trials.repeated.values():
        assert [trial.repeat for trial in same] == list(range(len(same)))
        assert all(trial.config == same[0].config for trial in same)
    assert max(counts(study)) <= study.definition.scheduler.options["seeds"]


@pytest.mark.parametrize("scheduler", [Full(seeds=3), Race(seeds=4)], ids=["Full", "Race"])
def test_two_writers_on_one_study(scheduler: Any, tmp_path: Path) -> None:
    """Each sees the repeats that the other one has out."""
    value = noisy(7)
    both = [
        Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=scheduler, store=tmp_path / "a.db", trials=40)
        for _ in range(2)
    ]
    out: list[tuple[Study, Job]] = []
    for turn in range(200):
        study = both[turn % 2]
        job = study.ask() if len(out) < 6 else None
        if job is not None:
            out.append((study, job))
        elif out:
            owner, job = out.pop(0)
            owner.tell(job, {"loss": value(job)})
    both[0].sync()
    assert len(both[0].trials) == 40 and max(counts(both[0])) <= scheduler.seeds and replay(both[0]) == []
    for study in both:
        study.close()


def test_a_study_goes_over_to_the_race_and_on() -> None:
    """What other schedulers have begun is raced too, as far as it was trained for as long."""
    study = Study(mixed(), GOAL, samplers.QMC(), Full(4), trials=40)
    play(study, np.random.default_rng(0), jobs=12, faults=0.2)
    study.change(scheduler=Race(4))
    play(study, np.random.default_rng(1), jobs=20, faults=0.2)
    assert any(trial.repeat_of is not None and trial.repeat_of < 12 for trial in study.trials)
    study.change(scheduler=Race(6))
    play(study, np.random.default_rng(2), jobs=10)
    study.change(scheduler=PBT(population=4, ready=2, steps=6))
    play(study, np.random.default_rng(3), jobs=10)
    assert replay(study) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Full(seeds=0), "seeds=0 must be at least 1"),
        (lambda: Race(steps=0), "steps=0 must be at least 1"),
        (lambda: Race(seeds=1), "seeds=1 must be at least 2"),
        (lambda: Race(seeds=3, first=4), "first=4 must be from 1 to seeds=3"),
        (lambda: Race(share=1.0), "share=1.0 must be in"),
        (lambda: Race(reach=0.0), "reach=0.0 must be over 0"),
    ],
)
def test_wrong_options_are_explained(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
