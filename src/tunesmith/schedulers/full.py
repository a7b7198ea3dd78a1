"""Every trial is trained to the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec
import numpy as np

from tunesmith.records import Constraint, Event, Goal, Repeat, Start
from tunesmith.schedulers.base import Runs
from tunesmith.space import Space


class Full(msgspec.Struct, frozen=True):
    """Start one trial after the other and train each for ``steps`` steps.

    Args:
        steps: of every trial.
        seeds: every configuration is trained so often, each time as a trial of its own with another seed, before the
            next configuration begins (or at once, as workers are free). One is given up early when at least half of its
            trials have failed: code that raises is not called again for the same configuration.
    """

    steps: int = 1
    seeds: int = 1
    repeats: ClassVar[bool] = False
    endless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Full: steps={self.steps} must be at least 1")
        if self.seeds < 1:
            raise ValueError(f"Full: seeds={self.seeds} must be at least 1")

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> Runs:
        """No configuration yet."""
        return Runs(self.steps, self.seeds, space, goals, constraints)

    def tell(self, state: Runs, event: Event) -> Runs:
        """Count the trials of every configuration, where there may be several."""
        if self.seeds > 1:
            state.tell(event)
        return state

    def ask(self, state: Runs, rng: np.random.Generator, starts: bool = True) -> Start | Repeat:
        """A repeat of the oldest configuration that lacks one, or else another configuration."""
        if state.owed:
            return Repeat(state.trials[min(state.owed)], self.steps)
        return Start(self.steps)

    def keep(self, state: Runs) -> Iterable[tuple[int, int]]:
        """No trial is ever continued."""
        return ()
