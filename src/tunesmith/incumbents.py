"""Which configuration of a study is the best, judged by all trials that it had.

Where a configuration was trained more than once its value is the posterior mean of :mod:`tunesmith.noise`, so that the
best one is not the one that was lucky once. Where nothing was repeated it is the value of its one trial.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith._collector import quiet
from tunesmith.noise import Estimate, Floats, Noise, fit
from tunesmith.pareto import ranks
from tunesmith.records import Constraint, Goal
from tunesmith.trials import Trial, Trials

Losses = tuple[float, ...]


def losses(trial: Trial, goals: Sequence[Goal], constraints: Sequence[Constraint]) -> Losses | None:
    """The value of every goal by its scope, to be minimised; None for a trial that has failed, breaks a constraint
    with its latest values, or was not told one of them.
    """
    if trial.status == "failed":
        return None
    found = []
    for goal in goals:
        value = trial.value(goal)
        if value is None:
            return None
        found.append(goal.loss(value))
    for rule in constraints:
        value = trial.last(rule.metric)
        if value is None or rule.violation(value) > 0:
            return None
    return tuple(found)


def fidelity(trial: Trial, names: Sequence[str]) -> tuple[Any, ...]:
    """The values of these fidelities with which the values of a trial were measured."""
    return tuple(trial.measured[name] for name in names)


class Leader:
    """The best trial of a study in which nothing was repeated, kept up to date: O(log n) for each trial that changes.

    Values of different fidelities can't be compared: the best is among those at the highest fidelity that has one.
    """

    def __init__(self, trials: Trials, goals: Sequence[Goal], constraints: Sequence[Constraint]) -> None:
        self.trials, self._goals, self._constraints = trials, goals, constraints
        self._standing: dict[int, tuple[tuple[Any, ...], float]] = {}  # by trial: its fidelity and its loss
        self._heaps: dict[tuple[Any, ...], list[tuple[float, int]]] = {}  # by fidelity; some entries are out of date
        self._fidelities: tuple[str, ...] | None = None

    def best(self, fidelities: tuple[str, ...]) -> Trial | None:
        """The best one as the trials stand now."""
        if self._fidelities != fidelities or self.trials.touched is None:
            with quiet(len(self.trials)):
                self._begin(fidelities)
        for number in self.trials.touched or ():
            self._update(self.trials[number], fidelities)
        self._fidelities, self.trials.touched = fidelities, set()
        for level in sorted(self._heaps, reverse=True):
            heap = self._heaps[level]
            while heap and self._standing.get(heap[0][1]) != (level, heap[0][0]):
                heappop(heap)
            if heap:
                return self.trials[heap[0][1]]
        return None

    def _begin(self, fidelities: tuple[str, ...]) -> None:
        """Look at all trials."""
        self._standing, self._heaps = {}, {}
        for trial in self.trials:
            found = losses(trial, self._goals, self._constraints)
            if found is not None:
                level = fidelity(trial, fidelities) if fidelities else ()
                self._standing[trial.id] = level, found[0]
                self._heaps.setdefault(level, []).append((found[0], trial.id))
        for heap in self._heaps.values():
            heapify(heap)

    def _update(self, trial: Trial, fidelities: tuple[str, ...]) -> None:
        found = losses(trial, self._goals, self._constraints)
        if found is None:
            self._standing.pop(trial.id, None)
            return
        standing = fidelity(trial, fidelities), found[0]
        if self._standing.get(trial.id) != standing:
            self._standing[trial.id] = standing
            heappush(self._heaps.setdefault(standing[0], []), (found[0], trial.id))


class _Configuration(NamedTuple):
    """A configuration: its first trial, the trials that give it its values, and those that failed or break a rule."""

    first: int
    told: list[tuple[Trial, Losses]]
    failed: list[Trial]


def _worst(told: Iterable[tuple[Trial, Losses]]) -> dict[int, Losses]:
    """The worst value of every goal, by the number of the repeat, and (-1) of all."""
    worst: dict[int, Losses] = {}
    for trial, found in told:
        for repeat in (trial.repeat, -1):
            worst[repeat] = tuple(map(max, zip(worst.get(repeat, found), found, strict=True)))
    return worst


class Incumbents:
    """The configurations that may be the best, as a study stands now.

    The values of a configuration are those of its trials that stand at the highest step that one of them has reached. A
    configuration is left out if at least half of these and of its failed trials have failed or break a constraint.
    Otherwise each of those that have counts as the worst value that any configuration has in a repeat of the same
    number: a configuration does not win because it failed in the hardest fold. A configuration is represented by its
    latest trial, whose value did not influence the decision to repeat it (no winner's curse).

    Args:
        trials: of the study.
        goals: of the study; ranked by the first.
        constraints: of the study.
        fidelities: parameters that rungs decide. Values of different fidelities can't be compared, so only the trials
            count whose fidelities are the highest.
    """

    def __init__(
        self,
        trials: Trials,
        goals: Sequence[Goal],
        constraints: Sequence[Constraint],
        fidelities: Sequence[str] = (),
    ) -> None:
        self.goals, self.constraints = goals, constraints
        self._fidelities = fidelities
        known = ((trial, losses(trial, goals, constraints)) for trial in trials) if fidelities else ()
        self._highest = max((fidelity(trial, fidelities) for trial, found in known if found is not None), default=())
        self.trials: list[Trial] = []
        self._repeated = trials.repeated
        self._rows: dict[int, int] = {}  # by first trial
        configurations = [*self._single(trials), *self._several(trials)]
        worst = _worst([told for one in configurations for told in one.told])
        rows: list[int] = []
        values: list[Losses] = []
        for one in configurations:
            self._rows[one.first] = row = len(self.trials)
            self.trials.append(one.told[-1][0])
            found = [found for _, found in one.told] + [worst.get(trial.repeat, worst[-1]) for trial in one.failed]
            rows += [row] * len(found)
            values += found
        row_of = np.array(rows, dtype=np.intp)
        self._counts = np.bincount(row_of).astype(np.float64)
        columns = np.array(values).reshape(-1, len(goals)).T
        self._models = [_model(column, row_of, self._counts) for column in columns] if rows else []

    def _single(self, trials: Trials) -> Iterator[_Configuration]:
        """The configurations of one trial that may be the best."""
        for trial in trials:
            if trial.repeat_of is None and (trial.id not in trials.repeated or trial.parent is not None):
                found = losses(trial, self.goals, self.constraints)
                if found is not None and fidelity(trial, self._fidelities) == self._highest:
                    yield _Configuration(trial.id, [(trial, found)], [])

    def _several(self, trials: Trials) -> Iterator[_Configuration]:
        """The configurations of several trials that may be the best."""
        for same in trials.repeated.values():
            told = [trial for trial in same if trial.reports and trial.status != "failed"]
            step = max([trial.step for trial in told], default=0)
            last = [(trial, losses(trial, self.goals, self.constraints)) for trial in told if trial.step == step]
            held = [(trial, found) for trial, found in last if found is not None]
            broken = [trial for trial, found in last if found is None]
            failed = [trial for trial in same if trial.status == "failed"] + broken
            if len(held) > len(failed) and fidelity(held[0][0], self._fidelities) == self._highest:
                yield _Configuration(same[0].id, held, failed)

    def ranked(self) -> Iterator[Trial]:
        """A trial of every configuration, the best first; of equal ones the older first."""
        if self.trials:
            order = np.lexsort((np.array([trial.id for trial in self.trials]), self._models[0].posterior))
            yield from (self.trials[row] for row in order.tolist())

    def front(self, among: Container[Trial] | None = None) -> list[Trial]:
        """A trial of every configuration that no other one beats in every goal, by number.

        Args:
            among: only these trials, as if there were no others.
        """
        rows = [row for row, trial in enumerate(self.trials) if among is None or trial in among]
        if not rows:
            return []
        values = np.column_stack([model.posterior[rows] for model in self._models])
        best = [self.trials[row] for row, rank in zip(rows, ranks(values), strict=True) if not rank]
        return sorted(best, key=lambda trial: trial.id)

    def estimate(self, trial: Trial) -> Estimate | None:
        """The mean of the first goal for the configuration of a trial.

        None where the configuration is left out, or where no configuration has two values: then nothing is known of the
        noise.
        """
        same = self._repeated.get(trial.id if trial.repeat_of is None else trial.repeat_of, [trial])
        row = self._rows.get(trial.id if trial.parent is not None else same[0].id)
        if row is None or not self._models[0].noise.freedom:
            return None
        noise, counts, goal = self._models[0].noise, self._counts[row : row + 1], self.goals[0]
        mean = float(self._models[0].posterior[row])
        reach = noise.reach * math.sqrt(float(noise.variances(counts)[0]))
        low, high = sorted((goal.loss(mean - reach), goal.loss(mean + reach)))
        return Estimate(goal.loss(mean), low, high, int(counts[0]))


class _Model(NamedTuple):
    """One goal of all configurations."""

    noise: Noise
    posterior: Floats


def _model(values: Floats, row_of: NDArray[np.intp], counts: Floats) -> _Model:
    """The model of values [n], of which each belongs to a configuration, in order [n], that has so many [k]."""
    first = values[np.cumsum(counts).astype(np.intp) - counts.astype(np.intp)]
    with np.errstate(over="ignore", invalid="ignore"):
        gaps = values - first[row_of]  # so that equal values have exactly their mean
        means = first + np.bincount(row_of, weights=gaps) / counts
        squares = np.bincount(row_of, weights=(values - means[row_of]) ** 2).astype(np.float64)
    noise = fit(means, counts, squares)
    return _Model(noise, noise.means(means, counts))
