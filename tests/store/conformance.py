"""The conformance suite of the store's contract: what every engine must do, checked through the contract alone.

Each check takes a `Bench`: an open, empty database and what it needs to be opened again. An engine joins by giving a
harness (see test_sqlite.py); deliberately broken stores show that the checks catch what they are for (test_broken.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import sqlalchemy as sa

from uplift_server.core import envelope
from uplift_server.core.deliveries import FailedReason, Status, Trigger
from uplift_server.core.ids import uuid7, uuid_text
from uplift_server.core.outcomes import Outcome
from uplift_server.store import trials, waiting
from uplift_server.store.contract import Database
from uplift_server.store.errors import Conflict
from uplift_server.store.hot_records import (
    Appended,
    AttemptRow,
    HealthRow,
    HeldWish,
    IdempotencyConflict,
    LeasedDelivery,
    LeaseWish,
    NewDelivery,
    NewEvent,
    Released,
    Settlement,
)
from uplift_server.store.schema import attempts, deliveries, endpoints, events

NOW = 1_764_000_000_000
LEASE_UNTIL = NOW + 30_000
OWNER = 7
ENOUGH_BYTES = 1 << 30


@dataclass
class Bench:
    """A database under test."""

    database: Database
    reopen: Callable[[], Awaitable[None]]
    """Close the database and open it again, as a new process would."""
    _count: int = 0

    def event(
        self,
        *owed: NewDelivery,
        data: bytes = b'{"n":1}',
        key: str | None = None,
        chosen_id: bytes | None = None,
        account: int = 1,
        created_at: int = NOW,
        expires_at: int | None = None,
    ) -> NewEvent:
        """A new event owed to some endpoints."""
        self._count += 1
        event_id = chosen_id or uuid7(created_at, self._count.to_bytes(10, "big"))
        body = envelope.build(uuid_text(event_id), "a.b", "01/01/2022", created_at, data)
        return NewEvent(event_id, account, 1, created_at, expires_at, body, owed, key, chosen_id is not None, data)

    async def append(self, *events: NewEvent) -> list[Appended]:
        """Append one group, which must be stored."""
        (result,) = await self.database.append([events])
        assert isinstance(result, list)
        return result

    async def lease(
        self, endpoint: int, limit: int = 100, *, now: int = NOW, until: int = LEASE_UNTIL, owner: int = OWNER
    ) -> list[LeasedDelivery]:
        """Lease one endpoint's due deliveries."""
        return await self.database.lease_due(
            [LeaseWish(endpoint, limit)], now=now, lease_until=until, owner=owner, body_bytes_max=ENOUGH_BYTES
        )

    async def rows(self, table: sa.Table) -> list[sa.Row[tuple[object, ...]]]:
        """All rows of a table, in the order of its key."""
        return await self.database.read(
            lambda c: list(c.execute(sa.select(table).order_by(*table.primary_key.columns)).all())
        )

    async def count(self, table: sa.Table) -> int:
        """How many rows a table has."""
        return len(await self.rows(table))


def due(endpoint: int, at: int = NOW) -> NewDelivery:
    """A delivery that waits until an instant."""
    return NewDelivery(endpoint, Status.PENDING, at)


def born_leased(endpoint: int, until: int = LEASE_UNTIL) -> NewDelivery:
    """A delivery stored under a lease."""
    return NewDelivery(endpoint, Status.PENDING, until, OWNER)


def settled(leased: LeasedDelivery, status: Status = Status.DELIVERED, due_at: int | None = None) -> Settlement:
    """What one more attempt of a leased delivery decided."""
    number = leased.attempts_made + 1
    outcome = Outcome.DELIVERED if status is Status.DELIVERED else Outcome.SERVER_ERROR
    attempt = AttemptRow(
        leased.event_seq, leased.endpoint_seq, number, Trigger.SCHEDULE, NOW, 1500, None, 1, None, 2, 200, outcome,
        None, None, "127.0.0.1:80", b"POST / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\x00\xff", False,
    )  # fmt: skip
    return Settlement(
        leased.event_seq,
        leased.endpoint_seq,
        leased.fence,
        status,
        due_at,
        number,
        number,
        outcome,
        FailedReason.EXHAUSTED if status is Status.FAILED else None,
        None if status is Status.PENDING else NOW,
        attempt,
    )


