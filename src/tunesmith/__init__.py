"""Hyperparameters, schedules, architectures and optimizers of deep-learning models, in one study with one log."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunesmith import samplers, schedulers
from tunesmith.costs import Budget
from tunesmith.errors import TunesmithError
from tunesmith.records import Constraint, Goal
from tunesmith.replay import replay
from tunesmith.space import (
    Categorical,
    Constant,
    Fidelity,
    Float,
    Integer,
    Option,
    Ordinal,
    Prior,
    Space,
    forbid,
    less_than,
    require,
    sum_at_most,
    sum_to,
)
from tunesmith.study import Job, Study
from tunesmith.trials import Checkpoint, Trial

if TYPE_CHECKING:
    from tunesmith.execution import Command as Command
    from tunesmith.execution.tune import tune as tune

__version__ = "0.1.0"

_LATER = {"tune": "tunesmith.execution", "Command": "tunesmith.execution"}  #: loaded at their first use

__all__ = [
    "Budget",
    "Categorical",
    "Checkpoint",
    "Command",
    "Constant",
    "Constraint",
    "Fidelity",
    "Float",
    "Goal",
    "Integer",
    "Job",
    "Option",
    "Ordinal",
    "Prior",
    "Space",
    "Study",
    "Trial",
    "TunesmithError",
    "forbid",
    "less_than",
    "replay",
    "require",
    "samplers",
    "schedulers",
    "sum_at_most",
    "sum_to",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"tunesmith has no {name!r}{_meant(name)}")
    return getattr(import_module(_LATER[name]), name)


def _meant(name: str) -> str:
    """What is meant by a wrong name; Python itself asks for some between underscores."""
    from tunesmith.hints import hint_of_name

    places = {"": __all__, "samplers.": samplers.__all__, "schedulers.": schedulers.__all__}
    return "" if name.startswith("_") else hint_of_name(name, places)
