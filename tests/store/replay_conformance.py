"""The conformance suite's checks of replays."""

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa
from msgspec import structs

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store import releases, replays, test_deliveries
from uplift_server.store.hot_records import (
    Candidate,
    LeasedDelivery,
    ReplayBatch,
    ReplayLease,
    ReplayRelease,
    Settlement,
)
from uplift_server.store.replays import MissingEvents, NewReplay, Replay, ReplaySelection
from uplift_server.store.schema import accounts, attempts, deliveries, endpoints, events
from uplift_server.store.schema import replays as jobs

from .bench import LEASE_UNTIL, NOW, OWNER, Bench, Check, due, settled

CHOICE = ReplaySelection(1, (Status.FAILED,), (), None, None, NOW)
LEASE = ReplayLease(NOW + 1, LEASE_UNTIL, OWNER, limit=10, outstanding_max=10, body_bytes_max=1 << 20)


async def create_replay(bench: Bench, count: int, **expiring: int) -> tuple[Replay, list[Candidate]]:
    """Create a running replay of `count` failed deliveries. Return it with its first batch."""
    await bench.append(*(bench.event(due(1), **expiring) for _ in range(count)))
    await bench.database.settle([settled(each, Status.FAILED) for each in await bench.lease(1)])
    values = {"seq": 1, "id": b"e" * 16, "account_seq": 1, "url": "https://x", "description": "", "event_types": "[]"}
    values |= {"secret": b"s", "secret_created_at": NOW, "state": 0, "created_at": NOW, "updated_at": NOW}

    def create(connection: sa.Connection) -> Replay:
        connection.execute(sa.insert(endpoints).values(**values))
        account = {"seq": 1, "id": b"a" * 16, "name": "a", "contact_emails": "[]", "created_at": 1, "updated_at": 1}
        connection.execute(sa.insert(accounts).values(**account))
        return replays.create(connection, NewReplay(b"r" * 16, 1, CHOICE, (), 50, count, count, 1, count))

    job = await bench.database.write(create)
    candidates = (await read_batch(bench, job)).candidates
    assert len(candidates) == count
    return job, list(candidates)


async def read_batch(
    bench: Bench, job: Replay, *, first: int = 1, rows: int = 100, limit: int = 100, body_bytes_max: int = 1 << 20
) -> ReplayBatch:
    """Read the next batch of a replay."""
    return await bench.database.read_replay_batch(
        job, first=first, rows=rows, limit=limit, body_bytes_max=body_bytes_max
    )


async def stored(bench: Bench) -> sa.Row[tuple[object, ...]]:
    """Return the stored replay."""
    (row,) = await bench.rows(jobs)
    return row


def leased_seqs(released: ReplayRelease) -> list[int]:
    """Return the event numbers of the leased deliveries."""
    return [each.event_seq for each in released.leased]


def event_seqs(ahead: ReplayBatch) -> list[int]:
    """Return the event numbers of a batch."""
    return [each.delivery.event_seq for each in ahead.candidates]


async def a_replay_batch_stops_at_its_limits(bench: Bench) -> None:
    job, candidates = await create_replay(bench, 5)
    size = len(candidates[0].delivery.body)
    assert [each.delivery.event_seq for each in candidates] == [1, 2, 3, 4, 5]
    assert (await read_batch(bench, job)).through == 5
    by_limit, by_bytes = await read_batch(bench, job, limit=3), await read_batch(bench, job, body_bytes_max=size)
    assert (event_seqs(by_limit), by_limit.through) == ([1, 2, 3], 3)
    assert (event_seqs(by_bytes), by_bytes.through) == ([1, 2], 2)
    rest = await read_batch(bench, job, first=4)
    assert (event_seqs(rest), rest.through) == ([4, 5], 5)


