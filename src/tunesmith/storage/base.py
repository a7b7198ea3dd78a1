"""What a store is, and how an address names one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from tunesmith.errors import TunesmithError
from tunesmith.records import AnyEvent


class StoreError(TunesmithError):
    """A store can't be opened, read or written; the message says why and what to do."""


@runtime_checkable
class Store(Protocol):
    """The log of one study: an append-only list of events, numbered 1, 2, 3, ... without gaps."""

    def append(self, events: Sequence[AnyEvent], after: int | None = None) -> int:
        """Append all events as one transaction, or none of them.

        Args:
            events: what to append, in order.
            after: append only if the log has exactly this many events.

        Returns:
            The number of the last event. 0 if nothing was appended, because the ask number of an ``Asked``
            is taken already or the log is not ``after`` events long.

        Raises:
            StoreError: the store can't be written.
        """
        ...

    def read(self, after: int = 0) -> list[AnyEvent]:
        """The events numbered ``after + 1, after + 2, ...``."""
        ...

    def exclusive(self) -> AbstractContextManager[object]:
        """Keep all other writers out while something is read, decided and appended."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


def open_store(address: str | os.PathLike[str] | Store | None, name: str, *, create: bool = True) -> Store:
    """The store of the study ``name`` at an address: None for memory, a path for SQLite.

    Args:
        address: None, a path, or a store, which is returned as it is.
        name: name of the study.
        create: make the file and the study if they don't exist; without it the store is opened for reading
            as far as the file's permissions allow no more.

    Raises:
        StoreError: there is no such file (``create=False``), or it can't be used.
    """
    from tunesmith.storage.memory import MemoryStore
    from tunesmith.storage.sqlite import SQLiteStore

    if address is None:
        return MemoryStore()
    if not isinstance(name, str) or not name:
        raise TypeError(f"the name of a study must be a string that is not empty, not {name!r}")
    if isinstance(address, (str, os.PathLike)):
        if "://" in str(address):
            raise StoreError(f"store {str(address)!r}: addresses are not supported, give the path of a SQLite file")
        return SQLiteStore(Path(address), name, create=create)
    if not isinstance(address, Store):
        raise TypeError(f"store must be the path of a file, a store, or None for memory, not {address!r}")
    return address
