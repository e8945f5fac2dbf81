"""CPU time of the store alone per event, in commits of different sizes, on SQLite and PostgreSQL."""

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from typing import Final

import uvloop
from tests.postgres import PostgresServer

from bench.meter import cpu_s
from bench.options import Options
from bench.progress import Step, bar
from bench.report import Figure, Report
from bench.row import Row
from bench.scene import BODY_BYTES, workspace
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.store import schema_version
from uplift_server.store.contract import Database
from uplift_server.store.hot_records import AttemptRow, NewDelivery, NewEvent, Settlement
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.sqlite import SqliteDatabase

_USUAL_S: Final = 5.0
_SIZES: Final = (1, 10, 100)
_NOW: Final = 1_764_000_000_000
_OWNER: Final = 7
_BODY: Final = b"x" * BODY_BYTES
_HEAD: Final = b"x" * 400
_ANSWER: Final = b"x" * 200

CpuSeconds = Callable[[], float]
"""Function that returns the CPU time that the database's own processes have used, in seconds."""


def _events() -> Iterator[NewEvent]:
    """Yield events with ascending IDs for alternating endpoints."""
    number = 0
    while True:
        number += 1
        event_id = (_NOW + number // 5).to_bytes(6) + os.urandom(10)
        delivery = NewDelivery(number % 50 + 1, Status.PENDING, _NOW + 30_000, _OWNER)
        yield NewEvent(event_id, 1, number % 20 + 1, _NOW, None, _BODY, (delivery,))


def _settlement(event_seq: int, endpoint_seq: int) -> Settlement:
    attempt = AttemptRow(
        event_seq, endpoint_seq, 1, 0, _NOW, 1500, None, None, None, 2, 200, Outcome.DELIVERED,
        None, None, "127.0.0.1:80", _HEAD, _ANSWER, b"", False,
    )  # fmt: skip
    return Settlement(event_seq, endpoint_seq, 1, Status.DELIVERED, None, 1, 1, Outcome.DELIVERED, None, _NOW, attempt)


class _Meter:
    """CPU cost of an event in sequential commits, in this process and in the processes of the database."""

    def __init__(self, engine: str, spent: CpuSeconds | None, secs: float) -> None:
        self._engine = engine
        self._spent = spent
        self._secs = secs
        self.figures: list[Figure] = []

    async def run(self, verb: str, size: int, commit: Callable[[], Awaitable[int]]) -> None:
        """Commit for the measured time, or until there are no more events."""
        for _ in range(3):
            await commit()
        began, own, theirs, count = time.monotonic(), time.process_time(), self._spent() if self._spent else 0.0, 0
        while time.monotonic() - began < self._secs and (done := await commit()):
            count += done
        own = time.process_time() - own
        name = f"{self._engine}, {verb}, commits of {size}"
        count = max(count, 1)
        if self._spent is None:
            self.figures.append(Figure(name, own / count * 1e6, "µs per event"))
        else:
            theirs = self._spent() - theirs
            self.figures.append(Figure(name, (own + theirs) / count * 1e6, "µs per event"))
            self.figures.append(Figure(f"{name}, PostgreSQL alone", theirs / count * 1e6, "µs per event"))


async def _verbs(database: Database, meter: _Meter, step: Step) -> None:
    events = _events()
    stored: list[tuple[int, int]] = []

    async def append(size: int) -> int:
        groups = [[next(events)] for _ in range(size)]
        for group, result in zip(groups, await database.append(groups), strict=True):
            assert isinstance(result, list)
            stored.append((result[0].seq, group[0].deliveries[0].endpoint_seq))
        return size

    async def settle(size: int) -> int:
        batch = [_settlement(*stored.pop()) for _ in range(min(size, len(stored)))]
        assert not await database.settle(batch)
        return len(batch)

    for size in _SIZES:
        await meter.run("stored", size, lambda size=size: append(size))  # type: ignore[misc]
        await meter.run("settled", size, lambda size=size: settle(size))  # type: ignore[misc]
        step(len(meter.figures), meter.figures[-1].text)


async def _on(database: Database, meter: _Meter, step: Step) -> list[Figure]:
    await database.open()
    try:
        await _verbs(database, meter, step)
    finally:
        await database.close()
    return meter.figures


def _measure(row: Row, options: Options) -> Report:
    secs = options.duration(_USUAL_S) / (10 if options.smoke else 1)
    figures: list[Figure] = []
    with ExitStack() as stack, bar("verbs", 3 * len(_SIZES) * 2) as step:
        path = workspace(options, stack) / "uplift.db"
        schema_version.upgrade(path, now_ms=0)
        figures += uvloop.run(_on(SqliteDatabase(path), _Meter("SQLite", None, secs), step))
        # Do not use the workspace: under root, PostgreSQL runs as another user, which cannot access the workspace.
        server = stack.enter_context(closing(PostgresServer("", parent=options.directory)))
        database = PostgresDatabase(server.new_database())
        figures += uvloop.run(_on(database, _Meter("PostgreSQL", lambda: cpu_s(server.pid), secs), step))
    return Report(
        row.name,
        row.title,
        figures,
        {
            "payload": f"{BODY_BYTES} bytes per event",
            "fan-out": "one endpoint per event",
            "load": f"sequential commits, {secs:g} s each",
            "durability": "SQLite: WAL, synchronous=FULL; PostgreSQL: fsync, synchronous_commit=on",
        },
    )


ROW: Final = Row("store", "cost of the store alone by database and commit size", _measure, 65)
