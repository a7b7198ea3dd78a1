"""Samplers with models answer by the log alone: whenever they are asked, however they are told, whatever breaks off."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tunesmith.samplers
from tunesmith import Constraint, Fidelity, Float, Goal, Space, Study, replay, samplers, schedulers
from tunesmith.records import Asked, Event, Failed, Told
from tunesmith.samplers import Sampler, _outcomes, auto, gp
from tunesmith.samplers.base import History
from tunesmith.testing import GOAL, finite, mixed, play

FEW = {"candidates": 48, "starts": 2}
SQUARE = Space({"x": Float(0.0, 1.0), "y": Float(0.0, 1.0)})


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search with few candidates, blocks and limits that a short study reaches."""

    def search(*arguments: Any, **options: Any) -> Any:
        return maximise(*arguments, **options, **FEW)

    maximise = gp.maximise
    monkeypatch.setattr(gp, "maximise", search)
    monkeypatch.setattr(_outcomes, "BLOCK", 3)
    monkeypatch.setattr(_outcomes, "GROWTH", 1.2)


# -- what may happen in a study -------------------------------------------------------------------------------------


def happened(
    space: Space, seed: int, length: int = 60, *, rungs: tuple[int, ...] = (1,), goals: int = 1, rules: int = 0,
    faults: float = 0.15, repeats: float = 0.0, workers: int = 4,
) -> Iterator[Event]:  # fmt: skip
    """Events of a study: several jobs are out at once, some are told in parts, some fail, trials go on or are repeated.

    Args:
        space: of the configurations.
        seed: of what happens.
        length: so many jobs.
        rungs: steps at which jobs end.
        goals, rules: how many metrics there are of each.
        faults: share of jobs that fail.
        repeats: share of new trials with the configuration of an earlier one.
        workers: jobs that may be out at once.
    """
    rng = np.random.default_rng(seed)
    configs: list[dict[str, Any]] = []
    done: dict[int, int] = {}  # by trial that is neither out nor failed: how many rungs it has reached
    out: list[tuple[int, int, int, int, int]] = []  # ask, trial, from which step, to which, how many rungs
    for ask in range(length):
        paused = [trial for trial, reached in done.items() if reached < len(rungs)]
        if paused and rng.random() < 0.4:
            trial = paused[rng.integers(len(paused))]
            reached = done.pop(trial)
            start = rungs[reached - 1]
        else:
            again = configs and rng.random() < repeats
            configs.append(configs[rng.integers(len(configs))] if again else space.sample(rng))
            trial, reached, start = len(configs) - 1, 0, 0
        job = ask, trial, start, rungs[reached], reached + 1
        out.append(job)
        yield Asked(ask, 0, trial, space.at(configs[trial], reached / max(1, len(rungs) - 1)), start, rungs[reached])
        while len(out) > rng.integers(workers):
            ask, trial, start, until, reached = out.pop(int(rng.integers(len(out))))
            cut = int(rng.integers(start, until))
            curve = [told(space, configs[trial], step, goals, rules, rng) for step in range(start + 1, until + 1)]
            if cut > start:
                yield Told(ask, trial, start, columns(curve[: cut - start]))
            if rng.random() < faults:
                yield Failed(ask, trial, "on purpose")
            else:
                yield Told(ask, trial, cut, columns(curve[cut - start :]))
                done[trial] = reached


def told(space: Space, config: Any, step: int, goals: int, rules: int, rng: np.random.Generator) -> dict[str, float]:
    """What is measured of a configuration at a step."""
    u = np.nan_to_num(space.encode(config))
    values = {f"loss{j}": float(((u - 0.2 * (1 + j)) ** 2).sum() + 1 / step + 0.1 * rng.normal()) for j in range(goals)}
    return values | {f"rule{j}": float(u[j] + 0.1 * rng.normal()) for j in range(rules)}


def columns(curve: list[dict[str, float]]) -> dict[str, list[float | None]]:
    return {name: [values[name] for values in curve] for name in curve[0]}


Case = tuple[Sampler[Any], Space, dict[str, Any]]

