"""Virtual time: schedules computed by hand, cuts at the deadline, failures, and what recorded curves say."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import tunesmith as ts
from tunesmith.execution import Curve, Inline, Options, Played, Recorded, Simulated, as_task, drive, simulate
from tunesmith.records import Asked, Failed, Told
from tunesmith.schedulers import ASHA, PBT, Full, Hyperband, Median, Race, SuccessiveHalving
from tunesmith.space import Fidelity
from tunesmith.testing import mixed

LOSS = ts.Goal("loss")
SPACE = ts.Space({"x": ts.Float(0.0, 100.0)})


def queue(xs: Sequence[float], scheduler: Any = None, *, goals: Any = LOSS, **more: Any) -> ts.Study:
    """A study that starts these configurations in this order, and no others."""
    study = ts.Study(SPACE, goals, sampler=ts.samplers.Uniform(), scheduler=scheduler, trials=len(xs), **more)
    for x in xs:
        study.enqueue({"x": x})
    return study


def steps(job: ts.Job) -> range:
    return range(job.start + 1, job.until + 1)


def slow(job: ts.Job) -> Any:
    """Every step takes x seconds; the loss is x / step."""
    return {"loss": [job.config["x"] / step for step in steps(job)]}, [job.config["x"]] * len(steps(job))


def even(job: ts.Job) -> Any:
    """Every step takes a second."""
    return {"loss": [job.config["x"] / step for step in steps(job)]}, float(len(steps(job)))


def told(study: ts.Study) -> list[tuple[int, int, int, float]]:
    """Trial, step before, step after and seconds of every report, in the order of the log."""
    return [(e.trial, e.start, e.step, e.seconds) for e in study.events() if isinstance(e, Told)]


# -- schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "seconds", "idle", "ends"),
    [
        (1, 8.5, 0.0, [(0, 3.0), (1, 4.0), (2, 6.0), (3, 8.5)]),
        (2, 5.5, 2.5, [(1, 1.0), (0, 3.0), (2, 3.0), (3, 5.5)]),
        (3, 3.5, 2.0, [(1, 1.0), (2, 2.0), (0, 3.0), (3, 3.5)]),
        (4, 3.0, 3.5, [(1, 1.0), (2, 2.0), (3, 2.5), (0, 3.0)]),
    ],
)
def test_one_job_a_trial(workers: int, seconds: float, idle: float, ends: list[tuple[int, float]]) -> None:
    """Four jobs of 3, 1, 2 and 2.5 seconds; with two workers two of them end at the same time."""
    study = queue([3.0, 1.0, 2.0, 2.5])
    found = simulate(study, slow, workers)
    assert (found.seconds, found.worker_seconds, found.idle, found.outcome) == (seconds, 8.5, idle, "done")
    assert (found.jobs, found.trials, found.steps, found.failed) == (4, 4, 4, 0)
    assert [trial for trial, *_ in told(study)] == [trial for trial, _ in ends]
    executor = Simulated(slow, workers, rules=[LOSS])
    assert drive(queue([3.0, 1.0, 2.0, 2.5]), executor) == "done"
    assert [(run.job.trial, run.ended) for run in executor.runs] == ends


@pytest.mark.parametrize(("workers", "seconds"), [(1, 8.0), (2, 5.0), (3, 5.0), (4, 4.0)])
def test_successive_halving(workers: int, seconds: float) -> None:
    """Four trials of one step, the better two of them to step 2, the best to step 4; every step takes a second."""
    study = queue([4.0, 3.0, 2.0, 1.0], SuccessiveHalving(4, eta=2, rounds=1))
    found = simulate(study, even, workers)
    assert (found.seconds, found.worker_seconds, found.idle) == (seconds, 8.0, workers * seconds - 8.0)
    assert (found.jobs, found.trials, found.steps) == (7, 4, 8)
    assert sorted(told(study)) == [
        (0, 0, 1, 1.0), (1, 0, 1, 1.0), (2, 0, 1, 1.0), (2, 1, 2, 1.0),
        (3, 0, 1, 1.0), (3, 1, 2, 1.0), (3, 2, 4, 2.0),
    ]  # fmt: skip
    assert found.best == 0.25 and ts.replay(study) == []


def test_asynchronous_decisions_rest_on_what_has_come_in() -> None:
    """Two workers, eta 2. The slow good trial is not waited for: the first of two others that came in goes on."""
    study = queue([9.0, 2.0, 1.0], ASHA(2, eta=2))
    simulate(study, slow, 2)
    # worker 1: trial 0 until 9; worker 2: trial 1 until 2, trial 2 until 3, then trial 2, the better of the two, to 4
    assert told(study) == [(1, 0, 1, 2.0), (2, 0, 1, 1.0), (2, 1, 2, 1.0), (0, 0, 1, 9.0)]


def test_every_job_has_its_overhead() -> None:
    study = queue([4.0, 3.0, 2.0, 1.0], SuccessiveHalving(4, eta=2, rounds=1))
    found = simulate(study, even, overhead=0.5)
    assert found.seconds == found.worker_seconds == 8.0 + 7 * 0.5
    assert {seconds for _, start, _, seconds in told(study) if start == 0} == {1.5}
    assert found.incumbents[0].seconds == 1.5


def test_the_real_driver_keeps_the_same_schedule() -> None:
    one, other = (queue([5.0, 4.0, 3.0, 2.0, 1.0, 6.0, 7.0], ASHA(9)) for _ in range(2))
    simulate(one, slow, 3)
    executor = Simulated(slow, 3, rules=[LOSS])
    assert drive(other, executor) == "done" and executor.free == executor.slots == 3
    plain = [replace(event, worker="") if isinstance(event, Asked) else event for event in other.events()]
    assert one.trials[0].values("loss") == other.trials[0].values("loss")
    assert [event for event in plain if isinstance(event, Told)] == [e for e in one.events() if isinstance(e, Told)]


def test_the_same_arguments_give_the_same_log() -> None:
    def log(seed: int) -> list[Any]:
        study = ts.Study(mixed(), LOSS, sampler=ts.samplers.Uniform(), scheduler=Hyperband(9), seed=seed, trials=60)
        simulate(study, lambda job: ({"loss": [job.config["lr"] / s for s in steps(job)]}, 1 + job.seed % 7), 8)
        assert ts.replay(study) == []
        return study.events()

    assert log(1) == log(1) != log(2)


# -- the end of the time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "jobs", "done", "clock", "outcome"),
    [
        (0.0, 0, [], 0.0, "seconds"),
        (2.5, 2, [(0, 2), (1, 2)], 2.5, "seconds"),
        (3.0, 2, [(0, 3), (1, 3)], 3.0, "seconds"),
        (3.5, 4, [(0, 3), (1, 3)], 3.5, "seconds"),
        (5.0, 4, [(0, 3), (1, 3), (2, 2), (3, 2)], 5.0, "seconds"),
        (9.5, 5, [(0, 3), (1, 3), (2, 3), (3, 3), (4, 3)], 9.0, "done"),
    ],
)
def test_jobs_are_cut_at_the_deadline(
    seconds: float, jobs: int, done: list[tuple[int, int]], clock: float, outcome: str
) -> None:
    """Five trials of three steps of a second, two workers: the steps that fit are told."""
    study = queue([5.0, 4.0, 3.0, 2.0, 1.0], Full(3))
    found = simulate(study, even, 2, seconds=seconds)
    assert [(trial, step) for trial, _, step, _ in told(study)] == done
    assert (found.jobs, found.seconds, found.outcome) == (jobs, clock, outcome)
    assert found.steps == sum(step for _, step in done)
    assert found.worker_seconds == (2 * seconds if outcome == "seconds" else 15.0)
    assert not study.trials.running and ts.replay(study) == []
    cut = {trial.id for trial in study.trials if trial.status == "waiting"}
    assert cut == {trial.id for trial in study.trials if trial.step < 3}


def test_a_job_that_ends_at_the_deadline_is_whole_and_the_others_are_cut() -> None:
    study = queue([2.0, 3.0], Full(1))
    found = simulate(study, slow, 2, seconds=2.0)
    assert [trial.status for trial in study.trials] == ["complete", "waiting"]
    assert found.worker_seconds == 4.0 and found.steps == 1


def test_a_study_goes_on_after_the_deadline() -> None:
    study = queue([5.0, 4.0, 3.0], Full(3))
    simulate(study, even, 2, seconds=4.0)
    found = simulate(study, even, 2)
    assert found.outcome == "done" and all(trial.step == 3 for trial in study.trials) and ts.replay(study) == []


def test_interrupted_it_gives_its_jobs_back() -> None:
    executor = Simulated(even, 2, rules=[LOSS])
    study = queue([1.0, 2.0], Full(3))
    for job in study.ask(2):
        executor.submit(job)
    assert executor.free == 0
    executor.interrupt()
    reports = executor.wait(1.0)
    assert [report.failure and report.failure.kind for report in reports] == ["lost", "lost"]
    assert executor.clock == 0.0 and executor.free == 0 and executor.wait(1.0) == []
    executor.close()


# -- failures -------------------------------------------------------------------------------------------------------


def test_a_trial_fails_where_its_curve_is_not_finite() -> None:
    """It costs the time up to there; what stands before is told."""

    def curves(job: ts.Job) -> Any:
        return {"loss": [1.0, math.nan, 0.5], "other": [math.inf, 1.0, 1.0]}, 3.0

    study = queue([1.0], Full(3))
    found = simulate(study, curves)
    assert found.seconds == 2.0 and found.failed == 1 and found.best == 1.0
    *_, last, failed = study.events()
    assert isinstance(last, Told) and last.metrics == {"loss": [1.0], "other": [None]}
    assert isinstance(failed, Failed) and failed.kind == "non-finite" and "step 2" in failed.error
    assert ts.replay(study) == []


def test_nothing_needs_to_follow_what_is_not_finite() -> None:
    study = queue([1.0, 2.0], Full(5))
    found = simulate(study, lambda job: ({"loss": [3.0, math.inf]}, [1.0, 2.0]))
    assert found.failed == 2 and found.seconds == 6.0


def test_a_metric_that_is_measured_once() -> None:
    goals = [LOSS, ts.Goal("latency", once=True)]
    study = queue([3.0, 2.0, 1.0], SuccessiveHalving(3, size=3, rounds=1), goals=goals)

    def curves(job: ts.Job) -> Any:
        losses = [job.config["x"]] * len(steps(job))
        return {"loss": losses} if job.start else {"loss": losses, "latency": [job.config["x"]]}, 1.0

    assert simulate(study, curves).failed == 0
    assert study.trials[2].step == 3 and study.trials[2].last("latency") == 1.0


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        (lambda job: ({"loss": [1.0, 2.0]}, 1.0), "trial 0 has 2 values for the 3 steps from 1 to 3"),
        (lambda job: ({"loss": [1.0] * 4}, 1.0), "trial 0 has 4 values"),
        (lambda job: ({"accuracy": [1.0] * 3}, 1.0), "the curve of trial 0: metrics lack 'loss'; they have 'accuracy'"),
        (lambda job: ({"loss": [1.0] * 3, "b": [1.0]}, 1.0), "loss: 3, b: 1"),
        (lambda job: ({"loss": [1.0] * 3}, [1.0, 2.0]), "seconds=.1.0, 2.0. must be one number, or one a step"),
        (lambda job: ({"loss": [1.0] * 3}, -1.0), "seconds=-1.0 must be"),
        (lambda job: ({"loss": [1.0] * 3}, math.nan), "seconds=nan must be"),
    ],
)
def test_what_is_no_curve_is_refused(curves: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(queue([1.0], Full(3)), curves)


def test_bad_arguments() -> None:
    for given_, message in (
        ({"workers": 0}, "workers=0 must be a whole number"),
        ({"workers": 1.5}, "workers=1.5 must be"),
        ({"seconds": -1.0}, "seconds=-1.0 must be"),
        ({"seconds": math.nan}, "seconds=nan must be"),
        ({"overhead": -0.1}, "overhead=-0.1 must be"),
    ):
        with pytest.raises(ValueError, match=message):
            simulate(queue([1.0]), slow, **given_)
    with pytest.raises(ValueError, match="would never end"):
        simulate(ts.Study(SPACE, LOSS), slow)
    study = queue([1.0])
    study.ask()
    with pytest.raises(ValueError, match="1 jobs are out"):
        simulate(study, slow)


def test_the_number_of_trials_can_be_given() -> None:
    study = ts.Study(SPACE, LOSS)
    assert simulate(study, slow, 4, trials=7).trials == 7 == len(study.trials)


def test_a_trial_whose_fidelity_changes_is_trained_anew() -> None:
    """Two shares of the data, a second a step and share: 4 trials to step 1, then 2 from the beginning to step 2."""
    space = ts.Space({"x": ts.Float(0.0, 1.0), "share": Fidelity(0.5, 1.0)})
    study = ts.Study(
        space, LOSS, sampler=ts.samplers.Uniform(), scheduler=SuccessiveHalving(2, eta=2, size=4, rounds=1)
    )
    found = simulate(study, lambda job: ({"loss": [job.config["x"]] * len(steps(job))}, job.config["share"]))
    assert found.seconds == 4 * 0.5 + 2 * 1.0 and found.jobs == 6 and found.steps == 4 + 2 * 2
    assert ts.replay(study) == []


# -- incumbents -----------------------------------------------------------------------------------------------------


def test_every_step_counts_from_the_moment_when_it_is_done() -> None:
    """Trial 0 takes 3 seconds a step and is told last, but its first step was there before the last ones of trial 1."""
    values = {10.0: [0.3, 0.1], 20.0: [0.5, 0.4]}

    def curves(job: ts.Job) -> Any:
        x = job.config["x"]
        return {"loss": values[x][job.start : job.until]}, [3.0, 3.0] if x == 10.0 else [2.0, 2.0]

    found = simulate(queue([10.0, 20.0], Full(2)), curves, 2)
    assert found.incumbents == ((2.0, 1, 1, 0.5), (3.0, 0, 1, 0.3), (6.0, 0, 2, 0.1))
    assert found.best == 0.1
    assert [found.time_to(value) for value in (0.6, 0.5, 0.45, 0.3, 0.1, 0.05)] == [2.0, 2.0, 3.0, 3.0, 6.0, None]


def test_incumbents_to_be_maximised_that_keep_the_constraints() -> None:
    study = queue([1.0, 2.0], Full(3), goals=ts.Goal("score", maximise=True), constraints=ts.Constraint("memory", 5.0))

    def curves(job: ts.Job) -> Any:
        x = job.config["x"]
        return {"score": [x, 2 * x, 3 * x], "memory": [1.0, 2.0, 9.0 if x == 2.0 else 3.0]}, 3.0

    found = simulate(study, curves)
    assert found.incumbents == ((1.0, 0, 1, 1.0), (2.0, 0, 2, 2.0), (3.0, 0, 3, 3.0), (5.0, 1, 2, 4.0))
    assert found.best == 4.0 and found.time_to(2.0) == 2.0 and found.time_to(4.5) is None


@pytest.mark.parametrize(
    ("scope", "best"),
    [("last", [4.0, 1.0]), ("best", [4.0, 1.0]), ("last-2-avg", [4.0, 2.5]), ("last-9-avg", [4.0, 2.5])],
)
@pytest.mark.parametrize("scheduler", [Full(4), Median(4), Median(4, every=2)])
def test_incumbents_by_the_scope_of_the_goal(scope: str, best: list[float], scheduler: Any) -> None:
    """Whatever jobs the steps were made of."""
    values = [4.0, 1.0, 9.0, 4.0]

    def curves(job: ts.Job) -> Any:
        return {"loss": values[job.start : job.until]}, float(len(steps(job)))

    study = queue([1.0], scheduler, goals=ts.Goal("loss", scope=scope))
    found = simulate(study, curves)
    assert [incumbent.value for incumbent in found.incumbents] == best


def test_without_a_result_there_is_no_incumbent() -> None:
    found = simulate(queue([1.0]), lambda job: ({"loss": [math.nan]}, 1.0))
    assert found.incumbents == () and found.best is None and found.time_to(1e9) is None
    assert simulate(queue([1.0]), slow, seconds=0.0).incumbents == ()


# -- any study ------------------------------------------------------------------------------------------------------


SCHEDULERS = st.sampled_from(
    [
        Full(3),
        Full(2, seeds=2),
        ASHA(9),
        ASHA(9, eta=2, stopping=True),
        ASHA(9, brackets=2),
        Hyperband(9),
        Median(9),
        PBT(population=4, ready=2, steps=8),
        PBT(population=4, ready=2, steps=8, synchronous=True),
    ]
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    scheduler=SCHEDULERS,
    workers=st.integers(1, 12),
    seed=st.integers(0, 1000),
    faults=st.sampled_from([0.0, 0.2]),
    seconds=st.none() | st.floats(0.0, 60.0),
    overhead=st.sampled_from([0.0, 0.25]),
)
def test_any_number_of_workers(
    scheduler: Any, workers: int, seed: int, faults: float, seconds: float | None, overhead: float
) -> None:
    """The log replays, nobody does two jobs at once, and no job begins before the one it goes on from has ended."""

    def curves(job: ts.Job) -> Any:
        noise = [math.modf((job.seed % 9973) * 0.618 * step)[0] for step in steps(job)]
        return {"loss": [math.nan if n < faults / 4 else job.config["lr"] + n / 9 for n in noise]}, noise

    study = ts.Study(mixed(), LOSS, sampler=ts.samplers.Uniform(), scheduler=scheduler, seed=seed, trials=25)
    executor = Simulated(curves, workers, rules=[LOSS], overhead=overhead, seconds=seconds)
    drive(study, executor, max_failures=1000)
    again = ts.Study(mixed(), LOSS, sampler=ts.samplers.Uniform(), scheduler=scheduler, seed=seed, trials=25)
    found = simulate(again, curves, workers, seconds=seconds, overhead=overhead)
    assert ts.replay(again) == [] and not again.trials.running
    assert found.seconds <= (math.inf if seconds is None else seconds)
    assert -1e-9 <= workers * found.seconds - found.worker_seconds == pytest.approx(found.idle, abs=1e-9)
    assert sum(trial.step - trial.start for trial in again.trials) <= found.steps
    if found.outcome == "done":
        assert found.jobs == len(executor.runs) == sum(isinstance(event, Asked) for event in again.events())
    busy: list[float] = []
    reached: dict[tuple[int, int], float] = {}
    for run in sorted(executor.runs, key=lambda run: (run.begun, run.ended, run.job.ask)):
        while busy and busy[0] <= run.begun:
            heapq.heappop(busy)
        heapq.heappush(busy, run.ended)
        trial, start, parent = run.job.trial, run.job.start, run.job.parent
        source = trial if (trial, start) in reached or parent is None else parent
        assert len(busy) <= workers and (start == 0 or reached[source, start] <= run.begun)
        reached[trial, start + len(run.spent)] = run.ended


@settings(max_examples=60, deadline=None, derandomize=True)
@given(durations=st.lists(st.integers(1, 99), min_size=1, max_size=30, unique=True), workers=st.integers(1, 8))
def test_nobody_waits_while_there_is_something_to_do(durations: list[int], workers: int) -> None:
    """Against list scheduling: every job goes to the worker that is free first."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    found = simulate(queue([float(duration) for duration in durations]), slow, workers)
    assert found.seconds == max(free) and found.worker_seconds == sum(durations)


