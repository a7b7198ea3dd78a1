"""Which studies are the same whatever the number of workers, their order, lost jobs and failures: the table of
docs/reproducibility.md, cell by cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tunesmith import Constraint, Goal, Study, replay, samplers
from tunesmith.schedulers import (
    ASHA,
    FIRE,
    MFPBT,
    PB2,
    PBT,
    Backtrack,
    Chain,
    FreezeThaw,
    Full,
    Hyperband,
    Jitter,
    Median,
    Plateau,
    Race,
    SuccessiveHalving,
    Tournament,
    TTest,
)
from tunesmith.study import Job
from tunesmith.testing._victim import has_diverged, measured, mixed, space
from tunesmith.testing.chaos import essence
from tunesmith.trials import Checkpoint

Make = Callable[[], Any]
WAVES: dict[str, Any] = {"population": 5, "ready": 3, "steps": 15, "synchronous": True}
NARROW: dict[str, Any] = {"population": 5, "ready": 3, "steps": 15}

FIXED: dict[str, Make] = {
    "Uniform": samplers.Uniform,
    "QMC": samplers.QMC,
    "Grid": lambda: samplers.Grid(levels=4),
}
LEARNING: dict[str, Make] = {
    "Auto": samplers.Auto,
    "TPE": lambda: samplers.TPE(startup=4),
    "RegularizedEvolution": lambda: samplers.RegularizedEvolution(population=4, sample=2),
}

#: the same with any sampler
POPULATIONS: dict[str, Make] = {
    "PBT": lambda: PBT(**WAVES),
    "PBT, TTest": lambda: PBT(**WAVES, exploit=TTest(window=4)),
    "PBT, Tournament": lambda: PBT(**WAVES, exploit=Tournament(), explore=Jitter(0.2)),
    "PBT, weights alone": lambda: PBT(**WAVES, inherit="weights"),
    "PBT, explore only": lambda: PBT(**WAVES, exploit=None),
    "Backtrack": lambda: PBT(**WAVES, backtrack=Backtrack(rungs=1)),
    "PB2": lambda: PBT(**WAVES, explore=PB2()),
    "MFPBT": lambda: MFPBT(**WAVES),
    "FIRE": lambda: FIRE(**WAVES),
}

#: the same with samplers that do not learn: the scheduler, and how many trials are started
BRACKETS: dict[str, tuple[Make, int | None]] = {
    "Full": (lambda: Full(6), 12),
    "Plateau": (lambda: Plateau(12, every=2, patience=2), 10),
    "SuccessiveHalving": (lambda: SuccessiveHalving(9, rounds=2), None),
    "Hyperband": (lambda: Hyperband(9, rounds=2), None),
    "Chain of SuccessiveHalving": (
        lambda: Chain(
            SuccessiveHalving(3, size=6, rounds=1), PBT(population=3, ready=3, steps=12, synchronous=True)
        ),
        None,
    ),
    "Chain of Hyperband": (
        lambda: Chain(Hyperband(4, eta=2, rounds=1), PBT(population=3, ready=2, steps=12, synchronous=True)),
        None,
    ),
}  # fmt: skip

#: the same with one worker only
ALONE: dict[str, tuple[Make, int | None]] = {
    "Race": (lambda: Race(6, seeds=3), 14),
    "Median": (lambda: Median(12, min_trials=1), 12),
    "ASHA": (lambda: ASHA(9), 15),
    "ASHA that stops": (lambda: ASHA(9, stopping=True), 12),
    "FreezeThaw": (lambda: FreezeThaw(9, every=3), 10),
    "asynchronous PBT": (lambda: PBT(**NARROW), None),
    "asynchronous MFPBT": (lambda: MFPBT(**NARROW), None),
    "asynchronous FIRE": (lambda: FIRE(**NARROW), None),
    "Chain of asynchronous ones": (lambda: Chain(ASHA(3), PBT(population=3, ready=3, steps=12)), 9),
}

#: how often jobs are lost, and which states are failures
FATES = {"calm": (0.0, 0), "lost jobs": (0.3, 0), "failures": (0.0, 25), "both": (0.3, 25)}


class Workers:
    """Workers that train, vanish, come and go; the training is that of the studies which chaos breaks."""

    def __init__(
        self, study: Study, workers: int, lost: float, diverges: int, seed: int, *, forgets: bool = False
    ) -> None:
        self.study, self.workers, self.lost, self.diverges, self.forgets = study, workers, lost, diverges, forgets
        self.rng = np.random.default_rng([workers, seed])
        self.states: dict[tuple[int, int], int] = {}

    def run(self) -> Study:
        """To the end of the study."""
        out: list[Job] = []
        while True:
            present = self.workers if self.rng.random() < 0.7 else int(self.rng.integers(1, self.workers + 1))
            while len(out) < present and (job := self.study.ask()) is not None:
                assert job.start < job.until
                out.append(job)
            if not out:
                assert not self.study.running
                return self.study
            self.train(out.pop(int(self.rng.integers(len(out)))))

    def train(self, job: Job) -> None:
        """A job, from its state that is nearest to its start; or a part of it, and then the worker is gone.

        Workers that forget save nothing: they begin every job at step 0.
        """
        source = next(((saved.trial, saved.step) for saved in job.sources), None)
        start = 0 if source is None else source[1]
        x = 0 if source is None else self.states[source]
        gone = self.rng.random() < self.lost
        end = int(self.rng.integers(start, job.until + 1)) if gone else job.until
        rows: list[dict[str, float]] = []
        for step in range(start + 1, end + 1):
            x = mixed(x, job.config, step)
            if has_diverged(x, self.diverges):
                break
            self.states[job.trial, step] = x
            rows.append(measured(x))
        reached = start + len(rows)
        if rows and not (gone and self.rng.random() < 0.3):  # what it did may be told, and saved
            without = self.forgets or (reached < job.until and gone and self.rng.random() < 0.5)
            saved = None if without else Checkpoint(job.trial, reached, "where", "digest")
            metrics = {name: [row[name] for row in rows] for name in measured(0)}
            self.study.tell(job, metrics, step=reached, checkpoint=saved)
        if gone:
            self.study.fail(job, "the worker is gone", "lost")
        elif reached < job.until:
            self.study.fail(job, "the training has diverged")


def carried_out(
    make: Make,
    sampler: Make,
    trials: int | None,
    workers: int,
    fate: str,
    seed: int,
    forgets: bool = False,
    **more: Any,
) -> list[tuple[Any, ...]]:
    """What a study has come to."""
    goals = more.pop("goals", Goal("x"))
    study = Study(space("generator"), goals, sampler(), make(), seed=seed, trials=trials, **more)
    lost, diverges = FATES[fate]
    Workers(study, workers, lost, diverges, seed, forgets=forgets).run()
    assert replay(study) == []
    return essence(study)


def quiet(fate: str) -> str:
    """The same without lost jobs: failures belong to the training, lost jobs do not."""
    return {"lost jobs": "calm", "both": "failures"}.get(fate, fate)


def check_same(make: Make, sampler: Make, trials: int | None, fate: str, most: int, **more: Any) -> None:
    """With up to so many workers, each number with one of two seeds."""
    for seed in range(min(2, most)):
        wanted = carried_out(make, sampler, trials, 1, quiet(fate), seed, **more)
        for number in range(1 + seed, most + 1, 2):
            assert carried_out(make, sampler, trials, number, fate, seed, **more) == wanted, (seed, number)


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("sampler", ["Uniform", "Grid", "Auto", "TPE"])
@pytest.mark.parametrize("name", POPULATIONS)
def test_synchronous_populations(name: str, sampler: str, fate: str) -> None:
    check_same(POPULATIONS[name], (FIXED | LEARNING)[sampler], None, fate, 5)


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("sampler", FIXED)
def test_a_first_generation_by_a_sampler_that_does_not_learn(sampler: str, fate: str) -> None:
    check_same(lambda: PBT(**WAVES, first="sampler"), FIXED[sampler], None, fate, 5)


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("sampler", FIXED)
@pytest.mark.parametrize("name", BRACKETS)
def test_trials_and_brackets_with_samplers_that_do_not_learn(name: str, sampler: str, fate: str) -> None:
    make, trials = BRACKETS[name]
    check_same(make, FIXED[sampler], trials, fate, 5)


@pytest.mark.parametrize("fate", ["calm", "lost jobs"])
@pytest.mark.parametrize("sampler", FIXED)
def test_repeats_without_failures(sampler: str, fate: str) -> None:
    check_same(lambda: Full(6, seeds=3), FIXED[sampler], 15, fate, 5)


@pytest.mark.parametrize("fate", ["lost jobs", "both"])
@pytest.mark.parametrize("sampler", ["QMC", "Auto", "TPE"])
@pytest.mark.parametrize("name", [*ALONE, *BRACKETS])
def test_every_study_with_one_worker(name: str, sampler: str, fate: str) -> None:
    make, trials = (ALONE | BRACKETS)[name]
    check_same(make, (FIXED | LEARNING)[sampler], trials, fate, 1)


@pytest.mark.parametrize("fate", ["lost jobs", "both"])
@pytest.mark.parametrize(
    "name", ["PBT", "PB2", "Backtrack", "MFPBT", "SuccessiveHalving", "Hyperband", "Chain of Hyperband"]
)
def test_several_goals_and_constraints(name: str, fate: str) -> None:
    make, trials = (BRACKETS | {key: (make, None) for key, make in POPULATIONS.items()})[name]
    goals = [Goal("x"), Goal("y", maximise=True)]
    sampler = LEARNING["Auto"] if name in POPULATIONS else samplers.QMC
    check_same(make, sampler, trials, fate, 8, goals=goals, constraints=Constraint("z", 7.0))


#: schedulers that copy no weights
PLAIN = {name: made for name, made in (BRACKETS | ALONE).items() if not name.startswith(("Chain", "asynchronous"))}


@pytest.mark.parametrize("fate", ["calm", "both"])
@pytest.mark.parametrize("sampler", ["QMC", "TPE"])
@pytest.mark.parametrize("name", PLAIN)
def test_code_that_saves_nothing_makes_no_difference(name: str, sampler: str, fate: str) -> None:
    """A job of it begins at step 0, wherever its trial stood: the study is the one in which it has gone on from there,
    with as many workers as the study is the same for.
    """
    make, trials = PLAIN[name]
    wanted = carried_out(make, (FIXED | LEARNING)[sampler], trials, 1, quiet(fate), 0)
    for workers in (1, 3) if name in BRACKETS and sampler in FIXED else (1,):
        found = carried_out(make, (FIXED | LEARNING)[sampler], trials, workers, fate, 0, forgets=True)
        assert found == wanted, workers


# -- where nothing is promised, there is nothing to promise -------------------------------------------------------


def differs(make: Make, sampler: Make, trials: int | None, fate: str) -> bool:
    return any(
        carried_out(make, sampler, trials, workers, fate, seed) != carried_out(make, sampler, trials, 1, fate, seed)
        for seed in range(10)
        for workers in range(2, 6)
    )


@pytest.mark.parametrize("name", ALONE)
def test_others_differ_with_several_workers(name: str) -> None:
    make, trials = ALONE[name]
    assert differs(make, samplers.QMC, trials, "calm")


@pytest.mark.parametrize("name", BRACKETS)
def test_samplers_that_learn_go_by_what_has_come_in(name: str) -> None:
    make, trials = BRACKETS[name]
    assert differs(make, LEARNING["TPE"], trials, "calm")


def test_repeats_go_by_the_failures_that_have_come_in() -> None:
    assert differs(lambda: Full(6, seeds=3), samplers.Uniform, 15, "failures")


def test_a_first_generation_by_a_sampler_that_learns_goes_by_what_has_come_in() -> None:
    wide = lambda: PBT(population=8, ready=3, steps=6, first="sampler", synchronous=True)  # noqa: E731
    assert differs(wide, LEARNING["TPE"], None, "calm")
