"""Bayesian optimisation with Gaussian processes (Jones et al. 1998, "Efficient global optimization").

One Gaussian process models each goal, one each outcome constraint, and one the chance to fail. The next point maximises
an acquisition function of theirs, over the whole space with its branches and hard constraints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunesmith._threads import one_thread
from tunesmith.hints import Options
from tunesmith.pareto import order
from tunesmith.records import Constraint, Event, Goal
from tunesmith.samplers import _acquisition as rules
from tunesmith.samplers._acquisition import Acquisition, Belief, Branch, Expected, Hypervolume, Sum, chebyshev, drawn
from tunesmith.samplers._boxes import beyond
from tunesmith.samplers._candidates import Box, draws
from tunesmith.samplers._kernel import Kernel
from tunesmith.samplers._outcomes import Outcome, Posterior
from tunesmith.samplers._prior import believed
from tunesmith.samplers._region import box, side
from tunesmith.samplers._repeats import again
from tunesmith.samplers._search import maximise
from tunesmith.samplers._surrogate import Surrogate
from tunesmith.samplers.base import PENDING, Bools, Floats, History, Point, View, Walk, switches
from tunesmith.samplers.qmc import REPEATS, design
from tunesmith.space import Space

EXACT = 3  #: up to so many goals the hypervolume is reckoned with, beyond it random scalarisations
ANCHORS = 512  #: points at which Thompson sampling draws
CONTENDERS = 32  #: best points whose true values are drawn
INCUMBENTS = 8  #: best points around which the acquisition is searched
EXPLORED = 25  #: asks that go to neglected branches while the trials grow from one e-fold to the next
OFTEN = 100  #: up to so many trials, of each as many as at this number
FADED = 1e-3  #: experts are listened to until their weight falls below
MOST_FANTASIES = 1000  #: more say nothing new, and a study of a stranger's must not hold up who reads it
DEVIATIONS = 1.959964  #: of a normal, between which it lies with 95%
RULES = {"ei": rules.log_ei, "nei": rules.log_ei, "pi": rules.log_pi, "ucb": rules.ucb}


@dataclass
class State:
    """What was told, and the models of it. What they believe follows from the log, whenever it is asked for."""

    history: History
    design: Walk
    goals: list[Outcome]
    constraints: list[Outcome]
    failure: Outcome


class GP(Options, frozen=True):
    """Gaussian processes and an acquisition function.

    Args:
        acquisition: ``"nei"`` noisy expected improvement, ``"ei"`` expected improvement, ``"pi"`` probability of
            improvement, ``"ucb"`` confidence bound, ``"thompson"`` a draw from the posterior. With several goals:
            expected hypervolume improvement up to three, beyond it random scalarisations (ParEGO).
        startup: quasi-random points before the first model; None: two more than there are columns, from 4 to 10.
        beta: deviations that the confidence bound adds.
        warp: learn a warping of each continuous parameter, for functions that change faster at one end.
        fantasies: outcomes imagined of the pending points, over which the acquisition is averaged.
        region: share of the asks that search a trust region around the best point alone, where there is one goal.
        trust: weight of the experts' prior with one observation; it fades as 1 / observations.
    """

    acquisition: Literal["ei", "nei", "pi", "ucb", "thompson"] = "nei"
    startup: int | None = None
    beta: float = 2.0
    warp: bool = False
    fantasies: int = 16
    region: float = 0.25
    trust: float = 10.0

    def __post_init__(self) -> None:
        if self.acquisition not in (*RULES, "thompson"):
            names = ", ".join(map(repr, (*RULES, "thompson")))
            raise ValueError(f"GP: acquisition={self.acquisition!r} must be one of {names}")
        for name, least in (("startup", 1), ("beta", 0), ("fantasies", 1), ("region", 0), ("trust", 0)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ValueError(f"GP: {name}={value} must be at least {least}")
        if self.fantasies > MOST_FANTASIES:
            raise ValueError(f"GP: fantasies={self.fantasies} must be at most {MOST_FANTASIES}")
        if self.region > 1:
            raise ValueError(f"GP: region={self.region} must be at most 1")

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> State:
        """Nothing observed; one model for each outcome."""
        history, kernel = History(space, goals, constraints, duplicates), Kernel(space.columns, self.warp)
        return State(
            history,
            design(space, rng, duplicates),
            [Outcome(history, kernel, "goal", i) for i in range(len(goals))],
            [Outcome(history, kernel, "constraint", i) for i in range(len(constraints))],
            Outcome(history, kernel, "failure"),
        )

    def tell(self, state: State, event: Event) -> State:
        """Note what has changed."""
        state.design.tell(event)
        row = state.history.tell(event)
        if row is not None:
            for outcome in (*state.goals, *state.constraints, state.failure):
                outcome.learn(row)
        return state

    @one_thread
    def ask(self, state: State, rng: np.random.Generator, until: int = 1) -> Point | None:
        """The point of the greatest acquisition."""
        columns = len(state.history.space.columns)
        startup = min(max(columns + 2, 4), 10) if self.startup is None else self.startup
        asked = state.history.trials if state.history.duplicates else state.history.size
        if asked < startup or state.goals[0].posterior is None:
            return state.design.next(REPEATS)
        for branch in _neglected(state.history, rng):
            point = self._best(state, branch, rng)
            if branch.holds(point[None])[0]:
                return point
        point = self._best(state, None, rng)
        if len(state.goals) == 1 and state.history.duplicates and state.history.tried(point[None])[0]:
            return again(state.history)
        return point

    def _best(self, state: State, branch: Branch | None, rng: np.random.Generator) -> Point:
        """The point of the greatest acquisition in a branch, elsewhere where nothing is left there; or in all."""
        acquisition, incumbents = self._acquisition(state, branch, rng), _incumbents(state, branch)
        local = branch is None and len(state.goals) == 1 and rng.random() < self.region
        region = _region(state, incumbents[0]) if local else None
        return maximise(acquisition, state.history.space, incumbents, rng, known=state.history.known, box=region)

    @one_thread
    def view(self, state: State, points: Floats, rng: np.random.Generator) -> View:
        """The acquisition at points [n, d], those in logarithms as a share of the greatest; and the first goal's model.

        The interval is that of the value without noise.
        """
        goal = state.goals[0].posterior
        if goal is None or goal.transform is None:
            raise ValueError("GP: the model begins with two results")
        values = self._acquisition(state, None, rng).value(points)
        if self.acquisition not in ("ucb", "thompson") or 1 < len(state.goals) <= EXACT:
            values = np.exp(values - values.max())
        mean, sd = goal.surrogate.predict(points)
        sides = {"mean": 0.0, "low": -DEVIATIONS, "high": DEVIATIONS}
        return View(values, {name: goal.transform.invert(mean + side * sd) for name, side in sides.items()})

    # -- what to maximise -----------------------------------------------------------------------------------------

    def _acquisition(self, state: State, branch: Branch | None, rng: np.random.Generator) -> Acquisition:
        """Improvement, times the chance to be feasible, times what experts believe; in logarithms."""
        history, goals = state.history, _believed(state)
        rows = goals[0].rows
        terms: list[Acquisition] = []
        feasible: Bools = np.all(history.excess[rows] <= 0, axis=1)
        pending = history.points[history.status == PENDING]
        if branch is not None:
            terms.append(branch)
            inside = feasible & branch.holds(history.points[rows])
            feasible, pending = inside if inside.any() else feasible, pending[branch.holds(pending)]
        if feasible.any():
            terms.append(self._improvement(history, goals, feasible, pending, rng))
        others = [outcome.posterior for outcome in (*state.constraints, state.failure)]
        terms += [Expected(other.surrogate, rules.log_pi, other.limit) for other in others if other is not None]
        weight = self.trust / len(rows)
        if believed(history.space.columns) and weight > FADED:
            terms.append(Belief(history.space.columns, weight))
        return Sum(terms)

    def _improvement(
        self, history: History, goals: list[Posterior], feasible: Bools, pending: Floats, rng: np.random.Generator
    ) -> Acquisition:
        """Improvement on what is known, averaged over fantasies of what pending points will give."""
        if 1 < len(goals) <= EXACT:
            return self._hypervolume(goals, feasible, pending, rng)
        points = history.points[goals[0].rows]
        if len(goals) == 1:
            surrogate, means = goals[0].surrogate, goals[0].means
        else:
            surrogate, means = _scalarised(history, goals, rng)
        if self.acquisition == "thompson":
            tops = points[np.argsort(means, kind="stable")[:CONTENDERS]]
            anchors = np.concatenate([tops, draws(history.space, rng, ANCHORS)])
            return Expected(drawn(surrogate, anchors, rng, 1)[0], rules.ucb, 0.0)
        anchors, best = pending, means[feasible].min()
        if self.acquisition == "nei":
            top = np.argsort(means[feasible], kind="stable")[:CONTENDERS]
            anchors, best = np.concatenate([points[feasible][top], pending]), np.inf
        if len(anchors):
            surrogate, values = drawn(surrogate, anchors, rng, self.fantasies)
            best = np.minimum(best, values.min(axis=1))
        return Expected(surrogate, RULES[self.acquisition], self.beta if self.acquisition == "ucb" else best)

    def _hypervolume(
        self, goals: list[Posterior], feasible: Bools, pending: Floats, rng: np.random.Generator
    ) -> Acquisition:
        """Improvement of the hypervolume, with a front for each fantasy."""
        models = [goal.surrogate for goal in goals]
        front = np.column_stack([goal.means for goal in goals])[feasible]
        fronts = [front]
        if len(pending):
            imagined = [drawn(model, pending, rng, self.fantasies) for model in models]
            models = [model for model, _ in imagined]
            outcomes = np.stack([values for _, values in imagined], axis=-1)  # [S, k, m]
            fronts = [np.concatenate([front, outcome]) for outcome in outcomes]
        return Hypervolume(models, fronts, beyond(front))


def _believed(state: State) -> list[Posterior]:
    """What is believed of the goals; there is a model of each."""
    return [goal.posterior for goal in state.goals if goal.posterior is not None]


def _scalarised(history: History, goals: list[Posterior], rng: np.random.Generator) -> tuple[Surrogate, Floats]:
    """Many goals as one, by random weights, and its values; its hyperparameters are the means of theirs."""
    means = np.column_stack([goal.means for goal in goals])
    scalar = chebyshev(means, rng.dirichlet(np.ones(means.shape[1])))
    theta = np.mean([goal.surrogate.theta for goal in goals], axis=0)
    scalar = (scalar - scalar.mean()) / max(scalar.std(), 1e-12)
    rows = goals[0].rows
    counts = np.maximum(history.counts[rows], 1)
    return Surrogate.condition(goals[0].surrogate.kernel, theta, history.points[rows], scalar, counts), scalar


def _region(state: State, centre: Floats) -> Box:
    """The trust region of the first goal around the best point."""
    scales = np.exp(_believed(state)[0].surrogate.theta[: len(centre)])
    return box(centre, scales, side(state.goals[0].latest(), len(centre)))


def _neglected(history: History, rng: np.random.Generator) -> list[Branch]:
    """For a share of the asks: all options but the most tried one of a column with branches, the least tried first.

    For the other asks none.
    """
    columns = history.space.columns
    opening = switches(columns)
    if not opening or rng.random() >= EXPLORED / max(history.size, OFTEN):
        return []
    column = opening[rng.integers(len(opening))]
    positions = history.points[:, column]
    levels = (positions[~np.isnan(positions)] * columns[column].levels).astype(np.intp)
    counts = np.bincount(levels, minlength=columns[column].levels)
    return [Branch(column, int(level), len(counts)) for level in np.argsort(counts, kind="stable")[:-1]]


def _incumbents(state: State, branch: Branch | None) -> Floats:
    """The best points so far, in a branch or in all; best first, the best of each branch among them: [k, d]."""
    history = state.history
    goals = _believed(state)
    rows, means = goals[0].rows, np.column_stack([goal.means for goal in goals])
    best = rows[np.argsort(order(means, history.excess[rows]), kind="stable")]
    points = history.points[best]
    if branch is not None:
        points = points[branch.holds(points)]
    _, first = np.unique(np.isnan(points), axis=0, return_index=True)
    chosen = np.union1d(np.sort(first)[:INCUMBENTS], np.arange(min(INCUMBENTS, len(points))))
    incumbents: Floats = points[chosen]
    return incumbents
