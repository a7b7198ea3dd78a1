from __future__ import annotations

import pytest

from tunesmith.analysis.lineage import lineage
from tunesmith.study import Study


def numbers(trials: list) -> list[int]:
    return [trial.id for trial in trials]


def test_the_line_of_the_winner(family: Study) -> None:
    tree = lineage(family)
    assert tree.winner == 4
    assert numbers(tree.ancestors()) == [1, 3, 4]
    assert numbers(tree.ancestors(2)) == [2]


def test_forks_take_the_lane_of_whom_they_replace(family: Study) -> None:
    assert lineage(family).lanes == {0: 0, 1: 1, 2: 2, 3: 0, 4: 2}


def test_children(family: Study) -> None:
    tree = lineage(family)
    assert numbers(tree.children(1)) == [3]
    assert tree.children(4) == []


def test_a_single_trial_is_its_own_line(single: Study) -> None:
    assert numbers(lineage(single).ancestors()) == [0]


def test_without_a_result_there_is_no_winner(empty: Study) -> None:
    tree = lineage(empty)
    assert tree.winner is None and tree.lanes == {0: 0}
    with pytest.raises(ValueError, match="no trial of this study has a result yet"):
        tree.ancestors()


def test_an_unknown_trial(family: Study) -> None:
    with pytest.raises(ValueError, match="there is no trial 9"):
        lineage(family).ancestors(9)
