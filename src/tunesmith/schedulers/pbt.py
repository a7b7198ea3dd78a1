"""Population based training (Jaderberg et al. 2017, arXiv:1711.09846).

A population trains in parallel. Every ``ready`` steps a member compares itself with the others: *exploit* may
replace its weights and hyperparameters by those of a better member, and *explore* then changes the
hyperparameters a little. Weights and hyperparameters are found together, and what is found is a schedule.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import ClassVar, Literal

import msgspec
import numpy as np

from tunesmith.records import Asked, Constraint, Decision, Event, Failed, Fork, Goal, Resume, Start, Told, losses
from tunesmith.space import Config, Space


class Standing(msgspec.Struct, frozen=True, order=True):
    """How a member stood when it was last told: ordered by loss, and by age where losses are equal."""

    loss: float
    trial: int
    slot: int
    step: int
    recent: tuple[float, ...]
    """The last losses, one a step, the newest last."""


# -- exploit: whom does a member copy? --------------------------------------------------------------------------


class Truncation(msgspec.Struct, frozen=True, tag="truncation"):
    """Truncation selection: a member of the worst ``fraction`` copies one of the best, uniformly (section 4.1.1)."""

    fraction: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 0.5:
            raise ValueError(f"Truncation: fraction={self.fraction} must be in (0, 0.5]")

    def select(self, member: Standing, ranking: Sequence[Standing], rng: np.random.Generator) -> Standing | None:
        """The member to copy, or None to go on. ``ranking`` is sorted, best first."""
        count = min(max(1, int(self.fraction * len(ranking))), len(ranking) // 2)
        if bisect_left(ranking, member) < len(ranking) - count:
            return None
        return ranking[int(rng.integers(count))] if count else None


class Tournament(msgspec.Struct, frozen=True, tag="tournament"):
    """Binary tournament: a member copies another one, drawn uniformly, if that is better."""

    def select(self, member: Standing, ranking: Sequence[Standing], rng: np.random.Generator) -> Standing | None:
        """The member to copy, or None to go on."""
        rival = _rival(member, ranking, rng)
        return rival if rival is not None and rival < member else None


class TTest(msgspec.Struct, frozen=True, tag="t-test"):
    """T-test selection: a member copies another one, drawn uniformly, if that is better on the average of the last
    ``window`` values and Welch's t-test says so at this ``level`` (section 4.1.1). With fewer than two values
    nothing can be said, and the member goes on.
    """

    window: int = 10
    level: float = 0.05

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ValueError(f"TTest: window={self.window} must be at least 2")
        if not 0 < self.level < 1:
            raise ValueError(f"TTest: level={self.level} must be in (0, 1)")

    def select(self, member: Standing, ranking: Sequence[Standing], rng: np.random.Generator) -> Standing | None:
        """The member to copy, or None to go on."""
        rival = _rival(member, ranking, rng)
        if rival is None:
            return None
        ours, theirs = np.array(member.recent), np.array(rival.recent)
        better = theirs.mean() < ours.mean()
        return rival if better and welch(ours, theirs) < self.level else None


def welch(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p-value of Welch's t-test for equal means; 1 where a sample has fewer than two values."""
    from scipy.special import stdtr

    if len(a) < 2 or len(b) < 2:
        return 1.0
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if va + vb == 0:
        return float(a.mean() == b.mean())
    t = abs(a.mean() - b.mean()) / math.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return float(2 * stdtr(freedom, -t))


def _rival(member: Standing, ranking: Sequence[Standing], rng: np.random.Generator) -> Standing | None:
    """Another member, drawn uniformly."""
    if len(ranking) < 2:
        return None
    index = int(rng.integers(len(ranking) - 1))
    return ranking[index + (index >= bisect_left(ranking, member))]


# -- explore: how do its hyperparameters change? ------------------------------------------------------------------


