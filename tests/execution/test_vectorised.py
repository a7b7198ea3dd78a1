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
from tunesmith.execution import Inline, JaxTask, Vectorised, drive, vectorised
from tunesmith.execution.jax_task import _routes
from tunesmith.execution.stacks import Group, leaf_names


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
    [
        ({"static": "width"}, "must be names"),
        ({"static": (1,)}, "must be names"),
        ({"members": 0}, "members=0"),
        ({"chunk": 1.5}, "chunk=1.5"),
        ({"checkpoint_every": 10}, "checkpoint_every=10: this option is called save_every_jobs"),
        ({"memebers": 3}, "JaxTask has no option 'memebers'"),
        ({"devices": "cpu"}, r"devices='cpu' must be a list .* devices=jax.devices\('cpu'\)"),
        ({"devices": []}, r"devices=\[\] must be a list of at least one device"),
        ({"devices": [0]}, r"devices=\[0\] must be a list"),
        ({"devices": jax.devices()[0]}, "must be a list"),
        ({"devices": jax.devices()[:1] * 2}, "names a device twice"),
    ],
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
        if self.what == "shape":
            return {"x": jnp.ones(config["k"])}
        return {"key": key, "x": 0.0} if self.what == "key" else {"x": jnp.zeros(2)}

    def step(self, state, config, key):
        if self.what == "branch" and config["lr"] > 0.5:
            return state, 0.0
        if self.what == "range":
            return state, sum(config["lr"] for _ in range(config["k"]))
        new = {"type": {"x": state["x"].astype(int)}, "tree": {"y": state["x"]}, "metric": state}
        metrics = {"complex": {"score": config["lr"] * 1j}, "text": {"score": "good"}}
        return new.get(self.what, state), metrics.get(self.what, state["x"])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("key", "is a random key"),
        ("type", r"step made int32\[2\] of the state's x, which init has made float32\[2\]"),
        ("tree", "structure"),
        ("metric", r"the metric has the shape \(2,\)"),
        ("branch", "of the hyperparameters, lr, k are traced: .* must be static"),
        ("shape", "of the hyperparameters, lr, k are traced: .* must be static"),
        ("range", "must be static"),
        ("complex", "the metric 'score' is complex"),
        ("text", "the metric 'score' is 'good', a str, but must be a number"),
    ],
)
def test_mistakes_are_explained(what, message, tmp_path):
    executor = Vectorised(JaxTask(Wrong(what), chunk=8), options(tmp_path), members=2)
    executor.submit(ts.Job(0, 0, {"lr": 0.5, "k": 2}, 0, 1, None, "", 0))
    [report] = executor.wait(1.0)
    executor.close()
    assert re.search(message, report.failure.error), report.failure.error


class Pure:
    """A task of two functions; state and metrics by default are what the functions are given."""

    def __init__(self, init=lambda config, key: {}, step=lambda state, config, key: (state, {"score": config["lr"]})):
        self.init, self.step = init, step


def tuned(task, space=None, scheduler=None, **given):
    space = {"lr": ts.Float(0.125, 1.0), **(space or {})}
    given = {"sampler": ts.samplers.QMC(), "trials": 6, "scheduler": scheduler or ts.schedulers.Full(2)} | given
    study = ts.tune(task, space, maximise="score", **given)
    assert ts.replay(study) == []
    return study


@pytest.mark.parametrize("state", [{}, None, (), {"a": {}, "b": []}])
@pytest.mark.parametrize("chunk", [1, 8])
def test_a_state_may_be_empty(state, chunk, tmp_path):
    task = JaxTask(Pure(init=lambda config, key: state), chunk=chunk)
    study = tuned(task, store=tmp_path / "study.db")
    for trial in study.trials:
        assert trial.values("score") == ([1, 2], [pytest.approx(trial.config["lr"])] * 2)
        assert trial.checkpoints[-1].step == 2
    assert tuned(JaxTask(Pure(init=lambda config, key: state, step=uniform)), {"lr": 1}, trials=1).best is not None


def uniform(state, config, key):
    return state, {"score": jax.random.uniform(key)}


def test_metrics_may_be_whole_numbers_that_a_float32_can_not_hold():
    task = JaxTask(Pure(step=lambda state, config, key: (state, {"score": jnp.int32(2**30 + 1), "good": True})))
    assert tuned(task, trials=1).best.metrics == {"score": 2**30 + 1, "good": 1.0}


@pytest.mark.parametrize("chunk", [None, 1, 2, 8])
@pytest.mark.parametrize("every", [1, 10])
def test_a_callback_that_raises_for_some_fails_them_alone(chunk, every, tmp_path):
    """Also where the program that failed has taken all states with it."""

    def check(lr, n):
        if lr > 0.5 and n == 2:
            raise ArithmeticError("on purpose")
        return np.float32(n)

    def step(state, config, key):
        n = state["n"] + 1
        score = jax.pure_callback(
            check, jax.ShapeDtypeStruct((), jnp.float32), config["lr"], n, vmap_method="sequential"
        )
        return {"n": n}, {"score": score}

    task = JaxTask(Pure(lambda config, key: {"n": jnp.zeros((), jnp.int32)}, step), chunk=chunk, save_every_jobs=every)
    study = tuned(task, scheduler=ts.schedulers.Full(4), store=tmp_path / "study.db")
    assert {trial.status for trial in study.trials} == {"complete", "failed"}
    for trial in study.trials:
        bad = trial.config["lr"] > 0.5
        assert (trial.status == "failed") == bad
        assert trial.values("score")[1] == [1.0, 2.0, 3.0, 4.0][: 1 if bad else 4]
        assert not bad or "on purpose" in trial.error


