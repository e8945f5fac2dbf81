"""The event stream and its consumer while NATS has no leader for a stream or for the consumer."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.delivery.world import VirtualClock

from uplift_server.delivery.streams import stream as stream_module
from uplift_server.delivery.streams.link import NatsServer, StreamUnavailable
from uplift_server.delivery.streams.pull import CREATE_SECONDS, SILENT_MS_MAX, Pull
from uplift_server.delivery.streams.stream import (
    EVENTS_CONFIG,
    REJECTED_CONFIG,
    SERVER_VERSION_MIN,
    EventStream,
    StreamSettings,
)

OLD = "uplift-0123"
STEP_MS = 1_000


class FastClock(VirtualClock):
    """A clock whose waits end at once, after the full time."""

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        del event
        self.now += int(timeout_ms)
        await asyncio.sleep(0)


class Link:
    """A connection to NATS. The first calls of some operations get no response."""

    def __init__(self, **without_response: int) -> None:
        """`without_response` is the number of calls that get no response, by operation."""
        self.closed = asyncio.Event()
        self.message_bytes_max = 1024
        self.calls: list[tuple[str, str, float]] = []
        """The operation, the consumer and the timeout (s) of each call about one consumer."""
        self.consumers = [OLD]
        self.keeps_consumers = False
        """Whether consumers still exist after a call to delete them."""
        self._without_response = without_response

    def new_inbox(self) -> str:
        return "_INBOX.a"

    async def subscribe(self, _: str, __: object) -> None:
        pass

    async def publish(self, _: str, payload: bytes, *, reply: str) -> None:
        pass

    async def call(self, operation: str, _: object = None, *, seconds: float = 1) -> dict[str, Any]:
        kind, action, *names = operation.split(".")
        if kind != "CONSUMER":
            return {}
        if action == "NAMES":
            return {"consumers": list(self.consumers)}
        name = names[-1]
        self.calls.append((action, name, seconds))
        if action == "CREATE":
            self.consumers.append(name)
        elif not self.keeps_consumers:
            self.consumers.remove(name)
        left = self._without_response.get(action, 0)
        self._without_response[action] = left - 1
        if left > 0:
            raise StreamUnavailable("timeout")
        return {}

    def seconds(self, action: str) -> list[float]:
        """Return the timeouts of the calls of an operation."""
        return [seconds for called, _, seconds in self.calls if called == action]


async def begin(link: Any) -> Pull:
    return await Pull.begin(link, FastClock())


async def test_a_consumer_that_stays_silent_is_lost() -> None:
    pull = await begin(Link())
    for _ in range(SILENT_MS_MAX // STEP_MS):
        await pull.next(STEP_MS)
    with pytest.raises(StreamUnavailable, match="does not respond"):
        await pull.next(STEP_MS)


async def test_a_consumer_is_replaced_although_nats_does_not_confirm_its_deletion() -> None:
    link = Link(DELETE=1)
    await begin(link)
    assert [action for action, _, _ in link.calls] == ["DELETE", "CREATE"]
    assert OLD not in link.consumers


async def test_a_consumer_that_still_exists_is_not_replaced() -> None:
    """Two consumers would each get only some of the messages."""
    link = Link(DELETE=1)
    link.keeps_consumers = True
    with pytest.raises(StreamUnavailable):
        await begin(link)
    assert not link.seconds("CREATE")


async def test_each_attempt_to_create_a_consumer_gets_more_time() -> None:
    link = Link(CREATE=2)
    await begin(link)
    assert link.seconds("CREATE") == list(CREATE_SECONDS)
    assert len(link.consumers) == 1


async def test_a_creation_without_any_response_fails() -> None:
    link = Link(CREATE=len(CREATE_SECONDS))
    with pytest.raises(StreamUnavailable):
        await begin(link)


async def test_a_creation_is_not_repeated_over_a_lost_connection() -> None:
    link = Link(CREATE=1)
    link.closed.set()
    with pytest.raises(StreamUnavailable):
        await begin(link)
    assert len(link.seconds("CREATE")) == 1


class StreamLink:
    """A connection to NATS whose streams exist. A stream without a leader does not respond."""

    server_version = SERVER_VERSION_MIN
    message_bytes_max = 1 << 20
    cause = "connection closed"

    def __init__(self, *without_leader: str) -> None:
        self.closed = asyncio.Event()
        self._without_leader = without_leader

    async def call(self, operation: str) -> dict[str, Any]:
        name = operation.removeprefix("STREAM.INFO.")
        if name in self._without_leader:
            raise StreamUnavailable("timeout")
        [config] = [each for each in (EVENTS_CONFIG, REJECTED_CONFIG) if each["name"] == name]
        state = {"messages": 0, "bytes": 0, "first_seq": 1, "last_seq": 0}
        return {"config": {**config, "num_replicas": 3}, "state": state, "cluster": {"leader": "a"}}

    async def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("without_leader_at_start", [[], ["UPLIFT_REJECTED"]])
async def test_events_are_accepted_while_only_the_stream_of_rejected_events_has_no_leader(
    monkeypatch: pytest.MonkeyPatch, without_leader_at_start: list[str]
) -> None:
    first, second = StreamLink(*without_leader_at_start), StreamLink("UPLIFT_REJECTED")
    links = iter([first, second])

    async def connect(*_: object) -> StreamLink:
        return next(links)

    async def read(_: object) -> str:
        return ""

    monkeypatch.setattr(stream_module.Link, "connect", connect)
    database: Any = SimpleNamespace(read=read)
    stream = EventStream(StreamSettings([NatsServer.parse("nats://a")], 3, None), FastClock(), database)
    running = asyncio.create_task(stream.run(asyncio.Event()))
    for link in (first, second):
        async with asyncio.timeout(5):
            while stream.link is not link:
                await asyncio.sleep(0)
        link.closed.set()
    running.cancel()
