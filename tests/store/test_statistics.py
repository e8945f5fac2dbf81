"""Statistics are exact after any operations on deliveries and any interleaving of counts."""

import random
import sqlite3
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from msgspec import structs

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.core.operations.statistics import DURATION_BOUNDS_US, HOUR_MS, MINUTE_MS, Statistics, total
from uplift_server.delivery.sending.attempts import previous_state
from uplift_server.store import (
    cleanup,
    endpoint_backlog,
    replays,
    server_values,
    statistics,
    test_deliveries,
    totals,
)
from uplift_server.store import deliveries as delivery_store
from uplift_server.store import endpoints as endpoint_store
from uplift_server.store.errors import Conflict
from uplift_server.store.hot_records import HeldRequest, LeasedDelivery, NewDelivery, ReplayLease, Settlement
from uplift_server.store.records import EndpointState, HeldAction
from uplift_server.store.replays import MissingEvents, NewReplay, Replay, ReplaySelection
from uplift_server.store.schema import accounts, attempts, deliveries, endpoints, events
from uplift_server.store.schema_statistics import delivery_changes, delivery_totals, minute_rollups, rollups
from uplift_server.store.sqlite import SqliteDatabase
from uplift_server.store.statistics import ALL_ACCOUNTS, Scope

from .bench import NOW, OWNER, Bench, due, settled, stored_leased
from .test_migrations import create_file
from .test_sqlite import sqlite_bench

ACCOUNT_OF = {1: 1, 2: 1, 3: 2}
DELETED_ENDPOINT = 3
"""The number of a deleted endpoint, whose waiting deliveries can therefore be cancelled."""
Tally = Counter[tuple[str, int, int, int, object]]
(EVENTS,) = (kept for kept in cleanup.RETENTION_RULES if kept.table is events)


@pytest.fixture
async def bench(any_bench: Bench) -> Bench:
    await any_bench.database.write(add_accounts)
    return any_bench


def add_accounts(connection: sa.Connection) -> None:
    """Create accounts and endpoints for replays."""
    times = {"created_at": NOW, "updated_at": NOW}
    for seq in (1, 2):
        values = {"seq": seq, "id": bytes([seq]) * 16, "name": "a", "contact_emails": "[]", **times}
        connection.execute(sa.insert(accounts).values(**values))
    values = {"url": "https://x", "description": "", "event_types": "[]", "secret": b"s", "secret_created_at": NOW}
    for seq, account in ACCOUNT_OF.items():
        deleted_at = NOW if seq == DELETED_ENDPOINT else None
        connection.execute(
            sa.insert(endpoints).values(
                seq=seq, id=bytes([seq]) * 16, account_seq=account, state=0, deleted_at=deleted_at, **values, **times
            )
        )


async def count_all(bench: Bench, *, now: int = NOW, rows: int = 10_000, changes: int = 10_000) -> int:
    """Count all rows. Return the number of batches."""
    batches = 0
    while (found := await read_batch(bench, now=now, rows=rows, changes=changes)) is not None:
        assert await bench.database.write(lambda c: statistics.save(c, found))
        batches += 1
        if not found.more:
            break
    return batches


async def read_batch(bench: Bench, *, now: int = NOW, rows: int, changes: int) -> statistics.Counted | None:
    """Read the next batch of counts, without saving it. Return None if there is none."""
    stream_position = await bench.database.stream_position()
    return await bench.database.read(
        lambda c: statistics.count(c, stream_position, now=now, rows=rows, changes=changes)
    )


async def open_deliveries(bench: Bench) -> dict[int, totals.OpenCounts]:
    """Count the open deliveries of each endpoint row by row."""
    found: Counter[tuple[int, Status]] = Counter()
    for row in await bench.rows(deliveries):
        if row.trigger != Trigger.TEST and row.status in (Status.PENDING, Status.HELD):
            found[row.endpoint_seq, Status(row.status)] += 1
    return {
        endpoint: totals.OpenCounts(found[endpoint, Status.PENDING], found[endpoint, Status.HELD])
        for endpoint in {endpoint for endpoint, _ in found}
    }


