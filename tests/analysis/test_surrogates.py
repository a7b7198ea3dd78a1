from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.integrate import trapezoid

from tunesmith import samplers
from tunesmith.analysis.figures import FAILED, INK, OTHERS
from tunesmith.analysis.surrogates import MODEL, plot_surrogate
from tunesmith.records import Constraint, Goal
from tunesmith.space import Categorical, Config, Float, Integer, Ordinal, Space, less_than
from tunesmith.study import Study

LINE = Space({"x": Float(0.0, 10.0)})
BRANCHES = {"sgd": Space({"momentum": Float(0.0, 0.99)}), "adam": Space({"beta": Float(0.8, 0.999)})}
MIXED = Space(
    {
        "lr": Float(1e-5, 1e-1, log=True),
        "layers": Integer(1, 4),
        "batch": Ordinal([16, 32, 64]),
        "optimizer": Categorical(BRANCHES),
        "act": Categorical(["relu", "gelu"]),
    }
)


def wave(config: Config) -> float:
    x: Any = config["x"]
    return math.sin(x) + math.sin(10 / 3 * x)


def bowl(config: Config) -> float:
    """Best with adam."""
    values: Any = config
    branch = abs(values.get("beta", 2.0) - 0.9)
    return abs(math.log10(values["lr"]) + 3) + 0.1 * values["layers"] + values["batch"] / 100 + branch


def searched(
    space: Space, sampler: Any, loss: Callable[[Config], float], trials: int, maximise: bool = False, **options: Any
) -> Study:
    study = Study(space, Goal("score", maximise), sampler, trials=trials, seed=2, **options)
    while job := study.ask():
        study.tell(job, {"score": -loss(job.config) if maximise else loss(job.config)})
    study.limit = None
    return study


