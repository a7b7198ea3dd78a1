"""PBT, its ablations and random search on the examples: games, translation, images that are made up.

    python benchmarks/pbt_domains.py reinforcement_learning --seeds 10 --out rl.jsonl
    python benchmarks/pbt_domains.py translation --seeds 10 --retrain 3 --out mt.jsonl -- --data multi30k
    python benchmarks/pbt_domains.py --table rl.jsonl mt.jsonl

The first is the name of a script in ``examples/``; what follows ``--`` are options of its own. A row is written for
every study, so that what was stopped goes on where it was (and several processes may write rows of different seeds to
files of their own). All methods have, for a seed, the same first generation and train as many members for as many
steps. The goal selects the best member; ``report`` is what it is worth by a metric that has decided nothing.
``--retrain 3`` is the schedule test: the schedule that PBT found, and its last values held constant, each train three
networks from scratch.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith import Study, replay
from tunesmith.analysis.figures import plot_lineage, plot_schedule
from tunesmith.analysis.lineage import lineage
from tunesmith.analysis.schedule import schedule
from tunesmith.analysis.tables import difference, population, summary
from tunesmith.execution.retrain import retrain
from tunesmith.execution.stacks import StackedTask

EXAMPLES = Path(__file__).parent.parent / "examples"
Row = dict[str, Any]


# -- studies -----------------------------------------------------------------------------------------------------------


def leader(study: Study, steps: int) -> list[float | None]:
    """The best value of the goal at every step."""
    goal = study.goals[0]
    found: dict[int, list[float]] = defaultdict(list)
    for trial in study.trials:
        for step, value in zip(*trial.values(goal.metric), strict=True):
            found[step].append(value)
    return [min(found[step], key=goal.loss) if step in found else None for step in range(1, steps + 1)]


def play(problem: Any, method: str, exploit: str, seed: int, again: int, figures: Path | None, **others: Any) -> Row:
    """One study, and its schedule test."""
    begun = time.perf_counter()
    study = problem.search(method, exploit, seed, progress=False, **others)
    seconds = time.perf_counter() - begun  # the first study compiles
    assert replay(study) == [], "the log does not give the same decisions again"
    found = summary(method, study, problem.report)
    assert found.steps == problem.population * problem.steps or found.failed, "the budgets are not equal"
    winner = schedule(study)
    row = {
        "problem": problem.name, "method": method, "exploit": exploit,
        "population": problem.population, "steps": problem.steps, "ready": problem.ready, "seed": seed,
        "best": found.best, "report": found.report, "median": found.report_median, "failed": found.failed,
        "curve": leader(study, problem.steps), "seconds": seconds,
        "schedule": [[segment.start, segment.config] for segment in winner.segments],
        "survivors": len({lineage(study).ancestors(member.id)[0].id for member in population(study)}),
    }  # fmt: skip
    if again and method == "pbt" and len(winner.segments) > 1:
        seeds = [1_000_000 + again * seed + number for number in range(again)]
        trained = retrain(problem.task, winner, problem.steps, metric=problem.goal.metric, seeds=seeds)
        row["retrained"] = trained.pairs(problem.report)
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        name = f"{problem.name}-{method}-{seed}".replace("/", "-")
        plot_schedule(winner, study).savefig(figures / f"{name}-schedule.png", dpi=80)
        plot_lineage(study).savefig(figures / f"{name}-lineage.png", dpi=80)
    return row


def key(row: Row) -> tuple[Any, ...]:
    """What makes a study."""
    return tuple(row[name] for name in ("problem", "method", "exploit", "population", "steps", "ready", "seed"))


def rows(path: Path) -> list[Row]:
    """What was written so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def train(given: argparse.Namespace, rest: list[str]) -> None:
    """All studies that are not there yet; the seeds one after the other, each with all methods."""
    sys.path.insert(0, str(EXAMPLES))
    example = importlib.import_module(given.example)
    done = {key(row) for path in (given.out, *given.known) for row in rows(path)}
    sizes = [["--population", str(size)] for size in given.populations] or [[]]
    problems = [example.problem(example.arguments().parse_args([*rest, *size])) for size in sizes]
    for problem in problems:
        if isinstance(problem.task, StackedTask):
            problem.task.chunk = problem.population  # all together: nothing is timed
    for seed in range(given.first, given.first + given.seeds):
        for problem in problems:
            for method in given.methods:
                for exploit in given.exploits if method != "random" else [""]:
                    this = (problem.name, method, exploit, problem.population, problem.steps, problem.ready, seed)
                    if this in done:
                        continue
                    figures = given.figures if seed == 0 else None
                    row = play(problem, method, exploit, seed, given.retrain, figures, workers=given.workers)
                    with given.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(*this, f"{row['best']:.4g} {row['report']:.4g} {row['seconds']:.0f} s", flush=True)


# -- what came out -----------------------------------------------------------------------------------------------------


def grouped(every: Iterable[Row]) -> dict[tuple[Any, ...], dict[int, Row]]:
    """Rows by everything but the seed, then by seed."""
    found: dict[tuple[Any, ...], dict[int, Row]] = defaultdict(dict)
    for row in sorted(every, key=key):
        found[key(row)[:-1]][row["seed"]] = row
    return found


def interval(a: list[float], b: list[float]) -> str:
    """The mean of the paired differences, with its 95% interval."""
    if len(a) < 2:
        return ""
    gap = difference(a, b)
    return f"{gap.mean:+.3g} [{gap.low:+.3g}, {gap.high:+.3g}]"


