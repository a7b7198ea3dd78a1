"""Stores: the conformance suite, and what is special about SQLite."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunesmith import Float, Goal, Space, Study, replay
from tunesmith.records import AnyEvent, Failed, Told
from tunesmith.storage import MemoryStore, SQLiteStore, Store, StoreError, open_store, sqlite
from tunesmith.testing import StoreConformance
from tunesmith.testing.conformance import interrupted

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


def limited_pages(folder: Path) -> Iterator[Study]:
    study = Study(SPACE, GOAL, store=folder / "a.db")
    assert isinstance(study.store, SQLiteStore)
    (pages,) = study.store._use(lambda connection: connection.execute("PRAGMA page_count").fetchone())
    study.store._use(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 2}"))
    yield study
    study.close()


def small_disk(folder: Path) -> Iterator[Study]:
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        with Study(SPACE, GOAL, store=disk / "a.db") as study:
            yield study
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture(params=[limited_pages, small_disk])
def full_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Study]:
    """A study whose file can't grow, as on a full disk."""
    yield from request.param(tmp_path)


def test_a_full_disk_is_explained_and_loses_nothing(full_disk: Study) -> None:
    told = 0
    with pytest.raises(StoreError, match="disk is full"):
        for _ in range(5000):
            job = full_disk.ask()
            assert job is not None
            full_disk.tell(job, {"loss": 0.5})
            told += 1
    assert told > 0
    path = full_disk.store.path  # type: ignore[attr-defined]
    for _ in range(3):
        with pytest.raises(StoreError, match="disk is full"):
            full_disk.store.append([Failed(0, 0, "no room for this" * 10_000)])
    assert not full_disk.store._connection.in_transaction  # type: ignore[attr-defined]
    full_disk.close()
    if path.parent.name == "disk":
        subprocess.run(["mount", "-o", "remount,size=4m", str(path.parent)], check=True)
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


def told(number: int) -> Told:
    return Told(number, number, 0, {"loss": [float(number)]})


# -- where the file is --------------------------------------------------------------------------------------------


def test_a_relative_path_is_meant_from_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training code may change the directory, and a child opens the file anew."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with Study(SPACE, GOAL, store="a.db") as study:
        monkeypatch.chdir("elsewhere")
        assert study.store.path == tmp_path / "a.db"  # type: ignore[attr-defined]
        assert study.ask() is not None
        study.store.close()
        study.sync()
        assert study.ask() is not None
    assert list((tmp_path / "elsewhere").iterdir()) == []
    with Study.open("../a.db") as again:
        assert len(again.trials) == 2


def test_by_whatever_name_a_file_is_opened_it_is_one_study(tmp_path: Path) -> None:
    """A driver that has opened a link looks at the leases of the others, and finds their states."""
    with Study(SPACE, GOAL, store=tmp_path / "a.db") as study:
        (tmp_path / "link.db").symlink_to("a.db")
        (tmp_path / "folder").symlink_to(tmp_path)
        for name in ("link.db", "folder/a.db", "folder/link.db"):
            with Study(SPACE, GOAL, store=tmp_path / name) as same:
                assert same.store.path == study.store.path  # type: ignore[attr-defined]
                assert same.use_checkpoints() == study.use_checkpoints()


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StoreError, match=r"a\.db: the present directory is gone"):
        SQLiteStore("a.db")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """A store with three events."""
    made = SQLiteStore(tmp_path / "a.db")
    made.append([told(i) for i in range(3)])
    yield made
    made.close()


def remove(store: SQLiteStore) -> None:
    store.path.unlink()


def remove_all(store: SQLiteStore) -> None:
    for path in store.path.parent.iterdir():
        path.unlink()


def remove_folder(store: SQLiteStore) -> None:
    shutil.rmtree(store.path.parent)


def replace(store: SQLiteStore) -> None:
    SQLiteStore(store.path.with_name("b.db")).close()
    store.path.with_name("b.db").replace(store.path)


def make_anew(store: SQLiteStore) -> None:
    remove_all(store)
    SQLiteStore(store.path).close()


def remove_log(store: SQLiteStore) -> None:
    store._log_path.unlink()


LOST = {remove: "deleted", remove_all: "deleted", remove_folder: "deleted", replace: "replaced", make_anew: "replaced"}


@pytest.mark.parametrize("lose", [*LOST, remove_log])
def test_a_file_that_is_lost_while_it_is_open_is_noticed_and_rescued(
    lose: Callable[[SQLiteStore], None], store: SQLiteStore
) -> None:
    store.check()
    lose(store)
    with pytest.raises(StoreError, match=rf"{LOST.get(lose, 'deleted')}.* while the study was open.*rescue"):
        store.check()
    with pytest.raises(StoreError, match="while the study was open"):
        store.append([told(3)])
    path = store.rescue()
    assert path == store.path.with_name("a.rescued.db")
    assert store.rescue() == store.path.with_name("a.rescued-2.db")
    rescued = SQLiteStore(path, create=False)
    rescued.check()
    assert rescued.read() == [told(i) for i in range(4 if LOST.get(lose) == "deleted" else 3)]
    rescued.close()


