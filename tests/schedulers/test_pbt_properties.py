"""Whatever happens, every kind of population is decided the same way again from its log."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Study, replay
from tunesmith.schedulers import FIRE, MFPBT, PB2, PBT, Backtrack, Jitter, Perturb, Tournament, Truncation, TTest
from tunesmith.testing import studies

_COMMON = {
    "ready": st.integers(1, 4),
    "steps": st.integers(4, 16),
    "explore": st.sampled_from([None, Perturb(resample=0.2), Jitter(0.2), PB2(window=12)]),
    "synchronous": st.booleans(),
}
KINDS = st.one_of(
    st.builds(
        PBT,
        population=st.integers(2, 7),
        exploit=st.sampled_from([None, Truncation(0.4), Tournament(), TTest(window=3, level=0.4)]),
        inherit=st.sampled_from(["both", "weights", "hyperparameters"]),
        backtrack=st.builds(Backtrack, rungs=st.integers(1, 3), times=st.integers(1, 3)),
        **_COMMON,
    ),
    st.builds(
        MFPBT,
        population=st.integers(6, 12),
        frequencies=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
        **_COMMON,
    ),
    st.builds(FIRE, population=st.integers(6, 12), span=st.integers(1, 3), evaluators=st.integers(1, 2), **_COMMON),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(study=studies(KINDS))
def test_any_interleaving_replays(study: Study) -> None:
    assert replay(study) == []
