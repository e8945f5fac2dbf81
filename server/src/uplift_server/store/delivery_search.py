"""Search for deliveries with filters.

This module selects the table from which to read the deliveries, and limits the number of rows to scan for one page.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.ids import endpoint_tail
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store import event_objects, status_sql
from uplift_server.store.pages import KEY_MAX, PageRequest, window_end
from uplift_server.store.records import DeliveryFilter
from uplift_server.store.schema import attempts, deliveries, endpoints, events

WINDOW_ROWS: Final = 10_000
"""The number of deliveries to scan for one page if no index supports the filter.

An event without deliveries counts as one delivery. A page scans all deliveries of its last event. If few of the
deliveries match, the page is shorter than requested.
"""
ENDPOINT_TAIL: Final[sa.ColumnElement[bytes]] = sa.func.substr(endpoints.c.id, 11)
"""The last bytes of an endpoint's ID. Delivery IDs end with these bytes."""
_UNSUCCESSFUL: Final = frozenset({Status.FAILED, Status.HELD, Status.CANCELLED})


class Source(NamedTuple):
    """The tables from which to read deliveries in event order, and the filter conditions that an index supports."""

    event_seq: sa.ColumnElement[int]
    tables: sa.FromClause
    conditions: list[sa.ColumnElement[bool]]
    last: int
    """The last event number to read: the highest number in ascending order, or the lowest in descending order."""


class Window(NamedTuple):
    """The rows that one page scans, and the conditions that select the matching deliveries."""

    tables: sa.FromClause
    event_seq: sa.ColumnElement[int]
    conditions: list[sa.ColumnElement[bool]]
    """The conditions that select the matching deliveries."""
    read_to: tuple[int, int] | None
    """The key after which the next page starts. None if this window is the last one."""


def window_of(
    connection: Connection,
    account_seq: int | None,
    wanted: DeliveryFilter,
    request: PageRequest,
    bounds: tuple[int, int],
    *,
    of_attempts: bool = False,
) -> Window:
    """Return the rows that one page scans. Their event numbers are within `bounds`.

    The page's key must begin with the event number and the endpoint number. Set `of_attempts` if the page omits
    deliveries without attempts.
    """
    up, (low, high) = request.reads_up, request.narrowed(*bounds, to_next=0)
    source = source_of(connection, account_seq, wanted, low, high, up=up)
    matching = row_conditions(wanted)
    # A page of all deliveries is full after few deliveries, so that only the events without deliveries need a limit.
    window = narrowed(connection, source, low, high, up=up, counts_events=not (matching or of_attempts))
    tables = joined(source, wanted)
    conditions = [*in_range(connection, source, tables, *window), *source.conditions, *matching]
    read_to = None if window == (low, high) else (window[1] + 1, 0) if up else (window[0] - 1, KEY_MAX)
    return Window(tables, source.event_seq, conditions, read_to)


def source_of(
    connection: Connection, account_seq: int | None, wanted: DeliveryFilter, low: int, high: int, *, up: bool = False
) -> Source:
    """Return the table from which to read the matching deliveries in event order."""
    last = high if up else low
    if wanted.ids:
        # If no ID is known, search for event 0, which does not exist.
        keys = _keys_of_ids(connection, account_seq, wanted.ids) or [(0, 0)]
        event_seq, endpoint_seq = deliveries.c.event_seq, deliveries.c.endpoint_seq
        listed = event_seq.in_([key[0] for key in keys])
        exact = sa.or_(*(sa.and_(event_seq == key[0], endpoint_seq == key[1]) for key in keys))
        return Source(event_seq, deliveries, [listed, exact], last)
    if wanted.object_id is not None:
        found = event_objects.candidates(connection, account_seq, wanted.object_id, low, high, newest_first=not up)
        conditions = event_objects.matching(wanted.object_id, found)
        if account_seq is not None:
            conditions.append(events.c.account_seq == account_seq)
        is_full = len(found) == event_objects.CANDIDATES_MAX
        return Source(events.c.seq, events, conditions, found[-1] if is_full else last)
    if len(wanted.endpoint_seqs) == 1:
        own = deliveries.c.endpoint_seq == wanted.endpoint_seqs[0]
        return Source(deliveries.c.event_seq, deliveries, [own], last)
    if account_seq is None:
        return Source(deliveries.c.event_seq, deliveries, [], last)
    if wanted.statuses and _UNSUCCESSFUL.issuperset(wanted.statuses):
        # Repeat the condition of the partial index literally, so that both databases use the index.
        unsuccessful: list[Any] = [
            deliveries.c.account_seq == account_seq,
            sa.text(status_sql.unsuccessful("deliveries")),
        ]
        return Source(deliveries.c.event_seq, deliveries, unsuccessful, last)
    conditions = [events.c.account_seq == account_seq]
    if len(wanted.type_seqs) == 1:
        conditions.append(events.c.type_seq == wanted.type_seqs[0])
    return Source(events.c.seq, events, conditions, last)


