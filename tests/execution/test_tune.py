"""The ten-line case: it works, it says what is missing, and with a store it goes on."""

from __future__ import annotations

import itertools
import os
import signal
import time

import pytest
import training_code as code

import tunesmith as ts
from tunesmith.execution import ExecutionError, run

SPACE = {"lr": ts.Float(0.5, 2)}


def test_ten_lines():
    def train(config):
        return {"loss": (config["x"] - 3) ** 2, "other": 1}

    study = ts.tune(train, {"x": ts.Float(-10, 10)}, minimise="loss", trials=50)
    assert len(study.trials) == 50
    assert abs(study.best.config["x"] - 3) < 2
    assert study.best.metrics["other"] == 1
    assert ts.replay(study) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_calling_it_again_goes_on(workers, tmp_path):
    sampler = ts.samplers.QMC() if workers > 1 else None  # what Auto learns depends on which worker is first

    def again(trials, **where):
        study = ts.tune(code.value, SPACE, maximise="x", trials=trials, sampler=sampler, **where)
        with study:
            return [trial.config["lr"] for trial in study.trials]

    where = {"store": tmp_path / "a.db", "workers": workers}
    first = again(5, **where)
    assert again(5, **where) == first
    longer = again(8, **where)
    assert (len(longer), longer[:5]) == (8, first)
    assert len(set(longer)) == 8
    assert longer == again(8)


def test_steps_goals_constraints_and_progress(tmp_path):
    seen = []
    study = ts.tune(
        code.generator,
        SPACE,
        goals=[ts.Goal("x", maximise=True)],
        constraints=[ts.Constraint("lr", 1.0)],
        steps=3,
        trials=10,
        seed=4,
        name="mine",
        checkpoints=tmp_path / "states",
        progress=lambda study: seen.append(len(study.trials)),
    )
    assert all(trial.step == 3 for trial in study.trials)
    assert study.best.config["lr"] <= 1
    assert seen[-1] == 10
    assert [path.name for path in (tmp_path / "states").iterdir()]


def test_checkpoints_stand_next_to_the_store(tmp_path):
    pbt = ts.schedulers.PBT(population=3, ready=1, steps=5)
    with ts.tune(code.generator, SPACE, maximise="x", scheduler=pbt, store=tmp_path / "a.db", name="mine") as study:
        for trial, step in study.keep():
            assert (tmp_path / "a.db.checkpoints" / "mine" / str(trial) / f"{step}.json").is_file()
    assert not (tmp_path / "a.db.leases").exists()


def test_a_finite_space_ends_by_itself():
    study = ts.tune(lambda config: config["a"], {"a": ts.Ordinal([1, 2, 3])}, maximise="a")
    assert sorted(trial.config["a"] for trial in study.trials) == [1, 2, 3]


def test_time_is_an_end_too():
    study = ts.tune(lambda config: config["lr"], SPACE, maximise="x", seconds=1.0, sampler=ts.samplers.Uniform())
    assert len(study.trials) > 5


def test_a_time_limit_makes_a_worker_process():
    study = ts.tune(code.where, SPACE, maximise="tunesmith_worker", trials=1, time_limit=60)
    assert study.best.metrics["tunesmith_worker"] == 1


def test_run_works_on_an_existing_study():
    study = ts.Study(ts.Space(SPACE), ts.Goal("x", maximise=True), trials=4)
    assert run(study, code.value) == "done"
    assert len(study.trials) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 1}, "say what to optimise with exactly one of"),
        ({"trials": 1, "maximise": "x", "minimise": "x"}, "exactly one of"),
        ({"trials": 1, "maximise": "x", "goals": [ts.Goal("y")]}, "exactly one of"),
        ({"maximise": "x"}, "the search would never end: give trials=, seconds=,"),
        (
            {"maximise": "x", "steps": 3, "scheduler": ts.schedulers.Full(2)},
            "steps=3 is for studies without a scheduler",
        ),
        ({"maximise": "x", "trials": 1, "workers": 0}, "workers=0 must be at least 1"),
        ({"maximise": "x", "trials": 1, "devices": "gpu"}, "'gpu' is none of"),
    ],
)
def test_what_is_not_clear_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ts.tune(code.value, SPACE, **options)


def test_training_code_is_checked_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="no training code"):
        ts.tune("train.py", SPACE, maximise="x", trials=1, store=tmp_path / "a.db")
    assert not (tmp_path / "a.db").exists()


def test_a_failing_study_lets_go_of_its_store(tmp_path):
    with pytest.raises(ExecutionError, match="the metric 'y', a goal or constraint of the study, is missing"):
        ts.tune(code.generator, SPACE, maximise="y", trials=100, store=tmp_path / "a.db")
    with ts.Study.open(tmp_path / "a.db") as study:
        assert study.trials.failed == 11


class Breaks:
    """A sampler that raises in the middle of a search."""

    def init(self, space, goals, rng, constraints=(), duplicates=False):
        return 0

    def tell(self, state, event):
        return state + 1

    def ask(self, state, rng, until=1):
        if state > 3:
            raise RuntimeError("no more")
        return rng.random(1)


def breaks(*_):
    raise RuntimeError("no more")


def interrupts(*kinds):
    """Training code that is interrupted in its third trial."""
    calls = itertools.count()

    def train(config):
        if next(calls) == 2:
            for kind in kinds:
                if kind in (signal.SIGINT, signal.SIGTERM):
                    os.kill(os.getpid(), kind)
                    time.sleep(0.05)
                else:
                    raise kind
        return config["lr"]

    return train