# -- recorded curves ------------------------------------------------------------------------------------------------

TWO = ts.Space(
    {"a": ts.Float(0.0, 1.0), "kind": ts.Categorical({"p": ts.Space({"b": ts.Float(0.0, 1.0)}), "q": None, "r": None})}
)


def job(config: dict[str, Any], start: int = 0, until: int = 1, **more: Any) -> ts.Job:
    return ts.Job(0, 0, config, start, until, more.pop("parent", None), "", 0, **more)


def flat(config: dict[str, Any], value: float, length: int, repeat: int = 0) -> Curve:
    return Curve(config, {"loss": [value] * length}, [value] * length, repeat)


def finished(xs: Sequence[float] = (3.0, 1.0, 2.0), scheduler: Any = None, **more: Any) -> ts.Study:
    """A study as it is after a run."""
    study = queue(xs, scheduler or Full(4), **more)
    simulate(study, slow, 2)
    return study


@pytest.mark.parametrize(
    ("config", "value"),
    [
        ({"a": 0.2, "kind": "q"}, 1.0),
        ({"a": 0.3, "kind": "q"}, 1.0),
        ({"a": 0.9, "kind": "q"}, 1.0),  # 0.7 against 0.1 + 1: another option is as far as a number can be
        ({"a": 0.9, "kind": "r"}, 3.0),
        ({"a": 0.2, "kind": "r"}, 3.0),  # 0.6 against 0 + 1
        ({"a": 0.2, "kind": "p", "b": 0.9}, 2.0),  # 0.6 + 0.4 against 0 + 1 + 1: only one of the two has b
    ],
)
def test_the_nearest_configuration_is_played(config: dict[str, Any], value: float) -> None:
    curves = [
        flat({"a": 0.2, "kind": "q"}, 1.0, 1),
        flat({"a": 0.8, "kind": "p", "b": 0.5}, 2.0, 1),
        flat({"a": 0.8, "kind": "r"}, 3.0, 1),
    ]
    played = Recorded(TWO, curves)(job(config))
    assert played.metrics == {"loss": [value]} and played.seconds == [value]
    assert played.kind == ("exact" if config == {"a": 0.2, "kind": "q"} else "neighbour")


