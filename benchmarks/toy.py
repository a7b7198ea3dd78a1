"""The paper's toy problem: the table of all modes, and the picture of four of them.

python benchmarks/toy.py --seeds 50 --figure docs/figures/toy.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tunesmith.workloads import toy

# Median of 50 seeds in an independent re-implementation in plain numpy (ready=4, ready=10), where known [p10, p90].
REFERENCE = {
    "grid search": ("0.390", "0.390"),
    "explore only, additive noise": ("1.034 [-0.87, 1.19]", "0.984 [-0.87, 1.15]"),
    "explore only, perturb": ("0.390", "0.390"),
    "exploit only, copy theta": ("1.061", "1.167"),
    "exploit only, copy theta and h": ("0.390", "0.390"),
    "PBT, copy theta, additive noise": ("1.170 [1.09, 1.19]", "1.168 [1.14, 1.19]"),
    "PBT, copy theta, perturb": ("1.140", "1.156"),
    "PBT, copy theta and h, additive noise": ("1.174 [1.08, 1.19]", "1.110 [1.00, 1.19]"),
    "PBT, copy theta and h, perturb": ("0.390", "0.390"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--figure", type=Path, help="where to write the picture")
    arguments = parser.parse_args()
    print("| mode | ready=4 | reference | ready=10 | reference |\n|---|---|---|---|---|")
    began = time.perf_counter()
    tables = [toy.figure2(range(arguments.seeds), ready) for ready in (4, 10)]
    for name, references in REFERENCE.items():
        cells = []
        for table, reference in zip(tables, references, strict=True):
            median, low, high = toy.spread(table[name])
            cells += [f"{median:.3f} [{low:.2f}, {high:.2f}]", reference]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\n{arguments.seeds} seeds, median [p10, p90] of the best member's final Q; optimum {toy.OPTIMUM}.")
    print("perturb: the reference multiplies by 0.8 or 1.2, which never moves h = 0; Space.perturb can.")
    print(f"{time.perf_counter() - began:.1f} s for {2 * len(REFERENCE) * arguments.seeds} runs.")
    if arguments.figure:
        arguments.figure.parent.mkdir(parents=True, exist_ok=True)
        toy.plot(range(arguments.seeds)).savefig(arguments.figure, dpi=160)


if __name__ == "__main__":
    main()
