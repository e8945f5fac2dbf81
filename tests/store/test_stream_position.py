"""The stream position on PostgreSQL: a reader never skips a row that is committed after a higher-numbered row."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec import structs

from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.core.operations.statistics import Statistics, total
from uplift_server.store import changes, endpoint_backlog, listening, statistics
from uplift_server.store import deliveries as delivery_store
from uplift_server.store import events as event_store
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import LeasedDelivery
from uplift_server.store.pages import PageRequest
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.postgres.append import append_events
from uplift_server.store.postgres.connection import Opener, Raw
from uplift_server.store.postgres.settle import settle
from uplift_server.store.postgres.stream_position import StreamPositionFinder
from uplift_server.store.records import EventFilter
from uplift_server.store.schema import accounts, deliveries, event_types
from uplift_server.store.statistics import ALL_ACCOUNTS
from uplift_server.store.stream_position import STREAM_POSITION_MAX, StreamPosition

from .bench import NOW, OWNER, Bench, due, settled, stored_leased

ENDS = (Status.DELIVERED, Status.DELIVERED, Status.FAILED, Status.HELD)


@pytest.fixture
async def bench(postgres_url: str) -> AsyncIterator[Bench]:
    database = PostgresDatabase(postgres_url)
    await database.open()
    yield Bench(database, lambda: None)  # type: ignore[arg-type, return-value]
    await database.close()


@asynccontextmanager
async def appending_slowly(url: str, bench: Bench, *events: Any) -> AsyncIterator[int]:
    """Let another process store events, and commit them at the end of the block. Yield the number of the first one."""
    raw = await Opener(url, no_timeouts=True).raw()
    try:
        async with raw.transaction():
            (stored,) = await append_events(raw, [events])
            assert isinstance(stored, list)
            yield stored[0].seq
    finally:
        await raw.close()


async def read_forward(
    bench: Bench, after: int, stream_position: StreamPosition | None = None
) -> tuple[list[int], int]:
    """Return the numbers of the events after `after`, oldest first, and the position at which to continue."""
    stream_position = stream_position or await bench.database.stream_position()
    found = await bench.database.read(
        lambda c: event_store.page_forward(
            c, None, EventFilter(), stream_position, PageRequest(99, (after,), ascending=True)
        )
    )
    return [event.seq for event in found.items], found.key[0]


async def add_account(bench: Bench) -> None:
    def insert(connection: sa.Connection) -> None:
        times = {"created_at": NOW, "updated_at": NOW}
        connection.execute(sa.insert(accounts).values(seq=1, id=b"a" * 16, name="a", contact_emails="[]", **times))
        names = {"name": "a.b", "group_name": "", "description": "", "api_version": "1", "documented": False}
        connection.execute(sa.insert(event_types).values(seq=1, **names, **times))

    await bench.database.write(insert)


async def test_a_followed_list_skips_nothing(bench: Bench, postgres_url: str) -> None:
    await add_account(bench)
    assert await read_forward(bench, 0) == ([], 0)
    (first,) = await bench.append(bench.event())
    assert await read_forward(bench, 0) == ([first.seq], first.seq)
    async with appending_slowly(postgres_url, bench, bench.event()) as late:
        (early,) = await bench.append(bench.event())
        assert early.seq > late
        assert await read_forward(bench, first.seq) == ([], first.seq)
        # Without the stream position, the late event would be skipped.
        assert await read_forward(bench, first.seq, STREAM_POSITION_MAX) == ([early.seq], early.seq)
    assert await read_forward(bench, first.seq) == ([late, early.seq], early.seq)


async def test_a_rolled_back_transaction_does_not_delay_the_position(bench: Bench, postgres_url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with appending_slowly(postgres_url, bench, bench.event()):
            raise ZeroDivisionError
    (stored,) = await bench.append(bench.event())
    assert (await bench.database.stream_position()).events == stored.seq


async def test_an_unrelated_open_transaction_does_not_delay_the_position(bench: Bench, postgres_url: str) -> None:
    """The transaction writes to none of the tables of events, attempts and status changes."""
    raw = await Opener(postgres_url, no_timeouts=True).raw()
    async with raw.transaction():
        await raw.execute("INSERT INTO marks VALUES ('other', 1)")
        (stored,) = await bench.append(bench.event())
        assert (await bench.database.stream_position()).events == stored.seq
    await raw.close()


async def test_a_stream_gets_events_committed_after_its_start(bench: Bench, postgres_url: str) -> None:
    await add_account(bench)
    database = bench.database

    async def read_stream(after: int) -> tuple[list[int], int, bool]:
        stream_position = await database.stream_position()
        found = await database.read(
            lambda c: listening.next_events(
                c, 1, [], stream_position, after=after, limit=9, body_bytes_max=9999, now=NOW
            )
        )
        return [event.seq for event in found.items], found.key[0], found.more

    await database.stream_position()
    async with appending_slowly(postgres_url, bench, bench.event()) as late:
        (early,) = await bench.append(bench.event())
        stream_position = await database.stream_position()
        session = await database.write(
            lambda c: listening.create(
                c, session_id=b"s" * 16, account_seq=1, key_id=b"k" * 16, description="", event_types=(), since=None,
                after_event=None, stream_position=stream_position, now=NOW,
            )
        )  # fmt: skip
        assert session.position < late
        assert await read_stream(session.position) == ([], session.position, True)
    assert await read_stream(session.position) == ([late, early.seq], early.seq, False)


async def test_a_page_shows_late_commits(bench: Bench, postgres_url: str) -> None:
    async with appending_slowly(postgres_url, bench, bench.event()):
        await bench.append(bench.event())
        before = await bench.database.read(lambda c: changes.newest_seqs(c, 1))
    assert await bench.database.read(lambda c: changes.newest_seqs(c, 1)) != before


async def read_totals(bench: Bench) -> Statistics:
    found = await bench.database.read(lambda c: statistics.by_bucket(c, [ALL_ACCOUNTS], since=0))
    return total(each for _, each in found[ALL_ACCOUNTS])


async def count(bench: Bench, stream_position: StreamPosition | None = None) -> bool:
    """Count one batch. Return whether there was one."""
    stream_position = stream_position or await bench.database.stream_position()
    found = await bench.database.read(lambda c: statistics.count(c, stream_position, now=NOW, rows=1000, changes=1000))
    return found is not None and await bench.database.write(lambda c: statistics.save(c, found))


async def test_an_attempt_beyond_the_stream_position_is_counted_once(bench: Bench, postgres_url: str) -> None:
    """When a delivery is counted, its status may already include an attempt that is counted only later."""
    await bench.append(*(bench.event(stored_leased(1)) for _ in range(3)))
    leased = LeasedDelivery(0, 1, 1, 0, 0, 0, Trigger.SCHEDULE, b"", 1, NOW, None, b"")
    await bench.database.settle([settled(structs.replace(leased, event_seq=1), Status.FAILED)])
    before = await bench.database.stream_position()
    await bench.database.settle(
        [settled(structs.replace(leased, event_seq=2)), settled(structs.replace(leased, event_seq=3), Status.FAILED)]
    )
    assert await count(bench, before)
    found = await read_totals(bench)
    assert (found.deliveries, found.delivered, found.failed, found.attempts) == (3, 0, 1, 1)
    assert await count(bench)
    found = await read_totals(bench)
    assert (found.deliveries, found.delivered, found.failed, found.attempts) == (3, 1, 2, 3)
    assert not await count(bench)


async def test_late_commits_are_counted(bench: Bench, postgres_url: str) -> None:
    await bench.append(*(bench.event(due(1)) for _ in range(4)))
    first, second, third, _ = await bench.lease(1)
    await bench.database.stream_position()
    raw = await Opener(postgres_url, no_timeouts=True).raw()
    async with raw.transaction():
        await settle(raw, [settled(first)], [])
        async with appending_slowly(postgres_url, bench, bench.event(due(2))):
            await bench.database.settle([settled(second), settled(third, Status.FAILED)])
            await bench.append(bench.event(due(1)))
            await count(bench)
        await count(bench)
    await raw.close()
    while await count(bench):
        pass
    found = await read_totals(bench)
    assert (found.deliveries, found.delivered, found.failed, found.attempts) == (6, 2, 1, 3)


@pytest.mark.parametrize("seed", range(2))
async def test_statistics_are_exact_with_overlapping_writes(bench: Bench, postgres_url: str, seed: int) -> None:
    """Two processes store, lease, settle and change deliveries while a third one counts."""
    random_ = random.Random(seed)
    other = PostgresDatabase(postgres_url)

    async def work(database: PostgresDatabase, endpoint: int) -> None:
        own = Bench(database, lambda: None, _count=random_.randrange(10**9))  # type: ignore[arg-type, return-value]
        for _ in range(10):
            made = [own.event(random_.choice((due, stored_leased))(endpoint)) for _ in range(random_.randint(1, 5))]
            await asyncio.gather(*(own.append(each) for each in made))
            leased = await own.lease(endpoint, 5)
            ends = [
                (each, random_.choice((Status.DELIVERED, Status.DELIVERED, Status.FAILED, Status.HELD)))
                for each in leased
            ]
            await asyncio.gather(*(database.settle([settled(each, end)]) for each, end in ends))
            await database.write(lambda c: endpoint_backlog.cancel_held(c, endpoint, through=10**9, now=NOW, limit=2))
            for each, end in ends:
                if end is Status.FAILED and random_.random() < 0.5:
                    resent = await database.write(
                        lambda c, each=each: delivery_store.start_resend(
                            c, each.event_seq, endpoint, fence=None, now=NOW, lease_until=NOW + 9, process_id=OWNER
                        )
                    )
                    await database.settle([settled(resent)])

    workers = [
        asyncio.create_task(work(database, endpoint))
        for database in (bench.database, other)
        for endpoint in (1, 2, 3)  # type: ignore[arg-type]
    ]
    batches = 0
    while not all(worker.done() for worker in workers):
        batches += await count(bench)
        await asyncio.sleep(0)
    await asyncio.gather(*workers)
    await other.close()
    assert batches > 2
    while await count(bench):
        pass
    found = await read_totals(bench)
    statuses = Counter(Status(row.status).text for row in await bench.rows(deliveries))
    assert found.attempts > 10
    assert {name: getattr(found, name) for name in statuses} == dict(statuses)
    assert found.deliveries == statuses.total()


async def test_a_late_reading_is_recorded_before_the_next_one(
    bench: Bench, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late reading lacks newer locks. If it replaced a newer reading, readers would skip the lock holders' rows."""
    await add_account(bench)
    (first,) = await bench.append(bench.event())
    has_read, may_return = asyncio.Event(), asyncio.Event()
    recorded: list[int] = []
    fetchrow, note = Raw.fetchrow, StreamPositionFinder.note

    async def fetch_slowly(raw: Raw, query: str, *arguments: Any) -> Any:
        row = await fetchrow(raw, query, *arguments)
        if not has_read.is_set():
            has_read.set()
            await may_return.wait()
        return row

    def record(finder: StreamPositionFinder, position: StreamPosition, holders: Sequence[str]) -> None:
        recorded.append(position.events)
        note(finder, position, holders)

    monkeypatch.setattr(Raw, "fetchrow", fetch_slowly)
    monkeypatch.setattr(StreamPositionFinder, "note", record)
    late_read = asyncio.ensure_future(bench.database.stream_position())
    await has_read.wait()
    async with appending_slowly(postgres_url, bench, bench.event()) as late:
        (early,) = await bench.append(bench.event())
        next_read = asyncio.ensure_future(bench.database.stream_position())
        # If the second reading did not wait for the first, it would end within this time.
        await asyncio.wait([next_read], timeout=0.3)
        may_return.set()
        await late_read
        assert await read_forward(bench, first.seq, await next_read) == ([], first.seq)
        assert await read_forward(bench, first.seq) == ([], first.seq)
    assert await read_forward(bench, first.seq) == ([late, early.seq], early.seq)
    assert recorded == sorted(recorded)


