"""Worker processes: isolated, replaced when they die, tied to their device."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest
import training_code as code
from jobs import checkpoint, job

import tunesmith as ts
from tunesmith.execution import ExecutionError, Inline, Options, Processes, as_task
from tunesmith.execution.devices import cores
from tunesmith.replay import replay


@pytest.fixture
def executor(tmp_path):
    made = []

    def make(train, required=("x",), report_seconds=0.25, **options):
        made.append(
            Processes(train, Options(required, str(tmp_path / "states"), report_seconds=report_seconds), **options)
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def collect(executor, count=1):
    """All reports until ``count`` jobs are done."""
    reports, until = [], time.monotonic() + 3600
    while sum(report.done for report in reports) < count:
        assert time.monotonic() < until
        reports += executor.wait(0.2)
    return reports


@pytest.mark.parametrize("form", code.RESUMABLE)
def test_every_form_in_a_worker(form, executor):
    made = executor(code.RESUMABLE[form])
    made.submit(job(0, 0, 2))
    *_, first = collect(made)
    made.submit(job(0, 2, 3))  # warm
    *_, second = collect(made)
    assert (first.metrics["x"], second.metrics["x"]) == ([1, 2], [3])
    made.submit(job(5, 2, 3, [checkpoint(0, first)], lr=0.5))
    *_, fork = collect(made)
    assert (fork.start, fork.metrics) == (2, {"x": [2.5], "lr": [0.5]})


def test_a_worker_that_has_the_trial_warm_is_preferred(executor):
    made = executor(code.where, ("pid",), workers=2)
    made.submit(job(0, 0, 1))
    made.submit(job(1, 0, 1))
    assert made.free == 0
    collect(made, 2)
    assert [sorted(worker.warm) for worker in made._workers] == [[0], [1]]
    for trial in (1, 0):
        made.submit(job(trial, 1, 2))
        assert made._workers[trial].job.trial == trial
        collect(made)


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("exit", "crashed", "ended under this job with exit status 3"),
        ("kill", "crashed", "with signal SIGKILL; the system may have run out of memory"),
        ("raise", "raised", "RuntimeError: something is wrong"),
        ("memory", "out-of-memory", "MemoryError: too much"),
        ("hang", "timeout", "a job took longer than time_limit=2 seconds"),
    ],
)
def test_one_job_ends_badly_and_the_others_go_on(how, kind, message, executor, tmp_path):
    made = executor(code.crash, workers=2, time_limit=2, report_seconds=0)
    config = {"flag": str(tmp_path / "flag"), "how": how}
    made.submit(job(0, 0, 4, **config))
    *_, first = collect(made)
    made.submit(job(0, 4, 8, **config))
    bad = [report for report in collect(made) if report.failure]
    assert [report.failure.kind for report in bad] == [kind]
    assert message in bad[0].failure.error
    made.submit(job(1, 0, 1, **config))
    made.submit(job(0, 4, 8, [checkpoint(0, first)], **config))  # it is asked again
    reports = collect(made, 2)
    assert not any(report.failure for report in reports)
    assert [x for report in reports for x in report.metrics.get("x", ())].count(8) == 1


def test_interrupted_workers_save(executor):
    made = executor(code.slow, workers=2)
    jobs = [job(trial, 0, 10**6) for trial in range(2)]
    for one in jobs:
        made.submit(one)
    while not made.wait(1):
        pass
    made.interrupt()
    ends = {report.ask: report for report in collect(made, 2) if report.done}
    for one in jobs:
        end = ends[one.ask]
        assert end.failure.kind == "lost"
        assert end.saved.step == end.start + len(end.metrics["x"])


def test_devices_and_threads(executor, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr("tunesmith.execution.devices.count_gpus", lambda: 7)
    made = executor(code.where, ("lr",), devices=[0, "cpu:3", (1, 0.5), "cuda:1:0.5"])
    assert (made.slots, made.free) == (4, 4)
    for trial in range(4):
        made.submit(job(trial, 0, 1))
    seen = sorted(
        (m["cuda_visible_devices"][0], m["omp_num_threads"][0], m["tunesmith_worker"][0])
        for m in (r.metrics for r in collect(made, 4))
    )
    share = max(1, cores() // 4)
    assert seen == [(-1, 3, 1), (4, share, 1), (6, share, 1), (6, share, 1)]


def test_a_device_that_is_not_there_is_an_error_at_the_start(executor, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("tunesmith.execution.devices.count_gpus", lambda: 1)
    with pytest.raises(ValueError, match="device 'cuda:1' is not there"):
        executor(code.where, ("lr",), devices=["cuda:0", "cuda:1"])


def test_a_worker_refuses_to_train_elsewhere(executor, monkeypatch):
    """Where the driver can't know what is there, and there is nothing."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-no-such-card")
    monkeypatch.setattr("tunesmith.execution.devices.count_gpus", lambda: None)
    made = executor(code.where, ("lr",), devices="cuda:0:0.5")
    made.submit(job(0, 0, 1))
    message = "device 'cuda:0:0.5' is not there: no GPU works with CUDA_VISIBLE_DEVICES=GPU-no-such-card"
    with pytest.raises(ExecutionError, match=message):
        collect(made)


