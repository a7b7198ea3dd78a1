"""Populations in PyTorch: the parameters of all members are stacked, and ``torch.func.vmap`` trains them together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.execution.stacks import Columns, Group, Layout, Members, StackedTask, match
from tunesmith.rng import subseed

if TYPE_CHECKING:
    import torch

log = logging.getLogger("tunesmith")

Leaves = list[Any]  # the tensors of a state, in the order of the layout


class TorchTask(StackedTask):
    """Training code in PyTorch.

    ``pure`` has functions without side effects, of one member; its state is a tree (dicts, lists, tuples) of tensors::

        init(config, generator) -> state
        draw(config, generator) -> tree of tensors
        step(state, config, drawn) -> (state, metrics)

    ``config`` has the hyperparameters by name: static ones as Python values; the others are numbers for ``init`` and
    ``draw``, and tensors without dimensions for ``step``. ``generator`` is on the CPU: ``init``'s belongs to the trial,
    ``draw``'s to the trial and the step. ``draw`` makes whatever is random in a step, such as the rows of its
    minibatches; without it ``drawn`` is None. ``step`` is vectorised: gradients come from ``torch.func.grad``, a module
    is called by ``torch.func.functional_call``. ``metrics`` are scalars by name, or one scalar.

    Args:
        pure: see above.
        device: where the members are; by default the GPU, if there is one.
        compile: whether ``torch.compile`` compiles the step.
        graph: whether a step on a GPU becomes one CUDA graph, so that one launch takes the place of thousands. A step
            that can't be captured (it waits for a value, say) is run as it is, with a warning.
        others: see :class:`tunesmith.execution.stacks.StackedTask`.
    """

    def __init__(
        self,
        pure: Any,
        *,
        device: torch.device | str | None = None,
        compile: bool = False,
        graph: bool = True,
        **others: Any,
    ) -> None:
        super().__init__(pure, **others)
        self._device, self.compile, self.graph = device, compile, graph
        self._made: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_made": {}}  # programs are compiled anew in another process

    @property
    def device(self) -> Any:
        """Where the members are."""
        torch = _torch()
        return torch.device(self._device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def layout(self, group: Group) -> Layout:
        """The tree of a state with the shapes and types of its tensors."""
        if group not in self._made:
            config = {**group.static, **{name: kind(1) for name, kind in group.varying.items()}}
            names, leaves, tree = _flat(self.pure.init(config, _generator(0)))
            kinds = tuple((tuple(leaf.shape), leaf.dtype) for leaf in leaves)
            self._made[group] = Layout(tree, names, kinds)
        return self._made[group]  # type: ignore[no-any-return]

    def stack(self, group: Group, rows: int) -> TorchStack:
        """All zero, on the device."""
        torch = _torch()
        tree, names, kinds = self.layout(group)
        leaves = [torch.zeros((rows, *shape), dtype=kind, device=self.device) for shape, kind in kinds]
        return TorchStack(self, names, tree, leaves)

    def program(self, group: Group, chunk: int) -> Callable[..., Any]:
        """A step of stacked members: leaves, hyperparameters and what was drawn give leaves and metrics [rows]."""
        key = (group, chunk)
        if key not in self._made:
            self._made[key] = self._program(group, chunk)
        return self._made[key]  # type: ignore[no-any-return]

    def _program(self, group: Group, chunk: int) -> Callable[..., Any]:
        torch = _torch()
        from torch.utils import _pytree as trees

        tree, _, kinds = self.layout(group)
        draws = hasattr(self.pure, "draw")

        def step(leaves: Leaves, config: dict[str, Any], drawn: Any) -> tuple[Leaves, dict[str, Any]]:
            state = trees.tree_unflatten(leaves, tree)
            state, metrics = self.pure.step(state, {**group.static, **config}, drawn if draws else None)
            after, same = trees.tree_flatten(state)
            found = tuple((tuple(leaf.shape), leaf.dtype) for leaf in after)
            if same != tree or found != kinds:
                raise TypeError(f"step must return a state like the one that init has made, {tree} of {kinds}; "
                                f"it has returned {same} of {found}")  # fmt: skip
            metrics = metrics if isinstance(metrics, Mapping) else {"": metrics}
            return after, {name: torch.as_tensor(value).double() for name, value in metrics.items()}

        if chunk > 1:
            return self._faster(torch.func.vmap(step, in_dims=0, chunk_size=chunk))
        one = self._faster(step)

        def in_turn(*stacked: Any) -> Any:
            rows = len(stacked[0][0])
            results = [one(*trees.tree_map(lambda a, i=i: a[i], stacked)) for i in range(rows)]
            return trees.tree_map(lambda *members: torch.stack(members), *results)

        return in_turn

    def _faster(self, program: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled and as a CUDA graph, where that is wanted."""
        program = _torch().compile(program) if self.compile else program
        return _Captured(program) if self.graph and self.device.type == "cuda" else program


