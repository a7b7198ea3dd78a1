"""Hard constraints: which combinations of values a configuration must not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from tunesmith._axes import Scalar, scalar

SpaceConstraint = Callable[[dict[str, Scalar]], bool]  #: LessThan, Forbid, or a function of the configuration


class LessThan(msgspec.Struct, frozen=True, tag_field="kind", tag="less_than", forbid_unknown_fields=True):
    """``smaller < larger``; holds where one of the two is inactive."""

    smaller: str
    larger: str

    def __post_init__(self) -> None:
        if self.smaller == self.larger:
            raise ValueError(f"{self!r} can never hold")

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
            raise ValueError(f"forbid({self.values!r}) must name at least one parameter and its value")
        force_setattr(self, "values", {name: scalar(name, value) for name, value in self.values.items()})

    def __call__(self, config: Mapping[str, Scalar]) -> bool:
        return not all(
            name in config and config[name] == value and isinstance(config[name], bool) == isinstance(value, bool)
            for name, value in self.values.items()
        )

    def __repr__(self) -> str:
        return f"forbid({self.values!r})"


class Function(msgspec.Struct, frozen=True, tag_field="kind", tag="function", forbid_unknown_fields=True):
    """A constraint that was a Python function when the space was stored: only its name is known."""

    name: str

    def __call__(self, config: Mapping[str, Scalar]) -> bool:
        raise RuntimeError(f"constraint {self.name!r} is a Python function: pass the space that has it")

    def __repr__(self) -> str:
        return self.name


def less_than(smaller: str, larger: str) -> LessThan:
    """The hard constraint that one parameter is strictly less than another."""
    return LessThan(smaller, larger)


def forbid(values: Mapping[str, Scalar]) -> Forbid:
    """The hard constraint that these values do not occur together."""
    return Forbid(dict(values))


def storable(constraint: SpaceConstraint) -> LessThan | Forbid | Function:
    if isinstance(constraint, LessThan | Forbid | Function):
        return constraint
    return Function(getattr(constraint, "__qualname__", type(constraint).__qualname__))


def named(constraint: SpaceConstraint) -> tuple[str, ...]:
    """The parameters that a constraint names; none for a function."""
    if isinstance(constraint, LessThan):
        return constraint.smaller, constraint.larger
    return tuple(constraint.values) if isinstance(constraint, Forbid) else ()
