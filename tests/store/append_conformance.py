"""The conformance suite's checks of `append`."""

import asyncio
from collections.abc import Sequence

from uplift_server.core.ids import uuid7
from uplift_server.core.lifecycle import Status
from uplift_server.store.hot_records import IdempotencyConflict, NewDelivery
from uplift_server.store.schema import deliveries, events

from .bench import LEASE_UNTIL, NOW, Bench, Check, due, stored_leased


async def events_are_stored_with_their_deliveries(bench: Bench) -> None:
    event = bench.event(due(1), stored_leased(2), NewDelivery(3, Status.HELD, None))
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


async def appended_events_survive_reopening(bench: Bench) -> None:
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


async def a_repeated_key_returns_the_stored_event(bench: Bench) -> None:
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


async def concurrent_repeats_store_one_event(bench: Bench) -> None:
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
    (conflict,) = await bench.database.append([[bench.event(chosen_id=chosen, data=b'{"n":2}')]])
    assert conflict == IdempotencyConflict(0, "id", chosen)


async def a_chosen_id_can_be_a_generated_one(bench: Bench) -> None:
    """A caller can repeat an event by sending the ID that the server generated for it."""
    (first,) = await bench.append(bench.event())
    (again,) = await bench.append(bench.event(chosen_id=first.id))
    assert (again.seq, again.duplicate) == (first.seq, True)
    (conflict,) = await bench.database.append([[bench.event(chosen_id=first.id, data=b'{"n":2}')]])
    assert conflict == IdempotencyConflict(0, "id", first.id)


async def a_repeat_with_an_id_of_the_server_is_found(bench: Bench) -> None:
    event = bench.event(due(1), chosen_id=uuid7(NOW, bytes(10)))._replace(is_server_id=True)
    results = await asyncio.gather(*(bench.append(event) for _ in range(5)))
    assert sorted(appended.duplicate for (appended,) in results) == [False] + [True] * 4
    assert {appended.id for (appended,) in results} == {event.id}
    (again,) = await bench.append(event)
    assert again.duplicate
    # A caller can repeat the event by choosing the ID that the server generated.
    (chosen,) = await bench.append(event._replace(is_server_id=False))
    assert chosen.duplicate
    assert await bench.count(deliveries) == 1


async def keys_belong_to_accounts(bench: Bench) -> None:
    (one,) = await bench.append(bench.event(key="k"))
    (two,) = await bench.append(bench.event(key="k", account=2))
    assert not two.duplicate
    assert one.id != two.id


async def different_content_with_a_key_rejects_the_group(bench: Bench) -> None:
    (first,) = await bench.append(bench.event(key="k"))
    group = [bench.event(due(1)), bench.event(due(1), key="k", data=b'{"n":2}'), bench.event(due(1), key="new")]
    results = await bench.database.append([group, [bench.event(due(1))]])
    assert results[0] == IdempotencyConflict(1, "idempotency_key", first.id)
    assert isinstance(results[1], list)
    assert await bench.count(events) == 2
    assert await bench.count(deliveries) == 1
    (fresh,) = await bench.append(bench.event(key="new"))
    assert not fresh.duplicate


async def a_different_expiry_or_type_is_different_content(bench: Bench) -> None:
    await bench.append(bench.event(key="k"))
    for change in ({"expires_at": NOW + 1}, {"type_seq": 2}):
        (conflict,) = await bench.database.append([[bench.event(key="k")._replace(**change)]])
        assert isinstance(conflict, IdempotencyConflict)


APPEND_CHECKS: Sequence[Check] = [
    events_are_stored_with_their_deliveries,
    appended_events_survive_reopening,
    groups_get_numbers_in_order,
    a_repeated_key_returns_the_stored_event,
    a_repeat_within_one_commit_is_found,
    concurrent_repeats_store_one_event,
    a_chosen_id_works_like_a_key,
    a_chosen_id_can_be_a_generated_one,
    a_repeat_with_an_id_of_the_server_is_found,
    keys_belong_to_accounts,
    different_content_with_a_key_rejects_the_group,
    a_different_expiry_or_type_is_different_content,
]
