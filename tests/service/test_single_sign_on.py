"""Single sign-on of members and operators: forged responses, limits on failures, and provider outages."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from joserfc.jwk import OctKey
from structlog.testing import capture_logs
from tests.logs import without_slow_reads
from tests.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    GROUP,
    READ_ONLY_GROUP,
    Provider,
    ann,
    identity_provider,
    new_key,
)

from uplift_server.config.sources import load
from uplift_server.core.people.audit import ActorKind
from uplift_server.core.people.people import SINGLE_SIGN_ON_SESSION_TTL_MS
from uplift_server.core.security.oidc import KEYS_REFRESH_MS_MIN, METADATA_TTL_MS, TRANSACTION_MS
from uplift_server.core.security.rights import Role
from uplift_server.core.security.scopes import Scope
from uplift_server.delivery.sending.http.resolver import Resolver
from uplift_server.delivery.sending.http.settings import SenderSettings
from uplift_server.service import identity_provider as provider_module
from uplift_server.service.context import Listing
from uplift_server.service.errors import Busy, Forbidden, RateLimited, Unauthorized
from uplift_server.service.members import InvitationDraft
from uplift_server.service.services import Services
from uplift_server.service.sessions import Visitor
from uplift_server.service.sign_ins import FAILURES_PER_NETWORK_MAX
from uplift_server.service.single_sign_on import AuthorizationResponse, SignInTransaction, SingleSignOn
from uplift_server.store import invitations, people
from uplift_server.store.schema_people import identities, sessions

from .world import ADDRESS, URL, World

ANN = "ann@example.com"
PAGE = "/accounts/acc_1/overview"


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A scripted identity provider."""
    with identity_provider() as provider:
        yield provider


class SignIns:
    """A server with single sign-on, and the browsers of people."""

    def __init__(self, world: World, provider: Provider) -> None:
        self.world, self.provider = world, provider
        provider.now = lambda: world.clock.now / 1000
        self.group: str | None = GROUP
        self.services: Services
        self._started: list[Any] = []

    async def start(self, **settings: str) -> None:
        """Start the server, or restart it with other settings."""
        environ = {
            "UPLIFT_OIDC_ISSUER": self.provider.url,
            "UPLIFT_OIDC_CLIENT_ID": CLIENT_ID,
            "UPLIFT_OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "UPLIFT_OIDC_OPERATOR_GROUP": GROUP,
            "UPLIFT_OIDC_READ_ONLY_GROUP": READ_ONLY_GROUP,
            **settings,
        }
        config = load({name: value for name, value in environ.items() if value}, terminal=False)
        resolver = Resolver(SenderSettings())
        made = provider_module.identity_provider(config, URL, resolver, self.world.clock, "Uplift/1")
        assert made is not None
        await made.start()
        self._started += [made, resolver]
        self.services = self.world.build(sends_email=True, provider=made)

    async def close(self) -> None:
        """Close all connections."""
        for each in self._started:
            await each.close()

    @property
    def service(self) -> SingleSignOn:
        """The single sign-on service of the server."""
        assert self.services.single_sign_on is not None
        return self.services.single_sign_on

    async def complete(self, claims: dict[str, Any], *, again: bool = False, address: str = ADDRESS, **how: Any) -> str:
        """Sign a person in, and return the session cookie."""
        url, transaction = await self.service.begin(PAGE, again=again)
        return await self.respond(transaction, self.provider.authorize(url, claims, **how), address)

    async def respond(self, transaction: SignInTransaction | None, query: str, address: str = ADDRESS) -> str:
        """Complete a sign-in with the query from the provider's redirect, and return the session cookie."""
        sent = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
        response = AuthorizationResponse(sent.get("state", ""), sent.get("code"), sent.get("error"), sent.get("iss"))
        return await self.service.complete(transaction, response, address=address)

    async def visitor(self, cookie: str) -> Visitor | None:
        """Return the visitor with a session cookie, or None if there is no such session."""
        return await self.services.sessions.visitor(cookie)

    async def sign_in(self, claims: dict[str, Any], **how: Any) -> Visitor:
        """Sign a person in, and return the visitor."""
        visitor = await self.visitor(await self.complete(claims, **how))
        assert visitor is not None
        return visitor


