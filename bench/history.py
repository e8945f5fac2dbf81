"""Writes a month of history directly into a SQLite database."""

import os
import sqlite3
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bench.load import TYPE
from bench.progress import bar
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.ids import uuid7
from uplift_server.core.lifecycle import FailedReason, Status, Trigger

_CHUNK: Final = 20_000
_SPAN_MS: Final = 29 * 86_400_000
_FAILED_EVERY: Final = 50
"""One in this many deliveries has failed. All other deliveries succeeded at the second attempt."""
_BODY: Final = b'{"id":"","object":"event","type":"bench","api_version":"","created":0,"data":{"object":{}}}'
_HEAD: Final = b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\r\n"
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_EVENTS: Final = "INSERT INTO events (id, account_seq, type_seq, created_at, body) VALUES (?, ?, ?, ?, ?)"
_DELIVERIES: Final = (
    "INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, fence, attempts_made, scheduled_attempts,"
    " last_outcome, failed_reason, completed_at) VALUES (?, ?, ?, ?, 2, 2, 2, ?, ?, ?)"
)
_ATTEMPTS: Final = (
    "INSERT INTO attempts (event_seq, endpoint_seq, number, trigger, started_at, duration_us, first_byte_ms,"
    " status_code, outcome, remote_address, request_head, response_head, response_body, body_truncated)"
    f" VALUES (?, ?, ?, {int(Trigger.SCHEDULE)}, ?, ?, 1, ?, ?, '127.0.0.1:80', ?, ?, x'', 0)"
)


def write_history(database: Path, events: int) -> None:
    """Add events with one delivery each, spread over all endpoints and a month, with two attempts each.

    The server must have created the tables, and must be stopped.
    """
    connection = sqlite3.connect(database, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = OFF", "cache_size = -262144"):
        connection.execute(f"PRAGMA {pragma}")
    owners = connection.execute("SELECT seq, account_seq FROM endpoints ORDER BY seq").fetchall()
    (type_seq,) = connection.execute("SELECT seq FROM event_types WHERE name = ?", (TYPE,)).fetchone()
    (first,) = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM events").fetchone()
    rows = _rows(owners, type_seq, first, events)
    began, done = time.monotonic(), 0
    with bar("writing a month of events", events) as step:
        while chunk := list(islice(rows, _CHUNK)):
            connection.execute("BEGIN")
            connection.executemany(_EVENTS, [event for event, _, _ in chunk])
            connection.executemany(_DELIVERIES, [delivery for _, delivery, _ in chunk])
            connection.executemany(_ATTEMPTS, [attempt for _, _, attempts in chunk for attempt in attempts])
            connection.execute("COMMIT")
            done += len(chunk)
            step(done, f"{done / (time.monotonic() - began):,.0f} per second")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    os.sync()


def _rows(
    owners: list[tuple[int, int]], type_seq: int, first: int, count: int
) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...], tuple[tuple[Any, ...], ...]]]:
    """Yield each event with its delivery and attempts, oldest first."""
    now = time.time_ns() // 1_000_000
    for number in range(count):
        endpoint, account = owners[number % len(owners)]
        at, seq = now - _SPAN_MS + number * _SPAN_MS // count, first + number
        failed = number // len(owners) % _FAILED_EVERY == 0
        status = Status.FAILED if failed else Status.DELIVERED
        outcome = Outcome.SERVER_ERROR if failed else Outcome.DELIVERED
        reason = int(FailedReason.EXHAUSTED) if failed else None
        yield (
            (uuid7(at, os.urandom(10)), account, type_seq, at, _BODY),
            (seq, endpoint, account, int(status), int(outcome), reason, at + 5200),
            (
                (seq, endpoint, 1, at, 20_000 + number % 300_000, 500, int(Outcome.SERVER_ERROR), _HEAD, _ANSWER),
                (seq, endpoint, 2, at + 5000, 20_000, 500 if failed else 200, int(outcome), _HEAD, _ANSWER),
            ),
        )
