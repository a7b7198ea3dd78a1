"""Where the best value of a trial counts, the state of that step is there, whatever slices the training."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

import tunesmith as ts
from tunesmith.execution import run

SPACE = {"x": ts.Float(0.1, 1.0)}
GOAL = ts.Goal("loss", scope="best")
STEPS = 12


def turns(config, state=None):
    """Gets better up to step 7, then worse."""
    for step in range(1 if state is None else state["step"] + 1, STEPS + 1):
        yield {"loss": abs(step - 7) + config["x"]}, {"step": step}


def reports(trial):
    for step in range(1 if trial.state is None else trial.state["step"] + 1, STEPS + 1):
        trial.report({"loss": abs(step - 7) + trial.config["x"]}, state={"step": step})


class Class:
    def setup(self, config):
        self.config, self.steps = config, 0

    def step(self):
        self.steps += 1
        return {"loss": abs(self.steps - 7) + self.config["x"]}

    def save(self):
        return {"step": self.steps}

    def load(self, tree):
        self.steps = tree["step"]


SCHEDULERS = {
    "whole": None,
    "slices": ts.schedulers.Median(STEPS, every=2),
    "rungs": ts.schedulers.ASHA(STEPS, eta=3),
    "to its end": "end",
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("code", [turns, reports, Class])
@pytest.mark.parametrize("every", [None, "1 steps"])
def test_the_state_of_the_best_step_is_loaded(code, scheduler, every, tmp_path):
    given = SCHEDULERS[scheduler]
    if given == "end" and code is Class:
        pytest.skip("a class has no end of its own")
    length = (
        {"steps": None if given == "end" else STEPS} if scheduler in ("whole", "to its end") else {"scheduler": given}
    )
    study = ts.tune(code, SPACE, goals=GOAL, trials=6, store=tmp_path / "s.db", checkpoint_every=every, **length)
    assert study.best is not None
    assert study.best.step >= 7
    assert study.load() == {"step": 7}


def test_tables_show_what_counts(tmp_path):
    study = ts.tune(turns, SPACE, goals=GOAL, trials=2, steps=STEPS)
    for trial in study.trials:
        shown = f"{trial.value(GOAL):.4g}"
        assert shown in repr(study.trials) and shown in study.trials._repr_html_()
        assert f"{trial.last('loss'):.4g}" not in repr(study.trials)


def test_in_workers_and_in_several_runs(tmp_path):
    for trials in (2, 4, 6):
        study = ts.tune(turns, SPACE, goals=GOAL, trials=trials, steps=STEPS, workers=2, store=tmp_path / "s.db")
        assert study.load() == {"step": 7}
        study.close()


def test_a_training_that_was_interrupted_after_its_best_step(tmp_path):
    study = ts.Study(ts.Space(SPACE), GOAL, scheduler=ts.schedulers.Full(STEPS), store=tmp_path / "s.db", trials=1)

    def interrupted(config, state=None):
        for metrics, tree in turns(config, state):
            if tree["step"] == 9:
                signal.raise_signal(signal.SIGINT)
            yield metrics, tree

    run(study, interrupted)
    assert (study.trials[0].status, study.trials[0].step) == ("waiting", 9)
    run(study, turns)
    assert (study.trials[0].status, study.trials[0].step) == ("complete", STEPS)
    assert study.load() == {"step": 7}


def test_where_there_is_none_a_line_says_so(caplog, tmp_path):
    study = ts.Study(ts.Space(SPACE), GOAL, scheduler=ts.schedulers.Full(3), store=tmp_path / "s.db")
    job = study.ask()
    saved = ts.execution.Checkpoints(study.use_checkpoints()).save(job.trial, 3, {"step": 3})
    study.tell(job, {"loss": [1.0, 0.5, 2.0]}, checkpoint=ts.Checkpoint(0, 3, saved.where, saved.digest))
    assert study.load() == {"step": 3}
    assert "trial 0 has its best value at step 2, and no state of it: this one is of step 3" in caplog.text


@pytest.mark.parametrize("limit", [{"seconds": 0.05}, {"target": 2.0}])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_function_of_the_configuration_that_is_done_is_not_trained_again(limit, workers, tmp_path):
    """It has one step: a run that ends meanwhile does not cut it short."""
    given = {"minimise": "loss", "trials": 4, "workers": workers, "store": tmp_path / "s.db"}
    study = ts.tune(one_step, SPACE | {"log": str(tmp_path / "log")}, **given, **limit)
    assert {trial.status for trial in study.trials} == {"complete"}
    study.close()
    study = ts.tune(one_step, SPACE | {"log": str(tmp_path / "log")}, **given)
    assert [trial.status for trial in study.trials] == ["complete"] * 4
    assert len((tmp_path / "log").read_text()) == 4


def one_step(config):
    time.sleep(0.2)
    with Path(config["log"]).open("a") as file:
        file.write("x")
    return config["x"]