def table(every: list[Row]) -> Iterator[str]:
    """Lines of Markdown."""
    groups = grouped(every)
    names = "problem, method, exploit, members, seeds, report, against random, better, median of members, survivors"
    yield f"| {names.replace(', ', ' | ')} |"
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for (problem, method, exploit, size, steps, ready), mine in groups.items():
        other = groups.get((problem, "random", "", size, steps, ready), {})
        both = sorted(mine.keys() & other.keys()) if method != "random" else []
        a, b = ([group[seed]["report"] for seed in both] for group in (mine, other))
        mean, median, left = (
            np.mean([row[name] for row in mine.values()]) for name in ("report", "median", "survivors")
        )
        better = f"{sum(x > y for x, y in zip(a, b, strict=True))} of {len(both)}" if both else ""
        cells = [problem, method, exploit, size, len(mine), f"{mean:.4g}", interval(a, b), better]
        yield "| " + " | ".join(map(str, cells)) + f" | {median:.4g} | {left:.2g} |"
    yield ""
    yield "| problem | method | schedules | the schedule | its last values | difference |"
    yield "|---|---|--:|--:|--:|--:|"
    for (problem, method, *_), mine in groups.items():
        again = [row["retrained"] for row in mine.values() if row.get("retrained")]
        if again:
            a, b = ([float(np.mean(pair[side])) for pair in again] for side in (0, 1))
            yield f"| {problem} | {method} | {len(a)} | {np.mean(a):.4g} | {np.mean(b):.4g} | {interval(a, b)} |"


COLOURS = {"pbt": "C1", "weights": "C3", "hyperparameters": "C0", "random": "C2"}


def panels(count: int) -> tuple[Any, list[Any]]:
    """A figure with so many panels, three in a row."""
    from matplotlib.figure import Figure

    lines = -(-count // 3)
    figure = Figure(figsize=(10, 0.4 + 2.8 * lines), layout="constrained")
    every = list(figure.subplots(lines, min(count, 3), squeeze=False).flat)
    for axes in every[count:]:
        axes.remove()
    return figure, every[:count]


def draw_curves(every: list[Row], path: Path) -> None:
    """A panel a problem: at every step the best value of the goal, mean and quartiles over the seeds.

    Of several sizes of the population the one with the most studies is drawn.
    """
    sizes = {row["problem"]: Counter[int]() for row in every}
    for row in every:
        sizes[row["problem"]][row["population"]] += 1
    figure, found = panels(len(sizes))
    for axes, (problem, counts) in zip(found, sizes.items(), strict=True):
        [(size, _)] = counts.most_common(1)
        for (name, method, exploit, members, *_), mine in grouped(every).items():
            if (name, members) != (problem, size) or exploit not in ("", "truncation"):
                continue
            curves = np.array([row["curve"] for row in mine.values()], dtype=float)
            steps, (low, high) = np.arange(1, curves.shape[1] + 1), np.nanquantile(curves, [0.25, 0.75], axis=0)
            axes.plot(steps, np.nanmean(curves, axis=0), color=COLOURS[method], label=f"{method} ({len(mine)} seeds)")
            axes.fill_between(steps, low, high, color=COLOURS[method], alpha=0.2, lw=0)
        axes.set_title(f"{problem}, {size} members", fontsize="medium")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="x-small")
    figure.savefig(path, dpi=80)


def draw_schedules(every: list[Row], problem: str, path: Path) -> None:
    """A panel a hyperparameter: what PBT's winners were trained with, of all seeds."""
    mine = [row for row in every if (row["problem"], row["method"], row["exploit"]) == (problem, "pbt", "truncation")]
    size = Counter(row["population"] for row in mine).most_common(1)[0][0]
    mine = [row for row in mine if row["population"] == size]
    figure, found = panels(len(mine[0]["schedule"][0][1]))
    for axes, name in zip(found, mine[0]["schedule"][0][1], strict=True):
        for row in mine:
            starts, values = zip(*((start, config[name]) for start, config in row["schedule"]), strict=True)
            axes.step([*starts, row["steps"]], [*values, values[-1]], where="post", lw=1, alpha=0.7)
        axes.set(title=name, xlabel="step", yscale="log")
        axes.grid(alpha=0.3)
    figure.suptitle(f"{problem}: schedules of {len(mine)} winners")
    figure.savefig(path, dpi=80)


def main() -> None:
    own, rest = sys.argv[1:], []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scripts = [path.stem for path in sorted(EXAMPLES.glob("*.py")) if "def problem(" in path.read_text("utf-8")]
    parser.add_argument("example", nargs="?", choices=scripts, help="a script of examples/")
    parser.add_argument("--methods", nargs="+", default=["pbt", "weights", "hyperparameters", "random"])
    parser.add_argument("--exploits", nargs="+", default=["truncation"])
    parser.add_argument("--populations", type=int, nargs="+", default=[], help="by default the example's")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=1, help="processes, for an example that is not one program")
    parser.add_argument("--retrain", type=int, default=0, help="trainings a schedule, for the schedule test")
    parser.add_argument("--out", type=Path, default=Path("domains.jsonl"), help="a row a study")
    parser.add_argument("--known", type=Path, nargs="*", default=[], help="files with studies that are done already")
    parser.add_argument("--figures", type=Path, help="a folder for schedules and lineages of seed 0")
    parser.add_argument("--table", type=Path, nargs="+", help="train nothing, print what these files hold")
    parser.add_argument("--curves", type=Path, help="with --table: a picture of all curves")
    parser.add_argument("--schedules", nargs=2, help="with --table: a problem, and a picture of all its schedules")
    given = parser.parse_args(own)
    if given.table:
        every = [row for path in given.table for row in rows(path)]
        print("\n".join(table(every)))
        if given.curves:
            draw_curves(every, given.curves)
        if given.schedules:
            draw_schedules(every, given.schedules[0], Path(given.schedules[1]))
    elif given.example:
        train(given, rest)
    else:
        parser.error("which example, or --table with which files?")


if __name__ == "__main__":
    main()
