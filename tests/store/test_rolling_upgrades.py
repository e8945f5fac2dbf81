"""Schema upgrades while servers of the earlier release run. Servers and upgrades in the wrong order are rejected."""

import ast
import asyncio
import re
import time
from pathlib import Path

import pytest
from tests.postgres import PostgresServer
from tests.store import later_releases
from tests.store.later_releases import ADDS, MIGRATIONS, NEEDS, REMOVES

from uplift_server import __version__
from uplift_server.core.operations.cluster import HEARTBEAT_EXPIRES_MS, ProcessRole
from uplift_server.store import admission, encryption_upgrade, processes
from uplift_server.store.admission import SCHEMA_LOCK, require_release
from uplift_server.store.errors import Unavailable
from uplift_server.store.postgres import schema_version
from uplift_server.store.postgres.connection import Opener
from uplift_server.store.postgres.schema_version import HEAD, current, prepare, upgrade
from uplift_server.store.schema_version import UnknownSchema, release_order

FIRST_WITH_RULES = "0008"


@pytest.fixture
async def url(postgres_server: PostgresServer) -> str:
    """A database with the schema of this release."""
    url = await asyncio.to_thread(postgres_server.new_database, empty=True)
    await prepare(url)
    return url


async def serve(url: str, version: str, *, seen_ms_ago: int = 0) -> None:
    """Register a server of a release with a recent heartbeat."""
    pair = await Opener(url).pair()
    now = time.time_ns() // 1_000_000 - seen_ms_ago
    try:
        async with pair.transaction():
            await pair.sql.run_sync(processes.join, ProcessRole.ALL, host="a.example", pid=17, version=version, now=now)
    finally:
        await pair.close()


