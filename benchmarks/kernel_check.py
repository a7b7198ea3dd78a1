"""Whether the kernels are right and fast on this machine's GPU, beside the plain formulas.

    python benchmarks/kernel_check.py                        # everything, about ten minutes
    python benchmarks/kernel_check.py --parts layers --sweep  # other tiles, too
    python benchmarks/kernel_check.py --against DIRECTORY     # and another version of convolution.py and fused.py

``tests`` runs ``tests/kernels``; ``errors`` compares with products in full precision; ``layers`` times the
convolutions of ResNet-8 and the dense layers of a perceptron, for 64 and 256 members; ``networks`` whole training
steps, as ``population_speed.py`` does, and says how long the first one took. Figures are medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from tunesmith.kernels import _launch, convolution, fused

ROOT = Path(__file__).parent.parent
CONVOLUTIONS = [  # height and width, inputs, outputs, stride: those of ResNet-8; 128 images, 3 x 3
    (32, 3, 16, 1),
    (32, 16, 16, 1),
    (32, 16, 32, 2),
    (16, 32, 32, 1),
    (16, 32, 64, 2),
    (8, 64, 64, 1),
]
DENSE = [(784, 512), (512, 512), (512, 10)]  # batch 128
PRODUCT = [  # tiles to try: see `convolution.Tiles`
    (64, 64, 4, 4, 2), (64, 64, 4, 4, 3), (128, 64, 4, 4, 2), (128, 64, 4, 8, 2), (128, 64, 2, 4, 2),
    (128, 64, 2, 4, 3), (64, 64, 2, 4, 3), (128, 32, 4, 4, 3), (64, 32, 4, 4, 3), (64, 128, 4, 4, 2),
]  # fmt: skip
SLOPE = [
    (64, 64, 4, 4, 3), (64, 64, 4, 4, 2), (128, 64, 4, 4, 2), (128, 64, 4, 4, 3), (64, 64, 2, 4, 3), (64, 128, 4, 8, 3),
    (32, 64, 4, 4, 3), (64, 64, 4, 4, 3, 64, 1024), (64, 64, 4, 4, 3, 64, 16384), (64, 64, 4, 2, 3),
]  # fmt: skip
FORWARD = [  # `fused.Tiles`
    (64, 64, 4, 2), (64, 64, 4, 3), (64, 64, 8, 2), (32, 64, 4, 3), (128, 64, 8, 2), (64, 32, 4, 2), (64, 128, 8, 2),
]  # fmt: skip
BACKWARD = [
    (32, 64, 4, 2), (32, 64, 4, 3), (64, 64, 4, 2), (64, 64, 8, 2), (32, 32, 4, 2), (16, 64, 4, 2), (32, 128, 8, 2),
]  # fmt: skip
RATES = fused.Rates(0.1, 0.9, 0.01)


def loaded(directory: Path) -> dict[str, ModuleType]:
    """Another version of the modules."""
    made = {}
    for name in ("convolution", "fused"):
        spec = importlib.util.spec_from_file_location(f"other_{name}", directory / f"{name}.py")
        assert spec is not None and spec.loader is not None
        made[name] = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made[name])
    return made


@contextmanager
def formulas() -> Iterator[None]:
    """Kernels are off."""
    usual = _launch.reason
    _launch.reason = lambda: "formulas are asked for"  # type: ignore[assignment]
    jax.clear_caches()
    try:
        yield
    finally:
        _launch.reason = usual
        jax.clear_caches()


def ways(against: Path | None) -> dict[str, tuple[Any, Any, Callable[[], Any]]]:
    """What convolves, what is a dense layer, and what is in force meanwhile."""
    found = {
        "kernels": (convolution.conv, fused.dense, partial(_nothing)),
        "formulas": (convolution.conv, fused.dense, formulas),
    }
    if against is not None:
        other = loaded(against)
        found["other"] = (other["convolution"].conv, other["fused"].dense, partial(_nothing))
    return found


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def arrays(members: int, *shapes: tuple[int, ...], kinds: tuple[Any, ...]) -> list[Any]:
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [
        jax.random.normal(key, (members, *shape), jnp.float32).astype(kind)
        for key, shape, kind in zip(keys, shapes, kinds, strict=True)
    ]


def microseconds(function: Any, given: list[Any], repeat: int = 7, calls: int = 8) -> float:
    """Of one call on the device: several in one program, on inputs of their own; NaN where it can't be compiled."""
    copies = [jax.tree.map(lambda a, n=number: (a + 0.001 * n).astype(a.dtype), given) for number in range(calls)]
    program = jax.jit(lambda copies: [function(*copy) for copy in copies])
    try:
        jax.block_until_ready(program(copies))
    except Exception as error:
        print("   ", " ".join(str(error).split())[:150])
        return float("nan")
    times = []
    for _ in range(repeat):
        begun = time.perf_counter()
        jax.block_until_ready(program(copies))
        times.append((time.perf_counter() - begun) / calls)
    return 1e6 * statistics.median(times)


