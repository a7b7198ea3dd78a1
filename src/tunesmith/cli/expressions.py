"""Constructors written as text: ``PBT(population=16, ready=200)``. Read as syntax, never evaluated."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from typing import Any

from tunesmith.cli.errors import Misuse


def construct(text: str, known: Mapping[str, Any], what: str, parts: Mapping[str, Any] | None = None) -> Any:
    """The object that a text such as ``QMC`` or ``PBT(population=16)`` describes.

    Arguments are literals or further known constructors; any other syntax is an error, so the text can do nothing.

    Args:
        text: a name, or a call with literal arguments.
        known: the callables that may be named.
        what: what the text describes, for errors: ``"scheduler"``.
        parts: what may be named inside the arguments; by default the same.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise Misuse(f"{what} {text!r} cannot be read; write it like {_example(known)}") from None
    if isinstance(node, ast.Name):
        node = ast.Call(func=node, args=[], keywords=[])
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise Misuse(f"{what} {text!r} is not a name with arguments; write it like {_example(known)}")
    return _call(node, known, known if parts is None else parts, what)


def _call(node: ast.Call, known: Mapping[str, Any], parts: Mapping[str, Any], what: str) -> Any:
    assert isinstance(node.func, ast.Name)
    name = node.func.id
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise Misuse(f"there is no {what} {name!r}; {hint}known: {', '.join(sorted(known))}")
    if any(keyword.arg is None for keyword in node.keywords):
        raise Misuse(f"{what} {ast.unparse(node)!r}: arguments are values or name=value, ** is not understood")
    arguments = [_value(argument, parts, what) for argument in node.args]
    options = {str(keyword.arg): _value(keyword.value, parts, what) for keyword in node.keywords}
    try:
        return known[name](*arguments, **options)
    except (TypeError, ValueError) as error:
        raise Misuse(f"{what} {ast.unparse(node)!r}: {error}") from error


def _value(node: ast.expr, parts: Mapping[str, Any], what: str) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _call(node, parts, parts, what)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise Misuse(f"{what}: {ast.unparse(node)!r} is not a number, a string or a list of these") from None


def _example(known: Mapping[str, Any]) -> str:
    return f"{min(known, key=len)} or {min(known, key=len)}(name=value)"
