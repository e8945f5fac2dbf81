"""Concurrent ordinary writes of two processes on one PostgreSQL database."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
import sqlalchemy as sa
from msgspec import structs

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import Status
from uplift_server.core.security.rights import Role
from uplift_server.store import (
    accounts,
    database_identity,
    endpoint_backlog,
    endpoints,
    event_types,
    locks,
    replays,
    server_values,
    sessions,
    statistics,
)
from uplift_server.store.errors import Conflict
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.postgres.connection import Opener, Raw
from uplift_server.store.postgres.database import WRITE_LOCK, WRITERS
from uplift_server.store.records import EndpointState, HeldAction, Link
from uplift_server.store.replays import NewReplay, ReplaySelection
from uplift_server.store.schema import deliveries
from uplift_server.store.stream_position import STREAM_POSITION_MAX

from .bench import NOW, Bench, due
from .slow_statements import slow_statements
from .test_store_functions import new_account, new_endpoint, new_event, new_type

Databases = tuple[PostgresDatabase, PostgresDatabase]


@pytest.fixture
async def databases(postgres_url: str) -> AsyncIterator[Databases]:
    """The engines of two processes, and accounts 1 and 2."""
    both = PostgresDatabase(postgres_url), PostgresDatabase(postgres_url)
    for number in (1, 2):
        await both[0].write(partial(new_account, number=number))
    yield both
    for database in both:
        await database.close()


@pytest.fixture
async def raw(postgres_url: str) -> AsyncIterator[Raw]:
    """An administrator's connection."""
    raw = await Opener(postgres_url, no_timeouts=True).raw()
    yield raw
    await raw.close()


async def test_a_slow_write_of_one_account_does_not_delay_another_account(databases: Databases, raw: Raw) -> None:
    async with raw.transaction():
        await raw.execute("SELECT FROM accounts WHERE seq = 1 FOR UPDATE")
        slow = [
            asyncio.create_task(databases[0].write(partial(new_endpoint, account_seq=1, number=number)))
            for number in range(1, WRITERS)
        ]
        async with asyncio.timeout(3):
            for number, database in enumerate(databases, WRITERS):
                await database.write(partial(new_endpoint, account_seq=2, number=number))
        assert not any(each.done() for each in slow)
    await asyncio.gather(*slow)


