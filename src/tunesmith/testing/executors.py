"""The conformance suite of executors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tunesmith.execution import Executor, Options, Report
from tunesmith.study import Job
from tunesmith.trials import Checkpoint


def counting(config: dict[str, Any], state: Any = None) -> Iterator[tuple[dict[str, float], dict[str, int]]]:
    """Training code that counts its steps, and fails at the step ``config["fails"]``."""
    n = 0 if state is None else state["n"]
    while True:
        n += 1
        if n == config.get("fails"):
            raise ArithmeticError("on purpose")
        yield {"score": n * config["lr"]}, {"n": n}


class ExecutorConformance:
    """What every executor has to satisfy. Subclasses supply ``make``, and ``train`` where they can't run ``counting``.

    Attributes:
        train: training code that does what ``counting`` does.
    """

    train: Any = staticmethod(counting)

    def make(self, train: Any, options: Options) -> Executor:
        """The executor under test, for this training code."""
        raise NotImplementedError

    def executor(self, root: Path) -> Any:
        """An executor of ``train`` that saves below ``root``; closed at the end of a ``with``."""
        return closing(self.make(self.train, Options(("score",), str(root))))

    def job(self, ask: int, start: int, until: int, *, sources: tuple[Checkpoint, ...] = (), **config: float) -> Job:
        """A job of a trial of its own."""
        return Job(ask, ask, {"lr": 1.0, **config}, start, until, None, "", 0, sources)

    def finish(self, executor: Executor, job: Job) -> list[Report]:
        """Submit a job, and collect its reports up to the last one."""
        executor.submit(job)
        return self.collect(executor)

    def collect(self, executor: Executor) -> list[Report]:
        """The reports up to the first one that is done."""
        reports: list[Report] = []
        for _ in range(10_000):
            reports += executor.wait(1.0)
            if reports and reports[-1].done:
                return reports
        raise AssertionError("the job has not come to its end")

    def test_every_step_is_reported_once(self, tmp_path: Path) -> None:
        """The reports of a job follow each other without gaps, and the last one has a checkpoint of its last step."""
        with self.executor(tmp_path) as executor:
            reports = self.finish(executor, self.job(0, 0, 5))
        told = [(r.start + i, value) for r in reports for i, value in enumerate(r.metrics.get("score", ()), 1)]
        assert told == [(step, float(step)) for step in range(1, 6)]
        assert [r.done for r in reports] == [False] * (len(reports) - 1) + [True]
        assert reports[-1].saved is not None and reports[-1].saved.step == 5 and reports[-1].failure is None

    def test_goes_on_from_a_checkpoint_with_the_new_configuration(self, tmp_path: Path) -> None:
        """Also in another executor, which has never seen the trial."""
        with self.executor(tmp_path) as executor:
            saved = self.finish(executor, self.job(0, 0, 5))[-1].saved
        assert saved is not None
        source = Checkpoint(0, saved.step, saved.where, saved.digest)
        with self.executor(tmp_path) as executor:
            reports = self.finish(executor, self.job(1, 5, 7, sources=(source,), lr=10.0))
        assert [value for report in reports for value in report.metrics.get("score", ())] == [60.0, 70.0]

    def test_a_failure_ends_one_job(self, tmp_path: Path) -> None:
        """What was done before is reported, the error is told, and the executor goes on."""
        with self.executor(tmp_path) as executor:
            reports = self.finish(executor, self.job(0, 0, 5, fails=3))
            assert [value for report in reports for value in report.metrics.get("score", ())] == [1.0, 2.0]
            failure = reports[-1].failure
            assert failure is not None
            assert failure.kind == "raised" and "on purpose" in failure.error and not failure.fatal
            assert self.finish(executor, self.job(1, 0, 2))[-1].failure is None

    def test_a_missing_checkpoint_is_noted_and_trained_again(self, tmp_path: Path) -> None:
        """The job then begins at an earlier step, and says so."""
        gone = Checkpoint(0, 3, "0/3.json", "0" * 32)
        with self.executor(tmp_path) as executor:
            reports = self.finish(executor, self.job(0, 3, 5, sources=(gone,)))
        assert reports[0].start == 0 and "missing" in "".join(report.warning for report in reports)
        assert [value for report in reports for value in report.metrics.get("score", ())] == [1.0, 2.0, 3.0, 4.0, 5.0]

    def test_interrupted_it_saves_and_gives_the_job_back(self, tmp_path: Path) -> None:
        """After the present step; the checkpoint is of the last step that was reported."""
        with self.executor(tmp_path) as executor:
            executor.submit(self.job(0, 0, 10**9))
            executor.interrupt()
            last = self.collect(executor)[-1]
        assert last.failure is not None and last.failure.kind == "lost"
        assert last.saved is not None and last.saved.step == last.start + len(last.metrics["score"])

    def test_slots(self, tmp_path: Path) -> None:
        """A job takes a slot until it is done."""
        with self.executor(tmp_path) as executor:
            assert executor.free == executor.slots >= 1
            executor.submit(self.job(0, 0, 2))
            assert executor.free == executor.slots - 1
            self.collect(executor)
            assert executor.free == executor.slots