@pytest.fixture
async def sso(world: World, provider: Provider) -> AsyncIterator[SignIns]:
    """A server with single sign-on."""
    made = SignIns(world, provider)
    await made.start()
    yield made
    await made.close()


async def invite(world: World, account: str, email: str = ANN, role: str = "manager") -> None:
    await world.services.members.invite(world.operator, account, InvitationDraft(email, role))


async def actions(world: World, account: str | None) -> list[tuple[str, str, Any]]:
    return [(each.action, each.actor.name, dict(each.details)) for each in await world.audited(account)]


async def count(world: World, table: sa.Table) -> int:
    found = await world.database.read(lambda c: c.scalar(sa.select(sa.func.count()).select_from(table)))
    return int(found or 0)


async def test_a_member_signs_in_as_the_person_with_the_verified_email(sso: SignIns, world: World) -> None:
    account = await world.account()
    await world.member(account, ANN, Role.ADMIN)

    visitor = await sso.sign_in(ann(email="Ann@Example.com"))

    assert visitor.person is not None
    assert (visitor.person.email, visitor.subject) == (ANN, "248289761001")
    assert [each.role for each in visitor.memberships] == [Role.ADMIN]
    by = {"by": "single sign-on"}
    assert (await actions(world, account))[-2:] == [
        ("member.identity_linked", ANN, {"issuer": sso.provider.url}),
        ("member.signed_in", ANN, by),
    ]
    assert await sso.service.is_linked(visitor.person)
    page = await world.services.members.page(world.operator, account, Listing(10))
    assert [member.has_identity for member in page.items] == [True]
    # The password remains valid.
    await world.sign_in(ANN)


async def test_an_invited_person_joins_the_accounts_that_invited_them(sso: SignIns, world: World) -> None:
    one, two, other = [await world.account(name) for name in ("one", "two", "other")]
    await invite(world, two)
    await invite(world, one, role="owner")
    await invite(world, other, "bob@example.com")

    visitor = await sso.sign_in(ann())

    assert visitor.name == f"Ann Rivers <{ANN}>"
    assert [(each.account.name, each.role) for each in visitor.memberships] == [
        ("one", Role.OWNER),
        ("two", Role.MANAGER),
    ]
    joined = ("member.joined", visitor.name, {"by": "single sign-on", "role": "owner"})
    assert joined in await actions(world, one)
    now = world.context.now()
    assert await world.database.read(lambda c: invitations.list_for_email(c, ANN, now=now, limit=9)) == []
    # A later invitation is accepted at the next sign-in.
    later = await world.account("later")
    await invite(world, later)
    assert len((await sso.sign_in(ann())).memberships) == 3


async def test_an_expired_invitation_and_a_deleted_account_give_no_access(sso: SignIns, world: World) -> None:
    account, gone = await world.account(), await world.account("gone")
    await invite(world, account)
    world.clock.now += 8 * 86_400_000
    await invite(world, gone)
    await world.services.accounts.delete(world.operator, gone)
    with pytest.raises(Forbidden, match="No account has ann@example"):
        await sso.complete(ann())


