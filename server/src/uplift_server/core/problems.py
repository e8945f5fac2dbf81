"""What is wrong with something a person or a program asked for: a value, so that all of it can be told at once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one field."""

    field: str
    """Where: the field's name as the API shows it, such as `url` or `headers.X-Team`."""
    code: str
    """What, for programs; never changes."""
    message: str
    """What, for people: the reason, and what to do about it."""
