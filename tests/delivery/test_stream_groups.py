"""Messages to the event stream: while NATS stores the sent messages, the next events wait and share messages."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from tests.delivery.test_stream_messages import TYPE
from tests.delivery.world import START, VirtualClock

from uplift_server.core.ids import IdSequence
from uplift_server.core.limits import STREAM_SHARED_DATA_BYTES_MAX
from uplift_server.delivery.ingest import COMMIT_TIMEOUT_MS, Draft
from uplift_server.delivery.streams.ingest import GROUP_WAIT_MS_MAX, StreamIngest
from uplift_server.delivery.streams.messages import MESSAGE_ID
from uplift_server.observe.counters import EngineCounters
from uplift_server.store.errors import Unavailable

ACCOUNT, OTHER = 1, 2
TURNS = 10
"""The number of turns of the event loop in which the publisher sends everything that it can send."""


class EmptyDatabase:
    """Finds no stored events."""

    def find(self, _: int, __: Draft) -> "asyncio.Future[None]":
        found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        found.set_result(None)
        return found


class RecordingLink:
    """A connection to NATS that records the messages. The test responds to the messages."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.messages: list[list[int]] = []
        """The numbers of the events in each sent message."""
        self.message_ids: list[str] = []
        self._replies: dict[int, str] = {}
        self._receive: Callable[[Any], None] = lambda _: None

    def new_inbox(self) -> str:
        return "_INBOX.a"

    async def subscribe(self, _: str, receive: Callable[[Any], None]) -> None:
        self._receive = receive

    async def publish(self, _: str, payload: bytes, *, reply: str, headers: dict[str, str]) -> None:
        self.messages.append([event["data"]["number"] for event in json.loads(payload)])
        self.message_ids.append(headers[MESSAGE_ID])
        self._replies |= dict.fromkeys(self.messages[-1], reply)

    def respond(self, data: bytes, number: int) -> None:
        """Respond to the latest message with an event."""
        self._receive(SimpleNamespace(subject=self._replies[number], data=data))

    def acknowledge(self, number: int) -> None:
        self.respond(b'{"stream":"a","seq":1}', number)


class Publisher:
    """A publisher with a virtual clock and a recording link."""

    def __init__(self) -> None:
        self.clock, self.link = VirtualClock(), RecordingLink()
        stream: Any = SimpleNamespace(trouble=lambda: None, reading=None, add_listener=lambda _: None)
        cache: Any = SimpleNamespace(accounts={seq: SimpleNamespace(id=bytes([seq]) * 16) for seq in (ACCOUNT, OTHER)})
        unused: Any = None
        ids = IdSequence(bytes)
        self.ingest = StreamIngest(stream, cache, unused, EmptyDatabase(), ids, self.clock, EngineCounters())

    async def send(self, *numbers: int, account: int = ACCOUNT) -> list["asyncio.Future[Any]"]:
        """Accept one request for each event. Return the futures of the results."""
        results = [self.ingest.accept_for([(account, draft(number))]) for number in numbers]
        await turns()
        return results

    async def send_batch(self, *drafts: Draft) -> "asyncio.Future[Any]":
        """Accept one request with all events. Return the future of the result."""
        result = self.ingest.accept_for([(ACCOUNT, each) for each in drafts])
        await turns()
        return result

    async def connect(self, link: RecordingLink) -> None:
        self.link = link
        await self.ingest.connected(link)  # type: ignore[arg-type]
        await turns()


def draft(number: int, **fields: Any) -> Draft:
    """Return an event with this number in its data."""
    return Draft(TYPE, json.dumps({"number": number}).encode(), (), **fields)


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


async def test_events_wait_until_the_sent_messages_are_stored(publisher: Publisher) -> None:
    [first] = await publisher.send(1)
    later = await publisher.send(2, 3) + await publisher.send(4, account=OTHER)
    assert publisher.link.messages == [[1]]

    publisher.link.acknowledge(1)
    await turns()
    assert first.done()
    assert publisher.link.messages == [[1], [2, 3, 4]]

    await publisher.send(5)
    assert publisher.link.messages == [[1], [2, 3, 4]]
    publisher.link.acknowledge(4)
    await turns()
    assert [each.done() for each in later] == [True, True, True]
    assert publisher.link.messages == [[1], [2, 3, 4], [5]]


