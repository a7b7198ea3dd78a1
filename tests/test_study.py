"""The study: ask and tell, resume, retries, migration, views, wrong use."""

from __future__ import annotations

import math
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith import (
    Categorical,
    Constraint,
    Fidelity,
    Float,
    Goal,
    Integer,
    Ordinal,
    Space,
    Study,
    TunesmithError,
    less_than,
    replay,
    samplers,
)
from tunesmith.definition import StudyError
from tunesmith.records import Asked, Changed, Failed, Told
from tunesmith.schedulers import (
    ASHA,
    PB2,
    PBT,
    Chain,
    Full,
    Hyperband,
    Median,
    Plateau,
    Race,
    SuccessiveHalving,
    TTest,
)
from tunesmith.study import Job
from tunesmith.trials import MAX_CRASHES, Checkpoint

SPACE = Space({"x": Float(0.0, 1.0), "n": Integer(1, 8)})
LOSS = Goal("loss")


def study(**options: Any) -> Study:
    return Study(SPACE, LOSS, **options)


def ask(study: Study) -> Job:
    job = study.ask()
    assert job is not None
    return job


# -- tell ---


def test_a_single_value_holds_at_the_end_of_the_job() -> None:
    s = study(scheduler=Full(10))
    s.tell(ask(s), {"loss": 0.5, "time": np.float32(2)})
    assert s.trials[0].values("loss") == ([10], [0.5])
    assert s.trials[0].metrics == {"loss": 0.5, "time": 2.0}
    assert s.trials[0].status == "complete"


def test_lists_hold_one_value_a_step_and_may_come_in_parts() -> None:
    s = study(scheduler=Full(5))
    job = ask(s)
    s.tell(job, {"loss": [5, 4]})
    assert s.trials[0].status == "running" and s.trials[0].step == 2
    s.tell(job, {"loss": np.array([3.0, 2.0, 1.0])})
    assert s.trials[0].values("loss") == ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
    assert s.trials[0].status == "complete"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_fails_the_trial(bad: float) -> None:
    s = study(scheduler=Full(4))
    s.tell(ask(s), {"loss": [3.0, 2.0, bad, 1.0]})
    trial = s.trials[0]
    assert (trial.status, trial.kind, trial.error) == ("failed", "non-finite", "loss is not finite at step 3")
    assert trial.values("loss") == ([1, 2], [3.0, 2.0])


def test_other_metrics_may_be_not_finite() -> None:
    s = study(scheduler=Full(2))
    s.tell(ask(s), {"loss": [1.0, 0.5], "norm": [math.nan, 7.0]})
    assert s.trials[0].values("norm") == ([2], [7.0])
    assert s.trials[0].status == "complete"
    s.tell(ask(s), {"loss": 1.0, "norm": None})
    s.tell(ask(s), {"loss": [1.0, 0.5], "norm": [None, 7.0]})
    s.tell(ask(s), {"loss": np.array(0.5), "norm": 7.0})
    s.add({**s.trials[0].config}, {"loss": 1.0, "norm": None})
    assert [trial.last("norm") for trial in s.trials[1:]] == [None, 7.0, 7.0, None]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"accuracy": 1.0}, "metrics lack 'loss'; they have 'accuracy'"),
        ({}, "metrics lack 'loss'; they have nothing"),
        ({"loss": "low"}, "'loss'.*is not a number"),
        ({"loss": None}, "'loss'.*is not a number"),
        ({"loss": []}, "at least one"),
        ({"loss": [1.0, 2.0], "time": [1.0]}, "same number of values"),
        ({"loss": 1.0, "time": [1.0]}, "metric 'time' is a list and 'loss' is not, 1.0"),
        (0.5, "must be a dict"),
        ({"loss": [1.0] * 11}, "told up to step 11, the job is from 0 to 10"),
    ],
)
def test_wrong_metrics_are_explained_and_lose_nothing(metrics: Any, message: str) -> None:
    s = study(scheduler=Full(10))
    job = ask(s)
    with pytest.raises((ValueError, TypeError), match=message):
        s.tell(job, metrics)
    assert s.trials[0].status == "running"
    s.tell(job, {"loss": 1.0})
    assert s.trials[0].status == "complete"


def test_batches_are_one_transaction() -> None:
    s = study(scheduler=PBT(population=4, ready=2, steps=4))
    jobs = s.ask(4)
    assert [job.trial for job in jobs] == [0, 1, 2, 3]
    s.tell(jobs, [{"loss": float(job.trial)} for job in jobs])
    assert [t.step for t in s.trials] == [2, 2, 2, 2]
    with s.batch() as batch:
        for job in s.ask(4):
            batch.fail(job, "gone", "lost")
    assert len(s.trials.waiting) == 4 and replay(s) == []


