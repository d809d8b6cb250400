"""The errors that a user is meant to see, and their text on one line."""

import re

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class InputError(Exception):
    """Something the user gave is wrong. The message names the thing, what was allowed, and what to do."""


class VideoError(Exception):
    """A clip of which nothing can be had. The message is the reason, without the clip's path."""


def printable(text: str) -> str:
    """Return the text with control characters escaped, so that whatever a file is called, it is told in one line."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(error: InputError) -> str:
    """Return the error's message as one line, without the traceback that a DataLoader's worker wraps it in."""
    message = str(error)
    if message.startswith("Caught InputError in DataLoader worker"):
        message = message.rpartition("InputError: ")[2]
    return printable(" ".join(message.split()))


def check_at_least(flag: str, value: float, least: int) -> None:
    """Raise InputError where a flag's value is below the least one there is, infinite, or no number."""
    if not least <= value < float("inf"):
        raise InputError(f"{flag} {value:g} must be {least} or more")