@pytest.mark.parametrize(
    ("train", "options", "error"),
    [
        (interrupts(KeyboardInterrupt), {}, KeyboardInterrupt),
        (interrupts(GeneratorExit), {}, GeneratorExit),
        (interrupts(signal.SIGINT, signal.SIGINT), {}, KeyboardInterrupt),
        (interrupts(signal.SIGTERM, signal.SIGINT), {}, KeyboardInterrupt),
        (interrupts(), {"callback": breaks}, RuntimeError),
        (interrupts(), {"progress": breaks}, RuntimeError),
        (interrupts(), {"sampler": Breaks()}, RuntimeError),
        (breaks, {}, ExecutionError),
    ],
    ids=["interrupt", "exit", "Ctrl-C twice", "ended and Ctrl-C", "callback", "progress", "sampler", "all fail"],
)
def test_what_comes_out_of_a_run_has_the_study(train, options, error):
    """Nothing is lost of a study that is in memory alone."""
    options = {"progress": False, "sampler": ts.samplers.Uniform()} | options
    with pytest.raises(error) as raised:
        ts.tune(train, SPACE, minimise="x", trials=12, **options)
    study = raised.value.study
    assert study.trials and not study.trials.running
    if error is not ExecutionError:
        assert study.trials[0].status == "complete"
    study.change(sampler=ts.samplers.QMC())
    assert run(study, lambda config: config["lr"], progress=False) == "done"
    assert len(study.trials) == 12 and ts.replay(study) == []


@pytest.mark.parametrize(
    ("options", "outcome"),
    [({}, "done"), ({"seconds": 0}, "seconds"), ({"target": 10.0}, "target"), ({"callback": "stop"}, "stopped")],
)
def test_the_study_knows_why_the_run_has_ended(options, outcome):
    def stop(study, trial):
        study.stop()

    options = {name: stop if name == "callback" else value for name, value in options.items()}
    study = ts.tune(lambda config: config["x"], {"x": ts.Float(0, 1)}, minimise="loss", trials=3, **options)
    assert study.outcome == outcome
    assert run(study, lambda config: config["x"]) == study.outcome


def test_before_a_run_and_after_an_exception_there_is_no_outcome():
    study = ts.Study(ts.Space({"x": ts.Float(0, 1)}), ts.Goal("loss"), trials=2)
    assert study.outcome == ""
    run(study, lambda config: config["x"])
    assert study.outcome == "done"
    study.limit = 20
    with pytest.raises(ExecutionError):
        run(study, lambda config: 1 / 0, max_failures=2)
    assert study.outcome == ""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("space", "words"),
    [
        (
            ts.Space({"x": ts.Float(0, 1)}, constraints=[ts.require(lambda c: c["x"] > 2, "beyond")]),
            "breaks one.*beyond",
        ),
        (ts.Space({"x": ts.Integer(1, 3)}, constraints=[ts.require(lambda c: c["x"] > 3, "beyond")]), ""),
    ],
    ids=["infinite", "finite"],
)
def test_constraints_that_nothing_satisfies_are_an_error(space, words, workers):
    with pytest.raises(ExecutionError, match=f"no trial can be started: .*{words}") as error:
        ts.tune(code.value, space, minimise="loss", trials=3, workers=workers)
    assert len(error.value.study.trials) == 0 and error.value.study.barred


def test_a_run_that_starts_no_trial_for_another_reason_is_none():
    study = ts.Study(ts.Space({"x": ts.Float(0, 1)}), ts.Goal("loss"), trials=0)
    assert run(study, lambda config: config["x"]) == "done" and not study.barred


def test_a_finite_space_that_is_used_up_is_no_error():
    study = ts.tune(lambda config: config["x"], {"x": ts.Integer(1, 3)}, minimise="loss", trials=9)
    assert study.outcome == "done" and len(study.trials) == 3 and not study.barred


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("form", ["reports", "yields", "no metric"])
def test_metrics_that_are_returned_after_reports_are_warned_of_once(form, steps, workers, caplog):
    train = {
        "reports": code.returns_after_reports,
        "yields": code.returns_after_yields,
        "no metric": code.ReturnsLater(),
    }[form]
    study = ts.tune(train, SPACE, maximise="x", trials=4, steps=steps, workers=workers)
    assert all(trial.step == (1 if form == "no metric" else 3) for trial in study.trials)
    assert study.best.metrics["x"] < 5
    said = [record.message for record in caplog.records]
    if form == "no metric" or (form == "yields" and steps is not None):  # it is closed before it returns
        assert said == []
    else:
        assert said == [f"{train.__name__} returns metrics at its end, which do not count: what it {form} does"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("train", "scheduler", "cut"),
    [
        (code.forgetful_to_its_end, ts.schedulers.Full(seeds=2), True),
        (code.forgetful_to_its_end, ts.schedulers.Race(), True),
        (code.forgetful_to_its_end, ts.schedulers.Full(5), False),
        (code.forgetful_to_its_end, None, False),
        (code.reports_once, ts.schedulers.Full(), False),
    ],
)
def test_a_scheduler_of_one_step_for_code_with_more_is_warned_of_once(train, scheduler, cut, workers, caplog):
    ts.tune(train, SPACE, maximise="x", trials=6, scheduler=scheduler, workers=workers)
    said = [record.message for record in caplog.records]
    assert len(said) == cut
    assert all("had more to report, but its trials have one step" in text and "Full(None)" in text for text in said)
