"""Keys stop working at their expiry, and members can extend only keys with scopes that their role may grant."""

import pytest

from uplift_server.core.people.people import CONFIRMED_FOR_MS
from uplift_server.core.security.rights import Role
from uplift_server.core.timestamps import format_timestamp
from uplift_server.service.context import Listing
from uplift_server.service.errors import ConfirmationRequired, Forbidden, Invalid, Unauthorized
from uplift_server.service.keys import KeyDraft
from uplift_server.service.principals import Principal
from uplift_server.service.startup import prepare

from .world import ADDRESS, PROCESS_KEY, World

EMAIL = "ann@example.com"
HOUR = 3_600_000


def principal(world: World, text: str | None) -> Principal:
    """Return the principal of a key. Raises Unauthorized."""
    return world.services.authenticator.principal(f"Bearer {text}".encode())


async def create(world: World, kind: str, account: str, draft: KeyDraft) -> tuple[str, str]:
    """Create a key, and return its ID and its text."""
    if kind == "service key":
        service_key, text = await world.services.service_keys.create(world.operator, draft)
        assert text is not None
        return f"key_{service_key.id.hex()}", text
    key, text = await world.services.keys.create(world.operator, account, draft)
    assert text is not None
    return f"key_{key.id.hex()}", text


async def update(world: World, kind: str, account: str, key: str, draft: KeyDraft) -> None:
    if kind == "service key":
        await world.services.service_keys.update(world.operator, key, draft)
    else:
        await world.services.keys.update(world.operator, account, key, draft)


@pytest.mark.parametrize("kind", ["account key", "service key"])
async def test_a_key_works_until_its_expiry(world: World, kind: str) -> None:
    """The error says when the key expired. Restarts change nothing, and a later expiry makes the key work again."""
    account = await world.account()
    expiry = world.clock.now + HOUR
    draft = KeyDraft("short", ["events:read"], format_timestamp(expiry))
    key, text = await create(world, kind, account, draft)
    _, lasting = await create(world, kind, account, KeyDraft("lasting", ["events:read"]))
    world.clock.now = expiry - 1
    assert principal(world, text).name == "short"
    world.clock.now = expiry
    for _ in range(2):
        with pytest.raises(Unauthorized, match=f"The API key expired at {format_timestamp(expiry)}"):
            principal(world, text)
        assert principal(world, lasting).name == "lasting"
        world.cache.keys.clear()
        world.cache.service_keys.clear()
        await prepare(world.context, PROCESS_KEY, world.operator_key)
    await update(world, kind, account, key, KeyDraft("renamed"))
    with pytest.raises(Unauthorized, match="expired"):
        principal(world, text)
    await update(world, kind, account, key, KeyDraft(expires_at=format_timestamp(expiry + HOUR)))
    assert principal(world, text).name == "renamed"
    world.clock.now = expiry + HOUR
    with pytest.raises(Unauthorized, match="expired"):
        principal(world, text)
    await update(world, kind, account, key, KeyDraft(expires_at=None))
    assert principal(world, text).name == "renamed"


@pytest.mark.parametrize("past", ["2001-01-01T00:00:00Z", "now"])
async def test_an_expiry_must_be_in_the_future(world: World, past: str) -> None:
    text = format_timestamp(world.clock.now) if past == "now" else past
    with pytest.raises(Invalid) as rejected:
        await world.services.keys.create(world.operator, await world.account(), KeyDraft("late", expires_at=text))
    assert [(each.field, each.code) for each in rejected.value.problems] == [("expires_at", "expires_at_past")]


async def test_an_owner_cannot_extend_a_key_with_more_scopes(world: World) -> None:
    """An owner can rename a key that has more scopes than owners may grant. The operator can extend the key."""
    account = await world.account()
    draft = KeyDraft("sender", ["events:write"], format_timestamp(world.clock.now + HOUR))
    made, _ = await world.services.keys.create(world.operator, account, draft)
    key, later = f"key_{made.id.hex()}", KeyDraft(expires_at=format_timestamp(world.clock.now + 2 * HOUR))
    await world.member(account, EMAIL, Role.OWNER)
    owner = (await world.sign_in(EMAIL)).caller(account, ADDRESS)
    keys = world.services.keys
    for expiry in (later, KeyDraft(expires_at=None)):
        with pytest.raises(Forbidden, match="events:write"):
            await keys.update(owner, account, key, expiry)
    [unchanged] = (await keys.page(owner, account, Listing(9))).items
    assert unchanged == made
    assert (await keys.update(owner, account, key, KeyDraft("renamed"))).name == "renamed"
    assert (await keys.update(world.operator, account, key, later)).expires_at == world.clock.now + 2 * HOUR


async def test_extending_a_key_that_reads_secrets_requires_a_confirmed_password(world: World) -> None:
    account = await world.account()
    draft = KeyDraft("reader", ["secrets:read"], format_timestamp(world.clock.now + HOUR))
    made, _ = await world.services.keys.create(world.operator, account, draft)
    await world.member(account, EMAIL, Role.OWNER)
    visitor = await world.sign_in(EMAIL)
    world.clock.now += CONFIRMED_FOR_MS
    with pytest.raises(ConfirmationRequired):
        await world.services.keys.update(
            visitor.caller(account, ADDRESS), account, f"key_{made.id.hex()}", KeyDraft(expires_at=None)
        )


@pytest.mark.parametrize("role", [Role.MEMBER, Role.MANAGER])
async def test_other_members_cannot_update_keys(world: World, role: Role) -> None:
    account = await world.account()
    made, _ = await world.services.keys.create(world.operator, account, KeyDraft("mine"))
    await world.member(account, EMAIL, role)
    member = (await world.sign_in(EMAIL)).caller(account, ADDRESS)
    with pytest.raises(Forbidden):
        await world.services.keys.update(member, account, f"key_{made.id.hex()}", KeyDraft("theirs"))