# -- resume ---


def test_without_a_seed_the_stored_one_holds(tmp_path: Path) -> None:
    study(store=tmp_path / "a.db", seed=3).close()
    with study(store=tmp_path / "a.db") as s, study() as other:
        assert s.definition.seed == 3 and other.definition.seed == 0
    with pytest.raises(TunesmithError, match="seed is 3, given is 0"):
        study(store=tmp_path / "a.db", seed=0)


def test_all_differences_are_named(tmp_path: Path) -> None:
    study(store=tmp_path / "a.db", seed=3).close()
    others = {"sampler": samplers.QMC(), "scheduler": Full(3), "space": Space({"x": Float(0.0, 2.0)})}
    with pytest.raises(TunesmithError) as error:
        Study(**{"space": SPACE, "goals": LOSS, "store": tmp_path / "a.db", **others, "seed": 1})
    text = str(error.value)
    for words in (
        "seed is 3, given is 1",
        "sampler is",
        "scheduler is",
        "parameter 'x' is",
        "name or store: seed can't",
    ):
        assert words in text
    with pytest.raises(TunesmithError, match=r"another sampler and space: .*change\(sampler=..., space=...\)$"):
        Study(**{"goals": LOSS, "store": tmp_path / "a.db", **others, "scheduler": Full()})


WARNED = "job from step 0 to 1 is over, so what is said of it now does not count"


@pytest.mark.parametrize("first", ["tell", "fail", "ended"])
@pytest.mark.parametrize("then", ["tell", "fail", "both"])
@pytest.mark.parametrize("batched", [False, True])
def test_what_is_said_of_a_job_that_is_over_is_dropped_with_a_warning(
    first: str, then: str, batched: bool, caplog: pytest.LogCaptureFixture
) -> None:
    s = study()
    job, other = s.ask(2)

    def say(to: Any, how: str) -> None:
        if how == "ended":
            to.tell(job, {"loss": 1.0}, ended=True)
        if how in ("tell", "both"):
            to.tell(job, {"loss": 1.0 if how == first else 0.5})
        if how in ("fail", "both"):
            to.fail(job, "it was broken")

    if batched:
        with s.batch() as batch:
            say(batch, first)
            assert not caplog.records
            say(batch, then)
    else:
        say(s, first)
        assert not caplog.records
        say(s, then)
    assert [record.message for record in caplog.records] == [
        f"trial 0: its {WARNED}; study.add(config, metrics) takes a further result"
    ]
    assert s.trials[0].status == ("failed" if first == "fail" else "complete")
    assert s.trials[0].metrics == ({} if first == "fail" else {"loss": 1.0})
    s.tell(other, {"loss": 2.0})
    assert len(caplog.records) == 1 and s.trials[1].status == "complete"


def test_a_job_that_was_given_up_warns_and_its_successor_does_not(caplog: pytest.LogCaptureFixture) -> None:
    s = study()
    job = s.ask()
    s.fail(job, "its worker vanished", "lost")
    again = s.ask()
    assert again.trial == job.trial and not caplog.records
    s.tell(job, {"loss": 1.0})
    assert [record.message.split(",")[0] for record in caplog.records] == [f"trial 0: its {WARNED.split(',')[0]}"]
    s.tell(again, {"loss": 2.0})
    assert len(caplog.records) == 1 and s.trials[0].metrics == {"loss": 2.0}


def test_the_end_of_a_training_that_rests_may_be_told_later(caplog: pytest.LogCaptureFixture) -> None:
    s = study(scheduler=Median(3))
    job = s.ask()
    s.tell(job, {"loss": 1.0})
    s.tell(job, ended=True)
    assert s.trials[0].ended and not caplog.records


def test_the_same_arguments_continue_a_study(tmp_path: Path) -> None:
    def configs(parts: list[int]) -> list[Any]:
        found = []
        path = tmp_path / f"{parts}.db"
        for part in parts:
            with study(store=path, trials=part) as s:
                while job := s.ask():
                    found.append(job.config)
                    s.tell(job, {"loss": job.config["x"]})
        return found

    assert configs([12]) == configs([3, 3, 7, 12])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 0, given is 1"),
        ({"scheduler": Full(3)}, r"scheduler is Full\(steps=1.* given is Full\(steps=3"),
        ({"sampler": samplers.QMC()}, "sampler is .*Auto.* given is .*QMC"),
        ({"goals": Goal("loss", maximise=True)}, "goals is"),
        ({"space": Space({"x": Float(0.0, 2.0), "n": Integer(1, 8)})}, "parameter 'x' is .*1.0.*given is .*2.0"),
    ],
)
def test_other_arguments_are_refused_and_change_nothing(tmp_path: Path, change: Any, message: str) -> None:
    study(store=tmp_path / "a.db").close()
    arguments = {"space": SPACE, "goals": LOSS, "store": tmp_path / "a.db", **change}
    with pytest.raises(TunesmithError, match=message):
        Study(**arguments)
    with Study.open(tmp_path / "a.db") as s:
        assert len(s.events()) == 1


