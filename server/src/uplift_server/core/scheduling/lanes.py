"""The order in which waiting deliveries go out: a lane for each endpoint, turns for accounts, endpoints and kinds.

A lane holds the waiting deliveries of one endpoint and counts its attempts in flight. An endpoint that hangs fills only
its own lane. If slots are scarce, accounts take turns, then the endpoints of an account, then first attempts, retries
and replays of an endpoint. An account has limits of its own: a share of the slots, and a number of attempts per host.

Nothing here reads a clock: `now_ms` is an argument.
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
"""The last quarter of the process's slots is for lanes that have proved themselves by answering well within QUICK_US:
receivers that never answer, or take their time, cannot take it, however many they are."""
SCARCE_SHARE: Final = 0.25
SCARCE_FREE_PER_SLOT: Final = 4
SCARCE_SLOTS_MIN: Final = 64
"""Once less than a quarter of the slots is free, a lane may add to what it has in flight only while four times that is
still free. So the more is taken the less each may take, and a few slots stay free for whoever has none (a dynamic
threshold, as switches share their buffers). A process with fewer than SCARCE_SLOTS_MIN slots has them taken in turns
alone."""
ACCOUNT_SHARE: Final = 0.5
"""The part of the slots that one account may take, unless it is the only account. It is below UNPROVEN_SHARE, so that
unproven lanes of other accounts find slots."""


class NoSlot(Enum):
    """Which limit leaves no slot for an attempt."""

    SERVER = "server"
    ACCOUNT = "account"
    """The account's share, or its limit for the host."""
    ENDPOINT = "endpoint"


