"""Learning-rate schedules: their values by hand, and the same traced."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch

from tunesmith.optimizers import OptimizerError
from tunesmith.optimizers.schedules import SCHEDULES, cosine, linear, schedule, staircase, trapezoid, warmup


def values(of, steps, **given):
    return [float(of(step, steps, **given)) for step in range(steps)]


def test_by_hand():
    assert values(linear, 4) == [1.0, 0.75, 0.5, 0.25]
    assert values(linear, 4, end=0.5, decay=0.5) == [1.0, 0.75, 0.5, 0.5]
    assert values(cosine, 2) == pytest.approx([1.0, 0.5])
    assert values(staircase, 99)[32:34] == pytest.approx([1.0, 0.1]) and values(staircase, 99)[-1] == pytest.approx(
        0.01
    )
    assert values(warmup, 10, share=0.5) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])
    assert values(warmup, 10, share=0.0) == [1.0] * 10
    assert values(trapezoid, 10, share=0.2, decay=0.5) == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize("name", SCHEDULES)
def test_traced_they_are_the_same(name):
    steps, of = 17, schedule(name)
    plain = values(of, steps)
    assert all(0 <= value <= 1 for value in plain)
    compiled = jax.jit(lambda step: of(step, steps))
    np.testing.assert_allclose([float(compiled(step)) for step in range(steps)], plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        [float(of(torch.tensor(step), steps)) for step in range(steps)], plain, rtol=1e-5, atol=1e-6
    )


def test_an_unknown_one_is_one_line():
    with pytest.raises(OptimizerError, match="there is no schedule 'cosin'; there are constant, linear, cosine"):
        schedule("cosin")
