"""Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943) and Hyperband (Li et al. 2018, arXiv:1603.06560).

A bracket starts many trials and trains them for few steps; the best ``1 / eta`` of them go on from where they stand for
``eta`` times as many, and so on, until some are trained in full. Hyperband runs brackets that begin with many short
trials and such that begin with few long ones, since nobody knows how much early values say.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tunesmith import check
from tunesmith.hints import Options
from tunesmith.records import Asked, Constraint, Event, Failed, Goal, Resume, Start, Told
from tunesmith.rng import Streams
from tunesmith.schedulers._rungs import Fronts, Rung, check_ladder, entry, ladder, rung
from tunesmith.schedulers.base import Defaults
from tunesmith.space import Space


@dataclass(slots=True)
class Bracket:
    """One round of successive halving.

    Attributes:
        steps: of its rungs.
        size: how many trials it starts.
        rungs: as many as ``steps``.
        out: how many trials are on their way to each rung.
        started: trials so far.
    """

    steps: tuple[int, ...]
    size: int
    rungs: list[Rung | Fronts]
    out: list[int]
    started: int = 0

    def due(self, starts: bool = True) -> int | None:
        """The rung from which a trial is to be promoted: all its trials have come there.

        Without ``starts`` the bracket has to do with the trials that it has.
        """
        if self.started < self.size and starts:
            return None
        for k, stand in enumerate(self.rungs[:-1]):
            if self.out[k]:
                return None
            if stand.best is not None:
                return k
        return None


@dataclass(slots=True)
class State:
    """Brackets that have an unfinished trial, and how many there were."""

    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...]
    plan: list[tuple[int, tuple[int, ...]]]
    """The brackets of a round."""
    brackets: dict[int, Bracket] = field(default_factory=dict)
    opened: int = 0
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By trial: its bracket, and the rung that it is on its way to or stands on."""
    due: list[int] = field(default_factory=list)
    """Brackets that have a trial to promote, in order."""


class _Halving(Defaults):
    """What successive halving and Hyperband share. Subclasses say which brackets there are."""

    max_steps: int
    min_steps: int
    eta: int
    rounds: int | None

    def brackets(self) -> list[tuple[int, tuple[int, ...]]]:
        """The brackets of a round, in order: how many trials each starts, and the steps of its rungs."""
        raise NotImplementedError

    @property
    def rungs(self) -> tuple[int, ...]:
        """The steps at which trials are compared."""
        return ladder(self.min_steps, self.max_steps, self.eta)

    @property
    def horizon(self) -> int:
        """The last step of a trial."""
        return self.max_steps

    @property
    def endless(self) -> bool:
        """Whether it goes on until something else ends the study."""
        return self.rounds is None

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> State:
        """No bracket yet."""
        return State(tuple(goals), tuple(constraints), self.brackets())

    def tell(self, state: State, event: Event) -> State:
        """Note who is on the way to which rung, and who has come there."""
        if type(event) is Asked:
            number = self._asked(state, event)
            if number is not None:
                self._settle(state, number)
        elif isinstance(event, Told | Failed) and event.trial in state.places and self._came(state, event):
            self._settle(state, state.places[event.trial][0])
        return state

    def _asked(self, state: State, event: Asked) -> int | None:
        """The bracket of the job, or that the trial has left for another scheduler; None where there is neither."""
        if event.trial in state.places:
            number, below = state.places.pop(event.trial)
            bracket = state.brackets.get(number)
            if bracket is None:
                return None  # it is over
            if below + 1 < len(bracket.steps):
                bracket.rungs[below].take(event.trial)
            if event.until not in bracket.steps[below + 1 : below + 2]:
                return number
        else:
            number, below = self._open(state), -1
            if event.parent is not None or event.until != state.brackets[number].steps[0]:
                return None
            state.brackets[number].started += 1
        state.places[event.trial] = number, below + 1
        state.brackets[number].out[below + 1] += 1
        return number

    def _open(self, state: State) -> int:
        """The bracket that starts trials now: the newest, or else another one."""
        newest = state.brackets.get(state.opened - 1)
        if newest is not None and newest.started < newest.size:
            return state.opened - 1
        size, steps = self._next(state)
        stands = [rung(state.goals, self.eta, least=1) for _ in steps]
        state.brackets[state.opened] = Bracket(steps, size, stands, [0] * len(steps))
        state.opened += 1
        return state.opened - 1

    def _next(self, state: State) -> tuple[int, tuple[int, ...]]:
        return state.plan[state.opened % len(state.plan)]

    def _came(self, state: State, event: Told | Failed) -> bool:
        """Whether the trial has come to its rung, or failed on the way."""
        number, k = state.places[event.trial]
        bracket = state.brackets[number]
        if isinstance(event, Told) and event.step < bracket.steps[k]:
            return False
        one = entry(state.goals, state.constraints, event) if isinstance(event, Told) else None
        bracket.rungs[k].add(one)
        bracket.out[k] -= 1
        return True

    def _settle(self, state: State, number: int) -> None:
        """Whether a bracket has something to do now, or is over."""
        bracket = state.brackets[number]
        due = bracket.due() is not None
        if due and number not in state.due:
            insort(state.due, number)
        elif not due and number in state.due:
            state.due.remove(number)
        if bracket.started == bracket.size and not due and not any(bracket.out):
            del state.brackets[number]

    def ask(self, state: State, streams: Streams, starts: bool = True, repeats: bool = True) -> Start | Resume | None:
        """A promotion in the oldest bracket that has one due, or else a new trial."""
        if state.due:
            return self._promotion(state, state.due[0])
        if not starts:
            short = next((number for number, one in state.brackets.items() if one.due(starts) is not None), None)
            return None if short is None else self._promotion(state, short, starts)
        newest = state.brackets.get(state.opened - 1)
        if newest is not None and newest.started < newest.size:
            return Start(newest.steps[0])
        if self.rounds is not None and state.opened >= self.rounds * len(state.plan):
            return None
        return Start(self._next(state)[1][0])

    def _promotion(self, state: State, number: int, starts: bool = True) -> Resume:
        bracket = state.brackets[number]
        k = bracket.due(starts)
        assert k is not None
        trial = bracket.rungs[k].best
        assert trial is not None
        return Resume(trial, bracket.steps[k + 1])

    def message(self, state: State) -> str:
        """That the last round is over, where it is."""
        if self.rounds is None or state.brackets or state.opened < self.rounds * len(state.plan):
            return ""
        trials = self.rounds * sum(size for size, _ in state.plan)
        return f"all {trials} trials of rounds={self.rounds} were started, and their brackets are over"

    def keep(self, state: State) -> Iterable[tuple[int, int]]:
        """Where trials stand that may be promoted."""
        for bracket in state.brackets.values():
            for step, stand in zip(bracket.steps[:-1], bracket.rungs[:-1], strict=True):
                for trial in stand.paused():
                    yield trial, step


