"""A comparison from the training of a user's workload to its outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import workload as workloads

from tunesmith import Float, Space, Study
from tunesmith.comparison.protocol import ComparisonError, compare
from tunesmith.comparison.spaces import Edge, edges, hyperparameters, search_space, widened
from tunesmith.execution import ExecutionError
from tunesmith.optimizers import RULES, OptimizerError


@pytest.mark.parametrize("trials", [1, 10, 25, 100])
@pytest.mark.parametrize("name", RULES)
def test_every_space_gives_hyperparameters_of_the_rule(name, trials):
    space, rule = search_space(name, trials), RULES[name]
    rng = np.random.default_rng(0)
    for _ in range(20):
        given = hyperparameters(space.sample(rng))
        complete = rule.complete(given)
        assert all(value >= 0 and math.isfinite(value) for value in complete.values())
        assert all(complete[one] < 1 for one in ("momentum", "beta1", "beta2", "rho") if one in complete)
    assert len(space) == {1: 1, 10: 1 + (name != "sgd")}.get(trials, len(space))
    if trials == 100:
        assert given.keys() == rule.defaults.keys()


def test_the_ratios_of_the_paper():
    assert hyperparameters({"lr_over_eps": 2.0, "eps": 100.0, "one_minus_beta1": 0.25}) == {
        "lr": 200.0, "eps": 100.0, "beta1": 0.75,
    }  # fmt: skip
    assert hyperparameters({"lr_over_sqrt_eps": 2.0, "eps": 100.0}) == {"lr": 20.0, "eps": 100.0}


def test_the_best_near_an_edge_are_noticed_and_the_range_is_widened():
    space = Space({"lr": Float(1e-4, 10.0, log=True), "one_minus_momentum": Float(1e-3, 1.0, log=True)})
    rng = np.random.default_rng(0)
    configs = [space.sample(rng) for _ in range(100)]
    losses = [abs(math.log(config["lr"] / 10)) for config in configs]
    found = edges(space, configs, losses)
    assert [(edge.name, edge.side) for edge in found] == [("lr", "high")]
    assert str(found[0]) == f"lr: {100 * found[0].share:.0f}% of the best trials are near the high end of its range"
    assert widened(space, found)["lr"].high == pytest.approx(10 * math.sqrt(1e5))
    assert widened(space, found)["lr"].low == 1e-4
    assert edges(space, configs, [math.log(config["lr"]) ** 2 for config in configs]) == []
    # the distance of a momentum from 1 is 1 where there is none: nothing lies beyond
    assert edges(space, configs, [-config["one_minus_momentum"] for config in configs]) == []
    assert [edge.side for edge in edges(space, configs, [config["one_minus_momentum"] for config in configs])] == [
        "low"
    ]
    assert widened(space, [Edge("one_minus_momentum", "high", 1.0)])["one_minus_momentum"].high == 1.0
    assert edges(space, configs[:3], [math.inf] * 3) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_from_a_workload_to_outcomes_and_on_from_where_they_stand(workers, tmp_path):
    given = {"store": tmp_path / "studies.db", "target": 0.5, "workers": workers}
    first, _ = compare(workloads.Digits, ["sgd", "adam"], trials=4, **given)
    assert first.optimizers == ("sgd", "adam")
    assert set(first.measures) == {"final", "best", "steps", "final.test", "final.train"}
    table, near = compare(workloads.Digits(), ["sgd", "adam"], trials=4, **given)
    assert table.rows == first.rows  # nothing was trained again
    assert set(near) == {"sgd", "adam"}
    assert table.values("adam").min() < 0.3
    with Study.open(tmp_path / "studies.db", name="sgd") as study:
        assert [trial.last("validation") for trial in study.trials] == table.values("sgd").tolist()


def test_trials_that_diverge_are_failures():
    with pytest.raises(ComparisonError, match="all trials of sgd, adam have diverged"):
        compare(workloads.Diverging, ["sgd", "adam"], trials=3)


def test_one_optimizer_that_always_diverges_does_not_stop_the_others():
    table, _ = compare(workloads.DivergingWithSGD, ["sgd", "adam"], trials=3)
    assert np.isinf(table.values("sgd")).all() and np.isfinite(table.values("adam")).all()
    assert "sgd" in " ".join(table.notes)


def test_ranges_are_widened_until_the_best_lie_inside(tmp_path):
    plain, near = compare(workloads.FarAway, ["sgd"], trials=9, store=tmp_path / "a.db")
    assert [edge.side for edge in near["sgd"]] == ["high"]
    refined, near = compare(workloads.FarAway, ["sgd"], trials=9, store=tmp_path / "a.db", refine=3)
    assert near["sgd"] == [] and len(refined.rows) == 9
    assert refined.values("sgd").min() < plain.values("sgd").min()
    with Study.open(tmp_path / "a.db", name="sgd 2") as study:
        assert study.space["lr"].high > 1000 and len(study.trials) == 9


def test_what_is_wrong_is_one_line():
    with pytest.raises(OptimizerError, match="there is no optimizer 'adma'; there are sgd, momentum"):
        compare(workloads.Digits, ["adma"], trials=3)
    with pytest.raises(OptimizerError, match="name the optimizers to compare"):
        compare(workloads.Digits, [], trials=3)
    with pytest.raises(ComparisonError, match="needs a generator train"):
        compare(object(), ["sgd"], trials=3)
    with pytest.raises(ExecutionError, match="train must yield 'validation'"):
        compare(workloads.WithoutValidation, ["sgd"], trials=3)
    with pytest.raises(ValueError, match="trials=0"):
        compare(workloads.Digits, ["sgd"], trials=0)
