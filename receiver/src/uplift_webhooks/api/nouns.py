"""API calls for endpoints and events, and types that other API calls also use."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from uplift_webhooks.api.calls import (
    Call,
    Noun,
    Way,
    change,
    delete,
    every,
    get,
    get_page,
    given,
    post,
    several,
    texts,
    verb,
)
from uplift_webhooks.api.endpoint_auth import EndpointAuth
from uplift_webhooks.api.failures import ApiError, ApiUnreachable
from uplift_webhooks.api.pages import Instant, JsonObject, Order, Page, segment
from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.events import AnyEvent, read_event

Status = Literal["pending", "delivered", "failed", "held", "cancelled"]
Ended = Literal["failed", "cancelled", "delivered"]
Outcome = Literal[
    "delivered", "redirect", "client_error", "server_error", "throttled", "timeout", "dns_error", "connect_error",
    "tls_error", "protocol_error", "blocked",
]  # fmt: skip
State = Literal["enabled", "paused", "disabled", "failing"]
Held = Literal["send", "drop", "keep"]
Ordering = Literal["none", "key", "endpoint"]
Period = Literal["1h", "24h", "7d", "30d"]
_ENDPOINTS: Final = "/v1/endpoints"
_EVENTS: Final = "/v1/events"


class Endpoints(Noun[Way]):
    """`/v1/endpoints`: endpoints, their health and their secrets."""

    @verb
    def list(
        self,
        *,
        id: str | Iterable[str] | None = None,
        state: State | Iterable[State] | None = None,
        event_type: str | Iterable[str] | None = None,
        text: str | None = None,
        cause: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        order: Order | None = None,
    ) -> Call[Page]:
        """Return one page of endpoints, newest first.

        You can filter by ID, state, event type, cause of failure, or text in the description or URL.
        """
        return get_page(
            _ENDPOINTS,
            id=several(id),
            state=several(state),
            event_type=several(event_type),
            text=text,
            cause=cause,
            limit=limit,
            cursor=cursor,
            order=order,
        )

    iterate = every(list)

    @verb
    def get(self, endpoint: str) -> Call[JsonObject]:
        """Return an endpoint by its ID or uid."""
        return get(path_of(_ENDPOINTS, endpoint))

    @verb
    def create(
        self,
        url: str,
        *,
        description: str | None = None,
        event_types: str | Iterable[str] | None = None,
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        auth: EndpointAuth | None = None,
        uid: str | None = None,
        metadata: Mapping[str, str] | None = None,
        filter: Mapping[str, Any] | None = None,
        state: Literal["enabled", "paused"] | None = None,
        rate_limit_per_second: Annotated[int | None, "Maximum number of attempts per second."] = None,
        max_in_flight: Annotated[int | None, "Maximum number of attempts in flight."] = None,
        retry_schedule: Annotated[
            Iterable[str] | None,
            "Delays before the retries, such as 5s, 5m and 2h. Without delays, a delivery has one attempt.",
        ] = None,
        attempt_timeout: Annotated[str | None, "Timeout for an attempt, such as 10s."] = None,
        ordering: Annotated[
            Ordering | None,
            "Deliveries that the server sends in event order: none, those with the same ordering key"
            " (key), or all (endpoint). An ordered delivery waits until the previous delivery is no longer pending or"
            " held.",
        ] = None,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Create an endpoint. The response contains its `secret`. To get the secret again, call `secret`.

        `auth` authenticates the requests to your server. The API never returns the secrets in `auth`. `uid` is an ID
        of your choice. You can pass `uid` in place of the endpoint's `id`. `metadata` maps up to 50 keys to strings of
        your choice. `filter` is a pattern that an event's data must match. With the `state` "paused", the server holds
        the deliveries until you enable the endpoint.
        """
        body = given(
            url=url,
            description=description,
            event_types=texts(event_types),
            secret=secret,
            headers=None if headers is None else {**headers},
            auth=auth,
            uid=uid,
            metadata=None if metadata is None else {**metadata},
            filter=None if filter is None else {**filter},
            state=state,
            rate_limit_per_second=rate_limit_per_second,
            max_in_flight=max_in_flight,
            retry_schedule=texts(retry_schedule),
            attempt_timeout=attempt_timeout,
            ordering=ordering,
        )
        return post(_ENDPOINTS, body, idempotency_key=idempotency_key)

    @verb
    def put(
        self,
        endpoint: str,
        url: str,
        *,
        description: str | None = None,
        event_types: str | Iterable[str] | None = None,
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        auth: EndpointAuth | None = None,
        uid: str | None = None,
        metadata: Mapping[str, str] | None = None,
        filter: Mapping[str, Any] | None = None,
        state: Literal["enabled", "paused"] | None = None,
        rate_limit_per_second: int | None = None,
        max_in_flight: int | None = None,
        retry_schedule: Iterable[str] | None = None,
        attempt_timeout: str | None = None,
        ordering: Ordering | None = None,
        if_match: JsonObject | str | None = None,
    ) -> Call[JsonObject]:
        """Update or create the endpoint whose uid is `endpoint`. Omitted fields do not change.

        `headers` and `metadata` replace all existing headers and metadata. To remove a filter, call `update`. The
        response contains the `secret` only if the call creates the endpoint. `update` describes `if_match`.
        """
        body = given(
            url=url,
            description=description,
            event_types=texts(event_types),
            secret=secret,
            headers=None if headers is None else {**headers},
            auth=auth,
            uid=uid,
            metadata=None if metadata is None else {**metadata},
            filter=None if filter is None else {**filter},
            state=state,
            rate_limit_per_second=rate_limit_per_second,
            max_in_flight=max_in_flight,
            retry_schedule=texts(retry_schedule),
            attempt_timeout=attempt_timeout,
            ordering=ordering,
        )
        return change("PUT", path_of(_ENDPOINTS, endpoint), body, if_match)

    @verb
    def update(self, endpoint: str, /, *, if_match: JsonObject | str | None = None, **changes: Any) -> Call[JsonObject]:
        """Update fields of an endpoint. Omitted fields do not change. None resets a field to its default.

        `headers` and `metadata` contain only the entries to change. The value None removes an entry. To detect
        concurrent changes, pass the endpoint that you read as `if_match`. If the endpoint has changed in the meantime,
        the call raises ApiError with status 412.
        """
        return change("PATCH", path_of(_ENDPOINTS, endpoint), changes, if_match)

    @verb
    def filter_preview(
        self,
        filter: Mapping[str, Any] | None,
        *,
        event_types: str | Iterable[str] | None = None,
        limit: int | None = None,
    ) -> Call[JsonObject]:
        """Evaluate a filter against the newest events. Return `total`, `matched` and `events`.

        The `path` of an event is the first path in its data that does not match, or None if the event matches.
        """
        body = given(event_types=texts(event_types), limit=limit)
        return post(f"{_ENDPOINTS}/filter-preview", {**body, "filter": None if filter is None else {**filter}})

    @verb
    def delete(self, endpoint: str) -> Call[None]:
        """Delete an endpoint, and cancel its pending and held deliveries."""
        return delete(path_of(_ENDPOINTS, endpoint))

    @verb
    def deliveries(
        self,
        endpoint: str,
        *,
        status: Status | Iterable[Status] | None = None,
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
        """Return one page of an endpoint's deliveries. The deliveries of the newest events come first.

        `deliveries.list` describes the filters.
        """
        return get_page(
            path_of(_ENDPOINTS, endpoint, "deliveries"),
            status=several(status),
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

    @verb
    def stats(
        self,
        endpoint: str,
        period: Period | None = None,
        *,
        since: Instant | None = None,
        until: Instant | None = None,
        by: Literal["hour", "day"] | None = None,
    ) -> Call[JsonObject]:
        """Return an endpoint's statistics for a `period` (default 24h) or a time range.

        The statistics consist of `totals`, `buckets` and `failures`.
        """
        return get(path_of(_ENDPOINTS, endpoint, "stats"), period=period, since=since, until=until, by=by)

    @verb
    def pause(self, endpoint: str) -> Call[JsonObject]:
        """Pause an endpoint. The server holds the endpoint's deliveries."""
        return post(path_of(_ENDPOINTS, endpoint, "pause"))

    @verb
    def enable(self, endpoint: str, held: Held = "send") -> Call[JsonObject]:
        """Enable an endpoint. `held` specifies whether the server sends, drops or keeps the held deliveries."""
        return post(path_of(_ENDPOINTS, endpoint, "enable"), {"held": held})

    @verb
    def disable(self, endpoint: str) -> Call[JsonObject]:
        """Disable an endpoint. The account can enable the endpoint again. Only operators can call this method."""
        return post(path_of(_ENDPOINTS, endpoint, "disable"))

    @verb
    def test(
        self,
        endpoint: str,
        type: str | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Send a test event immediately. Return the attempt, or the delivery if the attempt does not end in time."""
        return post(path_of(_ENDPOINTS, endpoint, "test"), given(type=type), idempotency_key=idempotency_key)

    @verb
    def verify(self, endpoint: str) -> Call[JsonObject]:
        """Test whether your server rejects a wrong signature and accepts a valid one. Return the `verdict`."""
        return post(path_of(_ENDPOINTS, endpoint, "verify"))

    @verb
    def secret(self, endpoint: str) -> Call[JsonObject]:
        """Return an endpoint's `secret`, and `previous_expires_at` during a rotation."""
        return get(path_of(_ENDPOINTS, endpoint, "secret"))

    @verb
    def rotate_secret(
        self,
        endpoint: str,
        *,
        secret: str | None = None,
        overlap_seconds: int | None = None,
        uplift_header: Literal["old", "new"] | None = None,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Rotate an endpoint's secret. The old secret stays active for `overlap_seconds` (default 24 hours).

        During this time, `uplift_header` selects the secret for `x-uplift-signature-256` (default: the old secret).
        """
        body = given(secret=secret, overlap_seconds=overlap_seconds, uplift_header=uplift_header)
        return post(path_of(_ENDPOINTS, endpoint, "secret", "rotate"), body, idempotency_key=idempotency_key)

    @verb
    def expire_old_secret(self, endpoint: str) -> Call[JsonObject]:
        """Expire an endpoint's old secret immediately."""
        return post(path_of(_ENDPOINTS, endpoint, "secret", "expire-old"))


class Events(Noun[Way]):
    """`/v1/events`: events of an account."""

    @verb
    def list(
        self,
        *,
        id: str | Iterable[str] | None = None,
        type: str | Iterable[str] | None = None,
        object_id: str | None = None,
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        test: bool | None = None,
        include: Literal["body"] | None = None,
        order: Order | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[Page]:
        """Return one page of events, newest first.

        With `order="asc"`, the oldest events are first, and `next_cursor` is never None. `object_id` is the string or
        integer at `data.object.id`, as text. `test` selects only test events (True) or excludes them (False).
        `include="body"` adds the `body` of each event.
        """
        return get_page(
            _EVENTS,
            id=several(id),
            type=several(type),
            object_id=object_id,
            created_after=created_after,
            created_before=created_before,
            test=test,
            include=include,
            order=order,
            limit=limit,
            cursor=cursor,
        )

    iterate = every(list)

    @verb
    def get(self, event: str) -> Call[JsonObject]:
        """Return an event by its ID. `body` is the envelope that the server sends, or None if the event was erased."""
        return get(path_of(_EVENTS, event))

    @verb
    def fetch(self, event: str) -> Call[AnyEvent]:
        """Return an event in the form that `Webhook.unwrap` returns.

        The response has no signature, because TLS authenticates the server. Raises ApiError with the code
        `event_erased` if the event was erased.
        """
        return Call("GET", path_of(_EVENTS, event), _as_sent)

    @verb
    def send(
        self,
        type: str,
        data: JsonObject,
        *,
        id: str | None = None,
        idempotency_key: str | None = None,
        ordering_key: str | None = None,
        expires_at: Instant | None = None,
        include: Literal["endpoints"] | None = None,
    ) -> Call[JsonObject]:
        """Send an event. Return its `id`, `created_at` and `duplicate`. The key needs the scope `events:write`.

        `include="endpoints"` adds the IDs of the endpoints that receive the event. Endpoints whose `ordering` is "key"
        receive events with the same `ordering_key` in order.
        """
        body = given(
            type=type,
            data=data,
            id=id,
            idempotency_key=idempotency_key,  # a header could not contain all printable characters
            ordering_key=ordering_key,
            expires_at=expires_at,
        )
        return post(_EVENTS, body, include=include)

    @verb
    def send_batch(
        self,
        events: Sequence[JsonObject],
        *,
        idempotency_key: str | None = None,
        include: Literal["endpoints"] | None = None,
    ) -> Call[JsonObject]:
        """Send up to 1,000 events. The server accepts all events or none.

        In the response, `data` is a list that contains the result for each event.

        Each event needs `type` and `data`. Its optional fields are `id`, `idempotency_key`, `ordering_key`,
        `expires_at` and, for operator keys and service keys, `account`.
        """
        return post(f"{_EVENTS}/batch", {"events": [*events]}, idempotency_key=idempotency_key, include=include)

    @verb
    def deliveries(
        self, event: str, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None
    ) -> Call[Page]:
        """Return one page of an event's deliveries. The delivery to the newest endpoint comes first."""
        return get_page(path_of(_EVENTS, event, "deliveries"), limit=limit, cursor=cursor, order=order)

    @verb
    def explain(self, event: str, *, endpoint: str | None = None) -> Call[Page]:
        """Explain why each endpoint did or did not receive an event.

        Each item of the page describes one endpoint, and contains `reason`, `text` and `hint`.
        """
        return get_page(path_of(_EVENTS, event, "explain"), endpoint=endpoint)


def path_of(noun: str, name: str, *more: str) -> str:
    """Return the API path of an object, or of an action on the object."""
    return "/".join([noun, segment(name), *more])


def _as_sent(path: str, answer: object) -> AnyEvent:
    body = answer.get("body") if isinstance(answer, dict) else None
    if isinstance(answer, dict) and answer.get("erased_at"):
        raise ApiError(200, "event_erased", "The event was erased, so it has no data.")
    if not isinstance(answer, dict) or not isinstance(body, dict):
        raise ApiUnreachable(f"The response to GET {path} has no event body.")
    if answer.get("test") is True:
        # Servers from earlier releases set `test` in the response, but not in the event's body.
        body = {**body, "test": True}
    try:
        return read_event(body, None)
    except WebhookVerificationError as error:
        raise ApiUnreachable(f"The response to GET {path} is not an event: {error.cause}") from error
