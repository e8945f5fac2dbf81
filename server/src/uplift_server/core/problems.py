"""Validation problems as objects, so that one response can list several problems."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A validation problem with one field, and the message that tells users how to fix it."""

    field: str
    """The field's name in the API, such as `url` or `headers.X-Team`."""
    code: str
    """The code that programs check. A released code never changes."""
    message: str
    """The message for users: the reason and how to fix it."""
