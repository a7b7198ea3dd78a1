"""The picture of a sampler's model along one parameter, and of what it looks for the maximum of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunesmith import samplers
from tunesmith.analysis.figures import FAILED, INK, LEVEL, OTHERS, WINNER, Array, blank, plain, styled
from tunesmith.records import Goal
from tunesmith.samplers.base import View
from tunesmith.space import Categorical, Config, Domain, Ordinal, Space
from tunesmith.study import Study
from tunesmith.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODEL, WORSE = "#0072B2", "#8A949E"
POINTS = 401  #: at which the model is asked along the parameter; fewer where it has fewer levels
FEW = 64  #: levels up to which each is marked
MARGIN = 0.35  #: of the observations' range that is shown below and above them


class Line(NamedTuple):
    """Points that differ in one column alone.

    Attributes:
        name: of the parameter.
        column: its index.
        domain: of the parameter.
        points: [n, d] in the unit cube.
        x: [n], the parameter's values; of an ordinal the positions of its values.
    """

    name: str
    column: int
    domain: Domain
    points: Array
    x: Array

    def place(self, config: Config) -> float:
        """Where a configuration stands on the axis."""
        value: Any = config[self.name]
        return float(self.domain.values.index(value) if isinstance(self.domain, Ordinal) else value)


@styled
def plot_surrogate(study: Study, parameter: str | None = None, points: int = POINTS) -> Figure:
    """What the sampler's model says along one parameter, and its acquisition function.

    Above: the trials, with the mean and the 95% interval of a Gaussian process (of the first goal, without noise), or
    with TPE's densities of the better trials and the rest. Below: what the sampler looks for the maximum of. With one
    parameter a Gaussian process tries that maximum next, and TPE the best of some draws around it. With several
    parameters the others are held at the best trial's values, and pale trials lie off this line.

    Args:
        study: also one opened from a file; its sampler is a model's (`GP`, `TPE`, `Auto`, or one with a `view`).
        parameter: a number or an ordinal that is active in the best trial; by default the first one.
        points: at which the model is asked.

    Raises:
        ValueError: the sampler has no model, or none yet; no trial has a result; the parameter is not there, not active
            in the best trial, or has no order.
    """
    sampler, state, rng = study.sampling()
    if isinstance(sampler, samplers.Auto):
        sampler, state = sampler.in_charge(state)
    name = type(sampler).__name__
    if not hasattr(sampler, "view"):
        raise ValueError(f"{name} has no model to draw: plot_surrogate is for GP, TPE and other samplers with a `view`")
    best = study.best
    if best is None:
        raise ValueError("no trial of this study has a result yet: there is no model")
    line = _line(study.space, best.config, parameter, points)
    allowed = np.array([study.space.allows(point) for point in line.points], dtype=np.bool_)
    line = line._replace(points=line.points[allowed], x=line.x[allowed])
    view = sampler.view(state, line.points, rng)
    figure = blank(6.4, 4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    several = len(study.space.columns) > 1
    above.set_title(f"{name}, the other parameters as in trial {best.id}" if several else name)
    above.set_ylabel(plain(study.goals[0].metric))
    _trials(above, line, [trial for trial in study.trials if study.space.contains(trial.config)], study)
    if "mean" in view.curves:
        _regression(above, line, view, study.goals[0])
    else:
        _densities(above.twinx(), line, view)
    _acquisition(below, line, view)
    _axis(below, line)
    above.axvline(line.x[np.argmax(view.acquisition)], color=WINNER, lw=1.0, ls="--", zorder=1)
    handles = [handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


# -- the line ---------------------------------------------------------------------------------------------------------


def _line(space: Space, best: Config, parameter: str | None, count: int) -> Line:
    """Points along one parameter through the best configuration."""
    through = space.encode(best)
    j = _column(space, through, parameter)
    name = space.columns[j].name
    points = np.tile(through, (count, 1))
    points[:, j] = np.linspace(0.0, 1.0, count)
    points = space.snap(points)
    points = points[np.unique(points[:, j], return_index=True)[1]]
    domain = _domain(space, best, name)
    assert domain is not None
    line = Line(name, j, domain, points, np.empty(0))
    return line._replace(x=np.array([line.place(space.decode(point)) for point in points]))


def _column(space: Space, best: Array, parameter: str | None) -> int:
    """The index of the parameter's column that is active in the best trial."""
    columns = space.columns
    active = [j for j in range(len(columns)) if not np.isnan(best[j])]
    if parameter is None:
        ordered = [j for j in active if columns[j].kind != "unordered"]
        if not ordered:
            raise ValueError("no parameter of the best trial has an order: there is no line along it")
        return ordered[0]
    names = list(dict.fromkeys(column.name for column in columns))
    if parameter not in names:
        raise ValueError(f"no parameter {parameter!r} varies in this study; there are {', '.join(names)}")
    found = [j for j in active if columns[j].name == parameter]
    if not found:
        raise ValueError(f"parameter {parameter!r} is not active in the best trial: its branch was not taken there")
    if columns[found[0]].kind == "unordered":
        raise ValueError(f"parameter {parameter!r} has no order: there is no line along it")
    return found[0]


