"""A session with checkpoints; and the training code of these tests can be imported, by worker processes too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tunesmith.execution import Options, Session, as_task

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def session(tmp_path):
    """Makes sessions that share one directory of checkpoints; options by name."""
    made = []

    def make(train, required=("x",), root=tmp_path / "states", **options):
        made.append(Session(as_task(train), Options(required, root and str(root), **options)))
        return made[-1]

    yield make
    for one in made:
        one.close()
