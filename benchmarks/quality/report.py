"""Tables from the rows of run.py: regret beside that of random search, intervals, ranks, and who beats whom.

    python benchmarks/quality/report.py results.jsonl --at 100 --ours 'tunesmith:TPE()' --markdown quality.md

The regret of a run is its best value less the optimum (or less the best value in the file, where no optimum is known),
divided by the median regret of random search on that problem after as many evaluations: 1 is as good as random, 0 has
found the optimum. What is below a millionth counts as a millionth; in the geometric mean, a thousandth is the least.
Intervals are 95% percentile bootstrap over seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FLOOR = 1e-6
MEAN_FLOOR = 1e-3  #: in the geometric mean, which would else be ruled by the runs that have found the optimum
RESAMPLES = 2000
Regrets = dict[str, dict[str, np.ndarray]]  #: normalised, by problem, optimizer, and seed


@dataclass(frozen=True)
class Duel:
    """One of ours against the best peer on a problem: the ratio of the medians with its interval."""

    problem: str
    peer: str
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        return "better" if self.high < 1 else "worse" if self.low > 1 else "tied"


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def regrets(rows: list[dict[str, Any]], at: int) -> tuple[Regrets, list[str]]:
    """Normalised regrets after ``at`` evaluations; problems that random search solves or wasn't run on are left out."""
    known: dict[str, float] = {}
    values: dict[str, dict[str, dict[int, tuple[int, float]]]] = {}
    for row in rows:
        name, best = row["problem"], min(row["best"].values())
        known[name] = min(known.get(name, np.inf), best if row["optimum"] is None else row["optimum"])
        if str(at) in row["best"]:
            runs = values.setdefault(name, {}).setdefault(row["optimizer"], {})
            if row["seed"] not in runs or row["evaluations"] < runs[row["seed"]][0]:  # the run meant to be this long
                runs[row["seed"]] = row["evaluations"], row["best"][str(at)]
    table: Regrets = {}
    without = []
    for name, by in values.items():
        raw = {who: np.array([value for _, value in runs.values()]) - known[name] for who, runs in by.items()}
        unit = float(np.median(raw["random"])) if "random" in by else 0.0
        if unit > 1e-12:
            table[name] = {who: np.maximum(regret / unit, FLOOR) for who, regret in raw.items()}
        else:
            without.append(name)
    return table, without


