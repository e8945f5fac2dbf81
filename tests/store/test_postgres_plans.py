"""Plans of the engine's statements: they use indexes, with any number of rows and any statistics."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.postgres import ONE_ROW, PostgresServer, name_of

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.ids import uuid7
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store import statistics
from uplift_server.store.hot_records import HealthRow, HeldRequest, LeaseRequest, ReplayBatch, ReplayLease
from uplift_server.store.partitions import Partition
from uplift_server.store.postgres.append import append_events
from uplift_server.store.postgres.connection import HOT_SETTINGS, Opener, Pair, Raw
from uplift_server.store.postgres.held import release_held
from uplift_server.store.postgres.lease import due_endpoints, lease_due, next_due, reclaim, release
from uplift_server.store.postgres.partitions import PostgresPartitions
from uplift_server.store.postgres.replay import read_replay_batch, release_replay
from uplift_server.store.postgres.settle import settle
from uplift_server.store.replays import MissingEvents, Replay, ReplaySelection
from uplift_server.store.schema_partitions import NUMBERS
from uplift_server.store.stream_position import STREAM_POSITION_MAX

from .bench import LEASE_UNTIL, NOW, OWNER, Bench, due, settled
from .many_partitions import PARTITIONS, last_number, partition_statements, table_index

ROWS = 100_000
PAGES_MAX = 800
"""Limit on the 8 KiB pages that an operation on about ten rows reads. Tables and indexes have thousands of pages."""
UNCOUNTED = 500
ROWS_MAX = 10_000
"""Limit on the rows that one step in a plan of background work reads. The tables have ROWS rows or more."""
EXPLAIN = """
LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on;
SET auto_explain.log_buffers = on; SET auto_explain.log_format = json; SET client_min_messages = log
"""
# Waiting, leased, held, failed and delivered deliveries, mixed as after an outage.
FILL = f"""
ALTER TABLE events_0_1 SET (autovacuum_enabled = false);
ALTER TABLE deliveries SET (autovacuum_enabled = false);
ALTER TABLE attempts_0_1 SET (autovacuum_enabled = false);
INSERT INTO events SELECT at(n), decode(lpad(to_hex(n), 32, '0'), 'hex'), 1, n % 20 + 1, {NOW}, NULL, 'body', 'o'
FROM generate_series(1, {ROWS}) n;
INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, due_at, lease_owner, fence, completed_at)
SELECT at(n), n % 50 + 1, 1, CASE WHEN n % 7 < 3 THEN 0 WHEN n % 7 = 3 THEN 3 WHEN n % 7 = 4 THEN 2 ELSE 1 END,
CASE WHEN n % 7 < 3 THEN {NOW} + n % 1000 END, CASE n % 7 WHEN 2 THEN {OWNER} ELSE 0 END, 1,
CASE WHEN n % 7 > 3 THEN {NOW} END FROM generate_series(1, {ROWS}) n;
INSERT INTO attempts (event_seq, endpoint_seq, number, trigger, started_at, duration_us, outcome, request_head,
body_truncated)
SELECT at(n), n % 50 + 1, number, {int(Trigger.SCHEDULE)}, {NOW}, 1, 0, '', false
FROM generate_series(1, {ROWS}) n, generate_series(8, 9) number;
SELECT setval('events_seq_seq', at({ROWS}));
"""
MORE_EVENTS = f"""
INSERT INTO events SELECT nextval('events_seq_seq'), decode(lpad(to_hex(n), 32, '0'), 'hex'), 1, 1, {NOW}, NULL, 'body'
FROM generate_series($1::int, $2::int) n
"""
LAST = last_number(ROWS, PARTITIONS)
REPLAY_ROW = f"""
INSERT INTO replays (seq, id, account_seq, endpoint_seq, statuses, types, type_seqs, rate_per_second, state, total,
counted_through, next_event_seq, last_event_seq, created_at, updated_at)
VALUES (1, 'replay', 1, 3, '[2]', '[]', '[]', 50, 0, 9, 9, 1, {LAST}, {NOW}, {NOW});
"""


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer) -> Iterator[dict[str, str]]:
    """The URLs of two empty databases and of large ones, by kind.

    Only one test uses the database "new". Of the large databases, one was never analyzed, one was analyzed, one has
    statistics that claim one row for each table, and one has many partitions.
    """
    new, empty, filled, many = (postgres_server.new_database(untouched=True) for _ in range(4))
    postgres_server.execute(REPLAY_ROW, name_of(empty))
    postgres_server.execute(partition_statements(ROWS, 1) + FILL + REPLAY_ROW, name_of(filled))
    postgres_server.execute(partition_statements(ROWS, PARTITIONS) + FILL + REPLAY_ROW + "ANALYZE", name_of(many))
    urls = {"new": new, "empty": empty, "filled": filled, "partitioned": many}
    for kind, known in (("analyzed", "ANALYZE"), ("misled", ONE_ROW)):
        name = f"{name_of(filled)}_{kind}"
        postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {name_of(filled)}")
        postgres_server.execute(known, name)
        urls[kind] = postgres_server.url(name)
    yield urls
    for url in urls.values():
        postgres_server.execute(f"DROP DATABASE {name_of(url)} WITH (FORCE)")


@dataclass
class Plans:
    """The plans of the statements of a connection."""

    plans: list[dict[str, Any]] = field(default_factory=list)

    def note(self, _raw: object, message: Any) -> None:
        """Record the plan from a notice of the server."""
        if " plan:\n" in message.message:
            logged = json.loads(message.message.partition(" plan:\n")[2])
            # Ignore the queries with which the driver reads types.
            if "pg_catalog" not in logged["Query Text"]:
                self.plans.append(logged["Plan"])

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Return all nodes of the plans."""
        todo = list(self.plans)
        while todo:
            node = todo.pop()
            yield node
            todo += node.get("Plans", [])

    def indexes(self) -> set[str]:
        """Return the names of the indexes that the plans use. A partition's index counts as the table's index."""
        return {str(table_index(node["Index Name"])) for node in self.nodes() if "Index Name" in node}

    def rows(self) -> int:
        """Return the largest number of rows that a node read."""
        return max(
            round(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)))
            for node in self.nodes()
        )

    def pages(self) -> int:
        """Return the number of pages that were read."""
        return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in self.plans)


