"""Passwords set, reset and changed; and that an invitation lets nobody take another's place."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from uplift_server.core.people.notifications import NotificationKind
from uplift_server.core.people.people import INVITATION_TTL_MS, RESET_TTL_MS
from uplift_server.core.security.rights import Role
from uplift_server.service.errors import (
    ConfirmationRequired,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    RateLimited,
    Unauthorized,
)
from uplift_server.service.members import InvitationDraft
from uplift_server.store import members, outbox, people
from uplift_server.store.errors import Unavailable

from .world import ADDRESS, PASSWORD, World

ANN, NEW = "ann@example.com", "a wholly new one"
MINUTE = 60_000


async def invite(world: World, account: str, email: str = ANN, *, by: Role | None = None, mails: bool = True) -> str:
    """The token of an invitation: by the operator, or a member whose server mails it or not."""
    services = world.build(mails=mails)
    caller = world.operator
    if by is not None:
        await world.member(account, "inviter@example.com", by)
        caller = (await world.sign_in("inviter@example.com")).caller(account, ADDRESS)
    made = await services.members.invite(caller, account, InvitationDraft(email, "manager"))
    return services.sessions._entrance.invitation_url(made.invitation.id).rpartition("/")[2]


async def accept(world: World, token: str, password: str = NEW, name: str = "Ann") -> str:
    """Accept an invitation; the cookie."""
    return await world.services.sessions.accept_invitation(token, name, password, address=ADDRESS)


async def proved(world: World) -> bool | None:
    """Whether Ann's mail address is proved."""
    person = await world.database.read(lambda c: people.find(c, ANN))
    return None if person is None else person.proved


async def test_somebody_new_sets_a_name_and_a_password(world: World) -> None:
    account = await world.account()
    token = await invite(world, account)
    shown = await world.services.sessions.invitation(token)
    assert shown is not None
    assert (shown.account_name, shown.email, shown.role, shown.invited_by, shown.has_password) == (
        "Riverside", ANN, Role.MANAGER, "The operator", False,
    )  # fmt: skip

    visitor = await world.visitor(await accept(world, token, name=" Ann "))

    assert visitor.person is not None
    assert (visitor.person.name, visitor.name) == ("Ann", f"Ann <{ANN}>")
    assert [(each.account.name, each.role) for each in visitor.memberships] == [("Riverside", Role.MANAGER)]
    assert not visitor.is_portal
    await world.sign_in(ANN, NEW)
    told = [each for each in await world.audited(account) if each.action == "member.joined"]
    assert [(each.actor.name, each.details) for each in told] == [
        (f"Ann <{ANN}>", {"by": "invitation", "role": "manager"})
    ]
    assert await world.services.sessions.invitation(token) is None
    with pytest.raises(NotFound):
        await accept(world, token)


async def test_an_invitation_ends_when_it_is_over_or_the_account_is_gone(world: World) -> None:
    account = await world.account()
    token = await invite(world, account)
    world.clock.now += INVITATION_TTL_MS
    assert await world.services.sessions.invitation(token) is None
    with pytest.raises(NotFound):
        await accept(world, token)
    other = await world.account()
    token = await invite(world, other)
    await world.services.accounts.delete(world.operator, other)
    assert await world.services.sessions.invitation(token) is None
    for text in ("", "x" * 54, token[:-1]):
        assert await world.services.sessions.invitation(text) is None
        with pytest.raises(NotFound):
            await accept(world, text)


async def test_a_new_password_is_judged_with_the_name(world: World) -> None:
    token = await invite(world, await world.account())
    with pytest.raises(Invalid) as refused:
        await accept(world, token, password="short", name=" ")
    assert [(each.field, each.code) for each in refused.value.problems] == [
        ("name", "name_invalid"), ("password", "password_short"),
    ]  # fmt: skip
    with pytest.raises(Invalid) as refused:
        await accept(world, token, password=ANN)
    assert [each.code for each in refused.value.problems] == ["password_easy"]
    await accept(world, token)


