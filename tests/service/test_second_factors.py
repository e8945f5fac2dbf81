"""Second factors: setup, sign-in with codes, limits, recovery codes, resets, and no plain secrets in the database."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from uplift_server.core.people.notifications import NotificationKind
from uplift_server.core.security import totp
from uplift_server.core.security.rights import Role
from uplift_server.service.context import Listing
from uplift_server.service.errors import Conflict, Forbidden, Invalid, NotFound, RateLimited, Unauthorized
from uplift_server.service.members import InvitationDraft
from uplift_server.service.second_factors import PENDING_MS, PendingSignIn, SecondFactorRequired
from uplift_server.service.sign_ins import CODES_PER_PERSON_MAX, WITHIN_MS
from uplift_server.service.visitors import Visitor
from uplift_server.store import outbox, people
from uplift_server.store.schema_people import recovery_codes, second_factors, sessions

from .world import ADDRESS, PASSWORD, World

ANN = "ann@example.com"


class App:
    """An authenticator app of a person, and their recovery codes."""

    def __init__(self, world: World, secret: bytes) -> None:
        self.world, self.secret = world, secret
        self.recovery_codes: list[str] = []

    def code(self, skew: int = 0) -> str:
        """Return the current code of the app. Its clock is `skew` steps ahead."""
        return totp.code_at(self.secret, totp.step_at(self.world.clock.now) + skew)

    def next_code(self) -> str:
        """Advance the clock to the next code, and return this code."""
        self.world.clock.now += totp.STEP_MS
        return self.code()


async def turned_on(world: World, visitor: Visitor) -> App:
    """Turn on the second factor of a visitor."""
    settings = world.services.second_factor
    app = App(world, settings.new_secret())
    app.recovery_codes = await settings.turn_on(visitor, app.secret, app.code(), PASSWORD, address=ADDRESS)
    return app


async def with_factor(world: World, account: str | None = None) -> App:
    """Create Ann with a second factor."""
    await world.member(account or await world.account(), ANN, Role.OWNER)
    return await turned_on(world, await world.sign_in(ANN))


async def password(world: World) -> PendingSignIn:
    """Enter Ann's password. Return the pending sign-in, which still needs a code."""
    with pytest.raises(SecondFactorRequired) as asked:
        await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)
    return asked.value.pending


async def sign_in(world: World, code: str, pending: PendingSignIn | None = None, address: str = ADDRESS) -> Visitor:
    """Sign Ann in with her password and a code."""
    pending = pending or await password(world)
    return await world.visitor(await world.services.sessions.enter_code(pending, code, address=address))


async def count(world: World, table: sa.Table) -> int:
    """Count the rows of a table."""
    return await world.database.read(lambda c: c.scalars(sa.select(sa.func.count()).select_from(table)).one())


async def emails(world: World) -> list[object]:
    """Return the changes of second factors about which Ann gets an email."""
    found = await world.database.read(lambda c: outbox.due(c, now=world.clock.now, limit=100))
    assert {each.recipient for each in found} <= {ANN}
    return [each.facts["change"] for each in found if each.kind is NotificationKind.SECOND_FACTOR_CHANGED]


async def test_the_password_alone_begins_no_session(world: World) -> None:
    account = await world.account()
    app = await with_factor(world, account)
    before = await count(world, sessions)
    await password(world)
    assert await count(world, sessions) == before
    visitor = await sign_in(world, app.next_code())
    assert visitor.name == ANN
    last = (await world.audited(account))[-1]
    assert (last.action, last.details) == ("member.signed_in", {"by": "password", "second_factor": "app"})


async def test_turning_it_on_requires_the_password_and_a_code(world: World) -> None:
    await world.member(await world.account(), ANN)
    visitor, settings = await world.sign_in(ANN), world.services.second_factor
    app = App(world, settings.new_secret())
    for code, given, field in (("000000", PASSWORD, "code"), (app.code(), "wrong", "password")):
        with pytest.raises(Invalid) as rejected:
            await settings.turn_on(visitor, app.secret, code, given, address=ADDRESS)
        assert [each.field for each in rejected.value.problems] == [field]
    assert visitor.person is not None
    assert await settings.state(visitor.person) is None
    await world.sign_in(ANN)


async def test_turning_it_on_ends_the_other_sessions(world: World) -> None:
    await world.member(await world.account(), ANN)
    other = await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)
    own = await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)
    await turned_on(world, await world.visitor(own))
    assert await world.services.sessions.visitor(other) is None
    with pytest.raises(Conflict):
        await turned_on(world, await world.visitor(own))
    assert await emails(world) == ["turned_on"]


async def test_people_without_a_password_cannot_turn_it_on(world: World) -> None:
    account = await world.account()
    for draft in ({"email": ANN}, {}):
        cookie = await world.services.sessions.open_link(await world.portal(account, **draft), address=ADDRESS)
        with pytest.raises(Forbidden):
            await turned_on(world, await world.visitor(cookie))


