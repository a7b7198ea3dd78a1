"""Faster improvement rate population based training, after FIRE-PBT (Dalibard & Jaderberg 2021, arXiv:2109.13800).

PBT is greedy: it copies who is best now. FIRE-PBT has a second sub-population whose members are judged by how fast
what comes after them improves: of two members that are worth the same, the one that improves faster ends better. That
is measured by *evaluators*, which train on with a member's weights and the hyperparameters of the greedy
sub-population. Where they come out best the greedy sub-population copies them.

How members are chosen for evaluation and how curves are compared follows the re-implementation in PBT-Zoo, simplified:
curves are smoothed by their running best, and there is no test of significance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

import numpy as np

from tunesmith import check
from tunesmith.records import Asked, Constraint, Decision, Event, Fork, Goal, Told, losses
from tunesmith.rng import Streams
from tunesmith.schedulers import _population
from tunesmith.schedulers._exploit import Truncation
from tunesmith.schedulers._population import Population
from tunesmith.schedulers._standing import Standing, ranked
from tunesmith.space import Space

Role = Literal["greedy", "patient", "evaluator"]


@dataclass(slots=True)
class Evaluation:
    """How the weights of a patient member improve under greedy hyperparameters: the best loss so far at each step."""

    steps: list[int]
    best: list[float]

    def tell(self, event: Told, values: Sequence[float]) -> None:
        """More values; those of a retry replace what was told from there on."""
        while len(self.steps) > 1 and self.steps[-1] > event.start:
            self.steps.pop()
            self.best.pop()
        for i, value in enumerate(values):
            self.steps.append(event.start + 1 + i)
            self.best.append(min(value, self.best[-1]))


@dataclass(slots=True)
class State(_population.State):
    """The population, and what is known of the patient members.

    Attributes:
        evaluating: by trial of an evaluator: the patient trial that it evaluates, and what it has seen.
        known: by patient trial: its last evaluation that is complete.
        complete: those that were completed in the present wave.
    """

    evaluating: dict[int, tuple[int, Evaluation]] = field(default_factory=dict)
    known: dict[int, Evaluation] = field(default_factory=dict)
    complete: dict[int, Evaluation] = field(default_factory=dict)


class FIRE(Population, frozen=True, kw_only=True):
    """A greedy and a patient sub-population, and evaluators between them.

    Args:
        population: members of all kinds together: after the evaluators half of the rest is greedy, half is patient.
        ready: steps between two decisions of a member.
        steps: steps that every member's weights are trained for.
        evaluators: how many members evaluate; by default 6 of 22, as in PBT-Zoo.
        span: decisions that an evaluation lasts.
        exploit: whom to copy.
        explore: how to change hyperparameters after copying: ``Perturb``, ``Jitter``, ``PB2``; None: not at all.
        synchronous: as for ``PBT``.

    * A *greedy* member does what it does in PBT, among the greedy ones and those evaluators that are better than all of
      them.
    * A *patient* member does so among the patient ones, ranked by how much faster their evaluations improve. A copy
      has the evaluation of what it was copied from until it has its own.
    * An *evaluator* goes on for ``span`` decisions with the weights of a patient member, the one whose evaluation is
      the oldest, and with the hyperparameters of the best greedy one. Then it takes the next.

    As in ``PBT``, members are compared at equal steps, and a place costs exactly ``steps`` steps, those of the
    evaluators among them: their training is not thrown away if it is good.
    """

    evaluators: int | None = None
    span: int = 2
    exploit: Truncation = Truncation(0.25)

    def __post_init__(self) -> None:
        super().__post_init__()
        check.whole("FIRE", 1, span=self.span)
        if self.evaluators is not None:
            check.integer("FIRE", evaluators=self.evaluators)
        if self._evaluators < 1 or self.population - self._evaluators < 4:
            raise ValueError(
                f"FIRE: population={self.population} must be at least 5, and leave four members beside "
                f"evaluators={self._evaluators}, of which there must be one"
            )

    @property
    def _evaluators(self) -> int:
        return max(1, round(self.population * 6 / 22)) if self.evaluators is None else self.evaluators

    def role(self, slot: int) -> Role:
        """What the member in a place does."""
        if slot >= self.population - self._evaluators:
            return "evaluator"
        return "greedy" if slot < (self.population - self._evaluators + 1) // 2 else "patient"

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> State:
        """An empty population.

        Raises:
            ValueError: the study has more than one goal.
        """
        if len(goals) != 1:
            raise ValueError(f"FIRE compares learning curves of one goal, the study has {len(goals)}: use PBT")
        return State(space, tuple(goals), tuple(constraints))

    # -- tell: the evaluations

    def tell(self, state: _population.State, event: Event) -> State:
        """Note what a population notes, and how evaluations go."""
        assert isinstance(state, State)
        waves = state.waves
        super().tell(state, event)
        if isinstance(event, Asked):
            if event.parent is not None and event.trial not in state.evaluating and event.trial in state.slot_of:
                self._began(state, event.trial, event.parent, event.start)
        elif isinstance(event, Told) and event.trial in state.evaluating:
            patient, evaluation = state.evaluating[event.trial]
            count = event.step - event.start
            evaluation.tell(event, [losses(state.goals, event.metrics, i)[0] for i in range(count)])
            if evaluation.steps[-1] >= evaluation.steps[0] + self.span * self.ready:
                state.complete[patient] = Evaluation(list(evaluation.steps), list(evaluation.best))
        if not self.synchronous or state.waves > waves:  # within a wave nobody knows who was faster
            state.known |= state.complete
            state.complete = {}
        return state

    def _began(self, state: State, trial: int, parent: int, start: int) -> None:
        """A fork: of a patient member for an evaluation, or in its sub-population, where it inherits an evaluation."""
        slot = state.slots[state.slot_of[trial]]
        source = next((one for one in self._rung(state, start) if one.trial == parent), None)
        role = self.role(state.slot_of[trial])
        if source is not None and role == "evaluator" and self.role(source.slot) == "patient":
            state.evaluating[trial] = parent, Evaluation([start], [source.losses[0]])
        elif role == "patient" and parent in state.known:
            state.known[slot.trial] = state.known[parent]
        state.evaluating = {one: found for one, found in state.evaluating.items() if one in state.slot_of}
        state.known = {one: found for one, found in state.known.items() if one in state.configs}

    # -- ask: decide

    def _decide(self, state: _population.State, member: Standing, streams: Streams) -> Decision:
        """What a member does on its rung, by its role."""
        assert isinstance(state, State)
        role = self.role(member.slot)
        rung = ranked(self._rung(state, member.step))
        if role == "evaluator":
            return self._evaluate(state, member, rung, streams)
        if role == "greedy":
            mixed = [one for one in rung if self.role(one.slot) != "patient"]
            ahead = takewhile(lambda one: self.role(one.slot) == "evaluator", mixed)
            ranking = [*ahead, *(one for one in mixed if self.role(one.slot) == "greedy")]
        else:
            ranking = self._by_improvement(state, rung)
        rng = streams.at("exploit", member.trial, member.step)
        donor = self.exploit.select(member, ranking, rng) if member in ranking else None
        return self._resume(member) if donor is None else self._copy(state, donor, member.trial, streams)

    def _evaluate(self, state: State, member: Standing, rung: Sequence[Standing], streams: Streams) -> Decision:
        """Go on with an evaluation, or begin the next one."""
        _, now = state.evaluating.get(member.trial, (None, None))
        patient = [one for one in rung if self.role(one.slot) == "patient"]
        greedy = [one for one in rung if self.role(one.slot) == "greedy"]
        running = now is not None and member.step < now.steps[0] + self.span * self.ready
        if running or not patient or not greedy:
            return self._resume(member)
        out = {trial: evaluation.steps[0] for trial, evaluation in state.evaluating.values()}

        def last(one: Standing) -> tuple[int, int]:
            known = state.known.get(one.trial)
            return max(out.get(one.trial, -1), -1 if known is None else known.steps[0]), one.slot

        source = min(patient, key=last).trial
        config = self._inherited(state, state.configs[greedy[0].trial], source, member.trial, streams)
        until = min(member.step + self.ready, self.steps)
        return Fork(source, member.step, member.trial, config, until)

    def _by_improvement(self, state: State, rung: Sequence[Standing]) -> list[Standing]:
        """The patient members of which there is an evaluation: who improves fastest against the others first."""
        patient = [one for one in rung if self.role(one.slot) == "patient" and one.trial in state.known]
        curves = {one.trial: state.known[one.trial] for one in patient}

        def lag(one: Standing) -> tuple[float, float, int]:
            mine = curves[one.trial]
            return one.broken, -sum(lead(mine, other) for other in curves.values() if other is not mine), one.trial

        return sorted(patient, key=lag)

    def _peers(self, state: _population.State, slot: int, step: int) -> Sequence[Standing]:
        """A failed patient member is replaced by a patient one, any other by one of the others."""
        patient = self.role(slot) == "patient"
        return [one for one in super()._peers(state, slot, step) if (self.role(one.slot) == "patient") == patient]


def lead(a: Evaluation, b: Evaluation) -> float:
    """By how much lower ``a`` comes than ``b`` from where both are worth the same, in as many steps; below 0 if higher.

    0 where the one that begins worse never comes to where the other began: they can't be compared.
    """
    if a.best[0] > b.best[0]:
        return -lead(b, a)
    reached = next((i for i, value in enumerate(b.best) if value <= a.best[0]), None)
    if reached is None:
        return 0.0
    at = float(b.steps[reached])
    if reached and b.best[reached] < b.best[reached - 1]:
        share = (b.best[reached - 1] - a.best[0]) / (b.best[reached - 1] - b.best[reached])
        at = b.steps[reached - 1] + share * (b.steps[reached] - b.steps[reached - 1])
    length = min(a.steps[-1] - a.steps[0], b.steps[-1] - at)
    return float(np.interp(at + length, b.steps, b.best) - np.interp(a.steps[0] + length, a.steps, a.best))
