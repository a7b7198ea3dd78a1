"""The history: what was asked and told, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import Categorical, Constraint, Fidelity, Float, Goal, Integer, Prior, Space
from tunesmith.pareto import order
from tunesmith.records import Asked, Failed, Told
from tunesmith.samplers import base
from tunesmith.samplers._prior import draw, log_marginal, log_prior
from tunesmith.samplers.base import FAILED, OBSERVED, PENDING, History, places
from tunesmith.samplers.qmc import design

SPACE = Space({"x": Float(0.0, 1.0), "kind": Categorical({"a": None, "b": Space({"y": Float(0.0, 1.0)})})})
A, B = {"x": 0.25, "kind": "a"}, {"x": 0.5, "kind": "b", "y": 0.75}


def history() -> History:
    return History(SPACE, [Goal("score", maximise=True)], [Constraint("seconds", 2.0)])


def test_rows_in_the_order_of_asking() -> None:
    past = history()
    for trial, config in enumerate([A, B]):
        assert past.tell(Asked(trial, 0, trial, config, 0, 4)) == trial
    np.testing.assert_array_equal(past.points, [[0.25, 0.25, np.nan], [0.5, 0.75, 0.75]])
    assert past.tell(Told(1, 1, 0, {"score": [1.0, 2.0], "seconds": [1.0, 1.0]})) is None  # not there yet
    assert past.status.tolist() == [PENDING, PENDING] and np.isnan(past.losses).all()
    assert past.tell(Told(1, 1, 2, {"score": [3.0, 4.0], "seconds": [1.0, 5.0]})) == 1
    assert past.status.tolist() == [PENDING, OBSERVED]
    assert past.losses[1] == -4.0 and past.excess[1] == 3.0 and past.steps[1] == 4
    assert past.tell(Failed(0, 0, "broken")) == 0
    assert past.status.tolist() == [FAILED, OBSERVED]


def test_trials_of_one_configuration_share_a_row() -> None:
    past = history()
    for trial in range(3):
        past.tell(Asked(trial, 0, trial, A, 0, 1))
    for trial, value in enumerate([1.0, 3.0]):
        past.tell(Told(trial, trial, 0, {"score": [value], "seconds": [value]}))
    past.tell(Failed(2, 2, "broken"))
    assert past.size == 1 and past.losses[0] == -2.0 and past.excess[0] == 0.0 and past.counts[0] == 2
    assert past.status[0] == OBSERVED


def test_a_resumed_trial_counts_at_its_last_step() -> None:
    past = history()
    past.tell(Asked(0, 0, 0, A, 0, 1))
    past.tell(Told(0, 0, 0, {"score": [1.0], "seconds": [1.0]}))
    past.tell(Asked(1, 0, 0, A, 1, 3))
    assert past.status[0] == OBSERVED and past.losses[0] == -1.0
    past.tell(Told(1, 0, 1, {"score": [2.0, 5.0], "seconds": [1.0, 1.0]}))
    assert past.losses[0] == -5.0 and past.steps[0] == 3


def test_forks_are_left_out() -> None:
    past = history()
    past.tell(Asked(0, 0, 0, A, 0, 1))
    assert past.tell(Asked(1, 0, 1, B, 1, 2, parent=0, replaces=0)) is None
    assert past.tell(Told(1, 1, 1, {"score": [1.0], "seconds": [1.0]})) is None
    assert past.tell(Failed(1, 1, "broken")) is None
    assert past.size == 1


def test_arrays_grow() -> None:
    past = history()
    for trial in range(100):
        past.tell(Asked(trial, 0, trial, {"x": trial / 100, "kind": "a"}, 0, 1))
        past.tell(Told(trial, trial, 0, {"score": [trial], "seconds": [0.0]}))
    assert past.losses[:, 0].tolist() == [-float(trial) for trial in range(100)]
    assert past.known(past.points).all() and not past.known(past.points + 1e-3).any()


# -- rungs ----------------------------------------------------------------------------------------------------------


def advance(past: History, trial: int, config: dict[str, Any], start: int, values: list[float]) -> int | None:
    """Ask for a job and do it."""
    past.tell(Asked(0, 0, trial, config, start, start + len(values)))
    return past.tell(Told(0, trial, start, {"score": values, "seconds": [0.0] * len(values)}))


def at(past: History, step: int) -> dict[int, float]:
    """The scores at a rung, by row."""
    rung = past.rung(step)
    assert rung.excess.tolist() == [[-2.0]] * len(rung.rows)
    return dict(zip(rung.rows.tolist(), (-rung.losses[:, 0]).tolist(), strict=True))


def test_values_at_every_rung() -> None:
    past = history()
    advance(past, 0, A, 0, [1.0])
    advance(past, 1, B, 0, [2.0])
    advance(past, 1, B, 1, [3.0, 4.0])
    assert past.rungs == [1, 3] and at(past, 1) == {0: 1.0, 1: 2.0} and at(past, 3) == {1: 4.0} and at(past, 2) == {}
    past.tell(Asked(0, 0, 0, A, 1, 3))
    assert past.status[0] == OBSERVED and past.losses[0] == -1.0  # while it goes on
    past.tell(Failed(0, 0, "broken"))
    assert past.rungs == [1, 3] and at(past, 1) == {1: 2.0} and past.observations(0) == {}
    past.tell(Failed(0, 1, "broken"))
    assert past.rungs == [] and (past.seen_counts == 0).all() and (past.status == FAILED).all()


def test_rungs_that_are_passed_have_values_too() -> None:
    """A trial that starts with a longer job can be compared with those that started with a shorter one."""
    past = history()
    advance(past, 0, A, 0, [1.0])
    past.tell(Asked(0, 0, 1, B, 0, 3))
    past.tell(Told(0, 1, 0, {"score": [5.0, 6.0], "seconds": [0.0, 0.0]}))
    assert at(past, 1) == {0: 1.0} and past.status[1] == PENDING  # on the way
    past.tell(Told(0, 1, 0, {"score": [7.0, 8.0], "seconds": [0.0, 0.0]}))  # again, from an older checkpoint
    past.tell(Told(0, 1, 2, {"score": [9.0], "seconds": [0.0]}))
    assert at(past, 1) == {0: 1.0, 1: 7.0} and at(past, 3) == {1: 9.0}


def test_steps_that_are_close_are_one_rung() -> None:
    """Where a trial is asked for one step at a time, for example."""
    past = history()
    for step in range(20):
        advance(past, 0, A, step, [float(step)])
    assert past.rungs == list(past.observations(0)) == [1, 2, 3, 5, 7, 10, 14, 20]
    assert past.steps[0] == 20 and past.losses[0] == -19.0 and past.seen_steps[past.last[0]] == 20
    advance(past, 0, A, 20, [99.0])
    assert past.steps[0] == 21 and past.losses[0] == -99.0 and past.seen_steps[past.last[0]] == 20
    assert at(past, 20) == {0: 19.0}
    past.tell(Asked(0, 0, 1, A, 0, 11))
    past.tell(Told(0, 1, 10, {"score": [5.0], "seconds": [0.0]}))  # of the same configuration, and stands in for it
    past.tell(Failed(0, 0, "broken"))
    assert past.rungs == [11] and at(past, 11) == {0: 5.0} and past.losses[0] == -5.0


def test_curves() -> None:
    past = history()
    advance(past, 0, A, 0, [1.0])
    past.tell(Asked(0, 0, 2, {"x": 0.1, "kind": "a"}, 0, 3))
    advance(past, 1, B, 0, [2.0, 3.0, 4.0])
    np.testing.assert_array_equal(past.curves(0), [[-1.0, np.nan], [np.nan, np.nan], [-2.0, -4.0]])


def test_what_is_passed_with_other_fidelities_is_no_rung() -> None:
    past = History(Space({"x": Float(0.0, 1.0), "share": Fidelity(0.1, 1.0)}), [Goal("score")])
    for trial, until in enumerate([1, 3]):
        past.tell(Asked(0, 0, trial, {"x": trial / 2}, 0, until))
        past.tell(Told(0, trial, 0, {"score": [float(trial)] * until}))
    assert past.rung(1).rows.tolist() == [0] and past.rung(3).rows.tolist() == [1]


moves = st.tuples(st.integers(0, 5), st.sampled_from(["go on", "half", "fail"]), st.integers(1, 4), st.integers(-9, 9))


@settings(max_examples=150, deadline=None)
@given(st.lists(moves, max_size=60))
def test_rungs_against_a_naive_dict(sequence: list[tuple[int, str, int, int]]) -> None:
    """Trials of three configurations go on, report and fail in any order; every step is a rung."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "APART", 1.0)
        check_naively(sequence)