# ---- append


async def an_event_is_stored_with_its_deliveries(bench: Bench) -> None:
    event = bench.event(due(1), born_leased(2), NewDelivery(3, Status.HELD, None))
    (stored,) = await bench.append(event)
    assert (stored.id, stored.created_at, stored.duplicate) == (event.id, NOW, False)
    (row,) = await bench.rows(events)
    assert (row.seq, row.id, row.body, row.account_seq) == (stored.seq, event.id, event.body, 1)
    found = [(r.event_seq, r.endpoint_seq, r.status, r.due_at, r.fence) for r in await bench.rows(deliveries)]
    assert found == [
        (stored.seq, 1, Status.PENDING, NOW, 0),
        (stored.seq, 2, Status.PENDING, LEASE_UNTIL, 1),
        (stored.seq, 3, Status.HELD, None, 0),
    ]


async def what_was_appended_survives_reopening(bench: Bench) -> None:
    (stored,) = await bench.append(bench.event(due(1)))
    await bench.reopen()
    (row,) = await bench.rows(events)
    assert row.seq == stored.seq
    (later,) = await bench.append(bench.event())
    assert later.seq > stored.seq
    assert [d.event_seq for d in await bench.lease(1)] == [stored.seq]


async def groups_get_numbers_in_order(bench: Bench) -> None:
    groups = [[bench.event(), bench.event()], [bench.event()], []]
    results = await bench.database.append(groups)
    seqs = [appended.seq for result in results if isinstance(result, list) for appended in result]
    assert seqs == sorted(set(seqs))
    assert [len(result) for result in results if isinstance(result, list)] == [2, 1, 0]


async def a_repeated_key_gives_the_stored_event(bench: Bench) -> None:
    (first,) = await bench.append(bench.event(due(1), key="k"))
    await bench.reopen()
    (again,) = await bench.append(bench.event(due(1), key="k", created_at=NOW + 5))
    assert (again.seq, again.id, again.created_at, again.duplicate) == (first.seq, first.id, NOW, True)
    assert await bench.count(events) == 1
    assert await bench.count(deliveries) == 1


async def a_repeat_within_one_commit_is_found(bench: Bench) -> None:
    same = [bench.event(due(1), key="k") for _ in range(3)]
    results = await bench.database.append([[same[0]], [same[1], same[2]]])
    appended = [item for result in results if isinstance(result, list) for item in result]
    assert [item.duplicate for item in appended] == [False, True, True]
    assert len({item.id for item in appended}) == 1
    assert await bench.count(events) == 1


async def concurrent_repeats_give_one_event(bench: Bench) -> None:
    results = await asyncio.gather(*(bench.append(bench.event(due(1), key="k")) for _ in range(20)))
    assert sorted(appended.duplicate for (appended,) in results) == [False] + [True] * 19
    assert len({appended.id for (appended,) in results}) == 1
    assert await bench.count(deliveries) == 1


async def a_chosen_id_works_like_a_key(bench: Bench) -> None:
    chosen = bytes(range(16))
    (first,) = await bench.append(bench.event(chosen_id=chosen))
    (again,) = await bench.append(bench.event(chosen_id=chosen))
    assert (first.id, again.seq, again.duplicate) == (chosen, first.seq, True)
    (other,) = await bench.append(bench.event(chosen_id=chosen, account=2))
    assert not other.duplicate
    (refused,) = await bench.database.append([[bench.event(chosen_id=chosen, data=b'{"n":2}')]])
    assert refused == IdempotencyConflict(0, "id", chosen)


async def keys_belong_to_accounts(bench: Bench) -> None:
    (one,) = await bench.append(bench.event(key="k"))
    (two,) = await bench.append(bench.event(key="k", account=2))
    assert not two.duplicate
    assert one.id != two.id


async def other_content_under_a_key_is_refused_whole(bench: Bench) -> None:
    (first,) = await bench.append(bench.event(key="k"))
    group = [bench.event(due(1)), bench.event(due(1), key="k", data=b'{"n":2}'), bench.event(due(1), key="new")]
    results = await bench.database.append([group, [bench.event(due(1))]])
    assert results[0] == IdempotencyConflict(1, "idempotency_key", first.id)
    assert isinstance(results[1], list)
    assert await bench.count(events) == 2
    assert await bench.count(deliveries) == 1
    (fresh,) = await bench.append(bench.event(key="new"))
    assert not fresh.duplicate


