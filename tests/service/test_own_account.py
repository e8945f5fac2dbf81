"""What members do with the keys and the contacts of their own account, and of no other."""

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
    """A member of an account, signed in."""
    await world.member(account, EMAIL, role)
    return (await world.sign_in(EMAIL)).caller(account, ADDRESS)


@pytest.mark.parametrize("role", Role)
async def test_the_table_of_rights_says_who_manages_keys_and_contacts(world: World, role: Role) -> None:
    account = await world.account()
    asks = await caller(world, account, role)
    accounts, keys = world.services.accounts, world.services.keys
    draft = KeyDraft("mine", ["events:read"])
    contacts = AccountDraft(contact_emails=[EMAIL])
    made, _ = await keys.create(world.operator, account, draft)
    name = f"key_{made.id.hex()}"
    if role in MANAGING:
        assert asks.principal.has_right(Right.KEYS_MANAGE)
        await keys.create(asks, account, draft)
        assert len((await keys.page(asks, account, Listing(9))).items) == 2
        await keys.revoke(asks, account, name)
        assert (await accounts.update(asks, account, contacts)).contact_emails == (EMAIL,)
        told = [(each.action, each.actor.name) for each in await world.audited(account)]
        assert told[-3:] == [("key.created", EMAIL), ("key.revoked", EMAIL), ("account.changed", EMAIL)]
        return
    for refused in (
        keys.create(asks, account, draft),
        keys.page(asks, account, Listing(9)),
        keys.revoke(asks, account, name),
        accounts.update(asks, account, contacts),
    ):
        with pytest.raises(Forbidden):
            await refused


async def test_an_owner_renames_nothing_and_changes_no_other_account(world: World) -> None:
    account, other = await world.account(), await world.account("Other")
    owner = await caller(world, account, Role.OWNER)
    made, _ = await world.services.keys.create(world.operator, other, KeyDraft("theirs"))
    with pytest.raises(Forbidden):
        await world.services.accounts.update(owner, account, AccountDraft(name="Mine"))
    for refused in (
        world.services.accounts.update(owner, other, AccountDraft(contact_emails=[])),
        world.services.keys.create(owner, other, KeyDraft("mine", ["listen"])),
        world.services.keys.page(owner, other, Listing(9)),
        world.services.keys.revoke(owner, other, f"key_{made.id.hex()}"),
        world.services.keys.revoke(owner, account, f"key_{made.id.hex()}"),
    ):
        with pytest.raises(NotFound):
            await refused


@pytest.mark.parametrize("scope", Scope)
async def test_a_key_has_no_scope_that_its_maker_lacks(world: World, scope: Scope) -> None:
    account = await world.account()
    owner = await caller(world, account, Role.OWNER)
    draft = KeyDraft("mine", [scope])
    if scope in SCOPES_OF_ROLE[Role.OWNER]:
        made, _ = await world.services.keys.create(owner, account, draft)
        assert made.scopes == {scope}
    else:
        with pytest.raises(Invalid) as refused:
            await world.services.keys.create(owner, account, draft)
        assert [(each.field, each.code) for each in refused.value.problems] == [("scopes", "scope_not_yours")]
        await world.services.keys.create(world.operator, account, draft)


async def test_a_key_that_reads_secrets_wants_the_password_that_seeing_them_takes(world: World) -> None:
    account = await world.account()
    await world.member(account, EMAIL, Role.OWNER)
    visitor = await world.sign_in(EMAIL)
    world.clock.now += CONFIRMED_FOR_MS
    owner = visitor.caller(account, ADDRESS)
    with pytest.raises(ConfirmationRequired):
        await world.services.keys.create(owner, account, KeyDraft("mine", ["secrets:read"]))

    await world.services.keys.create(owner, account, KeyDraft("mine"))
    await world.services.keys.create(world.operator, account, KeyDraft("theirs", ["secrets:read"]))


async def test_a_key_manages_neither_keys_nor_contacts(world: World) -> None:
    account = await world.account()
    _, text = await world.services.keys.create(world.operator, account, KeyDraft("all", list(Scope)))
    key = world.services.authenticator.caller(f"Bearer {text}".encode(), None, ADDRESS)
    for refused in (
        world.services.keys.create(key, account, KeyDraft("mine", ["listen"])),
        world.services.accounts.update(key, account, AccountDraft(contact_emails=[EMAIL])),
    ):
        with pytest.raises(Forbidden, match="Only an operator's key"):
            await refused


def test_of_too_many_contacts_no_more_are_looked_at_than_there_may_be() -> None:
    found = AccountDraft(contact_emails=["no address"] * (CONTACT_EMAILS_MAX + 1_000)).problems()
    assert [each.code for each in found] == ["too_many", *["email_invalid"] * CONTACT_EMAILS_MAX]
