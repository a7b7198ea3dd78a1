"""The same networks in PyTorch, a network a process: eagerly or as a CUDA graph, alone or many sharing the GPU.

    python benchmarks/population_rivals.py --case mlp --processes 8 --graph --mps

What is printed is the sum over the processes, in member-steps a second: updates of one network's weights. Batches are
drawn on the device; products of matrices may use TensorFloat-32, as in JAX. ``--mps`` lets the kernels of several
processes run side by side (NVIDIA's Multi-Process Service, started for the measurement and ended after it).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

ROWS = 2048  # images or sequences of random data


class Transformer(nn.Module):
    """A language model of characters: width 128, 2 layers, 4 heads, 64 places."""

    def __init__(self, width: int = 128, classes: int = 128) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(classes, width), nn.Embedding(64, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(64, x.device)
        return self.head(self.blocks(self.tokens(x) + self.places.weight, mask, is_causal=True))


class LSTM(nn.Module):
    """Two layers of 128 over 64 places of 32 values."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(32, 128, 2, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(x)[0][:, -1])


class Block(nn.Module):
    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(m, b, 3, s, 1) for m, s in ((a, stride), (b, 1)))
        self.norms, self.skip = nn.ModuleList([nn.BatchNorm2d(b), nn.BatchNorm2d(b)]), nn.Conv2d(a, b, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norms[1](self.b(F.relu(self.norms[0](self.a(x))))) + self.skip(x))


def mlp(*widths: int) -> nn.Module:
    layers = [module for a, b in pairwise(widths) for module in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Module:
    """ResNet-8."""
    first = (nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
    blocks = (Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
    return nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {  # the model, the shape of a row, the batch
    "digits": (lambda: mlp(64, 32, 10), (64,), 64),
    "mlp": (lambda: mlp(784, 512, 512, 10), (784,), 128),
    "transformer": (Transformer, (64,), 32),
    "lstm": (LSTM, (64, 32), 32),
    "cnn": (cnn, (3, 32, 32), 128),
}


def training(case: str, bf16: bool, device: str) -> Callable[[], None]:
    """One update: SGD with momentum, for transformer and LSTM Adam."""
    make, shape, batch = CASES[case]
    network = make().to(device)
    x = torch.randn(ROWS, *shape, device=device)
    y = torch.randint(0, 10, (ROWS,), device=device)
    if case == "transformer":
        x = torch.randint(0, 128, (ROWS, *shape), device=device)
    if case == "cnn":
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer: torch.optim.Optimizer
    if case in ("transformer", "lstm"):
        optimizer = torch.optim.Adam(network.parameters(), 1e-3, weight_decay=1e-4, capturable=device == "cuda")
    else:
        optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9, weight_decay=1e-4)

    def update() -> None:
        rows = torch.randint(0, ROWS, (batch,), device=device)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            out = network(x[rows])
            if case == "transformer":
                loss = F.cross_entropy(out[:, :-1].flatten(0, 1), x[rows][:, 1:].flatten())
            else:
                loss = F.cross_entropy(out, y[rows])
        loss.backward()
        optimizer.step()

    return update


def captured(update: Callable[[], None]) -> Callable[[], None]:
    """The update as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            update()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update()
    return graph.replay


def train(case: str, graph: bool, bf16: bool, seconds: float, barrier: Any, out: Any) -> None:
    """One process: says how many updates a second it made."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None
    try:
        update = training(case, bf16, device)
        update = captured(update) if graph else update
        for _ in range(20):
            update()
        synchronise()
    except Exception as error:
        barrier.abort()
        out.put(repr(error))
        return
    barrier.wait(120)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(10):
            update()
        synchronise()
        count += 10
    out.put(count / (time.perf_counter() - begun))


@contextmanager
def service() -> Iterator[None]:
    """NVIDIA's Multi-Process Service, for the processes that are started inside."""
    with tempfile.TemporaryDirectory() as root:
        told = {"CUDA_MPS_PIPE_DIRECTORY": f"{root}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{root}/log"}
        before = dict(os.environ)
        os.environ.update(told)
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True)
        if "CUDA_VISIBLE_DEVICES" in before:
            os.environ["CUDA_VISIBLE_DEVICES"] = "0"  # the service numbers anew what it sees
        try:
            yield
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, check=False, timeout=60)
            for name in told:
                del os.environ[name]
            os.environ.update(before)


def measure(
    case: str, processes: int = 1, graph: bool = False, mps: bool = False, bf16: bool = False, seconds: float = 5.0
) -> float:
    """Member-steps a second of so many processes together.

    Raises:
        RuntimeError: a process could not train.
    """
    context = get_context("spawn")
    barrier, out = context.Barrier(processes), context.Queue()
    with service() if mps else nullcontext():
        given = (case, graph, bf16, seconds, barrier, out)
        running = [context.Process(target=train, args=given) for _ in range(processes)]
        for process in running:
            process.start()
        total = 0.0
        for _ in running:
            found = out.get(timeout=300)
            if isinstance(found, str):  # the others stop at the barrier
                raise RuntimeError(f"{case}: {found}")
            total += found
        for process in running:
            process.join()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="digits")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--graph", action="store_true", help="an update is one CUDA graph")
    parser.add_argument("--mps", action="store_true", help="with the Multi-Process Service")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    print(f"{given.case}: {measure(**vars(given)):,.0f} member-steps/s in {given.processes} processes")


if __name__ == "__main__":
    main()
