"""Pictures of a study: each function returns a matplotlib ``Figure`` that can be saved without a display.

The colours are from Okabe and Ito's palette and the viridis map: readable with any kind of colour vision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tunesmith.analysis.lineage import Lineage, lineage
from tunesmith.analysis.schedule import Schedule
from tunesmith.records import Goal
from tunesmith.space import Categorical, Constant, Domain, Float, Integer, Ordinal, Scalar, Space
from tunesmith.study import Study
from tunesmith.trials import Trial

WINNER, OTHERS, INK = "#D55E00", "#A9B2BC", "#222222"
_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8EAED",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "savefig.dpi": 160,
}


@rc_context(_STYLE)
def plot_schedule(schedule: Schedule, study: Study | None = None) -> Figure:
    """The hyperparameters of a schedule over the steps, one panel a parameter.

    Args:
        schedule: from `tunesmith.analysis.schedule`.
        study: where it comes from: gives the scales (a log parameter has a log axis) and the other trials as a pale
            background. Parameters that cannot vary are left out.
    """
    domains = {} if study is None else _domains(study.space)
    varying = [name for name in schedule.parameters if not isinstance(domains.get(name), Constant)]
    names = varying or schedule.parameters
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(0.6 + 2.7 * columns, 0.5 + 1.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        _schedule_panel(axes, name, schedule, domains.get(name), () if study is None else study.trials)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(names) - columns) : len(names)]:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    return figure


def _domains(space: Space) -> dict[str, Domain]:
    """All parameters by name, those of the branches included."""
    found: dict[str, Domain] = {}
    for name, domain in space.items():
        found.setdefault(name, domain)
        for branch in domain.branches if isinstance(domain, Categorical) else ():
            found.update(_domains(branch) if branch is not None else {})
    return found


def _schedule_panel(
    axes: Axes, name: str, schedule: Schedule, domain: Domain | None, trials: Iterable[Trial]
) -> None:
    axes.set_title(name)
    values = [segment.config.get(name) for segment in schedule.segments]
    others = [trial for trial in trials if name in trial.config and trial.step > trial.start]
    labels: list[Scalar] = []
    if isinstance(domain, (Ordinal, Categorical)):
        labels = list(domain.values if isinstance(domain, Ordinal) else domain.options)
    elif not all(value is None or isinstance(value, (int, float)) for value in values):
        labels = list(dict.fromkeys(value for value in values if value is not None))

    def height(value: Scalar) -> float:
        return float(labels.index(value)) if labels else math.nan if value is None else float(value)

    for trial in others:
        axes.plot([trial.start, trial.step], [height(trial.config[name])] * 2, color=OTHERS, lw=0.7, alpha=0.6)
    edges = [edge for segment in schedule.segments for edge in (segment.start, segment.until)]
    heights = [height(value) for value in values for _ in range(2)]
    axes.plot(edges, heights, color=WINNER, lw=2.0, solid_joinstyle="round")
    if len(schedule.segments) == 1:
        axes.plot(edges[-1:], heights[-1:], "o", color=WINNER, ms=4)
    axes.set_xlim(0, schedule.steps)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if labels:
        axes.set_yticks(range(len(labels)), [str(label) for label in labels])
        axes.set_ylim(-0.5, len(labels) - 0.5)
    elif isinstance(domain, (Float, Integer)):
        axes.set_yscale("log" if domain.log else "linear")
        margin = 0.0 if domain.log else 0.04 * (domain.high - domain.low)
        axes.set_ylim(domain.low - margin, domain.high + margin)


@rc_context(_STYLE)
def plot_lineage(study: Study) -> Figure:
    """The family tree: a lane a place of the population, a line a trial, coloured by the goal over the steps.

    Thin vertical lines are forks, from the lane of the source to the lane of the one it replaces. The winner's line of
    ancestors is underlaid; a cross marks a failed trial. Lanes are sorted by their last value, the best on top.

    Raises:
        ValueError: no trial has a result yet.
    """
    family, goal = lineage(study), study.goals[0]
    line = family.ancestors()
    places = _sorted_lanes(family, goal)
    figure = Figure(figsize=(8.0, min(12.0, 1.3 + 0.24 * max(3, len(places)))), layout="constrained")
    axes = figure.subplots()
    y = {number: places[lane] for number, lane in family.lanes.items()}
    scale = _scale([value for trial in study.trials for value in _curve(trial, goal.metric)[1]], goal)
    width = 4.5 if len(places) <= 24 else 2.5
    _ancestry(axes, line, y, width)
    for trial in study.trials:
        steps, values = _curve(trial, goal.metric)
        if trial.parent is not None and trial.parent != trial.replaces and trial not in line:
            axes.plot([trial.start] * 2, [y[trial.parent], y[trial.id]], color=INK, lw=0.6, alpha=0.45, zorder=1)
        if len(values):
            edges = np.concatenate([[trial.start], steps])
            points = np.column_stack([edges, np.full(len(edges), y[trial.id])])
            pieces = np.stack([points[:-1], points[1:]], axis=1)
            axes.add_collection(LineCollection(list(pieces), array=values, cmap="viridis", norm=scale, lw=width, zorder=3))
        if trial.status == "failed":
            axes.plot(trial.step, y[trial.id], "x", color="#CC0000", ms=6, mew=1.6, zorder=5)
    axes.set_xlim(0, max(trial.step for trial in study.trials) * 1.01)
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.grid(False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="step", ylabel="members, the best on top", title=f"Lineage of {study.name}")
    last = line[-1]
    axes.annotate(
        f" {last.last(goal.metric):.4g}", (last.step, y[last.id]), va="center", color=WINNER, weight="bold",
        annotation_clip=False,
    )  # fmt: skip
    mappable = LineCollection([], cmap="viridis", norm=scale)
    mappable.set_array([])
    figure.colorbar(mappable, ax=axes, label=goal.metric, aspect=30, pad=0.06, extend="both")
    return figure


def _ancestry(axes: Axes, line: Sequence[Trial], y: Mapping[int, int], width: float) -> None:
    """The winner's way through the lanes, as one wide line below the trials."""
    path: list[tuple[float, float]] = []
    for trial, end in zip(line, [*(child.start for child in line[1:]), line[-1].step], strict=True):
        path += [(trial.start, y[trial.id]), (end, y[trial.id])]
    xs, ys = zip(*path, strict=True)
    axes.plot(xs, ys, color=WINNER, lw=width + 4.0, solid_joinstyle="round", solid_capstyle="butt", zorder=2)
    handles = [
        Line2D([], [], color=WINNER, lw=4, label="ancestors of the winner"),
        Line2D([], [], color=INK, lw=0.6, alpha=0.6, label="fork"),
    ]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.1)


