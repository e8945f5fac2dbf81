"""The retry schedules and attempt timeouts of single endpoints."""

from itertools import pairwise

from msgspec import structs
from tests.engines import Place

from uplift_server.core.endpoint_settings import EndpointSettings
from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.lifecycle import FailedReason, Status
from uplift_server.core.scheduling.retry_schedule import JITTER

from .world import SECOND, START, World, respond

LATE_MS_MAX = 100
HOUR = 3600 * SECOND


def assert_waits(times: list[int], delays_ms: list[int]) -> None:
    """Check that the attempts followed each other after these delays, ±10% and up to LATE_MS_MAX late."""
    waits = [after - before for before, after in pairwise(times)]
    assert len(waits) == len(delays_ms)
    for wait, delay in zip(waits, delays_ms, strict=True):
        assert delay * (1 - JITTER) <= wait <= delay * (1 + JITTER) + LATE_MS_MAX, waits


async def test_an_endpoint_has_its_own_retry_schedule(place: Place) -> None:
    async with World(place, delays_ms=[5 * SECOND]) as world:
        await world.endpoint("own.test", lambda _: respond(500), retry_schedule_ms=(SECOND, 20 * SECOND, 2 * SECOND))
        await world.endpoint("server.test", lambda _: respond(500))
        await world.endpoint("once.test", lambda _: respond(500), retry_schedule_ms=())
        await world.accept()
        await world.run_for(60 * SECOND)
        assert_waits(world.sender.times("own.test"), [SECOND, 20 * SECOND, 2 * SECOND])
        assert_waits(world.sender.times("server.test"), [5 * SECOND])
        assert world.sender.times("once.test") == [START]
        rows = await world.deliveries()
        assert [(row.status, row.failed_reason) for row in rows] == [(Status.FAILED, FailedReason.EXHAUSTED)] * 3
        assert sorted(row.attempts_made for row in rows) == [1, 2, 4]


async def test_a_changed_schedule_applies_after_the_next_failure(place: Place) -> None:
    async with World(place, delays_ms=[5 * SECOND, HOUR]) as world:
        endpoint = await world.endpoint("1.test", lambda _: respond(500))
        await world.accept()
        longer = EndpointSettings(retry_schedule_ms=(SECOND, 2 * SECOND, 3 * SECOND))
        world.cache.put_endpoint(structs.replace(endpoint.record, settings=longer))
        await world.run_for(15 * SECOND)
        assert_waits(world.sender.times("1.test"), [5 * SECOND, 2 * SECOND, 3 * SECOND])

        await world.accept()
        world.cache.put_endpoint(structs.replace(endpoint.record, settings=EndpointSettings(retry_schedule_ms=())))
        await world.run_for(HOUR)
        assert [row.status for row in await world.deliveries()] == [Status.FAILED] * 2
        assert len(world.sender.sent) == 6


async def test_a_fault_of_the_proxy_does_not_use_the_only_attempt(place: Place) -> None:
    exchanges = [Exchange(START, 1000, failure=Failure.EGRESS, error="proxy refused"), respond(200)]
    async with World(place) as world:
        await world.endpoint("1.test", lambda _: exchanges.pop(0), retry_schedule_ms=())
        await world.accept()
        await world.run_for(90 * SECOND)
        assert_waits(world.sender.times("1.test"), [60 * SECOND])
        assert [row.status for row in await world.deliveries()] == [Status.DELIVERED]


async def test_an_endpoint_has_its_own_timeout_for_every_attempt(place: Place) -> None:
    async with World(place, delays_ms=[SECOND]) as world:
        await world.endpoint("short.test", lambda _: None, attempt_timeout_ms=2 * SECOND)
        await world.endpoint("long.test", lambda _: None, attempt_timeout_ms=25 * SECOND)
        await world.endpoint("server.test", lambda _: None)
        await world.accept()
        await world.run_for(SECOND)
        assert {host: request.timeout_ms for _, host, request in world.sender.sent} == {
            "short.test": 2 * SECOND,
            "long.test": 25 * SECOND,
            "server.test": 15 * SECOND,
        }
        await world.run_for(60 * SECOND)
        assert_waits(world.sender.times("short.test"), [3 * SECOND])
        assert_waits(world.sender.times("server.test"), [16 * SECOND])
        assert_waits(world.sender.times("long.test"), [26 * SECOND])
        assert {row.status for row in await world.deliveries()} == {Status.FAILED}


async def test_a_stored_timeout_above_the_operators_limit_is_shortened(place: Place) -> None:
    """A lease lasts only long enough for a timeout within the limit."""
    async with World(place, delays_ms=[SECOND]) as world:
        await world.endpoint("1.test", lambda _: None, attempt_timeout_ms=30 * SECOND)
        await world.accept()
        await world.run_for(SECOND)
        [(_, _, request)] = world.sender.sent
        assert request.timeout_ms == world.settings.timeouts.endpoint_ms_max == 25 * SECOND
