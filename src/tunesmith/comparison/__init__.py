"""Comparisons of optimizers, or of anything that is tuned by trials: how good is the best of k, and what can be said?

Everything here is a pure function over arrays of outcomes, whoever measured them.
"""

from tunesmith.comparison.outcomes import Outcome, Outcomes, OutcomesError
from tunesmith.comparison.profiles import Profile, profile, ratios, score, speed_up, study_times
from tunesmith.comparison.ranks import Crossing, beats, beats_band, crossing, gap, rank_matrix
from tunesmith.comparison.statistics import Band, Curve, band, best_of, reach, resampled
from tunesmith.comparison.verdicts import Verdict, better, no_worse, pays
from tunesmith.comparison.winners import Seeds, over_seeds, select

__all__ = [
    "Band", "Crossing", "Curve", "Outcome", "Outcomes", "OutcomesError", "Profile", "Seeds", "Verdict",
    "band", "beats", "beats_band", "best_of", "better", "crossing", "gap", "no_worse", "over_seeds", "pays", "profile",
    "rank_matrix", "ratios", "reach", "resampled", "score", "select", "speed_up", "study_times",
]  # fmt: skip
