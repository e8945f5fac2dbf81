"""What was created under an `Idempotency-Key`, remembered in the transaction that created it.

Keys of events are remembered with the events; these are those of every other call that creates.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.errors import Conflict
from uplift_server.store.schema import idempotent_creates

NO_ACCOUNT: Final = 0
"""Whose keys an operator's are who acts for no account."""


class KeyTaken(Conflict):
    """The key was used for something else."""


def find(connection: Connection, account_seq: int, key: str, *, kind: str, request_digest: bytes) -> bytes | None:
    """The id of the object that the same request created under this key, or None if the key is new.

    Raises KeyTaken where it was used for another request.
    """
    row = connection.execute(
        sa.select(idempotent_creates).where(
            idempotent_creates.c.account_seq == account_seq, idempotent_creates.c.key == key
        )
    ).first()
    if row is None:
        return None
    if row.kind != kind or row.request_digest != request_digest:
        raise KeyTaken("this Idempotency-Key belongs to another request")
    object_id: bytes = row.object_id
    return object_id


def remember(
    connection: Connection,
    account_seq: int,
    key: str,
    *,
    kind: str,
    request_digest: bytes,
    object_id: bytes,
    now: int,
) -> None:
    """Remember what a request created."""
    connection.execute(
        sa.insert(idempotent_creates).values(
            account_seq=account_seq,
            key=key,
            kind=kind,
            request_digest=request_digest,
            object_id=object_id,
            created_at=now,
        )
    )
