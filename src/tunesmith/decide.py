"""What is done next: sampler and scheduler hear the log, and the next job is decided from what they know.

A decision is a pure function of the events up to some number, the seed of the study, and limits that the caller names.
That is why a study can be resumed by anyone who reads its log, and why :func:`tunesmith.replay` can prove it.

Sampler and scheduler are told what has happened just before they are asked. So a population that only forks fits no
model, and an exception of theirs comes out of a decision and of nothing else: what they had heard is thrown away, and
they hear the log anew the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tunesmith._collector import quiet
from tunesmith.costs import Budget, CostModel
from tunesmith.definition import Given
from tunesmith.fold import Fold
from tunesmith.records import Asked, Decision, Event, Fork, Opened, Repeat, Resume, Start
from tunesmith.rng import Streams, stream
from tunesmith.space import Config, NothingAllowedError
from tunesmith.trials import Trial, open_ended

TRIES = 100  #: proposals of the sampler that one ask looks at to find a configuration that was not tried
ENUMERABLE = 20_000  #: a finite space up to this size is searched for what is left
TRIES_IF_ENUMERABLE = 8  #: proposals that were all tried before, after which that is done
NEAR = 64  #: so many trials show where a space with thin constraints has something

_WAY_OUT = "the study can still be read, and study.change(...) goes on with another sampler or scheduler"


class Decided(NamedTuple):
    """The next job; or None, and the reason where there is more to say than "wait".

    ``barred``: the space has no configuration that its constraints allow, as far as was found.
    """

    asked: Asked | None
    message: str = ""
    barred: bool = False


class _Listener:
    """A sampler or a scheduler with its state, and how much of the news it has heard.

    Args:
        name: for people.
        algorithm: the sampler or scheduler.
        init: makes its first state.
        passed_over: trials of which it hears nothing.
    """

    def __init__(self, name: str, algorithm: Any, init: Callable[[], Any], passed_over: set[int]) -> None:
        self.name, self.algorithm = name, algorithm
        self._init, self._passed_over = init, passed_over
        self._state: Any = None
        self._heard = 0
        self._sound = False  # whether the state is the one after that many news

    def state(self, fold: Fold) -> Any:
        """The state after all news so far. An exception leaves the state to be made anew."""
        if not self._sound:
            with self.named("began"):
                self._state, self._heard = self._init(), 0
        self._sound = False
        with quiet(len(fold.news) - self._heard):
            self._state = self._hear(fold)
        self._heard = len(fold.news)
        self._sound = True
        return self._state

    def _hear(self, fold: Fold) -> Any:
        """Tell the algorithm what is new."""
        tell, state, passed_over, item = self.algorithm.tell, self._state, self._passed_over, None
        try:
            for item in fold.news[self._heard :] if self._heard else fold.news:
                for event in item.heard:
                    if event.trial in passed_over:  # type: ignore[attr-defined]  # every event that is heard has one
                        continue
                    if item.number < fold.changed and type(event) is Asked:
                        event = msgspec.structs.replace(event, config=fold.fitted(event.config))
                    state = tell(state, event)
        except Exception as error:
            if item is not None:
                error.add_note(f"while the {self.name} heard event {item.number}, {item.event}; {_WAY_OUT}")
            raise
        return state

    @contextmanager
    def named(self, did: str) -> Iterator[None]:
        """Say of an exception whose it is."""
        try:
            yield
        except Exception as error:
            error.add_note(f"while the {self.name} {did}; {_WAY_OUT}")
            raise


class Decider:
    """Decides from what a ``Fold`` knows. All it holds follows from the fold, and is made anew where that has changed.

    Args:
        fold: which hears.
        given: objects of the user, for what the log can't make again.
    """

    def __init__(self, fold: Fold, given: Given) -> None:
        self.fold, self.given = fold, given
        self._definition: Opened | None = None

    def _begin(self) -> None:
        """Begin anew if the definition of the study is another one than before."""
        definition = self.fold.definition
        if definition is self._definition:
            return
        space, goals, constraints = definition.space, definition.goals, definition.constraints
        sampler = self.given.sampler(definition.sampler)
        scheduler = self.given.scheduler(definition.scheduler)
        more = {"duplicates": True} if definition.duplicates else {}

        def first_of_sampler() -> Any:
            return sampler.init(space, goals, stream(definition.seed, "sampler.init"), constraints, **more)

        def first_of_scheduler() -> Any:
            return scheduler.init(space, goals, constraints)

        def first_of_design() -> Any:
            from tunesmith.samplers.qmc import design  # with SciPy, which not every study needs

            return design(space, stream(definition.seed, "sampler.design"))

        self._outside = set[int]()  # trials whose configuration the space of now does not have
        self._sampler = _Listener(f"sampler {definition.sampler.name}", sampler, first_of_sampler, self._outside)
        self._design = _Listener("initial design", _Design(), first_of_design, self._outside)
        self._scheduler = _Listener(
            f"scheduler {definition.scheduler.name}", scheduler, first_of_scheduler, self.fold.added
        )
        self._noted = 0  # so many of the news are in the next two
        self._tried = set[bytes]()
        self._firsts = dict[bytes, int]()
        self._key_of_queued = dict[int, bytes | None]()
        self._costs: CostModel | None = None
        self._priced = 0
        self._refused: tuple[tuple[int, int | None, Budget], str] | None = None
        self._definition = definition

    # -- what is known of configurations ------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Note the configurations of new trials; those outside the space (since it was changed) as such."""
        fold = self.fold
        with quiet(len(fold.news) - self._noted):
            for item in fold.news[self._noted :] if self._noted else fold.news:
                if type(item.event) is Asked:
                    self._note(fold.trials[item.event.trial])
        self._noted = len(fold.news)

    def _note(self, trial: Trial) -> None:
        try:
            key = self.fold.definition.space.key(trial.config)
        except ValueError:
            self._outside.add(trial.id)
            return
        self._tried.add(key)
        if trial.parent is None:
            self._firsts.setdefault(key, trial.id)

    def first(self, config: Config) -> Trial | None:
        """The first trial with this configuration, None where there is none; forks don't count."""
        self._begin()
        self._catch_up()
        number = self._firsts.get(self.fold.definition.space.key(config))
        return None if number is None else self.fold.trials[number]

    def known(self, config: Config) -> bool:
        """Whether a configuration was tried or is queued."""
        self._begin()
        self._catch_up()
        key = self.fold.definition.space.key(config)
        return key in self._tried or key in self._queued_keys()

    def _queued_keys(self) -> set[bytes]:
        """The identities of the queued configurations, of those that are whole and in the space of now."""
        space = self.fold.definition.space
        for number, config in self.fold.queue.items():
            if number not in self._key_of_queued:
                try:
                    self._key_of_queued[number] = space.key(config)
                except ValueError:
                    self._key_of_queued[number] = None
        return {key for number in self.fold.queue if (key := self._key_of_queued[number]) is not None}

    # -- decide -------------------------------------------------------------------------------------------------------

    def decide(self, worker: str = "", limit: int | None = None, *, closed: bool = False) -> Decided:
        """The next job, decided from the events folded so far.

        Where no trial can be started any more, the scheduler is asked what else there is to do.

        Args:
            worker: who will do the job.
            limit: start no more trials than this, repeats included.
            closed: start none.
        """
        trials = self.fold.trials
        if trials.waiting:
            return Decided(self._again(trials.waiting[0], worker))
        self._begin()
        self._catch_up()
        message, barred = "", False
        tags: tuple[str, ...] = ()
        decision = self._ask_scheduler()
        if isinstance(decision, Start | Repeat):
            if closed or (limit is not None and self.fold.started >= limit):
                message, tags = f"all {limit} trials were started", ("closed",)
                decision = self._ask_scheduler(starts=False, repeats=False)
            else:
                started = self._start(decision, worker)
                if started.asked is not None:
                    return started
                message, barred, decision = started.message, started.barred, self._ask_scheduler(starts=False)
                if isinstance(decision, Repeat):
                    return Decided(self._repeat(decision, worker))
        advanced = self._advance(decision, worker, tags)
        if advanced is not None:
            return Decided(advanced)
        return Decided(None, "; ".join(filter(None, (message, self._reason(), self._left()))), barred)

    def afford(self, budget: Budget, worker: str = "", limit: int | None = None) -> Decided:
        """The next job as ``decide`` gives it, if the budget is enough for it: for what is spent, what the jobs that
        are out will take yet, and what it will take. Jobs that are asked again need no budget.

        As long as nothing is known of costs there is one job at a time.
        """
        fold = self.fold
        if fold.trials.waiting:
            return self.decide(worker, limit)
        self._begin()
        if self._refused is not None and self._refused[0] == (fold.number, limit, budget):
            return Decided(None, self._refused[1])
        costs, spent, cost = self._learned(), fold.trials.seconds, None
        left = budget.limit - spent - costs.left
        if not costs.known and fold.trials.running:
            message = "nothing is known of costs: until the first seconds are told there is one job at a time"
        else:
            decided = self.decide(worker, limit) if left > 0 else Decided(None)
            asked = decided.asked
            if asked is None and left > 0:
                return decided
            if asked is not None:
                cost = costs.predict(asked.config, asked.start, asked.until)
                if cost is None or cost.seconds <= left or "ended" in asked.tags:
                    return decided
            message = budget.used_up(spent, costs.left, cost)
        self._refused = (fold.number, limit, budget), message
        return Decided(None, message)

    def _learned(self) -> CostModel:
        """The model of costs, up to the last event; nobody pays for it where there is no budget."""
        costs, self._costs = self._costs, None  # an exception must leave none that has heard half of an event
        if costs is None:
            costs, self._priced = CostModel(self.fold.definition.space), 0
        for item in self.fold.news[self._priced :]:
            costs.tell(item.event)
        self._priced = len(self.fold.news)
        self._costs = costs
        return costs

    def _ask_scheduler(self, *, starts: bool = True, repeats: bool = True) -> Decision | None:
        state, streams = self._scheduler.state(self.fold), Streams(self.fold.definition.seed)
        with self._scheduler.named(f"decided ask {self.fold.asks}"):
            decision: Decision | None = self._scheduler.algorithm.ask(state, streams, starts, repeats)
        return decision

    def _reason(self) -> str:
        """The scheduler's own word on why there is nothing to do."""
        message: str = self._scheduler.algorithm.message(self._scheduler.state(self.fold))
        return message

    def _left(self) -> str:
        """What stays in the queue at the end."""
        waiting = len(self.fold.queue)
        if self.fold.trials.running or not waiting:
            return ""
        return f"{waiting} enqueued configuration{'s were' if waiting > 1 else ' was'} not tried"

    # -- new trials ---------------------------------------------------------------------------------------------------

    def _start(self, decision: Start | Repeat, worker: str) -> Decided:
        """A new trial; None and the reason where nothing is left to try."""
        if isinstance(decision, Repeat):
            return Decided(self._repeat(decision, worker))
        fold = self.fold
        queued = self._queued(decision)
        try:
            number, proposed = (None, self._propose(decision)) if queued is None else queued
        except NothingAllowedError as error:
            return Decided(None, str(error), barred=True)
        if proposed is None:
            return Decided(None, f"nothing is left to try: all {len(self._tried)} configurations were tried",
                           barred=not self._tried)  # fmt: skip
        tags = () if queued is None else ("enqueued",)
        same = self.first(proposed) if fold.definition.duplicates else None
        config = self._at(proposed, decision.until)
        asked = Asked(
            fold.asks, fold.number, len(fold.trials), config, 0, decision.until, replaces=decision.replaces,
            repeat_of=None if same is None else same.id, tags=tags, worker=worker, queued=number,
        )  # fmt: skip
        return Decided(asked)

    def _repeat(self, decision: Repeat, worker: str) -> Asked:
        """A new trial with the configuration of an earlier one."""
        fold = self.fold
        same = fold.trials[decision.trial]
        first = same.id if same.repeat_of is None else same.repeat_of
        config = self._at(same.config, decision.until)
        return Asked(
            fold.asks, fold.number, len(fold.trials), config, 0, decision.until, repeat_of=first, worker=worker
        )

    def _queued(self, decision: Start) -> tuple[int, Config] | None:
        """The next configuration in the queue with its number, completed by the sampler; None where there is none.

        Passed over are those of which someone has added a result meanwhile, and those that the space of now does not
        allow.
        """
        definition = self.fold.definition
        again = self._scheduler.algorithm.repeats or definition.duplicates

        def wanted(config: Config) -> bool:
            return again or self.first(config) is None

        for number, part in self.fold.queue.items():
            config = definition.space.at(part, 1.0)
            if not definition.space.contains(config):
                config = self._completed(part, decision, wanted)  # type: ignore[assignment]
            if config is not None and wanted(config):
                return number, config
        return None

    def _completed(self, part: Config, decision: Start, wanted: Callable[[Config], bool]) -> Config | None:
        """A configuration with these values and the rest by the sampler; None where the space allows none."""
        definition = self.fold.definition
        rng = stream(definition.seed, "sampler.complete", len(self.fold.trials))
        try:
            return definition.space.complete(part, rng, self._propose(decision), wanted)
        except ValueError:
            return None

    def _propose(self, decision: Start) -> Config | None:
        """A configuration from the sampler that was not tried yet; None where none is left."""
        definition = self.fold.definition
        space, again = definition.space, self._scheduler.algorithm.repeats or definition.duplicates
        asked = self._sampler
        if decision.design and getattr(asked.algorithm, "learns", True):
            asked = self._design
        state, rng = asked.state(self.fold), self._proposal_stream()
        queued = self._queued_keys()
        until = 1 if open_ended(decision.until) else decision.until
        for _ in range(TRIES_IF_ENUMERABLE if space.size <= ENUMERABLE else TRIES):
            with asked.named(f"proposed a configuration for trial {len(self.fold.trials)}"):
                point = asked.algorithm.ask(state, rng, until)
            if point is None:
                break
            config = space.decode(point)
            if again:
                return config
            key = space.key(config)
            if key not in self._tried and key not in queued:
                return config
        if again:
            return space.sample(rng, near=(trial.config for trial in self.fold.trials[-NEAR:]))
        if point is not None and space.size <= ENUMERABLE:
            left = [
                config
                for config in space.configs()
                if (key := space.key(config)) not in self._tried and key not in queued
            ]
            if left:
                return left[rng.integers(len(left))]
        return None

    def _proposal_stream(self) -> np.random.Generator:
        """The randomness of the proposal for the next trial."""
        return stream(self.fold.definition.seed, "sampler", len(self.fold.trials))

    def _at(self, config: Config, until: int) -> Config:
        """The configuration with the fidelities of its rung."""
        space = self.fold.definition.space
        return space.at(config, self.position(until)) if space.fidelities else config

    def position(self, until: int) -> float:
        """Where a job that ends at this step stands on the ladder of rungs: 0 the first one, 1 the last."""
        self._begin()
        rungs = self._scheduler.algorithm.rungs
        return 1.0 if until not in rungs or len(rungs) == 1 else rungs.index(until) / (len(rungs) - 1)

    # -- trials that are there ----------------------------------------------------------------------------------------

    def _advance(self, decision: Decision | None, worker: str, tags: tuple[str, ...]) -> Asked | None:
        """A job for a trial that is there, or a fork of one."""
        fold = self.fold
        if isinstance(decision, Resume):
            resumed = fold.trials[decision.trial]
            config = self._at(resumed.config, decision.until)
            carries = fold.definition.space.carries(resumed.config, config)
            if carries and resumed.ended:
                tags = (*tags, "ended")
            return Asked(
                fold.asks, fold.number, resumed.id, config, resumed.step if carries else 0, decision.until, tags=tags,
                worker=worker,
            )  # fmt: skip
        if isinstance(decision, Fork):
            config, source = self._at(decision.config, decision.until), fold.trials[decision.source]
            if not self._allowed(config):
                raise ValueError(f"{self._scheduler.name} starts a fork of trial {source.id} with a configuration that "
                                 f"is not in the space: {config}")  # fmt: skip
            late = source.ended and source.step < decision.start  # there are no weights of that step
            return Asked(
                fold.asks, fold.number, len(fold.trials), config, source.step if late else decision.start,
                decision.until, decision.source, decision.replaces, tags=tags, worker=worker,
                stands_at=decision.start if late else None,
            )  # fmt: skip
        return None

    def _allowed(self, config: Config) -> bool:
        try:
            self.fold.definition.space.encode(config)
        except ValueError:
            return False
        return True

    def _again(self, trial: Trial, worker: str) -> Asked:
        """The job of a worker that vanished, from the trial's last checkpoint."""
        own = [checkpoint.step for checkpoint in trial.checkpoints[-1:]]
        start = own[0] if own else trial.start
        return Asked(
            self.fold.asks, self.fold.number, trial.id, trial.config, start, trial.until, tags=("retry",), worker=worker
        )

    # -- views --------------------------------------------------------------------------------------------------------

    @property
    def scheduler(self) -> Any:
        """The scheduler in charge."""
        self._begin()
        return self._scheduler.algorithm

    def sampling(self) -> tuple[Any, Any, np.random.Generator]:
        """The sampler, its state, which is not to be changed, and the randomness of its next proposal."""
        self._begin()
        self._catch_up()
        return self._sampler.algorithm, self._sampler.state(self.fold), self._proposal_stream()

    def scheduling(self) -> tuple[Any, Any]:
        """The scheduler and its state, which is not to be changed."""
        self._begin()
        self._catch_up()
        return self._scheduler.algorithm, self._scheduler.state(self.fold)

    def goes_on(self) -> bool:
        """Whether the scheduler has another job, where none is out."""
        self._begin()
        self._catch_up()
        return self._ask_scheduler() is not None

    def keep(self) -> set[tuple[int, int]]:
        """The checkpoints that the scheduler may still start from."""
        scheduler, state = self.scheduling()
        with self._scheduler.named("said which checkpoints it needs"):
            return set(scheduler.keep(state))


class _Design:
    """The points with which samplers begin that have nothing to go by yet, as a sampler."""

    def tell(self, state: Any, event: Event) -> Any:
        """Pass over what was tried."""
        state.tell(event)
        return state

    def ask(self, state: Any, rng: np.random.Generator, until: int = 1) -> Any:
        """The next point."""
        from tunesmith.samplers.qmc import REPEATS

        return state.next(REPEATS)
