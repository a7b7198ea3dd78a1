"""The loop: resumes, forks, failures, vanished drivers, Ctrl-C, and a disk that stays small."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import training_code as code

import tunesmith as ts
from tunesmith.execution import Checkpoints, ExecutionError, Inline, Options, Processes, as_task, drive
from tunesmith.records import Asked, Failed, Told
from tunesmith.storage import StoreError

SPACE = ts.Space({"lr": ts.Float(0.5, 2)})


def made(tmp_path, train, scheduler, workers=0, store=None, trials=None, report_seconds=0.25, seed=0):
    study = ts.Study(
        SPACE,
        ts.Goal("x", maximise=True),
        sampler=ts.samplers.Uniform(),
        scheduler=scheduler,
        store=store,
        trials=trials,
        seed=seed,
    )
    options = Options(("x",), str(tmp_path / "states"), report_seconds=report_seconds)
    executor = Processes(train, options, workers=workers) if workers else Inline(as_task(train), options)
    return study, executor


def pbt(steps=10, population=4, ready=1):
    return ts.schedulers.PBT(population=population, ready=ready, steps=steps)


def check_lineage(study):
    """Every fork has gone on from its parent's x at that step, with its own lr."""
    for trial in study.trials:
        if trial.parent is None:
            continue
        steps, values = study.trials[trial.parent].values("x")
        own, x = trial.values("x")
        assert own[0] == trial.start + 1
        assert x[0] == pytest.approx(values[steps.index(trial.start)] + trial.config["lr"])


@pytest.mark.parametrize("form", code.RESUMABLE)
@pytest.mark.parametrize("workers", [0, 2])
def test_population_based_training_with_every_form(form, workers, tmp_path):
    study, executor = made(tmp_path, code.RESUMABLE[form], pbt(8 if form == "command" else 20), workers)
    checkpoints = Checkpoints(tmp_path / "states")
    assert drive(study, executor, checkpoints=checkpoints) == "done"
    assert any(trial.parent is not None for trial in study.trials)
    check_lineage(study)
    assert ts.replay(study) == []
    assert not study.trials.running


def test_the_disk_stays_bounded_over_hundreds_of_forks(tmp_path):
    study, executor = made(tmp_path, code.generator, pbt(200, 6))
    checkpoints = Checkpoints(tmp_path / "states")
    most = 0

    def look(study):
        nonlocal most
        most = max(most, len(checkpoints.files()))

    assert drive(study, executor, checkpoints=checkpoints, progress=look) == "done"
    check_lineage(study)
    assert len(study.trials) > 150
    kept = len(study.keep())
    assert most <= 2 * kept + 2 * 16 + 2
    assert kept <= 2 * 6 + 2
    best = study.best
    assert (best.id, best.step) in checkpoints.files()


@pytest.mark.parametrize("how", ["exit", "kill", "hang", "raise"])
def test_a_bad_end_costs_one_job(how, tmp_path):
    space = ts.Space({"lr": ts.Float(0.5, 2), "flag": str(tmp_path / "flag"), "how": how})
    study = ts.Study(space, ts.Goal("x", maximise=True), sampler=ts.samplers.Uniform(), scheduler=pbt(12, 4))
    executor = Processes(code.crash, Options(("x",), str(tmp_path / "states")), workers=2, time_limit=2)
    assert drive(study, executor, checkpoints=Checkpoints(tmp_path / "states")) == "done"
    failed = [event for event in study.events() if type(event) is Failed]
    assert [event.kind for event in failed] == [{"hang": "timeout", "raise": "raised"}.get(how, "crashed")]
    assert study.trials.failed == (how in ("hang", "raise"))  # a crash is tried again
    assert sum(trial.step == 12 for trial in study.trials) >= 3  # nobody is left to refill the slot of a late failure
    assert ts.replay(study) == []


