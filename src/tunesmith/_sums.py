"""Parameters that add up to a total (`sum_to`): how every point of the unit cube comes to one that honours it."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith._axes import Axis, Grid, Line, LogGrid, Scalar, Table, number
from tunesmith._constraints import SumTo
from tunesmith._nodes import Column, Node, Place, exclusive

Floats = NDArray[np.float64]


# -- numbers that add up --------------------------------------------------------------------------------------------


def shared(amounts: Sequence[float], room: Sequence[float], total: float) -> list[float]:
    """Amounts scaled by one factor and cut off at their room, so that they add up to the total.

    Where all are 0, and for what is left when all others are at their room, they are in proportion to the room.

    Args:
        amounts: [k], at least 0.
        room: [k], the greatest amounts.
        total: from 0 to the sum of the room; what lies outside is cut off.
    """
    found = [0.0] * len(amounts)
    weights = list(amounts)
    free = [i for i, amount in enumerate(amounts) if amount > 0]
    left = total
    while left > 0:
        if not free:
            free = [i for i in range(len(amounts)) if found[i] == 0 and room[i] > 0]
            weights = list(room)
            if not free:
                break
        factor = left / math.fsum(weights[i] for i in free)
        full = [i for i in free if factor * weights[i] >= room[i]]
        if not full:
            for i in free:
                found[i] = factor * weights[i]
            break
        for i in full:
            found[i] = room[i]
        left = total - math.fsum(found)
        free = [i for i in free if i not in full]
    return found


def apportioned(amounts: Sequence[float], room: Sequence[int], total: int) -> list[int]:
    """The same for whole numbers: rounded by the largest remainders, of equal ones the first."""
    exact = shared(amounts, room, total)
    found = [math.floor(amount) for amount in exact]
    order = sorted(range(len(exact)), key=lambda i: found[i] - exact[i])
    for i in order[: max(0, min(total, sum(room)) - sum(found))]:
        found[i] += 1
    return found


def share(config: dict[str, Scalar], axes: Mapping[str, Axis], total: float) -> None:
    """Change the values of these parameters so that they add up to a total, as `shared` says.

    Amounts are what values have above their lows: of continuous parameters, or else of those on a grid.
    """
    lines = {name: axis for name, axis in axes.items() if isinstance(axis, Line)}
    grids = {name: axis for name, axis in axes.items() if isinstance(axis, Grid)}
    left = total - math.fsum(number(config[name]) for name in axes if name not in lines and name not in grids)
    if lines:
        amounts = [number(config[name]) - line.low for name, line in lines.items()]
        room = [line.high - line.low for line in lines.values()]
        found = shared(amounts, room, left - math.fsum(line.low for line in lines.values()))
        for (name, line), amount in zip(lines.items(), found, strict=True):
            config[name] = min(line.low + amount, line.high)
    elif grids:
        step = next(iter(grids.values())).step
        count = round((left - math.fsum(grid.low for grid in grids.values())) / step)
        levels = [grid.level(config[name]) for name, grid in grids.items()]
        counts = apportioned(levels, [grid.levels - 1 for grid in grids.values()], count)
        for (name, grid), level in zip(grids.items(), counts, strict=True):
            config[name] = grid.value(level)


# -- the totals of a space ------------------------------------------------------------------------------------------


class _Total(NamedTuple):
    """A rule in its place, and the parameters that it names."""

    rule: SumTo
    place: Place
    members: tuple[Node, ...]


class Totals:
    """The rules of a space that name a total.

    Raises:
        TypeError, ValueError: a rule names what can't be added up, or a total that can't be reached.
    """

    def __init__(self, places: Sequence[Place], by_name: Mapping[str, Sequence[Node]], columns: Sequence[Column]):
        self.columns = columns
        self.totals: list[_Total] = []
        for place in places:
            rule = place.rule
            if isinstance(rule, SumTo):
                total = _Total(rule, place, tuple(node for name in rule.names for node in by_name[name]))
                for other in self.totals:
                    self._check_apart(total, other)
                _check(total, columns)
                self.totals.append(total)

    def __bool__(self) -> bool:
        return bool(self.totals)

    def _check_apart(self, ours: _Total, theirs: _Total) -> None:
        both = set(ours.rule.names) & set(theirs.rule.names)
        if both and not exclusive(ours.place.condition, theirs.place.condition, self.columns):
            raise ValueError(f"constraint {ours.rule!r}: {min(both)!r} stands in {theirs.rule!r} already")

    def share(self, config: dict[str, Scalar], levels: Mapping[int, int], held: Container[str] = ()) -> None:
        """Bring the values of a configuration to the totals, but for those that are held; what adds up already stays as
        it is.
        """
        for rule, place, members in self.totals:
            if place.is_active(levels):
                axes = {node.name: node.axis for node in members if node.is_active(levels)}
                if not rule({name: config[name] for name in axes}):
                    taken = math.fsum(number(config[name]) for name in axes if name in held)
                    share(config, {name: axes[name] for name in axes if name not in held}, rule.total - taken)

    def snap(self, points: Floats) -> None:
        """Bring points [n, d], snapped but for the totals, to them."""
        for total in self.totals:
            for row in np.flatnonzero(self._active(total.place, points)):
                self._snap(total, points[row])

    def _snap(self, total: _Total, point: Floats) -> None:
        levels = {
            column: int(point[column] * self.columns[column].levels)
            for column in {total.place.column, *(node.parent for node in total.members)}
            if column >= 0 and not math.isnan(point[column])
        }
        active = [node for node in total.members if node.is_active(levels)]
        config: dict[str, Scalar] = {}
        for node in active:
            config[node.name] = node.axis.decode(float(point[node.column]) if node.column >= 0 else 0.0)
        before = dict(config)
        self.share(config, levels)
        for node in active:
            if config[node.name] != before[node.name]:
                point[node.column] = node.axis.encode(config[node.name])

    def spread(self, points: Floats) -> None:
        """Turn uniform points [n, d] into such that come to uniform ones of the simplex when they are snapped."""
        for total in self.totals:
            rows = np.flatnonzero(self._active(total.place, points))[:, None]
            free = [(node.column, node.axis) for node in total.members if isinstance(node.axis, Line | Grid)]
            chosen = np.array([column for column, _ in free])
            room = np.array([axis.high - axis.low for _, axis in free])
            gaps = -np.log1p(-np.minimum(points[rows, chosen], 1 - 1e-16)) / room
            largest = np.max(gaps, axis=1, keepdims=True, initial=1e-300, where=~np.isnan(gaps))
            points[rows, chosen] = gaps / largest

    def _active(self, place: Place, points: Floats) -> NDArray[np.bool_]:
        """At which of the points [n, d] a rule has to hold: [n]."""
        if place.column < 0:
            return np.ones(len(points), dtype=np.bool_)
        levels = self.columns[place.column].levels
        active: NDArray[np.bool_] = np.minimum(np.floor(points[:, place.column] * levels), levels - 1) == place.option
        return active


def is_plain(rule: SumTo, by_name: Mapping[str, Sequence[Node]]) -> bool:
    """Whether `Totals.spread` gives uniform draws: all are continuous, and each of them reaches the total alone."""
    axes = [node.axis for name in rule.names for node in by_name[name]]
    lines = [axis for axis in axes if isinstance(axis, Line)]
    above = rule.total - math.fsum(line.low for line in lines)
    return len(lines) == len(axes) and all(line.high - line.low >= above for line in lines)


def _check(total: _Total, columns: Sequence[Column]) -> None:
    rule, _, members = total
    free = [node for node in members if node.column >= 0]
    for node in members:
        axis = node.axis
        if isinstance(axis, LogGrid) or (isinstance(axis, Line) and axis.log):
            raise ValueError(f"constraint {rule!r} adds on a linear scale, and {node.name!r} has log=True")
        if not isinstance(axis, Line | Grid) and not (isinstance(axis, Table) and node.column < 0):
            raise TypeError(f"constraint {rule!r} adds Float or Integer, and {node.name!r} is neither")
    steps = {node.axis.step if isinstance(node.axis, Grid) else None for node in free}
    if len(steps) > 1:
        raise ValueError(f"constraint {rule!r} adds what is continuous, or else what has one and the same step")
    if len({columns[node.column].fixed for node in free}) > 1:
        raise ValueError(f"constraint {rule!r} names some parameters that are fixed and some that are not")
    if len({(node.parent, node.options) for node in members}) > 1 or len(members) > len(rule.names):
        return  # not all of them active together
    least = math.fsum(number(node.axis.decode(0.0)) for node in members)
    most = math.fsum(number(node.axis.decode(1.0)) for node in members)
    if not least - rule.slack([least]) <= rule.total <= most + rule.slack([most]):
        raise ValueError(f"constraint {rule!r} can't hold: the sum is {least} at least and {most} at most")
    step = next(iter(steps), None)
    if step is not None and abs((rule.total - least) / step - round((rule.total - least) / step)) > 1e-6:
        raise ValueError(f"constraint {rule!r} can't hold: the sum goes in steps of {step} from {least}")
