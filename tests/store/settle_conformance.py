"""The conformance suite's checks of `settle`."""

from collections.abc import Sequence

import sqlalchemy as sa
from msgspec import structs

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.store import endpoint_backlog, health, processes
from uplift_server.store.hot_records import HealthRow, LeasedDelivery
from uplift_server.store.schema import attempts, deliveries, endpoints

from .bench import LEASE_UNTIL, NOW, OWNER, Bench, Check, due, settled, stored_leased


async def a_settled_delivery_ends_and_its_attempt_is_stored(bench: Bench) -> None:
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


async def a_delivery_stored_leased_settles_with_fence_one(bench: Bench) -> None:
    (stored,) = await bench.append(bench.event(stored_leased(1)))
    assert await bench.lease(1, now=LEASE_UNTIL + 1) == []
    leased = LeasedDelivery(stored.seq, 1, 1, LEASE_UNTIL, 0, 0, Trigger.SCHEDULE, stored.id, 1, NOW, None, b"")
    assert await bench.database.settle([settled(leased)]) == frozenset()
    (row,) = await bench.rows(deliveries)
    assert row.status == Status.DELIVERED


async def a_retry_is_due_at_its_time(bench: Bench) -> None:
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


async def a_lost_lease_writes_nothing_and_others_are_written(bench: Bench) -> None:
    for _ in range(3):
        await bench.append(bench.event(due(1)))
    leased = await bench.lease(1)
    await bench.database.reclaim(now=LEASE_UNTIL)
    (newer,) = await bench.lease(1, 1, now=LEASE_UNTIL, until=LEASE_UNTIL + 30_000, process_id=OWNER + 1)
    stale = next(d for d in leased if d.event_seq == newer.event_seq)
    await bench.lease(1, now=LEASE_UNTIL, until=LEASE_UNTIL + 30_000)
    current = [structs.replace(d, fence=d.fence + 1) for d in leased if d is not stale]
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


async def a_late_settlement_is_valid_without_a_newer_lease(bench: Bench) -> None:
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1)
    await bench.database.reclaim(now=LEASE_UNTIL)
    assert await bench.database.settle([settled(leased)]) == frozenset()
    (row,) = await bench.rows(deliveries)
    assert (row.status, row.due_at, row.lease_owner) == (Status.DELIVERED, None, 0)


async def a_late_settlement_is_valid_for_a_held_delivery(bench: Bench) -> None:
    """The database was down for longer than a lease, and the endpoint was paused. The attempt still succeeded."""
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1, until=NOW + 10)
    assert await bench.database.reclaim(now=NOW + 20) == 1
    assert await bench.database.write(lambda c: endpoint_backlog.hold_waiting(c, 1, now=NOW + 20, limit=10)) == 1
    assert await bench.database.settle([settled(leased)]) == frozenset()
    (row,) = await bench.rows(deliveries)
    assert (row.status, row.attempts_made) == (Status.DELIVERED, 1)


async def large_batches_settle_completely(bench: Bench) -> None:
    groups = [[bench.event(due(1))] for _ in range(150)]
    await bench.database.append(groups)
    leased = await bench.lease(1, 200)
    assert len(leased) == 150
    assert await bench.database.settle([settled(d) for d in leased]) == frozenset()
    assert {row.status for row in await bench.rows(deliveries)} == {Status.DELIVERED}
    assert await bench.count(attempts) == 150


async def health_is_written_with_the_batch(bench: Bench) -> None:
    await _add_endpoint(bench)
    await bench.database.settle([], [HealthRow(1, 3, NOW - 5, NOW - 9, NOW, Outcome.TIMEOUT)])
    (row,) = await bench.rows(endpoints)
    assert (row.consecutive_failures, row.failing_since, row.last_success_at, row.last_failure_at) == (
        3,
        NOW - 5,
        NOW - 9,
        NOW,
    )
    assert row.last_outcome == Outcome.TIMEOUT


async def cause_and_probe_are_written_with_health(bench: Bench) -> None:
    await _add_endpoint(bench)
    redirected = HealthRow(
        1, 3, NOW - 5, None, NOW, Outcome.REDIRECT, last_status_code=302, last_error="no\0thing", last_location="https://a/\0",
        probe_at=NOW + 7,
    )  # fmt: skip
    await bench.database.settle([], [redirected])
    (row,) = await bench.rows(endpoints)
    assert (row.last_status_code, row.probe_at) == (302, NOW + 7)
    # PostgreSQL cannot store NUL, so its engine replaces the character.
    assert row.last_error in {"no\0thing", "no\ufffdthing"}
    assert row.last_location in {"https://a/\0", "https://a/\ufffd"}
    await bench.database.settle([], [HealthRow(1, 0, None, NOW, NOW, Outcome.DELIVERED, last_status_code=204)])
    (row,) = await bench.rows(endpoints)
    assert (row.last_status_code, row.last_error, row.last_location, row.probe_at) == (204, None, None, None)


async def an_evicted_process_writes_no_health(bench: Bench) -> None:
    """An evicted process no longer owns its endpoints. The outcomes of its attempts are still written."""
    await _add_endpoint(bench)
    number = await bench.database.write(
        lambda c: processes.join(c, ProcessRole.WORKER, host="h", pid=1, version="1.0.0", now=NOW)
    )
    failing = HealthRow(1, 3, NOW - 5, NOW - 9, NOW, Outcome.TIMEOUT)
    await bench.database.settle([], [failing], process_id=number)
    assert [row.consecutive_failures for row in await bench.rows(endpoints)] == [3]
    await bench.database.write(lambda c: processes.remove(c, number))
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1)
    worse = failing._replace(consecutive_failures=4)
    assert await bench.database.settle([settled(leased)], [worse], process_id=number) == frozenset()
    assert [row.consecutive_failures for row in await bench.rows(endpoints)] == [3]


async def excused_time_stays_while_an_endpoint_keeps_failing(bench: Bench) -> None:
    await _add_endpoint(bench)
    failing = HealthRow(1, 3, NOW - 5, NOW - 9, NOW, Outcome.TIMEOUT)
    await bench.database.settle([], [failing])
    await bench.database.write(lambda c: health.excuse(c, [1], NOW - 5, NOW - 1))
    await bench.database.settle([], [failing._replace(consecutive_failures=4)])
    assert [row.excused_ms for row in await bench.rows(endpoints)] == [4]
    await bench.database.settle([], [failing._replace(failing_since=NOW + 5)])
    assert [row.excused_ms for row in await bench.rows(endpoints)] == [0]


async def _add_endpoint(bench: Bench) -> None:
    values = {"seq": 1, "id": b"e" * 16, "account_seq": 1, "url": "https://x", "description": "", "event_types": "[]"}
    values |= {"secret": b"s", "secret_created_at": NOW, "state": 0, "created_at": NOW, "updated_at": NOW}
    await bench.database.write(lambda c: c.execute(sa.insert(endpoints).values(**values)).rowcount)


SETTLE_CHECKS: Sequence[Check] = [
    a_settled_delivery_ends_and_its_attempt_is_stored,
    a_delivery_stored_leased_settles_with_fence_one,
    a_retry_is_due_at_its_time,
    a_lost_lease_writes_nothing_and_others_are_written,
    settling_twice_writes_once,
    a_late_settlement_is_valid_without_a_newer_lease,
    a_late_settlement_is_valid_for_a_held_delivery,
    large_batches_settle_completely,
    health_is_written_with_the_batch,
    cause_and_probe_are_written_with_health,
    an_evicted_process_writes_no_health,
    excused_time_stays_while_an_endpoint_keeps_failing,
]
