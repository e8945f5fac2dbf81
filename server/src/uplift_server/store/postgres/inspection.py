"""Inspection of a PostgreSQL database for `uplift-server doctor`."""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from uplift_server.core.ids import ACCOUNT, parse_prefixed
from uplift_server.core.operations.clock_offset import ClockReading, best_reading
from uplift_server.core.operations.cluster import HEARTBEAT_EXPIRES_MS, ProcessRole
from uplift_server.store import database_identity, status_sql
from uplift_server.store.inspection import (
    SELECT_ACCEPTS_UNBOUND,
    SELECT_ENCRYPTED,
    EncryptedValue,
    Held,
    values_of,
)
from uplift_server.store.postgres.connection import APPLICATION_NAME, DRIVER_ERRORS, Opener, Pair, store_error

READINGS: Final = 4
_CLOCK: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::double precision"
_SETTINGS: Final = (
    "SELECT current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS is_standby,"
    " (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS is_encrypted,"
    " coalesce(host(inet_client_addr()), '') AS client,"
    " current_setting('fsync')::bool AS fsync, current_setting('full_page_writes')::bool AS full_page_writes,"
    " current_setting('max_connections')::int AS connections_max,"
    " current_setting('superuser_reserved_connections')::int AS connections_reserved,"
    # Use only the columns of other users' connections that are visible without privileges.
    # PostgreSQL's own processes are not counted, because they lack a database or a user.
    " (SELECT count(usesysid) FROM pg_stat_activity WHERE datid IS NOT NULL)::int AS connections_used,"
    " coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_make_tables,"
    " pg_database_size(current_database()) AS bytes"
)
_ROWS: Final = "SELECT n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE relid = to_regclass('deliveries')"
_HELD: Final = f"FROM deliveries WHERE {status_sql.held()}"
# A loose index scan: it jumps from the first entry of one endpoint to the first entry of the next.
_FIRSTS: Final = (
    "WITH RECURSIVE firsts AS ("  # noqa: S608 - contains only constants
    f"(SELECT endpoint_seq, event_seq {_HELD} ORDER BY endpoint_seq, event_seq LIMIT 1) UNION ALL"
    f" SELECT following.* FROM firsts, LATERAL (SELECT endpoint_seq, event_seq {_HELD}"
    " AND endpoint_seq > firsts.endpoint_seq ORDER BY endpoint_seq, event_seq LIMIT 1) following)"
    " SELECT count(*), min(event_seq) FROM (SELECT * FROM firsts LIMIT $1) found"
)


@dataclass(frozen=True, slots=True)
class Inspected:
    """The state of a database. The connection counts include all connections to the PostgreSQL server."""

    version: int
    """The major version of PostgreSQL."""
    encoding: str
    is_standby: bool
    is_encrypted: bool | None
    """Whether the connection is encrypted.

    None through a pooler, because PostgreSQL sees only the pooler's connection.
    """
    is_remote: bool
    """Whether the connection comes from another machine."""
    fsync: bool
    full_page_writes: bool
    may_make_tables: bool
    """Whether the database user may create tables."""
    connections_max: int
    connections_used: int
    bytes: int
    clock: ClockReading
    """A reading of the database's clock and of this machine's clock."""
    dead_rows: int
    """The number of dead rows in `deliveries`: deleted or outdated row versions that vacuum has not removed yet."""
    live_rows: int


async def inspect(url: str) -> Inspected:
    """Read the state of a database. The server's tables do not need to exist. Raises Unavailable."""
    async with _connected(url) as pair:
        raw = pair.raw
        readings = []
        for _ in range(READINGS):
            asked_at = time.time() * 1000
            database_ms = await raw.fetchval(_CLOCK)
            readings.append(ClockReading(asked_at, database_ms, time.time() * 1000))
        [found] = await raw.fetch(_SETTINGS)
        rows = await raw.fetchrow(_ROWS)
        return Inspected(
            version=raw.get_server_version().major,
            encoding=found["encoding"],
            is_standby=found["is_standby"],
            is_encrypted=None if pair.settings else bool(found["is_encrypted"]),
            is_remote=found["client"] not in ("", "127.0.0.1", "::1"),
            fsync=found["fsync"],
            full_page_writes=found["full_page_writes"],
            may_make_tables=found["may_make_tables"],
            connections_max=found["connections_max"] - found["connections_reserved"],
            connections_used=found["connections_used"],
            bytes=found["bytes"],
            clock=best_reading(readings),
            dead_rows=0 if rows is None else rows["n_dead_tup"],
            live_rows=0 if rows is None else rows["n_live_tup"],
        )


