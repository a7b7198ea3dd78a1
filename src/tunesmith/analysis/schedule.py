"""The schedule that a study found: the hyperparameters of a trial over its steps, along its line of ancestors."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tunesmith.analysis.lineage import lineage
from tunesmith.space import Config
from tunesmith.study import Study

FORMAT = 1  #: version of the JSON form


class Segment(msgspec.Struct, frozen=True):
    """The steps ``start + 1 ... until`` were trained with ``config``, as part of trial ``trial``."""

    start: int
    until: int
    trial: int
    config: Config


class Schedule(msgspec.Struct, frozen=True):
    """Hyperparameters as a function of the step: a list of segments without gaps, from step 0 on.

    ``schedule(step)`` is what a training at ``step`` goes on with, so a training loop reads

        for step in range(schedule.steps):
            state, metrics = task.step(state, schedule(step))
    """

    segments: tuple[Segment, ...]
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"a schedule of format {self.format}, this version reads format {FORMAT}")
        reached = 0
        for segment in self.segments:
            if segment.start != reached or segment.until <= reached:
                raise ValueError(
                    f"a segment of steps {segment.start} to {segment.until} does not follow step {reached}"
                )
            reached = segment.until
        if not reached:
            raise ValueError("a schedule needs at least one segment")

    @property
    def steps(self) -> int:
        """Length of the schedule in steps."""
        return self.segments[-1].until

    @property
    def parameters(self) -> list[str]:
        """Names of all parameters that occur, in order of their appearance."""
        return list(dict.fromkeys(name for segment in self.segments for name in segment.config))

    def at(self, step: int) -> Config:
        """The configuration with which a training that stands at ``step`` goes on; the last one beyond the end.

        Raises:
            ValueError: ``step`` is negative.
        """
        if step < 0:
            raise ValueError(f"step {step} is negative: steps count from 0")
        return dict(next((s for s in self.segments if step < s.until), self.segments[-1]).config)

    __call__ = at

    def constant(self) -> Callable[[int], Config]:
        """The control experiment: the last configuration, held at every step."""
        last = self.segments[-1].config
        return lambda step: dict(last)

    def to_json(self) -> str:
        """As indented JSON text; `from_json` reads it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Schedule:
        """From the text that `to_json` wrote.

        Raises:
            ValueError: not a schedule; the message says where.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a schedule: {error}") from None


def schedule(study: Study, trial: int | None = None) -> Schedule:
    """The schedule of a trial, by default of the best one.

    Every ancestor contributes the steps from where its training began to where its child's did. Where a state was lost,
    that is further back than the study had asked for. The schedule of a trial that is no fork is a single segment.

    Raises:
        ValueError: no such trial, or it has no step yet.
    """
    line = lineage(study).ancestors(trial)
    segments: list[Segment] = []
    end = line[-1].step
    for ancestor in reversed(line):
        began = ancestor.reports[0].start if ancestor.reports else ancestor.start
        if began < end:
            segments.append(Segment(began, end, ancestor.id, ancestor.config))
            end = began
    if not segments:
        raise ValueError(f"trial {line[-1].id} has not done a step yet: it has no schedule")
    return Schedule(tuple(reversed(segments)))
