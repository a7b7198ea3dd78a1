"""Wrong use: one clear line that names the cause and the way out, and nothing is lost.

What belongs to one module is tested with it (``test_space.py``, ``execution/``, ``cli/``); here is what a user does
wrong with a whole study.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest

import tunesmith as ts
from tunesmith.execution import ExecutionError, run
from tunesmith.schedulers import PBT, Full, Jitter, Perturb, Truncation, TTest
from tunesmith.storage import StoreError

SPACE = {"lr": ts.Float(0.1, 1.0)}


def good(config, state=None):
    x = 0.0 if state is None else state
    while True:
        x += config["lr"]
        yield {"x": x}, x


def simple(config):
    return {"x": config["lr"]}


def refused(error, message):
    """The message is what was expected, and one readable line without our own frames."""
    text = str(error.value)
    assert re.search(message, text), text
    assert text.count("\n") == 0 and "Traceback" not in text and "src/tunesmith" not in text
    assert 10 < len(text) < 600


# -- definitions ----------------------------------------------------------------------------------------------------

DEFINITIONS = {
    "inverted bounds": (lambda: ts.Float(1.0, 0.1), ValueError, r"low=1.0 must be < high=0.1"),
    "equal bounds": (lambda: ts.Float(1.0, 1.0), ValueError, r"use Constant\(1.0\)"),
    "log of zero": (lambda: ts.Float(0.0, 1.0, log=True), ValueError, "low=0.0 must be > 0 when log=True"),
    "log of zero, integers": (lambda: ts.Integer(0, 9, log=True), ValueError, "low=0 must be > 0 when log=True"),
    "a bound that is not a number": (lambda: ts.Float(math.nan, 1.0), ValueError, "low=nan must be finite"),
    "a bound as text": (lambda: ts.Float("0", 1.0), TypeError, "low='0' must be a number"),
    "no options": (lambda: ts.Categorical([]), ValueError, "options must not be empty"),
    "an option twice": (lambda: ts.Categorical(["a", "a"]), ValueError, "'a' is given twice"),
    "a list for a domain": (lambda: ts.Space({"lr": [1, 2]}), TypeError, "'lr' must be a domain such as Float"),
    "a constraint on nothing": (
        lambda: ts.Space(SPACE, constraints=[ts.less_than("lr", "high")]), ValueError, "unknown parameter 'high'",
    ),
    "a forbidden value that is none": (
        lambda: ts.Space({"a": ts.Categorical(["x", "y"])}, constraints=[ts.forbid({"a": "z"})]),
        ValueError, "'a' must be one of 'x', 'y'",
    ),
    "a factor that does nothing": (lambda: Perturb(factor=1.0), ValueError, "factor=1.0 must be over 1"),
    "a factor below 1": (lambda: Perturb(factor=0.8), ValueError, "factor=0.8 must be over 1"),
    "no noise": (lambda: Jitter(scale=0.0), ValueError, "scale=0.0 must be over 0"),
    "everyone is replaced": (lambda: Truncation(fraction=0.9), ValueError, r"fraction=0.9 must be in \(0, 0.5\]"),
    "a test of one value": (lambda: TTest(window=1), ValueError, "window=1 must be at least 2"),
    "a population of one": (lambda: PBT(population=1, ready=1, steps=9), ValueError, "population=1 must be at least 2"),
    "never ready": (lambda: PBT(population=4, ready=10, steps=5), ValueError, "steps=5 must be at least ready=10"),
    "a command as text": (lambda: ts.Command("python train.py"), TypeError, "must be a list, such as"),
}  # fmt: skip


@pytest.mark.parametrize("case", DEFINITIONS)
def test_wrong_definitions(case):
    make, kind, message = DEFINITIONS[case]
    with pytest.raises(kind) as error:
        make()
    refused(error, message)


ARGUMENTS = {
    "no goal": ({"minimise": None}, ValueError, "say what to optimise"),
    "two goals in one": ({"minimise": ["x", "y"]}, TypeError, "the name of one metric, not .* goals="),
    "maximise=True": ({"minimise": None, "maximise": True}, TypeError, "the name of one metric, not True"),
    "goals as text": ({"minimise": None, "goals": ["x"]}, TypeError, "goals must be a list of Goal"),
    "no space": ({"space": None}, TypeError, "space must be a Space or a dict"),
    "a list as space": ({"space": ["lr"]}, TypeError, "space must be a Space or a dict"),
    "no code": ({"train": "train.py"}, TypeError, "'train.py' is no training code"),
    "a generator that was called": ({"train": good({})}, TypeError, "is no training code"),
    "no trials": ({"trials": 0}, ValueError, "trials=0 must be at least 1"),
    "negative trials": ({"trials": -1}, ValueError, "trials=-1 must be at least 1"),
    "half a trial": ({"trials": 1.5}, TypeError, "trials must be a whole number, not 1.5"),
    "trials as text": ({"trials": "3"}, TypeError, "trials must be a whole number, not '3'"),
    "negative seconds": ({"seconds": -1.0}, ValueError, "seconds=-1.0 must be at least 0"),
    "no steps": ({"steps": 0}, ValueError, "steps=0 must be at least 1"),
    "half a step": ({"steps": 1.5}, TypeError, r"Full: steps=1.5 must be a whole number"),
    "no workers": ({"workers": 0}, ValueError, "workers=0 must be at least 1"),
    "workers as text": ({"workers": "2"}, TypeError, "workers must be a whole number, not '2'"),
    "no time": ({"time_limit": 0}, ValueError, "time_limit=0 must be over 0"),
    "an unknown device": ({"devices": "tpu"}, ValueError, "device 'tpu' is none of"),
    "a device that is none": ({"devices": [None]}, ValueError, "device None is none of"),
    "a number of devices": ({"devices": 2.5}, ValueError, "device 2.5 is none of"),
    "never an end": ({"trials": None}, ValueError, "would never end: give trials="),
    "a class for a scheduler": ({"scheduler": PBT}, TypeError, "scheduler must be an object such as"),
    "an option of a wrong type": (
        lambda: {"scheduler": PBT(population=4, ready=1, steps=3, exploit="truncation")}, TypeError,
        r"exploit='truncation' must be Truncation\(\)",
    ),
    "a population with two goals": (
        {"minimise": None, "goals": [ts.Goal("x"), ts.Goal("y")],
         "scheduler": PBT(population=3, ready=1, steps=3, exploit=TTest())},
        ValueError, "TTest compares values of one goal",
    ),
    "a sampler by name": ({"sampler": "random"}, TypeError, "sampler must be an object such as"),
    "a limit that is not a number": (
        lambda: {"constraints": [ts.Constraint("x", math.nan)]}, ValueError, "at_most=nan must be finite",
    ),
    "a seed as text": ({"seed": "a"}, TypeError, "seed must be an integer"),
    "no name": ({"name": ""}, TypeError, "name of a study must be a string that is not empty"),
    "None as name": ({"name": None}, TypeError, "name of a study must be a string"),
    "a number as store": ({"store": 5}, TypeError, "store must be the path of a file"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_wrong_arguments_of_tune(case, tmp_path):
    """They are refused, and the same call with the right ones works."""
    options, kind, message = ARGUMENTS[case]
    right = {"train": simple, "space": SPACE, "minimise": "x", "trials": 2, "store": tmp_path / "study.db"}
    with pytest.raises(kind) as error:
        ts.tune(**{**right, **(options() if callable(options) else options)})
    refused(error, message)
    with ts.tune(**right) as study:
        assert len(study.trials) == 2 and study.trials.failed == 0


# -- stores -----------------------------------------------------------------------------------------------------------


def missing_folder(folder):
    return folder / "no" / "study.db"


def text_file(folder):
    (folder / "notes.txt").write_text("dear diary\n" * 100)
    return folder / "notes.txt"


def foreign(folder):
    with sqlite3.connect(folder / "other.db") as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    return folder / "other.db"


def newer(folder):
    ts.Study(ts.Space(SPACE), ts.Goal("x"), store=folder / "newer.db").close()
    with sqlite3.connect(folder / "newer.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    return folder / "newer.db"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (missing_folder, "the folder does not exist"),
        (lambda folder: folder, "a folder can't be opened as a study"),
        (text_file, "this is no SQLite file, give another path"),
        (foreign, "is not a tunesmith study, give another path"),
        (newer, "made by a newer tunesmith .* update tunesmith"),
        (lambda folder: "postgres://localhost/study", "give the path of a SQLite file"),
    ],
    ids=["missing folder", "folder", "text file", "foreign", "newer", "address"],
)
def test_places_that_are_no_store(place, message, tmp_path):
    where = place(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for use in (lambda: ts.tune(good, SPACE, minimise="x", trials=2, store=where), lambda: ts.Study.open(where)):
        with pytest.raises(StoreError) as error:
            use()
        if use.__code__.co_names[-1] == "tune" or place is not missing_folder:
            refused(error, message)
        assert str(where).rstrip("/") in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_study_that_is_defined_otherwise(tmp_path):
    store = tmp_path / "study.db"
    ts.tune(simple, SPACE, minimise="x", trials=2, store=store).close()
    with pytest.raises(ts.TunesmithError) as error:
        ts.tune(simple, {"lr": ts.Float(0.1, 2.0)}, minimise="x", trials=4, store=store)
    refused(error, r"study 'study' exists and is defined otherwise: parameter 'lr' .* Use another name or store, or")
    with ts.tune(simple, {"lr": ts.Float(0.1, 2.0)}, minimise="x", trials=4, store=store, name="other") as other:
        assert len(other.trials) == 4
    with ts.Study.open(store) as study:
        assert len(study.trials) == 2


def test_a_study_that_can_only_be_read(tmp_path, monkeypatch):
    store = tmp_path / "study.db"
    ts.tune(simple, SPACE, minimise="x", trials=2, store=store).close()
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)  # the superuser may write everywhere
        with pytest.raises(StoreError) as error:
            ts.tune(simple, SPACE, minimise="x", trials=4, store=store)
        refused(error, "the file can't be written: open it with Study.open to read it, or mend its permissions")
        with ts.Study.open(store) as study:
            assert study.best is not None
    with ts.tune(simple, SPACE, minimise="x", trials=4, store=store) as study:
        assert len(study.trials) == 4 and ts.replay(study) == []


# -- a study that is there stays readable, whatever it is told ------------------------------------------------------

ON_A_STUDY = {
    "an unknown parameter": (lambda s, j: s.enqueue({"lr": 0.5, "size": 3}), "'size'=3 is unknown"),
    "a parameter is missing": (lambda s, j: s.add({}, {"x": 1.0}), "'lr' is missing: it must be a number from"),
    "out of range": (lambda s, j: s.enqueue({"lr": 5}), "'lr'=5: must be a number from 0.1 to 1.0"),
    "text for a number": (lambda s, j: s.add({"lr": "0.5"}, {"x": 1.0}), "'lr'='0.5': must be a number"),
    "an unknown goal": (lambda s, j: s.tell(j, {"y": 1.0}), "metrics lack 'x'; they have 'y'"),
    "text for a metric": (lambda s, j: s.tell(j, {"x": "low"}), "'x': .*is not a number"),
    "a number for metrics": (lambda s, j: s.tell(j, 0.5), "metrics must be a dict such as"),
    "too many values": (lambda s, j: s.tell(j, {"x": [1.0] * 9}), "told up to step 9, the job is from 0 to 2"),
    "an added value is not finite": (lambda s, j: s.add({"lr": 0.5}, {"x": math.nan}), "not finite"),
    "an unknown kind of failure": (lambda s, j: s.fail(j, "why", "weird"), "kind='weird' must be one of 'raised'"),
    "no duration": (lambda s, j: s.tell(j, {"x": 1.0}, seconds=math.nan), "seconds=nan must be at least 0"),
    "a checkpoint of something": (
        lambda s, j: s.tell(j, {"x": 1.0}, checkpoint=ts.Checkpoint(0, 2, Path("a"), "d")), "nothing was stored",
    ),
    "a dict for a space": (lambda s, j: s.change(space=SPACE), "space must be a Space, not dict"),
    "a class for a scheduler": (lambda s, j: s.change(scheduler=PBT), "which is a class: write PBT"),
    "a wrong option": (lambda s, j: s.change(scheduler=Full(2.5)), "Full: steps=2.5 must be a whole number"),
    "a new parameter without a past": (
        lambda s, j: s.change(space=ts.Space({**SPACE, "m": ts.Float(0, 1)})), "'m' is new: say with fill=",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ON_A_STUDY)
def test_a_stored_study_stays_as_it_was(case, tmp_path):
    call, message = ON_A_STUDY[case]
    store = tmp_path / "study.db"
    study = ts.Study(ts.Space(SPACE), ts.Goal("x"), sampler=ts.samplers.Uniform(), scheduler=Full(2), store=store)
    job = study.ask()
    before = study.events()
    with pytest.raises((ValueError, TypeError, ts.TunesmithError)) as error:
        call(study, job)
    refused(error, message)
    study.close()
    with ts.Study.open(store) as again:
        assert again.events() == before
        again.tell(job, {"x": 1.0})
        again.tell(again.ask(), {"x": 2.0})
        assert [trial.status for trial in again.trials] == ["complete"] * 2 and ts.replay(again) == []


# -- training code --------------------------------------------------------------------------------------------------


def diverges(config):
    return math.nan


def other_metric(config):
    return {"accuracy": 1.0}


def nothing(config):
    print(end="")


def text(config):
    return "0.5"


def misspells(config):
    return config["learning_rate"]


def leaves(config):
    sys.exit(3)


def takes_two(model, data):
    return 1.0


def reports_something_else(trial):
    while True:
        trial.report(accuracy=1.0)


def never_reports(trial):
    return 1.0


def keeps_an_object(config, state=None):
    while True:
        yield 1.0, {"model": object()}


class NoSetup:
    def setup(self):
        """The configuration is missing."""

    def step(self):
        return 1.0


def python(code, *arguments, **options):
    return ts.Command([sys.executable, "-c", code, *arguments], **options)


CODE = {
    "not a number": (diverges, "x is not finite at step 1"),
    "the goal is not reported": (other_metric, r"'x', a goal or constraint .*, is missing; got \['accuracy'\]"),
    "None": (nothing, "the training gave None: it must give a number, or a dict with 'x'"),
    "text": (text, "the metric 'x' is '0.5', a str, but must be a number"),
    "a KeyError": (misspells, "KeyError: 'learning_rate'"),
    "sys.exit": (leaves, "SystemExit: 3"),
    "two arguments": (takes_two, "missing 1 required positional argument: 'data'"),
    "another metric is reported": (reports_something_else, r"'x', a goal .* is missing; got \['accuracy'\]"),
    "nothing is reported": (never_reports, "call trial.report once a step"),
    "a state that can't be saved": (keeps_an_object, r"state\['model'\] is a builtins.object, which no checkpoint"),
    "setup without the configuration": (NoSetup, r"setup\(\) takes 1 positional argument but 2 were given"),
    "no such program": (ts.Command(["no-such-program"]), "can't be started: .*No such file.*no-such-program"),
    "no such folder": (python("1", cwd="/no/such/folder"), "can't be started: .*No such file.*/no/such/folder"),
    "exit status 1": (python("import sys; sys.exit('no data')"), "failed with exit status 1:\nno data"),
    "no JSON": (python("print('hello')"), "it must print its metrics once a step, as a JSON object"),
    "another metric is printed": (python("print('{\"y\": 1}')"), "never printed 'x': its last JSON object has 'y'"),
    "a placeholder for nothing": (python("1", "{momentum}"), r"\{momentum\} .* is no hyperparameter"),
}  # fmt: skip


@pytest.mark.parametrize("case", CODE)
def test_training_code_that_never_works(case, tmp_path, caplog):
    """The run ends with the error, and the study goes on with better code."""
    train, message = CODE[case]
    store = tmp_path / "study.db"
    with pytest.raises(ExecutionError, match=r"^all 3 trials of the study have failed; the first error") as error:
        ts.tune(train, SPACE, minimise="x", steps=2, trials=3, store=store)
    assert re.search(message, str(error.value)), str(error.value)
    assert f"{os.sep}tunesmith{os.sep}" not in str(error.value)  # only frames of the user's code
    assert caplog.text.count("a trial has failed") == 1
    with ts.tune(good, SPACE, minimise="x", steps=2, trials=5, store=store) as study:
        assert [trial.status for trial in study.trials] == ["failed"] * 3 + ["complete"] * 2
        assert ts.replay(study) == []


def forgets(config):
    while True:
        yield {"x": config["lr"]}


class ForgetsToo:
    def setup(self, config):
        self.config = config

    def step(self):
        return self.config["lr"]


@pytest.mark.parametrize("train", [forgets, ForgetsToo])
def test_a_population_of_code_that_saves_nothing(train, tmp_path):
    """The run ends where the first member would need what was not saved."""
    options = {"minimise": "x", "scheduler": PBT(population=4, ready=1, steps=4), "store": tmp_path / "study.db"}
    with pytest.raises(ExecutionError) as error:
        ts.tune(train, SPACE, **options)
    refused(error, r"this training code saves no state: let a generator yield \(metrics, state\).* begin a new study")
    with ts.Study.open(tmp_path / "study.db") as study:
        assert study.trials.failed == 1 and ts.replay(study) == []
    with ts.tune(good, SPACE, **options, name="again") as study:
        assert study.trials.failed == 0 and ts.replay(study) == []
        assert sum(trial.step == 4 for trial in study.trials) == 4


def test_code_that_no_worker_can_get(tmp_path):
    with (tmp_path / "open").open("w") as file, pytest.raises(ExecutionError) as error:
        ts.tune(lambda config: file.name, SPACE, minimise="x", trials=2, workers=2)
    refused(error, "can't be sent to worker processes .*: keep open files, locks and the like out of it")


# -- disks ------------------------------------------------------------------------------------------------------------

FULL = """
import resource, signal, sys
import numpy as np
import tunesmith as ts

