"""The lane of one endpoint: its waiting deliveries in memory, its attempts in flight, and their limits.

Callers pass the time as `now_ms`.
"""

from collections import deque
from enum import IntEnum
from typing import Final, Generic, TypeVar

from uplift_server.core.limits import HOST_IN_FLIGHT_MAX, LANE_WAITING_MAX
from uplift_server.core.scheduling.circuit_breaker import CLOSED, Breaker

T = TypeVar("T")

WINDOW_START: Final = 4
"""Initial limit on a lane's attempts in flight. Each success raises the limit by one."""
STALLED_MS_MIN: Final = 100
STALLED_MEANS: Final = 8
"""Time limit after which a lane counts as stalled, as a multiple of the mean duration of its successful attempts.

A lane is stalled if at least WINDOW_START attempts are in flight and none has ended within the time limit, which is at
least STALLED_MS_MIN. A stalled lane starts no attempts, so a receiver that hangs takes no more slots.
"""
LOOKAHEAD_MS: Final = 5000
"""A lane keeps only as many deliveries in memory as it can send within this time, in ms."""


class AttemptKind(IntEnum):
    """The kind of a waiting attempt. A lane alternates between the kinds."""

    FIRST = 0
    RETRY = 1
    REPLAY = 2


# If attempts of all kinds are waiting, three of six attempts are first attempts, two are retries, and one is a replay.
_FIRST, _RETRY, _REPLAY = AttemptKind
_KIND_ORDER: Final = (_FIRST, _RETRY, _FIRST, _REPLAY, _FIRST, _RETRY)


class AccountShare(Generic[T]):
    """One account's attempts in flight, its lanes that can start an attempt, and the size of its waiting deliveries."""

    __slots__ = ("in_flight", "lanes", "queued", "waiting_bytes")

    def __init__(self) -> None:
        self.in_flight = 0
        self.lanes: deque[Lane[T]] = deque()
        self.queued = False
        """Whether the account is in the round-robin queue of accounts."""
        self.waiting_bytes = 0
        """The total size, in bytes, of the deliveries that wait in the account's lanes. The caller updates it."""


class HostShare(Generic[T]):
    """One account's attempts in flight to one host, and the lanes that wait for a slot."""

    __slots__ = ("__weakref__", "in_flight", "in_flight_max", "parked")

    def __init__(self, in_flight_max: int = HOST_IN_FLIGHT_MAX) -> None:
        self.in_flight = 0
        self.in_flight_max = in_flight_max
        self.parked: deque[Lane[T]] = deque()
        """The lanes that wait for a slot for the host. An entry is void if its lane is no longer `parked`."""


class Lane(Generic[T]):
    """The waiting deliveries and the attempts in flight of one endpoint."""

    __slots__ = (
        "account",
        "account_share",
        "breaker",
        "busy_since_ms",
        "endpoint",
        "host_share",
        "in_flight",
        "in_flight_max",
        "kind_index",
        "last_end_ms",
        "mean_us",
        "next_start_ms",
        "parked",
        "proven",
        "queued",
        "reserved",
        "start_interval_ms",
        "timer_at",
        "timer_id",
        "waiting",
        "waiting_bytes",
        "waiting_count",
        "window",
    )

    def __init__(
        self,
        endpoint: int,
        account: int,
        account_share: AccountShare[T] | None = None,
        host_share: HostShare[T] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.account = account
        self.account_share: AccountShare[T] = account_share or AccountShare()
        self.host_share: HostShare[T] = host_share or HostShare()
        self.in_flight_max = 1
        self.start_interval_ms = 0.0
        """The minimum time, in ms, between the starts of two attempts, or 0 if there is no rate limit."""
        self.breaker: Breaker = CLOSED
        self.waiting: tuple[deque[T], deque[T], deque[T]] = (deque(), deque(), deque())
        self.waiting_count = 0
        self.waiting_bytes = 0
        """The total size, in bytes, of the waiting deliveries. The caller updates it."""
        self.reserved = 0
        """The number of deliveries that will enter the lane after the commit that stores them with a lease."""
        self.in_flight = 0
        self.window = WINDOW_START
        """Limit on attempts in flight, up to `in_flight_max`. A success raises it, and a timeout resets it to 1."""
        self.proven = False
        """Whether the last success was quick, and since then no attempt has timed out or been overdue."""
        self.last_end_ms = 0
        self.busy_since_ms = 0
        """When the lane last changed from idle to busy (Unix ms)."""
        self.mean_us = 0
        """The moving average of the durations of successful attempts, in µs."""
        self.next_start_ms = 0.0
        self.kind_index = 0
        self.queued = False
        """Whether the lane is in its account's queue, parked, or waiting for its timer."""
        self.timer_id = 0
        """The ID of the lane's timer, or 0 if the lane has no timer."""
        self.timer_at = 0.0
        self.parked = False

    def free_capacity(self, now_ms: int) -> int:
        """Return how many more deliveries the lane can take into memory.

        The number is negative if the lane already has too many deliveries.
        """
        held = self.waiting_count + self.reserved
        if self.breaker.probe_at is not None:
            return max(0, 1 - held - self.in_flight)
        if self.breaker.failures or self.is_stalled(now_ms):
            return min(self.in_flight_max, self._waiting_max()) - held
        return self._waiting_max() - held

    def _waiting_max(self) -> int:
        """Return the number of deliveries that the lane can send within LOOKAHEAD_MS.

        If the lane took more deliveries, their leases would expire before the attempts start.
        """
        per_lookahead = self.in_flight_max * LOOKAHEAD_MS * 1000 // max(self.mean_us, 1)
        most = LANE_WAITING_MAX
        if self.start_interval_ms:
            most = max(1, min(most, int(LOOKAHEAD_MS / self.start_interval_ms)))
        return min(most, max(self.in_flight_max, per_lookahead))

    def next_start_at(self) -> float:
        """Return the earliest time (Unix ms) at which the next attempt can start."""
        probe_at = self.breaker.probe_at
        return self.next_start_ms if probe_at is None else max(self.next_start_ms, probe_at)

    @property
    def has_slot(self) -> bool:
        """Whether the lane may have one more attempt in flight."""
        return self.in_flight < (min(self.window, self.in_flight_max) if self.breaker.probe_at is None else 1)

    def is_stalled(self, now_ms: int) -> bool:
        """Return whether at least WINDOW_START attempts are in flight, but no attempt has ended recently.

        The time limit is STALLED_MEANS times the mean duration of an attempt, but at least STALLED_MS_MIN.
        """
        return self.in_flight >= WINDOW_START and now_ms - self.last_end_ms > self._stall_timeout_ms()

    def is_overdue(self, now_ms: int) -> bool:
        """Return whether attempts are in flight, but no attempt has ended recently.

        The time limit is the same as in `is_stalled`. A lane that recently changed from idle to busy is not overdue.
        """
        return self.in_flight > 0 and now_ms - max(self.last_end_ms, self.busy_since_ms) > self._stall_timeout_ms()

    def _stall_timeout_ms(self) -> int:
        return max(STALLED_MS_MIN, self.mean_us * STALLED_MEANS // 1000)

    def pop(self) -> T:
        """Remove and return the next waiting delivery. The lane alternates between the kinds of attempts."""
        self.waiting_count -= 1
        first, retry, replay = self.waiting
        if not retry and not replay:
            return first.popleft()
        while True:
            queue = self.waiting[_KIND_ORDER[self.kind_index]]
            self.kind_index = (self.kind_index + 1) % len(_KIND_ORDER)
            if queue:
                return queue.popleft()
