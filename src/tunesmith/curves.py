"""Where partial learning curves will end: a posterior predictive, learned from all curves of a study.

A curve is taken as ``a + b * shape(x) + wandering + noise`` over the share ``x`` of the way to the step that is predicted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tunesmith._curves import Floats, Mixture, Scale, normalised, shapes, wandering

POINTS = 48
NOISE = np.geomspace(0.002, 1.0, 7)
LEVEL = (1.0, 3.0)
DROP = (0.25, 0.5)
TRUST, DOUBT = 0.7, 0.4
EXAMPLES = 24
SHARE = 0.3
COMPONENTS = 48
NOVEL = 3.0
PRIOR_SCORES = 5.0
FRACTIONS = (0.25, 0.5, 0.75)


class Grid:
    """Steps as points: one a step, or means over neighbouring ones."""

    def __init__(self, steps, until):
        self.steps = steps
        before = steps < until
        k = int(before.sum())
        if k < POINTS:
            self.point = np.concatenate([np.arange(k), np.full(len(steps) - k, k)])
            x = steps[before]
        else:
            bins = np.floor(np.sqrt(steps[before] / until) * (POINTS - 1) * (1 - 1e-12)).astype(int)
            _, bins = np.unique(bins, return_inverse=True)
            self.point = np.concatenate([bins, np.full(len(steps) - k, bins[-1] + 1)])
            x = np.bincount(bins, steps[before]) / np.bincount(bins)
        self.x = np.concatenate([x, [until]]) / until

    def points(self, z):
        """means and counts [n, p]"""
        n, p = len(z), len(self.x)
        seen = np.isfinite(z)
        counts, sums = np.zeros((n, p)), np.zeros((n, p))
        np.add.at(counts.T, self.point, seen.T)
        np.add.at(sums.T, self.point, np.where(seen, z, 0.0).T)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), counts


class Extrapolator:
    def __init__(self, steps, values, until, **opt):
        self.opt = dict(trust=TRUST, doubt=DOUBT, noise=NOISE, share=SHARE, novel=NOVEL, widen=True, pop="direct", iters=1, drop=DROP)
        self.opt.update(opt)
        steps = np.asarray(steps); values = np.asarray(values, dtype=float); values = np.where(np.isfinite(values), values, np.nan)
        values = values[np.isfinite(values).any(axis=1)]
        self.grid = Grid(steps, until)
        ordered = [v[np.isfinite(v)] for v in values]
        self.scale = Scale.of(np.array([v[-1] for v in ordered]), np.array([np.ptp(v) for v in ordered]))
        z, counts = self.grid.points(self.scale.warp(values))
        finished = np.isfinite(z[:, -1])
        rows = np.flatnonzero(finished)
        ex = rows[np.argsort(z[rows, -1], kind="stable")]
        if len(ex) > EXAMPLES:
            ex = ex[np.unique(np.round(np.linspace(0, len(ex) - 1, EXAMPLES)).astype(int))]
        self.x = self.grid.x
        bank, prior = shapes(self.x)
        self.owner = np.full(len(bank), -1)
        if len(ex) and self.opt["share"]:
            filled = np.array([np.interp(self.x, self.x[np.isfinite(c)], c[np.isfinite(c)]) for c in z[ex]])
            share = self.opt["share"] * len(ex) / (len(ex) + 5)
            bank = np.concatenate([bank, normalised(filled)]); prior = np.concatenate([prior * (1 - share), np.full(len(ex), share / len(ex))])
            self.owner = np.concatenate([self.owner, ex])
        self.bank, self.prior = bank, np.log(prior)
        self.covs = wandering(self.x)
        # population
        fin = z[rows, -1]
        part = np.flatnonzero(~finished)
        self.items_f = fin
        if self.opt["pop"] == "finished" or not len(part):
            self.items = (fin, np.zeros(len(fin)))
        else:
            base = self.likelihood(z[part], counts[part])
            if self.opt["pop"] == "direct":
                m, v = base.mean()[:, 0], base.variance()[:, 0]
            elif self.opt["pop"] == "first":
                post = base.times(population(fin, np.zeros(len(fin)), self.opt["novel"]), COMPONENTS)
                m, v = post.mean()[:, 0], post.variance()[:, 0]
            else:
                m, v = base.mean()[:, 0], base.variance()[:, 0]
                for _ in range(self.opt["iters"]):
                    post = base.times(population(np.r_[fin, m], np.r_[np.zeros(len(fin)), v], self.opt["novel"]), COMPONENTS)
                    m, v = post.mean()[:, 0], post.variance()[:, 0]
            self.items = (np.r_[fin, m], np.r_[np.zeros(len(fin)), v])
        self.pop = population(*self.items, self.opt["novel"])
        self.tau = np.ones(len(FRACTIONS))
        if self.opt["widen"] and len(ex):
            from scipy.special import ndtri
            for f, fr in enumerate(FRACTIONS):
                zz, cc = z[ex].copy(), counts[ex].copy()
                gone = self.x > fr
                zz[:, gone] = np.nan; cc[:, gone] = 0
                base = self.likelihood(zz, cc, ex)
                sc = []
                for i, e in enumerate(ex):
                    k = int(np.flatnonzero(rows == e)[0])
                    pop = population(np.delete(self.items[0], k), np.delete(self.items[1], k), self.opt["novel"])
                    u = base.rows([i]).times(pop, COMPONENTS).below(z[[e], -1:])
                    sc.append(float(ndtri(np.clip(u[0, 0], 1e-4, 1 - 1e-4))))
                self.tau[f] = math.sqrt(max(1.0, (PRIOR_SCORES + np.sum(np.square(sc))) / (PRIOR_SCORES + len(sc))))

    def likelihood(self, z, counts, own=None):
        n = len(z); S = self.opt["noise"]; K = len(self.bank)
        patterns, inverse = np.unique(counts[:, :-1], axis=0, return_inverse=True); inverse = inverse.reshape(-1)
        logs = np.empty((n, len(self.covs), len(S), K)); means = np.empty_like(logs); variances = np.empty_like(logs)
        v = (1 / S**2)[:, None]
        p0, p1 = 1 / LEVEL[1] ** 2, 1 / self.opt["drop"][1] ** 2
        h0, h1 = LEVEL[0] * p0, self.opt["drop"][0] * p1
        for p, pattern in enumerate(patterns):
            seen = np.flatnonzero(pattern); rows = np.flatnonzero(inverse == p)
            for r, cov in enumerate(self.covs):
                R = cov[np.ix_(seen, seen)] + np.diag(1 / pattern[seen])
                L = np.linalg.cholesky(R)
                A = np.linalg.solve(L, np.concatenate([np.ones((len(seen), 1)), cov[seen, -1:], self.bank[:, seen].T, z[np.ix_(rows, seen)].T], axis=1))
                o, k, F, Y = A[:, 0], A[:, 1], A[:, 2:2 + K], A[:, 2 + K:].T
                a, b, c = p0 + (o @ o) * v, (o @ F) * v, p1 + (F * F).sum(0) * v
                d = a * c - b * b
                u = h0 + (Y @ o)[:, None, None] * v; w = h1 + (Y @ F)[:, None, :] * v
                al = (c * u - b * w) / d; be = (a * w - b * u) / d
                const = self.prior - len(seen) * np.log(S)[:, None] - np.log(d) / 2 - np.log(np.diag(L)).sum()
                logs[rows, r] = const - ((Y * Y).sum(1)[:, None, None] * v - u * al - w * be) / 2
                go, gf = 1 - k @ o, -(k @ F)
                means[rows, r] = al * go + be * gf + (Y @ k)[:, None, None]
                variances[rows, r] = (c * go * go - 2 * b * go * gf + a * gf * gf) / d + (S**2)[:, None] * (1 + cov[-1, -1] - k @ k)
        if own is not None:
            logs = np.where((own[:, None] == self.owner)[:, None, None, :], -np.inf, logs)
        logs = logs.reshape(n, -1); logs -= logs.max(axis=1, keepdims=True)
        weights = np.exp(logs); weights /= weights.sum(axis=1, keepdims=True)
        mix = Mixture(weights, means.reshape(n, -1), variances.reshape(n, -1)).heaviest(COMPONENTS)
        level = np.array([np.median(c[np.isfinite(c)][-3:]) if np.isfinite(c).any() else np.nan for c in z[:, :-1]])[:, None]
        change = np.where(np.isnan(level), 0.0, mix.means - level)
        return Mixture(mix.weights, mix.means - (1 - self.opt["trust"]) * change, mix.variances + (self.opt["doubt"] * change) ** 2)

    def forecast(self, values):
        z, counts = self.grid.points(self.scale.warp(values))
        mix = self.likelihood(z, counts).times(self.pop, COMPONENTS)
        far = np.array([self.x[np.flatnonzero(c[:-1])[-1]] if c[:-1].any() else 0 for c in counts])
        tau = self.tau[np.abs(far[:, None] - np.array(FRACTIONS)).argmin(1)][:, None]
        mean = mix.mean()
        return Mixture(mix.weights, mean + tau * (mix.means - mean), tau**2 * mix.variances)


def population(means, variances, novel):
    n = len(means)
    if n == 0:
        return Mixture(np.ones((1, 1)), np.full((1, 1), 1.0), np.full((1, 1), 9.0))
    order = np.argsort(means, kind="stable"); m, v = means[order], variances[order]
    k = round(math.sqrt(n)); i = np.arange(n)
    width = np.maximum(m[np.minimum(i + k, n - 1)] - m[np.maximum(i - k, 0)], 0.01) / np.where((i + k < n) & (i >= k), 2, 1) if n > 1 else np.ones(1)
    blocks = np.cumsum([0, *sizes(n)])[:-1]
    cnt = np.diff(np.r_[blocks, n])
    M = np.add.reduceat(m, blocks) / cnt
    V = np.add.reduceat(v + width**2 + m**2, blocks) / cnt - M**2
    W = np.r_[cnt, novel] / (n + novel)
    return Mixture(W[None], np.r_[M, np.median(m)][None], np.r_[V, 1.5**2][None])


def sizes(n):
    out = []; left = n
    while left:
        s = min(left, 1 + len(out) // 8 * max(1, n // 100)) if n > 24 else 1
        out.append(s); left -= s
    return out