async def test_the_position_goes_back_if_sequences_do(bench: Bench, postgres_url: str) -> None:
    """After a failover that lost transactions, sequences return the same numbers again."""
    await add_account(bench)
    *_, last = await bench.append(*(bench.event() for _ in range(3)))
    raw = await Opener(postgres_url).raw()
    await raw.execute("SELECT nextval('events_seq_seq') FROM generate_series(1, 100)")
    assert (await bench.database.stream_position()).events == last.seq + 100
    await raw.execute("SELECT setval('events_seq_seq', $1::bigint)", last.seq)
    await raw.close()
    async with appending_slowly(postgres_url, bench, bench.event()) as late:
        (early,) = await bench.append(bench.event())
        with pytest.raises(Unavailable, match="not known yet"):
            await read_forward(bench, last.seq)
    assert await read_forward(bench, last.seq) == ([late, early.seq], early.seq)


async def test_a_process_without_a_position_waits_for_one(
    bench: Bench, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call raises Unavailable if the wait is too long. A later call succeeds when the open transaction ends."""
    await add_account(bench)
    monkeypatch.setattr("uplift_server.store.postgres.database.FIRST_POSITION_EVERY_MS", 5)
    (first,) = await bench.append(bench.event())
    other = PostgresDatabase(postgres_url)
    async with appending_slowly(postgres_url, bench, bench.event()):
        with pytest.raises(Unavailable, match="not known yet"):
            await other.stream_position()
        reading = asyncio.ensure_future(other.stream_position())
        await asyncio.sleep(0.05)
    assert (await reading).events > first.seq
    await other.close()


async def test_a_process_with_an_older_position_does_not_count_rows_again(bench: Bench) -> None:
    await bench.append(*(bench.event(due(1)) for _ in range(3)))
    [leased] = await bench.lease(1, 1)
    await bench.database.settle([settled(leased)])
    assert await count(bench)
    before = await read_totals(bench)
    assert not await count(bench, StreamPosition(0, 0, 0))
    assert not await count(bench)
    assert await read_totals(bench) == before
    assert (before.deliveries, before.attempts) == (3, 1)
