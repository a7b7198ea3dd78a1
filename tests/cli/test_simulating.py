"""``tunesmith simulate``: the trials of a study, played again with other workers and schedulers."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunesmith as ts
from tunesmith.execution import simulate
from tunesmith.schedulers import PBT, Full, SuccessiveHalving

Misuse = Callable[..., str]
SPACE = ts.Space({"x": ts.Float(0.0, 10.0)})
XS = (3.0, 1.0, 2.0, 4.0)


def play(job: ts.Job) -> Any:
    """A step takes x hours; the loss is x + 1 / step."""
    x, steps = job.config["x"], range(job.start + 1, job.until + 1)
    return {"loss": [x + 1 / step for step in steps], "memory": [x] * len(steps)}, [3600 * x] * len(steps)


def made(path: Path, scheduler: Any, goals: Any = ts.Goal("loss"), curves: Any = play, **more: Any) -> Path:  # noqa: B008
    with ts.Study(
        SPACE, goals, sampler=ts.samplers.Uniform(), scheduler=scheduler, store=path, trials=len(XS), **more
    ) as study:
        for x in XS:
            study.enqueue({"x": x})
        simulate(study, curves)
    return path


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Four trials of four steps: 40 hours of one worker."""
    return made(tmp_path / "full.db", Full(4))


def rows(ran: Any) -> list[dict[str, Any]]:
    assert ran.code == 0 and ran.err == ""
    return json.loads(ran.out)["simulations"]


def test_as_it_was(call: Any, finished: Path) -> None:
    found = json.loads(call("simulate", finished, "--json").out)
    assert found["study"] == {
        "name": "study", "metric": "loss", "best": 1.25, "trials": 4, "steps": 16, "worker_seconds": 144000.0,
        "longest": 4, "ended": 0, "short": 0, "left_out": 0,
    }  # fmt: skip
    assert found["sampler"] is None
    assert found["simulations"] == [
        {
            "scheduler": "Full(steps=4, seeds=1)", "workers": 1, "outcome": "done", "seconds": 144000.0,
            "worker_seconds": 144000.0, "idle_seconds": 0.0, "jobs": 4, "trials": 4, "failed": 0, "steps": 16,
            "best": 1.25, "seconds_to": {"5%": 57600.0, "1%": 57600.0},
            "kinds": {"exact": 4, "neighbour": 0, "continued": 0}, "message": "all 4 trials were started",
        }
    ]  # fmt: skip


def test_workers_and_schedulers_make_a_table(call: Any, finished: Path) -> None:
    """Two workers: 12 hours and 4, then 8 on the second, then 16 on either."""
    words = ("--scheduler", "Full(steps=4)", "--scheduler", "Full(2)", "--workers", 1, "--workers", 2)
    found = rows(call("simulate", finished, *words, "--json"))
    assert [(row["scheduler"], row["workers"], row["seconds"] / 3600) for row in found] == [
        ("Full(steps=4)", 1, 40.0),
        ("Full(steps=4)", 2, 28.0),
        ("Full(2)", 1, 20.0),
        ("Full(2)", 2, 14.0),
    ]
    assert [row["best"] for row in found] == [1.25, 1.25, 1.5, 1.5]
    assert found[1]["idle_seconds"] == 16 * 3600
    assert found[2]["seconds_to"] == {"5%": None, "1%": None}
    text = call("simulate", finished, *words)
    assert text.code == 0 and text.err == ""
    assert text.out.splitlines() == [
        "study    study: 4 trials, 16 steps, 40 worker hours",
        "best     loss 1.25",
        "sampler  the recorded configurations, in their order",
        "",
        "scheduler      workers  hours  worker hours  trials  steps  best loss  hours to 5%  hours to 1%  exact",
        "Full(steps=4)        1     40            40       4     16       1.25           16           16      4",
        "Full(steps=4)        2     28            40       4     16       1.25            4            4      4",
        "Full(2)              1     20            20       4      8        1.5                                4",
        "Full(2)              2     14            20       4      8        1.5                                4",
        "",
        "hours to 5%, to 1%: until a value was found that is so near to the best recorded one",
        "exact: jobs that played the curve that was recorded for them",
        "Full(steps=4): all 4 trials were started",
        "Full(2): all 4 trials were started",
    ]


def test_the_end_and_the_overhead(call: Any, finished: Path) -> None:
    (row,) = rows(call("simulate", finished, "--seconds", 5 * 3600, "--overhead", 3600, "--json"))
    assert row["outcome"] == "seconds" and row["seconds"] == row["worker_seconds"] == 5 * 3600
    assert row["trials"] == 1 and row["steps"] == 1  # an hour and three
    (row,) = rows(call("simulate", finished, "--trials", 2, "--json"))
    assert row["trials"] == 2 and row["seconds"] == 16 * 3600 and row["message"] == "all 2 trials were started"


def test_another_sampler_is_played_by_neighbours(call: Any, finished: Path) -> None:
    words = ("--sampler", "QMC", "--trials", 9, "--seed", 1)
    (row,) = rows(call("simulate", finished, *words, "--json"))
    assert row["kinds"] == {"exact": 0, "neighbour": 9, "continued": 0} and row["trials"] == 9
    out = call("simulate", finished, *words).out
    assert "sampler  QMC\n" in out and "neighbour: jobs of configurations that were not recorded" in out
    assert "exact" not in out