def test_a_callback_of_init_that_raises_for_some_fails_them_alone():
    def check(lr):
        if lr > 0.5:
            raise ArithmeticError("on purpose")
        return lr

    def init(config, key):
        return {"x": jax.pure_callback(check, jax.ShapeDtypeStruct((), jnp.float32), config["lr"])}

    study = tuned(JaxTask(Pure(init, lambda state, config, key: (state, {"score": state["x"]})), chunk=8))
    assert {trial.status for trial in study.trials} == {"complete", "failed"}
    assert all((trial.status == "failed") == (trial.config["lr"] > 0.5) for trial in study.trials)


def test_large_whole_numbers_are_python_numbers(caplog):
    """What no int32 can hold; it is said once that each is compiled by itself."""
    task = JaxTask(Pure(step=lambda state, config, key: (state, {"score": float(config["k"] > 2**31)})), static=("k",))
    other = JaxTask(Pure(step=lambda state, config, key: (state, {"score": config["k"] // 2**20 + config["lr"] * 0})))
    for trial in tuned(task, {"k": ts.Integer(1, 3 * 10**9)}).trials:
        assert trial.last("score") == (trial.config["k"] > 2**31)
    assert caplog.text == ""
    study = tuned(other, {"k": ts.Integer(1, 3 * 10**9)})
    assert [trial.last("score") for trial in study.trials] == [trial.config["k"] // 2**20 for trial in study.trials]
    assert caplog.text.count("is too large for a device") == 1


@pytest.mark.parametrize(
    "state",
    [
        {"a.b": 1.0, "a": {"b": 2.0}},
        {"a": [1.0], "a.0": 2.0},
        {"": 1.0, "state": 2.0},
        {"x#1": 1.0, "x": {"": 2.0}, "x.": 3.0},
    ],
)
def test_arrays_by_similar_names_are_not_mixed_up(state, tmp_path):
    def step(state, config, key):
        leaves = jax.tree.leaves(state)
        return state, {"score": sum(leaf * 10**i for i, leaf in enumerate(leaves)) + 0 * config["lr"]}

    task = JaxTask(Pure(lambda config, key: jax.tree.map(jnp.float32, state), step), chunk=8)
    want = sum(value * 10**i for i, value in enumerate(jax.tree.leaves(state)))
    goal, space = ts.Goal("score"), ts.Space({"lr": ts.Float(0, 1)})
    for make in (Vectorised, Inline):
        root = tmp_path / make.__name__
        store = f"{root}.db"
        for steps in (2, 4):  # the second time everything is loaded
            scheduler = ts.schedulers.PBT(population=2, ready=1, steps=steps)
            study = ts.Study.open(store) if steps == 4 else ts.Study(space, goal, None, scheduler, store)
            study.change(scheduler=scheduler)
            assert drive(study, make(task, options(root))) == "done"
            assert {trial.last("score") for trial in study.trials} == {want}
            study.close()


def test_names_of_arrays():
    assert leaf_names([("a", 0), ("a", 1), ("b",)]) == ("a.0", "a.1", "b")
    assert leaf_names([()]) == ("state",)
    assert leaf_names([("a.b",), ("a", "b")]) == ("'a.b'", "'a'.'b'")
    assert leaf_names([(1,), ("1",)]) == ("1", "'1'")
    with pytest.raises(TypeError, match="two arrays of the state have the name"):
        leaf_names([(Same(),), (Same(),)])


class Same:
    def __repr__(self):
        return "same"


def test_a_launch_is_told_while_the_next_one_is_on_the_device(monkeypatch, tmp_path):
    """Two waves: the second is sent off before the first is waited for, and `free` asks for one at a time."""
    monkeypatch.setattr(vectorised, "WAVE", 2)
    executor = Vectorised(JaxTask(TOY, chunk=2, members=4), options(tmp_path))
    jobs = [ts.Job(n, n, {"lr": 0.5, "k": 1}, 0, 2, None, "", n) for n in range(6)]
    assert (executor.slots, executor.free) == (4, 2)
    for job in jobs[:2]:
        executor.submit(job)
    assert executor.free == 0
    assert executor.wait(1.0) == [] and executor.free == 2  # on its way
    for job in jobs[2:4]:
        executor.submit(job)
    done = []
    while len(done) < 4:
        done += [report.ask for report in executor.wait(1.0) if report.done]
    assert sorted(done[:2]) == [0, 1] and sorted(done[2:]) == [2, 3]
    executor.close()


def test_members_are_dealt_out_to_several_devices(tmp_path):
    """The same study as on one device; four devices are simulated, which must be said before JAX starts."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    command = [sys.executable, "-W", "error", __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "True 4 True True\nTrue True\nTrue True\n")


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
    vectorised.WAVE = 4
    waves = JaxTask(TOY, chunk=4, members=8, save_every_jobs=3, devices=jax.devices(), cache=root / "cache")
    study = Test().trained(root / "c", **given, task=waves)
    Test().check(study)
    print(trials(study) == trials(one), ts.replay(study) == [])


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


@pytest.mark.parametrize(
    ("rows", "slower", "wave"),
    [
        (1024, {}, 256),  # smaller launches cost nothing: as much as can be is done beside the training
        (1024, {256: 1.1}, 512),
        (1024, {512: 1.5, 256: 2.0}, 1024),
        (512, {}, 128),
        (256, {}, 128),
        (128, {}, 128),  # too few for waves
    ],
)
def test_waves_weigh_slower_launches_against_the_work_of_the_driver(rows, slower, wave):
    joint = 5e-4  # seconds a step of a member
    timed = lambda members, chunk: joint * slower.get(chunk, 1.0)  # noqa: E731
    assert vectorised._quickest(timed, rows, joint, steps=1) == wave
    assert vectorised._quickest(timed, rows, joint, steps=1000) == wave
