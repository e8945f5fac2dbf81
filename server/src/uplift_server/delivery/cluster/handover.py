"""The handover of endpoints between workers when workers join or leave the cluster."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from uplift_server.core.operations.cluster import HEARTBEAT_INTERVAL_MS, membership_hash
from uplift_server.delivery.cluster.notifier import Notifier
from uplift_server.delivery.cluster.shards import ClusteredShards
from uplift_server.delivery.cluster.state import ClusterState
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.health.monitor import HealthMonitor
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.replays.jobs import ReplayJobs
from uplift_server.delivery.scheduling.dispatcher import Dispatcher
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.delivery.scheduling.held import HeldDeliveries
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.store import health, processes
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.processes import Process

FOREIGN_LEASES_EVERY_MS: Final = 100
"""The interval, in ms, between reads of the leases that other processes still hold on this process's endpoints."""
UNAVAILABLE_WAIT_MS: Final = 500
HEALTH_READ_MAX: Final = 1_000
_log = structlog.get_logger()


class ShardHandover:
    """Gives up endpoints that are no longer assigned to this process, and takes over newly assigned endpoints."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        state: ClusterState,
        shards: ClusteredShards,
        notifier: Notifier,
        lanes: DeliveryLanes,
        due: DueEndpoints,
        dispatcher: Dispatcher,
        replays: ReplayJobs,
        held: HeldDeliveries,
        monitor: HealthMonitor,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._state = state
        self._shards = shards
        self._notifier = notifier
        self._lanes = lanes
        self._due = due
        self._dispatcher = dispatcher
        self._replays = replays
        self._held = held
        self._monitor = monitor
        self._clock = clock
        self._wake = asyncio.Event()
        self._has_foreign_leases = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Hand over endpoints when workers join or leave, until the process stops or the task is cancelled."""
        while not stopping.is_set():
            self._wake.clear()
            try:
                await self.settle()
            except Unavailable:
                await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)
                continue
            wait_ms = FOREIGN_LEASES_EVERY_MS if self._has_foreign_leases else HEARTBEAT_INTERVAL_MS
            await self._clock.wait(self._wake, wait_ms)

    def heartbeat(self, living: Sequence[Process]) -> None:
        """Handle a heartbeat of this process. `living` contains the live processes, including this process."""
        workers = tuple(each.seq for each in living if each.delivers)
        if workers != self._shards.workers:
            includes_this_process = self._state.process_id in workers
            _log.info("list of workers changed", workers=len(workers), includes_this_process=includes_this_process)
            self._set_workers(workers)
        self._shards.compare_views(living)
        if self._shards.lost or self._shards.gained or self._state.view != membership_hash(workers):
            self._wake.set()
        self._lanes.pump()
        if self._due.backlog:
            # Without heartbeats, the dispatcher leased nothing.
            self._due.wake()

    def rejoined(self) -> None:
        """Handle the eviction of this process, which has rejoined with a new process ID."""
        self.drop_all()

    def drop_all(self) -> None:
        """Give up all endpoints, because this process has rejoined or is about to stop."""
        self._set_workers(())

    async def settle(self) -> None:
        """Give up endpoints that now belong to other workers, and publish this process's view of the workers.

        If all workers have the same view, take over the endpoints that now belong to this process. If this
        method raises Unavailable, the next call continues the handover.
        """
        if self._shards.lost:
            await self._give_up(list(self._shards.lost))
        view = membership_hash(self._shards.workers)
        if self._state.view != view:
            # Publish the view only after giving up endpoints: it allows other workers to send to these endpoints.
            self._state.publish_view(view)
            self._notifier.notify_workers_changed()
        if self._shards.is_agreed and self._shards.gained:
            await self._take_over(list(self._shards.gained))
        if self._has_foreign_leases:
            leased = await self._foreign_leases()
            self._has_foreign_leases = self._lanes.note_foreign_leases(leased)

    def _set_workers(self, workers: tuple[int, ...]) -> None:
        self._shards.set_workers(workers)
        self._wake.set()

    async def _give_up(self, endpoint_seqs: Sequence[int]) -> None:
        for seq in endpoint_seqs:
            for delivery in self._lanes.empty(seq):
                self._dispatcher.release_lease(delivery)
        await self._dispatcher.release_unused()
        self._shards.forget_lost(endpoint_seqs)

    async def _take_over(self, endpoint_seqs: Sequence[int]) -> None:
        workers = self._shards.workers
        await self._replays.take_over(frozenset(endpoint_seqs))
        states_since = {seq: self._state_since(seq) for seq in endpoint_seqs}
        stored = {}
        for at in range(0, len(endpoint_seqs), HEALTH_READ_MAX):
            some = endpoint_seqs[at : at + HEALTH_READ_MAX]
            stored.update(await self._database.read_with_priority(lambda c: health.get(c, some)))  # noqa: B023 - run before the next turn
        leased = await self._foreign_leases()
        if workers != self._shards.workers:
            return
        self._shards.forget_gained(endpoint_seqs)
        for seq in endpoint_seqs:
            endpoint = self._cache.endpoints.get(seq)
            if endpoint is not None and self._shards.is_own(seq):
                # If the endpoint was enabled during the reads, its health was reset.
                if states_since[seq] == endpoint.record.state_since:
                    endpoint.health = stored.get(seq, endpoint.health)
                self._shards.take(seq)
                self._lanes.take_over(endpoint, leased.get(seq, 0))
                self._due.note_backlog(seq)
                self._replays.wake_endpoint(seq)
                self._held.enqueue(seq)
                self._monitor.watch(endpoint)
        self._has_foreign_leases = self._has_foreign_leases or bool(leased)
        self._due.scan()

    def _state_since(self, endpoint_seq: int) -> int | None:
        endpoint = self._cache.endpoints.get(endpoint_seq)
        return None if endpoint is None else endpoint.record.state_since

    async def _foreign_leases(self) -> dict[int, int]:
        own = self._state.process_id
        return dict(await self._database.read_with_priority(lambda c: processes.foreign_leases(c, own)))
