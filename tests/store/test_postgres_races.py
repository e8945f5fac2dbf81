"""Concurrent hot operations of two processes on one PostgreSQL database."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from uplift_server.core.lifecycle import OPEN, Status
from uplift_server.core.operations.singleton_jobs import LEASE_MS, SingletonJob
from uplift_server.store import endpoint_backlog, operational_events, singleton_jobs
from uplift_server.store.errors import Conflict
from uplift_server.store.hot_records import (
    Appended,
    HeldRequest,
    IdempotencyConflict,
    LeasedDelivery,
    LeaseRequest,
    NewEvent,
    Released,
)
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.postgres.connection import Opener, Raw
from uplift_server.store.postgres.message_bus import PostgresMessageBus, new_message_bus
from uplift_server.store.schema import attempts, deliveries, events, idempotency_keys

from .bench import ENOUGH_BYTES, LEASE_UNTIL, NOW, OWNER, Bench, due, settled
from .lease_conformance import held
from .order_conformance import ordered
from .slow_statements import slow_statements
from .test_store_functions import new_type


@pytest.fixture
async def benches(postgres_url: str) -> AsyncIterator[tuple[Bench, Bench]]:
    """The engines of two processes on one database."""

    async def never() -> None:
        raise AssertionError

    both = Bench(PostgresDatabase(postgres_url), never), Bench(PostgresDatabase(postgres_url), never, 1 << 32)
    for bench in both:
        await bench.database.open()
    yield both
    for bench in both:
        await bench.database.close()


@pytest.fixture
async def raw(postgres_url: str) -> AsyncIterator[Raw]:
    """An administrator's connection."""
    raw = await Opener(postgres_url, no_timeouts=True).raw()
    yield raw
    await raw.close()


Result = list[Appended] | IdempotencyConflict


async def append_concurrently(
    benches: tuple[Bench, Bench], groups: list[list[NewEvent]], *others: list[list[NewEvent]]
) -> list[list[Result]]:
    """Append the groups of several processes concurrently, one call per group. Return the results by process."""
    calls = [
        benches[number % 2].database.append([group]) for number, own in enumerate((groups, *others)) for group in own
    ]
    found = [result for (result,) in await asyncio.gather(*calls)]
    return [found[at : at + len(groups)] for at in range(0, len(found), len(groups))]


async def test_events_with_the_same_keys_are_stored_once(benches: tuple[Bench, Bench]) -> None:
    """Each process sends the keys in a different order."""
    keys = [f"key {number}" for number in range(60)]
    draw = random.Random(1)
    own = []
    for bench in benches:
        order = draw.sample(keys, len(keys))
        own.append([[bench.event(due(1), key=key) for key in order[at : at + 6]] for at in range(0, len(order), 6)])
    results = await append_concurrently(benches, *own)
    ids: dict[str, set[bytes]] = {key: set() for key in keys}
    fresh: Counter[str] = Counter()
    for groups, process in zip(own, results, strict=True):
        for group, result in zip(groups, process, strict=True):
            assert isinstance(result, list)
            for event, appended in zip(group, result, strict=True):
                assert event.idempotency_key is not None
                ids[event.idempotency_key].add(appended.id)
                fresh[event.idempotency_key] += not appended.duplicate
    assert all(len(found) == 1 for found in ids.values())
    assert fresh == dict.fromkeys(keys, 1)
    assert [await benches[0].count(table) for table in (events, deliveries, idempotency_keys)] == [60, 60, 60]
    stored = {row.id for row in await benches[0].rows(events)}
    assert stored == set.union(*ids.values())


async def test_events_with_the_same_chosen_ids_are_stored_once(benches: tuple[Bench, Bench]) -> None:
    ids = [bytes([number]) * 16 for number in range(1, 41)]
    draw = random.Random(2)
    own = [[[bench.event(due(1), chosen_id=each) for each in draw.sample(ids, len(ids))]] for bench in benches]
    results = await append_concurrently(benches, *own, *own)
    duplicates = [appended.duplicate for process in results for result in process for appended in result]  # type: ignore[union-attr]
    assert (len(duplicates), duplicates.count(False)) == (160, 40)
    assert [row.id for row in await benches[0].rows(events)] in (
        [event.id for (group,) in [process] for event in group] for process in own
    )


