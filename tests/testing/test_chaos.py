"""Studies that are broken in every way; and the checks of what becomes of them see what is wrong.

``TUNESMITH_CHAOS_SCHEDULES=20 pytest tests/testing`` has so many schedules for each kind of fault.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tunesmith import Study
from tunesmith.checkpoints import CheckpointError, Checkpoints
from tunesmith.testing import _victim, chaos
from tunesmith.testing.chaos import BrokenError, Fault, Scene, Schedule

STATES = "study.db.checkpoints/study"
SCHEDULES = int(os.environ.get("TUNESMITH_CHAOS_SCHEDULES", "1"))


@pytest.mark.parametrize("number", range(SCHEDULES))
@pytest.mark.parametrize("fault", chaos.FAULTS)
def test_every_kind_of_fault(fault: str, number: int, tmp_path: Path) -> None:
    schedule = chaos.draw(10 + chaos.FAULTS.index(fault), number, [fault])
    assert fault in [one.kind for one in schedule.faults]
    chaos.carry_out(schedule, tmp_path)


@pytest.mark.parametrize("task", ["command", "vectorised"])
def test_commands_and_vectorised_populations(task: str, tmp_path: Path) -> None:
    plan = _victim.Plan(task, "synchronous PBT", "QMC", "two", 5, 1 if task == "vectorised" else 2, "3 steps", 0)
    faults = (Fault("kill all", 12, 0.02), Fault("second driver", 8, 0.0), Fault("kill", 10, 0.01))
    done = chaos.carry_out(Schedule(0, 0, plan, faults), tmp_path)
    assert done["kill all"] == done["second driver"] == 1


@pytest.mark.parametrize("task", sorted(_victim.FORGETFUL))
def test_code_that_saves_nothing(task: str, tmp_path: Path) -> None:
    plan = _victim.Plan(task, "Hyperband", "QMC", "two", 5, 2, "3 steps", 0)
    faults = (Fault("kill all", 12, 0.02), Fault("second driver", 8, 0.0), Fault("kill", 10, 0.01))
    done = chaos.carry_out(Schedule(0, 0, plan, faults), tmp_path)
    assert done["kill all"] == done["second driver"] == 1


def test_code_that_saves_nothing_is_not_drawn_with_schedulers_that_copy() -> None:
    drawn = [chaos.draw(0, number).plan for number in range(300)]
    assert {plan.task for plan in drawn} >= _victim.FORGETFUL
    assert not [plan for plan in drawn if plan.task in _victim.FORGETFUL and plan.scheduler in _victim.COPYING]
    copying = {name for name, (make, _) in _victim.SCHEDULERS.items() if make().members is not None or name == "Chain"}
    assert copying == _victim.COPYING


# -- the checks see what is wrong ---------------------------------------------------------------------------------

PLAN = _victim.Plan("generator", "synchronous PBT", "Uniform", "one", 1, 1, "3 steps", 0, nap=0.0)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was driven to its end."""
    scene = Scene(tmp_path_factory.mktemp("chaos") / "study", PLAN)
    driver = scene.start()
    assert driver.communicate() == ('{"outcome": "done"}\n', "") and driver.returncode == 0
    chaos.check(scene)
    return scene.folder


@pytest.fixture
def scene(done: Path, tmp_path: Path) -> Scene:
    copy = Scene(tmp_path / "study", PLAN)
    shutil.copytree(done, copy.folder, dirs_exist_ok=True)
    return copy


def execute(scene: Scene, statement: str, *values: object) -> None:
    connection = sqlite3.connect(scene.store)
    assert connection.execute(statement, values).rowcount == 1
    connection.commit()
    connection.close()


def change(scene: Scene, kind: str, old: str, new: str) -> None:
    """Replace something in the first event of a kind that has it."""
    connection = sqlite3.connect(scene.store)
    rows = connection.execute("SELECT number, body FROM events ORDER BY number").fetchall()
    connection.close()
    bodies = ((number, bytes(body).decode()) for number, body in rows)
    number, body = next(
        (number, body) for number, body in bodies if body.startswith(f'{{"event":"{kind}"') and old in body
    )
    execute(scene, "UPDATE events SET body = ? WHERE number = ?", body.replace(old, new, 1).encode(), number)


def test_what_is_right_passes(scene: Scene) -> None:
    study = chaos.check(scene)
    assert chaos.essence(study) == chaos.calmly(PLAN) and len(study.trials) >= 4


def test_an_event_that_is_missing(scene: Scene) -> None:
    execute(scene, "DELETE FROM events WHERE number = 9")
    with pytest.raises(BrokenError, match="events are missing"):
        chaos.check(scene)


def test_a_value_of_other_weights(scene: Scene) -> None:
    change(scene, "told", '"x":[', '"x":[1')  # another digit before the first value
    with pytest.raises(BrokenError, match=r"where .* is right"):
        chaos.check(scene)


