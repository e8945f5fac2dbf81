"""Fields of a request that may not have been sent."""

from enum import Enum
from typing import Final, TypeVar

T = TypeVar("T")


class Unset(Enum):
    """The type of UNSET."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""Stands for a field that was not sent, which is not the same as one sent empty."""


def given(value: T | Unset) -> T:
    """A field that was found to be there."""
    assert not isinstance(value, Unset), "missing fields were refused before"
    return value


def given_or(value: T | Unset, default: T) -> T:
    """A field, or what stands for it where it was not sent."""
    return default if isinstance(value, Unset) else value


def given_or_none(value: T | Unset | None) -> T | None:
    """A field whose absence and whose null mean the same."""
    return None if isinstance(value, Unset) else value
