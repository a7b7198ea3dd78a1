"""Hard constraints: which combinations of values a configuration must not have.

Declared rules are data: they are stored with a study, and draws can follow them. Functions are code: of them a study
stores the name and a digest.
"""

from __future__ import annotations

import dis
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import fsum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from msgspec.structs import force_setattr

from tunesmith._axes import Scalar, real, scalar, shown, text
from tunesmith.errors import TunesmithError

SpaceConstraint = Callable[[dict[str, Scalar]], bool]  #: a declared rule, or a function of the configuration

CLOSE = 1e-9  #: share of the size of its terms by which a sum may miss its total
ROUNDING = 1e-12  #: share by which a sum may be over its limit
CONFIG_SHOWN = 200  #: characters of a configuration that an error shows


class SpaceError(TunesmithError, RuntimeError):
    """What a space needs and a log can't hold is missing or has failed: the code of a constraint, an option's value."""


# -- declared rules -----------------------------------------------------------------------------------------------


class LessThan(msgspec.Struct, frozen=True, tag_field="kind", tag="less_than", forbid_unknown_fields=True):
    """``smaller < larger``; holds where one of the two is inactive."""

    smaller: str
    larger: str

    def __post_init__(self) -> None:
        what = f"less_than({shown(self.smaller)}, {shown(self.larger)})"
        if self.smaller == self.larger:
            raise ValueError(f"{what} can never hold")
        _names(what, (self.smaller, self.larger))

    def __call__(self, config: Mapping[str, Any]) -> bool:
        """Whether the configuration honours it."""
        if self.smaller not in config or self.larger not in config:
            return True
        return bool(config[self.smaller] < config[self.larger])

    def __repr__(self) -> str:
        return f"less_than({self.smaller!r}, {self.larger!r})"


class Forbid(msgspec.Struct, frozen=True, tag_field="kind", tag="forbid", forbid_unknown_fields=True):
    """Not all of these values together; holds where one of the parameters is inactive."""

    values: dict[str, Scalar]

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping) or not self.values:
            raise ValueError(f"forbid({shown(self.values)}) must name at least one parameter and its value")
        _names(f"forbid({shown(self.values)})", self.values)
        force_setattr(self, "values", {name: scalar(name, value) for name, value in self.values.items()})

    def __call__(self, config: Mapping[str, Scalar]) -> bool:
        return not all(
            name in config and config[name] == value and isinstance(config[name], bool) == isinstance(value, bool)
            for name, value in self.values.items()
        )

    def __repr__(self) -> str:
        return f"forbid({self.values!r})"


class SumAtMost(msgspec.Struct, frozen=True, tag_field="kind", tag="sum_at_most", forbid_unknown_fields=True):
    """A weighted sum of parameters is at most ``limit``; inactive ones count nothing, and it holds where all are."""

    weights: dict[str, float]
    limit: float

    def __post_init__(self) -> None:
        what = f"sum_at_most({shown(self.weights)}, {shown(self.limit)})"
        _names(what, self.weights)
        weights = {name: real(f"{what}: the weight of {name!r}", weight) for name, weight in self.weights.items()}
        if not weights or 0 in weights.values():
            raise ValueError(f"{what} must give at least one parameter a weight, and none the weight 0")
        force_setattr(self, "weights", weights)
        force_setattr(self, "limit", real(f"{what}: limit", self.limit))

    def __call__(self, config: Mapping[str, Any]) -> bool:
        terms = [weight * config[name] for name, weight in self.weights.items() if name in config]
        return not terms or sum(terms) <= self.limit + self.slack(terms)

    def slack(self, terms: Iterable[float]) -> float:
        """What rounding may add."""
        return ROUNDING * max(abs(self.limit), sum(map(abs, terms)))

    def __repr__(self) -> str:
        given = list(self.weights) if set(self.weights.values()) == {1.0} else self.weights
        return f"sum_at_most({given!r}, {self.limit!r})"


class SumTo(msgspec.Struct, frozen=True, tag_field="kind", tag="sum_to", forbid_unknown_fields=True):
    """The active ones of these parameters add up to ``total``; it holds where none is active."""

    names: tuple[str, ...]
    total: float

    def __post_init__(self) -> None:
        what = f"sum_to({shown(self.names)}, {shown(self.total)})"
        force_setattr(self, "names", _names(what, self.names))
        if len(self.names) < 2:
            raise ValueError(f"{what} must name at least two parameters: what stands alone is a Constant")
        force_setattr(self, "total", real(f"{what}: total", self.total))

    def __call__(self, config: Mapping[str, Any]) -> bool:
        values = [float(config[name]) for name in self.names if name in config]
        return not values or abs(fsum(values) - self.total) <= self.slack(values)

    def slack(self, values: Iterable[float]) -> float:
        """By how much the sum may miss the total."""
        return CLOSE * max(abs(self.total), sum(map(abs, values)))

    def __repr__(self) -> str:
        return f"sum_to({list(self.names)!r}, {self.total!r})"


