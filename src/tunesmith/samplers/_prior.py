"""What experts believe (`Prior`), as a density over the unit cube (the form of PriorBand, arXiv:2306.12370).

A number's density is a normal around the mode, cut to [0, 1], of deviation ``1 - confidence`` (at least 0.05). An
unordered parameter gives its mode the mass ``confidence`` and shares the rest out evenly, the mode included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from tunesmith.samplers.base import Floats
from tunesmith.space import Column

LEAST = 0.05  #: least deviation
FIRST_SHARE = 1 / 3  #: of the draws that evolution makes anew are from the prior as long as nothing is known
HALF_LIFE = 20  #: configurations after which this share has halved


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


def fading(known: NDArray[np.int64] | int) -> Floats:
    """Which share of new draws is from the prior where so many configurations are known already.

    The rest is uniform, so that a wrong prior forbids nothing; and it counts less and less beside the results.
    """
    return FIRST_SHARE * HALF_LIFE / (HALF_LIFE + np.asarray(known, dtype=np.float64))


def draw_anew(columns: Sequence[Column], shape: tuple[int, ...], rng: np.random.Generator, known: int) -> Floats:
    """Points [n, d]: some drawn from the prior (the share is that of ``fading``), the others uniform."""
    uniform = rng.random(shape)
    if not believed(columns):
        return uniform
    chosen = rng.random(shape[0]) < fading(known)
    return np.where(chosen[:, None], draw(columns, uniform), uniform)
