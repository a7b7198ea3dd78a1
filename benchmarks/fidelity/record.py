"""Train every network of four finite spaces, and write the whole curve of each: the tables of the benchmark.

    python benchmarks/fidelity/record.py --workers 64 --data-dir DATA --out benchmarks/fidelity/curves

Needs torch and numpy only. A run that is stopped goes on where it was: what is trained stands in ``part.jsonl``.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import multiprocessing
import os
import platform
import random
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Config = dict[str, Any]
Parameters = dict[str, Any]  #: name to the list of its values, or to a dict from each option to its own parameters
Part = tuple[Tensor, Tensor]  #: inputs and targets

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it
SYMBOLS = 64  # characters that the text keeps; all others are one more


# -- data -----------------------------------------------------------------------------------------------------------


class Data(Protocol):
    validation: Part
    test: Part

    def draw(self, config: Config) -> Part:
        """One mini-batch, with replacement."""


@dataclass
class Images:
    """Inputs float32 [n, pixels] of mean 0 and deviation 1, and classes int64 [n]."""

    train: Part
    validation: Part
    test: Part

    def draw(self, config: Config) -> Part:
        inputs, labels = self.train
        rows = torch.randint(len(labels), (config["batch"],))
        return inputs[rows], labels[rows]


@dataclass
class Text:
    """Characters as int64; the target is the next one. Parts for evaluation are [sequences, length]."""

    train: Tensor
    validation: Part
    test: Part

    def draw(self, config: Config) -> Part:
        window = config["window"]
        first = torch.randint(len(self.train) - window - 1, (16, 1))
        rows = first + torch.arange(window + 1)
        return self.train[rows[:, :-1]], self.train[rows[:, 1:]]


def _split(images: np.ndarray, labels: np.ndarray, sizes: tuple[int, int, int]) -> Images:
    """Consecutive parts, in the scale of the first."""
    images = (images - images[: sizes[0]].mean()) / images[: sizes[0]].std()
    ends = np.cumsum((0, *sizes))
    parts = [(images[a:b].astype(np.float32), labels[a:b].astype(np.int64)) for a, b in pairwise(ends)]
    return Images(*((torch.from_numpy(x), torch.from_numpy(y)) for x, y in parts))


def digits(directory: Path) -> Images:
    """scikit-learn's digits: 1,000 to train on, 400 for validation, 397 for the test; shuffled once for all."""
    if (directory / "digits.csv.gz").is_file():
        table = np.loadtxt(directory / "digits.csv.gz", delimiter=",")
    else:
        from sklearn.datasets import load_digits

        table = np.column_stack(load_digits(return_X_y=True))
    table = table[np.random.default_rng(0).permutation(len(table))]
    return _split(table[:, :-1], table[:, -1], (1000, 400, 397))


def _idx(directory: Path, name: str, header: int, count: int) -> np.ndarray:
    """The first ``count`` rows of one official file."""
    found = [folder / name for folder in (directory, DEBIAN) if (folder / name).is_file()]
    if not found:
        raise SystemExit(f"{name} is neither in {directory} nor in {DEBIAN}: install Debian's dataset-fashion-mnist")
    with gzip.open(found[0]) as file:
        content = file.read()
    return np.frombuffer(content, np.uint8, offset=header).reshape(int.from_bytes(content[4:8], "big"), -1)[:count]


def fashion(directory: Path) -> Images:
    """Fashion-MNIST: 10,000 to train on, 5,000 for validation (all official training images), 5,000 to test."""
    parts = (("train", 15000), ("t10k", 5000))
    images = np.concatenate([_idx(directory, f"{part}-images-idx3-ubyte.gz", 16, n) for part, n in parts])
    labels = np.concatenate([_idx(directory, f"{part}-labels-idx1-ubyte.gz", 8, n) for part, n in parts])
    return _split(images, labels[:, 0], (10000, 5000, 5000))


def noisy_fashion(directory: Path) -> Images:
    """The same with 2,500 to train on, of which 40% have a label drawn at random."""
    data, rng = fashion(directory), np.random.default_rng(0)
    images, labels = (part.numpy()[:2500] for part in data.train)
    labels = np.where(rng.random(2500) < 0.4, rng.integers(10, size=2500), labels)
    return Images((torch.from_numpy(images), torch.from_numpy(labels)), data.validation, data.test)


