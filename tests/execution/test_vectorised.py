"""Populations as one program, in JAX."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp
from stacked import SPACE, Stacked, options, trials

import tunesmith as ts
from tunesmith.execution import JaxTask, Vectorised
from tunesmith.execution.jax_task import _routes
from tunesmith.execution.stacks import Group


class Counting:
    """What ``tunesmith.testing.executors.counting`` does; it fails by a value that is not finite."""

    def init(self, config, key):
        return {"n": jnp.zeros((), jnp.int32)}

    def step(self, state, config, key):
        n = state["n"] + 1
        fails = n >= config.get("fails", 10**6)
        return {"n": n}, {"score": jnp.where(fails, jnp.nan, n * config["lr"])}


def number(key):
    """Something random that is quick to compile."""
    return jax.random.key_data(key)[0].astype(jnp.float32)


class Toy:
    static = ("width", "batch")

    def init(self, config, key):
        zero = jnp.zeros((), jnp.int32)
        return {"x": zero, "n": zero, "w": number(key) * jnp.ones(config.get("width", 3))}

    def step(self, state, config, key):
        if config.get("wrong"):
            raise RuntimeError("a mistake on purpose")
        n = state["n"] + 1
        mixed = jnp.floor(jnp.float32(config["lr"]) * 2**12).astype(jnp.int32)
        x = (17 * state["x"] + mixed + config.get("k", 0)) % 4093
        score = jnp.where(n >= config.get("fails", 10**6), jnp.nan, x)
        return {"x": x, "n": n, "w": state["w"] * 1}, {"score": score, "noise": number(key)}


TOY = Toy()


class Test(Stacked):
    train = JaxTask(Counting(), chunk=8)
    every = 4

    @staticmethod
    @cache  # a task keeps what it has compiled
    def task(chunk=8, **given):
        return JaxTask(TOY, chunk=chunk, **given)


def test_what_varies_and_what_is_static():
    one = {"lr": 0.5, "k": 3, "width": 2, "kind": "a", "flag": True}
    group = Group.of(one, ("width",))
    assert dict(group.varying) == {"lr": float, "k": int}
    assert dict(group.static) == {"width": 2, "kind": "a", "flag": True}
    assert group == Group.of(one | {"lr": 0.1, "k": 4}, ("width",))
    for other in ({"width": 3}, {"kind": "b"}, {"flag": False}, {"lr": 1}, {"new": 0.5}):
        assert group != Group.of(one | other, ("width",))


def test_a_task_can_be_sent_to_another_process():
    task = JaxTask(TOY, members=3)
    task.layout(task.group({"lr": 0.5}))
    again = pickle.loads(pickle.dumps(task))
    assert again.members == 3 and task._made and not again._made


def test_few_programs_are_compiled():
    sizes = {JaxTask(TOY).capacity(members, 50) for members in range(1, 51)}
    assert sizes == {1, 2, 4, 8, 16, 32, 50}


@pytest.mark.parametrize(
    ("given", "message"),
    [({"static": "width"}, "must be names"), ({"members": 0}, "members=0"), ({"chunk": 1.5}, "chunk=1.5")],
)
def test_wrong_arguments(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        JaxTask(TOY, **given)
    with pytest.raises(TypeError, match="lacks init and step"):
        JaxTask(object())


class Wrong(Toy):
    """What a state or a step must not be."""

    def __init__(self, what):
        self.what = what

    def init(self, config, key):
        return {"key": key, "x": 0.0} if self.what == "key" else {"x": jnp.zeros(2)}

    def step(self, state, config, key):
        if self.what == "branch" and config["lr"] > 0.5:
            return state, 0.0
        new = {"type": {"x": state["x"].astype(int)}, "tree": {"y": state["x"]}, "metric": state}
        return new.get(self.what, state), state["x"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("key", "is a random key"),
        ("type", r"step made int32\[2\] of the state's x, which init has made float32\[2\]"),
        ("tree", "structure"),
        ("metric", r"has the shape \(2,\)"),
        ("branch", "static"),
    ],
)
def test_mistakes_are_explained(what, message, tmp_path):
    executor = Vectorised(JaxTask(Wrong(what), chunk=8), options(tmp_path), members=2)
    executor.submit(ts.Job(0, 0, {"lr": 0.5}, 0, 1, None, "", 0))
    [report] = executor.wait(1.0)
    executor.close()
    assert re.search(message, report.failure.error), report.failure.error


def test_members_are_dealt_out_to_several_devices(tmp_path):
    """The same study as on one device; four devices are simulated, which must be said before JAX starts."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    command = [sys.executable, "-W", "error", __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "True 4 True True\nTrue True\n")


def on_four_devices(root):
    """What runs there: a study with five members, so that rows are filled up, and the same on one device.

    Compiled programs are kept in a directory, which is a setting of the whole process.
    """
    given = {"scheduler": "generations", "space": SPACE}
    several = JaxTask(TOY, chunk=8, members=5, devices=jax.devices(), cache=root / "cache")
    sharded = Test().trained(root / "a", **given, executor=Vectorised(several, options(root / "a")))
    [leaf, *_] = several.stack(several.group({"lr": 0.5, "k": 1}), 8).leaves
    one = Test().trained(root / "b", **given)
    print(
        trials(sharded) == trials(one),
        len(leaf.sharding.device_set),
        ts.replay(sharded) == [],
        any((root / "cache").iterdir()),
    )
    print(*copies(several))


def copies(task):
    """Whether rows are what they should be after random copies, inside a stack and from a smaller one."""
    rng = np.random.default_rng(0)
    stack, values = task.stack(task.group({"lr": 0.5, "k": 1}), 16), rng.normal(size=(16, 3))
    stack.leaves = tuple(task.place(np.resize(values, leaf.shape).astype(leaf.dtype)) for leaf in stack.leaves)
    want, exact = [np.asarray(leaf).copy() for leaf in stack.leaves], True
    for _ in range(20):
        rows = rng.permutation(16)[: rng.integers(1, 9)].tolist()
        sources = rng.integers(16, size=len(rows)).tolist()
        stack.copy(rows, stack, sources)
        taken = stack.take(rng.permutation(16)[:4].tolist())
        lost = rng.permutation(16)[:2].tolist()
        stack.copy(lost, taken, [3, 0])
        for leaf, full, small in zip(stack.leaves, want, taken.leaves, strict=True):
            full[rows] = full[sources]
            full[lost] = np.asarray(small)[[3, 0]]
            exact &= np.array_equal(np.asarray(leaf), full)
    return exact, all(leaf.sharding == task.sharding for leaf in stack.leaves)


@given(st.data())
def test_every_row_finds_its_way(data):
    devices, mine, theirs = (data.draw(st.integers(1, most)) for most in (4, 5, 5))
    rows = data.draw(st.lists(st.integers(0, devices * mine - 1), unique=True))
    sources = [data.draw(st.integers(0, devices * theirs - 1)) for _ in rows]
    own, sent, put = _routes(rows, devices * mine, sources, devices * theirs, devices)
    before = np.arange(devices * theirs).reshape(devices, theirs)
    after = np.full((devices, mine + 1), -1)  # the last one is dropped
    for b in range(devices):
        got = [before[b][own[b]], *(before[a][sent[a, b]] for a in range(devices))]
        after[b][put[b]] = np.concatenate(got)
    found = after[:, :-1].ravel()
    assert found[rows].tolist() == sources
    assert all(found[row] == -1 for row in set(range(devices * mine)) - set(rows))


if __name__ == "__main__":
    on_four_devices(Path(sys.argv[1]))
