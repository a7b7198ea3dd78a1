"""The model of one outcome: which rows it stands on, when it is fitted, and what it makes of changes."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith import Categorical, Constraint, Float, Goal, Space
from tunesmith.records import Asked, Failed, Told
from tunesmith.samplers import _outcomes
from tunesmith.samplers._kernel import Kernel
from tunesmith.samplers._outcomes import Outcome, _spread
from tunesmith.samplers._surrogate import Surrogate
from tunesmith.samplers.base import FAILED, OBSERVED, History

SPACE = Space({"x": Float(0.0, 1.0), "kind": Categorical({"a": None, "b": Space({"y": Float(0.0, 1.0)})})})
GOALS = [Goal("loss"), Goal("other")]


@pytest.fixture(autouse=True)
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits at few rows, since they take time."""
    monkeypatch.setattr(_outcomes, "GROWTH", 1.4)


class Log:
    """A history with the outcomes that learn from it, as the sampler has them."""

    def __init__(self, space: Space = SPACE) -> None:
        self.space, self.asks = space, 0
        self.rng = np.random.default_rng(0)
        self.history = History(space, GOALS, [Constraint("seconds", 1.0)])
        kernel = Kernel(space.columns)
        self.goal, self.other = (Outcome(self.history, kernel, "goal", i) for i in range(2))
        self.rule = Outcome(self.history, kernel, "constraint")
        self.failure = Outcome(self.history, kernel, "failure")
        self.outcomes = self.goal, self.other, self.rule, self.failure

    def fold(self, event: Asked | Told | Failed) -> None:
        row = self.history.tell(event)
        if row is not None:
            for outcome in self.outcomes:
                outcome.learn(row)

    def ask(self, trial: int, same: int | None = None) -> None:
        config = self.space.sample(self.rng)
        if same is not None:
            config = self.space.decode(self.history.points[self.history._row_of[same]])
        self.fold(Asked(self.asks, 0, trial, config, 0, 1))
        self.asks += 1

    def tell(self, trial: int, loss: float, other: float = 0.0, seconds: float = 0.0) -> None:
        self.fold(Told(trial, trial, 0, {"loss": [loss], "other": [other], "seconds": [seconds]}))

    def fail(self, trial: int) -> None:
        self.fold(Failed(trial, trial, "on purpose"))


def filled(n: int, seed: int = 0) -> Log:
    """So many trials; every fifth has failed."""
    log, rng = Log(), np.random.default_rng(seed)
    for trial in range(n):
        log.ask(trial)
        if trial % 5 == 4:
            log.fail(trial)
        else:
            log.tell(trial, *rng.normal(size=3))
    return log


def surrogate(outcome: Outcome) -> Surrogate:
    assert outcome.surrogate is not None
    return outcome.surrogate


def check(outcome: Outcome) -> None:
    """The posterior is that of the rows' present values, at its hyperparameters."""
    model, history = surrogate(outcome), outcome.history
    y = outcome._transformed()
    anew = Surrogate.condition(
        model.kernel, model.theta, history.points[outcome.rows], y, np.maximum(history.counts[outcome.rows], 1.0)
    )
    at = np.concatenate([model.points, SPACE.snap(np.random.default_rng(1).random((20, 3)))])
    np.testing.assert_allclose(model.predict(at), anew.predict(at), rtol=1e-6, atol=1e-6)
    has = (OBSERVED, FAILED) if outcome.kind == "failure" else (OBSERVED,)
    assert np.isin(history.status[outcome.rows], has).all() and len(set(outcome.rows)) == len(outcome.rows)


def test_nothing_is_known_before_two_rows() -> None:
    log = Log()
    for trial in range(2):
        log.ask(trial)
    log.tell(0, 1.0)
    assert all(outcome.surrogate is None for outcome in log.outcomes)
    log.tell(0, 2.0)  # another value of the only row
    assert all(outcome.surrogate is None for outcome in log.outcomes)
    log.tell(1, 3.0)
    assert log.goal.rows == [0, 1] and log.failure.surrogate is None
    check(log.goal)


def test_follows_what_is_told() -> None:
    log = filled(50)
    for outcome in log.outcomes:
        check(outcome)
        wanted = range(50) if outcome is log.failure else [row for row in range(50) if row % 5 != 4]
        assert outcome.rows == list(wanted)


@pytest.mark.parametrize("n", [12, 47])
def test_fitted_is_the_prediction_at_the_rows(n: int) -> None:
    for outcome in filled(n).outcomes:
        model = surrogate(outcome)
        np.testing.assert_allclose(outcome.fitted(), model.predict(model.points)[0], atol=1e-6)


def test_repeats_are_averaged_and_counted() -> None:
    log = filled(30)
    log.ask(30, same=7)
    log.tell(30, 9.0)
    assert log.history.counts[7] == 2
    for outcome in log.outcomes:
        check(outcome)
        assert surrogate(outcome).counts[outcome.rows.index(7)] == 2
    log.fail(30)
    assert log.history.counts[7] == 1
    for outcome in log.outcomes:
        check(outcome)


def test_a_row_that_fails_later_leaves_the_goals() -> None:
    log = filled(30)
    log.fail(3)
    assert 3 not in log.goal.rows and 3 in log.failure.rows
    for outcome in log.outcomes:
        check(outcome)
    assert log.failure._values([3])[0] == 1.0
    log.tell(3, 0.5)
    assert log.goal.rows[-1] == 3
    for outcome in log.outcomes:
        check(outcome)


