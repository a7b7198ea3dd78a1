"""Large studies: how long a study of many trials takes to open, to ask, to be looked at, and how much memory it needs.

    python benchmarks/study_scale.py
    python benchmarks/study_scale.py --trials 100000 --reports 5 --resumed 1000

A study of random configurations in six dimensions is written once. Every figure comes from a fresh process: the seconds
of wall-clock and processor time, and the peak memory of the process, for

* `open`: ``Study.open`` of the stored study;
* `uniform`, `auto`: the first ask after that, by each of these samplers;
* `status`: the whole command ``tunesmith status``, the start of Python included; `import`: its imports alone;
* `best`: ``study.best`` after every tell, the mean of 1,000;
* `gp`, `resume`: the first ask of a stored study of ``--resumed`` trials, by ``GP`` and ``Auto``.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy

import argparse  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager, redirect_stdout  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

TELLS = 1000


def write(path: Path, trials: int, reports: int, sampler: str) -> None:
    """A study of random configurations, whose values depend on the configuration and a little on chance."""
    import tunesmith as ts
    from tunesmith.records import Asked, Told
    from tunesmith.storage import SQLiteStore

    space = ts.Space({f"x{i}": ts.Float(0.0, 1.0) for i in range(6)})
    scheduler = ts.schedulers.Full(reports)
    ts.Study(space, ts.Goal("loss"), getattr(ts.samplers, sampler)(), scheduler, path).close()
    store, rng, weights = SQLiteStore(path), np.random.default_rng(0), np.linspace(1, 0.1, 6)
    events: list[Asked | Told] = []
    seen = 1
    for trial in range(trials):
        x = rng.random(6)
        events.append(Asked(trial, seen, trial, {f"x{i}": float(x[i]) for i in range(6)}, 0, reports))
        loss = float(((x - 0.3) ** 2 * weights).sum() + 0.3 * math.sin(5 * x[0] * x[1]))
        for step in range(reports):
            value = loss + 1 / (step + 1) + 0.01 * float(rng.normal())
            events.append(Told(trial, trial, step, {"loss": [value], "accuracy": [1 - value]}, 0.1))
        seen += 1 + reports
        if len(events) > 20_000:
            store.append(events)
            events = []
    store.append(events)
    store.close()


@contextmanager
def timed(found: dict[str, float]) -> Iterator[None]:
    """Adds the seconds that the block takes."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    found["seconds"] = found.get("seconds", 0.0) + time.perf_counter() - wall
    found["processor"] = found.get("processor", 0.0) + time.process_time() - processor


def measure(what: str, path: Path) -> dict[str, float]:
    """One figure, in this process."""
    import tunesmith as ts

    found: dict[str, float] = {}
    if what == "import":
        import tunesmith.cli.app
    elif what == "status":
        from tunesmith.cli.app import execute

        with timed(found), redirect_stdout(io.StringIO()):
            assert execute(["status", str(path)]) == 0
    elif what == "open":
        with timed(found):
            ts.Study.open(path)
    elif what == "best":
        study = ts.Study.open(path)
        assert study.ask() is not None and study.best is not None
        for _ in range(TELLS):
            job = study.ask()
            study.tell(job, {"loss": 2.0, "accuracy": -1.0})
            with timed(found):
                assert study.best is not None
        found = {name: value / TELLS for name, value in found.items()}
    else:
        study = ts.Study.open(path)
        with timed(found):
            assert study.ask() is not None
    return found | {"memory": peak_memory()}


def peak_memory() -> float:
    """MiB that this process has held at the most. (``ru_maxrss`` of a new process has its parent's.)"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def fresh(what: str, path: Path) -> dict[str, float]:
    """The same in a process of its own, on a copy of the study, with the seconds of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "study.db"
        copy.write_bytes(path.read_bytes())
        began = time.perf_counter()
        command = [sys.executable, __file__, "--measure", what, "--store", str(copy)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        return {**json.loads(ran.stdout), "process": time.perf_counter() - began}


def main() -> None:
    """Print a row for every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--reports", type=int, default=5)
    parser.add_argument("--resumed", type=int, default=1000, help="trials of the study that GP and Auto resume")
    parser.add_argument("--figures", nargs="*", help="only these")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help="keep the studies here, and use those that are there")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.store)))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.store or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
              f"Python {platform.python_version()}")  # fmt: skip
        figures = dict.fromkeys(("import", "open", "uniform", "auto", "status", "best"), arguments.trials)
        figures |= dict.fromkeys(("gp", "resume"), arguments.resumed)
        for what, trials in figures.items():
            if arguments.figures and what not in arguments.figures:
                continue
            sampler = {"auto": "Auto", "resume": "Auto", "gp": "GP"}.get(what, "Uniform")
            path = place / f"{sampler}-{trials}x{arguments.reports}.db"
            if not path.exists():
                write(path, trials, arguments.reports, sampler)
            found = fresh(what, path)
            shown = "  ".join(f"{name} {found.get(name, 0):11.6f} s" for name in ("seconds", "processor", "process"))
            print(f"{what:8} {trials:8,} trials  {shown}  {found['memory']:7.0f} MB", flush=True)


if __name__ == "__main__":
    main()
