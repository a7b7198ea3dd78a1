"""A trust region around the best point (TuRBO, Eriksson et al. 2019, arXiv:1910.01739).

Its side doubles after a few improvements in a row and halves after many failures to improve; when it has become too
small it starts over. It is found anew from the values in the order in which their configurations were asked.
"""

from __future__ import annotations

import numpy as np

from tunesmith.samplers.base import Floats

FIRST, LEAST, MOST = 0.8, 0.5**7, 1.6  #: sides
SUCCESSES = 3  #: improvements in a row after which the side doubles
GAIN = 1e-3  #: least improvement that counts, as a share of the range of the values so far


def side(losses: Floats, columns: int) -> float:
    """The side of the region after these losses [n], in the order of asking, with so many columns."""
    patience = max(4, columns)
    best = np.minimum.accumulate(losses / 4)  # a quarter of the greatest values has no overflow
    worst = np.maximum.accumulate(losses / 4)
    improved = losses[1:] / 4 < best[:-1] - GAIN * (worst[:-1] - best[:-1])
    length, won, lost = FIRST, 0, 0
    for better in improved.tolist():
        won, lost = (won + 1, 0) if better else (0, lost + 1)
        if won == SUCCESSES:
            length, won = min(2 * length, MOST), 0
        elif lost == patience:
            length, lost = length / 2, 0
            if length < LEAST:
                length = FIRST
    return length


def box(centre: Floats, scales: Floats, length: float) -> tuple[Floats, Floats]:
    """The region's lowest and highest position along each column.

    Args:
        centre: [d], the best point; a column that is inactive there is not bounded.
        scales: [d], length-scales: the region is longer where the function is smoother, of the same volume.
        length: side of a cube of this volume.
    """
    sides = length * scales / np.exp(np.mean(np.log(scales[~np.isnan(centre)])))
    middle = np.where(np.isnan(centre), 0.5, centre)
    sides = np.where(np.isnan(centre), 2.0, sides)
    return np.clip(middle - sides / 2, 0, 1), np.clip(middle + sides / 2, 0, 1)
