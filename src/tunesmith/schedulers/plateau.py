"""A trial that does not get better any more is stopped: each is judged by itself, whatever the others do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tunesmith.hints import Options
from tunesmith.records import Constraint, Event, Goal, Resume, Start
from tunesmith.rng import Streams
from tunesmith.schedulers._slices import Course, Slices, Value
from tunesmith.schedulers.base import Defaults
from tunesmith.space import Space


class Plateau(Options, Defaults, frozen=True):
    """Start one trial after the other, train them slice by slice, and stop those that do not get better any more.

    At the end of a slice a trial is stopped if its best value has improved by no more than ``min_delta`` over the last
    ``patience`` slices. Many small gains count together, unlike in rules that compare one report with the next. Of
    several goals none may have improved; that outcome constraints are broken by less is an improvement, too.

    Args:
        max_steps: of a trial that is not stopped.
        every: steps of a slice.
        patience: slices without improvement.
        min_delta: an improvement is more than this, in the units of the metric; for several goals one number for each,
            or one for all.
    """

    max_steps: int
    every: int = 1
    patience: int = 5
    min_delta: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.every <= self.max_steps:
            raise ValueError(f"Plateau: every={self.every} must be from 1 to max_steps={self.max_steps}")
        if self.patience < 1:
            raise ValueError(f"Plateau: patience={self.patience} must be at least 1")
        if isinstance(self.min_delta, list):
            msgspec.structs.force_setattr(self, "min_delta", tuple(self.min_delta))
        if any(isinstance(delta, bool) or not isinstance(delta, int | float) for delta in self._deltas(1)):
            raise TypeError(f"Plateau: min_delta={self.min_delta!r} must be a number, or one for each goal")
        if not all(delta >= 0 for delta in self._deltas(1)):
            raise ValueError(f"Plateau: min_delta={self.min_delta} must be at least 0")

    @property
    def horizon(self) -> int:
        """The last step of a trial."""
        return self.max_steps

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> Slices:
        """No trial yet.

        Raises:
            ValueError: there are not as many numbers in ``min_delta`` as the study has goals.
        """
        if len(self._deltas(len(goals))) != len(goals):
            raise ValueError(f"Plateau: min_delta={self.min_delta} must have one number for each of {len(goals)} goals")
        return Slices(self.max_steps, self.every, 1, goals, constraints)

    def _deltas(self, goals: int) -> tuple[float, ...]:
        return self.min_delta if isinstance(self.min_delta, tuple) else (self.min_delta,) * goals

    def tell(self, state: Slices, event: Event) -> Slices:
        """Note what was told; at the end of a slice, judge the trial."""
        course = state.tell(event)
        if course is not None and not course.over:
            state.settle(course, self._flat(course))
        return state

    def _flat(self, course: Course) -> bool:
        """Whether a trial has stopped to get better."""
        before = course.at(course.step - self.patience * self.every)
        if before is None:
            return False
        pairs = zip(before.best, course.stands[-1].best, self._deltas(len(before.best)), strict=True)
        return not any(_improved(*pair) for pair in pairs)

    def ask(self, state: Slices, streams: Streams, starts: bool = True, repeats: bool = True) -> Start | Resume:
        """The next slice of the best trial that was not stopped and waits; where none does, a new trial."""
        return state.ask()

    def keep(self, state: Slices) -> Iterable[tuple[int, int]]:
        """Where the trials stand that wait for their next slice."""
        return state.waiting.items()


def _improved(before: Value, now: Value, delta: float) -> bool:
    return now[0] < before[0] or before[1] - now[1] > delta
