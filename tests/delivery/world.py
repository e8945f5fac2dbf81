"""The engine with a virtual clock, scripted receivers and a real database."""

import asyncio
import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from msgspec import structs
from tests import virtual_waits
from tests.engines import Place

from uplift_server.app.engine_parts import EngineParts, LocalFoundation, build_engine
from uplift_server.core.deliveries.health import HealthRule
from uplift_server.core.endpoint_settings import ENDPOINT_SETTINGS, AttemptTimeouts, EndpointSettings
from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.ids import uuid7
from uplift_server.core.lifecycle import Status
from uplift_server.core.scheduling.circuit_breaker import BreakerRule
from uplift_server.core.scheduling.retry_schedule import RetrySchedule
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.engine import Engine, EngineSettings
from uplift_server.delivery.health.monitor import HealthSettings
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.ports import Callback
from uplift_server.delivery.sending.http.request import Done, Request
from uplift_server.observe.attempt_log import AttemptLine
from uplift_server.store import accounts, endpoints, event_types
from uplift_server.store.encryption import Cipher
from uplift_server.store.hot_records import Appended, IdempotencyConflict
from uplift_server.store.records import Account, DisabledReason, Endpoint, EndpointState, HeldAction
from uplift_server.store.schema import attempts as attempts_table
from uplift_server.store.schema import deliveries as deliveries_table
from uplift_server.store.schema import events as events_table

START = 1_764_000_000_000
SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
SECRET = "whsec_" + "A" * 43 + "="
WAIT_S = 0.0005
"""The real time between two checks whether the database has responded."""

Script = Callable[[Request], Exchange | None]
"""Returns the response of a receiver to a request, or None if the attempt times out without a response."""


@dataclass(order=True)
class _Timer:
    at_ms: float
    number: int
    call: Callback = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class VirtualClock:
    """A clock that stands still until `World.run_for` advances it."""

    def __init__(self) -> None:
        self.now = START
        self.wall_ahead = 0
        """How far the machine's clock is ahead of the engine's clock (ms)."""
        self._processor_s = self._cores = 0.0
        self._cores_since = START
        self.waiting = 0
        """The number of loops that wait for the clock or for a call."""
        self._timers: list[_Timer] = []
        self._numbers = itertools.count()

    def now_ms(self) -> int:
        return self.now

    def wall_ms(self) -> int:
        return self.now + self.wall_ahead

    def monotonic_us(self) -> int:
        return self.now * 1000

    def processor_s(self) -> float:
        return self._processor_s + self._cores * (self.now - self._cores_since) / SECOND

    def use(self, cores: float) -> None:
        """Let the process use this share of a CPU core from now on."""
        self._processor_s = self.processor_s()
        self._cores, self._cores_since = cores, self.now

    def call_at(self, at_ms: float, callback: Callback) -> _Timer:
        timer = _Timer(at_ms, next(self._numbers), callback)
        heapq.heappush(self._timers, timer)
        return timer

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        self.waiting += 1
        try:
            await virtual_waits.wait(event, lambda wake: self.call_at(self.now + timeout_ms, wake))
        finally:
            self.waiting -= 1

    def next_at(self) -> float | None:
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0].at_ms if self._timers else None

    def fire(self) -> None:
        """Run the callback of the next timer at its time."""
        timer = heapq.heappop(self._timers)
        self.now = max(self.now, int(timer.at_ms))
        timer.call()


def respond(status: int, *, retry_after: str | None = None) -> Exchange:
    """Return an exchange with a complete response."""
    return Exchange(
        0, 1000, status_code=status, retry_after=retry_after, response_head=b"HTTP/1.1 %d X\r\n\r\n" % status
    )


class ScriptedSender:
    """A sender that simulates receivers by host name, and records all requests."""

    def __init__(self, clock: VirtualClock, timeout_ms: int) -> None:
        self._clock = clock
        self._timeout_ms = timeout_ms
        self.scripts: dict[str, Script] = {}
        self.latency_ms: dict[str, int] = defaultdict(int)
        self.sent: list[tuple[int, str, Request]] = []
        self.in_flight: dict[str, int] = defaultdict(int)
        self.in_flight_most: dict[str, int] = defaultdict(int)
        self.closed = False
        self._cut_off: dict[int, tuple[Request, Done]] = {}

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True
        for request, done in list(self._cut_off.values()):
            done(request, Exchange(self._clock.now, 1000, failure=Failure.EGRESS, error="the sender was closed"))

    def send(self, request: Request, done: Done) -> None:
        host = request.target.host
        started_at = self._clock.now
        self.sent.append((started_at, host, request))
        self.in_flight[host] += 1
        self.in_flight_most[host] = max(self.in_flight_most[host], self.in_flight[host])
        exchange = self.scripts.get(host, lambda _: respond(200))(request)
        timeout_ms = self._timeout_ms if request.timeout_ms is None else request.timeout_ms
        wait_ms = timeout_ms if exchange is None else self.latency_ms[host]
        if exchange is None:
            exchange = Exchange(started_at, timeout_ms * 1000, failure=Failure.TIMEOUT, error="no answer")
        exchange = exchange._replace(started_at=started_at)

        number = len(self.sent)
        self._cut_off[number] = (request, done)

        def finish() -> None:
            self.in_flight[host] -= 1
            self._cut_off.pop(number, None)
            if not self.closed:
                done(request, exchange)

        if wait_ms:
            self._clock.call_at(self._clock.now + wait_ms, finish)
        else:
            asyncio.get_running_loop().call_soon(finish)

    def times(self, host: str) -> list[int]:
        """Return the times of the requests to a host."""
        return [at for at, to, _ in self.sent if to == host]


