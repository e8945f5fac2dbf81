"""Engine counters match the accepted events, attempts and deliveries."""

import asyncio
from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.observe.counters import EngineCounters, Histogram, Rejection
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import HeldAction

from .world import SECOND, World, respond


def upper(histogram: Histogram) -> list[int | None]:
    """Return the upper bound of the bucket of each counted value; None for values above the last bound."""
    bounds = [*histogram.bounds, None]
    return [bound for bound, count in zip(bounds, histogram.counts, strict=True) for _ in range(count)]


def ended(counters: EngineCounters) -> dict[Status, int]:
    return {each: counters.ended[each] for each in (Status.DELIVERED, Status.FAILED, Status.CANCELLED)}


def attempts(counters: EngineCounters) -> dict[Outcome, int]:
    return {each: counters.attempts[each] for each in Outcome if counters.attempts[each]}


async def test_events_attempts_and_deliveries_are_counted(place: Place) -> None:
    async with World(place, delays_ms=(5 * SECOND,)) as world:
        replies = iter([respond(500), respond(200)])
        await world.endpoint("one.test", lambda _: next(replies))
        world.sender.latency_ms["one.test"] = 40
        await world.accept()
        await world.run_for(20 * SECOND)

        counters = world.parts.counters
        assert (counters.accepted, counters.duplicates) == (1, 0)
        assert attempts(counters) == {Outcome.SERVER_ERROR: 1, Outcome.DELIVERED: 1}
        assert ended(counters) == {Status.DELIVERED: 1, Status.FAILED: 0, Status.CANCELLED: 0}
        # The first attempt starts immediately, the second after 5 s ± 10%. Each takes 40 ms.
        assert upper(counters.first_attempt_delays) == [1]
        assert upper(counters.delivery_delays) in ([5_000], [10_000])
        assert sum(counters.attempt_durations.counts) == 2
        assert sum(counters.accept_durations.counts) == 1
        assert sum(world.database.measures.commits.counts) > 0
        assert world.database.measures.writes >= 3


async def test_the_time_in_the_ingest_queue_counts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uplift_server.delivery.ingest.ACCEPTS_TURN_ROWS_MAX", 1)
    async with World(place) as world:
        append = world.database.append

        async def append_slowly(*args: Any) -> Any:
            world.clock.now += SECOND
            return await append(*args)

        world.database.append = append_slowly  # type: ignore[method-assign]
        draft = world.draft()
        await asyncio.gather(*(world.parts.event_ingest.accept(world.account.seq, [draft]) for _ in range(3)))

        assert upper(world.parts.counters.accept_durations) == [1_000_000, 2_500_000, 5_000_000]


async def test_repeated_events_are_counted_separately(place: Place) -> None:
    async with World(place) as world:
        await world.accept(idempotency_key="k")
        await world.accept(idempotency_key="k")

        assert (world.parts.counters.accepted, world.parts.counters.duplicates) == (1, 1)


async def test_rejected_events_are_counted_by_reason(place: Place) -> None:
    async with World(place) as world:

        async def full(*_: Any) -> Any:
            raise Unavailable("the disk is full")

        draft = world.draft()
        world.database.append = full
        with pytest.raises(Unavailable):
            await world.parts.event_ingest.accept_for([(world.account.seq, draft)] * 3)
        world.parts.event_ingest.close()
        with pytest.raises(Unavailable):
            world.parts.event_ingest.accept(world.account.seq, [draft])

        rejections = world.parts.counters.rejected
        assert {each: rejections[each] for each in Rejection} == {
            Rejection.STORE: 3,
            Rejection.STOPPING: 1,
            Rejection.FULL: 0,
            Rejection.STREAM: 0,
        }
        assert world.parts.counters.accepted == 0


async def test_every_final_status_is_counted(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        for host in ("fails.test", "dropped.test", "deleted.test"):
            endpoint = await world.endpoint(host, lambda _: respond(500))
            if host == "fails.test":
                await world.accept(2)
                await world.run_for(SECOND)
                await world.pause(endpoint.seq)
                continue
            await world.pause(endpoint.seq)
            await world.accept(3)
            await world.run_for(10 * SECOND)
            if host == "dropped.test":
                await world.enable(endpoint.seq, HeldAction.DROP)
            else:
                await world.delete_endpoint(endpoint.seq)
            await world.run_for(10 * SECOND)

        counts = ended(world.parts.counters)
        statuses = await world.statuses()
        assert counts == {status: statuses.get(status, 0) for status in counts}
        assert counts[Status.CANCELLED] >= 6
        assert counts[Status.FAILED] >= 2


async def test_held_deliveries_that_expire_count_as_failed(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        await world.accept(2, expires_at=world.clock.now + SECOND)
        await world.run_for(10 * SECOND)
        await world.enable(endpoint.seq)
        await world.run_for(10 * SECOND)

        assert ended(world.parts.counters)[Status.FAILED] == 2 == (await world.statuses())[Status.FAILED]


async def test_the_cause_of_a_delay_is_reported(place: Place) -> None:
    async with World(place, breaker_failures=2) as world:
        hangs = await world.endpoint("hangs.test", max_in_flight=1)
        world.sender.latency_ms["hangs.test"] = 10 * SECOND
        paced = await world.endpoint("paced.test", rate_limit_per_second=1)
        fails = await world.endpoint("fails.test", lambda _: respond(500))
        idle = await world.endpoint("idle.test")
        assert {world.parts.status.held_up_by(each.seq) for each in (hangs, paced, fails, idle)} == {HeldUpBy.SERVER}
        await world.accept(3)
        await asyncio.sleep(0)

        assert world.parts.status.held_up_by(hangs.seq) is HeldUpBy.ENDPOINT
        assert world.parts.status.held_up_by(paced.seq) is HeldUpBy.ENDPOINT
        assert world.parts.status.held_up_by(fails.seq) is HeldUpBy.PROBE
        assert world.parts.status.held_up_by(idle.seq) is HeldUpBy.SERVER
