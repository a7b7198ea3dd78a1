"""Conformance suites: what every sampler, scheduler and store has to satisfy.

Subclass one in a test module, supply ``make``, and pytest finds the checks::

    class TestMySampler(SamplerConformance):
        def make(self):
            return MySampler()
"""

from __future__ import annotations

import contextlib
import copy
import gc
import inspect
import itertools
import math
import os
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith import (
    Categorical,
    Constraint,
    Float,
    Goal,
    Integer,
    Ordinal,
    Prior,
    Space,
    Study,
    forbid,
    less_than,
    replay,
    samplers,
)
from tunesmith.fold import Fold
from tunesmith.records import AnyEvent, Asked, Changed, FailureKind, Opened, Told
from tunesmith.rng import Streams
from tunesmith.samplers import Sampler
from tunesmith.schedulers import ASHA, Full, Scheduler
from tunesmith.space import Config
from tunesmith.storage import MemoryStore, Store, StoreError
from tunesmith.study import Job
from tunesmith.testing.interrupts import Interrupted, interrupted_at, lines_of
from tunesmith.trials import Checkpoint

GOAL = Goal("score", maximise=True)


def mixed() -> Space:
    """A space with every kind of parameter, a conditional branch and constraints."""
    branches = {"sgd": Space({"momentum": Float(0.0, 0.99)}), "adam": Space({"beta": Float(0.8, 0.999)}), "none": None}
    return Space(
        {
            "lr": Float(1e-5, 1e-1, log=True),
            "low": Float(0.0, 1.0),
            "high": Float(0.0, 1.0),
            "layers": Integer(1, 4),
            "batch": Ordinal([16, 32, 64]),
            "optimizer": Categorical(branches),
            "epochs": 10,
        },
        constraints=[less_than("low", "high"), forbid({"batch": 64, "optimizer": "adam"})],
    )


def finite() -> Space:
    """A space of 11 allowed configurations."""
    return Space({"a": Integer(1, 3), "b": Categorical(["x", "y", "z", "w"])}, constraints=[forbid({"a": 2, "b": "y"})])


def nested() -> Space:
    """A space with branches in branches of different sizes, one column shared by two options, and a prior."""
    tree = Space(
        {"depth": Integer(1, 12), "split": Categorical({"best": None, "random": Space({"tries": Integer(1, 9)})})}
    )
    gamma = Float(1e-4, 1.0, log=True)
    kernel = Categorical(
        {"linear": None, "rbf": Space({"gamma": gamma}), "poly": Space({"gamma": gamma, "degree": Integer(2, 5)})}
    )
    svc = Space({"C": Float(1e-3, 1e3, log=True, prior=Prior(1.0)), "kernel": kernel})
    return Space({"model": Categorical({"tree": tree, "svc": svc, "naive": None}), "scale": Categorical([True, False])})


def two() -> Space:
    """A space of two configurations."""
    return Space({"c": Categorical(["x", "y"])})


def three() -> Space:
    """A space of three configurations, in order."""
    return Space({"n": Integer(1, 3)})


SMALL = [finite, two, three]


def plane() -> Space:
    """A space of two numbers."""
    return Space({"x": Float(0.0, 1.0), "y": Float(0.0, 1.0)})


def score(job: Job) -> float:
    """A value for a job that depends on its configuration and its step alone."""
    numbers = [v for v in job.config.values() if isinstance(v, (int, float))]
    return math.sin(sum(numbers)) + job.until / 100


def metrics(study: Study, job: Job) -> dict[str, float]:
    """Values for all goals and constraints of a study, which depend on the configuration and the step alone."""
    names = [goal.metric for goal in study.goals] + [rule.metric for rule in study.constraints]
    value, (first, *others) = score(job), names
    return {first: value} | {name: math.cos(number + 7 * value) for number, name in enumerate(others, 1)}


def play(
    study: Study,
    rng: np.random.Generator,
    *,
    workers: int = 4,
    faults: float = 0.0,
    ends: float = 0.0,
    jobs: int = 200,
    come_and_go: bool = False,
) -> int:
    """Do jobs of a study in a random interleaving: several are out at once, told whole or in parts, some fail.

    Args:
        study: what to work on.
        rng: decides the interleaving.
        workers: jobs that may be out at once.
        faults: share of jobs that raise, crash, vanish, or give a value that is not finite.
        ends: share of the others in which the training comes to its end by itself.
        jobs: stop asking after so many.
        come_and_go: the number of workers changes all the time, and is ``workers`` at most.

    Returns:
        How many jobs were asked.
    """
    out: list[Job] = []
    asked = 0
    idle = False
    most = workers
    while out or not idle:
        if come_and_go and rng.random() < 0.2:
            workers = int(rng.integers(1, most + 1))
        if len(out) < workers and asked < jobs and (not out or rng.random() < 0.5):
            job = study.ask()
            if job is not None:
                assert job.start < job.until
                asked += 1
                out.append(job)
                continue
            idle = not out
        elif not out:
            idle = True
        if out:
            _finish(study, out.pop(int(rng.integers(len(out)))), rng, faults, ends)
    return asked


