"""What an update rule is, and the few operations that all rules share, on numpy, PyTorch and JAX alike.

A tree is a dict, list, tuple or named tuple of trees, or an array. Rules are written with the operators of arrays, so
one text runs on all three libraries, traced and compiled too.

In a *stacked* population every array has one row a member, and hyperparameters may be arrays with one number a member:
[members]. Under ``jax.vmap`` or ``torch.func.vmap`` a rule sees one member, and nothing of that is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np

from tunesmith.errors import TunesmithError

Tree: TypeAlias = Any
Array: TypeAlias = Any
Hyperparameters: TypeAlias = Mapping[str, Any]


class OptimizerError(TunesmithError):
    """An optimizer, or one of its hyperparameters, is not known."""


class Rule:
    """An update rule. Subclasses say what they keep and what they do; an object has no state of its own.

    Attributes:
        defaults: the hyperparameters by name, with their usual values; None where there is no usual one. ``lr`` is the
            learning rate of the present step: a schedule is applied by who calls.
        formula: the rule in a few characters; ``g`` is the gradient, ``t`` the number of the update from 1.
    """

    defaults: ClassVar[Mapping[str, float | None]] = {}
    formula: ClassVar[tuple[str, ...]] = ()

    def init(self, params: Tree) -> Tree:
        """The state before the first update: a tree with arrays like those of the parameters."""
        raise NotImplementedError

    def step(self, grads: Tree, state: Tree, params: Tree, given: Hyperparameters) -> tuple[Tree, Tree]:
        """As ``update``, with every hyperparameter given."""
        raise NotImplementedError

    def update(self, grads: Tree, state: Tree, params: Tree, hyperparameters: Hyperparameters) -> tuple[Tree, Tree]:
        """One update.

        Args:
            grads: of the loss; a tree like the parameters.
            state: what ``init`` or the last update gave.
            params: the parameters.
            hyperparameters: by name; numbers, or in a stacked population arrays [members]. Those that are left out
                have their usual value.

        Returns:
            What is to be added to the parameters, and the next state.

        Raises:
            OptimizerError: a hyperparameter is not one of this rule's, or one without a usual value is missing.
        """
        return self.step(grads, state, params, self.complete(hyperparameters))

    def complete(self, hyperparameters: Hyperparameters) -> dict[str, Any]:
        """The hyperparameters with the usual values of those that were left out.

        Raises:
            OptimizerError: as ``update``.
        """
        name = type(self).__name__
        for one in hyperparameters:
            if one not in self.defaults:
                raise OptimizerError(f"{name} has no hyperparameter {one!r}; it has {', '.join(self.defaults)}")
        given = {**self.defaults, **hyperparameters}
        for one, value in given.items():
            if value is None:
                raise OptimizerError(f"{name} needs {one}=...: it has no usual value")
        return given

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def apply(params: Tree, updates: Tree) -> Tree:
    """The parameters after an update."""
    return tree_map(lambda p, u: p + u, params, updates)


# -- trees ------------------------------------------------------------------------------------------------------------


def tree_map(function: Callable[..., Any], first: Tree, *others: Tree) -> Tree:
    """The tree of what a function gives for the leaves at the same places of some trees.

    Raises:
        ValueError: they are not of one structure.
    """
    if isinstance(first, Mapping):
        if any(not isinstance(other, Mapping) or other.keys() != first.keys() for other in others):
            raise ValueError(f"trees differ: one has the keys {', '.join(map(repr, first))}, another one has not")
        return {key: tree_map(function, first[key], *(other[key] for other in others)) for key in first}
    if isinstance(first, list | tuple):
        if any(not isinstance(other, list | tuple) or len(other) != len(first) for other in others):
            raise ValueError(f"trees differ: one has {len(first)} parts, another one has not")
        parts = [tree_map(function, *same) for same in zip(first, *others, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return function(first, *others)


def leaves(tree: Tree) -> list[Array]:
    """The arrays of a tree, in order."""
    found: list[Array] = []
    tree_map(found.append, tree)
    return found


# -- arrays -----------------------------------------------------------------------------------------------------------


def library(array: Array) -> Any:
    """The module with the functions for an array: numpy, torch or jax.numpy."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and isinstance(array, torch.Tensor):
        return torch
    if jax is not None and isinstance(array, jax.Array):
        return jax.numpy
    return np


def zeros(tree: Tree) -> Tree:
    """Arrays of zeros, like those of a tree."""
    return tree_map(lambda array: library(array).zeros_like(array), tree)


def ones(tree: Tree) -> Tree:
    """Arrays of ones."""
    return tree_map(lambda array: library(array).ones_like(array), tree)


def sqrt(array: Array) -> Array:
    """The square root of an array; of a number a number."""
    return library(array).sqrt(array)


def no_steps(params: Tree) -> Array:
    """A counter of updates that stands at 0: a number of the parameters' type, or float32 where that is shorter."""
    first = leaves(params)[0]
    module = library(first)
    kind = first.dtype if first.dtype.itemsize >= 4 else module.float32
    return module.zeros_like(first.reshape(-1)[:1].sum(), dtype=kind)


def along(number: Any, array: Array) -> Any:
    """A hyperparameter in a form that goes with an array and keeps its type: an array [members] goes along axis 0."""
    if not hasattr(number, "dtype"):
        return number
    same = number.to(array.dtype) if hasattr(number, "to") else number.astype(array.dtype)
    return same.reshape(same.shape + (1,) * (array.ndim - 1)) if same.ndim else same