def drawn(figure: Figure) -> None:
    """It can be written as a PNG, and not everything on it is white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    buffer.seek(0)
    assert imread(buffer).std() > 0.01


def curve(axes: Axes, label: str) -> Any:
    """The data of a line: [n, 2]."""
    (line,) = (line for line in axes.get_lines() if line.get_label() == label)
    return np.column_stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])


def test_a_gaussian_process_in_the_units_of_the_metric() -> None:
    study = searched(LINE, samplers.GP(), wave, 8)
    figure = plot_surrogate(study)
    above, below = figure.axes
    mean, maximum = curve(above, "mean"), curve(below, "maximum")
    for trial in study.trials:
        x: Any = trial.config["x"]
        assert abs(np.interp(x, *mean.T) - wave(trial.config)) < 0.3
    assert len(curve(above, "trials")) == 8
    assert (above.get_ylabel(), below.get_ylabel(), below.get_xlabel()) == ("score", "acquisition", "x")
    job = study.ask()
    assert job is not None
    following: Any = job.config["x"]
    assert maximum[0, 0] == pytest.approx(following, abs=10 / 400)
    drawn(figure)


def test_the_interval_is_narrow_at_a_trial_and_wide_between() -> None:
    study = searched(LINE, samplers.GP(), wave, 6)
    sampler, state, rng = study.sampling()
    xs: Any = sorted(trial.config["x"] for trial in study.trials)
    gap = int(np.argmax(np.diff(xs)))
    points = np.array([[xs[gap] / 10], [(xs[gap] + xs[gap + 1]) / 20]])
    curves = sampler.view(state, points, rng).curves
    width = curves["high"] - curves["low"]
    assert (curves["low"] < curves["mean"]).all() and (curves["mean"] < curves["high"]).all()
    assert width[1] > 2 * width[0]


@pytest.mark.parametrize("sampler", [samplers.GP(), samplers.TPE(startup=5)], ids=["GP", "TPE"])
def test_looking_changes_nothing(sampler: Any) -> None:
    study, untouched = (searched(LINE, sampler, wave, 8) for _ in range(2))
    drawn(plot_surrogate(study))
    drawn(plot_surrogate(study))
    following, expected = study.ask(), untouched.ask()
    assert following is not None and expected is not None and following.config == expected.config


def test_the_sampler_with_its_state_proposes_what_comes_next() -> None:
    study = searched(MIXED, samplers.TPE(startup=5), bowl, 8)
    sampler, state, rng = study.sampling()
    point = sampler.ask(state, rng)
    job = study.ask()
    assert job is not None and study.space.decode(point) == job.config


@pytest.mark.parametrize("acquisition", ["ei", "nei", "pi", "ucb", "thompson"])
def test_every_acquisition_function(acquisition: Any) -> None:
    study = searched(LINE, samplers.GP(acquisition=acquisition), wave, 7)
    sampler, state, rng = study.sampling()
    values = sampler.view(state, np.linspace(0, 1, 50)[:, None], rng).acquisition
    assert np.isfinite(values).all() and np.ptp(values) > 0
    drawn(plot_surrogate(study))


def test_densities_of_the_better_and_the_rest() -> None:
    figure = plot_surrogate(searched(LINE, samplers.TPE(), wave, 25))
    above, below, densities = figure.axes
    better, worse = (curve(densities, f"density of the {name}") for name in ("better", "worse"))
    for density in (better, worse):  # against the uniform one, so over [0, 1] the integral is 1
        assert trapezoid(density[:, 1], density[:, 0] / 10) == pytest.approx(1, abs=0.01)
    ratio = better[:, 1] / worse[:, 1]
    assert curve(below, "maximum")[0, 0] == better[np.argmax(ratio), 0]
    assert len(curve(above, "trials")) == 25
    drawn(figure)


def test_what_is_maximised_is_drawn_upwards() -> None:
    low, high = (plot_surrogate(searched(LINE, samplers.GP(), wave, 8, maximise)) for maximise in (False, True))
    least, most = (curve(figure.axes[0], "mean") for figure in (low, high))
    np.testing.assert_allclose(least[:, 1], -most[:, 1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(curve(low.axes[1], "maximum")[0, 0], curve(high.axes[1], "maximum")[0, 0])


@pytest.fixture(scope="module")
def tuned() -> Study:
    return searched(MIXED, samplers.GP(), bowl, 16)


def test_one_of_several_parameters(tuned: Study) -> None:
    figure = plot_surrogate(tuned)
    above, below = figure.axes
    best = tuned.best
    assert best is not None
    assert above.get_title(loc="left") == f"GP, the other parameters as in trial {best.id}"
    assert (below.get_xlabel(), below.get_xscale()) == ("lr", "log")
    on, off = curve(above, "trials"), curve(above, "trials off the line")
    assert [best.config["lr"], best.last("score")] in on.tolist() and len(on) + len(off) == 16
    colours = {line.get_label(): line.get_markerfacecolor() for line in above.get_lines()}
    assert colours["trials"] == INK and colours["trials off the line"] == OTHERS
    x = curve(above, "mean")[:, 0]
    assert (x[0], x[-1]) == pytest.approx((1e-5, 1e-1))
    drawn(figure)


def test_parameters_with_levels(tuned: Study) -> None:
    assert curve(plot_surrogate(tuned, "layers").axes[0], "mean")[:, 0].tolist() == [1, 2, 3, 4]
    above, below = plot_surrogate(tuned, "batch").axes
    assert curve(above, "mean")[:, 0].tolist() == [0, 1, 2]
    assert [label.get_text() for label in below.get_xticklabels()] == ["16", "32", "64"]


def test_a_parameter_of_a_branch(tuned: Study) -> None:
    best = tuned.best
    assert best is not None and best.config["optimizer"] == "adam"
    above = plot_surrogate(tuned, "beta").axes[0]
    with_beta = sum("beta" in trial.config for trial in tuned.trials)
    assert len(curve(above, "trials")) + len(curve(above, "trials off the line")) == with_beta


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("momentum", "'momentum' is not active in the best trial"),
        ("act", "'act' has no order"),
        ("optimizer", "'optimizer' has no order"),
        ("speed", "no parameter 'speed' varies in this study; there are lr, layers, batch, optimizer"),
    ],
)
def test_parameters_that_can_not_be_drawn(parameter: str, message: str, tuned: Study) -> None:
    with pytest.raises(ValueError, match=message):
        plot_surrogate(tuned, parameter)


def test_a_space_without_order() -> None:
    study = searched(
        Space({"act": Categorical(["relu", "gelu", "tanh", "elu"])}), samplers.GP(startup=2), lambda _: 1.0, 3
    )
    with pytest.raises(ValueError, match="no parameter of the best trial has an order"):
        plot_surrogate(study)


def test_what_the_constraints_forbid_is_left_out() -> None:
    space = Space({"low": Float(0.0, 1.0), "high": Float(0.0, 1.0)}, constraints=[less_than("low", "high")])
    study = searched(space, samplers.GP(), lambda c: float(c["low"]) + float(c["high"]), 8)  # type: ignore[arg-type]
    best = study.best
    assert best is not None
    assert curve(plot_surrogate(study, "low").axes[0], "mean")[:, 0].max() < float(best.config["high"])  # type: ignore[arg-type]


def test_failed_and_running_trials_outcome_constraints_and_several_goals() -> None:
    goals = [Goal("score"), Goal("cost")]
    study = Study(LINE, goals, samplers.GP(startup=4), constraints=[Constraint("size", 8.0)], seed=2)
    jobs = study.ask(9)
    for job in jobs[:6]:
        x: Any = job.config["x"]
        study.tell(job, {"score": wave(job.config), "cost": x, "size": x})
    study.fail(jobs[6], "out of memory")
    figure = plot_surrogate(study)
    assert len(curve(figure.axes[0], "running")) == 2
    (cross,) = (line for line in figure.axes[0].get_lines() if line.get_label() == "failed")
    assert cross.get_color() == FAILED
    drawn(figure)


def test_a_study_opened_from_its_file(tmp_path: Path) -> None:
    with searched(LINE, samplers.GP(), wave, 6, store=tmp_path / "study.db") as study:
        expected = curve(plot_surrogate(study).axes[0], "mean")
    with Study.open(tmp_path / "study.db") as again:
        found = curve(plot_surrogate(again).axes[0], "mean")
    np.testing.assert_array_equal(found, expected)


def test_the_sampler_that_auto_has_picked() -> None:
    figure = plot_surrogate(searched(LINE, samplers.Auto(), wave, 6))
    assert figure.axes[0].get_title(loc="left") == "GP"
    assert any(line.get_color() == MODEL for line in figure.axes[0].get_lines())


def test_samplers_without_a_model() -> None:
    with pytest.raises(ValueError, match="Uniform has no model to draw: plot_surrogate is for GP, TPE"):
        plot_surrogate(searched(LINE, samplers.Uniform(), wave, 5))


@pytest.mark.parametrize(
    ("sampler", "trials", "message"),
    [
        (samplers.GP(), 0, "no trial of this study has a result yet"),
        (samplers.GP(), 1, "GP: the model begins with two results"),
        (samplers.TPE(startup=6), 5, "TPE: the densities begin after 6 finished trials"),
    ],
)
def test_too_few_results(sampler: Any, trials: int, message: str) -> None:
    study = searched(LINE, sampler, wave, trials) if trials else Study(LINE, Goal("score"), sampler)
    with pytest.raises(ValueError, match=message):
        plot_surrogate(study)


def test_nothing_but_equal_values() -> None:
    drawn(plot_surrogate(searched(LINE, samplers.GP(), lambda _: 0.0, 6)))
    drawn(plot_surrogate(searched(LINE, samplers.TPE(startup=4), lambda _: 0.0, 6)))
