"""Every trial is trained to the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec
import numpy as np

from tunesmith.records import Event, Goal, Start
from tunesmith.space import Space


class Full(msgspec.Struct, frozen=True):
    """Start one trial after the other and train each for ``steps`` steps."""

    steps: int = 1
    repeats: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Full: steps={self.steps} must be at least 1")

    def init(self, space: Space, goals: Sequence[Goal]) -> None:
        """There is nothing to remember."""

    def tell(self, state: None, event: Event) -> None:
        """Nothing is learned."""

    def ask(self, state: None, rng: np.random.Generator) -> Start:
        """Always another trial."""
        return Start(self.steps)

    def keep(self, state: None) -> Iterable[tuple[int, int]]:
        """No trial is ever continued."""
        return ()
