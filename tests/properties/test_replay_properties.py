"""Whatever happens, a study is decided the same way again from its log."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Study, replay, samplers
from tunesmith.fold import Fold
from tunesmith.records import decode, encode
from tunesmith.schedulers import PBT, Full, Jitter, Perturb, Tournament, Truncation, TTest
from tunesmith.testing import GOAL, mixed, play, spaces

SAMPLERS = st.sampled_from([samplers.Uniform(), samplers.Grid(3), samplers.QMC(), samplers.QMC("halton")])
EXPLOIT = st.one_of(
    st.none(),
    st.just(Tournament()),
    st.builds(TTest, window=st.integers(2, 10), level=st.floats(0.01, 0.5)),
    st.builds(Truncation, st.floats(0.05, 0.5)),
)
EXPLORE = st.one_of(
    st.none(),
    st.builds(Jitter, st.floats(0.01, 0.5)),
    st.builds(Perturb, factor=st.floats(1.01, 3), resample=st.floats(0, 1)),
)
POPULATIONS = st.builds(
    PBT,
    population=st.integers(2, 8),
    ready=st.integers(1, 5),
    steps=st.integers(5, 20),
    exploit=EXPLOIT,
    explore=EXPLORE,
    inherit=st.sampled_from(["both", "weights", "hyperparameters"]),
    synchronous=st.booleans(),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sampler=SAMPLERS,
    scheduler=st.one_of(st.builds(Full, st.integers(1, 10)), POPULATIONS),
    seed=st.integers(0, 2**31),
    workers=st.integers(1, 10),
    faults=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_any_interleaving_replays(sampler: object, scheduler: object, seed: int, workers: int, faults: float) -> None:
    study = Study(mixed(), GOAL, sampler, scheduler, seed=seed)
    play(study, np.random.default_rng(seed), workers=workers, faults=faults, jobs=80)
    assert replay(study) == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(space=spaces(), seed=st.integers(0, 2**31))
def test_any_space_replays_and_its_log_round_trips(space: object, seed: int) -> None:
    study = Study(space, GOAL, samplers.QMC(), Full(4), seed=seed, trials=10)  # type: ignore[arg-type]
    play(study, np.random.default_rng(seed), faults=0.2)
    assert replay(study) == []
    events = study.events()
    assert decode(map(encode, events)) == events


@settings(max_examples=30, deadline=None, derandomize=True)
@given(scheduler=POPULATIONS, seed=st.integers(0, 1000))
def test_a_view_equals_the_state_it_was_written_from(scheduler: PBT, seed: int) -> None:
    """Folding the log for reading alone gives the trials that the deciding study has."""
    study = Study(mixed(), GOAL, samplers.Uniform(), scheduler, seed=seed)
    play(study, np.random.default_rng(seed), faults=0.2, jobs=60)
    view = Fold(deciding=False)
    for event in study.events():
        view.fold(event)
    assert [repr(trial) for trial in view.trials] == [repr(trial) for trial in study.trials]
    assert [trial.reports for trial in view.trials] == [trial.reports for trial in study.trials]