def less_than(smaller: str, larger: str) -> LessThan:
    """The hard constraint that one parameter is strictly less than another."""
    return LessThan(smaller, larger)


def forbid(values: Mapping[str, Scalar]) -> Forbid:
    """The hard constraint that these values do not occur together."""
    return Forbid(dict(values) if isinstance(values, Mapping) else values)


def sum_at_most(weights: Mapping[str, float] | Iterable[str], limit: float) -> SumAtMost:
    """The hard constraint that a sum of parameters is at most ``limit``.

    Args:
        weights: names, or a weight for each name; a negative weight subtracts.
        limit: greatest sum.
    """
    if isinstance(weights, Mapping):
        return SumAtMost(dict(weights), limit)
    return SumAtMost(dict.fromkeys(_names(f"sum_at_most({shown(weights)}, {shown(limit)})", weights), 1.0), limit)


def sum_to(names: Iterable[str], total: float) -> SumTo:
    """The hard constraint that parameters add up to ``total``, such as the weights of a mixture to 1.

    They must be `Float` without ``log``, or all be `Integer` or stepped `Float` with one step. Every point of the unit
    cube is a configuration that honours it: what the parameters have above their low bounds is scaled by one factor,
    and cut off at the high bounds; what has levels is rounded by the largest remainders.
    """
    return SumTo(_names(f"sum_to({shown(names)}, {shown(total)})", names), total)


def _names(what: str, given: object) -> tuple[str, ...]:
    """Distinct names of parameters."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{what} must name parameters in a list, such as ['a', 'b']")
    names = tuple(given)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{what}: the name of a parameter is a string, not {shown(name)}")
        text(f"{what}: the name", name)
    if len(set(names)) < len(names):
        raise ValueError(f"{what} names a parameter twice")
    return tuple(map(str, names))


# -- functions ----------------------------------------------------------------------------------------------------


class Function(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True, tag="function",
               omit_defaults=True):  # fmt: skip
    """A constraint that was a Python function when the space was stored: its name, and a digest of its code.

    The digest is empty where the user has given the name, and in logs of before there were digests.
    """

    name: str
    digest: str = ""

    def __call__(self, config: Mapping[str, Scalar]) -> bool:
        raise SpaceError(f"constraint {self.name!r} is a Python function: pass the space that has it")

    def agrees(self, other: Function) -> bool:
        """Whether both may be the same function. Digests of different versions of Python can't be compared."""
        ours, theirs = self.digest.partition("-"), other.digest.partition("-")
        return self.name == other.name and (ours[0] != theirs[0] or ours[2] == theirs[2])

    def __repr__(self) -> str:
        return self.name


class Required:
    """A function that has to hold, known to the log by a name that the user has given."""

    def __init__(self, function: SpaceConstraint, name: str):
        if not callable(function):
            raise TypeError(f"require({shown(function)}, {shown(name)}): the first argument must be a function")
        if not isinstance(name, str) or not name:
            raise TypeError(f"require(...): name={shown(name)} must be a string that is not empty")
        self.function, self.name = function, text("require(...): the name", name)

    def __call__(self, config: dict[str, Scalar]) -> bool:
        return self.function(config)

    def __repr__(self) -> str:
        return self.name


def require(function: SpaceConstraint, name: str) -> Required:
    """The hard constraint that a function of the configuration holds, under a name of its own.

    A function without one is compared by its code when a study goes on, and refused where that differs. With a name
    the name alone counts: use it where the code changes and means the same.
    """
    return Required(function, name)


def storable(constraint: SpaceConstraint) -> LessThan | Forbid | SumAtMost | SumTo | Function:
    """A constraint as data."""
    if isinstance(constraint, LessThan | Forbid | SumAtMost | SumTo | Function):
        return constraint
    if isinstance(constraint, Required):
        return Function(constraint.name)
    function: Any = constraint
    while isinstance(function, partial):
        function = function.func
    return Function(getattr(function, "__qualname__", type(function).__qualname__), digest(constraint))


