"""Plans of lists on large PostgreSQL tables: none scans or sorts a whole table."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from tests.postgres import PostgresServer

from uplift_server.store import cleanup, delivery_search, events, statistics
from uplift_server.store.event_objects import POSTGRES_BUCKET, object_key
from uplift_server.store.postgres.connection import Opener

from .many_partitions import PARTITIONS, partition_statements, table_index
from .postgres_connection import connected
from .test_plans import LIST_VERBS, MAINTENANCE, OLD_BY, Verb

ROWS_SORTED_MAX = 1200
"""Maximum number of rows that a plan may sort: the rows of a page, and the rows that are read for the page."""
ROWS_READ_MAX = 1000
"""Maximum number of rows that one search for a batch of expired rows may read in one step of its plan."""
ROWS = 60_000
# Enough rows to make a scan of the table more expensive than its indexes.
FILL = f"""
INSERT INTO accounts SELECT n, decode(md5(n::text), 'hex'), 'a', '[]', n, n, CASE n % 50 WHEN 0 THEN n END
FROM generate_series(1, 5000) n;
INSERT INTO people SELECT n, decode(md5(n::text), 'hex'), 'x' || n, 'x', NULL, true, 1 FROM generate_series(1, 5000) n;
INSERT INTO identities SELECT n, 'i', 's' || n, decode(md5(n::text), 'hex'), 1 FROM generate_series(1, 5000) n;
INSERT INTO second_factors SELECT n, decode(md5(n::text), 'hex'), 'x', 1, 1 FROM generate_series(1, 5000) n;
INSERT INTO recovery_codes SELECT decode(md5(n::text), 'hex'), decode(md5(n::text), 'hex')
FROM generate_series(1, 5000) n;
INSERT INTO members SELECT n, decode(md5(n::text), 'hex'), n, n, n % 2, 1 FROM generate_series(1, 5000) n;
UPDATE members SET id = 'm' WHERE seq = 1;
INSERT INTO event_types SELECT n, 't' || n, '', '', NULL, NULL, '1', false, 1, 1, NULL, NULL
FROM generate_series(1, 50) n;
INSERT INTO events SELECT at(n), decode(md5(n::text), 'hex'), 1 + n % 500, 1 + n % 50, n * 10000::bigint, NULL,
'{{"id":"x","object":"event","type":"t","api_version":"1","created":1,"data":{{}}}}', 'o'
FROM generate_series(1, {ROWS}) n;
INSERT INTO event_objects SELECT at(n) - at(n) % {POSTGRES_BUCKET},
CASE n % 100 WHEN 0 THEN {object_key(1, "o")} ELSE n END, at(n) FROM generate_series(1, {ROWS}) n;
INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, due_at, completed_at, lease_owner,
replay_seq, resume_status) SELECT at(n), 1 + n % 500, 1 + n % 500,
CASE WHEN n % 40 = 0 THEN 0 WHEN n % 50 = 1 THEN 2 WHEN n % 60 = 2 THEN 3 ELSE 1 END,
n * 10000::bigint, n * 10000::bigint, CASE n % 400 WHEN 0 THEN 7 ELSE 0 END, CASE n % 900 WHEN 0 THEN 1 + n % 300 END,
2 FROM generate_series(1, {ROWS}) n;
INSERT INTO attempts (event_seq, endpoint_seq, number, trigger, started_at, duration_us, outcome, request_head,
body_truncated)
SELECT at(n), 1 + n % 500, 1, 0, n * 10000::bigint, 1, 0, '', false FROM generate_series(1, {ROWS}) n;
INSERT INTO idempotency_keys SELECT 1 + n % 500, 'k' || n, at(n), n * 10000::bigint FROM generate_series(1, 20000) n;
INSERT INTO idempotent_creates SELECT 1 + n % 500, 'k' || n, 'x', 'd', 'o', n * 10000::bigint
FROM generate_series(1, 20000) n;
INSERT INTO endpoints (seq, id, account_seq, url, description, event_types, secret, secret_created_at, state,
created_at, updated_at, deleted_at) SELECT n, decode(md5(n::text), 'hex'), 1 + n % 500, '', '', '[]', '', 1, 0, 1, 1,
CASE n % 50 WHEN 49 THEN n END FROM generate_series(1, 5000) n;
INSERT INTO api_keys SELECT n, decode(md5(n::text), 'hex'), 1 + n % 500, 'k', decode(md5(n::text), 'hex'), '', '', 1,
CASE n % 50 WHEN 0 THEN n END FROM generate_series(1, 5000) n;
INSERT INTO service_keys (id, name, digest, ends_with, scopes, created_at, revoked_at)
SELECT decode(md5(n::text), 'hex'), 'k', decode(md5(n::text), 'hex'), '', '', 1, CASE n % 50 WHEN 0 THEN n END
FROM generate_series(1, 5000) n;
INSERT INTO erasures (id, account_seq, missing, position, scanned_through, last_event_seq, created_at, completed_at)
SELECT decode(md5(n::text), 'hex'), 1 + n % 500, 0, 0, 0, 8, n, CASE WHEN n % 500 > 0 THEN n END
FROM generate_series(1, 5000) n;
INSERT INTO rejected_events (id, account_seq, subject, problem, size_bytes, stream_seq, published_at, rejected_at)
SELECT decode(md5(n::text), 'hex'), CASE WHEN n % 20 > 0 THEN 1 + n % 500 END, '', '{{}}', 1, n, n, n * 10000::bigint
FROM generate_series(1, 20000) n;
INSERT INTO replays (id, account_seq, endpoint_seq, statuses, types, type_seqs, rate_per_second, state, total,
counted_through, next_event_seq, last_event_seq, created_at, updated_at, completed_at)
SELECT decode(md5(n::text), 'hex'), 1 + n % 500, 1 + n % 500, '[2]', '[]', '[]', 50, 0, 8, 8, 1, 8, n, n,
CASE WHEN n % 500 > 0 THEN n END FROM generate_series(1, 5000) n;
INSERT INTO notices (id, kind, recipient, facts, created_at, due_at)
SELECT decode(md5(n::text), 'hex'), 1, 'x', '{{}}', n, CASE n % 20 WHEN 0 THEN n END FROM generate_series(1, 5000) n;
INSERT INTO audit_log (account_seq, at, actor_kind, actor_name, action, subject, details)
SELECT 1 + n % 500, n * 10000::bigint, 1, 'x', 'x', 'x', '{{}}' FROM generate_series(1, 20000) n;
INSERT INTO rollups SELECT 1 + n % 500, 1 + n % 500, n * 10000::bigint, 0, 0, 0, 0, 0, 0, 0, 0, '', ''
FROM generate_series(1, 20000) n;
INSERT INTO minute_rollups SELECT * FROM rollups;
INSERT INTO sessions (digest, person_seq, created_at, seen_at, ends_at)
SELECT decode(md5(n::text), 'hex'), n, n, n, n FROM generate_series(1, 5000) n;
INSERT INTO links (id, role, expires_at) SELECT decode(md5(n::text), 'hex'), 0, n FROM generate_series(1, 5000) n;
INSERT INTO invitations (id, account_seq, email, role, invited_by, proves, created_at, expires_at)
SELECT decode(md5(n::text), 'hex'), 1 + n % 500, 'x', 0, 'x', false, n, n FROM generate_series(1, 5000) n;
"""
# Analyze the same tables as autovacuum: partitions, but not the partitioned tables.
ANALYZE = """
DO $$ DECLARE name text; BEGIN
FOR name IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
    EXECUTE format('ANALYZE %I', name);