async def test_a_full_account_does_not_prevent_the_sign_in(
    sso: SignIns, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, free = await world.account("full"), await world.account("free")
    await world.member(full, "bob@example.com")
    monkeypatch.setattr("uplift_server.store.members.MEMBERS_PER_ACCOUNT_MAX", 1)
    await invite(world, full)
    await invite(world, free)
    visitor = await sso.sign_in(ann())
    assert [each.account.name for each in visitor.memberships] == ["free"]


async def test_an_unknown_person_gets_a_clear_answer_and_no_session(sso: SignIns, world: World) -> None:
    await world.account()
    with (
        capture_logs() as logs,
        pytest.raises(Forbidden, match=r"No account has ann@example\.com as a member\. Ask an admin"),
    ):
        await sso.complete(ann())
    [line] = without_slow_reads(logs)
    assert (line["event"], line["cause"]) == ("sign-in rejected", "the person is not a member of any account")
    assert [await count(world, table) for table in (sessions, identities)] == [0, 0]


@pytest.mark.parametrize("verified", [False, None, "false", 0, [True]])
async def test_an_unverified_email_gives_no_access(sso: SignIns, world: World, verified: Any) -> None:
    account = await world.account()
    await world.member(account, ANN, Role.OWNER)
    with capture_logs() as logs, pytest.raises(Forbidden, match="has not verified your email address"):
        await sso.complete(ann(email_verified=verified))
    [line] = without_slow_reads(logs)
    assert "(email_verified)" in line["cause"]


async def test_a_changed_email_at_the_provider_gives_no_access_to_another_person(sso: SignIns, world: World) -> None:
    account = await world.account()
    await world.member(account, ANN)
    await world.member(account, "bob@example.com", Role.OWNER)
    await sso.sign_in(ann())

    # An identity that is linked to Ann signs in as Ann, even if its email is now Bob's.
    visitor = await sso.sign_in(ann(email="bob@example.com"))
    assert visitor.person is not None
    assert visitor.person.email == ANN
    await invite(world, await world.account("second"), "carol@example.com")
    assert len((await sso.sign_in(ann(email="carol@example.com"))).memberships) == 1
    assert (await sso.sign_in(ann(email_verified=False))).person == visitor.person
    # Another identity with Ann's email cannot sign in as Ann.
    with pytest.raises(Forbidden, match="belongs to a person with another identity"):
        await sso.complete(ann(sub="another"))


async def test_an_unlinked_person_can_use_a_new_identity(sso: SignIns, world: World) -> None:
    account = await world.account()
    await world.member(account, ANN)
    visitor = await sso.sign_in(ann())
    await sso.service.unlink(await world.sign_in(ANN), address=ADDRESS)
    assert visitor.person is not None
    assert not await sso.service.is_linked(visitor.person)
    await sso.sign_in(ann(sub="another"))
    with pytest.raises(Forbidden, match="belongs to a person with another identity"):
        await sso.complete(ann())
    assert ("member.identity_unlinked", ANN, {"issuer": sso.provider.url}) in await actions(world, account)
    operator = await world.visitor(await world.services.sessions.sign_in_operator(world.operator_key, address=None))
    with pytest.raises(Forbidden):
        await sso.service.unlink(operator, address=ADDRESS)


async def test_an_email_that_was_not_proved_loses_its_password(sso: SignIns, world: World) -> None:
    account = await world.account()
    await world.member(account, ANN)
    await world.database.write(lambda c: c.execute(sa.update(people.people).values(proved=False)).rowcount)
    attacker = await world.sign_in(ANN)

    visitor = await sso.sign_in(ann())

    assert visitor.person is not None
    assert (visitor.person.proved, visitor.person.password_hash) == (True, None)
    assert await count(world, sessions) == 1
    assert attacker.session_id != visitor.session_id
    with pytest.raises(Unauthorized):
        await world.sign_in(ANN)


async def test_a_removed_member_loses_the_identity(sso: SignIns, world: World) -> None:
    account = await world.account()
    await world.member(account, "bob@example.com", Role.OWNER)
    member = await world.member(account, ANN)
    cookie = await sso.complete(ann())
    await world.services.members.remove(world.operator, account, member)
    assert await sso.visitor(cookie) is None
    assert await count(world, identities) == 0
    with pytest.raises(Forbidden):
        await sso.complete(ann())


async def test_a_person_of_the_group_is_an_operator(sso: SignIns, world: World) -> None:
    account = await world.account()
    cookie = await sso.complete(ann(groups=["staff", GROUP], email_verified=False))
    visitor = await sso.visitor(cookie)
    assert visitor is not None
    caller = visitor.operator(ADDRESS)
    caller.require_operator()
    assert (visitor.person, visitor.name) == (None, "Ann Rivers")
    assert (caller.actor.kind, caller.actor.name, caller.actor.id) == (
        ActorKind.OPERATOR, "Ann Rivers", "oidc:248289761001",
    )  # fmt: skip
    await world.services.accounts.delete(visitor.caller(account, ADDRESS), account)
    assert [(each[0], each[1]) for each in await actions(world, None)][-2:] == [
        ("operator.signed_in", "Ann Rivers"),
        ("account.deleted", "Ann Rivers"),
    ]
    [signed_in] = [each for each in await world.audited() if each.action == "operator.signed_in"]
    assert signed_in.details == {"by": "single sign-on"}

    world.clock.now += SINGLE_SIGN_ON_SESSION_TTL_MS
    assert await sso.visitor(cookie) is None


async def test_a_person_of_the_read_only_group_is_a_read_only_operator(sso: SignIns, world: World) -> None:
    account = await world.account()
    await world.member(account, ANN, Role.OWNER)
    cookie = await sso.complete(ann(groups=["staff", READ_ONLY_GROUP]))
    visitor = await sso.visitor(cookie)
    assert visitor is not None
    assert (visitor.person, visitor.is_read_only, visitor.name) == (None, True, f"Ann Rivers <{ANN}> (read-only)")
    visitor.operator(ADDRESS).require_operator(reads=True)
    caller = visitor.caller(account, ADDRESS)
    caller.require(Scope.ENDPOINTS_READ)
    with pytest.raises(Forbidden, match="read-only"):
        caller.require(Scope.ENDPOINTS_WRITE)
    with pytest.raises(Forbidden, match="read-only"):
        await world.services.accounts.delete(caller, account)
    last = (await world.audited())[-1]
    assert (last.action, last.actor.kind, last.actor.name) == (
        "operator.signed_in", ActorKind.OPERATOR, f"Ann Rivers <{ANN}>",
    )  # fmt: skip
    assert (last.actor.id, last.details) == ("oidc:248289761001", {"by": "single sign-on", "read_only": True})

    world.clock.now += SINGLE_SIGN_ON_SESSION_TTL_MS
    assert await sso.visitor(cookie) is None


async def test_a_person_of_both_groups_can_change_everything(sso: SignIns) -> None:
    visitor = await sso.sign_in(ann(groups=[READ_ONLY_GROUP, GROUP]))
    visitor.operator(ADDRESS).require_operator()
    assert (visitor.is_read_only, visitor.name) == (False, f"Ann Rivers <{ANN}>")


async def test_the_read_only_group_needs_no_operator_group(sso: SignIns) -> None:
    await sso.start(UPLIFT_OIDC_OPERATOR_GROUP="")
    assert sso.service.has_operators
    assert (await sso.sign_in(ann(groups=[READ_ONLY_GROUP]))).is_read_only
    with pytest.raises(Forbidden):
        await sso.complete(ann(groups=[GROUP, ""]))


async def test_a_single_group_as_text_and_the_group_in_userinfo_count(sso: SignIns) -> None:
    assert (await sso.sign_in(ann(groups=GROUP))).person is None
    sso.provider.userinfo = {"sub": "248289761001", "groups": [GROUP]}
    assert (await sso.sign_in(ann())).person is None


async def test_without_the_group_a_person_is_a_member_or_rejected(sso: SignIns, world: World) -> None:
    with pytest.raises(Forbidden, match="No account has"):
        await sso.complete(ann(groups=["staff", f"{GROUP} "]))
    await world.member(await world.account(), ANN)
    assert (await sso.sign_in(ann(groups=["staff"]))).person is not None


async def test_other_settings_end_the_sessions_of_operators(sso: SignIns, world: World) -> None:
    cookie = await sso.complete(ann(groups=[GROUP]))
    await sso.start()
    assert await sso.visitor(cookie) is not None
    await sso.start(UPLIFT_OIDC_OPERATOR_GROUP="other")
    assert await sso.visitor(cookie) is None
    assert await world.build(sends_email=True).sessions.visitor(cookie) is None
    await sso.start(UPLIFT_OIDC_OPERATOR_GROUP="")
    with pytest.raises(Forbidden):
        await sso.complete(ann(groups=[GROUP, ""]))


async def test_other_settings_end_the_sessions_of_read_only_operators(sso: SignIns) -> None:
    cookie = await sso.complete(ann(groups=[READ_ONLY_GROUP]))
    await sso.start()
    assert await sso.visitor(cookie) is not None
    for settings in (
        {"UPLIFT_OIDC_READ_ONLY_GROUP": "other"},
        {"UPLIFT_OIDC_READ_ONLY_GROUP": ""},
        {"UPLIFT_OIDC_OPERATOR_GROUP": READ_ONLY_GROUP, "UPLIFT_OIDC_READ_ONLY_GROUP": GROUP},
    ):
        await sso.start(**settings)
        assert await sso.visitor(cookie) is None


async def test_an_operator_signs_out_of_all_own_sessions(sso: SignIns) -> None:
    cookies = [await sso.complete(ann(groups=[GROUP], sub=sub)) for sub in ("a", "a", "b")]
    visitor = await sso.visitor(cookies[0])
    assert visitor is not None
    await sso.services.sessions.sign_out_everywhere(visitor)
    assert [await sso.visitor(cookie) is None for cookie in cookies] == [True, True, False]


@pytest.mark.parametrize("group", [GROUP, READ_ONLY_GROUP])
async def test_an_operator_signs_out_of_sessions_with_another_group(sso: SignIns, group: str) -> None:
    cookies = [
        await sso.complete(ann(groups=[each], sub=sub)) for sub in ("a", "b") for each in (READ_ONLY_GROUP, GROUP)
    ]
    await sso.services.sessions.sign_out_everywhere(await sso.sign_in(ann(groups=[group], sub="a")))
    assert [await sso.visitor(cookie) is None for cookie in cookies] == [True, True, False, False]


async def test_claims_of_userinfo_complete_the_token(sso: SignIns, world: World) -> None:
    await world.member(await world.account(), ANN)
    claims = {"sub": "248289761001"}
    sso.provider.userinfo = ann()
    assert (await sso.sign_in(claims)).person is not None
    sso.provider.userinfo = ann(sub="another")
    with pytest.raises(Unauthorized):
        await sso.complete(claims)
    sso.provider.metadata = {"userinfo_endpoint": None}
    await sso.start()
    world.clock.now += 1000
    assert (await sso.sign_in(claims)).person is not None, "the identity is linked"


SOON = 10**12
FORGED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "another nonce": ({"nonce": "another"}, {}),
    "no nonce": ({"nonce": None}, {}),
    "another audience": ({"aud": "another"}, {}),
    "several audiences": ({"aud": [CLIENT_ID, "another"]}, {}),
    "another authorized party": ({"azp": "another"}, {}),
    "another issuer": ({"iss": "https://accounts.example.com"}, {}),
    "expired": ({"exp": 1}, {}),
    "no expiry": ({"exp": None}, {}),
    "from the future": ({"iat": SOON}, {}),
    "no subject": ({"sub": None}, {}),
    "no signature": ({}, {"header": {"alg": "none", "kid": None}}),
    "an HMAC of the client secret": ({}, {"key": OctKey.import_key(CLIENT_SECRET)}),
    "another key": ({}, {"key": new_key("RS256", "first")}),
    "an unknown key": ({}, {"key": new_key("ES256", "unknown")}),
    "another algorithm": ({}, {"header": {"alg": "RS512"}}),
    "another issuer in the response": ({}, {"iss": "https://accounts.example.com"}),
    "no code": ({}, {"code": None}),
    "an unknown code": ({}, {"code": "unknown"}),
    "a long code": ({}, {"code": "c" * 5000}),
    "an error": ({}, {"error": "server_error"}),
    "an error with markup": ({}, {"error": "<script>"}),
}


