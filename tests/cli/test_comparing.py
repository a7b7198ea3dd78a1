"""``tunesmith compare --results``: a table of anyone's trials."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Row = list[object]
HEADER = ["optimizer", "workload", "trial", "final", "final.test", "steps", "failed"]


def written(path: Path, rows: list[Row], header: list[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def trials(name: str, workload: str, best: float, count: int = 50, failed: int = 0) -> list[Row]:
    """Losses that are spread evenly over 0.2 from the best one on; the last ones have failed."""
    rows: list[Row] = []
    for trial in range(count):
        loss = best + 0.2 * ((7 * trial) % count) / count
        bad = trial >= count - failed
        rows.append(
            [name, workload, trial, *(("", "", "", "yes") if bad else (loss, loss + 1, int(1000 * loss), "no"))]
        )
    return rows


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [
        row
        for workload in ("images", "texts")
        for row in (
            *trials("sgd", workload, 0.3),
            *trials("adam", workload, 0.1, failed=4),
            *trials("mine", workload, 0.2),
        )
    ]
    return written(tmp_path / "results.csv", rows)


def test_a_table_and_verdicts(results: Path, call: Any) -> None:
    said = call("compare", "--results", results, "--report", "final.test")
    assert said.code == 0 and said.err == ""
    assert "The best of 11 trials on images: the median, and its 90% interval" in said.out
    lines = said.out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("optimizer"))
    assert [line.split()[0] for line in lines[first + 1 : first + 4]] == ["adam", "mine", "sgd"]
    assert lines[first + 1].split()[1:3] == ["50", "4"]
    assert "from some budget on, up to 11, adam is no worse than sgd: holds" in said.out
    assert "mine is no worse" not in said.out  # what it contains nobody knows
    assert "AlgoPerf's score over the workloads" in said.out


def test_as_json(results: Path, call: Any) -> None:
    found = json.loads(call("compare", "--results", results, "--json", "--budget", 5).out)
    one = found["workloads"][0]
    assert (one["workload"], one["budget"], one["reach"]) == ("images", 5, 11)
    assert [row["optimizer"] for row in one["optimizers"]] == ["adam", "mine", "sgd"]
    beats = np.array(one["beats"])
    np.testing.assert_allclose(beats + beats.T, 1)
    assert one["verdicts"][0]["claim"] == "with 5 trials adam is more often better than mine"
    assert found["scores"]["adam"] == 1.0


def test_larger_is_better(tmp_path: Path, call: Any) -> None:
    rows = [[name, trial, best + trial / 100] for name, best in (("a", 0.1), ("b", 0.5)) for trial in range(20)]
    table = written(tmp_path / "t.csv", rows, ["optimizer", "trial", "final"])
    found = json.loads(call("compare", "--results", table, "--maximise", "--json").out)
    assert [row["optimizer"] for row in found["workloads"][0]["optimizers"]] == ["b", "a"]
    assert found["scores"] == {}


def test_few_trials_tell_little_and_it_says_so(tmp_path: Path, call: Any) -> None:
    rows = [[name, trial, value] for name, value in (("adam", 0.1), ("sgd", 0.2)) for trial in range(2)]
    said = call("compare", "--results", written(tmp_path / "t.csv", rows, ["optimizer", "trial", "final"]))
    assert said.code == 0 and "cannot be told" in said.out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--measure", "loss"), "has no column 'loss'; it has final, final.test, steps"),
        (("--report", "final.tset"), "has no column 'final.tset'"),
        (("--budget", 51), "an optimizer has 50 trials of 'images', so the best of 50 at most"),
    ],
)
def test_wrong_options_are_one_line(options: tuple[object, ...], problem: str, results: Path, call: Any) -> None:
    said = call("compare", "--results", results, *options)
    assert said.code == 2 and said.out == "" and problem in said.err and said.err.count("\n") == 1


WORKLOAD = """
import torch


class Line:
    epochs = 2

    def train(self, make_optimizer, seed):
        torch.manual_seed(seed)
        x = torch.randn(64, 3)
        model = torch.nn.Linear(3, 1)
        optimizer = make_optimizer(model.parameters())
        for epoch in range(self.epochs):
            for _ in range(20):
                optimizer.zero_grad()
                loss = (model(x) - x[:, :1]).square().mean()
                loss.backward()
                optimizer.step()
            yield {"validation": loss.item(), "test": loss.item() + 1}
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_workload_of_a_users_own(workers: int, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "line", raising=False)
    (tmp_path / "line.py").write_text(WORKLOAD, encoding="utf-8")
    options = ("--optimizers", "sgd,adam", "--trials", 6, "--workers", workers, "--target", 0.5)
    said = call("compare", "line.py:Line", *options, "--report", "final.test", "--csv", "table.csv")
    assert said.code == 0, said.err
    assert "adam" in said.out and "sgd" in said.out and "final.test" in said.out
    again = call("compare", "line.py:Line", *options, "--report", "final.test")  # nothing is trained again
    assert again.out == said.out
    from_table = call("compare", "--results", "table.csv", "--report", "final.test")
    assert from_table.out == "".join(
        line for line in said.out.splitlines(keepends=True) if "end of its range" not in line
    )
    assert call("status", "comparison.db", "--name", "adam").code == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "give what to train, file.py:Workload, or a table"),
        (("line.py:Line", "--results", "t.csv"), "give what to train"),
        (("line.py:Lin",), "line.py defines no 'Lin'; did you mean Line?"),
        (("line.py:Line", "--optimizers", "sgd,adma"), "there is no optimizer 'adma'; there are sgd"),
        (("line.py:torch",), "needs a generator train(self, make_optimizer, seed)"),
    ],
)
def test_wrong_workloads_are_one_line(
    arguments: tuple[str, ...], problem: str, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "line", raising=False)
    (tmp_path / "line.py").write_text(WORKLOAD, encoding="utf-8")
    said = call("compare", *arguments)
    assert said.code != 0 and problem in said.err and said.err.count("\n") == 1


def test_a_table_with_a_gap_is_one_line(tmp_path: Path, call: Any) -> None:
    table = written(tmp_path / "t.csv", [["adam", 0, 0.1], ["adam", 1, ""]], ["optimizer", "trial", "final"])
    said = call("compare", "--results", table)
    assert said.code != 0 and said.err.count("\n") == 1 and "final" in said.err
    said = call("compare", "--results", tmp_path / "missing.csv")
    assert said.code != 0 and "missing.csv" in said.err and said.err.count("\n") == 1