def test_a_curve_that_ends_is_continued_like_the_nearest_that_goes_on() -> None:
    """From where it has ended, by the differences of the other curves: 5, 4, then -1 and -1, then +3 and 0."""
    curves = [
        Curve({"x": 10.0}, {"loss": [5.0, 4.0]}, [1.0, 1.0]),
        Curve({"x": 30.0}, {"loss": [0.0, 1.0, 2.0, 3.0, 6.0, 6.0]}, [2.0] * 6),
        Curve({"x": 11.0}, {"loss": [4.0, 3.0, 2.0, 1.0]}, [3.0] * 4),
    ]
    recorded = Recorded(SPACE, curves)
    whole = recorded(job({"x": 10.0}, 0, 6))
    assert whole.metrics["loss"] == [5.0, 4.0, 3.0, 2.0, 5.0, 5.0]
    assert whole.seconds == [1.0, 1.0, 3.0, 3.0, 2.0, 2.0] and whole.kind == "continued"
    assert recorded(job({"x": 10.0}, 0, 2)).kind == "exact" and recorded(job({"x": 10.0}, 2, 3)).kind == "continued"
    parts = [value for start in range(6) for value in recorded(job({"x": 10.0}, start, start + 1)).metrics["loss"]]
    assert parts == whole.metrics["loss"]  # whatever jobs a scheduler makes of the steps
    assert recorded(job({"x": 11.0}, 0, 6)).metrics["loss"] == [4.0, 3.0, 2.0, 1.0, 4.0, 4.0]
    with pytest.raises(ts.TunesmithError, match=r"trial 0 is to be trained to step 7, but no .* goes beyond step 6"):
        recorded(job({"x": 10.0}, 0, 7))