def test_a_study_that_is_not_there_is_named(tmp_path: Path) -> None:
    study(store=tmp_path / "a.db", name="mine").close()
    with pytest.raises(TunesmithError, match="no study 'yours'; it has 'mine'"):
        Study.open(tmp_path / "a.db", "yours")


def test_a_read_only_study_can_be_read_and_says_so_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    with study(store=path) as s:
        s.tell(ask(s), {"loss": 1.0})
    path.chmod(stat.S_IRUSR)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with Study.open(path) as s:
        assert s.best is not None
        with pytest.raises(TunesmithError, match="can't be written"):
            s.ask()


def test_an_own_sampler_must_be_passed_again(tmp_path: Path) -> None:
    class Middle:
        def init(self, space: Space, goals: Any, rng: Any, constraints: Any = ()) -> None: ...
        def tell(self, state: None, event: Any) -> None: ...
        def ask(self, state: None, rng: np.random.Generator, until: int = 1) -> Any:
            return 0.5 + 0.01 * rng.random(2)

    path = tmp_path / "a.db"
    with study(store=path, sampler=Middle()) as s:
        s.tell(ask(s), {"loss": 1.0})
    with Study.open(path) as s:
        assert len(s.trials) == 1
        with pytest.raises(TunesmithError, match=r"sampler 'Middle' of this study is not built in: pass it"):
            s.ask()
    with Study.open(path, sampler=Middle()) as s:
        ask(s)
        assert replay(s) == []


def test_a_sampler_is_told_when_it_is_asked_and_not_before() -> None:
    class Counting:
        told = 0

        def init(self, space: Space, goals: Any, rng: Any, constraints: Any = ()) -> None: ...
        def tell(self, state: None, event: Any) -> None:
            self.told += 1

        def ask(self, state: None, rng: np.random.Generator, until: int = 1) -> Any:
            return rng.random(2)

    sampler = Counting()
    s = study(sampler=sampler, scheduler=PBT(population=4, ready=1, steps=5, first="sampler"))
    for _ in range(5):
        for job in s.ask(4):
            s.tell(job, {"loss": job.config["x"]})
        assert sampler.told == 3  # the first three trials, when it was asked for the fourth
    assert s.ask() is None
    s.sampling()
    assert sampler.told == 40


def test_functions_as_constraints_must_be_passed_again(tmp_path: Path) -> None:
    def small(config: Any) -> bool:
        return bool(config["x"] * config["n"] < 1)

    space = Space(dict(SPACE), constraints=[small])
    path = tmp_path / "a.db"
    with Study(space, LOSS, store=path) as s:
        s.tell(ask(s), {"loss": 1.0})
    with Study.open(path) as s, pytest.raises(Exception, match="is a Python function: pass the space that has it"):
        assert len(s.trials) == 1
        s.ask()
    with Study.open(path, space=space) as s:
        assert all(small(ask(s).config) for _ in range(20))
        assert replay(s) == []
    with Study(space, LOSS, store=path) as s:
        assert small(ask(s).config)


# -- workers that vanish ---


def saved(job: Job, step: int) -> Checkpoint:
    return Checkpoint(job.trial, step, f"{job.trial}/{step}", "digest")


def test_a_lost_job_is_asked_again_from_its_last_checkpoint() -> None:
    s = study(scheduler=Full(10))
    job = ask(s)
    s.tell(job, {"loss": [9, 8, 7, 6]}, checkpoint=saved(job, 3))
    s.fail(job, "no heartbeat", "lost")
    assert s.trials[0].status == "waiting"
    again = ask(s)
    assert (again.trial, again.start, again.until, again.config) == (0, 3, 10, job.config)
    assert again.sources[0] == saved(job, 3)
    assert s.trials[0].values("loss") == ([1, 2, 3], [9, 8, 7])
    s.tell(again, {"loss": [6, 5, 4, 3, 2, 1, 0]})
    assert s.trials[0].status == "complete" and replay(s) == []


def test_what_a_given_up_worker_says_is_passed_over() -> None:
    s = study(scheduler=Full(10))
    zombie = ask(s)
    s.fail(zombie, "no heartbeat", "lost")
    job = ask(s)
    assert job.trial == zombie.trial
    s.tell(zombie, {"loss": 0.0})
    s.fail(zombie, "too late")
    assert s.trials[0].status == "running" and s.best is None
    s.tell(job, {"loss": 1.0})
    s.tell(job, {"loss": 0.0})  # told twice: the first counts
    assert s.trials[0].last("loss") == 1.0
    assert replay(s) == []


