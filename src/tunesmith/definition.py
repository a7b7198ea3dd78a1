"""What defines a study: checked, written into its log as data, and made again from it."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import msgspec

from tunesmith import samplers, schedulers
from tunesmith.errors import TunesmithError
from tunesmith.records import Changed, Goal, Opened, Spec
from tunesmith.space import Categorical, Config, Domain, Space


class StudyError(TunesmithError):
    """A study can't do what was asked of it; the message says why and what to do."""


class Given(NamedTuple):
    """Objects of the user, for what a log can't make again: Python functions as constraints, own samplers."""

    spaces: tuple[Space, ...] = ()
    samplers: tuple[Any, ...] = ()
    schedulers: tuple[Any, ...] = ()

    def plus(self, space: Space | None = None, sampler: Any = None, scheduler: Any = None) -> Given:
        """With more objects; the newest are looked at first."""
        more = [() if given is None else (given,) for given in (space, sampler, scheduler)]
        return Given(more[0] + self.spaces, more[1] + self.samplers, more[2] + self.schedulers)

    def space(self, stored: Space) -> Space:
        """The user's space that equals the stored one, or the stored one."""
        return next((space for space in self.spaces if space == stored), stored)

    def sampler(self, wanted: Spec) -> Any:
        """The sampler that ``wanted`` describes."""
        return _part(wanted, self.samplers, samplers, "sampler")

    def scheduler(self, wanted: Spec) -> Any:
        """The scheduler that ``wanted`` describes."""
        return _part(wanted, self.schedulers, schedulers, "scheduler")


NOTHING = Given()


def spec(part: Any) -> Spec:
    """A sampler or a scheduler as data.

    Raises:
        TypeError: one of its options is of a wrong type.
    """
    if isinstance(part, type):
        raise TypeError(f"{part.__name__} is a class: make an object of it, {part.__name__}(...)")
    options = msgspec.to_builtins(part) if isinstance(part, msgspec.Struct) else {}
    try:
        msgspec.convert(options, type(part) if isinstance(part, msgspec.Struct) else dict)
    except msgspec.ValidationError as error:
        raise TypeError(f"{part}: {error}") from None
    return Spec(type(part).__name__, options)


def _part(wanted: Spec, given: tuple[Any, ...], package: ModuleType, kind: str) -> Any:
    for part in given:
        if spec(part) == wanted:
            return part
    if wanted.name not in package.__all__:
        raise StudyError(
            f"the {kind} {wanted.name!r} of this study is not built in: pass it, {kind}={wanted.name}(...)"
        )
    try:
        return msgspec.convert(wanted.options, getattr(package, wanted.name))
    except msgspec.ValidationError as error:
        raise StudyError(f"the {kind} {wanted.name!r} can't be made from {wanted.options}: {error}") from error


def _whole(stored: Spec, kind: str) -> Spec:
    """With the options that a later version has added, at their defaults."""
    try:
        return spec(getattr(NOTHING, kind)(stored))
    except StudyError:  # not built in
        return stored


def changed(definition: Opened, event: Changed) -> Opened:
    """The definition after a change."""
    if event.space is not None:
        _check_space(event.space)
    fields = {field: getattr(event, field) for field in ("space", "sampler", "scheduler")}
    return msgspec.structs.replace(definition, **{field: part for field, part in fields.items() if part is not None})


def fit(space: Space, config: Config, fill: Mapping[str, Any]) -> Config:
    """A configuration of an earlier space in this one: without what is gone, with ``fill`` for what is new."""
    fitted: Config = {}

    def visit(domains: Mapping[str, Domain]) -> None:
        for name, domain in domains.items():
            if name not in config and name not in fill:
                continue
            value = fitted[name] = config[name] if name in config else fill[name]
            if isinstance(domain, Categorical) and value in domain.options:
                branch = domain.branches[domain.options.index(value)]
                if branch is not None:
                    visit(branch)

    visit(space)
    return fitted


def check_definition(space: Any, goals: tuple[Any, ...], sampler: Any, scheduler: Any, seed: Any, trials: Any) -> None:
    """Say what is wrong with the arguments of a study, by TypeError or ValueError."""
    _check_space(space)
    if not goals or not all(isinstance(goal, Goal) for goal in goals):
        raise TypeError(f"goals must be a list of Goal, such as [Goal('accuracy', maximise=True)], not {list(goals)!r}")
    for goal in goals:
        if not isinstance(goal.metric, str) or not all(isinstance(flag, bool) for flag in (goal.maximise, goal.once)):
            raise TypeError(f"{goal}: metric must be a string, and maximise and once True or False")
    if len({goal.metric for goal in goals}) < len(goals):
        raise ValueError(f"goals name a metric twice: {', '.join(goal.metric for goal in goals)}")
    for what, given, example in (("sampler", sampler, "QMC()"), ("scheduler", scheduler, "Full(steps=10)")):
        if isinstance(given, type) or not all(hasattr(given, verb) for verb in ("init", "tell", "ask")):
            raise TypeError(f"{what} must be an object such as {what}s.{example}, not {given!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an integer, not {seed!r}")
    if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 0):
        raise ValueError(f"trials must be a number of trials, at least 0, or None for no limit, not {trials!r}")


def _check_space(space: Any) -> None:
    if not isinstance(space, Space):
        raise TypeError(
            f"space must be a Space, not {type(space).__name__}: Space({{'lr': Float(1e-5, 1e-1, log=True)}})"
        )


def check_filled(space: Space, config: Config) -> None:
    """Raise if a parameter of ``space`` has no value."""
    for name in space:
        if name not in config:
            raise StudyError(f"change: parameter {name!r} is new: say with fill={{{name!r}: ...}} what it was so far")


def difference(stored: Opened, given: Opened) -> str:
    """What is defined otherwise, in words; empty where nothing is."""
    for field in ("goals", "sampler", "scheduler", "seed", "constraints"):
        ours, theirs = getattr(stored, field), getattr(given, field)
        if ours != theirs and not (isinstance(ours, Spec) and _whole(ours, field) == theirs):
            return f"{field} is {ours}, given is {theirs}"
    return difference_of_spaces(stored.space, given.space)


def difference_of_spaces(stored: Space, given: Space) -> str:
    """What differs between two spaces, in words; empty where nothing does."""
    if stored == given:
        return ""
    for name in {**stored, **given}:
        ours, theirs = stored.get(name), given.get(name)
        if ours != theirs:
            return f"parameter {name!r} is {ours}, given is {theirs}"
    return "the constraints of the space differ"