@pytest.mark.parametrize("forgery", FORGED)
async def test_forged_responses_are_rejected(sso: SignIns, world: World, forgery: str) -> None:
    await world.member(await world.account(), ANN, Role.OWNER)
    claims, how = FORGED[forgery]
    with capture_logs() as logged, pytest.raises(Unauthorized, match="Single sign-on failed"):
        await sso.complete(ann(**claims), **how)
    [line] = without_slow_reads(logged)
    assert (line["event"], line["method"], line["client_address"]) == ("sign-in rejected", "single sign-on", ADDRESS)
    assert "<script>" not in line["cause"]
    assert await count(world, sessions) == 0


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_asymmetric_algorithms_are_accepted(sso: SignIns, world: World, algorithm: str) -> None:
    await world.member(await world.account(), ANN)
    sso.provider.keys = [new_key("RS256", "other"), new_key(algorithm, "own")]
    await sso.sign_in(ann())
    # Some providers with only one key send tokens without a key ID.
    await sso.sign_in(ann(), header={"kid": None})


async def test_the_response_must_name_the_issuer_if_the_provider_says_so(sso: SignIns, world: World) -> None:
    await world.member(await world.account(), ANN)
    sso.provider.metadata = {"authorization_response_iss_parameter_supported": True}
    await sso.sign_in(ann(), iss=sso.provider.url)
    with pytest.raises(Unauthorized):
        await sso.complete(ann())


