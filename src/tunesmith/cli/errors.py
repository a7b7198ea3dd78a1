"""What went wrong, as one line."""

from __future__ import annotations

from tunesmith.errors import TunesmithError, printable


class Misuse(TunesmithError, ValueError):  # noqa: N818 - not an error of the program
    """The command was called in a way that cannot work: exit code 2."""


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks; with its class where the message alone may say too little."""
    return printable(_message(error))


def _message(error: BaseException) -> str:
    if hasattr(error, "format_message"):  # typer's own errors
        return " ".join(error.format_message().split())
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(text.split())
    if isinstance(error, (TunesmithError, ValueError, OSError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
