"""External commands: what they get, what they print, how they fail and how they are stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import training_code as code
from jobs import checkpoint, job

import tunesmith as ts
import tunesmith.records
from tunesmith import samplers, temporary
from tunesmith.execution import Command, guard, run
from tunesmith.schedulers import Median
from tunesmith.temporary import alive


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
    assert "the command exited with status 0; it must print its metrics once a step" in report.failure.error
    report = outcome(session, python("print('{\"y\": 1}')"), 0, 0, 1)
    assert report.failure.error == "the command never printed 'x': its last JSON object has 'y'"
    report = outcome(session, python("print('first'); print({'x': 1.0})"), 0, 0, 1)
    assert report.failure.error.endswith("in Python, print(json.dumps(metrics)). It printed:\nfirst\n{'x': 1.0}")
    report = outcome(session, python("print('{1 + 1')"), 0, 0, 1)
    assert report.failure.error.endswith("on a line. It printed:\n{1 + 1")
    report = outcome(session, python("for i in range(1000): print('a long line', i)"), 0, 0, 1)
    assert report.failure.error.endswith("a long line 999") and len(report.failure.error) < 2500
    assert outcome(session, python(""), 0, 0, 1).failure.error.endswith("on a line. It printed nothing")
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


OBEDIENT = """
import json, os
for step in range(int(os.environ["TUNESMITH_START"]), int(os.environ["TUNESMITH_UNTIL"])):
    print(json.dumps({"x": step + 1}), flush=True)
"""


@pytest.mark.parametrize("again", [False, True])
def test_a_command_that_saved_nothing_begins_again(again, session):
    """When it has exited with its job, also in the session that has done this."""
    made = session(python(OBEDIENT))
    *_, report = made.run(job(0, 0, 2))
    assert report.metrics == {"x": [1, 2]}
    made = session(python(OBEDIENT)) if again else made
    *_, report = made.run(job(0, 2, 4))
    assert (report.start, report.metrics, report.failure) == (0, {"x": [1, 2, 3, 4]}, None)
    *_, fork = made.run(job(7, 2, 4)._replace(parent=0, forked=2))
    assert "let a command write to $TUNESMITH_SAVE" in fork.failure.error


def test_a_command_that_comes_to_its_end_with_a_job_and_saves_nothing(session):
    """Begun again for the next one, it shows that it has ended."""
    made = session(python("print('{\"x\": 1}')"))
    list(made.run(job(0, 0, 1)))
    *_, report = made.run(job(0, 1, 2))
    assert (report.start, report.metrics, report.ended) == (0, {"x": [1]}, True)


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


# -- commands that know nothing of a study --------------------------------------------------------------------------

PLAIN = """
import json, os, pathlib, sys
for epoch in range(1, int(sys.argv[1]) + 1):
    print(json.dumps({"x": epoch}), flush=True)
pathlib.Path("ended").touch()
"""


def test_a_command_that_goes_on_is_listened_to_from_job_to_job(session, tmp_path):
    made = session(python(PLAIN, "5", cwd=tmp_path))
    heard = []
    for start in range(4):
        *_, report = made.run(job(0, start, start + 1))
        assert (report.failure, report.saved, report.ended) == (None, None, False)
        heard += report.metrics["x"]
    *_, report = made.run(job(0, 4, 8))
    assert heard + report.metrics["x"] == [1, 2, 3, 4, 5]
    assert report.failure is None and report.ended


def test_a_command_that_goes_on_is_ended_with_its_last_job(session, tmp_path):
    slow = "import time\n" + PLAIN.replace("print(", "time.sleep(0.1); print(")
    made = session(python(slow, "50", cwd=tmp_path))
    reports = list(made.run(job(0, 0, 2)._replace(final=True)))
    told = [x for report in reports for x in report.metrics.get("x", ())]
    assert told == [1, 2] and reports[-1].failure is None
    assert not (tmp_path / "ended").exists()


@pytest.mark.parametrize("steps", [4, 5])
def test_a_command_that_says_at_its_end_how_well_it_did_may_end(steps, session, tmp_path):
    made = session(python(PLAIN, str(steps), cwd=tmp_path))
    reports = list(made.run(job(0, 0, 4)._replace(final=True)))
    told = [x for report in reports for x in report.metrics.get("x", ())]
    assert told == [1, 2, 3, 4] and reports[-1].failure is None
    assert (tmp_path / "ended").exists()


def test_a_command_that_says_more_but_saves_is_continued_from_what_it_saved(session):
    script = """
