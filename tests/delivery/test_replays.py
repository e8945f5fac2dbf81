"""Replays under a virtual clock: order, rate, pause and cancel; no delivery is lost or sent twice."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from tests.engines import Place

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.replays import jobs as loop
from uplift_server.store import cleanup, replays, statistics
from uplift_server.store.deliveries import start_resend
from uplift_server.store.records import DisabledReason, EndpointState, HeldAction
from uplift_server.store.replays import MissingEvents, NewReplay, Replay, ReplaySelection
from uplift_server.store.schema import audit_log, deliveries, events
from uplift_server.store.schema import replays as jobs
from uplift_server.store.statistics import Scope

from .owner import Owner
from .test_engine import resend
from .world import HOUR, MINUTE, SECOND, World, respond

HOST = "one.test"


async def create_failed(world: World, count: int, **settings: Any) -> LiveEndpoint:
    """Create an endpoint whose deliveries failed, and whose receiver now responds with 200."""
    endpoint = await world.endpoint(HOST, lambda _: respond(500), **settings)
    await world.accept(count)
    await world.run_for(SECOND)
    assert await world.statuses() == {Status.FAILED: count}
    world.sender.scripts[HOST] = lambda _: respond(200)
    world.sender.sent.clear()
    return endpoint


async def replay(
    world: World,
    endpoint: LiveEndpoint,
    *,
    rate: int = 10,
    statuses: tuple[Status, ...] = (Status.FAILED,),
    missing: bool = False,
) -> int:
    """Start a replay of the endpoint's deliveries with these statuses, as the service does. Return its number."""
    types = tuple(each.seq for each in world.cache.event_types.values())
    missing_events = MissingEvents(endpoint.record.account_seq, types) if missing else None
    choice = ReplaySelection(endpoint.seq, statuses, (), None, None, world.clock.now, missing=missing_events)
    last = await world.database.read(lambda c: c.scalar(sa.select(sa.func.max(events.c.seq)))) or 0
    new = NewReplay(world.fresh_id(), endpoint.record.account_seq, choice, (), rate, 0, 0, 1, last)
    created = await world.database.write(lambda c: replays.create(c, new))
    world.parts.replays.put(created)
    await world.settle()
    return created.seq


async def stored(world: World, seq: int) -> Replay:
    """Return a stored replay."""
    return await world.database.read(lambda c: replays.one(c, jobs.c.seq == seq))


async def change_state(world: World, seq: int, state: ReplayState) -> Replay:
    """Pause, resume or cancel a replay as the service does."""
    job = await stored(world, seq)
    changed = await world.database.write(lambda c: replays.change_state(c, None, job.id, state, now=world.clock.now))
    assert changed is not None
    world.parts.replays.put(changed[0])
    await world.settle()
    return changed[0]


def counts(job: Replay) -> tuple[int, int, int, int]:
    """Return the counts of a replay: total, delivered, failed, skipped."""
    return job.total, job.delivered, job.failed, job.skipped


def sent_events(world: World) -> list[bytes]:
    """Return the IDs of the sent events in order."""
    return [request.body[7:43] for _, _, request in world.sender.sent]


async def replayed(world: World) -> list[int]:
    """Return the event numbers of the attempts that replays made, in order."""
    return [row.event_seq for row in await world.attempts() if row.trigger == Trigger.REPLAY]


async def count_leased(world: World) -> int:
    """Return the number of deliveries that replays have leased."""
    return sum(row.replay_seq is not None for row in await world.deliveries())


async def test_a_replay_sends_in_order_at_an_even_rate(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 30)
        began = world.clock.now
        job = await replay(world, endpoint, rate=10)
        await world.run_for(10 * SECOND)
        times = world.sender.times(HOST)
        order = await replayed(world)
        assert order == sorted(order)
        assert len(order) == len(times) == 30
        assert all(80 <= later - earlier <= 130 for earlier, later in pairwise(times))
        assert times[0] - began <= 100
        assert 2800 <= times[-1] - times[0] <= 3000
        assert await world.statuses() == {Status.DELIVERED: 30}
        done = await stored(world, job)
        assert (done.state, counts(done)) == (ReplayState.COMPLETED, (30, 30, 0, 0))
        assert done.completed_at is not None
        assert await count_leased(world) == 0


