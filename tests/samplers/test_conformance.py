"""Every sampler passes the conformance suite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith import Float, Goal, Integer, Ordinal, Space, Study, forbid, samplers
from tunesmith.samplers import Sampler
from tunesmith.testing import SamplerConformance


class TestUniform(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return samplers.Uniform()


class TestGrid(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return samplers.Grid()


class TestSobol(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return samplers.QMC()


class TestHalton(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return samplers.QMC("halton")


def configs(space: Space, sampler: Any, n: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    study = Study(space, Goal("loss"), sampler, trials=n, seed=seed)
    found = []
    while job := study.ask():
        found.append(job.config)
        study.tell(job, {"loss": 0.0})
    return found


def test_grid_goes_through_every_combination_in_order() -> None:
    space = Space({"x": Float(0.0, 1.0), "b": Ordinal([16, 32])}, constraints=[forbid({"x": 0.5, "b": 32})])
    found = [(c["x"], c["b"]) for c in configs(space, samplers.Grid(levels=3))]
    assert found == [(0.0, 16), (0.0, 32), (0.5, 16), (1.0, 16), (1.0, 32)]


@pytest.mark.parametrize(
    "domain",
    [Ordinal([1, 2, 4, 8, 16, 32]), Integer(1, 30), Integer(1, 100, log=True), Float(0.0, 3.0, step=0.5)],
    ids=["ordinal", "integer", "logarithmic", "stepped"],
)
def test_grid_leaves_out_nothing_that_is_discrete(domain: Any) -> None:
    space = Space({"v": domain})
    found = configs(space, samplers.Grid(levels=2))
    assert found == list(space.configs()) and len(found) == space.size


def test_a_grid_of_very_many_levels_is_worked_out_one_by_one() -> None:
    space = Space({"n": Integer(0, 10**15), "x": Float(0.0, 1.0), "b": Ordinal([1, 2])})
    found = configs(space, samplers.Grid(levels=10**9), 4)
    assert [(c["n"], c["x"], c["b"]) for c in found] == [(0, 0.0, 1), (0, 0.0, 2), (0, 1 / (10**9 - 1), 1),
                                                         (0, 1 / (10**9 - 1), 2)]  # fmt: skip


def test_grid_log_levels_are_even_in_the_logarithm() -> None:
    found = [c["lr"] for c in configs(Space({"lr": Float(1e-4, 1.0, log=True)}), samplers.Grid(levels=5))]
    assert found == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])


@pytest.mark.parametrize("sequence", ["sobol", "halton"])
def test_qmc_is_more_even_than_random(sequence: Any) -> None:
    """Centred discrepancy of 64 points in 3 dimensions, against the median of uniform draws."""
    from scipy.stats import qmc

    space = Space({name: Float(0.0, 1.0) for name in "abc"})

    def discrepancy(sampler: Any, seed: int) -> float:
        points = np.array([list(c.values()) for c in configs(space, sampler, 64, seed)])
        return float(qmc.discrepancy(points))

    ours = [discrepancy(samplers.QMC(sequence), seed) for seed in range(5)]
    random = [discrepancy(samplers.Uniform(), seed) for seed in range(5)]
    assert max(ours) < min(random)


def test_qmc_equals_scipys_scrambled_sobol() -> None:
    from scipy.stats import qmc

    space = Space({name: Float(0.0, 1.0) for name in "ab"})
    sampler = samplers.QMC()
    state = sampler.init(space, [Goal("loss")], np.random.default_rng(3))
    seed = int(np.random.default_rng(3).integers(2**63))
    expected = qmc.Sobol(2, rng=seed).random(64)[0]
    np.testing.assert_array_equal(sampler.ask(state, np.random.default_rng(0)), expected)


def test_uniform_draws_are_uniform_in_the_logarithm() -> None:
    from scipy.stats import kstest

    logs = [np.log10(c["lr"]) for c in configs(Space({"lr": Float(1e-4, 1.0, log=True)}), samplers.Uniform(), 400)]
    assert kstest((np.array(logs) + 4) / 4, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: samplers.Grid(levels=1), "levels=1 must be at least 2"),
        (lambda: samplers.QMC("lattice"), "'lattice' must be 'sobol' or 'halton'"),  # type: ignore[arg-type]
        (lambda: samplers.Magic(), "has no 'Magic'; there are Auto, Uniform, Grid, QMC, TPE"),
    ],
)
def test_wrong_use(make: Any, message: str) -> None:
    with pytest.raises((ValueError, AttributeError), match=message):
        make()