def resampled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Medians of bootstrap samples."""
    return np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)


def _interval(samples: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return float(low), float(high)


def _geometric(medians: np.ndarray) -> np.ndarray:
    """Geometric mean over the first axis, the problems."""
    return np.exp(np.log(np.maximum(medians, MEAN_FLOOR)).mean(0))


def by_problem(table: Regrets, optimizers: list[str]) -> list[str]:
    """Markdown: median normalised regret with its interval; the best median of a row is bold."""
    lines = ["| problem | " + " | ".join(optimizers) + " |", "|---|" + "--:|" * len(optimizers)]
    for name, by in table.items():
        rng = np.random.default_rng(0)
        best = min(float(np.median(by[who])) for who in optimizers if who in by)
        cells = []
        for who in optimizers:
            if who not in by:
                cells.append("")
                continue
            median, (low, high) = float(np.median(by[who])), _interval(resampled(by[who], rng))
            text = f"**{median:.2g}**" if median == best else f"{median:.2g}"
            cells.append(f"{text} [{low:.2g}, {high:.2g}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def overall(table: Regrets, optimizers: list[str], cpu: dict[str, float]) -> list[str]:
    """Markdown: means over the problems that an optimizer was run on, ranks, and processor time."""
    ranks: dict[str, list[float]] = {who: [] for who in optimizers}
    for by in table.values():
        present = [who for who in optimizers if who in by]
        medians = np.array([np.median(by[who]) for who in present])
        for who, median in zip(present, medians, strict=True):
            ranks[who].append(1 + float((medians < median).sum()) + ((medians == median).sum() - 1) / 2)
    lines = ["| optimizer | problems | seeds | mean | geometric mean | mean rank | CPU ms an evaluation |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|"]
    rows = []
    for who in optimizers:
        runs = [by[who] for by in table.values() if who in by]
        if not runs:
            continue
        rng = np.random.default_rng(0)
        samples = np.array([resampled(run, rng) for run in runs])
        medians = np.array([np.median(run) for run in runs])
        mean, logs = _interval(samples.mean(0)), _interval(_geometric(samples))
        middle = float(_geometric(medians))
        seeds = f"{min(map(len, runs))}-{max(map(len, runs))}"
        text = f"| {who} | {len(runs)} | {seeds} | {medians.mean():.3g} [{mean[0]:.3g}, {mean[1]:.3g}] "
        text += f"| {middle:.3g} [{logs[0]:.3g}, {logs[1]:.3g}] | {np.mean(ranks[who]):.2f} | {1000 * cpu[who]:.3g} |"
        rows.append((middle, text))
    return lines + [text for _, text in sorted(rows)]


def duels(table: Regrets, ours: str, peers: list[str]) -> list[Duel]:
    """Ours against the peer with the best median, problem by problem."""
    found = []
    for name, by in table.items():
        rivals = [who for who in peers if who in by]
        if ours in by and rivals:
            peer = min(rivals, key=lambda who: float(np.median(by[who])))
            rng = np.random.default_rng(0)
            ratio = resampled(by[ours], rng) / resampled(by[peer], rng)
            found.append(Duel(name, peer, float(np.median(by[ours]) / np.median(by[peer])), *_interval(ratio)))
    return found


def _duel_lines(found: list[Duel], ours: str) -> list[str]:
    count = {verdict: sum(duel.verdict == verdict for duel in found) for verdict in ("better", "tied", "worse")}
    head = ", ".join(f"{verdict} on {number}" for verdict, number in count.items())
    lines = [f"`{ours}` against the best peer of each problem: {head} of {len(found)} problems.", ""]
    lines += ["| problem | best peer | ratio of medians | |", "|---|---|--:|---|"]
    for duel in sorted(found, key=lambda duel: -duel.ratio):
        lines.append(
            f"| {duel.problem} | {duel.peer} | {duel.ratio:.2g} [{duel.low:.2g}, {duel.high:.2g}] | {duel.verdict} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument(
        "--at", type=int, nargs="+", default=[100], help="evaluations: of 10, 25, 50, 75, 100, 150, 200"
    )
    parser.add_argument("--optimizers", nargs="+", help="default: all in the files")
    parser.add_argument("--problems", nargs="+", help="default: all in the files; names, groups, shell patterns")
    parser.add_argument("--ours", nargs="*", help="compared with the best peer; default: all of tunesmith")
    parser.add_argument("--common", action="store_true", help="only problems that all these optimizers were run on")
    parser.add_argument("--markdown", type=Path, help="where to write the tables too")
    options = parser.parse_args()
    rows = read(options.files)
    if options.problems:
        sys.path.insert(0, str(Path(__file__).parent))
        import problems

        chosen = set(problems.names(options.problems))
        rows = [row for row in rows if row["problem"] in chosen]
    optimizers = options.optimizers or sorted({row["optimizer"] for row in rows})
    rows = [row for row in rows if row["optimizer"] in {*optimizers, "random"}]
    own = {row["optimizer"] for row in rows if row["version"].startswith("tunesmith")}
    ours = options.ours if options.ours is not None else [who for who in optimizers if who in own]
    peers = [who for who in optimizers if who not in own]
    cpu = {
        who: float(np.mean([row["cpu"] / row["evaluations"] for row in rows if row["optimizer"] == who]))
        for who in {row["optimizer"] for row in rows}
    }
    lines: list[str] = []
    for at in options.at:
        table, without = regrets(rows, at)
        if options.common:
            table = {name: by for name, by in table.items() if set(optimizers) <= by.keys()}
        if not table:
            continue
        lines += [
            f"### After {at} evaluations",
            "",
            "Median regret, in units of the median regret of random search.",
            "",
        ]
        lines += [*by_problem(table, optimizers), ""]
        if without:
            lines += [f"Left out, since random search finds the optimum or wasn't run: {', '.join(without)}.", ""]
        lines += [*overall(table, optimizers, cpu), ""]
        for who in ours:
            found = duels(table, who, peers)
            lines += [*_duel_lines(found, who), ""] if found else []
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
