"""Measurements of tunesmith; called by ``overhead.py``."""

from __future__ import annotations

import math
import random
import resource
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
from measuring import Result

import tunesmith as ts
from tunesmith.records import Asked, Told
from tunesmith.storage import SQLiteStore
from tunesmith.workloads.toy import Toy
from tunesmith.workloads.toy import space as toy_space

LOSS = ts.Goal("loss")
RANDOM = ts.samplers.Uniform()  # as that of the peers


def space() -> ts.Space:
    return ts.Space({
        "lr": ts.Float(*measuring.RATE, log=True),
        "momentum": ts.Float(*measuring.MOMENTUM),
        "dropout": ts.Float(*measuring.DROPOUT),
        "layers": ts.Integer(*measuring.LAYERS),
        "units": ts.Integer(*measuring.UNITS, log=True),
        "activation": ts.Categorical(measuring.ACTIVATIONS),
    })  # fmt: skip


def pairs(store: str, processes: int, seconds: float) -> Result:
    """Ask and tell."""
    with measuring.folder() as folder:
        path = None if store == "memory" else folder / "study.db"
        if path:
            ts.Study(space(), LOSS, store=path).close()

        def prepare() -> Callable[[], None]:
            study = ts.Study(space(), LOSS, store=path)
            return lambda: study.tell(study.ask(), {"loss": 1.0})

        return measuring.rate(prepare, processes, seconds)


def reports(how: str, seconds: float, count: int = 20) -> Result:
    """Trials with so many reports: each told by itself, in one transaction, or as one list."""
    with measuring.folder() as folder:
        study = ts.Study(
            space(),
            LOSS,
            sampler=ts.samplers.Uniform(),
            scheduler=ts.schedulers.Full(steps=count),
            store=folder / "study.db",
        )

        def each() -> None:
            job = study.ask()
            for step in range(1, count + 1):
                study.tell(job, {"loss": 1 / step}, step=step)

        def batch() -> None:
            job = study.ask()
            with study.batch():
                for step in range(1, count + 1):
                    study.tell(job, {"loss": 1 / step}, step=step)

        def series() -> None:
            study.tell(study.ask(), {"loss": [1 / step for step in range(1, count + 1)]})

        trial = {"each": each, "batch": batch, "series": series}[how]
        return measuring.rate(lambda: trial, 1, seconds)


def decision(scheduler: str, counts: list[int], store: str = "memory", times: int = 1000) -> list[Result]:
    """A report and the decision on it, once so many trials have finished: ``tell`` and ``ask``."""
    with measuring.folder() as folder:
        rule = ts.schedulers.PBT(population=16, ready=1, steps=10**9) if scheduler == "pbt" else ts.schedulers.Full()
        study = ts.Study(
            space(),
            LOSS,
            sampler=ts.samplers.Uniform(),
            scheduler=rule,
            store=None if store == "memory" else folder / "study.db",
        )
        jobs = deque(study.ask(16))
        draw = random.Random(0).random

        def step() -> None:
            study.tell(jobs.popleft(), {"loss": draw()})
            jobs.append(study.ask())

        results = []
        for count in counts:
            while len(study.trials) < count + 16:
                step()
            results.append(measuring.typical(step, times))
        return results


# -- execution ------------------------------------------------------------------------------------------------------


def population(workers: int, steps: int, synchronous: bool = False, members: int = 16) -> Result:
    """A member-step of PBT on the toy, a checkpoint every step; starting the workers is included."""
    with measuring.folder() as folder, measuring.clock() as time_:
        rule = ts.schedulers.PBT(population=members, ready=1, steps=steps, synchronous=synchronous)
        study = ts.tune(
            Toy(), toy_space(), maximise="q", scheduler=rule, workers=workers, store=folder / "study.db",
        )  # fmt: skip
    done = sum(trial.step - trial.start for trial in study.trials)
    assert max(trial.step for trial in study.trials) == steps and all(trial.checkpoints for trial in study.trials)
    return {"value": time_.wall / done, "cpu": time_.cpu / done, "steps": done}


def trivial(config: dict[str, Any]) -> float:
    return math.log(config["lr"]) ** 2


def trials(workers: int, count: int) -> Result:
    """So many trials that cost nothing, on worker processes; starting them is included."""
    with measuring.folder() as folder, measuring.clock() as time_:
        study = ts.tune(
            trivial, space(), minimise="loss", sampler=RANDOM, trials=count, workers=workers, store=folder / "study.db"
        )
    assert sum(trial.status == "complete" for trial in study.trials) == count
    return {"value": time_.wall, "cpu": time_.cpu}


# -- kill -9 --------------------------------------------------------------------------------------------------------


def short(config: dict[str, Any]) -> float:
    time.sleep(0.02)
    return trivial(config)