import json, os
start, until, save = (os.environ["TUNESMITH_" + name] for name in ("START", "UNTIL", "SAVE"))
for step in range(int(start), int(until)):
    print(json.dumps({"x": step + 1}))
print('{"x": -1}')
open(save + "/state", "w").write(until)
"""
    made = session(python(script))
    heard = []
    for start in (0, 2, 4):
        *_, report = made.run(job(0, start, start + 2))
        assert report.saved.step == start + 2
        heard += report.metrics["x"]
    assert heard == [1, 2, 3, 4, 5, 6]


def test_a_plain_script_is_stopped_early(tmp_path):
    """By the median, without a checkpoint; the good ones train to their own end."""
    script = "import sys\nfor epoch in range(6): print('{\"x\": ' + sys.argv[1] + '}', flush=True)"
    command = Command([sys.executable, "-c", script, "{lr}"])
    study = ts.tune(
        command, {"lr": ts.Integer(1, 4)}, minimise="x", scheduler=Median(100, min_trials=1), trials=4,
        sampler=samplers.Grid(), store=tmp_path / "study.db", progress=False,
    )  # fmt: skip
    steps = {trial.config["lr"]: trial.step for trial in study.trials}
    assert "failed" not in {trial.status for trial in study.trials}
    assert steps[1] == 6 and max(steps.values()) == 6 and min(steps.values()) == 1


def test_lines_of_json_without_the_metrics_are_passed_over(session):
    script = 'print(\'{"event": "start"}\'); print(\'{"x": 1}\'); print(\'[1]\'); print(\'{"x": 2, "y": 3}\')'
    *_, report = session(python(script)).run(job(0, 0, 2))
    assert report.metrics["x"] == [1, 2]


CHECKPOINTS = """
import json, os, pathlib, shutil, sys, time
start = int(os.environ["TUNESMITH_START"])
save = pathlib.Path(os.environ["TUNESMITH_SAVE"])
if start:
    assert (pathlib.Path(os.environ["TUNESMITH_LOAD"]) / "state.json").read_text() == str(start)
for step in range(start + 1, int(os.environ["TUNESMITH_UNTIL"]) + 1):
    print(json.dumps({"x": step}), flush=True)
    (save / str(step)).mkdir()
    (save / str(step) / "state.json").write_text(str(step))
    print(json.dumps({"checkpoint": str(step)}), flush=True)
    if step == 3 and not start:
        time.sleep(600)
(save / "state.json").write_text(str(step))
"""


def test_a_command_offers_its_state_while_it_goes_on(session):
    """A trial whose worker is killed in the middle of a job goes on from there."""
    made = session(python(CHECKPOINTS), report_seconds=0.0, checkpoint_steps=1)
    running = made.run(job(0, 0, 5))
    saved = None
    while saved is None or saved.saved.step < 2:
        report = next(running)
        assert report.failure is None
        saved = report if report.saved is not None else saved
    running.close()
    *reports, last = session(python(CHECKPOINTS)).run(job(0, 2, 5, [checkpoint(0, saved)]))
    assert last.failure is None and last.saved.step == 5
    assert [x for report in (*reports, last) for x in report.metrics["x"]] == [3, 4, 5]


OFFERS = """
import json, os, pathlib, sys
start, folder = int(os.environ["TUNESMITH_START"]), os.environ.get("TUNESMITH_LOAD")
save, ends, file = pathlib.Path(os.environ["TUNESMITH_SAVE"]), int(sys.argv[1]), sys.argv[2]
assert start == (int(next(pathlib.Path(folder).iterdir()).read_text()) if folder else 0)
for step in range(start + 1, min(ends, int(os.environ["TUNESMITH_UNTIL"])) + 1):
    print(json.dumps({"x": step}), flush=True)
    path = save / str(step)
    if not file:
        path.mkdir()
    (path if file else path / "state").write_text(str(step))
    print(json.dumps({"checkpoint": path.name}), flush=True)
