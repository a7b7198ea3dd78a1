"""Training by an external command, in any language."""

from __future__ import annotations

import array
import ast
import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import termios
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tunesmith import temporary
from tunesmith.checkpoints import Files
from tunesmith.errors import TunesmithError
from tunesmith.execution.base import CrashedError, EndedError, current_job, required_metrics
from tunesmith.execution.guard import Guard
from tunesmith.space import Categorical, Constant, Domain, Space
from tunesmith.trials import open_ended

_PLACEHOLDER = re.compile(r"\{([\w.\-]+)\}")
_LINES = re.compile(rb"\r\n|\r|\n")
_TAIL = 2000  # characters of its output in the error of a command
_CHUNK = 1 << 16  # bytes that are read at once
_LOOK = 0.1  # seconds between two looks whether a command that says nothing has ended


@dataclass
class Program:
    """A command in its course.

    Attributes:
        step: how many steps it has told.
        folder: its files.
        load: the state that the next process begins with.
        save: where the process that runs saves its state.
        process, guard, output: the process, its group, and the lines that it prints.
        ahead: metrics that were read before they were wanted.
        offered: states that the process has saved while it runs, each with its step.
        streams: it goes on beyond the step that it was asked for; then it is only listened to, and needs no state.
        measured: metrics that are measured once, and were.
        incomplete: the last JSON object that lacked a metric.
        other: the last lines that were passed over.
    """

    step: int
    folder: Path
    load: Path | None = None
    save: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    guard: Guard | None = None
    output: Iterator[str] = field(default_factory=lambda: iter(()))
    ahead: deque[dict[str, Any]] = field(default_factory=deque)
    offered: list[tuple[int, Path]] = field(default_factory=list)
    streams: bool = False
    measured: set[str] = field(default_factory=set)
    incomplete: dict[str, Any] | None = None
    other: deque[str] = field(default_factory=lambda: deque(maxlen=20))