def test_what_goes_on_stays_in_the_range_of_what_was_recorded() -> None:
    curves = [
        Curve({"x": 10.0}, {"loss": [1.0]}, [1.0]),
        Curve({"x": 30.0}, {"loss": [9.0, 5.0, 9.5, math.nan]}, [2.0] * 4),
    ]
    played = Recorded(SPACE, curves)(job({"x": 10.0}, 0, 4)).metrics["loss"]
    assert played[:3] == [1.0, 1.0, 1.5] and math.isnan(played[3])


def test_repeats_are_played_by_repeats() -> None:
    curves = [flat({"x": 10.0}, 1.0, 2), flat({"x": 10.0}, 2.0, 2, repeat=1), flat({"x": 90.0}, 3.0, 2)]
    recorded = Recorded(SPACE, curves)
    assert [recorded(job({"x": 10.0}, repeat=repeat)).metrics["loss"] for repeat in (0, 1)] == [[1.0], [2.0]]
    assert recorded(job({"x": 90.0}, repeat=1)).metrics == {"loss": [2.0]}
    with pytest.raises(ts.TunesmithError, match="trial 0, repeat 2 of its configuration, is to be trained to step 1"):
        recorded(job({"x": 10.0}, repeat=2))


@pytest.mark.parametrize(
    "curves", [[], [Curve({"x": 1.0}, {"loss": [1.0]}, [])], [Curve({"x": 1.0}, {"loss": []}, [])]]
)
def test_what_is_not_recorded_is_refused(curves: list[Curve]) -> None:
    with pytest.raises(ValueError, match="curve"):
        Recorded(SPACE, curves)


