"""Read-only checks of a PostgreSQL database, with or without running servers."""

import asyncio
from collections.abc import Iterator
from typing import Final

from uplift_server.core.operations.findings import Finding
from uplift_server.store.errors import Rejected, Unavailable
from uplift_server.store.postgres import inspection, schema_version
from uplift_server.store.postgres.database import CONNECTIONS_MAX
from uplift_server.store.postgres.inspection import Inspected
from uplift_server.store.schema_version import HEAD, REMEDY_NEWER, UnknownSchema

CLOCK_MS_WARN: Final = 2_000
CLOCK_MS_FAIL: Final = 240_000
"""The check fails if this machine's clock and the database server's clock differ by more than this number of ms.

The limit is less than 5 minutes, because receivers reject timestamps that are off by more than 5 minutes.
"""
DEAD_ROWS_WARN: Final = 200_000

_OWN_PORT: Final = "UPLIFT_PORT=… uplift-server serve"
"""The command that starts another process on this machine. Each process needs its own port."""


def database_findings(url: str, name: str) -> Iterator[Finding]:
    """Check the database, its clock, its settings, its schema and its processes.

    `name` is the database URL without the password. Stop at a failure that would also cause the remaining checks to
    fail.
    """
    try:
        found = asyncio.run(inspection.inspect(url))
    except (Unavailable, Rejected) as error:
        cause, _, fix = str(error).partition("; ")
        fix = fix or "start PostgreSQL, allow this host and user in pg_hba.conf, or correct UPLIFT_DATABASE_URL"
        yield Finding("database", "fail", f"{name}: {cause}", fix)
        return
    rejection = _rejection(found)
    if rejection is not None:
        yield Finding("database", "fail", f"{name} {rejection[0]}", rejection[1])
        return
    encryption = {True: "encrypted", False: "not encrypted", None: "through a pooler"}[found.is_encrypted]
    text = f"PostgreSQL {found.version} at {name}, {found.bytes / 1024**2:,.0f} MiB, {encryption}"
    if found.is_remote and found.is_encrypted is False:
        fix = "add sslmode=verify-full to UPLIFT_DATABASE_URL, and sslrootcert for a private certificate authority"
        yield Finding("database", "warn", f"{text}: anyone on the network path can read all events", fix)
    else:
        yield Finding("database", "ok", text)
    yield _clock(found)
    yield _durability(found)
    yield _connections(found)
    yield _vacuum(found)
    schema = _schema(url, found)
    yield schema
    if schema.result == "ok":
        yield from _processes(url)


def _rejection(found: Inspected) -> tuple[str, str] | None:
    """Return the reason why servers cannot run on the database, and how to fix the problem.

    Return None if servers can run on the database.
    """
    if found.version < schema_version.VERSION_MIN:
        least = schema_version.VERSION_MIN
        return (
            f"is PostgreSQL {found.version}, but {least} or newer is required",
            "upgrade PostgreSQL, or use another database server",
        )
    if found.is_standby:
        return "is a read-only standby", "set UPLIFT_DATABASE_URL to the primary"
    if found.encoding != "UTF8":
        fix = "create a database with: CREATE DATABASE uplift TEMPLATE template0 ENCODING 'UTF8'"
        return f"has the encoding {found.encoding}, but UTF8 is required", fix
    return None


def _clock(found: Inspected) -> Finding:
    ahead_ms = -found.clock.offset_ms
    off = abs(ahead_ms)
    if off <= CLOCK_MS_WARN:
        where = "behind" if ahead_ms > 0 else "ahead of"
        text = f"{off:.0f} ms {where} this machine's clock (± {found.clock.uncertainty_ms:.0f} ms)"
        return Finding("database clock", "ok", text)
    text = (
        f"this machine's clock is {off / 1000:.1f} s {'ahead of' if ahead_ms > 0 else 'behind'} the database's clock,"
        " which all servers use"
    )
    fix = "synchronize both clocks with NTP: receivers reject timestamps that are off by more than 5 minutes"
    return Finding("database clock", "fail" if off > CLOCK_MS_FAIL else "warn", text, fix)


def _durability(found: Inspected) -> Finding:
    settings = {"fsync": found.fsync, "full_page_writes": found.full_page_writes}
    off = [name for name, is_on in settings.items() if not is_on]
    if off:
        names = f"{' and '.join(off)} {'is' if len(off) == 1 else 'are'}"
        text = f"{names} off: a crash can lose accepted events"
        return Finding("durability", "warn", text, f"set {' and '.join(f'{name} = on' for name in off)}")
    return Finding("durability", "ok", "commits are on disk before the server responds")


def _connections(found: Inspected) -> Finding:
    free = found.connections_max - found.connections_used
    text = f"{found.connections_used} of {found.connections_max} in use; a server process takes up to {CONNECTIONS_MAX}"
    if free < CONNECTIONS_MAX:
        return Finding("connections", "warn", text, "increase max_connections")
    return Finding("connections", "ok", text)


def _vacuum(found: Inspected) -> Finding:
    text = f"the table deliveries has {found.dead_rows:,} dead rows and {found.live_rows:,} live rows"
    if found.dead_rows > max(DEAD_ROWS_WARN, found.live_rows):
        fix = "find the transaction, standby or replication slot that blocks autovacuum; see /docs/postgresql"
        return Finding("vacuum", "warn", text, fix)
    return Finding("vacuum", "ok", text)


def _processes(url: str) -> Iterator[Finding]:
    """Check that a live process sends deliveries, and that a live process accepts requests."""
    try:
        found = asyncio.run(inspection.processes(url))
    except Unavailable as error:
        yield Finding("processes", "fail", str(error), "run the checks again in a moment")
        return
    except Rejected:
        return  # The database has no tables yet.
    if not found.living:
        yield Finding("processes", "warn", "no server is running", "start a server: uplift-server serve")
    elif not found.delivering:
        text = f"{found.living} running, but no worker, so no process sends deliveries"
        yield Finding("processes", "fail", text, f"start a worker: {_OWN_PORT} --role worker")
    elif not found.serving:
        text = f"{found.living} running, but no API server, so no process accepts events"
        yield Finding("processes", "fail", text, f"start an API server: {_OWN_PORT} --role api")
    else:
        yield Finding("processes", "ok", f"{found.living} running, {found.delivering} of them workers")


def _schema(url: str, found: Inspected) -> Finding:
    try:
        revision = asyncio.run(schema_version.current(url))
    except UnknownSchema as error:
        cause, _, fix = str(error).partition("; ")
        return Finding("schema", "fail", cause, fix)
    except (Unavailable, Rejected) as error:
        cause, _, fix = str(error).partition("; ")
        return Finding("schema", "fail", cause, fix or "run the checks again in a moment")
    return _revision_finding(revision, found)


def _revision_finding(revision: str | None, found: Inspected) -> Finding:
    if revision is None and not found.may_make_tables:
        text = "the schema does not exist, and the database user is not allowed to create it"
        return Finding("schema", "fail", text, "make the user the owner of the database (ALTER DATABASE … OWNER TO …)")
    if revision is None:
        return Finding("schema", "ok", "the first start creates the schema")
    if revision == HEAD:
        return Finding("schema", "ok", f"revision {revision}, as this version requires")
    if revision > HEAD:
        return Finding("schema", "fail", f"revision {revision} is newer than this version's {HEAD}", REMEDY_NEWER)
    fix = "run `uplift-server migrate`; servers of the previous release can keep running"
    return Finding("schema", "fail", f"revision {revision}, but this version requires {HEAD}", fix)
