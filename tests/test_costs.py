"""What jobs cost: the model learned from seconds, and budgets."""

from __future__ import annotations

import heapq
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tunesmith as ts
from tunesmith import Budget, samplers, schedulers
from tunesmith.costs import CostModel
from tunesmith.progress import Progress, snapshot
from tunesmith.records import Asked, Failed, Told
from tunesmith.testing import configs, spaces
from tunesmith.testing.conformance import mixed

SPACE = ts.Space(
    {
        "lr": ts.Float(1e-5, 1.0, log=True),
        "width": ts.Integer(8, 512, log=True),
        "batch": ts.Ordinal([16, 32, 64, 128]),
        "dropout": ts.Float(0.0, 0.5),
        "optimizer": ts.Categorical({"sgd": ts.Space({"momentum": ts.Float(0.0, 0.99)}), "adam": None}),
    }
)
LOSS = ts.Goal("loss")


def seconds(config: dict[str, Any], steps: int) -> float:
    """Costs that are linear in the logarithm, beside a fixed overhead."""
    rate = 1e-3 * config["width"] ** 1.5 * config["batch"] ** -0.5 * (1.3 if config["optimizer"] == "adam" else 1.0)
    return float(2.0 + rate * math.exp(0.5 * config["dropout"]) * steps)


class Log:
    """A model, and jobs to tell it of."""

    def __init__(self, space: ts.Space = SPACE) -> None:
        self.model = CostModel(space)
        self.trials = 0

    def ask(self, config: dict[str, Any], until: int, start: int = 0) -> int:
        trial, self.trials = self.trials, self.trials + 1
        self.model.tell(Asked(trial, 0, trial, config, start, until))
        return trial

    def say(self, trial: int, start: int, step: int, took: float, ask: int | None = None) -> None:
        ask = trial if ask is None else ask
        self.model.tell(Told(ask, trial, start, {"loss": [1.0] * (step - start)}, took))

    def job(self, config: dict[str, Any], steps: int, took: float) -> None:
        self.say(self.ask(config, steps), 0, steps, took)

    def predict(self, config: dict[str, Any], start: int, until: int) -> float:
        cost = self.model.predict(config, start, until)
        assert cost is not None
        return cost.seconds


def learned(count: int, noise: float = 0.0, outliers: float = 0.0) -> Log:
    log, rng = Log(), np.random.default_rng(0)
    for _ in range(count):
        config, steps = SPACE.sample(rng), int(rng.choice([1, 3, 9, 27]))
        odd = 100.0 if rng.random() < outliers else 1.0
        log.job(config, steps, seconds(config, steps) * math.exp(noise * rng.normal()) * odd)
    return log


def errors(log: Log, steps: int) -> np.ndarray:
    """Logarithms of predicted over true seconds, for configurations that were not told."""
    rng = np.random.default_rng(1)
    tried = [SPACE.sample(rng) for _ in range(200)]
    return np.array([math.log(log.predict(config, 0, steps) / seconds(config, steps)) for config in tried])


# -- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 9, 81])
def test_costs_that_are_linear_in_the_logarithm_are_recovered(steps: int) -> None:
    assert np.abs(errors(learned(100), steps)).max() < 0.02


def test_with_noise_the_errors_shrink_with_the_data_and_the_deviation_says_how_large_they_are() -> None:
    few, many = learned(30, noise=0.2), learned(300, noise=0.2)
    assert np.std(errors(few, 9)) > 2 * np.std(errors(many, 9))
    assert np.abs(errors(many, 81)).mean() < 0.08
    rng = np.random.default_rng(2)
    inside = []
    for _ in range(300):
        config = SPACE.sample(rng)
        cost = many.model.predict(config, 0, 9)
        assert cost is not None
        inside.append(abs(seconds(config, 9) * math.exp(0.2 * rng.normal()) - cost.seconds) < 2 * cost.sd)
    assert 0.88 < np.mean(inside) < 0.995


def test_outliers_count_for_little() -> None:
    assert np.abs(errors(learned(200, noise=0.1, outliers=0.05), 9)).mean() < 0.1


