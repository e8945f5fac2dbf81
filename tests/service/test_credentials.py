"""Invitations, and setting, resetting and changing passwords."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from tests.logs import without_slow_reads

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


async def invite(
    world: World, account: str, email: str = ANN, *, by: Role | None = None, sends_email: bool = True
) -> str:
    """Create an invitation as the operator or as a member with the role `by`, and return its token."""
    services = world.build(sends_email=sends_email)
    caller = world.operator
    if by is not None:
        await world.member(account, "inviter@example.com", by)
        caller = (await world.sign_in("inviter@example.com")).caller(account, ADDRESS)
    created = await services.members.invite(caller, account, InvitationDraft(email, "manager"))
    return services.sessions._links.invitation_url(created.invitation.id).rpartition("/")[2]


async def accept(world: World, token: str, password: str = NEW, name: str = "Ann") -> str:
    """Accept an invitation, and return the cookie."""
    return await world.services.sessions.accept_invitation(token, name, password, address=ADDRESS)


async def is_proved(world: World) -> bool | None:
    """Return whether Ann's email is verified, or None if there is no person with this email."""
    person = await world.database.read(lambda c: people.find(c, ANN))
    return None if person is None else person.proved


async def test_a_new_person_sets_a_name_and_a_password(world: World) -> None:
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
    entries = [each for each in await world.audited(account) if each.action == "member.joined"]
    assert [(each.actor.name, each.details) for each in entries] == [
        (f"Ann <{ANN}>", {"by": "invitation", "role": "manager"})
    ]
    assert await world.services.sessions.invitation(token) is None
    with pytest.raises(NotFound):
        await accept(world, token)


async def test_expired_and_deleted_invitations_are_not_found(world: World) -> None:
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


async def test_an_invalid_name_and_password_are_reported_together(world: World) -> None:
    token = await invite(world, await world.account())
    with pytest.raises(Invalid) as rejected:
        await accept(world, token, password="short", name=" ")
    assert [(each.field, each.code) for each in rejected.value.problems] == [
        ("name", "name_invalid"), ("password", "password_short"),
    ]  # fmt: skip
    with pytest.raises(Invalid) as rejected:
        await accept(world, token, password=ANN)
    assert [each.code for each in rejected.value.problems] == ["password_easy"]
    await accept(world, token)


@pytest.mark.parametrize("sends_email", [True, False])
async def test_accepting_an_invitation_keeps_the_existing_password(world: World, sends_email: bool) -> None:
    """The link of an invitation alone gives no access to the other accounts of a person."""
    mine, theirs = await world.account("mine"), await world.account("theirs")
    await world.member(mine, ANN, Role.OWNER)
    token = await invite(world, theirs, by=Role.ADMIN, sends_email=sends_email)
    shown = await world.services.sessions.invitation(token)
    assert shown is not None
    assert shown.has_password is (True if sends_email else None)
    with pytest.raises(Unauthorized):
        await accept(world, token, NEW)
    with pytest.raises(Unauthorized):
        await world.sign_in(ANN, NEW)

    visitor = await world.visitor(await accept(world, token, PASSWORD, name="Mallory"))

    assert {each.account.name for each in visitor.memberships} == {"mine", "theirs"}
    assert visitor.name == ANN
    await world.sign_in(ANN, PASSWORD)


@pytest.mark.parametrize("by", [None, Role.ADMIN])
async def test_an_unmailed_link_does_not_reveal_whether_the_email_is_known(world: World, by: Role | None) -> None:
    known, portal, new = "known@example.com", "portal@example.com", "new@example.com"
    theirs, account, without_email = await world.account(), await world.account(), world.build(sends_email=False)
    await world.member(theirs, known)
    await world.services.sessions.open_link(await world.portal(theirs, email=portal), address=ADDRESS)
    caller = world.operator
    if by is not None:
        await world.member(account, "inviter@example.com", by)
        caller = (await world.sign_in("inviter@example.com")).caller(account, ADDRESS)
    results = []
    for email in (known, portal, new):
        created = await without_email.members.invite(caller, account, InvitationDraft(email, "member"))
        token = (created.url or "").rpartition("/")[2]
        shown = await without_email.sessions.invitation(token)
        assert shown is not None
        problems = []
        for name, password in (("", NEW), ("Ann", "short"), ("Ann", email), ("", "")):
            with pytest.raises(Invalid) as rejected:
                await without_email.sessions.accept_invitation(token, name, password, address=ADDRESS)
            problems.append(rejected.value.problems)
        results.append((replace(shown, email=""), problems))
    assert results == [results[0]] * 3


