"""Optimizers from elsewhere as rules, and rules as optimizers of PyTorch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.optimizers.base import Hyperparameters, OptimizerError, Rule, Tree

if TYPE_CHECKING:
    import torch

_NAMES = {"lr": "learning_rate", "beta1": "b1", "beta2": "b2"}  #: ours, and what optax calls them


class Optax(Rule):
    """Any optimizer of optax as a rule: ``Optax(optax.lion)``, ``Optax(optax.contrib.muon, weight_decay=0.1)``.

    It is made anew at every update, so its hyperparameters may be traced, and differ from member to member under
    ``jax.vmap``. Its state must not depend on them.

    Args:
        make: a function of optax, such as ``optax.adamw``, which gives a ``GradientTransformation``.
        fixed: arguments that stay, under optax's names.
        names: the hyperparameters of the rule that are called otherwise there; ``lr``, ``beta1`` and ``beta2`` are
            known.

    Raises:
        OptimizerError: ``make`` has no such argument.
    """

    def __init__(self, make: Callable[..., Any], names: Mapping[str, str] | None = None, **fixed: Any) -> None:
        self._make, self._fixed = make, fixed
        theirs = inspect.signature(make).parameters
        known = {name: to for name, to in _NAMES.items() if to in theirs}
        self._names = {**known, **(names or {})}
        for name in (*fixed, *self._names.values()):
            if name not in theirs:
                raise OptimizerError(f"{make.__name__} has no argument {name!r}; it has {', '.join(theirs)}")
        ours = {to: name for name, to in self._names.items()}
        free = {ours.get(name, name): one.default for name, one in theirs.items() if name not in fixed}
        self.defaults = {  # type: ignore[misc]  # its own, not its class's
            name: None if value is inspect.Parameter.empty else value
            for name, value in free.items()
            if name == "lr" or value is inspect.Parameter.empty or _is_number(value)
        }

    def init(self, params: Tree) -> Tree:
        """The state before the first update, with whatever hyperparameters."""
        usual = {name: 1.0 if value is None else value for name, value in self.defaults.items()}
        return self._made(usual).init(params)

    def step(self, grads: Tree, state: Tree, params: Tree, given: Hyperparameters) -> tuple[Tree, Tree]:
        """One update."""
        updates, after = self._made(given).update(grads, state, params)
        return updates, after

    def _made(self, given: Hyperparameters) -> Any:
        return self._make(**{self._names.get(name, name): value for name, value in given.items()}, **self._fixed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Optax) and (self._make, self._fixed) == (other._make, other._fixed)

    def __hash__(self) -> int:
        return hash(self._make)

    def __repr__(self) -> str:
        return f"Optax({self._make.__name__})"


def torch_optimizer(rule: Rule, params: Iterable[Any], **hyperparameters: float) -> torch.optim.Optimizer:
    """A rule as an optimizer of PyTorch, for a training loop as everybody writes it.

    Args:
        rule: such as ``optimizers.NAdam()``.
        params: as for every optimizer of PyTorch: ``model.parameters()``, or groups with hyperparameters of their own.
        hyperparameters: by the rule's names; those that are left out have their usual value. They stand in
            ``param_groups``, so that schedulers and ``load_scheduler`` of PyTorch find them.

    Raises:
        OptimizerError: the rule has no such hyperparameter, or one without a usual value is missing.
    """
    import torch

    class Ruled(torch.optim.Optimizer):
        """Follows a rule."""

        @torch.no_grad()
        def step(self, closure: Callable[[], Any] | None = None) -> Any:
            """One update of all parameters that have a gradient."""
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                given = {name: group[name] for name in rule.defaults}
                for param in group["params"]:
                    if param.grad is not None:
                        if not self.state[param]:
                            self.state[param] = {"rule": rule.init(param)}
                        state = self.state[param]["rule"]
                        update, self.state[param]["rule"] = rule.update(param.grad, state, param, given)
                        param.add_(update)
            return loss

    Ruled.__name__ = Ruled.__qualname__ = type(rule).__name__
    return Ruled(params, rule.complete(hyperparameters))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