async def test_additive_migrations_run_beside_servers(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await serve(url, "0.1.0")
    later_releases.pretend_release(monkeypatch, tmp_path, ADDS)
    assert await upgrade(url) == HEAD
    assert await current(url) == ADDS


async def test_breaking_migrations_wait_for_earlier_servers(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await serve(url, "0.1.0", seen_ms_ago=HEARTBEAT_EXPIRES_MS + 1000)
    await serve(url, NEEDS)
    await serve(url, "7.1.9")
    later_releases.pretend_release(monkeypatch, tmp_path, REMOVES)
    older = r"requires release 7\.2\.0 or later, .* are older: 7\.1\.9 on a\.example \(process 17\); upgrade"
    with pytest.raises(Unavailable, match=older):
        await upgrade(url)
    assert await current(url) == HEAD

    raw = await Opener(url).raw()
    await raw.execute("DELETE FROM processes WHERE version = '7.1.9'")
    await raw.close()
    assert await upgrade(url) == HEAD
    assert await current(url) == REMOVES


async def test_a_suspended_server_stops_after_a_breaking_migration(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server was evicted, and cannot rejoin the cluster. It stops before it sends a request."""
    await serve(url, "7.1.9", seen_ms_ago=HEARTBEAT_EXPIRES_MS + 1000)
    later_releases.pretend_release(monkeypatch, tmp_path, REMOVES)
    assert await upgrade(url) == HEAD
    pair = await Opener(url).pair()
    assert await pair.sql.run_sync(processes.list_all) == []
    await pair.close()
    with pytest.raises(UnknownSchema, match=r"no longer works with release 7\.1\.9; start the release that upgraded"):
        await serve(url, "7.1.9")
    await serve(url, NEEDS)


async def test_the_encryption_upgrade_waits_for_and_blocks_earlier_servers(url: str) -> None:
    assert release_order(encryption_upgrade.FIRST_RELEASE) <= release_order(__version__), (
        "the upgrade would block this release"
    )
    await serve(url, "0.1.1")
    await serve(url, __version__)
    pair = await Opener(url).pair()

    async def block() -> bool:
        async with pair.transaction():
            return await pair.sql.run_sync(encryption_upgrade.block_earlier_releases)

    assert not await block()
    await pair.raw.execute("UPDATE processes SET seen_at = seen_at - 10000 WHERE version = '0.1.1'")
    assert await block()
    await pair.close()
    with pytest.raises(UnknownSchema, match=r"no longer works with release 0\.1\.1"):
        await serve(url, "0.1.1")
    await serve(url, __version__)


async def test_a_starting_server_waits_for_an_upgrade(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "WAIT_MS_MAX", 60_000)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    pair = await Opener(url, no_timeouts=True).pair()
    async with pair.transaction():
        await pair.raw.execute(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
        serving = asyncio.create_task(serve(url, "7.1.9"))
        while not await pair.raw.fetchval(waiting):
            await asyncio.sleep(0.01)
        await pair.sql.run_sync(require_release, NEEDS)
    with pytest.raises(UnknownSchema, match=r"no longer works with release 7\.1\.9"):
        await serving
    await pair.close()


async def test_a_server_that_waits_too_long_for_an_upgrade_fails(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "WAIT_MS_MAX", 50)
    raw = await Opener(url, no_timeouts=True).raw()
    async with raw.transaction():
        await raw.execute(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
        with pytest.raises(Unavailable, match="another process is changing the schema"):
            await serve(url, "7.1.9")
    await serve(url, "7.1.9")
    await raw.close()


async def test_a_server_starts_only_on_its_own_schema(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A new release does not start before the schema upgrade, and the old release does not start after the upgrade."""
    await prepare(url)
    with monkeypatch.context() as later:
        later_releases.pretend_release(later, tmp_path, ADDS)
        with pytest.raises(UnknownSchema, match=f"has the schema {HEAD}, but this release needs {ADDS}; run `uplift"):
            await prepare(url)
        assert await current(url) == HEAD
        await upgrade(url)
        await prepare(url)
    with pytest.raises(UnknownSchema, match=f"has the schema {ADDS}, newer"):
        await prepare(url)
    with pytest.raises(UnknownSchema, match=f"has the schema {ADDS}, newer"):
        await upgrade(url)


async def test_a_locked_table_stops_the_upgrade_without_blocking_others(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    later_releases.pretend_release(monkeypatch, tmp_path, ADDS)
    monkeypatch.setattr(schema_version, "TABLE_LOCK_MS_MAX", 100)
    raw = await Opener(url, no_timeouts=True).raw()
    async with raw.transaction():
        await raw.fetch("SELECT * FROM accounts")
        with pytest.raises(Unavailable, match="locks a table, so the upgrade changed nothing"):
            await upgrade(url)
    await raw.close()
    assert await current(url) == HEAD
    assert await upgrade(url) == HEAD


async def test_an_upgrade_is_repeated_after_a_deadlock(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    later_releases.pretend_release(monkeypatch, tmp_path, ADDS)
    raw = await Opener(url, no_timeouts=True).raw()
    async with raw.transaction():
        await raw.execute("SET LOCAL deadlock_timeout = '1min'")
        await raw.fetch("SELECT * FROM events")
        upgrading = asyncio.ensure_future(upgrade(url))
        # The upgrade has locked the table `accounts` and waits for the table `events`.
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"
        while not await raw.fetchval(waits):
            await asyncio.sleep(0.01)
        await raw.fetch("SELECT * FROM accounts")
    await raw.close()
    assert await upgrading == HEAD
    assert await current(url) == ADDS


def is_breaking(source: str) -> bool:
    """Return whether a migration may break running servers. A person must review everything except additions."""
    calls = {
        node.func.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    return any(each.startswith(("drop_", "alter_", "rename_")) or each == "execute" for each in calls)


def test_breaking_migrations_define_the_needed_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    later_releases.pretend_release(monkeypatch, tmp_path, REMOVES)
    fictional = sorted((tmp_path / "migrations" / "versions").glob("9*.py"))
    assert [is_breaking(each.read_text()) for each in fictional] == [False, True]

    for path in sorted((MIGRATIONS / "versions").glob("[0-9]*.py")):
        source = path.read_text()
        if path.name >= FIRST_WITH_RULES and is_breaking(source):
            needed = re.search('^needs_release = "(.+)"$', source, re.MULTILINE)
            assert needed, f"{path.name} does not define needs_release"
            assert release_order(needed[1]) <= release_order(__version__), f"{path.name} blocks this release"
