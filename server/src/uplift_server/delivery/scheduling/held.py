"""Held deliveries: hold the deliveries of paused or disabled endpoints, and release them later.

When an endpoint is enabled, the server releases its held deliveries at a limited rate. The stored state of the endpoint
determines whether to hold, release, drop or cancel its deliveries, so a crash loses no work. State changes and the
dispatcher add endpoints to the queue. In addition, a periodic scan finds all endpoints with held deliveries.
"""

import asyncio
from typing import Final

from msgspec import structs

from uplift_server.core.lifecycle import Status
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.ports import Clock, Shards
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.observe.counters import EngineCounters
from uplift_server.store.contract import Database
from uplift_server.store.endpoint_backlog import cancel_waiting, drop_held, endpoints_with_held, hold_waiting
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import HeldRequest
from uplift_server.store.records import HeldAction

TICK_MS: Final = 100
"""The interval between two batches of an endpoint's deliveries, in ms."""
BLOCKED_WAIT_MS: Final = 500
"""The wait before the next release to an endpoint that receives deliveries more slowly than the release rate, in ms."""
BATCH_ROWS_MAX: Final = 300
ROUND_ROWS_MAX: Final = 1200
"""The maximum number of deliveries to process, for all endpoints together, between two pauses."""
SCAN_PAGE: Final = 1000
UNAVAILABLE_WAIT_MS: Final = 500


class _TokenBucket:
    """Limits the release rate of one endpoint.

    The number of available deliveries grows at this rate up to a small maximum. Therefore, the bucket makes up for a
    late release, but does not allow a burst after an idle period.
    """

    def __init__(self, rate_per_second: int, now_ms: int) -> None:
        self._per_ms = rate_per_second / 1000
        self._most = max(1.0, self._per_ms * TICK_MS * 2)
        self._credit = max(1.0, self._per_ms * TICK_MS)
        self._at = now_ms
        self._paused_until = 0

    def available(self, now_ms: int) -> int:
        """Return the number of deliveries that may be released now."""
        if now_ms < self._paused_until:
            return 0
        self._credit = min(self._most, self._credit + (now_ms - self._at) * self._per_ms)
        self._at = now_ms
        return int(self._credit)

    def take(self, count: int) -> None:
        """Subtract `count` released deliveries from the number of available deliveries."""
        self._credit -= count

    def pause_until(self, at_ms: int) -> None:
        """Allow no releases until `at_ms` (Unix ms)."""
        self._paused_until = at_ms


