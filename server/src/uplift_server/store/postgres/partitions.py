"""Partitions of events and attempts: how the next one is begun, and how an old one goes.

Numbers tell time. A partition has a range of numbers that is never used up; when the next one is begun, the sequence of
numbers jumps to where that begins. So a row always has a partition to go into, whenever anybody gets to making the
next, and a partition is dropped with all its rows at once.

Who begins or drops one has the tables for a moment to himself. Whatever else wants them waits for that behind him, so
he gives up soon where another will not let go of them, and tries again later.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from uplift_server.core import partitions as rules
from uplift_server.core.deliveries import Status
from uplift_server.store.instants import DISORDER_MS
from uplift_server.store.numbers import ATTEMPTS_MARK, EVENTS_MARK
from uplift_server.store.partitions import Bite, Partition
from uplift_server.store.postgres.connection import Pair, Raw
from uplift_server.store.schema_partitions import NUMBERS, table_name
from uplift_server.store.upkeep import Key

R = TypeVar("R")

TABLE_WAIT_MS_MAX: Final = 100
BITE: Final = 500
KEPT_MAX: Final = 1000
"""How many events of a partition are put aside while everybody waits: it takes 20 ms."""
_TABLES: Final = {"events": "seq", "attempts": "event_seq"}

_OPEN: Final = f"{int(Status.PENDING)}, {int(Status.HELD)}"
_NEWEST: Final = (
    "SELECT first_seq, end_seq, begun_at, (SELECT count(*) FROM event_partitions) AS partitions,"
    " EXISTS (SELECT FROM events e WHERE e.seq >= first_seq) AS is_used"
    " FROM event_partitions ORDER BY first_seq DESC LIMIT 1"
)
_ENDED: Final = (
    "SELECT first_seq, end_seq FROM event_partitions p WHERE NOT is_rest AND ended_at <= $1"  # noqa: S608 - of our own texts
    " AND NOT EXISTS (SELECT FROM events WHERE seq >= p.first_seq AND seq < p.end_seq"
    f" AND seq > coalesce((SELECT value FROM marks WHERE name = '{EVENTS_MARK}'), 0))"
    # The last one that was counted stays, as it does where attempts go row by row.
    " AND NOT EXISTS (SELECT FROM attempts WHERE event_seq >= p.first_seq AND event_seq < p.end_seq"
    f" AND seq >= coalesce((SELECT value FROM marks WHERE name = '{ATTEMPTS_MARK}'), 0))"
    " ORDER BY first_seq"
)
# More than twice as long: as a whole it would stay for more than two partitions' time too long. So it is with what was
# there before there were partitions, or while all was to be kept for longer.
_LEAVE: Final = (
    "UPDATE event_partitions SET is_rest = true WHERE NOT is_rest AND begun_at < $1::bigint - 2 * $2::bigint"
    " AND (ended_at IS NULL OR ended_at > $1)"
)
_FIRST_WHOLE: Final = "SELECT coalesce(min(first_seq) FILTER (WHERE NOT is_rest), max(end_seq)) FROM event_partitions"
_THIN: Final = (
    "WITH ended AS MATERIALIZED (SELECT event_seq, endpoint_seq FROM deliveries"  # noqa: S608 - of our own texts
    " WHERE (event_seq, endpoint_seq) > ($1, $2) AND event_seq >= $3 AND event_seq < $4"
    f" AND status NOT IN ({_OPEN}) ORDER BY event_seq, endpoint_seq LIMIT {BITE} FOR UPDATE),"
    " gone AS (DELETE FROM deliveries d USING ended e"
    " WHERE d.event_seq = e.event_seq AND d.endpoint_seq = e.endpoint_seq)"
    " SELECT event_seq, endpoint_seq FROM ended ORDER BY event_seq, endpoint_seq"
)
_NEEDED: Final = (
    "SELECT DISTINCT event_seq FROM deliveries WHERE event_seq >= $1 AND event_seq < $2"  # noqa: S608 - of our own texts
    f" ORDER BY event_seq LIMIT {KEPT_MAX + 1}"
)
_COUNT: Final = "SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM events WHERE seq >= $1 AND seq < $2"
# What is left of those right before it, if that is little enough to be copied with it.
_REST: Final = (
    "SELECT first_seq, end_seq FROM event_partitions p WHERE is_rest"  # noqa: S608 - of our own texts
    " AND first_seq = (SELECT max(first_seq) FROM event_partitions WHERE first_seq < $1)"
    " AND (SELECT count(*) FROM (SELECT FROM events WHERE seq >= p.first_seq AND seq < p.end_seq"
    f" LIMIT {KEPT_MAX + 1}) e) <= {KEPT_MAX}"
)
_SWEPT: Final = ("trace_parents", "chosen_event_ids")
_ORPHANS: Final = (
    "SELECT event_seq FROM {table} t WHERE t.event_seq < $1"  # noqa: S608 - of our own texts
    f" AND NOT EXISTS (SELECT FROM events e WHERE e.seq = t.event_seq) ORDER BY event_seq LIMIT {BITE}"
)


class _Run(Protocol):
    """Runs statements on a connection, in a transaction or without one."""

    def __call__(self, body: Callable[[Pair], Awaitable[R]], /) -> Awaitable[R]: ...


class PostgresPartitions:
    """See `store.partitions`."""

    def __init__(self, write: _Run, read: _Run) -> None:
        self._write = write
        self._read = read

    async def begin(self, *, now: int, lasts_ms: int) -> bool:
        """See `store.partitions`."""
        if not await self._write(lambda pair: _prepare(pair.raw, now=now, lasts_ms=lasts_ms)):
            return False
        await self._write(lambda pair: _begin(pair.raw, now=now))
        return True

    async def ended(self, *, before: int) -> list[Partition]:
        """See `store.partitions`."""
        return [Partition(*row) for row in await self._read(lambda pair: pair.raw.fetch(_ENDED, before - DISORDER_MS))]

    async def leave(self, *, before: int, lasts_ms: int) -> None:
        """See `store.partitions`."""
        await self._write(lambda pair: pair.raw.execute(_LEAVE, before, lasts_ms))

    async def first_whole(self) -> int:
        """See `store.partitions`."""
        return int(await self._read(lambda pair: pair.raw.fetchval(_FIRST_WHOLE)))

    async def thin(self, partition: Partition, *, after: Key | None) -> Bite:
        """See `store.partitions`."""
        start = after or (partition.first_seq, -1)
        rows = await self._write(lambda pair: pair.raw.fetch(_THIN, *start, *partition))
        return Bite(len(rows), tuple(rows[-1]) if len(rows) == BITE else None)

    async def drop(self, partition: Partition) -> int:
        """See `store.partitions`."""
        return await self._write(lambda pair: _drop(pair.raw, partition))

    async def sweep(self, before_seq: int) -> int:
        """See `store.partitions`."""
        count = 0
        for table in _SWEPT:
            orphans = _ORPHANS.format(table=table)
            found = await self._read(lambda pair: pair.raw.fetch(orphans, before_seq))  # noqa: B023 - run before the next turn
            if found:
                gone = [seq for (seq,) in found]
                delete = f"DELETE FROM {table} WHERE event_seq = ANY ($1)"  # noqa: S608 - of our own texts
                await self._write(lambda pair: pair.raw.execute(delete, gone))  # noqa: B023
                count += len(gone)
        return count


async def _prepare(raw: Raw, *, now: int, lasts_ms: int) -> bool:
    """Make the next partition, if it is time for it; whether there is one that is not in use yet."""
    newest = await raw.fetchrow(_NEWEST)
    assert newest is not None, "the schema has the first"
    if newest["begun_at"] is None:
        return True
    over = rules.is_over(newest["begun_at"], now=now, lasts_ms=lasts_ms, partitions=newest["partitions"])
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


async def _begin(raw: Raw, *, now: int) -> None:
    """Let numbers go on in the partition that is not in use yet."""
    first = await raw.fetchval("SELECT first_seq FROM event_partitions WHERE begun_at IS NULL")
    if first is None:
        return
    await _be_brief(raw)
    # What is being inserted has all its partitions in view that it may need, and whatever comes later has this one.
    await raw.execute("LOCK TABLE events IN SHARE MODE")
    # It comes true at once. Cut off after it, the rest is made up for by a repetition.
    await raw.execute("SELECT setval('events_seq_seq', $1, false) FROM events_seq_seq WHERE last_value < $1", first)
    await raw.execute("UPDATE event_partitions SET ended_at = $2 WHERE end_seq = $1", first, now)
    await raw.execute("UPDATE event_partitions SET begun_at = $2 WHERE first_seq = $1", first, now)


async def _drop(raw: Raw, partition: Partition) -> int:
    """Let a partition go, or leave it to go row by row; how many events went."""
    if len(await raw.fetch(_NEEDED, *partition)) > KEPT_MAX:
        await _note_rest(raw, partition)
        return 0
    await _be_brief(raw)
    await raw.execute("LOCK TABLE events, attempts IN ACCESS EXCLUSIVE MODE")
    needed = [seq for (seq,) in await raw.fetch(_NEEDED, *partition)]
    # Not counted: of all that is here, hardly any number was given to nothing.
    count: int = await raw.fetchval(_COUNT, *partition)
    found = await raw.fetchrow(_REST, partition.first_seq) if needed else None
    rest = None if found is None else Partition(*found)
    kept = await _put_aside(raw, partition, rest, needed) if needed else None
    for each in filter(None, (rest, partition)):
        for table in _TABLES:
            await raw.execute(f"DROP TABLE {table_name(table, *each)}")
        await raw.execute("DELETE FROM event_partitions WHERE first_seq = $1", each.first_seq)
    if kept is not None:
        for table in _TABLES:
            await raw.execute(f"ALTER TABLE {_aside(table)} RENAME TO {table_name(table, *kept)}")
            await _attach(raw, table, kept)
        await _note_rest(raw, kept)
    return count - len(needed)


async def _put_aside(raw: Raw, partition: Partition, rest: Partition | None, needed: list[int]) -> Partition:
    """Copy what is needed of a partition, and all there is of what is left of earlier ones; what that becomes."""
    for table, column in _TABLES.items():
        name, aside = table_name(table, *partition), _aside(table)
        await raw.execute(f"CREATE TABLE {aside} (LIKE {name} INCLUDING ALL)")
        await raw.execute(f"INSERT INTO {aside} SELECT * FROM {name} WHERE {column} = ANY ($1)", needed)  # noqa: S608 - of our own texts
        if rest is not None:
            await raw.execute(f"INSERT INTO {aside} SELECT * FROM {table_name(table, *rest)}")  # noqa: S608 - of our own texts
    return Partition(partition.first_seq if rest is None else rest.first_seq, partition.end_seq)


async def _attach(raw: Raw, table: str, partition: Partition) -> None:
    first, end = partition
    name = table_name(table, first, end)
    await raw.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({end})")


async def _note_rest(raw: Raw, partition: Partition) -> None:
    await raw.execute(
        "INSERT INTO event_partitions VALUES ($1, $2, 0, 0, true) ON CONFLICT (first_seq) DO UPDATE SET is_rest = true",
        *partition,
    )


async def _be_brief(raw: Raw) -> None:
    await raw.execute(f"SET LOCAL lock_timeout = {TABLE_WAIT_MS_MAX}")


def _aside(table: str) -> str:
    return f"{table}_aside"