def check_naively(sequence: list[tuple[int, str, int, int]]) -> None:
    past = History(SPACE, [Goal("score", maximise=True)], [Constraint("seconds", 2.0)])
    configs = [A, B, {"x": 0.75, "kind": "a"}]
    stands: dict[int, int] = {}  # trial -> step; -1: failed
    naive: dict[int, dict[int, float]] = {}
    rungs: set[int] = set()  # that have a value now, of whatever configuration
    for trial, move, length, value in sequence:
        start = stands.get(trial, 0)
        if start < 0:
            continue
        past.tell(Asked(0, 0, trial, configs[trial % 3], start, start + length))
        curve = [value + step / 10 for step in range(start + 1, start + length + 1)]
        mine = naive.setdefault(trial, {})
        if move == "fail":
            past.tell(Failed(0, trial, "on purpose"))
            stands[trial], naive[trial] = -1, {}
        else:
            cut = length // 2 if move == "half" else 0
            for begin, end in [(0, cut), (cut, length)]:
                told = {"score": curve[begin:end], "seconds": [0.0] * (end - begin)}
                if end > begin:
                    past.tell(Told(0, trial, start + begin, told))
            stands[trial] = start + length
            mine.update(
                (step, curve[step - start - 1]) for step in (*rungs, stands[trial]) if start < step <= stands[trial]
            )
        rungs = {step for own in naive.values() for step in own}
        means: dict[int, dict[int, list[float]]] = {}
        for other, own in naive.items():
            for step, score in own.items():
                means.setdefault(step, {}).setdefault(int(past._row_of[other]), []).append(score)
        assert past.rungs == sorted(means)
        for step, by_row in means.items():
            assert at(past, step) == pytest.approx({row: float(np.mean(scores)) for row, scores in by_row.items()})
            for row, scores in by_row.items():
                index = past.observations(row)[step]
                assert past.seen_counts[index] == len(scores) and past.seen_rows[index] == row
        for row in range(past.size):
            steps = [step for step, by_row in means.items() if row in by_row]
            assert (past.status[row] == OBSERVED) == bool(steps)
            assert not steps or (past.steps[row] == max(steps) and -past.losses[row, 0] == at(past, max(steps))[row])


