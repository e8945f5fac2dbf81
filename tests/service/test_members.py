"""Rights to invite, change and remove members."""

import asyncio
import itertools
import re
from typing import Any

import pytest

from uplift_server.core import ids
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.core.people.people import INVITATION_TTL_MS
from uplift_server.core.security.rights import Role
from uplift_server.service.accounts import AccountDraft
from uplift_server.service.context import Listing
from uplift_server.service.errors import Conflict, Forbidden, IdempotencyConflict, Invalid, NotFound, RateLimited
from uplift_server.service.idempotency import IdempotencyKey
from uplift_server.service.members import INVITATIONS_PER_HOUR_MAX, InvitationDraft
from uplift_server.service.principals import Caller
from uplift_server.store import invitations, outbox, people
from uplift_server.store.outbox import EmailResult

from .world import ADDRESS, URL, World

ALL = Listing(100)
ANN = "ann@example.com"


async def caller(world: World, account: str, role: Role) -> Caller:
    """Create a member, sign the member in, and return the member as a caller of the service."""
    email = f"{role.text}-{len(await world.audited())}@example.com"
    await world.member(account, email, role)
    return (await world.sign_in(email)).caller(account, ADDRESS)


async def roles(world: World, account: str) -> dict[str, str]:
    """Return the roles of the members by email."""
    found = await world.services.members.page(world.operator, account, ALL)
    return {each.person.email or each.person.name: each.role.text for each in found.items}


async def test_an_invitation_is_mailed_and_its_link_is_not_stored(world: World) -> None:
    account = await world.account()
    owner = await caller(world, account, Role.OWNER)

    created = await world.services.members.invite(owner, account, InvitationDraft("Ann@Example.com", "manager"))

    assert (created.url, created.repeated) == (None, False)
    assert created.invitation.email == ANN
    assert created.invitation.expires_at == world.clock.now + INVITATION_TTL_MS == world.clock.now + 7 * 86_400_000
    [email] = await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=10))
    assert (email.kind, email.recipient) == (NotificationKind.MEMBER_INVITED, ANN)
    assert email.facts["invited_by"] == owner.principal.name
    assert email.facts["role"] == "manager"
    token = world.services.sessions._links.invitation_url(created.invitation.id).rpartition("/")[2]
    assert token.encode() not in await world.contents()
    last = (await world.audited(account))[-1]
    assert (last.action, last.details) == ("member.invited", {"email": ANN, "role": "manager"})
    assert last.subject == ids.prefixed(ids.INVITATION, created.invitation.id)


async def test_a_withdrawn_or_replaced_invitation_is_not_mailed(world: World) -> None:
    account, other = await world.account(), await world.account("other")
    invite = world.services.members.invite
    await invite(world.operator, other, InvitationDraft(ANN, "member"))
    first = await invite(world.operator, account, InvitationDraft(ANN, "member"))
    second = await invite(world.operator, account, InvitationDraft(ANN, "manager"))

    async def invited() -> list[tuple[str, str]]:
        emails = await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=10))
        return sorted((email.facts["account"], email.facts["role"]) for email in emails)

    assert first.invitation.id != second.invitation.id
    assert await invited() == [("Riverside", "manager"), ("other", "member")]
    await world.services.members.withdraw(world.operator, account, ids.prefixed(ids.INVITATION, second.invitation.id))
    assert await invited() == [("other", "member")]
    await world.services.accounts.delete(world.operator, other)
    assert await invited() == []


async def test_removed_contacts_get_no_waiting_email(world: World) -> None:
    account = await world.account()
    await world.services.accounts.update(world.operator, account, AccountDraft(contact_emails=["a@x.example", ANN]))
    seq = world.seq(account)

    def add(connection: Any) -> None:
        for number, kind in enumerate((NotificationKind.ENDPOINT_WARNED, NotificationKind.MEMBER_INVITED)):
            recipients = [(world.context.new_id(), email) for email in ("a@x.example", ANN)]
            outbox.add(
                connection, kind, account_seq=seq, endpoint_seq=None, recipients=recipients, facts={}, now=number
            )

    await world.database.write(add)
    await world.services.accounts.update(world.operator, account, AccountDraft(contact_emails=["a@x.example"]))
    emails = await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=10))
    assert sorted((email.kind.name, email.recipient) for email in emails) == [
        ("ENDPOINT_WARNED", "a@x.example"),
        ("MEMBER_INVITED", "a@x.example"),
        ("MEMBER_INVITED", ANN),
    ]


