from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import imread

from tunesmith import Float, Goal, Space, Study, samplers
from tunesmith.analysis.figures import FAILED, OTHERS, WINNER, plot_curves
from tunesmith.analysis.rungs import Rung, plot_rungs, rungs
from tunesmith.schedulers import Full, Median
from tunesmith.testing import GOAL, mixed, play

SPACE = Space({"x": Float(0.0, 1.0)})


def stopped() -> Study:
    """Ten trials of which four are stopped at step 4; the last one fails after it."""
    study = Study(
        SPACE, Goal("loss"), sampler=samplers.Uniform(), scheduler=Median(16, every=4, min_trials=2), trials=10
    )
    while (job := study.ask()) is not None:
        if job.trial == 9 and job.start == 4:
            study.fail(job, "on purpose")
            continue
        level = 1.0 if job.trial in (0, 1, 2, 5, 6, 9) else 9.0
        study.tell(job, {"loss": [level + 1 / step for step in range(job.start + 1, job.until + 1)]})
    return study


def drawn(figure: Figure) -> list[Axes]:
    """The panels of a figure that can be written as a PNG, and is not all white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    buffer.seek(0)
    assert imread(buffer).std() > 0.01
    return figure.axes


def test_rungs_of_a_stopping_rule() -> None:
    found = rungs(stopped())
    assert [(rung.step, rung.reached, rung.ended, rung.failed) for rung in found] == [
        (4, 10, 4, 0),
        (8, 5, 0, 1),
        (12, 5, 0, 0),
        (16, 5, 5, 0),
    ]
    assert [rung.steps for rung in found] == [40, 20, 20, 20]
    assert [rung.share for rung in found] == pytest.approx([0.4, 0.2, 0.2, 0.2])
    assert [rung.best for rung in found] == [1.25, 1.125, 1 + 1 / 12, 1.0625]


def test_forks_count_from_where_they_began(family: Study) -> None:
    assert rungs(family) == [
        Rung(2, reached=3, ended=1, failed=0, running=0, best=0.4, steps=6, share=6 / 16),
        Rung(4, reached=3, ended=1, failed=0, running=0, best=0.6, steps=6, share=6 / 16),
        Rung(6, reached=2, ended=2, failed=1, running=0, best=0.8, steps=4, share=4 / 16),
    ]


def test_trials_in_training() -> None:
    study = Study(SPACE, Goal("loss"), sampler=samplers.Uniform(), scheduler=Full(10), trials=4)
    jobs = [study.ask() for _ in range(4)]
    study.tell(jobs[0], {"loss": 1.0}, step=4)
    study.fail(jobs[1], "vanished", "lost")
    study.fail(jobs[2], "on purpose")
    study.tell(jobs[3], {"loss": [2.0] * 10})
    assert rungs(study) == [Rung(10, reached=1, ended=1, failed=1, running=2, best=2.0, steps=14, share=1.0)]


def test_every_trial_is_somewhere() -> None:
    """Every trial that began at 0 has ended at a rung, failed before one, or is on its way to one."""
    for seed in range(5):
        study = Study(
            mixed(), GOAL, sampler=samplers.Uniform(), scheduler=Median(10, every=3, min_trials=2), trials=40, seed=seed
        )
        play(study, np.random.default_rng(seed), faults=0.2, jobs=80)
        found = rungs(study)
        assert sum(rung.ended + rung.failed + rung.running for rung in found) == len(study.trials)
        assert sum(rung.steps for rung in found) == sum(trial.step for trial in study.trials)
        assert sum(rung.share for rung in found) == pytest.approx(1.0)


def test_nothing_was_asked(empty: Study) -> None:
    assert rungs(Study(SPACE, Goal("loss"))) == []
    assert rungs(empty) == [Rung(2, reached=0, ended=0, failed=0, running=1, best=None, steps=0, share=0.0)]
    for study in (Study(SPACE, Goal("loss")), empty):
        with pytest.raises(ValueError, match="no trial of this study has a result yet"):
            plot_rungs(study)


def test_the_picture_of_the_rungs() -> None:
    figure = plot_rungs(stopped())
    curves, reached, shares = drawn(figure)
    heights = [[bar.get_height() for bar in axes.patches] for axes in (reached, shares)]
    assert heights[0] == [10, 5, 5, 5]
    assert heights[1] == pytest.approx([40, 20, 20, 20])
    assert [text.get_text() for text in shares.texts] == ["40", "20", "20", "20"]
    assert shares.get_xscale() == "log" and list(shares.get_xticks()) == [4, 8, 12, 16]
    lines = {line.get_color(): line for line in curves.get_lines() if len(line.get_xdata())}
    assert list(lines[WINNER].get_xdata()) == list(range(1, 17))
    assert sorted(lines[OTHERS].get_xdata()) == [4] * 4 + [16] * 5 and lines[OTHERS].get_marker() == "o"
    assert list(lines[FAILED].get_xdata()) == [4] and lines[FAILED].get_marker() == "x"
    assert [text.get_text() for text in figure.legends[0].get_texts()][1:] == ["went no further", "failed"]


def test_pictures_of_few_and_of_many_rungs(family: Study, single: Study, minimised: Study) -> None:
    for study in (family, single, minimised):
        drawn(plot_rungs(study))
    study = Study(mixed(), GOAL, sampler=samplers.Uniform(), scheduler=Median(40, min_trials=2), trials=20)
    play(study, np.random.default_rng(0), faults=0.02, jobs=1000)
    _, reached, shares = drawn(plot_rungs(study))
    assert len(reached.patches) == 40 and not reached.texts
    assert {1.0, 10.0} <= set(shares.get_xticks())


def test_curves_of_stopped_trials_are_faint() -> None:
    (axes,) = drawn(plot_curves(stopped()))
    faint, pale = (one for one in axes.collections if isinstance(one, LineCollection))
    assert (len(faint.get_segments()), len(pale.get_segments())) == (4, 6)  # the failed one was not stopped
    assert faint.get_alpha() < pale.get_alpha()