def drive(path: str, workers: int) -> None:
    """Work until killed."""
    ts.tune(short, space(), minimise="loss", sampler=RANDOM, trials=10**9, workers=workers, store=path)


def kill(workers: int, seconds: float = 1.0) -> Result:
    """From killing a driver with its workers, to the first job that a new driver has completed."""
    with measuring.folder() as folder:
        path = folder / "study.db"
        ts.Study(space(), LOSS, store=path, sampler=ts.samplers.Uniform(), scheduler=ts.schedulers.Full()).close()
        store = SQLiteStore(path)
        driver = measuring.start(__file__, "drive", path=str(path), workers=workers)
        fresh = _first(store, 1, time.perf_counter())
        time.sleep(seconds * random.uniform(0.5, 1.5))
        killed = measuring.kill_all(driver)
        last = len(store.read())
        driver = measuring.start(__file__, "drive", path=str(path), workers=workers)
        again = _first(store, last, killed)
        time.sleep(0.5)
        measuring.kill_all(driver)
        study = ts.Study.open(path)
        left = sum(trial.ask < study.trials[-1].ask - 50 and trial.status == "running" for trial in study.trials)
        retried = sum("retry" in event.tags for event in study.events() if type(event) is Asked)
        assert ts.replay(study) == []
        return {"value": again, "fresh": fresh, "retried": retried, "left running": left}


def _first(store: SQLiteStore, after: int, since: float) -> float:
    """Seconds until a job that was asked after this event is told."""
    asked: set[int] = set()
    while True:
        for event in store.read(after):
            after += 1
            if type(event) is Asked:
                asked.add(event.ask)
            elif type(event) is Told and event.ask in asked:
                return time.perf_counter() - since
        time.sleep(0.002)


def hammer(path: str, processes: int, seconds: float = 1e9) -> Result:
    """Ask and tell without end."""

    def prepare() -> Callable[[], None]:
        study = ts.Study(space(), LOSS, store=path)
        return lambda: study.tell(study.ask(), {"loss": 1.0})

    return measuring.rate(prepare, processes, seconds)


def pair(path: str) -> None:
    """One ask and tell."""
    study = ts.Study(space(), LOSS, store=path)
    study.tell(study.ask(), {"loss": 1.0})


def kill_pairs(processes: int, seconds: float = 1.0) -> Result:
    """From killing processes that ask and tell all the time, to the end of a new process that does so once."""
    with measuring.folder() as folder:
        path = str(folder / "study.db")
        ts.Study(space(), LOSS, store=path).close()
        crew = measuring.start(__file__, "hammer", path=path, processes=processes)
        time.sleep(1.0 + seconds * random.uniform(0.5, 1.5))
        killed = measuring.kill_all(crew)
        measuring.start(__file__, "pair", path=path).wait()
        took = time.perf_counter() - killed
        study = ts.Study.open(path)
        return {"value": took, "trials": len(study.trials), "left running": len(study.running)}


# -- a large study ----------------------------------------------------------------------------------------------------


def make(path: str, count: int, how: str, steps: int = 20) -> Result:
    """A study of so many trials, each with 20 reports, told one by one or as one list."""
    study = ts.Study(
        space(), LOSS, sampler=ts.samplers.Uniform(), scheduler=ts.schedulers.Full(steps=steps), store=path
    )
    random.seed(0)
    with measuring.clock() as time_:
        for _ in range(0, count, 500):
            jobs = study.ask(min(500, count))
            with study.batch():
                for job in jobs:
                    curve = [random.random() for _ in range(steps)]
                    if how == "series":
                        study.tell(job, {"loss": curve})
                    else:
                        for step, loss in enumerate(curve, 1):
                            study.tell(job, {"loss": loss}, step=step)
    return {"value": time_.wall, "mb": Path(path).stat().st_size / 1e6}


def summarise(path: str) -> Result:
    """Open a study; count its trials by status and its steps; find the best; the last value of all."""
    with measuring.clock() as time_:
        study = ts.Study.open(path)
        counts = Counter(trial.status for trial in study.trials)
        steps = sum(trial.step - trial.start for trial in study.trials)
        last = [trial.last("loss") for trial in study.trials]
        best = study.best
    assert best is not None and counts["complete"] == len(last) and steps == 20 * len(last)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"value": time_.wall, "cpu": time_.cpu, "mb": memory}


def ask_after(path: str) -> Result:
    """Open a study and ask once: what a new worker needs before its first job."""
    with measuring.clock() as time_:
        ts.Study.open(path).ask()
    return {"value": time_.wall, "cpu": time_.cpu}


def replay(path: str) -> Result:
    """Decide everything anew."""
    with measuring.clock() as time_:
        assert ts.replay(ts.Study.open(path)) == []
    return {"value": time_.wall, "cpu": time_.cpu}


if __name__ == "__main__":
    measuring.main(globals())
