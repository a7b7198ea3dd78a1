"""Population based training (Jaderberg et al. 2017, arXiv:1711.09846).

A population trains in parallel. Every ``ready`` steps a member compares itself with the others: *exploit* may
replace its weights and hyperparameters by those of a better member, and *explore* then changes the
hyperparameters a little. Weights and hyperparameters are found together, and what is found is a schedule.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import ClassVar, Literal

import msgspec
import numpy as np

from tunesmith.records import Asked, Decision, Event, Failed, Fork, Goal, Resume, Start, Told, losses
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
    failed: bool = False


@dataclass(slots=True)
class State:
    """The population, folded from the log."""

    space: Space
    goals: tuple[Goal, ...]
    target: int
    """Synchronous: the step that every member reaches before any goes beyond it."""
    slots: list[Slot] = field(default_factory=list)
    slot_of: dict[int, int] = field(default_factory=dict)
    ranking: list[Standing] = field(default_factory=list)
    """Sorted, best first. Asynchronous: as of now. Synchronous: as of the last barrier."""
    configs: dict[int, Config] = field(default_factory=dict)
    """Configuration of every trial in the ranking or in a slot."""
    idle: list[tuple[int, int, int]] = field(default_factory=list)
    """Heap of (step, order of telling, slot): who has waited longest at the lowest step."""
    vacant: list[int] = field(default_factory=list)
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
        synchronous: wait for all members at every multiple of ``ready``. Otherwise nobody waits (the paper's way):
            a member is compared with what the others were last told to be worth.

    With fewer workers than members the population is time-sliced, the least advanced member first. Weights are never
    copied from a member that is behind, so that no place in the population costs more than ``steps`` steps. A member
    that fails is replaced by a fork of one of the better half.
    """

    population: int
    ready: int
    steps: int
    exploit: Truncation | Tournament | TTest | None = Truncation()
    explore: Perturb | Jitter | None = Perturb()
    inherit: Literal["both", "weights", "hyperparameters"] = "both"
    synchronous: bool = False
    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.population < 2:
            raise ValueError(f"PBT: population={self.population} must be at least 2")
        if self.ready < 1:
            raise ValueError(f"PBT: ready={self.ready} must be at least 1")
        if self.steps < self.ready:
            raise ValueError(f"PBT: steps={self.steps} must be at least ready={self.ready}")
        if self.inherit not in ("both", "weights", "hyperparameters"):
            raise ValueError(f"PBT: inherit={self.inherit!r} must be 'both', 'weights' or 'hyperparameters'")

    def init(self, space: Space, goals: Sequence[Goal]) -> State:
        """An empty population.

        Raises:
            ValueError: the study has more than one goal.
        """
        if len(goals) != 1:
            raise ValueError(f"PBT ranks by one goal, the study has {len(goals)}: make the others constraints")
        return State(space, tuple(goals), self.ready)

    # -- tell: fold an event into the population

    def tell(self, state: State, event: Event) -> State:
        """Note who trains, who is worth what, who failed."""
        if isinstance(event, Told):
            self._told(state, event)
        elif isinstance(event, Asked):
            self._asked(state, event)
        elif isinstance(event, Failed):
            self._failed(state, event)
        return state

    def _asked(self, state: State, event: Asked) -> None:
        slot = state.slot_of.get(event.trial)
        if slot is not None:  # resumed
            state.slots[slot].running = True
            state.slots[slot].until = event.until
            return
        origin = None if event.parent is None else (event.parent, event.start)
        member = Slot(event.trial, event.until, event.config, origin)
        if event.replaces is not None:
            slot = state.slot_of.pop(event.replaces)
        elif state.vacant:
            slot = state.vacant[0]
            del state.slot_of[state.slots[slot].trial]
            state.restarts += 1
        else:
            slot = len(state.slots)
            state.slots.append(member)
        if slot in state.vacant:
            state.vacant.remove(slot)
        previous, state.slots[slot] = state.slots[slot], member
        self._unrank(state, previous.standing)
        if not self.synchronous:
            state.configs.pop(previous.trial, None)
        state.slot_of[event.trial] = slot
        state.configs[event.trial] = event.config

    def _told(self, state: State, event: Told) -> None:
        slot = state.slot_of[event.trial]
        member = state.slots[slot]
        count = event.step - event.start
        window = self.exploit.window if isinstance(self.exploit, TTest) else 1
        told = tuple(losses(state.goals, event.metrics, i)[0] for i in range(max(0, count - window), count))
        member.recent = (member.recent + told)[-window:]
        if event.step < member.until:
            return
        self._unrank(state, member.standing)
        member.standing = Standing(member.recent[-1], event.trial, slot, event.step, member.recent)
        member.running, member.origin = False, (event.trial, event.step)
        state.strikes = 0
        state.tellings += 1
        heappush(state.idle, (event.step, state.tellings, slot))
        if self.synchronous:
            self._meet(state)
        else:
            insort(state.ranking, member.standing)

    def _failed(self, state: State, event: Failed) -> None:
        slot = state.slot_of[event.trial]
        member = state.slots[slot]
        self._unrank(state, member.standing)
        member.standing, member.running, member.failed = None, False, True
        state.vacant.append(slot)
        state.strikes += 1

    def _unrank(self, state: State, standing: Standing | None) -> None:
        """Take a standing that is superseded out of the live ranking."""
        if standing is not None and not self.synchronous:
            del state.ranking[bisect_left(state.ranking, standing)]

    def _meet(self, state: State) -> None:
        """The barrier: when every member has reached the target, rank them all and set the next one."""
        standings = [slot.standing for slot in state.slots if not slot.failed]
        if len(state.slots) < self.population or any(s is None or s.step < state.target for s in standings):
            return
        state.ranking = sorted(s for s in standings if s is not None)
        state.configs = {slot.trial: slot.config for slot in state.slots}
        state.target += self.ready

    # -- ask: decide

    def ask(self, state: State, rng: np.random.Generator) -> Decision | None:
        """Replace who failed, fill the population, then advance the member that is furthest behind."""
        if state.strikes >= 2 * self.population:
            return None  # nothing succeeds any more
        if state.vacant:
            decision = self._refill(state, rng)
            if decision is not None:
                return decision
        if len(state.slots) < self.population:
            return Start(min(self.ready, self.steps))
        member = self._next(state)
        return None if member is None else self._advance(state, member, rng)

    def _next(self, state: State) -> Standing | None:
        """The idle member that is furthest behind and has waited longest."""
        while state.idle:
            step, _, index = state.idle[0]
            standing = state.slots[index].standing
            if standing is None or standing.step != step or state.slots[index].running:
                heappop(state.idle)  # out of date: this slot was resumed, replaced or has failed since
            elif step >= self.steps or (self.synchronous and step >= state.target):
                return None
            else:
                return standing
        return None

    def _advance(self, state: State, member: Standing, rng: np.random.Generator) -> Decision:
        donor: Standing | None = member
        if self.exploit is not None:
            donor = self.exploit.select(member, state.ranking, rng)
        elif self.explore is None:
            donor = None
        behind = donor is not None and donor.step < member.step and self.inherit != "hyperparameters"
        if donor is None or behind or donor.step >= self.steps:
            return Resume(member.trial, min(member.step + self.ready, self.steps))
        return self._fork(state, donor, member, rng)

    def _fork(self, state: State, donor: Standing, member: Standing, rng: np.random.Generator) -> Fork:
        weights = member if self.inherit == "hyperparameters" else donor
        config = state.configs[member.trial if self.inherit == "weights" else donor.trial]
        if self.explore is not None:
            config = self.explore.explore(state.space, config, rng)
        until = min(weights.step + self.ready, self.steps)
        return Fork(weights.trial, weights.step, member.trial, config, until)

    def _refill(self, state: State, rng: np.random.Generator) -> Decision | None:
        """In the place of a failed member: a fork of one of the better half. Where these have come to their end, the
        member's own last good state with the hyperparameters of one of them. Where there is neither, a new trial.
        """
        slot = state.slots[state.vacant[0]]
        better = state.ranking[: (len(state.ranking) + 1) // 2]
        donor = better[int(rng.integers(len(better)))] if better else None
        source = (donor.trial, donor.step) if donor is not None and donor.step < self.steps else slot.origin
        if donor is None or source is None:
            return Start(min(self.ready, self.steps)) if state.restarts < self.population else None
        trial, step = source
        config = state.configs[donor.trial]
        if self.explore is not None:
            config = self.explore.explore(state.space, config, rng)
        return Fork(trial, step, slot.trial, config, min(step + self.ready, self.steps))

    def keep(self, state: State) -> Iterable[tuple[int, int]]:
        """Where every member stands, or stood before it failed; in synchronous mode also at the last barrier."""
        origins = {slot.origin for slot in state.slots if slot.origin is not None}
        return origins | {(standing.trial, standing.step) for standing in state.ranking}
