"""Processor time of one ask and tell of the model-based samplers, beside Optuna's, on one thread.

    python benchmarks/sampler_speed.py
    python benchmarks/sampler_speed.py --samplers TPE --counts 100 1000 --peer-python .venv-bench/bin/python
    python benchmarks/sampler_speed.py --counts --runs 200 1000 --large 100000

So many random observations are added in bulk first. Every figure comes from a fresh process: the mean of some asks and
tells after the first one, which stands beside it since it also takes in the bulk, and the process's peak memory.

``--runs`` are whole runs of so many trials, and what the next proposal costs when such a study is opened again.
``--large`` are studies of so many trials with five reports each, as a sampler hears of them when they are opened.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy

import argparse  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import platform  # noqa: E402
import resource  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

COUNTS = (100, 300, 1_000, 10_000)
SPACES = ("6-d mixed", "20-d")
REPEATS = {"TPE": 30, "GP": 8}
PEER_LIMIT = {"TPE": 10_000, "GP": 1_000}  #: observations up to which the peer is measured
Values = dict[str, Any]


def _tunesmith_space(which: str) -> Any:
    import tunesmith as ts

    if which == "20-d":
        return ts.Space({f"x{i}": ts.Float(0.0, 1.0) for i in range(20)})
    return ts.Space(
        {
            "units": ts.Integer(16, 512, log=True), "layers": ts.Integer(1, 8), "rate": ts.Float(1e-5, 1.0, log=True),
            "momentum": ts.Float(0.0, 0.99), "dropout": ts.Float(0.0, 0.8),
            "activation": ts.Categorical(["relu", "gelu", "tanh"]),
        }
    )  # fmt: skip


def _optuna_distributions(which: str) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if which == "20-d":
        return {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(20)}
    return {
        "units": IntDistribution(16, 512, log=True), "layers": IntDistribution(1, 8),
        "rate": FloatDistribution(1e-5, 1.0, log=True), "momentum": FloatDistribution(0.0, 0.99),
        "dropout": FloatDistribution(0.0, 0.8), "activation": CategoricalDistribution(["relu", "gelu", "tanh"]),
    }  # fmt: skip


def _observation(which: str, rng: np.random.Generator) -> Values:
    """A random configuration, the same for both packages."""
    u = rng.random(20)
    if which == "20-d":
        return {f"x{i}": float(u[i]) for i in range(20)}
    return {
        "units": int(16 * 32 ** u[0]), "layers": 1 + int(8 * u[1]), "rate": float(10 ** (-5 * u[2])),
        "momentum": float(0.99 * u[3]), "dropout": float(0.8 * u[4]),
        "activation": ("relu", "gelu", "tanh")[int(3 * u[5])],
    }  # fmt: skip


def _loss(values: Values) -> float:
    """Something smooth with an interaction."""
    if "x0" in values:
        x = np.array([values[f"x{i}"] for i in range(20)])
        return float(((x - 0.3) ** 2 * np.linspace(1, 0.05, 20)).sum() + 0.3 * math.sin(5 * x[0] * x[1]))
    rate, width = math.log10(values["rate"]) + 2.5, math.log2(values["units"]) - 7
    extra = {"relu": 0.1, "gelu": 0.0, "tanh": 0.4}[values["activation"]] + 0.02 * (values["layers"] - 4) ** 2
    return rate**2 + 0.2 * rate * width + 0.1 * width**2 + extra + (values["momentum"] - 0.9) ** 2 + values["dropout"]


def _tunesmith(sampler: str, which: str, observations: list[Values]) -> Callable[[], object]:
    import tunesmith as ts

    study = ts.Study(_tunesmith_space(which), [ts.Goal("loss")], sampler=getattr(ts.samplers, sampler)())
    for values in observations:
        study.add(values, {"loss": _loss(values)})

    def step() -> None:
        job = study.ask()
        study.tell(job, {"loss": _loss(job.config)})

    return step


def _optuna(sampler: str, which: str, observations: list[Values]) -> Callable[[], object]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = _optuna_distributions(which)
    study = optuna.create_study(sampler=getattr(optuna.samplers, f"{sampler}Sampler")(seed=0))
    study.add_trials(
        [
            optuna.trial.create_trial(params=values, distributions=distributions, value=_loss(values))
            for values in observations
        ]
    )

    def step() -> None:
        trial = study.ask(distributions)
        study.tell(trial, _loss(trial.params))

    return step


def run(sampler: str, count: int) -> dict[str, float]:
    """Seconds of all asks and tells of a run in six dimensions, and of the first ask after it is opened again."""
    import tunesmith as ts

    space = ts.Space({f"x{i}": ts.Float(0.0, 1.0) for i in range(6)})
    study = ts.Study(space, ts.Goal("loss"), sampler=getattr(ts.samplers, sampler)(), store=ts.storage.MemoryStore())
    began = time.process_time()
    for _ in range(count):
        job = study.ask()
        x = np.array(list(job.config.values()))
        value = float(((x - 0.3) ** 2 * np.linspace(1, 0.1, 6)).sum() + 0.3 * math.sin(5 * x[0] * x[1]))
        study.tell(job, {"loss": value})
    whole = time.process_time() - began
    opened = ts.Study.open(study.store)
    began = time.process_time()
    opened.ask()
    return {"run": whole, "opened": time.process_time() - began}


def large(sampler: str, count: int) -> dict[str, float]:
    """Seconds in which a sampler hears of so many trials with five reports each, and of its first ask after that."""
    import tunesmith as ts
    from tunesmith.records import Asked, Told

    space, rng = _tunesmith_space("6-d mixed"), np.random.default_rng(0)
    events = []
    for trial in range(count):
        events.append(Asked(trial, 0, trial, _observation("6-d mixed", rng), 0, 5))
        events += [Told(trial, trial, step, {"loss": [float(rng.random())]}) for step in range(5)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    chosen = getattr(ts.samplers, sampler)()
    state = chosen.init(space, [ts.Goal("loss")], rng)
    began = time.process_time()
    for event in events:
        state = chosen.tell(state, event)
    told = time.process_time()
    chosen.ask(state, rng)
    asked = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"told": told - began, "first": asked - told, "megabytes": peak - before}


def measure(package: str, sampler: str, which: str, count: int, repeat: int) -> dict[str, float]:
    """Seconds of the first ask and tell after ``count`` observations, of the following ones, and peak megabytes."""
    rng = np.random.default_rng(0)
    observations = [_observation(which, rng) for _ in range(count)]
    step = {"tunesmith": _tunesmith, "optuna": _optuna}[package](sampler, which, observations)
    began = time.process_time()
    step()
    first, spent, done = time.process_time() - began, 0.0, 0
    while done < repeat and spent < 20.0:
        began = time.process_time()
        step()
        spent, done = spent + time.process_time() - began, done + 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first": first, "seconds": spent / done, "megabytes": peak}


def _apart(python: str, *arguments: object) -> dict[str, float] | str:
    """The measurement in a process of its own; a word where there is none."""
    command = [python, __file__, "--one", json.dumps(arguments)]  # the first one is a name of ``ONE``
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired:
        return "> 900 s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1][:80]
    return json.loads(done.stdout.splitlines()[-1])


def _cells(ours: dict[str, float] | str, peer: dict[str, float] | str | None) -> list[str]:
    def time_(found: Any, key: str) -> str:
        return found if isinstance(found, str) else "" if found is None else f"{1000 * found[key]:.3g} ms"

    both = isinstance(ours, dict) and isinstance(peer, dict)
    ratio = f"{peer['seconds'] / ours['seconds']:.3g}" if both else ""  # type: ignore[index,call-overload]
    memory = f"{ours['megabytes']:.0f} MB" if isinstance(ours, dict) else ""
    return [time_(ours, "seconds"), time_(peer, "seconds"), ratio, time_(ours, "first"), time_(peer, "first"), memory]


ONE = {"measure": measure, "run": run, "large": large}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", default=["TPE", "GP"], choices=list(REPEATS))
    parser.add_argument("--spaces", nargs="+", default=SPACES, choices=SPACES)
    parser.add_argument("--counts", nargs="*", type=int, default=COUNTS)
    parser.add_argument("--runs", nargs="+", type=int, default=[])
    parser.add_argument("--large", nargs="+", type=int, default=[])
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has Optuna; '' leaves it out")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, *arguments = json.loads(options.one)
        print(json.dumps(ONE[what](*arguments)))
        return
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, one thread; CPU time"
    )
    if options.counts:
        print("| sampler | space | observations | ask+tell | Optuna | ratio | first | first, Optuna | peak memory |")
        print("|---|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for sampler in options.samplers:
        for which in options.spaces:
            for count in options.counts:
                case = (sampler, which, count, REPEATS[sampler])
                ours = _apart(sys.executable, "measure", "tunesmith", *case)
                known = options.peer_python and count <= PEER_LIMIT[sampler]
                peer = _apart(options.peer_python, "measure", "optuna", *case) if known else None
                print(f"| {sampler} | {which} | {count:,} | {' | '.join(_cells(ours, peer))} |", flush=True)
    for what, counts, samplers in (("run", options.runs, ["GP"]), ("large", options.large, ["TPE", "Auto"])):
        for sampler, count in ((sampler, count) for sampler in samplers for count in counts):
            found = _apart(sys.executable, what, sampler, count)
            print(f"{what} of {count:,} with {sampler}: {found}", flush=True)


if __name__ == "__main__":
    main()
