"""What follows from the log of a study: its definition, its trials, what is queued, and what algorithms hear of it.

No code of the user runs here, and no sampler or scheduler: an event that follows from the log before it can be folded,
whatever these do. What is decided next stands in :mod:`tunesmith.decide`.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import msgspec

from tunesmith.definition import NOTHING, Given, StudyError, changed, fit
from tunesmith.records import (
    AnyEvent,
    Asked,
    Changed,
    Ended,
    Enqueued,
    Event,
    Failed,
    Limited,
    Noted,
    Opened,
    Stopped,
    Told,
)
from tunesmith.space import Config, Scalar, Space
from tunesmith.trials import Trial, Trials, open_ended, scoped

STANDING = 1000  #: steps at the most of which algorithms hear that a trial that has ended stands as it did


class News(NamedTuple):
    """An event that counts, and what samplers and schedulers hear of it.

    Attributes:
        number: of the event in the log.
        event: as it stands there.
        heard: one or two events, none where there is nothing to hear yet.
    """

    number: int
    event: Event
    heard: tuple[Event, ...]


class Fold:
    """The state of a study after ``number`` events.

    Args:
        given: objects of the user, for what the log can't make again.
        hearing: also note what samplers and schedulers hear, so that something can be decided.
    """

    def __init__(self, given: Given = NOTHING, *, hearing: bool = False) -> None:
        self.given = given
        self.hearing = hearing
        self.number = 0
        self.definition: Opened
        self.trials = Trials()
        self.queue: dict[int, Config] = {}
        """Configurations that someone wants to be tried, or parts of them, by the number of their event."""
        self.asks = 0
        self.started = 0
        """Trials that were started by asking, repeats among them: neither forks nor results added."""
        self.notes: dict[str, Scalar] = {}
        self.stopped: tuple[int, str] = (0, "")
        """The number of the last `Stopped`, and why."""
        self.limited: int | None = None
        """How many trials the last run was to start, in all."""
        self.news: list[News] = []
        self.changed = 0
        """The number of the last `Changed` of the space, to which configurations that were asked before are fitted."""
        self.added: set[int] = set()
        """Trials that are results which someone already had: no scheduler hears of them."""
        self._fills: Config = {}

    def fold(self, event: AnyEvent) -> None:
        """Take in the next event of the log.

        Raises:
            LookupError, ValueError, TypeError, AttributeError: it does not follow from the log before it.
        """
        self.number += 1
        kind = type(event)
        if kind is Told and not self.hearing:  # nearly all events of a log that is only looked at
            self.trials.told(event)  # type: ignore[arg-type]
        elif kind is Told or kind is Failed or kind is Ended:
            if self.trials.fold(event) and self.hearing:
                self.news.append(News(self.number, event, self._heard(event)))  # type: ignore[arg-type]
        elif kind is Asked:
            self._asked(event)  # type: ignore[arg-type]
        elif kind is Enqueued:
            self.queue[self.number] = event.config  # type: ignore[union-attr]
        elif kind is Opened:
            self._define(event)  # type: ignore[arg-type]
        elif kind is Changed:
            self._changed(event)  # type: ignore[arg-type]
        elif kind is Noted:
            self._noted(event)  # type: ignore[arg-type]
        elif kind is Limited:
            self.limited = event.trials  # type: ignore[union-attr]
        elif kind is Stopped:
            self.stopped = self.number, event.why  # type: ignore[union-attr]
        else:
            self.trials.fold(event)

    def _asked(self, event: Asked) -> None:
        self.asks += 1
        if event.trial == len(self.trials):
            self.started += event.parent is None and "added" not in event.tags
            if "added" in event.tags:
                self.added.add(event.trial)
            if "enqueued" in event.tags:
                self._unqueue(event)
        if self.trials.fold(event) and self.hearing:
            self.news.append(News(self.number, event, self._heard(event)))

    def _unqueue(self, event: Asked) -> None:
        """A queued configuration is tried. Older logs do not say which: the first one with these values."""
        number = event.queued
        if number is None:
            free = self.definition.space.fidelities
            number = next((number for number, config in self.queue.items() if all(
                name in free or event.config.get(name) == value for name, value in config.items()
            )), None)  # fmt: skip
        self.queue.pop(number, None)  # type: ignore[arg-type]

    def _noted(self, event: Noted) -> None:
        notes = self.notes if event.trial is None else self.trials[event.trial].notes
        notes.update(event.notes)

    def _define(self, definition: Opened) -> None:
        space = self.given.space(definition.space)
        self.definition = msgspec.structs.replace(definition, space=space)
        self.trials.goals = definition.goals
        self._scoped_goals = [goal for goal in definition.goals if goal.scope != "last"]
        try:
            self.trials.horizon = self.given.scheduler(definition.scheduler).horizon
        except (StudyError, AttributeError):  # a scheduler of the user's own, which is not at hand
            self.trials.horizon = None

    def _changed(self, event: Changed) -> None:
        """Go on with another definition, to which what was asked so far is fitted."""
        self._define(changed(self.definition, event))
        if event.space is None:
            return
        self.changed = self.number
        self._fills |= event.fill
        for trial in self.trials:
            trial.config = self.fitted(trial.asked)
            trial.measured = self.fitted(trial.measured)

    def fitted(self, asked: Config) -> Config:
        """A configuration that was asked, in the space of now: what it lacks has the value that a change gave it."""
        return fit(self.definition.space, asked, self._fills)

    def fitting(self, space: Space, fill: Config) -> list[Config]:
        """The configurations of all trials as a change to this space would make them."""
        return [fit(space, trial.asked, self._fills | fill) for trial in self.trials]

    # -- what algorithms hear -------------------------------------------------------------------------------------

    def _heard(self, event: Asked | Told | Ended | Failed) -> tuple[Event, ...]:
        """What samplers and schedulers hear of an event that was just folded.

        Values are those that the scope of a goal gives a step. A training that goes to its own end is one step of
        theirs; one that has ended before its job's last step has its last value at all later steps, too.
        """
        trial = self.trials[event.trial]
        if isinstance(event, Told) and not self._scoped_goals and not open_ended(trial.until):
            return (event,)
        if isinstance(event, Asked):
            if open_ended(event.until):
                event = msgspec.structs.replace(event, start=0, until=1)
            elif event.stands_at is not None:
                event = msgspec.structs.replace(event, start=event.stands_at)
            return (event,)
        if isinstance(event, Failed):
            return (event,)
        if open_ended(trial.until):
            return (self._stands(event, trial, 0, 1), event) if isinstance(event, Ended) else ()
        if isinstance(event, Ended):
            if trial.step < trial.until:
                return self._stands(event, trial, trial.step, trial.until), event
            return (event,)
        return (self._scoped(event, trial),)

    def _scoped(self, event: Told, trial: Trial) -> Told:
        metrics = dict(event.metrics)
        for goal in self._scoped_goals:
            count = len(event.metrics[goal.metric])
            metrics[goal.metric] = [*scoped(goal, trial.values(goal.metric)[1])[-count:]]
        return msgspec.structs.replace(event, metrics=metrics)

    def _stands(self, event: Ended, trial: Trial, start: int, until: int) -> Told:
        """What a trial that has ended is worth at the steps after ``start``; of very many only at the last ones."""
        owner, step, start = trial, trial.step, max(start, until - STANDING)
        while not owner.reports and owner.parent is not None:  # a fork that has ended at once has its parent's weights
            owner = self.trials[owner.parent]
        worth: dict[str, list[float | None]] = {}
        for name in dict.fromkeys(name for report in owner.reports for name in report.metrics):
            worth[name] = list(_until(step, *owner.values(name))[-1:])
        for goal in self.definition.goals:
            worth[goal.metric] = [*scoped(goal, _until(step, *owner.values(goal.metric)))[-1:]]
        metrics = {name: values * (until - start) for name, values in worth.items() if values}
        return Told(event.ask, event.trial, start, metrics)


def _until(step: int, steps: list[int], values: list[float]) -> list[float]:
    """The values up to a step."""
    return values[: bisect_right(steps, step)]