def _domain(space: Space, config: Config, name: str) -> Domain | None:
    """The domain of a parameter in the branches that a configuration takes."""
    for other, domain in space.items():
        if other == name:
            return domain
        if isinstance(domain, Categorical) and domain.branches:
            branch = domain.branches[domain.options.index(config[other])]
            if branch is not None and (found := _domain(branch, config, name)) is not None:
                return found
    return None


# -- the panels -------------------------------------------------------------------------------------------------------


def _trials(axes: Axes, line: Line, trials: Sequence[Trial], study: Study) -> None:
    """The trials that have the parameter: their latest values, where they are running, where they failed."""
    here = [trial for trial in trials if trial.parent is None and line.name in trial.config]
    here = [trial for trial in here if not np.isnan(study.space.encode(trial.config)[line.column])]
    metric = study.goals[0].metric
    told = [(trial, value) for trial in here if trial.status != "failed" and (value := trial.last(metric)) is not None]
    others = np.delete(line.points[0], line.column)
    for on_line, look in ((False, OTHERS), (True, INK)):
        chosen = [
            (line.place(trial.config), value) for trial, value in told
            if np.allclose(np.delete(study.space.encode(trial.config), line.column), others, equal_nan=True) == on_line
        ]  # fmt: skip
        label = "trials" if on_line else "trials off the line"
        if chosen:
            axes.plot(*np.array(chosen).T, "o", ms=4.5, mfc=look, mec="white", mew=0.5, label=label, zorder=5)
    values = np.array([value for _, value in told])
    low, high = values.min(), values.max()
    margin = MARGIN * ((high - low) or abs(high) or 1.0)
    axes.set_ylim(low - margin, high + margin)
    for status, marker, colour in (("failed", "x", FAILED), ("running", "^", MODEL)):
        places = [line.place(trial.config) for trial in here if trial.status == status]
        if places:
            at = axes.get_xaxis_transform()
            axes.plot(places, [0.03] * len(places), marker, ms=5, color=colour, transform=at, label=status, zorder=5)


def _regression(axes: Axes, line: Line, view: View, goal: Goal) -> None:
    """The mean and its interval, in the units of the metric."""
    sign = -1.0 if goal.maximise else 1.0
    mean, low, high = (sign * view.curves[name] for name in ("mean", "low", "high"))
    axes.fill_between(line.x, low, high, color=MODEL, alpha=0.18, lw=0, label="95% interval", zorder=2)
    axes.plot(line.x, mean, color=MODEL, lw=1.6, label="mean", zorder=3, **_marks(line))


def _densities(axes: Axes, line: Line, view: View) -> None:
    """The densities of the better trials and of the rest, on an axis of their own."""
    for name, colour in (("better", MODEL), ("worse", WORSE)):
        axes.plot(line.x, view.curves[name], color=colour, lw=1.6, label=f"density of the {name}", **_marks(line))
        axes.fill_between(line.x, view.curves[name], color=colour, alpha=0.12, lw=0)
    axes.set_ylim(0.0, 1.1 * max(values.max() for values in view.curves.values()))
    axes.set_ylabel("density")
    axes.grid(False)
    axes.spines["right"].set_visible(True)


def _acquisition(axes: Axes, line: Line, view: View) -> None:
    """The acquisition function and its maximum."""
    values = view.acquisition
    best = int(np.argmax(values))
    axes.plot(line.x, values, color=INK, lw=1.3, **_marks(line))
    axes.fill_between(line.x, values, values.min(), color=INK, alpha=0.1, lw=0)
    axes.axvline(line.x[best], color=WINNER, lw=1.0, ls="--", zorder=1)
    axes.plot(line.x[best], values[best], "v", ms=7, color=WINNER, label="maximum", clip_on=False, zorder=5)
    axes.set_ylabel("acquisition")


def _marks(line: Line) -> dict[str, Any]:
    """Markers on the few levels that a parameter has."""
    return {"marker": "o", "ms": 3} if len(line.x) <= FEW else {}


def _axis(axes: Axes, line: Line) -> None:
    """The parameter's own scale."""
    axes.set_xlabel(plain(line.name))
    if isinstance(line.domain, Ordinal):
        axes.set_xticks(range(len(line.domain.values)), [plain(value, LEVEL) for value in line.domain.values])
    elif getattr(line.domain, "log", False):
        axes.set_xscale("log")