CASES: dict[str, Case] = {
    "gp": (samplers.GP(startup=5), mixed(), {}),
    "gp, ei": (samplers.GP("ei", startup=5), SQUARE, {"faults": 0.0}),
    "gp, ucb, warping": (samplers.GP("ucb", startup=5, warp=True), SQUARE, {}),
    "gp, thompson": (samplers.GP("thompson", startup=5), SQUARE, {}),
    "gp, two goals, constraints": (samplers.GP(startup=5), SQUARE, {"goals": 2, "rules": 1}),
    "gp, four goals": (samplers.GP(startup=5), SQUARE, {"goals": 4, "rules": 2}),
    "gp, rungs": (samplers.GP(startup=5), mixed(), {"rungs": (1, 3, 9)}),
    "gp, rungs, goals": (samplers.GP(startup=5), SQUARE, {"rungs": (2, 4), "goals": 2, "rules": 1, "repeats": 0.2}),
    "gp, repeats": (samplers.GP(startup=5), SQUARE, {"repeats": 0.4, "faults": 0.3}),
    "gp, nothing but failures": (samplers.GP(startup=5), SQUARE, {"faults": 0.9}),
    "gp, finite": (samplers.GP(startup=3), finite(), {"repeats": 0.5}),
    "gp, duplicates": (samplers.GP(startup=3), finite(), {"duplicates": True, "repeats": 0.5, "rules": 1}),
    "tpe": (samplers.TPE(startup=4), mixed(), {}),
    "tpe, duplicates": (samplers.TPE(startup=4), finite(), {"duplicates": True, "repeats": 0.5, "goals": 2}),
    "tpe, goals, constraints": (samplers.TPE(startup=4), mixed(), {"goals": 2, "rules": 1, "repeats": 0.3}),
    "tpe, rungs": (samplers.TPE(startup=4, multivariate=False), mixed(), {"rungs": (1, 3, 9)}),
    "auto": (samplers.Auto(), mixed(), {"repeats": 0.2}),
    "auto, rungs": (samplers.Auto(), SQUARE, {"rungs": (2, 4), "workers": 2}),
}


def happens(case: Case, seed: int, length: int) -> list[Event]:
    """What happens in a study of this case."""
    _, space, options = case
    more = {name: value for name, value in options.items() if name != "duplicates"}
    return list(happened(space, seed, length, **more))


def begin(case: Case) -> Any:
    """The state before the first event."""
    sampler, space, options = case
    goals = [Goal(f"loss{j}") for j in range(options.get("goals", 1))]
    rules = [Constraint(f"rule{j}", 0.6) for j in range(options.get("rules", 0))]
    return sampler.init(space, goals, np.random.default_rng(7), rules, options.get("duplicates", False))


def fold(case: Case, events: list[Event]) -> Any:
    state = begin(case)
    for event in events:
        state = case[0].tell(state, event)
    return state


def answer(case: Case, state: Any, seed: int = 0) -> bytes:
    point = case[0].ask(state, np.random.default_rng(seed))
    assert point is not None
    return bytes(point.tobytes())


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Auto changes over in the middle of what happens, first by the jobs that are out at once."""
    monkeypatch.setattr(auto, "TRIALS", 25)


# -- asking and telling ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("name", CASES)
def test_asking_leaves_no_trace(name: str) -> None:
    """One state is asked after every third event, another now and then, a third when all is told: to the last bit."""
    case = CASES[name]
    sampler, events = case[0], happens(case, 1, 32)
    often, seldom = begin(case), begin(case)
    for number, event in enumerate(events):
        often, seldom = sampler.tell(often, event), sampler.tell(seldom, event)
        if number % 3 == 0:
            asked = answer(case, often, number)
            if number % 15 == 0:
                assert answer(case, seldom, number) == answer(case, fold(case, events[: number + 1]), number) == asked
    assert answer(case, fold(case, events)) == answer(case, often) == answer(case, seldom)


def test_a_study_that_is_opened_is_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One fit for each transform, however much was told."""
    fits: list[int] = []
    original = _outcomes._coarse
    monkeypatch.setattr(
        _outcomes, "_coarse", lambda sample, *rest: (fits.append(len(sample.ids)), original(sample, *rest))[1]
    )
    for sampler in (samplers.GP(), samplers.Auto()):
        case = sampler, SQUARE, {"faults": 0.0}
        state = fold(case, happens(case, 0, 80))
        assert fits == []
        answer(case, state)
        answer(case, state)
        assert len(fits) == 2
        fits.clear()


