"""Close contenders are trained again until it is clear which of them is the best.

Racing (Maron and Moore 1994, "Hoeffding races"; Birattari et al. 2002, "A racing algorithm for configuring
metaheuristics") trains configurations with further seeds as long as they can't be told apart from the best one. As in
SMAC's intensification (Hutter, Hoos and Leyton-Brown 2011, "Sequential model-based optimization for general algorithm
configuration") a new configuration is raced against the incumbent as it comes, and half of the evaluations at most go
into the race.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tunesmith import check
from tunesmith.hints import Options
from tunesmith.noise import fit
from tunesmith.records import Constraint, Event, Goal, Repeat, Resume, Start
from tunesmith.rng import Streams
from tunesmith.schedulers.base import Defaults, Runs
from tunesmith.space import Space

SURE = 3  #: repeats that the noise is estimated from before it is believed


class Race(Options, Defaults, frozen=True):
    """Start one trial after the other, and train the best configurations again where noise may have decided.

    The incumbent is the configuration with the best posterior mean (:mod:`tunesmith.noise`), as for ``study.best``.
    The others whose difference from it is within ``reach`` standard deviations are contenders. The likeliest one to be
    better and the incumbent are a pair, and of the two the one with fewer trials is repeated; ties are the contender's.
    Trials that are out count as if they had come in. Where repeats have given the same value every time, nothing is
    repeated any more. Of several goals it is the first that is raced for.

    Trials that stand short of ``steps``, since they were trained under a scheduler with fewer, go on first. In a finite
    space in which everything was tried, the study ends when the race is decided, even if more trials were
    allowed: when no contender is left, or each was trained ``seeds`` times.

    Args:
        steps: of every trial, at the most: one by default.
        seeds: no configuration is trained more often.
        first: every configuration is trained so often before it is judged, unless it is given up (see ``Full``).
        share: so much of all trials at most goes into the race, beyond those that ``first`` asks for.
        reach: of a contender. Large values settle who is the best with more certainty, small ones leave more for new
            configurations.
    """

    steps: int = 1
    seeds: int = 10
    first: int = 1
    share: float = 0.5
    reach: float = 2.0

    def __post_init__(self) -> None:
        check.whole("Race", 1, steps=self.steps, first=self.first)
        check.whole("Race", 2, seeds=self.seeds)
        if self.first > self.seeds:
            raise ValueError(f"Race: first={self.first} must be from 1 to seeds={self.seeds}")
        check.inside("Race", 0, 1, share=self.share)
        check.real("Race", reach=self.reach)
        if not self.reach > 0:
            raise ValueError(f"Race: reach={self.reach} must be over 0")

    @property
    def horizon(self) -> int:
        """The last step of a trial."""
        return self.steps

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> Runs:
        """No configuration yet."""
        return Runs(self.steps, self.first, space, goals, constraints)

    def tell(self, state: Runs, event: Event) -> Runs:
        """Count trials and values of every configuration."""
        state.tell(event)
        return state

    def ask(
        self, state: Runs, streams: Streams, starts: bool = True, repeats: bool = True
    ) -> Start | Repeat | Resume | None:
        """A trial that stands short of the end; a repeat where a configuration lacks one or the race needs one; or else
        another configuration.

        Where there is no other configuration, everything that is left goes into the race.
        """
        if state.short:
            return Resume(min(state.short), self.steps)
        if state.owed and repeats:
            return Repeat(state.trials[min(state.owed)], self.steps)
        affordable = state.extra + 1 <= self.share * (state.total + 1) or not starts
        trial = self._raced(state) if affordable and repeats else None
        if trial is not None:
            return Repeat(trial, self.steps)
        return Start(self.steps) if starts else None

    def keep(self, state: Runs) -> Iterable[tuple[int, int]]:
        """Where the trials stand that will go on."""
        return state.short.items()

    def message(self, state: Runs) -> str:
        """That the race is decided, where it is."""
        judged = bool((state.counts > state.failed).any())
        if not judged or state.owed or self._raced(state) is not None:
            return ""
        return f"the race is decided: no other configuration may be the best, or they were trained {self.seeds} times"

    def _raced(self, state: Runs) -> int | None:
        """The trial that the race is to repeat."""
        rows = np.flatnonzero(state.counts > state.failed)
        if len(rows) < 2:
            return None
        begun = state.begun[rows]
        counts, observed, squares = state.judged(rows)
        noise = fit(observed, counts, squares)
        if noise.freedom >= SURE and noise.within == 0:
            return None
        means = noise.means(observed, counts)
        best = int(means.argmin())
        gaps = means - means[best]
        if noise.freedom >= SURE:
            variances = noise.variances(begun)
            gaps /= np.sqrt(variances + variances[best])
            gaps[gaps > self.reach] = np.inf
        gaps[best] = np.inf
        room = begun < self.seeds
        if not room[best]:
            gaps[~room] = np.inf
        rival = int(gaps.argmin())
        if np.isinf(gaps[rival]):
            return None
        pair = [row for row in (rival, best) if room[row]]
        return state.trials[int(rows[min(pair, key=lambda row: float(begun[row]))])]
