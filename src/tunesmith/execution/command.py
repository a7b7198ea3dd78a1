"""Training by an external command, in any language."""

from __future__ import annotations

import array
import fcntl
import json
import os
import re
import select
import shutil
import subprocess
import termios
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith import temporary
from tunesmith.checkpoints import Files
from tunesmith.errors import TunesmithError
from tunesmith.execution.base import ContinueError, EndedError, current_job
from tunesmith.execution.guard import Guard

_PLACEHOLDER = re.compile(r"\{([\w.\-]+)\}")
_LINES = re.compile(rb"\r\n|\r|\n")
_TAIL = 2000  # characters of its output in the error of a command
_CHUNK = 1 << 16  # bytes that are read at once
_LOOK = 0.1  # seconds between two looks whether a command that says nothing has ended


@dataclass
class Program:
    """A command in its course: a process runs for one job, and leaves what the next one needs in ``save``."""

    step: int
    folder: Path
    load: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    guard: Guard | None = None
    output: Iterator[str] = field(default_factory=lambda: iter(()))
    other: deque[str] = field(default_factory=lambda: deque(maxlen=20))


@dataclass(frozen=True)
class Command:
    """An external command as a task. No shell sees its arguments. It ends with this process, however that ends.

    In the arguments ``{lr}`` stands for the value of the hyperparameter ``lr``, and ``{config}`` for the path of a
    JSON file with the configuration. The command prints one JSON object a step, the metrics, on a line of its own
    (other lines are passed over) and exits with status 0 when step ``TUNESMITH_UNTIL`` is done. Its environment has

    * ``TUNESMITH_CONFIG`` (JSON), ``TUNESMITH_TRIAL``, ``TUNESMITH_SEED``,
    * ``TUNESMITH_REPEAT``: how many earlier trials had the same configuration,
    * ``TUNESMITH_ONCE`` (JSON): the metrics measured once, if there are any, with the value that is known, or null,
    * ``TUNESMITH_START`` and ``TUNESMITH_UNTIL``: train the steps START + 1 to UNTIL,
    * ``TUNESMITH_LOAD``: directory with the state at START, only where START > 0,
    * ``TUNESMITH_SAVE``: directory for the state at UNTIL; a command that writes nothing there can't be continued.

    Args:
        arguments: the program and its arguments.
        cwd: working directory; the present one by default.
        env: additions to the environment.
    """

    arguments: Sequence[str | os.PathLike[str]]
    cwd: str | os.PathLike[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.arguments, str | bytes) or not self.arguments:
            raise TypeError(
                f'Command: {self.arguments!r} must be a list, such as ["python", "train.py", "--lr={{lr}}"]'
            )

    def init(self, config: Any, rng: Any) -> Program:
        """Nothing is started yet."""
        return Program(0, _folder(config))

    def step(self, state: Program, config: Any) -> tuple[Program, dict[str, Any]]:
        """Read the metrics of the next step; start the process at the first one of a job."""
        if state.process is None:
            self._start(state, config)
        metrics = _next_metrics(state)
        if metrics is None:
            _finish(state)
            raise EndedError(
                "the command exited with status 0; it must print its metrics once a step, as a JSON object on a line"
            )
        state.step += 1
        if state.step == current_job().until:
            while _next_metrics(state) is not None:
                pass  # beyond what was asked for
            _finish(state)
        return state, metrics

    def save(self, state: Program) -> Files | None:
        """What the finished process left in ``TUNESMITH_SAVE``."""
        if state.process is not None or state.load is None:
            return None
        source = state.load
        return Files(lambda path: shutil.copytree(source, path, dirs_exist_ok=True))

    def load(self, tree: Path, config: Any) -> Program:
        """Go on from the directory of a checkpoint."""
        program = Program(int(tree.stem), _folder(config))
        program.load = program.folder / "load"
        shutil.copytree(tree, program.load)
        return program

    def close(self, state: Program) -> None:
        """Kill the process, with all that it has started, and remove its files."""
        if state.guard is not None:
            state.guard.kill()
            _release(state)
        shutil.rmtree(state.folder, ignore_errors=True)

    def _start(self, state: Program, config: Mapping[str, Any]) -> None:
        if state.step > 0 and state.load is None:
            raise ContinueError(
                f"the command wrote nothing to $TUNESMITH_SAVE at step {state.step}: it can't be continued"
            )
        job = current_job()
        save = state.folder / f"save-{job.until}"
        save.mkdir(exist_ok=True)
        environment = os.environ | dict(self.env)
        environment |= {
            "TUNESMITH_CONFIG": json.dumps(dict(config)),
            "TUNESMITH_TRIAL": str(job.trial),
            "TUNESMITH_SEED": str(job.seed),
            "TUNESMITH_REPEAT": str(job.repeat),
            "TUNESMITH_START": str(state.step),
            "TUNESMITH_UNTIL": str(job.until),
            "TUNESMITH_SAVE": str(save),
        }
        if state.load is not None:
            environment["TUNESMITH_LOAD"] = str(state.load)
        if job.once:
            environment["TUNESMITH_ONCE"] = json.dumps(dict(job.once))
        values = {name: str(value) for name, value in config.items()} | {"config": str(state.folder / "config.json")}
        arguments = [_fill(os.fspath(argument), values) for argument in self.arguments]
        with (state.folder / "errors").open("wb") as errors:
            try:
                state.guard = Guard()  # Ctrl-C is for the driver, not for the command, which ends with the driver
                state.process = subprocess.Popen(
                    arguments, cwd=self.cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=errors, process_group=state.guard.group,
                )  # fmt: skip
            except OSError as error:
                raise TunesmithError(f"the command {arguments!r} can't be started: {error}") from None
        state.output = _lines(state.process)