def test_a_study_in_which_everything_fails_ends_with_the_first_error(tmp_path, caplog):
    def broken(config):
        error = RuntimeError("no such data set")
        error.add_note("A note: look into the documents.")
        raise error

    study, executor = made(tmp_path, broken, ts.schedulers.Full(1), trials=1000)
    with pytest.raises(ExecutionError, match=r"(?s)11 trials in a row have failed, .* \(11 times\):.*no such data set"):
        drive(study, executor)
    assert len(study.trials) == 11
    assert caplog.text.count("Traceback") == 1  # each error is shown once
    assert "11 trials have failed with: RuntimeError: no such data set" in caplog.text


def test_crashing_workers_end_too(tmp_path):
    study, executor = made(tmp_path, code.always_crashing, ts.schedulers.Full(1), workers=2, trials=1000)
    with pytest.raises(ExecutionError, match="worker process ended under this job with exit status 1"):
        drive(study, executor, max_failures=2)


def test_single_failures_do_not_matter(tmp_path):
    def fragile(config):
        if config["lr"] < 1:
            raise ValueError("too low")
        return config["lr"]

    study, executor = made(tmp_path, fragile, ts.schedulers.Full(1), trials=60)
    assert drive(study, executor) == "done"
    assert len(study.trials) == 60
    assert 5 < study.trials.failed < 50
    study, executor = made(tmp_path, fragile, ts.schedulers.Full(1), trials=200)
    with pytest.raises(ExecutionError, match="2 trials in a row"):
        drive(study, executor, max_failures=2)


def test_values_that_are_not_finite(tmp_path):
    def diverging(config):
        yield 1.0
        yield float("nan") if config["lr"] < 1 else 2.0

    study, executor = made(tmp_path, diverging, ts.schedulers.Full(2), trials=20)
    assert drive(study, executor) == "done"
    kinds = {trial.kind for trial in study.trials}
    assert kinds == {"", "non-finite"}
    assert ts.replay(study) == []


def test_a_full_disk_ends_the_run_and_it_can_go_on(tmp_path):
    (tmp_path / "states").write_text("in the way")
    study, executor = made(tmp_path, code.generator, pbt(3))
    with pytest.raises(ExecutionError, match=r"cannot write checkpoints to .*states"):
        drive(study, executor)
    assert study.trials.failed == 0
    (tmp_path / "states").unlink()
    executor = Inline(as_task(code.generator), Options(("x",), str(tmp_path / "states")))
    assert drive(study, executor) == "done"
    assert {trial.kind for trial in study.trials if trial.kind} <= {"lost"}


def test_damaged_checkpoints_are_trained_again(tmp_path, caplog):
    store = tmp_path / "study.db"
    study, executor = made(tmp_path, code.slow, ts.schedulers.Full(30), store=store, trials=1, report_seconds=0)

    sent = []

    def interrupt(study):
        if study.trials[0].step >= 10 and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    assert drive(study, executor, progress=interrupt) == "interrupted"
    [trial] = study.trials
    assert trial.status == "waiting"
    step = trial.step
    assert 10 <= step < 30
    [file] = (tmp_path / "states" / "0").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    study, executor = made(tmp_path, code.generator, ts.schedulers.Full(30), store=store, trials=1)
    assert drive(study, executor) == "done"
    [trial] = study.trials
    assert trial.values("x")[0] == list(range(1, 31))
    assert trial.values("x")[1] == pytest.approx([trial.config["lr"] * step for step in range(1, 31)])
    assert "is damaged" in caplog.text
    assert [event.start for event in study.events() if type(event) is Told][-1] == 0  # told with the true start