# -- the parts --------------------------------------------------------------------------------------------------------


def tests(given: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5", "tests/kernels"]
    command += ["-n", "0"] if importlib.util.find_spec("xdist") else []
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    subprocess.run(command, cwd=ROOT, env=environment, check=False)


def products(conv: Any, stride: int) -> dict[str, Callable[..., Any]]:
    """Of images, filters and the slope of the result."""
    return {
        "result": lambda x, f, s: conv(x, f, stride),
        "slope of images": lambda x, f, s: jax.vjp(lambda x: conv(x, f, stride), x)[1](s)[0],
        "slope of filters": lambda x, f, s: jax.vjp(lambda f: conv(x, f, stride), f)[1](s)[0],
    }


def all_of(conv: Any, stride: int) -> Callable[..., Any]:
    return jax.jit(jax.vmap(lambda x, f, s: [product(x, f, s) for product in products(conv, stride).values()]))


def shapes_of(layer: tuple[int, ...], batch: int) -> tuple[tuple[int, ...], ...]:
    size, inputs, outputs, stride = layer
    return (batch, size, size, inputs), (3, 3, inputs, outputs), (batch, size // stride, size // stride, outputs)


def exact(x: Any, filters: Any, stride: int) -> Any:
    names, precision = ("NHWC", "HWIO", "NHWC"), jax.lax.Precision.HIGHEST
    return jax.lax.conv_general_dilated(
        x, filters, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=names, precision=precision
    )


def norm(found: Any, wanted: Any) -> float:
    """Of the difference, relative; NaN stays NaN."""
    found, wanted = (np.asarray(each, np.float64) for each in (found, wanted))
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def errors(given: argparse.Namespace) -> None:
    """Of result, slope of the images, slope of the filters; rounding to bfloat16 is an error of 0.0017."""
    print("| product | kind | " + " | ".join(ways(given.against)) + " |")
    for layer, kind in itertools.product((CONVOLUTIONS[0], *CONVOLUTIONS[-2:]), (jnp.bfloat16, jnp.float32)):
        x, f, s = arrays(3, *shapes_of(layer, 4), kinds=(kind, kind, kind))
        f = f.astype(jnp.float32)
        wanted = all_of(exact, layer[3])(*(each.astype(jnp.float32) for each in (x, f, s)))
        row = []
        for conv, _, inside in ways(given.against).values():
            with inside():
                found = all_of(conv, layer[3])(x, f, s)
            row.append(" ".join(f"{norm(*pair):.1e}" for pair in zip(found, wanted, strict=True)))
        print(f"| conv {layer} | {kind.__name__} | {' | '.join(row)} |", flush=True)
    for inputs, outputs in DENSE:
        case = dense_case(3, inputs, outputs)
        with formulas(), jax.default_matmul_precision("highest"):
            wanted = jax.jit(jax.vmap(dense_step(fused.dense)))(*case)
        row = []
        for _, dense, inside in ways(given.against).values():
            with inside():
                found = jax.jit(jax.vmap(dense_step(dense)))(*case)
            row.append(max(jax.tree.leaves(jax.tree.map(norm, found, wanted))))
        print(f"| dense {inputs} x {outputs} | bfloat16 | " + " | ".join(f"{e:.1e}" for e in row) + " |", flush=True)


def dense_case(members: int, inputs: int, outputs: int) -> list[Any]:
    x, dy, w, m, b, m_b = arrays(
        members, (128, inputs), (128, outputs), (inputs, outputs), (inputs, outputs), (outputs,), (outputs,),
        kinds=(jnp.bfloat16,) * 2 + (jnp.float32,) * 4,
    )  # fmt: skip
    return [{"w": w / inputs**0.5, "b": b, "momentum": {"w": m, "b": m_b}}, x, dy]


def dense_step(dense: Any) -> Callable[..., Any]:
    def step(layer: Any, x: Any, dy: Any) -> Any:
        y, back = jax.vjp(lambda layer, x: dense(layer, RATES._asdict(), x, relu=True), layer, x)
        return y, back(dy)

    return step


def layers(given: argparse.Namespace) -> None:
    print(f"microseconds, 64 members, batch 128, bfloat16: {', '.join(ways(given.against))}")
    for layer in CONVOLUTIONS:
        stride = layer[3]
        case = arrays(64, *shapes_of(layer, 128), kinds=(jnp.bfloat16, jnp.float32, jnp.bfloat16))
        direct = {
            "result": (PRODUCT, lambda t, x, f, s, n=stride: convolution._result(x, f, n, t)),
            "slope of images": (PRODUCT, lambda t, x, f, s, n=stride: convolution._slope_of_images(x, f, s, n, t)),
            "slope of filters": (SLOPE, lambda t, x, f, s, n=stride: convolution._slope_of_filters(x, f, s, n, t)),
        }
        for name, (cuts, way) in direct.items():
            if layer == CONVOLUTIONS[0] and name == "slope of images":
                continue  # images are data
            row = []
            for conv, _, inside in ways(given.against).values():
                with inside():
                    row.append(microseconds(jax.vmap(products(conv, stride)[name]), case))
            others = ""
            if given.sweep:
                times = {cut: microseconds(jax.vmap(partial(way, convolution.Tiles(*cut))), case, 5) for cut in cuts}
                best = sorted(times, key=lambda cut: (times[cut] != times[cut], times[cut]))
                others = "; ".join(f"{cut}: {times[cut]:.0f}" for cut in best[:4])
            print(f"| {layer} | {name} | {' | '.join(f'{t:.0f}' for t in row)} | {others} |", flush=True)
    print("microseconds, 256 members, batch 128, bfloat16: forward; forward and backward")
    for inputs, outputs in DENSE:
        case = dense_case(256, inputs, outputs)
        row = []
        for _, dense, inside in ways(given.against).values():
            with inside():
                only = jax.vmap(lambda layer, x, dy, dense=dense: dense(layer, RATES._asdict(), x, relu=True))
                row += [microseconds(only, case, calls=3), microseconds(jax.vmap(dense_step(dense)), case, calls=3)]
        print(f"| dense {inputs} x {outputs} | | {' | '.join(f'{t:.0f}' for t in row)} | |", flush=True)
        for name, cuts in (("forward", FORWARD), ("backward", BACKWARD)) if given.sweep else ():
            times = {cut: microseconds(jax.vmap(dense_alone(name, fused.Tiles(*cut))), case, 5, 3) for cut in cuts}
            best = sorted(times, key=lambda cut: (times[cut] != times[cut], times[cut]))
            print(f"    {name}: {'; '.join(f'{cut}: {times[cut]:.0f}' for cut in best)}", flush=True)


def dense_alone(name: str, cut: fused.Tiles) -> Callable[..., Any]:
    """A kernel with these tiles."""
    plan, rates = fused.Plan(True, cut, cut), fused.Rates(*map(jnp.float32, RATES))

    def run(layer: Any, x: Any, dy: Any) -> Any:
        if name == "forward":
            return fused._forward_kernel(plan, x, layer["w"], layer["b"])
        return fused._backward_kernel(plan, True, layer, rates, x, dy)

    return run


def networks(given: argparse.Namespace) -> None:
    import population_speed as speed

    print("| network | way | first step, seconds | member-steps a second |")
    for name, members in (("cnn", 64), ("mlp-fused", 256), ("mlp-fused", 1024)):
        for way, (conv, dense, inside) in ways(given.against).items():
            speed.conv, speed.dense_updated = conv, dense
            this = speed.case(name, members, None, True)
            try:
                with inside():
                    begun = time.perf_counter()
                    train = speed.bare(this)
                    train(1)
                    first = time.perf_counter() - begun
                    rates = [speed.rate(train, members * this.work, 2.0)[0] for _ in range(3)]
            except Exception as error:
                print(f"| {name}, {members} | {way} | {' '.join(str(error).split())[:150]} | |", flush=True)
                continue
            print(f"| {name}, {members} | {way} | {first:.1f} | {statistics.median(rates):,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"tests": tests, "errors": errors, "layers": layers, "networks": networks}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--against", type=Path, metavar="DIRECTORY", help="with another convolution.py and fused.py")
    parser.add_argument("--sweep", action="store_true", help="time other tiles, too")
    given = parser.parse_args()
    triton = importlib.util.find_spec("triton")
    print(
        f"JAX {jax.__version__}, {jax.devices()[0].device_kind}, Triton {triton and __import__('triton').__version__}"
    )
    print(f"no kernels: {_launch.reason()}" if _launch.reason() else "kernels run here", flush=True)
    for part in given.parts:
        begun = time.perf_counter()
        print(f"\n== {part}", flush=True)
        parts[part](given)
        print(f"({time.perf_counter() - begun:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
