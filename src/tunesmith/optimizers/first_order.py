"""SGD and its momenta (Choi et al. 2019, table 1; the form is that of the authors' Deep Learning Tuning Playbook)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from tunesmith.optimizers.base import Hyperparameters, Rule, Tree, along, tree_map, zeros


class SGD(Rule):
    """``theta <- theta - lr g``."""

    defaults: ClassVar[Mapping[str, float | None]] = {"lr": None}
    formula: ClassVar[tuple[str, ...]] = ("theta <- theta - lr g",)

    def init(self, params: Tree) -> Tree:
        """Nothing."""
        return {}

    def step(self, grads: Tree, state: Tree, params: Tree, given: Hyperparameters) -> tuple[Tree, Tree]:
        """One update."""
        return tree_map(lambda g: -along(given["lr"], g) * g, grads), state


class Momentum(Rule):
    """Heavy-ball momentum: ``v <- momentum v + g``, from ``v = 0``; ``theta <- theta - lr v``.

    The learning rate is outside of the velocity, as in PyTorch.
    """

    defaults: ClassVar[Mapping[str, float | None]] = {"lr": None, "momentum": 0.9}
    formula: ClassVar[tuple[str, ...]] = ("v <- momentum v + g", "theta <- theta - lr v")

    def init(self, params: Tree) -> Tree:
        """The velocity."""
        return {"velocity": zeros(params)}

    def step(self, grads: Tree, state: Tree, params: Tree, given: Hyperparameters) -> tuple[Tree, Tree]:
        """One update."""
        velocity = tree_map(lambda v, g: along(given["momentum"], g) * v + g, state["velocity"], grads)
        return tree_map(lambda v: -along(given["lr"], v) * v, velocity), {"velocity": velocity}


class Nesterov(Momentum):
    """Nesterov's momentum: ``v <- momentum v + g``; ``theta <- theta - lr (momentum v + g)``."""

    formula: ClassVar[tuple[str, ...]] = ("v <- momentum v + g", "theta <- theta - lr (momentum v + g)")

    def step(self, grads: Tree, state: Tree, params: Tree, given: Hyperparameters) -> tuple[Tree, Tree]:
        """One update."""
        momentum = given["momentum"]
        velocity = tree_map(lambda v, g: along(momentum, g) * v + g, state["velocity"], grads)
        ahead = tree_map(lambda v, g: along(momentum, g) * v + g, velocity, grads)
        return tree_map(lambda a: -along(given["lr"], a) * a, ahead), {"velocity": velocity}
