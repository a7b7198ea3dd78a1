"""Measurements of Optuna; called by ``overhead.py``."""

from __future__ import annotations

import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator

import measuring
import optuna
from measuring import Result
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = {
    "lr": FloatDistribution(*measuring.RATE, log=True),
    "momentum": FloatDistribution(*measuring.MOMENTUM),
    "dropout": FloatDistribution(*measuring.DROPOUT),
    "layers": IntDistribution(*measuring.LAYERS),
    "units": IntDistribution(*measuring.UNITS, log=True),
    "activation": CategoricalDistribution(measuring.ACTIVATIONS),
}


def storage_of(store: str, path: str) -> BaseStorage:
    """``memory``, ``journal``, ``sqlite``, or ``sqlite-wal``: without a sync to the disk for every transaction."""
    if store == "memory":
        return InMemoryStorage()
    if store == "journal":
        return JournalStorage(JournalFileBackend(path))
    storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
    if store == "sqlite-wal":
        from sqlalchemy import event

        def relax(connection: object, record: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")

        event.listen(storage.engine, "connect", relax)
        storage.engine.dispose()
    return storage


def study_of(store: str, path: str) -> optuna.Study:
    storage, sampler = storage_of(store, path), optuna.samplers.RandomSampler()
    return optuna.create_study(storage=storage, sampler=sampler, study_name="study", load_if_exists=True)


def pairs(store: str, processes: int, seconds: float) -> Result:
    """Ask and tell."""
    with measuring.folder() as folder:
        path = str(folder / "study")
        study_of(store, path)

        def prepare() -> Callable[[], object]:
            study = study_of(store, path)
            return lambda: study.tell(study.ask(SPACE), 1.0)

        return measuring.rate(prepare, processes, seconds)


def reports(store: str, seconds: float, count: int = 20) -> Result:
    """Trials with so many reports."""
    with measuring.folder() as folder:
        study = study_of(store, str(folder / "study"))

        def trial() -> None:
            trial = study.ask(SPACE)
            for step in range(1, count + 1):
                trial.report(1 / step, step)
            study.tell(trial, 1 / count)

        return measuring.rate(lambda: trial, 1, seconds)


def decision(counts: list[int], store: str = "memory", times: int = 200, steps: int = 20) -> list[Result]:
    """A report and the median rule's decision on it, once so many trials have finished."""
    with measuring.folder() as folder:
        study = study_of(store, str(folder / "study"))
        study.pruner = optuna.pruners.MedianPruner()
        results = []
        for count in counts:
            _add(study, count - len(study.get_trials(deepcopy=False)), steps)
            trials = [study.ask(SPACE) for _ in range(times // steps)]
            queue = iter([(trial, step) for trial in trials for step in range(1, steps + 1)])

            def step(queue: Iterator[tuple[optuna.Trial, int]] = queue) -> None:
                trial, number = next(queue)
                trial.report(random.random(), number)
                trial.should_prune()

            results.append(measuring.typical(step, times // steps * steps))
        return results


def _add(study: optuna.Study, count: int, steps: int) -> None:
    for _ in range(count):
        study.add_trial(_finished(steps))


def _finished(steps: int) -> FrozenTrial:
    curve = {step: random.random() for step in range(1, steps + 1)}
    params = {
        "lr": random.uniform(*measuring.RATE),
        "momentum": random.uniform(*measuring.MOMENTUM),
        "dropout": random.uniform(*measuring.DROPOUT),
        "layers": random.randint(*measuring.LAYERS),
        "units": random.randint(*measuring.UNITS),
        "activation": random.choice(measuring.ACTIVATIONS),
    }
    return create_trial(params=params, distributions=SPACE, value=curve[steps], intermediate_values=curve)


# -- kill -9 --------------------------------------------------------------------------------------------------------


def hammer(store: str, path: str, processes: int, seconds: float = 1e9) -> Result:
    """Ask and tell without end."""

    def prepare() -> Callable[[], object]:
        study = study_of(store, path)
        return lambda: study.tell(study.ask(SPACE), 1.0)

    return measuring.rate(prepare, processes, seconds)


def pair(store: str, path: str) -> None:
    """One ask and tell."""
    study = study_of(store, path)
    study.tell(study.ask(SPACE), 1.0)


def kill_pairs(store: str, processes: int, seconds: float = 1.0) -> Result:
    """From killing processes that ask and tell all the time, to the end of a new process that does so once."""
    with measuring.folder() as folder:
        path = str(folder / "study")
        study_of(store, path)
        crew = measuring.start(__file__, "hammer", store=store, path=path, processes=processes)
        time.sleep(2.0 + seconds * random.uniform(0.5, 1.5))
        killed = measuring.kill_all(crew)
        measuring.start(__file__, "pair", store=store, path=path).wait()
        took = time.perf_counter() - killed
        counts = Counter(trial.state for trial in study_of(store, path).trials)
        return {"value": took, "trials": counts.total(), "left running": counts[TrialState.RUNNING]}


# -- a large study ----------------------------------------------------------------------------------------------------


def make(store: str, path: str, count: int, steps: int = 20) -> Result:
    """A study of so many finished trials, each with 20 reports."""
    random.seed(0)
    study = study_of("sqlite-wal" if store == "sqlite" else store, path)
    with measuring.clock() as time_:
        _add(study, count, steps)
    return {"value": time_.wall}


def summarise(store: str, path: str) -> Result:
    """Open a study; count its trials by status and its steps; find the best; the last value of all."""
    with measuring.clock() as time_:
        study = optuna.load_study(study_name="study", storage=storage_of(store, path))
        trials = study.get_trials(deepcopy=False)
        counts = Counter(trial.state for trial in trials)
        steps = sum(len(trial.intermediate_values) for trial in trials)
        last = [trial.value for trial in trials]
        best = study.best_trial
    assert best is not None and counts[TrialState.COMPLETE] == len(last) and steps == 20 * len(last)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"value": time_.wall, "cpu": time_.cpu, "mb": memory}


if __name__ == "__main__":
    measuring.main(globals())
