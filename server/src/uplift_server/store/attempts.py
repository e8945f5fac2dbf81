"""Reads stored attempts. The database engines write attempts when they settle deliveries."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.http.request_headers import mask_request_headers
from uplift_server.core.lifecycle import Trigger
from uplift_server.store import deliveries, event_times
from uplift_server.store.delivery_search import has_code, window_of
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Attempt, Delivery, DeliveryFilter, Page
from uplift_server.store.schema import attempts
from uplift_server.store.schema import deliveries as deliveries_table

_KEY: Final = (attempts.c.event_seq, attempts.c.endpoint_seq, attempts.c.number)


class ListedAttempt(NamedTuple):
    """An attempt and the delivery that it belongs to."""

    attempt: Attempt
    delivery: Delivery


def page(
    connection: Connection, account_seq: int | None, wanted: DeliveryFilter, request: PageRequest
) -> Page[ListedAttempt]:
    """Return a page of attempts for an account, or for all accounts, in event order.

    The outcomes and status codes in the filter apply to each attempt, not only to the last attempt.
    """
    bounds = event_times.bounds(connection, after=wanted.created_after, before=wanted.created_before)
    of_delivery = replace(wanted, outcomes=(), status_codes=())
    window = window_of(connection, account_seq, of_delivery, request, bounds, of_attempts=True)
    conditions: list[sa.ColumnElement[bool]] = [
        attempts.c.event_seq == window.event_seq,
        attempts.c.endpoint_seq == deliveries_table.c.endpoint_seq,
    ]
    if wanted.outcomes:
        conditions.append(attempts.c.outcome.in_([int(outcome) for outcome in wanted.outcomes]))
    if wanted.status_codes:
        conditions.append(has_code(wanted.status_codes))
    own, is_own = _looked_up(connection, conditions, "attempts_of_delivery")
    order = (window.event_seq, deliveries_table.c.endpoint_seq, own.c.number)
    keys = request.of(sa.select(*(column.label(name) for column, name in zip(order, _NAMES, strict=True))), *order)
    key = keys.select_from(window.tables.join(own, is_own)).where(*window.conditions).subquery("page")
    # Select the page's keys first, so that only shown rows are read completely.
    shown, is_shown = _looked_up(connection, [column == key.c[column.name] for column in _KEY], "shown")
    query = sa.select(shown).select_from(key.join(shown, is_shown))
    query = query.order_by(*(request.ordered(key.c[name]) for name in _NAMES))
    found = [((row.event_seq, row.endpoint_seq), _attempt(row)) for row in connection.execute(query)]
    known = deliveries.find_by_keys(connection, {each for each, _ in found}) if found else {}
    return request.page(
        [ListedAttempt(attempt, known[each]) for each, attempt in found],
        lambda each: (each.delivery.event_seq, each.delivery.endpoint_seq, each.attempt.number),
        None if window.read_to is None else (*window.read_to, 0),
    )


_NAMES: Final = [column.name for column in _KEY]


def _looked_up(
    connection: Connection, conditions: Sequence[sa.ColumnElement[bool]], name: str
) -> tuple[sa.FromClause, sa.ColumnElement[bool]]:
    """Return a table with the attempts that meet `conditions`, and the condition on which a query joins this table."""
    if connection.dialect.name != "postgresql":
        return attempts, sa.and_(*conditions)
    # OFFSET makes PostgreSQL search an index for each row instead of reading the whole table.
    return sa.select(attempts).where(*conditions).offset(0).lateral(name), sa.true()


def page_of_delivery(connection: Connection, event_seq: int, endpoint_seq: int, request: PageRequest) -> Page[Attempt]:
    """Return a page of a delivery's attempts."""
    query = sa.select(attempts).where(attempts.c.event_seq == event_seq, attempts.c.endpoint_seq == endpoint_seq)
    rows = connection.execute(request.of(query, attempts.c.number))
    return request.page([_attempt(row) for row in rows], lambda attempt: (attempt.number,))


def last_of_deliveries(connection: Connection, event_seq: int, endpoint_seqs: Sequence[int]) -> dict[int, Attempt]:
    """Return the last attempt of an event's deliveries to some endpoints, by endpoint sequence number."""
    if not endpoint_seqs:
        return {}
    own = attempts.c.event_seq == event_seq, attempts.c.endpoint_seq.in_(endpoint_seqs)
    last = sa.select(attempts.c.endpoint_seq, sa.func.max(attempts.c.number)).where(*own)
    key = sa.tuple_(attempts.c.endpoint_seq, attempts.c.number)
    query = sa.select(attempts).where(*own, key.in_(last.group_by(attempts.c.endpoint_seq)))
    return {row.endpoint_seq: _attempt(row) for row in connection.execute(query)}


def get(connection: Connection, event_seq: int, endpoint_seq: int, number: int) -> Attempt | None:
    """Return one attempt of a delivery."""
    own = zip(_KEY, (event_seq, endpoint_seq, number), strict=True)
    row = connection.execute(sa.select(attempts).where(*(column == value for column, value in own))).first()
    return None if row is None else _attempt(row)


def _attempt(row: sa.Row[Any]) -> Attempt:
    return Attempt(
        number=row.number,
        trigger=Trigger(row.trigger),
        started_at=row.started_at,
        duration_us=row.duration_us,
        dns_ms=row.dns_ms,
        connect_ms=row.connect_ms,
        tls_ms=row.tls_ms,
        first_byte_ms=row.first_byte_ms,
        status_code=row.status_code,
        outcome=Outcome(row.outcome),
        error=row.error,
        location=row.location,
        remote_address=row.remote_address,
        request_head=mask_request_headers(row.request_head),
        response_head=row.response_head,
        # On SQLite, the body of an erased attempt contains only padding.
        response_body=row.response_body if row.request_head else b"",
        body_truncated=row.body_truncated,
    )