async def test_an_added_contact_gets_the_unsent_emails_of_removed_contacts_once(world: World) -> None:
    account = await world.account()
    seq = world.seq(account)
    update = world.services.accounts.update
    await update(world.operator, account, AccountDraft(contact_emails=["a@x.example", "b@x.example"]))

    def add(connection: Any) -> None:
        for kind in (NotificationKind.ENDPOINT_WARNED, NotificationKind.ENDPOINT_DISABLED):
            recipients = [(world.context.new_id(), email) for email in ("a@x.example", "b@x.example")]
            outbox.add(
                connection, kind, account_seq=seq, endpoint_seq=7, recipients=recipients, facts={"url": "u"}, now=5
            )
        outbox.settle(connection, [EmailResult(1, 3, due_at=world.clock.now + 1, last_error="busy")])

    async def due() -> list[tuple[int, str, int, int]]:
        emails = await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=10))
        assert all(email.facts == {"url": "u"} for email in emails)
        return sorted((email.kind, email.recipient, email.created_at, email.attempts_made) for email in emails)

    await world.database.write(add)
    await update(world.operator, account, AccountDraft(contact_emails=["c@x.example"]))
    assert await due() == [(kind, "c@x.example", 5, 0) for kind in (0, 1)]
    [sent, _] = await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=10))
    await world.database.write(lambda c: outbox.settle(c, [EmailResult(sent.seq, 1, sent_at=9)]))
    await update(world.operator, account, AccountDraft(contact_emails=["a@x.example"]))
    await update(world.operator, account, AccountDraft(contact_emails=["c@x.example", "b@x.example"]))
    other = int(not sent.kind)
    assert await due() == [(other, "b@x.example", 5, 0), (other, "c@x.example", 5, 0)]
    await update(world.operator, account, AccountDraft(contact_emails=[]))
    assert await due() == []


async def test_without_email_the_inviter_gets_the_link(world: World) -> None:
    account, without_email = await world.account(), world.build(sends_email=False)
    created = await without_email.members.invite(world.operator, account, InvitationDraft(ANN, "member"))
    assert (created.url or "").startswith(f"{URL}/invitations/")
    assert await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=10)) == []


@pytest.mark.parametrize(("own", "other"), list(itertools.product(Role, Role)), ids=lambda role: role.text)
async def test_each_role_manages_only_the_allowed_roles(world: World, own: Role, other: Role) -> None:
    """Members and managers manage no members, admins manage all except owners, and owners manage all."""
    account = await world.account()
    await world.member(account, "spare@example.com", Role.OWNER)
    await world.member(account, "spare2@example.com", Role.OWNER)
    target = await world.member(account, "target@example.com", other)
    members = world.services.members
    invited = await members.invite(world.operator, account, InvitationDraft("open@example.com", other.text))
    invitation = ids.prefixed(ids.INVITATION, invited.invitation.id)
    actor = await caller(world, account, own)
    is_allowed = own is Role.OWNER or (own is Role.ADMIN and other is not Role.OWNER)

    for call in (
        members.invite(actor, account, InvitationDraft("new@example.com", other.text)),
        members.change_role(actor, account, target, "admin" if other is not Role.ADMIN else "member"),
        members.change_role(actor, account, target, other.text),
        members.withdraw(actor, account, invitation),
        members.remove(actor, account, target),
    ):
        if is_allowed:
            await call
        else:
            with pytest.raises(Forbidden):
                await call
    assert ("target@example.com" in await roles(world, account)) is not is_allowed


async def test_only_admins_and_owners_can_list_members(world: World) -> None:
    account = await world.account()
    members = world.services.members
    await members.invite(world.operator, account, InvitationDraft(ANN, "member"))
    for role in Role:
        actor = await caller(world, account, role)
        if role < Role.ADMIN:
            for call in (members.page(actor, account, ALL), members.invitations(actor, account, ALL)):
                with pytest.raises(Forbidden):
                    await call
        else:
            assert len((await members.page(actor, account, ALL)).items) > 2
            assert [each.email for each in (await members.invitations(actor, account, ALL)).items] == [ANN]


