"""Population based training of 64 networks on scikit-learn's digits as one JAX program, and the schedules it has found.

    python examples/population_jax.py
    python examples/population_jax.py 4         # so many steps

Needs the extras ``jax``, ``data`` and ``figures``. It writes ``schedule.png``: the hyperparameters of the best member
over its training, and those of all others.
"""

from __future__ import annotations

import sys
import time

import tunesmith as ts
from tunesmith.analysis.figures import plot_schedule
from tunesmith.analysis.schedule import schedule
from tunesmith.execution import JaxTask
from tunesmith.workloads.vectorised_mlp import DenseNetwork, space

UPDATES = 50  # of the weights, in one step of the study

if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    pbt = ts.schedulers.PBT(population=64, ready=1, steps=steps)
    begun = time.perf_counter()
    study = ts.tune(JaxTask(DenseNetwork(updates=UPDATES)), space(), maximise="accuracy", scheduler=pbt)
    seconds = time.perf_counter() - begun
    trained = sum(trial.step - trial.start for trial in study.trials) * UPDATES
    print(f"64 members, {trained:,} updates in {seconds:.1f} s, compilation included")
    print("best", study.best.config, study.best.metrics)
    plot_schedule(schedule(study), study).savefig("schedule.png", dpi=150)
