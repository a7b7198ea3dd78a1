"""Stopping rules, targets and the picture of the rungs on the command line."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize("scheduler", ["Median(8, every=2, min_trials=2)", "Plateau(8, patience=2, min_delta=0.01)"])
def test_a_rule_and_the_picture_of_its_rungs(call, code, opened, tmp_path, scheduler):
    run = ["run", f"{code}:train", "--minimise", "loss", "--scheduler", scheduler, "--trials", 6, "--quiet"]
    assert call(*run).code == 0
    assert len(opened("study.db").trials) == 6
    assert call("plot", "study.db", "rungs", "-o", "rungs.svg").out == "rungs.svg\n"
    assert (tmp_path / "rungs.svg").stat().st_size > 1000
    assert call("plot", "study.db", "curves").code == 0


def test_a_rule_never_ends_by_itself(misuse, code):
    run = ["run", f"{code}:train", "--minimise", "loss", "--scheduler", "Median(8)"]
    assert "the search would never end" in misuse(*run)


def test_a_target_ends_the_run_and_resume_goes_on(call, code, opened):
    run = ["run", f"{code}:train", "--minimise", "loss", "--steps", 10, "--trials", 2, "--quiet", "--json"]
    found = json.loads(call(*run, "--target", 0.999).out)
    assert found["outcome"] == "target" and found["best"]["metrics"]["loss"] <= 0.999
    resume = ["resume", "study.db", f"{code}:train", "--trials", 2, "--quiet", "--json"]
    assert json.loads(call(*resume, "--target", 0.999).out)["outcome"] == "target"
    assert json.loads(call(*resume).out)["outcome"] == "done"
    assert [trial.step for trial in opened("study.db").trials] == [10, 10]
