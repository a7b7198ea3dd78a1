"""Processes that end with the one that started them, however that ends: ``kill -9``, a crash, a closed terminal."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

_DYING = 0.1  # seconds within which a process that was killed is gone
#: waits until nobody holds the other end of its pipe any more, and takes its whole group along
_WATCH = "trap '' HUP INT QUIT TERM; read -r _; kill -s KILL 0"


class Guard:
    """A process group that does not outlive this process: start others with ``process_group=guard.group``.

    The leader of the group is a shell that reads from a pipe. This process holds the other end, which the operating
    system closes when it is gone. No signal handler, thread or timer is involved, so nothing can keep it from working.
    """

    def __init__(self) -> None:
        reader, self._pipe = os.pipe()
        _pipes.add(self._pipe)
        try:
            self._leader = subprocess.Popen(
                ["/bin/sh", "-c", _WATCH], stdin=reader, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={},
                process_group=0,
            )  # fmt: skip
        except BaseException:
            self._let_go()
            raise
        finally:
            os.close(reader)
        self.group = self._leader.pid

    @property
    def lost(self) -> bool:
        """Whether its leader was killed from outside: then the group is none, and nobody can be started in it."""
        with suppress(subprocess.TimeoutExpired):
            self._leader.wait(_DYING)
        return self._leader.returncode is not None

    def kill(self) -> None:
        """End all processes of the group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, signal.SIGKILL)
        self._end()

    def release(self) -> None:
        """Let those that are left in the group go their own way."""
        self._leader.kill()
        self._end()

    def _end(self) -> None:
        self._let_go()
        self._leader.wait()

    def _let_go(self) -> None:
        if self._pipe in _pipes:
            _pipes.discard(self._pipe)
            os.close(self._pipe)


def _close_all() -> None:
    """In a child that was forked: it has inherited the pipes, and would hold them when this process is dead."""
    while _pipes:
        os.close(_pipes.pop())


_pipes: set[int] = set()
os.register_at_fork(after_in_child=_close_all)
