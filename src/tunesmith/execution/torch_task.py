"""Populations in PyTorch: the parameters of all members are stacked, and ``torch.func.vmap`` trains them together."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.execution.stacks import Columns, Group, Layout, Members, StackedTask, leaf_names, match, metric_error
from tunesmith.rng import subseed

if TYPE_CHECKING:
    import torch

log = logging.getLogger("tunesmith")

Leaves = list[Any]  # the tensors of a state, in the order of the layout

_DRAW = "random numbers belong into draw(config, generator), which step gets as its last argument"
_HINTS = {  # what vmap says, and what can be done
    "random operation": _DRAW,
    ".item()": "where Python code needs the value of a tensor, name the hyperparameter in static or give chunk=1",
    "control flow": "where Python code needs the value of a tensor, name the hyperparameter in static or give chunk=1",
}


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

    def check(self) -> None:
        """Say now if there is no such device.

        Raises:
            ValueError: there is none.
        """
        try:
            _torch().empty(1, device=self.device)
        except Exception as error:
            raise ValueError(f"device={self._device!r}: {str(error).splitlines()[0]}") from None

    @property
    def device(self) -> Any:
        """Where the members are."""
        torch = _torch()
        return torch.device(self._device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def may_be_one(self, error: Exception) -> bool:
        """What vmap can't do, it can't do for any."""
        return _hint(error) is None

    def layout(self, group: Group) -> Layout:
        """The tree of a state with the shapes and types of its tensors."""
        if group not in self._made:
            names, leaves, tree = _flat(self.pure.init(dict(group.example), _generator(0)))
            self._made[group] = Layout(tree, names, _kinds(leaves))
        return self._made[group]  # type: ignore[no-any-return]

    def stack(self, group: Group, rows: int) -> TorchStack:
        """All zero, on the device."""
        torch = _torch()
        tree, names, kinds = self.layout(group)
        leaves = [torch.zeros((rows, *shape), dtype=kind, device=self.device) for shape, kind in kinds]
        return TorchStack(self, names, tree, leaves, rows)

    def program(self, group: Group, chunk: int) -> Callable[..., Any]:
        """A step of stacked members: leaves, hyperparameters and what was drawn give leaves and metrics [rows]."""
        key = (group, chunk)
        if key not in self._made:
            self._made[key] = self._program(group, chunk)
        return self._made[key]  # type: ignore[no-any-return]

    def _program(self, group: Group, chunk: int) -> Callable[..., Any]:
        torch = _torch()
        from torch.utils import _pytree as trees

        tree, names, kinds = self.layout(group)
        draws = hasattr(self.pure, "draw")

        def step(leaves: Leaves, config: dict[str, Any], drawn: Any, _: Any) -> tuple[Leaves, dict[str, Any]]:
            state = trees.tree_unflatten(leaves, tree)
            state, metrics = self.pure.step(state, {**group.static, **config}, drawn if draws else None)
            after = _like(state, tree, names, kinds)
            metrics = metrics if isinstance(metrics, Mapping) else {"": metrics}
            return after, {str(name): _scalar(name, value) for name, value in metrics.items()}

        if chunk > 1:
            return _hinted(self._faster(torch.func.vmap(step, in_dims=0, chunk_size=chunk)))
        one = self._faster(step)

        def in_turn(*stacked: Any) -> Any:
            rows = len(stacked[-1])
            results = [one(*trees.tree_map(lambda a, i=i: a[i], stacked)) for i in range(rows)]
            return trees.tree_map(lambda *members: torch.stack(members), *results)

        return _drawing_nothing(in_turn, self.device)

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
            with warnings.catch_warnings(), torch.cuda.graph(graph):
                warnings.filterwarnings("ignore", "The CUDA Graph is empty")  # a step that computes nothing
                outputs = self.program(*given)
        except RuntimeError as error:
            log.warning("the step can't be a CUDA graph and runs as it is: %s", error)
            return None
        return graph, inputs, outputs


class TorchStack:
    """Tensors with a row a member; see :class:`tunesmith.execution.stacks.Stack` for the methods."""

    broken = False

    def __init__(self, task: TorchTask, names: tuple[str, ...], tree: Any, leaves: Leaves, rows: int) -> None:
        self.task, self.names, self.tree, self.leaves, self.rows = task, names, tree, leaves, rows

    def init(self, rows: Sequence[int], members: Members) -> None:
        """One after the other."""
        kinds = tuple((tuple(leaf.shape[1:]), leaf.dtype) for leaf in self.leaves)
        for row, config, seed in zip(rows, members.configs, members.seeds, strict=True):
            state = self.task.pure.init(dict(config), _generator(seed))
            try:
                made = _like(state, self.tree, self.names, kinds)
            except TypeError as error:
                error.add_note(
                    "a hyperparameter that decides a shape must be static: TorchTask(..., static=('width',))"
                )
                raise
            for leaf, new in zip(self.leaves, made, strict=True):
                leaf[row] = new.detach()

    def copy(self, rows: Sequence[int], source: Any, sources: Sequence[int]) -> None:
        """A gather and a scatter."""
        to, origin = self._index(rows), self._index(sources)
        taken = [other[origin] for other in source.leaves]  # all of them, before one is changed
        for leaf, new in zip(self.leaves, taken, strict=True):
            leaf[to] = new

    def take(self, rows: Sequence[int]) -> TorchStack:
        """A gather."""
        index = self._index(rows)
        return TorchStack(self.task, self.names, self.tree, [leaf[index] for leaf in self.leaves], len(rows))

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

    def run(self, members: Members, count: int, chunk: int) -> Callable[[], Columns]:
        """One call of the step after the other; a GPU works on them while the host goes on."""
        torch = _torch()
        program = self.task.program(members.group, 1 if self.rows == 1 else chunk)
        columns = {
            name: torch.tensor([config[name] for config in members.configs], device=self.task.device)
            for name in members.group.varying
        }
        rows = torch.zeros(self.rows, device=self.task.device)  # says how many there are, where nothing else does
        leaves, told = self.leaves, []
        with torch.no_grad():
            for offset in range(count):
                leaves, metrics = program(leaves, columns, self._drawn(members, offset), rows)
                told.append(metrics)
            self.leaves = leaves
            stacked = {name or None: torch.stack([row[name] for row in told]) for name in told[0]}
        return lambda: {name: values.cpu().numpy() for name, values in stacked.items()}

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
    keys = [[getattr(entry, "key", getattr(entry, "idx", entry)) for entry in path] for path, _ in paths]
    names = leaf_names(keys)
    for name, (_, leaf) in zip(names, paths, strict=True):
        if leaf is None:
            raise TypeError(f"{name} is None: a state is made of tensors; one that holds nothing is {{}}")
    return names, [_torch().as_tensor(leaf) for _, leaf in paths], tree


def _kinds(leaves: Leaves) -> tuple[Any, ...]:
    """Shapes and types."""
    return tuple((tuple(leaf.shape), leaf.dtype) for leaf in leaves)


def _like(state: Any, tree: Any, names: tuple[str, ...], kinds: tuple[Any, ...]) -> Leaves:
    """The leaves of a state, which must look like the one of which these are the names, shapes and types.

    Raises:
        TypeError: it does not; the message says where.
    """
    from torch.utils import _pytree as trees

    leaves, same = trees.tree_flatten(state)
    if same == tree and all(isinstance(leaf, _torch().Tensor) for leaf in leaves) and _kinds(leaves) == kinds:
        return leaves
    found, leaves, same = _flat(state)
    if same != tree:
        if sorted(found) != sorted(names):
            raise TypeError(f"a state must have what the first one has, {', '.join(names)}; it has {', '.join(found)}")
        by_name = dict(zip(found, leaves, strict=True))  # a dict in another order
        leaves = [by_name[name] for name in names]
    for name, leaf, (shape, kind) in zip(names, leaves, kinds, strict=True):
        if (tuple(leaf.shape), leaf.dtype) != (shape, kind):
            raise TypeError(
                f"{name} of the state must stay {kind}{list(shape)}, as the first one has it; it is "
                f"{leaf.dtype}{list(leaf.shape)}"
            )
    return leaves


def _scalar(name: Any, value: Any) -> Any:
    """A metric as a double."""
    torch = _torch()
    try:
        scalar = torch.as_tensor(torch.nan if value is None else value)
    except (TypeError, ValueError, RuntimeError):
        raise metric_error(name, f"is {value!r}, a {type(value).__name__}, but must be a number") from None
    if scalar.dim():
        raise metric_error(name, f"has the shape {tuple(scalar.shape)}: it must be a scalar")
    if scalar.is_complex():
        raise metric_error(name, "is complex: give its absolute value, or its parts by two names")
    return scalar.double()


def _hinted(program: Callable[..., Any]) -> Callable[..., Any]:
    """Where vmap can't do something, say what can be done."""

    def run(*given: Any) -> Any:
        try:
            return program(*given)
        except RuntimeError as error:
            if (hint := _hint(error)) is not None:
                error.add_note(hint)
            raise

    return run


def _hint(error: Exception) -> str | None:
    """What can be done, where vmap could not do something."""
    text = str(error)
    return next((hint for words, hint in _HINTS.items() if "vmap" in text and words in text), None)


def _drawing_nothing(program: Callable[..., Any], device: Any) -> Callable[..., Any]:
    """A program that draws no random numbers of its own: they would depend on who else is trained. The first call
    shows whether it does, which holds for all: a CUDA graph draws no more.
    """
    torch = _torch()
    checked = drawn = False

    def states() -> list[Any]:
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]

    def run(*given: Any) -> Any:
        nonlocal checked, drawn
        if checked:
            return program(*given)
        before = states()
        done = None if drawn else program(*given)
        drawn = drawn or not all(map(torch.equal, before, states()))
        if drawn:
            raise RuntimeError(f"step has drawn random numbers of its own: {_DRAW}")
        checked = True
        return done

    return run