def test_a_sampler_that_is_not_in_charge_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "TRIALS", 10)
    heard: list[Any] = []
    monkeypatch.setattr(gp.GP, "tell", lambda *arguments: heard.append(arguments))
    case = CASES["auto"]
    state = fold(case, happens(case, 0, 30))
    assert answer(case, state) and heard == []


# -- reports that are cut --------------------------------------------------------------------------------------------


def arrays(past: History) -> dict[str, Any]:
    names = ("points", "losses", "excess", "steps", "counts", "status", "last")
    seen = ("seen_rows", "seen_steps", "seen_values", "seen_counts", "rungs", "live")
    return {name: np.array(getattr(past, name)) for name in (*names, *seen)}


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """What has happened with every job told as a whole, and with reports on the way, cut anywhere and some told again.

    All but the last report of a job come at any time before it.
    """
    space = draw(st.sampled_from([SQUARE, Space({"x": Float(0.0, 1.0), "size": Fidelity(0.1, 1.0)})]))
    seed = draw(st.integers(0, 1000))
    rungs = draw(st.sampled_from([(1, 3, 9), (4,), (2, 4, 6)]))
    whole, parts = [], []
    asked: dict[int, int] = {}  # by trial: where the job that is out begins
    for event in happened(space, seed, 14, rungs=rungs, rules=1, repeats=0.3):
        if type(event) is Asked:
            asked[event.trial] = event.start
        if type(event) is not Told:
            whole.append(event)
            parts.append(event)
            continue
        length = event.step - event.start
        at = sorted(draw(st.lists(st.integers(0, length - 1), max_size=3)))
        begin, sections = 0, []
        for end in [*at, length]:
            if end > begin:
                sections.append(Told(event.ask, event.trial, event.start + begin, part(event, begin, end)))
            begin = end if draw(st.booleans()) else begin  # or the values are told again, from an older checkpoint
        parts += sections
        whole.append(event)
    return whole, parts


def part(event: Told, begin: int, end: int) -> dict[str, list[float | None]]:
    return {name: values[begin:end] for name, values in event.metrics.items()}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(both=cuts())
def test_reports_may_be_cut_anywhere(both: tuple[list[Event], list[Event]]) -> None:
    space = SQUARE if "y" in both[0][0].config else Space({"x": Float(0.0, 1.0), "size": Fidelity(0.1, 1.0)})  # type: ignore[attr-defined]
    states = []
    for events in both:
        past = History(space, [Goal("loss0")], [Constraint("rule0", 0.5)])
        for event in events:
            past.tell(event)
        states.append(arrays(past))
    for name, values in states[0].items():
        np.testing.assert_array_equal(states[1][name], values, err_msg=name)


def test_what_is_told_on_the_way_to_a_rung_that_comes_later() -> None:
    """Trial 0 passes step 2 before any job has ended there, trial 1 ends there, then trial 0 ends at step 4."""
    pasts = [History(SQUARE, [Goal("loss")]) for _ in range(2)]
    configs = [{"x": 0.1, "y": 0.2}, {"x": 0.3, "y": 0.4}]
    for past, cut in zip(pasts, (False, True), strict=True):
        past.tell(Asked(0, 0, 0, configs[0], 0, 4))
        past.tell(Asked(1, 0, 1, configs[1], 0, 2))
        if cut:
            past.tell(Told(0, 0, 0, {"loss": [4.0, 3.0, 2.0]}))
        past.tell(Told(1, 1, 0, {"loss": [9.0, 8.0]}))
        past.tell(Told(0, 0, 3, {"loss": [1.0]}) if cut else Told(0, 0, 0, {"loss": [4.0, 3.0, 2.0, 1.0]}))
        assert past.rung(2).losses[:, 0].tolist() == [8.0, 3.0]


