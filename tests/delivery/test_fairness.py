"""Hanging receivers of one account do not delay other accounts, for events, tests, resends and replays."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.events.commit_rows import commit_rows
from uplift_server.core.lifecycle import Status
from uplift_server.core.limits import ACCEPTS_TURN_ROWS_MAX, HOST_IN_FLIGHT_MAX, REPLAYS_UNFINISHED_PER_ACCOUNT_MAX
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.service import errors
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import Appended

from .owner import Owner
from .test_engine import Silent
from .test_replays import replay
from .world import SECOND, World, respond

IN_FLIGHT_MAX = 40
HANGING = 60

Flood = Callable[[World, Sequence[LiveEndpoint], Appended], Awaitable[object]]


async def with_tests(world: World, hanging: Sequence[LiveEndpoint], _: Appended) -> None:
    found = await Owner(world).test_concurrently([endpoint.seq for endpoint in hanging])
    rejected = [each for each in found if isinstance(each, errors.ServiceError)]
    assert rejected
    assert all(isinstance(each, errors.Busy | errors.RateLimited) for each in rejected)


async def with_resends(world: World, hanging: Sequence[LiveEndpoint], event: Appended) -> None:
    owner = Owner(world)
    for endpoint in hanging:
        await owner.resend(event.id, endpoint.seq)


async def with_replays(world: World, hanging: Sequence[LiveEndpoint], _: Appended) -> None:
    for endpoint in hanging[:REPLAYS_UNFINISHED_PER_ACCOUNT_MAX]:
        await replay(world, endpoint, rate=1000, statuses=(Status.FAILED, Status.DELIVERED))
    await world.run_for(SECOND)


async def with_events(world: World, _hanging: Sequence[LiveEndpoint], _: Appended) -> None:
    await world.accept(3)


@pytest.mark.parametrize("flood", [with_tests, with_resends, with_replays, with_events])
@pytest.mark.parametrize("code", [200, 500])
async def test_hanging_receivers_of_one_account_leave_slots_for_other_accounts(
    place: Place, flood: Flood, code: int
) -> None:
    """It does not matter whether the endpoints responded successfully (`code`) before they hung."""
    async with World(place, in_flight_max=IN_FLIGHT_MAX, delays_ms=()) as world:
        other = await world.new_account()
        await world.endpoint("known.test", account=other)
        await world.accept(1, account=other)
        hanging = [await world.endpoint(f"r{number}.test", lambda _: respond(code)) for number in range(HANGING)]
        [event, *_] = await world.accept(5)
        await world.run_for(SECOND)
        for number in range(HANGING):
            world.sender.scripts[f"r{number}.test"] = lambda _: None
        await flood(world, hanging, event)
        in_flight = sum(world.sender.in_flight.values())
        assert IN_FLIGHT_MAX // 4 <= in_flight < IN_FLIGHT_MAX

        await world.endpoint("new.test", account=other)
        at = world.clock.now
        await world.accept(1, account=other)

        assert world.sender.times("known.test")[-1] == world.sender.times("new.test")[-1] == at


async def test_resends_without_a_slot_use_no_memory_and_run_later(place: Place) -> None:
    async with World(place, in_flight_max=8, endpoint_in_flight_max=4, delays_ms=()) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        stored = await world.accept(50)
        await world.run_for(SECOND)
        world.sender.scripts["one.test"] = lambda _: None
        owner = Owner(world)
        for event in stored:
            await owner.resend(event.id, endpoint.seq)
        assert world.parts.status.load().waiting <= 4
        world.sender.scripts["one.test"] = lambda _: respond(200)
        await world.run_for(60 * SECOND)
        statuses = await world.statuses()
        assert statuses[Status.DELIVERED] >= 45
        assert sum(statuses.values()) == 50
        assert set(statuses) <= {Status.DELIVERED, Status.FAILED}


async def test_a_single_account_can_use_every_slot(place: Place) -> None:
    async with World(place, in_flight_max=10) as world:
        for number in range(20):
            await world.endpoint(f"r{number}.test")
        await world.accept(1)
        await world.run_for(SECOND)
        for number in range(20):
            world.sender.latency_ms[f"r{number}.test"] = SECOND
        await world.accept(1)
        assert world.parts.status.load().in_flight == 10


async def test_all_endpoints_of_an_account_share_a_limit_for_each_host(place: Place) -> None:
    async with World(place) as world:
        other = await world.new_account()
        for _ in range(100):
            await world.endpoint("shared.test", lambda _: respond(200))
        await world.endpoint("other.test")
        other_live = await world.endpoint("shared.test", account=other)
        world.sender.latency_ms["shared.test"] = SECOND
        await world.accept(5)
        assert world.sender.in_flight["shared.test"] == HOST_IN_FLIGHT_MAX
        assert len(world.sender.times("other.test")) == 5
        # Tests count toward this limit, too. Each account has its own limit.
        own = next(
            e for e in world.cache.endpoints.values() if e.parts.url.host == "shared.test" and e.seq != other_live.seq
        )
        [rejected] = await Owner(world).test_concurrently([own.seq])
        assert isinstance(rejected, errors.RateLimited)
        await world.accept(1, account=other)
        assert world.sender.in_flight["shared.test"] == HOST_IN_FLIGHT_MAX + 1

        await world.run_for(60 * SECOND)

        assert world.sender.in_flight_most["shared.test"] == HOST_IN_FLIGHT_MAX + 1
        assert await world.statuses() == {Status.DELIVERED: 506}


async def test_a_moved_endpoint_does_not_wait_for_its_old_host(place: Place) -> None:
    async with World(place) as world:
        seqs = [(await world.endpoint("shared.test", lambda _: None)).seq for _ in range(100)]
        await world.accept(1)
        assert world.sender.in_flight["shared.test"] == HOST_IN_FLIGHT_MAX
        waiting = next(seq for seq in seqs if world.parts.status.waiting_events(seq))
        await world.move(waiting, "elsewhere.test")
        assert len(world.sender.times("elsewhere.test")) == 1


@pytest.mark.parametrize(("endpoints", "pad"), [(300, 0), (1, 250_000)])
async def test_many_rows_or_large_events_of_one_account_do_not_block_others(
    place: Place, endpoints: int, pad: int
) -> None:
    async with World(place) as world:
        other = await world.new_account()
        for number in range(endpoints):
            await world.endpoint(f"r{number}.test")
        draft = world.draft(b'{"pad":"%s"}' % (b"x" * pad))
        event_ingest = world.parts.event_ingest
        many = [event_ingest.accept(world.account.seq, [draft]) for _ in range(60)]
        single = event_ingest.accept(other.seq, [world.draft(account=other)])
        await single
        assert sum(each.done() for each in many) <= 30
        stored = [await each for each in many]
        seqs = [event.seq for each in stored if isinstance(each, list) for event in each]
        assert len(set(seqs)) == 60
        assert event_ingest.waiting_events == 0


async def test_requests_that_wait_too_long_are_rejected_and_not_stored(place: Place) -> None:
    async with World(place, database=Silent) as world:
        for number in range(300):
            await world.endpoint(f"r{number}.test")
        draft = world.draft()
        event_ingest = world.parts.event_ingest
        accepting = [event_ingest.accept(world.account.seq, [draft]) for _ in range(60)]
        await asyncio.sleep(0)
        world.clock.now += 5 * SECOND
        event_ingest.expire_waiting()
        assert all(isinstance(each.exception(), Unavailable) for each in accepting)
        assert 0 < event_ingest.waiting_events < 30
        world.database.may_return.set()
        await world.settle()
        assert event_ingest.waiting_events == 0
        assert len(await world.event_ids()) < 30
        assert isinstance(await event_ingest.accept(world.account.seq, [draft]), list)


async def test_queueing_time_counts_toward_the_response_timeout(place: Place) -> None:
    async with World(place, database=Silent) as world:
        for number in range(300):
            await world.endpoint(f"r{number}.test")
        draft = world.draft()
        event_ingest = world.parts.event_ingest
        accepting = [event_ingest.accept(world.account.seq, [draft]) for _ in range(10)]
        await asyncio.sleep(0)
        world.clock.now += 3 * SECOND
        # Let the first turn end, but not the next one.
        world.database.may_return.set()
        await accepting[0]
        world.database.may_return.clear()
        assert not accepting[-1].done()
        world.clock.now += 2 * SECOND
        event_ingest.expire_waiting()
        assert isinstance(accepting[-1].exception(), Unavailable)
        world.database.may_return.set()
        await world.settle()


async def test_one_account_cannot_fill_the_ingest_queue(place: Place) -> None:
    async with World(place) as world:
        other = await world.new_account()
        for number in range(100):
            await world.endpoint(f"r{number}.test")
        draft = world.draft()
        event_ingest = world.parts.event_ingest
        # Each request stores 1,010 rows.
        accepting = [event_ingest.accept(world.account.seq, [draft] * 10) for _ in range(70)]
        with pytest.raises(Unavailable):
            event_ingest.accept(world.account.seq, [draft] * 100)
        single = event_ingest.accept(other.seq, [world.draft(account=other)])
        assert isinstance(await single, list)
        await asyncio.gather(*accepting)
        assert event_ingest.waiting_events == 0
        assert isinstance(await event_ingest.accept(world.account.seq, [draft]), list)


class Counting:
    """A database that counts its commits of events."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.appends = 0

    async def append(self, *args: Any, **kwargs: Any) -> Any:
        self.appends += 1
        return await super().append(*args, **kwargs)  # type: ignore[misc]


async def test_a_turn_of_several_accounts_is_one_commit(place: Place) -> None:
    """The consumer of the event stream relies on this: with several commits, later events could be stored first."""
    async with World(place, database=Counting) as world:
        other = await world.new_account()
        await world.endpoint("one.test")
        data = b'{"pad":"%s"}' % (b"x" * 250_000)
        drafts = [
            (account, world.draft(data, account=account)) for _ in range(50) for account in (world.account, other)
        ]
        accepting, rows = [], 0
        for account, draft in drafts:
            accepting.append(world.parts.event_ingest.accept(account.seq, [draft]))
            rows += commit_rows(len(draft.endpoints), len(draft.data))
            if rows >= ACCEPTS_TURN_ROWS_MAX:
                break
        stored = [await each for each in accepting]
        assert len(stored) > 4
        assert world.database.appends == 1
        seqs = [event.seq for each in stored if isinstance(each, list) for event in each]
        assert seqs == sorted(seqs)
