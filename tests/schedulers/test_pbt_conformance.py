"""Every kind of population passes the conformance suite."""

from __future__ import annotations

from typing import Any

from tunesmith.schedulers import FIRE, MFPBT, PB2, PBT, Backtrack, Scheduler, Truncation
from tunesmith.testing import SchedulerConformance


class TestPB2(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return PBT(population=6, ready=3, steps=18, exploit=Truncation(0.4), explore=PB2(window=30))


class TestPB2Synchronous(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return PBT(population=4, ready=2, steps=12, explore=PB2(window=20), synchronous=True)


class TestBacktrack(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return PBT(population=6, ready=3, steps=20, backtrack=Backtrack(rungs=1))


class TestBacktrackSynchronous(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return PBT(population=6, ready=3, steps=20, backtrack=Backtrack(times=1), synchronous=True)


class TestMFPBT(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return MFPBT(population=9, ready=2, steps=16, frequencies=(1, 2, 4))


class TestMFPBTSynchronous(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return MFPBT(population=8, ready=3, steps=20, synchronous=True)


class TestFIRE(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return FIRE(population=9, ready=2, steps=16)


class TestFIRESynchronous(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return FIRE(population=7, ready=3, steps=20, span=1, evaluators=2, synchronous=True)
