"""The emitter outbox: the table `uplift_outbox` in an emitter's PostgreSQL database.

The module `store.outbox` is unrelated: it manages the emails in the server's own database.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from uplift_server.config.parsers import without_password
from uplift_server.core.events.emitter_outbox import OutboxRow
from uplift_server.core.limits import (
    EVENT_DATA_BYTES_MAX,
    OUTBOX_AWAITED_MAX,
    OUTBOX_COUNTED_MAX,
    OUTBOX_UNBLOCKED_MAX,
)
from uplift_server.store.errors import Misaddressed, Unavailable
from uplift_server.store.postgres.connection import DRIVER_ERRORS, Opener, Pair, Raw, driver_error, store_error

CHANNEL: Final = "uplift_outbox"
_FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"
_KEY_LOCKS: Final = 1970302568
"""The first number of the advisory locks that the trigger takes for ordering keys."""
_READER_LOCK: Final = (1970302569, 0)
"""The advisory lock that ensures that only one reader at a time sends events."""
IDLE_IN_TRANSACTION_MS_MAX: Final = 30_000
"""The time after which PostgreSQL ends an unreachable reader's transaction, in ms.

It is longer than a request to the server can take.
"""
_SETTINGS: Final = {
    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS_MAX),
    # After a crash, deleted rows may exist again. The server recognizes the events by their IDs.
    "synchronous_commit": "off",
    # Table statistics for a queue are often outdated. Force a scan in index order, which finds the oldest rows first.
    "enable_bitmapscan": "off",
    "enable_hashjoin": "on",
}

SQL: Final = f"""\
-- Transactional outbox for Uplift Webhooks. You can run these statements again: they change no rows.

CREATE TABLE IF NOT EXISTS uplift_outbox (
    id uuid PRIMARY KEY,
    account text NOT NULL,
    type text NOT NULL,
    data jsonb NOT NULL,
    ordering_key text,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    position bigint NOT NULL,
    rejected_at timestamptz,
    problem jsonb,
    waits_for uuid
);
CREATE SEQUENCE IF NOT EXISTS uplift_outbox_position OWNED BY uplift_outbox.position;
CREATE INDEX IF NOT EXISTS uplift_outbox_waiting ON uplift_outbox (position)
    WHERE rejected_at IS NULL AND waits_for IS NULL;
CREATE INDEX IF NOT EXISTS uplift_outbox_rejected ON uplift_outbox (account, ordering_key, position)
    WHERE rejected_at IS NOT NULL OR waits_for IS NOT NULL;
CREATE INDEX IF NOT EXISTS uplift_outbox_blocked ON uplift_outbox (waits_for, position) WHERE waits_for IS NOT NULL;

-- Numbers the rows. Transactions with the same account and ordering key insert one after another: each one waits until
-- the previous one ends. The positions of a key are therefore in the order of the commits. A row without an ID gets a
-- UUID that begins with the position: events of one request have the same time, so receivers compare their IDs.
CREATE OR REPLACE FUNCTION uplift_outbox_number() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    digits text;
BEGIN
    IF NEW.ordering_key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock({_KEY_LOCKS}, hashtext(NEW.account || ' ' || NEW.ordering_key));
    END IF;
    NEW.position := nextval((quote_ident(TG_TABLE_SCHEMA) || '.uplift_outbox_position')::regclass);
    IF NEW.id IS NULL THEN
        digits := lpad(to_hex(NEW.position), 15, '0');
        NEW.id := overlay(overlay(gen_random_uuid()::text PLACING left(digits, 8) || '-' || substr(digits, 9, 4) FROM 1)
            PLACING '8' || right(digits, 3) FROM 15);
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER uplift_outbox_number BEFORE INSERT ON uplift_outbox
    FOR EACH ROW EXECUTE FUNCTION uplift_outbox_number();
ALTER TABLE uplift_outbox ALTER COLUMN id DROP DEFAULT;

