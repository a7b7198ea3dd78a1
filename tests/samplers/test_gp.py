"""The GP sampler: conformance, decisions that follow from the log alone, and what it is for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tunesmith import (
    Categorical,
    Constraint,
    Float,
    Goal,
    Integer,
    Prior,
    Space,
    Study,
    forbid,
    less_than,
    replay,
    samplers,
    schedulers,
)
from tunesmith.decide import Decider
from tunesmith.fold import Fold
from tunesmith.pareto import hypervolume
from tunesmith.records import Asked, Failed, Told
from tunesmith.samplers import _outcomes, gp
from tunesmith.samplers._acquisition import Branch
from tunesmith.samplers._outcomes import Outcome, Posterior
from tunesmith.testing import GOAL, SamplerConformance, mixed, play

LOSS = Goal("loss")
SQUARE = Space({"x": Float(0.0, 1.0), "y": Float(0.0, 1.0)})
FEW = {"candidates": 64, "starts": 2}


class TestGP(SamplerConformance):
    def make(self) -> samplers.GP:
        return samplers.GP()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search with few candidates, where it is not the search that is tested."""

    def search(*args: Any, **options: Any) -> Any:
        return maximise(*args, **options, **FEW)

    maximise = gp.maximise
    monkeypatch.setattr(gp, "maximise", search)


def run(space: Space, f: Callable[[dict[str, Any]], float], n: int, sampler: Any = None, seed: int = 0) -> Study:
    """A study of so many trials, of which those fail for which there is no number."""
    study = Study(space, LOSS, sampler or samplers.GP(), seed=seed, trials=n)
    while (job := study.ask()) is not None:
        study.tell(job, {"loss": f(job.config)})
    return study


def losses(study: Study) -> np.ndarray:
    return np.array([trial.last("loss") for trial in study.trials if trial.status == "complete"], dtype=np.float64)


def state(study: Study) -> gp.State:
    found: gp.State = study.sampling()[1]
    return found


# -- a fold of the log ----------------------------------------------------------------------------------------------


def check_purity(study: Study) -> None:
    """Whoever reads the log without having asked decides the next job as those did who have asked all along."""
    folded = Fold(study.given, hearing=True)
    for event in study.events():
        folded.fold(event)
    decided, job = Decider(folded, study.given).decide().asked, study.ask()
    assert decided is not None and job is not None and decided.config == job.config
    study.fail(job, "on purpose")


