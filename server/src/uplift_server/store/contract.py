"""The contract of the store: what every engine provides, in the words of the domain.

One call is one transaction. `now`, ids and random bits are arguments. Every write can be repeated safely: settling or
releasing twice finds the fence moved, appending twice finds the idempotency key. A verb that cannot be done now raises
`Unavailable`; nothing of it has happened then.

The hot verbs below are tuned for each engine. All others are plain functions of a SQLAlchemy connection, written once
in this room's modules (one a noun), and run through `read` and `write`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection

from uplift_server.observe.counters import StoreCounters
from uplift_server.observe.store_health import StoreHealth
from uplift_server.store.hot_records import (
    Ahead,
    Appended,
    DueEndpoint,
    HealthRow,
    HeldRequest,
    IdempotencyConflict,
    LeasedDelivery,
    LeaseRequest,
    NewEvent,
    Released,
    ReplayLease,
    ReplayRelease,
    Settlement,
)
from uplift_server.store.partitions import Partitions
from uplift_server.store.replays import Choice, Replay
from uplift_server.store.stream_position import StreamPosition

R = TypeVar("R")
MESSAGE_BYTES_MAX: Final = 7_000
"""PostgreSQL takes no notification of 8,000 bytes or more."""
Transaction = Connection
"""What a verb is given. Outside this room it is only handed on."""


class Database(Protocol):
    """An engine: SQLite here, PostgreSQL beside it."""

    measures: StoreCounters
    """What has become of this process's transactions."""
    health: StoreHealth
    """Whether reads and writes of this process succeed."""
    partitions: Partitions | None
    """Where events are in partitions by time."""

    @property
    def writes_waiting(self) -> int:
        """How many verbs of this process wait for their transaction to begin."""

    async def open(self) -> None:
        """Connect and get ready; the schema must be in place. Raises Unavailable."""

    async def close(self) -> None:
        """Finish what was asked for and let go of the database."""

    def append(self, groups: Sequence[Sequence[NewEvent]]) -> Awaitable[list[list[Appended] | IdempotencyConflict]]:
        """Store events with their deliveries, durably, in one commit; a result for each group, in order.

        A group is stored whole or, where one of its events contradicts an earlier one of the same account with the same
        idempotency key or chosen id, not at all. A repeat with the same content gives the stored event.
        Raises Refused if a row can never be stored; the caller divides the groups to find it.
        """

    def lease_due(
        self, requests: Sequence[LeaseRequest], *, now: int, lease_until: int, owner: int, body_bytes_max: int
    ) -> Awaitable[list[LeasedDelivery]]:
        """Lease waiting deliveries whose due instant has come, the earliest due first within an endpoint.

        Stops early once the bodies together exceed `body_bytes_max`.
        """

    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, by: int = 0
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        """Write what attempts decided, and how their endpoints fare now.

        `by` is the process that says so, where there are several: how endpoints fare is not written of one that was
        taken for dead, whose endpoints others attempt by now.

        A settlement counts while its delivery is pending or held under its fence, even if the lease has ended: then
        nobody has leased it since.
        Gives the (event, endpoint) pairs whose lease was lost, for which nothing was written.
        Raises Refused if a row can never be stored; the caller divides the settlements to find it.
        """

    def release(self, leases: Sequence[tuple[int, int, int]], *, now: int) -> Awaitable[None]:
        """Give leases (event, endpoint, fence) back unused: their deliveries are due at `now`.

        Where something was due for their endpoint before that, they are due as early: they come before it again.
        """

    def reclaim(self, *, now: int, owner: int | None = None, limit: int = 1000) -> Awaitable[int]:
        """Make deliveries whose lease has ended by `now` due again; with `owner`, all of that owner's. How many.

        Where others go by the database's clock, it has to have ended by that, too.

        As with `release` they come before what was due for their endpoint and not leased.
        """

    def release_held(self, requests: Sequence[HeldRequest], *, now: int) -> Awaitable[list[Released]]:
        """Make held deliveries due at `now`, those of the oldest events first; a result for each request, in order.

        Those whose event has expired fail. While something due waits for an endpoint, nothing more is released to it:
        it would be attempted in another order than that of acceptance.
        """

    def release_replay(
        self, replay_seq: int, choice: Choice, ahead: Ahead, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        """Lease what a running replay was given back, then what lies ahead, for an attempt each outside its schedule.

        What has changed since it was read is looked at again; if it is no longer to be replayed, it counts as skipped.
        Ends the replay once nothing is left. One that does not run gets nothing.
        """

    async def look_ahead(self, replay: Replay, *, first: int, rows: int, limit: int, body_bytes_max: int) -> Ahead:
        """What a replay comes to next, from an event on: at most `limit` of its endpoint's next `rows` deliveries.

        The last one's body may exceed the bytes. It may look less far than it could.
        """

    async def due_endpoints(self, *, after: int = 0, limit: int = 1000) -> list[DueEndpoint]:
        """Endpoints with waiting deliveries, by number, each with its earliest due instant (which may be to come)."""

    def next_due(self, endpoint_seqs: Sequence[int]) -> Awaitable[list[DueEndpoint]]:
        """Return the earliest due time of each of these endpoints that has a waiting delivery."""

    async def horizon(self) -> StreamPosition:
        """Up to which numbers everything is there already for reads that begin after this. Raises Unavailable."""

    async def read(self, body: Callable[[Connection], R]) -> R:
        """Run a verb that only reads, on one consistent snapshot."""

    async def read_first(self, body: Callable[[Connection], R]) -> R:
        """The same for what a process must know in time: it does not wait for what callers read."""

    async def write(self, body: Callable[[Connection], R]) -> R:
        """Run a verb in a transaction of its own or beside others; an exception undoes it and comes back."""

    async def write_with_events(self, body: Callable[[Connection], tuple[R, Sequence[NewEvent]]]) -> R:
        """The same for a verb that owes events because of what it wrote: they are stored in its transaction."""

    async def append_then(self, event: NewEvent, body: Callable[[Connection, int], R]) -> R:
        """Store an event without a key, and run a verb that is told its number, in one transaction."""


class MessageBus(Protocol):
    """A connection of its own for heartbeats and notifications, so that neither waits for other work."""

    def listen(self, receive: Callable[[str], None]) -> None:
        """Pass on every published text from now on, also this process's own. Texts may get lost."""

    async def write(self, body: Callable[[Connection], R]) -> R:
        """Run a verb in a transaction of its own, beside all other writes. Raises Unavailable."""

    async def publish(self, texts: Sequence[str]) -> None:
        """Send texts of up to MESSAGE_BYTES_MAX to every process on this database. Raises Unavailable."""

    async def close(self) -> None:
        """Close the connection."""
