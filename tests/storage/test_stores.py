"""Stores: the conformance suite, and what is special about SQLite."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith import Float, Goal, Space, Study, replay
from tunesmith.storage import MemoryStore, SQLiteStore, Store, StoreError, open_store
from tunesmith.testing import StoreConformance

SPACE = Space({"x": Float(0.0, 1.0)})
GOAL = Goal("loss")


class TestMemory(StoreConformance):
    def make(self, place: Path) -> Store:
        return MemoryStore()


class TestSQLite(StoreConformance):
    def make(self, place: Path) -> Store:
        return SQLiteStore(place / "study.db")


def test_opened_again_the_log_is_whole(tmp_path: Path) -> None:
    with Study(SPACE, GOAL, store=tmp_path / "a.db", trials=3) as study:
        while job := study.ask():
            study.tell(job, {"loss": job.config["x"]})
        events = study.events()
    with Study(SPACE, GOAL, store=tmp_path / "a.db", trials=5) as study:
        assert study.events() == events and len(study.trials) == 3
        assert study.ask() is not None


def test_several_studies_in_one_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Study(SPACE, GOAL, store=tmp_path / "s.db", name=name) as study:
            job = study.ask()
            assert job is not None
            study.tell(job, {"loss": 1.0})
    store = SQLiteStore(tmp_path / "s.db", "a")
    assert store.names() == ["a", "b"]
    assert len(store.read()) == 3
    store.close()


def test_a_foreign_sqlite_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a tunesmith study"):
        SQLiteStore(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes\n" * 100)
    with pytest.raises(StoreError, match="no SQLite file"):
        SQLiteStore(path)
    assert path.read_text().startswith("these are my notes")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    SQLiteStore(tmp_path / "a.db").close()
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer tunesmith"):
        SQLiteStore(tmp_path / "a.db")


def test_an_event_of_a_later_format_is_named(tmp_path: Path) -> None:
    Study(SPACE, GOAL, store=tmp_path / "a.db").close()
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("INSERT INTO events VALUES ('study', 2, NULL, ?)", (b'{"event":"teleported"}',))
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=r"can't be read.*teleported"):
        Study.open(tmp_path / "a.db")


def test_a_missing_file_is_not_made_by_opening(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        open_store(tmp_path / "none.db", "study", create=False)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_and_an_address_are_explained(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="folder does not exist"):
        SQLiteStore(tmp_path / "no" / "a.db")
    with pytest.raises(StoreError, match="addresses are not supported"):
        open_store("mysql://somewhere", "study")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Study]:
    """A study whose file can't grow, as on a full disk."""
    study = Study(SPACE, GOAL, store=tmp_path / "a.db")
    assert isinstance(study.store, SQLiteStore)
    with study.store._connected() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    yield study
    study.close()


def test_a_full_disk_is_explained_and_loses_nothing(full_disk: Study) -> None:
    told = 0
    with pytest.raises(StoreError, match="disk is full"):
        for _ in range(1000):
            job = full_disk.ask()
            assert job is not None
            full_disk.tell(job, {"loss": 0.5})
            told += 1
    assert told > 0
    path = full_disk.store.path  # type: ignore[attr-defined]
    full_disk.close()
    with Study.open(path) as again:
        assert sum(trial.status == "complete" for trial in again.trials) == told
        job = again.ask()  # there is room now
        assert job is not None
        again.tell(job, {"loss": 0.1})


def work(path: Path, count: int) -> None:
    """Ask and tell ``count`` jobs, as one of several processes."""
    with Study.open(path) as study:
        for _ in range(count):
            job = study.ask()
            assert job is not None
            study.tell(job, {"loss": job.config["x"]})


def test_four_processes_on_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Study(SPACE, GOAL, store=path).close()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(path, 40)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    with Study.open(path) as study:
        assert len(study.trials) == 160
        assert all(trial.status == "complete" for trial in study.trials)
        assert len({trial.config["x"] for trial in study.trials}) == 160
        assert replay(study) == []


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # of JAX, where another test has used it
def test_fork_safe(tmp_path: Path) -> None:
    """A child made by fork opens the file for itself."""
    with Study(SPACE, GOAL, store=tmp_path / "a.db") as study:
        assert study.ask() is not None
        process = multiprocessing.get_context("fork").Process(target=lambda: study.ask())
        process.start()
        process.join(60)
        assert process.exitcode == 0
        study.sync()
        assert len(study.trials) == 2
