"""Creates and removes the time partitions of events and attempts.

Each new event gets a higher number from a sequence. Each partition has a range of event numbers, which is so large that
the events of a partition never use all of it. When the next partition starts, the sequence moves to the start of that
partition's range.

Starting or removing a partition locks the tables exclusively for a moment. All other statements wait for this lock.
Therefore, the lock has a short timeout, and the caller retries later.

A partition can have a few events that the server must keep, such as events with held deliveries for a paused endpoint.
The server copies these events and replaces the partition with the copy. Without the copy, one held delivery would keep
a whole day's events on disk, or the server would have to delete them row by row.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

import asyncpg
import structlog

from uplift_server.core.operations import partitions as rules
from uplift_server.store import locks, status_sql
from uplift_server.store.cleanup import Key
from uplift_server.store.event_objects import POSTGRES_BUCKET
from uplift_server.store.event_times import DISORDER_MS
from uplift_server.store.partitions import Batch, Partition
from uplift_server.store.postgres.connection import Pair, Raw
from uplift_server.store.schema_partitions import NUMBERS, table_name
from uplift_server.store.statistics import ATTEMPTS_COUNTED, BATCHES_COUNTED, EVENTS_COUNTED, PREFIX

R = TypeVar("R")
_log = structlog.get_logger()

TABLE_LOCK_MS_MAX: Final = 50
"""The lock timeout for each of the two partitioned tables, in ms. Other statements may wait for twice this time."""
THIN_BATCH: Final = 20
"""Maximum number of ended deliveries that one transaction deletes before their partition is dropped.

The transaction does not wait for the disk, so the next commit of events must also write the deletions to disk.
"""
SWEEP_BATCH: Final = 100
KEPT_EVENTS_MAX: Final = 1000
KEPT_ATTEMPTS_MAX: Final = 10_000
KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
"""The maximum size in bytes of the copy that the server creates before it drops a partition.

The two preceding constants limit the copy's events and attempts. A copy of the maximum size takes 1 second.
"""
_TABLES: Final = {"attempts": "event_seq", "events": "seq"}
"""The partitioned tables in locking order, each with its event number column.

Most statements use `events`, so it is locked last.
"""
ASIDE_LOCK: Final = 0x6173696465
"""The advisory lock for `events_aside` and `attempts_aside`, the tables with the copies of kept events.

