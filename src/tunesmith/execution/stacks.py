"""Tasks whose members can be trained together: their states are stacked, one row a member.

A *stack* holds the states of members of one shape on a device, along axis 0 of every array. A *group* is what members
must have in common to be trained by one program: the hyperparameters that are static, and the types of the others.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith.execution.base import current_job
from tunesmith.space import Scalar

log = logging.getLogger("tunesmith")

Columns = dict[str | None, NDArray[np.float64]]
"""Metrics by name, [steps, members]; the name is None where the training gives a number alone."""

NUMERIC = (int, float)
LARGEST: Mapping[type, float] = {int: 2**63 - 1, float: 3.4028234e38}  #: what PyTorch takes
STEPS = 32  #: steps of a study that one launch takes at most
FIXED = "Mark what decides shapes as chosen once, such as Ordinal([8, 16], fixed=True), or leave it constant"


@dataclass(frozen=True)
class Group:
    """What one program is made for.

    Attributes:
        key: what tells it from others.
        static: the hyperparameters that have one value in the program.
        varying: the names of those that every member has its own value of, with their types.
        example: the hyperparameters of one of its members.
    """

    key: tuple[tuple[str, str], ...]
    static: Mapping[str, Any] = field(compare=False)
    varying: Mapping[str, type] = field(compare=False)
    example: Mapping[str, Any] = field(compare=False)

    @classmethod
    def of(cls, config: Mapping[str, Any], static: Sequence[str], largest: Mapping[type, float] = LARGEST) -> Group:
        """The group of a configuration.

        What is no number, or one that is larger than the largest of its type, is static, whether it is declared so or
        not.
        """
        varying = {name: type(value) for name, value in config.items() if _varies(name, value, static, largest)}
        fixed = {name: value for name, value in config.items() if name not in varying}
        key = [(name, _identity(value)) for name, value in fixed.items()]
        key += [(name, kind.__name__) for name, kind in varying.items()]
        return cls(tuple(sorted(key)), fixed, varying, dict(config))

    def __str__(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.static.items()) or "all members"


class Layout(NamedTuple):
    """What the states of a group look like: its equals can be copied.

    Attributes:
        tree: how they are put together.
        names: of the arrays in them.
        kinds: shapes and types of the arrays.
    """

    tree: Any
    names: tuple[str, ...]
    kinds: tuple[Any, ...]


class Members(NamedTuple):
    """Who is trained by one program, in the order of the rows.

    Attributes:
        group: theirs.
        configs: their hyperparameters.
        seeds: of their trials, numbers in [0, 2**63).
        steps: where they stand.
    """

    group: Group
    configs: Sequence[Mapping[str, Any]]
    seeds: Sequence[int]
    steps: Sequence[int]

    def take(self, indices: Sequence[int]) -> Members:
        """Some of them; one may be named more than once."""
        return Members(
            self.group,
            [self.configs[i] for i in indices],
            [self.seeds[i] for i in indices],
            [self.steps[i] for i in indices],
        )


class Stack(Protocol):
    """The states of some members. What changes them changes them in place; rows may be named more than once."""

    @property
    def rows(self) -> int:
        """How many states it holds."""
        ...

    @property
    def broken(self) -> bool:
        """Whether a program that has failed took the states with it."""
        ...

    def init(self, rows: Sequence[int], members: Members) -> None:
        """Put states at step 0 into some rows."""
        ...

    def copy(self, rows: Sequence[int], source: Stack, sources: Sequence[int]) -> None:
        """Put states of a stack of the same layout, which may be this one, into some rows, as if all at once."""
        ...

    def take(self, rows: Sequence[int]) -> Stack:
        """A new stack of copies of some rows."""
        ...

    def load(self, rows: Sequence[int], trees: Sequence[Any]) -> None:
        """Put states that ``trees`` has given into some rows.

        Raises:
            ValueError: one has not the names and shapes of this stack's states.
        """
        ...

    def trees(self) -> list[Any]:
        """The states on the host, one tree a row; another thread may call it."""
        ...

    def run(self, members: Members, count: int, chunk: int) -> Callable[[], Columns]:
        """Train all rows for ``count`` steps, from the steps where they stand. What it gives waits until that is done.

        Members are trained in chunks of so many at once, one chunk after the other; a chunk of 1 is not vectorised.
        """
        ...


@dataclass
class _Member:
    """One member trained by itself."""

    stack: Stack
    group: Group
    step: int


class StackedTask(ABC):
    """Training code for many members as one program; the executor for it is :class:`Vectorised`.

    It is a ``Task``, too: of one member by itself, so that every other executor runs it.

    Args:
        pure: an object with the functions ``init`` and ``step``; what they get is said by the subclass.
        static: names of hyperparameters that have one value in a program, since shapes or Python code depend on them.
            What is not a number is static in any case. By default what ``pure.static`` says.
        members: how many are trained at once; by default the population of the scheduler, else 64.
        chunk: how many members a program trains at a time, one chunk after the other; 1 trains them one by one,
            without vectorisation. By default all together and one by one are both timed, and the faster is kept.
        save_every_jobs: every how many jobs of a member its state is written to disk. The last one always is, and at
            the end of a run whatever the study may still need.
    """

    def __init__(
        self,
        pure: Any,
        *,
        static: Sequence[str] | None = None,
        members: int | None = None,
        chunk: int | None = None,
        save_every_jobs: int = 1,
        **unknown: Any,
    ) -> None:
        if "checkpoint_every" in unknown:
            raise TypeError(f"checkpoint_every={unknown['checkpoint_every']!r}: this option is called save_every_jobs")
        if unknown:
            raise TypeError(f"{type(self).__name__} has no option {next(iter(unknown))!r}")
        missing = [name for name in ("init", "step") if not callable(getattr(pure, name, None))]
        if missing:
            raise TypeError(f"{pure!r} lacks {' and '.join(missing)}: it needs the functions init and step")
        self.declared = () if static is None else _names(static)
        static = _names(getattr(pure, "static", ())) if static is None else self.declared
        for name, value in (("members", members), ("chunk", chunk), ("save_every_jobs", save_every_jobs)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r} must be a whole number, at least 1")
        self.pure, self.static = pure, static
        self.members, self.chunk, self.save_every_jobs = members, chunk, save_every_jobs
        self.chunks: dict[tuple[Group, int], int] = {}  # what was found to be the fastest, by the number of members
        self._groups: dict[Any, Group] = {}
        self._large: set[str] = set()  # hyperparameters of which this was said
        self._made: dict[Any, Any] = {}  # what is compiled

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"chunks": {}, "_groups": {}, "_made": {}}  # all is made anew in another process

    @property
    def largest(self) -> Mapping[type, float]:
        """By type, the largest number that a program can take."""
        return LARGEST

    def group(self, config: Mapping[str, Any]) -> Group:
        """The group of a configuration."""
        static, largest = self.static, self.largest
        key = tuple(
            [
                (name, type(value) if _varies(name, value, static, largest) else _identity(value))
                for name, value in config.items()
            ]
        )
        if key not in self._groups:
            self._groups[key] = group = Group.of(config, static, largest)
            for name in group.static:
                if type(config[name]) in NUMERIC and name not in static and name not in self._large:
                    self._large.add(name)
                    log.warning("%s=%r is too large for a device: every such value gets a program", name, config[name])
        return self._groups[key]

    def check(self) -> None:
        """Say now, before anything is trained, what is wrong with the options."""
        return

    def may_be_one(self, error: Exception) -> bool:
        """Whether a launch may have failed through the hyperparameters of one member, so that others would not."""
        return True

    @abstractmethod
    def layout(self, group: Group) -> Layout:
        """What a state of this group looks like, as its example shows."""

    @abstractmethod
    def stack(self, group: Group, rows: int) -> Stack:
        """A stack for states of this group, all zero."""

    def capacity(self, members: int, most: int) -> int:
        """The rows of a program for so many members: the next power of two, so that few programs are compiled."""
        return min(power(members), max(most, members))

    # -- one member by itself: the protocol of Task

    def init(self, config: Mapping[str, Any], rng: np.random.Generator) -> _Member:
        """The state at step 0."""
        group = replace(self.group(config), example=dict(config))
        state = _Member(self.stack(group, self.capacity(1, 1)), group, 0)
        state.stack.init([0], Members(group, [config], [current_job().seed], [0]))
        return state

    def step(self, state: _Member, config: Mapping[str, Any]) -> tuple[_Member, Any]:
        """One step of training."""
        member = Members(state.group, [config], [current_job().seed], [state.step])
        columns = state.stack.run(member.take([0] * state.stack.rows), 1, 1)()
        state.step += 1
        return state, row_of(columns, 0, 0)

    def save(self, state: _Member) -> dict[str, Any]:
        """The step and the arrays of the state, by their places in it."""
        return {"step": state.step, "state": state.stack.take([0]).trees()[0]}

    def load(self, tree: Mapping[str, Any], config: Mapping[str, Any]) -> _Member:
        """The state again."""
        group = replace(self.group(config), example=dict(config))
        state = _Member(self.stack(group, self.capacity(1, 1)), group, tree["step"])
        state.stack.load([0], [tree["state"]])
        return state


def _varies(name: str, value: Any, static: Sequence[str], largest: Mapping[type, float]) -> bool:
    return type(value) in NUMERIC and name not in static and abs(value) <= largest[type(value)]


def _identity(value: Any) -> str:
    """What tells a value from others. The values of options are objects that the space keeps, and need not print so."""
    return repr(value) if isinstance(value, Scalar) else f"{type(value).__name__} {id(value)}"


def power(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def leaf_names(paths: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    """Names for arrays by their places in a state: the keys with dots between them. Where two places would have one
    name, the keys are quoted.

    Raises:
        TypeError: even so two have one name.
    """
    for show in (str, repr):
        names = tuple(".".join(map(show, path)) or "state" for path in paths)
        if len(set(names)) == len(names):
            return names
    twice = next(name for name in names if names.count(name) > 1)
    raise TypeError(f"two arrays of the state have the name {twice!r}: call one of them otherwise")


def match(tree: Mapping[str, Any], names: Sequence[str], leaves: Sequence[Any]) -> None:
    """ValueError where a saved state has not the names, shapes and types of the rows of these arrays."""
    wanted = {name: f"{leaf.dtype}{list(leaf.shape[1:])}" for name, leaf in zip(names, leaves, strict=True)}
    found = {name: f"{array.dtype}{list(array.shape)}" for name, array in tree.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"the saved weights do not fit: {name} is {found.get(name, 'not there')}, with these hyperparameters "
                f"it is {wanted.get(name, 'not there')}. {FIXED}"
            )


def row_of(columns: Columns, step: int, member: int) -> dict[str | None, float] | float:
    """The metrics of a member at a step, as training code gives them."""
    row = {name: float(values[step, member]) for name, values in columns.items()}
    return row.get(None, row)


def metric_error(name: Any, what: str) -> TypeError:
    """The error for a metric of this name, which is empty where a training gives a number alone."""
    return TypeError(f"the metric {name!r} {what}" if name else f"the metric {what}")


def _names(static: object) -> tuple[str, ...]:
    if isinstance(static, str) or not isinstance(static, Sequence) or not all(isinstance(one, str) for one in static):
        given = (static,) if isinstance(static, str) else "('width', ...)"
        raise TypeError(f"static={static!r} must be names: static={given}")
    return tuple(static)
