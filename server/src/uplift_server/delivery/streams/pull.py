"""Reads the messages of the event stream, oldest first, while this process holds the stream's singleton job.

Each process that takes over the job deletes the consumers of earlier processes, and creates its own consumer. A new
consumer begins with the oldest message in the stream, so the order is correct even after a crash. The process removes
many stored messages with one request, because a separate acknowledgment for each message would be more work for NATS
than storing the message.
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
"""The time after which NATS redelivers a message unless this process has removed or renewed the message, in seconds."""
RENEW_EVERY_MS: Final = 15_000
REMOVE_EVERY_MS: Final = 300
EXPIRES_S: Final = 10
HEARTBEAT_S: Final = 2
SILENT_MS_MAX: Final = 5_000
"""The maximum time without a message or heartbeat, in ms.

A longer silence means that NATS has lost the pull request, or that the consumer has no leader. A new consumer is then
usually faster than the election of a new leader.
"""
ACKNOWLEDGE_AFTER_MS: Final = 2_000
"""The time after which a stored message is removed individually if an earlier message is not stored yet, in ms.

Otherwise, NATS would redeliver the stored message, and the stream could fill up.
"""
REMOVE_SECONDS: Final = 5.0
"""The timeout for the removal of messages, in seconds. On a slow disk, a removal takes longer than other requests."""
DELETE_SECONDS: Final = 2.0
"""The timeout for the deletion of a consumer, in seconds.

If the consumer's leader was killed, NATS deletes the consumer but never responds.
"""
CREATE_SECONDS: Final = (2.0, 4.0, 10.0)
"""The timeouts for consecutive attempts to create a consumer, in seconds.

NATS can choose a server that was just killed as the consumer's leader. A second attempt is then usually faster than the
election of another leader. On a slow disk, however, each creation can take several seconds.
"""
_CONFIG: Final = {
    "ack_policy": "explicit",
    "ack_wait": ACK_WAIT_S * _NS,
    "deliver_policy": "all",
    # Set no limit, because NATS counts a message until the process removes it, even if the event is stored.
    # The process requests only one batch at a time.
    "max_ack_pending": -1,
    "max_deliver": -1,
    # Another process creates its own consumer, so this consumer does not need to survive a restart of NATS.
    "mem_storage": True,
}
_ENDED: Final = frozenset({"404", "408", "409"})
"""The status codes with which NATS ends a pull request. A new pull request can succeed."""
_GONE: Final = "Consumer Deleted"
_HEARTBEAT: Final = "100"
_NO_RESPONDERS: Final = "503"
_REMOVE: Final = f"STREAM.PURGE.{EVENTS_STREAM}"
_SUBJECT_BYTES_MAX: Final = 64 * 1024
"""The maximum size of a message without its headers and content, in bytes."""
_ACK: Final = "$JS.ACK."
_SHORT_REPLY_TOKENS: Final = 9


class StreamMessage(NamedTuple):
    """A message of the event stream."""

    subject: str
    reply: str
    data: bytes
    seq: int
    """The sequence number of the message in the stream."""
    published_ns: int
    """The time when the stream stored the message, according to the NATS server's clock (Unix ns)."""
    received_at: int
    """When this process received the message (Unix ms)."""

    @property
    def published_at(self) -> int:
        """The time when the stream stored the message, according to the NATS server's clock (Unix ms)."""
        return self.published_ns // 1_000_000