"""


@pytest.mark.parametrize("file", ["", "file"])
def test_the_last_state_that_is_offered_is_kept(file, session):
    """At the end of a job, from which the next one goes on, and at the end of the training."""
    made = session(python(OFFERS, "5", file))
    for start, until, step in ((0, 2, 2), (2, 4, 4), (4, 9, 5)):
        *_, report = made.run(job(0, start, until))
        assert report.failure is None and report.saved.step == step
        folder = made.checkpoints.load(report.saved.where, report.saved.digest)
        assert [path.read_text() for path in folder.iterdir()] == [str(step)]
    assert report.ended


def test_a_state_that_is_offered_belongs_to_the_last_step_that_was_printed(session):
    """Also where the command goes on beyond the end of the job, and more is read than is told."""
    forever = OFFERS.replace('min(ends, int(os.environ["TUNESMITH_UNTIL"]))', "ends")
    made = session(python(forever, "20", ""), report_seconds=0.0)
    states = {}
    for start in (0, 3, 6):
        for report in made.run(job(0, start, start + 3)):
            assert report.failure is None
            if report.saved is not None:
                assert start <= report.saved.step <= start + 3
                states[report.saved.step] = made.checkpoints.load(report.saved.where, report.saved.digest)
        assert max(states) >= start + 2
    assert all((folder / "state").read_text() == str(step) for step, folder in states.items())


@pytest.mark.parametrize("name", ["'no such'", "'..'", "'/etc/passwd'", "'../config.json'", "''", "3"])
def test_a_state_that_is_offered_is_one_of_its_own(name, session):
    script = f"import json; print(json.dumps({{'x': 1}})); print(json.dumps({{'checkpoint': {name}}}))"
    *_, report = session(python(script)).run(job(0, 0, 2))
    assert "which is not there in $TUNESMITH_SAVE" in report.failure.error


# -- its output -----------------------------------------------------------------------------------------------------


def shell(script, **options):
    return Command(["/bin/sh", "-c", script], **options)


@pytest.mark.parametrize("child", ["sleep 600", "while :; do echo noise; done"])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_child_that_holds_the_output_does_not_hold_up_the_run(child, steps, session):
    """The command itself has ended, so it is done, and its last line needs no end."""
    script = f"""
import os, subprocess, sys
sys.stdout.write('{{"x": 1}}\\n{{"x": 2}}')
sys.stdout.flush()
child = subprocess.Popen(["/bin/sh", "-c", "sleep 0.2; {child}"])
open(os.environ["TUNESMITH_SAVE"] + "/pid", "w").write(str(child.pid))
"""
    made = session(python(script))
    *_, report = made.run(job(0, 0, steps))
    child = int((made.checkpoints.load(report.saved.where, report.saved.digest) / "pid").read_text())
    assert alive(child)
    os.kill(child, signal.SIGKILL)
    assert (report.failure, report.metrics) == (None, {"x": [1, 2][:steps]})


def test_a_child_that_holds_the_output_of_a_command_that_says_too_little(session):
    *_, report = session(shell("echo '{\"x\": 1}'; sleep 600 & exit 0")).run(job(0, 0, 2))
    assert report.metrics["x"] == [1]
    assert report.failure is None and report.ended


def test_what_a_broken_command_has_left_is_ended(session, tmp_path):
    script = f"sleep 600 & echo $! > {tmp_path}/pid; exit 3"
    *_, report = session(shell(script)).run(job(0, 0, 1))
    assert "exit status 3" in report.failure.error
    vanished([int((tmp_path / "pid").read_text())])


@pytest.mark.parametrize(
    ("written", "values"),
    [
        (rb"""b'{"x": 1}\r\n{"x": 2}\r\n'""", [1, 2]),
        (rb"""b'10%\r20%\r{"x": 1}\r30%\n{"x": 2}'""", [1, 2]),  # a progress bar
        (rb"""b'\xff\xfe\n{"x": 1}\n{"x" \xff}\n{"x": 2}\n'""", [1, 2]),
        (rb"""b'{"x": 1}\n' + b'.' * 3_000_000 + b'\n{"x": 2}'""", [1, 2]),
        (rb"""b'noise\n' * 200_000 + b'{"x": 1}\n{"x": 2}\n' + b'noise\n' * 200_000""", [1, 2]),
    ],
)
def test_lines_of_any_kind(written, values, session):
    *_, report = session(python(f"import os, sys; sys.stdout.buffer.write({written.decode()})")).run(job(0, 0, 2))
    assert (report.failure, report.metrics) == (None, {"x": values})


def test_a_command_that_goes_on_in_silence_is_waited_for(session):
    script = """
