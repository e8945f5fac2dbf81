"""The state of this process as a member of the cluster. Each heartbeat updates the state."""

import asyncio
from collections.abc import Sequence

from uplift_server.core.operations.cluster import HEARTBEAT_TRUSTED_MS
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.ports import Clock
from uplift_server.store.processes import Process


class ClusterState:
    """The membership state. Other parts of the engine may read its attributes, but must change them through methods.

    All times are Unix ms.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.process_id = 0
        self.delivers = False
        """Whether this process may own endpoints. False before this process is ready and while it stops."""
        self.view = 0
        """The view of this process: the `membership_hash` of the workers from which it computes its endpoints."""
        self.trusted_until = 0
        """The time before which no other process evicts this process."""
        self.heartbeat_at = 0
        """The time of the last heartbeat."""
        self.members: Sequence[Process] = ()
        """The live processes at the last heartbeat, including this process."""
        self._jobs: frozenset[SingletonJob] = frozenset()
        self._jobs_until = 0
        self._impossible: set[SingletonJob] = set()
        self.heartbeat_due = asyncio.Event()

    def join(self, process_id: int, now: int) -> None:
        """Record the process ID with which this process joined."""
        self.process_id, self.heartbeat_at = process_id, now

    def renew(self, began: int, members: Sequence[Process]) -> None:
        """Extend the membership after a heartbeat. `began` is the time when the heartbeat started."""
        self.heartbeat_at, self.trusted_until = began, began + HEARTBEAT_TRUSTED_MS
        self.members = members

    def deliver(self, *, delivers: bool) -> None:
        """Set whether this process may own endpoints. The next heartbeat publishes the change."""
        self.delivers = delivers

    def publish_view(self, view: int) -> None:
        """Set this process's view of the workers, and publish the view with an immediate heartbeat."""
        self.view = view
        self.request_heartbeat()

    def request_heartbeat(self) -> None:
        """Send the next heartbeat immediately."""
        self.heartbeat_due.set()

    def take_jobs(self, jobs: frozenset[SingletonJob], until: int) -> None:
        """Set the singleton jobs that this process holds until the time `until` (Unix ms)."""
        self._jobs, self._jobs_until = jobs, until

    def set_possible(self, job: SingletonJob, *, is_possible: bool) -> None:
        """Set whether this process can do a singleton job.

        If this process cannot do the job, the next heartbeats leave the job to other processes.
        """
        if is_possible:
            self._impossible.discard(job)
        else:
            self._impossible.add(job)

    def can_do(self, job: SingletonJob) -> bool:
        """Return whether this process may take a singleton job."""
        return job not in self._impossible

    def mark_evicted(self) -> None:
        """Record that another process evicted this process. The process loses its jobs and may not send deliveries."""
        self.trusted_until = 0
        self.take_jobs(frozenset(), 0)

    def holds(self, job: SingletonJob) -> bool:
        """Return whether this process holds a singleton job now."""
        return job in self._jobs and self._clock.now_ms() < self._jobs_until

    def living(self) -> Sequence[Process]:
        """Return the processes that were live at the last heartbeat, including this process."""
        return self.members

    def others(self) -> Sequence[Process]:
        """Return the processes that were live at the last heartbeat, except this process."""
        return [each for each in self.members if each.seq != self.process_id]

    def heartbeat_age_ms(self) -> int | None:
        """Return the time, in ms, since the last heartbeat if the membership has expired. Otherwise, return None."""
        heartbeat_age_ms = self._clock.now_ms() - self.heartbeat_at
        return heartbeat_age_ms if heartbeat_age_ms > HEARTBEAT_TRUSTED_MS else None
