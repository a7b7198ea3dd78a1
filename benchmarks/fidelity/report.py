"""Tables from the rows of run.py: time to a regret, how much faster than random search, and regret after some time.

    python benchmarks/fidelity/report.py results.jsonl --markdown fidelity.md

The regret of a run at a time is that of the best value it was told so far, at whatever step, less the best final value
of the table; 1 is a median final value, 0 the best one. With ``--full`` only values after the last step count. Time is
counted in trainings: one is the mean time of a full training; w workers do w of them in that time.

Figures are medians over seeds, with 95% percentile bootstrap intervals. A run that doesn't get there in its time counts
as infinity: (k) says how many did not. Where a median is infinite, its place in a ratio is taken by the time that there
was, and the ratio is a bound: >= or <=, or ~ where both medians are. Means over tables are geometric. "Used up" is the
share of runs that were over before their time, without a result within 1%: nothing was left to try. Optimizers that had
different times are compared with --limit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TARGETS = (0.05, 0.01)  #: regrets to be reached
AFTER = (4, 16, 64, 128)  #: trainings of all workers together
RANDOM = "random"
WALL = 4  #: of run.py
RESAMPLES = 1000
FLOOR, WORST = 0.01, 10.0  #: regrets are clipped to this; WORST also stands for no value at all
Samples = np.ndarray  #: [1 + RESAMPLES]: a figure, and what it is on bootstrap samples


class Key(NamedTuple):
    """Whose runs."""

    table: str
    workers: int
    optimizer: str


class Place(NamedTuple):
    """Where optimizers are compared."""

    table: str
    workers: int


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
    def read(cls, files: Iterable[Path], measure: str, limit: float) -> Results:
        """Those in files, as if they had had no more time than for so many trainings."""
        best: dict[Key, dict[int, dict[str, Any]]] = {}
        for line in (line for file in files for line in file.read_text().splitlines()):
            row = json.loads(line)
            runs = best.setdefault(Key(row["table"], row["workers"], row["optimizer"]), {})
            if row["seed"] not in runs or row["limit"] > runs[row["seed"]]["limit"]:
                runs[row["seed"]] = row
        for row in (row for runs in best.values() for row in runs.values()):
            row["wall"] = min(row["wall"], max(limit / row["workers"], WALL))
            row[measure] = [found for found in row[measure] if found[0] <= row["wall"]]
        return cls({key: list(runs.values()) for key, runs in best.items()}, measure)

    def only(self, wanted: Callable[[Key], bool], key: Callable[[Key], int]) -> Results:
        """Some of them, in an order."""
        return Results({k: self.rows[k] for k in sorted(filter(wanted, self.rows), key=key)}, self.measure)

    def optimizers(self) -> list[str]:
        return list(dict.fromkeys(key.optimizer for key in self.rows))

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
        return float(min(row["wall"] for row in self.rows[key]))


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
    """After so many trainings of all workers together; a bound where there was less time."""
    time = trainings / key.workers
    return Cell(medians(results.regrets(key, time), key), "<=" if time > results.had(key) else "")


def mean(cells: Sequence[Cell]) -> Cell:
    """The geometric mean over tables; a bound if all the bounds in it are on the same side."""
    signs = {cell.sign for cell in cells} - {""}
    sign = "" if not signs else signs.pop() if len(signs) == 1 else "~"
    return Cell(np.exp(np.log([cell.samples for cell in cells]).mean(0)), sign)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown, and an empty line."""
    rule = "|---|" + "--:|" * (len(head) - 1)
    return ["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows), ""]


def grid(results: Results, figure: Callable[[Key], Cell], places: Sequence[Place]) -> list[str]:
    """Markdown: a row for each optimizer, and a column for each table."""
    rows = []
    for optimizer in results.optimizers():
        keys = [Key(*place, optimizer) for place in places]
        rows.append([optimizer, *(str(figure(key)) if key in results.rows else "" for key in keys)])
    return table(["optimizer", *(name for name, _ in places)], rows)


def overall(results: Results, figures: Mapping[str, Callable[[Key], Cell]], places: Sequence[Place]) -> list[str]:
    """Markdown: the means of several figures, for the optimizers that were run everywhere."""
    rows = []
    for optimizer in results.optimizers():
        keys = [Key(*place, optimizer) for place in places]
        if all(key in results.rows for key in keys):
            runs = [run for key in keys for run in results.rows[key]]
            seeds = min(len(results.rows[key]) for key in keys)
            used_up, cpu = (np.mean([run[what] for run in runs]) for what in ("used_up", "cpu"))
            means = [str(mean([figure(key) for key in keys])) for figure in figures.values()]
            rows.append([optimizer, *means, f"{used_up:.0%}", str(seeds), f"{cpu:.2g}"])
    return table(["optimizer", *figures, "used up", "seeds", "CPU s a run"], rows)


def group(name: str) -> str:
    """Which kind of table: they are never mixed in a mean."""
    return {"half": "Half made-up curves", "synthetic": "Made-up curves"}.get(name.split("-")[0], "Recorded curves")


def section(results: Results, kind: str, after: Sequence[float], detail: bool) -> list[str]:
    """Markdown: all of one kind of tables."""
    every = sorted({Place(key.table, key.workers) for key in results.rows if key.optimizer == RANDOM})
    every = [place for place in every if group(place.table) == kind]
    sooner = {f"sooner to {target:.0%}": partial(speed, results, target) for target in TARGETS}
    sooner[f"sooner to what random search has after {after[-1]:g}"] = partial(speed_to_random, results, after[-1])
    left = {f"regret after {trainings:g}": partial(regret, results, trainings) for trainings in after}
    times = {f"trainings until within {target:.0%}": partial(time_to, results, target) for target in TARGETS}
    lines = [f"## {kind}: {', '.join(sorted({place.table for place in every}))}", ""]
    lines += ["Means over tables and numbers of workers:", "", *overall(results, sooner, every)]
    for workers in sorted({place.workers for place in every}):
        places = [place for place in every if place.workers == workers]
        lines += [f"### Workers: {workers}", "", "Means over tables:", "", *overall(results, sooner | left, places)]
        for name, figure in (times | sooner | left).items() if detail else ():
            lines += [name[0].upper() + name[1:] + ":", "", *grid(results, figure, places)]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--optimizers", nargs="+", help="in this order; default: all in the files")
    parser.add_argument("--tables", nargs="+", default=["*"], help="names or shell patterns")
    parser.add_argument("--workers", type=int, nargs="+", help="default: all in the files")
    parser.add_argument("--after", type=float, nargs="+", default=AFTER, help="trainings of all workers together")
    parser.add_argument("--limit", type=float, help="as if the runs had had no more time; as in run.py")
    parser.add_argument("--full", action="store_true", help="only values after the last step count")
    parser.add_argument("--brief", action="store_true", help="only the means over tables")
    parser.add_argument("--markdown", type=Path, help="where to write the tables too")
    options = parser.parse_args()
    results = Results.read(options.files, "full" if options.full else "reported", options.limit or np.inf)
    order = [RANDOM, *(options.optimizers or sorted({key.optimizer for key in results.rows} - {RANDOM}))]
    results = results.only(
        lambda key: (
            key.optimizer in order
            and any(fnmatch(key.table, pattern) for pattern in options.tables)
            and key.workers in (options.workers or [key.workers])
        ),
        key=lambda key: order.index(key.optimizer),
    )
    after = [trainings for trainings in options.after if trainings <= (options.limit or np.inf)]
    lines: list[str] = []
    for kind in sorted({group(key.table) for key in results.rows}, reverse=True):
        lines += section(results, kind, after, not options.brief)
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