import os, sys, time
print('{"x": 1}', flush=True)
os.close(1)
time.sleep(0.5)
open(os.environ["TUNESMITH_SAVE"] + "/late", "w").close()
"""
    made = session(python(script))
    *_, report = made.run(job(0, 0, 1))
    assert [path.name for path in made.checkpoints.load(report.saved.where, report.saved.digest).iterdir()] == ["late"]


# -- its end --------------------------------------------------------------------------------------------------------

DRIVER = """
import sys
import tunesmith as ts
import tunesmith.records
from tunesmith.execution import Command, run
if __name__ == "__main__":
    script = "sleep 600 & echo $$ $! > $TUNESMITH_TRIAL.new; mv $TUNESMITH_TRIAL.new $TUNESMITH_TRIAL.pids; wait"
    train = Command(["/bin/sh", "-c", script])
    ts.tune(train, {"x": ts.Float(0, 1)}, minimise="x", trials=2, workers=int(sys.argv[1]), store=sys.argv[2])
"""


def vanished(pids):
    """Wait until the processes are gone."""
    until = time.monotonic() + 60
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < until, pids
        time.sleep(0.01)


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A driver with commands that run, and their processes and those of its workers."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "driver.py").write_text(DRIVER)
    started = []

    def start(workers):
        command = [sys.executable, str(tmp_path / "driver.py"), str(workers), str(tmp_path / "study.db")]
        process = subprocess.Popen(command, cwd=tmp_path, process_group=0, stderr=subprocess.DEVNULL)
        started.append(process)
        until = time.monotonic() + 60
        while len(found := list(tmp_path.glob("*.pids"))) < workers:
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.01)
        commands = [int(pid) for path in found for pid in path.read_text().split()]
        assert len(commands) == 2 * workers and all(map(alive, commands))
        return process, commands

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("workers", "number"), [(1, signal.SIGKILL), (1, signal.SIGHUP), (1, signal.SIGQUIT), (2, signal.SIGKILL)]
)
def test_commands_end_with_their_driver(workers, number, driver):
    """However that ends, and with all that they have started: the trial is trained anew, and not twice."""
    process, commands = driver(workers)
    process.send_signal(number)
    if number == signal.SIGHUP:  # like the first Ctrl-C, it waits for the present step
        time.sleep(0.5)
        assert process.poll() is None and all(map(alive, commands))
        process.send_signal(number)
    process.wait(60)
    vanished(commands)


def test_commands_end_when_driver_and_workers_are_killed_together(driver):
    process, commands = driver(2)
    everyone = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    workers = [pid for pid in everyone if pid != process.pid and pid not in commands and is_python(pid)]
    assert len(workers) == 2
    for pid in (process.pid, *workers):
        os.kill(pid, signal.SIGSTOP)  # so that none of them sees the end of another
    for pid in (process.pid, *workers):
        os.kill(pid, signal.SIGKILL)
    vanished(commands)


def is_python(pid):
    return "python" in psutil.Process(pid).name()


FORK = """
    import os, time
    from tunesmith.execution import guard
    begin = guard.Guard.__init__
    def forked(self):
        begin(self)
        if os.fork() == 0:
            open("forked.pid", "w").write(str(os.getpid()))
            time.sleep(600)
            os._exit(0)
    guard.Guard.__init__ = forked
    ts.tune("""


def test_a_child_that_was_forked_does_not_keep_the_commands_of_its_dead_parent(driver, tmp_path):
    """Like a library of the training code that forks: it has inherited all pipes."""
    (tmp_path / "driver.py").write_text(DRIVER.replace("    ts.tune(", FORK))
    process, commands = driver(1)
    process.kill()
    try:
        vanished(commands)
    finally:
        os.kill(int((tmp_path / "forked.pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_killed_process_has_left_in_the_temporary_folder_is_swept(workers, driver, tmp_path):
    process, commands = driver(workers)
    left = list((tmp_path / "tmp").iterdir())
    assert len(left) == workers
    process.kill()
    process.wait()
    vanished([*commands, *(int(path.name.split("-")[-2]) for path in left)])
    others = [
        tmp_path / "tmp" / name for name in ("tunesmith-elsewhere-1-abc", "tunesmith-x", temporary.prefix() + "x")
    ]
    for path in others:
        path.mkdir()
    temporary.sweep()
    assert sorted((tmp_path / "tmp").iterdir()) == sorted(others)


def test_a_worker_that_was_killed_leaves_nothing(driver, tmp_path):
    process, commands = driver(2)
    worker = next(child for child in psutil.Process(process.pid).children() if is_python(child.pid))
    its = {pid for pid in commands if pid in {child.pid for child in worker.children(recursive=True)}}
    worker.kill()
    vanished(its)
    until = time.monotonic() + 60
    while any(f"-{worker.pid}-" in path.name for path in (tmp_path / "tmp").iterdir()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert process.poll() is None


KILLED = """
import json, os, pathlib, signal, sys
load, save = pathlib.Path(os.environ.get("TUNESMITH_LOAD", "/none")), pathlib.Path(os.environ["TUNESMITH_SAVE"])
total = float((load / "total").read_text()) if load.is_dir() else 0.0
for step in range(int(os.environ["TUNESMITH_START"]) + 1, int(os.environ["TUNESMITH_UNTIL"]) + 1):
    total += step
    print(json.dumps({"x": total}), flush=True)
    mark = pathlib.Path(sys.argv[1]) / os.environ["TUNESMITH_TRIAL"]
    if step == 3 and (sys.argv[2] == "always" or not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))
    state = "at-" + str(step)
    (save / state).mkdir()
    (save / state / "total").write_text(str(total))
    print(json.dumps(dict(checkpoint=state)), flush=True)
