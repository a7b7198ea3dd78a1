"""The base of every error that tunesmith itself raises with a message for the user, and text that can be written."""

from __future__ import annotations


class TunesmithError(Exception):
    """Something went wrong that the message explains, with the way out."""


def clean(text: str) -> str:
    r"""Text that can be written as UTF-8: lone surrogates, as in a file name that is no text, as ``\udcff``."""
    return text.encode(errors="backslashreplace").decode()
