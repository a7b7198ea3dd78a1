"""What the library itself costs, against Optuna and Ray Tune: every figure measured in fresh processes, in turns.

    python benchmarks/overhead.py                            # everything, about fifteen minutes
    python benchmarks/overhead.py pairs reports --repeat 3   # two sections
    python benchmarks/overhead.py --alone                    # without the peers

A figure is the median of the repetitions by the clock on the wall; "CPU" is what it would be if only processor time
counted, which a busy machine disturbs less. A ratio says how many times better tunesmith is. Peers that are not
installed are left out; see requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import measuring
from measuring import Result

HERE = Path(__file__).parent
LIMIT = 900  # seconds that a measurement may take

Probe = tuple[str, str, dict[str, Any]]
"""Package, name of its measurement, arguments."""


@dataclass
class Figure:
    """One quantity, for tunesmith and for others. ``target`` and values in seconds, in MB, or a rate a second."""

    section: str
    what: str
    unit: str
    target: float | None
    results: dict[str, list[Result]] = field(default_factory=dict)
    worst: bool = False
    """The figure is the worst repetition, where the median would hide what happens now and then."""

    def value(self, name: str, key: str = "value") -> float | None:
        """The figure for tunesmith or a peer."""
        values = [result[key] for result in self.results.get(name, ()) if key in result]
        return (max if self.worst else median)(values) if values else None

    def rows(self) -> list[list[str]]:
        """The cells of the table: one row a peer."""
        ours, cpu = self.value("tunesmith"), self.value("tunesmith", "cpu")
        rows = []
        for name in [name for name in self.results if name != "tunesmith"] or [""]:
            theirs, their_cpu = self.value(name), self.value(name, "cpu")
            rows.append([
                self.what, _text(self.target, self.unit), _text(ours, self.unit), _text(cpu, self.unit),
                name, _text(theirs, self.unit), _text(their_cpu, self.unit),
                self._ratio(ours, theirs), self._ratio(cpu, their_cpu),
            ])  # fmt: skip
        return rows

    def _ratio(self, ours: float | None, theirs: float | None) -> str:
        if not ours or not theirs:
            return ""
        return f"{ours / theirs if self.unit == '/s' else theirs / ours:.3g}"


def _text(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit != "s":
        return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"
    scale, name = next(((s, n) for s, n in ((1, "s"), (1e-3, "ms")) if value >= 0.1 * s), (1e-6, "µs"))
    return f"{value / scale:.3g} {name}"


class Bench:
    """Runs measurements and collects figures."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.figures: list[Figure] = []
        self.section = ""
        self.versions = {name: found for name in ("tunesmith", "optuna", "ray") if (found := _version(name))}
        if options.alone:
            self.versions = {"tunesmith": self.versions["tunesmith"]}

    def compare(
        self,
        what: str,
        unit: str,
        probes: dict[str, Probe],
        target: float | None = None,
        repeat: int | None = None,
        worst: bool = False,
        once: tuple[str, ...] = (),
    ) -> Figure:
        """Measure in turns, so that what disturbs one disturbs all; packages that take long only ``once``."""
        figure = Figure(self.section, what, unit, target, worst=worst)
        for i in range(repeat or self.options.repeat):
            for name, probe in probes.items():
                if probe[0] in self.versions and not (i and probe[0] in once):
                    figure.results.setdefault(name, []).append(run(probe))
        self.add(figure)
        return figure

    def add(self, figure: Figure) -> None:
        """Keep a figure and print it."""
        self.figures.append(figure)
        for row in figure.rows():
            print(f"| {' | '.join(row)} |", flush=True)


