"""Partitions of events: how the next one starts, how an old one is dropped, and which events stay."""

import asyncio
import time
from typing import Any

import pytest
import sqlalchemy as sa
from tests.postgres import PostgresServer
from tests.store.bench import NOW, Bench, due, settled

from uplift_server import __version__
from uplift_server.core.ids import uuid7
from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.store import processes, statistics
from uplift_server.store import schema_version as history
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import IdempotencyConflict
from uplift_server.store.partitions import Partition
from uplift_server.store.postgres import schema_version
from uplift_server.store.postgres.connection import Opener
from uplift_server.store.postgres.partitions import KEPT_EVENTS_MAX
from uplift_server.store.schema import attempts, deliveries, events
from uplift_server.store.schema_objects import event_objects
from uplift_server.store.schema_partitions import NUMBERS, chosen_event_ids

from .partition_days import (
    DAY,
    KEEP_MS,
    count_all,
    find_expired_partition,
    partitions,
    rows,
    run_retention,
    start_partition,
    store_delivered,
)


async def test_the_next_partition_starts_when_the_current_one_is_old_enough(bench: Bench) -> None:
    assert not await start_partition(bench, NOW + 9 * DAY), "a partition started after an empty one"
    first = await store_delivered(bench)
    assert not await start_partition(bench, NOW + DAY - 1)
    assert await start_partition(bench, NOW + DAY)
    assert await partitions(bench) == [(0, 1, False), (1, 2, False)]
    second = await store_delivered(bench)
    assert (first, second) == ([1], [NUMBERS])
    assert not await start_partition(bench, NOW + DAY + DAY - 1)
    assert await start_partition(bench, NOW + 2 * DAY)
    assert await store_delivered(bench, 2) == [2 * NUMBERS, 2 * NUMBERS + 1]
    assert await rows(bench, attempts.c.event_seq) == [1, NUMBERS, 2 * NUMBERS, 2 * NUMBERS + 1]


@pytest.mark.parametrize("step", ["created", "jumped"])
async def test_an_interrupted_start_of_a_partition_is_completed(bench: Bench, step: str, other_connection: Any) -> None:
    await store_delivered(bench)
    assert await start_partition(bench, NOW + DAY)
    # The state after a crash: the partition exists and numbers may have jumped, but its start is not recorded.
    await other_connection.execute("UPDATE event_partitions SET begun_at = NULL WHERE first_seq > 0")
    await other_connection.execute("UPDATE event_partitions SET ended_at = NULL")
    if step == "created":
        await other_connection.execute("SELECT setval('events_seq_seq', 1)")
    [seq] = await store_delivered(bench)
    assert seq == (2 if step == "created" else NUMBERS)
    assert await start_partition(bench, NOW + DAY + 5)
    [seq] = await store_delivered(bench)
    assert seq == NUMBERS + (step == "jumped")
    assert not await start_partition(bench, NOW + DAY + DAY)


@pytest.mark.parametrize(
    "chosen", [[bytes([9, n] * 8) for n in range(2)], [uuid7(NOW + n, bytes(10)) for n in range(2)]]
)
async def test_chosen_ids_are_recognized_in_all_partitions(bench: Bench, chosen: list[bytes]) -> None:
    first = await bench.append(bench.event(due(1), chosen_id=chosen[0]))
    # Simulate an event that was stored before the partitions existed: it is not in this table.
    await bench.database.write(lambda c: c.execute(sa.delete(chosen_event_ids)))
    assert await start_partition(bench, NOW + DAY)
    second = await bench.append(bench.event(due(1), chosen_id=chosen[1]))
    assert await start_partition(bench, NOW + 2 * DAY)
    for known, event_id in zip((first, second), chosen, strict=True):
        again = await bench.append(bench.event(due(1), chosen_id=event_id))
        assert [each.seq for each in again] == [each.seq for each in known]
        [other] = await bench.database.append([[bench.event(due(1), chosen_id=event_id, data=b'{"n":2}')]])
        assert isinstance(other, IdempotencyConflict)
    assert await rows(bench, events.c.seq) == [1, NUMBERS]


async def test_reused_generated_ids_are_recognized_in_all_partitions(bench: Bench) -> None:
    """Otherwise, two events could have the same ID."""
    created = []
    for day in range(1, 4):
        created += await bench.append(bench.event(due(1)))
        for event in created:
            (again,) = await bench.append(bench.event(due(1), chosen_id=event.id))
            assert (again.seq, again.duplicate) == (event.seq, True)
        assert await start_partition(bench, NOW + day * DAY)
    assert await rows(bench, events.c.seq) == [1, NUMBERS, 2 * NUMBERS]


