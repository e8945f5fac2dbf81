"""Concurrent operations of two processes on one PostgreSQL database."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.engines import PostgresPlace
from tests.store.slow_statements import slow_statements

from uplift_server.core.ids import ENDPOINT, prefixed
from uplift_server.core.own_data import metadata_of
from uplift_server.core.security.rights import Role
from uplift_server.service.accounts import AccountDraft
from uplift_server.service.context import Listing
from uplift_server.service.endpoint_drafts import EndpointDraft
from uplift_server.service.errors import Conflict, PreconditionFailed, Unauthorized
from uplift_server.service.idempotency import IdempotencyKey
from uplift_server.service.keys import KeyDraft
from uplift_server.service.members import InvitationDraft
from uplift_server.service.startup import prepare
from uplift_server.service.versions import version_of
from uplift_server.store import people
from uplift_server.store.postgres import PostgresDatabase

from .world import ADDRESS, PASSWORD, PROCESS_KEY, World

ALL = Listing(100)
ANN, BOB = "ann@example.com", "bob@example.com"
KEY = IdempotencyKey("key", bytes(32))


@pytest.fixture
async def worlds(postgres_url: str) -> AsyncIterator[tuple[World, World]]:
    """Start the services of two processes."""
    place = PostgresPlace(postgres_url, postgres_url)
    one, two = (World(PostgresDatabase(postgres_url), place) for _ in range(2))
    texts = await asyncio.gather(*(prepare(each.context, PROCESS_KEY, None) for each in (one, two)))
    one.operator_key = two.operator_key = texts[0] or texts[1] or ""
    yield one, two
    for world in (one, two):
        await world.context.finish()
        await world.database.close()


async def shared_account(world: World, other: World, name: str = "Riverside") -> str:
    """Create an account that is in the cache of both processes."""
    account = await world.account(name)
    other.cache.put_account(world.cache.accounts[world.seq(account)])
    return account


async def test_two_processes_start_on_an_empty_database(worlds: tuple[World, World]) -> None:
    """One process creates the operator key, and both accept it."""
    for world in worlds:
        assert world.operator.principal.is_operator
        assert len(world.cache.keys) == 1


@pytest.mark.parametrize("removes", [True, False], ids=["remove", "change role"])
async def test_concurrent_changes_keep_one_owner(worlds: tuple[World, World], postgres_url: str, removes: bool) -> None:
    account = await shared_account(*worlds)
    owners = [await worlds[0].member(account, email, Role.OWNER) for email in (ANN, BOB)]
    async with slow_statements(postgres_url, "DELETE ON members", "UPDATE ON members"):
        results = await asyncio.gather(
            *(
                world.services.members.remove(world.operator, account, owner)
                if removes
                else world.services.members.change_role(world.operator, account, owner, "member")
                for world, owner in zip(worlds, owners, strict=True)
            ),
            return_exceptions=True,
        )
    assert [isinstance(each, Conflict) for each in results].count(True) == 1
    found = await worlds[0].services.members.page(worlds[0].operator, account, ALL)
    assert [each.role for each in found.items].count(Role.OWNER) == 1


async def test_the_same_idempotency_key_creates_one_account(worlds: tuple[World, World], postgres_url: str) -> None:
    async with slow_statements(postgres_url, "INSERT ON accounts"):
        (one, first), (two, second) = await asyncio.gather(
            *(
                world.services.accounts.create(world.operator, AccountDraft("a"), idempotency_key=KEY)
                for world in worlds
            )
        )
    assert one == two
    assert {first, second} == {True, False}
    assert len((await worlds[0].services.accounts.page(worlds[0].operator, ALL)).items) == 1


@pytest.mark.parametrize("how", ["create", "update"])
async def test_a_uid_belongs_to_one_account(worlds: tuple[World, World], postgres_url: str, how: str) -> None:
    draft = AccountDraft(uid="club-17") if how == "update" else AccountDraft("a", uid="club-17")
    accounts = [await shared_account(*worlds, name) for name in ("one", "two")]
    async with slow_statements(postgres_url, "INSERT ON accounts", "UPDATE ON accounts"):
        results = await asyncio.gather(
            *(
                world.services.accounts.update(world.operator, account, draft)
                if how == "update"
                else world.services.accounts.create(world.operator, draft)
                for world, account in zip(worlds, accounts, strict=True)
            ),
            return_exceptions=True,
        )
    assert [isinstance(each, Conflict) for each in results].count(True) == 1


@pytest.mark.parametrize("how", ["create", "update"])
async def test_a_uid_belongs_to_one_endpoint_of_an_account(
    worlds: tuple[World, World], postgres_url: str, how: str
) -> None:
    account = await shared_account(*worlds)
    callers = [world.services.authenticator.caller(world.operator_header, account) for world in worlds]
    made = [
        await worlds[0].services.endpoints.create(callers[0], EndpointDraft("https://example.com/")) for _ in worlds
    ]
    for shown in made:
        worlds[1].cache.put_endpoint(shown.endpoint)
    draft = EndpointDraft(uid="main") if how == "update" else EndpointDraft("https://example.com/", uid="main")
    async with slow_statements(postgres_url, "INSERT ON endpoints", "UPDATE ON endpoints"):
        results = await asyncio.gather(
            *(
                world.services.endpoints.update(caller, prefixed(ENDPOINT, shown.endpoint.id), draft)
                if how == "update"
                else world.services.endpoints.create(caller, draft)
                for world, caller, shown in zip(worlds, callers, made, strict=True)
            ),
            return_exceptions=True,
        )
    assert [isinstance(each, Conflict) for each in results].count(True) == 1


async def test_concurrent_updates_keep_the_fields_of_each_other(worlds: tuple[World, World], postgres_url: str) -> None:
    """Each update changes one header, one value of the metadata and another field."""
    account = await shared_account(*worlds)
    callers = [world.services.authenticator.caller(world.operator_header, account) for world in worlds]
    shown = await worlds[0].services.endpoints.create(callers[0], EndpointDraft("https://example.com/"))
    worlds[1].cache.put_endpoint(shown.endpoint)
    drafts = (
        EndpointDraft(description="a", headers={"X-A": "1"}, metadata={"a": "1"}, merges=True),
        EndpointDraft(event_types=["athlete.*"], headers={"X-B": "2"}, metadata={"b": "2"}, merges=True),
    )
    endpoint = prefixed(ENDPOINT, shown.endpoint.id)
    async with slow_statements(postgres_url, "UPDATE ON endpoints"):
        await asyncio.gather(
            *(
                world.services.endpoints.update(caller, endpoint, draft)
                for world, caller, draft in zip(worlds, callers, drafts, strict=True)
            )
        )
    found = await worlds[0].services.endpoints.get(callers[0], endpoint)
    assert found.headers == {"X-A": "1", "X-B": "2"}
    assert metadata_of(found.endpoint.metadata) == {"a": "1", "b": "2"}
    assert (found.endpoint.description, found.endpoint.event_types) == ("a", ("athlete.*",))


@pytest.mark.parametrize("kind", ["account", "endpoint"])
async def test_one_of_two_updates_of_a_version_succeeds(
    worlds: tuple[World, World], postgres_url: str, kind: str
) -> None:
    account = await shared_account(*worlds)
    callers = [world.services.authenticator.caller(world.operator_header, account) for world in worlds]
    shown = await worlds[0].services.endpoints.create(callers[0], EndpointDraft("https://example.com/"))
    worlds[1].cache.put_endpoint(shown.endpoint)
    endpoint, record = prefixed(ENDPOINT, shown.endpoint.id), worlds[0].cache.accounts[worlds[0].seq(account)]
    versions = frozenset({version_of(record if kind == "account" else shown.endpoint)})
    async with slow_statements(postgres_url, "UPDATE ON accounts", "UPDATE ON endpoints"):
        results = await asyncio.gather(
            *(
                world.services.accounts.update(caller, account, AccountDraft(f"by {number}"), versions=versions)
                if kind == "account"
                else world.services.endpoints.update(
                    caller, endpoint, EndpointDraft(description=f"by {number}"), versions=versions
                )
                for number, (world, caller) in enumerate(zip(worlds, callers, strict=True))
            ),
            return_exceptions=True,
        )
    assert [isinstance(each, PreconditionFailed) for each in results].count(True) == 1
    winner = next(number for number, each in enumerate(results) if not isinstance(each, BaseException))
    stored = (
        (await worlds[0].services.accounts.get(worlds[0].operator, account)).name
        if kind == "account"
        else (await worlds[0].services.endpoints.get(callers[0], endpoint)).endpoint.description
    )
    assert stored == f"by {winner}"


async def test_concurrent_puts_create_one_object(worlds: tuple[World, World], postgres_url: str) -> None:
    account = await shared_account(*worlds)
    callers = [world.services.authenticator.caller(world.operator_header, account) for world in worlds]
    async with slow_statements(postgres_url, "INSERT ON accounts", "INSERT ON endpoints"):
        accounts = await asyncio.gather(
            *(world.services.accounts.put(world.operator, "club-17", AccountDraft("a")) for world in worlds)
        )
        endpoints = await asyncio.gather(
            *(
                world.services.endpoints.put(caller, "main", EndpointDraft("https://example.com/"))
                for world, caller in zip(worlds, callers, strict=True)
            )
        )
    assert sorted(is_new for _, is_new in accounts) == sorted(is_new for _, is_new in endpoints) == [False, True]
    assert len({each.id for each, _ in accounts}) == len({each.endpoint.id for each, _ in endpoints}) == 1


async def test_the_same_idempotency_key_creates_one_key(worlds: tuple[World, World], postgres_url: str) -> None:
    account = await shared_account(*worlds)
    draft = KeyDraft(name="k", scopes=["events:write"])
    async with slow_statements(postgres_url, "INSERT ON api_keys"):
        created = await asyncio.gather(
            *(world.services.keys.create(world.operator, account, draft, idempotency_key=KEY) for world in worlds)
        )
    assert created[0][0] == created[1][0]
    assert [text for _, text in created].count(None) == 1


async def test_a_concurrent_password_change_ends_the_new_session(
    worlds: tuple[World, World], postgres_url: str
) -> None:
    account = await shared_account(*worlds)
    await worlds[0].member(account, ANN)
    visitor = await worlds[0].sign_in(ANN)
    async with slow_statements(postgres_url, "INSERT ON sessions", seconds=2):
        cookie, _ = await asyncio.gather(
            worlds[0].services.sessions.sign_in(ANN, PASSWORD, address=ADDRESS),
            worlds[1].services.sessions.change_password(visitor, PASSWORD, "another good one", address=ADDRESS),
            return_exceptions=True,
        )
    assert isinstance(cookie, Unauthorized) or await worlds[0].services.sessions.visitor(str(cookie)) is None


async def test_portal_links_to_one_email_create_one_person(worlds: tuple[World, World], postgres_url: str) -> None:
    """The links are for two accounts, and are opened concurrently."""
    accounts = [await shared_account(*worlds, name) for name in ("one", "two")]
    tokens = [await worlds[0].portal(account, email=ANN) for account in accounts]
    async with slow_statements(postgres_url, "INSERT ON people"):
        cookies = await asyncio.gather(
            *(
                world.services.sessions.open_link(token, address=None)
                for world, token in zip(worlds, tokens, strict=True)
            )
        )
    persons = [(await worlds[0].visitor(cookie)).person for cookie in cookies]
    assert persons[0] is not None
    assert persons[0] == persons[1]


async def test_portal_links_of_guests_create_one_guest(worlds: tuple[World, World], postgres_url: str) -> None:
    account = await shared_account(*worlds)
    tokens = [await worlds[0].portal(account) for _ in worlds]
    async with slow_statements(postgres_url, "INSERT ON people"):
        await asyncio.gather(
            *(
                world.services.sessions.open_link(token, address=None)
                for world, token in zip(worlds, tokens, strict=True)
            )
        )
    found = await worlds[0].services.members.page(worlds[0].operator, account, ALL)
    assert len(found.items) == 1


async def test_a_person_who_switches_accounts_concurrently_is_kept(
    worlds: tuple[World, World], postgres_url: str
) -> None:
    one, two = [await shared_account(*worlds, name) for name in ("one", "two")]
    member = await worlds[0].member(one, ANN)
    token = await worlds[0].portal(two, email=ANN)
    async with slow_statements(postgres_url, "INSERT ON members"):
        opening = asyncio.create_task(worlds[0].services.sessions.open_link(token, address=None))
        await asyncio.sleep(0.1)
        await worlds[1].services.members.remove(worlds[1].operator, one, member)
        visitor = await worlds[0].visitor(await opening)
    assert visitor.person == await worlds[0].database.read(lambda c: people.find(c, ANN))
    assert [each.account.name for each in visitor.memberships] == ["two"]


async def test_concurrent_invitations_of_one_email_create_one(worlds: tuple[World, World], postgres_url: str) -> None:
    account = await shared_account(*worlds)
    async with slow_statements(postgres_url, "INSERT ON invitations"):
        await asyncio.gather(
            *(
                world.services.members.invite(world.operator, account, InvitationDraft(ANN, "member"))
                for world in worlds
            )
        )
    assert len((await worlds[0].services.members.invitations(worlds[0].operator, account, ALL)).items) == 1
