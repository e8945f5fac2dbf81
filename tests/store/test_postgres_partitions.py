"""Partitions of events: how the next one is begun beside traffic, how an old one goes, and what of it stays."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs
from tests.postgres import PostgresServer

from uplift_server.core.deliveries import Status
from uplift_server.core.ids import uuid7
from uplift_server.core.processes import ProcessRole
from uplift_server.delivery.retention import Retention
from uplift_server.observe.measures import EngineMeasures
from uplift_server.store import numbers, processes
from uplift_server.store import schema_version as history
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import IdempotencyConflict
from uplift_server.store.partitions import Partition, Partitions
from uplift_server.store.postgres import PostgresDatabase, schema_version
from uplift_server.store.postgres.connection import Opener
from uplift_server.store.postgres.partitions import ASIDE_LOCK, KEPT_EVENTS_MAX, PostgresPartitions
from uplift_server.store.schema import attempts, deliveries, events
from uplift_server.store.schema_partitions import NUMBERS, chosen_event_ids, event_partitions

from .bench import NOW, Bench, due, settled

DAY = 86_400_000
KEEP_MS = 28 * DAY


class Clock:
    """A clock that stands, and lets nobody wait."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.database = database
        self.now = 0

    def now_ms(self) -> int:
        return self.now

    async def wait(self, _event: asyncio.Event, _timeout_ms: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
async def bench(postgres_server: PostgresServer) -> AsyncIterator[Bench]:
    """An open, empty database of its own, whose partitions no other test gets, begun at NOW."""
    url = await asyncio.to_thread(postgres_server.new_database, empty=True)
    await schema_version.prepare(url)
    raw = await Opener(url).raw()
    await raw.execute("UPDATE event_partitions SET begun_at = $1", NOW)
    await raw.close()
    bench = Bench(PostgresDatabase(url), lambda: None)  # type: ignore[arg-type, return-value]
    await bench.database.open()
    yield bench
    await bench.database.close()


@pytest.fixture
async def stranger(bench: Bench) -> AsyncIterator[Any]:
    """A connection of somebody else to the same database."""
    pair = await bench.database._readers._open()  # type: ignore[attr-defined]
    yield pair.raw
    await pair.close()


async def begin(bench: Bench, now: int) -> bool:
    assert bench.database.partitions is not None
    return await bench.database.partitions.begin(now=now, lasts_ms=DAY)


async def delivered(bench: Bench, count: int = 1, *, at: int = NOW, status: Status = Status.DELIVERED) -> list[int]:
    """Events with a delivery to endpoint 1 each, attempted once; their numbers."""
    appended = await bench.append(*(bench.event(due(1), created_at=at) for _ in range(count)))
    leased = await bench.lease(1, limit=count)
    await bench.database.settle([settled(each, status) for each in leased])
    return [each.seq for each in appended]


async def rows(bench: Bench, column: sa.Column[int]) -> list[int]:
    """The values of a column."""
    return await bench.database.read(lambda c: sorted(c.scalars(sa.select(column))))


async def partitions(bench: Bench) -> list[tuple[int, int, bool]]:
    """Every partition: the first and the last of its thousands of millions of numbers, and whether it is a rest."""
    query = sa.select(event_partitions.c.first_seq, event_partitions.c.end_seq, event_partitions.c.goes_by_row)
    found = await bench.database.read(lambda c: c.execute(query.order_by("first_seq")).all())
    names = await bench.database.read(
        lambda c: c.exec_driver_sql(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'attempts'::regclass ORDER BY 1"
        ).all()
    )
    assert sorted(f"attempts_{first // NUMBERS}_{end // NUMBERS}" for first, end, _ in found) == [n for (n,) in names]
    return [(first // NUMBERS, end // NUMBERS, rest) for first, end, rest in found]


async def count_all(bench: Bench) -> None:
    """Count everything there is."""
    database = bench.database
    horizon = await database.horizon()
    while counted := await database.read(lambda c: numbers.count(c, horizon, rows=1000, notes=1000)):
        await database.write(lambda c: numbers.save(c, counted))
        if not counted.more:
            break


async def first_ended(bench: Bench) -> tuple[Partitions, Partition]:
    """The only partition of which all is old two days after NOW, once everything is counted."""
    await count_all(bench)
    assert bench.database.partitions is not None
    [partition] = await bench.database.partitions.ended(before=NOW + 2 * DAY)
    return bench.database.partitions, partition


async def retained(bench: Bench, now: int) -> Counter[str]:
    """A pass of retention at an instant, everything being counted before."""
    await count_all(bench)
    database = bench.database
    clock = Clock(database)  # type: ignore[arg-type]
    clock.now = now
    return await Retention(database, clock, EngineMeasures(), retention_ms=KEEP_MS).prune_once(asyncio.Event())  # type: ignore[arg-type]


async def test_numbers_go_on_in_the_next_partition_once_one_has_lasted_long_enough(bench: Bench) -> None:
    assert not await begin(bench, NOW + 9 * DAY), "nothing is in it"
    first = await delivered(bench)
    assert not await begin(bench, NOW + DAY - 1)
    assert await begin(bench, NOW + DAY)
    assert await partitions(bench) == [(0, 1, False), (1, 2, False)]
    second = await delivered(bench)
    assert (first, second) == ([1], [NUMBERS])
    assert not await begin(bench, NOW + DAY + DAY - 1)
    assert await begin(bench, NOW + 2 * DAY)
    assert await delivered(bench, 2) == [2 * NUMBERS, 2 * NUMBERS + 1]
    assert await rows(bench, attempts.c.event_seq) == [1, NUMBERS, 2 * NUMBERS, 2 * NUMBERS + 1]


async def test_one_is_begun_beside_traffic(bench: Bench) -> None:
    """Every event finds its partition, whatever comes in between; numbers grow."""
    await delivered(bench)
    stopping = asyncio.Event()

    async def emit() -> list[int]:
        seqs = []
        while not stopping.is_set():
            [appended] = await bench.append(bench.event(due(1)))
            seqs.append(appended.seq)
        return seqs

    emitting = [asyncio.create_task(emit()) for _ in range(8)]
    for day in range(1, 6):
        await asyncio.sleep(0.05)
        assert await begin(bench, NOW + day * DAY)
    stopping.set()
    seqs = [await each for each in emitting]
    assert all(own == sorted(own) for own in seqs)
    assert {seq // NUMBERS for own in seqs for seq in own} >= {0, 1, 2, 3, 4}
    assert await rows(bench, events.c.seq) == sorted([1, *(seq for own in seqs for seq in own)])


@pytest.mark.parametrize("step", ["made", "jumped"])
async def test_what_was_cut_off_amid_beginning_one_is_made_up_for(bench: Bench, step: str, stranger: Any) -> None:
    await delivered(bench)
    assert await begin(bench, NOW + DAY)
    # As it stands after a crash: the partition is there, numbers may have jumped, and nobody noted it.
    await stranger.execute("UPDATE event_partitions SET begun_at = NULL WHERE first_seq > 0")
    await stranger.execute("UPDATE event_partitions SET ended_at = NULL")
    if step == "made":
        await stranger.execute("SELECT setval('events_seq_seq', 1)")
    [seq] = await delivered(bench)
    assert seq == (2 if step == "made" else NUMBERS)
    assert await begin(bench, NOW + DAY + 5)
    [seq] = await delivered(bench)
    assert seq == NUMBERS + (step == "jumped")
    assert not await begin(bench, NOW + DAY + DAY)


async def test_whoever_holds_the_tables_does_not_let_everybody_wait(bench: Bench, stranger: Any) -> None:
    """What would have to wait for him gives up, and is done when it is tried again."""
    await delivered(bench)
    async with stranger.transaction():
        await stranger.execute("LOCK TABLE events IN ROW EXCLUSIVE MODE")
        for _ in range(2):
            with pytest.raises(Unavailable):
                await begin(bench, NOW + DAY)
        assert await delivered(bench) == [2]
    assert await begin(bench, NOW + DAY)
    [seq] = await delivered(bench, at=NOW + DAY)
    async with stranger.transaction():
        await stranger.fetch("SELECT FROM events LIMIT 1")
        assert not (await retained(bench, NOW + 2 * DAY + KEEP_MS))["events"]
        assert await rows(bench, events.c.seq) == [1, 2, seq]
    assert (await retained(bench, NOW + 2 * DAY + KEEP_MS))["events"] == 2
    assert await rows(bench, events.c.seq) == [seq]


async def test_ids_that_callers_choose_are_recognised_in_all_partitions(bench: Bench) -> None:
    chosen = [uuid7(NOW, bytes([number]) * 10) for number in range(2)]
    first = await bench.append(bench.event(due(1), chosen_id=chosen[0]))
    # As one that was stored before there were partitions.
    await bench.database.write(lambda c: c.execute(sa.delete(chosen_event_ids)))
    assert await begin(bench, NOW + DAY)
    second = await bench.append(bench.event(due(1), chosen_id=chosen[1]))
    assert await begin(bench, NOW + 2 * DAY)
    for known, event_id in zip((first, second), chosen, strict=True):
        again = await bench.append(bench.event(due(1), chosen_id=event_id))
        assert [each.seq for each in again] == [each.seq for each in known]
        [other] = await bench.database.append([[bench.event(due(1), chosen_id=event_id, data=b'{"n":2}')]])
        assert isinstance(other, IdempotencyConflict)
    assert await rows(bench, events.c.seq) == [1, NUMBERS]


async def test_an_id_that_was_made_is_recognised_in_all_partitions_where_it_is_chosen(bench: Bench) -> None:
    """Two events with one id would be one that nobody can name."""
    made = []
    for day in range(1, 4):
        made += await bench.append(bench.event(due(1)))
        for event in made:
            (again,) = await bench.append(bench.event(due(1), chosen_id=event.id))
            assert (again.seq, again.duplicate) == (event.seq, True)
        assert await begin(bench, NOW + day * DAY)
    assert await rows(bench, events.c.seq) == [1, NUMBERS, 2 * NUMBERS]


async def test_the_same_chosen_id_is_stored_once_whoever_stores_it_at_once(bench: Bench) -> None:
    for day in range(1, 4):
        await delivered(bench)
        chosen = uuid7(NOW, bytes([day]) * 10)
        event = bench.event(due(1), chosen_id=chosen)
        *results, begun = await asyncio.gather(
            *(bench.database.append([[event]]) for _ in range(20)), begin(bench, NOW + day * DAY)
        )
        assert begun
        assert len({appended.seq for [[appended]] in results}) == 1  # type: ignore[misc]


async def test_an_old_partition_goes_as_a_whole_with_all_that_belongs_to_it(bench: Bench) -> None:
    await delivered(bench, 700)
    await bench.append(bench.event(chosen_id=uuid7(NOW, bytes(10))))
    await begin(bench, NOW + DAY)
    [young] = await delivered(bench, at=NOW + DAY)
    await begin(bench, NOW + 2 * DAY)
    await delivered(bench, at=NOW + 2 * DAY)

    # All events of the first are old before, and yet not all that it might have had.
    assert not (await retained(bench, NOW + KEEP_MS + DAY))["events"]
    assert len(await rows(bench, events.c.seq)) == 703
    assert (await retained(bench, NOW + KEEP_MS + DAY + 60_000))["events"] == 701
    assert await partitions(bench) == [(1, 2, False), (2, 3, False), (3, 4, False)]
    for column in (events.c.seq, attempts.c.event_seq, deliveries.c.event_seq):
        assert await rows(bench, column) == [young, 2 * NUMBERS]
    assert await rows(bench, chosen_event_ids.c.event_seq) == []


async def test_what_is_needed_stays_until_it_is_not(bench: Bench) -> None:
    """What is open of old partitions is put together, found as before, delivered as ever, and goes row by row."""
    open_ones = []
    for day in range(3):
        await delivered(bench, 5, at=NOW + day * DAY)
        [held] = await bench.append(bench.event(due(2), created_at=NOW + day * DAY))
        open_ones.append(held)
        await begin(bench, NOW + (day + 1) * DAY)
    await delivered(bench, at=NOW + 3 * DAY)

    assert (await retained(bench, NOW + KEEP_MS + 3 * DAY + 60_000))["events"] == 15
    assert await partitions(bench) == [(0, 3, True), (3, 4, False), (4, 5, False)]
    assert await rows(bench, deliveries.c.event_seq) == [*(each.seq for each in open_ones), 3 * NUMBERS]
    assert await rows(bench, events.c.seq) == [*(each.seq for each in open_ones), 3 * NUMBERS]
    leased = await bench.lease(2, limit=9)
    assert [each.event_seq for each in leased] == [each.seq for each in open_ones]
    await bench.database.settle([settled(each, Status.DELIVERED) for each in leased])
    await delivered(bench, at=NOW + 3 * DAY)
    assert (await retained(bench, NOW + KEEP_MS + 3 * DAY + 60_000))["events"] == 3
    assert await rows(bench, attempts.c.event_seq) == [3 * NUMBERS, 4 * NUMBERS]
    await retained(bench, NOW + KEEP_MS + 3 * DAY + 60_000)
    assert await partitions(bench) == [(3, 4, False), (4, 5, False)]


async def test_where_too_much_is_needed_everything_else_goes_row_by_row(bench: Bench) -> None:
    waiting = [bench.event(due(2)) for _ in range(KEPT_EVENTS_MAX + 1)]
    await bench.append(*waiting)
    await delivered(bench, 30)
    await begin(bench, NOW + DAY)
    await delivered(bench, at=NOW + DAY)
    assert (await retained(bench, NOW + KEEP_MS + DAY + 60_000))["events"] == 30
    assert await partitions(bench) == [(0, 1, True), (1, 2, False), (2, 3, False)]
    assert len(await rows(bench, events.c.seq)) == len(waiting) + 1


async def test_what_was_there_before_partitions_or_lasted_too_long_goes_row_by_row(bench: Bench, stranger: Any) -> None:
    """And on time, although what it is in is in use yet, or has only just ended."""
    late = NOW + KEEP_MS + 2 * DAY + 1
    await delivered(bench, 3)
    await delivered(bench, 3, at=NOW + 20 * DAY)
    assert (await retained(bench, late))["events"] == 3
    assert await partitions(bench) == [(0, 1, True), (1, 2, False)]
    await delivered(bench, at=late)
    assert not (await retained(bench, late))["events"]
    assert await rows(bench, events.c.seq) == [4, 5, 6, NUMBERS]
    assert (await retained(bench, NOW + KEEP_MS + 21 * DAY))["events"] == 3
    assert await rows(bench, events.c.seq) == [NUMBERS]


async def test_a_database_that_is_upgraded_tells_since_when_it_has_events(postgres_server: PostgresServer) -> None:
    url = await asyncio.to_thread(postgres_server.new_database, empty=True)
    pair = await Opener(url).pair()
    async with pair.raw.transaction():
        await pair.sql.run_sync(history.run, "0008")
    for number in range(3):
        event = "INSERT INTO events (id, account_seq, type_seq, created_at, body) VALUES ($1, 1, 1, $2, '')"
        await pair.raw.execute(event, bytes([number] * 16), NOW + number)
    assert await schema_version.upgrade(url) == "0008"
    assert await pair.raw.fetchval("SELECT begun_at FROM event_partitions") == NOW
    assert await pair.raw.fetchval("SELECT count(*) FROM events") == 3
    assert await pair.raw.fetchval("SELECT nextval('events_seq_seq')") == 4
    await pair.close()


async def test_an_event_that_has_something_open_stays_whole(bench: Bench) -> None:
    await bench.append(bench.event(due(1), due(2)))
    [leased] = await bench.lease(1)
    await bench.database.settle([settled(leased, Status.DELIVERED)])
    await begin(bench, NOW + DAY)
    await delivered(bench, at=NOW + DAY)
    assert not (await retained(bench, NOW + KEEP_MS + DAY + 60_000))["events"]
    assert await partitions(bench) == [(0, 1, True), (1, 2, False), (2, 3, False)]
    assert await rows(bench, deliveries.c.endpoint_seq) == [1, 1, 2]
    assert await rows(bench, attempts.c.event_seq) == [1, NUMBERS]


async def test_bodies_that_are_too_large_to_be_put_aside_let_others_go_row_by_row(bench: Bench) -> None:
    large = b'"' + b"x" * 2**20 + b'"'
    for _ in range(7):
        await bench.append(*(bench.event(due(2), data=large) for _ in range(10)))
    await delivered(bench)
    await begin(bench, NOW + DAY)
    await delivered(bench, at=NOW + DAY)
    assert (await retained(bench, NOW + KEEP_MS + DAY + 60_000))["events"] == 1
    assert await partitions(bench) == [(0, 1, True), (1, 2, False), (2, 3, False)]


async def test_a_partition_tells_how_many_numbers_it_has_used(bench: Bench) -> None:
    await bench.append(*(bench.event(due(2)) for _ in range(3)))
    await delivered(bench)
    await begin(bench, NOW + DAY)
    await delivered(bench, at=NOW + DAY)
    own, partition = await first_ended(bench)
    last = max(seq for seq in await rows(bench, events.c.seq) if seq < partition.end_seq)
    assert await own.numbers(partition) == last - partition.first_seq + 1 > 3
    assert await own.numbers(Partition(5 * NUMBERS, 6 * NUMBERS)) == 0


async def test_of_two_that_drop_a_partition_the_second_does_nothing(bench: Bench) -> None:
    await bench.append(bench.event(due(2)))
    await delivered(bench)
    await begin(bench, NOW + DAY)
    await delivered(bench, at=NOW + DAY)
    own, partition = await first_ended(bench)
    await own.thin(partition, after=None)
    with capture_logs() as lines:
        assert [await own.drop(partition) for _ in range(2)] == [1, 0]
    [told] = [line for line in lines if line["event"] == "a partition was dropped"]
    assert (told["events"], told["duration_ms"] > 0) == (1, True)
    assert await rows(bench, events.c.seq) == [1, NUMBERS]


async def test_an_attempt_that_is_made_late_is_counted_all_the_same(bench: Bench) -> None:
    """Also where its partition was about to go."""
    await bench.append(bench.event(due(2)))
    await begin(bench, NOW + DAY)
    await delivered(bench, at=NOW + DAY)
    own, partition = await first_ended(bench)
    [leased] = await bench.lease(2)
    await bench.database.settle([settled(leased, Status.DELIVERED)])
    assert (await own.thin(partition, after=None)).removed == 0
    await own.drop(partition)
    await count_all(bench)
    hours = (await bench.database.read(lambda c: numbers.by_hour(c, [numbers.FLEET], since=0)))[numbers.FLEET]
    totals = [sum(getattr(hour, name) for _, hour in hours) for name in ("deliveries", "delivered", "attempts")]
    assert totals == [2, 2, 2]


async def test_a_clock_that_was_ahead_holds_up_nothing_once_it_is_right(bench: Bench) -> None:
    await delivered(bench)
    assert await begin(bench, NOW + 365 * DAY)
    await delivered(bench)
    assert await begin(bench, NOW + DAY)
    await delivered(bench)
    assert not await begin(bench, NOW + DAY + 1)


async def test_a_partition_never_ended_before_its_last_event(bench: Bench) -> None:
    await delivered(bench, at=NOW + 9 * DAY)
    assert await begin(bench, NOW + DAY)
    await count_all(bench)
    await delivered(bench, at=NOW + 9 * DAY)
    own = bench.database.partitions
    assert own is not None
    assert await own.ended(before=NOW + 8 * DAY) == []


async def test_the_id_of_an_event_that_has_gone_is_free_at_once(bench: Bench) -> None:
    await delivered(bench)
    chosen = uuid7(NOW, bytes(10))
    await bench.append(bench.event(chosen_id=chosen))
    await begin(bench, NOW + DAY)
    await delivered(bench, at=NOW + DAY)
    own, partition = await first_ended(bench)
    await own.thin(partition, after=None)
    await own.drop(partition)
    [again] = await bench.append(bench.event(chosen_id=chosen, created_at=NOW + DAY))
    assert again.seq > NUMBERS
    assert await rows(bench, chosen_event_ids.c.event_seq) == [again.seq]


async def test_no_server_of_before_may_run_when_there_are_partitions(postgres_server: PostgresServer) -> None:
    """It would note no id that its caller chose."""
    url = await asyncio.to_thread(postgres_server.new_database, empty=True)
    pair = await Opener(url).pair()
    async with pair.raw.transaction():
        await pair.sql.run_sync(history.run, "0008")
    now = time.time_ns() // 1_000_000
    await pair.sql.run_sync(processes.join, ProcessRole.ALL, host="a.example", pid=17, version="0.1.0", now=now)
    with pytest.raises(Unavailable, match=r"0\.1\.0 on a\.example \(process 17\); bring them to"):
        await schema_version.upgrade(url)
    await pair.close()


async def test_what_is_not_counted_yet_stays(bench: Bench) -> None:
    await delivered(bench)
    await begin(bench, NOW + DAY)
    assert bench.database.partitions is not None
    assert await bench.database.partitions.ended(before=NOW + 9 * DAY) == []


async def test_a_delivery_that_is_leased_while_its_partition_goes_keeps_its_event(bench: Bench) -> None:
    """Beside everything that goes on, until all has gone that may."""
    await delivered(bench, 50)
    await bench.append(*(bench.event(due(2)) for _ in range(50)))
    await begin(bench, NOW + DAY)
    await delivered(bench, at=NOW + DAY)

    async def work() -> int:
        count = 0
        while count < 50:
            leased = await bench.lease(2, limit=1)
            assert all(each.body for each in leased)
            assert not await bench.database.settle([settled(each, Status.DELIVERED) for each in leased])
            count += len(leased)
        # The last attempt that is counted keeps its event.
        await delivered(bench, at=NOW + DAY)
        return count

    working = asyncio.create_task(work())
    gone = 0
    while not working.done():
        gone += (await retained(bench, NOW + KEEP_MS + DAY + 60_000))["events"]
    gone += (await retained(bench, NOW + KEEP_MS + DAY + 60_000))["events"]
    assert (await working, gone) == (50, 100)
    assert [seq for seq in await rows(bench, attempts.c.event_seq) if seq < NUMBERS] == []


async def one_beside_a_rest(bench: Bench) -> tuple[PostgresPartitions, Partition]:
    """A partition of which all can go but one event; of an earlier one as much is left."""
    for day in range(2):
        await bench.append(bench.event(due(2), created_at=NOW + day * DAY))
        await delivered(bench, at=NOW + day * DAY)
        await begin(bench, NOW + (day + 1) * DAY)
    await delivered(bench, at=NOW + 2 * DAY)
    await count_all(bench)
    own = bench.database.partitions
    assert isinstance(own, PostgresPartitions)
    earlier, partition = await own.ended(before=NOW + 3 * DAY)
    for each in (earlier, partition):
        await own.thin(each, after=None)
    assert await own.drop(earlier) == 1
    return own, partition


async def test_one_that_another_drops_before_anything_of_it_is_put_aside_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been merged into the rest by then: what is read of it is nowhere by its name."""
    own, partition = await one_beside_a_rest(bench)
    transact = own._transact

    async def late(body: Any) -> Any:
        monkeypatch.setattr(own, "_transact", transact)
        assert await own.drop(partition) == 1
        return await transact(body)

    monkeypatch.setattr(own, "_transact", late)
    assert await own.drop(partition) == 0
    assert await rows(bench, events.c.seq) == [1, NUMBERS, 2 * NUMBERS]


async def test_one_stays_for_now_that_another_is_just_putting_aside(bench: Bench, stranger: Any) -> None:
    own, partition = await one_beside_a_rest(bench)
    async with stranger.transaction():
        await stranger.execute(f"SELECT pg_advisory_xact_lock({ASIDE_LOCK})")
        assert await own.drop(partition) == 0
    assert await own.drop(partition) == 1


async def test_one_stays_for_now_whose_rest_another_drops_before_both_are_merged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, partition = await one_beside_a_rest(bench)
    write = own._write

    async def late(body: Any) -> Any:
        monkeypatch.setattr(own, "_write", write)
        for column in (attempts.c.event_seq, deliveries.c.event_seq, events.c.seq):
            gone = sa.delete(column.table).where(column < partition.first_seq)
            await bench.database.write(lambda c: c.execute(gone).rowcount)  # noqa: B023 - run before the next turn
        await own.drop_empty()
        return await write(body)

    monkeypatch.setattr(own, "_write", late)
    assert await own.drop(partition) == 0
    assert await own.drop(partition) == 1
    assert await rows(bench, events.c.seq) == [NUMBERS, 2 * NUMBERS]
