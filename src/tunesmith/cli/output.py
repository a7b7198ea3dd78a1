"""Results on standard output: aligned text for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec


def encode(value: Any) -> str:
    """A value as indented JSON; numbers that are not finite become null."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2).decode() + "\n"


def as_json(value: Any) -> None:
    """A value as JSON on standard output."""
    sys.stdout.write(encode(value))


def line(text: str = "") -> None:
    """A line of text."""
    sys.stdout.write(text + "\n")


def table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as aligned columns under their names; numbers stand right."""
    if not rows:
        return
    names = list(rows[0])
    cells = [[text(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    right = [all(row[name] is None or isinstance(row[name], (int, float)) for row in rows) for name in names]
    for row in [names, *cells]:
        aligned = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        line("  ".join(aligned).rstrip())


def pairs(values: Mapping[str, Any]) -> None:
    """A name and its value on each line."""
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        line(f"{name.ljust(width)}  {text(value)}")


def text(value: Any) -> str:
    """A value as a person reads it: four significant digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={text(item)}" for name, item in value.items())
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return ", ".join(text(item) for item in value)
    return " ".join(str(value).split())


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
