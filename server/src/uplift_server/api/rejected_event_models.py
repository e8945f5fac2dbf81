"""Models for rejected events: query parameters and responses."""

from typing import Any

from pydantic import BaseModel, Field

from uplift_server.api.bodies import Timestamp as TimestampParameter
from uplift_server.api.queries import Paging
from uplift_server.api.views import Timestamp
from uplift_server.core import ids
from uplift_server.core.limits import FILTER_VALUES_MAX
from uplift_server.core.timestamps import format_timestamp
from uplift_server.store.rejected_events import RejectedEvent


class RejectedEventsQuery(Paging):
    """Query parameters that filter rejected events."""

    event_type: list[str] = Field(
        default=[],
        max_length=FILTER_VALUES_MAX,
        description="Only rejected events with this event type. You can repeat the parameter.",
    )
    event_id: str | None = Field(default=None, description="Only rejected events with this event ID.")
    idempotency_key: str | None = Field(default=None, description="Only rejected events with this idempotency key.")
    since: TimestampParameter | None = Field(default=None, description="Only events rejected at this time or later.")
    until: TimestampParameter | None = Field(default=None, description="Only events rejected before this time.")


class RejectedEventView(BaseModel):
    """An event from the stream that the server rejected."""

    id: str = Field(description="ID of the rejected event (`rej_…`).")
    account: str | None = Field(
        default=None,
        description="Account ID. Present only if the caller can read all accounts. Null if the account is unknown.",
    )
    subject: str = Field(
        description="Subject of the NATS message. For an event from an API request: `uplift.events.$accepted.events`."
    )
    type: str | None = Field(description="Event type in the message. Null if the message has none.")
    event_id: str | None = Field(
        description="Event ID in the message. For an event from an API request: the ID in the response. Null if the"
        " message has none."
    )
    idempotency_key: str | None = Field(
        description="Idempotency key in the message. Null if the message has none, or if the event's object was erased."
    )
    problem: dict[str, Any] = Field(
        description="The cause: the error that `POST /v1/events` would return for this event, but without messages that"
        " could contain values of `data`."
    )
    size_bytes: int = Field(
        description="Size of the NATS message in bytes. For an event from an API request: size of its `data`."
    )
    published_at: Timestamp = Field(description="When the stream stored the message.")
    rejected_at: Timestamp = Field(description="When the server rejected the event.")


def rejected_event_view(rejected: RejectedEvent, *, spans: bool) -> RejectedEventView:
    """Return the API model of a rejected event. If `spans` is true, the model contains the account, if known."""
    account = None if rejected.account_id is None else ids.prefixed(ids.ACCOUNT, rejected.account_id)
    return RejectedEventView(
        id=ids.prefixed(ids.REJECTED_EVENT, rejected.id),
        **({"account": account} if spans else {}),
        subject=rejected.subject,
        type=rejected.event_type,
        event_id=rejected.event_id,
        idempotency_key=rejected.idempotency_key,
        problem=dict(rejected.problem),
        size_bytes=rejected.size_bytes,
        published_at=format_timestamp(rejected.published_at),
        rejected_at=format_timestamp(rejected.rejected_at),
    )
