"""The conformance suite's checks of ordered deliveries."""

from collections.abc import Awaitable, Callable, Sequence

import pytest
import sqlalchemy as sa

from uplift_server.core.lifecycle import Status
from uplift_server.store import deliveries as delivery_store
from uplift_server.store import endpoint_backlog
from uplift_server.store.errors import Conflict
from uplift_server.store.hot_records import Appended, HeldRequest, IdempotencyConflict, NewDelivery
from uplift_server.store.schema import deliveries

from .bench import LEASE_UNTIL, NOW, OWNER, Bench, Check, due, settled

ALL = 100


def ordered(endpoint: int, group: int = 0, *, status: Status = Status.PENDING, leased: bool = False) -> NewDelivery:
    """Return a new ordered delivery."""
    due_at = None if status is Status.HELD else LEASE_UNTIL if leased else NOW
    return NewDelivery(endpoint, status, due_at, OWNER if leased else 0, group)


async def due_times(bench: Bench) -> list[int | None]:
    """Return the due times of all deliveries, in the order of events and endpoints."""
    return [row.due_at for row in await bench.rows(deliveries)]


async def append_each(bench: Bench, count: int, delivery: NewDelivery, **fields: int) -> list[Appended]:
    """Append events with the same delivery, each in its own transaction."""
    return [(await bench.append(bench.event(delivery, **fields)))[0] for _ in range(count)]


async def a_delivery_behind_an_open_one_is_blocked(bench: Bench) -> None:
    """The open delivery may be in the same batch. `blocked` lists the endpoints whose delivery is blocked."""
    [first] = await append_each(bench, 1, ordered(1))
    assert first.blocked == ()
    second, third = await bench.append(
        bench.event(ordered(1, leased=True), due(2)), bench.event(ordered(3, leased=True), ordered(1, 7, leased=True))
    )
    results = await bench.database.append([[bench.event(ordered(3, leased=True))], [bench.event(ordered(1, 7))]])
    assert [tuple(second.blocked), tuple(third.blocked)] == [(1,), ()]
    assert [tuple(each.blocked) for result in results if isinstance(result, list) for each in result] == [(3,), (1,)]
    rows = [(row.endpoint_seq, row.due_at, row.lease_owner, row.fence) for row in await bench.rows(deliveries)]
    assert rows == [
        (1, NOW, 0, 0),
        (1, None, 0, 0),
        (2, NOW, 0, 0),
        (1, LEASE_UNTIL, OWNER, 1),
        (3, LEASE_UNTIL, OWNER, 1),
        (3, None, 0, 0),
        (1, None, 0, 0),
    ]


async def a_repeated_event_blocks_nothing(bench: Bench) -> None:
    await bench.append(bench.event(ordered(1), key="k"))
    (again,) = await bench.append(bench.event(ordered(1), key="k"))
    assert (again.duplicate, tuple(again.blocked)) == (True, ())
    (other,) = await bench.database.append([[bench.event(ordered(1), key="k")._replace(ordering_key="other")]])
    assert isinstance(other, IdempotencyConflict)


async def unordered_deliveries_are_never_blocked(bench: Bench) -> None:
    await append_each(bench, 3, due(1))
    await append_each(bench, 1, ordered(1))
    await append_each(bench, 1, due(1))
    assert await due_times(bench) == [NOW] * 5


async def blocked_deliveries_are_not_leased(bench: Bench) -> None:
    await append_each(bench, 3, ordered(1))
    (leased,) = await bench.lease(1, now=NOW + 10**12)
    assert leased.order_group == 0
    assert await bench.database.next_due([1]) == []
    assert await bench.database.due_endpoints() == [(1, None)]
    await bench.database.settle([settled(leased, Status.PENDING, NOW + 5000)])
    assert await bench.database.next_due([1]) == [(1, NOW + 5000)]


async def _settle(bench: Bench, status: Status) -> None:
    (leased,) = await bench.lease(1)
    await bench.database.settle([settled(leased, status)])


async def _write(bench: Bench, body: Callable[[sa.Connection, int], object]) -> None:
    event_seq = next(row.event_seq for row in await bench.rows(deliveries) if row.status == Status.PENDING)
    await bench.database.write(lambda c: body(c, event_seq))


ENDS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "delivered": lambda bench: _settle(bench, Status.DELIVERED),
    "failed": lambda bench: _settle(bench, Status.FAILED),
    "cancelled": lambda bench: _write(
        bench, lambda c, event: endpoint_backlog.cancel(c, event, 1, fence=None, now=NOW)
    ),
    "erased": lambda bench: _write(bench, lambda c, event: endpoint_backlog.cancel_of_events(c, [event], now=NOW)),
}


