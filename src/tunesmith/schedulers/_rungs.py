"""Rungs: the steps at which trials are compared, and who of them is among the best. All that halving schedulers share.

``ladder`` is the only place that computes rungs, ``Rung`` the only one that says who is promoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from tunesmith import check, pareto
from tunesmith.records import Constraint, Goal, Told, losses, violation

REFRESH = 50  #: of several goals the fronts are sorted again when there is one trial in so many more


def ladder(least: int, most: int, eta: int) -> tuple[int, ...]:
    """The steps of the rungs, ascending: ``most / eta^k`` rounded, as far as that is at least ``least``."""
    count = 1
    while most >= least * eta**count:
        count += 1
    return tuple(max(least, round(most / eta**k)) for k in reversed(range(count)))


def check_ladder(name: str, max_steps: int, min_steps: int, eta: int) -> None:
    """TypeError or ValueError where there are no such rungs."""
    check.whole(name, 2, eta=eta)
    check.whole(name, 1, min_steps=min_steps)
    check.integer(name, max_steps=max_steps)
    if max_steps < min_steps:
        raise ValueError(f"{name}: max_steps={max_steps} must be at least min_steps={min_steps}")


class Entry(NamedTuple):
    """How a trial stands at a rung; smaller is better where there is one goal.

    Attributes:
        broken: total by which outcome constraints are broken, 0 where all hold; inf where one is not known.
        losses: of all goals.
        trial: its number: of equal ones the older is better.
    """

    broken: float
    losses: tuple[float, ...]
    trial: int

    def beats(self, other: Entry) -> bool:
        """Whether it is better; with several goals whether it dominates the other one."""
        if self.broken != other.broken:
            return self.broken < other.broken
        return self.losses != other.losses and all(a <= b for a, b in zip(self.losses, other.losses, strict=True))


def entry(goals: Sequence[Goal], constraints: Sequence[Constraint], event: Told) -> Entry | None:
    """How a trial stands after the last step of an event; None where a goal was not told."""
    found = losses(goals, event.metrics)
    if any(loss != loss for loss in found):
        return None
    return Entry(violation(constraints, event.metrics), found, event.trial)


@dataclass(slots=True)
class Rung:
    """Trials that were compared at a step, and those of the best ``1 / eta`` that were not promoted yet.

    Everything is O(log n) for one goal, with the best and the rest in a heap each; for several goals see ``_Fronts``.

    Attributes:
        eta: the best ``count / eta``, rounded down, are promoted;
        least: but at least so many.
        count: of all trials that came, the failed included.
    """

    eta: int
    least: int = 0
    count: int = 0
    _top: list[Entry] = field(default_factory=list)  # negated: the worst first
    _rest: list[Entry] = field(default_factory=list)
    _open: list[Entry] = field(default_factory=list)  # heap of who has come to the top; some have left it since
    _offered: set[int] = field(default_factory=set)
    _taken: set[int] = field(default_factory=set)

    def add(self, one: Entry | None) -> None:
        """A trial has come to this rung; None: it has failed on the way, and is worse than all others."""
        self.count += 1
        if one is not None:
            if self._top and one < _negated(self._top[0]):
                self._enter(one)
                one = self._leave()
            heappush(self._rest, one)
        while len(self._top) < max(self.least, self.count // self.eta) and self._rest:
            self._enter(heappop(self._rest))
        self._tidy()

    def take(self, trial: int) -> None:
        """The trial goes on: it is not offered any more."""
        self._taken.add(trial)
        self._offered.discard(trial)
        self._tidy()

    @property
    def best(self) -> int | None:
        """The best trial that is to be promoted; None where there is none."""
        return self._open[0].trial if self._open else None

    @property
    def leader(self) -> Entry | None:
        """The best of those that have not gone on."""
        return min((one for one in self._rest if one.trial not in self._taken), default=None)

    @property
    def first(self) -> Entry | None:
        """The best of all that came here."""
        return min([*map(_negated, self._top), *self._rest], default=None)

    def promotes(self, trial: int) -> bool:
        """Whether the trial is to be promoted, or was."""
        return trial in self._offered or trial in self._taken

    def paused(self) -> list[int]:
        """The trials that are not promoted, but may be one day."""
        return [one.trial for one in self._rest if one.trial not in self._taken] + list(self._offered)

    def _enter(self, one: Entry) -> None:
        heappush(self._top, _negated(one))
        if one.trial not in self._taken:
            heappush(self._open, one)
            self._offered.add(one.trial)

    def _leave(self) -> Entry:
        worst = _negated(heappop(self._top))
        self._offered.discard(worst.trial)
        return worst

    def _tidy(self) -> None:
        while self._open and self._open[0].trial not in self._offered:
            heappop(self._open)


def _negated(one: Entry) -> Entry:
    """The other way round, so that a heap has the worst first; its own inverse."""
    broken, found, trial = one
    return Entry(-broken, tuple(-loss for loss in found), -trial)


@dataclass(slots=True)
class Fronts:
    """A rung of several goals: the fronts of non-dominated trials are promoted one after the other (Schmucker et al.
    2021, "Multi-objective asynchronous successive halving", arXiv:2106.12639). Of the front that fits only in part
    those go first that add most to the hypervolume. Trials that break a constraint come after all others.

    The attributes are those of ``Rung``. Fronts are sorted anew only when the trials have become more by one in
    ``REFRESH``: a sort of n trials is O(n log n) for two goals, which makes O(log n) a trial.
    """

    eta: int
    least: int = 0
    count: int = 0
    _all: list[Entry] = field(default_factory=list)
    _sorted: int = 0  # `count` at the last sort
    _top: dict[int, None] = field(default_factory=dict)  # the best first
    _taken: set[int] = field(default_factory=set)

    def add(self, one: Entry | None) -> None:
        """A trial has come to this rung; None: it has failed on the way."""
        self.count += 1
        if one is not None:
            self._all.append(one)
        if self.count > self._sorted + self._sorted // REFRESH:
            self._sort()

    def take(self, trial: int) -> None:
        """The trial goes on."""
        self._taken.add(trial)
        self._top.pop(trial, None)

    @property
    def best(self) -> int | None:
        """The best trial that is to be promoted."""
        return next(iter(self._top), None)

    @property
    def leader(self) -> Entry | None:
        """The best of those that have not gone on."""
        left = [one for one in self._all if one.trial not in self._taken]
        return left[_first(left, 1)[0]] if left else None

    @property
    def first(self) -> Entry | None:
        """The best of all that came here."""
        return self._all[_first(self._all, 1)[0]] if self._all else None

    def promotes(self, trial: int) -> bool:
        """Whether the trial is to be promoted, or was."""
        if self._sorted < self.count:
            self._sort()
        return trial in self._top or trial in self._taken

    def paused(self) -> list[int]:
        """The trials that are not promoted, but may be one day."""
        return [one.trial for one in self._all if one.trial not in self._taken]

    def _sort(self) -> None:
        self._sorted = self.count
        best = [self._all[row].trial for row in _first(self._all, max(self.least, self.count // self.eta))]
        self._top = {trial: None for trial in best if trial not in self._taken}


def _first(trials: Sequence[Entry], k: int) -> list[int]:
    """The best ``k`` of the trials, by front and then by hypervolume: their positions, the best front first."""
    values = np.array([one.losses for one in trials])
    broken = np.array([one.broken for one in trials])
    found: list[int] = []
    if not trials or k < 1:
        return found
    rank = np.zeros(len(trials), dtype=np.int64)
    fine = broken == 0
    rank[fine] = pareto.ranks(values[fine])
    rank[~fine] = len(trials) + pareto.ranks(broken[~fine, None])
    for level in np.unique(rank):
        rows = np.flatnonzero(rank == level)
        if len(found) + len(rows) > k:
            rows = rows[pareto.select(values[rows], pareto.reference(values), k - len(found))]
        found += rows.tolist()
        if len(found) >= k:
            break
    return found


def rung(goals: Sequence[Goal], eta: int, least: int = 0) -> Rung | Fronts:
    """An empty rung for one goal, or for several."""
    return Rung(eta, least) if len(goals) == 1 else Fronts(eta, least)
