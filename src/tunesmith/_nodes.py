"""The tree of a search space as lists: its columns, its parameters, and its declared rules, each in its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from tunesmith._axes import Axis, Scalar, Table
from tunesmith._constraints import SpaceConstraint, named


class Column(msgspec.Struct, frozen=True):
    """All that a sampler may know of a parameter: one axis of the unit cube.

    Attributes:
        name: of the parameter; different columns may share one where they exclude each other.
        kind: "continuous", "ordered" or "unordered".
        levels: number of levels, 0 if continuous.
        parent: index of the column on which this one depends (less than its own), or None: always active.
        options: the levels of the parent that make it active.
        prior: position in [0, 1] of the value believed best, and the confidence in (0, 1]; or None.
        fixed: whether it keeps its value when a trial is copied: the parameter is fixed, or one that depends on it.
    """

    name: str
    kind: Literal["continuous", "ordered", "unordered"]
    levels: int
    parent: int | None = None
    options: tuple[int, ...] = ()
    prior: tuple[float, float] | None = None
    fixed: bool = False


class Node(NamedTuple):
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

    def is_active(self, levels: Mapping[int, int]) -> bool:
        """Whether it is active where the columns have these levels."""
        return self.parent < 0 or levels.get(self.parent) in self.options


class Place(NamedTuple):
    """A declared rule in its place: it has to hold where ``column`` has the level ``option``; always, if that is -1."""

    rule: SpaceConstraint
    column: int
    option: int

    @property
    def condition(self) -> tuple[int, tuple[int, ...]]:
        """The column and its options under which it has to hold, as of a node."""
        return self.column, (self.option,) if self.column >= 0 else ()

    def is_active(self, levels: Mapping[int, int]) -> bool:
        """Whether it has to hold where the columns have these levels."""
        return self.column < 0 or levels.get(self.column) == self.option


def levels_of(nodes: Iterable[Node], config: Mapping[str, Scalar]) -> dict[int, int]:
    """The options with branches that a configuration takes, by column."""
    levels: dict[int, int] = {}
    for node in nodes:
        if node.switch and node.is_active(levels):
            levels[node.column] = node.switch.level(config[node.name])
    return levels


def exclusive(a: tuple[int, tuple[int, ...]], b: tuple[int, tuple[int, ...]], columns: Sequence[Column]) -> bool:
    """Whether what is active under one parent and its options never is together with what is under another: some
    column activates them by different options.
    """

    def conditions(parent: int, options: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
        found = {}
        while parent >= 0:
            found[parent] = options
            above = columns[parent]
            parent, options = -1 if above.parent is None else above.parent, above.options
        return found

    ours, theirs = conditions(*a), conditions(*b)
    return any(set(ours[column]).isdisjoint(theirs[column]) for column in ours.keys() & theirs.keys())


def names_in(group: Iterable[Place]) -> list[str]:
    """The names in some rules, each once."""
    return list(dict.fromkeys(name for place in group for name in named(place.rule)))


def connected(places: Iterable[Place]) -> list[tuple[Place, ...]]:
    """The rules in groups that have no parameter in common."""
    groups: list[tuple[set[str], list[Place]]] = []
    for place in places:
        names, members = set(named(place.rule)), [place]
        apart = []
        for others, rest in groups:
            if names & others:
                names, members = names | others, rest + members
            else:
                apart.append((others, rest))
        groups = [*apart, (names, members)]
    return [tuple(members) for _, members in groups]
