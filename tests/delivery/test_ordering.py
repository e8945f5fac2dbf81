"""Ordered delivery under a virtual clock: an order group has one delivery at a time, without delays in between."""

from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.ordering import Ordering
from uplift_server.core.http.exchange import Exchange
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.delivery.sending.http.request import Request
from uplift_server.service import errors
from uplift_server.store.records import HeldAction

from .owner import Owner
from .test_engine import header
from .test_replays import replay, stored
from .world import HOUR, MINUTE, SECOND, START, World, respond

HOST = "one.test"


def arrivals(world: World) -> list[tuple[int, str]]:
    """Return the time of each request (ms after START) and the ID of its event."""
    return [(at - START, header(request, "webhook-id")) for at, _, request in world.sender.sent]


async def accept(world: World, *keys: str | None) -> list[str]:
    """Accept an event for each ordering key. Return their IDs."""
    found = []
    for key in keys:
        [appended] = await world.accept(ordering_key=key)
        found.append(world_id(appended.id))
    return found


def world_id(event_id: bytes) -> str:
    """Return the text of an event ID."""
    text = event_id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


async def test_the_next_delivery_starts_when_the_previous_one_ends(place: Place) -> None:
    """The next delivery does not wait for a scan of the dispatcher."""
    async with World(place, scan_every_ms=MINUTE) as world:
        await world.endpoint(HOST, ordering=Ordering.ENDPOINT)
        world.sender.latency_ms[HOST] = 70
        ids = await accept(world, "a", None, "b", None)
        await world.run_for(SECOND)
        assert arrivals(world) == [(70 * place, event_id) for place, event_id in enumerate(ids)]
        assert world.sender.in_flight_most[HOST] == 1


async def test_keys_are_ordered_in_parallel(place: Place) -> None:
    """Events without a key are not ordered."""
    async with World(place, scan_every_ms=MINUTE) as world:
        await world.endpoint(HOST, ordering=Ordering.KEY)
        world.sender.latency_ms[HOST] = 70
        a1, b1, a2, x, b2, y = await accept(world, "a", "b", "a", None, "b", None)
        await world.run_for(SECOND)
        assert sorted(arrivals(world)) == sorted([(0, a1), (0, b1), (0, x), (0, y), (70, a2), (70, b2)])


async def test_a_retry_delays_only_its_group(place: Place) -> None:
    failing: set[str] = set()

    def script(request: Request) -> Exchange:
        return respond(500 if header(request, "webhook-id") in failing else 200)

    async with World(place, delays_ms=[MINUTE]) as world:
        await world.endpoint(HOST, script, ordering=Ordering.KEY)
        await world.pause(1)
        a1, a2, b1 = await accept(world, "a", "a", "b")
        failing.add(a1)
        await world.enable(1)
        await world.run_for(30 * SECOND)
        assert [event_id for _, event_id in arrivals(world)] == [a1, b1]
        await world.run_for(2 * MINUTE)
        assert [event_id for _, event_id in arrivals(world)][2:] == [a1, a2]
        assert await world.statuses() == {Status.FAILED: 1, Status.DELIVERED: 2}


async def test_a_cancelled_delivery_is_skipped_at_once(place: Place) -> None:
    async with World(place, delays_ms=[HOUR], scan_every_ms=MINUTE) as world:
        endpoint = await world.endpoint(HOST, lambda _: respond(500), ordering=Ordering.ENDPOINT)
        [first, second] = [(await world.accept())[0] for _ in range(2)]
        owner = Owner(world)
        with pytest.raises(errors.Conflict, match=f"waits for {owner.delivery(first.id, endpoint.seq)}"):
            await owner.resend(second.id, endpoint.seq)
        world.sender.scripts[HOST] = lambda _: respond(200)
        await owner.cancel(first.id, endpoint.seq)
        await world.run_for(0)
        assert [event_id for _, event_id in arrivals(world)] == [world_id(first.id), world_id(second.id)]


@pytest.mark.parametrize("held", [HeldAction.SEND, HeldAction.KEEP, HeldAction.DROP])
async def test_held_deliveries_stay_ahead_of_new_ones(place: Place, held: HeldAction) -> None:
    """If held deliveries are kept, they block new ones until they are dropped."""
    async with World(place) as world:
        endpoint = await world.endpoint(HOST, ordering=Ordering.ENDPOINT)
        await world.pause(endpoint.seq)
        ids = await accept(world, None, None, None)
        await world.enable(endpoint.seq, held)
        later = await accept(world, None)
        await world.run_for(MINUTE)
        if held is HeldAction.KEEP:
            assert arrivals(world) == []
            await Owner(world).enable(endpoint.seq, HeldAction.DROP)
            await world.run_for(MINUTE)
        expected = [*ids, *later] if held is HeldAction.SEND else later
        assert [event_id for _, event_id in arrivals(world)] == expected


async def test_a_replay_keeps_the_order(place: Place) -> None:
    """The order includes the deliveries that the replay creates for missing events."""
    async with World(place, delays_ms=()) as world:
        await world.accept()
        endpoint = await world.endpoint(HOST, lambda _: respond(500), ordering=Ordering.ENDPOINT)
        await world.accept(4)
        await world.run_for(SECOND)
        assert await world.statuses() == {Status.FAILED: 4}
        world.sender.scripts[HOST] = lambda _: respond(200)
        world.sender.latency_ms[HOST] = 50
        job = await replay(world, endpoint, rate=100, missing=True)
        await world.run_for(MINUTE)
        counted: Any = await stored(world, job)
        assert (counted.total, counted.delivered, counted.failed, counted.skipped) == (5, 5, 0, 0)
        order = [row.event_seq for row in await world.attempts() if row.trigger == Trigger.REPLAY]
        assert order == sorted(order)
        assert world.sender.in_flight_most[HOST] == 1
        groups = {row.order_group for row in await world.deliveries()}
        assert groups == {0}
