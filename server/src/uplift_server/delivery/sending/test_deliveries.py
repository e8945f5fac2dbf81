"""Test deliveries: at most one in flight per endpoint. The server starts a test immediately, or rejects it.

A test takes a slot before it is stored, so a stored test never waits. The endpoint's queue, circuit breaker and
concurrency limit do not apply to tests. The endpoint's rate limit, and the limits of the process and the account, do
apply.
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
"""The interval between reads of a test's outcome while another process runs the test, in ms."""

STORED_MAX: Final = 1_000
"""The maximum number of endpoints for which the process remembers that the latest test outcome is stored.

If the process forgets an endpoint too early, the caller of its test receives the response up to POLL_MS later.
"""


class Busy(Enum):
    """The reason why a test cannot start now."""

    STOPPED = "stopped"
    """The process is stopping, or cannot store outcomes."""
    IN_FLIGHT = "in_flight"
    """Another test of the endpoint is in flight."""
    FULL = "full"
    """The process has reached its limit on attempts in flight."""
    SHARE = "share"
    """The account has reached its limit on attempts in flight, in total or to the endpoint's host."""
    RATE_LIMITED = "paced"
    """The endpoint's rate limit does not allow another attempt now."""
    DELETED = "deleted"
    """The endpoint was deleted after the test was requested."""


_BUSY: Final = {NoSlot.SERVER: Busy.FULL, NoSlot.ACCOUNT: Busy.SHARE, NoSlot.ENDPOINT: Busy.RATE_LIMITED}


class _RunningTest(NamedTuple):
    """A test that has a slot for its attempt."""

    event_seq: int | None
    """The number of the test event. None until the test is stored."""
    lane: Lane[LeasedDelivery]
    until_ms: int
    """The end of the test's lease (Unix ms)."""
    stored: asyncio.Event
    """An asyncio event that is set when the outcome of the test is stored."""


class RunningTests:
    """The tests in flight in this process: at most one for each endpoint."""

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
        self._release_lease = dispatcher.release_lease
        self._clock = clock
        self._lease_ms = lease_ms
        self._running_tests: dict[int, _RunningTest] = {}
        self._stored: set[int] = set()
        """The endpoints whose test outcome was stored but possibly not returned to the caller."""

    def take_slot(self, endpoint_seq: int) -> Busy | None:
        """Take a slot for a test, or return the reason why the test cannot start.

        After the slot is taken, call `send` or `abandon`.
        """
        now = self._clock.now_ms()
        endpoint = self._cache.endpoints.get(endpoint_seq)
        if endpoint is None:
            return Busy.DELETED
        if self._lanes.stopped:
            return Busy.STOPPED
        running = self._running_tests.get(endpoint_seq)
        if running is not None and now < running.until_ms and not self._has_ended(running, endpoint_seq):
            return Busy.IN_FLIGHT
        self._stored.discard(endpoint_seq)
        lane = self._lanes.of(endpoint)
        no_slot = self._lanes.take_slot(lane)
        if no_slot is not None:
            return _BUSY[no_slot]
        self._running_tests[endpoint_seq] = _RunningTest(None, lane, now + self._lease_ms, asyncio.Event())
        return None

    def _has_ended(self, test: _RunningTest, endpoint_seq: int) -> bool:
        """Return whether the attempt of a test has ended, even if this process does not know yet that it is stored.

        The caller of the test may already have read the outcome from the database.
        """
        return test.event_seq is not None and self._settler.is_settling(test.event_seq, endpoint_seq)

    def abandon(self, endpoint_seq: int) -> None:
        """Free the slot of a test that was not stored."""
        test = self._running_tests.pop(endpoint_seq)
        self._lanes.attempt_ended(test.lane, self._clock.now_ms())
        self._lanes.pump()

    def send(self, delivery: LeasedDelivery) -> None:
        """Make the attempt for a stored test event, in the slot that `take_slot` reserved."""
        test = self._running_tests[delivery.endpoint_seq]._replace(event_seq=delivery.event_seq)
        self._running_tests[delivery.endpoint_seq] = test

        def written() -> None:
            test.stored.set()
            if self._running_tests.get(delivery.endpoint_seq) is test:
                del self._running_tests[delivery.endpoint_seq]
                if len(self._stored) >= STORED_MAX:
                    self._stored.clear()
                self._stored.add(delivery.endpoint_seq)

        self._settler.call_when_written(delivery.event_seq, delivery.endpoint_seq, written)
        if self._lanes.stopped:
            self._release_lease(delivery)
            self._lanes.attempt_ended(test.lane, self._clock.now_ms())
        else:
            self._lanes.start(test.lane, delivery)

    async def wait(self, endpoint_seq: int, within_ms: int) -> None:
        """Wait until the outcome of the endpoint's test is stored, for at most `within_ms`.

        If another process runs the test, wait for at most POLL_MS.
        """
        test = self._running_tests.get(endpoint_seq)
        if test is not None:
            await self._clock.wait(test.stored, within_ms)
            self._stored.discard(endpoint_seq)
        elif endpoint_seq in self._stored:
            self._stored.discard(endpoint_seq)
        else:
            await self._clock.wait(asyncio.Event(), min(within_ms, POLL_MS))