def test_nothing_is_known_before_the_first_seconds() -> None:
    log = Log()
    config = SPACE.sample(np.random.default_rng(0))
    assert log.model.predict(config, 0, 9) is None and not log.model.known
    log.job(config, 9, 0.0)
    assert log.model.predict(config, 0, 9) is None and log.model.left == 0.0
    log.job(config, 9, 18.0)
    assert log.model.known


def test_after_one_job_every_configuration_has_its_rate() -> None:
    log = Log()
    rng = np.random.default_rng(0)
    log.job(SPACE.sample(rng), 9, 18.0)
    costs = {log.predict(SPACE.sample(rng), 0, 9) for _ in range(20)}
    assert 18 * 0.9 < min(costs) <= max(costs) < 18 * 2  # the mean lies over the median
    config = SPACE.sample(rng)
    assert 8 < log.predict(config, 0, 90) / log.predict(config, 0, 9) <= 10


def test_a_job_costs_its_steps_not_the_steps_before() -> None:
    log = learned(100)
    config = SPACE.sample(np.random.default_rng(1))
    assert log.predict(config, 18, 27) == log.predict(config, 0, 9)


def test_a_value_at_the_end_alone_stands_for_all_steps_of_the_job() -> None:
    log = Log(ts.Space({"x": ts.Float(0.0, 1.0)}))
    for steps in (1, 10, 100, 1, 10, 100):
        log.say(log.ask({"x": 0.5}, 20 + steps, start=20), 19 + steps, 20 + steps, 5.0 + 0.1 * steps)
    assert log.predict({"x": 0.5}, 0, 10) == pytest.approx(6.0, rel=0.05)
    assert log.predict({"x": 0.5}, 0, 1000) == pytest.approx(105, rel=0.1)


def test_an_overhead_is_told_from_the_steps() -> None:
    log = Log(ts.Space({"x": ts.Float(0.0, 1.0)}))
    for steps in (1, 10, 100, 1, 10, 100):
        log.job({"x": 0.5}, steps, 5.0 + 0.1 * steps)
    assert log.predict({"x": 0.5}, 0, 1) == pytest.approx(5.1, rel=0.05)
    assert log.predict({"x": 0.5}, 0, 1000) == pytest.approx(105, rel=0.1)


def test_costs_are_about_proportional_to_a_fidelity_until_the_seconds_say_otherwise() -> None:
    space = ts.Space({"lr": ts.Float(1e-3, 1.0, log=True), "part": ts.Fidelity(0.1, 1.0)})
    log, rng = Log(space), np.random.default_rng(0)
    for _ in range(20):
        log.job(space.at(space.sample(rng), 0.0), 1, 10.0 * math.exp(0.1 * rng.normal()))
    config = space.sample(rng)
    low, high = space.at(config, 0.0), space.at(config, 1.0)
    assert 7 < log.predict(high, 0, 1) / log.predict(low, 0, 1) < 25
    for _ in range(10):
        log.job(space.at(space.sample(rng), 1.0), 1, 1000.0 * math.exp(0.1 * rng.normal()))
    assert 80 < log.predict(high, 0, 1) / log.predict(low, 0, 1) < 125


def test_a_parameter_of_a_branch_costs_only_there() -> None:
    space = ts.Space({"model": ts.Categorical({"net": ts.Space({"depth": ts.Integer(1, 16, log=True)}), "tree": None})})
    log = Log(space)
    for depth in (1, 2, 4, 8, 16, 3, 5, 9):
        log.job({"model": "net", "depth": depth}, 1, 2.0 * depth)
        log.job({"model": "tree"}, 1, 0.5)
    assert log.predict({"model": "net", "depth": 12}, 0, 1) == pytest.approx(24.0, rel=0.1)
    assert log.predict({"model": "tree"}, 0, 1) == pytest.approx(0.5, rel=0.1)


