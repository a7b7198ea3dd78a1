"""Schedulers: which job is next. Each is loaded at its first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunesmith.schedulers.base import Scheduler

if TYPE_CHECKING:
    from tunesmith.schedulers._exploit import Tournament as Tournament
    from tunesmith.schedulers._exploit import Truncation as Truncation
    from tunesmith.schedulers._exploit import TTest as TTest
    from tunesmith.schedulers._explore import Jitter as Jitter
    from tunesmith.schedulers._explore import Perturb as Perturb
    from tunesmith.schedulers.asha import ASHA as ASHA
    from tunesmith.schedulers.chain import Chain as Chain
    from tunesmith.schedulers.extrapolation import FreezeThaw as FreezeThaw
    from tunesmith.schedulers.extrapolation import PredictiveTermination as PredictiveTermination
    from tunesmith.schedulers.fire import FIRE as FIRE
    from tunesmith.schedulers.full import Full as Full
    from tunesmith.schedulers.halving import Hyperband as Hyperband
    from tunesmith.schedulers.halving import SuccessiveHalving as SuccessiveHalving
    from tunesmith.schedulers.median import Median as Median
    from tunesmith.schedulers.mfpbt import MFPBT as MFPBT
    from tunesmith.schedulers.pb2 import PB2 as PB2
    from tunesmith.schedulers.pbt import PBT as PBT
    from tunesmith.schedulers.pbt import Backtrack as Backtrack
    from tunesmith.schedulers.plateau import Plateau as Plateau
    from tunesmith.schedulers.race import Race as Race

_MODULES = {
    "ASHA": "asha",
    "Chain": "chain",
    "FreezeThaw": "extrapolation",
    "PredictiveTermination": "extrapolation",
    "FIRE": "fire",
    "Full": "full",
    "Hyperband": "halving",
    "SuccessiveHalving": "halving",
    "Median": "median",
    "MFPBT": "mfpbt",
    "PB2": "pb2",
    "PBT": "pbt",
    "Backtrack": "pbt",
    "Jitter": "_explore",
    "Perturb": "_explore",
    "Tournament": "_exploit",
    "Truncation": "_exploit",
    "TTest": "_exploit",
    "Plateau": "plateau",
    "Race": "race",
}

__all__ = [
    "ASHA", "FIRE", "MFPBT", "PB2", "PBT", "Backtrack", "Chain", "FreezeThaw", "Full", "Hyperband", "Jitter",
    "Median", "Perturb", "Plateau", "PredictiveTermination", "Race", "Scheduler", "SuccessiveHalving", "TTest",
    "Tournament", "Truncation",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"tunesmith.schedulers has no {name!r}; there are {', '.join(_MODULES)}")
    return getattr(import_module(f"tunesmith.schedulers.{_MODULES[name]}"), name)
