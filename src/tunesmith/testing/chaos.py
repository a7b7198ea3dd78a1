"""Breaks studies in every way at random moments, and sees that nothing is lost: ``python -m tunesmith.testing.chaos``.

Each *schedule* is drawn from a seed: training code, scheduler, sampler, goals, workers, and faults at random moments.
Drivers and workers are killed, stopped, terminated and interrupted, several drivers work at once, the disk is full,
the store is deleted or replaced. Then the study is driven to its end, and what must hold of it is checked.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.checkpoints import Checkpoints
from tunesmith.records import AnyEvent, Asked, Checkpointed, Ended, Failed, Told
from tunesmith.replay import replay
from tunesmith.study import Study
from tunesmith.temporary import alive
from tunesmith.testing import _victim
from tunesmith.testing._victim import FOLDER, Plan
from tunesmith.trials import MAX_CRASHES, Checkpoint, Trials

FAULTS = (
    "kill", "kill all", "kill worker", "stop", "stop worker", "terminate", "interrupt", "interrupt twice", "hang up",
    "second driver", "full disk", "delete store", "replace store",
)  # fmt: skip
PATIENCE = 300.0  #: seconds until something is taken for hanging
_LOOK = 0.02  # seconds between two looks
_DISK = hasattr(resource, "prlimit")  # the disk of another process can be made full


class Fault(msgspec.Struct, frozen=True):
    """Something that goes wrong: ``steps`` of training after the one before it, and then after ``delay`` seconds."""

    kind: str
    steps: int
    delay: float


class Schedule(msgspec.Struct, frozen=True):
    """One study, and what happens to it."""

    seed: int
    number: int
    plan: Plan
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        plan = self.plan
        workers = "1 worker" if plan.workers == 1 else f"{plan.workers} workers"
        what = f"{plan.task}, {plan.scheduler}, {plan.sampler}, {plan.goals}, {workers}, saved every {plan.every}"
        return f"{what}: {', then '.join(fault.kind for fault in self.faults)}"


class BrokenError(AssertionError):
    """Something that must hold does not."""


def hold(condition: object, message: str) -> None:
    """See that something holds."""
    if not condition:
        raise BrokenError(message)


# -- drawing ------------------------------------------------------------------------------------------------------


def kinds() -> list[str]:
    """Everything that schedules can be confined to, by ``--only``: faults, tasks, schedulers and samplers."""
    return [*_faults(), *_tasks(), *_victim.SCHEDULERS, *_victim.SAMPLERS]


def _faults() -> list[str]:
    return [kind for kind in FAULTS if _DISK or kind != "full disk"]


def _tasks() -> list[str]:
    return [task for task in _victim.TASKS if task != "vectorised" or find_spec("jax") is not None]


def draw(seed: int, number: int, only: Sequence[str] = ()) -> Schedule:
    """A schedule, by its seed and number; ``only`` are some of ``kinds()``: it has one of each sort among them."""
    rng = random.Random(f"{seed}/{number}")

    def one(names: Sequence[str]) -> str:
        return rng.choice([name for name in names if name in only] or names)

    task = one(_tasks())
    scheduler = one(
        [name for name in _victim.SCHEDULERS if not (task in _victim.FORGETFUL and name in _victim.COPYING)]
    )
    goals = rng.choice(["one" if scheduler in _victim.ONE_GOAL else "two", *_victim.GOALS])
    goals = "one" if scheduler in _victim.ONE_GOAL and goals == "two" else goals
    plan = Plan(
        task, scheduler, one([*_victim.SAMPLERS]), goals, rng.randrange(2**31),
        1 if task == "vectorised" else rng.randint(1, 3), rng.choice(["3 steps", "0.05 s", "1 min"]),
        rng.choice([0, 0, 60]),
    )  # fmt: skip
    faults = [
        Fault(rng.choice(_faults()), rng.choice([0, rng.randint(1, 30)]), round(rng.uniform(0.0, 0.2), 3))
        for _ in range(rng.randint(1, 4))
    ]
    if any(kind in only for kind in FAULTS):
        faults[0] = msgspec.structs.replace(faults[0], kind=one(FAULTS))
    return Schedule(seed, number, plan, tuple(faults))


# -- the processes of a study -------------------------------------------------------------------------------------


class Scene:
    """A study in a folder, and the processes that work on it."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        self.store = folder / "study.db"
        self.drivers: list[subprocess.Popen[str]] = []
        for name in ("ready", "tmp"):
            (folder / name).mkdir(parents=True)
        (folder / "plan.json").write_bytes(msgspec.json.encode(plan))

    def start(self) -> subprocess.Popen[str]:
        """One more driver."""
        environment = {
            FOLDER: str(self.folder), "TMPDIR": str(self.folder / "tmp"), "OMP_NUM_THREADS": "1",
            "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"),
        }  # fmt: skip
        code = f"import sys; sys.path[:] = {sys.path!r}; from tunesmith.testing._victim import main; "
        driver = subprocess.Popen(
            [sys.executable, "-c", f"{code}sys.exit(main({str(self.folder)!r}))"],
            env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        self.drivers.append(driver)
        return driver

    def living(self) -> list[subprocess.Popen[str]]:
        """The drivers that have not ended."""
        return [driver for driver in self.drivers if driver.poll() is None]

    def ready(self, driver: subprocess.Popen[str]) -> bool:
        """Whether a driver has opened the study."""
        return (self.folder / "ready" / str(driver.pid)).exists()

    def trained(self) -> int:
        """How many steps were trained so far (of vectorised ones those of all together count as one)."""
        journal = self.folder / "journal"
        return journal.stat().st_size // 12 if journal.exists() else 0

    def processes(self) -> list[int]:
        """All processes of the study that are alive: they have inherited the name of its folder."""
        return [process for process in _processes(f"{FOLDER}={self.folder}") if alive(process)]

    def others(self) -> list[int]:
        """Workers, and commands that they have started."""
        drivers = {driver.pid for driver in self.drivers}
        return sorted(process for process in self.processes() if process not in drivers)

    def wait(self, until: Callable[[], object], what: str) -> None:
        """Until something is so."""
        patience = time.monotonic() + PATIENCE
        while not until():
            hold(time.monotonic() < patience, f"{what}: not after {PATIENCE:g} seconds")
            time.sleep(_LOOK)

    def end(self) -> None:
        """End all that is left, whatever has happened."""
        for process in self.processes():
            _send(process, signal.SIGKILL)
        for driver in self.drivers:
            driver.wait()
            for pipe in (driver.stdout, driver.stderr):
                if pipe is not None:
                    pipe.close()


def _send(process: int, number: int) -> bool:
    """Send a signal; whether the process is there."""
    with suppress(ProcessLookupError):
        os.kill(process, number)
        return True
    return False


def _processes(mark: str) -> list[int]:
    """Processes with this entry in their environment."""
    system = Path("/proc")
    if (system / "self" / "environ").exists():
        found = []
        for path in system.iterdir():
            with suppress(OSError):
                if path.name.isdecimal() and mark.encode() in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
        return found
    lines = subprocess.run(["ps", "axeww", "-o", "pid=,command="], capture_output=True, text=True, check=True).stdout
    return [int(line.split(None, 1)[0]) for line in lines.splitlines() if f" {mark} " in f"{line} "]


# -- the faults ---------------------------------------------------------------------------------------------------


class Chaos:
    """Does to a study what a schedule says."""

    def __init__(self, schedule: Schedule, scene: Scene) -> None:
        self.schedule, self.scene = schedule, scene
        self.rng = random.Random(f"faults {schedule.seed}/{schedule.number}")
        self.done: Counter[str] = Counter()
        self.said: dict[subprocess.Popen[str], tuple[str, str]] = {}  # output and errors of drivers that have ended

    def run(self) -> None:
        """The faults, and then the study to its end. A fault says how many it has hit."""
        self.scene.start()
        for fault in self.schedule.faults:
            if not self._come(fault):
                break
            self.done[fault.kind] += getattr(self, f"_{fault.kind.replace(' ', '_')}")()
            if not self.scene.living():
                self.scene.wait(lambda: not self.scene.processes(), "the processes of a dead driver end")
                self.scene.start()
        for driver in [driver for driver in self.scene.drivers if driver not in self.said]:
            self._ended(driver, {0}, "done")
        if not self._is_done():
            self._ended(self.scene.start(), {0}, "done")

    def _come(self, fault: Fault) -> bool:
        """Wait for the moment of a fault. False: the study has come to its end before."""
        goal = self.scene.trained() + fault.steps
        gentle = fault.steps > 0 or fault.kind in ("delete store", "replace store", "full disk")
        if gentle:  # every driver is at work
            self.scene.wait(lambda: all(map(self.scene.ready, self.scene.living())), "drivers open the study")
        self.scene.wait(lambda: self.scene.trained() >= goal or not self.scene.living(), "the study is trained")
        time.sleep(fault.delay)
        return bool(self.scene.living())

    def _one(self) -> subprocess.Popen[str]:
        """One of the drivers."""
        return self.rng.choice(self.scene.living() or self.scene.drivers[-1:])

    def _ended(self, driver: subprocess.Popen[str], statuses: set[int], *outcomes: str) -> str:
        """Wait for the end of a driver, which must have one of these statuses and outcomes; what it wrote as errors."""
        if driver not in self.said:
            try:
                self.said[driver] = driver.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                raise BrokenError(f"a driver does not end within {PATIENCE:g} seconds") from None
            (self.scene.folder / f"{driver.pid}.err").write_text(self.said[driver][1])
        out, errors = self.said[driver]
        last = errors.strip()[-1500:]
        hold(driver.returncode in statuses, f"a driver has ended with status {driver.returncode}: {out}{last}")
        if driver.returncode == 0:
            hold(out in [f'{{"outcome": "{outcome}"}}\n' for outcome in outcomes], f"a driver has said {out!r}: {last}")
        return errors

    def _signal(self, driver: subprocess.Popen[str], number: int, times: int = 1) -> bool:
        """End a driver by a signal: it saves what it has, or, at the second one, ends at once."""
        ready = self.scene.ready(driver)
        for _ in range(times):
            _send(driver.pid, number)
            time.sleep(0.05 * (times - 1))
        early = {-number, 128 + number, 1} if times > 1 or not ready else {-number}  # or it has ended its work just now
        errors = self._ended(driver, {0, *early}, "interrupted", "done")
        if driver.returncode == 1:
            hold("KeyboardInterrupt" in errors, f"a driver has failed: {errors[-1500:]}")
        return "done" not in self.said[driver][0]

    def _kill(self) -> bool:
        driver = self._one()
        driver.kill()
        self._ended(driver, {0, -signal.SIGKILL}, "done")
        return driver.returncode != 0

    def _kill_all(self) -> int:
        living = self.scene.living()
        for process in self.scene.processes():
            _send(process, signal.SIGKILL)
        for driver in living:
            self._ended(driver, {0, -signal.SIGKILL}, "done")
        return sum(driver.returncode != 0 for driver in living)

    def _kill_worker(self) -> bool:
        others = self.scene.others()
        return bool(others) and _send(self.rng.choice(others), signal.SIGKILL)

    def _stop(self) -> bool:
        return self._pause(self._one().pid)

    def _stop_worker(self) -> bool:
        others = self.scene.others()
        return bool(others) and self._pause(self.rng.choice(others))

    def _pause(self, process: int) -> bool:
        stopped = _send(process, signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.1, 1.5))
        return stopped and _send(process, signal.SIGCONT)

    def _terminate(self) -> bool:
        return self._signal(self._one(), signal.SIGTERM)

    def _interrupt(self) -> bool:
        return self._signal(self._one(), signal.SIGINT)

    def _interrupt_twice(self) -> bool:
        return self._signal(self._one(), signal.SIGINT, times=2)

    def _hang_up(self) -> bool:
        return self._signal(self._one(), signal.SIGHUP)

    def _second_driver(self) -> bool:
        self.scene.start()
        return True

    def _full_disk(self) -> int:
        """No file can grow any more, for drivers and workers; the training itself writes nothing that matters."""
        living = self.scene.living()
        for process in [*(driver.pid for driver in living), *self.scene.others()]:  # a driver before its workers
            with suppress(ProcessLookupError, ValueError):
                _, most = resource.prlimit(process, resource.RLIMIT_FSIZE)
                resource.prlimit(process, resource.RLIMIT_FSIZE, (0, most))
        for driver in living:
            errors = self._ended(driver, {0, 1}, "done")
            hold(driver.returncode == 0 or "error: " in errors, f"no clear error of a full disk: {errors[-1500:]}")
        return sum(driver.returncode != 0 for driver in living)

    def _delete_store(self) -> int:
        return self._take_away(lambda: None)

    def _replace_store(self) -> int:
        def put() -> None:
            _victim.opened(self.scene.plan, self.scene.store).close()

        return self._take_away(put)

    def _take_away(self, put: Callable[[], object]) -> int:
        """Every driver ends with an error that says what has become of the store. Then the file is put back.

        What a driver has rescued is the log as it was, and perhaps more, which could not be written any more.
        """
        safe = self.scene.folder / "safe"
        safe.mkdir()
        living = self.scene.living()
        for path in self._files():
            path.rename(safe / path.name)
        put()
        found = [(driver, self._ended(driver, {0, 1}, "done")) for driver in living]
        for path in self._files():
            path.unlink()
        for path in safe.iterdir():
            path.rename(self.scene.folder / path.name)
        safe.rmdir()
        self._look_at_rescued()
        for driver, errors in found:
            if driver.returncode == 0:
                hold(self._is_done(), "a driver whose store is gone says that the study is done, and it is not")
            else:
                clear = "study.db" in errors and (" deleted" in errors or " replaced" in errors)
                hold(clear, f"no clear error of a store that is gone: {errors}")
        return sum(driver.returncode != 0 for driver in living)

    def _look_at_rescued(self) -> None:
        """Of several drivers the last one has rescued what the others had written before they ended."""
        with Study.open(self.scene.store) as study:
            events = study.events()
        whole = []
        for path in sorted(self.scene.folder.glob("study.rescued*.db")):
            with Study.open(path) as rescued:
                whole.append(rescued.events()[: len(events)] == events)
                hold(not replay(rescued), f"{path.name} can't be replayed")
            path.unlink()
        hold(any(whole) or not whole, "what was rescued lacks events of the study")

    def _files(self) -> list[Path]:
        """The store, first, and what SQLite keeps beside it."""
        return sorted(path for path in self.scene.folder.glob("study.db*") if path.is_file())

    def _is_done(self) -> bool:
        """Whether nothing is left to do."""
        with _victim.opened(self.scene.plan, self.scene.store) as study:
            return not study.running and not study.trials.waiting and study.ask() is None