async def test_password_guesses_at_an_invitation_are_rate_limited(world: World) -> None:
    await world.member(await world.account(), ANN)
    token = await invite(world, await world.account())
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await accept(world, token, "wrong")
    with pytest.raises(RateLimited):
        await accept(world, token, PASSWORD)


async def test_an_unmailed_link_of_a_member_does_not_prove_the_email(world: World) -> None:
    await accept(world, await invite(world, await world.account(), by=Role.OWNER, sends_email=False))
    assert await is_proved(world) is False
    person = await world.database.read(lambda c: people.find(c, ANN))
    assert person is not None
    await world.database.write(lambda c: members.remove(c, _member(c, person.seq)))
    await accept(world, await invite(world, await world.account(), sends_email=False))
    assert await is_proved(world) is True


def _member(connection: object, person_seq: int) -> object:
    [membership] = people.memberships(connection, person_seq)
    return members.get(connection, membership.account_seq, membership.member_id)


async def test_a_mailed_invitation_overrides_an_unproved_password(world: World) -> None:
    theirs, hers = await world.account("theirs"), await world.account("hers")
    earlier_cookie = await accept(
        world, await invite(world, theirs, by=Role.ADMIN, sends_email=False), "their own choice"
    )
    token = await invite(world, hers)
    shown = await world.services.sessions.invitation(token)
    assert shown is not None
    assert not shown.has_password

    await accept(world, token, NEW)

    assert await world.services.sessions.visitor(earlier_cookie) is None
    with pytest.raises(Unauthorized):
        await world.sign_in(ANN, "their own choice")
    assert await is_proved(world)
    changes = [each.details for each in await world.audited(theirs) if each.action == "member.password_changed"]
    assert changes == [{"by": "invitation"}]
    await world.sign_in(ANN, NEW)


async def test_an_unmailed_invitation_cannot_set_the_password_of_a_portal_member(world: World) -> None:
    mine, theirs = await world.account("mine"), await world.account("theirs")
    portal = await world.visitor(
        await world.services.sessions.open_link(await world.portal(mine, email=ANN), address=ADDRESS)
    )
    token = await invite(world, theirs, by=Role.ADMIN, sends_email=False)
    with pytest.raises(Unauthorized, match="a link from the operator"):
        await accept(world, token)

    await world.services.sessions.change_password(portal, "", PASSWORD, address=ADDRESS)
    await accept(world, token, PASSWORD)


async def test_a_mailed_invitation_sets_the_password_of_a_portal_member(world: World) -> None:
    mine, other = await world.account("mine"), await world.account("other")
    await world.services.sessions.open_link(await world.portal(mine, email=ANN), address=ADDRESS)
    await accept(world, await invite(world, other))
    assert {each.account.name for each in (await world.sign_in(ANN, NEW)).memberships} == {"mine", "other"}


async def test_an_existing_member_cannot_accept_an_invitation(world: World) -> None:
    account = await world.account()
    token = await invite(world, account)
    await world.member(account, ANN)
    with pytest.raises(Conflict, match="Sign in"):
        await accept(world, token, PASSWORD)


