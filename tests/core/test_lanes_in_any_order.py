"""Lanes keep a fair order and respect their limits after any sequence of operations."""

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from uplift_server.core.scheduling.circuit_breaker import BreakerRule
from uplift_server.core.scheduling.lane import AttemptKind, Lane
from uplift_server.core.scheduling.lanes import Lanes
from uplift_server.core.scheduling.rate_limit import LATENESS_CREDIT_MS

from .lanes import NOW_MS, fill, lane_of

ENDPOINTS = {1: (1, 0.0), 2: (1, 40.0), 3: (1, 3.0), 4: (2, 0.0), 5: (2, 1000.0)}
"""For each endpoint: its account, and the initial interval between starts of attempts (ms)."""
HOSTS = {1: "shared.test", 2: "two.test", 3: "shared.test", 4: "shared.test", 5: "five.test"}
RULE = BreakerRule(failures=2, probe_max_ms=8000)
IN_FLIGHT_MAX = 8
UNPROVEN_MAX = 6
ACCOUNT_MAX = 4
"""Maximum number of attempts in flight of one account while lanes of several accounts exist."""
HOST_MAX = 2


class LanesMachine(RuleBasedStateMachine):
    """Lanes, and a model that records what they do."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[int] = Lanes(IN_FLIGHT_MAX, HOST_MAX)
        self.now = NOW_MS
        self.statistics = count()
        self.kinds: dict[int, AttemptKind] = {}
        self.waiting: dict[Lane[int], dict[AttemptKind, list[int]]] = defaultdict(
            lambda: {kind: [] for kind in AttemptKind}
        )
        self.in_flight: list[tuple[Lane[int], int]] = []
        self.starts: dict[Lane[int], list[tuple[int, int]]] = defaultdict(list)
        """The start times of attempts (ms) and their items, for each lane, since the rate of the lane last changed."""
        self.hosts: dict[Lane[int], str] = {}
        self.accounts: set[int] = set()
        self.host_max: dict[tuple[int, str], int] = defaultdict(lambda: HOST_MAX)
        self.passed_over: dict[object, set[object]] = defaultdict(set)
        """For each ready lane or account: the other lanes or accounts that were served while it waited."""

    def lane(self, endpoint: int) -> Lane[int]:
        lane = self.lanes.find(endpoint)
        if lane is None:
            account, gap = ENDPOINTS[endpoint]
            lane = self.lanes.lane(endpoint, account, HOSTS[endpoint])
            lane.proven = endpoint % 2 == 0
            self.accounts.add(account)
            self.hosts[lane] = HOSTS[endpoint]
            self.lanes.set_limits(lane, in_flight_max=2, start_interval_ms=gap)
            self.waiting[lane]
        return lane

    def in_flight_of(self, lane: Lane[int]) -> int:
        return sum(each is lane for each, _ in self.in_flight)

    def may_start(self, lane: Lane[int]) -> bool:
        """Whether a lane has work, a free slot and a share of its account, and is not stalled."""
        slots = 1 if lane.breaker.probe_at is not None else min(lane.window, lane.in_flight_max)
        has_work = any(self.waiting[lane].values())
        return has_work and self.in_flight_of(lane) < slots and not lane.is_stalled(self.now) and self.has_share(lane)

    def has_share(self, lane: Lane[int]) -> bool:
        """Whether the account may have one more attempt in flight, in total and to the lane's host."""
        account_max = ACCOUNT_MAX if len(self.accounts) > 1 else IN_FLIGHT_MAX
        of_account = [each for each, _ in self.in_flight if each.account == lane.account]
        host = self.hosts[lane]
        to_host = [each for each in of_account if self.hosts[each] == host]
        return len(of_account) < account_max and len(to_host) < self.host_max[lane.account, host]

    def in_good_standing(self, lane: Lane[int]) -> bool:
        """Whether a lane is proven and not overdue."""
        return lane.proven and not lane.is_overdue(self.now)

    def ready(self) -> set[Lane[int]]:
        """Return the lanes that are ready to start. If the process has a free slot, one of them must start."""
        unproven = sum(not self.in_good_standing(lane) for lane, _ in self.in_flight)
        return self.could_start(lambda lane: self.in_good_standing(lane) or unproven < UNPROVEN_MAX)

    def could_start(self, allowed: Callable[[Lane[int]], bool]) -> set[Lane[int]]:
        return {
            lane for lane in self.waiting if self.may_start(lane) and lane.next_start_at() <= self.now and allowed(lane)
        }

    def unproven_in_flight(self) -> int:
        return sum(not lane.proven for lane, _ in self.in_flight)

    @rule(endpoint=st.sampled_from(sorted(ENDPOINTS)), kind=st.sampled_from(AttemptKind), items=st.integers(1, 4))
    def push(self, endpoint: int, kind: AttemptKind, items: int) -> None:
        lane = self.lane(endpoint)
        for _ in range(items):
            item = next(self.statistics)
            self.kinds[item] = kind
            self.waiting[lane][kind].append(item)
            self.lanes.push(lane, item, kind)

    @rule(times=st.integers(1, 8))
    def pop(self, times: int) -> None:
        for _ in range(times):
            self.pop_one()

    def pop_one(self) -> None:
        ready = self.ready()
        unproven = self.unproven_in_flight()
        possible = self.could_start(lambda lane: lane.proven or unproven < UNPROVEN_MAX)
        found = self.lanes.pop(self.now)
        if found is None:
            assert not ready or len(self.in_flight) >= IN_FLIGHT_MAX
            if len(self.in_flight) < IN_FLIGHT_MAX:
                self.check_wake()
            return
        lane, item = found
        assert lane in possible
        assert len(self.in_flight) < IN_FLIGHT_MAX
        assert lane.proven or self.unproven_in_flight() < UNPROVEN_MAX
        if lane.breaker.probe_at is not None:
            assert self.in_flight_of(lane) == 0
            assert self.now >= lane.breaker.probe_at
        assert self.waiting[lane][self.kinds[item]].pop(0) == item
        self.in_flight.append((lane, item))
        self.starts[lane].append((self.now, item))
        self.check_rate(lane)
        self.check_turns(lane, ready)

    def check_wake(self) -> None:
        """Check that every lane that waits only for a time has a timer.

        A lane that also waits for a slot is checked only when a slot is free.
        """
        wake_at = self.lanes.next_start_at()
        has_room = self.unproven_in_flight() < UNPROVEN_MAX
        for lane in self.waiting:
            if self.may_start(lane) and lane.next_start_at() > self.now and (lane.proven or has_room):
                assert wake_at is not None
                assert self.now < wake_at <= lane.next_start_at()

    def check_rate(self, lane: Lane[int]) -> None:
        gap = lane.start_interval_ms
        starts = self.starts[lane]
        for back, (earlier, _) in enumerate(reversed(starts[:-1]), 1):
            assert self.now - earlier >= back * gap - LATENESS_CREDIT_MS - 0.01

    def check_turns(self, served: Lane[int], ready: set[Lane[int]]) -> None:
        """Check that no account, and no lane of an account, is served twice while another that is ready waits.

        The rule does not cover unproven and overdue lanes, which also wait for each other's slots.
        """
        proven = [lane for lane in ready if self.in_good_standing(lane)]
        accounts: set[object] = {lane.account for lane in proven}
        siblings: set[object] = {lane for lane in proven if lane.account == served.account}
        for winner, waiting in ((served.account, accounts), (served, siblings)):
            for other in waiting - {winner}:
                assert winner not in self.passed_over[other]
                self.passed_over[other].add(winner)
            self.passed_over[winner].clear()

    @invariant()
    def forget_lanes_that_are_not_ready(self) -> None:
        """Delete the `passed_over` entries of lanes and accounts that are no longer ready and cannot be served."""
        ready = [lane for lane in self.ready() if self.in_good_standing(lane)]
        alive: set[object] = {*ready, *(lane.account for lane in ready)}
        for other in list(self.passed_over):
            if other not in alive:
                del self.passed_over[other]

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), how=st.sampled_from(["delivered", "failed", "failed", "timed out", "never began"]))
    def attempt_ended(self, data: st.DataObject, how: str) -> None:
        lane, item = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        began = how != "never began" or (self.now, item) not in self.starts[lane][-1:]
        if how == "delivered":
            lane.breaker = lane.breaker.after_success(NOW_MS)
        elif how in ("failed", "timed out"):
            lane.breaker = lane.breaker.after_failure(self.now, timed_out=how == "timed out", rule=RULE)
        well = {"delivered": True, "timed out": False}.get(how)
        self.lanes.attempt_ended(lane, self.now, 2000 if began else 0, succeeded=well)
        if not began:
            self.starts[lane].pop()

    @rule(ms=st.sampled_from([1, 3, 20, 40, 95, 1000, 9000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @rule(endpoint=st.sampled_from(sorted(ENDPOINTS)), cap=st.integers(1, 6))
    def change_cap(self, endpoint: int, cap: int) -> None:
        lane = self.lane(endpoint)
        self.lanes.set_limits(lane, in_flight_max=cap, start_interval_ms=lane.start_interval_ms)
        self.note_host_max(lane)

    def note_host_max(self, lane: Lane[int]) -> None:
        key = lane.account, self.hosts[lane]
        self.host_max[key] = max(self.host_max[key], lane.in_flight_max)

    @rule(endpoint=st.sampled_from(sorted(ENDPOINTS)), host=st.sampled_from(sorted(set(HOSTS.values()))))
    def move_to_host(self, endpoint: int, host: str) -> None:
        lane = self.lane(endpoint)
        self.lanes.move_to_host(lane, host)
        self.hosts[lane] = host
        self.forget_unused_hosts()
        self.note_host_max(lane)

    def forget_unused_hosts(self) -> None:
        """Reset the limits of hosts without lanes, because the limit of a host ends with its last lane."""
        used = {(lane.account, host) for lane, host in self.hosts.items()}
        for key in set(self.host_max) - used:
            del self.host_max[key]

    @rule(endpoint=st.sampled_from(sorted(ENDPOINTS)), gap=st.sampled_from([0.0, 3.0, 40.0, 1000.0]))
    def change_rate(self, endpoint: int, gap: float) -> None:
        lane = self.lane(endpoint)
        self.lanes.set_limits(lane, in_flight_max=lane.in_flight_max, start_interval_ms=gap)
        self.starts[lane].clear()

    @rule(endpoint=st.sampled_from(sorted(ENDPOINTS)))
    def drop(self, endpoint: int) -> None:
        lane = self.lanes.find(endpoint)
        taken = self.lanes.drop(endpoint)
        if lane is None:
            assert taken == []
            return
        assert taken == [item for items in self.waiting.pop(lane).values() for item in items]
        self.passed_over.pop(lane, None)

    @rule()
    def empty_all(self) -> None:
        taken = [item for lane in self.lanes.all() for item in self.lanes.take_waiting(lane)]
        assert sorted(taken) == sorted(
            item for kinds in self.waiting.values() for each in kinds.values() for item in each
        )
        for kinds in self.waiting.values():
            for each in kinds.values():
                each.clear()

    @invariant()
    def counts_agree(self) -> None:
        assert self.lanes.in_flight == len(self.in_flight) <= IN_FLIGHT_MAX
        for lane, kinds in self.waiting.items():
            assert lane.waiting_count == sum(map(len, kinds.values()))
            assert lane.in_flight == self.in_flight_of(lane)
            if lane.breaker.probe_at is not None:
                assert lane.free_capacity(self.now) <= 1

    def teardown(self) -> None:
        """Check that all items that were pushed and not removed are popped once."""
        for _ in range(10_000):
            while self.in_flight:
                lane, _ = self.in_flight.pop()
                lane.breaker = lane.breaker.after_success(NOW_MS)
                self.lanes.attempt_ended(lane, self.now, 1000, succeeded=True)
            if not any(any(kinds.values()) for kinds in self.waiting.values()):
                return
            self.now += 1000
            self.pop_one()
        raise AssertionError("something waits for ever")


TestLanesInAnyOrder = LanesMachine.TestCase
TestLanesInAnyOrder.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


@given(
    lanes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 12)), min_size=1, max_size=8),
    in_flight_max=st.integers(1, 4),
)
def test_every_account_has_its_share(lanes: list[tuple[int, int]], in_flight_max: int) -> None:
    """If attempts run one after the other, the numbers of starts of accounts with work differ by at most one."""
    all_lanes: Lanes[int] = Lanes(in_flight_max)
    work: Counter[int] = Counter()
    for endpoint, (account, items) in enumerate(lanes):
        fill(all_lanes, lane_of(all_lanes, endpoint, account), items)
        work[account] += items
    served: Counter[int] = Counter()
    while (found := all_lanes.pop(NOW_MS)) is not None:
        lane, _ = found
        served[lane.account] += 1
        with_work = [account for account in work if served[account] < work[account]]
        assert max((served[a] for a in with_work), default=0) - min((served[a] for a in with_work), default=0) <= 1
        all_lanes.attempt_ended(lane, NOW_MS, 1000)
    assert served == work