def war_and_peace(directory: Path) -> Text:
    """War and Peace: the first 80% to train on, 8,192 characters of the next 10%, and of the last, in 64 pieces."""
    text = np.array([ord(c) for c in (directory / "warandpeace.txt").read_text(encoding="utf-8")])
    kinds, counts = np.unique(text, return_counts=True)
    kept = np.sort(kinds[np.argsort(-counts)[:SYMBOLS]])
    place = np.searchsorted(kept, text).clip(max=SYMBOLS - 1)
    codes = np.where(kept[place] == text, place, SYMBOLS).astype(np.int64)
    train, validation, test = np.split(codes, [len(codes) * 8 // 10, len(codes) * 9 // 10])
    pieces = [np.stack([part[i : i + 129] for i in np.linspace(0, len(part) - 129, 64).astype(int)])
              for part in (validation, test)]  # fmt: skip
    held_out = [(torch.from_numpy(p[:, :-1].copy()), torch.from_numpy(p[:, 1:].copy())) for p in pieces]
    return Text(torch.from_numpy(train), *held_out)


# -- networks -------------------------------------------------------------------------------------------------------


def mlp(config: Config, pixels: int, depth: int) -> nn.Module:
    """A perceptron of equal layers."""
    layers: list[nn.Module] = []
    for inputs in (pixels, *[config["width"]] * (depth - 1)):
        layers += [nn.Linear(inputs, config["width"]), nn.Tanh() if config.get("activation") == "tanh" else nn.ReLU()]
        layers += [nn.Dropout(config["dropout"])] if config.get("dropout") else []
    return nn.Sequential(*layers, nn.Linear(config["width"], 10))


def cnn(config: Config) -> nn.Module:
    """Convolutions of stride 2 and ever more channels, then one linear layer."""
    layers, inputs, side = [nn.Unflatten(1, (1, 28, 28))], 1, 28
    for depth in range(config["layers"]):
        outputs, side = config["channels"] * min(depth + 1, 2), (side + 1) // 2
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)]
        layers += [nn.BatchNorm2d(outputs)] if config["norm"] == "batch" else []
        layers, inputs = [*layers, nn.ReLU()], outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(config["dropout"]), nn.Linear(inputs * side**2, 10))


class CharacterModel(nn.Module):
    """The next character from a recurrent network."""

    def __init__(self, config: Config):
        super().__init__()
        kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[config["cell"]]
        self.embedding = nn.Embedding(SYMBOLS + 1, 24)
        dropout = config.get("dropout", 0.0)
        self.cells = kind(24, config["width"], int(config["layers"]), batch_first=True, dropout=dropout)
        self.head = nn.Linear(config["width"], SYMBOLS + 1)

    def forward(self, characters: Tensor) -> Tensor:
        """Logits [batch, length, symbols]."""
        return self.head(self.cells(self.embedding(characters))[0])


def sgd(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    decay = config.get("decay", 0.0)
    return torch.optim.SGD(model.parameters(), config["lr"], momentum=0.9, weight_decay=decay, foreach=False)


def adam(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), config["lr"], foreach=False)


