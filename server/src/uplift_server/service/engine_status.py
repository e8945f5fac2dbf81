"""The state of the engine, as the API, the dashboard and the metrics show it."""

from collections.abc import Collection, Sequence

from uplift_server.core.scheduling.circuit_breaker import BreakerRule, restore_breaker
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.health.monitor import HealthMonitor
from uplift_server.delivery.health.outage_guard import Outage
from uplift_server.delivery.ports import Peers, Shards
from uplift_server.delivery.scheduling.lanes import DeliveryLanes, Load
from uplift_server.store.processes import Process


class EngineStatus:
    """The state of this process, and of the other processes according to their last heartbeats."""

    def __init__(
        self,
        cache: EndpointCache,
        shards: Shards,
        peers: Peers,
        lanes: DeliveryLanes,
        monitor: HealthMonitor,
        *,
        breaker: BreakerRule,
        delivers: bool,
    ) -> None:
        """`delivers` is True if this process's role includes deliveries."""
        self._cache = cache
        self._shards = shards
        self._peers = peers
        self._lanes = lanes
        self._monitor = monitor
        self._breaker = breaker
        self._delivers = delivers

    def owns(self, endpoint_seq: int) -> bool:
        """Return whether this process delivers to an endpoint."""
        return self._shards.owns(endpoint_seq)

    def waiting_events(self, endpoint_seq: int) -> Collection[int] | None:
        """Return the sequence numbers of the events whose leased deliveries to this endpoint are waiting in memory.

        The result does not include deliveries in flight. Return None if another process owns the endpoint.
        """
        return self._lanes.waiting_events(endpoint_seq) if self._shards.owns(endpoint_seq) else None

    def held_up_by(self, endpoint_seq: int) -> HeldUpBy:
        """Return why the next due delivery of an endpoint is waiting."""
        if self.next_probe_at(endpoint_seq) is not None:
            return HeldUpBy.PROBE
        return self._lanes.held_up_by(endpoint_seq)

    def in_flight_max_of(self, endpoint: LiveEndpoint) -> int:
        """Return the maximum number of concurrent requests to an endpoint."""
        return self._lanes.in_flight_max_of(endpoint)

    def next_probe_at(self, endpoint_seq: int) -> int | None:
        """Return the time of an endpoint's next probe (Unix ms).

        Return None unless the endpoint is enabled and its circuit breaker is open.
        """
        endpoint = self._cache.endpoints.get(endpoint_seq)
        if endpoint is None or not endpoint.takes_deliveries:
            return None
        return self._probe_at(endpoint)

    def warn_at(self, endpoint_seq: int) -> int | None:
        """Return the time (Unix ms) at which the server will warn the contacts of a failing endpoint.

        Return None during a mass failure, or if the endpoint is not enabled, is not failing or was already warned.
        """
        return self._monitor.warn_at(endpoint_seq)

    def disable_at(self, endpoint_seq: int) -> int | None:
        """Return the time (Unix ms) at which the server will disable a failing endpoint.

        Return None during a mass failure, or if the endpoint is not enabled or is not failing.
        """
        return self._monitor.disable_at(endpoint_seq)

    @property
    def outage(self) -> Outage | None:
        """The current mass failure, or None.

        During a mass failure, the server does not warn about endpoints or disable them.
        """
        return self._monitor.outage

    def own_load(self) -> Load:
        """Return the load of this process."""
        own = self._lanes.load()
        return own if self._delivers else own._replace(in_flight_max=0, stopped=False)

    def sends(self) -> bool:
        """Return whether any process can send deliveries now."""
        return (self._delivers and not self._lanes.stopped) or any(each.delivers for each in self._peers.others())

    def load(self) -> Load:
        """Return the combined load of all processes."""
        own, others = self.own_load(), self._peers.others()
        probes = dict(own.probes)
        for seq, endpoint in self._cache.endpoints.items():
            if (
                endpoint.health.failing_since is not None
                and endpoint.takes_deliveries
                and (at := self._probe_at(endpoint)) is not None
            ):
                probes[seq] = at
        return Load(
            own.in_flight + sum(each.in_flight for each in others),
            own.in_flight_max + sum(each.in_flight_max for each in others),
            own.waiting + sum(each.waiting for each in others),
            probes,
            not self.sends(),
        )

    def processes(self) -> Sequence[Process] | None:
        """Return the live processes, or an empty sequence if this process's heartbeat has expired.

        Return None if there can be only one process.
        """
        living = self._peers.living()
        return living if living is None or self._peers.heartbeat_age_ms() is None else ()

    def heartbeat_age_ms(self) -> int | None:
        """Return the age of this process's last heartbeat if the heartbeat has expired; otherwise, return None."""
        return self._peers.heartbeat_age_ms()

    def _probe_at(self, endpoint: LiveEndpoint) -> int | None:
        lane = self._lanes.find(endpoint.seq) if self._shards.owns(endpoint.seq) else None
        # Only the endpoint's owner has a lane. After a restart, the owner creates the lane for the first delivery.
        # Without a lane, use the stored health.
        breaker = restore_breaker(endpoint.health, self._breaker) if lane is None else lane.breaker
        return breaker.probe_at
