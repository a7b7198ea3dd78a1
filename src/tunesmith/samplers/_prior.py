"""What experts believe (`Prior`), as a density over the unit cube (the form of PriorBand, arXiv:2306.12370).

A number's density is a normal around the mode, cut to [0, 1], of deviation ``1 - confidence`` (at least 0.05). An
unordered parameter gives its mode the mass ``confidence`` and shares the rest out evenly, the mode included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from tunesmith.samplers.base import Floats
from tunesmith.space import Column

LEAST = 0.05  #: least deviation


def believed(columns: Sequence[Column]) -> bool:
    """Whether any column has a prior."""
    return any(column.prior is not None for column in columns)


def log_prior(columns: Sequence[Column], points: Floats) -> Floats:
    """Logarithm of the density at the points [n, d], up to a constant: [n]. Inactive columns count nothing."""
    total = np.zeros(len(points))
    for j, column in enumerate(columns):
        if column.prior is not None:
            total += np.nan_to_num(log_marginal(column, points[:, j]))
    return total


def log_marginal(column: Column, u: Floats) -> Floats:
    """Logarithm of one column's density, against the uniform one, at positions [n]; NaN stays NaN.

    0 everywhere where nothing is believed.
    """
    if column.prior is None:
        return np.where(np.isnan(u), np.nan, 0.0)
    mode, confidence = column.prior
    if column.kind == "unordered":
        at = np.floor(np.clip(u, 0, 1 - 1e-12) * column.levels) == np.floor(mode * column.levels)
        mass = np.where(at, confidence * column.levels + 1 - confidence, 1 - confidence)
        with np.errstate(divide="ignore"):
            return np.where(np.isnan(u), np.nan, np.log(np.maximum(mass, 1e-12)))
    deviation = max(1 - confidence, LEAST)
    inside = ndtr((1 - mode) / deviation) - ndtr(-mode / deviation)
    density: Floats = -0.5 * ((u - mode) / deviation) ** 2 - np.log(deviation * inside * np.sqrt(2 * np.pi))
    return density


def draw(columns: Sequence[Column], uniform: Floats) -> Floats:
    """Uniform positions [n, d] turned into draws from the prior, column by column; others stay as they are."""
    drawn = np.array(uniform)
    for j, column in enumerate(columns):
        if column.prior is None:
            continue
        mode, confidence = column.prior
        u = uniform[:, j]
        if column.kind == "unordered":
            rest = (u - confidence) / max(1 - confidence, 1e-12)
            drawn[:, j] = np.where(u < confidence, mode, np.clip(rest, 0, 1))
        else:
            deviation = max(1 - confidence, LEAST)
            low, high = ndtr(-mode / deviation), ndtr((1 - mode) / deviation)
            drawn[:, j] = np.clip(mode + deviation * ndtri(low + u * (high - low)), 0, 1)
    return drawn
