"""The first generation of a population: a design, whatever the sampler, unless it is asked to learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tunesmith as ts
from tunesmith import samplers
from tunesmith.schedulers import FIRE, MFPBT, PBT

SPACE = ts.Space({"x": ts.Float(0, 1), "y": ts.Float(0, 1, prior=ts.Prior(0.3, 0.9))})
POPULATIONS = [
    PBT(population=8, ready=2, steps=8),
    PBT(population=8, ready=2, steps=8, synchronous=True),
    MFPBT(population=8, ready=2, steps=8),
    FIRE(population=8, ready=2, steps=8),
]
MODELS = [samplers.Auto(), samplers.TPE(), samplers.GP()]


def first_generation(scheduler: Any, sampler: Any, workers: int) -> list[dict[str, Any]]:
    """What misleads a model: the best values lie at the bound."""
    study = ts.Study(SPACE, ts.Goal("loss"), sampler, scheduler, seed=3)
    study.enqueue({"x": 0.25, "y": 0.75})
    out = []
    while True:
        while len(out) < workers and (job := study.ask()) is not None:
            out.append(job)
        if not out:
            break
        job = out.pop(0)
        study.tell(job, {"loss": [job.config["x"]] * (job.until - job.start)})
    assert ts.replay(study) == []
    return [trial.config for trial in study.trials if trial.parent is None]


@pytest.mark.parametrize("sampler", MODELS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("scheduler", POPULATIONS, ids=lambda scheduler: type(scheduler).__name__)
def test_it_is_spread_and_does_not_depend_on_the_workers(scheduler: Any, sampler: Any) -> None:
    found = first_generation(scheduler, sampler, workers=1)
    assert len(found) == 8 and found[0] == {"x": 0.25, "y": 0.75}  # what was enqueued comes first
    assert found == first_generation(scheduler, sampler, workers=3) == first_generation(scheduler, sampler, workers=8)
    x = np.sort([config["x"] for config in found[1:]])
    assert x[0] > 0 and x[-1] < 1 and np.diff(x).max() < 0.3  # seven points: 0.14 apart if they were even
    assert np.median([abs(config["y"] - 0.3) for config in found[1:]]) < 0.2  # 0.27 without the prior


def test_it_can_be_the_samplers() -> None:
    chosen = PBT(population=8, ready=2, steps=8, first="sampler")
    learned = first_generation(chosen, samplers.GP(), workers=1)
    assert learned != first_generation(chosen, samplers.GP(), workers=8)  # a model learns from the first ones
