"""Every scheduler passes the conformance suite."""

from __future__ import annotations

from typing import Any

from tunesmith.schedulers import PBT, Full, Jitter, Perturb, Race, Scheduler, Tournament, TTest
from tunesmith.testing import SchedulerConformance


class TestFull(SchedulerConformance):
    trials = 30

    def make(self) -> Scheduler[Any]:
        return Full(10)


class TestFullWithSeeds(SchedulerConformance):
    trials = 30

    def make(self) -> Scheduler[Any]:
        return Full(10, seeds=3)


class TestRace(SchedulerConformance):
    trials = 60

    def make(self) -> Scheduler[Any]:
        return Race(10)


class TestRaceFirst(SchedulerConformance):
    trials = 40

    def make(self) -> Scheduler[Any]:
        return Race(10, seeds=4, first=2, share=0.3)


class TestPBT(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return PBT(population=8, ready=3, steps=20)


class TestPBTSynchronous(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return PBT(population=8, ready=3, steps=20, synchronous=True)


class TestPBTTournament(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return PBT(population=5, ready=2, steps=9, exploit=Tournament(), explore=Jitter(0.2), inherit="weights")


class TestPBTTTest(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return PBT(population=5, ready=2, steps=20, exploit=TTest(window=4), inherit="hyperparameters")


class TestPBTExploreOnly(SchedulerConformance):
    def make(self) -> Scheduler[Any]:
        return PBT(population=4, ready=2, steps=8, exploit=None, explore=Perturb(resample=0.5), synchronous=True)
