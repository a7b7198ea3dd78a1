"""Curves that were recorded: a table of configurations, or the trials of a finished study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import TunesmithError
from tunesmith.execution.simulated import Kind, Played
from tunesmith.records import Constraint, Event, Goal
from tunesmith.samplers.base import Point, Points, Walk
from tunesmith.space import Config, Space
from tunesmith.study import Job, Study
from tunesmith.trials import Trial, open_ended

SAME = 1e-9  #: configurations that are no further apart are one


class Curve(NamedTuple):
    """What a trial was worth after every step, from step 1 on.

    Attributes:
        config: its configuration.
        metrics: by name, one value a step. A last one that is not finite says that the trial failed there.
        seconds: one number a step.
        repeat: how many earlier curves have the same configuration, with other training seeds.
        ended: the training came to its end by itself with its last step, and does so again. A job that is over at this
            step does not know of it yet.
    """

    config: Config
    metrics: Mapping[str, Sequence[float]]
    seconds: Sequence[float]
    repeat: int = 0
    ended: bool = False


class Recorded:
    """Plays recorded curves: a function of the job, for :func:`tunesmith.execution.simulated.simulate`.

    A configuration has the curve of the nearest recorded one. Where that was stopped, the curve of the nearest one that
    was trained further goes on, moved to where the first has stopped, but not beyond the range of what was recorded.
    Where the training has come to its end by itself, it does so again. So the answer is the same whatever jobs a
    scheduler makes of the steps. Every job is one of these kinds:

    * ``exact``: the configuration was recorded, and trained so far;
    * ``neighbour``: the configuration was not recorded;
    * ``continued``: it was, but its curve stops earlier.

    The distance of two configurations is the sum over all columns of the unit cube of: the difference of a number, 0 or
    1 for options that are the same or not, 1 where only one of the two has the parameter (as in Gower 1971, "A general
    coefficient of similarity and some of its properties"). Repeats are played by curves that are a repeat of the same
    number.

    Args:
        space: of the configurations.
        curves: what was recorded, one a trial.

    Raises:
        ValueError: there is no curve, a configuration is not in the space, the lists of a curve differ in length, or
            not all have the same metrics.
        TunesmithError: the space has fidelities; when it is called, for a fork (its weights come from another
            configuration), and for a step or a repeat that was never recorded.
    """

    def __init__(self, space: Space, curves: Iterable[Curve]) -> None:
        self.space = space
        self.curves = tuple(curves)
        if not self.curves:
            raise ValueError("there is no curve to play")
        if space.fidelities:
            raise TunesmithError(
                f"the space has fidelities ({', '.join(space.fidelities)}), and a curve at one value of them does not "
                "say what another value gives: simulate with a function of the job"
            )
        names = self.curves[0].metrics.keys()
        for curve in self.curves:
            lengths = {len(curve.seconds), *map(len, curve.metrics.values())}
            if len(lengths) != 1 or lengths == {0} or curve.metrics.keys() != names:
                raise ValueError(
                    f"the curve of {curve.config} must have one number a step of seconds and of {', '.join(names)}"
                )
        self._points = np.array([space.encode(curve.config) for curve in self.curves])
        self._unordered = np.array([column.kind == "unordered" for column in space.columns], dtype=np.bool_)
        self._lengths = np.array([len(curve.seconds) for curve in self.curves])
        self._fails = [not all(math.isfinite(values[-1]) for values in curve.metrics.values()) for curve in self.curves]
        self._ends = [curve.ended for curve in self.curves]
        self._repeats = np.array([curve.repeat for curve in self.curves])
        self._ranges = {name: _range([curve.metrics[name] for curve in self.curves]) for name in names}

    @classmethod
    def of(cls, study: Study) -> Recorded:
        """The trials of a study, with the metrics of its goals and constraints. Nothing is written to it.

        A report of several steps gives each of them an equal share of its seconds. A trial that has failed does so
        again, in the step after its last one, which takes as long as its steps did on average. One that has ended by
        itself does so again. Trials without a value,
        results that were added, and configurations outside the space (since it was changed) are left out.

        Raises:
            TunesmithError: the study has forks, no seconds, no trial with a value, or one with steps not told.
        """
        names = dict.fromkeys([goal.metric for goal in study.goals] + [rule.metric for rule in study.constraints])
        if any(trial.parent is not None for trial in study.trials):
            raise TunesmithError(f"study {study.name!r} has forks: their curves are not those of a configuration")
        trials = [trial for trial in study.trials if "added" not in trial.tags and _inside(study.space, trial.config)]
        curves = [curve for trial in trials if (curve := _curve(trial, names)) is not None]
        if not curves:
            raise TunesmithError(f"no trial of study {study.name!r} has a curve")
        if not any(map(any, (curve.seconds for curve in curves))):
            raise TunesmithError(
                f"study {study.name!r} does not know how long its steps took: tell it, study.tell(..., seconds=...)"
            )
        return cls(study.space, curves)

    def sampler(self) -> InOrder:
        """Proposes the recorded configurations once each, in the order in which they were recorded."""
        return InOrder(self._points[self._repeats == 0])

    def __call__(self, job: Job) -> Played:
        """The curve of a job."""
        if job.parent is not None:
            raise TunesmithError(
                f"trial {job.trial} is a fork of trial {job.parent}: no recorded curve says what a configuration does "
                "with the weights of another one; simulate with a scheduler that does not fork"
            )
        distances = self._distances(job)
        metrics: dict[str, list[float]] = {name: [] for name in self._ranges}
        seconds: list[float] = []
        own, ended, step, until = True, False, 0, job.until
        if open_ended(until):  # as long as the nearest training was
            until = int(self._lengths[self._nearest(distances, job.start, job)])
        while step < until:
            row = self._nearest(distances, step, job)
            curve, end = self.curves[row], min(until, int(self._lengths[row]))
            for name, played in metrics.items():
                played += self._continued(name, played, curve.metrics[name][:end])
            seconds += curve.seconds[step:end]
            own &= end <= job.start or bool(distances[row] <= SAME)
            step = end
            over = end == self._lengths[row]
            ended = over and end < until and self._ends[row]
            if ended or (over and self._fails[row]):
                break
        kind: Kind = "exact" if own else "continued" if distances.min() <= SAME else "neighbour"
        rest = {name: played[job.start :] for name, played in metrics.items()}
        return Played(rest, seconds[job.start :], kind, ended)

    def _continued(self, name: str, played: Sequence[float], values: Sequence[float]) -> Sequence[float]:
        """What of a curve comes after what was played, moved to where that has ended."""
        step = len(played)
        if step == 0:
            return values
        shift, (low, high) = played[-1] - values[step - 1], self._ranges[name]
        return [min(max(value + shift, low), high) for value in values[step:]]

    def _nearest(self, distances: NDArray[np.float64], step: int, job: Job) -> int:
        """The nearest curve that goes beyond a step; of equally near ones the first."""
        reachable = np.where(self._lengths > step, distances, np.inf)
        row = int(reachable.argmin())
        if np.isinf(reachable[row]):
            which = f", repeat {job.repeat} of its configuration," if job.repeat else ""
            raise TunesmithError(
                f"trial {job.trial}{which} is to be trained to step {job.until}, but no recorded curve of "
                f"{'such a repeat' if job.repeat else 'any configuration'} goes beyond step {step}"
            )
        return row

    def _distances(self, job: Job) -> NDArray[np.float64]:
        """From the configuration of a job to that of every curve: [n]; infinity where it is another repeat."""
        point = self.space.encode(job.config)
        gaps = np.abs(self._points - point)
        gaps[:, self._unordered] = np.ceil(gaps[:, self._unordered])
        gaps = np.where(np.isnan(gaps), np.isnan(self._points) != np.isnan(point), gaps)
        return np.where(self._repeats == job.repeat, gaps.sum(axis=1), np.inf)


class InOrder:
    """A sampler that proposes given points of the unit cube one after the other.

    Args:
        points: [n, d], as the space encodes configurations.
    """

    def __init__(self, points: NDArray[np.float64]) -> None:
        self.points = points

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> Walk:
        """Nothing is taken yet."""
        return Walk(space, Points(space, lambda: iter(self.points)), duplicates=duplicates)

    def tell(self, state: Walk, event: Event) -> Walk:
        """Note what was asked."""
        state.tell(event)
        return state

    def ask(self, state: Walk, rng: np.random.Generator, until: int = 1) -> Point | None:
        """The first point that was not tried; None after the last."""
        return state.next()


def _inside(space: Space, config: Config) -> bool:
    try:
        space.encode(config)
    except ValueError:
        return False
    return True


def _range(curves: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The least and the greatest finite value."""
    values = np.concatenate([np.asarray(values, dtype=np.float64) for values in curves])
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (-math.inf, math.inf)


def _curve(trial: Trial, names: Iterable[str]) -> Curve | None:
    """The curve of a trial; None where it has no value."""
    metrics: dict[str, list[float]] = {name: [] for name in names}
    seconds: list[float] = []
    for report in trial.reports:
        if report.start != len(seconds):
            raise TunesmithError(
                f"trial {trial.id} was told nothing for the steps {len(seconds) + 1} to {report.start}: a curve needs "
                "a value a step"
            )
        for name in names:
            metrics[name] += [np.nan if value is None else value for value in report.metrics[name]]
        seconds += report.spent
    if trial.status == "failed":
        for values in metrics.values():
            values.append(np.nan)
        seconds.append(sum(seconds) / max(1, len(seconds)))
    return Curve(trial.config, metrics, seconds, trial.repeat, trial.ended) if seconds else None
