"""Trace contexts of events. While tracing is enabled, the server stores the trace context that came with an event."""

from collections.abc import Collection, Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.schema import events
from uplift_server.store.schema_traces import trace_parents

_PUT: Final = sa.text(
    "INSERT INTO trace_parents (event_seq, traceparent) VALUES (:event_seq, :traceparent) ON CONFLICT DO NOTHING"
)


def put(connection: Connection, found: Mapping[int, str]) -> None:
    """Store trace contexts by event number. A repeated call changes nothing."""
    rows = [{"event_seq": seq, "traceparent": text} for seq, text in found.items()]
    if rows:
        connection.execute(_PUT, rows)


def of_events(connection: Connection, event_ids: Collection[bytes]) -> dict[bytes, str]:
    """Return the stored trace contexts of events, by event ID."""
    query = (
        sa.select(events.c.id, trace_parents.c.traceparent)
        .join_from(events, trace_parents, trace_parents.c.event_seq == events.c.seq)
        .where(events.c.id.in_(event_ids))
    )
    return {row.id: row.traceparent for row in connection.execute(query)}
