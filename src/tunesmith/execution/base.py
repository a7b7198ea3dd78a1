"""What execution is made of: a task trains, an executor runs jobs of it, reports come back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from tunesmith.checkpoints import Saved
from tunesmith.errors import TunesmithError
from tunesmith.metrics import as_float, is_number
from tunesmith.records import Constraint, FailureKind, Goal
from tunesmith.space import Scalar

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.study import Job

State = TypeVar("State")

CURRENT: ContextVar[Job] = ContextVar("job")
REQUIRED: ContextVar[tuple[str, ...]] = ContextVar("required", default=())

ENDLESS = 1000  #: after so many reports of the first trial, a training without a limit is said to have none
SAVES = (
    "let a generator yield (metrics, state), give trial.report(..., state=...), a class save and load, "
    "or let a command write to $TUNESMITH_SAVE"
)
"""How training code saves its state."""


class Task(Protocol[State]):
    """Training code as the library sees it. Everything else that users write is adapted to this.

    Its training may come to an end by itself: then ``step`` raises `EndedError`. A task may also have

    * ``close(state)``: the state is not needed any more;
    * ``offer(state)``: a state that was saved by the training code at a time of its own, as its step and ``Files``;
    * ``over(state)``: the training has come to its end with the step that was done last;
    * ``lasts(state)``: another job can train this state further; without it every state can;
    * ``finish(state)``: the last step of the trial was done; what its code does after that is to be done now;
    * ``notes(state)``: texts and numbers to remember beside the metrics, by name, since it was called last;
    * ``warning(state)``: what people should know of a training that has come to its end; empty if there is nothing;
    * ``whole``: where the space has fidelities, one step of it trains to the end of the job;
    * ``names``: its ``config`` has the names of options, also where they have values.
    """

    def init(self, config: Any, rng: np.random.Generator) -> State:
        """The state at step 0. ``rng`` is the trial's own, the same whenever the trial is started."""
        ...

    def step(self, state: State, config: Any) -> tuple[State, Any]:
        """One step of training: the new state and its metrics (name -> number, or a number where there is one goal)."""
        ...

    def save(self, state: State) -> Any:
        """The state as a tree (:mod:`tunesmith.trees`) or as ``Files``; None where it can't be saved now."""
        ...

    def load(self, tree: Any, config: Any) -> State:
        """The state again, of a tree or of the directory that ``Files`` wrote, with hyperparameters from ``config``."""
        ...


class ExecutionError(TunesmithError):
    """The run can't go on; the message says why and what to do."""


class EndedError(Exception):
    """Training code has come to its end by itself. The message says what it must do to be told at all."""


class ContinueError(TunesmithError):
    """A trial is to go on from an earlier state, but its task saved none, or can't load it."""


class CrashedError(TunesmithError):
    """A process that trains was killed: that says nothing of its configuration, and the job may be asked again."""


class OptionError(TunesmithError):
    """The value of an option is not known here."""


@dataclass(frozen=True)
class Failure:
    """Why a job ended early. ``fatal``: every other job would end in the same way, so the run must stop."""

    error: str
    kind: FailureKind = "raised"
    fatal: bool = False


@dataclass(frozen=True)
class Report:
    """News of the job ``ask``.

    ``metrics`` has one value a step for the steps ``start + 1, start + 2, ...``, which took ``seconds``; ``saved`` is a
    checkpoint of the last of them. ``done`` is set in the last report of a job, ``ended`` where the training has come
    to its end by itself, and ``failure`` where the job ended early for another reason. ``notes`` are kept with the
    trial, ``warning`` is for people. ``ahead``: the last report, if the process should die before it can send it.
    """

    ask: int
    start: int
    metrics: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    saved: Saved | None = None
    done: bool = False
    failure: Failure | None = None
    warning: str = ""
    ended: bool = False
    notes: Mapping[str, Scalar] = field(default_factory=dict)
    ahead: bool = False


class Kept(NamedTuple):
    """A state that was written after it was told: ``ask`` is the job that was told it."""

    ask: int
    trial: int
    saved: Saved


