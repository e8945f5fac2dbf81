"""Fair order of waiting deliveries: round robin over accounts, endpoints and kinds of attempts.

A lane holds the waiting deliveries of one endpoint and counts its attempts in flight, so an endpoint that hangs fills
only its own lane. Each attempt in flight takes one of the process's slots. If slots are scarce, the process alternates
between accounts, and between the endpoints of each account. Within a lane, it alternates between first attempts,
retries and replays. An account has a limited share of the slots and a limited number of attempts per host. Callers pass
the time as `now_ms`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from heapq import heappop, heappush
from typing import Final, Generic, TypeVar
from weakref import WeakValueDictionary

from uplift_server.core.limits import HOST_IN_FLIGHT_MAX
from uplift_server.core.scheduling.lane import AccountShare, AttemptKind, HostShare, Lane
from uplift_server.core.scheduling.rate_limit import LATENESS_CREDIT_MS

T = TypeVar("T")

QUICK_US: Final = 1_000_000
UNPROVEN_SHARE: Final = 0.75
"""The share of the slots that unproven lanes may use. A lane is proven while its attempts succeed within QUICK_US.

The remaining quarter is reserved for proven lanes, so that slow or silent receivers cannot use all slots.
"""
SCARCE_SHARE: Final = 0.25
SCARCE_FREE_PER_SLOT: Final = 4
SCARCE_SLOTS_MIN: Final = 64
"""Only a process with at least this many slots keeps a few of them free for idle lanes.

If less than a quarter of the slots is free, a lane starts another attempt only if more than four slots are free for
each of its attempts in flight (like the dynamic threshold in shared-memory switches).
"""
ACCOUNT_SHARE: Final = 0.5
"""The share of the slots that one account may use, unless it is the only account.

It is smaller than UNPROVEN_SHARE, so that slots remain for the unproven lanes of other accounts.
"""


class NoSlot(Enum):
    """The limit that prevents an attempt from starting."""

    SERVER = "server"
    ACCOUNT = "account"
    """The account's share of the slots, or its limit on attempts to one host."""
    ENDPOINT = "endpoint"


