"""Groups of messages: while NATS stores a group, the next messages wait, and they form the next group."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.delivery.test_stream_messages import TYPE
from tests.delivery.world import START, VirtualClock

from uplift_server.core.ids import IdSequence
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.streams.ingest import GROUP_WAIT_MS_MAX, StreamIngest
from uplift_server.observe.counters import EngineCounters

ACCOUNT = 1
TURNS = 10
"""The number of turns of the event loop in which the publisher sends everything that it can send."""


class RecordingLink:
    """A connection to NATS that records the messages. The test responds to the messages."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.sent: list[int] = []
        """The numbers of the sent events."""
        self._replies: dict[int, str] = {}
        self._receive: Callable[[Any], None] = lambda _: None

    def new_inbox(self) -> str:
        return "_INBOX.a"

    async def subscribe(self, _: str, receive: Callable[[Any], None]) -> None:
        self._receive = receive

    async def publish(self, _: str, payload: bytes, *, reply: str, headers: dict[str, str]) -> None:
        del headers
        number = json.loads(payload)["data"]["number"]
        self.sent.append(number)
        self._replies[number] = reply

    def respond(self, data: bytes, *numbers: int) -> None:
        for number in numbers:
            self._receive(SimpleNamespace(subject=self._replies[number], data=data))

    def acknowledge(self, *numbers: int) -> None:
        self.respond(b'{"stream":"a","seq":1}', *numbers)


class Publisher:
    """A publisher with a virtual clock and a recording link."""

    def __init__(self, known: Any = None) -> None:
        """`known` finds stored events."""
        self.clock, self.link = VirtualClock(), RecordingLink()
        stream: Any = SimpleNamespace(trouble=lambda: None, reading=None, add_listener=lambda _: None)
        cache: Any = SimpleNamespace(accounts={ACCOUNT: SimpleNamespace(id=bytes(16))})
        unused: Any = None
        ids = IdSequence(bytes)
        self.ingest = StreamIngest(stream, cache, unused, known, ids, self.clock, EngineCounters())

    async def send(self, *numbers: int) -> list["asyncio.Future[Any]"]:
        """Accept one request for each event. Return the futures of the results."""
        drafts = [Draft(TYPE, json.dumps({"number": number}).encode(), ()) for number in numbers]
        results = [self.ingest.accept_for([(ACCOUNT, draft)]) for draft in drafts]
        await turns()
        return results

    async def connect(self, link: RecordingLink) -> None:
        self.link = link
        await self.ingest.connected(link)  # type: ignore[arg-type]
        await turns()


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    publisher = Publisher()
    running = asyncio.create_task(publisher.ingest.run(asyncio.Event()))
    await publisher.connect(publisher.link)
    yield publisher
    running.cancel()


async def test_messages_wait_until_the_sent_messages_are_stored(publisher: Publisher) -> None:
    [first] = await publisher.send(1)
    await publisher.send(2, 3)
    await publisher.send(4)
    assert publisher.link.sent == [1]

    publisher.link.acknowledge(1)
    await turns()
    assert first.done()
    assert publisher.link.sent == [1, 2, 3, 4]

    await publisher.send(5)
    publisher.link.acknowledge(2, 3)
    await turns()
    assert publisher.link.sent == [1, 2, 3, 4]
    publisher.link.acknowledge(4)
    await turns()
    assert publisher.link.sent == [1, 2, 3, 4, 5]


async def test_a_lost_acknowledgment_delays_later_messages_only_briefly(publisher: Publisher) -> None:
    await publisher.send(1)
    results = await publisher.send(2)
    assert publisher.link.sent == [1]

    publisher.clock.fire()
    await turns()
    assert publisher.link.sent == [1, 2]
    assert publisher.clock.now == START + GROUP_WAIT_MS_MAX
    # The late acknowledgment of the first message does not end the group of the second message.
    await publisher.send(3)
    publisher.link.acknowledge(1)
    await turns()
    assert publisher.link.sent == [1, 2]
    publisher.link.acknowledge(2)
    await turns()
    assert publisher.link.sent == [1, 2, 3]
    assert results[0].done()


async def test_a_lost_acknowledgment_delays_only_one_group(publisher: Publisher) -> None:
    await publisher.send(1)
    await publisher.send(2)
    publisher.clock.fire()
    await turns()
    publisher.link.acknowledge(2)
    await publisher.send(3)
    assert publisher.link.sent == [1, 2, 3]


async def test_a_batch_that_fails_does_not_delay_later_messages(publisher: Publisher) -> None:
    drafts = [Draft(TYPE, json.dumps({"number": number}).encode(), ()) for number in (1, 2)]
    failed = publisher.ingest.accept_for([(ACCOUNT, draft) for draft in drafts])
    await turns()
    publisher.link.respond(b'{"error":{"code":503,"description":"maximum bytes exceeded"}}', 1)
    await publisher.send(3)
    assert publisher.link.sent == [1, 2, 3]
    assert failed.exception() is not None


@pytest.mark.parametrize("data", [b"", b'{"error":{"code":409,"description":"duplicate message id is in process"}}'])
async def test_a_message_that_is_not_stored_does_not_delay_later_messages(publisher: Publisher, data: bytes) -> None:
    await publisher.send(1)
    await publisher.send(2)
    publisher.link.respond(data, 1)
    await turns()
    assert publisher.link.sent == [1, 2]


async def test_the_limit_of_the_wait_starts_with_the_group(publisher: Publisher) -> None:
    await publisher.send(1)
    publisher.clock.now += GROUP_WAIT_MS_MAX
    await publisher.send(2)
    publisher.clock.fire()
    await turns()
    assert publisher.link.sent == [1, 2]
    assert publisher.clock.now == START + GROUP_WAIT_MS_MAX


async def test_a_new_connection_sends_all_unacknowledged_messages_without_a_wait(publisher: Publisher) -> None:
    await publisher.send(1)
    await publisher.send(2)
    await publisher.connect(RecordingLink())
    assert publisher.link.sent == [1, 2]


async def test_a_connection_that_is_replaced_while_it_sends_takes_no_more_messages(publisher: Publisher) -> None:
    old, new = publisher.link, RecordingLink()

    async def replaced(*_: object, **__: object) -> None:
        """Block until the next connection exists, as a full buffer does."""
        await publisher.connect(new)

    old.publish = replaced  # type: ignore[method-assign]
    await publisher.send(1, 2, 3)
    await turns()
    assert old.sent == []
    assert new.sent == [1, 2, 3]
