"""Events by object ID: order, cursors, isolation of accounts, and retention."""

from collections.abc import Sequence
from zlib import crc32

import pytest
import sqlalchemy as sa

from uplift_server.store import event_objects, events
from uplift_server.store.event_objects import CANDIDATES_MAX, POSTGRES_BUCKET, SQLITE_BUCKET
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import EventFilter
from uplift_server.store.schema import events as table
from uplift_server.store.schema_objects import event_objects as index
from uplift_server.store.schema_partitions import NUMBERS
from uplift_server.store.stream_position import STREAM_POSITION_MAX

from .bench import NOW, Bench
from .test_store_functions import BODY, new_account

FIRST_OF_BUCKETS = (1, 5, SQLITE_BUCKET - 1, SQLITE_BUCKET, 3 * SQLITE_BUCKET, POSTGRES_BUCKET, 9 * POSTGRES_BUCKET)


@pytest.fixture
def connection(connection: sa.Connection) -> sa.Connection:
    """A connection to a database with two accounts and an event type."""
    for number in (1, 2):
        new_account(connection, number)
    connection.execute(
        sa.text(
            "INSERT INTO event_types (seq, name, group_name, description, api_version, documented, created_at,"
            " updated_at)"
            " VALUES (1, 't', '', '', '1', false, 1, 1), (2, 'u', '', '', '1', false, 1, 1)"
        )
    )
    return connection


def store(
    connection: sa.Connection, seqs: Sequence[int], object_id: str, *, account: int = 1, type_seq: int = 1
) -> None:
    """Store events about an object, as both engines do."""
    bucket = SQLITE_BUCKET if connection.dialect.name == "sqlite" else POSTGRES_BUCKET
    rows = [
        {
            "seq": seq, "id": seq.to_bytes(16, "big"), "account_seq": account, "type_seq": type_seq,
            "created_at": NOW + seq, "body": BODY, "object_id": object_id,
        }
        for seq in seqs
    ]  # fmt: skip
    connection.execute(sa.insert(table), rows)
    keys = [
        {"first_seq": seq - seq % bucket, "object_key": event_objects.object_key(account, object_id), "event_seq": seq}
        for seq in seqs
    ]
    connection.execute(sa.insert(index), keys)


def pages(
    connection: sa.Connection, wanted: EventFilter, *, account: int | None = 1, limit: int = 2
) -> list[list[int]]:
    """Return the numbers on each page of the list."""
    found, before = [], None
    while True:
        page = events.page(connection, account, wanted, PageRequest(limit, before))
        found.append([event.seq for event in page.items])
        if page.next_key is None:
            return found
        before = page.next_key


def test_events_of_all_buckets_are_listed_newest_first(connection: sa.Connection) -> None:
    store(connection, FIRST_OF_BUCKETS, "a")
    store(connection, (2, SQLITE_BUCKET + 1, 4 * POSTGRES_BUCKET), "b")
    newest_first = sorted(FIRST_OF_BUCKETS, reverse=True)
    found = pages(connection, EventFilter(object_id="a"))
    assert [seq for page in found for seq in page] == newest_first
    assert {len(page) for page in found[:-1]} == {2}
    assert pages(connection, EventFilter(object_id="a", created_after=NOW + 5), limit=50) == [newest_first[:-2]]
    assert pages(connection, EventFilter(object_id="nothing")) == [[]]


def test_events_are_followed_oldest_first(connection: sa.Connection) -> None:
    store(connection, FIRST_OF_BUCKETS, "a")
    store(connection, (2, 3), "b")
    found, after, more = [], (0,), True
    while more:
        page = events.page_forward(
            connection, 1, EventFilter(object_id="a"), STREAM_POSITION_MAX, PageRequest(2, after, ascending=True)
        )
        found += [event.seq for event in page.items]
        after, more = page.key, page.more
    assert found == sorted(FIRST_OF_BUCKETS)
    store(connection, (9 * POSTGRES_BUCKET + 7,), "a")
    page = events.page_forward(
        connection, 1, EventFilter(object_id="a"), STREAM_POSITION_MAX, PageRequest(2, after, ascending=True)
    )
    assert [event.seq for event in page.items] == [9 * POSTGRES_BUCKET + 7]


def test_accounts_do_not_see_each_others_objects(connection: sa.Connection) -> None:
    store(connection, (1, 3, 5), "1", account=1)
    store(connection, (2, 4), "1", account=2)
    assert pages(connection, EventFilter(object_id="1"), account=1, limit=9) == [[5, 3, 1]]
    assert pages(connection, EventFilter(object_id="1"), account=2, limit=9) == [[4, 2]]
    assert pages(connection, EventFilter(object_id="1"), account=None, limit=9) == [[5, 4, 3, 2, 1]]


def test_a_page_does_not_reveal_the_objects_of_other_accounts(connection: sa.Connection) -> None:
    store(connection, range(1, CANDIDATES_MAX + 6), "a", account=2)
    page = events.page(connection, 1, EventFilter(object_id="a"), PageRequest(9))
    assert (page.items, page.next_key) == ([], None)


def test_other_filters_apply_too(connection: sa.Connection) -> None:
    store(connection, (1, 3), "a")
    store(connection, (2,), "a", type_seq=2)
    assert pages(connection, EventFilter((2,), object_id="a")) == [[2]]


def test_ids_with_the_same_checksum_are_distinguished(connection: sa.Connection) -> None:
    first, second = "plumless", "buckeroo"
    assert crc32(first.encode()) == crc32(second.encode())
    store(connection, (1, 3), first)
    store(connection, (2,), second)
    assert pages(connection, EventFilter(object_id=second), limit=9) == [[2]]


def test_a_page_that_checks_too_many_events_ends_early_with_a_cursor(connection: sa.Connection) -> None:
    store(connection, range(2, CANDIDATES_MAX + 6), "a")
    store(connection, (CANDIDATES_MAX + 9, 1), "a", type_seq=2)
    assert pages(connection, EventFilter((2,), object_id="a"), limit=9) == [[CANDIDATES_MAX + 9], [1]]


async def test_both_engines_store_what_the_list_reads(any_bench: Bench) -> None:
    first = any_bench.event(object_id="a")
    await any_bench.append(any_bench.event(object_id="b"), first, any_bench.event())
    keyed = any_bench.event(object_id="a", key="k", chosen_id=bytes(16))
    await any_bench.append(keyed)
    rows = {row.id: row for row in await any_bench.rows(table)}
    assert [rows[each.id].object_id for each in (first, keyed)] == ["a", "a"]
    assert len(await any_bench.rows(index)) == 3
    found = await any_bench.database.read(lambda c: event_objects.candidates(c, first.account_seq, "a", 1, NUMBERS))
    assert found == [rows[keyed.id].seq, rows[first.id].seq]
    repeated = await any_bench.append(any_bench.event(object_id="a", key="k", chosen_id=bytes(16)))
    assert repeated[0].duplicate
    assert len(await any_bench.rows(index)) == 3


def test_deleted_events_leave_the_index(connection: sa.Connection) -> None:
    store(connection, FIRST_OF_BUCKETS, "a")
    event_objects.delete(connection, [1, SQLITE_BUCKET])
    left = {row.event_seq for row in connection.execute(sa.select(index))}
    assert left == set(FIRST_OF_BUCKETS) - {1, SQLITE_BUCKET}
