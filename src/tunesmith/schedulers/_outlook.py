"""What learning curves promise: what the schedulers that extrapolate share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tunesmith.curves import Extrapolator, Forecast
from tunesmith.noise import Floats
from tunesmith.records import Constraint, Ended, Event, Failed, Goal, Told, losses, violation

GROWTH = 1.2  #: curves are fitted anew when so many times as many values were told, or trials finished
EVEN = 5.0  #: before anyone was judged at a step, so many are taken to have been as promising as new ones
RIVAL = 0.5  #: a trial with less than this share of the chance of a new one is hopeless
SPARE = 0.1  #: so much of all steps goes to hopeless trials


@dataclass
class Outlook:
    """The curves of all trials, and their chances to beat the best one at ``max_steps``. First ``learn``, then ask.

    Chances are corrected by what is known without a model: on the average over all trials that are judged at one step,
    the chance is that of a new trial. Where it comes out smaller, the model sees too little hope in all of them, and
    chances at this step are raised. The correction is right for the first judgement of a trial and on the safe side
    later, when the hopeless ones are gone.

    Some hopeless trials are *spared*: trained to the end for what can be learned from them about the model. It is a
    small share of all steps, and the only way to find out where it is wrong.

    Attributes:
        curves: by trial, the losses after the steps 1, 2, ...; NaN where none was told.
        best: the best value at ``max_steps`` of a trial that breaks no constraint; inf where there is none.
        finished: how many trials have come there.
        spared: trials that are trained to the end whatever their chance.
    """

    max_steps: int
    goals: Sequence[Goal]
    constraints: Sequence[Constraint]
    curves: dict[int, list[float]] = field(default_factory=dict)
    best: float = math.inf
    finished: int = 0
    spared: set[int] = field(default_factory=set)
    _steps: int = 0  # with a value, of all trials
    _broken: dict[int, bool] = field(
        default_factory=dict
    )  # by trial: whether it breaks a constraint with its last values
    _spent: int = 0  # steps that spared trials take
    _extrapolator: Extrapolator | None = None
    _fitted: tuple[int, int] = (0, 0)
    _newcomer: tuple[float, float] = (math.nan, 0.0)  # of this fit: a value to beat, and the chance of a new trial
    _ratios: dict[int, tuple[float, int]] = field(default_factory=dict)  # by step: sum and number

    def tell(self, event: Event) -> None:
        """Fold an event."""
        if type(event) is Failed:
            self.curves.pop(event.trial, None)
        elif type(event) is Ended:
            self._ended(event.trial)
        elif type(event) is Told:
            curve = self.curves.setdefault(event.trial, [])
            before = len(curve)
            del curve[event.start :]  # told again, from an earlier checkpoint on
            curve += [math.nan] * (event.start - len(curve))
            curve += (losses(self.goals, event.metrics, index)[0] for index in range(event.step - event.start))
            self._steps += len(curve) - before
            self._broken[event.trial] = violation(self.constraints, event.metrics) > 0
            if event.start < self.max_steps <= event.step:
                self.finished += 1
                last = curve[self.max_steps - 1]
                broken = violation(self.constraints, event.metrics, self.max_steps - event.start - 1)
                self.best = min(self.best, last) if broken == 0 else self.best

    def _ended(self, trial: int) -> None:
        """The training has come to its end by itself: the curve goes on as it was last."""
        curve = self.curves.get(trial, [])
        if curve and len(curve) < self.max_steps:
            curve += [curve[-1]] * (self.max_steps - len(curve))
            self.finished += 1
            self.best = self.best if self._broken[trial] else min(self.best, curve[-1])

    def learn(self) -> bool:
        """Take all curves into account, where there are enough more than before; whether that was so."""
        steps, finished = self._fitted
        due = self._steps > steps * GROWTH or self.finished > finished * GROWTH
        if due:
            every = np.arange(1, self.max_steps + 1)
            self._extrapolator = Extrapolator(every, self._matrix(list(self.curves)), self.max_steps)
            self._fitted = self._steps, self.finished
            self._newcomer = math.nan, 0.0
        return due

    def chances(self, trials: Sequence[int], best: float) -> list[float]:
        """How likely each of the trials will beat ``best``, not yet corrected."""
        found: list[float] = self._forecast(trials).below(best).tolist()
        return found

    def newcomer(self, best: float) -> float:
        """How likely a new trial will beat ``best``."""
        if self._newcomer[0] != best:
            self._newcomer = best, float(self._forecast([None]).below(best)[0])
        return self._newcomer[1]

    def lowest(self, trials: Sequence[int]) -> float:
        """The lowest median forecast of trials; inf where there are none."""
        return float(self._forecast(trials).median.min(initial=math.inf))

    def _forecast(self, trials: Sequence[int | None]) -> Forecast:
        """Where trials will end by what was learned so far; None is a new trial."""
        assert self._extrapolator is not None, "learn first"
        return self._extrapolator.forecast(self._matrix(trials))

    def _matrix(self, trials: Sequence[int | None]) -> Floats:
        """The curves of trials [n, max_steps]; NaN where there is no value, None is a new trial."""
        found = np.full((len(trials), self.max_steps), np.nan)
        for row, trial in zip(found, trials, strict=True):
            curve = [] if trial is None else self.curves.get(trial, [])[: self.max_steps]
            row[: len(curve)] = curve
        return found

    def judged(self, step: int, chance: float, newcomer: float) -> None:
        """Note what chance a trial had at a step, beside that of a new one."""
        total, count = self._ratios.get(step, (0.0, 0))
        self._ratios[step] = total + (chance / newcomer if newcomer > 0 else 1.0), count + 1

    def corrected(self, step: int, chance: float) -> float:
        """The chance of a trial that was judged at a step."""
        total, count = self._ratios.get(step, (0.0, 0))
        return min(1.0, chance / min(1.0, (EVEN + total) / (EVEN + count)))

    def spare(self, trial: int, step: int) -> bool:
        """Whether a hopeless trial at a step is spared, as far as there are steps for it."""
        left = self.max_steps - step
        if self._spent + left > SPARE * self._steps:
            return False
        self._spent += left
        self.spared.add(trial)
        return True