async def other_expiry_or_type_is_other_content(bench: Bench) -> None:
    await bench.append(bench.event(key="k"))
    for change in ({"expires_at": NOW + 1}, {"type_seq": 2}):
        (refused,) = await bench.database.append([[bench.event(key="k")._replace(**change)]])
        assert isinstance(refused, IdempotencyConflict)


# ---- lease_due, due_endpoints


async def nothing_is_leased_before_it_is_due(bench: Bench) -> None:
    await bench.append(bench.event(due(1, NOW + 1)))
    assert await bench.lease(1, now=NOW) == []
    assert len(await bench.lease(1, now=NOW + 1)) == 1


async def a_lease_tells_what_an_attempt_needs(bench: Bench) -> None:
    event = bench.event(due(1))._replace(expires_at=NOW + 60_000)
    (stored,) = await bench.append(event)
    (leased,) = await bench.lease(1)
    assert replace(leased) == LeasedDelivery(
        event_seq=stored.seq,
        endpoint_seq=1,
        fence=1,
        lease_until=LEASE_UNTIL,
        attempts_made=0,
        scheduled_attempts=0,
        trigger=Trigger.SCHEDULE,
        event_id=event.id,
        type_seq=1,
        created_at=NOW,
        expires_at=NOW + 60_000,
        body=event.body,
    )


async def a_leased_delivery_is_not_leased_again(bench: Bench) -> None:
    await bench.append(bench.event(due(1)))
    assert len(await bench.lease(1)) == 1
    assert await bench.lease(1, now=LEASE_UNTIL + 1) == []
    assert await bench.database.due_endpoints() == []


async def only_the_endpoint_asked_for_is_leased_earliest_first_and_within_the_limit(bench: Bench) -> None:
    for at in (NOW - 1, NOW - 3, NOW - 2):
        await bench.append(bench.event(due(1, at), due(2, at)))
    leased = await bench.lease(1, 2)
    assert [d.endpoint_seq for d in leased] == [1, 1]
    assert [d.event_seq for d in leased] == [2, 3]
    assert len(await bench.lease(1)) == 1
    assert len(await bench.lease(2)) == 3


async def wishes_are_served_together(bench: Bench) -> None:
    for _ in range(3):
        await bench.append(bench.event(due(1), due(2)))
    leased = await bench.database.lease_due(
        [LeaseWish(1, 2), LeaseWish(2, 1)], now=NOW, lease_until=LEASE_UNTIL, owner=OWNER, body_bytes_max=ENOUGH_BYTES
    )
    assert sorted(d.endpoint_seq for d in leased) == [1, 1, 2]


async def bodies_are_bounded(bench: Bench) -> None:
    for _ in range(5):
        await bench.append(bench.event(due(1), data=b'{"pad":"%b"}' % (b"x" * 1000)))
    leased = await bench.database.lease_due(
        [LeaseWish(1, 5)], now=NOW, lease_until=LEASE_UNTIL, owner=OWNER, body_bytes_max=1500
    )
    assert len(leased) == 2
    assert len(await bench.lease(1)) == 3


async def held_and_finished_deliveries_are_never_leased(bench: Bench) -> None:
    await bench.append(bench.event(*(NewDelivery(1, status, None) for status in [Status.HELD])))
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1)
    await bench.database.settle([settled(leased)])
    assert await bench.lease(1, now=NOW + 10**9) == []


async def endpoints_with_waiting_deliveries_are_listed(bench: Bench) -> None:
    for endpoint in (5, 3, 9):
        await bench.append(bench.event(due(endpoint, NOW + endpoint)))
        await bench.append(bench.event(due(endpoint, NOW + 100)))
    await bench.append(bench.event(born_leased(4)))
    found = await bench.database.due_endpoints()
    assert found == [(3, NOW + 3), (5, NOW + 5), (9, NOW + 9)]
    assert await bench.database.due_endpoints(after=3, limit=1) == [(5, NOW + 5)]


# ---- settle


