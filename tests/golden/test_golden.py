"""Logs that were written once are decided the same way for ever, and read by every later version."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tunesmith import Study, replay
from tunesmith.records import Asked, decode, encode
from tunesmith.storage import MemoryStore
from tunesmith.testing import play

HERE = Path(__file__).parent
LOGS = sorted(HERE.glob("*.jsonl"))
OLD = sorted((HERE / "format-1").glob("*.jsonl"))  # by a version that decided otherwise


def test_there_are_logs() -> None:
    assert len(LOGS) >= 13 and len(OLD) >= 13


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_golden(log: Path) -> None:
    lines = log.read_bytes().splitlines()
    events = decode(lines)
    assert list(map(encode, events)) == lines
    store = MemoryStore()
    store.append(events)
    study = Study.open(store)
    assert sum(isinstance(event, Asked) for event in events) >= 10
    assert replay(study, tolerance=1e-9) == []


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_a_log_that_was_tampered_with_is_noticed(log: Path) -> None:
    """Replay can fail: one changed number is a difference, or a log that makes no sense."""
    events = decode(log.read_bytes().splitlines())
    index = max(i for i, event in enumerate(events) if isinstance(event, Asked) and "added" not in event.tags)
    store = MemoryStore()
    text = encode(events[index])
    until = events[index].until  # type: ignore[union-attr]
    tampered = decode([text.replace(f'"until":{until}'.encode(), f'"until":{until + 1}'.encode())])
    store.append([*events[:index], *tampered, *events[index + 1 :]])
    differences = replay(Study.open(store))
    assert [difference.field for difference in differences] == ["until"]


@pytest.mark.parametrize("log", OLD, ids=lambda log: log.stem)
def test_a_study_of_an_old_version_is_read_and_goes_on(log: Path) -> None:
    events = decode(log.read_bytes().splitlines())
    store = MemoryStore()
    store.append(events)
    study = Study.open(store, trials=100)
    asked = {event.trial: event.config for event in events if isinstance(event, Asked)}
    assert {trial.id: trial.asked for trial in study.trials} == asked
    done = not study.running and study.scheduler.members is not None  # of its populations every one has come to its end
    jobs = play(study, np.random.default_rng(0), jobs=20)
    assert jobs == 0 if done or log.stem == "grid" else jobs == 20
    again = Study.open(store, trials=100)
    assert [asdict(trial) for trial in again.trials] == [asdict(trial) for trial in study.trials]