async def every_end_of_a_delivery_unblocks_the_next(bench: Bench) -> None:
    for number, (name, end) in enumerate(ENDS.items(), 1):
        await append_each(bench, 3, ordered(1))
        await end(bench)
        rows = (await bench.rows(deliveries))[3 * (number - 1) :]
        assert [(row.status == Status.PENDING, row.due_at) for row in rows] == [
            (False, None),
            (True, NOW),
            (True, None),
        ], name
        await bench.database.write(lambda c: endpoint_backlog.cancel_waiting(c, 1, now=NOW, limit=ALL))


async def only_the_first_held_delivery_is_released_due(bench: Bench) -> None:
    """When the first delivery ends, the next released one is due. A delivery behind a held one stays blocked."""
    for group in (0, 0, 7, 0):
        await append_each(bench, 1, ordered(1, group, status=Status.HELD))
    await append_each(bench, 1, ordered(1))
    request = HeldRequest(1, 0, 2)
    assert [each.released for each in await bench.database.release_held([request], now=NOW)] == [2]
    assert await due_times(bench) == [NOW, None, None, None, None]
    await _settle(bench, Status.DELIVERED)
    await _settle(bench, Status.DELIVERED)
    statuses = [row.status for row in await bench.rows(deliveries)]
    assert statuses == [Status.DELIVERED, Status.DELIVERED, Status.HELD, Status.HELD, Status.PENDING]
    assert await bench.lease(1) == []
    assert [each.released for each in await bench.database.release_held([request], now=NOW)] == [2]
    assert await due_times(bench) == [None, None, NOW, NOW, None]


async def an_expired_held_delivery_unblocks_the_next(bench: Bench) -> None:
    await append_each(bench, 1, ordered(1, status=Status.HELD), expires_at=NOW)
    await append_each(bench, 2, ordered(1, status=Status.HELD))
    [released] = await bench.database.release_held([HeldRequest(1, 0, ALL)], now=NOW)
    assert (released.released, released.expired) == (2, 1)
    assert await due_times(bench) == [None, NOW, None]


async def a_blocked_delivery_names_its_blocker(bench: Bench) -> None:
    """A blocked delivery cannot be resent. If it is cancelled, the next delivery remains blocked."""
    seqs = [each.seq for each in await append_each(bench, 3, ordered(1))]

    def read(connection: sa.Connection) -> int:
        return delivery_store.count_blocked(connection, 1, 0, limit=ALL)

    assert await bench.database.read(read) == 2
    (leased,) = await bench.lease(1)
    with pytest.raises(Conflict, match="waits for"):
        await bench.database.write(lambda c: delivery_store.start_resend(c, seqs[1], 1, now=NOW))
    await bench.database.write(lambda c: endpoint_backlog.cancel(c, seqs[1], 1, fence=None, now=NOW))
    assert await due_times(bench) == [LEASE_UNTIL, None, None]
    await bench.database.settle([settled(leased)])
    assert await due_times(bench) == [None, None, NOW]


async def a_resend_of_an_ended_delivery_is_due_beside_others(bench: Bench) -> None:
    """The third delivery waits for the resend of the first and for the second."""
    first, *_ = await append_each(bench, 3, ordered(1))
    await _settle(bench, Status.DELIVERED)
    await bench.database.write(lambda c: delivery_store.start_resend(c, first.seq, 1, now=NOW))
    assert await due_times(bench) == [NOW, NOW, None]
    resent, second = sorted(await bench.lease(1), key=lambda each: each.event_seq)
    await bench.database.settle([settled(second)])
    assert await due_times(bench) == [LEASE_UNTIL, None, None]
    await bench.database.settle([settled(resent)])
    assert await due_times(bench) == [None, None, NOW]


ORDER_CHECKS: Sequence[Check] = [
    a_delivery_behind_an_open_one_is_blocked,
    a_repeated_event_blocks_nothing,
    unordered_deliveries_are_never_blocked,
    blocked_deliveries_are_not_leased,
    every_end_of_a_delivery_unblocks_the_next,
    only_the_first_held_delivery_is_released_due,
    an_expired_held_delivery_unblocks_the_next,
    a_blocked_delivery_names_its_blocker,
    a_resend_of_an_ended_delivery_is_due_beside_others,
]
