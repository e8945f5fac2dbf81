"""The lanes of the engine: `core.lanes` filled with leased deliveries, bounded in bytes, and emptied by `pump`."""

from collections.abc import Callable

from uplift_server.core.breaker import BreakerRule, restored
from uplift_server.core.lanes import Kind, Lane, Lanes
from uplift_server.delivery.clock import Clock, Handle
from uplift_server.delivery.directory import LiveEndpoint
from uplift_server.delivery.memory import BodyBudget
from uplift_server.store.records import LeasedDelivery


class DeliveryLanes:
    """What waits in memory, who goes next, and which endpoints have more in the database."""

    def __init__(self, clock: Clock, *, in_flight_max: int, endpoint_in_flight_max: int, breaker: BreakerRule) -> None:
        self.budget = BodyBudget()
        self.backlog: set[int] = set()
        """Endpoints known to have due deliveries in the database that the memory had no room for."""
        self._lanes: Lanes[LeasedDelivery] = Lanes(in_flight_max)
        self._clock = clock
        self._endpoint_in_flight_max = endpoint_in_flight_max
        self._breaker = breaker
        self._timer: Handle | None = None
        self._timer_at: float | None = None
        self.start: Callable[[Lane[LeasedDelivery], LeasedDelivery], None] = _not_wired
        """Begins an attempt; set by the engine."""
        self.on_backlog: Callable[[], None] = _nothing
        """Called when an endpoint with backlog has room again."""
        self.stopped = False

    @property
    def in_flight(self) -> int:
        """How many attempts are in flight."""
        return self._lanes.in_flight

    def of(self, endpoint: LiveEndpoint) -> Lane[LeasedDelivery]:
        """The lane of an endpoint, with the endpoint's present limits."""
        lane = self._lanes.find(endpoint.seq)
        if lane is None:
            lane = self._lanes.lane(endpoint.seq, endpoint.record.account_seq)
            lane.breaker = restored(endpoint.record.consecutive_failures, self._clock.now_ms(), self._breaker)
            lane.proven = endpoint.health.status == "healthy"
            self._limit(lane, endpoint)
        return lane

    def adjust(self, endpoint: LiveEndpoint) -> None:
        """Let an endpoint's changed limits take effect."""
        lane = self._lanes.find(endpoint.seq)
        if lane is not None:
            self._limit(lane, endpoint)
            self.pump()

    def find(self, endpoint_seq: int) -> Lane[LeasedDelivery] | None:
        """The lane of an endpoint if it has one."""
        return self._lanes.find(endpoint_seq)

    def push(self, lane: Lane[LeasedDelivery], delivery: LeasedDelivery, kind: Kind) -> None:
        """Let a delivery wait; `pump` sends it."""
        self.budget.bytes_held += len(delivery.body)
        self._lanes.push(lane, delivery, kind)

    def note_backlog(self, endpoint_seq: int) -> None:
        """Remember that an endpoint has due deliveries in the database."""
        self.backlog.add(endpoint_seq)

    def returned(
        self, lane: Lane[LeasedDelivery], now_ms: int, duration_us: int = 0, *, well: bool | None = None
    ) -> None:
        """An attempt is over, after so long: its slot is free. See `Lanes.returned`."""
        self._lanes.returned(lane, now_ms, duration_us, well=well)
        if lane.endpoint in self.backlog and lane.waiting_count * 2 <= lane.in_flight_max:
            self.on_backlog()

    def drop(self, endpoint_seq: int) -> list[LeasedDelivery]:
        """Forget a deleted endpoint; what waited for it comes back."""
        self.backlog.discard(endpoint_seq)
        return self._taken(self._lanes.drop(endpoint_seq))

    def empty_all(self) -> list[LeasedDelivery]:
        """Take out everything that waits."""
        return self._taken(self._lanes.empty_all())

    def pump(self) -> None:
        """Begin every attempt that may begin now."""
        if self.stopped:
            return
        now = self._clock.now_ms()
        while (item := self._lanes.pop(now)) is not None:
            lane, delivery = item
            self.budget.bytes_held -= len(delivery.body)
            self.start(lane, delivery)
        self._set_timer()

    def _limit(self, lane: Lane[LeasedDelivery], endpoint: LiveEndpoint) -> None:
        rate = endpoint.record.rate_limit_per_second
        self._lanes.limit(
            lane,
            in_flight_max=endpoint.record.max_in_flight or self._endpoint_in_flight_max,
            rate_gap_ms=1000 / rate if rate else 0.0,
        )

    def _taken(self, deliveries: list[LeasedDelivery]) -> list[LeasedDelivery]:
        self.budget.bytes_held -= sum(len(delivery.body) for delivery in deliveries)
        return deliveries

    def _set_timer(self) -> None:
        """Pump again when the first paced lane may start something."""
        wake_at = self._lanes.wake_at()
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


def _not_wired(_lane: Lane[LeasedDelivery], _delivery: LeasedDelivery) -> None:
    raise AssertionError("the engine sets `start` before anything waits")


def _nothing() -> None:
    pass
