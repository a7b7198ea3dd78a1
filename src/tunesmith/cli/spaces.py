"""Search spaces written in a file: TOML or JSON, read as data."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tunesmith.space as domains
from tunesmith.cli.errors import Misuse
from tunesmith.cli.expressions import construct
from tunesmith.space import Categorical, Space

_DOMAINS = {
    name: getattr(domains, name)
    for name in ("Float", "Integer", "Ordinal", "Categorical", "Constant", "Fidelity", "Prior")
}
_CONSTRAINTS = {name: getattr(domains, name) for name in ("less_than", "forbid", "sum_at_most", "sum_to")}


def read(path: Path) -> Space:
    """The space that a file describes.

    The file holds a table ``space`` and optionally a list ``constraints``. A parameter is a constructor as text
    (``lr = "Float(1e-5, 1e-1, log=True)"``), a bare scalar (a constant), or a table with one table for every
    option: a categorical whose options bring parameters of their own.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise Misuse(
            f"there is no file {path}; --space names a .toml or .json file, or a variable of the target"
        ) from None
    except ValueError as error:
        raise Misuse(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("space"), dict):
        raise Misuse(f"{path} has no table 'space' with the parameters")
    unknown = sorted(content.keys() - {"space", "constraints"})
    if unknown:
        raise Misuse(f"{path}: unknown entry {unknown[0]!r}; parameters stand in the table 'space'")
    constraints = [construct(str(rule), _CONSTRAINTS, "constraint") for rule in content.get("constraints", [])]
    return _space(content["space"], constraints)


def _space(parameters: Mapping[str, Any], constraints: list[Any] | None = None) -> Space:
    found = {name: _domain(name, value) for name, value in parameters.items()}
    try:
        return Space(found, constraints=constraints or [])
    except (TypeError, ValueError) as error:
        raise Misuse(str(error)) from error


def _domain(name: str, value: Any) -> Any:
    if isinstance(value, str):
        try:
            return construct(value, _DOMAINS, "domain")
        except Misuse as error:
            raise Misuse(f"parameter {name!r}: {error}") from error
    if isinstance(value, Mapping):
        for option, branch in value.items():
            if not isinstance(branch, Mapping):
                raise Misuse(f"parameter {name!r}: option {option!r} must be a table of parameters (it may be empty)")
        return Categorical({option: _space(branch) for option, branch in value.items()})
    if isinstance(value, list):
        raise Misuse(f'parameter {name!r}: write "Categorical({value})" or "Ordinal({value})" for a list')
    return value