(save / "total").write_text(str(total))
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM", "SIGRTMIN"])
def test_a_command_that_is_killed_is_no_verdict_on_its_configuration(number, workers, tmp_path):
    space, kwargs = {"a": ts.Float(0, 1)}, {"minimise": "x", "steps": 5, "trials": 2, "workers": workers}
    study = ts.tune(python(KILLED, str(tmp_path), "once", number), space, **kwargs)
    assert [trial.status for trial in study.trials] == ["complete"] * 2
    assert [trial.values("x")[1] for trial in study.trials] == [[1.0, 3.0, 6.0, 10.0, 15.0]] * 2
    assert [event.kind for event in study.events() if isinstance(event, ts.records.Failed)] == ["crashed"] * 2


def test_a_command_that_is_killed_again_and_again_fails(tmp_path):
    study = ts.Study(ts.Space({"a": ts.Float(0, 1)}), [ts.Goal("x")], scheduler=ts.schedulers.Full(5), trials=1)
    with pytest.raises(ts.TunesmithError, match=r"was ended by signal SIGKILL"):
        ts.execution.run(study, python(KILLED, str(tmp_path), "always", "SIGKILL"))
    assert (study.trials[0].status, study.trials[0].kind, study.trials[0].step) == ("failed", "crashed", 3)


BRANCH = ts.Categorical({"adam": ts.Space({"beta": ts.Float(0, 1)}), "sgd": None})


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (["{lr}", "{optimizer}", "{beta}", "{steps}"], ""),
        (["--lr={lr}", "{optimizer}", "{beta}"], "'steps': write {steps} where"),
        (["--lr={lr}"], "'optimizer', 'beta', 'steps': write {optimizer} and {beta} and {steps} where"),
        (["{lr}", "{config}"], ""),
        (["--config", "{config}"], ""),
        (["plain"], ""),  # it reads $TUNESMITH_CONFIG
        (["{no}"], ""),  # that is another error
    ],
)
def test_a_parameter_that_no_argument_takes(arguments, unused, caplog):
    parts = {"lr": ts.Float(0, 1), "optimizer": BRANCH, "steps": ts.Integer(1, 9), "data": "digits"}
    command = python("import json; print(json.dumps({'x': 1}))", *arguments)
    study = ts.Study(ts.Space(parts), ts.Goal("x"), samplers.Uniform(), trials=0)
    run(study, command)
    run(study, command, workers=2)
    said = [record.message for record in caplog.records if "argument of the command" in record.message]
    assert said == [f"no argument of the command takes {unused} it belongs, or read $TUNESMITH_CONFIG"] * 2 * bool(
        unused
    )


def test_a_command_whose_guard_is_killed_as_it_starts_is_asked_again(tmp_path, monkeypatch):
    """The system may end any process at any moment: that says nothing of the configuration."""
    begin, killed = guard.Guard.__init__, []

    def killed_at_first(self):
        begin(self)
        if not killed:
            killed.append(self.group)
            self._leader.kill()
            self._leader.wait()

    monkeypatch.setattr(guard.Guard, "__init__", killed_at_first)
    program = Command([sys.executable, "-c", "import json; print(json.dumps(dict(loss=1.0)))", "{x}"])
    study = ts.tune(program, {"x": ts.Float(0, 1)}, minimise="loss", trials=2, store=tmp_path / "s.db")
    assert [trial.status for trial in study.trials] == ["complete"] * 2
    assert len(killed) == 1
