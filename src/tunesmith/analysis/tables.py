"""Trials as rows, populations as summaries, and the difference between two of them with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tunesmith.rng import stream
from tunesmith.study import Study
from tunesmith.tables import Row, trial_rows
from tunesmith.trials import Trial


def population(study: Study) -> list[Trial]:
    """The trials that nobody replaced: the members of a population, all trials of an ordinary search."""
    replaced = {trial.replaces for trial in study.trials}
    return [trial for trial in study.trials if trial.id not in replaced]


def trials_table(study: Study) -> list[Row]:
    """One flat row a trial, in the order of their numbers; see :func:`tunesmith.tables.trial_rows`."""
    return trial_rows(study.trials, study.trials, study.goals, study.estimate)


def population_table(study: Study) -> list[Row]:
    """The rows of `trials_table` for the members of the population, the best one first, those without a value last."""
    goal = study.goals[0]

    def rank(trial: Trial) -> tuple[bool, float, int]:
        estimate = study.estimate(trial)
        value = None if trial.status == "failed" else trial.last(goal.metric) if estimate is None else estimate.mean
        return value is None, 0.0 if value is None else goal.loss(value), trial.id

    return trial_rows(sorted(population(study), key=rank), study.trials, study.goals, study.estimate)


@dataclass(frozen=True)
class Summary:
    """A study in a few numbers; ``None`` where there is no value.

    Attributes:
        name: of the method.
        members: size of the population, failed members included.
        failed: members that failed.
        steps: steps of training that the study did in all.
        trial: the winner, ``study.best``: chosen by the goal alone.
        best: the winner's last value of the goal.
        median, low, high: median, first and third quartile of the goal over the population, failed members left out.
        report, report_median, report_low, report_high: the same of the metric that decided nothing; ``report`` is the
            winner's value, not the best one.
    """

    name: str
    members: int
    failed: int
    steps: int
    trial: int | None
    best: float | None
    median: float | None
    low: float | None
    high: float | None
    report: float | None
    report_median: float | None
    report_low: float | None
    report_high: float | None


def compare(studies: Mapping[str, Study], report: str) -> list[Row]:
    """One `Summary` a study as a row: the goal selects, the metric ``report`` (of a test set) is only looked at."""
    return [asdict(summary(name, study, report)) for name, study in studies.items()]


def summary(name: str, study: Study, report: str) -> Summary:
    """A study in a few numbers; see `Summary`."""
    members, winner, metric = population(study), study.best, study.goals[0].metric
    trained = [trial for trial in members if trial.status != "failed"]
    return Summary(
        name,
        len(members),
        len(members) - len(trained),
        sum(trial.step - trial.start for trial in study.trials),
        None if winner is None else winner.id,
        None if winner is None else winner.last(metric),
        *_quartiles([trial.last(metric) for trial in trained]),
        None if winner is None else winner.last(report),
        *_quartiles([trial.last(report) for trial in trained]),
    )


def _quartiles(values: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    """Median, first and third quartile of what is known."""
    known = [value for value in values if value is not None]
    if not known:
        return None, None, None
    median, low, high = np.quantile(known, [0.5, 0.25, 0.75]).tolist()
    return median, low, high


@dataclass(frozen=True)
class Difference:
    """The mean of ``a - b`` over pairs, with the interval of Student's t and that of the bootstrap (BCa)."""

    mean: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    pairs: int
    level: float


def difference(a: Sequence[float], b: Sequence[float], level: float = 0.95, seed: int = 0) -> Difference:
    """The mean difference of paired values, such as two methods under the same seeds, with its intervals.

    Args:
        a: one value a pair.
        b: one value a pair, in the same order.
        level: probability that the interval covers the true mean.
        seed: of the bootstrap's 10,000 resamples.

    Raises:
        ValueError: not the same number of values, or fewer than two.
    """
    from scipy import stats

    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"an interval needs two or more pairs, there are {len(a)} and {len(b)} values")
    gaps = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    mean = float(gaps.mean())
    if np.ptp(gaps) == 0:
        return Difference(mean, mean, mean, mean, mean, len(gaps), level)
    reach = float(stats.t.ppf((1 + level) / 2, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
    resampled = stats.bootstrap(
        (gaps,), np.mean, confidence_level=level, n_resamples=9999, method="BCa", rng=stream(seed, "bootstrap")
    ).confidence_interval
    return Difference(mean, mean - reach, mean + reach, float(resampled.low), float(resampled.high), len(gaps), level)
