"""Stores events with their deliveries on SQLite."""

import sqlite3
from collections.abc import Sequence

from uplift_server.core.lifecycle import Status
from uplift_server.store import repeated_events
from uplift_server.store.event_objects import SQLITE_BUCKET, object_key
from uplift_server.store.hot_records import Appended, IdempotencyConflict, NewEvent, OrderGroup, with_blocked
from uplift_server.store.repeated_events import KnownEvents, Match, StoredEvent
from uplift_server.store.sqlite import statements
from uplift_server.store.sqlite.order_groups import open_groups
from uplift_server.store.sqlite.statements import DeliveryRow, EventObjectRow, EventRow, IdempotencyKeyRow


class Appender:
    """Stores groups of events, and assigns their numbers. Only the writer thread uses this class."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # Retention never deletes the newest event, so no number is assigned twice.
        (highest,) = connection.execute(statements.HIGHEST_EVENT).fetchone()
        self.next_seq: int = highest + 1

    def append(self, groups: Sequence[Sequence[NewEvent]]) -> list[list[Appended] | IdempotencyConflict]:
        """Store groups of events with their deliveries in the current transaction.

        Return one result per group, in group order.
        """
        batch = _Batch(self._connection)
        seq = self.next_seq
        results: list[list[Appended] | IdempotencyConflict] = []
        for group in groups:
            if repeated_events.may_repeat(group):
                # Look up all events of a group before storing the first one.
                checked = repeated_events.check(group, range(seq, seq + len(group)), batch.known.find, batch.find)
                if isinstance(checked, IdempotencyConflict):
                    results.append(checked)
                    continue
                appended, fresh = checked
                for event, number in fresh:
                    batch.add(event, number)
                seq += len(fresh)
            else:
                appended = []
                for event in group:
                    batch.add(event, seq)
                    appended.append(Appended(seq, event.id, event.created_at))
                    seq += 1
            results.append(appended)
        blocked = batch.write()
        self.next_seq = seq
        return with_blocked(results, blocked) if blocked else results


class _Batch:
    """The rows that one `append` call inserts."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._events: list[EventRow] = []
        self._objects: list[EventObjectRow] = []
        self._deliveries: list[DeliveryRow] = []
        self._ordered: list[int] = []
        """The indexes in `_deliveries` of all deliveries that have an order group."""
        self._keys: list[IdempotencyKeyRow] = []
        self.known = KnownEvents()

    def add(self, event: NewEvent, seq: int) -> None:
        account, object_id = event.account_seq, event.object_id
        self._events.append(
            EventRow(
                seq, event.id, account, event.type_seq, event.created_at, event.expires_at, event.body, object_id,
                event.ordering_key,
            )
        )  # fmt: skip
        if object_id is not None:
            self._objects.append(EventObjectRow(seq - seq % SQLITE_BUCKET, object_key(account, object_id), seq))
        for endpoint, status, due_at, process_id, order_group in event.deliveries:
            if order_group is not None:
                self._ordered.append(len(self._deliveries))
            self._deliveries.append(
                DeliveryRow(seq, endpoint, account, status, due_at, process_id, 1 if process_id else 0, order_group)
            )
        if event.idempotency_key is not None:
            self._keys.append(IdempotencyKeyRow(account, event.idempotency_key, seq, event.created_at))
        if event.idempotency_key is not None or event.caller_chose_id:
            self.known.add(event, seq)

    def find(self, event: NewEvent) -> Match | None:
        """Return the stored event with the idempotency key or the emitter-chosen ID of `event`, or None."""
        if event.idempotency_key is not None:
            by_key = {"account_seq": event.account_seq, "key": event.idempotency_key}
            row = self._connection.execute(statements.EVENT_BY_KEY, by_key).fetchone()
            if row is not None:
                return Match("idempotency_key", StoredEvent(*row))
        if event.caller_chose_id:
            by_id = {"account_seq": event.account_seq, "id": event.id}
            row = self._connection.execute(statements.EVENT_BY_ID, by_id).fetchone()
            if row is not None:
                return Match("id", StoredEvent(*row))
        return None

    def write(self) -> dict[int, list[int]]:
        """Insert all rows. Return the endpoints whose delivery was stored as blocked, by event number."""
        blocked = self._block()
        statements.INSERT_EVENTS.run(self._connection, self._events)
        statements.INSERT_EVENT_OBJECTS.run(self._connection, self._objects)
        statements.INSERT_DELIVERIES.run(self._connection, self._deliveries)
        statements.INSERT_IDEMPOTENCY_KEYS.run(self._connection, self._keys)
        return blocked

    def _block(self) -> dict[int, list[int]]:
        """Block each pending delivery whose order group has an earlier open delivery."""
        blocked: dict[int, list[int]] = {}
        if not self._ordered:
            return blocked
        ordered = [self._deliveries[at] for at in self._ordered]
        groups = [OrderGroup(row.endpoint_seq, row.order_group or 0) for row in ordered]
        is_open = open_groups(self._connection, groups)
        for at, row, group in zip(self._ordered, ordered, groups, strict=True):
            if group in is_open and row.status == Status.PENDING:
                self._deliveries[at] = row._replace(due_at=None, lease_owner=0, fence=0)
                blocked.setdefault(row.event_seq, []).append(row.endpoint_seq)
            is_open.add(group)
        return blocked
