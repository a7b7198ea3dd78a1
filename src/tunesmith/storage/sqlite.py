"""A log in a SQLite file: one table, many studies, many processes.

An exception can come at any moment: Ctrl-C raises one between any two operations. What makes that harmless:

* An append is one transaction that is committed before it returns. Outside of an append an open transaction holds no
  data; all that it does is to keep others out.
* ``_section`` is the thread that keeps others out, and is set last. A transaction that is open while it is None was
  left by an exception, and is rolled back at the next use.
* What ends an exclusive section is SQLite's own context manager, and the locks are Python's. Both are written in C,
  where no exception can come between.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import count
from pathlib import Path
from threading import RLock, get_ident
from typing import Any, TypeVar
from weakref import WeakSet

from tunesmith.errors import clean
from tunesmith.records import AnyEvent, Asked, decode
from tunesmith.storage.base import LostError, StoreError, checked, follows

APPLICATION = 0x54554E45  #: "TUNE", in the header of every file of ours
VERSION = 1  #: version of the schema, in the header too
PATIENCE = 60.0  #: seconds to wait for other writers
LONGEST = 2**28  #: bytes of an event; a longer one is refused
_NAP = 0.05  # seconds that SQLite waits by itself for a lock, and between two looks
_FRESH = 2.0  # seconds for which a file that is still empty may be one that another process is just making

_TABLE = """
CREATE TABLE events (
    study TEXT NOT NULL, number INTEGER NOT NULL, ask INTEGER, body BLOB NOT NULL,
    PRIMARY KEY (study, number)
) WITHOUT ROWID
"""
_INDEX = "CREATE UNIQUE INDEX asks ON events (study, ask) WHERE ask IS NOT NULL"
_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?)"

#: the numbers of the last event and of the last ask; asks are numbered without gaps, so every lower one is taken
_LAST = """
SELECT coalesce((SELECT max(number) FROM events WHERE study = :study), 0),
       coalesce((SELECT max(ask) FROM events WHERE study = :study AND ask IS NOT NULL), -1)
