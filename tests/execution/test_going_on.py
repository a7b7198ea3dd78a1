"""Trials go on in another run, whatever the training code saves, and however the runs before have ended."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import training_code as code

import tunesmith as ts
from tunesmith.execution import (
    ExecutionError,
    Executor,
    Inline,
    Options,
    Processes,
    Report,
    as_task,
    current_job,
    drive,
)
from tunesmith.records import Asked, Told
from tunesmith.schedulers import ASHA, PBT, Full, Hyperband, Median, Plateau, SuccessiveHalving

SPACE = ts.Space({"lr": ts.Float(0.5, 2.0)})
GOAL = ts.Goal("x", maximise=True)

SCHEDULERS = {
    "Median": Median(9, every=3, min_trials=1),
    "Plateau": Plateau(9, every=3),
    "ASHA that stops": ASHA(9, stopping=True),
    "ASHA": ASHA(9),
    "SuccessiveHalving": SuccessiveHalving(9, rounds=1),
    "Hyperband": Hyperband(9, rounds=1),
}


class Leaving(Executor):
    """Leaves after so many jobs, each time as soon as they are told: the other trials stay where they stand."""

    def __init__(self, executor: Executor, study: ts.Study, jobs: int) -> None:
        self.inner, self.study, self.jobs = executor, study, jobs

    slots = property(lambda self: self.inner.slots)  # type: ignore[assignment]
    free = property(lambda self: self.inner.free)  # type: ignore[assignment]

    def submit(self, job: ts.Job) -> None:
        self.inner.submit(job)

    def wait(self, timeout: float) -> list[Report]:
        reports = self.inner.wait(timeout)
        self.jobs -= sum(report.done for report in reports)
        if self.jobs <= 0:
            self.study.stop("enough for this run")
        return reports

    def interrupt(self) -> None:
        self.inner.interrupt()

    def flush(self, keep: Iterable[tuple[int, int]]) -> Any:
        return self.inner.flush(keep)

    def close(self) -> None:
        self.inner.close()


def runs(folder: Path, train: Any, scheduler: Any, jobs: int, *, workers: int = 0, trials: int = 9) -> ts.Study:
    """A study that is worked on by one run after the other, of so many jobs each, until it is done."""
    for _ in range(100):
        study = ts.Study(
            SPACE, GOAL, ts.samplers.QMC(), scheduler, store=folder / "study.db", trials=None if trials == 0 else trials
        )
        options = Options(("x",), str(folder / "states"))
        executor = Processes(train, options, workers=workers) if workers else Inline(as_task(train), options)
        if drive(study, Leaving(executor, study, jobs)) == "done":
            return study
        study.close()
    raise AssertionError("the study does not come to its end")


def essence(study: ts.Study) -> list[Any]:
    """What a study has come to."""
    return [(dict(trial.config), trial.status, trial.ended, trial.values("x")) for trial in study.trials]


def check_curves(study: ts.Study) -> None:
    """Every trial has the values of its own training, one a step."""
    assert ts.replay(study) == [] and study.trials.failed == 0 and not study.trials.running
    for trial in study.trials:
        steps, values = trial.values("x")
        assert steps == list(range(1, trial.step + 1))
        assert values == pytest.approx([trial.config["lr"] * step for step in steps])


@pytest.mark.parametrize("jobs", [1, 2, 5])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_code_that_saves_nothing_goes_on_in_another_run(
    name: str, jobs: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The study is the same as that of a single run, and says once a run that trials begin again."""
    (tmp_path / "whole").mkdir()
    whole = runs(tmp_path / "whole", code.forgetful, SCHEDULERS[name], 10**9)
    caplog.clear()
    study = runs(tmp_path, code.forgetful, SCHEDULERS[name], jobs)
    check_curves(study)
    assert essence(study) == essence(whole)
    again = [event for event in study.events() if type(event) is Asked and event.start > 0]
    assert again
    said = [record.message for record in caplog.records if "this training code saves no state" in record.message]
    assert 0 < len(said) <= len(again)
    assert "begins again at step 0" in said[0] and "let a generator yield (metrics, state)" in said[0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("form", code.FORGETFUL)
def test_every_form_of_it(form: str, workers: int, tmp_path: Path) -> None:
    study = runs(tmp_path, code.FORGETFUL[form], Median(9, every=3, min_trials=1), 3, workers=workers, trials=4)
    check_curves(study)
    ended = 7 if form == "function that ends" else 9
    assert max(trial.step for trial in study.trials) == ended


@pytest.mark.parametrize("form", ["command that obeys", "reporting function", "function that ends"])
def test_promotions_of_trials_that_are_not_in_memory_any_more(form: str, tmp_path: Path) -> None:
    """In one run: its worker keeps two trials."""
    study = runs(tmp_path, code.FORGETFUL[form], SuccessiveHalving(9, size=9, rounds=1), 10**9, workers=1, trials=0)
    check_curves(study)
    assert sorted(trial.step for trial in study.trials)[-3:] == ([3, 3, 7] if "ends" in form else [3, 3, 9])


def test_a_run_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """Each run is killed at the twelfth report of its training code, wherever that is."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, signal
        import tunesmith as ts

        reports = 0

        def train(trial):
            global reports
            while True:
                reports += 1
                if reports == 12:
                    os.kill(os.getpid(), signal.SIGKILL)
                trial.report({"x": trial.config["lr"] * (trial.step + 1)})

        if __name__ == "__main__":
            rule = ts.schedulers.Median(9, every=3, min_trials=1)
            ts.tune(train, {"lr": ts.Float(0.5, 2.0)}, maximise="x", scheduler=rule, trials=4, store="study.db")
        """)
    )
    for _ in range(12):
        status = subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=False, env=os.environ).returncode
        if status == 0:
            break
        assert status == -9
    assert status == 0
    with ts.Study.open(tmp_path / "study.db") as study:
        check_curves(study)
        assert len(study.trials) == 4 and any(trial.status == "complete" for trial in study.trials)


