"""What is shown of a study while it runs."""

from __future__ import annotations

import io

import pytest

import tunesmith as ts
from tunesmith import progress
from tunesmith.progress import Progress, duration, snapshot

SPACE = ts.Space({"lr": ts.Float(1e-3, 1.0, log=True), "fixed": 7})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def population(name: str = "study") -> ts.Study:
    pbt = ts.schedulers.PBT(population=4, ready=2, steps=8)
    return ts.Study(SPACE, [ts.Goal("loss")], sampler=ts.samplers.Uniform(), scheduler=pbt, name=name)


def work(study: ts.Study, jobs: int) -> None:
    for _ in range(jobs):
        job = study.ask()
        if job is not None:
            study.tell(job, {"loss": [job.config["lr"] / step for step in range(job.start + 1, job.until + 1)]})


def test_snapshot_of_a_population() -> None:
    study = population()
    assert snapshot(study).part == 0.0 and snapshot(study).best is None
    work(study, 4)
    half = snapshot(study)
    assert (half.trials, half.steps, half.part, len(half.members)) == (4, 8, 0.25, 4)
    assert half.best is study.best
    work(study, 100)
    done = snapshot(study)
    assert done.part == 1.0 and len(done.members) == 4 and done.trials == len(study.trials)


def test_the_part_of_a_search_with_a_number_of_trials_counts_failures_as_done() -> None:
    study = ts.Study(SPACE, [ts.Goal("loss")], sampler=ts.samplers.Uniform(), scheduler=ts.schedulers.Full(5), trials=4)
    work(study, 1)
    job = study.ask()
    assert job is not None
    study.fail(job, "out of luck")
    assert snapshot(study).part == 0.5


def test_without_an_end_no_part_is_known() -> None:
    assert snapshot(ts.Study(SPACE, [ts.Goal("loss")])).part is None


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    study, stream = population(), io.StringIO()
    with Progress(stream=stream) as show:
        for _ in range(60):
            show(study)
            work(study, 1)
            now += 1.0
    lines = stream.getvalue().splitlines()
    assert len(lines) == 13 and "\x1b" not in stream.getvalue()
    assert all(line.startswith("study  0:") for line in lines[:3])
    assert "left" in lines[1] and "best loss" in lines[-1] and lines[-1].endswith("left 0:00")


def test_the_time_limit_bounds_the_time_left() -> None:
    study, stream = ts.Study(SPACE, [ts.Goal("loss")]), io.StringIO()
    with Progress(seconds=3600, stream=stream) as show:
        show(study)
    assert stream.getvalue().rstrip().endswith(("left 59:59", "left 1:00:00"))


def test_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    study, stream = population(), Terminal()
    work(study, 6)
    with Progress(stream=stream) as show:
        show(study)
    shown = stream.getvalue()
    assert "trial" in shown and "from" in shown and "loss" in shown and "lr" in shown
    assert "fixed" not in shown  # it does not vary
    assert "best loss" in shown


def test_without_rich_a_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rich.console", None)
    stream = Terminal()
    with Progress(stream=stream) as show:
        show(population())
    assert stream.getvalue().startswith("study  0:00  trials 0  ")


def test_one_study_after_the_other() -> None:
    stream = io.StringIO()
    with Progress(stream=stream) as show:
        for name in ("first", "second"):
            study = population(name)
            show(study)
            work(study, 3)
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["first", "second"]
    assert "trials 3 (3 paused)  steps" in stream.getvalue()


def test_nothing_is_shown_of_a_run_that_never_began() -> None:
    stream = io.StringIO()
    with Progress(stream=stream):
        pass
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3600, "1:00:00"), (7325, "2:02:05")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
