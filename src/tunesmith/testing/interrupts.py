"""Exceptions at any line: what Ctrl-C does, made repeatable."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import tunesmith

Line = tuple[str, int]  #: a file of the package and a line in it

_PACKAGE = str(Path(tunesmith.__file__).parent)
_TESTING = str(Path(__file__).parent)


class Interrupted(KeyboardInterrupt):
    """Raised in the place of Ctrl-C."""


def lines_of(action: Callable[[], object]) -> list[Line]:
    """The lines of the package that an action runs, each once, in the order in which they are come to first."""
    found: dict[Line, None] = {}
    with _tracing(lambda line: found.setdefault(line)):
        action()
    return list(found)


@contextmanager
def interrupted_at(line: Line) -> Iterator[None]:
    """Raise `Interrupted` once, when the line is come to first inside."""
    left = [line]

    def look(now: Line) -> None:
        if left and now == left[0]:
            left.clear()
            raise Interrupted(f"{now[0]}:{now[1]}")

    with _tracing(look):
        yield


@contextmanager
def _tracing(look: Callable[[Line], object]) -> Iterator[None]:
    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(_PACKAGE) or name.startswith(_TESTING):
            return None
        if event == "line":
            look((name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
