"""Which rungs order trials as their end does: learned from a few trials that are trained in full, good or bad.

Where early values mislead, stopping by them is worse than random search. Hyper-Tune (Li et al. 2022, arXiv:2201.06834)
weighs brackets by how well the models of their rungs order the trials that were trained in full; here it is the values
themselves, and the trials are an unbiased sample: nobody has selected them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tunesmith.records import Asked, Goal, Told, losses

PROBES = 2  #: so many trials are trained in full before anything else: the first pair,
SHARE = 0.2  #: and later this share of all steps goes to such trials
AGREE = 0.7  #: a rung is trusted when so many pairs of them stand there in the order of their end,
PRIOR = (0.75, 3)  #: where this share of so many pairs is assumed beforehand

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Trust:
    """The lowest rung that is trusted, and whether another trial is to be trained in full to know it better.

    Args:
        steps: of the rungs.
        goals: of the study.

    Attributes:
        first: a rung is trusted where all rungs above it are too.
    """

    steps: tuple[int, ...]
    goals: Sequence[Goal]
    first: int = 0
    _curves: dict[int, Floats] = field(default_factory=dict)  # by trial that is being trained in full: [rungs, goals]
    _ended: list[Floats] = field(default_factory=list)
    _asked: int = 0  # steps of these trials
    _spent: int = 0  # steps of all

    @property
    def wanted(self) -> bool:
        """Whether another trial is to be trained in full."""
        return self._asked < PROBES * self.steps[-1] or self._asked <= SHARE * self._spent

    def asked(self, event: Asked) -> None:
        """Steps are to be trained; in full where a new trial begins on the last rung."""
        self._spent += event.until - event.start
        if event.start == 0 and event.until == self.steps[-1]:
            self._asked += event.until
            self._curves[event.trial] = np.full((len(self.steps), len(self.goals)), np.nan)

    def told(self, event: Told) -> None:
        """Note what a trial that is trained in full is worth at the rungs."""
        curve = self._curves.get(event.trial)
        if curve is None:
            return
        count = len(next(iter(event.metrics.values()), ()))
        for k, step in enumerate(self.steps):
            index = step - event.start - 1
            if 0 <= index < count:
                curve[k] = losses(self.goals, event.metrics, index)
        if event.step >= self.steps[-1]:
            self._ended.append(self._curves.pop(event.trial))
            self._judge()

    def failed(self, trial: int) -> None:
        """The trial did not come to its end."""
        self._curves.pop(trial, None)

    def _judge(self) -> None:
        """Agreement of every rung with the last one, over all pairs of trials and all goals."""
        curves = np.array(self._ended)
        one, other = np.triu_indices(len(curves), 1)
        order = np.sign(curves[one] - curves[other])  # [pairs, rungs, goals]
        agree = (order[:, :-1] * order[:, -1:] + 1) / 2
        known = ~np.isnan(agree)
        share, weight = PRIOR
        counts = known.sum(axis=(0, 2)) / len(self.goals)
        sums = np.where(known, agree, 0.0).sum(axis=(0, 2)) / len(self.goals)
        trusted = (sums + share * weight) / (counts + weight) >= AGREE
        broken = np.flatnonzero(~trusted)
        self.first = int(broken[-1]) + 1 if len(broken) else 0