def test_a_name_may_stand_for_numbers_in_one_branch_and_for_options_in_another() -> None:
    size = {"a": ts.Space({"size": ts.Float(1.0, 100.0)}), "b": ts.Space({"size": ts.Categorical(["small", "large"])})}
    log = Log(ts.Space({"kind": ts.Categorical(size)}))
    for _ in range(10):
        log.job({"kind": "a", "size": 10.0}, 1, 10.0)
        log.job({"kind": "a", "size": 50.0}, 1, 50.0)
        log.job({"kind": "b", "size": "small"}, 1, 1.0)
        log.job({"kind": "b", "size": "large"}, 1, 30.0)
    assert log.predict({"kind": "a", "size": 20.0}, 0, 1) == pytest.approx(20.0, rel=0.15)
    assert log.predict({"kind": "b", "size": "large"}, 0, 1) == pytest.approx(30.0, rel=0.15)


def test_what_a_job_has_told_so_far_counts() -> None:
    log = Log()
    config = SPACE.sample(np.random.default_rng(0))
    trial = log.ask(config, 100)
    log.say(trial, 0, 10, 20.0)
    assert 150 < log.model.left < 300
    log.say(trial, 10, 90, 160.0)
    assert 15 < log.model.left < 40
    log.say(trial, 90, 100, 20.0)
    assert log.model.left == 0.0
    assert log.predict(config, 0, 100) == pytest.approx(200, rel=0.15)


def test_a_job_that_is_asked_again_pays_its_overhead_again() -> None:
    log = Log(ts.Space({"x": ts.Float(0.0, 1.0)}))
    for steps in (1, 10, 100, 1, 10, 100):
        log.job({"x": 0.5}, steps, 5.0 + 0.1 * steps)
    trial = log.ask({"x": 0.5}, 100)
    log.say(trial, 0, 50, 10.0)
    log.say(trial, 50, 100, 10.0, ask=77)  # of 50 steps, not of 100
    assert log.predict({"x": 0.5}, 0, 50) == pytest.approx(10.0, rel=0.05)


def test_jobs_that_are_out() -> None:
    log = learned(100)
    rng = np.random.default_rng(3)
    given = [SPACE.sample(rng) for _ in range(5)]
    trials = [log.ask(config, 9) for config in given]
    expected = sum(log.predict(config, 0, 9) for config in given)
    assert log.model.left == pytest.approx(expected)
    log.model.tell(Failed(trials[0], trials[0], "broken"))
    assert log.model.left == pytest.approx(expected - log.predict(given[0], 0, 9))
    for trial, config in zip(trials[1:], given[1:], strict=True):
        log.say(trial, 0, 9, seconds(config, 9))
    assert log.model.left == 0.0


def test_looking_changes_nothing() -> None:
    one, other = learned(40, noise=0.1), Log()
    rng = np.random.default_rng(0)
    for _ in range(40):
        config, steps = SPACE.sample(rng), int(rng.choice([1, 3, 9, 27]))
        rng.random()
        other.job(config, steps, seconds(config, steps) * math.exp(0.1 * rng.normal()))
        other.predict(SPACE.sample(np.random.default_rng(5)), 0, 9)
    assert (errors(one, 9) == errors(other, 9)).all()


EVENTS = st.lists(
    st.tuples(st.integers(1, 1000), st.floats(0.0, 1e300), st.integers(0, 3), st.booleans()), min_size=1, max_size=25
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), jobs=EVENTS)
def test_predictions_are_positive_and_finite_whatever_is_told(data: st.DataObject, jobs: list[Any]) -> None:
    space = data.draw(spaces())
    log, rng = Log(space), np.random.default_rng(0)
    told = False
    for steps, took, kind, extra in jobs:
        config = space.sample(rng)
        trial = log.ask(config, steps + extra)
        if kind == 1:
            log.model.tell(Failed(trial, trial, "broken"))
        elif kind != 2:
            log.say(trial, 0, steps, took)
            told |= took > 0
        assert math.isfinite(log.model.left)
    cost = log.model.predict(data.draw(configs(space)), 0, data.draw(st.integers(1, 10**6)))
    assert (cost is not None) == told
    assert cost is None or (0 < cost.seconds < math.inf and 0 < cost.sd < math.inf)


