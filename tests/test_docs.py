"""The documents tell the truth: every block of Python runs, every link leads somewhere, every command is described."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from tunesmith.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = [page for page in PAGES if page.name != "design.md"]
ON_PROCESSORS = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "error", "MPLBACKEND": "agg"}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [page for page in RUN if blocks(page)], ids=lambda page: page.name)
def test_the_code_runs(page: Path, tmp_path: Path) -> None:
    """All blocks of a page, one after the other, as the script that a reader would make of them."""
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(blocks(page)), encoding="utf-8")
    environment = os.environ | ON_PROCESSORS
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "rest", "metric"),
    [
        ("pbt_pytorch.py", ["4"], "accuracy"),
        ("population_jax.py", ["2"], "accuracy"),
        ("reinforcement_learning.py", ["--population", "2", "--steps", "2", "--figures", "."], "reward"),
        ("translation.py", ["--population", "2", "--steps", "2", "--updates", "5", "--width", "16"], "bleu"),
        (
            "gan.py",
            ["--population", "2", "--steps", "2", "--ready", "1", "--updates", "5", "--width", "8", "--figures", "."],
            "score",
        ),
        ("atari.py", ["--population", "2", "--steps", "2", "--ready", "1", "--updates", "1"], "reward"),
        ("ask_tell.py", [], "accuracy"),
    ],
)
def test_the_examples_run(name: str, rest: list[str], metric: str, tmp_path: Path) -> None:
    environment = os.environ | ON_PROCESSORS
    command = [sys.executable, str(ROOT / "examples" / name), *rest]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=3600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert metric in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_command_and_option_is_described() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"tunesmith {name}" in text, name
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option != "--help":
                    assert option in text, f"{name} {option}"
