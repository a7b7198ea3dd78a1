"""Everything that follows from the log of a study: its trials, what is queued, and the next decision.

``decide`` is a pure function of the events folded so far. That is why a study can be resumed by anyone who reads
its log, and why :func:`tunesmith.replay` can prove it.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np

from tunesmith.costs import Budget, CostModel
from tunesmith.definition import NOTHING, Given, changed, fit
from tunesmith.records import (
    AnyEvent,
    Asked,
    Changed,
    Decision,
    Enqueued,
    Failed,
    Fork,
    Opened,
    Repeat,
    Resume,
    Start,
    Told,
)
from tunesmith.rng import stream
from tunesmith.space import Config
from tunesmith.trials import Trial, Trials

TRIES = 100  #: proposals of the sampler that one ask looks at to find a configuration that was not tried
ENUMERABLE = 20_000  #: a finite space up to this size is searched for what is left
FEW = 8  #: after so many proposals that were all tried before


class Fold:
    """The state of a study after ``number`` events.

    Args:
        given: objects of the user, for what the log can't make again.
        deciding: also fold the states of sampler and scheduler; without, ``decide`` can't be called.
    """

    def __init__(self, given: Given = NOTHING, *, deciding: bool = True) -> None:
        self.given = given
        self.deciding = deciding
        self.number = 0
        self.definition: Opened
        self.trials = Trials()
        self.queue: deque[Config] = deque()
        self.asks = 0
        self.started = 0
        """Trials that were started by asking, repeats among them: neither forks nor results added."""
        self.message = ""
        """Why the last decision was None, where there is more to say than "wait"."""
        self._keys: set[bytes] = set()
        self._firsts: dict[bytes, Trial] = {}
        self._indexed = 0
        self._counted: list[AnyEvent] = []
        self._costs: CostModel | None = None
        self._priced = 0
        self._refused: tuple[int, int | None, Budget] | None = None
        self._added: set[int] = set()
        self._outside: set[int | None] = set()
        self._sampler: Any = None
        self._scheduler: Any = None
        self._sampling: Any = None
        self._unread: deque[Any] = deque()  # what the sampler will be told when it is asked, if it ever is
        self._scheduling: Any = None

    # -- fold ---------------------------------------------------------------------------------------------------

    def fold(self, event: AnyEvent) -> None:
        """Take in the next event of the log."""
        self.number += 1
        if type(event) is Told or type(event) is Failed:
            if self.trials.fold(event) and self.deciding:
                self._count(event)
        elif type(event) is Asked:
            self._asked(event)
        elif type(event) is Enqueued:
            self.queue.append(event.config)
            self._note(event.config)
        elif type(event) is Opened:
            self.definition = msgspec.structs.replace(event, space=self.given.space(event.space))
            self._begin()
        elif type(event) is Changed:
            self._changed(event)
        else:
            self.trials.fold(event)

    def _asked(self, event: Asked) -> None:
        self.asks += 1
        new = event.trial == len(self.trials)
        if new:
            self.started += event.parent is None and "added" not in event.tags
            if "added" in event.tags:
                self._added.add(event.trial)
            if "enqueued" in event.tags:
                self.queue.remove(self.definition.space.at(event.config, 1.0))
        if self.trials.fold(event) and self.deciding:
            if new:
                self._note(event.config, event.trial)
            self._count(event)

    def _note(self, config: Config, trial: int | None = None) -> None:
        """Remember a configuration as tried; one that lies outside the space (since it was changed) as outside."""
        try:
            self._keys.add(self.definition.space.key(config))
        except ValueError:
            self._outside.add(trial)

    def known(self, config: Config) -> bool:
        """Whether a configuration was tried or is queued."""
        return self.definition.space.key(config) in self._keys

    def first(self, config: Config) -> Trial | None:
        """The first trial with this configuration, None where there is none; forks don't count."""
        key = self.definition.space.key
        for trial in self.trials[self._indexed :]:
            if trial.parent is None:
                with suppress(ValueError):  # outside the space
                    self._firsts.setdefault(key(trial.config), trial)
        self._indexed = len(self.trials)
        return self._firsts.get(key(config))

    def _count(self, event: AnyEvent) -> None:
        self._counted.append(event)
        self._tell(event)

    def _tell(self, event: Any) -> None:
        if event.trial not in self._outside:
            self._unread.append(event)
        if event.trial not in self._added:
            self._scheduling = self._scheduler.tell(self._scheduling, event)

    def _begin(self) -> None:
        """Sampler and scheduler before the first event."""
        if not self.deciding:
            return
        definition = self.definition
        self._sampler = self.given.sampler(definition.sampler)
        self._scheduler = self.given.scheduler(definition.scheduler)
        rng = stream(definition.seed, "sampler.init")
        self._unread.clear()
        self._sampling = self._sampler.init(definition.space, definition.goals, rng, definition.constraints)
        self._scheduling = self._scheduler.init(definition.space, definition.goals, definition.constraints)

    def _changed(self, event: Changed) -> None:
        """Go on with another definition: fit what was asked so far to it, and fold sampler and scheduler anew."""
        definition = changed(self.definition, event)
        space = self.given.space(definition.space)
        self.definition = msgspec.structs.replace(definition, space=space)
        for trial in self.trials:
            trial.config = fit(space, trial.config, event.fill)
        self._firsts, self._indexed = {}, 0
        self._costs, self._priced = None, 0
        queue = (fit(space, config, event.fill) for config in self.queue)
        self.queue = deque(config for config in queue if space.contains(config))
        self._counted = [
            msgspec.structs.replace(told, config=fit(space, told.config, event.fill)) if type(told) is Asked else told
            for told in self._counted
        ]
        if self.deciding:
            self._restart()

    def _restart(self) -> None:
        """Fold sampler and scheduler anew from the events that count."""
        self._begin()
        self._keys, self._outside = set(), set()
        for event in self._counted:
            if type(event) is Asked:
                self._note(event.config, event.trial)
            self._tell(event)
        for config in self.queue:
            self._note(config)

    # -- decide -------------------------------------------------------------------------------------------------

    def decide(self, worker: str = "", limit: int | None = None, *, closed: bool = False) -> Asked | None:
        """The next job, decided from the events folded so far; the state stays as it is.

        Where no trial can be started any more, the scheduler is asked what else there is to do.

        Args:
            worker: who will do the job.
            limit: start no more trials than this, repeats included.
            closed: start none.
        """
        self.message = ""
        if self.trials.waiting:
            return self._again(self.trials.waiting[0], worker)
        decision = self._decision()
        tags: tuple[str, ...] = ()
        if isinstance(decision, Start | Repeat):
            if not closed and (limit is None or self.started < limit):
                started = self._start(decision, worker)
                if started is not None:
                    return started
            else:
                self.message = f"all {limit} trials were started"
            decision, tags = self._decision(starts=False), ("closed",)
        advanced = self._advance(decision, worker, tags)
        if advanced is not None:
            self.message = ""
        return advanced

    def afford(self, budget: Budget, worker: str = "", limit: int | None = None) -> Asked | None:
        """The next job as ``decide`` gives it, if the budget is enough for it: for what is spent, what the jobs that
        are out will take yet, and what it will take. Jobs that are asked again need no budget.

        As long as nothing is known of costs there is one job at a time.
        """
        if self.trials.waiting:
            return self.decide(worker, limit)
        if self._refused == (self.number, limit, budget):
            return None
        costs, spent = self._learned(), self.trials.seconds
        left = budget.limit - spent - costs.left
        known = costs.known or not self.trials.running
        asked = self.decide(worker, limit) if known and left > 0 else None
        cost = None if asked is None else costs.predict(asked.config, asked.start, asked.until)
        if asked is not None and (cost is None or cost.seconds <= left):
            return asked
        if not known:
            self.message = "nothing is known of costs: until the first seconds are told there is one job at a time"
        elif asked is not None or left <= 0:
            self.message = budget.used_up(spent, costs.left, cost)
        self._refused = self.number, limit, budget
        return None

    def _learned(self) -> CostModel:
        """The model of costs, up to the last event; nobody pays for it where there is no budget."""
        if self._costs is None:
            self._costs = CostModel(self.definition.space)
        for event in self._counted[self._priced :]:
            self._costs.tell(event)
        self._priced = len(self._counted)
        return self._costs

    def _decision(self, *, starts: bool = True) -> Decision | None:
        rng = stream(self.definition.seed, "scheduler", self.asks)
        decision: Decision | None = self._scheduler.ask(self._scheduling, rng, starts)
        return decision

    def _start(self, decision: Start | Repeat, worker: str) -> Asked | None:
        """A new trial; None where nothing is left to try."""
        ask, seen, trial = self.asks, self.number, len(self.trials)
        if isinstance(decision, Repeat):
            same = self.trials[decision.trial]
            first = same.id if same.repeat_of is None else same.repeat_of
            config = self._at(same.config, decision.until)
            return Asked(ask, seen, trial, config, 0, decision.until, repeat_of=first, worker=worker)
        queued = self._queued()
        proposed = self._propose(decision.until) if queued is None else queued
        tags = () if queued is None else ("enqueued",)
        if proposed is None:
            return None
        config = self._at(proposed, decision.until)
        return Asked(ask, seen, trial, config, 0, decision.until, tags=tags, worker=worker)

    def _advance(self, decision: Decision | None, worker: str, tags: tuple[str, ...]) -> Asked | None:
        """A job for a trial that is there, or a fork of one."""
        ask, seen, trial = self.asks, self.number, len(self.trials)
        if isinstance(decision, Resume):
            resumed = self.trials[decision.trial]
            config = self._at(resumed.config, decision.until)
            start = resumed.step if self.definition.space.carries(resumed.config, config) else 0
            return Asked(ask, seen, resumed.id, config, start, decision.until, tags=tags, worker=worker)
        if isinstance(decision, Fork):
            config = self._at(decision.config, decision.until)
            return Asked(
                ask, seen, trial, config, decision.start, decision.until,
                decision.source, decision.replaces, tags=tags, worker=worker,
            )  # fmt: skip
        return None

    def position(self, until: int) -> float:
        """Where a job that ends at this step stands on the ladder of rungs: 0 the first one, 1 the last."""
        rungs = getattr(self._scheduler, "rungs", ())
        return 1.0 if until not in rungs or len(rungs) == 1 else rungs.index(until) / (len(rungs) - 1)

    def _at(self, config: Config, until: int) -> Config:
        """The configuration with the fidelities of its rung."""
        space = self.definition.space
        return space.at(config, self.position(until)) if space.fidelities else config

    def _queued(self) -> Config | None:
        """The next configuration in the queue, but for those of which someone has added a result meanwhile."""
        again = self._scheduler.repeats
        return next((config for config in self.queue if again or self.first(config) is None), None)

    def _again(self, trial: Trial, worker: str) -> Asked:
        """The job of a worker that vanished, from the trial's last checkpoint."""
        own = [checkpoint.step for checkpoint in trial.checkpoints[-1:]]
        start = own[0] if own else trial.start
        return Asked(self.asks, self.number, trial.id, trial.config, start, trial.until, tags=("retry",), worker=worker)

    def sampling(self) -> tuple[Any, Any, np.random.Generator]:
        """The sampler, its state, which is not to be changed, and the randomness of its next proposal."""
        while self._unread:
            self._sampling = self._sampler.tell(self._sampling, self._unread.popleft())
        return self._sampler, self._sampling, stream(self.definition.seed, "sampler", self.asks)

    def _propose(self, until: int) -> Config | None:
        """A configuration from the sampler that was not tried yet; None (and a message) where none is left.

        The trial will be trained to step ``until`` at first.
        """
        space = self.definition.space
        sampler, state, rng = self.sampling()
        for _ in range(FEW if space.size <= ENUMERABLE else TRIES):
            point = sampler.ask(state, rng, until)
            if point is None:
                break
            config = space.decode(point)
            if self._scheduler.repeats or space.key(config) not in self._keys:
                return config
        if self._scheduler.repeats:
            return space.sample(rng)
        if point is not None and space.size <= ENUMERABLE:
            left = [config for config in space.configs() if space.key(config) not in self._keys]
            if left:
                return left[rng.integers(len(left))]
        self.message = f"nothing is left to try: all {len(self._keys)} configurations were tried"
        return None

    def keep(self) -> set[tuple[int, int]]:
        """The checkpoints that the scheduler may still start from."""
        return set(self._scheduler.keep(self._scheduling))
