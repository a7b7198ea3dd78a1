"""A command line to call, and small studies that really ran."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import tunesmith as ts
from tunesmith.cli.app import execute

SPACE = ts.Space(
    {
        "lr": ts.Float(1e-4, 1.0, log=True),
        "units": ts.Ordinal([16, 32, 64]),
        "optimizer": ts.Categorical({"sgd": ts.Space({"momentum": ts.Float(0.0, 0.99)}), "adam": None}),
    }
)


class Ran(NamedTuple):
    """What a command has left."""

    code: int
    out: str
    err: str


Call = Callable[..., Ran]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delenv("TUNESMITH_DEBUG", raising=False)

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = execute([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def misuse(call: Call) -> Callable[..., str]:
    """Runs a command line that must fail, and gives the one line that says why."""

    def run(*arguments: object) -> str:
        code, out, err = call(*arguments)
        assert code in (1, 2), (code, out, err)
        assert out == ""
        assert err.startswith("tunesmith: ") and err.endswith("\n") and err.count("\n") == 1, err
        assert "Traceback" not in err
        return err

    return run


def opened(store: str | Path, name: str = "study") -> ts.Study:
    """A stored study, with its file closed again."""
    with ts.Study.open(store, name) as study:
        return study


def fill(study: ts.Study) -> ts.Study:
    """Run a study to its end."""
    while job := study.ask():
        study.tell(job, {"loss": [job.config["lr"] / step for step in range(job.start + 1, job.until + 1)]})
    return study


@pytest.fixture(name="opened")
def _opened() -> Callable[..., ts.Study]:
    return opened


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A finished study of population based training."""
    path = tmp_path / "study.db"
    pbt = ts.schedulers.PBT(population=4, ready=2, steps=10)
    fill(ts.Study(SPACE, [ts.Goal("loss")], ts.samplers.QMC(), pbt, store=path, name="first")).close()
    return path


TRAIN = """
import tunesmith as ts

space = ts.Space({"lr": ts.Float(1e-3, 1.0, log=True), "units": ts.Ordinal([16, 32, 64])})
small = {"lr": ts.Ordinal([0.1, 0.2, 0.3])}
goals = [ts.Goal("loss")]


def train(config, state=None):
    loss, step = (1.0, 0) if state is None else (state["loss"], state["step"])
    while step < 20:
        loss, step = loss * (1 - 0.1 * config["lr"]), step + 1
        yield {"loss": loss, "other": -loss}, {"loss": loss, "step": step}


def broken(config):
    raise RuntimeError("the data is missing")


def wrong(config):
    return {"accuracy": 1.0}


number = 3
"""
_numbers = itertools.count()


@pytest.fixture
def code(tmp_path: Path) -> Iterator[str]:
    """The name of a file with training code, that no other test has imported."""
    name = f"code_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(TRAIN)
    yield f"{name}.py"
    sys.modules.pop(name, None)
