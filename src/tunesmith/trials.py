"""The trials of a study: the view that is folded from its log, and that says which events count."""

from __future__ import annotations

from array import array
from bisect import insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Literal, NamedTuple, overload

import msgspec

from tunesmith._tables import as_html, as_text
from tunesmith.records import RETRIED, TO_THE_END, AnyEvent, Asked, Checkpointed, Ended, Failed, Goal, Told
from tunesmith.space import Config, Scalar
from tunesmith.tables import SHOWN, Row, trial_rows, used

MAX_CRASHES = 3  #: so often may the worker processes of a trial die without progress until the trial counts as failed

Status = Literal["running", "paused", "complete", "waiting", "failed"]


class Checkpoint(NamedTuple):
    """A state of a trial that stands somewhere."""

    trial: int
    step: int
    where: str
    digest: str


class Report(msgspec.Struct, gc=False):
    """What one job has told, its progress joined: a value a step of every metric, from ``start + 1`` on."""

    ask: int
    start: int
    metrics: dict[str, list[float | None]]
    spent: array[float]
    """Seconds of every step: of what was told at once each has an equal share."""

    @property
    def step(self) -> int:
        """The step of the last value."""
        return self.start + len(self.spent)

    @property
    def seconds(self) -> float:
        """What all of the steps have cost."""
        return sum(self.spent)


def scoped(goal: Goal, values: Sequence[float]) -> Sequence[float]:
    """What a trial with these values of a goal, one a step, was worth after each of them: see ``Goal.scope``.

    The only place that knows what a scope means.
    """
    if goal.scope == "best":
        return list(accumulate(values, max if goal.maximise else min))
    if goal.window is not None:
        k = goal.window
        sums = [0.0, *accumulate(values)]
        if sums[-1] - sums[-1] == 0:  # no overflow
            spans = ((max(0, end - k), end) for end in range(1, len(sums)))
            return [sum(values[start:end]) / (end - start) for start, end in spans]
        return [sum(value / k for value in values[max(0, end - k) : end]) for end in range(1, len(sums))]
    return values


