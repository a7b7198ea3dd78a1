"""Real training at the same seconds: a convolutional network on Fashion-MNIST, random search against multi-fidelity.

    python benchmarks/fidelity/training.py --seconds 240 --seeds 15 --processes 2 --out training.jsonl

Every run is one worker on one core for so many seconds. Validation (2,000 images) decides; the test images are looked
at once, after the end, by the weights of the trial that validation selects. A row a run is appended to the file.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy

import argparse  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

import tunesmith as ts  # noqa: E402
from tunesmith.checkpoints import Checkpoints  # noqa: E402
from tunesmith.workloads import images  # noqa: E402

STEPS = 81  #: of a full training
IMAGES = 2_000  #: a step
METHODS = {
    "random search": ("Uniform()", "Full(81)"),
    "ASHA": ("Uniform()", "ASHA(81)"),
    "ASHA, TPE": ("TPE()", "ASHA(81)"),
    "BOHB": ("BOHB()", "Hyperband(81)"),
}
SPACE = ts.Space(
    {
        "optimizer": ts.Categorical(
            {
                "sgd": ts.Space({"sgd_lr": ts.Float(1e-4, 1.0, log=True), "momentum": ts.Float(0.0, 0.99)}),
                "adam": ts.Space({"adam_lr": ts.Float(1e-5, 0.1, log=True)}),
            }
        ),
        "batch": ts.Ordinal([16, 32, 64, 128, 256]),
        "layers": ts.Integer(1, 3),
        "channels": ts.Integer(4, 32, log=True),
        "dropout": ts.Float(0.0, 0.7),
        "decay": ts.Float(1e-7, 1e-2, log=True),
    }
)
Batch = tuple[Tensor, Tensor]


def data(directory: str | None) -> dict[str, Batch]:
    """Training, 2,000 validation images, test: [n, 1, 28, 28] and labels."""
    parts = images.load("fashion-mnist", directory)
    found = {}
    for name, split in (("train", parts.train), ("validation", parts.validation), ("test", parts.test)):
        count = 2_000 if name == "validation" else len(split)
        pixels = torch.from_numpy(split.images[:count]).reshape(-1, 1, 28, 28).float().div_(255.0)
        found[name] = pixels.sub_(0.286).div_(0.353), torch.from_numpy(split.labels[:count])
    return found


def network(config: dict[str, Any]) -> nn.Sequential:
    """Convolutions of stride 2, and a linear layer."""
    layers: list[nn.Module] = []
    inputs, side = 1, 28
    for depth in range(config["layers"]):
        outputs, side = config["channels"] * (depth + 1), (side + 1) // 2
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(config["dropout"]), nn.Linear(inputs * side**2, 10))


def optimizer(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    if config["optimizer"] == "adam":
        return torch.optim.AdamW(model.parameters(), config["adam_lr"], weight_decay=config["decay"])
    return torch.optim.SGD(
        model.parameters(), config["sgd_lr"], momentum=config["momentum"], weight_decay=config["decay"]
    )


def accuracy(model: nn.Module, part: Batch) -> float:
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(*(t.split(1_000) for t in part), strict=True))
    model.train()
    return right / len(part[1])


def trainer(parts: dict[str, Batch]) -> Any:
    """The training code, with its data."""
    pixels, labels = parts["train"]

    def train(config: dict[str, Any], state: Any = None, seed: int = 0) -> Iterator[Any]:
        torch.manual_seed(seed % 2**31)
        model = network(config)
        updates = optimizer(model, config)
        if state is not None:
            model.load_state_dict(state["model"])
            updates.load_state_dict(state["updates"])
        step = 0 if state is None else state["step"]
        while True:
            draws = torch.Generator().manual_seed(seed % 2**31 + step)
            for rows in torch.randint(len(labels), (IMAGES,), generator=draws).split(config["batch"]):
                updates.zero_grad()
                cross_entropy(model(pixels[rows]), labels[rows]).backward()
                updates.step()
            step += 1
            found = {"model": model.state_dict(), "updates": updates.state_dict(), "step": step}
            yield {"accuracy": accuracy(model, parts["validation"])}, found

    return train


def run(method: str, seed: int, seconds: float, directory: str | None, keep: Path | None) -> dict[str, Any]:
    """One search."""
    torch.set_num_threads(1)
    parts = data(directory)
    sampler, scheduler = METHODS[method]
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        study = ts.tune(
            trainer(parts), SPACE, maximise="accuracy", seconds=seconds, seed=seed, checkpoints=folder, progress=False,
            sampler=eval(sampler, {name: getattr(ts.samplers, name) for name in ts.samplers.__all__}),
            scheduler=eval(scheduler, vars(ts.schedulers)),
            store=None if keep is None else keep / f"{method.replace(', ', '-').replace(' ', '-')}.db",
        )  # fmt: skip
        wall = time.perf_counter() - begin
        best = study.best
        saved = best.checkpoints[-1]
        model = network(best.config)
        model.load_state_dict(Checkpoints(folder).load(saved.where, saved.digest)["model"])
        test = accuracy(model, parts["test"])
    clock, highest, path = 0.0, 0.0, []
    for event in study.events():
        if type(event).__name__ == "Told":
            each = event.seconds / (event.step - event.start)
            for value in event.metrics["accuracy"]:
                clock += each
                if value is not None and value > highest:
                    highest = value
                    path.append((round(clock, 2), value))
    steps = sum(trial.step for trial in study.trials)
    return {
        "method": method, "seed": seed, "wall": wall, "validation": best.last("accuracy"), "test": test,
        "trials": len(study.trials), "steps": steps, "best_step": best.step, "config": best.config, "path": path,
    }  # fmt: skip


def attempt(given: tuple[Any, ...]) -> dict[str, Any]:
    return run(*given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--seeds", type=int, default=15)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--processes", type=int, default=2, help="runs at once; give each a core of its own")
    parser.add_argument("--data-dir", help="of the idx files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=Path("training.jsonl"))
    parser.add_argument("--keep", type=Path, help="a folder for the studies of the first seed")
    given = parser.parse_args()
    runs = [
        (method, seed, given.seconds, given.data_dir, given.keep if seed == 0 else None)
        for seed in range(given.seeds)
        for method in given.methods
    ]
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool, given.out.open("a") as file:
        for row in pool.imap_unordered(attempt, runs):
            print(json.dumps(row), file=file, flush=True)
            found = f"validation {row['validation']:.4f}, test {row['test']:.4f}"
            spent = f"{row['trials']} trials, {row['steps']} steps in {row['wall']:.0f} s"
            print(f"{row['method']:14} seed {row['seed']:2}: {found}, {spent}", flush=True)


if __name__ == "__main__":
    main()
