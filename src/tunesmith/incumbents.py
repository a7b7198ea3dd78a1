"""Which configuration of a study is the best, judged by all trials that it had.

Where a configuration was trained more than once its value is the posterior mean of :mod:`tunesmith.noise`, so that the
best one is not the one that was lucky once. Where nothing was repeated it is the value of its one trial.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.noise import Estimate, Floats, Noise, fit
from tunesmith.pareto import ranks
from tunesmith.records import Constraint, Goal
from tunesmith.trials import Trial, Trials

Losses = tuple[float, ...]


def losses(trial: Trial, goals: Sequence[Goal], constraints: Sequence[Constraint]) -> Losses | None:
    """The latest value of every goal, to be minimised; None for a trial that has failed, breaks a constraint, or
    was not told one of them.
    """
    if trial.status == "failed":
        return None
    found = []
    for goal in goals:
        value = trial.last(goal.metric)
        if value is None:
            return None
        found.append(goal.loss(value))
    for rule in constraints:
        value = trial.last(rule.metric)
        if value is None or rule.violation(value) > 0:
            return None
    return tuple(found)


class Incumbents:
    """The configurations that may be the best, as a study stands now.

    The values of a configuration are those of its trials that stand at the highest step that one of them has reached. A
    configuration is left out if at least half of these and of its failed trials have failed or break a constraint.
    It stands for itself by the latest of them: its value was not what made the configuration look good.

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
        self._highest = max((self._fidelity(trial) for trial in trials if trial.reports), default=())
        self.trials: list[Trial] = []
        self._repeated = trials.repeated
        self._rows: dict[int, int] = {}  # by first trial
        rows: list[int] = []
        values: list[Losses] = []
        for first, held in self._configurations(trials):
            self._rows[first] = row = len(self.trials)
            self.trials.append(held[-1][0])
            for _, found in held:
                rows.append(row)
                values.append(found)
        row_of = np.array(rows, dtype=np.intp)
        self._counts = np.bincount(row_of).astype(np.float64)
        columns = np.array(values).reshape(-1, len(goals)).T
        self._models = [_model(column, row_of, self._counts) for column in columns] if rows else []

    def _fidelity(self, trial: Trial) -> tuple[Any, ...]:
        return tuple(trial.config[name] for name in self._fidelities)

    def _configurations(self, trials: Trials) -> Iterator[tuple[int, list[tuple[Trial, Losses]]]]:
        """The configurations that may be the best: first trial, and the trials that give it its values."""
        for trial in trials:
            if trial.repeat_of is None and (trial.id not in trials.repeated or trial.parent is not None):
                found = losses(trial, self.goals, self.constraints)
                if found is not None and self._fidelity(trial) == self._highest:
                    yield trial.id, [(trial, found)]
        for same in trials.repeated.values():
            held = self._held(same)
            if held and self._fidelity(held[0][0]) == self._highest:
                yield same[0].id, held

    def _held(self, same: Sequence[Trial]) -> list[tuple[Trial, Losses]]:
        """The trials that give a repeated configuration its values; none where it is left out."""
        told = [trial for trial in same if trial.reports and trial.status != "failed"]
        step = max([trial.step for trial in told], default=0)
        last = [(trial, losses(trial, self.goals, self.constraints)) for trial in told if trial.step == step]
        held = [(trial, found) for trial, found in last if found is not None]
        failed = [trial for trial in same if trial.status == "failed"]
        return held if len(held) > len(last) - len(held) + len(failed) else []

    def ranked(self) -> Iterator[Trial]:
        """A trial of every configuration, the best first; of equal ones the older first."""
        if self.trials:
            order = np.lexsort((np.array([trial.id for trial in self.trials]), self._models[0].posterior))
            yield from (self.trials[row] for row in order.tolist())

    def front(self) -> list[Trial]:
        """A trial of every configuration that no other one beats in every goal, by number."""
        if not self.trials:
            return []
        values = np.column_stack([model.posterior for model in self._models])
        return sorted((t for t, rank in zip(self.trials, ranks(values), strict=True) if not rank), key=lambda t: t.id)

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
