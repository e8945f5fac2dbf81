"""Messages leave the event stream when they and all earlier ones are stored."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.nats import NatsCluster

from uplift_server.core.events.stream_subjects import EVENTS_STREAM
from uplift_server.delivery.clock import SystemClock
from uplift_server.delivery.streams.link import Link, NatsServer, StreamError, StreamUnavailable
from uplift_server.delivery.streams.pull import ACKNOWLEDGE_AFTER_MS, Pull, StreamMessage
from uplift_server.delivery.streams.stream import CONFIGS, EVENTS_CONFIG, EventStream, StreamSettings, check_streams

WITHIN_S = 20
DATABASE_ID = "0123456789abcdef"


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsCluster]:
    cluster = NatsCluster(tmp_path / "nats", nodes=1).start()
    yield cluster
    cluster.close()


@pytest.fixture
async def link(nats_server: NatsCluster) -> AsyncIterator[Link]:
    link = await Link.connect(NatsServer.parse(nats_server.url), None)
    await create_streams(link)
    yield link
    await link.close()


class ClockAhead(SystemClock):
    """The system's clock, which the test can set ahead."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


async def create_streams(link: Link) -> None:
    database: Any = SimpleNamespace(read=_read_id)
    stream = EventStream(StreamSettings([], 1, None), SystemClock(), database)
    for config in CONFIGS:
        await stream.check(link, config)


async def _read_id(_: object) -> str:
    return DATABASE_ID


async def publish(link: Link, *names: str) -> None:
    for name in names:
        await link.store("uplift.events.a", name.encode(), name)


