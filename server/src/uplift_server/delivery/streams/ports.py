"""Interfaces between the event stream and the server: event checks, trace spans and singleton jobs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.ports import SingletonJobs
from uplift_server.store.hot_records import IdempotencyConflict


@dataclass(frozen=True, slots=True)
class Rejection:
    """The problem with a rejected event (RFC 9457), and the fields that could be read, as the emitter sent them."""

    problem: Mapping[str, Any]
    event_type: str | None = None
    event_id: str | None = None
    idempotency_key: str | None = None


class PublishedEvents(Protocol):
    """The interface that checks events from emitters in the same way as the API checks requests."""

    def check(self, account_seq: int, body: bytes, *, sent_at: int) -> Draft | Rejection:
        """Check an event for an account. Return its draft, or a rejection if the event is not valid.

        `body` is the event as JSON. `sent_at` is the time when the stream stored the event (Unix ms).
        """

    def unknown_account(self, account: str, body: bytes = b"") -> Rejection:
        """Return the rejection of an event whose account does not exist. `body` is the event as JSON, if known."""

    def conflict(self, draft: Draft, conflict: IdempotencyConflict) -> Rejection:
        """Return the rejection of an event whose idempotency key or ID already belongs to another event."""

    def defect(self, draft: Draft | None) -> Rejection:
        """Return the rejection of an event that the server cannot store because of a defect in the server."""


class TraceSink(Protocol):
    """The interface that keeps the trace spans of emitters, which become the parents of the events' spans."""

    def note_sender(self, seq: int, event_id: bytes, traceparent: str) -> None:
        """Keep the emitter's trace span (`traceparent` header) for an event that another process has accepted."""


class StreamJobs(SingletonJobs, Protocol):
    """The interface that controls which singleton jobs this process may hold."""

    def set_possible(self, job: SingletonJob, *, is_possible: bool) -> None:
        """Set whether this process is able to run a singleton job. If it is not, another process takes the job."""