"""

#: the number of the last change after an event
_CHANGED = """
SELECT coalesce(max(number), 0) FROM events WHERE study = :study AND number > :seen AND substr(body, 1, 18) = :changed
"""
_CHANGED_BEGINS = b'{"event":"changed"'

_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)

T = TypeVar("T")


class SQLiteStore:
    """The events of the study ``name`` in the SQLite file ``path``.

    Write-ahead logging, so that readers never wait and a killed process loses nothing. ``synchronous=NORMAL``:
    after a power cut the file is consistent and may lack its last transactions. Safe for threads, for several
    processes, and across ``fork``; an exception at any moment, such as Ctrl-C, leaves it usable.

    Args:
        path: the file. Training code may change the directory afterwards.
        name: which of the studies in the file.
        create: make the file and the study if they don't exist.

    Attributes:
        path: the file itself, absolute and without symbolic links: leases and checkpoints stand beside it, by whatever
            name a process has opened it.
        address: the same as it was given, for messages.

    Raises:
        StoreError: the file is missing (``create=False``), is no SQLite file, belongs to another program or to a
            newer version of tunesmith, or can't be written.
    """

    def __init__(self, path: str | os.PathLike[str], name: str = "study", *, create: bool = True) -> None:
        self.address = clean(os.fspath(path))
        try:
            self.path = Path(os.path.realpath(path))
        except OSError as error:
            raise StoreError(f"{self.address}: the present directory is gone, give an absolute path") from error
        self.name = clean(name)
        self._create = create
        self._lock = RLock()  # held for one operation, never between two
        self._connection: sqlite3.Connection | None = None
        self._section: int | None = None
        self._place: tuple[int, int] | None = None
        self._log: tuple[int, int] | None = None
        self._inherited: list[sqlite3.Connection] = []
        _stores.add(self)
        self._use(_is_empty)

    def append(self, events: Sequence[AnyEvent], after: int | None = None) -> int:
        """See :meth:`tunesmith.storage.base.Store.append`."""
        bodies = [checked(event) for event in events]
        return self._use_alone(lambda connection: self._append(connection, events, bodies, after))

    def exclusive(self) -> AbstractContextManager[object]:
        """See :meth:`tunesmith.storage.base.Store.exclusive`."""
        begun = False

        def begin(connection: sqlite3.Connection) -> AbstractContextManager[object]:
            nonlocal begun
            if connection.in_transaction:
                return nullcontext()  # a section in a section
            begun, self._section = True, None
            _execute(connection, "BEGIN IMMEDIATE")
            self._section = get_ident()
            return connection

        try:
            return self._use_alone(begin)
        except BaseException:
            if begun:
                self._section = None
                self._use(_roll_back)
            raise

    def read(self, after: int = 0, most: int | None = None) -> list[AnyEvent]:
        """See :meth:`tunesmith.storage.base.Store.read`."""
        query = "SELECT number, body FROM events WHERE study = ? AND number > ? ORDER BY number LIMIT ?"
        values = (self.name, after, -1 if most is None else most)
        rows = self._use(lambda connection: _execute(connection, query, values).fetchall())
        if not rows:
            return []
        try:
            numbers, bodies = zip(*rows, strict=True)
            if numbers != tuple(range(after + 1, after + 1 + len(rows))):
                raise ValueError("events are missing, or their numbers are wrong")
            events = decode(bodies)
            if len(events) != len(rows):
                raise ValueError("one of them is none, or more than one")
        except Exception as error:  # whatever a file of a stranger may do to the decoder
            problem = "it is too deep" if isinstance(error, RecursionError) else error
            raise StoreError(f"{self.address}: an event of study {self.name!r} can't be read: {problem}") from error
        return events

    def names(self) -> list[str]:
        """The studies in this file."""
        query = "SELECT DISTINCT study FROM events WHERE typeof(study) = 'text' ORDER BY study"
        return [name for (name,) in self._use(lambda connection: _execute(connection, query).fetchall())]

    def check(self) -> None:
        """See whether the file is still where it was; ``rescue`` saves what it held.

        Raises:
            LostError: it was deleted, or another file is there.
        """
        with self._lock:
            problem = self._problem()
        if problem:
            raise LostError(problem)

    def rescue(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write all that can still be read, of every study, into a new file.

        The open file is read, whatever has become of its name.

        Args:
            path: the new file; by default ``study.rescued.db`` beside ``study.db``, or ``study.rescued-2.db``, ...

        Returns:
            The new file.

        Raises:
            StoreError: the file isn't open (any more), or the new one is there already or can't be written.
        """
        with self._lock:
            source = self._connection
            if source is None:
                raise StoreError(f"{self.address}: nothing can be rescued, the file is not open")
            target = self._beside() if path is None else Path(path).absolute()
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.open("x").close()
            except OSError as error:
                raise StoreError(
                    f"{target}: what {self.address} held can't be written there: {error.strerror}"
                ) from error
            rescued = SQLiteStore(target, self.name)
            rescued._use(lambda connection: _copy(source, connection))
            rescued.close()
            return target

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    # -- one operation ----------------------------------------------------------------------------------------------

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the connection, with SQLite's errors told as ours."""
        try:
            with self._lock:
                return work(self._connected())
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.address}: {_explain(error)}") from error

    def _use_alone(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The same, once no other thread is in an exclusive section."""
        until = time.monotonic() + PATIENCE
        while True:
            with self._lock:
                connection = self._use(lambda connection: connection)
                if not connection.in_transaction or self._section == get_ident():
                    return self._use(work)
            if time.monotonic() > until:
                raise StoreError(f"{self.address}: another thread has kept the study to itself for {PATIENCE:.0f} s")
            time.sleep(_NAP)

    def _append(
        self, connection: sqlite3.Connection, events: Sequence[AnyEvent], bodies: Sequence[bytes], after: int | None
    ) -> int:
        """One transaction; in an exclusive section the one that keeps others out, and then another."""
        problem = self._problem()
        if problem and self.path.exists():  # what is written to a file that has no name any more disturbs nobody
            raise LostError(problem)
        inside = connection.in_transaction
        self._section = None
        try:
            if not inside:
                _execute(connection, "BEGIN IMMEDIATE")
            number = self._insert(connection, events, bodies, after)
            if number:
                _execute(connection, "COMMIT")
                self._log = self._log or _place(self._log_path)  # made when it is first written
            elif not inside:
                _roll_back(connection)
        except BaseException:
            with suppress(sqlite3.Error):  # then it is rolled back at the next use
                _roll_back(connection)
            raise
        if inside:
            if number:
                with suppress(sqlite3.OperationalError):  # another process was faster: the section is over
                    connection.execute("BEGIN IMMEDIATE")
            self._section = get_ident()
        if problem:
            raise LostError(problem)
        return number

    def _insert(
        self, connection: sqlite3.Connection, events: Sequence[AnyEvent], bodies: Sequence[bytes], after: int | None
    ) -> int:
        length, asked = _execute(connection, _LAST, {"study": self.name}).fetchone()
        if type(length) is not int or type(asked) is not int:
            raise StoreError(f"{self.address}: the numbers of study {self.name!r} are wrong: the file is damaged")
        if after is not None and after != length:
            return 0
        seen = [event.seen for event in events if isinstance(event, Asked)]
        if seen:
            found = {"study": self.name, "seen": min(seen), "changed": _CHANGED_BEGINS}
            (changed,) = _execute(connection, _CHANGED, found).fetchone()
            if not follows(events, length, asked + 1, changed):
                return 0
        asks = [event.ask if isinstance(event, Asked) else None for event in events]
        rows = zip(asks, bodies, strict=True)
        connection.executemany(_INSERT, [(self.name, n, ask, body) for n, (ask, body) in enumerate(rows, length + 1)])
        return length + len(bodies)

    # -- the connection ---------------------------------------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        """The connection of this process, without what an exception may have left in it."""
        if self._connection is not None and self._connection.in_transaction and self._section is None:
            try:
                _roll_back(self._connection)
            except sqlite3.Error:
                self.close()
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        there = self.path.exists()
        if self.path.is_dir():
            raise StoreError(f"{self.address}: a folder can't be opened as a study, give the path of a file")
        if there and not self.path.is_file():
            raise StoreError(f"{self.address}: this is no regular file, give another path")
        if self._place is not None and _place(self.path) != self._place:
            raise StoreError(
                f"{self.address}: the file was {'replaced' if there else 'deleted'} since it was opened first"
            )
        if not self._create and not there:
            raise StoreError(f"{self.address}: there is no such file")
        writable = os.access(self.path if there else self.path.parent, os.W_OK)
        if not writable and not there:
            raise StoreError(f"{self.address}: the folder does not exist or can't be written")
        make = writable and self._create and self._place is None
        connection = self._connect("mode=rwc" if make else "mode=rw" if writable else "mode=ro")
        try:
            if not writable and not _can_look(connection):
                connection.close()
                connection = self._connect("mode=ro&immutable=1")
            place = _place(self.path)
            self._prepare(connection, make)
            self._place, self._log = place, _place(self._log_path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.as_uri()}?{mode}"
        return sqlite3.connect(uri, uri=True, timeout=_NAP, isolation_level=None, check_same_thread=False)

    def _prepare(self, connection: sqlite3.Connection, make: bool) -> None:
        """Lay out an empty file, if it is ours to do; see that it is a study, and set how it is used."""
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        _execute(connection, "PRAGMA trusted_schema = OFF")
        if make:
            _lay_out(connection)
        while _is_empty(connection) and 0 <= time.time() - self.path.stat().st_mtime < _FRESH:
            time.sleep(_NAP)
        self._check_schema(connection)
        if make and _execute(connection, "PRAGMA journal_mode").fetchone() != ("wal",):
            _execute(connection, "PRAGMA journal_mode = WAL")
        _execute(connection, "PRAGMA synchronous = NORMAL")

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        """See that the file is a study, and holds nothing that would run when it is read or written."""
        (application,) = _execute(connection, "PRAGMA application_id").fetchone()
        (version,) = _execute(connection, "PRAGMA user_version").fetchone()
        if _is_empty(connection):
            raise StoreError(f"{self.address}: the file is empty, there is no study in it")
        if application != APPLICATION:
            raise StoreError(f"{self.address}: this SQLite file is not a tunesmith study, give another path")
        if version != VERSION:
            raise StoreError(
                f"{self.address}: made by a newer tunesmith (schema {version}, this one reads {VERSION}); "
                "update tunesmith"
            )
        found = _execute(connection, "SELECT type, name, sql FROM sqlite_master").fetchall()
        parts = {(kind, name): " ".join(str(sql).split()) for kind, name, sql in found}
        foreign = [f"the {kind} {name!r}" for kind, name in parts if kind not in ("table", "index")]
        wanted = {("table", "events"): " ".join(_TABLE.split()), ("index", "asks"): _INDEX}
        foreign += [
            f"another {kind} {name!r}" for (kind, name), sql in wanted.items() if parts.get((kind, name)) != sql
        ]
        if foreign:
            raise StoreError(f"{self.address}: this SQLite file is not a tunesmith study, it has {', '.join(foreign)}")

    # -- the file on disk -------------------------------------------------------------------------------------------

    @property
    def _log_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    def _problem(self) -> str:
        """What has become of the file since it was opened; "" if it is where it was."""
        for path, place in ((self.path, self._place), (self._log_path, self._log)):
            found = _place(path) if place is not None and self._connection is not None else place
            if found != place:
                how = "deleted" if found is None else "replaced by another file"
                name = self.address if path == self.path else path.name
                return f"{name}: {how} while the study was open"
        return ""

    def _beside(self) -> Path:
        """A name for a new file beside this one."""
        for number in count(1):
            suffix = ".rescued" if number == 1 else f".rescued-{number}"
            path = self.path.with_name(f"{self.path.stem}{suffix}{self.path.suffix}")
            if not path.exists():
                return path
        raise AssertionError


def _execute(connection: sqlite3.Connection, statement: str, values: Any = ()) -> sqlite3.Cursor:
    """Execute a statement, again and again while another process keeps the file locked."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return connection.execute(statement, values)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _LOCKED or time.monotonic() > until:
                raise
        time.sleep(_NAP / 10)  # not for every lock does SQLite wait by itself


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = _execute(connection, "SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = _execute(connection, "PRAGMA application_id").fetchone()
    return (tables, application) == (0, 0)


def _can_look(connection: sqlite3.Connection) -> bool:
    """False in a read-only folder, where there is no place for the file of shared memory."""
    try:
        _is_empty(connection)
    except sqlite3.OperationalError:
        return False
    return True


def _lay_out(connection: sqlite3.Connection) -> None:
    """Make the table in an empty file, unless another process has just done so."""
    if not _is_empty(connection):
        return
    _execute(connection, "BEGIN IMMEDIATE")
    if _is_empty(connection):
        for statement in (_TABLE, _INDEX, f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {VERSION}"):
            connection.execute(statement)
    _execute(connection, "COMMIT")


def _copy(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Copy the events of all studies, of each those before the first that can't be read."""
    target.execute("BEGIN IMMEDIATE")
    for study in _readable(_studies(source)):
        rows = source.execute("SELECT study, number, ask, body FROM events WHERE study = ? ORDER BY number", (study,))
        target.executemany(_INSERT, _readable(rows))
    target.execute("COMMIT")


def _studies(source: sqlite3.Connection) -> Iterator[str]:
    """The names of all studies, found without reading their events."""
    found = source.execute("SELECT min(study) FROM events").fetchone()
    while found[0] is not None:
        yield found[0]
        found = source.execute("SELECT min(study) FROM events WHERE study > ?", found).fetchone()


def _readable(rows: Iterable[T]) -> Iterator[T]:
    with suppress(sqlite3.Error):
        yield from rows


def _place(path: Path) -> tuple[int, int] | None:
    """Which file stands at a path: its device and its number there, whatever it is called; None if there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _explain(error: Exception) -> str:
    text = str(error)
    hints = {
        "not a database": "this is no SQLite file, give another path",
        "readonly": "the file can't be written: open it with Study.open to read it, or mend its permissions",
        "disk is full": "the disk is full: free some space and go on; nothing that was told before is lost",
        "disk I/O": "the disk can't be written (full, or a quota): free some space and go on",
        "locked": f"another process has kept the file locked for {PATIENCE:.0f} s",
        "unable to open": "the file can't be opened: is its folder there, and may it be read?",
        "malformed": "the file is damaged; `sqlite3 FILE .recover` may save its events",
        "too big": f"an event is longer than {LONGEST >> 20} MiB",
    }
    return next((hint for key, hint in hints.items() if key in text), text)


def _begin_anew() -> None:
    """In a child that was forked: a thread that is not here may hold a lock, and the connections are the parent's."""
    for store in _stores:
        store._lock, store._section = RLock(), None
        if store._connection is not None:
            store._inherited.append(store._connection)  # never closed: that would disturb the parent
            store._connection = None


_stores: WeakSet[SQLiteStore] = WeakSet()
os.register_at_fork(after_in_child=_begin_anew)
