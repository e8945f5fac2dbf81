"""The engine's clock while the machine's clock changes."""

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.engines import Place

from uplift_server.core.lifecycle import Status
from uplift_server.delivery.clock import STORED_AHEAD_MS_MAX, SystemClock
from uplift_server.delivery.ingest import Draft
from uplift_server.store.hot_records import Appended
from uplift_server.store.schema import events

from .owner import Owner
from .world import SECOND, START, ScriptedSender, World, respond

MINUTE = 60 * SECOND
READ_EVERY_MS = 100


class Machine:
    """The two clocks of a machine, and the engine's clock that follows them."""

    def __init__(self) -> None:
        self.wall = START * 1_000_000
        self.monotonic = 5_000_000_000
        self.clock = SystemClock(lambda: self.wall, lambda: self.monotonic)
        self.clock.now_ms()

    def run(self, ms: int) -> int:
        """Advance both clocks. The engine reads its clock ten times per second. Return the engine's time."""
        now = self.clock.now_ms()
        while ms > 0:
            self.wall += min(ms, READ_EVERY_MS) * 1_000_000
            self.monotonic += min(ms, READ_EVERY_MS) * 1_000_000
            ms -= READ_EVERY_MS
            now = self.clock.now_ms()
        return now

    def set(self, ms: int) -> int:
        """Set the wall clock forward by `ms`, or back if `ms` is negative. Return the engine's time."""
        self.wall += ms * 1_000_000
        return self.clock.now_ms()


async def test_events_keep_their_order_after_the_clock_is_set_back(place: Place) -> None:
    """Covers single events, events of one request, and test events. A chosen ID does not affect later IDs."""
    async with World(place) as world:
        machine = Machine()
        world.clock.now_ms = machine.clock.now_ms  # type: ignore[method-assign] - the world's time stands still
        endpoint = await world.endpoint("one.test")
        draft = world.draft()
        stored = [await world.accept(100)]
        stored.append(await accept_in_one_request(world, draft))
        await Owner(world).test(endpoint.seq)
        stored.append([Appended(row.seq, row.id, row.created_at) for row in await newest(world)])
        machine.set(-MINUTE)
        stored.append(await world.accept(100))
        chosen = await world.accept(1, id=bytes.fromhex("ff" * 16))
        stored.append(await accept_in_one_request(world, draft))
        assert stored[-2][-1].created_at <= chosen[0].created_at <= stored[-1][0].created_at
        order = [(event.created_at, event.id) for events in stored for event in events]
        assert all(one < two for one, two in pairwise(order))
        assert all(one < two for (_, one), (_, two) in pairwise(order))


async def accept_in_one_request(world: World, draft: Draft) -> list[Appended]:
    stored = await world.parts.event_ingest.accept(world.account.seq, [draft] * 1000)
    assert isinstance(stored, list)
    return stored


async def newest(world: World) -> list[Any]:
    query = sa.select(events).order_by(events.c.seq.desc()).limit(1)
    return await world.database.read(lambda c: list(c.execute(query).all()))


@pytest.mark.parametrize(
    ("set_back_ms", "ahead_ms"),
    [(0, 1), (10 * MINUTE, 10 * MINUTE + 1), (STORED_AHEAD_MS_MAX, STORED_AHEAD_MS_MAX + 1), (90 * MINUTE, 0)],
    ids=["same millisecond", "set back", "one hour", "wrong clock before"],
)
def test_a_restarted_clock_continues_after_the_newest_event(set_back_ms: int, ahead_ms: int) -> None:
    machine = Machine()
    machine.wall -= set_back_ms * 1_000_000
    clock = SystemClock(lambda: machine.wall, lambda: machine.monotonic)
    clock.continue_after(START)
    assert clock.now_ms() == machine.wall // 1_000_000 + ahead_ms
    before = clock.now_ms()
    machine.monotonic += 1_000_000_000
    machine.wall += 1_000_000_000
    assert clock.now_ms() > before


