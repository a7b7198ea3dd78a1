"""One outcome of the trials as a Gaussian process: a goal, a constraint, or failing.

What is told is only noted. Whenever there are some more observations than before, a *sample* of them is put aside, and
to the last one hyperparameters are fitted when the process is first asked for: from a start that depends on the sample
alone, so that it does not matter when that is. In between the posterior takes in what has come since.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith._threads import one_thread
from tunesmith.samplers._kernel import Kernel
from tunesmith.samplers._partial import extrapolated
from tunesmith.samplers._surrogate import Surrogate
from tunesmith.samplers._transform import POWERS, Transform, balanced
from tunesmith.samplers.base import FAILED, OBSERVED, PENDING, Floats, History, Ints, places

PLAIN = (1.0,)  #: the power that changes nothing
CLEAR = 3.0  #: by so much must the logarithm of a probability be higher: 20 times as likely
GROWTH = 1.05  #: hyperparameters are fitted anew when there are so many times more observations
YOUNG = 40  #: observations up to which hyperparameters are fitted from two starts
COARSE = 100  #: observations at most to which hyperparameters are fitted at first, to the end
FIT = 400  #: and to which they are fitted then,
FINE = 30  #: in so many steps of the optimiser
BULK = 1000  #: observations at most in a sample, on which the posterior stands with what has come since
BLOCK = 32  #: of what has come since, so many at a time are taken in for good


Kind = Literal["goal", "constraint", "failure"]


@dataclass(frozen=True)
class Sample:
    """The observations that were put aside for a fit.

    Attributes:
        kernel: the covariance function that was in use.
        ids: [n], which observations, ascending.
        points: [n, d], or [n, d + 1] with the step.
        values: [n], in the terms of the last rung.
        counts: [n], how many measurements each value is the mean of.
        every: how many observations there were to choose from.
        arrived: how many had ever come.
    """

    kernel: Kernel
    ids: Ints
    points: Floats
    values: Floats
    counts: Floats
    every: int
    arrived: int


class Fit(NamedTuple):
    """Hyperparameters, and the powers that the transform of the values may take."""

    theta: Floats
    powers: tuple[float, ...]


@dataclass(frozen=True)
class Posterior:
    """What is believed now.

    Attributes:
        surrogate: the process of the transformed values.
        rows: [k] of the history: the configurations on which it stands.
        means: [k], what it says of these, at the last rung.
        transform: of a goal's values at the last rung; other outcomes have none.
        limit: the transformed value up to which a constraint holds, or a trial does not fail.
    """

    surrogate: Surrogate
    rows: Ints
    means: Floats
    transform: Transform | None
    limit: float


class Outcome:
    """A model of one outcome. ``learn`` notes what has changed; all else follows from that, when it is asked for.

    A goal or a constraint is learned from all observations: where there are several rungs, a configuration has one at
    each that it has reached, and the process goes over configurations and the logarithm of the step. What it says is
    what holds at the last rung. Failing is learned from configurations.

    What is worked out is kept: the fit to the sample, the posterior of the observations that came in whole blocks, and
    that of all. Each is a function of the history and the sample, whatever was asked for before.
    """

    def __init__(self, history: History, kernel: Kernel, kind: Kind, index: int = 0) -> None:
        self.history, self.kernel, self.kind = history, kernel, kind
        self.column = index + (len(history.goals) if kind == "constraint" else 0)
        self._settled: list[int] = []  # of failing: the row of each observation that has ever come
        self._place: dict[int, int] = {}  # of failing: by row that has a result: its observation
        self._sample: Sample | None = None
        self._fitted: tuple[Sample, Fit] | None = None
        self._built: tuple[int, Surrogate] | None = None
        self._posterior: Posterior | None = None

    # -- what is noted ------------------------------------------------------------------------------------------------

    def learn(self, row: int) -> None:
        """Note that a row was asked for or observed, has failed, or has changed its values."""
        if self.kind == "failure":
            self._settle(row)
        elif self.history.status[row] == PENDING:
            return
        self._posterior = None
        several = self.kind != "failure" and len(self.history.rungs) > 1
        if several != self.kernel.steps:
            self.kernel = Kernel(self.kernel.columns, self.kernel.warp, several)
            self._sample = None
        if self._live() < 2:
            self._sample = None
        elif self._sample is None or self._outgrown(self._sample, row):
            self._put_aside()

    def _live(self) -> int:
        """How many observations count now."""
        return len(self._place) if self.kind == "failure" else self.history.live

    def _arrived(self) -> int:
        """How many observations have ever come."""
        return len(self._settled) if self.kind == "failure" else self.history.seen

    def _settle(self, row: int) -> None:
        """Of failing: a row has a result, or none any more."""
        if self.history.status[row] == PENDING:
            self._place.pop(row, None)
        elif row not in self._place:
            self._place[row] = len(self._settled)
            self._settled.append(row)

    def _outgrown(self, sample: Sample, row: int) -> bool:
        """Whether a fit to the sample does no longer do: so many observations have come since, or are gone.

        Of failing also, when the row is the first that has failed.
        """
        first = self.kind == "failure" and self.history.status[row] == FAILED and (sample.values < 0).all()
        come = self._arrived() - sample.arrived
        gone = sample.every + come - self._live()
        return bool(first) or sample.every + max(come, gone) >= sample.every * GROWTH

    def _put_aside(self) -> None:
        """A new sample of the observations as they are now."""
        ids = self._ids()
        chosen = ids[_spread(self._merits(ids), BULK)]
        points, values, counts = self._points(chosen), self._values(chosen), self._counts(chosen)
        self._sample = Sample(self.kernel, chosen, points, values, counts, len(ids), self._arrived())

    # -- observations -------------------------------------------------------------------------------------------------

    def _ids(self) -> Ints:
        """The observations that count now, in the order in which they came."""
        if self.kind == "failure":
            return np.array(sorted(self._place.values()), dtype=np.int64)
        return np.flatnonzero(self.history.seen_counts)

    def _rows(self, ids: Ints) -> Ints:
        """The rows of observations."""
        if self.kind == "failure":
            return np.array(self._settled, dtype=np.int64)[ids]
        rows: Ints = self.history.seen_rows[ids]
        return rows

    def _points(self, ids: Ints) -> Floats:
        """The points of observations; where there are several rungs, each with its step."""
        points: Floats = self.history.points[self._rows(ids)]
        if not self.kernel.steps:
            return points
        return np.column_stack([points, np.log(self.history.seen_steps[ids] / self.history.rungs[-1])])

    def _values(self, ids: Ints) -> Floats:
        """The values of observations, in the terms of the last rung."""
        if self.kind == "failure":
            return np.where(self.history.status[self._rows(ids)] == FAILED, 1.0, -1.0)
        return extrapolated(self.history, self.column, ids).values

    def _counts(self, ids: Ints) -> Floats:
        """How many measurements the values of observations are the mean of."""
        counts = self.history.counts[self._rows(ids)] if self.kind == "failure" else self.history.seen_counts[ids]
        return np.maximum(counts, 1).astype(np.float64)

    def _merits(self, ids: Ints) -> Floats:
        """Of which the least are the observations to be kept: the best (for all goals the same ones); the failed."""
        if self.kind == "failure":
            return -self._values(ids)
        if self.kind == "constraint":
            return self._values(ids)
        distinct, where = np.unique(self._rows(ids), return_inverse=True)
        return places(self.history, distinct)[where].astype(np.float64)

    def latest(self) -> Floats:
        """The last value of every configuration that has one, in the terms of the last rung, in the order of asking."""
        return self._values(self.history.last[self.history.status == OBSERVED])

    # -- what follows -------------------------------------------------------------------------------------------------

    @property
    def posterior(self) -> Posterior | None:
        """What is believed now, None before there are two observations."""
        if self._posterior is None:
            self._posterior = self._believed()
        return self._posterior

    @one_thread
    def _believed(self) -> Posterior | None:
        sample = self._sample
        if sample is None or (self.kind == "failure" and not (self.history.status == FAILED).any()):
            return None
        every = self._ids()
        old, new = every[np.isin(every, sample.ids)], every[every >= sample.arrived]
        ids = np.concatenate([old, new])
        if len(ids) < 2:
            return None
        theta, powers = self._fit(sample)
        y, transform, limit = self._transformed(self._values(ids), powers)
        surrogate = self._conditioned(theta, len(old), self._points(ids), y, self._counts(ids))
        rows = np.array(list(dict.fromkeys(self._rows(ids).tolist())), dtype=np.int64)
        if self.kernel.steps:
            means = surrogate.means(self.history.points[rows])
        else:  # by the normal equations
            means = y - surrogate.noise / surrogate.counts * surrogate.weights
        return Posterior(surrogate, rows, means, transform, limit)

    def _conditioned(self, theta: Floats, old: int, points: Floats, y: Floats, counts: Floats) -> Surrogate:
        """The posterior: that of the old ones, extended by blocks of the new ones and then by the rest.

        The blocks do not depend on when it was asked for, and neither do the roundings.
        """
        built = self._built
        if built is not None and built[0] == old and _begins(built[1], theta, points, counts):
            surrogate = built[1]
        else:
            surrogate = Surrogate.condition(self.kernel, theta, points[:old], y[:old], counts[:old])
        for end in range(len(surrogate.points) + BLOCK, len(points) + 1, BLOCK):
            surrogate = surrogate.extend(points[end - BLOCK : end], y[:end], counts[:end])
        self._built = old, surrogate
        return surrogate.extend(points[len(surrogate.points) :], y, counts)

    def _transformed(self, values: Floats, powers: tuple[float, ...]) -> tuple[Floats, Transform | None, float]:
        """The values in the surrogate's units, by which transform if it is a goal, and where the limit is."""
        if self.kind == "goal":
            transform = Transform.fit(values, powers)
            return transform.apply(values), transform, 0.0
        if self.kind == "constraint":
            y, limit = balanced(values)
            return y, None, limit
        return values, None, 0.0

    def _fit(self, sample: Sample) -> Fit:
        """Hyperparameters for a sample.

        Values are transformed by a power if this makes them clearly likelier under the process.
        """
        if self._fitted is not None and self._fitted[0] is sample:
            return self._fitted[1]
        likeliest = -math.inf
        for powers in (PLAIN, POWERS) if self.kind == "goal" else (PLAIN,):
            y, transform, _ = self._transformed(sample.values, powers)
            some = _spread(y, FIT)
            surrogate = _coarse(sample, y, some)
            jacobian = 0.0 if transform is None else float(transform.log_slopes(sample.values[some]).sum())
            if surrogate.evidence + jacobian > likeliest + CLEAR:
                likeliest = surrogate.evidence + jacobian
                best, chosen = surrogate, powers
        fit = Fit(_fine(best), chosen)
        self._fitted = sample, fit
        return fit


