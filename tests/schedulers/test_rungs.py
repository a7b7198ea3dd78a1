"""The ladder, and rungs against a reference that sorts everything anew."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Constraint, Goal, pareto
from tunesmith.records import Told
from tunesmith.schedulers._rungs import Entry, Fronts, Rung, entry, ladder, rung


@pytest.mark.parametrize(
    ("least", "most", "eta", "steps"),
    [
        (1, 81, 3, (1, 3, 9, 27, 81)),
        (1, 1, 3, (1,)),
        (1, 2, 3, (2,)),
        (1, 100, 3, (1, 4, 11, 33, 100)),
        (4, 81, 3, (9, 27, 81)),
        (1, 16, 2, (1, 2, 4, 8, 16)),
        (5, 5, 4, (5,)),
        (1, 1000, 10, (1, 10, 100, 1000)),
    ],
)
def test_ladder(least: int, most: int, eta: int, steps: tuple[int, ...]) -> None:
    assert ladder(least, most, eta) == steps


@given(st.integers(1, 50), st.integers(0, 5000), st.integers(2, 10))
def test_ladder_ascends_within_its_bounds(least: int, more: int, eta: int) -> None:
    steps = ladder(least, least + more, eta)
    assert steps[-1] == least + more and steps[0] >= least
    assert all(low < high for low, high in pairwise(steps))
    assert (least + more) / eta ** len(steps) < least


class Naive:
    """A rung that sorts everything at every question."""

    def __init__(self, eta: int, least: int) -> None:
        self.eta, self.least, self.all, self.count, self.taken = eta, least, [], 0, set()

    def add(self, one: Entry | None) -> None:
        self.count += 1
        self.all += [] if one is None else [one]

    def top(self) -> list[int]:
        return [one.trial for one in sorted(self.all)[: max(self.least, self.count // self.eta)]]

    @property
    def best(self) -> int | None:
        return next((trial for trial in self.top() if trial not in self.taken), None)


MOVES = st.lists(st.tuples(st.sampled_from(["add", "add", "add", "fail", "take"]), st.integers(0, 9)), max_size=60)


@settings(max_examples=200)
@given(MOVES, st.integers(2, 4), st.integers(0, 2))
def test_a_rung_promotes_whom_sorting_would_promote(moves: list[tuple[str, int]], eta: int, least: int) -> None:
    ours, naive = Rung(eta, least), Naive(eta, least)
    for trial, (move, value) in enumerate(moves):
        if move == "take" and naive.best is not None:
            naive.taken.add(naive.best)
            ours.take(ours.best)
        elif move != "take":
            one = None if move == "fail" else Entry(float(value % 3 == 2), (float(value),), trial)
            naive.add(one)
            ours.add(one)
        assert ours.best == naive.best and ours.count == naive.count
        left = {one.trial for one in naive.all} - naive.taken
        assert set(ours.paused()) == left
        for one in naive.all:
            assert ours.promotes(one.trial) == (one.trial in naive.top() or one.trial in naive.taken)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40), st.integers(2, 4))
def test_fronts_are_promoted_in_order(points: list[tuple[int, int]], eta: int) -> None:
    stand = Fronts(eta)
    for trial, point in enumerate(points):
        stand.add(Entry(0.0, (float(point[0]), float(point[1])), trial))
    rank = pareto.ranks(np.array(points, dtype=float))
    top = [trial for trial in range(len(points)) if stand.promotes(trial)]
    assert len(top) == len(points) // eta
    best = sorted(rank.tolist())[: len(top)]
    assert sorted(rank[top].tolist()) == best
    if top:
        assert stand.best is not None and rank[stand.best] == 0


def test_of_a_front_that_fits_in_part_those_go_that_add_most_to_the_hypervolume() -> None:
    points = [(0.0, 1.0), (0.5, 0.5), (0.51, 0.499), (1.0, 0.0), (9.0, 9.0), (9.0, 9.0)]
    stand = Fronts(2)
    for trial, point in enumerate(points):
        stand.add(Entry(0.0, point, trial))
    top = {trial for trial in range(6) if stand.promotes(trial)}
    assert len(top) == 3 and not {1, 2} <= top and not {4, 5} & top


def test_fronts_sort_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    sorts: list[int] = []
    sort = Fronts._sort
    monkeypatch.setattr(Fronts, "_sort", lambda self: (sorts.append(self.count), sort(self)))
    stand, rng = Fronts(3), np.random.default_rng(0)
    for trial in range(1000):
        stand.add(Entry(0.0, tuple(rng.random(2).tolist()), trial))
    assert len(sorts) < 250  # 50 at the beginning, then one in 50 more


def test_who_breaks_a_constraint_comes_after_all_others() -> None:
    goals, constraints = [Goal("score", maximise=True)], [Constraint("size", 10.0)]
    rows = [({"score": [9.0], "size": [11.0]}, 0), ({"score": [1.0], "size": [3.0]}, 1), ({"score": [2.0]}, 2)]
    stands = [entry(goals, constraints, Told(trial, trial, 0, metrics)) for metrics, trial in rows]
    assert [one.trial for one in sorted(stands)] == [1, 0, 2]
    assert entry(goals, constraints, Told(0, 0, 0, {"size": [1.0]})) is None


def test_one_goal_has_heaps_and_several_have_fronts() -> None:
    assert isinstance(rung([Goal("a")], 3), Rung) and isinstance(rung([Goal("a"), Goal("b")], 3), Fronts)
