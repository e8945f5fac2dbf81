"""Validation problems as values, so that one response can list all problems."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with one field."""

    field: str
    """The field's name in the API, such as `url` or `headers.X-Team`."""
    code: str
    """For programs. A code never changes."""
    message: str
    """For users: the reason and how to fix it."""
