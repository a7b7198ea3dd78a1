"""ASHA, asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), and asynchronous Hyperband.

Nobody waits for a rung to be full: a trial is promoted as soon as it is among the best ``1 / eta`` of those that have
come to its rung so far, and where there is none to promote, a new one begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tunesmith import check
from tunesmith.hints import Options
from tunesmith.records import Asked, Constraint, Ended, Event, Failed, Goal, Resume, Start, Told
from tunesmith.rng import Streams
from tunesmith.schedulers._rungs import Fronts, Rung, check_ladder, entry, ladder, rung
from tunesmith.schedulers._trust import Trust
from tunesmith.schedulers.base import Defaults
from tunesmith.space import Space


@dataclass(slots=True)
class State:
    """The rungs of every bracket, and where every trial is.

    Attributes:
        steps: of the ladder.
        brackets: by bracket and rung; bracket b begins at rung b of the ladder.
        places: by trial: its bracket, and the rung of the ladder that it is on its way to or stands on.
        out: trials that are being trained.
        trust: which rungs are trusted, where that is learned.
        full: trials that were trained to the last rung, and have not ended by themselves before it.
        going: of the stopping variant: trials that go on as soon as a worker is free, oldest decision first.
        started: how many trials have begun.
    """

    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...]
    steps: tuple[int, ...]
    brackets: list[list[Rung | Fronts]]
    trust: Trust | None = None
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    out: set[int] = field(default_factory=set)
    full: set[int] = field(default_factory=set)
    going: dict[int, None] = field(default_factory=dict)
    started: int = 0


class ASHA(Options, Defaults, frozen=True, tag="asha"):
    """Asynchronous successive halving.

    Args:
        max_steps: of a trial that comes to the end.
        min_steps: the steps of the first rung at least; ``max_steps / eta^k`` for the greatest k that this allows.
        eta: the rungs' steps grow, and their trials get fewer, by this factor.
        brackets: asynchronous Hyperband: so many brackets, each of which begins one rung higher than the one before.
            A new trial's bracket is drawn, in such shares that all cost about the same. ``"auto"``: new trials begin on
            the lowest rung that orders trials as their end does, which is learned from some that are trained in full
            (:mod:`tunesmith.schedulers._trust`); below it nobody is promoted or stopped. For curves of which you don't
            know whether they mislead.
        stopping: a trial that comes to a rung goes on at once if it is among the best ``1 / eta`` there (or the first),
            and is stopped for good otherwise. No trial is paused, so checkpoints are read only after a fault; but who
            came early, among few, goes on more easily, and who was stopped never gets a second chance.

    Trials that fail count as the worst of their rung. When no more trials can be started (``trials=``, or a finite
    space), promotion goes on among those that are there; if none has come to the end, the best one of the highest rung
    goes on. It also does where only trainings that have ended by themselves came there, and it is better than they are.
    """

    max_steps: int
    min_steps: int = 1
    eta: int = 3
    brackets: int | Literal["auto"] = 1
    stopping: bool = False

    def __post_init__(self) -> None:
        check_ladder("ASHA", self.max_steps, self.min_steps, self.eta)
        check.flag("ASHA", stopping=self.stopping)
        if self.brackets == "auto":
            if self.stopping:
                raise ValueError("ASHA: brackets='auto' pauses and promotes, so it can't be stopping=True")
        elif type(self.brackets) is not int or not 1 <= self.brackets <= len(self.rungs):
            raise ValueError(
                f"ASHA: brackets={self.brackets!r} must be 'auto', or from 1 to the number of rungs, {len(self.rungs)}"
            )

    @property
    def rungs(self) -> tuple[int, ...]:
        """The steps at which trials are compared."""
        return ladder(self.min_steps, self.max_steps, self.eta)

    @property
    def horizon(self) -> int:
        """The last step of a trial."""
        return self.max_steps

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> State:
        """Empty rungs.

        Raises:
            ValueError: rungs are to be trusted, and the space has fidelities, so that curves have no values for them.
        """
        steps, trust = self.rungs, None
        if self.brackets == "auto":
            if space.fidelities:
                raise ValueError("ASHA: brackets='auto' looks along whole trainings: with fidelities give a number")
            trust = Trust(steps, goals)
        count = len(steps) if self.brackets == "auto" else self.brackets
        brackets = [[rung(goals, self.eta, least=int(self.stopping)) for _ in steps] for _ in range(count)]
        return State(tuple(goals), tuple(constraints), steps, brackets, trust)

    def tell(self, state: State, event: Event) -> State:
        """Note who is on the way to which rung, and who has come there."""
        if type(event) is Asked:
            self._asked(state, event)
        elif isinstance(event, Told | Failed) and event.trial in state.out:
            self._came(state, event)
        elif isinstance(event, Ended) and event.step < self.max_steps:
            state.full.discard(event.trial)
        return state

    def _asked(self, state: State, event: Asked) -> None:
        bracket, k = state.places.pop(event.trial, (-1, -1))
        if bracket >= 0:
            state.brackets[bracket][k].take(event.trial)
            state.going.pop(event.trial, None)
        if event.until not in state.steps or event.parent is not None:
            return  # a job of the scheduler that was in charge before
        if state.trust is not None:
            state.trust.asked(event)
        k = state.steps.index(event.until)
        if bracket < 0:
            state.started += 1
            bracket = min(k, len(state.brackets) - 1)
        state.places[event.trial] = bracket, k
        state.out.add(event.trial)

    def _came(self, state: State, event: Told | Failed) -> None:
        bracket, k = state.places[event.trial]
        if state.trust is not None:
            state.trust.told(event) if isinstance(event, Told) else state.trust.failed(event.trial)
        if isinstance(event, Told) and event.step < state.steps[k]:
            return
        one = entry(state.goals, state.constraints, event) if isinstance(event, Told) else None
        state.brackets[bracket][k].add(one)
        state.out.remove(event.trial)
        if one is not None and k == len(state.steps) - 1:
            state.full.add(event.trial)
        over = one is None or k == len(state.steps) - 1
        if self.stopping and not over:
            over = not state.brackets[bracket][k].promotes(event.trial)
            if not over:
                state.going[event.trial] = None
        if over:
            del state.places[event.trial]

    def ask(self, state: State, streams: Streams, starts: bool = True, repeats: bool = True) -> Start | Resume | None:
        """A promotion, the highest rung first, or else a new trial."""
        trial = next(iter(state.going), None) if self.stopping else self._promotable(state)
        if trial is None and not starts:
            trial = self._last(state)
        if trial is not None:
            return Resume(trial, state.steps[state.places[trial][1] + 1])
        return Start(state.steps[self._bracket(state, streams)]) if starts else None

    def _promotable(self, state: State) -> int | None:
        first = 0 if state.trust is None else state.trust.first
        for k in reversed(range(first, len(state.steps) - 1)):
            for rungs in state.brackets:
                if rungs[k].best is not None:
                    return rungs[k].best
        return None

    def _last(self, state: State) -> int | None:
        """When all is told and nobody has come to the end: the best of the highest rung."""
        if state.out or self.stopping or state.full:
            return None
        came = [first for rungs in state.brackets if (first := rungs[-1].first) is not None]
        for k in reversed(range(len(state.steps) - 1)):
            for rungs in state.brackets:
                leader = rungs[k].leader
                if leader is not None and not any(one.beats(leader) for one in came):
                    return leader.trial
        return None

    def _bracket(self, state: State, streams: Streams) -> int:
        """The bracket of a new trial: drawn with the shares of trials that Hyperband's brackets have, or by trust."""
        most = len(state.steps)
        if state.trust is not None:
            return most - 1 if state.trust.wanted else state.trust.first
        if self.brackets == 1:
            return 0
        shares = np.array([self.eta ** (most - 1 - b) * most / (most - b) for b in range(len(state.brackets))])
        rng = streams.at("bracket", state.started)
        return int(rng.choice(len(shares), p=shares / shares.sum()))

    def keep(self, state: State) -> Iterable[tuple[int, int]]:
        """Where trials stand that may go on."""
        if self.stopping:
            yield from ((trial, state.steps[state.places[trial][1]]) for trial in state.going)
            return
        for rungs in state.brackets:
            for step, stand in zip(state.steps[:-1], rungs[:-1], strict=True):
                for trial in stand.paused():
                    yield trial, step
