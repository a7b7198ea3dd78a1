"""PriorBand (Mallik et al. 2023, arXiv:2306.12370): experts' beliefs for trials that are stopped early.

A new trial is drawn uniformly, from the experts' priors, or near the best trial so far, the incumbent. The shorter a
trial is at first, the more often it is a uniform draw; between the other two the results decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from tunesmith.hints import Options
from tunesmith.pareto import order
from tunesmith.records import Constraint, Event, Goal
from tunesmith.samplers._prior import draw, log_prior
from tunesmith.samplers.base import Floats, History, Point, Walk, random_point
from tunesmith.samplers.evolution import TRIES, admitted, completed, moved
from tunesmith.samplers.qmc import design
from tunesmith.space import Column, Space


@dataclass(slots=True)
class State:
    """The history, and the initial design: its first point is the one that the experts believe best."""

    history: History
    initial: Walk


class PriorBand(Options, frozen=True):
    """Draws that are uniform, from the experts' priors, or near the incumbent.

    A trial that is trained at first for ``eta^r`` times the steps of the shortest ones is drawn uniformly with
    probability ``1 / (1 + eta^r)``. The rest goes to the priors, until some rung has ``eta`` results. Then it is shared
    by the priors and the incumbent: in proportion to their densities at the best ``1 / eta`` trials of the highest such
    rung, of which the best one weighs most. The prior of a parameter of which experts have said nothing is uniform. The
    very first trial is the one that they believe best.

    With several goals or outcome constraints the order of trials is that of constrained domination, then crowding. With
    several goals the incumbent is any of those best, drawn by their weights.

    Args:
        eta: the best ``1 / eta`` of a rung count; the same as the scheduler's.
        mutation: probability with which a parameter of the incumbent is changed (one of them in any case).
        scale: deviation of the largest change of a number, in the unit cube; changes down to a tenth of it occur.
    """

    eta: int = 3
    mutation: float = 0.5
    scale: float = 0.25

    def __post_init__(self) -> None:
        if self.eta < 2:
            raise ValueError(f"PriorBand: eta={self.eta} must be at least 2")
        if not 0 < self.mutation <= 1:
            raise ValueError(f"PriorBand: mutation={self.mutation} must be in (0, 1]")
        if not 0 < self.scale < 1:
            raise ValueError(f"PriorBand: scale={self.scale} must be in (0, 1)")

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> State:
        """Nothing is told yet."""
        return State(History(space, goals, constraints, duplicates), design(space, rng, duplicates))

    def tell(self, state: State, event: Event) -> State:
        """Fold an event into the history."""
        state.initial.tell(event)
        state.history.tell(event)
        return state

    def ask(self, state: State, rng: np.random.Generator, until: int = 1) -> Point | None:
        """A draw from one of the three that is allowed and, if it can be had in a few tries, was not tried yet."""
        history, space = state.history, state.history.space
        if not history.size:
            return state.initial.next(TRIES)
        if rng.random() < uniform_share(history, until):
            return random_point(space, rng, history.points)
        best = self.best(history)
        if len(best):
            weights = np.arange(len(best), 0, -1) / np.arange(len(best) + 1).sum()
            incumbent = best[0] if len(history.goals) == 1 else rng.choice(best, p=weights)
            if rng.random() < self.incumbent_share(space.columns, incumbent, best, weights):

                def mutate(point: Point) -> Point:
                    return self.mutate(space, point, rng, history.size, same=history.duplicates)

                return admitted(history, incumbent, mutate, rng)
        return admitted(history, history.points[0], lambda _: from_prior(space, rng), rng)

    def best(self, history: History) -> Floats:
        """The best ``1 / eta`` of the highest rung with at least ``eta`` results, the best first: [k, d], or [0, d]."""
        for step in reversed(history.rungs):
            rung = history.rung(step)
            if len(rung.rows) >= self.eta:
                places = order(rung.losses, rung.excess)
                return np.take(history.points, rung.rows[np.argsort(places)[: len(places) // self.eta]], axis=0)
        return np.empty((0, len(history.space.columns)))

    def incumbent_share(self, columns: Sequence[Column], incumbent: Point, best: Floats, weights: Floats) -> float:
        """What share the incumbent has of all that is not uniform, by the densities at the best trials [k, d].

        The incumbent's density is that of a prior whose mode it is, with confidence ``1 - scale``.
        """
        around = [
            replace(column, prior=None if np.isnan(u) else (float(u), 1 - self.scale))
            for column, u in zip(columns, incumbent, strict=True)
        ]
        logs = np.array([log_prior(around, best), log_prior(columns, best)])
        near, believed = np.exp(logs - logs.max()) @ weights
        return float(near / (near + believed))

    def mutate(self, space: Space, point: Point, rng: np.random.Generator, known: int = 0, same: bool = False) -> Point:
        """Some of the active parameters changed: one at least, unless the child may be the ``same`` as its parent."""
        active = np.flatnonzero(~np.isnan(point))
        chosen = active[rng.random(len(active)) < self.mutation]
        child = point.copy()
        for j in chosen if len(chosen) or same else rng.permutation(active)[:1]:
            step = rng.normal() * self.scale * 10 ** -rng.random()
            child[j] = moved(space.columns[j], float(point[j]), step, rng, same=same)
        return completed(space, child, rng, known)


def uniform_share(history: History, until: int) -> float:
    """The share of uniform draws among the trials that are trained to step ``until`` at first."""
    least = min([until, *history.rungs[:1]])
    return 1 / (1 + until / least)


def from_prior(space: Space, rng: np.random.Generator) -> Point:
    """A draw from what the experts believe."""
    return space.snap(draw(space.columns, rng.random((1, len(space.columns))))[0])