async def test_an_old_partition_is_dropped_with_its_dependent_rows(bench: Bench) -> None:
    await store_delivered(bench, 700)
    await bench.append(bench.event(chosen_id=uuid7(NOW, bytes(10)), object_id="a"))
    await bench.append(*(bench.event(object_id=str(number)) for number in range(150)))
    await start_partition(bench, NOW + DAY)
    [newer] = await store_delivered(bench, at=NOW + DAY)
    await start_partition(bench, NOW + 2 * DAY)
    await store_delivered(bench, at=NOW + 2 * DAY)

    # All events of the first partition have expired. Retention keeps it a little longer, because timestamps can be out
    # of order.
    assert not (await run_retention(bench, NOW + KEEP_MS + DAY))["events"]
    assert len(await rows(bench, events.c.seq)) == 853
    [kept] = await bench.append(bench.event(object_id="a", created_at=NOW + 2 * DAY))
    assert (await run_retention(bench, NOW + KEEP_MS + DAY + 60_000))["events"] == 851
    assert await partitions(bench) == [(1, 2, False), (2, 3, False), (3, 4, False)]
    for column in (events.c.seq, attempts.c.event_seq, deliveries.c.event_seq):
        assert [seq for seq in await rows(bench, column) if seq != kept.seq] == [newer, 2 * NUMBERS]
    assert await rows(bench, chosen_event_ids.c.event_seq) == []
    assert await rows(bench, event_objects.c.event_seq) == [kept.seq]


async def test_needed_events_are_kept_until_they_are_not_needed(bench: Bench) -> None:
    """Events with open deliveries move to one common partition, are still delivered, and are deleted row by row."""
    open_events = []
    for day in range(3):
        await store_delivered(bench, 5, at=NOW + day * DAY)
        [held] = await bench.append(bench.event(due(2), created_at=NOW + day * DAY))
        open_events.append(held)
        await start_partition(bench, NOW + (day + 1) * DAY)
    await store_delivered(bench, at=NOW + 3 * DAY)

    assert (await run_retention(bench, NOW + KEEP_MS + 3 * DAY + 60_000))["events"] == 15
    assert await partitions(bench) == [(0, 3, True), (3, 4, False), (4, 5, False)]
    assert await rows(bench, deliveries.c.event_seq) == [*(each.seq for each in open_events), 3 * NUMBERS]
    assert await rows(bench, events.c.seq) == [*(each.seq for each in open_events), 3 * NUMBERS]
    leased = await bench.lease(2, limit=9)
    assert [each.event_seq for each in leased] == [each.seq for each in open_events]
    await bench.database.settle([settled(each, Status.DELIVERED) for each in leased])
    await store_delivered(bench, at=NOW + 3 * DAY)
    assert (await run_retention(bench, NOW + KEEP_MS + 3 * DAY + 60_000))["events"] == 3
    assert await rows(bench, attempts.c.event_seq) == [3 * NUMBERS, 4 * NUMBERS]
    await run_retention(bench, NOW + KEEP_MS + 3 * DAY + 60_000)
    assert await partitions(bench) == [(3, 4, False), (4, 5, False)]


async def test_a_partition_with_many_needed_events_is_deleted_row_by_row(bench: Bench) -> None:
    waiting = [bench.event(due(2)) for _ in range(KEPT_EVENTS_MAX + 1)]
    await bench.append(*waiting)
    await store_delivered(bench, 30)
    await start_partition(bench, NOW + DAY)
    await store_delivered(bench, at=NOW + DAY)
    assert (await run_retention(bench, NOW + KEEP_MS + DAY + 60_000))["events"] == 30
    assert await partitions(bench) == [(0, 1, True), (1, 2, False), (2, 3, False)]
    assert len(await rows(bench, events.c.seq)) == len(waiting) + 1


async def test_old_or_long_partitions_are_deleted_row_by_row(bench: Bench, other_connection: Any) -> None:
    """Events expire on time, even if their partition is still in use or has just ended."""
    late = NOW + KEEP_MS + 2 * DAY + 1
    await store_delivered(bench, 3)
    await store_delivered(bench, 3, at=NOW + 20 * DAY)
    assert (await run_retention(bench, late))["events"] == 3
    assert await partitions(bench) == [(0, 1, True), (1, 2, False)]
    await store_delivered(bench, at=late)
    assert not (await run_retention(bench, late))["events"]
    assert await rows(bench, events.c.seq) == [4, 5, 6, NUMBERS]
    assert (await run_retention(bench, NOW + KEEP_MS + 21 * DAY))["events"] == 3
    assert await rows(bench, events.c.seq) == [NUMBERS]


async def test_an_upgrade_records_the_time_of_the_oldest_event(postgres_server: PostgresServer) -> None:
    url = await asyncio.to_thread(postgres_server.new_database, empty=True)
    pair = await Opener(url, no_timeouts=True).pair()
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


async def test_an_event_with_an_open_delivery_stays_complete(bench: Bench) -> None:
    await bench.append(bench.event(due(1), due(2)))
    [leased] = await bench.lease(1)
    await bench.database.settle([settled(leased, Status.DELIVERED)])
    await start_partition(bench, NOW + DAY)
    await store_delivered(bench, at=NOW + DAY)
    assert not (await run_retention(bench, NOW + KEEP_MS + DAY + 60_000))["events"]
    assert await partitions(bench) == [(0, 1, True), (1, 2, False), (2, 3, False)]
    assert await rows(bench, deliveries.c.endpoint_seq) == [1, 1, 2]
    assert await rows(bench, attempts.c.event_seq) == [1, NUMBERS]