class Pull:
    """Receives messages from the stream in batches.

    The next messages arrive while the caller stores the previous messages.
    """

    def __init__(self, link: Link, name: str, clock: Clock) -> None:
        self.link = link
        self._name = name
        self._clock = clock
        self._inbox = link.new_inbox()
        self._request = 0
        self._expected = 0
        """The number of messages that the current pull request can still return."""
        self._waiting: deque[StreamMessage] = deque()
        self._unstored: dict[int, str] = {}
        """The acknowledgment subjects of messages that are not stored yet, by sequence number."""
        self._stored: dict[int, tuple[str, int]] = {}
        """The acknowledgment subject of each stored message in the stream, and when it was stored (Unix ms)."""
        self._delivered = 0
        """The number of messages that NATS has delivered to the consumer."""
        self._last_seq = 0
        self._removed_before = 1
        """The sequence number below which the stream has no messages."""
        self._removed_at = 0
        self._changed = asyncio.Event()
        self._heard_at = clock.now_ms()
        self._renewed_at = self._heard_at
        self._broken: str | None = None

    @classmethod
    async def begin(cls, link: Link, clock: Clock) -> "Pull":
        """Delete the consumers of other processes, and create a consumer. Raises StreamUnavailable or StreamError."""
        # Check the permission to remove messages. This call removes the messages before number 1: none.
        # Without the permission, the process would store the same messages again and again.
        await link.call(_REMOVE, {"seq": 1})
        for name in await _consumers(link):
            await _delete(link, name)
        name = await _create(link)
        pull = cls(link, name, clock)
        await link.subscribe(f"{pull._inbox}.*", pull._receive)
        await pull._ask()
        return pull

    async def next(self, within_ms: int) -> list[StreamMessage]:
        """Return the next messages, oldest first. Raises StreamUnavailable.

        Return no messages if none arrives within `within_ms`.
        """
        self._changed.clear()
        if self._broken is None and not self._waiting:
            if not self._expected:
                await self._ask()
            await self._clock.wait(self._changed, REMOVE_EVERY_MS if self._has_stored else within_ms)
        self._require_intact()
        if not self._waiting and self._clock.now_ms() - self._heard_at > SILENT_MS_MAX:
            raise StreamUnavailable("the consumer of the event stream does not respond")
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), STREAM_BATCH_MESSAGES_MAX))]
        if taken and not self._expected and not self._waiting:
            await self._ask()
        return taken

    def note_stored(self, message: StreamMessage) -> None:
        """Mark a message as stored, so that `remove_stored` can remove it from the stream."""
        self._unstored.pop(message.seq, None)
        self._stored[message.seq] = (message.reply, self._clock.now_ms())

    async def remove_stored(self, *, at_once: bool = False) -> None:
        """Remove stored messages from the stream. Raises StreamUnavailable or StreamError.

        Unless `at_once` is set, remove messages at most once every REMOVE_EVERY_MS. If an earlier message is not stored
        yet, remove a stored message only after ACKNOWLEDGE_AFTER_MS.
        """
        now = self._clock.now_ms()
        if not self._stored or (now - self._removed_at < REMOVE_EVERY_MS and not at_once):
            return
        self._require_intact()
        self._removed_at = now
        if self._has_stored:
            await self._remove_before_first_unstored()
        for seq, (reply, stored_at) in list(self._stored.items()):
            if now - stored_at >= ACKNOWLEDGE_AFTER_MS:
                await self.link.publish(reply, b"+ACK")
                del self._stored[seq]

    async def _remove_before_first_unstored(self) -> None:
        # If the stream was deleted and created again, the sequence numbers belong to other messages.
        # This call then fails, because the consumer is missing.
        await self.link.call(f"CONSUMER.INFO.{EVENTS_STREAM}.{self._name}")
        before = self._first_unstored
        await self.link.call(_REMOVE, {"seq": before}, seconds=REMOVE_SECONDS)
        self._removed_before = before
        for seq in [each for each in self._stored if each < before]:
            del self._stored[seq]

    def fail(self, cause: str) -> None:
        """Make the current call of `next` (if any) and all later calls raise StreamUnavailable with this cause."""
        self._broken = self._broken or cause
        self._changed.set()

    def _require_intact(self) -> None:
        """Raise StreamUnavailable if messages are missing, or if the connection or the consumer is lost."""
        if self._broken is not None or self.link.closed.is_set():
            raise StreamUnavailable(self._broken or self.link.cause)

    @property
    def _first_unstored(self) -> int:
        return min(self._unstored, default=self._last_seq + 1)

    @property
    def _has_stored(self) -> bool:
        """Whether the stream contains stored messages before the first message that is not stored."""
        return self._first_unstored > self._removed_before

    async def renew(self) -> None:
        """Prevent the redelivery of messages that are not stored yet. Raises StreamUnavailable.

        NATS redelivers a message after ACK_WAIT_S. This method makes NATS restart this period for each of these
        messages, at most once every RENEW_EVERY_MS.
        """
        now = self._clock.now_ms()
        if now - self._renewed_at >= RENEW_EVERY_MS:
            self._renewed_at = now
            for reply in list(self._unstored.values()):
                await self.link.publish(reply, b"+WPI")

    async def _ask(self) -> None:
        self._request += 1
        self._expected = STREAM_BATCH_MESSAGES_MAX
        self._heard_at = self._clock.now_ms()
        request = {
            "batch": STREAM_BATCH_MESSAGES_MAX,
            # NATS never sends a message that is larger than this limit, so the limit must allow the largest message.
            "max_bytes": max(STREAM_BATCH_BYTES_MAX, self.link.message_bytes_max + _SUBJECT_BYTES_MAX),
            "expires": EXPIRES_S * _NS,
            "idle_heartbeat": HEARTBEAT_S * _NS,
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS_STREAM}.{self._name}"
        await self.link.publish(subject, json.dumps(request).encode(), reply=f"{self._inbox}.{self._request}")

    def _receive(self, message: Received) -> None:
        self._heard_at = now = self._clock.now_ms()
        if not message.reply.startswith(_ACK):
            # A message that can be acknowledged contains an event, even if it has the headers of a status message.
            self._note_status(message, (message.headers or {}).get("Status", ""))
            return
        tokens = message.reply.split(".")
        at = 5 if len(tokens) == _SHORT_REPLY_TOKENS else 7
        seq, delivered, published_ns = map(int, tokens[at : at + 3])
        if delivered != self._delivered + 1:
            # Removing later messages from the stream also removes this one, so it must not be missing here.
            self.fail("a message of the event stream is missing")
            return
        self._delivered, self._last_seq = delivered, max(seq, self._last_seq)
        self._expected = max(0, self._expected - 1)
        self._unstored[seq] = message.reply
        self._waiting.append(StreamMessage(message.subject, message.reply, message.data, seq, published_ns, now))
        self._changed.set()

    def _note_status(self, message: Received, status: str) -> None:
        if status == _HEARTBEAT or message.subject != f"{self._inbox}.{self._request}":
            return
        description = (message.headers or {}).get("Description", "")
        if status not in _ENDED or description == _GONE:
            no_leader = "the consumer of the event stream has no leader"
            self._broken = no_leader if status == _NO_RESPONDERS else description or f"status {status}"
        self._expected = 0
        self._changed.set()