class Perturb(msgspec.Struct, frozen=True, tag="perturb"):
    """Each hyperparameter by itself: with probability ``resample`` drawn anew, else times or divided by ``factor``.

    ``resample=0`` is the paper's *perturb*, ``resample=1`` its *resample*. :meth:`tunesmith.Space.perturb` says
    what this means for every kind of parameter.
    """

    factor: float = 1.2
    resample: float = 0.0

    def __post_init__(self) -> None:
        if not (1 < self.factor < math.inf):
            raise ValueError(f"Perturb: factor={self.factor} must be over 1")
        if not 0 <= self.resample <= 1:
            raise ValueError(f"Perturb: resample={self.resample} must be in [0, 1]")

    def explore(self, space: Space, config: Config, rng: np.random.Generator) -> Config:
        """A neighbour of ``config``, inside the space."""
        return space.perturb(config, rng, self.factor, self.resample)


class Jitter(msgspec.Struct, frozen=True, tag="jitter"):
    """Gaussian noise of standard deviation ``scale`` on every numeric parameter, in the unit cube."""

    scale: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"Jitter: scale={self.scale} must be over 0")

    def explore(self, space: Space, config: Config, rng: np.random.Generator) -> Config:
        """A neighbour of ``config``, inside the space."""
        return space.jitter(config, rng, self.scale)


# -- the population -----------------------------------------------------------------------------------------------


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


@dataclass(slots=True)
class State:
    """The population, folded from the log."""

    space: Space
    goals: tuple[Goal, ...]
    slots: list[Slot] = field(default_factory=list)
    slot_of: dict[int, int] = field(default_factory=dict)
    rungs: dict[int, list[Standing]] = field(default_factory=dict)
    """By step: how the members stood there, best first."""
    places: Counter[int] = field(default_factory=Counter)
    """How many slots have their last good state at which step."""
    configs: dict[int, Config] = field(default_factory=dict)
    """Configuration of every trial on a rung or in a slot."""
    idle: list[tuple[int, int, int]] = field(default_factory=list)
    """Heap of (step, order, slot): who is furthest behind."""
    vacant: list[int] = field(default_factory=list)
    floor: int = 0
    """Every slot has come to this step."""
    tellings: int = 0
    restarts: int = 0
    strikes: int = 0
    """Failures since the last success."""