async def test_different_events_with_one_key_conflict(
    benches: tuple[Bench, Bench],
) -> None:
    own = [[[bench.event(due(1), key="k", data=b"%d" % number)] for number in range(5)] for bench in benches]
    results = [result for process in await append_concurrently(benches, *own) for result in process]
    stored = [result for result in results if isinstance(result, list)]
    conflicts = [result for result in results if isinstance(result, IdempotencyConflict)]
    # Both processes send the same five bodies.
    assert (len(stored), len(conflicts)) == (2, 8)
    assert {appended.id for (appended,) in stored} == {conflict.event_id for conflict in conflicts}
    assert await benches[0].count(events) == 1


async def test_nothing_is_leased_twice(benches: tuple[Bench, Bench]) -> None:
    await benches[0].append(*(benches[0].event(due(1), due(2), due(3)) for _ in range(100)))
    leased: list[LeasedDelivery] = []

    async def take(bench: Bench, process_id: int) -> None:
        requests = [LeaseRequest(endpoint, 7) for endpoint in (1, 2, 3)]
        while found := await bench.database.lease_due(
            requests, now=NOW, lease_until=LEASE_UNTIL, process_id=process_id, body_bytes_max=ENOUGH_BYTES
        ):
            leased.extend(found)

    # Deliveries that other processes are leasing are skipped, so a process may get none and tries again.
    while len(leased) < 300:
        await asyncio.gather(*(take(bench, owner) for owner, bench in enumerate(benches * 3, 1)))
    assert len({(each.event_seq, each.endpoint_seq) for each in leased}) == len(leased) == 300
    assert {each.fence for each in leased} == {1}
    assert all(row.lease_owner in range(1, 7) for row in await benches[0].rows(deliveries))


async def test_a_process_without_its_lease_writes_nothing(benches: tuple[Bench, Bench]) -> None:
    slow, quick = benches
    await slow.append(slow.event(due(1)))
    (stale,) = await slow.lease(1)
    assert await quick.database.reclaim(now=LEASE_UNTIL) == 1
    (current,) = await quick.lease(1, now=LEASE_UNTIL, until=LEASE_UNTIL + 30_000, process_id=OWNER + 1)
    late, _ = await asyncio.gather(
        slow.database.settle([settled(stale, Status.FAILED)]),
        slow.database.release([(stale.event_seq, 1, stale.fence)], now=NOW),
    )
    assert late == {(stale.event_seq, 1)}
    assert await slow.count(attempts) == 0
    assert await quick.database.settle([settled(current)]) == frozenset()


async def test_one_of_two_settlements_with_the_same_fence_is_written(benches: tuple[Bench, Bench]) -> None:
    """The connection was lost during the commit, and the process repeats the settlement."""
    await benches[0].append(*(benches[0].event(due(1)) for _ in range(50)))
    batch = [settled(each, Status.PENDING, NOW + 1) for each in await benches[0].lease(1)]
    lost = await asyncio.gather(
        *(bench.database.settle(random.Random(3).sample(batch, len(batch))) for bench in benches * 2)
    )
    assert sum(map(len, lost)) == 3 * 50
    assert await benches[0].count(attempts) == 50


@dataclass
class Results:
    """The results that the database returned to the processes."""

    appended: dict[int, bytes] = field(default_factory=dict)
    by_key: dict[str, set[bytes]] = field(default_factory=dict)
    leases: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    written: Counter[tuple[int, int]] = field(default_factory=Counter)


