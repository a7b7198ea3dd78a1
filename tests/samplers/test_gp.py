"""The GP sampler: conformance, and what it is for."""

from __future__ import annotations

from typing import Any

from tunesmith import samplers
from tunesmith.samplers import Sampler
from tunesmith.testing import SamplerConformance


class TestGP(SamplerConformance):
    def make(self) -> Sampler[Any]:
        return samplers.GP()
