"""How fast a population trains as one program: beside a hand-written JAX loop, and beside PyTorch in processes.

    python benchmarks/population_speed.py --case digits
    python benchmarks/population_speed.py --case mlp transformer lstm cnn ppo exploit
    python benchmarks/population_speed.py --case transformer cnn --bf16
    python benchmarks/population_speed.py --case mlp --updates 100 --chunk 1024 512 256 --rivals
    python benchmarks/population_speed.py --case rounds

A member-step is one update of one member's weights, on a minibatch of its own (for ``ppo``: a step of an environment).
``system`` is a whole study: population based training through the driver, decisions, forks on the device and log
included. ``bare`` calls the same compiled step in a loop that does nothing else. The others train one network a process
in PyTorch (``population_rivals.py``), and so many of them take so many times as long. All train on random data, ``ppo``
in CartPole; compilation is not counted. ``mlp-fused`` updates its layers in the backward pass, which pays with
``--bf16``. With ``--chunk`` below the number of members a study sends them off in waves, and decides while the device
trains the next wave. ``rounds`` is what deciding and reporting costs: a study whose training does nothing, in processor
time a member and round.

Figures are medians; on a machine that others use too compare those of processor time ("CPU"). ``--devices 2`` deals the
members out to two GPUs, or two cores of a machine that has none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
import population_rivals as rivals
from jax import numpy as jnp

import tunesmith as ts
from tunesmith.execution import Checkpoints, JaxTask, Options, Vectorised, drive
from tunesmith.kernels.convolution import conv
from tunesmith.kernels.fused import dense as dense_updated
from tunesmith.kernels.fused import with_momentum

SPACE = ts.Space(
    {
        "lr": ts.Float(1e-4, 1e-2, log=True),
        "momentum": ts.Float(0.5, 0.95),
        "weight_decay": ts.Float(1e-6, 1e-3, log=True),
    }
)
ROWS = 2048  # images or sequences of random data


# -- models: init(key) -> weights, loss(weights, batch) --------------------------------------------------------------


def dense(key: Any, inputs: int, outputs: int) -> dict[str, Any]:
    return {"w": jax.random.normal(key, (inputs, outputs)) * (2 / inputs) ** 0.5, "b": jnp.zeros(outputs)}


def cross_entropy(logits: Any, labels: Any) -> Any:
    chances = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(chances, labels[..., None], -1).mean()


def apply(layer: dict[str, Any], x: Any) -> Any:
    return x @ layer["w"].astype(x.dtype) + layer["b"].astype(x.dtype)


class MLP:
    """Widths, for instance 784-512-512-10; ReLU."""

    def __init__(self, *widths: int) -> None:
        self.widths = widths
        self.shape, self.classes = (widths[0],), widths[-1]

    def init(self, key: Any) -> Any:
        keys = jax.random.split(key, len(self.widths))
        return [dense(k, a, b) for k, (a, b) in zip(keys, pairwise(self.widths), strict=False)]

    def loss(self, weights: Any, x: Any, y: Any) -> Any:
        for layer in weights[:-1]:
            x = jax.nn.relu(apply(layer, x))
        return cross_entropy(apply(weights[-1], x), y)


class Transformer:
    """A language model of characters: width 128, 2 layers, 4 heads, 64 places; attention is written out."""

    shape, classes, width, heads = (64,), 128, 128, 4

    def init(self, key: Any) -> Any:
        keys = iter(jax.random.split(key, 16))
        d = self.width
        block = lambda: {  # noqa: E731
            "in": dense(next(keys), d, 3 * d), "out": dense(next(keys), d, d),
            "up": dense(next(keys), d, 4 * d), "down": dense(next(keys), 4 * d, d),
            "norms": jnp.ones((2, d)),
        }  # fmt: skip
        embed = lambda rows: jax.random.normal(next(keys), (rows, d)) * 0.02  # noqa: E731
        return {
            "tokens": embed(self.classes), "places": embed(64), "blocks": [block(), block()],
            "head": dense(next(keys), d, self.classes),
        }  # fmt: skip

    def loss(self, weights: Any, x: Any, y: Any) -> Any:
        tokens = x.astype(jnp.int32) % self.classes
        kind = x.dtype
        h = (weights["tokens"][tokens] + weights["places"]).astype(kind)
        mask = jnp.tril(jnp.ones((64, 64), bool))
        for block in weights["blocks"]:
            qkv = apply(block["in"], self.norm(h, block["norms"][0])).reshape(*h.shape[:2], 3, self.heads, -1)
            q, k, v = jnp.moveaxis(qkv, 2, 0)
            scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / (self.width / self.heads) ** 0.5
            chances = jax.nn.softmax(jnp.where(mask, scores, -1e9).astype(jnp.float32)).astype(kind)
            h = h + apply(block["out"], jnp.einsum("bhqk,bkhd->bqhd", chances, v).reshape(h.shape))
            h = h + apply(block["down"], jax.nn.gelu(apply(block["up"], self.norm(h, block["norms"][1]))))
        return cross_entropy(apply(weights["head"], h[:, :-1]), tokens[:, 1:])

    @staticmethod
    def norm(x: Any, scale: Any) -> Any:
        x32 = x.astype(jnp.float32)
        x32 = (x32 - x32.mean(-1, keepdims=True)) * jax.lax.rsqrt(x32.var(-1, keepdims=True) + 1e-5)
        return (x32 * scale).astype(x.dtype)


class LSTM:
    """Two layers of 128 over 64 places of 32 values."""

    shape, classes, width = (64, 32), 10, 128

    def init(self, key: Any) -> Any:
        keys = jax.random.split(key, 3)
        d = self.width
        return [dense(keys[0], 32 + d, 4 * d), dense(keys[1], 2 * d, 4 * d), dense(keys[2], d, self.classes)]

    def loss(self, weights: Any, x: Any, y: Any) -> Any:
        def cell(carry: Any, now: Any) -> Any:
            after = []
            for layer, (h, c) in zip(weights[:-1], carry, strict=True):
                i, f, g, o = jnp.split(apply(layer, jnp.concatenate([now, h], -1)), 4, -1)
                c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                now = jax.nn.sigmoid(o) * jnp.tanh(c)
                after.append((now, c))
            return after, None

        zero = jnp.zeros((len(x), self.width), x.dtype)
        carry, _ = jax.lax.scan(cell, [(zero, zero)] * 2, x.swapaxes(0, 1), unroll=8)
        return cross_entropy(apply(weights[-1], carry[-1][0]), y)


class CNN:
    """ResNet-8 for 32 x 32 x 3: three blocks of 16, 32 and 64 channels."""

    shape, classes = (32, 32, 3), 10

    def init(self, key: Any) -> Any:
        keys = iter(jax.random.split(key, 12))
        conv = lambda a, b, size=9: dense(next(keys), size * a, b) | {"scale": jnp.ones(b)}  # noqa: E731
        widths = [(16, 16), (16, 32), (32, 64)]
        blocks = [{"a": conv(a, b), "b": conv(b, b), "skip": conv(a, b, 1)} for a, b in widths]
        return {"first": conv(3, 16), "blocks": blocks, "head": dense(next(keys), 64, self.classes)}

    def loss(self, weights: Any, x: Any, y: Any) -> Any:
        x = jax.nn.relu(self.conv(weights["first"], x))
        for number, block in enumerate(weights["blocks"]):
            stride = 1 if number == 0 else 2
            h = self.conv(block["b"], jax.nn.relu(self.conv(block["a"], x, stride)))
            x = jax.nn.relu(h + apply(block["skip"], x[:, ::stride, ::stride]))
        return cross_entropy(apply(weights["head"], x.mean((1, 2))), y)

    @staticmethod
    def conv(layer: Any, x: Any, stride: int = 1) -> Any:
        """3 x 3, then normalised over the batch."""
        h = conv(x, layer["w"].reshape(3, 3, x.shape[-1], -1), stride) + layer["b"].astype(x.dtype)
        h32 = h.astype(jnp.float32)
        h32 = (h32 - h32.mean((0, 1, 2))) * jax.lax.rsqrt(h32.var((0, 1, 2)) + 1e-5)
        return (h32 * layer["scale"]).astype(x.dtype)


class Training:
    """The pure functions: SGD with momentum; for transformer and LSTM Adam, with ``momentum`` as its first beta."""

    def __init__(self, model: Any, batch: int, updates: int, bf16: bool) -> None:
        self.model, self.batch, self.updates = model, batch, updates
        self.kind = jnp.bfloat16 if bf16 else jnp.float32
        self.adam = isinstance(model, Transformer | LSTM)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(ROWS, *model.shape)).astype(np.float32) * (100 if isinstance(model, Transformer) else 1)
        self.data = (x, rng.integers(0, model.classes, ROWS).astype(np.int32))

    def init(self, config: Any, key: Any, data: Any) -> Any:
        weights = self.model.init(key)
        zeros = jax.tree.map(jnp.zeros_like, weights)
        return (weights, zeros, zeros, jnp.zeros(())) if self.adam else (weights, zeros)

    def step(self, state: Any, config: Any, key: Any, data: Any) -> Any:
        def update(state: Any, rows: Any) -> Any:
            return self.update(state, config, data[0][rows].astype(self.kind), data[1][rows])

        minibatches = jax.random.randint(key, (self.updates, self.batch), 0, ROWS)
        state, losses = jax.lax.scan(update, state, minibatches)
        return state, {"loss": losses.mean()}

    def update(self, state: Any, config: Any, x: Any, y: Any) -> Any:
        loss, slope = jax.value_and_grad(self.model.loss)(state[0], x, y)
        slope = jax.tree.map(lambda g, w: g + config["weight_decay"] * w, slope, state[0])
        return (adam if self.adam else sgd)(state, slope, config), loss


class Fused(Training):
    """An MLP: what comes back as the gradient are the layers after the update."""

    def init(self, config: Any, key: Any, data: Any) -> Any:
        return [with_momentum(layer) for layer in self.model.init(key)]

    def update(self, state: Any, config: Any, x: Any, y: Any) -> Any:
        def of(layers: Any) -> Any:
            h = x
            for number, layer in enumerate(layers):
                h = dense_updated(layer, config, h, relu=number > 0)
            return cross_entropy(h, y)

        loss, layers = jax.value_and_grad(of)(state)
        return layers, loss


def sgd(state: Any, slope: Any, config: Any) -> Any:
    momentum = jax.tree.map(lambda m, g: config["momentum"] * m + g, state[1], slope)
    return jax.tree.map(lambda w, m: w - config["lr"] * m, state[0], momentum), momentum


def adam(state: Any, slope: Any, config: Any) -> Any:
    weights, first, second, count = state
    beta, count = config["momentum"], count + 1
    first = jax.tree.map(lambda m, g: beta * m + (1 - beta) * g, first, slope)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slope)
    rate = config["lr"] * jnp.sqrt(1 - 0.999**count) / (1 - beta**count)
    weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-8), weights, first, second)
    return weights, first, second, count


@dataclass
class Case:
    """What is trained, with how many members and updates a step of the study.

    ``work`` is what is counted of a member's step: its updates, or the steps of its environments.
    """

    pure: Any
    space: ts.Space
    goal: ts.Goal
    members: int
    updates: int
    work: int


def case(name: str, members: int | None, updates: int | None, bf16: bool) -> Case:
    """By its name; members and updates where they are not given are those of the figures in the documents."""
    if name == "ppo":
        sys.path.append(str(Path(__file__).parent.parent / "examples"))
        from reinforcement_learning import SPACE as SPACE_OF_PPO
        from reinforcement_learning import ActorCritic

        agent = ActorCritic(environments=4, unroll=128, updates=updates or 200)
        goal = ts.Goal("reward", maximise=True)
        return Case(agent, SPACE_OF_PPO, goal, members or 1024, agent.updates, agent.updates * 4 * 128)
    model, batch, usual, many = {
        "digits": (MLP(64, 32, 10), 64, 64, 200),
        "mlp": (MLP(784, 512, 512, 10), 128, 256, 500),
        "mlp-fused": (MLP(784, 512, 512, 10), 128, 256, 500),
        "transformer": (Transformer(), 32, 64, 100),
        "lstm": (LSTM(), 32, 64, 100),
        "cnn": (CNN(), 128, 64, 40),
    }[name]
    many = updates or many
    kind = Fused if name == "mlp-fused" else Training
    return Case(kind(model, batch, many, bf16), SPACE, ts.Goal("loss"), members or usual, many, many)


# -- the ways, each a function that trains for so many steps of the study ---------------------------------------------


def bare(given: Case) -> Callable[[int], object]:
    """The hand-written loop."""
    pure, members = given.pure, given.members
    keys = jax.random.split(jax.random.key(0), members)
    middle = given.space.sample(np.random.default_rng(0))
    configs = {name: jnp.full(members, value) for name, value in middle.items()}
    data = (jax.device_put(pure.data),) if hasattr(pure, "data") else ()
    step = jax.jit(
        lambda state, keys: jax.vmap(lambda s, c, k: pure.step(s, c, k, *data))(state, configs, keys), donate_argnums=0
    )
    held = [jax.jit(jax.vmap(lambda k: pure.init(middle, k, *data)))(keys)]

    def train(steps: int) -> object:
        for number in range(steps):
            held[0], metrics = step(held[0], jax.vmap(partial(jax.random.fold_in, data=number))(keys))
        return jax.block_until_ready(metrics)

    return train


def system(task: JaxTask, given: Case, every: int, synchronous: bool) -> Callable[[int], object]:
    """A study."""

    def train(steps: int) -> object:
        pbt = ts.schedulers.PBT(population=given.members, ready=1, steps=steps, synchronous=synchronous)
        study = ts.Study(given.space, given.goal, sampler=ts.samplers.Uniform(), scheduler=pbt)
        with tempfile.TemporaryDirectory() as root:
            options = Options((given.goal.metric,), root if every else None)
            executor = Vectorised(task, options, members=given.members, keep=study.startable)
            return drive(study, executor, checkpoints=Checkpoints(root) if every else None)

    return train


def rate(train: Callable[[int], object], work: int, seconds: float) -> tuple[float, float]:
    """Member-steps a second, and a second of processor time, over about so many seconds; ``work`` is done in a step."""
    begun = time.perf_counter()
    train(2)
    steps = max(2, min(200, int(2 * seconds / (time.perf_counter() - begun))))
    begun, used = time.perf_counter(), time.process_time()
    train(steps)
    return steps * work / (time.perf_counter() - begun), steps * work / (time.process_time() - used)


def measured(name: str, given: argparse.Namespace, chunk: int | None) -> None:
    """All ways of a case, and what the whole study is beside each."""
    this = case(name, given.members, given.updates, given.bf16)
    devices = jax.devices()[: given.devices]
    task = JaxTask(this.pure, chunk=chunk or this.members, save_every_jobs=max(1, given.every), devices=devices)
    ways = {"system": system(task, this, given.every, not given.asynchronous)}
    if len(devices) == 1:
        ways["bare"] = bare(this)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for train in ways.values():
        train(2)  # compiled
    for _ in range(given.repeat):  # in turns
        for way, train in ways.items():
            found[way].append(rate(train, this.members * this.work, given.seconds))
    whole = tuple(statistics.median(x[i] for x in found["system"]) for i in (0, 1))
    title = f"{name}, {'bf16' if given.bf16 else 'f32'}, {this.members} members, {this.updates} updates a step"
    title += f", {chunk} at a time" if chunk else ""
    title += ", asynchronous" if given.asynchronous else ""
    for way, rates in found.items():
        wall, cpu = (statistics.median(x[i] for x in rates) for i in (0, 1))
        print(f"| {title} | {way} | {wall:,.0f} | {whole[0] / wall:.3g} | {whole[1] / cpu:.3g} |", flush=True)
    for processes, graph, mps in given.rivals if name in rivals.CASES else ():
        way = f"PyTorch, {processes} x {'graph' if graph else 'eager'}{' + MPS' if mps else ''}"
        try:
            wall = rivals.measure(name, processes, graph, mps, given.bf16, given.seconds)
        except Exception as error:  # a rival that can't train is none
            print(f"| {title} | {way} | {error} | | |", flush=True)
            continue
        print(f"| {title} | {way} | {wall:,.0f} | {whole[0] / wall:.3g} | |", flush=True)


class Nothing:
    """A training that does nothing."""

    def init(self, config: Any, key: Any) -> Any:
        return jnp.zeros(())

    def step(self, state: Any, config: Any, key: Any) -> Any:
        return state * 0.9 + config["lr"], {"loss": state}


def rounds(given: argparse.Namespace) -> None:
    """Deciding and reporting; the first two rounds, which compile the programs, are not counted."""
    members, many = given.members or 1024, 20
    case = Case(Nothing(), SPACE, ts.Goal("loss"), members, 1, 1)
    devices = jax.devices()[: given.devices]
    task = JaxTask(case.pure, chunk=members, save_every_jobs=max(1, given.every), devices=devices)
    train = system(task, case, given.every, not given.asynchronous)
    found = []
    for _ in range(given.repeat + 1):
        begun = time.process_time()
        train(2)
        middle = time.process_time()
        train(2 + many)
        found.append((time.process_time() - middle - (middle - begun)) / many / members)
    print(f"rounds: {1e6 * statistics.median(found[1:]):.3g} us of processor time a member and round")


def exploit(given: argparse.Namespace) -> None:
    """A fifth of the members copies another one."""
    this = case("mlp", given.members or 1024, 1, False)
    task = JaxTask(this.pure, devices=jax.devices()[: given.devices])
    group = task.group(this.space.sample(np.random.default_rng(0)))
    stack = task.stack(group, this.members)
    rows = np.random.default_rng(0).permutation(this.members)[: 2 * (this.members // 5)].tolist()
    to, origin = rows[: this.members // 5], rows[this.members // 5 :]
    seconds = []
    for _ in range(given.repeat * 5 + 2):
        begun = time.perf_counter()
        stack.copy(to, stack, origin)
        jax.block_until_ready(stack.leaves)
        seconds.append(time.perf_counter() - begun)
    print(f"exploit: {len(to)} of {this.members} MLPs copied in {1e3 * statistics.median(seconds[2:]):.3g} ms")


RIVALS = {"eager": (1, False, False), "graph": (1, True, False), "shared": (4, False, False), "mps": (8, True, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["digits", "mlp", "mlp-fused", "transformer", "lstm", "cnn", "ppo", "exploit", "rounds"]
    parser.add_argument("--case", nargs="+", choices=names, default=["digits"])
    parser.add_argument("--members", type=int, help="by default what the case says")
    parser.add_argument("--updates", type=int, help="updates a step of the study; between two of them members decide")
    parser.add_argument("--chunk", type=int, nargs="+", default=[None], help="members at a time; all by default")
    parser.add_argument(
        "--asynchronous", action="store_true", help="a member decides when it is ready, without waiting"
    )
    parser.add_argument("--every", type=int, default=0, help="every so many jobs checkpoints are written; 0: none")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16, with weights in float32")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument(
        "--rivals", nargs="*", choices=RIVALS, default=["eager"],
        help="one PyTorch process, eagerly or as a CUDA graph; four that share the GPU; eight with graphs and MPS",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", given.devices)  # where there is no GPU
    if given.devices > len(jax.devices()):
        parser.error(f"--devices {given.devices}: there are {len(jax.devices())}")
    given.rivals = [RIVALS[name] for name in given.rivals]
    print(f"JAX {jax.__version__} on {given.devices} x {jax.devices()[0].device_kind}")
    print("| case | way | member-steps/s | system is | of CPU |\n|---|---|--:|--:|--:|", flush=True)
    for name in given.case:
        if name in ("exploit", "rounds"):
            {"exploit": exploit, "rounds": rounds}[name](given)
            continue
        for chunk in given.chunk:
            measured(name, given, chunk)


if __name__ == "__main__":
    main()
