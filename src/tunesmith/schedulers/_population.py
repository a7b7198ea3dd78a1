"""What all kinds of populations share: places, rungs, who trains next, and what becomes of a place whose trial failed.

Every multiple of ``ready`` is a *rung*. A member at step t is compared with those that have come to step t, by what
they were worth there, and copies a state of step t. A kind of population says what a member does there (``_decide``).

Of a *synchronous* population everything is decided in waves. A wave begins when nobody trains: the places that are
furthest behind have their turn, one after the other, whoever has come back meanwhile. So the order of decisions, and
what each of them rests on, is the same for any number of workers, and whichever of them vanish.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import ClassVar, Literal

import msgspec

from tunesmith import check
from tunesmith.hints import Options
from tunesmith.records import (
    Asked,
    Constraint,
    Decision,
    Ended,
    Event,
    Failed,
    Fork,
    Goal,
    Resume,
    Start,
    Told,
    losses,
)
from tunesmith.rng import Streams
from tunesmith.schedulers._explore import Explore, Perturb
from tunesmith.schedulers._rungs import entry
from tunesmith.schedulers._standing import Gain, Past, Standing, ranked
from tunesmith.schedulers.base import Defaults
from tunesmith.space import Config, Space

MIN_PATIENCE = 10  #: a place is given up after as many failures in a row as there are members, but not before so many


@dataclass(slots=True)
class Slot:
    """A place in the population, and the trial that holds it now.

    Attributes:
        trial: the present one.
        until: where its job ends, or has ended.
        config: its hyperparameters.
        running: whether a job is out.
        origin: trial and step of the last good state of these weights: what was last told, or what was forked.
        standing: how it stood when its last job was done; None while it trains, or where it failed.
        recent: steps and losses of the first goal, as many as the window of the exploit rule has.
        interval_start: step and losses at which the present interval began, as far as they are known.
        failures: of this place in a row.
        rewinds: how often this place went back to an earlier rung.
        ended: the training has come to its end by itself: the member stands on all later rungs, and may be copied.
        given_up: it has failed too often in a row.
    """

    trial: int
    until: int
    config: Config
    running: bool = True
    origin: tuple[int, int] | None = None
    standing: Standing | None = None
    recent: tuple[tuple[int, float], ...] = ()
    interval_start: tuple[int, tuple[float, ...]] | None = None
    failures: int = 0
    rewinds: int = 0
    ended: bool = False
    given_up: bool = False


@dataclass(slots=True, frozen=True)
class Wave:
    """What was known when a wave began, and what all of its decisions rest on; the attributes are those of `State`."""

    rungs: dict[int, list[Standing]]
    failures_from: Counter[tuple[int, int]]
    broken: set[tuple[int, int]]
    ended: list[Standing]


@dataclass(slots=True)
class State:
    """The population, folded from the log.

    Attributes:
        slots: the places, in the order in which they were filled.
        slot_of: by trial that holds a place: which.
        rungs: by step: how the members stood there, sorted.
        slots_at_step: how many places have their last good state at which step.
        configs: configuration of every trial on a rung or in a place.
        failures_from: by weights (trial, step): how many trainings that began with them have failed.
        broken: weights of which the trial that owns them has failed when it went on.
        waiting: heap of (effective step, failed, order, place): who is furthest behind of those that may go on.
        turns: of a synchronous population: places that have their turn in this wave, in order.
        gains: what the intervals of training were worth, where ``explore`` learns from it.
        settled_gains: so many of them had come in when this wave began.
        slowest_step: every place has come to this step.
        reports: jobs that are done.
        restarts: fresh starts in the place of a trial that failed.
        running: how many places train.
        ended: how the members stand that have come to their end by themselves.
        waves: how many waves have begun.
        wave: what was known when the present one began.
        closed: it has begun to decide with fewer members than wanted, since no more trials could be started.
    """

    space: Space
    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...] = ()
    slots: list[Slot] = field(default_factory=list)
    slot_of: dict[int, int] = field(default_factory=dict)
    rungs: dict[int, list[Standing]] = field(default_factory=dict)
    slots_at_step: Counter[int] = field(default_factory=Counter)
    configs: dict[int, Config] = field(default_factory=dict)
    failures_from: Counter[tuple[int, int]] = field(default_factory=Counter)
    broken: set[tuple[int, int]] = field(default_factory=set)
    waiting: list[tuple[int, bool, int, int]] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    gains: list[Gain] = field(default_factory=list)
    settled_gains: int = 0
    slowest_step: int = 0
    reports: int = 0
    restarts: int = 0
    running: int = 0
    ended: list[Standing] = field(default_factory=list)
    waves: int = 0
    wave: Wave | None = None
    closed: bool = False


class Population(Options, Defaults, frozen=True, kw_only=True):
    """A population that trains in parallel; kinds of it are subclasses.

    Args:
        population: members.
        ready: steps between two decisions of a member.
        steps: steps that every member's weights are trained for.
        explore: how to change hyperparameters after copying: ``Perturb``, ``Jitter``, ``PB2``; None: not at all.
        synchronous: decide only when all members have come to a multiple of ``ready``; the study is then the same
            however many workers there are and in whatever order they finish. Otherwise nobody waits.
        first: where the first configurations come from: ``"design"``, a quasi-random sequence that begins with what
            experts believe (and a sampler that learns is not asked), or the ``"sampler"``.
    """

    population: int
    ready: int
    steps: int
    explore: Explore | None = Perturb()
    synchronous: bool = False
    first: Literal["design", "sampler"] = "design"
    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        name = type(self).__name__
        check.whole(name, 2, population=self.population)
        check.whole(name, 1, ready=self.ready, steps=self.steps)
        check.flag(name, synchronous=self.synchronous)
        if self.steps < self.ready:
            raise ValueError(f"{name}: steps={self.steps} must be at least ready={self.ready}")
        if self.first not in ("design", "sampler"):
            raise ValueError(f"{name}: first={self.first!r} must be 'design' or 'sampler'")
        if self.explore is not None and not hasattr(self.explore, "explore"):
            raise TypeError(f"{name}: explore={self.explore!r} must be Perturb(), Jitter(), PB2() or None")

    @property
    def endless(self) -> bool:
        """It ends when all members have come to their last step."""
        return False

    @property
    def horizon(self) -> int:
        """The last step of a trial."""
        return self.steps

    @property
    def members(self) -> int:
        """How many trials train side by side."""
        return self.population

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

    def _decide(self, state: State, member: Standing, streams: Streams) -> Decision:
        """What a member does on its rung."""
        raise NotImplementedError

    def _peers(self, state: State, slot: int, step: int) -> Sequence[Standing]:
        """Who stood on a rung of those by whom a member of this slot may be replaced, the best first."""
        return ranked(self._rung(state, step))

    # -- tell: fold an event into the population

    def tell(self, state: State, event: Event) -> State:
        """Note who trains, who is worth what, who failed."""
        if isinstance(event, Asked):
            self._asked(state, event)
        elif event.trial in state.slot_of:  # type: ignore[attr-defined]  # every event that is told has one
            if isinstance(event, Told):
                self._told(state, event)
            elif isinstance(event, Failed):
                self._failed(state, event)
            elif isinstance(event, Ended):
                self._ended(state, state.slots[state.slot_of[event.trial]])
        self._tidy(state)
        return state

    def _asked(self, state: State, event: Asked) -> None:
        index = state.slot_of.get(event.trial)
        if index is not None:  # resumed
            member = state.slots[index]
            if self.learns and member.standing is not None:
                member.interval_start = member.standing.step, member.standing.losses
            member.running, member.until = True, event.until
            state.closed = state.closed or len(state.slots) < self.population
        else:
            found = self._slot_for(state, event)
            if found is None:
                return  # a trial of the scheduler that was in charge before
            index = found
            state.closed = state.closed or (event.parent is not None and len(state.slots) < self.population)
            member = Slot(event.trial, event.until, event.config)
            before, state.slots[index] = state.slots[index], member
            member.origin, member.failures, member.rewinds = before.origin, before.failures, before.rewinds
            state.slot_of[event.trial] = index
            state.configs[event.trial] = event.config
            if event.parent is not None:
                self._apply_fork(state, index, event.parent, event.start)
        state.running += 1
        if index in state.turns:
            state.turns.remove(index)

    def _slot_for(self, state: State, event: Asked) -> int | None:
        """The place of a new trial: that of the trial which it replaces, or a new one. None: it is none of ours."""
        if event.replaces is not None:
            if event.parent is None:
                state.restarts += 1
            return state.slot_of.pop(event.replaces, None)
        if event.parent is not None:
            return None
        if len(state.slots) >= self.population:
            return self._take_failed(state)
        state.turns = []
        state.slots.append(Slot(event.trial, event.until, event.config))
        state.slots_at_step[0] += 1
        return len(state.slots) - 1

    def _take_failed(self, state: State) -> int | None:
        """The first place that failed: logs of before 0.1.0 do not say which one a new trial replaces."""
        failed = (i for i, slot in enumerate(state.slots) if not slot.running and slot.standing is None)
        index = next(failed, None)
        if index is not None:
            del state.slot_of[state.slots[index].trial]
            state.restarts += 1
        return index

    def _apply_fork(self, state: State, index: int, parent: int, start: int) -> None:
        """Continue a place from copied weights. If they are of an earlier step, drop the place from later rungs."""
        member = state.slots[index]
        source = next((one for one in self._rung(state, start) if one.trial == parent), None)
        if source is not None:
            member.recent = source.recent
            if self.learns:
                member.interval_start = start, source.losses
        if member.origin is not None and start < member.origin[1]:
            member.rewinds += 1
            for step in [step for step in state.rungs if step > start]:
                state.rungs[step] = [one for one in state.rungs[step] if one.slot != index]
        self._set_origin(state, member, (parent, start))

    def _told(self, state: State, event: Told) -> None:
        index = state.slot_of[event.trial]
        member = state.slots[index]
        count = event.step - event.start
        if self.window:
            kept = [(at, loss) for at, loss in member.recent if at <= event.start]  # a retry tells later ones again
            first = max(0, count - self.window)
            kept += [(event.start + 1 + i, losses(state.goals, event.metrics, i)[0]) for i in range(first, count)]
            member.recent = tuple(kept[-self.window :])
        if self.learns and member.interval_start is None and count:
            member.interval_start = event.start + 1, losses(state.goals, event.metrics, 0)
        step = member.until
        if event.step < step or not member.running:
            return
        found = entry(state.goals, state.constraints, event)
        broken, values = (math.inf, (math.inf,) * len(state.goals)) if found is None else found[:2]
        member.standing = Standing(broken, values, event.trial, index, step, member.recent)
        member.running, member.failures = False, 0
        state.running -= 1
        state.reports += 1
        self._note_gain(state, index, step, values)
        insort(state.rungs.setdefault(step, []), member.standing)
        self._set_origin(state, member, (event.trial, step))
        self._wait(state, index)

    def _ended(self, state: State, member: Slot) -> None:
        """The training of a member has come to its end by itself: nobody waits for it any more."""
        if member.standing is None or member.ended:
            return
        member.ended = True
        state.ended.append(member.standing)
        state.slots_at_step[member.standing.step] -= 1
        state.slots_at_step[self.steps] += 1
        self._forget_rungs(state)

    def _rung(self, state: State, step: int) -> list[Standing]:
        """How the members stood at a step, sorted; those that have ended before stand there with their last values."""
        known = self._known(state)
        rung = known.rungs.get(step, [])
        late = [msgspec.structs.replace(one, step=step) for one in known.ended if one.step < step]
        return sorted([*rung, *late]) if late else rung

    def _known(self, state: State) -> State | Wave:
        """What a decision may rest on."""
        return state if state.wave is None else state.wave

    def _failed(self, state: State, event: Failed) -> None:
        index = state.slot_of[event.trial]
        member = state.slots[index]
        if not member.running:
            return
        member.running, member.standing = False, None
        member.failures += 1
        state.running -= 1
        self._note_gain(state, index, member.until, None)
        if member.origin is not None:
            state.failures_from[member.origin] += 1
            if member.origin[0] == member.trial:
                state.broken.add(member.origin)
        if member.failures >= max(MIN_PATIENCE, self.population):
            member.given_up = True
            state.slots_at_step[0 if member.origin is None else member.origin[1]] -= 1
            self._forget_rungs(state)
        else:
            self._wait(state, index)

    def _note_gain(self, state: State, index: int, until: int, after: tuple[float, ...] | None) -> None:
        member = state.slots[index]
        if self.learns and member.interval_start is not None and member.interval_start[0] < until:
            start, before = member.interval_start
            state.gains.append(Gain(start, until, member.config, before, after, index))

    def _set_origin(self, state: State, member: Slot, origin: tuple[int, int]) -> None:
        """Set where a member's weights were last valid, and discard rungs that all members have passed."""
        state.slots_at_step[0 if member.origin is None else member.origin[1]] -= 1
        state.slots_at_step[origin[1]] += 1
        member.origin = origin
        self._forget_rungs(state)

    def _forget_rungs(self, state: State) -> None:
        state.slots_at_step = +state.slots_at_step
        slowest = min(state.slots_at_step, default=self.steps)
        if slowest == state.slowest_step or (len(state.slots) < self.population and not state.closed):
            return
        state.slowest_step = slowest
        state.rungs = {step: rung for step, rung in state.rungs.items() if step >= slowest - self.depth}
        known = {standing.trial for rung in state.rungs.values() for standing in rung}
        state.configs = {t: config for t, config in state.configs.items() if t in known or t in state.slot_of}
        state.broken = {weights for weights in state.broken if weights[0] in known}
        state.failures_from = Counter({at: n for at, n in state.failures_from.items() if at[0] in known})

    # -- who may go on

    def _effective_step(self, member: Slot) -> int:
        """Where a place stands in the queue. One that fails again and again lets the others go on first."""
        if member.standing is not None:
            return member.standing.step
        step = 0 if member.origin is None else member.origin[1]
        return step + (member.failures - 1) * self.ready

    def _wait(self, state: State, index: int) -> None:
        """Queue a place that may go on."""
        member = state.slots[index]
        order = index if self.synchronous else state.reports
        heappush(state.waiting, (self._effective_step(member), member.standing is None, order, index))

    def _may_go(self, state: State, item: tuple[int, bool, int, int]) -> bool:
        """Whether a place of the queue still stands there, and has steps left."""
        step, failed, _, index = item
        member = state.slots[index]
        if member.running or member.given_up or member.ended or (member.standing is None) != failed:
            return False
        return step == self._effective_step(member) and (failed or step < self.steps)

    def _tidy(self, state: State) -> None:
        """Drop from the queue who cannot go on, and begin the next wave of a synchronous population."""
        while state.waiting and not self._may_go(state, state.waiting[0]):
            heappop(state.waiting)
        complete = len(state.slots) >= self.population or state.closed
        if not self.synchronous or not complete or state.running:
            return
        if any(self._can_decide(state, index) for index in state.turns):
            return
        # a place that went back and has come to the same rung again stands twice in the queue: it has one turn
        state.waiting = sorted({item for item in state.waiting if self._may_go(state, item)})
        able = [item for item in state.waiting if self._can_decide(state, item[3])]
        state.turns = [index for step, _, _, index in able if step == able[0][0]]
        state.waves += 1
        fresh = state.gains[state.settled_gains :]  # in the order of finishing, which is nobody's business
        state.gains[state.settled_gains :] = sorted(fresh, key=lambda gain: (gain.until, gain.slot, gain.start))
        state.settled_gains = len(state.gains)
        rungs = {step: list(rung) for step, rung in state.rungs.items()}
        state.wave = Wave(rungs, Counter(state.failures_from), set(state.broken), list(state.ended))

    def _can_decide(self, state: State, index: int) -> bool:
        """Whether there is anything that a place may do, if new trials may be started."""
        member = state.slots[index]
        if member.standing is not None:
            return True
        return bool(self._donors(state, index)) or state.restarts < self.population

    # -- ask: decide

    def ask(self, state: State, streams: Streams, starts: bool = True, repeats: bool = True) -> Decision | None:
        """Fill the population, then advance or replace the member that is furthest behind."""
        if len(state.slots) < self.population and starts:
            return Start(min(self.ready, self.steps), design=self.first == "design")
        for index in self._in_turn(state):
            member = state.slots[index]
            if member.standing is None:
                decision = self._refill(state, index, streams, starts)
            else:
                decision = self._decide(state, member.standing, streams)
            if decision is not None:
                return decision
        return None

    def _in_turn(self, state: State) -> Iterator[int]:
        """The places that may go on now, in their order."""
        if self.synchronous:
            yield from state.turns
            if state.running:
                return
        if state.waiting:
            yield state.waiting[0][3]
            yield from (item[3] for item in sorted(state.waiting)[1:] if self._may_go(state, item))

    def _donors(self, state: State, index: int) -> list[Standing]:
        """Whom a place that failed may copy, where it last stood: of those that did not fail when they went on from
        there, and from whom the fewest others have failed, the better half.
        """
        known, step = self._known(state), self._restart_step(state, state.slots[index])
        if step >= self.steps:
            return []
        sound = [one for one in self._peers(state, index, step) if (one.trial, step) not in known.broken]
        least = min((known.failures_from[one.trial, step] for one in sound), default=0)
        safest = [one for one in sound if known.failures_from[one.trial, step] == least]
        return safest[: (len(safest) + 1) // 2]

    def _refill(self, state: State, index: int, streams: Streams, starts: bool) -> Decision | None:
        """In the place of a failed member: a fork of a donor; while there is none, a new trial."""
        failed = state.slots[index].trial
        donors = self._donors(state, index)
        if donors:
            rng = streams.at("refill", failed)
            return self._copy(state, donors[int(rng.integers(len(donors)))], failed, streams)
        if starts and state.restarts < self.population:
            return Start(min(self.ready, self.steps), design=self.first == "design", replaces=failed)
        return None

    def _restart_step(self, state: State, failed: Slot) -> int:
        """The rung to which the place of a failed member goes back: where it last stood, or the first one."""
        return self.ready if failed.origin is None else failed.origin[1]

    def _resume(self, member: Standing) -> Resume:
        return Resume(member.trial, min(member.step + self.ready, self.steps))

    def _copy(self, state: State, donor: Standing, replaced: int, streams: Streams) -> Fork:
        """A fork of weights and hyperparameters, explored."""
        config = self._explored(state, state.configs[donor.trial], donor, replaced, streams)
        return Fork(donor.trial, donor.step, replaced, config, min(donor.step + self.ready, self.steps))

    def _inherited(self, state: State, config: Config, source: int, replaced: int, streams: Streams) -> Config:
        """Hyperparameters that are taken over as they are, in the space of now, for the weights of a trial: what is
        fixed belongs to the weights.
        """
        own, fixed = state.configs[source], state.space.fixed
        config = {**own, **config, **{name: value for name, value in own.items() if name in fixed}}
        return state.space.nearest(config, streams.at("inherit", replaced))

    def _explored(self, state: State, config: Config, weights: Standing, replaced: int, streams: Streams) -> Config:
        """The hyperparameters with which these weights go on in the place of a trial."""
        own = state.configs[weights.trial]
        if self.explore is None or any(config.get(name) != own.get(name) for name in state.space.fixed):
            config = self._inherited(state, config, weights.trial, replaced, streams)
        if self.explore is None:
            return config
        past = Past(weights.step, weights.losses, self.ready)
        if self.learns:
            gains, pending = self._intervals(state)
            past = past._replace(gains=gains, pending=pending)
        return self.explore.explore(state.space, config, streams.at("explore", replaced, weights.step), past)

    def _intervals(self, state: State) -> tuple[Sequence[Gain], Sequence[Gain]]:
        """The intervals of training that have ended, and those that are out.

        In a synchronous population an interval that began in this wave is out, even if it has ended meanwhile.
        """
        gains: Sequence[Gain] = state.gains
        pending: list[Gain] = []
        if self.synchronous:
            gains = state.gains[: state.settled_gains]
            pending = [gain._replace(after=None) for gain in state.gains[state.settled_gains :]]
        for index, slot in enumerate(state.slots):
            if slot.running and slot.interval_start is not None:
                start, before = slot.interval_start
                pending.append(Gain(start, slot.until, slot.config, before, None, index))
        return gains, sorted(pending, key=lambda gain: (gain.slot, gain.until)) if self.synchronous else pending

    def keep(self, state: State) -> Iterable[tuple[int, int]]:
        """Where every member last stood, and the rungs that some member has not passed yet or may go back to."""
        origins = {slot.origin for slot in state.slots if slot.origin is not None and not slot.given_up}
        standings = (standing for step, rung in state.rungs.items() if step < self.steps for standing in rung)
        return origins | {(standing.trial, standing.step) for standing in standings}

    def message(self, state: State) -> str:
        """That all have come to their end, or which places could not."""
        stuck = [slot for slot in state.slots if not slot.running and slot.standing is None]
        if not stuck:
            ended = [slot.ended or slot.standing.step >= self.steps for slot in state.slots if slot.standing]
            over = len(ended) == self.population and all(ended)
            return f"all {self.population} members of the population have come to their end" if over else ""
        whole = len(stuck) == len(state.slots)
        return (
            f"{len(stuck)} of {len(state.slots)} members have failed, and nobody is left whom they could copy"
            if not whole
            else f"all {len(stuck)} members have failed, and so did every attempt to replace them"
        )