def test_a_study_is_played_again_exactly() -> None:
    """With as many workers in the same time; with more of them in less."""
    first = finished((3.0, 1.0, 2.0, 2.5))
    recorded = Recorded.of(first)
    again = ts.Study(SPACE, LOSS, recorded.sampler(), Full(4))
    found = simulate(again, recorded, 2, trials=10)
    assert [trial.config for trial in again.trials] == [trial.config for trial in first.trials]
    assert told(again) == told(first) and found.kinds == {"exact": 4} and "nothing is left" in again.message
    assert found.seconds == 4 * 5.5 and ts.replay(again) == []
    more = simulate(ts.Study(SPACE, LOSS, recorded.sampler(), Full(4)), recorded, 4, trials=10)
    assert more.seconds == 4 * 3.0


def test_other_configurations_and_shorter_curves_are_counted() -> None:
    recorded = Recorded.of(finished(range(1, 28), ASHA(9)))
    same = simulate(ts.Study(SPACE, LOSS, recorded.sampler(), Full(9)), recorded, 3, trials=27)
    assert same.kinds["exact"] + same.kinds["continued"] == same.jobs == 27 and same.kinds["continued"] > 15
    other = simulate(ts.Study(SPACE, LOSS, ts.samplers.QMC(), ASHA(9)), recorded, 3, trials=27)
    assert other.kinds == {"neighbour": other.jobs}