def test_a_job_that_kills_its_workers_fails_in_the_end() -> None:
    s = study(scheduler=Full(10))
    for i in range(MAX_CRASHES):
        job = ask(s)
        assert job.trial == 0
        s.fail(job, f"killed by signal 9, {i}", "crashed")
    assert s.trials[0].status == "failed" and ask(s).trial == 1


def test_progress_forgives_crashes() -> None:
    s = study(scheduler=Full(10))
    for step in range(1, 8):
        job = ask(s)
        assert (job.trial, job.start) == (0, step - 1)
        s.tell(job, {"loss": 1.0}, step=step, checkpoint=saved(job, step))
        s.fail(job, "killed by signal 9", "crashed")
    assert s.trials[0].status == "waiting"


def test_a_job_of_another_study_is_refused() -> None:
    s, other = study(), study()
    job = [ask(other) for _ in range(3)][-1]
    for call in (lambda: s.tell(job, {"loss": 1.0}), lambda: s.fail(job, "no")):
        with pytest.raises(ValueError, match="has not asked for trial 2: the job is another study's"):
            call()
    with pytest.raises(TypeError, match="ask gives None where none is left"):
        s.tell(None, {"loss": 1.0})  # type: ignore[call-overload]
    assert len(s.events()) == 1


def test_the_best_checkpoint_is_kept_while_another_is_best_for_a_moment() -> None:
    s = study(scheduler=Full(2))
    first, second = ask(s), ask(s)
    s.tell(first, {"loss": 0.5}, checkpoint=saved(first, 2))
    s.tell(second, {"loss": 0.1}, step=1, checkpoint=saved(second, 1))
    assert {(0, 2), (1, 1)} <= s.keep()
    s.tell(second, {"loss": 0.9}, checkpoint=saved(second, 2))
    assert s.best is s.trials[0] and (0, 2) in s.keep()


def test_a_state_that_is_written_after_it_was_told_counts() -> None:
    """Whatever has become of the trial since; the newest step comes last."""
    s = study(scheduler=Full(4))
    first, second = ask(s), ask(s)
    s.tell(first, {"loss": [4.0, 3.0]}, step=2)
    s.tell(first, {"loss": [2.0, 1.0]}, checkpoint=saved(first, 4))
    s.tell(second, {"loss": [4.0, 3.0]}, step=2)
    s.fail(second, "no more")
    for job, step in ((first, 3), (first, 1), (second, 2)):
        s.written(job.ask, saved(job, step))
    assert s.trials[0].checkpoints == [saved(first, 1), saved(first, 3), saved(first, 4)]
    assert s.trials[1].checkpoints == [saved(second, 2)]
    assert [one.step for one in s.trials.sources(s.trials[0], 3)] == [3, 1]
    assert replay(s) == []


def test_a_state_that_was_told_by_another_job_is_passed_over() -> None:
    """The trial was trained again meanwhile: this is not the state whose values the log has."""
    s = study(scheduler=Full(4))
    zombie = ask(s)
    s.tell(zombie, {"loss": [4.0, 3.0, 2.0]})
    s.fail(zombie, "no heartbeat", "lost")
    job = ask(s)
    assert (job.trial, job.start) == (0, 0)
    s.tell(job, {"loss": [4.0, 3.0]}, step=2)
    for one, step in ((zombie, 2), (zombie, 3), (job, 2)):
        s.written(one.ask, saved(one, step))
    assert s.trials[0].checkpoints == [saved(job, 2)]
    s.tell(job, {"loss": [2.0, 1.0]})
    s.written(job.ask, saved(job, 5))  # never told
    assert s.trials[0].checkpoints == [saved(job, 2)]


def test_what_is_needed_is_kept_whether_the_log_knows_that_it_was_written_or_not() -> None:
    s = study(scheduler=PBT(population=2, ready=1, steps=3))
    first, second = ask(s), ask(s)
    s.tell(first, {"loss": 2.0})
    s.tell(second, {"loss": 1.0}, checkpoint=saved(second, 1))
    assert {(0, 1), (1, 1)} <= s.needed() == s.keep()


