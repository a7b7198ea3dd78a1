"""One face for all optimizers: ``ask() -> config`` and ``tell(config, loss)``, where the loss is None for a failure.

A package is imported when an optimizer of it is made. Peers see a space as a list of `Leaf`; those without conditional
parameters get all leaves, always active, and what is inactive in their proposal is dropped.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.space import Categorical, Config, Constant, Domain, Float, Forbid, Integer, LessThan, Ordinal, Space

# -- spaces as peers see them ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaf:
    """A parameter. ``key`` is its own alone; it is active where the leaf ``parent`` has one of the ``options``."""

    key: str
    name: str
    domain: Any
    parent: str | None = None
    options: tuple[Any, ...] = ()


def leaves(space: Mapping[str, Domain], parent: Leaf | None = None) -> list[Leaf]:
    """All parameters, parents first. One that several options of a parent have in common is one leaf."""
    found = []
    for name, domain in space.items():
        leaf = Leaf(name, name, domain) if parent is None else Leaf(f"{parent.key}/{name}", name, domain, parent.key)
        found += _below(leaf)
    return found


def _below(leaf: Leaf) -> list[Leaf]:
    """A leaf and all that depends on it."""
    found, children = [leaf], {}
    if isinstance(leaf.domain, Categorical):
        for option, branch in zip(leaf.domain.options, leaf.domain.branches, strict=True):
            for name, domain in (branch or {}).items():
                children.setdefault((name, repr(domain)), (domain, []))[1].append(option)
    several = [name for name, _ in children]
    for (name, _), (domain, options) in children.items():
        key = f"{leaf.key}/{name}" + (f"@{options[0]}" if several.count(name) > 1 else "")
        found += _below(Leaf(key, name, domain, leaf.key, tuple(options)))
    return found


def active(leaf: Leaf, values: Mapping[str, Any]) -> bool:
    return leaf.parent is None or (leaf.parent in values and values[leaf.parent] in leaf.options)


def configuration(tree: list[Leaf], value: Callable[[Leaf], Any]) -> Config:
    """The configuration in which the active leaves have these values."""
    values: dict[str, Any] = {}
    config: Config = {}
    for leaf in tree:
        if active(leaf, values):
            chosen = leaf.domain.value if isinstance(leaf.domain, Constant) else value(leaf)
            values[leaf.key] = config[leaf.name] = chosen
    return config


def numeric(domain: Ordinal) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in domain.values)


class Peer:
    """An optimizer at work on a space. ``evaluations`` is how many there will be."""

    def __init__(self, space: Space, seed: int, evaluations: int) -> None:
        self.space, self.seed, self.evaluations = space, seed, evaluations
        self.tree = leaves(space)
        self.worst: float | None = None

    def ask(self) -> Config | None:
        """The next configuration, or None where there is nothing left."""
        raise NotImplementedError

    def tell(self, loss: float | None) -> None:
        """The result of what was asked last."""
        if loss is not None:
            self.worst = loss if self.worst is None else max(self.worst, loss)
        self.note(loss)

    def reject(self) -> None:
        """What was asked last breaks a hard constraint: to be told as bad as the worst so far."""
        self.note(self.worst)

    def note(self, loss: float | None) -> None:
        raise NotImplementedError


# -- tunesmith and random search ------------------------------------------------------------------------------------


class Random(Peer):
    """Uniform in the unit cube, among the configurations that the hard constraints allow."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rng = np.random.default_rng(self.seed)

    def ask(self) -> Config:
        return self.space.sample(self.rng)

    def note(self, loss: float | None) -> None:
        pass


class Tunesmith(Peer):
    """A study with a sampler of ours, such as ``TPE()``."""

    def __init__(self, sampler: str, *arguments: Any) -> None:
        import tunesmith

        super().__init__(*arguments)
        names = {name: getattr(tunesmith.samplers, name) for name in tunesmith.samplers.__all__ if name in sampler}
        made = eval(sampler, {"__builtins__": {}}, names)
        self.study = tunesmith.Study(
            self.space, [tunesmith.Goal("loss")], sampler=made, trials=self.evaluations, seed=self.seed
        )

    def ask(self) -> Config | None:
        self.job = self.study.ask()
        return self.job and self.job.config

    def note(self, loss: float | None) -> None:
        if loss is None:
            self.study.fail(self.job, "failed")
        else:
            self.study.tell(self.job, {"loss": loss})


