"""Values that honour declared rules: orders, sums with a limit, sums with a total.

A draw is a Gibbs sampler: by turns every value is drawn anew from what the rules leave it, given the others (two values
at once where their sum must stay). So the draws become uniform, whatever they begin with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import numpy as np

from tunesmith._axes import Axis, Grid, Held, Line, Scalar, number
from tunesmith._constraints import ROUNDING, Forbid, LessThan, SpaceConstraint, SumAtMost, SumTo, named
from tunesmith._nodes import Node, Place, connected, levels_of, names_in
from tunesmith._sums import is_plain

THIN = 0.02  #: where rules leave less of all draws, they are drawn directly
PROBES = 256  #: draws from which that share is estimated
SWEEPS = 100  #: turns of a draw at most
SETTLING = 20  #: turns in which values are brought to where the rules hold
EDGE = 1e-9  #: share of a step by which rounding may move a value of a grid

Config = dict[str, Scalar]
Rungs = Callable[[Mapping[str, Scalar]], Iterable[Config]]  #: a configuration as it is on the rungs to be looked at

# -- rules as inequalities ------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """The sum of coefficients times values is at most, or with ``strict`` less than, the limit."""

    coefficients: dict[str, float]
    limit: float
    strict: bool

    def sum(self, values: Mapping[str, float]) -> float:
        return sum(coefficient * values[name] for name, coefficient in self.coefficients.items())

    def holds(self, values: Mapping[str, float]) -> bool:
        total = self.sum(values)
        return total < self.limit if self.strict else total <= self.limit


def row(rule: SpaceConstraint, free: Iterable[str], known: Mapping[str, tuple[float, float]]) -> Row | None:
    """A rule as an inequality for the free parameters, whatever the others are between their two values.

    None where it is no inequality, or holds since a parameter is neither free nor known.
    """
    if isinstance(rule, LessThan):
        if any(name not in free and name not in known for name in (rule.smaller, rule.larger)):
            return None
        coefficients, limit = {rule.smaller: 1.0, rule.larger: -1.0}, 0.0
    elif isinstance(rule, SumAtMost):
        coefficients, limit = rule.weights, rule.limit + ROUNDING * abs(rule.limit)
    else:
        return None
    for name, coefficient in coefficients.items():
        if name in known:
            limit -= max(coefficient * value for value in known[name])
    return Row({name: c for name, c in coefficients.items() if name in free}, limit, isinstance(rule, LessThan))


# -- the rules of a space -------------------------------------------------------------------------------------------


class Rules:
    """The declared rules of a space, for what may not be left to chance.

    Args:
        places: the rules.
        nodes: the parameters of the space.
        by_name: the same by their names.
        on_rungs: gives a configuration with its fidelities as they are where rules are looked at.
    """

    def __init__(
        self,
        places: Sequence[Place],
        nodes: Sequence[Node],
        by_name: Mapping[str, Sequence[Node]],
        on_rungs: Rungs,
    ) -> None:
        self.places, self.nodes, self.by_name, self.on_rungs = places, nodes, by_name, on_rungs

    @cached_property
    def groups(self) -> list[tuple[Place, ...]]:
        """The rules between numbers, in groups that have no parameter in common."""
        return connected(place for place in self.places if not isinstance(place.rule, Forbid))

    @cached_property
    def thin(self) -> list[tuple[Place, ...]]:
        """The groups of rules that are drawn directly: those with a total for which scaling is not enough, and the
        thinnest of the others, until what is left to chance holds in a fiftieth of all draws.
        """
        direct: list[tuple[Place, ...]] = []
        others: list[tuple[float, tuple[Place, ...]]] = []
        for group in self.groups:
            totals = [place.rule for place in group if isinstance(place.rule, SumTo)]
            if not totals:
                others.append((self._chance(group), group))
            elif len(group) > 1 or not is_plain(totals[0], self.by_name):
                direct.append(group)
        others.sort(key=lambda pair: pair[0])
        while others and math.prod(chance for chance, _ in others) < THIN:
            direct.append(others.pop(0)[1])
        return direct

    def _chance(self, group: tuple[Place, ...]) -> float:
        """The share of draws in which the rules of a group hold, all of them active, estimated."""
        rng = np.random.default_rng(0)
        held = 0
        for _ in range(PROBES):
            config = {name: self.by_name[name][0].axis.decode(rng.random()) for name in names_in(group)}
            held += all(place.rule(at) for at in self.on_rungs(config) for place in group)
        return held / PROBES

    def redraw(self, config: Config, rng: np.random.Generator) -> None:
        """Change the parameters of thin rules in a configuration to a draw in which these hold, if one is found."""
        levels = levels_of(self.nodes, config)
        for group in self.thin:
            self._change(config, group, levels, (), rng)

    def repair(self, config: Config, kept: Container[str]) -> None:
        """Sort the values of a configuration so that its rules hold, if they do then; some parameters are kept."""
        levels = levels_of(self.nodes, config)
        for group in self.groups:
            self._change(config, group, levels, kept, None)

    def _change(
        self,
        config: Config,
        group: tuple[Place, ...],
        levels: Mapping[int, int],
        kept: Container[str],
        rng: np.random.Generator | None,
    ) -> None:
        """Change the parameters of a group of rules to a draw, or without ``rng`` to their values in another order."""
        rules = [place.rule for place in group if place.is_active(levels)]
        if not rules:
            return
        free: dict[str, Axis] = {}
        known: dict[str, tuple[float, float]] = {}
        for node in (node for name in names_in(group) for node in self.by_name[name] if node.is_active(levels)):
            if isinstance(node.axis, Held):
                known[node.name] = node.axis.low, node.axis.full
            elif node.column < 0 or node.switch or node.axis.levels == 1 or node.name in kept:
                known[node.name] = number(config[node.name]), number(config[node.name])
            else:
                free[node.name] = node.axis
        rows = [found for rule in rules if (found := row(rule, free, known)) is not None]
        totals = [[name for name in rule.names if name in free] for rule in rules if isinstance(rule, SumTo)]
        values = {name: config[name] for name in free}
        config.update(drawn(values, free, rows, totals, rng) or {})  # type: ignore[arg-type]  # numbers

    def bounds(self) -> list[list[Bound]]:
        """For each node, what rules between parameters that are always active say of it and the ones before it."""
        found: list[list[Bound]] = [[] for _ in self.nodes]
        chosen = [node.parent < 0 and not isinstance(node.axis, Held) for node in self.nodes]
        always = {node.name: i for i, node in enumerate(self.nodes) if chosen[i]}
        for rule in (place.rule for place in self.places if place.column < 0 and not isinstance(place.rule, Forbid)):
            if not always.keys() >= set(named(rule)):
                continue
            inequalities: list[Row] = []
            if isinstance(rule, SumTo):
                slack = 2 * rule.slack([rule.total])
                inequalities.append(Row(dict.fromkeys(rule.names, 1.0), slack + rule.total, False))
                inequalities.append(Row(dict.fromkeys(rule.names, -1.0), slack - rule.total, False))
            elif (one := row(rule, always, {})) is not None:
                inequalities.append(one)
            for coefficients, limit, strict in inequalities:
                order = sorted(coefficients, key=always.__getitem__)
                for i, name in enumerate(order):
                    rest = 0.0
                    for later in order[i + 1 :]:
                        ends = self.nodes[always[later]].axis.ends(-math.inf, math.inf) or (0.0, 0.0)
                        rest += min(coefficients[later] * end for end in ends)
                    so_far = {before: coefficients[before] for before in order[: i + 1]}
                    found[always[name]].append(Bound(so_far, limit - rest, strict))
        return found


class Bound(NamedTuple):
    """A row cut off at a parameter: its limit is for the ones up to this, whatever the values of the later ones."""

    coefficients: dict[str, float]
    limit: float
    strict: bool

    def holds(self, config: Mapping[str, Scalar]) -> bool:
        """Whether it holds, of sums up to rounding."""
        terms = [coefficient * number(config[name]) for name, coefficient in self.coefficients.items()]
        if self.strict:
            return sum(terms) < self.limit
        return sum(terms) <= self.limit + 2 * ROUNDING * (abs(self.limit) + sum(map(abs, terms)))


# -- draws ----------------------------------------------------------------------------------------------------------


def drawn(
    values: Mapping[str, float],
    axes: Mapping[str, Axis],
    rows: Sequence[Row],
    totals: Sequence[Sequence[str]],
    rng: np.random.Generator | None,
) -> dict[str, float] | None:
    """Values that honour the rules, uniform in the unit cube among those that do, but for what the walk remembers of
    its beginning. A chain of continuous parameters of one range is exact.

    Args:
        values: by name; where they break rules, they are brought to where these hold.
        axes: of the same names.
        rows: the rules.
        totals: groups of names whose sums must stay as they are, each on grids of one step or without steps.
        rng: source of randomness; None: no draw, but the same values in another order.

    Returns:
        values by name, or None where no beginning was found.
    """
    walk = _Walk(dict(values), axes, rows, totals)
    if rng is None:
        walk.sort()
        return walk.values if walk.hold() else None
    if not walk.begin():
        return None
    for _ in range(min(10 + len(axes) ** 2, SWEEPS)):
        for name in walk.singles:
            low, high = walk.interval(name, walk.rows_of[name])
            value = axes[name].between(low, high, rng)
            if value is not None:
                walk.values[name] = value  # type: ignore[assignment]  # a number
        for group in totals:
            for first in group if len(group) > 1 else ():
                others = [name for name in group if name != first]
                walk.exchange(first, others[rng.integers(len(others))], rng)
    return walk.values


class _Walk:
    """Values on their way, and the rules for them."""

    def __init__(
        self,
        values: dict[str, float],
        axes: Mapping[str, Axis],
        rows: Sequence[Row],
        totals: Sequence[Sequence[str]],
    ) -> None:
        self.values, self.axes, self.rows, self.totals = values, axes, rows, totals
        self.rows_of = {name: [row for row in rows if name in row.coefficients] for name in axes}
        together = {name for group in totals for name in group}
        self.singles = [name for name in self.order() if name not in together]

    def order(self) -> list[str]:
        """The names, the larger ones of the orders first; as they come where the orders contradict each other."""
        above: dict[str, list[str]] = {name: [] for name in self.axes}
        for row in self.rows:
            if row.strict and len(row.coefficients) == 2:
                smaller, larger = row.coefficients
                above[smaller].append(larger)
        try:
            return list(TopologicalSorter(above).static_order())
        except CycleError:
            return list(self.axes)

    def hold(self) -> bool:
        """Whether all rules hold."""
        return all(row.holds(self.values) for row in self.rows)

    def interval(self, name: str, rows: Iterable[Row]) -> tuple[float, float]:
        """From where to where these rules let a value go, given the others."""
        low, high = -math.inf, math.inf
        for row in rows:
            own = row.coefficients[name]
            bound = row.limit
            for other, coefficient in row.coefficients.items():
                if other != name:
                    bound -= coefficient * self.values[other]
            bound /= own
            if row.strict:
                bound = math.nextafter(bound, -math.inf if own > 0 else math.inf)
            if own > 0:
                high = min(high, bound)
            else:
                low = max(low, bound)
        return low, high

    # the beginning

    def begin(self) -> bool:
        """Bring the values to where all rules hold: as they are, sorted, at their least, or step by step."""
        given = dict(self.values)
        if self.hold():
            return True
        self.sort()
        if self.hold():
            return True
        self.values = given
        self.least()
        if not self.hold():
            self.settle()
        return self.hold()

    def sort(self) -> None:
        """The values in the order of the rules: for one chain of equal axes the same as draws that are in order."""
        names = self.order()
        if any(set(group) != set(names) for group in self.totals):
            return
        found = zip(names, sorted(self.values.values(), reverse=True), strict=True)
        with suppress(ValueError):  # of what has no order
            fitted: dict[str, Any] = {name: self.axes[name].nearest(value) for name, value in found}
            if sorted(fitted.values()) == sorted(self.values.values()):
                self.values = fitted

    def least(self) -> None:
        """Every value the least that the orders allow, the smallest first."""
        placed: set[str] = set()
        for name in reversed(self.order()):
            if name in self.singles:
                rows = [row for row in self.rows_of[name] if row.strict and row.coefficients.keys() - {name} <= placed]
                ends = self.axes[name].ends(*self.interval(name, rows))
                if ends is not None:
                    self.values[name] = ends[0]
            placed.add(name)

    def settle(self) -> None:
        """Each value in turn as far as it may go towards where its broken rules hold."""
        for _ in range(SETTLING):
            for name in self.singles:
                kept, wanted = self.wanted(name)
                if wanted:
                    ends = self.axes[name].ends(*self.interval(name, kept))
                    if ends is not None:
                        self.values[name] = ends[0] if wanted < 0 else ends[1]
            for group in self.totals:
                for first in group:
                    for second in group:
                        if first != second:
                            self.exchange(first, second, None)
            if self.hold():
                return

    def wanted(self, name: str) -> tuple[list[Row], float]:
        """The rules of a value that hold, and whether those that do not want it smaller (< 0) or larger (> 0)."""
        kept = [row for row in self.rows_of[name] if row.holds(self.values)]
        return kept, -sum(
            math.copysign(1, row.coefficients[name]) for row in self.rows_of[name] if not row.holds(self.values)
        )

    # two values with a sum

    def exchange(self, first: str, second: str, rng: np.random.Generator | None) -> None:
        """Draw a value anew, and another one so that their sum stays; without ``rng``, as far as broken rules want."""
        one, two = self.axes[first], self.axes[second]
        assert isinstance(one, Line | Grid) and isinstance(two, Line | Grid)
        both = self.values[first] + self.values[second]
        edge = EDGE * one.step if isinstance(one, Grid) else 0.0
        low, high = both - two.high - edge, both - two.low + edge
        wanted = 0.0
        for row in {id(row): row for row in (*self.rows_of[first], *self.rows_of[second])}.values():
            coefficients = row.coefficients
            pull = coefficients.get(first, 0.0) - coefficients.get(second, 0.0)
            if rng is None and not row.holds(self.values):
                wanted -= pull
            elif pull:
                bound = self.values[first] + (row.limit - row.sum(self.values)) / pull
                low, high = (low, min(high, bound)) if pull > 0 else (max(low, bound), high)
        if rng is not None:
            value = one.between(low, high, rng)
        else:
            ends = one.ends(low, high)
            value = None if ends is None or not wanted else ends[0] if wanted < 0 else ends[1]
        if value is None:
            return
        before = self.values[first], self.values[second]
        other = both - value  # type: ignore[operator]  # a number
        self.values[first] = value  # type: ignore[assignment]
        if isinstance(two, Grid):
            self.values[second] = two.value(two.beside(other))
        else:
            self.values[second] = min(max(other, two.low), two.high)
        if rng is not None and not all(row.holds(self.values) for row in (*self.rows_of[first], *self.rows_of[second])):
            self.values[first], self.values[second] = before  # rounding
