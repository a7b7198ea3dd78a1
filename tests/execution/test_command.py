"""External commands: what they get, what they print, how they fail and how they are stopped."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
import training_code as code
from jobs import checkpoint, job

from tunesmith.execution import Command


def python(script, *arguments, **options):
    return Command([sys.executable, "-c", script, *arguments], **options)


def outcome(session, command, *args, **config):
    made = session(command)
    *_, report = made.run(job(*args, **config))
    return report


SHOW = """
import json, os, sys
environment = {k: v for k, v in os.environ.items() if k.startswith("TUNESMITH_") or k == "EXTRA"}
print(json.dumps({"x": 1}))
sys.stderr.write(json.dumps([sys.argv[1:], open(sys.argv[2]).read(), os.getcwd(), environment]))
sys.exit(1)
"""


def test_what_a_command_gets(session, tmp_path):
    command = python(SHOW, "--lr={lr},{opt.name}", "{config}", '{"a": 1}', cwd=tmp_path, env={"EXTRA": "yes"})
    report = outcome(session, command, 4, 0, 2, seed=6, **{"opt.name": "a b; $HOME"})
    assert report.metrics == {"x": [1]}
    arguments, config, cwd, environment = json.loads(report.failure.error.splitlines()[-1])
    assert arguments == ["--lr=1.0,a b; $HOME", arguments[1], '{"a": 1}']
    assert (
        json.loads(config) == json.loads(environment.pop("TUNESMITH_CONFIG")) == {"lr": 1.0, "opt.name": "a b; $HOME"}
    )
    assert cwd == str(tmp_path)
    assert Path(environment.pop("TUNESMITH_SAVE")).name == "save-2"
    assert environment == {
        "EXTRA": "yes", "TUNESMITH_TRIAL": "4", "TUNESMITH_SEED": "6", "TUNESMITH_REPEAT": "0", "TUNESMITH_START": "0",
        "TUNESMITH_UNTIL": "2",
    }  # fmt: skip


def test_failures_of_commands(session):
    report = outcome(session, python("import sys; sys.stderr.write('the reason'); sys.exit(7)"), 0, 0, 1)
    assert "failed with exit status 7:\nthe reason" in report.failure.error
    report = outcome(session, python("print('no json')"), 0, 0, 1)
    assert (
        "ended by itself after step 0, but step 1 was asked for: the command exited with status 0"
        in report.failure.error
    )
    report = outcome(session, Command(["/no/such/program"]), 0, 0, 1)
    assert "No such file or directory: '/no/such/program'" in report.failure.error
    report = outcome(session, python("", "{momentum}"), 0, 0, 1)
    assert (
        "{momentum} in '{momentum}' is no hyperparameter of this configuration: ['config', 'lr']"
        in report.failure.error
    )
    with pytest.raises(TypeError, match="must be a list"):
        Command("python train.py")


def test_more_output_than_asked_for_is_passed_over(session):
    report = outcome(session, python("for i in range(10000): print('{\"x\": %d}' % i)"), 0, 0, 3)
    assert report.failure is None
    assert report.metrics == {"x": [0, 1, 2]}
    assert report.saved is None  # it wrote nothing to $TUNESMITH_SAVE


def test_a_command_that_saved_nothing_is_not_continued(session):
    made = session(python("print('{\"x\": 1}')"))
    list(made.run(job(0, 0, 1)))
    *_, warm = made.run(job(0, 1, 2))
    assert "wrote nothing to $TUNESMITH_SAVE at step 1" in warm.failure.error
    *_, cold = made.run(job(0, 1, 2))
    assert "let a command write to $TUNESMITH_SAVE" in cold.failure.error


def test_a_stopped_command_is_killed_and_leaves_nothing(session, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    script = f"""
import os, pathlib, time
print('{{"x": 1}}', flush=True)
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
time.sleep(600)
"""
    made = session(python(script), report_seconds=0.0)
    running = made.run(job(0, 0, 2))
    next(running)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    running.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert [path for path in tmp_path.iterdir() if path.name.startswith("tunesmith-")] == []


def test_a_warm_command_saves_again(session):
    made = session(code.command)
    list(made.run(job(0, 0, 2)))
    *_, report = made.run(job(0, 2, 4))
    *_, resumed = session(code.command).run(job(0, 4, 5, [checkpoint(0, report)]))
    assert resumed.metrics["x"] == [5]
