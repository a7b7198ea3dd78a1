"""Populations in JAX: one compiled program trains all members, and a copy of a member never leaves the device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.execution.stacks import (
    STEPS,
    Columns,
    Group,
    Layout,
    Members,
    StackedTask,
    leaf_names,
    match,
    metric_error,
    power,
)

if TYPE_CHECKING:
    import jax
    from jax.sharding import Mesh, NamedSharding

Leaves = tuple[Any, ...]  # the arrays of a state, in the order of the layout

_AXIS = "members"
_HINT = (
    "of the hyperparameters, {} are traced: one that Python code or a shape depends on must be static, "
    "JaxTask(..., static=('width', ...))"
)


class JaxTask(StackedTask):
    """Training code in JAX.

    ``pure`` has two functions without side effects, of one member; its state is any pytree of arrays::

        init(config, key) -> state
        step(state, config, key) -> (state, metrics)

    ``config`` has the hyperparameters by name: static ones as Python values, the others as scalars (float32 or int32)
    that may be traced. ``key`` is a random key: ``init``'s belongs to the trial, ``step``'s to the trial and the step,
    so a state needs none of its own. ``metrics`` are scalars by name, or one scalar. A step should be many updates of
    the weights (``jax.lax.scan``). Where ``pure`` has an attribute ``data``, a pytree of arrays, both functions get it
    as their last argument: it is put on the device once, and is no part of the compiled program.

    Args:
        pure: see above.
        devices: the devices that share the members; by default the first of ``jax.devices()``.
        cache: directory where compiled programs are kept for the next run (it holds for the whole process).
        others: see :class:`tunesmith.execution.stacks.StackedTask`.
    """

    def __init__(
        self,
        pure: Any,
        *,
        devices: Sequence[jax.Device] | None = None,
        cache: str | os.PathLike[str] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(pure, **others)
        self.devices = None if devices is None else _devices(devices)
        self.cache = None if cache is None else os.fspath(cache)

    @property
    def largest(self) -> Mapping[type, float]:
        """By type, the largest number that a program can take."""
        return self._once("largest", _largest)  # type: ignore[no-any-return]

    def may_be_one(self, error: Exception) -> bool:
        """What is found while a program is made holds for all; callbacks and JAX's check for NaN meet values."""
        return isinstance(error, FloatingPointError) or "callback" in str(error)

    def layout(self, group: Group) -> Layout:
        """The tree of a state with the shapes and types of its arrays."""
        return self._once(("layout", group), lambda: self._shape(group))  # type: ignore[no-any-return]

    def stack(self, group: Group, rows: int) -> JaxStack:
        """All zero, on the devices."""
        _, names, kinds = self.layout(group)
        return JaxStack(self, names, tuple(self.zeros((rows, *kind.shape), kind.dtype) for kind in kinds), rows)

    def capacity(self, members: int, most: int) -> int:
        """As many rows on every device."""
        return self.even(super().capacity(members, most))

    def even(self, rows: int) -> int:
        """So many rows or a few more, as many on every device."""
        count = len(self.devices or (None,))
        return -(-rows // count) * count

    # -- devices

    @property
    def sharding(self) -> NamedSharding | None:
        """How stacks lie on several devices: rows are dealt out; None on one device."""
        return None if self.devices is None or len(self.devices) < 2 else self._once("sharding", self._shard)

    def place(self, array: Any) -> Any:
        """An array with a row a member, where it belongs."""
        jax = _jax()
        return jax.numpy.asarray(array) if self.where is None else jax.device_put(array, self.where)

    def zeros(self, shape: tuple[int, ...], kind: Any) -> Any:
        """Such an array, all zero."""
        return _jax().numpy.zeros(shape, kind, device=self.where)

    @property
    def where(self) -> Any:
        """Device or devices; None for JAX's default."""
        return self.sharding or (self.devices[0] if self.devices else None)

    def _shard(self) -> NamedSharding:
        from jax.sharding import NamedSharding

        return NamedSharding(self._mesh(), _spec(_AXIS))

    def _mesh(self) -> Mesh:
        from jax.sharding import Mesh

        return Mesh(np.array(self.devices), (_AXIS,))

    @property
    def data(self) -> Any:
        """The data, on all devices."""
        return self._once("data", self._put_data)

    def _put_data(self) -> Any:
        jax = _jax()
        data = getattr(self.pure, "data", None)
        if self.sharding is None:
            return jax.device_put(data, self.where)
        from jax.sharding import NamedSharding

        return jax.device_put(data, NamedSharding(self._mesh(), _spec()))

    # -- programs

    def program(self, group: Group, what: str, chunk: int = 1) -> Any:
        """A function for ``jit``: ``"init"`` or ``"run"``; see :class:`_Programs`."""
        return self._once((what, group, chunk), lambda: self._jitted(group, what, chunk))

    def launch(self, group: Group, chunk: int, rows: int, *arguments: Any) -> Future[tuple[Leaves, Any]]:
        """Call ``"run"`` in a thread of its own: a GPU holds the thread that calls, until it has all but ended.

        The settings of JAX belong to a thread, so the program is compiled here, once for each number of rows. Its first
        call is waited for: what fails whenever it is called fails here.
        """
        known = ("compiled", group, chunk, rows)
        first = known not in self._made
        compiled = self._once(known, lambda: self.program(group, "run", chunk).lower(*arguments).compile())
        launched: Future[tuple[Leaves, Any]] = self._once("launcher", lambda: ThreadPoolExecutor(1, "launches")).submit(
            compiled, *arguments
        )
        if first:
            try:
                launched.result()
            except Exception:
                del self._made[known]
                raise
        return launched

    def _jitted(self, group: Group, what: str, chunk: int) -> Any:
        jax = _jax()
        if self.cache is not None:
            jax.config.update("jax_compilation_cache_dir", self.cache)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        programs = _Programs(self, group, chunk)
        init, run = programs.init, programs.run
        if self.sharding is not None:  # every device has its rows
            rows, whole, columns = _spec(_AXIS), _spec(), _spec(None, _AXIS)
            shard = partial(jax.shard_map, mesh=self._mesh(), check_vma=False)
            init = shard(init, in_specs=(rows, rows, whole), out_specs=rows)
            run = shard(run, in_specs=(rows, rows, rows, rows, whole, whole), out_specs=(rows, columns))
        return jax.jit(init) if what == "init" else jax.jit(run, donate_argnums=0)

    def _shape(self, group: Group) -> Layout:
        jax = _jax()
        begin: Any = _Programs(self, group, 1).begin
        state = jax.eval_shape(begin, _example(group), _seed([0])[0], self.data)
        paths, tree = jax.tree.flatten_with_path(state)
        for path, leaf in paths:
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                raise TypeError(
                    f"the state{jax.tree_util.keystr(path)} is a random key: use the key that step is given"
                )
        names = leaf_names([[_key_of(entry) for entry in path] for path, _ in paths])
        return Layout(tree, names, tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for _, leaf in paths))

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class _Programs:
    """What is compiled for a group: functions of leaves [rows, ...], hyperparameters [rows] and seeds [rows, 2]."""

    def __init__(self, task: JaxTask, group: Group, chunk: int) -> None:
        self.task, self.group, self.chunk = task, group, chunk

    def init(self, configs: dict[str, Any], seeds: Any, data: Any) -> Leaves:
        """States at step 0, made one after the other, so that each is the same in whatever company."""
        jax = _jax()
        return tuple(jax.lax.map(lambda one: jax.tree.leaves(self.begin(one[0], one[1], data)), (configs, seeds)))

    def begin(self, config: dict[str, Any], seed: Any, data: Any) -> Any:
        """The state of one member at step 0."""
        with self._hint():
            state = self.task.pure.init({**self.group.static, **config}, _key(seed), *_given(data))
        return _jax().tree.map(_jax().numpy.asarray, state)

    def run(
        self, leaves: Leaves, configs: dict[str, Any], seeds: Any, steps: Any, count: Any, data: Any
    ) -> tuple[Leaves, Any]:
        """Train for ``count`` steps; metrics [STEPS, rows], of which the first ``count`` count."""
        jax = _jax()
        members = (leaves, configs, seeds, steps)
        rows = steps.shape[0]
        train = partial(self._train, count=count, data=data)
        if rows == 1:
            done, metrics = train(*jax.tree.map(lambda a: a[0], members), step=self._step)
            return jax.tree.map(lambda a: a[None], done), jax.tree.map(lambda a: a[:, None], metrics)
        if rows <= self.chunk:
            return train(*members, step=jax.vmap(self._step, in_axes=(0, 0, 0, 0, None)))
        size = None if self.chunk == 1 else self.chunk
        done, metrics = jax.lax.map(lambda one: train(*one, step=self._step), members, batch_size=size)
        return done, jax.tree.map(lambda a: a.T, metrics)

    def _train(
        self, leaves: Leaves, configs: Any, seeds: Any, steps: Any, *, count: Any, data: Any, step: Any
    ) -> tuple[Leaves, Any]:
        """So many steps of one member, or of a chunk of them."""
        jax = _jax()
        kinds = jax.eval_shape(step, leaves, configs, seeds, steps, data)[1]
        room = jax.tree.map(lambda kind: jax.numpy.zeros((STEPS, *kind.shape), kind.dtype), kinds)

        def advance(i: Any, carry: tuple[Leaves, Any]) -> tuple[Leaves, Any]:
            before, metrics = carry
            after, now = step(before, configs, seeds, steps + i, data)
            return after, jax.tree.map(lambda a, b: a.at[i].set(b), metrics, now)

        return jax.lax.fori_loop(0, count, advance, (leaves, room))  # type: ignore[no-any-return]

    def _step(self, leaves: Leaves, config: Any, seed: Any, step: Any, data: Any) -> tuple[Leaves, Any]:
        """One step of one member."""
        jax = _jax()
        tree, names, kinds = self.task.layout(self.group)
        key = jax.random.fold_in(_key(seed), step + 1)
        state = jax.tree.unflatten(tree, leaves)
        with self._hint():
            state, metrics = self.task.pure.step(state, {**self.group.static, **config}, key, *_given(data))
        after, same = jax.tree.flatten(state)
        if same != tree:
            raise TypeError(f"step must return a state of the structure that init has made, {tree}, not {same}")
        after = tuple(jax.numpy.asarray(leaf) for leaf in after)
        for name, leaf, kind in zip(names, after, kinds, strict=True):
            if (leaf.shape, leaf.dtype) != (kind.shape, kind.dtype):
                raise TypeError(f"step made {leaf.dtype}{list(leaf.shape)} of the state's {name}, which init has made "
                                f"{kind.dtype}{list(kind.shape)}")  # fmt: skip
        if not isinstance(metrics, Mapping):
            metrics = {"": metrics}
        return after, {str(name): _scalar(name, value) for name, value in metrics.items()}

    @contextmanager
    def _hint(self) -> Iterator[None]:
        """Say what to do where code needs the value of what is traced."""
        jax = _jax()
        try:
            yield
        except Exception as error:
            traced = isinstance(error, jax.errors.JAXTypeError) or "Tracer" in str(error)
            if traced and self.group.varying:
                error.add_note(_HINT.format(", ".join(self.group.varying)))
            raise


