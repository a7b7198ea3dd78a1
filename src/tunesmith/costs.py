"""What jobs cost: a model learned from the seconds told so far, and budgets in seconds or money.

Seconds are those of one worker: two workers that train for a minute each have spent two minutes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import mul
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith._axes import number
from tunesmith.hints import Hinted
from tunesmith.records import TO_THE_END, Asked, Ended, Event, Failed, Told
from tunesmith.space import Categorical, Config, Constant, Domain, Ordinal, Scalar, Space

Floats = NDArray[np.float64]

# -- budgets ------------------------------------------------------------------------------------------------------

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TEXT = re.compile(r"(?P<money>\$)?\s*(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>[smhd])?")


class Cost(NamedTuple):
    """Seconds that a job is expected to take, and the standard deviation of that."""

    seconds: float
    sd: float


class Budget(Hinted, frozen=True, kw_only=True):
    """What all trials of a study may cost together: time of one worker, or money.

    Args:
        seconds: of one worker; or
        dollars: in whatever currency the price is.
        price: dollars that an hour of one worker costs; needed with ``dollars``.

    Raises:
        ValueError: not exactly one of ``seconds`` and ``dollars`` is given, a number is not over 0 and finite, or the
            price is missing.
    """

    seconds: float | None = None
    dollars: float | None = None
    price: float | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "dollars", "price"):
            given = getattr(self, name)
            if given is not None and not 0 < number(given) < math.inf:
                raise ValueError(f"Budget: {name}={given!r} must be a number over 0")
        if (self.seconds is None) == (self.dollars is None):
            raise ValueError("Budget: give either seconds=, or dollars= and price= (of an hour of one worker)")
        if (self.dollars is None) != (self.price is None):
            raise ValueError("Budget: dollars= and price= (of an hour of one worker) go together")

    @classmethod
    def parse(cls, text: str, price: float | None = None) -> Budget:
        """A budget from text: ``"90s"``, ``"30m"``, ``"2h"``, ``"1.5d"``, or ``"$20"`` with a price.

        Raises:
            ValueError: the text is no budget, a price is missing or too much, or as the class.
        """
        found = _TEXT.fullmatch(text.strip())
        if found is None or (found["money"] is None) == (found["unit"] is None):
            raise ValueError(f"{text!r} is no budget: write 90s, 30m, 2h, 1.5d or '$20'")
        if found["money"]:
            if price is None:
                raise ValueError(f"{text!r} needs a price: what an hour of one worker costs")
            return cls(dollars=float(found["number"]), price=price)
        if price is not None:
            raise ValueError(f"{text!r} is a time, a price is for a budget in money, such as '$20'")
        return cls(seconds=float(found["number"]) * _UNITS[found["unit"]])

    @property
    def limit(self) -> float:
        """The budget in seconds of one worker."""
        if self.dollars is not None and self.price is not None:
            return self.dollars / self.price * 3600
        return self.seconds or 0.0

    def amount(self, seconds: float) -> str:
        """So many seconds in words, in the budget's own unit."""
        if self.price is not None:
            return f"${seconds / 3600 * self.price:,.2f}"
        unit, size = ("s", 1) if seconds < 120 else ("min", 60) if seconds < 7200 else ("h", 3600)
        value = seconds / size
        return f"{value:.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"

    def spent(self, seconds: float) -> str:
        """What is spent, and of how much, in words."""
        return f"{self.amount(seconds)} of {self.amount(self.limit)}"

    def used_up(self, spent: float, left: float, cost: Cost | None) -> str:
        """Why there is no next job: what is spent, what the jobs that are out will take yet, what it would take."""
        out = f", the jobs that are out will take about {self.amount(left)}" if left else ""
        this = "" if cost is None else f", the next one about {self.amount(cost.seconds)}"
        return f"the budget is used up: {self.spent(spent)} are spent{out}{this}"


def check_budget(budget: object) -> None:
    """Say by TypeError that a budget is none."""
    if budget is not None and not isinstance(budget, Budget):
        raise TypeError(f"budget must be a Budget, such as Budget(seconds=3600), not {budget!r}")


# -- configurations as numbers --------------------------------------------------------------------------------------