def test_seconds_of_a_report_are_shared_by_its_steps() -> None:
    study = ts.Study(SPACE, LOSS, sampler=ts.samplers.Uniform(), scheduler=Full(4), trials=1)
    asked = study.ask()
    assert asked is not None
    study.tell(asked, {"loss": [4.0, 3.0, 2.0]}, seconds=6.0)
    study.tell(asked, {"loss": [1.0]}, seconds=1.0)
    assert Recorded.of(study).curves == (Curve(asked.config, {"loss": [4.0, 3.0, 2.0, 1.0]}, [2.0, 2.0, 2.0, 1.0], 0),)


def test_what_failed_fails_again_at_the_same_step() -> None:
    """The step in which it failed takes as long as the others did; a trial that failed at once takes no time."""
    study = queue([1.0, 2.0, 3.0], Full(4))
    jobs = study.ask(3)
    study.tell(jobs[0], {"loss": [3.0, 2.0]}, seconds=8.0)
    study.fail(jobs[0], "on purpose")
    study.fail(jobs[1], "on purpose")
    study.tell(jobs[2], {"loss": [4.0, 3.0, 2.0, 1.0]}, seconds=4.0)
    recorded = Recorded.of(study)
    again = ts.Study(SPACE, LOSS, recorded.sampler(), Full(4))
    found = simulate(again, recorded, trials=3)
    assert [(trial.status, trial.step) for trial in again.trials] == [("failed", 2), ("failed", 0), ("complete", 4)]
    assert found.seconds == 12.0 + 0.0 + 4.0 and found.kinds == {"exact": 3} and found.failed == 2


