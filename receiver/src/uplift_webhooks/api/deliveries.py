"""API calls that list, resend and cancel deliveries."""

from collections.abc import Iterable
from typing import Final

from uplift_webhooks.api.calls import Call, Noun, Way, every, get, get_page, given, post, several, texts, verb
from uplift_webhooks.api.nouns import Ended, Outcome, Status, path_of
from uplift_webhooks.api.pages import Instant, JsonObject, Order, Page

_DELIVERIES: Final = "/v1/deliveries"


class Deliveries(Noun[Way]):
    """`/v1/deliveries`: deliveries of all endpoints."""

    @verb
    def list(
        self,
        *,
        id: str | Iterable[str] | None = None,
        status: Status | Iterable[Status] | None = None,
        endpoint: str | Iterable[str] | None = None,
        type: str | Iterable[str] | None = None,
        outcome: Outcome | Iterable[Outcome] | None = None,
        status_code: str | int | Iterable[str | int] | None = None,
        object_id: str | None = None,
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        test: bool | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        order: Order | None = None,
    ) -> Call[Page]:
        """Return one page of deliveries. The deliveries of the newest events come first.

        A delivery must match every filter. A filter with several values matches any of these values.

        `outcome` and `status_code` filter by the last attempt. A status code is a number, or a class such as "5xx".
        `test` selects only test deliveries (True) or excludes them (False).
        """
        return get_page(
            _DELIVERIES,
            id=several(id),
            status=several(status),
            endpoint=several(endpoint),
            type=several(type),
            outcome=several(outcome),
            status_code=several(status_code),
            object_id=object_id,
            created_after=created_after,
            created_before=created_before,
            test=test,
            limit=limit,
            cursor=cursor,
            order=order,
        )

    iterate = every(list)

    @verb
    def get(self, delivery: str) -> Call[JsonObject]:
        """Return a delivery by its ID."""
        return get(path_of(_DELIVERIES, delivery))

    @verb
    def attempts(
        self, delivery: str, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None
    ) -> Call[Page]:
        """Return one page of a delivery's attempts, newest first.

        Each attempt contains its request, its response and a `hint`.
        """
        return get_page(path_of(_DELIVERIES, delivery, "attempts"), limit=limit, cursor=cursor, order=order)

    @verb
    def resend(self, delivery: str) -> Call[JsonObject]:
        """Resend a delivery immediately, even if it was delivered, failed or cancelled.

        Raises ApiError with status 409 if the server cannot resend the delivery, for example because an attempt is in
        flight, the endpoint is not enabled, or the event has expired.
        """
        return post(path_of(_DELIVERIES, delivery, "resend"))

    @verb
    def resend_matching(
        self,
        *,
        status: Ended | Iterable[Ended] | None = None,
        endpoint: str | Iterable[str] | None = None,
        type: str | Iterable[str] | None = None,
        outcome: Outcome | Iterable[Outcome] | None = None,
        status_code: str | Iterable[str] | None = None,
        object_id: str | None = None,
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        rate_per_second: int | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Resend the matching deliveries, in one replay per endpoint. By default, only failed deliveries match.

        The server skips deleted endpoints, and endpoints with an unfinished replay. With `dry_run`, only count the
        deliveries.
        """
        body = given(
            status=texts(status),
            endpoint=texts(endpoint),
            type=texts(type),
            outcome=texts(outcome),
            status_code=texts(status_code),
            object_id=object_id,
            created_after=created_after,
            created_before=created_before,
            rate_per_second=rate_per_second,
            dry_run=dry_run or None,
        )
        return post(f"{_DELIVERIES}/resend", body, idempotency_key=idempotency_key)

    @verb
    def cancel(self, delivery: str) -> Call[JsonObject]:
        """Cancel a pending or held delivery."""
        return post(path_of(_DELIVERIES, delivery, "cancel"))
