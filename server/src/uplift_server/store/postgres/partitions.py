"""Partitions of events and attempts: how the next one is begun, and how an old one goes.

Numbers tell time. A partition has a range of numbers that is never used up; when the next one is begun, the sequence of
numbers jumps to where that begins. So a row always has a partition to go into, whenever anybody gets to making the
next, and a partition is dropped with all its rows at once.

Who begins or drops one has the tables for a moment to himself. Whatever else wants them waits for that behind him, so
he gives up soon where another will not let go of them, and tries again later.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

import asyncpg
import structlog

from uplift_server.core.operations import partitions as rules
from uplift_server.store import locks, status_sql
from uplift_server.store.cleanup import Key
from uplift_server.store.event_times import DISORDER_MS
from uplift_server.store.partitions import Batch, Partition
from uplift_server.store.postgres.connection import Pair, Raw
from uplift_server.store.schema_partitions import NUMBERS, table_name
from uplift_server.store.statistics import ATTEMPTS_COUNTED, BATCHES_COUNTED, EVENTS_COUNTED, PREFIX

R = TypeVar("R")
_log = structlog.get_logger()

TABLE_WAIT_MS_MAX: Final = 50
"""For each of both tables: others wait for no longer than for both."""
THIN_BITE: Final = 20
"""The next commit of traffic waits until what a bite has written is on the disk, too: many at a time are felt by it."""
SWEEP_BITE: Final = 100
KEPT_EVENTS_MAX: Final = 1000
KEPT_ATTEMPTS_MAX: Final = 10_000
KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
"""What is copied of a partition so that the rest of it can go, at most: it takes a second, beside everything else."""
_TABLES: Final = {"attempts": "event_seq", "events": "seq"}
"""In the order in which they are locked: most that is waited for wants `events`."""
ASIDE_LOCK: Final = 0x6173696465
"""The advisory lock of whoever makes or uses the tables of what is put aside, of which there is one each ("aside")."""
_NEWEST: Final = (
    "SELECT first_seq, end_seq, begun_at, (SELECT count(*) FROM event_partitions) AS partitions,"
    " EXISTS (SELECT FROM events e WHERE e.seq >= first_seq) AS is_used"
    " FROM event_partitions ORDER BY first_seq DESC LIMIT 1"
)
_ENDED: Final = (
    "SELECT first_seq, end_seq FROM event_partitions p WHERE NOT goes_by_row AND ended_at <= $1"  # noqa: S608 - of our own texts
    " AND NOT EXISTS (SELECT FROM events WHERE seq >= p.first_seq AND seq < p.end_seq"
    f" AND seq > coalesce((SELECT value FROM marks WHERE name = '{EVENTS_COUNTED}'), 0))"
    # The last one that was counted stays, as it does where attempts go row by row.
    " AND NOT EXISTS (SELECT FROM attempts WHERE event_seq >= p.first_seq AND event_seq < p.end_seq"
    f" AND seq >= coalesce((SELECT value FROM marks WHERE name = '{ATTEMPTS_COUNTED}'), 0))"
    " ORDER BY first_seq"
)
# More than twice as long: as a whole it would stay for more than two partitions' time too long. So it is with what was
# there before there were partitions, or while all was to be kept for longer.
_LEAVE: Final = (
    "UPDATE event_partitions SET goes_by_row = true WHERE NOT goes_by_row AND begun_at < $1::bigint - 2 * $2::bigint"
    " AND (ended_at IS NULL OR ended_at > $1)"
)
_FIRST_WHOLE: Final = (
    "SELECT coalesce(min(first_seq) FILTER (WHERE NOT goes_by_row), max(end_seq)) FROM event_partitions"
)
# An event that has something open stays whole, and so does what an attempt has changed that is not counted yet.
_THIN: Final = (
    "WITH ended AS MATERIALIZED (SELECT event_seq, endpoint_seq FROM deliveries d"  # noqa: S608 - of our own texts
    " WHERE (event_seq, endpoint_seq) > ($1, $2) AND event_seq >= $3 AND event_seq < $4"
    f" AND status NOT IN ({status_sql.OPEN}) AND NOT EXISTS (SELECT FROM deliveries o"
    f"  WHERE o.event_seq = d.event_seq AND o.status IN ({status_sql.OPEN}))"
    " AND NOT EXISTS (SELECT FROM attempts a WHERE a.event_seq = d.event_seq AND a.endpoint_seq = d.endpoint_seq"
    f"  AND a.seq >= coalesce((SELECT value FROM marks WHERE name = '{ATTEMPTS_COUNTED}'), 0))"
    f" ORDER BY event_seq, endpoint_seq LIMIT {THIN_BITE} FOR UPDATE OF d),"
    " gone AS (DELETE FROM deliveries d USING ended e"
    " WHERE d.event_seq = e.event_seq AND d.endpoint_seq = e.endpoint_seq)"
    " SELECT event_seq, endpoint_seq FROM ended ORDER BY event_seq, endpoint_seq"
)
_STANDS: Final = (
    "SELECT EXISTS (SELECT FROM event_partitions WHERE first_seq = $1 AND end_seq = $2 AND NOT goes_by_row"
    " AND ended_at IS NOT NULL)"
)
# Nobody drops what is locked so before the transaction has ended.
_KEPT_STANDING: Final = (
    "SELECT FROM event_partitions p JOIN unnest($1::bigint[], $2::bigint[]) AS w(first_seq, end_seq)"
    " ON p.first_seq = w.first_seq AND p.end_seq = w.end_seq FOR KEY SHARE OF p"
)
_NEEDED: Final = (
    "SELECT DISTINCT event_seq FROM deliveries WHERE event_seq >= $1 AND event_seq < $2"  # noqa: S608 - of our own texts
    f" ORDER BY event_seq LIMIT {KEPT_EVENTS_MAX + 1}"
)
_FITS: Final = (
    f"SELECT a.count <= {KEPT_ATTEMPTS_MAX} AND a.bytes + e.bytes <= {KEPT_BYTES_MAX} FROM"  # noqa: S608 - of our own texts
    " (SELECT count(*), coalesce(sum(bytes), 0) AS bytes FROM"
    " (SELECT octet_length(request_head) + coalesce(octet_length(response_head), 0)"
    "  + coalesce(octet_length(response_body), 0) AS bytes"
    f" FROM attempts WHERE event_seq = ANY ($1) LIMIT {KEPT_ATTEMPTS_MAX + 1}) b) a,"
    " (SELECT coalesce(sum(octet_length(body)), 0) AS bytes FROM events WHERE seq = ANY ($1)) e"
)
_NUMBERS: Final = "SELECT coalesce(max(seq) - $1::bigint + 1, 0) FROM events WHERE seq >= $1 AND seq < $2"
_COUNT: Final = "SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM events WHERE seq >= $1 AND seq < $2"
# What is left of those right before it.
_REST: Final = (
    "SELECT first_seq, end_seq FROM event_partitions WHERE goes_by_row"
    " AND first_seq = (SELECT max(first_seq) FROM event_partitions WHERE first_seq < $1)"
)
_EVENTS_OF: Final = f"SELECT seq FROM events WHERE seq >= $1 AND seq < $2 ORDER BY seq LIMIT {KEPT_EVENTS_MAX + 1}"  # noqa: S608 - as above
_EMPTY: Final = (
    "SELECT first_seq, end_seq FROM event_partitions p WHERE goes_by_row AND ended_at IS NOT NULL"
    " AND NOT EXISTS (SELECT FROM events WHERE seq >= p.first_seq AND seq < p.end_seq)"
)
# What is being counted has been read before, and may have missed what was moved: it is counted anew.
_COUNT_ANEW: Final = f"UPDATE marks SET value = value + 1 WHERE name = '{BATCHES_COUNTED}'"  # noqa: S608 - as above
_ADD_LATER: Final = (
    "INSERT INTO attempts_aside SELECT a.* FROM {attempts} a JOIN events_aside e ON e.seq = a.event_seq"
    " ON CONFLICT DO NOTHING"
)
_ASIDE: Final = "SELECT to_regclass('events_aside')::oid"
_BY_ROW: Final = "UPDATE event_partitions SET goes_by_row = true WHERE first_seq = $1"
_SWEPT: Final = ("trace_parents", "chosen_event_ids")
_ORPHANS: Final = (
    "SELECT event_seq FROM {table} t WHERE t.event_seq < $1"  # noqa: S608 - of our own texts
    " AND t.event_seq > $2 AND NOT EXISTS (SELECT FROM events e WHERE e.seq = t.event_seq)"
    f" ORDER BY event_seq LIMIT {SWEEP_BITE}"
)


class _Run(Protocol):
    """Runs statements on a connection, in a transaction or without one."""

    def __call__(self, body: Callable[[Pair], Awaitable[R]], /) -> Awaitable[R]: ...


class PostgresPartitions:
    """See `store.partitions`."""

    def __init__(self, write: _Run, transact: _Run, read: _Run) -> None:
        """`write` runs ordinary writes; `transact` runs a transaction on a connection of readers."""
        self._run_write = write
        self._transact = transact
        self._read = read

    async def start_next(self, *, now: int, lasts_ms: int) -> bool:
        """See `store.partitions`."""
        if not await self._write(lambda pair: _make_next(pair.raw, now=now, lasts_ms=lasts_ms)):
            return False
        await self._write(lambda pair: _go_on_in_next(pair.raw, now=now))
        return True

    async def list_droppable(self, *, before: int) -> list[Partition]:
        """See `store.partitions`."""
        return [Partition(*row) for row in await self._read(lambda pair: pair.raw.fetch(_ENDED, before - DISORDER_MS))]

    async def mark_for_row_cleanup(self, *, before: int, lasts_ms: int) -> None:
        """See `store.partitions`."""
        await self._write(lambda pair: pair.raw.execute(_LEAVE, before, lasts_ms))

    async def first_droppable_seq(self) -> int:
        """See `store.partitions`."""
        return int(await self._read(lambda pair: pair.raw.fetchval(_FIRST_WHOLE)))

    async def count_seqs(self, partition: Partition) -> int:
        """See `store.partitions`."""
        return int(await self._read(lambda pair: pair.raw.fetchval(_NUMBERS, *partition)))

    async def delete_ended_deliveries(self, partition: Partition, *, after: Key | None) -> Batch:
        """See `store.partitions`."""
        # No endpoint has the number 0.
        start = after or (partition.first_seq, 0)
        return _bite(await self._write(lambda pair: _thin(pair.raw, *start, *partition)), THIN_BITE)

    async def drop(self, partition: Partition) -> int:
        """See `store.partitions`."""
        needed = await self._seqs(_NEEDED, *partition)
        if not await self._fits(needed):
            await self._write(lambda pair: pair.raw.execute(_BY_ROW, partition.first_seq))
            return 0
        rest = aside = None
        if needed:
            rest = await self._rest(partition, needed)
            aside = await self._transact(lambda pair: _put_aside(pair.raw, partition, rest, needed))
            if aside is None:
                return 0
        began = time.monotonic()
        count = await self._write(lambda pair: _drop(pair.raw, partition, rest, needed, aside))
        if count is None:
            return 0
        # For no longer than that did others wait.
        _log.info("a partition was dropped", events=count, duration_ms=round(1000 * (time.monotonic() - began), 1))
        return count

    async def drop_empty(self) -> None:
        """See `store.partitions`."""
        if await self._read(lambda pair: pair.raw.fetch(_EMPTY)):
            await self._write(lambda pair: _drop_empty(pair.raw))

    async def delete_leftovers(self, before_seq: int, *, after: Key | None) -> Batch:
        """See `store.partitions`."""
        bites = []
        for table in _SWEPT:
            orphans = _ORPHANS.format(table=table)
            start = (before_seq, *(after or (-1,)))
            found = await self._read(lambda pair: pair.raw.fetch(orphans, *start))  # noqa: B023 - run before the next turn
            if found:
                gone = [seq for (seq,) in found]
                delete = f"DELETE FROM {table} WHERE event_seq = ANY ($1)"  # noqa: S608 - of our own texts
                await self._write(lambda pair: pair.raw.execute(delete, gone))  # noqa: B023
            bites.append(_bite(found, SWEEP_BITE))
        places = [bite.position for bite in bites if bite.position is not None]
        return Batch(sum(bite.removed for bite in bites), min(places, default=None))

    async def _write(self, body: Callable[[Pair], Awaitable[R]]) -> R:
        """Run a write that changes partitions, one at a time in all processes."""

        async def locked(pair: Pair) -> R:
            await pair.raw.execute(locks.statement(locks.PARTITIONS))
            return await body(pair)

        return await self._run_write(locked)

    async def _rest(self, partition: Partition, needed: list[int]) -> Partition | None:
        """What is left of those right before a partition, if it can be copied with what is needed of that."""
        found = await self._read(lambda pair: pair.raw.fetchrow(_REST, partition.first_seq))
        if found is None:
            return None
        rest = Partition(*found)
        return rest if await self._fits([*needed, *await self._seqs(_EVENTS_OF, *rest)]) else None

    async def _fits(self, events: list[int]) -> bool:
        if len(events) > KEPT_EVENTS_MAX:
            return False
        return bool(await self._read(lambda pair: pair.raw.fetchval(_FITS, events)))

    async def _seqs(self, statement: str, *arguments: int) -> list[int]:
        return [seq for (seq,) in await self._read(lambda pair: pair.raw.fetch(statement, *arguments))]


async def _thin(raw: Raw, *place: int) -> list[asyncpg.Record]:
    # What a crash undoes of it is done again. Traffic does not wait for the disk once more meanwhile.
    await raw.execute("SET LOCAL synchronous_commit = off")
    rows: list[asyncpg.Record] = await raw.fetch(_THIN, *place)
    return rows


async def _make_next(raw: Raw, *, now: int, lasts_ms: int) -> bool:
    """Make the next partition, if it is time for it; whether there is one that is not in use yet."""
    newest = await raw.fetchrow(_NEWEST)
    assert newest is not None, "the schema has the first"
    if newest["begun_at"] is None:
        return True
    over = rules.is_full(newest["begun_at"], now=now, lasts_ms=lasts_ms, partitions=newest["partitions"])
    if not (over and newest["is_used"]):
        return False
    first, end = newest["end_seq"], newest["end_seq"] + NUMBERS
    await _be_brief(raw)
    for table in _TABLES:
        like = table_name(table, newest["first_seq"], newest["end_seq"])
        await raw.execute(f"CREATE TABLE {table_name(table, first, end)} (LIKE {like} INCLUDING ALL)")
        # Unlike to make it as a partition, this lets others go on.
        await _attach(raw, table, Partition(first, end))
    await raw.execute("INSERT INTO event_partitions VALUES ($1, $2, NULL, NULL, false)", first, end)
    return True


async def _go_on_in_next(raw: Raw, *, now: int) -> None:
    """Let numbers go on in the partition that is not in use yet."""
    first = await raw.fetchval("SELECT first_seq FROM event_partitions WHERE begun_at IS NULL")
    if first is None:
        return
    await _be_brief(raw)
    # What is being inserted has all its partitions in view that it may need, and whatever comes later has this one.
    await raw.execute("LOCK TABLE ONLY events IN SHARE MODE")
    # It comes true at once. Cut off after it, the rest is made up for by a repetition, maybe much later: hence the last
    # event's own instant.
    await raw.execute("SELECT setval('events_seq_seq', $1, false) FROM events_seq_seq WHERE last_value < $1", first)
    last_at = await raw.fetchval("SELECT created_at FROM events ORDER BY seq DESC LIMIT 1")
    await raw.execute("UPDATE event_partitions SET ended_at = $2 WHERE end_seq = $1", first, max(now, last_at or 0))
    await raw.execute("UPDATE event_partitions SET begun_at = $2 WHERE first_seq = $1", first, now)


async def _put_aside(raw: Raw, partition: Partition, rest: Partition | None, needed: list[int]) -> int | None:
    """Copy what is needed of a partition, and all there is of what is left of earlier ones, beside everything else.

    Nothing of an event changes any more but that attempts are added: those that come later are copied later. Gives what
    the copy is known by, and None where another process was faster, and they are not there any more.
    """
    if not await _have_aside(raw):
        return None  # Another process is about to do the same: it has had the duty until just now.
    if not await _all_stand(raw, [partition] if rest is None else [partition, rest]):
        return None
    for table, column in _TABLES.items():
        name, aside = table_name(table, *partition), _aside(table)
        await raw.execute(f"DROP TABLE IF EXISTS {aside}")
        await raw.execute(f"CREATE TABLE {aside} (LIKE {name} INCLUDING ALL)")
        # With this it is attached without being looked through.
        first, end = _kept(partition, rest)
        await raw.execute(f"ALTER TABLE {aside} ADD CHECK ({column} >= {first} AND {column} < {end})")
        await raw.execute(f"INSERT INTO {aside} SELECT * FROM {name} WHERE {column} = ANY ($1)", needed)  # noqa: S608 - of our own texts
        if rest is not None:
            await raw.execute(f"INSERT INTO {aside} SELECT * FROM {table_name(table, *rest)}")  # noqa: S608 - of our own texts
    return int(await raw.fetchval(_ASIDE))


async def _drop(
    raw: Raw, partition: Partition, rest: Partition | None, needed: list[int], aside: int | None
) -> int | None:
    """Let a partition go, and what was put aside come in its place; how many events went, if it was still there."""
    # Of a process that was held up, what was put aside may be another's by now, and have less in it.
    if aside is not None and not (await _have_aside(raw) and await raw.fetchval(_ASIDE) == aside):
        return None
    gone = [partition] if rest is None else [rest, partition]
    # Of what is left of one there may be a part that has the same bounds.
    if not (await raw.fetchval(_STANDS, *partition) and await _all_stand(raw, gone)):
        return None
    if needed:
        # Before the tables: a batch of statistics must not delay what reads them.
        await raw.execute(locks.statement(PREFIX))
    await _lock(raw, gone)
    count: int = await raw.fetchval(_COUNT, *partition)
    if needed:
        for each in gone:
            await raw.execute(_ADD_LATER.format(attempts=table_name("attempts", *each)))
    await _drop_tables(raw, gone)
    if needed:
        kept = _kept(partition, rest)
        for table in _TABLES:
            await raw.execute(f"ALTER TABLE {_aside(table)} RENAME TO {table_name(table, *kept)}")
            await _attach(raw, table, kept)
        # Since when it was in use does not matter any more: it has ended, long ago.
        await raw.execute("INSERT INTO event_partitions VALUES ($1, $2, 0, 0, true)", *kept)
        await raw.execute(_COUNT_ANEW)
    return count - len(needed)


async def _have_aside(raw: Raw) -> bool:
    """Have the tables of what is put aside for oneself until this transaction ends, if nobody else has them."""
    return bool(await raw.fetchval(f"SELECT pg_try_advisory_xact_lock({ASIDE_LOCK})"))


async def _all_stand(raw: Raw, partitions: list[Partition]) -> bool:
    """Whether another process was not faster to let one of them go; all stay until this transaction ends."""
    return len(await raw.fetch(_KEPT_STANDING, *zip(*partitions, strict=True))) == len(partitions)


async def _drop_empty(raw: Raw) -> None:
    gone = [Partition(*row) for row in await raw.fetch(_EMPTY)]
    await _lock(raw, gone)
    await _drop_tables(raw, gone)


async def _drop_tables(raw: Raw, partitions: list[Partition]) -> None:
    for each in partitions:
        for table in _TABLES:
            await raw.execute(f"DROP TABLE {table_name(table, *each)}")
        await raw.execute("DELETE FROM event_partitions WHERE first_seq = $1", each.first_seq)


async def _lock(raw: Raw, gone: list[Partition]) -> None:
    """Have both tables for oneself, without the partitions that stay: what cleans those is in nobody's way.

    Those that go come first: whoever will not let go of one of them holds up nobody else.
    """
    await _be_brief(raw)
    going = [table_name(table, *each) for each in gone for table in _TABLES]
    for names in (going, _TABLES):
        if names:
            await raw.execute(f"LOCK TABLE {', '.join(f'ONLY {name}' for name in names)} IN ACCESS EXCLUSIVE MODE")


async def _attach(raw: Raw, table: str, partition: Partition) -> None:
    first, end = partition
    name = table_name(table, first, end)
    await raw.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({end})")


async def _be_brief(raw: Raw) -> None:
    await raw.execute(f"SET LOCAL lock_timeout = {TABLE_WAIT_MS_MAX}")


def _kept(partition: Partition, rest: Partition | None) -> Partition:
    """The partition that is to come in the place of both."""
    return partition if rest is None else Partition(rest.first_seq, partition.end_seq)


def _aside(table: str) -> str:
    return f"{table}_aside"


def _bite(rows: Sequence[asyncpg.Record], at_most: int) -> Batch:
    return Batch(len(rows), tuple(rows[-1]) if len(rows) == at_most else None)
