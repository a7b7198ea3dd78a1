"""TPE: its densities are densities, its older variants are the old ones, and it finds what random search does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, truncnorm

import tunesmith as ts
from tunesmith.records import Asked, Failed, Told
from tunesmith.samplers import TPE, Uniform
from tunesmith.samplers import tpe as module
from tunesmith.samplers._parzen import Layout, Mixture, bandwidths, levels
from tunesmith.samplers.base import Floats
from tunesmith.samplers.tpe import Believed
from tunesmith.testing.conformance import SamplerConformance, finite, mixed, nested, play

GOAL = ts.Goal("loss")


class TestDefault(SamplerConformance):
    def make(self) -> TPE:
        return TPE()


class TestOld(SamplerConformance):
    def make(self) -> TPE:
        return TPE(startup=5, gamma="sqrt", weights="old-decay", bandwidth="scott", branches="joint")


@pytest.mark.parametrize("space", [mixed(), nested(), finite()], ids=["mixed", "nested", "finite"])
@pytest.mark.parametrize("weights", ["EI", "old-drop"])
def test_each_column_by_itself(space: ts.Space, weights: Any) -> None:
    """As in hyperopt: on every kind of space, with failures, decided again by replay."""
    sampler = TPE(startup=5, candidates=8, multivariate=False, gamma="sqrt", weights=weights, branches="joint")
    study = ts.Study(space, [ts.Goal("score")], sampler, trials=45)
    play(study, np.random.default_rng(0), faults=0.2)
    assert len(study.trials) == min(45, space.size - (space.size == 12)) and ts.replay(study) == []


BRANCHES = ts.Space(
    {
        "kind": ts.Categorical(
            {
                "small": ts.Space({"x": ts.Float(0.0, 1.0)}),
                "middle": ts.Space({"k": ts.Integer(1, 4), "c": ts.Categorical(["u", "v", "w"])}),
                "large": ts.Space({"y": ts.Float(0.0, 1.0), "z": ts.Integer(1, 9, log=True)}),
                "none": None,
            },
            prior=ts.Prior("middle", 0.4),
        ),
        "all": ts.Float(0.0, 1.0, prior=ts.Prior(0.2, 0.8)),
    }
)


def points(space: ts.Space, n: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return np.array([space.encode(space.sample(rng)) for _ in range(n)])


def estimate(space: ts.Space, chosen: Any, trials: Floats, weights: Floats, *more: Any, **options: Any) -> Mixture:
    layout = Layout(space, chosen, levels(space))
    return Mixture(layout, layout.code(trials), weights, *more, **options)


def with_experts(space: ts.Space, trials: Floats, share: float) -> Believed:
    """The density of some trials, with a share of what experts believe."""
    every = range(len(space.columns))
    seen = estimate(space, every, trials, np.ones(len(trials)), floor=0.2, expert=False)
    return Believed(seen, estimate(space, every, trials[:0], np.ones(0)), share)


def density(mixture: Mixture | Believed, at: Floats) -> Floats:
    return np.exp(mixture.log_density(mixture.layout.code(at)))


def mass(mixture: Mixture | Believed, space: ts.Space, per_column: int = 200) -> float:
    """The integral over all points of all branches: a grid over the active columns, each level with its width."""
    fine = (np.arange(per_column) + 0.5) / per_column
    total = 0.0
    seen = set()
    for pattern in points(space, 300, 1):
        switch = next((pattern[c.parent] for c in space.columns if c.parent is not None), 0.0)
        key = (np.isnan(pattern).tobytes(), switch)
        if key in seen:
            continue
        seen.add(key)
        fixed = {c.parent for c in space.columns if c.parent is not None}
        axes = [np.array([u]) if np.isnan(u) or j in fixed else fine for j, u in enumerate(pattern)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        share = math.prod(1 / space.columns[j].levels for j in fixed)
        total += share * float(density(mixture, grid).mean())
    return total


KINDS = {
    "continuous": ts.Space({"x": ts.Float(0.0, 1.0)}),
    "believed": ts.Space({"x": ts.Float(0.0, 1.0, prior=ts.Prior(0.9, 0.9))}),
    "few levels": ts.Space({"x": ts.Integer(1, 8)}),
    "log levels": ts.Space({"x": ts.Integer(1, 20, log=True)}),
    "many levels": ts.Space({"x": ts.Integer(0, 99)}),
    "unordered": ts.Space({"x": ts.Categorical(["a", "b", "c", "d", "e"], prior=ts.Prior("c", 0.5))}),
    "product": ts.Space({"x": ts.Float(0.0, 1.0), "y": ts.Integer(1, 5)}),
    "branches": BRANCHES,
}


@pytest.mark.parametrize("rule", ["hyperopt", "scott", "optuna"])
@pytest.mark.parametrize("space", KINDS.values(), ids=KINDS.keys())
def test_densities_integrate_to_1(space: ts.Space, rule: Any) -> None:
    """Each kind, cut at the borders, and the sum over branches."""
    for n in (0, 1, 7):
        mixture = estimate(
            space,
            range(len(space.columns)),
            points(space, n).reshape(n, len(space.columns)),
            np.arange(1.0, n + 1),
            1.5,
            rule,
            0.05,
        )
        per_column = 4000 if len(space.columns) == 1 else 200 if len(space.columns) == 2 else 60
        exact = "log levels" if space is KINDS["log levels"] else ""
        assert mass(mixture, space, per_column) == pytest.approx(1, abs=0.03 if space is BRANCHES else 0.003), exact


@pytest.mark.parametrize("space", [KINDS["log levels"], KINDS["product"], BRANCHES], ids=["log", "product", "branches"])
def test_draws_follow_the_density(space: ts.Space) -> None:
    """The mean of 1 / density over draws is the volume of the cube; a conditional one has the rest as it was given."""
    mixture = estimate(space, range(len(space.columns)), points(space, 6), np.ones(6), 2.0, floor=0.2)
    drawn = np.full((20_000, len(space.columns)), np.nan)
    mixture.draw(drawn, np.random.default_rng(0))
    drawn = space.snap(drawn)
    assert (1 / density(mixture, drawn)).mean() == pytest.approx(1, abs=0.05)


def test_draws_given_a_branch() -> None:
    """Given the branch, its columns come from the trials in which they were active, and mostly from those."""
    trials = np.array([[0.125, 0.3, *[np.nan] * 4, 0.9]] * 5 + [[0.625, *[np.nan] * 3, 0.7, 0.5, 0.1]] * 5)
    trials = BRANCHES.snap(trials)
    mixture = estimate(BRANCHES, range(7), trials, np.ones(10), 1.0, floor=0.02, expert=False)
    drawn = np.full((2000, 7), np.nan)
    drawn[:, 0] = 0.125
    mixture.draw(drawn, np.random.default_rng(0))
    assert (drawn[:, 0] == 0.125).all()
    assert np.mean(np.abs(drawn[:, 1] - 0.3) < 0.25) > 0.5 and np.mean(drawn[:, 6] > 0.4) > 0.8


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_what_experts_believe_is_a_share_of_the_density(share: float) -> None:
    """It integrates to 1, draws follow it, and a given branch says which of the two a draw comes from."""
    both = with_experts(BRANCHES, points(BRANCHES, 6), share)
    assert mass(both, BRANCHES, 60) == pytest.approx(1, abs=0.03)
    drawn = np.full((20_000, 7), np.nan)
    both.draw(drawn, np.random.default_rng(0))
    assert (1 / density(both, BRANCHES.snap(drawn))).mean() == pytest.approx(1, abs=0.05)
    given = np.full((20_000, 7), np.nan)
    given[:, 0] = 0.375  # of "middle", which experts prefer
    both.draw(given, np.random.default_rng(1))
    chosen = drawn[drawn[:, 0] == 0.375]
    assert (given[:, 0] == 0.375).all()
    assert np.mean(given[:, 6] < 0.3) == pytest.approx(np.mean(chosen[:, 6] < 0.3), abs=0.03)


def test_the_univariate_kernels_by_hand() -> None:
    """Two trials and the prior in one column: widths from the neighbours, normals cut to [0, 1], Optuna categories."""
    space = ts.Space({"x": ts.Float(0.0, 1.0), "c": ts.Categorical(["a", "b"])})
    trials = np.array([[0.1, 0.25], [0.4, 0.75]])
    np.testing.assert_allclose(bandwidths(trials[:, :1], np.array([0.5]), "hyperopt", 1)[:, 0], [0.3, 0.3])
    np.testing.assert_allclose(bandwidths(trials[:, :1], np.array([0.5]), "optuna", 1), 0.2 * 2**-0.2)
    scott = 1.059 * min(np.std([0.1, 0.4]), 0.15 / 1.34) * 2**-0.2
    np.testing.assert_allclose(bandwidths(trials[:, :1], np.array([0.5]), "scott", 1), scott)

    at = np.array([[0.2, 0.25]])
    parts = [(0.1, 0.3), (0.4, 0.3), (0.5, 1.0)]
    by_hand = np.mean([truncnorm.pdf(0.2, -m / s, (1 - m) / s, m, s) for m, s in parts])
    number = estimate(space, [0], trials, np.ones(2))
    assert density(number, at)[0] == pytest.approx(by_hand)
    category = estimate(space, [1], trials, np.ones(2))
    hit, miss = (1 + 1 / 3) / (1 + 2 / 3), (1 / 3) / (1 + 2 / 3)
    assert density(category, at)[0] == pytest.approx(2 * np.mean([hit, miss, 0.5]))


def test_bins_by_hand() -> None:
    space = ts.Space({"k": ts.Integer(1, 4)})
    mixture = estimate(space, [0], np.array([[0.125]]), np.ones(1), floor=0.1)
    mass = [
        np.mean([np.diff(norm.cdf([level / 4, (level + 1) / 4], m, s))[0] / np.diff(norm.cdf([0, 1], m, s))[0]
                 for m, s in ((0.125, 0.375), (0.5, 1.0))])
        for level in range(4)
    ]  # fmt: skip
    np.testing.assert_allclose(density(mixture, np.array([[0.125], [0.375], [0.625], [0.875]])) / 4, mass)


def test_the_least_bandwidths() -> None:
    """Trials in one place: (k + 2)^-2 for a number, 1 / (k + 2) where there are bins, and the floor if it is more."""
    space = ts.Space({"x": ts.Float(0.0, 1.0), "k": ts.Integer(1, 10)})
    for count, floor, number, level in ((2, 0.0, 1 / 16, 1 / 4), (14, 0.0, 1 / 256, 1 / 16), (14, 0.1, 0.1, 0.1)):
        trials = np.tile([0.5, 0.45], (count, 1))  # beside the middle, where the prior's mode is a close neighbour
        mixture = estimate(space, range(2), trials, np.ones(count), floor=floor)
        np.testing.assert_allclose(mixture.width[:-1, 0], number)
        np.testing.assert_allclose(mixture.widths[0, 4], level)


def test_older_splits_and_weights() -> None:
    assert [TPE().count(n) for n in (1, 20, 21, 1000)] == [1, 3, 4, 25]
    assert [TPE(gamma="sqrt").count(n) for n in (1, 100, 101, 40_000)] == [1, 3, 3, 25]
    np.testing.assert_allclose(module._by_age(np.array([9, 3]), "old-decay"), 1)
    decay = module._by_age(np.arange(30)[::-1], "old-decay")
    np.testing.assert_allclose(decay, [1] * 25 + list(np.linspace(1, 1 / 30, 5)))
    assert module._by_age(np.arange(30), "old-drop").tolist() == [0] * 5 + [1] * 25
    np.testing.assert_allclose(module._improvements(np.array([1.0, 3.0, 5.0])), [2, 1, 2e-12])
    np.testing.assert_allclose(module._improvements(np.array([-1.7e308, 1.7e308])), [2, 2e-12])


@pytest.mark.parametrize(
    "options",
    [{"startup": 0}, {"candidates": 0}, {"floor": 0.0}, {"gamma": "cubic"}, {"weights": "x"}, {"bandwidth": "x"},
     {"branches": "x"}],
)  # fmt: skip
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"TPE: {next(iter(options))}="):
        TPE(**options)


# -- proposals ----------------------------------------------------------------------------------------------------

LINE = ts.Space({"x": ts.Float(0.0, 1.0)})
CUBE = ts.Space({f"x{i}": ts.Float(0.0, 1.0) for i in range(5)})
SQUARE = ts.Space({"x": ts.Float(0.0, 1.0), "y": ts.Float(0.0, 1.0)})


def told(sampler: TPE, space: ts.Space, rows: list[tuple[dict[str, Any], float | None]], pending: Any = ()) -> Any:
    """The state after trials with results (None: failed) and pending ones."""
    state = sampler.init(space, [GOAL], np.random.default_rng(0))
    for trial, (config, loss) in enumerate(rows):
        state = sampler.tell(state, Asked(trial, trial, trial, config, 0, 1))
        result = Told(trial, trial, 0, {"loss": [loss]}) if loss is not None else Failed(trial, trial, "x", "raised")
        state = sampler.tell(state, result)
    for trial, config in enumerate(pending, len(rows)):
        state = sampler.tell(state, Asked(trial, trial, trial, config, 0, 1))
    return state


def asked(sampler: TPE, state: Any, n: int = 50) -> Floats:
    found = [sampler.ask(state, np.random.default_rng(seed)) for seed in range(n)]
    return np.array([point for point in found if point is not None])


def test_pending_points_push_proposals_away() -> None:
    sampler = TPE()
    rows: Any = [({"x": x}, abs(x - 0.5)) for x in np.linspace(0.0, 1.0, 21)]
    alone = asked(sampler, told(sampler, LINE, rows))
    near = [{"x": x} for x in np.linspace(0.46, 0.54, 12)]
    beside = asked(sampler, told(sampler, LINE, rows, near))
    assert np.median(np.abs(beside - 0.5)) > 1.5 * np.median(np.abs(alone - 0.5))


def test_failures_are_avoided() -> None:
    """Everything fails in one half; the loss is as good near that half as elsewhere."""
    study = ts.Study(SQUARE, [GOAL], TPE(), seed=3, trials=60)
    while job := study.ask():
        if job.config["x"] > 0.5:
            study.fail(job, "on purpose")
        else:
            study.tell(job, {"loss": (job.config["y"] - 0.4) ** 2})
    late = [trial.config["x"] for trial in list(study.trials)[20:]]
    assert np.mean(np.array(late) > 0.5) < 0.35


def test_an_outcome_constraint_is_respected() -> None:
    """One in twelve draws honours it, and the loss falls towards where it is broken."""
    rule = ts.Constraint("cost", 0.0)
    study = ts.Study(CUBE, [GOAL], TPE(), seed=1, trials=60, constraints=[rule])
    while job := study.ask():
        u = np.array(list(job.config.values()))
        study.tell(job, {"loss": ((u - 0.9) ** 2).sum(), "cost": ((u - 0.4) ** 2).sum() - 0.2})
    late = [trial.metrics["cost"] <= 0 for trial in list(study.trials)[20:]]
    assert np.mean(late) > 0.6
    assert study.best is not None and study.best.metrics["loss"] < 0.6  # the least is 0.45


def test_several_goals_cover_the_front() -> None:
    """Between the two optima, at 0.2 and 0.6 on the diagonal, and all along."""
    study = ts.Study(SQUARE, [ts.Goal("a"), ts.Goal("b", maximise=True)], TPE(), seed=0, trials=80)
    while job := study.ask():
        x, y = job.config["x"], job.config["y"]
        study.tell(job, {"a": (x - 0.2) ** 2 + (y - 0.2) ** 2, "b": -((x - 0.6) ** 2) - (y - 0.6) ** 2})
    late = np.array([[t.config["x"], t.config["y"]] for t in list(study.trials)[30:]])
    near = (np.abs(late[:, 0] - late[:, 1]) < 0.2) & (late.mean(axis=1) > 0.1) & (late.mean(axis=1) < 0.7)
    assert near.mean() > 0.6
    assert np.ptp(late[near].mean(axis=1)) > 0.3


def test_priors_are_followed_and_fade() -> None:
    """A right belief pays from the start; a wrong one does not keep it from the optimum."""

    def best(mode: float | None, seed: int, trials: int) -> float:
        prior = None if mode is None else ts.Prior(mode, 0.9)
        space = ts.Space({name: ts.Float(0.0, 1.0, prior=prior) for name in "abcd"})
        study = ts.Study(space, [GOAL], TPE(), seed=seed, trials=trials)
        while job := study.ask():
            study.tell(job, {"loss": sum((job.config[name] - 0.72) ** 2 for name in "abcd")})
        return float(min(trial.metrics["loss"] for trial in study.trials))

    assert np.median([best(0.75, seed, 25) for seed in range(4)]) < 0.6 * np.median(
        [best(None, seed, 25) for seed in range(4)]
    )
    assert np.median([best(0.1, seed, 80) for seed in range(3)]) < 0.1


def test_experts_who_are_sure_and_wrong_forbid_nothing() -> None:
    """Also in what has no order, and with the greatest confidence."""
    optimum = 0.75, 0.3, 0.6

    def best(wrong: bool, seed: int) -> float:
        modes = [ts.Prior(mode, 1.0) if wrong else None for mode in (0.1, 0.9, 0.05)]
        kind = ts.Categorical(["a", "b", "c"], prior=ts.Prior("a", 1.0) if wrong else None)
        space = ts.Space({"kind": kind, **{f"x{i}": ts.Float(0.0, 1.0, prior=modes[i]) for i in range(3)}})
        study = ts.Study(space, [GOAL], TPE(), seed=seed, trials=50)
        while job := study.ask():
            x = np.array([job.config[f"x{i}"] for i in range(3)]) - optimum
            bumps = 0.5 * math.sin(6 * x[0] * x[1]) + 0.15 * (1 - math.cos(9 * x[2]))
            study.tell(job, {"loss": 2 * float(x @ x) + bumps + {"a": 0.3, "b": 0.0, "c": 0.15}[job.config["kind"]]})
        return float(min(trial.metrics["loss"] for trial in study.trials))

    assert np.mean([best(True, seed) for seed in range(8)]) < np.mean([best(False, seed) for seed in range(8)]) + 0.03


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_duplicates_go_to_the_optimum(noise: float) -> None:
    """Of 15 configurations with noise the best one gets most of the trials."""
    assert np.median([share_of_the_best(TPE(), noise, seed) for seed in range(5)]) > 0.6


def share_of_the_best(sampler: Any, noise: float, seed: int) -> float:
    """Share of the trials 30 to 100 that a sampler gives to the best of 15 configurations."""
    space = ts.Space({"kind": ts.Categorical(["a", "b", "c"]), "size": ts.Ordinal([1, 2, 4, 8, 16])})
    state = sampler.init(space, [GOAL], np.random.default_rng(seed), (), True)
    rng, found = np.random.default_rng(seed), []
    for trial in range(100):
        config = space.decode(sampler.ask(state, np.random.default_rng([seed, trial])))
        loss = "bac".index(config["kind"]) + abs(math.log2(config["size"]) - 3) / 2
        state = sampler.tell(state, Asked(trial, trial, trial, config, 0, 1))
        state = sampler.tell(state, Told(trial, trial, 0, {"loss": [loss + noise * rng.normal()]}))
        found.append(loss == 0)
    return float(np.mean(found[30:]))


def test_a_configuration_that_was_unlucky_once_is_tried_again() -> None:
    """Its mean of one is worse than the mean of ten of another, but within what one measurement may be off."""
    space = ts.Space({"k": ts.Integer(1, 12)})
    sampler = TPE(startup=1)
    state = sampler.init(space, [GOAL], np.random.default_rng(0), (), True)
    rng = np.random.default_rng(0)
    tries = [(2, 0.0)] * 10 + [(7, 0.5)] + [(k, 9.0) for k in (1, 3, 4, 5, 6, 8, 9, 10, 11, 12)]
    for trial, (k, loss) in enumerate(tries):
        state = sampler.tell(state, Asked(trial, trial, trial, {"k": k}, 0, 1))
        state = sampler.tell(state, Told(trial, trial, 0, {"loss": [loss + (k == 2) * 3 * rng.normal()]}))
    assert {space.decode(point)["k"] for point in asked(sampler, state, 10)} == {7}


def test_trials_that_stopped_early_rank_behind() -> None:
    """A better value at a lower step does not count as better."""
    space, sampler = LINE, TPE(startup=1)
    state = sampler.init(space, [GOAL], np.random.default_rng(0))
    for trial, x in enumerate(np.linspace(0.0, 1.0, 20)):
        until = 9 if x < 0.5 else 3
        state = sampler.tell(state, Asked(trial, trial, trial, {"x": x}, 0, until))
        state = sampler.tell(state, Told(trial, trial, 0, {"loss": [abs(x - 0.2) if x < 0.5 else -5.0] * until}))
    assert np.mean(asked(sampler, state) < 0.5) > 0.8


def halved(sampler: TPE, curve: Callable[[Floats, int], float], trials: int = 27, seed: int = 0) -> Any:
    """The state after trials in a square, of which the best third goes on from step 1 to 3, and of those to 9."""
    state, left, start = sampler.init(SQUARE, [GOAL], np.random.default_rng(0)), list(range(trials)), 0
    placed = points(SQUARE, trials, seed)
    for until in (1, 3, 9):
        losses = {trial: curve(placed[trial], until) for trial in left}
        for trial in left:
            config = SQUARE.decode(placed[trial])
            state = sampler.tell(state, Asked(trial, trial, trial, config, start, until))
            state = sampler.tell(state, Told(trial, trial, until - 1, {"loss": [losses[trial]]}))
        left, start = sorted(left, key=lambda trial: losses[trial])[: len(left) // 3], until
    return state


def test_trials_are_compared_by_what_is_to_be_expected_of_them() -> None:
    """Those that were stopped too: the worse ones at first are the better ones in the end, and this is seen."""
    state = halved(TPE(), lambda u, step: float(u[0] * (1 - 2 / step)), 81)
    losses, steps, counts = module._standings(state.history)
    assert np.corrcoef(losses[:, 0], state.history.points[:, 0])[0, 1] > 0.99
    assert (steps == 9).all() and (counts > 0.5).all()
    assert np.median(asked(TPE(), state)[:, 0]) < 0.35


def test_what_says_nothing_of_the_end_does_not_count() -> None:
    """After one step the losses are noise, later they are those of the end."""
    noise = np.random.default_rng(1).random(1000)
    state = halved(TPE(), lambda u, step: float(u[1] if step > 1 else noise[int(u[0] * 1000)]), 270)
    counts = module._standings(state.history).counts
    steps = state.history.steps
    assert (counts[steps == 9] == 1).all() and (counts[steps == 3] > 0.9).all() and (counts[steps == 1] < 0.2).all()
    assert np.median(asked(TPE(), state)[:, 1]) < 0.35


@pytest.mark.parametrize("branches", ["balanced", "joint"])
@pytest.mark.parametrize("goals", [1, 2])
def test_rungs_are_decided_again(goals: int, branches: Any) -> None:
    """With branches, goals, a constraint, failures and workers that vanish."""
    names = [ts.Goal(f"goal{i}") for i in range(goals)]
    rule = ts.Constraint("cost", 0.8)
    scheduler = ts.schedulers.ASHA(9, eta=2, brackets=2)
    sampler = TPE(startup=6, branches=branches)
    study = ts.Study(nested(), names, sampler, scheduler, constraints=[rule] * (goals - 1), trials=50, seed=goals)
    rng, out = np.random.default_rng(0), []
    for _ in range(150):
        if len(out) < 5 and (job := study.ask()) is not None:
            out.append(job)
        elif out:
            job = out.pop(int(rng.integers(len(out))))
            study.space.check(job.config)
            if rng.random() < 0.15:
                study.fail(job, "on purpose", "lost" if rng.random() < 0.3 else "raised")
            else:
                curve = rng.random((job.until - job.start, 3)).T.tolist()
                study.tell(job, {"goal0": curve[0], "goal1": curve[1], "cost": curve[2]})
    assert len(study.trials) >= 35 and ts.replay(study) == []


def test_the_step_itself_is_no_matter() -> None:
    """With one rung, whichever it is, the proposals are the same."""
    configs = []
    for steps in (1, 7):
        study = ts.Study(TREE, GOAL, TPE(), ts.schedulers.Full(steps), trials=30)
        while job := study.ask():
            study.tell(job, {"loss": [branched(job.config)] * steps})
        configs.append([trial.config for trial in study.trials])
    assert configs[0] == configs[1]


def test_branches_with_several_goals_promise_by_their_places() -> None:
    """The branch of the best place is searched, not the one that was told first."""
    space = ts.Space({"b": ts.Categorical({"bad": ts.Space({"x": X}), "good": ts.Space({"y": Y})})})
    sampler, goals = TPE(startup=4), [ts.Goal("one"), ts.Goal("two")]
    state = sampler.init(space, goals, np.random.default_rng(0))
    for trial in range(30):
        bad = trial % 2 == 0
        config = {"b": "bad", "x": trial / 30} if bad else {"b": "good", "y": trial / 30}
        value = 50.0 + trial if bad else 30.0 - trial
        state = sampler.tell(state, Asked(trial, trial, trial, config, 0, 1))
        state = sampler.tell(state, Told(trial, trial, 0, {"one": [value], "two": [value]}))
    worth = module._worth(state.history)
    assert worth[1::2].max() < worth[::2].min() and worth[29] == 0 and worth[28] == 29


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_scale_of_the_values_is_no_matter(scale: float) -> None:
    rows: Any = [({"x": x}, abs(x - 0.3)) for x in np.linspace(0.0, 1.0, 21)]
    sampler = TPE()
    plain = asked(sampler, told(sampler, LINE, rows), 5)
    scaled = asked(sampler, told(sampler, LINE, [(config, loss * scale) for config, loss in rows]), 5)
    np.testing.assert_allclose(scaled, plain, atol=1e-9)


# -- against random search ----------------------------------------------------------------------------------------


def smooth(config: dict[str, Any]) -> float:
    return sum((config[name] - 0.3) ** 2 for name in config)


def branched(config: dict[str, Any]) -> float:
    """The easy branch is good at once, the best one only after a search."""
    if config["b"] == "easy":
        return 0.1 + (config["x"] - 0.3) ** 2
    if config["b"] == "middle":
        return 0.06 + (config["x"] - 0.3) ** 2 + (config["y"] - 0.6) ** 2
    return 2 * sum((config[f"z{i}"] - 0.2 - 0.15 * i) ** 2 for i in range(4))


X, Y = ts.Float(0.0, 1.0), ts.Float(0.0, 1.0)
HARD = ts.Space({f"z{i}": ts.Float(0.0, 1.0) for i in range(4)})
TREE = ts.Space({"b": ts.Categorical({"easy": ts.Space({"x": X}), "middle": ts.Space({"x": X, "y": Y}), "hard": HARD})})


@pytest.mark.parametrize(("space", "loss"), [(CUBE, smooth), (TREE, branched)], ids=["smooth", "branches"])
def test_it_beats_random_search(space: ts.Space, loss: Callable[[dict[str, Any]], float]) -> None:
    """In at least 8 of 10 runs, and by half in the median."""

    def best(sampler: Any, seed: int) -> float:
        study = ts.Study(space, [GOAL], sampler, seed=seed, trials=70)
        while job := study.ask():
            study.tell(job, {"loss": loss(job.config)})
        return float(min(trial.metrics["loss"] for trial in study.trials))

    ours, random = (np.array([best(sampler, seed) for seed in range(10)]) for sampler in (TPE(), Uniform()))
    assert (ours < random).sum() >= 8
    assert np.median(ours) < 0.5 * np.median(random)


@pytest.mark.parametrize("sign", [1, -1], ids=["early losses tell", "early losses mislead"])
def test_it_beats_random_search_with_halving(sign: int) -> None:
    """Also where what is better in the end is worse at first. Losses fall by much while they spread by little."""

    def best(sampler: Any, seed: int) -> float:
        study = ts.Study(CUBE, [GOAL], sampler, ts.schedulers.ASHA(27), seed=seed, trials=80)
        while job := study.ask():
            steps = np.arange(job.start + 1, job.until + 1)
            study.tell(job, {"loss": (10 / steps + smooth(job.config) * np.where(steps > 1, 1, sign)).tolist()})
        return min(smooth(trial.config) for trial in study.trials if trial.step == 27)

    ours, random = (np.array([best(sampler, seed) for seed in range(6)]) for sampler in (TPE(), Uniform()))
    assert (ours < random).sum() >= 5
    assert np.median(ours) < 0.6 * np.median(random)