async def test_an_exclusive_write_of_an_earlier_release_is_alone(databases: Databases, raw: Raw) -> None:
    """Releases up to 0.1.2 take only the lock WRITE_LOCK, so every write of this release waits for it."""
    async with raw.transaction():
        await raw.execute(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
        write = asyncio.create_task(databases[0].write(new_type))
        await asyncio.sleep(0.2)
        assert not write.done()
    await write


def new_replay(connection: sa.Connection, number: int) -> replays.Replay:
    """Create a replay of an endpoint of account 1."""
    selection = ReplaySelection(number, (), (), None, None, NOW)
    return replays.create(connection, NewReplay(bytes([number]) * 16, 1, selection, (), 1, 0, 0, 1, 0))


async def test_concurrent_creates_keep_the_limit_of_endpoints(
    databases: Databases, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uplift_server.store.endpoints.ENDPOINTS_PER_ACCOUNT_MAX", 1)
    async with slow_statements(postgres_url, "INSERT ON endpoints"):
        creates = (
            each.write(partial(new_endpoint, account_seq=1, number=number)) for number, each in enumerate(databases, 1)
        )
        results = await asyncio.gather(*creates, return_exceptions=True)
        assert [isinstance(each, Conflict) for each in results].count(True) == 1
        assert len(await databases[0].read(endpoints.list_live)) == 1


async def test_concurrent_creates_keep_the_limit_of_replays(
    databases: Databases, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uplift_server.store.replays.REPLAYS_UNFINISHED_PER_ACCOUNT_MAX", 1)
    for number in (1, 2):
        await databases[0].write(partial(new_endpoint, account_seq=1, number=number))
    async with slow_statements(postgres_url, "INSERT ON replays"):
        creates = (each.write(partial(new_replay, number=number)) for number, each in enumerate(databases, 1))
        results = await asyncio.gather(*creates, return_exceptions=True)
        assert [isinstance(each, Conflict) for each in results].count(True) == 1
        [replay] = await databases[0].read(replays.unfinished)
        assert replay.state is ReplayState.RUNNING


async def test_an_account_is_deleted_with_an_endpoint_that_is_just_created(
    databases: Databases, postgres_url: str
) -> None:
    async with slow_statements(postgres_url, "INSERT ON endpoints"):
        create = asyncio.create_task(databases[0].write(partial(new_endpoint, account_seq=1, number=1)))
        await asyncio.sleep(0.1)
        deleted = await databases[1].write(lambda c: accounts.delete(c, bytes([1]) * 16, now=9))
        assert deleted is not None
        assert deleted.endpoint_seqs == [(await create).seq]


async def test_concurrent_updates_of_an_endpoint_are_both_stored(databases: Databases, postgres_url: str) -> None:
    endpoint = await databases[0].write(lambda c: new_endpoint(c, 1, 1))
    async with slow_statements(postgres_url, "UPDATE ON endpoints"):

        def append(connection: sa.Connection) -> object:
            return endpoints.update(
                connection,
                1,
                endpoint.id,
                lambda stored: structs.replace(stored, description=f"{stored.description}x"),
            )

        await asyncio.gather(*(each.write(append) for each in databases))
        [stored] = await databases[0].read(endpoints.list_live)
        assert (stored.description, stored.updated_at) == ("xx", endpoint.updated_at + 2)


async def test_an_endpoint_is_deleted_once(databases: Databases, postgres_url: str) -> None:
    endpoint = await databases[0].write(lambda c: new_endpoint(c, 1, 1))
    async with slow_statements(postgres_url, "UPDATE ON endpoints"):
        deleted = await asyncio.gather(
            *(each.write(lambda c: endpoints.delete(c, 1, endpoint.id, now=2)) for each in databases)
        )
        assert deleted.count(None) == 1


async def test_deliveries_are_held_before_or_after_an_endpoint_is_enabled(
    databases: Databases, postgres_url: str
) -> None:
    """A concurrent hold commits before the endpoint is enabled, or holds nothing. Otherwise, deliveries stay held."""
    endpoint = await databases[0].write(lambda c: new_endpoint(c, 1, 1))
    await databases[0].write(lambda c: endpoints.deactivate(c, endpoint.seq, EndpointState.PAUSED, None, now=2))
    bench = Bench(databases[0], lambda: asyncio.sleep(0))
    await bench.append(bench.event(due(endpoint.seq)))
    async with slow_statements(postgres_url, "UPDATE ON deliveries"):
        holding = asyncio.create_task(
            databases[0].write(lambda c: endpoint_backlog.hold_waiting(c, endpoint.seq, now=NOW, limit=9))
        )
        await asyncio.sleep(0.1)
        await databases[1].write(lambda c: endpoints.enable(c, endpoint.seq, HeldAction.SEND, now=3))
        assert [row.status for row in await bench.rows(deliveries)] == [Status.HELD]
        await holding


async def test_concurrent_puts_of_an_event_type_create_it_once(databases: Databases, postgres_url: str) -> None:
    async with slow_statements(postgres_url, "INSERT ON event_types"):
        await asyncio.gather(*(each.write(new_type) for each in databases))
        assert [each.name for each in await databases[0].read(event_types.list_live)] == ["t"]


async def test_concurrent_values_replace_each_other(databases: Databases, postgres_url: str) -> None:
    """A reader finds the values of one write, never of both."""
    async with slow_statements(postgres_url, "INSERT ON marks"):
        for _ in range(2):
            await asyncio.gather(
                *(
                    each.write(partial(server_values.replace, prefix="x.", values={f"x.{name}": name}))
                    for name, each in enumerate(databases)
                )
            )
            assert len(await databases[0].read(lambda c: server_values.get_all(c, "x."))) == 1


async def test_a_database_gets_one_id(databases: Databases, postgres_url: str) -> None:
    async with slow_statements(postgres_url, "INSERT ON marks"):
        found: list[str | None] = []

        def ensure(connection: sa.Connection) -> None:
            database_identity.ensure(connection)
            found.append(database_identity.get(connection))

        await asyncio.gather(*(each.write(ensure) for each in databases))
        assert len(set(found)) == 1


async def test_a_batch_of_statistics_is_stored_once(databases: Databases, postgres_url: str) -> None:
    """Covers the first batch of a database and a later batch."""
    for number in (1, 2):
        await databases[0].write(partial(new_event, seq=number, account_seq=1, created_at=NOW))
        counted = await databases[0].read(lambda c: statistics.count(c, STREAM_POSITION_MAX, now=0, rows=9, changes=9))
        assert counted is not None
        async with slow_statements(postgres_url, "INSERT ON marks"):
            saved = await asyncio.gather(*(each.write(partial(statistics.save, counted=counted)) for each in databases))
        assert sorted(saved) == [False, True]


async def test_a_one_time_link_is_used_once(databases: Databases, postgres_url: str) -> None:
    link = Link(b"l" * 16, 1, None, Role.MEMBER, None, NOW + 1)
    await databases[0].write(lambda c: sessions.add_link(c, link))
    async with slow_statements(postgres_url, "DELETE ON links"):
        results = await asyncio.gather(
            *(each.write(lambda c: sessions.consume_link(c, link.id, now=NOW)) for each in databases)
        )
        assert results.count(None) == 1


async def test_a_named_lock_lasts_until_the_transaction_ends(databases: Databases, raw: Raw) -> None:
    async with raw.transaction():
        await raw.execute(locks.statement("name"))
        waiting = asyncio.create_task(databases[0].write(lambda c: locks.take(c, "name")))
        await databases[1].write(lambda c: locks.take(c, "other name"))
        assert not waiting.done()
    await waiting
