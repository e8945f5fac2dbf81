"""Creating and upgrading the schema on PostgreSQL."""

import asyncio

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from tests.postgres import PostgresServer

from uplift_server.store import schema_version as history
from uplift_server.store.errors import Unavailable
from uplift_server.store.postgres import schema_version
from uplift_server.store.postgres.connection import Opener
from uplift_server.store.postgres.schema_version import HEAD, UnknownSchema, current, upgrade
from uplift_server.store.schema import metadata

DESCRIBED = (
    (
        "SELECT table_name, column_name, ordinal_position, column_default, is_nullable, data_type"
        " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    ),
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
    (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
    ),
    (
        "SELECT relname, reloptions, obj_description(oid) FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    ),
    "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
)


@pytest.fixture
def empty(postgres_server: PostgresServer) -> str:
    """An empty database."""
    return postgres_server.new_database(empty=True)


@pytest.fixture
def another(postgres_server: PostgresServer) -> str:
    """Another empty database."""
    return postgres_server.new_database(empty=True)


async def create_schema(url: str, revision: str) -> None:
    """Create the schema of a revision."""
    pair = await Opener(url, no_timeouts=True).pair()
    async with pair.raw.transaction():
        await pair.sql.run_sync(history.run, revision)
    await pair.close()


async def run(url: str, *statements: str) -> list[object]:
    """Run statements and return their results."""
    raw = await Opener(url).raw()
    found = [[tuple(row) for row in await raw.fetch(statement)] for statement in statements]
    await raw.close()
    return found


async def test_an_empty_database_gets_the_schema_of_the_migrations(empty: str, another: str) -> None:
    """The migrations create the schema of the models, including the order and storage of columns."""
    assert await current(empty) is None
    assert await upgrade(empty) is None
    await create_schema(another, HEAD)
    assert await current(empty) == await current(another) == HEAD
    made, migrated = await run(empty, *DESCRIBED), await run(another, *DESCRIBED)
    for of_models, of_migrations in zip(made, migrated, strict=True):
        assert of_models == of_migrations

    def is_of_models(_object: object, name: str | None, kind: str, _reflected: bool, _to: object) -> bool:
        # Ignore tables and an index that exist only because of the partitions.
        return not (kind == "table" and name in {"events_0_1", "attempts_0_1"}) and name != "events_by_id"

    def differences(connection: sa.Connection) -> list[object]:
        options = {"compare_type": True, "include_object": is_of_models}
        found: list[object] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return found

    pair = await Opener(another).pair()
    found = await pair.sql.run_sync(differences)
    await pair.close()
    assert found == []


async def test_an_upgrade_keeps_rows_and_erases_secrets_of_deleted_endpoints(empty: str) -> None:
    await create_schema(empty, "0001")
    endpoint = (
        "INSERT INTO endpoints (id, account_seq, url, description, event_types, secret, secret_created_at, headers,"
    )
    endpoint += " state, created_at, updated_at, deleted_at) VALUES ({}, 1, '', '', '[]', 'x', 1, 'y', 0, 1, 1, {})"
    await run(empty, endpoint.format("'a'", "NULL"), endpoint.format("'b'", "9"))
    assert await upgrade(empty) == "0001"
    assert await run(empty, "SELECT secret, headers FROM endpoints ORDER BY seq") == [[(b"x", b"y"), (b"", None)]]
    assert await current(empty) == HEAD
    assert await upgrade(empty) is None


async def test_concurrent_starts_create_the_schema_once(empty: str, another: str) -> None:
    assert await asyncio.gather(*(upgrade(empty) for _ in range(4))) == [None] * 4
    await create_schema(another, "0003")
    assert sorted(map(str, await asyncio.gather(*(upgrade(another) for _ in range(3))))) == ["0003", "None", "None"]


async def test_a_failed_upgrade_changes_nothing(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await create_schema(empty, "0001")
    before = await run(empty, *DESCRIBED)
    original = history.run

    def run_and_fail(connection: sa.Connection) -> None:
        original(connection)
        raise RuntimeError("the last statement failed")

    monkeypatch.setattr(schema_version.schema_version, "run", run_and_fail)
    with pytest.raises(RuntimeError):
        await upgrade(empty)
    assert await run(empty, *DESCRIBED) == before
    assert await current(empty) == "0001"


async def test_a_newer_schema_is_rejected(empty: str) -> None:
    await upgrade(empty)
    await run(empty, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UnknownSchema, match=f"9999.*newer.*{HEAD}.*start the release"):
        await upgrade(empty)
    assert await current(empty) == "9999"


async def test_a_database_of_another_program_is_rejected(empty: str) -> None:
    await run(empty, "CREATE TABLE notes (text text)")
    for access in (upgrade, current):
        with pytest.raises(UnknownSchema, match=r"another program.*UPLIFT_DATABASE_URL"):
            await access(empty)


async def test_an_old_postgresql_is_rejected(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_version, "VERSION_MIN", 99)
    with pytest.raises(Unavailable, match=r"is PostgreSQL \d+; the server needs 99 or later"):
        await upgrade(empty)
    assert await current(empty) is None
