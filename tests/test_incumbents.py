"""The best configuration under noise: repeats, the posterior, its interval, and which checkpoint is kept."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

import tunesmith as ts
from tunesmith import Constraint, Float, Goal, Integer, Space, Study, replay, samplers
from tunesmith.noise import Noise, fit
from tunesmith.progress import Progress
from tunesmith.records import Asked, Opened, Spec, decode, encode
from tunesmith.schedulers import ASHA, PBT, Full, Race, SuccessiveHalving
from tunesmith.storage import MemoryStore, SQLiteStore
from tunesmith.study import Job
from tunesmith.trials import Checkpoint

SPACE = Space({"x": Float(0.0, 1.0)})
LOSS = Goal("loss")


def ask(study: Study) -> Job:
    job = study.ask()
    assert job is not None
    return job


def measured(values: dict[float, list[float]], goal: Goal = LOSS, **more: Any) -> Study:
    """A study in which these values were told of these configurations."""
    study = Study(SPACE, goal, **more)
    for x, several in values.items():
        for value in several:
            study.add({"x": x}, {goal.metric: value})
    return study


VALUES = {0.1: [0.9, 1.3, 1.1], 0.2: [0.7], 0.3: [2.0, 2.4], 0.4: [3.1], 0.5: [1.9, 2.1], 0.6: [2.8]}


def model(values: dict[float, list[float]]) -> Noise:
    several = [np.array(one) for one in values.values()]
    arrays = [[one.mean() for one in several], [len(one) for one in several], [one.var() * len(one) for one in several]]
    return fit(*(np.array(one, dtype=float) for one in arrays))


# -- the posterior ---


def test_the_model_by_hand() -> None:
    """``within`` is the pooled variance; ``between`` maximises between * REML, on a fine grid computed otherwise."""
    found = model(VALUES)
    assert found.freedom == 4 and found.within == pytest.approx((0.08 + 0.08 + 0.02) / 4)
    means = np.array([np.mean(one) for one in VALUES.values()])
    counts = np.array([len(one) for one in VALUES.values()])

    def evidence(between: float) -> float:
        variances = between + found.within / counts
        mean = np.average(means, weights=1 / variances)
        fits = stats.norm.logpdf(means, mean, np.sqrt(variances)).sum()
        return float(fits - np.log((1 / variances).sum()) / 2 + np.log(between))

    grid = np.geomspace(0.1, 10, 2001)
    assert found.between == pytest.approx(grid[np.argmax([evidence(one) for one in grid])], rel=3e-3)
    variances = found.between + found.within / counts
    assert found.mean == pytest.approx(np.average(means, weights=1 / variances))
    assert found.error == pytest.approx(1 / (1 / variances).sum())


def test_the_posterior_by_hand() -> None:
    study, prior = measured(VALUES), model(VALUES)
    for first, values in zip((0, 3, 4, 6, 7, 9), VALUES.values(), strict=True):
        weight = prior.between / (prior.between + prior.within / len(values))
        mean = weight * np.mean(values) + (1 - weight) * prior.mean
        variance = weight * prior.within / len(values) + (1 - weight) ** 2 * prior.error
        reach = stats.t.ppf(0.975, 4) * np.sqrt(variance)
        found = study.estimate(first)
        assert found is not None and found.count == len(values)
        assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - reach, mean + reach))


def test_a_lucky_value_does_not_win_against_many() -> None:
    noisy = {0.1: [1.0, 0.1, 0.4, -0.2, 0.3, 0.1], 0.2: [0.2], 0.3: [2.0, 1.2], 0.4: [3.1], 0.5: [1.9, 2.9], 0.6: [2.8]}
    study = measured(noisy)
    assert study.best is study.trials[5] and min(trial.last("loss") or 9 for trial in study.trials) == -0.2
    assert study.estimate() == study.estimate(0) == study.estimate(study.trials[3])


def test_a_metric_to_maximise_is_the_mirror_image() -> None:
    up = measured({x: [-v for v in values] for x, values in VALUES.items()}, Goal("score", maximise=True))
    down = measured(VALUES)
    ours, theirs = up.estimate(), down.estimate()
    assert ours is not None and theirs is not None and up.best is not None and down.best is not None
    assert up.best.id == down.best.id
    assert (ours.mean, ours.low, ours.high) == pytest.approx((-theirs.mean, -theirs.high, -theirs.low))
    assert ours.low < ours.mean < ours.high


def test_without_repeats_nothing_changes() -> None:
    study = measured({0.1: [3.0], 0.2: [1.0], 0.3: [1.0]})
    assert study.best is study.trials[1] and study.estimate() is None and study.estimate(0) is None
    assert Study(SPACE, LOSS).estimate() is None


def test_with_few_configurations_values_stand_for_themselves() -> None:
    study = measured({0.1: [1.0, 2.0], 0.2: [1.4]})
    found = study.estimate()
    assert found is not None and study.best is study.trials[2] and (found.mean, found.count) == (1.4, 1)
    assert found.high - 1.4 == pytest.approx(stats.t.ppf(0.975, 1) * np.sqrt(0.5))


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e-6, 1e9, 1e160, 1e300])
@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_any_values_are_ranked(scale: float, offset: float) -> None:
    """Repeats make sense of values of every size; where squares overflow the means alone count."""
    study = measured({x: [offset + scale * value for value in values] for x, values in VALUES.items()})
    assert study.best is not None
    found = study.estimate()
    assert found is None or found.low <= found.mean <= found.high
    if scale >= 1:
        assert study.best.id in (2, 3)


def test_equal_repeats_have_an_interval_without_width() -> None:
    found = measured({0.1: [1.0, 1.0], 0.2: [2.0], 0.3: [0.5, 0.5], 0.4: [4.0], 0.5: [3.0]}).estimate()
    assert found is not None and (found.mean, found.low, found.high, found.count) == (0.5, 0.5, 0.5, 2)


@pytest.mark.parametrize("scheduler", [Full(seeds=3), Race()], ids=["Full", "Race"])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_coverage(scheduler: Any, sigma: float) -> None:
    """The interval holds the truth in about 95% of all cases, also where the lucky ones were repeated."""
    covered = []
    for seed in range(30):
        study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=scheduler, seed=seed, trials=60)
        rng = np.random.default_rng(seed)
        while job := study.ask():
            study.tell(job, {"loss": ndtri(job.config["x"]) + sigma * rng.normal()})
        for trial in study.trials:
            found = study.estimate(trial)
            if trial.repeat == 0 and found is not None:
                covered.append(found.low <= ndtri(trial.config["x"]) <= found.high)
    assert 0.88 <= np.mean(covered) <= 0.99, np.mean(covered)


def test_progress_and_text_show_the_mean() -> None:
    study, stream = measured(VALUES), io.StringIO()
    with Progress(stream=stream) as show:
        show(study)
    found = study.estimate()
    assert found is not None
    assert f"best loss {found.mean:.4g} ± {found.high - found.mean:.2g} (1 seed) (trial 3)" in stream.getvalue()
    assert f"best loss={found.mean:.6g}" in repr(study)


# -- which configurations, which trial ---


def test_what_is_not_told_in_full_is_not_averaged() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Full(10, seeds=3))
    study.tell(ask(study), {"loss": 0.1})
    second, third = ask(study), ask(study)
    study.tell(second, {"loss": 5.0}, step=3)
    assert study.best is study.trials[0] and study.estimate() is None
    study.tell(second, {"loss": 0.3})
    found = study.estimate()
    assert study.best is study.trials[1] and found is not None and (found.mean, found.count) == (pytest.approx(0.2), 2)
    study.tell(third, {"loss": 9.0}, step=4)
    assert study.best is study.trials[1]


def test_failures_and_broken_constraints_count_against_a_configuration() -> None:
    rules = [Constraint("memory", 8.0)]
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Full(seeds=3), constraints=rules)
    outcomes = [(0.1, 1), (0.1, 1), None, (0.0, 1), (0.0, 9), None, (0.05, 9), (0.5, 1), (0.5, 1), (0.5, 1)]
    for outcome in outcomes:
        job = ask(study)
        if outcome is None:
            study.fail(job, "out of luck")
        else:
            study.tell(job, {"loss": outcome[0], "memory": outcome[1]})
    firsts = [trial.id for trial in study.trials if trial.repeat == 0]
    assert firsts == [0, 3, 5, 6, 7]  # one is given up when half of its trials have failed
    assert study.best is study.trials[1]  # one of three has failed
    assert study.estimate(3) is study.estimate(5) is study.estimate(6) is None and replay(study) == []


def test_the_front_is_that_of_the_means() -> None:
    study = Study(SPACE, [Goal("a"), Goal("b", maximise=True)])
    for x, a, b in ((0.1, 1.0, 1.0), (0.1, 3.0, 3.0), (0.2, 1.9, 1.0), (0.3, 2.5, 1.5), (0.4, 5.0, 9.0)):
        study.add({"x": x}, {"a": a, "b": b})
    assert [trial.id for trial in study.front] == [1, 2, 4]


def test_populations_are_as_they_were() -> None:
    """Members that have equal configurations by chance are trials of their own."""
    space = Space({"n": Integer(1, 2)})
    study = Study(space, LOSS, sampler=samplers.Uniform(), scheduler=PBT(population=8, ready=1, steps=3))
    rng = np.random.default_rng(0)
    while job := study.ask():
        assert job.repeat == 0
        study.tell(job, {"loss": float(rng.normal())})
    assert not study.trials.repeated and study.estimate() is None
    assert study.best is min(study.trials, key=lambda trial: trial.last("loss") or 0.0)


def test_the_checkpoints_of_the_best_ones_are_kept() -> None:
    """Whatever becomes the best one when repeats come in, its checkpoint is still there."""
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Race(), seed=1, trials=120)
    rng = np.random.default_rng(1)
    saved: set[tuple[int, int]] = set()
    winners = set()
    while job := study.ask():
        saved.add((job.trial, 1))
        loss = (job.config["x"] - 0.3) ** 2 + 0.1 * rng.normal()
        study.tell(job, {"loss": loss}, checkpoint=Checkpoint(job.trial, 1, "where", "digest"))
        best = study.best
        assert best is not None and (best.id, 1) in saved
        winners.add(best.id)
        saved &= study.keep()
        assert len(saved) <= 12
    assert len(winners) > 3


@pytest.mark.parametrize("goals", [1, 2, 3])
@pytest.mark.parametrize(
    "scheduler",
    [
        PBT(population=8, ready=1, steps=12),
        PBT(population=8, ready=1, steps=12, synchronous=True),
        ASHA(max_steps=9),
        SuccessiveHalving(9, rounds=2),
        Full(3),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_the_checkpoints_of_the_front_are_kept(scheduler: Any, goals: int) -> None:
    """Values are noise: a trial that goes on becomes worse, and gives way to one that has ended long ago."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        made = [Goal(f"loss {number}") for number in range(goals)]
        study = Study(SPACE, made, samplers.Uniform(), scheduler, seed=seed, trials=40 if scheduler.endless else None)
        saved: set[tuple[int, int]] = set()
        out: list[Job] = []
        while True:
            while len(out) < 3 and (job := study.ask()) is not None:
                out.append(job)
            if not out:
                break
            job = out.pop(int(rng.integers(len(out))))
            saved.add((job.trial, job.until))
            losses = {goal.metric: float(rng.normal()) for goal in made}
            study.tell(job, losses, checkpoint=Checkpoint(job.trial, job.until, "where", "digest"))
            assert {(trial.id, trial.step) for trial in study.front} <= saved
            saved &= study.keep()


