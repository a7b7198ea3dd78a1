"""Tables from the rows of run.py: time to a regret, how much faster than random search, and regret after some time.

    python benchmarks/fidelity/report.py results.jsonl --markdown fidelity.md

The regret of a run at a time is that of the best value it was told so far, at whatever step, less the best final value
of the table; 1 is a median final value, 0 the best one. With ``--full`` only values after the last step count. Time is
counted in trainings: one is the mean time of a full training; w workers do w of them in that time.

Figures are medians over seeds, with 95% percentile bootstrap intervals. A run that doesn't get there in its time counts
as infinity: (k) says how many did not. Where a median is infinite, its place in a ratio is taken by the time that there
was, and the ratio is a bound: >= or <=, or ~ where both medians are. Means over tables are geometric. "Used up" is the
share of runs that were over before their time, without a result within 1%: nothing was left to try.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TARGETS = (0.05, 0.01)  #: regrets to be reached
AFTER = (4, 16, 64, 128)  #: trainings of all workers together
RANDOM = "random"
RESAMPLES = 1000
FLOOR, WORST = 0.01, 10.0  #: regrets are clipped to this; WORST also stands for no value at all
Samples = np.ndarray  #: [1 + RESAMPLES]: a figure, and what it is on bootstrap samples


class Key(NamedTuple):
    """Whose runs."""

    table: str
    workers: int
    optimizer: str


class Cell(NamedTuple):
    """A figure of a table; ``sign`` says whether it is a bound, ``note`` follows it."""

    samples: Samples
    sign: str = ""
    note: str = ""

    def __str__(self) -> str:
        low, high = np.quantile(self.samples[1:], [0.025, 0.975], method="nearest")
        return f"{self.sign}{self.samples[0]:.2g} [{low:.2g}, {high:.2g}]{self.note}"


@dataclass(frozen=True)
class Results:
    """Rows by table, workers and optimizer; of several for a seed the one with the longest time.

    Attributes:
        rows: of each key one for each seed.
        measure: "reported" or "full".
    """

    rows: dict[Key, list[dict[str, Any]]]
    measure: str

    @classmethod
    def read(cls, files: Iterable[Path], measure: str) -> Results:
        best: dict[Key, dict[int, dict[str, Any]]] = {}
        for line in (line for file in files for line in file.read_text().splitlines()):
            row = json.loads(line)
            runs = best.setdefault(Key(row["table"], row["workers"], row["optimizer"]), {})
            if row["seed"] not in runs or row["limit"] > runs[row["seed"]]["limit"]:
                runs[row["seed"]] = row
        return cls({key: list(runs.values()) for key, runs in best.items()}, measure)

    def times(self, key: Key, target: float) -> np.ndarray:
        """[seeds]: when a regret was reached first; infinity where it never was."""
        runs = [row[self.measure] for row in self.rows[key]]
        return np.array([next((t for t, regret, _ in run if regret <= target), np.inf) for run in runs])

    def regrets(self, key: Key, time: float) -> np.ndarray:
        """[seeds]: clipped regret at a time; that at the end, if a run was over before."""
        runs = [row[self.measure] for row in self.rows[key]]
        last = [min((regret for t, regret, _ in run if t <= time), default=WORST) for run in runs]
        return np.clip(last, FLOOR, WORST)

    def had(self, key: Key) -> float:
        """The time that the runs had."""
        return min(row["wall"] for row in self.rows[key])


def medians(values: np.ndarray, key: Key) -> Samples:
    """The median of values [seeds], and those of bootstrap samples."""
    rng = np.random.default_rng(list(map(ord, str(key))))
    drawn = values[rng.integers(len(values), size=(RESAMPLES, len(values)))]
    return np.concatenate([[np.median(values)], np.median(drawn, axis=1)])


def time_to(results: Results, target: float, key: Key) -> Cell:
    """Trainings until a regret is reached."""
    times = results.times(key, target)
    missed = int(np.isinf(times).sum())
    return Cell(medians(times, key), note=f" ({missed})" if missed else "")


def speed(results: Results, target: float, key: Key) -> Cell:
    """How much sooner than random search a regret is reached."""
    random = key._replace(optimizer=RANDOM)
    ours, theirs = (medians(results.times(k, target), k) for k in (key, random))
    signs = {(False, False): "", (False, True): ">=", (True, False): "<=", (True, True): "~"}
    sign = signs[bool(np.isinf(ours[0])), bool(np.isinf(theirs[0]))]
    return Cell(np.minimum(theirs, results.had(random)) / np.minimum(ours, results.had(key)), sign)


def speed_to_random(results: Results, trainings: float, key: Key) -> Cell:
    """How much sooner the median value of random search after so many trainings is reached."""
    random = key._replace(optimizer=RANDOM)
    target = float(np.median(results.regrets(random, trainings / key.workers)))
    return speed(results, target, key)


def regret(results: Results, trainings: float, key: Key) -> Cell:
    """After so many trainings of all workers together."""
    return Cell(medians(results.regrets(key, trainings / key.workers), key))


def mean(cells: Sequence[Cell]) -> Cell:
    """The geometric mean over tables; a bound if all the bounds in it are on the same side."""
    signs = {cell.sign for cell in cells} - {""}
    sign = "" if not signs else signs.pop() if len(signs) == 1 else "~"
    return Cell(np.exp(np.log([cell.samples for cell in cells]).mean(0)), sign)


def grid(
    results: Results, figure: Callable[[Key], Cell], tables: list[str], workers: int, averaged: bool = True
) -> list[str]:
    """Markdown: a row for each optimizer, in the order of the mean if there is one, and a column for each table."""
    head = ["optimizer", *tables, *(["mean"] if averaged else [])]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    for optimizer in dict.fromkeys(key.optimizer for key in results.rows):
        keys = [Key(table, workers, optimizer) for table in tables]
        cells = {key: figure(key) for key in keys if key in results.rows}
        if cells:
            texts = [str(cells[key]) if key in cells else "" for key in keys]
            if averaged:
                texts.append(str(mean(list(cells.values()))) if len(cells) == len(keys) else "")
            lines.append(f"| {optimizer} | " + " | ".join(texts) + " |")
    return [*lines, ""]


def overall(results: Results, figures: dict[str, Callable[[Key], Cell]], tables: list[str], workers: int) -> list[str]:
    """Markdown: the means over tables of several figures, for the optimizers that were run on all of them."""
    head = ["optimizer", *figures, "used up", "seeds", "CPU s a run"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    for optimizer in dict.fromkeys(key.optimizer for key in results.rows):
        keys = [Key(table, workers, optimizer) for table in tables]
        if all(key in results.rows for key in keys):
            texts = [str(mean([figure(key) for key in keys])) for figure in figures.values()]
            rows = [row for key in keys for row in results.rows[key]]
            texts += [
                f"{np.mean([row['used_up'] for row in rows]):.0%}",
                str(min(len(results.rows[key]) for key in keys)),
            ]
            texts += [f"{np.mean([row['cpu'] for row in rows]):.2g}"]
            lines.append(f"| {optimizer} | " + " | ".join(texts) + " |")
    return [*lines, ""]


def group(table: str) -> str:
    """Which kind of table: they are never mixed in a mean."""
    return {"half": "Half made-up curves", "synthetic": "Made-up curves"}.get(table.split("-")[0], "Recorded curves")


def section(results: Results, tables: list[str], workers: int, after: Sequence[float], detail: bool) -> list[str]:
    """Markdown: all of one number of workers on one kind of tables."""
    here = Results(
        {k: rows for k, rows in results.rows.items() if k.workers == workers and k.table in tables}, results.measure
    )
    tables = [table for table in tables if Key(table, workers, RANDOM) in here.rows]
    goals = {f"{target:.0%}": target for target in TARGETS}
    figures = {f"sooner to {name}": partial(speed, here, target) for name, target in goals.items()}
    figures[f"sooner to what random search has after {after[-1]:g}"] = partial(speed_to_random, here, after[-1])
    figures |= {f"regret after {trainings:g}": partial(regret, here, trainings) for trainings in after}
    lines = ["Means over the tables.", "", *overall(here, figures, tables, workers)]
    if detail:
        for name, target in goals.items():
            lines += [
                f"Trainings until within {name}",
                "",
                *grid(here, partial(time_to, here, target), tables, workers, False),
            ]
        for name, figure in figures.items():
            lines += [name[0].upper() + name[1:], "", *grid(here, figure, tables, workers)]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--optimizers", nargs="+", help="in this order; default: all in the files")
    parser.add_argument("--workers", type=int, nargs="+", help="default: all in the files")
    parser.add_argument("--after", type=float, nargs="+", default=AFTER, help="trainings of all workers together")
    parser.add_argument("--full", action="store_true", help="only values after the last step count")
    parser.add_argument("--brief", action="store_true", help="only the means over tables")
    parser.add_argument("--markdown", type=Path, help="where to write the tables too")
    options = parser.parse_args()
    results = Results.read(options.files, "full" if options.full else "reported")
    if options.optimizers:
        wanted = list(dict.fromkeys([RANDOM, *options.optimizers]))
        rows = sorted(
            (key for key in results.rows if key.optimizer in wanted), key=lambda key: wanted.index(key.optimizer)
        )
        results = Results({key: results.rows[key] for key in rows}, results.measure)
    lines: list[str] = []
    known = sorted({key.table for key in results.rows})
    for kind in sorted({group(table) for table in known}, reverse=True):
        tables = [table for table in known if group(table) == kind]
        for workers in options.workers or sorted({key.workers for key in results.rows}):
            lines += [f"### {kind}, {workers} workers", ""]
            lines += section(results, tables, workers, options.after, not options.brief)
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