async def a_settled_delivery_is_done_and_its_attempt_kept(bench: Bench) -> None:
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1)
    assert await bench.database.settle([settled(leased)]) == frozenset()
    (row,) = await bench.rows(deliveries)
    assert (row.status, row.due_at, row.attempts_made, row.last_outcome, row.completed_at) == (
        Status.DELIVERED,
        None,
        1,
        Outcome.DELIVERED,
        NOW,
    )
    (attempt,) = await bench.rows(attempts)
    assert (attempt.number, attempt.status_code, attempt.response_body) == (1, 200, b"\x00\xff")
    assert (attempt.dns_ms, attempt.connect_ms, attempt.tls_ms, attempt.first_byte_ms) == (None, 1, None, 2)


async def a_born_leased_delivery_settles_with_fence_one(bench: Bench) -> None:
    (stored,) = await bench.append(bench.event(born_leased(1)))
    assert await bench.lease(1, now=LEASE_UNTIL + 1) == []
    leased = LeasedDelivery(stored.seq, 1, 1, LEASE_UNTIL, 0, 0, Trigger.SCHEDULE, stored.id, 1, NOW, None, b"")
    assert await bench.database.settle([settled(leased)]) == frozenset()
    (row,) = await bench.rows(deliveries)
    assert row.status == Status.DELIVERED


async def a_retry_is_due_at_its_instant(bench: Bench) -> None:
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1)
    await bench.database.settle([settled(leased, Status.PENDING, NOW + 5000)])
    assert await bench.database.due_endpoints() == [(1, NOW + 5000)]
    assert await bench.lease(1, now=NOW + 4999) == []
    (again,) = await bench.lease(1, now=NOW + 5000)
    assert (again.attempts_made, again.scheduled_attempts, again.fence) == (1, 1, 2)
    await bench.database.settle([settled(again, Status.FAILED)])
    (row,) = await bench.rows(deliveries)
    assert (row.status, row.failed_reason, row.attempts_made) == (Status.FAILED, FailedReason.EXHAUSTED, 2)
    assert [a.number for a in await bench.rows(attempts)] == [1, 2]


async def a_lost_lease_writes_nothing_and_the_rest_does(bench: Bench) -> None:
    for _ in range(3):
        await bench.append(bench.event(due(1)))
    leased = await bench.lease(1)
    await bench.database.reclaim(now=LEASE_UNTIL)
    (newer,) = await bench.lease(1, 1, now=LEASE_UNTIL, until=LEASE_UNTIL + 30_000, owner=OWNER + 1)
    stale = next(d for d in leased if d.event_seq == newer.event_seq)
    await bench.lease(1, now=LEASE_UNTIL, until=LEASE_UNTIL + 30_000)
    current = [replace(d, fence=d.fence + 1) for d in leased if d is not stale]
    lost = await bench.database.settle([settled(current[0]), settled(stale), settled(current[1])])
    assert lost == frozenset({(stale.event_seq, 1)})
    status = {row.event_seq: row.status for row in await bench.rows(deliveries)}
    assert status[stale.event_seq] == Status.PENDING
    assert sorted(status.values()) == [Status.PENDING, Status.DELIVERED, Status.DELIVERED]
    assert stale.event_seq not in {a.event_seq for a in await bench.rows(attempts)}
    assert await bench.database.settle([settled(newer)]) == frozenset()


async def settling_twice_writes_once(bench: Bench) -> None:
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1)
    settlement = settled(leased, Status.PENDING, NOW + 5000)
    await bench.database.settle([settlement])
    assert await bench.database.settle([settlement]) == frozenset({(leased.event_seq, 1)})
    assert await bench.count(attempts) == 1


async def a_late_settlement_counts_while_nobody_has_leased_again(bench: Bench) -> None:
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1)
    await bench.database.reclaim(now=LEASE_UNTIL)
    assert await bench.database.settle([settled(leased)]) == frozenset()
    (row,) = await bench.rows(deliveries)
    assert (row.status, row.due_at, row.lease_owner) == (Status.DELIVERED, None, 0)


