"""What was created under an `Idempotency-Key`, remembered in the transaction that created it.

Keys of events are remembered with the events; these are those of every other call that creates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.errors import Conflict
from uplift_server.store.schema import idempotent_creates

T = TypeVar("T")

GONE: Final = "What was created with this Idempotency-Key has been deleted. Use a new key."
NO_ACCOUNT: Final = 0
"""Whose keys an operator's are who acts for no account."""


class KeyTaken(Conflict):
    """The key stands for something else."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is recognised when it comes again."""

    account_seq: int
    """NO_ACCOUNT or the account the object belongs to."""
    key: str
    kind: str
    """What is created, and within what."""
    digest: bytes
    """The SHA-256 of the request's body."""


def once(
    connection: Connection,
    request: Request | None,
    *,
    object_id: bytes,
    now: int,
    create: Callable[[], T],
    load: Callable[[bytes], T | None],
) -> tuple[T, bool]:
    """Create something unless the same request has done so before; whether it has.

    `create` makes the object with `object_id`, `load` reads an earlier one; without a request it is simply created.
    Raises KeyTaken where the key was used for another request, or what it created is no longer there.
    """
    if request is None:
        return create(), False
    earlier_id = find(connection, request)
    if earlier_id is None:
        created = create()
        values = {"account_seq": request.account_seq, "key": request.key, "kind": request.kind}
        digests = {"request_digest": request.digest, "object_id": object_id, "created_at": now}
        connection.execute(sa.insert(idempotent_creates).values(**values, **digests))
        return created, False
    earlier = load(earlier_id)
    if earlier is None:
        raise KeyTaken(GONE)
    return earlier, True


def find(connection: Connection, request: Request) -> bytes | None:
    """The id of what the same request has created before. Raises KeyTaken where the key was used for another."""
    place = (idempotent_creates.c.account_seq == request.account_seq, idempotent_creates.c.key == request.key)
    row = connection.execute(sa.select(idempotent_creates).where(*place)).first()
    if row is None:
        return None
    if row.kind != request.kind or row.request_digest != request.digest:
        raise KeyTaken("This Idempotency-Key was used for another request. Use a new key for a new request.")
    found: bytes = row.object_id
    return found