async def a_replay_batch_reads_a_limited_number_of_rows(bench: Bench) -> None:
    job, _ = await create_replay(bench, 30)
    others = sa.update(deliveries).where(deliveries.c.event_seq % 10 != 0).values(status=int(Status.DELIVERED))
    await bench.database.write(lambda c: c.execute(others))
    # Two matching deliveries do not reach `limit`, so the batch reads `rows` rows.
    few = await read_batch(bench, job, rows=25, limit=8)
    assert (event_seqs(few), few.through) == ([10, 20], 25)
    none = await read_batch(bench, job, first=21, rows=6, limit=4)
    assert (event_seqs(none), none.through) == ([], 26)
    last = await read_batch(bench, job, first=few.through + 1, rows=25, limit=8)
    assert (event_seqs(last), last.through) == ([30], 30)


async def replay_batches_match_the_count(bench: Bench) -> None:
    """One statement reads batches and another one counts. Both must apply a selection in the same way."""
    job, _ = await create_replay(bench, 24)

    def vary(connection: sa.Connection) -> None:
        of, statuses = deliveries.c.event_seq, (Status.FAILED, Status.DELIVERED, Status.CANCELLED, Status.HELD)
        for number, status in enumerate(statuses):
            connection.execute(sa.update(deliveries).where(of % 4 == number).values(status=int(status)))
        connection.execute(sa.update(deliveries).where(of == 8).values(trigger=int(Trigger.TEST)))
        connection.execute(sa.update(deliveries).where(of == 12).values(completed_at=NOW + 5))
        connection.execute(sa.update(deliveries).where(of == 5).values(endpoint_seq=2))
        connection.execute(sa.update(events).values(type_seq=1 + events.c.seq % 3, created_at=NOW + events.c.seq))
        connection.execute(sa.update(events).where(events.c.seq % 6 == 0).values(object_id="o"))
        connection.execute(sa.update(deliveries).where(of.in_([4, 20])).values(last_outcome=int(Outcome.TLS_ERROR)))
        connection.execute(sa.update(attempts).values(status_code=400 + attempts.c.event_seq))
        connection.execute(sa.update(events).where(events.c.seq == 16).values(expires_at=NOW))
        connection.execute(sa.update(events).where(events.c.seq == 20).values(expires_at=NOW + 1))

    await bench.database.write(vary)
    every = (Status.DELIVERED, Status.FAILED, Status.CANCELLED)
    choices = {
        CHOICE: [4, 20, 24],
        replace(CHOICE, selected_at=NOW + 5): [4, 12, 24],
        replace(CHOICE, object_id="o"): [24],
        replace(CHOICE, outcomes=(Outcome.TLS_ERROR, Outcome.TIMEOUT)): [4, 20],
        replace(CHOICE, status_codes=((404, 404), (424, 429))): [4, 24],
        replace(CHOICE, status_codes=((500, 599),)): [],
        replace(CHOICE, outcomes=(Outcome.TLS_ERROR,), status_codes=((420, 499),)): [20],
        replace(CHOICE, statuses=every): [1, 2, 4, 6, 9, 10, 13, 14, 17, 18, 20, 21, 22, 24],
        replace(CHOICE, statuses=every, type_seqs=(1, 3)): [2, 6, 9, 14, 17, 18, 20, 21, 24],
        replace(CHOICE, statuses=every, created_after=NOW + 9, created_before=NOW + 18): [10, 13, 14, 17],
    }
    for choice, expected in choices.items():
        ahead = await read_batch(bench, replace(job, selection=choice))
        counted = await bench.database.read(lambda c, of=choice: releases.count(c, of, first=1, last=24, rows=100))
        assert (event_seqs(ahead), ahead.through, counted.count) == (expected, 24, len(expected)), choice


