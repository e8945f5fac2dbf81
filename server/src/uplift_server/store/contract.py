"""The store contract: the operations that every database engine provides. Each call is one transaction.

The current time, IDs and random bits are arguments. Every write can be repeated safely: the store ignores a repeated
settlement or release because the first call has changed the delivery, and recognizes a repeated append by its
idempotency keys and emitter-chosen IDs. An operation that is not possible now raises `Unavailable` and changes nothing.
The operations in this module are on the hot path, and each engine implements them separately. All other operations are
functions that take a SQLAlchemy connection, in the modules of this package. Run these functions through `read` and
`write`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection

from uplift_server.observe.counters import StoreCounters
from uplift_server.observe.store_health import StoreHealth
from uplift_server.store.hot_records import (
    Appended,
    DueEndpoint,
    HealthRow,
    HeldRequest,
    IdempotencyConflict,
    LeasedDelivery,
    LeaseRequest,
    NewEvent,
    Released,
    ReplayBatch,
    ReplayLease,
    ReplayRelease,
    Settlement,
)
from uplift_server.store.partitions import Partitions
from uplift_server.store.replays import Replay, ReplaySelection
from uplift_server.store.stream_position import StreamPosition

R = TypeVar("R")
MESSAGE_BYTES_MAX: Final = 7_000
"""Maximum size of a message on the message bus, in bytes. PostgreSQL rejects notifications of 8,000 bytes or more."""
Transaction = Connection
"""The connection that store functions receive. Other packages only pass it to store functions."""


class Database(Protocol):
    """A database engine: SQLite or PostgreSQL."""

    measures: StoreCounters
    """Counters for this process's transactions."""
    health: StoreHealth
    """Whether the latest reads and writes of this process succeeded."""
    partitions: Partitions | None
    """The events table's time partitions. None on SQLite."""

    @property
    def writes_waiting(self) -> int:
        """The number of this process's operations that are waiting for their transaction to begin."""

    async def open(self) -> None:
        """Connect to the database. The schema must exist. Raises Unavailable."""

    async def close(self) -> None:
        """Finish pending operations and disconnect."""

    def append(self, groups: Sequence[Sequence[NewEvent]]) -> Awaitable[list[list[Appended] | IdempotencyConflict]]:
        """Store events with their deliveries in one durable commit. Return one result per group, in group order.

        A group is stored completely or not at all. A group conflicts if one of its events differs from an earlier event
        of the account that has the same idempotency key or the same emitter-chosen ID. For a repeated event with the
        same content, the result is the stored event. Raises Rejected if a row can never be stored. To find the row,
        the caller can retry with fewer groups.
        """

    def lease_due(
        self, requests: Sequence[LeaseRequest], *, now: int, lease_until: int, process_id: int, body_bytes_max: int
    ) -> Awaitable[list[LeasedDelivery]]:
        """Lease each endpoint's due deliveries, earliest due time first.

        Stop early if the total size of the events' bodies exceeds `body_bytes_max`.
        """

    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        """Write attempt outcomes and endpoint health.

        If the process `process_id` was evicted, do not write health, because other processes now own its endpoints. A
        `process_id` of 0 means that only one process uses the database. This process cannot be evicted.

        A settlement is valid while its delivery is pending or held with the same fence. It is valid even after the
        lease has expired, because the same fence shows that no other process has leased the delivery since. Return the
        (event, endpoint) pairs of the settlements that are not valid, for which nothing was written. Raises Rejected if
        a row can never be stored. To find the row, the caller can retry with fewer settlements.
        """

    def release(self, leases: Sequence[tuple[int, int, int]], *, now: int) -> Awaitable[None]:
        """Release unused leases (event number, endpoint number, fence), and make their deliveries due at `now`.

        If another delivery for the endpoint is due before `now`, the released deliveries take its due time, so that
        they stay ahead of it.
        """

    def reclaim(self, *, now: int, process_id: int | None = None, limit: int = 1000) -> Awaitable[int]:
        """Release up to `limit` leases: expired leases, or the leases of one process. Return their number.

        On PostgreSQL, a lease counts as expired only if it has also expired according to the database's clock.
        Therefore, a process whose clock jumped cannot end the leases of other processes. Due times are set as in
        `release`.
        """

    def release_held(self, requests: Sequence[HeldRequest], *, now: int) -> Awaitable[list[Released]]:
        """Make held deliveries due at `now`, oldest events first. Return one result per request, in request order.

        Deliveries of expired events fail. Skip endpoints that have due deliveries, to preserve event order.
        """

    def release_replay(
        self, replay_seq: int, choice: ReplaySelection, ahead: ReplayBatch, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        """Release the next deliveries of a replay for one attempt each. Lease those without an order group.

        First release the deliveries that were returned to the replay without an attempt, then the deliveries in the
        batch `ahead`. If a delivery has changed since the batch was read, read it again. If a delivery no longer
        matches the replay's filters, count it as skipped. Complete the replay if no delivery is left. Release nothing
        if the replay is not running.
        """

    async def read_replay_batch(
        self, replay: Replay, *, first: int, rows: int, limit: int, body_bytes_max: int
    ) -> ReplayBatch:
        """Return the next deliveries of a replay, starting at the event number `first`.

        Search at most the endpoint's next `rows` deliveries, or the account's next `rows` events if the replay sends
        missing events. Return at most `limit` deliveries. Stop early when the total size of the bodies exceeds
        `body_bytes_max`. The batch can contain fewer deliveries than the limits allow.
        """

    async def due_endpoints(self, *, after: int = 0, limit: int = 1000) -> list[DueEndpoint]:
        """Return the endpoints with waiting deliveries, sorted by `seq`, each with its earliest due time.

        Due times can be in the past or in the future.
        """

    def next_due(self, endpoint_seqs: Sequence[int]) -> Awaitable[list[DueEndpoint]]:
        """Return the earliest due time for each endpoint in `endpoint_seqs` that has waiting deliveries."""

    async def scrub(self) -> bool:
        """Remove the earlier content of changed rows from the database files, as far as a running engine can do so.

        SQLite copies its write-ahead log into the database file and empties the log. PostgreSQL removes dead rows.
        Return False if a read in progress still needs the content. The caller must then try again. Raises Unavailable.
        """

    async def stream_position(self) -> StreamPosition:
        """Return the stream position. Later reads see all rows with numbers up to this position. Raises Unavailable."""

    async def read(self, body: Callable[[Connection], R]) -> R:
        """Run a read-only function on one consistent snapshot."""

    async def read_with_priority(self, body: Callable[[Connection], R]) -> R:
        """Run a read-only function without waiting for the reads of API requests."""

    async def write(self, body: Callable[[Connection], R]) -> R:
        """Run a function in a transaction. If the function raises an exception, roll back its changes.

        On PostgreSQL, other writes run concurrently, so the function must take the locks that it needs (`store.locks`).
        """

    async def write_with_events(self, body: Callable[[Connection], tuple[R, Sequence[NewEvent]]]) -> R:
        """Run a function that returns events, and store these events in the same transaction."""

    async def append_then(self, event: NewEvent, body: Callable[[Connection, int], R]) -> R:
        """Store an event without an idempotency key, and call `body` with the event's number, in one transaction."""


class MessageBus(Protocol):
    """A separate connection for heartbeats and for messages between processes."""

    def listen(self, receive: Callable[[str], None]) -> None:
        """From now on, pass every message to `receive`, including messages from this process. Messages can be lost."""

    async def write(self, body: Callable[[Connection], R]) -> R:
        """Run a function in a transaction that does not wait for other writes. Raises Unavailable."""

    async def publish(self, texts: Sequence[str]) -> None:
        """Send messages of up to MESSAGE_BYTES_MAX bytes each to every process on this database. Raises Unavailable."""

    async def close(self) -> None:
        """Disconnect from the database."""
