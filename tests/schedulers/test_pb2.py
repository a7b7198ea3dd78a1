"""PB2: the bandit for categories, the process for the others, and what they are told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tunesmith import Categorical, Float, Goal, Integer, Space, Study, forbid, less_than, replay, samplers
from tunesmith.schedulers import PB2, PBT, Truncation, pb2
from tunesmith.schedulers._standing import Gain, Past
from tunesmith.schedulers.pb2 import _values
from tunesmith.testing import GOAL, mixed, nested, play

LINE = Space({"x": Float(0.0, 1.0)})


def past(gains: list[Gain], step: int, losses: tuple[float, ...] = (1.0,), pending: tuple[Gain, ...] = ()) -> Past:
    return Past(step, losses, 10, gains, pending)


def gains(space: Space, worth: Any, rounds: range = range(10), members: int = 6) -> list[Gain]:
    """So many members a round with random configurations; an interval improves the loss by ``worth``."""
    rng = np.random.default_rng(0)
    found = []
    for turn in rounds:
        for _ in range(members):
            config = space.sample(rng)
            found.append(Gain(10 * turn, 10 * turn + 10, config, (1.0,), (1.0 - worth(config, turn),)))
    return found


def picks(space: Space, past: Past, n: int = 10, **options: Any) -> list[dict[str, Any]]:
    config = space.sample(np.random.default_rng(99))
    return [PB2(**options).explore(space, config, np.random.default_rng(seed), past) for seed in range(n)]


# -- the process ---


def test_what_improves_most_is_chosen() -> None:
    known = gains(LINE, lambda config, turn: -((config["x"] - 0.7) ** 2))
    assert all(abs(config["x"] - 0.7) < 0.1 for config in picks(LINE, past(known, 100)))


def test_the_past_is_forgotten() -> None:
    """The best place moves; the old intervals are many, and do not outweigh the new ones."""
    early = gains(LINE, lambda config, turn: -((config["x"] - 0.2) ** 2), range(8))
    late = gains(LINE, lambda config, turn: -((config["x"] - 0.8) ** 2), range(12, 15))
    assert np.median([config["x"] for config in picks(LINE, past(early, 80))]) < 0.35
    assert np.median([config["x"] for config in picks(LINE, past(early + late, 150))]) > 0.65
    only = picks(LINE, past(early + late, 150), window=18)
    assert all(abs(config["x"] - 0.8) < 0.15 for config in only)


def test_the_value_depends_on_where_a_copy_begins() -> None:
    """Weights of a high loss want another x than those of a low one."""
    rng = np.random.default_rng(0)
    known = []
    for turn in range(60):
        x, before = rng.random(), float(turn % 2)
        known.append(Gain(10, 20, {"x": x}, (before,), (before + (x - (0.2 + 0.6 * before)) ** 2,)))
    low, high = (np.median([c["x"] for c in picks(LINE, past(known, 10, (loss,)))]) for loss in (0.0, 1.0))
    assert low < 0.35 and high > 0.65


def test_the_bound_is_that_of_a_gaussian_process() -> None:
    """Against the textbook formulas, with what is pending in the deviation alone."""
    known = gains(LINE, lambda config, turn: math.sin(5 * config["x"]), range(3))
    pending = [Gain(30, 40, {"x": 0.5}, (1.0,))]
    now = past(known, 40, (1.0,), tuple(pending))
    values = pb2._values(known)
    points = np.array([[gain.config["x"]] for gain in [*known, *pending]])
    model = pb2._fit(LINE.columns, now, [*known, *pending], points, values)
    variance, length, epsilon, noise = np.exp(model.theta)
    times = np.array([gain.start for gain in [*known, *pending]]) / 10

    def kernel(a: Any, b: Any, s: Any, t: Any) -> Any:
        return variance * np.exp(-((a - b.T) ** 2) / length) * (1 - epsilon) ** (abs(s[:, None] - t) / 2)

    at = np.linspace(0, 1, 7)[:, None]
    cross = kernel(at, points, np.full(7, 4.0), times)
    every = kernel(points, points, times, times) + noise * np.eye(len(points))
    n = len(known)
    mean = cross[:, :n] @ np.linalg.inv(every[:n, :n]) @ values
    deviation = np.sqrt(variance - np.einsum("ij,jk,ik->i", cross, np.linalg.inv(every), cross))
    np.testing.assert_allclose(model.bound(at), mean + model.kappa * deviation, rtol=1e-6)
    assert model.kappa == pytest.approx(math.sqrt(0.2 * math.log(0.4 * n)))


def test_hyperparameters_are_more_likely_than_those_of_the_start() -> None:
    known = gains(LINE, lambda config, turn: math.sin(9 * config["x"]))
    points = np.array([[gain.config["x"]] for gain in known])
    values, times = pb2._values(known), np.array([gain.start / 10 for gain in known])
    squared, apart = (points - points.T) ** 2, abs(times[:, None] - times)

    def evidence(theta: Any) -> float:
        variance, length, epsilon, noise = np.exp(theta)
        matrix = variance * np.exp(-squared / length) * (1 - epsilon) ** (apart / 2) + noise * np.eye(len(points))
        return float(-0.5 * values @ np.linalg.solve(matrix, values) - 0.5 * np.linalg.slogdet(matrix)[1])

    found = pb2._likely(squared, apart, values)
    assert evidence(found) > evidence(pb2.HYPERPARAMETERS[0]) + 10
    assert (found >= pb2.HYPERPARAMETERS[1]).all() and (found <= pb2.HYPERPARAMETERS[2]).all()


def test_what_is_pending_is_less_promising() -> None:
    """The mean stays, the deviation falls around it: copies that are made together differ."""
    known = gains(LINE, lambda config, turn: -((config["x"] - 0.5) ** 2), range(1), 8)
    pending = [Gain(10, 20, {"x": 0.5}, (1.0,))]
    points, values = np.array([[gain.config["x"]] for gain in [*known, *pending]]), pb2._values(known)
    alone = pb2._fit(LINE.columns, past(known, 10), known, points[:-1], values)
    both = pb2._fit(LINE.columns, past(known, 10), [*known, *pending], points, values)
    at = np.linspace(0, 1, 21)[:, None]
    lower = alone.bound(at) - both.bound(at)
    assert (lower >= -1e-12).all() and lower.max() > 0.01 and 0.35 < at[lower.argmax(), 0] < 0.65


def test_a_failed_interval_counts_as_the_worst() -> None:
    known = gains(LINE, lambda config, turn: config["x"])
    failed = [gain if gain.config["x"] < 0.6 else gain._replace(after=None) for gain in known]
    values = pb2._values(failed)
    assert values[[gain.after is None for gain in failed]].tolist() == [values.min()] * sum(
        gain.after is None for gain in failed
    )
    assert all(config["x"] < 0.65 for config in picks(LINE, past(failed, 100)))


def test_values_of_several_goals_are_averaged() -> None:
    one = [Gain(0, 5, {"x": 0.1}, (1.0, 1000.0), (0.0, 1000.0)), Gain(0, 5, {"x": 0.2}, (1.0, 1000.0), (1.0, 0.0))]
    assert pb2._values(one) == pytest.approx([0.0, 0.0])
    assert pb2._values([*one, Gain(0, 5, {"x": 0.3}, (1.0, 1000.0), (0.0, 0.0))]).argmax() == 2


@pytest.mark.parametrize("value", [0.0, 1e300, 1e-300, math.inf])
def test_extreme_values(value: float) -> None:
    known = [Gain(0, 10, {"x": i / 10}, (value,), (-value if i % 2 else value,)) for i in range(10)]
    assert all(0 <= config["x"] <= 1 for config in picks(LINE, past(known, 10, (value,)), 2))


# -- every kind of space ---


@pytest.mark.parametrize("make", [mixed, nested])
@pytest.mark.parametrize("rounds", [0, 1, 8])
def test_choices_lie_in_the_space(make: Any, rounds: int) -> None:
    space = make()
    worth = {tuple(gain.config): 0.1 * i for i, gain in enumerate(gains(space, lambda *_: 0.0, range(8)))}
    known = gains(space, lambda config, turn: worth.get(tuple(config), 0.0), range(rounds))
    for config in picks(space, past(known, 10 * rounds), 6):
        space.check(config)
    again = [picks(space, past(known, 10 * rounds), 2) for _ in range(2)]
    assert again[0] == again[1]


def test_logarithms_and_integers() -> None:
    space = Space({"lr": Float(1e-6, 1.0, log=True), "n": Integer(1, 100)})
    known = gains(space, lambda config, turn: -((math.log10(config["lr"]) + 4) ** 2) - ((config["n"] - 60) / 20) ** 2)
    for config in picks(space, past(known, 100)):
        assert 1e-5 < config["lr"] < 1e-3 and isinstance(config["n"], int) and 40 <= config["n"] <= 80


def test_inactive_parameters() -> None:
    """The options of a category have parameters of their own; only those of the chosen one get a value."""
    branches = {"a": Space({"x": Float(0.0, 1.0)}), "b": Space({"y": Float(0.0, 1.0)})}
    space = Space({"kind": Categorical(branches)})
    known = gains(space, lambda c, turn: -abs(c["x"] - 0.8) if "x" in c else -2 - abs(c["y"] - 0.2), range(20))
    chosen = picks(space, past(known, 200), 40)
    assert sum(config["kind"] == "a" for config in chosen) >= 24
    for config in chosen:
        assert set(config) == {"kind", "x" if config["kind"] == "a" else "y"}
        assert abs(config.get("x", 0.8) - 0.8) < 0.15 and abs(config.get("y", 0.2) - 0.2) < 0.3


def test_hard_constraints_are_honoured() -> None:
    space = Space({"low": Float(0.0, 1.0), "high": Float(0.0, 1.0)}, [less_than("low", "high")])
    known = gains(space, lambda config, turn: config["low"] - config["high"])
    assert all(config["low"] < config["high"] for config in picks(space, past(known, 100)))
    few = Space({"a": Categorical(["x", "y"]), "b": Categorical(["x", "y"])}, [forbid({"a": "x", "b": "y"})])
    for config in picks(few, past([], 0), 20):
        few.check(config)


def test_configurations_outside_the_space_are_passed_over() -> None:
    known = gains(Space({"x": Float(0.0, 9.0)}), lambda config, turn: config["x"])
    assert all(0 <= config["x"] <= 1 for config in picks(LINE, past(known, 100)))


def test_a_space_of_constants() -> None:
    assert PB2().explore(Space({"x": 3}), {"x": 3}, np.random.default_rng(0), past([], 0)) == {"x": 3}


# -- the bandit ---


def bandit(means: Any, rounds: int = 40, gamma: float = 0.2, seed: int = 0, members: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    starts, arms, rewards = [], [], []
    for turn in range(rounds):
        for _ in range(members):
            arms.append(int(rng.integers(3)))
            starts.append(turn)
            rewards.append(float(np.clip(means(turn)[arms[-1]] + 0.1 * rng.normal(), 0, 1)))
    return pb2.exp3m(np.array(starts), np.array(arms), np.array(rewards), 3, gamma)


@pytest.mark.parametrize("members", [1, 2, 8])
def test_the_best_arm_is_played_most(members: int) -> None:
    shares = bandit(lambda turn: (0.2, 0.9, 0.2), 80, members=members)
    assert shares.argmax() == 1 and shares[1] > (0.4 if members == 1 else 0.5)
    assert shares.sum() == pytest.approx(1.0) and shares.min() >= 0.2 / 3 - 1e-12


def test_an_arm_that_becomes_the_best_is_found() -> None:
    shares = bandit(lambda turn: (0.9, 0.1, 0.1) if turn < 30 else (0.1, 0.1, 0.9), 60)
    assert shares.argmax() == 2


def test_no_data_is_uniform() -> None:
    none = np.array([], dtype=int)
    assert pb2.exp3m(none, none, np.array([]), 4, 0.2) == pytest.approx([0.25] * 4)


# -- in a population ---


def test_what_intervals_were_worth() -> None:
    """From the loss of the weights that a copy begins with; failures are told; fresh trials from their first step."""
    scheduler = PBT(population=2, ready=2, steps=8, exploit=Truncation(0.5), explore=PB2())
    study = Study(LINE, Goal("loss"), samplers.QMC(), scheduler)
    first, second = study.ask(2)
    study.tell(first, {"loss": [5.0, 3.0]})
    study.tell(second, {"loss": 9.0})
    gains = study._log.decider.scheduling()[1].gains
    assert gains == [Gain(1, 2, first.config, (5.0,), (3.0,), 0)]
    resumed, copy = study.ask(2)
    assert (resumed.trial, copy.parent) == (first.trial, first.trial)
    study.tell(copy, {"loss": [2.0, 1.0]})
    study.fail(resumed, "no luck")
    assert study._log.decider.scheduling()[1].gains is gains
    assert gains[1:] == [Gain(2, 4, copy.config, (3.0,), (1.0,), 1), Gain(2, 4, first.config, (3.0,), None, 0)]


def test_others_remember_nothing() -> None:
    study = Study(mixed(), GOAL, sampler=samplers.Uniform(), scheduler=PBT(population=4, ready=2, steps=10))
    play(study, np.random.default_rng(0))
    assert not study._log.decider.scheduling()[1].gains


@pytest.mark.parametrize("make", [mixed, nested])
@pytest.mark.parametrize("seed", range(2))
def test_replay_with_faults(make: Any, seed: int) -> None:
    scheduler = PBT(population=5, ready=2, steps=14, exploit=Truncation(0.4), explore=PB2())
    study = Study(make(), GOAL, samplers.QMC(), scheduler, seed=seed)
    play(study, np.random.default_rng(seed), workers=3, faults=0.2)
    assert any(trial.parent is not None for trial in study.trials) and replay(study) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PB2(window=1), "window=1 must be at least 2"),
        (lambda: PB2(gamma=0.0), r"gamma=0.0 must be in \(0, 1\]"),
    ],
)
def test_wrong_use(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_intervals_are_compared_with_those_from_the_same_step() -> None:
    """A loss that falls steeply at first leaves something to learn from what comes later."""
    fall = [1.0, 0.3, 0.1, 0.03]
    gains = [
        Gain(5 * rung, 5 * rung + 5, {"x": x}, (fall[rung],), (fall[rung] * (0.3 + 0.05 * (x - 0.5) ** 2),))
        for rung in range(4)
        for x in (0.1, 0.3, 0.5, 0.7)
    ]
    values = _values(gains).reshape(4, 4)
    assert (values.argmax(axis=1) == 2).all() and (values.argmin(axis=1) == 0).all()
    np.testing.assert_allclose(values - values[0], 0.0, atol=1e-9)
    huge = [gain._replace(before=(1e308,), after=(-1e308 * gain.config["x"],)) for gain in gains]
    assert (np.isfinite(_values(huge))).all() and (_values(huge).reshape(4, 4).argmax(axis=1) == 3).all()


def test_copies_do_not_lie_on_the_bounds_where_the_loss_falls_steeply_at_first() -> None:
    """The best values are in the middle, and the metric is a loss and not its logarithm: an interval at the end gains a
    hundredth of what one at the beginning does.
    """
    space = Space({f"x{number}": Float(0.0, 1.0) for number in range(3)})
    edge: list[float] = []
    for seed in range(3):
        scheduler = PBT(population=8, ready=5, steps=60, synchronous=True, explore=PB2())
        study = Study(space, Goal("loss"), samplers.QMC(), scheduler, seed=seed)
        logarithms: dict[tuple[int, int], float] = {}
        while job := study.ask():
            source = job.trial if (job.trial, job.start) in logarithms else job.parent
            logarithm = logarithms[source, job.start] if job.start and source is not None else 0.0
            away = np.array([float(value) for value in job.config.values()]) - 0.5
            speed = 0.1 * float(np.exp(-((away / 0.15) ** 2)).mean())
            told = [float(np.exp(logarithm - speed * (step + 1))) for step in range(job.until - job.start)]
            logarithms[job.trial, job.until] = logarithm - speed * len(told)
            study.tell(job, {"loss": told})
        copies = [trial for trial in study.trials if trial.parent is not None]
        edge += [min(float(x), 1 - float(x)) for trial in copies for x in trial.config.values()]
    assert np.mean([distance < 1e-3 for distance in edge]) < 0.25