async def test_concurrent_acceptances_do_not_overwrite_each_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second acceptance is rejected, and the first password stays valid."""
    one, two = await world.account("one"), await world.account("two")
    tokens = [await invite(world, account) for account in (one, two)]
    invited = world.services.sessions._invited
    invitations = {token: await invited(token) for token in tokens}

    async def earlier_invitation(token: str) -> object:
        return invitations[token]

    monkeypatch.setattr(type(world.services.sessions), "_invited", lambda _self, token: earlier_invitation(token))
    await accept(world, tokens[0], PASSWORD)
    with pytest.raises(Conflict, match="Another request changed"):
        await accept(world, tokens[1], NEW)
    await world.sign_in(ANN, PASSWORD)


async def reset_token(world: World) -> str:
    """Return the token of the password reset email in the outbox."""
    await world.context.finish()
    [email] = [
        each
        for each in await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=10))
        if each.kind is NotificationKind.PASSWORD_RESET
    ]
    person = await world.database.read(lambda c: people.find(c, email.recipient))
    assert person is not None
    assert person.password_hash is not None
    url = world.services.sessions._links.reset_url(person.id, person.password_hash, int(str(email.facts["expires_at"])))
    token = url.rpartition("/")[2]
    assert token.encode() not in await world.contents()
    return token


async def test_a_reset_by_email_ends_all_sessions(world: World) -> None:
    account = await world.account()
    member = await world.member(account, ANN)
    before = await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)
    await world.services.sessions.request_reset(" ANN@example.com", address=ADDRESS)
    token = await reset_token(world)
    with pytest.raises(Invalid) as rejected:
        await world.services.sessions.reset(token, "short")
    assert [(each.field, each.code) for each in rejected.value.problems] == [("password", "password_short")]

    visitor = await world.visitor(await world.services.sessions.reset(token, NEW, address=ADDRESS))

    assert visitor.name == ANN
    assert await world.services.sessions.visitor(before) is None
    await world.sign_in(ANN, NEW)
    with pytest.raises(Unauthorized):
        await world.sign_in(ANN, PASSWORD)
    with pytest.raises(NotFound):
        await world.services.sessions.reset(token, "and another one")
    entries = [(each.subject, each.details) for each in await world.audited(account) if "password" in each.action]
    assert entries == [(member, {"by": "reset"})]


async def test_a_reset_link_expires_after_one_hour(world: World) -> None:
    await world.member(await world.account(), ANN)
    await world.services.sessions.request_reset(ANN)
    token = await reset_token(world)
    world.clock.now += RESET_TTL_MS
    for text in (token, "", "x" * 64):
        with pytest.raises(NotFound):
            await world.services.sessions.reset(text, NEW)


async def test_a_reset_request_does_not_reveal_whether_the_email_exists(world: World) -> None:
    account = await world.account()
    await world.member(account, "portal@example.com", password=None)
    for email in ("nobody@example.com", "portal@example.com", "no address"):
        assert await world.services.sessions.request_reset(email) is None
    without_email = world.build(sends_email=False)
    await world.member(account, ANN)
    await without_email.sessions.request_reset(ANN)
    await world.context.finish()
    assert (world.services.sessions.sends_email, without_email.sessions.sends_email) == (True, False)
    assert await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=10)) == []


async def test_a_reset_request_does_not_wait_for_its_write(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request succeeds even if the write fails later. The failure is only logged."""
    await world.member(await world.account(), ANN)

    async def fail(_body: object) -> None:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(world.database, "write", fail)
        assert await world.services.sessions.request_reset(ANN) is None
        await world.context.finish()
    assert [each["event"] for each in without_slow_reads(logs)] == ["background task failed"]


async def test_reset_emails_are_rate_limited(world: World) -> None:
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


async def test_an_operator_creates_a_reset_link_without_email(world: World) -> None:
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


async def test_the_first_password_requires_a_recently_opened_link(world: World) -> None:
    account = await world.account()
    visitor = await world.visitor(
        await world.services.sessions.open_link(await world.portal(account, email=ANN), address=ADDRESS)
    )
    world.clock.now += 10 * MINUTE
    with pytest.raises(ConfirmationRequired):
        await world.services.sessions.change_password(visitor, "", NEW, address=ADDRESS)


async def test_operators_and_guests_have_no_password(world: World) -> None:
    guest = await world.services.sessions.open_link(await world.portal(await world.account()), address=ADDRESS)
    operator = await world.services.sessions.sign_in_operator(world.operator_key, address=ADDRESS)
    for cookie in (guest, operator):
        with pytest.raises(Forbidden):
            await world.services.sessions.change_password(await world.visitor(cookie), "", NEW, address=ADDRESS)


async def test_concurrent_password_changes_do_not_overwrite_each_other(world: World) -> None:
    await world.member(await world.account(), ANN)
    visitor = await world.sign_in(ANN)
    assert visitor.person is not None
    await world.services.sessions.change_password(visitor, PASSWORD, NEW, address=ADDRESS)
    with pytest.raises(Conflict):
        await world.services.sessions._renew(visitor.person, visitor.person, "change", ADDRESS)


async def test_a_rename_is_audited_in_each_account(world: World) -> None:
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
        entries = [each for each in await world.audited(account) if each.action == "member.renamed"]
        assert [(each.actor.name, each.details) for each in entries] == [(ANN, {"from": ANN, "to": "Ann Li"})]
    guest = await world.services.sessions.open_link(await world.portal(first), address=ADDRESS)
    with pytest.raises(Forbidden):
        await rename(await world.visitor(guest), "Somebody", address=ADDRESS)
