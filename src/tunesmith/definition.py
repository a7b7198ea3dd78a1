"""What defines a study: checked, written into its log as data, and made again from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from numbers import Integral
from types import ModuleType
from typing import Any, NamedTuple

import msgspec

from tunesmith import samplers, schedulers
from tunesmith._constraints import Function, storable
from tunesmith.errors import TunesmithError, clean
from tunesmith.records import Changed, Constraint, Goal, Opened, Spec
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


def as_goals(goals: Sequence[Goal] | Goal) -> tuple[Goal, ...]:
    """One goal or several, as several.

    Raises:
        TypeError: they are no list of goals.
    """
    if isinstance(goals, str):
        raise TypeError(f"goals={goals!r} must be a Goal: Goal({goals!r}), or Goal({goals!r}, maximise=True)")
    if not isinstance(goals, Goal | Iterable):
        raise TypeError(f"goals must be a list of Goal, such as [Goal('accuracy', maximise=True)], not {goals!r}")
    return (goals,) if isinstance(goals, Goal) else tuple(goals)


def check_definition(
    space: Any, goals: tuple[Any, ...], sampler: Any, scheduler: Any, seed: Any, constraints: Any, duplicates: Any
) -> int:
    """Validate the arguments of a study.

    Returns:
        The seed as an int.

    Raises:
        TypeError, ValueError: naming the argument and what it must be.
    """
    _check_space(space)
    if not goals or not all(isinstance(goal, Goal) for goal in goals):
        raise TypeError(f"goals must be a list of Goal, such as [Goal('accuracy', maximise=True)], not {list(goals)!r}")
    if len({goal.metric for goal in goals}) < len(goals):
        raise ValueError(f"goals name a metric twice: {', '.join(goal.metric for goal in goals)}")
    if not all(isinstance(rule, Constraint) for rule in constraints):
        raise TypeError(f"constraints must be a list of Constraint, such as [Constraint('ms', at_most=5)], not "
                        f"{list(constraints)!r}; rules between parameters belong to the Space")  # fmt: skip
    for rule in (*goals, *constraints):
        if clean(rule.metric) != rule.metric:
            raise ValueError(
                f"{type(rule).__name__}: metric={rule.metric!r} must be a name that can be written as UTF-8"
            )
    check_algorithm("sampler", sampler)
    check_algorithm("scheduler", scheduler)
    if not isinstance(duplicates, bool):
        raise TypeError(f"duplicates={duplicates!r} must be True or False")
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed must be an integer, not {seed!r}")
    if not -(2**63) <= int(seed) < 2**63:
        raise ValueError(f"seed={seed} must be from -2**63 to 2**63 - 1")
    return int(seed)


_EXAMPLES = {"sampler": "samplers.QMC()", "scheduler": "schedulers.Full(steps=10)"}
_PARTS = {
    "sampler": ("init", "tell", "ask"),
    "scheduler": ("init", "tell", "ask", "keep", "repeats", "endless", "rungs", "horizon", "members", "message"),
}


def check_algorithm(kind: str, given: Any) -> None:
    """Raise TypeError, with the way out, unless this is a sampler or a scheduler."""
    package = {"sampler": samplers, "scheduler": schedulers}[kind]
    wrong = f"{kind} must be an object such as {_EXAMPLES[kind]}, not {given!r}"
    if isinstance(given, str):
        near = (name for name in package.__all__ if name.lower() == given.lower())
        raise TypeError(wrong + "".join(f": write {kind}s.{name}(...)" for name in near))
    name = given.__name__ if isinstance(given, type) else type(given).__name__
    if isinstance(given, type):
        raise TypeError(f"{wrong}, which is a class: write {name}(...)")
    other = {"sampler": "scheduler", "scheduler": "sampler"}[kind]
    others = schedulers if kind == "sampler" else samplers
    if name in others.__all__ and isinstance(given, getattr(others, name)):
        raise TypeError(f"{kind}={given!r} is a {other}: pass it as {other}=")
    missing = [part for part in _PARTS[kind] if not hasattr(given, part)]
    if any(part in missing for part in ("init", "tell", "ask")):
        raise TypeError(wrong)
    if missing:
        raise TypeError(f"the {kind} {name} lacks {', '.join(missing)}: inherit the defaults of "
                        "tunesmith.schedulers.base.Defaults")  # fmt: skip


def check_limits(**limits: Any) -> None:
    """Raise TypeError or ValueError unless each is a whole number of trials, at least 0, or None."""
    for name, limit in limits.items():
        if limit is None:
            continue
        if isinstance(limit, bool) or not isinstance(limit, Integral):
            raise TypeError(f"{name} must be a number of trials, at least 0, or None for no limit, not {limit!r}")
        if limit < 0:
            raise ValueError(f"{name} must be a number of trials, at least 0, or None for no limit, not {limit}")


def _check_space(space: Any) -> None:
    if not isinstance(space, Space):
        raise TypeError(
            f"space must be a Space, not {type(space).__name__}: Space({{'lr': Float(1e-5, 1e-1, log=True)}})"
        )


def check_fill(asked: Sequence[Config], configs: Sequence[Config], space: Space, fill: Config) -> None:
    """Raise StudyError unless every trial has a value for each parameter that is active in it, and ``fill`` is used.

    Args:
        asked: the configurations of the trials as they were asked.
        configs: the same as the change makes them.
        space: the new one.
        fill: what the change gives to parameters that are new.
    """
    try:
        space.check_part(fill)
    except ValueError as error:
        raise StudyError(f"change: fill={fill}: {error}") from None
    for config in configs:
        missing = missing_parameter(space, config)
        if missing is not None:
            raise StudyError(
                f"change: parameter {missing!r} is new: say with fill={{{missing!r}: ...}} what it was so far"
            )
    for name in fill if asked else ():
        if not any(name in config and name not in before for before, config in zip(asked, configs, strict=True)):
            raise StudyError(f"change: fill={fill}: no trial lacks a value of {name!r}: leave it out")


def missing_parameter(domains: Mapping[str, Domain], config: Config) -> str | None:
    """The first parameter that is active in a configuration and has no value there."""
    for name, domain in domains.items():
        if name not in config:
            return name
        if isinstance(domain, Categorical) and config[name] in domain.options:
            branch = domain.branches[domain.options.index(config[name])]
            missing = missing_parameter(branch or {}, config)
            if missing is not None:
                return missing
    return None


def difference(stored: Opened, given: Opened) -> str:
    """All that is defined otherwise, in words, with the way out; empty where nothing is."""
    fixed: list[str] = []  # what can't be changed
    free: list[str] = []
    differ: list[str] = []
    for field in ("goals", "seed", "constraints", "duplicates", "sampler", "scheduler"):
        ours, theirs = getattr(stored, field), getattr(given, field)
        part = field in ("sampler", "scheduler")
        if ours != theirs and not (part and _whole(ours, field) == theirs):
            (free if part else fixed).append(field)
            differ.append(f"{field} is {_shown(ours)}, given is {_shown(theirs)}")
    spaces = difference_of_spaces(stored.space, given.space)
    if spaces:
        free.append("space")
        differ.append(spaces)
    if not differ:
        return ""
    if fixed:
        way_out = f": {'that' if len(differ) == 1 else ' and '.join(fixed)} can't be changed"
    else:
        changes = ", ".join(f"{field}=..." for field in free)
        way_out = f", or go on with another {' and '.join(free)}: Study.open(...).change({changes})"
    return f"{'; '.join(differ)}. Use another name or store{way_out}"


def _shown(part: Any) -> str:
    """A part of a definition as it would be written."""
    if isinstance(part, Spec):
        return f"{part.name}({', '.join(f'{name}={value!r}' for name, value in part.options.items())})"
    return repr(list(part)) if isinstance(part, tuple) else repr(part)


def difference_of_spaces(stored: Space, given: Space) -> str:
    """What differs between two spaces, in words; empty where nothing does."""
    if stored == given:
        return ""
    for name in {**stored, **given}:
        ours, theirs = stored.get(name), given.get(name)
        if ours != theirs or repr(ours) != repr(theirs):  # True equals 1
            return _difference_of_branches(name, ours, theirs) or _other(f"parameter {name!r}", ours, theirs)
    if list(stored) != list(given):
        return (
            f"the order of the parameters is {', '.join(stored)}, given is {', '.join(given)}: it decides which random "
            "numbers belong to which"
        )
    for rule, other in zip_longest(map(storable, stored.constraints), map(storable, given.constraints)):
        if isinstance(rule, Function) and isinstance(other, Function) and rule.name == other.name:
            if not rule.agrees(other):
                return (
                    f"the constraint {rule.name!r} is a function with other code, or with other values that it uses; "
                    f"where it means the same, give it a name: require(function, 'name')"
                )
        elif rule != other:
            return _other("a constraint", rule, other)
    return f"the space is {stored}, given is {given}"


def _other(what: str, ours: object, theirs: object) -> str:
    return f"{what} is {'not in the study' if ours is None else ours}, given is {'none' if theirs is None else theirs}"


def _difference_of_branches(name: str, ours: Any, theirs: Any) -> str:
    """What differs in the branches of two categorical parameters that are else the same; empty where nothing does."""
    if not (isinstance(ours, Categorical) and isinstance(theirs, Categorical)) or ours.options != theirs.options:
        return ""
    for option, mine, other in zip(ours.options, ours.branches, theirs.branches, strict=True):
        if mine is not None and other is not None and mine != other:
            return f"in the branch {name}={option!r} {difference_of_spaces(mine, other)}"
    return ""
