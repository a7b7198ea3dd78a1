from __future__ import annotations

from typing import Any

import pytest

from tunesmith.records import Asked, Failed, Goal, Opened, Spec, Told
from tunesmith.space import Categorical, Constant, Float, Integer, Ordinal, Space
from tunesmith.storage import MemoryStore
from tunesmith.study import Study

SPACE = Space(
    {
        "lr": Float(1e-4, 1.0, log=True),
        "units": Integer(1, 64),
        "batch": Ordinal([16, 32, 64]),
        "act": Categorical(["relu", "gelu"]),
        "data": Constant("digits"),
    }
)


def config(lr: float, batch: int = 32) -> dict[str, Any]:
    return {"lr": lr, "units": 8, "batch": batch, "act": "relu", "data": "digits"}


def log(*events: Any, maximise: bool = True) -> Study:
    """A study from a log that a population of three might have written."""
    opened = Opened(
        SPACE,
        (Goal("accuracy", maximise),),
        Spec("Uniform"),
        Spec("PBT", {"population": 3, "ready": 2, "steps": 6}),
        seed=0,
    )
    store = MemoryStore()
    store.append([opened, *events])
    return Study.open(store)


def told(ask: int, trial: int, start: int, *values: float) -> Told:
    return Told(ask, trial, start, {"accuracy": list(values), "test": [value - 0.01 for value in values]}, 1.5)


def started(ask: int, trial: int, lr: float, start: int = 0, until: int = 2, **fork: int) -> Asked:
    return Asked(ask, ask + 1, trial, config(lr), start, until, **fork)


@pytest.fixture
def family() -> Study:
    """Trial 4 (accuracy 0.8) comes from 3 at step 4, which comes from 1 at step 2. Trial 1 fails in the end.

    Lanes: 0 and 3; 1; 2 and 4.
    """
    return log(
        started(0, 0, 0.1),
        told(0, 0, 0, 0.1, 0.2),
        started(1, 1, 0.01),
        told(1, 1, 0, 0.3, 0.4),
        started(2, 2, 0.001),
        told(2, 2, 0, 0.2, 0.3),
        started(3, 3, 0.012, 2, 4, parent=1, replaces=0),
        told(3, 3, 2, 0.5, 0.6),
        started(4, 1, 0.01, 2, 4),
        told(4, 1, 2, 0.45, 0.5),
        started(5, 2, 0.001, 2, 4),
        told(5, 2, 2, 0.3, 0.35),
        started(6, 4, 0.0144, 4, 6, parent=3, replaces=2),
        told(6, 4, 4, 0.7, 0.8),
        started(7, 3, 0.012, 4, 6),
        told(7, 3, 4, 0.62, 0.65),
        started(8, 1, 0.01, 4, 6),
        Failed(8, 1, "ValueError: no more"),
    )


@pytest.fixture
def single() -> Study:
    """One trial that ran to its end."""
    return log(started(0, 0, 0.1), told(0, 0, 0, 0.1, 0.2))


@pytest.fixture
def empty() -> Study:
    """One trial that has not reported yet."""
    return log(started(0, 0, 0.1))


@pytest.fixture
def minimised() -> Study:
    """Two trials of which the second ends lower."""
    events = (started(0, 0, 0.1), told(0, 0, 0, 0.3, 0.4), started(1, 1, 0.2), told(1, 1, 0, 0.3, 0.2))
    return log(*events, maximise=False)
