"""A sampler that picks the sampler, by the space and by how the study goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.hints import Options
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
    """The events so far, and the jobs that are out; and the state of the sampler in charge, as far as it was needed.

    A sampler is folded when it is asked. One that is not in charge any more, or that nobody asks, costs nothing.
    """

    space: Space
    goals: Sequence[Goal]
    constraints: Sequence[Constraint]
    duplicates: bool
    seed: int
    events: list[Event] = field(default_factory=list)
    running: dict[int, int] = field(default_factory=dict)  #: by trial: the step where its job ends
    trials: int = 0
    busiest: int = 0  #: most jobs that were out at once
    folded: tuple[Sampler[Any], Any, int] | None = None  #: a sampler, its state, and how many events this has been told


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


class Auto(Options, frozen=True):
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
        parts = [_counted(len(space.columns), "parameter"), _counted(len(goals), "goal"), _counted(workers, "job")]
        return GP(), f"the study has {parts[0]}, {parts[1]} and {parts[2]} at once; from trial {TRIALS:,} on it is TPE"

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> State:
        """Nothing has happened yet."""
        return State(space, tuple(goals), tuple(constraints), duplicates, int(rng.integers(2**63)))

    def tell(self, state: State, event: Event) -> State:
        """Keep the event, and count the jobs that are out."""
        state.events.append(event)
        if type(event) is Asked:
            state.trials = max(state.trials, event.trial + 1)
            state.running[event.trial] = event.until
            state.busiest = max(state.busiest, len(state.running))
        elif type(event) is Failed or (type(event) is Told and event.step >= state.running.get(event.trial, 0)):
            state.running.pop(event.trial, None)
        return state

    def ask(self, state: State, rng: np.random.Generator, until: int = 1) -> Point | None:
        """What the sampler in charge proposes."""
        sampler, inner = self.in_charge(state)
        return sampler.ask(inner, rng, until)

    def in_charge(self, state: State) -> tuple[Sampler[Any], Any]:
        """The sampler in charge, and its state after all events."""
        sampler, _ = self.choose(state.space, state.goals, state.trials, state.busiest)
        folded, state.folded = state.folded, None  # where an exception ends the fold, it begins anew the next time
        if folded is None or folded[0] != sampler:
            rng = np.random.default_rng(state.seed)
            inner = sampler.init(state.space, state.goals, rng, state.constraints, state.duplicates)
            folded = sampler, inner, 0
        _, inner, told = folded
        for event in state.events[told:]:
            inner = sampler.tell(inner, event)
        state.folded = sampler, inner, len(state.events)
        return sampler, inner
