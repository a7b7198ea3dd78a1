"""Search spaces: parameters, the unit cube that samplers work in, and the moves that keep a configuration inside.

A configuration is a flat dict: the chosen option of a categorical parameter stands under its name, and the
parameters of its branch beside it. Only this module and its two helpers tell the kinds of parameters apart; all
others see columns of the unit cube.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, ValuesView
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import msgspec
import numpy as np
from msgspec.structs import asdict, force_setattr, replace
from numpy.typing import ArrayLike, NDArray

from tunesmith import _hit_and_run
from tunesmith._axes import Axis, Held, Levels, Line, Scalar, Table, flag, number, scalars, shown, text
from tunesmith._constraints import (
    Forbid,
    Function,
    LessThan,
    SpaceConstraint,
    SpaceError,
    SumAtMost,
    SumTo,
    forbid,
    guarded,
    less_than,
    named,
    require,
    storable,
    sum_at_most,
    sum_to,
)
from tunesmith._domains import Constant, Fidelity, Float, Integer, Ordinal, Parameter, Prior
from tunesmith._nodes import Column, Node, Place, exclusive, levels_of
from tunesmith._rules import Bound, Rules
from tunesmith._sums import Totals
from tunesmith._tables import as_html
from tunesmith.hints import Hinted

__all__ = [
    "Categorical", "Column", "Config", "Constant", "Domain", "Fidelity", "Float", "Forbid", "Integer", "LessThan",
    "Option", "Ordinal", "Prior", "Scalar", "Space", "SpaceConstraint", "SpaceError", "SumAtMost", "SumTo",
    "decode_hook", "encode_hook", "forbid", "less_than", "require", "sum_at_most", "sum_to",
]  # fmt: skip

Config = dict[str, Scalar]

SAMPLE_DRAWS = 1000  #: draws of `Space.sample` before it looks for points that the constraints allow
COMPLETIONS = 100  #: ways to complete a part of a configuration that are looked at to find one that is allowed
ROADS = 100  #: ways into the branches with the parameters of a part that are looked at
MOVE_DRAWS = 100  #: draws of `Space.perturb` and `Space.jitter` before they move by smaller steps
LONGEST = 20  #: names that an error lists
LISTED = 20_000  #: configurations of a finite space that are gone through to find those that are allowed
WALK = 10  #: random moves a column that lead away from a known configuration
NEARBY = (0.01, 0.03, 0.1, 0.3)  #: deviations of the steps by which a configuration is brought into the constraints
STROLL = 2  #: the same of a configuration that is to be varied
REACH = 0.1  #: and how long these moves are at most
RUNGS = (0.0, 1.0)  #: positions on the ladder of rungs at which a constraint is looked at
MORE_RUNGS = tuple(i / 8 for i in range(9))  #: the same where it names several fidelities

# -- domains ------------------------------------------------------------------------------------------------------


class Option(Hinted, frozen=True):
    """What comes with an option of a `Categorical`: a value for the training code, and parameters of its own.

    Args:
        value: any object.
        space: of the parameters that come with the option, or None.
    """

    value: Any
    space: Space | None = None


class _Value:
    """An option's value. A log has only that there is one: so all are equal, and one from a log is not ``known``."""

    __slots__ = ("given", "known")

    def __init__(self, given: Any, known: bool = True):
        self.given, self.known = given, known

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Value)

    def __hash__(self) -> int:
        return hash(_Value)

    def __repr__(self) -> str:
        return repr(self.given) if self.known else "..."


class Categorical(Parameter, frozen=True, tag="categorical"):
    """One of several options without an order.

    Args:
        options: the options; or a mapping from each option to what comes with it: the Space of its parameters, or None,
            or its value, any other object, which `Space.values` hands to the training code while configurations and
            the log hold the option; or an `Option`, which has both.
        prior: what is believed about the best option.
        fixed: chosen once, when a trial starts afresh; the branch stays, and the parameters in it that are not fixed
            move.

    ``branches`` holds one Space or None for each option, and ``values`` one value or None, or nothing if none has one.
    """

    options: tuple[Scalar, ...]
    prior: Prior | None = None
    branches: tuple[Space | None, ...] = ()
    fixed: bool = False
    values: tuple[_Value | None, ...] = ()

    if TYPE_CHECKING:

        def __init__(
            self, options: Mapping[Any, Any] | Iterable[Scalar], prior: Prior | None = None, *, fixed: bool = False
        ): ...

    def __post_init__(self) -> None:
        given: object = self.options
        options, branches, values = _options(given), self.branches, self.values
        if isinstance(given, Mapping):
            parts = [_option(name, content) for name, content in given.items()]
            branches, values = tuple(branch for branch, _ in parts), tuple(value for _, value in parts)
        branches = branches or (None,) * len(options)
        if not any(values):
            values = ()
        for what, found in (("branches", branches), ("values", values or options)):
            if len(found) != len(options):
                raise ValueError(f"{len(found)} {what} are given for {len(options)} options")
        for option, branch in zip(options, branches, strict=True):
            if branch is not None and not isinstance(branch, Space):
                raise TypeError(f"option {shown(option)} must carry a Space or None, not {shown(branch)}")
        fixed = flag("fixed", self.fixed)
        for field, value in (("options", options), ("branches", branches), ("values", values), ("fixed", fixed)):
            force_setattr(self, field, value)
        self.settle_prior(self.prior)

    def axis(self) -> Table:
        """How the options lie in [0, 1]."""
        return Table(self.options, ordered=False)

    def __repr__(self) -> str:
        contents = [
            branch if value is None else value if branch is None else Option(value, branch)
            for branch, value in zip(self.branches, self.values or (None,) * len(self.options), strict=True)
        ]
        plain = all(content is None for content in contents)
        options = list(self.options) if plain else dict(zip(self.options, contents, strict=True))
        prior = "" if self.prior is None else f", prior={self.prior!r}"
        return f"Categorical({options!r}{prior}{', fixed=True' if self.fixed else ''})"