async def test_a_cancelled_sign_in_is_no_failure_of_the_server(sso: SignIns) -> None:
    with pytest.raises(Unauthorized, match="cancelled"):
        await sso.complete(ann(), error="access_denied", code=None)


async def test_only_the_browser_of_the_sign_in_can_complete_it_once(sso: SignIns, world: World) -> None:
    await world.member(await world.account(), ANN)
    url, mine = await sso.service.begin(PAGE, again=False)
    other_url, theirs = await sso.service.begin(PAGE, again=False)
    query = sso.provider.authorize(url, ann())
    for transaction in (None, theirs, mine._replace(state="x"), mine._replace(state="é")):
        with pytest.raises(Unauthorized, match="began in another browser"):
            await sso.respond(transaction, query)
    # The code of another sign-in has another PKCE challenge.
    foreign = dict(parse_qs(sso.provider.authorize(other_url, ann())))["code"][0]
    with pytest.raises(Unauthorized, match="Single sign-on failed"):
        await sso.respond(mine, f"state={mine.state}&code={foreign}")
    await sso.respond(mine, query)
    with pytest.raises(Unauthorized, match="Single sign-on failed"):
        await sso.respond(mine, query)
    assert mine.next == PAGE


async def test_a_sign_in_expires(sso: SignIns, world: World) -> None:
    await world.member(await world.account(), ANN)
    url, transaction = await sso.service.begin(PAGE, again=False)
    world.clock.now += TRANSACTION_MS
    with pytest.raises(Unauthorized, match="expired"):
        await sso.respond(transaction, sso.provider.authorize(url, ann()))