def _finish(study: Study, job: Job, rng: np.random.Generator, faults: float, ends: float = 0.0) -> None:
    half, values = (job.start + job.until) // 2, metrics(study, job)
    if half > job.start and rng.random() < 0.3:
        study.tell(job, values, step=half, checkpoint=Checkpoint(job.trial, half, "half", "digest"))
    if rng.random() < faults:
        kinds: list[FailureKind] = ["raised", "crashed", "lost", "timeout", "non-finite"]
        kind = kinds[int(rng.integers(len(kinds)))]
        if kind == "non-finite":
            study.tell(job, dict.fromkeys(values, math.nan))
        else:
            study.fail(job, "on purpose", kind)
        return
    if ends and rng.random() < ends:
        step = max(job.start + 1, half)
        study.tell(job, values, step=step, ended=True)
        return
    study.tell(job, values, checkpoint=Checkpoint(job.trial, job.until, "end", "digest"))


@contextmanager
def no_hang(seconds: float = 30.0) -> Iterator[None]:
    """Raise TimeoutError in what takes so much processor time, so that an endless loop is a failure.

    The clock is that of the processor: a busy machine changes nothing. There is no limit where the system has no such
    alarm, and outside of the main thread.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise TimeoutError(f"no answer after {seconds:g} seconds of processor time")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


class SamplerConformance:
    """What every sampler has to satisfy. Subclasses supply ``make``."""

    def make(self) -> Sampler[Any]:
        """The sampler under test."""
        raise NotImplementedError

    def begin(self, space: Space, *, duplicates: bool = False) -> tuple[Sampler[Any], Any]:
        """The sampler and its first state."""
        sampler, rng = self.make(), np.random.default_rng(0)
        if not duplicates:
            return sampler, sampler.init(space, [GOAL], rng)
        if "duplicates" not in inspect.signature(sampler.init).parameters:
            pytest.skip("this sampler never proposes a known configuration on purpose")
        return sampler, sampler.init(space, [GOAL], rng, duplicates=True)

    @pytest.mark.parametrize("make_space", [mixed, finite])
    def test_points_are_allowed(self, make_space: Callable[[], Space]) -> None:
        """Every proposal is in the space and satisfies its constraints."""
        study = Study(make_space(), [GOAL], self.make(), trials=11)
        while (job := study.ask()) is not None:
            study.space.check(job.config)
            study.tell(job, {"score": score(job)})
        assert len(study.trials) == 11

    @pytest.mark.parametrize("make_space", [mixed, finite])
    def test_ask_changes_nothing(self, make_space: Callable[[], Space]) -> None:
        """Asking twice in the same state with the same randomness gives the same point."""
        sampler, space = self.make(), make_space()
        state = sampler.init(space, [GOAL], np.random.default_rng(0))
        first, again = (sampler.ask(state, np.random.default_rng(1)) for _ in range(2))
        assert first is not None and again is not None
        np.testing.assert_array_equal(first, again)

    def test_nothing_is_tried_twice(self) -> None:
        """A finite space is gone through once, and then the study says that nothing is left."""
        study = Study(finite(), [GOAL], self.make())
        play(study, np.random.default_rng(0), faults=0.2)
        keys = [study.space.key(trial.config) for trial in study.trials]
        assert len(keys) == len(set(keys)) == 11
        assert study.ask() is None and "nothing is left" in study.message

    def test_results_of_others_are_not_tried_again(self) -> None:
        """What was added or enqueued is not proposed."""
        study = Study(finite(), [GOAL], self.make())
        study.add({"a": 1, "b": "x"}, {"score": 1.0})
        study.enqueue({"a": 3, "b": "w"})
        play(study, np.random.default_rng(0))
        assert len({study.space.key(trial.config) for trial in study.trials}) == len(study.trials) == 11

    @pytest.mark.parametrize("make_space", [mixed, nested])
    def test_parts_are_completed(self, make_space: Callable[[], Space]) -> None:
        """Parts of configurations are tried in the order in which they were enqueued, whatever the sampler proposes."""
        study, rng = Study(make_space(), [GOAL], self.make()), np.random.default_rng(0)
        play(study, rng, jobs=3)
        parts: list[Config] = []
        for seed in range(6):
            config = study.space.sample(np.random.default_rng(seed))
            names = [one.name for one in study.space.columns if one.name in config.keys() - {"model"}]
            parts += [{str(name): config[str(name)]} for name in rng.permutation(names)[:2]]  # two of "model" are few
        for part in parts:
            assert study.enqueue(part)
        for part in parts:
            job = study.ask()
            assert job is not None and part.items() <= job.config.items() and study.space.contains(job.config)
            study.tell(job, metrics(study, job))
        assert replay(study) == []

    @pytest.mark.parametrize("seed", range(3))
    def test_replay(self, seed: int) -> None:
        """Any interleaving, with failures, is decided the same way again from its log."""
        study = Study(mixed(), [GOAL], self.make(), Full(10), seed=seed, trials=40)
        play(study, np.random.default_rng(seed), faults=0.3)
        assert len(study.trials) == 40 and replay(study) == []

    @pytest.mark.parametrize("make_space", [mixed, nested])
    @pytest.mark.parametrize("seed", range(2))
    def test_branches_constraints_and_failures(self, make_space: Callable[[], Space], seed: int) -> None:
        """Many proposals with results, pending ones and failures: all in the space, and decided again by replay."""
        study = Study(make_space(), [GOAL], self.make(), seed=seed, trials=60)
        play(study, np.random.default_rng(seed), workers=5, faults=0.2)
        for trial in study.trials:
            study.space.check(trial.config)
        assert len(study.trials) == 60 and replay(study) == []

    @pytest.mark.parametrize(
        "value",
        [
            lambda n: 0.0,
            lambda n: 1e-300 * n,
            lambda n: 1e300 * (-1) ** n,
            lambda n: float(n % 2),
            lambda n: 1e9 + 1e-6 * n,
            lambda n: -(10.0 ** (n % 40)),
        ],
        ids=["constant", "tiny", "huge", "ties", "offset", "many magnitudes"],
    )
    def test_extreme_values(self, value: Callable[[int], float]) -> None:
        """Whatever finite values come, proposals go on and stay in the space."""
        study = Study(mixed(), [GOAL], self.make(), trials=40)
        while (job := study.ask()) is not None:
            study.space.check(job.config)
            study.tell(job, {"score": value(job.trial)})
        assert len(study.trials) == 40

    def test_pending_points(self) -> None:
        """Before the first result and later, many workers get points of their own."""
        study = Study(mixed(), [GOAL], self.make())
        for _ in range(3):
            jobs = study.ask(12)
            assert len({study.space.key(job.config) for job in jobs}) == 12
            for job in jobs:
                study.tell(job, {"score": score(job)})

    def test_everything_fails(self) -> None:
        """Where all trials fail, proposals go on."""
        study = Study(mixed(), [GOAL], self.make(), trials=30)
        while (job := study.ask()) is not None:
            study.fail(job, "on purpose")
        assert len(study.trials) == study.trials.failed == 30

    @pytest.mark.parametrize("goals", [2, 3])
    def test_several_goals_and_constraints(self, goals: int) -> None:
        """Several goals and outcome constraints, some of them never satisfied, are no hindrance."""
        names = [f"goal{i}" for i in range(goals)]
        rules = [Constraint("seconds", 0.5), Constraint("memory", -1.0)]
        study = Study(mixed(), [Goal(name, i == 1) for i, name in enumerate(names)], self.make(), constraints=rules)
        rng = np.random.default_rng(0)
        for _ in range(30):
            job = study.ask()
            assert job is not None
            study.space.check(job.config)
            study.tell(job, {name: rng.normal() for name in [*names, "seconds", "memory"]})
        assert replay(study) == []

    @pytest.mark.parametrize("domain", [Float(0.0, 1.0), Integer(0, 1000), Categorical(list(range(40)))])
    def test_one_parameter(self, domain: Any) -> None:
        """A space of one parameter, of each kind."""
        study = Study(Space({"x": domain}), [GOAL], self.make(), trials=5)
        play(study, np.random.default_rng(0))
        assert len(study.trials) == 5

    def test_nothing_to_search(self) -> None:
        """A space without a free parameter has one configuration."""
        study = Study(Space({"x": 3}), [GOAL], self.make())
        play(study, np.random.default_rng(0))
        assert [trial.config for trial in study.trials] == [{"x": 3}]

    @pytest.mark.parametrize("make_space", SMALL)
    @pytest.mark.parametrize("fails", [False, True], ids=["constant", "failing"])
    def test_a_finite_space_comes_to_its_end(self, make_space: Callable[[], Space], fails: bool) -> None:
        """Where all values are equal, or all trials fail, every configuration has its turn, and that is all."""
        study = Study(make_space(), [GOAL], self.make())
        with no_hang():
            while (job := study.ask()) is not None:
                if fails:
                    study.fail(job, "on purpose")
                else:
                    study.tell(job, {"score": 0.0})
        self.check_used_up(study)

    @pytest.mark.parametrize("make_space", SMALL)
    def test_more_asks_than_configurations(self, make_space: Callable[[], Space]) -> None:
        """Before any result, every configuration is given out once; then there is nothing more."""
        study = Study(make_space(), [GOAL], self.make())
        with no_hang():
            jobs = []
            while (job := study.ask()) is not None:
                jobs.append(job)
            assert study.ask() is None
            for job in jobs:
                study.tell(job, {"score": 0.0})
            assert study.ask() is None
        self.check_used_up(study)

    def check_used_up(self, study: Study) -> None:
        """Every configuration was tried once."""
        keys = {study.space.key(trial.config) for trial in study.trials}
        assert len(keys) == len(study.trials) == sum(1 for _ in study.space.configs())
        assert "nothing is left" in study.message and replay(study) == []

    @pytest.mark.parametrize("scheduler", [Full(), ASHA(9)], ids=["full", "asha"])
    @pytest.mark.parametrize("duplicates", [False, True])
    def test_ask_leaves_no_trace(self, scheduler: Scheduler[Any], duplicates: bool) -> None:
        """Of two states that hear the same events, one is asked between any two of them: both always answer alike."""
        study = Study(nested(), [GOAL], self.make(), scheduler, trials=18)
        play(study, np.random.default_rng(2), workers=6, faults=0.1)
        sampler, quiet = self.begin(study.space, duplicates=duplicates)
        _, asked = self.begin(study.space, duplicates=duplicates)
        for number, event in enumerate(study.events()[1:]):
            quiet, asked = sampler.tell(quiet, event), sampler.tell(asked, event)
            for other in range(2):
                sampler.ask(asked, np.random.default_rng([number, other]), 1 + 8 * other)
            if number % 4 == 0:
                self.check_alike(sampler, copy.deepcopy(quiet), asked)
        self.check_alike(sampler, quiet, asked)

    def check_alike(self, sampler: Sampler[Any], one: Any, other: Any) -> None:
        """Both states answer alike."""
        for seed in range(2):
            first, second = (sampler.ask(state, np.random.default_rng(seed), 3) for state in (one, other))
            assert first is not None and second is not None
            np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize(("make_space", "asks"), [(mixed, 20), (plane, 24), (finite, 11)])
    def test_reopened_at_every_moment(self, make_space: Callable[[], Space], asks: int, tmp_path: Path) -> None:
        """Two handles on one file ask in turn, one of them always opened anew, with eight jobs out."""
        path, rng = tmp_path / "study.db", np.random.default_rng(4)
        kept = Study(make_space(), [GOAL], self.make(), store=path)
        out: list[Job] = []
        asked = 0
        while asked < asks or out:
            with Study.open(path, sampler=self.make()) as opened:
                for study in (opened, kept):
                    if asked < asks and len(out) < 8:
                        job = study.ask()
                        assert job is not None
                        out.append(job)
                        asked += 1
                if len(out) == 8 or asked == asks:
                    _finish(opened, out.pop(int(rng.integers(len(out)))), rng, 0.1)
        assert replay(kept) == []
        kept.close()

    @pytest.mark.parametrize("make_space", [mixed, finite])
    def test_duplicates(self, make_space: Callable[[], Space]) -> None:
        """Where configurations may be tried again, proposals go on for as long as one likes, constant values or not."""
        space = make_space()
        sampler, state = self.begin(space, duplicates=True)
        with no_hang():
            for trial in range(40):
                point = sampler.ask(state, np.random.default_rng(trial))
                assert point is not None
                config = space.decode(point)
                space.check(config)
                for event in _heard(trial, config, 0.0 if make_space is finite else float(trial % 7)):
                    state = sampler.tell(state, event)

    def test_ask_changes_nothing_later(self) -> None:
        """In the middle of a search, too, the same state and randomness give the same point."""
        sampler, study = self.make(), Study(mixed(), [GOAL], self.make())
        play(study, np.random.default_rng(0), jobs=40)
        state = sampler.init(study.space, [GOAL], np.random.default_rng(0))
        for event in study.events()[1:]:
            state = sampler.tell(state, event)
        first, again = (sampler.ask(state, np.random.default_rng(1)) for _ in range(2))
        assert first is not None and again is not None
        np.testing.assert_array_equal(first, again)

    def test_seeds_differ(self) -> None:
        """Another seed gives another sequence, unless the sampler has no randomness."""
        first, second = (Study(mixed(), [GOAL], self.make(), seed=seed).ask() for seed in (0, 1))
        assert first is not None and second is not None
        assert (first.config != second.config) or isinstance(self.make(), samplers.Grid)


def _heard(trial: int, config: Config, value: float) -> Sequence[AnyEvent]:
    """What a sampler hears of a trial of one step."""
    return Asked(trial, 0, trial, config, 0, 1), Told(trial, trial, 0, {"score": [value]})


class SchedulerConformance:
    """What every scheduler has to satisfy. Subclasses supply ``make`` and, if it never ends, ``trials``."""

    trials: int | None = None

    def make(self) -> Scheduler[Any]:
        """The scheduler under test."""
        raise NotImplementedError

    def study(self, seed: int = 0, **more: Any) -> Study:
        """A study with the scheduler under test."""
        return Study(mixed(), [GOAL], samplers.QMC(), self.make(), seed=seed, trials=self.trials, **more)

    def rich(self, seed: int = 0, **more: Any) -> Study:
        """One with branches in branches, two goals where the scheduler takes them, and an outcome constraint."""
        scheduler, rules = self.make(), [Constraint("seconds", 0.5)]
        goals = [GOAL, Goal("loss")]
        try:
            scheduler.init(nested(), goals, rules)
        except ValueError:
            goals = [GOAL]
        return Study(
            nested(), goals, samplers.QMC(), scheduler, seed=seed, trials=self.trials, constraints=rules, **more
        )

    def test_ends(self) -> None:
        """With nothing failing the study ends, and every job begins where its trial stands, or a fork where its source
        once stood.
        """
        study = self.study()
        reached: dict[int, int] = {}
        while (job := study.ask()) is not None:
            if job.trial in reached or job.parent is None:
                assert job.start == reached.get(job.trial, 0)
            else:
                assert job.start <= reached[job.parent]
            assert job.start < job.until
            reached[job.trial] = job.until
            study.tell(job, {"score": score(job)})
        assert study.trials and not study.running

    def test_ask_changes_nothing(self) -> None:
        """Deciding twice in the same state gives the same decision and leaves the state as it was."""
        scheduler = self.make()
        state = scheduler.init(mixed(), [GOAL])
        before = copy.deepcopy(state)
        first = scheduler.ask(state, Streams(1))
        assert first == scheduler.ask(state, Streams(1))
        assert repr(state) == repr(before)

    @pytest.mark.parametrize("workers", [1, 3, 16])
    @pytest.mark.parametrize("faults", [0.0, 0.2])
    def test_replay(self, workers: int, faults: float) -> None:
        """Any interleaving, with failures, is decided the same way again from its log."""
        study = self.study(seed=workers)
        asked = play(study, np.random.default_rng(workers), workers=workers, faults=faults)
        assert asked > 0 and not study.running and replay(study) == []

    @pytest.mark.parametrize("seed", range(3))
    def test_goals_constraints_branches_and_workers_that_come_and_go(self, seed: int) -> None:
        """Whatever the study is like and however many work on it, it comes to its end and is decided so again."""
        study = self.rich(seed)
        asked = play(study, np.random.default_rng(seed), workers=9, faults=0.15, come_and_go=True)
        assert asked > 0 and not study.running and replay(study) == []

    def test_ask_leaves_no_trace(self) -> None:
        """Of two states that hear the same events, one is asked between any two of them: both always answer alike, and
        being asked changes nothing.
        """
        for study in (self.study(3), self.rich(4)):
            play(study, np.random.default_rng(3), workers=6, faults=0.15, jobs=60, come_and_go=True)
            scheduler, fold = self.make(), Fold(study.given, hearing=True)
            for event in study.events():
                fold.fold(event)
            first = study.space, study.goals, study.constraints
            quiet, asked = scheduler.init(*first), scheduler.init(*first)
            for number, heard in enumerate(heard for item in fold.news for heard in item.heard):
                quiet, asked = scheduler.tell(quiet, heard), scheduler.tell(asked, heard)
                before = repr(asked)
                answers = self.answers(scheduler, asked)
                scheduler.message(asked), set(scheduler.keep(asked))
                assert repr(asked) == before
                if number % 3 == 0:
                    assert answers == self.answers(scheduler, copy.deepcopy(quiet))
            assert self.answers(scheduler, asked) == self.answers(scheduler, quiet)

    def answers(self, scheduler: Scheduler[Any], state: Any) -> list[Any]:
        """What a scheduler answers in a state, whatever can be carried out."""
        ways = [(True, True), (False, True), (True, False), (False, False)]
        return [scheduler.ask(state, Streams(1), starts, repeats) for starts, repeats in ways]

    @pytest.mark.parametrize("workers", [1, 4])
    def test_failures_at_any_moment(self, workers: int) -> None:
        """Whichever jobs fail, one or several in a row, those that are left come to the end of the study."""
        for first in range(0, 24, 3):
            study, number, out = self.rich(first), 0, list[Job]()
            while True:
                while len(out) < workers and (job := study.ask()) is not None:
                    out.append(job)
                if not out:
                    break
                job = out.pop(0)
                if first <= number < first + 1 + first % 4:
                    study.fail(job, "on purpose")
                else:
                    study.tell(job, metrics(study, job), checkpoint=Checkpoint(job.trial, job.until, "end", "digest"))
                number += 1
                assert number < 2000
            assert not study.running and replay(study) == []

    @pytest.mark.parametrize("what", ["ask", "ask for 3", "ask for 12", "tell", "tell several", "fail"])
    def test_interrupted_at_every_line(self, what: str) -> None:
        """An exception at a line of the package, as Ctrl-C raises it: the study goes on, and is decided so again.

        Of all lines about five have their turn at each moment; all of them where the environment has
        ``TUNESMITH_EVERY_LINE``.
        """
        for moment in (0, 11):
            calm = self.rich(moment)
            play(calm, np.random.default_rng(moment), workers=4, faults=0.1, jobs=moment)
            events = calm.events()

            def begin(events: list[AnyEvent] = events) -> tuple[Study, Callable[[], object]]:
                store = MemoryStore()
                store.append(events)
                study = Study.open(store, scheduler=self.make(), trials=self.trials)
                jobs = study.ask(3)

                def act() -> None:
                    if what.startswith("ask"):
                        study.ask(int(what.split()[-1])) if " " in what else study.ask()
                    elif what == "tell several":
                        study.tell(jobs, [metrics(study, job) for job in jobs])
                    else:
                        for job in jobs[:1]:
                            study.fail(job, "on purpose") if what == "fail" else study.tell(job, metrics(study, job))

                return study, act

            lines = lines_of(begin()[1])
            some = lines[moment % 7 :: max(1, len(lines) // 5)]
            for line in lines if "TUNESMITH_EVERY_LINE" in os.environ else some:
                study, action = begin()
                with contextlib.suppress(Interrupted), interrupted_at(line):
                    action()
                for job in study.running:
                    study.fail(job, "nobody was given it", "lost")
                play(study, np.random.default_rng(moment), workers=3, jobs=8)
                assert not study.running and replay(study) == [], line

    def test_reopened_at_every_moment(self, tmp_path: Path) -> None:
        """Two handles on one file work in turn, one of them always opened anew, with several jobs out."""
        path, rng = tmp_path / "study.db", np.random.default_rng(4)
        kept = self.rich(5, store=path)
        out: list[Job] = []
        for _ in range(30):
            with Study.open(path, scheduler=self.make(), trials=self.trials) as opened:
                asked = [study.ask() for study in (opened, kept) if len(out) < 6]
                out += [job for job in asked if job is not None]
                if len(out) == 6 or (out and None in asked):
                    _finish(opened, out.pop(int(rng.integers(len(out)))), rng, 0.15)
        for job in out:
            _finish(kept, job, rng, 0.0)
        assert replay(kept) == []
        kept.close()

    def test_resumes_from_the_log(self, tmp_path: Path) -> None:
        """Stopped anywhere and opened again from its file, a study goes on as if nothing had happened."""
        whole, parts = self.study(), self.study(store=tmp_path / "study.db")
        for step in range(60):
            if step % 7 == 6:
                parts.close()
                parts = Study.open(tmp_path / "study.db", scheduler=self.make(), trials=self.trials)
            one, other = whole.ask(), parts.ask()
            assert one == other
            if one is None or other is None:
                break
            whole.tell(one, {"score": score(one)})
            parts.tell(other, {"score": score(other)})
        parts.close()

    @pytest.mark.parametrize("workers", [1, 3])
    def test_trainings_end_by_themselves(self, workers: int) -> None:
        """Nobody waits for a trial whose training has come to its end, whatever the scheduler still wants of it."""
        study = self.study(seed=workers)
        play(study, np.random.default_rng(workers), workers=workers, ends=0.3)
        assert any(trial.ended for trial in study.trials)
        assert not study.running and replay(study) == []

    def test_everything_fails(self) -> None:
        """A study in which every job fails comes to an end, or goes on only as far as ``trials`` says."""
        study = self.study()
        for _ in range(1000):
            job = study.ask()
            if job is None:
                break
            study.fail(job, "on purpose")
        assert study.ask() is None and not study.running

    def test_keeps_what_it_needs(self) -> None:
        """Every job that is no fresh start begins at a checkpoint that was to be kept just before; and the best trial
        and those of the front always have their last one.
        """
        for study in (self.study(), self.rich()):
            rng = np.random.default_rng(0)
            out: list[Job] = []
            saved: set[tuple[int, int]] = set()
            for _ in range(150):
                saved &= study.keep()  # everything else is swept
                best = study.best
                for trial in study.front if len(study.goals) > 1 else [] if best is None else [best]:
                    assert trial.status == "running" or not trial.checkpoints or (trial.id, trial.step) in saved
                job = study.ask() if len(out) < 5 else None
                if job is not None:
                    source = job.trial if study.trials[job.trial].reports or job.parent is None else job.parent
                    assert job.start == 0 or (source, job.start) in saved
                    out.append(job)
                elif out:
                    done = out.pop(int(rng.integers(len(out))))
                    study.tell(done, metrics(study, done), checkpoint=Checkpoint(done.trial, done.until, "w", "d"))
                    saved.add((done.trial, done.until))


class StoreConformance:
    """What every store has to satisfy. Subclasses supply ``make``, which opens the same log each time."""

    def make(self, place: Path) -> Store:
        """The store under test, kept at ``place``."""
        raise NotImplementedError

    def begun(self, place: Path) -> tuple[Store, Store]:
        """A store whose log has one event, opened twice; where nobody else can open it, the second is the first."""
        store, other = self.make(place), self.make(place)
        store.append([self.opened()])
        return store, other if other.read() else store

    def opened(self) -> Opened:
        """A first event."""
        study = Study(finite(), [GOAL])
        return study.definition

    def test_events_come_back(self, tmp_path: Path) -> None:
        """What was appended is read in order, whole or from a number on."""
        store = self.make(tmp_path)
        told = [Told(i, i, 0, {"score": [i / 3]}, 0.5) for i in range(5)]
        assert store.append([self.opened()]) == 1
        assert store.append(told) == 6
        assert store.append([]) == 6
        assert store.read() == [self.opened(), *told]
        assert store.read(after=4) == told[3:]
        assert store.read(after=6) == []
        store.close()

    def test_append_only_if_nothing_came_between(self, tmp_path: Path) -> None:
        """``after`` must be the length of the log."""
        store = self.make(tmp_path)
        told = Told(0, 0, 0, {"score": [1.0]})
        assert store.append([told], after=0) == 1
        assert store.append([told], after=0) == 0
        assert store.append([told], after=2) == 0
        assert store.append([told], after=1) == 2
        assert len(store.read()) == 2
        store.close()

    def test_others_are_kept_out(self, tmp_path: Path) -> None:
        """What is appended in an exclusive section comes before what others append meanwhile."""
        store, other = self.begun(tmp_path)
        with store.exclusive():
            thread = threading.Thread(target=lambda: other.append([_told(1)]))
            thread.start()
            time.sleep(0.05)
            assert store.append([_told(0)], after=1) == 2
        thread.join(60)
        assert [event.ask for event in store.read(1) if isinstance(event, Told)] == [0, 1]
        store.close()
        other.close()

    def test_a_section_in_a_section(self, tmp_path: Path) -> None:
        """The inner one ends nothing."""
        store, other = self.begun(tmp_path)
        with store.exclusive():
            with store.exclusive():
                pass
            thread = threading.Thread(target=lambda: other.append([_told(1)]))
            thread.start()
            time.sleep(0.05)
            assert store.append([_told(0)], after=1) == 2
        thread.join(60)
        assert len(store.read()) == 3
        store.close()
        other.close()

    def test_what_was_appended_in_a_section_stays(self, tmp_path: Path) -> None:
        """Also when it ends with an error; and then others have their turn."""
        store, other = self.begun(tmp_path)
        with contextlib.suppress(ZeroDivisionError), store.exclusive():
            assert store.append([_told(0)]) == 2
            1 / 0  # noqa: B018
        assert other.append([_told(1)]) == 3
        assert store.read(1) == other.read(1) == [_told(0), _told(1)]
        store.close()
        other.close()

    def test_an_ask_is_taken_once(self, tmp_path: Path) -> None:
        """Of two events with the same ask number the second is refused, with its whole batch."""
        store, other = self.begun(tmp_path)
        asked = _asked(0, seen=1)
        assert store.append([asked]) == 2
        assert other.append([_told(0), asked]) == 0
        assert other.append([_asked(1, seen=2), _asked(1, seen=2)]) == 0
        assert store.read(1) == other.read(1) == [asked]
        store.close()
        other.close()

    @pytest.mark.parametrize(
        "refused",
        [
            lambda: [_asked(2, seen=2)],  # not the next number
            lambda: [_asked(0, seen=2)],
            lambda: [_asked(-1, seen=2)],
            lambda: [_asked(1, seen=2), _asked(3, seen=3)],
            lambda: [_asked(1, seen=3)],  # has seen more than there is
            lambda: [_asked(1, seen=2), _asked(2, seen=4)],
            lambda: [_asked(1, seen=10**6)],
            lambda: [Changed(), _asked(1, seen=2)],  # decided for the study before the change
            lambda: [Changed(), _asked(1, seen=3), _asked(2, seen=2)],
        ],
    )
    def test_an_ask_that_does_not_follow_is_refused(self, refused: Callable[[], list[Any]], tmp_path: Path) -> None:
        """Whatever went wrong in the process that appends: nothing is written."""
        store, other = self.begun(tmp_path)
        assert store.append([_asked(0, seen=1)]) == 2
        assert other.append(refused()) == store.append([*refused(), _told(0)]) == 0
        assert len(store.read()) == 2
        assert other.append([_asked(1, seen=2), _asked(2, seen=3), _told(1), Changed(), _asked(3, seen=6)]) == 7
        store.close()
        other.close()

    def test_an_ask_from_before_a_change_is_refused(self, tmp_path: Path) -> None:
        """Others have changed the study meanwhile."""
        store, other = self.begun(tmp_path)
        assert other.append([Changed(), _told(0)]) == 3
        assert store.append([_asked(0, seen=1)]) == 0
        assert store.append([_asked(0, seen=2)]) == 4
        store.close()
        other.close()

    def test_two_connections(self, tmp_path: Path) -> None:
        """What one has appended the other can read at once; their events are numbered together."""
        one, other = self.begun(tmp_path)
        for i in range(20):
            assert (one, other)[i % 2].append([_told(i)]) == i + 2
            assert one.read(i + 1) == other.read(i + 1) == [_told(i)]
        assert one.append([_told(0)], after=20) == 0
        one.close()
        assert other.append([_told(0)], after=21) == 22
        other.close()

    @pytest.mark.parametrize("what", ["append", "read", "exclusive", "append in a section"])
    def test_interrupted_anywhere_it_goes_on(self, what: str, tmp_path: Path) -> None:
        """An exception at any line, as Ctrl-C raises it: all events or none are written, and nobody is kept out."""
        store, other = self.begun(tmp_path)
        wanted: list[Any] = [self.opened()]

        def work() -> None:
            batch = [_told(len(wanted)), _told(-len(wanted))]
            if what == "append":
                store.append(batch)
            elif what == "read":
                store.read(len(wanted) - 1)
            else:
                with store.exclusive():
                    store.read(len(wanted) - 1)
                    if what == "append in a section":
                        store.append(batch)

        for line in itertools.count():
            before = len(wanted)
            if not interrupted(work, line):
                break
            wanted += [_told(before), _told(-before)] if len(other.read()) > before else []
            for one in (store, other):
                assert one.append([_told(len(wanted))]) == len(wanted) + 1
                wanted.append(_told(len(wanted)))
                assert one.read() == wanted
        assert line > 0
        store.close()
        other.close()

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """Where the file can grow no more nothing that was appended is lost, and it goes on when there is room."""

        def fill() -> None:
            store, _ = self.begun(tmp_path)
            if store is _:
                return
            told = 1
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
            try:
                while told < 10_000:
                    assert store.append([_told(told), _told(told + 1)]) == told + 2
                    told += 2
            except StoreError:
                for _ in range(3):  # again and again
                    with contextlib.suppress(StoreError), store.exclusive():
                        told += 2 * bool(store.append([_told(told), _told(told + 1)]))
            assert 1 < told < 10_000
            assert len(store.read()) == told
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            assert store.append([_told(told)]) == told + 1
            assert self.make(tmp_path).read() == [self.opened(), *(_told(i) for i in range(1, told + 1))]

        _in_child(fill)

    @pytest.mark.parametrize("size", [1, 50])
    def test_killed_in_the_middle_of_appending(self, size: int, tmp_path: Path) -> None:
        """Whatever the process was told that it is appended is there after ``kill -9``, and batches are whole."""
        store, other = self.begun(tmp_path)
        if store is other:
            pytest.skip("a store of one process dies with it")
        store.close()
        other.close()
        for _ in range(5):
            reader, writer = os.pipe()

            def append(writer: int = writer) -> None:
                own = self.make(tmp_path)
                for number in itertools.count(len(own.read()), size):
                    assert own.append([_told(i) for i in range(number, number + size)]) == number + size
                    os.write(writer, f"{number + size}\n".encode())

            child = _fork(append)
            said = os.read(reader, 10)  # it has begun
            time.sleep(0.02)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(writer)
            while more := os.read(reader, 1 << 16):
                said += more
            os.close(reader)
            last = self.make(tmp_path)
            length = len(last.read())
            assert last.read() == [self.opened(), *(_told(i) for i in range(1, length))]
            assert int(said.split()[-1]) <= length and (length - 1) % size == 0
            assert last.append([_told(i) for i in range(length, length + size)]) == length + size
            last.close()


def _told(number: int) -> Told:
    return Told(abs(number), abs(number), 0, {"score": [float(number)]})


def _asked(ask: int, seen: int) -> Asked:
    return Asked(ask, seen, ask, {"a": 1}, 0, 1)


def interrupted(work: Callable[[], object], line: int) -> bool:
    """Run something, with a KeyboardInterrupt at one of the lines that run beneath it. False: it has not so many."""
    left = line
    raised = False

    def trace(frame: Any, event: str, arg: object) -> Any:
        nonlocal left, raised
        if frame.f_code is work.__code__ or "weakref" in frame.f_code.co_filename:  # their callbacks can't raise
            return None
        if event == "line" and not raised:
            left -= 1
            if left < 0:
                raised = True
                raise KeyboardInterrupt
        return trace

    before, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()  # callbacks of the collector can't raise either
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()
    return raised


def _fork(work: Callable[[], object]) -> int:
    """Run something in a child that has nothing else to do; the number of its process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries with threads: none of them is used there
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def _in_child(work: Callable[[], object]) -> None:
    _, status = os.waitpid(_fork(work), 0)
    assert os.waitstatus_to_exitcode(status) == 0, "see the traceback of the child"
