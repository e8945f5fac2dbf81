"""Query parameter models, for pydantic and OpenAPI."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from uplift_server.api.bodies import NO_ZERO, STATUS_CODE, Body, ObjectId, OutcomeName, StatusName, Timestamp
from uplift_server.core.limits import (
    ENDPOINT_TEXT_CHARACTERS_MAX,
    FILTER_VALUES_MAX,
    PAGE_BODY_BYTES_MAX,
    PAGE_ITEMS_DEFAULT,
    PAGE_ITEMS_MAX,
)
from uplift_server.service.context import Listing
from uplift_server.service.delivery_queries import DeliveryQuery
from uplift_server.service.endpoint_queries import EndpointQuery

CAUSE_CHARACTERS_MAX = 64


def _values(description: str) -> Any:
    return Field(default=[], max_length=FILTER_VALUES_MAX, description=f"{description} You can repeat the parameter.")


class Paging(Body):
    """Query parameters that select one page of a list."""

    limit: int = Field(default=PAGE_ITEMS_DEFAULT, ge=1, le=PAGE_ITEMS_MAX, description="Maximum number of objects.")
    cursor: str | None = Field(
        default=None, description="Cursor for the requested page: `next_cursor` or `prev_cursor` from another page."
    )
    order: Literal["desc", "asc"] = Field(
        default="desc", description="List order: newest (`desc`) or oldest (`asc`) first."
    )

    def listing(self) -> Listing:
        """Convert the parameters to a Listing, which services accept."""
        return Listing(self.limit, self.cursor, self.order == "asc")


class EndpointsQuery(Paging):
    """Query parameters that filter endpoints."""

    id: list[str] = _values("Only the endpoint with this ID.")
    state: list[Literal["enabled", "paused", "disabled", "failing"]] = _values(
        "Only endpoints in this state. `failing`: enabled, but the last attempt failed."
    )
    event_type: list[str] = _values("Only endpoints that are subscribed to this event type.")
    text: str | None = Field(
        default=None,
        max_length=ENDPOINT_TEXT_CHARACTERS_MAX,
        pattern=NO_ZERO,
        description="Only endpoints with this text in their description or URL. The search ignores case and the URL's"
        " query.",
    )
    cause: str | None = Field(
        default=None,
        max_length=CAUSE_CHARACTERS_MAX,
        pattern=NO_ZERO,
        description="Only failing endpoints whose `health` has this [cause](/docs/outcomes) code.",
    )

    def endpoint_query(self) -> EndpointQuery:
        """Convert the filters to an EndpointQuery, which services accept."""
        return EndpointQuery(self.state, self.text, self.id, self.event_type, self.cause)


class EventsQuery(Paging):
    """Query parameters that filter events."""

    id: list[str] = _values("Only the event with this ID.")
    type: list[str] = _values("Only events of this type.")
    object_id: ObjectId = None
    created_after: Timestamp | None = Field(default=None, description="Only events accepted after this time.")
    created_before: Timestamp | None = Field(default=None, description="Only events accepted before this time.")
    test: bool | None = Field(default=None, description="`true`: only test events. `false`: no test events.")
    order: Literal["desc", "asc"] = Field(
        default="desc",
        description="List order: newest (`desc`) or oldest (`asc`) first. With `asc`, `next_cursor` is never null.",
    )
    include: list[Literal["body"]] = Field(
        default=[],
        max_length=FILTER_VALUES_MAX,
        description="`body`: add the envelope of each event. A page has at most"
        f" {PAGE_BODY_BYTES_MAX // 2**20} MiB of envelopes, so it can have fewer events than `limit`.",
    )


class DeliveryFilters(Body):
    """Query parameters that filter deliveries."""

    status: list[StatusName] = _values("Only deliveries with this status.")
    type: list[str] = _values("Only deliveries of events of this type.")
    outcome: list[OutcomeName] = _values("Only deliveries whose last attempt had this outcome.")
    status_code: list[Annotated[str, Field(pattern=STATUS_CODE)]] = _values(
        "Only deliveries whose last attempt got this status code, such as `404`, or any code of a class, such as `5xx`."
    )
    object_id: ObjectId = Field(
        default=None, description="Only deliveries of events with this string or integer at `data.object.id`."
    )
    created_after: Timestamp | None = Field(
        default=None, description="Only deliveries of events accepted after this time."
    )
    created_before: Timestamp | None = Field(
        default=None, description="Only deliveries of events accepted before this time."
    )
    test: bool | None = Field(default=None, description="`true`: only test deliveries. `false`: no test deliveries.")

    def delivery_query(self, endpoints: Sequence[str] = ()) -> DeliveryQuery:
        """Convert the filters to a DeliveryQuery, which services accept."""
        return DeliveryQuery(
            self.status,
            endpoints,
            self.type,
            self.outcome,
            self.status_code,
            self.object_id,
            self.created_after,
            self.created_before,
            self.test,
        )


class EndpointDeliveriesQuery(DeliveryFilters, Paging):
    """Query parameters that filter the deliveries of one endpoint."""


class DeliveriesQuery(DeliveryFilters, Paging):
    """Query parameters that filter the deliveries of all endpoints."""

    id: list[str] = _values("Only the delivery with this ID.")
    endpoint: list[str] = _values("Only deliveries to this endpoint.")


class AttemptsQuery(Paging):
    """Query parameters that filter attempts."""

    endpoint: list[str] = _values("Only attempts to this endpoint.")
    delivery: list[str] = _values("Only attempts of this delivery.")
    type: list[str] = _values("Only attempts for events of this type.")
    outcome: list[OutcomeName] = _values("Only attempts with this outcome.")
    status_code: list[Annotated[str, Field(pattern=STATUS_CODE)]] = _values(
        "Only attempts that got this status code, such as `404`, or any code of a class, such as `5xx`."
    )
    object_id: ObjectId = Field(
        default=None, description="Only attempts for events with this string or integer at `data.object.id`."
    )
    created_after: Timestamp | None = Field(
        default=None, description="Only attempts for events accepted after this time."
    )
    created_before: Timestamp | None = Field(
        default=None, description="Only attempts for events accepted before this time."
    )

    def delivery_query(self) -> DeliveryQuery:
        """Convert the filters to a DeliveryQuery, which services accept."""
        return DeliveryQuery(
            id=self.delivery,
            endpoint=self.endpoint,
            type=self.type,
            outcome=self.outcome,
            status_code=self.status_code,
            object_id=self.object_id,
            created_after=self.created_after,
            created_before=self.created_before,
        )


class ExplanationQuery(Body):
    """Query parameter that selects the endpoints in an event's explanation."""

    endpoint: str | None = Field(default=None, description="Only this endpoint. Default: all endpoints in the account.")


class AuditQuery(Paging):
    """Query parameters that filter the audit log."""

    actor: str | None = Field(
        default=None, description="Only actions by this actor: an ID, `system`, `operator`, `key` or `member`."
    )
    action: str | None = Field(default=None, description="Only this action, such as `endpoint.changed`.")
    subject: str | None = Field(default=None, description="Only actions on this object: an ID, a uid or an event type.")
    created_after: Timestamp | None = Field(default=None, description="Only actions after this time.")
    created_before: Timestamp | None = Field(default=None, description="Only actions before this time.")
