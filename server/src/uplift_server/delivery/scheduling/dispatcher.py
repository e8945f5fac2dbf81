"""Dispatcher: leases due deliveries that are not in memory, and queues them in the lanes.

Such deliveries are retries, deliveries from before a restart, and deliveries whose lanes had no room. The dispatcher
keeps the next due time of each endpoint in memory. The due times of deliveries from other processes or from before a
restart may be missing, so the dispatcher also scans the database for due times once a second.
"""

import asyncio
from collections import Counter
from typing import Final

from uplift_server.core.lifecycle import Trigger
from uplift_server.core.limits import LEASE_BATCH_MAX, RELEASE_BATCH_MAX
from uplift_server.core.scheduling.lane import AttemptKind
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.ports import Clock, Shards
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.delivery.scheduling.held import HeldDeliveries
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import Lease, LeasedDelivery, LeaseRequest

SCAN_PAGE: Final = 1000
ENDPOINT_LEASE_MIN: Final = 16
UNAVAILABLE_WAIT_MS: Final = 500


class Dispatcher:
    """Leases due deliveries of the endpoints whose lanes have room."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        shards: Shards,
        lanes: DeliveryLanes,
        due: DueEndpoints,
        held: HeldDeliveries,
        clock: Clock,
        *,
        lease_ms: int,
        scan_every_ms: int,
    ) -> None:
        self._database = database
        self._cache = cache
        self._shards = shards
        self._lanes = lanes
        self._clock = clock
        self._lease_ms = lease_ms
        self._scan_every_ms = scan_every_ms
        self._due = due
        self._held = held
        self._stopping = False
        self._scanned_at = 0
        self._release_lock = asyncio.Lock()
        self._unused_leases: list[tuple[int, int, int]] = []

    def release_lease(self, delivery: Lease | LeasedDelivery) -> None:
        """Release the lease of a delivery that was not attempted."""
        self._unused_leases.append((delivery.event_seq, delivery.endpoint_seq, delivery.fence))
        self._due.note_backlog(delivery.endpoint_seq)
        self._due.wake()

    def note_due(self, endpoint_seq: int) -> None:
        """Lease the due deliveries of an endpoint now."""
        self._due.note_due(endpoint_seq)

    def stop(self) -> None:
        """Stop leasing deliveries. `run` then returns soon."""
        self._stopping = True
        self._due.wake()

    async def run(self) -> None:
        """Lease due deliveries until `stop` is called."""
        while not self._stopping:
            self._due.changed.clear()
            try:
                more = await self._round()
            except Unavailable:
                await self._clock.wait(asyncio.Event(), UNAVAILABLE_WAIT_MS)
                continue
            if not more and not self._stopping:
                await self._clock.wait(self._due.changed, self._wait_ms())

    def _wait_ms(self) -> int:
        now = self._clock.now_ms()
        next_scan = self._scanned_at + self._scan_every_ms
        next_due = self._due.next_at
        return max(1, min(next_scan, next_scan if next_due is None else next_due) - now)

    async def _round(self) -> bool:
        """Release unused leases, scan the database if a scan is due, and lease due deliveries.

        Return whether unused leases or due deliveries may be left.
        """
        await self._release_batch()
        now = self._clock.now_ms()
        if self._due.needs_scan or now - self._scanned_at >= self._scan_every_ms:
            await self._scan(now)
        return await self._lease() or bool(self._unused_leases)

    async def release_unused(self) -> None:
        """Release all unused leases.

        If the store fails, raise Unavailable and keep the remaining leases for the next call.
        """
        # Call `_release_batch` even without unused leases, to wait for leases that the loop is releasing.
        await self._release_batch()
        while self._unused_leases:
            await self._release_batch()

    async def _release_batch(self) -> None:
        async with self._release_lock:
            await self._release(RELEASE_BATCH_MAX)

    async def _release(self, limit: int) -> None:
        unused, self._unused_leases = self._unused_leases[:limit], self._unused_leases[limit:]
        if not unused:
            return
        try:
            await self._database.release(unused, now=self._clock.now_ms())
        except (Unavailable, asyncio.CancelledError):
            # The next call can safely repeat a release that succeeded, because the fence changes with each lease.
            self._unused_leases = unused + self._unused_leases
            raise
        if foreign := {seq for _, seq, _ in unused if not self._shards.owns(seq)}:
            self._shards.notify_owners(foreign)

    async def _scan(self, now: int) -> None:
        """End the expired leases in the database, and read the next due time of every endpoint."""
        # Timers ignore a clock that is set forward, so an attempt may be due before its timer fires.
        self._lanes.pump()
        await self._database.reclaim(now=now)
        self._scanned_at, self._due.needs_scan = now, False
        after = 0
        while True:
            page = await self._database.due_endpoints(after=after, limit=SCAN_PAGE)
            for endpoint_seq, due_at in page:
                if not self._shards.owns(endpoint_seq):
                    continue
                if not self._is_on(endpoint_seq):
                    self._held.enqueue(endpoint_seq)
                elif due_at is None:
                    continue  # all deliveries are blocked
                elif due_at <= now:
                    self._due.note_backlog(endpoint_seq)
                else:
                    self._due.note_due(endpoint_seq, due_at)
            if len(page) < SCAN_PAGE:
                return
            after = page[-1].endpoint_seq
            # Due retries must not wait for a long scan.
            await self._lease()

    async def _lease(self) -> bool:
        """Lease due deliveries of the endpoints whose lanes have room. Return whether more deliveries may be due."""
        self._due.take(self._clock.now_ms())
        requests = self._requests()
        if not requests:
            return False
        now = self._clock.now_ms()
        body_bytes_max = self._lanes.batch_bytes_max
        leased = await self._database.lease_due(
            requests,
            now=now,
            lease_until=now + self._lease_ms,
            process_id=self._shards.process_id,
            body_bytes_max=body_bytes_max,
        )
        counts = Counter(delivery.endpoint_seq for delivery in leased)
        for delivery in leased:
            if self._lanes.parked and (delivery.event_seq, delivery.endpoint_seq) in self._lanes.parked:
                continue  # Keep the lease. A later scan finds the delivery when the lease ends.
            endpoint = self._cache.endpoints.get(delivery.endpoint_seq)
            if endpoint is None:
                self._unused_leases.append((delivery.event_seq, delivery.endpoint_seq, delivery.fence))
                continue
            lane = self._lanes.of(endpoint)
            if delivery.trigger is not Trigger.RESEND or not self._lanes.start_now(lane, delivery):
                self._lanes.push(lane, delivery, self._kind(delivery))
        # The store stops at the limit on body bytes, even if more deliveries are due.
        is_cut = sum(len(delivery.body) for delivery in leased) >= body_bytes_max
        backlog = self._due.backlog
        drained: list[int] = []
        for endpoint_seq, limit in requests:
            if counts[endpoint_seq] < limit and not is_cut:
                backlog.pop(endpoint_seq, None)
                drained.append(endpoint_seq)
            elif counts[endpoint_seq] and endpoint_seq in backlog:
                # Start the next round with the endpoints that got no lease.
                del backlog[endpoint_seq]
                backlog[endpoint_seq] = None
        self._lanes.pump()
        if drained:
            for endpoint_seq, due_at in await self._database.next_due(drained):
                self._due.note_due(endpoint_seq, max(due_at or 0, now + 1))
        return bool(leased)

    def _requests(self) -> list[LeaseRequest]:
        """Return lease requests that divide one batch among the endpoints in the backlog whose lanes have room."""
        now = self._clock.now_ms()
        requests: list[LeaseRequest] = []
        if self._lanes.stopped:
            return requests
        share = max(ENDPOINT_LEASE_MIN, LEASE_BATCH_MAX // max(1, len(self._due.backlog)))
        left = LEASE_BATCH_MAX
        for endpoint_seq in list(self._due.backlog):
            endpoint = self._cache.endpoints.get(endpoint_seq)
            if endpoint is None or not self._shards.owns(endpoint_seq) or not endpoint.takes_deliveries:
                del self._due.backlog[endpoint_seq]
                self._held.enqueue(endpoint_seq)
                continue
            limit = min(self._lanes.room(self._lanes.of(endpoint), now), share, left)
            if limit > 0:
                requests.append(LeaseRequest(endpoint_seq, limit))
                left -= limit
            if left == 0:
                break
        return requests

    def _is_on(self, endpoint_seq: int) -> bool:
        endpoint = self._cache.endpoints.get(endpoint_seq)
        return endpoint is not None and endpoint.takes_deliveries

    def _kind(self, delivery: LeasedDelivery) -> AttemptKind:
        if delivery.trigger is Trigger.REPLAY:
            return AttemptKind.REPLAY
        first = delivery.attempts_made == 0 or delivery.trigger is Trigger.RESEND
        return AttemptKind.FIRST if first or delivery.endpoint_seq in self._lanes.in_order else AttemptKind.RETRY