def test_curves_that_were_stopped_early_are_named(call: Any, tmp_path: Path) -> None:
    store = made(tmp_path / "halving.db", SuccessiveHalving(4, eta=2, rounds=1))
    found = call("simulate", store, "--scheduler", "Full(steps=4)")
    assert "3 of the 4 recorded trials end before step 4: they were stopped early" in found.out
    assert "continued: jobs whose own curve stops earlier" in found.out
    (row,) = rows(call("simulate", store, "--scheduler", "Full(steps=4)", "--json"))
    assert row["kinds"] == {"exact": 1, "neighbour": 0, "continued": 3}


def test_trainings_that_ended_by_themselves_are_named_as_such(call: Any, tmp_path: Path) -> None:
    """They were neither stopped nor do they go on, whatever the scheduler."""
    store = tmp_path / "ended.db"
    with ts.Study(SPACE, ts.Goal("loss"), ts.samplers.QMC(), Full(9), store, trials=6) as study:
        while job := study.ask():
            if job.trial == 5:
                study.fail(job)
                continue
            ends = 9 if job.trial == 0 else 2 + job.trial
            study.tell(
                job, {"loss": [1.0 / step for step in range(1, ends + 1)]}, step=ends, seconds=ends, ended=ends < 9
            )
    found = call("simulate", store, "--scheduler", "Full(steps=9)", "--scheduler", "ASHA(max_steps=9)")
    assert "4 of the 6 recorded trials have come to their end before step 9 by themselves, as they do here" in found.out
    assert "1 of the 6 recorded trials end before step 9: they were stopped early, have failed" in found.out
    assert "continued" not in found.out
    full, asha = rows(
        call("simulate", store, "--scheduler", "Full(steps=9)", "--scheduler", "ASHA(max_steps=9)", "--json")
    )
    assert full["steps"] == 9 + 3 + 4 + 5 + 6 + 1 and full["kinds"] == {"exact": 6, "neighbour": 0, "continued": 0}
    assert asha["kinds"]["continued"] == 0 and asha["steps"] < full["steps"]


def test_constraints_hold_for_the_best(call: Any, tmp_path: Path) -> None:
    store = made(tmp_path / "rule.db", Full(4), constraints=ts.Constraint("memory", 3.5))
    assert json.loads(call("simulate", store, "--json").out)["study"]["best"] == 1.25
    store = made(tmp_path / "max.db", Full(4), ts.Goal("loss", maximise=True), constraints=ts.Constraint("memory", 3.5))
    found = json.loads(call("simulate", store, "--json").out)
    assert found["study"]["best"] == found["simulations"][0]["best"] == 4.0
    assert found["simulations"][0]["seconds_to"] == {"5%": 3 * 3600.0, "1%": 3 * 3600.0}


def test_nothing_is_written(call: Any, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    copy = folder / "study.db"
    copy.write_bytes(finished.read_bytes())
    copy.chmod(stat.S_IRUSR)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert call("simulate", copy, "--workers", 3).code == 0
        assert [path.name for path in folder.iterdir()] == ["study.db"]
    finally:
        folder.chmod(stat.S_IRWXU)
    assert copy.read_bytes() == finished.read_bytes()


def test_what_cannot_be_simulated(misuse: Misuse, finished: Path, tmp_path: Path) -> None:
    assert "there is no scheduler 'Half'" in misuse("simulate", finished, "--scheduler", "Half(2)")
    assert "there is no sampler 'No'" in misuse("simulate", finished, "--sampler", "No")
    assert "no recorded curve of any configuration goes beyond step 4" in misuse(
        "simulate", finished, "--scheduler", "Full(5)"
    )
    forking = "PBT(population=2, ready=1, steps=4)"
    assert "a scheduler that does not fork" in misuse("simulate", finished, "--scheduler", forking)
    two = made(tmp_path / "two.db", Full(1), [ts.Goal("loss"), ts.Goal("memory")])
    assert "has 2 goals" in misuse("simulate", two)
    forks = made(tmp_path / "pbt.db", PBT(population=3, ready=1, steps=4))
    assert "has forks" in misuse("simulate", forks)
    timeless = made(tmp_path / "timeless.db", Full(2), curves=lambda job: (play(job)[0], 0.0))
    assert "does not know how long its steps took" in misuse("simulate", timeless)
    failed = made(tmp_path / "failed.db", Full(2), curves=lambda job: ({"loss": [float("nan")]}, 1.0))
    assert "does not know how long" in misuse("simulate", failed)
    broken = made(tmp_path / "broken.db", Full(2), constraints=ts.Constraint("memory", 0.0))
    assert "all have failed or break a constraint" in misuse("simulate", broken)


def test_a_scheduler_of_ones_own(call: Any, misuse: Misuse, tmp_path: Path) -> None:
    class Own(Full, frozen=True):
        pass

    store = made(tmp_path / "own.db", Own(2))
    assert "the scheduler 'Own' of the study is not built in: give a --scheduler" in misuse("simulate", store)
    assert call("simulate", store, "--scheduler", "Full(2)").code == 0
