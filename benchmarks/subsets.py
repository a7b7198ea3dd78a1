"""How good is a model that was trained on a part of the data? Ways of choosing the part, on the digits of scikit-learn.

    python benchmarks/subsets.py            # the table of docs/subsets.md
    python benchmarks/subsets.py --seeds 3  # a quick look

Every seed is another split of the 1,797 digits into 1,258 for training and 539 for testing, and another start of the
model. In training, "uneven" classes have each a third less than the one before; with "outliers" the pixels of one image
in twenty are shuffled.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from tunesmith.workloads import subsets

PARTS = (0.05, 0.1, 0.2)
Choose = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def fourier(x: np.ndarray, seed: int = 0) -> np.ndarray:
    """Random features of a Gaussian kernel, whose mean says more about the data than that of the pixels."""
    rng = np.random.default_rng(seed)
    angles = x @ rng.normal(size=(x.shape[1], 300)) / 2.5 + rng.uniform(0, 2 * np.pi, 300)
    return np.cos(angles)


WAYS: dict[str, Choose] = {
    "random": lambda x, y, size, seed: subsets.random(len(y), [size], seed)[0],
    "nested (balanced)": lambda x, y, size, seed: subsets.nested(y, [size], seed)[0],
    "k_centre": lambda x, y, size, seed: subsets.k_centre(x, size, seed),
    "k_centre, by class": lambda x, y, size, seed: subsets.k_centre(x, size, seed, labels=y),
    "herding": lambda x, y, size, seed: subsets.herding(x, size),
    "herding, by class": lambda x, y, size, seed: subsets.herding(x, size, labels=y),
    "herding of Fourier features, by class": lambda x, y, size, seed: subsets.herding(fourier(x), size, labels=y),
}
MODELS = {
    "logistic regression": lambda seed: LogisticRegression(C=1.0, max_iter=500),
    "MLP, 64 hidden units": lambda seed: MLPClassifier((64,), max_iter=200, random_state=seed),
}


def split(seed: int, kind: str) -> tuple[np.ndarray, ...]:
    """Training and test images, from 0 to 1, with their classes."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    train, test = order[:1258], order[1258:]
    if kind == "outliers":
        for row in train[::20]:
            images[row] = rng.permutation(images[row])
    if kind == "uneven classes":
        keep = [train[labels[train] == c][: int(126 * (2 / 3) ** c) + 3] for c in range(10)]
        train = np.concatenate(keep)
    return images[train] / 16, labels[train], images[test] / 16, labels[test]


def accuracy(model: object, x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> float:
    """Mean over the classes of the share that is recognised; a part with one class only recognises that one."""
    guessed = np.full(len(test_y), y[0]) if len(set(y)) == 1 else model.fit(x, y).predict(test_x)
    return float(np.mean([(guessed[test_y == c] == c).mean() for c in range(10)]))


def table(seeds: int, kind: str) -> None:
    print(f"\n{kind}, {seeds} seeds: accuracy in %, mean over classes (standard error)")
    for name, make in MODELS.items():
        print(f"\n| {name} | " + " | ".join(f"{part:.0%}" for part in (*PARTS, 1.0)) + " |")
        print("|---|" + "--:|" * (len(PARTS) + 1))
        for way, choose in WAYS.items():
            cells = []
            for part in (*PARTS, 1.0):
                if part == 1.0 and way != "random":
                    cells.append("")
                    continue
                found = []
                for seed in range(seeds):
                    x, y, test_x, test_y = split(seed, kind)
                    rows = choose(x, y, round(part * len(y)), seed)
                    found.append(100 * accuracy(make(seed), x[rows], y[rows], test_x, test_y))
                cells.append(f"{np.mean(found):.1f} ({np.std(found, ddof=1) / len(found) ** 0.5:.1f})")
            print(f"| {way} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    for data in ("as they are", "uneven classes", "outliers"):
        table(arguments.seeds, data)
