"""The PostgreSQL engine beyond the contract: connections, poolers and outages."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import sqlalchemy as sa
from tests.pooler import Pooler
from tests.postgres import PostgresServer, name_of, run_in_thread

from uplift_server.core.operations.cluster import HEARTBEAT_EXPIRES_MS, ProcessRole
from uplift_server.store import database_state, endpoint_backlog, processes, server_values
from uplift_server.store.errors import Misaddressed, Rejected, Unavailable
from uplift_server.store.hot_records import HeldRequest, LeaseRequest
from uplift_server.store.postgres import PostgresDatabase, inspection, schema_version
from uplift_server.store.postgres.connection import Opener, Raw
from uplift_server.store.postgres.database import READERS, READS_WAITING_MAX
from uplift_server.store.postgres.lease import lease_due
from uplift_server.store.schema import marks as table

from .bench import ENOUGH_BYTES, LEASE_UNTIL, NOW, OWNER, Bench, due, settled


@pytest.fixture
async def database(direct_or_pooled_url: str) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(direct_or_pooled_url)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def other(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    """The engine of another process."""
    database = PostgresDatabase(postgres_url)
    yield database
    await database.close()


def stored(connection: sa.Connection) -> int:
    return server_values.get(connection, ["n"]).get("n", 0)


def increment(connection: sa.Connection) -> None:
    """Increment the stored value."""
    server_values.lock(connection, "n")
    server_values.replace(connection, "n", {"n": stored(connection) + 1})


async def test_locked_values_are_incremented_once_per_write(
    database: PostgresDatabase, other: PostgresDatabase
) -> None:
    await asyncio.gather(*(each.write(increment) for _ in range(20) for each in (database, other)))
    assert await database.read(stored) == 40


async def test_transactions_are_measured_and_reads_are_not(database: PostgresDatabase) -> None:
    before = sum(database.measures.commits.counts)
    assert await database.due_endpoints() == []
    assert (await database.read(lambda c: database_state.read(c, now=1, limit=9))).leased == 0
    assert sum(database.measures.commits.counts) == before
    await database.write(increment)
    with pytest.raises(Rejected):
        await database.write(lambda c: c.exec_driver_sql("SELECT 1 / 0"))
    assert sum(database.measures.commits.counts) == database.measures.writes == before + 1
    assert (database.measures.failed, database.writes_waiting) == (1, 0)


async def test_a_write_continues_after_its_caller_is_cancelled(database: PostgresDatabase) -> None:
    task = asyncio.create_task(database.write(increment))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await database.write(increment)
    async with asyncio.timeout(9):
        while await database.read(stored) != 2:
            await asyncio.sleep(0.01)


async def test_a_cancelled_read_leaves_a_connection_for_the_next(database: PostgresDatabase) -> None:
    for _ in range(10):
        task = asyncio.create_task(database.read(lambda c: c.exec_driver_sql("SELECT pg_sleep(5)").scalar()))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await database.read(stored) == 0


async def test_a_slow_read_times_out(database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uplift_server.store.postgres.database.READ_MS_MAX", 50)
    with pytest.raises(Unavailable, match="statement timeout"):
        await database.read(lambda c: c.exec_driver_sql("SELECT pg_sleep(5)").scalar())
    assert await database.read(stored) == 0


async def test_a_vacuum_that_never_ends_times_out(database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uplift_server.store.postgres.database.VACUUM", ("SELECT pg_sleep(60)",))
    monkeypatch.setattr("uplift_server.store.postgres.database.VACUUM_S_MAX", 0.2)
    with pytest.raises(Unavailable):
        await database.scrub()


async def test_invalid_rows_are_rejected(database: PostgresDatabase) -> None:
    with pytest.raises(Rejected, match="rejected"):
        await database.write(lambda c: c.execute(sa.insert(table).values(name="n", value="no number")))
    with pytest.raises(Rejected, match="duplicate key"):
        await database.write(lambda c: c.execute(sa.insert(table), [{"name": "n", "value": 1}] * 2))
    await database.write(increment)
    assert await database.read(stored) == 1


async def test_characters_that_postgresql_cannot_store_are_replaced(
    database: PostgresDatabase,
) -> None:
    names = ["with a NUL: \0", "half a character: \ud800"]
    assert await database.read(lambda c: server_values.get(c, names)) == {}
    await database.write(lambda c: server_values.replace(c, "x", dict.fromkeys(names, 1)))
    stored = await database.read(lambda c: server_values.get_all(c, ""))
    assert set(stored) == {"with a NUL: \ufffd", "half a character: \ufffd"}


async def break_all(url: str) -> None:
    """Terminate all other connections to the database."""
    raw = await Opener(url).raw()
    await raw.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND datname = current_database()"
    )
    await raw.close()


async def test_a_broken_connection_is_replaced(database: PostgresDatabase, postgres_url: str) -> None:
    await asyncio.gather(*(database.read(lambda c: c.exec_driver_sql("SELECT pg_sleep(0.05)")) for _ in range(3)))
    await database.write(increment)
    await break_all(postgres_url)
    assert await database.read(stored) == 1
    await database.write(increment)
    assert await database.read(stored) == 2


async def test_a_connection_to_a_standby_is_replaced(other: PostgresDatabase) -> None:
    """The connection became read-only, as after a failover that made the old server a standby."""
    await other.write(lambda c: c.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    with pytest.raises(Unavailable, match="read-only"):
        await other.write(increment)
    await other.write(increment)
    assert await other.read(stored) == 1


async def test_through_a_pooler_servers_are_counted_by_heartbeats(postgres_url: str, pooler: Pooler) -> None:
    """A pooler keeps its connections after servers have stopped."""
    url = pooler.url(postgres_url)
    database = PostgresDatabase(url)
    await database.open()
    assert await inspection.servers(url) == 0
    now = int(await database.read(processes.database_now))
    for seen_at in (now, now - HEARTBEAT_EXPIRES_MS - 1000):
        await database.write(
            lambda c, at=seen_at: processes.join(c, ProcessRole.ALL, host="x", pid=1, version="1", now=at)  # type: ignore[misc]
        )
    assert await inspection.servers(url) == 1
    await database.close()


async def test_a_write_fails_if_its_connection_breaks(database: PostgresDatabase, postgres_url: str) -> None:
    loop, incremented = asyncio.get_running_loop(), asyncio.Event()

    def slow(connection: sa.Connection) -> None:
        increment(connection)
        loop.call_soon_threadsafe(incremented.set)
        connection.exec_driver_sql("SELECT pg_sleep(5)")

    task = asyncio.create_task(database.write(slow))
    await incremented.wait()
    await break_all(postgres_url)
    with pytest.raises(Unavailable):
        await task
    await database.write(increment)
    assert await database.read(stored) == 1


class Paused:
    """An increment. In its first `pauses` calls, the process pauses until PostgreSQL has closed the connection."""

    def __init__(self, url: str, pauses: int) -> None:
        self._url = url
        self._pauses = pauses
        self.calls = 0

    def __call__(self, connection: sa.Connection) -> None:
        server_values.lock(connection, "n")
        self._pause()
        increment(connection)

    def at_commit(self, connection: sa.Connection) -> None:
        """Pause after the write, before the commit."""
        increment(connection)
        self._pause()

    def _pause(self) -> None:
        self.calls += 1
        if self.calls <= self._pauses:
            # Block the event loop, so that it does not notice that the connection was closed.
            run_in_thread(break_all(self._url))


async def test_a_write_that_is_rolled_back_because_the_process_pauses_is_repeated(
    other: PostgresDatabase, postgres_url: str
) -> None:
    write = Paused(postgres_url, 1)
    await other.write(write)
    assert write.calls == 2
    assert await other.read(stored) == 1


@pytest.mark.parametrize("iterations", range(4))
async def test_a_hot_operation_is_repeated_after_a_pause(
    other: PostgresDatabase, postgres_url: str, monkeypatch: pytest.MonkeyPatch, iterations: int
) -> None:
    """After a few iterations of the event loop, the driver has read the error, and then the end of the connection."""
    calls = 0

    async def lock_order(raw: Raw, _endpoint_seqs: object) -> None:
        nonlocal calls
        calls += 1
        await raw.execute("SELECT 1")
        if calls == 1:
            run_in_thread(break_all(postgres_url))
            for _ in range(iterations):
                await asyncio.sleep(0)

    monkeypatch.setattr("uplift_server.store.postgres.held.lock_order", lock_order)
    [released] = await other.release_held([HeldRequest(1, 0, 1)], now=NOW)
    assert (calls, released.released) == (2, 0)


async def test_a_rolled_back_write_is_repeated_once(other: PostgresDatabase, postgres_url: str) -> None:
    write = Paused(postgres_url, 9)
    with pytest.raises(Unavailable, match="connection was closed in the middle of operation"):
        await other.write(write)
    assert write.calls == 2
    assert await other.read(stored) == 0


async def test_a_write_is_not_repeated_if_its_commit_fails(other: PostgresDatabase, postgres_url: str) -> None:
    """PostgreSQL may have committed the write."""
    write = Paused(postgres_url, 1)
    with pytest.raises(Unavailable):
        await other.write(write.at_commit)
    assert write.calls == 1
    assert await other.read(stored) == 0


async def test_operations_work_again_after_an_outage() -> None:
    server = await asyncio.to_thread(PostgresServer)
    try:
        url = await asyncio.to_thread(server.new_database)
        database = PostgresDatabase(url)
        await database.open()
        await database.write(increment)
        await asyncio.to_thread(server.stop, "immediate")
        for _ in range(3):
            with pytest.raises(Unavailable):
                await database.write(increment)
            with pytest.raises(Unavailable):
                await database.read(stored)
        await asyncio.to_thread(server.start)
        await database.write(increment)
        assert await database.read(stored) == 2
        await database.close()
    finally:
        await asyncio.to_thread(server.close)


async def test_a_missing_database_is_unavailable(postgres_server: PostgresServer) -> None:
    for url, message in (
        (postgres_server.url("nowhere"), "nowhere"),
        ("postgresql://nobody@127.0.0.1:1/none", "127.0.0.1"),
    ):
        with pytest.raises(Unavailable, match=message):
            await PostgresDatabase(url).open()


async def test_a_read_fails_if_no_connection_becomes_free(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uplift_server.store.postgres.connection.ACQUIRE_SECONDS_MAX", 0.1)
    reads = [database.read(lambda c: c.exec_driver_sql("SELECT pg_sleep(0.4)").scalar()) for _ in range(6)]
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert sum(isinstance(result, Unavailable) for result in results) == 3


async def test_priority_reads_do_not_wait_for_other_reads(database: PostgresDatabase) -> None:
    def slow(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SELECT pg_sleep(5)")

    assert await database.read_with_priority(stored) == 0
    reads = [asyncio.create_task(database.read(slow)) for _ in range(READERS + READS_WAITING_MAX)]
    await asyncio.sleep(0.05)
    with pytest.raises(Unavailable):
        await database.read(stored)
    async with asyncio.timeout(2):
        assert await database.read_with_priority(stored) == 0
    for each in reads:
        each.cancel()
    await asyncio.gather(*reads, return_exceptions=True)


async def test_a_process_with_a_fast_clock_reclaims_no_lease(database: PostgresDatabase) -> None:
    """A lease expires only when the database server's clock has also reached the end of the lease."""
    bench = Bench(database, lambda: None)  # type: ignore[arg-type, return-value]
    await bench.append(bench.event(due(1)))
    database_time = int(await database.read(processes.database_now))
    assert len(await bench.lease(1, until=database_time + 30_000)) == 1
    assert await database.reclaim(now=database_time + 120_000) == 0
    assert len(await bench.lease(1)) == 0
    await database.reclaim(now=database_time + 120_000, process_id=OWNER)
    assert len(await bench.lease(1, now=database_time + 60_000, until=database_time - 1_000)) == 1
    assert await database.reclaim(now=database_time + 120_000) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda c: endpoint_backlog.hold_waiting(c, 1, now=NOW, limit=9),
        lambda c: endpoint_backlog.cancel_waiting(c, 1, now=NOW, limit=9),
    ],
)
async def test_a_delivery_that_another_process_leases_is_skipped(
    database: PostgresDatabase, postgres_url: str, change: Callable[[sa.Connection], int]
) -> None:
    bench = Bench(database, lambda: None)  # type: ignore[arg-type, return-value]
    await bench.append(bench.event(due(1)), bench.event(due(1)))
    raw = await Opener(postgres_url).raw()
    async with raw.transaction():
        request = LeaseRequest(1, 1)
        [leased] = await lease_due(
            raw, [request], now=NOW, lease_until=LEASE_UNTIL, process_id=OWNER, body_bytes_max=ENOUGH_BYTES
        )
        changing = asyncio.create_task(database.write(change))
        await asyncio.sleep(0.2)
        assert not changing.done()
    await raw.close()
    assert await changing == 1
    assert await database.settle([settled(leased)]) == frozenset()


