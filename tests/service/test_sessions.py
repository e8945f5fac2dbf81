"""Sign-ins, sign-in limits and sessions."""

import asyncio
import base64
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from tests.logs import without_slow_reads

from uplift_server.core.people.audit import ActorKind
from uplift_server.core.people.people import SESSION_TTL_MS, csrf_token
from uplift_server.core.security.rights import Right, Role
from uplift_server.core.security.scopes import Scope
from uplift_server.service.accounts import AccountDraft
from uplift_server.service.errors import (
    Busy,
    ConfirmationRequired,
    Forbidden,
    NotFound,
    RateLimited,
    Unauthorized,
)
from uplift_server.service.keys import KeyDraft
from uplift_server.service.listening import ListenDraft
from uplift_server.service.passwords import NICENESS, WAITING_MAX, Passwords
from uplift_server.service.sign_ins import FAILURES_MAX, SignInLimits
from uplift_server.store import members, people
from uplift_server.store.errors import Unavailable

from .world import ADDRESS, PASSWORD, World, key_digest

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
ANN = "ann@example.com"


async def test_a_person_has_the_role_of_each_account(world: World) -> None:
    one, two, other = [await world.account(name) for name in ("one", "two", "other")]
    member = await world.member(one, ANN, Role.MEMBER)
    await world.member(two, ANN, Role.OWNER)

    visitor = await world.sign_in(" Ann@Example.COM ")

    assert [(each.account.name, each.role) for each in visitor.memberships] == [
        ("one", Role.MEMBER),
        ("two", Role.OWNER),
    ]
    assert visitor.name == ANN
    caller = visitor.caller(one, ADDRESS)
    assert caller.account_seq == world.seq(one)
    assert (caller.actor.kind, caller.actor.id, caller.actor.name) == (ActorKind.MEMBER, member, ANN)
    caller.require(Scope.EVENTS_READ)
    with pytest.raises(Forbidden, match=r"Your role, member,.*endpoints:write"):
        caller.require(Scope.ENDPOINTS_WRITE)
    visitor.caller(two, ADDRESS).require_right(Right.MEMBERS_MANAGE)
    for account in (other, "acc_" + "0" * 32, "acc", one.upper()):
        with pytest.raises(NotFound):
            visitor.caller(account, ADDRESS)
    with pytest.raises(NotFound):
        visitor.operator(ADDRESS)
    assert [(each.action, each.actor.id, each.details) for each in await world.audited(one)][-1] == (
        "member.signed_in", member, {"by": "password"},
    )  # fmt: skip


async def test_a_wrong_password_and_an_unknown_email_have_the_same_error(world: World) -> None:
    account = await world.account()
    await world.member(account, ANN)
    await world.member(account, "portal@example.com", password=None)
    texts = set()
    for email, password in (
        (ANN, "wrong"),
        ("nobody@example.com", PASSWORD),
        ("portal@example.com", PASSWORD),
        (ANN, ""),
    ):
        with pytest.raises(Unauthorized) as rejected:
            await world.services.sessions.sign_in(email, password, address=ADDRESS)
        texts.add(rejected.value.detail)
    assert len(texts) == 1


async def test_a_rejected_sign_in_is_logged_without_the_email(world: World) -> None:
    await world.member(await world.account(), ANN)
    with capture_logs() as logs:
        for sign_in in (
            world.services.sessions.sign_in(ANN, "my secret", address=ADDRESS),
            world.services.sessions.sign_in_operator("op_my secret", address=ADDRESS),
        ):
            with pytest.raises(Unauthorized):
                await sign_in
    rejections = [(each["event"], each["client_address"]) for each in without_slow_reads(logs)]
    assert rejections == [("sign-in rejected", ADDRESS)] * 2
    assert "secret" not in str(logs)
    assert ANN not in str(logs)


async def test_a_person_deleted_during_sign_in_gets_no_session(world: World) -> None:
    """On SQLite, a new person gets the sequence number of the deleted one, but not their session."""
    account = await world.account()
    member = await world.member(account, ANN)
    person = await world.database.read(lambda c: people.find(c, ANN))
    assert person is not None
    await world.services.members.remove(world.operator, account, member)
    await world.member(account, "bob@example.com")
    next_one = await world.database.read(lambda c: people.find(c, "bob@example.com"))
    assert next_one is not None
    assert (next_one.seq == person.seq) == (world.place.file is not None)
    with pytest.raises(Unauthorized):
        await world.services.sessions.begin_session(person, "password", ADDRESS)


