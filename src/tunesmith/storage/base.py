"""What a store is, and how an address names one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import msgspec

from tunesmith.errors import TunesmithError, cleaned
from tunesmith.records import AnyEvent, Asked, Changed, decode, encode
from tunesmith.space import encode_hook


class StoreError(TunesmithError):
    """A store can't be opened, read or written; the message says why and what to do."""


class LostError(StoreError):
    """The file of a store was deleted or replaced while it was open.

    Attributes:
        what: has become of it.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; `store.rescue()` saves what the study has")
        self.what = what


@runtime_checkable
class Store(Protocol):
    """The log of one study: an append-only list of events, numbered 1, 2, 3, ... without gaps."""

    def append(self, events: Sequence[AnyEvent], after: int | None = None) -> int:
        """Append all events as one transaction, or none of them. When it returns, the events are written.

        Args:
            events: what to append, in order.
            after: append only if the log has exactly this many events.

        Returns:
            The number of the last event. 0 if nothing was appended, because the log is not ``after`` events long, or
            an ``Asked`` does not follow from it (see :func:`follows`).

        Raises:
            ValueError: a part of an event is of a wrong type.
            StoreError: the store can't be written.
        """
        ...

    def read(self, after: int = 0, most: int | None = None) -> list[AnyEvent]:
        """The events numbered ``after + 1, after + 2, ...``, of which there are ``most`` at the most."""
        ...

    def exclusive(self) -> AbstractContextManager[object]:
        """Keep all other writers out while something is read, decided and appended.

        What is appended inside is written at once, and stays if the section ends with an error.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


def follows(events: Sequence[AnyEvent], length: int, asks: int, changed: int) -> bool:
    """Whether every ``Asked`` among events follows from the log that they are to be appended to.

    Its ``ask`` must be the next free number, it must have seen no more than there is, and no later change of the
    study may be in the log: it was decided for the study as it was before.

    Args:
        events: what is to be appended.
        length: how many events the log has.
        asks: how many of them are ``Asked``.
        changed: the number of the last ``Changed`` among them, 0 where there is none.
    """
    for number, event in enumerate(events, length + 1):
        if isinstance(event, Changed):
            changed = number
        elif isinstance(event, Asked):
            if event.ask != asks or not changed <= event.seen < number:
                return False
            asks += 1
    return True


def checked(event: AnyEvent) -> bytes:
    """An event as JSON that will be understood when it is read again.

    Raises:
        ValueError: a part of it is of a wrong type.
    """
    try:
        body = _encoded(event)
        decode([body])
    except (msgspec.MsgspecError, NotImplementedError) as error:
        problem = str(error).replace("$[0].", "")
        raise ValueError(f"nothing was stored, for a part of {type(event).__name__} is wrong: {problem}") from None
    return body


def _encoded(event: AnyEvent) -> bytes:
    try:
        return encode(event)
    except UnicodeEncodeError:
        return msgspec.json.encode(cleaned(msgspec.to_builtins(event, enc_hook=encode_hook)))


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

    if not isinstance(name, str) or not name:
        raise TypeError(f"the name of a study must be a string that is not empty, not {name!r}")
    if address is None:
        return MemoryStore()
    if isinstance(address, (str, os.PathLike)):
        if "://" in str(address):
            raise StoreError(f"store {str(address)!r}: addresses are not supported, give the path of a SQLite file")
        return SQLiteStore(address, name, create=create)
    if not isinstance(address, Store):
        raise TypeError(f"store must be the path of a file, a store, or None for memory, not {address!r}")
    return address
