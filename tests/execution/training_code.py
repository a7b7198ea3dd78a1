"""Training code of every form: ``x`` goes up by ``lr`` a step, from 0; the metrics are ``x`` and ``lr``."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tunesmith.execution import Command, Files


def generator(config, state=None):
    x = 0.0 if state is None else state["x"]
    while True:
        x += config["lr"]
        yield {"x": x, "lr": config["lr"]}, {"x": x}


def lazy_generator(config, state=None):
    x = 0.0 if state is None else state
    while True:
        x += config["lr"]
        yield {"x": x, "lr": config["lr"]}, lambda x=x: x


class Counter:
    def setup(self, config):
        self.lr = config["lr"]
        self.x = 0.0

    def step(self):
        self.x += self.lr
        return {"x": self.x, "lr": self.lr}

    def save(self):
        return {"x": self.x, "lr": self.lr}

    def load(self, tree):
        self.x, self.lr = tree["x"], tree["lr"]  # the old learning rate comes back, as with an optimizer's state

    def reconfigure(self, config):
        self.lr = config["lr"]


class FileCounter(Counter):
    def save(self, path):
        (path / "folder").mkdir()
        (path / "folder" / "x.json").write_text(json.dumps([self.x, self.lr]))

    def load(self, path):
        self.x, self.lr = json.loads((path / "folder" / "x.json").read_text())


def reporting(trial):
    x = 0.0 if trial.state is None else trial.state["x"]
    while True:
        x += trial.config["lr"]
        trial.report(x=x, lr=trial.config["lr"], state={"x": x})


class ExplicitTask:
    def init(self, config, rng):
        return 0.0

    def step(self, state, config):
        x = state + config["lr"]
        return x, {"x": x, "lr": config["lr"]}

    def save(self, state):
        return state

    def load(self, tree, config):
        return tree


def write_x(x):
    return Files(lambda path: (path / "x").write_text(repr(x)))


SCRIPT = """
import json, os, pathlib, sys
lr, start, until = float(sys.argv[1]), int(os.environ["TUNESMITH_START"]), int(os.environ["TUNESMITH_UNTIL"])
load = os.environ.get("TUNESMITH_LOAD")
x = float(pathlib.Path(load, "x").read_text()) if load else 0.0
print("some other line")
for step in range(start, until):
    x += lr
    print(json.dumps({"x": x, "lr": lr}), flush=True)
pathlib.Path(os.environ["TUNESMITH_SAVE"], "x").write_text(repr(x))
"""

command = Command([sys.executable, "-c", SCRIPT, "{lr}"])

RESUMABLE = {
    "generator": generator,
    "lazy generator": lazy_generator,
    "class": Counter,
    "class with files": FileCounter,
    "reporting function": reporting,
    "task": ExplicitTask(),
    "command": command,
}


def value(config):
    return config["lr"]


# -- what saves nothing: x is lr times the step ----------------------------------------------------------------------


def forgetful(config):
    step = 0
    while True:
        step += 1
        yield {"x": config["lr"] * step}


def forgetful_function(trial):
    while True:
        trial.report({"x": trial.config["lr"] * (trial.step + 1)})


def forgetful_to_its_end(trial):
    for step in range(1, 8):
        trial.report({"x": trial.config["lr"] * step})


class Forgetful:
    def setup(self, config):
        self.lr, self.steps = config["lr"], 0

    def step(self):
        self.steps += 1
        return {"x": self.lr * self.steps}


FORGETFUL_SCRIPT = """
import json, os, sys
start, until = int(os.environ["TUNESMITH_START"]), os.environ.get("TUNESMITH_UNTIL", "1000")
for step in range(start + 1, (int(until) if sys.argv[2] == "obeys" else 40) + 1):
    print(json.dumps({"x": float(sys.argv[1]) * step}), flush=True)
"""

FORGETFUL = {
    "generator": forgetful,
    "reporting function": forgetful_function,
    "function that ends": forgetful_to_its_end,
    "class": Forgetful,
    "command that obeys": Command([sys.executable, "-ISc", FORGETFUL_SCRIPT, "{lr}", "obeys"]),
    "command that goes on": Command([sys.executable, "-ISc", FORGETFUL_SCRIPT, "{lr}", "goes on"]),
}


# -- with worker processes: each ends badly once a trial, at the first time it comes there ------------------------


def _first_time(config):
    """Whether this is the first time that this is called with the flag."""
    try:
        Path(config["flag"]).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def crash(config, state=None):
    for metrics, tree in generator(config, state):
        if metrics["x"] >= 5 and _first_time(config):
            how = config["how"]
            if how == "exit":
                os._exit(3)
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "memory":
                raise MemoryError("too much")
            if how == "hang":
                time.sleep(600)
            raise RuntimeError("something is wrong")
        yield metrics, tree


def always_crashing(config):
    os._exit(1)


def where(config):
    """What a worker sees of its device."""
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TUNESMITH_WORKER")
    time.sleep(0.05)
    return {"lr": config["lr"], "pid": os.getpid(), **{n.lower(): float(os.environ.get(n) or -1) for n in names}}


def slow(config, state=None):
    for metrics, tree in generator(config, state):
        time.sleep(0.02)
        yield metrics, tree


def ends_badly_after_a_while(config):
    """Two steps, then half a second of the third."""
    yield {"x": 1.0}
    time.sleep(0.2)
    yield {"x": 2.0}
    time.sleep(0.5)
    if config["how"] == "exit":
        os._exit(3)
    if config["how"] == "raise":
        raise RuntimeError("something is wrong")
    time.sleep(3600)


def reports_and_then_ends_badly(trial):
    """Steps one right after the other, then a long while, and an end without a word."""
    for step in range(trial.config["steps"]):
        trial.report({"x": float(step + 1)})
    time.sleep(1)
    if trial.config["how"] == "exit":
        os._exit(3)
    time.sleep(3600)


def leaves_a_thread_in_torch(config):
    def stay(gradient):
        while True:
            time.sleep(0.001)

    def loop():
        import torch

        x = torch.ones(1, requires_grad=True)
        y = 2 * x
        y.register_hook(stay)
        begun.set()
        y.backward()

    begun = threading.Event()
    threading.Thread(target=loop, daemon=True).start()
    begun.wait()
    time.sleep(0.1)
    return config["lr"]


def says_goodbye(config):
    """At the end of its process it writes a file, as does a thread that takes longer; so does a line without an end."""

    def write(name):
        time.sleep(0.2)
        (Path(config["folder"]) / name).write_text("")

    if not (Path(config["folder"]) / "begun").exists():
        write("begun")
        atexit.register(write, "goodbye")
        threading.Thread(target=write, args=("late",)).start()
        sys.stdout.write("no end of a line")
        sys.stderr.write("nor here")
    return config["lr"]


def returns_after_reports(trial):
    for step in range(3):
        trial.report({"x": trial.config["lr"] + step})
    return {"x": 99.0}


def returns_after_yields(config):
    for step in range(3):
        yield {"x": config["lr"] + step}
    return 99.0


class ReturnsLater:
    """What is returned is no metric."""

    def __call__(self, trial):
        trial.report({"x": 1.0})
        return self


def reports_once(trial):
    trial.report({"x": trial.config["lr"]})


def with_a_pool(config):
    """Leaves a pool of threads behind, as JAX tasks, data loaders and many libraries do."""
    _pools.append(ThreadPoolExecutor(1))
    yield {"x": _pools[-1].submit(float, 1).result()}


_pools = []
