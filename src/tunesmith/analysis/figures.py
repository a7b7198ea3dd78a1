"""Pictures of a study: each function returns a matplotlib ``Figure`` that can be saved without a display.

The colours are from Okabe and Ito's palette and the viridis map: readable with any kind of colour vision. matplotlib is
imported when the first picture is drawn, not with this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from tunesmith.analysis.lineage import Lineage, lineage
from tunesmith.analysis.schedule import Schedule
from tunesmith.errors import install, printable
from tunesmith.records import Goal
from tunesmith.space import Categorical, Config, Constant, Domain, Float, Integer, Ordinal, Space
from tunesmith.study import Study
from tunesmith.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

P = ParamSpec("P")
R = TypeVar("R")

WINNER, OTHERS, INK, FAILED = "#D55E00", "#A9B2BC", "#222222", "#CC0000"
LONGEST, LEVEL = 60, 24  #: characters of a text of the study, and of a value beside an axis
Array = NDArray[np.float64]
_STYLE: Any = {
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
    "text.usetex": False,
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw in the common style, and leave the caller's settings alone."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            from matplotlib import rc_context
        except ImportError:
            raise ImportError(f"pictures need matplotlib: {install('figures')}") from None
        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return inner


def blank(width: float, height: float) -> Figure:
    """A figure of this size in inches that keeps its parts apart."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), dpi=160, layout=ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.09))


def plain(text: object, longest: int = LONGEST) -> str:
    """A text of a study on one line, cut off where it is very long: its dollars enclose no formula, and nothing in it
    breaks an SVG.
    """
    line = printable(" ".join(str(text).split()))
    return (line if len(line) <= longest else f"{line[: longest - 1]}…").replace("$", r"\$")