@pytest.mark.parametrize("mails", [True, False])
async def test_who_has_a_password_gives_it_and_keeps_it(world: World, mails: bool) -> None:
    """Whoever has the link alone gets nothing of what the person sees elsewhere."""
    mine, theirs = await world.account("mine"), await world.account("theirs")
    await world.member(mine, ANN, Role.OWNER)
    token = await invite(world, theirs, by=Role.ADMIN, mails=mails)
    shown = await world.services.sessions.invitation(token)
    assert shown is not None
    assert shown.has_password is (True if mails else None)
    with pytest.raises(Unauthorized):
        await accept(world, token, NEW)
    with pytest.raises(Unauthorized):
        await world.sign_in(ANN, NEW)

    visitor = await world.visitor(await accept(world, token, PASSWORD, name="Mallory"))

    assert {each.account.name for each in visitor.memberships} == {"mine", "theirs"}
    assert visitor.name == ANN
    await world.sign_in(ANN, PASSWORD)


@pytest.mark.parametrize("by", [None, Role.ADMIN])
async def test_a_link_that_was_not_mailed_does_not_show_whether_an_email_has_an_account(
    world: World, by: Role | None
) -> None:
    known, portal, new = "known@example.com", "portal@example.com", "new@example.com"
    theirs, account, silent = await world.account(), await world.account(), world.build(mails=False)
    await world.member(theirs, known)
    await world.services.sessions.enter(await world.portal(theirs, email=portal), address=ADDRESS)
    caller = world.operator
    if by is not None:
        await world.member(account, "inviter@example.com", by)
        caller = (await world.sign_in("inviter@example.com")).caller(account, ADDRESS)
    told = []
    for email in (known, portal, new):
        made = await silent.members.invite(caller, account, InvitationDraft(email, "member"))
        token = (made.url or "").rpartition("/")[2]
        shown = await silent.sessions.invitation(token)
        assert shown is not None
        problems = []
        for name, password in (("", NEW), ("Ann", "short"), ("Ann", email), ("", "")):
            with pytest.raises(Invalid) as refused:
                await silent.sessions.accept_invitation(token, name, password, address=ADDRESS)
            problems.append(refused.value.problems)
        told.append((replace(shown, email=""), problems))
    assert told == [told[0]] * 3


async def test_guessing_at_an_invitation_is_limited_as_signing_in_is(world: World) -> None:
    await world.member(await world.account(), ANN)
    token = await invite(world, await world.account())
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await accept(world, token, "wrong")
    with pytest.raises(RateLimited):
        await accept(world, token, PASSWORD)


async def test_a_mail_proves_the_address_and_a_link_that_was_handed_over_does_not(world: World) -> None:
    await accept(world, await invite(world, await world.account(), by=Role.OWNER, mails=False))
    assert await proved(world) is False
    person = await world.database.read(lambda c: people.find(c, ANN))
    assert person is not None
    await world.database.write(lambda c: members.remove(c, _member(c, person.seq)))
    await accept(world, await invite(world, await world.account(), mails=False))
    assert await proved(world) is True


def _member(connection: object, person_seq: int) -> object:
    [place] = people.places(connection, person_seq)
    return members.get(connection, place.account_seq, place.member_id)


async def test_whoever_took_an_address_beforehand_loses_it_to_whom_it_is_mailed(world: World) -> None:
    theirs, hers = await world.account("theirs"), await world.account("hers")
    squatter = await accept(world, await invite(world, theirs, by=Role.ADMIN, mails=False), "their own choice")
    token = await invite(world, hers)
    shown = await world.services.sessions.invitation(token)
    assert shown is not None
    assert not shown.has_password

    await accept(world, token, NEW)

    assert await world.services.sessions.visitor(squatter) is None
    with pytest.raises(Unauthorized):
        await world.sign_in(ANN, "their own choice")
    assert await proved(world)
    await world.sign_in(ANN, NEW)


async def test_a_link_that_was_handed_over_gives_nobody_a_password_for_somebody_of_portal_links(world: World) -> None:
    mine, theirs = await world.account("mine"), await world.account("theirs")
    portal = await world.visitor(
        await world.services.sessions.enter(await world.portal(mine, email=ANN), address=ADDRESS)
    )
    token = await invite(world, theirs, by=Role.ADMIN, mails=False)
    with pytest.raises(Unauthorized, match="links from the operator"):
        await accept(world, token)

    await world.services.sessions.change_password(portal, "", PASSWORD, address=ADDRESS)
    await accept(world, token, PASSWORD)


