"""Who descends from whom: the family tree of a study in which trials fork others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.study import Study
from tunesmith.trials import Trial


@dataclass(frozen=True)
class Lineage:
    """The family tree of all trials of a study.

    Attributes:
        trials: all trials by their number.
        lanes: for every trial, the place in the population that it fills: a fork has the lane of the trial it replaces.
        winner: the best trial, or None where nothing was told yet.
    """

    trials: Mapping[int, Trial]
    lanes: Mapping[int, int]
    winner: int | None

    def ancestors(self, trial: int | None = None) -> list[Trial]:
        """The line that leads to a trial (by default the winner), the oldest first and the trial itself last.

        Raises:
            ValueError: no such trial, or no trial has a result yet.
        """
        current = self.winner if trial is None else trial
        if current is None:
            raise ValueError("no trial of this study has a result yet: there is no winner")
        if current not in self.trials:
            raise ValueError(f"there is no trial {current} in this study")
        line = [self.trials[current]]
        while (parent := line[-1].parent) is not None:
            line.append(self.trials[parent])
        return line[::-1]

    def children(self, trial: int) -> list[Trial]:
        """The trials that began from the weights of this one."""
        return [child for child in self.trials.values() if child.parent == trial]


def lineage(study: Study) -> Lineage:
    """The family tree of a study, as far as it has run."""
    trials = {trial.id: trial for trial in study.trials}
    lanes: dict[int, int] = {}
    places = 0
    for number, trial in trials.items():
        if trial.replaces is None:
            lanes[number] = places
            places += 1
        else:
            lanes[number] = lanes[trial.replaces]
    best = study.best
    return Lineage(trials, lanes, None if best is None else best.id)