def test_places_put_the_further_ones_first() -> None:
    past = history()
    for trial in range(8):
        seconds = 9.0 if trial == 5 else 0.0
        for start in range(1 + (trial in (2, 3, 5))):
            past.tell(Asked(0, 0, trial, {"x": trial / 8, "kind": "a"}, start, start + 1))
            if trial == 7:
                past.tell(Failed(0, trial, "broken"))
            elif trial != 6:
                past.tell(Told(0, trial, start, {"score": [-float(trial)], "seconds": [seconds]}))
    assert places(past, range(8)).tolist() == [2, 3, 0, 1, 4, 5, 6, 7]  # the sixth breaks a constraint
    assert places(past, [4, -1, 2]).tolist() == [1, 2, 0]
    np.testing.assert_array_equal(
        places(past, [0, 1, 4, 6]), order(past.losses[[0, 1, 4, 6]], past.excess[[0, 1, 4, 6]])
    )


def test_the_design_begins_with_what_is_believed_best() -> None:
    space = Space({"x": Float(0.0, 1.0, prior=Prior(0.3)), "y": Integer(1, 9), "z": Categorical(["a", "b"])})
    first = design(space, np.random.default_rng(0)).next()
    assert first is not None
    assert space.decode(first) == {"x": pytest.approx(0.3), "y": 5, "z": "a"}


@pytest.mark.parametrize(
    "domain", [Float(0.0, 1.0, prior=Prior(0.2, "high")), Categorical(list("abc"), Prior("b", 0.6))]
)
def test_prior_is_a_density_and_draws_follow_it(domain: Float | Categorical) -> None:
    space = Space({"x": domain})
    u = np.linspace(0, 1, 3001)[:-1] + 1 / 6000
    density = np.exp(log_marginal(space.columns[0], u))
    assert density.mean() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(log_prior(space.columns, u[:, None]), np.log(density))
    drawn = draw(space.columns, u[:, None])[:, 0]
    for low, high in [(0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)]:
        mass = density[(u >= low) & (u < high)].sum() / len(u)
        assert np.mean((drawn >= low) & (drawn < high)) == pytest.approx(mass, abs=2e-3)


def test_a_walk_answers_the_same_however_often_it_is_asked() -> None:
    """Also where everything is taken, which a finite space under a scheduler that repeats comes to."""
    space = Space({"z": Categorical(["a", "b", "c"])})
    walk = design(space, np.random.default_rng(0))
    for trial in range(8):
        first, again = walk.next(4), walk.next(4)
        assert first is not None and again is not None
        np.testing.assert_array_equal(first, again)
        walk.tell(Asked(trial, 0, trial, space.decode(first), 0, 1))
    assert len(walk.taken) == 3