async def test_a_mailed_invitation_gives_somebody_of_portal_links_a_password(world: World) -> None:
    mine, other = await world.account("mine"), await world.account("other")
    await world.services.sessions.enter(await world.portal(mine, email=ANN), address=ADDRESS)
    await accept(world, await invite(world, other))
    assert {each.account.name for each in (await world.sign_in(ANN, NEW)).memberships} == {"mine", "other"}


async def test_who_became_a_member_meanwhile_is_told_to_sign_in(world: World) -> None:
    account = await world.account()
    token = await invite(world, account)
    await world.member(account, ANN)
    with pytest.raises(Conflict, match="Sign in"):
        await accept(world, token, PASSWORD)


async def test_what_changed_while_a_password_was_looked_at_is_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at the same time: the second does not overwrite the first one's password."""
    one, two = await world.account("one"), await world.account("two")
    tokens = [await invite(world, account) for account in (one, two)]
    invited = world.services.sessions._invited
    seen = {token: await invited(token) for token in tokens}

    async def as_seen(token: str) -> object:
        return seen[token]

    monkeypatch.setattr(type(world.services.sessions), "_invited", lambda _self, token: as_seen(token))
    await accept(world, tokens[0], PASSWORD)
    with pytest.raises(Conflict, match="at the same moment"):
        await accept(world, tokens[1], NEW)
    await world.sign_in(ANN, PASSWORD)


async def reset_token(world: World) -> str:
    """What the mail that is owed would have in its link."""
    await world.context.finish()
    [owed] = [
        each
        for each in await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=10))
        if each.kind is NotificationKind.PASSWORD_RESET
    ]
    person = await world.database.read(lambda c: people.find(c, owed.recipient))
    assert person is not None
    assert person.password_hash is not None
    entrance = world.services.sessions._entrance
    made = entrance.reset_url(person.id, person.password_hash, int(str(owed.facts["expires_at"])))
    token = made.rpartition("/")[2]
    assert token.encode() not in await world.contents()
    return token


async def test_a_forgotten_password_is_replaced_by_mail_and_ends_all_sessions(world: World) -> None:
    account = await world.account()
    member = await world.member(account, ANN)
    before = await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)
    await world.services.sessions.request_reset(" ANN@example.com", address=ADDRESS)
    token = await reset_token(world)
    with pytest.raises(Invalid) as refused:
        await world.services.sessions.reset(token, "short")
    assert [(each.field, each.code) for each in refused.value.problems] == [("password", "password_short")]

    visitor = await world.visitor(await world.services.sessions.reset(token, NEW, address=ADDRESS))

    assert visitor.name == ANN
    assert await world.services.sessions.visitor(before) is None
    await world.sign_in(ANN, NEW)
    with pytest.raises(Unauthorized):
        await world.sign_in(ANN, PASSWORD)
    with pytest.raises(NotFound):
        await world.services.sessions.reset(token, "and another one")
    told = [(each.subject, each.details) for each in await world.audited(account) if "password" in each.action]
    assert told == [(member, {"by": "reset"})]


async def test_a_reset_is_over_after_an_hour(world: World) -> None:
    await world.member(await world.account(), ANN)
    await world.services.sessions.request_reset(ANN)
    token = await reset_token(world)
    world.clock.now += RESET_TTL_MS
    for text in (token, "", "x" * 64):
        with pytest.raises(NotFound):
            await world.services.sessions.reset(text, NEW)


async def test_nobody_is_told_whether_there_is_somebody(world: World) -> None:
    account = await world.account()
    await world.member(account, "portal@example.com", password=None)
    for email in ("nobody@example.com", "portal@example.com", "no address"):
        assert await world.services.sessions.request_reset(email) is None
    silent = world.build(mails=False)
    await world.member(account, ANN)
    await silent.sessions.request_reset(ANN)
    await world.context.finish()
    assert (world.services.sessions.sends_mail, silent.sessions.sends_mail) == (True, False)
    assert await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=10)) == []


