"""Temporary folders that carry the number of their process in their names, and are swept when it is gone."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path


def prefix() -> str:
    """How the name of a temporary folder of this process begins."""
    return f"tunesmith-{socket.gethostname()}-{os.getpid()}-"


def folder() -> Path:
    """A new one, in ``TMPDIR``. The first one of a process is a good moment to sweep."""
    _sweep_once(prefix(), tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix=prefix()))


@cache
def _sweep_once(process: str, place: str) -> None:
    sweep()


def sweep() -> None:
    """Remove the folders of processes of this machine that are gone: nobody else can, and they may be large."""
    ours = f"tunesmith-{socket.gethostname()}"
    with suppress(OSError):
        for path in Path(tempfile.gettempdir()).glob("tunesmith-*-*-*"):
            begin, process, _ = path.name.rsplit("-", 2)
            if begin == ours and process.isdecimal() and not alive(int(process)):
                shutil.rmtree(path, ignore_errors=True)  # it follows no link, and may remove what is ours only


def alive(process: int) -> bool:
    """Whether a process of this machine is there, and has not ended."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    with suppress(OSError):  # on Linux: one that has ended may stay listed, as a zombie
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
