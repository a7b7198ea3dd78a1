"""``kill -9`` of workers, of drivers and of all, over and over: the study goes on and its log is right, bit by bit.

The number of kills is ``TUNESMITH_KILLS``, for instance ``TUNESMITH_KILLS=100 pytest tests/kills -s``.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import victim

import tunesmith as ts
from tunesmith.execution import Checkpoints
from tunesmith.records import Asked, Failed, Limited, Told
from tunesmith.trials import MAX_CRASHES, Trials

KILLS = int(os.environ.get("TUNESMITH_KILLS", "12"))
PATIENCE = 3600.0  # seconds until something is taken for hanging


class Scene:
    """One study, and the processes that work on it."""

    def __init__(self, folder: Path, kind: str, workers: int = 2) -> None:
        self.folder, self.kind, self.workers = folder, kind, workers
        self.store = folder / "study.db"
        self.journal = folder / "journal"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.environment = os.environ | {
            "VICTIM_JOURNAL": str(self.journal), "TMPDIR": str(self.temporary),
        }  # fmt: skip
        self.drivers = 0

    def drive(self) -> subprocess.Popen[str]:
        """Start a driver in a process of its own."""
        self.drivers += 1
        command = [sys.executable, victim.__file__, str(self.store), self.kind, str(self.workers)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def processes(self) -> list[psutil.Process]:
        """All processes of this study that are alive: they have inherited the name of its journal."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("VICTIM_JOURNAL") == str(self.journal):
                    found.append(process)
            except psutil.Error:  # of someone else, or just ended
                continue
        return [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]

    def writing(self, states: Path) -> list[psutil.Process]:
        """Those that are in the middle of a slow checkpoint."""
        pids = {int(path.parent.name.split("-")[2]) for path in states.glob("*/*/.tmp-*/part-3")}
        return [process for process in (self.processes() if pids else ()) if process.pid in pids]

    def wait_for_silence(self) -> None:
        """Whoever belonged to a driver that is dead ends by itself."""
        until = time.monotonic() + PATIENCE
        while left := self.processes():
            assert time.monotonic() < until, f"orphans: {left}"
            time.sleep(0.02)

    def finish(self) -> None:
        """Drive the study to its end, without a kill."""
        driver = self.drive()
        out, err = driver.communicate(timeout=PATIENCE)
        assert (driver.returncode, out, err) == (0, "", "")

    def kill_one(self, driver: subprocess.Popen[str], how: str) -> bool:
        """Kill a worker, the driver, or all of them. False: it is not there (any more)."""
        if how == "driver":
            driver.kill()
            return True
        victims = [process for process in self.processes() if how == "all" or process.pid != driver.pid]
        for process in victims if how == "all" else victims[:1]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                return False
        return bool(victims)


def kill_until_done(scene: Scene, kills: int, rng: random.Random) -> Counter[str]:
    """Up to ``kills`` kills at random moments of one study, each dead driver followed by another one, to its end."""
    done: Counter[str] = Counter()
    driver = scene.drive()
    while sum(done.values()) < kills:
        time.sleep(rng.uniform(0.0, 1.2))
        if driver.poll() is not None:
            break
        how = rng.choice(["worker", "driver", "all"])
        done[how] += scene.kill_one(driver, how)
        if how != "worker":
            out, err = driver.communicate(timeout=PATIENCE)
            assert (out, err) == ("", "")
            assert driver.returncode in (-signal.SIGKILL, 0)
            scene.wait_for_silence()
            driver = scene.drive()
    out, err = driver.communicate(timeout=PATIENCE)
    assert (driver.returncode, out, err) == (0, "", "")
    return done


# -- what must hold of a study that is done ---------------------------------------------------------------------------


def check(scene: Scene) -> ts.Study:
    """Everything that must hold in the end, whoever was killed."""
    study = ts.Study.open(scene.store)
    check_log(scene.store, study)
    check_jobs(study)
    check_budget(scene.kind, study)
    check_values(study)
    check_work(scene, study)
    assert ts.replay(study) == []
    kept = study.keep()
    study.close()
    check_leftovers(scene, kept)
    return study


