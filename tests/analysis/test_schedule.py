from __future__ import annotations

import pytest

from tunesmith.analysis.schedule import Schedule, Segment, schedule
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
