"""The order of jobs in the writer's queue, and the number of statements of a job."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.limits import COMMIT_ROWS_MAX, COMMIT_WRITES_MAX, ROW_BODY_BYTES
from uplift_server.service.errors import ServiceError
from uplift_server.store.hot_records import HealthRow, IdempotencyConflict, LeaseRequest, NewEvent
from uplift_server.store.schema import deliveries
from uplift_server.store.schema import events as event_table
from uplift_server.store.sqlite import SqliteDatabase
from uplift_server.store.sqlite.many_rows import STATEMENT_BYTES_MAX
from uplift_server.store.sqlite.writer import WriterConnection

from .bench import LEASE_UNTIL, NOW, OWNER, Bench, due, settled, stored_leased
from .order_conformance import ordered
from .test_sqlite import sqlite_bench

MANY = 200


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with sqlite_bench(tmp_path, SqliteDatabase) as bench:
        yield bench


class Busy:
    """Keeps the writer busy, so that jobs queue."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._free = threading.Event()

    async def __aenter__(self) -> None:
        began = threading.Event()

        def wait(_connection: sa.Connection) -> None:
            began.set()
            self._free.wait(30)

        self._job = asyncio.ensure_future(self._bench.database.write(wait))
        await asyncio.to_thread(began.wait, 30)

    async def __aexit__(self, *_exc: object) -> None:
        self._free.set()
        await self._job


def many_deliveries(bench: Bench) -> NewEvent:
    return bench.event(*(due(endpoint) for endpoint in range(1, COMMIT_ROWS_MAX)))


def large_body(bench: Bench) -> NewEvent:
    return bench.event(due(1))._replace(body=b"x" * COMMIT_ROWS_MAX * ROW_BODY_BYTES)


@pytest.mark.parametrize("large", [many_deliveries, large_body])
async def test_a_small_event_waits_for_at_most_one_large_event(
    bench: Bench, large: Callable[[Bench], NewEvent]
) -> None:
    stored: list[str] = []

    async def append(name: str, event: NewEvent) -> None:
        await bench.append(event)
        stored.append(name)

    async with Busy(bench):
        appends = [asyncio.ensure_future(append(f"large {n}", large(bench))) for n in range(3)]
        await asyncio.sleep(0.05)
        appends += [asyncio.ensure_future(append(f"small {n}", bench.event(due(1)))) for n in range(5)]
        await asyncio.sleep(0.05)
    await asyncio.gather(*appends)
    assert stored[0] == "large 0"
    assert sorted(stored[1:6]) == [f"small {n}" for n in range(5)]
    assert stored[6:] == ["large 1", "large 2"]


@pytest.mark.parametrize("rows", [1, COMMIT_ROWS_MAX])
async def test_an_event_does_not_wait_for_all_changes(bench: Bench, rows: int) -> None:
    done: list[int] = []

    async def change(number: int) -> None:
        await bench.database.write(lambda c: c.execute(sa.text("SELECT 1")).scalar())
        done.append(number)

    async def store(event: NewEvent) -> int:
        await bench.append(event)
        return len(done)

    async with Busy(bench):
        changes = [asyncio.ensure_future(change(number)) for number in range(100)]
        await asyncio.sleep(0.05)
        append = asyncio.ensure_future(store(bench.event(*(due(endpoint) for endpoint in range(1, rows)))))
        await asyncio.sleep(0.05)
    assert await append <= 2 * COMMIT_WRITES_MAX
    await asyncio.gather(*changes)
    assert done == list(range(100)), "changes were reordered"


class Statements:
    """Counts the statements that the writer runs."""

    def __init__(self, bench: Bench) -> None:
        self._database = bench.database
        self.texts: list[str] = []

    async def __aenter__(self) -> "Statements":
        await self._trace(on=True)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._trace(on=False)

    async def _trace(self, *, on: bool) -> None:
        def trace(writing: WriterConnection) -> None:
            writing.raw.set_trace_callback(self.texts.append if on else None)

        assert isinstance(self._database, SqliteDatabase)
        await self._database._writer.submit(trace)

    @property
    def hot(self) -> set[str]:
        """The distinct statements on deliveries, events and endpoints.

        The driver reports a statement again for each SQL trigger that the statement runs.
        """
        return {text for text in self.texts if any(name in text for name in ("deliveries", "events", "endpoints"))}


async def test_many_endpoints_are_leased_by_few_statements(bench: Bench) -> None:
    # The driver releases the interpreter lock for each row, and takes up to 5 ms to get it back from a busy event loop.
    await bench.append(*(bench.event(due(endpoint), due(endpoint + MANY)) for endpoint in range(1, MANY + 1)))
    requests = [LeaseRequest(endpoint, 1) for endpoint in range(1, 2 * MANY + 1)]
    async with Statements(bench) as statements:
        leased = await bench.database.lease_due(
            requests, now=NOW, lease_until=LEASE_UNTIL, process_id=OWNER, body_bytes_max=1 << 30
        )
    assert sorted(lease.endpoint_seq for lease in leased) == list(range(1, 2 * MANY + 1))
    assert len(statements.hot) <= 10