The number is "aside" in ASCII.
"""
_NEWEST: Final = (
    "SELECT first_seq, end_seq, begun_at, (SELECT count(*) FROM event_partitions) AS partitions,"
    " EXISTS (SELECT FROM events e WHERE e.seq >= first_seq) AS is_used"
    " FROM event_partitions ORDER BY first_seq DESC LIMIT 1"
)
_ENDED: Final = (
    "SELECT first_seq, end_seq FROM event_partitions p WHERE NOT goes_by_row AND ended_at <= $1"  # noqa: S608 - contains only constants
    " AND NOT EXISTS (SELECT FROM events WHERE seq >= p.first_seq AND seq < p.end_seq"
    f" AND seq > coalesce((SELECT value FROM marks WHERE name = '{EVENTS_COUNTED}'), 0))"
    # Keep the last attempt that the statistics have counted, as row cleanup does.
    " AND NOT EXISTS (SELECT FROM attempts WHERE event_seq >= p.first_seq AND event_seq < p.end_seq"
    f" AND seq >= coalesce((SELECT value FROM marks WHERE name = '{ATTEMPTS_COUNTED}'), 0))"
    " ORDER BY first_seq"
)
# A partition that covers more than twice the usual duration ($2) would be dropped too late.
# Such a partition contains the events from before partitioning, or was created before retention became shorter.
_MARK_FOR_ROW_CLEANUP: Final = (
    "UPDATE event_partitions SET goes_by_row = true WHERE NOT goes_by_row AND begun_at < $1::bigint - 2 * $2::bigint"
    " AND (ended_at IS NULL OR ended_at > $1)"
)
_FIRST_WHOLE: Final = (
    "SELECT coalesce(min(first_seq) FILTER (WHERE NOT goes_by_row), max(end_seq)) FROM event_partitions"
)
# If an event has an open delivery, keep all its deliveries.
# Keep deliveries with an attempt that the statistics have not counted yet.
_THIN: Final = (
    "WITH ended AS MATERIALIZED (SELECT event_seq, endpoint_seq FROM deliveries d"  # noqa: S608 - contains only constants
    " WHERE (event_seq, endpoint_seq) > ($1, $2) AND event_seq >= $3 AND event_seq < $4"
    f" AND status NOT IN ({status_sql.OPEN}) AND NOT EXISTS (SELECT FROM deliveries o"
    f"  WHERE o.event_seq = d.event_seq AND o.status IN ({status_sql.OPEN}))"
    " AND NOT EXISTS (SELECT FROM attempts a WHERE a.event_seq = d.event_seq AND a.endpoint_seq = d.endpoint_seq"
    f"  AND a.seq >= coalesce((SELECT value FROM marks WHERE name = '{ATTEMPTS_COUNTED}'), 0))"
    f" ORDER BY event_seq, endpoint_seq LIMIT {THIN_BATCH} FOR UPDATE OF d),"
    " deleted AS (DELETE FROM deliveries d USING ended e"
    " WHERE d.event_seq = e.event_seq AND d.endpoint_seq = e.endpoint_seq)"
    " SELECT event_seq, endpoint_seq FROM ended ORDER BY event_seq, endpoint_seq"
)
_IS_DROPPABLE: Final = (
    "SELECT EXISTS (SELECT FROM event_partitions WHERE first_seq = $1 AND end_seq = $2 AND NOT goes_by_row"
    " AND ended_at IS NOT NULL)"
)
# Prevent other transactions from dropping these partitions.
_LOCK_PARTITIONS: Final = (
    "SELECT FROM event_partitions p JOIN unnest($1::bigint[], $2::bigint[]) AS w(first_seq, end_seq)"
    " ON p.first_seq = w.first_seq AND p.end_seq = w.end_seq FOR KEY SHARE OF p"
)
_NEEDED: Final = (
    "SELECT DISTINCT event_seq FROM deliveries WHERE event_seq >= $1 AND event_seq < $2"  # noqa: S608 - contains only constants
    f" ORDER BY event_seq LIMIT {KEPT_EVENTS_MAX + 1}"
)
_IS_SMALL: Final = (
    f"SELECT a.count <= {KEPT_ATTEMPTS_MAX} AND a.bytes + e.bytes <= {KEPT_BYTES_MAX} FROM"  # noqa: S608 - contains only constants
    " (SELECT count(*), coalesce(sum(bytes), 0) AS bytes FROM"
    " (SELECT octet_length(request_head) + coalesce(octet_length(response_head), 0)"
    "  + coalesce(octet_length(response_body), 0) AS bytes"
    f" FROM attempts WHERE event_seq = ANY ($1) LIMIT {KEPT_ATTEMPTS_MAX + 1}) b) a,"
    " (SELECT coalesce(sum(octet_length(body)), 0) AS bytes FROM events WHERE seq = ANY ($1)) e"
)
_NUMBERS: Final = "SELECT coalesce(max(seq) - $1::bigint + 1, 0) FROM events WHERE seq >= $1 AND seq < $2"
_COUNT: Final = "SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM events WHERE seq >= $1 AND seq < $2"
# Finds the previous partition if retention deletes its rows one by one.
_REST: Final = (
    "SELECT first_seq, end_seq FROM event_partitions WHERE goes_by_row"
    " AND first_seq = (SELECT max(first_seq) FROM event_partitions WHERE first_seq < $1)"
)
_EVENTS_OF: Final = f"SELECT seq FROM events WHERE seq >= $1 AND seq < $2 ORDER BY seq LIMIT {KEPT_EVENTS_MAX + 1}"  # noqa: S608 - as above
_EMPTY: Final = (
    "SELECT first_seq, end_seq FROM event_partitions p WHERE goes_by_row AND ended_at IS NOT NULL"
    " AND NOT EXISTS (SELECT FROM events WHERE seq >= p.first_seq AND seq < p.end_seq)"
)
# A statistics batch that was read earlier may have missed the moved rows, so it must not be saved.
_VOID_COUNT: Final = f"UPDATE marks SET value = value + 1 WHERE name = '{BATCHES_COUNTED}'"  # noqa: S608 - as above
_COPY_LATER_ATTEMPTS: Final = (
    "INSERT INTO attempts_aside SELECT a.* FROM {attempts} a JOIN events_aside e ON e.seq = a.event_seq"
    " ON CONFLICT DO NOTHING"
)
_ASIDE: Final = "SELECT to_regclass('events_aside')::oid"
_IS_OUTDATED: Final = (
    "SELECT EXISTS (SELECT FROM {events} e JOIN events_aside a ON a.seq = e.seq"
    " WHERE e.erased_at IS DISTINCT FROM a.erased_at)"
)
_BY_ROW: Final = "UPDATE event_partitions SET goes_by_row = true WHERE first_seq = $1"
_SWEPT: Final = ("trace_parents", "chosen_event_ids")
_OBJECT_ORPHANS: Final = (
    "SELECT first_seq, object_key, event_seq FROM event_objects o WHERE o.first_seq > $2 AND o.event_seq < $1"  # noqa: S608 - contains only constants
    " AND NOT EXISTS (SELECT FROM events e WHERE e.seq = o.event_seq)"
    f" ORDER BY first_seq, object_key, event_seq LIMIT {SWEEP_BATCH}"
)
_DELETE_OBJECTS: Final = (
    "DELETE FROM event_objects o USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS d(first_seq, key, seq)"
    " WHERE o.first_seq = d.first_seq AND o.object_key = d.key AND o.event_seq = d.seq"
)
_ORPHANS: Final = (
    "SELECT event_seq FROM {table} t WHERE t.event_seq < $1"  # noqa: S608 - contains only constants
    " AND t.event_seq > $2 AND NOT EXISTS (SELECT FROM events e WHERE e.seq = t.event_seq)"
    f" ORDER BY event_seq LIMIT {SWEEP_BATCH}"
)


class _Run(Protocol):
    def __call__(self, body: Callable[[Pair], Awaitable[R]], /) -> Awaitable[R]: ...


class PostgresPartitions:
    """Implementation of `store.partitions.Partitions` on PostgreSQL."""

    def __init__(self, write: _Run, transact: _Run, read: _Run) -> None:
        """`write` runs ordinary writes, `transact` runs long transactions, and `read` runs reads."""
        self._run_write = write
        self._transact = transact
        self._read = read

    async def start_next(self, *, now: int, lasts_ms: int) -> bool:
        """Start the next partition if the current one is at least `lasts_ms` old.

        Return whether the next partition started.
        """
        if not await self._write(lambda pair: _create_next(pair.raw, now=now, lasts_ms=lasts_ms)):
            return False
        await self._write(lambda pair: _switch_to_next(pair.raw, now=now))
        return True

    async def list_droppable(self, *, before: int) -> list[Partition]:
        """List the partitions that can be dropped, oldest first.

        All their events are older than `before` (Unix ms), and the statistics have counted them.
        """
        return [Partition(*row) for row in await self._read(lambda pair: pair.raw.fetch(_ENDED, before - DISORDER_MS))]

    async def mark_for_row_cleanup(self, *, before: int, lasts_ms: int) -> None:
        """Mark old partitions for row-by-row deletion if they still have events after `before` (Unix ms).

        A partition is old if it began earlier than `before` minus twice `lasts_ms`.
        """
        await self._write(lambda pair: pair.raw.execute(_MARK_FOR_ROW_CLEANUP, before, lasts_ms))

    async def first_droppable_seq(self) -> int:
        """Return the lowest event number of the partitions that are not marked for row-by-row deletion."""
        return int(await self._read(lambda pair: pair.raw.fetchval(_FIRST_WHOLE)))

    async def count_seqs(self, partition: Partition) -> int:
        """Return how many event numbers a partition has used, counted up to its last event."""
        return int(await self._read(lambda pair: pair.raw.fetchval(_NUMBERS, *partition)))

    async def delete_ended_deliveries(self, partition: Partition, *, after: Key | None) -> Batch:
        """Delete a batch of the partition's deliveries. Keep the deliveries of events that have open deliveries."""
        # Start before the first endpoint, which has the number 1.
        start = after or (partition.first_seq, 0)
        return _batch(await self._write(lambda pair: _thin(pair.raw, *start, *partition)), THIN_BATCH)

    async def drop(self, partition: Partition) -> int:
        """Drop a partition. Call this method after `delete_ended_deliveries`. Return the number of deleted events."""
        if await self._read(lambda pair: pair.raw.fetchval(_ASIDE)) is not None:
            # An earlier drop was interrupted.
            await self._transact(lambda pair: _discard_copy(pair.raw))
        needed = await self._seqs(_NEEDED, *partition)
        if not await self._is_small(needed):
            await self._write(lambda pair: pair.raw.execute(_BY_ROW, partition.first_seq))
            return 0
        rest = aside = None
        if needed:
            rest = await self._rest(partition, needed)
            aside = await self._transact(lambda pair: _copy_aside(pair.raw, partition, rest, needed))
            if aside is None:
                return 0
        began = time.monotonic()
        count = None
        try:
            count = await self._write(lambda pair: _drop(pair.raw, partition, rest, needed, aside))
        finally:
            if count is None and aside is not None:
                await self._transact(lambda pair: _discard_copy(pair.raw))
        if count is None:
            return 0
        # The duration is an upper bound on the delay that the drop caused for other statements.
        _log.info("partition dropped", events=count, duration_ms=round(1000 * (time.monotonic() - began), 1))
        return count

    async def drop_empty(self) -> None:
        """Drop partitions that have no events."""
        if await self._read(lambda pair: pair.raw.fetch(_EMPTY)):
            await self._write(lambda pair: _drop_empty(pair.raw))

    async def delete_leftovers(self, before_seq: int, *, after: Key | None) -> Batch:
        """In other tables, delete a batch of the rows that belong to dropped events."""
        batches = []
        for table in _SWEPT:
            orphans = _ORPHANS.format(table=table)
            start = (before_seq, *(after or (-1,)))
            found = await self._read(lambda pair: pair.raw.fetch(orphans, *start))  # noqa: B023 - run before the next turn
            if found:
                orphan_seqs = [seq for (seq,) in found]
                delete = f"DELETE FROM {table} WHERE event_seq = ANY ($1)"  # noqa: S608 - contains only constants
                await self._write(lambda pair: pair.raw.execute(delete, orphan_seqs))  # noqa: B023
            batches.append(_batch(found, SWEEP_BATCH))
        batches.append(await self._delete_objects(before_seq, after))
        positions = [batch.position for batch in batches if batch.position is not None]
        return Batch(sum(batch.removed for batch in batches), min(positions, default=None))

    async def _delete_objects(self, before_seq: int, after: Key | None) -> Batch:
        """In the object ID index, delete a batch of the rows that belong to dropped events.

        The index groups event numbers into buckets. The position in the returned batch is the first event number of a
        bucket.
        """
        position = (after or (0,))[0] - POSTGRES_BUCKET
        found = await self._read(lambda pair: pair.raw.fetch(_OBJECT_ORPHANS, before_seq, position))
        if found:
            await self._write(lambda pair: pair.raw.execute(_DELETE_OBJECTS, *zip(*found, strict=True)))
        return Batch(len(found), (found[0]["first_seq"],) if len(found) == SWEEP_BATCH else None)

    async def _write(self, body: Callable[[Pair], Awaitable[R]]) -> R:
        """Run a write that changes partitions, under a lock that allows one such write at a time."""

        async def locked(pair: Pair) -> R:
            await pair.raw.execute(locks.statement(locks.PARTITIONS))
            return await body(pair)

        return await self._run_write(locked)

    async def _rest(self, partition: Partition, needed: list[int]) -> Partition | None:
        """Return the partition that contains the events kept from earlier partitions.

        Return None if there is no such partition, or if it is too large to copy together with the events in `needed`.
        """
        found = await self._read(lambda pair: pair.raw.fetchrow(_REST, partition.first_seq))
        if found is None:
            return None
        rest = Partition(*found)
        return rest if await self._is_small([*needed, *await self._seqs(_EVENTS_OF, *rest)]) else None

    async def _is_small(self, events: list[int]) -> bool:
        if len(events) > KEPT_EVENTS_MAX:
            return False
        return bool(await self._read(lambda pair: pair.raw.fetchval(_IS_SMALL, events)))

    async def _seqs(self, statement: str, *arguments: int) -> list[int]:
        return [seq for (seq,) in await self._read(lambda pair: pair.raw.fetch(statement, *arguments))]