def _keys_of_ids(
    connection: Connection, account_seq: int | None, delivery_ids: Sequence[tuple[bytes, bytes]]
) -> list[tuple[int, int]]:
    event_ids, tails = {event_id for event_id, _ in delivery_ids}, {tail for _, tail in delivery_ids}
    query = (
        sa.select(deliveries.c.event_seq, deliveries.c.endpoint_seq, events.c.id, endpoints.c.id.label("endpoint_id"))
        .select_from(
            events.join(deliveries, deliveries.c.event_seq == events.c.seq).join(
                endpoints, endpoints.c.seq == deliveries.c.endpoint_seq
            )
        )
        .where(events.c.id.in_(event_ids), ENDPOINT_TAIL.in_(tails))
    )
    if account_seq is not None:
        query = query.where(events.c.account_seq == account_seq)
    return [
        (row.event_seq, row.endpoint_seq)
        for row in connection.execute(query)
        if (row.id, endpoint_tail(row.endpoint_id)) in set(delivery_ids)
    ]


def joined(source: Source, wanted: DeliveryFilter) -> sa.FromClause:
    """Return the source's tables, joined with the other tables that the filter uses."""
    if source.tables is events:
        return events.join(deliveries, deliveries.c.event_seq == events.c.seq)
    needs_event = (wanted.object_id, wanted.created_after, wanted.created_before) != (None, None, None)
    if not needs_event and not wanted.type_seqs:
        return deliveries
    return deliveries.join(events, events.c.seq == deliveries.c.event_seq)


def in_range(
    connection: Connection, source: Source, tables: sa.FromClause, low: int, high: int
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that limit a query on `tables` to the event numbers from `low` to `high`."""
    conditions: list[sa.ColumnElement[bool]] = [source.event_seq.between(low, high)]
    if source.tables is deliveries and tables is not deliveries and connection.dialect.name == "postgresql":
        # PostgreSQL does not derive this range for the joined events, and would read all partitions without it.
        conditions.append(events.c.seq.between(low, high))
    return conditions


def row_conditions(wanted: DeliveryFilter) -> list[sa.ColumnElement[bool]]:
    """Return the conditions for all fields of the filter except `ids`, which `source_of` handles."""
    conditions: list[sa.ColumnElement[bool]] = []
    for column, values in (
        (deliveries.c.status, wanted.statuses),
        (deliveries.c.last_outcome, wanted.outcomes),
        (deliveries.c.endpoint_seq, wanted.endpoint_seqs),
        (events.c.type_seq, wanted.type_seqs),
    ):
        if values:
            conditions.append(column.in_([int(value) for value in values]))
    if wanted.status_codes:
        conditions.append(responded(wanted.status_codes))
    if wanted.object_id is not None:
        conditions.append(events.c.object_id == wanted.object_id)
    if wanted.is_test is not None:
        is_test = deliveries.c.trigger == int(Trigger.TEST)
        conditions.append(is_test if wanted.is_test else sa.not_(is_test))
    if wanted.created_after is not None:
        conditions.append(events.c.created_at > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(events.c.created_at < wanted.created_before)
    return conditions


def has_code(ranges: Sequence[tuple[int, int]]) -> sa.ColumnElement[bool]:
    """Return a condition that is true for attempts with a status code in one of the ranges."""
    return sa.or_(*(attempts.c.status_code.between(first, last) for first, last in ranges))


def responded(ranges: Sequence[tuple[int, int]]) -> sa.ColumnElement[bool]:
    """Return a condition that is true for deliveries whose last attempt has a status code in one of the ranges."""
    last = (
        attempts.c.event_seq == deliveries.c.event_seq,
        attempts.c.endpoint_seq == deliveries.c.endpoint_seq,
        attempts.c.number == deliveries.c.attempts_made,
    )
    # OFFSET makes PostgreSQL search an index for each row instead of reading the whole table.
    found = sa.select(sa.literal(1)).select_from(attempts).where(*last, has_code(ranges)).offset(0)
    return found.correlate_except(attempts).exists()


def narrowed(
    connection: Connection, source: Source, low: int, high: int, *, up: bool = False, counts_events: bool = False
) -> tuple[int, int]:
    """Return the part of the event number range from `low` to `high` that one page scans."""
    low, high = (low, source.last) if up else (source.last, high)
    tables = source.tables if counts_events else _counted(connection, source)
    end = window_end(
        connection, source.event_seq, tables, source.conditions, low=low, high=high, rows=WINDOW_ROWS, up=up
    )
    if end is None:
        return low, high
    return (low, end) if up else (end, high)


def _counted(connection: Connection, source: Source) -> sa.FromClause:
    """Return the source's tables with a row for each delivery, and for each event without deliveries."""
    if source.tables is deliveries:
        return deliveries
    own = deliveries.c.event_seq == events.c.seq
    if connection.dialect.name != "postgresql":
        return events.outerjoin(deliveries, own)
    # OFFSET makes PostgreSQL search an index for each event instead of reading the whole table.
    found = sa.select(deliveries.c.event_seq).where(own).offset(0).lateral("found")
    return events.outerjoin(found, sa.true())
