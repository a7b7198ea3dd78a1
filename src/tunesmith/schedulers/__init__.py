"""Schedulers: which job is next."""

from tunesmith.schedulers.asha import ASHA
from tunesmith.schedulers.base import Scheduler
from tunesmith.schedulers.chain import Chain
from tunesmith.schedulers.full import Full
from tunesmith.schedulers.halving import Hyperband, SuccessiveHalving
from tunesmith.schedulers.median import Median
from tunesmith.schedulers.pbt import PBT, Jitter, Perturb, Tournament, Truncation, TTest
from tunesmith.schedulers.plateau import Plateau
from tunesmith.schedulers.race import Race

__all__ = [
    "ASHA", "PBT", "Chain", "Full", "Hyperband", "Jitter", "Median", "Perturb", "Plateau", "Race", "Scheduler",
    "SuccessiveHalving", "TTest", "Tournament", "Truncation",
]  # fmt: skip
