"""One email per contact and transition lists the endpoints of an account that fail or recover together."""

from typing import Any

from tests.engines import Place

from uplift_server.core.people.notifications import NotificationKind
from uplift_server.delivery.health.transitions import GROUP_MS_MAX, RECOVERED_GROUP_MS_MAX
from uplift_server.store import outbox
from uplift_server.store.errors import Unavailable
from uplift_server.store.outbox import GROUP_MARGIN_MS
from uplift_server.store.records import EndpointState

from .failing_owners import (
    CONTACTS,
    DISABLED,
    RECOVERED,
    SLACK,
    WARNED,
    Owner,
    Receiver,
    actions,
    deliver_emails,
    kinds,
    long_world,
    owner_of,
    read_emails,
)
from .world import DAY, HOUR, World, respond


async def seven_endpoints(world: World) -> list[Owner]:
    """Return seven failing endpoints of one account."""
    first = await owner_of(world, "h0.test")
    owners = [first]
    for number in range(1, 7):
        host, receiver = f"h{number}.test", Receiver()
        endpoint = await world.endpoint(host, receiver, account=first.account)
        owners.append(Owner(first.account, endpoint, receiver, host))
    await world.accept(1, account=first.account)
    return owners


async def listed(world: World) -> list[set[str]]:
    """Return the IDs of the endpoints in each email, oldest email first."""
    return [
        {facts["endpoint"], *(each["endpoint"] for each in facts.get("others", ()))}
        for _, _, facts in await read_emails(world)
    ]


async def test_endpoints_that_fail_together_cause_one_email_per_contact(place: Place) -> None:
    async with long_world(place) as world:
        owners = await seven_endpoints(world)
        everyone = {each.endpoint.id_text for each in owners}
        await world.run_for(3 * DAY + SLACK)
        assert await kinds(world) == WARNED
        assert await listed(world) == [everyone] * 2
        assert all(each.endpoint.health.warned for each in owners)
        assert [action for action, _ in await actions(world, owners[0].account)] == ["endpoint.warned"] * 7
        now = world.clock.now
        assert await world.database.read(lambda c: outbox.due(c, now=now, limit=9)) == []
        await world.run_for(GROUP_MS_MAX)
        now = world.clock.now
        assert len(await world.database.read(lambda c: outbox.due(c, now=now, limit=9))) == len(CONTACTS)
        await deliver_emails(world)
        for each in owners[:3]:
            each.receiver.status = 200
        await world.accept(1, account=owners[0].account)
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED + RECOVERED
        assert (await listed(world))[2:] == [{each.endpoint.id_text for each in owners[:3]}] * 2
        await world.run_for(RECOVERED_GROUP_MS_MAX)
        await deliver_emails(world)
        await world.run_for(2 * DAY)
        assert await kinds(world) == WARNED + RECOVERED + DISABLED
        assert (await listed(world))[4:] == [{each.endpoint.id_text for each in owners[3:]}] * 2


async def test_an_endpoint_is_not_added_to_an_email_that_is_due(place: Place) -> None:
    """The email may be in flight."""
    async with long_world(place) as world:
        first = await owner_of(world)
        await world.accept(1, account=first.account)
        await world.run_for(GROUP_MS_MAX)
        other = await world.endpoint("other.test", lambda _: respond(500), account=first.account)
        await world.accept(1, account=first.account)
        await world.run_for(3 * DAY + SLACK)
        assert await kinds(world) == WARNED * 2
        assert await listed(world) == [{first.endpoint.id_text}] * 2 + [{other.id_text}] * 2


async def test_each_account_has_its_own_email(place: Place) -> None:
    async with long_world(place) as world:
        owners = [await owner_of(world, host) for host in ("one.test", "two.test")]
        for each in owners:
            await world.accept(1, account=each.account)
        await world.run_for(3 * DAY + SLACK)
        assert sorted(await kinds(world)) == sorted(WARNED * 2)
        assert sorted(map(sorted, await listed(world))) == sorted([each.endpoint.id_text] for each in owners * 2)