class JaxStack:
    """Arrays with a row a member."""

    def __init__(self, task: JaxTask, names: tuple[str, ...], leaves: Leaves, rows: int) -> None:
        self.task, self.names, self.rows = task, names, rows
        self.leaves = leaves
        self._failed = False

    @property
    def leaves(self) -> Leaves:
        """The arrays, after the launch that is on its way."""
        launched = self._launched
        if launched is not None:
            self.leaves = launched.result()[0]
        return self._leaves

    @leaves.setter
    def leaves(self, leaves: Leaves) -> None:
        self._leaves = leaves
        self._launched: Future[tuple[Leaves, Any]] | None = None

    @property
    def broken(self) -> bool:
        """Whether its buffers are gone."""
        return self._failed or (self._launched is None and any(leaf.is_deleted() for leaf in self._leaves))

    def init(self, rows: Sequence[int], members: Members) -> None:
        """States at step 0; see :class:`tunesmith.execution.stacks.Stack` for these methods."""
        fill = self.task.even(power(len(rows))) - len(rows)
        padded = members.take([*range(len(rows)), *[0] * fill])
        placed = _jax().tree.map(self.task.place, (_columns(padded), _seed(padded.seeds)))
        leaves = self.task.program(members.group, "init")(*placed, self.task.data)
        if list(rows) == list(range(self.rows)) and not fill:
            self.leaves = leaves
        else:
            self._put(rows, leaves, range(len(rows)))

    def copy(self, rows: Sequence[int], source: Any, sources: Sequence[int]) -> None:
        """A gather and a scatter in one program; between devices travels what has to."""
        sharding = self.task.sharding
        if sharding is None or not self.leaves or any(leaf.sharding != sharding for leaf in source.leaves):
            self._put(rows, source.leaves, sources)
            return
        routes = _routes(rows, self.rows, sources, source.rows, sharding.num_devices)
        own, sent, to = (self.task.place(indices) for indices in routes)
        exchange, settle = _exchange(sharding)
        self.leaves = settle(self.leaves, to, exchange(source.leaves, own, sent))

    def take(self, rows: Sequence[int]) -> JaxStack:
        """A gather."""
        if self.task.sharding is not None and len(rows) == self.task.even(len(rows)):
            zeros = (self.task.zeros((len(rows), *leaf.shape[1:]), leaf.dtype) for leaf in self.leaves)
            taken = JaxStack(self.task, self.names, tuple(zeros), len(rows))
            taken.copy(range(len(rows)), self, rows)
            return taken
        leaves = _mover(_take)(self.leaves, np.asarray(rows, np.int32))
        return JaxStack(self.task, self.names, leaves, len(rows))

    def load(self, rows: Sequence[int], trees: Sequence[Any]) -> None:
        """From the host."""
        for tree in trees:
            match(tree, self.names, self.leaves)
        trees = [*trees, *[trees[0]] * (power(len(rows)) - len(rows))]
        self._put(rows, tuple(np.stack([tree[name] for tree in trees]) for name in self.names), range(len(rows)))

    def trees(self) -> list[dict[str, Any]]:
        """On the host, by the names of the leaves."""
        arrays = [np.asarray(leaf) for leaf in self.leaves]
        return [{name: array[i] for name, array in zip(self.names, arrays, strict=True)} for i in range(self.rows)]

    def run(self, members: Members, count: int, chunk: int) -> Callable[[], Columns]:
        """One launch; the device works on it while the host goes on."""
        if count > STEPS:
            raise ValueError(f"count={count} must be at most {STEPS}")
        arguments = (_columns(members), _seed(members.seeds), np.asarray(members.steps, np.int32))
        placed = _jax().tree.map(self.task.place, arguments)
        given = (self.leaves, *placed, np.int32(count), self.task.data)
        launched = self._launched = self.task.launch(members.group, chunk, self.rows, *given)

        def columns() -> Columns:
            try:
                metrics = launched.result()[1]
                return {name or None: np.asarray(values)[:count].astype(float) for name, values in metrics.items()}
            except BaseException:
                self._failed = True
                raise

        return columns

    def _put(self, rows: Sequence[int], leaves: Leaves, sources: Sequence[int]) -> None:
        """Rows beyond the last one are dropped: they fill up to a power of two, so that few programs are compiled."""
        fill = power(len(rows)) - len(rows)
        to = np.asarray([*rows, *[self.rows] * fill], np.int32)
        origin = np.asarray([*sources, *[0] * fill], np.int32)
        if leaves is self.leaves:
            self.leaves = _mover(_move, self.task.sharding)(leaves, to, origin)
        else:
            self.leaves = _mover(_put, self.task.sharding)(self.leaves, to, leaves, origin)


