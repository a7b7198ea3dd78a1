"""A sampler that picks the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from tunesmith.records import Asked, Constraint, Event, Failed, Goal, Told
from tunesmith.samplers.base import Point, Sampler
from tunesmith.samplers.gp import GP
from tunesmith.samplers.tpe import TPE
from tunesmith.space import Space

TRIALS = 1000  #: up to so many trials a Gaussian process pays
COLUMNS = 60  #: up to so many parameters
GOALS = 3  #: up to so many goals
WORKERS = 64  #: up to so many jobs at once


@dataclass
class State:
    """The events so far and the folded state of the sampler that is in charge."""

    problem: tuple[Space, Sequence[Goal], Sequence[Constraint]]
    seed: int
    events: list[Event] = field(default_factory=list)
    trials: int = 0
    running: dict[int, int] = field(default_factory=dict)  #: jobs that are out: trial to the step where it ends
    busiest: int = 0
    sampler: Sampler[Any] | None = None
    inner: Any = None


class Auto(msgspec.Struct, frozen=True):
    """The sampler that the measurements in ``docs/benchmarks.md`` speak for, given the space and how the study goes.

    A Gaussian process; for more than 60 parameters, 3 goals or 64 jobs at once, and from 1,000 trials on, TPE.
    """

    def choose(
        self, space: Space, goals: Sequence[Goal], trials: int = 0, workers: int = 1
    ) -> tuple[Sampler[Any], str]:
        """The sampler in charge after so many trials, with so many jobs at once; and why, in a few words."""
        reasons = (
            (len(space.columns) > COLUMNS, f"{len(space.columns)} parameters are more than {COLUMNS}"),
            (len(goals) > GOALS, f"{len(goals)} goals are more than {GOALS}"),
            (workers > WORKERS, f"{workers} jobs at once are more than {WORKERS}"),
            (trials >= TRIALS, f"{trials} trials are at least {TRIALS}"),
        )
        for holds, reason in reasons:
            if holds:
                return TPE(), reason
        return GP(), f"up to {COLUMNS} parameters, {GOALS} goals, {WORKERS} jobs at once and {TRIALS} trials"

    def init(
        self, space: Space, goals: Sequence[Goal], rng: np.random.Generator, constraints: Sequence[Constraint] = ()
    ) -> State:
        """Nothing is told yet."""
        return self._settle(State((space, tuple(goals), tuple(constraints)), int(rng.integers(2**63))))

    def tell(self, state: State, event: Event) -> State:
        """Fold the event, after a change of the sampler all events anew."""
        state.events.append(event)
        if type(event) is Asked:
            state.trials = max(state.trials, event.trial + 1)
            state.running[event.trial] = event.until
            state.busiest = max(state.busiest, len(state.running))
        elif type(event) is Failed or (type(event) is Told and event.step >= state.running.get(event.trial, 0)):
            state.running.pop(event.trial, None)
        before = state.sampler
        self._settle(state)
        assert state.sampler is not None
        if state.sampler == before:
            state.inner = state.sampler.tell(state.inner, event)
        return state

    def ask(self, state: State, rng: np.random.Generator) -> Point | None:
        """What the sampler in charge proposes."""
        assert state.sampler is not None
        return state.sampler.ask(state.inner, rng)

    def _settle(self, state: State) -> State:
        """Put the right sampler in charge."""
        space, goals, constraints = state.problem
        sampler, _ = self.choose(space, goals, state.trials, state.busiest)
        if sampler != state.sampler:
            state.sampler = sampler
            state.inner = sampler.init(space, goals, np.random.default_rng(state.seed), constraints)
            for event in state.events:
                state.inner = sampler.tell(state.inner, event)
        return state
