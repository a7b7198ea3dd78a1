"""What is not dominated yet, cut into boxes (Lacour, Klamroth and Fonseca 2017, Computers & Operations Research 79)."""

from __future__ import annotations

import numpy as np

from tunesmith.samplers.base import Floats


def beyond(front: Floats) -> Floats:
    """A reference point a tenth of the front's range [n, m] worse than its worst: [m]. n > 0.

    In columns without a range, 0.1: for standardised values.
    """
    span = np.ptp(front, axis=0)
    worst: Floats = front.max(axis=0) + 0.1 * np.where(span > 0, span, 1.0)
    return worst


def boxes(values: Floats, reference: Floats) -> tuple[Floats, Floats]:
    """Disjoint boxes that make up what no point dominates, below the reference point.

    Every box belongs to one local upper bound u: in its first column it reaches from minus infinity to u, in each other
    one from the points that define the columns of u before it, up to u. For n points of a front of two values there
    are n + 1 boxes, of three values at most 2n + 1.

    Args:
        values: [n, m] to be minimised, dominated ones and those beyond the reference among them or not.
        reference: [m].

    Returns:
        lower corners [k, m], minus infinity where a box has no end, and upper corners [k, m].
    """
    m = len(reference)
    bounds = np.array([reference], dtype=np.float64)  # [k, m]: the local upper bounds
    makers = np.full((1, m, m), -np.inf)  # [k, j]: the point that defines column j of the bound
    makers[0, range(m), range(m)] = reference
    for point in values[np.argsort(values.sum(axis=1), kind="stable")]:  # what dominates comes before the dominated
        below = (point < bounds).all(axis=1)
        if not below.any():
            continue
        old, of = bounds[below], makers[below]
        bounds, makers = bounds[~below], makers[~below]
        for j in range(m):
            keep = np.delete(of[:, :, j], j, axis=1).max(axis=1, initial=-np.inf) <= point[j]
            new, by = old[keep].copy(), of[keep].copy()
            new[:, j], by[:, j] = point[j], point
            bounds, makers = np.concatenate([bounds, new]), np.concatenate([makers, by])
    lower = np.full_like(bounds, -np.inf)
    for j in range(1, m):
        lower[:, j] = makers[:, :j, j].max(axis=1)
    full = (lower < bounds).all(axis=1)
    return lower[full], bounds[full]
