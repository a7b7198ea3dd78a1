"""Every form of training code starts, goes on warm, resumes from disk, forks with new values, and is given up."""

from __future__ import annotations

import functools
import math
import re
import threading
import time
from contextlib import suppress
from dataclasses import astuple

import numpy as np
import pytest
import torch
import training_code as code
from jobs import checkpoint, job

from tunesmith import Checkpoint
from tunesmith.checkpoints import Checkpoints
from tunesmith.execution import Session, Stopped, as_task, current_job


def last(reports):
    """The last report, of a job that went well."""
    *_, report = reports
    assert report.done
    assert report.failure is None, report.failure
    return report


def failure(reports):
    *_, report = reports
    assert report.done
    return report.failure


@pytest.mark.parametrize("form", code.RESUMABLE)
def test_start_go_on_resume_and_fork(form, session):
    first = session(code.RESUMABLE[form])
    report = last(first.run(job(0, 0, 3)))
    assert (report.start, report.metrics["x"], report.saved.step) == (0, [1, 2, 3], 3)

    warm = last(first.run(job(0, 3, 5)))  # no source: only the warm state can know
    assert (warm.start, warm.metrics["x"]) == (3, [4, 5])

    other = session(code.RESUMABLE[form])
    resumed = last(other.run(job(0, 5, 6, [checkpoint(0, warm), checkpoint(0, report)])))
    assert (resumed.start, resumed.metrics["x"], resumed.metrics["lr"]) == (5, [6], [1])

    fork = last(other.run(job(7, 5, 8, [checkpoint(0, warm)], lr=0.5)))
    assert (fork.start, fork.metrics["x"], fork.metrics["lr"]) == (5, [5.5, 6, 6.5], [0.5] * 3)

    again = session(code.RESUMABLE[form])
    onward = last(again.run(job(7, 8, 9, [checkpoint(7, fork)], lr=0.5)))
    assert (onward.start, onward.metrics["x"]) == (8, [7])


@pytest.mark.parametrize("form", code.RESUMABLE)
def test_damaged_and_missing_checkpoints_fall_back(form, session, tmp_path):
    first = session(code.RESUMABLE[form])
    made = [checkpoint(0, last(first.run(job(0, start, start + 2)))) for start in (0, 2, 4)]
    newest = tmp_path / "states" / made[2].where
    for path in [newest] if newest.is_file() else [path for path in newest.rglob("*") if path.is_file()]:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    report = last(session(code.RESUMABLE[form]).run(job(0, 6, 7, made[::-1])))
    assert (report.start, report.metrics["x"]) == (4, [5, 6, 7])
    assert "damaged" in report.warning

    for one in made:
        path = tmp_path / "states" / one.where
        path.rename(path.with_suffix(".gone"))
    report = last(session(code.RESUMABLE[form]).run(job(0, 6, 7, made[::-1])))
    assert (report.start, report.metrics["x"]) == (0, [1, 2, 3, 4, 5, 6, 7])
    assert report.warning.count("is missing") == 3


@pytest.mark.parametrize("train", [*code.FORGETFUL.values(), code.value, lambda config: 1.0])
def test_code_that_saves_nothing_begins_again(train, session):
    """At step 0, wherever its trial stood; a copy of another trial can't, and says what the code must do."""
    first = session(train)
    assert last(first.run(job(0, 0, 1))).saved is None
    report = last(session(train).run(job(0, 1, 2)))
    assert (report.start, len(next(iter(report.metrics.values())))) == (0, 1 if report.ended else 2)
    report = last(session(train).run(job(7, 4, 5)._replace(parent=0, forked=0)))
    assert report.start == 0

    error = failure(session(train).run(job(7, 1, 2)._replace(parent=0, forked=1)))
    assert (error.kind, error.fatal) == ("raised", True)
    assert error.error.startswith("trial 7 is a copy of trial 0 and should go on from its state at step 1, but")
    assert "saves no state: let a generator yield (metrics, state)" in error.error


def test_states_that_the_code_can_not_take_back(session):
    """A trial of its own begins again; a copy can't."""

    def train(config):  # without state=None
        while True:
            yield {"x": 1.0}, {"x": 1.0}

    saved = checkpoint(0, last(session(train).run(job(0, 0, 3))))
    report = last(session(train).run(job(0, 3, 5, [saved])))
    assert (report.start, report.metrics["x"]) == (0, [1.0] * 5)
    assert report.warning.startswith("trial 0 begins again at step 0: ")
    assert "give it a parameter `state=None`" in report.warning
    error = failure(session(train).run(job(7, 3, 5, [saved])._replace(parent=0, forked=3)))
    assert error.fatal and "give it a parameter `state=None`" in error.error


