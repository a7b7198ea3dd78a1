"""Samplers: where to look next. Each is loaded at its first use, since some need scipy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunesmith.samplers.base import Sampler

if TYPE_CHECKING:
    from tunesmith.samplers.grid import Grid as Grid
    from tunesmith.samplers.qmc import QMC as QMC
    from tunesmith.samplers.uniform import Uniform as Uniform

_MODULES = {"Uniform": "uniform", "Grid": "grid", "QMC": "qmc"}

__all__ = ["QMC", "Grid", "Sampler", "Uniform"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"tunesmith.samplers has no {name!r}; there are {', '.join(_MODULES)}")
    return getattr(import_module(f"tunesmith.samplers.{_MODULES[name]}"), name)
