"""PBT: exploit rules, forks, failures, synchronous generations, fairness."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tunesmith import Float, Goal, Space, Study, replay, samplers
from tunesmith.schedulers import PBT, Jitter, Perturb, Tournament, Truncation, TTest
from tunesmith.schedulers._exploit import welch
from tunesmith.schedulers._standing import Standing
from tunesmith.study import Job
from tunesmith.trials import Checkpoint

SPACE = Space({"h": Float(0.01, 100.0, log=True)})


def run(
    scheduler: PBT, value: Callable[[Job], Any] = lambda job: job.config["h"], workers: int = 1, seed: int = 0
) -> tuple[Study, list[Job]]:
    """Run a population; with several workers, first asked is first told. Returns the study and its jobs."""
    study = Study(SPACE, Goal("value", maximise=True), samplers.QMC(), scheduler, seed=seed)
    jobs: list[Job] = []
    out: list[Job] = []
    while True:
        job = study.ask() if len(out) < workers else None
        if job is not None:
            jobs.append(job)
            out.append(job)
            continue
        if not out:
            return study, jobs
        done = out.pop(0)
        saved = Checkpoint(done.trial, done.until, f"{done.trial}/{done.until}", "digest")
        study.tell(done, {"value": value(done)}, checkpoint=saved)


def standings(*losses: float) -> list[Standing]:
    return [Standing(0.0, (loss,), trial, trial, 10, (loss,)) for trial, loss in enumerate(losses)]


# -- exploit ---


def test_truncation_replaces_the_bottom_by_the_top() -> None:
    ranking = standings(*range(10))
    rng = np.random.default_rng(0)
    chosen = {i: {Truncation(0.2).select(ranking[i], ranking, rng) for _ in range(50)} for i in range(10)}
    assert all(chosen[i] == {None} for i in range(8))
    assert chosen[8] == chosen[9] == {ranking[0], ranking[1]}


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_truncation_in_a_small_population(n: int) -> None:
    """At least one is replaced where there are two, and nobody copies himself."""
    ranking = standings(*range(n))
    rng = np.random.default_rng(0)
    chosen = [Truncation(0.2).select(member, ranking, rng) for member in ranking]
    assert chosen == ([None] if n == 1 else [None] * (n - 1) + [ranking[0]])


def test_tournament_copies_a_better_rival_only() -> None:
    ranking = standings(0.0, 1.0, 2.0)
    rng = np.random.default_rng(0)
    chosen = [Counter(Tournament().select(member, ranking, rng) for _ in range(1000)) for member in ranking]
    assert set(chosen[0]) == {None}
    assert set(chosen[1]) == {None, ranking[0]} and 420 < chosen[1][None] < 580
    assert set(chosen[2]) == {ranking[0], ranking[1]} and 420 < chosen[2][ranking[0]] < 580


def test_ties_are_broken_by_age() -> None:
    """Equal members of a synchronous population do exploit each other: the younger copies the older."""
    ranking = standings(1.0, 1.0)
    rng = np.random.default_rng(0)
    for rule in (Tournament(), Truncation(0.5)):
        assert rule.select(ranking[0], ranking, rng) is None
        assert rule.select(ranking[1], ranking, rng) is ranking[0]


def test_welch_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((2, 2), (10, 10), (3, 17)):
        a, b = rng.normal(0, 1, n), rng.normal(0.5, 3, m)
        assert welch(a, b) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, rel=1e-12)
    assert welch(np.array([1.0]), np.array([1.0, 2.0])) == 1.0
    assert welch(np.ones(3), np.ones(3)) == 1.0
    assert welch(np.ones(3), np.zeros(3)) == 0.0


def test_t_test_wants_evidence() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 10))

    def standing(trial: int, values: np.ndarray) -> Standing:
        recent = tuple(enumerate(values.tolist(), 1))
        return Standing(0.0, (float(values.mean()),), trial, trial, 10, recent)

    close = [standing(0, noise[0]), standing(1, noise[1] + 0.1)]
    apart = [standing(0, noise[0]), standing(1, noise[1] + 5.0)]
    assert TTest().select(close[1], sorted(close), rng) is None
    assert TTest().select(apart[1], sorted(apart), rng) == apart[0]
    assert TTest().select(apart[0], sorted(apart), rng) is None


def test_t_test_sees_the_last_values_of_a_trial() -> None:
    """One value a step: the window holds the last ones, across jobs."""
    scheduler = PBT(population=2, ready=4, steps=12, exploit=TTest(window=6), explore=None)
    noise = np.random.default_rng(0)
    study, _ = run(scheduler, lambda job: [job.config["h"] + 0.01 * noise.normal() for _ in range(4)])
    forks = [trial for trial in study.trials if trial.parent is not None]
    assert len(forks) == 1 and forks[0].config == study.trials[forks[0].parent or 0].config


# -- forks ---


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_population_trains_its_steps(synchronous: bool, workers: int) -> None:
    study, jobs = run(PBT(population=8, ready=5, steps=23, synchronous=synchronous), workers=workers)
    replaced = {trial.replaces for trial in study.trials}
    final = [trial for trial in study.trials if trial.id not in replaced]
    assert len(final) == 8 and all(trial.step == 23 for trial in final)
    assert sum(job.until - job.start for job in jobs) == 8 * 23
    assert replay(study) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_the_end_of_the_population_is_said(workers: int) -> None:
    study, _ = run(
        PBT(population=4, ready=1, steps=3),
        lambda job: math.nan if job.trial == 1 else job.config["h"],
        workers=workers,
    )
    assert len(study.trials) > 4 and study.trials.failed == 1
    assert study.message == "all 4 members of the population have come to their end"


def test_exploit_copies_the_better_and_explores() -> None:
    study, _ = run(PBT(population=8, ready=5, steps=50, exploit=Truncation(0.25)))
    forks = [trial for trial in study.trials if trial.parent is not None]
    assert forks
    for fork in forks:
        donor = study.trials[fork.parent or 0]
        replaced = study.trials[fork.replaces if fork.replaces is not None else -1]
        assert donor.config["h"] > replaced.config["h"]
        ratio = fork.config["h"] / donor.config["h"]
        assert ratio == pytest.approx(1.2) or ratio == pytest.approx(1 / 1.2) or fork.config["h"] > 80
    first = max(trial.config["h"] for trial in study.trials if trial.parent is None)
    best = study.best
    assert best is not None and best.config["h"] >= first


@pytest.mark.parametrize("inherit", ["weights", "hyperparameters", "both"])
def test_what_is_inherited(inherit: Any) -> None:
    scheduler = PBT(population=2, ready=1, steps=6, exploit=Truncation(0.5), explore=None, inherit=inherit)
    study, _ = run(scheduler)
    forks = [trial for trial in study.trials if trial.parent is not None]
    assert forks
    good = max((t for t in study.trials if t.parent is None), key=lambda t: t.config["h"])
    bad = min((t for t in study.trials if t.parent is None), key=lambda t: t.config["h"])
    first = forks[0]
    assert first.replaces == bad.id
    assert first.parent == (bad.id if inherit == "hyperparameters" else good.id)
    assert first.config == (bad.config if inherit == "weights" else good.config)


def test_explore_only_and_grid() -> None:
    """Without exploit every member forks itself; without explore too nothing is ever forked."""
    explorers, _ = run(PBT(population=3, ready=2, steps=8, exploit=None, explore=Jitter(0.05)))
    assert all(trial.parent in (None, trial.replaces) for trial in explorers.trials)
    assert len(explorers.trials) == 3 + 3 * 3
    grid, _ = run(PBT(population=3, ready=2, steps=8, exploit=None, explore=None))
    assert len(grid.trials) == 3


def test_a_member_that_was_never_told_is_not_copied() -> None:
    """A fresh fork has no checkpoint of its own: forks start from what was told, at the step that was told."""
    study, jobs = run(PBT(population=6, ready=2, steps=20, exploit=Tournament()), workers=5)
    for job in jobs:
        if job.parent is not None and job.start == study.trials[job.trial].start:
            told = {report.step for report in study.trials[job.parent].reports}
            assert job.start in told
            assert job.sources[0][:2] == (job.parent, job.start)


# -- order ---


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_members_are_compared_and_copied_at_equal_steps(workers: int) -> None:
    """Nobody gains or loses steps by copying, however far the donor has come since."""
    study, _ = run(PBT(population=8, ready=3, steps=30, exploit=Tournament()), workers=workers)
    forks = [trial for trial in study.trials if trial.replaces is not None]
    assert forks and all(trial.start == study.trials[trial.replaces or 0].step for trial in forks)
    value = {(trial.id, report.step): trial.config["h"] for trial in study.trials for report in trial.reports}
    for fork in forks:
        assert value[(fork.parent or 0, fork.start)] >= value[(fork.replaces or 0, fork.start)]


def test_a_fork_finds_the_state_of_a_donor_that_has_long_gone_on() -> None:
    study = Study(
        SPACE, Goal("value", maximise=True), sampler=samplers.Uniform(), scheduler=PBT(population=2, ready=1, steps=40)
    )
    slow = study.ask()
    assert slow is not None
    while job := study.ask():
        study.tell(job, {"value": 2.0}, checkpoint=Checkpoint(job.trial, job.until, f"{job.until}", "digest"))
    kept = study.keep()
    study.tell(slow, {"value": 1.0}, checkpoint=Checkpoint(slow.trial, 1, "slow", "digest"))
    fork = study.ask()
    assert fork is not None and (fork.parent, fork.start) == (1, 1)
    assert fork.sources[0] == Checkpoint(1, 1, "1", "digest") and (1, 1) in kept


def test_a_synchronous_study_is_the_same_with_any_workers() -> None:
    scheduler = PBT(population=8, ready=3, steps=30, synchronous=True)
    logs = [[trial.config for trial in run(scheduler, workers=workers)[0].trials] for workers in (1, 3, 8)]
    assert logs[0] == logs[1] == logs[2]


def test_few_workers_are_shared_fairly() -> None:
    """No member is ever more than one interval ahead of another."""
    study = Study(
        SPACE,
        Goal("value"),
        sampler=samplers.Uniform(),
        scheduler=PBT(population=6, ready=5, steps=30, exploit=None, explore=None),
    )
    while job := study.ask():
        study.tell(job, {"value": 1.0})
        if len(study.trials) == 6:
            steps = [trial.step for trial in study.trials]
            assert max(steps) - min(steps) <= 5


def test_synchronous_members_wait_for_each_other() -> None:
    study = Study(
        SPACE,
        Goal("value"),
        sampler=samplers.Uniform(),
        scheduler=PBT(population=4, ready=5, steps=20, synchronous=True),
    )
    for _ in range(4):
        jobs = study.ask(4)
        assert len(jobs) == 4 and len({job.until for job in jobs}) == 1
        for job in jobs[:3]:
            study.tell(job, {"value": float(job.trial)})
            assert study.ask() is None
        study.tell(jobs[3], {"value": float(jobs[3].trial)})
    assert study.ask() is None and not study.running


def test_synchronous_forks_start_at_the_barrier() -> None:
    """Also with one worker, where the donor has been trained on in the meantime."""
    study, jobs = run(PBT(population=6, ready=5, steps=25, synchronous=True, exploit=Tournament()), workers=1)
    forks = [job for job in jobs if job.parent is not None and job.start == study.trials[job.trial].start]
    assert forks and all(job.start % 5 == 0 and job.until == job.start + 5 for job in forks)


def test_a_slow_member_holds_up_nobody() -> None:
    """Asynchronous: while one job is out for ever, the others come to their end."""
    study = Study(SPACE, Goal("value"), sampler=samplers.Uniform(), scheduler=PBT(population=4, ready=5, steps=20))
    stuck = study.ask()
    assert stuck is not None
    while job := study.ask():
        study.tell(job, {"value": float(job.trial)})
    assert [job.trial for job in study.running] == [stuck.trial]
    replaced = {trial.replaces for trial in study.trials}
    assert sum(trial.step == 20 and trial.id not in replaced for trial in study.trials) == 3


# -- failures ---


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_failed_members_are_replaced(synchronous: bool, rate: float) -> None:
    """The population does not shrink: it ends whole, and each failed member was replaced by a fork of a good one."""
    rng = np.random.default_rng(1)
    scheduler = PBT(population=8, ready=5, steps=30, synchronous=synchronous)
    study, _ = run(scheduler, lambda job: math.nan if rng.random() < rate else job.config["h"], workers=3)
    replaced = {trial.replaces for trial in study.trials} - {None}
    failed = {trial.id for trial in study.trials if trial.status == "failed"}
    assert failed
    late = {trial.id for trial in study.trials if trial.id in failed and trial.start > 0}
    assert late <= replaced
    assert sum(trial.step == 30 and trial.status == "complete" for trial in study.trials) >= 8
    assert replay(study) == []


def test_a_member_that_fails_last_goes_back_to_where_it_stood() -> None:
    """Also when all others have come to their end, it is replaced by a fork of how one of them stood there."""
    study = Study(
        SPACE, Goal("value", maximise=True), sampler=samplers.Uniform(), scheduler=PBT(population=3, ready=5, steps=10)
    )

    def tell(job: Job) -> None:
        study.tell(job, {"value": 1.0}, checkpoint=Checkpoint(job.trial, job.until, "somewhere", "digest"))

    late = study.ask()
    assert late is not None
    tell(late)
    late = study.ask()
    while late is not None and late.trial != 0:
        tell(late)
        late = study.ask()
    while job := study.ask():
        tell(job)
    assert late is not None
    assert (0, 5) in study.keep()
    study.fail(late, "no luck")
    assert (0, 5) in study.keep()
    again = study.ask()
    assert again is not None and (again.start, again.until) == (5, 10)
    tell(again)
    assert study.ask() is None and sum(trial.step == 10 for trial in study.trials) == 3


def test_first_generation_that_fails_is_started_anew() -> None:
    study = Study(SPACE, Goal("value"), sampler=samplers.Uniform(), scheduler=PBT(population=4, ready=5, steps=10))
    for _ in range(3):
        job = study.ask()
        assert job is not None
        study.fail(job, "no luck")
    while job := study.ask():
        study.tell(job, {"value": 1.0})
    replaced = {trial.replaces for trial in study.trials}
    alive = [t for t in study.trials if t.status == "complete" and t.id not in replaced]
    assert len(alive) == 4


def test_a_population_in_which_nothing_succeeds_ends() -> None:
    study, jobs = run(PBT(population=4, ready=5, steps=10), lambda job: math.nan)
    assert len(jobs) <= 8 and all(trial.status == "failed" for trial in study.trials)


# -- wrong use ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PBT(population=1, ready=1, steps=1), "population=1 must be at least 2"),
        (lambda: PBT(population=2, ready=0, steps=1), "ready=0 must be at least 1"),
        (lambda: PBT(population=2, ready=10, steps=5), "steps=5 must be at least ready=10"),
        (lambda: PBT(population=2, ready=1, steps=5, inherit="all"), "inherit='all' must be"),
        (lambda: Truncation(0.7), r"fraction=0.7 must be in \(0, 0.5\]"),
        (lambda: TTest(window=1), "window=1 must be at least 2"),
        (lambda: TTest(level=0.0), "level=0.0 must be in"),
        (lambda: Perturb(factor=0.8), "factor=0.8 must be over 1"),
        (lambda: Perturb(resample=1.5), r"resample=1.5 must be in \[0, 1\]"),
        (lambda: Jitter(0.0), "scale=0.0 must be over 0"),
        (
            lambda: Study(
                SPACE,
                [Goal("a"), Goal("b")],
                sampler=samplers.Uniform(),
                scheduler=PBT(population=2, ready=1, steps=1, exploit=TTest()),
            ),
            "TTest compares values of one goal, the study has 2",
        ),
    ],
)
def test_wrong_use(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
