"""A study that is made to be killed: ``python victim.py STORE KIND WORKERS``.

Its training mixes every hyperparameter that it was ever given, and the number of its steps, into one number. A step
that is lost, repeated or skipped, or begun from the wrong weights, shows in every value after it. Each step that is
really trained is noted in a journal beside the store.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import tunesmith as ts
from tunesmith.execution import Files, current_job

SPACE = ts.Space({"lr": ts.Float(0.01, 1.0, log=True), "momentum": ts.Float(0.0, 0.9)})
POPULATION, STEPS, TRIALS = 4, 120, 12
KINDS = {
    "population": (ts.schedulers.PBT(population=POPULATION, ready=10, steps=STEPS), None),
    "generations": (ts.schedulers.PBT(population=POPULATION, ready=10, steps=STEPS, synchronous=True), None),
    "full": (ts.schedulers.Full(30), TRIALS),
    "slow saves": (ts.schedulers.PBT(population=3, ready=2, steps=6), None),
}


def mixed(x, config, step):
    """The state after one more step. Exact: the same floats in the same order."""
    return (1.7 * x + config["lr"] * step + config["momentum"]) % 1.0


def trained(step):
    """Note that a step was really trained, and take some time for it."""
    line = f"{current_job().trial} {step}\n".encode()
    file = os.open(os.environ["VICTIM_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)
    time.sleep(0.008)


class Mixing:
    """The training code."""

    def setup(self, config):
        self.config, self.x, self.count = config, 0.0, 0

    def step(self):
        self.count += 1
        self.x = mixed(self.x, self.config, self.count)
        trained(self.count)
        return {"x": self.x, "count": self.count}

    def save(self):
        return {"x": self.x, "count": self.count}

    def load(self, tree):
        self.x, self.count = tree["x"], tree["count"]


class SlowSaves:
    """The same, with checkpoints that take longer to write than the training."""

    def init(self, config, rng):
        return 0.0, 0

    def step(self, state, config):
        x, count = mixed(state[0], config, state[1] + 1), state[1] + 1
        trained(count)
        return (x, count), {"x": x, "count": count}

    def save(self, state):
        def write(folder):
            for number in range(10):
                (folder / f"part-{number}").write_text(repr(state[0] if number == 9 else number))
                time.sleep(0.01)
            (folder / "count").write_text(str(state[1]))

        return Files(write)

    def load(self, folder, config):
        return float((folder / "part-9").read_text()), int((folder / "count").read_text())


def main(store: str, kind: str, workers: str) -> None:
    """Begin the study, or go on with it."""
    scheduler, trials = KINDS[kind]
    train = SlowSaves() if kind == "slow saves" else Mixing
    ts.tune(
        train, SPACE, minimise="x", scheduler=scheduler, trials=trials, store=Path(store), workers=int(workers), seed=5
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