def test_a_file_is_not_made_anew_when_it_was_lost(store: SQLiteStore) -> None:
    """After ``close`` the next use opens it again: the same one, or none."""
    store.close()
    store.check()  # nothing is open that could be lost
    store.path.unlink()
    with pytest.raises(StoreError, match="deleted since it was opened first"):
        store.append([told(3)])
    with pytest.raises(StoreError, match="not open"):
        store.rescue()
    assert not store.path.exists()


def test_another_file_is_not_taken_for_the_one_that_was_closed(store: SQLiteStore) -> None:
    store.close()
    store.path.rename(store.path.with_name("b.db"))
    SQLiteStore(store.path).close()
    with pytest.raises(StoreError, match="replaced since it was opened first"):
        store.read()


def test_all_studies_are_rescued_to_a_place_of_choice(store: SQLiteStore, tmp_path: Path) -> None:
    other = SQLiteStore(store.path, "another")
    other.append([told(7)])
    other.close()
    store.path.unlink()
    assert store.rescue(tmp_path / "new" / "b.db") == tmp_path / "new" / "b.db"
    with pytest.raises(StoreError, match="File exists"):
        store.rescue(tmp_path / "new" / "b.db")
    rescued = SQLiteStore(tmp_path / "new" / "b.db", "another", create=False)
    assert (rescued.names(), rescued.read()) == (["another", "study"], [told(7)])
    rescued.close()


