"""What all kinds of populations share: places, rungs, who trains next, and what becomes of a place whose trial failed.

Every multiple of ``ready`` is a *rung*. A member at step t is compared with those that have come to step t, by what
they were worth there, and copies a state of step t. A kind of population says what a member does there (``_decide``).
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import ClassVar

import msgspec
import numpy as np

from tunesmith.records import Asked, Constraint, Decision, Event, Failed, Fork, Goal, Resume, Start, Told, losses
from tunesmith.schedulers._explore import Explore, Perturb
from tunesmith.schedulers._rungs import entry
from tunesmith.schedulers._standing import Gain, Past, Standing, ranked
from tunesmith.space import Config, Space


@dataclass(slots=True)
class Slot:
    """A place in the population, and the trial that holds it now."""

    trial: int
    until: int
    config: Config
    origin: tuple[int, int] | None = None
    """Trial and step of the last good state of these weights: what was last told, or what was forked."""
    standing: Standing | None = None
    recent: tuple[float, ...] = ()
    running: bool = True
    began: tuple[int, tuple[float, ...]] | None = None
    """Step and losses at which the present interval began, as far as they are known."""
    failures: int = 0
    """Of this place in a row."""
    returns: int = 0
    """How often this place went back to an earlier rung."""


@dataclass(slots=True)
class State:
    """The population, folded from the log."""

    space: Space
    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...] = ()
    slots: list[Slot] = field(default_factory=list)
    slot_of: dict[int, int] = field(default_factory=dict)
    rungs: dict[int, list[Standing]] = field(default_factory=dict)
    """By step: how the members stood there, sorted."""
    places: Counter[int] = field(default_factory=Counter)
    """How many slots have their last good state at which step."""
    configs: dict[int, Config] = field(default_factory=dict)
    """Configuration of every trial on a rung or in a slot."""
    idle: list[tuple[int, int, int]] = field(default_factory=list)
    """Heap of (step, order, slot): who is furthest behind."""
    vacant: list[int] = field(default_factory=list)
    gains: list[Gain] = field(default_factory=list)
    """What the intervals of training were worth; empty where ``explore`` does not learn from it."""
    floor: int = 0
    """Every slot has come to this step."""
    tellings: int = 0
    restarts: int = 0
    strikes: int = 0
    """Failures since the last success."""


class Population(msgspec.Struct, frozen=True, kw_only=True):
    """A population that trains in parallel; kinds of it are subclasses.

    Args:
        population: members.
        ready: steps between two decisions of a member.
        steps: steps that every member's weights are trained for.
        explore: how to change hyperparameters after copying: ``Perturb``, ``Jitter``, ``PB2``; None: not at all.
        synchronous: decide only when all members have come to a multiple of ``ready``; the study is then the same
            however many workers there are and in whatever order they finish. Otherwise nobody waits.
    """

    population: int
    ready: int
    steps: int
    explore: Explore | None = Perturb()
    synchronous: bool = False
    repeats: ClassVar[bool] = True
    endless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.population < 2:
            raise ValueError(f"{name}: population={self.population} must be at least 2")
        if self.ready < 1:
            raise ValueError(f"{name}: ready={self.ready} must be at least 1")
        if self.steps < self.ready:
            raise ValueError(f"{name}: steps={self.steps} must be at least ready={self.ready}")

    @property
    def window(self) -> int:
        """How many of the last losses a standing has."""
        return 0

    @property
    def learns(self) -> bool:
        """Whether ``explore`` goes by what intervals of training were worth."""
        return self.explore is not None and self.explore.learns

    @property
    def depth(self) -> int:
        """How many steps below the last rung that all have passed rungs are remembered."""
        return 0

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> State:
        """An empty population."""
        return State(space, tuple(goals), tuple(constraints))

    def _decide(self, state: State, member: Standing, rng: np.random.Generator) -> Decision:
        """What a member does on its rung."""
        raise NotImplementedError

    def _peers(self, state: State, slot: int, step: int) -> Sequence[Standing]:
        """Who stood on a rung of those by whom a member of this slot may be replaced, the best first."""
        return ranked(state.rungs.get(step, []))

    # -- tell: fold an event into the population

    def tell(self, state: State, event: Event) -> State:
        """Note who trains, who is worth what, who failed."""
        if isinstance(event, Told):
            self._told(state, event)
        elif isinstance(event, Asked):
            self._asked(state, event)
        elif isinstance(event, Failed):
            index = state.slot_of[event.trial]
            slot = state.slots[index]
            slot.running, slot.standing = False, None
            slot.failures += 1
            self._note_gain(state, slot, slot.until, None)
            state.vacant.append(index)
            state.strikes += 1
        return state

    def _asked(self, state: State, event: Asked) -> None:
        slot = state.slot_of.get(event.trial)
        if slot is not None:  # resumed
            member = state.slots[slot]
            member.running, member.until = True, event.until
            if self.learns and member.standing is not None:
                member.began = member.standing.step, member.standing.losses
            return
        member = Slot(event.trial, event.until, event.config)
        if event.replaces is not None:
            slot = state.slot_of.pop(event.replaces)
        elif state.vacant:
            slot = state.vacant[0]
            del state.slot_of[state.slots[slot].trial]
            state.restarts += 1
        else:
            slot = len(state.slots)
            state.slots.append(member)
            state.places[0] += 1
        if slot in state.vacant:
            state.vacant.remove(slot)
        before, state.slots[slot] = state.slots[slot], member
        member.origin, member.failures, member.returns = before.origin, before.failures, before.returns
        state.slot_of[event.trial] = slot
        state.configs[event.trial] = event.config
        if event.parent is not None:
            self._forked(state, member, slot, event.parent, event.start)

    def _forked(self, state: State, member: Slot, slot: int, parent: int, start: int) -> None:
        """A place is gone on with from these weights; where that is further back, it leaves the later rungs."""
        if self.learns:
            sources = (one.losses for one in state.rungs.get(start, []) if one.trial == parent)
            member.began = next(((start, found) for found in sources), None)
        if member.origin is not None and start < member.origin[1]:
            member.returns += 1
            for step in [step for step in state.rungs if step > start]:
                state.rungs[step] = [one for one in state.rungs[step] if one.slot != slot]
        self._reached(state, member, (parent, start))

    def _told(self, state: State, event: Told) -> None:
        slot = state.slot_of[event.trial]
        member = state.slots[slot]
        step = event.step
        count = step - event.start
        if self.window:
            told = tuple(losses(state.goals, event.metrics, i)[0] for i in range(max(0, count - self.window), count))
            member.recent = (member.recent + told)[-self.window :]
        if self.learns and member.began is None and count:
            member.began = event.start + 1, losses(state.goals, event.metrics, 0)
        if step < member.until:
            return
        found = entry(state.goals, state.constraints, event)
        broken, values = (math.inf, (math.inf,) * len(state.goals)) if found is None else found[:2]
        member.standing = Standing(broken, values, event.trial, slot, step, member.recent)
        member.running, member.failures = False, 0
        state.strikes = 0
        state.tellings += 1
        self._note_gain(state, member, step, values)
        heappush(state.idle, (step, 0 if self.synchronous else state.tellings, slot))
        insort(state.rungs.setdefault(step, []), member.standing)
        self._reached(state, member, (event.trial, step))

    def _note_gain(self, state: State, slot: Slot, until: int, after: tuple[float, ...] | None) -> None:
        if slot.began is not None and slot.began[0] < until:
            state.gains.append(Gain(slot.began[0], until, slot.config, slot.began[1], after))

    def _reached(self, state: State, member: Slot, origin: tuple[int, int]) -> None:
        """A good state of a member; rungs that everybody has passed are forgotten."""
        state.places[0 if member.origin is None else member.origin[1]] -= 1
        state.places[origin[1]] += 1
        member.origin = origin
        floor = min(step for step, count in state.places.items() if count)
        if floor == state.floor or len(state.slots) < self.population:
            return
        state.floor = floor
        state.places = +state.places
        state.rungs = {step: rung for step, rung in state.rungs.items() if step >= floor - self.depth}
        known = {standing.trial for rung in state.rungs.values() for standing in rung}
        state.configs = {t: config for t, config in state.configs.items() if t in known or t in state.slot_of}

    # -- ask: decide

    def ask(self, state: State, rng: np.random.Generator, starts: bool = True) -> Decision | None:
        """Replace who failed, fill the population, then advance the member that is furthest behind."""
        if state.strikes >= 2 * self.population:
            return None  # nothing succeeds any more
        if state.vacant:
            decision = self._refill(state, rng)
            if decision is not None and (starts or not isinstance(decision, Start)):
                return decision
        if len(state.slots) < self.population and starts:
            return Start(min(self.ready, self.steps))
        member = self._next(state)
        return None if member is None else self._decide(state, member, rng)

    def _next(self, state: State) -> Standing | None:
        """The idle member that is furthest behind, if it may go on."""
        while state.idle:
            step, _, index = state.idle[0]
            standing = state.slots[index].standing
            if standing is None or standing.step != step or state.slots[index].running:
                heappop(state.idle)  # out of date: this slot was resumed, replaced or has failed since
            elif step >= self.steps or (self.synchronous and step > state.floor):
                return None
            else:
                return standing
        return None

    def _refill(self, state: State, rng: np.random.Generator) -> Decision | None:
        """In the place of a failed member: a fork of one of the better half where it last stood (where it never
        stood: on the first rung). While nobody is there, a new trial.
        """
        index = state.vacant[0]
        failed = state.slots[index]
        step = self._refuge(state, failed)
        peers = self._peers(state, index, step)
        better = peers[: (len(peers) + 1) // 2]
        if not better or step >= self.steps:
            return Start(min(self.ready, self.steps)) if state.restarts < self.population else None
        return self._copy(state, better[int(rng.integers(len(better)))], failed.trial, rng)

    def _refuge(self, state: State, failed: Slot) -> int:
        """The rung to which the place of a failed member goes back."""
        return self.ready if failed.origin is None else failed.origin[1]

    def _resume(self, member: Standing) -> Resume:
        return Resume(member.trial, min(member.step + self.ready, self.steps))

    def _copy(self, state: State, donor: Standing, replaced: int, rng: np.random.Generator) -> Fork:
        """A fork of weights and hyperparameters, explored."""
        config = self._explored(state, state.configs[donor.trial], donor, rng)
        return Fork(donor.trial, donor.step, replaced, config, min(donor.step + self.ready, self.steps))

    def _explored(self, state: State, config: Config, weights: Standing, rng: np.random.Generator) -> Config:
        """The hyperparameters with which these weights go on."""
        if self.explore is None:
            return config
        past = Past(weights.step, weights.losses, self.ready)
        if self.learns:
            out = [slot for slot in state.slots if slot.running and slot.began is not None]
            pending = [Gain(slot.began[0], slot.until, slot.config, slot.began[1]) for slot in out if slot.began]
            past = past._replace(gains=state.gains, pending=pending)
        return self.explore.explore(state.space, config, rng, past)

    def keep(self, state: State) -> Iterable[tuple[int, int]]:
        """Where every member last stood, and the rungs that some member has not passed yet or may go back to."""
        origins = {slot.origin for slot in state.slots if slot.origin is not None}
        standings = (standing for step, rung in state.rungs.items() if step < self.steps for standing in rung)
        return origins | {(standing.trial, standing.step) for standing in standings}