CASES: dict[str, tuple[samplers.GP, dict[str, Any]]] = {
    "default": (samplers.GP(), {}),
    "young fits and later ones": (samplers.GP(startup=44), {"n": 46}),
    "thompson": (samplers.GP("thompson", startup=10), {}),
    "chance, region and warping": (samplers.GP("pi", region=1.0, warp=True), {}),
    "ei, one fantasy": (samplers.GP("ei", fantasies=1, startup=1), {}),
    "resumed": (samplers.GP(), {"scheduler": schedulers.Full(10)}),
    "rungs": (samplers.GP(startup=5), {"scheduler": schedulers.ASHA(9, eta=2)}),
    "rungs, thompson, warping": (samplers.GP("thompson", warp=True), {"scheduler": schedulers.ASHA(9, brackets=3)}),
}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("name", CASES)
def test_asking_is_no_part_of_the_state(name: str) -> None:
    """With pending points, failures, reports on the way and workers that vanish."""
    sampler, options = CASES[name]
    study = Study(mixed(), GOAL, sampler, options.get("scheduler"), seed=3)
    rng = np.random.default_rng(3)
    for jobs in (options.get("n", 18), 5):
        play(study, rng, workers=5, faults=0.25, jobs=jobs)
        out = study.ask(3)
        check_purity(study)
        for job in out:
            study.tell(job, {"score": rng.normal()})
    assert replay(study) == []


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("goals", [2, 4])
def test_rungs_with_goals_constraints_and_rows_beyond_bulk(goals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BULK", 15), ("FIT", 10), ("GROWTH", 1.5)):
        monkeypatch.setattr(_outcomes, name, value)
    rule = Constraint("size", 1.0)
    names = [f"goal{i}" for i in range(goals)]
    scheduler = schedulers.ASHA(9, eta=2)
    study = Study(mixed(), [Goal(n) for n in names], samplers.GP(startup=6), scheduler, constraints=[rule], seed=1)
    rng = np.random.default_rng(1)
    for i in range(28):
        job = study.ask()
        assert job is not None
        if i % 9 == 3:
            study.fail(job, "on purpose")
            continue
        curve = [{name: rng.normal() - step for name in [*names, "size"]} for step in range(job.start, job.until)]
        study.tell(job, {name: [values[name] for values in curve] for name in [*names, "size"]})
    assert len(state(study).history.rungs) >= 3
    check_purity(study)
    assert replay(study) == []


@pytest.mark.usefixtures("hasty")
def test_the_step_itself_is_no_matter() -> None:
    """With one rung, whichever it is, the proposals are the same."""
    configs = []
    for steps in (1, 7):
        study = Study(SQUARE, LOSS, samplers.GP(), schedulers.Full(steps), trials=12)
        while (job := study.ask()) is not None:
            study.tell(job, {"loss": [(job.config["x"] - 0.3) ** 2 + job.config["y"]] * steps})
        configs.append([trial.config for trial in study.trials])
    assert configs[0] == configs[1]


def bowl(config: dict[str, Any]) -> float:
    return (config["x"] - 0.3) ** 2 + (config["y"] - 0.7) ** 2


CURVES: dict[str, tuple[Callable[[float, int], float], float]] = {  # and how good the median of the searches must be
    "level": (lambda loss, step: loss + 1 / step, 1e-3),
    "the better the steeper": (lambda loss, step: 2 - (2 - loss) * (1 - 0.9 / step), 1e-3),
    "the better the worse at first": (lambda loss, step: loss + 2 * max(0.0, 0.7 - loss) / step, 5e-3),
}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("name", CURVES)
def test_finds_what_is_good_in_the_end(name: str) -> None:
    """Whatever short training says. The best of 30 draws is as good as 0.0074 in the median."""
    curve, least = CURVES[name]
    found = []
    for seed in range(5):
        study = Study(SQUARE, LOSS, samplers.GP(), schedulers.ASHA(9), seed=seed, trials=30)
        while (job := study.ask()) is not None:
            study.tell(job, {"loss": [curve(bowl(job.config), step) for step in range(job.start + 1, job.until + 1)]})
        found.append(min(bowl(trial.config) for trial in study.trials))
    assert np.median(found) < least


@pytest.mark.usefixtures("hasty")
def test_what_it_says_is_of_the_last_rung() -> None:
    """Losses at the end lie between 0 and 1, those after one step above 9."""
    study = Study(SQUARE, LOSS, samplers.GP(startup=25), schedulers.ASHA(9), seed=0, trials=25)
    while (job := study.ask()) is not None:
        study.tell(
            job, {"loss": [bowl(job.config) + 10 * (9 - step) / 8 for step in range(job.start + 1, job.until + 1)]}
        )
    at = np.array([[0.3, 0.7], [0.6, 0.4]])
    sampler, found, rng = study.sampling()
    np.testing.assert_allclose(sampler.view(found, at, rng).curves["mean"], [0.0, 0.18], atol=0.05)


@pytest.mark.usefixtures("hasty")
def test_repeats_and_rows_beyond_bulk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configurations that are measured again, some of which fail then; and more rows than one posterior can have."""
    for name in ("BULK", "FIT"):
        monkeypatch.setattr(_outcomes, name, 12)
    goals, rules = [Goal("loss"), Goal("time")], [Constraint("size", 1.0)]
    for several in (False, True):  # goals
        study = Study(mixed(), goals[: 1 + several], samplers.GP(startup=14), constraints=rules, seed=1)
        rng = np.random.default_rng(1)
        for i in range(22):
            if i % 4 == 1:
                study.add(study.trials[int(rng.integers(len(study.trials)))].config, dict.fromkeys(METRICS, 0.1 * i))
            job = study.ask()
            assert job is not None
            study.space.check(job.config)
            if i % 7 == 3:
                study.fail(job, "on purpose")
            else:
                study.tell(job, {name: rng.normal() for name in METRICS})
        check_purity(study)
        assert replay(study) == []
        counts = state(study).history.counts
        assert counts.max() > 1


METRICS = ("loss", "time", "size")


@pytest.mark.usefixtures("hasty")
def test_a_race_is_decided_again() -> None:
    """Repeats by the scheduler: their row waits, changes its mean, and may fail."""
    study = Study(SQUARE, LOSS, samplers.GP(), schedulers.Race(), seed=0, trials=40)
    rng = np.random.default_rng(0)
    while (job := study.ask()) is not None:
        if rng.random() < 0.1:
            study.fail(job, "on purpose")
        else:
            study.tell(job, {"loss": job.config["x"] + rng.normal(0, 0.3)})
    assert state(study).history.counts.max() > 1 and replay(study) == []


def told(sampler: samplers.GP, space: Space, events: list[Any], goals: int = 1) -> gp.State:
    """The state after some events, given as (trial, point) of what is asked, (trial, losses) of what is told or trial
    of what has failed."""
    state = sampler.init(space, [Goal(f"loss{i}") for i in range(goals)], np.random.default_rng(0))
    for event in events:
        state = sampler.tell(state, event)
    return state


def believed(outcome: Outcome) -> Posterior:
    assert outcome.posterior is not None
    return outcome.posterior


def asked(space: Space, trial: int, *point: float) -> Asked:
    return Asked(trial, 0, trial, space.decode(space.snap(np.array(point))), 0, 1)


def result(trial: int, *values: float) -> Told:
    return Told(trial, trial, 0, {f"loss{i}": [value] for i, value in enumerate(values)})


def test_a_failed_configuration_that_is_tried_again_counts_as_neither() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((9, 2))
    events: list[Any] = [asked(SQUARE, i, *point) for i, point in enumerate(points)]
    events += [result(i, 1.0 * i) for i in range(7)] + [Failed(7, 7, ""), Failed(8, 8, "")]
    again = [*events, asked(SQUARE, 9, *points[8])]
    for more, rows in (
        ([], 9),
        ([asked(SQUARE, 9, *points[8])], 8),
        ([asked(SQUARE, 9, *points[8]), result(0, 0.5)], 8),
    ):
        found = told(samplers.GP(), SQUARE, [*events, *more])
        assert len(believed(found.failure).rows) == rows
    found = told(samplers.GP(), SQUARE, [*again, Failed(9, 9, "")])
    assert sorted(believed(found.failure).rows) == list(range(9))


# -- what it is for -------------------------------------------------------------------------------------------------


def branin(config: dict[str, Any]) -> float:
    x, y = 15 * config["x"] - 5, 15 * config["y"]
    valley = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return float(valley**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10 - 0.39788735772973816)


@pytest.mark.parametrize("seed", range(3))
def test_branin(seed: int) -> None:
    assert losses(run(SQUARE, branin, 40, seed=seed)).min() < 5e-3


@pytest.mark.parametrize("acquisition", ["ei", "pi", "ucb", "thompson"])
def test_every_acquisition_finds_the_minimum(acquisition: Any) -> None:
    study = run(SQUARE, lambda c: (c["x"] - 0.3) ** 2 + (c["y"] - 0.6) ** 2, 20, samplers.GP(acquisition))
    assert losses(study).min() < 0.01


def test_a_trust_region_in_many_columns() -> None:
    space = Space({f"x{i}": Float(0.0, 1.0) for i in range(24)})
    found = losses(run(space, lambda c: sum((x - 0.4) ** 2 for x in c.values()), 40))
    assert found.min() < 0.6 * found[:10].min()


def test_learns_to_avoid_failures() -> None:
    """Half of the space fails, and the best values lie not far from it."""
    space = Space({f"x{i}": Float(0.0, 1.0) for i in range(4)})
    failing: list[bool] = []
    for seed in range(8):
        study = run(space, lambda c: math.nan if c["x0"] > 0.5 else branin({"x": c["x1"], "y": c["x2"]}), 36, seed=seed)
        failing += [trial.status == "failed" for trial in study.trials[20:]]
    assert np.mean(failing) < 0.3


@pytest.mark.parametrize("scale", [1.0, 1e300])
def test_an_outcome_constraint_is_respected(scale: float) -> None:
    """The best values lie where the limit is broken; also where the metric is huge there."""
    study = Study(SQUARE, LOSS, samplers.GP(), constraints=[Constraint("seconds", 0.3)], trials=40)
    while (job := study.ask()) is not None:
        over = job.config["x"] - 0.5
        study.tell(job, {"loss": -sum(job.config.values()), "seconds": 0.3 + over * (scale if over > 0 else 1.0)})
    best = study.best
    assert best is not None and best.config["x"] <= 0.5 and sum(best.config.values()) > 1.45
    late = [trial.config["x"] <= 0.5 for trial in study.trials[20:]]
    assert np.mean(late) > 0.5


def test_nothing_feasible_is_known_yet() -> None:
    """Then it is the limit that is searched for."""
    study = Study(SQUARE, LOSS, samplers.GP(), constraints=[Constraint("seconds", 0.0)], trials=30)
    while (job := study.ask()) is not None:
        away = max(abs(job.config["x"] - 0.9), abs(job.config["y"] - 0.1))
        study.tell(job, {"loss": job.config["y"], "seconds": away - 0.02})
    excess = np.array([trial.last("seconds") for trial in study.trials])
    assert (excess[:6] > 0).all() and (excess <= 0).any()


BRANCHES = Space(
    {
        "model": Categorical(
            {
                "good": Space({"a": Float(0.0, 1.0), "b": Float(0.0, 1.0)}),
                "bad": Space({"c": Float(0.0, 1.0)}),
                "plain": None,
            }
        )
    }
)


def deceptive(config: dict[str, Any]) -> float:
    """One branch is better nearly everywhere, and the other has the optimum."""
    if config["model"] == "plain":
        return 0.9
    if config["model"] == "good":
        return 0.3 + (config["a"] - 0.3) ** 2 + (config["b"] - 0.6) ** 2
    return float(1.0 - 1.2 * math.exp(-0.5 * ((config["c"] - 0.72) / 0.08) ** 2))


@pytest.mark.parametrize("seed", range(3))
def test_the_worse_branch_may_hold_the_optimum(seed: int) -> None:
    assert losses(run(BRANCHES, deceptive, 40, seed=seed)).min() < -0.18


def test_a_branch_without_anything_new_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option without parameters is the one that was tried least, and there is nothing to be tried."""
    monkeypatch.setattr(gp, "EXPLORED", gp.OFTEN)  # every ask goes to a neglected branch
    study = run(BRANCHES, deceptive, 24)
    state_ = state(study)
    values: list[float] = []
    original = gp.maximise

    def search(acquisition: Any, *args: Any, **options: Any) -> Any:
        point = original(acquisition, *args, **options)
        values.append(acquisition.value(point[None])[0])
        return point

    monkeypatch.setattr(gp, "maximise", search)
    assert samplers.GP().ask(state_, np.random.default_rng(0)) is not None
    assert values[-1] > -1e6
    taken = [trial.config["model"] for trial in study.trials]
    assert taken.count("plain") == 1


def test_hard_constraints_always() -> None:
    space = Space(
        {"low": Float(0.0, 1.0), "high": Float(0.0, 1.0), "n": Integer(1, 30), "kind": Categorical(["a", "b"])},
        constraints=[less_than("low", "high"), forbid({"n": 7, "kind": "b"})],
    )
    study = run(
        space, lambda c: (c["low"] - 0.6) ** 2 + (c["high"] - 0.5) ** 2 + abs(c["n"] - 7) + (c["kind"] == "a"), 40
    )
    for trial in study.trials:
        space.check(trial.config)
    assert losses(study).min() < 1.05


@pytest.mark.parametrize("acquisition", ["nei", "thompson"])
def test_a_batch_is_spread(acquisition: Any) -> None:
    """Eight jobs at once: none close to another, though one place promises most."""
    study = run(SQUARE, branin, 12, samplers.GP(acquisition))
    study.limit = None
    batch = np.array([list(job.config.values()) for job in study.ask(8)])
    gaps = np.abs(batch[:, None] - batch[None]).max(axis=2)[np.triu_indices(8, 1)]
    assert gaps.min() > 1e-3 and np.median(gaps) > 0.05


def dominated(sampler: Any, goals: int, seed: int) -> float:
    """Hypervolume of squared distances to some corners, several jobs being out at once."""
    space, corners = Space({f"x{i}": Float(0.0, 1.0) for i in range(5)}), np.eye(5)[:goals] * 0.6 + 0.2
    names = [f"goal{i}" for i in range(goals)]
    study = Study(space, [Goal(name) for name in names], sampler, seed=seed)
    for _ in range(8):
        for job in study.ask(3):
            away = ((np.array(list(job.config.values())) - corners) ** 2).sum(axis=1)
            study.tell(job, dict(zip(names, away.tolist(), strict=True)))
    return hypervolume(np.array([[trial.last(name) for name in names] for trial in study.trials]), np.ones(goals))


@pytest.mark.parametrize("goals", [2, 3, 4])
def test_several_goals(goals: int) -> None:
    random = [dominated(samplers.Uniform(), goals, seed) for seed in range(6)]
    assert dominated(samplers.GP(), goals, 0) > max(random)


def test_experts() -> None:
    """What they believe speeds the search up where they are right, and is overcome where they are wrong."""

    def best(*modes: float, n: int) -> float:
        space = Space({f"x{i}": Float(0.0, 1.0, prior=Prior(mode, "high")) for i, mode in enumerate(modes)})
        return float(losses(run(space, lambda c: sum((x - 0.8) ** 2 for x in c.values()), n)).min())

    plain = Space({f"x{i}": Float(0.0, 1.0) for i in range(4)})
    without = losses(run(plain, lambda c: sum((x - 0.8) ** 2 for x in c.values()), 12)).min()
    assert best(0.79, 0.82, 0.8, 0.78, n=12) < 0.5 * without
    assert best(0.1, 0.2, 0.1, 0.2, n=40) < 0.02


@pytest.mark.parametrize("seed", range(2))
def test_experts_who_are_sure_and_wrong_cost_little(seed: int) -> None:
    """Also in what has no order, and with the greatest confidence."""

    def best(wrong: bool) -> float:
        confident = {"prior": Prior(0.05, 1.0)} if wrong else {}
        kinds = Categorical(["a", "b", "c"], **({"prior": Prior("a", 1.0)} if wrong else {}))
        space = Space({"kind": kinds, **{f"x{i}": Float(0.0, 1.0, **confident) for i in range(3)}})

        def loss(config: dict[str, Any]) -> float:
            away = sum((config[f"x{i}"] - 0.7) ** 2 for i in range(3))
            return float(away + {"a": 0.3, "b": 0.0, "c": 0.15}[config["kind"]])

        return float(losses(run(space, loss, 30, seed=seed)).min())

    assert best(wrong=True) < best(wrong=False) + 0.01


def test_duplicates_go_to_the_optimum() -> None:
    """Of 15 configurations with noise the best one gets most of the trials 20 to 60."""
    space = Space({"kind": Categorical(["a", "b", "c"]), "size": Integer(1, 5)})
    shares = []
    for seed in range(3):
        state = samplers.GP().init(space, [LOSS], np.random.default_rng(seed), (), True)
        rng, found = np.random.default_rng(seed), []
        for trial in range(60):
            point = samplers.GP().ask(state, np.random.default_rng([seed, trial]))
            assert point is not None
            config = space.decode(point)
            value = "bac".index(config["kind"]) + abs(config["size"] - 4) / 2
            state = samplers.GP().tell(state, Asked(trial, trial, trial, config, 0, 1))
            state = samplers.GP().tell(state, Told(trial, trial, 0, {"loss": [value + rng.normal(0, 0.3)]}))
            found.append(value == 0)
        shares.append(np.mean(found[20:]))
    assert np.median(shares) > 0.6


# -- what it is made of ---------------------------------------------------------------------------------------------


def test_rows_of_the_goals_are_the_same_beyond_bulk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said to be the front must be values of the same configurations."""
    monkeypatch.setattr(_outcomes, "BULK", 10)
    rng = np.random.default_rng(0)
    events: list[Any] = []
    for trial, point in enumerate(rng.random((30, 2))):
        events += [asked(SQUARE, trial, *point), result(trial, point[0], -point[0])]
    found = told(samplers.GP(), SQUARE, events, goals=2)
    beliefs = [believed(goal) for goal in found.goals]
    np.testing.assert_array_equal(beliefs[0].rows, beliefs[1].rows)
    first, second = (belief.transform.invert(belief.means) for belief in beliefs if belief.transform)
    np.testing.assert_allclose(first, -second, atol=0.05)


@pytest.mark.parametrize("acquisition", ["nei", "ei"])
def test_pending_points_of_other_branches_set_no_bar(acquisition: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a branch that was neglected, improvement is on what is known of this branch."""
    events: list[Any] = []
    for trial in range(10):
        events += [asked(BRANCHES, trial, 1 / 6, trial / 10, 0.5, np.nan), result(trial, 0.001 * trial)]
    for trial in range(10, 14):
        events += [asked(BRANCHES, trial, 0.5, np.nan, np.nan, trial / 4 - 2.5), result(trial, 1.0 + 0.001 * trial)]
    sampler = samplers.GP(acquisition)
    branch = Branch(0, 1, 3)
    at = np.array([[0.5, np.nan, np.nan, 0.6]])
    values = []
    for pending in ([], [asked(BRANCHES, 20, 1 / 6, 0.05, 0.55, np.nan)]):
        found = told(sampler, BRANCHES, [*events, *pending])
        values.append(sampler._acquisition(found, branch, np.random.default_rng(0)).value(at)[0])
    assert values[1] > values[0] - 1.0


def test_neglected_branches_have_their_share() -> None:
    space = Space({"m": Categorical({c: Space({f"{c}{i}": Float(0.0, 1.0) for i in range(2)}) for c in "abc"})})
    rng = np.random.default_rng(0)
    events = []
    for trial in range(200):
        level = 0 if trial % 10 else 1 + (trial % 20 == 0)
        at = np.full(7, np.nan)
        at[0], at[1 + 2 * level : 3 + 2 * level] = (level + 0.5) / 3, rng.random(2)
        events.append(asked(space, trial, *at))
    for size, share in ((60, 0.25), (200, 0.125)):
        history = told(samplers.GP(), space, events[:size]).history
        found = [gp._neglected(history, rng) for _ in range(4000)]
        chosen = [branches[0] for branches in found if branches]
        assert abs(len(chosen) / 4000 - share) < 0.03
        assert {(branch.column, branch.level, branch.levels) for branch in chosen} == {(0, 1, 3)}
    assert not gp._neglected(told(samplers.GP(), SQUARE, []).history, rng)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"acquisition": "eic"}, "acquisition='eic' must be one of 'ei', 'nei', 'pi', 'ucb', 'thompson'"),
        ({"startup": 0}, "startup=0 must be at least 1"),
        ({"beta": -1.0}, "beta=-1.0 must be at least 0"),
        ({"fantasies": 0}, "fantasies=0 must be at least 1"),
        ({"trust": math.nan}, "trust=nan must be at least 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        samplers.GP(**options)