def test_two_drivers_share_a_study(tmp_path):
    store = tmp_path / "study.db"
    studies = [made(tmp_path, code.slow, pbt(6, 4), store=store, report_seconds=0.05) for _ in range(2)]
    ends = []
    threads = [
        threading.Thread(
            target=lambda s=study, e=executor: ends.append(drive(s, e, checkpoints=Checkpoints(tmp_path / "states")))
        )
        for study, executor in studies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert ends == ["done", "done"]
    study = ts.Study.open(store)
    assert len({event.worker for event in study.events() if type(event) is Asked}) == 2
    assert ts.replay(study) == []
    assert not (tmp_path / "study.db.leases").exists()


def test_time_is_limited_and_the_study_goes_on_there(tmp_path):
    store = tmp_path / "study.db"
    study, executor = made(tmp_path, code.slow, ts.schedulers.Full(60), store=store, trials=1)
    assert drive(study, executor, seconds=0.3) == "seconds"
    step = study.trials[0].step
    assert 0 < step < 60
    study, executor = made(tmp_path, code.slow, ts.schedulers.Full(60), store=store, trials=1)
    assert drive(study, executor) == "done"
    asked = [event for event in study.events() if type(event) is Asked]
    assert [event.start for event in asked] == [0, step]


DRIVER = """
import os, signal, sys
sys.path.insert(0, {path!r})
import training_code as code
import tunesmith as ts
if __name__ == "__main__":
    seen = set()
    def progress(study):
        print(sum(trial.step for trial in study.trials), flush=True)
    workers = int(sys.argv[2])
    pbt = ts.schedulers.PBT(population=3, ready=40, steps=80)
    study = ts.tune(code.slow, {{"lr": ts.Float(0.5, 2)}}, maximise="x", scheduler=pbt,
                    store=sys.argv[1], workers=workers, progress=progress)
    print("end", len(study.trials.running), len(study.trials.waiting), flush=True)
"""


def script(tmp_path):
    path = tmp_path / "driver.py"
    path.write_text(DRIVER.format(path=str(Path(__file__).parent)))
    return path


def started(tmp_path, store, workers):
    """A driver in a process of its own that has trained a few steps."""
    process = subprocess.Popen(
        [sys.executable, str(script(tmp_path)), str(store), str(workers)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip
    while int(process.stdout.readline()) < 10:
        pass
    return process


def check_whole(store):
    study = ts.Study.open(store)
    assert ts.replay(study) == []
    check_lineage(study)
    assert not study.trials.running
    for trial in study.trials:
        assert trial.values("x")[0] == list(range(trial.start + 1, trial.step + 1))
    return study


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_cleanly_and_the_study_goes_on_exactly_there(workers, number, tmp_path):
    store = tmp_path / "study.db"
    with started(tmp_path, store, workers) as process:
        os.killpg(process.pid, number)  # as the terminal does
        out, err = process.communicate(timeout=3600)
    assert process.returncode == 0
    assert err == "stopping after the present step; once more ends at once\n"
    running, waiting = map(int, out.splitlines()[-1].split()[1:])
    assert running == 0
    assert waiting == workers
    study = ts.Study.open(store)
    steps = {trial.id: trial.step for trial in study.trials.waiting}
    result = subprocess.run(
        [sys.executable, str(script(tmp_path)), str(store), str(workers)],
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert result.stderr == ""
    study = check_whole(store)
    again = {event.trial: event.start for event in study.events() if type(event) is Asked and "retry" in event.tags}
    assert again == steps


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    path = tmp_path / "driver.py"
    path.write_text(
        textwrap.dedent("""
        import time
        import tunesmith as ts
        def train(config):
            print("training", flush=True)
            time.sleep(600)
        if __name__ == "__main__":
            ts.tune(train, {"a": ts.Float(0, 1)}, maximise="a", trials=1, store="study.db")
    """)
    )
    with subprocess.Popen(
        [sys.executable, str(path)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "once more ends at once" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=3600)
    assert process.returncode == -signal.SIGINT
    study = ts.Study.open(tmp_path / "study.db")
    assert [trial.status for trial in study.trials] == ["waiting"]
    assert not (tmp_path / "study.db.leases").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_driver_is_replaced_at_once(workers, tmp_path):
    store = tmp_path / "study.db"
    with started(tmp_path, store, workers) as process:
        process.kill()
        process.communicate()
    assert ts.Study.open(store).trials.running
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, str(script(tmp_path)), str(store), str(workers)],
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert time.monotonic() - began < 60  # not the seconds of a lease
    assert result.stderr == ""
    study = check_whole(store)
    assert "vanished" in "".join(event.error for event in study.events() if type(event) is Failed)


def test_jobs_that_somebody_else_asked_for_are_waited_for(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("tunesmith.execution.driver._PATIENT", 0.1)
    study, executor = made(tmp_path, code.value, ts.schedulers.Full(1), trials=2)
    job = study.ask()  # by hand, without a lease
    threading.Timer(1.0, study.tell, (job, {"x": 1.0})).start()
    assert drive(study, executor) == "done"
    assert len(study.trials) == 2
    assert caplog.text.count("waiting for jobs that others have asked for: trials 0") == 1


def test_an_error_of_the_driver_gives_its_jobs_up(tmp_path):
    def progress(study):
        raise RuntimeError("in the callback")

    study, executor = made(tmp_path, code.slow, pbt(50, 2), workers=2, report_seconds=0)
    with pytest.raises(RuntimeError, match="in the callback"):
        drive(study, executor, progress=progress)
    assert not study.trials.running


def test_it_is_quiet(tmp_path, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    study, executor = made(tmp_path, code.generator, pbt(5))
    drive(study, executor)
    assert capsys.readouterr() == ("", "")
    assert caplog.text == ""


def delete(store):
    for path in store.parent.glob(f"{store.name}*"):
        if path.is_file():
            path.unlink()


def replace(store):
    delete(store)
    ts.Study(SPACE, ts.Goal("other"), store=store).close()


def remove_write_ahead_log(store):
    store.with_name(f"{store.name}-wal").unlink()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("lose", [delete, replace, remove_write_ahead_log])
def test_a_store_that_is_lost_while_it_runs_ends_the_run_and_is_rescued(lose, workers, tmp_path):
    store = tmp_path / "study.db"
    study, executor = made(tmp_path, code.slow, ts.schedulers.Full(20), workers, store, trials=4, report_seconds=0)
    lost = []

    def progress(study):
        if len(study.trials) == 2 and not lost:
            lose(store)
            lost.append([len(trial.values("x")[0]) for trial in study.trials])

    with pytest.raises(
        StoreError, match=r"while the study was open; all that it had is in .*study\.rescued\.db"
    ) as error:
        drive(study, executor, checkpoints=Checkpoints(tmp_path / "states"), progress=progress)
    assert "\n" not in str(error.value)
    study.close()
    (tmp_path / "study.rescued.db").rename(tmp_path / "again.db")
    study, executor = made(tmp_path, code.generator, ts.schedulers.Full(20), store=tmp_path / "again.db", trials=4)
    assert all(len(trial.values("x")[0]) >= n for trial, n in zip(study.trials, lost[0], strict=False))
    assert drive(study, executor, checkpoints=Checkpoints(tmp_path / "states")) == "done"
    assert [trial.step for trial in study.trials] == [20] * 4
    assert ts.replay(study) == []


def test_a_store_that_is_lost_in_the_last_trial_is_no_success(tmp_path):
    """Also what the last job said is saved, though there was no file any more to write it to."""
    for lose in (delete, replace):
        folder = tmp_path / lose.__name__
        folder.mkdir()

        def train(config, store=folder / "study.db", lose=lose):
            lose(store)
            return config["lr"]

        study, executor = made(folder, train, ts.schedulers.Full(1), store=folder / "study.db", trials=1)
        with pytest.raises(StoreError, match="rescued"):
            drive(study, executor)
        with ts.Study.open(folder / "study.rescued.db") as rescued:
            assert [trial.last("x") for trial in rescued.trials] == [rescued.trials[0].config["lr"]]


def test_a_store_that_is_lost_after_the_last_event_is_no_success(tmp_path):
    study, executor = made(tmp_path, code.value, ts.schedulers.Full(1), store=tmp_path / "study.db", trials=1)

    def callback(study, trial):
        delete(tmp_path / "study.db")

    with pytest.raises(StoreError, match="deleted while the study was open"):
        drive(study, executor, callback=callback)


def test_an_error_of_a_store_that_is_there_stays_as_it_is(tmp_path, monkeypatch):
    study, executor = made(tmp_path, code.value, ts.schedulers.Full(1), store=tmp_path / "study.db", trials=1)

    def full(events, after=None):
        raise StoreError("the disk is full")

    monkeypatch.setattr(study.store, "append", full)
    with pytest.raises(StoreError, match=r"^the disk is full$"):
        drive(study, executor)
    assert not (tmp_path / "study.rescued.db").exists()