# -- repeats in the log ---


def test_a_repeat_is_a_trial_of_its_own() -> None:
    study = Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Full(seeds=3), trials=7)
    jobs = []
    while job := study.ask():
        jobs.append(job)
        study.tell(job, {"loss": float(job.trial)})
    assert [job.repeat for job in jobs] == [0, 1, 2, 0, 1, 2, 0] == [trial.repeat for trial in study.trials]
    assert [trial.repeat_of for trial in study.trials] == [None, 0, 0, None, 3, 3, None]
    assert jobs[0].config == jobs[2].config != jobs[3].config and len({job.seed for job in jobs}) == 7
    assert "all 7 trials were started" in study.message
    assert replay(study) == [] and decode(map(encode, study.events())) == study.events()


def test_an_added_result_of_a_known_configuration_is_a_repeat(tmp_path: Path) -> None:
    with Study(SPACE, LOSS, store=tmp_path / "a.db") as study:
        job = ask(study)
        study.tell(job, {"loss": 1.0})
    with Study.open(tmp_path / "a.db") as study:
        assert study.add(job.config, {"loss": 2.0}).repeat_of == 0
        assert study.add({"x": 1.0}, {"loss": 3.0}).repeat_of is None
        assert study.add({"x": 1}, {"loss": 4.0}).repeat_of == 2
        assert replay(study) == []