def named(constraint: SpaceConstraint) -> tuple[str, ...]:
    """The parameters that a constraint names; none for a function."""
    if isinstance(constraint, LessThan):
        return constraint.smaller, constraint.larger
    if isinstance(constraint, SumTo):
        return constraint.names
    if isinstance(constraint, SumAtMost):
        return tuple(constraint.weights)
    return tuple(constraint.values) if isinstance(constraint, Forbid) else ()


def guarded(constraint: SpaceConstraint) -> SpaceConstraint:
    """A function that can't change the configuration, and whose errors say where they come from."""
    if isinstance(constraint, LessThan | Forbid | SumAtMost | SumTo | Function):
        return constraint

    def holds(config: dict[str, Scalar]) -> bool:
        try:
            answer: Any = constraint(dict(config))
            if answer is not None:
                return bool(answer)
        except Exception as error:
            failed = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise SpaceError(f"constraint {storable(constraint)!r} fails for {_config(config)}: {failed}") from error
        raise SpaceError(f"constraint {storable(constraint)!r} gives None for {_config(config)}: return True or False")

    return holds


def _config(config: Mapping[str, Scalar]) -> str:
    return shown(dict(config), CONFIG_SHOWN)


# -- what a function does, as a digest ------------------------------------------------------------------------------

_DIGESTS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # so that a function that counts its calls stays the same


def digest(function: Any) -> str:
    """The version of Python, and a digest of what a function does: its code, its defaults, and the data and the
    functions that it refers to. Names of variables, docstrings and places in a file are left out.
    """
    try:
        known = _DIGESTS.get(function)
    except TypeError:  # neither hashable nor weakly referable
        return _digest(function)
    if known is None:
        known = _DIGESTS[function] = _digest(function)
    return known


def _digest(function: Any) -> str:
    lines = [*_described(function, set()), *_state(function, set())]
    found = hashlib.sha256("\n".join(lines).encode("utf-8", "backslashreplace")).hexdigest()
    return f"{sys.version_info.major}.{sys.version_info.minor}-{found[:16]}"


def _described(value: Any, seen: set[int]) -> Iterator[str]:
    """A function, or a value that it refers to, as lines of text. Of objects of other classes only the class."""
    yield f"{type(value).__module__}.{type(value).__qualname__}"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield repr(value)
    elif id(value) in seen:
        yield "again"
    elif isinstance(value, FunctionType):
        seen.add(id(value))
        yield from _code(value.__code__, value.__doc__)
        for part in (value.__defaults__, value.__kwdefaults__, *_closed(value), *_globals(value)):
            yield from _described(part, seen)
    elif isinstance(value, MethodType):
        yield from _described(value.__func__, seen)
        yield from _state(value.__self__, seen)
    elif isinstance(value, partial):
        for part in (value.func, value.args, value.keywords):
            yield from _described(part, seen)
    elif isinstance(value, type | BuiltinFunctionType | np.ufunc):
        yield f"{getattr(value, '__module__', '')}.{value.__name__}"
    elif isinstance(value, np.ndarray | np.generic):
        yield f"{value.dtype} {value.shape} {value.tolist()!r}"
    elif isinstance(value, dict):
        seen.add(id(value))
        for item in value.items():
            for part in item:
                yield from _described(part, seen)
    elif isinstance(value, list | tuple):
        seen.add(id(value))
        for part in value:
            yield from _described(part, seen)
    elif isinstance(value, set | frozenset):
        yield from sorted("\n".join(_described(part, seen)) for part in value)


def _state(value: Any, seen: set[int]) -> Iterator[str]:
    """What an object with a method ``__call__`` does, and its attributes."""
    if isinstance(value, FunctionType | type) or not hasattr(value, "__dict__"):
        return
    yield from _described(getattr(type(value), "__call__", None), seen)  # noqa: B004  its code is wanted
    yield from _described(vars(value), seen)


def _code(code: CodeType, doc: str | None) -> Iterator[str]:
    """The instructions of a function and of those inside it, and their constants but for the docstring."""
    yield code.co_code.hex()
    yield repr(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant, None)
        elif constant is not None and constant != doc:
            yield from _described(constant, set())


def _closed(function: FunctionType) -> list[Any]:
    """The values of the variables of enclosing functions."""
    values = []
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            values.append(None)
    return values


def _globals(function: FunctionType) -> list[Any]:
    """Those of the module's variables that a function reads: functions, and data that can't change (no caches)."""
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        names |= {at.argval for at in dis.get_instructions(code) if at.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    values = [function.__globals__.get(name) for name in sorted(names)]
    return [value for value in values if not isinstance(value, dict | list | set | np.ndarray)]
