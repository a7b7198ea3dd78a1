"""DEHB: differential evolution over the rungs of Hyperband (Awad, Mallik & Hutter 2021, arXiv:2105.09821).

Each rung has a subpopulation. A new trial is a child of a member of its own rung's subpopulation and of a mutant of the
best members of another rung's, so that what short trials find out serves the long ones, and the other way round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tunesmith.hints import Options
from tunesmith.pareto import Ints, order
from tunesmith.records import Asked, Constraint, Event, Failed, Goal, Told
from tunesmith.samplers._prior import draw_anew
from tunesmith.samplers.base import Floats, History, Point, Walk
from tunesmith.samplers.evolution import TRIES, admitted
from tunesmith.samplers.qmc import design
from tunesmith.space import Space

PARENTS = 4  #: least members of a subpopulation from which parents are taken, and least parents to choose from


@dataclass(slots=True)
class State:
    """The history, the initial design, and the subpopulations.

    Attributes:
        asked: by step: how many jobs were to end there.
        heading: by trial that is out: the step where its job ends, and the slot that it is to compete for there.
        members: by step and slot: who has won it so far, as a row of ``history``.
    """

    history: History
    initial: Walk
    asked: Counter[int] = field(default_factory=Counter)
    heading: dict[int, tuple[int, int]] = field(default_factory=dict)
    members: dict[int, dict[int, int]] = field(default_factory=dict)


class DEHB(Options, frozen=True):
    """Differential evolution (rand/1/bin) with a subpopulation for each rung.

    The jobs that end at a rung, those of new trials and of trials that went on to it, are given its slots in turn.
    Whoever is not worse at this rung than the member in its slot takes its place. A new trial is the binomial crossover
    of the member in its slot, or of a draw while there is none, with the mutant ``a + factor * (b - c)``. These three
    are different ones of the best ``1 / eta`` (four at least) of the subpopulation of the next lower rung; on the
    lowest rung, of the highest one. While there is no other rung, the first ``population`` trials are those of the
    initial design, and the next ones have all members of their own subpopulation for parents.

    What a mutant has outside of the unit cube is drawn anew, and so is what a parent lacks, since its branch was not
    taken: uniformly, and for a share that fades from the experts' prior. With several goals or outcome constraints a
    trial is worse by constrained domination, then crowding.

    Args:
        population: slots of a subpopulation.
        factor: how much of the difference of two parents is added to the third.
        crossover: probability with which a parameter is the mutant's (one of them in any case).
        eta: the best ``1 / eta`` of another rung's subpopulation may be parents; the same as the scheduler's.
    """

    population: int = 10
    factor: float = 0.5
    crossover: float = 0.5
    eta: int = 3

    def __post_init__(self) -> None:
        if self.population < PARENTS:
            raise ValueError(f"DEHB: population={self.population} must be at least {PARENTS}")
        if not 0 < self.factor <= 2:
            raise ValueError(f"DEHB: factor={self.factor} must be in (0, 2]")
        if not 0 <= self.crossover <= 1:
            raise ValueError(f"DEHB: crossover={self.crossover} must be in [0, 1]")
        if self.eta < 2:
            raise ValueError(f"DEHB: eta={self.eta} must be at least 2")

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> State:
        """Nobody is born yet."""
        history = History(space, goals, constraints, duplicates)
        return State(history, design(space, rng, duplicates, priors=True))

    def tell(self, state: State, event: Event) -> State:
        """Give a job its slot, and let it compete for it when it is done."""
        state.initial.tell(event)
        row = state.history.tell(event)
        if type(event) is Asked and event.parent is None:
            if state.heading.get(event.trial, (0, 0))[0] != event.until:  # not the same job again
                state.heading[event.trial] = event.until, state.asked[event.until] % self.population
                state.asked[event.until] += 1
        elif type(event) is Told and row is not None:
            _, slot = state.heading.pop(event.trial)
            members = state.members.setdefault(event.step, {})
            rivals = [row, members[slot]] if slot in members else [row]
            for winner in ranked(state.history, rivals, event.step)[:1]:  # none where the step is no rung
                members[slot] = int(winner)
        elif type(event) is Failed:
            state.heading.pop(event.trial, None)
        return state

    def ask(self, state: State, rng: np.random.Generator, until: int = 1) -> Point | None:
        """A point of the initial design, or a child that is allowed and, if it can be had, was not tried yet."""
        history, space = state.history, state.history.space
        parents = self.parents(state, until)
        if len(parents) < PARENTS:
            return state.initial.next(TRIES)
        member = state.members.get(until, {}).get(state.asked[until] % self.population)

        def child(_: Point) -> Point:
            target = np.full(len(space.columns), np.nan) if member is None else history.points[member]
            three = history.points[rng.choice(parents, 3, replace=False)]
            points = filled(space, np.vstack([target, three]), rng, history.size)
            return self.cross(space, points, rng, history.size)

        return admitted(history, history.points[0], child, rng)

    def parents(self, state: State, until: int) -> Ints:
        """The rows from which the parents of a trial for this rung are chosen, the best first; or too few."""
        others = [step for step in state.members if step != until]
        for step in sorted(others, key=lambda step: (step > until, -step)):  # next lower ones, then the highest
            rows = ranked(state.history, state.members[step].values(), step)
            if len(rows) >= PARENTS:
                return rows[: max(PARENTS, len(rows) // self.eta)]
        own = state.members.get(until, {}) if state.asked[until] >= self.population else {}
        return ranked(state.history, own.values(), until)

    def cross(self, space: Space, points: Floats, rng: np.random.Generator, known: int = 0) -> Point:
        """The crossover of the first of four points [4, d], without NaN, with the mutant of the others."""
        target, a, b, c = points
        mutant = a + self.factor * (b - c)
        drawn = draw_anew(space.columns, (1, len(mutant)), rng, known)[0]
        mutant = np.where((mutant < 0) | (mutant > 1), drawn, mutant)
        chosen = rng.random(len(mutant)) < self.crossover
        chosen[rng.permutation(len(mutant))[:1]] = True
        return space.snap(np.where(chosen, mutant, target))


def ranked(history: History, rows: Iterable[int], step: int) -> Ints:
    """Those of the rows that have values at a step, the best first; of equal ones the first."""
    found = [(row, history.observations(row)[step]) for row in rows if step in history.observations(row)]
    table = np.array(found, dtype=np.int64).reshape(-1, 2)
    values = history.seen_values[table[:, 1]]
    m = len(history.goals)
    best: Ints = table[np.argsort(order(values[:, :m], values[:, m:])), 0]
    return best


def filled(space: Space, points: Floats, rng: np.random.Generator, known: int = 0) -> Floats:
    """The points [n, d] with a draw where they have NaN; see ``draw_anew``."""
    return np.where(np.isnan(points), draw_anew(space.columns, points.shape, rng, known), points)
