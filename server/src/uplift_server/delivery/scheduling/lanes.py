"""The lanes of the engine: a queue of leased deliveries for each endpoint, with limits in bytes.

Attempts start from these queues.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

from uplift_server.core.deliveries.replays import replay_capacity
from uplift_server.core.limits import (
    ACCOUNT_LANES_BODY_BYTES_MAX,
    ACCOUNT_LITTLE_BODY_BYTES_MAX,
    LANE_BODY_BYTES_MAX,
    LANE_LITTLE_BODY_BYTES_MAX,
    LANES_BODY_BYTES_MAX,
    LANES_SHARED_BODY_BYTES_MAX,
    LEASE_BATCH_BODY_BYTES_MAX,
    PARKED_MAX,
)
from uplift_server.core.scheduling.circuit_breaker import CLOSED, BreakerRule, restore_breaker
from uplift_server.core.scheduling.lane import AttemptKind, Lane
from uplift_server.core.scheduling.lanes import Lanes, NoSlot
from uplift_server.core.scheduling.rate_limit import start_interval_ms
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.ports import Clock, Handle, Shards
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.delivery.scheduling.spreader import Spreader
from uplift_server.store.hot_records import LeasedDelivery

STARTS_MAX: Final = 64
"""Maximum number of attempts to start in one iteration of the event loop.

A higher number would delay API requests, but would not speed up deliveries.
"""
ACCOUNT_STARTS_MAX: Final = 16
"""Maximum number of attempts to start for one account in one iteration of the event loop.