def test_training_code_is_told_where_it_really_begins(session, tmp_path):
    def train(config, state=None):
        while True:
            yield {"x": current_job().start}, {"x": 1.0}

    saved = checkpoint(0, last(session(train).run(job(0, 0, 3))))
    report = last(session(train).run(job(0, 5, 6, [saved])))
    assert (report.start, report.metrics["x"]) == (3, [3.0, 3.0, 3.0])
    (tmp_path / "states" / saved.where).unlink()
    assert last(session(train).run(job(0, 5, 6, [saved]))).metrics["x"] == [0.0] * 6


def test_states_that_earlier_versions_have_saved_of_functions(session, tmp_path):
    old = Checkpoints(tmp_path / "states").save(0, 3, {"step": 3, "state": {"x": 3}})
    report = last(session(code.RESUMABLE["reporting function"]).run(job(0, 3, 5, [Checkpoint(0, *astuple(old)[:3])])))
    assert (report.start, report.metrics["x"]) == (3, [4, 5])


def test_a_value_is_one_step(session):
    made = session(code.value)
    assert last(made.run(job(0, 0, 1, lr=0.25))).metrics == {"x": [0.25]}
    report = last(made.run(job(1, 0, 2)))
    assert report.metrics == {"x": [1.0]} and report.ended


def test_random_numbers_belong_to_the_trial(session):
    def generator(config, seed, rng):
        while True:
            yield {"x": seed, "r": rng.random(), "trial": current_job().trial}

    def value(config, rng):
        return rng.random()

    class Thing:
        def setup(self, config, seed):
            self.seed = seed

        def step(self):
            return self.seed

    one, two, other = (last(session(generator).run(job(3, 0, 2, seed=seed))).metrics for seed in (5, 5, 6))
    assert one == two != other
    assert (one["x"], one["trial"]) == ([5, 5], [3, 3])
    assert one["r"][0] == last(session(value).run(job(0, 0, 1, seed=5))).metrics["x"][0]
    assert last(session(Thing).run(job(0, 0, 1, seed=9))).metrics["x"] == [9]


def test_a_class_is_closed_and_its_state_is_its_own(session):
    closed = []

    class Thing(code.Counter):
        def close(self):
            closed.append(self.x)

    made = session(Thing, warm=1)
    last(made.run(job(0, 0, 2)))
    last(made.run(job(1, 0, 3)))
    assert closed == [2]
    made.close()
    assert closed == [2, 3]


def test_given_up_generators_and_functions_clean_up(session):
    ended = []

    def generator(config):
        try:
            yield 1.0
        finally:
            ended.append("generator")

    def function(trial):
        try:
            trial.report(1.0)
        except Exception:
            ended.append("never")
        finally:
            ended.append("function")

    for train in (generator, function):
        made = session(train)
        last(made.run(job(0, 0, 1)))
        made.close()
    assert ended == ["generator", "function"]
    assert issubclass(Stopped, BaseException)
    assert not issubclass(Stopped, Exception)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("trial-")]


def test_a_reporting_function_knows_its_trial(session):
    seen = []

    def function(trial):
        seen.append((trial.config, trial.step, trial.number, trial.seed, trial.state, current_job().trial))
        trial.report({"x": 1.0}, extra=2.0, state=lambda: "saved")
        trial.report(3.0)
        raise RuntimeError("after two")

    made = session(function)
    report = last(made.run(job(4, 0, 1, seed=8)))
    assert report.metrics == {"x": [1], "extra": [2]}
    error = failure(made.run(job(4, 1, 3)))
    assert "RuntimeError: after two" in error.error
    assert "_advance" not in error.error
    last(made.run(job(5, 1, 2, [checkpoint(4, report)])))
    assert seen == [({"lr": 1.0}, 0, 4, 8, None, 4), ({"lr": 1.0}, 1, 5, 0, "saved", 5)]


def test_the_training_decides_when_it_is_over(session):
    def generator(config):
        yield 1.0
        yield 2.0

    def function(trial):
        trial.report(1.0)

    class Class:
        steps = 0

        def setup(self, config):
            pass

        def step(self):
            self.steps += 1
            if self.steps > 3:
                raise StopIteration
            return float(self.steps)

    for train, steps in ((generator, 2), (function, 1), (Class, 3)):
        *_, report = session(train).run(job(0, 0, 5))
        assert len(report.metrics["x"]) == steps
        assert report.done and report.ended and report.failure is None


