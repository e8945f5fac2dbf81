"""Health transitions despite kills, stops and database outages."""

from typing import Any

import sqlalchemy as sa
from tests.engines import Place

from uplift_server.store.errors import Unavailable
from uplift_server.store.records import EndpointState
from uplift_server.store.schema import endpoints as endpoints_table

from .failing_owners import (
    DISABLED,
    RECOVERED,
    SLACK,
    WARNED,
    actions,
    deliver_emails,
    kinds,
    long_world,
    owner_of,
    read_emails,
    stored,
)
from .world import DAY, HOUR, MINUTE, SECOND, START


async def test_restarts_and_kills_keep_times_and_repeat_no_email(place: Place) -> None:
    async with long_world(place) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        for day in range(6):
            await world.run_for(MINUTE)
            if day == 3:
                await deliver_emails(world)
            await world.run_for(DAY - HOUR - MINUTE)
            await (world.kill() if day % 2 else world.restart())
            await world.run_for(HOUR)
        assert await kinds(world) == WARNED + DISABLED
        at = dict(await actions(world, owner.account))
        assert START + 3 * DAY <= at["endpoint.warned"] <= START + 3 * DAY + SLACK
        assert START + 5 * DAY <= at["endpoint.disabled"] <= START + 5 * DAY + 2 * SLACK
        assert world.cache.endpoints[owner.endpoint.seq].record.state is EndpointState.DISABLED


async def test_due_deliveries_are_attempted_before_overdue_steps_after_a_start(
    place: Place,
) -> None:
    async with long_world(place) as world:
        recovered, failing = await owner_of(world), await owner_of(world, "gone.test")
        await world.accept(1, account=recovered.account)
        await world.accept(1, account=failing.account)
        await world.run_for(2 * DAY)
        await world._abandon()
        world.clock.now += 5 * DAY
        recovered.receiver.status = 200
        await world._open()
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED
        assert (await read_emails(world))[0][2]["endpoint"] == failing.endpoint.id_text
        # The time during which the server was stopped does not shorten the two days after the warning.
        await deliver_emails(world)
        await world.run_for(2 * DAY - 2 * SLACK)
        assert await kinds(world) == WARNED
        await world.run_for(3 * SLACK)
        assert await kinds(world) == WARNED + DISABLED


async def test_an_unsent_recovery_is_notified_at_the_next_start(place: Place) -> None:
    async with long_world(place) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY + HOUR)
        await deliver_emails(world)
        owner.receiver.status = 200
        await world.accept(1, account=owner.account)
        await world.kill()
        await world.run_for(2 * SLACK)
        assert await kinds(world) == WARNED + RECOVERED


async def test_a_pause_during_a_disable_takes_precedence(place: Place) -> None:
    """When the monitor acts, the pause is in the store, but not in the cache."""
    async with long_world(place) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(4 * DAY)
        await deliver_emails(world)
        await world.run_for(DAY - MINUTE)
        change = sa.update(endpoints_table).values(state=int(EndpointState.PAUSED))
        await world.database.write(lambda c: c.execute(change).rowcount)
        await world.run_for(2 * MINUTE)
        assert (await stored(world, owner)).state == EndpointState.PAUSED
        assert await kinds(world) == WARNED


async def test_an_unavailable_database_delays_steps_without_losing_any(place: Place) -> None:
    async with long_world(place) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY - 10 * SECOND)
        write = world.database.write

        def unavailable(_: Any) -> Any:
            raise Unavailable("no space is left on the disk")

        world.database.write = unavailable  # type: ignore[method-assign,assignment]
        await world.run_for(60 * SECOND)
        world.database.write = write  # type: ignore[method-assign]
        assert await kinds(world) == []
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED


class LosesResponse:
    """A database that loses one response of an operation."""

    lost_operation = ""
    """The name of the function whose next write loses its response; empty for none."""

    async def write(self, body: Any) -> Any:
        result = await super().write(body)  # type: ignore[misc]
        if body.__name__ == self.lost_operation:
            self.lost_operation = ""
            raise Unavailable("the answer was lost")
        return result


async def test_a_transition_is_notified_once_after_a_lost_response(place: Place) -> None:
    async with long_world(place, database=LosesResponse) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        world.database.lost_operation = "warn"
        await world.run_for(3 * DAY + HOUR)
        assert world.database.lost_operation == ""
        assert await kinds(world) == WARNED
        await deliver_emails(world)
        health = world.cache.endpoints[owner.endpoint.seq].health
        assert (health.warned, health.warned_at) == (True, (await stored(world, owner)).warned_at)

        owner.receiver.status = 200
        world.database.lost_operation = "recover"
        await world.accept(1, account=owner.account)
        await world.run_for(HOUR)
        assert world.database.lost_operation == ""
        assert await kinds(world) == WARNED + RECOVERED
        assert world.cache.endpoints[owner.endpoint.seq].health.warned_at is None
        recorded = [action for action, _ in await actions(world, owner.account)]
        assert recorded == ["endpoint.warned", "endpoint.recovered"]
