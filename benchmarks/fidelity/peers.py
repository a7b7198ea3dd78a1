"""One face for all optimizers that decide on parts of a training.

A peer is asked for as many jobs as there are free workers, and a job is "advance this trial from ``start`` to
``until``". It is told every value at the moment when its step is done (or, where it doesn't look in between, all at the
end of the job), and may say that the job ends there. A package is imported when an optimizer of it is made.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from tables import Table

from tunesmith.space import Categorical, Config, Ordinal

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.quality.peers import Leaf, configuration, leaves
from benchmarks.quality.peers import Smac as QualitySmac


@dataclass
class Job:
    """What a worker does.

    Attributes:
        config: of the trial.
        start: the trial's steps so far.
        until: the last step, unless the peer says earlier that it is enough.
        own: what the peer needs to know it again.
    """

    config: Config
    start: int
    until: int
    own: Any


class Peer:
    """An optimizer at work on a table with so many workers."""

    stepwise = True  #: whether it is told after every step

    def __init__(self, table: Table, seed: int, workers: int) -> None:
        self.table, self.seed, self.workers = table, seed, workers
        self.space, self.tree = table.space, leaves(table.space)

    def ask(self, n: int) -> list[Job]:
        """Jobs for n free workers; fewer where some have to wait."""
        raise NotImplementedError

    def tell(self, job: Job, step: int, values: Sequence[float], seconds: float) -> bool:
        """The latest values of a job, the last one that of ``step``; whether it goes on (if it is not at its end)."""
        raise NotImplementedError


class Tunesmith(Peer):
    """A sampler and a scheduler of ours, such as ``TPE()+ASHA(R)``; R is the number of steps of the table."""

    stepwise = False

    def __init__(self, spec: str, *arguments: Any) -> None:
        import tunesmith

        super().__init__(*arguments)
        names = {"R": self.table.steps}
        for module in (tunesmith.samplers, tunesmith.schedulers):
            names |= {name: getattr(module, name) for name in module.__all__ if name in spec}
        sampler, scheduler = (eval(part, {"__builtins__": {}}, names) for part in spec.split("+"))
        self.study = tunesmith.Study(
            self.table.space, [tunesmith.Goal("loss")], sampler=sampler, scheduler=scheduler, seed=self.seed
        )

    def ask(self, n: int) -> list[Job]:
        return [Job(job.config, job.start, job.until, job) for job in self.study.ask(n)]

    def tell(self, job: Job, step: int, values: Sequence[float], seconds: float) -> bool:
        self.study.tell(job.own, {"loss": list(values)}, step=step, seconds=seconds)
        return True


# -- Optuna ---------------------------------------------------------------------------------------------------------


class Optuna(Peer):
    """Pruners: a trial goes on until one says no, and can't be resumed. Values in an order are their positions."""

    def __init__(self, make: Callable[[Any, Optuna], tuple[Any, Any]], *arguments: Any) -> None:
        import optuna

        super().__init__(*arguments)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore")
        sampler, pruner = make(optuna, self)
        self.pruned = optuna.trial.TrialState.PRUNED
        # Hyperband draws a trial's bracket from the study's name
        self.study = optuna.create_study(study_name=str(self.seed), sampler=sampler, pruner=pruner)

    def ask(self, n: int) -> list[Job]:
        return [self._job(self.study.ask()) for _ in range(n)]

    def _job(self, trial: Any) -> Job:
        config = configuration(self.tree, lambda leaf: self._suggest(trial, leaf))
        return Job(config, 0, self.table.steps, trial)

    def _suggest(self, trial: Any, leaf: Leaf) -> Any:
        if isinstance(leaf.domain, Categorical):
            return trial.suggest_categorical(leaf.key, list(leaf.domain.options))
        return leaf.domain.values[trial.suggest_int(leaf.key, 0, len(leaf.domain.values) - 1)]

    def tell(self, job: Job, step: int, values: Sequence[float], seconds: float) -> bool:
        job.own.report(values[-1], step)
        if step == job.until:
            self.study.tell(job.own, values[-1])
        elif job.own.should_prune():
            self.study.tell(job.own, state=self.pruned)
            return False
        return True


