"""``kill -9`` of the driver in the middle of long jobs costs what lies since the newest saved state, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith import Study
from tunesmith.records import Asked, Told
from tunesmith.testing._victim import Plan
from tunesmith.testing.chaos import Fault, Schedule, carry_out


def starts_of_retries(study: Study) -> list[int]:
    """Where jobs that were asked again went on."""
    starts, again = [], set[int]()
    for event in study.events():
        if isinstance(event, Asked) and "retry" in event.tags:
            again.add(event.trial)
        elif isinstance(event, Told) and event.trial in again:
            again.remove(event.trial)
            starts.append(event.start)
    return starts


@pytest.mark.parametrize(
    ("task", "scheduler", "workers"),
    [
        ("generator", "Full", 1),
        ("function", "Full", 2),
        ("class", "Full", 1),
        ("command", "Full", 1),
        ("command", "Full", 2),
        ("vectorised", "synchronous PBT", 1),
    ],
)
def test_a_kill_in_a_long_job(task: str, scheduler: str, workers: int, tmp_path: Path) -> None:
    """The checks of chaos say of every job that it went on from its newest state; a job of ``Full`` begins at 0."""
    plan = Plan(task, scheduler, "Uniform", "one", 5, workers, "3 steps", 0, nap=0.02)
    moments = (10, 14, 18, 22) if task == "vectorised" else (8, 8, 8, 8)  # there steps are timed before the training
    carry_out(Schedule(0, workers, plan, tuple(Fault("kill", steps, 0.0) for steps in moments)), tmp_path)
    with Study.open(tmp_path / "study" / "study.db") as study:
        starts = starts_of_retries(study)
        assert any(start > 0 for start in starts), starts
        assert max(trial.step for trial in study.trials) == (12 if scheduler == "Full" else 16)
