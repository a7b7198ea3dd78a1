"""For tests: conformance suites for samplers, schedulers, stores and executors, and Hypothesis strategies.

Needs pytest and hypothesis (the extra ``test``).
"""

from tunesmith.testing.conformance import (
    GOAL,
    SamplerConformance,
    SchedulerConformance,
    StoreConformance,
    finite,
    mixed,
    nested,
    no_hang,
    play,
)
from tunesmith.testing.executors import ExecutorConformance
from tunesmith.testing.strategies import configs, domains, logs, populations, spaces, studies

__all__ = [
    "GOAL",
    "ExecutorConformance",
    "SamplerConformance",
    "SchedulerConformance",
    "StoreConformance",
    "configs",
    "domains",
    "finite",
    "logs",
    "mixed",
    "nested",
    "no_hang",
    "play",
    "populations",
    "spaces",
    "studies",
]
