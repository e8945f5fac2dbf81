"""Writes a month of history directly into a PostgreSQL database, in partitions like those of the server."""

import asyncio
import time
from typing import Final

import asyncpg

from bench.load import TYPE
from bench.progress import Step, bar
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import FailedReason, Status
from uplift_server.store.schema_partitions import NUMBERS, table_name

PARTITIONS: Final = 28
SPAN_MS: Final = 29 * 86_400_000
_FAILED_EVERY: Final = 50
"""One in this many deliveries has failed."""
_HELD_EVERY: Final = 1000
_WAITING_EVERY: Final = 10
"""One in this many deliveries in the last `_WAITING_IN` partitions is pending."""
_WAITING_IN: Final = 3
_DUE_IN_MS: Final = 12 * 3_600_000
_MINE: Final = (
    "generate_series(0, $1::bigint - 1) n CROSS JOIN LATERAL (SELECT $2::bigint + n AS seq, $3 + n * $4 / $1 AS at) t"
)
_OWNER: Final = (
    "CROSS JOIN LATERAL (SELECT ($5::bigint[])[1 + n % cardinality($5)] AS endpoint,"
    " ($6::bigint[])[1 + n % cardinality($6)] AS account) o"
)
_EVENTS: Final = f"""
INSERT INTO events (seq, id, account_seq, type_seq, created_at, body)
SELECT seq, decode(lpad(to_hex(at), 12, '0') || '7' || substr(md5(seq::text), 1, 19), 'hex'), account, $7, at, $8
FROM {_MINE} {_OWNER}
"""
_KIND: Final = f"""
CASE WHEN n % {_HELD_EVERY} = 1 THEN {int(Status.HELD)} WHEN n % {_FAILED_EVERY} = 0 THEN {int(Status.FAILED)}
WHEN $7 AND n % {_WAITING_EVERY} = 2 THEN {int(Status.PENDING)} ELSE {int(Status.DELIVERED)} END"""
_DELIVERIES: Final = f"""
INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, due_at, fence, attempts_made, scheduled_attempts,
last_outcome, failed_reason, completed_at)
SELECT seq, endpoint, account, status, CASE status WHEN 0 THEN $8::bigint END, 2, 2, 2,
CASE status WHEN 1 THEN {int(Outcome.DELIVERED)} ELSE {int(Outcome.SERVER_ERROR)} END,
CASE status WHEN 2 THEN {int(FailedReason.EXHAUSTED)} END, CASE WHEN status IN (1, 2) THEN at + 200 END
FROM {_MINE} {_OWNER} CROSS JOIN LATERAL (SELECT {_KIND} AS status) s
"""
_ATTEMPTS: Final = f"""
INSERT INTO attempts (event_seq, endpoint_seq, number, trigger, started_at, duration_us, first_byte_ms, status_code,
outcome, remote_address, request_head, response_head, response_body, body_truncated)
SELECT seq, endpoint, number, 0, at + number, 20000 + n % 300000, 1, 500, {int(Outcome.SERVER_ERROR)}, '127.0.0.1:80',
$7, $8, '', false FROM {_MINE} {_OWNER} CROSS JOIN generate_series(1, 2) number
"""
_BODY: Final = b'{"id":"","object":"event","type":"bench","api_version":"","created":0,"data":{"object":{}}}'
_HEAD: Final = b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\r\n"
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def write_history(url: str, events: int) -> None:
    """Add events with one delivery each, spread over all endpoints and a month, with two attempts each.

    The server must have created the tables, and must be stopped.
    """
    with bar("writing a month of events", events) as step:
        asyncio.run(_write(url, events, step))


async def _write(url: str, events: int, step: Step) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SET synchronous_commit = off")
    owners = await connection.fetch("SELECT seq, account_seq FROM endpoints ORDER BY seq")
    endpoints, accounts = ([row[place] for row in owners] for place in range(2))
    type_seq = await connection.fetchval("SELECT seq FROM event_types WHERE name = $1", TYPE)
    began, now = time.monotonic(), time.time_ns() // 1_000_000
    count, lasts_ms = events // PARTITIONS, SPAN_MS // PARTITIONS
    for number in range(PARTITIONS):
        begun_at = now - SPAN_MS + number * lasts_ms
        first = (
            number * NUMBERS if number else await connection.fetchval("SELECT coalesce(max(seq), 0) + 1 FROM events")
        )
        await _begin(connection, number, begun_at)
        common = (count, first, begun_at, lasts_ms, endpoints, accounts)
        waiting = number >= PARTITIONS - _WAITING_IN
        await connection.execute(_EVENTS, *common, type_seq, _BODY)
        await connection.execute(_DELIVERIES, *common, waiting, now + _DUE_IN_MS)
        await connection.execute(_ATTEMPTS, *common, _HEAD, _ANSWER)
        done = count * (number + 1)
        step(done, f"{done / (time.monotonic() - began):,.0f} per second")
    await connection.execute("SELECT setval('events_seq_seq', (SELECT max(seq) FROM events))")
    # In production, autovacuum has already processed old partitions. Here, it would run for minutes.
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    await connection.close()


async def _begin(connection: asyncpg.Connection, number: int, begun_at: int) -> None:
    """Create a partition that begins at a time (Unix ms)."""
    first, end = number * NUMBERS, (number + 1) * NUMBERS
    await connection.execute("UPDATE event_partitions SET ended_at = $2 WHERE end_seq = $1", first, begun_at)
    if number == 0:
        await connection.execute("UPDATE event_partitions SET begun_at = $1", begun_at)
        return
    for table in ("events", "attempts"):
        name = table_name(table, first, end)
        await connection.execute(f"CREATE TABLE {name} (LIKE {table_name(table, 0, NUMBERS)} INCLUDING ALL)")
        await connection.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({end})")
    await connection.execute("INSERT INTO event_partitions VALUES ($1, $2, $3, NULL, false)", first, end, begun_at)
