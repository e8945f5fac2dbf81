"""Filters of endpoints in the engine: only matching events have deliveries, and no filter blocks the process."""

import asyncio
import contextlib
import gc
import json
import random
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs
from tests.engines import Place
from tests.filters import expected, random_data, random_filter

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.events.filters import Budget, BudgetExceeded, Filter, check_filter, filter_text
from uplift_server.core.lifecycle import Status
from uplift_server.core.limits import EVENT_DATA_BYTES_MAX, FILTER_STEPS_MAX
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.filters import accepting
from uplift_server.observe.counters import EngineCounters
from uplift_server.store import endpoints

from .test_replays import counts, create_failed, replay, sent_events, stored
from .world import SECOND, World

HOST = "one.test"
EVALUATION_SECONDS_MAX = 0.01
"""Expected maximum CPU time to evaluate one filter, in seconds."""
EVENT_SECONDS_MAX = 0.05
"""Expected maximum CPU time to evaluate all filters for one event, in seconds."""
SLACK = 5


async def set_filter(world: World, endpoint: LiveEndpoint, pattern: object) -> None:
    """Change the filter of an endpoint as the service does."""
    text = None if pattern is None else filter_text(pattern)
    record = await world.database.write(
        lambda c: endpoints.update(c, None, endpoint.record.id, lambda old: structs.replace(old, filter=text))
    )
    assert record is not None
    world.cache.put_endpoint(record)


async def accept(world: World, data: Any) -> int:
    """Accept an event with data. Return its number."""
    draft = world.draft(json.dumps(data).encode())
    [appended] = await world.parts.event_ingest.accept(world.account.seq, [draft])  # type: ignore[misc]
    return int(appended.seq)


async def test_only_matching_events_have_deliveries(place: Place) -> None:
    async with World(place) as world:
        filtered = await world.endpoint(HOST, filter_text='{"n":[{"numeric":["<",3]}]}')
        other = await world.endpoint("other.test")
        stored_events = await world.accept(5)
        await world.run_for(SECOND)
        assert len(world.sender.times(HOST)) == 3
        assert len(world.sender.times("other.test")) == 5
        assert await world.statuses() == {Status.DELIVERED: 8}
        listed = await world.parts.event_ingest.endpoints_of([each.seq for each in stored_events])
        both, one = [other.record.id, filtered.record.id], [other.record.id]
        assert [sorted(listed[each.seq]) for each in stored_events] == [sorted(both)] * 3 + [one] * 2


