"""Warnings before client certificates expire, over simulated weeks."""

from tests.engines import Place

from uplift_server.core.people.notifications import NotificationKind
from uplift_server.core.security.endpoint_auth import ClientCertificate
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.maintenance.certificate_expiry import CHECK_EVERY_MS
from uplift_server.store import endpoints
from uplift_server.store.records import Account

from .endpoint_auth import set_auth
from .failing_owners import CONTACTS, actions, kinds, long_world, read_emails
from .world import DAY, World

EXPIRING = [(NotificationKind.CERTIFICATE_EXPIRING, contact) for contact in CONTACTS]
SLACK = CHECK_EVERY_MS


async def set_certificate(world: World, endpoint: LiveEndpoint, expires_at: int) -> None:
    await set_auth(world, endpoint, ClientCertificate("certificate", "key", "CN=a", "ab", expires_at))


async def with_certificates(world: World, *expiries: int) -> tuple[Account, list[LiveEndpoint]]:
    """Return an account whose endpoints have certificates that expire at these times."""
    account = await world.new_account(CONTACTS)
    found = []
    for number, expires_at in enumerate(expiries):
        found.append(await world.endpoint(f"h{number}.test", account=account))
        await set_certificate(world, found[-1], expires_at)
    return account, found


async def test_contacts_are_warned_30_and_7_days_before(place: Place) -> None:
    async with long_world(place) as world:
        expires_at = world.clock.now + 30 * DAY + 5 * SLACK
        account, _ = await with_certificates(world, expires_at)
        await world.run_for(4 * SLACK)
        assert await kinds(world) == []
        await world.run_for(2 * SLACK)
        assert await kinds(world) == EXPIRING
        world.clock.now += 23 * DAY - 4 * SLACK
        await world.run_for(2 * SLACK)
        assert await kinds(world) == EXPIRING
        await world.run_for(3 * SLACK)
        assert await kinds(world) == EXPIRING * 2
        world.clock.now += 10 * DAY
        await world.run_for(2 * SLACK)
        assert await kinds(world) == EXPIRING * 2
        assert {facts["expires_at"] for _, _, facts in await read_emails(world)} == {expires_at}
        assert [action for action, _ in await actions(world, account)] == ["endpoint.certificate_expiring"] * 2


async def test_one_email_lists_all_certificates_of_an_account(place: Place) -> None:
    async with long_world(place) as world:
        await with_certificates(world, *[world.clock.now + 20 * DAY] * 3)
        await world.run_for(2 * SLACK)
        assert await kinds(world) == EXPIRING
        assert [len(facts["others"]) for _, _, facts in await read_emails(world)] == [2, 2]


async def test_a_restart_repeats_no_warning(place: Place) -> None:
    async with long_world(place) as world:
        await with_certificates(world, world.clock.now + 5 * DAY)
        await world.run_for(SLACK)
        assert await kinds(world) == EXPIRING
        await world.restart()
        await world.run_for(3 * SLACK)
        assert await kinds(world) == EXPIRING


async def test_a_new_certificate_is_warned_about_again(place: Place) -> None:
    async with long_world(place) as world:
        _, [endpoint] = await with_certificates(world, world.clock.now + 5 * DAY)
        await world.run_for(SLACK)
        await set_certificate(world, endpoint, world.clock.now + 30 * DAY + 4 * SLACK)
        await world.run_for(3 * SLACK)
        assert await kinds(world) == EXPIRING
        await world.run_for(2 * SLACK)
        assert await kinds(world) == EXPIRING * 2


async def test_a_deleted_endpoint_has_no_warnings(place: Place) -> None:
    async with long_world(place) as world:
        account, [kept, deleted] = await with_certificates(world, *[world.clock.now + 30 * DAY + 4 * SLACK] * 2)
        await world.database.write(lambda c: endpoints.delete(c, account.seq, deleted.record.id, now=world.clock.now))
        await world.run_for(6 * SLACK)
        emails = await read_emails(world)
        assert [facts["endpoint"] for _, _, facts in emails] == [kept.id_text] * 2
        assert "others" not in emails[0][2]