END LOOP; END $$;
"""
SMALL = {
    "event_types",
    "marks",
    "listen_sessions",
    "listen_answers",
    "delivery_changes",
    "trace_parents",
    "delivery_totals",
}
"""Tables that may be scanned completely, because they are always small or are empty in these tests."""


@pytest.fixture(scope="module", params=[1, PARTITIONS], ids=["one partition", "many partitions"])
def connection(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[sa.Connection]:
    """A connection to a database with many rows in every table."""
    url = postgres_server.new_database(untouched=True)

    async def fill() -> None:
        raw = await Opener(url, no_timeouts=True).raw()
        await raw.execute(partition_statements(ROWS, request.param) + FILL + ANALYZE)
        marks = [(name, 10**15) for name in (statistics.EVENTS_COUNTED, statistics.ATTEMPTS_COUNTED)]
        marks.append((statistics.TOTALS_COUNTED, 1))
        await raw.executemany("INSERT INTO marks VALUES ($1, $2)", marks)
        await raw.close()

    asyncio.run(fill())
    with connected(url) as connection:
        yield connection


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the windows of searches smaller than the tables, as in large databases."""
    monkeypatch.setattr(delivery_search, "WINDOW_ROWS", 100)
    monkeypatch.setattr(events, "WINDOW_EVENTS", 100)


