"""The messages that the API publishes, and the requests that wait for their acknowledgments."""

import asyncio
from collections.abc import Sequence

from uplift_server.delivery.backlog import Backlog
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.streams.messages import MESSAGE_ID
from uplift_server.store.hot_records import Appended, IdempotencyConflict
from uplift_server.store.repeated_events import StoredEvent


class AccountBacklog(Backlog):
    """An account's events that the stream has not acknowledged yet."""

    __slots__ = ("seq",)

    def __init__(self, seq: int) -> None:
        """`seq` is the account's sequence number, or 0 for requests with events of several accounts."""
        super().__init__()
        self.seq = seq


class Publication:
    """A message that waits for its acknowledgment."""

    __slots__ = (
        "duplicate_of",
        "event",
        "event_id",
        "found",
        "headers",
        "known",
        "payload",
        "request",
        "sent_at",
        "subject",
        "token",
    )

    def __init__(
        self,
        request: "Request",
        event: tuple[int, Draft],
        token: str,
        subject: str,
        payload: bytes,
        event_id: bytes,
        message: str,
    ) -> None:
        """`message` is the ID by which NATS detects repeats."""
        self.request = request
        self.event = event
        """The sequence number of the account, and the validated event."""
        self.token = token
        self.subject = subject
        self.payload = payload
        self.event_id = event_id
        self.headers = {MESSAGE_ID: message}
        self.sent_at: int | None = None
        """The time when the message was sent (Unix ms), or None while it waits for the connection."""
        self.duplicate_of: int | None = None
        """The sequence number of the earlier message, if NATS detected this message as a repeat."""
        self.known: asyncio.Future[StoredEvent | None] | None = None
        """The database lookup of an earlier event that this event may repeat.

        None if the caller chose neither an idempotency key nor an ID.
        """
        self.found: Appended | None = None
        """The result for this event: the new event, or the earlier event that it repeats."""


class Request:
    """An API request whose events wait for their acknowledgments."""

    __slots__ = ("accepted_at", "account", "began_us", "body_bytes", "drafts", "publications", "result", "waiting")

    def __init__(
        self, account: AccountBacklog, drafts: Sequence[tuple[int, Draft]], body_bytes: int, now: int, began_us: int
    ) -> None:
        """`now` is the time of acceptance (Unix ms), and `began_us` the same moment on the monotonic clock."""
        self.account = account
        self.drafts = drafts
        self.body_bytes = body_bytes
        self.accepted_at = now
        self.began_us = began_us
        self.publications: list[Publication] = []
        self.waiting = len(drafts)
        """The number of messages that have no acknowledgment yet."""
        self.result: asyncio.Future[list[Appended] | IdempotencyConflict] = asyncio.get_running_loop().create_future()
