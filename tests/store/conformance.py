"""The conformance suite of the store's contract, for every engine.

Each check takes a `Bench`: an open, empty database that can be opened again. An engine provides a harness (see
test_sqlite.py). Stores with deliberate defects show that the checks detect them (test_broken_stores.py).
"""

import asyncio
from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store import test_deliveries
from uplift_server.store.errors import Conflict
from uplift_server.store.hot_records import NewEvent
from uplift_server.store.schema import attempts, deliveries, events
from uplift_server.store.schema_statistics import delivery_changes

from .append_conformance import APPEND_CHECKS
from .bench import LEASE_UNTIL, NOW, OWNER, Bench, Check, due, settled
from .lease_conformance import LEASE_CHECKS
from .order_conformance import ORDER_CHECKS
from .settle_conformance import SETTLE_CHECKS


async def a_rejected_write_rolls_back_alone(bench: Bench) -> None:
    def update_and_fail(connection: sa.Connection) -> None:
        connection.execute(sa.update(events).values(type_seq=99))
        raise Conflict("no")

    await bench.append(bench.event())
    kept, failed = await asyncio.gather(
        bench.append(bench.event()), bench.database.write(update_and_fail), return_exceptions=True
    )
    assert isinstance(kept, list)
    assert isinstance(failed, Conflict)
    assert [row.type_seq for row in await bench.rows(events)] == [1, 1]


async def an_error_in_one_write_does_not_affect_others(bench: Bench) -> None:
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


async def events_of_a_write_are_stored_with_it_or_not_at_all(bench: Bench) -> None:
    await bench.append(bench.event())
    new_events = [bench.event(due(1))]

    def update_and_return_events(connection: sa.Connection) -> tuple[str, list[NewEvent]]:
        connection.execute(sa.update(events).values(type_seq=5))
        return "done", new_events

    def update_and_fail(connection: sa.Connection) -> tuple[str, list[NewEvent]]:
        connection.execute(sa.update(events).values(type_seq=6))
        raise Conflict("no")

    assert await bench.database.write_with_events(update_and_return_events) == "done"
    assert [(row.type_seq, row.id) for row in await bench.rows(events)][1] == (1, new_events[0].id)
    assert len(await bench.lease(1)) == 1
    with pytest.raises(Conflict):
        await bench.database.write_with_events(update_and_fail)
    assert [row.type_seq for row in await bench.rows(events)] == [5, 1]
    (later,) = await bench.append(bench.event())
    assert later.seq == 3


async def an_event_and_its_function_are_stored_together_or_not_at_all(bench: Bench) -> None:
    (first,) = await bench.append(bench.event(due(1)))

    def rename(connection: sa.Connection, seq: int) -> int:
        connection.execute(sa.update(events).where(events.c.seq == seq).values(type_seq=7))
        return seq

    def rename_and_fail(connection: sa.Connection, seq: int) -> int:
        rename(connection, seq)
        raise Conflict("no")

    seq = await bench.database.append_then(bench.event(due(1)), rename)
    assert [(row.seq, row.type_seq) for row in await bench.rows(events)] == [(first.seq, 1), (seq, 7)]
    with pytest.raises(Conflict):
        await bench.database.append_then(bench.event(due(1)), rename_and_fail)
    assert (await bench.count(events), await bench.count(deliveries)) == (2, 2)
    (later,) = await bench.append(bench.event())
    assert later.seq > seq


async def a_test_is_leased_with_its_event_and_stays_one(bench: Bench) -> None:
    event = bench.event(test_deliveries.new_delivery(1))
    leased = await bench.database.append_then(
        event, lambda c, seq: test_deliveries.begin(c, event, seq, lease_until=LEASE_UNTIL, process_id=OWNER)
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


async def stored_rows_are_within_the_stream_position(bench: Bench) -> None:
    await bench.database.stream_position()
    (stored, *_) = await bench.append(bench.event(due(1)), bench.event(due(1)))
    await bench.database.settle([settled(each, Status.FAILED) for each in await bench.lease(1)])
    stream_position = await bench.database.stream_position()
    assert stream_position.events > stored.seq
    assert stream_position.attempts >= max(row.seq for row in await bench.rows(attempts))
    assert stream_position.changes >= max(row.seq for row in await bench.rows(delivery_changes))


CHECKS: Sequence[Check] = [
    *APPEND_CHECKS,
    *LEASE_CHECKS,
    *SETTLE_CHECKS,
    *ORDER_CHECKS,
    a_rejected_write_rolls_back_alone,
    an_error_in_one_write_does_not_affect_others,
    events_of_a_write_are_stored_with_it_or_not_at_all,
    an_event_and_its_function_are_stored_together_or_not_at_all,
    a_test_is_leased_with_its_event_and_stays_one,
    a_read_cannot_write,
    stored_rows_are_within_the_stream_position,
]