async def _thin(raw: Raw, *place: int) -> list[asyncpg.Record]:
    # Do not flush, so that other commits wait less. After a crash, the server repeats the lost work.
    await raw.execute("SET LOCAL synchronous_commit = off")
    rows: list[asyncpg.Record] = await raw.fetch(_THIN, *place)
    return rows


async def _create_next(raw: Raw, *, now: int, lasts_ms: int) -> bool:
    """Create the next partition if the current one is old enough and has events.

    Return whether an unused partition exists.
    """
    newest = await raw.fetchrow(_NEWEST)
    assert newest is not None, "the schema contains the first partition"
    if newest["begun_at"] is None:
        return True
    over = rules.is_full(newest["begun_at"], now=now, lasts_ms=lasts_ms, partitions=newest["partitions"])
    if not (over and newest["is_used"]):
        return False
    first, end = newest["end_seq"], newest["end_seq"] + NUMBERS
    await _limit_lock_wait(raw)
    for table in _TABLES:
        like = table_name(table, newest["first_seq"], newest["end_seq"])
        await raw.execute(f"CREATE TABLE {table_name(table, first, end)} (LIKE {like} INCLUDING ALL)")
        # Unlike CREATE TABLE ... PARTITION OF, creating and then attaching a table does not block other statements.
        await _attach(raw, table, Partition(first, end))
    await raw.execute("INSERT INTO event_partitions VALUES ($1, $2, NULL, NULL, false)", first, end)
    return True