async def test_a_high_rate_is_reached_with_few_outstanding_deliveries(
    place: Place,
) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 600)
        world.sender.latency_ms[HOST] = 5
        began = world.clock.now
        job = await replay(world, endpoint, rate=500)
        most = 0
        while (await stored(world, job)).state is not ReplayState.COMPLETED:
            await world.run_for(50)
            most = max(most, await count_leased(world))
        assert most <= 500 / 5
        assert 1200 <= world.sender.times(HOST)[-1] - began <= 1400
        assert Counter(sent_events(world)).most_common(1)[0][1] == 1
        assert counts(await stored(world, job)) == (600, 600, 0, 0)


async def test_missing_events_are_sent_once_in_order_with_failed_ones(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        await world.accept(20)
        endpoint = await create_failed(world, 5)
        other = await world.endpoint("other.test")
        await world.accept(3)
        await Owner(world).test(other.seq)
        # Wait until the statistics have counted these events, before the replay creates more deliveries.
        await world.run_for(2 * MINUTE)
        world.sender.sent.clear()
        job = await replay(world, endpoint, missing=True)
        await world.run_for(2 * MINUTE)
        order = await replayed(world)
        assert order == sorted(order)
        assert (len(order), len(world.sender.times(HOST))) == (25, 25)
        done = await stored(world, job)
        assert (done.state, counts(done)) == (ReplayState.COMPLETED, (25, 25, 0, 0))
        rows = [row for row in await world.deliveries() if row.endpoint_seq == endpoint.seq]
        assert {(row.status, row.trigger) for row in rows} == {(Status.DELIVERED, Trigger.SCHEDULE)}
        assert sorted(row.attempts_made for row in rows) == [1] * 23 + [2] * 5
        scope = Scope(endpoint.record.account_seq, endpoint.seq)
        hours = (await world.database.read(lambda c: statistics.by_bucket(c, [scope], since=0)))[scope]
        assert [(each.deliveries, each.delivered, each.failed, each.held) for _, each in hours] == [(28, 28, 0, 0)]
        again = await replay(world, endpoint, missing=True)
        await world.run_for(SECOND)
        assert counts(await stored(world, again)) == (0, 0, 0, 0)


async def test_a_missing_event_that_fails_can_be_replayed(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        await world.accept(3)
        endpoint = await world.endpoint(HOST, lambda _: respond(503))
        job = await replay(world, endpoint, statuses=(), missing=True)
        await world.run_for(MINUTE)
        assert counts(await stored(world, job)) == (3, 0, 3, 0)
        assert {row.failed_reason for row in await world.deliveries()} == {FailedReason.EXHAUSTED}
        world.sender.scripts[HOST] = lambda _: respond(200)
        job = await replay(world, endpoint)
        await world.run_for(MINUTE)
        assert counts(await stored(world, job)) == (3, 3, 0, 0)


@pytest.mark.parametrize("how", ["kill", "pause", "cancel"])
async def test_missing_events_are_sent_once_despite_interruptions(place: Place, how: str) -> None:
    async with World(place, delays_ms=()) as world:
        await world.accept(60)
        endpoint = await world.endpoint(HOST, max_in_flight=2)
        job = await replay(world, endpoint, rate=20, statuses=(), missing=True)
        in_flight = 0
        for _ in range(3):
            world.sender.latency_ms[HOST] = 300
            await world.run_for(650)
            if how == "kill":
                in_flight += 2
                await world.kill()
            elif how == "pause":
                await change_state(world, job, ReplayState.PAUSED)
                await world.run_for(MINUTE)
                await change_state(world, job, ReplayState.RUNNING)
            else:
                await change_state(world, job, ReplayState.CANCELLED)
                await world.run_for(SECOND)
                job = await replay(world, endpoint, rate=20, statuses=(), missing=True)
        world.sender.latency_ms[HOST] = 0
        await world.run_for(20 * SECOND)
        assert (await stored(world, job)).state is ReplayState.COMPLETED
        assert await world.statuses() == {Status.DELIVERED: 60}
        times_sent = Counter(sent_events(world))
        assert len(times_sent) == 60
        assert sum(times_sent.values()) - 60 <= in_flight


async def test_missing_events_that_retention_soon_deletes_are_skipped(place: Place) -> None:
    world = World(place, delays_ms=(), scan_every_ms=60 * SECOND)
    world.settings = replace(world.settings, retention_ms=10 * MINUTE)
    async with world:
        await world.accept(2)
        await world.run_for(6 * MINUTE)
        await world.accept(3)
        endpoint = await world.endpoint(HOST)
        job = await replay(world, endpoint, statuses=(), missing=True)
        await world.run_for(5 * SECOND)
        assert counts(await stored(world, job)) == (5, 3, 0, 2)


async def test_a_failed_replay_attempt_keeps_the_previous_status(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 3)
        before = await world.deliveries()
        world.sender.scripts[HOST] = lambda _: respond(503)
        job = await replay(world, endpoint)
        await world.run_for(5 * SECOND)
        assert counts(await stored(world, job)) == (3, 0, 3, 0)
        kept = ("status", "failed_reason", "completed_at", "due_at", "scheduled_attempts", "resume_status", "trigger")
        for old, new in zip(before, await world.deliveries(), strict=True):
            assert [getattr(old, name) for name in kept] == [getattr(new, name) for name in kept]
            assert (new.failed_reason, new.attempts_made, new.replay_seq) == (FailedReason.EXHAUSTED, 2, None)


async def test_a_replay_selects_undelivered_or_delivered_events(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 4)
        await world.database.write(
            lambda c: c.execute(
                sa.update(deliveries).where(deliveries.c.event_seq <= 2).values(status=int(Status.CANCELLED))
            )
        )
        await world.accept(3)
        world.sender.sent.clear()
        never = await replay(world, endpoint, statuses=(Status.FAILED, Status.CANCELLED))
        await world.run_for(2 * SECOND)
        assert (counts(await stored(world, never)), len(world.sender.sent)) == ((4, 4, 0, 0), 4)
        world.sender.scripts[HOST] = lambda _: respond(500)
        again = await replay(world, endpoint, statuses=(Status.DELIVERED,))
        await world.run_for(2 * SECOND)
        # These deliveries were delivered before, and stay delivered.
        assert counts(await stored(world, again)) == (7, 0, 7, 0)
        assert await world.statuses() == {Status.DELIVERED: 7}


async def test_deliveries_that_end_later_are_not_replayed(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 20)
        world.sender.scripts[HOST] = lambda _: respond(500)
        job = await replay(world, endpoint, rate=2)
        await world.run_for(SECOND)
        await world.accept(5)
        await world.run_for(20 * SECOND)
        assert counts(await stored(world, job)) == (20, 0, 20, 0)
        assert len(world.sender.sent) == 25


async def test_a_resume_continues_at_the_position_of_the_pause(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 40, max_in_flight=2)
        world.sender.latency_ms[HOST] = 400
        job = await replay(world, endpoint, rate=100)
        await world.run_for(1000)
        assert 4 <= await count_leased(world) <= 100 / 5
        await change_state(world, job, ReplayState.PAUSED)
        sent = len(world.sender.sent)
        await world.run_for(10 * MINUTE)
        assert len(world.sender.sent) == sent
        # The attempts in flight at the pause have ended and count. Waiting deliveries have their earlier status again.
        paused = await stored(world, job)
        assert (paused.state, paused.delivered) == (ReplayState.PAUSED, sent)
        assert await world.statuses() == {Status.DELIVERED: sent, Status.FAILED: 40 - sent}
        await change_state(world, job, ReplayState.RUNNING)
        await world.run_for(60 * SECOND)
        assert counts(await stored(world, job)) == (40, 40, 0, 0)
        order = await replayed(world)
        assert order == sorted(set(order))
        assert len(world.sender.sent) == len(order)


async def test_a_cancel_within_a_second_keeps_the_rest_unchanged(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 40, max_in_flight=2)
        world.sender.latency_ms[HOST] = 400
        job = await replay(world, endpoint, rate=100)
        await world.run_for(1000)
        assert await count_leased(world) > 2
        cancelled = await change_state(world, job, ReplayState.CANCELLED)
        assert cancelled.state is ReplayState.CANCELLED
        sent = len(world.sender.sent)
        await world.run_for(2 * SECOND)
        assert len(world.sender.sent) == sent
        assert await world.statuses() == {Status.DELIVERED: sent, Status.FAILED: 40 - sent}
        ended = await stored(world, job)
        assert (ended.state, ended.delivered, await count_leased(world)) == (ReplayState.CANCELLED, sent, 0)
        assert ended.completed_at is not None
        # Another replay can start with the remaining deliveries.
        rest = await replay(world, endpoint, rate=100)
        await world.run_for(20 * SECOND)
        assert counts(await stored(world, rest)) == (40 - sent, 40 - sent, 0, 0)


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_a_replay_continues_after_a_restart(place: Place, how: str) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 60)
        job = await replay(world, endpoint, rate=20)
        for _ in range(4):
            await world.run_for(500)
            world.sender.latency_ms[HOST] = 300
            await world.run_for(150)
            await (world.restart() if how == "restart" else world.kill())
            world.sender.latency_ms[HOST] = 0
        await world.run_for(20 * SECOND)
        done = await stored(world, job)
        assert (done.state, counts(done)) == (ReplayState.COMPLETED, (60, 60, 0, 0))
        times_sent = Counter(sent_events(world))
        assert len(times_sent) == 60
        # Only deliveries in flight at the kill are sent twice.
        assert sum(count - 1 for count in times_sent.values()) <= (0 if how == "restart" else 4 * 6)
        assert await count_leased(world) == 0


@pytest.mark.parametrize("state", [ReplayState.PAUSED, ReplayState.CANCELLED])
async def test_a_restart_returns_the_leases_of_a_stopped_replay(place: Place, state: ReplayState) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 20)
        world.sender.scripts[HOST] = lambda _: None
        job = await replay(world, endpoint, rate=100)
        await world.run_for(SECOND)
        await change_state(world, job, state)
        assert (await world.statuses())[Status.PENDING] == 4
        world.sender.sent.clear()
        await world.kill()
        await world.run_for(5 * SECOND)
        assert world.sender.sent == []
        assert await world.statuses() == {Status.FAILED: 20}
        assert ((await stored(world, job)).completed_at is None) == (state is ReplayState.PAUSED)


