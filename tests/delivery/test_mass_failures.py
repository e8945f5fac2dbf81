"""During a mass failure, no endpoint is warned or disabled."""

from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.people.notifications import NotificationKind
from uplift_server.delivery.health.monitor import HealthSettings
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import EndpointState

from .failing_owners import (
    ENDED,
    RULE,
    SLACK,
    WARNED,
    Owner,
    actions,
    deliver_emails,
    kinds,
    long_world,
    owner_of,
    read_emails,
    stored,
)
from .test_health_monitor_interrupted import LosesResponse
from .world import DAY, HOUR, SECOND, START, World


async def create_owners(world: World, count: int) -> list[Owner]:
    return [await owner_of(world, f"e{n}.test", ("x@club.example",)) for n in range(count)]


async def accept_for_each(world: World, owners: list[Owner]) -> None:
    for owner in owners:
        await world.accept(1, account=owner.account)


async def test_a_mass_failure_disables_no_endpoint_and_notifies_the_operator(place: Place) -> None:
    """18 of 20 endpoints fail, and 16 recover. For the two others, the time of the mass failure does not count."""
    async with long_world(place) as world:
        owners = await create_owners(world, 20)
        for owner in owners[18:]:
            owner.receiver.status = 200
        await accept_for_each(world, owners)
        await world.run_for(SLACK)
        assert await kinds(world) == [(NotificationKind.MASS_FAILURE_BEGAN, "ops@uplift.example")]
        facts = (await read_emails(world))[0][2]
        assert (facts["since"], facts["endpoints"], facts["attempted"]) == (START, 18, 20)
        assert facts["causes"] == {"503 Service Unavailable": 18}
        assert (
            world.parts.status.warn_at(owners[0].endpoint.seq)
            is world.parts.status.disable_at(owners[0].endpoint.seq)
            is None
        )
        outage = world.parts.status.outage
        assert outage is not None
        assert (outage.since, outage.endpoints) == (START, 18)
        await world.run_for(3 * DAY)
        await accept_for_each(world, owners[18:])
        await world.kill()
        await world.run_for(3 * DAY)
        assert len(await kinds(world)) == 1
        for owner in owners[2:18]:
            owner.receiver.status = 200
        await accept_for_each(world, owners[2:18])
        ended_at = world.clock.now
        await world.run_for(2 * SLACK)
        assert (await kinds(world))[1:] == [(NotificationKind.MASS_FAILURE_ENDED, "ops@uplift.example")]
        assert world.parts.status.outage is None
        facts = (await read_emails(world))[-1][2]
        assert (facts["since"], facts["endpoints"], facts["still_failing"]) == (START, 18, 2)
        assert ended_at <= facts["ended_at"] <= ended_at + SLACK
        live = [world.cache.endpoints[owner.endpoint.seq] for owner in owners]
        assert all(endpoint.record.state is EndpointState.ENABLED for endpoint in live)
        await world.run_for(3 * DAY - 3 * SLACK)
        assert len(await kinds(world)) == 2
        await world.run_for(3 * SLACK)
        assert (await kinds(world))[2:] == [(NotificationKind.ENDPOINT_WARNED, "x@club.example")] * 2
        await deliver_emails(world)
        await world.run_for(2 * DAY - 3 * SLACK)
        assert all(endpoint.record.state is EndpointState.ENABLED for endpoint in live)
        await world.run_for(4 * SLACK)
        assert [endpoint.record.state is EndpointState.ENABLED for endpoint in live] == [False] * 2 + [True] * 18
        system = [name for name, _ in await actions(world) if name.startswith("mass_failure")]
        assert system == ["mass_failure.began", ENDED]