def test_clock_returns_the_machine_time() -> None:
    machine = Machine()
    assert machine.run(1234) == START + 1234 == machine.clock.wall_ms()


def test_clock_follows_a_forward_step_immediately() -> None:
    machine = Machine()
    assert machine.set(10 * MINUTE) == START + 10 * MINUTE
    assert machine.run(1) == START + 10 * MINUTE + 1


def test_timers_fire_after_the_machine_slept() -> None:
    machine = Machine()
    machine.wall += 8 * 3600 * SECOND * 1_000_000
    assert machine.clock.now_ms() == START + 8 * 3600 * SECOND


def test_waits_continue_after_the_clock_is_set_back() -> None:
    machine = Machine()
    machine.run(1000)
    assert machine.set(-10 * MINUTE) == START + 1000
    assert machine.run(1000) == START + 1900
    assert machine.run(9000) == START + 10_000
    # Timestamps that other machines compare with their own clocks are from the wall clock.
    assert machine.clock.wall_ms() == START + 11_000 - 10 * MINUTE


def test_a_step_back_is_logged_once() -> None:
    machine = Machine()
    with capture_logs() as lines:
        machine.set(-999)
        machine.run(20 * SECOND)
        assert lines == []
        machine.set(-10 * MINUTE)
        machine.run(20 * SECOND)
    assert [(line["log_level"], line["behind_ms"]) for line in lines] == [("warning", 10 * MINUTE)]


def test_clock_catches_up_in_ten_times_the_step() -> None:
    machine = Machine()
    machine.set(-10 * MINUTE)
    machine.run(99 * MINUTE)
    assert machine.clock.now_ms() > machine.clock.wall_ms()
    machine.run(2 * MINUTE)
    assert machine.clock.now_ms() == machine.clock.wall_ms()
    assert machine.run(MINUTE) == machine.clock.wall_ms()


def test_a_second_step_back_extends_the_slew() -> None:
    machine = Machine()
    machine.set(-MINUTE)
    machine.run(1000)
    assert machine.set(-MINUTE) == START + 900
    assert machine.run(1000) == START + 1800


def test_a_later_step_back_starts_a_new_slew() -> None:
    machine = Machine()
    machine.set(-1)
    machine.run(MINUTE)
    assert machine.clock.now_ms() == machine.clock.wall_ms()
    before = machine.run(MINUTE)
    assert machine.set(-MINUTE) == before
    assert machine.run(1000) == before + 900


def test_a_step_forward_ends_the_slew() -> None:
    machine = Machine()
    machine.set(-MINUTE)
    machine.run(1000)
    assert machine.set(2 * MINUTE) == START + MINUTE + 1000 == machine.clock.wall_ms()


STEPS = st.lists(st.tuples(st.integers(-10_000_000, 10_000_000), st.integers(1, 10_000)), max_size=20)


@given(STEPS)
def test_clock_never_goes_back_lags_or_stops(steps: list[tuple[int, int]]) -> None:
    machine = Machine()
    last = machine.clock.now_ms()
    for step, elapsed in steps:
        stepped = machine.set(step)
        assert stepped >= max(last, machine.clock.wall_ms())
        last = machine.run(elapsed)
        assert last >= machine.clock.wall_ms()
        assert last - stepped >= elapsed * 9 // 10 - READ_EVERY_MS


async def test_a_scheduled_call_runs_on_time_after_the_clock_is_set_back() -> None:
    machine = Machine()
    machine.set(-10 * MINUTE)
    called = asyncio.Event()
    machine.clock.call_at(machine.clock.now_ms() + 10, called.set)
    async with asyncio.timeout(2):
        await called.wait()


# ---- the engine while the clock changes