async def stored(link: Link, message_id: str) -> None:
    """Store a message, and repeat failed requests. The stream detects a repeated message by its ID."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(StreamUnavailable):
                return await link.store("uplift.events.a", b"", message_id)


async def take(pull: Pull, count: int) -> list[StreamMessage]:
    taken: list[StreamMessage] = []
    async with asyncio.timeout(WITHIN_S):
        while len(taken) < count:
            taken += await pull.next(1000)
    return taken


async def left_in_stream(link: Link, pull: Pull) -> int:
    """Remove the stored messages that may be removed. Return the number of messages that are left."""
    await pull.remove_stored(at_once=True)
    messages: int = (await link.call(f"STREAM.INFO.{EVENTS_STREAM}"))["state"]["messages"]
    return messages


async def test_messages_behind_an_unstored_one_stay(link: Link) -> None:
    await publish(link, "a", "b", "c", "d")
    pull = await Pull.begin(link, SystemClock())
    a, b, c, d = await take(pull, 4)

    pull.note_stored(c)
    assert await left_in_stream(link, pull) == 4

    pull.note_stored(a)
    assert await left_in_stream(link, pull) == 3

    pull.note_stored(b)
    assert await left_in_stream(link, pull) == 1

    pull.note_stored(d)
    assert await left_in_stream(link, pull) == 0


async def test_a_message_behind_an_unstored_one_is_removed_later(link: Link) -> None:
    """Otherwise, NATS would redeliver the message, and the stream could fill up."""
    clock = ClockAhead()
    await publish(link, "a", "b", "c")
    pull = await Pull.begin(link, clock)
    a, b, _ = await take(pull, 3)
    pull.note_stored(b)
    clock.ahead_ms = ACKNOWLEDGE_AFTER_MS - 1_000
    assert await left_in_stream(link, pull) == 3

    clock.ahead_ms = ACKNOWLEDGE_AFTER_MS
    async with asyncio.timeout(WITHIN_S):
        while await left_in_stream(link, pull) > 2:  # NATS removes the message after it has received the acknowledgment
            await asyncio.sleep(0.05)
    pull.note_stored(a)
    assert await left_in_stream(link, pull) == 1


async def test_messages_that_were_not_taken_yet_stay(link: Link) -> None:
    await publish(link, "a")
    pull = await Pull.begin(link, SystemClock())
    (a,) = await take(pull, 1)
    await publish(link, "b")
    await asyncio.sleep(0.2)

    pull.note_stored(a)

    assert await left_in_stream(link, pull) == 1
    assert [each.data for each in await take(pull, 1)] == [b"b"]


async def test_a_new_process_begins_with_the_oldest_message_that_is_left(link: Link) -> None:
    await publish(link, "a", "b", "c")
    earlier = await Pull.begin(link, SystemClock())
    a, b, _ = await take(earlier, 3)
    earlier.note_stored(a)
    assert await left_in_stream(link, earlier) == 2
    earlier.note_stored(b)  # Stored, but the process ends before it removes the message.

    pull = await Pull.begin(link, SystemClock())

    assert [each.data for each in await take(pull, 2)] == [b"b", b"c"]


async def test_a_message_that_got_lost_on_its_way_is_not_removed(link: Link) -> None:
    await publish(link, "a")
    losing: Any = SimpleNamespace(**{name: getattr(link, name) for name in ("call", "publish", "new_inbox", "closed")})
    losing.message_bytes_max, losing.cause = link.message_bytes_max, ""

    async def subscribe(subject: str, receive: Any) -> None:
        await link.subscribe(subject, lambda message: None if message.data == b"b" else receive(message))

    losing.subscribe = subscribe
    pull = await Pull.begin(losing, SystemClock())
    (a,) = await take(pull, 1)
    pull.note_stored(a)

    await publish(link, "b", "c")
    with pytest.raises(StreamUnavailable, match="is missing"):
        await take(pull, 1)

    with pytest.raises(StreamUnavailable):
        await left_in_stream(link, pull)
    again = await Pull.begin(link, SystemClock())
    assert [each.data for each in await take(again, 3)] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("events", [10, 1100])
async def test_messages_of_a_stream_that_was_created_again_stay(link: Link, events: int) -> None:
    """NATS reports the deletion only to a waiting request. With 1,100 events, no request is waiting."""
    await publish(link, *map(str, range(events)))
    pull = await Pull.begin(link, SystemClock())
    taken = await take(pull, min(events, 500))
    await asyncio.sleep(0.5)

    await link.call(f"STREAM.DELETE.{EVENTS_STREAM}")
    await create_streams(link)
    await publish(link, "x", "y", "z")
    for message in taken:
        pull.note_stored(message)

    with pytest.raises((StreamUnavailable, StreamError)):
        await left_in_stream(link, pull)
    again = await Pull.begin(link, SystemClock())
    assert [each.data for each in await take(again, 3)] == [b"x", b"y", b"z"]


async def test_a_stream_that_keeps_all_messages_is_not_used(link: Link) -> None:
    await link.call(f"STREAM.DELETE.{EVENTS_STREAM}")
    await link.call(f"STREAM.CREATE.{EVENTS_STREAM}", {**EVENTS_CONFIG, "num_replicas": 1, "deny_purge": True})

    assert "deny_purge of the stream UPLIFT_EVENTS is True but must be False" in str(
        await check_streams(link, DATABASE_ID)
    )
    with pytest.raises(StreamError, match="not permitted"):
        await Pull.begin(link, SystemClock())


async def test_a_stream_of_another_database_is_not_used(link: Link) -> None:
    """Two servers on the same streams would take and remove each other's events."""
    assert await check_streams(link, DATABASE_ID) is None
    assert await check_streams(link, None) is None
    assert f"belongs to the server with the database {DATABASE_ID}" in str(await check_streams(link, "another"))


async def test_many_events_leave_the_stream_quickly(link: Link) -> None:
    """NATS must not wait for the removal of stored messages before it sends more."""
    for first in range(0, 6000, 500):
        await asyncio.gather(*(stored(link, str(first + n)) for n in range(500)))
    pull = await Pull.begin(link, SystemClock())
    began = asyncio.get_running_loop().time()

    for message in await take(pull, 6000):
        pull.note_stored(message)

    assert asyncio.get_running_loop().time() - began < WITHIN_S / 2
    assert await left_in_stream(link, pull) == 0