def run(probe: Probe) -> Any:
    """One measurement in a fresh process."""
    package, name, arguments = probe
    command = [sys.executable, str(HERE / f"measure_{package}.py"), name, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise SystemExit(f"{package}: {name} {arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# -- the sections -----------------------------------------------------------------------------------------------------


def imports(bench: Bench) -> None:
    """``python -c "import ..."``, the start of Python included."""
    modules = {"tunesmith": "tunesmith", "numpy": "numpy", "optuna": "optuna", "ray": "ray.tune"}
    codes = {name: f"import {module}" for name, module in modules.items() if name in {"numpy", *bench.versions}}
    codes["no import"] = "pass"
    figure = Figure(bench.section, "import", "s", 0.10)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for i in range(max(7, bench.options.repeat) + 1):
        for name, code in codes.items():
            with measuring.clock() as time_:
                subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            if i:  # the first one compiles and warms the cache of files
                figure.results.setdefault(name, []).append({"value": time_.wall, "cpu": time_.cpu})
    bench.add(figure)


def pairs(bench: Bench) -> None:
    """Asks and tells a second, random sampler, six parameters."""
    seconds = bench.options.seconds

    def probes(ours: str, theirs: dict[str, str], processes: int) -> dict[str, Probe]:
        arguments = {"processes": processes, "seconds": seconds}
        found: dict[str, Probe] = {"tunesmith": ("tunesmith", "pairs", {"store": ours, **arguments})}
        return found | {name: ("optuna", "pairs", {"store": store, **arguments}) for name, store in theirs.items()}

    disk = {"optuna journal": "journal", "optuna SQLite": "sqlite"}
    bench.compare("ask+tell, memory", "/s", probes("memory", {"optuna memory": "memory"}, 1))
    relaxed = {"optuna SQLite, WAL without sync": "sqlite-wal"}
    bench.compare("ask+tell, SQLite, 1 process", "/s", probes("sqlite", disk | relaxed, 1), 4000)
    bench.compare("ask+tell, SQLite, 4 processes", "/s", probes("sqlite", disk, 4), 4000)
    bench.compare("ask+tell, SQLite, 8 processes", "/s", probes("sqlite", disk, 8), 4000)


def reports(bench: Bench) -> None:
    """Trials a second with 20 reports each."""
    seconds = bench.options.seconds
    peers: dict[str, Probe] = {
        "optuna journal": ("optuna", "reports", {"store": "journal", "seconds": seconds}),
        "optuna SQLite": ("optuna", "reports", {"store": "sqlite", "seconds": seconds}),
        "optuna SQLite, WAL without sync": ("optuna", "reports", {"store": "sqlite-wal", "seconds": seconds}),
    }
    ways = {
        "each": "20 reports a trial, SQLite, 20 transactions",
        "batch": "20 reports a trial, SQLite, 20 tells in a batch",
        "series": "20 reports a trial, SQLite, told as one list",
    }
    for how, what in ways.items():
        ours: dict[str, Probe] = {"tunesmith": ("tunesmith", "reports", {"how": how, "seconds": seconds})}
        bench.compare(what, "/s", ours | (peers if how == "each" else {}), 2000)


def decision(bench: Bench) -> None:
    """A report and the decision on it after so many finished trials."""
    counts = [100, 1000, 5000, 10000]
    median_rule: Probe = ("optuna", "decision", {"counts": counts})
    ways: dict[str, tuple[str, str]] = {
        "PBT, memory": ("pbt", "memory"),
        "PBT, SQLite": ("pbt", "sqlite"),
        "Full, memory": ("full", "memory"),
        "Full, SQLite": ("full", "sqlite"),
    }
    results: dict[str, list[list[Result]]] = {}
    for _ in range(min(3, bench.options.repeat)):
        for name, (scheduler, store) in ways.items():
            probe: Probe = ("tunesmith", "decision", {"scheduler": scheduler, "counts": counts, "store": store})
            results.setdefault(name, []).append(run(probe))
        if "optuna" in bench.versions:
            results.setdefault("optuna median rule, memory", []).append(run(median_rule))
    for name in ways:
        for i, count in enumerate(counts):
            found = {"tunesmith": [rounds[i] for rounds in results[name]]}
            for peer in results.keys() - ways.keys() if name.endswith("memory") else ():
                found[peer] = [rounds[i] for rounds in results[peer]]
            target = 1e-4 if name.endswith("memory") else None
            bench.add(Figure(bench.section, f"{name}: report and decision after {count:,} trials", "s", target, found))


def kill(bench: Bench) -> None:
    """From ``kill -9`` of everything to the first job that a newly started process has completed: the worst case."""
    repeat = bench.options.repeat
    drivers: dict[str, Probe] = {"tunesmith": ("tunesmith", "kill", {"workers": 2})}
    figure = bench.compare("kill -9 of a driver and its 2 workers: worst first job", "s", drivers, None, repeat, True)
    fresh = [{"value": result["fresh"]} for result in figure.results["tunesmith"]]
    bench.add(
        Figure(bench.section, "(first job of a driver on a new study: worst)", "s", None, {"tunesmith": fresh}, True)
    )
    crews: dict[str, Probe] = {
        "tunesmith": ("tunesmith", "kill_pairs", {"processes": 4}),
        "optuna journal": ("optuna", "kill_pairs", {"store": "journal", "processes": 4}),
    }
    bench.compare("kill -9 of 4 processes that ask and tell: worst next pair", "s", crews, None, repeat, True)


def pbt(bench: Bench) -> None:
    """PBT on the toy problem, population 16, a checkpoint every step: seconds a member-step."""
    steps = bench.options.ray_steps
    ray: dict[str, Probe] = {
        "ray": ("ray", "population", {"steps": steps, "reuse": False}),
        "ray, reused actors": ("ray", "population", {"steps": steps}),
    }
    for workers, target, what in ((1, 1e-3, "in process"), (2, 5e-3, "2 worker processes")):
        ours: dict[str, Probe] = {"tunesmith": ("tunesmith", "population", {"workers": workers, "steps": 200})}
        bench.compare(f"PBT, a member-step, {what}", "s", ours | (ray if workers > 1 else {}), target, once=("ray",))


def trials(bench: Bench) -> None:
    """200 trials that cost nothing, on 2 worker processes."""
    probes: dict[str, Probe] = {
        "tunesmith": ("tunesmith", "trials", {"workers": 2, "count": 200}),
        "ray, reused actors": ("ray", "trials", {"count": 200}),
    }
    bench.compare("200 trivial trials, 2 worker processes", "s", probes, 2.0, once=("ray",))


def summary(bench: Bench) -> None:
    """10,000 trials with 20 reports each: opened and summarised."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        found: dict[str, Probe] = {}
        for how, name in (("series", "one list a trial"), ("single", "20 events a trial")):
            path = f"{folder}/{how}.db"
            run(("tunesmith", "make", {"path": path, "count": 10_000, "how": how}))
            found[name] = ("tunesmith", "", {"path": path})
        peers: dict[str, Probe] = {}
        for store in ("journal", "sqlite") if "optuna" in bench.versions else ():
            path = f"{folder}/optuna-{store}"
            run(("optuna", "make", {"store": store, "path": path, "count": 10_000}))
            peers[f"optuna {store}"] = ("optuna", "summarise", {"store": store, "path": path})
        for name, (_, _, arguments) in found.items():
            ours: dict[str, Probe] = {"tunesmith": ("tunesmith", "summarise", arguments)}
            both = ours | (peers if "list" in name else {})  # the peers' trials are added whole, too
            figure = bench.compare(f"10,000 trials x 20 reports ({name}): summary", "s", both, 1.0)
            memory = {who: [{"value": result["mb"]} for result in results] for who, results in figure.results.items()}
            bench.add(Figure(bench.section, f"10,000 trials x 20 reports ({name}): peak memory", "MB", 300, memory))
            for what, measurement in (("open and ask once", "ask_after"), ("replay", "replay")):
                probe: Probe = ("tunesmith", measurement, arguments)
                bench.compare(f"10,000 trials x 20 reports ({name}): {what}", "s", {"tunesmith": probe}, repeat=1)


SECTIONS: dict[str, Callable[[Bench], None]] = {
    section.__name__: section for section in (imports, pairs, reports, decision, kill, pbt, trials, summary)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help=f"of {', '.join(SECTIONS)}; default all")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of a measurement (slow ones at most 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a measurement of a rate")
    parser.add_argument("--ray-steps", type=int, default=6, help="steps of Ray's PBT, which takes long")
    parser.add_argument("--alone", action="store_true", help="leave out the peers")
    parser.add_argument("--json", type=Path, help="where to write all values")
    options = parser.parse_args()
    bench = Bench(options)
    machine = f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    print(f"{machine}; {', '.join(f'{name} {found}' for name, found in bench.versions.items())}")
    print(f"load of the machine at the beginning: {os.getloadavg()[0]:.1f}")
    print("| figure | target | tunesmith | CPU | peer | its figure | CPU | ratio | ratio of CPU |")
    print("|---|--:|--:|--:|---|--:|--:|--:|--:|", flush=True)
    failed = False
    for name in options.sections or SECTIONS:
        bench.section = name
        try:
            SECTIONS[name](bench)
        except (SystemExit, subprocess.TimeoutExpired) as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    if options.json:
        figures = [asdict(figure) for figure in bench.figures]
        options.json.write_text(
            json.dumps({"machine": machine, "versions": bench.versions, "figures": figures}, indent=1)
        )
    sys.exit(failed)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