class Process:
    """A process that runs random operations."""

    def __init__(self, bench: Bench, process_id: int, seed: int, results: Results) -> None:
        self._bench = bench
        self._process_id = process_id
        self._draw = random.Random(seed)
        self._results = results
        self._mine: list[LeasedDelivery] = []

    async def run(self, steps: int) -> None:
        """Run `steps` operations in turn."""
        operations = [self._append, self._append, self._lease, self._lease, self._settle, self._settle, self._give_back]
        for _ in range(steps):
            await self._draw.choice([*operations, self._reclaim])()

    async def _append(self) -> None:
        groups = []
        for _ in range(self._draw.randrange(1, 5)):
            owed = [due(endpoint) for endpoint in (1, 2, 3) if self._draw.random() < 0.7]
            keys = [
                self._draw.choice([None, f"k{self._draw.randrange(40)}"]) for _ in range(self._draw.randrange(1, 5))
            ]
            groups.append([self._bench.event(*owed, key=key) for key in keys])
        for group, result in zip(groups, await self._bench.database.append(groups), strict=True):
            assert isinstance(result, list)
            for event, appended in zip(group, result, strict=True):
                self._results.appended[appended.seq] = appended.id
                if event.idempotency_key is not None:
                    self._results.by_key.setdefault(event.idempotency_key, set()).add(appended.id)

    async def _lease(self) -> None:
        leased = await self._bench.lease(
            self._draw.randrange(1, 4), self._draw.randrange(1, 9), process_id=self._process_id
        )
        for each in leased:
            self._results.leases[each.event_seq, each.endpoint_seq, each.fence] += 1
        self._mine += leased

    def _some(self) -> list[LeasedDelivery]:
        """Remove and return some leases of this process, current or expired, at most one per delivery."""
        self._draw.shuffle(self._mine)
        some = list({(each.event_seq, each.endpoint_seq): each for each in self._mine[:9]}.values())
        self._mine = [each for each in self._mine if each not in some]
        return some

    async def _settle(self) -> None:
        some = self._some()
        batch = [settled(each) if self._draw.random() < 0.5 else settled(each, Status.PENDING, NOW) for each in some]
        lost = await self._bench.database.settle(batch)
        self._results.written.update(pair for s in batch if (pair := (s.event_seq, s.endpoint_seq)) not in lost)

    async def _give_back(self) -> None:
        await self._bench.database.release([(d.event_seq, d.endpoint_seq, d.fence) for d in self._some()], now=NOW)

    async def _reclaim(self) -> None:
        """Reclaim leases whose process may still be running."""
        await self._bench.database.reclaim(now=LEASE_UNTIL, limit=self._draw.randrange(1, 20))


@pytest.mark.parametrize("seed", range(3))
async def test_concurrent_processes_lose_and_repeat_nothing(benches: tuple[Bench, Bench], seed: int) -> None:
    results = Results()
    running = [Process(bench, owner, 100 * seed + owner, results).run(60) for owner, bench in enumerate(benches * 4, 1)]
    await asyncio.gather(*running)
    assert {row.seq: row.id for row in await benches[0].rows(events)} == results.appended
    assert all(len(ids) == 1 for ids in results.by_key.values())
    assert await benches[0].count(idempotency_keys) == len(results.by_key)
    assert set(results.leases.values()) == {1}
    made: Counter[tuple[int, int]] = Counter()
    for attempt in await benches[0].rows(attempts):
        made[attempt.event_seq, attempt.endpoint_seq] += 1
    assert made == results.written
    for row in await benches[0].rows(deliveries):
        assert row.attempts_made == made[row.event_seq, row.endpoint_seq]
        assert row.status in (Status.PENDING, Status.DELIVERED)
        assert (row.status, row.lease_owner != 0) != (Status.DELIVERED, True)


async def test_operations_are_repeated_after_a_deadlock(benches: tuple[Bench, Bench], raw: Raw) -> None:
    """Administrators and ordinary writes can lock rows in a different order than hot operations."""
    await benches[0].append(*(benches[0].event(due(1)) for _ in range(2)))
    leased = await benches[0].lease(1)
    await raw.execute("SET deadlock_timeout = '10s'")
    async with raw.transaction():
        await raw.execute("UPDATE deliveries SET account_seq = 1 WHERE event_seq = 2")
        settling = asyncio.ensure_future(benches[0].database.settle([settled(each) for each in leased]))
        await blocked(raw)
        await raw.execute("UPDATE deliveries SET account_seq = 1 WHERE event_seq = 1")
    assert await settling == frozenset()
    assert await benches[0].count(attempts) == 2


@pytest.fixture
async def deadlocking_benches(
    benches: tuple[Bench, Bench], postgres_url: str, raw: Raw
) -> AsyncIterator[tuple[Bench, Bench]]:
    """The engines of two processes. PostgreSQL does not end a deadlock before a test times out."""
    database = await raw.fetchval("SELECT quote_ident(current_database())")
    await raw.execute(f"ALTER DATABASE {database} SET deadlock_timeout = '1h'")
    try:
        for bench in benches:
            await bench.database.close()
            bench.database = PostgresDatabase(postgres_url)
            await bench.database.open()
        yield benches
    finally:
        await raw.execute(f"ALTER DATABASE {database} RESET deadlock_timeout")