async def a_late_settlement_counts_though_the_delivery_was_held_meanwhile(bench: Bench) -> None:
    """The database was away for longer than a lease, and its endpoint was paused: it was delivered all the same."""
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1, until=NOW + 10)
    assert await bench.database.reclaim(now=NOW + 20) == 1
    assert await bench.database.write(lambda c: waiting.hold_waiting(c, 1, now=NOW + 20, limit=10)) == 1
    assert await bench.database.settle([settled(leased)]) == frozenset()
    (row,) = await bench.rows(deliveries)
    assert (row.status, row.attempts_made) == (Status.DELIVERED, 1)


async def large_batches_settle_whole(bench: Bench) -> None:
    groups = [[bench.event(due(1))] for _ in range(150)]
    await bench.database.append(groups)
    leased = await bench.lease(1, 200)
    assert len(leased) == 150
    assert await bench.database.settle([settled(d) for d in leased]) == frozenset()
    assert {row.status for row in await bench.rows(deliveries)} == {Status.DELIVERED}
    assert await bench.count(attempts) == 150


async def health_is_written_with_the_batch(bench: Bench) -> None:
    values = {"seq": 1, "id": b"e" * 16, "account_seq": 1, "url": "https://x", "description": "", "event_types": "[]"}
    values |= {"secret": b"s", "secret_created_at": NOW, "state": 0, "created_at": NOW, "updated_at": NOW}
    await bench.database.write(lambda c: c.execute(sa.insert(endpoints).values(**values)).rowcount)
    await bench.database.settle([], [HealthRow(1, 3, NOW - 5, NOW - 9, NOW, Outcome.TIMEOUT)])
    (row,) = await bench.rows(endpoints)
    assert (row.consecutive_failures, row.failing_since, row.last_success_at, row.last_failure_at) == (
        3,
        NOW - 5,
        NOW - 9,
        NOW,
    )
    assert row.last_outcome == Outcome.TIMEOUT


# ---- release, reclaim


async def released_leases_are_due_again(bench: Bench) -> None:
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1)
    await bench.database.release([(leased.event_seq, 1, leased.fence)], now=NOW + 1)
    (again,) = await bench.lease(1, now=NOW + 1)
    assert again.fence == leased.fence + 1
    # The first holder's release comes once more, late: it is not its lease any more.
    await bench.database.release([(leased.event_seq, 1, leased.fence)], now=NOW + 1)
    assert await bench.lease(1, now=NOW + 1) == []


async def what_comes_back_does_not_lose_its_turn(bench: Bench) -> None:
    """Both ways of coming back, and between them what was never leased."""
    await bench.append(*(bench.event(due(1)) for _ in range(6)))
    given_back, cut_off = await bench.lease(1, 1), await bench.lease(1, 2, until=NOW + 10)
    await bench.database.release([(each.event_seq, 1, each.fence) for each in given_back], now=NOW + 20)
    assert await bench.database.reclaim(now=NOW + 20) == len(cut_off) == 2
    assert [each.event_seq for each in await bench.lease(1, now=NOW + 20)] == [1, 2, 3, 4, 5, 6]


def held(endpoint: int) -> NewDelivery:
    """A delivery to an endpoint that is off."""
    return NewDelivery(endpoint, Status.HELD, None)


async def held_deliveries_are_released_in_the_order_of_their_events(bench: Bench) -> None:
    stored = await bench.append(*(bench.event(held(1), held(2)) for _ in range(4)))
    wishes = [HeldWish(1, 0, 3), HeldWish(2, stored[2].seq, 3)]
    assert await bench.database.release_held(wishes, now=NOW) == [Released(3, 0, False), Released(1, 0, False)]
    assert [d.event_seq for d in await bench.lease(1)] == [each.seq for each in stored[:3]]
    assert [d.event_seq for d in await bench.lease(2)] == [stored[3].seq]
    assert await bench.database.release_held([HeldWish(1, 0, 3)], now=NOW + 1) == [Released(1, 0, False)]
    assert await bench.lease(1, now=NOW) == []
    assert [(d.event_seq, d.attempts_made) for d in await bench.lease(1, now=NOW + 1)] == [(stored[3].seq, 0)]
    assert await bench.database.release_held([HeldWish(1, 0, 3)], now=NOW + 1) == [Released(0, 0, False)]


