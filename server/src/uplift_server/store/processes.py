"""The server processes that use a database, with their heartbeats."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.operations.cluster import ProcessRole, is_heartbeat_expired
from uplift_server.store import admission, singleton_jobs, status_sql
from uplift_server.store.errors import Conflict, Unavailable
from uplift_server.store.schema import deliveries
from uplift_server.store.schema_processes import processes
from uplift_server.store.schema_version import release_order

R = TypeVar("R")


class ProcessEvicted(Conflict):
    """The process was evicted. Other processes may lease its deliveries."""


@dataclass(frozen=True, slots=True)
class Process:
    """A server process. Timestamps are Unix ms."""

    seq: int
    """The process ID. Each lease contains the ID of its process."""
    role: ProcessRole
    host: str
    pid: int
    version: str
    started_at: int
    seen_at: int
    delivers: bool
    """Whether the process sends deliveries, and can therefore own endpoints."""
    view: int
    """The hash of the workers that the process last saw (`core.operations.cluster.membership_hash`)."""
    in_flight: int
    in_flight_max: int
    waiting: int


class Heartbeat(NamedTuple):
    """The state that a process reports in a heartbeat."""

    delivers: bool
    view: int
    in_flight: int
    in_flight_max: int
    waiting: int


class ForeignLeases(NamedTuple):
    """An endpoint, and the number of its deliveries that other processes have leased."""

    endpoint_seq: int
    leased: int


_RECORD_HEARTBEAT: Final = (
    sa.update(processes)
    .where(processes.c.seq == sa.bindparam("process_id"))
    .values(seen_at=sa.bindparam("now"), **{name: sa.bindparam(f"new_{name}") for name in Heartbeat._fields})
)
_LOCK: Final = (
    sa.select(processes.c.seq)
    .where(processes.c.seq == sa.bindparam("process_id"))
    .with_for_update(read=True, key_share=True)
)
_LIST_ALL: Final = sa.select(processes).order_by(processes.c.seq)


def database_now(connection: Connection) -> float:
    """Return the database's current time (Unix ms). The time advances within a transaction."""
    if connection.dialect.name == "sqlite":
        query = "SELECT (julianday('now') - 2440587.5) * 86400000.0"
    else:
        query = "SELECT extract(epoch FROM clock_timestamp())::float8 * 1000"
    return float(connection.scalars(sa.text(query)).one())


def join(connection: Connection, role: ProcessRole, *, host: str, pid: int, version: str, now: int) -> int:
    """Add a process. Return its process ID. The process owns no endpoints until its first heartbeat.

    Raises UnknownSchema or Unavailable, like `admission.admit`.
    """
    admission.admit(connection, version)
    query = sa.insert(processes).values(
        role=role, host=host, pid=pid, version=version, started_at=now, seen_at=now, delivers=False, view=0
    )
    return int(connection.scalars(query.returning(processes.c.seq)).one())


def record_heartbeat(connection: Connection, seq: int, heartbeat: Heartbeat, *, now: int) -> list[Process]:
    """Store the heartbeat of the process `seq`. Return all processes, sorted by ID. Raises ProcessEvicted."""
    reported = {f"new_{name}": value for name, value in heartbeat._asdict().items()}
    if connection.execute(_RECORD_HEARTBEAT, {"process_id": seq, "now": now, **reported}).rowcount == 0:
        raise ProcessEvicted("the process was evicted because its heartbeat expired")
    return list_all(connection)


def unless_evicted(seq: int, body: Callable[[Connection], R]) -> Callable[[Connection], R]:
    """Wrap a function so that it raises Unavailable if the process `seq` was evicted.

    The cache of an evicted process may be outdated. Other transactions cannot evict the process until this transaction
    ends. A `seq` of 0 stands for the only process of a database, which cannot be evicted.
    """
    if seq == 0:
        return body

    @wraps(body)
    def checked(connection: Connection) -> R:
        if connection.execute(_LOCK, {"process_id": seq}).first() is None:
            raise Unavailable("this process was evicted, so its cache may be outdated")
        return body(connection)

    return checked


def list_all(connection: Connection) -> list[Process]:
    """List all processes, sorted by ID. Processes with an expired heartbeat are included until they are evicted."""
    return [_process(row) for row in connection.execute(_LIST_ALL)]


def list_running_before(connection: Connection, release: str) -> list[Process]:
    """List the running processes whose release is older than `release`.

    Evict processes of older releases if their heartbeat has expired. If an evicted process still runs, it must rejoin.
    """
    now = int(database_now(connection))
    earlier = [each for each in list_all(connection) if release_order(each.version) < release_order(release)]
    return [
        each
        for each in earlier
        if not (is_heartbeat_expired(each.seen_at, now) and remove(connection, each.seq, seen_at=each.seen_at))
    ]


def remove(connection: Connection, seq: int, *, seen_at: int | None = None) -> bool:
    """Remove a process and release its singleton jobs. Return whether the process was removed.

    `seen_at` is the time of the last heartbeat that the caller knows of (Unix ms). If the process has sent a newer
    heartbeat, do not remove it.
    """
    # Delete the process before its jobs, because a heartbeat locks the rows in the same order.
    query = sa.delete(processes).where(processes.c.seq == seq)
    if seen_at is not None:
        query = query.where(processes.c.seen_at == seen_at)
    is_removed = connection.execute(query).rowcount == 1
    if is_removed:
        singleton_jobs.release(connection, process_id=seq)
    return is_removed


def foreign_leases(connection: Connection, own: int) -> list[ForeignLeases]:
    """Count each endpoint's deliveries that are leased by processes other than `own`."""
    # Repeat the condition of the partial index literally, so that both databases use the index.
    query = (
        sa.select(deliveries.c.endpoint_seq, sa.func.count())
        .where(sa.text(status_sql.leased()), deliveries.c.lease_owner != own)
        .group_by(deliveries.c.endpoint_seq)
    )
    return [ForeignLeases(*row) for row in connection.execute(query)]


def _process(row: sa.Row[Any]) -> Process:
    return Process(**{**row._mapping, "role": ProcessRole(row.role)})  # noqa: SLF001 - public despite its name