VERBS = (
    "append", "lease_due", "settle", "release", "reclaim", "release_held", "release_replay", "read_replay_batch",
    "due_endpoints", "next_due", "scrub", "stream_position", "read", "write", "write_with_events", "append_then",
)  # fmt: skip
"""The names of the operations in the store's contract."""


def _watched(name: str) -> Callable[..., "asyncio.Future[Any]"]:
    def call(self: "Watched", *arguments: Any, **named: Any) -> "asyncio.Future[Any]":
        result = asyncio.ensure_future(getattr(super(Watched, self), name)(*arguments, **named))
        self.in_progress.add(result)
        result.add_done_callback(self.in_progress.discard)
        return result

    return call


class Watched:
    """A layer over a storage engine. It keeps track of the calls in progress."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.in_progress: set[asyncio.Future[Any]] = set()


for verb in VERBS:
    setattr(Watched, verb, _watched(verb))


class World:
    """An engine that can be drained, killed and restarted on its database."""

    def __init__(
        self,
        place: Place,
        *,
        delays_ms: Sequence[int] = (5 * SECOND, 300 * SECOND),
        breaker_failures: int = 0,
        in_flight_max: int = 1000,
        endpoint_in_flight_max: int = 16,
        scan_every_ms: int = SECOND,
        release_rate_per_second: int = 50,
        health_settings: HealthSettings | None = None,
        operations_account: str | None = None,
        database: type | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.settings = EngineSettings(
            schedule=RetrySchedule(tuple(delays_ms)),
            breaker=BreakerRule(breaker_failures, 300 * SECOND),
            timeouts=AttemptTimeouts(15 * SECOND, 25 * SECOND),
            lease_ms=30 * SECOND,
            in_flight_max=in_flight_max,
            endpoint_in_flight_max=endpoint_in_flight_max,
            retention_ms=0,
            health=health_settings
            or HealthSettings(HealthRule(3 * DAY, 5 * DAY), sends_email=True, operator_email="ops@uplift.example"),
            release_rate_per_second=release_rate_per_second,
            scan_every_ms=scan_every_ms,
            statistics_every_ms=scan_every_ms,
            tick_ms=scan_every_ms,
            retention_every_ms=max(MINUTE, scan_every_ms),
            operations_account=operations_account,
        )
        self._place = place
        self._layers = (Watched,) if database is None else (database, Watched)
        self._numbers = itertools.count(1)
        self.callers: set[asyncio.Future[Any]] = set()
        """Calls of a test that wait only for the database or the clock. `settle` treats them like engine loops."""
        self.lines: list[AttemptLine] = []
        self.on_loop_failure: Callable[[BaseException | None], None] = self.record_failure
        self.defects = 0
        """The number of loops that failed. Tests of other subjects expect none."""
        self.sender = ScriptedSender(self.clock, self.settings.timeouts.default_ms)
        self.database: Any
        self.cache: EndpointCache
        self.parts: EngineParts
        self.engine: Engine
        self.account: Account

    async def __aenter__(self) -> "World":
        self._place.prepare(now_ms=START)
        await self._open()
        self.account = await self.new_account()
        await self.add_event_type("a.b")
        return self

    async def add_event_type(self, name: str) -> None:
        """Add an event type to the catalog."""
        record, _ = await self.database.write(
            lambda c: event_types.put(
                c, name=name, group="a", description="", schema=None, example=None, api_version="01/01/2022",
                archived=False, now=START,
            )
        )  # fmt: skip
        self.cache.put_event_type(record)

    async def __aexit__(self, failure: object, *_: object) -> None:
        await self._abandon()
        self.assert_no_failed_loop(failure)

    def record_failure(self, _error: BaseException | None) -> None:
        """Record a failed loop."""
        self.defects += 1

    def loop_ended(self, error: BaseException | None) -> None:
        """Report a failed loop to `on_loop_failure`, which a test may replace."""
        self.on_loop_failure(error)

    def assert_no_failed_loop(self, failure: object) -> None:
        """Fail the test if a loop failed, because a real process would have stopped."""
        assert failure is not None or not self.defects, "a loop failed because of a defect; see the log"

    async def restart(self) -> None:
        """Drain, and restart like a new process."""
        await self.stepping(self.engine.drain())
        await self.database.close()
        await self._open()

    async def kill(self) -> None:
        """Stop without a drain, and restart. Everything in memory is lost."""
        await self._abandon()
        await self._open()

    async def _abandon(self) -> None:
        self.sender.closed = True
        self.engine.ending = True
        self.parts.lanes.drain()
        for task in self.engine.tasks:
            task.cancel()
        await asyncio.gather(*self.engine.tasks, return_exceptions=True)
        await self.database.close()
        self.clock._timers.clear()

    async def _open(self, *, dispatch: bool = True) -> None:
        self.database = self._place.database(*self._layers)
        await self.database.open()
        scripts, latency, sent = self.sender.scripts, self.sender.latency_ms, self.sender.sent
        self.sender = ScriptedSender(self.clock, self.settings.timeouts.default_ms)
        self.sender.scripts, self.sender.latency_ms, self.sender.sent = scripts, latency, sent
        self.parts = build_engine(
            self.database,
            Cipher(b"k" * 32),
            self.sender,
            self.clock,
            self.settings,
            LocalFoundation(self.settings.process_id),
            user_agent="Uplift-Webhooks/test",
            public_url="https://uplift.test",
            on_lines=self.lines.extend,
            on_loop_failure=self.loop_ended,
        )
        self.engine, self.cache = self.parts.engine, self.parts.cache
        self.cache.load(
            await self.database.read(accounts.list_live),
            [],
            await self.database.read(event_types.list_live),
            await self.database.read(endpoints.list_live),
        )
        await self.engine.start(dispatch=dispatch)
        await self.settle()

    def fresh_id(self) -> bytes:
        return uuid7(self.clock.now, next(self._numbers).to_bytes(10, "big"))

    async def new_account(self, contact_emails: Sequence[str] = (), uid: str | None = None) -> Account:
        account_id, contacts = self.fresh_id(), tuple(contact_emails)
        account = await self.database.write(
            lambda c: accounts.create(
                c, account_id=account_id, name="a", contact_emails=contacts, uid=uid, now=self.clock.now
            )
        )
        self.cache.put_account(account)
        return account

    async def endpoint(
        self, host: str, script: Script | None = None, *, account: Account | None = None, **settings: Any
    ) -> LiveEndpoint:
        """Create an endpoint whose receiver follows a script (default: 200)."""
        endpoint_id = self.fresh_id()
        owner = account or self.account
        own = {each.attribute: settings.pop(each.attribute) for each in ENDPOINT_SETTINGS if each.attribute in settings}
        values = {"headers": None, "event_types": (), "description": "", "settings": EndpointSettings(**own)} | settings
        record: Endpoint = await self.database.write(
            lambda c: endpoints.create(
                c,
                endpoint_id=endpoint_id,
                account_seq=owner.seq,
                url=f"https://{host}/hook",
                secret=Cipher(b"k" * 32).encrypt(SECRET, endpoint_id, "secret"),
                now=self.clock.now,
                **values,
            )
        )
        if script is not None:
            self.sender.scripts[host] = script
        self.cache.put_endpoint(record)
        return self.cache.endpoints[record.seq]

    def draft(
        self, data: bytes = b"{}", *, account: Account | None = None, event_type: str = "a.b", **fields: Any
    ) -> Draft:
        """Return a checked event for an account, as the service passes it to the engine."""
        owner = account or self.account
        endpoints = self.parts.event_ingest.recipients(owner.seq, event_type, data)
        return Draft(self.cache.event_types[event_type], data, endpoints, **fields)

    async def accept(
        self, count: int = 1, *, account: Account | None = None, pad: int = 0, event_type: str = "a.b", **fields: Any
    ) -> list[Appended]:
        """Accept single events in one turn of the event loop. `pad` adds bytes to their data."""
        data = b'{"n":%d}' if not pad else b'{"n":%d,"pad":"' + b"x" * pad + b'"}'
        owner = account or self.account
        drafts = [self.draft(data % n, account=owner, event_type=event_type, **fields) for n in range(count)]
        return await self.accept_drafts(drafts, owner)

    async def accept_drafts(self, drafts: Sequence[Draft], account: Account) -> list[Appended]:
        """Accept single events in one turn of the event loop."""
        accepting = [self.parts.event_ingest.accept(account.seq, [draft]) for draft in drafts]
        results = await asyncio.gather(*accepting)
        stored: list[Appended] = []
        for result in results:
            assert not isinstance(result, IdempotencyConflict)
            stored.extend(result)
        await self.settle()
        return stored

    async def settle(self) -> None:
        """Wait until no task can run unless the clock advances."""
        loop: Any = asyncio.get_running_loop()
        while True:
            while self.database.in_progress:
                await asyncio.wait(self.database.in_progress)
            await asyncio.sleep(0)
            # All other tasks that can run are in this queue of asyncio.
            if loop._ready or self.database.in_progress:
                continue
            if self._loops_wait():
                return
            # A loop works on another thread, or waits for a statement of its own.
            await asyncio.sleep(WAIT_S)

    def _loops_wait(self) -> bool:
        """Return whether all loops of the engine wait, and none works on another thread."""
        return self.clock.waiting >= sum(not task.done() for task in [*self.engine.tasks, *self.callers])

    async def run_for(self, ms: int) -> None:
        """Advance the clock, and stop at every due time."""
        await self.settle()
        until = self.clock.now + ms
        while (at := self.clock.next_at()) is not None and at <= until:
            self.clock.fire()
            nearby = self.clock.next_at()
            if nearby is None or nearby > self.clock.now:
                await self.settle()
        self.clock.now = until
        await self.settle()

    async def stepping(self, work: Any) -> None:
        """Await work that waits for the clock, and advance the clock meanwhile."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await self.settle()
            if not task.done() and self.clock.next_at() is not None:
                self.clock.fire()
        await task

    async def deliveries(self) -> list[sa.Row[Any]]:
        """Return all stored deliveries."""
        table = deliveries_table
        return await self.database.read(
            lambda c: list(c.execute(sa.select(table).order_by(table.c.event_seq, table.c.endpoint_seq)).all())
        )

    async def statuses(self) -> dict[Status, int]:
        """Return the number of deliveries by status."""
        counts: dict[Status, int] = defaultdict(int)
        for row in await self.deliveries():
            counts[Status(row.status)] += 1
        return dict(counts)

    async def delivery_ids(self) -> list[sa.Row[Any]]:
        """Return the event ID and endpoint number of every stored delivery."""
        delivery, event = deliveries_table, events_table
        query = sa.select(event.c.id.label("event_id"), delivery.c.endpoint_seq).join(
            event, event.c.seq == delivery.c.event_seq
        )
        return await self.database.read(lambda c: list(c.execute(query).all()))

    async def event_ids(self) -> list[sa.Row[Any]]:
        """Return the number and ID of every stored event."""
        query = sa.select(events_table.c.seq.label("event_seq"), events_table.c.id.label("event_id"))
        return await self.database.read(lambda c: list(c.execute(query).all()))

    async def delete_endpoint(self, seq: int) -> None:
        """Delete an endpoint as the service does."""
        record = self.cache.endpoints[seq].record
        await self.database.write(lambda c: endpoints.delete(c, record.account_seq, record.id, now=self.clock.now))
        self.cache.drop_endpoint(seq)
        self.parts.changes.deleted(seq)

    async def move(self, seq: int, host: str) -> None:
        """Change the host of an endpoint as the service does."""
        record = await self.database.write(
            lambda c: endpoints.update(
                c,
                None,
                self.cache.endpoints[seq].record.id,
                lambda old: structs.replace(old, url=f"https://{host}/hook"),
            )
        )
        assert record is not None
        self.cache.put_endpoint(record)
        await self.settle()

    async def pause(self, seq: int) -> None:
        """Pause an endpoint as the service does."""
        await self.deactivate(seq, EndpointState.PAUSED, None)

    async def deactivate(self, seq: int, state: EndpointState, reason: DisabledReason | None) -> None:
        """Pause or disable an endpoint as the service does."""
        record = await self.database.write(lambda c: endpoints.deactivate(c, seq, state, reason, now=self.clock.now))
        assert record is not None
        self.parts.changes.apply(record)

    async def enable(self, seq: int, held: HeldAction = HeldAction.SEND) -> None:
        """Enable an endpoint as the service does."""
        assert await self.parts.changes.finish_holding(seq, 3 * SECOND)
        await self.store_enabled(seq, held)

    async def store_enabled(self, seq: int, held: HeldAction) -> None:
        """Run the second step of `enable`."""
        record = await self.database.write(lambda c: endpoints.enable(c, seq, held, now=self.clock.now))
        assert record is not None
        self.parts.changes.apply(record)

    async def attempts(self) -> list[sa.Row[Any]]:
        """Return all stored attempts."""
        table = attempts_table
        return await self.database.read(lambda c: list(c.execute(sa.select(table).order_by(table.c.seq)).all()))