@dataclass(frozen=True)
class Command:
    """An external command as a task. No shell sees its arguments. It ends with this process, however that ends.

    In the arguments ``{lr}`` stands for the value of the hyperparameter ``lr``, and ``{config}`` for the path of a
    JSON file with the configuration. The command prints one JSON object a step, the metrics, on a line of its own.
    Other lines are passed over, JSON objects without the metrics of the study too. It exits with status 0 when its
    training has come to its end, or step ``TUNESMITH_UNTIL`` is done. Its environment has

    * ``TUNESMITH_CONFIG`` (JSON), ``TUNESMITH_TRIAL``, ``TUNESMITH_SEED``,
    * ``TUNESMITH_REPEAT``: how many earlier trials had the same configuration,
    * ``TUNESMITH_ONCE`` (JSON): the metrics measured once, if there are any, with the value that is known, or null,
    * ``TUNESMITH_START`` and ``TUNESMITH_UNTIL``: train the steps START + 1 to UNTIL; no UNTIL is to train to the end,
    * ``TUNESMITH_LOAD``: directory with the state at START, only where START > 0,
    * ``TUNESMITH_SAVE``: directory for the state at UNTIL.

    A command that saves its state while it goes on writes it into a new directory below ``TUNESMITH_SAVE`` and then
    prints ``{"checkpoint": "its name"}``: the state of the last step that it has told. The directory belongs to the
    study from then on; what is in it will be found in ``TUNESMITH_LOAD``.

    A command that saves nothing can be stopped early all the same, if it goes on beyond ``TUNESMITH_UNTIL``: it is
    listened to from job to job, sleeps between them, and is ended when the trial is given up. Where it is not there any
    more when its trial goes on, in another run for instance, it begins again at step 0.

    Args:
        arguments: the program and its arguments.
        cwd: working directory; the present one by default.
        env: additions to the environment.
    """

    names: ClassVar[bool] = True  # a program gets the configuration as JSON

    arguments: Sequence[str | os.PathLike[str]]
    cwd: str | os.PathLike[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.arguments, str | bytes) or not self.arguments:
            raise TypeError(
                f'Command: {self.arguments!r} must be a list, such as ["python", "train.py", "--lr={{lr}}"]'
            )

    def unused(self, space: Space) -> list[str]:
        """The parameters of a space that no argument takes, where some are taken: they may have been forgotten. A
        program that gets ``{config}`` has them all.
        """
        used = {name for argument in self.arguments for name in _PLACEHOLDER.findall(os.fspath(argument))}
        searched = _searched(space)
        return [] if "config" in used or not used & set(searched) else [name for name in searched if name not in used]

    def init(self, config: Any, rng: Any) -> Program:
        """Nothing is started yet."""
        return Program(0, _folder(config))

    def step(self, state: Program, config: Any) -> tuple[Program, dict[str, Any]]:
        """Read the metrics of the next step; start the process at the first one of a job."""
        job = current_job()
        if state.streams:
            _signal(state, signal.SIGCONT)
        elif state.process is None:
            self._start(state, config)
        metrics = state.ahead.popleft() if state.ahead else _read(state)
        if metrics is None:
            _finish(state)
            raise EndedError(_silent(state))
        state.step += 1
        if state.step == job.until:
            self._come_to_the_end_of_a_job(state, job.final)
        return state, metrics

    def _come_to_the_end_of_a_job(self, state: Program, final: bool) -> None:
        """Let the process exit, as it should; one that goes on sleeps until it is wanted, or is ended.

        It may say at its end once more how well it did. So two more steps show that it goes on.
        """
        while len(state.ahead) < 2 and (final or not state.streams):
            more = _read(state)
            if more is None:
                _finish(state)
                state.streams = bool(state.ahead) and state.load is None
                break
            state.ahead.append(more)
        else:
            state.streams = True
        if final:
            _kill(state)
        if state.streams:
            _signal(state, signal.SIGSTOP)
        else:
            state.ahead.clear()

    def offer(self, state: Program) -> tuple[int, Files] | None:
        """The newest state that the process has saved while it runs, of a step that was told, and this step."""
        newest = _newest(state)
        return None if newest is None else (newest[0], _files(newest[1]))

    def save(self, state: Program) -> Files | None:
        """What the finished process left in ``TUNESMITH_SAVE``."""
        return None if state.process is not None or state.load is None else _files(state.load)

    def load(self, tree: Path, config: Any) -> Program:
        """Go on from the directory of a checkpoint."""
        program = Program(int(tree.stem), _folder(config))
        program.load = program.folder / "load"
        shutil.copytree(tree, program.load)
        return program

    def lasts(self, state: Program) -> bool:
        """Whether the process goes on, or has left a state. Otherwise the next job begins again at step 0."""
        return state.streams or state.process is not None or state.load is not None

    def close(self, state: Program) -> None:
        """Kill the process, with all that it has started, and remove its files."""
        _kill(state)
        shutil.rmtree(state.folder, ignore_errors=True)

    def _start(self, state: Program, config: Mapping[str, Any]) -> None:
        job = current_job()
        state.save = state.folder / f"save-{job.until}"
        state.save.mkdir(exist_ok=True)
        environment = os.environ | dict(self.env)
        environment |= {
            "TUNESMITH_CONFIG": json.dumps(dict(config)),
            "TUNESMITH_TRIAL": str(job.trial),
            "TUNESMITH_SEED": str(job.seed),
            "TUNESMITH_REPEAT": str(job.repeat),
            "TUNESMITH_START": str(state.step),
            "TUNESMITH_UNTIL": str(job.until),
            "TUNESMITH_SAVE": str(state.save),
        }
        if open_ended(job.until):
            del environment["TUNESMITH_UNTIL"]
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
                if isinstance(error, PermissionError) and state.guard is not None and state.guard.lost:
                    raise CrashedError(f"the command {arguments!r} was ended as it started") from None
                raise TunesmithError(f"the command {arguments!r} can't be started: {error}") from None
        state.output = _lines(state.process)


def _searched(domains: Mapping[str, Domain]) -> list[str]:
    """The names of all parameters that may vary, those of branches included."""
    names: dict[str, None] = {}
    for name, domain in domains.items():
        if not isinstance(domain, Constant):
            names[name] = None
        if isinstance(domain, Categorical):
            names |= dict.fromkeys(name for branch in domain.branches if branch for name in _searched(branch))
    return list(names)


