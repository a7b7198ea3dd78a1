"""The protocol of a scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from tunesmith.records import Decision, Event, Goal
from tunesmith.space import Space

S = TypeVar("S")


class Scheduler(Protocol[S]):
    """Which job is next. Hyperparameters stand in the object, frozen; the state is a separate record.

    A scheduler is a fold over the log: the same events give the same state, and ``ask`` never changes it.
    """

    repeats: ClassVar[bool]
    """Whether two trials may have the same configuration (a population, where the weights differ)."""

    def init(self, space: Space, goals: Sequence[Goal]) -> S:
        """The state before the first event."""
        ...

    def tell(self, state: S, event: Event) -> S:
        """The state after an ``Asked``, a ``Told`` or a ``Failed`` that ended its trial."""
        ...

    def ask(self, state: S, rng: np.random.Generator) -> Decision | None:
        """The next job; None where there is nothing to do, now (while a job is out) or for good."""
        ...

    def keep(self, state: S) -> Iterable[tuple[int, int]]:
        """The checkpoints, as (trial, step), that a later ``Resume`` or ``Fork`` may start from."""
        ...