ENDS = {20.0: 2, 4.0: 4, 30.0: 5, 1.0: 7, 5.0: 8, 2.0: 99, 3.0: 6, 40.0: 99}  #: by x, when a training ends by itself


def ending(config: dict[str, Any]) -> Any:
    x = config["x"]
    for step in range(1, ENDS[x] + 1):
        yield {"loss": x / step}


def live(scheduler: Any) -> ts.Study:
    """These trainings, carried out."""
    study = queue(list(ENDS), scheduler)
    assert drive(study, Inline(as_task(ending), Options(("loss",), report_seconds=1e9, warm=99))) == "done"
    return study


@pytest.mark.parametrize(
    "scheduler", [Full(9), Full(6), ASHA(9), ASHA(9, stopping=True), Hyperband(9), Median(9, every=3, min_trials=1)]
)
def test_what_ended_by_itself_ends_again(scheduler: Any) -> None:
    """The simulation of any scheduler with recorded trainings that have ended is what it would have been."""
    recorded = Recorded.of(live(Full(9)))
    assert [len(curve.seconds) for curve in recorded.curves] == [min(end, 9) for end in ENDS.values()]
    assert [curve.ended for curve in recorded.curves] == [end < 9 for end in ENDS.values()]
    again = ts.Study(SPACE, LOSS, recorded.sampler(), scheduler, trials=len(ENDS))
    found = simulate(again, recorded)
    lived = live(scheduler)
    assert [(t.step, t.status, t.ended, t.values("loss")) for t in again.trials] == [
        (t.step, t.status, t.ended, t.values("loss")) for t in lived.trials
    ]
    assert again.best is not None and lived.best is not None and again.best.id == lived.best.id
    assert found.kinds == {"exact": found.jobs} and ts.replay(again) == []


def test_a_neighbour_that_ended_ends_too() -> None:
    ended, long = Curve({"x": 10.0}, {"loss": [5.0, 4.0]}, [1.0, 1.0], ended=True), flat({"x": 90.0}, 1.0, 6)
    recorded = Recorded(SPACE, [ended, long])
    assert recorded(job({"x": 12.0}, 0, 6)) == ({"loss": [5.0, 4.0]}, [1.0, 1.0], "neighbour", True)
    assert recorded(job({"x": 10.0}, 1, 6)) == ({"loss": [4.0]}, [1.0], "exact", True)
    assert recorded(job({"x": 10.0}, 0, 1)) == ({"loss": [5.0]}, [1.0], "exact", False)
    assert recorded(job({"x": 10.0}, 2, 6)) == ({"loss": []}, [], "exact", True)


def test_a_curve_that_goes_on_like_one_that_ended_ends_with_it() -> None:
    recorded = Recorded(
        SPACE, [flat({"x": 10.0}, 2.0, 2), Curve({"x": 20.0}, {"loss": [3.0, 2.0, 1.0]}, [1.0] * 3, ended=True)]
    )
    played = recorded(job({"x": 10.0}, 0, 6))
    assert (played.kind, played.ended, len(played.seconds)) == ("continued", True, 3)


