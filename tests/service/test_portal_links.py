"""One-time links and their sessions."""

import asyncio

import pytest

from uplift_server.core import ids
from uplift_server.core.people.people import GUEST_NAME, LINK_TTL_MS, PORTAL_SESSION_TTL_MS
from uplift_server.core.security.rights import Role
from uplift_server.service.context import Listing
from uplift_server.service.errors import Forbidden, Invalid, NotFound, Unauthorized
from uplift_server.service.portal_links import LinkDraft
from uplift_server.store import members, people, sessions

from .world import ADDRESS, PASSWORD, URL, World

ANN = "ann@example.com"


async def open_link(world: World, token: str) -> str:
    """Open a link, and return the cookie."""
    return await world.services.sessions.open_link(token, address=ADDRESS)


async def test_a_link_creates_the_person_and_the_member(world: World) -> None:
    account = await world.account()
    token = await world.portal(account, email="Ann@Example.com", role="manager")
    assert await world.services.sessions.can_open_link(token)

    visitor = await world.visitor(await open_link(world, token))

    assert visitor.person is not None
    assert (visitor.person.email, visitor.person.name, visitor.has_password) == (ANN, ANN, False)
    assert [(each.account.name, each.role) for each in visitor.memberships] == [("Riverside", Role.MANAGER)]
    assert visitor.is_portal
    assert visitor.is_confirmed(world.clock.now)
    entries = [(each.action, each.details) for each in await world.audited(account)]
    assert entries[-3][0] == "link.created"
    assert entries[-2:] == [
        ("member.joined", {"role": "manager", "by": "portal link"}),
        ("member.signed_in", {"by": "portal link"}),
    ]