def test_of_a_damaged_file_what_can_be_read_is_rescued(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")
    for i in range(2000):
        store.append([told(i)])
    store.close()
    with store.path.open("r+b") as file:
        file.seek(store.path.stat().st_size // 2)
        file.write(b"\xff" * 8192)
    assert store.check() is None
    with pytest.raises(StoreError, match="damaged"):
        store.read()
    rescued = SQLiteStore(store.rescue(), create=False)
    found = rescued.read()
    assert 100 < len(found) < 2000 and found == [told(i) for i in range(len(found))]
    rescued.close()
    store.close()


# -- many processes -----------------------------------------------------------------------------------------------

MAKE = """
import sys, time
from pathlib import Path
from tunesmith import Float, Goal, Space, Study
from tunesmith.storage import StoreError
folder, number = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
begin = float(sys.stdin.readline())
for round in range(30):
    time.sleep(max(0, begin + round * 0.1 - time.time()))
    path = folder / f"{round}.db"
    if number % 3 == 0:  # a reader
        until = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < until
        while True:
            try:
                Study.open(path).close()
                break
            except StoreError:
                raise
            except Exception as error:  # the file is there, but the study is not yet
                assert "there is no study" in str(error) and time.monotonic() < until, error
    else:
        with Study(Space({"x": Float(0, 1)}), Goal("loss"), store=path) as study:
            study.tell(study.ask(), {"loss": 0.5})
"""


def test_many_processes_make_one_store(tmp_path: Path) -> None:
    """At the same moment, with readers who look for it: nobody hears that the file is locked, or is no study."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", MAKE, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, str(i)], stdin=pipe, stdout=pipe, stderr=pipe, text=True) for i in range(5)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    begin = time.time() + 0.1
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{begin}\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out, err) == (0, "", "")
    for round in range(30):
        with Study.open(tmp_path / f"{round}.db") as study:
            assert [trial.status for trial in study.trials] == ["complete"] * 3
            mode = study.store._use(lambda c: c.execute("PRAGMA journal_mode").fetchone())  # type: ignore[attr-defined]
            assert mode == ("wal",)


def test_an_empty_file_is_made_a_store_and_read_as_none(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    os.utime(path, (0, 0))
    with pytest.raises(StoreError, match="the file is empty"):
        SQLiteStore(path, create=False)
    SQLiteStore(path).close()
    SQLiteStore(path, create=False).close()


def test_a_file_that_is_just_being_made_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    maker = threading.Timer(0.3, lambda: SQLiteStore(path).close())
    maker.start()
    SQLiteStore(path, create=False).close()
    maker.join()


def test_a_writer_who_never_ends_is_named(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE", 0.2)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        with pytest.raises(StoreError, match="another process has kept the file locked for 0 s"):
            store.append([told(3)])
        with pytest.raises(StoreError, match="locked"), store.exclusive():
            pass
    assert len(store.read()) == 3
    other.execute("ROLLBACK")
    assert store.append([told(3)]) == 4
    other.close()


def test_a_thread_that_keeps_the_study_to_itself_is_named(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE", 0.2)
    problems = []

    def append() -> None:
        try:
            store.append([told(3)])
        except StoreError as error:
            problems.append(str(error))

    with store.exclusive():
        thread = threading.Thread(target=append)
        thread.start()
        assert len(store.read()) == 3
        thread.join(60)
    assert len(problems) == 1 and "another thread has kept the study to itself" in problems[0]
    assert store.append([told(3)]) == 4


def test_threads_take_turns(store: SQLiteStore) -> None:
    """Sections of four threads on one connection: each sees the log as long as it appends to it."""

    def work() -> None:
        for _ in range(20):
            with store.exclusive():
                length = len(store.read())
                assert store.append([told(length)], after=length) == length + 1
                assert store.append([told(length + 1)], after=length + 1) == length + 2

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert store.read() == [told(i) for i in range(163)]


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # of JAX, where another test has used it
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_is_not_kept_out_by_a_thread_that_it_does_not_have(store: SQLiteStore) -> None:
    with store._lock:
        forked = multiprocessing.get_context("fork").Process(target=lambda: store.append([told(3)]))
        thread = threading.Thread(target=forked.start)
        thread.start()
        thread.join(60)
    forked.join(60)
    assert forked.exitcode == 0
    assert len(store.read()) == 4


def test_what_an_exception_leaves_open_is_rolled_back(store: SQLiteStore) -> None:
    """The worst moment: a second one comes while the first is dealt with."""
    other = SQLiteStore(store.path)
    for use in (lambda: store.read(), lambda: store.append([told(9)]), lambda: store.check() or store.names()):
        length = len(other.read())
        assert store._connection is not None
        store._connection.execute("BEGIN IMMEDIATE")
        store._connection.execute("INSERT INTO events VALUES ('study', ?, NULL, x'00')", (length + 1,))
        store._section = None
        use()
        assert not store._connection.in_transaction
        assert other.append([told(9)]) == len(other.read())
    assert len(store.read()) == 7
    other.close()


def test_opening_that_is_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    def work() -> None:
        SQLiteStore(path).close()

    line = 0
    while interrupted(work, line):
        store = SQLiteStore(path)
        assert store.append([told(0)]) == 1
        store.close()
        for file in tmp_path.iterdir():
            file.unlink()
        line += 11
    assert line > 100


# -- files of strangers -------------------------------------------------------------------------------------------


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A study with three events, and a connection with which anything can be done to it."""
    with Study(SPACE, GOAL, store=tmp_path / "a.db") as study:
        job = study.ask()
        assert job is not None
        study.tell(job, {"loss": 0.5})
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    yield connection
    connection.close()


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'study', i, NULL, x'00' FROM n"


@pytest.mark.parametrize(
    "done",
    [
        ["ALTER TABLE events RENAME TO old", f"CREATE VIEW events (study, number, ask, body) AS {ENDLESS}"],
        ["DROP TABLE events", f"CREATE VIEW events (study, number, ask, body) AS {ENDLESS}"],
        ["CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END"],
        [f"CREATE VIEW more AS {ENDLESS}"],
        ["DROP TABLE events", "CREATE TABLE events (study, number, ask, body)"],
        ["DROP TABLE events", "CREATE TABLE events (study TEXT, number INTEGER, ask INTEGER, body BLOB, more TEXT)"],
        ["DROP INDEX asks"],
        ["DROP INDEX asks", "CREATE UNIQUE INDEX asks ON events (abs(number)) WHERE abs(ask) > 0"],
        ["DROP TABLE events"],
        ["PRAGMA application_id = 7"],
    ],
)
def test_what_is_no_study_is_refused_at_once(done: list[str], stranger: sqlite3.Connection, tmp_path: Path) -> None:
    for statement in done:
        stranger.execute(statement)
    stranger.execute("VACUUM")
    for open_it in (lambda: Study.open(tmp_path / "a.db"), lambda: Study(SPACE, GOAL, store=tmp_path / "a.db")):
        with pytest.raises(StoreError, match=r"not a tunesmith study|empty") as caught:
            open_it()
        assert "\n" not in str(caught.value)


DEEP = b'{"event":"told","ask":0,"trial":0,"start":0,"metrics":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("UPDATE events SET body = NULL WHERE number = 2", ()),
        ("UPDATE events SET body = 7 WHERE number = 2", ()),
        ("UPDATE events SET body = 'text' WHERE number = 2", ()),
        ("UPDATE events SET body = CAST(body AS TEXT) WHERE number = 2", ()),
        ("UPDATE events SET body = x'' WHERE number = 2", ()),
        ("UPDATE events SET body = x'ff' WHERE number = 2", ()),
        ("UPDATE events SET body = body || x'0a' || body WHERE number = 2", ()),
        ("UPDATE events SET body = ? WHERE number = 2", (DEEP,)),
        ("UPDATE events SET body = ? WHERE number = 1", (b'{"event":"opened","space":' + b'{"a":' * 5000,)),
        ("UPDATE events SET body = ? WHERE number = 2", (b'{"event":"told","ask":' + b"9" * 100_000 + b"}",)),
        ("UPDATE events SET number = 'two' WHERE number = 2", ()),
        ("UPDATE events SET number = 2.5 WHERE number = 2", ()),
        ("UPDATE events SET number = 9 WHERE number = 2", ()),
        ("UPDATE events SET number = 9223372036854775807 WHERE number = 3", ()),
        ("DELETE FROM events WHERE number = 1", ()),
        ("UPDATE events SET ask = 'none' WHERE number = 2", ()),
        ("UPDATE events SET ask = 1e300 WHERE number = 2", ()),
    ],
)
def test_rows_that_are_no_events_are_one_line(
    statement: str, values: tuple[object, ...], stranger: sqlite3.Connection, tmp_path: Path
) -> None:
    stranger.execute("PRAGMA ignore_check_constraints = ON")
    try:
        stranger.execute(statement, values)
    except sqlite3.IntegrityError:  # body is NOT NULL
        stranger.execute("PRAGMA writable_schema = ON")
        stranger.execute("UPDATE sqlite_master SET sql = replace(sql, 'body BLOB NOT NULL', 'body BLOB')")
    with pytest.raises(StoreError) as caught, Study.open(tmp_path / "a.db") as study:
        study.ask()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_values_of_any_size_are_one_line(
    stranger: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LONGEST", 1 << 20)
    stranger.execute("UPDATE events SET body = zeroblob(2000000) WHERE number = 2")
    with pytest.raises(StoreError, match="longer than 1 MiB"):
        Study.open(tmp_path / "a.db")
    stranger.execute("DELETE FROM events WHERE number > 1")
    with Study.open(tmp_path / "a.db") as study:
        with pytest.raises(StoreError, match="longer than 1 MiB"):
            study.store.append([Failed(0, 0, "x" * 2_000_000)])
        assert study.store.append([Failed(0, 0, "x")]) == 2


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = Path("/dev/zero")
    if kind == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    for create in (True, False):
        with pytest.raises(StoreError, match="no regular file"):
            SQLiteStore(path, create=create)


# -- text ---------------------------------------------------------------------------------------------------------


def test_text_that_is_no_text_is_escaped(tmp_path: Path) -> None:
    """What the doors of a study have let through must not end the run."""
    store = SQLiteStore(tmp_path / "a.db", "st\udcffudy")
    failed = Failed(0, 0, "no file 'caf\udce9.txt'")
    assert store.append([failed, Told(0, 0, 0, {"los\udcff": [1.0], "loss": [float("nan")]}, 0.5)]) == 2
    assert store.read() == [
        Failed(0, 0, "no file 'caf\\udce9.txt'"),
        Told(0, 0, 0, {"los\\udcff": [1.0], "loss": [None]}, 0.5),
    ]
    assert store.names() == ["st\\udcffudy"]
    store.close()
    strange = SQLiteStore(Path(f"{tmp_path}/caf\udce9.db"))
    assert strange.append([failed]) == 1
    strange.close()


@pytest.mark.parametrize("make", [lambda folder: MemoryStore(), lambda folder: SQLiteStore(folder / "a.db")])
def test_a_log_is_read_in_parts(make: Callable[[Path], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long log is never in memory as a whole, and what follows from it is the same."""
    store = make(tmp_path)
    with Study(SPACE, GOAL, store=store, trials=4) as study:
        while job := study.ask():
            study.tell(job, {"loss": job.config["x"]})
        events, rows, best = study.events(), study.to_dicts(), study.best
        assert store.read(2, 3) == events[2:5]
        assert store.read(len(events) - 1, 5) == events[-1:]
        assert store.read(len(events), 5) == []
        monkeypatch.setattr("tunesmith.log.CHUNK", 3)
        read: list[int] = []
        whole = type(store).read

        def noted(self: Store, after: int = 0, most: int | None = None) -> list[AnyEvent]:
            found = whole(self, after, most)
            read.append(len(found))
            return found

        monkeypatch.setattr(type(store), "read", noted)
        again = Study.open(store)
        assert again.to_dicts() == rows
        assert again.best is not None and best is not None and again.best.id == best.id
        assert max(read) == 3 and sum(read) == len(events)
        assert again.ask() is not None
        assert replay(again) == []
