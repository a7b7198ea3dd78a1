"""Names that other tools have for what is called otherwise here: a wrong one is answered with ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache, wraps
from types import UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import msgspec

P = ParamSpec("P")
R = TypeVar("R")

_OURS = {
    "minimize": "minimise=",
    "maximize": "maximise=",
    "metric": "minimise= or maximise=",
    "mode": "minimise= or maximise=",
    "direction": "minimise= or maximise=",
    "directions": "goals=",
    "objective": "the first argument, the training code",
    "objectives": "goals=",
    "n_trials": "trials=",
    "num_trials": "trials=",
    "max_trials": "trials=",
    "num_samples": "trials=",
    "max_evals": "trials=",
    "n_iter": "trials=",
    "n_jobs": "workers=",
    "num_workers": "workers=",
    "n_workers": "workers=",
    "max_concurrent_trials": "workers=",
    "timeout": "seconds= (of the run) or time_limit= (of a job)",
    "time_budget_s": "seconds=",
    "max_time": "seconds=",
    "pruner": "scheduler=",
    "search_alg": "sampler=",
    "algorithm": "sampler= or scheduler=",
    "search_space": "space",
    "param_space": "space",
    "config": "space",
    "params": "space",
    "storage": "store=",
    "study_name": "name=",
    "random_state": "seed=",
    "random_seed": "seed=",
    "epochs": "steps=",
    "max_steps": "steps=",
    "n_seeds": "seeds=",
    "repeats": "seeds=",
    "callbacks": "callback=",
    "gpus": "devices=",
    "device": "devices=",
    "load_if_exists": "store= and name= alone: a study that exists is continued",
}

_MINIMISED = "a metric is minimised unless maximise=True is said: Goal('loss'), Goal('accuracy', maximise=True)"
_SEED = "all randomness follows from the seed of the study"

#: the same for goals, domains, samplers and schedulers: the names that ours may have, or a sentence
_OF_PARTS: dict[str, tuple[str, ...] | str] = {
    "minimise": _MINIMISED,
    "minimize": _MINIMISED,
    "direction": _MINIMISED,
    "mode": _MINIMISED,
    "maximize": ("maximise",),
    "name": ("metric",),
    "upper": ("at_most", "high"),
    "limit": ("at_most",),
    "threshold": ("at_most",),
    "max": ("high", "at_most"),
    "maximum": ("high", "at_most"),
    "lower": ("low",),
    "min": ("low",),
    "minimum": ("low",),
    "log_scale": ("log",),
    "logarithmic": ("log",),
    "q": ("step",),
    "choices": ("options", "values"),
    "categories": ("options", "values"),
    "items": ("options", "values"),
    "default": ("prior",),
    "epochs": ("max_steps", "steps"),
    "max_t": ("max_steps", "steps"),
    "max_epochs": ("max_steps", "steps"),
    "max_budget": ("max_steps", "steps"),
    "max_resource": ("max_steps", "steps"),
    "steps": ("max_steps",),
    "max_steps": ("steps",),
    "grace_period": ("min_steps", "grace", "warmup", "patience"),
    "min_budget": ("min_steps",),
    "min_resource": ("min_steps",),
    "reduction_factor": ("eta",),
    "population_size": ("population",),
    "pop_size": ("population",),
    "popsize": ("population",),
    "perturbation_interval": ("ready",),
    "interval": ("ready",),
    "n_startup_trials": ("startup",),
    "n_initial_points": ("startup",),
    "n_seeds": ("seeds",),
    "seed": _SEED,
    "random_state": _SEED,
    "rng": _SEED,
}


#: limits of a run that belong to the study, where a function that runs one is given them
_OF_STUDY = ("trials", "budget", "patience")

#: what an argument that is needed may look like
_NEEDED = {
    "max_steps": "27",
    "steps": "27",
    "population": "16",
    "ready": "3",
    "metric": "'loss'",
    "at_most": "5.0",
    "low": "0",
    "high": "1",
    "options": "['a', 'b']",
    "values": "[1, 2, 4]",
    "value": "1",
    "first": "ASHA(max_steps=9)",
    "then": "PBT(population=16, ready=3, steps=27)",
}

#: names that other tools have for the domains and functions of the package
_OF_PACKAGE = {
    "choice": "Categorical",
    "randint": "Integer",
    "int": "Integer",
    "uniform": "Float",
    "loguniform": "Float(low, high, log=True)",
    "quniform": "Float",
    "real": "Float",
    "run": "execution.run",
    "trainable": "Command",
    "minimize": "tune",
    "maximize": "tune",
    "optimize": "tune",
    "tuner": "tune",
    "createstudy": "Study",
    "loadstudy": "Study.open",
}


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    type(None): "None",
    None: "None",
}


_EXAMPLES: dict[Any, str] = {int: "(1, 4)", float: "(0.1, 0.5)"}


class _Answering(msgspec.StructMeta):
    """Makes objects, and answers arguments that they do not have."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # what a metaclass makes are classes
        known = cls.__struct_fields__
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{cls.__name__} has no argument {name!r}{_hint_of_part(name, known)}")
        if issubclass(cls, Options):
            kinds = _kinds(cls)
            for name, value in (*zip(known, args), *kwargs.items()):  # noqa: B905  # there may be too many of them
                if not _fits(value, kinds[name]):
                    raise TypeError(f"{cls.__name__}: {name}={value!r} must be {_in_words(kinds[name])}")
        try:
            return super().__call__(*args, **kwargs)
        except TypeError as error:
            text = str(error)
            if not text.startswith(("Missing required argument", "Extra positional arguments", "Argument ")):
                raise
            example = _example(cls) if text.startswith("Missing") else ""
            raise TypeError(
                f"{cls.__name__}: {text[0].lower()}{text[1:]}; it has {', '.join(known)}{example}"
            ) from None