async def missing_events_are_replayed_in_order_with_existing_deliveries(bench: Bench) -> None:
    """The count, the batch and a second replay agree on which events are missing."""
    job, _ = await create_replay(bench, 4)
    replayed = replace(CHOICE, missing=MissingEvents(1, (1,)))
    other = [bench.event(due(2)), bench.event(), bench.event(expires_at=NOW), bench.event(account=2)]
    await bench.append(*other, bench.event(created_at=NOW + 9), bench.event())
    test = bench.event(test_deliveries.new_delivery(2))
    await bench.database.append_then(
        test, lambda c, seq: test_deliveries.begin(c, test, seq, lease_until=LEASE_UNTIL, process_id=OWNER)
    )

    def vary(connection: sa.Connection) -> None:
        of = deliveries.c.event_seq
        connection.execute(sa.update(deliveries).where(of == 2).values(status=int(Status.DELIVERED)))
        connection.execute(sa.delete(deliveries).where(of.in_([3, 4])))
        # Retention has deleted the delivery of event 3, but not its attempt.
        connection.execute(sa.delete(attempts).where(attempts.c.event_seq == 4))
        connection.execute(sa.update(events).where(events.c.seq == 10).values(type_seq=2))
        connection.execute(sa.update(jobs).values(missing_type_seqs="[1]", last_event_seq=99, counted_through=99))

    await bench.database.write(vary)
    for choice, expected, missing in (
        (replayed, [1, 4, 5, 6, 9], 4),
        (replace(replayed, statuses=()), [4, 5, 6, 9], 4),
        (replace(replayed, created_after=NOW), [9], 1),
        (replace(replayed, missing=MissingEvents(1, ())), [1], 0),
        (replace(replayed, missing=MissingEvents(1, (2,))), [1, 10], 1),
    ):
        ahead = await read_batch(bench, replace(job, selection=choice, last_event_seq=99))
        counted = await bench.database.read(lambda c, of=choice: releases.count(c, of, first=1, last=99, rows=100))
        assert (event_seqs(ahead), counted.count, counted.missing) == (expected, len(expected), missing), choice
        assert counted.through == 99
    few = await bench.database.read(lambda c: releases.count(c, replayed, first=2, last=99, rows=4))
    assert (few.count, few.through) == (2, 5)
    job = replace(job, selection=replayed, last_event_seq=99)
    ahead = await read_batch(bench, job)
    first = await bench.database.release_replay(1, replayed, ahead, LEASE._replace(limit=3, missing_after=NOW - 1))
    assert [(each.event_seq, each.fence, each.attempts_made, each.resume_status) for each in first.leased] == [
        (1, 2, 1, Status.FAILED), (4, 1, 0, Status.FAILED), (5, 1, 0, Status.FAILED),
    ]  # fmt: skip
    again = await bench.database.release_replay(1, replayed, ahead, LEASE._replace(limit=1, missing_after=NOW - 1))
    assert leased_seqs(again) == [6]
    # Retention will soon delete event 9.
    last = await bench.database.release_replay(1, replayed, ahead, LEASE._replace(missing_after=NOW + 9))
    assert (leased_seqs(last), (await stored(bench)).skipped) == ([], 1)
    created = {row.event_seq: row for row in await bench.rows(deliveries) if row.replay_seq == 1}
    assert {(created[seq].account_seq, created[seq].completed_at, created[seq].trigger) for seq in (4, 5, 6)} == {
        (1, LEASE.now, Trigger.REPLAY)
    }
    await bench.database.settle(
        [
            settled(first.leased[1])._replace(replay_seq=1),
            settled(first.leased[2], Status.FAILED)._replace(replay_seq=1),
        ]
    )
    # After the replay is cancelled, an event without an attempt is missing again. Attempted events are not.
    await bench.database.settle([unattempted(each) for each in (first.leased[0], again.leased[0])])
    await bench.database.write(lambda c: replays.change_state(c, 1, job.id, ReplayState.CANCELLED, now=NOW))
    repeated = await read_batch(bench, replace(job, selection=replace(replayed, statuses=())))
    assert event_seqs(repeated) == [6, 9]


