"""Leases: how a driver that has vanished is noticed.

A driver keeps a file locked. The operating system drops the lock when the process dies, so on one machine this is
seen at once. For drivers on other machines, where locks may not reach, the file is touched every few seconds.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

_BEAT = 5.0  # seconds between two touches
_ID = re.compile(r"[\w.\-]+-\d+-[0-9a-f]{8}")


class Lease:
    """The lease of this driver, and a look at those of others. A context manager: at its end the file is removed.

    Args:
        folder: where all drivers of a study keep their leases; None where nobody else can work on the study.
        seconds: a driver on another machine that has not touched its file for so long has vanished.

    Attributes:
        id: name of this driver, unique: ``host-process-random``.
    """

    def __init__(self, folder: Path | None, seconds: float = 60.0) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.folder = None if folder is None else folder.absolute()  # training code may change the directory
        self.seconds = seconds
        self._ended = Event()
        self._file: int | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> Lease:
        if self.folder is not None:
            self._file = _create(self._path(self.id))
            self._thread = Thread(target=self._beat, name="tunesmith-lease", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread is None or self._file is None or self.folder is None:
            return
        self._thread.join()
        self._path(self.id).unlink(missing_ok=True)
        _locked.discard(self._file)
        os.close(self._file)
        with suppress(OSError):
            for path in self.folder.glob("*.lease"):
                self.vanished(path.stem)  # removes what a killed driver has left
            self.folder.rmdir()  # the last one turns off the light

    def vanished(self, worker: str) -> bool:
        """Whether the driver with this id is gone. False for this one, and for jobs that were asked without a lease."""
        if self.folder is None or worker == self.id or not _ID.fullmatch(worker):
            return False
        path = self._path(worker)
        try:
            if worker.rsplit("-", 2)[0] == socket.gethostname():
                return _unlocked(path)
            return self._now() - path.stat().st_mtime > self.seconds
        except FileNotFoundError:
            return True

    def others(self) -> bool:
        """Whether another driver is there."""
        workers = [] if self.folder is None else [path.stem for path in self.folder.glob("*.lease")]
        return any(worker != self.id and not self.vanished(worker) for worker in workers)

    def _path(self, worker: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{worker}.lease"

    def _now(self) -> float:
        """The time, by the clock that stamps the files."""
        assert self._file is not None
        os.utime(self._file)
        return os.fstat(self._file).st_mtime

    def _beat(self) -> None:
        while not self._ended.wait(min(_BEAT, self.seconds / 4)):
            with suppress(OSError):
                self._now()


def _create(path: Path) -> int:
    """A new file, locked. Until the lock holds, others may remove it, or the empty folder."""
    for _ in range(10):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink:
                _locked.add(file)
                return file
            os.close(file)
    raise FileNotFoundError(path)


def _unlocked(path: Path) -> bool:
    """Whether nobody holds the lock of a file; if so the file is removed."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with suppress(FileNotFoundError, PermissionError):
            path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def _let_go() -> None:
    """In a child that was forked: it has inherited the locks, and would hold them when this process is dead."""
    while _locked:
        os.close(_locked.pop())


_locked: set[int] = set()
os.register_at_fork(after_in_child=_let_go)
