"""The commands that look at a study."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunesmith as ts
from tunesmith.analysis.schedule import Schedule
from tunesmith.errors import install

Misuse = Callable[..., str]
Opened = Callable[..., ts.Study]

READING = (
    ("status", "STORE"),
    ("best", "STORE"),
    ("trials", "STORE"),
    ("trials", "STORE", "--population"),
    ("schedule", "STORE"),
    ("schedule", "STORE", "--trial", "0"),
    ("replay", "STORE"),
    ("export", "STORE"),
    ("export", "STORE", "--every-step"),
)


def on(store: Path, words: tuple[str, ...]) -> list[str]:
    return [str(store) if word == "STORE" else word for word in words]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_as_text_and_as_json(words: tuple[str, ...], call: Any, store: Path) -> None:
    text = call(*on(store, words))
    assert text.code == 0 and text.err == "" and len(text.out.splitlines()) >= 1
    parsed = call(*on(store, words), "--json")
    assert parsed.code == 0 and parsed.err == "" and json.loads(parsed.out)


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_read_only_study_in_a_read_only_folder(
    words: tuple[str, ...], call: Any, store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    copy = folder / "study.db"
    copy.write_bytes(store.read_bytes())
    copy.chmod(stat.S_IRUSR)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert call(*on(copy, words)).code == 0
        assert [path.name for path in folder.iterdir()] == ["study.db"]
    finally:
        folder.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_nothing_is_written(words: tuple[str, ...], call: Any, store: Path, tmp_path: Path) -> None:
    before = store.read_bytes()
    call(*on(store, words))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.db"]
    assert store.read_bytes() == before


def test_status(call: Any, store: Path) -> None:
    found = json.loads(call("status", store, "--json").out)
    assert (
        found["name"] == "first" and found["goals"] == ["minimise loss"] and found["sampler"] == "QMC(sequence='sobol')"
    )
    assert found["scheduler"].startswith("PBT(population=4, ready=2, steps=10, ")
    assert found["complete"] == found["trials"] and found["failed"] == 0
    assert found["best"]["step"] == 10


def test_status_says_which_steps_count(call: Any, tmp_path: Path) -> None:
    goals = [ts.Goal("loss", scope="best"), ts.Goal("top", maximise=True, scope="last-3-avg"), ts.Goal("time")]
    ts.Study(ts.Space({"x": ts.Float(0.0, 1.0)}), goals, store=tmp_path / "a.db").close()
    found = json.loads(call("status", tmp_path / "a.db", "--json").out)
    assert found["goals"] == ["minimise loss (best)", "maximise top (last-3-avg)", "minimise time"]
    assert "minimise loss (best), maximise top (last-3-avg), minimise time" in call("status", tmp_path / "a.db").out


def test_best_is_the_best(call: Any, store: Path, opened: Opened) -> None:
    best = opened(store, "first").best
    assert best is not None
    found = json.loads(call("best", store, "--json").out)
    assert found["trial"] == best.id and found["config"] == best.config and found["metrics"] == best.metrics


def test_best_of_several_goals_is_the_front(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "two.db"
    study = ts.Study(
        ts.Space({"x": ts.Float(0.0, 1.0)}), [ts.Goal("a"), ts.Goal("b", maximise=True)], store=path, trials=6
    )
    while job := study.ask():
        study.tell(job, {"a": job.config["x"], "b": job.config["x"] ** 2})
    study.close()
    found = json.loads(call("best", path, "--json").out)
    assert [one["trial"] for one in found] == [trial.id for trial in study.front] == list(range(6))
    assert call("best", path).out.count("trial") == 6


@pytest.fixture
def repeated(tmp_path: Path) -> Path:
    """A study in which configurations were trained several times."""
    path = tmp_path / "repeated.db"
    with ts.Study(ts.Space({"x": ts.Float(0.0, 1.0)}), ts.Goal("score", maximise=True), store=path) as study:
        for x, values in ((0.1, [1.0, 1.2]), (0.2, [2.0, 2.2, 2.1]), (0.3, [0.5]), (0.4, [1.5]), (0.5, [3.1, -9.0])):
            for value in values:
                study.add({"x": x}, {"score": value})
    return path


def test_what_repeats_say_is_shown(call: Any, repeated: Path, opened: Opened) -> None:
    study = opened(repeated)
    found = json.loads(call("best", repeated, "--json").out)
    estimate = study.estimate()
    assert study.best is not None and found["trial"] == study.best.id == 4 and estimate is not None
    assert found["estimate"] == {
        "metric": "score", "mean": estimate.mean, "low": estimate.low, "high": estimate.high, "count": 3,
    }  # fmt: skip
    shown = f"{estimate.mean:.4g} ± {estimate.high - estimate.mean:.2g} (3 seeds)"
    assert f"mean score  {shown}" in call("best", repeated).out
    assert f"; mean {shown}" in call("status", repeated).out
    assert json.loads(call("status", repeated, "--json").out)["best"] == found
    rows = json.loads(call("trials", repeated, "--json").out)
    assert [row["repeat_of"] for row in rows] == [None, 0, None, 2, 2, None, None, None, 7]
    assert rows[2]["estimate.mean"] == rows[4]["estimate.mean"] == estimate.mean and rows[5]["estimate.count"] == 1
    ranked = json.loads(call("trials", repeated, "--population", "--json").out)
    assert [row["trial"] for row in ranked[:3]] == [2, 3, 4] and ranked[-1]["trial"] == 8
    assert "estimate.mean" in call("export", repeated).out.splitlines()[0]


def test_without_repeats_nothing_is_said_of_them(call: Any, store: Path) -> None:
    assert json.loads(call("best", store, "--json").out)["estimate"] is None
    assert "mean" not in call("best", store).out + call("status", store).out + call("export", store).out


def test_trials(call: Any, store: Path) -> None:
    rows = json.loads(call("trials", store, "--json").out)
    assert [row["trial"] for row in rows] == list(range(len(rows)))
    members = json.loads(call("trials", store, "--population", "--json").out)
    losses = [row["metrics.loss"] for row in members]
    assert len(members) == 4 and losses == sorted(losses)


def test_schedule_to_a_file_is_read_back(call: Any, store: Path, tmp_path: Path) -> None:
    assert call("schedule", store, "-o", tmp_path / "found.json").code == 0
    found = Schedule.from_json((tmp_path / "found.json").read_text())
    assert found.steps == 10
    assert Schedule.from_json(call("schedule", store, "--json").out) == found


@pytest.mark.parametrize("kind", ["schedule", "lineage", "curves"])
def test_plot(kind: str, call: Any, store: Path, tmp_path: Path) -> None:
    assert call("plot", store, kind).code == 0
    assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    done = call("plot", store, kind, "--output", "figure.svg", "--json")
    assert json.loads(done.out) == {"file": "figure.svg"}
    assert "<svg" in (tmp_path / "figure.svg").read_text()


@pytest.fixture
def modelled(tmp_path: Path) -> Path:
    """A study with a model-based sampler."""
    path = tmp_path / "modelled.db"
    space = ts.Space({"lr": ts.Float(1e-4, 1.0, log=True), "units": ts.Ordinal([16, 32, 64])})
    with ts.Study(space, ts.Goal("loss"), ts.samplers.TPE(startup=4), store=path, trials=6) as study:
        while job := study.ask():
            study.tell(job, {"loss": job.config["lr"]})
    return path


def test_plot_of_the_surrogate(call: Any, misuse: Misuse, modelled: Path, store: Path, tmp_path: Path) -> None:
    assert call("plot", modelled, "surrogate").out == "surrogate.png\n"
    assert (tmp_path / "surrogate.png").read_bytes().startswith(b"\x89PNG")
    done = call("plot", modelled, "surrogate", "--parameter", "units", "--output", "units.svg", "--json")
    assert json.loads(done.out) == {"file": "units.svg"}
    assert "no parameter 'speed' varies" in misuse("plot", modelled, "surrogate", "--parameter", "speed")
    assert "--parameter is for the surrogate" in misuse("plot", modelled, "curves", "--parameter", "lr")
    assert "QMC has no model to draw" in misuse("plot", store, "surrogate")


def test_replay_of_an_edited_log_has_differences(call: Any, store: Path) -> None:
    with sqlite3.connect(store) as connection:
        (body,) = connection.execute("SELECT body FROM events WHERE ask = 0").fetchone()
        event = json.loads(body) | {"config": {"lr": 0.5, "units": 16, "optimizer": "adam"}}
        connection.execute("UPDATE events SET body = ? WHERE ask = 0", (json.dumps(event).encode(),))
    connection.close()
    done = call("replay", store, "--json")
    assert done.code == 1
    assert [d["field"] for d in json.loads(done.out)["differences"] if d["ask"] == 0] == ["config"]
    assert call("replay", store).code == 1


def test_export(call: Any, store: Path, tmp_path: Path, opened: Opened) -> None:
    rows = list(csv.DictReader(io.StringIO(call("export", store).out)))
    trials = opened(store, "first").trials
    assert [float(row["params.lr"]) for row in rows] == [trial.config["lr"] for trial in trials]
    assert call("export", store, "trials.csv").out == "trials.csv\n"
    assert list(csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text()))) == rows
    assert json.loads(call("export", store, "trials.json", "--json").out) == {"file": "trials.json"}
    assert json.loads((tmp_path / "trials.json").read_text()) == json.loads(call("export", store, "--json").out)
    steps = json.loads(call("export", store, "--every-step", "--json").out)
    assert len(steps) == sum(trial.step - trial.start for trial in trials)


def test_export_to_parquet(call: Any, store: Path, tmp_path: Path, opened: Opened) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert call("export", store, "trials.parquet").code == 0
    assert parquet.read_table(tmp_path / "trials.parquet").num_rows == len(opened(store, "first").trials)


def test_parquet_without_pyarrow(misuse: Misuse, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert install("parquet") in misuse("export", store, "trials.parquet")
    assert not (tmp_path / "trials.parquet").exists()


def test_plot_without_matplotlib(misuse: Misuse, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert install("figures") in misuse("plot", store, "curves")


def test_a_store_with_several_studies_asks_for_the_name(misuse: Misuse, call: Any, store: Path) -> None:
    ts.Study(ts.Space({"x": ts.Float(0.0, 1.0)}), [ts.Goal("loss")], store=store, name="second").close()
    assert "choose one with --name: first, second" in misuse("status", store)
    assert call("status", store, "--name", "second").code == 0
    assert "first" in misuse("status", store, "--name", "third")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("status", "missing.db"), "missing.db: there is no such file"),
        (("best", "missing.db"), "there is no such file"),
        (("trials",), "Missing argument"),
        (("frobnicate",), "No such command"),
        (("status", "study.db", "--jsn"), "--jsn"),
        (("plot", "study.db", "pie"), "'pie' is not one of"),
        (("plot", "study.db", "curves", "-o", "figure.doc"), "must be .png, .svg or .pdf"),
        (("plot", "study.db", "curves", "-o", "no/such/folder.png"), "No such file or directory"),
        (("export", "study.db", "trials.xls"), "must be .csv, .json or .parquet"),
        (("schedule", "study.db", "--trial", "99"), "no trial 99"),
        (("schedule", "study.db", "-o", "no/such/folder.json"), "No such file or directory"),
        (("best", "empty.db"), "has a result"),
        (("schedule", "empty.db"), "has a result"),
        (("status", "foreign.db"), "is not a tunesmith study"),
        (("status", "text.db"), "no SQLite file"),
        (("status", "zero.db"), "zero.db"),
        (("status", "."), "can't be opened"),
        (("status", "redis://localhost"), "redis"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input(words: tuple[str, ...], message: str, misuse: Misuse, store: Path, tmp_path: Path) -> None:
    ts.Study(ts.Space({"x": ts.Float(0.0, 1.0)}), [ts.Goal("loss")], store=tmp_path / "empty.db").close()
    connection = sqlite3.connect(tmp_path / "foreign.db")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    (tmp_path / "text.db").write_text("hello " * 1000)
    (tmp_path / "zero.db").touch()
    before = sorted(tmp_path.iterdir())
    assert message in misuse(*words)
    assert sorted(tmp_path.iterdir()) == before


def test_debug_shows_where(call: Any) -> None:
    done = call("--debug", "status", "missing.db")
    os.environ.pop("TUNESMITH_DEBUG")
    assert done.code == 1 and "Traceback" in done.err and done.err.endswith("there is no such file\n")


def test_a_reader_that_goes_away_is_no_error(store: Path) -> None:
    command = f"{sys.executable} -m tunesmith export {store} --every-step | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == "" and done.stdout.startswith("trial,step,loss")


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from tunesmith.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"tunesmith: the command line needs {module}: {install('cli')}\n"


def test_as_a_module_and_as_a_script(store: Path) -> None:
    for command in ([sys.executable, "-m", "tunesmith"], [str(Path(sys.executable).parent / "tunesmith")]):
        done = subprocess.run([*command, "best", str(store)], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stdout.startswith("trial")
        assert subprocess.run([*command, "best", "no.db"], capture_output=True, check=False).returncode == 1


def test_version_and_help(call: Any) -> None:
    assert call("--version").out == f"tunesmith {ts.__version__}\n"
    assert "Commands" in call("--help").out
    for command in ("run", "resume", "status", "best", "trials", "schedule", "plot", "replay", "export", "demo"):
        done = call(command, "--help")
        assert done.code == 0 and "--json" in done.out