async def test_a_message_has_a_limited_size(publisher: Publisher) -> None:
    await publisher.send(1)
    data = b'{"number":2,"text":"' + bytes(STREAM_SHARED_DATA_BYTES_MAX // 2).replace(b"\0", b"x") + b'"}'
    await publisher.send_batch(*[Draft(TYPE, data, ())] * 3, draft(3))
    publisher.link.acknowledge(1)
    await turns()
    assert publisher.link.messages == [[1], [2], [2], [2, 3]]


async def test_endpoints_do_not_change_which_events_of_a_batch_share_a_message(publisher: Publisher) -> None:
    """Otherwise, NATS would not detect a repeated batch after an endpoint was created."""
    count = 500
    endpoints: Any = [SimpleNamespace(seq=seq) for seq in range(20)]
    for subscribed in ((), endpoints):
        await publisher.send_batch(
            *[replace(draft(number, idempotency_key=f"{number:0255}"), endpoints=subscribed) for number in range(count)]
        )
        for number in range(count):
            publisher.link.acknowledge(number)
        await turns()
    messages, message_ids = publisher.link.messages, publisher.link.message_ids
    half = len(messages) // 2
    assert half > 1
    assert messages[:half] == messages[half:]
    assert message_ids[:half] == message_ids[half:]


async def test_an_event_that_can_be_a_repeat_shares_its_message_only_with_such_events_of_its_request(
    publisher: Publisher,
) -> None:
    """NATS detects a repeat only if the whole message is the same. The ID of an event without a key differs."""
    keyed = [draft(number, idempotency_key=str(number)) for number in (3, 4)]
    await publisher.send(1)
    await publisher.send(2)
    for _ in range(2):
        await publisher.send_batch(*keyed)
    await publisher.send_batch(draft(5), draft(6, id=bytes(16)))
    await publisher.send(7)
    publisher.link.acknowledge(1)
    await turns()
    assert publisher.link.messages == [[1], [2], [3, 4], [3, 4], [5], [6], [7]]
    _, _, first, second, *_ = publisher.link.message_ids
    assert first == second
    assert len(set(publisher.link.message_ids)) == len(publisher.link.messages) - 1


async def test_an_event_whose_request_failed_before_it_was_sent_is_not_sent() -> None:
    publisher = Publisher()
    [failed] = await publisher.send(1)
    publisher.clock.now += COMMIT_TIMEOUT_MS // 2
    [later] = await publisher.send(2)
    publisher.clock.now += COMMIT_TIMEOUT_MS // 2
    running = [asyncio.create_task(run(asyncio.Event())) for run in (publisher.ingest.run, publisher.ingest.watch)]
    await turns()
    publisher.clock.fire()
    await turns()
    assert isinstance(failed.exception(), Unavailable)

    await publisher.connect(publisher.link)
    assert publisher.link.messages == [[2]]
    publisher.link.acknowledge(2)
    assert later.done()
    assert publisher.ingest.waiting_events == 0
    for each in running:
        each.cancel()


async def test_an_event_does_not_join_a_message_whose_requests_have_all_failed() -> None:
    publisher = Publisher()
    [failed] = await publisher.send(1)
    publisher.clock.now += COMMIT_TIMEOUT_MS
    running = [asyncio.create_task(run(asyncio.Event())) for run in (publisher.ingest.run, publisher.ingest.watch)]
    await turns()
    publisher.clock.fire()
    await turns()
    assert failed.done()
    await publisher.send(2)
    await publisher.connect(publisher.link)
    assert publisher.link.messages == [[2]]
    for each in running:
        each.cancel()


async def test_a_lost_acknowledgment_delays_later_messages_only_briefly(publisher: Publisher) -> None:
    await publisher.send(1)
    results = await publisher.send(2)
    assert publisher.link.messages == [[1]]

    publisher.clock.fire()
    await turns()
    assert publisher.link.messages == [[1], [2]]
    assert publisher.clock.now == START + GROUP_WAIT_MS_MAX
    # The late acknowledgment of the first message does not end the group of the second message.
    await publisher.send(3)
    publisher.link.acknowledge(1)
    await turns()
    assert publisher.link.messages == [[1], [2]]
    publisher.link.acknowledge(2)
    await turns()
    assert publisher.link.messages == [[1], [2], [3]]
    assert results[0].done()


async def test_a_lost_acknowledgment_delays_only_one_group(publisher: Publisher) -> None:
    await publisher.send(1)
    await publisher.send(2)
    publisher.clock.fire()
    await turns()
    publisher.link.acknowledge(2)
    await publisher.send(3)
    assert publisher.link.messages == [[1], [2], [3]]


async def test_a_full_stream_fails_all_requests_of_a_message(publisher: Publisher) -> None:
    await publisher.send(1)
    failed = [*await publisher.send(2, 3), await publisher.send_batch(draft(4), draft(5))]
    publisher.link.acknowledge(1)
    await turns()
    await publisher.send(6)
    publisher.link.respond(b'{"error":{"code":503,"description":"maximum bytes exceeded"}}', 3)
    await turns()
    assert publisher.link.messages == [[1], [2, 3, 4, 5], [6]]
    assert all(isinstance(each.exception(), Unavailable) for each in failed)


@pytest.mark.parametrize("data", [b"", b'{"error":{"code":409,"description":"duplicate message id is in process"}}'])
async def test_a_message_that_is_not_stored_does_not_delay_later_messages(publisher: Publisher, data: bytes) -> None:
    await publisher.send(1)
    await publisher.send(2)
    publisher.link.respond(data, 1)
    await turns()
    assert publisher.link.messages == [[1], [2]]


async def test_the_limit_of_the_wait_starts_with_the_group(publisher: Publisher) -> None:
    await publisher.send(1)
    publisher.clock.now += GROUP_WAIT_MS_MAX
    await publisher.send(2)
    publisher.clock.fire()
    await turns()
    assert publisher.link.messages == [[1], [2]]
    assert publisher.clock.now == START + GROUP_WAIT_MS_MAX


async def test_a_new_connection_sends_all_unacknowledged_messages_without_a_wait(publisher: Publisher) -> None:
    await publisher.send(1)
    await publisher.send(2)
    await publisher.connect(RecordingLink())
    assert publisher.link.messages == [[1], [2]]


async def test_a_connection_that_is_replaced_while_it_sends_takes_no_more_messages(publisher: Publisher) -> None:
    old, new = publisher.link, RecordingLink()

    async def replaced(*_: object, **__: object) -> None:
        """Block until the next connection exists, as a full buffer does."""
        await publisher.connect(new)

    old.publish = replaced  # type: ignore[method-assign]
    keyed = [draft(number, idempotency_key=str(number)) for number in (1, 2, 3)]
    results = [publisher.ingest.accept_for([(ACCOUNT, each)]) for each in keyed]
    await turns()
    await turns()
    assert old.messages == []
    assert new.messages == [[1], [2], [3]]
    assert not any(each.done() for each in results)
