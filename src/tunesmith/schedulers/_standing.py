"""How members of a population stand: who is better, and what each interval of training was worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from tunesmith import pareto
from tunesmith.space import Config


class Standing(msgspec.Struct, frozen=True, order=True, gc=False):
    """How a member stood when it was last told: ordered by constraints, loss, and age where these are equal."""

    broken: float
    """Total by which outcome constraints are broken, 0 where all hold; inf where one is not known."""
    losses: tuple[float, ...]
    """Of all goals."""
    trial: int
    slot: int
    step: int
    recent: tuple[tuple[int, float], ...] = ()
    """Steps and losses of the first goal, the newest last, as many as the exploit rule looks at."""

    def beats(self, other: Standing) -> bool:
        """Whether it is nowhere worse than another one and somewhere better: of one goal, whether it is better."""
        if self.broken != other.broken:
            return self.broken < other.broken
        pairs = list(zip(self.losses, other.losses, strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def ranked(rung: Sequence[Standing]) -> Sequence[Standing]:
    """The members on a rung, which is sorted, the best first.

    Several goals: by Pareto rank and by crowding within a rank (Deb et al. 2002); see :func:`tunesmith.pareto.order`.
    """
    if not rung or len(rung[0].losses) == 1:
        return rung
    members = sorted(rung, key=lambda one: one.trial)
    excess = np.array([[one.broken] for one in members])
    places = pareto.order(np.array([one.losses for one in members]), excess)
    return [members[row] for row in np.argsort(places)]


class Gain(NamedTuple):
    """An interval of training and what it was worth: from the losses ``before`` at ``start`` to those ``after`` it.

    ``after`` is None for an interval that is still out or has failed, ``until`` is where it (would have) ended,
    ``slot`` the place in the population.
    """

    start: int
    until: int
    config: Config
    before: tuple[float, ...]
    after: tuple[float, ...] | None = None
    slot: int = -1


class Past(NamedTuple):
    """What an explore rule that learns goes by.

    Attributes:
        step: the copy begins here.
        losses: of the weights that it begins with.
        ready: steps between two decisions.
        gains: all intervals that have ended, the failed among them, in the order of their ends.
        pending: those that are out.
    """

    step: int
    losses: tuple[float, ...]
    ready: int
    gains: Sequence[Gain] = ()
    pending: Sequence[Gain] = ()
