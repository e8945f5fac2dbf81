"""Paused, disabled and enabled endpoints, and their held deliveries."""

from itertools import pairwise
from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.health import Health
from uplift_server.core.lifecycle import FailedReason, Status
from uplift_server.store.endpoints import set_held_action
from uplift_server.store.records import DisabledReason, EndpointState, HeldAction

from .test_engine import header
from .world import DAY, HOUR, MINUTE, SECOND, START, World, respond

RATE = 50


def events_sent(world: World, since: int = 0) -> list[str]:
    """Return the IDs of the sent events in the order of their requests, from the index `since` on."""
    return [header(request, "webhook-id") for _, _, request in world.sender.sent[since:]]


def ids(stored: list[Any]) -> list[str]:
    """Return the IDs of accepted events, as requests show them."""
    found = []
    for each in stored:
        text = each.id.hex()
        found.append(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")
    return found


def max_within(times: list[int], ms: int) -> int:
    """Return the largest number of `times` within any period of `ms`."""
    return max(sum(start <= at < start + ms for at in times) for start in times)


async def test_held_deliveries_are_released_once_in_order_at_a_bounded_rate(place: Place) -> None:
    async with World(place, scan_every_ms=HOUR) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        stored = []
        for _ in range(14):
            stored += await world.accept(20)
            await world.run_for(DAY)
        assert world.sender.sent == []
        assert await world.statuses() == {Status.HELD: 280}
        enabled_at = world.clock.now
        await world.enable(endpoint.seq)
        fresh = await world.accept(1)
        await world.run_for(10 * SECOND)
        sent = events_sent(world)
        (fresh_id,) = ids(fresh)
        # New events do not wait for held ones.
        assert fresh_id in sent[:6]
        assert [each for each in sent if each != fresh_id] == ids(stored)
        assert await world.statuses() == {Status.DELIVERED: 281}
        times = world.sender.times("one.test")
        assert times[-1] - enabled_at >= 280 / RATE * SECOND - SECOND
        assert max_within(times, SECOND) <= RATE * 1.2
        assert all(row.attempts_made == 1 for row in await world.deliveries())


async def test_pending_deliveries_of_a_paused_endpoint_are_held(place: Place) -> None:
    """Covers deliveries in memory, due deliveries in the database, and deliveries scheduled for later."""
    async with World(place) as world:
        later = await world.endpoint("later.test", lambda _: respond(500))
        await world.accept(5)
        assert len(world.sender.sent) == 5
        endpoint = await world.endpoint("one.test", lambda _: None)
        await world.pause(later.seq)
        await world.accept(1200)
        # Four deliveries are in flight, some wait in memory, and the rest wait in the database.
        assert len(world.sender.times("one.test")) == 4
        await world.pause(endpoint.seq)
        await world.run_for(10 * SECOND)
        assert await world.statuses() == {Status.HELD: 1200 + 5 + 1196, Status.PENDING: 4}
        # Deliveries whose attempts in flight fail are held, too.
        await world.run_for(10 * MINUTE)
        assert await world.statuses() == {Status.HELD: 1200 + 5 + 1200}
        assert len(world.sender.sent) == 9
        assert all(row.due_at is None and row.completed_at is None for row in await world.deliveries())
        assert world.parts.lanes.bytes_held == 0


async def test_a_success_in_flight_during_a_pause_counts(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test")
        world.sender.latency_ms["one.test"] = 1000
        await world.accept(1)
        await world.pause(endpoint.seq)
        await world.run_for(2 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 1}
        # The health does not change during the pause.
        assert endpoint.health == Health()


async def test_the_last_failure_in_flight_during_a_pause_ends_the_delivery(place: Place) -> None:
    async with World(place, delays_ms=[]) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        world.sender.latency_ms["one.test"] = 1000
        await world.accept(1)
        await world.pause(endpoint.seq)
        await world.run_for(2 * SECOND)
        (row,) = await world.deliveries()
        assert (row.status, row.failed_reason) == (Status.FAILED, FailedReason.EXHAUSTED)


async def test_enabling_resets_health_and_breaker(place: Place) -> None:
    async with World(place, breaker_failures=3) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        await world.accept(10)
        assert world.parts.status.next_probe_at(endpoint.seq) is not None
        assert endpoint.health.status == "failing"
        world.sender.latency_ms["one.test"] = 3000
        await world.run_for(2 * SECOND)
        await world.deactivate(endpoint.seq, EndpointState.DISABLED, DisabledReason.FAILING)
        assert world.parts.status.next_probe_at(endpoint.seq) is None
        world.sender.scripts["one.test"] = lambda _: respond(200)
        await world.enable(endpoint.seq)
        assert endpoint.health == endpoint.record.health == Health()
        assert world.parts.status.next_probe_at(endpoint.seq) is None
        # A probe in flight before the change does not affect the new state.
        world.sender.latency_ms["one.test"] = 0
        await world.run_for(SECOND)
        assert await world.statuses() == {Status.DELIVERED: 9, Status.PENDING: 1}
        assert endpoint.health.status == "healthy"
        await world.run_for(2 * SECOND)
        assert endpoint.health.status == "healthy"
        await world.kill()
        assert world.cache.endpoints[endpoint.seq].health.status == "healthy"


async def test_health_counts_after_a_restart_with_a_clock_that_was_set_back(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        await world.pause(endpoint.seq)
        await world.enable(endpoint.seq)
        await world._abandon()
        world.clock.now -= HOUR
        await world._open()
        await world.accept(1)
        assert world.cache.endpoints[endpoint.seq].health.status == "failing"


async def test_kept_deliveries_stay_until_the_next_enable(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        kept = await world.accept(8)
        await world.enable(endpoint.seq, HeldAction.KEEP)
        fresh = await world.accept(2)
        await world.run_for(60 * SECOND)
        await world.restart()
        await world.run_for(60 * SECOND)
        assert events_sent(world) == ids(fresh)
        assert await world.statuses() == {Status.HELD: 8, Status.DELIVERED: 2}
        await set_action(world, endpoint.seq, HeldAction.SEND)
        await world.run_for(SECOND)
        assert events_sent(world) == ids(fresh) + ids(kept)


async def set_action(world: World, endpoint_seq: int, held: HeldAction) -> None:
    """Set the action for held deliveries of an enabled endpoint as the service does."""
    record = await world.database.write(lambda c: set_held_action(c, endpoint_seq, held))
    assert record is not None
    world.parts.changes.apply(record)


async def test_dropped_deliveries_are_cancelled_and_later_ones_are_sent(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        await world.accept(700)
        await world.enable(endpoint.seq, HeldAction.DROP)
        fresh = await world.accept(1)
        await world.kill()
        await world.run_for(5 * SECOND)
        assert await world.statuses() == {Status.CANCELLED: 700, Status.DELIVERED: 1}
        assert events_sent(world) == ids(fresh)
        assert {row.completed_at is None for row in await world.deliveries()} == {False}


@pytest.mark.parametrize("held", [HeldAction.DROP, HeldAction.KEEP])
async def test_an_enable_right_after_a_pause_applies_to_all_pending_deliveries(place: Place, held: HeldAction) -> None:
    """The deliveries wait in memory and in the database, and need more than one batch."""
    async with World(place, scan_every_ms=60 * SECOND) as world:
        world.sender.latency_ms["one.test"] = SECOND
        endpoint = await world.endpoint("one.test")
        await world.accept(1500)
        in_flight = world.parts.lanes.in_flight
        await world.pause(endpoint.seq)
        await world.enable(endpoint.seq, held)
        await world.run_for(10 * MINUTE)
        over = Status.CANCELLED if held is HeldAction.DROP else Status.HELD
        # Attempts in flight settle normally. The action applies to all others.
        assert await world.statuses() == {Status.DELIVERED: in_flight, over: 1500 - in_flight}
        assert len(world.sender.sent) == in_flight > 0


async def test_a_pause_during_a_drop_does_not_undo_it(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        await world.accept(900)
        await world.enable(endpoint.seq, HeldAction.DROP)
        await world.pause(endpoint.seq)
        later = await world.accept(10)
        await world.run_for(200)
        await world.kill()
        await world.enable(endpoint.seq)
        await world.run_for(5 * SECOND)
        assert await world.statuses() == {Status.CANCELLED: 900, Status.DELIVERED: 10}
        assert events_sent(world) == ids(later)


@pytest.mark.parametrize("killed", [False, True])
async def test_a_pause_after_a_drop_holds_deliveries_in_flight_during_the_drop(place: Place, killed: bool) -> None:
    """A drop applies only to deliveries that were held when the drop was requested."""
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        world.sender.latency_ms["one.test"] = SECOND
        await world.accept(1)
        await world.pause(endpoint.seq)
        await world.accept(9)
        await world.enable(endpoint.seq, HeldAction.DROP)
        await world.run_for(2 * SECOND)
        assert await world.statuses() == {Status.CANCELLED: 9, Status.PENDING: 1}
        if killed:
            await world.kill()
        await world.pause(endpoint.seq)
        await world.run_for(60 * SECOND)
        assert await world.statuses() == {Status.CANCELLED: 9, Status.HELD: 1}


async def pause_during_drop(world: World, endpoint_seq: int, count: int) -> None:
    await world.pause(endpoint_seq)
    await world.accept(count)
    await world.enable(endpoint_seq, HeldAction.DROP)
    await world.pause(endpoint_seq)
    assert (await world.statuses())[Status.HELD] > 300


async def test_a_delivery_that_fails_during_a_drop_is_not_dropped(place: Place) -> None:
    """The delivery was in flight when the drop was requested, and fails while the endpoint is paused again."""
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        world.sender.latency_ms["one.test"] = 50
        await world.accept(1)
        await pause_during_drop(world, endpoint.seq, 1500)
        await world.run_for(60 * SECOND)
        assert await world.statuses() == {Status.CANCELLED: 1500, Status.HELD: 1}


@pytest.mark.parametrize("way", ["kill", "restart"])
async def test_a_drop_continues_after_a_restart_of_a_paused_endpoint(place: Place, way: str) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test")
        await pause_during_drop(world, endpoint.seq, 1500)
        await getattr(world, way)()
        await world.run_for(60 * SECOND)
        assert await world.statuses() == {Status.CANCELLED: 1500}
        assert world.cache.endpoints[endpoint.seq].record.held_action is None


async def test_expired_held_deliveries_fail_at_the_release(place: Place) -> None:
    async with World(place, scan_every_ms=60 * SECOND) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        await world.accept(3, expires_at=START + 60 * SECOND)
        lasting = await world.accept(1, expires_at=START + DAY)
        await world.run_for(10 * MINUTE)
        assert await world.statuses() == {Status.HELD: 4}
        await world.enable(endpoint.seq)
        await world.run_for(SECOND)
        assert events_sent(world) == ids(lasting)
        rows = await world.deliveries()
        assert [row.status for row in rows] == [Status.FAILED] * 3 + [Status.DELIVERED]
        assert {(row.failed_reason, row.completed_at) for row in rows[:3]} == {
            (FailedReason.EXPIRED, rows[0].completed_at)
        }


async def test_pausing_again_stops_the_release(place: Place) -> None:
    async with World(place, scan_every_ms=60 * SECOND) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        stored = await world.accept(200)
        await world.enable(endpoint.seq)
        await world.run_for(2 * SECOND)
        await world.pause(endpoint.seq)
        before = len(world.sender.sent)
        assert 90 <= before <= 120
        await world.run_for(10 * MINUTE)
        assert len(world.sender.sent) == before
        assert await world.statuses() == {Status.DELIVERED: before, Status.HELD: 200 - before}
        await world.enable(endpoint.seq)
        await world.run_for(4 * SECOND)
        assert events_sent(world) == ids(stored)


async def test_held_retries_and_first_attempts_keep_their_order(place: Place) -> None:
    async with World(place, endpoint_in_flight_max=1, release_rate_per_second=1000) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        stored = await world.accept(30)
        await world.pause(endpoint.seq)
        stored += await world.accept(30)
        await world.run_for(10 * SECOND)
        before = len(world.sender.sent)
        world.sender.scripts["one.test"] = lambda _: respond(200)
        world.sender.latency_ms["one.test"] = 20
        await world.enable(endpoint.seq)
        await world.run_for(10 * SECOND)
        assert events_sent(world, before) == ids(stored)


async def test_a_delivery_that_waits_too_long_in_memory_keeps_its_place(place: Place) -> None:
    """The receiver hangs, so leases end at different times. Returned deliveries keep their place."""
    async with World(place, endpoint_in_flight_max=4, scan_every_ms=10 * SECOND) as world:
        endpoint = await world.endpoint("one.test", lambda _: None)
        await world.pause(endpoint.seq)
        stored = await world.accept(60)
        await world.enable(endpoint.seq)
        await world.run_for(HOUR)
        first_sent = list(dict.fromkeys(events_sent(world)))
        assert first_sent == ids(stored)


async def test_a_release_waits_for_a_slow_endpoint(place: Place) -> None:
    async with World(place, breaker_failures=3) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        await world.pause(endpoint.seq)
        await world.accept(500)
        await world.enable(endpoint.seq)
        await world.run_for(60 * SECOND)
        counts = await world.statuses()
        assert counts[Status.HELD] > 450
        world.sender.scripts["one.test"] = lambda _: respond(200)
        await world.run_for(10 * MINUTE)
        assert await world.statuses() == {Status.DELIVERED: 500}


async def test_held_deliveries_of_a_deleted_endpoint_are_cancelled_after_a_kill(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        await world.accept(700)
        await world.delete_endpoint(endpoint.seq)
        await world.kill()
        await world.run_for(5 * SECOND)
        assert await world.statuses() == {Status.CANCELLED: 700}


async def test_many_endpoints_are_held_and_released_concurrently(place: Place) -> None:
    async with World(place) as world:
        seqs = [(await world.endpoint(f"e{number}.test", lambda _: respond(500))).seq for number in range(40)]
        await world.accept(50)
        for seq in seqs:
            await world.pause(seq)
        await world.run_for(20 * SECOND)
        assert await world.statuses() == {Status.HELD: 2000}
        before = len(world.sender.sent)
        for number, seq in enumerate(seqs):
            world.sender.scripts[f"e{number}.test"] = lambda _: respond(200)
            await world.enable(seq)
        await world.run_for(3 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 2000}
        assert len(world.sender.sent) == before + 2000


async def test_a_rate_below_one_per_tick_is_respected(place: Place) -> None:
    async with World(place, release_rate_per_second=2) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        await world.accept(11)
        await world.enable(endpoint.seq)
        await world.run_for(10 * SECOND)
        times = world.sender.times("one.test")
        assert len(times) == 11
        assert all(400 <= later - earlier <= 700 for earlier, later in pairwise(times))
