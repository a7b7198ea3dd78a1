"""Train a workload with every optimizer, each in a space of its own and with as many trials as all others.

The protocol is that of Choi et al. 2019: quasi-random search, a study an optimizer, trials that diverge are failures,
the best one by the last validation value is the one that is reported. All studies stand in one store, under the names
of the optimizers, and go on where they stood.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from tunesmith import check
from tunesmith.comparison.outcomes import Outcome, Outcomes
from tunesmith.comparison.spaces import Edge, edges, hyperparameters, search_space, widened
from tunesmith.errors import TunesmithError
from tunesmith.execution.base import ExecutionError
from tunesmith.execution.tune import run
from tunesmith.optimizers import RULES, OptimizerError
from tunesmith.optimizers.adapters import torch_optimizer
from tunesmith.records import Goal
from tunesmith.samplers import QMC
from tunesmith.schedulers import Full
from tunesmith.study import Study

MakeOptimizer = Callable[[Any], Any]
"""Makes an optimizer of PyTorch of the parameters of a model, as ``torch.optim`` does."""


class Workload(Protocol):
    """What optimizers are compared on.

    ``train`` is a generator: it makes a model and an optimizer, ``make_optimizer(model.parameters())``, trains, and
    yields metrics after every epoch: ``validation``, by which trials are compared, and any others, such as ``test``.
    All are losses or errors: smaller is better. All randomness follows from ``seed``.
    """

    epochs: int

    def train(self, make_optimizer: MakeOptimizer, seed: int) -> Iterator[Mapping[str, float]]:
        """One training."""
        ...


class ComparisonError(TunesmithError):
    """A comparison can't be made: the message says what is wrong with the workload or the optimizers."""


def compare(
    workload: Workload,
    optimizers: Sequence[str],
    *,
    trials: int = 50,
    store: str | os.PathLike[str] | None = None,
    workers: int = 1,
    seed: int = 0,
    target: float | None = None,
    refine: int = 0,
    progress: Callable[[Study], object] | bool | None = None,
) -> tuple[Outcomes, dict[str, list[Edge]]]:
    """Tune every optimizer on a workload.

    Args:
        workload: an object, or a class that is called without arguments. With several workers it must stand at the top
            level of a file.
        optimizers: names in ``RULES``.
        trials: of each.
        store: the file of the studies; those that are there go on. By default they are in memory.
        workers: processes that train side by side.
        seed: of the searches; all have the same one.
        target: a validation value: the outcomes have the epochs to it as ``steps``.
        refine: where the best trials of an optimizer lie near an end of a range, that is widened, and as many trials
            are made in the new space, at most so often; only those of the last space are reported.
        progress: as of ``tune``.

    Returns:
        The outcomes, with the measures ``final`` and ``best`` (validation), ``final.<metric>`` of the others, and
        ``steps`` where there is a target; and by optimizer the ends of ranges near which its best trials lie.

    Raises:
        ComparisonError: the workload has no ``train`` or ``epochs``, or all trials of all optimizers have diverged.
        OptimizerError: there is no optimizer of a name.
        ExecutionError: as ``tune``: all trials of an optimizer have failed, and not all of them have diverged.
    """
    check.whole("compare", 1, trials=trials)
    check.whole("compare", 0, refine=refine)
    found = checked(workload)
    if not optimizers:
        raise OptimizerError(f"name the optimizers to compare; there are {', '.join(RULES)}")
    spaces = {name: search_space(name, trials) for name in dict.fromkeys(optimizers)}
    rows: list[Outcome] = []
    near: dict[str, list[Edge]] = {}
    for name, space in spaces.items():
        for number in range(refine + 1):
            label = name if number == 0 else f"{name} {number + 1}"
            with Study(
                space, Goal("validation"), QMC(), Full(found.epochs), store, name=label, seed=seed, trials=trials
            ) as study:
                _tune(study, partial(trained, found, name), trials, workers, progress)
                last = outcomes_of(study, name, target)
                near[name] = edges(space, [trial.config for trial in study.trials], _losses(study))
            space = widened(space, near[name])
            if not near[name]:
                break
        rows += last
    if all(row.failed for row in rows):
        raise ComparisonError(f"all trials of {', '.join(spaces)} have diverged: is the loss one that can fall?")
    return Outcomes(rows), near


def _tune(study: Study, train: Any, trials: int, workers: int, progress: Any) -> None:
    """Make the trials of a study. That all of them diverge is an outcome, too."""
    try:
        run(study, train, workers=workers, progress=progress, max_failures=trials + 1)
    except ExecutionError:
        if any(trial.kind != "non-finite" for trial in study.trials) or not study.trials:
            raise


def checked(workload: Any) -> Workload:
    """The workload, made if a class was given.

    Raises:
        ComparisonError: it has no ``train`` or no ``epochs``.
    """
    made = workload() if isinstance(workload, type) else workload
    train = getattr(made, "train", None)
    if not callable(train) or not inspect.isgeneratorfunction(train):
        raise ComparisonError(f"{workload!r} needs a generator train(self, make_optimizer, seed) that yields metrics")
    epochs = getattr(made, "epochs", None)
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ComparisonError(f"{workload!r} needs epochs, how many it trains: a whole number, not {epochs!r}")
    return made  # type: ignore[no-any-return]


def trained(workload: Workload, optimizer: str, config: Mapping[str, Any], seed: int) -> Iterator[Mapping[str, float]]:
    """One training of a workload, as a study has it."""
    make = partial(torch_optimizer, RULES[optimizer], **hyperparameters(config))
    for metrics in workload.train(make, seed):
        if "validation" not in metrics:
            raise ComparisonError(f"train must yield 'validation', by which trials are compared, not {sorted(metrics)}")
        yield metrics


def outcomes_of(study: Study, optimizer: str, target: float | None = None) -> list[Outcome]:
    """A row for every trial of a study that has come to its end.

    Args:
        study: of one optimizer.
        optimizer: its label.
        target: see ``compare``.
    """
    rows = []
    others = dict.fromkeys(name for trial in study.trials for name in trial.metrics if name != "validation")
    for trial in study.trials:
        if trial.status not in ("complete", "failed"):
            continue
        if trial.status == "failed":
            rows.append(Outcome(optimizer, trial.id, {}, failed=True))
            continue
        steps, values = trial.values("validation")
        measures = {"final": values[-1], "best": min(values)}
        measures |= {f"final.{name}": value for name in others if (value := trial.last(name)) is not None}
        if target is not None:
            reached = [step for step, value in zip(steps, values, strict=True) if value <= target]
            measures["steps"] = float(reached[0]) if reached else np.inf
        rows.append(Outcome(optimizer, trial.id, measures))
    return rows


def _losses(study: Study) -> list[float]:
    found = [None if trial.status == "failed" else trial.last("validation") for trial in study.trials]
    return [np.inf if value is None else value for value in found]
