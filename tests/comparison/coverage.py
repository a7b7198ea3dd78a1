"""How often 90% intervals cover what they are for, on known laws: ``python tests/comparison/coverage.py``.

The figures in the docstrings of ``comparison`` and in ``docs/comparison.md`` are from here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np

from tunesmith.comparison import band, beats_band, crossing, gap, over_seeds

#: law: draws, mean of the best of k, median of the best of k
LAWS: dict[str, tuple[Callable, Callable, Callable]] = {
    "uniform": (lambda rng, n: rng.random(n), lambda k: 1 / (k + 1), lambda k: 1 - 0.5 ** (1 / k)),
    "exponential": (lambda rng, n: rng.exponential(size=n), lambda k: 1 / k, lambda k: np.log(2) / k),
}
BUDGETS = {20: [1, 2, 4], 50: [1, 2, 4, 8], 100: [1, 2, 4, 8, 16]}
POWERS = (1.0, 1.7, 4.0)  #: one is uniform to this power, the other one uniform


def share(low: np.ndarray, high: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return (low <= truth) & (truth <= high)


def of_band(law: str, n: int, budgets: list[int], samples: int, **options: object) -> np.ndarray:
    """Coverage of the band of a curve for each budget."""
    draw, mean, median = LAWS[law]
    exact = mean if options.get("statistic") == "mean" else median
    truth = np.array([exact(k) for k in budgets])
    rng = np.random.default_rng(n)
    found = []
    for i in range(samples):
        one = band(draw(rng, n), budgets, seed=i, **options)
        found.append(share(one.low, one.high, truth))
    return np.mean(found, axis=0)


def chances(power: float, budgets: list[int]) -> np.ndarray:
    """P(the best of k of uniform values to a power is under the best of k uniform ones), by a fine sum."""
    x = (np.arange(200_000) + 0.5) / 200_000
    return np.array([((1 - (1 - x ** (1 / power)) ** k) * k * (1 - x) ** (k - 1)).mean() for k in budgets])


def of_pair(kind: str, power: float, n: int, budgets: list[int], samples: int, **options: object) -> np.ndarray:
    """Coverage of ``beats_band`` or ``gap`` for each budget."""
    median = np.array([1 - 0.5 ** (1 / k) for k in budgets])
    truth = chances(power, budgets) if kind == "beats" else median**power - median
    rng = np.random.default_rng(n)
    found = []
    for _ in range(samples):
        one, other = rng.random(n) ** power, rng.random(n)
        compare = beats_band if kind == "beats" else gap
        interval = compare(one, other, budgets, **options)
        found.append(share(interval.low, interval.high, truth))
    return np.mean(found, axis=0)


def of_crossing(offset: float, n: int, samples: int) -> tuple[int, float]:
    """The k from which on a wide range of uniform values is no worse than a narrow one, and how often it is covered."""
    k = int(np.ceil(np.log(0.5) / np.log(1 - offset / 0.9)))
    rng = np.random.default_rng(n)
    found = [crossing(rng.random(n), offset + 0.1 * rng.random(n), draws=300, seed=i) for i in range(samples)]
    truth = k if k <= found[0].largest else np.inf
    return k, float(np.mean([one.low <= truth <= one.high for one in found]))


def of_seeds(law: str, n: int, samples: int) -> float:
    """Coverage of the interval of a mean over seeds; of normal, uniform or exponential values."""
    rng = np.random.default_rng(n)
    draw, truth = (lambda r, m: r.normal(size=m), 0.0) if law == "normal" else (LAWS[law][0], LAWS[law][1](1))
    found = [over_seeds(draw(rng, n), seed=i) for i in range(samples)]
    return float(np.mean([one.low <= truth <= one.high for one in found]))


def lines(samples: int) -> Iterator[str]:
    few = max(1, samples // 4)  # of what resamples
    for n, budgets in BUDGETS.items():
        for law in LAWS:
            yield f"band median        {law:12} n={n:3} {budgets} {of_band(law, n, budgets, samples).round(3)}"
            for options in ({"statistic": "mean"}, {"percentile": True}, {"statistic": "mean", "percentile": True}):
                found = of_band(law, n, budgets, few, draws=500, **options)
                yield f"band {options} {law:12} n={n:3} {budgets} {found.round(3)}"
        for power in POWERS:
            yield f"beats  power {power} n={n:3} {budgets} {of_pair('beats', power, n, budgets, samples).round(3)}"
            yield f"gap    power {power} n={n:3} {budgets} {of_pair('gap', power, n, budgets, samples).round(3)}"
        found = of_pair("beats", 1.7, n, budgets, few, draws=300, percentile=True)
        yield f"beats percentile power 1.7 n={n:3} {budgets} {found.round(3)}"
        for offset in (0.3, 0.2, 0.12, 0.06):
            k, found = of_crossing(offset, n, few)
            yield f"crossing at {k:2} n={n:3} {found:.3f}"
    for law in ("normal", *LAWS):
        for n in (3, 5, 10, 20, 50):
            yield f"seeds {law:12} n={n:3} {of_seeds(law, n, few):.3f}"


if __name__ == "__main__":
    for line in lines(int(sys.argv[1]) if len(sys.argv) > 1 else 4000):
        print(line, flush=True)