# -- what must hold of a study that is done -----------------------------------------------------------------------


def check(scene: Scene) -> Study:
    """Everything that must hold in the end, whatever was done to the study."""
    _check_file(scene.store)
    study = Study.open(scene.store)
    events = study.events()
    hold(not study.running and not study.trials.waiting, "jobs are out in the end")
    _check_jobs(scene.plan, study, events)
    right = _check_values(scene.plan, study)
    _check_work(scene, study, events)
    hold(not (differences := replay(study)), f"replay differs: {differences[:3]}")
    _check_sameness(scene.plan, study)
    _check_states(scene, study, right)
    study.close()
    _check_leftovers(scene)
    return study


def _check_file(store: Path) -> None:
    """The file is sound, and the events are numbered without gaps."""
    connection = sqlite3.connect(store)
    hold(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the store is damaged")
    numbers = [number for (number,) in connection.execute("SELECT number FROM events ORDER BY number")]
    connection.close()
    hold(numbers == list(range(1, len(numbers) + 1)), "events are missing")


def _check_jobs(plan: Plan, study: Study, events: Sequence[AnyEvent]) -> None:
    """No step is told twice in a job, a job asked again goes on from the newest state, and no trial is lost."""
    trials = Trials()
    trials.horizon = study.trials.horizon
    fresh: set[int] = set()  # trials whose job has told nothing yet
    crashes = Counter[int]()
    for event in events:
        if not isinstance(event, Asked | Told | Ended | Failed | Checkpointed):
            continue
        if isinstance(event, Asked):
            fresh.add(event.trial)
        elif isinstance(event, Told) and trials[event.trial].ask == event.ask and event.trial in trials.running:
            trial = trials[event.trial]
            if event.trial in fresh:
                newest = trials.sources(trial, trial.step)
                least = newest[0].step if newest else 0
                hold(least <= event.start <= trial.step, f"trial {trial.id} goes on at {event.start}, not {least}")
            else:
                hold(event.start == trial.step, f"trial {trial.id} tells {event.start} after {trial.step}")
            fresh.discard(event.trial)
        crashes[event.trial] += isinstance(event, Failed) and event.kind == "crashed"
        trials.fold(event)
    for trial in study.trials:
        hold(trial.status in ("complete", "paused", "failed"), f"trial {trial.id} is {trial.status}")
        expected = bool(plan.diverges) and trial.kind in ("raised", "non-finite")
        lawful = expected or crashes[trial.id] >= MAX_CRASHES
        hold(trial.status != "failed" or lawful, f"trial {trial.id} has failed: {trial.error}")


def _check_values(plan: Plan, study: Study) -> dict[tuple[int, int], int]:
    """Every value of every trial is what its configuration and its ancestors' make of it; who failed had to.

    Returns:
        The right states, by trial and step.
    """
    state: dict[tuple[int, int], int] = {}  # by trial and step
    for trial in study.trials:
        x = 0 if trial.parent is None else state[trial.parent, trial.start]
        state[trial.id, trial.start] = x
        steps, values = trial.values("x")
        diverged = trial.status == "failed" and trial.kind != "crashed"
        last = trial.step - (len(steps) < trial.step - trial.start)  # a value that is not finite is none
        hold(steps == list(range(trial.start + 1, last + 1)), f"trial {trial.id} lacks steps: {steps}")
        for step, value in zip(steps, values, strict=True):
            state[trial.id, step] = x = _victim.mixed(x, trial.config, step)
            hold(value == x, f"trial {trial.id} tells {value} at step {step}, where {x} is right")
            hold(not _victim.has_diverged(x, plan.diverges), f"trial {trial.id} should have failed at step {step}")
        if diverged:
            x = _victim.mixed(x, trial.config, last + 1)
            hold(_victim.has_diverged(x, plan.diverges), f"trial {trial.id} has failed at {last + 1}: {trial.error}")
    return state


def _check_work(scene: Scene, study: Study, events: Sequence[AnyEvent]) -> None:
    """A step was trained once, and once more at most for each time that its job was given up; code that saves nothing
    may train it again for each later job of the trial, too.
    """
    if scene.plan.task == "vectorised":
        return
    trained = Counter(tuple(map(int, line.split())) for line in (scene.folder / "journal").read_text().splitlines())
    again = Counter(event.trial for event in events if isinstance(event, Failed))
    if scene.plan.task in _victim.FORGETFUL:
        again += Counter(event.trial for event in events if isinstance(event, Asked) and event.start > 0)
    for trial in study.trials:
        for step in range(trial.start + 1, trial.step + 1):
            times = trained[trial.id, step]
            most = 1 + again[trial.id]
            hold(1 <= times <= most, f"trial {trial.id}: step {step} was trained {times} times, {most} were needed")


def _check_sameness(plan: Plan, study: Study) -> None:
    """Where that is promised, the study is the same as one that nothing happened to."""
    fixed = plan.sampler in _victim.FIXED and plan.scheduler in _victim.SAME_WITH_FIXED and not plan.diverges
    if not (fixed or plan.scheduler in _victim.SAME_WITH_ANY) or any(t.kind == "crashed" for t in study.trials):
        return
    calm, there = calmly(plan), essence(study)
    hold(there == calm, f"the study is another than an undisturbed one: {_first_difference(calm, there)}")


def essence(study: Study) -> list[tuple[Any, ...]]:
    """What a study has come to: every trial, but not when it happened and who did it."""
    return sorted(
        (
            (trial.id, trial.parent, trial.start, dict(trial.config), trial.status, tuple(trial.values("x")[1]))
            for trial in study.trials
        ),
        key=lambda row: row[0],
    )


def calmly(plan: Plan) -> list[tuple[Any, ...]]:
    """The same study in memory, with one worker, without faults."""
    study = _victim.opened(plan, None)
    state: dict[tuple[int, int], int] = {}
    while (job := study.ask()) is not None:
        source = job.trial if (job.trial, job.start) in state else job.parent
        x = 0 if source is None else state[source, job.start]
        rows: list[dict[str, float]] = []
        for step in range(job.start + 1, job.until + 1):
            x = _victim.mixed(x, job.config, step)
            if _victim.has_diverged(x, plan.diverges):
                break
            state[job.trial, step] = x
            rows.append(_victim.measured(x))
        metrics = {name: [row[name] for row in rows] for name in _victim.measured(0)}
        reached = job.start + len(rows)
        checkpoint = Checkpoint(job.trial, reached, "calm", "calm")
        if rows:
            study.tell(job, metrics, step=reached, checkpoint=checkpoint)
        if reached < job.until:
            study.fail(job, "the training has diverged")
    return essence(study)


def _first_difference(one: list[Any], other: list[Any]) -> str:
    for a, b in zip(one, other, strict=False):
        if a != b:
            return f"{a} and {b}"
    return f"{len(one)} trials and {len(other)}"


def _check_states(scene: Scene, study: Study, right: dict[tuple[int, int], int]) -> None:
    """The best trial, or all on the front, have a state on disk, and every state on disk is the right one."""
    if scene.plan.task in _victim.FORGETFUL:
        hold(not any(trial.checkpoints for trial in study.trials), "code that saves nothing has states")
        return
    root, best = study.use_checkpoints(), study.best
    for trial in study.front if len(study.goals) > 1 else [] if best is None else [best]:
        study.load(trial)
    on_disk = set(Checkpoints(root).files())
    for trial in study.trials:
        for saved in trial.checkpoints:
            if (trial.id, saved.step) in on_disk:
                x = _victim.saved(Checkpoints(root).load(saved.where, saved.digest))
                wanted = right[trial.id, saved.step]
                hold(x == wanted, f"trial {trial.id}: the state of step {saved.step} has {x}, where {wanted} is right")
    torn = [str(path) for path in root.glob("*/.tmp-*")]
    hold(not torn, f"unfinished states are left: {torn}")


def _check_leftovers(scene: Scene) -> None:
    """No process, no lease, no temporary file."""
    scene.wait(lambda: not scene.processes(), "processes are left: the last one ends")
    left = [path.name for path in (scene.folder / "tmp").iterdir()]
    hold(not left, f"temporary folders are left: {left}")
    names = {path.name for path in scene.folder.iterdir() if path.suffix != ".err"}
    known = {"journal", "plan.json", "ready", "study.db", "study.db.checkpoints", "tmp"}
    hold(names <= known, f"files are left: {names - known}")


# -- the command line ---------------------------------------------------------------------------------------------


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that is kept where something fails in it."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        yield folder
    except BrokenError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def carry_out(schedule: Schedule, folder: Path) -> Counter[str]:
    """Carry out a schedule in a folder, and check what comes of it; how often which fault has taken place.

    Raises:
        BrokenError: something that must hold does not.
    """
    scene = Scene(folder / "study", schedule.plan)
    chaos = Chaos(schedule, scene)
    try:
        chaos.run()
        check(scene)
    except BrokenError:
        raise
    except Exception as error:  # such as a state that can't be loaded
        raise BrokenError(f"{type(error).__name__}: {error}") from error
    finally:
        scene.end()
    return chaos.done


def main(arguments: Sequence[str] | None = None) -> int:
    """Run schedules one after the other; 1 if one of them has failed, with the way to repeat it."""
    parser = argparse.ArgumentParser("python -m tunesmith.testing.chaos", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--schedules", type=int, default=50, help="how many schedules are carried out (50)")
    parser.add_argument("--seed", type=int, default=0, help="the schedules follow from it (0)")
    parser.add_argument("--schedule", type=int, help="only the one of this number")
    parser.add_argument(
        "--only", metavar="KIND", choices=kinds(), action="append", default=[],
        help=f"all schedules have this part (may be given several times): {', '.join(kinds())}",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    numbers = range(given.schedules) if given.schedule is None else [given.schedule]
    total: Counter[str] = Counter()
    began = time.monotonic()
    for number in numbers:
        schedule = draw(given.seed, number, given.only)
        print(f"{number:4}  {schedule}", end="", flush=True)
        since = time.monotonic()
        try:
            with _folder() as folder:
                total += carry_out(schedule, folder)
        except BrokenError as error:
            again = f"python -m tunesmith.testing.chaos --seed {given.seed} --schedule {number}"
            again += "".join(f" --only {kind!r}" for kind in given.only)
            print(f"\nschedule {number} of seed {given.seed} has failed: {error}\n{schedule.plan}\n{schedule.faults}")
            print(f"the study and what its drivers wrote: {folder / 'study'}\nagain: {again}")
            return 1
        print(f"  {time.monotonic() - since:.1f} s", flush=True)
    count = sum(total.values())
    parts = ", ".join(f"{kind} {total[kind]}" for kind in FAULTS if total[kind])
    print(f"{len(numbers)} schedules with {count} faults ({parts}) held in {math.ceil(time.monotonic() - began)} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
