"""Ports of the engine: the clock, and the other processes on the database."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.store.processes import Process

NEVER: Final = 2**63 - 1
"""The latest time (Unix ms)."""
SEEN_WITHIN_MS: Final = 1_000
"""The time within which every process sees a change to an endpoint."""


class Clock(Protocol):
    """A wall clock with timers."""

    def now_ms(self) -> int:
        """Return the engine's Unix time in ms. It never goes backward."""

    def wall_ms(self) -> int:
        """Return the machine's Unix time in ms, for timestamps that receivers compare with their own clock."""

    def monotonic_us(self) -> int:
        """Return a monotonic time in microseconds, to measure durations."""

    def processor_s(self) -> float:
        """Return the CPU time of this process in seconds."""

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        """Wait until the event is set or the timeout has passed."""

    def call_at(self, at_ms: float, callback: "Callback") -> "Handle":
        """Call back once at `at_ms` (Unix ms), or soon if this time has passed."""


class Callback(Protocol):
    """A callback of a timer."""

    def __call__(self) -> None:
        """Run when the timer fires."""


class Handle(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Cancel the call."""


class Shards(Protocol):
    """The endpoints that this process delivers to."""

    @property
    def process_id(self) -> int:
        """The ID under which this process leases. A rejoin changes it."""

    @property
    def membership_id(self) -> int:
        """The process ID as a member of a cluster; 0 outside a cluster."""

    def owns(self, endpoint_seq: int) -> bool:
        """Return whether this process delivers to an endpoint. The endpoint need not be in the cache."""

    def may_send(self) -> bool:
        """Return whether this process may send. If not, another process may have taken over its endpoints."""

    def add(self, endpoint_seq: int) -> None:
        """Assign an endpoint that is new in the cache."""

    def discard(self, endpoint_seq: int) -> None:
        """Remove an endpoint that left the cache."""

    def foreign(self, endpoint_seqs: Iterable[int]) -> Iterable[int]:
        """Return the endpoints in the cache that other processes own."""

    def notify_owners(self, endpoint_seqs: Iterable[int]) -> None:
        """Notify the owners of these endpoints about due deliveries."""

    def report_success(self, endpoint_seq: int, at: int) -> None:
        """Report a successful attempt at `at` (Unix ms) to the owner of a failing endpoint."""

    def announce_erased(self, event_seqs: Sequence[int], endpoint_seqs: Sequence[int]) -> None:
        """Notify other processes to drop leased deliveries of erased events, and last errors of endpoints."""


class SingletonJobs(Protocol):
    """The jobs that one process does for the whole cluster."""

    def holds(self, job: SingletonJob) -> bool:
        """Return whether this process does a job now."""


class Peers(Protocol):
    """The other processes on the database."""

    def living(self) -> Sequence[Process] | None:
        """Return all live processes at the last heartbeat, including this one. Return None outside a cluster."""

    def others(self) -> Sequence[Process]:
        """Return all live processes at the last heartbeat, except this one."""

    def heartbeat_age_ms(self) -> int | None:
        """Return the time since the last heartbeat if it has expired, else None."""
