"""Versions of objects.

The caller of an update can name the expected version, so that the update does not overwrite a change that the caller
has not seen.
"""

import hashlib

from uplift_server.service.errors import PreconditionFailed
from uplift_server.store.records import Account, Endpoint, EventType

Record = Account | Endpoint | EventType
Versions = frozenset[str] | None
"""The object versions that the caller of an update expects. None means any version."""
ANY = "*"
"""A version that matches every object that exists."""


def version_of(record: Record) -> str:
    """Return the version of an object. Each update, and each change to an endpoint's state, changes the version."""
    state_since = record.state_since if isinstance(record, Endpoint) else None
    parts = f"{type(record).__name__} {record.seq} {record.updated_at} {state_since}"
    return hashlib.sha256(parts.encode()).hexdigest()[:24]


def require_version(record: Record | None, expected: Versions) -> None:
    """Raise PreconditionFailed unless the object exists and has one of the expected versions.

    The caller must have locked the object.
    """
    if expected is None or (record is not None and (ANY in expected or version_of(record) in expected)):
        return
    raise PreconditionFailed