class Lanes(Generic[T]):
    """All lanes, and whose turn it is."""

    def __init__(self, in_flight_max: int, host_in_flight_max: int = HOST_IN_FLIGHT_MAX) -> None:
        self.in_flight_max = in_flight_max
        self._host_in_flight_max = host_in_flight_max
        self.in_flight = 0
        self._lanes: dict[int, Lane[T]] = {}
        self._accounts: dict[int, AccountShare[T]] = {}
        self._account_max = in_flight_max
        self._hosts: WeakValueDictionary[tuple[int, str], HostShare[T]] = WeakValueDictionary()
        """By account and host. Its lanes keep a share alive."""
        self._account_queue: deque[AccountShare[T]] = deque()
        self._timers: list[tuple[float, int, Lane[T]]] = []
        """Lanes with work that may not start yet, by the instant they may.

        The number breaks ties; an entry whose number is not its lane's any more is void.
        """
        self._timer_count = 0
        self._unproven_max = in_flight_max * UNPROVEN_SHARE
        self._unproven_in_flight = 0
        self._scarce_below = in_flight_max * SCARCE_SHARE if in_flight_max >= SCARCE_SLOTS_MIN else 0
        self._parked: deque[Lane[T]] = deque()
        """Unproven lanes that wait until there are slots for such again; one that is not `parked` any more is void."""

    def lane(self, endpoint: int, account: int, host: str) -> Lane[T]:
        """The endpoint's lane, created on first use."""
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
        """Note that a lane's endpoint has moved to a host. Its attempts in flight count there from now on."""
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
        """The endpoint's lane if it has one."""
        return self._lanes.get(endpoint)

    def all(self) -> Iterable[Lane[T]]:
        """Every lane there is."""
        return self._lanes.values()

    def drop(self, endpoint: int) -> list[T]:
        """Forget an endpoint: what waited in its lane comes back; what is in flight returns as ever."""
        lane = self._lanes.pop(endpoint, None)
        return [] if lane is None else self.take_waiting(lane)

    def take_waiting(self, lane: Lane[T], kinds: Sequence[AttemptKind] = tuple(AttemptKind)) -> list[T]:
        """Take everything that waits, or what is of some kinds, out of a lane."""
        taken = [item for kind in kinds for item in lane.waiting[kind]]
        for kind in kinds:
            lane.waiting[kind].clear()
        lane.waiting_count -= len(taken)
        return taken

    def remove(self, lane: Lane[T], wanted: Callable[[T], bool]) -> T | None:
        """Take the first that is wanted out of a lane; None if none waits there."""
        for queue in lane.waiting:
            for item in queue:
                if wanted(item):
                    queue.remove(item)
                    lane.waiting_count -= 1
                    return item
        return None

    def set_limits(self, lane: Lane[T], *, in_flight_max: int, start_interval_ms: float) -> None:
        """Set a lane's limits: what they allow may go out at the next `pop`."""
        lane.in_flight_max = in_flight_max
        # The last start is followed by the new gap, not by the one it was made under.
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
        """Let a delivery wait in a lane."""
        lane.waiting[kind].append(item)
        lane.waiting_count += 1
        if not lane.queued or lane.timer_id:
            self._queue_if_ready(lane)

    def pop(self, now_ms: int) -> tuple[Lane[T], T] | None:
        """The next delivery to attempt, with its lane, counted as in flight; None if none may start now."""
        timers = self._timers
        while timers and timers[0][0] <= now_ms:
            _, number, lane = heappop(timers)
            if number != lane.timer_id:
                continue
            lane.timer_id = 0
            lane.queued = False
            if lane.waiting_count and lane.has_slot:
                self._queue(lane)
        turns = self._account_queue
        while self.in_flight < self.in_flight_max and (turns or (self._parked and self._unpark())):
            account = turns[0]
            if account.in_flight >= self._account_max:
                # It takes turns again when one of its attempts returns.
                turns.popleft()
                account.queued = False
                continue
            lane = account.lanes.popleft()
            lane.queued = False
            if not self._may_start(lane, now_ms):
                if lane.host_share.parked:
                    # A parked lane can use the slot that this lane did not take.
                    self._unpark_host(lane.host_share)
                # The turn is not used up: it is the account's next lane's.
                if not account.lanes:
                    self._rotate_accounts(account)
                continue
            item = lane.pop()
            self._take_slot(lane, now_ms)
            if lane.start_interval_ms:
                # Idle time earns no burst, but a timer that fired a little late must not lower the rate.
                lane.next_start_ms = max(lane.next_start_ms, now_ms - LATENESS_CREDIT_MS) + lane.start_interval_ms
            if lane.waiting_count and lane.has_slot:
                lane.queued = True
                account.lanes.append(lane)
            self._rotate_accounts(account)
            return lane, item
        return None

    def start_now(self, lane: Lane[T], now_ms: int, *, beyond_limit: bool = False) -> NoSlot | None:
        """Take a slot for an attempt that a person requested, or return the limit that leaves none.

        Such an attempt waits for no turn and no circuit breaker. A paced lane lends one start at a time, and the next
        start is a gap later. With `beyond_limit` the lane's own limit does not count.
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
        """Whether the few free slots are reserved for lanes with fewer attempts in flight."""
        free = self.in_flight_max - self.in_flight
        return free < self._scarce_below and lane.in_flight * SCARCE_FREE_PER_SLOT >= free

    def _may_start(self, lane: Lane[T], now_ms: int) -> bool:
        """Whether a lane may start an attempt now; one that may later is put where it will be found then."""
        if lane.proven and lane.is_overdue(now_ms):
            self._set_proven(lane, proven=False)
        if not lane.waiting_count or not lane.has_slot or lane.is_stalled(now_ms):
            return False
        if self.in_flight_max - self.in_flight < self._scarce_below and self._is_crowded(lane):
            # It is looked at again when one of its own attempts returns.
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
        """An attempt of the lane is over, after so long (0: it never began, and takes none of the lane's rate).

        `well`: it succeeded (True), or nothing came back in time (False).
        """
        account, share = lane.account_share, lane.host_share
        lane.in_flight -= 1
        account.in_flight -= 1
        share.in_flight -= 1
        self.in_flight -= 1
        if not lane.proven:
            self._unproven_in_flight -= 1
        if duration_us:
            lane.last_return_ms = now_ms
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
        # Before the lane itself, which otherwise took the slot it left again and again.
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
        """Queue as many parked lanes as there are slots for; whether anything is queued now."""
        self._queue_parked(self._parked, self._unproven_max - self._unproven_in_flight)
        return bool(self._account_queue)

    def _unpark_host(self, share: HostShare[T]) -> None:
        """Queue as many lanes parked for a host as there are slots for it."""
        self._queue_parked(share.parked, share.in_flight_max - share.in_flight)

    def _queue_parked(self, parked: deque[Lane[T]], slots: float) -> None:
        while parked and slots > 0:
            lane = parked.popleft()
            if lane.parked:
                self._queue(lane)
                slots -= 1

    def _set_proven(self, lane: Lane[T], *, proven: bool) -> None:
        """Note whether a lane has proved itself; what it has in flight then counts as such."""
        if lane.proven is not proven:
            lane.proven = proven
            self._unproven_in_flight += -lane.in_flight if proven else lane.in_flight
            if lane.parked:
                self._queue(lane)

    def next_start_at(self) -> float | None:
        """The next instant at which a paced lane may start something, if any."""
        timers = self._timers
        while timers and timers[0][1] != timers[0][2].timer_id:
            heappop(timers)
        return timers[0][0] if timers else None

    def _queue_if_ready(self, lane: Lane[T]) -> None:
        """Queue a lane that may start something sooner than it was thought to: a slot is free, its breaker closed."""
        waits = not lane.queued or (lane.timer_id and lane.next_start_at() < lane.timer_at)
        if waits and lane.waiting_count and lane.has_slot:
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
        """The account at the front had its turn."""
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