class _Features:
    """A configuration as a row of numbers: the logarithm of what is always positive, the place in [0, 1] of other
    numbers, a 1 for each option that is chosen. NaN where a branch is not taken.
    """

    def __init__(self, space: Space) -> None:
        ranges: dict[str, tuple[float, float]] = {}
        options: dict[str, list[Scalar]] = {}
        for name, domain in _domains(space):
            numbers = _numbers(domain)
            if numbers:
                low, high = ranges.get(name, (math.inf, -math.inf))
                ranges[name] = min(low, *numbers), max(high, *numbers)
            else:
                options.setdefault(name, []).extend(_options(domain))
        self._ranges = {name: (i, *span) for i, (name, span) in enumerate(ranges.items())}
        self.count = len(ranges)
        self.fidelities = [self._ranges[name][0] for name in space.fidelities if space.fidelities[name].low > 0]
        self._options: dict[str, dict[tuple[type, Scalar], int]] = {}
        for name, values in options.items():
            kinds = dict.fromkeys((type(value), value) for value in values)
            self._options[name] = {kind: self.count + i for i, kind in enumerate(kinds)}
            self.count += len(kinds)

    def encode(self, config: Config) -> list[float]:
        """The row [p] of a configuration; what lies outside the space counts as missing."""
        row = [math.nan] * self.count
        for name, value in config.items():
            if name in self._ranges:
                i, low, high = self._ranges[name]
                x = number(value)
                row[i] = (x - low) / (high - low) if low <= 0 else math.log(x) if x > 0 else math.nan
            if name in self._options:
                for i in self._options[name].values():
                    row[i] = 0.0
                chosen = self._options[name].get((type(value), value))
                if chosen is not None:
                    row[chosen] = 1.0
        return row


def _domains(space: Mapping[str, Domain]) -> Iterator[tuple[str, Domain]]:
    """All parameters that vary, those in the branches too."""
    for name, domain in space.items():
        if not isinstance(domain, Constant):
            yield name, domain
        for branch in domain.branches if isinstance(domain, Categorical) else ():
            yield from _domains(branch or {})


def _numbers(domain: Domain) -> list[float]:
    """The least and the largest value of a parameter that is a number."""
    if isinstance(domain, Categorical | Constant):
        return []
    values = domain.values if isinstance(domain, Ordinal) else (domain.low, domain.high)
    numbers = [number(value) for value in values]
    return [min(numbers), max(numbers)] if all(map(math.isfinite, numbers)) and min(numbers) < max(numbers) else []


def _options(domain: Domain) -> tuple[Scalar, ...]:
    if isinstance(domain, Categorical):
        return domain.options
    return domain.values if isinstance(domain, Ordinal) else ()


# -- the model ------------------------------------------------------------------------------------------------------

SHORTEST, LONGEST = 1e-6, 1e9  #: seconds that a job may take for the model; outside of it, these
EARLY = 256  #: until so much was observed, jobs that are not done count too
_NOISE = 0.2  # of the logarithm of a job's seconds, as believed before the first job
_DEGREES = 4.0  # of freedom of Student's t: few outliers don't count for much
_REACH = math.log(100.0)  # rates are not extrapolated further than this beyond those that were seen
_ROUNDS, _CLOSE = 30, 1e-3  # Gauss-Newton steps at most, and the change after which they end


class _Fit(NamedTuple):
    """The model after a fit.

    Attributes:
        overhead: seconds that a job takes beside its steps.
        level: the mean log(rate), of seconds a step.
        slopes, mean, scale: [p] of log(rate) by standardised feature, and what features are standardised with.
        low, high: log(rate) stays between them.
        noise: variance of log(seconds).
        covariance: of log(overhead), the level and the slopes of standardised features.
    """

    overhead: float
    level: float
    slopes: list[float]
    mean: list[float]
    scale: list[float]
    low: float
    high: float
    noise: float
    covariance: Floats

    def expect(self, row: list[float], steps: int) -> tuple[float, float, float]:
        """What a job of so many steps is expected to take, from the features of its configuration; one that is missing
        (NaN) counts as the mean.

        Returns:
            Seconds beside the steps, seconds a step, and the variance of the logarithm of the whole. The seconds are
            means, which lie over the medians by half the variance.
        """
        z = [0.0 if x != x else (x - mean) / scale for x, mean, scale in zip(row, self.mean, self.scale, strict=True)]
        log = self.level + sum(map(mul, self.slopes, z))
        rate = math.exp(min(max(log, self.low), self.high))
        share = self.overhead / (self.overhead + rate * steps)
        gradient = np.array([0.0, 1.0, *z]) * (1 - share)
        gradient[0] = share
        variance = min(float(gradient @ self.covariance @ gradient) + self.noise, 1.0)
        over = math.exp(variance / 2)
        return self.overhead * over, rate * over, variance