async def test_a_link_works_once_even_if_opened_twice_concurrently(world: World) -> None:
    token = await world.portal(await world.account(), email=ANN)
    opened = await asyncio.gather(*(open_link(world, token) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in opened].count(str) == 1
    assert [type(each) for each in opened].count(NotFound) == 2
    assert not await world.services.sessions.can_open_link(token)


async def test_a_link_expires_after_five_minutes(world: World) -> None:
    account = await world.account()
    link = await world.services.portal_links.create(world.operator, account, LinkDraft())
    assert link.expires_at == world.clock.now + LINK_TTL_MS == world.clock.now + 300_000
    token = link.url.removeprefix(f"{URL}/enter/")
    world.clock.now += LINK_TTL_MS - 1
    assert await world.services.sessions.can_open_link(token)
    world.clock.now += 1
    assert not await world.services.sessions.can_open_link(token)
    with pytest.raises(NotFound):
        await open_link(world, token)


async def test_a_link_that_expires_while_it_is_opened_is_rejected(world: World) -> None:
    token = await world.portal(await world.account())
    link_id = world.services.sessions._links.link_of(token) or b""
    late = world.clock.now + LINK_TTL_MS
    assert await world.database.write(lambda c: sessions.consume_link(c, link_id, now=late)) is None


async def test_an_invalid_token_is_rejected(world: World) -> None:
    token = await world.portal(await world.account())
    for text in ("", token[:-1], token[::-1], "x" * len(token), "é"):
        assert not await world.services.sessions.can_open_link(text)
        with pytest.raises(NotFound):
            await open_link(world, text)


async def test_the_database_contains_no_token(world: World) -> None:
    token = await world.portal(await world.account(), email=ANN)
    assert token.encode() not in await world.contents()


async def test_an_existing_member_keeps_the_role_and_the_password(world: World) -> None:
    account = await world.account()
    await world.member(account, ANN, Role.ADMIN)
    visitor = await world.visitor(await open_link(world, await world.portal(account, email=ANN, role="member")))
    assert [each.role for each in visitor.memberships] == [Role.ADMIN]
    assert visitor.has_password
    assert "member.joined" not in [each.action for each in await world.audited(account)]
    await world.sign_in(ANN)


async def test_a_portal_session_has_one_account_and_ends_after_twelve_hours(world: World) -> None:
    one, two = await world.account("one"), await world.account("two")
    await world.member(two, ANN, Role.OWNER)
    cookie = await open_link(world, await world.portal(one, email=ANN))
    visitor = await world.visitor(cookie)
    assert [each.account.name for each in visitor.memberships] == ["one"]
    with pytest.raises(NotFound):
        visitor.caller(two, None)
    assert [each.account.name for each in (await world.sign_in(ANN)).memberships] == ["one", "two"]
    world.clock.now += PORTAL_SESSION_TTL_MS - 1
    await world.visitor(cookie)
    world.clock.now += 1
    assert await world.services.sessions.visitor(cookie) is None


@pytest.mark.parametrize("email", [ANN, None])
async def test_a_removal_revokes_unused_links_and_ends_sessions(world: World, email: str | None) -> None:
    account, other = await world.account(), await world.account("other")
    draft = {} if email is None else {"email": email}
    opened = await open_link(world, await world.portal(account, **draft))
    elsewhere = await open_link(world, await world.portal(other, **draft))
    unused, theirs = await world.portal(account, **draft), await world.portal(other, **draft)
    [member] = (await world.services.members.page(world.operator, account, Listing(10))).items

    await world.services.members.remove(world.operator, account, ids.prefixed(ids.MEMBER, member.id))

    assert not await world.services.sessions.can_open_link(unused)
    assert await world.services.sessions.can_open_link(theirs)
    assert await world.services.sessions.visitor(opened) is None
    assert await world.services.sessions.visitor(elsewhere) is not None
    last = (await world.audited(account))[-1]
    assert (last.action, last.details["revoked_portal_links"]) == ("member.removed", 1)


async def test_guests_of_one_role_are_one_member(world: World) -> None:
    account, other = await world.account(), await world.account("other")
    seen = []
    for draft in ({}, {}, {"role": "admin"}, {"role": "admin"}):
        visitor = await world.visitor(await open_link(world, await world.portal(account, **draft)))
        [membership] = visitor.memberships
        seen.append((visitor.name, membership.role, membership.member_id))
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert [each[:2] for each in seen[1:3]] == [(GUEST_NAME, Role.MEMBER), (GUEST_NAME, Role.ADMIN)]
    other_visitor = await world.visitor(await open_link(world, await world.portal(other)))
    assert other_visitor.memberships[0].member_id != seen[0][2]


async def test_a_guest_cannot_sign_out_or_remove_other_guests(world: World) -> None:
    account = await world.account()
    cookies = [await open_link(world, await world.portal(account)) for _ in range(3)]
    first = await world.visitor(cookies[0])
    caller = first.caller(account, None)
    with pytest.raises(Forbidden, match="share one membership"):
        await world.services.members.remove(caller, account, caller.actor.id or "")

    await world.services.sessions.sign_out_everywhere(first)

    assert [await world.services.sessions.visitor(each) is None for each in cookies] == [True, False, False]


async def test_a_guest_needs_a_new_link_for_confirmation(world: World) -> None:
    visitor = await world.visitor(await open_link(world, await world.portal(await world.account())))
    with pytest.raises(Unauthorized, match="new link"):
        await world.services.sessions.confirm(visitor, "", address=ADDRESS)


async def test_a_portal_link_overrides_an_unproved_password(world: World) -> None:
    """A person who set a password without proving ownership of the email loses access."""
    theirs, hers = await world.account("theirs"), await world.account("hers")
    await world.member(theirs, ANN, password="their own choice")
    person = await world.database.read(lambda c: people.find(c, ANN))
    assert person is not None
    await world.database.write(lambda c: c.exec_driver_sql("UPDATE people SET proved = false"))
    before = await world.services.sessions.sign_in(ANN, "their own choice", address=ADDRESS)

    visitor = await world.visitor(await open_link(world, await world.portal(hers, email=ANN)))

    assert [each.account.name for each in visitor.memberships] == ["hers"]
    assert await world.services.sessions.visitor(before) is None
    with pytest.raises(Unauthorized):
        await world.services.sessions.sign_in(ANN, "their own choice", address=ADDRESS)
    last = (await world.audited(theirs))[-1]
    assert (last.action, last.details) == ("member.password_changed", {"by": "portal link"})


async def test_a_link_to_a_deleted_account_is_rejected(world: World) -> None:
    account = await world.account()
    token = await world.portal(account, email=ANN)
    await world.services.accounts.delete(world.operator, account)
    with pytest.raises(NotFound):
        await open_link(world, token)
    assert await world.database.read(lambda c: people.find(c, ANN)) is None


async def test_a_link_to_a_full_account_is_rejected(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await world.account()
    await world.member(account, "first@example.com")
    monkeypatch.setattr(members, "MEMBERS_PER_ACCOUNT_MAX", 1)
    token = await world.portal(account, email=ANN)
    with pytest.raises(NotFound, match="which is the limit"):
        await open_link(world, token)
    assert await world.services.sessions.can_open_link(token)


async def test_an_operator_link_signs_an_operator_in(world: World) -> None:
    link = await world.services.portal_links.create_for_operator(world.operator)
    token = link.url.removeprefix(f"{URL}/enter/")
    visitor = await world.visitor(await open_link(world, token))
    assert visitor.person is None
    assert visitor.operator(ADDRESS).principal.is_operator
    with pytest.raises(NotFound):
        await open_link(world, token)


async def test_all_problems_are_reported_together(world: World) -> None:
    account = await world.account()
    with pytest.raises(Invalid) as rejected:
        await world.services.portal_links.create(world.operator, account, LinkDraft(email="ann", role="boss"))
    assert [(each.field, each.code) for each in rejected.value.problems] == [
        ("email", "email_invalid"), ("role", "role_unknown"),
    ]  # fmt: skip
    with pytest.raises(Invalid) as rejected:
        await world.services.portal_links.create(world.operator, account, LinkDraft(role="owner"))
    assert [(each.field, each.code) for each in rejected.value.problems] == [("role", "role_not_for_guests")]


async def test_members_cannot_create_portal_links(world: World) -> None:
    account = await world.account()
    await world.member(account, ANN, Role.OWNER)
    caller = (await world.sign_in(ANN, PASSWORD)).caller(account, None)
    for create in (
        world.services.portal_links.create(caller, account, LinkDraft()),
        world.services.portal_links.create_for_operator(caller),
    ):
        with pytest.raises(Forbidden):
            await create