def test_the_first_failure_may_be_one_of_an_observed_row() -> None:
    log = Log()
    for trial in range(8):
        log.ask(trial)
        log.tell(trial, float(trial))
    log.fail(2)
    check(log.failure)
    assert log.failure.rows == list(range(8))
    log.tell(2, 1.0)  # its last failure is forgotten
    assert log.failure.surrogate is None
    log.ask(8)
    log.tell(8, 1.0)
    log.fail(8)
    check(log.failure)


def test_a_failed_row_that_is_tried_again_counts_as_neither() -> None:
    log = filled(30)
    log.ask(30, same=9)
    log.ask(31)
    log.tell(31, 0.0)
    check(log.failure)
    assert 9 not in log.failure.rows
    log.fail(30)
    check(log.failure)
    assert 9 in log.failure.rows


def test_all_failed() -> None:
    log = Log()
    for trial in range(6):
        log.ask(trial)
        log.fail(trial)
    assert log.goal.surrogate is None
    check(log.failure)


def test_all_but_one_row_fail_later() -> None:
    log = Log()
    for trial in range(4):
        log.ask(trial)
        log.tell(trial, float(trial))
    for trial in range(3):
        log.fail(trial)
    assert log.goal.surrogate is None
    log.tell(1, 2.0)
    check(log.goal)
    assert sorted(log.goal.rows) == [1, 3]


@pytest.mark.parametrize(
    "extreme", [[0.0] * 30, [1e300, -1e300] * 15, [1.7e308, -1.7e308] * 15, [1e-300 * i for i in range(30)]]
)
def test_extreme_values(extreme: list[float]) -> None:
    log = Log()
    for trial, value in enumerate(extreme):
        log.ask(trial)
        log.tell(trial, value, -value, value)
    for outcome in log.outcomes[:3]:
        check(outcome)
        assert np.isfinite(surrogate(outcome).theta).all() and np.isfinite(outcome.fitted()).all()
        assert np.isfinite(outcome.limit)


def test_the_limit_is_told_from_what_lies_far_beyond_it() -> None:
    """A metric that is small nearly everywhere and huge in places: the limit lies far above all that is small."""
    log = Log()
    for trial in range(20):
        log.ask(trial)
        x = log.history.points[trial, 0]
        log.tell(trial, 0.0, 0.0, 1e9 if x > 0.7 else -99.0 + 0.1 * x)
    at = np.stack([np.linspace(0.02, 0.98, 25), np.full(25, 0.25), np.full(25, np.nan)], axis=1)
    mean = surrogate(log.rule).predict(at)[0]
    assert (mean[at[:, 0] < 0.55] < log.rule.limit - 0.3).all()
    assert (mean[at[:, 0] > 0.85] > log.rule.limit + 0.3).all()


def test_hyperparameters_are_fitted_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outcomes, "GROWTH", 1.25)
    fits: list[int] = []

    def fit(self: Outcome) -> None:
        fits.append(len(self._every))
        original(self)

    original = Outcome._fit
    monkeypatch.setattr(Outcome, "_fit", fit)
    log = Log()
    log.outcomes = (log.goal,)  # type: ignore[assignment]
    for trial in range(60):
        log.ask(trial)
        log.tell(trial, float(np.sin(trial)))
    assert fits == [2, 3, 4, 5, 7, 9, 12, 15, 19, 24, 30, 38, 48, 60]


# -- more rows than a posterior can have --------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outcomes, "BULK", 20)
    monkeypatch.setattr(_outcomes, "FIT", 10)


@pytest.mark.usefixtures("small")
def test_rows_are_bounded() -> None:
    log, rng = filled(45), np.random.default_rng(1)
    for trial in range(45, 75):
        log.ask(trial)
        log.tell(trial, *rng.normal(size=3))
        for outcome in log.outcomes:
            check(outcome)
            assert 20 <= len(outcome.rows) <= 20 + 0.4 * 75
    assert np.argmin(np.where(log.history.status == OBSERVED, log.history.losses[:, 0], np.inf)) in log.goal.rows


@pytest.mark.usefixtures("small")
def test_changes_beyond_the_rows() -> None:
    log = filled(70)
    left = next(row for row in log.goal._every if row not in log.goal.rows)
    before = surrogate(log.goal)
    log.tell(left, 100.0)
    assert surrogate(log.goal) is before
    for trial in (left, log.goal.rows[0]):
        log.fail(trial)
        for outcome in log.outcomes:
            check(outcome)
        assert trial not in log.goal.rows


@pytest.mark.usefixtures("small")
def test_goals_stand_on_the_same_rows() -> None:
    """Whoever compares the goals of a row needs all of them."""
    log = filled(70)
    assert log.goal.rows == log.other.rows
    best = np.nanargmin(log.history.losses, axis=0)
    assert best[0] in log.goal.rows and best[1] in log.goal.rows


def test_spread_takes_the_best_and_the_others_evenly() -> None:
    values = np.array([9.0, 1.0, 8.0, 0.0, 7.0, 6.0, 5.0, 4.0])
    assert _spread(values, 8).tolist() == _spread(values, 100).tolist() == list(range(8))
    assert _spread(values, 4).tolist() == [0, 1, 3, 7]
    assert _spread(np.zeros(8), 4).tolist() == [0, 1, 2, 7]
