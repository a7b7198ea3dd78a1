"""What holds of the vectorised executor with every backend. ``Toy`` counts its steps, and mixes every hyperparameter
that it was ever given into one whole number, so that a step that is lost, repeated or begun from wrong weights shows.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib import import_module
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest

import tunesmith as ts
from tunesmith.analysis.schedule import schedule
from tunesmith.execution import (
    CheckpointError,
    Checkpoints,
    Inline,
    Lease,
    Options,
    Vectorised,
    drive,
    driver,
    run,
    vectorised,
)
from tunesmith.execution.base import Target
from tunesmith.execution.vectorised import for_study
from tunesmith.records import Asked, Checkpointed, Failed, Told
from tunesmith.testing import ExecutorConformance
from tunesmith.trials import Checkpoint

SPACE = ts.Space({"lr": ts.Float(0.125, 1.0), "k": ts.Integer(1, 9)})
WIDE = ts.Space({**SPACE, "width": ts.Categorical([2, 3])})

S = ts.schedulers
SCHEDULERS = {
    "pbt": S.PBT(population=6, ready=3, steps=12),
    "generations": S.PBT(population=6, ready=3, steps=12, synchronous=True),
    "asha": S.ASHA(9),
    "hyperband": S.Hyperband(9),
    "full": S.Full(7),
}
CHAIN = S.Chain(S.ASHA(3), S.PBT(population=4, ready=1, steps=6))
SYNCHRONOUS = {
    "generations": SCHEDULERS["generations"],
    "tournament": S.PBT(population=6, ready=2, steps=8, exploit=S.Tournament(), synchronous=True),
    "jitter": S.PBT(population=6, ready=4, steps=12, explore=S.Jitter(), synchronous=True),
    "backtrack": S.PBT(population=6, ready=2, steps=10, backtrack=S.Backtrack(), synchronous=True),
    "inherit": S.PBT(population=6, ready=3, steps=12, inherit="weights", synchronous=True),
    "mfpbt": S.MFPBT(population=8, ready=2, steps=10, frequencies=(1, 2), synchronous=True),
}


def options(root, **others):
    return Options(("score",), str(root), report_seconds=60.0, **others)


def mixed(x, config):
    return (17 * x + int(np.float32(config["lr"]) * 2**12) + config["k"]) % 4093


def story(study):
    """The log without the names of the workers, their seconds, and checkpoints."""
    told = [event for event in study.events() if type(event) in (Asked, Told, Failed)]
    return [
        {name: getattr(event, name) for name in event.__struct_fields__ if name not in ("worker", "seconds", "seen")}
        for event in told
    ]


def trials(study):
    return [(t.config, t.parent, t.start, t.step, t.status, t.values("score")) for t in study.trials]


class Stacked(ExecutorConformance):
    """Subclasses supply ``task(**options)``: ``Toy`` for their backend, whose state is a tree with ``x`` and ``w``.

    ``every`` is how often checkpoints are written by the process that is killed.
    """

    every = 1

    def task(self, **given):
        raise NotImplementedError

    def study(self, scheduler="generations", space=SPACE, **given):
        number = 12 if scheduler in ("asha", "hyperband", "full") else None
        given = {"trials": number} | given
        scheduler = {**SCHEDULERS, **SYNCHRONOUS}.get(scheduler, scheduler)
        given = {"sampler": ts.samplers.Uniform()} | given
        return ts.Study(space, ts.Goal("score", maximise=True), scheduler=scheduler, **given)

    def trained(self, root, scheduler="generations", space=SPACE, executor=None, task=None, **given):
        study = self.study(scheduler, space, **given)
        executor = executor or Vectorised(task or self.task(), options(root), members=6, keep=study.needed)
        assert drive(study, executor, checkpoints=Checkpoints(root)) == "done"
        return study

    def jobs(self, executor, jobs):
        """Run several jobs at once: by ask, the last report with the metrics of all."""
        for job in jobs:
            executor.submit(job)
        ends = {}
        while not all(report.done for report in ends.values()) or len(ends) < len(jobs):
            for report in executor.wait(1.0):
                before = ends.get(report.ask)
                if before is not None:
                    metrics = {name: before.metrics[name] + values for name, values in report.metrics.items()}
                    report = dataclasses.replace(report, start=before.start, metrics=metrics)
                ends[report.ask] = report
        return ends

    # -- the suite, where the training differs

    def make(self, train, options):
        return Vectorised(train, options, members=4)

    def test_a_failure_ends_one_job(self, tmp_path):
        """One member diverges: its values up to there are told, and the others go on."""
        with self.executor(tmp_path) as executor:
            ends = self.jobs(executor, [self.job(0, 0, 5), self.job(1, 0, 5, fails=3), self.job(2, 0, 5, fails=9)])
            assert ends[0].metrics["score"] == [1.0, 2.0, 3.0, 4.0, 5.0]
            assert ends[1].metrics["score"][:2] == [1.0, 2.0] and np.isnan(ends[1].metrics["score"][2:]).all()
            assert len(ends[1].metrics["score"]) == 3 and ends[1].saved is None
            assert ends[2].metrics["score"] == [1.0, 2.0, 3.0, 4.0, 5.0]
            assert self.finish(executor, self.job(3, 0, 2))[-1].failure is None

    # -- the same studies as with other executors

    @pytest.mark.parametrize("scheduler", SCHEDULERS)
    def test_one_at_a_time_it_writes_the_log_that_the_inline_executor_writes(self, scheduler, tmp_path):
        given = {"sampler": ts.samplers.QMC()}
        alone = self.trained(tmp_path / "a", scheduler, executor=Inline(self.task(), options(tmp_path / "a")), **given)
        one = Vectorised(self.task(members=1), options(tmp_path / "b"))
        stacked = self.trained(tmp_path / "b", scheduler, executor=one, **given)
        assert story(alone) == story(stacked)
        assert ts.replay(stacked) == []

    @pytest.mark.parametrize("scheduler", SYNCHRONOUS)
    def test_a_study_is_the_same_whoever_trains_it(self, scheduler, tmp_path, monkeypatch):
        """Bit by bit: member by member, together, some at a time, in waves, and with few states on disk."""
        inline = Inline(self.task(), options(tmp_path / "inline"))
        study = self.trained(tmp_path / "inline", scheduler, executor=inline)
        self.check(study)
        want = trials(study)
        assert any(trial.parent is not None for trial in study.trials)
        monkeypatch.setattr(vectorised, "WAVE", 2)
        ways = {
            "together": self.task(),
            "unsaved": self.task(save_every_jobs=100),
            "waves": self.task(chunk=2, members=6),
            "waves, unsaved": self.task(chunk=2, members=6, save_every_jobs=100),
            "too few rows": self.task(chunk=4, members=5),
            "chosen": self.task(chunk=None, members=6),
        }
        for way, task in ways.items():
            if scheduler == "generations" or way in ("waves, unsaved", "too few rows"):
                other = self.trained(tmp_path / way, scheduler, task=task)
                assert trials(other) == want, way
                assert ts.replay(other) == []

    @pytest.mark.parametrize("scheduler", SCHEDULERS)
    @pytest.mark.parametrize(("every", "wave"), [(1, 99), (3, 99), (1, 2), (3, 2)])
    def test_every_scheduler_to_its_end(self, scheduler, every, wave, tmp_path, monkeypatch):
        monkeypatch.setattr(vectorised, "WAVE", wave)
        space = ts.Space({**SPACE, "batch": ts.Categorical([1, 2])})  # static, but no matter of shapes
        study = self.study(scheduler, space)
        task = self.task(save_every_jobs=every, chunk=min(wave, 8))
        executor = Vectorised(task, options(tmp_path), members=6, keep=study.needed)
        assert drive(study, executor, checkpoints=Checkpoints(tmp_path)) == "done"
        self.check(study)
        assert ts.replay(study) == []
        assert sum(trial.parent is None for trial in study.trials) == study.limit or 6

    def check(self, study):
        """Every value that was ever told is what the configurations of the trial and of its ancestors make of it, from
        the state with which the training began; and the schedule of every trial leads to its last value.
        """
        state = {}
        for event in study.events():
            if type(event) is not Told:
                continue
            trial = study.trials[event.trial]
            line = [trial]
            while line[-1].parent is not None:
                line.append(study.trials[line[-1].parent])
            known = (state[one.id, event.start] for one in line if (one.id, event.start) in state)
            x = 0 if event.start == 0 else next(known)
            for step, value in enumerate(event.metrics["score"], event.start + 1):
                state[trial.id, step] = x = mixed(x, trial.config)
                assert value == x, (trial, step)
        for trial in study.trials:
            steps, values = trial.values("score")
            assert steps == list(range(steps[0], trial.step + 1)) if steps else trial.step == trial.start, trial
            if steps:
                found, x = schedule(study, trial.id), 0
                for step in range(trial.step):
                    x = mixed(x, found(step))
                assert x == values[-1], trial

    # -- forks

    def test_a_fork_is_a_copy_on_the_device_bit_by_bit(self, tmp_path):
        """The source goes on at the same time, and nothing is on disk that could be loaded."""
        task = self.task(chunk=8)
        with closing(Vectorised(task, Options(("score",), None), members=4)) as executor:
            first = self.jobs(executor, [self.job(n, 0, 2)._replace(seed=n) for n in (0, 1, 3)])
            fork = ts.Job(2, 2, {"lr": 0.5, "k": 3}, 2, 3, 0, "", 0, forked=2)
            both = self.jobs(executor, [self.job(0, 2, 3)._replace(ask=10), fork])
            [room] = executor._rooms._rooms.values()
            rows = {place: idle.row for place, idle in room.resident.items()}
            states = room.stack.take([rows[0, 3], rows[2, 3], rows[1, 2]]).trees()
        assert first[0].saved is None and both[2].start == 2
        assert np.asarray(states[0]["w"]).tobytes() == np.asarray(states[1]["w"]).tobytes()
        assert np.asarray(states[0]["w"]).tobytes() != np.asarray(states[2]["w"]).tobytes()

    def test_exploit_reads_nothing_from_disk(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Checkpoints, "load", lambda *a: pytest.fail("read from disk"))
        for scheduler in ("pbt", "generations"):
            study = self.trained(tmp_path / scheduler, scheduler)
            assert any(trial.parent is not None for trial in study.trials)
            self.check(study)

    @pytest.mark.parametrize("scheduler", ["asha", "hyperband", "pbt"])
    def test_states_that_are_not_on_disk_stay_in_memory(self, scheduler, tmp_path, monkeypatch):
        """More of them than there are rows: the first ones in small stacks, the others on the host."""
        monkeypatch.setattr(Checkpoints, "load", lambda *a: pytest.fail("read from disk"))
        study = self.study(scheduler, **({} if scheduler == "pbt" else {"trials": 16}))
        task = self.task(members=2, save_every_jobs=100)
        executor = Vectorised(task, options(tmp_path), keep=study.needed)
        most = 0

        def look(study):
            nonlocal most
            most = max([most, *(len(room.parked) for room in executor._rooms._rooms.values())])

        monkeypatch.setattr("tunesmith.execution.driver._PROGRESS", 0.0)
        assert drive(study, executor, checkpoints=Checkpoints(tmp_path), progress=look) == "done"
        assert most > (2 * 2 if scheduler == "asha" else 2)
        self.check(study)

    def test_stacks_in_which_nobody_trains_are_freed(self, tmp_path, monkeypatch):
        """Every width has a stack of its own, and each is gone when its trial is complete."""
        monkeypatch.setattr("tunesmith.execution.driver._PROGRESS", 0.0)
        space = ts.Space({**SPACE, "width": ts.Integer(1, 12)})
        study = self.study(S.Full(2), space, trials=12, sampler=ts.samplers.QMC())
        executor = Vectorised(self.task(members=1, save_every_jobs=100), options(tmp_path), keep=study.needed)
        stacks = []

        def look(study):
            stacks.append(sum(room.rows + len(room.parked) for room in executor._rooms._rooms.values()))

        assert drive(study, executor, checkpoints=Checkpoints(tmp_path), progress=look) == "done"
        assert len({trial.config["width"] for trial in study.trials}) >= 6
        assert max(stacks) <= 1 + 1 + 2  # in training, just complete, and the best ones

    def test_groups_with_other_shapes(self, tmp_path):
        study = self.trained(tmp_path, "full", WIDE)
        self.check(study)
        assert {trial.config["width"] for trial in study.trials} == {2, 3}
        with closing(Vectorised(self.task(), options(tmp_path), members=4)) as executor:
            self.jobs(executor, [ts.Job(0, 0, {"lr": 0.5, "k": 1, "width": 2}, 0, 1, None, "", 0)])
            ends = self.jobs(executor, [ts.Job(1, 1, {"lr": 0.5, "k": 1, "width": 3}, 1, 2, 0, "", 0, forked=1)])
        assert "other shapes" in ends[1].failure.error and ends[1].failure.kind == "raised"
        assert "fixed=True" in ends[1].failure.error and "\n" not in ends[1].failure.error

    def test_weights_of_another_shape_on_disk_are_refused_in_one_line(self, tmp_path):
        config = {"lr": 0.5, "k": 1, "width": 2}
        with closing(Vectorised(self.task(), options(tmp_path), members=2)) as executor:
            saved = self.jobs(executor, [ts.Job(0, 0, config, 0, 1, None, "", 0)])[0].saved
        source = Checkpoint(0, saved.step, saved.where, saved.digest)
        with closing(Vectorised(self.task(), options(tmp_path), members=2)) as executor:
            fork = ts.Job(1, 1, config | {"width": 3}, 1, 2, 0, "", 0, (source,), forked=1)
            [end] = self.jobs(executor, [fork]).values()
        line = end.failure.error
        assert "w is" in line and "[2]" in line and "[3]" in line and "fixed=True" in line and "\n" not in line

    @pytest.mark.parametrize("scheduler", [S.PBT(population=6, ready=3, steps=12), CHAIN])
    def test_a_population_whose_shapes_may_change_is_refused_at_the_start(self, scheduler, tmp_path):
        for space in (WIDE, ts.Space({**SPACE, "width": ts.Integer(2, 30)})):
            with pytest.raises(ValueError, match=r"^width decides the shapes .*fixed=True"):
                for_study(self.task(), options(tmp_path), self.study(scheduler, space, trials=8))
        for space in (SPACE, ts.Space({**SPACE, "width": 2}), ts.Space({**SPACE, "batch": ts.Categorical([1, 2])})):
            for_study(self.task(), options(tmp_path), self.study(scheduler, space, trials=8)).close()
        for_study(self.task(), options(tmp_path), self.study("asha", WIDE)).close()

    @pytest.mark.parametrize("scheduler", ["pbt", "generations", CHAIN])
    def test_a_population_may_choose_among_shapes_that_are_fixed(self, scheduler, tmp_path):
        space = ts.Space({**SPACE, "width": ts.Ordinal([2, 3], fixed=True), "batch": ts.Ordinal([1, 2])})
        study = self.study(scheduler, space, trials=8 if scheduler is CHAIN else None)
        executor = for_study(self.task(), options(tmp_path), study)
        assert drive(study, executor, checkpoints=Checkpoints(tmp_path)) == "done"
        assert not study.trials.failed
        forks = [trial for trial in study.trials if trial.parent is not None]
        assert forks and all(fork.config["width"] == study.trials[fork.parent].config["width"] for fork in forks)
        self.check(study)

    def test_a_static_name_that_the_space_has_not_is_refused(self, tmp_path):
        task = type(self).task.__wrapped__(static=("widht",))
        with pytest.raises(ValueError, match="has no 'widht'; it has lr, k, width"):
            for_study(task, options(tmp_path), self.study("full", WIDE))
        branch = ts.Space({"a": ts.Categorical({"x": ts.Space({"widht": 3}), "y": None})})
        for_study(task, options(tmp_path), self.study("full", branch)).close()

    # -- members that come, go and fail

    def test_members_that_diverge_fail_alone(self, tmp_path):
        space = ts.Space({**SPACE, "fails": ts.Integer(1, 20)})
        study = self.trained(tmp_path, "full", space, trials=24)
        for trial in study.trials:
            fails = trial.config["fails"] <= 7
            assert (trial.kind == "non-finite") == fails
            assert trial.step == (trial.config["fails"] - 1 if fails else 7)
        assert {trial.status for trial in study.trials} == {"complete", "failed"}
        self.check(study)
        assert ts.replay(study) == []

    def test_a_mistake_in_the_training_ends_the_run_with_its_message(self, tmp_path):
        study = self.study("full", ts.Space({**SPACE, "wrong": True}))
        with pytest.raises(ts.TunesmithError, match=r"trials in a row have failed(?s:.)*a mistake on purpose"):
            drive(study, Vectorised(self.task(), options(tmp_path), members=2), max_failures=3)

    def test_a_missing_metric_is_named(self, tmp_path):
        executor = Vectorised(self.task(), Options(("accuracy",), str(tmp_path)), members=2)
        with closing(executor):
            end = self.finish(executor, self.job(0, 0, 2))[-1]
        assert "'accuracy'" in end.failure.error and end.metrics == {}

    def test_jobs_of_unequal_lengths_end_where_they_should(self, tmp_path):
        with self.executor(tmp_path) as executor:
            ends = self.jobs(executor, [self.job(n, 0, steps) for n, steps in enumerate((1, 7, 40, 3))])
        assert [len(ends[n].metrics["score"]) for n in range(4)] == [1, 7, 40, 3]
        assert [ends[n].saved.step for n in range(4)] == [1, 7, 40, 3]

    def test_a_target_ends_the_job_at_its_step(self, tmp_path):
        space, goal = {"lr": 1.0, "k": 1}, ts.Goal("score", maximise=True)
        values = list(accumulate(range(20), lambda x, _: mixed(x, space), initial=0))[1:]
        values = values[: values.index(max(values)) + 1]
        executor = Vectorised(self.task(), options(tmp_path, target=Target(goal, values[-1])), members=2)
        with closing(executor):
            end = self.jobs(executor, [self.job(0, 0, 1000, k=1)])[0]
        assert end.metrics["score"] == values and len(values) > 3
        assert end.saved.step == len(values) and end.failure.kind == "lost"

    def test_one_member_that_can_not_be_made_fails_alone(self, tmp_path):
        """Its state is larger than any address space: some systems promise all the memory that is asked for."""
        space = ts.Space({**SPACE, "width": ts.Categorical([2, 10**15])})
        study = self.trained(tmp_path, "full", space, sampler=ts.samplers.QMC())
        assert {trial.status for trial in study.trials} == {"complete", "failed"}
        for trial in study.trials:
            assert (trial.kind == "out-of-memory") == (trial.config["width"] > 2) == (trial.status == "failed")
        self.check(study)

    @pytest.mark.parametrize("what", ["stack", "init", "take", "copy", "load", "run"])
    @pytest.mark.parametrize("scheduler", ["generations", "asha"])
    def test_what_does_not_fit_together_is_done_in_parts(self, what, scheduler, tmp_path, monkeypatch):
        """Nothing may have more than two rows; no member fails for it."""
        task = type(self).task.__wrapped__(save_every_jobs=3)
        kind = type(task.stack(task.group({"lr": 0.5, "k": 1}), 1))
        owner = task if what == "stack" else kind
        real = getattr(owner, what)

        def small(*given):
            rows = {"stack": lambda: given[1], "run": lambda: given[0].rows}.get(what, lambda: len(given[1]))()
            if rows > 2:
                raise RuntimeError("RESOURCE_EXHAUSTED: too many")
            return real(*given)

        monkeypatch.setattr(owner, what, small)
        study = self.trained(tmp_path, scheduler, task=task)
        assert not study.trials.failed
        self.check(study)
        assert ts.replay(study) == []

    def test_a_large_number_is_no_matter(self, tmp_path):
        """Neither one that no program can take and nobody reads, nor one that some members have."""
        space = ts.Space({**SPACE, "unread": 2**63 - 1, "huge": 1e300, "seed": ts.Integer(1, 2**40)})
        study = self.trained(tmp_path, S.Full(2), space, trials=3)
        assert [trial.status for trial in study.trials] == ["complete"] * 3
        self.check(study)

    # -- checkpoints

    @pytest.mark.parametrize("end", ["done", "target", "interrupted"])
    @pytest.mark.parametrize("scheduler", ["generations", "pbt", "asha"])
    def test_what_the_study_may_need_is_on_disk_at_an_orderly_end(self, end, scheduler, tmp_path, monkeypatch):
        monkeypatch.setattr("tunesmith.execution.driver._PROGRESS", 0.0)
        study = self.study(scheduler, store=tmp_path / "study.db")
        given = {"target": 2500.0} if end == "target" else {}
        if end == "interrupted":
            given["progress"] = interrupting(times=3)
        assert run(study, self.task(save_every_jobs=100), **given) == end
        self.check_disk(study, study.use_checkpoints())

    def check_disk(self, study, root):
        """What is needed is on disk, and nothing else than what the log says."""
        checkpoints = Checkpoints(root)
        state = {}
        for event in study.events():
            if type(event) is Told:
                for step, value in enumerate(event.metrics["score"], event.start + 1):
                    state[event.trial, step] = value
        needed = {place for place in study.needed() if place in state}
        assert needed
        for trial, step in needed:
            [saved] = [saved for saved in study.trials[trial].checkpoints if saved.step == step]
            tree = checkpoints.load(saved.where, saved.digest)
            assert tree["step"] == step and int(tree["state"]["x"]) == state[trial, step]

    @pytest.mark.parametrize("scheduler", ["generations", "pbt"])
    def test_ended_again_and_again_nothing_is_trained_twice(self, scheduler, tmp_path, monkeypatch):
        monkeypatch.setattr("tunesmith.execution.driver._PROGRESS", 0.0)
        for _ in range(50):
            study = self.study(scheduler, store=tmp_path / "study.db")
            end = run(study, self.task(save_every_jobs=100), progress=interrupting(times=3))
            if end == "done":
                break
            study.close()
        told = sum(len(event.metrics["score"]) for event in study.events() if type(event) is Told)
        assert (end, told) == ("done", 6 * 12)
        self.check(study)
        assert ts.replay(study) == []

    def test_beside_another_driver_every_state_is_on_disk_before_it_is_told(self, tmp_path):
        study = self.study(store=tmp_path / "study.db")
        with Lease(Path(f"{study.store.path}.leases")):
            run(study, self.task(save_every_jobs=100))
        asked = {event.ask: event.until for event in study.events() if type(event) is Asked}
        for before, event in pairwise(study.events()):
            if type(event) is Told and event.step == asked[event.ask]:  # not the news of a job that goes on
                assert type(before) is Checkpointed and (before.trial, before.step) == (event.trial, event.step)

    def test_two_drivers_share_a_population(self, tmp_path):
        self.study("pbt", store=tmp_path / "study.db").close()

        def work():
            with self.study("pbt", store=tmp_path / "study.db") as study:
                return run(study, self.task(save_every_jobs=100, members=3))

        with ThreadPoolExecutor(2) as pool:
            ends = [future.result() for future in [pool.submit(work), pool.submit(work)]]
        assert ends == ["done", "done"]
        with ts.Study.open(tmp_path / "study.db") as study:
            assert sum(trial.step == 12 for trial in study.trials) == 6
            self.check(study)
            assert ts.replay(study) == []

    @pytest.mark.parametrize(("every", "steps"), [(2, 18), (100, 18), (100, 40)])
    def test_a_fork_without_its_source_begins_earlier_and_says_so(self, every, steps, tmp_path, monkeypatch):
        """The states of another driver, which is gone, were in its memory alone."""
        monkeypatch.setattr("tunesmith.execution.driver._PROGRESS", 0.0)
        study = self.study(store=tmp_path / "study.db")
        gone = Vectorised(self.task(save_every_jobs=every), options(tmp_path / "states"), members=6)
        with pytest.raises(EOFError):
            drive(study, Forgetful(gone), checkpoints=Checkpoints(tmp_path / "states"), progress=ending(steps))
        study.close()
        study = self.study(store=tmp_path / "study.db")
        again = Vectorised(self.task(save_every_jobs=every), options(tmp_path / "states"), members=6, keep=study.needed)
        assert drive(study, again, checkpoints=Checkpoints(tmp_path / "states")) == "done"
        asked = {event.ask: event for event in study.events() if type(event) is Asked}
        told = [event for event in study.events() if type(event) is Told]
        assert any(event.start < asked[event.ask].start for event in told)
        self.check(study)
        assert ts.replay(study) == []

    def test_progress_is_saved_in_a_long_job_while_it_goes_on(self, tmp_path):
        given = Options(("score",), str(tmp_path), report_seconds=0.0, checkpoint_seconds=0.0)
        with closing(Vectorised(self.task(chunk=1), given, members=2)) as executor:
            executor.submit(self.job(0, 0, 200))
            reports = self.collect(executor)
        steps = [report.start + len(report.metrics["score"]) for report in reports]
        assert steps == sorted(steps) and steps[-1] == 200 and len(steps) >= 6
        assert [report.saved.step for report in reports] == steps
        assert [report.start for report in reports] == [0, *steps[:-1]]

    def test_what_is_written_stands_in_the_log_before_its_values(self, tmp_path):
        study = self.trained(tmp_path)
        events = study.events()
        for before, event in pairwise(events):
            if type(event) is Told:
                assert type(before) is Checkpointed and (before.trial, before.step) == (event.trial, event.step)

    def test_every_so_many_jobs_and_at_the_end(self, tmp_path):
        study = self.study("full")
        executor = Vectorised(self.task(save_every_jobs=3), options(tmp_path), members=2, last=9)
        with closing(executor):
            saved = []
            for ask, until in enumerate(range(1, 10)):
                end = self.jobs(executor, [self.job(0, until - 1, until)._replace(ask=ask)])[ask]
                saved.append(end.saved is not None)
                assert end.start == until - 1
        assert saved == [False, False, True] * 3
        assert study.trials.running == {}

    def test_a_full_disk_ends_the_run_and_it_can_go_on(self, tmp_path):
        root = tmp_path / "states"
        root.write_text("in the way")
        study = self.study()
        with pytest.raises(ts.TunesmithError, match="cannot write checkpoints"):
            drive(study, Vectorised(self.task(), options(root), members=6))
        root.unlink()
        assert drive(study, Vectorised(self.task(), options(root), members=6)) == "done"
        self.check(study)
        assert ts.replay(study) == []

    def test_a_disk_that_is_full_at_the_end_loses_no_other_state(self, tmp_path, monkeypatch):
        """What was written before is in the log, and the error says what is the matter."""
        study = self.study("asha")
        save, written = Checkpoints.save, []

        def few(checkpoints, trial, step, tree):
            if len(written) == 2:
                raise CheckpointError("cannot write checkpoints")
            written.append((trial, step))
            return save(checkpoints, trial, step, tree)

        monkeypatch.setattr(Checkpoints, "save", few)
        task = self.task(save_every_jobs=100)
        with pytest.raises(ts.TunesmithError, match="cannot write checkpoints"):
            drive(study, Vectorised(task, options(tmp_path), members=6, keep=study.needed))
        assert [(one.trial, one.step) for trial in study.trials for one in trial.checkpoints] == sorted(written)
        assert len(written) == 2

    def test_interrupted_every_member_is_saved_and_the_study_goes_on_there(self, tmp_path):
        study = self.study("full", store=tmp_path / "study.db", trials=4)
        executor = Vectorised(self.task(), options(tmp_path / "states"), members=4)
        executor.interrupt()
        assert drive(study, executor, seconds=0) == "seconds"
        study = self.study("full", store=tmp_path / "study.db", trials=4)
        executor = Vectorised(self.task(), options(tmp_path / "states"), members=4)
        assert drive(study, executor) == "done"
        self.check(study)
        assert ts.replay(study) == []

    # -- how members are trained

    def test_too_many_for_the_memory_are_trained_in_chunks(self, tmp_path, monkeypatch, caplog):
        caplog.set_level("INFO", "tunesmith")
        task = type(self).task.__wrapped__(chunk=None, members=6)
        kind = type(task.stack(task.group({"lr": 0.5, "k": 1}), 1))
        run, chunks = kind.run, []

        def small(stack, members, count, chunk):
            chunks.append(chunk)
            if min(stack.rows, chunk) > 2:
                raise RuntimeError("RESOURCE_EXHAUSTED: too many")
            return run(stack, members, count, chunk)

        monkeypatch.setattr(kind, "run", small)
        study = self.trained(tmp_path, executor=Vectorised(task, options(tmp_path)))
        self.check(study)
        assert 6 in chunks and 3 in chunks and chunks[-1] == 1
        assert "one after the other" in caplog.text

    # -- a process that is killed

    def test_killed_it_goes_on_from_the_last_checkpoints(self, tmp_path):
        """A real process, and a real kill. With ``every`` above 1 some steps are trained and told again."""
        every = self.every
        store = tmp_path / "study.db"
        command = [sys.executable, __file__, type(self).__module__.rpartition(".")[2], str(store), str(every)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if int(line) >= 60:
                    process.kill()
                    break
        before = ts.Study.open(store)
        assert 60 <= sum(trial.step - trial.start for trial in before.trials) < 6 * 40
        before.close()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        with ts.Study.open(store) as study:
            assert ts.replay(study) == []
            assert sum(trial.step == 40 for trial in study.trials) == 6
            self.check(study)
            asked = {event.ask: event for event in study.events() if type(event) is Asked}
            again = [asked[told.ask].start - told.start for told in study.events() if type(told) is Told]
            assert max(again) <= 2 * (every - 1)


def interrupting(times):
    """Ctrl-C when progress is shown for so many times."""
    left = iter(range(times - 1))

    def show(study):
        if next(left, None) is None and show.armed:
            show.armed = False
            signal.raise_signal(signal.SIGINT)

    show.armed = True
    return show


def ending(steps):
    """An error when so many steps were told."""

    def show(study):
        if sum(trial.step - trial.start for trial in study.trials) >= steps:
            raise EOFError

    return show


class Forgetful:
    """An executor that ends without a word."""

    def __init__(self, executor):
        self.executor = executor

    def __getattr__(self, name):
        return getattr(self.executor, name)

    def flush(self, keep):
        return iter(())


def drive_to_the_end(module, store, every):
    """What is killed: it says after every round how far it is."""
    driver._PROGRESS = 0.0
    pbt = ts.schedulers.PBT(population=6, ready=2, steps=40, synchronous=True)
    task = import_module(module).Test.task(save_every_jobs=int(every))

    def show(study):
        print(sum(trial.step - trial.start for trial in study.trials), flush=True)
        time.sleep(0.02)

    ts.tune(task, SPACE, maximise="score", scheduler=pbt, store=store, progress=show)


if __name__ == "__main__":
    drive_to_the_end(*sys.argv[1:])
