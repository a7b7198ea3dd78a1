"""PBT against random search on real images, over seeds: test accuracy of the member that validation selects.

    python benchmarks/pbt_vs_random.py --data digits --seeds 20
    python benchmarks/pbt_vs_random.py --data fashion-mnist --seeds 10

Both methods have the same population, the same number of steps, the same first configurations and weights. Nothing was
tuned on the test images, and every seed that was run is printed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from tunesmith.analysis.tables import difference, summary
from tunesmith.workloads import demo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(demo.STEPS), default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--ready", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    steps = arguments.steps or demo.STEPS[arguments.data]
    ready = arguments.ready or max(1, steps // demo.GENERATIONS)
    print(f"{arguments.data}: population {arguments.population}, {steps} steps, ready every {ready}")
    print("| seed | PBT | random | difference | PBT, validation | random, validation | PBT, median | random, median |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    began, rows = time.perf_counter(), []
    for seed in range(arguments.seeds):
        studies = demo.open_studies(arguments.data, arguments.population, steps, ready, seed)
        for study in studies.values():
            if demo.train(study, arguments.data_dir, arguments.workers) == "interrupted":
                raise SystemExit(1)
        pbt, random = (summary(name, study, demo.REPORT) for name, study in studies.items())
        assert pbt.steps == random.steps, "the budgets are not equal"
        rows.append((pbt.report, random.report, pbt.best, random.best, pbt.report_median, random.report_median))
        cells = [rows[-1][0], rows[-1][1], rows[-1][0] - rows[-1][1], *rows[-1][2:]]
        print(f"| {seed} | " + " | ".join(f"{100 * cell:.2f}" for cell in cells) + " |", flush=True)
    a, b, _, _, c, d = zip(*rows, strict=True)
    report = {"best": difference(a, b), "median of the population": difference(c, d)} if len(rows) > 1 else {}
    for name, found in report.items():
        low, high, bootstrap_low, bootstrap_high = (
            f"{100 * end:+.2f}" for end in (found.low, found.high, found.bootstrap_low, found.bootstrap_high)
        )
        print(f"{name}: PBT - random = {100 * found.mean:+.2f} points of test accuracy over {found.pairs} seeds;")
        print(f"  95% intervals [{low}, {high}] (paired t), [{bootstrap_low}, {bootstrap_high}] (bootstrap)")
    wins, ties = (sum(x > y for x, y in zip(a, b, strict=True)), sum(x == y for x, y in zip(a, b, strict=True)))
    print(f"PBT better in {wins}, equal in {ties} of {len(rows)} seeds; {time.perf_counter() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps({"data": arguments.data, "steps": steps, "ready": ready, "rows": rows}))


if __name__ == "__main__":
    main()