async def a_replay_leases_its_batch_in_order_up_to_its_limits(bench: Bench) -> None:
    _, candidates = await create_replay(bench, 5)
    ahead = ReplayBatch(candidates, 5)
    first = await bench.database.release_replay(1, CHOICE, ahead, LEASE._replace(limit=2))
    assert (leased_seqs(first), first.outstanding, first.next_event_seq) == ([1, 2], 2, 3)
    assert [(each.fence, each.lease_until, each.replay_seq) for each in first.leased] == [(2, LEASE_UNTIL, 1)] * 2
    second = await bench.database.release_replay(1, CHOICE, ahead.after(2), LEASE._replace(outstanding_max=3))
    assert (leased_seqs(second), second.outstanding, second.state) == ([3], 3, ReplayState.RUNNING)
    none = await bench.database.release_replay(1, CHOICE, ahead.after(3), LEASE._replace(outstanding_max=3))
    assert (leased_seqs(none), none.next_event_seq) == ([], 4)
    rows = await bench.rows(deliveries)
    assert [(row.status, row.replay_seq, row.lease_owner, row.trigger) for row in rows[:3]] == [
        (Status.PENDING, 1, OWNER, Trigger.REPLAY)
    ] * 3
    assert {(row.status, row.replay_seq) for row in rows[3:]} == {(Status.FAILED, None)}
    # Leased deliveries are not leased again, and the replay counts their outcomes.
    assert await bench.lease(1, now=NOW + 1) == []
    assert await bench.database.settle([settled(first.leased[0])._replace(replay_seq=1)]) == frozenset()
    assert (await stored(bench)).delivered == 1


async def a_repeated_release_leases_nothing_twice(bench: Bench) -> None:
    _, candidates = await create_replay(bench, 3)
    ahead = ReplayBatch(candidates, 3)
    first = await bench.database.release_replay(1, CHOICE, ahead, LEASE._replace(limit=2))
    assert leased_seqs(first) == [1, 2]
    again = await bench.database.release_replay(1, CHOICE, ahead, LEASE._replace(limit=2))
    assert (leased_seqs(again), again.outstanding) == ([3], 3)
    ended = await bench.database.release_replay(1, CHOICE, ahead, LEASE)
    assert (leased_seqs(ended), ended.outstanding, (await stored(bench)).skipped) == ([], 3, 0)


async def changed_deliveries_are_read_again(bench: Bench) -> None:
    _, candidates = await create_replay(bench, 4)

    def change(connection: sa.Connection) -> None:
        of = deliveries.c.event_seq
        # Event 1 waits for a resend, 2 was delivered, and 3 failed again and can still be replayed.
        connection.execute(sa.update(deliveries).where(of == 1).values(status=int(Status.PENDING), due_at=NOW + 99))
        connection.execute(sa.update(deliveries).where(of == 2).values(status=int(Status.DELIVERED)))
        connection.execute(sa.update(deliveries).where(of == 3).values(fence=5, attempts_made=7))

    await bench.database.write(change)
    released = await bench.database.release_replay(1, CHOICE, ReplayBatch(candidates, 4), LEASE)
    assert [(each.event_seq, each.fence, each.attempts_made) for each in released.leased] == [(3, 6, 7), (4, 2, 1)]
    assert released.next_event_seq == 5
    row = await stored(bench)
    assert (row.skipped, row.total, row.state) == (2, 4, ReplayState.RUNNING)
    assert {(r.event_seq, r.replay_seq) for r in await bench.rows(deliveries)} == {(1, None), (2, None), (3, 1), (4, 1)}


async def expired_deliveries_are_skipped(bench: Bench) -> None:
    _, candidates = await create_replay(bench, 2, expires_at=NOW + 5)
    released = await bench.database.release_replay(1, CHOICE, ReplayBatch(candidates, 2), LEASE._replace(now=NOW + 5))
    assert (leased_seqs(released), released.state) == ([], ReplayState.COMPLETED)
    row = await stored(bench)
    assert (row.skipped, row.completed_at) == (2, NOW + 5)


async def returned_deliveries_come_first_if_they_still_match(bench: Bench) -> None:
    _, candidates = await create_replay(bench, 4)
    ahead = ReplayBatch(candidates, 4)
    leased = (await bench.database.release_replay(1, CHOICE, ahead, LEASE._replace(limit=2))).leased
    await bench.database.settle([unattempted(each) for each in leased])
    await bench.database.write(
        lambda c: c.execute(sa.update(deliveries).where(deliveries.c.event_seq == 1).values(completed_at=NOW + 1))
    )
    released = await bench.database.release_replay(1, CHOICE, ahead.after(2), LEASE._replace(limit=3))
    assert [(each.event_seq, each.fence) for each in released.leased] == [(2, 3), (3, 2)]
    assert (await stored(bench)).skipped == 1
    assert [row.replay_seq for row in await bench.rows(deliveries)] == [None, 1, 1, None]


