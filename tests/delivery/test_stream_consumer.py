"""The consumer of the event stream: which messages leave the stream, and which events it rejects."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tests.delivery.test_stream_messages import ACCOUNT, TYPE
from tests.delivery.world import START, VirtualClock
from tests.rejected_events import PROBLEM, rejected_event

from uplift_server.core.ids import uuid_text
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.streams import rejections
from uplift_server.delivery.streams.consumer import StreamConsumer
from uplift_server.delivery.streams.link import StreamError, StreamUnavailable
from uplift_server.delivery.streams.messages import EVENTS_MAX, encode_event, join_events
from uplift_server.delivery.streams.ports import Rejection
from uplift_server.delivery.streams.stream import StreamUnfit
from uplift_server.observe.counters import EngineCounters
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import Appended
from uplift_server.store.rejected_events import RejectedEvent, rejected_id

ACCOUNT_SEQ = 1
SERVER_SUBJECT = "uplift.events.$accepted.events"
TURNS = 20
STEPS_MAX = 10_000


class Link:
    """A connection to NATS with a stream of messages, and with a stream of rejected events that can be unavailable."""

    message_bytes_max = 1 << 20
    cause = "connection closed"

    def __init__(self, *messages: tuple[str, bytes]) -> None:
        """Each message is its subject and its content."""
        self.closed = asyncio.Event()
        self.messages = messages
        self._removed: set[int] = set()
        """The sequence numbers of the messages that were removed from the stream."""
        self.rejected: list[tuple[str, Any]] = []
        """The subject and the content of each message in the stream of rejected events."""
        self.rejected_failure: Exception | None = None
        """Why the stream of rejected events cannot store messages."""
        self.attempts = 0
        """The number of attempts to store a message in the stream of rejected events."""
        self.never_stored: bytes | None = None
        """A rejected event that the stream of rejected events never stores."""
        self.last_seq = 0
        """The number of the last message in the stream when the consumer begins."""
        self.per_pull = 100
        """The number of messages that each pull request returns."""
        self._receive: Callable[[Any], None] = lambda _: None
        self._delivered = 0
        self._rejected_ids: set[str] = set()
        self._undelivered: list[int] = []
        """The sequence numbers of the messages that the consumer can still deliver."""

    @property
    def left(self) -> int:
        """The number of messages in the stream."""
        return len(self.messages) - len(self._removed)

    def new_inbox(self) -> str:
        return "_INBOX.a"

    async def subscribe(self, _: str, receive: Callable[[Any], None]) -> None:
        self._receive = receive

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Respond to a request for messages, or remove an acknowledged message."""
        if payload == b"+ACK":
            self._removed.add(int(subject.split(".")[5]))
        if not subject.startswith("$JS.API.CONSUMER.MSG.NEXT"):
            return
        for seq in self._undelivered[: self.per_pull]:
            self._delivered += 1
            name, data = self.messages[seq - 1]
            ack = f"$JS.ACK.UPLIFT_EVENTS.a.1.{seq}.{self._delivered}.{START * 1_000_000}.0"
            self._receive(SimpleNamespace(subject=name, reply=ack, data=data, headers=None))
        del self._undelivered[: self.per_pull]
        if self._undelivered:
            ended = {"Status": "408", "Description": "Request Timeout"}
            self._receive(SimpleNamespace(subject=reply, reply="", data=b"", headers=ended))

    def send_heartbeat(self) -> None:
        self._receive(SimpleNamespace(subject="_INBOX.a", reply="", data=b"", headers={"Status": "100"}))

    async def call(self, operation: str, body: dict[str, Any] | None = None, **_: object) -> dict[str, Any]:
        if operation.startswith("STREAM.PURGE") and body is not None:
            self._removed.update(range(1, body["seq"]))
        if operation.startswith("STREAM.INFO"):
            state = {"messages": 0, "first_seq": 1, "last_seq": self.last_seq, "bytes": 0}
            return {"state": state, "config": {}, "cluster": {"leader": "a"}}
        if operation.startswith("CONSUMER.CREATE"):
            self._delivered = 0
            self._undelivered = [seq for seq in range(1, len(self.messages) + 1) if seq not in self._removed]
        return {"consumers": []}

    async def store(self, subject: str, payload: bytes, message_id: str) -> None:
        self.attempts += 1
        if self.rejected_failure is not None:
            raise self.rejected_failure
        message = json.loads(payload)
        if self.never_stored is not None and message["event"] == json.loads(self.never_stored):
            raise StreamError(400, "message size exceeds maximum allowed")
        if message_id not in self._rejected_ids:
            self._rejected_ids.add(message_id)
            self.rejected.append((subject, message))