def _folder(config: Mapping[str, Any]) -> Path:
    folder = temporary.folder()
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return folder


def _fill(argument: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise TunesmithError(
                f"Command: {match[0]} in {argument!r} is no hyperparameter of this configuration: {sorted(values)}"
            )
        return values[match[1]]

    return _PLACEHOLDER.sub(value, argument)


def _next_metrics(state: Program) -> dict[str, Any] | None:
    """The next line that is a JSON object; None at the end of the output."""
    for line in state.output:
        if line.lstrip().startswith("{"):
            with suppress(json.JSONDecodeError):
                return dict(json.loads(line))
        state.other.append(f"{line}\n")
    return None


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """What a process prints. It ends with the process: something that it left running may still hold its output."""
    rest = b""
    for chunk in _chunks(process):
        *lines, rest = _LINES.split(rest + chunk)
        yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def _chunks(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    while process.poll() is None:
        if waiting.poll(1000 * _LOOK):
            chunk = os.read(pipe, _CHUNK)
            if not chunk:
                return
            yield chunk
    left = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, left)  # of the process itself: what comes later is from others
    while left[0] and (chunk := os.read(pipe, min(left[0], _CHUNK))):
        left[0] -= len(chunk)
        yield chunk


def _finish(state: Program) -> None:
    """Wait for the process; what it saved is where the next job goes on."""
    assert state.process is not None
    status = state.process.wait()
    tail = (_tail(state.folder / "errors") or "".join(state.other))[-_TAIL:].strip()
    arguments = state.process.args
    if status:
        assert state.guard is not None
        state.guard.kill()  # what a broken command has left is of no use to anyone
    _release(state)
    if status:
        raise TunesmithError(f"the command {arguments!r} failed with exit status {status}:\n{tail}")
    save = state.folder / f"save-{current_job().until}"
    previous, state.load = state.load, save if any(save.iterdir()) else None
    if previous is not None:
        shutil.rmtree(previous)


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read().decode(errors="replace")


def _release(state: Program) -> None:
    if state.process is not None:
        assert state.process.stdout is not None
        state.process.stdout.close()
        state.process.wait()
    if state.guard is not None:
        state.guard.release()
    state.process, state.guard, state.output = None, None, iter(())
