"""Tree-structured Parzen estimators (Bergstra et al. 2011), with the settings of Watanabe 2023 (arXiv:2304.11127).

What was observed is split into the better few (below) and the rest (above). The density of each is estimated by a
mixture of kernels, and of some draws from the density of the better ones the one is proposed at which the ratio of the
two is largest. Outcome constraints multiply ratios of their own to it (c-TPE: Watanabe & Hutter, arXiv:2211.14411).

Where options of a parameter carry parameters of their own, the branch comes first, and each branch has its own better
few: what is good in a branch is not hidden by another branch that is easier to search (see ``docs/tpe.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith import pareto
from tunesmith._threads import one_thread
from tunesmith.hints import Options
from tunesmith.records import Constraint, Event, Goal
from tunesmith.samplers._partial import extrapolated
from tunesmith.samplers._parzen import Bandwidth, Coded, Layout, Mixture, levels
from tunesmith.samplers._prior import believed
from tunesmith.samplers._repeats import again
from tunesmith.samplers.base import FAILED, OBSERVED, PENDING, Bools, Floats, History, Ints, Point, View, Walk, switches
from tunesmith.samplers.qmc import design
from tunesmith.space import Column, Space

Rows = NDArray[np.intp]

MOST = 25  #: most trials below a split, not counting those that break a constraint; each branch has its own split
RECENT = 25  #: trials that the weights by age leave whole
POOL = 4  #: branches with fewer trials are split together
BELIEF = 5  #: after n trials an expert's prior has this / n of the better ones' density, at most half
EXPLORE = 0.5  #: share of proposals that go to the branch that was tried least
ROUNDS = 4  #: sets of candidates that are drawn while all of them are known or not allowed
FRESH = 20  #: draws in which one ask looks for a configuration that was not tried, where duplicates are wanted
TINY = 1e-300  #: least size of losses
MOST_CANDIDATES = 100_000  #: more say nothing new, and a study of a stranger's must not hold up who reads it
PATIENCE = 64  #: points of the initial design that were tried already which one ask passes over


@dataclass
class State:
    """The history, the walk along the initial design, and what is worked out once.

    Attributes:
        layouts: the groups of columns whose kernels are products: all columns, or each one by itself.
        switches: columns on which others depend.
        above: for each switch the one on which it depends, as an index of ``switches``; or -1.
        cells: by the options taken in all switches: a number, in the order in which they were first taken.
        cell: such a number for each row of the history, as far as it was looked at.
    """

    history: History
    walk: Walk
    layouts: list[Layout]
    switches: list[int]
    above: list[int]
    expert: bool
    cells: dict[bytes, int] = field(default_factory=dict)
    cell: list[int] = field(default_factory=list)


class TPE(Options, frozen=True):
    """Tree-structured Parzen estimators: fast, for every kind of space, any number of goals, trials and workers.

    The defaults are mostly what Watanabe 2023 recommends (the rest: ``docs/tpe.md``); other values are older variants.

    Args:
        startup: finished trials before the first proposal from the densities; until then a quasi-random design.
        candidates: draws from the better ones' density of which the best ratio is proposed.
        multivariate: kernels are products over all columns; otherwise each column is modelled by itself.
        gamma: how many of n finished trials are below: ``"linear"``: ``0.15 n``, ``"sqrt"``: ``0.25 sqrt(n)``; at
            most 25.
        weights: of the trials below: ``"EI"``: their improvement on the worst of them, ``"uniform"``; of all trials
            by age: ``"old-decay"`` (linearly less, but for the last 25), ``"old-drop"`` (none but the last 25).
        bandwidth: ``"hyperopt"``: the distance to the neighbours; ``"scott"``, ``"optuna"``: one for a whole column.
        floor: least bandwidth, as a share of a parameter's range, in [0.001, 1]; with k trials at least (k + 2)^-2,
            and 1 / (k + 2) for a number of at most 32 levels.
        branches: ``"balanced"``: each branch has a split of its own, and half of the proposals go where least was
            tried; ``"joint"``: all trials are split together and the branch is a column like any other.

    Raises:
        ValueError: for an option outside of these.
    """

    startup: int = 10
    candidates: int = 24
    multivariate: bool = True
    gamma: Literal["linear", "sqrt"] = "linear"
    weights: Literal["EI", "uniform", "old-decay", "old-drop"] = "EI"
    bandwidth: Bandwidth = "hyperopt"
    floor: float = 0.03
    branches: Literal["balanced", "joint"] = "balanced"

    def __post_init__(self) -> None:
        for name in ("startup", "candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"TPE: {name}={getattr(self, name)!r} must be at least 1")
        if self.candidates > MOST_CANDIDATES:
            raise ValueError(f"TPE: candidates={self.candidates} must be at most {MOST_CANDIDATES}")
        if not 0.001 <= self.floor <= 1:
            raise ValueError(f"TPE: floor={self.floor!r} must be in [0.001, 1]")
        for name, known in (
            ("gamma", ("linear", "sqrt")),
            ("weights", ("EI", "uniform", "old-decay", "old-drop")),
            ("bandwidth", ("hyperopt", "scott", "optuna")),
            ("branches", ("balanced", "joint")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"TPE: {name}={getattr(self, name)!r} must be one of {', '.join(map(repr, known))}")

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> State:
        """Nothing is told yet."""
        every = range(len(space.columns))
        centres = levels(space)
        groups: list[Sequence[int]] = [every] if self.multivariate else [[j] for j in every]
        layouts = [Layout(space, group, centres) for group in groups]
        opening = switches(space.columns)
        parents = [space.columns[j].parent for j in opening]
        above = [-1 if parent is None else opening.index(parent) for parent in parents]
        history = History(space, goals, constraints, duplicates)
        return State(history, design(space, rng, duplicates), layouts, opening, above, believed(space.columns))

    def tell(self, state: State, event: Event) -> State:
        """Fold an event into the history."""
        state.walk.tell(event)
        state.history.tell(event)
        return state

    @one_thread
    def ask(self, state: State, rng: np.random.Generator, until: int = 1) -> Point | None:
        """The candidate of the largest ratio that is new and allowed; a draw from the space where none is."""
        history, space = state.history, state.history.space
        ratios = self._ratios(state)
        if not ratios:
            return state.walk.next(PATIENCE)
        given = np.full(len(space.columns), np.nan)
        if state.switches and self.branches == "balanced":
            given[state.switches] = self._branch(state, rng)
        for turn in range(ROUNDS):
            if turn == ROUNDS // 2:  # nothing new is allowed in this branch
                given[:] = np.nan
            points = space.snap(np.vstack([ratio.draw(given, self.candidates, rng) for ratio in ratios]))
            gains = np.sum([ratio.gain(points) for ratio in ratios], axis=0)
            known = history.known(points)
            for i in np.argsort(-gains, kind="stable"):
                if not known[i] and space.allows(points[i]):
                    return self._unless_tried(state, points[i], rng)
        return state.walk.random(rng)

    def _unless_tried(self, state: State, point: Point, rng: np.random.Generator) -> Point:
        """The point; where it is a configuration that was tried before, the one that is worth another trial.

        Densities do not tell a lucky configuration from a good one, since its further trials leave them as they are.
        And a share of the asks, which fades, then goes to what was never tried, so that nothing is overlooked.
        """
        history = state.history
        if not history.tried(point[None])[0]:
            return point
        if rng.random() < self.startup / history.trials:
            for _ in range(FRESH):
                drawn = state.walk.random(rng)
                if not history.tried(drawn[None])[0]:
                    return drawn
        return again(history)

    @one_thread
    def view(self, state: State, points: Floats, rng: np.random.Generator) -> View:
        """The relative density ratio at points [n, d], and the two densities."""
        ratios = self._ratios(state)
        if not ratios:
            raise ValueError(
                f"TPE: the densities begin after {self.startup} finished trials, one of them with a result"
            )
        better, worse = ratios[0].log_densities(points)
        gains = np.sum([ratio.gain(points) for ratio in ratios], axis=0)
        return View(np.exp(gains), {"better": np.exp(better), "worse": np.exp(worse)})

    def _ratios(self, state: State) -> list[Ratio]:
        """What is maximised: the ratio of the goals and those of the constraints; none before the densities begin."""
        history = state.history
        settled = np.flatnonzero(history.status != PENDING)
        finished = int(np.maximum(history.counts[settled], 1).sum()) if history.duplicates else len(settled)
        if not history.points.shape[1] or finished < self.startup or not (history.status == OBSERVED).any():
            return []
        coded = [layout.code(history.points) for layout in state.layouts]
        standings = _standings(history)
        below, weights = self._split(state, settled, standings)
        parts = self._parts(state, settled, standings.counts, below, weights)
        return [Ratio(self, state, coded, *part) for part in parts]

    def count(self, settled: float) -> int:
        """How many of so many finished trials are below."""
        share = 0.15 * settled if self.gamma == "linear" else 0.25 * np.sqrt(settled)
        return min(int(np.ceil(share)), MOST)

    def _split(self, state: State, settled: Rows, standings: Standings) -> tuple[Rows, Floats]:
        """The rows that are below, and their weights: split branch by branch, small branches together."""
        if not state.switches or self.branches == "joint":
            return self._best(state.history, settled, standings)
        cell = _cells(state)[settled]
        cell[np.bincount(cell)[cell] < POOL] = -1
        parts = [self._best(state.history, settled[cell == one], standings) for one in np.unique(cell)]
        rows, weights = zip(*parts, strict=True)
        return np.concatenate(rows), np.concatenate(weights)

    def _best(self, history: History, settled: Rows, standings: Standings) -> tuple[Rows, Floats]:
        """The best of these rows, and their weights (1 on average, if all count 1).

        With outcome constraints as many are taken as it needs to have so many that break none (c-TPE); none where all
        trials break one.
        """
        rows = settled[history.status[settled] == OBSERVED]
        losses, steps, counts = (values[rows] for values in standings)
        places = losses[:, 0] if losses.shape[1] == 1 else pareto.ranks(losses)
        order = np.lexsort((places, -steps))
        feasible = np.cumsum((history.excess[rows[order]] <= 0).all(axis=1) * counts[order])
        wanted = min(self.count(standings.counts[settled].sum()), feasible.max(initial=0))
        size = int(np.searchsorted(feasible, wanted)) + 1 if wanted else 0
        if losses.shape[1] > 1 and size:
            order = _subset(losses, places, steps, order, size)
        best = order[:size]
        if self.weights != "EI" or losses.shape[1] > 1 or not size:
            return rows[best], _by_age(rows[best], self.weights) * counts[best]
        return rows[best], _improvements(losses[best, 0]) * counts[best]

    def _branch(self, state: State, rng: np.random.Generator) -> Floats:
        """The options to take in the switches, [switches], NaN where inactive.

        Those that promise most: with a good best value, far ahead of the median, so that a branch which is searched to
        its end no longer promises anything. One time in two one of these is changed to the option that was tried
        least, and what comes with that option is chosen the same way.
        """
        columns = [state.history.space.columns[j] for j in state.switches]
        worth = _worth(state.history)

        def promise(levels: Rows, rows: Bools, option: int) -> float:
            found = worth[rows & (levels == option) & ~np.isnan(worth)]
            return 2 * found.min() - float(np.median(found)) if len(found) else np.inf

        def tried(levels: Rows, rows: Bools, option: int) -> float:
            return float((rows & (levels == option)).sum())

        taken = np.full(len(columns), -1)
        _descend(state, columns, taken, range(len(columns)), promise)
        if rng.random() < EXPLORE:
            changed = [int(rng.choice(np.flatnonzero(taken >= 0)))]
            changed += [k for k in range(changed[0], len(columns)) if _within(state.above, k, changed[0])]
            _descend(state, columns, taken, changed, tried)
        sizes = np.array([column.levels for column in columns])
        return np.where(taken < 0, np.nan, (taken + 0.5) / sizes)

    def _parts(
        self, state: State, settled: Rows, counts: Floats, below: Rows, weights: Floats
    ) -> list[tuple[Rows, Floats, Rows, Floats, float]]:
        """What each ratio is made of: rows below, their weights, rows above, theirs, and the share of those below."""
        history = state.history
        above = np.setdiff1d(np.arange(history.size), below)
        parts = []
        if len(below):
            share = min(1.0, float(counts[below].sum() / counts[settled].sum()))
            parts.append((below, weights, above, _by_age(above, self.weights) * counts[above], share))
        observed = np.flatnonzero(history.status == OBSERVED)
        for excess in history.excess[observed].T:
            fine = excess <= 0
            if not fine.any():
                fine = np.argsort(np.argsort(excess, kind="stable")) < self.count(len(observed))
            if not fine.all() or not parts:
                rest = observed[~fine]
                parts.append(
                    (observed[fine], np.ones(fine.sum()), rest, _by_age(rest, self.weights), float(fine.mean()))
                )
        return parts


def _cells(state: State) -> Ints:
    """Where each row of the history stands among the branches; rows that are new are looked at once."""
    for options in state.history.points[len(state.cell) :, state.switches]:
        state.cell.append(state.cells.setdefault(options.tobytes(), len(state.cells)))
    return np.array(state.cell, dtype=np.int64)


class Ratio:
    """The relative density ratio of the trials below and above a split, for each group of columns.

    Args:
        sampler: the options.
        state: has the layouts.
        coded: the points of the history, for each layout.
        below, weights: [k] rows, and their weights.
        above, others: [n] rows, and their weights.
        share: of the trials that are below, in (0, 1).
    """

    def __init__(
        self, sampler: TPE, state: State, coded: list[Coded],
        below: Rows, weights: Floats, above: Rows, others: Floats, share: float,
    ) -> None:  # fmt: skip
        self.layouts, self.share = state.layouts, share
        self.better, self.rest = (
            [
                _mixture(sampler, state.history, layout, one, rows, heavy, expert)
                for layout, one in zip(state.layouts, coded, strict=True)
            ]
            for rows, heavy, expert in ((below, weights, state.expert), (above, others, False))
        )

    def draw(self, given: Point, count: int, rng: np.random.Generator) -> Floats:
        """Points [count, d] from the density of the better ones, given the columns that are not NaN in ``given``."""
        points = np.tile(given, (count, 1))
        for better in self.better:
            better.draw(points, rng)
        return points

    def log_densities(self, points: Floats) -> Floats:
        """Logarithms of the density of the better ones and of the rest at points [n, d]: [2, n]."""
        coded = [layout.code(points) for layout in self.layouts]
        sides = (self.better, self.rest)
        found: Floats = np.array(
            [np.sum([one.log_density(c) for one, c in zip(side, coded, strict=True)], axis=0) for side in sides]
        )
        return found

    def gain(self, points: Floats) -> Floats:
        """Logarithm of the relative ratio ``1 / (share + (1 - share) g/l)`` at points [n, d]: [n]."""
        better, rest = self.log_densities(points)
        with np.errstate(divide="ignore"):  # where all are below nothing is gained anywhere
            gain: Floats = -np.logaddexp(np.log(self.share), np.log1p(-self.share) + rest - better)
        return gain


def _mixture(
    sampler: TPE, history: History, layout: Layout, coded: Coded, rows: Rows, weights: Floats, expert: bool
) -> Mixture | Believed:
    """The density of these rows of the history, of which ``coded`` has the points; with what experts believe, if so."""
    if not sampler.multivariate:  # only the trials in which the column is active
        active = ~np.isnan(history.points[rows, layout.columns[0]])
        rows, weights = rows[active], weights[active]
    seen = Mixture(layout, coded.take(rows), weights, 1.0, sampler.bandwidth, sampler.floor, expert=False)
    if not expert:
        return seen
    return Believed(seen, Mixture(layout, coded.take(rows[:0]), weights[:0]), min(0.5, BELIEF / history.size))


class Believed:
    """The density of what was seen to be better, and a share of what experts believe to be.

    Whatever they are sure of, the rest is as it would be without them: nothing is forbidden.

    Args:
        seen: the density of the better ones.
        expert: what is believed, of the same columns.
        share: of the latter.
    """

    def __init__(self, seen: Mixture, expert: Mixture, share: float) -> None:
        self.layout, self.seen, self.expert, self.share = seen.layout, seen, expert, share

    def log_density(self, points: Coded) -> Floats:
        """Logarithm of the density at n points: [n]. Columns that are inactive are integrated out."""
        total: Floats = np.logaddexp(*self._parts(points))
        return total

    def draw(self, points: Floats, rng: np.random.Generator) -> None:
        """Fill in what is NaN in the points [n, d], as a ``Mixture`` does."""
        seen, expert = self._parts(self.layout.code(points[:1]))
        chosen = rng.random(len(points)) < np.exp(expert - np.logaddexp(seen, expert))
        for rows, part in ((chosen, self.expert), (~chosen, self.seen)):
            if rows.any():
                drawn = points[rows]
                part.draw(drawn, rng)
                points[rows] = drawn

    def _parts(self, points: Coded) -> tuple[Floats, Floats]:
        """Logarithms of the two terms of the density at n points: [n] each."""
        seen = np.log1p(-self.share) + self.seen.log_density(points)
        return seen, np.log(self.share) + self.expert.log_density(points)


def _by_age(rows: Rows, rule: str) -> Floats:
    """Weights of trials by age: all 1 but for the older rules (Bergstra et al. 2013), which forget."""
    weights = np.ones(len(rows))
    if rule.startswith("old") and len(rows) > RECENT:
        age = np.argsort(np.argsort(-rows))  # 0 for the latest
        old = len(rows) - RECENT
        ramp = np.linspace(1.0, 1 / len(rows), old) if rule == "old-decay" else np.zeros(old)
        weights = np.concatenate([np.ones(RECENT), ramp])[age]
    return weights


def _improvements(losses: Floats) -> Floats:
    """By how much losses are better than the worst of them (that one: a trifle), 1 on average; 1 if all are equal."""
    size = float(np.abs(losses).max())
    gains = losses.max() / size - losses / size if size else np.zeros(len(losses))
    gains = np.maximum(gains, 1e-12 * gains.max())
    return gains / gains.mean() if gains.max() > 0 else np.ones(len(losses))


def _subset(losses: Floats, places: NDArray[Any], steps: Rows, order: Rows, size: int) -> Rows:
    """The order with those of the rank in which ``size`` falls sorted by greedy hypervolume subset selection."""
    last = order[size - 1]
    border = (places[order] == places[last]) & (steps[order] == steps[last])
    tied = order[border]
    chosen = pareto.select(losses[tied], pareto.reference(losses), size - int(np.flatnonzero(border)[0]))
    sorted_out = order.copy()
    sorted_out[border] = np.concatenate([tied[chosen], np.delete(tied, chosen)])
    return sorted_out


class Standings(NamedTuple):
    """What trials are compared by, and how much each of them counts.

    One that has not come to the last rung has the losses that are to be expected of it there, and counts as much as
    these say (``_partial``).

    Attributes:
        losses: [n, m], NaN unless observed.
        steps: [n], at which they are compared, the greatest first: the last rung's, but where nothing is known of what
            is to be expected there, since no trial of the same rung has gone on.
        counts: [n], from 0 to 1.
    """

    losses: Floats
    steps: Rows
    counts: Floats


def _standings(history: History) -> Standings:
    """The standings of all rows. What is pending counts 1, what has failed as much as the others on average."""
    observed = np.flatnonzero(history.status == OBSERVED)
    last = history.last[observed]
    losses: Floats = np.full(history.losses.shape, np.nan)
    steps = np.zeros(history.size, dtype=np.intp)
    counts = np.ones(history.size)
    if not len(observed):
        return Standings(losses, steps, counts)
    found = [extrapolated(history, j, last) for j in range(losses.shape[1])]
    losses[observed] = np.stack([one.values for one in found], axis=1)
    steps[observed] = np.where(found[0].known, history.rungs[-1], history.seen_steps[last])
    counts[observed] = np.mean([one.trust for one in found], axis=0)
    counts[history.status == FAILED] = counts[observed].mean()
    return Standings(losses, steps, counts)


def _worth(history: History) -> Floats:
    """One number for each row, the smaller the better, NaN unless observed: the loss, or else its place among all."""
    observed = np.flatnonzero(history.status == OBSERVED)
    worth = np.full(history.size, np.nan)
    losses, steps, _ = _standings(history)
    losses, steps, excess = losses[observed], steps[observed], history.excess[observed]
    if losses.shape[1] == 1 and not excess.shape[1] and np.ptp(steps) == 0:
        worth[observed] = losses[:, 0] / max(float(np.abs(losses).max()), TINY)
    else:
        worth[observed[np.lexsort((pareto.order(losses, excess), -steps))]] = np.arange(len(observed))
    return worth


def _descend(
    state: State, columns: list[Column], taken: Rows, which: Iterable[int], cost: Callable[[Rows, Bools, int], float]
) -> None:
    """Take the option of least cost in these switches, from the root to the leaves; -1 where inactive."""
    options = state.history.points[:, state.switches]
    levels = np.where(np.isnan(options), -1.0, options * [column.levels for column in columns]).astype(np.intp)
    for k in which:
        above = state.above[k]
        taken[k] = -1
        if above < 0 or taken[above] in columns[k].options:
            rows = levels[:, k] >= 0 if above < 0 else levels[:, above] == taken[above]
            taken[k] = int(np.argmin([cost(levels[:, k], rows, option) for option in range(columns[k].levels)]))


def _within(above: list[int], k: int, ancestor: int) -> bool:
    """Whether the switch ``k`` lies below another one."""
    while above[k] >= 0:
        k = above[k]
        if k == ancestor:
            return True
    return False
