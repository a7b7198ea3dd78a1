"""What the examples have in common: population based training, its ablations, random search, and the pictures.

All methods begin with the same configurations and the same weights, and train as many members for as many steps.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tunesmith as ts
from tunesmith.analysis.figures import plot_curves, plot_lineage, plot_schedule
from tunesmith.analysis.schedule import schedule
from tunesmith.schedulers import PBT, Full, Perturb, Scheduler, Tournament, Truncation, TTest

METHODS = ("pbt", "weights", "hyperparameters", "random")
EXPLOIT: dict[str, Truncation | TTest | Tournament] = {
    "truncation": Truncation(),
    "t-test": TTest(),
    "tournament": Tournament(),
}


@dataclass(frozen=True)
class Problem:
    """What is trained, and how long.

    Attributes:
        name: for titles.
        task: the training code.
        space: what is tuned.
        goal: what decides.
        report: a metric that decides nothing: of a test set, say.
        population: members.
        steps: of each member.
        ready: steps between two decisions of a member.
        explore: how the hyperparameters of a copy change.
    """

    name: str
    task: Any
    space: ts.Space
    goal: ts.Goal
    report: str
    population: int
    steps: int
    ready: int
    explore: Perturb = Perturb()  # noqa: RUF009  (frozen)

    def scheduler(self, method: str = "pbt", exploit: str = "truncation") -> Scheduler[Any]:
        """Who trains when.

        Args:
            method: ``pbt`` copies weights and hyperparameters, ``weights`` and ``hyperparameters`` only the one or the
                other (section 4.4 of the paper); ``random`` copies nothing.
            exploit: whom to copy.
        """
        if method == "random":
            return Full(self.steps)
        return PBT(
            population=self.population,
            ready=self.ready,
            steps=self.steps,
            exploit=EXPLOIT[exploit],
            explore=self.explore,
            inherit="both" if method == "pbt" else method,  # type: ignore[arg-type]
            synchronous=True,
        )

    def search(self, method: str = "pbt", exploit: str = "truncation", seed: int = 0, **others: Any) -> ts.Study:
        """A study of this problem, trained to its end; ``others`` as for ``tunesmith.tune``."""
        return ts.tune(
            self.task,
            self.space,
            goals=self.goal,
            sampler=ts.samplers.QMC(),
            scheduler=self.scheduler(method, exploit),
            trials=self.population if method == "random" else None,
            seed=seed,
            **others,
        )


def parser(description: str | None, population: int, steps: int, ready: int) -> argparse.ArgumentParser:
    """The options that all examples have, with their defaults."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--method", choices=METHODS, default="pbt", help="what a copy takes over; random: no copies")
    made.add_argument("--exploit", choices=EXPLOIT, default="truncation", help="whom to copy")
    made.add_argument("--population", type=int, default=population)
    made.add_argument("--steps", type=int, default=steps)
    made.add_argument("--ready", type=int, default=ready, help="steps between two decisions")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--store", help="a file for the study; with it, a run that was stopped goes on")
    made.add_argument("--figures", type=Path, help="a folder for pictures of performance, schedule and lineage")
    return made


def run(problem: Problem, given: argparse.Namespace, **others: Any) -> ts.Study:
    """Search as the options say, print the winner and draw the pictures."""
    study = problem.search(given.method, given.exploit, given.seed, store=given.store, **others)
    best = study.best
    if best is None:
        raise SystemExit(f"{problem.name}: no trial has a value of {problem.goal.metric} yet")
    figures = f"{problem.goal.metric} {best.last(problem.goal.metric):.4g}"
    if best.last(problem.report) is not None:
        figures += f", {problem.report} {best.last(problem.report):.4g}"
    print(f"{problem.name}, {given.method}: {figures}, at the end with {best.config}")
    if given.figures:
        given.figures.mkdir(parents=True, exist_ok=True)
        plot_curves(study).savefig(given.figures / "performance.png")
        plot_schedule(schedule(study), study).savefig(given.figures / "schedule.png")
        plot_lineage(study).savefig(given.figures / "lineage.png")
    return study
