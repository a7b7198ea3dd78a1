"""One scheduler after another: halving finds good trials, population based training goes on with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tunesmith.hints import Options
from tunesmith.records import Asked, Constraint, Decision, Ended, Event, Failed, Goal, Resume, Told
from tunesmith.rng import Streams
from tunesmith.schedulers import _population
from tunesmith.schedulers._rungs import Entry, entry
from tunesmith.schedulers._standing import Standing, ranked
from tunesmith.schedulers.asha import ASHA
from tunesmith.schedulers.base import Defaults
from tunesmith.schedulers.halving import Hyperband, SuccessiveHalving
from tunesmith.schedulers.pbt import PBT
from tunesmith.space import Space


@dataclass(slots=True)
class State:
    """The state of the first scheduler, and once it has ended that of the second.

    Attributes:
        out: trials that are being trained.
        asked: by trial that is out or has survived: its last job.
        survivors: those that came to the last rung, with what they were told there.
        ended: trials whose training has come to its end by itself.
    """

    space: Space
    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...]
    first: Any
    out: set[int] = field(default_factory=set)
    asked: dict[int, Asked] = field(default_factory=dict)
    survivors: list[tuple[Entry, Told]] = field(default_factory=list)
    ended: dict[int, Ended] = field(default_factory=dict)
    population: PBT | None = None
    then: _population.State | None = None


class Chain(Options, Defaults, frozen=True):
    """Halving first, then the best trials that came to its last rung go on as a population.

    Args:
        first: ``SuccessiveHalving``, ``Hyperband`` or ``ASHA``. It ends after its ``rounds``, or when no more trials
            can be started (``trials=``).
        then: ``PBT``, with ``steps`` beyond the first one's ``max_steps``; ``population`` is how many go on at most. An
            only survivor goes on by itself.
    """

    first: SuccessiveHalving | Hyperband | ASHA
    then: PBT

    def __post_init__(self) -> None:
        if not isinstance(self.first, SuccessiveHalving | Hyperband | ASHA) or not isinstance(self.then, PBT):
            raise TypeError(f"Chain: first={self.first!r} must be SuccessiveHalving, Hyperband or ASHA, and "
                            f"then={self.then!r} must be PBT")  # fmt: skip
        if self.then.steps <= self.first.max_steps:
            raise ValueError(
                f"Chain: then.steps={self.then.steps} must be over first.max_steps={self.first.max_steps}: the "
                "survivors go on from there"
            )

    @property
    def rungs(self) -> tuple[int, ...]:
        """The steps at which the first scheduler compares trials."""
        return self.first.rungs

    @property
    def horizon(self) -> int:
        """The last step of a trial."""
        return self.then.steps

    @property
    def members(self) -> int:
        """How many trials of the second one train side by side."""
        return self.then.members

    @property
    def endless(self) -> bool:
        """Whether the first one is."""
        return self.first.endless

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> State:
        """The first one's state.

        Raises:
            ValueError: the study has more goals than one of the two can rank by.
        """
        self.then.init(space, goals, constraints)
        first = self.first.init(space, goals, constraints)
        return State(space, tuple(goals), tuple(constraints), first)

    def tell(self, state: State, event: Event) -> State:
        """Fold the event into the scheduler in charge, and note who survives."""
        if type(event) is Asked:
            if state.then is None and (event.parent is not None or event.until not in self.rungs):
                state.population, state.then = self._begin(state)
            state.out.add(event.trial)
            state.asked[event.trial] = event
        elif isinstance(event, Ended):
            state.ended[event.trial] = event
        elif isinstance(event, Told | Failed) and event.trial in state.asked:
            self._told(state, event)
        if state.population is not None:
            state.then = state.population.tell(state.then, event)  # type: ignore[arg-type]
        else:
            state.first = self.first.tell(state.first, event)
        return state

    def _told(self, state: State, event: Told | Failed) -> None:
        asked = state.asked[event.trial]
        if isinstance(event, Told) and event.step < asked.until:
            return
        state.out.discard(event.trial)
        if isinstance(event, Told) and asked.until == self.first.max_steps:
            one = entry(state.goals, state.constraints, event)
            if one is not None:
                state.survivors.append((one, event))
        elif state.then is None and isinstance(event, Failed):
            del state.asked[event.trial]

    def _begin(self, state: State) -> tuple[PBT | None, _population.State | None]:
        """The population of the best survivors, each of which stands on the last rung."""
        waiting = self._waiting(state)
        survivors = {told.trial: told for _, told in waiting}
        standings = sorted(Standing(*one, slot=0, step=told.step) for one, told in waiting)
        best = [survivors[one.trial] for one in ranked(standings)[: self.then.population]]
        if len(best) < 2:
            return None, None
        population = msgspec.structs.replace(self.then, population=len(best))
        then = population.init(state.space, state.goals, state.constraints)
        for told in best:
            then = population.tell(population.tell(then, state.asked[told.trial]), told)
            if told.trial in state.ended:
                then = population.tell(then, state.ended[told.trial])
        return population, then

    def _waiting(self, state: State) -> list[tuple[Entry, Told]]:
        """The survivors that still stand on the last rung."""
        last, asked = self.first.max_steps, state.asked
        return [one for one in state.survivors if one[1].trial in asked and asked[one[1].trial].until == last]

    def _alone(self, state: State) -> Resume | None:
        """An only survivor has nobody to be compared with: it is trained to the end."""
        waiting = [told.trial for _, told in self._waiting(state)]
        if len(waiting) != 1 or waiting[0] in state.ended:
            return None
        return Resume(waiting[0], self.then.steps)

    def ask(self, state: State, streams: Streams, starts: bool = True, repeats: bool = True) -> Decision | None:
        """What the first one says until it has ended, then what the population does."""
        population, then = state.population, state.then
        if population is None:
            decision = self.first.ask(state.first, streams, starts, repeats)
            if decision is not None or state.out:
                return decision
            population, then = self._begin(state)
            if population is None:
                return self._alone(state)
        return None if population is None or then is None else population.ask(then, streams, starts, repeats)

    def keep(self, state: State) -> Iterable[tuple[int, int]]:
        """What the scheduler in charge may start from, and until the second one is, the survivors."""
        if state.population is not None and state.then is not None:
            return state.population.keep(state.then)
        return [*self.first.keep(state.first), *((told.trial, told.step) for _, told in self._waiting(state))]

    def message(self, state: State) -> str:
        """What the population has to say."""
        if state.population is None or state.then is None:
            return ""
        return state.population.message(state.then)
