"""A random walk through the table of transitions, compared with a model after each step.

The walk includes lost leases, late and repeated settlements, commands with a wrong fence, ordered deliveries, and
restarts.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import sqlalchemy as sa

from uplift_server.core.deliveries.ordering import WHOLE_ENDPOINT, Ordering
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import (
    DELIVERED,
    ENDED,
    OPEN,
    TRANSITIONS,
    Event,
    Fact,
    FailedReason,
    NextState,
    State,
    Status,
    Transition,
    Trigger,
    after_failure,
    after_skip,
    previous,
    transition,
)
from uplift_server.core.scheduling.retry_schedule import RetrySchedule
from uplift_server.store import deliveries as delivery_store
from uplift_server.store import endpoint_backlog, replays, test_deliveries
from uplift_server.store import endpoints as endpoint_store
from uplift_server.store.errors import Conflict
from uplift_server.store.hot_records import HeldRequest, LeasedDelivery, NewDelivery, ReplayLease, Settlement
from uplift_server.store.records import EndpointState, HeldAction
from uplift_server.store.replays import MissingEvents, NewReplay, Replay, ReplaySelection
from uplift_server.store.schema import deliveries

from .bench import NOW, Bench, settled
from .delivery_model import Call, Row, changed
from .test_statistics import ACCOUNT_OF, DELETED_ENDPOINT, add_accounts

STEPS_MIN, STEPS_MAX = 200, 3000
SCHEDULE = RetrySchedule((2000,))
LEASE_MS = 30_000
OWNERS = (7, 8)
ALL = 10_000
Key = tuple[int, int]


class Walk:
    """The database, the model of every row, and the leases in the memory of processes."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.random = random.Random(seed)
        self.now = NOW
        self.rows: dict[Key, Row] = {}
        self.expires_at: dict[Key, int | None] = {}
        self.leases: list[tuple[LeasedDelivery, Row]] = []
        """Each lease with the row at the time of the lease. Some leases stay in this list after their end."""
        self.covered: set[Transition] = set()
        self.steps: list[Callable[[], Awaitable[object]]] = [
            *[self.accept] * 3, *[self.lease] * 3, *[self.settle] * 8, self.return_lease, self.expire_leases,
            *[self.hold] * 2, self.drop, *[self.release] * 2, *[self.delete_endpoint] * 2, *[self.cancel] * 2,
            self.erase,
            *[self.resend] * 3, *[self.lease_resend] * 2, self.test, self.replay, self.stop_replay, self.restart,
            self.end_process,
        ]  # fmt: skip

    async def step(self) -> None:
        self.now += self.random.choice((0, 1, 1000, 4000, 10_000))
        before = dict(self.rows)
        await self.random.choice(self.steps)()
        await self.unblock(before)
        await self.compare()

    async def compare(self) -> None:
        stored = await self.bench.rows(deliveries)
        assert {(row.event_seq, row.endpoint_seq): row_of(row) for row in stored} == self.rows

    def open_in_group(self, key: Key, group: int | None) -> list[Key]:
        """Return the other open deliveries to the endpoint of `key` in an order group, in order."""
        found = ((each, row) for each, row in sorted(self.rows.items()) if each[1] == key[1] and each != key)
        return [each for each, row in found if row.status in OPEN and row.order_group == group is not None]

    async def unblock(self, before: dict[Key, Row]) -> None:
        """Apply the rule of order: if a delivery ends or is held, and none of its group is due, unblock the first."""
        for key, row in before.items():
            left = row.status in OPEN and self.rows[key].status is not Status.PENDING
            if left and row.order_group is not None:
                group = self.open_in_group((0, key[1]), row.order_group)
                is_next = group and all(self.rows[each].due_at is None for each in group)
                if is_next and self.rows[group[0]].state is State.BLOCKED:
                    self.expect(group[0], Event.UNBLOCK, set(), Call(self.now))
                    # The due time depends on the order of the changes within the step.
                    await self.adopt_due([group[0]], 0)

    def is_behind(self, key: Key, group: int | None) -> bool:
        """Whether a delivery that is released or replayed waits for another one of its order group."""
        others = [(each, self.rows[each]) for each in self.open_in_group(key, group)]
        return any(row.due_at is not None or each < key for each, row in others)

    def expect(self, key: Key, event: Event, facts: set[Fact], call: Call) -> Transition | None:
        """Apply the transition of the table to the model. Return the transition."""
        row = self.rows.get(key, Row())
        step = transition(row.state, event, facts)
        if step is not None:
            self.covered.add(step)
            self.rows[key] = changed(row, step, call)
        return step

    def is_expired(self, key: Key) -> bool:
        return (self.expires_at[key] or self.now + 1) <= self.now

    def facts(self, key: Key) -> set[Fact]:
        return self.rows[key].remembered_facts() | ({Fact.EXPIRED} if self.is_expired(key) else set())

    def in_state(self, *states: State, endpoint: int | None = None) -> list[Key]:
        found = (key for key, row in sorted(self.rows.items()) if row.state in states)
        return [key for key in found if endpoint in (None, key[1])]

    def random_call(self, trigger: Trigger = Trigger.SCHEDULE, replay_seq: int | None = None) -> Call:
        owner = self.random.choice(OWNERS)
        return Call(self.now, owner, self.now + LEASE_MS, trigger=trigger, replay_seq=replay_seq)

    def record_lease(self, leased: LeasedDelivery) -> None:
        """Record a lease, which must match the model's row."""
        row = self.rows[leased.event_seq, leased.endpoint_seq]
        assert (leased.fence, leased.lease_until, leased.trigger) == (row.fence, row.due_at, row.trigger)
        assert (leased.attempts_made, leased.scheduled_attempts) == (row.attempts_made, row.scheduled_attempts)
        memory = (row.resume_status, row.resume_due_at, row.replay_seq)
        assert (leased.resume_status, leased.resume_due_at, leased.replay_seq) == memory
        self.leases.append((leased, row))

    def earliest_due(self) -> int:
        return min([self.now, *(row.due_at for row in self.rows.values() if row.due_at is not None)])

    async def adopt_due(self, keys: list[Key], earliest: int) -> None:
        """Copy the due times of returned or unblocked deliveries, which depend on their order within the statement."""
        for stored in await self.bench.rows(deliveries):
            key = (stored.event_seq, stored.endpoint_seq)
            if key in keys:
                assert earliest <= stored.due_at <= self.now
                self.rows[key] = replace(self.rows[key], due_at=stored.due_at)

    async def adopt_replays(self) -> None:
        """Copy the replay of each ended delivery, because the table does not say when a replay drops a delivery."""
        for stored in await self.bench.rows(deliveries):
            if stored.status in ENDED:
                key = (stored.event_seq, stored.endpoint_seq)
                self.rows[key] = replace(self.rows[key], replay_seq=stored.replay_seq)

    # ---- operations of users

    async def accept(self) -> None:
        endpoint = self.random.choice((1, 2, DELETED_ENDPOINT, DELETED_ENDPOINT))
        facts = self.random.choice(({Fact.CAPACITY, Fact.ENABLED}, {Fact.ENABLED}, set()))
        call = self.random_call()
        expires_at = self.random.choice((None, None, None, self.now + 10_000, self.now + 30_000))
        model = changed(Row(), found, call) if (found := transition(State.NEW, Event.ACCEPT, facts)) else Row()
        assert model.status is not None
        group = self.random.choice((None, None, 5, 6))
        owed = NewDelivery(endpoint, model.status, model.due_at, model.lease_owner, group)
        event = self.bench.event(owed, account=ACCOUNT_OF[endpoint], created_at=self.now, expires_at=expires_at)
        [stored] = await self.bench.append(event)
        key = (stored.seq, endpoint)
        self.expires_at[key] = expires_at
        if self.open_in_group(key, group):
            facts = facts | {Fact.BEHIND}
        self.expect(key, Event.ACCEPT, facts, call)
        self.rows[key] = replace(self.rows[key], order_group=group)
        is_blocked = self.rows[key].state is State.BLOCKED
        assert list(stored.blocked) == ([endpoint] if is_blocked else [])
        if model.lease_owner and not is_blocked:
            self.record_lease(
                LeasedDelivery(
                    stored.seq, endpoint, 1, self.now + LEASE_MS, 0, 0, Trigger.SCHEDULE, event.id, 1, self.now,
                    expires_at, event.body,
                )
            )  # fmt: skip

    async def test(self) -> None:
        event = self.bench.event(
            test_deliveries.new_delivery(endpoint := self.random.choice((1, 2))), created_at=self.now
        )
        call = self.random_call(Trigger.TEST)
        until = self.now + LEASE_MS
        leased = await self.bench.database.append_then(
            event, lambda c, seq: test_deliveries.begin(c, event, seq, lease_until=until, process_id=call.process_id)
        )
        key = (leased.event_seq, endpoint)
        self.expires_at[key] = None
        self.expect(key, Event.TEST, set(), call)
        self.record_lease(leased)

    async def hold(self) -> None:
        endpoint = self.random.choice((1, 2))

        def hold(connection: sa.Connection) -> None:
            endpoint_store.deactivate(connection, endpoint, EndpointState.PAUSED, None, now=self.now)
            endpoint_backlog.hold_waiting(connection, endpoint, now=self.now, limit=ALL)
            endpoint_store.enable(connection, endpoint, HeldAction.SEND, now=self.now)

        await self.bench.database.write(hold)
        self.expect_all(Event.HOLD, self.in_state(State.WAITING, State.BLOCKED, endpoint=endpoint))

    async def release(self) -> None:
        endpoint, limit = self.random.choice(list(ACCOUNT_OF)), self.random.choice((1, 3, 9))
        held = self.in_state(State.HELD, endpoint=endpoint)[:limit]
        others = self.in_state(State.WAITING, endpoint=endpoint)
        waits = any((self.rows[key].due_at or 0) <= self.now for key in others)
        expired = sum(map(self.is_expired, held))
        [released] = await self.bench.database.release_held([HeldRequest(endpoint, 0, limit)], now=self.now)
        assert released.is_blocked == waits
        if not waits:
            assert (released.released, released.expired) == (len(held) - expired, expired)
            for key in held:
                behind = {Fact.BEHIND} if self.is_behind(key, self.rows[key].order_group) else set()
                self.expect(key, Event.RELEASE, self.facts(key) | behind, Call(self.now))

    async def drop(self) -> None:
        endpoint = self.random.choice(list(ACCOUNT_OF))
        through = self.random.choice([event for event, _ in self.rows] or [0])
        await self.bench.database.write(
            lambda c: endpoint_backlog.cancel_held(c, endpoint, through=through, now=self.now, limit=ALL)
        )
        self.expect_all(Event.DROP, [key for key in self.in_state(State.HELD, endpoint=endpoint) if key[0] <= through])

    async def erase(self) -> None:
        """Erase an event. An ended delivery keeps its state, but earlier reads of it become invalid."""
        if not self.rows:
            return
        state = self.random.choice((State.WAITING, State.BLOCKED, State.LEASED, State.HELD, State.FAILED))
        event, _ = self.random.choice(self.in_state(state) or sorted(self.rows))
        await self.bench.database.write(lambda c: endpoint_backlog.cancel_of_events(c, [event], now=self.now))
        for key in [key for key in self.rows if key[0] == event]:
            if self.expect(key, Event.ERASE, self.facts(key), Call(self.now)) is None:
                row = self.rows[key]
                self.rows[key] = replace(row, fence=row.fence + 1, replay_seq=None)
            self.rows[key] = replace(self.rows[key], order_group=None)

    async def delete_endpoint(self) -> None:
        await self.end_process()
        await self.bench.database.write(
            lambda c: endpoint_backlog.cancel_waiting(c, DELETED_ENDPOINT, now=self.now, limit=ALL)
        )
        states = (State.WAITING, State.BLOCKED, State.HELD)
        self.expect_all(Event.DELETE_ENDPOINT, self.in_state(*states, endpoint=DELETED_ENDPOINT))

    def expect_all(self, event: Event, keys: list[Key]) -> None:
        for key in keys:
            self.expect(key, event, self.facts(key), Call(self.now))

    async def cancel(self) -> None:
        key, fence, facts = self.random_command()
        done = await self.unless_conflict(lambda c: endpoint_backlog.cancel(c, *key, fence=fence, now=self.now))
        assert done == (self.expect(key, Event.CANCEL, facts, Call(self.now)) is not None)

    async def resend(self) -> None:
        """Resend through the owner, which leases the delivery, or through another process, which leases nothing."""
        key, fence, facts = self.random_command()
        call = self.random_call(Trigger.RESEND)
        by_owner = self.random.random() < 0.7
        held, process_id = (fence, call.process_id) if by_owner else (None, 0)
        facts |= {Fact.OWNER} if by_owner else set()
        found: list[LeasedDelivery] = []

        def resend(connection: sa.Connection) -> None:
            until = self.now + LEASE_MS
            leased = delivery_store.start_resend(
                connection, *key, fence=held, now=self.now, lease_until=until, process_id=process_id
            )
            found.append(leased)

        done = await self.unless_conflict(resend)
        assert done == (self.expect(key, Event.RESEND, facts, call) is not None)
        if done and by_owner:
            self.record_lease(found[-1])

    async def lease_resend(self) -> None:
        """Let the owner lease a resend that another process started, before the other deliveries of the endpoint."""
        key = self.random.choice(self.in_state(State.WAITING) or sorted(self.rows))
        call = self.random_call()
        leased = await self.bench.database.write(
            lambda c: delivery_store.lease_resend(c, *key, lease_until=self.now + LEASE_MS, process_id=call.process_id)
        )
        row = self.rows[key]
        assert (leased is not None) == (row.state is State.WAITING and row.trigger is Trigger.RESEND)
        if leased is not None:
            self.expect(key, Event.LEASE, {Fact.DUE}, call)
            self.record_lease(leased)

    def random_command(self) -> tuple[Key, int, set[Fact]]:
        """Return a random delivery, a fence that may be wrong, and the facts for the table."""
        states = (State.WAITING, State.BLOCKED, State.LEASED, State.HELD, State.CANCELLED, State.FAILED)
        state = self.random.choice(states)
        key = self.random.choice(self.in_state(state) or sorted(self.rows))
        fence = self.rows[key].fence - self.random.choice((0, 0, 0, 1))
        in_flight = self.rows[key].state is State.LEASED and fence != self.rows[key].fence
        return key, fence, self.facts(key) | ({Fact.IN_FLIGHT} if in_flight else set())

    async def unless_conflict(self, body: Callable[[sa.Connection], None]) -> bool:
        try:
            await self.bench.database.write(body)
        except Conflict:
            return False
        return True

    # ---- leases and settlements

    async def lease(self) -> None:
        endpoint, limit, call = self.random.choice(list(ACCOUNT_OF)), self.random.choice((1, 3)), self.random_call()
        due = [(self.rows[key].due_at or 0, *key) for key in self.in_state(State.WAITING, endpoint=endpoint)]
        keys = [(event, endpoint) for at, event, _ in sorted(due) if at <= self.now][:limit]
        until = self.now + LEASE_MS
        leased = await self.bench.lease(endpoint, limit, now=self.now, until=until, process_id=call.process_id)
        assert [(each.event_seq, each.endpoint_seq) for each in leased] == keys
        for key, each in zip(keys, leased, strict=True):
            self.expect(key, Event.LEASE, {Fact.DUE}, call)
            self.record_lease(each)

    async def settle(self) -> None:
        """Settle some leases in one batch. Some have expired, and some are settled again later."""
        if self.random.random() < 0.3:
            self.random.shuffle(self.leases)
        batch: dict[Key, Settlement] = {}
        lost: set[Key] = set()
        for leased, row in self.leases[-self.random.randint(1, 4) :]:
            key = (leased.event_seq, leased.endpoint_seq)
            if key in batch:
                continue
            event, facts, call, verdict = self.outcome(leased, row)
            for _ in range(5):
                if transition(self.rows[key].state, event, facts) not in self.covered:
                    break
                event, facts, call, verdict = self.outcome(leased, row)
            if self.rows[key].fence != row.fence or self.rows[key].attempts_made != row.attempts_made:
                facts |= {Fact.LEASED_AGAIN}
            batch[key] = settlement(leased, event, verdict, self.now)
            if self.expect(key, event, facts, call) is None:
                lost.add(key)
            if key in lost or self.random.random() < 0.8:
                self.leases.remove((leased, row))
        assert await self.bench.database.settle(list(batch.values())) == lost

    def outcome(self, leased: LeasedDelivery, row: Row) -> tuple[Event, set[Fact], Call, NextState]:
        """Return a random outcome for a lease: the event, its facts and arguments, and the state to write."""
        event = self.random.choice((Event.SUCCEED, Event.FAIL, Event.FAIL, Event.FAIL, Event.SKIP, Event.SKIP))
        before = previous(leased.resume_status, leased.resume_due_at or leased.lease_until)
        is_inactive, is_deleted = self.random.random() < 0.4, self.random.random() < 0.2
        facts = (
            row.remembered_facts() | ({Fact.OFF} if is_inactive else set()) | ({Fact.DELETED} if is_deleted else set())
        )
        # Without a due time, a returned pending delivery is due at the end of the lease.
        remembered = replace(row, resume_due_at=None if before is None else before.due_at)
        if event is Event.SKIP:
            verdict = after_skip(
                before=before, deleted=is_deleted, off=is_inactive, expires_at=leased.expires_at, now_ms=self.now
            )
            facts |= {Fact.EXPIRED} if (leased.expires_at or self.now + 1) <= self.now else set()
            return event, facts, Call(self.now, leased=remembered), verdict
        outcome = Outcome.DELIVERED if event is Event.SUCCEED else Outcome.SERVER_ERROR
        call = Call(self.now, outcome=outcome, leased=remembered)
        if event is Event.SUCCEED:
            return event, facts, call, DELIVERED
        scheduled = max(1, leased.scheduled_attempts + (leased.trigger is Trigger.SCHEDULE))
        delay_ms = SCHEDULE.delay_ms(scheduled, 0.5)
        verdict = after_failure(
            before=before, off=is_inactive, scheduled_attempts=scheduled, schedule=SCHEDULE, now_ms=self.now,
            expires_at=leased.expires_at, retry_after_ms=None, draw=0.5,
        )  # fmt: skip
        if delay_ms is None:
            return event, facts | {Fact.EXHAUSTED}, call, verdict
        retry_at = self.now + delay_ms
        facts |= {Fact.EXPIRED} if (leased.expires_at or retry_at + 1) <= retry_at else set()
        return event, facts, replace(call, retry_at=retry_at), verdict

    async def return_lease(self) -> None:
        if self.leases:
            leased, row = self.leases.pop(self.random.randrange(len(self.leases)))
            key = (leased.event_seq, leased.endpoint_seq)
            await self.bench.database.release([(*key, leased.fence)], now=self.now)
            facts = {Fact.LEASED_AGAIN} if self.rows[key].fence != row.fence else set()
            earliest = self.earliest_due()
            if self.expect(key, Event.RETURN_LEASE, facts, Call(self.now)) is not None:
                await self.adopt_due([key], earliest)

    async def expire_leases(self) -> None:
        await self.reclaim([key for key in self.in_state(State.LEASED) if (self.rows[key].due_at or 0) <= self.now])

    async def restart(self) -> None:
        """Close the database and open it again."""
        await self.bench.reopen()
        await self.end_process()

    async def end_process(self) -> None:
        """End a process, and expire its leases. Like a slow process, it may still settle them later."""
        owner = self.random.choice(OWNERS)
        await self.reclaim([key for key in self.in_state(State.LEASED) if self.rows[key].lease_owner == owner], owner)

    async def reclaim(self, keys: list[Key], process_id: int | None = None) -> None:
        assert await self.bench.database.reclaim(now=self.now, process_id=process_id) == len(keys)
        earliest = self.earliest_due()
        for key in keys:
            self.expect(key, Event.EXPIRE_LEASE, set(), Call(self.now))
        await self.adopt_due(keys, earliest)

    # ---- replays

    async def replay(self) -> None:
        endpoint = self.random.choice((1, 2))
        last = max((event for event, _ in self.rows), default=0)
        missing = self.random.choice((None, MissingEvents(ACCOUNT_OF[endpoint], (1,))))
        choice = ReplaySelection(endpoint, ENDED, (), None, None, self.now, missing=missing)
        new = NewReplay(self.random.randbytes(16), ACCOUNT_OF[endpoint], choice, (), 50, 0, last, 1, last)
        await self.unless_conflict(lambda c: ignore(replays.create(c, new)))
        for job in await self.unfinished():
            if job.state is ReplayState.PAUSED:
                await self.change_state(job, ReplayState.RUNNING)
            call = self.random_call(Trigger.REPLAY, job.seq)
            ahead = await self.bench.database.read_replay_batch(
                job, first=job.next_event_seq, rows=20, limit=5, body_bytes_max=9999
            )
            lease = ReplayLease(
                self.now, self.now + LEASE_MS, call.process_id, limit=3, outstanding_max=9, body_bytes_max=9999,
                ordering=self.random.choice((Ordering.NONE, Ordering.ENDPOINT)),
            )  # fmt: skip
            released = await self.bench.database.release_replay(job.seq, job.selection, ahead, lease)
            for leased in released.leased:
                key = (leased.event_seq, leased.endpoint_seq)
                if key not in self.rows:
                    self.rows[key], self.expires_at[key] = Row(), leased.expires_at
                assert self.expect(key, Event.REPLAY, self.facts(key), call) is not None
                self.record_lease(leased)
            assert released.ordered == await self.expect_ordered(job, call)
        await self.adopt_replays()

    async def expect_ordered(self, job: Replay, call: Call) -> int:
        """Update the model for the ordered deliveries that a replay released without a lease. Return their number."""
        count = 0
        for stored in await self.bench.rows(deliveries):
            key = (stored.event_seq, stored.endpoint_seq)
            row = self.rows.get(key, Row())
            if stored.replay_seq != job.seq or stored.status != Status.PENDING or stored.fence == row.fence:
                continue
            if key not in self.rows:
                self.rows[key], self.expires_at[key] = Row(), None
                row = replace(row, order_group=WHOLE_ENDPOINT)
            assert row.order_group is not None
            facts = self.facts(key) | {Fact.ORDERED}
            facts |= {Fact.BEHIND} if self.is_behind(key, row.order_group) else set()
            assert self.expect(key, Event.REPLAY, facts, call) is not None
            self.rows[key] = replace(self.rows[key], order_group=row.order_group)
            count += 1
        return count

    async def stop_replay(self) -> None:
        await self.end_process()
        for job in await self.unfinished():
            state = self.random.choice((ReplayState.PAUSED, ReplayState.CANCELLED))
            if state is job.state:
                continue
            await self.change_state(job, state)
            unleased = self.in_state(State.WAITING, State.BLOCKED)
            waiting = [key for key in unleased if self.rows[key].replay_seq == job.seq]
            self.expect_all(Event.STOP_REPLAY, waiting)
        await self.adopt_replays()

    async def change_state(self, job: Replay, state: ReplayState) -> None:
        await self.unless_conflict(lambda c: ignore(replays.change_state(c, None, job.id, state, now=self.now)))

    async def unfinished(self) -> list[Replay]:
        found = await self.bench.database.read(replays.unfinished)
        return [job for job in found if job.state is not ReplayState.CANCELLED]