def test_without_devices_the_environment_stays(executor, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = executor(code.where, ("lr",), workers=1)
    made.submit(job(0, 0, 1))
    metrics = collect(made)[-1].metrics
    assert (metrics["cuda_visible_devices"], metrics["omp_num_threads"]) == ([-1], [5])


def test_functions_that_cannot_be_imported_go_with_cloudpickle(executor):
    offset = 10
    made = executor(lambda config: config["lr"] + offset)
    made.submit(job(0, 0, 1))
    assert collect(made)[-1].metrics["x"] == [11]


def test_what_cannot_be_sent_says_so(executor, monkeypatch):
    lock = threading.Lock()
    with pytest.raises(ExecutionError, match=r"can't be sent to worker processes .*keep open files"):
        executor(lambda config: lock.locked())
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(ExecutionError, match=r"can't be sent to worker processes .* at the top level of a file"):
        executor(lambda config: 1.0)
    with pytest.raises(TypeError, match="is no training code"):
        executor(5)


def test_nothing_is_left_behind(executor):
    before = set(psutil.Process().children(recursive=True))
    made = executor(code.slow, workers=2)
    made.submit(job(0, 0, 10**6))
    made.wait(3600)
    workers = set(psutil.Process().children(recursive=True)) - before
    assert len(workers) == 2
    made.close()
    assert not [process for process in workers if process.is_running()]


def script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path)]


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)


def test_a_function_of_the_script_itself(tmp_path):
    command = script(
        tmp_path,
        """
        import time
        import tunesmith as ts
        print("imported as", __name__)
        def train(config):
            time.sleep(0.3)  # so that one worker does not do it all before the other has started
            return config["a"]
        if __name__ == "__main__":
            study = ts.tune(train, {"a": ts.Float(0, 1)}, maximise="a", trials=4, workers=2)
            print(len(study.trials), study.best.status)
        """,
    )
    result = run(command)
    assert result.returncode == 0, result.stderr
    assert (
        sorted(result.stdout.split("\n"))
        == ["", "4 complete", "imported as __main__"] + ["imported as __mp_main__"] * 2
    )
    assert result.stderr == ""


def test_a_script_without_the_guard_is_told_so(tmp_path):
    command = script(
        tmp_path,
        """
        import tunesmith as ts
        def train(config):
            return config["a"]
        ts.tune(train, {"a": ts.Float(0, 1)}, maximise="a", trials=4, workers=2)
        """,
    )
    result = run(command)
    assert result.returncode == 1
    assert result.stderr.count("Traceback") == 1
    assert 'put that under `if __name__ == "__main__":`' in result.stderr.splitlines()[-1]


def test_a_script_that_fails_on_import_in_the_worker(tmp_path):
    command = script(
        tmp_path,
        """
        import tunesmith as ts
        def train(config):
            return config["a"]
        if __name__ == "__mp_main__":
            raise RuntimeError("no worker, please")
        if __name__ == "__main__":
            ts.tune(train, {"a": ts.Float(0, 1)}, maximise="a", trials=4, workers=2)
        """,
    )
    result = run(command)
    assert result.returncode == 1
    assert "a worker process could not start" in result.stderr
    assert "RuntimeError: no worker, please" in result.stderr


def test_a_worker_that_is_killed_while_it_starts_is_replaced(executor):
    made = executor(code.value)
    made._workers[0].process.kill()
    made.submit(job(0, 0, 1))
    assert collect(made)[-1].metrics["x"] == [1]


def test_workers_that_never_start_end_the_run(tmp_path):
    command = script(
        tmp_path,
        """
        import os
        import tunesmith as ts
        def train(config):
            return config["a"]
        if __name__ == "__mp_main__":
            os._exit(7)
        if __name__ == "__main__":
            ts.tune(train, {"a": ts.Float(0, 1)}, maximise="a", trials=4, workers=2)
        """,
    )
    result = run(command)
    assert result.returncode == 1
    assert "3 worker processes in a row have ended while they were starting, with exit status 7" in result.stderr


def test_code_from_standard_input(tmp_path):
    text = """if True:
        import tunesmith as ts
        def train(config):
            return config["a"]
        print(len(ts.tune(train, {"a": ts.Float(0, 1)}, maximise="a", trials=3, workers=2).trials))
    """
    for command in ([sys.executable, "-c", text], [sys.executable, "-"]):
        result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=3600, check=False)
        assert (result.returncode, result.stdout) == (0, "3\n"), result.stderr


def test_lines_of_several_workers_stay_whole(tmp_path):
    """Also where Python is told not to buffer, and a print is several writes."""
    command = script(
        tmp_path,
        """
        import tunesmith as ts
        def train(config):
            for i in range(2000):
                print("one", "two", "three", "four")
            return config["a"]
        if __name__ == "__main__":
            ts.tune(train, {"a": ts.Float(0, 1)}, maximise="a", trials=4, workers=2, progress=False)
        """,
    )
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600, check=True)
    assert result.stdout.splitlines() == ["one two three four"] * 8000


