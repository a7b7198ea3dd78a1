"""Schedulers: which job is next."""

from tunesmith.schedulers.asha import ASHA
from tunesmith.schedulers.base import Scheduler
from tunesmith.schedulers.chain import Chain
from tunesmith.schedulers.extrapolation import FreezeThaw, PredictiveTermination
from tunesmith.schedulers.fire import FIRE
from tunesmith.schedulers.full import Full
from tunesmith.schedulers.halving import Hyperband, SuccessiveHalving
from tunesmith.schedulers.median import Median
from tunesmith.schedulers.mfpbt import MFPBT
from tunesmith.schedulers.pb2 import PB2
from tunesmith.schedulers.pbt import PBT, Backtrack, Jitter, Perturb, Tournament, Truncation, TTest
from tunesmith.schedulers.plateau import Plateau
from tunesmith.schedulers.race import Race

__all__ = [
    "ASHA", "FIRE", "MFPBT", "PB2", "PBT", "Backtrack", "Chain", "FreezeThaw", "Full", "Hyperband", "Jitter",
    "Median", "Perturb", "Plateau", "PredictiveTermination", "Race", "Scheduler", "SuccessiveHalving", "TTest",
    "Tournament", "Truncation",
]  # fmt: skip
