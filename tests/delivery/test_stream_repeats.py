"""Repeats of events that NATS detects by their message IDs."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.delivery.test_stream_groups import Publisher, RecordingLink, draft, turns
from tests.delivery.world import START

from uplift_server.core.events.stream_subjects import ACCEPTED_SUBJECT
from uplift_server.core.limits import STREAM_SHARED_DATA_BYTES_MAX
from uplift_server.delivery.streams.ingest import RESEND_AFTER_MS
from uplift_server.delivery.streams.link import NOT_FOUND, StreamError
from uplift_server.delivery.streams.messages import encode_event, join_events

ACCOUNT_ID = "acc_" + "1" * 32
FIRST_ID, SECOND_ID = bytes(15) + b"1", bytes(15) + b"2"
DRAFT, OTHER_DRAFT = draft(1, idempotency_key="k"), draft(2, idempotency_key="k2")


class LinkWithMessage(RecordingLink):
    """A connection to NATS whose stream has one earlier message (number 1), which leaves the stream after one read."""

    subject = ACCEPTED_SUBJECT
    events = (encode_event(ACCOUNT_ID, DRAFT, FIRST_ID, 5, None),)
    removed = False

    async def call(self, _: str, request: dict[str, Any]) -> dict[str, Any]:
        if self.removed or request["seq"] != 1:
            raise StreamError(NOT_FOUND, "no message found")
        self.removed = True
        data = base64.b64encode(join_events(self.events)).decode()
        return {"message": {"subject": self.subject, "data": data}}


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    publisher = Publisher()
    running = asyncio.create_task(publisher.ingest.run(asyncio.Event()))
    yield publisher
    running.cancel()


async def repeated(publisher: Publisher, link: LinkWithMessage) -> "asyncio.Future[Any]":
    """Accept an event. NATS detects a repeat of the earlier message."""
    await publisher.connect(link)
    result = await publisher.send_batch(DRAFT)
    link.respond(b'{"stream":"a","seq":1,"duplicate":true}', 1)
    await turns()
    return result


async def test_a_repeat_gets_the_id_of_the_message_in_the_stream(publisher: Publisher) -> None:
    link = LinkWithMessage()
    [event] = (await repeated(publisher, link)).result()
    assert (event.id, event.created_at, event.duplicate) == (FIRST_ID, 5, True)
    assert link.messages == [[1]]


async def test_a_concurrent_repeat_with_the_same_id_and_timestamp_is_a_duplicate(publisher: Publisher) -> None:
    link, chosen = LinkWithMessage(), replace(DRAFT, id=FIRST_ID)
    link.events = (encode_event(ACCOUNT_ID, chosen, FIRST_ID, START, None),)
    await publisher.connect(link)
    result = await publisher.send_batch(chosen)
    # NATS responds with this error while it stores the message of another request.
    link.respond(b'{"error":{"code":409,"description":"duplicate message id is in process"}}', 1)
    publisher.clock.now += RESEND_AFTER_MS
    watching = asyncio.create_task(publisher.ingest.watch(asyncio.Event()))
    await turns()
    publisher.clock.fire()
    await turns()
    assert link.messages == [[1], [1]]
    link.respond(b'{"stream":"a","seq":1,"duplicate":true}', 1)
    await turns()
    [event] = result.result()
    assert (event.id, event.created_at, event.duplicate) == (FIRST_ID, START, True)
    watching.cancel()


async def test_a_resent_message_is_not_a_duplicate(publisher: Publisher) -> None:
    link, chosen = LinkWithMessage(), replace(DRAFT, id=FIRST_ID)
    link.events = (encode_event(ACCOUNT_ID, chosen, FIRST_ID, START, None),)
    await publisher.connect(link)
    result = await publisher.send_batch(chosen)
    await publisher.connect(link)
    link.respond(b'{"stream":"a","seq":1,"duplicate":true}', 1)
    await turns()
    [event] = result.result()
    assert (event.id, event.duplicate) == (FIRST_ID, False)


async def test_a_repeated_batch_gets_the_ids_of_the_message_in_the_stream(publisher: Publisher) -> None:
    link = LinkWithMessage()
    link.events = (*link.events, encode_event(ACCOUNT_ID, OTHER_DRAFT, SECOND_ID, 6, None))
    await publisher.connect(link)
    result = await publisher.send_batch(DRAFT, OTHER_DRAFT)
    link.respond(b'{"stream":"a","seq":1,"duplicate":true}', 1)
    await turns()
    assert [(each.id, each.created_at, each.duplicate) for each in result.result()] == [
        (FIRST_ID, 5, True),
        (SECOND_ID, 6, True),
    ]
    assert link.messages == [[1, 2]]


async def test_an_event_that_is_twice_in_a_batch_is_sent_once(publisher: Publisher) -> None:
    link = LinkWithMessage()
    await publisher.connect(link)
    result = await publisher.send_batch(DRAFT, OTHER_DRAFT, DRAFT)
    assert link.messages == [[1, 2]]
    link.acknowledge(1)
    await turns()
    first, other, again = result.result()
    assert (first.id, first.created_at) == (again.id, again.created_at)
    assert [each.duplicate for each in (first, other, again)] == [False, False, True]
    assert publisher.ingest.waiting_events == 0


async def test_a_message_of_another_account_with_the_same_id_does_not_replace_an_event(publisher: Publisher) -> None:
    """An emitter that publishes to NATS can choose any message ID, even the ID of a message of the server."""
    link = LinkWithMessage()
    link.subject = "uplift.events.acc_other"
    result = await repeated(publisher, link)
    assert not result.done()
    assert link.messages == [[1], [1]]
    assert len(set(link.message_ids)) == 2
    link.acknowledge(1)
    await turns()
    [event] = result.result()
    assert event.id != FIRST_ID
    assert not event.duplicate
    assert publisher.ingest.waiting_events == 0


async def test_an_event_of_a_batch_that_was_found_keeps_its_id(publisher: Publisher) -> None:
    """While another message of the batch is published again, the found event can leave the stream."""
    link = LinkWithMessage()
    await publisher.connect(link)
    large = draft(2, idempotency_key="k2")
    large = replace(large, data=large.data[:-1] + b',"text":"' + b"x" * STREAM_SHARED_DATA_BYTES_MAX + b'"}')
    result = await publisher.send_batch(DRAFT, large)
    for number in (1, 2):
        link.respond(b'{"stream":"a","seq":%d,"duplicate":true}' % number, number)
    await turns()
    assert link.messages == [[1], [2], [2]]
    link.acknowledge(2)
    await turns()
    assert [event.duplicate for event in result.result()] == [True, False]
    assert publisher.ingest.waiting_events == 0
