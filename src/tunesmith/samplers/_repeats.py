"""Where duplicates are wanted: which of the configurations that were tried to try again."""

from __future__ import annotations

import numpy as np

from tunesmith.pareto import order
from tunesmith.samplers._partial import extrapolated
from tunesmith.samplers.base import OBSERVED, Floats, History, Ints, Point


def again(history: History) -> Point:
    """The configuration of which another trial promises most: its mean less one standard error is the best.

    So one that was unlucky at first is not given up. A model of the values is no guide here: it does not tell a lucky
    configuration from a good one where it takes noise for shape. Constraints come first; and values are compared as
    they are to be expected at the last rung. At least one configuration was observed.
    """
    rows = np.flatnonzero(history.status == OBSERVED)
    found = [extrapolated(history, j, history.last[rows]) for j in range(len(history.goals))]
    losses = np.column_stack([one.values for one in found]) - _standard_errors(history, rows)
    places = np.lexsort((order(losses, history.excess[rows]), ~found[0].known))
    point: Point = history.points[rows[places[0]]]
    return point


def _standard_errors(history: History, rows: Ints) -> Floats:
    """Of the mean losses of some rows [k, m], with the variance of all repeats together; 0 before the first repeat."""
    counts = history.counts[rows, None]
    squares = counts * history.scatter[rows, : len(history.goals)]
    freedom = max(int((counts - 1).sum()), 1)
    errors: Floats = np.sqrt(squares.sum(axis=0) / freedom / counts)
    return errors
