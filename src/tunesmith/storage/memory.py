"""A log in the memory of this process."""

from __future__ import annotations

from collections.abc import Sequence
from threading import RLock

from tunesmith.records import AnyEvent, Asked, Changed
from tunesmith.storage.base import checked, follows


class MemoryStore:
    """Events in a list. Safe for threads; gone with the process."""

    def __init__(self) -> None:
        self._events: list[AnyEvent] = []
        self._counted = (0, 0, 0)  # of so many events: how many are asks, and the number of the last change
        self._lock = RLock()

    def append(self, events: Sequence[AnyEvent], after: int | None = None) -> int:
        """See :meth:`tunesmith.storage.base.Store.append`."""
        events = list(events)
        for event in events:
            checked(event)
        with self._lock:
            length, asks, changed = self._count()
            if (after is not None and after != length) or not follows(events, length, asks, changed):
                return 0
            self._events.extend(events)  # the only thing that changes: an interrupt comes before or after it
            return length + len(events)

    def read(self, after: int = 0, most: int | None = None) -> list[AnyEvent]:
        """See :meth:`tunesmith.storage.base.Store.read`."""
        return self._events[after : None if most is None else after + most]

    def exclusive(self) -> RLock:
        """See :meth:`tunesmith.storage.base.Store.exclusive`."""
        return self._lock

    def close(self) -> None:
        """Nothing to let go of."""

    def _count(self) -> tuple[int, int, int]:
        """The length of the log, how many of its events are asks, and the number of the last change."""
        length, asks, changed = self._counted
        for number, event in enumerate(self._events[length:], length + 1):
            asks += isinstance(event, Asked)
            changed = number if isinstance(event, Changed) else changed
        self._counted = len(self._events), asks, changed
        return self._counted
