"""One outcome of the trials as a Gaussian process that is kept up to date: a goal, a constraint, or failing."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.pareto import order
from tunesmith.samplers._kernel import Kernel
from tunesmith.samplers._surrogate import Surrogate
from tunesmith.samplers._transform import POWERS, Transform, balanced
from tunesmith.samplers.base import FAILED, OBSERVED, Floats, History

PLAIN = (1.0,)  #: the power that changes nothing
CLEAR = 3.0  #: by so much must the logarithm of a probability be higher: 20 times as likely
GROWTH = 1.05  #: hyperparameters are fitted anew when there are so many times more rows
YOUNG = 40  #: up to so many rows they are also fitted from their prior's mode, and to the end
WARM = 12  #: steps of the optimiser in a later fit, which begins where the last one ended
FIT = 400  #: rows at most that hyperparameters are fitted to
BULK = 1000  #: rows at most that a posterior is conditioned on, at the time of a fit


Kind = Literal["goal", "constraint", "failure"]


class Outcome:
    """A model of one outcome. It changes in ``learn`` alone, so that it follows from the log.

    Where only values have changed, the posterior waits until it is asked for: a population tells often and asks seldom.

    Attributes:
        rows: of the history, on which the posterior is conditioned.
        transform: from the outcome's values, of a goal.
        limit: the transformed value up to which a constraint holds, or a trial does not fail.
    """

    def __init__(self, history: History, kernel: Kernel, kind: Kind, index: int = 0) -> None:
        self.history, self.kernel, self.kind, self.index = history, kernel, kind, index
        self.transform: Transform
        self.limit = 0.0
        self.rows: list[int] = []
        self._every: dict[int, None] = {}  # all rows that have the outcome, in the order in which they got it
        self._posterior: Surrogate | None = None
        self._changed = False  # whether rows of the posterior have other values since
        self._current: Surrogate | None = None  # if so: the posterior of these, once it was asked for
        self._next = 2  # rows at which to fit again
        self._powers: tuple[float, ...] = PLAIN
        self._thetas: dict[tuple[float, ...], Floats] = {}  # of the last fit, by the powers that the transform may take

    @property
    def surrogate(self) -> Surrogate | None:
        """The posterior of the transformed values, None before there are two rows."""
        if self._posterior is None or not self._changed:
            return self._posterior
        if self._current is None:
            self._current = self._conditioned(self._posterior.theta)
        return self._current

    def fitted(self) -> Floats:
        """Posterior means at the rows: [n]. By the normal equations, without a prediction."""
        surrogate = self.surrogate
        assert surrogate is not None
        means: Floats = surrogate.y - surrogate.noise / surrogate.counts * surrogate.weights
        return means

    def learn(self, row: int) -> None:
        """Take in a row that was observed, has failed, or has changed its values."""
        status = self.history.status[row]
        has = status == OBSERVED or (status == FAILED and self.kind == "failure")
        fresh = has and row not in self._every
        if fresh:
            self._every[row] = None
        elif not has and row in self._every:
            del self._every[row]
            self._next = 0
        elif not has or (self._posterior is not None and row not in self.rows):
            return
        self._current = None
        if len(self._every) < 2 or (self.kind == "failure" and not (self.history.status == FAILED).any()):
            self._posterior = None
        elif self._posterior is None or len(self._every) >= self._next:
            self._fit()
        elif fresh:
            self._extend(row)
        else:
            self._changed = True

    def _values(self, rows: list[int]) -> Floats:
        if self.kind == "failure":
            return np.where(self.history.status[rows] == FAILED, 1.0, -1.0)
        source = self.history.losses if self.kind == "goal" else self.history.excess
        values: Floats = source[rows, self.index]
        return values

    def _merits(self, rows: list[int]) -> Floats:
        """Of which the least are the best rows: for all goals the same ones."""
        if self.kind == "goal":
            return order(self.history.losses[rows], self.history.excess[rows]).astype(np.float64)
        return self._values(rows)

    def _transformed(self) -> Floats:
        values = self._values(self.rows)
        if self.kind == "failure":
            return values
        if self.kind == "constraint":
            values, self.limit = balanced(values)
            return values
        self.transform = Transform.fit(values, self._powers)
        return self.transform.apply(values)

    def _extend(self, row: int) -> None:
        """The same hyperparameters, one row more."""
        assert self._posterior is not None
        self.rows.append(row)
        if self._changed:
            self._posterior, self._changed = self._conditioned(self._posterior.theta), False
        else:
            point = self.history.points[row : row + 1]
            self._posterior = self._posterior.extend(point, self._transformed(), self._counts())

    def _conditioned(self, theta: Floats) -> Surrogate:
        y = self._transformed()
        return Surrogate.condition(self.kernel, theta, self.history.points[self.rows], y, self._counts())

    def _fit(self) -> None:
        """New hyperparameters, from those of before; and new rows where there are too many.

        Values are transformed by a power if this makes them clearly likelier under the process.
        """
        every = list(self._every)
        self.rows = [every[i] for i in _spread(self._merits(every), BULK)]
        self._next = math.ceil(len(every) * GROWTH)
        likeliest = -math.inf
        for powers in (PLAIN, POWERS) if self.kind == "goal" else (PLAIN,):
            self._powers = powers
            evidence, theta = self._tuned()
            self._thetas[powers] = theta
            if evidence > likeliest + CLEAR:
                likeliest, best = evidence, powers
        self._powers = best
        self._posterior, self._changed = self._conditioned(self._thetas[best]), False

    def _tuned(self) -> tuple[float, Floats]:
        """The likeliest hyperparameters for the values as they are transformed now, and how likely both are."""
        values, y = self._values(self.rows), self._transformed()
        some = _spread(y, FIT)
        before = self._thetas.get(self._powers)
        anew = before is None or len(some) <= YOUNG
        fitted = Surrogate.fit(
            self.kernel, self.history.points[self.rows][some], y[some], self._counts()[some], before,
            restarts=1 if anew else 0, iterations=50 if anew else WARM,
        )  # fmt: skip
        jacobian = float(self.transform.log_slopes(values[some]).sum()) if self.kind == "goal" else 0.0
        return fitted.evidence + jacobian, fitted.theta

    def _counts(self) -> Floats:
        counts: Floats = np.maximum(self.history.counts[self.rows], 1).astype(np.float64)
        return counts


def _spread(values: Floats, most: int) -> NDArray[np.intp]:
    """At most so many positions of [n]: half of them those of the least values, the others evenly spread; in order."""
    n = len(values)
    if n <= most:
        return np.arange(n)
    best = np.argsort(values, kind="stable")[: most // 2]
    rest = np.setdiff1d(np.arange(n), best)
    even = rest[np.linspace(0, len(rest) - 1, most - len(best)).astype(np.intp)]
    return np.sort(np.concatenate([best, even]))