async def nothing_is_released_while_something_due_waits(bench: Bench) -> None:
    await bench.append(bench.event(held(1), held(2), held(3)), bench.event(due(1, NOW + 1), due(2), born_leased(3)))
    wishes = [HeldWish(endpoint, 0, 9) for endpoint in (1, 2, 3)]
    results = await bench.database.release_held(wishes, now=NOW)
    assert results == [Released(1, 0, False), Released(0, 0, True), Released(1, 0, False)]


async def what_has_expired_is_not_released_but_fails(bench: Bench) -> None:
    ends = [NOW, NOW + 1, None]
    await bench.append(*(bench.event(held(1), expires_at=end) for end in ends))
    assert await bench.database.release_held([HeldWish(1, 0, 9)], now=NOW) == [Released(2, 1, False)]
    rows = await bench.rows(deliveries)
    assert [(r.status, r.failed_reason, r.completed_at) for r in rows] == [
        (Status.FAILED, FailedReason.EXPIRED, NOW),
        (Status.PENDING, None, None),
        (Status.PENDING, None, None),
    ]


async def only_ended_leases_are_reclaimed(bench: Bench) -> None:
    await bench.append(bench.event(due(1), due(2)))
    await bench.lease(1, until=NOW + 10)
    await bench.lease(2, until=NOW + 20)
    assert await bench.database.reclaim(now=NOW + 9) == 0
    assert await bench.database.reclaim(now=NOW + 10) == 1
    assert [d.endpoint_seq for d in await bench.lease(1, now=NOW + 10)] == [1]
    assert await bench.lease(2, now=NOW + 10) == []


async def an_owner_reclaims_its_own_after_a_crash(bench: Bench) -> None:
    for _ in range(3):
        await bench.append(bench.event(born_leased(1), due(2)))
    await bench.lease(2, owner=OWNER + 1)
    await bench.reopen()
    assert await bench.database.reclaim(now=NOW, owner=OWNER, limit=2) == 2
    assert await bench.database.reclaim(now=NOW, owner=OWNER, limit=2) == 1
    assert await bench.database.reclaim(now=NOW, owner=OWNER, limit=2) == 0
    assert len(await bench.lease(1)) == 3
    assert await bench.lease(2) == []


# ---- read, write


async def a_refused_write_is_undone_alone(bench: Bench) -> None:
    def refused(connection: sa.Connection) -> None:
        connection.execute(sa.update(events).values(type_seq=99))
        raise Conflict("no")

    await bench.append(bench.event())
    kept, failed = await asyncio.gather(
        bench.append(bench.event()), bench.database.write(refused), return_exceptions=True
    )
    assert isinstance(kept, list)
    assert isinstance(failed, Conflict)
    assert [row.type_seq for row in await bench.rows(events)] == [1, 1]