async def _switch_to_next(raw: Raw, *, now: int) -> None:
    """Move the sequence of event numbers to the start of the unused partition, if one exists."""
    first = await raw.fetchval("SELECT first_seq FROM event_partitions WHERE begun_at IS NULL")
    if first is None:
        return
    await _limit_lock_wait(raw)
    # Wait for running inserts, which may have been planned without the new partition.
    await raw.execute("LOCK TABLE ONLY events IN SHARE MODE")
    # `setval` is not transactional, and the next statements may run much later, after an interruption.
    # Therefore, the end of the previous partition must not be earlier than the timestamp of the last event.
    await raw.execute("SELECT setval('events_seq_seq', $1, false) FROM events_seq_seq WHERE last_value < $1", first)
    last_at = await raw.fetchval("SELECT created_at FROM events ORDER BY seq DESC LIMIT 1")
    await raw.execute("UPDATE event_partitions SET ended_at = $2 WHERE end_seq = $1", first, max(now, last_at or 0))
    await raw.execute("UPDATE event_partitions SET begun_at = $2 WHERE first_seq = $1", first, now)


async def _copy_aside(raw: Raw, partition: Partition, rest: Partition | None, needed: list[int]) -> int | None:
    """Copy the needed events of a partition, and all events of the partition `rest`, while other statements run.

    The copied events can still get new attempts, which `_drop` copies later. Return the ID of the copy. Return None if
    another process is creating a copy, or has dropped a partition.
    """
    if not await _lock_aside(raw):
        return None  # the process that previously ran the singleton job is still creating the copy
    if not await _all_exist(raw, [partition] if rest is None else [partition, rest]):
        return None
    for table, column in _TABLES.items():
        name, aside = table_name(table, *partition), _aside(table)
        await raw.execute(f"DROP TABLE IF EXISTS {aside}")
        await raw.execute(f"CREATE TABLE {aside} (LIKE {name} INCLUDING ALL)")
        # With this constraint, ATTACH PARTITION does not scan the table.
        first, end = _copy_range(partition, rest)
        await raw.execute(f"ALTER TABLE {aside} ADD CHECK ({column} >= {first} AND {column} < {end})")
        await raw.execute(f"INSERT INTO {aside} SELECT * FROM {name} WHERE {column} = ANY ($1)", needed)  # noqa: S608 - contains only constants
        if rest is not None:
            await raw.execute(f"INSERT INTO {aside} SELECT * FROM {table_name(table, *rest)}")  # noqa: S608 - contains only constants
    return int(await raw.fetchval(_ASIDE))