def _taken(node: Node, levels: list[int], draft: Mapping[str, Scalar], rng: np.random.Generator) -> Scalar:
    """One of these options of a parameter: that of the draft, or a drawn one."""
    assert node.switch is not None
    with contextlib.suppress(KeyError, ValueError):
        if node.switch.level(draft[node.name]) in levels:
            return draft[node.name]
    return node.switch.value(levels[rng.integers(len(levels))])


def _rows(space: Space, where: str) -> Iterator[dict[str, Any]]:
    """The parameters of a space and of its branches, as rows of a table."""
    for name, domain in space.items():
        branches = domain.branches if isinstance(domain, Categorical) else ()
        options = f"Categorical({list(domain.options)!r})" if isinstance(domain, Categorical) else ""
        yield {"parameter": name, "values": options if any(branches) else domain, "where": where}
        for option, branch in zip(domain.options if isinstance(domain, Categorical) else (), branches, strict=True):
            if branch is not None:
                yield from _rows(branch, f"{where} and {name}={option!r}" if where else f"{name}={option!r}")


def _options(given: object) -> tuple[Scalar, ...]:
    """The options of a categorical, checked."""
    options = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes | set) else given
    try:
        return scalars("options", options, "Categorical(['relu', 'gelu'])")
    except TypeError as error:
        plain = str | int | float | np.generic | None
        objects = [option for option in options if not isinstance(option, plain)] if isinstance(options, tuple) else ()
        if not objects:
            raise
        name = getattr(objects[0], "__name__", "a name")
        example = f"Categorical({{{name!r}: {shown(objects[0])}, ...}})"
        raise TypeError(f"{error}; give an object a name, {example}") from None


def _option(name: object, content: object) -> tuple[Space | None, _Value | None]:
    """The branch and the value of an option."""
    if isinstance(content, Option):
        if content.space is not None and not isinstance(content.space, Space):
            raise TypeError(f"option {shown(name)}: space={shown(content.space)} must be a Space or None")
        return content.space, _Value(content.value)
    if content is None or isinstance(content, Space):
        return content, None
    if isinstance(content, Parameter):
        raise TypeError(f"option {shown(name)} must carry a Space or None, or a value, not {shown(content)}")
    if isinstance(content, Mapping) and any(isinstance(part, Parameter) for part in content.values()):
        raise TypeError(f"option {shown(name)} must carry its parameters as a Space: Space({shown(content)})")
    return None, _Value(content)


Domain = Float | Integer | Ordinal | Categorical | Constant | Fidelity

# -- spaces -------------------------------------------------------------------------------------------------------


class NothingAllowedError(ValueError):
    """No configuration was found that honours the constraints of a space."""


