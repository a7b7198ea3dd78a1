"""Goals and constraints that are measured once a trial: who asks for them, and who fills them in."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tunesmith as ts
from tunesmith import Constraint, Float, Goal, Space, Study, replay, samplers
from tunesmith.execution import Command, current_job, run
from tunesmith.records import Opened, Told, decode, encode
from tunesmith.schedulers import PBT, Full, Median
from tunesmith.storage import MemoryStore
from tunesmith.testing.executors import counting
from tunesmith.trials import Checkpoint

SPACE = Space({"x": Float(0.0, 1.0)})
LOSS, LATENCY = Goal("loss"), Goal("latency", once=True)
STEPS = 4


def made(**more: Any) -> Study:
    return Study(
        SPACE, [LOSS, LATENCY], sampler=samplers.Uniform(), scheduler=more.pop("scheduler", Full(STEPS)), **more
    )


def latencies(study: Study, trial: int = 0) -> list[float]:
    return study.trials[trial].values("latency")[1]


# -- the log -----------------------------------------------------------------------------------------------------


def test_goals_that_are_not_measured_once_are_written_as_ever() -> None:
    written = [json.loads(msgspec.json.encode(rule)) for rule in (LOSS, Goal("a", True), Constraint("m", 1.0))]
    assert written == [
        {"metric": "loss", "maximise": False},
        {"metric": "a", "maximise": True},
        {"metric": "m", "at_most": 1.0},
    ]


def test_the_definition_is_read_back_and_by_older_versions_too() -> None:
    study = made(constraints=Constraint("memory", 2.0, once=True))
    (opened,) = decode([encode(study.definition)])
    assert isinstance(opened, Opened)
    assert opened.goals == (LOSS, LATENCY) and opened.constraints == (Constraint("memory", 2.0, once=True),)

    class OldGoal(msgspec.Struct, frozen=True):
        metric: str
        maximise: bool = False

    old = msgspec.json.decode(encode(opened), type=msgspec.defstruct("Old", [("goals", tuple[OldGoal, ...])]))
    assert old.goals == (OldGoal("loss"), OldGoal("latency"))  # type: ignore[attr-defined]


def test_once_is_part_of_the_definition(tmp_path: Path) -> None:
    made(store=tmp_path / "study.db").close()
    with pytest.raises(ts.TunesmithError, match=r"goals is .*once=True.*, given is"):
        Study(
            SPACE,
            [LOSS, Goal("latency")],
            sampler=samplers.Uniform(),
            scheduler=Full(STEPS),
            store=tmp_path / "study.db",
        )
    with pytest.raises(TypeError, match="once='yes' must be True or False"):
        Study(SPACE, Goal("loss", once="yes"))  # type: ignore[arg-type]


# -- tell --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [{}, {"latency": None}, {"latency": math.nan}, {"latency": [None, None]}])
def test_later_reports_may_leave_it_out(missing: dict[str, Any]) -> None:
    study = made(trials=1)
    job = study.ask()
    assert job.once == {"latency": None}
    study.tell(job, {"loss": 3.0, "latency": 0.25}, step=1)
    study.tell(job, {"loss": 2.0}, step=2)
    several = any(isinstance(value, list) for value in missing.values())
    for step in (4,) if several else (3, 4):
        study.tell(job, {"loss": [1.0, 0.5] if several else 1.0} | missing, step=step)
    assert latencies(study) == [0.25] * 4
    told = [event for event in study.events() if isinstance(event, Told)]
    assert all(None not in event.metrics["latency"] for event in told)  # the log is complete, for all who read it
    assert study.losses(study.trials[0])[1] == 0.25 and study.front == [study.trials[0]]


def test_a_list_has_it_in_its_first_step_at_least() -> None:
    study = made(trials=2)
    study.tell(study.ask(), {"loss": [4.0, 3, 2, 1], "latency": [0.25, None, 0.5, math.nan]})
    assert latencies(study) == [0.25, 0.25, 0.5, 0.5]
    study.tell(study.ask(), {"loss": [4.0, 3, 2, 1], "latency": [None, 0.25, 0.25, 0.25]})
    assert study.trials[1].error == "latency is not finite at step 1"


@pytest.mark.parametrize("metrics", [{"loss": 1.0}, {"loss": 1.0, "latency": None}])
def test_the_first_report_must_have_it(metrics: dict[str, Any]) -> None:
    study = made()
    with pytest.raises(ValueError, match="metrics lack 'latency'"):
        study.tell(study.ask(), metrics)
    with pytest.raises(ValueError, match="metrics lack 'latency'"):
        study.add({"x": 0.5}, metrics)


def test_a_new_value_holds_from_there_on() -> None:
    study = made(trials=1)
    job = study.ask()
    for step, metrics in enumerate([{"latency": 0.25}, {}, {"latency": 0.5}, {}], 1):
        study.tell(job, {"loss": 1.0, **metrics}, step=step)
    assert latencies(study) == [0.25, 0.25, 0.5, 0.5]


def test_within_a_transaction() -> None:
    study = made(trials=2)
    jobs = study.ask(2)
    with study.batch():
        for step in range(1, 5):
            for job in jobs:
                study.tell(job, {"loss": 1.0} | ({"latency": 1.0 + job.trial} if step == 1 else {}), step=step)
    assert latencies(study, 0) == [1.0] * 4 and latencies(study, 1) == [2.0] * 4


def test_other_metrics_are_asked_for_as_ever() -> None:
    study = made()
    job = study.ask()
    study.tell(job, {"loss": 1.0, "latency": 1.0}, step=1)
    with pytest.raises(ValueError, match="metrics lack 'loss'"):
        study.tell(job, {"latency": 1.0}, step=2)
    with pytest.raises(TypeError, match=r"'loss': .*None.* is not a number"):
        study.tell(job, {"loss": None}, step=2)


def test_a_constraint_that_is_measured_once() -> None:
    study = Study(
        SPACE,
        LOSS,
        sampler=samplers.Uniform(),
        scheduler=Median(4, min_trials=50),
        trials=2,
        constraints=Constraint("ms", 10, once=True),
    )
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": 1.0 + job.trial} | ({"ms": 20.0 - 15 * job.trial} if job.start == 0 else {}))
    assert [trial.values("ms")[1] for trial in study.trials] == [[20.0] * 4, [5.0] * 4]
    assert study.best is study.trials[1]
    assert replay(study) == []


# -- jobs that know whether to measure ---------------------------------------------------------------------------


def test_resumed_trials_know_it_and_forks_measure_anew() -> None:
    pbt = PBT(population=2, ready=1, steps=4)
    study = Study(
        SPACE, LOSS, sampler=samplers.Uniform(), scheduler=pbt, constraints=Constraint("latency", 9.0, once=True)
    )
    measured: list[int] = []
    while (job := study.ask()) is not None:
        new = {}
        if job.once["latency"] is None:
            measured.append(job.trial)
            new = {"latency": 1.0 + job.trial}
        study.tell(job, {"loss": float(job.trial), **new}, checkpoint=Checkpoint(job.trial, job.until, "w", "d"))
    assert measured == [trial.id for trial in study.trials]
    assert any(trial.parent is not None for trial in study.trials)
    assert all(set(latencies(study, trial.id)) == {1.0 + trial.id} for trial in study.trials)
    assert replay(study) == []


def test_a_trial_that_begins_again_measures_again_and_one_that_goes_on_does_not(tmp_path: Path) -> None:
    with made(trials=1, store=tmp_path / "study.db") as study:
        job = study.ask()
        study.tell(job, {"loss": 4.0, "latency": 0.25}, step=1)
        study.fail(job, "vanished", "lost")
        job = study.ask()
        assert (job.start, job.once) == (0, {"latency": None})
        study.tell(job, {"loss": 4.0, "latency": 0.5}, step=1)
        study.tell(job, {"loss": 3.0}, step=2, checkpoint=Checkpoint(0, 2, "where", "digest"))
        study.tell(job, {"loss": 2.0}, step=3)
        study.fail(job, "vanished", "lost")
    with Study.open(tmp_path / "study.db", trials=1) as study:
        job = study.ask()
        assert (job.start, job.once) == (2, {"latency": 0.5})
        study.tell(job, {"loss": [2.0, 1.0]})
        assert latencies(study) == [0.5] * 4 and replay(study) == []


# -- training code -----------------------------------------------------------------------------------------------

measured: list[int] = []


def train(config: dict[str, float], state: Any = None) -> Any:
    """Measures where the job asks for it, and yields nothing but the loss later."""
    step = 0 if state is None else state["step"]
    job = current_job()
    once = {}
    if job.once["latency"] is None:
        measured.append(job.trial)
        once = {"latency": config["x"]}
    while True:
        step += 1
        yield ({"loss": config["x"] / step, **once} if once else config["x"] / step), {"step": step}
        once = {}


class Model:
    """A class: the new instance that goes on from a checkpoint knows from its job that all is measured."""

    def setup(self, config: dict[str, float]) -> None:
        self.steps, self.config = 0, config
        self.measure = current_job().once["latency"] is None

    def step(self) -> dict[str, float | None]:
        self.steps += 1
        latency = self.config["x"] if self.measure else None
        if self.measure:
            measured.append(current_job().trial)
        self.measure = False
        return {"loss": self.config["x"] / self.steps, "latency": latency}

    def save(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load(self, tree: dict[str, int]) -> None:
        self.steps = tree["steps"]


@pytest.mark.parametrize("code", [train, Model])
def test_training_code_measures_once_a_trial(code: Any) -> None:
    measured.clear()
    rule, pbt = Median(10, every=2, min_trials=2), PBT(population=5, ready=2, steps=10)
    study = ts.tune(code, SPACE, goals=[LOSS, LATENCY], scheduler=rule, trials=8)
    assert measured == list(range(8))
    assert all(latencies(study, trial.id) == [trial.config["x"]] * trial.step for trial in study.trials)
    measured.clear()
    study = ts.tune(code, SPACE, goals=LOSS, constraints=[Constraint("latency", 1.0, once=True)], scheduler=pbt)
    assert sorted(measured) == [trial.id for trial in study.trials] and len(study.trials) > 5


def test_a_later_run_does_not_measure_again(tmp_path: Path) -> None:
    measured.clear()
    store = tmp_path / "study.db"
    study = made(scheduler=Median(6), trials=1, store=store)
    assert run(study, train, target=1 / 3, progress=False) == "target"
    study.close()
    assert 1 <= study.trials[0].step < 6
    study = Study.open(store, trials=1)
    assert run(study, train, progress=False) == "done"
    assert latencies(study) == [study.trials[0].config["x"]] * 6 and measured == [0]
    study.close()


@pytest.mark.parametrize("later", [None, math.nan, math.inf])
def test_a_later_value_that_is_none_is_passed_over(later: float | None) -> None:
    def train(config: dict[str, float]) -> Any:
        yield {"loss": 2.0, "latency": 0.25}
        while True:
            yield {"loss": 1.0, "latency": later}

    study = ts.tune(train, SPACE, goals=[LOSS, LATENCY], steps=4, trials=1)
    assert study.trials[0].status == "complete" and latencies(study) == [0.25] * 4


def test_training_code_that_never_measures_is_told_so() -> None:
    with pytest.raises(ts.TunesmithError, match="the metric 'latency', a goal or constraint of the study, is missing"):
        ts.tune(counting, {"lr": Float(0.0, 1.0)}, goals=[Goal("score"), LATENCY], trials=20)


def test_a_command_is_told(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import json, os, pathlib\n"
        "once = json.loads(os.environ['TUNESMITH_ONCE'])\n"
        "pathlib.Path(os.environ['TUNESMITH_SAVE'], 'state').touch()\n"
        "for step in range(int(os.environ['TUNESMITH_START']), int(os.environ['TUNESMITH_UNTIL'])):\n"
        "    first = {'latency': 0.25} if step == 0 and once['latency'] is None else {}\n"
        "    print(json.dumps({'loss': 1 / (step + 1), 'known': once['latency'] or 0.0, **first}), flush=True)\n"
    )
    command = Command([sys.executable, str(script)])
    study = ts.tune(command, SPACE, goals=[LOSS, LATENCY], scheduler=Median(4, every=2), trials=1)
    assert latencies(study) == [0.25] * 4
    assert study.trials[0].values("known")[1] == [0.0, 0.0, 0.25, 0.25]


def test_an_old_log_goes_on() -> None:
    """A study whose goals say nothing of it demands every metric in every report."""
    store = MemoryStore()
    store.append(decode([encode(Study(SPACE, [LOSS, Goal("latency")]).definition)]))
    study = Study.open(store)
    job = study.ask()
    assert job.once == {}
    with pytest.raises(ValueError, match="metrics lack 'latency'"):
        study.tell(job, {"loss": 1.0})