async def test_an_owner_has_no_rights_in_another_account(world: World) -> None:
    mine, theirs = await world.account("mine"), await world.account("theirs")
    owner = await caller(world, mine, Role.OWNER)
    target = await world.member(theirs, "target@example.com")
    members = world.services.members
    invited = await members.invite(world.operator, theirs, InvitationDraft(ANN, "member"))
    invitation = ids.prefixed(ids.INVITATION, invited.invitation.id)
    draft = InvitationDraft("new@example.com", "member")
    for account in (theirs, mine):
        for call in (
            members.change_role(owner, account, target, "admin"),
            members.remove(owner, account, target),
            members.withdraw(owner, account, invitation),
        ):
            with pytest.raises(NotFound):
                await call
    for call in (
        members.page(owner, theirs, ALL), members.invitations(owner, theirs, ALL), members.invite(owner, theirs, draft),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            await call
    assert await roles(world, theirs) == {"target@example.com": "member"}


async def test_the_last_owner_cannot_leave_or_change_role(world: World) -> None:
    account = await world.account()
    only = await world.member(account, "only@example.com", Role.OWNER)
    members = world.services.members
    own = (await world.sign_in("only@example.com")).caller(account, ADDRESS)
    for actor in (own, world.operator):
        with pytest.raises(Conflict, match="must have an owner"):
            await members.remove(actor, account, only)
        with pytest.raises(Conflict, match="must have an owner"):
            await members.change_role(actor, account, only, "admin")
    await members.change_role(own, account, only, "owner")
    other = await world.member(account, "other@example.com", Role.OWNER)

    results = await asyncio.gather(
        members.remove(own, account, only), members.remove(world.operator, account, other), return_exceptions=True
    )

    assert [type(each) for each in results] == [type(None), Conflict]
    assert await roles(world, account) == {"other@example.com": "owner"}


async def test_a_member_can_leave(world: World) -> None:
    account = await world.account()
    member = await world.member(account, ANN)
    cookie = await world.services.sessions.sign_in(ANN, "correct horse battery", address=ADDRESS)
    leaving = (await world.visitor(cookie)).caller(account, ADDRESS)
    await world.services.members.remove(leaving, account, member)
    assert await world.services.sessions.visitor(cookie) is None
    assert await world.database.read(lambda c: people.find(c, ANN)) is None
    last = (await world.audited(account))[-1]
    assert (last.action, last.subject, last.details) == ("member.removed", member, {"name": ANN, "role": "member"})


async def test_removing_a_member_keeps_a_person_with_another_account(world: World) -> None:
    one, two = await world.account("one"), await world.account("two")
    member = await world.member(one, ANN)
    await world.member(two, ANN)
    cookie = await world.services.sessions.sign_in(ANN, "correct horse battery", address=ADDRESS)
    await world.services.members.remove(world.operator, one, member)
    assert [each.account.name for each in (await world.visitor(cookie)).memberships] == ["two"]


async def test_a_changed_role_is_audited(world: World) -> None:
    account = await world.account()
    member = await world.member(account, ANN)
    changed = await world.services.members.change_role(world.operator, account, member, "manager")
    assert changed.role is Role.MANAGER
    again = await world.services.members.change_role(world.operator, account, member, "manager")
    assert again == changed
    entries = [each.details for each in await world.audited(account) if each.action == "member.role_changed"]
    assert entries == [{"name": ANN, "from": "member", "to": "manager"}]


@pytest.mark.parametrize("change", ["remove", "change_role"])
async def test_a_pending_invitation_cannot_undo_a_decision_about_a_member(world: World, change: str) -> None:
    """A person who was invited can join with a portal link instead, so that the invitation stays pending."""
    account, members = await world.account(), world.services.members
    await members.invite(world.operator, account, InvitationDraft(ANN, "admin"))
    await members.invite(world.operator, account, InvitationDraft("other@example.com", "admin"))
    ann = await world.member(account, ANN, Role.ADMIN)

    arguments = ("member",) if change == "change_role" else ()
    await getattr(members, change)(world.operator, account, ann, *arguments)

    left = await members.invitations(world.operator, account, ALL)
    assert [each.email for each in left.items] == ["other@example.com"]
    assert (await world.audited(account))[-1].details["withdrawn_invitation"] == "admin"


async def test_a_guest_cannot_become_owner(world: World) -> None:
    account = await world.account()
    await world.services.sessions.open_link(await world.portal(account), address=None)
    [guest] = (await world.services.members.page(world.operator, account, ALL)).items
    member = ids.prefixed(ids.MEMBER, guest.id)
    with pytest.raises(Invalid) as rejected:
        await world.services.members.change_role(world.operator, account, member, "owner")
    assert [each.code for each in rejected.value.problems] == ["role_not_for_guests"]
    assert (await world.services.members.change_role(world.operator, account, member, "admin")).role is Role.ADMIN


async def test_problems_name_the_field(world: World) -> None:
    account = await world.account()
    member = await world.member(account, ANN)
    for draft, problems in (
        (InvitationDraft("ann", "boss"), [("email", "email_invalid"), ("role", "role_unknown")]),
        (InvitationDraft(ANN.upper(), "member"), [("email", "member_exists")]),
    ):
        with pytest.raises(Invalid) as rejected:
            await world.services.members.invite(world.operator, account, draft)
        assert [(each.field, each.code) for each in rejected.value.problems] == problems
    with pytest.raises(Invalid) as rejected:
        await world.services.members.change_role(world.operator, account, member, "boss")
    assert [(each.field, each.code) for each in rejected.value.problems] == [("role", "role_unknown")]
    for other in ("mem_" + "0" * 32, "mem", member.upper()):
        with pytest.raises(NotFound):
            await world.services.members.remove(world.operator, account, other)
    for other in ("inv_" + "0" * 32, member):
        with pytest.raises(NotFound):
            await world.services.members.withdraw(world.operator, account, other)


async def test_an_invitation_replaces_an_earlier_one(world: World) -> None:
    account, without_email = await world.account(), world.build(sends_email=False)
    first = await without_email.members.invite(world.operator, account, InvitationDraft(ANN, "member"))
    second = await without_email.members.invite(world.operator, account, InvitationDraft(ANN, "admin"))
    listed = (await without_email.members.invitations(world.operator, account, ALL)).items
    assert listed == [second.invitation]
    assert await without_email.sessions.invitation((first.url or "").rpartition("/")[2]) is None


async def test_replacing_an_invitation_requires_the_right_to_grant_its_role(world: World) -> None:
    account, members = await world.account(), world.services.members
    admin, owner = await caller(world, account, Role.ADMIN), await caller(world, account, Role.OWNER)
    created = await members.invite(owner, account, InvitationDraft(ANN, "owner"))
    with pytest.raises(Forbidden, match="owner"):
        await members.invite(admin, account, InvitationDraft(ANN.upper(), "member"))
    assert (await members.invitations(owner, account, ALL)).items == [created.invitation]
    world.clock.now += INVITATION_TTL_MS
    await members.invite(admin, account, InvitationDraft(ANN, "member"))
    await members.invite(admin, account, InvitationDraft(ANN, "admin"))
    await members.invite(owner, account, InvitationDraft(ANN, "owner"))
    assert [each.role for each in (await members.invitations(owner, account, ALL)).items] == [Role.OWNER]


async def test_a_repeated_request_creates_no_second_invitation(world: World) -> None:
    account = await world.account()
    repeat, draft = IdempotencyKey("once", b"digest"), InvitationDraft(ANN, "member")
    created = [
        await world.services.members.invite(world.operator, account, draft, idempotency_key=repeat) for _ in range(2)
    ]
    assert [each.repeated for each in created] == [False, True]
    assert created[0].invitation == created[1].invitation
    assert len(await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=10))) == 1
    await world.services.members.withdraw(
        world.operator, account, ids.prefixed(ids.INVITATION, created[0].invitation.id)
    )
    with pytest.raises(IdempotencyConflict):
        await world.services.members.invite(world.operator, account, draft, idempotency_key=repeat)


