"""Fields of a request that may be absent."""

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeVar

from uplift_server.core.own_data import merged

T = TypeVar("T")


class Unset(Enum):
    """The type of UNSET, for annotations of fields that may be absent."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""The value of a field that is absent from the request."""


def given(value: T | Unset) -> T:
    """Return the value of a required field. The caller must have rejected requests without the field."""
    assert not isinstance(value, Unset), "a missing field has already been rejected"
    return value


def given_or(value: T | Unset, default: T) -> T:
    """Return the value of a field, or the default if the field is absent."""
    return default if isinstance(value, Unset) else value


def given_or_none(value: T | Unset | None) -> T | None:
    """Return the value of a field, or None if the field is absent."""
    return None if isinstance(value, Unset) else value


def values_after(
    stored: Mapping[str, str], sent: Mapping[str, str | None] | Unset | None, *, merges: bool
) -> dict[str, str]:
    """Return the metadata that an object has after a request. `stored` is its current metadata.

    If `sent` is UNSET, the metadata does not change. If `merges` is set, `sent` changes only the keys that it contains,
    and the value None removes a key. Otherwise, `sent` replaces all metadata. If `sent` is None, the result is empty.
    """
    if isinstance(sent, Unset):
        return dict(stored)
    return merged(stored if merges and sent is not None else {}, sent or {})
