"""Rows as a table, in text and in HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tunesmith.errors import printable


def text(value: Any) -> str:
    """A value as a person reads it in a table: four significant digits, nothing for None, one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(" ".join(str(value).split()))[:60]


def as_text(rows: Sequence[Mapping[str, Any]], more: int = 0) -> str:
    """Rows as aligned columns under their names; numbers stand right."""
    if not rows:
        return ""
    names = list(rows[0])
    head = [text(name) for name in names]
    cells = [[text(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(head)]
    right = [all(row[name] is None or isinstance(row[name], int | float) for row in rows) for name in names]
    lines = []
    for line in [head, *cells]:
        aligned = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        lines.append("  ".join(aligned).rstrip())
    return "\n".join([*lines, f"... and {more} more"] if more else lines)


def as_html(rows: Sequence[Mapping[str, Any]], caption: str = "") -> str:
    """Rows as an HTML table."""
    head = "".join(f"<th>{escape(text(name))}</th>" for name in (rows[0] if rows else ()))
    body = "".join(f"<tr>{''.join(f'<td>{escape(text(value))}</td>' for value in row.values())}</tr>" for row in rows)
    title = f"<caption>{escape(printable(caption))}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
