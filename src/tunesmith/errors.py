"""The base of every error that tunesmith itself raises with a message for the user."""


class TunesmithError(Exception):
    """Something went wrong that the message explains, with the way out."""


def clean(text: str) -> str:
    """The text with what is not valid UTF-8 (lone surrogates, as in names of files) as backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