def ignore(_result: object) -> None:
    """Ignore a result."""


def row_of(stored: sa.Row[tuple[object, ...]]) -> Row:
    """Return the model of a stored row."""
    values = {name: getattr(stored, name) for name in Row.__dataclass_fields__}
    of = {"status": Status, "trigger": Trigger, "resume_status": Status, "failed_reason": FailedReason}
    return Row(**{name: of.get(name, int)(value) if value is not None else None for name, value in values.items()})


def settlement(leased: LeasedDelivery, event: Event, verdict: NextState, now: int) -> Settlement:
    """Return the settlement that a process writes."""
    completed_at = now if verdict.status in ENDED else None
    written = settled(leased, Status.DELIVERED if event is Event.SUCCEED else Status.FAILED)
    written = written._replace(
        status=verdict.status,
        due_at=verdict.due_at,
        failed_reason=verdict.failed_reason,
        completed_at=completed_at,
        replay_seq=leased.replay_seq,
        scheduled_attempts=leased.scheduled_attempts + (leased.trigger is Trigger.SCHEDULE),
    )
    if event is not Event.SKIP:
        return written
    return written._replace(
        attempt=None,
        attempts_made=leased.attempts_made,
        scheduled_attempts=leased.scheduled_attempts,
        last_outcome=None,
        replay_seq=None,
    )


async def test_every_row_follows_the_table_of_transitions(any_bench: Bench) -> None:
    await any_bench.database.write(add_accounts)
    walk = Walk(any_bench, seed=8)
    await walk.accept()
    for step in range(STEPS_MAX):
        await walk.step()
        if step >= STEPS_MIN and walk.covered == set(TRANSITIONS):
            return
    assert walk.covered == set(TRANSITIONS), "the walk did not cover every transition"