class Consuming:
    """A consumer with a virtual clock, whose database is the lists of stored and rejected events."""

    def __init__(self, link: Link) -> None:
        self.link, self.clock, self.counters = link, VirtualClock(), EngineCounters()
        self.stored: list[bytes] = []
        self.rejected: list[RejectedEvent] = []
        """The rejected events that the database contained before the start."""
        self.is_unavailable: Callable[[Draft], bool] = lambda _: False
        """Whether the database is unavailable for an event."""
        account = SimpleNamespace(seq=ACCOUNT_SEQ)
        cache: Any = SimpleNamespace(
            find_account={ACCOUNT: account}.get,
            event_types_by_seq={TYPE.seq: TYPE},
            event_types={TYPE.name: TYPE},
            endpoints={},
        )
        self.unfit: StreamUnfit | None = None
        """Why the server cannot use the stream of rejected events."""
        self.stream: Any = SimpleNamespace(link=link, trouble=lambda: None, check=self._check)
        freshness: Any = SimpleNamespace(synced_at=START + 1_000_000, wake=lambda: None)
        jobs: Any = SimpleNamespace(holds=lambda _: True, set_possible=lambda _, is_possible: None)
        published: Any = SimpleNamespace(
            unknown_account=lambda *_: Rejection({"code": "validation_failed"}),
            defect=lambda _: Rejection({"code": "internal_error"}),
        )
        # fmt: off
        parts: list[Any] = [
            self.stream, cache, freshness, self, published, self, jobs, self.clock, self.counters, None,
        ]
        # fmt: on
        self.consumer = StreamConsumer(*parts)

    async def _check(self, *_: object) -> None:
        if self.unfit is not None:
            raise self.unfit

    def accept_for(self, drafts: list[tuple[int, Draft]], *, is_request: bool) -> "asyncio.Future[Any]":
        assert not is_request
        [(_, draft)] = drafts
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.is_unavailable(draft):
            result.set_exception(Unavailable("the database is down"))
        else:
            assert draft.id is not None
            if draft.data not in self.stored:
                self.stored.append(draft.data)
            result.set_result([Appended(1, draft.id, START)])
        return result

    async def read(self, _: object) -> list[RejectedEvent]:
        """Find rejected events."""
        return self.rejected

    async def write(self, _: object) -> None:
        """Store rejected events."""

    async def run_until(self, is_reached: Callable[[], bool]) -> None:
        """Run timers until a condition is true."""
        for _ in range(STEPS_MAX):
            for _ in range(TURNS):
                await asyncio.sleep(0)
            if is_reached():
                return
            self.clock.fire()
            self.link.send_heartbeat()
        raise AssertionError("the condition was never true")


def event(number: int, account: str = ACCOUNT) -> bytes:
    """Return the content of an accepted event with this number in its data."""
    draft = Draft(TYPE, b"%d" % number, (), id=bytes([number]) * 16)
    return encode_event(account, draft, bytes([number]) * 16, START, None)


def valid(number: int) -> tuple[str, bytes]:
    """Return a message with one accepted event."""
    return SERVER_SUBJECT, join_events([event(number)])


@pytest.fixture
def started() -> Iterator[Callable[..., Consuming]]:
    """Return a function that starts a consumer of messages."""
    tasks = []

    def start(*messages: tuple[str, bytes]) -> Consuming:
        consuming = Consuming(Link(*messages))
        tasks.append(asyncio.get_running_loop().create_task(consuming.consumer.run(asyncio.Event())))
        return consuming

    yield start
    for task in tasks:
        task.cancel()


