"""API calls that list rejected events and return a single rejected event."""

from collections.abc import Iterable
from typing import Final

from uplift_webhooks.api.calls import Call, Noun, Way, every, get, get_page, several, verb
from uplift_webhooks.api.pages import Instant, JsonObject, Order, Page, segment

_PATH: Final = "/v1/rejected-events"


class RejectedEvents(Noun[Way]):
    """`/v1/rejected-events`: messages in the NATS event stream that are not valid events."""

    @verb
    def list(
        self,
        *,
        event_type: str | Iterable[str] | None = None,
        event_id: str | None = None,
        idempotency_key: str | None = None,
        since: Instant | None = None,
        until: Instant | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        order: Order | None = None,
    ) -> Call[Page]:
        """Return one page of the events that were rejected between `since` and `until`, newest first."""
        return get_page(
            _PATH,
            event_type=several(event_type),
            event_id=event_id,
            idempotency_key=idempotency_key,
            since=since,
            until=until,
            limit=limit,
            cursor=cursor,
            order=order,
        )

    iterate = every(list)

    @verb
    def get(self, rejected_event: str) -> Call[JsonObject]:
        """Return a rejected event by its ID. `problem` states why the server rejected it."""
        return get(f"{_PATH}/{segment(rejected_event)}")