async def servers(url: str) -> int:
    """Count the connections and the heartbeats of the servers that use a database. Raises Unavailable.

    Return the sum of both counts. Therefore, a server can be counted more than once. The connections of servers
    behind a pooler are not counted.
    """
    connections = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1"
        " AND pid <> pg_backend_pid()"
    )
    heartbeats = f"SELECT count(*) FROM processes WHERE seen_at > ({_CLOCK}) - $1"  # noqa: S608 - contains only constants
    async with _connected(url) as pair:
        count = int(await pair.raw.fetchval(connections, APPLICATION_NAME))
        if await pair.raw.fetchval("SELECT to_regclass('processes')") is not None:
            count += await pair.raw.fetchval(heartbeats, HEARTBEAT_EXPIRES_MS)
        return count


async def database_id(url: str) -> str | None:
    """Return the database ID, or None if the database has none. Raises Unavailable."""
    async with _connected(url) as pair:
        if await pair.raw.fetchval("SELECT to_regclass('marks')") is None:
            return None
        value = await pair.raw.fetchval("SELECT value FROM marks WHERE name = $1", database_identity.VALUE_NAME)
        return None if value is None else database_identity.format_id(value)


class Living(NamedTuple):
    """Counts of running processes.

    `delivering` counts the processes that deliver events, and `serving` counts the processes that serve the API.
    """

    living: int
    delivering: int
    serving: int


async def processes(url: str) -> Living:
    """Count the running processes that use a database. Raises Unavailable or Rejected."""
    query = (
        f"SELECT count(*), count(*) FILTER (WHERE delivers), count(*) FILTER (WHERE role <> '{ProcessRole.WORKER}')"  # noqa: S608 - contains only constants
        f" FROM processes WHERE seen_at > ({_CLOCK}) - $1"
    )
    async with _connected(url) as pair:
        [counts] = await pair.raw.fetch(query, HEARTBEAT_EXPIRES_MS)
        return Living(*counts)


async def encrypted_values(url: str) -> list[EncryptedValue]:
    """Return all encrypted values in a database. Raises Unavailable."""
    async with _connected(url) as pair:
        return list(values_of(tuple(row) for row in await pair.raw.fetch(SELECT_ENCRYPTED)))


async def accepts_unbound(url: str) -> bool:
    """Whether a database may contain encrypted values that are not bound to their column. Raises Unavailable.

    A database can contain such values until the upgrade in `store.encryption_upgrade` is complete.
    """
    async with _connected(url) as pair:
        return bool(await pair.raw.fetchval(SELECT_ACCEPTS_UNBOUND))


async def held(url: str, *, limit: int) -> Held:
    """Count held deliveries and their endpoints. Each count stops at `limit`. Raises Unavailable."""
    async with _connected(url) as pair:
        raw = pair.raw
        count = await raw.fetchval(f"SELECT count(*) FROM (SELECT 1 {_HELD} LIMIT $1) held", limit)  # noqa: S608 - as above
        [(endpoints, oldest)] = await raw.fetch(_FIRSTS, limit)
        return Held(count, endpoints, await raw.fetchval("SELECT created_at FROM events WHERE seq = $1", oldest))


async def has_account(url: str, text: str) -> bool:
    """Whether an account with this ID or uid exists. Raises Unavailable."""
    query = "SELECT EXISTS (SELECT 1 FROM accounts WHERE deleted_at IS NULL AND (id = $1::bytea OR uid = $2))"
    async with _connected(url) as pair:
        return bool(await pair.raw.fetchval(query, parse_prefixed(ACCOUNT, text), text))


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Pair]:
    try:
        pair = await Opener(url).pair()
        try:
            async with pair.statement_scope():
                yield pair
        finally:
            await pair.close()
    except DRIVER_ERRORS as error:
        raise store_error(error) from error