def test_an_ancestor_is_no_source_beyond_the_step_where_the_training_of_its_child_began() -> None:
    """The child went on from an earlier state than it was to: later ones of its parent are not its ancestors'."""
    s = study(scheduler=PBT(population=4, ready=2, steps=6, synchronous=True))
    jobs = [ask(s) for _ in range(4)]
    for loss, job in enumerate(jobs):
        s.tell(job, {"loss": [1.0, float(loss)]}, checkpoint=saved(job, 2))
    fork = next(job for job in s.ask(4) if job.parent is not None)
    assert fork.start == 2 and fork.sources[0].step == 2
    s.tell(fork, {"loss": [0.9, 0.8, 0.7]}, step=4)  # from step 1
    trial = s.trials[fork.trial]
    assert [(one.trial, one.step) for one in s.trials.sources(trial, 4)] == []
    s.fail(fork, "x", "lost")


def test_lost_is_never_held_against_a_trial() -> None:
    s = study()
    for _ in range(3 * MAX_CRASHES):
        s.fail(ask(s), "preempted", "lost")
    assert len(s.trials) == 1


# -- results of others ---


def test_add_and_enqueue() -> None:
    s = study(trials=2)
    s.add({"x": 0.25, "n": 3}, {"loss": 0.1})
    assert s.enqueue({"x": 0.5, "n": 4})
    assert not s.enqueue({"x": 0.5, "n": 4}) and not s.enqueue({"x": 0.25, "n": 3})
    job = ask(s)
    assert job.config == {"x": 0.5, "n": 4}
    s.tell(job, {"loss": 0.2})
    s.tell(ask(s), {"loss": 0.3})
    assert s.ask() is None and "all 2 trials were started" in s.message
    assert s.best is s.trials[0] and len(s.trials) == 3
    assert replay(s) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.add({"x": 2.0, "n": 1}, {"loss": 1.0}), "'x'.*2.0"),
        (lambda s: s.add({"x": 0.5}, {"loss": 1.0}), "'n'"),
        (lambda s: s.add({"x": 0.5, "n": 1}, {"loss": math.nan}), "not finite"),
        (lambda s: s.enqueue({"x": 0.5, "n": 1, "y": 2}), "'y'"),
    ],
)
def test_wrong_configurations_are_refused(call: Any, message: str) -> None:
    s = study()
    with pytest.raises(ValueError, match=message):
        call(s)
    assert len(s.events()) == 1


BRANCHES = Space(
    {
        "x": Float(0.0, 1.0),
        "y": Float(0.0, 1.0),
        "o": Categorical(
            {
                "a": Space({"m": Float(0.0, 1.0)}),
                "b": None,
                "c": Space({"m": Ordinal([7, 8]), "k": Categorical({1: Space({"z": Integer(1, 3)}), 2: None})}),
            }
        ),
    },
    [less_than("x", "y")],
)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"x": 0.9, "y": 0.1}, "no configuration with {'x': 0.9, 'y': 0.1} was found that the constraints allow"),
        ({"x": 1.0}, "no configuration with {'x': 1.0} was found"),
        ({"o": "b", "m": 0.5}, "'o', 'm' are never active together"),
        ({"k": 2, "z": 1}, "'k', 'z' are never active together"),
        ({"m": 0.5, "z": 1}, "'m', 'z' are never active together"),
        ({"m": 9}, "parameter 'm'=9: must be"),
        ({"q": 9}, "parameter 'q'=9 is unknown"),
    ],
)
def test_parts_that_no_configuration_has_are_refused(part: Any, message: str) -> None:
    s = Study(BRANCHES, LOSS, samplers.Uniform())
    with pytest.raises(ValueError, match=re.escape(message)):
        s.enqueue(part)
    assert len(s.events()) == 1


def test_what_stays_in_the_queue_is_said() -> None:
    s = study(trials=2, sampler=samplers.Uniform())
    for n in range(1, 5):
        assert s.enqueue({"n": n})
    s.tell(ask(s), {"loss": 0.3})
    job = ask(s)
    assert s.ask() is None and s.message == "all 2 trials were started"
    s.tell(job, {"loss": 0.3})
    assert s.ask() is None and s.message == "all 2 trials were started; 2 enqueued configurations were not tried"


def test_nothing_is_enqueued_that_will_not_be_tried() -> None:
    """The search of some schedulers ends by itself; a part of it may be over before."""
    for scheduler in (
        Hyperband(max_steps=3, rounds=1),
        PBT(population=3, ready=1, steps=2),
        Chain(SuccessiveHalving(max_steps=3, rounds=1), PBT(population=2, ready=1, steps=9)),
    ):
        s = study(sampler=samplers.QMC(), scheduler=scheduler)
        assert s.enqueue({"x": 0.125})
        while job := s.ask():
            s.tell(job, {"loss": [0.0] * (job.until - job.start)})
            if isinstance(scheduler, Chain) and job.until > 3:
                assert not s.enqueue({"x": 0.75}) and "chosen" in s.message
        assert not s.enqueue({"x": 0.75}) and s.message and s.trials[0].config["x"] == 0.125
        assert s.ask() is None and replay(s) == []


