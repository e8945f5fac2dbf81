"""Findings about a PostgreSQL database. Each problem has a fix."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import asyncpg
import pytest
from tests.postgres import PostgresServer, name_of

from uplift_server.core.operations.clock_offset import ClockReading
from uplift_server.core.operations.findings import Finding
from uplift_server.service import postgres_diagnostics
from uplift_server.store.errors import Misaddressed
from uplift_server.store.postgres import inspection, schema_version
from uplift_server.store.postgres.connection_errors import UNDECLARED_POOLER
from uplift_server.store.postgres.inspection import Inspected, Living


def findings(url: str) -> dict[str, Finding]:
    """Return the findings by check."""
    found = list(postgres_diagnostics.database_findings(url, "db.example.com:5432/uplift"))
    assert all(bool(each.remedy) == (each.result != "ok") for each in found), found
    assert len({each.check for each in found}) == len(found)
    return {each.check: each for each in found}


def execute(url: str, statement: str) -> None:
    """Run a statement."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


@pytest.fixture
def healthy() -> Inspected:
    """The values of a healthy database."""
    now = time.time() * 1000
    return Inspected(
        version=17,
        encoding="UTF8",
        is_standby=False,
        is_encrypted=True,
        is_remote=True,
        fsync=True,
        full_page_writes=True,
        connections_max=97,
        connections_used=12,
        may_make_tables=True,
        bytes=10_000_000,
        clock=ClockReading(now, now + 0.5, now + 1),
        dead_rows=100,
        live_rows=10,
    )


def findings_for(monkeypatch: pytest.MonkeyPatch, url: str, inspected: Inspected) -> dict[str, Finding]:
    """Return the findings for a database with these values."""

    async def inspect(_: str) -> Inspected:
        return inspected

    async def processes(_: str) -> Living:
        return Living(2, 1, 1)

    monkeypatch.setattr(inspection, "inspect", inspect)
    monkeypatch.setattr(inspection, "processes", processes)
    return findings(url)


def test_a_healthy_database_has_no_warnings(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str, healthy: Inspected
) -> None:
    found = findings_for(monkeypatch, postgres_url, healthy)
    assert {each.result for each in found.values()} == {"ok"}, found
    assert found["database"].text == "PostgreSQL 17 at db.example.com:5432/uplift, 10 MiB, encrypted"


def test_a_real_database_reports_version_clock_settings_and_schema(postgres_url: str) -> None:
    """The test database is not durable, so the durability check warns."""
    found = findings(postgres_url)
    assert {name: each.result for name, each in found.items()} == {
        "database": "ok", "database clock": "ok", "durability": "warn", "connections": "ok", "vacuum": "ok",
        "schema": "ok", "processes": "warn",
    }  # fmt: skip
    assert found["durability"].text.startswith("fsync and full_page_writes are off")
    assert found["schema"].text.endswith("as this version requires")


@pytest.mark.parametrize(
    ("changes", "check", "result", "text"),
    [
        ({"version": 14}, "database", "fail", "is PostgreSQL 14, but 15 or newer is required"),
        ({"is_standby": True}, "database", "fail", "is a read-only standby"),
        ({"encoding": "SQL_ASCII"}, "database", "fail", "has the encoding SQL_ASCII"),
        ({"is_encrypted": False}, "database", "warn", "anyone on the network path can read all events"),
        ({"fsync": False}, "durability", "warn", "fsync is off"),
        ({"connections_used": 95}, "connections", "warn", "95 of 97 in use"),
        ({"dead_rows": 300_000, "live_rows": 200_000}, "vacuum", "warn", "300,000 dead rows and 200,000"),
        ({"clock": ClockReading(0, -10_000, 0)}, "database clock", "warn", "this machine's clock is 10.0 s ahead of"),
        ({"clock": ClockReading(0, 400_000, 0)}, "database clock", "fail", "this machine's clock is 400.0 s behind"),
    ],
)
def test_each_problem_is_reported(
    monkeypatch: pytest.MonkeyPatch,
    postgres_url: str,
    healthy: Inspected,
    changes: dict[str, object],
    check: str,
    result: str,
    text: str,
) -> None:
    found = findings_for(monkeypatch, postgres_url, replace(healthy, **changes))
    assert found[check].result == result
    assert text in found[check].text
    others = {name: each.result for name, each in found.items() if name != check}
    assert set(others.values()) <= {"ok"}
    assert bool(others) == (result != "fail" or check != "database")


def test_a_local_database_needs_no_encryption(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str, healthy: Inspected
) -> None:
    found = findings_for(monkeypatch, postgres_url, replace(healthy, is_encrypted=False, is_remote=False))
    assert found["database"].result == "ok"


@pytest.fixture
def owner_and_plain_url(postgres_server: PostgresServer) -> Iterator[tuple[str, str]]:
    """Create an empty database, and return its URLs for the owner and for a user without rights."""
    url = postgres_server.new_database(empty=True)
    execute(url, "CREATE ROLE plain LOGIN")
    yield url, url.replace("//postgres@", "//plain@")
    execute(url, "DROP ROLE plain")


def test_a_missing_right_to_create_tables_is_reported(owner_and_plain_url: tuple[str, str]) -> None:
    own, plain = owner_and_plain_url
    assert findings(own)["schema"].result == "ok"
    found = findings(plain)["schema"]
    assert (found.result, "not allowed to create it" in found.text, "OWNER TO" in found.remedy) == ("fail", True, True)


