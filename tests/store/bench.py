"""Helpers of the conformance suite: a database under test, events, deliveries and settlements."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import sqlalchemy as sa

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.events import envelope
from uplift_server.core.ids import uuid7, uuid_text
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.store.contract import Database
from uplift_server.store.hot_records import (
    Appended,
    AttemptRow,
    LeasedDelivery,
    LeaseRequest,
    NewDelivery,
    NewEvent,
    Settlement,
)

NOW = 1_764_000_000_000


LEASE_UNTIL = NOW + 30_000


OWNER = 7


ENOUGH_BYTES = 1 << 30


@dataclass
class Bench:
    """A database under test."""

    database: Database
    reopen: Callable[[], Awaitable[None]]
    """Close the database, and open it again like a new process."""
    _count: int = 0

    def event(
        self,
        *new_deliveries: NewDelivery,
        data: bytes = b'{"n":1}',
        key: str | None = None,
        chosen_id: bytes | None = None,
        account: int = 1,
        created_at: int = NOW,
        expires_at: int | None = None,
        object_id: str | None = None,
    ) -> NewEvent:
        """Return a new event with deliveries to some endpoints."""
        self._count += 1
        event_id = chosen_id or uuid7(created_at, self._count.to_bytes(10, "big"))
        body = envelope.build(uuid_text(event_id), "a.b", "01/01/2022", created_at, data)
        return NewEvent(
            event_id, account, 1, created_at, expires_at, body, new_deliveries, key, chosen_id is not None, data,
            object_id,
        )  # fmt: skip

    async def append(self, *events: NewEvent) -> list[Appended]:
        """Append events as one group. Fail if the database rejects the group."""
        (result,) = await self.database.append([events])
        assert isinstance(result, list)
        return result

    async def lease(
        self, endpoint: int, limit: int = 100, *, now: int = NOW, until: int = LEASE_UNTIL, process_id: int = OWNER
    ) -> list[LeasedDelivery]:
        """Lease the due deliveries of an endpoint."""
        return await self.database.lease_due(
            [LeaseRequest(endpoint, limit)],
            now=now,
            lease_until=until,
            process_id=process_id,
            body_bytes_max=ENOUGH_BYTES,
        )

    async def rows(self, table: sa.Table) -> list[sa.Row[tuple[object, ...]]]:
        """Return all rows of a table in the order of its key."""
        return await self.database.read(
            lambda c: list(c.execute(sa.select(table).order_by(*table.primary_key.columns)).all())
        )

    async def count(self, table: sa.Table) -> int:
        """Return the number of rows of a table."""
        return len(await self.rows(table))


def due(endpoint: int, at: int = NOW) -> NewDelivery:
    """Return a new pending delivery that is due at the time `at` (Unix ms)."""
    return NewDelivery(endpoint, Status.PENDING, at)


def stored_leased(endpoint: int, until: int = LEASE_UNTIL) -> NewDelivery:
    """Return a new delivery that is stored as leased."""
    return NewDelivery(endpoint, Status.PENDING, until, OWNER)


def settled(leased: LeasedDelivery, status: Status = Status.DELIVERED, due_at: int | None = None) -> Settlement:
    """Return the settlement of a leased delivery after one more attempt."""
    number = leased.attempts_made + 1
    outcome = Outcome.DELIVERED if status is Status.DELIVERED else Outcome.SERVER_ERROR
    attempt = AttemptRow(
        leased.event_seq, leased.endpoint_seq, number, Trigger.SCHEDULE, NOW, 1500, None, 1, None, 2, 200, outcome,
        None, None, "127.0.0.1:80", b"POST / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\x00\xff", False,
    )  # fmt: skip
    return Settlement(
        leased.event_seq,
        leased.endpoint_seq,
        leased.fence,
        status,
        due_at,
        number,
        number,
        outcome,
        FailedReason.EXHAUSTED if status is Status.FAILED else None,
        None if status is Status.PENDING else NOW,
        attempt,
    )


Check = Callable[[Bench], Awaitable[None]]
