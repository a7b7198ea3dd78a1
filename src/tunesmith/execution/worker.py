"""A local worker process: it takes jobs from a pipe and sends reports back. Started by ``processes.py``."""

from __future__ import annotations

import atexit
import io
import os
import pickle
import signal
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, NoReturn

from tunesmith.errors import TunesmithError
from tunesmith.execution.devices import LOOK, find_gpu

MARK = "TUNESMITH_WORKER"  #: set in the environment of a worker
starting = False
"""True in a worker while it imports the user's script."""


class Setup(NamedTuple):
    """What a worker gets first: how to import the user's script if the code needs it, the pickled code, the options of
    its session without the space, and that, pickled as it may need the script, too.
    """

    preparation: dict[str, Any] | None
    code: bytes
    options: Any
    space: bytes


class Broken(NamedTuple):
    """What a worker sends if it can't start."""

    error: str


READY = "ready"


def refuse_in_worker() -> None:
    """Stop a script that starts its study anew in every worker.

    Raises:
        TunesmithError: this process is a worker that is importing the user's script.
    """
    if starting:
        raise TunesmithError(
            "the script starts its study when it is imported, as every worker process does: put that under "
            '`if __name__ == "__main__":`'
        )


def main(descriptor: int) -> None:
    """Serve the driver at the other end of a socket until it says goodbye or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
    os.set_inheritable(descriptor, False)
    for stream in (sys.stdout, sys.stderr):  # workers share them: what is printed at once stays one line
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)
    connection = Connection(descriptor)
    session = _start(connection)
    if session is None:
        return
    jobs: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_listen, args=(connection, jobs, session), daemon=True).start()
    _send(connection, READY)
    while (job := jobs.get()) is not None:
        for report in session.run(job):
            _send(connection, report)
    session.close()
    _leave()


def _leave() -> NoReturn:
    """End without taking the interpreter down under training threads that are parked, or on their way out of C++ code:
    that would abort. All else that a process does at its end is done.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # ends the threads of pools, and joins those that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(0)


def _start(connection: Connection) -> Any:
    """The session for what the driver sends first; None, and the driver knows, if that can't be."""
    global starting
    setup: Setup = _receive(connection)
    try:
        _look_for_gpu()
        if setup.preparation is not None:
            from multiprocessing import spawn

            starting = True
            spawn.prepare(setup.preparation)
            starting = False
        from tunesmith.execution.adapters import as_task
        from tunesmith.execution.session import Session

        options = replace(setup.options, space=pickle.loads(setup.space))
        return Session(as_task(pickle.loads(setup.code)), options, lambda report: _send(connection, report))
    except TunesmithError as error:
        _send(connection, Broken(str(error)))
    except BaseException:
        _send(connection, Broken(traceback.format_exc()))
    return None


def _look_for_gpu() -> None:
    """Refuse to train on the processor where a GPU was asked for, and the driver could not tell whether it is there."""
    device = os.environ.pop(LOOK, "")
    if device and not find_gpu():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise TunesmithError(f"device {device!r} is not there: no GPU works with CUDA_VISIBLE_DEVICES={visible}")


def _listen(connection: Connection, jobs: SimpleQueue[Any], session: Any) -> None:
    """Pass jobs on; note that the driver wants a break."""
    while True:
        message = _receive(connection)
        if message == "stop":
            session.stopping.set()
        else:
            jobs.put(message)


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):
        _die()


def _send(connection: Connection, message: Any) -> None:
    try:
        connection.send(message)
    except OSError:
        _die()


def _die() -> NoReturn:
    """End with the driver, without a word. This process leads a group: what it started goes with it."""
    os.killpg(0, signal.SIGKILL)
    raise SystemExit  # never