def _sorted_lanes(family: Lineage, goal: Goal) -> dict[int, int]:
    """Lane -> place from the top."""
    scores: dict[int, float] = {}
    for number, trial in family.trials.items():  # the last trial of a lane decides
        value = None if trial.status == "failed" else trial.last(goal.metric)
        scores[family.lanes[number]] = math.inf if value is None else goal.loss(value)
    top = None if family.winner is None else family.lanes[family.winner]
    order = sorted(scores, key=lambda lane: (lane != top, scores[lane], lane))
    return {lane: place for place, lane in enumerate(order)}


@rc_context(_STYLE)
def plot_curves(studies: Study | Mapping[str, Study], metric: str | None = None) -> Figure:
    """A metric over the steps for every trial, one panel a study, the winner's line of ancestors emphasised.

    Args:
        studies: one study, or several by name, drawn side by side on a common scale.
        metric: by default the first goal of the first study.

    Raises:
        ValueError: no trial has a value of the metric.
    """
    named = {studies.name: studies} if isinstance(studies, Study) else dict(studies)
    metric = metric or next(iter(named.values())).goals[0].metric
    figure = Figure(figsize=(1.2 + 3.6 * len(named), 3.2), layout="constrained")
    panels = figure.subplots(1, len(named), sharex=True, sharey=True, squeeze=False).ravel()
    everything: list[float] = []
    for axes, (name, study) in zip(panels, named.items(), strict=True):
        line = lineage(study).ancestors()
        for trial in study.trials:
            steps, values = _curve(trial, metric)
            axes.plot(steps, values, color=OTHERS, lw=0.8, alpha=0.75)
            everything += values.tolist()
        for trial, end in zip(line, [*(child.start for child in line[1:]), line[-1].step], strict=True):
            steps, values = _curve(trial, metric)
            axes.plot(steps[steps <= end], values[steps <= end], color=WINNER, lw=1.8)
        axes.set(title=name, xlabel="step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if not everything:
        raise ValueError(f"no trial has a value of {metric!r}")
    low, high = np.quantile(everything, [0.01, 0.99])
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    panels[0].set(ylabel=metric, ylim=(low - margin, high + margin))
    handles = [Line2D([], [], color=WINNER, lw=2, label="the winner and its ancestors"),
               Line2D([], [], color=OTHERS, lw=1, label="all trials")]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _curve(trial: Trial, metric: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Steps and values of a metric of one trial."""
    steps, values = trial.values(metric)
    return np.array(steps), np.array(values)


def _scale(values: Sequence[float], goal: Goal) -> Normalize:
    """Colours for the better half of the values and a little more: the bad ones of the beginning are all dark."""
    low, high = np.quantile(values, [0.25, 1.0] if goal.maximise else [0.0, 0.75])
    return Normalize(low, high if high > low else low + 1.0)