def _whole_steps(axes: Axes, most: int) -> None:
    """Few round numbers on the axis of the steps."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(most, integer=True))


@styled
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
    figure = blank(0.6 + 2.7 * columns, 0.5 + 1.9 * rows)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        _schedule_panel(axes, name, schedule, domains.get(name), () if study is None else study.trials)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(names) - columns) : len(names)]:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    if study is not None and len(study.trials) > 1:
        _legend(figure, "the schedule", "all trials")
    return figure


def _legend(figure: Figure, emphasised: str, pale: str) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=WINNER, lw=2, label=emphasised),
        Line2D([], [], color=OTHERS, lw=1, label=pale),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


def _domains(space: Space) -> dict[str, Domain]:
    """All parameters by name, those of the branches included."""
    found: dict[str, Domain] = {}
    for name, domain in space.items():
        found.setdefault(name, domain)
        for branch in domain.branches if isinstance(domain, Categorical) else ():
            found.update(_domains(branch) if branch is not None else {})
    return found


def _schedule_panel(axes: Axes, name: str, schedule: Schedule, domain: Domain | None, trials: Iterable[Trial]) -> None:
    axes.set_title(plain(name, 2 * LEVEL))
    others = [trial for trial in trials if trial.step > trial.start]
    configs = [*(segment.config for segment in schedule.segments), *(trial.config for trial in others)]
    used = [config[name] for config in configs if name in config]
    labels: list[str] = []
    if isinstance(domain, (Ordinal, Categorical)) or not all(isinstance(value, (int, float)) for value in used):
        options = domain.values if isinstance(domain, Ordinal) else getattr(domain, "options", ())
        labels = list(dict.fromkeys(str(value) for value in (*options, *used)))

    def height(config: Config) -> float:
        if name not in config:
            return math.nan
        value: Any = config[name]
        return float(labels.index(str(value)) if labels else value)

    for trial in others:
        axes.plot([trial.start, trial.step], [height(trial.config)] * 2, color=OTHERS, lw=0.9, alpha=0.6)
    edges = [edge for segment in schedule.segments for edge in (segment.start, segment.until)]
    heights = [height(segment.config) for segment in schedule.segments for _ in range(2)]
    axes.plot(edges, heights, color=WINNER, lw=2.0, solid_joinstyle="round")
    if len(schedule.segments) == 1:
        axes.plot(edges[-1:], heights[-1:], "o", color=WINNER, ms=4)
    axes.set_xlim(0, schedule.steps)
    _whole_steps(axes, 5)
    if labels:
        axes.set_yticks(range(len(labels)), [plain(label, LEVEL) for label in labels])
        axes.set_ylim(-0.5, len(labels) - 0.5)
    elif isinstance(domain, (Float, Integer)):
        axes.set_yscale("log" if domain.log else "linear")
        margin = 0.04 * (domain.high - domain.low)
        around = (domain.low / 1.4, domain.high * 1.4) if domain.log else (domain.low - margin, domain.high + margin)
        axes.set_ylim(*around)


@styled
def plot_lineage(study: Study) -> Figure:
    """The family tree: a lane a place of the population, a bar a trial, coloured by the goal over the steps.

    A thin bow leads from the source of a fork, at the step of its weights, to the lane of the trial that it replaces,
    where the fork begins at the same step. The winner's line of ancestors is underlaid; a cross marks a failed trial.
    Lanes are sorted by their last value, the winner's on top. Values beyond the end of the colour bar, which it shows
    by an arrow, have the colour of that end.

    Raises:
        ValueError: no trial has a result yet.
    """
    from matplotlib.collections import LineCollection

    family, goal = lineage(study), study.goals[0]
    line = family.ancestors()
    places = _sorted_lanes(family, goal)
    y = {number: float(places[lane]) for number, lane in family.lanes.items()}
    height = min(12.0, 1.3 + 0.22 * max(4, len(places)))
    width = min(5.0, 0.45 * 72 * (height - 1.3) / max(4, len(places)))
    figure = blank(8.0, height)
    axes = figure.subplots()
    scale, beyond = _scale([value for trial in study.trials for value in trial.values(goal.metric)[1]], goal)
    reach = 0.4 * min((trial.step - trial.start for trial in study.trials if trial.step > trial.start), default=1)
    for trial, end in _stretches(line):
        axes.plot([trial.start, end], [y[trial.id]] * 2, color=WINNER, lw=width + 3.5, solid_capstyle="butt", zorder=2)
    for trial in study.trials:
        if trial.parent is not None and y[trial.parent] != y[trial.id]:
            swing = reach * abs(y[trial.parent] - y[trial.id]) / len(places)
            curve = _fork(trial.start, y[trial.parent], y[trial.id], swing)
            first = trial in line
            axes.plot(
                *curve, color=WINNER if first else INK, lw=2.0 if first else 0.6, alpha=1 if first else 0.5, zorder=4
            )
    _bars(axes, study, y, scale, width)
    figure.legend(handles=_decorate_lineage(axes, study, len(places)), loc="outside lower center", ncols=3)
    last = line[-1]
    axes.annotate(
        f"{last.last(goal.metric):.4g}", (last.step, y[last.id]), (5, 0), textcoords="offset points", va="center",
        color=WINNER, weight="bold", annotation_clip=False, bbox={"fc": "white", "ec": "none", "pad": 1.0}, zorder=6,
    )  # fmt: skip
    mappable = LineCollection([], cmap="viridis", norm=scale)
    figure.colorbar(
        mappable, ax=axes, label=plain(goal.metric), aspect=28, shrink=min(1.0, 4.0 / height), pad=0.07, extend=beyond
    )
    return figure


def _stretches(line: Sequence[Trial]) -> Iterator[tuple[Trial, int]]:
    """Every trial of a line of ancestors, and the step at which the next one took over."""
    return zip(line, [*(child.start for child in line[1:]), line[-1].step], strict=True)


def _fork(step: float, source: float, target: float, reach: float) -> tuple[Array, Array]:
    """A bow from one lane to another, both at ``step``; it swings out by ``reach`` steps, so that forks of one step can
    be told apart.
    """
    t = np.linspace(0.0, 1.0, 30)
    return step + reach * 4 * t * (1 - t), source + (target - source) * t


def _bars(axes: Axes, study: Study, y: Mapping[int, float], scale: Normalize, width: float) -> None:
    """Every trial as a bar from its start on, coloured step by step; dots where forks begin, crosses on failures."""
    from matplotlib.collections import LineCollection

    pieces: list[Any] = []
    colours: list[float] = []
    for trial in study.trials:
        steps, values = trial.values(study.goals[0].metric)
        lane = y[trial.id]
        pieces += [[(before, lane), (after, lane)] for before, after in pairwise([trial.start, *steps])]
        colours += values
    axes.add_collection(
        LineCollection(pieces, array=colours, cmap="viridis", norm=scale, lw=width, antialiased=False, zorder=3)
    )
    forks = [(trial.start, y[trial.id]) for trial in study.trials if trial.parent is not None]
    failures = [(trial.step, y[trial.id]) for trial in study.trials if trial.status == "failed"]
    dots: dict[str, Any] = {"marker": "o", "ms": 0.7 * width, "mfc": "white", "mec": INK, "mew": 0.6}
    crosses: dict[str, Any] = {"marker": "x", "ms": 1.3 * width, "mec": FAILED, "mew": 1.6, "clip_on": False}
    for points, look in ((forks, dots), (failures, crosses)):
        if points:  # an empty line that is not clipped would push the layout aside
            axes.plot(*np.array(points).T, ls="", zorder=5, **look)


def _decorate_lineage(axes: Axes, study: Study, lanes: int) -> list[Line2D]:
    """The axes and their title; returns what the legend has to explain."""
    from matplotlib.lines import Line2D

    axes.set_xlim(0, max(trial.step for trial in study.trials) * 1.01)
    axes.set_ylim(lanes - 0.4, -0.6)
    axes.grid(False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    _whole_steps(axes, 9)
    axes.set(xlabel="step", ylabel="members, the best on top", title=f"Lineage of {plain(study.name)}")
    handles = [Line2D([], [], color=WINNER, lw=4, label="ancestors of the winner")]
    if any(trial.parent is not None for trial in study.trials):
        handles.append(Line2D([], [], color=INK, lw=0.6, marker="o", ms=4, mfc="white", mew=0.6, label="fork"))
    if any(trial.status == "failed" for trial in study.trials):
        handles.append(Line2D([], [], color=FAILED, ls="", marker="x", ms=5, mew=1.6, label="failed"))
    return handles


def _sorted_lanes(family: Lineage, goal: Goal) -> dict[int, int]:
    """Lane -> place from the top."""
    scores: dict[int, float] = {}
    for number, trial in family.trials.items():  # the last trial of a lane decides
        value = None if trial.status == "failed" else trial.last(goal.metric)
        scores[family.lanes[number]] = math.inf if value is None else goal.loss(value)
    top = None if family.winner is None else family.lanes[family.winner]
    order = sorted(scores, key=lambda lane: (lane != top, scores[lane], lane))
    return {lane: place for place, lane in enumerate(order)}


@styled
def plot_curves(studies: Study | Mapping[str, Study], metric: str | None = None) -> Figure:
    """A metric over the steps for every trial, one panel a study. The winner's line of ancestors is emphasised, and
    trials that ended before others did are fainter.

    Args:
        studies: one study, or several by name, drawn side by side on a common scale.
        metric: by default the first goal of the first study.

    Raises:
        ValueError: no trial has a value of the metric.
    """
    named = {studies.name: studies} if isinstance(studies, Study) else dict(studies)
    metric = metric or next(iter(named.values())).goals[0].metric
    figure = blank(1.2 + 3.6 * len(named), 3.2)
    panels = figure.subplots(1, len(named), sharex=True, sharey=True, squeeze=False).ravel()
    everything: list[float] = []
    for axes, (name, study) in zip(panels, named.items(), strict=True):
        everything += draw_curves(axes, study, metric)
        axes.set(title=plain(name), xlabel="step")
        _whole_steps(axes, 6)
    panels[0].set(ylabel=plain(metric), ylim=limits(everything, metric))
    _legend(figure, "the winner and its ancestors", "all trials")
    return figure


def draw_curves(axes: Axes, study: Study, metric: str) -> list[float]:
    """Every trial as a pale line (a point where it has one step), a fainter one if it ended before the last step of
    all, and the winner's line of ancestors emphasised.

    Returns:
        All values, for the limits of the axis.

    Raises:
        ValueError: no trial has a result yet.
    """
    from matplotlib.collections import LineCollection

    last = max((trial.step for trial in study.trials), default=0)
    everything: list[float] = []
    faint: list[Array] = []
    pale: list[Array] = []
    for trial in study.trials:
        curve = np.column_stack(trial.values(metric)).astype(np.float64)
        everything += curve[:, 1].tolist()
        (faint if trial.step < last and trial.status in ("complete", "paused") else pale).append(curve)
    for curves, alpha in ((faint, 0.4), (pale, 0.9)):
        axes.add_collection(LineCollection(curves, colors=OTHERS, lw=0.8, alpha=alpha))
        points = [curve[0] for curve in curves if len(curve) == 1]  # a line of one point is not seen
        steps, values = np.array(points).reshape(-1, 2).T
        axes.scatter(steps, values, color=OTHERS, s=8, lw=0, alpha=alpha)
    way = [
        point
        for trial, end in _stretches(lineage(study).ancestors())
        for point in zip(*trial.values(metric), strict=True)
        if point[0] <= end
    ]
    axes.plot(*np.array(way).reshape(-1, 2).T, color=WINNER, lw=1.8, ms=5, marker="o" if len(way) == 1 else "")
    axes.autoscale_view()
    return everything


def limits(values: Sequence[float], metric: str) -> tuple[float, float]:
    """Limits of an axis that leave out the most extreme values.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError(f"no trial has a value of {metric!r}")
    low, high = np.quantile(values, [0.01, 0.99])
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin


def _scale(values: Sequence[float], goal: Goal) -> tuple[Normalize, str]:
    """Colours for the better three quarters of the values, and at which end of them there are more: the bad ones of the
    beginning all have one colour.
    """
    from matplotlib.colors import Normalize

    low, high = np.quantile(values, [0.25, 1.0] if goal.maximise else [0.0, 0.75])
    beyond = ("min" if goal.maximise else "max") if min(values) < low or max(values) > high else "neither"
    return Normalize(low, high if high > low else low + 1.0), beyond
