"""The conformance suite's checks of leases and releases."""

from collections.abc import Sequence

from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.store.hot_records import HeldRequest, LeasedDelivery, LeaseRequest, NewDelivery, Released
from uplift_server.store.schema import deliveries

from .bench import ENOUGH_BYTES, LEASE_UNTIL, NOW, OWNER, Bench, Check, due, settled, stored_leased


async def nothing_is_leased_before_it_is_due(bench: Bench) -> None:
    await bench.append(bench.event(due(1, NOW + 1)))
    assert await bench.lease(1, now=NOW) == []
    assert len(await bench.lease(1, now=NOW + 1)) == 1


async def a_lease_has_the_data_of_the_attempt(bench: Bench) -> None:
    event = bench.event(due(1))._replace(expires_at=NOW + 60_000)
    (stored,) = await bench.append(event)
    (leased,) = await bench.lease(1)
    assert leased == LeasedDelivery(
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


async def only_requested_endpoints_are_leased_earliest_first_within_the_limit(bench: Bench) -> None:
    for at in (NOW - 1, NOW - 3, NOW - 2):
        await bench.append(bench.event(due(1, at), due(2, at)))
    leased = await bench.lease(1, 2)
    assert [d.endpoint_seq for d in leased] == [1, 1]
    assert [d.event_seq for d in leased] == [2, 3]
    assert len(await bench.lease(1)) == 1
    assert len(await bench.lease(2)) == 3


async def requests_are_served_together(bench: Bench) -> None:
    for _ in range(3):
        await bench.append(bench.event(due(1), due(2)))
    leased = await bench.database.lease_due(
        [LeaseRequest(1, 2), LeaseRequest(2, 1)],
        now=NOW,
        lease_until=LEASE_UNTIL,
        process_id=OWNER,
        body_bytes_max=ENOUGH_BYTES,
    )
    assert sorted(d.endpoint_seq for d in leased) == [1, 1, 2]


async def bodies_are_bounded(bench: Bench) -> None:
    for _ in range(5):
        await bench.append(bench.event(due(1), data=b'{"pad":"%b"}' % (b"x" * 1000)))
    leased = await bench.database.lease_due(
        [LeaseRequest(1, 5)], now=NOW, lease_until=LEASE_UNTIL, process_id=OWNER, body_bytes_max=1500
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
    await bench.append(bench.event(stored_leased(4)))
    found = await bench.database.due_endpoints()
    assert found == [(3, NOW + 3), (5, NOW + 5), (9, NOW + 9)]
    assert await bench.database.due_endpoints(after=3, limit=1) == [(5, NOW + 5)]
    assert sorted(await bench.database.next_due([9, 4, 3, 7])) == [(3, NOW + 3), (9, NOW + 9)]
    (leased,) = await bench.lease(3, now=NOW + 3)
    assert await bench.database.next_due([3]) == [(3, NOW + 100)]
    await bench.database.release([(leased.event_seq, 3, leased.fence)], now=NOW + 4)
    assert await bench.database.next_due([3]) == [(3, NOW + 4)]


async def released_leases_are_due_again(bench: Bench) -> None:
    await bench.append(bench.event(due(1)))
    (leased,) = await bench.lease(1)
    await bench.database.release([(leased.event_seq, 1, leased.fence)], now=NOW + 1)
    (again,) = await bench.lease(1, now=NOW + 1)
    assert again.fence == leased.fence + 1
    # The first holder releases late: it no longer has the lease.
    await bench.database.release([(leased.event_seq, 1, leased.fence)], now=NOW + 1)
    assert await bench.lease(1, now=NOW + 1) == []


async def released_deliveries_keep_their_place(bench: Bench) -> None:
    """Covers released and expired leases. Deliveries that were never leased keep their place, too."""
    await bench.append(*(bench.event(due(1)) for _ in range(6)))
    released, expiring = await bench.lease(1, 1), await bench.lease(1, 2, until=NOW + 10)
    await bench.database.release([(each.event_seq, 1, each.fence) for each in released], now=NOW + 20)
    assert await bench.database.reclaim(now=NOW + 20) == len(expiring) == 2
    assert [each.event_seq for each in await bench.lease(1, now=NOW + 20)] == [1, 2, 3, 4, 5, 6]


def held(endpoint: int) -> NewDelivery:
    """Return a held delivery."""
    return NewDelivery(endpoint, Status.HELD, None)


async def held_deliveries_are_released_in_the_order_of_their_events(bench: Bench) -> None:
    stored = await bench.append(*(bench.event(held(1), held(2)) for _ in range(4)))
    requests = [HeldRequest(1, 0, 3), HeldRequest(2, stored[2].seq, 3)]
    assert await bench.database.release_held(requests, now=NOW) == [Released(3, 0, False), Released(1, 0, False)]
    assert [d.event_seq for d in await bench.lease(1)] == [each.seq for each in stored[:3]]
    assert [d.event_seq for d in await bench.lease(2)] == [stored[3].seq]
    assert await bench.database.release_held([HeldRequest(1, 0, 3)], now=NOW + 1) == [Released(1, 0, False)]
    assert await bench.lease(1, now=NOW) == []
    assert [(d.event_seq, d.attempts_made) for d in await bench.lease(1, now=NOW + 1)] == [(stored[3].seq, 0)]
    assert await bench.database.release_held([HeldRequest(1, 0, 3)], now=NOW + 1) == [Released(0, 0, False)]


async def nothing_is_released_while_due_deliveries_wait(bench: Bench) -> None:
    await bench.append(bench.event(held(1), held(2), held(3)), bench.event(due(1, NOW + 1), due(2), stored_leased(3)))
    requests = [HeldRequest(endpoint, 0, 9) for endpoint in (1, 2, 3)]
    results = await bench.database.release_held(requests, now=NOW)
    assert results == [Released(1, 0, False), Released(0, 0, True), Released(1, 0, False)]


async def expired_deliveries_fail_instead_of_being_released(bench: Bench) -> None:
    ends = [NOW, NOW + 1, None]
    await bench.append(*(bench.event(held(1), expires_at=end) for end in ends))
    assert await bench.database.release_held([HeldRequest(1, 0, 9)], now=NOW) == [Released(2, 1, False)]
    rows = await bench.rows(deliveries)
    assert [(r.status, r.failed_reason, r.completed_at) for r in rows] == [
        (Status.FAILED, FailedReason.EXPIRED, NOW),
        (Status.PENDING, None, None),
        (Status.PENDING, None, None),
    ]


async def only_expired_leases_are_reclaimed(bench: Bench) -> None:
    await bench.append(bench.event(due(1), due(2)))
    await bench.lease(1, until=NOW + 10)
    await bench.lease(2, until=NOW + 20)
    assert await bench.database.reclaim(now=NOW + 9) == 0
    assert await bench.database.reclaim(now=NOW + 10) == 1
    assert [d.endpoint_seq for d in await bench.lease(1, now=NOW + 10)] == [1]
    assert await bench.lease(2, now=NOW + 10) == []


async def a_process_reclaims_its_leases_after_a_crash(bench: Bench) -> None:
    for _ in range(3):
        await bench.append(bench.event(stored_leased(1), due(2)))
    await bench.lease(2, process_id=OWNER + 1)
    await bench.reopen()
    assert await bench.database.reclaim(now=NOW, process_id=OWNER, limit=2) == 2
    assert await bench.database.reclaim(now=NOW, process_id=OWNER, limit=2) == 1
    assert await bench.database.reclaim(now=NOW, process_id=OWNER, limit=2) == 0
    assert len(await bench.lease(1)) == 3
    assert await bench.lease(2) == []


LEASE_CHECKS: Sequence[Check] = [
    nothing_is_leased_before_it_is_due,
    a_lease_has_the_data_of_the_attempt,
    a_leased_delivery_is_not_leased_again,
    only_requested_endpoints_are_leased_earliest_first_within_the_limit,
    requests_are_served_together,
    bodies_are_bounded,
    held_and_finished_deliveries_are_never_leased,
    endpoints_with_waiting_deliveries_are_listed,
    released_leases_are_due_again,
    released_deliveries_keep_their_place,
    held_deliveries_are_released_in_the_order_of_their_events,
    nothing_is_released_while_due_deliveries_wait,
    expired_deliveries_fail_instead_of_being_released,
    only_expired_leases_are_reclaimed,
    a_process_reclaims_its_leases_after_a_crash,
]
