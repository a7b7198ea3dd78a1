"""Where the steps of a study went: how many trials came to each rung, how many ended there, and what it has cost.

The rungs of a study are the steps at which its jobs ended or are to end, whatever scheduler asked for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunesmith.analysis.figures import FAILED, OTHERS, WINNER, blank, draw_curves, limits, plain, styled
from tunesmith.records import Asked
from tunesmith.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_LABELLED = 12  #: so many rungs at most have their numbers written on them


class Rung(NamedTuple):
    """What became of the trials at one rung. Those that began as forks above it are not counted.

    Attributes:
        step: the step of the rung.
        reached: trials that came to it.
        ended: those of them that have gone no further and are not in training: stopped, paused, or at their end.
        failed: trials that failed on the way to it, beyond the rung before.
        running: trials that are on the way to it, beyond the rung before, or wait to be asked again there.
        best: the best value of the first goal at this step; None where there is none.
        steps: that all trials were trained for between the rung before and this one.
        share: of the steps of all rungs.
    """

    step: int
    reached: int
    ended: int
    failed: int
    running: int
    best: float | None
    steps: int
    share: float


def rungs(study: Study) -> list[Rung]:
    """The rungs of a study in ascending order, as far as it has run; empty where nothing was asked."""
    ends = sorted({event.until for event in study.events() if isinstance(event, Asked)})
    starts = np.array([trial.start for trial in study.trials], dtype=np.int64)
    steps = np.array([trial.step for trial in study.trials], dtype=np.int64)
    status = np.array([trial.status for trial in study.trials], dtype=np.str_)
    best = _best(study, ends)
    total = int((steps - starts).sum())
    found, before = [], 0
    for step in ends:
        below = starts < step
        reached = below & (steps >= step)
        between = below & (steps >= before) & (steps < step)
        ended = int((reached & (steps == step) & ((status == "complete") | (status == "paused"))).sum())
        failed = int((between & (status == "failed")).sum())
        running = int((between & ((status == "running") | (status == "waiting"))).sum())
        spent = int(np.maximum(np.minimum(steps, step) - np.maximum(starts, before), 0).sum())
        share = spent / total if total else 0.0
        found.append(Rung(step, int(reached.sum()), ended, failed, running, best.get(step), spent, share))
        before = step
    return found


def _best(study: Study, ends: list[int]) -> dict[int, float]:
    """The best value of the first goal at each of these steps."""
    goal, wanted = study.goals[0], set(ends)
    best: dict[int, float] = {}
    for trial in study.trials:
        for step, value in zip(*trial.values(goal.metric), strict=True):
            if step in wanted and (step not in best or goal.loss(value) < goal.loss(best[step])):
                best[step] = value
    return best


@styled
def plot_rungs(study: Study) -> Figure:
    """Trials over the steps, on a logarithmic axis, and below how many came to each rung and what that has cost.

    In the upper panel every trial is a line that ends in a dot where it went no further, and in a cross where it
    failed; the winner and its ancestors are emphasised. In the lower ones are the number of trials that came to each
    rung and the share of all steps that were trained between it and the one before.

    Raises:
        ValueError: no trial has a result yet.
    """
    figure = blank(6.4, 6.0)
    curves, reached, shares = figure.subplots(3, 1, sharex=True, height_ratios=[3.0, 1.2, 1.2])
    metric = study.goals[0].metric
    curves.set(title=plain(study.name), ylabel=plain(metric), ylim=limits(draw_curves(curves, study, metric), metric))
    handles = _ends(curves, study, metric)
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    found = rungs(study)
    begin = _begin(found, curves.dataLim.x0)
    _bars(reached, found, begin, [rung.reached for rung in found])
    _bars(shares, found, begin, [100 * rung.share for rung in found])
    reached.set(ylabel="trials")
    shares.set(ylabel="% of all steps", xlabel="step", xscale="log", xlim=(begin / 1.05, 1.05 * found[-1].step))
    _ticks(shares, found)
    return figure


def _ends(axes: Axes, study: Study, metric: str) -> list[Line2D]:
    """A dot where a trial went no further, a cross where it failed. Returns what the legend has to explain."""
    looks: dict[str, Any] = {
        "went no further": {"marker": "o", "ms": 2.5, "color": OTHERS},
        "failed": {"marker": "x", "ms": 5, "mew": 1.4, "color": FAILED},
    }
    label_of = {"complete": "went no further", "paused": "went no further", "failed": "failed"}
    handles = [*axes.plot([], [], color=WINNER, lw=1.8, label="the winner and its ancestors")]
    for label, look in looks.items():
        curves = [trial.values(metric) for trial in study.trials if label_of.get(trial.status) == label]
        ends = [(steps[-1], values[-1]) for steps, values in curves if steps]
        if ends:
            handles += axes.plot(*np.array(ends).T, ls="", zorder=1, label=label, **look)
    return handles


def _begin(found: Sequence[Rung], first: float) -> float:
    """Where the first rung begins on a logarithmic axis: at the first value, and far enough before its end."""
    end = found[0].step
    return min(first, end**2 / found[1].step if len(found) > 1 else end / 2)


def _bars(axes: Axes, found: Sequence[Rung], begin: float, heights: Sequence[float]) -> None:
    """A bar for each rung, from the one before to it."""
    edges = np.array([begin, *(rung.step for rung in found)])
    bars = axes.bar(edges[:-1], heights, np.diff(edges), align="edge", color=OTHERS, edgecolor="white", lw=0.8)
    if len(found) <= _LABELLED:
        axes.bar_label(bars, [f"{height:.0f}" for height in heights], padding=1.5, fontsize=8)
    axes.margins(y=0.25)
    axes.grid(axis="x", visible=False)


def _ticks(axes: Axes, found: Sequence[Rung]) -> None:
    """The steps of the rungs, or round ones if there are many."""
    from matplotlib.ticker import FixedLocator, LogLocator, StrMethodFormatter

    few = len(found) <= _LABELLED
    steps = [rung.step for rung in found]
    axes.xaxis.set_major_locator(FixedLocator(steps) if few else LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.minorticks_off()