def by_hour(tally: Tally) -> Tally:
    """Return the counts by hour, from counts by minute."""
    hours: Tally = Counter()
    for (name, account, endpoint, minute, what), count in tally.items():
        hours[name, account, endpoint, minute * MINUTE_MS // HOUR_MS, what] += count
    return hours


async def tables(bench: Bench) -> Tally:
    """Count the rows of the tables one by one. Return the counts by minute."""
    tally: Tally = Counter()
    created = {row.seq: row.created_at for row in await bench.rows(events)}
    account_of = {}
    for row in await bench.rows(deliveries):
        account_of[row.event_seq, row.endpoint_seq] = row.account_seq
        if row.trigger != Trigger.TEST:
            key = (row.account_seq, row.endpoint_seq, created[row.event_seq] // MINUTE_MS)
            tally["deliveries", *key, None] += 1
            tally["status", *key, Status(row.status).text] += 1
    for row in await bench.rows(attempts):
        if row.trigger != Trigger.TEST:
            account = account_of[row.event_seq, row.endpoint_seq]
            key = (account, row.endpoint_seq, row.started_at // MINUTE_MS)
            tally["attempts", *key, None] += 1
            tally["outcome", *key, Outcome(row.outcome)] += 1
            tally["first", *key, None] += row.number == 1
            tally["first delivered", *key, None] += row.number == 1 and row.outcome == Outcome.DELIVERED
    return +tally


async def counted(bench: Bench, *, since: int = 0, minutes: bool = False) -> Tally:
    """Return the statistics of each endpoint, of each account and of all accounts, by hour or minute."""
    scopes = [Scope(account, endpoint) for endpoint, account in ACCOUNT_OF.items()]
    sums = [Scope(1, 0), Scope(2, 0), ALL_ACCOUNTS]
    found = await bench.database.read(lambda c: statistics.by_bucket(c, [*scopes, *sums], since=since, minutes=minutes))
    tally: Tally = Counter()
    for scope, hours in found.items():
        for at, each in hours:
            key = (*scope, at // (MINUTE_MS if minutes else HOUR_MS))
            assert min(each.deliveries, each.delivered, each.failed, each.held, each.cancelled) >= 0
            assert each.delivered + each.failed + each.held + each.cancelled <= each.deliveries
            assert sum(each.durations.values()) == each.attempts == sum(each.outcomes.values())
            tally["deliveries", *key, None] = each.deliveries
            for status in Status:
                tally["status", *key, status.text] = getattr(each, status.text)
            tally["attempts", *key, None] = each.attempts
            tally["first", *key, None] = each.first_attempts
            tally["first delivered", *key, None] = each.first_delivered
            for outcome, count in each.outcomes.items():
                tally["outcome", *key, outcome] = count
    return +tally


def with_sums(tally: Tally) -> Tally:
    """Return the counts of endpoints with totals for each account and for all accounts."""
    sums: Tally = Counter(tally)
    for (name, account, _, hour, what), count in tally.items():
        sums[name, account, 0, hour, what] += count
        sums[name, 0, 0, hour, what] += count
    return sums


class Machine:
    """Runs operations of the engine and of users in any order."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.database = bench.database
        self.random = random.Random(seed)
        self.now = NOW
        self.leased: list[LeasedDelivery] = []
        """Leases whose attempts can still be settled. Some have expired, and a few have already been settled once."""
        self.removed: Tally = Counter()
        """Counts of the rows that retention has deleted, with the same keys as the result of `tables`."""
        self.steps: list[Callable[[], Awaitable[object]]] = [
            self.accept, self.accept, self.lease, self.lease, self.settle, self.settle, self.settle, self.settle,
            self.release, self.reclaim, self.hold, self.drop, self.release_held, self.cancel_deleted, self.cancel,
            self.resend, self.replay, self.replay_more, self.pause_replay, self.test, self.count_during_operation,
            self.count_during_operation, self.delete_old, self.count_with_earlier_release,
        ]  # fmt: skip

    async def step(self) -> None:
        self.now += self.random.choice((0, 1, 1000, 60_000, 20 * 60_000))
        await self.random.choice(self.steps)()

    # ---- operations

    async def accept(self) -> None:
        new_deliveries = []
        account = self.random.choice((1, 1, 2))
        for endpoint, owner in ACCOUNT_OF.items():
            if owner == account and self.random.random() < 0.8:
                leased = NewDelivery(endpoint, Status.PENDING, self.now + 30_000, OWNER)
                due = NewDelivery(endpoint, Status.PENDING, self.now)
                new_deliveries.append(self.random.choice((leased, due, due, NewDelivery(endpoint, Status.HELD, None))))
        expires_at = self.random.choice((None, None, self.now + 3_600_000))
        event = self.bench.event(*new_deliveries, account=account, created_at=self.now, expires_at=expires_at)
        [stored] = await self.bench.append(event)
        self.leased += [
            LeasedDelivery(
                stored.seq, each.endpoint_seq, 1, self.now + 30_000, 0, 0, Trigger.SCHEDULE, event.id, 1, self.now,
                expires_at, event.body,
            )
            for each in new_deliveries if each.lease_owner
        ]  # fmt: skip

    async def lease(self) -> None:
        endpoint = self.random.choice(list(ACCOUNT_OF))
        self.leased += await self.bench.lease(endpoint, 3, now=self.now, until=self.now + 30_000)

    async def settle(self) -> None:
        """Settle some leases in one batch. A few are settled twice or after they have expired."""
        self.random.shuffle(self.leased)
        batch = {}
        for leased in self.leased[: self.random.randint(1, 4)]:
            batch[leased.event_seq, leased.endpoint_seq] = self.random_settlement(leased)
            if self.random.random() < 0.9:
                self.leased.remove(leased)
        await self.database.settle(list(batch.values()))

    def random_settlement(self, leased: LeasedDelivery) -> Settlement:
        status = self.random.choice(list(Status))
        before = previous_state(leased)
        if self.random.random() < 0.2:
            if before is not None:
                status = before.status
            elif status is Status.DELIVERED:
                status = Status.CANCELLED
            return self.ended(leased, status)._replace(attempt=None, attempts_made=leased.attempts_made)
        if status is not Status.DELIVERED and before is not None:
            status = before.status
            failed = self.ended(leased, Status.FAILED)
            return failed._replace(status=status, completed_at=None if status in (0, 3) else self.now)
        return self.ended(leased, status)

    def ended(self, leased: LeasedDelivery, status: Status) -> Settlement:
        open_ = status in (Status.PENDING, Status.HELD)
        due_at = self.now + 5000 if status is Status.PENDING else None
        found = settled(leased, status, due_at)
        assert found.attempt is not None
        attempt = found.attempt._replace(
            trigger=leased.trigger, started_at=self.now, duration_us=self.random.randint(0, 20_000_000)
        )
        reason = FailedReason.EXHAUSTED if status is Status.FAILED else None
        return found._replace(attempt=attempt, completed_at=None if open_ else self.now, failed_reason=reason)

    async def release(self) -> None:
        if self.leased:
            leased = self.leased.pop()
            await self.database.release([(leased.event_seq, leased.endpoint_seq, leased.fence)], now=self.now)

    async def reclaim(self) -> None:
        await self.database.reclaim(now=self.now)

    async def hold(self) -> None:
        endpoint = self.random.choice(list(ACCOUNT_OF))

        def hold(connection: sa.Connection) -> None:
            endpoint_store.deactivate(connection, endpoint, EndpointState.PAUSED, None, now=self.now)
            endpoint_backlog.hold_waiting(connection, endpoint, now=self.now, limit=5)
            endpoint_store.enable(connection, endpoint, HeldAction.SEND, now=self.now)

        await self.database.write(hold)

    async def drop(self) -> None:
        endpoint = self.random.choice(list(ACCOUNT_OF))
        await self.database.write(
            lambda c: endpoint_backlog.cancel_held(c, endpoint, through=10**9, now=self.now, limit=2)
        )

    async def release_held(self) -> None:
        await self.database.release_held([HeldRequest(endpoint, 0, 3) for endpoint in ACCOUNT_OF], now=self.now)

    async def cancel_deleted(self) -> None:
        await self.database.write(lambda c: endpoint_backlog.cancel_waiting(c, DELETED_ENDPOINT, now=self.now, limit=3))

    async def cancel(self) -> None:
        row = await self.any_delivery()
        if row is not None:
            await self.unless_conflict(
                lambda c: endpoint_backlog.cancel(c, row.event_seq, row.endpoint_seq, fence=row.fence, now=self.now)
            )

    async def resend(self) -> None:
        row = await self.any_delivery()
        if row is not None:
            found = await self.unless_conflict(
                lambda c: delivery_store.start_resend(
                    c, row.event_seq, row.endpoint_seq, fence=row.fence, now=self.now,
                    lease_until=self.now + 30_000, process_id=OWNER,
                )
            )  # fmt: skip
            if found is not None:
                self.leased.append(found)

    async def replay(self) -> None:
        endpoint = self.random.choice((1, 2))
        statuses = (Status.FAILED, Status.CANCELLED, Status.DELIVERED)
        missing = self.random.choice((None, MissingEvents(1, (1,))))
        choice = ReplaySelection(endpoint, statuses, (), None, None, self.now, missing=missing)
        last = max((row.seq for row in await self.bench.rows(events)), default=0)
        new = NewReplay(self.random.randbytes(16), 1, choice, (), 50, 0, last, 1, last)
        await self.unless_conflict(lambda c: replays.create(c, new))
        await self.replay_more()

    async def replay_more(self) -> None:
        for job in await self.running():
            ahead = await self.database.read_replay_batch(
                job, first=job.next_event_seq, rows=20, limit=5, body_bytes_max=9999
            )
            lease = ReplayLease(self.now, self.now + 30_000, OWNER, limit=3, outstanding_max=9, body_bytes_max=9999)
            released = await self.database.release_replay(job.seq, job.selection, ahead, lease)
            self.leased += released.leased

    async def pause_replay(self) -> None:
        for job in await self.running():
            state = self.random.choice((ReplayState.PAUSED, ReplayState.CANCELLED))
            await self.unless_conflict(lambda c: replays.change_state(c, None, job.id, state, now=self.now))  # noqa: B023

    async def running(self) -> list[Replay]:
        return [each for each in await self.database.read(replays.unfinished) if each.state is ReplayState.RUNNING]

    async def test(self) -> None:
        endpoint = self.random.choice((1, 2))
        event = self.bench.event(test_deliveries.new_delivery(endpoint), created_at=self.now)
        test_delivery = await self.database.append_then(
            event, lambda c, seq: test_deliveries.begin(c, event, seq, lease_until=self.now + 30_000, process_id=OWNER)
        )
        self.leased.append(test_delivery)

    async def count_during_operation(self) -> None:
        """Read a batch of random size, and save it after up to two other operations. Sometimes, it is never saved."""
        rows, changes = self.random.choice((1, 2, 5, 1000)), self.random.choice((1, 3, 1000))
        found = await read_batch(self.bench, now=self.now, rows=rows, changes=changes)
        for _ in range(self.random.randint(0, 2)):
            await self.random.choice((self.accept, self.settle, self.lease, self.hold, self.resend, self.cancel))()
        if found is not None and self.random.random() < 0.9:
            assert await self.database.write(lambda c: statistics.save(c, found))
            assert not await self.database.write(lambda c: statistics.save(c, found))

    async def count_with_earlier_release(self) -> None:
        """Let an earlier release count a batch: it does not update the totals, and deletes the value TOTALS_COUNTED."""

        def count(connection: sa.Connection) -> None:
            stored = server_values.get_all(connection, statistics.PREFIX)
            stored.pop(statistics.TOTALS_COUNTED, None)
            stored[statistics.BATCHES_COUNTED] = stored.get(statistics.BATCHES_COUNTED, 0) + 1
            server_values.replace(connection, statistics.PREFIX, stored)

        await self.database.write(count)
        await self.database.write(lambda c: c.execute(sa.update(delivery_totals).values(pending=99, held=99)))
        assert await self.database.read(totals.read) is None

    async def delete_old(self) -> None:
        before = self.now - 30 * 60_000
        stored_before = await tables(self.bench)
        expired = await self.database.read(lambda c: cleanup.find_expired(c, EVENTS, before=before, after=None))
        await self.database.write(lambda c: cleanup.delete_expired(c, EVENTS, expired.keys, before=before))
        self.removed += stored_before - await tables(self.bench)

    # ---- choices

    async def any_delivery(self) -> sa.Row[tuple[object, ...]] | None:
        rows = await self.bench.rows(deliveries)
        return self.random.choice(rows) if rows else None

    async def unless_conflict(self, body: Callable[[sa.Connection], object]) -> LeasedDelivery | None:
        try:
            result = await self.database.write(body)
        except Conflict:
            return None
        return result if isinstance(result, LeasedDelivery) else None


@pytest.mark.parametrize("seed", range(8))
async def test_statistics_match_the_tables(bench: Bench, seed: int) -> None:
    machine = Machine(bench, seed)
    statuses = set()
    for _ in range(12):
        for _ in range(25):
            await machine.step()
        rows, changes = machine.random.choice((1, 7, 1000)), machine.random.choice((1, 7, 1000))
        await count_all(bench, now=machine.now, rows=rows, changes=changes)
        assert await bench.rows(delivery_changes) == []
        exact = await tables(bench) + machine.removed
        assert await counted(bench) == with_sums(by_hour(exact))
        recent = machine.now // MINUTE_MS - 60
        last_hour = Counter({key: count for key, count in exact.items() if key[3] >= recent})
        assert await counted(bench, since=recent * MINUTE_MS, minutes=True) == with_sums(last_hour)
        assert await bench.database.read(totals.read) == await open_deliveries(bench)
        statuses |= {what for name, *_, what in exact if name == "status"}
    # The simulation is meaningful only if retention deleted rows and deliveries had every status.
    assert machine.removed
    assert statuses == {status.text for status in Status}


async def test_statistics_start_with_the_migration(tmp_path: Path) -> None:
    """Earlier deliveries are not counted, but all later attempts are."""
    path = tmp_path / "uplift.db"
    create_file(path, "0004")
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for seq, status in ((1, Status.HELD), (2, Status.PENDING), (3, Status.DELIVERED)):
            raw.execute("INSERT INTO events VALUES (?, ?, 1, 1, ?, NULL, x'')", (seq, bytes([seq]), NOW))
            raw.execute(
                "INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, due_at) VALUES (?, 1, 1, ?, ?)",
                (seq, status, NOW),
            )
        raw.execute(
            "INSERT INTO attempts (event_seq, endpoint_seq, number, trigger, started_at, duration_us, outcome,"
            " request_head, body_truncated) VALUES (3, 1, 1, 0, ?, 5, 0, x'', 0)",
            (NOW,),
        )
    async with sqlite_bench(tmp_path, SqliteDatabase) as bench:
        assert await bench.database.read(totals.read) is None
        await count_all(bench)
        assert await bench.database.read(totals.read) == {}
        await bench.database.settle([settled(each) for each in await bench.lease(1)])
        await bench.database.release_held([HeldRequest(1, 0, 10)], now=NOW)
        await bench.database.settle([settled(each, Status.FAILED) for each in await bench.lease(1)])
        await count_all(bench)
        found = await read_totals(bench)
        assert (found.deliveries, found.delivered, found.failed, found.held) == (0, 0, 0, 0)
        assert (found.attempts, found.first_attempts, found.first_delivered) == (2, 2, 1)
        await bench.append(bench.event(due(1), NewDelivery(2, Status.HELD, None)))
        await count_all(bench)
        found = await read_totals(bench)
        assert (found.deliveries, found.pending, found.held, found.attempts) == (2, 1, 1, 2)
        assert await bench.database.read(totals.read) == {1: (1, 0), 2: (0, 1)}


async def test_a_change_after_the_deletion_of_its_hour_creates_no_row(bench: Bench) -> None:
    """A new row for the deleted hour would have negative counts."""
    await bench.append(bench.event(NewDelivery(1, Status.HELD, None)))
    await count_all(bench)
    await bench.database.write(lambda c: c.execute(sa.delete(rollups)))
    await bench.database.write(lambda c: endpoint_backlog.cancel_held(c, 1, through=9, now=NOW, limit=9))
    assert await count_all(bench) == 1
    assert await bench.rows(rollups) == await bench.rows(delivery_changes) == []
    assert await bench.database.read(totals.read) == {}


async def test_minutes_are_deleted_after_the_last_period_that_shows_them(bench: Bench) -> None:
    await bench.append(bench.event(due(1), created_at=NOW - 2 * HOUR_MS), bench.event(due(1)))
    await count_all(bench)
    assert {row.at for row in await bench.rows(minute_rollups)} == {NOW - NOW % MINUTE_MS}
    await bench.append(bench.event(due(2), created_at=NOW + 2 * HOUR_MS))
    await count_all(bench, now=NOW + 2 * HOUR_MS)
    assert {row.endpoint_seq for row in await bench.rows(minute_rollups)} == {0, 2}


async def test_totals_of_a_new_database_are_known(bench: Bench) -> None:
    """Even before the first count, the totals of a new database are zero, not unknown."""
    assert await bench.database.read(totals.read) == {}
    await bench.append(bench.event(due(1)))
    await count_all(bench)
    assert await bench.database.read(totals.read) == {1: (1, 0)}


async def test_totals_can_be_read_for_some_endpoints(bench: Bench) -> None:
    await bench.append(bench.event(due(1), account=1), bench.event(due(3), account=2))
    await count_all(bench)
    assert await bench.database.read(lambda c: totals.read(c, [3])) == {3: (1, 0)}


async def test_durations_are_counted_in_the_class_between_its_bounds(bench: Bench) -> None:
    """The statement that counts durations and the code that reads them must use the same bounds."""
    durations = [0, 999, 1000, *DURATION_BOUNDS_US[1:], *(bound - 1 for bound in DURATION_BOUNDS_US), 10**9]
    await bench.append(*(bench.event(stored_leased(1)) for _ in durations))
    leased = LeasedDelivery(0, 1, 1, 0, 0, 0, Trigger.SCHEDULE, b"", 1, NOW, None, b"")
    batch = [settled(structs.replace(leased, event_seq=seq)) for seq, _ in enumerate(durations, 1)]
    timed = zip(batch, durations, strict=True)
    await bench.database.settle(
        [each._replace(attempt=each.attempt and each.attempt._replace(duration_us=us)) for each, us in timed]
    )
    await count_all(bench)
    expected = Counter(bisect_right(DURATION_BOUNDS_US, us) for us in durations)
    assert (await read_totals(bench)).durations == expected


async def test_a_batch_is_written_once(bench: Bench) -> None:
    await bench.append(bench.event(due(1)))
    found = await read_batch(bench, rows=9, changes=9)
    assert found is not None
    assert [await bench.database.write(lambda c: statistics.save(c, found)) for _ in range(3)] == [True, False, False]
    assert (await read_totals(bench)).deliveries == 1
    assert await read_batch(bench, rows=9, changes=9) is None


async def test_only_rare_status_changes_are_recorded(bench: Bench) -> None:
    """Accepting, retrying and delivering events records no changes, so these frequent operations cost nothing more."""
    await bench.append(bench.event(due(1)), bench.event(due(1)), bench.event(stored_leased(2)))
    first = await bench.lease(1)
    await bench.database.settle([settled(first[0]), settled(first[1], Status.PENDING, NOW)])
    await bench.database.settle([settled(each) for each in await bench.lease(1)])
    assert await bench.rows(delivery_changes) == []


async def read_totals(bench: Bench) -> Statistics:
    """Return the statistics of all accounts."""
    found = await bench.database.read(lambda c: statistics.by_bucket(c, [ALL_ACCOUNTS], since=0))
    return total(each for _, each in found[ALL_ACCOUNTS])