def test_own_curves_may_end() -> None:
    """Also at once, where a job begins at the end: it costs its overhead alone."""

    def curves(job: ts.Job) -> Played:
        values = [job.config["x"] / step for step in steps(job) if step <= 3]
        return Played({"loss": values}, float(len(values)), ended=job.until > 3)

    study = queue([1.0, 2.0, 3.0], SuccessiveHalving(9, size=3, rounds=1))
    found = simulate(study, curves, overhead=0.5)
    assert [(trial.step, trial.ended) for trial in study.trials] == [(3, True), (1, False), (1, False)]
    assert found.seconds == 3 * 1.5 + 2.5 + 0.5 and found.outcome == "done" and found.best == 1.0 / 3
    study = queue([1.0, 2.0, 3.0], SuccessiveHalving(9, eta=3, min_steps=3, size=3, rounds=1))
    found = simulate(study, curves, overhead=0.5)
    assert [(trial.step, trial.ended, trial.status) for trial in study.trials] == [
        (3, True, "complete"), (3, False, "paused"), (3, False, "paused"),
    ]  # fmt: skip
    assert found.seconds == 3 * 3.5 + 0.5 and found.jobs == 4 and found.steps == 9
    assert ts.replay(study) == [] and study.trials[0].seconds == 4.0


@pytest.mark.parametrize("ended", [False, True])
def test_no_curve_is_longer_than_its_job(ended: bool) -> None:
    with pytest.raises(ValueError, match="trial 0 has 4 values for the 3 steps from 1 to 3"):
        simulate(queue([1.0], Full(3)), lambda job: Played({"loss": [1.0] * 4}, 1.0, ended=ended))


def test_what_was_added_has_no_curve() -> None:
    study = queue([1.0, 2.0], Full(1))
    study.add({"x": 5.0}, {"loss": 0.1})
    simulate(study, slow)
    assert [curve.config["x"] for curve in Recorded.of(study).curves] == [1.0, 2.0]


def test_a_study_with_seeds() -> None:
    study = ts.Study(SPACE, LOSS, ts.samplers.QMC(), Full(2, seeds=3), trials=12)
    simulate(study, lambda job: ({"loss": [job.seed % 97 / 97] * len(steps(job))}, 1.0))
    recorded = Recorded.of(study)
    again = ts.Study(SPACE, LOSS, recorded.sampler(), Full(2, seeds=3))
    assert simulate(again, recorded, 4, trials=99).kinds == {"exact": 12}
    assert [trial.last("loss") for trial in again.trials] == [trial.last("loss") for trial in study.trials]
    race = ts.Study(SPACE, LOSS, recorded.sampler(), Race(2, seeds=3))
    assert simulate(race, recorded, trials=8).trials == 8
    with pytest.raises(ts.TunesmithError, match="repeat 3 of its configuration"):
        simulate(ts.Study(SPACE, LOSS, recorded.sampler(), Full(2, seeds=4)), recorded, trials=12)


def test_studies_that_cannot_be_played() -> None:
    forked = ts.Study(SPACE, LOSS, sampler=ts.samplers.Uniform(), scheduler=PBT(population=4, ready=1, steps=6))
    simulate(forked, slow)
    with pytest.raises(ts.TunesmithError, match="has forks"):
        Recorded.of(forked)
    with pytest.raises(ts.TunesmithError, match=r"trial \d+ is a fork of trial \d+: .* a scheduler that does not fork"):
        simulate(
            ts.Study(SPACE, LOSS, sampler=ts.samplers.Uniform(), scheduler=PBT(population=4, ready=1, steps=4)),
            Recorded.of(finished()),
        )
    timeless = queue([1.0], Full(2))
    asked = timeless.ask()
    assert asked is not None
    timeless.tell(asked, {"loss": [2.0, 1.0]})
    with pytest.raises(ts.TunesmithError, match="does not know how long its steps took"):
        Recorded.of(timeless)
    gaps = queue([1.0], Full(5))
    asked = gaps.ask()
    assert asked is not None
    gaps.tell(asked, {"loss": 1.0}, seconds=5.0)
    with pytest.raises(ts.TunesmithError, match="trial 0 was told nothing for the steps 1 to 4"):
        Recorded.of(gaps)
    space = ts.Space({"x": ts.Float(0.0, 1.0), "share": Fidelity(0.1, 1.0)})
    with pytest.raises(ts.TunesmithError, match=r"the space has fidelities \(share\)"):
        Recorded(space, [flat({"x": 1.0, "share": 1.0}, 1.0, 1)])
    with pytest.raises(ts.TunesmithError, match="no trial of study 'study' has a curve"):
        Recorded.of(queue([1.0]))