class StopsAfterThree:
    """A database that stores three warnings, and is unavailable for later ones."""

    warnings_left = 3

    async def write(self, body: Any) -> Any:
        if body.__name__ == "warn":
            if not self.warnings_left:
                raise Unavailable("the process is about to crash")
            self.warnings_left -= 1
        return await super().write(body)  # type: ignore[misc]


async def test_a_crash_between_two_transitions_loses_no_endpoint(place: Place) -> None:
    async with long_world(place, database=StopsAfterThree) as world:
        owners = await seven_endpoints(world)
        await world.run_for(3 * DAY + SLACK)
        assert [len(each) for each in await listed(world)] == [3, 3]
        await world.kill()
        world.database.warnings_left = 9
        await world.run_for(2 * SLACK)
        assert await kinds(world) == WARNED
        assert await listed(world) == [{each.endpoint.id_text for each in owners}] * 2


async def test_no_endpoint_of_a_group_is_disabled_before_its_warning_is_sent(place: Place) -> None:
    async with long_world(place) as world:
        owners = await seven_endpoints(world)
        await world.run_for(5 * DAY + 2 * SLACK)
        assert await kinds(world) == WARNED, "the mail server does not respond"
        assert all(each.endpoint.record.state is EndpointState.ENABLED for each in owners)
        await deliver_emails(world)
        await world.run_for(2 * DAY - SLACK)
        assert all(each.endpoint.record.state is EndpointState.ENABLED for each in owners)
        await world.run_for(2 * SLACK)
        assert all(each.endpoint.record.state is EndpointState.DISABLED for each in owners)


async def test_an_unsent_warning_does_not_list_endpoints_that_recovered(place: Place) -> None:
    async with long_world(place) as world:
        owners = await seven_endpoints(world)
        await world.run_for(3 * DAY + HOUR)
        for recovered in (owners[:3], owners[3:6]):
            for each in recovered:
                each.receiver.status = 200
            await world.accept(1, account=owners[0].account)
            await world.run_for(SLACK)
        warned = [facts for kind, _, facts in await read_emails(world) if kind is NotificationKind.ENDPOINT_WARNED]
        assert [facts["endpoint"] for facts in warned] == [owners[6].endpoint.id_text] * 2
        assert [facts["others"] for facts in warned] == [[], []]
        owners[6].receiver.status = 200
        await world.accept(1, account=owners[0].account)
        await world.run_for(SLACK)
        assert {kind for kind, _ in await kinds(world)} == {NotificationKind.ENDPOINT_RECOVERED}


async def test_an_unsent_warning_is_withdrawn_when_the_endpoint_is_disabled(place: Place) -> None:
    """The email to the first contact was sent in time."""
    async with long_world(place) as world:
        first = await owner_of(world)
        await world.accept(1, account=first.account)
        await world.run_for(3 * DAY + SLACK)
        sent_at = world.clock.now
        await world.database.write(lambda c: outbox.settle(c, [outbox.EmailResult(1, 1, sent_at=sent_at)]))
        await world.run_for(2 * DAY)
        assert await kinds(world) == WARNED[:1] + DISABLED


async def test_a_sent_email_about_another_endpoint_is_not_the_warning(place: Place) -> None:
    async with long_world(place) as world:
        first = await owner_of(world)
        await world.accept(1, account=first.account)
        # The first email is almost due when the other endpoint is warned.
        await world.run_for(GROUP_MS_MAX - GROUP_MARGIN_MS // 2)
        other = await world.endpoint("other.test", lambda _: respond(500), account=first.account)
        await world.accept(1, account=first.account)
        await world.run_for(3 * DAY - GROUP_MS_MAX // 2)
        await deliver_emails(world)
        assert await listed(world) == [{first.endpoint.id_text}] * 2
        await world.run_for(2 * DAY + GROUP_MS_MAX)
        assert (
            await listed(world)
            == [{first.endpoint.id_text}] * 2 + [{other.id_text}] * 2 + [{first.endpoint.id_text}] * 2
        ), "the mail server does not respond"
        assert other.record.state is EndpointState.ENABLED
        await deliver_emails(world)
        await world.run_for(2 * DAY + SLACK)
        assert other.record.state is EndpointState.DISABLED