# -- exceptions ------------------------------------------------------------------------------------------------------

FOLDER = Path(tunesmith.samplers.__file__).parent
OTHERS = ("Walk.", "Points.", "_points", "_design", "_default")  #: the sequence of the initial design: tests of its own


class Breaks:
    """Raises KeyboardInterrupt at the given line of all that samplers execute, counted from 1."""

    def __init__(self, at: int) -> None:
        self.at, self.lines = at, 0

    def __enter__(self) -> Breaks:
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if Path(code.co_filename).parent != FOLDER or code.co_qualname.startswith(OTHERS):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.trace


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize(
    "name", ["gp", "gp, two goals, constraints", "gp, repeats", "tpe", "tpe, rungs", "auto, rungs"]
)
def test_an_ask_that_breaks_off_leaves_no_trace(name: str) -> None:
    """At any line; then it is asked again, told more and asked again, beside a twin that was left in peace."""
    case = CASES[name]
    sampler, events = case[0], happens(case, 3, 20)
    early, late = events[:-8], events[-8:]
    state = fold(case, early)
    with Breaks(0) as whole:
        first = answer(case, state)
    state, rng, broken = fold(case, early), np.random.default_rng(0), 0
    for at in sorted((whole.lines * rng.random(12) ** 3).astype(int).tolist()):  # more of them where models are made
        broken += breaks_off(case, state, at + 1)
    assert broken > 6 and answer(case, state) == first
    for event in late:
        state = sampler.tell(state, event)
        breaks_off(case, state, int(whole.lines * rng.random() ** 3) + 1)
    assert answer(case, state) == answer(case, fold(case, events))


def breaks_off(case: Case, state: Any, at: int) -> bool:
    """Whether an ask was interrupted; it may have come to its end before."""
    try:
        with Breaks(at):
            answer(case, state)
    except KeyboardInterrupt:
        return True
    return False


# -- studies ---------------------------------------------------------------------------------------------------------

STUDIES: dict[str, Callable[[], Sampler[Any]]] = {
    "gp": lambda: samplers.GP(startup=4),
    "gp, thompson": lambda: samplers.GP("thompson", startup=4),
    "tpe": lambda: samplers.TPE(startup=4),
    "auto": samplers.Auto,
}


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("steps", [1, 9])
def test_a_study_that_is_opened_again_and_again(name: str, steps: int, tmp_path: Path) -> None:
    """By two handles in turn, with many jobs out, failures and workers that vanish."""
    store, scheduler = tmp_path / "study.db", schedulers.Full(1) if steps == 1 else schedulers.ASHA(steps, eta=2)
    study = Study(mixed(), GOAL, STUDIES[name](), scheduler, store=store, trials=32)
    rng = np.random.default_rng(0)
    out: list[Any] = []
    other = Study.open(store, trials=32)
    for turn in range(30):
        if turn % 7 == 6:
            other.close()
            other = Study.open(store, trials=32)
        study, other = other, study
        out += study.ask(int(rng.integers(1, 4))) if len(out) < 8 else []
        while out and rng.random() < 0.6:
            job = out.pop(int(rng.integers(len(out))))
            if rng.random() < 0.15:
                study.fail(job, "on purpose", "lost" if rng.random() < 0.3 else "raised")
            else:
                study.tell(job, {"score": [float(rng.normal()) for _ in range(job.start, job.until)]})
    assert replay(study) == []
    study.close()
    other.close()


def test_auto_replays_across_its_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """First by the number of jobs at once, which falls again; and by the number of trials."""
    for limit, value in (("WORKERS", 3), ("TRIALS", 20)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auto, limit, value)
            study = Study(mixed(), GOAL, samplers.Auto(), trials=30, seed=2)
            play(study, np.random.default_rng(1), workers=5, faults=0.1)
            assert len(study.trials) == 30 and replay(study) == []
