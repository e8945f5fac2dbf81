"""API calls that list attempts and return a single attempt."""

from collections.abc import Iterable
from typing import Final

from uplift_webhooks.api.calls import Call, Noun, Way, every, get, get_page, several, verb
from uplift_webhooks.api.nouns import Outcome
from uplift_webhooks.api.pages import Instant, JsonObject, Order, Page, segment

_PATH: Final = "/v1/attempts"


class Attempts(Noun[Way]):
    """`/v1/attempts`: attempts of all deliveries."""

    @verb
    def list(
        self,
        *,
        endpoint: str | Iterable[str] | None = None,
        delivery: str | Iterable[str] | None = None,
        type: str | Iterable[str] | None = None,
        outcome: Outcome | Iterable[Outcome] | None = None,
        status_code: str | int | Iterable[str | int] | None = None,
        object_id: str | None = None,
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        order: Order | None = None,
    ) -> Call[Page]:
        """Return one page of attempts. The attempts of the newest events come first.

        An attempt must match every filter. A filter with several values matches any of these values.
        """
        return get_page(
            _PATH,
            endpoint=several(endpoint),
            delivery=several(delivery),
            type=several(type),
            outcome=several(outcome),
            status_code=several(status_code),
            object_id=object_id,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
            cursor=cursor,
            order=order,
        )

    iterate = every(list)

    @verb
    def get(self, attempt: str) -> Call[JsonObject]:
        """Return an attempt by its ID, with its request and its response. `hint` says how to fix a failure."""
        return get(f"{_PATH}/{segment(attempt)}")
