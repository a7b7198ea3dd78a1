"""Search spaces: parameters, the unit cube that samplers work in, and the moves that keep a configuration inside.

A configuration is a flat dict: the chosen option of a categorical parameter stands under its name, and the
parameters of its branch beside it. Only this module and its two helpers tell the kinds of parameters apart; all
others see columns of the unit cube.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import force_setattr
from numpy.typing import ArrayLike, NDArray

from tunesmith._axes import Axis, Held, Levels, Scalar, Table, number, scalars
from tunesmith._constraints import Forbid, Function, LessThan, SpaceConstraint, forbid, less_than, named, storable
from tunesmith._domains import Constant, Fidelity, Float, Integer, Ordinal, Parameter, Prior

__all__ = [
    "Categorical", "Column", "Config", "Constant", "Domain", "Fidelity", "Float", "Forbid", "Integer", "LessThan",
    "Ordinal", "Prior", "Scalar", "Space", "SpaceConstraint", "decode_hook", "encode_hook", "forbid", "less_than",
]  # fmt: skip

Config = dict[str, Scalar]

SAMPLE_DRAWS = 10_000  #: draws of `Space.sample` before it gives up
MOVE_DRAWS = 100  #: draws of `Space.perturb` and `Space.jitter` before they give up

# -- domains ------------------------------------------------------------------------------------------------------


class Categorical(Parameter, frozen=True, tag="categorical"):
    """One of several options without an order.

    Args:
        options: the options; or a mapping from each option to the Space of the parameters that come with it, or None.
        prior: what is believed about the best option.

    ``branches`` holds one Space or None for each option.
    """

    options: tuple[Scalar, ...]
    prior: Prior | None = None
    branches: tuple[Space | None, ...] = ()

    if TYPE_CHECKING:

        def __init__(self, options: Mapping[Any, Space | None] | Iterable[Scalar], prior: Prior | None = None): ...

    def __post_init__(self) -> None:
        given: object = self.options
        options = scalars("options", given)
        branches = tuple(given.values()) if isinstance(given, Mapping) else self.branches or (None,) * len(options)
        if len(branches) != len(options):
            raise ValueError(f"{len(branches)} branches are given for {len(options)} options")
        for option, branch in zip(options, branches, strict=True):
            if branch is not None and not isinstance(branch, Space):
                raise TypeError(f"option {option!r} must carry a Space or None, not {branch!r}")
        force_setattr(self, "options", options)
        force_setattr(self, "branches", branches)
        self.settle_prior(self.prior)

    def axis(self) -> Table:
        """How the options lie in [0, 1]."""
        return Table(self.options, ordered=False)

    def __repr__(self) -> str:
        plain = all(branch is None for branch in self.branches)
        options = list(self.options) if plain else dict(zip(self.options, self.branches, strict=True))
        return f"Categorical({options!r}{'' if self.prior is None else f', prior={self.prior!r}'})"


Domain = Float | Integer | Ordinal | Categorical | Constant | Fidelity

# -- spaces -------------------------------------------------------------------------------------------------------


class Column(msgspec.Struct, frozen=True):
    """All that a sampler may know of a parameter: one axis of the unit cube.

    Attributes:
        name: of the parameter; different columns may share one where they exclude each other.
        kind: "continuous", "ordered" or "unordered".
        levels: number of levels, 0 if continuous.
        parent: index of the column on which this one depends (less than its own), or None: always active.
        options: the levels of the parent that make it active.
        prior: position in [0, 1] of the value believed best, and the confidence in (0, 1]; or None.
    """

    name: str
    kind: Literal["continuous", "ordered", "unordered"]
    levels: int
    parent: int | None = None
    options: tuple[int, ...] = ()
    prior: tuple[float, float] | None = None


class _Node(NamedTuple):
    """A parameter in its place.

    ``column`` is -1 for a constant and a fidelity, ``parent`` -1 for what is always active; ``switch`` is the axis if
    it has branches.
    """

    name: str
    axis: Axis
    column: int
    parent: int
    options: tuple[int, ...]
    switch: Table | None


class Space(Mapping[str, Domain]):
    """A search space: named parameters and the hard constraints between them.

    The mapping holds the outermost parameters; ``columns`` and configurations also those in the branches.

    Args:
        domains: name to domain; a bare scalar is a constant.
        constraints: `less_than`, `forbid`, or functions of the configuration. Those of a branch's space hold where
            the branch is taken. A function gets the whole configuration, in which inactive parameters are missing.

    Raises:
        TypeError, ValueError: naming the parameter and the rule that is broken.
    """

    columns: tuple[Column, ...]
    constraints: tuple[SpaceConstraint, ...]
    fidelities: Mapping[str, Fidelity]
    size: float

    def __init__(self, domains: Mapping[str, Domain | Scalar], constraints: Iterable[SpaceConstraint] = ()):
        if not isinstance(domains, Mapping):
            raise TypeError(f"a space is made of a mapping from names to domains, not of {domains!r}")
        self._domains = {_name(name): _domain(name, given) for name, given in domains.items()}
        self.constraints = tuple(constraints)
        self.fidelities = {name: domain for name, domain in self._domains.items() if isinstance(domain, Fidelity)}
        nodes: list[_Node] = []
        columns: list[Column] = []
        _expand([(name, domain, ()) for name, domain in self._domains.items()], -1, nodes, columns)
        self._nodes, self.columns = tuple(nodes), tuple(columns)
        self._by_name: dict[str, list[_Node]] = {}
        for node in nodes:
            for other in self._by_name.setdefault(node.name, []):
                if not _exclusive(node, other, self.columns):
                    raise ValueError(f"parameter {node.name!r} can occur twice in one configuration")
            self._by_name[node.name].append(node)
        self._branches: tuple[tuple[str, Table, tuple[Space | None, ...]], ...] = tuple(
            (name, domain.axis(), domain.branches)
            for name, domain in self._domains.items()
            if isinstance(domain, Categorical) and any(branch and branch._constrained for branch in domain.branches)
        )
        self._constrained: bool = bool(self.constraints or self._branches)
        for constraint in self.constraints:
            self._check_constraint(constraint)
        self.size = _product([_size(domain) for domain in self._domains.values()])

    # the mapping

    def __getitem__(self, name: str) -> Domain:
        return self._domains[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    def __eq__(self, other: object) -> bool:
        return self.to_json() == other.to_json() if isinstance(other, Space) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        rules = f", constraints={[storable(rule) for rule in self.constraints]!r}" if self.constraints else ""
        return f"Space({self._domains!r}{rules})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Space, (self._domains, self.constraints)

    # JSON

    def to_json(self) -> bytes:
        """The space as JSON; of a constraint that is a function, only its name."""
        return _encoder.encode(self)

    @classmethod
    def from_json(cls, source: bytes | str | Mapping[str, Any]) -> Space:
        """A space from its JSON, as text or as a dict; executes nothing. ValueError says what is wrong."""
        try:
            return _space(source if isinstance(source, Mapping) else msgspec.json.decode(source))
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a search space: {error}") from error

    # the unit cube

    def encode(self, config: Mapping[str, Scalar]) -> NDArray[np.float64]:
        """Position of a configuration in the unit cube.

        Returns:
            float64 [d], one number a column; NaN where a branch is not taken.

        Raises:
            ValueError: as `check`, constraints left aside.
        """
        row = [math.nan] * len(self.columns)
        levels: dict[int, int] = {}
        used = 0
        for name, axis, column, parent, options, switch in self._nodes:
            if parent >= 0 and levels.get(parent) not in options:
                continue
            if name not in config:
                if isinstance(axis, Held):
                    continue
                raise ValueError(f"parameter {name!r} is missing: it {axis.rule}")
            try:
                u = axis.encode(config[name])
            except ValueError as error:
                raise ValueError(f"parameter {name!r}={config[name]!r}: {error}") from None
            used += 1
            if column >= 0:
                row[column] = u
            if switch:
                levels[column] = switch.index(u)
        if used != len(config):
            self._refuse_surplus(config, row)
        return np.array(row, dtype=np.float64)

    def decode(self, u: ArrayLike) -> Config:
        """The configuration at a point of the unit cube.

        Args:
            u: [d]; clipped to [0, 1]. Values of inactive columns are ignored.

        Returns:
            flat dict of the active parameters, in the order of the space.

        Raises:
            ValueError: for a wrong shape, or NaN in an active column.
        """
        point = np.asarray(u, dtype=np.float64)
        if point.shape != (len(self.columns),):
            raise ValueError(f"a point of shape {point.shape} is given, the space has {len(self.columns)} columns")
        row: list[float] = point.tolist()
        levels: dict[int, int] = {}
        config: Config = {}
        for name, axis, column, parent, options, switch in self._nodes:
            if parent >= 0 and levels.get(parent) not in options:
                continue
            x = row[column] if column >= 0 else 0.0
            if not 0.0 <= x <= 1.0:
                if math.isnan(x):
                    raise ValueError(f"parameter {name!r} is active, and its column {column} is NaN")
                x = 0.0 if x < 0.0 else 1.0
            config[name] = axis.decode(x)
            if switch:
                levels[column] = switch.index(x)
        return config

    def snap(self, u: ArrayLike) -> NDArray[np.float64]:
        """The nearest representable points: grids, levels, NaN in inactive columns.

        Args:
            u: [d] or [n, d]; clipped to [0, 1].

        Returns:
            float64 of the same shape.

        Raises:
            ValueError: for a wrong shape, or NaN in an active column.
        """
        given = np.asarray(u, dtype=np.float64)
        if given.ndim not in (1, 2) or given.shape[-1] != len(self.columns):
            raise ValueError(f"points of shape {given.shape} are given, the space has {len(self.columns)} columns")
        points = np.clip(np.atleast_2d(given), 0.0, 1.0)
        for node in self._nodes:
            if node.column < 0:
                continue
            active: NDArray[np.bool_] | slice = slice(None)
            if node.parent >= 0:
                levels = np.floor(points[:, node.parent] * self.columns[node.parent].levels)
                active = (levels[:, None] == node.options).any(axis=1)
            chosen = points[active, node.column].copy()
            if np.isnan(chosen).any():
                raise ValueError(f"parameter {node.name!r} is active, and its column {node.column} is NaN")
            snapped = node.axis.snap(chosen)
            points[:, node.column] = np.nan
            points[active, node.column] = snapped
        return points.reshape(given.shape)

    def positions(self, column: int) -> NDArray[np.float64]:
        """Where the levels of a column lie in [0, 1], in order: [k]. ValueError for a continuous one."""
        axis = next(node.axis for node in self._nodes if node.column == column)
        if not isinstance(axis, Levels):
            raise ValueError(f"parameter {self.columns[column].name!r} is continuous: it has no levels")
        return np.array([axis.centre(level) for level in range(axis.levels)])

    def allows(self, u: ArrayLike) -> bool:
        """Whether the point [d] honours the hard constraints."""
        return not self._constrained or self._broken(self.decode(u)) is None

    # configurations

    def check(self, config: Mapping[str, Scalar]) -> None:
        """Nothing, where the configuration lies in the space.

        Raises:
            ValueError: naming the parameter, its value and the rule: missing, unknown, out of range, off the grid,
                in a branch that is not taken, or a broken constraint.
        """
        self.encode(config)
        broken = self._broken(config)
        if broken is not None:
            values = ", ".join(f"{name!r}={config[name]!r}" for name in named(broken) or config)
            raise ValueError(f"constraint {storable(broken)!r} is broken by {values}")

    def contains(self, config: Mapping[str, Scalar]) -> bool:
        """Whether the configuration lies in the space and honours the constraints."""
        try:
            self.check(config)
        except ValueError:
            return False
        return True

    def key(self, config: Mapping[str, Scalar]) -> bytes:
        """Identity of a configuration, for sets and dicts: its place in the unit cube.

        Raises:
            ValueError: as `encode`.
        """
        return self.encode(config).tobytes()

    def configs(self, levels: int | None = None) -> Iterator[Config]:
        """All allowed configurations of a finite space, one after another, the last parameter fastest.

        Args:
            levels: of a continuous parameter, so many values, evenly spread in the unit cube from end to end.

        Raises:
            ValueError: a parameter is continuous, and no ``levels`` are given.
        """
        if self.size == math.inf and levels is None:
            raise ValueError("a space with a continuous parameter has no list of configurations")
        every = self._walk(0, {}, {}, levels or 0)
        return (config for config in every if self._broken(config) is None) if self._constrained else every

    # fidelities

    def at(self, config: Mapping[str, Scalar], position: float) -> Config:
        """The configuration with its fidelities as they are at a position in [0, 1] on the ladder of rungs."""
        return {**config, **{name: domain.at(position) for name, domain in self.fidelities.items()}}

    def carries(self, before: Mapping[str, Scalar], after: Mapping[str, Scalar]) -> bool:
        """Whether a trial can go on with its weights when its fidelities change from those of one configuration to
        those of another.
        """
        return all(domain.carry or before.get(name) == after.get(name) for name, domain in self.fidelities.items())

    # random configurations

    def sample(self, rng: np.random.Generator, near: Iterable[Mapping[str, Scalar]] = ()) -> Config:
        """A configuration, uniform in the unit cube among those that honour the constraints.

        Args:
            rng: source of randomness.
            near: configurations that may honour the constraints; where draws don't, one of them is moved a little.

        Raises:
            ValueError: where 10,000 draws in a row break a constraint.
        """
        for _ in range(SAMPLE_DRAWS):
            config = self.decode(rng.random(len(self.columns)))
            broken = self._broken(config) if self._constrained else None
            if broken is None:
                return config
        allowed = [config for config in near if self.contains(config)]
        if allowed:
            return self.jitter(allowed[int(rng.integers(len(allowed)))], rng, 0.1)
        raise ValueError(f"constraints leave (almost) nothing: {SAMPLE_DRAWS} draws broke one, the last {broken!r}")

    def perturb(
        self, config: Mapping[str, Scalar], rng: np.random.Generator, factor: float = 1.2, resample: float = 0.0
    ) -> Config:
        """The explore step of Population Based Training (Jaderberg et al. 2017), inside the space and without drift.

        Each active parameter moves on its own. Numbers go up or down by ``log(factor)`` in the logarithm, or for
        linear scales in a symmetric logarithm that is linear near zero; the bounds are mirrors. What has levels moves
        by at least one, an ordinal by exactly one. A categorical changes only when it is drawn anew; parameters that
        become active with it are drawn, those that stay active move. Values outside the space (of before a migration)
        are first brought into it, missing ones are drawn.

        Args:
            config: the configuration to start from; unchanged.
            rng: source of randomness.
            factor: > 1.
            resample: probability with which a parameter is drawn anew from the unit cube instead, in [0, 1].

        Returns:
            a new configuration that honours the constraints: the given one where 100 draws break them and the
            given one does not, else a sample.
        """
        if not 1 < factor < math.inf:
            raise ValueError(f"factor={factor!r} must be > 1 and finite")
        if not 0 <= resample <= 1:
            raise ValueError(f"resample={resample!r} must be in [0, 1]")
        shift = math.log(factor)

        def move(axis: Axis, value: Scalar) -> Scalar:
            if resample and rng.random() < resample:
                return axis.decode(rng.random())
            return axis.perturb(value, rng, shift)

        return self._vary(config, rng, move)

    def jitter(self, config: Mapping[str, Scalar], rng: np.random.Generator, scale: float) -> Config:
        """A Gaussian step of the deviation ``scale`` in the unit cube, mirrored at its faces.

        What has levels moves by at least one; categoricals stay. Otherwise as `perturb`.
        """
        if not 0 < scale < math.inf:
            raise ValueError(f"scale={scale!r} must be > 0 and finite")
        return self._vary(config, rng, lambda axis, value: axis.jitter(value, rng, scale))

    # helpers

    def _vary(
        self, config: Mapping[str, Scalar], rng: np.random.Generator, move: Callable[[Axis, Scalar], Scalar]
    ) -> Config:
        for _ in range(MOVE_DRAWS):
            new = self._moved(config, rng, move)
            if not self._constrained or self._broken(new) is None:
                return new
        return dict(config) if self.contains(config) else self.sample(rng)

    def _moved(
        self, config: Mapping[str, Scalar], rng: np.random.Generator, move: Callable[[Axis, Scalar], Scalar]
    ) -> Config:
        """Each active parameter moved once; those without a usable value in ``config`` drawn."""
        before: dict[int, int] = {}
        now: dict[int, int] = {}
        new: Config = {}
        for name, axis, column, parent, options, switch in self._nodes:
            old = None
            if name in config and (parent < 0 or before.get(parent) in options):
                with contextlib.suppress(ValueError):
                    old = (axis.nearest(config[name]),)
                    if switch:
                        before[column] = switch.level(old[0])
            if parent >= 0 and now.get(parent) not in options:
                continue
            new[name] = move(axis, *old) if old else axis.decode(rng.random())
            if switch:
                now[column] = switch.level(new[name])
        return new

    def _walk(self, at: int, config: Config, levels: dict[int, int], points: int) -> Iterator[Config]:
        """All ways to complete a configuration from the node ``at`` on."""
        if at == len(self._nodes):
            yield config
            return
        name, axis, column, parent, options, switch = self._nodes[at]
        if parent >= 0 and levels.get(parent) not in options:
            yield from self._walk(at + 1, config, levels, points)
            return
        for i in range(axis.levels or points):
            value = axis.value(i) if isinstance(axis, Levels) else axis.decode(i / (points - 1))
            chosen = {**levels, column: i} if switch else levels
            yield from self._walk(at + 1, {**config, name: value}, chosen, points)

    def _broken(self, config: Mapping[str, Scalar]) -> SpaceConstraint | None:
        """The first constraint that a configuration of the space breaks, those of its branches included."""
        for constraint in self.constraints:
            if not constraint(config):  # type: ignore[arg-type]  # a function reads it only
                return constraint
        for name, table, branches in self._branches:
            branch = branches[table.level(config[name])]
            broken = branch._broken(config) if branch is not None else None
            if broken is not None:
                return broken
        return None

    def _refuse_surplus(self, config: Mapping[str, Scalar], row: list[float]) -> None:
        active = self.decode(row)
        for name, value in config.items():
            if name in active:
                continue
            if name not in self._by_name:
                raise ValueError(f"parameter {name!r}={value!r} is unknown: the space has {', '.join(self._by_name)}")
            node = self._by_name[name][0]
            above = next(other for other in self._nodes if other.column == node.parent)
            values = " or ".join(repr(above.axis.decode((level + 0.5) / above.axis.levels)) for level in node.options)
            raise ValueError(f"parameter {name!r}={value!r} is active only where {above.name!r} is {values}")

    def _check_constraint(self, constraint: SpaceConstraint) -> None:
        if not callable(constraint):
            raise TypeError(f"constraint {constraint!r} must be less_than(...), forbid(...) or a function")
        for name in named(constraint):
            if name not in self._by_name:
                raise ValueError(f"constraint {storable(constraint)!r} names an unknown parameter {name!r}")
            axes = [node.axis for node in self._by_name[name]]
            if isinstance(constraint, LessThan) and any(
                isinstance(axis, Table) and any(math.isnan(number(value)) for value in axis.values) for axis in axes
            ):
                raise TypeError(f"constraint {constraint!r} compares numbers, and {name!r} has others")
            if isinstance(constraint, Forbid) and not any(_accepts(axis, constraint.values[name]) for axis in axes):
                raise ValueError(f"constraint {constraint!r}: {name!r} {axes[0].rule}")


# -- helpers of Space ---------------------------------------------------------------------------------------------


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a parameter's name must be a string, not {name!r}")
    if not name:
        raise ValueError("a parameter's name must not be empty")
    return name


def _domain(name: str, given: object) -> Domain:
    if isinstance(given, Domain):
        return given
    if given is None or isinstance(given, str | int | float | np.generic):
        try:
            return Constant(given)  # type: ignore[arg-type]  # numpy's scalars become Python's
        except (TypeError, ValueError) as error:
            raise type(error)(f"parameter {name!r}: {error}") from None
    raise TypeError(f"parameter {name!r} must be a domain such as Float or Categorical, or a constant, not {given!r}")


def _expand(
    entries: list[tuple[str, Domain, tuple[int, ...]]], parent: int, nodes: list[_Node], columns: list[Column]
) -> None:
    """Append the nodes and the columns of the entries (name, domain, options of the parent) and of their branches.

    A name with one and the same domain in several branches of a parameter is one entry.
    """
    for name, domain, options in entries:
        axis, column = domain.axis(), -1
        if not isinstance(domain, Constant | Fidelity):
            column, prior = len(columns), domain.prior
            belief = None if prior is None else (axis.encode(prior.mode), float(prior.confidence))
            columns.append(Column(name, axis.kind, axis.levels, parent if parent >= 0 else None, options, belief))
        children: dict[tuple[str, bytes], tuple[Domain, list[int]]] = {}
        for option, branch in enumerate(domain.branches if isinstance(domain, Categorical) else ()):
            for child, below in (branch or {}).items():
                if isinstance(below, Fidelity):
                    raise ValueError(f"parameter {child!r} is a fidelity: it must stand in the outermost space")
                children.setdefault((child, _encoder.encode(below)), (below, []))[1].append(option)
        switch = axis if children and isinstance(axis, Table) else None
        nodes.append(_Node(name, axis, column, parent, options, switch))
        _expand([(child, below, tuple(at)) for (child, _), (below, at) in children.items()], column, nodes, columns)


def _exclusive(a: _Node, b: _Node, columns: tuple[Column, ...]) -> bool:
    """Whether two nodes are never active together: some column activates them by different options."""

    def conditions(node: _Node) -> dict[int, tuple[int, ...]]:
        found, parent, options = {}, node.parent, node.options
        while parent >= 0:
            found[parent] = options
            above = columns[parent]
            parent, options = -1 if above.parent is None else above.parent, above.options
        return found

    ours, theirs = conditions(a), conditions(b)
    return any(set(ours[column]).isdisjoint(theirs[column]) for column in ours.keys() & theirs.keys())


def _size(domain: Domain) -> float:
    if isinstance(domain, Categorical):
        sizes = [1 if branch is None else branch.size for branch in domain.branches]
        return math.inf if math.inf in sizes else sum(sizes)
    return domain.axis().levels or math.inf


def _product(sizes: list[float]) -> float:
    return math.inf if math.inf in sizes else math.prod(sizes)


def _accepts(axis: Axis, value: Scalar) -> bool:
    try:
        axis.encode(value)
    except ValueError:
        return False
    return True


# -- JSON ---------------------------------------------------------------------------------------------------------


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON of a space, its domains still to be decoded one by one, so that errors can name the parameter."""

    domains: dict[str, dict[str, Any]]
    constraints: tuple[LessThan | Forbid | Function, ...] = ()


def _space(form: object) -> Space:
    parts = msgspec.convert(form, _Form)
    domains: dict[str, Domain | Scalar] = {}
    for name, raw in parts.domains.items():
        try:
            domains[name] = msgspec.convert(raw, Domain, dec_hook=decode_hook)
        except msgspec.ValidationError as error:
            raise ValueError(f"parameter {name!r}: {error}") from error
    return Space(domains, parts.constraints)


def encode_hook(value: Any) -> Any:
    """For msgspec: a Space, or a scalar of numpy, in terms of what msgspec knows."""
    if isinstance(value, Space):
        return {"domains": dict(value), "constraints": [storable(rule) for rule in value.constraints]}
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def decode_hook(kind: type, value: Any) -> Any:
    """For msgspec: a Space from its JSON form."""
    if kind is Space:
        return _space(value)
    raise NotImplementedError(f"{kind.__name__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=encode_hook)