def test_what_was_added_meanwhile_is_not_tried_again() -> None:
    s = study()
    for n in (1, 2):
        s.enqueue({"x": 0.5, "n": n})
    s.add({"x": 0.5, "n": 1}, {"loss": 0.1})
    assert ask(s).config == {"x": 0.5, "n": 2} and ask(s).config["x"] != 0.5
    assert replay(s) == []


def test_added_results_do_not_join_a_population() -> None:
    s = study(scheduler=PBT(population=3, ready=1, steps=3))
    s.add({"x": 0.25, "n": 3}, {"loss": -5.0})
    while job := s.ask():
        s.tell(job, {"loss": 1.0})
    assert sum(t.parent is None for t in s.trials) == 4
    assert replay(s) == []


# -- migration ---


def advance(s: Study, n: int) -> list[Job]:
    jobs = []
    for _ in range(n):
        job = ask(s)
        jobs.append(job)
        s.tell(job, {"loss": float(job.config["x"] or 0)}, checkpoint=saved(job, job.until))
    return jobs


@pytest.mark.parametrize("scheduler", [Full(4), PBT(population=4, ready=2, steps=60)])
def test_a_space_is_widened_narrowed_and_grows(tmp_path: Path, scheduler: Any) -> None:
    path = tmp_path / "a.db"
    s = study(store=path, scheduler=scheduler, sampler=samplers.QMC())
    advance(s, 10)
    s.change(space=Space({"x": Float(0.0, 5.0), "n": Integer(1, 8)}))
    advance(s, 10)
    s.change(space=Space({"x": Float(0.0, 0.4), "n": Integer(1, 8), "y": Ordinal([1, 2, 4])}), fill={"y": 2})
    jobs = advance(s, 12)
    assert all("y" in job.config for job in jobs)
    fresh = [job for job in jobs if s.trials[job.trial].ask == job.ask and not s.trials[job.trial].reports[:-1]]
    assert fresh and all(float(job.config["x"] or 0) <= 0.4 for job in fresh)
    assert s.trials[0].config["y"] == 2
    assert replay(s) == []
    s.close()
    with Study.open(path) as again:
        assert isinstance(again.events()[31], Changed)
        assert again.space == Space({"x": Float(0.0, 0.4), "n": Integer(1, 8), "y": Ordinal([1, 2, 4])})
        advance(again, 3)
        assert replay(again) == []


def test_a_new_parameter_needs_a_value_for_the_past() -> None:
    s = study()
    advance(s, 1)
    with pytest.raises(TunesmithError, match="parameter 'y' is new"):
        s.change(space=Space({**SPACE, "y": Float(0.0, 1.0)}))
    assert not any(isinstance(event, Changed) for event in s.events())


def test_a_new_branch_and_a_lost_parameter() -> None:
    s = study()
    advance(s, 3)
    s.change(
        space=Space({"x": Float(0.0, 1.0), "opt": Categorical({"sgd": Space({"m": Float(0.0, 1.0)}), "adam": None})}),
        fill={"opt": "sgd", "m": 0.5},
    )
    assert all(set(t.config) == {"x", "opt", "m"} for t in s.trials)
    advance(s, 3)
    assert replay(s) == []


Y = Float(0.0, 1.0)
WITH_Y = Space({"x": Float(0.0, 1.0), "y": Y})
WITHOUT_Y = Space({"x": Float(0.0, 1.0)})


