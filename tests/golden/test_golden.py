"""Logs that were written once are decided the same way for ever, and read by every later version."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith import Study, replay
from tunesmith.records import Asked, decode, encode
from tunesmith.storage import MemoryStore

LOGS = sorted(Path(__file__).parent.glob("*.jsonl"))


def test_there_are_logs() -> None:
    assert len(LOGS) >= 13


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
