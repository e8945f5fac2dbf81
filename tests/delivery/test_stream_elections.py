"""The consumer of the event stream while NATS has no leader for it or for the stream."""

import asyncio
import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.delivery.world import VirtualClock

from uplift_server.delivery.streams import pull as pull_module
from uplift_server.delivery.streams.consumer import StreamConsumer
from uplift_server.delivery.streams.link import StreamError, StreamUnavailable
from uplift_server.delivery.streams.pull import CREATE_SECONDS_MAX, CREATE_SECONDS_MIN, SILENT_MS_MAX, Pull
from uplift_server.observe.counters import EngineCounters

OLD = "uplift-0123"
STEP_MS = 1_000
WITHIN_S = 20


class FastClock(VirtualClock):
    """A clock whose waits end at once, after the full time."""

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        del event
        self.now += int(timeout_ms)
        await asyncio.sleep(0)


class Link:
    """A connection to NATS without a leader: some calls get no response."""

    def __init__(self, *unanswered: str) -> None:
        self.closed = asyncio.Event()
        self.cause = ""
        self.message_bytes_max = 1024
        self.unanswered = unanswered
        """Parts of the operations that get no response."""
        self.consumers = [OLD]
        self.keeps_consumers = False
        """Whether consumers still exist after a call to delete them."""
        self.calls: list[tuple[str, float]] = []
        self.requests: list[str] = []
        """The subjects for the responses to the pull requests."""
        self._receive: Callable[[Any], None] = lambda _: None

    def new_inbox(self) -> str:
        return "_INBOX.a"

    async def subscribe(self, _: str, receive: Callable[[Any], None]) -> None:
        self._receive = receive

    async def publish(self, _: str, payload: bytes, *, reply: str) -> None:
        del payload
        self.requests.append(reply)

    async def call(self, operation: str, _: object = None, *, seconds: float = 1) -> dict[str, Any]:
        self.calls.append((operation, seconds))
        if "CONSUMER.NAMES" in operation:
            return {"consumers": list(self.consumers)}
        if "CONSUMER.DELETE" in operation and not self.keeps_consumers:
            self.consumers.clear()
        if any(each in operation for each in self.unanswered):
            raise StreamUnavailable("timeout")
        return {}

    def heartbeat(self) -> None:
        self._receive(SimpleNamespace(subject=self.requests[-1], reply="", headers={"Status": "100"}))


async def begin(link: Any, clock: VirtualClock | None = None) -> Pull:
    return await Pull.begin(link, clock or FastClock())


async def test_a_pull_request_is_repeated_until_there_is_a_new_leader() -> None:
    link = Link()
    pull = await begin(link)
    for _ in range(4):
        await pull.next(STEP_MS)
    assert len(link.requests) == 1
    for _ in range(6):
        await pull.next(STEP_MS)
    assert len(link.requests) == len(set(link.requests)) == 7
    link.heartbeat()
    for _ in range(4):
        await pull.next(STEP_MS)
    assert len(link.requests) == 7


async def test_a_consumer_that_stays_silent_is_lost() -> None:
    pull = await begin(Link())
    for _ in range(SILENT_MS_MAX // STEP_MS):
        await pull.next(STEP_MS)
    with pytest.raises(StreamUnavailable, match="does not respond"):
        await pull.next(STEP_MS)


async def test_a_consumer_is_replaced_although_nats_does_not_confirm_its_deletion() -> None:
    link = Link("CONSUMER.DELETE")
    await begin(link)
    assert [operation.split(".")[1] for operation, _ in link.calls if operation.startswith("CONSUMER")] == [
        "NAMES",
        "DELETE",
        "NAMES",
        "CREATE",
    ]


async def test_a_consumer_that_still_exists_is_not_replaced() -> None:
    """Two consumers would each get only some of the messages."""
    link = Link("CONSUMER.DELETE")
    link.keeps_consumers = True
    with pytest.raises(StreamUnavailable):
        await begin(link)
    assert not any("CONSUMER.CREATE" in operation for operation, _ in link.calls)


class ConsumerSetup:
    """A running consumer of the stream that gets no messages."""

    def __init__(self, link: Any) -> None:
        async def create_missing(_: object) -> None:
            pass

        stream: Any = SimpleNamespace(link=link, trouble=lambda: None, create_missing=create_missing)
        jobs: Any = SimpleNamespace(holds=lambda _: True, set_possible=lambda _, is_possible: None)
        unused: Any = None
        self.consumer = StreamConsumer(
            stream, unused, unused, unused, unused, unused, jobs, FastClock(), EngineCounters(), None
        )

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        stopping = asyncio.Event()
        task = asyncio.create_task(self.consumer.run(stopping))
        yield
        stopping.set()
        await asyncio.wait_for(task, WITHIN_S)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0)


async def test_each_failed_creation_gets_more_time() -> None:
    link = Link("CONSUMER.CREATE")

    def seconds() -> list[float]:
        return [given for operation, given in link.calls if "CONSUMER.CREATE" in operation]

    async with ConsumerSetup(link).running():
        await until(lambda: len(seconds()) == 5)
        assert seconds() == [CREATE_SECONDS_MIN, 4, 8, CREATE_SECONDS_MAX, CREATE_SECONDS_MAX]
        link.unanswered = ()
        await until(lambda: bool(link.requests))


@pytest.mark.parametrize(
    ("error", "begins_again"), [(StreamUnavailable("timeout"), False), (StreamError(404, "not found"), True)]
)
async def test_a_failed_removal_ends_the_consumer_only_if_nats_rejects_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, *, begins_again: bool
) -> None:
    """While NATS elects a leader of the stream, the consumer continues, and repeats the removal."""
    link, removals = Link(), 0

    async def remove_stored(_: Pull, *, at_once: bool = False) -> None:
        nonlocal removals
        del at_once
        removals += 1
        if removals == 1:
            raise error

    monkeypatch.setattr(pull_module.Pull, "remove_stored", remove_stored)
    with capture_logs() as logs:
        async with ConsumerSetup(link).running():
            await until(lambda: removals == 5)
    assert [each["event"] for each in logs].count("event stream interrupted") == 1
    assert [each["event"] for each in logs].count("event stream consumer started") == 1 + begins_again