async def _drop(
    raw: Raw, partition: Partition, rest: Partition | None, needed: list[int], aside: int | None
) -> int | None:
    """Replace a partition and the partition `rest` with the copy, which contains only the events to keep.

    Return the number of deleted events. Change nothing and return None if another process has changed the partitions,
    the copy, or the content of copied events.
    """
    # Check the copy: after a delay, another process may have replaced it with a copy that has fewer rows.
    if aside is not None and not (await _lock_aside(raw) and await raw.fetchval(_ASIDE) == aside):
        return None
    dropped = [partition] if rest is None else [rest, partition]
    # Check more than the bounds: another process may have replaced the partition with a copy that has the same bounds.
    if not (await raw.fetchval(_IS_DROPPABLE, *partition) and await _all_exist(raw, dropped)):
        return None
    if needed:
        # Take the statistics lock before the table locks, so that a batch of statistics does not delay reads.
        await raw.execute(locks.statement(PREFIX))
    await _lock(raw, dropped)
    count: int = await raw.fetchval(_COUNT, *partition)
    if needed:
        for each in dropped:
            if await raw.fetchval(_IS_OUTDATED.format(events=table_name("events", *each))):
                return None  # an erasure changed events after the copy
            await raw.execute(_COPY_LATER_ATTEMPTS.format(attempts=table_name("attempts", *each)))
    await _drop_tables(raw, dropped)
    if needed:
        copied = _copy_range(partition, rest)
        for table in _TABLES:
            await raw.execute(f"ALTER TABLE {_aside(table)} RENAME TO {table_name(table, *copied)}")
            await _attach(raw, table, copied)
        # The partition's times do not matter, because retention uses its events' times.
        await raw.execute("INSERT INTO event_partitions VALUES ($1, $2, 0, 0, true)", *copied)
        await raw.execute(_VOID_COUNT)
    return count - len(needed)