Several iterations are necessary to accept and send an event. Without this limit, an event with many endpoints would
make these iterations long for all accounts.
"""


class Load(NamedTuple):
    """The load of this process at one time."""

    in_flight: int
    in_flight_max: int
    waiting: int
    """The number of leased deliveries whose attempts have not started."""
    probes: Mapping[int, int]
    """The next probe time (Unix ms) for each endpoint whose circuit breaker is open."""
    stopped: bool
    """Whether the process cannot start attempts at present."""


class Starter(Protocol):
    """The interface that starts attempts."""

    def start(self, lane: Lane[LeasedDelivery], delivery: LeasedDelivery, /) -> None:
        """Attempt a delivery. The attempt already counts toward the concurrency limits."""


class _ForeignLeases(NamedTuple):
    """An endpoint that this process took over.

    `leased` is the number of leases that other processes still hold on its deliveries.
    """

    endpoint: LiveEndpoint
    leased: int


class DeliveryLanes:
    """Queues leased deliveries in memory, and starts their attempts within all limits."""

    def __init__(
        self,
        clock: Clock,
        due: DueEndpoints,
        shards: Shards,
        *,
        in_flight_max: int,
        endpoint_in_flight_max: int,
        breaker: BreakerRule,
    ) -> None:
        self.bytes_held = 0
        """The total body size of all waiting and reserved deliveries, in bytes."""
        self._due = due
        self._shards = shards
        self.in_order: set[int] = set()
        """The endpoints with held deliveries to release.

        Retries and first attempts of these endpoints share a queue, so that the order of deliveries stays the same.
        """
        self.parked: dict[tuple[int, int], None] = {}
        """The deliveries (event and endpoint) whose attempts `park` prevents until a restart."""
        self.erased: dict[int, None] = {}
        """The events that were erased while one of their deliveries was leased."""
        self._lanes: Lanes[LeasedDelivery] = Lanes(in_flight_max)
        self._spreaders: dict[int, Spreader] = {}
        """The spreaders of replay deliveries that are not queued yet, by endpoint."""
        self._clock = clock
        self._began_at = clock.now_ms()
        self._endpoint_in_flight_max = endpoint_in_flight_max
        self._breaker = breaker
        self._timer: Handle | None = None
        self._timer_at: float | None = None
        self._starts = 0
        """The number of attempts that have started in this iteration of the event loop."""
        self._account_starts: Counter[int] = Counter()
        """The number of attempts that have started in this iteration of the event loop, by account."""
        self._turn_full = False
        """Whether the limit on starts in this iteration of the event loop has been reached."""
        self._starter: Starter | None = None
        self.blocked = False
        """Whether attempts are blocked, because the store cannot store their outcomes."""
        self.draining = False
        """Whether the process starts no more attempts, because it is stopping or does not deliver."""
        self._foreign_leases: dict[int, _ForeignLeases] = {}
        """For each endpoint that was taken over: the leases that other processes still hold.

        These leases count toward the endpoint's concurrency limit.
        """

    def open(self, starter: Starter) -> None:
        """Use `starter` to start attempts from now on."""
        self._starter = starter

    def drain(self) -> None:
        """Start no further attempts, because the process is stopping or does not deliver."""
        self.draining = True

    def block(self) -> None:
        """Start no attempts until `unblock` is called."""
        self.blocked = True

    def unblock(self) -> None:
        """Start attempts again after `block`."""
        self.blocked = False
        self.pump()

    @property
    def stopped(self) -> bool:
        """Whether the process cannot start attempts at present."""
        return self.blocked or self.draining or not self._shards.may_send()

    @property
    def in_flight(self) -> int:
        """The number of attempts in flight."""
        return self._lanes.in_flight

    def of(self, endpoint: LiveEndpoint) -> Lane[LeasedDelivery]:
        """Return the lane of an endpoint. If the endpoint has no lane, create one with its limits."""
        lane = self._lanes.find(endpoint.seq)
        if lane is None:
            lane = self._lanes.lane(endpoint.seq, endpoint.record.account_seq, endpoint.parts.url.host)
            health = endpoint.health
            lane.breaker = restore_breaker(health, self._breaker)
            lane.proven = health.status == "healthy"
            self._apply_limits(lane, endpoint)
            if lane.start_interval_ms:
                # The previous process may have started an attempt just before it ended.
                lane.next_start_ms = self._began_at + lane.start_interval_ms
        return lane

    def adjust(self, endpoint: LiveEndpoint) -> None:
        """Update the limits and the host in the lane of a changed endpoint."""
        lane = self._lanes.find(endpoint.seq)
        if lane is not None:
            self._lanes.move_to_host(lane, endpoint.parts.url.host)
            self._apply_limits(lane, endpoint)
            self.pump()

    def find(self, endpoint_seq: int) -> Lane[LeasedDelivery] | None:
        """Return the lane of an endpoint, or None if it has none."""
        return self._lanes.find(endpoint_seq)

    def park(self, event_seq: int, endpoint_seq: int) -> None:
        """Prevent further attempts of a delivery until a restart, because its outcomes cannot be stored.

        Without this call, the server would repeat the attempts forever.
        """
        if len(self.parked) >= PARKED_MAX:
            del self.parked[next(iter(self.parked))]
        self.parked[(event_seq, endpoint_seq)] = None

    def forget(self, event_seqs: Sequence[int]) -> None:
        """Drop the waiting deliveries of erased events.

        The outcomes of attempts in flight for these events are not stored. A success still ends the endpoint's failure.
        """
        for event_seq in event_seqs:
            if len(self.erased) >= PARKED_MAX:
                del self.erased[next(iter(self.erased))]
            self.erased[event_seq] = None
        for lane in list(self._lanes.all()):
            for event_seq in self.waiting_events(lane.endpoint) & self.erased.keys():
                self.withdraw(lane.endpoint, event_seq)

    def reserve(self, lane: Lane[LeasedDelivery], body_bytes: int) -> None:
        """Reserve room in a lane for a delivery that is being stored."""
        lane.reserved += 1
        # `_count_bytes` is inlined, because this code runs for every event.
        self.bytes_held += body_bytes
        lane.waiting_bytes += body_bytes
        lane.account_share.waiting_bytes += body_bytes

    def end_reservation(self, lane: Lane[LeasedDelivery], body_bytes: int) -> None:
        """Release the room that was reserved for a delivery, because the delivery was not stored."""
        lane.reserved -= 1
        self._count_bytes(lane, -body_bytes)

    def push_reserved(self, lane: Lane[LeasedDelivery], delivery: LeasedDelivery, kind: AttemptKind) -> None:
        """Queue a delivery for which room is reserved. The next `pump` can start its attempt."""
        lane.reserved -= 1
        self._lanes.push(lane, delivery, kind)

    def push(self, lane: Lane[LeasedDelivery], delivery: LeasedDelivery, kind: AttemptKind) -> None:
        """Queue a delivery for which no room is reserved. The next `pump` can start its attempt."""
        self._count_bytes(lane, len(delivery.body))
        self._lanes.push(lane, delivery, kind)

    def spread(self, lane: Lane[LeasedDelivery], deliveries: Sequence[LeasedDelivery], within_ms: int) -> None:
        """Reserve room for the deliveries of a replay, and queue them at even intervals over `within_ms`."""
        spreader = self._spreaders.get(lane.endpoint)
        if spreader is None:
            spreader = self._spreaders[lane.endpoint] = Spreader(self._clock, partial(self._push_replays, lane))
        self._count_bytes(lane, sum(len(delivery.body) for delivery in deliveries))
        lane.reserved += len(deliveries)
        spreader.add(deliveries, within_ms)

    def room(self, lane: Lane[LeasedDelivery], now_ms: int) -> int:
        """Return the number of additional deliveries for which a lane has room."""
        if self.draining or (self.bytes_held >= LANE_LITTLE_BODY_BYTES_MAX and self._is_full(lane)):
            return 0
        return lane.free_capacity(now_ms)

    def replay_room(self, lane: Lane[LeasedDelivery], now_ms: int) -> int:
        """Return the number of additional replay deliveries for which a lane has room."""
        return 0 if self.stopped or self._is_full(lane) else replay_capacity(lane, now_ms)

    @property
    def batch_bytes_max(self) -> int:
        """The maximum total size of the bodies in one lease batch, in bytes.

        The maximum is lower while `bytes_held` is at least LANES_SHARED_BODY_BYTES_MAX.
        """
        is_scarce = self.bytes_held >= LANES_SHARED_BODY_BYTES_MAX
        return ACCOUNT_LITTLE_BODY_BYTES_MAX if is_scarce else LEASE_BATCH_BODY_BYTES_MAX

    def _is_full(self, lane: Lane[LeasedDelivery]) -> bool:
        """Return whether the waiting bodies of the endpoint, its account or all accounts have reached a limit."""
        account_bytes = lane.account_share.waiting_bytes
        holds_little = account_bytes < ACCOUNT_LITTLE_BODY_BYTES_MAX
        return (
            lane.waiting_bytes >= LANE_BODY_BYTES_MAX
            or (account_bytes >= ACCOUNT_LANES_BODY_BYTES_MAX and lane.waiting_bytes >= LANE_LITTLE_BODY_BYTES_MAX)
            or self.bytes_held >= (LANES_BODY_BYTES_MAX if holds_little else LANES_SHARED_BODY_BYTES_MAX)
        )

    def _count_bytes(self, lane: Lane[LeasedDelivery], size: int) -> None:
        self.bytes_held += size
        lane.waiting_bytes += size
        lane.account_share.waiting_bytes += size

    def attempt_ended(
        self, lane: Lane[LeasedDelivery], now_ms: int, duration_us: int = 0, *, succeeded: bool | None = None
    ) -> None:
        """Free the slot of an attempt that has ended, and adjust the limits of its lane to the result."""
        self._lanes.attempt_ended(lane, now_ms, duration_us, succeeded=succeeded)
        if lane.endpoint in self._due.backlog and lane.waiting_count * 2 <= lane.in_flight_max:
            self._due.wake()

    def drop(self, endpoint_seq: int) -> list[LeasedDelivery]:
        """Remove the lane of a deleted endpoint. Return the deliveries that were waiting in the lane."""
        self._due.backlog.pop(endpoint_seq, None)
        lane = self._lanes.find(endpoint_seq)
        if lane is None:
            return []
        spreading = self._take_spread(endpoint_seq)
        return self._uncount(lane, [*self._lanes.drop(endpoint_seq), *spreading])

    def empty(self, endpoint_seq: int) -> list[LeasedDelivery]:
        """Remove and return all waiting deliveries of an endpoint."""
        self._due.backlog.pop(endpoint_seq, None)
        lane = self._lanes.find(endpoint_seq)
        if lane is None:
            return []
        return self._uncount(lane, [*self._lanes.take_waiting(lane), *self._take_spread(endpoint_seq)])

    def withdraw(self, endpoint_seq: int, event_seq: int) -> LeasedDelivery | None:
        """Remove a waiting delivery and return it. Return None if the delivery is not waiting."""
        lane = self._lanes.find(endpoint_seq)
        if lane is None:
            return None
        found = self._lanes.remove(lane, lambda delivery: delivery.event_seq == event_seq)
        spreader = self._spreaders.get(endpoint_seq)
        if found is None and spreader is not None and (found := spreader.withdraw(event_seq)) is not None:
            lane.reserved -= 1
        return None if found is None else self._uncount(lane, [found])[0]

    def take_over(self, endpoint: LiveEndpoint, foreign_leases: int) -> None:
        """Take over an endpoint. Other processes still hold `foreign_leases` leases on its deliveries."""
        lane = self._lanes.lane(endpoint.seq, endpoint.record.account_seq, endpoint.parts.url.host)
        health = endpoint.health
        lane.breaker = restore_breaker(health, self._breaker)
        if not lane.in_flight:
            lane.proven = health.status == "healthy"
        if foreign_leases:
            self._foreign_leases[endpoint.seq] = _ForeignLeases(endpoint, foreign_leases)
        self._apply_limits(lane, endpoint)
        # The other process may have started an attempt just before the takeover.
        lane.next_start_ms = max(lane.next_start_ms, self._clock.now_ms() + lane.start_interval_ms)

    def note_foreign_leases(self, leased: Mapping[int, int]) -> bool:
        """Update the number of leases that other processes hold on each endpoint.

        Return whether any leases are left.
        """
        for seq, (endpoint, before) in list(self._foreign_leases.items()):
            now = leased.get(seq, 0) if self._shards.owns(seq) else 0
            if now:
                self._foreign_leases[seq] = _ForeignLeases(endpoint, now)
            else:
                del self._foreign_leases[seq]
            lane = self._lanes.find(seq)
            if lane is not None and now < before:
                self._apply_limits(lane, endpoint)
                if seq in self._due.backlog:
                    self._due.wake()
        self.pump()
        return bool(self._foreign_leases)

    def reset(self, endpoint: LiveEndpoint) -> None:
        """Close an endpoint's circuit breaker."""
        lane = self._lanes.find(endpoint.seq)
        if lane is not None:
            lane.breaker = CLOSED
            self._apply_limits(lane, endpoint)

    def take_replays(self, endpoint_seq: int) -> list[LeasedDelivery]:
        """Remove and return the waiting replay deliveries of an endpoint."""
        lane = self._lanes.find(endpoint_seq)
        if lane is None:
            return []
        waiting = self._lanes.take_waiting(lane, (AttemptKind.REPLAY,))
        return self._uncount(lane, [*waiting, *self._take_spread(endpoint_seq)])

    def empty_all(self) -> list[LeasedDelivery]:
        """Remove and return all waiting deliveries."""
        return [delivery for lane in list(self._lanes.all()) for delivery in self.empty(lane.endpoint)]

    def start_now(self, lane: Lane[LeasedDelivery], delivery: LeasedDelivery) -> bool:
        """Start an attempt that a person requested, or queue the delivery in its lane.

        Return False if the process can neither start the attempt nor queue the delivery.
        """
        now = self._clock.now_ms()
        if self.stopped:
            return False
        if self._lanes.start_now(lane, now) is None:
            self.start(lane, delivery)
        elif self.room(lane, now) > 0:
            self.push(lane, delivery, AttemptKind.FIRST)
        else:
            return False
        return True

    def start(self, lane: Lane[LeasedDelivery], delivery: LeasedDelivery) -> None:
        """Attempt a delivery. The attempt already counts toward the concurrency limits."""
        assert self._starter is not None, "the engine has started"
        self._starter.start(lane, delivery)

    def take_slot(self, lane: Lane[LeasedDelivery]) -> NoSlot | None:
        """Take a slot for a test, or return the limit that prevents the test.

        The endpoint's concurrency limit does not apply.
        """
        return self._lanes.start_now(lane, self._clock.now_ms(), beyond_limit=True)

    def waiting_events(self, endpoint_seq: int) -> set[int]:
        """Return the events whose deliveries to an endpoint are waiting in memory."""
        lane = self._lanes.find(endpoint_seq)
        waiting = set() if lane is None else {delivery.event_seq for queue in lane.waiting for delivery in queue}
        spreader = self._spreaders.get(endpoint_seq)
        return waiting if spreader is None else waiting | spreader.event_seqs

    def held_up_by(self, endpoint_seq: int) -> HeldUpBy:
        """Return the cause of the delay of an endpoint's deliveries: the endpoint's limits, or the server.

        The result is correct only if the endpoint's circuit breaker is closed.
        """
        lane = self._lanes.find(endpoint_seq)
        if lane is None:
            return HeldUpBy.SERVER
        free = lane.has_slot and lane.next_start_at() <= self._clock.now_ms()
        return HeldUpBy.SERVER if free else HeldUpBy.ENDPOINT

    def in_flight_max_of(self, endpoint: LiveEndpoint) -> int:
        """Return the concurrency limit of an endpoint, or the default limit if it has none."""
        return endpoint.record.settings.max_in_flight or self._endpoint_in_flight_max

    def load(self) -> Load:
        """Return the load of all lanes."""
        waiting, probes = sum(map(len, self._spreaders.values())), {}
        for lane in self._lanes.all():
            waiting += lane.waiting_count
            if lane.breaker.probe_at is not None:
                probes[lane.endpoint] = lane.breaker.probe_at
        return Load(self._lanes.in_flight, self._lanes.in_flight_max, waiting, probes, self.stopped)

    def pump(self) -> None:
        """Start all attempts that can start now, up to the limits for one iteration of the event loop."""
        now, starter = self._clock.now_ms(), self._starter
        if starter is None or self.blocked or self.draining or not self._shards.may_send():
            return
        account_starts = self._account_starts
        while not self._turn_full and (item := self._lanes.pop(now)) is not None:
            lane, delivery = item
            if not self._starts:
                asyncio.get_running_loop().call_soon(self._on_next_turn)
            self._starts += 1
            account_starts[lane.account] += 1
            # Accounts alternate, so attempts of other accounts start first in the next iteration of the event loop.
            self._turn_full = self._starts >= STARTS_MAX or account_starts[lane.account] >= ACCOUNT_STARTS_MAX
            self._count_bytes(lane, -len(delivery.body))
            starter.start(lane, delivery)
        self._set_timer()

    def _on_next_turn(self) -> None:
        """Start the attempts that exceeded the limits for the previous iteration of the event loop."""
        was_full, self._turn_full, self._starts = self._turn_full, False, 0
        self._account_starts.clear()
        if was_full:
            self.pump()

    def _push_replays(self, lane: Lane[LeasedDelivery], deliveries: Sequence[LeasedDelivery]) -> None:
        lane.reserved -= len(deliveries)
        for delivery in deliveries:
            self._lanes.push(lane, delivery, AttemptKind.REPLAY)
        self.pump()

    def _take_spread(self, endpoint_seq: int) -> list[LeasedDelivery]:
        """Remove and return the replay deliveries of an endpoint that are not queued yet."""
        spreader = self._spreaders.pop(endpoint_seq, None)
        if spreader is None:
            return []
        taken = spreader.take()
        lane = self._lanes.find(endpoint_seq)
        assert lane is not None, "a spreader ends before its lane"
        lane.reserved -= len(taken)
        return taken

    def _apply_limits(self, lane: Lane[LeasedDelivery], endpoint: LiveEndpoint) -> None:
        rate = endpoint.record.settings.rate_limit_per_second
        in_flight_max = self.in_flight_max_of(endpoint)
        if self._foreign_leases:
            _, foreign_leases = self._foreign_leases.get(endpoint.seq, (endpoint, 0))
            in_flight_max = max(0, in_flight_max - foreign_leases)
        self._lanes.set_limits(
            lane,
            in_flight_max=in_flight_max,
            start_interval_ms=start_interval_ms(rate) if rate else 0.0,
        )

    def _uncount(self, lane: Lane[LeasedDelivery], deliveries: list[LeasedDelivery]) -> list[LeasedDelivery]:
        self._count_bytes(lane, -sum(len(delivery.body) for delivery in deliveries))
        return deliveries

    def _set_timer(self) -> None:
        """Set a timer that calls `pump` when a waiting lane can start its next attempt."""
        wake_at = self._lanes.next_start_at()
        if wake_at is None or (self._timer_at is not None and self._timer_at <= wake_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = wake_at
        self._timer = self._clock.call_at(wake_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = None
        self.pump()
