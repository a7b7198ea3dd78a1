"""The commands under one roof, and what happens when one of them fails."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated

import typer
from typer.main import get_command

from tunesmith.cli import comparing, optimizing, reading, running, simulating
from tunesmith.cli.errors import Misuse, one_line

app = typer.Typer(
    name="tunesmith",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: tuple[Callable[..., None], ...] = (
    running.run,
    running.resume,
    reading.status,
    reading.best,
    reading.trials,
    reading.schedule,
    reading.plot,
    reading.replay,
    reading.export,
    simulating.simulate,
    comparing.compare,
    optimizing.optimizers,
    running.demo,
)
for command in COMMANDS:
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tunesmith {version('tunesmith')}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error was raised (or TUNESMITH_DEBUG=1).")
    ] = False,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Hyperparameters, schedules and populations of deep-learning models, in one study with one log."""
    if context.obj is not None and context.invoked_subcommand not in ("run", "resume"):
        raise Misuse("a command behind -- is for run and resume")
    if debug:
        os.environ["TUNESMITH_DEBUG"] = "1"


def execute(arguments: Sequence[str]) -> int:
    """Run a command line.

    Returns:
        The exit code: 0, 1 for a failure, 2 for a command that cannot work as it was given, 130 after Ctrl-C,
        141 when nobody reads the output any more.
    """
    words, command = list(arguments), None
    if "--" in words:
        words, command = words[: words.index("--")], words[words.index("--") + 1 :]
    try:
        code = get_command(app).main(args=words, prog_name="tunesmith", standalone_mode=False, obj=command)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it ends
        return 141
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        if os.environ.get("TUNESMITH_DEBUG"):
            traceback.print_exc()
        sys.stderr.write(f"tunesmith: {one_line(error)}\n")
        return 2 if isinstance(error, Misuse) else int(getattr(error, "exit_code", 1))
