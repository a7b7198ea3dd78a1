"""An update of ours beside those of optax and PyTorch, on the same device, in one run.

    python benchmarks/optimizer_speed.py
    python benchmarks/optimizer_speed.py --members 64      # a stacked population, with a learning rate each

Parameters are those of a perceptron 784-512-512-10. A figure is the median time of an update, the gradients given; the
two that are compared take turns.
In JAX both are compiled, with the learning rate traced; in PyTorch ours is `torch_optimizer`, theirs for-each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import torch
from jax import numpy as jnp

from tunesmith.optimizers import RULES
from tunesmith.optimizers.adapters import torch_optimizer
from tunesmith.optimizers.base import apply

SHAPES = [(784, 512), (512,), (512, 512), (512,), (512, 10), (10,)]
OPTAX: dict[str, Callable[..., Any]] = {
    "sgd": optax.sgd,
    "momentum": lambda learning_rate: optax.sgd(learning_rate, 0.9),
    "nesterov": lambda learning_rate: optax.sgd(learning_rate, 0.9, nesterov=True),
    "rmsprop": lambda learning_rate: optax.rmsprop(learning_rate, momentum=0.9, eps_in_sqrt=True, initial_scale=1.0),
    "adam": optax.adam,
    "nadam": optax.nadam,
    "adamw": optax.adamw,
    "nadamw": optax.nadamw,
}
TORCH: dict[str, Callable[..., Any]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda params, lr: torch.optim.SGD(params, lr, 0.9),
    "nesterov": lambda params, lr: torch.optim.SGD(params, lr, 0.9, nesterov=True),
    "rmsprop": lambda params, lr: torch.optim.RMSprop(params, lr, momentum=0.9),
    "adam": torch.optim.Adam,
    "nadam": torch.optim.NAdam,
    "adamw": torch.optim.AdamW,
}


def medians(acts: list[Callable[[], object]], repeat: int) -> list[float]:
    """Milliseconds of each; they take turns."""
    found: list[list[float]] = [[] for _ in acts]
    for number in range(repeat + 3):
        for act, times in zip(acts, found, strict=True):
            begun = time.perf_counter()
            act()
            if number >= 3:
                times.append(time.perf_counter() - begun)
    return [1e3 * statistics.median(times) for times in found]


def in_jax(init: Callable[[Any], Any], update: Callable[..., Any], members: int) -> Callable[[], object]:
    """A compiled update; of a population where there are several members."""
    rng = np.random.default_rng(0)
    stack = (members,) if members > 1 else ()
    params = [jnp.asarray(rng.normal(size=(*stack, *shape)), jnp.float32) for shape in SHAPES]
    grads = [jnp.asarray(rng.normal(size=(*stack, *shape)), jnp.float32) for shape in SHAPES]
    rate = jnp.full(stack, 1e-3)
    begin, step = (jax.vmap(init), jax.vmap(update)) if members > 1 else (init, update)
    compiled = jax.jit(step, donate_argnums=(1, 2))
    held = [params, begin(params)]

    def act() -> object:
        held[0], held[1] = compiled(grads, held[1], held[0], rate)
        return jax.block_until_ready(held[0])

    return act


def ours(name: str, members: int) -> Callable[[], object]:
    rule = RULES[name]

    def update(grads: Any, state: Any, params: Any, lr: Any) -> Any:
        updates, after = rule.update(grads, state, params, {"lr": lr})
        return apply(params, updates), after

    return in_jax(rule.init, update, members)


def theirs(name: str, members: int) -> Callable[[], object]:
    def update(grads: Any, state: Any, params: Any, lr: Any) -> Any:
        updates, after = OPTAX[name](learning_rate=lr).update(grads, state, params)
        return optax.apply_updates(params, updates), after

    return in_jax(OPTAX[name](learning_rate=1.0).init, update, members)


def in_torch(make: Callable[..., Any]) -> Callable[[], object]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    params = [torch.randn(shape, device=device, requires_grad=True) for shape in SHAPES]
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer = make(params, lr=1e-3)

    def act() -> None:
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return act


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=100)
    given = parser.parse_args()
    print(
        f"JAX {jax.__version__}, optax {optax.__version__}, PyTorch {torch.__version__}, {jax.devices()[0].device_kind}"
    )
    print("| ms an update | ours, JAX | optax | ours / optax | ours, PyTorch | torch.optim | ours / torch |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in RULES:
        one, other = medians([way(name, given.members) for way in (ours, theirs)], given.repeat)
        row = [f"{one:.3g}", f"{other:.3g}", f"{one / other:.2f}"]
        if given.members == 1 and name in TORCH:
            make = partial(torch_optimizer, RULES[name])
            mine, yours = medians([in_torch(make), in_torch(TORCH[name])], given.repeat)
            row += [f"{mine:.3g}", f"{yours:.3g}", f"{mine / yours:.2f}"]
        print(f"| {name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
