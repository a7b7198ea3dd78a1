"""Schedulers that extrapolate learning curves with :mod:`tunesmith.curves`.

Predictive termination (Domhan, Springenberg and Hutter 2015, "Speeding up automatic hyperparameter optimization of deep
neural networks by extrapolation of learning curves") stops trials that will not beat the best one. Freeze-thaw
(Swersky, Snoek and Adams 2014, "Freeze-thaw Bayesian optimization", arXiv:1406.3896) pauses trials and goes on with the
one that is the most promising by now.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tunesmith.hints import Options
from tunesmith.records import Asked, Constraint, Ended, Event, Failed, Goal, Resume, Start, Told
from tunesmith.rng import Streams
from tunesmith.schedulers._outlook import RIVAL, Outlook
from tunesmith.schedulers._slices import Slices
from tunesmith.schedulers.base import Defaults
from tunesmith.space import Space

MOST_STEPS = 100_000  #: steps of a curve


def _check_steps(name: str, max_steps: int) -> None:
    """Every step of every curve is looked at."""
    if max_steps > MOST_STEPS:
        raise ValueError(
            f"{name}: max_steps={max_steps} must be at most {MOST_STEPS}: let a step be more of the training"
        )


def _one_goal(name: str, goals: Sequence[Goal]) -> None:
    if len(goals) > 1:
        raise ValueError(f"{name} extrapolates one goal, the study has {len(goals)}: make the others constraints")


@dataclass
class Terminating:
    """State of predictive termination: all trials that may go on, and what is known of curves."""

    slices: Slices
    outlook: Outlook


class PredictiveTermination(Options, Defaults, frozen=True):
    """Start one trial after the other, train them slice by slice, and stop those that will hardly beat the best one.

    At the end of a slice a trial is stopped if the probability that its value at ``max_steps`` is better than the best
    one so far of a trial that was trained in full is less than ``delta``, and less than half of that of a new trial.
    Some are spared, so that a tenth of all steps checks whether the model is right.

    The best value is that of a trial that breaks no outcome constraint. Whether one will be broken is not predicted.

    Args:
        max_steps: of a trial that is not stopped.
        every: steps of a slice.
        delta: a trial with less chance is stopped. Greater values stop more.
        min_steps: nothing is stopped before; the first slice is that long, rounded up to a multiple of ``every``.
        min_trials: nothing is stopped before so many trials were trained in full.
    """

    max_steps: int
    every: int = 1
    delta: float = 0.05
    min_steps: int = 1
    min_trials: int = 5

    def __post_init__(self) -> None:
        name = "PredictiveTermination"
        for field_ in ("every", "min_steps"):
            if not 1 <= getattr(self, field_) <= self.max_steps:
                raise ValueError(
                    f"{name}: {field_}={getattr(self, field_)} must be from 1 to max_steps={self.max_steps}"
                )
        if not 0 < self.delta < 1:
            raise ValueError(f"{name}: delta={self.delta} must be in (0, 1)")
        if self.min_trials < 1:
            raise ValueError(f"{name}: min_trials={self.min_trials} must be at least 1")
        _check_steps(name, self.max_steps)

    @property
    def horizon(self) -> int:
        """The last step of a trial."""
        return self.max_steps

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> Terminating:
        """No trial yet.

        Raises:
            ValueError: the study has more than one goal.
        """
        _one_goal("PredictiveTermination", goals)
        slices = Slices(self.max_steps, self.every, self.min_steps, goals, constraints)
        return Terminating(slices, Outlook(self.max_steps, goals, constraints))

    def tell(self, state: Terminating, event: Event) -> Terminating:
        """Note what was told; at the end of a slice, judge the trial."""
        state.outlook.tell(event)
        course = state.slices.tell(event)
        if course is not None and not course.over:
            judge = state.slices.ends(course.step) and course.trial not in state.outlook.spared
            hopeless = judge and self._hopeless(state.outlook, course.trial, course.step)
            state.slices.settle(course, hopeless and not state.outlook.spare(course.trial, course.step))
        return state

    def _hopeless(self, outlook: Outlook, trial: int, step: int) -> bool:
        """Whether a trial will hardly beat the best one."""
        if outlook.finished < self.min_trials or math.isinf(outlook.best):
            return False
        outlook.learn()
        (chance,), newcomer = outlook.chances([trial], outlook.best), outlook.newcomer(outlook.best)
        outlook.judged(step, chance, newcomer)
        return outlook.corrected(step, chance) < min(self.delta, RIVAL * newcomer)

    def ask(self, state: Terminating, streams: Streams, starts: bool = True, repeats: bool = True) -> Start | Resume:
        """The next slice of the best trial that was not stopped and waits; where none does, a new trial."""
        return state.slices.ask()

    def keep(self, state: Terminating) -> Iterable[tuple[int, int]]:
        """Where the trials stand that wait for their next slice."""
        return state.slices.waiting.items()


@dataclass
class Basket:
    """State of freeze-thaw.

    Attributes:
        outlook: what is known of curves.
        out: by trial in training, where its job ends.
        frozen: by trial that may be thawed, where it stands.
        chances: of the frozen ones to beat ``mark``, not yet corrected.
        newcomer: the chance of a new trial.
        mark: the value to beat.
    """

    outlook: Outlook
    out: dict[int, int] = field(default_factory=dict)
    frozen: dict[int, int] = field(default_factory=dict)
    chances: dict[int, float] = field(default_factory=dict)
    newcomer: float = 1.0
    mark: float = math.inf

    def chance(self, trial: int) -> float:
        """Of a frozen trial."""
        return self.outlook.corrected(self.frozen[trial], self.chances[trial])

    def rank(self, trial: int) -> tuple[float, int]:
        """The greater, the better; of equal trials the older is better."""
        return self.chance(trial), -trial

    def hopeless(self, trial: int) -> bool:
        """Whether a new trial is much more promising than a frozen one."""
        return self.chance(trial) < RIVAL * self.newcomer

    def drop(self, trial: int) -> None:
        """A trial is no longer frozen."""
        self.frozen.pop(trial, None)
        self.chances.pop(trial, None)


class FreezeThaw(Options, Defaults, frozen=True):
    """Advance the most promising trial by a slice, whichever it is by now, or start a new one.

    After each slice a trial is frozen, and may be thawed at any time. The next slice goes to the frozen trial with the
    greatest probability that its value at ``max_steps`` is better than the best one so far of a trial that was trained
    in full (while there is none: than the best forecast), as long as this is at least half of the probability for a new
    trial. When no more trials can be started it ends there, if one was trained in full. Jobs that are out change
    nothing in this order, so any number of workers take the next trials in it. Some of the trials that fall behind new
    ones are trained to the end nevertheless: a tenth of all steps checks whether the model is right.

    The best value is that of a trial that breaks no outcome constraint. Whether one will be broken is not predicted.

    Args:
        max_steps: of a trial that comes to the end.
        every: steps of a slice.
        basket: so many trials are frozen at most, each with a checkpoint; the least promising one is given up.
    """

    max_steps: int
    every: int = 1
    basket: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.every <= self.max_steps:
            raise ValueError(f"FreezeThaw: every={self.every} must be from 1 to max_steps={self.max_steps}")
        if self.basket < 1:
            raise ValueError(f"FreezeThaw: basket={self.basket} must be at least 1")
        _check_steps("FreezeThaw", self.max_steps)

    @property
    def horizon(self) -> int:
        """The last step of a trial."""
        return self.max_steps

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> Basket:
        """No trial yet.

        Raises:
            ValueError: the study has more than one goal.
        """
        _one_goal("FreezeThaw", goals)
        return Basket(Outlook(self.max_steps, goals, constraints))

    def tell(self, state: Basket, event: Event) -> Basket:
        """Note what was told; at the end of a slice, freeze the trial and compare it with the others."""
        state.outlook.tell(event)
        if type(event) is Asked:
            state.out[event.trial] = event.until
            state.drop(event.trial)
        elif type(event) is Failed:
            state.out.pop(event.trial, None)
        elif type(event) is Told and event.step >= state.out[event.trial]:
            del state.out[event.trial]
            if event.step < self.max_steps:
                state.frozen[event.trial] = event.step
            self._weigh(state, event.trial)
        elif type(event) is Ended and event.trial in state.frozen:
            state.drop(event.trial)
            self._weigh(state, event.trial)
        return state

    def _weigh(self, state: Basket, trial: int) -> None:
        """The chances of the trial that has come in, and of all others where the value to beat or the fit is new."""
        outlook = state.outlook
        new = outlook.learn()
        mark = outlook.best
        if math.isinf(mark):
            mark = outlook.lowest([*state.frozen, *state.out]) if new else state.mark
        others = list(state.frozen) if new or mark != state.mark else [t for t in (trial,) if t in state.frozen]
        if others:
            state.chances |= zip(others, outlook.chances(others, mark), strict=True)
        state.mark, state.newcomer = mark, outlook.newcomer(mark)
        if trial in state.frozen:
            outlook.judged(state.frozen[trial], state.chances[trial], state.newcomer)
            if trial not in outlook.spared and state.hopeless(trial):
                outlook.spare(trial, state.frozen[trial])
        waiting = [frozen for frozen in state.frozen if frozen not in outlook.spared]
        if len(waiting) > self.basket:
            state.drop(min(waiting, key=state.rank))

    def ask(self, state: Basket, streams: Streams, starts: bool = True, repeats: bool = True) -> Start | Resume | None:
        """A slice of the most promising trial, or a new one."""
        spared = next((trial for trial in state.frozen if trial in state.outlook.spared), None)
        if spared is not None:
            return self._thaw(state, spared)
        best = max(state.frozen, key=state.rank, default=None)
        if best is not None and not state.hopeless(best):
            return self._thaw(state, best)
        if starts:
            return Start(self.every)
        return None if best is None or math.isfinite(state.outlook.best) else self._thaw(state, best)

    def _thaw(self, state: Basket, trial: int) -> Resume:
        return Resume(trial, min(state.frozen[trial] + self.every, self.max_steps))

    def keep(self, state: Basket) -> Iterable[tuple[int, int]]:
        """Where the frozen trials stand."""
        return state.frozen.items()
