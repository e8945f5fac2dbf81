"""Stores events with their deliveries on PostgreSQL. One statement stores a batch of events."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

import asyncpg

from uplift_server.core.ids import is_uuid7
from uplift_server.core.lifecycle import Status
from uplift_server.store import repeated_events
from uplift_server.store.event_objects import object_key
from uplift_server.store.hot_records import (
    Appended,
    IdempotencyConflict,
    NewDelivery,
    NewEvent,
    OrderGroup,
    with_blocked,
)
from uplift_server.store.postgres import statements
from uplift_server.store.postgres.connection import Raw, transaction
from uplift_server.store.postgres.order_groups import lock_order, open_groups
from uplift_server.store.repeated_events import KnownEvents, StoredEvent

Results = list[list[Appended] | IdempotencyConflict]
_Placed = tuple[int, NewEvent, NewDelivery]
"""A delivery with its event, and the event's position in the batch, counted from 1."""

RETRIES_MAX: Final = 8
"""Maximum number of retries for a batch.

The server retries if another transaction has stored one of the batch's idempotency keys or event IDs in the meantime.
"""


async def append_events(
    raw: Raw,
    groups: Sequence[Sequence[NewEvent]],
    statement_scope: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> Results:
    """Store events with their deliveries.

    Each statement runs in a context that `statement_scope` returns. The context opens a transaction if the connection
    needs one for its settings.
    """
    for _ in range(RETRIES_MAX):
        try:
            async with statement_scope():
                return await _append(raw, groups)
        except asyncpg.UniqueViolationError:
            # Another transaction stored one of the keys or IDs first. The repeated batch finds the stored rows.
            if raw.is_in_transaction():
                raise
            ids = [(event.account_seq, event.id) for group in groups for event in group if event.caller_chose_id]
            if ids:
                async with statement_scope():
                    await raw.execute(statements.DELETE_CHOSEN_IDS_WITHOUT_EVENT, *zip(*ids, strict=True))
    async with statement_scope():
        return await _append(raw, groups)


async def _append(raw: Raw, groups: Sequence[Sequence[NewEvent]]) -> Results:
    checked = [group for group in groups if repeated_events.may_repeat(group)]
    stored = await _stored(raw, checked) if checked else KnownEvents()
    batch = _Batch()
    results: Results = []
    for group in groups:
        if not repeated_events.may_repeat(group):
            results.append([Appended(batch.add(event), event.id, event.created_at) for event in group])
            continue
        # An event's provisional number is the complement (`~`) of its index in the batch.
        found = repeated_events.check(group, batch.next_numbers(len(group)), batch.known.find, stored.find)
        if isinstance(found, IdempotencyConflict):
            results.append(found)
            continue
        appended, fresh = found
        for event, _ in fresh:
            batch.add(event)
        results.append(appended)
    if batch.events:
        seqs = await batch.insert(raw)
        for result in results:
            if isinstance(result, list):
                result[:] = [each._replace(seq=seqs[~each.seq]) if each.seq < 0 else each for each in result]
        if batch.blocked:
            return with_blocked(results, {seqs[~number]: found for number, found in batch.blocked.items()})
    return results


async def _stored(raw: Raw, groups: Sequence[Sequence[NewEvent]]) -> KnownEvents:
    known = KnownEvents()
    keys = [(e.account_seq, e.idempotency_key) for group in groups for e in group if e.idempotency_key is not None]
    if keys:
        for row in await raw.fetch(statements.EVENTS_BY_KEY, *zip(*keys, strict=True)):
            known.by_key[row["account_seq"], row["key"]] = _stored_event(row)
    chosen = [e for group in groups for e in group if e.caller_chose_id]
    # A UUIDv7 can be an ID that the server generated, because a caller can send the ID of any stored event again.
    own = [(e.account_seq, e.id) for e in chosen if is_uuid7(e.id) and not e.is_server_id]
    foreign = [(e.account_seq, e.id) for e in chosen if not is_uuid7(e.id) or e.is_server_id]
    for statement, ids in ((statements.EVENTS_BY_OWN_ID, own), (statements.EVENTS_BY_FOREIGN_ID, foreign)):
        if ids:
            for row in await raw.fetch(statement, *zip(*ids, strict=True)):
                known.by_id[row["account_seq"], row["id"]] = _stored_event(row)
    return known


def _stored_event(row: asyncpg.Record) -> StoredEvent:
    return StoredEvent(
        row["seq"],
        row["id"],
        row["created_at"],
        row["type_seq"],
        row["expires_at"],
        row["ordering_key"],
        row["body"],
    )


class _Batch:
    """The events that one statement stores, with provisional numbers until the database assigns the event numbers."""

    def __init__(self) -> None:
        self.events: list[NewEvent] = []
        self.known = KnownEvents()
        self.blocked: dict[int, list[int]] = {}
        """The endpoints whose delivery was stored as blocked, by the event's provisional number."""

    def next_numbers(self, count: int) -> Sequence[int]:
        """Return the provisional numbers that the next `count` events will get."""
        first = ~len(self.events)
        return range(first, first - count, -1)

    def add(self, event: NewEvent) -> int:
        """Add an event and return its provisional number."""
        number = ~len(self.events)
        self.events.append(event)
        if event.idempotency_key is not None or event.caller_chose_id:
            self.known.add(event, number)
        return number

    async def insert(self, raw: Raw) -> Sequence[int]:
        """Insert all events in the batch. Return the event numbers in the order in which the events were added."""
        placed = list(enumerate(self.events, 1))
        deliveries = [(place, event, delivery) for place, event in placed for delivery in event.deliveries]
        if any(delivery.order_group is not None for _, _, delivery in deliveries):
            async with transaction(raw):
                return await self._insert(raw, placed, await self._with_blocked(raw, deliveries))
        return await self._insert(raw, placed, deliveries)

    async def _with_blocked(self, raw: Raw, deliveries: Sequence[_Placed]) -> Sequence[_Placed]:
        """Return `deliveries`, with each pending delivery blocked if its order group has an earlier open delivery.

        This method first locks the delivery order of the endpoints.
        """
        ordered = [
            OrderGroup(each.endpoint_seq, each.order_group) for _, _, each in deliveries if each.order_group is not None
        ]
        await lock_order(raw, (endpoint_seq for endpoint_seq, _ in ordered))
        is_open = await open_groups(raw, ordered)
        result: list[_Placed] = []
        for place, event, delivery in deliveries:
            if delivery.order_group is not None:
                group = OrderGroup(delivery.endpoint_seq, delivery.order_group)
                if group in is_open and delivery.status == Status.PENDING:
                    delivery = delivery._replace(due_at=None, lease_owner=0)  # noqa: PLW2901
                    self.blocked.setdefault(-place, []).append(delivery.endpoint_seq)
                is_open.add(group)
            result.append((place, event, delivery))
        return result

    async def _insert(
        self, raw: Raw, placed: list[tuple[int, NewEvent]], deliveries: Sequence[_Placed]
    ) -> Sequence[int]:
        # Transactions store keys and IDs in the same order, so that they cannot deadlock.
        keyed = sorted((e.account_seq, e.idempotency_key, p, e) for p, e in placed if e.idempotency_key is not None)
        chosen = sorted((e.account_seq, e.id, place) for place, e in placed if e.caller_chose_id)
        objects = [(place, object_key(e.account_seq, e.object_id)) for place, e in placed if e.object_id is not None]
        if chosen:
            placed.sort(key=lambda each: (each[1].account_seq, each[1].id))
        parameters: list[Sequence[Any]] = [
            [place for place, _ in placed],
            [event.id for _, event in placed],
            [event.account_seq for _, event in placed],
            [event.type_seq for _, event in placed],
            [event.created_at for _, event in placed],
            [event.expires_at for _, event in placed],
            [event.body for _, event in placed],
            [event.object_id for _, event in placed],
            [event.ordering_key for _, event in placed],
            [place for place, _, _ in deliveries],
            [delivery.endpoint_seq for _, _, delivery in deliveries],
            [event.account_seq for _, event, _ in deliveries],
            [delivery.status for _, _, delivery in deliveries],
            [delivery.due_at for _, _, delivery in deliveries],
            [delivery.lease_owner for _, _, delivery in deliveries],
            [delivery.order_group for _, _, delivery in deliveries],
        ]
        if keyed:
            parameters += [
                [place for _, _, place, _ in keyed],
                [account_seq for account_seq, _, _, _ in keyed],
                [key for _, key, _, _ in keyed],
                [event.created_at for _, _, _, event in keyed],
            ]
        if chosen:
            parameters += [
                [place for _, _, place in chosen],
                [account_seq for account_seq, _, _ in chosen],
                [event_id for _, event_id, _ in chosen],
            ]
        if objects:
            parameters += [[place for place, _ in objects], [key for _, key in objects]]
        statement = statements.APPEND[bool(keyed), bool(chosen), bool(objects)]
        seqs: Sequence[int] = await raw.fetchval(statement, len(placed), *parameters)
        return seqs