def check_log(store: Path, study: ts.Study) -> None:
    """The file is sound, the events are numbered without gaps, and so are the asks."""
    connection = sqlite3.connect(store)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    numbers = [number for (number,) in connection.execute("SELECT number FROM events ORDER BY number")]
    connection.close()
    events = study.events()
    assert numbers == list(range(1, len(events) + 1))
    asked = [event for event in events if type(event) is Asked]
    assert [event.ask for event in asked] == list(range(len(asked)))
    assert all(event.seen < number for number, event in enumerate(events, 1) if type(event) is Asked)


def check_jobs(study: ts.Study) -> None:
    """Every job came to exactly one end; no trial is lost, none fails but for having killed its workers."""
    trials, ended, crashes = Trials(), Counter[tuple[int, int]](), Counter[int]()
    for event in study.events()[1:]:
        if isinstance(event, Limited):
            continue
        was = None if event.trial == len(trials) else trials[event.trial].status
        trials.fold(event)
        trial = trials[event.trial]
        ended[trial.id, trial.until] += was == "running" and trial.status == "complete"
        crashes[trial.id] += type(event) is Failed and event.kind == "crashed"
    wanted = {(e.trial, e.until) for e in study.events() if type(e) is Asked and "retry" not in e.tags}
    failed = {trial.id for trial in trials if trial.status == "failed"}
    assert {trial.status for trial in trials} <= {"complete", "failed"}
    assert {job for job, count in ended.items() if count == 1} >= {job for job in wanted if job[0] not in failed}
    assert set(ended.values()) <= {0, 1}
    assert all(crashes[trial] >= MAX_CRASHES and trials[trial].error for trial in failed)


def check_budget(kind: str, study: ts.Study) -> None:
    """As many trials were started as without a kill, and the members were trained for all their steps."""
    begun = [trial for trial in study.trials if trial.parent is None]
    if kind == "full":
        assert len(study.trials) == len(begun) == victim.TRIALS
        assert {trial.step for trial in study.trials if trial.status == "complete"} == {30}
        return
    scheduler, _ = victim.KINDS[kind]
    replaced = {trial.replaces for trial in study.trials}
    members = [trial for trial in study.trials if trial.id not in replaced and trial.status == "complete"]
    assert {trial.step for trial in members} == {scheduler.steps}
    failed = study.trials.failed  # only by a worker that was killed MAX_CRASHES times under one job
    assert scheduler.population - failed <= len(members) <= scheduler.population
    assert scheduler.population <= len(begun) <= scheduler.population + failed


def check_values(study: ts.Study) -> None:
    """Every value of every trial is what its configuration and its ancestors' make of it."""
    state: dict[tuple[int, int], float] = {}  # by trial and step
    for trial in study.trials:
        x = state[trial.parent, trial.start] if trial.parent is not None else 0.0
        steps, values = trial.values("x")
        assert steps == trial.values("count")[1] == list(range(trial.start + 1, trial.step + 1))
        for step, value in zip(steps, values, strict=True):
            state[trial.id, step] = x = victim.mixed(x, trial.config, step)
            assert value == x


def check_work(scene: Scene, study: ts.Study) -> None:
    """A step was trained once, and once more at most for each time that its job was given up."""
    trained = Counter(tuple(map(int, line.split())) for line in scene.journal.read_text().splitlines())
    given_up = Counter(event.trial for event in study.events() if type(event) is Failed)
    for trial in study.trials:
        for step in range(trial.start + 1, trial.step + 1):
            assert 1 <= trained[trial.id, step] <= 1 + given_up[trial.id]


