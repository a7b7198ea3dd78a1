"""Fidelities: parameters that the rung of a job decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith import Categorical, Fidelity, Float, Goal, Space, Study, replay, samplers, tune
from tunesmith.execution.base import current_job
from tunesmith.schedulers import ASHA, PBT, Full, Hyperband, SuccessiveHalving
from tunesmith.testing import GOAL, play
from tunesmith.trials import Checkpoint

SHARE = Fidelity(0.1, 1.0)
SPACE = Space({"x": Float(0.0, 1.0), "share": SHARE, "kind": "mlp"})


def jobs_of(study: Study) -> list[Any]:
    jobs = []
    while (job := study.ask()) is not None:
        jobs.append(job)
        study.tell(job, {"loss": job.config["x"] + 1 / job.config["share"]})
    return jobs


@pytest.mark.parametrize(
    ("fidelity", "values"),
    [
        (Fidelity(0.125, 1.0), [0.125, 0.25, 0.5, 1.0]),
        (Fidelity(8, 64), [8, 16, 32, 64]),
        (Fidelity(1, 4, log=False), [1, 2, 3, 4]),
        (Fidelity(8, 20), [8, 11, 15, 20]),
        (Fidelity(0.0, 0.3, log=False), [0.0, 0.1, 0.2, 0.3]),
    ],
)
def test_grows_from_rung_to_rung(fidelity: Fidelity, values: list[float]) -> None:
    found = [fidelity.at(position / 3) for position in range(4)]
    assert found == pytest.approx(values) and all(type(value) is type(values[0]) for value in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [((1.0, 1.0), "must be <"), ((0.0, 1.0), "low=0.0 must be > 0"), ((3, 2), "low=3 must be < high=2")],
)
def test_bad_bounds(options: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fidelity(*options)


def test_no_sampler_sees_it() -> None:
    assert [column.name for column in SPACE.columns] == ["x"]
    assert SPACE.decode([0.5]) == {"x": 0.5, "share": 1.0, "kind": "mlp"}
    low, high = {"x": 0.5, "share": 0.1, "kind": "mlp"}, {"x": 0.5, "kind": "mlp"}
    assert SPACE.key(low) == SPACE.key(high)
    with pytest.raises(ValueError, match=r"'share'=2.0: must be a number from 0.1 to 1.0"):
        SPACE.check({**low, "share": 2.0})
    assert Space.from_json(SPACE.to_json()) == SPACE
    rng = np.random.default_rng(0)
    assert SPACE.perturb(low, rng)["share"] == SPACE.jitter(low, rng, 0.1)["share"] == 0.1


def test_only_the_outermost_space_has_fidelities() -> None:
    with pytest.raises(ValueError, match="must stand in the outermost space"):
        Space({"a": Categorical({"b": Space({"share": SHARE})})})


def test_a_finite_space_is_counted_without_it() -> None:
    space = Space({"a": Categorical(["x", "y"]), "share": SHARE})
    assert space.size == 2 and list(space.configs()) == [{"a": "x", "share": 1.0}, {"a": "y", "share": 1.0}]


def test_the_rung_decides() -> None:
    study = Study(SPACE, Goal("loss"), samplers.QMC(), SuccessiveHalving(27, rounds=1))
    jobs = jobs_of(study)
    values = {job.until: job.config["share"] for job in jobs}
    assert values == pytest.approx({1: 0.1, 3: 0.1 * 10 ** (1 / 3), 9: 0.1 * 10 ** (2 / 3), 27: 1.0})
    assert all(job.start == 0 for job in jobs)  # trained anew at each rung
    assert jobs[0].fidelities == ("share",) and replay(study) == []
    assert study.best.config["share"] == 1.0 and study.best.step == 27


def test_weights_that_carry_over_go_on() -> None:
    space = Space({"x": Float(0.0, 1.0), "share": Fidelity(0.1, 1.0, carry=True)})
    study = Study(space, Goal("loss"), sampler=samplers.Uniform(), scheduler=ASHA(9), trials=12)
    assert {(job.start, job.until) for job in jobs_of(study)} == {(0, 1), (1, 3), (3, 9)} and replay(study) == []


@pytest.mark.parametrize("scheduler", [Full(3), PBT(population=3, ready=2, steps=4)])
def test_without_rungs_it_is_highest(scheduler: Any) -> None:
    study = Study(SPACE, Goal("loss"), sampler=samplers.Uniform(), scheduler=scheduler, trials=3)
    assert {job.config["share"] for job in jobs_of(study)} == {1.0}


def test_the_best_is_one_of_the_highest_fidelity() -> None:
    """Values on a tenth of the data may look better than on all of it."""
    study = Study(SPACE, Goal("loss"), sampler=samplers.Uniform(), scheduler=ASHA(9), trials=12)
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": job.config["x"] + 10 * job.config["share"]})
    assert study.best.config["share"] == 1.0 and study.best.last("loss") > min(t.last("loss") for t in study.trials)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_any_order_with_faults(seed: int, workers: int) -> None:
    """Jobs that are lost in a rung are asked again in that rung; replay is exact."""
    study = Study(SPACE, GOAL, sampler=samplers.Uniform(), scheduler=Hyperband(9, rounds=1), seed=seed)
    play(study, np.random.default_rng(seed), workers=workers, faults=0.3, jobs=200)
    assert not study.running and replay(study) == []
    for trial in study.trials:
        assert trial.config["share"] == pytest.approx(SHARE.at({1: 0, 3: 0.5, 9: 1}[trial.until]))


def test_a_job_does_not_start_from_a_checkpoint_of_another_fidelity() -> None:
    study = Study(SPACE, Goal("loss"), sampler=samplers.Uniform(), scheduler=SuccessiveHalving(3, size=3, rounds=1))
    for _ in range(3):
        job = study.ask()
        study.tell(job, {"loss": job.config["x"]}, checkpoint=Checkpoint(job.trial, 1, "place", "digest"))
    job = study.ask()
    assert (job.start, job.until, job.sources) == (0, 3, ())
    study.fail(job, "vanished", "lost")
    again = study.ask()
    assert (again.start, again.until, again.sources, again.config) == (0, 3, (), job.config)
    study.tell(again, {"loss": 0.1}, step=2, checkpoint=Checkpoint(job.trial, 2, "place", "digest"))
    study.fail(again, "vanished", "lost")
    assert study.ask().start == 2


def test_added_and_enqueued_configurations_need_not_name_it() -> None:
    study = Study(SPACE, Goal("loss"), sampler=samplers.Uniform(), scheduler=ASHA(9), trials=4)
    study.add({"x": 0.25, "kind": "mlp"}, {"loss": 0.5}, step=9)
    assert study.trials[0].config["share"] == 1.0
    assert study.enqueue({"x": 0.75, "kind": "mlp"})
    job = study.ask()
    assert (job.config["x"], job.config["share"]) == (0.75, 0.1)
    study.tell(job, {"loss": 1.0})
    assert study.ask().config["x"] != 0.75


@pytest.mark.parametrize("carry", [False, True])
def test_a_function_is_called_once_a_rung(carry: bool) -> None:
    """It has no weights that could carry over, and has not come to its end before the last rung."""
    space = Space({"x": Float(0.0, 1.0), "share": Fidelity(0.1, 1.0, carry=carry)})
    calls: list[tuple[int, float]] = []

    def train(config: dict[str, Any]) -> float:
        calls.append((current_job().until, config["share"]))
        return (config["x"] - 0.3) ** 2 + 0.01 / config["share"]

    study = tune(train, space, minimise="loss", scheduler=ASHA(9), trials=9)
    asked = [event for event in study.events() if type(event).__name__ == "Asked"]
    assert len(calls) == len(asked) and {until for until, _ in calls} == {1, 3, 9}
    assert study.best.values("loss")[0][-1:] == [9] and replay(study) == []
    assert not any(trial.ended for trial in study.trials)
    assert {trial.step for trial in study.trials if trial.status == "paused"} == {1, 3}


def test_a_function_is_one_step_where_nothing_says_how_long_a_trial_is() -> None:
    study = tune(lambda config: config["x"] * config["share"], SPACE, minimise="loss", trials=3)
    assert [(trial.status, trial.step, trial.config["share"]) for trial in study.trials] == [("complete", 1, 1.0)] * 3


def test_training_begins_anew_or_goes_on(tmp_path: Path) -> None:
    """A generator under worker processes' checkpoints: with ``carry`` it gets its state, without it begins anew."""
    for carry in (False, True):
        space = Space({"x": Float(0.0, 1.0), "share": Fidelity(0.25, 1.0, carry=carry)})
        seen: list[tuple[int, int, float]] = []

        def train(config: dict[str, Any], state: Any = None) -> Any:
            step = 0 if state is None else state["step"]
            seen.append((current_job().until, step, config["share"]))  # noqa: B023
            while True:
                step += 1
                yield config["x"] + 1 / step, {"step": step}

        tune(train, space, minimise="loss", scheduler=SuccessiveHalving(9, rounds=1), checkpoints=tmp_path / str(carry))
        begun = {(until, step) for until, step, _ in seen}
        assert begun <= ({(1, 0), (3, 1), (9, 3)} if carry else {(1, 0), (3, 0), (9, 0)})
        assert {until for until, _ in begun} >= {1, 3}