def _coarse(sample: Sample, y: Floats, some: NDArray[np.intp]) -> Surrogate:
    """The posterior of some values of a sample, with the likeliest hyperparameters for a few of these.

    The search for them begins at their prior's mode, and where there are few values also beside it.
    """
    few = _spread(y, COARSE)
    restarts = 2 if len(y) <= YOUNG else 1
    found = Surrogate.fit(sample.kernel, sample.points[few], y[few], sample.counts[few], restarts=restarts)
    if len(some) == len(few):
        return found
    return Surrogate.condition(sample.kernel, found.theta, sample.points[some], y[some], sample.counts[some])


def _fine(found: Surrogate) -> Floats:
    """The likeliest hyperparameters for all values of a posterior, from those it has."""
    if len(found.y) <= COARSE:
        return found.theta
    again = Surrogate.fit(found.kernel, found.points, found.y, found.counts, found.theta, restarts=0, iterations=FINE)
    return again.theta


def _begins(surrogate: Surrogate, theta: Floats, points: Floats, counts: Floats) -> bool:
    """Whether this is the posterior at these hyperparameters of the first of some observations."""
    n = len(surrogate.points)
    return (
        np.array_equal(surrogate.theta, theta)
        and np.array_equal(surrogate.points, points[:n], equal_nan=True)
        and np.array_equal(surrogate.counts, counts[:n])
    )


def _spread(values: Floats, most: int) -> NDArray[np.intp]:
    """At most so many positions of [n]: half of them those of the least values, the others evenly spread; in order."""
    n = len(values)
    if n <= most:
        return np.arange(n)
    best = np.argsort(values, kind="stable")[: most // 2]
    rest = np.setdiff1d(np.arange(n), best)
    even = rest[np.linspace(0, len(rest) - 1, most - len(best)).astype(np.intp)]
    return np.sort(np.concatenate([best, even]))
