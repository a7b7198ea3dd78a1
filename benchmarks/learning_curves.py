"""How well the ends of real learning curves are predicted: tunesmith.curves beside simple ways, on recorded curves.

    python benchmarks/learning_curves.py
    python benchmarks/learning_curves.py --tables text-rnn --finished 5 20 --studies 50

A study is a draw of curves of a table (fidelity/curves). Some are seen to their end, forty others up to a share of the
way, and the ends of these are predicted. Three figures, means over studies:

* score: the logarithm of the probability given to the interval of 1% on both sides of the true end, less that of the
  ends alone (which look at no curve). More is better; 0.7 is twice the probability.
* order: the share of pairs of curves that are predicted in the wrong order. 50% is chance.
* outside: the share of ends outside of the middle nine tenths of their distribution. 10% is right.

The simple ways predict the logarithm of the end, and learn from the finished curves how far off they are at this step:
scale and degrees of freedom of Student's distribution on a grid, averaged by their likelihood.

* ends: the median of the finished ends, for every curve;
* last value: and the median of what finished curves fell from there on;
* power law: a + b t^-c by least squares for each curve (c on a grid, b at least 0), and the same correction;
* regression: linear, of the end on the last value of finished curves, drawn towards the last value.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

sys.path.insert(0, str(Path(__file__).parent / "fidelity"))

import tables

from tunesmith.curves import Extrapolator

Floats = NDArray[np.float64]

SHARES = (1 / 9, 1 / 3, 2 / 3)
GOING = 40  #: curves to be predicted
NEAR = 0.01  #: of the true end, on both sides
SCALES, FREEDOM = np.geomspace(0.002, 3.0, 40), (1.0, 2.0, 4.0, 10.0)
POWERS = np.geomspace(0.05, 4.0, 30)
DRAWN = 3.0  #: the regression is drawn towards the last value with the weight of so many curves


@dataclass
class Case:
    """Curves [n, steps]; those that are going on are NaN from step ``at`` on. ``truth``: their ends."""

    finished: Floats
    going: Floats
    truth: Floats
    at: int


@dataclass
class Prediction:
    """Of ends: the best guess [n], and the probabilities to be below thresholds [n, k], one row a curve."""

    guess: Floats
    below: Callable[[Floats], Floats]


def curves(case: Case) -> Prediction:
    """The model of the library, from values as they are."""
    every = np.concatenate([case.finished, case.going])
    steps = every.shape[1]
    forecast = Extrapolator(np.arange(1, steps + 1), every, steps).forecast(case.going)
    own = np.arange(len(case.going))
    return Prediction(forecast.median, lambda thresholds: forecast.below(thresholds)[own, own])


Guess = Callable[[Floats, Floats, Floats, int], Floats]
"""Logarithms of ends [n], from beginnings [n, at], finished beginnings [m, at], logarithms of their ends [m], and the
last step.
"""


def simple(guess: Guess) -> Callable[[Case], Prediction]:
    """A way whose errors are those that it makes for each finished curve by the others."""

    def predict(case: Case) -> Prediction:
        before, ends, until = case.finished[:, : case.at], np.log(case.finished[:, -1]), case.finished.shape[1]
        rest = [np.arange(len(ends)) != i for i in range(len(ends))]
        errors = np.array([ends[i] - guess(before[[i]], before[o], ends[o], until)[0] for i, o in enumerate(rest)])
        means = guess(case.going[:, : case.at], before, ends, until)
        scales, freedom = (grid.reshape(-1) for grid in np.meshgrid(SCALES, FREEDOM))
        logs = student.logpdf(errors[:, None], freedom, 0.0, scales).sum(axis=0)
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()

        def below(thresholds: Floats) -> Floats:
            gaps = np.log(thresholds) - means[:, None]
            return (student.cdf(gaps[:, :, None], freedom, 0.0, scales) * weights).sum(axis=2)

        return Prediction(np.exp(means), below)

    return predict


def ends_alone(now: Floats, before: Floats, ends: Floats, until: int) -> Floats:
    return np.full(len(now), np.median(ends))


def last_value(now: Floats, before: Floats, ends: Floats, until: int) -> Floats:
    return np.log(now[:, -1]) + np.median(ends - np.log(before[:, -1]))


def power_law(now: Floats, before: Floats, ends: Floats, until: int) -> Floats:
    return _power_laws(now, until) + np.median(ends - _power_laws(before, until))


def _power_laws(curves: Floats, until: int) -> Floats:
    """The logarithm of where power laws through curves [n, at] end, at least a tenth of the least value seen: [n]."""
    steps = np.arange(1, curves.shape[1] + 1)
    found = []
    for c in POWERS:
        shape = steps**-c
        centred = shape - shape.mean()
        slope = np.maximum((curves @ centred) / max(centred @ centred, 1e-12), 0.0)
        start = curves.mean(axis=1) - slope * shape.mean()
        loss = ((curves - start[:, None] - np.outer(slope, shape)) ** 2).sum(axis=1)
        found.append((loss, start + slope * until**-c))
    losses, last = np.array([loss for loss, _ in found]), np.array([end for _, end in found])
    best = losses.argmin(axis=0)
    return np.log(np.maximum(last[best, np.arange(len(curves))], 0.1 * curves.min(axis=1)))


def regression(now: Floats, before: Floats, ends: Floats, until: int) -> Floats:
    x, y = np.log(before[:, -1]), np.log(now[:, -1])
    centre, drop = x.mean(), (ends - x).mean()
    slope = 1 + ((x - centre) @ (ends - x - drop)) / ((x - centre) @ (x - centre) + DRAWN * x.var() + 1e-12)
    return centre + drop + slope * (y - centre)


WAYS: dict[str, Callable[[Case], Prediction]] = {
    "ends": simple(ends_alone),
    "last value": simple(last_value),
    "power law": simple(power_law),
    "regression": simple(regression),
    "tunesmith.curves": curves,
}


def case_of(table: tables.Table, finished: int, share: float, seed: int) -> Case:
    """A draw of curves of a table."""
    rows = np.random.default_rng(seed).permutation(len(table.configs))[: finished + GOING]
    drawn, at = table.curves[rows], max(1, round(share * table.steps))
    going = np.where(np.arange(table.steps) < at, drawn[finished:], np.nan)
    return Case(drawn[:finished], going, drawn[finished:, -1], at)


def scored(prediction: Prediction, truth: Floats) -> tuple[float, float, float]:
    """The mean logarithm of the probability near the true ends, the share of pairs in the wrong order, and the share of
    ends outside of the middle nine tenths.
    """
    low, high, at = prediction.below(np.stack([truth * (1 - NEAR), truth * (1 + NEAR), truth], axis=1)).T
    one, other = np.triu_indices(len(truth), 1)
    order = np.sign(truth[one] - truth[other]) * np.sign(prediction.guess[one] - prediction.guess[other])
    wrong = (1 - order[truth[one] != truth[other]]) / 2
    return float(np.log(np.maximum(high - low, 1e-6)).mean()), float(wrong.mean()), float((abs(at - 0.5) > 0.45).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=tables.recorded_names())
    parser.add_argument("--finished", nargs="+", type=int, default=[5, 20], help="curves that are seen to their end")
    parser.add_argument("--studies", type=int, default=30, help="of each table and number of finished curves")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="beside ends")
    options = parser.parse_args()
    ways = {way: predict for way, predict in WAYS.items() if way in {"ends", *options.ways}}
    print("| table | finished | seen |", " | ".join(f"{way}: score | order | outside" for way in ways), "|")
    print("|---|--:|--:|" + "--:|" * (3 * len(ways)))
    spent = dict.fromkeys(ways, 0.0)
    cases = [(name, n, share) for name in options.tables for n in options.finished for share in SHARES]
    for name, finished, share in cases:
        found = {way: [] for way in ways}
        for seed in range(options.studies):
            case = case_of(tables.load(name), finished, share, seed)
            for way, predict in ways.items():
                begin = time.process_time()
                found[way].append(scored(predict(case), case.truth))
                spent[way] += time.process_time() - begin
        base = np.mean(found["ends"], axis=0)[0]
        means = {way: np.mean(scores, axis=0) for way, scores in found.items()}
        cells = [f"{s - base:+.2f} | {100 * order:.0f}% | {100 * out:.0f}%" for s, order, out in means.values()]
        print(f"| {name} | {finished} | {share:.0%} |", " | ".join(cells), "|", flush=True)
    each = {way: seconds / len(cases) / options.studies for way, seconds in spent.items()}
    print("\nMilliseconds of the processor a study:", ", ".join(f"{way} {1e3 * s:.0f}" for way, s in each.items()))


if __name__ == "__main__":
    main()