@dataclass(slots=True, eq=False, repr=False)
class Trial:
    """One configuration in training. ``step`` is how far its weights have been trained.

    ``repeat`` is how many earlier trials had the same configuration, of which ``repeat_of`` was the first; 0 and None
    where this one is the first, and for forks.

    ``status`` is ``running`` (a job is out), ``paused`` (its last job is done: the scheduler may or may not go on),
    ``complete`` (it has come to its last step, the training has ended by itself, or another trial has taken its
    place), ``waiting`` (its worker vanished, the job will be asked again) or ``failed``. ``ended`` says that the
    training has come to its end by itself: nobody trains it any further.
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
    ended: bool = False
    reports: list[Report] = field(default_factory=list, repr=False)
    checkpoints: list[Checkpoint] = field(default_factory=list, repr=False)
    notes: dict[str, Scalar] = field(default_factory=dict)
    seconds: float = 0.0
    crashes: int = 0
    error: str = ""
    kind: str = ""
    asked: Config = field(default_factory=dict, repr=False)
    """The configuration as it was asked, whatever has become of the space since."""
    measured: Config = field(default_factory=dict, repr=False)
    """The configuration at which the last values were measured: it differs from ``config`` while a job with other
    fidelities has told nothing yet.
    """

    def __repr__(self) -> str:
        shown = {"status": self.status, "step": self.step, "metrics": self.metrics, "config": self.config}
        more = ("parent", "replaces", "repeat_of", "notes", "error")
        shown |= {name: value for name in more if (value := getattr(self, name)) not in (None, {}, "")}
        return f"Trial({', '.join([str(self.id), *(f'{name}={value!r}' for name, value in shown.items())])})"

    def _repr_html_(self) -> str:
        rows = {"status": self.status, "step": self.step} | self.metrics | self.config | self.notes
        if self.error:
            rows["error"] = self.error
        return as_html([{"": name, "value": value} for name, value in rows.items()], f"Trial {self.id}")

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

    def value(self, goal: Goal) -> float | None:
        """What the trial is worth by a goal: of the steps that count by its ``scope``. None if nothing was told."""
        _check_goal("value", goal)
        if goal.scope == "last":
            return self.last(goal.metric)
        values = self.values(goal.metric)[1]
        if goal.window is not None:
            values = values[-goal.window :]
        return scoped(goal, values)[-1] if values else None

    def best_step(self, goal: Goal) -> int | None:
        """The first step at which a goal had its best value."""
        _check_goal("best_step", goal)
        steps, values = self.values(goal.metric)
        return min(zip(map(goal.loss, values), steps, strict=True))[1] if steps else None

    @property
    def metrics(self) -> dict[str, float]:
        """The latest value of every metric."""
        latest: dict[str, float] = {}
        for report in self.reports:
            latest.update((name, series[-1]) for name, series in report.metrics.items() if series[-1] is not None)
        return latest

    def tell(self, event: Told) -> None:
        """Take in values, in the place of those that were told before for the same steps and later ones."""
        start, told = event.start, event.metrics
        if start < self.step:
            self.rewind(start)
        self.measured = self.config
        last = self.reports[-1] if self.reports else None
        follows = last is not None and last.ask == event.ask and start == self.step == last.start + len(last.spent)
        if last is None or not follows or last.metrics.keys() != told.keys():
            last = Report(event.ask, start, {name: [] for name in told}, array("d"))
            self.reports.append(last)
        metrics, count = last.metrics, 0
        for name, values in told.items():
            metrics[name] += values
            count = len(values)
        if count == 1:
            last.spent.append(event.seconds)
        elif count:
            last.spent.extend([event.seconds / count] * count)
        self.step = start + count

    def rewind(self, step: int) -> None:
        """Forget what was told after ``step``."""
        while self.reports and self.reports[-1].step > step:
            report = self.reports.pop()
            if report.start < step:
                kept = step - report.start
                del report.spent[kept:]
                report.metrics = {name: series[:kept] for name, series in report.metrics.items()}
                self.reports.append(report)
        self.step = min(self.step, step)


def _check_goal(method: str, goal: object) -> None:
    """Raise TypeError, with the way out, unless this is a goal."""
    if not isinstance(goal, Goal):
        raise TypeError(
            f"{method}({goal!r}) needs a goal of the study, as in trial.{method}(study.goals[0]); "
            "trial.last('metric') is the latest value of a metric, trial.values('metric') are all of them"
        )


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
        self.touched: set[int] | None = None
        """Trials that have changed since someone has emptied it; None while nobody wants to know."""
        self.goals: Sequence[Goal] = ()
        """The goals of the study, by whose scopes trials are shown."""
        self._horizon: int | None = None

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

    def __repr__(self) -> str:
        return as_text(self._rows(), max(0, len(self) - SHOWN)) or "no trials"

    def _repr_html_(self) -> str:
        return as_html(self._rows(), f"{len(self)} trials")

    def _rows(self) -> list[Row]:
        """The last trials, as rows of a table."""
        return used(trial_rows(self._trials[-SHOWN:], self, self.goals, lambda trial: None))

    @property
    def horizon(self) -> int | None:
        """The last step of a trial, by the scheduler in charge; None where it has none."""
        return self._horizon

    @horizon.setter
    def horizon(self, step: int | None) -> None:
        if step == self._horizon:
            return
        self._horizon = step
        replaced = {trial.replaces for trial in self._trials}
        for trial in self._trials:
            if trial.status in ("paused", "complete"):
                trial.status = "complete" if trial.id in replaced else self._rest(trial)

    def _rest(self, trial: Trial) -> Status:
        """The status of a trial whose last job is done."""
        over = trial.ended or self._horizon is None or trial.step >= self._horizon or "added" in trial.tags
        return "complete" if over else "paused"

    def fold(self, event: AnyEvent) -> bool:
        """Take in an event.

        Returns:
            Whether samplers and schedulers are to be told. They are not told of checkpoints, of workers that
            vanish and jobs that are therefore asked again, and of anything that comes from a worker that was
            given up.
        """
        kind = type(event)
        if kind is Told:
            return self.told(event)  # type: ignore[arg-type]
        if self.touched is not None:
            self.touched.add(event.trial)  # type: ignore[union-attr, arg-type]  # those without a trial do not come here
        if kind is Asked:
            return self._asked(event)  # type: ignore[arg-type]
        if kind is Checkpointed:
            self._checkpointed(event)  # type: ignore[arg-type]
        elif kind is Failed:
            return self._failed(event)  # type: ignore[arg-type]
        elif kind is Ended:
            return self._ended(event)  # type: ignore[arg-type]
        return False

    def _asked(self, event: Asked) -> bool:
        if event.trial == len(self._trials):
            trial = Trial(
                event.trial, event.config, event.start, event.start, event.until, event.ask,
                event.worker, event.parent, event.replaces, event.repeat_of, tags=event.tags, asked=event.config,
            )  # fmt: skip
            self._trials.append(trial)
            if event.repeat_of is not None:
                first = self._trials[event.repeat_of]
                same = self.repeated.setdefault(first.id, [first] if first.parent is None else [])
                trial.repeat = len(same)
                same.append(trial)
            if event.replaces is not None and self._trials[event.replaces].status == "paused":
                self._trials[event.replaces].status = "complete"
        else:
            trial = self._trials[event.trial]
            trial.ask, trial.until, trial.worker, trial.status = event.ask, event.until, event.worker, "running"
            if "retry" in event.tags:
                self.waiting.remove(trial)
                trial.error = trial.kind = ""  # of the worker that has vanished
            elif event.start < trial.step:  # another fidelity, for which the weights are of no use
                trial.checkpoints.clear()
                trial.ended = False
            trial.config = trial.asked = event.config
            trial.rewind(event.start)
        self.running[trial.id] = trial
        return "retry" not in event.tags

    def told(self, event: Told) -> bool:
        """Take in values: ``fold`` of the most frequent event."""
        if self.touched is not None:
            self.touched.add(event.trial)
        trial = self._trials[event.trial]
        if trial.ask != event.ask or trial.status != "running":
            return False
        trial.tell(event)
        trial.seconds += event.seconds
        self.seconds += event.seconds
        if trial.step >= trial.until:
            self._leave(trial)
        return True

    def _ended(self, event: Ended) -> bool:
        trial = self._trials[event.trial]
        running = trial.status == "running"  # also where it has ended before, and is asked to go further
        rests = trial.status in ("paused", "complete") and not trial.ended
        if trial.ask != event.ask or not (running or rests):
            return False
        trial.ended = True
        trial.seconds += event.seconds
        self.seconds += event.seconds
        if running:
            self._leave(trial)
        else:
            trial.status = self._rest(trial)
        return True

    def _leave(self, trial: Trial) -> None:
        """The job of a trial is done."""
        del self.running[trial.id]
        trial.status = self._rest(trial)

    def _checkpointed(self, event: Checkpointed) -> None:
        """A state that a trial has, or will be told to have: also one that is written after the job has ended."""
        trial = self._trials[event.trial]
        current = trial.ask == event.ask and trial.status not in ("waiting", "failed")
        coming = trial.status == "running" or event.step <= trial.step
        if not (current and coming) and not any(
            report.ask == event.ask and report.start < event.step <= report.step for report in trial.reports
        ):
            return  # nor was it told by this job
        if not trial.checkpoints or event.step > trial.checkpoints[-1].step:
            trial.crashes = 0
        insort(trial.checkpoints, Checkpoint(event.trial, event.step, event.where, event.digest), key=_step)

    def _failed(self, event: Failed) -> bool:
        trial = self._trials[event.trial]
        if trial.ask != event.ask or trial.status != "running":
            return False
        del self.running[trial.id]
        trial.error, trial.kind = event.error, event.kind
        trial.seconds += event.seconds
        self.seconds += event.seconds
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


def _step(checkpoint: Checkpoint) -> int:
    return checkpoint.step


def open_ended(until: int) -> bool:
    """Whether a job goes on until the training code ends by itself."""
    return until == TO_THE_END
