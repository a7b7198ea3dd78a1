"""The package as a whole: its layers, its public names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import tunesmith

ROOT = Path(__file__).parent.parent
EXTRAS = ("scipy", "torch", "matplotlib", "sklearn", "typer", "rich", "safetensors", "pyarrow", "jax")


def test_the_layers_hold() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_is_there_and_nothing_else_is_public() -> None:
    assert len(set(tunesmith.__all__)) == len(tunesmith.__all__)
    for name in tunesmith.__all__:
        assert getattr(tunesmith, name) is not None
    own = {name for name, value in vars(tunesmith).items() if getattr(value, "__module__", "").startswith("tunesmith.")}
    assert own <= {*tunesmith.__all__, "__getattr__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Hyperband9"):
        tunesmith.Hyperband9  # noqa: B018  looking is the test


@pytest.mark.parametrize(
    "use", ["pass", "tunesmith.samplers.Uniform(); tunesmith.schedulers.PBT; tunesmith.Study; tunesmith.tune"]
)
def test_importing_loads_no_extra(use: str) -> None:

    code = f"import sys, tunesmith; {use}; print([name for name in {EXTRAS!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version("tunesmith") == project["version"]
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_what_is_pinned_is_within_the_ranges() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name in extras if name != "parquet" for line in extras[name])]
    for requirement in map(Requirement, wanted):
        if requirement.name != "tunesmith":
            assert requirement.specifier.contains(pins[requirement.name]), requirement
