"""The commands that train."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunesmith as ts

Misuse = Callable[..., str]
Opened = Callable[..., ts.Study]
PBT = "PBT(population=4, ready=2, steps=8, exploit=Tournament())"
PROGRAM = """
import json, os, sys
for step in range(int(os.environ["TUNESMITH_START"]), int(os.environ["TUNESMITH_UNTIL"])):
    print(json.dumps({"loss": float(sys.argv[2]) / (step + 1)}))
"""
SPACE = """
constraints = ["less_than('low', 'high')"]

[space]
low = "Integer(0, 9)"
high = "Integer(0, 9)"
lr = "Float(1e-3, 1.0, log=True)"
fixed = 3

[space.optimizer.sgd]
momentum = "Float(0.0, 0.99)"

[space.optimizer.adam]
"""


def test_run_and_look(call: Any, code: str, opened: Opened) -> None:
    done = call("run", f"{code}:train", "--scheduler", PBT, "--seed", "3", "--json")
    assert done.code == 0 and "trials" in done.err
    found = json.loads(done.out)
    assert found["outcome"] == "done" and found["store"] == "study.db" and found["best"]["step"] == 8
    assert opened("study.db").definition.seed == 3
    assert call("replay", "study.db").out.endswith("0 differences\n")
    assert json.loads(call("status", "study.db", "--json").out)["best"] == found["best"]


def test_quiet(call: Any, code: str) -> None:
    done = call("run", f"{code}:train", "--trials", "3", "--steps", "2", "-q")
    assert done.code == 0 and done.err == "" and "outcome" in done.out


def test_the_goal_and_the_space_can_be_named(call: Any, code: str, opened: Opened) -> None:
    words = ("--maximise", "other", "--space", "small", "--sampler", "Grid", "--name", "mine", "--store", "a.db")
    assert call("run", f"{code}:train", *words, "-q").code == 0
    study = opened("a.db", "mine")
    assert study.goals == (ts.Goal("other", maximise=True),)
    assert sorted(trial.config["lr"] for trial in study.trials) == [0.1, 0.2, 0.3]


def test_seeds(call: Any, code: str, opened: Opened) -> None:
    words = ("--trials", "6", "--steps", "2", "--seeds", "3")
    done = json.loads(call("run", f"{code}:train", *words, "--json").out)
    assert done["scheduler"] == "Full(steps=2, seeds=3)" and done["best"]["estimate"]["count"] == 3
    assert [trial.repeat for trial in opened("study.db").trials] == [0, 1, 2, 0, 1, 2]
    text = call("run", f"{code}:train", "--trials", "9", "--steps", "2", "--seeds", "3").out
    assert "; mean " in text and " ± 0 (3 seeds)" in text


def test_race(call: Any, code: str) -> None:
    words = ("--trials", "20", "--scheduler", "Race(steps=2, seeds=4)", "--json", "-q")
    done = json.loads(call("run", f"{code}:train", *words).out)
    assert done["trials"] == 20 and done["best"]["estimate"] is not None
    assert call("replay", "study.db").out.endswith("0 differences\n")


def test_several_goals(call: Any, code: str, opened: Opened) -> None:
    assert call("run", f"{code}:train", "--minimise", "loss", "--maximise", "other", "--trials", "2", "-q").code == 0
    assert [goal.maximise for goal in opened("study.db").goals] == [False, True]


def test_a_study_that_is_there_is_continued(call: Any, code: str) -> None:
    assert json.loads(call("run", f"{code}:train", "--trials", "2", "--json").out)["trials"] == 2
    assert json.loads(call("run", f"{code}:train", "--trials", "5", "--json").out)["trials"] == 5
    assert json.loads(call("resume", "study.db", f"{code}:train", "--trials", "7", "--json").out)["trials"] == 7


def test_resume_after_the_time_is_up(call: Any, code: str) -> None:
    first = json.loads(call("run", f"{code}:train", "--scheduler", PBT, "--seconds", "0", "--json").out)
    assert first["outcome"] == "seconds" and first["steps"] == 0
    done = json.loads(call("resume", "study.db", f"{code}:train", "--json", "-q").out)
    assert done["outcome"] == "done" and done["best"]["step"] == 8


def test_worker_processes(call: Any, code: str) -> None:
    words = (
        "--trials",
        "4",
        "--workers",
        "2",
        "--time-limit",
        "60",
        "--devices",
        "cpu:1",
        "--devices",
        "cpu:1",
        "--json",
    )
    assert json.loads(call("run", f"{code}:train", *words).out)["complete"] == 4


def test_an_external_command(call: Any, tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "space.toml").write_text(SPACE)
    command = (sys.executable, "program.py", "--lr", "{lr}")
    words = (
        "run",
        "--space",
        "space.toml",
        "--minimise",
        "loss",
        "--trials",
        "2",
        "--steps",
        "3",
        "--json",
        "--",
        *command,
    )
    assert json.loads(call(*words).out)["complete"] == 2
    resumed = call("resume", "study.db", "--trials", "3", "--json", "--", *command)
    assert json.loads(resumed.out)["complete"] == 3
    for trial in opened("study.db").trials:
        assert trial.config["low"] < trial.config["high"] and trial.config["fixed"] == 3
        assert ("momentum" in trial.config) == (trial.config["optimizer"] == "sgd")
        assert trial.metrics["loss"] == pytest.approx(trial.config["lr"] / 3)


def test_a_space_in_json(call: Any, code: str, tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "space.json").write_text(
        '{"space": {"lr": "Ordinal([0.1, 0.2])", "optimizer": {"sgd": {}, "adam": {}}}}'
    )
    assert call("run", f"{code}:train", "--space", "space.json", "-q").code == 0
    assert len(opened("study.db").trials) == 4


def test_failures_are_shown_once_and_end_the_run(call: Any, code: str, caplog: pytest.LogCaptureFixture) -> None:
    done = call("run", f"{code}:broken", "--trials", "30", "-q")
    assert done.code == 1
    assert done.err.startswith("tunesmith: ") and done.err.count("\n") == 1 and "the data is missing" in done.err
    assert caplog.text.count("Traceback") == 1


def test_retrain(call: Any, code: str) -> None:
    assert call("run", f"{code}:train", "--scheduler", PBT, "-q").code == 0
    done = json.loads(call("schedule", "study.db", "--retrain", f"{code}:train", "--seeds", "2", "--json").out)
    assert done["steps"] == 8 and len(done["schedule"]) == len(done["constant"]) == 2
    assert done["difference"]["mean"] == pytest.approx(done["schedule"][0] - done["constant"][0])
    assert "with the schedule" in call("schedule", "study.db", "--retrain", f"{code}:train", "--seeds", "2").out


def test_interrupt_and_resume(code: str, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        (tmp_path / code)
        .read_text()
        .replace("        loss, step = loss", "        __import__('time').sleep(0.05)\n        loss, step = loss")
    )
    words = [sys.executable, "-m", "tunesmith", "run", "slow.py:train", "--trials", "4", "--steps", "20", "--json"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    store = tmp_path / "study.db"
    while not (store.exists() and any(t.step for t in _trials(store))) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=3600)
    assert process.returncode == 130 and "Traceback" not in err, err
    found = json.loads(out)
    assert found["outcome"] == "interrupted" and found["running"] == 0 and found["steps"] < 80
    words[3:5] = ["resume", "study.db", "slow.py:train"]
    del words[8:10]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    after = json.loads(done.stdout)
    assert after["complete"] == 4 and after["steps"] == 80


def _trials(store: Path) -> list[Any]:
    try:
        with ts.Study.open(store) as study:
            return list(study.trials)
    except ts.TunesmithError:  # it is being made
        return []


RUN = ("run", "CODE:train", "--trials", "2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run",), "name the code"),
        (("run", "CODE:train", "--", "python"), "name the code"),
        (("status", "x.db", "--", "python"), "is for run and resume"),
        (("run", "CODE"), "names no function"),
        (("run", "nowhere.py:train"), "there is no file nowhere.py"),
        (("run", "no_such_module:train"), "there is no module 'no_such_module'"),
        (("run", "CODE:tain"), "did you mean train"),
        (("run", "CODE:number"), "is no training code"),
        (("run", "syntax.py:train"), "syntax.py, line 1"),
        (("run", "needs.py:train"), "needs the module 'surely_not_installed'"),
        (("run", "raises.py:train"), "ZeroDivisionError"),
        (("run", "bare.py:train", "--minimise", "loss"), "--space FILE.toml"),
        (("run", "bare.py:train", "--space", "inverted.toml"), "parameter 'lr'"),
        (("run", "CODE:train"), "would never end"),
        ((*RUN, "--space", "nowhere.toml"), "there is no file nowhere.toml"),
        ((*RUN, "--space", "nothing"), "define `nothing`"),
        ((*RUN, "--space", "inverted.toml"), "parameter 'lr'"),
        ((*RUN, "--space", "broken.toml"), "broken.toml cannot be read"),
        ((*RUN, "--space", "list.toml"), "Categorical([1, 2])"),
        ((*RUN, "--space", "unknown.toml"), "did you mean Float"),
        ((*RUN, "--space", "loose.toml"), "has no table 'space'"),
        ((*RUN, "--space", "extra.toml"), "unknown entry 'lr'"),
        ((*RUN, "--space", "branch.toml"), "must be a table"),
        ((*RUN, "--space", "rule.toml"), "nowhere"),
        ((*RUN, "--scheduler", "PTB(population=4)"), "did you mean PBT"),
        ((*RUN, "--scheduler", "PBT(population=4"), "cannot be read"),
        ((*RUN, "--scheduler", "PBT(population=1, ready=1, steps=1)"), "must be at least 2"),
        ((*RUN, "--scheduler", "__import__('os').system('touch hacked')"), "is not a name with arguments"),
        ((*RUN, "--scheduler", "Full(2)", "--steps", "3"), "--steps is for studies without a scheduler"),
        (
            (*RUN, "--scheduler", PBT.replace("Tournament", "TTest"), "--maximise", "other", "--minimise", "loss"),
            "one goal",
        ),
        ((*RUN, "--sampler", "Sobol"), "there is no sampler 'Sobol'"),
        ((*RUN, "--minimise", "loss", "--maximise", "loss"), "twice"),
        ((*RUN, "--store", "."), "is a folder"),
        ((*RUN, "--store", "no/such/study.db"), "folder does not exist"),
        ((*RUN, "--store", "foreign.db"), "is not a tunesmith study"),
        ((*RUN, "--store", "inverted.toml"), "no SQLite file"),
        ((*RUN, "--trials", "0"), "--trials"),
        ((*RUN, "--workers", "two"), "--workers"),
        ((*RUN, "--devices", "tpu"), "tpu"),
        ((*RUN, "--seed", "x"), "--seed"),
        ((*RUN, "--store", "there.db"), "defined otherwise"),
        (("resume", "nowhere.db", "CODE:train"), "there is no such file"),
        (("resume", "there.db"), "name the code"),
        (("resume", "there.db", "CODE:train"), "would never end"),
        (("resume", "there.db", "CODE:train", "--name", "x"), "there is no study 'x'"),
        (("schedule", "there.db", "--retrain", "CODE:tain"), "result"),
        (("demo", "--data", "cifar"), "'cifar' is not one of"),
        (("demo", "--data", "fashion-mnist", "--data-dir", ".", "--quiet"), "Fashion-MNIST is not complete"),
        (("demo", "--steps", "0"), "--steps"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input(words: tuple[str, ...], message: str, misuse: Misuse, code: str, tmp_path: Path) -> None:
    files = {
        "bare.py": "def train(config): return 1.0",
        "syntax.py": "def train(config) return",
        "needs.py": "import surely_not_installed",
        "raises.py": "1 / 0",
        "inverted.toml": '[space]\nlr = "Float(1.0, 0.1)"',
        "broken.toml": "[space",
        "list.toml": "[space]\nlr = [1, 2]",
        "unknown.toml": '[space]\nlr = "Flot(0.0, 1.0)"',
        "loose.toml": 'lr = "Float(0.0, 1.0)"',
        "extra.toml": 'lr = 3\n[space]\nx = "Float(0.0, 1.0)"',
        "branch.toml": "[space.optimizer]\nsgd = 3",
        "rule.toml": "constraints = [\"less_than('x', 'nowhere')\"]\n[space]\nx = \"Float(0.0, 1.0)\"",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    connection = sqlite3.connect(tmp_path / "foreign.db")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    ts.Study(ts.Space({"x": ts.Float(0.0, 1.0)}), [ts.Goal("loss")], store=tmp_path / "there.db").close()
    try:
        assert message in misuse(*(word.replace("CODE", code) for word in words))
    finally:
        for name in ("bare", "raises", "needs"):
            sys.modules.pop(name, None)
    left = {path.name for path in tmp_path.iterdir()} - {*files, code, "foreign.db", "there.db", "__pycache__"}
    assert left <= {"study.db"} and not (tmp_path / "hacked").exists()


def test_nothing_is_made_where_the_call_makes_no_sense(misuse: Misuse, code: str, tmp_path: Path) -> None:
    for words in (("run", f"{code}:train"), ("run", f"{code}:number", "--trials", "1"), ("demo", "--data", "x")):
        misuse(*words)
    assert {path.name for path in tmp_path.iterdir()} <= {code, "__pycache__"}


def test_a_metric_that_the_code_does_not_give_is_one_clear_line(misuse: Misuse, code: str) -> None:
    error = misuse("run", f"{code}:wrong", "--trials", "50", "-q")
    assert "the metric 'loss'" in error and "is missing" in error


def test_a_small_demo(call: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    words = ("demo", "--population", "2", "--steps", "2", "--ready", "1", "--workers", "1")
    done = call(*words)
    assert done.code == 0 and "| PBT |" in done.out
    names = {path.name for path in (tmp_path / "demo-out").iterdir()}
    assert {"demo.db", "schedule.json", "schedule.png", "lineage.png", "table.md"} <= names
    again = call(*words, "--json")
    assert json.loads(again.out)["outcome"] == "reported"


def test_a_store_that_was_deleted_is_a_failure_of_the_command(misuse: Misuse, call: Any, tmp_path: Path) -> None:
    (tmp_path / "removing.py").write_text(
        "from pathlib import Path\n"
        "import tunesmith as ts\n"
        "space = ts.Space({'x': ts.Float(0, 1)})\n"
        "def train(config):\n"
        "    Path('study.db').unlink(missing_ok=True)\n"
        "    return config['x']\n"
    )
    error = misuse("run", f"{tmp_path}/removing.py:train", "--minimise", "x", "--trials", "3", "-q")
    assert "study.db: deleted while the study was open; all that it had is in" in error
    assert call("status", "study.rescued.db").out.count("complete   1\n") == 1
