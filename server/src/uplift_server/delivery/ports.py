"""Interfaces through which the engine accesses the clock, this process's endpoints and jobs, and other processes."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.store.processes import Process

NEVER: Final = 2**63 - 1
"""A time in the far future that is never reached (Unix ms)."""
SEEN_WITHIN_MS: Final = 1_000
"""The maximum time until every process has applied a change to an endpoint, in ms."""


class Clock(Protocol):
    """The engine's time: a wall clock, a monotonic clock, the CPU time of this process, and timers."""

    def now_ms(self) -> int:
        """Return the engine's Unix time in ms. It never goes backward."""

    def wall_ms(self) -> int:
        """Return the wall clock's Unix time in ms, for timestamps that receivers compare with their own clock.

        Unlike `now_ms`, the result can go backward.
        """

    def monotonic_us(self) -> int:
        """Return a monotonic time in microseconds, for measuring durations."""

    def processor_s(self) -> float:
        """Return the CPU time of this process in seconds."""

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        """Wait until the event is set or the timeout has passed."""

    def call_at(self, at_ms: float, callback: "Callback") -> "Handle":
        """Call `callback` once at `at_ms` (Unix ms), or as soon as possible if `at_ms` is in the past."""


class Callback(Protocol):
    """The callback of a timer."""

    def __call__(self) -> None:
        """Do the scheduled work. The timer calls this function once."""


class Handle(Protocol):
    """A scheduled call of a callback, which can be cancelled."""

    def cancel(self) -> None:
        """Cancel the scheduled call."""


class Shards(Protocol):
    """The interface that reports which endpoints this process owns, and notifies the owners of other endpoints."""

    @property
    def process_id(self) -> int:
        """The process ID in this process's leases. The ID changes when the process rejoins."""

    @property
    def membership_id(self) -> int:
        """This process's ID as a cluster member, or 0 outside a cluster."""

    def owns(self, endpoint_seq: int) -> bool:
        """Return whether this process delivers to an endpoint. The cache need not contain the endpoint."""

    def may_send(self) -> bool:
        """Return whether this process may send deliveries.

        If not, other processes could already deliver to its endpoints.
        """

    def add(self, endpoint_seq: int) -> None:
        """Record an endpoint that was added to the cache, and whether this process owns the endpoint."""

    def discard(self, endpoint_seq: int) -> None:
        """Remove an endpoint that is no longer in the cache."""

    def foreign(self, endpoint_seqs: Iterable[int]) -> Iterable[int]:
        """Return the given endpoints that are in the cache and not owned by this process."""

    def notify_owners(self, endpoint_seqs: Iterable[int]) -> None:
        """Notify the owners of endpoints that deliveries are due."""

    def report_success(self, endpoint_seq: int, at: int) -> None:
        """Report to the owner of a failing endpoint that an attempt by this process succeeded at `at` (Unix ms)."""

    def announce_erased(self, event_seqs: Sequence[int], endpoint_seqs: Sequence[int]) -> None:
        """Notify the other processes of erased events.

        The other processes then drop the events' leased deliveries, and clear the endpoints' last errors.
        """


class SingletonJobs(Protocol):
    """The jobs that only one process of the cluster runs at a time."""

    def holds(self, job: SingletonJob) -> bool:
        """Return whether this process holds a singleton job now."""


class Peers(Protocol):
    """The interface to the other processes that use the database."""

    def living(self) -> Sequence[Process] | None:
        """Return all processes that were alive at the last heartbeat, including this process.

        Return None outside a cluster.
        """

    def others(self) -> Sequence[Process]:
        """Return all processes that were alive at the last heartbeat, except this process."""

    def heartbeat_age_ms(self) -> int | None:
        """Return the time since the last heartbeat, in ms, if the membership has expired. Otherwise, return None."""


class CacheFreshness(Protocol):
    """The interface that reports whether the cache of this process is up to date."""

    @property
    def synced_at(self) -> int:
        """The time up to which the cache contains all changes (Unix ms)."""

    def wake(self) -> None:
        """Read new changes into the cache now."""
