"""What contains what: the trajectory of the contained optimizer is that of the containing one, also where the learning
rate changes.
"""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.optimizers import RULES, OptimizerError
from tunesmith.optimizers.taxonomy import INCLUSIONS, contains, path

STEPS = 60


def trajectory(name, course, seed):
    """Parameters after every update on a noisy quadratic: [steps, 3]."""
    rng = np.random.default_rng(seed)
    curvature, params = rng.uniform(0.1, 2.0, 3), rng.normal(size=3)
    state, found = RULES[name].init(params), []
    for given in course:
        grads = curvature * params + 0.1 * rng.normal(size=3)
        updates, state = RULES[name].update(grads, state, params, given)
        params = params + updates
        found.append(params)
    return np.array(found)


def course_of(name, seed):
    """Random hyperparameters, and a learning rate that decays."""
    rng = np.random.default_rng([seed, 1])
    given = {}
    if "adam" in name:
        given = {"beta1": rng.uniform(0.5, 0.95), "beta2": rng.uniform(0.9, 0.999), "eps": 10 ** rng.uniform(-8, 0)}
    elif name != "sgd":
        given = {"momentum": rng.uniform(0.0, 0.95)}
    return [{"lr": 0.1 * (1 - 0.9 * step / STEPS), **given} for step in range(STEPS)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("inclusion", INCLUSIONS, ids=lambda one: f"{one.special} in {one.general}")
def test_the_general_one_does_what_the_special_one_does(inclusion, seed):
    course = course_of(inclusion.special, seed)
    wanted = trajectory(inclusion.special, course, seed)
    far = {
        epsilon: np.abs(trajectory(inclusion.general, inclusion.realise(course, epsilon), seed) - wanted).max()
        for epsilon in (1e4, 1e6)
    }
    if inclusion.exact:
        assert far[1e6] < 1e-13
    else:  # the error falls as epsilon grows
        assert far[1e4] < 1e-3 and far[1e6] < 1e-5 and far[1e6] < far[1e4] / 50


def test_a_constant_momentum_would_not_do():
    """RMSProp has the learning rate inside of its momentum: where that decays, the same one does something else."""
    course = course_of("momentum", 0)
    naive = [{**given, "rho": 1.0, "eps": 0.0} for given in course]
    assert np.abs(trajectory("rmsprop", naive, 0) - trajectory("momentum", course, 0)).max() > 0.01


def test_an_epsilon_that_is_held_breaks_the_inclusion():
    course = course_of("momentum", 0)
    held = [{"lr": given["lr"], "beta1": given["momentum"], "eps": 1e-8} for given in course]
    assert np.abs(trajectory("adam", held, 0) - trajectory("momentum", course, 0)).max() > 0.01


def test_the_relation():
    assert [one.general for one in path("sgd", "adamw")] == ["momentum", "adam", "adamw"]
    assert contains("nadam", "sgd") and contains("rmsprop", "sgd") and contains("adam", "adam")
    assert not contains("sgd", "adam") and not contains("nadam", "momentum") and not contains("adam", "rmsprop")
    with pytest.raises(OptimizerError, match="'adam' is not contained in 'rmsprop'"):
        path("adam", "rmsprop")


def test_along_a_path_the_maps_follow_one_another():
    course = course_of("sgd", 3)
    given = course
    for one in path("sgd", "adamw"):
        given = one.realise(given, 1e7)
    assert np.abs(trajectory("adamw", given, 3) - trajectory("sgd", course, 3)).max() < 1e-5