class Lanes(Generic[T]):
    """All lanes of a process, and the order in which they start attempts."""

    def __init__(self, in_flight_max: int, host_in_flight_max: int = HOST_IN_FLIGHT_MAX) -> None:
        self.in_flight_max = in_flight_max
        self._host_in_flight_max = host_in_flight_max
        self.in_flight = 0
        self._lanes: dict[int, Lane[T]] = {}
        self._accounts: dict[int, AccountShare[T]] = {}
        self._account_max = in_flight_max
        self._hosts: WeakValueDictionary[tuple[int, str], HostShare[T]] = WeakValueDictionary()
        """The HostShare for each account and host. A HostShare is removed when no lane refers to it."""
        self._account_queue: deque[AccountShare[T]] = deque()
        self._timers: list[tuple[float, int, Lane[T]]] = []
        """Lanes with work that cannot start yet: start time, timer ID and lane.

        The ID breaks ties. An entry is void if its lane has a different `timer_id`.
        """
        self._timer_count = 0
        self._unproven_max = in_flight_max * UNPROVEN_SHARE
        self._unproven_in_flight = 0
        self._scarce_below = in_flight_max * SCARCE_SHARE if in_flight_max >= SCARCE_SLOTS_MIN else 0
        self._parked: deque[Lane[T]] = deque()
        """Unproven lanes that wait for a slot. An entry is void if its lane is no longer `parked`."""

    def lane(self, endpoint: int, account: int, host: str) -> Lane[T]:
        """Return the lane of an endpoint. Create it if it does not exist."""
        lane = self._lanes.get(endpoint)
        if lane is None:
            share = self._accounts.get(account)
            if share is None:
                share = self._accounts[account] = AccountShare()
                if len(self._accounts) > 1:
                    self._account_max = max(1, int(self.in_flight_max * ACCOUNT_SHARE))
            lane = self._lanes[endpoint] = Lane(endpoint, account, share, self._host_share(account, host))
        return lane

    def move_to_host(self, lane: Lane[T], host: str) -> None:
        """Move a lane, with its attempts in flight, to the share of another host."""
        before, share = lane.host_share, self._host_share(lane.account, host)
        if share is before:
            return
        before.in_flight -= lane.in_flight
        share.in_flight += lane.in_flight
        share.in_flight_max = max(share.in_flight_max, lane.in_flight_max)
        lane.host_share = share
        if lane.parked:
            self._queue(lane)
        self._unpark_host(before)

    def _host_share(self, account: int, host: str) -> HostShare[T]:
        share = self._hosts.get((account, host))
        if share is None:
            share = self._hosts[account, host] = HostShare(self._host_in_flight_max)
        return share

    def find(self, endpoint: int) -> Lane[T] | None:
        """Return the lane of an endpoint, if it has one."""
        return self._lanes.get(endpoint)

    def all(self) -> Iterable[Lane[T]]:
        """Return all lanes of this process."""
        return self._lanes.values()

    def drop(self, endpoint: int) -> list[T]:
        """Remove the lane of an endpoint and return its waiting deliveries. Attempts in flight still end normally."""
        lane = self._lanes.pop(endpoint, None)
        return [] if lane is None else self.take_waiting(lane)

    def take_waiting(self, lane: Lane[T], kinds: Sequence[AttemptKind] = tuple(AttemptKind)) -> list[T]:
        """Remove and return the lane's waiting deliveries whose attempts are of the given `kinds`."""
        taken = [item for kind in kinds for item in lane.waiting[kind]]
        for kind in kinds:
            lane.waiting[kind].clear()
        lane.waiting_count -= len(taken)
        return taken

    def remove(self, lane: Lane[T], matches: Callable[[T], bool]) -> T | None:
        """Remove and return a lane's first waiting delivery that matches, or return None if none matches."""
        for queue in lane.waiting:
            for item in queue:
                if matches(item):
                    queue.remove(item)
                    lane.waiting_count -= 1
                    return item
        return None

    def set_limits(self, lane: Lane[T], *, in_flight_max: int, start_interval_ms: float) -> None:
        """Set the limits of a lane. The new limits apply from the next `pop`."""
        lane.in_flight_max = in_flight_max
        # The new interval begins at the start of the last attempt.
        if not start_interval_ms:
            lane.next_start_ms = 0.0
        elif lane.start_interval_ms:
            lane.next_start_ms += start_interval_ms - lane.start_interval_ms
        lane.start_interval_ms = start_interval_ms
        share = lane.host_share
        if in_flight_max > share.in_flight_max:
            share.in_flight_max = in_flight_max
            self._unpark_host(share)
        self._queue_if_ready(lane)

    def push(self, lane: Lane[T], item: T, kind: AttemptKind) -> None:
        """Add a waiting delivery to a lane."""
        lane.waiting[kind].append(item)
        lane.waiting_count += 1
        if not lane.queued or lane.timer_id:
            self._queue_if_ready(lane)

    def pop(self, now_ms: int) -> tuple[Lane[T], T] | None:
        """Return the next delivery and its lane, and count the attempt as in flight.

        Return None if no attempt may start now.
        """
        timers = self._timers
        while timers and timers[0][0] <= now_ms:
            _, number, lane = heappop(timers)
            if number != lane.timer_id:
                continue
            lane.timer_id = 0
            lane.queued = False
            if lane.waiting_count and lane.has_slot:
                self._queue(lane)
        accounts = self._account_queue
        while self.in_flight < self.in_flight_max and (accounts or (self._parked and self._unpark())):
            account = accounts[0]
            if account.in_flight >= self._account_max:
                # The account is queued again when one of its attempts ends.
                accounts.popleft()
                account.queued = False
                continue
            lane = account.lanes.popleft()
            lane.queued = False
            if not self._may_start(lane, now_ms):
                if lane.host_share.parked:
                    # A parked lane can use the slot that this lane did not take.
                    self._unpark_host(lane.host_share)
                # The account stays first: its next lane may still start.
                if not account.lanes:
                    self._rotate_accounts(account)
                continue
            item = lane.pop()
            self._take_slot(lane, now_ms)
            if lane.start_interval_ms:
                # A pause must not allow a burst of attempts, but a late timer must not lower the rate.
                lane.next_start_ms = max(lane.next_start_ms, now_ms - LATENESS_CREDIT_MS) + lane.start_interval_ms
            if lane.waiting_count and lane.has_slot:
                lane.queued = True
                account.lanes.append(lane)
            self._rotate_accounts(account)
            return lane, item
        return None

    def start_now(self, lane: Lane[T], now_ms: int, *, beyond_limit: bool = False) -> NoSlot | None:
        """Take a slot for an attempt that a user requested, or return the limit that prevents the attempt.

        The attempt skips the queue and the circuit breaker. A rate-limited lane allows one such attempt early and then
        waits one interval longer. If `beyond_limit` is true, the lane's concurrency limit does not apply.
        """
        if lane.proven and lane.is_overdue(now_ms):
            self._set_proven(lane, proven=False)
        share = lane.host_share
        if self.in_flight >= self.in_flight_max or self._is_crowded(lane):
            return NoSlot.SERVER
        if lane.account_share.in_flight >= self._account_max or share.in_flight >= share.in_flight_max:
            return NoSlot.ACCOUNT
        if not lane.proven and self._unproven_in_flight >= self._unproven_max:
            return NoSlot.SERVER
        if lane.in_flight >= lane.in_flight_max and not beyond_limit:
            return NoSlot.ENDPOINT
        if lane.start_interval_ms:
            if lane.next_start_ms - now_ms > lane.start_interval_ms:
                return NoSlot.ENDPOINT
            lane.next_start_ms = max(lane.next_start_ms, now_ms - LATENESS_CREDIT_MS) + lane.start_interval_ms
        self._take_slot(lane, now_ms)
        return None

    def _take_slot(self, lane: Lane[T], now_ms: int) -> None:
        if lane.in_flight == 0:
            lane.busy_since_ms = now_ms
        lane.in_flight += 1
        lane.account_share.in_flight += 1
        lane.host_share.in_flight += 1
        self.in_flight += 1
        if not lane.proven:
            self._unproven_in_flight += 1

    def _is_crowded(self, lane: Lane[T]) -> bool:
        """Return whether slots are scarce and the lane has too many attempts in flight to take another one."""
        free = self.in_flight_max - self.in_flight
        return free < self._scarce_below and lane.in_flight * SCARCE_FREE_PER_SLOT >= free

    def _may_start(self, lane: Lane[T], now_ms: int) -> bool:
        """Return whether a lane may start an attempt now.

        If the limit for its host or for unproven lanes prevents the attempt, park the lane until a slot is free. If the
        lane must wait until a later time, start its timer.
        """
        if lane.proven and lane.is_overdue(now_ms):
            self._set_proven(lane, proven=False)
        if not lane.waiting_count or not lane.has_slot or lane.is_stalled(now_ms):
            return False
        if self.in_flight_max - self.in_flight < self._scarce_below and self._is_crowded(lane):
            # The lane is queued again when one of its attempts ends.
            return False
        if lane.next_start_at() > now_ms:
            self._start_timer(lane)
            return False
        share = lane.host_share
        if share.in_flight >= share.in_flight_max:
            self._park(lane, share.parked)
            return False
        if not lane.proven and self._unproven_in_flight >= self._unproven_max:
            self._park(lane, self._parked)
            return False
        return True

    def _park(self, lane: Lane[T], parked: deque[Lane[T]]) -> None:
        lane.queued = lane.parked = True
        parked.append(lane)

    def attempt_ended(self, lane: Lane[T], now_ms: int, duration_us: int, *, succeeded: bool | None = None) -> None:
        """Free the slot of an attempt that has ended.

        `duration_us` is 0 if the attempt never began. Such an attempt does not count toward the rate limit. `succeeded`
        is True after a success, False after a timeout, and None after another failure.
        """
        account, share = lane.account_share, lane.host_share
        lane.in_flight -= 1
        account.in_flight -= 1
        share.in_flight -= 1
        self.in_flight -= 1
        if not lane.proven:
            self._unproven_in_flight -= 1
        if duration_us:
            lane.last_end_ms = now_ms
            if succeeded:
                self._set_proven(lane, proven=duration_us <= QUICK_US)
                lane.mean_us += (duration_us - lane.mean_us) >> 3
                if lane.window < lane.in_flight_max:
                    lane.window += 1
            elif succeeded is False:
                self._set_proven(lane, proven=False)
                lane.window = 1
        else:
            lane.next_start_ms -= lane.start_interval_ms
        # Let other lanes start first. Otherwise, this lane could keep its slot forever.
        if self._parked:
            self._unpark()
        if share.parked:
            self._unpark_host(share)
        if account.lanes and not account.queued:
            account.queued = True
            self._account_queue.append(account)
        if lane.waiting_count:
            self._queue_if_ready(lane)

    def _unpark(self) -> bool:
        """Queue one parked lane, and its account, for each slot that unproven lanes may still use.

        Return whether the queue of accounts now contains an account.
        """
        self._queue_parked(self._parked, self._unproven_max - self._unproven_in_flight)
        return bool(self._account_queue)

    def _unpark_host(self, share: HostShare[T]) -> None:
        """For each free slot of a host, queue one of the lanes that are parked for the host."""
        self._queue_parked(share.parked, share.in_flight_max - share.in_flight)

    def _queue_parked(self, parked: deque[Lane[T]], slots: float) -> None:
        while parked and slots > 0:
            lane = parked.popleft()
            if lane.parked:
                self._queue(lane)
                slots -= 1

    def _set_proven(self, lane: Lane[T], *, proven: bool) -> None:
        """Set whether a lane is proven (see UNPROVEN_SHARE), and count its attempts in flight accordingly."""
        if lane.proven is not proven:
            lane.proven = proven
            self._unproven_in_flight += -lane.in_flight if proven else lane.in_flight
            if lane.parked:
                self._queue(lane)

    def next_start_at(self) -> float | None:
        """Return the time of the earliest timer (Unix ms), or None if there are no timers."""
        timers = self._timers
        while timers and timers[0][1] != timers[0][2].timer_id:
            heappop(timers)
        return timers[0][0] if timers else None

    def _queue_if_ready(self, lane: Lane[T]) -> None:
        """Queue a lane that has a waiting delivery and a free slot.

        If the lane has a timer, queue the lane only if it can start earlier, for example because its breaker closed.
        """
        is_idle = not lane.queued or (lane.timer_id and lane.next_start_at() < lane.timer_at)
        if is_idle and lane.waiting_count and lane.has_slot:
            self._queue(lane)

    def _queue(self, lane: Lane[T]) -> None:
        lane.timer_id = 0
        lane.parked = False
        account = lane.account_share
        lane.queued = True
        account.lanes.append(lane)
        if not account.queued:
            account.queued = True
            self._account_queue.append(account)

    def _rotate_accounts(self, account: AccountShare[T]) -> None:
        """Move the first account to the end of the queue, or remove it if it has no waiting lanes."""
        if account.lanes:
            if len(self._account_queue) > 1:
                self._account_queue.rotate(-1)
        else:
            self._account_queue.popleft()
            account.queued = False

    def _start_timer(self, lane: Lane[T]) -> None:
        lane.queued = True
        lane.timer_at = lane.next_start_at()
        self._timer_count += 1
        lane.timer_id = self._timer_count
        heappush(self._timers, (lane.timer_at, self._timer_count, lane))