def _fit(rows: Floats, steps: Floats, seconds: Floats, fidelities: list[int]) -> _Fit:
    """The most probable parameters of log(seconds) = log(overhead + steps * rate) + noise, by Gauss-Newton.

    The noise is Student's t, by iteratively reweighted least squares; its variance is that of the residuals over the
    degrees of freedom that the parameters leave.

    Args:
        rows: features of the jobs [n, p]; NaN where a branch is not taken.
        steps, seconds: of the jobs [n].
        fidelities: which features are logarithms of a fidelity.
    """
    mean, scale = _moments(rows)
    n, p = rows.shape
    x = np.column_stack([np.ones(n), np.nan_to_num((rows - mean) / scale)])
    logs = np.log(seconds)
    typical = float(np.median(logs - np.log(steps)))
    prior, precision = _belief(typical, scale, fidelities)
    found, noise, free = prior.copy(), _NOISE**2, 0.0
    for _ in range(_ROUNDS):
        trained = steps * np.exp(np.clip(x @ found[1:], typical - 50, typical + 50))
        total = np.exp(found[0]) + trained
        residual = logs - np.log(total)
        weights = (_DEGREES + 1) / (_DEGREES + residual**2 / noise)
        noise = float((_NOISE**2 + weights @ residual**2) / (1 + n - free))
        gradient = np.column_stack([1 - trained / total, x * (trained / total)[:, None]])
        weighted = gradient.T * (weights / noise)
        covariance = np.linalg.inv(weighted @ gradient + np.diag(precision))
        free = p + 2 - covariance.diagonal() @ precision
        move = covariance @ (weighted @ residual + precision * (prior - found))
        found = found + np.clip(move, -2.0, 2.0)
        if np.abs(move).max() < _CLOSE:
            break
    rates = x @ found[1:]
    return _Fit(
        math.exp(found[0]), float(found[1]), found[2:].tolist(), mean.tolist(), scale.tolist(),
        float(rates.min()) - _REACH, float(rates.max()) + _REACH, noise, covariance,
    )  # fmt: skip


def _moments(rows: Floats) -> tuple[Floats, Floats]:
    """Mean and scale [p] of features, over the rows that have them. What hardly varies is not blown up."""
    active = ~np.isnan(rows)
    count = np.maximum(active.sum(axis=0), 1)
    mean = np.where(active, rows, 0.0).sum(axis=0) / count
    variance = (np.where(active, rows - mean, 0.0) ** 2).sum(axis=0) / count
    return mean, np.maximum(np.sqrt(variance), 0.5)


def _belief(typical: float, scale: Floats, fidelities: list[int]) -> tuple[Floats, Floats]:
    """Mean and precision of the parameters before the first job.

    The overhead is about a tenth of a step. The slopes of standardised features are N(0, 1), so that little data gives
    the mean rate; only to a fidelity costs are about proportional: its slope, before standardising, is N(1, 1/4).
    """
    prior = np.concatenate([[typical - math.log(10.0), typical], np.zeros(len(scale))])
    precision = np.concatenate([[0.25, 0.01], np.ones(len(scale))])
    for i in fidelities:
        prior[2 + i], precision[2 + i] = scale[i], 4 / scale[i] ** 2
    return prior, precision


@dataclass(slots=True)
class _Job:
    """A job that is out: what it has told, and what it is expected to take yet. An ``open`` one goes to its own end."""

    ask: int
    step: int
    until: int
    features: list[float]
    overhead: float = 0.0
    rate: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    next: int = 1
    left: float = 0.0
    open: bool = False


