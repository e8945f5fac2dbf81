"""Stored `Idempotency-Key` values of requests that create objects.

The transaction that creates an object also stores the request's key. `store.repeated_events` handles event keys, which
are stored with the events.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.errors import Conflict
from uplift_server.store.schema import idempotent_creates

T = TypeVar("T")

# The insert waits for a concurrent transaction with the same key.
_CLAIM: Final = sa.text(
    "INSERT INTO idempotent_creates (account_seq, key, kind, request_digest, object_id, created_at)"
    " VALUES (:account_seq, :key, :kind, :digest, :object_id, :now) ON CONFLICT DO NOTHING"
)

GONE: Final = "The object created with this Idempotency-Key was deleted. Use a new key."
NO_ACCOUNT: Final = 0
"""The account number for operator requests that do not concern a single account."""


class KeyReused(Conflict):
    """The idempotency key was used for another request, or for an object that was deleted."""


@dataclass(frozen=True, slots=True)
class Request:
    """The properties of a create request that must be the same if the request is repeated."""

    account_seq: int
    """The number of the account that owns the object, or NO_ACCOUNT."""
    key: str
    kind: str
    """The kind of the created object, followed by the endpoint's ID for a secret or a test."""
    digest: bytes
    """The SHA-256 digest of the request body."""


def create_once(
    connection: Connection,
    request: Request | None,
    *,
    object_id: bytes,
    now: int,
    create: Callable[[], T],
    load: Callable[[bytes], T | None],
) -> tuple[T, bool]:
    """Create an object, or load the object that an earlier request with the same key created.

    Return the object, and whether the request is a repeat. `create` creates the object with `object_id`. `load` returns
    an object by its ID, or None if it was deleted. If `request` is None, always create an object. Raises KeyReused if
    the key was used for another request, or if the object was deleted.
    """
    if request is None:
        return create(), False
    values: dict[str, Any] = {**asdict(request), "object_id": object_id, "now": now}
    while connection.execute(_CLAIM, values).rowcount == 0:
        earlier_id = find(connection, request)
        if earlier_id is not None:
            earlier = load(earlier_id)
            if earlier is None:
                raise KeyReused(GONE)
            return earlier, True
    return create(), False


def find(connection: Connection, request: Request) -> bytes | None:
    """Return the ID of the object that an earlier request with the same key created, if any.

    Raises KeyReused if the key was used for another request.
    """
    own = (idempotent_creates.c.account_seq == request.account_seq, idempotent_creates.c.key == request.key)
    row = connection.execute(sa.select(idempotent_creates).where(*own)).first()
    if row is None:
        return None
    if row.kind != request.kind or row.request_digest != request.digest:
        raise KeyReused("This Idempotency-Key was used for another request. Use a new key.")
    found: bytes = row.object_id
    return found
