"""Names that other tools have for what is called otherwise here: a wrong one is answered with ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec, TypeVar

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


def hints(function: Callable[P, R]) -> Callable[P, R]:
    """Answer an argument that a function does not have with the one that is meant."""
    known = [name for name in inspect.signature(function).parameters if name != "self"]

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
    if ours.startswith(("minimise", "maximise")) and "minimise" not in known and "goals" in known:
        return ": here it is goals=Goal('loss'), or goals=Goal('accuracy', maximise=True)"
    if ours.removesuffix("=") in known or " " in ours or ours == "space":
        return f": here it is {ours}"
    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]}=?" if near else f"; it has {', '.join(known)}"