@pytest.mark.parametrize(
    ("state", "reason"),
    [(EndpointState.PAUSED, None), (EndpointState.DISABLED, DisabledReason.FAILING)],
    ids=["paused", "disabled"],
)
async def test_a_replay_waits_while_its_endpoint_is_paused_or_disabled(
    place: Place, state: EndpointState, reason: DisabledReason | None
) -> None:
    async with World(place, delays_ms=(), scan_every_ms=60 * SECOND) as world:
        endpoint = await create_failed(world, 30, max_in_flight=2)
        world.sender.latency_ms[HOST] = 400
        job = await replay(world, endpoint, rate=100)
        await world.run_for(1000)
        await world.deactivate(endpoint.seq, state, reason)
        sent = len(world.sender.sent)
        await world.run_for(10 * MINUTE)
        assert len(world.sender.sent) == sent
        waiting = await stored(world, job)
        assert (waiting.state, waiting.delivered) == (ReplayState.RUNNING, sent)
        # The replay leaves no deliveries pending while the endpoint is paused or disabled.
        assert await world.statuses() == {Status.DELIVERED: sent, Status.FAILED: 30 - sent}
        await world.enable(endpoint.seq, HeldAction.DROP)
        await world.run_for(60 * SECOND)
        assert counts(await stored(world, job)) == (30, 30, 0, 0)
        assert Counter(sent_events(world)).most_common(1)[0][1] == 1


