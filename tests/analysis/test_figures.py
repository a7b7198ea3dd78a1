from __future__ import annotations

import io
from collections.abc import Callable
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.image import imread

from tunesmith import rng, samplers
from tunesmith.analysis.figures import INK, WINNER, _scale, plot_curves, plot_lineage, plot_schedule
from tunesmith.analysis.rungs import plot_rungs
from tunesmith.analysis.schedule import Schedule, Segment, schedule
from tunesmith.analysis.surrogates import plot_surrogate
from tunesmith.records import Goal
from tunesmith.schedulers import PBT, Full
from tunesmith.space import Categorical, Float, Integer, Ordinal, Space
from tunesmith.study import Study


def drawn(figure: Figure) -> None:
    """It can be written as a PNG, and not everything on it is white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    buffer.seek(0)
    assert imread(buffer).std() > 0.01


def lines(figure: Figure, colour: str) -> list:
    return [line for axes in figure.axes for line in axes.get_lines() if line.get_color() == colour]


def test_a_panel_a_parameter_that_varies(family: Study) -> None:
    figure = plot_schedule(schedule(family), family)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == ["lr", "units", "batch", "act"]
    assert (panels["lr"].get_yscale(), panels["units"].get_yscale()) == ("log", "linear")
    assert [label.get_text() for label in panels["batch"].get_yticklabels()] == ["16", "32", "64"]
    (line,) = (line for line in panels["lr"].get_lines() if line.get_color() == WINNER)
    assert list(line.get_xdata()) == [0, 2, 2, 4, 4, 6]
    assert list(line.get_ydata()) == [0.01, 0.01, 0.012, 0.012, 0.0144, 0.0144]
    drawn(figure)


def test_a_schedule_without_its_study(family: Study) -> None:
    figure = plot_schedule(schedule(family))
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()] == schedule(family).parameters
    drawn(figure)


def test_parameters_of_a_branch() -> None:
    branch = Space({"momentum": Float(0.0, 0.9)})
    space = Space({"optimizer": Categorical({"sgd": branch, "adam": None})})
    study = Study(space, Goal("loss"))
    for config in ({"optimizer": "sgd", "momentum": 0.5}, {"optimizer": "adam"}):
        study.add(config, {"loss": 1.0})
    figure = plot_schedule(schedule(study, 0), study)
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()] == ["optimizer", "momentum"]
    drawn(figure)


def test_parameters_of_a_branch_that_is_not_always_taken() -> None:
    segments = (Segment(0, 2, 0, {"optimizer": "adam"}), Segment(2, 3, 1, {"optimizer": "sgd", "style": "nesterov"}))
    drawn(plot_schedule(Schedule(segments)))


def test_values_of_before_a_migration(family: Study) -> None:
    family.change(
        space=Space({"lr": Categorical(["low", "high"]), "units": Integer(1, 64), "batch": Ordinal([64, 128])})
    )
    figure = plot_schedule(schedule(family, 3), family)
    (batch,) = (axes for axes in figure.axes if axes.get_title(loc="left") == "batch")
    assert [label.get_text() for label in batch.get_yticklabels()] == ["64", "128", "32"]
    drawn(figure)


def test_the_lineage_shows_forks_and_the_winner(family: Study) -> None:
    figure = plot_lineage(family)
    curves = {colour: [x for x in lines(figure, colour) if len(x.get_xdata()) == 30] for colour in (WINNER, INK)}
    ends = [(line.get_xdata()[-1], line.get_ydata()[0], line.get_ydata()[-1]) for line in curves[WINNER]]
    assert ends == [(2, 2, 1), (4, 1, 0)]  # from trial 1 (lane at the bottom) over 3 to 4 (on top)
    assert curves[INK] == []
    axes = figure.axes[0]
    assert "0.8" in [text.get_text() for text in axes.texts]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ancestors of the winner", "fork", "failed"]
    assert figure.axes[1].get_ylabel() == "accuracy"
    drawn(figure)


def test_the_curves_follow_the_winner_through_its_ancestors(family: Study, single: Study) -> None:
    figure = plot_curves({"PBT": family, "other": single})
    left, right = figure.axes
    assert (left.get_title(loc="left"), right.get_title(loc="left"), left.get_ylabel()) == ("PBT", "other", "accuracy")
    (line,) = (line for line in left.get_lines() if line.get_color() == WINNER)
    assert list(line.get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert list(line.get_ydata()) == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    drawn(figure)


def test_another_metric(family: Study) -> None:
    assert plot_curves(family, "test").axes[0].get_ylabel() == "test"
    with pytest.raises(ValueError, match="no trial has a value of 'speed'"):
        plot_curves(family, "speed")


def test_a_single_trial(single: Study) -> None:
    drawn(plot_lineage(single))
    drawn(plot_curves(single))
    drawn(plot_schedule(schedule(single), single))


@pytest.mark.parametrize("steps", [1, 2])
def test_a_trial_with_one_step_is_a_point(steps: int) -> None:
    study = Study(Space({"x": Float(0.0, 1.0)}), Goal("loss"), samplers.Uniform(), Full(steps))
    for value in (3.0, 1.0, 2.0):
        study.tell(study.ask(), {"loss": [value] * steps})
    figure = plot_curves(study)
    (axes,) = figure.axes
    points = sorted(point for found in axes.collections for point in np.asarray(found.get_offsets()).tolist())
    (winner,) = (line for line in axes.get_lines() if line.get_color() == WINNER)
    assert [point for point in points if point != [0.0, 0.0]] == ([[1, 1], [1, 2], [1, 3]] if steps == 1 else [])
    assert winner.get_marker() == ("o" if steps == 1 else "")
    drawn(figure)


def test_a_goal_to_minimise(minimised: Study) -> None:
    drawn(plot_lineage(minimised))
    drawn(plot_curves(minimised))


def test_without_a_result_there_is_nothing_to_draw(empty: Study) -> None:
    for plot in (plot_lineage, plot_curves):
        with pytest.raises(ValueError, match="no trial of this study has a result yet"):
            plot(empty)


def test_a_large_population() -> None:
    space = Space({"lr": Float(1e-4, 1.0, log=True)})
    study = Study(space, Goal("loss"), sampler=samplers.Uniform(), scheduler=PBT(population=64, ready=5, steps=20))
    noise = rng.stream(0, "test")
    while job := study.ask():
        study.tell(job, {"loss": (noise.random(job.until - job.start) + 1 / job.until).tolist()})
    drawn(plot_lineage(study))
    drawn(plot_schedule(schedule(study), study))


# -- what the texts and colours say ------------------------------------------------------------------------------------


def test_texts_of_a_study_are_no_formulas_and_no_code() -> None:
    r"""Dollars, braces of broken formulas, escape sequences, and what would break an SVG."""
    name = "a$\\frac{$b\x1b]0;x\x07</text>\u202e<script>"
    space = Space({name: Float(1e-4, 1.0, log=True), "$\\q$": Categorical([name, "$x^{$", 3])})
    study = Study(space, Goal(name), samplers.GP(), PBT(population=4, ready=1, steps=3), name=name)
    while job := study.ask():
        study.tell(job, {name: job.config[name] / job.until})
    figures = [
        plot_lineage(study), plot_curves(study), plot_curves({name: study, "$$": study}), plot_rungs(study),
        plot_schedule(schedule(study), study), plot_surrogate(study),
    ]  # fmt: skip
    for figure in figures:
        written = io.BytesIO()
        with rc_context({"svg.fonttype": "none"}):
            figure.savefig(written, format="svg")
        texts = [
            element.text or "" for element in fromstring(written.getvalue()).iter("{http://www.w3.org/2000/svg}text")
        ]
        assert any("a$\\frac{$b\\u001b]0;x\\u0007</text>" in text for text in texts), texts
        assert all(text.replace("\n", " ").isprintable() for text in texts)
        figure.savefig(io.BytesIO(), format="png", dpi=30)


def test_forks_leave_their_source_at_the_step_of_its_weights(family: Study) -> None:
    figure = plot_lineage(family)
    bows = [line for line in lines(figure, WINNER) if len(line.get_xdata()) == 30]
    assert [(bow.get_xdata()[0], bow.get_xdata()[-1]) for bow in bows] == [(2, 2), (4, 4)]
    assert all(min(bow.get_xdata()) == bow.get_xdata()[0] for bow in bows)


@pytest.mark.parametrize(("maximise", "end"), [(True, "min"), (False, "max")])
def test_the_colour_bar_shows_at_which_end_values_are_beyond_it(maximise: bool, end: str) -> None:
    study = Study(Space({"lr": Float(0.0, 1.0)}), Goal("score", maximise), samplers.Uniform(), Full(20))
    study.tell(study.ask(), {"score": list(map(float, range(20)))})
    assert _scale(list(map(float, range(20))), study.goals[0])[1] == end
    assert _scale([1.0, 1.0], study.goals[0])[1] == "neither"
    bars = [axes for axes in plot_lineage(study).axes if axes.get_label() == "<colorbar>"]
    assert bars[0]._colorbar.extend == end


@pytest.mark.parametrize("plot", [plot_lineage, plot_rungs])
def test_titles_and_legends_are_apart(plot: Callable[[Study], Figure], family: Study) -> None:
    family.name = "a name that is much longer than anyone would give a study, " * 3
    figure = plot(family)
    figure.draw_without_rendering()
    title = next(axes for axes in figure.axes if axes.get_title(loc="left"))._left_title.get_window_extent()
    legend = figure.legends[0].get_window_extent()
    assert not title.overlaps(legend) and title.x1 <= figure.bbox.x1
