"""A run that ends when a trial is good enough, with any scheduler and any executor."""

from __future__ import annotations

import math

import pytest
import training_code as code

import tunesmith as ts
from tunesmith.execution import run
from tunesmith.records import Asked
from tunesmith.schedulers import PBT, Full, Median, Plateau

SPACE = ts.Space({"lr": ts.Float(0.5, 2)})
GOAL = ts.Goal("x", maximise=True)  # training_code: after step s it is s times the learning rate


def made(scheduler, **more):
    return ts.Study(SPACE, GOAL, sampler=ts.samplers.Uniform(), scheduler=scheduler, trials=20, **more)


SCHEDULERS = [Full(30), Median(30, every=5), Plateau(30, every=4), PBT(population=3, ready=5, steps=30)]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda one: type(one).__name__)
def test_it_ends_at_the_very_step(scheduler):
    study = made(scheduler)
    assert run(study, code.generator, target=12.0, progress=False) == "target"
    values = [value for trial in study.trials for value in trial.values("x")[1]]
    assert sum(value >= 12.0 for value in values) == 1
    assert study.best.last("x") >= 12.0 and not study.running
    assert ts.replay(study) == []


def test_a_value_to_minimise_in_the_last_step_of_a_job():
    study = ts.Study(SPACE, ts.Goal("loss"), trials=50)
    assert run(study, lambda config: abs(config["lr"] - 1.0), target=0.1, progress=False) == "target"
    assert len(study.trials) < 50 and study.best is study.trials[-1]
    assert all(trial.last("loss") > 0.1 for trial in study.trials[:-1])


def test_the_other_trials_save_their_state_and_can_go_on(tmp_path):
    with made(Full(60), store=tmp_path / "study.db") as study:
        assert run(study, code.slow, target=10.0, workers=2, progress=False) == "target"
        steps = {trial.id: trial.step for trial in study.trials}
        asked = len([event for event in study.events() if isinstance(event, Asked)])
        assert len(study.trials.waiting) == 2
    with ts.Study.open(tmp_path / "study.db", trials=20) as study:
        assert run(study, code.slow, target=10.0, workers=2, progress=False) == "target"  # it is reached already
        assert len([event for event in study.events() if isinstance(event, Asked)]) == asked
    with ts.Study.open(tmp_path / "study.db", trials=2) as study:
        assert run(study, code.slow, workers=2, progress=False) == "done"
        assert [trial.step for trial in study.trials] == [60, 60]
        again = {event.trial: event.start for event in study.events() if isinstance(event, Asked) and event.tags}
        assert again == steps
        assert ts.replay(study) == []


def test_constraints_must_hold_at_the_same_step():
    def train(config):
        for x, memory in [(20.0, 5.0), (8.0, 1.0), (11.0, 1.0), (15.0, 1.0)]:
            yield {"x": x, "memory": memory}

    study = ts.tune(train, SPACE, goals=GOAL, constraints=ts.Constraint("memory", 2.0), steps=4, trials=3, target=10.0)
    assert [trial.step for trial in study.trials] == [3]


def test_a_constraint_that_was_measured_before():
    def train(config, state=None):
        step = state or 0
        while True:
            step += 1
            yield {"x": float(step)} | ({"memory": 1.0} if step == 1 else {}), step

    rule = ts.Constraint("memory", 2.0, once=True)
    study = ts.tune(train, SPACE, goals=GOAL, constraints=rule, scheduler=Median(9, every=2), trials=3, target=5.0)
    assert [trial.step for trial in study.trials] == [5]


def test_a_trial_that_has_failed_has_reached_nothing():
    study = made(Full(3))
    job = study.ask()
    study.tell(job, {"x": 12.0}, step=1)
    study.fail(job, "out of luck")
    assert run(study, code.generator, target=4.0, progress=False) == "target"
    assert len(study.trials) > 1


def test_what_another_driver_reaches_ends_this_one_too(tmp_path):
    other = made(Full(1000), store=tmp_path / "study.db")
    job = other.ask()
    told = []

    def progress(study):
        if not told and len(study.trials) > 1:
            told.append(True)
            other.tell(job, {"x": 5000.0}, step=1)

    study = ts.Study.open(tmp_path / "study.db", trials=5)
    assert run(study, code.slow, target=5000.0, progress=progress) == "target"
    assert study.best.id == job.trial and all(trial.step < 1000 for trial in study.trials)
    study.close()
    other.close()


@pytest.mark.parametrize("target", [math.nan, math.inf, True, "0.9"])
def test_bad_targets(target):
    with pytest.raises(ValueError, match=rf"target={target!r} must be a number: a value of 'x'"):
        ts.tune(code.value, SPACE, maximise="x", trials=2, target=target)
