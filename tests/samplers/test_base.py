"""The history: what was asked and told, as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith import Categorical, Constraint, Float, Goal, Integer, Prior, Space
from tunesmith.records import Asked, Failed, Told
from tunesmith.samplers._prior import draw, log_marginal, log_prior
from tunesmith.samplers.base import FAILED, OBSERVED, PENDING, History
from tunesmith.samplers.qmc import design

SPACE = Space({"x": Float(0.0, 1.0), "kind": Categorical({"a": None, "b": Space({"y": Float(0.0, 1.0)})})})
A, B = {"x": 0.25, "kind": "a"}, {"x": 0.5, "kind": "b", "y": 0.75}


def history() -> History:
    return History(SPACE, [Goal("score", maximise=True)], [Constraint("seconds", 2.0)])


def test_rows_in_the_order_of_asking() -> None:
    past = history()
    for trial, config in enumerate([A, B]):
        assert past.tell(Asked(trial, 0, trial, config, 0, 4)) == trial
    np.testing.assert_array_equal(past.points, [[0.25, 0.25, np.nan], [0.5, 0.75, 0.75]])
    assert past.tell(Told(1, 1, 0, {"score": [1.0, 2.0], "seconds": [1.0, 1.0]})) is None  # not there yet
    assert past.status.tolist() == [PENDING, PENDING] and np.isnan(past.losses).all()
    assert past.tell(Told(1, 1, 2, {"score": [3.0, 4.0], "seconds": [1.0, 5.0]})) == 1
    assert past.status.tolist() == [PENDING, OBSERVED]
    assert past.losses[1] == -4.0 and past.excess[1] == 3.0 and past.steps[1] == 4
    assert past.tell(Failed(0, 0, "broken")) == 0
    assert past.status.tolist() == [FAILED, OBSERVED]


def test_trials_of_one_configuration_share_a_row() -> None:
    past = history()
    for trial in range(3):
        past.tell(Asked(trial, 0, trial, A, 0, 1))
    for trial, value in enumerate([1.0, 3.0]):
        past.tell(Told(trial, trial, 0, {"score": [value], "seconds": [value]}))
    past.tell(Failed(2, 2, "broken"))
    assert past.size == 1 and past.losses[0] == -2.0 and past.excess[0] == 0.0 and past.counts[0] == 2
    assert past.status[0] == OBSERVED


def test_a_resumed_trial_counts_at_its_last_step() -> None:
    past = history()
    past.tell(Asked(0, 0, 0, A, 0, 1))
    past.tell(Told(0, 0, 0, {"score": [1.0], "seconds": [1.0]}))
    past.tell(Asked(1, 0, 0, A, 1, 3))
    assert past.status[0] == OBSERVED and past.losses[0] == -1.0
    past.tell(Told(1, 0, 1, {"score": [2.0, 5.0], "seconds": [1.0, 1.0]}))
    assert past.losses[0] == -5.0 and past.steps[0] == 3


def test_forks_are_left_out() -> None:
    past = history()
    past.tell(Asked(0, 0, 0, A, 0, 1))
    assert past.tell(Asked(1, 0, 1, B, 1, 2, parent=0, replaces=0)) is None
    assert past.tell(Told(1, 1, 1, {"score": [1.0], "seconds": [1.0]})) is None
    assert past.tell(Failed(1, 1, "broken")) is None
    assert past.size == 1


def test_arrays_grow() -> None:
    past = history()
    for trial in range(100):
        past.tell(Asked(trial, 0, trial, {"x": trial / 100, "kind": "a"}, 0, 1))
        past.tell(Told(trial, trial, 0, {"score": [trial], "seconds": [0.0]}))
    assert past.losses[:, 0].tolist() == [-float(trial) for trial in range(100)]
    assert past.known(past.points).all() and not past.known(past.points + 1e-3).any()


def test_the_design_begins_with_what_is_believed_best() -> None:
    space = Space({"x": Float(0.0, 1.0, prior=Prior(0.3)), "y": Integer(1, 9), "z": Categorical(["a", "b"])})
    first = design(space, np.random.default_rng(0)).next()
    assert first is not None
    assert space.decode(first) == {"x": pytest.approx(0.3), "y": 5, "z": "a"}


@pytest.mark.parametrize(
    "domain", [Float(0.0, 1.0, prior=Prior(0.2, "high")), Categorical(list("abc"), Prior("b", 0.6))]
)
def test_prior_is_a_density_and_draws_follow_it(domain: Float | Categorical) -> None:
    space = Space({"x": domain})
    u = np.linspace(0, 1, 3001)[:-1] + 1 / 6000
    density = np.exp(log_marginal(space.columns[0], u))
    assert density.mean() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(log_prior(space.columns, u[:, None]), np.log(density))
    drawn = draw(space.columns, u[:, None])[:, 0]
    for low, high in [(0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)]:
        mass = density[(u >= low) & (u < high)].sum() / len(u)
        assert np.mean((drawn >= low) & (drawn < high)) == pytest.approx(mass, abs=2e-3)


def test_a_walk_answers_the_same_however_often_it_is_asked() -> None:
    """Also where everything is taken, which a finite space under a scheduler that repeats comes to."""
    space = Space({"z": Categorical(["a", "b", "c"])})
    walk = design(space, np.random.default_rng(0))
    for trial in range(8):
        first, again = walk.next(4), walk.next(4)
        assert first is not None and again is not None
        np.testing.assert_array_equal(first, again)
        walk.tell(Asked(trial, 0, trial, space.decode(first), 0, 1))
    assert len(walk.taken) == 3
