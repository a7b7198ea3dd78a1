from __future__ import annotations

from typing import Any

import pytest

from tunesmith.analysis.schedule import Schedule, Segment, schedule
from tunesmith.records import Asked, Goal, Opened, Spec, Told
from tunesmith.space import Float, Space
from tunesmith.storage import MemoryStore
from tunesmith.study import Study


def test_the_winner_s_hyperparameters_along_its_line(family: Study) -> None:
    found = schedule(family)
    assert [(s.start, s.until, s.trial, s.config["lr"]) for s in found.segments] == [
        (0, 2, 1, 0.01),
        (2, 4, 3, 0.012),
        (4, 6, 4, 0.0144),
    ]
    assert found.steps == 6
    assert found.parameters == ["lr", "units", "batch", "act", "data"]


def test_the_schedule_of_another_trial(family: Study) -> None:
    assert [segment.trial for segment in schedule(family, 3).segments] == [1, 3]


def test_where_a_state_was_lost_the_fork_begins_where_its_training_began() -> None:
    """Trial 3 was to go on from step 4 of trial 1, of which only step 1 was left."""
    study = log(
        *two_trials(),
        started(3, 3, 0.012, 4, 6, parent=1, replaces=0),
        told(3, 3, 1, 0.4, 0.5, 0.6, 0.7, 0.8),
    )
    assert segments(study) == [(0, 1, 1), (1, 6, 3)]


def test_where_an_ancestor_was_lost_altogether_it_has_no_part_in_the_schedule() -> None:
    """Trial 4 was to go on from trial 3, and went on from trial 1; or began anew."""
    events = (
        *two_trials(),
        started(3, 3, 0.012, 2, 4, parent=1, replaces=0),
        told(3, 3, 2, 0.5, 0.6),
        started(4, 4, 0.0144, 4, 6, parent=3, replaces=0),
    )
    assert segments(log(*events, told(4, 4, 2, 0.6, 0.7, 0.8, 0.9))) == [(0, 2, 1), (2, 6, 4)]
    assert segments(log(*events, told(4, 4, 1, 0.5, 0.6, 0.7, 0.8, 0.9))) == [(0, 1, 1), (1, 6, 4)]
    assert segments(log(*events, told(4, 4, 0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))) == [(0, 6, 4)]


def test_trained_again_from_further_back() -> None:
    """Trial 3 has told step 4 already; its next job begins at an earlier state of its parent, and tells all again."""
    study = log(
        *two_trials(),
        started(3, 3, 0.012, 2, 4, parent=1, replaces=0),
        told(3, 3, 2, 0.5, 0.6),
        started(4, 3, 0.012, 4, 6),
        told(4, 3, 1, 0.5, 0.6, 0.7, 0.8, 0.9),
    )
    assert segments(study) == [(0, 1, 1), (1, 6, 3)]
    assert study.trials[3].values("accuracy")[0] == [2, 3, 4, 5, 6]


def started(ask: int, trial: int, lr: float, start: int = 0, until: int = 2, **fork: int) -> Asked:
    return Asked(ask, ask, trial, {"lr": lr}, start, until, **fork)


def told(ask: int, trial: int, start: int, *values: float) -> Told:
    return Told(ask, trial, start, {"accuracy": list(values)})


def log(*events: Any) -> Study:
    pbt = Spec("PBT", {"population": 3, "ready": 2, "steps": 6})
    store = MemoryStore()
    store.append([Opened(Space({"lr": Float(0, 1)}), (Goal("accuracy", True),), Spec("Uniform"), pbt, 0), *events])
    return Study.open(store)


def two_trials() -> tuple[Any, ...]:
    return (
        started(0, 0, 0.1),
        told(0, 0, 0, 0.1, 0.2),
        started(1, 1, 0.01, until=4),
        told(1, 1, 0, 0.3, 0.4, 0.4, 0.4),
        started(2, 2, 0.001),
        told(2, 2, 0, 0.2, 0.3),
    )


def segments(study: Study) -> list[tuple[int, int, int]]:
    return [(segment.start, segment.until, segment.trial) for segment in schedule(study).segments]


def test_as_a_function_of_the_step(family: Study) -> None:
    found = schedule(family)
    assert [found(step)["lr"] for step in range(8)] == [0.01, 0.01, 0.012, 0.012, 0.0144, 0.0144, 0.0144, 0.0144]
    assert found.at(2) == found(2)
    with pytest.raises(ValueError, match="step -1 is negative"):
        found.at(-1)


def test_the_returned_configuration_is_a_copy(family: Study) -> None:
    found = schedule(family)
    found.at(0)["lr"] = 7.0
    assert found.at(0)["lr"] == 0.01


def test_the_constant_control_holds_the_last_values(family: Study) -> None:
    constant = schedule(family).constant()
    assert [constant(step)["lr"] for step in (0, 3, 9)] == [0.0144] * 3


def test_json_round_trip(family: Study) -> None:
    found = schedule(family)
    assert Schedule.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a schedule"),
        ('{"segments": 3}', "not a schedule: .*segments"),
        ('{"segments": []}', "at least one segment"),
        ('{"segments": [{"start": 1, "until": 2, "trial": 0, "config": {}}]}', "does not follow step 0"),
        ('{"segments": [{"start": 0, "until": 0, "trial": 0, "config": {}}]}', "does not follow step 0"),
        ('{"segments": [{"start": 0, "until": 1, "trial": 0, "config": {}}], "format": 9}', "format 9"),
    ],
)
def test_bad_json(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule.from_json(text)


def test_without_a_step_there_is_no_schedule(empty: Study) -> None:
    with pytest.raises(ValueError, match="no trial of this study has a result yet"):
        schedule(empty)
    with pytest.raises(ValueError, match="trial 0 has not done a step yet"):
        schedule(empty, 0)


def test_segments_without_a_step_are_left_out() -> None:
    segments = (Segment(0, 2, 0, {"lr": 1.0}), Segment(2, 3, 1, {"lr": 2.0}))
    assert Schedule(segments).at(2) == {"lr": 2.0}
