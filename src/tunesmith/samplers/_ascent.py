"""Quasi-Newton ascent from several points at once, within bounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tunesmith.samplers._acquisition import Acquisition
from tunesmith.samplers.base import Bools, Floats

FIRST = 0.05  #: first step along the steepest column
RADIUS = 0.2  #: greatest step along one column
LEAP = 3.0  #: by how much steps grow where the slope does not fall
ARMIJO = 1e-4  #: least share of the expected gain that a step must bring
CLOSE = 1e-6  #: the ascent ends with steps less than this
BLOCKED = 1e-4  #: or less than this, after one that a constraint refused
LEAST = 1e-100  #: least fall of the slope along a step that tells of the curvature
FLAT = 1e-10  #: or expected gains of less than this share of the value

Ints = NDArray[np.intp]


class Ascent:
    """Quasi-Newton ascents from several points at once, each with steps of its own.

    Attributes:
        points: [s, d]
        values: [s]
        blocked: [s], whether a step was refused last.
    """

    def __init__(self, acquisition: Acquisition, points: Floats, smooth: Bools, low: Floats, high: Floats) -> None:
        self.acquisition, self.low, self.high = acquisition, low, high
        self.points = points.copy()
        self.free = smooth & ~np.isnan(points)
        self.values, slopes = acquisition.gradient(points)
        self.slopes = np.where(self.free, slopes, 0.0)
        self.inverse = np.tile(np.eye(points.shape[1]), (len(points), 1, 1))  # of the negative Hessian
        self.fresh = np.ones(len(points), dtype=np.bool_)
        self.shrunk = np.ones(len(points))
        self.blocked = np.zeros(len(points), dtype=np.bool_)
        self.running = np.flatnonzero(self.free.any(axis=1))

    def propose(self) -> Floats:
        """The next point of every ascent that is still running."""
        points, slopes = self.points[self.running], self.slopes[self.running]
        outward = ((points <= self.low) & (slopes < 0)) | ((points >= self.high) & (slopes > 0))
        slopes = np.where(outward, 0.0, slopes)
        step = np.where(outward, 0.0, (self.inverse[self.running] @ slopes[:, :, None])[:, :, 0])
        bad = np.einsum("si,si->s", step, slopes) <= 0
        step[bad] = slopes[bad]
        longest = np.abs(step).max(axis=1)
        length = np.where(self.fresh[self.running] | bad, FIRST, np.minimum(longest, RADIUS))
        step *= (self.shrunk[self.running] * length / np.maximum(longest, 1e-300))[:, None]
        trial = np.where(self.free[self.running], np.clip(points + step, self.low, self.high), points)
        self.step = np.nan_to_num(trial - points)
        self.gain = np.einsum("si,si->s", self.step, self.slopes[self.running])
        close = np.where(self.blocked[self.running], BLOCKED, CLOSE)
        going = (np.abs(self.step).max(axis=1) > close) & (self.gain > FLAT * np.abs(self.values[self.running]))
        self.running, self.step, self.gain = self.running[going], self.step[going], self.gain[going]
        found: Floats = trial[going]
        return found

    def judge(self, trial: Floats, allowed: Bools) -> None:
        """Take the steps that gain enough, learn from their slopes, and shorten the others."""
        rows = self.running
        values, slopes = self.acquisition.gradient(trial)
        slopes = np.where(self.free[rows], slopes, 0.0)
        good = allowed & (values >= self.values[rows] + ARMIJO * self.gain)
        gained = np.minimum(values - self.values[rows], 0.5 * self.gain)
        parabola = np.where(allowed, 0.5 * self.gain / (self.gain - gained), 0.25)
        self.shrunk[rows] = np.where(good, 1.0, self.shrunk[rows] * np.clip(parabola, 0.1, 0.5))
        self.blocked[rows] = ~allowed
        rows, step = rows[good], self.step[good]
        hollow = ~self._learn(rows, step, self.slopes[rows] - slopes[good])
        self.shrunk[rows[hollow]] = LEAP
        self.points[rows], self.values[rows], self.slopes[rows] = trial[good], values[good], slopes[good]

    def _learn(self, rows: Ints, step: Floats, bend: Floats) -> Bools:
        """The BFGS update of the inverse from steps [r, d] and by how much the slopes fell along them.

        Returns which slopes did fall, so that there was something to learn.
        """
        curved = np.einsum("si,si->s", step, bend)
        fit: Bools = curved > np.maximum(1e-10 * np.linalg.norm(step, axis=1) * np.linalg.norm(bend, axis=1), LEAST)
        rows, step, bend, curved = rows[fit], step[fit], bend[fit], curved[fit]
        scale = np.where(self.fresh[rows], curved / np.einsum("si,si->s", bend, bend), 1.0)
        inverse = self.inverse[rows] * scale[:, None, None]
        turned = (inverse @ bend[:, :, None])[:, :, 0]
        ratio = step / curved[:, None]
        cross = turned[:, :, None] * ratio[:, None, :]
        weight = np.einsum("si,si->s", bend, turned) / curved + 1
        both = (weight / curved)[:, None, None] * step[:, :, None] * step[:, None, :]
        self.inverse[rows] = inverse - cross - cross.transpose(0, 2, 1) + both
        self.fresh[rows] = False
        return fit
