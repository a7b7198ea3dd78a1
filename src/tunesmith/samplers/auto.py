"""A sampler that picks the sampler, by the space and by how the study goes."""

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

COLUMNS = 100  #: up to so many parameters a Gaussian process is in charge,
GOALS = 3  #: up to so many goals,
WORKERS = 64  #: up to so many jobs at once,
TRIALS = 1000  #: and for so many trials


@dataclass
class State:
    """The events so far, the jobs that are out, and the folded state of the sampler in charge."""

    space: Space
    goals: Sequence[Goal]
    constraints: Sequence[Constraint]
    seed: int
    sampler: Sampler[Any]
    inner: Any = None
    events: list[Event] = field(default_factory=list)
    running: dict[int, int] = field(default_factory=dict)  #: by trial: the step where its job ends
    trials: int = 0
    busiest: int = 0  #: most jobs that were out at once


class Auto(msgspec.Struct, frozen=True):
    """The sampler that the benchmarks speak for (``docs/benchmarks.md``), where they reach.

    A Gaussian process up to 100 parameters, 3 goals and 64 jobs at once, for the first 1,000 trials; else TPE.
    """

    def choose(
        self, space: Space, goals: Sequence[Goal], trials: int = 0, workers: int = 1
    ) -> tuple[Sampler[Any], str]:
        """The sampler in charge after so many trials with so many jobs at once, and the reason in a few words."""
        found = {"parameters": len(space.columns), "goals": len(goals), "jobs at once": workers, "trials": trials}
        limits = {"parameters": COLUMNS, "goals": GOALS, "jobs at once": WORKERS, "trials": TRIALS - 1}
        for what, limit in limits.items():
            if found[what] > limit:
                return TPE(), f"{found[what]:,} {what} are more than {limit:,}"
        limits["trials"] = TRIALS
        return GP(), "there are at most " + ", ".join(f"{limit:,} {what}" for what, limit in limits.items())

    def init(
        self, space: Space, goals: Sequence[Goal], rng: np.random.Generator, constraints: Sequence[Constraint] = ()
    ) -> State:
        """The first sampler, before the first event."""
        state = State(space, tuple(goals), tuple(constraints), int(rng.integers(2**63)), self.choose(space, goals)[0])
        self._begin(state)
        return state

    def tell(self, state: State, event: Event) -> State:
        """Fold the event; where another sampler takes over, all events into this one."""
        state.events.append(event)
        if type(event) is Asked:
            state.trials = max(state.trials, event.trial + 1)
            state.running[event.trial] = event.until
            state.busiest = max(state.busiest, len(state.running))
        elif type(event) is Failed or (type(event) is Told and event.step >= state.running.get(event.trial, 0)):
            state.running.pop(event.trial, None)
        sampler, _ = self.choose(state.space, state.goals, state.trials, state.busiest)
        if sampler == state.sampler:
            state.inner = sampler.tell(state.inner, event)
        else:
            state.sampler = sampler
            self._begin(state)
        return state

    def ask(self, state: State, rng: np.random.Generator, until: int = 1) -> Point | None:
        """What the sampler in charge proposes."""
        return state.sampler.ask(state.inner, rng, until)

    def _begin(self, state: State) -> None:
        rng = np.random.default_rng(state.seed)
        state.inner = state.sampler.init(state.space, state.goals, rng, state.constraints)
        for event in state.events:
            state.inner = state.sampler.tell(state.inner, event)
