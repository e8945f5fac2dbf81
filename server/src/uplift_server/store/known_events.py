"""Search for stored events by idempotency key or by an ID that the emitter chose, to recognize repeated events."""

from collections.abc import Collection
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.repeated_events import KnownEvents, StoredEvent
from uplift_server.store.schema import events, idempotency_keys
from uplift_server.store.schema_partitions import chosen_event_ids

_EVENT: Final = (
    events.c.seq,
    events.c.id,
    events.c.created_at,
    events.c.type_seq,
    events.c.expires_at,
    events.c.ordering_key,
    events.c.body,
)


def find(
    connection: Connection, keys: Collection[tuple[int, str]], event_ids: Collection[tuple[int, bytes]]
) -> KnownEvents:
    """Return the stored events that have one of the idempotency keys or one of the IDs.

    Each key and each ID is paired with its account number.
    """
    known = KnownEvents()
    if keys:
        by_key = (
            sa.select(idempotency_keys.c.account_seq, idempotency_keys.c.key, *_EVENT)
            .join(events, events.c.seq == idempotency_keys.c.event_seq)
            .where(sa.tuple_(idempotency_keys.c.account_seq, idempotency_keys.c.key).in_(keys))
        )
        for account_seq, key, *event in connection.execute(by_key):
            known.by_key[account_seq, key] = StoredEvent(*event)
    if event_ids:
        by_id = (
            sa.select(chosen_event_ids.c.account_seq, chosen_event_ids.c.id, *_EVENT)
            .join(events, events.c.seq == chosen_event_ids.c.event_seq)
            .where(sa.tuple_(chosen_event_ids.c.account_seq, chosen_event_ids.c.id).in_(event_ids))
        )
        for account_seq, event_id, *event in connection.execute(by_id):
            known.by_id[account_seq, event_id] = StoredEvent(*event)
    return known