class CostModel:
    """Seconds of a job, learned from the jobs so far.

    A job of n steps takes ``overhead + n * rate(config)`` seconds. The logarithm of the rate is linear in the
    configuration: in the logarithm of parameters that are always positive (so that costs grow with a power of width,
    depth or batch size), in the value of other numbers, with a term for every option. All is fitted together, in the
    logarithm of the seconds, by Bayesian regression: with little data every configuration has the mean rate.

    ``tell`` folds events in the order of the log, and the model follows from them alone. It is fitted anew whenever it
    has a quarter more data.

    Args:
        space: of the study.
    """

    def __init__(self, space: Space) -> None:
        self.left = 0.0
        """Seconds that the jobs which are out will take yet."""
        self._features = _Features(space)
        self._jobs: dict[int, _Job] = {}
        self._length = 1  # steps that a training takes which goes on to its own end, on average
        self._lengths = self._ends = 0
        self._table = np.empty((16, self._features.count + 2))
        self._size = 0
        self._next = 1
        self._fitted: _Fit | None = None

    @property
    def known(self) -> bool:
        """Whether anything that took time was told."""
        return self._fitted is not None

    def tell(self, event: Event) -> None:
        """Fold an ``Asked``, a ``Told`` (whose ``seconds`` are those of its own steps) or a ``Failed``."""
        if type(event) is Asked:
            self._end(event.trial)
            features = self._features.encode(event.config)
            until = event.start + self._length if event.until == TO_THE_END else event.until
            job = self._jobs[event.trial] = _Job(event.ask, event.start, until, features, open=until != event.until)
            self._expect(job)
        elif type(event) is Told and event.trial in self._jobs:
            self._told(self._jobs[event.trial], event)
        elif type(event) is Ended and event.trial in self._jobs:
            self._ended(self._jobs[event.trial], event)
        elif type(event) is Failed:
            self._end(event.trial)

    def predict(self, config: Config, start: int, until: int) -> Cost | None:
        """What it costs to train a configuration from step ``start`` to step ``until``.

        Returns:
            None while nothing that took any time was told.
        """
        if self._fitted is None:
            return None
        until = start + self._length if until == TO_THE_END else until
        overhead, rate, variance = self._fitted.expect(self._features.encode(config), until - start)
        seconds = overhead + rate * (until - start)
        return Cost(seconds, seconds * math.sqrt(math.expm1(variance)))

    def _told(self, job: _Job, event: Told) -> None:
        if event.ask != job.ask:  # asked again, since its worker vanished
            job.ask, job.steps, job.seconds, job.next = event.ask, 0, 0.0, 1
        job.steps += event.step - min(job.step, event.start)  # there may be no values for the first ones
        job.step = event.step
        job.seconds += event.seconds
        done = job.step >= job.until and not job.open
        if done:
            self._end(event.trial)
        else:
            self._count(job)
        if job.seconds > 0 and (done or (self._size < EARLY and job.steps >= job.next)):
            job.next = 2 * job.steps
            self._learn(job)

    def _ended(self, job: _Job, event: Ended) -> None:
        """The training has come to its end by itself: it was that long."""
        job.seconds += event.seconds
        if job.open and job.steps:
            self._lengths += job.steps
            self._ends += 1
            self._length = max(1, round(self._lengths / self._ends))
        self._end(event.trial)
        if job.seconds > 0 and job.steps:
            self._learn(job)

    def _learn(self, job: _Job) -> None:
        """Take in what a job has cost so far, and fit the model if it is time."""
        if self._size == len(self._table):
            self._table = np.concatenate([self._table, np.empty_like(self._table)])
        self._table[self._size, :-2] = job.features
        self._table[self._size, -2:] = job.steps, min(max(job.seconds, SHORTEST), LONGEST)
        self._size += 1
        if self._size >= self._next:
            self._next = max(self._size + 1, self._size * 5 // 4)
            data = self._table[: self._size]
            self._fitted = _fit(data[:, :-2], data[:, -2], data[:, -1], self._features.fidelities)
            for other in self._jobs.values():
                self._expect(other)

    def _expect(self, job: _Job) -> None:
        """What the model says of a job now."""
        if self._fitted is not None:
            job.overhead, job.rate, _ = self._fitted.expect(job.features, max(1, job.until - job.step))
            self._count(job)

    def _count(self, job: _Job) -> None:
        """What the job will take yet; its overhead is paid with its first steps."""
        left = job.overhead * (job.steps == 0) + job.rate * max(0, job.until - job.step)
        self.left += left - job.left
        job.left = left

    def _end(self, trial: int) -> None:
        job = self._jobs.pop(trial, None)
        if job is not None:
            self.left = self.left - job.left if self._jobs else 0.0
