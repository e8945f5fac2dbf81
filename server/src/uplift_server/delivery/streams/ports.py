"""Ports of the event stream: checks of events that emitters published, and the store of rejected events."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.ports import SingletonJobs
from uplift_server.store.hot_records import IdempotencyConflict


@dataclass(frozen=True, slots=True)
class Rejection:
    """The problem of an event (RFC 9457), and the readable fields of the event as the emitter sent them."""

    problem: Mapping[str, Any]
    event_type: str | None = None
    event_id: str | None = None
    idempotency_key: str | None = None


class PublishedEvents(Protocol):
    """Checks events that emitters published, like the API checks requests."""

    def check(self, account_seq: int, body: bytes, *, sent_at: int) -> Draft | Rejection:
        """Return the event of an account from its JSON, sent at a timestamp (Unix ms), or its problem."""

    def unknown_account(self, account: str) -> Rejection:
        """Return the problem of a subject whose account does not exist."""

    def conflict(self, draft: Draft, conflict: IdempotencyConflict) -> Rejection:
        """Return the problem of an event whose idempotency key or ID belongs to another event."""

    def defect(self, draft: Draft | None) -> Rejection:
        """Return the problem of an event that the server cannot store because of a defect."""


class TraceSink(Protocol):
    """Keeps the spans of emitters, which are the parents of the events' spans."""

    def note_sender(self, seq: int, event_id: bytes, traceparent: str) -> None:
        """Keep the emitter's span of an event that another process accepted."""


class StreamJobs(SingletonJobs, Protocol):
    """The singleton jobs of this process. While the process cannot do a job, it leaves the job to others."""

    def set_possible(self, job: SingletonJob, *, is_possible: bool) -> None:
        """Set whether this process can do a job."""


class CacheFreshness(Protocol):
    """Reports how recent the cache of this process is."""

    @property
    def synced_at(self) -> int:
        """The time (Unix ms) up to which all changes are in the cache."""

    def wake(self) -> None:
        """Read new changes now."""
