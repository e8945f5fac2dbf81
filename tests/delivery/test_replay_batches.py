"""Replays during other traffic: released deliveries form no burst, and their outcomes need few commits."""

from collections import Counter
from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import Status
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.replays.jobs import CHECK_MS
from uplift_server.delivery.sending import settler
from uplift_server.delivery.sending.settler import BATCH_WAIT_MS
from uplift_server.store.records import DisabledReason, EndpointState, HeldAction
from uplift_server.store.replays import Replay

from .owner import Owner
from .test_engine import Failing, resend
from .test_replays import HOST, change_state, count_leased, counts, create_failed, replay, sent_events, stored
from .world import SECOND, World

RATE = 400
"""The rate of the replays, in deliveries per second: 40 deliveries in each release."""


class Counting:
    """A database that records the number of outcomes in each settlement."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.batches: list[int] = []

    def settle(self, settlements: Any, health: Any = (), *, process_id: int = 0) -> Any:
        self.batches.append(len(settlements))
        return super().settle(settlements, health, process_id=process_id)


async def start_partial_replay(world: World, count: int) -> tuple[LiveEndpoint, int]:
    """Start a replay. Return its endpoint and number when some deliveries are unsent, and some outcomes unwritten."""
    endpoint = await create_failed(world, count)
    job = await replay(world, endpoint, rate=RATE)
    while len(unsent_events(world, endpoint)) != 20:
        await world.run_for(1)
    assert await count_unwritten(world, job) > 0
    return endpoint, job


def unsent_events(world: World, endpoint: LiveEndpoint) -> set[int]:
    """Return the event numbers of the deliveries that a replay has released but not sent.

    The receiver must respond immediately, so that only the rate of the replay delays its deliveries.
    """
    return world.parts.status.waiting_events(endpoint.seq)


async def count_unwritten(world: World, job: int) -> int:
    """Return the number of sent deliveries whose outcome is not written."""
    return len(world.sender.sent) - (await stored(world, job)).delivered


def are_sent_once(world: World, count: int) -> bool:
    """Return whether each event was sent exactly once."""
    sent = Counter(sent_events(world))
    return len(sent) == count and set(sent.values()) == {1}


async def completed(world: World, job: int) -> Replay:
    """Check that the replay has completed, with no delivery left. Return the replay."""
    ended = await stored(world, job)
    assert ended.state is ReplayState.COMPLETED
    assert await count_leased(world) == 0
    assert world.parts.lanes.bytes_held == 0
    return ended


@pytest.mark.parametrize("rate", [100, 500, 1000])
async def test_deliveries_released_together_are_sent_one_by_one(place: Place, rate: int) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, rate)
        await replay(world, endpoint, rate=rate)
        await world.run_for(2 * SECOND)
        times = world.sender.times(HOST)
        assert len(times) == rate
        assert times[-1] - times[0] <= 1.1 * SECOND
        fullest = max(sum(at <= other < at + 5 for other in times) for at in times)
        assert fullest <= 1 + 5 * 1.25 * rate / SECOND


@pytest.mark.parametrize("state", [ReplayState.PAUSED, ReplayState.CANCELLED])
async def test_queued_deliveries_are_returned_when_the_replay_stops(place: Place, state: ReplayState) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint, job = await start_partial_replay(world, 200)
        at, sent = world.clock.now, len(world.sender.sent)
        await change_state(world, job, state)
        assert world.clock.now == at
        assert unsent_events(world, endpoint) == set()
        # Known outcomes are written immediately. Unsent deliveries have their earlier status again.
        assert (await stored(world, job)).delivered == sent
        assert await world.statuses() == {Status.DELIVERED: sent, Status.FAILED: 200 - sent}
        await world.run_for(5 * SECOND)
        assert len(world.sender.sent) == sent
        if state is ReplayState.PAUSED:
            await change_state(world, job, ReplayState.RUNNING)
        else:
            job = await replay(world, endpoint, rate=RATE)
        await world.run_for(5 * SECOND)
        assert are_sent_once(world, 200)
        await completed(world, job)


@pytest.mark.parametrize(
    ("state", "reason"),
    [(EndpointState.PAUSED, None), (EndpointState.DISABLED, DisabledReason.FAILING)],
    ids=["paused", "disabled"],
)
async def test_queued_deliveries_are_returned_when_the_endpoint_is_paused(
    place: Place, state: EndpointState, reason: DisabledReason | None
) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint, job = await start_partial_replay(world, 200)
        sent = len(world.sender.sent)
        await world.deactivate(endpoint.seq, state, reason)
        assert unsent_events(world, endpoint) == set()
        await world.run_for(5 * SECOND)
        assert len(world.sender.sent) == sent
        assert await world.statuses() == {Status.DELIVERED: sent, Status.FAILED: 200 - sent}
        await world.enable(endpoint.seq, HeldAction.DROP)
        await world.run_for(5 * SECOND)
        assert are_sent_once(world, 200)
        assert counts(await completed(world, job)) == (200, 200, 0, 0)


async def test_queued_deliveries_are_returned_when_the_endpoint_is_deleted(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint, job = await start_partial_replay(world, 100)
        sent = len(world.sender.sent)
        await world.delete_endpoint(endpoint.seq)
        assert unsent_events(world, endpoint) == set()
        await world.run_for(2 * SECOND)
        ended = await stored(world, job)
        assert (ended.state, ended.delivered, len(world.sender.sent)) == (ReplayState.CANCELLED, sent, sent)
        assert (await count_leased(world), world.parts.lanes.bytes_held) == (0, 0)


async def test_a_drain_does_not_wait_for_or_send_queued_deliveries(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        _, job = await start_partial_replay(world, 200)
        at, sent = world.clock.now, len(world.sender.sent)
        await world.stepping(world.engine.drain())
        assert world.clock.now == at
        assert len(world.sender.sent) == sent
        assert (await stored(world, job)).delivered == sent
        assert not [row for row in await world.deliveries() if row.lease_owner]
        await world.kill()
        await world.run_for(5 * SECOND)
        assert are_sent_once(world, 200)
        assert counts(await completed(world, job)) == (200, 200, 0, 0)


async def test_a_kill_loses_nothing_and_repeats_only_unwritten_attempts(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        _, job = await start_partial_replay(world, 200)
        unknown = await count_unwritten(world, job)
        before = Counter(sent_events(world))
        await world.kill()
        await world.run_for(5 * SECOND)
        twice = [event for event, times in Counter(sent_events(world)).items() if times > 1]
        assert len(set(sent_events(world))) == 200
        # Queued deliveries were never sent, and are sent once.
        assert len(twice) == unknown
        assert set(twice) <= before.keys()
        assert counts(await completed(world, job)) == (200, 200, 0, 0)


async def test_a_queued_delivery_can_be_cancelled(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint, job = await start_partial_replay(world, 100)
        chosen = min(unsent_events(world, endpoint))
        (event_id,) = (row.event_id for row in await world.event_ids() if row.event_seq == chosen)
        cancelled = await Owner(world).cancel(event_id, endpoint.seq)
        assert cancelled.delivery.status is Status.FAILED
        assert chosen not in unsent_events(world, endpoint)
        await world.run_for(3 * SECOND)
        await completed(world, job)
        assert len(world.sender.sent) == len(set(sent_events(world)))


async def test_a_replay_alone_needs_few_commits(place: Place) -> None:
    async with World(place, delays_ms=(), database=Counting) as world:
        endpoint = await create_failed(world, 2 * RATE)
        await replay(world, endpoint, rate=RATE)
        await world.run_for(SECOND)
        batches = world.database.batches
        batches.clear()
        await world.run_for(SECOND)
        assert sum(batches) == pytest.approx(RATE, rel=0.1)
        assert len(batches) <= 2 * SECOND / BATCH_WAIT_MS


async def test_other_outcomes_are_written_with_waiting_replay_outcomes(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        _, job = await start_partial_replay(world, 100)
        at, sent = world.clock.now, len(world.sender.sent)
        await world.accept(1)
        assert world.clock.now == at
        assert len(world.sender.sent) == sent + 1
        assert (await stored(world, job)).delivered == sent


async def test_waiting_replay_outcomes_are_written_soon(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 3)
        job = await replay(world, endpoint, rate=1)
        while not world.sender.sent:
            await world.run_for(1)
        await world.run_for(BATCH_WAIT_MS - 1)
        assert (await stored(world, job)).delivered == 0
        await world.run_for(1)
        assert (await stored(world, job)).delivered == 1


@pytest.mark.parametrize("state", [ReplayState.PAUSED, ReplayState.CANCELLED])
async def test_waiting_outcomes_are_written_when_the_replay_stops(place: Place, state: ReplayState) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 3)
        job = await replay(world, endpoint, rate=1)
        while not world.sender.sent:
            await world.run_for(1)
        await change_state(world, job, state)
        assert (await stored(world, job)).delivered == 1


async def test_a_replay_completes_with_its_last_outcome(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await create_failed(world, 100)
        job = await replay(world, endpoint, rate=RATE)
        await world.run_for(SECOND)
        ended = await completed(world, job)
        assert ended.completed_at is not None
        assert ended.completed_at - world.sender.times(HOST)[-1] <= CHECK_MS + BATCH_WAIT_MS


async def test_tests_and_resends_are_written_immediately(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint, job = await start_partial_replay(world, 100)
        at = world.clock.now
        result = await Owner(world).test(endpoint.seq)
        assert result.delivery.status is Status.DELIVERED
        last = 100
        await resend(world, last, endpoint.seq)
        (row,) = (row for row in await world.deliveries() if (row.event_seq, row.endpoint_seq) == (last, endpoint.seq))
        assert row.status == Status.DELIVERED
        assert world.clock.now == at
        await world.run_for(3 * SECOND)
        assert counts(await completed(world, job)) == (100, 99, 0, 1)


async def test_the_number_of_waiting_outcomes_is_limited(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "SETTLEMENTS_WAITING_MAX", 3)
    async with World(place, delays_ms=(), database=Counting) as world:
        endpoint = await create_failed(world, 2 * RATE)
        job = await replay(world, endpoint, rate=RATE)
        world.database.batches.clear()
        await world.run_for(4 * SECOND)
        assert 1 < max(world.database.batches) <= 3
        assert are_sent_once(world, 2 * RATE)
        assert counts(await completed(world, job)) == (2 * RATE, 2 * RATE, 0, 0)


async def test_waiting_outcomes_are_kept_while_the_database_is_unavailable(place: Place) -> None:
    async with World(place, delays_ms=(), database=Failing) as world:
        endpoint, job = await start_partial_replay(world, 200)
        world.database.broken = frozenset({"settle"})
        await world.run_for(100)
        sent = len(world.sender.sent)
        await world.run_for(5 * SECOND)
        assert len(world.sender.sent) == sent
        assert unsent_events(world, endpoint)
        world.database.broken = frozenset()
        await world.run_for(5 * SECOND)
        assert are_sent_once(world, 200)
        assert counts(await completed(world, job)) == (200, 200, 0, 0)