@pytest.mark.parametrize("step_ms", [-10 * MINUTE, -SECOND, 10 * MINUTE])
async def test_signatures_use_the_machine_time(place: Place, step_ms: int) -> None:
    """A receiver rejects signatures with a timestamp that differs by minutes."""
    async with World(place) as world:
        await world.endpoint("one.test")
        world.clock.wall_ahead = step_ms
        await world.accept(1)
        [(_, _, request)] = world.sender.sent
        assert b"webhook-timestamp: %d\r\n" % ((START + step_ms) // 1000) in request.head


async def test_a_forward_step_ends_waits_within_one_scan(place: Place) -> None:
    """Timers use the monotonic clock, so without the scan, they would fire minutes late."""
    async with World(place, breaker_failures=3, delays_ms=[3600 * SECOND]) as world:
        await world.endpoint("one.test", lambda _: respond(500))
        await world.accept(20)
        await world.run_for(200 * SECOND)
        probe_at = world.parts.status.next_probe_at(1)
        assert probe_at is not None
        sent = len(world.sender.sent)
        step = probe_at - world.clock.now + 5
        assert step > 30 * SECOND
        for timer in world.clock._timers:
            timer.at_ms += step
        world.clock.now += step
        await world.run_for(SECOND)
        assert len(world.sender.sent) == sent + 1


class SteppedClock(SystemClock):
    """The engine's clock in real time, on a machine clock that the test sets."""

    def __init__(self) -> None:
        self.step_ms = 0
        self.waiting = 0
        self._timers: list[object] = []
        began = time.monotonic_ns()
        super().__init__(lambda: START * 1_000_000 + time.monotonic_ns() - began + self.step_ms * 1_000_000)

    @property
    def now(self) -> int:
        """The current time, as `World` reads it."""
        return self.now_ms()

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        self.waiting += 1
        try:
            await super().wait(event, timeout_ms)
        finally:
            self.waiting -= 1


class SteppedWorld(World):
    """A world in real time."""

    def __init__(self, place: Place, **settings: Any) -> None:
        super().__init__(place, scan_every_ms=100, **settings)
        self.clock: Any = SteppedClock()
        self.sender = ScriptedSender(self.clock, self.settings.timeouts.default_ms)


@pytest.mark.parametrize("step_ms", [-10 * MINUTE, -24 * 60 * MINUTE])
async def test_a_clock_set_back_does_not_delay_sends_probes_or_retries(place: Place, step_ms: int) -> None:
    async with SteppedWorld(place, breaker_failures=3, delays_ms=[300] * 3) as world:
        recovered = asyncio.Event()
        await world.endpoint("paced.test", rate_limit_per_second=20)
        probed = await world.endpoint("probed.test", lambda _: respond(200 if recovered.is_set() else 500))
        await world.accept(10)
        assert world.parts.status.next_probe_at(probed.seq) is not None
        assert len(world.sender.times("paced.test")) < 10
        recovered.set()
        world.clock.step_ms = step_ms
        async with asyncio.timeout(5):
            while await world.statuses() != {Status.DELIVERED: 20}:
                await asyncio.sleep(0.02)
        assert len(world.sender.times("paced.test")) == 10
        # Later events are sent immediately, and signed with the time of the machine.
        sent = len(world.sender.sent)
        await world.accept(1)
        # The rate-limited delivery may have to wait.
        async with asyncio.timeout(2):
            while len(world.sender.sent) < sent + 2:
                await asyncio.sleep(0.01)
        stamps = [int(each.head.split(b"webhook-timestamp: ")[1].split(b"\r\n")[0]) for _, _, each in world.sender.sent]
        assert abs(stamps[-1] * 1000 - world.clock.wall_ms()) <= 3000
        assert stamps[-1] - stamps[0] <= step_ms // 1000 + 10


async def test_leases_stay_valid_after_the_clock_is_set_back(place: Place) -> None:
    """Deliveries in flight when the clock is set back are not leased again, and their outcomes are not rejected."""
    async with SteppedWorld(place) as world:
        world.sender.latency_ms["slow.test"] = 500
        await world.endpoint("slow.test")
        await world.accept(4)
        world.clock.step_ms = -10 * MINUTE
        await asyncio.sleep(1)
        await world.settle()
        assert len(world.sender.sent) == 4
        assert await world.statuses() == {Status.DELIVERED: 4}