@dataclass(frozen=True)
class Target:
    """A value of a goal that is good enough. It counts where all outcome constraints hold at the same step."""

    goal: Goal
    value: float
    constraints: tuple[Constraint, ...] = ()

    def reached(self, value: float | None, last: Callable[[str], float | None]) -> bool:
        """Whether a value of the goal is good enough; ``last`` gives the metrics of the constraints by name."""
        if value is None or not self.goal.loss(value) <= self.goal.loss(self.value):
            return False
        held = ((last(rule.metric), rule.at_most) for rule in self.constraints)
        return all(value is not None and value <= limit for value, limit in held)

    def reached_by_step(self, last: Callable[[str], float | None]) -> bool:
        """Whether the metrics of one step are enough by themselves; not where a goal is a mean of several steps."""
        return self.goal.window is None and self.reached(last(self.goal.metric), last)


class Executor(Protocol):
    """Runs jobs of one task in some number of slots. Submit no more than there are ``free``.

    A class of its own inherits from this one, for the methods that most executors need not have.
    """

    @property
    def slots(self) -> int:
        """How many jobs run at once."""
        ...

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now."""
        ...

    def submit(self, job: Job) -> None:
        """Start a job. Its reports come out of ``wait``, the last one with ``done``."""
        ...

    def wait(self, timeout: float) -> list[Report]:
        """The reports that have come in; waits for the first one at most ``timeout`` seconds."""
        ...

    def interrupt(self) -> None:
        """Let running jobs save their state and end after their present step, with a failure of kind ``lost``.

        It only sets a flag, so that a signal handler may call it.
        """
        ...

    def share(self) -> None:
        """Others work on the study, too: from now on no job is done before its state is where they can read it."""
        return

    def flush(self, keep: Iterable[tuple[int, int]]) -> Iterator[Kept]:
        """Write those of these states, as (trial, step), that are in memory alone, and say where they are."""
        return iter(())

    def close(self) -> None:
        """End everything at once."""
        ...


def current_job() -> Job:
    """The job that is running here: for training code that wants to know its trial, seed, repeat or last step.

    Raises:
        LookupError: no job is running.
    """
    return CURRENT.get()


def required_metrics() -> tuple[str, ...]:
    """The metrics that every step of the job which is running here must have: those of the goals and constraints."""
    return REQUIRED.get()


def as_metrics(
    value: Any, required: tuple[str, ...], once: Mapping[str, float | None] | None = None
) -> dict[str, float]:
    """Metrics as training code gives them: a mapping, or a number where there is one required metric.

    Args:
        value: what the training code gave.
        required: the metrics that must be there.
        once: those of them that are measured once, with the value that is known, if one is: it stands where ``value``
            has none.

    Raises:
        TypeError: something is no number.
        KeyError: a required metric is missing.
    """
    known = {name: number for name, number in (once or {}).items() if number is not None}
    single = [name for name in required if name not in known] or required
    if value is None:
        raise TypeError(f"the training gave None: it must give a number, or a dict with {_names(required)}")
    if isinstance(value, Mapping):
        metrics = {str(name): _number(name, number) for name, number in value.items()}
    elif len(single) == 1:
        metrics = {single[0]: _number(single[0], value)}
    else:
        raise TypeError(f"the metrics {value!r} must be a dict with {_names(required)}")
    for name, number in known.items():
        if not math.isfinite(metrics.get(name, math.nan)):
            metrics[name] = number
    for name in required:
        if name not in metrics:
            raise KeyError(f"the metric {name!r}, a goal or constraint of the study, is missing; got {sorted(metrics)}")
    return metrics


def _names(metrics: tuple[str, ...]) -> str:
    return ", ".join(map(repr, metrics))


def _number(name: object, value: Any) -> float:
    if is_number(value):
        return math.nan if value is None else as_float(value)
    raise TypeError(f"the metric {name!r} is {value!r}, a {type(value).__name__}, but must be a number")
