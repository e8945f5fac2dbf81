"""Accepted events, as they are read; they are stored by the engine's `append`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.events import envelope
from uplift_server.core.lifecycle import Status
from uplift_server.store import event_times
from uplift_server.store.records import Event, EventFilter, Page, Stretch
from uplift_server.store.schema import accounts, deliveries, event_types, events, idempotency_keys
from uplift_server.store.stream_position import StreamPosition

WINDOW_EVENTS: Final = 20_000
"""How many events a list looks at for one page where no index leads to those wanted; then the page ends early."""
_HEAD_BYTES: Final = 1024


def find(connection: Connection, account_seq: int | None, event_id: bytes) -> list[Event]:
    """The account's event with this id, body included: one or none.

    Without an account, up to two, since a chosen id is unique within its account only.
    """
    query = _select(events.c.body.label("head")).where(events.c.id == event_id).limit(2)
    if account_seq is not None:
        query = query.where(events.c.account_seq == account_seq)
    rows = connection.execute(query).all()
    return [replace(event, body=row.head) for event, row in zip(_with_counts(connection, rows), rows, strict=True)]


def find_all(connection: Connection, event_id: bytes, *, limit: int) -> list[Event]:
    """The events of all accounts that have this id, the newest first, without bodies."""
    return _found(connection, sa.select(events.c.seq).where(events.c.id == event_id).limit(limit))


def find_under_key(connection: Connection, key: str, *, limit: int) -> list[Event]:
    """The events of all accounts that were sent under an idempotency key, the newest first, without bodies.

    Looks into each account once: keys are found by their account.
    """
    keys = accounts.join(
        idempotency_keys,
        sa.and_(idempotency_keys.c.account_seq == accounts.c.seq, idempotency_keys.c.key == key),
    )
    seqs = sa.select(idempotency_keys.c.event_seq).select_from(keys).order_by(accounts.c.seq.desc()).limit(limit)
    return _found(connection, seqs)


def between_ids(connection: Connection, account_seq: int, lowest: bytes, highest: bytes, *, limit: int) -> list[Event]:
    """Up to `limit` of the account's events whose ids lie in a range, the newest first, without bodies.

    No more than WINDOW_EVENTS ids are looked at, as those of all accounts are in one order.
    """
    window = (
        sa.select(events.c.seq, events.c.id, events.c.account_seq)
        .where(events.c.id.between(lowest, highest))
        .order_by(events.c.id.desc())
        .limit(WINDOW_EVENTS)
        .subquery("page")
    )
    keys = sa.select(window.c.seq).where(window.c.account_seq == account_seq).limit(limit)
    return _found(connection, keys)


def page(
    connection: Connection,
    account_seq: int | None,
    wanted: EventFilter,
    *,
    limit: int,
    before: tuple[int, ...] | None = None,
) -> Page[Event]:
    """The account's events (without an account: everybody's), newest first, without bodies."""
    low, high = event_times.bounds(connection, after=wanted.created_after, before=wanted.created_before)
    if before is not None:
        high = min(high, before[0] - 1)
    window_low = low if _is_indexed(account_seq, wanted) else _last_of_window(connection, low, high, newest_first=True)
    keys = _keys(account_seq, wanted, window_low, high).order_by(events.c.seq.desc()).limit(limit + 1)
    rows = _rows(connection, keys, newest_first=True)
    items = _with_counts(connection, rows[:limit])
    if len(rows) > limit:
        return Page(items, (items[-1].seq,))
    return Page(items, (window_low,) if window_low > low else None)


def forward(
    connection: Connection,
    account_seq: int | None,
    wanted: EventFilter,
    horizon: StreamPosition,
    *,
    limit: int,
    after: tuple[int, ...],
) -> Stretch[Event]:
    """The same, oldest first, from behind a place (`(0,)` is the beginning), to be followed for as long as one likes.

    Up to the horizon, so that no place ever passes an event that is to come.
    """
    low, high = event_times.bounds(connection, after=wanted.created_after, before=wanted.created_before)
    high = min(high, horizon.events)
    low = max(low, after[0] + 1)
    window_high = high
    if not _is_indexed(account_seq, wanted):
        window_high = _last_of_window(connection, low, high, newest_first=False)
    keys = _keys(account_seq, wanted, low, window_high).order_by(events.c.seq).limit(limit + 1)
    rows = _rows(connection, keys, newest_first=False)
    items = _with_counts(connection, rows[:limit])
    if len(rows) > limit:
        return Stretch(items, (items[-1].seq,), more=True)
    return Stretch(items, (max(after[0], window_high),), more=window_high < high)


def _is_indexed(account_seq: int | None, wanted: EventFilter) -> bool:
    return account_seq is not None or wanted.type_seq is None


def _last_of_window(connection: Connection, low: int, high: int, *, newest_first: bool) -> int:
    """Where what is looked at for one page ends, from one side or the other.

    It is counted in events: between two of their numbers there may be thousands of millions that nothing has.
    """
    order = events.c.seq.desc() if newest_first else events.c.seq
    query = sa.select(events.c.seq).where(events.c.seq.between(low, high)).order_by(order).offset(WINDOW_EVENTS - 1)
    found: int | None = connection.scalars(query.limit(1)).first()
    if found is not None:
        return found
    return low if newest_first else high


def _keys(account_seq: int | None, wanted: EventFilter, low: int, high: int) -> sa.Select[tuple[int]]:
    query = sa.select(events.c.seq).where(events.c.seq.between(low, high))
    if account_seq is not None:
        query = query.where(events.c.account_seq == account_seq)
    if wanted.type_seq is not None:
        query = query.where(events.c.type_seq == wanted.type_seq)
    if wanted.created_after is not None:
        query = query.where(events.c.created_at > wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(events.c.created_at < wanted.created_before)
    return query


def _select(head: sa.ColumnElement[bytes]) -> sa.Select[Any]:
    return sa.select(
        events.c.seq,
        events.c.id,
        events.c.account_seq,
        events.c.created_at,
        events.c.expires_at,
        accounts.c.id.label("account_id"),
        event_types.c.name.label("type"),
        head,
    ).select_from(
        events.join(accounts, accounts.c.seq == events.c.account_seq).join(
            event_types, event_types.c.seq == events.c.type_seq
        )
    )


def _rows(connection: Connection, keys: sa.Select[tuple[int]], *, newest_first: bool) -> Sequence[sa.Row[Any]]:
    # The page's numbers first, then what belongs to them: no join is made for a row that is not shown.
    found = list(connection.scalars(keys))
    query = _select(sa.func.substr(events.c.body, 1, _HEAD_BYTES).label("head")).where(events.c.seq.in_(found))
    return connection.execute(query.order_by(events.c.seq.desc() if newest_first else events.c.seq)).all()


def _found(connection: Connection, keys: sa.Select[tuple[int]]) -> list[Event]:
    return _with_counts(connection, _rows(connection, keys, newest_first=True))


def _with_counts(connection: Connection, rows: Sequence[sa.Row[Any]]) -> list[Event]:
    counts: dict[int, dict[Status, int]] = {row.seq: {} for row in rows}
    grouped = (
        sa.select(deliveries.c.event_seq, deliveries.c.status, sa.func.count())
        .where(deliveries.c.event_seq.in_(list(counts)))
        .group_by(deliveries.c.event_seq, deliveries.c.status)
    )
    for event_seq, status, count in connection.execute(grouped):
        counts[event_seq][Status(status)] = count
    return [
        Event(
            seq=row.seq,
            id=row.id,
            account_seq=row.account_seq,
            account_id=row.account_id,
            type=row.type,
            created_at=row.created_at,
            expires_at=row.expires_at,
            api_version=envelope.api_version_of(row.head),
            deliveries=counts[row.seq],
        )
        for row in rows
    ]
