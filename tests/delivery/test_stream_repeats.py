"""Repeats of events that NATS detects by their message IDs."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.delivery.test_stream_groups import ACCOUNT, Publisher, RecordingLink, turns
from tests.delivery.test_stream_messages import TYPE

from uplift_server.core.events.stream_subjects import accepted_subject
from uplift_server.core.ids import ACCOUNT as ACCOUNT_ID
from uplift_server.core.ids import prefixed
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.streams.link import NOT_FOUND, StreamError
from uplift_server.delivery.streams.messages import accepted_message

FIRST_ID = bytes(15) + b"1"
DRAFT = Draft(TYPE, b'{"number":1}', (), idempotency_key="k")
SUBJECT = accepted_subject(prefixed(ACCOUNT_ID, bytes(16)))


class LinkWithMessage(RecordingLink):
    """A connection to NATS whose stream has one earlier message (number 1), which leaves the stream after one read."""

    subject = SUBJECT
    removed = False

    async def call(self, _: str, request: dict[str, Any]) -> dict[str, Any]:
        if self.removed or request["seq"] != 1:
            raise StreamError(NOT_FOUND, "no message found")
        self.removed = True
        data = base64.b64encode(accepted_message(DRAFT, FIRST_ID, 5, None)).decode()
        return {"message": {"subject": self.subject, "data": data}}


class EmptyDatabase:
    """Finds no stored events."""

    def find(self, _: int, __: Draft) -> "asyncio.Future[None]":
        found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        found.set_result(None)
        return found


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    publisher = Publisher(EmptyDatabase())
    running = asyncio.create_task(publisher.ingest.run(asyncio.Event()))
    yield publisher
    running.cancel()


async def repeated(publisher: Publisher, link: LinkWithMessage) -> "asyncio.Future[Any]":
    """Accept an event. NATS detects a repeat of the earlier message."""
    await publisher.connect(link)
    result = publisher.ingest.accept_for([(ACCOUNT, DRAFT)])
    await turns()
    link.respond(b'{"stream":"a","seq":1,"duplicate":true}', 1)
    await turns()
    return result


async def test_a_repeat_gets_the_id_of_the_message_in_the_stream(publisher: Publisher) -> None:
    link = LinkWithMessage()
    [event] = (await repeated(publisher, link)).result()
    assert (event.id, event.created_at, event.duplicate) == (FIRST_ID, 5, True)
    assert link.sent == [1]


async def test_a_message_of_another_account_with_the_same_id_does_not_replace_an_event(publisher: Publisher) -> None:
    """An emitter that publishes to NATS can choose any message ID, even the ID of another account's event."""
    link = LinkWithMessage()
    link.subject = "uplift.events.acc_other"
    result = await repeated(publisher, link)
    assert not result.done()
    assert link.sent == [1, 1]
    link.acknowledge(1)
    await turns()
    [event] = result.result()
    assert event.id != FIRST_ID
    assert not event.duplicate
    assert publisher.ingest.waiting_events == 0


async def test_an_event_of_a_batch_that_was_found_keeps_its_id(publisher: Publisher) -> None:
    """While another event of the batch is published again, the found event can leave the stream."""
    link = LinkWithMessage()
    await publisher.connect(link)
    other = Draft(TYPE, b'{"number":2}', (), idempotency_key="k2")
    result = publisher.ingest.accept_for([(ACCOUNT, DRAFT), (ACCOUNT, other)])
    await turns()
    for number in (1, 2):
        link.respond(b'{"stream":"a","seq":%d,"duplicate":true}' % number, number)
    await turns()
    assert link.sent == [1, 2, 2]
    link.acknowledge(2)
    await turns()
    assert [event.duplicate for event in result.result()] == [True, False]