@pytest.mark.parametrize(("failing", "healthy"), [(9, 0), (10, 11)])
async def test_fewer_than_ten_or_half_failing_is_no_mass_failure(place: Place, failing: int, healthy: int) -> None:
    async with long_world(place) as world:
        owners = await create_owners(world, failing + healthy)
        for owner in owners[failing:]:
            owner.receiver.status = 200
        # Healthy endpoints come first, because endpoints without attempts are not evaluated.
        await accept_for_each(world, owners[failing:])
        await accept_for_each(world, owners[:failing])
        for _ in range(3):
            await world.run_for(DAY - HOUR)
            await accept_for_each(world, owners[failing:])
            await world.run_for(HOUR)
        await world.run_for(SLACK)
        assert await kinds(world) == [(NotificationKind.ENDPOINT_WARNED, "x@club.example")] * failing


async def test_failing_endpoints_without_recent_attempts_begin_no_mass_failure(place: Place) -> None:
    async with long_world(place, delays_ms=[SECOND] * 6) as world:
        owners = await create_owners(world, 21)
        for owner in owners[10:]:
            owner.receiver.status = 200
        await accept_for_each(world, owners[10:])
        await accept_for_each(world, owners[:10])
        await world.run_for(HOUR)
        await accept_for_each(world, owners[10:])
        await world.run_for(DAY - HOUR // 2)
        await accept_for_each(world, owners[20:])
        await world.run_for(DAY - HOUR)
        assert await kinds(world) == []


async def test_a_mass_failure_ends_if_its_endpoints_get_no_more_attempts(place: Place) -> None:
    async with long_world(place, delays_ms=[SECOND] * 6) as world:
        owners = await create_owners(world, 12)
        await accept_for_each(world, owners)
        await world.run_for(DAY - HOUR)
        assert world.parts.status.outage is not None
        await world.run_for(2 * HOUR)
        assert world.parts.status.outage is None
        excused = owners[0].endpoint.health.excused_ms
        assert DAY <= excused <= DAY + HOUR
        assert world.parts.status.warn_at(owners[0].endpoint.seq) == START + 3 * DAY + excused


async def test_a_mass_failure_excuses_only_its_own_duration(place: Place) -> None:
    """After a mass failure of one hour, an endpoint that had already failed for a day gets its warning an hour late."""
    async with long_world(place) as world:
        early = await owner_of(world)
        await world.accept(1, account=early.account)
        await world.run_for(DAY)
        owners = await create_owners(world, 12)
        await accept_for_each(world, owners)
        began_at = world.clock.now
        await world.run_for(HOUR)
        for owner in owners:
            owner.receiver.status = 200
        await accept_for_each(world, owners)
        await world.run_for(2 * SLACK)
        names = dict(await actions(world))
        excused = names[ENDED] - began_at
        assert HOUR <= excused <= HOUR + SLACK
        assert early.endpoint.health.excused_ms == excused
        await world.run_for(START + 3 * DAY + excused - world.clock.now - SECOND)
        assert WARNED[0] not in await kinds(world)
        await world.run_for(SLACK)
        assert (await kinds(world))[-2:] == WARNED


async def test_the_onset_ignores_endpoints_that_failed_before(place: Place) -> None:
    """Two endpoints begin to fail half an hour before ten others. The onset is the time when the ten begin to fail."""
    async with long_world(place) as world:
        for owner in await create_owners(world, 2):
            await world.accept(1, account=owner.account)
        await world.run_for(HOUR // 2)
        onset = world.clock.now
        await accept_for_each(world, await create_owners(world, 10))
        await world.run_for(SLACK)
        [(_, _, facts)] = await read_emails(world)
        assert facts["since"] == onset
        await world.kill()
        outage = world.parts.status.outage
        assert outage is not None
        assert (outage.since, outage.onset) == (START, onset)


async def test_a_returning_mass_failure_notifies_and_excuses_once(place: Place) -> None:
    async with long_world(place) as world:
        owners = await create_owners(world, 10)
        await accept_for_each(world, owners)
        await world.run_for(HOUR // 2)
        owners[0].receiver.status = 200
        await world.accept(1, account=owners[0].account)
        await world.run_for(SLACK)
        owners[0].receiver.status = 500
        await world.accept(1, account=owners[0].account)
        await world.run_for(SLACK)
        names = [name for name, _ in await actions(world)]
        assert names == ["mass_failure.began", ENDED, "mass_failure.began"]
        expected = [
            (NotificationKind.MASS_FAILURE_BEGAN, "ops@uplift.example"),
            (NotificationKind.MASS_FAILURE_ENDED, "ops@uplift.example"),
        ]
        assert await kinds(world) == expected
        await world.run_for(HOUR // 2)
        for owner in owners[:5]:
            owner.receiver.status = 200
            await world.accept(1, account=owner.account)
        await world.run_for(2 * SLACK)
        at = await actions(world)
        assert [name for name, _ in at][3:] == [ENDED]
        excused = owners[-1].endpoint.health.excused_ms
        assert at[-1][1] - START - SLACK <= excused <= at[-1][1] - START
        assert await kinds(world) == expected


async def test_a_mass_failure_ends_once_after_a_failed_write(place: Place) -> None:
    async with long_world(place) as world:
        owners = await create_owners(world, 12)
        await accept_for_each(world, owners)
        await world.run_for(HOUR)
        write = world.database.write

        def unavailable(_: Any) -> Any:
            raise Unavailable("no space is left on the disk")

        for owner in owners[:8]:
            owner.receiver.status = 200
        await accept_for_each(world, owners[:8])
        world.database.write = unavailable  # type: ignore[method-assign,assignment]
        await world.run_for(HOUR // 2)
        world.database.write = write  # type: ignore[method-assign]
        await world.run_for(SLACK)
        assert [name for name, _ in await actions(world)] == ["mass_failure.began", ENDED]
        excused = owners[-1].endpoint.health.excused_ms
        assert HOUR <= excused <= HOUR + SLACK
        assert (await stored(world, owners[-1])).excused_ms == excused


@pytest.mark.parametrize("verb", ["begin", "end"])
async def test_a_lost_response_notifies_and_excuses_once(place: Place, verb: str) -> None:
    async with long_world(place, database=LosesResponse) as world:
        owners = await create_owners(world, 12)
        world.database.lost_operation = verb
        await accept_for_each(world, owners)
        await world.run_for(HOUR)
        for owner in owners[:8]:
            owner.receiver.status = 200
        await accept_for_each(world, owners[:8])
        await world.run_for(HOUR // 2)
        assert world.database.lost_operation == ""
        assert [name for name, _ in await actions(world)] == ["mass_failure.began", ENDED]
        assert [kind for kind, _ in await kinds(world)] == [
            NotificationKind.MASS_FAILURE_BEGAN, NotificationKind.MASS_FAILURE_ENDED,
        ]  # fmt: skip
        excused = owners[-1].endpoint.health.excused_ms
        assert HOUR <= excused <= HOUR + SLACK
        assert (await stored(world, owners[-1])).excused_ms == excused


async def test_a_410_response_disables_no_endpoint_during_a_mass_failure(place: Place) -> None:
    """A local proxy responds with 410 for all endpoints."""
    async with long_world(place, health_settings=HealthSettings(RULE, gone_disables=True)) as world:
        owners = await create_owners(world, 12)
        for owner in owners:
            owner.receiver.status = 410
        for owner in owners:
            await world.accept(1, account=owner.account)
        await world.run_for(DAY)
        states = {owner.endpoint.record.state for owner in owners}
        assert states == {EndpointState.ENABLED}


async def test_a_410_response_during_a_mass_failure_disables_only_if_it_is_the_latest_response(place: Place) -> None:
    async with long_world(place, health_settings=HealthSettings(RULE, gone_disables=True)) as world:
        owners = await create_owners(world, 12)
        for owner in owners:
            owner.receiver.status = 410
        await accept_for_each(world, owners)
        await world.run_for(SLACK)
        for owner in owners[1:]:
            owner.receiver.status = 200
        owners[1].receiver.status = 503
        await accept_for_each(world, owners)
        await world.run_for(SLACK)
        assert world.parts.status.outage is None
        states = [owner.endpoint.record.state for owner in owners]
        assert states == [EndpointState.DISABLED] + [EndpointState.ENABLED] * 11
