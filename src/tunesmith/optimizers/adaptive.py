"""RMSProp, Adam and NAdam (Choi et al. 2019, table 1; the form is that of the authors' Deep Learning Tuning Playbook),
and the two with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tunesmith.optimizers.base import Hyperparameters, Rule, Tree, along, no_steps, ones, sqrt, tree_map, zeros

_MEANS = ("m <- beta1 m + (1 - beta1) g", "v <- beta2 v + (1 - beta2) g^2")
_AHEAD = "theta <- theta - lr b (beta1 m + (1 - beta1) g) / (sqrt(v) + eps)"
_DECAY = "theta <- theta - lr weight_decay theta, as it was before"
_FACTOR = "b = sqrt(1 - beta2^t) / (1 - beta1^t)"


class RMSProp(Rule):
    """RMSProp with momentum, as TensorFlow has it.

    ``v <- rho v + (1 - rho) g^2``, from ``v = 1``; ``m <- momentum m + lr g / sqrt(v + eps)``, from ``m = 0``;
    ``theta <- theta - m``. It is not centred, ``eps`` is inside of the root, and the learning rate is inside of ``m``.
    (PyTorch begins with ``v = 0``, has ``eps`` outside of the root, and the learning rate outside of ``m``.)
    """

    defaults: ClassVar[Mapping[str, float | None]] = {"lr": None, "momentum": 0.0, "rho": 0.9, "eps": 1e-10}
    formula: ClassVar[tuple[str, ...]] = (
        "v <- rho v + (1 - rho) g^2, from 1",
        "m <- momentum m + lr g / sqrt(v + eps)",
        "theta <- theta - m",
    )

    def init(self, params: Tree) -> Tree:
        """The mean squares, and the momentum."""
        return {"squares": ones(params), "momentum": zeros(params)}

    def step(self, grads: Tree, state: Tree, params: Tree, given: Hyperparameters) -> tuple[Tree, Tree]:
        """One update."""
        squares = tree_map(lambda v, g: _mean(v, g * g, given["rho"]), state["squares"], grads)

        def accelerated(m: Any, v: Any, g: Any) -> Any:
            step = along(given["lr"], g) * g / sqrt(v + along(given["eps"], g))
            return along(given["momentum"], g) * m + step

        momentum = tree_map(accelerated, state["momentum"], squares, grads)
        return tree_map(lambda m: -m, momentum), {"squares": squares, "momentum": momentum}


class Adam(Rule):
    """Adam.

    ``m <- beta1 m + (1 - beta1) g``, ``v <- beta2 v + (1 - beta2) g^2``, both from 0;
    ``theta <- theta - lr b m / (sqrt(v) + eps)`` with ``b = sqrt(1 - beta2^t) / (1 - beta1^t)`` at update t = 1, 2, ...
    So ``eps`` is added to the root of ``v`` *before* the correction: PyTorch and optax add theirs after it, which is
    the same where ``eps = theirs * sqrt(1 - beta2^t)``.
    """

    defaults: ClassVar[Mapping[str, float | None]] = {"lr": None, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    formula: ClassVar[tuple[str, ...]] = (*_MEANS, "theta <- theta - lr b m / (sqrt(v) + eps)", _FACTOR)

    def init(self, params: Tree) -> Tree:
        """The two means, and the number of updates."""
        return {"mean": zeros(params), "squares": zeros(params), "step": no_steps(params)}

    def step(self, grads: Tree, state: Tree, params: Tree, given: Hyperparameters) -> tuple[Tree, Tree]:
        """One update."""
        beta1, beta2 = given["beta1"], given["beta2"]
        count = state["step"] + 1
        mean = tree_map(lambda m, g: _mean(m, g, beta1), state["mean"], grads)
        squares = tree_map(lambda v, g: _mean(v, g * g, beta2), state["squares"], grads)
        rate = given["lr"] * correction(beta1, beta2, count)

        def updated(m: Any, v: Any, g: Any) -> Any:
            return -along(rate, g) * self._direction(m, g, beta1) / (sqrt(v) + along(given["eps"], g))

        return tree_map(updated, mean, squares, grads), {"mean": mean, "squares": squares, "step": count}

    def _direction(self, mean: Any, grad: Any, beta1: Any) -> Any:
        return mean


class NAdam(Adam):
    """Adam with Nesterov's momentum: as Adam, with ``beta1 m + (1 - beta1) g`` in the place of ``m``.

    There is no schedule of the momentum (``torch.optim.NAdam`` has one).
    """

    formula: ClassVar[tuple[str, ...]] = (*_MEANS, _AHEAD, _FACTOR)

    def _direction(self, mean: Any, grad: Any, beta1: Any) -> Any:
        return _mean(mean, grad, beta1)


class _Decoupled(Adam):
    """Beside the update every parameter shrinks by ``lr * weight_decay`` of itself."""

    defaults: ClassVar[Mapping[str, float | None]] = {**Adam.defaults, "weight_decay": 0.01}

    def step(self, grads: Tree, state: Tree, params: Tree, given: Hyperparameters) -> tuple[Tree, Tree]:
        """One update."""
        updates, after = super().step(grads, state, params, given)
        shrink = given["lr"] * given["weight_decay"]
        return tree_map(lambda u, p: u - along(shrink, p) * p, updates, params), after


class AdamW(_Decoupled):
    """Adam with decoupled weight decay: ``theta`` loses ``lr * weight_decay * theta`` as well."""

    formula: ClassVar[tuple[str, ...]] = (*Adam.formula, _DECAY)


class NAdamW(_Decoupled, NAdam):
    """NAdam with decoupled weight decay."""

    formula: ClassVar[tuple[str, ...]] = (*NAdam.formula, _DECAY)


def correction(beta1: Any, beta2: Any, count: Any) -> Any:
    """The factor ``b`` at an update, counted from 1: both means begin at 0, and are too small at first."""
    return sqrt(1 - beta2**count) / (1 - beta1**count)


def _mean(before: Any, now: Any, beta: Any) -> Any:
    """A moving average."""
    beta = along(beta, now)
    return beta * before + (1 - beta) * now
