"""Lists of accepted events. The engines store events with `append`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.events import envelope
from uplift_server.core.lifecycle import Status
from uplift_server.store import event_objects, event_times
from uplift_server.store.records import Event, EventFilter, Page, StreamPage
from uplift_server.store.schema import accounts, deliveries, event_types, events, idempotency_keys
from uplift_server.store.stream_position import StreamPosition

WINDOW_EVENTS: Final = 20_000
"""Number of events that one page scans if no index supports its filter. If few of them match, the page ends early."""
_ENVELOPE_START_BYTES: Final = 1024


def find(connection: Connection, account_seq: int | None, event_id: bytes) -> list[Event]:
    """Find the event with this ID, with its body.

    Without an account, it returns up to two events, because chosen IDs are unique only within an account.
    """
    query = _select(events.c.body.label("head")).where(events.c.id == event_id).limit(2)
    if account_seq is not None:
        query = query.where(events.c.account_seq == account_seq)
    rows = connection.execute(query).all()
    found = zip(_with_counts(connection, rows), rows, strict=True)
    return [event if event.erased_at is not None else replace(event, body=row.head) for event, row in found]


def find_in_all_accounts(connection: Connection, event_id: bytes, *, limit: int) -> list[Event]:
    """Find the events with this ID in all accounts, newest first, without bodies."""
    return _found(connection, sa.select(events.c.seq).where(events.c.id == event_id).limit(limit))


def find_by_idempotency_key(connection: Connection, key: str, *, limit: int) -> list[Event]:
    """Find the events with this idempotency key in all accounts, newest first, without bodies.

    It searches each account once, because the index of keys begins with the account.
    """
    keys = accounts.join(
        idempotency_keys,
        sa.and_(idempotency_keys.c.account_seq == accounts.c.seq, idempotency_keys.c.key == key),
    )
    seqs = sa.select(idempotency_keys.c.event_seq).select_from(keys).order_by(accounts.c.seq.desc()).limit(limit)
    return _found(connection, seqs)


def find_in_id_range(
    connection: Connection, account_seq: int | None, lowest: bytes, highest: bytes, *, limit: int
) -> list[Event]:
    """Return up to `limit` events of one or all accounts with IDs in a range, newest first, without bodies.

    It scans at most WINDOW_EVENTS IDs, because one index has the IDs of all accounts.
    """
    window = (
        sa.select(events.c.seq, events.c.id, events.c.account_seq)
        .where(events.c.id.between(lowest, highest))
        .order_by(events.c.id.desc())
        .limit(WINDOW_EVENTS)
        .subquery("page")
    )
    keys = sa.select(window.c.seq).limit(limit)
    if account_seq is not None:
        keys = keys.where(window.c.account_seq == account_seq)
    return _found(connection, keys)


def page(
    connection: Connection,
    account_seq: int | None,
    wanted: EventFilter,
    *,
    limit: int,
    before: tuple[int, ...] | None = None,
) -> Page[Event]:
    """List the events of an account, or of all accounts, newest first, without bodies."""
    low, high = event_times.bounds(connection, after=wanted.created_after, before=wanted.created_before)
    if before is not None:
        high = min(high, before[0] - 1)
    window_low, keys = _window(connection, account_seq, wanted, low, high, newest_first=True)
    keys = keys.order_by(events.c.seq.desc()).limit(limit + 1)
    rows = _rows(connection, keys, newest_first=True)
    items = _with_counts(connection, rows[:limit])
    if len(rows) > limit:
        return Page(items, (items[-1].seq,))
    return Page(items, (window_low,) if window_low > low else None)


def page_forward(
    connection: Connection,
    account_seq: int | None,
    wanted: EventFilter,
    stream_position: StreamPosition,
    *,
    limit: int,
    after: tuple[int, ...],
) -> StreamPage[Event]:
    """List events oldest first, after a key (`(0,)` at the start), as an endless stream.

    It stops at the stream position, so that it never skips an event that is committed later.
    """
    low, high = event_times.bounds(connection, after=wanted.created_after, before=wanted.created_before)
    high = min(high, stream_position.events)
    low = max(low, after[0] + 1)
    window_high, keys = _window(connection, account_seq, wanted, low, high, newest_first=False)
    keys = keys.order_by(events.c.seq).limit(limit + 1)
    rows = _rows(connection, keys, newest_first=False)
    items = _with_counts(connection, rows[:limit])
    if len(rows) > limit:
        return StreamPage(items, (items[-1].seq,), more=True)
    return StreamPage(items, (max(after[0], window_high),), more=window_high < high)


def _window(
    connection: Connection, account_seq: int | None, wanted: EventFilter, low: int, high: int, *, newest_first: bool
) -> tuple[int, sa.Select[tuple[int]]]:
    """Return the last event number that one page scans, and the query of the matching numbers up to it."""
    last = low if newest_first else high
    if wanted.object_id is not None:
        found = event_objects.candidates(
            connection, account_seq, wanted.object_id, low, high, newest_first=newest_first
        )
        if len(found) == event_objects.CANDIDATES_MAX:
            last = found[-1]
        return last, _keys(account_seq, wanted, low, high).where(*event_objects.matching(wanted.object_id, found))
    if account_seq is None and wanted.type_seq is not None:
        last = _last_of_window(connection, low, high, newest_first=newest_first)
    return last, _keys(account_seq, wanted, *((last, high) if newest_first else (low, last)))


def _last_of_window(connection: Connection, low: int, high: int, *, newest_first: bool) -> int:
    """Return the last event number that one page scans.

    It counts events, because their numbers can have gaps of billions.
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
        events.c.object_id,
        events.c.erased_at,
        accounts.c.id.label("account_id"),
        event_types.c.name.label("type"),
        head,
    ).select_from(
        events.join(accounts, accounts.c.seq == events.c.account_seq).join(
            event_types, event_types.c.seq == events.c.type_seq
        )
    )


def _rows(connection: Connection, keys: sa.Select[tuple[int]], *, newest_first: bool) -> Sequence[sa.Row[Any]]:
    # Select the numbers of the page first, so that only shown rows are joined.
    found = list(connection.scalars(keys))
    query = _select(sa.func.substr(events.c.body, 1, _ENVELOPE_START_BYTES).label("head")).where(
        events.c.seq.in_(found)
    )
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
            expires_at=None if row.erased_at is not None else row.expires_at,
            api_version=envelope.api_version_of(row.head),
            deliveries=counts[row.seq],
            object_id=row.object_id,
            erased_at=row.erased_at,
        )
        for row in rows
    ]
