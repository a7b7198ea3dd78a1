"""Explore: how do the hyperparameters of a copy change? (Jaderberg et al. 2017, arXiv:1711.09846, section 4.1.1)"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from tunesmith.hints import Options
from tunesmith.schedulers._standing import Past
from tunesmith.schedulers.pb2 import PB2
from tunesmith.space import Config, Space


class Perturb(Options, frozen=True, tag="perturb"):
    """Each hyperparameter by itself: with probability ``resample`` drawn anew, else times or divided by ``factor``.

    ``resample=0`` is the paper's *perturb*, ``resample=1`` its *resample*. :meth:`tunesmith.Space.perturb` says
    what this means for every kind of parameter.
    """

    factor: float = 1.2
    resample: float = 0.0
    learns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (1 < self.factor < math.inf):
            raise ValueError(f"Perturb: factor={self.factor} must be over 1")
        if not 0 <= self.resample <= 1:
            raise ValueError(f"Perturb: resample={self.resample} must be in [0, 1]")

    def explore(self, space: Space, config: Config, rng: np.random.Generator, past: Past) -> Config:
        """A neighbour of ``config``, inside the space."""
        return space.perturb(config, rng, self.factor, self.resample)


class Jitter(Options, frozen=True, tag="jitter"):
    """Gaussian noise of standard deviation ``scale`` on every numeric parameter, in the unit cube."""

    scale: float = 0.1
    learns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"Jitter: scale={self.scale} must be over 0")

    def explore(self, space: Space, config: Config, rng: np.random.Generator, past: Past) -> Config:
        """A neighbour of ``config``, inside the space."""
        return space.jitter(config, rng, self.scale)


Explore = Perturb | Jitter | PB2
