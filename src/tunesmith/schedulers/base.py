"""The protocol of a scheduler, and what schedulers that train a configuration several times share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tunesmith.noise import Floats
from tunesmith.records import Asked, Constraint, Decision, Event, Failed, Goal, Told, losses, violation
from tunesmith.rng import Streams
from tunesmith.space import Space

S = TypeVar("S")


class Scheduler(Protocol[S]):
    """Which job is next. Hyperparameters stand in the object, frozen; the state is a separate record.

    A scheduler is a fold over the log: the same events give the same state, and ``ask`` never changes it.
    """

    repeats: ClassVar[bool]
    """Whether a ``Start`` may have the configuration of an earlier trial (a population, where the weights differ)."""

    @property
    def endless(self) -> bool:
        """Whether it always has another trial to start, so that something else must end the study."""
        ...

    @property
    def rungs(self) -> tuple[int, ...]:
        """The steps at which trials are compared, ascending, where there are such; fidelities grow with them."""
        ...

    @property
    def horizon(self) -> int | None:
        """The last step of a trial: nobody trains it any further. None where there is none."""
        ...

    @property
    def members(self) -> int | None:
        """How many trials train side by side, of a population; None for other schedulers."""
        ...

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> S:
        """The state before the first event."""
        ...

    def tell(self, state: S, event: Event) -> S:
        """The state after an ``Asked``, a ``Told`` or a ``Failed`` that ended its trial."""
        ...

    def ask(self, state: S, streams: Streams, starts: bool = True, repeats: bool = True) -> Decision | None:
        """The next job; None where there is nothing to do, now (while a job is out) or for good.

        Args:
            state: what has happened; ``ask`` never changes it.
            streams: randomness, by the name of what it is for: ``streams.at("exploit", trial, step)``. The name must
                belong to the decision, not to how many were decided before.
            starts: without it no ``Start`` will be carried out, since nothing new is left to try, or since as many
                trials as the user wants were started: is there anything else to do?
            repeats: without it no ``Repeat`` will be carried out either.
        """
        ...

    def keep(self, state: S) -> Iterable[tuple[int, int]]:
        """The checkpoints, as (trial, step), that a later ``Resume`` or ``Fork`` may start from."""
        ...

    def message(self, state: S) -> str:
        """Why there is nothing to do, where there is more to say than "all is done"; for people."""
        ...


class Defaults:
    """What most schedulers answer. A scheduler of your own may inherit it: ``class Mine(msgspec.Struct, Defaults)``."""

    repeats: ClassVar[bool] = False

    @property
    def endless(self) -> bool:
        """It always has another trial to start."""
        return True

    @property
    def rungs(self) -> tuple[int, ...]:
        """Trials are compared nowhere."""
        return ()

    @property
    def horizon(self) -> int | None:
        """A trial has no last step."""
        return None

    @property
    def members(self) -> int | None:
        """It is no population."""
        return None

    def keep(self, state: Any) -> Iterable[tuple[int, int]]:
        """No trial is ever continued."""
        return ()

    def message(self, state: Any) -> str:
        """There is nothing more to say."""
        return ""


@dataclass
class Runs:
    """How often each configuration was trained, and with what values of the first goal: one row a configuration.

    Configurations outside the space (since it was changed) and forks are passed over. A trial that breaks an outcome
    constraint counts as failed.

    Args:
        steps: the value of a trial is that at this step.
        owing: every configuration is owed so many trials, until it is given up.
        space, goals, constraints: of the study.

    Attributes:
        trials: by row, the first trial of the configuration.
        owed: the rows that are owed trials.
        total: all trials so far.
        extra: those of them that were not owed.
        short: by trial that has come to the end of its job, and not to ``steps``: where it stands. There are such after
            a change to more steps.
        worst: the greatest loss so far.
        begun, failed, counts, means, squares: [n], by row (views, not to be written): trials so far, with those that
            are out and those that have failed; those that have failed; and of those that have a value: how many, the
            mean of their losses, the sum of the squared deviations from it.
    """

    steps: int
    owing: int
    space: Space
    goals: Sequence[Goal]
    constraints: Sequence[Constraint]
    trials: list[int] = field(default_factory=list)
    owed: set[int] = field(default_factory=set)
    total: int = 0
    extra: int = 0
    short: dict[int, int] = field(default_factory=dict)
    worst: float = -math.inf
    _table: Floats = field(default_factory=lambda: np.zeros((5, 16)))
    _rows: dict[int, int] = field(default_factory=dict)  # by first trial
    _out: dict[int, int] = field(default_factory=dict)  # by trial that is out: its row
    _until: dict[int, int] = field(default_factory=dict)  # by trial that is out: where its job ends

    begun = property(lambda self: self._table[0, : len(self.trials)])
    failed = property(lambda self: self._table[1, : len(self.trials)])
    counts = property(lambda self: self._table[2, : len(self.trials)])
    means = property(lambda self: self._table[3, : len(self.trials)])
    squares = property(lambda self: self._table[4, : len(self.trials)])

    def tell(self, event: Event) -> None:
        """Fold an event."""
        self._note_end(event)
        if type(event) is Asked:
            if event.parent is None and event.start == 0 and self.space.contains(event.config):
                self._asked(event)
        elif type(event) is Failed or (type(event) is Told and event.start < self.steps <= event.step):
            row = self._out.pop(event.trial, None)
            if row is not None:
                self._ended(row, event)

    def _note_end(self, event: Event) -> None:
        """Where the jobs end, of which some are short of ``steps``."""
        if type(event) is Asked:
            self._until[event.trial] = event.until
            self.short.pop(event.trial, None)
        elif type(event) is Failed:
            self._until.pop(event.trial, None)
        elif type(event) is Told:
            until = self._until.get(event.trial)
            if until is not None and event.step >= until:
                del self._until[event.trial]
                if until < self.steps:
                    self.short[event.trial] = until

    def _asked(self, event: Asked) -> None:
        first = event.trial if event.repeat_of is None else event.repeat_of
        row = self._rows.setdefault(first, len(self.trials))
        if row == len(self.trials):
            self.trials.append(first)
            if row == self._table.shape[1]:
                self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
        self._out[event.trial] = row
        self.begun[row] += 1
        self.total += 1
        self.extra += bool(self.begun[row] > self.owing)
        self._settle(row)

    def _ended(self, row: int, event: Told | Failed) -> None:
        loss = self._loss(event) if isinstance(event, Told) else None
        if loss is None:
            self.failed[row] += 1
        else:  # Welford's update
            self.worst = max(self.worst, loss)
            count, mean, squares = self._table[2:, row].tolist()
            updated = mean + (loss - mean) / (count + 1)
            self._table[2:, row] = count + 1, updated, squares + (loss - mean) * (loss - updated)
        self._settle(row)

    def _loss(self, event: Told) -> float | None:
        """The value at ``steps``; None where a constraint is broken."""
        index = self.steps - event.start - 1
        broken = violation(self.constraints, event.metrics, index) > 0
        return None if broken else losses(self.goals, event.metrics, index)[0]

    def judged(self, rows: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """Counts, means and squared deviations of rows [k], where a failed trial counts as the worst value of all."""
        counts, means, squares, failed = self.counts[rows], self.means[rows], self.squares[rows], self.failed[rows]
        total = counts + failed
        share = np.where(failed > 0, failed / total, 0.0)
        gaps = np.where(failed > 0, self.worst - means, 0.0)
        return total, means + share * gaps, squares + counts * share * gaps**2

    def _settle(self, row: int) -> None:
        """Whether a row is owed trials now. It is given up when at least half of those that have ended have failed."""
        given_up = 0 < self.failed[row] >= self.counts[row]
        if self.begun[row] < self.owing and not given_up:
            self.owed.add(row)
        else:
            self.owed.discard(row)