async def test_a_password_change_during_sign_in_prevents_the_session(world: World) -> None:
    await world.member(await world.account(), ANN)
    visitor = await world.sign_in(ANN)
    assert visitor.person is not None
    await world.services.sessions.change_password(visitor, PASSWORD, "a wholly new one", address=ADDRESS)
    with pytest.raises(Unauthorized):
        await world.services.sessions.begin_session(visitor.person, "password", ADDRESS)


async def test_an_unknown_email_takes_one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known email takes one hash too, so the response time does not reveal whether the email is known."""
    passwords, checked = Passwords(), []
    real = await passwords.hash(PASSWORD)
    monkeypatch.setattr("uplift_server.service.passwords._matches", lambda hashed, _: checked.append(hashed) or True)

    assert await passwords.matches(real, PASSWORD)
    assert not await passwords.matches(None, PASSWORD)
    assert len(checked) == 2
    assert [each.split("$")[1:4] for each in checked] == [["argon2id", "v=19", "m=32768,t=3,p=1"]] * 2


async def test_an_email_is_limited_after_five_failures(world: World) -> None:
    account = await world.account()
    await world.member(account, ANN)
    await world.member(account, "bob@example.com")
    pending = [world.services.sessions.sign_in(ANN, "wrong", address=f"192.0.2.{n}") for n in range(8)]
    errors = await asyncio.gather(*pending, return_exceptions=True)
    assert sorted(type(each).__name__ for each in errors) == ["RateLimited"] * 3 + ["Unauthorized"] * 5

    with pytest.raises(RateLimited, match="15 minutes") as limited:
        await world.services.sessions.sign_in(ANN.upper(), PASSWORD, address="198.51.100.1")
    assert limited.value.retry_after_s == 15 * 60
    await world.sign_in("bob@example.com")

    world.clock.now += 15 * MINUTE
    await world.sign_in(ANN)


async def test_an_ip_address_is_limited_after_thirty_failures(world: World) -> None:
    await world.member(await world.account(), ANN)
    for number in range(30):
        if number % 3 == 0:
            with pytest.raises(Unauthorized):
                await world.services.sessions.sign_in_operator("op_wrong", address=f"2001:db8:1:2::{number:x}")
        else:
            with pytest.raises(Unauthorized):
                await world.services.sessions.sign_in(f"{number}@example.com", "x", address=f"2001:db8:1:2::{number:x}")
    for sign_in in (
        world.services.sessions.sign_in(ANN, PASSWORD, address="2001:db8:1:2:ffff::"),
        world.services.sessions.sign_in_operator(world.operator_key, address="2001:db8:1:2::"),
    ):
        with pytest.raises(RateLimited):
            await sign_in
    await world.services.sessions.sign_in(ANN, PASSWORD, address="2001:db8:1:3::1")
    await world.services.sessions.sign_in(ANN, PASSWORD, address=None)


async def test_the_address_of_an_unknown_proxy_is_not_limited(world: World) -> None:
    limits = SignInLimits(has_unknown_proxy=True)
    for _ in range(40):
        for address in ("127.0.0.1", "10.0.0.5", "100.64.1.1", "fd00::1"):
            limits.begin(world.clock.now, email=None, address=address)
    for _ in range(30):
        limits.begin(world.clock.now, email=None, address="8.8.8.8")
    with pytest.raises(RateLimited):
        limits.begin(world.clock.now, email=None, address="8.8.8.8")


def network(number: int) -> str:
    """Return an address in a different network for each number."""
    return f"2001:{number:x}::1"


@pytest.mark.parametrize(("begin", "limit"), [("begin", 5), ("begin_reset", 3)])
def test_a_flood_does_not_reset_the_count_of_an_email(world: World, begin: str, limit: int) -> None:
    limits, now = SignInLimits(), world.clock.now
    start = getattr(limits, begin)
    for number in range(limit):
        start(now, email=ANN, address=network(number))
    for number in range(10_050):
        with suppress(RateLimited):
            start(now + 1, email=f"{number}@example.com", address=network(number))
    with pytest.raises(RateLimited):
        start(now + 2, email=ANN, address=None)


@pytest.mark.parametrize(
    ("address", "limit"),
    [
        ("192.0.2.1", 30),
        ("::ffff:192.0.2.1", 30),
        ("192.0.2.{}", 120),
        ("2001:db8:1:2::{:x}", 30),
        ("2001:db8:1:ff{:02x}::1", 60),
        ("2001:db8:1:{:x}00::1", 120),
    ],
)
def test_the_failures_of_a_network_are_counted_together(world: World, address: str, limit: int) -> None:
    limits, now = SignInLimits(), world.clock.now
    for number in range(limit):
        limits.begin(now, email=None, address=address.format(number))
    with pytest.raises(RateLimited):
        limits.begin(now, email=None, address=address.format(limit))
    for other in ("192.0.3.1", "2001:db8:2::1"):
        limits.begin(now, email=None, address=other)


def test_the_total_number_of_failures_is_limited(world: World) -> None:
    limits, now = SignInLimits(), world.clock.now
    for number in range(FAILURES_MAX):
        limits.begin(now, email=f"{number}@example.com", address=network(number))
    with capture_logs() as logs:
        for number in range(3):
            with pytest.raises(RateLimited):
                limits.begin(now, email=None, address=network(FAILURES_MAX + number))
    assert [each["log_level"] for each in logs] == ["warning"]
    limits.begin_reset(now, email=ANN, address=None)
    limits.begin(now + 15 * MINUTE, email=ANN, address=None)


@pytest.mark.parametrize("error", [Busy("full"), Unavailable("no disk")])
async def test_an_unavailable_server_does_not_count_as_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    await world.member(await world.account(), ANN)

    async def fail(*_arguments: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        if isinstance(error, Busy):
            patched.setattr(Passwords, "matches", fail)
        else:
            patched.setattr(world.database, "read", fail)
        for _ in range(40):
            with pytest.raises(type(error)):
                await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)
            if isinstance(error, Unavailable):
                with pytest.raises(Unavailable):
                    await world.services.sessions.request_reset(ANN, address=ADDRESS)
    await world.sign_in(ANN)
    await world.services.sessions.request_reset(ANN, address=ADDRESS)


async def test_failed_sign_ins_do_not_block_a_signed_in_person(world: World) -> None:
    await world.member(await world.account(), ANN)
    visitor = await world.sign_in(ANN)
    operator = await world.visitor(await world.services.sessions.sign_in_operator(world.operator_key, address=ADDRESS))
    for number in range(5):
        with pytest.raises(Unauthorized):
            await world.services.sessions.sign_in(ANN, "wrong", address=network(number))
    with pytest.raises(RateLimited):
        await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)
    await world.services.sessions.confirm(visitor, PASSWORD, address=ADDRESS)
    for signed_in in (visitor, operator):
        for number in range(5):
            with pytest.raises(Unauthorized):
                await world.services.sessions.confirm(signed_in, "wrong", address=network(number))
        with pytest.raises(RateLimited):
            await world.services.sessions.confirm(signed_in, PASSWORD, address=network(6))


async def test_successful_sign_ins_are_not_limited(world: World) -> None:
    await world.member(await world.account(), ANN)
    for _ in range(35):
        await world.services.sessions.sign_in_operator(world.operator_key, address=ADDRESS)
    for _ in range(7):
        await world.sign_in(ANN)


async def test_a_full_password_queue_rejects_sign_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uplift_server.service.passwords._matches", lambda *_: True)
    passwords = Passwords()
    pending = [passwords.matches("hash", "x") for _ in range(WAITING_MAX + 3)]
    outcomes = await asyncio.gather(*pending, return_exceptions=True)
    assert sum(each is True for each in outcomes) == WAITING_MAX
    assert sum(isinstance(each, Busy) for each in outcomes) == 3
    assert await passwords.matches("hash", "x")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has thread priorities")
async def test_password_threads_have_a_low_priority() -> None:
    before = set(threading.enumerate())
    passwords = Passwords()
    await passwords.hash(PASSWORD)
    [thread] = set(threading.enumerate()) - before
    assert thread.native_id is not None
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == min(19, own + NICENESS)


async def test_the_database_has_only_the_digest_of_a_cookie(world: World) -> None:
    await world.member(await world.account(), ANN)
    cookies = {await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS) for _ in range(3)}
    assert len(cookies) == 3
    contents = await world.contents()
    for cookie in cookies:
        assert len(base64.urlsafe_b64decode(cookie + "=")) == 32
        assert cookie.encode() not in contents
        assert (visitor := await world.visitor(cookie)).csrf_token == csrf_token(cookie)
        assert visitor.session_id == key_digest(cookie)
    assert PASSWORD.encode() not in contents


async def test_an_invalid_cookie_has_no_session(world: World) -> None:
    await world.member(await world.account(), ANN)
    cookie = await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)
    for text in (None, "", cookie[:-1], cookie + "A", cookie.swapcase(), "\ud800", "x" * 10_000):
        assert await world.services.sessions.visitor(text) is None


async def test_a_session_ends_a_week_after_its_last_use_and_after_thirty_days(world: World) -> None:
    await world.member(await world.account(), ANN)
    cookie = await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)
    unused = await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)
    began = world.clock.now
    for days in (6, 12, 18, 24, 29):
        world.clock.now = began + days * DAY
        assert await world.services.sessions.visitor(cookie) is not None
    assert await world.services.sessions.visitor(unused) is None
    world.clock.now = began + SESSION_TTL_MS
    assert await world.services.sessions.visitor(cookie) is None


async def test_signing_out_ends_one_session_or_all(world: World) -> None:
    account = await world.account()
    await world.member(account, ANN)
    await world.member(account, "bob@example.com")
    cookies = [await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS) for _ in range(3)]
    other = await world.services.sessions.sign_in("bob@example.com", PASSWORD, address=ADDRESS)
    operators = [await world.services.sessions.sign_in_operator(world.operator_key, address=ADDRESS) for _ in range(2)]

    await world.services.sessions.sign_out(await world.visitor(cookies[0]))
    assert [await world.services.sessions.visitor(each) is None for each in cookies] == [True, False, False]
    await world.services.sessions.sign_out_everywhere(await world.visitor(cookies[1]))
    assert [await world.services.sessions.visitor(each) for each in cookies] == [None] * 3
    await world.visitor(other)
    await world.services.sessions.sign_out_everywhere(await world.visitor(operators[0]))
    assert [await world.services.sessions.visitor(each) for each in operators] == [None] * 2
    await world.visitor(other)


async def test_changes_of_a_member_apply_to_the_next_request(world: World) -> None:
    one, two = await world.account("one"), await world.account("two")
    await world.member(one, ANN, Role.OWNER)
    await world.member(two, ANN)
    cookie = await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)

    def demote(connection: object) -> None:
        member = members.find(connection, world.seq(one), ANN)
        assert member is not None
        members.set_role(connection, member, Role.MEMBER)

    await world.database.write(demote)
    with pytest.raises(Forbidden):
        (await world.visitor(cookie)).caller(one, None).require_right(Right.KEYS_MANAGE)
    await world.services.accounts.delete(world.operator, one)
    assert [each.account.name for each in (await world.visitor(cookie)).memberships] == ["two"]
    await world.services.accounts.delete(world.operator, two)
    assert await world.services.sessions.visitor(cookie) is None
    assert await world.database.read(lambda c: people.find(c, ANN)) is None


async def test_an_operator_signs_in_with_a_key_and_sees_all_accounts(world: World) -> None:
    account = await world.account()
    cookie = await world.services.sessions.sign_in_operator(f" {world.operator_key}\n", address=ADDRESS)
    visitor = await world.visitor(cookie)

    assert (visitor.person, visitor.memberships, visitor.name) == (None, (), "operator")
    assert visitor.operator(ADDRESS).spans_accounts
    caller = visitor.caller(account, ADDRESS)
    assert caller.account_seq == world.seq(account)
    caller.require_operator()
    caller.require(Scope.EVENTS_WRITE)
    caller.require_right(Right.MEMBERS_MANAGE)
    assert caller.actor == replace(world.operator.actor, address=ADDRESS)
    with pytest.raises(NotFound):
        visitor.caller("acc_" + "0" * 32, ADDRESS)
    last = (await world.audited())[-1]
    assert (last.action, last.account_seq, last.details) == ("operator.signed_in", None, {"by": "key"})


@pytest.mark.parametrize("by", ["key", "link"])
async def test_a_read_only_operator_reads_without_secrets(world: World, by: str) -> None:
    account, sessions = await world.account(), world.services.sessions
    if by == "key":
        cookie = await sessions.sign_in_operator(world.operator_key, address=ADDRESS, is_read_only=True)
    else:
        link = await world.services.portal_links.create_for_operator(world.operator, is_read_only=True)
        cookie = await sessions.open_link(link.url.rpartition("/")[2], address=ADDRESS)
    visitor = await world.visitor(cookie)
    assert (visitor.name, visitor.is_read_only) == ("operator (read-only)", True)
    assert (await world.audited())[-1].details == {"by": by, "read_only": True}
    caller = visitor.operator(ADDRESS)
    caller.require_operator(reads=True)
    allowed = {scope for scope in Scope if caller.principal.allows(scope)}
    assert allowed == {Scope.EVENTS_READ, Scope.ENDPOINTS_READ, Scope.DELIVERIES_READ}
    assert {right for right in Right if caller.principal.has_right(right)} == {Right.AUDIT_READ}
    within = visitor.caller(account, ADDRESS)
    calls: list[Callable[[], object]] = [
        caller.require_operator,
        lambda: within.require(Scope.SECRETS_READ),
        lambda: within.require_right(Right.KEYS_MANAGE),
    ]
    for call in calls:
        with pytest.raises(Forbidden, match="read-only"):
            call()
    world.cache.drop_key(key_digest(world.operator_key))
    assert await sessions.visitor(cookie) is None


async def test_only_an_operator_key_signs_an_operator_in(world: World) -> None:
    _, key = await world.services.keys.create(world.operator, await world.account(), KeyDraft(name="k"))
    for text in (key or "", "", "op_", world.operator_key[:-1], "\ud800", "x" * 10_000):
        with pytest.raises(Unauthorized):
            await world.services.sessions.sign_in_operator(text, address=ADDRESS)


async def test_revoking_an_operator_key_ends_its_sessions(world: World) -> None:
    cookie = await world.services.sessions.sign_in_operator(world.operator_key, address=ADDRESS)
    link = await world.services.portal_links.create_for_operator(world.operator)
    world.cache.drop_key(key_digest(world.operator_key))

    assert await world.services.sessions.visitor(cookie) is None
    with pytest.raises(NotFound):
        await world.services.sessions.open_link(link.url.rpartition("/")[2], address=ADDRESS)


async def test_secrets_require_a_recently_confirmed_password(world: World) -> None:
    account = await world.account()
    await world.member(account, ANN, Role.OWNER)
    cookie = await world.services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS)
    (await world.visitor(cookie)).caller(account, None).require_confirmed(world.clock.now)
    world.clock.now += 10 * MINUTE
    visitor = await world.visitor(cookie)
    assert not visitor.is_confirmed(world.clock.now)
    with pytest.raises(ConfirmationRequired):
        await world.services.secrets.reveal(visitor.caller(account, None), "ep_" + "0" * 32)

    with pytest.raises(Unauthorized):
        await world.services.sessions.confirm(visitor, "wrong", address=ADDRESS)
    assert not (await world.visitor(cookie)).is_confirmed(world.clock.now)
    await world.services.sessions.confirm(visitor, PASSWORD, address=ADDRESS)
    confirmed = await world.visitor(cookie)
    assert confirmed.is_confirmed(world.clock.now)
    with pytest.raises(NotFound):
        await world.services.secrets.reveal(confirmed.caller(account, None), "ep_" + "0" * 32)


async def test_password_guesses_at_a_confirmation_are_rate_limited(world: World) -> None:
    await world.member(await world.account(), ANN)
    visitor = await world.sign_in(ANN)
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await world.services.sessions.confirm(visitor, "wrong", address=ADDRESS)
    with pytest.raises(RateLimited):
        await world.services.sessions.confirm(visitor, PASSWORD, address=ADDRESS)


async def test_an_operator_confirms_with_the_key(world: World) -> None:
    cookie = await world.services.sessions.sign_in_operator(world.operator_key, address=ADDRESS)
    world.clock.now += HOUR
    visitor = await world.visitor(cookie)
    assert visitor.has_password
    with pytest.raises(Unauthorized):
        await world.services.sessions.confirm(visitor, PASSWORD, address=ADDRESS)
    await world.services.sessions.confirm(visitor, world.operator_key, address=ADDRESS)
    (await world.visitor(cookie)).operator(None).require_confirmed(world.clock.now)


async def test_a_key_needs_no_confirmation(world: World) -> None:
    world.operator.require_confirmed(world.clock.now)


async def test_a_signed_in_person_cannot_create_a_listen_session(world: World) -> None:
    account = await world.account()
    await world.member(account, ANN, Role.OWNER)
    caller = (await world.sign_in(ANN)).caller(account, None)
    with pytest.raises(Forbidden, match="uplift listen"):
        await world.services.listening.create(caller, ListenDraft())


async def test_only_operators_manage_accounts(world: World) -> None:
    account = await world.account()
    await world.member(account, ANN, Role.OWNER)
    caller = (await world.sign_in(ANN)).caller(account, None)
    with pytest.raises(Forbidden, match="requires an operator"):
        await world.services.accounts.create(caller, AccountDraft(name="x"))
