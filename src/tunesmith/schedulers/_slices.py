"""Trials that are trained slice by slice, until a rule stops them: what the stopping rules share."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from tunesmith.records import Asked, Constraint, Ended, Event, Failed, Goal, Resume, Start, Told, losses

Value = tuple[float, float]
"""Of a goal: by how much the outcome constraints are broken in total, and the loss. Smaller is better in this order."""


class Stand(NamedTuple):
    """What a trial has shown up to a step, one entry a goal.

    Attributes:
        step: the step.
        told: how many values so far.
        best: the best of them.
        total: their sum.
    """

    step: int
    told: int
    best: tuple[Value, ...]
    total: tuple[Value, ...]

    @property
    def mean(self) -> tuple[Value, ...]:
        """The running averages; never better than the best values, whatever the rounding."""
        means = ((broken / self.told, loss / self.told) for broken, loss in self.total)
        return tuple(map(max, zip(means, self.best, strict=True)))


@dataclass(slots=True)
class Course:
    """A trial in training: where its job ends, how it stood after every step with a value, where it was judged last,
    its last values, and whether its training has come to its end by itself: then it has these at all later steps.
    """

    trial: int
    until: int
    stands: list[Stand] = field(default_factory=list)
    judged: int = 0
    last: tuple[Value, ...] = ()
    over: bool = False

    @property
    def step(self) -> int:
        """The step of the last value."""
        return self.stands[-1].step

    def at(self, step: int) -> Stand | None:
        """How it stood at a step, None where it had no value yet."""
        index = bisect_right(self.stands, step, key=_step)
        return self.stands[index - 1] if index else None

    def after(self, step: int) -> list[Stand]:
        """How it stood at all later steps with a value."""
        return self.stands[bisect_right(self.stands, step, key=_step) :]

    def standing(self, step: int) -> Stand:
        """How it stands at a later step with its last values at all steps up to there."""
        last = self.stands[-1]
        more = step - last.step
        total = tuple((a + more * c, b + more * d) for (a, b), (c, d) in zip(last.total, self.last, strict=True))
        return Stand(step, last.told + more, last.best, total)

    def tell(self, step: int, values: tuple[Value, ...]) -> None:
        """Take in the values of the next step."""
        self.last = values
        if self.stands:
            last = self.stands[-1]
            best = tuple(map(min, zip(last.best, values, strict=True)))
            total = tuple((a + c, b + d) for (a, b), (c, d) in zip(last.total, values, strict=True))
            self.stands.append(Stand(step, last.told + 1, best, total))
        else:
            self.stands.append(Stand(step, 1, values, values))


def _step(stand: Stand) -> int:
    return stand.step


@dataclass
class Slices:
    """All trials that may go on. Those that wait for their next slice go first, the best one of them before the others;
    where none waits, a new trial begins. Everything takes O(log n) for n trials.

    Slices end at the multiples of ``every`` from ``min_steps`` on, and at ``max_steps``.
    """

    max_steps: int
    every: int
    min_steps: int
    goals: Sequence[Goal]
    constraints: Sequence[Constraint]
    courses: dict[int, Course] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)
    """Trials that may be resumed, and where they stand."""
    _heap: list[tuple[tuple[Value, ...], int]] = field(default_factory=list)  # of them; and of some that do not wait

    def tell(self, event: Event) -> Course | None:
        """Fold an event. Returns the course of the trial whose job it has ended, for the rule to judge, or that of a
        trial whose training is over.
        """
        if type(event) is Asked:
            self.courses.setdefault(event.trial, Course(event.trial, event.until)).until = event.until
            self._leave(event.trial)
        elif type(event) is Failed:
            self.courses.pop(event.trial, None)
        elif type(event) is Told:
            course = self.courses[event.trial]
            while course.stands and course.step > event.start:  # told again, from an earlier checkpoint on
                course.stands.pop()
            if course.stands and course.step < event.start:  # it has ended, and stands as it did
                course.stands.append(course.standing(event.start))
            for step, values in self._values(event):
                course.tell(step, values)
            return course if event.step >= course.until else None
        elif type(event) is Ended and event.trial in self.waiting:
            course = self.courses.pop(event.trial)
            course.over = True
            self._leave(event.trial)
            return course
        return None

    def _leave(self, trial: int) -> None:
        """A trial does not wait any more."""
        self.waiting.pop(trial, None)
        while self._heap and self._heap[0][1] not in self.waiting:
            heappop(self._heap)

    def _values(self, event: Told) -> Iterator[tuple[int, tuple[Value, ...]]]:
        """The values of all goals, step by step."""
        for index in range(event.step - event.start):
            values = ((rule, event.metrics[rule.metric][index]) for rule in self.constraints)
            broken = sum(0.0 if value is None else rule.violation(value) for rule, value in values)
            yield event.start + index + 1, tuple((broken, loss) for loss in losses(self.goals, event.metrics, index))

    def settle(self, course: Course, stop: bool) -> None:
        """The job of a trial is done: it stops, or waits for the next one if there are steps left."""
        if stop or course.step >= self.max_steps:
            del self.courses[course.trial]
        else:
            self.waiting[course.trial] = course.step
            heappush(self._heap, (course.stands[-1].best, course.trial))

    def ends(self, step: int) -> bool:
        """Whether a slice ends at a step, so that a trial is judged there."""
        return step % self.every == 0 and self.min_steps <= step < self.max_steps

    def ask(self) -> Start | Resume:
        """The next slice of the best trial that waits, or a new trial."""
        if self._heap:
            trial = self._heap[0][1]
            return Resume(trial, self._end(self.waiting[trial]))
        return Start(self._end(0))

    def _end(self, step: int) -> int:
        """Where the slice after this step ends."""
        until = (max(step, self.min_steps - 1) // self.every + 1) * self.every
        return min(until, self.max_steps)
