"""Write the golden logs anew: ``python tests/golden/make.py``. Do so only where decisions are meant to change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tunesmith import Space, Study, samplers
from tunesmith.records import encode
from tunesmith.schedulers import (
    ASHA,
    FIRE,
    MFPBT,
    PB2,
    PBT,
    Backtrack,
    Chain,
    FreezeThaw,
    Full,
    Hyperband,
    Jitter,
    Median,
    Perturb,
    Plateau,
    PredictiveTermination,
    Race,
    SuccessiveHalving,
    Tournament,
    Truncation,
    TTest,
)  # fmt: skip
from tunesmith.space import Categorical, Fidelity, Float, Integer
from tunesmith.testing import GOAL, finite, mixed, nested, play

HERE = Path(__file__).parent
GRID = Space({"depth": Integer(1, 12), "width": Integer(8, 256, log=True, step=8)})  #: finite: rounding moves no choice


def studies() -> Iterator[tuple[str, Study]]:
    """One study for each thing that a log can hold."""
    yield "uniform", Study(mixed(), GOAL, samplers.Uniform(), Full(10), trials=20)
    yield "grid", Study(finite(), GOAL, samplers.Grid())
    yield "sobol-truncation", Study(mixed(), GOAL, samplers.QMC(), PBT(population=8, ready=3, steps=15), seed=1)
    jitter = PBT(population=4, ready=2, steps=10, exploit=Tournament(), explore=Jitter(0.1), synchronous=True)
    yield "synchronous-tournament", Study(mixed(), GOAL, samplers.QMC("halton"), jitter, seed=2)
    t_test = PBT(population=5, ready=2, steps=16, exploit=TTest(window=3, level=0.4), explore=Perturb(resample=0.3))
    yield "t-test", Study(mixed(), GOAL, samplers.Uniform(), t_test, seed=3)
    yield "tpe", Study(nested(), GOAL, samplers.TPE(startup=6), seed=5, trials=25)
    yield "gp", Study(GRID, GOAL, samplers.GP(), seed=6, trials=20)
    yield "cmaes", Study(GRID, GOAL, samplers.CMAES(population=4), seed=7, trials=40)
    evolution = samplers.RegularizedEvolution(population=6, sample=3)
    yield "regularized-evolution", Study(nested(), GOAL, evolution, seed=8, trials=30)
    yield "nsga2", Study(mixed(), GOAL, samplers.NSGA2(population=6), seed=9, trials=30)
    yield "seeds", Study(mixed(), GOAL, samplers.QMC(), Full(2, seeds=3), seed=10, trials=30)
    yield "asha", Study(mixed(), GOAL, samplers.QMC(), ASHA(9, brackets=2), seed=12, trials=20)
    yield "asha-stopping", Study(mixed(), GOAL, samplers.QMC(), ASHA(9, stopping=True), seed=13, trials=20)
    share = Space({**mixed(), "share": Fidelity(0.1, 1.0)})
    yield "hyperband", Study(share, GOAL, samplers.QMC(), Hyperband(9), seed=14, trials=20)
    yield "successive-halving", Study(mixed(), GOAL, samplers.QMC(), SuccessiveHalving(9), seed=15, trials=12)
    yield "median", Study(mixed(), GOAL, samplers.QMC(), Median(6, min_trials=3), seed=16, trials=15)
    yield "plateau", Study(mixed(), GOAL, samplers.QMC(), Plateau(8, patience=2), seed=17, trials=12)
    yield "freeze-thaw", Study(mixed(), GOAL, samplers.QMC(), FreezeThaw(9, every=3), seed=21, trials=12)
    predictive = PredictiveTermination(9, every=3, min_trials=3)
    yield "predictive-termination", Study(mixed(), GOAL, samplers.QMC(), predictive, seed=22, trials=15)
    chain = Chain(Hyperband(9, rounds=1), PBT(population=4, ready=3, steps=15))
    yield "chain", Study(mixed(), GOAL, samplers.QMC(), chain, seed=18)
    options = {"population": 8, "ready": 2, "steps": 14}
    pb2 = PBT(population=5, ready=2, steps=14, exploit=Truncation(0.4), explore=PB2())
    yield "pb2", Study(GRID, GOAL, samplers.QMC(), pb2, seed=19)
    yield "backtrack", Study(mixed(), GOAL, samplers.QMC(), PBT(**options, backtrack=Backtrack()), seed=20)
    yield "mfpbt", Study(mixed(), GOAL, samplers.QMC(), MFPBT(**options, frequencies=(1, 2)), seed=21)
    yield "fire", Study(mixed(), GOAL, samplers.QMC(), FIRE(**options), seed=22)
    yield "race", Study(mixed(), GOAL, samplers.Uniform(), Race(2, seeds=4), seed=11, trials=30)


def main() -> None:
    """Play every study with faults, and one through a migration."""
    for name, study in studies():
        play(study, np.random.default_rng(0), faults=0.1, jobs=60)
        write(name, study)
    study = Study(mixed(), GOAL, samplers.QMC(), Full(4), seed=4)
    study.add({**study.space.sample(np.random.default_rng(0))}, {"score": 0.5})
    study.enqueue(study.space.sample(np.random.default_rng(1)))
    play(study, np.random.default_rng(0), jobs=10)
    wider = Space({**study.space, "lr": Float(1e-6, 1.0, log=True), "norm": Categorical(["batch", "layer"])})
    study.change(space=wider, fill={"norm": "batch"}, scheduler=Full(6))
    play(study, np.random.default_rng(1), jobs=10)
    write("migration", study)


def write(name: str, study: Study) -> None:
    """One event a line."""
    (HERE / f"{name}.jsonl").write_bytes(b"\n".join(map(encode, study.events())) + b"\n")


if __name__ == "__main__":
    main()
