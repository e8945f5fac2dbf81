"""Tests of endpoints in flight: one at a time each, begun at once or not at all.

A test takes a slot before it is stored, so that no stored test has to wait. It waits for no turn and no breaker. The
endpoint's own concurrency limit does not apply. The limits of the process and the account, and the rate limit, do.
"""

import asyncio
from enum import Enum
from typing import Final, NamedTuple

from uplift_server.core.scheduling.lane import Lane
from uplift_server.core.scheduling.lanes import NoSlot
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.scheduling.dispatcher import Dispatcher
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.delivery.sending.settler import Settler
from uplift_server.store.hot_records import LeasedDelivery

POLL_MS: Final = 100
"""How often the database is asked for the outcome of another process's test."""


class Busy(Enum):
    """Why a test cannot be begun now."""

    STOPPED = "stopped"
    """Nothing is sent: the process is about to end, or cannot write outcomes."""
    IN_FLIGHT = "in_flight"
    """Another test of the endpoint is."""
    FULL = "full"
    """The process has no slot for such an attempt."""
    SHARE = "share"
    """The account has reached its limit of attempts in flight, in total or to the endpoint's host."""
    RATE_LIMITED = "paced"
    """The endpoint's rate limit leaves no room."""
    DELETED = "deleted"
    """The endpoint was, since it was asked for."""


_BUSY: Final = {NoSlot.SERVER: Busy.FULL, NoSlot.ACCOUNT: Busy.SHARE, NoSlot.ENDPOINT: Busy.RATE_LIMITED}


class _RunningTest(NamedTuple):
    """A test in flight, or about to be."""

    lane: Lane[LeasedDelivery]
    until_ms: int
    """When it is over at the latest, whatever becomes of it."""
    stored: asyncio.Event
    """Set once its outcome is stored."""


class RunningTests:
    """The tests in flight, by endpoint."""

    def __init__(
        self,
        cache: EndpointCache,
        lanes: DeliveryLanes,
        settler: Settler,
        dispatcher: Dispatcher,
        clock: Clock,
        *,
        lease_ms: int,
    ) -> None:
        self._cache = cache
        self._lanes = lanes
        self._settler = settler
        self._give_back = dispatcher.give_back
        self._clock = clock
        self._lease_ms = lease_ms
        self._running_tests: dict[int, _RunningTest] = {}

    def begin(self, endpoint_seq: int) -> Busy | None:
        """Take a slot for a test, to be sent or abandoned; why there is none."""
        now = self._clock.now_ms()
        endpoint = self._cache.endpoints.get(endpoint_seq)
        if endpoint is None:
            return Busy.DELETED
        if self._lanes.stopped:
            return Busy.STOPPED
        running = self._running_tests.get(endpoint_seq)
        if running is not None and now < running.until_ms:
            return Busy.IN_FLIGHT
        lane = self._lanes.of(endpoint)
        no_slot = self._lanes.take_slot(lane)
        if no_slot is not None:
            return _BUSY[no_slot]
        self._running_tests[endpoint_seq] = _RunningTest(lane, now + self._lease_ms, asyncio.Event())
        return None

    def abandon(self, endpoint_seq: int) -> None:
        """Give the slot of a test back that could not be stored."""
        test = self._running_tests.pop(endpoint_seq)
        self._lanes.attempt_ended(test.lane, self._clock.now_ms())
        self._lanes.pump()

    def send(self, delivery: LeasedDelivery) -> None:
        """Attempt a test that was stored, in the slot taken for it."""
        test = self._running_tests[delivery.endpoint_seq]

        def written() -> None:
            test.stored.set()
            if self._running_tests.get(delivery.endpoint_seq) is test:
                del self._running_tests[delivery.endpoint_seq]

        self._settler.call_when_written(delivery.event_seq, delivery.endpoint_seq, written)
        if self._lanes.stopped:
            self._give_back(delivery)
            self._lanes.attempt_ended(test.lane, self._clock.now_ms())
        else:
            self._lanes.start(test.lane, delivery)

    async def wait(self, endpoint_seq: int, within_ms: int) -> None:
        """Wait until the outcome of the endpoint's test is stored, or, for a test of another process, POLL_MS."""
        test = self._running_tests.get(endpoint_seq)
        if test is not None:
            await self._clock.wait(test.stored, within_ms)
        else:
            await self._clock.wait(asyncio.Event(), min(within_ms, POLL_MS))