def test_a_training_without_a_report_has_failed(session):
    def generator(config):
        yield from ()

    def function(trial):
        pass

    for train, hint in ((generator, "must yield its metrics once a step"), (function, "call trial.report once a step")):
        error = failure(session(train).run(job(0, 0, 5)))
        assert hint in error.error


def test_code_after_the_last_report_runs(session):
    done = []

    def function(trial):
        for step in range(3):
            trial.report(float(step))
        trial.note(model="model.pt")
        done.append(trial.number)

    final = job(0, 0, 3)._replace(final=True)
    report = last(session(function).run(final))
    assert done == [0] and report.notes == {"model": "model.pt"} and report.metrics["x"] == [0.0, 1.0, 2.0]
    assert last(session(function).run(job(1, 0, 3)._replace(until=7))).ended and done == [0, 1]


def test_a_report_beyond_the_last_one_ends_the_function(session):
    done = []

    def function(trial):
        try:
            while True:
                trial.report(1.0)
        finally:
            done.append(trial.step)

    report = last(session(function).run(job(0, 0, 3)._replace(final=True)))
    assert report.metrics["x"] == [1.0, 1.0, 1.0] and not report.ended and done == [4]


def test_code_that_fails_after_the_last_report_is_complete_with_a_warning(session):
    def function(trial):
        trial.report(1.0)
        raise OSError("disk full")

    report = last(session(function).run(job(0, 0, 1)._replace(final=True)))
    assert report.done and report.failure is None and "disk full" in report.warning


def test_a_function_that_catches_everything_is_given_up_at_once(session):
    def function(trial):
        while True:
            with suppress(BaseException):
                trial.report(1.0)

    made = session(function)
    assert last(made.run(job(0, 0, 2)._replace(final=True))).metrics["x"] == [1.0, 1.0]


def test_report_counts_the_steps(session):
    def function(trial):
        trial.report(1.0, step=3)

    assert "leave step= out" in failure(session(function).run(job(0, 0, 1))).error


def test_texts_among_the_metrics_are_notes(session):
    def generator(config):
        yield {"x": 1.0, "file": "a.pt"}
        yield {"x": 2.0, "file": "b.pt"}

    report = last(session(generator).run(job(0, 0, 2)))
    assert report.metrics == {"x": [1.0, 2.0]} and report.notes == {"file": "b.pt"}


class Plain:
    def __str__(self):
        return "an object"


@pytest.mark.parametrize(
    ("value", "number", "note"),
    [
        ([1, 2], None, "[1, 2]"),
        ({"a": 1}, None, "{'a': 1}"),
        (np.eye(2), None, "[[1. 0.]\n [0. 1.]]"),
        (torch.ones(2), None, "tensor([1., 1.])"),
        (b"raw", None, "b'raw'"),
        (Plain(), None, "an object"),
        ("x" * 2000, None, "x" * 2000),
        (["x" * 2000], None, "['" + "x" * 998 + "..."),
        (torch.tensor(2), 2.0, None),
        (np.array(2), 2.0, None),
        (10**400, math.inf, None),
    ],
)
def test_what_is_no_number_among_the_metrics_fails_no_trial(value, number, note, session):
    report = last(session(lambda config: {"x": 1.0, "beside": value}).run(job(0, 0, 1)))
    assert report.metrics == {"x": [1.0]} | ({} if number is None else {"beside": [number]})
    assert report.notes == ({} if note is None else {"beside": note})


def test_a_goal_beyond_all_floats_is_not_finite(session):
    assert last(session(lambda config: {"x": 10**400}).run(job(0, 0, 1))).metrics == {"x": [math.inf]}


def test_partials_and_callable_objects(session):
    class Callable:
        def __call__(self, config):
            yield config["lr"]

    def two(offset, config):
        yield offset + config["lr"]

    for train, x in ((Callable(), 1), (functools.partial(two, 5), 6), (lambda trial: trial.report(3.0), 3)):
        assert last(session(train).run(job(0, 0, 1))).metrics["x"] == [x]


async def coroutine(config):
    return 1.0


class NoStep:
    def setup(self, config): ...


class OnlySave(code.Counter):
    load = None


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (5, "5 is no training code: .* lacks init, step, save, load"),
        (NoStep, "NoStep lacks step"),
        (OnlySave, "only one of save and load"),
        (coroutine, "asynchronous"),
        (lambda: 1.0, "takes no argument"),
        (NoStep(), "is no training code"),
    ],
)
def test_what_is_no_training_code(train, message):
    with pytest.raises(TypeError, match=message):
        as_task(train)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"y": 1.0}, r"the metric 'x', a goal or constraint of the study, is missing; got \['y'\]"),
        ({"x": "high"}, "the metric 'x' is 'high', a str, but must be a number"),
        ({"x": [1]}, r"the metric 'x' is \[1\], a list"),
        ({"x": None}, None),
        (None, "the training gave None: it must give a number, or a dict with 'x'"),
    ],
)
def test_metrics_are_checked(metrics, message, session):
    made = session(lambda config: metrics)
    *_, report = made.run(job(0, 0, 1))
    if message is None:
        assert math.isnan(*report.metrics["x"])  # a missing value is not finite
        return
    assert report.failure.kind == "raised"
    assert re.search(message, report.failure.error)
    assert "Traceback" not in report.failure.error


