"""Versions of objects, so that an update does not overwrite a change that its caller has not seen."""

import hashlib

from uplift_server.service.errors import PreconditionFailed
from uplift_server.store.records import Account, Endpoint, EventType

Record = Account | Endpoint | EventType
Versions = frozenset[str] | None
"""The versions that the caller of an update expects. None accepts any version."""
ANY = "*"
"""The value that matches every version of an object that exists."""


def version_of(record: Record) -> str:
    """Return the version of an object. The version changes with each update, and with the state of an endpoint."""
    state_since = record.state_since if isinstance(record, Endpoint) else None
    parts = f"{type(record).__name__} {record.seq} {record.updated_at} {state_since}"
    return hashlib.sha256(parts.encode()).hexdigest()[:24]


def require_version(record: Record | None, expected: Versions) -> None:
    """Raise PreconditionFailed unless an object has an expected version. Lock the object first."""
    if expected is None or (record is not None and (ANY in expected or version_of(record) in expected)):
        return
    raise PreconditionFailed