async def test_invitations_expire_and_are_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invitations, "INVITATIONS_PER_ACCOUNT_MAX", 2)
    account, members = await world.account(), world.services.members
    for number in range(2):
        await members.invite(world.operator, account, InvitationDraft(f"{number}@example.com", "member"))
    with pytest.raises(Conflict, match="which is the limit"):
        await members.invite(world.operator, account, InvitationDraft(ANN, "member"))
    world.clock.now += INVITATION_TTL_MS
    assert (await members.invitations(world.operator, account, ALL)).items == []
    await members.invite(world.operator, account, InvitationDraft(ANN, "member"))


async def test_invitation_emails_are_rate_limited(world: World) -> None:
    account, members = await world.account(), world.services.members
    owner = await caller(world, account, Role.OWNER)
    for _ in range(INVITATIONS_PER_HOUR_MAX):
        await members.invite(owner, account, InvitationDraft(ANN, "member"))
    with pytest.raises(RateLimited) as rejected:
        await members.invite(owner, account, InvitationDraft(ANN, "member"))
    assert rejected.value.retry_after_s == 3600
    await members.invite(world.operator, account, InvitationDraft(ANN, "member"))
    other = await world.account("other")
    await members.invite(await caller(world, other, Role.OWNER), other, InvitationDraft(ANN, "member"))
    world.clock.now += 3_600_000
    await members.invite(owner, account, InvitationDraft(ANN, "member"))


async def test_members_are_paginated(world: World) -> None:
    account = await world.account()
    for number in range(5):
        await world.member(account, f"{number}@example.com", password=None)
    seen, cursor = [], None
    for _ in range(3):
        page = await world.services.members.page(world.operator, account, Listing(2, cursor))
        seen += [re.sub("@.*", "", each.person.email or "") for each in page.items]
        cursor = None if page.next_key is None else world.context.cursors.encode(page.next_key)
    assert (seen, cursor) == (["4", "3", "2", "1", "0"], None)
