"""The base of every error that tunesmith itself raises with a message for the user."""


class TunesmithError(Exception):
    """Something went wrong that the message explains, with the way out."""