async def test_concurrent_failures_of_the_same_endpoints_do_not_deadlock(
    deadlocking_benches: tuple[Bench, Bench], postgres_url: str
) -> None:
    one, two = deadlocking_benches
    await one.database.write(new_type)
    await one.append(*(one.event(due(endpoint)) for endpoint in (1, 2, 2, 1)))
    leased = {each.event_seq: settled(each, Status.FAILED) for n in (1, 2) for each in await one.lease(n)}
    async with slow_statements(postgres_url, "INSERT ON failed_deliveries"), asyncio.timeout(10):
        # Both transactions count a failure of each endpoint, in opposite orders.
        batches = ([leased[1], leased[2]], [leased[3], leased[4]])
        settling = [bench.database.settle(batch) for bench, batch in zip((one, two), batches, strict=True)]
        assert await asyncio.gather(*settling) == [frozenset()] * 2
    counts = await one.database.read(lambda c: operational_events.due_counts(c, now=NOW, limit=10))
    assert sorted(each.endpoint_seq for each in counts) == [1, 2]


@pytest.mark.parametrize("known", [[], list(SingletonJob)])
async def test_one_of_two_processes_gets_the_singleton_jobs(
    postgres_url: str, raw: Raw, known: Sequence[SingletonJob]
) -> None:
    """Covers new jobs, for which the database has no rows yet, and jobs whose leases have expired."""
    now = NOW
    buses = [new_message_bus(postgres_url) for _ in range(2)]

    async def taken(bus: PostgresMessageBus, process_id: int) -> frozenset[SingletonJob]:
        return await bus.write(lambda c: singleton_jobs.take(c, list(SingletonJob), process_id=process_id, now=now))

    try:
        if known:
            assert await taken(buses[0], 7) == set(known)
            now += LEASE_MS
        async with raw.transaction():
            # Neither process can take a lease before both have read the leases.
            await raw.execute("LOCK TABLE duties IN SHARE MODE")
            both = asyncio.gather(*(taken(bus, process_id) for process_id, bus in enumerate(buses, 1)))
            await blocked(raw, 2)
        assert sorted(map(len, await both)) == [0, len(SingletonJob)]
    finally:
        for bus in buses:
            await bus.close()


async def test_a_lease_that_another_process_has_taken_is_not_renewed(postgres_url: str, raw: Raw) -> None:
    bus = new_message_bus(postgres_url)

    async def taken(now: int) -> frozenset[SingletonJob]:
        return await bus.write(lambda c: singleton_jobs.take(c, list(SingletonJob), process_id=1, now=now))

    lost = SingletonJob.RETENTION
    try:
        assert await taken(NOW) == set(SingletonJob)
        async with raw.transaction():
            # A process whose clock is ahead takes the lease, and commits after this process has read it.
            await raw.execute(f"UPDATE duties SET process_seq = 2 WHERE name = '{lost}'")
            renewing = asyncio.ensure_future(taken(NOW + LEASE_MS - 1))
            await blocked(raw, 1)
        assert await renewing == set(SingletonJob) - {lost}
    finally:
        await bus.close()


async def blocked(raw: Raw, number: int = 1) -> list[int | None]:
    """Wait until `number` transactions wait for locks, and return their IDs; None for one without an ID."""
    query = (
        "SELECT backend_xid::text::int AS xid FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20):
        while len(await raw.fetch(query)) < number:
            await asyncio.sleep(0.01)
            # Statistics are cached for a transaction.
            await raw.execute("SELECT pg_stat_clear_snapshot()")
    # The columns of one reading can be from different times, so read again after the waits have begun.
    await raw.execute("SELECT pg_stat_clear_snapshot()")
    return [row["xid"] for row in await raw.fetch(query)]


@pytest.mark.parametrize("table", ["events", "attempts", "delivery_changes"])
async def test_a_transaction_gets_its_id_before_a_sequence_number(
    benches: tuple[Bench, Bench], raw: Raw, table: str
) -> None:
    """Readers rely on this: after all transactions of a snapshot end, all rows with earlier numbers are visible."""
    bench, _ = benches
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1)
    async with raw.transaction():
        # `nextval` waits for this transaction.
        await raw.execute(f"ALTER SEQUENCE {table}_seq_seq INCREMENT BY 1")
        if table == "events":
            waiting = asyncio.ensure_future(bench.append(bench.event(due(1))))
        else:
            waiting = asyncio.ensure_future(bench.database.settle([settled(leased, Status.FAILED)]))
        assert None not in await blocked(raw)
    await waiting


