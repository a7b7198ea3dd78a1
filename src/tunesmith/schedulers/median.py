"""The median stopping rule: a trial that has shown less than the others had on average at its age is stopped.

Golovin et al. 2017, "Google Vizier: a service for black-box optimization": a trial is stopped at step s if its best
value by then is strictly worse than the median of the running averages, up to step s, of all completed trials. Here a
trial counts as soon as it has come to step s, not only when it is complete.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heappushpop

from tunesmith.hints import Options
from tunesmith.records import Constraint, Event, Goal, Resume, Start
from tunesmith.rng import Streams
from tunesmith.schedulers._slices import Course, Slices, Stand, Value
from tunesmith.schedulers.base import Defaults
from tunesmith.space import Space


@dataclass(slots=True)
class Quantile:
    """A quantile of values that come one by one, in two heaps: ``add`` takes O(log n) for n values, looking O(1).

    The values up to the quantile stand in ``low``, negated so that the largest is first, the others in ``high``.
    """

    share: float
    low: list[Value] = field(default_factory=list)
    high: list[Value] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.low) + len(self.high)

    def add(self, value: Value) -> None:
        """Take in a value."""
        heappush(self.high, _negated(heappushpop(self.low, _negated(value))))
        if len(self.low) <= math.floor(self.share * (len(self) - 1)):
            heappush(self.low, _negated(heappop(self.high)))

    @property
    def value(self) -> Value:
        """Of n values in order, counted from 0, the one at ``floor(share * (n - 1))``."""
        return _negated(self.low[0])


def _negated(value: Value) -> Value:
    return -value[0], -value[1]


def _add(averages: list[Quantile], stand: Stand) -> None:
    """Take in how a trial stands, goal by goal."""
    for average, mean in zip(averages, stand.mean, strict=True):
        average.add(mean)


@dataclass
class State:
    """All trials that may go on; by step the running averages of each goal of all trials that came to it; and the
    trials whose training is over, which come to all later steps.
    """

    slices: Slices
    averages: dict[int, list[Quantile]] = field(default_factory=dict)
    over: list[Course] = field(default_factory=list)


class Median(Options, Defaults, frozen=True):
    """Start one trial after the other, train them slice by slice, and stop those that fall behind.

    At the end of a slice, at step t, a trial is stopped if more than the share ``quantile`` of the other trials that
    have come to step t have a better running average (the mean of their values up to t) than its best value up to t.
    The others are all that were told a value at step t so far, also those that were stopped there or later, or have
    failed since; a trial that failed before counts no more than one that was stopped before. What a trial was worth at
    step t counts as it first was, even if a crash makes it train this step again.

    Of several goals a trial must fall behind in every one to be stopped. Where outcome constraints are broken, values
    are compared by the total by which they are, and only then by the goal: one that breaks them is worse than one that
    breaks none.

    Args:
        max_steps: of a trial that is not stopped.
        every: steps of a slice.
        min_steps: nothing is stopped before; the first slice is that long, rounded up to a multiple of ``every``.
        min_trials: nothing is stopped where fewer other trials have come to the same step.
        quantile: 0.5 is the median; 0.25 stops all but about the best quarter, 0.75 only about the worst.
    """

    max_steps: int
    every: int = 1
    min_steps: int = 1
    min_trials: int = 5
    quantile: float = 0.5

    def __post_init__(self) -> None:
        for name in ("every", "min_steps"):
            if not 1 <= getattr(self, name) <= self.max_steps:
                raise ValueError(f"Median: {name}={getattr(self, name)} must be from 1 to max_steps={self.max_steps}")
        if self.min_trials < 1:
            raise ValueError(f"Median: min_trials={self.min_trials} must be at least 1")
        if not 0 < self.quantile < 1:
            raise ValueError(f"Median: quantile={self.quantile} must be in (0, 1)")

    @property
    def horizon(self) -> int:
        """The last step of a trial."""
        return self.max_steps

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> State:
        """No trial yet."""
        return State(Slices(self.max_steps, self.every, self.min_steps, goals, constraints))

    def tell(self, state: State, event: Event) -> State:
        """Note what was told; at the end of a slice, judge the trial."""
        course = state.slices.tell(event)
        if course is not None and course.over:
            state.over.append(course)
            for step, averages in state.averages.items():
                if step > course.step:
                    _add(averages, course.standing(step))
        elif course is not None:
            behind = False
            for stand in course.after(course.judged):
                if state.slices.ends(stand.step):
                    course.judged = stand.step
                    behind = self._behind(state, stand)
            state.slices.settle(course, behind)
        return state

    def _behind(self, state: State, stand: Stand) -> bool:
        """Let a trial stand beside the others at its step. Whether it has fallen behind them."""
        averages = state.averages.get(stand.step)
        if averages is None:
            averages = state.averages[stand.step] = [Quantile(self.quantile) for _ in stand.best]
            for course in state.over:
                if course.step < stand.step:
                    _add(averages, course.standing(stand.step))
        _add(averages, stand)  # no better than its own best: it does not count as better than that
        enough = len(averages[0]) > self.min_trials
        return enough and all(average.value < best for average, best in zip(averages, stand.best, strict=True))

    def ask(self, state: State, streams: Streams, starts: bool = True, repeats: bool = True) -> Start | Resume:
        """The next slice of the best trial that was not stopped and waits; where none does, a new trial."""
        return state.slices.ask()

    def keep(self, state: State) -> Iterable[tuple[int, int]]:
        """Where the trials stand that wait for their next slice."""
        return state.slices.waiting.items()
