"""The language of the log: frozen records, one JSON encoder and decoder.

A study is an append-only list of these events. Nothing else is stored, and every view of a study (its
trials, the state of its sampler and its scheduler) is a fold over them.

Steps count from 0: a trial at step 5 has done 5 steps of training. ``Told(start=3, metrics={"loss": [a, b]})``
says that the loss was ``a`` after step 4 and ``b`` after step 5.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, get_args

import msgspec

from tunesmith import check
from tunesmith.hints import Hinted
from tunesmith.space import Config, Scalar, Space, decode_hook, encode_hook

FORMAT = 2  #: version of the event language, written into every ``Opened``

TO_THE_END = 2**31 - 1  #: the ``until`` of a job that trains until the training code ends by itself

FailureKind = Literal["raised", "crashed", "lost", "non-finite", "timeout", "out-of-memory"]
FAILURES: tuple[FailureKind, ...] = get_args(FailureKind)

_WINDOW = re.compile(r"last-([1-9]\d{0,8})-avg")

#: Failures of the machine, not of the configuration: the job is asked again from the trial's last checkpoint.
RETRIED: frozenset[str] = frozenset({"lost", "crashed"})


class Goal(Hinted, frozen=True, omit_defaults=True):
    """A metric to minimise, or to maximise. The only place that knows about direction.

    Args:
        metric: its name.
        maximise: larger is better.
        once: it is measured once a trial, such as a latency: later reports may leave it out, and it keeps its value.
        scope: which steps count for the value of a trial: ``"last"``, the latest one; ``"best"``, the best one so
            far; ``"last-K-avg"`` (such as ``"last-10-avg"``), the mean of the last K.

    Raises:
        TypeError, ValueError: one of these is none of what it may be.
    """

    metric: str
    maximise: bool = msgspec.field(default_factory=bool)  # what a factory makes is always written
    once: bool = False
    scope: str = "last"

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise TypeError(f"Goal: metric={self.metric!r} must be the name of a metric")
        check.flag("Goal", maximise=self.maximise, once=self.once)
        if self.scope not in ("last", "best") and self.window is None:
            raise ValueError(
                f"Goal: scope={self.scope!r} must be 'last', 'best' or 'last-K-avg', such as 'last-10-avg'"
            )

    @property
    def window(self) -> int | None:
        """K of the scope ``last-K-avg``; None for other scopes."""
        found = _WINDOW.fullmatch(self.scope) if isinstance(self.scope, str) else None
        return int(found[1]) if found else None

    def loss(self, value: float) -> float:
        """The value as something to minimise; its own inverse."""
        return -value if self.maximise else value


class Constraint(Hinted, frozen=True, omit_defaults=True):
    """An outcome constraint: ``metric <= at_most``. A trial that breaks it is never the best one.

    ``once`` is as for a ``Goal``.
    """

    metric: str
    at_most: float
    once: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise TypeError(f"Constraint: metric={self.metric!r} must be the name of a metric")
        check.flag("Constraint", once=self.once)
        if isinstance(self.at_most, bool) or not isinstance(self.at_most, Real):
            raise TypeError(f"Constraint: at_most={self.at_most!r} must be a number")
        if not math.isfinite(self.at_most):
            raise ValueError(f"Constraint: at_most={self.at_most} must be finite")
        msgspec.structs.force_setattr(self, "at_most", float(self.at_most))

    def violation(self, value: float) -> float:
        """How far ``value`` is over the limit; 0 where the constraint holds."""
        return max(0.0, value - self.at_most)


class Spec(msgspec.Struct, frozen=True):
    """A sampler or a scheduler as data: its class name and its hyperparameters."""

    name: str
    options: dict[str, Any] = {}


# -- events ---------------------------------------------------------------------------------------------------


class Event(msgspec.Struct, frozen=True, tag_field="event"):
    """Something that happened in a study.

    Of `Asked` and `Told` there are very many, with nothing in them but data: the garbage collector passes over them.
    """


class Opened(Event, frozen=True, tag="opened"):
    """Event 1: the definition of the study, so that the log explains itself."""

    space: Space
    goals: tuple[Goal, ...]
    sampler: Spec
    scheduler: Spec
    seed: int
    constraints: tuple[Constraint, ...] = ()
    format: int = FORMAT
    duplicates: bool = False
    """Whether a sampler may propose a configuration that was tried already."""


class Changed(Event, frozen=True, tag="changed"):
    """A migration: from here on the study has this space, sampler or scheduler (None: as before).

    ``fill`` gives the parameters that are new in the space the value that all earlier trials had.
    """

    space: Space | None = None
    sampler: Spec | None = None
    scheduler: Spec | None = None
    fill: Config = {}


class Enqueued(Event, frozen=True, tag="enqueued"):
    """A configuration that someone wants to be tried next; the sampler gives the parameters that it lacks."""

    config: Config


class Asked(Event, frozen=True, omit_defaults=True, tag="asked", gc=False):
    """A job was given out: advance ``trial`` from step ``start`` to step ``until``.

    The decision is a pure function of the events up to number ``seen``, the seed of the study, and the trial that it is
    about. A fork trains on from the weights of trial ``parent`` at step ``start``. It takes the place of trial
    ``replaces``, as a new trial may that is started where one has failed. A repeat is a new trial with the
    configuration of trial ``repeat_of``, the first one that had it, and with a training seed of its own.

    ``tags`` say what was not the sampler's or scheduler's decision: ``enqueued``, ``added`` (a result that someone
    already had), ``retry`` (the same job again after its worker vanished), ``closed`` (no more trials could be
    started), ``ended`` (the training of this trial has ended before, so that nobody was given the job). ``queued`` is
    the number of the `Enqueued` that this trial fulfils. ``stands_at`` is the step at which the scheduler lets a fork
    begin, where its parent's training had ended before, so that there are no later weights than those of ``start``.
    """

    ask: int
    seen: int
    trial: int
    config: Config
    start: int
    until: int
    parent: int | None = None
    replaces: int | None = None
    repeat_of: int | None = None
    tags: tuple[str, ...] = ()
    worker: str = ""
    queued: int | None = None
    stands_at: int | None = None


class Told(Event, frozen=True, omit_defaults=True, tag="told", gc=False):
    """One value a step of every metric, for the steps ``start + 1, start + 2, ...`` of a trial.

    All lists are of one length. It may stop short of the job's ``until``: then it is progress, and the job goes on.
    """

    ask: int
    trial: int
    start: int
    metrics: dict[str, list[float | None]]
    seconds: float = 0.0

    @property
    def step(self) -> int:
        """The step of the last value."""
        for values in self.metrics.values():
            return self.start + len(values)
        return self.start


class Checkpointed(Event, frozen=True, tag="checkpointed"):
    """The state of a trial at a step stands at ``where`` and has this digest."""

    ask: int
    trial: int
    step: int
    where: str
    digest: str


class Ended(Event, frozen=True, omit_defaults=True, tag="ended"):
    """The training code has come to its end by itself at this step, before the job's ``until``.

    The trial is complete: its last values stand for all later steps, and it takes no more training.
    """

    ask: int
    trial: int
    step: int
    seconds: float = 0.0


class Failed(Event, frozen=True, omit_defaults=True, tag="failed"):
    """A job ended without reaching its ``until``. ``seconds`` are those since it last told something."""

    ask: int
    trial: int
    error: str
    kind: FailureKind = "raised"
    seconds: float = 0.0


class Noted(Event, frozen=True, omit_defaults=True, tag="noted"):
    """Something to remember beside the numbers, of a trial or (None) of the study; later notes of a name replace it."""

    notes: dict[str, Scalar]
    trial: int | None = None


class Stopped(Event, frozen=True, tag="stopped"):
    """Someone wants everybody who works on the study now to stop. Who opens it later goes on."""

    why: str


class Limited(Event, frozen=True, tag="limited"):
    """Somebody works on the study until so many trials were started, in all: what a resumed run goes on to."""

    trials: int


AnyEvent = Opened | Changed | Enqueued | Asked | Told | Checkpointed | Ended | Failed | Noted | Limited | Stopped

# -- what a scheduler answers -----------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True):
    """Begin a new trial, with a configuration from the sampler.

    With ``design`` a sampler that learns is passed over: the configuration is one of a design that covers the space (a
    quasi-random sequence, experts' priors first). ``replaces`` is a trial whose place the new one takes.
    """

    until: int
    design: bool = False
    replaces: int | None = None


class Repeat(msgspec.Struct, frozen=True):
    """Begin a new trial with the configuration of ``trial``, and another training seed."""

    trial: int
    until: int


class Resume(msgspec.Struct, frozen=True):
    """Advance a trial from its own last checkpoint."""

    trial: int
    until: int


class Fork(msgspec.Struct, frozen=True):
    """Begin a new trial from the weights of ``source`` at step ``start``, in the place of trial ``replaces``."""

    source: int
    start: int
    replaces: int
    config: Config
    until: int


Decision = Start | Repeat | Resume | Fork

# -- JSON ---------------------------------------------------------------------------------------------------------

_encoder = msgspec.json.Encoder(enc_hook=encode_hook)
_decoder = msgspec.json.Decoder(AnyEvent, dec_hook=decode_hook)


def encode(event: Event) -> bytes:
    """An event as one line of JSON."""
    return _encoder.encode(event)


def decode(lines: Iterable[bytes]) -> list[AnyEvent]:
    """Events from lines of JSON."""
    return _decoder.decode_lines(b"\n".join(lines))


def losses(goals: Sequence[Goal], metrics: Mapping[str, Sequence[float | None]], index: int = -1) -> tuple[float, ...]:
    """The minimised values of all goals at one position of a ``Told``; NaN where a metric is missing."""
    values = []
    for goal in goals:
        series = metrics.get(goal.metric)
        value = series[index] if series else None
        values.append(math.nan if value is None else goal.loss(value))
    return tuple(values)


def violation(
    constraints: Sequence[Constraint], metrics: Mapping[str, Sequence[float | None]], index: int = -1
) -> float:
    """The total by which constraints are broken at one position of a ``Told``; inf where a metric is missing."""
    total = 0.0
    for rule in constraints:
        series = metrics.get(rule.metric)
        value = series[index] if series else None
        total += math.inf if value is None else rule.violation(value)
    return total
