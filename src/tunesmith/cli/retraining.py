"""Was the schedule the gain? Trainings from scratch with it, and with its last values held constant."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tunesmith.analysis.schedule import Schedule
from tunesmith.analysis.tables import difference
from tunesmith.cli import output, targets
from tunesmith.execution.retrain import retrain
from tunesmith.records import Goal
from tunesmith.space import Space


def compare(schedule: Schedule, goal: Goal, stored: Space, target: str, seeds: int, workers: int) -> dict[str, Any]:
    """Train the target again, ``seeds`` times in both ways. The values of options are those of the ``space`` beside it,
    where that is the stored one.
    """
    train, module = targets.load(target)
    beside = getattr(module, "space", None)
    space = beside if beside == stored else stored
    done = retrain(
        train, schedule, schedule.steps, metric=goal.metric, seeds=range(seeds), workers=0 if workers == 1 else workers,
        space=space if stored.valued else None,
    )  # fmt: skip
    with_schedule, constant = done.pairs(goal.metric)
    return {
        "metric": goal.metric,
        "maximise": goal.maximise,
        "steps": schedule.steps,
        "seeds": list(done.seeds),
        "schedule": with_schedule,
        "constant": constant,
        "difference": asdict(difference(with_schedule, constant)),
    }


def describe(found: dict[str, Any]) -> None:
    """The comparison as a person reads it."""
    columns = zip(found["seeds"], found["schedule"], found["constant"], strict=True)
    output.table([{"seed": seed, "with the schedule": a, "last values held": b} for seed, a, b in columns])
    gap = found["difference"]
    better = "higher" if found["maximise"] else "lower"
    output.line()
    output.line(
        f"{found['metric']} after {found['steps']} steps ({better} is better): the schedule makes a difference of "
        f"{gap['mean']:+.4g}, {gap['level']:.0%} interval {gap['low']:+.4g} to {gap['high']:+.4g}"
    )
