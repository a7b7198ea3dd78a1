"""The command that shows which optimizers there are, and which contains which."""

from __future__ import annotations

import json as json_library
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from tunesmith.optimizers import RULES, Rule
from tunesmith.optimizers.taxonomy import INCLUSIONS


def optimizers(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Show the optimizers, their update rules and hyperparameters, and which of them contains which."""
    if json:
        typer.echo(json_library.dumps({"optimizers": _rules(), "inclusions": _inclusions()}, indent=2))
        return
    for line in _text():
        typer.echo(line)


def _rules() -> list[dict[str, Any]]:
    return [
        {"name": name, "hyperparameters": dict(rule.defaults), "rule": list(rule.formula)}
        for name, rule in RULES.items()
    ]


def _inclusions() -> list[dict[str, Any]]:
    return [{"special": one.special, "general": one.general, "how": one.how, "exact": one.exact} for one in INCLUSIONS]


def _text() -> Iterator[str]:
    for name, rule in RULES.items():
        yield f"{name:9} {_hyperparameters(rule)}"
        yield from (f"          {line}" for line in rule.formula)
    yield ""
    yield "An optimizer can do whatever those on its left can, with the right hyperparameters:"
    yield ""
    contained = {one.general for one in INCLUSIONS}
    for root in (name for name in RULES if name not in contained):
        yield from _tree(root)
    yield ""
    for one in INCLUSIONS:
        yield f"{one.special:9} in {one.general:9} {one.how}"


def _hyperparameters(rule: Rule) -> str:
    return "  ".join(name if usual is None else f"{name}={usual:g}" for name, usual in rule.defaults.items())


def _tree(name: str) -> list[str]:
    """The optimizers that contain this one, to its right: the first on its line, each other one on a line below."""
    lines: list[str] = []
    branches = [one.general for one in INCLUSIONS if one.special == name]
    indent = " " * len(name)
    for number, branch in enumerate(branches):
        last = number == len(branches) - 1
        mark = f"{name} {'---' if last else '-+-'} " if number == 0 else f"{indent} {' +-' if not last else ' `-'} "
        rest = f"{indent} {'    ' if last else ' |  '}"
        below = _tree(branch)
        lines += [mark + below[0], *(rest + line for line in below[1:])]
    return lines or [name]
