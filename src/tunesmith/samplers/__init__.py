"""Samplers: where to look next. Each is loaded at its first use, since some need scipy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunesmith.samplers.base import Sampler

if TYPE_CHECKING:
    from tunesmith.samplers.auto import Auto as Auto
    from tunesmith.samplers.bohb import BOHB as BOHB
    from tunesmith.samplers.cma import CMAES as CMAES
    from tunesmith.samplers.dehb import DEHB as DEHB
    from tunesmith.samplers.evolution import RegularizedEvolution as RegularizedEvolution
    from tunesmith.samplers.gp import GP as GP
    from tunesmith.samplers.grid import Grid as Grid
    from tunesmith.samplers.nsga2 import NSGA2 as NSGA2
    from tunesmith.samplers.priorband import PriorBand as PriorBand
    from tunesmith.samplers.qmc import QMC as QMC
    from tunesmith.samplers.tpe import TPE as TPE
    from tunesmith.samplers.uniform import Uniform as Uniform

_MODULES = {
    "Auto": "auto",
    "Uniform": "uniform",
    "Grid": "grid",
    "QMC": "qmc",
    "TPE": "tpe",
    "GP": "gp",
    "CMAES": "cma",
    "RegularizedEvolution": "evolution",
    "NSGA2": "nsga2",
    "BOHB": "bohb",
    "DEHB": "dehb",
    "PriorBand": "priorband",
}

__all__ = [
    "BOHB", "CMAES", "DEHB", "GP", "NSGA2", "QMC", "TPE", "Auto", "Grid", "PriorBand", "RegularizedEvolution",
    "Sampler", "Uniform",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"tunesmith.samplers has no {name!r}; there are {', '.join(_MODULES)}")
    return getattr(import_module(f"tunesmith.samplers.{_MODULES[name]}"), name)
