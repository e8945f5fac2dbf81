"""Members manage keys and contacts only in their own account."""

import pytest

from uplift_server.core.limits import CONTACT_EMAILS_MAX
from uplift_server.core.people.people import CONFIRMED_FOR_MS
from uplift_server.core.security.rights import SCOPES_OF_ROLE, Right, Role
from uplift_server.core.security.scopes import Scope
from uplift_server.service.accounts import AccountDraft
from uplift_server.service.context import Listing
from uplift_server.service.errors import ConfirmationRequired, Forbidden, Invalid, NotFound
from uplift_server.service.keys import KeyDraft
from uplift_server.service.principals import Caller

from .world import ADDRESS, World

EMAIL = "ann@example.com"
MANAGING = {Role.ADMIN, Role.OWNER}


async def caller(world: World, account: str, role: Role) -> Caller:
    """Create a member, sign the member in, and return the member as a caller of the service."""
    await world.member(account, EMAIL, role)
    return (await world.sign_in(EMAIL)).caller(account, ADDRESS)


@pytest.mark.parametrize("role", Role)
async def test_only_admins_and_owners_manage_keys_and_contacts(world: World, role: Role) -> None:
    account = await world.account()
    member = await caller(world, account, role)
    accounts, keys = world.services.accounts, world.services.keys
    draft = KeyDraft("mine", ["events:read"])
    contacts = AccountDraft(contact_emails=[EMAIL])
    created, _ = await keys.create(world.operator, account, draft)
    name = f"key_{created.id.hex()}"
    if role in MANAGING:
        assert member.principal.has_right(Right.KEYS_MANAGE)
        await keys.create(member, account, draft)
        assert len((await keys.page(member, account, Listing(9))).items) == 2
        await keys.revoke(member, account, name)
        assert (await accounts.update(member, account, contacts)).contact_emails == (EMAIL,)
        entries = [(each.action, each.actor.name) for each in await world.audited(account)]
        assert entries[-3:] == [("key.created", EMAIL), ("key.revoked", EMAIL), ("account.changed", EMAIL)]
        return
    for rejected in (
        keys.create(member, account, draft),
        keys.page(member, account, Listing(9)),
        keys.revoke(member, account, name),
        accounts.update(member, account, contacts),
    ):
        with pytest.raises(Forbidden):
            await rejected


async def test_an_owner_cannot_rename_or_update_another_account(world: World) -> None:
    account, other = await world.account(), await world.account("Other")
    owner = await caller(world, account, Role.OWNER)
    created, _ = await world.services.keys.create(world.operator, other, KeyDraft("theirs"))
    with pytest.raises(Forbidden):
        await world.services.accounts.update(owner, account, AccountDraft(name="Mine"))
    for rejected in (
        world.services.accounts.update(owner, other, AccountDraft(contact_emails=[])),
        world.services.keys.create(owner, other, KeyDraft("mine", ["listen"])),
        world.services.keys.page(owner, other, Listing(9)),
        world.services.keys.revoke(owner, other, f"key_{created.id.hex()}"),
        world.services.keys.revoke(owner, account, f"key_{created.id.hex()}"),
    ):
        with pytest.raises(NotFound):
            await rejected


@pytest.mark.parametrize("scope", Scope)
async def test_a_key_cannot_have_a_scope_that_its_creator_lacks(world: World, scope: Scope) -> None:
    account = await world.account()
    owner = await caller(world, account, Role.OWNER)
    draft = KeyDraft("mine", [scope])
    if scope in SCOPES_OF_ROLE[Role.OWNER]:
        created, _ = await world.services.keys.create(owner, account, draft)
        assert created.scopes == {scope}
    else:
        with pytest.raises(Invalid) as rejected:
            await world.services.keys.create(owner, account, draft)
        assert [(each.field, each.code) for each in rejected.value.problems] == [("scopes", "scope_not_yours")]
        await world.services.keys.create(world.operator, account, draft)


async def test_a_key_that_reads_secrets_requires_a_confirmed_password(world: World) -> None:
    account = await world.account()
    await world.member(account, EMAIL, Role.OWNER)
    visitor = await world.sign_in(EMAIL)
    world.clock.now += CONFIRMED_FOR_MS
    owner = visitor.caller(account, ADDRESS)
    with pytest.raises(ConfirmationRequired):
        await world.services.keys.create(owner, account, KeyDraft("mine", ["secrets:read"]))

    await world.services.keys.create(owner, account, KeyDraft("mine"))
    await world.services.keys.create(world.operator, account, KeyDraft("theirs", ["secrets:read"]))


async def test_a_key_cannot_manage_keys_or_contacts(world: World) -> None:
    account = await world.account()
    _, text = await world.services.keys.create(world.operator, account, KeyDraft("all", list(Scope)))
    key = world.services.authenticator.caller(f"Bearer {text}".encode(), None, ADDRESS)
    for rejected in (
        world.services.keys.create(key, account, KeyDraft("mine", ["listen"])),
        world.services.accounts.update(key, account, AccountDraft(contact_emails=[EMAIL])),
    ):
        with pytest.raises(Forbidden, match="requires an operator key"):
            await rejected


def test_contacts_beyond_the_limit_are_not_checked() -> None:
    found = AccountDraft(contact_emails=["no address"] * (CONTACT_EMAILS_MAX + 1_000)).problems()
    assert [each.code for each in found] == ["too_many", *["email_invalid"] * CONTACT_EMAILS_MAX]