def _files(source: Path) -> Files:
    """A state that stands in a file or a directory."""

    def write(path: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, path, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, path / source.name)

    return Files(write)


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


def _read(state: Program) -> dict[str, Any] | None:
    """The metrics that the process prints next; None at the end of its output."""
    once = current_job().once
    state.measured.update(name for name, value in once.items() if value is not None)
    wanted = [name for name in required_metrics() if name not in state.measured]
    for line in state.output:
        found = _json(line)
        if found is None:
            state.other.append(f"{line}\n")
        elif found.keys() == {"checkpoint"}:
            _take(state, found["checkpoint"])
        elif all(name in found for name in wanted):
            state.measured.update(name for name in once if found.get(name) is not None)
            return found
        else:
            state.incomplete = found
    return None


def _json(line: str) -> dict[str, Any] | None:
    """A line that is a JSON object; None for others."""
    if line.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            return dict(json.loads(line))
    return None


def _take(state: Program, name: Any) -> None:
    """The process has saved a state under this name: put it where the process no longer writes."""
    assert state.save is not None
    source = state.save / str(name)
    if source not in state.save.iterdir():
        raise TunesmithError(f"the command says that its state is in {name!r}, which is not there in $TUNESMITH_SAVE")
    taken = Path(tempfile.mkdtemp(prefix="offered-", dir=state.folder)) / source.name
    source.rename(taken)
    state.offered.append((state.step + len(state.ahead), taken))


def _newest(state: Program) -> tuple[int, Path] | None:
    """Take the newest of the offered states whose step was told; older ones are of no use any more."""
    told = [offered for offered in state.offered if offered[0] <= state.step]
    state.offered = state.offered[len(told) :]
    for _, path in told[:-1]:
        shutil.rmtree(path.parent, ignore_errors=True)
    return told[-1] if told else None


def _silent(state: Program) -> str:
    """What to say of a command that has ended without telling its metrics."""
    if state.incomplete is not None:
        lacking = ", ".join(repr(name) for name in required_metrics() if name not in state.incomplete)
        return f"the command never printed {lacking}: its last JSON object has {', '.join(map(repr, state.incomplete))}"
    text = "the command exited with status 0; it must print its metrics once a step, as a JSON object on a line"
    lines = "".join(state.other).strip()[-_TAIL:]
    if any(_like_python(line) for line in state.other):
        text += '; in JSON names stand in double quotes, such as {"loss": 0.5}: in Python, print(json.dumps(metrics))'
    return f"{text}. {f'It printed:{chr(10)}{lines}' if lines else 'It printed nothing'}"


def _like_python(line: str) -> bool:
    """Whether a line is a dict as Python shows it."""
    if not line.lstrip().startswith("{"):
        return False
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return isinstance(ast.literal_eval(line.strip()), dict)
    return False


def _signal(state: Program, number: int) -> None:
    """Let the process sleep or go on; not its group, whose guard must stay awake."""
    if state.process is not None:
        with suppress(ProcessLookupError):
            state.process.send_signal(number)


def _kill(state: Program) -> None:
    if state.guard is not None:
        state.guard.kill()
        _release(state)


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
    if state.process is None:
        return
    status = state.process.wait()
    tail = (_tail(state.folder / "errors") or "".join(state.other))[-_TAIL:].strip()
    arguments = state.process.args
    if status:
        assert state.guard is not None
        state.guard.kill()  # what a broken command has left is of no use to anyone
    _release(state)
    if status < 0:
        raise CrashedError(f"the command {arguments!r} was ended by signal {_name(-status)}:\n{tail}")
    if status:
        raise TunesmithError(f"the command {arguments!r} failed with exit status {status}:\n{tail}")
    assert state.save is not None
    previous, state.load = state.load, state.save if any(state.save.iterdir()) else None
    if state.load is None and state.offered and state.offered[-1][0] == state.step:
        _, taken = state.offered.pop()  # what it saved last while it ran is its state at its end
        state.load = taken if taken.is_dir() else taken.parent
    if previous is not None:
        shutil.rmtree(previous)


def _name(number: int) -> str:
    """Of a signal; those for real-time use have none."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return str(number)


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
