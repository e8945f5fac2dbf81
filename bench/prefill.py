"""Writes many endpoints, or deliveries with a failed attempt, directly into a SQLite database."""

import asyncio
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.load import TYPE
from bench.progress import bar
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.ids import uuid7
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.store.encryption import Cipher, parse_key
from uplift_server.store.hot_records import Appended, AttemptRow, NewDelivery, NewEvent, Settlement
from uplift_server.store.sqlite.database import SqliteDatabase

_CHUNK: Final = 500
_OWNER: Final = 1
_COPIES_FROM: Final = 1_000_000
_PER_ACCOUNT: Final = 100
_DUE_IN_MS: Final = 12 * 3_600_000
_HEAD: Final = b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"x-filler: " + b"x" * 600 + b"\r\n\r\n"
_ANSWER: Final = b"HTTP/1.1 500 Failed\r\ncontent-length: 0\r\n\r\n"


def prefill(database: Path, count: int, body_bytes: int, *, exhausted: bool = False) -> None:
    """Add `count` deliveries with one failed attempt each, spread over all endpoints and due in twelve hours.

    With `exhausted`, all deliveries have failed and belong to the first endpoint. The server must have created the
    tables, and must be stopped.
    """
    connection = sqlite3.connect(database)
    endpoints = connection.execute("SELECT seq, account_seq FROM endpoints ORDER BY seq").fetchall()
    (type_seq,) = connection.execute("SELECT seq FROM event_types WHERE name = ?", (TYPE,)).fetchone()
    connection.close()
    chosen = endpoints[:1] if exhausted else endpoints
    kinds = list(_events(chosen, type_seq, body_bytes))
    asyncio.run(_fill(database, kinds, count, exhausted=exhausted))
    # Recent writes must be on disk before the measurement.
    os.sync()


def copy_endpoints(database: Path, count: int) -> None:
    """Add `count` copies of the first endpoint, in copies of its account with 100 endpoints each.

    The server must be stopped. It must use the `secret.key` next to the database.
    """
    cipher = Cipher(parse_key(database.with_name("secret.key").read_text().strip()))
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.row_factory = sqlite3.Row
        account = dict(connection.execute("SELECT * FROM accounts ORDER BY seq LIMIT 1").fetchone())
        endpoint = dict(connection.execute("SELECT * FROM endpoints ORDER BY seq LIMIT 1").fetchone())
        secret = cipher.decrypt(endpoint["secret"], endpoint["id"], "secret")
        accounts = [account | {"seq": _COPIES_FROM + n, "id": os.urandom(16)} for n in range(-(-count // _PER_ACCOUNT))]
        endpoints = []
        for number in range(count):
            ident = os.urandom(16)
            endpoints.append(
                endpoint
                | {
                    "seq": _COPIES_FROM + number,
                    "id": ident,
                    "account_seq": accounts[number // _PER_ACCOUNT]["seq"],
                    "secret": cipher.encrypt(secret, ident, "secret"),
                }
            )
        _insert(connection, "accounts", accounts)
        _insert(connection, "endpoints", endpoints)


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    marks = ", ".join(f":{name}" for name in rows[0])
    connection.executemany(f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES ({marks})", rows)


def _events(endpoints: list[tuple[int, int]], type_seq: int, body_bytes: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield endpoint, account, event type and body of an event for each endpoint."""
    data = {"object": {"pad": ""}}
    data["object"]["pad"] = "x" * (body_bytes - len(json.dumps(data)))
    body = json.dumps(data).encode()
    for endpoint_seq, account_seq in endpoints:
        yield endpoint_seq, account_seq, type_seq, body


async def _fill(path: Path, kinds: list[tuple[int, int, int, bytes]], count: int, *, exhausted: bool) -> None:
    database = SqliteDatabase(path)
    database.lock()
    await database.open()
    try:
        began = time.monotonic()
        with bar("writing waiting deliveries", count) as step:
            for done in range(0, count, _CHUNK):
                now = time.time_ns() // 1_000_000
                size = min(_CHUNK, count - done)
                chosen = [kinds[(done + offset) % len(kinds)] for offset in range(size)]
                lease = [NewDelivery(endpoint, Status.PENDING, now + 60_000, _OWNER) for endpoint, *_ in chosen]
                events = [
                    NewEvent(uuid7(now, os.urandom(10)), account, type_seq, now, None, body, (delivery,))
                    for (_, account, type_seq, body), delivery in zip(chosen, lease, strict=True)
                ]
                (stored,) = await database.append([events])
                assert isinstance(stored, list)
                await database.settle(
                    [
                        _failed(event, kind[0], now, exhausted=exhausted)
                        for event, kind in zip(stored, chosen, strict=True)
                    ]
                )
                step(done + size, f"{(done + size) / (time.monotonic() - began):,.0f} per second")
    finally:
        await database.close()


def _failed(event: Appended, endpoint_seq: int, now: int, *, exhausted: bool) -> Settlement:
    """Return the outcome of the first attempt; the second is due much later, or never."""
    attempt = AttemptRow(
        event_seq=event.seq,
        endpoint_seq=endpoint_seq,
        number=1,
        trigger=Trigger.SCHEDULE,
        started_at=now,
        duration_us=1000,
        dns_ms=None,
        connect_ms=None,
        tls_ms=None,
        first_byte_ms=1,
        status_code=500,
        outcome=Outcome.SERVER_ERROR,
        error=None,
        location=None,
        remote_address="127.0.0.1:80",
        request_head=_HEAD,
        response_head=_ANSWER,
        response_body=b"",
        body_truncated=False,
    )
    return Settlement(
        event_seq=event.seq,
        endpoint_seq=endpoint_seq,
        fence=1,
        status=Status.FAILED if exhausted else Status.PENDING,
        due_at=None if exhausted else now + _DUE_IN_MS,
        attempts_made=1,
        scheduled_attempts=1,
        last_outcome=Outcome.SERVER_ERROR,
        failed_reason=FailedReason.EXHAUSTED if exhausted else None,
        completed_at=now if exhausted else None,
        attempt=attempt,
    )
