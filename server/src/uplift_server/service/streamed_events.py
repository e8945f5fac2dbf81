"""Validates the events that programs publish to the event stream, in the same way as events in requests."""

from collections.abc import Mapping
from typing import Any, Final

from uplift_server.core.ids import uuid_text
from uplift_server.core.limits import EVENT_BODY_BYTES_MAX
from uplift_server.core.problems import Problem
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.streams.ports import Rejection
from uplift_server.service.errors import IdempotencyConflict, Invalid, PayloadTooLarge, ServiceError
from uplift_server.service.event_bodies import Event, conflict_text, decode_event
from uplift_server.service.ingest import Incoming, Ingest
from uplift_server.service.problem_documents import problem_document
from uplift_server.store import hot_records

_ACCOUNT_TEXTS: Final = dict.fromkeys(
    ("account", "account_id", "accountId"), "The subject of the message names the account. Omit the field."
)


class StreamedEvents:
    """Validates published events. A rejection contains a problem document."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def check(self, account_seq: int, body: bytes, *, sent_at: int) -> Draft | Rejection:
        """Return the draft of a published event, or its rejection.

        `body` is the event's JSON. `sent_at` is the time of publication (Unix ms).
        """
        event: Event | Incoming | None = None
        try:
            if len(body) > EVENT_BODY_BYTES_MAX:
                raise PayloadTooLarge(
                    f"The message has more than {EVENT_BODY_BYTES_MAX} bytes. Publish a smaller message."
                )
            event, problems = decode_event(body, _ACCOUNT_TEXTS)
            data = None if event.data is None else bytes(event.data)
            incoming = Incoming(event.type, data, event.id, event.idempotency_key, event.expires_at, event.ordering_key)
            return self._ingest.draft(account_seq, incoming, problems, sent_at=sent_at)
        except ServiceError as error:
            problem = _document(error)
            return Rejection(problem) if event is None else _rejection(problem, event)

    def unknown_account(self, account: str, body: bytes = b"") -> Rejection:
        """Return the rejection for an event whose account does not exist. `body` is the event as JSON, if known."""
        text = f"The account {account[:64]} does not exist. Use the ID or uid of an existing account."
        problem = _document(Invalid([Problem("account", "account_unknown", text)]))
        try:
            event, _ = decode_event(body[:EVENT_BODY_BYTES_MAX], _ACCOUNT_TEXTS)
        except ServiceError:
            return Rejection(problem)
        return _rejection(problem, event)

    def conflict(self, draft: Draft, conflict: hot_records.IdempotencyConflict) -> Rejection:
        """Return the rejection for an event whose idempotency key or ID already belongs to another event."""
        event_id = None if draft.id is None else uuid_text(draft.id)
        text = conflict_text(conflict, draft.idempotency_key, event_id)
        return _of_draft(_document(IdempotencyConflict(text)), draft)

    def defect(self, draft: Draft | None) -> Rejection:
        """Return the rejection for an event that the server cannot store because of a defect in the server."""
        problem = problem_document("internal_error", "The server could not store the event. See the log of the worker.")
        return Rejection(problem) if draft is None else _of_draft(problem, draft)


def _document(error: ServiceError) -> dict[str, Any]:
    return problem_document(error.code, error.detail, error.problems)


def _rejection(problem: Mapping[str, Any], event: Event | Incoming) -> Rejection:
    return Rejection(problem, event.type, event.id, event.idempotency_key)


def _of_draft(problem: Mapping[str, Any], draft: Draft) -> Rejection:
    event_id = None if draft.id is None else uuid_text(draft.id)
    return Rejection(problem, draft.event_type.name, event_id, draft.idempotency_key)