def test_a_number_is_enough_only_where_there_is_one_goal(session):
    for number in (1, 1.0, np.float32(1), torch.tensor(1.0), np.array(1), True):
        assert last(session(lambda config, n=number: n).run(job(0, 0, 1))).metrics == {"x": [1.0]}
    assert "must be a dict with 'x', 'y'" in failure(session(lambda config: 1.0, ("x", "y")).run(job(0, 0, 1))).error


def test_progress_comes_in_batches_and_long_jobs_save(session):
    def slow(config, state=None):
        for x in range(100):
            time.sleep(0.01)
            yield x, x

    *progress, end = session(slow, report_seconds=0.05, checkpoint_seconds=0.1).run(job(0, 0, 30))
    assert len(progress) >= 3
    assert any(report.saved for report in progress)
    assert [x for report in (*progress, end) for x in report.metrics["x"]] == list(range(30))
    assert [report.start for report in progress[1:]] == [r.start + len(r.metrics["x"]) for r in progress[:-1]]
    assert all(report.seconds > 0.04 for report in progress)


def test_an_interrupted_job_saves_and_goes_on_exactly_there(session):
    made = session(code.generator)
    running = made.run(job(0, 0, 10**9))
    next(running)
    made.stopping.set()
    *_, end = running
    assert (end.done, end.failure.kind) == (True, "lost")
    step = end.start + len(end.metrics["x"])
    assert end.saved.step == step
    onward = last(session(code.generator).run(job(0, step, step + 1, [checkpoint(0, end)])))
    assert onward.metrics["x"] == [step + 1]


def test_a_value_that_is_not_finite_ends_the_job(session):
    steps = []

    def diverging(config):
        for x in (1.0, float("nan"), 2.0):
            steps.append(x)
            yield {"x": x, "y": float("inf")}

    *_, report = session(diverging).run(job(0, 0, 3))
    assert report.done
    assert len(steps) == len(report.metrics["x"]) == 2


def test_failures_say_where_and_free_the_warm_state(session):
    def broken(config):
        yield 1.0
        helper()

    def helper():
        raise ValueError("the user's mistake")

    made = session(broken)
    *_, report = made.run(job(0, 0, 3))
    assert report.metrics == {"x": [1]}
    assert report.failure.error.count("Traceback") == 1
    assert "in helper" in report.failure.error
    assert "session.py" not in report.failure.error
    *_, report = made.run(job(0, 1, 2))
    assert (report.start, report.metrics) == (0, {"x": [1]})  # anew

    class OutOfMemoryError(RuntimeError):
        pass

    for error in (MemoryError("m"), OutOfMemoryError("CUDA out of memory"), RuntimeError("RESOURCE_EXHAUSTED: ...")):

        def train(config, error=error):
            raise error

        assert failure(session(train).run(job(0, 0, 1))).kind == "out-of-memory"

    def leaving(config):
        raise SystemExit(3)

    assert "SystemExit: 3" in failure(session(leaving).run(job(0, 0, 1))).error


def test_a_full_disk_ends_the_run_and_nothing_is_lost(session, tmp_path):
    (tmp_path / "file").write_text("")
    error = failure(session(code.generator, root=tmp_path / "file").run(job(0, 0, 1)))
    assert (error.kind, error.fatal) == ("lost", True)
    assert "cannot write checkpoints" in error.error


def test_without_a_directory_nothing_is_saved(session):
    made = session(code.generator, root=None)
    assert last(made.run(job(0, 0, 2))).saved is None
    assert last(made.run(job(0, 2, 3))).metrics["x"] == [3]
    assert isinstance(made, Session)


def test_a_last_state_that_cannot_be_saved_fails_the_job(session):
    def generator(config):
        while True:
            yield 1.0, {"thread": threading.current_thread()}

    *_, report = session(generator).run(job(0, 0, 3))
    assert "TypeError: state['thread'] is a threading._MainThread, which no checkpoint can hold" in report.failure.error
    assert len(report.metrics["x"]) == 2  # or the job would count as done
