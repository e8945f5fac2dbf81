"""Several engines on one database, like several processes, under a virtual clock.

On SQLite, the engines share a file, which real processes cannot. Test triggers record changes as the triggers on
PostgreSQL do.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection
from tests.delivery.world import SECOND, START, ScriptedSender, World
from tests.engines import Place

from uplift_server.app.cluster_parts import ClusteredFoundation
from uplift_server.app.engine_parts import EngineParts, build_engine
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.delivery.clock import DatabaseTime
from uplift_server.delivery.cluster.cache_sync import CacheSync
from uplift_server.delivery.cluster.membership import Membership
from uplift_server.delivery.sending.http.request import Done, Request
from uplift_server.store import accounts, endpoints, event_types
from uplift_server.store.contract import Database
from uplift_server.store.encryption import Cipher
from uplift_server.store.errors import Unavailable

R = TypeVar("R")

_HEALTH = (
    "consecutive_failures", "failing_since", "last_success_at", "last_failure_at", "last_outcome", "last_status_code",
    "last_error", "last_location", "probe_at",
)  # fmt: skip


class Bus:
    """Carries notifications between processes."""

    def __init__(self) -> None:
        self.lines: list[BusLine] = []
        self.silent = False
        """Whether the bus loses all notifications."""

    def publish(self, text: str) -> None:
        if not self.silent:
            for line in self.lines:
                asyncio.get_running_loop().call_soon(line.receive, text)


class BusLine:
    """A connection to all peers; `cut` breaks it."""

    def __init__(self, bus: Bus, database: Database) -> None:
        self._bus = bus
        self._database = database
        self.cut = False
        self.receive: Callable[[str], None] = lambda _text: None
        bus.lines.append(self)

    async def write(self, body: Callable[[Connection], R]) -> R:
        if self.cut:
            raise Unavailable("the line is cut")
        return await self._database.write(body)

    def listen(self, receive: Callable[[str], None]) -> None:
        self.receive = receive

    async def publish(self, texts: Sequence[str]) -> None:
        if self.cut:
            raise Unavailable("the line is cut")
        for text in texts:
            self._bus.publish(text)

    async def close(self) -> None:
        self.cut = True
        with suppress(ValueError):
            self._bus.lines.remove(self)


class PeerSender:
    """Sender of one process. The receivers count the requests in flight of all processes."""

    def __init__(self, receivers: ScriptedSender) -> None:
        self._receivers = receivers
        self.dead = False
        self.sent = 0

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def send(self, request: Request, done: Done) -> None:
        self.sent += 1
        self._receivers.send(request, lambda back, exchange: None if self.dead else done(back, exchange))


class Peer:
    """One process of a fleet."""

    def __init__(self, parts: EngineParts, foundation: ClusteredFoundation, sender: PeerSender, line: BusLine) -> None:
        self.parts = parts
        self.engine = parts.engine
        self.cache = parts.cache
        self.membership: Membership = foundation.cluster.membership
        self.cache_sync: CacheSync = foundation.cluster.cache_sync
        self.sender = sender
        self.line = line

    @property
    def process_id(self) -> int:
        return self.parts.shards.process_id

    def owns(self, endpoint_seq: int) -> bool:
        return self.parts.shards.owns(endpoint_seq)


class Fleet(World):
    """A world with several engines. `switch_to` selects the engine that methods of `World` use."""

    def __init__(self, place: Place, **settings: Any) -> None:
        super().__init__(place, **settings)
        self.peers: list[Peer] = []
        self.bus = Bus()

    async def __aenter__(self) -> "Fleet":
        self._place.prepare(now_ms=START)
        self.database = self._place.database(*self._layers)
        await self.database.open()
        await self.database.write(_note_changes)
        self.sender = ScriptedSender(self.clock, self.settings.timeouts.default_ms)
        self.account = await self.database.write(
            lambda c: accounts.create(c, account_id=self.fresh_id(), name="a", contact_emails=(), now=self.clock.now)
        )
        await self.database.write(
            lambda c: event_types.put(
                c, name="a.b", group="a", description="", schema=None, example=None, api_version="01/01/2022",
                archived=False, now=START,
            )
        )  # fmt: skip
        return self

    async def __aexit__(self, failure: object, *_: object) -> None:
        for peer in self.peers:
            await self._end(peer)
        await self.database.close()
        self.assert_no_failed_loop(failure)

    async def start(self, role: ProcessRole = ProcessRole.ALL) -> Peer:
        """Start another process. The world uses the first one."""
        line, sender = BusLine(self.bus, self.database), PeerSender(self.sender)
        foundation = ClusteredFoundation(
            self.database,
            line,
            self.clock,
            DatabaseTime(lambda: self.clock.now * 1_000_000),
            role,
            read_time=lambda _connection: float(self.clock.now),
        )
        parts = build_engine(
            self.database,
            Cipher(b"k" * 32),
            sender,
            self.clock,
            self.settings,
            foundation,
            user_agent="Uplift-Webhooks/test",
            public_url="https://uplift.test",
            on_lines=self.lines.extend,
            on_loop_failure=self.loop_ended,
        )
        await parts.engine.join()
        parts.cache.load(
            await self.database.read(accounts.list_live),
            [],
            await self.database.read(event_types.list_live),
            await self.database.read(endpoints.list_live),
        )
        peer = Peer(parts, foundation, sender, line)
        self.peers.append(peer)
        if len(self.peers) == 1:
            self.switch_to(peer)
        await parts.engine.start()
        await self.settle()
        return peer

    def switch_to(self, peer: Peer) -> None:
        """Let the methods of `World` use this process from now on."""
        self.parts, self.engine, self.cache = peer.parts, peer.engine, peer.cache

    def owner_of(self, endpoint_seq: int) -> Peer | None:
        """Return the process that owns an endpoint."""
        owners = [peer for peer in self.peers if peer.owns(endpoint_seq)]
        assert len(owners) < 2, "an endpoint has two owners"
        return owners[0] if owners else None

    async def kill_peer(self, peer: Peer) -> None:
        """Kill a process without any notification."""
        self.peers.remove(peer)
        await self._end(peer)

    async def stop_peer(self, peer: Peer) -> None:
        """Drain and stop a process."""
        await self.stepping(peer.engine.drain())
        self.peers.remove(peer)

    async def _end(self, peer: Peer) -> None:
        peer.sender.dead = True
        peer.engine.ending = True
        peer.parts.lanes.drain()
        await peer.line.close()
        for task in peer.engine.tasks:
            task.cancel()
        await asyncio.gather(*peer.engine.tasks, return_exceptions=True)

    def _loops_wait(self) -> bool:
        tasks = [task for peer in self.peers for task in peer.engine.tasks]
        return self.clock.waiting >= sum(not task.done() for task in [*tasks, *self.callers])


def _note_changes(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    columns = [row[1] for row in connection.exec_driver_sql("PRAGMA table_info(endpoints)") if row[1] not in _HEALTH]
    changed = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in columns)
    of_replays = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in ("state", "completed_at"))
    # Like PostgreSQL, never use a transaction ID twice. If a change had the ID of a pruned change, the next cleanup
    # could delete the change before the other processes read it.
    note = (
        " BEGIN INSERT OR REPLACE INTO directory_changes (kind, subject_seq, xid)"
        " SELECT '{table}', NEW.seq, max(coalesce(max(xid), 0) + 1, coalesce((SELECT value FROM marks"
        " WHERE name = 'directory_changes.forgotten'), 0)) FROM directory_changes; END"
    )
    for table, when in (
        ("accounts", "1"),
        ("event_types", "1"),
        ("api_keys", "1"),
        ("service_keys", "1"),
        ("endpoints", changed),
        ("replays", of_replays),
    ):
        for event, condition in (("INSERT", "1"), ("UPDATE", when)):
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table} WHEN {condition}" + note.format(table=table)
            )


async def fleet_with_endpoints(fleet: Fleet, peers: int, hosts: int, **settings: object) -> list[int]:
    """Start workers and create endpoints. Return the endpoint numbers once the workers agree on owners."""
    for _ in range(peers):
        await fleet.start()
    await fleet.run_for(3 * SECOND)
    seqs = [(await fleet.endpoint(f"h{number}.test", **settings)).seq for number in range(hosts)]  # type: ignore[arg-type]
    await fleet.run_for(3 * SECOND)
    return seqs


def owner_and_other(fleet: Fleet, seq: int) -> tuple[Peer, Peer]:
    """Return the process that owns an endpoint, and another one."""
    owner = fleet.owner_of(seq)
    assert owner is not None
    return owner, next(peer for peer in fleet.peers if peer is not owner)


async def unavailable() -> None:
    raise Unavailable("the database is not seen")
