"""BOHB: Hyperband's trials from a density model of the best (Falkner, Klein & Hutter 2018, arXiv:1807.01774).

Values at different rungs are not compared: each rung has a model of its own, and the one of the highest rung that has
enough results is asked. Where early values mislead, it is not misled for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tunesmith.hints import Options
from tunesmith.records import Asked, Constraint, Event, Failed, Goal, Told
from tunesmith.samplers.base import OBSERVED, Point, Walk
from tunesmith.samplers.qmc import REPEATS, design
from tunesmith.samplers.tpe import TPE, State
from tunesmith.space import Space


@dataclass(slots=True)
class Rungs:
    """The models.

    Attributes:
        space, goals, constraints, duplicates, seed: what a model begins with.
        initial: the initial design.
        models: by rung.
        heading: by trial: the rung where its job ends.
    """

    space: Space
    goals: Sequence[Goal]
    constraints: Sequence[Constraint]
    duplicates: bool
    seed: int
    initial: Walk
    models: dict[int, State] = field(default_factory=dict)
    heading: dict[int, int] = field(default_factory=dict)


class BOHB(Options, frozen=True):
    """One trial in three is a uniform draw; the others come from a `TPE` of the highest rung with enough results.

    A trial is known to the models of the rungs to which it was sent, and no other. A failed one counts as bad on all of
    these.

    Args:
        uniform: share of uniform draws.
        model: of each rung; ``model.startup`` results are enough. Until there are, a quasi-random design is tried.
    """

    uniform: float = 1 / 3
    model: TPE = TPE(candidates=64)

    def __post_init__(self) -> None:
        if not 0 <= self.uniform <= 1:
            raise ValueError(f"BOHB: uniform={self.uniform} must be in [0, 1]")

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> Rungs:
        """No rung is known yet."""
        seed, initial = int(rng.integers(2**63)), design(space, rng, duplicates)
        return Rungs(space, tuple(goals), tuple(constraints), duplicates, seed, initial)

    def tell(self, state: Rungs, event: Event) -> Rungs:
        """Let the model of the rung learn to which the trial was sent; of a failure all models."""
        state.initial.tell(event)
        if type(event) is Asked and event.parent is None:
            state.heading[event.trial] = event.until
            if event.until not in state.models:
                state.models[event.until] = self.begin(state)
        if isinstance(event, Asked | Told) and event.trial in state.heading:
            step = state.heading[event.trial]
            state.models[step] = self.model.tell(state.models[step], event)
        elif type(event) is Failed:
            state.models = {step: self.model.tell(model, event) for step, model in state.models.items()}
        return state

    def ask(self, state: Rungs, rng: np.random.Generator, until: int = 1) -> Point | None:
        """A uniform draw, or what the model of the highest rung proposes."""
        if rng.random() < self.uniform:
            return state.initial.random(rng)
        model = self.highest(state)
        return state.initial.next(REPEATS) if model is None else self.model.ask(model, rng, until)

    def begin(self, state: Rungs) -> State:
        """A model that knows nothing yet."""
        rng = np.random.default_rng(state.seed)
        return self.model.init(state.space, state.goals, rng, state.constraints, state.duplicates)

    def highest(self, state: Rungs) -> State | None:
        """The model of the highest rung with enough results; None if there is none."""
        for step in sorted(state.models, reverse=True):
            if np.count_nonzero(state.models[step].history.status == OBSERVED) >= self.model.startup:
                return state.models[step]
        return None
