"""The toy, played by a study, comes out as in plain numpy."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tunesmith.workloads import toy

SEEDS = 50
play = runpy.run_path(str(Path(__file__).with_name("toy_plain.py")))["play"]
modes = {mode.name: mode for mode in toy.MODES}


@pytest.mark.parametrize("ready", [4, 10])
@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("grid search", ""),
        ("exploit only, copy theta", "theta"),
        ("exploit only, copy theta and h", "theta and h"),
    ],
)
def test_without_randomness_the_values_are_equal(name: str, copy: str, ready: int) -> None:
    assert toy.play(modes[name], ready).q == pytest.approx(play(0, ready, copy), abs=1e-12)


@pytest.mark.parametrize("ready", [4, 10])
@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("explore only, additive noise", ""),
        ("PBT, copy theta, additive noise", "theta"),
        ("PBT, copy theta and h, additive noise", "theta and h"),
    ],
)
def test_with_additive_noise_the_distributions_are_equal(name: str, copy: str, ready: int) -> None:
    """The draws are others: the medians and the distributions are compared, with fixed seeds on both sides."""
    found = [toy.play(modes[name], ready, seed).q for seed in range(SEEDS)]
    reference = [play(seed, ready, copy, "noise") for seed in range(SEEDS)]
    _, low, high = toy.spread(reference)
    assert low <= np.median(found) <= high
    assert stats.ks_2samp(found, reference).pvalue > 0.01