def test_configurations_outside_the_space_are_taken_as_they_are() -> None:
    log = learned(50)
    odd = {"width": -3, "batch": "many", "optimizer": 7, "new": 1.0, "lr": True}
    log.job(odd, 3, 1.0)
    assert 0 < log.predict(odd, 0, 9) < math.inf


# -- budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5d", 129_600), (" .5 h ", 1800)]
)
def test_a_budget_in_time(text: str, limit: float) -> None:
    assert Budget.parse(text) == Budget(seconds=limit) and Budget.parse(text).limit == limit


def test_a_budget_in_money() -> None:
    budget = Budget.parse("$20", 2.5)
    assert budget == Budget(dollars=20, price=2.5) and budget.limit == 8 * 3600
    assert budget.spent(3600) == "$2.50 of $20.00"


@pytest.mark.parametrize(
    ("took", "text"), [(0, "0 s"), (12.34, "12.3 s"), (600, "10 min"), (9000, "2.5 h"), (3.6e6, "1,000 h")]
)
def test_amounts_of_time(took: float, text: str) -> None:
    assert Budget(seconds=1).amount(took) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Budget(), "give either seconds="),
        (lambda: Budget(seconds=1, dollars=1, price=1), "give either seconds="),
        (lambda: Budget(dollars=20), "price="),
        (lambda: Budget(seconds=20, price=1), "dollars= and price="),
        (lambda: Budget(seconds=0), "seconds=0 must be a number over 0"),
        (lambda: Budget(seconds=math.nan), "seconds=nan must be"),
        (lambda: Budget(seconds="2h"), "seconds='2h' must be"),  # type: ignore[arg-type]
        (lambda: Budget.parse("two hours"), "'two hours' is no budget: write 90s"),
        (lambda: Budget.parse("3600"), "'3600' is no budget"),
        (lambda: Budget.parse("$20h", 1), "no budget"),
        (lambda: Budget.parse("$20"), "needs a price"),
        (lambda: Budget.parse("2h", 3.0), "is a time, a price is for"),
        (lambda: ts.Study(SPACE, LOSS, budget=3600), "must be a Budget, such as"),  # type: ignore[arg-type]
        (lambda: ts.Study.open("nowhere.db", budget="2h"), "must be a Budget, such as"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_budget(make: Callable[[], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def work(study: ts.Study, workers: int = 1, noise: float = 0.0, jobs: int | None = None) -> None:
    """So many workers in virtual time; what is out at the end comes to its end."""
    rng = np.random.default_rng(0)
    out: list[tuple[float, int, ts.Job, float]] = []
    now, begun = 0.0, 0
    while True:
        while len(out) < workers and (jobs is None or begun < jobs) and (job := study.ask()):
            took = seconds(job.config, job.until - job.start) * math.exp(noise * rng.normal())
            heapq.heappush(out, (now + took, job.ask, job, took))
            begun += 1
        if not out:
            return
        now, _, job, took = heapq.heappop(out)
        study.tell(job, {"loss": [job.config["lr"]] * (job.until - job.start)}, seconds=took)


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("budget", [Budget(seconds=3000), Budget(dollars=5, price=6)])
def test_a_budget_is_used_and_not_exceeded(workers: int, budget: Budget) -> None:
    study = ts.Study(SPACE, LOSS, sampler=ts.samplers.Uniform(), scheduler=schedulers.Full(9), budget=budget)
    work(study, workers)
    assert 0.9 * 3000 < study.trials.seconds < 3000
    assert study.message.startswith("the budget is used up: ") and "the next one about" in study.message
    assert ("$5.00" in study.message) == (budget.dollars is not None)
    assert study.ask() is None and not study.running
    assert ts.replay(study) == []


def test_a_budget_is_exceeded_by_no_more_than_the_errors_of_the_predictions() -> None:
    for workers in (1, 16):
        study = ts.Study(
            SPACE,
            LOSS,
            sampler=ts.samplers.Uniform(),
            scheduler=schedulers.Full(9),
            budget=Budget(seconds=6000),
            seed=workers,
        )
        work(study, workers, noise=0.3)
        assert 0.85 * 6000 < study.trials.seconds < 1.1 * 6000


def test_until_something_is_known_there_is_one_job_at_a_time() -> None:
    study = ts.Study(SPACE, LOSS, budget=Budget(seconds=1e6))
    job = study.ask()
    assert job is not None and study.ask() is None and study.ask(3) == []
    assert "one job at a time" in study.message
    study.tell(job, {"loss": 1.0}, seconds=1.0)
    assert len(study.ask(20)) == 20


def test_jobs_that_are_out_are_reckoned_with() -> None:
    space = ts.Space({"x": ts.Float(0.0, 1.0)})
    study = ts.Study(
        space, LOSS, sampler=ts.samplers.Uniform(), scheduler=schedulers.Full(9), budget=Budget(seconds=100)
    )
    for _ in range(5):
        job = study.ask()
        assert job is not None
        study.tell(job, {"loss": [1.0] * 9}, seconds=10.0)
    assert len(study.ask(20)) in (4, 5)
    assert "50 s of 100 s are spent, the jobs that are out will take about" in study.message


def test_what_did_not_fit_fits_when_the_others_were_cheaper() -> None:
    space = ts.Space({"x": ts.Float(0.0, 1.0)})
    study = ts.Study(
        space, LOSS, sampler=ts.samplers.Uniform(), scheduler=schedulers.Full(10), budget=Budget(seconds=101)
    )
    for _ in range(5):
        job = study.ask()
        assert job is not None
        study.tell(job, {"loss": [1.0] * 10}, seconds=10.0)
    jobs = study.ask(20)
    for job in jobs:
        study.tell(job, {"loss": [1.0] * 10}, seconds=1.0)
    assert study.ask() is not None


def test_a_raised_budget_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    make = lambda budget: ts.Study(  # noqa: E731
        SPACE, LOSS, sampler=ts.samplers.Uniform(), scheduler=schedulers.Full(9), store=path, budget=budget
    )
    with make(Budget(seconds=1000)) as study:
        work(study)
        first = study.trials.seconds
    with make(Budget(seconds=1000)) as study:
        work(study)
        assert study.trials.seconds - first < 50  # nothing, or what a model of all that was told finds cheap enough
    with ts.Study.open(path, budget=Budget(seconds=3000)) as study:
        work(study, 4)
        assert 2700 < study.trials.seconds < 3000
        study.budget = None
        assert study.ask() is not None
        assert ts.replay(study) == []


def test_a_job_is_asked_again_whatever_the_budget_says() -> None:
    study = ts.Study(
        SPACE, LOSS, sampler=ts.samplers.Uniform(), scheduler=schedulers.Full(9), budget=Budget(seconds=100)
    )
    job = study.ask()
    assert job is not None
    study.tell(job, {"loss": [1.0] * 5}, seconds=200.0)
    study.fail(job, "the worker vanished", "lost")
    again = study.ask()
    assert again is not None and again.trial == job.trial
    study.tell(again, {"loss": [1.0] * 9}, seconds=100.0)
    assert study.ask() is None and study.message == "the budget is used up: 5 min of 100 s are spent"


def test_what_a_failed_job_has_told_is_spent() -> None:
    study = ts.Study(
        SPACE, LOSS, sampler=ts.samplers.Uniform(), scheduler=schedulers.Full(9), budget=Budget(seconds=100)
    )
    job = study.ask()
    assert job is not None
    study.tell(job, {"loss": [1.0] * 5}, seconds=200.0)
    study.fail(job, "broken")
    assert study.ask() is None and study.trials.seconds == 200.0


@pytest.mark.parametrize(
    "scheduler",
    [
        schedulers.PBT(population=4, ready=2, steps=20),
        schedulers.Race(steps=3),
        schedulers.SuccessiveHalving(min_steps=1, max_steps=27),
        schedulers.ASHA(min_steps=1, max_steps=27),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_every_scheduler_ends_with_a_message(scheduler: Any) -> None:
    study = ts.Study(SPACE, LOSS, sampler=ts.samplers.Uniform(), scheduler=scheduler, budget=Budget(seconds=100))
    work(study, 4)
    assert 80 < study.trials.seconds < 120 and not study.running
    assert "the budget is used up" in study.message
    assert ts.replay(study) == []


def test_a_change_of_the_space_is_followed() -> None:
    study = ts.Study(
        SPACE, LOSS, sampler=ts.samplers.Uniform(), scheduler=schedulers.Full(9), budget=Budget(seconds=2000)
    )
    work(study, jobs=20)
    study.change(space=ts.Space({**SPACE, "extra": ts.Float(1.0, 2.0)}), fill={"extra": 1.0})
    work(study)
    assert 1800 < study.trials.seconds < 2000
    assert ts.replay(study) == []


class Counting(msgspec.Struct, frozen=True):
    """Uniform draws; counts how often it is asked."""

    asked: ClassVar[list[int]] = []

    def init(self, space: ts.Space, *rest: Any) -> ts.Space:
        return space

    def tell(self, state: ts.Space, event: Any) -> ts.Space:
        return state

    def ask(self, state: ts.Space, rng: np.random.Generator, until: int = 1) -> Any:
        self.asked.append(until)
        return rng.random(len(state.columns))


def test_a_refused_job_is_not_proposed_again_until_something_happens() -> None:
    Counting.asked.clear()
    study = ts.Study(SPACE, LOSS, Counting(), schedulers.Full(9), budget=Budget(seconds=300))
    work(study)
    message, before = study.message, len(Counting.asked)
    assert [study.ask() for _ in range(5)] == [None] * 5
    assert len(Counting.asked) == before and study.message == message
    study.budget = Budget(seconds=600)
    assert study.ask() is not None


def test_with_a_budget_a_tell_needs_seconds() -> None:
    study = ts.Study(
        SPACE, LOSS, sampler=ts.samplers.Uniform(), scheduler=schedulers.Full(2), budget=Budget(seconds=100)
    )
    job = study.ask()
    assert job is not None
    with pytest.raises(ValueError, match="trial 0: the study has a budget: tell needs seconds="):
        study.tell(job, {"loss": 1.0})
    with pytest.raises(ValueError, match="seconds=-1 must be at least 0"):
        study.tell(job, {"loss": 1.0}, seconds=-1)
    study.tell(job, {"loss": [1.0]}, seconds=1.0)  # what was told once is enough
    study.tell(job, {"loss": [1.0]})
    assert study.trials[0].status == "complete"


def test_tune_with_a_budget() -> None:
    def train(config: dict[str, Any]) -> Iterator[float]:
        while True:
            yield sum(range(20_000)) * 0.0 + config["lr"]

    study = ts.tune(train, SPACE, minimise="loss", sampler=samplers.Uniform(), steps=3, budget=Budget(seconds=0.3))
    assert study.trials.seconds > 0 and "of 0.3 s are spent" in study.message


def test_progress_shows_what_is_spent() -> None:
    study, stream = (
        ts.Study(SPACE, LOSS, sampler=ts.samplers.Uniform(), scheduler=schedulers.Full(9), budget=Budget(seconds=6000)),
        io.StringIO(),
    )
    work(study, jobs=40)
    with Progress(stream=stream) as show:
        show(study)
    assert f"spent {Budget(seconds=6000).spent(study.trials.seconds)}" in stream.getvalue()
    assert snapshot(study).part == pytest.approx(study.trials.seconds / 6000)


def test_without_a_budget_nothing_is_shown_and_nothing_is_learned() -> None:
    study, stream = ts.Study(mixed(), LOSS), io.StringIO()
    study.ask()
    with Progress(stream=stream) as show:
        show(study)
    assert "spent" not in stream.getvalue() and study._log.decider._costs is None