# -- helpers ------------------------------------------------------------------------------------------------------


def _move(leaves: Leaves, to: Any, origin: Any) -> Leaves:
    return tuple(leaf.at[to].set(leaf[origin], mode="drop") for leaf in leaves)


def _put(leaves: Leaves, to: Any, others: Leaves, origin: Any) -> Leaves:
    return tuple(leaf.at[to].set(other[origin], mode="drop") for leaf, other in zip(leaves, others, strict=True))


def _take(leaves: Leaves, rows: Any) -> Leaves:
    return tuple(leaf[rows] for leaf in leaves)


def _routes(
    to: Sequence[int], rows: int, origin: Sequence[int], others: int, devices: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How rows ``origin`` of ``others`` come to be rows ``to`` of ``rows``, in rows of each device.

    Returns:
        what a device copies itself [devices, n], what it sends to each [devices, devices, m], and where it puts first
        the one, then what it gets from each [devices, n + devices * m]. They are filled up to powers of two; what is
        put beyond the last row is dropped.
    """
    mine, theirs = rows // devices, others // devices
    pairs: list[list[list[tuple[int, int]]]] = [[[] for _ in range(devices)] for _ in range(devices)]
    for target, source in zip(to, origin, strict=True):
        (a, start), (b, end) = divmod(source, theirs), divmod(target, mine)
        pairs[a][b].append((start, end))
    every = list(product(range(devices), repeat=2))
    n = power(max([1, *(len(pairs[a][b]) for a, b in every if a == b)]))
    m = power(max([1, *(len(pairs[a][b]) for a, b in every if a != b)]))
    own, sent = np.zeros((devices, n), np.int32), np.zeros((devices, devices, m), np.int32)
    put = np.full((devices, n + devices * m), mine, np.int32)
    for a, b in every:
        count = len(pairs[a][b])
        where = 0 if a == b else n + a * m
        (own[a] if a == b else sent[a, b])[:count] = [start for start, _ in pairs[a][b]]
        put[b, where : where + count] = [end for _, end in pairs[a][b]]
    return own, sent, put


@cache
def _exchange(sharding: NamedSharding) -> tuple[Callable[..., Leaves], Callable[..., Leaves]]:
    """The compiled copying by ``_routes``: rows that a device takes over, and how they get into place."""
    jax = _jax()

    def exchange(leaves: Leaves, own: Any, sent: Any) -> Leaves:
        got = (jax.lax.all_to_all(leaf[sent[0]], _AXIS, 0, 0) for leaf in leaves)
        return tuple(
            jax.numpy.concatenate([leaf[own[0]], rows.reshape(-1, *leaf.shape[1:])])
            for leaf, rows in zip(leaves, got, strict=True)
        )

    def settle(leaves: Leaves, to: Any, rows: Leaves) -> Leaves:
        return tuple(leaf.at[to[0]].set(new, mode="drop") for leaf, new in zip(leaves, rows, strict=True))

    rows = _spec(_AXIS)
    shard = partial(jax.shard_map, mesh=sharding.mesh, in_specs=(rows, rows, rows), out_specs=rows, check_vma=False)
    return jax.jit(shard(exchange)), jax.jit(shard(settle), donate_argnums=0)


@cache
def _mover(function: Callable[..., Leaves], sharding: NamedSharding | None = None) -> Callable[..., Leaves]:
    """The compiled function; one that changes leaves does it in place."""
    in_place = {} if function is _take else {"donate_argnums": 0}
    where = {} if sharding is None else {"out_shardings": sharding}
    return _jax().jit(function, **in_place, **where)  # type: ignore[no-any-return]


def _jax() -> Any:
    try:
        import jax
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a JaxTask needs JAX: pip install 'tunesmith[jax]'") from error
    return jax


def _spec(*axes: str | None) -> Any:
    partition: Any = _jax().sharding.PartitionSpec
    return partition(*axes)


def _key(seed: Any) -> Any:
    random = _jax().random
    return random.fold_in(random.key(seed[0]), seed[1])


def _key_of(entry: Any) -> Any:
    """A key or an index in the path of a leaf."""
    return next(getattr(entry, name) for name in ("key", "idx", "name") if hasattr(entry, name))


def _scalar(name: Any, value: Any) -> Any:
    """A metric, of a type that a float can hold."""
    jax = _jax()
    try:
        scalar = jax.numpy.asarray(np.nan if value is None else value)
    except (TypeError, ValueError):
        raise metric_error(name, f"is {value!r}, a {type(value).__name__}, but must be a number") from None
    if scalar.shape:
        raise metric_error(name, f"has the shape {scalar.shape}: it must be a scalar")
    if jax.numpy.iscomplexobj(scalar):
        raise metric_error(name, "is complex: give its absolute value, or its parts by two names")
    return scalar


def _devices(given: Any) -> tuple[Any, ...]:
    """What ``devices=`` means."""
    device = _jax().Device
    devices = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    if not devices or not all(isinstance(one, device) for one in devices):
        example = f"jax.devices({given!r})" if isinstance(given, str) else "jax.devices()"
        raise TypeError(f"devices={given!r} must be a list of at least one device of JAX, such as devices={example}")
    if len(set(devices)) < len(devices):
        raise ValueError(f"devices={given!r} names a device twice")
    return devices


def _largest() -> dict[type, float]:
    numbers = _jax().numpy
    return {int: int(numbers.iinfo(_kind(int)).max), float: float(numbers.finfo(_kind(float)).max)}


def _given(data: Any) -> tuple[Any, ...]:
    return () if data is None else (data,)


def _seed(seeds: Sequence[int]) -> Any:
    """Seeds in [0, 2**63) as [n, 2] halves."""
    return np.array([(seed & 0xFFFFFFFF, seed >> 32) for seed in seeds], np.uint32)


def _kind(kind: type) -> Any:
    return _jax().dtypes.canonicalize_dtype(kind)


def _example(group: Group) -> dict[str, Any]:
    return {name: _jax().ShapeDtypeStruct((), _kind(kind)) for name, kind in group.varying.items()}


def _columns(members: Members) -> dict[str, Any]:
    """What varies: [n] by name."""
    varying = members.group.varying.items()
    return {name: np.array([config[name] for config in members.configs], _kind(kind)) for name, kind in varying}
