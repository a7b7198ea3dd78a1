"""The toy problem of population based training in plain numpy, to compare with: uses nothing of tunesmith.

Jaderberg et al. 2017 (arXiv:1711.09846), Figure 2. The two members go in lockstep: both train, then the worse one looks
at the better one.
"""

from __future__ import annotations

import numpy as np


def play(seed: int, ready: int, copy: str = "", explore: str = "", steps: int = 200, rate: float = 0.01) -> float:
    """The better member's final Q. ``copy``: "", "theta", "theta and h"; ``explore``: "", "noise", "factor"."""
    rng = np.random.default_rng(seed)
    theta, h = np.full((2, 2), 0.9), np.eye(2)
    for step in range(1, steps + 1):
        theta = theta - rate * 2 * h * theta
        q = 1.2 - (theta**2).sum(axis=1)
        if step % ready:
            continue
        better = int(q[1] > q[0])
        if copy:
            theta[1 - better] = theta[better]
        if copy == "theta and h":
            h[1 - better] = h[better]
        for member in [1 - better] if copy else [0, 1]:
            if explore == "noise":
                h[member] += rng.normal(0, 0.1, 2)
            elif explore == "factor":
                h[member] *= rng.choice([0.8, 1.2], 2)
    return float(q.max())
