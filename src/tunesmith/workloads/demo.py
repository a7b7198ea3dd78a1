"""The demo: population based training against random search on real images, at equal population and equal steps.

Both begin with the same configurations and the same weights, and both train every member for the same number of steps.
PBT runs in synchronous generations here, so that no member skips a step by copying one that is further on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.analysis.schedule import Schedule, schedule
from tunesmith.analysis.tables import compare, population
from tunesmith.execution.tune import run as work_on
from tunesmith.records import Goal
from tunesmith.samplers import Uniform
from tunesmith.schedulers import PBT, Full
from tunesmith.study import Study
from tunesmith.tables import Row
from tunesmith.workloads import images

STEPS = {"digits": 60, "fashion-mnist": 40}
GENERATIONS = 10
GOAL, REPORT = Goal("accuracy", maximise=True), "test_accuracy"
STORE = "demo.db"
BEGINNINGS = {"pbt": "1 of 2, population based training", "random": "2 of 2, random search"}


@dataclass(frozen=True)
class DemoResult:
    """What the demo has found and left behind.

    Attributes:
        outcome: ``done``, ``interrupted`` (call again with the same arguments to go on), or ``reported`` where both
            studies were finished already and nothing was trained.
        out: the directory.
        rows: the table, one row a method; see `tunesmith.analysis.tables.Summary`. Empty after an interruption.
        schedule: of PBT's winner; None after an interruption.
        files: what was written.
    """

    outcome: Literal["done", "interrupted", "reported"]
    out: Path
    rows: list[Row] = field(default_factory=list)
    schedule: Schedule | None = None
    files: list[Path] = field(default_factory=list)

    @property
    def table(self) -> str:
        """The table in Markdown."""
        return markdown(self.rows)

    @property
    def conclusion(self) -> str:
        """What was found, and where to look next; empty after an interruption."""
        if not self.rows:
            return ""
        first, second = (f"{row['name']} came to {_percent(row['best'])}%" for row in self.rows)
        return (
            f"On the validation images {first} and {second}, each with {self.rows[0]['steps']:,} steps in all. "
            f"{self.out / 'schedule.png'} shows how the winner's hyperparameters moved, {self.out / 'lineage.png'} who "
            f"copied whom, and `tunesmith best {self.out / STORE} --name pbt` the winner."
        )


def run(
    data: str = "digits",
    data_dir: str | Path | None = None,
    out: str | Path = "demo-out",
    population: int = 16,
    steps: int | None = None,
    ready: int | None = None,
    workers: int = 2,
    seed: int = 0,
    progress: Callable[[Study], object] | bool | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> DemoResult:
    """Train both, compare them, and write table, schedule, pictures and the study file to a directory.

    A directory in which the demo was interrupted is gone on with; one in which it is finished is reported again.

    Args:
        data: ``digits`` or ``fashion-mnist``.
        data_dir: where the idx files of Fashion-MNIST lie; see `tunesmith.workloads.images.load`.
        out: directory to write to; made where it is missing.
        population: members of PBT, and trials of random search.
        steps: steps of each; by default 60 for the digits, 40 for Fashion-MNIST.
        ready: steps between two decisions of PBT; by default a tenth of ``steps``.
        workers: jobs at once.
        seed: all randomness follows from it.
        progress: as in `tunesmith.tune`.
        say: called with a line that says what happens next.

    Raises:
        ValueError, FileNotFoundError: the data is not there; see `tunesmith.workloads.images.load`.
        StudyError: the directory holds a demo with other arguments.
    """
    images.load(data, data_dir)  # says now what is missing
    say("loading PyTorch...")
    steps = STEPS[data] if steps is None else steps
    ready = max(1, steps // GENERATIONS) if ready is None else ready
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    directory = None if data_dir is None else str(Path(data_dir).absolute())
    studies = open_studies(data, population, steps, ready, seed, out / STORE)
    try:
        if all(_finished(study, population, steps) for study in studies.values()):
            return _report("reported", out, studies)
        for name, study in studies.items():
            say(f"{BEGINNINGS[name]}: {population} networks, {steps} steps each, on {data}")
            if workers > 1:
                say(f"starting {workers} workers, which load PyTorch and the images before their first step...")
            if train(study, directory, workers, progress) == "interrupted":
                return DemoResult("interrupted", out, files=[out / STORE])
        say("drawing the pictures")
        return _report("done", out, studies)
    finally:
        for study in studies.values():
            study.close()


def open_studies(
    data: str, population: int, steps: int, ready: int, seed: int, store: Path | None = None
) -> dict[str, Study]:
    """The two studies: ``pbt`` and ``random``, with one space, one seed and the same number of steps."""
    from tunesmith.workloads import mlp

    pbt = PBT(population=population, ready=ready, steps=steps, synchronous=True)
    space, drawn = mlp.space(data), Uniform()
    random = Full(steps)
    return {
        "pbt": Study(space, GOAL, drawn, pbt, store=store, name="pbt", seed=seed),
        "random": Study(space, GOAL, drawn, random, store=store, name="random", seed=seed, trials=population),
    }


def train(
    study: Study,
    data_dir: str | None = None,
    workers: int = 1,
    progress: Callable[[Study], object] | bool | None = None,
) -> str:
    """Work on one of the studies until it is done or interrupted."""
    from tunesmith.workloads import mlp

    return work_on(study, mlp.ImageMLP(data_dir), workers=workers, progress=progress)


def _finished(study: Study, members: int, steps: int) -> bool:
    last = population(study)
    return len(last) >= members and all(trial.step >= steps or trial.status == "failed" for trial in last)


def _report(outcome: Literal["done", "reported"], out: Path, studies: Mapping[str, Study]) -> DemoResult:
    from tunesmith.analysis import figures

    named = {"PBT": studies["pbt"], "random search": studies["random"]}
    rows = compare(named, REPORT)
    found = schedule(studies["pbt"])
    texts = {
        "table.md": markdown(rows) + "\n",
        "table.json": json.dumps(rows, indent=2) + "\n",
        "schedule.json": found.to_json() + "\n",
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    pictures = {
        "schedule.png": figures.plot_schedule(found, studies["pbt"]),
        "lineage.png": figures.plot_lineage(studies["pbt"]),
        "curves.png": figures.plot_curves(named),
    }
    for name, figure in pictures.items():
        figure.savefig(out / name)
    return DemoResult(outcome, out, rows, found, [out / name for name in (*texts, *pictures, STORE)])


def markdown(rows: list[Row]) -> str:
    """The rows of `compare` as a table for people: accuracies in percent."""
    lines = [
        "| method | members | steps in all | best, validation | the same on test | median, test (quartiles) |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        median, low, high = (_percent(row[name]) for name in ("report_median", "report_low", "report_high"))
        cells = [row["name"], row["members"], row["steps"], _percent(row["best"]), _percent(row["report"])]
        lines.append(f"| {' | '.join(map(str, cells))} | {median} ({low} to {high}) |")
    lines.append(
        "\nAccuracy in percent. Validation images decide everything, test images nothing. One run says little about\n"
        "the difference of two methods: `benchmarks/pbt_vs_random.py` repeats it over seeds."
    )
    return "\n".join(lines)


def _percent(value: Any) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
