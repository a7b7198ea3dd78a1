"""What is shown of a study while it runs."""

from __future__ import annotations

import io
import sys
from types import ModuleType

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


# -- whose texts these are ---------------------------------------------------------------------------------------------

EVIL = "a\x1b]0;title\x07[red]b[/red]\u202e"


def strange() -> ts.Study:
    space = ts.Space({EVIL: ts.Categorical([EVIL, "x[bold]", "y\nz"]), "step": ts.Float(0.0, 1.0)})
    goals = [ts.Goal(f"loss {EVIL}"), ts.Goal("status")]
    study = ts.Study(space, goals, sampler=ts.samplers.QMC())
    study.name = EVIL
    for _ in range(6):
        job = study.ask()
        assert job is not None
        study.tell(job, {f"loss {EVIL}": job.config["step"], "status": 1.0})
    return study


def harmless(text: str) -> bool:
    return all(character.isprintable() or character in "\n\t" for character in text)


def test_texts_of_a_study_do_nothing_in_a_line() -> None:
    stream = io.StringIO()
    with Progress(stream=stream) as show:
        show(strange())
    assert harmless(stream.getvalue()) and "[red]b[/red]" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 1


def test_texts_of_a_study_do_nothing_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither escape sequences nor the markup of rich."""
    console = pytest.importorskip("rich.console")
    study = strange()
    shown = Progress(stream=io.StringIO())
    shown._begin(study)
    picture = shown._picture(study, snapshot(study), 20)
    stream = io.StringIO()
    console.Console(file=stream, width=400, no_color=True).print(picture)
    text = stream.getvalue()
    assert harmless(text) and "[red]b[/red]" in text and "x[bold]" in text and "params.step" in text


# -- what is said -----------------------------------------------------------------------------------------------------


def test_all_goals_are_shown() -> None:
    goals = [ts.Goal("loss"), ts.Goal("accuracy", maximise=True)]
    study, stream = ts.Study(SPACE, goals, sampler=ts.samplers.QMC()), io.StringIO()
    for loss, accuracy in ((0.1, 0.5), (0.2, 0.9), (0.3, 0.1)):
        study.tell(study.ask(), {"loss": loss, "accuracy": accuracy})
    with Progress(stream=stream) as show:
        show(study)
    assert "best loss 0.1 (trial 0)  best accuracy 0.9 (trial 1)" in stream.getvalue()
    assert "best loss=0.1 (trial 0), best accuracy=0.9 (trial 1)" in repr(study)


def test_values_are_those_of_the_scope() -> None:
    study, stream = ts.Study(SPACE, ts.Goal("loss", scope="best"), scheduler=ts.schedulers.Full(3)), io.StringIO()
    study.tell(study.ask(), {"loss": [0.3, 0.1, 0.2]})
    with Progress(stream=stream) as show:
        show(study)
    assert "best loss 0.1 (trial 0)" in stream.getvalue()


def test_how_long_it_takes_yet_is_not_said_after_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the start, which took a minute here, does not count."""
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    study = ts.Study(SPACE, ts.Goal("loss"), ts.samplers.Uniform(), ts.schedulers.Full(10), trials=10)
    stream = io.StringIO()
    show = Progress(stream=stream)
    show(study)
    now, job = 60.0, study.ask()
    for step in range(1, 11):
        study.tell(job, {"loss": 1.0}, step=step)
        now += 10.0
        show(study)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert [("left" in line) for line in lines] == [False] * 5 + [True] * 5
    assert lines[-1].endswith(("left 14:59", "left 15:00"))  # 90 steps of 10 s


def test_a_notebook_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rich, and without IPython there are lines."""

    class Handle:
        def __init__(self) -> None:
            self.shown: list[str] = []

        def update(self, picture: object) -> None:
            self.shown.append(picture._repr_html_())  # type: ignore[attr-defined]

    handle, stream = Handle(), io.StringIO()
    module = ModuleType("IPython.display")
    module.display = lambda picture, display_id: handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys, "stderr", stream)
    assert progress.can_show(stream)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    ts.tune(lambda config: config["lr"], SPACE, minimise="<loss>", trials=3, sampler=ts.samplers.QMC())
    assert stream.getvalue() == ""
    assert "<table>" in handle.shown[-1] and "&lt;loss&gt;" in handle.shown[-1] and "trials 3" in handle.shown[-1]
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    ts.tune(lambda config: config["lr"], SPACE, minimise="loss", trials=3, sampler=ts.samplers.QMC())
    assert "trials 3" in stream.getvalue() and "best loss" in stream.getvalue()