def test_repeats_survive_a_change_of_the_space() -> None:
    study = Study(
        Space({"x": Float(0.0, 1.0), "y": Float(0.0, 1.0)}), LOSS, sampler=samplers.Uniform(), scheduler=Full(seeds=2)
    )
    for _ in range(3):
        study.tell(ask(study), {"loss": 1.0})
    outside = study.trials[2].config["x"]
    study.change(space=Space({"x": Float(0.0, outside / 2)}))
    job = ask(study)
    assert job.repeat == 0 and job.config["x"] <= outside / 2  # what lies outside is not repeated
    study.tell(job, {"loss": 1.0})
    assert ask(study).repeat == 1 and study.trials[1].repeat_of == 0 and replay(study) == []


def test_a_stored_study_from_before_there_were_seeds_goes_on(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")
    store.append([Opened(SPACE, (LOSS,), Spec("Uniform"), Spec("Full", {"steps": 10}), seed=0)])
    store.close()
    with Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Full(10), store=tmp_path / "a.db") as study:
        assert ask(study).until == 10
    with pytest.raises(ts.TunesmithError, match="scheduler is"):
        Study(SPACE, LOSS, sampler=samplers.Uniform(), scheduler=Full(10, seeds=2), store=tmp_path / "a.db")


def test_a_repeat_without_its_trial_makes_no_sense() -> None:
    store = MemoryStore()
    store.append([Study(SPACE, LOSS).definition, Asked(0, 1, 0, {"x": 0.5}, 0, 1, repeat_of=3)])
    with pytest.raises(ts.TunesmithError, match="makes no sense"):
        Study.open(store)