def explained(
    connection: sa.Connection, verb: Verb, *, analyze: bool = False
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the statements of a function with their plans; with `analyze`, also with row counts."""
    options = "ANALYZE, FORMAT JSON" if analyze else "FORMAT JSON"
    found: list[tuple[str, list[dict[str, Any]]]] = []

    def explain(c: Any, _cursor: Any, statement: str, parameters: Any, _ctx: Any, many: bool) -> None:
        if statement.startswith("EXPLAIN"):
            return
        values = parameters[0] if many else parameters
        [(plan,)] = c.exec_driver_sql(f"EXPLAIN ({options}) {statement}", values).all()
        [plan] = json.loads(plan) if isinstance(plan, str) else plan
        found.append((statement, list(steps(plan["Plan"]))))

    sa.event.listen(connection, "before_cursor_execute", explain)
    try:
        verb(connection)
    finally:
        sa.event.remove(connection, "before_cursor_execute", explain)
    return found


def steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the steps of a plan, beginning with the root."""
    yield plan
    for step in plan.get("Plans", ()):
        yield from steps(step)


def check(statement: str, plan: list[dict[str, Any]]) -> None:
    """Check the steps of a plan."""
    steps_seen = [
        (step["Node Type"], step.get("Relation Name"), step["Plan Rows"], step.get("Filter")) for step in plan
    ]
    scanned = [step for step in steps_seen if step[0] == "Seq Scan" and step[1] not in SMALL]
    sorted_ = [step for step in steps_seen if step[0] == "Sort" and step[2] > ROWS_SORTED_MAX]
    assert not scanned + sorted_, (statement, steps_seen)


# To find an idempotency key in all accounts, the planner may read the whole table if that is cheaper.
@pytest.mark.parametrize("name", sorted(LIST_VERBS.keys() - {"events of all under a key"}))
def test_every_query_uses_an_index(connection: sa.Connection, name: str) -> None:
    found = explained(connection, LIST_VERBS[name])
    assert found
    for statement, plan in found:
        if statement.startswith(("SELECT", "WITH")):
            check(statement, plan)


@pytest.mark.parametrize(("index", "verb"), [(index, verb) for index, verbs in MAINTENANCE.items() for verb in verbs])
def test_waiting_rows_are_found_by_their_own_index(connection: sa.Connection, index: str, verb: Verb) -> None:
    indexes = set()
    for statement, plan in explained(connection, verb):
        check(statement, plan)
        indexes |= {table_index(step.get("Index Name")) for step in plan}
    assert index in indexes


# Small tables such as `event_types` may be scanned.
@pytest.mark.parametrize(
    "kept", [kept for kept in cleanup.RETENTION_RULES if kept.name not in SMALL], ids=lambda kept: kept.name
)
def test_expired_rows_are_found_by_their_own_index(connection: sa.Connection, kept: cleanup.RetentionRule) -> None:
    index = {"events": "events_pkey"}.get(kept.name, OLD_BY[kept.name])
    (find, plan), *_ = explained(connection, lambda c: cleanup.find_expired(c, kept, before=100, after=None))
    assert index in {table_index(step.get("Index Name")) for step in plan}, (find, plan)


@pytest.mark.parametrize("kept", cleanup.RETENTION_RULES, ids=lambda kept: kept.name)
def test_finding_expired_rows_reads_little_more_than_a_batch(
    connection: sa.Connection, kept: cleanup.RetentionRule
) -> None:
    """References are searched row by row. PostgreSQL would prefer to read whole tables for each batch."""
    (_, plan), *_ = explained(
        connection, lambda c: cleanup.find_expired(c, kept, before=10**15, after=None), analyze=True
    )
    read = [step["Actual Loops"] * (step["Actual Rows"] + step.get("Rows Removed by Filter", 0)) for step in plan]
    assert max(read) <= ROWS_READ_MAX, [(step["Node Type"], step.get("Relation Name")) for step in plan]