class HeldDeliveries:
    """Holds, releases, drops and cancels the deliveries of the queued endpoints in batches."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        shards: Shards,
        lanes: DeliveryLanes,
        due: DueEndpoints,
        clock: Clock,
        counters: EngineCounters,
        *,
        rate_per_second: int,
        scan_every_ms: int,
    ) -> None:
        self._database = database
        self._cache = cache
        self._shards = shards
        self._lanes = lanes
        self._due = due
        self._clock = clock
        self._counters = counters
        self._rate_per_second = rate_per_second
        self._scan_every_ms = scan_every_ms
        self._work: dict[int, None] = {}
        """The queued endpoints, in processing order."""
        self._buckets: dict[int, _TokenBucket] = {}
        self._scanned_at = 0
        self._wake = asyncio.Event()

    def enqueue(self, endpoint_seq: int) -> None:
        """Queue an endpoint to hold, release, drop or cancel its deliveries, if this process owns the endpoint."""
        if not self._shards.owns(endpoint_seq):
            return
        self._work[endpoint_seq] = None
        self._wake.set()

    async def finish(self, endpoint_seq: int, until_ms: int) -> bool:
        """Hold all pending deliveries of an endpoint before it is enabled. Raises Unavailable.

        Return False if some deliveries are still pending at `until_ms` (Unix ms).
        """
        while self._clock.now_ms() < until_ms:
            endpoint = self._cache.endpoints.get(endpoint_seq)
            if endpoint is None or endpoint.takes_deliveries or not await self._process_batch(endpoint_seq, endpoint):
                return True
        return False

    async def run(self, stopping: asyncio.Event) -> None:
        """Process the queued endpoints until the server stops."""
        while not stopping.is_set():
            self._wake.clear()
            try:
                await self._scan()
                await self._process_work()
            except Unavailable:
                await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)
                continue
            next_scan = self._scanned_at + self._scan_every_ms
            if self._work:
                await self._clock.wait(stopping, TICK_MS)
            else:
                await self._clock.wait(self._wake, max(1, next_scan - self._clock.now_ms()))

    async def _scan(self) -> None:
        """Queue the endpoints that have held deliveries to release or drop.

        For example, a delivery stays held if its event was being stored when the endpoint was enabled.
        """
        now = self._clock.now_ms()
        if now - self._scanned_at < self._scan_every_ms:
            return
        after = 0
        while True:
            at = after
            found = await self._database.read(lambda c: endpoints_with_held(c, after=at, limit=SCAN_PAGE))  # noqa: B023 - run before the next turn
            for endpoint_seq in found:
                endpoint = self._cache.endpoints.get(endpoint_seq)
                if self._shards.owns(endpoint_seq) and (endpoint is None or _needs_action(endpoint)):
                    self._work[endpoint_seq] = None
            if len(found) < SCAN_PAGE:
                break
            after = found[-1]
        self._scanned_at = now

    async def _process_work(self) -> None:
        """Process one batch of each queued endpoint. Stop after ROUND_ROWS_MAX deliveries in total."""
        rows = 0
        requests: list[HeldRequest] = []
        for endpoint_seq in list(self._work):
            if rows >= ROUND_ROWS_MAX:
                break
            # Remove the endpoint before any wait, so that a concurrent `enqueue` is not lost.
            del self._work[endpoint_seq]
            if not self._shards.owns(endpoint_seq):
                self._stop_releasing(endpoint_seq)
                continue
            endpoint = self._cache.endpoints.get(endpoint_seq)
            try:
                changed = await self._process_batch(endpoint_seq, endpoint)
            except Unavailable:
                self._work.update(dict.fromkeys([endpoint_seq, *(request.endpoint_seq for request in requests)]))
                raise
            rows += changed
            if changed:
                self._work[endpoint_seq] = None
            elif endpoint is None or not endpoint.takes_deliveries:
                continue
            elif endpoint.record.held_action is HeldAction.DROP:
                # The database has a newer action, which cache sync will soon load.
                self._work[endpoint_seq] = None
            else:
                request = self._request(endpoint)
                if request.limit:
                    requests.append(request)
                else:
                    self._work[endpoint_seq] = None
                rows += request.limit
        if requests:
            await self._release(requests)

    async def _process_batch(self, endpoint_seq: int, endpoint: LiveEndpoint | None) -> int:
        """Cancel, hold or drop a batch of an endpoint's deliveries, depending on the state of the endpoint.

        Return the number of changed deliveries, or 0 if no deliveries are left to change.
        """
        now = self._clock.now_ms()
        if endpoint is None or not endpoint.takes_deliveries:
            self._stop_releasing(endpoint_seq)
        if endpoint is None:
            return self._cancelled(
                await self._database.write(lambda c: cancel_waiting(c, endpoint_seq, now=now, limit=BATCH_ROWS_MAX))
            )
        # Drop deliveries before holding more: the action applies to the deliveries that were held when it was set.
        if endpoint.record.held_action is HeldAction.DROP and (dropped := await self._drop(endpoint, now)):
            return dropped
        if not endpoint.takes_deliveries:
            return await self._database.write(lambda c: hold_waiting(c, endpoint_seq, now=now, limit=BATCH_ROWS_MAX))
        return 0

    async def _drop(self, endpoint: LiveEndpoint, now: int) -> int:
        """Cancel a batch of the held deliveries that must be dropped.

        Return the number of cancelled deliveries, or 0 if no deliveries are left to cancel. If no deliveries were
        cancelled, but more are left, return 1, so that the caller continues.
        """
        dropped = await self._database.write(lambda c: drop_held(c, endpoint.seq, now=now, limit=BATCH_ROWS_MAX))
        record = endpoint.record
        if (record.held_action, record.held_through) == (HeldAction.DROP, dropped.completed_through):
            endpoint.record = structs.replace(record, held_action=None, held_through=None)
        return max(self._cancelled(dropped.rows), int(dropped.has_more))

    def _cancelled(self, count: int) -> int:
        self._counters.ended[Status.CANCELLED] += count
        return count

    def _request(self, endpoint: LiveEndpoint) -> HeldRequest:
        """Return a request to release an enabled endpoint's held deliveries, except deliveries that must stay held."""
        now = self._clock.now_ms()
        bucket = self._buckets.get(endpoint.seq)
        if bucket is None:
            bucket = self._buckets[endpoint.seq] = _TokenBucket(self._rate_per_second, now)
            self._lanes.in_order.add(endpoint.seq)
        kept = endpoint.record.held_action is HeldAction.KEEP
        return HeldRequest(endpoint.seq, (endpoint.record.held_through or 0) if kept else 0, bucket.available(now))

    async def _release(self, requests: list[HeldRequest]) -> None:
        now = self._clock.now_ms()
        try:
            results = await self._database.release_held(requests, now=now)
        except Unavailable:
            self._work.update(dict.fromkeys(request.endpoint_seq for request in requests))
            raise
        for request, result in zip(requests, results, strict=True):
            removed = result.released + result.expired
            self._counters.ended[Status.FAILED] += result.expired
            if not removed and not result.is_blocked:
                self._stop_releasing(request.endpoint_seq)
                continue
            self._work[request.endpoint_seq] = None
            if removed:
                self._due.note_due(request.endpoint_seq)
            bucket = self._buckets.get(request.endpoint_seq)
            if bucket is None:
                continue  # The endpoint was paused or disabled during the release, so hold its deliveries again.
            if result.is_blocked:
                bucket.pause_until(now + BLOCKED_WAIT_MS)
            else:
                bucket.take(removed)

    def _stop_releasing(self, endpoint_seq: int) -> None:
        self._buckets.pop(endpoint_seq, None)
        self._lanes.in_order.discard(endpoint_seq)


def _needs_action(endpoint: LiveEndpoint) -> bool:
    """Return whether the server must release or drop the held deliveries of an endpoint, if it has any."""
    return endpoint.takes_deliveries or endpoint.record.held_action is HeldAction.DROP
