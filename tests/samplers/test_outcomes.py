"""The model of one outcome: which rows it stands on, what it is fitted to, and what it makes of changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith import Categorical, Constraint, Float, Goal, Space
from tunesmith.records import Asked, Failed, Told
from tunesmith.samplers import _outcomes
from tunesmith.samplers._kernel import Kernel
from tunesmith.samplers._outcomes import Outcome, Posterior, _spread
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

    def advance(self, trial: int, start: int, until: int, *values: float) -> None:
        """One job of a trial, with a loss, another one and seconds at its end."""
        config = self.space.sample(np.random.default_rng(trial))
        self.fold(Asked(self.asks, 0, trial, config, start, until))
        told = dict(zip(("loss", "other", "seconds"), ([value] for value in values), strict=True))
        self.fold(Told(self.asks, trial, until - 1, told))
        self.asks += 1

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


def believed(outcome: Outcome) -> Posterior:
    assert outcome.posterior is not None
    return outcome.posterior


def rows(outcome: Outcome) -> list[int]:
    return believed(outcome).rows.tolist()


def check(outcome: Outcome) -> None:
    """The posterior is that of the rows' present values, at its hyperparameters."""
    posterior, history = believed(outcome), outcome.history
    model = posterior.surrogate
    if outcome.kind == "failure":
        values = np.where(history.status[posterior.rows] == FAILED, 1.0, -1.0)
    else:
        values = outcome._values(history.last[posterior.rows])
    assert outcome._fitted is not None
    y, _, limit = outcome._transformed(values, outcome._fitted[1].powers)
    assert limit == posterior.limit
    anew = Surrogate.condition(
        model.kernel, model.theta, history.points[posterior.rows], y, np.maximum(history.counts[posterior.rows], 1.0)
    )
    at = np.concatenate([model.points, SPACE.snap(np.random.default_rng(1).random((20, 3)))])
    np.testing.assert_allclose(model.predict(at), anew.predict(at), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(posterior.means, anew.predict(model.points)[0], atol=1e-6)
    has = (OBSERVED, FAILED) if outcome.kind == "failure" else (OBSERVED,)
    assert np.isin(history.status[posterior.rows], has).all() and len(set(rows(outcome))) == len(rows(outcome))


def test_nothing_is_known_before_two_rows() -> None:
    log = Log()
    for trial in range(2):
        log.ask(trial)
    log.tell(0, 1.0)
    assert all(outcome.posterior is None for outcome in log.outcomes)
    log.tell(0, 2.0)  # another value of the only row
    assert all(outcome.posterior is None for outcome in log.outcomes)
    log.tell(1, 3.0)
    assert rows(log.goal) == [0, 1] and log.failure.posterior is None
    check(log.goal)


def test_follows_what_is_told() -> None:
    log = filled(50)
    for outcome in log.outcomes:
        check(outcome)
        wanted = range(50) if outcome is log.failure else [row for row in range(50) if row % 5 != 4]
        assert rows(outcome) == list(wanted)


def test_repeats_are_averaged_and_counted() -> None:
    log = filled(30)
    log.ask(30, same=7)
    log.tell(30, 9.0)
    assert log.history.counts[7] == 2
    for outcome in log.outcomes:
        check(outcome)
        assert believed(outcome).surrogate.counts[rows(outcome).index(7)] == 2
    log.fail(30)
    assert log.history.counts[7] == 1
    for outcome in log.outcomes:
        check(outcome)


def test_a_row_that_fails_later_leaves_the_goals() -> None:
    log = filled(30)
    log.fail(3)
    assert 3 not in rows(log.goal) and 3 in rows(log.failure)
    for outcome in log.outcomes:
        check(outcome)
    assert believed(log.failure).surrogate.y[rows(log.failure).index(3)] == 1.0
    log.tell(3, 0.5)
    assert rows(log.goal)[-1] == 3
    for outcome in log.outcomes:
        check(outcome)


def test_the_first_failure_may_be_one_of_an_observed_row() -> None:
    log = Log()
    for trial in range(8):
        log.ask(trial)
        log.tell(trial, float(trial))
    log.fail(2)
    check(log.failure)
    assert rows(log.failure) == list(range(8))
    log.tell(2, 1.0)  # its last failure is forgotten
    assert log.failure.posterior is None
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
    assert 9 not in rows(log.failure)
    log.fail(30)
    check(log.failure)
    assert 9 in rows(log.failure)


def test_all_failed() -> None:
    log = Log()
    for trial in range(6):
        log.ask(trial)
        log.fail(trial)
    assert log.goal.posterior is None
    check(log.failure)


def test_everything_that_was_observed_fails_later() -> None:
    """Also on several rungs; and then there are results again."""
    log = halved(9, (1, 3))
    for trial in range(9):
        log.fail(trial)
        assert (log.goal.posterior is None) == (trial >= 7)
    check(log.failure)
    for trial in range(20, 23):
        log.advance(trial, 0, 1, float(trial), 0.0, 0.0)
    assert rows(log.goal) == [9, 10, 11]
    check(log.goal)


@pytest.mark.usefixtures("small")
def test_one_failure_among_many_is_learned_from() -> None:
    log = Log()
    for trial in range(60):
        log.ask(trial)
        log.tell(trial, float(trial))
        if trial == 30:
            log.fail(trial)
    sample = log.failure._sample
    assert sample is not None and sample.values.max() == 1.0 and len(sample.ids) == 20
    check(log.failure)


def test_all_but_one_row_fail_later() -> None:
    log = Log()
    for trial in range(4):
        log.ask(trial)
        log.tell(trial, float(trial))
    for trial in range(3):
        log.fail(trial)
    assert log.goal.posterior is None
    log.tell(1, 2.0)
    check(log.goal)
    assert sorted(rows(log.goal)) == [1, 3]


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
        posterior = believed(outcome)
        assert np.isfinite(posterior.surrogate.theta).all() and np.isfinite(posterior.means).all()
        assert np.isfinite(posterior.limit)


def test_the_limit_is_told_from_what_lies_far_beyond_it() -> None:
    """A metric that is small nearly everywhere and huge in places: the limit lies far above all that is small."""
    log = Log()
    for trial in range(20):
        log.ask(trial)
        x = log.history.points[trial, 0]
        log.tell(trial, 0.0, 0.0, 1e9 if x > 0.7 else -99.0 + 0.1 * x)
    at = np.stack([np.linspace(0.02, 0.98, 25), np.full(25, 0.25), np.full(25, np.nan)], axis=1)
    rule = believed(log.rule)
    mean = rule.surrogate.predict(at)[0]
    assert (mean[at[:, 0] < 0.55] < rule.limit - 0.3).all()
    assert (mean[at[:, 0] > 0.85] > rule.limit + 0.3).all()


def fits(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the samples to which it will be fitted."""
    sizes: list[int] = []

    def coarse(sample: Any, *arguments: Any) -> Any:
        sizes.append(len(sample.ids))
        return original(sample, *arguments)

    original = _outcomes._coarse
    monkeypatch.setattr(_outcomes, "_coarse", coarse)
    monkeypatch.setattr(_outcomes, "POWERS", _outcomes.PLAIN)
    return sizes


def test_hyperparameters_are_fitted_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outcomes, "GROWTH", 1.25)
    log = Log()
    sizes = fits(log.goal, monkeypatch)
    for trial in range(60):
        log.ask(trial)
        log.tell(trial, float(np.sin(trial)))
        assert (log.goal.posterior is None) == (trial < 1) and log.goal.posterior is log.goal.posterior
    assert list(dict.fromkeys(sizes)) == [2, 3, 4, 5, 7, 9, 12, 15, 19, 24, 30, 38, 48, 60]


def test_what_nobody_asks_for_is_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked for the first time is fitted once, to the last sample."""
    sizes = fits(Log().goal, monkeypatch)
    log = filled(60)
    assert sizes == []
    assert log.goal.posterior is not None and set(sizes) == {len(log.goal._sample.ids)} and len(sizes) == 2


# -- rungs --------------------------------------------------------------------------------------------------------


def halved(trials: int = 27, rungs: tuple[int, ...] = (1, 3, 9), seed: int = 0) -> Log:
    """The best third of each rung goes on to the next one; losses fall with the steps."""
    log, rng = Log(), np.random.default_rng(seed)
    left, start = list(range(trials)), 0
    for until in rungs:
        values = {trial: rng.normal(size=3) - 4 * np.log(until) for trial in left}
        for trial in left:
            log.advance(trial, start, until, *values[trial])
        left, start = sorted(left, key=lambda trial: values[trial][0])[: len(left) // 3], until
    return log


def check_rungs(outcome: Outcome) -> None:
    """Means at the last rung against a dense solve over all observations, with their steps as one more column."""
    history, posterior = outcome.history, believed(outcome)
    model = posterior.surrogate
    chosen = [i for i in range(history.seen) if history.seen_counts[i]]
    assert outcome.kernel.steps == (len(history.rungs) > 1)
    wider = Kernel([*SPACE.columns, Space({"step": Float(0.0, 1.0)}).columns[0]])
    theta = np.insert(model.theta, 3, 0.0) if not outcome.kernel.steps else model.theta
    steps = np.log(history.seen_steps[chosen] / max(history.rungs))
    points = np.column_stack([history.points[history.seen_rows[chosen]], steps])
    at = SPACE.snap(np.random.default_rng(1).random((20, 3)))
    scaled = wider.scaled(theta, wider.embed(points))
    above = wider.scaled(theta, wider.embed(np.column_stack([at, np.zeros(20)])))
    dense = wider.covariance(theta, scaled, scaled) + np.diag(np.exp(theta[-1]) / history.seen_counts[chosen])
    cross = wider.covariance(theta, above, scaled)
    assert outcome._fitted is not None
    y = outcome._transformed(outcome._values(np.array(chosen)), outcome._fitted[1].powers)[0]
    np.testing.assert_allclose(model.predict(at)[0], cross @ np.linalg.solve(dense, y), rtol=1e-5, atol=1e-6)
    variance = wider.variance(theta) - np.einsum("ij,ji->i", cross, np.linalg.solve(dense, cross.T))
    np.testing.assert_allclose(model.predict(at)[1], np.sqrt(variance), rtol=1e-5, atol=1e-6)
    assert rows(outcome) == list(dict.fromkeys(history.seen_rows[chosen].tolist()))
    np.testing.assert_allclose(posterior.means, model.predict(history.points[posterior.rows])[0], atol=1e-6)


def test_all_observations_and_what_they_say_of_the_last_rung() -> None:
    log = halved()
    assert log.history.rungs == [1, 3, 9] and log.history.seen == 27 + 9 + 3
    for outcome in log.outcomes[:3]:
        check_rungs(outcome)
        assert sorted(rows(outcome)) == list(range(27))


def test_every_rung_has_its_level() -> None:
    """Values fall by 4 at each; what is said of the last rung does not hang between them."""
    log = halved(81, (1, 3, 9, 27))
    goal = believed(log.goal)
    assert goal.transform is not None
    means = goal.transform.invert(goal.means)
    assert (np.abs(means + 4 * np.log(27)) < 4).all()
    last = log.goal.latest()
    assert len(last) == 81 and (np.abs(last + 4 * np.log(27)) < 6).all()


def test_rungs_come_and_go() -> None:
    log = halved()
    log.advance(40, 0, 27, -20.0, 0.0, 0.0)  # a higher one, by a trial that has seen no other
    for outcome in log.outcomes[:3]:
        check_rungs(outcome)
    log.fail(40)
    assert log.history.rungs == [1, 3, 9]
    for outcome in log.outcomes[:3]:
        check_rungs(outcome)
    for trial in [trial for trial in range(27) if log.history.steps[trial] > 1]:
        log.fail(trial)
    assert log.history.rungs == [1]
    for outcome in log.outcomes[:3]:
        check_rungs(outcome)
        check(outcome)
    check(log.failure)
    assert not log.goal.kernel.steps and rows(log.failure) == list(range(28))


def test_a_trial_that_goes_on_and_one_that_is_repeated() -> None:
    log = halved()
    log.advance(30, 0, 1, 5.0, 5.0, 5.0)
    for outcome in log.outcomes[:3]:
        check_rungs(outcome)
    log.advance(30, 1, 3, 1.0, 1.0, 1.0)
    log.fold(Asked(99, 0, 31, SPACE.sample(np.random.default_rng(30)), 0, 1))
    log.fold(Told(99, 31, 0, {"loss": [1.0], "other": [1.0], "seconds": [1.0]}))
    row = log.history._row_of[30]
    ids = log.history.observations(row)
    assert list(ids) == [1, 3] and log.history.seen_counts[list(ids.values())].tolist() == [2, 1]
    assert log.history.seen_values[ids[1], 0] == 3.0
    for outcome in log.outcomes[:3]:
        check_rungs(outcome)


@pytest.mark.parametrize("factor", [0.0, 1e-300, 1e300, 1.7e308])
def test_extreme_values_at_several_rungs(factor: float) -> None:
    log, rng = Log(), np.random.default_rng(0)
    for start, until, trials in [(0, 1, 15), (1, 4, 6), (4, 16, 2)]:
        for trial in range(trials):
            log.advance(trial, start, until, *(factor * rng.uniform(-1, 1, 3)))
    for outcome in log.outcomes[:3]:
        posterior = believed(outcome)
        assert np.isfinite(posterior.surrogate.theta).all() and np.isfinite(posterior.means).all()
        assert np.isfinite(posterior.limit) and np.isfinite(outcome.latest()).all()


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
            assert 20 <= len(rows(outcome)) <= 20 + 0.4 * 75
    assert np.argmin(np.where(log.history.status == OBSERVED, log.history.losses[:, 0], np.inf)) in rows(log.goal)


@pytest.mark.usefixtures("small")
def test_observations_are_bounded() -> None:
    """The best trials keep all of theirs, since those that got furthest rank first."""
    log = halved(81, (1, 3, 9, 27))
    assert log.history.live == 120 and len(believed(log.goal).surrogate.points) <= 20 + 0.4 * 120
    assert np.flatnonzero(log.history.steps == 27).tolist() == sorted(
        row for row in rows(log.goal) if log.history.steps[row] == 27
    )


@pytest.mark.usefixtures("small")
def test_changes_beyond_the_rows() -> None:
    log = filled(70)
    left = next(row for row in np.flatnonzero(log.history.status == OBSERVED) if row not in rows(log.goal))
    before = believed(log.goal).surrogate
    log.tell(left, 100.0)
    np.testing.assert_array_equal(believed(log.goal).surrogate.weights, before.weights)
    for trial in (left, rows(log.goal)[0]):
        log.fail(trial)
        for outcome in log.outcomes:
            check(outcome)
        assert trial not in rows(log.goal)


@pytest.mark.usefixtures("small")
def test_goals_stand_on_the_same_rows() -> None:
    """Whoever compares the goals of a row needs all of them."""
    log = filled(70)
    assert rows(log.goal) == rows(log.other)
    best = np.nanargmin(log.history.losses, axis=0)
    assert best[0] in rows(log.goal) and best[1] in rows(log.goal)


def test_spread_takes_the_best_and_the_others_evenly() -> None:
    values = np.array([9.0, 1.0, 8.0, 0.0, 7.0, 6.0, 5.0, 4.0])
    assert _spread(values, 8).tolist() == _spread(values, 100).tolist() == list(range(8))
    assert _spread(values, 4).tolist() == [0, 1, 3, 7]
    assert _spread(np.zeros(8), 4).tolist() == [0, 1, 2, 7]