# -- training code ---


def by_value(config: Any, repeat: int) -> float:
    return float(repeat)


def by_generator(config: Any, repeat: int) -> Any:
    while True:
        yield float(repeat)


def by_trial(trial: Any) -> None:
    while True:
        trial.report(float(trial.repeat))


class Instance:
    def setup(self, config: Any, repeat: int, seed: int) -> None:
        self.repeat = repeat

    def step(self) -> float:
        return float(self.repeat)


PROGRAM = "import json, os; print(json.dumps({'loss': int(os.environ['TUNESMITH_REPEAT'])}))"


@pytest.mark.parametrize(
    ("train", "workers"),
    [
        (by_value, 1),
        (by_generator, 1),
        (by_trial, 1),
        (Instance, 1),
        (ts.Command([sys.executable, "-c", PROGRAM]), 1),
        (by_generator, 2),
    ],
    ids=["value", "generator", "trial", "class", "command", "worker processes"],
)
def test_training_code_learns_which_repeat_it_is(train: Any, workers: int) -> None:
    study = ts.tune(train, SPACE, minimise="loss", trials=6, steps=1, seeds=3, workers=workers)
    assert [trial.last("loss") for trial in study.trials] == [0, 1, 2, 0, 1, 2]
    found = study.estimate()
    assert found is not None and (found.mean, found.count) == (pytest.approx(1.0), 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 0, "trials": 3}, "seeds=0 must be at least 1"),
        ({"seeds": 2, "scheduler": Race(), "trials": 3}, "seeds=2 is for studies without a scheduler"),
        ({"scheduler": Race()}, "would never end"),
    ],
)
def test_wrong_arguments_of_tune(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ts.tune(by_value, SPACE, minimise="loss", **arguments)