async def test_a_changed_filter_applies_to_the_next_event(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint(HOST, filter_text='{"n":[1]}')
        await accept(world, {"n": 2})
        await set_filter(world, endpoint, {"n": [2]})
        await accept(world, {"n": 2})
        await set_filter(world, endpoint, None)
        await accept(world, {"n": 3})
        await world.restart()
        await set_filter(world, world.cache.endpoints[endpoint.seq], {"n": [4]})
        await accept(world, {"n": 3})
        await accept(world, {"n": 4})
        await world.run_for(SECOND)
        assert [msgspec.json.decode(request.body)["data"]["n"] for _, _, request in world.sender.sent] == [2, 3, 4]


async def test_events_that_wait_to_be_stored_skip_a_deleted_endpoint(place: Place) -> None:
    async with World(place) as world:
        kept, deleted = await world.endpoint(HOST), await world.endpoint("other.test")
        draft = world.draft()
        await world.delete_endpoint(deleted.seq)
        await world.parts.event_ingest.accept(world.account.seq, [draft])
        assert [row.endpoint_seq for row in await world.deliveries()] == [kept.seq]


@pytest.mark.parametrize("seed", range(10))
async def test_no_event_is_delivered_to_an_endpoint_whose_filter_rejects_it(place: Place, seed: int) -> None:
    """Random events are delivered to exactly those endpoints whose random filters match."""
    draw = random.Random(seed)
    async with World(place) as world:
        filters = {}
        for number in range(12):
            pattern = random_filter(draw)
            assert check_filter(pattern) == []
            endpoint = await world.endpoint(f"{number}.test", filter_text=filter_text(pattern))
            filters[endpoint.seq] = pattern
        data = {await accept(world, each): each for each in (random_data(draw) for _ in range(40))}
        await world.run_for(SECOND)
        rows = {(row.event_seq, row.endpoint_seq) for row in await world.deliveries()}
        assert rows == {
            (event, endpoint)
            for event, each in data.items()
            for endpoint, pattern in filters.items()
            if expected(pattern, each)
        }
        assert len(world.sender.sent) == len(rows)
        assert world.parts.counters.filter_budget_exceeded == 0


async def test_a_replay_creates_no_deliveries_of_rejected_events(place: Place) -> None:
    """The replay resends existing deliveries regardless of the filter."""
    async with World(place, delays_ms=()) as world:
        await world.accept(20)
        endpoint = await create_failed(world, 5)
        await set_filter(world, endpoint, {"n": [{"numeric": [">=", 15]}]})
        job = await replay(world, endpoint, missing=True)
        await world.run_for(10 * SECOND)
        assert len(sent_events(world)) == 10
        done = await stored(world, job)
        assert (done.state, counts(done)) == (ReplayState.COMPLETED, (25, 10, 0, 15))
        rows = [row for row in await world.deliveries() if row.endpoint_seq == endpoint.seq]
        assert [row.status for row in rows] == [Status.DELIVERED] * 10


async def test_a_replay_skips_rejected_events_quickly(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        await world.accept(1500)
        endpoint = await world.endpoint(HOST, filter_text='{"n":[1499]}')
        job = await replay(world, endpoint, rate=1, statuses=(), missing=True)
        await world.run_for(4 * SECOND)
        assert len(sent_events(world)) == 1
        done = await stored(world, job)
        assert (done.state, counts(done)) == (ReplayState.COMPLETED, (1500, 1, 0, 1499))


@pytest.mark.timing
async def test_a_replay_with_an_expensive_filter_does_not_hold_the_event_loop(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        for _ in range(200):
            await accept(world, {"a": [{}] * 240})
        pattern = {"a": {"$or": [{"b": [n]} for n in range(60)]}}
        endpoint = await world.endpoint(HOST, filter_text=filter_text(pattern))
        turns: list[float] = []

        async def note_turns() -> None:
            while True:
                turns.append(time.thread_time())
                await asyncio.sleep(0.001)

        noting = asyncio.create_task(note_turns())
        # A full collection of the test process takes longer than the limit.
        gc.disable()
        try:
            job = await replay(world, endpoint, statuses=(), missing=True)
            await world.run_for(4 * SECOND)
        finally:
            gc.enable()
        noting.cancel()
        assert counts(await stored(world, job)) == (200, 0, 0, 200)
        assert max(later - earlier for earlier, later in pairwise(turns)) < SLACK * EVENT_SECONDS_MAX


def filled(item: str, *, before: str = '{"a":[', after: str = "]}") -> bytes:
    """Return data of the maximum size: an array of this item."""
    count = (EVENT_DATA_BYTES_MAX - len(before) - len(after)) // (len(item) + 1)
    return (before + ",".join([item] * count) + after).encode()


EXPENSIVE: dict[str, tuple[Any, bytes]] = {
    "numbers": ({"a": [2]}, filled("1")),
    "bounds": ({"a": [{"numeric": ["<", -n - 1, ">", -5]} for n in range(63)]}, filled("1")),
    "prefixes": ({"a": [{"prefix": f"b{n}"} for n in range(64)]}, filled('"b"')),
    "long prefixes": ({"a": [{"prefix": "b" * 110 + str(n)} for n in range(64)]}, filled('"' + "b" * 111 + '"')),
    "long suffixes": ({"a": [{"suffix": str(n) + "b" * 110} for n in range(64)]}, filled('"' + "b" * 111 + '"')),
    "one long text": ({"a": [{"suffix": "x"}, "y"]}, filled("b" * 250_000, before='{"a":"', after='"}')),
    "branches": ({"a": {"$or": [{"b": [n + 2]} for n in range(60)]}}, filled('{"b":1}')),
    "empty objects": ({"a": {"$or": [{"b": [n]} for n in range(60)]}}, filled("{}")),
    "deep branches": ({"a": {"b": {"c": {"d": {"$or": [{f"e{n}": [n]} for n in range(60)]}}}}}, filled("1")),
    "many fields": ({"a": {**{f"f{n}": [{"exists": False}] for n in range(63)}, "z": [1]}}, filled("{}")),
    "arrays of arrays": ({"a": {"b": [1]}}, filled("[]")),
    "long numbers": ({"a": [{"numeric": ["<", 0.5]}] * 60}, filled("1" * 600)),
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_no_filter_takes_long(name: str) -> None:
    pattern, data = EXPENSIVE[name]
    assert check_filter(pattern) == []
    compiled, value = Filter(filter_text(pattern)), msgspec.json.decode(data)
    began = time.thread_time()
    with contextlib.suppress(BudgetExceeded):
        assert compiled.first_mismatch(value, Budget(FILTER_STEPS_MAX)) is not None
    assert time.thread_time() - began < SLACK * EVALUATION_SECONDS_MAX


async def test_many_expensive_filters_do_not_take_long(place: Place) -> None:
    """If filters need too many steps, the remaining endpoints receive the event. The server counts these endpoints."""
    async with World(place) as world:
        found = []
        for number in range(40):
            branches = [{"b": [n + 2 + number]} for n in range(50)]
            found.append(await world.endpoint(f"{number}.test", filter_text=filter_text({"a": {"$or": branches}})))
        small = msgspec.json.encode({"a": [{"b": 1}] * 100})
        counters = EngineCounters()
        began = time.thread_time()
        received = accepting(found, small, counters)
        assert time.thread_time() - began < SLACK * EVENT_SECONDS_MAX
        assert 20 < len(received) == counters.filter_budget_exceeded < 35, "the first filters were evaluated"
        assert received == found[-len(received) :]
        await accept(world, {"a": [{"b": 1}] * 5000})
        assert len(await world.deliveries()) == world.parts.counters.filter_budget_exceeded == 40


@pytest.mark.timing
async def test_many_filters_with_long_prefixes_do_not_take_long(place: Place) -> None:
    async with World(place) as world:
        common = "a" * 1100
        found = []
        for number in range(300):
            prefixes = [{"prefix": f"{common}{number}-{n}"} for n in range(7)]
            found.append(await world.endpoint(f"{number}.test", filter_text=filter_text({"a": prefixes})))
        # Comparing texts whose characters have different widths is the slowest case.
        data = json.dumps({"a": [common + "€"] * 220}, ensure_ascii=False).encode()
        assert len(data) <= EVENT_DATA_BYTES_MAX
        began = time.thread_time()
        accepting(found, data, EngineCounters())
        assert time.thread_time() - began < 2 * EVENT_SECONDS_MAX


async def test_a_rejected_evaluation_leaves_the_budget_to_other_filters(place: Place) -> None:
    async with World(place) as world:
        large = [await world.endpoint(f"{n}.test", filter_text=filter_text({"a": [n, "x"]})) for n in range(10)]
        small = await world.endpoint("small.test", filter_text='{"b":[1]}')
        counters = EngineCounters()
        data = msgspec.json.encode({"a": [0] * (FILTER_STEPS_MAX + 1), "b": 2})
        assert accepting([*large, small], data, counters) == large
        assert counters.filter_budget_exceeded == len(large)


async def test_data_that_cannot_be_decoded_matches_every_filter(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint(HOST, filter_text='{"n":[1]}')
        counters = EngineCounters()
        assert accepting([endpoint], b'{"n":1e999}', counters) == [endpoint]
        assert counters.filter_budget_exceeded == 1


def test_the_examples_of_the_documentation_are_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "filters.md").read_text()
    data = json.loads(page.partition("```json\n")[2].partition("```")[0])
    rows = re.findall(r"^\| `(\{.*\})` \| (yes|no) \|$", page, re.MULTILINE)
    assert len(rows) >= 14
    for text, matches in rows:
        pattern = json.loads(text)
        assert check_filter(pattern) == []
        mismatch = Filter(filter_text(pattern)).first_mismatch(data, Budget(FILTER_STEPS_MAX))
        assert (mismatch is None) is (matches == "yes"), text
