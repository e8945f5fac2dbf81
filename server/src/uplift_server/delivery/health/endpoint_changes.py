"""Applies endpoint state changes (enabled, paused, disabled, deleted) to the endpoints' deliveries."""

import asyncio
from typing import Protocol

from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.ports import SEEN_WITHIN_MS, Clock, Shards
from uplift_server.delivery.replays.jobs import ReplayJobs
from uplift_server.delivery.scheduling.dispatcher import Dispatcher
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.delivery.scheduling.held import HeldDeliveries
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.delivery.sending.settler import Settler
from uplift_server.store.records import Endpoint, EndpointState


class EndpointChanges(Protocol):
    """The interface that applies stored changes of an endpoint to the cache and to the endpoint's deliveries."""

    def apply(self, record: Endpoint) -> None:
        """Put the stored record of an endpoint in the cache. If its state is new, apply it to the deliveries.

        Call this method after each change, even if the change does not affect the state: another process may have
        changed the state shortly before. If only the cache received the record, cache sync would later see no
        difference. Raises WrongSecretKey.
        """

    def note_due(self, endpoint_seq: int) -> None:
        """Notify the owner of an endpoint that deliveries are due."""

    def deleted(self, endpoint_seq: int) -> None:
        """Cancel the deliveries of a deleted endpoint. The caller removes it from the cache first."""

    async def finish_holding(self, endpoint_seq: int, within_ms: int) -> bool:
        """Hold all pending deliveries of a disabled endpoint before it is enabled again.

        Return False if some deliveries are still pending after `within_ms`. Raises Unavailable.
        """


class LiveEndpointChanges:
    """Updates an endpoint's deliveries in memory and in the database after the endpoint's state has changed."""

    def __init__(
        self,
        cache: EndpointCache,
        shards: Shards,
        lanes: DeliveryLanes,
        due: DueEndpoints,
        dispatcher: Dispatcher,
        held: HeldDeliveries,
        replays: ReplayJobs,
        settler: Settler,
        clock: Clock,
    ) -> None:
        self._cache = cache
        self._shards = shards
        self._lanes = lanes
        self._due = due
        self._dispatcher = dispatcher
        self._held = held
        self._replays = replays
        self._settler = settler
        self._clock = clock

    def apply(self, record: Endpoint) -> None:
        """Put the stored record of an endpoint in the cache. If its state is new, apply it to the deliveries.

        If the cached record has the same state and a later `state_since`, `record` was read earlier. In this case, do
        not use the health in `record`, because it is out of date.
        """
        live = self._cache.endpoints.get(record.seq)
        before = None if live is None else live.record
        self._cache.put_endpoint(record)
        if before is not None and (
            before.state is not record.state or (record.state_since or 0) > (before.state_since or 0)
        ):
            if record.state is EndpointState.ENABLED:
                self._enabled(self._cache.endpoints[record.seq])
            else:
                self._disabled(record.seq)
        elif before is None or (before.held_action, before.held_through) != (record.held_action, record.held_through):
            self._held_action_changed(record.seq)

    def note_due(self, endpoint_seq: int) -> None:
        """Notify the owner of an endpoint that deliveries are due."""
        if self._shards.owns(endpoint_seq):
            self._due.note_due(endpoint_seq)
        else:
            self._shards.notify_owners([endpoint_seq])

    def deleted(self, endpoint_seq: int) -> None:
        """Cancel the deliveries of a deleted endpoint."""
        for delivery in self._lanes.drop(endpoint_seq):
            self._dispatcher.release_lease(delivery)
        self._held.enqueue(endpoint_seq)
        self._replays.wake_endpoint(endpoint_seq)

    def _disabled(self, endpoint_seq: int) -> None:
        """Hold the pending deliveries of an endpoint that was paused or disabled."""
        for delivery in self._lanes.empty(endpoint_seq):
            self._dispatcher.release_lease(delivery)
        self._held.enqueue(endpoint_seq)

    def _enabled(self, endpoint: LiveEndpoint) -> None:
        """Release, keep or drop the held deliveries of an enabled endpoint (`held_action`), and reset its health."""
        endpoint.health = endpoint.record.health
        if self._shards.owns(endpoint.seq):
            self._settler.keep_health(endpoint)
        self._lanes.reset(endpoint)
        self._replays.wake_endpoint(endpoint.seq)
        self._held_action_changed(endpoint.seq)

    def _held_action_changed(self, endpoint_seq: int) -> None:
        """Release, keep or drop the held deliveries of an endpoint, according to `held_action` in its record."""
        self._held.enqueue(endpoint_seq)
        self.note_due(endpoint_seq)

    async def finish_holding(self, endpoint_seq: int, within_ms: int) -> bool:
        """Hold all pending deliveries of a disabled endpoint before it is enabled again.

        Return False if some deliveries are still pending after `within_ms`. Raises Unavailable.
        """
        until = self._clock.now_ms() + within_ms
        endpoint = self._cache.endpoints.get(endpoint_seq)
        if endpoint is not None and not self._shards.owns(endpoint_seq):
            # Wait until the process that owns the endpoint has applied the change and emptied the endpoint's queue.
            seen_at = (endpoint.record.state_since or 0) + SEEN_WITHIN_MS
            if seen_at > until:
                return False
            await self._clock.wait(asyncio.Event(), max(0, seen_at - self._clock.now_ms()))
        await self._dispatcher.release_unused()
        return await self._held.finish(endpoint_seq, until)
