"""The log of a study in its store, and what follows from it, kept true whatever is interrupted.

An exception may come at any line: Ctrl-C in a notebook, a full disk. What is folded then may hold half of an event, so
it is thrown away and folded anew from the store, which alone is the truth. Therefore what is in memory is marked as
torn *before* it is changed, and as whole only afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunesmith._collector import quiet
from tunesmith.decide import Decider
from tunesmith.definition import Given
from tunesmith.fold import Fold
from tunesmith.records import AnyEvent
from tunesmith.storage.base import Store, StoreError

CHUNK = 2000  #: events that are read at once: a long log is never in memory as a whole where nothing is decided


class Log:
    """The events of a study, and the state that follows from them.

    Args:
        store: where they are; closed if it can't be read.
        name: of the study, for errors.
        given: objects of the user, for what the log can't make again.

    Raises:
        StoreError: the store can't be read, or the log is damaged.
    """

    def __init__(self, store: Store, name: str, given: Given) -> None:
        self.store, self.name, self.given = store, name, given
        self._torn = True
        self._fold = Fold(given)
        self._decider: Decider | None = None
        try:
            self._read_all(hearing=False)
        except BaseException:
            store.close()
            raise

    @property
    def fold(self) -> Fold:
        """What follows from the events so far."""
        if self._torn:
            self._read_all(hearing=self._fold.hearing)
        return self._fold

    @property
    def decider(self) -> Decider:
        """Decides what is next. A log that was only looked at so far is read again, for sampler and scheduler."""
        fold = self.fold
        if not fold.hearing:
            self._read_all(hearing=True)
            fold = self._fold
        if self._decider is None or self._decider.fold is not fold or self._decider.given is not self.given:
            self._decider = Decider(fold, self.given)
        return self._decider

    def give(self, given: Given) -> None:
        """Further objects of the user."""
        self.given = given
        self._fold.given = given

    def sync(self) -> int:
        """Fold what others have written. Returns how many events that were."""
        events = self.store.read(self.fold.number)
        self._take(events)
        return len(events)

    def append(self, events: Sequence[AnyEvent], after: int | None = None) -> bool:
        """Write events and fold them, in the order of the log. False: others were first, nothing was written."""
        before = self.fold.number
        number = self.store.append(events, after)
        if number == before + len(events):
            self._take(events)
        elif number:
            self.sync()
        return number > 0

    def write_ahead(self, decide: Callable[[], Sequence[AnyEvent]]) -> bool:
        """Fold the events of one decision after the other, until there are none, and then write them all.

        Args:
            decide: gives the next events, from the fold and the decider as they are when this is called.

        Returns:
            False: others have written meanwhile, so nothing was written, and the state will be read anew.
        """
        fold, before = self.fold, self.fold.number
        ahead: list[AnyEvent] = []
        self._torn = True
        while events := decide():
            for event in events:
                fold.fold(event)
            ahead += events
        written = not ahead or self.store.append(ahead, after=before) > 0
        self._torn = not written
        return written

    def _take(self, events: Sequence[AnyEvent]) -> None:
        """Fold events that stand in the store."""
        self._torn = True
        _fold_all(self._fold, events, self.name)
        self._torn = False

    def _read_all(self, *, hearing: bool) -> None:
        """Fold the whole log anew."""
        fold = Fold(self.given, hearing=hearing)
        with quiet():
            while events := self.store.read(fold.number, CHUNK):
                _fold_all(fold, events, self.name)
        self._fold, self._decider = fold, None
        self._torn = False


def _fold_all(fold: Fold, events: Sequence[AnyEvent], name: str) -> None:
    take = fold.fold
    try:
        for event in events:
            take(event)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            f"study {name!r}: event {fold.number} makes no sense, the log is damaged: {error!r}"
        ) from error