def _optuna(sampler: str, pruner: str, optuna: Any, peer: Optuna) -> tuple[Any, Any]:
    """Defaults, but for: the range of steps, and that several workers shall not propose the same."""
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=peer.seed, constant_liar=peer.workers > 1),
        "random": lambda: optuna.samplers.RandomSampler(seed=peer.seed),
    }
    pruners = {
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=peer.table.steps),
        "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        "median": optuna.pruners.MedianPruner,
    }
    return samplers[sampler](), pruners[pruner]()


# -- Syne Tune ------------------------------------------------------------------------------------------------------


class Syne(Peer):
    """Schedulers, called as its tuner calls them. They have no conditions: all parameters are always there."""

    def __init__(self, make: Callable[[dict[str, Any], Syne], Any], *arguments: Any) -> None:
        from syne_tune import config_space
        from syne_tune.backend.trial_status import Trial
        from syne_tune.optimizer.scheduler import SchedulerDecision

        super().__init__(*arguments)
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        np.random.seed(self.seed)  # some of its randomness is global
        self.decisions, self.trial = SchedulerDecision, Trial
        space = {
            leaf.key: config_space.choice([str(option) for option in leaf.domain.options])
            if isinstance(leaf.domain, Categorical)
            else config_space.randint(0, len(leaf.domain.values) - 1)
            for leaf in self.tree
        }
        self.scheduler = make(space, self)
        self.old = bool(signature(self.scheduler.suggest).parameters)
        self.trials: list[Any] = []
        self.steps: dict[int, int] = {}

    def ask(self, n: int) -> list[Job]:
        jobs = []
        for _ in range(n):
            suggestion = self.scheduler.suggest(len(self.trials)) if self.old else self.scheduler.suggest()
            if suggestion is None:
                break
            jobs.append(self._job(suggestion))
        return jobs

    def _job(self, suggestion: Any) -> Job:
        if suggestion.spawn_new_trial_id:
            trial = self.trial(len(self.trials), suggestion.config, datetime.now())
            self.trials.append(trial)
            self.scheduler.on_trial_add(trial)
        else:
            trial = self.trials[suggestion.checkpoint_trial_id]
        config = configuration(self.tree, lambda leaf: self._value(leaf.domain, trial.config[leaf.key]))
        return Job(config, self.steps.get(trial.trial_id, 0), self.table.steps, trial)

    def _value(self, domain: Any, found: Any) -> Any:
        if isinstance(domain, Ordinal):
            return domain.values[int(found)]
        return {str(option): option for option in domain.options}[found]

    def tell(self, job: Job, step: int, values: Sequence[float], seconds: float) -> bool:
        trial, result = job.own, {"loss": values[-1], "step": step}
        self.steps[trial.trial_id] = step
        decision = self.scheduler.on_trial_result(trial, result)
        if decision != self.decisions.CONTINUE:
            self.scheduler.on_trial_remove(trial)
            return False
        if step == job.until:
            self.scheduler.on_trial_complete(trial, result)
        return True


def _syne(name: str, space: dict[str, Any], peer: Syne) -> Any:
    """Of the present interface: ASHA, which only stops, with one bracket; defaults."""
    from syne_tune.optimizer import baselines

    return getattr(baselines, name)(space, "loss", time_attr="step", max_t=peer.table.steps, random_seed=peer.seed)


def _syne_old(name: str, options: dict[str, Any], space: dict[str, Any], peer: Syne) -> Any:
    """Of the interface up to 0.14.2, which has the variants that pause and resume, and MOBSTER."""
    from syne_tune.optimizer import legacy_baselines

    np.NAN = np.nan  # of numpy 1, which it asks for; with this name it runs with numpy 2
    given = {"mode": "min", "random_seed": peer.seed, "search_options": {"debug_log": False}} | options
    given["max_resource_level" if name.startswith("Sync") else "max_t"] = peer.table.steps
    return getattr(legacy_baselines, name)(space, "loss", resource_attr="step", **given)