class Hinted(msgspec.Struct, frozen=True, metaclass=_Answering):
    """A struct that users make: a wrong argument of it is answered with the one that is meant."""


class Options(Hinted, frozen=True):
    """The hyperparameters of a sampler or a scheduler, or of a part of one; each value is of its type."""


def _example(cls: Any) -> str:
    """How the least of such an object is written, where that is known."""
    needed = [field.name for field in msgspec.structs.fields(cls) if field.required]
    if not all(name in _NEEDED for name in needed):
        return ""
    return f": {cls.__name__}({', '.join(f'{name}={_NEEDED[name]}' for name in needed)}), for instance"


@cache
def _kinds(options: type[Options]) -> dict[str, Any]:
    """The type of every field."""
    return {field.name: field.type for field in msgspec.structs.fields(options)}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; what there is to say of the contents of a container is said elsewhere."""
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return isinstance(value, str)
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple)
    if kind is int:
        return type(value) is int
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is None:
        return value is None
    return not isinstance(kind, type) or isinstance(value, kind)


def _in_words(kind: Any) -> str:
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    words = []
    for one in kinds:
        if get_origin(one) is Literal:
            words += [repr(option) for option in get_args(one)]
        elif get_origin(one) is tuple:
            words.append(f"a list such as {_EXAMPLES[get_args(one)[0]]}")
        else:
            words.append(_WORDS.get(one) or f"{one.__name__}()")
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def hints(function: Callable[P, R]) -> Callable[P, R]:
    """Answer an argument that a function does not have with the one that is meant."""
    known = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                owner = function.__qualname__.removesuffix(".__init__")
                raise TypeError(f"{owner} has no argument {name!r}{_hint(name, known)}")
        return function(*args, **kwargs)

    return called


def _hint(name: str, known: list[str]) -> str:
    ours = _OURS.get(name, f"{name}=")
    limit = ours.removesuffix("=")
    if limit in _OF_STUDY and "study" in known and limit not in known:
        return f": it is an argument of the study, Study(..., {limit}=...) or Study.open(path, {limit}=...)"
    if ours.startswith(("minimise", "maximise")) and "minimise" not in known and "goals" in known:
        return ": here it is goals=Goal('loss'), or goals=Goal('accuracy', maximise=True)"
    if ours.removesuffix("=") in known or " " in ours or ours == "space":
        return f": here it is {ours}"
    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]}=?" if near else f"; it has {', '.join(known)}"


def _hint_of_part(name: str, known: tuple[str, ...]) -> str:
    ours = _OF_PARTS.get(name, ())
    if isinstance(ours, str) and (ours is not _MINIMISED or "maximise" in known):
        return f": {ours}"
    near = [one for one in ours if one in known] or get_close_matches(name, known, n=1)
    if near:
        return f": did you mean {near[0]}=?"
    return f"; it has {', '.join(known)}" if known else "; it has none"


def hint_of_name(name: str, places: Mapping[str, Iterable[str]]) -> str:
    """What is meant by a name that the package does not have; empty where nobody knows.

    Args:
        name: the wrong one.
        places: the names that there are, by the place that has them; the package itself is "".
    """
    plain = name.replace("_", "").lower().removeprefix("suggest")
    ours = _OF_PACKAGE.get(plain)
    names = {one: f"{place}{one}" for place, there in places.items() for one in there}
    exact = names.get(name) or next((full for one, full in names.items() if one.lower() == plain), None)
    if exact is not None or ours is not None:
        return f": it is {' or '.join(f'tunesmith.{one}' for one in (exact, ours) if one)}"
    near = get_close_matches(name, names, n=1)
    return f": did you mean tunesmith.{names[near[0]]}?" if near else ""
