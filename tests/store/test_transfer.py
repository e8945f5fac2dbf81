"""Transfer from a SQLite file to PostgreSQL: complete despite interruptions, and only into an empty database."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
from tests.postgres import PostgresServer
from tests.store.filled_file import ROWS, TABLES, TEXTS, create_file, rows_in_postgres, rows_in_sqlite

from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.store import processes, schema_version, transfer_tables
from uplift_server.store.errors import Unavailable
from uplift_server.store.postgres import schema_version as postgres_version
from uplift_server.store.postgres.connection import Opener
from uplift_server.store.schema_version import UnknownSchema
from uplift_server.store.transfer import CannotTransfer, Progress, Transferred, transfer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with rows in every table."""
    return create_file(tmp_path / "uplift.db")


@pytest.fixture
def target(postgres_server: PostgresServer) -> str:
    """An empty PostgreSQL database."""
    return postgres_server.new_database(empty=True)


async def transfer_all(
    source: Path, target: str, report: Callable[[Progress], None] = lambda _: None
) -> list[Transferred]:
    """Transfer everything."""
    return await transfer(source, target, report)


async def test_every_row_of_every_table_is_transferred(source: Path, target: str) -> None:
    found = await transfer_all(source, target)

    assert await rows_in_postgres(target) == rows_in_sqlite(source)
    assert {each.table: each.rows for each in found} == {table.name: ROWS for table in TABLES}
    nul = next(text for text in TEXTS if "\0" in text)
    assert sum(each.characters_replaced for each in found) > 0
    assert sum(each.characters_replaced for each in found) % nul.count("\0") == 0


async def test_new_rows_are_numbered_after_transferred_rows(source: Path, target: str) -> None:
    await transfer_all(source, target)
    connection = await asyncpg.connect(target)
    try:
        for table in TABLES:
            if [column.name for column in table.primary_key] == ["seq"]:
                number = await connection.fetchval(f"SELECT nextval(pg_get_serial_sequence('{table.name}', 'seq'))")
                assert number == ROWS * 3 + 1, table.name
    finally:
        await connection.close()


async def test_transferred_rows_keep_their_age(source: Path, target: str) -> None:
    """Otherwise, the first partition would be kept twice as long."""
    await transfer_all(source, target)
    connection = await asyncpg.connect(target)
    first = await connection.fetchval("SELECT created_at FROM events ORDER BY seq LIMIT 1")
    assert await connection.fetchval("SELECT begun_at FROM event_partitions") == first
    await connection.close()


async def test_an_empty_database_is_transferred(tmp_path: Path, target: str) -> None:
    schema_version.upgrade(tmp_path / "uplift.db", now_ms=0)

    assert {each.rows for each in await transfer_all(tmp_path / "uplift.db", target)} == {0}
    connection = await asyncpg.connect(target)
    assert await connection.fetchval("SELECT nextval('events_seq_seq')") == 1
    await connection.close()


def kill_during_transfer(source: Path, target: str, *, during_batch: bool) -> int:
    """Transfer in a process that is killed during its second batch or after its third. Return its exit code."""
    child = os.fork()
    if child == 0:
        steps = iter((1, 2, 3))
        copy = asyncpg.Connection.copy_records_to_table

        async def copied(self: asyncpg.Connection, *arguments: object, **named: object) -> object:
            found = await copy(self, *arguments, **named)
            if during_batch and next(steps) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        def report(_: Progress) -> None:
            if not during_batch and next(steps) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        asyncpg.Connection.copy_records_to_table = copied
        code = 1
        try:
            asyncio.run(transfer_all(source, target, report))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_killed_transfer_continues_without_duplicates(
    source: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_tables, "BATCH_ROWS_MAX", 9)
    kills = 0
    while (code := kill_during_transfer(source, target, during_batch=kills % 2 == 0)) == -signal.SIGKILL:
        kills += 1
        with pytest.raises(UnknownSchema, match="transfer from a SQLite file"):
            asyncio.run(postgres_version.upgrade(target))
    assert code == 0
    assert kills > len(TABLES)
    assert asyncio.run(rows_in_postgres(target)) == rows_in_sqlite(source)
    asyncio.run(postgres_version.upgrade(target))


async def interrupt_transfer(source: Path, target: str) -> None:
    """Start a transfer that stops after the first batch."""

    class Stopped(Exception):
        pass

    def stop(_: Progress) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        await transfer_all(source, target, stop)


