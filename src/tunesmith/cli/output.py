"""Results on standard output: aligned text for people, JSON and CSV for programs.

A study may come from a stranger: all of its texts are made printable here.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tunesmith.errors import cleaned, printable

#: how a cell begins that a spreadsheet takes for a formula, and may execute; some are wide forms of the others
_FORMULA = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")


def encode(value: Any) -> str:
    """A value as indented JSON; numbers that are not finite become null."""
    try:
        text = msgspec.json.encode(value, enc_hook=_plain)
    except UnicodeEncodeError:
        text = msgspec.json.encode(cleaned(msgspec.to_builtins(value, enc_hook=_plain, str_keys=True)))
    return printable(msgspec.json.format(text, indent=2).decode()) + "\n"


def as_json(value: Any) -> None:
    """A value as JSON on standard output."""
    sys.stdout.write(encode(value))


def line(text: str = "") -> None:
    """A line of text."""
    sys.stdout.write(printable(text) + "\n")


def table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as aligned columns under their names; numbers stand right."""
    if not rows:
        return
    names = list(rows[0])
    head = [text(name) for name in names]
    cells = [[text(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(head)]
    right = [all(row[name] is None or isinstance(row[name], (int, float)) for row in rows) for name in names]
    for row in [head, *cells]:
        aligned = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        line("  ".join(aligned).rstrip())


def pairs(values: Mapping[str, Any]) -> None:
    """A name and its value on each line."""
    names = [text(name) for name in values]
    width = max(map(len, names), default=0)
    for name, value in zip(names, values.values(), strict=True):
        line(f"{name.ljust(width)}  {text(value)}")


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    names = list(rows[0]) if rows else []
    writer.writerow(map(_cell, names))
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return written.getvalue()


def text(value: Any) -> str:
    """A value as a person reads it: four significant digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{text(name)}={text(item)}" for name, item in value.items())
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return ", ".join(text(item) for item in value)
    return printable(" ".join(str(value).split()))


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(_FORMULA) and not _is_number(value) else value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
