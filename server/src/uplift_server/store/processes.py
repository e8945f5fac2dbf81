"""Processes: who serves and delivers on this database, as each tells of itself with every heartbeat."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.operations.cluster import ProcessRole, is_heartbeat_expired
from uplift_server.store import admission, singleton_jobs, status_sql
from uplift_server.store.errors import Conflict, Unavailable
from uplift_server.store.schema import deliveries
from uplift_server.store.schema_processes import processes
from uplift_server.store.schema_version import release_order

R = TypeVar("R")


class Forgotten(Conflict):
    """The process was taken for dead: what it had leased is anybody's."""


@dataclass(frozen=True, slots=True)
class Process:
    """A server process. Instants are Unix ms."""

    seq: int
    """What it leases by."""
    role: ProcessRole
    host: str
    pid: int
    version: str
    started_at: int
    seen_at: int
    delivers: bool
    """Whether endpoints may belong to it."""
    view: int
    """The workers it acts by; see `core.processes.view_of`."""
    in_flight: int
    in_flight_max: int
    waiting: int


class Heartbeat(NamedTuple):
    """What a process tells of itself."""

    delivers: bool
    view: int
    in_flight: int
    in_flight_max: int
    waiting: int


class ForeignLeases(NamedTuple):
    """How many deliveries of an endpoint other processes have leased."""

    endpoint_seq: int
    leased: int


def database_now(connection: Connection) -> float:
    """The time of the database's clock (Unix ms), now and not at the transaction's beginning."""
    if connection.dialect.name == "sqlite":
        query = "SELECT (julianday('now') - 2440587.5) * 86400000.0"
    else:
        query = "SELECT extract(epoch FROM clock_timestamp())::float8 * 1000"
    return float(connection.scalars(sa.text(query)).one())


def join(connection: Connection, role: ProcessRole, *, host: str, pid: int, version: str, now: int) -> int:
    """Begin a life; gives the number of it. Nothing belongs to it before its first heartbeat.

    Raises UnknownSchema where a process of this version may not run on the database (any more).
    """
    admission.admit(connection, version)
    query = sa.insert(processes).values(
        role=role, host=host, pid=pid, version=version, started_at=now, seen_at=now, delivers=False, view=0
    )
    return int(connection.scalars(query.returning(processes.c.seq)).one())


def beat(connection: Connection, seq: int, told: Heartbeat, *, now: int) -> list[Process]:
    """Tell that a process lives; gives all that are known, by number. Raises Forgotten."""
    change = sa.update(processes).where(processes.c.seq == seq).values(seen_at=now, **told._asdict())
    if connection.execute(change).rowcount == 0:
        raise Forgotten("the process was not heard of for too long")
    return every(connection)


def unless_forgotten(seq: int, body: Callable[[Connection], R]) -> Callable[[Connection], R]:
    """A verb by a process; 0 is one that shares the database with no other.

    It raises Unavailable for one that was taken for dead, since what it knows may be over. One that was not stays
    until the verb's transaction is over.
    """
    if seq == 0:
        return body

    @wraps(body)
    def unless(connection: Connection) -> R:
        query = sa.select(processes.c.seq).where(processes.c.seq == seq).with_for_update(read=True, key_share=True)
        if connection.execute(query).first() is None:
            raise Unavailable("this process was taken for dead, and what it knows may be over")
        return body(connection)

    return unless


def every(connection: Connection) -> list[Process]:
    """All processes that are known, dead ones too, by number."""
    return [_process(row) for row in connection.execute(sa.select(processes).order_by(processes.c.seq))]


def living_before(connection: Connection, release: str) -> list[Process]:
    """The running processes of releases before `release`.

    Evicts dead processes: one that was only suspended has to rejoin.
    """
    now = int(database_now(connection))
    earlier = [each for each in every(connection) if release_order(each.version) < release_order(release)]
    return [
        each
        for each in earlier
        if not (is_heartbeat_expired(each.seen_at, now) and forget(connection, each.seq, heard_at=each.seen_at))
    ]


def forget(connection: Connection, seq: int, *, heard_at: int | None = None) -> bool:
    """A process has ended, or is dead: its duties are anybody's. Whether it has gone by this.

    One that is taken for dead for having been heard of last at an instant (Unix ms) stays if it is heard of meanwhile:
    it acts as one of the living then.
    """
    # In the order of a heartbeat, which it may be about to give.
    query = sa.delete(processes).where(processes.c.seq == seq)
    if heard_at is not None:
        query = query.where(processes.c.seen_at == heard_at)
    gone = connection.execute(query).rowcount == 1
    if gone:
        singleton_jobs.leave(connection, by=seq)
    return gone


def foreign_leases(connection: Connection, own: int) -> list[ForeignLeases]:
    """The endpoints of which other processes have leased deliveries. No more are leased than all have in memory."""
    # The literal condition is the partial index's own, by which both databases recognise it.
    query = (
        sa.select(deliveries.c.endpoint_seq, sa.func.count())
        .where(sa.text(status_sql.leased()), deliveries.c.lease_owner != own)
        .group_by(deliveries.c.endpoint_seq)
    )
    return [ForeignLeases(*row) for row in connection.execute(query)]


def _process(row: sa.Row[Any]) -> Process:
    return Process(**{**row._mapping, "role": ProcessRole(row.role)})  # noqa: SLF001 - public in spite of its name