async def test_events_that_wait_together_are_stored_by_few_statements(bench: Bench) -> None:
    async with Statements(bench) as statements:
        async with Busy(bench):
            appends = [asyncio.ensure_future(bench.append(bench.event(due(1), due(2)))) for _ in range(MANY)]
            await asyncio.sleep(0.05)
        stored = await asyncio.gather(*appends)
        inserts = {text for text in statements.hot if text.startswith("INSERT")}
    assert [event.seq for (event,) in stored] == list(range(1, MANY + 1))
    assert len(inserts) <= 10


async def test_requests_that_wait_together_have_their_own_results(bench: Bench) -> None:
    first = bench.event(ordered(1), key="k")
    events = [
        first,
        bench.event(ordered(1), key="l"),
        bench.event(key="k", data=b'{"n":2}'),
        first,
        bench.event(due(1)),
    ]
    async with Busy(bench):
        appends = [asyncio.ensure_future(bench.database.append([[event]])) for event in events]
        await asyncio.sleep(0.05)
    results: Any = [(await each)[0] for each in appends]
    [[original], [blocked], conflict, [repeat], [last]] = results
    assert (original.seq, blocked.seq, last.seq) == (1, 2, 3)
    assert [list(each.blocked) for each in (original, blocked, last)] == [[], [1], []]
    assert isinstance(conflict, IdempotencyConflict)
    assert (repeat.seq, repeat.duplicate) == (1, True)


async def test_large_events_that_wait_together_are_stored_by_several_statements(bench: Bench) -> None:
    data = b'{"n":"' + b"x" * 200_000 + b'"}'
    async with Statements(bench) as statements:
        async with Busy(bench):
            appends = [asyncio.ensure_future(bench.append(bench.event(due(1), data=data))) for _ in range(60)]
            await asyncio.sleep(0.05)
        await asyncio.gather(*appends)
        inserts = [text for text in statements.texts if text.startswith("INSERT INTO events")]
    # The text of a traced statement has two digits for each byte.
    assert all(len(text) <= 2.2 * STATEMENT_BYTES_MAX for text in inserts)
    assert await bench.count(event_table) == 60


async def test_a_rejected_change_does_not_repeat_other_jobs(bench: Bench) -> None:
    """Services raise their own errors in a transaction, for example if the version of an object is outdated."""

    def reject(_connection: sa.Connection) -> None:
        raise ServiceError("outdated")

    async with Statements(bench) as statements:
        async with Busy(bench):
            appends = [asyncio.ensure_future(bench.append(bench.event(due(1)))) for _ in range(MANY)]
            changes = [asyncio.ensure_future(bench.database.write(reject)) for _ in range(COMMIT_WRITES_MAX - 1)]
            await asyncio.sleep(0.05)
        assert all(isinstance(each, ServiceError) for each in await asyncio.gather(*changes, return_exceptions=True))
        await asyncio.gather(*appends)
        begins = [text for text in statements.texts if text.startswith("BEGIN")]
    assert len(begins) <= 3
    assert await bench.count(event_table) == MANY


async def test_a_leased_body_has_the_bytes_of_the_accepted_event(bench: Bench) -> None:
    data = ['{"n":"\\u0000\\ud800"}', '{"n":"é😀\u2028"}', '{"n":"' + "x" * 200_000 + '"}', "{}"]
    events = [bench.event(due(1), data=text.encode()) for text in data]
    await bench.append(*events)
    assert [lease.body for lease in await bench.lease(1)] == [event.body for event in events]


async def test_the_next_due_times_of_many_endpoints_are_read_by_one_statement(bench: Bench) -> None:
    await bench.append(bench.event(*(due(endpoint, NOW + endpoint) for endpoint in range(1, MANY + 1))))
    async with Statements(bench) as statements:
        found = await bench.database.next_due(range(1, MANY + 10))
    assert {row.endpoint_seq: row.due_at for row in found} == {n: NOW + n for n in range(1, MANY + 1)}
    assert len(statements.hot) == 1


async def test_health_and_outcomes_are_written_by_few_statements(bench: Bench) -> None:
    await bench.append(bench.event(*(due(endpoint) for endpoint in range(1, MANY + 1))))
    requests = [LeaseRequest(endpoint, 1) for endpoint in range(1, MANY + 1)]
    leased = await bench.database.lease_due(
        requests, now=NOW, lease_until=LEASE_UNTIL, process_id=OWNER, body_bytes_max=1 << 30
    )
    health = [HealthRow(endpoint, 0, None, NOW, None, Outcome.DELIVERED, 0) for endpoint in range(1, MANY + 1)]
    async with Statements(bench) as statements:
        lost = await bench.database.settle([settled(lease) for lease in leased], health)
    assert not lost
    assert len([text for text in statements.hot if text.startswith("UPDATE endpoints")]) <= 10
    assert len(statements.hot) <= 20


async def test_leases_are_released_by_few_statements(bench: Bench) -> None:
    events = [bench.event(stored_leased(1), stored_leased(2)) for _ in range(MANY)]
    stored = await bench.append(*events)
    async with Statements(bench) as statements:
        await bench.database.release([(event.seq, 1, 1) for event in stored], now=NOW)
    assert len(statements.hot) <= 10
    rows = await bench.rows(deliveries)
    assert {(row.endpoint_seq, row.lease_owner, row.due_at) for row in rows} == {(1, 0, NOW), (2, OWNER, LEASE_UNTIL)}
    assert {row.status for row in rows} == {Status.PENDING}