async def test_a_changed_file_is_detected_by_its_checksum(source: Path, target: str) -> None:
    await interrupt_transfer(source, target)
    with closing(sqlite3.connect(source)) as raw:
        raw.execute("UPDATE accounts SET name = 'another' WHERE seq = 3")
        raw.commit()

    with pytest.raises(CannotTransfer, match="the copy of accounts differs"):
        await transfer_all(source, target)
    with pytest.raises(UnknownSchema, match="transfer from a SQLite file"):
        await postgres_version.current(target)


async def test_a_target_of_another_file_is_rejected(source: Path, target: str, tmp_path: Path) -> None:
    await interrupt_transfer(source, target)
    (tmp_path / "other").mkdir()

    with pytest.raises(CannotTransfer, match=f"has an unfinished transfer from {source}; continue with that file"):
        await transfer_all(create_file(tmp_path / "other" / "uplift.db"), target)


async def test_a_target_with_rows_is_rejected_unchanged(source: Path, postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("INSERT INTO marks VALUES ('somebody was here', 1)")
    with pytest.raises(CannotTransfer, match="is not empty: its table marks has rows"):
        await transfer_all(source, postgres_url)
    assert await connection.fetchval("SELECT to_regclass('unfinished_move')") is None
    assert await connection.fetchval("SELECT count(*) FROM accounts") == 0
    await connection.close()


async def test_a_target_of_another_release_is_rejected_unchanged(source: Path, postgres_url: str) -> None:
    """An upgrade would break the servers that use the target."""
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("UPDATE alembic_version SET version_num = '0007'")
    with pytest.raises(CannotTransfer, match="is not empty: it has the schema 0007 of another release"):
        await transfer_all(source, postgres_url)
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "0007"
    await connection.execute(f"UPDATE alembic_version SET version_num = '{schema_version.HEAD}'")
    await connection.close()


async def test_a_transfer_interrupted_in_the_last_step_continues(
    source: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For large tables, this step takes minutes, so an interruption is likely."""
    execute = asyncpg.Connection.execute

    async def fail_at_analyze(self: asyncpg.Connection, query: str, *arguments: object) -> str:
        if query == "ANALYZE":
            raise ConnectionResetError
        return await execute(self, query, *arguments)

    with monkeypatch.context() as cut:
        cut.setattr(asyncpg.Connection, "execute", fail_at_analyze)
        with pytest.raises(Unavailable):
            await transfer_all(source, target)
    assert {each.rows for each in await transfer_all(source, target)} == {ROWS}


async def test_no_server_starts_on_an_unfinished_target(source: Path, target: str) -> None:
    """This includes a server that has already checked the schema."""
    await interrupt_transfer(source, target)
    pair = await Opener(target).pair()
    with pytest.raises(UnknownSchema, match="transfer from a SQLite file"):
        await pair.sql.run_sync(processes.join, ProcessRole.ALL, host="a", pid=17, version="0.1.1", now=0)
    await pair.close()


async def test_a_target_of_another_program_is_rejected(source: Path, target: str) -> None:
    connection = await asyncpg.connect(target)
    await connection.execute("CREATE TABLE orders (id int)")
    with pytest.raises(UnknownSchema, match="another program"):
        await transfer_all(source, target)
    await connection.close()


async def test_a_file_of_another_revision_is_rejected(source: Path, target: str) -> None:
    with closing(sqlite3.connect(source)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0006'")
        raw.commit()
    with pytest.raises(CannotTransfer, match="has the schema 0006, but this release needs"):
        await transfer_all(source, target)


async def test_the_second_concurrent_transfer_fails(source: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file lock prevents a second transfer from a copy of the file on another machine."""
    monkeypatch.setattr(transfer_tables, "BATCH_ROWS_MAX", 9)
    first = True

    def change_progress(progress: Progress) -> None:
        nonlocal first
        if first:
            first = False
            execute_separately(target, "UPDATE unfinished_move SET rows = rows + 1")

    with pytest.raises(CannotTransfer, match="another transfer to the target is running"):
        await transfer_all(source, target, change_progress)


def execute_separately(url: str, statement: str) -> None:
    """Run a statement on a separate connection, from within a running event loop."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statement)
        await connection.close()

    import threading

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    thread.join()
