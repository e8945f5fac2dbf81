"""Operational events: each transition and each failure is reported once, and never to the endpoint itself."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from tests.engines import Place

from uplift_server.core.deliveries.health import HealthRule
from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.core.ids import ACCOUNT, delivery_id, prefixed, uuid_text
from uplift_server.core.timestamps import format_optional_timestamp
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.health.monitor import HealthSettings
from uplift_server.store import operational_events
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import Account, DisabledReason, EndpointState
from uplift_server.store.schema import events as events_table
from uplift_server.store.schema_operational import failed_deliveries
from uplift_server.store.schema_operational import operational_events as waiting_table

from .owner import Owner as Services
from .test_engine import resend
from .world import DAY, MINUTE, SECOND, START, World, respond

MONITOR = "monitor.test"
FAILING = "failing.test"
SLACK = 5 * SECOND
SOON = HealthSettings(HealthRule(MINUTE, 3 * MINUTE))
"""A warning after 1 minute of failures and disabling after 3 minutes, so that tests need not simulate days."""


class Received:
    """The operational events that a receiver got."""

    def __init__(self, world: World, host: str = MONITOR) -> None:
        self._world = world
        self._host = host

    @property
    def all(self) -> list[dict[str, Any]]:
        bodies = [json.loads(request.body) for _, host, request in self._world.sender.sent if host == self._host]
        return [body for body in bodies if body["type"] in OPERATIONAL_TYPES]

    @property
    def types(self) -> list[str]:
        return [body["type"] for body in self.all]

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [body["data"]["object"] for body in self.all]


def world_of(place: Place, **settings: Any) -> World:
    """Return a world whose deliveries are attempted every 10 seconds for 10 minutes."""
    return World(place, **{"delays_ms": [10 * SECOND] * 60, "health_settings": SOON} | settings)


async def prepare(world: World, *, account: Account | None = None) -> tuple[LiveEndpoint, LiveEndpoint]:
    """Create a failing endpoint, and an endpoint of the same or another account for operational events."""
    for name in sorted(OPERATIONAL_TYPES):
        await world.add_event_type(name)
    failing = await world.endpoint(
        FAILING, lambda _: respond(503), event_types=("a.*", "endpoint.*", "delivery.*"), description="Warehouse"
    )
    patterns = ("endpoint.*", "delivery.failed")
    monitor = await world.endpoint(MONITOR, lambda _: respond(200), event_types=patterns, account=account)
    return failing, monitor


async def rows(world: World) -> int:
    """Return the number of stored rows of unsent operational events and of failure counts."""
    query = sa.select(
        sa.select(sa.func.count()).select_from(waiting_table).scalar_subquery()
        + sa.select(sa.func.count()).select_from(failed_deliveries).scalar_subquery()
    )
    count: int = await world.database.read(lambda c: c.scalar(query))
    return count


async def stored_events(world: World) -> int:
    query = sa.select(sa.func.count()).select_from(events_table)
    count: int = await world.database.read(lambda c: c.scalar(query))
    return count


async def ordering_keys(world: World) -> set[str]:
    """Return the ordering keys of all events that have one."""
    query = sa.select(events_table.c.ordering_key).where(events_table.c.ordering_key.is_not(None))
    return set(await world.database.read(lambda c: c.scalars(query).all()))


async def test_each_transition_is_reported_once_and_not_to_the_endpoint_itself(place: Place) -> None:
    async with world_of(place) as world:
        failing, _ = await prepare(world)
        received = Received(world)
        await world.accept()
        await world.run_for(MINUTE - SECOND)
        assert received.types == []
        await world.run_for(SECOND + SLACK)
        assert received.types == ["endpoint.warned"]
        [warned] = received.objects
        assert warned["id"] == failing.id_text
        assert warned["account"] == prefixed(ACCOUNT, world.account.id)
        assert (warned["url"], warned["description"]) == (f"https://{FAILING}/hook", "Warehouse")
        assert (warned["state"], warned["disabled_reason"], warned["recovered_at"]) == ("enabled", None, None)
        assert warned["cause"] == "503 Service Unavailable"
        assert warned["failing_since"] == "2025-11-24T16:00:00.000Z"
        assert warned["disable_at"] is not None
        assert warned["dashboard_url"] == f"https://uplift.test/endpoints/{failing.id_text}"
        await world.run_for(3 * MINUTE)
        assert failing.record.state is EndpointState.DISABLED
        assert received.types == ["endpoint.warned", "endpoint.disabled"]
        assert (received.objects[1]["state"], received.objects[1]["disabled_reason"]) == ("disabled", "failing")
        await world.run_for(10 * MINUTE)
        assert received.types == ["endpoint.warned", "endpoint.disabled"]
        assert Received(world, FAILING).types == []
        assert await ordering_keys(world) == {failing.id_text}
        assert await rows(world) == 0


async def test_a_recovery_is_reported(place: Place) -> None:
    async with world_of(place) as world:
        failing, _ = await prepare(world)
        received = Received(world)
        await world.accept()
        await world.run_for(MINUTE + SLACK)
        world.sender.scripts[FAILING] = lambda _: respond(200)
        await world.run_for(MINUTE)
        assert received.types == ["endpoint.warned", "endpoint.recovered"]
        recovered = received.objects[1]
        assert (recovered["state"], recovered["failed_attempts"], recovered["cause"]) == ("enabled", 0, None)
        assert recovered["failing_since"] == "2025-11-24T16:00:00.000Z"
        assert recovered["recovered_at"] == format_optional_timestamp(failing.health.last_success_at)


async def test_a_410_response_is_reported(place: Place) -> None:
    async with world_of(place, health_settings=HealthSettings(HealthRule(DAY, 2 * DAY), gone_disables=True)) as world:
        await prepare(world)
        world.sender.scripts[FAILING] = lambda _: respond(410)
        await world.accept()
        await world.run_for(SLACK)
        received = Received(world)
        assert received.types == ["endpoint.disabled"]
        assert received.objects[0]["disabled_reason"] == "gone"


async def test_the_actions_of_people_are_not_reported(place: Place) -> None:
    async with world_of(place) as world:
        failing, _ = await prepare(world)
        await world.pause(failing.seq)
        await world.run_for(MINUTE)
        await world.enable(failing.seq)
        await world.run_for(MINUTE)
        await world.deactivate(failing.seq, EndpointState.DISABLED, DisabledReason.OPERATOR)
        await world.run_for(10 * MINUTE)
        assert Received(world).types == []


async def test_only_endpoints_that_name_the_types_receive_them(place: Place) -> None:
    async with world_of(place) as world:
        await prepare(world)
        await world.endpoint("everything.test")
        await world.endpoint("exact.test", event_types=("endpoint.warned",))
        await world.endpoint("others.test", event_types=("a.*", "delivery.*"))
        await world.endpoint("foreign.test", event_types=("endpoint.*",), account=await world.new_account())
        await world.accept()
        await world.run_for(MINUTE + SLACK)
        assert [Received(world, host).types for host in ("everything.test", "others.test", "foreign.test")] == [[]] * 3
        assert Received(world, "exact.test").types == ["endpoint.warned"]


async def test_nothing_is_stored_if_no_other_endpoint_is_subscribed(place: Place) -> None:
    async with world_of(place, delays_ms=()) as world:
        _, monitor = await prepare(world)
        await world.delete_endpoint(monitor.seq)
        await world.accept(3)
        await world.run_for(5 * MINUTE)
        assert await rows(world) == 0
        assert await stored_events(world) == 3


@pytest.mark.parametrize("name", ["uid", "id"])
async def test_the_operations_account_receives_the_events_of_every_account(place: Place, name: str) -> None:
    async with world_of(place) as world:
        operations = await world.new_account(uid="operations")
        world.settings = _with_operations(world, "operations" if name == "uid" else prefixed(ACCOUNT, operations.id))
        await world.restart()
        failing, _ = await prepare(world, account=operations)
        await world.endpoint("own.test", event_types=("endpoint.warned",))
        await world.accept()
        await world.run_for(MINUTE + SLACK)
        received, own = Received(world), Received(world, "own.test")
        assert received.types == own.types == ["endpoint.warned"]
        assert received.objects == own.objects
        assert received.objects[0]["account"] == failing.account_text
        assert received.all[0]["id"] != own.all[0]["id"]


async def test_an_endpoint_of_the_operations_account_receives_nothing_about_itself(place: Place) -> None:
    async with world_of(place) as world:
        world.settings = _with_operations(world, prefixed(ACCOUNT, world.account.id))
        await world.restart()
        await prepare(world)
        await world.accept()
        await world.run_for(MINUTE + SLACK)
        assert Received(world).types == ["endpoint.warned"]
        assert Received(world, FAILING).types == []


def _with_operations(world: World, account: str) -> Any:
    return replace(world.settings, operations_account=account)


async def test_failed_deliveries_are_reported_at_most_once_a_minute_with_their_number(place: Place) -> None:
    async with world_of(place, delays_ms=(), health_settings=HealthSettings(HealthRule(DAY, 2 * DAY))) as world:
        failing, _ = await prepare(world)
        received = Received(world)
        [first] = await world.accept()
        await world.run_for(SLACK)
        assert received.types == ["delivery.failed"]
        [found] = received.objects
        assert found["id"] == delivery_id(first.id, failing.record.id)
        assert found["account"] == failing.account_text
        assert (found["endpoint"], found["event"]) == (failing.id_text, uuid_text(first.id))
        assert (found["event_type"], found["count"], found["failed_reason"]) == ("a.b", 1, "exhausted")
        assert (found["attempts_made"], found["cause"]) == (1, "503 Service Unavailable")
        assert found["first_failed_at"] == found["failed_at"] == "2025-11-24T16:00:00.000Z"
        assert found["dashboard_url"] == f"https://uplift.test/deliveries/{found['id']}"
        for _ in range(10):
            await world.accept(10)
            await world.run_for(SECOND)
        [*_, last] = await world.accept(10)
        await world.run_for(30 * SECOND)
        assert len(received.all) == 1
        await world.run_for(20 * SECOND)
        assert [each["count"] for each in received.objects] == [1, 110]
        assert received.objects[1]["id"] == delivery_id(last.id, failing.record.id)
        assert received.objects[1]["first_failed_at"] == "2025-11-24T16:00:05.000Z"
        assert await ordering_keys(world) == {failing.id_text}
        await world.run_for(5 * MINUTE)
        assert len(received.all) == 2
        assert await rows(world) == 0
        await world.accept()
        await world.run_for(SLACK)
        assert [each["count"] for each in received.objects] == [1, 110, 1]


async def test_a_storm_of_failures_causes_one_event_per_minute(place: Place) -> None:
    async with world_of(place, delays_ms=(), health_settings=HealthSettings(HealthRule(DAY, 2 * DAY))) as world:
        await prepare(world)
        for _ in range(100):
            await world.accept(100)
            await world.run_for(2 * SECOND)
        await world.run_for(2 * MINUTE)
        counts = [each["count"] for each in Received(world).objects]
        assert sum(counts) == 10_000
        assert len(counts) <= 5


async def test_a_failed_delivery_of_an_operational_event_causes_no_event(place: Place) -> None:
    async with world_of(place, delays_ms=()) as world:
        _, monitor = await prepare(world)
        second = await world.endpoint("second.test", event_types=("endpoint.*", "delivery.*"))
        for host in (MONITOR, "second.test"):
            world.sender.scripts[host] = lambda _: respond(500)
        await world.accept()
        await world.run_for(10 * MINUTE)
        # Each monitor is sent one event about the failed delivery, and later warnings about other endpoints. Failed
        # deliveries of these events cause no further events.
        assert Received(world).types.count("delivery.failed") == 1
        assert Received(world, "second.test").types.count("delivery.failed") == 1
        sent = len(world.sender.sent)
        await world.run_for(10 * MINUTE)
        assert len(world.sender.sent) == sent
        assert await rows(world) == 0
        assert monitor.seq != second.seq


async def test_failed_tests_and_resends_are_not_reported(place: Place) -> None:
    async with world_of(place, delays_ms=()) as world:
        failing, _ = await prepare(world)
        [event] = await world.accept()
        await world.run_for(3 * MINUTE)
        assert Received(world).types.count("delivery.failed") == 1
        await Services(world).test(failing.seq)
        await resend(world, event.seq, failing.seq)
        await world.run_for(3 * MINUTE)
        assert Received(world).types.count("delivery.failed") == 1
        assert len(world.sender.times(FAILING)) == 3


async def test_an_expired_delivery_is_reported(place: Place) -> None:
    async with world_of(place) as world:
        await prepare(world)
        await world.accept(expires_at=START + 30 * SECOND)
        await world.run_for(MINUTE - SECOND)
        [found] = Received(world).objects
        assert (found["failed_reason"], found["attempts_made"]) == ("expired", len(world.sender.times(FAILING)))


async def _kill(world: World) -> None:
    await world.kill()


async def _restart(world: World) -> None:
    await world.restart()


@pytest.mark.parametrize("stop", [_kill, _restart])
async def test_an_event_survives_a_restart_before_it_is_sent(
    place: Place, stop: Callable[[World], Awaitable[None]]
) -> None:
    async with world_of(place, scan_every_ms=10 * MINUTE) as world:
        await prepare(world)
        await world.accept()
        await world.run_for(MINUTE + SLACK)
        assert await rows(world) == 1
        await stop(world)
        assert Received(world).types == []
        await world.run_for(10 * MINUTE)
        assert Received(world).types.count("endpoint.warned") == 1


async def test_an_event_is_sent_once_if_its_row_could_not_be_deleted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server crashed after it stored the event, or the database became unavailable."""

    def fail(*_: object) -> None:
        raise Unavailable("the disk is full")

    async with world_of(place, delays_ms=()) as world:
        await prepare(world)
        monkeypatch.setattr(operational_events, "delete", fail)
        await world.accept()
        await world.run_for(10 * SECOND)
        await world.accept(5)
        await world.run_for(10 * SECOND)
        assert Received(world).types == ["delivery.failed"]
        await world.kill()
        await world.run_for(10 * SECOND)
        monkeypatch.undo()
        await world.run_for(5 * MINUTE)
        failures = [each["data"]["object"] for each in Received(world).all if each["type"] == "delivery.failed"]
        assert [each["count"] for each in failures] == [1, 5]
        assert await rows(world) == 0
