"""The event catalog. A deleted event type keeps its row, because stored events refer to it."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import locks
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import EventType, Page
from uplift_server.store.schema import event_types

_LIVE = event_types.c.deleted_at.is_(None)


def put(
    connection: Connection,
    *,
    name: str,
    group: str,
    description: str,
    schema: str | None,
    example: str | None,
    api_version: str,
    archived: bool,
    now: int,
    documented: bool = False,
) -> tuple[EventType, bool]:
    """Create an event type, or replace the type with this name. Return the type, and whether it is new.

    If the type was archived and stays archived, `archived_at` does not change. If `documented` is set for the stored
    type, it stays set. A deleted type counts as new. `updated_at` always increases.
    """
    locks.take(connection, locks.CATALOG)
    stored = connection.execute(sa.select(event_types).where(event_types.c.name == name)).first()
    fresh = stored is None or stored.deleted_at is not None
    archived_at = None if not archived else now if stored is None or fresh else stored.archived_at or now
    values = {
        "name": name,
        "group_name": group,
        "description": description,
        "schema": schema,
        "example": example,
        "api_version": api_version,
        "documented": documented or (stored is not None and stored.documented),
        "created_at": now if stored is None or fresh else stored.created_at,
        "updated_at": now if stored is None else max(now, stored.updated_at + 1),
        "archived_at": archived_at,
        "deleted_at": None,
    }
    if stored is None:
        connection.execute(sa.insert(event_types).values(values))
    else:
        connection.execute(sa.update(event_types).where(event_types.c.seq == stored.seq).values(values))
    event_type = get(connection, name)
    assert event_type is not None, "the event type was just stored"
    return event_type, fresh


def get(connection: Connection, name: str) -> EventType | None:
    """Return the event type with this name, unless the type was deleted."""
    row = connection.execute(sa.select(event_types).where(event_types.c.name == name, _LIVE)).first()
    return None if row is None else _event_type(row)


def page(connection: Connection, request: PageRequest) -> Page[EventType]:
    """List a page of event types, including archived types."""
    query = request.of(sa.select(event_types).where(_LIVE), event_types.c.seq)
    rows = [_event_type(row) for row in connection.execute(query)]
    return request.page(rows, lambda event_type: (event_type.seq,))


def list_live(connection: Connection) -> list[EventType]:
    """List all event types that are not deleted, oldest first."""
    return [
        _event_type(row) for row in connection.execute(sa.select(event_types).where(_LIVE).order_by(event_types.c.seq))
    ]


def list_deleted(connection: Connection) -> list[EventType]:
    """List the deleted event types, oldest first. Stored events can still have these types."""
    query = sa.select(event_types).where(event_types.c.deleted_at.is_not(None)).order_by(event_types.c.seq)
    return [_event_type(row) for row in connection.execute(query)]


def find(connection: Connection, seqs: Collection[int]) -> tuple[list[EventType], list[EventType]]:
    """Return two lists of the event types with these numbers: the existing types, and the deleted types."""
    rows = connection.execute(sa.select(event_types).where(event_types.c.seq.in_(seqs))).all()
    return (
        [_event_type(row) for row in rows if row.deleted_at is None],
        [_event_type(row) for row in rows if row.deleted_at is not None],
    )


def delete(connection: Connection, name: str, *, now: int) -> bool:
    """Mark an event type as deleted. Return whether the type existed."""
    locks.take(connection, locks.CATALOG)
    query = sa.update(event_types).where(event_types.c.name == name, _LIVE).values(deleted_at=now)
    return connection.execute(query).rowcount == 1


def _event_type(row: sa.Row[Any]) -> EventType:
    return EventType(
        seq=row.seq,
        name=row.name,
        group=row.group_name,
        description=row.description,
        schema=row.schema,
        example=row.example,
        api_version=row.api_version,
        documented=row.documented,
        created_at=row.created_at,
        updated_at=row.updated_at,
        archived_at=row.archived_at,
    )