def test_what_was_trained_before_is_told_anew(tmp_path: Path) -> None:
    """In the log the steps stand twice; a trial has each of them once, and the seconds of both."""
    study = runs(tmp_path, code.forgetful, Median(9, every=3), 1, trials=1)
    told = [(event.start, event.step) for event in study.events() if type(event) is Told]
    assert told == [(0, 3), (0, 6), (0, 9)]
    check_curves(study)
    assert study.trials[0].seconds == pytest.approx(
        sum(event.seconds for event in study.events() if type(event) is Told)
    )


@pytest.mark.parametrize("trials", [2, 6])
def test_states_that_have_vanished(trials: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are said by name, the first few; their trials begin again, too."""
    study = ts.tune(
        code.generator, SPACE, maximise="x", steps=3, trials=trials, store=tmp_path / "study.db", progress=False
    )
    for path in (tmp_path / "study.db.checkpoints").rglob("*.json"):
        path.unlink()
    study.change(scheduler=Full(5))
    study.close()
    caplog.clear()
    study = ts.tune(code.generator, SPACE, maximise="x", steps=5, trials=trials, store=tmp_path / "study.db")
    assert [trial.step for trial in study.trials] == [5] * trials
    assert ts.replay(study) == []
    check_curves(study)
    named = [record.message for record in caplog.records if "is missing (nobody needed it" in record.message]
    assert len(named) == min(3, trials) and "begins again at step 0" in named[0]
    assert "saves no state" not in caplog.text
    assert f"{trials} times a trial has begun again at step 0" in caplog.text


@pytest.mark.parametrize("name", ["PBT", "synchronous PBT"])
def test_a_population_is_trained_further_from_its_states(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of its last members stay, so nobody begins again."""
    pbt = {"population": 4, "ready": 2, "synchronous": name != "PBT"}
    with ts.tune(
        code.generator, SPACE, maximise="x", scheduler=PBT(steps=6, **pbt), store=tmp_path / "study.db"
    ) as study:
        study.change(scheduler=PBT(steps=12, **pbt))
    study = ts.tune(code.generator, SPACE, maximise="x", scheduler=PBT(steps=12, **pbt), store=tmp_path / "study.db")
    assert sum(trial.step == 12 for trial in study.trials) == 4 and ts.replay(study) == []
    assert "begin" not in caplog.text
    assert all(report.start >= trial.start for trial in study.trials for report in trial.reports)


def test_a_copy_of_a_trial_that_has_saved_nothing_can_not_begin(tmp_path: Path) -> None:
    """Its weights would be those of the other trial."""
    with pytest.raises(ExecutionError, match=r"trial 4 is a copy of trial . .* this training code saves no state"):
        ts.tune(code.forgetful, SPACE, maximise="x", scheduler=PBT(population=4, ready=1, steps=4))


def test_two_drivers_at_once(tmp_path: Path) -> None:
    """Each of them gets trials that the other one has in its memory."""

    def work() -> None:
        ends.append(runs(tmp_path, code.forgetful, ASHA(9, eta=2), 5, trials=12))

    ends: list[ts.Study] = []
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(ends) == 2
    with ts.Study.open(tmp_path / "study.db") as study:
        check_curves(study)
        assert len(study.trials) == 12 and max(trial.step for trial in study.trials) == 9


def test_it_is_said_at_once_that_a_training_has_no_end(caplog: pytest.LogCaptureFixture) -> None:
    """At its thousandth report, however fast they come."""
    reports = []

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append((len(reports), record.getMessage()))

    def endless(trial: Any) -> None:
        while len(reports) < 5000:
            reports.append(trial.step)
            trial.report({"x": 1.0})

    said: list[tuple[int, str]] = []
    logging.getLogger("tunesmith").addHandler(handler := Said())
    try:
        ts.tune(endless, SPACE, maximise="x", trials=1)
    finally:
        logging.getLogger("tunesmith").removeHandler(handler)
    ((count, message),) = said
    assert count == 1000 and "trial 0 has reported 1000 times" in message


STATES: dict[str, tuple[Any, Any]] = {
    "a tree": ({"loss": 1.0, "step": 7}, {"loss": 1.0, "step": 7}),
    "the names of older versions": ({"step": 3, "state": 1.0}, {"step": 3, "state": 1.0}),
    "no dict": (5.0, 5.0),
    "made when it is wanted": (lambda: [1, 2], [1, 2]),
}


@pytest.mark.parametrize("form", ["function", "generator"])
@pytest.mark.parametrize("name", STATES)
def test_the_state_that_the_code_gave_is_what_is_loaded(form: str, name: str, tmp_path: Path) -> None:
    """And what it gets back when it goes on."""
    given, expected = STATES[name]
    got: list[Any] = []

    def function(trial: Any) -> None:
        got.append((trial.state, trial.step))
        while True:
            trial.report({"x": 1.0}, state=given)

    def generator(config: Any, state: Any = None) -> Any:
        got.append((state, current_job().start))
        while True:
            yield {"x": 1.0}, given

    train = function if form == "function" else generator
    store = tmp_path / "study.db"
    with ts.tune(train, SPACE, maximise="x", scheduler=Full(3), trials=1, store=store) as study:
        assert study.load() == study.load(0) == study.load(0, step=3) == expected
        study.change(scheduler=Full(5))
    with ts.tune(train, SPACE, maximise="x", scheduler=Full(5), trials=1, store=store) as study:
        assert study.load() == expected
    assert got == [(None, 0), (expected, 3)]


def test_what_else_there_is_to_say_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also of trials that begin again and are not named any more."""

    def train(trial: Any) -> None:
        for step in range(trial.step + 1, 6):
            trial.report({"x": float(step)}, state=step)
        raise ValueError(f"the end of trial {trial.number}")

    store = tmp_path / "study.db"
    with ts.tune(code.generator, SPACE, maximise="x", steps=3, trials=6, store=store) as study:
        study.change(scheduler=Full(5))
    for path in (tmp_path / "study.db.checkpoints").rglob("*.json"):
        path.unlink()
    caplog.clear()
    ts.tune(train, SPACE, maximise="x", steps=5, trials=6, store=store)
    assert caplog.text.count("begins again at step 0") == 3
    assert all(f"ValueError: the end of trial {number}" in caplog.text for number in range(6))
