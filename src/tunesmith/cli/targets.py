"""Finds the code that a command line names: ``file.py:name`` or ``package.module:name``."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from tunesmith.cli.errors import Misuse


def load(target: str) -> tuple[Any, ModuleType]:
    """The object a target names, and the module it stands in.

    A file is imported under its own name with its folder on the path, as ``python file.py`` does it, so that
    worker processes find it again.
    """
    place, colon, name = target.rpartition(":")
    if not (colon and place and name):
        raise Misuse(f"target {target!r} names no function; write it as file.py:function or package.module:function")
    module = _file(Path(place)) if place.endswith(".py") else _module(place)
    if hasattr(module, name):
        return getattr(module, name), module
    near = difflib.get_close_matches(name, [n for n in vars(module) if not n.startswith("_")], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "check the name behind the colon"
    raise Misuse(f"{place} defines no {name!r}; {hint}")


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise Misuse(f"there is no file {path}; a target is file.py:function or package.module:function")
    path = path.resolve()
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None or not name.isidentifier():
        raise Misuse(f"{path.name} cannot be imported as {name!r}, which is taken or no identifier; rename the file")
    sys.path.insert(0, str(path.parent))
    return _module(name)


def _module(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if missing == name or name.startswith(f"{missing}."):
            raise Misuse(
                f"there is no module {missing!r}; a target is file.py:function or package.module:function"
            ) from error
        raise Misuse(f"{name} needs the module {missing!r}, which is not installed") from error
    except SyntaxError as error:
        raise Misuse(f"{error.filename}, line {error.lineno}: {error.msg}") from error