def unattempted(leased: LeasedDelivery) -> Settlement:
    """Return the settlement of a delivery without an attempt."""
    return settled(leased, Status.FAILED)._replace(attempt=None, attempts_made=leased.attempts_made, last_outcome=None)


async def a_replay_completes_when_empty_and_only_a_running_one_leases(bench: Bench) -> None:
    job, candidates = await create_replay(bench, 2)
    await bench.database.write(lambda c: replays.change_state(c, 1, job.id, ReplayState.PAUSED, now=NOW))
    paused = await bench.database.release_replay(1, CHOICE, ReplayBatch(candidates, 2), LEASE)
    assert (paused.state, leased_seqs(paused), paused.next_event_seq) == (ReplayState.PAUSED, [], 1)
    await bench.database.write(lambda c: replays.change_state(c, 1, job.id, ReplayState.RUNNING, now=NOW))
    released = await bench.database.release_replay(1, CHOICE, ReplayBatch(candidates, 2), LEASE)
    assert (released.state, released.next_event_seq) == (ReplayState.RUNNING, 3)
    settlements = [settled(each)._replace(replay_seq=1) for each in released.leased]
    await bench.database.settle(settlements)
    ended = await bench.database.release_replay(1, CHOICE, ReplayBatch([], 2), LEASE)
    assert ended.state is ReplayState.COMPLETED
    row = await stored(bench)
    assert (row.delivered, row.skipped, row.total, row.completed_at) == (2, 0, 2, LEASE.now)


async def counted_attempts_leave_a_replay_and_others_stay(bench: Bench) -> None:
    await bench.database.write(_running)
    for _ in range(4):
        await bench.append(bench.event(due(1)))
    await bench.database.write(
        lambda c: c.execute(sa.update(deliveries).values(trigger=int(Trigger.REPLAY), resume_status=2, replay_seq=1))
    )
    leased = await bench.lease(1)
    assert [(d.trigger, d.resume_status, d.replay_seq) for d in leased] == [(Trigger.REPLAY, Status.FAILED, 1)] * 4
    delivered, failed, returned, lost = leased
    counted = settled(delivered)._replace(replay_seq=1)
    batch = [
        counted,
        settled(failed, Status.FAILED)._replace(replay_seq=1),
        # A delivery that is returned without an attempt stays in the replay.
        settled(returned, Status.FAILED)._replace(attempt=None, attempts_made=0, last_outcome=None),
        settled(structs.replace(lost, fence=99))._replace(replay_seq=1),
    ]
    assert await bench.database.settle(batch) == {(lost.event_seq, 1)}
    assert await bench.database.settle([counted]) == {(delivered.event_seq, 1)}
    job = await stored(bench)
    assert (job.delivered, job.failed) == (1, 1)
    rows = [(row.status, row.replay_seq) for row in await bench.rows(deliveries)]
    assert rows == [(Status.DELIVERED, None), (Status.FAILED, None), (Status.FAILED, 1), (Status.PENDING, 1)]


def _running(connection: sa.Connection) -> None:
    fields = ("account_seq", "endpoint_seq", "rate_per_second", "state", "total", "counted_through", "next_event_seq",
              "last_event_seq", "created_at", "updated_at")  # fmt: skip
    values = {"id": b"x" * 16, "statuses": "[2]", "types": "[]", "type_seqs": "[]", **dict.fromkeys(fields, 1)}
    connection.execute(sa.insert(jobs).values(values))


REPLAY_CHECKS: Sequence[Check] = [
    a_replay_batch_stops_at_its_limits,
    a_replay_batch_reads_a_limited_number_of_rows,
    replay_batches_match_the_count,
    missing_events_are_replayed_in_order_with_existing_deliveries,
    a_replay_leases_its_batch_in_order_up_to_its_limits,
    a_repeated_release_leases_nothing_twice,
    changed_deliveries_are_read_again,
    expired_deliveries_are_skipped,
    returned_deliveries_come_first_if_they_still_match,
    a_replay_completes_when_empty_and_only_a_running_one_leases,
    counted_attempts_leave_a_replay_and_others_stay,
]