class SuccessiveHalving(_Halving, Options, frozen=True, tag="successive halving"):
    """Train ``trials`` configurations for ``min_steps``, the best ``1 / eta`` of them ``eta`` times as long, and so on.

    A rung decides when all of its trials have come to it; meanwhile free workers begin with the next round. Trials
    that fail count as the worst. At least one trial of every rung goes on.

    Args:
        max_steps: of a trial that comes to the end.
        min_steps: the steps of the first rung at least; ``max_steps / eta^k`` for the greatest k that this allows.
        eta: the rungs' steps grow, and their trials get fewer, by this factor.
        size: trials that a round starts; by default ``eta^k``, so that one comes to the end.
        rounds: how often; None: until something else ends the study.
    """

    max_steps: int
    min_steps: int = 1
    eta: int = 3
    size: int | None = None
    rounds: int | None = None

    def __post_init__(self) -> None:
        check_ladder("SuccessiveHalving", self.max_steps, self.min_steps, self.eta)
        _check_counts("SuccessiveHalving", size=self.size, rounds=self.rounds)

    def brackets(self) -> list[tuple[int, tuple[int, ...]]]:
        """The one bracket."""
        steps = self.rungs
        return [(self.eta ** (len(steps) - 1) if self.size is None else self.size, steps)]


class Hyperband(_Halving, Options, frozen=True, tag="hyperband"):
    """Brackets of successive halving, from many short trials to a few that are trained in full from the start.

    With rungs 0 to K, the bracket that begins at rung K - s starts ``ceil((K + 1) eta^s / (s + 1))`` trials: all
    brackets cost about the same. (81 steps, eta 3: 81, 34, 15, 8 and 5 trials.) While one waits for its last trials,
    free workers begin with the next one. Arguments as for ``SuccessiveHalving``; a round is all brackets in turn.
    """

    max_steps: int
    min_steps: int = 1
    eta: int = 3
    rounds: int | None = None

    def __post_init__(self) -> None:
        check_ladder("Hyperband", self.max_steps, self.min_steps, self.eta)
        _check_counts("Hyperband", rounds=self.rounds)

    def brackets(self) -> list[tuple[int, tuple[int, ...]]]:
        """Algorithm 1 of Li et al. 2018, line 2 to 4, with ``(K + 1) R`` for the budget B of a bracket."""
        steps = self.rungs
        most = len(steps)  # K + 1
        return [(math.ceil(most * self.eta**s / (s + 1)), steps[most - 1 - s :]) for s in reversed(range(most))]


def _check_counts(name: str, **counts: int | None) -> None:
    for what, count in counts.items():
        if count is not None:
            check.whole(name, 1, **{what: count})