async def test_a_code_works_once(world: World) -> None:
    app = await with_factor(world)
    with pytest.raises(Unauthorized):
        await sign_in(world, app.code())  # This code was used to turn on the second factor.
    code = app.next_code()
    await sign_in(world, code)
    pending = await password(world)
    for used in (code, app.code(-1)):
        with pytest.raises(Unauthorized):
            await sign_in(world, used, pending)
    await sign_in(world, app.code(1), pending)


async def test_two_requests_cannot_use_the_same_code(world: World) -> None:
    app = await with_factor(world)
    code, pending = app.next_code(), await password(world)
    found = await asyncio.gather(*(sign_in(world, code, pending) for _ in range(3)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in found) == ["Unauthorized", "Unauthorized", "Visitor"]


@pytest.mark.parametrize(("skew", "works"), [(-2, False), (-1, True), (1, True), (2, False)])
async def test_the_clock_of_the_app_may_differ_by_one_step(world: World, skew: int, works: bool) -> None:
    app = await with_factor(world)
    world.clock.now += 10 * totp.STEP_MS
    if works:
        await sign_in(world, app.code(skew))
    else:
        with pytest.raises(Unauthorized):
            await sign_in(world, app.code(skew))


async def test_wrong_codes_are_limited_for_each_person(world: World) -> None:
    app = await with_factor(world)
    pending = await password(world)
    for number in range(CODES_PER_PERSON_MAX):
        with pytest.raises(Unauthorized):
            await sign_in(world, "000000", pending, address=f"203.0.113.{number}")
    for again in (pending, await password(world)):
        with pytest.raises(RateLimited):
            await sign_in(world, app.next_code(), again, address="198.51.100.7")
    world.clock.now += WITHIN_MS
    await sign_in(world, app.code())


async def test_a_right_password_does_not_reset_the_count_of_wrong_codes(world: World) -> None:
    await with_factor(world)
    for _ in range(CODES_PER_PERSON_MAX):
        with pytest.raises(Unauthorized):
            await sign_in(world, "000000")
    with pytest.raises(RateLimited):
        await sign_in(world, "000000")


async def test_a_wrong_password_does_not_reveal_the_second_factor(world: World) -> None:
    await with_factor(world)
    texts = set()
    for email in (ANN, "nobody@example.com"):
        with pytest.raises(Unauthorized) as rejected:
            await world.services.sessions.sign_in(email, "wrong", address=ADDRESS)
        texts.add(rejected.value.detail)
    assert len(texts) == 1


async def test_a_sign_in_expires_after_five_minutes_or_with_the_password(world: World) -> None:
    app = await with_factor(world)
    pending = await password(world)
    for invalid in (None, pending._replace(mark="0" * 64), pending._replace(person_id=bytes(16))):
        with pytest.raises(NotFound):
            await world.services.sessions.enter_code(invalid, app.next_code(), address=ADDRESS)
    world.clock.now = pending.expires_at
    assert pending.expires_at - PENDING_MS < world.clock.now
    with pytest.raises(NotFound):
        await sign_in(world, app.code(), pending)


async def test_a_recovery_code_works_once(world: World) -> None:
    account = await world.account()
    app = await with_factor(world, account)
    assert len(set(app.recovery_codes)) == totp.RECOVERY_CODES
    code = app.recovery_codes[3]
    visitor = await sign_in(world, f" {code.upper()} ")
    assert (await world.audited(account))[-1].details == {"by": "password", "second_factor": "recovery code"}
    assert visitor.person is not None
    state = await world.services.second_factor.state(visitor.person)
    assert state is not None
    assert state.recovery_codes == totp.RECOVERY_CODES - 1
    with pytest.raises(Unauthorized):
        await sign_in(world, code)
    assert await emails(world) == ["turned_on", "recovery_code_used"]


async def test_new_recovery_codes_replace_the_old_ones(world: World) -> None:
    app = await with_factor(world)
    visitor, settings = await sign_in(world, app.next_code()), world.services.second_factor
    for code, given in (("000000", PASSWORD), (app.next_code(), "wrong")):
        with pytest.raises(Invalid):
            await settings.new_recovery_codes(visitor, code, given, address=ADDRESS)
    new = await settings.new_recovery_codes(visitor, app.next_code(), PASSWORD, address=ADDRESS)
    assert not {*new} & {*app.recovery_codes}
    with pytest.raises(Unauthorized):
        await sign_in(world, app.recovery_codes[0])
    await sign_in(world, new[0])


async def test_turning_it_off_requires_the_password_and_a_code(world: World) -> None:
    account = await world.account()
    app = await with_factor(world, account)
    visitor, settings = await sign_in(world, app.next_code()), world.services.second_factor
    for code, given in (("000000", PASSWORD), (app.next_code(), "wrong")):
        with pytest.raises(Invalid):
            await settings.turn_off(visitor, code, given, address=ADDRESS)
    await settings.turn_off(visitor, app.recovery_codes[0], PASSWORD, address=ADDRESS)
    await world.sign_in(ANN)
    with pytest.raises(Conflict):
        await settings.turn_off(visitor, app.next_code(), PASSWORD, address=ADDRESS)
    assert (await count(world, second_factors), await count(world, recovery_codes)) == (0, 0)
    assert await emails(world) == ["turned_on", "recovery_code_used", "turned_off"]
    actions = [each.action for each in await world.audited(account) if "second_factor" in each.action]
    assert actions == ["member.second_factor_turned_on", "member.second_factor_turned_off"]


async def reset_token(world: World) -> str:
    """Return the token of a link that resets Ann's password."""
    person = await world.database.read(lambda c: people.find(c, ANN))
    assert person is not None
    assert person.password_hash is not None
    url = world.services.sessions._links.reset_url(person.id, person.password_hash, world.clock.now + 60_000)
    return url.rpartition("/")[2]


async def doubt(world: World) -> None:
    """Mark the emails of all people as not verified."""

    def update(connection: Any) -> None:
        connection.execute(sa.update(people.people).values(proved=False))

    await world.database.write(update)


async def test_a_password_reset_does_not_bypass_it(world: World) -> None:
    app = await with_factor(world)
    earlier = await password(world)
    with pytest.raises(SecondFactorRequired) as asked:
        await world.services.sessions.reset(await reset_token(world), "a wholly new one", address=ADDRESS)
    with pytest.raises(NotFound):
        await sign_in(world, app.next_code(), earlier)
    await sign_in(world, app.next_code(), asked.value.pending)


async def test_an_invitation_does_not_bypass_it(world: World) -> None:
    app = await with_factor(world)
    other = await world.account("Other")
    created = await world.services.members.invite(world.operator, other, InvitationDraft(ANN, "member"))
    token = world.services.sessions._links.invitation_url(created.invitation.id).rpartition("/")[2]
    before = await count(world, sessions)
    with pytest.raises(SecondFactorRequired) as asked:
        await world.services.sessions.accept_invitation(token, "Ann", PASSWORD, address=ADDRESS)
    assert await count(world, sessions) == before
    visitor = await sign_in(world, app.next_code(), asked.value.pending)
    assert len(visitor.memberships) == 2


async def test_an_operator_resets_it_for_all_accounts_of_a_person(world: World) -> None:
    first, second = await world.account(), await world.account("Other")
    member = await world.member(first, ANN, Role.OWNER)
    other = await world.member(second, ANN)
    await turned_on(world, await world.sign_in(ANN))
    page = await world.services.members.page(world.operator, first, Listing(10))
    assert [each.has_second_factor for each in page.items] == [True]
    await world.services.members.reset_second_factor(world.operator, first, member)
    await world.sign_in(ANN)
    for account, subject in ((first, member), (second, other)):
        entries = [each for each in await world.audited(account) if each.action == "member.second_factor_reset"]
        assert [(each.subject, each.actor.kind.text) for each in entries] == [(subject, "operator")]
    assert await emails(world) == ["turned_on", "reset"]
    with pytest.raises(Conflict):
        await world.services.members.reset_second_factor(world.operator, first, member)


async def test_owners_cannot_reset_it(world: World) -> None:
    account = await world.account()
    member = await world.member(account, ANN)
    await turned_on(world, await world.sign_in(ANN))
    await world.member(account, "owner@example.com", Role.OWNER)
    owner = (await world.sign_in("owner@example.com")).caller(account, ADDRESS)
    with pytest.raises(Forbidden):
        await world.services.members.reset_second_factor(owner, account, member)
    await password(world)


async def test_a_link_of_the_operator_does_not_ask_for_it(world: World) -> None:
    account = await world.account()
    await with_factor(world, account)
    cookie = await world.services.sessions.open_link(await world.portal(account, email=ANN), address=ADDRESS)
    assert (await world.visitor(cookie)).name == ANN


async def test_a_second_factor_of_someone_else_ends_when_the_email_is_verified(world: World) -> None:
    account = await world.account()
    await with_factor(world, account)

    await doubt(world)
    await world.services.sessions.open_link(await world.portal(account, email=ANN), address=ADDRESS)
    assert (await count(world, second_factors), await count(world, recovery_codes)) == (0, 0)


async def test_the_audit_log_reports_a_reset_that_turns_off_the_second_factor(world: World) -> None:
    account = await world.account()
    await with_factor(world, account)
    await doubt(world)
    await world.services.sessions.reset(await reset_token(world), "a wholly new one", address=ADDRESS)
    assert await count(world, second_factors) == 0
    entries = [(each.action, each.details) for each in await world.audited(account)]
    assert ("member.second_factor_turned_off", {"by": "reset"}) in entries


async def test_the_database_contains_neither_the_key_nor_the_codes(world: World) -> None:
    app = await with_factor(world)
    contents = await world.contents()
    key = totp.key_text(app.secret).encode()
    for secret in (app.secret, app.secret.hex().encode(), key, *(each.encode() for each in app.recovery_codes)):
        assert secret not in contents


async def test_a_removed_person_has_no_second_factor(world: World) -> None:
    account = await world.account()
    member = await world.member(account, ANN)
    await turned_on(world, await world.sign_in(ANN))
    await world.services.members.remove(world.operator, account, member)
    assert (await count(world, second_factors), await count(world, recovery_codes)) == (0, 0)