class _Captured:
    """A program as CUDA graphs, one for the shapes of what it is given; it owns their inputs and outputs."""

    def __init__(self, program: Callable[..., Any]) -> None:
        self.program = program
        self.graphs: dict[Any, tuple[Any, Leaves, Any] | None] = {}

    def __call__(self, *given: Any) -> Any:
        from torch.utils import _pytree as trees

        leaves, tree = trees.tree_flatten(given)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if shapes not in self.graphs:
            self.graphs[shapes] = self._capture([leaf.clone() for leaf in leaves], tree)
        captured = self.graphs[shapes]
        if captured is None:
            return self.program(*given)
        graph, inputs, outputs = captured
        for own, new in zip(inputs, leaves, strict=True):
            own.copy_(new)
        graph.replay()
        return trees.tree_map(lambda own: own.clone(), outputs)

    def _capture(self, inputs: Leaves, tree: Any) -> tuple[Any, Leaves, Any] | None:
        torch = _torch()
        from torch.utils import _pytree as trees

        given = trees.tree_unflatten(inputs, tree)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # libraries choose their kernels, torch.compile compiles
                self.program(*given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                outputs = self.program(*given)
        except RuntimeError as error:
            log.warning("the step can't be a CUDA graph and runs as it is: %s", error)
            return None
        return graph, inputs, outputs


class TorchStack:
    """Tensors with a row a member; see :class:`tunesmith.execution.stacks.Stack` for the methods."""

    broken = False

    def __init__(self, task: TorchTask, names: tuple[str, ...], tree: Any, leaves: Leaves) -> None:
        self.task, self.names, self.tree, self.leaves = task, names, tree, leaves

    @property
    def rows(self) -> int:
        """How many states it holds."""
        return len(self.leaves[0])

    def init(self, rows: Sequence[int], members: Members) -> None:
        """One after the other."""
        for row, config, seed in zip(rows, members.configs, members.seeds, strict=True):
            _, leaves, _ = _flat(self.task.pure.init(dict(config), _generator(seed)))
            for leaf, new in zip(self.leaves, leaves, strict=True):
                leaf[row] = new.detach()

    def copy(self, rows: Sequence[int], source: Any, sources: Sequence[int]) -> None:
        """A gather and a scatter."""
        to, origin = self._index(rows), self._index(sources)
        for leaf, other in zip(self.leaves, source.leaves, strict=True):
            leaf[to] = other[origin]

    def take(self, rows: Sequence[int]) -> TorchStack:
        """A gather."""
        index = self._index(rows)
        return TorchStack(self.task, self.names, self.tree, [leaf[index] for leaf in self.leaves])

    def load(self, rows: Sequence[int], trees: Sequence[Any]) -> None:
        """From the host."""
        for row, tree in zip(rows, trees, strict=True):
            match(tree, self.names, self.leaves)
            for name, leaf in zip(self.names, self.leaves, strict=True):
                leaf[row] = tree[name].to(leaf.device)

    def trees(self) -> list[dict[str, Any]]:
        """On the host, by the names of the leaves."""
        tensors = [leaf.cpu() for leaf in self.leaves]
        return [{name: tensor[i] for name, tensor in zip(self.names, tensors, strict=True)} for i in range(self.rows)]

    def run(self, members: Members, count: int, chunk: int) -> Columns:
        """One call of the step after the other."""
        torch = _torch()
        program = self.task.program(members.group, 1 if self.rows == 1 else chunk)
        columns = {
            name: torch.tensor([config[name] for config in members.configs], device=self.task.device)
            for name in members.group.varying
        }
        told = []
        with torch.no_grad():
            for offset in range(count):
                drawn = self._drawn(members, offset)
                self.leaves, metrics = program(self.leaves, columns, drawn)
                told.append(metrics)
            return {name or None: np.stack([row[name].cpu().numpy() for row in told]) for name in told[0]}

    def _drawn(self, members: Members, offset: int) -> Any:
        """What is random in a later step of every member, stacked."""
        torch = _torch()
        draw = getattr(self.task.pure, "draw", None)
        if draw is None:
            return ()
        from torch.utils import _pytree as trees

        drawn = [
            draw(dict(config), _generator(subseed(seed, "step", step + offset)))
            for config, seed, step in zip(*members[1:], strict=True)
        ]
        return trees.tree_map(lambda *members: torch.stack(members).to(self.task.device), *drawn)

    def _index(self, rows: Sequence[int]) -> Any:
        return _torch().as_tensor(list(rows), device=self.task.device)


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a TorchTask needs PyTorch: pip install 'tunesmith[torch]'") from error
    return torch


def _generator(seed: int) -> Any:
    return _torch().Generator().manual_seed(seed)


def _flat(state: Any) -> tuple[tuple[str, ...], Leaves, Any]:
    """The names of the leaves of a state, the leaves, and its tree."""
    from torch.utils import _pytree as trees

    paths, tree = trees.tree_flatten_with_path(state)
    names = tuple(".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path) for path, _ in paths)
    leaves = [_torch().as_tensor(leaf) for _, leaf in paths]
    return tuple(name or "state" for name in names), leaves, tree