@pytest.mark.parametrize("ignored", ["", ", ".join(Opener("postgresql://x/x")._settings)], ids=["strict", "lenient"])
async def test_an_undeclared_pooler_is_rejected(postgres_server: PostgresServer, ignored: str) -> None:
    """This includes a pooler that accepts and ignores connection settings."""
    pooler = Pooler(postgres_server.directory, ignored=ignored)
    url = pooler.url(postgres_server.new_database(empty=True)).partition("?")[0]
    try:
        for use in (schema_version.current, schema_version.prepare):
            with pytest.raises(Misaddressed, match="pooler=transaction"):
                await use(url)
    finally:
        pooler.close()


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
async def test_a_statement_sees_the_changes_that_it_waited_for(
    postgres_server: PostgresServer, pooler: Pooler, pooled: bool
) -> None:
    url = await asyncio.to_thread(postgres_server.new_database, empty=True)
    change = f"ALTER DATABASE {name_of(url)} SET default_transaction_isolation TO 'repeatable read'"
    await asyncio.to_thread(postgres_server.execute, change)
    database = PostgresDatabase(pooler.url(url) if pooled else url)
    shown = "SHOW transaction_isolation"
    assert await database.write(lambda c: c.exec_driver_sql(shown).scalar()) == "read committed"
    # This statement runs outside a transaction, like most hot operations.
    assert await database._run_reads(lambda pair: pair.raw.fetchval(shown)) == "read committed"
    assert await database.read(lambda c: c.exec_driver_sql(shown).scalar()) == "repeatable read"
    await database.close()