def check_leftovers(scene: Scene, keep: set[tuple[int, int]]) -> None:
    """No process, no lease, no temporary file; every checkpoint that is to be kept, and few besides."""
    assert scene.processes() == []
    assert list(scene.temporary.iterdir()) == []
    assert sorted(path.name for path in scene.folder.iterdir()) == [
        "journal",
        "study.db",
        "study.db.checkpoints",
        "tmp",
    ]
    found = Checkpoints(scene.folder / "study.db.checkpoints" / "study").files()
    assert keep <= set(found)
    assert len(found) <= 2 * len(keep) + 64 + scene.workers


# -- the tests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [("population", "generations"), ("full",)], ids=["populations", "full"])
def test_kills_at_random_moments(kinds, tmp_path):
    rng = random.Random(f"kills {kinds}")
    total: Counter[str] = Counter()
    began, number, wanted = time.monotonic(), 0, (KILLS + 1) // 2
    while sum(total.values()) < wanted:
        scene = Scene(tmp_path / str(number), kinds[number % len(kinds)])
        killed = kill_until_done(scene, wanted - sum(total.values()), rng)
        study = check(scene)
        total += killed
        number += 1
        events = study.events()
        asked = [event for event in events if type(event) is Asked]
        print(
            f"{scene.kind}: {dict(killed)} killed, {scene.drivers} drivers, {len(study.trials)} trials, "
            f"{len(asked)} jobs of which {sum('retry' in e.tags for e in asked)} again, "
            f"{sum(type(e) is Told for e in events)} reports, {time.monotonic() - began:.1f} s"
        )


def test_two_drivers_of_which_one_is_killed(tmp_path):
    scene = Scene(tmp_path, "population", workers=1)
    rng = random.Random("two drivers")
    drivers = [scene.drive(), scene.drive()]
    for _ in range(max(2, KILLS // 6)):
        time.sleep(rng.uniform(0.5, 1.5))
        victims = drivers.pop(rng.randrange(2))
        victims.kill()
        drivers.append(scene.drive())
        assert victims.communicate(timeout=PATIENCE) == ("", "")
    for driver in drivers:
        out, err = driver.communicate(timeout=PATIENCE)
        assert (driver.returncode, out, err) == (0, "", "")
    study = check(scene)
    assert len({event.worker for event in study.events() if type(event) is Asked}) >= 2


@pytest.mark.parametrize("how", ["worker", "driver", "all"])
def test_kills_while_a_checkpoint_is_written(how, tmp_path):
    scene = Scene(tmp_path, "slow saves")
    states = tmp_path / "study.db.checkpoints"
    for _ in range(max(2, KILLS // 6)):
        driver = scene.drive()
        until = time.monotonic() + PATIENCE
        while not (writing := scene.writing(states)) and driver.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)
        if how == "worker":
            for process in writing[:1]:
                process.kill()
        elif writing:
            scene.kill_one(driver, how)
        driver.communicate(timeout=PATIENCE)
        scene.wait_for_silence()
    scene.finish()
    check(scene)
    assert how == "worker" or list(states.glob("*/*/.tmp-*")) == []  # the next driver has removed them


FORKING = """
import os, sys, time
import tunesmith as ts
def train(config):
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    print("training", flush=True)
    time.sleep(600)
ts.tune(train, {"a": ts.Float(0, 1)}, minimise="a", trials=1, store=sys.argv[1])
"""


def test_a_child_that_was_forked_does_not_keep_the_lease_of_its_dead_parent(tmp_path):
    store = tmp_path / "study.db"
    with subprocess.Popen([sys.executable, "-c", FORKING, str(store)], stdout=subprocess.PIPE, text=True) as driver:
        driver.stdout.readline()
        [child] = psutil.Process(driver.pid).children()
        driver.kill()
        driver.wait()
        try:
            assert child.is_running()
            study = ts.tune(lambda config: config["a"], {"a": ts.Float(0, 1)}, minimise="a", trials=1, store=store)
        finally:
            child.kill()
    assert [trial.status for trial in study.trials] == ["complete"]
    study.close()
