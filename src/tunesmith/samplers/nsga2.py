"""NSGA-II (Deb, Pratap, Agarwal & Meyarivan 2002), for several goals, one child at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith.hints import Options
from tunesmith.records import Constraint, Event, Goal
from tunesmith.samplers.base import History, Point
from tunesmith.samplers.evolution import TRIES, Population, admitted, completed, moved
from tunesmith.samplers.qmc import design
from tunesmith.space import Space


class NSGA2(Options, frozen=True):
    """Constrained domination, crowding, simulated binary crossover and polynomial mutation.

    It is the steady-state form: every result enters the population at once, and the last one in the order leaves it. So
    no worker waits for the end of a generation. Failed trials are last in the order. Trials that were trained further
    come before those that were stopped or wait, and one that has left comes back with its next result.

    Args:
        population: how many members survive, and how many points of the initial design are tried first.
        crossover: probability that a child has two parents.
        mutation: expected number of columns of a child that are mutated.
        crossover_index: distribution index of the crossover: the larger, the closer are children to their parents.
        mutation_index: distribution index of the mutation.
    """

    population: int = 24
    crossover: float = 0.9
    mutation: float = 1.0
    crossover_index: float = 5.0
    mutation_index: float = 5.0

    def __post_init__(self) -> None:
        if self.population < 2:
            raise ValueError(f"NSGA2: population={self.population} must be at least 2")
        if not 0 <= self.crossover <= 1:
            raise ValueError(f"NSGA2: crossover={self.crossover} must be in [0, 1]")
        for name in ("mutation", "crossover_index", "mutation_index"):
            value = getattr(self, name)
            if not 0 < value < np.inf:
                raise ValueError(f"NSGA2: {name}={value} must be > 0 and finite")

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> Population:
        """Nobody is born yet."""
        history = History(space, goals, constraints, duplicates)
        return Population(history, design(space, rng, duplicates, priors=True))

    def tell(self, state: Population, event: Event) -> Population:
        """Note what was asked; a result joins the population, and the worst of a full one leaves it."""
        if state.tell(event) and len(state.members) > self.population:
            del state.members[np.argmax(state.places(state.members))]
        return state

    def ask(self, state: Population, rng: np.random.Generator, until: int = 1) -> Point | None:
        """A point of the initial design, or a child of the winners of two binary tournaments."""
        history = state.history
        if state.trials < self.population or not state.members:
            return state.initial.next(TRIES)
        places = state.places(state.members)
        rivals = rng.integers(len(places), size=(2, 2))
        winners = rivals[[0, 1], np.argmin(places[rivals], axis=1)]
        mother, father = history.points[[state.members[winner] for winner in winners]]

        def breed(point: Point) -> Point:
            crossed = rng.random() < self.crossover
            child = self.cross(history.space, point, father, rng, history.size) if crossed else point
            return self.mutate(history.space, child, rng, history.size, same=history.duplicates)

        return admitted(history, mother, breed, rng)

    def cross(self, space: Space, mother: Point, father: Point, rng: np.random.Generator, known: int = 0) -> Point:
        """A child of two parents. It has the branches of one of them, and what depends on a branch comes with it.

        Numbers that both parents have are crossed with probability 1/2 (Deb & Agrawal 1995): at the distance
        ``beta`` times that of the parents, on either side of their mean. Other columns come from either one.
        """
        child = np.where(np.isnan(mother), father, mother)
        for j, column in enumerate(space.columns):
            a, b = mother[j], father[j]
            if np.isnan(a) or np.isnan(b) or rng.random() < 0.5:
                continue
            if column.kind == "unordered":
                child[j] = b
                continue
            u = rng.random()
            beta = (2 * u if u <= 0.5 else 0.5 / (1 - u)) ** (1 / (self.crossover_index + 1))
            child[j] = np.clip((a + b) / 2 + beta * (a - b) / 2 * rng.choice((-1, 1)), 0, 1)
        return completed(space, child, rng, known)

    def mutate(self, space: Space, point: Point, rng: np.random.Generator, known: int = 0, same: bool = False) -> Point:
        """Some active columns changed: numbers by a polynomial step, with a tail that its index makes light."""
        active = np.flatnonzero(~np.isnan(point))
        child = point.copy()
        for j in active[rng.random(len(active)) < self.mutation / max(1, len(active))]:
            u = rng.random()
            power = 1 / (self.mutation_index + 1)
            step = (2 * u) ** power - 1 if u < 0.5 else 1 - (2 - 2 * u) ** power
            child[j] = moved(space.columns[j], float(point[j]), step, rng, same=same)
        return completed(space, child, rng, known)
