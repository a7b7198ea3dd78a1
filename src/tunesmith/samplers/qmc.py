"""Quasi-random search: low-discrepancy sequences (Bousquet et al. 2017, arXiv:1706.03200)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import ClassVar, Literal

import msgspec
import numpy as np

from tunesmith.records import Constraint, Event, Goal
from tunesmith.samplers.base import Point, Walk
from tunesmith.space import Space

BLOCK = 64  #: points drawn at once: a power of two, as Sobol's balance wants
REPEATS = 64  #: points that were tried already which one ask passes over before it gives in to one of them
BARREN = 4096  #: points in a row that may break the constraints


class QMC(msgspec.Struct, frozen=True):
    """A scrambled Sobol or Halton sequence, covering the space more evenly than random draws do.

    Points that break a constraint or were tried already are passed over; where the constraints allow none for long,
    random draws follow. Where parameters add up to a total, the sequence covers what that leaves.

    Args:
        sequence: ``"sobol"`` (Owen-scrambled) or ``"halton"`` (randomised by permutations).
    """

    sequence: Literal["sobol", "halton"] = "sobol"

    learns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.sequence not in ("sobol", "halton"):
            raise ValueError(f"QMC: sequence={self.sequence!r} must be 'sobol' or 'halton'")

    def init(
        self, space: Space, goals: Sequence[Goal], rng: np.random.Generator, constraints: Sequence[Constraint] = ()
    ) -> Walk:
        """A walk along the sequence, scrambled with the study's own randomness."""
        return Walk(space, _points(space, self.sequence, rng))

    def tell(self, state: Walk, event: Event) -> Walk:
        """Pass over what was tried."""
        state.tell(event)
        return state

    def ask(self, state: Walk, rng: np.random.Generator, until: int = 1) -> Point | None:
        """The first point of the sequence that was not tried."""
        return state.next(REPEATS)


def design(space: Space, rng: np.random.Generator) -> Walk:
    """The points with which samplers begin that have nothing to go by yet, without end.

    The first is the default where experts have said what they believe best: the modes of the priors, and the middle or
    the first option of the rest. Then follows a scrambled Sobol sequence; draws where the constraints leave little.
    """
    return Walk(space, chain(_default(space), _points(space, "sobol", rng)))


def _default(space: Space) -> Iterator[Point]:
    if any(column.prior for column in space.columns):
        middles = (0.0 if column.kind == "unordered" else 0.5 for column in space.columns)
        modes = (column.prior[0] if column.prior else u for column, u in zip(space.columns, middles, strict=True))
        point = space.snap(np.fromiter(modes, dtype=np.float64))
        if space.allows(point):
            yield point


def _points(space: Space, sequence: str, rng: np.random.Generator) -> Iterator[Point]:
    """The points of the sequence that the constraints allow; where they allow none for long, draws without end."""
    from scipy.stats import qmc

    seed = int(rng.integers(2**63))  # scipy wants to spawn from a seed sequence, which a named stream has not
    engine = (qmc.Sobol if sequence == "sobol" else qmc.Halton)(max(1, len(space.columns)), scramble=True, rng=seed)
    barren = 0
    while barren < BARREN:
        block = space.spread(engine.random(BLOCK)[:, : len(space.columns)])
        allowed = [point for point in block if space.allows(point)]
        yield from allowed
        barren = 0 if allowed else barren + BLOCK
    yield from (space.encode(space.sample(rng)) for _ in repeat(None))
