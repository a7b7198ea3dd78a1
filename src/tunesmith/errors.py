"""The base of every error that tunesmith itself raises with a message for the user, and text that can be written."""

from __future__ import annotations

from functools import cache
from typing import Any

LONGEST = 6000  #: so many characters of an error are kept


class TunesmithError(Exception):
    """Something went wrong that the message explains, with the way out."""


def install(extra: str) -> str:
    """The command that installs an extra: from the folder of a checkout if tunesmith was installed from there."""
    import shlex

    folder, editable = _checkout()
    if not folder:
        return f"pip install 'tunesmith[{extra}]'"
    return f"pip install {'-e ' if editable else ''}{shlex.quote(f'{folder}[{extra}]')}"


@cache
def _checkout() -> tuple[str, bool]:
    """The folder that tunesmith was installed from, empty if it was none, and whether it is used in place."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        origin = json.loads(distribution("tunesmith").read_text("direct_url.json") or "{}")
        kind = origin.get("dir_info")
        return ("", False) if kind is None else (unquote(urlsplit(origin["url"]).path), bool(kind.get("editable")))
    except (PackageNotFoundError, ValueError, KeyError):
        return "", False


def shortened(text: str, most: int = LONGEST) -> str:
    """Text of this length at most, give or take: of a longer one the beginning and the end."""
    if len(text) <= most:
        return text
    end = most // 3
    begin = most - end
    return f"{text[:begin]} [... {len(text) - most} characters ...] {text[-end:]}"


def clean(text: str) -> str:
    r"""Text that can be written as UTF-8: lone surrogates, as in a file name that is no text, as ``\udcff``."""
    return text.encode(errors="backslashreplace").decode()


def cleaned(value: Any) -> Any:
    """A JSON value of which all texts can be written."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {cleaned(key): cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item) for item in value]
    return value


def printable(text: str) -> str:
    r"""Text that may be shown on a terminal, whoever wrote it: what does something there instead of being seen (escape
    sequences, a bell, a change of the writing direction) becomes ``\u001b``, as in JSON. Ends of lines and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", errors="surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
