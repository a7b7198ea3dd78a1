"""From what users write to the one protocol ``Task``.

:func:`as_task` decides by the shape of the code, in this order:

1. an object with ``init``, ``step``, ``save`` and ``load`` (``Command`` is one): taken as it is;
2. a class with ``setup(config)`` and ``step()``: one instance a trial;
3. a generator function: one ``yield`` a step;
4. a function whose first parameter is called ``trial`` (or annotated ``Trial``): one ``trial.report(...)`` a step;
5. any other function of the configuration: trains in one step and returns the metrics.

``setup``, generators and functions of the configuration get the trial's random numbers if they have a parameter
``seed`` (an int) or ``rng`` (a numpy generator), and how many earlier trials had the same configuration if they have a
parameter ``repeat``: it may serve as the number of a fold.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

from tunesmith.checkpoints import REPORTED, Files, reported
from tunesmith.execution.base import ContinueError, EndedError, Task, current_job
from tunesmith.metrics import is_number
from tunesmith.reports import notes
from tunesmith.rng import stream
from tunesmith.space import Scalar

_METHODS = ("init", "step", "save", "load")


def as_task(train: Any) -> Task[Any]:
    """Adapt training code; the rule stands at the head of this module.

    Raises:
        TypeError: it is nothing of the above.
    """
    if isinstance(train, type):
        return ClassTask(train)
    if all(callable(getattr(train, name, None)) for name in _METHODS):
        return train  # type: ignore[no-any-return]
    if not callable(train):
        missing = [name for name in _METHODS if not callable(getattr(train, name, None))]
        raise TypeError(
            f"{train!r} is no training code: give a generator, a function, a class with setup and step, a Command, "
            f"or an object with init, step, save and load (this one lacks {', '.join(missing)})"
        )
    function = _function(train)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{_name(train)} is asynchronous: give an ordinary function or generator")
    if inspect.isgeneratorfunction(function):
        return GeneratorTask(train)
    parameters = list(inspect.signature(train).parameters.values())
    if not parameters:
        raise TypeError(f"{_name(train)} takes no argument: its first one must be the configuration, or `trial`")
    first = parameters[0]
    if first.name == "trial" or str(getattr(first.annotation, "__name__", first.annotation)).endswith("Trial"):
        return FunctionTask(train)
    return ValueTask(train)


# -- a class ------------------------------------------------------------------------------------------------------


class ClassTask:
    """A class with ``setup(config)``, ``step() -> metrics``, ``save() -> tree`` and ``load(tree)``.

    ``save(path)`` and ``load(path)`` write files instead, into a directory of their own. After a fork a new instance
    gets ``setup(new config)``, ``load(tree of the source)`` and, where it has one, ``reconfigure(new config)``: there
    it makes the new hyperparameters hold over what the checkpoint brought along. A ``step`` that raises
    ``StopIteration`` ends the training. ``close()`` is called when the instance is given up.
    """

    def __init__(self, kind: type) -> None:
        missing = [name for name in ("setup", "step") if not callable(getattr(kind, name, None))]
        if missing:
            raise TypeError(
                f"the class {kind.__qualname__} lacks {' and '.join(missing)}: it needs setup(config) and step()"
            )
        self.kind = kind
        has = [callable(getattr(kind, name, None)) for name in ("save", "load")]
        if any(has) and not all(has):
            raise TypeError(f"the class {kind.__qualname__} has only one of save and load: it needs both, or none")
        self.saves = all(has)
        self.writes_files = self.saves and len(inspect.signature(kind.save).parameters) > 1  # type: ignore[attr-defined]

    def init(self, config: Any, rng: Any) -> Any:
        """A new instance, set up."""
        instance = self.kind()
        instance.setup(config, **_random(self.kind.setup))  # type: ignore[attr-defined]
        return instance

    def step(self, state: Any, config: Any) -> tuple[Any, Any]:
        """One call of ``step``; ``StopIteration`` says that the training has come to its end."""
        try:
            return state, state.step()
        except StopIteration:
            raise EndedError(f"step of {self.kind.__qualname__} ended the training before the first metrics") from None

    def save(self, state: Any) -> Any:
        """What ``save`` returns or writes."""
        if not self.saves:
            return None
        return Files(state.save) if self.writes_files else state.save()

    def load(self, tree: Any, config: Any) -> Any:
        """A new instance with the saved state and the hyperparameters of ``config``."""
        if not self.saves:
            raise ContinueError(f"the class {self.kind.__qualname__} can't be continued: give it save and load")
        instance = self.init(config, None)
        instance.load(tree)
        if hasattr(instance, "reconfigure"):
            instance.reconfigure(config)
        return instance

    def close(self, state: Any) -> None:
        """Call ``close``, where there is one."""
        if callable(getattr(state, "close", None)):
            state.close()


# -- a generator --------------------------------------------------------------------------------------------------


@dataclass
class _Generation:
    """A generator in its course, the state it yielded last, and what it has returned."""

    steps: Generator[Any, None, Any]
    state: Any = None
    returned: Any = None


class GeneratorTask:
    """A generator function ``train(config, state=None)`` that yields ``metrics`` or ``(metrics, state)`` once a step.

    When it returns the training has come to its end. Code after the last ``yield`` of a trial that is as long as it may
    be does not run, but ``finally`` blocks do.

    The state is a tree, or a function without arguments that makes one (called only when a checkpoint is due). To
    continue or fork a trial the function is called anew with ``state=`` that tree.
    """

    def __init__(self, train: Callable[..., Generator[Any, None, Any]]) -> None:
        self.train = train

    def init(self, config: Any, rng: Any) -> _Generation:
        """A new generator, not yet begun."""
        return _Generation(self.train(config, **_random(self.train)))

    def step(self, state: _Generation, config: Any) -> tuple[_Generation, Any]:
        """Go on to the next ``yield``."""
        try:
            value = next(state.steps)
        except StopIteration as end:
            state.returned = end.value
            raise EndedError("the generator ended without a yield: it must yield its metrics once a step") from None
        if isinstance(value, tuple) and len(value) == 2:
            value, state.state = value
        else:
            state.state = None
        return state, value

    def save(self, state: _Generation) -> Any:
        """The state it yielded last, if any."""
        return _evaluate(state.state)

    def load(self, tree: Any, config: Any) -> _Generation:
        """A new generator that is given the state."""
        if "state" not in inspect.signature(self.train).parameters:
            raise ContinueError(f"{_name(self.train)} can't be continued: give it a parameter `state=None`")
        return _Generation(self.train(config, state=tree, **_random(self.train)), tree)

    def warning(self, state: _Generation) -> str:
        """That what it has returned counts for nothing."""
        return _unused(self.train, state.returned, "yields")

    def close(self, state: _Generation) -> None:
        """End the generator (``finally`` blocks run)."""
        state.steps.close()


# -- a function that reports ----------------------------------------------------------------------------------------


class Stopped(BaseException):
    """Raised by ``trial.report`` when the trial is over. Let it pass; ``finally`` blocks run."""


RAISES = 100  #: so often `Stopped` is raised in a function that catches it, before the function is put to sleep


class Trial:
    """What a function ``train(trial)`` gets.

    Attributes:
        config: the configuration, a dict.
        state: the tree to go on from, or None at the beginning.
        step: how many steps have been trained.
        number: the number of the trial in its study.
        seed: seed of the trial, the same whenever it is started.
        repeat: how many earlier trials had the same configuration.
    """

    def __init__(self, config: dict[str, Any], state: Any, step: int, number: int, seed: int, repeat: int = 0) -> None:
        self.config, self.state, self.step, self.number, self.seed = config, state, step, number, seed
        self.repeat = repeat
        self._news: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._orders: SimpleQueue[bool] = SimpleQueue()
        self._thread: Thread | None = None
        self._notes: dict[str, Scalar] = {}
        self._returned: Any = None  # by the function, at its end
        self._cut = False  # it reported again after its last step
        self._stopped = 0  # how often `Stopped` was raised

    def report(self, metrics: Any = None, *, state: Any = None, **named: Any) -> None:
        """Say that one more step is done. Returns when the training is to go on; after the last step of a trial also,
        so that the code can come to its end: test the model, save it, clean up.

        Args:
            metrics: a dict name -> number, or a number where the study has one goal.
            state: the tree to continue from, or a function that makes it (called only when a checkpoint is due).
            named: metrics by name: ``trial.report(accuracy=0.9)``.

        Raises:
            Stopped: the trial is over: it is given up, or this is a step beyond its last one.
        """
        if "step" in named:
            raise TypeError("report() counts the steps itself, one a call: leave step= out")
        if named:
            metrics = {**metrics, **named} if isinstance(metrics, Mapping) else named
        if not self._stopped:
            self.step += 1
            self.state = state
            self._news.put(("step", metrics))
        if self._stopped or not self._orders.get():
            self._stop()

    def note(self, **values: Scalar) -> None:
        """Remember something beside the metrics of this trial: texts, numbers, True, False or None, by name."""
        self._notes |= notes(values)

    def _stop(self) -> None:
        """Raise ``Stopped``; code that catches it again and again is never woken any more."""
        self._stopped += 1
        if self._stopped > RAISES:
            self._news.put(("end", None))
            Event().wait()
        raise Stopped

    def _advance(self, train: Callable[[Trial], Any]) -> Any:
        """Let the function run to its next report, and return the metrics."""
        if self._thread is None:
            self._thread = Thread(
                target=copy_context().run, args=(self._run, train), name=f"trial-{self.number}", daemon=True
            )
            self._thread.start()
        else:
            self._orders.put(True)
        news, value = self._hear()
        if news == "end":
            raise EndedError("the function ended without a report: call trial.report once a step")
        return value

    def _hear(self) -> tuple[str, Any]:
        """What the function does next: it reports a ``"step"``, or is at its ``"end"``. Raises what it has raised."""
        news, value = self._news.get()
        if news != "step":
            self._thread = None
        if news == "error":
            raise value
        return news, value

    def _finish(self) -> None:
        """Let the function run to its end, as far as it does not report any more."""
        if self._thread is None:
            return
        self._orders.put(True)
        news, _ = self._hear()
        if news == "step":
            self._cut = True
            self._give_up()

    def _run(self, train: Callable[[Trial], Any]) -> None:
        try:
            self._returned = train(self)
        except BaseException as error:
            over = isinstance(error, Stopped) or (isinstance(error, SystemExit) and not error.code)
            self._news.put(("end", None) if over else ("error", error))
        else:
            self._news.put(("end", None))

    def _give_up(self) -> None:
        """Make ``report`` raise ``Stopped``, and wait for the function to end."""
        if self._thread is None:
            return
        self._thread = None
        self._orders.put(False)
        with suppress(Empty):
            self._news.get(timeout=10.0)


class FunctionTask:
    """A function ``train(trial)`` that calls ``trial.report(...)`` once a step. It runs in a thread of its own."""

    def __init__(self, train: Callable[[Trial], Any]) -> None:
        self.train = train

    def init(self, config: Any, rng: Any, state: Any = None, step: int = 0) -> Trial:
        """A trial whose function has not been called yet."""
        job = current_job()
        return Trial(config, state, step, job.trial, job.seed, job.repeat)

    def step(self, state: Trial, config: Any) -> tuple[Trial, Any]:
        """Run to the next report."""
        return state, state._advance(self.train)

    def save(self, state: Trial) -> Any:
        """The state that was reported last, and its step."""
        tree = _evaluate(state.state)
        return None if tree is None else reported(state.step, tree)

    def load(self, tree: Any, config: Any) -> Trial:
        """A trial that begins with the state. Earlier versions have saved it under other names."""
        step = tree[REPORTED] if REPORTED in tree else tree["step"]
        return self.init(config, None, tree["state"], step)

    def finish(self, state: Trial) -> None:
        """Let the function run on from its last report."""
        state._finish()

    def notes(self, state: Trial) -> dict[str, Scalar]:
        """What was noted since the last time."""
        noted, state._notes = state._notes, {}
        return noted

    def warning(self, state: Trial) -> str:
        """That what it has returned counts for nothing, or that one step was perhaps too short."""
        if state._cut and current_job().until == 1:
            return (
                f"{_name(self.train)} had more to report, but its trials have one step: the scheduler says how many, "
                "Full(steps=10) for instance, and with Full(None) the code trains to its own end"
            )
        return _unused(self.train, state._returned, "reports")

    def close(self, state: Trial) -> None:
        """Make its ``report`` raise ``Stopped``, and wait for the function to end."""
        state._give_up()


# -- a function of the configuration ----------------------------------------------------------------------------------


class ValueTask:
    """A function ``train(config)`` that trains in one step and returns a number or a dict of metrics.

    Where the space has fidelities it is called once a rung, and what it returns is the value at the step of the rung.
    """

    whole = True

    def __init__(self, train: Callable[..., Any]) -> None:
        self.train = train

    def init(self, config: Any, rng: Any) -> bool:
        """Nothing is done yet."""
        return False

    def step(self, state: bool, config: Any) -> tuple[bool, Any]:
        """The one step."""
        if state:
            raise EndedError(
                f"{_name(self.train)}(config) returns one value, so it has one step; for more let it yield metrics, "
                "or take `trial` and call trial.report(...)"
            )
        return True, self.train(config, **_random(self.train))

    def over(self, state: bool) -> bool:
        """There is one step."""
        return state

    def lasts(self, state: bool) -> bool:
        """Another rung is another call."""
        return False

    def save(self, state: bool) -> None:
        """There is nothing to continue."""

    def load(self, tree: Any, config: Any) -> bool:
        """There is nothing to continue."""
        raise ContinueError(f"{_name(self.train)}(config) can't be continued: let it yield (metrics, state)")


# -- helpers ------------------------------------------------------------------------------------------------------


def _evaluate(state: Any) -> Any:
    return state() if callable(state) else state


def _random(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments ``seed``, ``rng`` and ``repeat``, if the function takes them."""
    names = {"seed", "rng", "repeat"} & inspect.signature(function).parameters.keys()
    if not names:
        return {}
    job = current_job()
    given = {"seed": job.seed, "rng": stream(job.seed, "train"), "repeat": job.repeat}
    return {name: given[name] for name in names}


def _function(train: Any) -> Any:
    """The function below partials and callable objects."""
    while isinstance(train, partial):
        train = train.func
    return train if inspect.isroutine(train) else type(train).__call__


def _unused(train: Any, returned: Any, tells: str) -> str:
    """What to say where metrics were returned by code that tells them otherwise."""
    if returned is None or not (isinstance(returned, Mapping) or is_number(returned)):
        return ""
    return f"{_name(train)} returns metrics at its end, which do not count: what it {tells} does"


def _name(train: Any) -> str:
    return str(getattr(train, "__qualname__", None) or type(train).__qualname__)
