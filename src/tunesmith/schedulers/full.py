"""Every trial is trained to the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tunesmith import check
from tunesmith.hints import Options
from tunesmith.records import TO_THE_END, Asked, Constraint, Ended, Event, Failed, Goal, Repeat, Resume, Start, Told
from tunesmith.rng import Streams
from tunesmith.schedulers.base import Defaults, Runs
from tunesmith.space import Space


@dataclass
class State:
    """What `Full` remembers.

    Attributes:
        runs: how often every configuration was trained, where that may be more than once.
        until: by trial that is out: where its job ends.
        short: by trial that has come to the end of its job, and not to the last step: where it stands. There are such
            after a change to more steps.
    """

    runs: Runs
    until: dict[int, int] = field(default_factory=dict)
    short: dict[int, int] = field(default_factory=dict)


class Full(Options, Defaults, frozen=True):
    """Start one trial after the other and train each for ``steps`` steps, or until its training code ends.

    Trials that stand short of ``steps``, since they were trained under a scheduler with fewer, go on first.

    Args:
        steps: of every trial, at the most: one by default, for ``ask`` and ``tell``. None: the training code alone
            decides when it is over.
        seeds: every configuration is trained so often, each time as a trial of its own with another seed, before the
            next configuration begins (or at once, as workers are free). One is given up early when at least half of its
            trials have failed: code that raises is not called again for the same configuration.
    """

    steps: int | None = 1
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.steps is not None:
            check.whole("Full", 1, steps=self.steps)
        check.whole("Full", 1, seeds=self.seeds)

    @property
    def horizon(self) -> int:
        """The last step of a trial."""
        return TO_THE_END if self.steps is None else self.steps

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> State:
        """No configuration yet."""
        return State(Runs(1 if self.steps is None else self.steps, self.seeds, space, goals, constraints))

    def tell(self, state: State, event: Event) -> State:
        """Note who stands short of the last step; count the trials of configurations where there may be several."""
        if self.seeds > 1:
            state.runs.tell(event)
        if isinstance(event, Told):
            until = state.until.get(event.trial)
            if until is not None and event.step >= until:
                del state.until[event.trial]
                if until < self.horizon:
                    state.short[event.trial] = until
        elif isinstance(event, Asked):
            state.until[event.trial] = event.until
            state.short.pop(event.trial, None)
        elif isinstance(event, Ended) and self.steps is None:
            state.short.pop(event.trial, None)
        elif isinstance(event, Failed):
            state.until.pop(event.trial, None)
        return state

    def ask(
        self, state: State, streams: Streams, starts: bool = True, repeats: bool = True
    ) -> Start | Repeat | Resume | None:
        """A trial that stands short of the end; a repeat of the oldest configuration that lacks one; another one."""
        if state.short:
            return Resume(min(state.short), self.horizon)
        if state.runs.owed and repeats:
            return Repeat(state.runs.trials[min(state.runs.owed)], self.horizon)
        return Start(self.horizon) if starts else None

    def keep(self, state: State) -> Iterable[tuple[int, int]]:
        """Where the trials stand that will go on."""
        return state.short.items()