# -- Optuna ---------------------------------------------------------------------------------------------------------


class Optuna(Peer):
    """Define by run; listed values in an order are integers, their positions."""

    def __init__(self, sampler: Callable[[Any, int], Any], *arguments: Any) -> None:
        import optuna

        super().__init__(*arguments)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore")
        self.failed = optuna.trial.TrialState.FAIL
        self.study = optuna.create_study(sampler=sampler(optuna.samplers, self.seed))

    def ask(self) -> Config:
        self.trial = self.study.ask()
        return configuration(self.tree, self._suggest)

    def _suggest(self, leaf: Leaf) -> Any:
        domain, key = leaf.domain, leaf.key
        if isinstance(domain, Categorical):
            return self.trial.suggest_categorical(key, list(domain.options))
        if isinstance(domain, Ordinal):
            return domain.values[self.trial.suggest_int(key, 0, len(domain.values) - 1)]
        if isinstance(domain, Integer):
            return self.trial.suggest_int(key, domain.low, domain.high, step=domain.step, log=domain.log)
        return self.trial.suggest_float(key, domain.low, domain.high, step=domain.step, log=domain.log)

    def note(self, loss: float | None) -> None:
        if loss is None:
            self.study.tell(self.trial, state=self.failed)
        else:
            self.study.tell(self.trial, loss)


# -- hyperopt -------------------------------------------------------------------------------------------------------


class Hyperopt(Peer):
    """Its tree of Parzen estimators, branches as ``hp.choice``."""

    def __init__(self, *arguments: Any) -> None:
        import hyperopt

        super().__init__(*arguments)
        logging.getLogger("hyperopt").setLevel(logging.ERROR)
        self.hyperopt, self.trials = hyperopt, hyperopt.Trials()
        self.rng, self.nodes = np.random.default_rng(self.seed), {}
        space = {leaf.key: self._node(leaf) for leaf in self.tree if leaf.parent is None}
        self.domain = hyperopt.Domain(lambda config: 0.0, space)

    def _node(self, leaf: Leaf) -> Any:
        if leaf.key not in self.nodes:
            self.nodes[leaf.key] = self._made(leaf)
        return self.nodes[leaf.key]

    def _made(self, leaf: Leaf) -> Any:
        hp, domain, key = self.hyperopt.hp, leaf.domain, leaf.key
        if isinstance(domain, Constant):
            return domain.value
        if isinstance(domain, Categorical):
            below = [child for child in self.tree if child.parent == key]
            options = enumerate(domain.options)
            return hp.choice(key, [[i, *(self._node(c) for c in below if o in c.options)] for i, o in options])
        if isinstance(domain, Ordinal):
            return hp.quniform(key, -0.5, len(domain.values) - 0.5, 1)
        if domain.step is not None:
            kind = hp.qloguniform if domain.log else hp.quniform
            low, high = domain.low - domain.step / 2, domain.high + domain.step / 2
            return kind(key, *((np.log(low), np.log(high)) if domain.log else (low, high)), domain.step)
        low, high = (np.log(domain.low), np.log(domain.high)) if domain.log else (domain.low, domain.high)
        return (hp.loguniform if domain.log else hp.uniform)(key, low, high)

    def ask(self) -> Config:
        ids = self.trials.new_trial_ids(1)
        docs = self.hyperopt.tpe.suggest(ids, self.domain, self.trials, int(self.rng.integers(2**31 - 1)))
        self.trials.insert_trial_docs(docs)
        self.trials.refresh()
        self.doc = self.trials._dynamic_trials[-1]
        found = {key: values[0] for key, values in self.doc["misc"]["vals"].items() if values}
        return configuration(self.tree, lambda leaf: self._value(leaf.domain, found[leaf.key]))

    def _value(self, domain: Any, found: Any) -> Any:
        if isinstance(domain, Categorical):
            return domain.options[int(found)]
        if isinstance(domain, Ordinal):
            return domain.values[int(np.clip(round(found), 0, len(domain.values) - 1))]
        value = float(np.clip(found, domain.low, domain.high))
        if domain.step is None:
            return value
        value = domain.low + round((value - domain.low) / domain.step) * domain.step
        return int(value) if isinstance(domain, Integer) else value

    def note(self, loss: float | None) -> None:
        base = self.hyperopt
        self.doc["state"] = base.JOB_STATE_DONE
        self.doc["result"] = {"status": base.STATUS_FAIL} if loss is None else {"status": base.STATUS_OK, "loss": loss}
        self.trials.refresh()


