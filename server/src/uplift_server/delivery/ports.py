"""The ports of the engine to its surroundings: the clock, and the other processes on its database."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.store.processes import Process

SEEN_WITHIN_MS: Final = 1_000
"""The time within which every process sees a change of an endpoint."""


class Clock(Protocol):
    """The wall clock, and waiting by it."""

    def now_ms(self) -> int:
        """Unix time in ms, by which everything here waits. It never goes back."""

    def wall_ms(self) -> int:
        """Unix time in ms as the machine has it now, for what others compare with a clock of their own."""

    def monotonic_us(self) -> int:
        """Microseconds since some instant, for measuring how long something took."""

    def processor_s(self) -> float:
        """Processor time this process has used so far."""

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        """Until the event is set or the time is over, whichever comes first."""

    def call_at(self, at_ms: float, callback: "Callback") -> "Handle":
        """Call back once at an instant (Unix ms), or soon if it has passed."""


class Callback(Protocol):
    """What `call_at` calls."""

    def __call__(self) -> None:
        """Without arguments."""


class Handle(Protocol):
    """A call to come."""

    def cancel(self) -> None:
        """Do not make it."""


class Shards(Protocol):
    """The endpoints that this process delivers to."""

    @property
    def process_id(self) -> int:
        """The ID under which this process leases; another one after a rejoin."""

    @property
    def membership_id(self) -> int:
        """The process ID as a member of a cluster, which can be evicted; 0 outside a cluster."""

    def owns(self, endpoint_seq: int) -> bool:
        """Whether this process delivers to an endpoint, also one that is not in the cache."""

    def may_send(self) -> bool:
        """Whether other processes still rely on this one to deliver to its endpoints."""

    def add(self, endpoint_seq: int) -> None:
        """Decide about an endpoint that is new in the cache."""

    def discard(self, endpoint_seq: int) -> None:
        """Forget an endpoint that left the cache."""

    def foreign(self, endpoint_seqs: Iterable[int]) -> Iterable[int]:
        """The endpoints in the cache that belong to other processes."""

    def notify_owners(self, endpoint_seqs: Iterable[int]) -> None:
        """Tell other processes that deliveries to their endpoints are due."""

    def report_success(self, endpoint_seq: int, at: int) -> None:
        """Tell the owner of a failing endpoint that an attempt succeeded at a time (Unix ms)."""


class SingletonJobs(Protocol):
    """The jobs that one process does for all."""

    def holds(self, job: SingletonJob) -> bool:
        """Whether this process does a job now."""


class Peers(Protocol):
    """The other processes on the database."""

    def living(self) -> Sequence[Process] | None:
        """All living processes at the last heartbeat, with this one; None if there can be no others."""

    def others(self) -> Sequence[Process]:
        """The same without this one."""

    def unheard_ms(self) -> int | None:
        """The time since the last heartbeat, if it is so long that other processes continue without this one."""
