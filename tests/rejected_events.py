"""Helpers that return or store rejected events."""

import itertools
import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from tests.engines import Place

from uplift_server.core import ids
from uplift_server.store import rejected_events
from uplift_server.store.rejected_events import RejectedEvent, rejected_id
from uplift_server.store.schema import accounts

PROBLEM: Mapping[str, Any] = {
    "type": "/docs/errors#validation_failed",
    "title": "Invalid request",
    "status": 422,
    "detail": "1 field is not valid.",
    "code": "validation_failed",
    "errors": [{"field": "type", "code": "event_type_unknown", "message": "The event type is unknown."}],
}
_numbers = itertools.count(1)


def rejected_event(account_seq: int | None, *, at: int = 1_000, **fields: Any) -> RejectedEvent:
    """Return a rejected event with a new stream position."""
    values: dict[str, Any] = {
        "subject": "uplift.events.club-17",
        "event_type": "athlete.updatet",
        "event_id": None,
        "idempotency_key": "athlete-7",
        "problem": PROBLEM,
        "size_bytes": 412,
        "stream_seq": next(_numbers),
        "published_at": at - 10,
        "rejected_at": at,
    }
    values |= fields
    values.setdefault("id", rejected_id(values["stream_seq"], values["published_at"]))
    return RejectedEvent(account_seq=account_seq, **values)


def reject(place: Place, account: str | None, **fields: Any) -> str:
    """Store a rejected event of an account, or of an unknown one, as another process does. Return its ID."""
    account_id = None if account is None else bytes.fromhex(account.removeprefix("acc_"))

    def store(connection: sa.Connection) -> str:
        seq = connection.scalar(sa.select(accounts.c.seq).where(accounts.c.id == account_id))
        rejected = rejected_event(seq, **{"at": int(time.time() * 1000), **fields})
        rejected_events.add(connection, rejected)
        return ids.prefixed(ids.REJECTED_EVENT, rejected.id)

    return place.run(store)
