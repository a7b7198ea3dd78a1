"""Whatever happens, a study is decided the same way again from its log."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Space, Study, replay, samplers
from tunesmith.fold import Fold
from tunesmith.records import AnyEvent, decode, encode
from tunesmith.schedulers import Full
from tunesmith.storage import MemoryStore
from tunesmith.testing import GOAL, logs, play, populations, spaces, studies


@settings(max_examples=80, deadline=None, derandomize=True)
@given(study=studies())
def test_any_interleaving_replays(study: Study) -> None:
    assert replay(study) == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(log=logs())
def test_any_log_round_trips_and_opens(log: list[AnyEvent]) -> None:
    assert decode(map(encode, log)) == log
    store = MemoryStore()
    store.append(log)
    assert replay(Study.open(store)) == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(space=spaces(), seed=st.integers(0, 2**31))
def test_any_space_replays_and_its_log_round_trips(space: Space, seed: int) -> None:
    study = Study(space, GOAL, samplers.QMC(), Full(4), seed=seed, trials=10)
    play(study, np.random.default_rng(seed), faults=0.2)
    assert replay(study) == []
    events = study.events()
    assert decode(map(encode, events)) == events


@settings(max_examples=40, deadline=None, derandomize=True)
@given(study=studies(populations()))
def test_a_view_equals_the_state_it_was_written_from(study: Study) -> None:
    """Folding the log for reading alone gives the trials that the deciding study has."""
    view = Fold()
    for event in study.events():
        view.fold(event)
    assert [asdict(trial) for trial in view.trials] == [asdict(trial) for trial in study.trials]
    assert [trial.reports for trial in view.trials] == [trial.reports for trial in study.trials]
