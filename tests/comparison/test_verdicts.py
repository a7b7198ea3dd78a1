"""Claims, answers and reasons."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.comparison import Verdict, better, no_worse, pays

PLACES = (np.arange(100) + 0.5) / 100
NOISE = np.random.default_rng(0).random(100)
NAMES = ("adam", "sgd")


def test_a_verdict_is_one_line():
    found = no_worse(PLACES, PLACES + 1, 8, names=NAMES)
    assert found == Verdict("with 8 trials adam is no worse than sgd", "holds", found.reason)
    assert str(found) == f"with 8 trials adam is no worse than sgd: holds ({found.reason})"
    assert found.reason.startswith("its median is worse by -1, 90% interval -1.")
    assert "at least as good with probability 1.00" in found.reason


def test_no_worse():
    assert no_worse(PLACES + 1, PLACES, 8).answer == "does not hold"
    assert no_worse(-PLACES, -PLACES - 1, 8, maximise=True).answer == "holds"
    assert no_worse(NOISE, PLACES, 4).answer == "cannot be told"
    with_margin = no_worse(NOISE, PLACES, 4, margin=0.5)
    assert with_margin.answer == "holds"
    assert with_margin.claim.endswith("by more than 0.5")
    assert no_worse([1.0] * 50, [1.0] * 50, 8).answer == "holds"  # equal, and without any noise
    assert no_worse([np.inf] * 50, PLACES, 4).answer == "does not hold"
    assert no_worse([np.inf] * 50, [np.inf] * 50, 4).answer == "holds"


def test_better():
    found = better(PLACES, PLACES + 0.5, 1, names=NAMES)
    assert found.claim == "with 1 trial adam is more often better than sgd"
    assert found.answer == "holds"
    assert found.reason.startswith("with probability 0.88, 90% interval 0.8")
    assert better(PLACES + 0.5, PLACES, 1).answer == "does not hold"
    assert better(NOISE, PLACES, 1).answer == "cannot be told"
    assert better(-PLACES, -PLACES - 0.5, 1, maximise=True).answer == "holds"


def test_pays():
    wide, narrow = PLACES, 0.2 + 0.1 * PLACES
    found = pays(wide, narrow, names=NAMES)
    assert found.answer == "holds"
    assert found.claim == "from some budget on, up to 23, adam is no worse than sgd"
    assert found.reason.startswith("from k = 3 on, 90% interval ")
    assert pays(narrow, wide).answer == "does not hold"
    assert pays(narrow, wide).reason == "at no k, 90% interval never to never"
    assert pays(NOISE, PLACES).answer == "cannot be told"


def test_beyond_what_the_trials_tell():
    for found in (no_worse(PLACES, PLACES + 1, 24), better(PLACES, PLACES + 1, 24), pays(PLACES, PLACES + 1, [1, 24])):
        assert (found.answer, found.reason) == ("cannot be told", "100 trials tell of the best of 23 at most")
    assert better([1.0, 2.0], [3.0, 4.0], 1).reason == "2 trials cannot tell"
    assert no_worse([1.0], [2.0], 5).reason == "1 trial cannot tell"


def test_what_is_refused():
    for call in (lambda: no_worse([1.0], [1.0], 1, margin=-1), lambda: pays([1.0], [1.0], margin=-1)):
        with pytest.raises(ValueError, match="margin=-1 must be at least 0"):
            call()
    for function in (no_worse, better):
        with pytest.raises(ValueError, match="k=0 must be at least 1"):
            function([1.0], [1.0], 0)
        with pytest.raises(TypeError, match=r"k=1\.5"):
            function([1.0], [1.0], 1.5)
        with pytest.raises(ValueError, match="NaN"):
            function([np.nan], [1.0], 1)