async def test_expired_leases_are_reclaimed_once(benches: tuple[Bench, Bench]) -> None:
    """Two processes concurrently reclaim the leases of a process that has died."""
    await benches[0].append(*(benches[0].event(due(1)) for _ in range(60)))
    assert len(await benches[0].lease(1, process_id=99)) == 60
    ended = await asyncio.gather(*(bench.database.reclaim(now=NOW, process_id=99, limit=40) for bench in benches * 2))
    assert sum(ended) == 60
    assert len(await benches[1].lease(1)) == 60


async def test_held_deliveries_are_released_once(benches: tuple[Bench, Bench]) -> None:
    await benches[0].append(*(benches[0].event(held(1)) for _ in range(30)))
    released = await asyncio.gather(
        *(bench.database.release_held([HeldRequest(1, 0, 30)], now=NOW) for bench in benches * 2)
    )
    assert sum(result.released for (result,) in released) == 30
    assert [each.event_seq for each in await benches[0].lease(1)] == list(range(1, 31))


async def test_a_concurrent_release_releases_nothing(benches: tuple[Bench, Bench], raw: Raw) -> None:
    """The second release waits for the first, and then finds that the endpoint has due deliveries."""
    one, two = benches
    await one.append(*(one.event(held(1)) for _ in range(12)))
    # Both start before either one ends.
    blocked = raw.transaction()
    await blocked.start()
    await raw.execute("SELECT FROM deliveries WHERE event_seq = 1 FOR UPDATE")
    releasing = asyncio.ensure_future(one.database.release_held([HeldRequest(1, 0, 5)], now=NOW))
    await asyncio.sleep(0.1)
    behind = asyncio.ensure_future(two.database.release_held([HeldRequest(1, 0, 5)], now=NOW))
    await asyncio.sleep(0.1)
    await blocked.rollback()
    assert await releasing == [Released(5, 0, False)]
    assert await behind == [Released(0, 0, True)]
    assert [each.event_seq for each in await two.lease(1)] == [1, 2, 3, 4, 5]


async def test_order_groups_keep_one_due_delivery_under_races(benches: tuple[Bench, Bench]) -> None:
    """Two processes change deliveries of the same groups. No group stalls or has two due deliveries."""
    draws = random.Random(7)
    groups = (0, 0, 5, 6)
    left = 200

    async def accept(bench: Bench) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            status = Status.HELD if draws.random() < 0.05 else Status.PENDING
            await bench.append(bench.event(ordered(1, draws.choice(groups), status=status)))
            # Wait, so that groups become empty repeatedly.
            await asyncio.sleep(draws.uniform(0, 0.02))

    async def is_open(bench: Bench) -> bool:
        return left > 0 or any(row.status in OPEN for row in await bench.rows(deliveries))

    async def settle_all(bench: Bench) -> None:
        while await is_open(bench):
            leased = await bench.lease(1)
            assert len({each.order_group for each in leased}) == len(leased), "two due deliveries of a group"
            await bench.database.settle([settled(each) for each in leased])
            if draws.random() < 0.5:
                await bench.database.release_held([HeldRequest(1, 0, 3)], now=NOW)
            rows = [row for row in await bench.rows(deliveries) if row.status == Status.PENDING and not row.lease_owner]
            if rows and draws.random() < 0.3:
                row = draws.choice(rows)
                with contextlib.suppress(Conflict):
                    await bench.database.write(
                        lambda c: endpoint_backlog.cancel(c, row.event_seq, 1, fence=None, now=NOW)  # noqa: B023
                    )

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(bench) for bench in benches for work in (accept, accept, settle_all, settle_all)))