# -- SMAC -----------------------------------------------------------------------------------------------------------


class Smac(Peer):
    """The multi-fidelity facade: Hyperband and a random forest. What it asks for anew goes on from where it stands."""

    stepwise = False
    _space, _parameter = QualitySmac._space, QualitySmac._parameter

    def __init__(self, *arguments: Any) -> None:
        import ConfigSpace
        from smac import MultiFidelityFacade, Scenario
        from smac.main.exceptions import ConfigurationSpaceExhaustedException
        from smac.runhistory import TrialValue

        super().__init__(*arguments)
        warnings.simplefilter("ignore")
        self.base, self.value = ConfigSpace, TrialValue
        self.used_up = StopIteration, ConfigurationSpaceExhaustedException
        self.folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            self._space(), deterministic=True, n_trials=100_000, seed=self.seed, output_directory=self.folder.name,
            min_budget=1, max_budget=self.table.steps,
        )  # fmt: skip
        selector = MultiFidelityFacade.get_config_selector(scenario, retries=200)  # by default it gives up after 16
        self.smac = MultiFidelityFacade(
            scenario, lambda config, seed, budget: 0.0, config_selector=selector, logging_level=False
        )
        logging.getLogger("smac").setLevel(logging.ERROR)
        self.steps: dict[Any, int] = {}

    def ask(self, n: int) -> list[Job]:
        jobs = []
        for _ in range(n):
            try:
                info = self.smac.ask()
            except self.used_up:
                break
            config = configuration(self.tree, partial(self._value, dict(info.config)))
            jobs.append(Job(config, self.steps.get(info.config, 0), round(info.budget), info))
        return jobs

    def _value(self, found: dict[str, Any], leaf: Leaf) -> Any:
        value = found[leaf.key]
        return value.item() if isinstance(value, np.generic) else value

    def tell(self, job: Job, step: int, values: Sequence[float], seconds: float) -> bool:
        self.steps[job.own.config] = step
        self.smac.tell(job.own, self.value(cost=values[-1], time=seconds), save=False)
        return True


# -- by name --------------------------------------------------------------------------------------------------------

OTHERS: dict[str, Callable[..., Peer]] = {
    f"optuna-{sampler}-{pruner}": partial(Optuna, partial(_optuna, sampler, pruner))
    for sampler in ("tpe", "random")
    for pruner in ("hyperband", "halving", "median")
}
OTHERS |= {
    "syne-asha": partial(Syne, partial(_syne, "ASHA")),
    "syne-bohb": partial(Syne, partial(_syne, "BOHB")),
    "syne-asha-promotion": partial(Syne, partial(_syne_old, "ASHA", {"type": "promotion"})),
    "syne-bohb-promotion": partial(Syne, partial(_syne_old, "BOHB", {"type": "promotion"})),
    "syne-mobster-promotion": partial(Syne, partial(_syne_old, "MOBSTER", {"type": "promotion"})),
    "syne-hyperband-synchronous": partial(Syne, partial(_syne_old, "SyncHyperband", {})),
    "smac-hyperband": Smac,
}


def make(name: str, *arguments: Any) -> Peer:
    """The optimizer of this name: ``random``, one of the others, or ``tunesmith:`` with a sampler and a scheduler.

    ``label=tunesmith:...`` gives it another name in the results. The arguments are those of `Peer`.
    ImportError where its package is missing.
    """
    spec = name.split("=", 1)[1] if "=tunesmith:" in name else name
    if spec == "random":
        spec = "tunesmith:Uniform()+Full(R)"
    if spec.startswith("tunesmith:"):
        return Tunesmith(spec.removeprefix("tunesmith:"), *arguments)
    if spec in OTHERS:
        return OTHERS[spec](*arguments)
    raise SystemExit(f"no optimizer is called {name!r}; there are tunesmith:..., {', '.join(['random', *OTHERS])}")
