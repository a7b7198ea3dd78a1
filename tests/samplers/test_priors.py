"""What experts believe, where algorithms without a model begin: right beliefs help, wrong ones forbid nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith import Categorical, Float, Goal, Prior, Space, Study, samplers
from tunesmith.samplers._prior import draw_anew, fading
from tunesmith.samplers.qmc import design

TARGET = {"x0": 0.7, "x1": 0.3, "x2": 0.6, "x3": 0.4}
RIGHT = {"x0": 0.6, "x1": 0.4, "x2": 0.5, "x3": 0.5, "c": "b"}
WRONG = {"x0": 0.05, "x1": 0.95, "x2": 0.05, "x3": 0.95, "c": "f"}


def space(modes: Any, confidence: float = 1.0) -> Space:
    numbers = {name: Float(0.0, 1.0, prior=modes and Prior(modes[name], confidence)) for name in TARGET}
    return Space(numbers | {"c": Categorical(list("abcdef"), prior=modes and Prior(modes["c"], confidence))})


def regret(sampler: Any, modes: Any, seed: int, trials: int, confidence: float = 1.0) -> float:
    study = Study(space(modes, confidence), Goal("loss"), sampler, trials=trials, seed=seed)
    values = []
    while job := study.ask():
        loss = sum((float(job.config[name]) - best) ** 2 for name, best in TARGET.items())
        values.append(loss + 0.1 * (job.config["c"] != "b"))
        study.tell(job, {"loss": values[-1]})
    return min(values)


@pytest.mark.parametrize("name", ["RegularizedEvolution", "NSGA2", "DEHB"])
def test_right_beliefs_help_and_wrong_ones_cost_little(name: str) -> None:
    """Against no beliefs, over 15 seeds: half of the regret after 40 trials; and twice of it at most after 100."""
    make = getattr(samplers, name)

    def median(modes: Any, trials: int) -> float:
        return float(np.median([regret(make(), modes, seed, trials) for seed in range(15)]))

    assert median(RIGHT, 40) < 0.5 * median(None, 40)
    assert median(WRONG, 100) < 2 * median(None, 100)


def test_confidence_counts() -> None:
    """A sure belief about the middle of a target brings the first trials nearer to it than an unsure one."""
    sure, unsure = (
        np.median([regret(samplers.RegularizedEvolution(), TARGET | {"c": "b"}, seed, 20, c) for seed in range(9)])
        for c in (0.99, 0.3)
    )
    assert sure <= unsure
    points = []
    for confidence in (0.99, 0.3):
        walk = design(space(RIGHT, confidence), np.random.default_rng(0), priors=True)
        found = [walk.points.at(i) for i in range(1, 60)]
        points.append(np.array([place[1][0] for place in found if place is not None]))
    near = [np.mean(np.abs(values - 0.6) < 0.1) for values in points]
    assert near[0] > near[1] + 0.05


def test_a_share_of_the_design_is_drawn_from_the_prior() -> None:
    """Of the first n points, as many as the fading share sums up to; the others are those of the plain sequence."""
    rng = np.random.default_rng
    plain, mixed = design(space(RIGHT), rng(3)), design(space(RIGHT), rng(3), priors=True)
    pairs = [(plain.points.at(i), mixed.points.at(i)) for i in range(201)]
    differ = [a is not None and b is not None and a[0] != b[0] for a, b in pairs]
    assert not differ[0]  # what is believed best
    sums = np.floor(np.cumsum([fading(i) for i in range(200)]))
    np.testing.assert_array_equal(np.cumsum(differ[1:]), sums)
    without = [design(space(None), rng(3), priors=priors).points.at(5) for priors in (False, True)]
    assert without[0] is not None and without[1] is not None and without[0][0] == without[1][0]


def test_draws_anew_cover_everything_however_sure_a_belief_is() -> None:
    columns = space(WRONG).columns
    drawn = draw_anew(columns, (4000, len(columns)), np.random.default_rng(0), 0)
    uniform = 1 - fading(0)
    assert np.mean(drawn[:, 0] > 0.5) == pytest.approx(uniform / 2, abs=0.03)
    assert np.mean(drawn[:, 4] < 5 / 6) == pytest.approx(uniform * 5 / 6, abs=0.03)
    assert fading(20) == fading(0) / 2 and fading(10**6) < 1e-5