async def test_deleting_the_endpoint_cancels_its_replay(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 30)
        job = await replay(world, endpoint)
        await world.run_for(SECOND)
        sent = len(world.sender.sent)
        await world.delete_endpoint(endpoint.seq)
        await world.run_for(2 * SECOND)
        assert len(world.sender.sent) == sent
        ended = await stored(world, job)
        assert (ended.state, ended.delivered, await count_leased(world)) == (ReplayState.CANCELLED, sent, 0)
        assert ended.completed_at is not None
        (entry,) = await world.database.read(lambda c: list(c.execute(sa.select(audit_log))))
        assert (entry.action, entry.actor_name) == ("replay.cancelled", "Uplift Webhooks")


async def test_a_replay_waits_until_its_endpoint_is_in_the_cache(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 5)
        world.cache.drop_endpoint(endpoint.seq)
        job = await replay(world, endpoint)
        await world.run_for(5 * SECOND)
        assert (await stored(world, job)).state is ReplayState.RUNNING
        world.cache.put_endpoint(endpoint.record)
        await world.run_for(10 * SECOND)
        assert (await stored(world, job)).state is ReplayState.COMPLETED
        assert await world.statuses() == {Status.DELIVERED: 5}


async def test_deleting_the_endpoint_cancels_a_paused_replay(place: Place) -> None:
    async with World(place, delays_ms=(), scan_every_ms=60 * SECOND) as world:
        endpoint = await create_failed(world, 5)
        job = await replay(world, endpoint, rate=1)
        await change_state(world, job, ReplayState.PAUSED)
        await world.run_for(10 * MINUTE)
        await world.delete_endpoint(endpoint.seq)
        await world.run_for(2 * SECOND)
        assert (await stored(world, job)).state is ReplayState.CANCELLED


