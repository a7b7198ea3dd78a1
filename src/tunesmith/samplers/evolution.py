"""Regularised evolution (Real et al. 2018, arXiv:1802.01548), and the moves that it shares with NSGA-II.

The best of a few members drawn at random is mutated in one place, and the oldest member dies, however good it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tunesmith.hints import Options
from tunesmith.pareto import Ints
from tunesmith.records import Asked, Constraint, Event, Failed, Goal, Told
from tunesmith.samplers._prior import draw_anew
from tunesmith.samplers.base import OBSERVED, History, Point, Walk, places, random_point, switches
from tunesmith.samplers.qmc import design
from tunesmith.space import Column, Space

TRIES = 20  #: moves to points that were tried already which one ask makes to find one that was not
BROKEN = 200  #: moves that may break a constraint before one ask draws a point at random
AGAIN = 0.25  #: with ``duplicates``: share of the children that are their parent, evaluated once more


class RegularizedEvolution(Options, frozen=True):
    """Tournament selection, one mutation a child, and death by age.

    Children are made one by one, from the results that are there, so any number of workers is kept busy. A trial
    becomes a member when it is told or fails, and is the oldest after ``population`` others; a failed one loses every
    tournament. With several goals or outcome constraints a tournament is won by constrained domination, then crowding.
    A trial that was trained further wins against one that was stopped or waits. Where it is dead, its next result
    brings it back to life as the youngest.

    Args:
        population: how many members are alive, and how many points of the initial design are tried first.
        sample: how many members take part in a tournament (drawn with replacement).
        niches: share of the tournaments that are held among all trials, dead ones too, that take one branch, drawn at
            random. It keeps branches in the game whose parameters are not good yet; Real et al. have none.
        scale: deviation of the largest step of a number, in the unit cube; steps of all sizes below occur.
    """

    population: int = 20
    sample: int = 16
    niches: float = 0.2
    scale: float = 0.3

    def __post_init__(self) -> None:
        if self.population < 2:
            raise ValueError(f"RegularizedEvolution: population={self.population} must be at least 2")
        if not 1 <= self.sample <= self.population:
            raise ValueError(f"RegularizedEvolution: sample={self.sample} must be in 1..population={self.population}")
        if not 0 <= self.niches <= 1:
            raise ValueError(f"RegularizedEvolution: niches={self.niches} must be in [0, 1]")
        if not 0 < self.scale <= 1:
            raise ValueError(f"RegularizedEvolution: scale={self.scale} must be in (0, 1]")

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
        """Note what was asked, and let those come to life that have a result; the oldest makes room."""
        if state.tell(event) and len(state.members) > self.population:
            del state.members[0]
        return state

    def ask(self, state: Population, rng: np.random.Generator, until: int = 1) -> Point | None:
        """A point of the initial design, or a mutant of the winner of a tournament."""
        history = state.history
        if state.trials < self.population or not state.members:
            return state.initial.next(TRIES)
        rows = np.array(state.members)
        if rng.random() < self.niches and len(branch := niche(history, rng)):
            rows = branch
        drawn = rows[rng.integers(len(rows), size=self.sample)]
        winner = drawn[np.argmin(state.places(drawn))]
        columns = history.space.columns

        def mutate(point: Point) -> Point:
            child = point.copy()
            if history.duplicates and rng.random() < AGAIN:
                return child
            for j in rng.permutation(np.flatnonzero(~np.isnan(point)))[:1]:
                step = rng.normal() * self.scale * 10 ** -rng.uniform(0, 2)
                child[j] = moved(columns[j], float(point[j]), step, rng, same=history.duplicates)
            return completed(history.space, child, rng, history.size)

        return admitted(history, history.points[winner], mutate, rng)


@dataclass(slots=True)
class Population:
    """State of the search.

    Attributes:
        history: what was asked and told.
        initial: the initial design.
        members: who is alive, the oldest first, as rows of ``history``. With ``duplicates`` every trial is a member,
            so that a row may occur several times.
        born: the step of the last result of every row that has one; with ``duplicates`` of every trial.
        trials: how many configurations were asked, each time anew with ``duplicates``.
        last: the last trial.
    """

    history: History
    initial: Walk
    members: list[int] = field(default_factory=list)
    born: dict[int, int] = field(default_factory=dict)
    trials: int = 0
    last: int = -1

    def tell(self, event: Event) -> bool:
        """Note what was asked and told. Whether a configuration has become the youngest member.

        It does by its first result; and by one at a further step, where it is not alive any more.
        """
        self.initial.tell(event)
        row = self.history.tell(event)
        if isinstance(event, Asked) and event.parent is None and event.trial > self.last:
            self.last = event.trial
            self.trials = self.trials + 1 if self.history.duplicates else self.history.size
        if row is None or not isinstance(event, Told | Failed):
            return False
        step = int(self.history.steps[row])
        individual = event.trial if self.history.duplicates else row
        before = self.born.setdefault(individual, -1)
        self.born[individual] = step
        if before >= 0 and not (0 < before < step and row not in self.members):
            return False
        self.members.append(row)
        return True

    def places(self, rows: Sequence[int] | Ints) -> Ints:
        """The places of rows in the order of constrained domination and crowding, 0 for the best; see ``places``."""
        return places(self.history, rows)


# -- moves ----------------------------------------------------------------------------------------------------------


def moved(column: Column, u: float, step: float, rng: np.random.Generator, *, same: bool = False) -> float:
    """Another value of one column: a number moves by ``step``, an option changes to any other one.

    The ends of [0, 1] are mirrors. What has k levels moves by 1/k at least, inwards at an end, unless it may stay the
    ``same``. Not snapped.
    """
    k = column.levels
    if k == 1:
        return u
    if column.kind == "unordered":
        level = int(rng.integers(k - 1))
        return (level + (level >= int(u * k)) + 0.5) / k
    if k and not same:
        step = np.copysign(max(abs(step), 1 / k), step)
        step = step if 0 <= u + step <= 1 else -step
    new = abs(u + step) % 2.0
    return float(min(new, 2.0 - new))


def niche(history: History, rng: np.random.Generator) -> Ints:
    """The rows with a result that take one branch, drawn at random; none if there are no branches."""
    columns = history.space.columns
    opening = switches(columns)
    if not opening:
        return np.empty(0, dtype=np.int64)
    j = opening[rng.integers(len(opening))]
    level = (rng.integers(columns[j].levels) + 0.5) / columns[j].levels
    return np.flatnonzero((np.abs(history.points[:, j] - level) < 1e-9) & (history.status == OBSERVED))


def completed(space: Space, point: Point, rng: np.random.Generator, known: int = 0) -> Point:
    """The nearest representable point; what has become active and has no value yet is drawn anew.

    Args:
        space: where.
        point: [d], NaN where there is no value yet.
        rng: source of randomness.
        known: how many configurations are known, by which priors fade; see ``draw_anew``.
    """
    drawn = draw_anew(space.columns, (1, len(point)), rng, known)[0]
    return space.snap(np.where(np.isnan(point), drawn, point))


def admitted(history: History, start: Point, move: Callable[[Point], Point], rng: np.random.Generator) -> Point:
    """A child of ``start`` that is allowed and, if it can be had in a few tries, was not tried yet.

    A child that was tried already is moved on, so that the search spreads where the neighbourhood is used up.
    """
    point = start
    broken = tried = 0
    while broken < BROKEN and tried < TRIES:
        child = move(point)
        if not history.space.allows(child):
            broken += 1
        elif history.known(child[None])[0]:
            tried += 1
            point = child
        else:
            return child
    return random_point(history.space, rng, history.points)
