"""The messages of the event stream, in order, for one process at a time.

Each process that takes over the job deletes the consumers of earlier processes and creates its own. Its consumer begins
with the oldest message that is not acknowledged, so the order is kept after a crash.
"""

import asyncio
import json
import secrets
from collections import deque
from typing import Final, NamedTuple

from uplift_server.core.events.stream_subjects import EVENTS_STREAM
from uplift_server.core.limits import STREAM_BATCH_BYTES_MAX, STREAM_BATCH_MESSAGES_MAX
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.streams.link import NOT_FOUND, Link, Received, StreamError, StreamUnavailable

_PREFIX: Final = "uplift-"
_NS: Final = 1_000_000_000
ACK_WAIT_S: Final = 60
"""NATS delivers a message again if it is not acknowledged or renewed for this long."""
RENEW_EVERY_MS: Final = 15_000
EXPIRES_S: Final = 10
HEARTBEAT_S: Final = 2
SILENT_MS_MAX: Final = 5_000
"""Without any message or heartbeat for this long, the consumer has lost its leader or the request."""
CREATE_SECONDS: Final = 5.0
"""How long NATS may take to place a consumer on its servers."""
_ENDED: Final = frozenset({"404", "408", "409"})
"""The end of a request. Other requests may succeed."""
_GONE: Final = "Consumer Deleted"
_HEARTBEAT: Final = "100"
_SUBJECT_BYTES_MAX: Final = 64 * 1024
"""More than the subjects and the fixed parts of a message and its acknowledgment."""
_ACK: Final = "$JS.ACK."
_SHORT_REPLY_TOKENS: Final = 9


class StreamMessage(NamedTuple):
    """A message of the event stream."""

    subject: str
    reply: str
    data: bytes
    seq: int
    """The number of the message in the stream."""
    published_ns: int
    """Unix ns by the clock of the NATS server."""
    received_at: int
    """Unix ms."""

    @property
    def published_at(self) -> int:
        """Unix ms by the clock of the NATS server."""
        return self.published_ns // 1_000_000


class Pull:
    """Takes messages from the stream. The next ones arrive while the caller stores the last ones."""

    def __init__(self, link: Link, name: str, clock: Clock) -> None:
        self.link = link
        self._name = name
        self._clock = clock
        self._inbox = link.new_inbox()
        self._request = 0
        self._expected = 0
        """The number of messages that the current request can still get."""
        self._waiting: deque[StreamMessage] = deque()
        self._unacknowledged: dict[int, str] = {}
        self._changed = asyncio.Event()
        self._heard_at = clock.now_ms()
        self._renewed_at = self._heard_at
        self._broken: str | None = None

    @classmethod
    async def begin(cls, link: Link, clock: Clock) -> "Pull":
        """Take over the stream from other processes. Raises StreamUnavailable and StreamError."""
        names = (await link.call(f"CONSUMER.NAMES.{EVENTS_STREAM}"))["consumers"] or ()
        for name in names:
            if name.startswith(_PREFIX):
                try:
                    await link.call(f"CONSUMER.DELETE.{EVENTS_STREAM}.{name}", seconds=CREATE_SECONDS)
                except StreamError as error:
                    if error.code != NOT_FOUND:
                        raise
        name = _PREFIX + secrets.token_hex(6)
        config = {
            "name": name,
            "durable_name": name,
            "ack_policy": "explicit",
            "ack_wait": ACK_WAIT_S * _NS,
            "deliver_policy": "all",
            "max_ack_pending": 4 * STREAM_BATCH_MESSAGES_MAX,
            "max_deliver": -1,
        }
        await link.call(
            f"CONSUMER.CREATE.{EVENTS_STREAM}.{name}",
            {"stream_name": EVENTS_STREAM, "config": config, "action": "create"},
            seconds=CREATE_SECONDS,
        )
        pull = cls(link, name, clock)
        await link.subscribe(f"{pull._inbox}.*", pull._receive)
        await pull._ask()
        return pull

    async def next(self, within_ms: int) -> list[StreamMessage]:
        """Return the next messages in order; none if there are none within a time. Raises StreamUnavailable."""
        self._changed.clear()
        if self._broken is None and not self._waiting:
            if not self._expected:
                await self._ask()
            await self._clock.wait(self._changed, within_ms)
        if self._broken is not None or self.link.closed.is_set():
            raise StreamUnavailable(self._broken or self.link.cause)
        if self._clock.now_ms() - self._heard_at > SILENT_MS_MAX:
            raise StreamUnavailable("the consumer of the event stream does not respond")
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), STREAM_BATCH_MESSAGES_MAX))]
        if taken and not self._expected and not self._waiting:
            await self._ask()
        return taken

    async def acknowledge(self, message: StreamMessage) -> None:
        """Remove a message from the stream. Raises StreamUnavailable."""
        await self.link.publish(message.reply)
        self._unacknowledged.pop(message.seq, None)

    async def renew(self) -> None:
        """Keep the messages that are not acknowledged, at most every RENEW_EVERY_MS. Raises StreamUnavailable."""
        now = self._clock.now_ms()
        if now - self._renewed_at >= RENEW_EVERY_MS:
            self._renewed_at = now
            for reply in list(self._unacknowledged.values()):
                await self.link.publish(reply, b"+WPI")

    async def _ask(self) -> None:
        self._request += 1
        self._expected = STREAM_BATCH_MESSAGES_MAX
        self._heard_at = self._clock.now_ms()
        request = {
            "batch": STREAM_BATCH_MESSAGES_MAX,
            # NATS never sends a message that is larger than this.
            "max_bytes": max(STREAM_BATCH_BYTES_MAX, self.link.message_bytes_max + _SUBJECT_BYTES_MAX),
            "expires": EXPIRES_S * _NS,
            "idle_heartbeat": HEARTBEAT_S * _NS,
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS_STREAM}.{self._name}"
        await self.link.publish(subject, json.dumps(request).encode(), reply=f"{self._inbox}.{self._request}")

    def _receive(self, message: Received) -> None:
        self._heard_at = now = self._clock.now_ms()
        if not message.reply.startswith(_ACK):
            # Only a message of an emitter can be acknowledged, even if it has the headers of a status.
            self._note_status(message, (message.headers or {}).get("Status", ""))
            return
        tokens = message.reply.split(".")
        seq, published_ns = (tokens[5], tokens[7]) if len(tokens) == _SHORT_REPLY_TOKENS else (tokens[7], tokens[9])
        self._expected = max(0, self._expected - 1)
        self._unacknowledged[int(seq)] = message.reply
        self._waiting.append(
            StreamMessage(message.subject, message.reply, message.data, int(seq), int(published_ns), now)
        )
        self._changed.set()

    def _note_status(self, message: Received, status: str) -> None:
        if status == _HEARTBEAT or message.subject != f"{self._inbox}.{self._request}":
            return
        description = (message.headers or {}).get("Description", "")
        if status not in _ENDED or description == _GONE:
            self._broken = description or f"status {status}"
        self._expected = 0
        self._changed.set()
