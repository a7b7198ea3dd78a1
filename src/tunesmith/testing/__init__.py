"""For tests: conformance suites for samplers, schedulers and stores, and Hypothesis strategies.

Needs pytest and hypothesis (the extra ``test``).
"""

from tunesmith.testing.conformance import (
    GOAL,
    SamplerConformance,
    SchedulerConformance,
    StoreConformance,
    finite,
    mixed,
    play,
)
from tunesmith.testing.strategies import configs, domains, spaces

__all__ = [
    "GOAL",
    "SamplerConformance",
    "SchedulerConformance",
    "StoreConformance",
    "configs",
    "domains",
    "finite",
    "mixed",
    "play",
    "spaces",
]