async def test_expired_deleted_and_resent_deliveries_are_skipped(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await world.endpoint(HOST, lambda _: respond(500))
        await world.accept(5, expires_at=world.clock.now + 2500)
        await world.accept(20)
        world.sender.scripts[HOST] = lambda _: respond(200)
        world.sender.sent.clear()
        job = await replay(world, endpoint, rate=1)
        await world.run_for(2400)
        assert len(world.sender.sent) == 3
        until = world.clock.now + HOUR
        for table, column in ((deliveries, deliveries.c.event_seq), (events, events.c.seq)):
            await world.database.write(lambda c, t=table, n=column: c.execute(sa.delete(t).where(n.between(15, 17))))
        await world.database.write(
            lambda c: start_resend(c, 20, endpoint.seq, now=world.clock.now, lease_until=until, process_id=9)
        )
        await world.run_for(5 * SECOND)
        assert (await stored(world, job)).skipped == 2
        await world.run_for(60 * SECOND)
        done = await stored(world, job)
        # Two have expired, three were deleted, and one is being resent.
        assert (done.state, counts(done)) == (ReplayState.COMPLETED, (25, 19, 0, 6))
        assert len(world.sender.sent) == 19


async def test_a_delivery_resent_during_a_pause_leaves_the_replay(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 10, max_in_flight=1)
        world.sender.latency_ms[HOST] = 400
        job = await replay(world, endpoint, rate=20)
        await world.run_for(250)
        await change_state(world, job, ReplayState.PAUSED)
        await world.run_for(SECOND)
        (returned, *_) = (row.event_seq for row in await world.deliveries() if row.replay_seq is not None)
        await resend(world, returned, endpoint.seq)
        await world.run_for(SECOND)
        await change_state(world, job, ReplayState.RUNNING)
        await world.run_for(30 * SECOND)
        assert counts(await stored(world, job)) == (10, 9, 0, 1)
        assert len(world.sender.sent) == 10


async def test_a_replay_waits_for_probes_of_an_open_breaker(place: Place) -> None:
    async with World(place, delays_ms=(), breaker_failures=5) as world:
        endpoint = await world.endpoint(HOST, lambda _: respond(500))
        await world.accept(4)
        job = await replay(world, endpoint, rate=100)
        await world.accept(1)
        await world.run_for(30 * SECOND)
        assert (await stored(world, job)).failed <= 4
        assert len(world.sender.sent) <= 5 + 6


async def test_new_events_come_first_and_replays_still_progress(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 40, max_in_flight=2)
        world.sender.latency_ms[HOST] = 100
        job = await replay(world, endpoint, rate=100)
        for _ in range(20):
            await world.accept(4)
            await world.run_for(100)
        counted = Counter(row.trigger for row in await world.attempts() if row.outcome == Outcome.DELIVERED)
        # New events alone need twice the capacity of the lane, so the replay gets only a quarter of the turns.
        assert 6 <= counted[Trigger.REPLAY] <= 16
        assert counted[Trigger.SCHEDULE] >= 2 * counted[Trigger.REPLAY]
        await world.run_for(20 * SECOND)
        assert counts(await stored(world, job)) == (40, 40, 0, 0)


async def test_many_deliveries_are_counted_and_scanned_in_batches(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "COUNT_ROWS", 7)
    monkeypatch.setattr(loop, "AHEAD_ROWS", 5)
    monkeypatch.setattr(loop, "AHEAD_MIN", 3)
    monkeypatch.setattr(loop, "AHEAD_MS", 0)
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 50)
        await world.accept(50)
        world.sender.sent.clear()
        job = await replay(world, endpoint, rate=100)
        await world.run_for(5 * SECOND)
        assert counts(await stored(world, job)) == (50, 50, 0, 0)
        assert len(sent_events(world)) == 50


async def test_retention_during_a_replay_keeps_the_counts_correct(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 30)
        job = await replay(world, endpoint, rate=2)
        await world.run_for(3 * SECOND)
        (kept,) = (replace(kept, batch_rows=1000) for kept in cleanup.RETENTION_RULES if kept.name == "events")
        now = world.clock.now + HOUR
        seen = await world.database.read(lambda c: cleanup.find_expired(c, kept, before=now, after=None))
        assert await world.database.write(lambda c: cleanup.delete_expired(c, kept, seen.keys, before=now)) > 0
        await world.run_for(30 * SECOND)
        done = await stored(world, job)
        assert done.state is ReplayState.COMPLETED
        assert done.delivered + done.skipped == done.total == 30
        assert done.delivered == len(world.sender.sent)
