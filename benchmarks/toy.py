"""The paper's toy problem: the table of all modes, and the picture of four of them.

python benchmarks/toy.py --seeds 50 --figure docs/figures/toy.png
"""

from __future__ import annotations

import argparse
import runpy
import time
from pathlib import Path

from tunesmith.workloads import toy

PLAIN = Path(__file__).parent.parent / "tests" / "reference" / "toy_plain.py"

# Arguments of the plain reference, which goes in lockstep as the study does; then what an earlier plain one came to, in
# which the two members alternate: the median of 50 seeds, where known with [p10, p90], for ready=4 and ready=10.
REFERENCE = {
    "grid search": (("", ""), "0.390", "0.390"),
    "explore only, additive noise": (("", "noise"), "1.034 [-0.87, 1.19]", "0.984 [-0.87, 1.15]"),
    "explore only, perturb": (("", "factor"), "0.390", "0.390"),
    "exploit only, copy theta": (("theta", ""), "1.061", "1.167"),
    "exploit only, copy theta and h": (("theta and h", ""), "0.390", "0.390"),
    "PBT, copy theta, additive noise": (("theta", "noise"), "1.170 [1.09, 1.19]", "1.168 [1.14, 1.19]"),
    "PBT, copy theta, perturb": (("theta", "factor"), "1.140", "1.156"),
    "PBT, copy theta and h, additive noise": (("theta and h", "noise"), "1.174 [1.08, 1.19]", "1.110 [1.00, 1.19]"),
    "PBT, copy theta and h, perturb": (("theta and h", "factor"), "0.390", "0.390"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--figure", type=Path, help="where to write the picture")
    arguments = parser.parse_args()
    plain, seeds = runpy.run_path(str(PLAIN))["play"], range(arguments.seeds)
    for place, ready in enumerate((4, 10)):
        print(f"| ready={ready} | tunesmith | plain, lockstep | plain, alternating |\n|---|---|---|---|")
        began = time.perf_counter()
        found = toy.figure2(seeds, ready)
        seconds = time.perf_counter() - began
        for name, (options, *alternating) in REFERENCE.items():
            columns = (found[name], [plain(seed, ready, *options) for seed in seeds])
            cells = ["{:.3f} [{:.2f}, {:.2f}]".format(*toy.spread(column)) for column in columns]
            print(f"| {name} | {' | '.join([*cells, alternating[place]])} |")
        print(f"\n{seconds:.1f} s for {len(found) * arguments.seeds} runs of tunesmith\n")
    print(f"{arguments.seeds} seeds, median [p10, p90] of the best member's final Q; optimum {toy.OPTIMUM}.")
    print("perturb: the plain ones multiply by 0.8 or 1.2, which never moves h = 0; Space.perturb can.")
    if arguments.figure:
        arguments.figure.parent.mkdir(parents=True, exist_ok=True)
        toy.plot(seeds).savefig(arguments.figure, dpi=160)


if __name__ == "__main__":
    main()