def test_steps_that_are_told_twice(scene: Scene) -> None:
    change(scene, "told", '"start":4', '"start":3')
    with pytest.raises(BrokenError, match="goes on at 3, not 4"):
        chaos.check(scene)


def test_a_trial_that_was_lost(scene: Scene) -> None:
    execute(scene, "DELETE FROM events WHERE number = (SELECT max(number) FROM events)")
    with pytest.raises(BrokenError, match="jobs are out in the end"):
        chaos.check(scene)


def test_a_decision_that_does_not_follow(scene: Scene) -> None:
    change(scene, "asked", '"replaces":', '"worker":"another","replaces":')
    chaos.check(scene)  # who did it is of no importance
    connection = sqlite3.connect(scene.store)
    (seed,) = connection.execute("SELECT instr(body, '\"seed\":1') FROM events WHERE number = 1").fetchone()
    connection.close()
    assert seed
    change(scene, "opened", '"seed":1', '"seed":2')
    with pytest.raises(BrokenError, match="replay differs"):
        chaos.check(scene)


def test_work_that_was_done_twice(scene: Scene) -> None:
    with (scene.folder / "journal").open("a") as journal:
        journal.write(f"{0:5d} {1:5d}\n")
    with pytest.raises(BrokenError, match="step 1 was trained 2 times, 1 were needed"):
        chaos.check(scene)


def test_states_that_are_gone(scene: Scene) -> None:
    shutil.rmtree(scene.folder / STATES)
    with pytest.raises(CheckpointError, match="is missing"):
        chaos.check(scene)


def test_a_state_that_is_wrong(scene: Scene) -> None:
    checkpoints = Checkpoints(scene.folder / STATES)
    with Study.open(scene.store) as study:
        best = study.best
        assert best is not None
        before = best.checkpoints[-1]
    after = checkpoints.save(before.trial, before.step, {"x": 0, "step": before.step})
    change(scene, "checkpointed", before.digest, after.digest)
    with pytest.raises(BrokenError, match=rf"{best.id}: the state of step {before.step} has 0, where \d+ is right"):
        chaos.check(scene)


@pytest.mark.parametrize(
    "name", ["tmp/tunesmith-x-1-y", "study.db.leases", "study.db.checkpoints/study/0/.tmp-a-1-2-3"]
)
def test_leftovers(name: str, scene: Scene) -> None:
    (scene.folder / name).mkdir(parents=True)
    with pytest.raises(BrokenError, match="are left"):
        chaos.check(scene)


def test_orphans(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"], env=os.environ | {_victim.FOLDER: str(scene.folder)}) as orphan:
        scene.wait(scene.processes, "it is seen")
        assert scene.processes() == scene.others() == [orphan.pid]
        monkeypatch.setattr(chaos, "PATIENCE", 0.2)
        with pytest.raises(BrokenError, match="processes are left"):
            chaos.check(scene)
        scene.end()


# -- drawing, and the command line --------------------------------------------------------------------------------


def test_schedules_follow_from_the_seed() -> None:
    drawn = [chaos.draw(3, number) for number in range(300)]
    assert drawn == [chaos.draw(3, number) for number in range(300)]
    assert {fault.kind for schedule in drawn for fault in schedule.faults} == set(chaos._faults())
    assert {schedule.plan.task for schedule in drawn} == set(chaos._tasks())
    assert {schedule.plan.scheduler for schedule in drawn} == set(_victim.SCHEDULERS)
    assert {schedule.plan.sampler for schedule in drawn} == set(_victim.SAMPLERS)
    only = [chaos.draw(3, number, ["command", "kill", "ASHA"]) for number in range(20)]
    assert {(schedule.plan.task, schedule.plan.scheduler) for schedule in only} == {("command", "ASHA")}
    assert all(schedule.faults[0].kind == "kill" for schedule in only)


def test_a_failure_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(schedule: Schedule, folder: Path) -> Counter[str]:
        chaos.hold(schedule.number < 3, "something is wrong")
        return Counter(kill=1)

    monkeypatch.setattr(chaos, "carry_out", broken)
    assert chaos.main(["--schedules", "5", "--seed", "7", "--only", "kill"]) == 1
    out = capsys.readouterr().out
    assert "schedule 3 of seed 7 has failed: something is wrong" in out
    assert out.rstrip().endswith("again: python -m tunesmith.testing.chaos --seed 7 --schedule 3 --only 'kill'")
    shutil.rmtree(Path(out.split("what its drivers wrote: ")[1].split("\n")[0]).parent)
    assert chaos.main(["--seed", "7", "--schedule", "2"]) == 0
    assert "1 schedules with 1 faults (kill 1) held" in capsys.readouterr().out


def test_it_needs_no_extra() -> None:
    code = "import sys; sys.modules |= dict.fromkeys(['pytest', 'hypothesis', 'psutil', 'jax', 'typer']); "
    code += "from tunesmith.testing import chaos; sys.exit(chaos.main(['--help']))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(option in shown for option in ("--schedules", "--seed", "--only", "kill worker"))