-- Wakes the reader. Without this trigger, the reader looks for rows at least once a second.
CREATE OR REPLACE FUNCTION uplift_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{CHANNEL}', '');
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER uplift_outbox_notify AFTER INSERT ON uplift_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION uplift_outbox_notify();

-- Privileges of your service, and of the reader (the user of --source-url):
-- GRANT INSERT ON uplift_outbox TO my_service;
-- GRANT USAGE ON SEQUENCE uplift_outbox_position TO my_service;
-- GRANT SELECT, DELETE, UPDATE (rejected_at, problem, waits_for) ON uplift_outbox TO my_reader;
"""

# `waits_for` is the rejected row that a row must wait for: an earlier row with the same key, or the row that such an
# earlier row waits for.
# A rejected row that has expired is never sent, so no row waits for it.
# `locked` omits rows that other transactions have locked.
_TAKE: Final = """
WITH page AS MATERIALIZED (
    SELECT id, position, account, ordering_key, (
        SELECT coalesce(earlier.waits_for, earlier.id) FROM uplift_outbox AS earlier
        WHERE (earlier.rejected_at IS NOT NULL OR earlier.waits_for IS NOT NULL)
        AND earlier.account = waiting.account AND earlier.ordering_key = waiting.ordering_key
        AND earlier.position < waiting.position
        AND (earlier.waits_for IS NOT NULL OR earlier.expires_at IS NULL OR earlier.expires_at > now())
        ORDER BY earlier.position LIMIT 1
    ) AS waits_for
    FROM uplift_outbox AS waiting WHERE rejected_at IS NULL AND waits_for IS NULL ORDER BY position LIMIT $1
), locked AS MATERIALIZED (
    SELECT stored.id, stored.account, stored.ordering_key, stored.type,
        CASE WHEN page.waits_for IS NULL THEN stored.data::text END AS data,
        to_char(stored.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS expires_at
    FROM page JOIN uplift_outbox AS stored USING (id)
    FOR UPDATE OF stored SKIP LOCKED
), measured AS (
    SELECT page.id, page.position, page.waits_for, locked.id IS NOT NULL AS is_locked, locked.type, locked.data,
        locked.expires_at, coalesce(locked.account, page.account) AS account,
        CASE WHEN locked.id IS NULL THEN page.ordering_key ELSE locked.ordering_key END AS ordering_key,
        row_number() OVER (ORDER BY page.position) AS number, count(*) OVER () AS found,
        sum(octet_length(locked.data)) OVER (ORDER BY page.position) AS bytes
    FROM page LEFT JOIN locked USING (id)
)
SELECT id::text, account, type, CASE WHEN octet_length(data) <= $3 THEN data END AS data, ordering_key, expires_at,
    is_locked, waits_for::text, found
FROM measured WHERE number = 1 OR coalesce(bytes, 0) <= $2 ORDER BY position
"""
_BLOCK: Final = """
UPDATE uplift_outbox AS stored SET waits_for = blocked.waits_for
FROM unnest($1::text[]::uuid[], $2::text[]::uuid[]) AS blocked (id, waits_for) WHERE stored.id = blocked.id
"""
# Counts up to $2 rows that other rows wait for, starting after row $1. Lists the counted rows that no longer block
# other rows, because they were corrected or deleted, or have expired.
_AWAITED: Final = """
WITH RECURSIVE awaited (id) AS (
    (SELECT waits_for FROM uplift_outbox WHERE waits_for > $1::text::uuid ORDER BY waits_for LIMIT 1)
    UNION ALL
    SELECT (SELECT waits_for FROM uplift_outbox WHERE waits_for > awaited.id ORDER BY waits_for LIMIT 1)
    FROM awaited WHERE awaited.id IS NOT NULL
), found AS (
    SELECT id, EXISTS (
        SELECT FROM uplift_outbox AS stored
        WHERE stored.id = awaited.id AND rejected_at IS NOT NULL AND (expires_at IS NULL OR expires_at > now())
    ) AS is_rejected
    FROM awaited WHERE id IS NOT NULL LIMIT $2
)
SELECT count(*), max(id::text), coalesce(array_agg(id::text) FILTER (WHERE NOT is_rejected), '{}') FROM found
"""
# Unblocks up to $2 of the rows that wait for the rows in $1 (IDs), earliest first for each ID.
# The reader blocks a row again if an earlier row with the same key still waits.
_UNBLOCK: Final = """
WITH unblocked AS MATERIALIZED (
    SELECT waiting.id FROM unnest($1::text[]::uuid[]) AS awaited (id) CROSS JOIN LATERAL (
        SELECT id FROM uplift_outbox WHERE waits_for = awaited.id ORDER BY position LIMIT $2 FOR UPDATE SKIP LOCKED
    ) AS waiting LIMIT $2
)
UPDATE uplift_outbox AS stored SET waits_for = NULL FROM unblocked WHERE stored.id = unblocked.id
"""
_DELETE: Final = "DELETE FROM uplift_outbox WHERE id = ANY($1::text[]::uuid[])"
_REJECT: Final = """
UPDATE uplift_outbox AS stored SET rejected_at = clock_timestamp(), problem = wrong.problem::jsonb
FROM unnest($1::text[]::uuid[], $2::text[]) AS wrong (id, problem) WHERE stored.id = wrong.id
"""
_STATUS: Final = """
SELECT
    (SELECT count(*) FROM (SELECT FROM uplift_outbox WHERE rejected_at IS NULL AND waits_for IS NULL LIMIT $1) AS few),
    (SELECT count(*) FROM (SELECT FROM uplift_outbox WHERE waits_for IS NOT NULL LIMIT $1) AS few),
    (SELECT count(*) FROM (SELECT FROM uplift_outbox WHERE rejected_at IS NOT NULL
        AND (rejected_at IS NOT NULL OR waits_for IS NOT NULL) LIMIT $1) AS few),
    coalesce((SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 FROM uplift_outbox
        WHERE rejected_at IS NULL AND waits_for IS NULL ORDER BY position LIMIT 1), 0)
"""
_NO_TABLE: Final = ("42P01", "42703", "42883")
"""SQLSTATEs of a missing table, column or function."""
_NO_PRIVILEGE: Final = "42501"


class Page(NamedTuple):
    """A batch of the oldest rows to send."""

    rows: Sequence[OutboxRow]
    has_more: bool
    """Whether the table may have more rows to send."""


class OutboxStatus(NamedTuple):
    """The number of rows in each state, up to OUTBOX_COUNTED_MAX each, and the age of the oldest waiting row."""

    waiting: int
    blocked: int
    """The number of rows that wait for a rejected row with the same ordering key."""
    rejected: int
    oldest_seconds: float


class Turn:
    """A transaction in which a reader sends outbox rows.

    Only one reader at a time has such a transaction. The rows that `take` locks stay locked until the transaction ends.
    """

    def __init__(self, raw: Raw) -> None:
        self._raw = raw

    async def take(self, rows_max: int, bytes_max: int) -> Page:
        """Lock and return up to `rows_max` of the oldest waiting rows, with up to `bytes_max` of data.

        The first row may exceed `bytes_max`. The page includes rows that this method could not lock, because another
        transaction has locked them (`is_locked` is false), and rows that the reader must block (`waits_for` is set).
        """
        found = await self._raw.fetch(_TAKE, rows_max, bytes_max, EVENT_DATA_BYTES_MAX)
        count = found[0]["found"] if found else 0
        return Page([OutboxRow(*tuple(row)[:-1]) for row in found], count == rows_max or count > len(found))

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete outbox rows. Call this method after the server has accepted the rows' events."""
        await self._raw.execute(_DELETE, ids)

    async def block(self, rows: Sequence[OutboxRow]) -> None:
        """Mark rows as blocked by a rejected row with the same ordering key. `take` does not return blocked rows."""
        await self._raw.execute(_BLOCK, [row.id for row in rows], [row.waits_for for row in rows])

    async def unblock(self, after: str | None) -> str | None:
        """Unblock the rows whose blocking row was corrected or deleted, or has expired. Call this method regularly.

        Each call checks only some of the blocking rows. Return the ID to pass to the next call as `after`, or None
        after the last row.
        """
        start = _FIRST_ID if after is None else after
        [(count, last, free)] = await self._raw.fetch(_AWAITED, start, OUTBOX_AWAITED_MAX)
        if free:
            done = await self._raw.execute(_UNBLOCK, free, OUTBOX_UNBLOCKED_MAX)
            if done == f"UPDATE {OUTBOX_UNBLOCKED_MAX}":
                return start
        return last if count == OUTBOX_AWAITED_MAX else None

    async def reject(self, problems: Mapping[str, str]) -> None:
        """Mark rows as rejected. `problems` maps the ID of a row to its problem details (JSON)."""
        await self._raw.execute(_REJECT, list(problems), list(problems.values()))


class EmitterOutbox:
    """The emitter outbox in one database. It connects on first use, and again after an error."""

    def __init__(self, url: str) -> None:
        self._opener = Opener(url, settings=_SETTINGS)
        self.database: Final = without_password(url)
        """The database URL, with a masked password."""
        self._pair: Pair | None = None
        self._receive: Callable[[], None] = lambda: None

    def listen(self, receive: Callable[[], None]) -> None:
        """Call `receive` each time rows are inserted.

        Through a pooler, the outbox cannot detect inserted rows and never calls `receive`.
        """
        self._receive = receive

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn | None]:
        """Open and yield the reader's transaction. Yield None if another reader's transaction is open.

        Raises Unavailable.
        """
        async with self._connection() as pair, pair.transaction():
            is_free = await pair.raw.fetchval("SELECT pg_try_advisory_xact_lock($1, $2)", *_READER_LOCK)
            yield Turn(pair.raw) if is_free else None

    async def status(self) -> OutboxStatus:
        """Count the outbox rows by state. Raises Unavailable."""
        async with self._connection() as pair, pair.statement_scope():
            [found] = await pair.raw.fetch(_STATUS, OUTBOX_COUNTED_MAX)
        return OutboxStatus(*found)

    async def close(self) -> None:
        """Disconnect from the emitter's database."""
        pair, self._pair = self._pair, None
        if pair is not None:
            await pair.close()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Pair]:
        try:
            if self._pair is None:
                pair = await self._opener.pair()
                self._pair = pair
                if not self._opener.is_pooled:
                    await pair.raw.add_listener(CHANNEL, self._notified)
            yield self._pair
        except DRIVER_ERRORS as error:
            await self.close()
            raise _source_error(error) from error

    def _notified(self, *_: Any) -> None:
        self._receive()


def _source_error(error: BaseException) -> Unavailable:
    """Convert an error from the emitter's database to an error that says how to fix it."""
    state = getattr(driver_error(error), "sqlstate", None)
    if state in _NO_TABLE:
        remedy = "create or update it: uplift-server outbox --print-sql | psql DATABASE"
        cause = f"the table uplift_outbox in the database of --source-url is missing or outdated: {error}"
        return Misaddressed(f"{cause}; {remedy}")
    if state == _NO_PRIVILEGE:
        remedy = "grant the privileges at the end of `uplift-server outbox --print-sql`"
        return Misaddressed(f"the database user in --source-url cannot read the outbox: {error}; {remedy}")
    found = store_error(error)
    kind = Misaddressed if isinstance(found, Misaddressed) else Unavailable
    return kind(str(found).replace("UPLIFT_DATABASE_URL", "--source-url"))