async def _consumers(link: Link) -> list[str]:
    """Return the names of the consumers that processes of this server created."""
    names = (await link.call(f"CONSUMER.NAMES.{EVENTS_STREAM}"))["consumers"] or ()
    return [name for name in names if name.startswith(_PREFIX)]


async def _delete(link: Link, name: str) -> None:
    """Delete a consumer. Raises StreamUnavailable or StreamError."""
    try:
        await link.call(f"CONSUMER.DELETE.{EVENTS_STREAM}.{name}", seconds=DELETE_SECONDS)
    except StreamError as error:
        if error.code != NOT_FOUND:
            raise
    except StreamUnavailable:
        if name in await _consumers(link):
            raise


async def _create(link: Link) -> str:
    """Create a consumer, and return its name. Raises StreamUnavailable or StreamError."""
    for seconds in CREATE_SECONDS:
        name = _PREFIX + secrets.token_hex(6)
        config = {"name": name, "durable_name": name, **_CONFIG}
        request = {"stream_name": EVENTS_STREAM, "config": config, "action": "create"}
        try:
            await link.call(f"CONSUMER.CREATE.{EVENTS_STREAM}.{name}", request, seconds=seconds)
        except StreamUnavailable:
            if link.closed.is_set() or seconds == CREATE_SECONDS[-1]:
                raise
            await _delete(link, name)
        else:
            break
    return name