def test_workers_die_with_their_driver(tmp_path):
    command = script(
        tmp_path,
        """
        import os, subprocess, sys, time
        import tunesmith as ts
        def train(config):
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            print(os.getpid(), child.pid, flush=True)
            while True:
                pass
        if __name__ == "__main__":
            ts.tune(train, {"a": ts.Float(0, 1)}, maximise="a", trials=4, workers=2)
        """,
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            pids = [int(pid) for _ in range(2) for pid in process.stdout.readline().split()]
            assert len(pids) == 4 and all(map(psutil.pid_exists, pids)), pids
        finally:
            process.kill()
        until = time.monotonic() + 3600
        while any(map(running, pids)):
            assert time.monotonic() < until
            time.sleep(0.02)


def running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_inline_is_the_same_contract(tmp_path):
    made = Inline(as_task(code.generator), Options(("x",), str(tmp_path)))
    assert (made.slots, made.free, made.wait(1)) == (1, 1, [])
    made.submit(job(0, 0, 2))
    assert made.free == 0
    [report] = made.wait(0)
    assert (report.done, report.metrics["x"], made.free) == (True, [1, 2], 1)
    made.submit(job(0, 2, 4))
    made.close()
    assert made.free == 1


@pytest.mark.parametrize("how", ["exit", "raise", "hang"])
def test_what_a_job_has_cost_that_ends_badly_is_told(how, executor):
    """All of it, whether it was told step by step or not: budgets count it."""
    made = executor(code.ends_badly_after_a_while, workers=1, time_limit=1.5, report_seconds=0)
    made.submit(job(0, 0, 9, how=how))
    *earlier, last = collect(made)
    assert last.failure is not None
    assert sum(report.seconds for report in earlier) >= 0.2
    least = 1.5 if how == "hang" else 0.7
    assert sum(report.seconds for report in [*earlier, last]) >= least
    assert last.seconds >= least - 0.7


def test_jobs_that_end_badly_use_up_a_budget(tmp_path):
    with pytest.raises(ExecutionError, match="trials of the study have failed") as error:
        ts.tune(
            code.ends_badly_after_a_while, {"how": "hang", "a": ts.Float(0, 1)}, minimise="x", workers=2, time_limit=1,
            budget=ts.Budget(seconds=3), checkpoints=tmp_path,
        )  # fmt: skip
    study = error.value.study
    assert 3 <= study.trials.seconds < 30
    assert len(study.trials) <= 4
    assert all(trial.seconds >= 1 for trial in study.trials)


@pytest.mark.parametrize("how", ["exit", "hang"])
@pytest.mark.parametrize("steps", [3, 4])
def test_what_was_reported_before_a_bad_end_counts(steps, how, executor):
    """Of four steps: three, and then none for long; or all, and the code goes on after them."""
    made = executor(code.reports_and_then_ends_badly, workers=1, time_limit=3)
    made.submit(job(0, 0, 4, steps=steps, how=how)._replace(final=True))
    reports = collect(made)
    assert [x for report in reports for x in report.metrics.get("x", ())] == [1, 2, 3, 4][:steps]
    assert (reports[-1].failure is None) == (steps == 4)
    assert ("trial 0 is complete, but after its last step" in reports[-1].warning) == (steps == 4)
    assert sum(report.seconds for report in reports) >= (3 if how == "hang" else 1)


def test_a_study_of_trainings_that_end_badly_after_their_last_step(tmp_path):
    study = ts.tune(
        code.reports_and_then_ends_badly, {"how": "exit", "steps": 4, "a": ts.Float(0, 1)}, minimise="x", workers=2,
        steps=4, trials=3, store=tmp_path / "s.db",
    )  # fmt: skip
    assert [(trial.status, trial.step) for trial in study.trials] == [("complete", 4)] * 3
    assert replay(study) == []


@pytest.mark.parametrize("form", [code.leaves_a_thread_in_torch, code.forgetful_function])
def test_a_worker_ends_quietly_under_a_thread_that_trains(form, executor, capfd):
    made = executor(form)
    made.submit(job(0, 0, 1))
    assert collect(made)[-1].failure is None
    made.close()
    assert capfd.readouterr().err == ""


def test_a_worker_does_at_its_end_what_processes_do(executor, tmp_path, capfd):
    made = executor(code.says_goodbye)
    made.submit(job(0, 0, 1, folder=str(tmp_path)))
    assert collect(made)[-1].failure is None
    made.close()
    assert {"begun", "goodbye", "late"} <= {path.name for path in tmp_path.iterdir()}
    assert capfd.readouterr() == ("no end of a line", "nor here")


def test_a_worker_with_an_idle_pool_of_threads_ends_by_itself(executor):
    made = executor(code.with_a_pool, workers=1)
    made.submit(job(0, 0, 1))
    collect(made)
    process = made._workers[0].process
    made.close()
    assert process.returncode == 0  # it was not killed
