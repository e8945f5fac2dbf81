"""Searches for accepted events. The database engines store events with `append`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.events import envelope
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.core.limits import PAGE_BODY_BYTES_MAX
from uplift_server.store import event_objects, event_times
from uplift_server.store.pages import PageRequest, window_end
from uplift_server.store.records import Event, EventFilter, Page, StreamPage
from uplift_server.store.schema import accounts, deliveries, event_types, events, idempotency_keys
from uplift_server.store.stream_position import StreamPosition

WINDOW_EVENTS: Final = 20_000
"""Maximum number of events to scan for one page if no index supports the filter.

If few of these events match, the page is shorter than requested.
"""
_ENVELOPE_START_BYTES: Final = 1024
# Because of the OFFSET clause, PostgreSQL searches an index for each event instead of reading the whole table once.
_IS_TEST: Final = (
    sa.select(sa.literal(1))
    .select_from(deliveries)
    .where(deliveries.c.event_seq == events.c.seq, deliveries.c.trigger == int(Trigger.TEST))
    .offset(0)
    .correlate_except(deliveries)
    .exists()
)


def find(connection: Connection, account_seq: int | None, event_id: bytes) -> list[Event]:
    """Return the event with this ID, including its body.

    If `account_seq` is None, return up to two events: if there are two, the ID is ambiguous, because IDs that emitters
    choose are unique only within an account.
    """
    query = _select(events.c.body.label("head")).where(events.c.id == event_id).limit(2)
    if account_seq is not None:
        query = query.where(events.c.account_seq == account_seq)
    rows = connection.execute(query).all()
    found = zip(_with_counts(connection, rows), rows, strict=True)
    return [event if event.erased_at is not None else replace(event, body=row.head) for event, row in found]


def find_in_all_accounts(connection: Connection, event_id: bytes, *, limit: int) -> list[Event]:
    """Return the events with this ID in all accounts, newest first, without bodies."""
    return _found(connection, sa.select(events.c.seq).where(events.c.id == event_id).limit(limit))


def find_by_idempotency_key(connection: Connection, key: str, *, limit: int) -> list[Event]:
    """Return events with this idempotency key in all accounts, newest first, without bodies.

    If more than `limit` events match, return the events of the newest accounts.

    The query searches the index once for each account, because the index begins with the account.
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
    """Return up to `limit` events with IDs from `lowest` to `highest`, newest first, without bodies.

    If `account_seq` is None, search all accounts. The search reads at most WINDOW_EVENTS rows, because the index also
    contains the events of other accounts.
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
    request: PageRequest,
    *,
    with_bodies: bool = False,
) -> Page[Event]:
    """List a page of matching events for an account, or for all accounts."""
    bounds = event_times.bounds(connection, after=wanted.created_after, before=wanted.created_before)
    return _page(connection, account_seq, wanted, request, bounds, with_bodies=with_bodies)


def page_forward(
    connection: Connection,
    account_seq: int | None,
    wanted: EventFilter,
    stream_position: StreamPosition,
    request: PageRequest,
    *,
    with_bodies: bool = False,
) -> StreamPage[Event]:
    """List a page of events, oldest first, for a reader that continues with later events.

    The page ends at the stream position, so that a reader does not miss events that are committed later.
    """
    low, high = event_times.bounds(connection, after=wanted.created_after, before=wanted.created_before)
    high = min(high, stream_position.events)
    found = _page(connection, account_seq, wanted, request, (low, high), with_bodies=with_bodies)
    if found.next_key is not None:
        return StreamPage(found.items, found.next_key, more=True, prev_key=found.prev_key)
    start = 0 if request.key is None else request.key[0]
    return StreamPage(found.items, (max(start, high),), more=False, prev_key=found.prev_key)


def _page(
    connection: Connection,
    account_seq: int | None,
    wanted: EventFilter,
    request: PageRequest,
    bounds: tuple[int, int],
    *,
    with_bodies: bool,
) -> Page[Event]:
    low, high = request.narrowed(*bounds)
    end, keys = _window(connection, account_seq, wanted, low, high, up=request.reads_up)
    keys = keys.order_by(request.ordered(events.c.seq)).limit(request.limit + 1)
    rows = _rows(connection, keys, up=request.reads_up)
    read_to = None if end is None else (end,)
    if with_bodies and (count := _count_within(connection, rows[: request.limit])) < min(request.limit, len(rows)):
        rows, read_to = rows[:count], (rows[count - 1].seq,)
    shown = request.page(rows, lambda row: (row.seq,), read_to)
    found = _with_counts(connection, shown.items)
    if with_bodies:
        query = sa.select(events.c.seq, events.c.body).where(events.c.seq.in_([each.seq for each in found]))
        bodies = {row.seq: row.body for row in connection.execute(query)}
        found = [each if each.erased_at is not None else replace(each, body=bodies[each.seq]) for each in found]
    return shown.of(found)


def _count_within(connection: Connection, rows: Sequence[sa.Row[Any]]) -> int:
    """Return how many of these rows fit on a page, or 1 if none fits.

    The total size of the bodies on a page is limited to PAGE_BODY_BYTES_MAX.
    """
    query = sa.select(events.c.seq, sa.func.length(events.c.body).label("bytes")).where(
        events.c.seq.in_([row.seq for row in rows])
    )
    sizes = {row.seq: row.bytes for row in connection.execute(query)}
    total = 0
    for place, row in enumerate(rows):
        total += sizes[row.seq]
        if total > PAGE_BODY_BYTES_MAX:
            return max(place, 1)
    return len(rows)


def _window(
    connection: Connection, account_seq: int | None, wanted: EventFilter, low: int, high: int, *, up: bool
) -> tuple[int | None, sa.Select[tuple[int]]]:
    """Return the number of the last event to scan for one page, and a query for the numbers of the matching events.

    The number of the last event is None if the query scans the whole range from `low` to `high`.
    """
    candidates = None
    if wanted.ids:
        candidates = _seqs_of_ids(connection, account_seq, wanted.ids, low, high, up=up)
    elif wanted.object_id is not None:
        candidates = event_objects.candidates(connection, account_seq, wanted.object_id, low, high, newest_first=not up)
    if candidates is not None:
        end = candidates[-1] if len(candidates) == event_objects.CANDIDATES_MAX else None
        return end, _keys(account_seq, wanted, low, high).where(events.c.seq.in_(candidates))
    own = [] if account_seq is None else [events.c.account_seq == account_seq]
    if len(wanted.type_seqs) <= len(own) and not wanted.is_test:
        return None, _keys(account_seq, wanted, low, high)
    # Limit the search by a count of events, not by a range of numbers, because numbers can have gaps of billions.
    end = window_end(connection, events.c.seq, events, own, low=low, high=high, rows=WINDOW_EVENTS, up=up)
    if end is not None:
        low, high = (low, end) if up else (end, high)
    return end, _keys(account_seq, wanted, low, high)


def _seqs_of_ids(
    connection: Connection, account_seq: int | None, event_ids: Sequence[bytes], low: int, high: int, *, up: bool
) -> list[int]:
    """Return the numbers of the events with these IDs, if the numbers are between `low` and `high`.

    The order is ascending if `up` is true, otherwise descending. Several events can have the same ID, because an
    emitter can choose an ID that another account also uses.
    """
    query = sa.select(events.c.seq).where(events.c.id.in_(event_ids))
    if account_seq is not None:
        query = query.where(events.c.account_seq == account_seq)
    found = sorted((seq for seq in connection.scalars(query) if low <= seq <= high), reverse=not up)
    return found[: event_objects.CANDIDATES_MAX]


def _keys(account_seq: int | None, wanted: EventFilter, low: int, high: int) -> sa.Select[tuple[int]]:
    query = sa.select(events.c.seq).where(events.c.seq.between(low, high))
    if account_seq is not None:
        query = query.where(events.c.account_seq == account_seq)
    if len(wanted.type_seqs) == 1:
        query = query.where(events.c.type_seq == wanted.type_seqs[0])
    elif wanted.type_seqs:
        query = query.where(events.c.type_seq.in_(wanted.type_seqs))
    if wanted.object_id is not None:
        query = query.where(events.c.object_id == wanted.object_id)
    if wanted.created_after is not None:
        query = query.where(events.c.created_at > wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(events.c.created_at < wanted.created_before)
    if wanted.is_test is not None:
        query = query.where(_IS_TEST if wanted.is_test else sa.not_(_IS_TEST))
    return query


def _select(head: sa.ColumnElement[bytes]) -> sa.Select[Any]:
    return sa.select(
        events.c.seq,
        events.c.id,
        events.c.account_seq,
        events.c.created_at,
        events.c.expires_at,
        events.c.object_id,
        events.c.ordering_key,
        events.c.erased_at,
        accounts.c.id.label("account_id"),
        event_types.c.name.label("type"),
        head,
    ).select_from(
        events.join(accounts, accounts.c.seq == events.c.account_seq).join(
            event_types, event_types.c.seq == events.c.type_seq
        )
    )


def _rows(connection: Connection, keys: sa.Select[tuple[int]], *, up: bool = False) -> Sequence[sa.Row[Any]]:
    # Select the page's numbers first, so that only shown rows are joined.
    found = list(connection.scalars(keys))
    query = _select(sa.func.substr(events.c.body, 1, _ENVELOPE_START_BYTES).label("head")).where(
        events.c.seq.in_(found)
    )
    return connection.execute(query.order_by(events.c.seq if up else events.c.seq.desc())).all()


def _found(connection: Connection, keys: sa.Select[tuple[int]]) -> list[Event]:
    return _with_counts(connection, _rows(connection, keys))


def _with_counts(connection: Connection, rows: Sequence[sa.Row[Any]]) -> list[Event]:
    counts: dict[int, dict[Status, int]] = {row.seq: {} for row in rows}
    is_test = sa.case((deliveries.c.trigger == int(Trigger.TEST), 1), else_=0)
    tests = set()
    grouped = (
        sa.select(deliveries.c.event_seq, deliveries.c.status, sa.func.count(), sa.func.max(is_test))
        .where(deliveries.c.event_seq.in_(list(counts)))
        .group_by(deliveries.c.event_seq, deliveries.c.status)
    )
    for event_seq, status, count, any_test in connection.execute(grouped):
        counts[event_seq][Status(status)] = count
        if any_test:
            tests.add(event_seq)
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
            ordering_key=row.ordering_key,
            erased_at=row.erased_at,
            is_test=row.seq in tests,
        )
        for row in rows
    ]