async def _discard_copy(raw: Raw) -> None:
    """Drop the copies of kept events: erasures do not find their content. Do nothing if another process uses them."""
    if await _lock_aside(raw):
        for table in _TABLES:
            await raw.execute(f"DROP TABLE IF EXISTS {_aside(table)}")


async def _lock_aside(raw: Raw) -> bool:
    """Lock the tables that contain the copies of kept events, until the transaction ends.

    Return False if another transaction has the lock.
    """
    return bool(await raw.fetchval(f"SELECT pg_try_advisory_xact_lock({ASIDE_LOCK})"))


async def _all_exist(raw: Raw, partitions: list[Partition]) -> bool:
    """Lock partitions against removal until the transaction ends. Return whether all of them still exist."""
    return len(await raw.fetch(_LOCK_PARTITIONS, *zip(*partitions, strict=True))) == len(partitions)


async def _drop_empty(raw: Raw) -> None:
    dropped = [Partition(*row) for row in await raw.fetch(_EMPTY)]
    await _lock(raw, dropped)
    await _drop_tables(raw, dropped)


async def _drop_tables(raw: Raw, partitions: list[Partition]) -> None:
    for each in partitions:
        for table in _TABLES:
            await raw.execute(f"DROP TABLE {table_name(table, *each)}")
        await raw.execute("DELETE FROM event_partitions WHERE first_seq = $1", each.first_seq)


async def _lock(raw: Raw, dropped: list[Partition]) -> None:
    """Lock these partitions, and then the tables `events` and `attempts`, exclusively.

    Locking the partitions may have to wait for a long statement that uses one of them. Meanwhile, other statements do
    not wait, because the tables are not locked yet. A vacuum of other partitions does not block the locks.
    """
    await _limit_lock_wait(raw)
    dropped_tables = [table_name(table, *each) for each in dropped for table in _TABLES]
    for names in (dropped_tables, _TABLES):
        if names:
            await raw.execute(f"LOCK TABLE {', '.join(f'ONLY {name}' for name in names)} IN ACCESS EXCLUSIVE MODE")


async def _attach(raw: Raw, table: str, partition: Partition) -> None:
    first, end = partition
    name = table_name(table, first, end)
    await raw.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({end})")


async def _limit_lock_wait(raw: Raw) -> None:
    await raw.execute(f"SET LOCAL lock_timeout = {TABLE_LOCK_MS_MAX}")


def _copy_range(partition: Partition, rest: Partition | None) -> Partition:
    return partition if rest is None else Partition(rest.first_seq, partition.end_seq)


def _aside(table: str) -> str:
    return f"{table}_aside"


def _batch(rows: Sequence[asyncpg.Record], limit: int) -> Batch:
    return Batch(len(rows), tuple(rows[-1]) if len(rows) == limit else None)