def train(config, state=None):
    x = 0.0 if state is None else float(state["x"])
    while True:
        x += config["lr"]
        yield {"x": x}, {"x": x, "weights": np.zeros(int(sys.argv[1]))}

if __name__ == "__main__":
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # no file may be longer
    with ts.tune(train, {"lr": ts.Float(0.1, 1.0)}, minimise="x", steps=100, trials=30, store="study.db") as study:
        print(len(study.trials), study.trials.failed, {trial.step for trial in study.trials}, ts.replay(study))
"""


@pytest.mark.parametrize(
    ("weights", "limit", "message"),
    [
        (1, 40_000, r"StoreError: study.db: the disk (is full|can't be written .*): free some space and go on"),
        (100_000, 400_000, r"ExecutionError: cannot write checkpoints to .*: File too large; free or change the disk"),
    ],
    ids=["of the study", "of the checkpoints"],
)
def test_a_full_disk(weights, limit, message, tmp_path):
    """The run ends; where there is room again it goes on, without a failed trial."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(FULL))

    def attempt(limit):
        command = [sys.executable, str(script), str(weights), str(limit)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3600, check=False)

    full = attempt(limit)
    assert full.returncode == 1 and full.stdout == ""
    assert re.fullmatch(f"(tunesmith.*[.])?{message}", full.stderr.splitlines()[-1]), full.stderr
    with ts.Study.open(tmp_path / "study.db") as study:
        assert study.trials.failed == 0
    ample = attempt(10**9)
    assert (ample.stdout, ample.stderr) == ("30 0 {100} []\n", "")


