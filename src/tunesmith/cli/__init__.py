"""The command line. ``typer`` and ``rich`` are extras; without them one line says how to get them."""

from __future__ import annotations

import sys
from importlib import import_module


def main() -> None:
    """Run the command that stands in ``sys.argv`` and exit with its code."""
    try:
        for extra in ("typer", "rich"):
            import_module(extra)
    except ModuleNotFoundError as error:
        from tunesmith.errors import install

        sys.exit(f"tunesmith: the command line needs {error.name}: {install('cli')}")
    from tunesmith.cli.app import execute

    sys.exit(execute(sys.argv[1:]))