async def test_a_message_leaves_the_stream_only_after_all_its_events_are_stored(
    started: Callable[..., Consuming],
) -> None:
    consuming = started(
        (SERVER_SUBJECT, join_events([event(1)])),
        (SERVER_SUBJECT, join_events([event(2), event(3), event(4)])),
        (SERVER_SUBJECT, join_events([event(5)])),
    )
    consuming.is_unavailable = lambda draft: draft.data in {b"3", b"4", b"5"}
    await consuming.run_until(lambda: consuming.link.left == 2)
    for _ in range(20):
        consuming.clock.fire()
        await consuming.run_until(lambda: True)
    assert consuming.stored == [b"1", b"2"]
    assert consuming.link.left == 2

    consuming.is_unavailable = lambda draft: draft.data in {b"4", b"5"}
    await consuming.run_until(lambda: b"3" in consuming.stored)
    await consuming.run_until(lambda: True)
    assert consuming.link.left == 2

    consuming.is_unavailable = lambda _: False
    await consuming.run_until(lambda: consuming.link.left == 0)
    assert consuming.stored == [b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize(
    "invalid",
    [
        b"1",
        b"{}",
        event(9, account="acc_1"),
        event(9).replace(b'"created_at":%d' % START, b'"created_at":%d' % 2**62),
        event(9).replace(uuid_text(bytes([9]) * 16).encode(), b"no UUID"),
    ],
)
async def test_an_invalid_event_does_not_stop_the_other_events_of_its_message(
    started: Callable[..., Consuming], invalid: bytes
) -> None:
    consuming = started((SERVER_SUBJECT, join_events([event(1), invalid, event(2)])))
    await consuming.run_until(lambda: consuming.link.left == 0)
    assert consuming.stored == [b"1", b"2"]
    [(_, message)] = consuming.link.rejected
    assert message["problem"] == {"code": "internal_error"}
    assert message["event"] == json.loads(invalid) or "no UUID" in message["event"]["id"]
    assert consuming.counters.rejected_events == 1


async def test_a_message_that_is_not_a_list_of_events_is_rejected(started: Callable[..., Consuming]) -> None:
    consuming = started(*[(SERVER_SUBJECT, each) for each in (b"no JSON", b"[]", b"{}", b'[{"id":1},')])
    await consuming.run_until(lambda: consuming.link.left == 0)
    assert [subject for subject, _ in consuming.link.rejected] == ["uplift.rejected.$accepted"] * 4


async def test_a_message_with_too_many_elements_is_rejected_as_a_whole(started: Callable[..., Consuming]) -> None:
    consuming = started((SERVER_SUBJECT, b"[" + b"0," * EVENTS_MAX + b"0]"))
    await consuming.run_until(lambda: consuming.link.left == 0)
    assert consuming.counters.rejected_events == 1


async def test_a_redelivered_event_stays_rejected_although_it_is_valid_now(started: Callable[..., Consuming]) -> None:
    consuming = started(valid(1), valid(2), valid(3))
    consuming.link.last_seq = 2
    row = rejected_event(ACCOUNT_SEQ, problem={**PROBLEM, "code": "earlier"})
    consuming.rejected = [replace(row, id=rejected_id(2, START))]
    await consuming.run_until(lambda: consuming.link.left == 0)
    assert consuming.stored == [b"1", b"3"]
    assert [message["problem"]["code"] for _, message in consuming.link.rejected] == ["earlier"]
    assert consuming.counters.rejected_events == 0


async def test_events_are_stored_while_rejected_events_cannot_be_published(started: Callable[..., Consuming]) -> None:
    unknown = ("uplift.events.unknown", b"{}")
    consuming = started(valid(1), unknown, valid(2), unknown, valid(3))
    consuming.link.rejected_failure = StreamUnavailable("the stream has no leader")
    await consuming.run_until(lambda: len(consuming.stored) == 3)
    await consuming.run_until(lambda: consuming.link.attempts > 4)
    assert consuming.clock.now - START <= 10_000
    assert consuming.counters.rejected_events == 2
    await consuming.run_until(lambda: consuming.link.left == 2)

    consuming.link.rejected_failure = None
    await consuming.run_until(lambda: consuming.link.left == 0)
    assert [subject for subject, _ in consuming.link.rejected] == ["uplift.rejected.unknown"] * 2


async def test_a_rejected_event_that_nats_never_stores_does_not_delay_other_rejected_events(
    started: Callable[..., Consuming],
) -> None:
    consuming = started(*[("uplift.events.unknown", each) for each in (b"1", b"2", b"3")])
    consuming.link.never_stored = b"2"
    await consuming.run_until(lambda: consuming.link.attempts > 20)
    assert {message["event"] for _, message in consuming.link.rejected} == {1, 3}
    await consuming.run_until(lambda: consuming.link.left == 1)


async def test_an_unfit_stream_of_rejected_events_does_not_stop_events(started: Callable[..., Consuming]) -> None:
    consuming = started(("uplift.events.unknown", b"1"), valid(1))
    consuming.unfit = StreamUnfit("the setting storage is memory", "correct the setting")
    await consuming.run_until(lambda: consuming.clock.now > START + 10_000)
    assert consuming.stored == [b"1"]
    assert not consuming.link.attempts

    consuming.unfit = None
    await consuming.run_until(lambda: consuming.link.left == 0)
    assert len(consuming.link.rejected) == 1


async def test_too_many_rejected_events_that_cannot_be_published_stop_the_consumer(
    started: Callable[..., Consuming], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejections, "WAITING_EVENTS_MAX", 3)
    unknown = ("uplift.events.unknown", b"{}")
    consuming = started(unknown, unknown, valid(1), unknown, unknown, valid(2))
    consuming.link.per_pull = 1
    consuming.link.rejected_failure = StreamUnavailable("the stream has no leader")
    await consuming.run_until(lambda: consuming.clock.now > START + 60_000)
    assert consuming.counters.rejected_events == 3
    assert consuming.stored == [b"1"]

    consuming.link.rejected_failure = None
    await consuming.run_until(lambda: consuming.link.left == 0)
    assert consuming.stored == [b"1", b"2"]
    assert consuming.counters.rejected_events == 4


async def test_the_next_connection_publishes_the_rejected_events(started: Callable[..., Consuming]) -> None:
    consuming = started(("uplift.events.unknown", b"{}"), valid(1))
    consuming.link.rejected_failure = StreamUnavailable("the connection is lost")
    await consuming.run_until(lambda: consuming.link.attempts > 0 and len(consuming.stored) == 1)

    old, consuming.link = consuming.link, Link(*consuming.link.messages)
    consuming.stream.link = consuming.link
    old.closed.set()
    old.rejected_failure = None
    await consuming.run_until(lambda: consuming.link.left == 0)
    assert len(consuming.link.rejected) == 1
    assert not old.rejected