# -- SMAC -----------------------------------------------------------------------------------------------------------


class Smac(Peer):
    """The facade for hyperparameters: a random forest, conditions and forbidden clauses from ConfigSpace."""

    def __init__(self, *arguments: Any) -> None:
        import ConfigSpace
        from smac import HyperparameterOptimizationFacade, Scenario
        from smac.runhistory import StatusType, TrialValue

        super().__init__(*arguments)
        self.base, self.value, self.status = ConfigSpace, TrialValue, StatusType
        self.folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            self._space(), deterministic=True, n_trials=self.evaluations, seed=self.seed,
            output_directory=self.folder.name,
        )  # fmt: skip
        self.smac = HyperparameterOptimizationFacade(scenario, lambda config, seed: 0.0, logging_level=False)
        logging.getLogger("smac").setLevel(logging.ERROR)

    def _space(self) -> Any:
        base, space = self.base, self.base.ConfigurationSpace(seed=self.seed)
        made = {leaf.key: self._parameter(leaf) for leaf in self.tree}
        space.add(list(made.values()))
        given = [leaf for leaf in self.tree if leaf.parent is not None]
        space.add([base.InCondition(made[leaf.key], made[leaf.parent], list(leaf.options)) for leaf in given])
        for rule in self.space.constraints:
            if isinstance(rule, LessThan):
                space.add(base.ForbiddenGreaterThanRelation(made[rule.smaller], made[rule.larger]))
            elif isinstance(rule, Forbid):
                equals = [base.ForbiddenEqualsClause(made[key], value) for key, value in rule.values.items()]
                space.add(base.ForbiddenAndConjunction(*equals))
        return space

    def _parameter(self, leaf: Leaf) -> Any:
        base, domain, key = self.base, leaf.domain, leaf.key
        if isinstance(domain, Constant):
            return base.Constant(key, domain.value)
        if isinstance(domain, Categorical):
            return base.CategoricalHyperparameter(key, list(domain.options))
        if isinstance(domain, Ordinal):
            return base.OrdinalHyperparameter(key, list(domain.values))
        if isinstance(domain, Integer):
            return base.UniformIntegerHyperparameter(key, domain.low, domain.high, log=domain.log)
        return base.UniformFloatHyperparameter(key, domain.low, domain.high, log=domain.log)

    def ask(self) -> Config:
        self.info = self.smac.ask()
        found = dict(self.info.config)
        return configuration(self.tree, lambda leaf: getattr(found[leaf.key], "item", lambda: found[leaf.key])())

    def note(self, loss: float | None) -> None:
        status = self.status.CRASHED if loss is None else self.status.SUCCESS
        cost = loss if loss is not None else self.worst if self.worst is not None else 1e6
        self.smac.tell(self.info, self.value(cost=cost, status=status), save=False)


# -- Ax and HEBO: no conditions -------------------------------------------------------------------------------------


class Ax(Peer):
    """Its client with the default strategy: Sobol, then a Gaussian process with qLogNEI (BoTorch)."""

    def __init__(self, *arguments: Any) -> None:
        import torch
        from ax.api.client import Client
        from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

        super().__init__(*arguments)
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        self.range, self.choice, self.client = (
            RangeParameterConfig,
            ChoiceParameterConfig,
            Client(random_seed=self.seed),
        )
        self.names = {leaf.key: f"p{i}" for i, leaf in enumerate(self.tree)}
        parameters = [self._parameter(leaf) for leaf in self.tree if not isinstance(leaf.domain, Constant)]
        self.client.configure_experiment(parameters=parameters)
        self.client.configure_optimization(objective="-loss")
        self.client.configure_generation_strategy(method="fast", initialization_random_seed=self.seed)

    def _parameter(self, leaf: Leaf) -> Any:
        domain, name = leaf.domain, self.names[leaf.key]
        if isinstance(domain, Float):
            scaling = "log" if domain.log else "linear"
            return self.range(name=name, bounds=(domain.low, domain.high), parameter_type="float", scaling=scaling)
        if isinstance(domain, Integer):
            scaling = "log" if domain.log else "linear"
            return self.range(name=name, bounds=(domain.low, domain.high), parameter_type="int", scaling=scaling)
        if isinstance(domain, Ordinal):
            top = len(domain.values) - 1
            return self.range(name=name, bounds=(0, top), parameter_type="int")
        values = [str(option) for option in domain.options]
        return self.choice(name=name, values=values, parameter_type="str", is_ordered=False)

    def ask(self) -> Config:
        ((self.index, found),) = self.client.get_next_trials(max_trials=1).items()
        return configuration(self.tree, lambda leaf: self._value(leaf.domain, found[self.names[leaf.key]]))

    def _value(self, domain: Any, found: Any) -> Any:
        if isinstance(domain, Categorical):
            return {str(option): option for option in domain.options}[found]
        if isinstance(domain, Ordinal):
            return domain.values[int(found)]
        return int(found) if isinstance(domain, Integer) else float(np.clip(found, domain.low, domain.high))

    def note(self, loss: float | None) -> None:
        if loss is None:
            self.client.mark_trial_failed(self.index)
        else:
            self.client.complete_trial(self.index, raw_data={"loss": (loss, 0.0) if loss == 0 else loss})


