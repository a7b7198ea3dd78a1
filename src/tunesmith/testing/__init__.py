"""For tests: conformance suites for samplers, schedulers, stores and executors, and Hypothesis strategies.

Needs pytest and hypothesis (the extra ``test``); ``python -m tunesmith.testing.chaos`` needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.testing.conformance import GOAL as GOAL
    from tunesmith.testing.conformance import SamplerConformance as SamplerConformance
    from tunesmith.testing.conformance import SchedulerConformance as SchedulerConformance
    from tunesmith.testing.conformance import StoreConformance as StoreConformance
    from tunesmith.testing.conformance import finite as finite
    from tunesmith.testing.conformance import mixed as mixed
    from tunesmith.testing.conformance import nested as nested
    from tunesmith.testing.conformance import no_hang as no_hang
    from tunesmith.testing.conformance import play as play
    from tunesmith.testing.executors import ExecutorConformance as ExecutorConformance
    from tunesmith.testing.strategies import configs as configs
    from tunesmith.testing.strategies import domains as domains
    from tunesmith.testing.strategies import logs as logs
    from tunesmith.testing.strategies import populations as populations
    from tunesmith.testing.strategies import spaces as spaces
    from tunesmith.testing.strategies import studies as studies

_MODULES = {
    "conformance": (
        "GOAL", "SamplerConformance", "SchedulerConformance", "StoreConformance", "finite", "mixed", "nested",
        "no_hang", "play",
    ),
    "executors": ("ExecutorConformance",),
    "strategies": ("configs", "domains", "logs", "populations", "spaces", "studies"),
}  # fmt: skip
_WHERE = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "GOAL", "ExecutorConformance", "SamplerConformance", "SchedulerConformance", "StoreConformance", "configs",
    "domains", "finite", "logs", "mixed", "nested", "no_hang", "play", "populations", "spaces", "studies",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"tunesmith.testing has no {name!r}; there are {', '.join(__all__)}")
    return getattr(import_module(f"tunesmith.testing.{_WHERE[name]}"), name)
