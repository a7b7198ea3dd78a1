"""Schedulers: which job is next."""

from tunesmith.schedulers.base import Scheduler
from tunesmith.schedulers.full import Full
from tunesmith.schedulers.pbt import PBT, Jitter, Perturb, Tournament, Truncation, TTest
from tunesmith.schedulers.race import Race

__all__ = ["PBT", "Full", "Jitter", "Perturb", "Race", "Scheduler", "TTest", "Tournament", "Truncation"]
