"""Decisions are the same bits with any number of threads for linear algebra."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STUDY = """
import numpy as np
import tunesmith as ts
from tunesmith.samplers import *
from tunesmith.schedulers import *
space = ts.Space({{name: ts.Float(0.0, 1.0) for name in "abcdefgh"}})
study = ts.Study(space, ts.Goal("loss"), {sampler}, {scheduler}, trials={trials})
while job := study.ask():
    loss = sum((u - 0.4) ** 2 for u in job.config.values())
    study.tell(job, {{"loss": [loss + np.cos(step * loss) / step for step in range(job.start + 1, job.until + 1)]}})
print([(trial.config, trial.step) for trial in study.trials])
"""

CASES = {
    "GP": ("GP(startup=30)", "Full(1)", 34),
    "TPE": ("TPE()", "Full(1)", 300),
    "CMAES": ("CMAES()", "Full(1)", 200),
    "PB2": ("Uniform()", "PBT(population=16, ready=2, steps=20, explore=PB2())", None),
    "FreezeThaw": ("Uniform()", "FreezeThaw(27, every=3)", 40),
}


@pytest.mark.parametrize("name", CASES)
def test_decisions_do_not_depend_on_the_number_of_threads(name: str) -> None:
    sampler, scheduler, trials = CASES[name]
    code = STUDY.format(sampler=sampler, scheduler=scheduler, trials=trials)
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True, text=True, check=True, timeout=3600,
        ).stdout
        for threads in "12"
    ]  # fmt: skip
    assert printed[0] == printed[1] and "'h'" in printed[0]
