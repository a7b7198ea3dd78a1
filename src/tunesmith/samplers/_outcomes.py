"""One outcome of the trials as a Gaussian process that is kept up to date: a goal, a constraint, or failing."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith._threads import one_thread
from tunesmith.samplers._kernel import Kernel
from tunesmith.samplers._partial import extrapolated
from tunesmith.samplers._surrogate import Surrogate
from tunesmith.samplers._transform import POWERS, Transform, balanced
from tunesmith.samplers.base import FAILED, PENDING, Floats, History, places

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

    A goal or a constraint is learned from all observations: where there are several rungs, a configuration has one at
    each that it has reached, and the process goes over configurations and the logarithm of the step. What it says is
    what holds at the last rung. Failing is learned from configurations.

    Where only values have changed, the posterior waits until it is asked for: a population tells often and asks seldom.

    Attributes:
        transform: from the outcome's values at the last rung, of a goal.
        limit: the transformed value up to which a constraint holds, or a trial does not fail.
    """

    def __init__(self, history: History, kernel: Kernel, kind: Kind, index: int = 0) -> None:
        self.history, self.kernel, self.kind = history, kernel, kind
        self.column = index + (len(history.goals) if kind == "constraint" else 0)
        self.transform: Transform
        self.limit = 0.0
        self._of: dict[int, list[int]] = {}  # by row: its observations, by ascending steps; of failing, the row itself
        self._every: dict[int, None] = {}  # all of them, in the order in which they came
        self._chosen: list[int] = []  # those on which the posterior is conditioned
        self._rungs: list[int] = []  # the steps at which they are
        self._posterior: Surrogate | None = None
        self._changed = False  # whether what the posterior is conditioned on has other values since
        self._current: Surrogate | None = None  # if so: the posterior of these, once it was asked for
        self._next = 2  # observations at which to fit again
        self._powers: tuple[float, ...] = PLAIN
        self._thetas: dict[tuple[float, ...], Floats] = {}  # of the last fit, by the powers that the transform may take

    @property
    def rows(self) -> list[int]:
        """Of the history: the configurations on which the posterior is conditioned."""
        return list(dict.fromkeys(self._rows(self._chosen).tolist()))

    @property
    def surrogate(self) -> Surrogate | None:
        """The posterior of the transformed values, None before there are two observations."""
        if self._posterior is None or not self._changed:
            return self._posterior
        if self._current is None:
            self._current = self._conditioned(self._posterior.theta)
        return self._current

    def fitted(self) -> Floats:
        """Posterior means at the rows, at the last rung: [n]. With one rung by the normal equations."""
        surrogate = self.surrogate
        assert surrogate is not None
        if self.kernel.steps:
            return surrogate.means(self.history.points[self.rows])
        means: Floats = surrogate.y - surrogate.noise / surrogate.counts * surrogate.weights
        return means

    def latest(self) -> Floats:
        """The last value of every configuration that has one, in the terms of the last rung, in the order of asking."""
        return self._values([self._of[row][-1] for row in sorted(self._of)])

    def learn(self, row: int) -> None:
        """Take in a row that was observed, has failed, or has changed its values."""
        before, now = self._of.pop(row, []), self._observations(row)
        if now:
            self._of[row] = now
        gone, fresh = ([i for i in some if i not in others] for some, others in ((before, now), (now, before)))
        for i in gone:
            del self._every[i]
        self._every.update(dict.fromkeys(fresh))
        if not gone and not fresh and (not now or (self._posterior is not None and not set(now) & set(self._chosen))):
            return
        self._current = None
        anew = self._stepped() or bool(gone)
        if len(self._every) < 2 or (self.kind == "failure" and not (self.history.status == FAILED).any()):
            self._posterior = None
        elif self._posterior is None or anew or len(self._every) >= self._next:
            self._fit()
        elif fresh:
            self._extend(fresh)
        else:
            self._changed = True

    def _observations(self, row: int) -> list[int]:
        """What there is of a row, by ascending steps; none while it is pending."""
        status = self.history.status[row]
        if self.kind == "failure":
            return [] if status == PENDING else [row]
        seen = self.history.observations(row)
        return [seen[step] for step in sorted(seen)]

    def _stepped(self) -> bool:
        """Look at the rungs. Whether there are several now where there was one, or the reverse."""
        if self.kind == "failure":
            return False
        rungs = self.history.rungs
        self._changed = self._changed or rungs[-1:] != self._rungs[-1:]
        self._rungs = rungs
        if (several := len(rungs) > 1) == self.kernel.steps:
            return False
        self.kernel, self._thetas = Kernel(self.kernel.columns, self.kernel.warp, several), {}
        return True

    def _rows(self, chosen: list[int]) -> NDArray[np.int64]:
        """The rows of observations."""
        every = np.array(chosen, dtype=np.int64)
        rows: NDArray[np.int64] = every if self.kind == "failure" else self.history.seen_rows[every]
        return rows

    def _points(self, chosen: list[int]) -> Floats:
        """The points of observations; where there are several rungs, each with its step."""
        points: Floats = self.history.points[self._rows(chosen)]
        if not self.kernel.steps:
            return points
        return np.column_stack([points, np.log(self.history.seen_steps[chosen] / self._rungs[-1])])

    def _values(self, chosen: list[int]) -> Floats:
        """The values of observations, in the terms of the last rung."""
        if self.kind == "failure":
            return np.where(self.history.status[chosen] == FAILED, 1.0, -1.0)
        return extrapolated(self.history, self.column, np.array(chosen, dtype=np.int64)).values

    def _merits(self, chosen: list[int]) -> Floats:
        """Of which the least are the best observations: for all goals the same ones."""
        if self.kind == "goal":
            rows = self._rows(chosen).tolist()
            distinct = list(dict.fromkeys(rows))
            place = dict(zip(distinct, places(self.history, distinct).tolist(), strict=True))
            return np.array([place[row] for row in rows], dtype=np.float64)
        return self._values(chosen)

    def _transformed(self) -> Floats:
        values = self._values(self._chosen)
        if self.kind == "failure":
            return values
        if self.kind == "constraint":
            values, self.limit = balanced(values)
            return values
        self.transform = Transform.fit(values, self._powers)
        return self.transform.apply(values)

    @one_thread
    def _extend(self, fresh: list[int]) -> None:
        """The same hyperparameters, a few observations more."""
        assert self._posterior is not None
        self._chosen += fresh
        if self._changed:
            self._posterior, self._changed = self._conditioned(self._posterior.theta), False
        else:
            self._posterior = self._posterior.extend(self._points(fresh), self._transformed(), self._counts())

    def _conditioned(self, theta: Floats) -> Surrogate:
        y = self._transformed()
        return Surrogate.condition(self.kernel, theta, self._points(self._chosen), y, self._counts())

    @one_thread
    def _fit(self) -> None:
        """New hyperparameters, from those of before; and new observations where there are too many.

        Values are transformed by a power if this makes them clearly likelier under the process.
        """
        every = list(self._every)
        self._chosen = [every[i] for i in _spread(self._merits(every), BULK)]
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
        values, y = self._values(self._chosen), self._transformed()
        some = _spread(y, FIT)
        before = self._thetas.get(self._powers)
        anew = before is None or len(some) <= YOUNG
        fitted = Surrogate.fit(
            self.kernel, self._points(self._chosen)[some], y[some], self._counts()[some], before,
            restarts=1 if anew else 0, iterations=50 if anew else WARM,
        )  # fmt: skip
        jacobian = float(self.transform.log_slopes(values[some]).sum()) if self.kind == "goal" else 0.0
        return fitted.evidence + jacobian, fitted.theta

    def _counts(self) -> Floats:
        source = self.history.counts if self.kind == "failure" else self.history.seen_counts
        counts: Floats = np.maximum(source[self._chosen], 1).astype(np.float64)
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
