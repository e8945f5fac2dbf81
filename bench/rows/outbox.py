"""Emitter outbox: throughput for a full outbox, and the time from an insert to the delivery at a low rate."""

import asyncio
import json
import time
from contextlib import ExitStack
from typing import Final

import asyncpg
from tests.postgres import PostgresServer, name_of

from bench.load import FIRST_SEQ, TYPE
from bench.meter import cpu_s
from bench.options import Options
from bench.processes import BIN, running
from bench.report import Figure, Report, at_least, at_most
from bench.row import Row
from bench.rows.postgres import DURABLE
from bench.scene import Scene, conditions
from uplift_server.store.postgres.emitter_outbox import SQL

_ROWS: Final = 60_000
_SMOKE_ROWS: Final = 500
_USUAL_S: Final = 20.0
_RATE: Final = 300.0
_KEYS: Final = 1_000
_PAD: Final = "x" * 850
_FILL: Final = f"""
INSERT INTO uplift_outbox (account, type, data, ordering_key)
SELECT ($1::text[])[1 + number % cardinality($1)], '{TYPE}', jsonb_build_object('object', jsonb_build_object(
    'id', number::text, 'seq', {FIRST_SEQ} + number, 't', 0, 'pad', '{_PAD}')), (number % {_KEYS})::text
FROM generate_series(0, $2 - 1) AS number
"""
_INSERT: Final = f"INSERT INTO uplift_outbox (account, type, data, ordering_key) VALUES ($1, '{TYPE}', $2, $3)"


def _measure(row: Row, options: Options) -> Report:
    count = _SMOKE_ROWS if options.smoke else _ROWS
    secs = options.duration(_USUAL_S)
    with ExitStack() as stack:
        postgres = PostgresServer(DURABLE, parent=options.directory)
        stack.callback(postgres.close)
        url = postgres.new_database(empty=True)
        postgres.execute(SQL, name_of(url))
        scene = stack.enter_context(Scene(options))
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        asyncio.run(_fill(url, scene.accounts, count))
        command = [BIN / "uplift-server", "outbox", "--source-url", url]
        log = stack.enter_context((scene.directory / "outbox.log").open("wb"))
        reader = stack.enter_context(
            running(command, env=scene.server.settings, cwd=scene.directory, stdout=log, stderr=log)
        )
        lost = scene.drain(set(range(FIRST_SEQ, FIRST_SEQ + count)))
        full = scene.receiver.statistics()
        reader_us = cpu_s(reader.pid) / count * 1e6
        source_us = cpu_s(postgres.pid) / count * 1e6

        scene.receiver.reset()
        inserted = asyncio.run(_insert(url, scene.accounts, FIRST_SEQ + count, secs))
        lost |= scene.drain(inserted)
        slow = scene.receiver.statistics()
        notes = scene.trouble()
    received_ms = slow["latency_ms"].get("ok", {})
    duplicates = sum(counts["duplicates"] for found in (full, slow) for counts in found["counts"].values())
    return Report(
        row.name,
        row.title,
        [
            at_least("delivered", count / max(1e-9, (full["last_at"] - full["first_at"]) / 1e9), "rows/s", 3_000),
            at_most("inserted → received p50", received_ms.get("p50", 0), "ms", 50),
            Figure("inserted → received p99", received_ms.get("p99", 0), "ms"),
            at_most("lost", len(lost), "events", 0),
            at_most("duplicates", duplicates, "events", 0),
            Figure("CPU time of the reader", reader_us, "µs per row"),
            Figure("CPU time of PostgreSQL, including the inserts", source_us, "µs per row"),
        ],
        conditions(
            options,
            load=f"{count:,} rows with {_KEYS:,} ordering keys; then {_RATE:g} inserts/s for {secs:g} s",
            postgres=DURABLE.replace("-c ", ""),
        ),
        {},
        {f"inserted → received at {_RATE:g}/s": received_ms},
        notes,
    )


async def _fill(url: str, accounts: list[str], count: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(_FILL, accounts, count)
    await connection.close()


async def _insert(url: str, accounts: list[str], first: int, secs: float) -> set[int]:
    """Insert rows at a fixed rate, each in a transaction of its own. Return their numbers."""
    connection = await asyncpg.connect(url)
    began, number = time.monotonic(), 0
    while (due := number / _RATE) < secs:
        await asyncio.sleep(max(0.0, began + due - time.monotonic()))
        event = {"id": str(number), "seq": first + number, "t": time.time_ns(), "pad": _PAD}
        account = accounts[number % len(accounts)]
        await connection.execute(_INSERT, account, json.dumps({"object": event}), str(number % _KEYS))
        number += 1
    await connection.close()
    return set(range(first, first + number))


ROW: Final = Row("outbox", "rows of an emitter outbox to the receiver", _measure, 60)