class PBT(msgspec.Struct, frozen=True, kw_only=True):
    """Population based training.

    Args:
        population: members.
        ready: steps between two decisions of a member.
        steps: steps that every member's weights are trained for.
        exploit: whom to copy: ``Truncation``, ``Tournament``, ``TTest``; None: nobody (the paper's "explore only").
        explore: how to change hyperparameters after copying: ``Perturb``, ``Jitter``; None: not at all.
        inherit: what a copy takes over: ``"weights"``, ``"hyperparameters"`` or ``"both"`` (section 4.4).
        synchronous: decide only when all members have come to a multiple of ``ready``; the study is then the same
            however many workers there are and in whatever order they finish. Otherwise nobody waits (the paper's way).

    Members are compared at equal steps: one that comes to step t with what the others were worth at step t, as far as
    they have come there, and it copies a state of step t. So nobody gains by being ahead, and a place in the population
    costs exactly ``steps`` steps. With fewer workers than members the population is time-sliced, the member that is
    furthest behind first. A member that fails is replaced by a fork of one of the better half.
    """

    population: int
    ready: int
    steps: int
    exploit: Truncation | Tournament | TTest | None = Truncation()
    explore: Perturb | Jitter | None = Perturb()
    inherit: Literal["both", "weights", "hyperparameters"] = "both"
    synchronous: bool = False
    repeats: ClassVar[bool] = True
    endless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.population < 2:
            raise ValueError(f"PBT: population={self.population} must be at least 2")
        if self.ready < 1:
            raise ValueError(f"PBT: ready={self.ready} must be at least 1")
        if self.steps < self.ready:
            raise ValueError(f"PBT: steps={self.steps} must be at least ready={self.ready}")
        if self.inherit not in ("both", "weights", "hyperparameters"):
            raise ValueError(f"PBT: inherit={self.inherit!r} must be 'both', 'weights' or 'hyperparameters'")

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> State:
        """An empty population.

        Raises:
            ValueError: the study has more than one goal.
        """
        if len(goals) != 1:
            raise ValueError(f"PBT ranks by one goal, the study has {len(goals)}: make the others constraints")
        return State(space, tuple(goals))

    # -- tell: fold an event into the population

    def tell(self, state: State, event: Event) -> State:
        """Note who trains, who is worth what, who failed."""
        if isinstance(event, Told):
            self._told(state, event)
        elif isinstance(event, Asked):
            self._asked(state, event)
        elif isinstance(event, Failed):
            slot = state.slot_of[event.trial]
            state.slots[slot].running, state.slots[slot].standing = False, None
            state.vacant.append(slot)
            state.strikes += 1
        return state

    def _asked(self, state: State, event: Asked) -> None:
        slot = state.slot_of.get(event.trial)
        if slot is not None:  # resumed
            state.slots[slot].running = True
            state.slots[slot].until = event.until
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
        member.origin, state.slots[slot] = state.slots[slot].origin, member
        state.slot_of[event.trial] = slot
        state.configs[event.trial] = event.config
        if event.parent is not None:
            self._reached(state, member, (event.parent, event.start))

    def _told(self, state: State, event: Told) -> None:
        slot = state.slot_of[event.trial]
        member = state.slots[slot]
        step = event.step
        count = step - event.start
        window = self.exploit.window if isinstance(self.exploit, TTest) else 1
        told = tuple(losses(state.goals, event.metrics, i)[0] for i in range(max(0, count - window), count))
        member.recent = (member.recent + told)[-window:]
        if step < member.until:
            return
        member.standing = Standing(member.recent[-1], event.trial, slot, step, member.recent)
        member.running = False
        state.strikes = 0
        state.tellings += 1
        heappush(state.idle, (step, 0 if self.synchronous else state.tellings, slot))
        insort(state.rungs.setdefault(step, []), member.standing)
        self._reached(state, member, (event.trial, step))

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
        state.rungs = {step: rung for step, rung in state.rungs.items() if step >= floor}
        ranked = {standing.trial for rung in state.rungs.values() for standing in rung}
        state.configs = {t: config for t, config in state.configs.items() if t in ranked or t in state.slot_of}

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
        return None if member is None else self._advance(state, member, rng)

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

    def _advance(self, state: State, member: Standing, rng: np.random.Generator) -> Decision:
        until = min(member.step + self.ready, self.steps)
        donor: Standing | None = member
        if self.exploit is not None:
            donor = self.exploit.select(member, state.rungs[member.step], rng)
        elif self.explore is None:
            donor = None
        if donor is None:
            return Resume(member.trial, until)
        weights = member if self.inherit == "hyperparameters" else donor
        config = state.configs[member.trial if self.inherit == "weights" else donor.trial]
        return Fork(weights.trial, member.step, member.trial, self._explored(state, config, rng), until)

    def _refill(self, state: State, rng: np.random.Generator) -> Decision | None:
        """In the place of a failed member: a fork of one of the better half where it last stood (where it never
        stood: on the first rung). While nobody is there, a new trial.
        """
        failed = state.slots[state.vacant[0]]
        step = self.ready if failed.origin is None else failed.origin[1]
        better = state.rungs.get(step, [])
        better = better[: (len(better) + 1) // 2]
        if not better or step >= self.steps:
            return Start(min(self.ready, self.steps)) if state.restarts < self.population else None
        donor = better[int(rng.integers(len(better)))]
        config = self._explored(state, state.configs[donor.trial], rng)
        return Fork(donor.trial, step, failed.trial, config, min(step + self.ready, self.steps))

    def _explored(self, state: State, config: Config, rng: np.random.Generator) -> Config:
        return config if self.explore is None else self.explore.explore(state.space, config, rng)

    def keep(self, state: State) -> Iterable[tuple[int, int]]:
        """Where every member last stood, and the rungs that some member has not passed yet."""
        origins = {slot.origin for slot in state.slots if slot.origin is not None}
        ranked = (standing for step, rung in state.rungs.items() if step < self.steps for standing in rung)
        return origins | {(standing.trial, standing.step) for standing in ranked}
