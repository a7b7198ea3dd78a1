"""A log in the memory of this process."""

from __future__ import annotations

from collections.abc import Sequence
from threading import RLock

from tunesmith.records import AnyEvent, Asked


class MemoryStore:
    """Events in a list. Safe for threads; gone with the process."""

    def __init__(self) -> None:
        self._events: list[AnyEvent] = []
        self._asks: set[int] = set()
        self._lock = RLock()

    def append(self, events: Sequence[AnyEvent], after: int | None = None) -> int:
        """See :meth:`tunesmith.storage.base.Store.append`."""
        asks = {event.ask for event in events if type(event) is Asked}
        with self._lock:
            if (after is not None and after != len(self._events)) or asks & self._asks:
                return 0
            self._asks |= asks
            self._events += events
            return len(self._events)

    def read(self, after: int = 0) -> list[AnyEvent]:
        """See :meth:`tunesmith.storage.base.Store.read`."""
        return self._events[after:]

    def exclusive(self) -> RLock:
        """See :meth:`tunesmith.storage.base.Store.exclusive`."""
        return self._lock

    def close(self) -> None:
        """Nothing to let go of."""
