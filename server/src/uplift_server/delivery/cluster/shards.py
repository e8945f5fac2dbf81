"""Determines which endpoints this process owns as one of the workers of a cluster.

Each worker computes the owner of an endpoint from the live workers (`core.operations.cluster.assigned_worker`). When
workers join or leave, each worker first gives up the endpoints that it lost. Then it publishes a digest of the list of
workers as its view. It takes over new endpoints only when all workers have the same view. By then, no other worker
starts attempts to these endpoints. The attempts that are still in flight in other workers count toward the endpoints'
concurrency limits. Leases and fences prevent concurrent attempts of a delivery; ownership only prevents needless
conflicts.
"""

from collections.abc import Iterable, Sequence

from uplift_server.core.operations.cluster import assigned_worker, membership_hash
from uplift_server.delivery.cluster.notifier import Notifier
from uplift_server.delivery.cluster.state import ClusterState
from uplift_server.delivery.cluster.success_reports import SuccessReports
from uplift_server.delivery.ports import Clock
from uplift_server.store.processes import Process


class ClusteredShards:
    """Implements `Shards` for a cluster. `ShardHandover` moves endpoints between processes."""

    def __init__(self, state: ClusterState, notifier: Notifier, successes: SuccessReports, clock: Clock) -> None:
        self._state = state
        self._notifier = notifier
        self._successes = successes
        self._clock = clock
        self._owned: dict[int, bool] = {}
        """For each endpoint in the cache, whether this process owns it."""
        self.workers: tuple[int, ...] = ()
        self.is_agreed = False
        """Whether all workers have the same view."""
        self.gained: dict[int, None] = {}
        """Endpoints that are assigned to this process, but that it has not taken over yet."""
        self.lost: dict[int, None] = {}
        """Endpoints that this process no longer owns, but whose deliveries can still be in its queues."""

    @property
    def process_id(self) -> int:
        """The process ID in this process's leases. The ID changes when the process rejoins."""
        return self._state.process_id

    @property
    def membership_id(self) -> int:
        """This process's ID as a cluster member, or 0 outside a cluster."""
        return self._state.process_id

    def owns(self, endpoint_seq: int) -> bool:
        """Return whether this process delivers to an endpoint. The cache need not contain the endpoint."""
        owned = self._owned.get(endpoint_seq)
        return self.is_agreed and self.is_own(endpoint_seq) if owned is None else owned

    def may_send(self) -> bool:
        """Return whether this process may send deliveries. If not, other workers could already own its endpoints."""
        return self._clock.now_ms() < self._state.trusted_until

    def add(self, endpoint_seq: int) -> None:
        """Record an endpoint that was added to the cache, and whether this process owns the endpoint."""
        is_own = self.is_own(endpoint_seq)
        self._owned[endpoint_seq] = is_own and self.is_agreed
        if is_own and not self.is_agreed:
            self.gained[endpoint_seq] = None

    def discard(self, endpoint_seq: int) -> None:
        """Remove an endpoint that is no longer in the cache."""
        self._owned.pop(endpoint_seq, None)

    def foreign(self, endpoint_seqs: Iterable[int]) -> Iterable[int]:
        """Return the given endpoints that are in the cache and not owned by this process."""
        return [seq for seq in endpoint_seqs if not self._owned.get(seq, True)]

    def notify_owners(self, endpoint_seqs: Iterable[int]) -> None:
        """Notify the owners of these endpoints that deliveries are due."""
        self._notifier.notify_due(endpoint_seqs)

    def report_success(self, endpoint_seq: int, at: int) -> None:
        """Report to the owner of a failing endpoint that an attempt succeeded at `at` (Unix ms)."""
        self._successes.add(endpoint_seq, at)

    def announce_erased(self, event_seqs: Sequence[int], endpoint_seqs: Sequence[int]) -> None:
        """Notify the other processes of erased events.

        The other processes then drop the events' leased deliveries, and clear the endpoints' last errors.
        """
        self._notifier.notify_erased(event_seqs, endpoint_seqs)

    def is_own(self, endpoint_seq: int) -> bool:
        """Return whether an endpoint is assigned to this process."""
        return assigned_worker(endpoint_seq, self.workers) == self._state.process_id

    def take(self, endpoint_seq: int) -> None:
        """Record that this process has taken over an endpoint."""
        self._owned[endpoint_seq] = True

    def forget_lost(self, endpoint_seqs: Iterable[int]) -> None:
        """Remove endpoints from `lost`, because they have no more deliveries in this process."""
        for seq in endpoint_seqs:
            self.lost.pop(seq, None)

    def forget_gained(self, endpoint_seqs: Iterable[int]) -> None:
        """Remove endpoints from `gained`, because this process has taken them over or they were deleted."""
        for seq in endpoint_seqs:
            self.gained.pop(seq, None)

    def set_workers(self, workers: tuple[int, ...]) -> None:
        """Replace the list of workers, and update the endpoints that this process owns, lost and gained."""
        self.workers = workers
        self.is_agreed = False
        for seq, owned in self._owned.items():
            if not self.is_own(seq):
                self.gained.pop(seq, None)
                if owned:
                    self._owned[seq] = False
                    self.lost[seq] = None
            elif not owned:
                self.gained[seq] = None

    def compare_views(self, living: Sequence[Process]) -> None:
        """Set `is_agreed` by comparing the views of the live workers.

        The workers agree if this process is a worker in its own view, and all other live workers have the same view.
        """
        own, view = self._state.process_id, membership_hash(self.workers)
        others = [each for each in living if each.delivers and each.seq != own]
        self.is_agreed = own in self.workers and all(each.view == view for each in others)
