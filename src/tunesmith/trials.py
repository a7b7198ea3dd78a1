"""The trials of a study: the view that is folded from its log, and that says which events count."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple, overload

import msgspec

from tunesmith.records import RETRIED, AnyEvent, Asked, Checkpointed, Failed, Told
from tunesmith.space import Config

MAX_CRASHES = 3  #: so often may the worker processes of a trial die without progress until the trial counts as failed

Status = Literal["running", "complete", "waiting", "failed"]


class Checkpoint(NamedTuple):
    """A state of a trial that stands somewhere."""

    trial: int
    step: int
    where: str
    digest: str


@dataclass(slots=True, eq=False)
class Trial:
    """One configuration in training. ``step`` is how far its weights have been trained.

    ``repeat`` is how many earlier trials had the same configuration, of which ``repeat_of`` was the first; 0 and None
    where this one is the first, and for forks.

    ``status`` is ``running`` (a job is out), ``complete`` (its last job was done), ``waiting`` (its worker
    vanished, the job will be asked again) or ``failed``.
    """

    id: int
    config: Config
    start: int
    step: int
    until: int
    ask: int
    worker: str = ""
    parent: int | None = None
    replaces: int | None = None
    repeat_of: int | None = None
    repeat: int = 0
    tags: tuple[str, ...] = ()
    status: Status = "running"
    reports: list[Told] = field(default_factory=list, repr=False)
    checkpoints: list[Checkpoint] = field(default_factory=list, repr=False)
    seconds: float = 0.0
    crashes: int = 0
    error: str = ""
    kind: str = ""

    def values(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric, as far as it was told."""
        steps: list[int] = []
        values: list[float] = []
        for report in self.reports:
            for step, value in enumerate(report.metrics.get(metric, ()), report.start + 1):
                if value is not None:
                    steps.append(step)
                    values.append(value)
        return steps, values

    def last(self, metric: str) -> float | None:
        """The latest value of a metric, None if there is none."""
        for report in reversed(self.reports):
            series = report.metrics.get(metric)
            if series and series[-1] is not None:
                return series[-1]
        return None

    @property
    def metrics(self) -> dict[str, float]:
        """The latest value of every metric."""
        latest: dict[str, float] = {}
        for report in self.reports:
            latest.update((name, series[-1]) for name, series in report.metrics.items() if series[-1] is not None)
        return latest

    def rewind(self, step: int) -> None:
        """Forget what was told after ``step``."""
        while self.reports and self.reports[-1].step > step:
            report = self.reports.pop()
            if report.start < step:
                kept = {name: series[: step - report.start] for name, series in report.metrics.items()}
                seconds = report.seconds * (step - report.start) / (report.step - report.start)
                self.reports.append(msgspec.structs.replace(report, metrics=kept, seconds=seconds))
        self.step = min(self.step, step)


class Trials(Sequence[Trial]):
    """All trials, by number. ``fold`` is the only way in."""

    def __init__(self) -> None:
        self._trials: list[Trial] = []
        self.running: dict[int, Trial] = {}
        """Trials with a job out, by number."""
        self.waiting: deque[Trial] = deque()
        """Trials whose job must be asked again, first come first served."""
        self.failed = 0
        """How many trials have failed."""
        self.seconds = 0.0
        """What all of them have cost, as far as it was told."""
        self.repeated: dict[int, list[Trial]] = {}
        """Trials of one configuration, by the number of the first, where there are several."""

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> list[Trial]: ...
    def __getitem__(self, index: int | slice) -> Trial | list[Trial]:
        return self._trials[index]

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._trials)

    def fold(self, event: AnyEvent) -> bool:
        """Take in an event.

        Returns:
            Whether samplers and schedulers are to be told. They are not told of checkpoints, of workers that
            vanish and jobs that are therefore asked again, and of anything that comes from a worker that was
            given up.
        """
        if type(event) is Told:
            return self._told(event)
        if type(event) is Asked:
            return self._asked(event)
        if type(event) is Checkpointed:
            self._checkpointed(event)
        elif type(event) is Failed:
            return self._failed(event)
        return False

    def _current(self, event: Told | Checkpointed | Failed) -> Trial | None:
        """The trial of an event, if the event comes from the job that is out for it."""
        trial = self._trials[event.trial]
        return trial if trial.ask == event.ask and trial.status == "running" else None

    def _asked(self, event: Asked) -> bool:
        if event.trial == len(self._trials):
            trial = Trial(
                event.trial, event.config, event.start, event.start, event.until, event.ask,
                event.worker, event.parent, event.replaces, event.repeat_of, tags=event.tags,
            )  # fmt: skip
            self._trials.append(trial)
            if event.repeat_of is not None:
                first = self._trials[event.repeat_of]
                same = self.repeated.setdefault(first.id, [first] if first.parent is None else [])
                trial.repeat = len(same)
                same.append(trial)
        else:
            trial = self._trials[event.trial]
            trial.ask, trial.until, trial.worker, trial.status = event.ask, event.until, event.worker, "running"
            if "retry" in event.tags:
                self.waiting.remove(trial)
            elif event.start < trial.step:  # another fidelity, for which the weights are of no use
                trial.checkpoints.clear()
            trial.config = event.config
            trial.rewind(event.start)
        self.running[trial.id] = trial
        return "retry" not in event.tags

    def _told(self, event: Told) -> bool:
        trial = self._current(event)
        if trial is None:
            return False
        if event.start < trial.step:
            trial.rewind(event.start)
        trial.reports.append(event)
        trial.step = step = event.step
        trial.seconds += event.seconds
        self.seconds += event.seconds
        if step >= trial.until:
            trial.status = "complete"
            del self.running[trial.id]
        return True

    def _checkpointed(self, event: Checkpointed) -> None:
        """A state of the job that is out; or one that was told, by the job that was told it."""
        trial = self._trials[event.trial]
        if trial is not self._current(event) and not any(
            report.ask == event.ask and report.start < event.step <= report.step for report in trial.reports
        ):
            return
        if not trial.checkpoints or event.step > trial.checkpoints[-1].step:
            trial.crashes = 0
        saved = Checkpoint(event.trial, event.step, event.where, event.digest)
        insort(trial.checkpoints, saved, key=lambda saved: saved.step)

    def _failed(self, event: Failed) -> bool:
        trial = self._current(event)
        if trial is None:
            return False
        del self.running[trial.id]
        trial.error, trial.kind = event.error, event.kind
        trial.crashes += event.kind == "crashed"
        if event.kind in RETRIED and trial.crashes < MAX_CRASHES:
            trial.status = "waiting"
            self.waiting.append(trial)
            return False
        trial.status = "failed"
        self.failed += 1
        return True

    def sources(self, trial: Trial, start: int) -> list[Checkpoint]:
        """Checkpoints from which ``trial`` can be brought to step ``start``, the best first: its own, then its
        ancestors' up to where they were forked, or the training of the fork really began; newest first.
        """
        found: list[Checkpoint] = []
        relative: Trial | None = trial
        while relative is not None and len(found) < 4:
            found += islice((saved for saved in reversed(relative.checkpoints) if saved.step <= start), 2)
            began = relative.reports[0].start if relative.reports else start
            start = min(start, relative.start, began)
            relative = None if relative.parent is None else self._trials[relative.parent]
        return found