def test_connections_of_other_clients_are_counted(owner_and_plain_url: tuple[str, str]) -> None:
    own, plain = owner_and_plain_url

    async def read_with_other_clients() -> int:
        others = [await asyncpg.connect(own) for _ in range(3)]
        found = await asyncio.to_thread(findings, plain)
        for each in others:
            await each.close()
        return int(found["connections"].text.split()[0])

    assert asyncio.run(read_with_other_clients()) > 3


def test_exhausted_connections_are_reported(owner_and_plain_url: tuple[str, str]) -> None:
    own, plain = owner_and_plain_url
    execute(own, f"ALTER DATABASE {name_of(own)} CONNECTION LIMIT 0")
    [found] = findings(plain).values()
    assert (found.result, "too many connections" in found.text) == ("fail", True)
    assert found.remedy.endswith("or the limit of the database or user")


def test_an_undeclared_pooler_is_reported_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str, healthy: Inspected
) -> None:
    async def current(_: str) -> str | None:
        raise Misaddressed(UNDECLARED_POOLER)

    monkeypatch.setattr(schema_version, "current", current)
    found = findings_for(monkeypatch, postgres_url, healthy)["schema"]
    assert (found.result, found.remedy) == ("fail", "add pooler=transaction to UPLIFT_DATABASE_URL")


def test_an_unreachable_or_missing_database_is_reported(postgres_server: PostgresServer) -> None:
    for url in ("postgresql://uplift@127.0.0.1:1/uplift", postgres_server.url("nowhere")):
        [found] = findings(url).values()
        assert found.result == "fail"
        assert found.text.startswith("db.example.com:5432/uplift: ")
        assert "UPLIFT_DATABASE_URL" in found.remedy


@pytest.mark.parametrize(
    ("statement", "result", "text", "remedy"),
    [
        ("UPDATE alembic_version SET version_num = '0006'", "fail", "0006, but this version requires", "migrate"),
        ("UPDATE alembic_version SET version_num = '9999'", "fail", "newer than this version's", "later one"),
        ("CREATE TABLE unfinished_move ()", "fail", "transfer from a SQLite file", "complete it"),
        ("DROP TABLE deliveries", "fail", "tables of another program", "UPLIFT_DATABASE_URL"),
        ("DROP SCHEMA public CASCADE; CREATE SCHEMA public", "ok", "the first start creates the schema", ""),
    ],
)
def test_the_schema_revision_is_checked(
    postgres_server: PostgresServer, statement: str, result: str, text: str, remedy: str
) -> None:
    url = postgres_server.new_database(empty=True)
    asyncio.run(schema_version.upgrade(url))
    execute(url, statement)
    found = findings(url)["schema"]
    assert found.result == result
    assert text in found.text
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("running", "result", "text"),
    [
        ([("api", False), ("worker", True)], "ok", "2 running, 1 of them workers"),
        ([("all", True)], "ok", "1 running, 1 of them workers"),
        ([("api", False)], "fail", "1 running, but no worker"),
        ([("worker", True)], "fail", "1 running, but no API server"),
        ([], "warn", "no server is running"),
    ],
)
def test_a_missing_worker_or_api_server_is_reported(
    postgres_url: str, running: Sequence[tuple[str, bool]], result: str, text: str
) -> None:
    for seq, (role, delivers) in enumerate(running, 1):
        execute(
            postgres_url,
            "INSERT INTO processes (seq, role, host, pid, version, started_at, seen_at, delivers, view) VALUES"
            f" ({seq}, '{role}', 'h', 1, '1', 1, extract(epoch FROM clock_timestamp()) * 1000, {delivers}, 0),"
            f" ({seq + 9}, 'worker', 'gone', 1, '1', 1, 1, true, 0)",
        )
    found = findings(postgres_url)["processes"]
    assert found.result == result
    assert text in found.text


def test_held_deliveries_and_encrypted_values_are_found(postgres_url: str) -> None:
    execute(
        postgres_url,
        "INSERT INTO events (seq, id, account_seq, type_seq, created_at, body)"
        " SELECT n, decode(lpad(to_hex(n), 32, '0'), 'hex'), 1, 1, 1000 + n, '' FROM generate_series(1, 9) n;"
        "INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status)"
        " SELECT n, n % 3, 1, CASE WHEN n = 1 THEN 1 ELSE 3 END FROM generate_series(1, 9) n;"
        "INSERT INTO endpoints (id, account_seq, url, description, event_types, secret, previous_secret,"
        " secret_created_at, state, created_at, updated_at, deleted_at)"
        " VALUES ('a', 1, '', '', '[]', 's', 'p', 0, 0, 0, 0, NULL), ('b', 1, '', '', '[]', '', NULL, 0, 0, 0, 0, 1)",
    )
    assert asyncio.run(inspection.held(postgres_url, limit=100)) == inspection.Held(8, 3, 1002)
    assert asyncio.run(inspection.held(postgres_url, limit=2)) == inspection.Held(2, 2, 1003)
    assert asyncio.run(inspection.encrypted_values(postgres_url)) == [
        (b"a", "secret", b"s"),
        (b"a", "previous_secret", b"p"),
    ]


def test_an_empty_database_has_no_held_deliveries(postgres_url: str) -> None:
    assert asyncio.run(inspection.held(postgres_url, limit=100)) == inspection.Held(0, 0, None)