def either(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    if config["optimizer"] == "sgd":
        return torch.optim.SGD(model.parameters(), config["sgd_lr"], config["momentum"], foreach=False)
    return torch.optim.AdamW(model.parameters(), config["adam_lr"], weight_decay=config["decay"], foreach=False)


def constant(config: Config, t: float) -> float:
    return 1.0


def scheduled(config: Config, t: float) -> float:
    """The factor of the learning rate after the share ``t`` of the training."""
    if config["schedule"] == "cosine":
        return (1 + math.cos(math.pi * t)) / 2
    if config["schedule"] == "late drop":
        return 1.0 if t < 0.8 else 0.03
    if config["schedule"] == "long warm-up":
        return 0.001 + t / 0.5 if t < 0.5 else max(2 - 2 * t, 1e-3)
    return 1.0


def error(logits: Tensor, targets: Tensor) -> float:
    return float((logits.argmax(-1) != targets).float().mean())


def nats(logits: Tensor, targets: Tensor) -> float:
    return float(functional.cross_entropy(logits.flatten(0, -2), targets.flatten()))


def bits(logits: Tensor, targets: Tensor) -> float:
    return nats(logits, targets) / math.log(2)


# -- recipes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How one table is made.

    ``cost`` says roughly how long a configuration takes, in any unit: the slowest are trained first. A value that is
    not finite, or greater than ``worst``, is recorded as ``worst``.
    """

    about: str
    metric: str
    worst: float
    steps: int
    updates: int  #: mini-batches a step
    parameters: Parameters
    data: Callable[[Path], Data]
    model: Callable[[Config], nn.Module]
    optimizer: Callable[[nn.Module, Config], torch.optim.Optimizer]
    measure: Callable[[Tensor, Tensor], float]
    cost: Callable[[Config], float]
    factor: Callable[[Config, float], float] = constant


RECIPES = {
    "digits-mlp": Recipe(
        "scikit-learn's digits, perceptrons", "validation loss", 4.6, 81, 20,
        {
            "optimizer": {
                "sgd": {"sgd_lr": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0], "momentum": [0.0, 0.9]},
                "adam": {"adam_lr": [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03], "decay": [0.0, 0.1]},
            },
            "width": [16, 64, 256], "depth": [1, 3], "activation": ["relu", "tanh"], "batch": [16, 128],
        },
        digits, lambda c: mlp(c, 64, c["depth"]), either, nats,
        lambda c: (1 + c["depth"]) * (1 + c["width"] / 128) * (1 + c["batch"] / 128) * (1.5 if "decay" in c else 1),
    ),
    "fashion-cnn": Recipe(
        "Fashion-MNIST (10,000 images), convolutional networks", "validation error", 1.0, 27, 50,
        {
            "lr": [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3], "channels": [4, 8, 16], "layers": [2, 3],
            "norm": ["none", "batch"], "batch": [16, 64], "dropout": [0.0, 0.2, 0.5],
        },
        fashion, cnn, sgd, error,
        lambda c: (2 + c["channels"] / 8 + c["batch"] / 32) * (1.3 if c["norm"] == "batch" else 1) * c["layers"],
    ),
    "text-rnn": Recipe(
        "War and Peace, recurrent networks that predict the next character", "validation bits", 8.0, 27, 40,
        {
            "lr": [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1], "cell": ["rnn", "gru", "lstm"],
            "width": [24, 48, 96], "layers": {"1": {}, "2": {"dropout": [0.0, 0.2]}}, "window": [12, 24],
        },
        war_and_peace, CharacterModel, adam, bits,
        lambda c: {"rnn": 2, "gru": 4, "lstm": 1.5}[c["cell"]] * int(c["layers"]) * c["window"] * (1 + c["width"] / 96),
    ),
    "fashion-schedule": Recipe(
        "Fashion-MNIST (2,500 images, 40% of the training labels drawn at random), perceptrons whose learning rate "
        "follows a schedule: what is good early is not what is good at the end", "validation error", 1.0, 81, 25,
        {
            "lr": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3],
            "schedule": ["constant", "cosine", "late drop", "long warm-up"],
            "dropout": [0.0, 0.5], "smoothing": [0.0, 0.2], "decay": [0.0, 0.01], "batch": [32, 128],
        },
        noisy_fashion, lambda c: mlp(c | {"width": 128}, 784, 2), sgd, error,
        lambda c: (1 + c["dropout"]) * (1 + c["batch"] / 64), scheduled,
    ),
}  # fmt: skip


def configs(parameters: Parameters) -> Iterator[Config]:
    """Every configuration, flat: a branch's parameters stand beside the option that opens it."""
    choices = []
    for name, values in parameters.items():
        if isinstance(values, dict):
            choices.append([{name: option} | rest for option, branch in values.items() for rest in configs(branch)])
        else:
            choices.append([{name: value} for value in values])
    for parts in itertools.product(*choices):
        yield {name: value for part in parts for name, value in part.items()}


# -- training -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(recipe: Recipe, model: nn.Module, part: Part) -> float:
    model.eval()
    value = recipe.measure(torch.cat([model(piece) for piece in part[0].split(500)]), part[1])
    model.train()
    return min(value, recipe.worst) if math.isfinite(value) else recipe.worst


def train(name: str, config: Config, data: Data, deadline: float) -> dict[str, Any] | None:
    """The curve of one network; None where the time is up. Seconds are those of the processor."""
    recipe = RECIPES[name]
    torch.manual_seed(int.from_bytes(blake2b(json.dumps([name, config]).encode(), digest_size=7).digest(), "big"))
    model = recipe.model(config)
    optimizer = recipe.optimizer(model, config)
    values, seconds = [], []
    for step in range(recipe.steps):
        if time.monotonic() > deadline:
            return None
        started = time.process_time()
        for update in range(recipe.updates):
            for group in optimizer.param_groups:
                t = (step + update / recipe.updates) / recipe.steps
                group["lr"] = group.setdefault("peak", group["lr"]) * recipe.factor(config, t)
            inputs, targets = data.draw(config)
            optimizer.zero_grad()
            logits = model(inputs).flatten(0, -2)
            functional.cross_entropy(logits, targets.flatten(), label_smoothing=config.get("smoothing", 0.0)).backward()
            optimizer.step()
        values.append(round(evaluate(recipe, model, data.validation), 6))
        seconds.append(round(time.process_time() - started, 6))
    return {"values": values, "seconds": seconds, "test": round(evaluate(recipe, model, data.test), 6)}


DATA: dict[str, Data] = {}  #: loaded before the workers are forked
DEADLINE = math.inf  #: on the monotonic clock


def work(task: tuple[str, Config]) -> dict[str, Any]:
    """One row of a table, or what went wrong, or neither where the time is up."""
    name, config = task
    row: dict[str, Any] = {"table": name, "config": config}
    try:
        return row | (train(name, config, DATA[name], DEADLINE) or {})
    except Exception:
        return row | {"failed": traceback.format_exc()}


def settle() -> None:
    """What every worker sets for itself."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


# -- files ----------------------------------------------------------------------------------------------------------


def key(name: str, config: Config) -> str:
    return json.dumps([name, config], sort_keys=True)


def read(part: Path) -> dict[str, dict[str, Any]]:
    """The rows that stand in the part file; a last line that was cut short does not count."""
    rows = {}
    for line in part.read_text(encoding="utf-8").splitlines() if part.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["table"] in RECIPES and len(row["values"]) == RECIPES[row["table"]].steps:
            rows[key(row["table"], row["config"])] = row
    return rows


def write(out: Path, name: str, rows: dict[str, dict[str, Any]]) -> None:
    """One compressed file a table; NaN where a row was not trained."""
    recipe = RECIPES[name]
    every = list(configs(recipe.parameters))
    nothing = {"values": [math.nan] * recipe.steps, "seconds": [math.nan] * recipe.steps, "test": math.nan}
    found = [rows.get(key(name, config), nothing) for config in every]
    missing = sum(row is nothing for row in found)
    about = {
        "name": name, "about": recipe.about, "metric": recipe.metric, "worst": recipe.worst, "steps": recipe.steps,
        "updates": recipe.updates, "parameters": recipe.parameters, "configs": every, "missing": missing,
        "date": date.today().isoformat(), "torch": torch.__version__, "machine": f"{os.cpu_count()} x {processor()}",
    }  # fmt: skip
    np.savez_compressed(
        out / f"{name}.npz",
        values=np.array([row["values"] for row in found], dtype=np.float32),
        seconds=np.array([row["seconds"] for row in found], dtype=np.float16),
        test=np.array([row["test"] for row in found], dtype=np.float32),
        about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
    )
    total = sum(sum(row["seconds"]) for row in found if row is not nothing)
    size = (out / f"{name}.npz").stat().st_size
    print(f"{name}: {len(every) - missing} rows, {missing} missing, {total:.0f} core seconds, {size / 1000:.0f} kB")


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# -- the run --------------------------------------------------------------------------------------------------------


def tasks(names: list[str], done: dict[str, Any], rows: int | None) -> list[tuple[str, Config]]:
    """What is left to train. Tables take turns, each from its slowest configuration to its fastest."""
    queues = []
    for name in names:
        every = sorted(configs(RECIPES[name].parameters), key=RECIPES[name].cost, reverse=True)
        chosen = set(random.Random(0).sample(range(len(every)), min(rows or len(every), len(every))))
        queue = [(name, c) for i, c in enumerate(every) if i in chosen and key(name, c) not in done]
        queues += [((i + 0.5) / len(queue), task) for i, task in enumerate(queue)]
    return [task for _, task in sorted(queues, key=lambda pair: pair[0])]


def main() -> None:
    global DEADLINE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--data-dir", type=Path, default=DEBIAN, help="Fashion-MNIST's .gz files, warandpeace.txt")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "curves")
    parser.add_argument("--tables", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--limit-seconds", type=float, default=math.inf, help="stop after so long, and write")
    parser.add_argument("--rows", type=int, help="only so many configurations a table, drawn at random: for a trial")
    given = parser.parse_args()
    started = time.monotonic()
    DEADLINE = started + given.limit_seconds
    given.out.mkdir(parents=True, exist_ok=True)
    settle()
    DATA.update({name: RECIPES[name].data(given.data_dir) for name in given.tables})
    rows = read(given.out / "part.jsonl")
    todo = tasks(given.tables, rows, given.rows)
    print(f"{len(rows)} networks stand in part.jsonl, {len(todo)} to train by {given.workers} workers", flush=True)
    pool = multiprocessing.get_context("fork").Pool(given.workers, settle)
    finished, told = 0, started
    with (given.out / "part.jsonl").open("a", encoding="utf-8") as part, pool:
        for row in pool.imap_unordered(work, todo):
            if "failed" in row:
                print(f"failed: {row['table']} {row['config']}\n{row['failed']}", flush=True)
            elif "values" in row:
                finished += 1
                rows[key(row["table"], row["config"])] = row
                part.write(json.dumps(row) + "\n")
                part.flush()
            if time.monotonic() > told + 5:
                told = time.monotonic()
                print(f"{told - started:5.0f} s: {finished} of {len(todo)}", flush=True)
    print(f"{time.monotonic() - started:5.0f} s: {finished} of {len(todo)}")
    for name in given.tables:
        write(given.out, name, rows)


if __name__ == "__main__":
    main()
