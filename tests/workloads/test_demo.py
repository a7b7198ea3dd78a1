from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.analysis.schedule import Schedule
from tunesmith.errors import TunesmithError
from tunesmith.replay import replay
from tunesmith.study import Study
from tunesmith.workloads import demo, images

SMALL = {"population": 5, "steps": 4, "ready": 2, "workers": 1}
FILES = ["table.md", "table.json", "schedule.json", "schedule.png", "lineage.png", "curves.png", "demo.db"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoResult:
    return demo.run(out=tmp_path_factory.mktemp("demo"), **SMALL)


def test_it_leaves_everything_it_promises(finished: demo.DemoResult) -> None:
    assert finished.outcome == "done"
    assert [path.name for path in finished.files] == FILES
    assert all(path.stat().st_size > 100 for path in finished.files)
    assert json.loads((finished.out / "table.json").read_text()) == finished.rows
    assert (finished.out / "table.md").read_text().startswith(finished.table)
    assert Schedule.from_json((finished.out / "schedule.json").read_text()) == finished.schedule


def test_it_ends_with_a_sentence(finished: demo.DemoResult) -> None:
    best = [f"{100 * row['best']:.2f}%" for row in finished.rows]
    assert f"PBT came to {best[0]} and random search came to {best[1]}, each with 20 steps" in finished.conclusion
    assert str(finished.out / "lineage.png") in finished.conclusion


def test_it_says_what_it_does(tmp_path: Path) -> None:
    said: list[str] = []
    demo.run(out=tmp_path, say=said.append, **(SMALL | {"population": 2, "steps": 1, "ready": 1}))
    assert [line.split(",")[0] for line in said] == ["loading PyTorch...", "1 of 2", "2 of 2", "drawing the pictures"]


def test_both_methods_have_the_same_budget_and_the_same_beginning(finished: demo.DemoResult) -> None:
    assert [row["name"] for row in finished.rows] == ["PBT", "random search"]
    assert [row["steps"] for row in finished.rows] == [20, 20]
    assert [row["members"] for row in finished.rows] == [5, 5]
    pbt, random = (Study.open(finished.out / demo.STORE, name) for name in ("pbt", "random"))
    for ours, theirs in zip(pbt.trials[:5], random.trials, strict=True):
        assert ours.config == theirs.config
        assert ours.values("loss")[1][:2] == theirs.values("loss")[1][:2]


def test_the_studies_replay(finished: demo.DemoResult) -> None:
    for name in ("pbt", "random"):
        assert replay(Study.open(finished.out / demo.STORE, name)) == []


def test_a_finished_demo_is_reported_again(finished: demo.DemoResult) -> None:
    for path in finished.out.glob("*.png"):
        path.unlink()
    again = demo.run(out=finished.out, **SMALL)
    assert (again.outcome, again.rows, again.schedule) == ("reported", finished.rows, finished.schedule)
    assert all(path.exists() for path in again.files)


def test_an_interrupted_demo_goes_on(tmp_path: Path, finished: demo.DemoResult) -> None:
    def interrupt(study: Study) -> None:
        if len(study.trials) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.run(out=tmp_path, progress=interrupt, **SMALL)
    assert not (tmp_path / "table.md").exists()
    assert demo.run(out=tmp_path, **SMALL).rows == finished.rows


def test_other_arguments_in_the_same_directory(finished: demo.DemoResult) -> None:
    with pytest.raises(TunesmithError, match="defined otherwise"):
        demo.run(out=finished.out, **{**SMALL, "population": 6})


def test_missing_data_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        demo.run("fashion-mnist", data_dir=tmp_path / "nowhere", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not images.FASHION_MNIST_DIR.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist(tmp_path: Path) -> None:
    result = demo.run("fashion-mnist", out=tmp_path, population=2, steps=2, ready=1, workers=1)
    assert [row["steps"] for row in result.rows] == [4, 4]