async def a_defect_in_one_write_leaves_others_alone(bench: Bench) -> None:
    def defective(connection: sa.Connection) -> None:
        connection.execute(sa.update(events).values(type_seq=99))
        raise ZeroDivisionError

    await bench.append(bench.event())
    results = await asyncio.gather(
        bench.append(bench.event()),
        bench.database.write(defective),
        bench.append(bench.event()),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [list, ZeroDivisionError, list]
    assert [row.type_seq for row in await bench.rows(events)] == [1, 1, 1]


async def events_owed_by_a_write_are_stored_with_it_or_not_at_all(bench: Bench) -> None:
    await bench.append(bench.event())
    owed = [bench.event(due(1))]

    def changed(connection: sa.Connection) -> tuple[str, list[NewEvent]]:
        connection.execute(sa.update(events).values(type_seq=5))
        return "done", owed

    def refused(connection: sa.Connection) -> tuple[str, list[NewEvent]]:
        connection.execute(sa.update(events).values(type_seq=6))
        raise Conflict("no")

    assert await bench.database.write_with_events(changed) == "done"
    assert [(row.type_seq, row.id) for row in await bench.rows(events)][1] == (1, owed[0].id)
    assert len(await bench.lease(1)) == 1
    with pytest.raises(Conflict):
        await bench.database.write_with_events(refused)
    assert [row.type_seq for row in await bench.rows(events)] == [5, 1]
    (later,) = await bench.append(bench.event())
    assert later.seq == 3


async def an_event_and_what_is_done_about_it_are_stored_together_or_not_at_all(bench: Bench) -> None:
    (first,) = await bench.append(bench.event(due(1)))

    def name(connection: sa.Connection, seq: int) -> int:
        connection.execute(sa.update(events).where(events.c.seq == seq).values(type_seq=7))
        return seq

    def refuse(connection: sa.Connection, seq: int) -> int:
        name(connection, seq)
        raise Conflict("no")

    seq = await bench.database.append_then(bench.event(due(1)), name)
    assert [(row.seq, row.type_seq) for row in await bench.rows(events)] == [(first.seq, 1), (seq, 7)]
    with pytest.raises(Conflict):
        await bench.database.append_then(bench.event(due(1)), refuse)
    assert (await bench.count(events), await bench.count(deliveries)) == (2, 2)
    (later,) = await bench.append(bench.event())
    assert later.seq > seq


async def a_test_is_leased_with_its_event_and_known_for_good(bench: Bench) -> None:
    event = bench.event(trials.owed(1))
    leased = await bench.database.append_then(
        event, lambda c, seq: trials.begin(c, event, seq, lease_until=LEASE_UNTIL, owner=OWNER)
    )
    assert (leased.trigger, leased.resume_status, leased.fence) == (Trigger.TEST, Status.FAILED, 1)
    (row,) = await bench.rows(deliveries)
    assert (row.status, row.lease_owner, row.due_at, row.completed_at) == (Status.PENDING, OWNER, LEASE_UNTIL, None)
    assert await bench.lease(1) == []
    assert await bench.database.settle([settled(leased, Status.FAILED)]) == frozenset()
    (row,) = await bench.rows(deliveries)
    assert (row.status, row.trigger, row.completed_at, row.resume_status) == (Status.FAILED, Trigger.TEST, NOW, None)


async def a_read_cannot_write(bench: Bench) -> None:
    await bench.append(bench.event())
    with pytest.raises(Exception, match=r"readonly|read-only|cannot"):
        await bench.database.read(lambda c: c.execute(sa.update(events).values(type_seq=99)).rowcount)
    assert [row.type_seq for row in await bench.rows(events)] == [1]


Check = Callable[[Bench], Awaitable[None]]

CHECKS: Sequence[Check] = [
    an_event_is_stored_with_its_deliveries,
    what_was_appended_survives_reopening,
    groups_get_numbers_in_order,
    a_repeated_key_gives_the_stored_event,
    a_repeat_within_one_commit_is_found,
    concurrent_repeats_give_one_event,
    a_chosen_id_works_like_a_key,
    keys_belong_to_accounts,
    other_content_under_a_key_is_refused_whole,
    other_expiry_or_type_is_other_content,
    nothing_is_leased_before_it_is_due,
    a_lease_tells_what_an_attempt_needs,
    a_leased_delivery_is_not_leased_again,
    only_the_endpoint_asked_for_is_leased_earliest_first_and_within_the_limit,
    wishes_are_served_together,
    bodies_are_bounded,
    held_and_finished_deliveries_are_never_leased,
    endpoints_with_waiting_deliveries_are_listed,
    a_settled_delivery_is_done_and_its_attempt_kept,
    a_born_leased_delivery_settles_with_fence_one,
    a_retry_is_due_at_its_instant,
    a_lost_lease_writes_nothing_and_the_rest_does,
    settling_twice_writes_once,
    a_late_settlement_counts_while_nobody_has_leased_again,
    a_late_settlement_counts_though_the_delivery_was_held_meanwhile,
    large_batches_settle_whole,
    health_is_written_with_the_batch,
    released_leases_are_due_again,
    what_comes_back_does_not_lose_its_turn,
    held_deliveries_are_released_in_the_order_of_their_events,
    nothing_is_released_while_something_due_waits,
    what_has_expired_is_not_released_but_fails,
    only_ended_leases_are_reclaimed,
    an_owner_reclaims_its_own_after_a_crash,
    a_refused_write_is_undone_alone,
    a_defect_in_one_write_leaves_others_alone,
    events_owed_by_a_write_are_stored_with_it_or_not_at_all,
    an_event_and_what_is_done_about_it_are_stored_together_or_not_at_all,
    a_test_is_leased_with_its_event_and_known_for_good,
    a_read_cannot_write,
]