async def test_failures_are_limited_by_network(sso: SignIns, world: World) -> None:
    await world.member(await world.account(), ANN)
    for _ in range(FAILURES_PER_NETWORK_MAX[4][32]):
        with pytest.raises(Unauthorized):
            await sso.complete(ann(), error="server_error")
    sent = len(sso.provider.requests)
    with pytest.raises(RateLimited):
        await sso.complete(ann())
    assert len(sso.provider.requests) == sent
    await sso.sign_in(ann(), address="198.51.100.1")


async def test_a_session_confirms_the_identity_only_after_a_recent_authentication(sso: SignIns, world: World) -> None:
    await world.member(await world.account(), ANN)
    now = world.context.now()
    old, new = [now // 1000 - seconds for seconds in (3600, 5)]
    for auth_time, again, is_confirmed in (
        (None, False, False),
        (None, True, True),
        (old, False, False),
        (old, True, False),
        (new, False, True),
        (now // 1000 + 3600, True, True),
    ):
        visitor = await sso.sign_in(ann(auth_time=auth_time), again=again)
        assert visitor.is_confirmed(now) == is_confirmed, (auth_time, again)
        assert visitor.is_confirmed(now + 600_000) is False


async def test_new_keys_are_used_at_most_a_minute_later(sso: SignIns, world: World) -> None:
    await world.member(await world.account(), ANN)
    await sso.sign_in(ann())
    sso.provider.keys = [new_key("ES256", "second")]
    world.clock.now += KEYS_REFRESH_MS_MIN - 1
    with pytest.raises(Unauthorized):
        await sso.complete(ann())
    assert sso.provider.requests.count("/keys") == 1
    world.clock.now += 1
    await sso.sign_in(ann())
    assert sso.provider.requests.count("/keys") == 2
    assert sso.provider.requests.count("/.well-known/openid-configuration") == 1


async def test_metadata_and_keys_stay_in_memory_for_an_hour(sso: SignIns, world: World) -> None:
    await world.member(await world.account(), ANN)
    await asyncio.gather(*(sso.sign_in(ann()) for _ in range(4)))
    assert [sso.provider.requests.count(path) for path in ("/keys", "/.well-known/openid-configuration")] == [1, 1]
    world.clock.now += METADATA_TTL_MS
    sso.provider.keys = [sso.provider.keys[0], new_key("RS256", "new")]
    await sso.sign_in(ann())
    assert [sso.provider.requests.count(path) for path in ("/keys", "/.well-known/openid-configuration")] == [2, 2]


DOWN: dict[str, tuple[str, tuple[int, bytes] | None]] = {
    "no metadata": ("/.well-known/openid-configuration", (404, b"{}")),
    "metadata of another issuer": ("/.well-known/openid-configuration", (200, b'{"issuer": "https://a.example"}')),
    "huge metadata": ("/.well-known/openid-configuration", (200, b" " * 200_000 + b"{}")),
    "keys that are no JSON": ("/keys", (200, b"<html>")),
    "a dropped connection": ("/token", None),
    "an internal error": ("/token", (500, b"{}")),
}


@pytest.mark.parametrize("fault", DOWN)
async def test_a_provider_that_is_down_is_no_fault_of_the_person(sso: SignIns, world: World, fault: str) -> None:
    await world.member(await world.account(), ANN)
    path, response = DOWN[fault]
    sso.provider.faults[path] = response
    for _ in range(FAILURES_PER_NETWORK_MAX[4][32] + 1):
        with capture_logs() as logged, pytest.raises(Busy, match="identity provider does not respond"):
            await sso.complete(ann())
        assert [line["event"] for line in without_slow_reads(logged)] == ["identity provider failed"]
    del sso.provider.faults[path]
    await sso.sign_in(ann())


async def test_a_provider_that_hangs_does_not_delay_the_response_for_long(
    sso: SignIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_module, "TIMEOUT_MS", 100)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        await sso.start(UPLIFT_OIDC_ISSUER=f"http://127.0.0.1:{hanging.getsockname()[1]}")
        async with asyncio.timeout(5):
            with pytest.raises(Busy):
                await sso.service.begin(PAGE, again=False)


async def test_the_secret_is_in_the_body_if_the_provider_wants_it_there(sso: SignIns, world: World) -> None:
    await world.member(await world.account(), ANN)
    sso.provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    await sso.sign_in(ann())


async def test_sign_out_also_ends_the_session_at_the_provider(sso: SignIns, world: World) -> None:
    await world.member(await world.account(), ANN)
    cookie = await sso.complete(ann())
    visitor = await sso.visitor(cookie)
    assert visitor is not None
    url = await sso.service.sign_out_url(visitor, cookie, f"{URL}/sign-in")
    assert url is not None
    query = parse_qs(urlsplit(url).query)
    assert url.startswith(f"{sso.provider.url}/sign-out?")
    assert query["post_logout_redirect_uri"] == [f"{URL}/sign-in"]
    [token] = query["id_token_hint"]
    # The database stores the token only in encrypted form, and only the browser has the key.
    assert token.encode() not in await world.contents()
    other = await sso.service.sign_out_url(visitor, "another cookie", "/")
    assert other is not None
    assert "id_token_hint" not in other
    assert await sso.service.sign_out_url(await world.sign_in(ANN), "x", "/") is None
    sso.provider.metadata = {"end_session_endpoint": None}
    await sso.start()
    assert await sso.service.sign_out_url(visitor, cookie, "/") is None
    sso.provider.faults["/.well-known/openid-configuration"] = (503, b"")
    await sso.start()
    assert await sso.service.sign_out_url(visitor, cookie, "/") is None


async def test_simultaneous_first_sign_ins_link_one_identity(sso: SignIns, world: World) -> None:
    account = await world.account()
    await invite(world, account)
    cookies = await asyncio.gather(*(sso.complete(ann()) for _ in range(4)))
    assert len(set(cookies)) == 4
    assert [await count(world, table) for table in (identities, people.people)] == [1, 1]