async def test_a_partition_with_large_needed_bodies_is_deleted_row_by_row(bench: Bench) -> None:
    large = b'"' + b"x" * 2**20 + b'"'
    for _ in range(7):
        await bench.append(*(bench.event(due(2), data=large) for _ in range(10)))
    await store_delivered(bench)
    await start_partition(bench, NOW + DAY)
    await store_delivered(bench, at=NOW + DAY)
    assert (await run_retention(bench, NOW + KEEP_MS + DAY + 60_000))["events"] == 1
    assert await partitions(bench) == [(0, 1, True), (1, 2, False), (2, 3, False)]


async def test_used_numbers_of_a_partition_are_counted(bench: Bench) -> None:
    await bench.append(*(bench.event(due(2)) for _ in range(3)))
    await store_delivered(bench)
    await start_partition(bench, NOW + DAY)
    await store_delivered(bench, at=NOW + DAY)
    own, partition = await find_expired_partition(bench)
    last = max(seq for seq in await rows(bench, events.c.seq) if seq < partition.end_seq)
    assert await own.count_seqs(partition) == last - partition.first_seq + 1 > 3
    assert await own.count_seqs(Partition(5 * NUMBERS, 6 * NUMBERS)) == 0


async def test_a_late_attempt_is_counted(bench: Bench) -> None:
    """The attempt is stored just before the partition of its event is dropped."""
    await bench.append(bench.event(due(2)))
    await start_partition(bench, NOW + DAY)
    await store_delivered(bench, at=NOW + DAY)
    own, partition = await find_expired_partition(bench)
    [leased] = await bench.lease(2)
    await bench.database.settle([settled(leased, Status.DELIVERED)])
    assert (await own.delete_ended_deliveries(partition, after=None)).removed == 0
    await own.drop(partition)
    await count_all(bench)
    hours = (await bench.database.read(lambda c: statistics.by_bucket(c, [statistics.ALL_ACCOUNTS], since=0)))[
        statistics.ALL_ACCOUNTS
    ]
    totals = [sum(getattr(hour, name) for _, hour in hours) for name in ("deliveries", "delivered", "attempts")]
    assert totals == [2, 2, 2]


async def test_a_clock_that_was_ahead_does_not_block_new_partitions(bench: Bench) -> None:
    await store_delivered(bench)
    assert await start_partition(bench, NOW + 365 * DAY)
    await store_delivered(bench)
    assert await start_partition(bench, NOW + DAY)
    await store_delivered(bench)
    assert not await start_partition(bench, NOW + DAY + 1)


async def test_a_partition_does_not_end_before_its_last_event(bench: Bench) -> None:
    await store_delivered(bench, at=NOW + 9 * DAY)
    assert await start_partition(bench, NOW + DAY)
    await count_all(bench)
    await store_delivered(bench, at=NOW + 9 * DAY)
    own = bench.database.partitions
    assert own is not None
    assert await own.list_droppable(before=NOW + 8 * DAY) == []


async def test_the_id_of_a_deleted_event_can_be_used_again(bench: Bench) -> None:
    await store_delivered(bench)
    chosen = uuid7(NOW, bytes(10))
    await bench.append(bench.event(chosen_id=chosen))
    await start_partition(bench, NOW + DAY)
    await store_delivered(bench, at=NOW + DAY)
    own, partition = await find_expired_partition(bench)
    await own.delete_ended_deliveries(partition, after=None)
    await own.drop(partition)
    [again] = await bench.append(bench.event(chosen_id=chosen, created_at=NOW + DAY))
    assert again.seq > NUMBERS
    assert await rows(bench, chosen_event_ids.c.event_seq) == [again.seq]


async def test_servers_of_earlier_releases_cannot_run_with_partitions(postgres_server: PostgresServer) -> None:
    """Earlier releases would not store chosen IDs in the table that covers all partitions."""
    url = await asyncio.to_thread(postgres_server.new_database, empty=True)
    pair = await Opener(url, no_timeouts=True).pair()
    async with pair.raw.transaction():
        await pair.sql.run_sync(history.run, "0008")
    now = time.time_ns() // 1_000_000
    await pair.sql.run_sync(processes.join, ProcessRole.ALL, host="a.example", pid=17, version="0.1.0", now=now)
    with pytest.raises(Unavailable, match=r"0\.1\.0 on a\.example \(process 17\); upgrade or stop these servers"):
        await schema_version.upgrade(url)
    await pair.raw.execute("DELETE FROM processes")
    assert await schema_version.upgrade(url) == "0008"
    await pair.sql.run_sync(processes.join, ProcessRole.ALL, host="a.example", pid=17, version=__version__, now=now)
    await pair.close()


async def test_uncounted_rows_stay(bench: Bench) -> None:
    await store_delivered(bench)
    await start_partition(bench, NOW + DAY)
    assert bench.database.partitions is not None
    assert await bench.database.partitions.list_droppable(before=NOW + 9 * DAY) == []
