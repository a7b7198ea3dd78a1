"""Quasi-random search: low-discrepancy sequences (Bousquet et al. 2017, arXiv:1706.03200)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from tunesmith.hints import Options
from tunesmith.records import Constraint, Event, Goal
from tunesmith.samplers._prior import believed, draw, fading
from tunesmith.samplers.base import Point, Points, Walk
from tunesmith.space import Space

BLOCK = 64  #: points drawn at once: a power of two, as Sobol's balance wants
REPEATS = 64  #: points that were tried already which one ask passes over before it gives in to one of them
BARREN = 4096  #: points in a row that may break the constraints before the sequence is given up


class QMC(Options, frozen=True):
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
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> Walk:
        """A walk along the sequence, scrambled with the study's own randomness."""
        seed = _seed(rng)
        return Walk(space, Points(space, partial(_points, space, self.sequence, seed)), seed, duplicates)

    def tell(self, state: Walk, event: Event) -> Walk:
        """Pass over what was tried."""
        state.tell(event)
        return state

    def ask(self, state: Walk, rng: np.random.Generator, until: int = 1) -> Point | None:
        """The first point of the sequence that was not tried."""
        return state.next(REPEATS)


def design(space: Space, rng: np.random.Generator, duplicates: bool = False, priors: bool = False) -> Walk:
    """The points with which samplers begin that have nothing to go by yet, without end.

    The first is the default where experts have said what they believe best: the modes of the priors, and the middle or
    the first option of the rest. Then follows a scrambled Sobol sequence; draws where the constraints leave little.

    Args:
        space: where.
        rng: source of randomness.
        duplicates: whether configurations that were tried are proposed again.
        priors: whether a share of the sequence is drawn from the priors: half of the points at first, then fewer.
    """
    seed = _seed(rng)
    return Walk(space, Points(space, partial(_design, space, seed, priors)), seed, duplicates)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))  # scipy wants to spawn from a seed sequence, which a named stream has not


def _design(space: Space, seed: int, priors: bool) -> Iterator[Point]:
    if believed(space.columns):
        middles = (0.0 if column.kind == "unordered" else 0.5 for column in space.columns)
        modes = (column.prior[0] if column.prior else u for column, u in zip(space.columns, middles, strict=True))
        point = space.snap(np.fromiter(modes, dtype=np.float64))
        if space.allows(point):
            yield point
    yield from _points(space, "sobol", seed, priors)


def _points(space: Space, sequence: str, seed: int, priors: bool = False) -> Iterator[Point]:
    """The points of the sequence that the constraints allow; it ends where they allow none for long.

    With ``priors`` some points are turned into draws from the priors. As many of the first n as the share sums up to.
    """
    from scipy.stats import qmc

    engine = (qmc.Sobol if sequence == "sobol" else qmc.Halton)(max(1, len(space.columns)), scramble=True, rng=seed)
    number, share, barren = 0, 0.0, 0
    while barren < BARREN:
        block = engine.random(BLOCK)[:, : len(space.columns)]
        if priors and believed(space.columns):
            shares = share + np.cumsum(fading(np.arange(number, number + BLOCK)))
            chosen = np.floor(shares) > np.floor([share, *shares[:-1]])
            block[chosen] = draw(space.columns, block[chosen])
            number, share = number + BLOCK, float(shares[-1])
        allowed = [point for point in space.spread(block) if space.allows(point)]
        yield from allowed
        barren = 0 if allowed else barren + BLOCK
