"""Which configuration is tried again where duplicates are wanted."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith import Constraint, Goal, Integer, Space
from tunesmith.records import Asked, Failed, Told
from tunesmith.samplers._repeats import _standard_errors, again
from tunesmith.samplers.base import History

SPACE = Space({"k": Integer(1, 6)})
GOALS, RULES = [Goal("a"), Goal("b", maximise=True)], [Constraint("cost", 1.0)]


def told(trials: list[tuple[int, float, float, float]], steps: int = 1) -> History:
    """The history of trials, given as k and what was measured: two goals and a constraint."""
    past = History(SPACE, GOALS, RULES, duplicates=True)
    for trial, (k, *values) in enumerate(trials):
        past.tell(Asked(trial, 0, trial, {"k": k}, 0, steps))
        past.tell(
            Told(trial, trial, 0, {name: [x] * steps for name, x in zip(("a", "b", "cost"), values, strict=True)})
        )
    return past


def chosen(past: History) -> int:
    return int(SPACE.decode(again(past))["k"])


def test_standard_errors_by_hand() -> None:
    past = told([(1, 0.0, 0.0, 0.0), (1, 2.0, 6.0, 0.0), (2, 5.0, 1.0, 0.0), (1, 4.0, 0.0, 0.0), (2, 6.0, 1.0, 0.0)])
    assert past.counts.tolist() == [3, 2]
    variances = np.array([8.0 + 0.5, 24.0 + 0.0]) / 3
    np.testing.assert_allclose(_standard_errors(past, np.arange(2)), np.sqrt(variances / np.array([[3.0], [2.0]])))
    np.testing.assert_allclose(past.scatter[:, :2], [[8 / 3, 8.0], [0.25, 0.0]])


def test_one_that_was_unlucky_once_is_tried_again() -> None:
    """Its mean is worse than that of another one, but within what one measurement may be off."""
    often = [(1, a, 0.0, 0.0) for a in (-1.0, 1.0, -1.0, 1.0)]
    assert chosen(told([*often, (2, 0.4, 0.0, 0.0), (3, 3.0, 0.0, 0.0)])) == 2
    assert chosen(told([*often, (2, 0.8, 0.0, 0.0), (3, 3.0, 0.0, 0.0)])) == 1
    assert chosen(told([(1, 0.0, 0.0, 0.0), (2, 0.1, 0.0, 0.0)])) == 1  # nothing is known of the noise


def test_constraints_come_first_and_failures_never() -> None:
    past = told([(1, -9.0, 9.0, 2.0), (2, 1.0, 1.0, 0.5), (3, -99.0, 99.0, 0.0)])
    past.tell(Failed(2, 2, "on purpose"))
    assert chosen(past) == 2


def test_what_failed_no_longer_counts() -> None:
    past = told([(1, 0.0, 0.0, 0.0), (1, 4.0, 0.0, 0.0), (2, 1.9, 0.0, 0.0)])
    assert past.scatter[0, 0] == 4.0 and chosen(past) == 2
    past.tell(Failed(1, 1, "on purpose"))
    assert past.scatter[0, 0] == 0.0 and chosen(past) == 1


@pytest.mark.parametrize("size", [1e200, 1.7e308])
def test_extreme_values(size: float) -> None:
    past = told([(1, -size, size, 0.0), (1, size, -size, 0.0), (2, 0.0, 0.0, 0.0)])
    assert chosen(past) in (1, 2)
