"""A log in a SQLite file: one table, many studies, many processes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

import msgspec

from tunesmith.records import AnyEvent, Asked, decode, encode
from tunesmith.storage.base import StoreError

APPLICATION = 0x54554E45  #: "TUNE", in the header of every file of ours
VERSION = 1  #: version of the schema, in the header too
PATIENCE = 60.0  #: seconds to wait for other writers

_SCHEMA = f"""
CREATE TABLE events (
    study TEXT NOT NULL, number INTEGER NOT NULL, ask INTEGER, body BLOB NOT NULL,
    PRIMARY KEY (study, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX asks ON events (study, ask) WHERE ask IS NOT NULL;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""

#: the numbers of the last event and of the last ask; asks are numbered without gaps, so every lower one is taken
_LAST = """
SELECT coalesce((SELECT max(number) FROM events WHERE study = :study), 0),
       coalesce((SELECT max(ask) FROM events WHERE study = :study AND ask IS NOT NULL), -1)
"""


class SQLiteStore:
    """The events of the study ``name`` in the SQLite file ``path``.

    Write-ahead logging, so that readers never wait and a killed process loses nothing. ``synchronous=NORMAL``:
    after a power cut the file is consistent and may lack its last transactions. Safe for threads, for several
    processes, and across ``fork``.

    Raises:
        StoreError: the file is missing (``create=False``), is no SQLite file, belongs to another program or to a
            newer version of tunesmith, or can't be written.
    """

    def __init__(self, path: Path, name: str = "study", *, create: bool = True) -> None:
        self.path = path
        self.name = name
        self._create = create
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        with self._connected():
            pass

    def append(self, events: Sequence[AnyEvent], after: int | None = None) -> int:
        """See :meth:`tunesmith.storage.base.Store.append`."""
        bodies = [(event.ask if type(event) is Asked else None, _checked(event)) for event in events]
        asks = [ask for ask, _ in bodies if ask is not None]
        with self._writing() as connection:
            last, asked = connection.execute(_LAST, {"study": self.name}).fetchone()
            if (after is not None and after != last) or (asks and min(asks) <= asked):
                return 0
            rows = [(self.name, last + i, ask, body) for i, (ask, body) in enumerate(bodies, 1)]
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
            return int(last) + len(rows)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """See :meth:`tunesmith.storage.base.Store.exclusive`."""
        with self._writing():
            yield

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that keeps other writers out, or the one that is under way."""
        with self._connected() as connection:
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def read(self, after: int = 0) -> list[AnyEvent]:
        """See :meth:`tunesmith.storage.base.Store.read`."""
        query = "SELECT body FROM events WHERE study = ? AND number > ? ORDER BY number"
        with self._connected() as connection:
            rows = connection.execute(query, (self.name, after)).fetchall()
        if not rows:
            return []
        try:
            return decode(body for (body,) in rows)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise StoreError(f"{self.path}: an event of study {self.name!r} can't be read: {error}") from error

    def names(self) -> list[str]:
        """The studies in this file."""
        with self._connected() as connection:
            return [name for (name,) in connection.execute("SELECT DISTINCT study FROM events ORDER BY study")]

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The connection of this process, with SQLite's errors told as ours."""
        with self._lock:
            try:
                if self._connection is None or self._process != os.getpid():
                    self._connection, self._process = self._open(), os.getpid()
                yield self._connection
            except (sqlite3.DatabaseError, OSError) as error:
                raise StoreError(f"{self.path}: {_explain(error)}") from error

    def _open(self) -> sqlite3.Connection:
        if self.path.is_dir():
            raise StoreError(f"{self.path}: a folder can't be opened as a study, give the path of a file")
        if not self._create and not self.path.exists():
            raise StoreError(f"{self.path}: there is no such file")
        writable = os.access(self.path if self.path.exists() else self.path.parent, os.W_OK)
        if not writable and not self.path.exists():
            raise StoreError(f"{self.path}: the folder does not exist or can't be written")
        connection = self._connect("mode=rwc" if writable else "mode=ro")
        try:
            if not writable and not _can_look(connection):
                connection.close()
                connection = self._connect("mode=ro&immutable=1")
            if _tables(connection) == 0 and writable and self._create:
                _make(connection)
            self._check(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?{mode}"
        return sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False)

    def _check(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION:
            raise StoreError(f"{self.path}: this SQLite file is not a tunesmith study, give another path")
        if version != VERSION:
            raise StoreError(
                f"{self.path}: made by a newer tunesmith (schema {version}, this one reads {VERSION}); update tunesmith"
            )


def _tables(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return int(count)


def _can_look(connection: sqlite3.Connection) -> bool:
    """False in a read-only folder, where there is no place for the file of shared memory."""
    try:
        _tables(connection)
    except sqlite3.OperationalError:
        return False
    return True


def _make(connection: sqlite3.Connection) -> None:
    """Lay out an empty file, unless another process has just done so."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    if _tables(connection) == 0:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
    connection.execute("COMMIT")


def _checked(event: AnyEvent) -> bytes:
    """An event as JSON that will be understood when it is read again.

    Raises:
        ValueError: a part of it is of a wrong type.
    """
    try:
        body = encode(event)
        decode([body])
    except (msgspec.MsgspecError, NotImplementedError) as error:
        problem = str(error).replace("$[0].", "")
        raise ValueError(f"nothing was stored, for a part of {type(event).__name__} is wrong: {problem}") from None
    return body


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
    }
    return next((hint for key, hint in hints.items() if key in text), text)
