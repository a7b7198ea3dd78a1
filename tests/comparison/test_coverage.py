"""Intervals cover what they say: by simulation on known laws, with fewer samples than the figures of the docstrings."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

coverage = runpy.run_path(str(Path(__file__).with_name("coverage.py")))


@pytest.mark.parametrize("law", ["uniform", "exponential"])
@pytest.mark.parametrize("n", [20, 50, 100])
def test_of_the_median(law, n):
    """90% bands cover 88 to 92%; the standard error of 3000 samples is 0.5%."""
    found = coverage["of_band"](law, n, coverage["BUDGETS"][n], 3000)
    assert ((found > 0.88) & (found < 0.93)).all(), found


@pytest.mark.parametrize("law", ["uniform", "exponential"])
def test_of_the_mean(law):
    found = coverage["of_band"](law, 50, [1, 2, 4], 1000, statistic="mean", draws=300)
    assert ((found > 0.87) & (found < 0.95)).all(), found


@pytest.mark.parametrize("power", [1.0, 1.7])
def test_of_the_probability(power):
    found = coverage["of_pair"]("beats", power, 50, [1, 2, 4], 2000)
    assert ((found > 0.88) & (found < 0.93)).all(), found


def test_of_a_probability_near_one():
    found = coverage["of_pair"]("beats", 4.0, 50, [1, 2, 4, 8], 1000)
    assert (found > 0.88).all(), found


@pytest.mark.parametrize("power", [1.0, 1.7])
def test_of_the_gap(power):
    found = coverage["of_pair"]("gap", power, 50, [1, 2, 4, 8], 1000)
    assert ((found > 0.87) & (found < 0.96)).all(), found


@pytest.mark.parametrize("n", [3, 10, 30])
def test_over_seeds(n):
    assert 0.87 < coverage["of_seeds"]("normal", n, 1000) < 0.93