@pytest.fixture(params=["empty", "filled", "analyzed", "misled", "partitioned"])
async def raw(filled: dict[str, str], request: pytest.FixtureRequest) -> AsyncIterator[Raw]:
    """A connection with the settings of hot operations, in a transaction that is rolled back."""
    raw = await Opener(filled[request.param], settings=HOT_SETTINGS).raw()
    await raw.execute(EXPLAIN)
    transaction = raw.transaction()
    await transaction.start()
    yield raw
    await transaction.rollback()
    await raw.close()


@pytest.fixture(params=["analyzed", "partitioned"])
async def pair(filled: dict[str, str], request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """A connection with the settings of ordinary operations.

    The server's statistics have counted all but the newest rows.
    """
    pair = await Opener(filled[request.param]).pair()
    await pair.raw.execute(EXPLAIN)
    transaction = pair.raw.transaction()
    await transaction.start()
    for mark, table in ((statistics.EVENTS_COUNTED, "events"), (statistics.ATTEMPTS_COUNTED, "attempts")):
        await pair.raw.execute(f"INSERT INTO marks SELECT $1, max(seq) - {UNCOUNTED} FROM {table}", mark)
    await pair.raw.execute("INSERT INTO marks VALUES ($1, 1)", statistics.TOTALS_COUNTED)
    yield pair
    await transaction.rollback()
    await pair.close()


BENCH = Bench(None, None)  # type: ignore[arg-type]
CHOICE = ReplaySelection(3, (Status.FAILED,), (1, 2, 3), NOW - 9, NOW + 9, NOW)
REPLAY = Replay(
    1, b"replay", 1, b"", b"", CHOICE, (), 50, ReplayState.RUNNING, 9, 9, 1, LAST, 0, 0, 0, NOW, NOW, None
)  # fmt: skip
REPLAY_LEASE = ReplayLease(NOW, LEASE_UNTIL, OWNER, limit=5, outstanding_max=10, body_bytes_max=1 << 20)
REQUESTS = [LeaseRequest(endpoint, 2) for endpoint in range(1, 6)]
LATER = NOW + 900


async def _settle(raw: Raw, status: Status, health: list[HealthRow]) -> object:
    leased = await lease_due(
        raw, REQUESTS, now=LATER, lease_until=LEASE_UNTIL, process_id=OWNER, body_bytes_max=1 << 20
    )
    return await settle(raw, [settled(each, status)._replace(replay_seq=1) for each in leased], health, process_id=1)


async def _release(raw: Raw) -> object:
    leased = await lease_due(
        raw, REQUESTS, now=LATER, lease_until=LEASE_UNTIL, process_id=OWNER, body_bytes_max=1 << 20
    )
    return await release(raw, [(d.event_seq, d.endpoint_seq, d.fence) for d in leased], now=NOW)


async def _release_replay(raw: Raw) -> object:
    ahead = await read_replay_batch(raw, REPLAY, first=1, rows=100, limit=10, body_bytes_max=1 << 20)
    first = await release_replay(raw, 1, CHOICE, ahead, REPLAY_LEASE)
    unattempted = [
        settled(each, Status.FAILED)._replace(attempt=None, attempts_made=each.attempts_made) for each in first.leased
    ]
    await settle(raw, unattempted, ())
    return await release_replay(raw, 1, CHOICE, ReplayBatch([], 0), REPLAY_LEASE)


async def _read_filtered(raw: Raw) -> object:
    filters = {"object_id": "o", "outcomes": (Outcome.TLS_ERROR,), "status_codes": ((404, 404),)}
    filtered = replace(REPLAY, selection=replace(CHOICE, **filters))
    return await read_replay_batch(raw, filtered, first=1, rows=20, limit=10, body_bytes_max=1 << 20)


async def _release_missing(raw: Raw) -> object:
    choice = replace(CHOICE, missing=MissingEvents(1, (1, 2, 3)))
    ahead = await read_replay_batch(
        raw, replace(REPLAY, selection=choice), first=1, rows=20, limit=10, body_bytes_max=1 << 20
    )
    return await release_replay(raw, 1, choice, ahead, REPLAY_LEASE)


VERBS: dict[str, tuple[Callable[[Raw], Awaitable[object]], set[str]]] = {
    "append": (lambda raw: append_events(raw, [[BENCH.event(due(1))] * 1 for _ in range(10)]), set()),
    "append, with keys": (
        lambda raw: append_events(raw, [[BENCH.event(due(1), key=str(number))] for number in range(10)]),
        {"idempotency_keys_pkey"},
    ),
    "append, with chosen ids": (
        lambda raw: append_events(raw, [[BENCH.event(due(1), chosen_id=bytes([9, n] * 8))] for n in range(10)]),
        {"chosen_event_ids_pkey", "events_by_id"},
    ),
    "append, with ids that may have been made here": (
        lambda raw: append_events(raw, [[BENCH.event(due(1), chosen_id=uuid7(n, bytes(10)))] for n in range(10)]),
        {"chosen_event_ids_pkey", "events_by_id"},
    ),
    "lease due": (
        lambda raw: lease_due(
            raw, REQUESTS, now=LATER, lease_until=LEASE_UNTIL, process_id=OWNER, body_bytes_max=1 << 20
        ),
        {"deliveries_due", "deliveries_pkey", "events_pkey"},
    ),
    "settle": (lambda raw: _settle(raw, Status.DELIVERED, []), {"deliveries_pkey"}),
    "settle failures": (
        lambda raw: _settle(raw, Status.FAILED, [HealthRow(1, 1, NOW, NOW, NOW, 0, 0)]),
        {"deliveries_pkey", "endpoints_pkey"},
    ),
    "release": (_release, {"deliveries_pkey", "deliveries_due"}),
    "reclaim": (
        lambda raw: reclaim(raw, now=LATER, process_id=None, limit=10),
        {"deliveries_leased", "deliveries_pkey", "deliveries_due"},
    ),
    "release held": (
        lambda raw: release_held(raw, [HeldRequest(51, 0, 5), HeldRequest(1, 9, 5)], now=NOW - 1),
        {"deliveries_held", "deliveries_due", "deliveries_pkey", "events_pkey"},
    ),
    "release of a replay": (
        _release_replay,
        {"deliveries_by_endpoint", "deliveries_replayed", "deliveries_pkey", "events_pkey"},
    ),
    "release of missing events": (
        _release_missing,
        {"deliveries_pkey", "attempts_by_delivery", "deliveries_replayed"},
    ),
    "filtered batch of a replay": (_read_filtered, {"deliveries_by_endpoint"}),
    "next due": (lambda raw: next_due(raw, [3, 51]), {"deliveries_due"}),
    "due endpoints": (lambda raw: due_endpoints(raw, after=3, limit=10), {"deliveries_due"}),
}


async def _plans(raw: Raw, verb: Callable[[Raw], Awaitable[object]]) -> Plans:
    """Return the plans of the statements of a verb."""
    plans = Plans()
    raw.add_log_listener(plans.note)
    await verb(raw)
    # Notices arrive with the next response at the latest.
    await raw.execute("SELECT 1")
    await asyncio.sleep(0)
    assert plans.plans
    return plans


@pytest.mark.parametrize("raw", ["partitioned"], indirect=True)
@pytest.mark.parametrize(("event_id", "partitions"), [(bytes(16), 1), (uuid7(NOW, bytes(10)), PARTITIONS)])
async def test_chosen_ids_are_searched_in_one_partition(raw: Raw, event_id: bytes, partitions: int) -> None:
    """Only IDs that the server may have generated need a search in every partition, which reads a page of each."""
    plans = await _plans(raw, lambda raw: append_events(raw, [[BENCH.event(due(1), chosen_id=event_id)]]))
    of_events = [node for node in plans.nodes() if node.get("Relation Name", "").startswith("events_")]
    assert len([node for node in of_events if "id = " in node.get("Index Cond", "")]) == partitions


@pytest.mark.parametrize("name", VERBS)
async def test_every_row_is_found_by_an_index(raw: Raw, name: str, request: pytest.FixtureRequest) -> None:
    """This includes databases with missing or wrong statistics, with which all indexes seem equally good."""
    verb, indexes = VERBS[name]
    plans = await _plans(raw, verb)
    if "empty" not in request.node.name:
        assert plans.indexes() >= indexes, plans.indexes()
    kinds = {node["Node Type"] for node in plans.nodes()}
    assert not kinds & {"Seq Scan", "Hash Join", "Merge Join", "Bitmap Heap Scan"}, kinds
    assert plans.pages() < PAGES_MAX, plans.pages()


@pytest.mark.parametrize("raw", ["new"], indirect=True)
async def test_a_plan_for_a_small_table_remains_fast(raw: Raw) -> None:
    """A connection keeps its plans while a new table or partition grows, until autovacuum analyzes the table."""
    append, _ = VERBS["append, with chosen ids"]
    # With these events, the index of IDs has one level more than the index of the account's events.
    await raw.execute(MORE_EVENTS, 1, 250)
    await append(raw)
    await raw.execute(MORE_EVENTS, 251, 10_000)
    plans = await _plans(raw, append)
    assert plans.pages() < PAGES_MAX, plans.pages()


def _partitions(pair: Pair) -> PostgresPartitions:
    async def run(body: Callable[[Pair], Awaitable[Any]]) -> Any:
        return await body(pair)

    return PostgresPartitions(run, run, run)


FIRST = Partition(0, NUMBERS)
ORDINARY: dict[str, Callable[[Pair], Awaitable[object]]] = {
    "numbers": lambda pair: pair.sql.run_sync(
        lambda c: statistics.count(c, STREAM_POSITION_MAX, now=0, rows=2 * UNCOUNTED, changes=UNCOUNTED)
    ),
    "partitions that have ended": lambda pair: _partitions(pair).list_droppable(before=1 << 62),
    "the numbers of a partition": lambda pair: _partitions(pair).count_seqs(FIRST),
    "thinning a partition": lambda pair: _partitions(pair).delete_ended_deliveries(FIRST, after=None),
    "dropping a partition": lambda pair: _partitions(pair).drop(FIRST),
    "dropping partitions that are empty": lambda pair: _partitions(pair).drop_empty(),
    "sweeping": lambda pair: _partitions(pair).delete_leftovers(NUMBERS, after=None),
}


@pytest.mark.parametrize("name", ORDINARY)
async def test_background_work_reads_few_rows(pair: Pair, name: str) -> None:
    plans = Plans()
    pair.raw.add_log_listener(plans.note)
    await ORDINARY[name](pair)
    await pair.raw.execute("SELECT 1")
    await asyncio.sleep(0)
    assert plans.plans
    kinds = {node["Node Type"] for node in plans.nodes()}
    assert not kinds & {"Hash Join", "Merge Join", "Gather", "Gather Merge"}, kinds
    assert plans.rows() < ROWS_MAX, plans.rows()
