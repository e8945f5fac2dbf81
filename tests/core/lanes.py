"""Helpers to create, fill and empty lanes."""

from uplift_server.core.scheduling.circuit_breaker import Breaker
from uplift_server.core.scheduling.lane import AttemptKind, Lane
from uplift_server.core.scheduling.lanes import Lanes

NOW_MS = 1_764_000_000_000
OPEN = Breaker(failures=10, probe_at=NOW_MS + 1000, probe_wait_ms=1000)


def lane_of(
    lanes: Lanes[int],
    endpoint: int = 1,
    account: int = 1,
    *,
    host: str = "",
    in_flight_max: int = 1000,
    start_interval_ms: float = 0.0,
) -> Lane[int]:
    """Return a proven lane with these limits. By default, each endpoint has its own host."""
    lane = lanes.lane(endpoint, account, host or f"{endpoint}.test")
    lane.proven, lane.window, lane.last_end_ms = True, 1_000_000, NOW_MS
    lanes.set_limits(lane, in_flight_max=in_flight_max, start_interval_ms=start_interval_ms)
    return lane


def fill(lanes: Lanes[int], lane: Lane[int], items: int, kind: AttemptKind = AttemptKind.FIRST) -> None:
    """Add waiting deliveries to a lane."""
    for item in range(items):
        lanes.push(lane, item, kind)


def drain(lanes: Lanes[int], now_ms: int = NOW_MS, most: int = 1000) -> list[tuple[int, int]]:
    """Start all deliveries that may start now, at most `most`. Return the endpoint and item of each, in order."""
    popped = []
    while len(popped) < most and (found := lanes.pop(now_ms)) is not None:
        popped.append((found[0].endpoint, found[1]))
    return popped


def start_and_succeed(lanes: Lanes[int], lane: Lane[int], now_ms: int) -> int:
    """Start everything that may start now. Every attempt succeeds at once. Return the number of starts of `lane`."""
    started = 0
    while (found := lanes.pop(now_ms)) is not None:
        lanes.attempt_ended(found[0], now_ms, 1000, succeeded=True)
        started += found[0] is lane
    return started


def fresh_lane(lanes: Lanes[int], endpoint: int, account: int = 1, *, items: int = 10) -> Lane[int]:
    """Return the lane of an endpoint that has had no attempt yet, with waiting deliveries."""
    lane = lanes.lane(endpoint, account, f"{endpoint}.test")
    lanes.set_limits(lane, in_flight_max=16, start_interval_ms=0.0)
    fill(lanes, lane, items)
    return lane
