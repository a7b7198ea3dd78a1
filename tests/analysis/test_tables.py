from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tunesmith.analysis.tables import compare, difference, population, population_table, summary, trials_table
from tunesmith.study import Study


def test_one_flat_row_a_trial(family: Study) -> None:
    rows = trials_table(family)
    assert [row["trial"] for row in rows] == [0, 1, 2, 3, 4]
    assert len({tuple(row) for row in rows}) == 1
    assert rows[4] == {
        "trial": 4, "status": "complete", "parent": 3, "replaces": 2, "start": 4, "step": 6, "seconds": 1.5,
        "error": "",
        "params.lr": 0.0144, "params.units": 8, "params.batch": 32, "params.act": "relu", "params.data": "digits",
        "metrics.accuracy": 0.8, "metrics.test": pytest.approx(0.79),
    }  # fmt: skip
    assert (rows[1]["status"], rows[1]["error"]) == ("failed", "ValueError: no more")


def test_a_trial_without_a_result_has_empty_cells(empty: Study) -> None:
    (row,) = trials_table(empty)
    assert row["status"] == "running" and not any(name.startswith("metrics.") for name in row)


def test_the_population_is_who_was_not_replaced(family: Study) -> None:
    assert [trial.id for trial in population(family)] == [1, 3, 4]
    assert [row["trial"] for row in population_table(family)] == [4, 3, 1]


def test_compare_selects_by_the_goal_and_reports_the_other_metric(family: Study, single: Study) -> None:
    pbt, alone = compare({"pbt": family, "alone": single}, report="test")
    assert (pbt["name"], pbt["members"], pbt["failed"], pbt["steps"], pbt["trial"]) == ("pbt", 3, 1, 16, 4)
    assert (pbt["best"], pbt["median"]) == (0.8, pytest.approx(0.725))
    assert (pbt["report"], pbt["report_median"]) == (pytest.approx(0.79), pytest.approx(0.715))
    assert (alone["best"], alone["low"], alone["high"]) == (0.2, 0.2, 0.2)


def test_the_best_is_the_smallest_where_the_goal_is_to_minimise(minimised: Study) -> None:
    found = summary("x", minimised, "test")
    assert (found.trial, found.best) == (1, 0.2)
    assert [row["trial"] for row in population_table(minimised)] == [1, 0]


def test_compare_before_any_result(empty: Study) -> None:
    (row,) = compare({"empty": empty}, report="test")
    assert row["members"] == 1 and row["trial"] is row["best"] is row["report"] is row["median"] is None


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 1.0, 12), rng.normal(0.0, 1.0, 12)
    found = difference(a, b)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx((a - b).mean())
    assert found.low < found.bootstrap_low < found.mean < found.bootstrap_high < found.high
    assert found == difference(a, b)


def test_the_interval_of_a_constant_difference_is_a_point() -> None:
    found = difference([2.0, 3.0], [1.0, 2.0])
    assert (found.mean, found.low, found.high, found.bootstrap_high, found.pairs) == (1.0, 1.0, 1.0, 1.0, 2)


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_an_interval_needs_pairs(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more pairs"):
        difference(a, b)