class Hebo(Peer):
    """Heteroscedastic evolutionary Bayesian optimisation; failures are told as the worst value so far."""

    def __init__(self, *arguments: Any) -> None:
        import torch
        from hebo.design_space.design_space import DesignSpace
        from hebo.optimizers.hebo import HEBO

        super().__init__(*arguments)
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        np.random.seed(self.seed)  # its own randomness is global
        torch.manual_seed(self.seed)
        kept = [leaf for leaf in self.tree if not isinstance(leaf.domain, Constant)]
        self.hebo = HEBO(DesignSpace().parse([self._parameter(leaf) for leaf in kept]), scramble_seed=self.seed)

    def _parameter(self, leaf: Leaf) -> dict[str, Any]:
        domain, name = leaf.domain, leaf.key
        if isinstance(domain, Categorical):
            return {"name": name, "type": "cat", "categories": [str(option) for option in domain.options]}
        if isinstance(domain, Ordinal):
            return {"name": name, "type": "int", "lb": 0, "ub": len(domain.values) - 1}
        kind = "int" if isinstance(domain, Integer) else "num"
        if domain.log:
            kind = "pow_int" if kind == "int" else "pow"
        return {"name": name, "type": kind, "lb": domain.low, "ub": domain.high}

    def ask(self) -> Config:
        with redirect_stdout(io.StringIO()):  # it prints much
            self.rows = self.hebo.suggest(n_suggestions=1)
        found = self.rows.iloc[0]
        return configuration(self.tree, lambda leaf: self._value(leaf.domain, found[leaf.key]))

    _value = Ax._value

    def note(self, loss: float | None) -> None:
        value = self.worst if loss is None else loss
        if value is not None:
            self.hebo.observe(self.rows, np.array([[value]]))


# -- by name --------------------------------------------------------------------------------------------------------

OPTUNA: dict[str, Callable[[Any, int], Any]] = {
    "optuna-tpe": lambda samplers, seed: samplers.TPESampler(seed=seed),
    "optuna-tpe-group": lambda samplers, seed: samplers.TPESampler(seed=seed, multivariate=True, group=True),
    "optuna-gp": lambda samplers, seed: samplers.GPSampler(seed=seed),
    "optuna-cma": lambda samplers, seed: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
}
OTHERS: dict[str, type[Peer]] = {"random": Random, "hyperopt": Hyperopt, "smac": Smac, "ax": Ax, "hebo": Hebo}


def make(name: str, *arguments: Any) -> Peer:
    """The optimizer of this name: one of the above, or ``tunesmith:`` and a sampler, such as ``tunesmith:TPE()``.

    ``label=tunesmith:...`` gives it another name in the results. The arguments are those of `Peer`.
    ImportError where its package is missing.
    """
    spec = name.split("=", 1)[1] if "=tunesmith:" in name else name
    if spec.startswith("tunesmith:"):
        return Tunesmith(spec.removeprefix("tunesmith:"), *arguments)
    if spec in OPTUNA:
        return Optuna(OPTUNA[spec], *arguments)
    if spec in OTHERS:
        return OTHERS[spec](*arguments)
    raise SystemExit(f"no optimizer is called {name!r}; there are tunesmith:..., {', '.join([*OPTUNA, *OTHERS])}")