async def test_the_answer_takes_as_long_whether_there_is_somebody_or_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written before it; what cannot be written is told in the log."""
    await world.member(await world.account(), ANN)

    async def fails(_body: object) -> None:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(world.database, "write", fails)
        assert await world.services.sessions.request_reset(ANN) is None
        await world.context.finish()
    assert [each["event"] for each in logs] == ["a change that nobody waited for failed"]


async def test_nobody_is_flooded_with_resets(world: World) -> None:
    await world.member(await world.account(), ANN)
    for _ in range(3):
        await world.services.sessions.request_reset(ANN, address=ADDRESS)
    with pytest.raises(RateLimited):
        await world.services.sessions.request_reset(ANN.upper(), address="198.51.100.1")
    await world.sign_in(ANN)
    for number in range(27):
        await world.services.sessions.request_reset(f"{number}@example.com", address=ADDRESS)
    with pytest.raises(RateLimited):
        await world.services.sessions.request_reset("more@example.com", address=ADDRESS)
    world.clock.now += 15 * MINUTE
    await world.services.sessions.request_reset(ANN, address=ADDRESS)


async def test_an_operator_makes_a_reset_where_no_mail_can_bring_it(world: World) -> None:
    account = await world.account()
    member = await world.member(account, ANN, Role.OWNER)
    portal = await world.member(account, "portal@example.com", password=None)
    link = await world.services.members.reset_password(world.operator, account, member)
    await world.services.sessions.reset(link.url.rpartition("/")[2], NEW)
    await world.sign_in(ANN, NEW)
    with pytest.raises(Conflict):
        await world.services.members.reset_password(world.operator, account, portal)
    owner = (await world.sign_in(ANN, NEW)).caller(account, None)
    with pytest.raises(Forbidden):
        await world.services.members.reset_password(owner, account, portal)


async def test_a_changed_password_ends_all_other_sessions(world: World) -> None:
    await world.member(await world.account(), ANN)
    cookies = [await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS) for _ in range(3)]
    visitor = await world.visitor(cookies[1])
    change = world.services.sessions.change_password
    with pytest.raises(Unauthorized):
        await change(visitor, "wrong", NEW, address=ADDRESS)
    with pytest.raises(Invalid):
        await change(visitor, PASSWORD, "short", address=ADDRESS)
    await change(visitor, PASSWORD, NEW, address=ADDRESS)
    assert [await world.services.sessions.visitor(each) is None for each in cookies] == [True, False, True]
    await world.sign_in(ANN, NEW)


async def test_the_first_password_wants_a_link_that_was_just_opened(world: World) -> None:
    account = await world.account()
    visitor = await world.visitor(
        await world.services.sessions.enter(await world.portal(account, email=ANN), address=ADDRESS)
    )
    world.clock.now += 10 * MINUTE
    with pytest.raises(ConfirmationRequired):
        await world.services.sessions.change_password(visitor, "", NEW, address=ADDRESS)


async def test_operators_and_guests_have_no_password(world: World) -> None:
    guest = await world.services.sessions.enter(await world.portal(await world.account()), address=ADDRESS)
    operator = await world.services.sessions.sign_in_operator(world.operator_key, address=ADDRESS)
    for cookie in (guest, operator):
        with pytest.raises(Forbidden):
            await world.services.sessions.change_password(await world.visitor(cookie), "", NEW, address=ADDRESS)


async def test_a_password_that_was_changed_at_the_same_moment_is_not_overwritten(world: World) -> None:
    await world.member(await world.account(), ANN)
    visitor = await world.sign_in(ANN)
    assert visitor.person is not None
    await world.services.sessions.change_password(visitor, PASSWORD, NEW, address=ADDRESS)
    with pytest.raises(Conflict):
        await world.services.sessions._renew(visitor.person, visitor.person, "change", ADDRESS)


async def test_a_name_is_changed_for_every_account_and_each_is_told(world: World) -> None:
    first, second = await world.account("First"), await world.account("Second")
    for account in (first, second):
        await world.member(account, ANN)
    rename = world.services.sessions.rename
    with pytest.raises(Invalid):
        await rename(await world.sign_in(ANN), " ", address=ADDRESS)

    for _ in range(2):
        await rename(await world.sign_in(ANN), " Ann Li ", address=ADDRESS)

    assert (await world.sign_in(ANN)).name == f"Ann Li <{ANN}>"
    for account in (first, second):
        told = [each for each in await world.audited(account) if each.action == "member.renamed"]
        assert [(each.actor.name, each.details) for each in told] == [(ANN, {"from": ANN, "to": "Ann Li"})]
    guest = await world.services.sessions.enter(await world.portal(first), address=ADDRESS)
    with pytest.raises(Forbidden):
        await rename(await world.visitor(guest), "Somebody", address=ADDRESS)