def test_a_truncated_checkpoint(tmp_path, caplog):
    """It is noticed, and training goes on from the one before."""
    store = tmp_path / "study.db"
    ts.tune(good, SPACE, minimise="x", scheduler=PBT(population=3, ready=2, steps=4), store=store).close()
    cut = list(tmp_path.glob("study.db.checkpoints/study/*/4.json"))
    for path in cut:
        path.write_bytes(path.read_bytes()[:-1])
    with ts.Study.open(store) as study:
        study.change(scheduler=PBT(population=3, ready=2, steps=8))
        assert run(study, good) == "done"
        assert len(cut) >= 3 and caplog.text.count("is damaged or cut short") >= 1
        for trial in study.trials:
            steps, values = trial.values("x")
            assert steps == list(range(steps[0], trial.step + 1)) and steps[0] <= trial.start + 1
            increments = [after - before for before, after in pairwise(values)]
            assert increments == pytest.approx([trial.config["lr"]] * len(increments))
        assert ts.replay(study) == []


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["code.py:diverges"], "all 2 trials of the study have failed; .* x is not finite at step 1"),
        (["code.py:misspells"], "all 2 trials of the study have failed; .* KeyError: 'learning_rate'"),
        (["--", "no-such-program", "{lr}"], "all 2 trials .* can't be started: .*No such file"),
        (["--", sys.executable, "-c", "print('hi')"], "all 2 trials .* must print its metrics once a step, as a JSON"),
    ],
    ids=["not a number", "KeyError", "no such program", "no JSON"],
)
def test_a_run_in_which_everything_fails_has_an_exit_code(words, message, tmp_path):
    (tmp_path / "code.py").write_text(
        "def diverges(config): return float('nan')\ndef misspells(config): return config['learning_rate']\n"
    )
    (tmp_path / "space.toml").write_text('[space]\nlr = "Float(0.1, 1.0)"\n')
    options = ["--space", "space.toml", "--minimise", "x", "--trials", "2", "-q"]
    place = words.index("--") if "--" in words else len(words)
    command = [sys.executable, "-m", "tunesmith", "run", *words[:place], *options, *words[place:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 1 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tunesmith: ") and re.search(message, last), done.stderr
    with ts.Study.open(tmp_path / "study.db") as study:
        assert study.trials.failed == 2