@pytest.mark.parametrize("sampler", [samplers.Uniform(), samplers.TPE(startup=2), samplers.CMAES()])
def test_a_parameter_that_was_removed_comes_back_with_the_values_that_trials_had(sampler: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    s = Study(WITH_Y, LOSS, sampler, store=path)
    jobs = advance(s, 5)
    s.change(space=WITHOUT_Y)
    assert all(set(trial.config) == {"x"} for trial in s.trials)
    s.change(space=WITH_Y)  # nobody lacks it
    assert [trial.config for trial in s.trials] == [job.config for job in jobs]
    s.change(space=WITHOUT_Y)
    advance(s, 2)
    with pytest.raises(StudyError, match="parameter 'y' is new"):
        s.change(space=WITH_Y)
    s.change(space=WITH_Y, fill={"y": 0.25})
    advance(s, 2)
    s.close()
    with Study.open(path) as again:
        assert [trial.config for trial in again.trials[:5]] == [job.config for job in jobs]
        assert [trial.config["y"] for trial in again.trials[5:7]] == [0.25, 0.25]
        assert replay(again) == []


BRANCH = {"a": Space({"m": Y}), "b": None}


@pytest.mark.parametrize(
    ("options", "fill", "message"),
    [
        ({"a": Space({"m": Y, "k": Y}), "b": None}, {}, "parameter 'k' is new: say with fill={'k': ...}"),
        ({"a": Space({"m": Y, "k": Y}), "b": None}, {"k": 3}, "fill={'k': 3}: parameter 'k'=3: must be a number"),
        ({"a": Space({"m": Y, "k": Y}), "b": None}, {"kk": 0.3}, "fill={'kk': 0.3}: parameter 'kk'=0.3 is unknown"),
        ({"a": Space({"m": Y, "k": Y}), "b": None}, {"k": 0.3, "m": 0.3}, "no trial lacks a value of 'm': leave it"),
        ({"a": Space({"m": Y}), "b": Space({"k": Y}), "c": Space({"z": Y})}, {"k": 0.1, "z": 0.1}, "a value of 'z'"),
        ({"a": Space({"m": Y}), "b": Space({"m": Y})}, {}, "parameter 'm' is new"),
    ],
)
def test_wrong_values_of_the_past_change_nothing(options: Any, fill: Any, message: str) -> None:
    s = Study(Space({"o": Categorical(BRANCH)}), LOSS, samplers.QMC())
    for _ in range(4):
        s.tell(ask(s), {"loss": 1.0})
    assert {trial.config["o"] for trial in s.trials} == {"a", "b"}
    before = s.events()
    with pytest.raises(StudyError, match=re.escape(message)):
        s.change(space=Space({"o": Categorical(options)}), fill=fill)
    assert s.events() == before and s.ask() is not None


@pytest.mark.parametrize("share", [0.05, 5.0, "half"])
def test_a_fidelity_of_the_past_is_one_that_there_is(share: Any) -> None:
    s = Study(WITHOUT_Y, LOSS, samplers.Uniform())
    advance(s, 2)
    space = Space({"x": Float(0.0, 1.0), "share": Fidelity(0.1, 1.0)})
    with pytest.raises(StudyError, match=r"parameter 'share'=.* must be a number from 0.1 to 1.0"):
        s.change(space=space, fill={"share": share})
    s.change(space=space, fill={"share": 0.25})
    assert [trial.config["share"] for trial in s.trials] == [0.25, 0.25]


def test_a_population_is_trained_for_longer() -> None:
    s = study(scheduler=PBT(population=4, ready=2, steps=4))
    while job := s.ask():
        s.tell(job, {"loss": float(job.config["x"])}, checkpoint=saved(job, job.until))  # type: ignore[arg-type]
    s.change(scheduler=PBT(population=4, ready=2, steps=8))
    job = ask(s)
    assert job.start == 4 and job.sources
    s.tell(job, {"loss": 0.0})
    assert replay(s) == []


# -- views ---


def test_best_and_front() -> None:
    s = Study(SPACE, [Goal("accuracy", maximise=True), Goal("latency")], constraints=[Constraint("memory", 8.0)])
    values = [(0.9, 5, 1), (0.8, 1, 1), (0.7, 2, 1), (0.99, 1, 9), (0.9, 5, 1)]
    for accuracy, latency, memory in values:
        s.tell(ask(s), {"accuracy": accuracy, "latency": latency, "memory": memory})
    assert s.best is s.trials[0]
    assert [trial.id for trial in s.front] == [0, 1, 4]


def test_best_is_by_the_latest_value() -> None:
    s = study(scheduler=Full(3))
    s.tell(ask(s), {"loss": [0.1, 0.2, 0.9]})
    s.tell(ask(s), {"loss": [0.8, 0.7, 0.6]})
    assert s.best is s.trials[1]


def test_an_empty_study_has_no_best() -> None:
    s = study()
    assert s.best is None and s.front == [] and s.running == []
    assert repr(s) == "Study('study', 0 trials)"


def test_the_log_is_what_was_asked_and_told() -> None:
    s = study()
    job = ask(s)
    s.tell(job, {"loss": 1.0}, seconds=2.5)
    s.fail(ask(s), "bad luck", "timeout")
    kinds = [type(event) for event in s.events()[1:]]
    assert kinds == [Asked, Told, Asked, Failed]
    assert s.events()[2] == Told(0, 0, 0, {"loss": [1.0]}, 2.5)
    assert (s.trials[1].status, s.trials[1].kind, s.trials[1].error) == ("failed", "timeout", "bad luck")


# -- wrong use ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": {"x": Float(0.0, 1.0)}}, "space must be a Space"),
        ({"goals": []}, "goals must be a list of Goal"),
        ({"goals": ["loss"]}, "goals must be a list of Goal"),
        ({"goals": [Goal("a"), Goal("a", maximise=True)]}, "goals name a metric twice: a, a"),
        ({"sampler": samplers.QMC}, r"sampler must be an object such as samplers\.QMC\(\)"),
        ({"scheduler": "pbt"}, r"scheduler must be an object such as schedulers\.Full"),
        ({"seed": 0.5}, "seed must be an integer, not 0.5"),
        ({"seed": True}, "seed must be an integer, not True"),
        ({"trials": "3"}, "trials must be a number of trials, at least 0, or None for no limit, not '3'"),
        ({"trials": -1}, "trials must be a number of trials.*-1"),
    ],
)
def test_wrong_definitions_are_explained(arguments: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Study(**{"space": SPACE, "goals": LOSS, **arguments})


def test_constraints_that_leave_nothing() -> None:
    space = Space({"a": Integer(1, 3), "b": Integer(1, 3)}, constraints=[less_than("a", "b"), less_than("b", "a")])
    s = Study(space, LOSS)
    assert s.ask() is None and "constraints leave (almost) nothing" in s.message
    s.change(space=Space(dict(SPACE)))
    assert s.ask() is not None


def test_a_job_of_a_known_trial_that_another_handle_has_asked_for(tmp_path):
    space, slices = Space({"x": Float(0.0, 1.0)}), Median(3, min_trials=50)
    one = Study(space, Goal("loss"), samplers.Uniform(), slices, tmp_path / "study.db", trials=1)
    other = Study.open(tmp_path / "study.db", trials=1)
    one.tell(one.ask(), {"loss": 3.0})
    other.sync()
    other.tell(one.ask(), {"loss": 2.0})
    one.fail(other.ask(), "on purpose")
    assert other.sync() and other.trials[0].status == "failed" and other.trials[0].step == 2
    one.close()
    other.close()


def test_states_of_the_front_stay_while_one_in_training_is_better_for_a_while():
    space, slices = Space({"x": Float(0.0, 1.0)}), Median(2, min_trials=50)
    study = Study(space, [Goal("a"), Goal("b")], samplers.Uniform(), slices, trials=3)
    values = {0: [(9, 9), (1, 2)], 1: [(9, 9), (2, 1)], 2: [(0, 0), (5, 5)]}
    while (job := study.ask()) is not None:
        a, b = values[job.trial][job.start]
        study.tell(job, {"a": a, "b": b}, checkpoint=Checkpoint(job.trial, job.until, "where", "digest"))
        if job.trial == 2:
            assert {(0, 2), (1, 2)} <= study.keep()
        assert [trial.id for trial in study.front] != [2] or (job.trial, job.until) == (2, 1)
    assert [trial.id for trial in study.front] == [0, 1]


def test_states_of_every_best_value_on_the_front_stay() -> None:
    goals = [Goal("loss", scope="best"), Goal("top", maximise=True, scope="best"), Goal("time")]
    s = Study(SPACE, goals, samplers.QMC(), Full(4))
    first, second = s.ask(2)
    s.tell(first, {"loss": [3.0, 1.0, 2.0, 2.0], "top": [1.0, 1.0, 9.0, 2.0], "time": [1.0] * 4})
    s.tell(second, {"loss": [0.5, 1.0, 2.0, 2.0], "top": [1.0, 2.0, 3.0, 2.0], "time": [2.0] * 4})
    assert [trial.id for trial in s.front] == [0, 1]
    assert {(0, 2), (0, 3), (0, 4), (1, 1), (1, 3), (1, 4)} <= s.needed()


HUGE = 10**9


@pytest.mark.parametrize(
    "scheduler",
    [
        Full(HUGE),
        Full(HUGE, seeds=2),
        Race(steps=HUGE),
        ASHA(max_steps=HUGE),
        ASHA(max_steps=HUGE, stopping=True),
        SuccessiveHalving(max_steps=HUGE),
        Hyperband(max_steps=HUGE),
        Median(HUGE, min_trials=1),
        Median(HUGE, every=HUGE),
        Plateau(HUGE),
        PBT(population=3, ready=HUGE // 2, steps=HUGE),
        PBT(population=3, ready=HUGE // 2, steps=HUGE, exploit=TTest(), explore=PB2()),
    ],
    ids=repr,
)
def test_steps_may_be_very_many_where_trainings_end_by_themselves(scheduler: Any) -> None:
    """A limit that nobody reaches costs nothing."""
    s = study(scheduler=scheduler, sampler=samplers.TPE(startup=2), trials=6)
    jobs = 0
    while job := s.ask():
        jobs += 1
        steps = min(5, job.until) - job.start
        s.tell(job, {"loss": [job.config["x"]] * max(1, steps)}, ended=steps < job.until - job.start)
        assert jobs < 100
    assert s.best is not None and any(trial.ended for trial in s.trials)
    assert replay(s) == []