class Space(Mapping[str, Domain]):
    """A search space: named parameters and the hard constraints between them.

    The mapping holds the outermost parameters; ``columns`` and configurations also those in the branches.

    Args:
        domains: name to domain; a bare scalar is a constant.
        constraints: declared rules (`less_than`, `forbid`, `sum_at_most`, `sum_to`), or functions of the configuration.
            Those of a branch's space hold where the branch is taken. A function gets the whole configuration, in
            which inactive parameters are missing, and says True where it is allowed. All of them hold on every rung:
            they are looked at with the fidelities at their low and at their high ends (and at seven places between,
            where a rule names several). A combination that names a value of a fidelity is forbidden as soon as the
            others have theirs.

    Attributes:
        size: number of configurations of a finite space, constraints left aside; infinity for others.
        fixed: names of the parameters that a trial keeps when it is copied, in branches too: those that are fixed,
            those on which one depends that is, and constants.
        valued: whether an option has a value of its own, see `values`.

    Raises:
        TypeError, ValueError: naming the parameter and the rule that is broken.
    """

    columns: tuple[Column, ...]
    constraints: tuple[SpaceConstraint, ...]
    fidelities: Mapping[str, Fidelity]
    size: float
    fixed: frozenset[str]
    valued: bool

    def __init__(self, domains: Mapping[str, Domain | Scalar], constraints: Iterable[SpaceConstraint] = ()):
        if not isinstance(domains, Mapping):
            raise TypeError(f"a space is made of a mapping from names to domains, not of {shown(domains)}")
        if isinstance(constraints, str) or not isinstance(constraints, Iterable):
            raise TypeError(f"constraints={shown(constraints)} must be a list, such as [less_than('a', 'b')]")
        self._domains = {_name(name): _domain(name, given) for name, given in domains.items()}
        self.constraints = tuple(constraints)
        self.fidelities = {name: domain for name, domain in self._domains.items() if isinstance(domain, Fidelity)}
        nodes: list[Node] = []
        columns: list[Column] = []
        rules: list[Place] = []
        _expand([(name, domain, ()) for name, domain in self._domains.items()], -1, nodes, columns, rules)
        self._nodes, self.columns = tuple(nodes), tuple(columns)
        plain = all(node.column == at and node.parent < 0 and not node.switch for at, node in enumerate(nodes))
        self._plain = tuple((node.name, node.axis.encode) for node in nodes) if plain else ()
        self._by_name: dict[str, list[Node]] = {}
        for node in nodes:
            for other in self._by_name.setdefault(node.name, []):
                if not exclusive((node.parent, node.options), (other.parent, other.options), self.columns):
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
        self._checks = tuple((constraint, self._check_of(constraint)) for constraint in self.constraints)
        several = any(len(self.fidelities.keys() & set(named(constraint))) > 1 for constraint in self.constraints)
        self._rungs = MORE_RUNGS if several else RUNGS
        places = [*(Place(constraint, -1, -1) for constraint in self.constraints if named(constraint)), *rules]
        self._totals = Totals(places, self._by_name, self.columns) or None
        self._rules = Rules(places, self._nodes, self._by_name, self._on_rungs)
        self._stored = tuple(map(storable, self.constraints))
        below = [branch for domain in self._domains.values() for branch in _branches(domain)]
        self._functions: tuple[Function, ...] = (
            *(rule for rule in self._stored if isinstance(rule, Function)),
            *(function for branch in below for function in branch._functions),
        )
        self.size = _product([_size(domain) for domain in self._domains.values()])
        self._kept = tuple(map(self._is_kept, nodes))
        unsteady = {node.name for node, kept in zip(nodes, self._kept, strict=True) if not kept}
        self.fixed = frozenset(self._by_name.keys() - unsteady)
        self.valued = any(branch.valued for branch in below) or any(
            domain.values for domain in self._domains.values() if isinstance(domain, Categorical)
        )

    # the mapping

    def __getitem__(self, name: str) -> Domain:
        return self._domains[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Space):
            return NotImplemented
        if self is other:
            return True
        pairs = zip(self._functions, other._functions, strict=False)
        return self._identity == other._identity and all(ours.agrees(theirs) for ours, theirs in pairs)

    def __hash__(self) -> int:
        return hash(self._identity)

    @cached_property
    def _identity(self) -> bytes:
        """The space as JSON without the digests of functions, which need not be there."""
        return _identities.encode(self)

    def __repr__(self) -> str:
        rules = f", constraints={list(self._stored)!r}" if self.constraints else ""
        return f"Space({self._domains!r}{rules})"

    def _repr_html_(self) -> str:
        rows = list(_rows(self, ""))
        rows += [{"parameter": "constraint", "values": rule, "where": ""} for rule in self._stored]
        return as_html(rows, f"Space of {len(self)} parameters" if len(self) != 1 else "Space of one parameter")

    def __reduce__(self) -> tuple[Any, ...]:
        return Space, (self._domains, self.constraints)

    # JSON

    def to_json(self) -> bytes:
        """The space as JSON; of a constraint that is a function, its name and a digest; of values, that there are."""
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
        if self._plain and len(config) == len(self._plain):  # the usual space, without branches: several times as fast
            try:
                return np.array([encode(config[name]) for name, encode in self._plain], dtype=np.float64)
            except (KeyError, ValueError):
                pass  # what is wrong is said below
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
                raise ValueError(f"parameter {name!r}={shown(config[name])}: {error}") from None
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
        if self._totals:
            self._totals.share(config, levels)
        return config

    def snap(self, u: ArrayLike) -> NDArray[np.float64]:
        """The nearest representable points: grids, levels, totals (`sum_to`), NaN in inactive columns.

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
        if self._totals:
            self._totals.snap(points)
        return points.reshape(given.shape)

    def spread(self, u: ArrayLike) -> NDArray[np.float64]:
        """Points that fill the unit cube evenly, turned into points that fill evenly what totals leave, and snapped.

        Where parameters add up to a total (`sum_to`) that each of them could be alone, uniform points become uniform on
        the simplex (they are gaps of a Poisson process); to `snap` they would be close to its middle. Other columns are
        only snapped.

        Args:
            u: [d] or [n, d]; clipped to [0, 1].

        Returns:
            float64 of the same shape.
        """
        points = np.clip(np.array(u, dtype=np.float64), 0.0, 1.0)
        if self._totals and points.ndim in (1, 2) and points.shape[-1] == len(self.columns):
            self._totals.spread(points.reshape(-1, len(self.columns)))
        return self.snap(points)

    def positions(self, column: int) -> NDArray[np.float64]:
        """Where the levels of a column lie in [0, 1], in order: [k]. ValueError for a continuous one."""
        axis = self._levels(column)
        return np.array([axis.centre(level) for level in range(axis.levels)])

    def position(self, column: int, level: int) -> float:
        """Where one level of a column lies in [0, 1]. ValueError for a continuous one."""
        return self._levels(column).centre(level)

    def _levels(self, column: int) -> Levels:
        axis = next(node.axis for node in self._nodes if node.column == column)
        if not isinstance(axis, Levels):
            raise ValueError(f"parameter {self.columns[column].name!r} is continuous: it has no levels")
        return axis

    def allows(self, u: ArrayLike) -> bool:
        """Whether the point [d] honours the hard constraints."""
        return not self._constrained or self._broken(self.decode(u)) is None

    @property
    def constrained(self) -> bool:
        """Whether there are hard constraints, here or in a branch."""
        return self._constrained

    # configurations

    def check(self, config: Mapping[str, Scalar]) -> None:
        """Nothing, where the configuration lies in the space.

        Raises:
            ValueError: naming the parameter, its value and the rule: missing, unknown, out of range, off the grid,
                in a branch that is not taken, or a broken constraint.
        """
        self.encode(config)
        for at in self._on_rungs(config):
            broken = self._first_broken(at)
            if broken is not None:
                values = [f"{name!r}={shown(at[name])}" for name in named(broken) or at if name in at]
                raise ValueError(f"constraint {storable(broken)!r} is broken by {_listed(values)}")

    def check_part(self, part: Mapping[str, Scalar]) -> None:
        """Nothing, where each of these values is allowed for its parameter by itself.

        Raises:
            ValueError: naming the parameter, its value and the rule.
        """
        for name, value in part.items():
            nodes = self._by_name.get(name)
            if nodes is None:
                raise ValueError(f"parameter {name!r}={value!r} is unknown: the space has {', '.join(self._by_name)}")
            if not any(_accepts(node.axis, value) for node in nodes):
                raise ValueError(f"parameter {name!r}={value!r}: {nodes[0].axis.rule}")

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

        Declared rules between parameters that are always active cut off what can't be completed any more, so that few
        configurations are found in few steps.

        Args:
            levels: of a continuous parameter, so many values, evenly spread in the unit cube from end to end.

        Raises:
            ValueError: a parameter is continuous, and no ``levels`` are given.
        """
        if self.size == math.inf and levels is None:
            raise ValueError("a space with a continuous parameter has no list of configurations: give levels=")
        if levels is not None and levels < 2:
            raise ValueError(f"levels={shown(levels)} must be at least 2")
        every = self._walk(0, {}, {}, self._rules.bounds(), levels or 0)
        return (config for config in every if self._broken(config) is None) if self._constrained else every

    @overload
    def values(self) -> ValuesView[Domain]: ...

    @overload
    def values(self, config: Mapping[str, Scalar]) -> dict[str, Any]: ...

    def values(self, config: Mapping[str, Scalar] | None = None) -> ValuesView[Domain] | dict[str, Any]:
        """What training code gets for a configuration: of options that have a value, the value instead of the name.

        Without a configuration, the domains, as of any mapping.

        Raises:
            ValueError: an option is none of its parameter's.
            SpaceError: the space comes from a log, which does not hold the values.
        """
        if config is None:
            return super().values()
        handed: dict[str, Any] = dict(config)
        if self.valued:
            self._hand_over(config, handed)
        return handed

    def unconstrained(self) -> Space:
        """The same parameters and values without constraints, whose functions may not be fit for another process."""
        domains = dict(self._domains)
        for name, domain in domains.items():
            if isinstance(domain, Categorical):
                branches = tuple(branch and branch.unconstrained() for branch in domain.branches)
                domains[name] = replace(domain, branches=branches)
        return Space(domains)

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

        Where that is rare it is uniform as near as can be, in three ways. Parameters of declared rules (`less_than`,
        `sum_at_most`, `sum_to`) that hold in less than a fiftieth of all draws are drawn from what the rules leave
        them, the others as if there were no such rules; so a branch with such rules is drawn as often as others. A
        finite space of up to 20,000 configurations is listed, and each is as likely. For the rest (functions, and
        `forbid`) a random walk leads away from one of the known configurations, or else from one that a search finds.

        Args:
            rng: source of randomness.
            near: configurations that may honour the constraints; looked at only where draws don't.

        Raises:
            NothingAllowedError: none was found.
        """
        if not self._constrained:
            return self.decode(rng.random(len(self.columns)))
        for _ in range(SAMPLE_DRAWS):
            config = self._draw(rng)
            if self._broken(config) is None:
                return config
        if self.size <= LISTED:
            if not self._list:
                raise self._nothing(config, f"each of {self.size} configurations")
            return dict(self._list[rng.integers(len(self._list))])
        cube = self._cube(range(len(self.columns)))
        start = self._known(near, rng)
        if start is None:
            start = _hit_and_run.find(self._conflicts, cube, rng)
        if start is None:
            raise self._nothing(config, f"each of {SAMPLE_DRAWS + _hit_and_run.TRIES} draws")
        return self.decode(_hit_and_run.leave(start, self.allows, cube, rng, WALK * len(self.columns)))

    def _nothing(self, config: Config, what: str) -> NothingAllowedError:
        """That no configuration was found; the one given is the last of those that were looked at."""
        broken = self._broken(config)
        assert broken is not None
        return NothingAllowedError(
            f"constraints leave (almost) nothing: {what} breaks one, such as {storable(broken)!r}; loosen it, say it "
            "by less_than, sum_at_most or sum_to, or enqueue a configuration that honours it"
        )

    def perturb(
        self,
        config: Mapping[str, Scalar],
        rng: np.random.Generator,
        factor: float = 1.2,
        resample: float = 0.0,
        near: Iterable[Mapping[str, Scalar]] = (),
    ) -> Config:
        """The explore step of Population Based Training (Jaderberg et al. 2017), inside the space and without drift.

        Each active parameter that is not fixed moves on its own. Numbers go up or down by ``log(factor)`` in the
        logarithm, or for linear scales in a symmetric logarithm that is linear near zero; the bounds are mirrors. What
        has levels moves so too, to the level where it arrives, and by one level where the factor is less than one and a
        half; an ordinal by one. A move by one level that would leave the range stays. So, without selection, ordinals
        and linear grids are at all levels equally often, and logarithmic grids where they move by one level, beyond
        evenly in the logarithm. A categorical changes only when it is drawn anew; parameters that become active with it
        are drawn, those that stay active move. Parameters that have a total (`sum_to`) are scaled to it afterwards.
        Values outside the space (of before a migration) are first brought into it, missing ones are drawn.

        Args:
            config: the configuration to start from; unchanged.
            rng: source of randomness.
            factor: > 1.
            resample: probability with which a parameter is drawn anew from the unit cube instead, in [0, 1].
            near: configurations that may honour the constraints, for `sample`.

        Returns:
            a new configuration that honours the constraints. Where 100 moves break them: a short random walk from the
            given one along what they allow, if that honours them, which may end where it began; else one near it that
            honours them, which declared rules help to find; else a sample.
        """
        if not 1 < number(factor) < math.inf:
            raise ValueError(f"factor={shown(factor)} must be > 1 and finite")
        if not 0 <= number(resample) <= 1:
            raise ValueError(f"resample={shown(resample)} must be in [0, 1]")
        shift = math.log(factor)

        def move(axis: Axis, value: Scalar) -> Scalar:
            if resample and rng.random() < resample:
                return axis.decode(rng.random())
            return axis.perturb(value, rng, shift)

        return self._vary(config, rng, move, near)

    def jitter(
        self,
        config: Mapping[str, Scalar],
        rng: np.random.Generator,
        scale: float,
        near: Iterable[Mapping[str, Scalar]] = (),
    ) -> Config:
        """A Gaussian step of the deviation ``scale`` in the unit cube, mirrored at its faces.

        What has levels moves by at least one, and stays where that would leave the range; categoricals stay. Otherwise
        as `perturb`.
        """
        if not 0 < number(scale) < math.inf:
            raise ValueError(f"scale={shown(scale)} must be > 0 and finite")
        return self._vary(config, rng, lambda axis, value: axis.jitter(value, rng, scale), near)

    def nearest(
        self,
        config: Mapping[str, Scalar],
        rng: np.random.Generator,
        near: Iterable[Mapping[str, Scalar]] = (),
    ) -> Config:
        """A configuration of before a migration brought into the space: values that left it are taken to the nearest,
        options that are gone and parameters that are new are drawn, what is too much is left out.

        A configuration of the space stays as it is. Constraints as in `perturb`.
        """
        return self._vary(config, rng, lambda axis, value: value, near)

    def complete(
        self,
        part: Mapping[str, Scalar],
        rng: np.random.Generator,
        draft: Mapping[str, Scalar] | None = None,
        wanted: Callable[[Config], bool] = lambda config: True,
    ) -> Config | None:
        """A configuration with these values, the rest as in ``draft`` as far as that is possible, or drawn; None where
        none was found that is wanted and that the constraints allow.

        Raises:
            ValueError: as `check_part`, or these parameters are never active together.
        """
        self.check_part(part)
        draft = draft or {}
        for _ in range(COMPLETIONS):
            options = self._options_for(part, draft, rng)
            config = self.nearest({**draft, **options, **part}, rng)
            if self._totals and part.keys() <= config.keys():
                config |= part
                self._totals.share(config, levels_of(self._nodes, config), part)
            if part.items() <= config.items() and self.contains(config) and wanted(config):
                return config
            draft = {}
        return None

    def _options_for(self, part: Mapping[str, Scalar], draft: Mapping[str, Scalar], rng: np.random.Generator) -> Config:
        """The options of which the branches have the parameters of a part: those of the draft if they do, or drawn."""
        switches = {node.column: node for node in self._nodes if node.switch}
        for _ in range(ROADS):
            levels: dict[int, set[int]] = {}  # by column: the options that lead to all of them
            for name, value in part.items():
                nodes = [node for node in self._by_name[name] if _accepts(node.axis, value)]
                node = nodes[rng.integers(len(nodes))] if len(nodes) > 1 else nodes[0]
                if node.switch:
                    levels[node.column] = levels.get(node.column, {node.switch.level(value)}) & {
                        node.switch.level(value)
                    }
                parent, options = node.parent, node.options
                while parent >= 0:
                    levels[parent] = levels.get(parent, set(options)) & set(options)
                    parent, options = switches[parent].parent, switches[parent].options
            if all(levels.values()):
                return {
                    switches[column].name: _taken(switches[column], sorted(allowed), draft, rng)
                    for column, allowed in sorted(levels.items())
                }
        raise ValueError(
            f"{_listed(map(repr, part))} are never active together: they are in branches that exclude each other"
        )

    # helpers

    def _vary(
        self,
        config: Mapping[str, Scalar],
        rng: np.random.Generator,
        move: Callable[[Axis, Scalar], Scalar],
        near: Iterable[Mapping[str, Scalar]],
    ) -> Config:
        for _ in range(MOVE_DRAWS):
            new = self._moved(config, rng, move)
            if not self._constrained or self._broken(new) is None:
                return new
        home = self._moved(config, rng, lambda axis, value: value)
        if self._broken(home) is None:
            free = [j for j, column in enumerate(self.columns) if not column.fixed and column.kind != "unordered"]
            start, steps = self._filled(home, rng), STROLL * len(free)
            new = self.decode(_hit_and_run.leave(start, self.allows, self._cube(free), rng, steps, REACH))
            held = self.fixed | self.fidelities.keys()
            return {name: home[name] if name in held else value for name, value in new.items()}

        def further(scale: float) -> Callable[[Axis, Scalar], Scalar]:
            return lambda axis, value: axis.jitter(value, rng, scale)

        def anew(axis: Axis, value: Scalar) -> Scalar:
            return axis.decode(rng.random())

        for other in (*map(further, NEARBY), anew):  # what is fixed stays in all of them
            for _ in range(MOVE_DRAWS):
                new = self._moved(config, rng, other)
                if self._broken(new) is None:
                    return new
                self._rules.repair(new, self.fixed)
                if self._broken(new) is None:
                    return new
        return self.sample(rng, near)

    def _moved(
        self, config: Mapping[str, Scalar], rng: np.random.Generator, move: Callable[[Axis, Scalar], Scalar]
    ) -> Config:
        """Each active parameter that is not fixed moved once; those without a usable value in ``config`` drawn."""
        before: dict[int, int] = {}
        now: dict[int, int] = {}
        new: Config = {}
        for (name, axis, column, parent, options, switch), kept in zip(self._nodes, self._kept, strict=True):
            old = None
            if name in config and (parent < 0 or before.get(parent) in options):
                with contextlib.suppress(ValueError):
                    old = (axis.nearest(config[name]),)
                    if switch:
                        before[column] = switch.level(old[0])
            if parent >= 0 and now.get(parent) not in options:
                continue
            if old is None:
                new[name] = axis.decode(rng.random())
            else:
                new[name] = old[0] if kept else move(axis, *old)
            if switch:
                now[column] = switch.level(new[name])
        if self._totals:
            self._totals.share(new, now)
        return new

    def _is_kept(self, node: Node) -> bool:
        """Whether a parameter keeps its value when a trial is copied."""
        if node.column >= 0:
            return self.columns[node.column].fixed
        return isinstance(node.axis, Table) and (node.parent < 0 or self.columns[node.parent].fixed)

    def _hand_over(self, config: Mapping[str, Scalar], handed: dict[str, Any]) -> None:
        """Put the values of options in place of their names, in the branches that are taken too."""
        for name, domain in self._domains.items():
            if not isinstance(domain, Categorical) or name not in config:
                continue
            try:
                level = domain.axis().level(config[name])
            except ValueError as error:
                raise ValueError(f"parameter {name!r}={shown(config[name])}: {error}") from None
            value = domain.values[level] if domain.values else None
            if value is not None:
                if not value.known:
                    raise SpaceError(
                        f"parameter {name!r}: the value of the option {shown(config[name])} is not in the log: "
                        "pass the space that has it"
                    )
                handed[name] = value.given
            branch = domain.branches[level]
            if branch is not None:
                branch._hand_over(config, handed)

    # thin constraints

    def _draw(self, rng: np.random.Generator) -> Config:
        """A draw; thin declared rules hold in it, if they can."""
        u = rng.random(len(self.columns))
        config = self.decode(self.spread(u) if self._totals else u)
        if self._rules.thin:
            self._rules.redraw(config, rng)
        return config

    @cached_property
    def _list(self) -> list[Config]:
        """All allowed configurations of a finite space."""
        return list(self.configs())

    def _known(self, near: Iterable[Mapping[str, Scalar]], rng: np.random.Generator) -> NDArray[np.float64] | None:
        """A place of one of these configurations that honours the constraints, drawn; None where none does."""
        given = list(near)
        for i in rng.permutation(len(given)):
            if self.contains(given[i]):
                return self._filled(given[i], rng)
        return None

    def _filled(self, config: Mapping[str, Scalar], rng: np.random.Generator) -> NDArray[np.float64]:
        """The place of a configuration, with draws for what is inactive."""
        u = self.encode(config)
        return np.where(np.isnan(u), rng.random(len(u)), u)

    def _cube(self, free: Iterable[int]) -> _hit_and_run.Cube:
        """These columns for random moves."""
        chosen = [j for j in free if self.columns[j].levels != 1]
        rates = np.ones(len(self.columns))
        for node in self._nodes:
            if node.column >= 0 and isinstance(node.axis, Line) and not node.axis.log:
                rates[node.column] = node.axis.span
        unordered = [j for j in chosen if self.columns[j].kind == "unordered"]
        return _hit_and_run.Cube([j for j in chosen if j not in unordered], unordered, rates)

    # lists

    def _walk(
        self,
        at: int,
        config: Config,
        levels: dict[int, int],
        bounds: list[list[Bound]],
        points: int,
    ) -> Iterator[Config]:
        """All ways to complete a configuration from the node ``at`` on."""
        if at == len(self._nodes):
            yield config
            return
        name, axis, column, parent, options, switch = self._nodes[at]
        if parent >= 0 and levels.get(parent) not in options:
            yield from self._walk(at + 1, config, levels, bounds, points)
            return
        for i in range(axis.levels or points):
            value = axis.value(i) if isinstance(axis, Levels) else axis.decode(i / (points - 1))
            new = {**config, name: value}
            if all(bound.holds(new) for bound in bounds[at]):
                yield from self._walk(at + 1, new, {**levels, column: i} if switch else levels, bounds, points)

    # constraints

    def _broken(self, config: Mapping[str, Scalar]) -> SpaceConstraint | None:
        """The first constraint that a configuration of the space breaks on any rung, in its branches too."""
        if not self.fidelities:
            return self._first_broken(config)
        return next((broken for at in self._on_rungs(config) if (broken := self._first_broken(at)) is not None), None)

    def _first_broken(self, config: Mapping[str, Scalar]) -> SpaceConstraint | None:
        for constraint, holds in self._checks:
            if not holds(config):  # type: ignore[arg-type]  # a function gets a copy
                return constraint
        for name, table, branches in self._branches:
            branch = branches[table.level(config[name])]
            broken = branch._first_broken(config) if branch is not None else None
            if broken is not None:
                return broken
        return None

    def _on_rungs(self, config: Mapping[str, Scalar]) -> Iterator[Config]:
        """The configuration with its fidelities as they are where constraints are looked at."""
        for position in self._rungs if self.fidelities else (1.0,):
            yield self.at(config, position)

    def _conflicts(self, u: NDArray[np.float64]) -> int:
        """How many constraints a point [d] breaks."""
        config = self.decode(u)
        return sum(self._count_broken(at) for at in self._on_rungs(config))

    def _count_broken(self, config: Config) -> int:
        count = len([None for _, holds in self._checks if not holds(config)])
        for name, table, branches in self._branches:
            branch = branches[table.level(config[name])]
            count += 0 if branch is None else branch._count_broken(config)
        return count

    def _check_of(self, constraint: SpaceConstraint) -> SpaceConstraint:
        """A constraint as it is checked: a function guarded, a combination without the fidelities in it."""
        if not isinstance(constraint, Forbid) or not self.fidelities.keys() & constraint.values.keys():
            return guarded(constraint)
        rest = {name: value for name, value in constraint.values.items() if name not in self.fidelities}
        if not rest:
            raise ValueError(f"constraint {constraint!r} forbids every configuration: each has that on some rung")
        return Forbid(rest)

    def _refuse_surplus(self, config: Mapping[str, Scalar], row: list[float]) -> None:
        active = self.decode(row)
        for name, value in config.items():
            if name in active:
                continue
            given = f"parameter {shown(name)}={shown(value)}"
            if name not in self._by_name:
                raise ValueError(f"{given} is unknown: the space has {_listed(self._by_name)}")
            node = self._by_name[name][0]
            above = next(other for other in self._nodes if other.column == node.parent)
            values = " or ".join(shown(above.axis.decode((level + 0.5) / above.axis.levels)) for level in node.options)
            raise ValueError(f"{given} is active only where {above.name!r} is {values}")

    def _check_constraint(self, constraint: SpaceConstraint) -> None:
        if not callable(constraint) or isinstance(constraint, type):
            raise TypeError(
                f"constraint {shown(constraint)} must be less_than(...), forbid(...), sum_at_most(...), sum_to(...) or "
                "a function"
            )
        for name in named(constraint):
            if name not in self._by_name:
                raise ValueError(f"constraint {storable(constraint)!r} names an unknown parameter {name!r}")
            axes = [node.axis for node in self._by_name[name]]
            if isinstance(constraint, SumTo) and name in self.fidelities:
                raise ValueError(f"constraint {constraint!r} can't hold on every rung: {name!r} is a fidelity")
            if isinstance(constraint, LessThan | SumAtMost | SumTo) and any(
                isinstance(axis, Table) and any(math.isnan(number(value)) for value in axis.values) for axis in axes
            ):
                does = "compares" if isinstance(constraint, LessThan) else "adds"
                raise TypeError(f"constraint {constraint!r} {does} numbers, and {name!r} has others")
            if isinstance(constraint, Forbid) and not any(_accepts(axis, constraint.values[name]) for axis in axes):
                raise ValueError(f"constraint {constraint!r}: {name!r} {axes[0].rule}")


# -- helpers of Space ---------------------------------------------------------------------------------------------


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a parameter's name must be a string, not {shown(name)}")
    if not name:
        raise ValueError("a parameter's name must not be empty")
    return text("the parameter's name", name)


def _domain(name: str, given: object) -> Domain:
    if isinstance(given, Domain):
        return given
    if given is None or isinstance(given, str | int | float | np.generic):
        try:
            return Constant(given)  # type: ignore[arg-type]  # numpy's scalars become Python's
        except (TypeError, ValueError) as error:
            raise type(error)(f"parameter {name!r}: {error}") from None
    raise TypeError(
        f"parameter {name!r} must be a domain such as Float or Categorical, or a constant, not {shown(given)}"
    )


def _listed(names: Iterable[str]) -> str:
    """The first of some names, for an error."""
    found = list(names)
    return ", ".join(found[:LONGEST]) + (f", ... ({len(found)})" if len(found) > LONGEST else "")


def _branches(domain: Domain) -> list[Space]:
    """The spaces that the options of a domain bring."""
    found = domain.branches if isinstance(domain, Categorical) else ()
    return [branch for branch in found if branch is not None]


def _expand(
    entries: list[tuple[str, Domain, tuple[int, ...]]],
    parent: int,
    nodes: list[Node],
    columns: list[Column],
    rules: list[Place],
) -> None:
    """Append the nodes and the columns of the entries (name, domain, options of the parent) and of their branches, and
    the declared rules of the branches.

    A name with one and the same domain in several branches of a parameter is one entry.
    """
    for name, domain, options in entries:
        axis, column = domain.axis(), -1
        if not isinstance(domain, Constant | Fidelity):
            column, prior = len(columns), domain.prior
            belief = None if prior is None else (axis.encode(prior.mode), float(prior.confidence))
            above = parent if parent >= 0 else None
            columns.append(Column(name, axis.kind, axis.levels, above, options, belief, domain.fixed))
        children: dict[tuple[str, bytes], tuple[Domain, list[int]]] = {}
        for option, branch in enumerate(domain.branches if isinstance(domain, Categorical) else ()):
            for child, below in (branch or {}).items():
                if isinstance(below, Fidelity):
                    raise ValueError(f"parameter {child!r} is a fidelity: it must stand in the outermost space")
                children.setdefault((child, _encoder.encode(below)), (below, []))[1].append(option)
            declared = (rule for rule in (branch.constraints if branch else ()) if named(rule))
            rules.extend(Place(rule, column, option) for rule in declared)
        switch = axis if children and isinstance(axis, Table) else None
        nodes.append(Node(name, axis, column, parent, options, switch))
        below_here = [(child, below, tuple(at)) for (child, _), (below, at) in children.items()]
        _expand(below_here, column, nodes, columns, rules)
        if column >= 0 and any(other.parent == column and other.fixed for other in columns):
            columns[column] = replace(columns[column], fixed=True)


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
    constraints: tuple[LessThan | Forbid | SumAtMost | SumTo | Function, ...] = ()


def _space(form: object) -> Space:
    parts = msgspec.convert(form, _Form)
    domains: dict[str, Domain | Scalar] = {}
    for name, raw in parts.domains.items():
        try:
            domains[name] = msgspec.convert(raw, Domain, dec_hook=decode_hook)
        except msgspec.ValidationError as error:
            raise ValueError(f"parameter {name!r}: {error}") from error
    return Space(domains, parts.constraints)


def _plain(domain: Domain) -> dict[str, Any]:
    """A domain as data, without what only newer logs know where it is not used."""
    fields = {"kind": domain.__struct_config__.tag, **asdict(domain)}
    for name, unused in (("fixed", False), ("values", ())):
        if name in fields and fields[name] == unused and not (name == "values" and isinstance(domain, Ordinal)):
            del fields[name]
    return fields


def encode_hook(value: Any) -> Any:
    """For msgspec: a Space, or a scalar of numpy, in terms of what msgspec knows."""
    if isinstance(value, Space):
        domains = {name: _plain(domain) for name, domain in value.items()}
        return {"domains": domains, "constraints": list(value._stored)}
    if isinstance(value, _Value):
        return True
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def decode_hook(kind: type, value: Any) -> Any:
    """For msgspec: a Space from its JSON form, or that an option has a value."""
    if kind is Space:
        return _space(value)
    if kind is _Value:
        if value is not True:
            raise ValueError("that an option has a value is said by true")
        return _Value(None, known=False)
    raise NotImplementedError(f"{kind.__name__} has no JSON form")


def _without_digests(value: Any) -> Any:
    """As `encode_hook`, of functions only the names."""
    found = encode_hook(value)
    if isinstance(value, Space):
        found["constraints"] = [Function(rule.name) if isinstance(rule, Function) else rule for rule in value._stored]
    return found


_encoder = msgspec.json.Encoder(enc_hook=encode_hook)
_identities = msgspec.json.Encoder(enc_hook=_without_digests)
