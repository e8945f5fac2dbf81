"""The calls of the API, one class a noun."""

from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, cast

from uplift_webhooks.api.failures import ApiUnreachable
from uplift_webhooks.api.pages import Instant, JsonObject, Page, Request, get_page, items, pages, segment
from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.events import AnyEvent, read_event

Status = Literal["pending", "delivered", "failed", "held", "cancelled"]
Held = Literal["send", "drop", "keep"]


class Endpoints:
    """`/v1/endpoints`."""

    def __init__(self, request: Request) -> None:
        self._request: Final = request

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> Page:
        """One page, newest first."""
        return get_page(self._request, "/v1/endpoints", {"limit": limit, "cursor": cursor})

    def pages(self) -> Iterator[Page]:
        """Every page."""
        return pages(self._request, "/v1/endpoints", {})

    def iterate(self) -> Iterator[JsonObject]:
        """Every endpoint, newest first."""
        return items(self.pages())

    def get(self, endpoint: str) -> JsonObject:
        """One endpoint, by its id."""
        return _object(self._request("GET", _endpoint(endpoint)))

    def create(
        self,
        url: str,
        *,
        description: str | None = None,
        event_types: Iterable[str] | None = None,
        secret: str | None = None,
        headers: dict[str, str] | None = None,
        rate_limit_per_second: int | None = None,
        max_in_flight: int | None = None,
        idempotency_key: str | None = None,
    ) -> JsonObject:
        """Register an endpoint. Its `secret` is in this answer, and in no later one."""
        body = _given(
            url=url,
            description=description,
            event_types=None if event_types is None else [*event_types],
            secret=secret,
            headers=headers,
            rate_limit_per_second=rate_limit_per_second,
            max_in_flight=max_in_flight,
        )
        return _object(self._request("POST", "/v1/endpoints", body=body, headers=_repeatable(idempotency_key)))

    def update(self, endpoint: str, **changes: Any) -> JsonObject:
        """Change fields of an endpoint: those left out stay, None means the default."""
        return _object(self._request("PATCH", _endpoint(endpoint), body=changes))

    def delete(self, endpoint: str) -> None:
        """Delete an endpoint; what is pending for it is cancelled."""
        self._request("DELETE", _endpoint(endpoint))

    def pause(self, endpoint: str) -> JsonObject:
        """Send nothing more to it; what is due to it is held."""
        return _object(self._request("POST", f"{_endpoint(endpoint)}/pause"))

    def enable(self, endpoint: str, held: Held = "send") -> JsonObject:
        """Send to it again, and say what becomes of what it holds."""
        return _object(self._request("POST", f"{_endpoint(endpoint)}/enable", body={"held": held}))

    def test(self, endpoint: str, type: str | None = None) -> JsonObject:  # noqa: A002 - the API's own word
        """Send one event to it now: the attempt, or the delivery where that takes longer than an answer may."""
        return _object(self._request("POST", f"{_endpoint(endpoint)}/test", body=_given(type=type)))

    def secret(self, endpoint: str) -> JsonObject:
        """Its `secret`, and whether another is live beside it."""
        return _object(self._request("GET", f"{_endpoint(endpoint)}/secret"))

    def rotate_secret(
        self,
        endpoint: str,
        *,
        secret: str | None = None,
        overlap_seconds: int | None = None,
        uplift_header: Literal["old", "new"] | None = None,
        idempotency_key: str | None = None,
    ) -> JsonObject:
        """Replace its secret; the old one stays live beside the new for a day, or for `overlap_seconds`."""
        body = _given(secret=secret, overlap_seconds=overlap_seconds, uplift_header=uplift_header)
        path = f"{_endpoint(endpoint)}/secret/rotate"
        return _object(self._request("POST", path, body=body, headers=_repeatable(idempotency_key)))


class Events:
    """`/v1/events`."""

    def __init__(self, request: Request) -> None:
        self._request: Final = request

    def list(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the API's own word
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        order: Literal["asc"] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page:
        """One page, newest first; with `order` `asc` oldest first, and `next_cursor` always leads on."""
        query = _given(type=type, created_after=created_after, created_before=created_before, order=order)
        return get_page(self._request, "/v1/events", {**query, "limit": limit, "cursor": cursor})

    def pages(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the API's own word
        created_after: Instant | None = None,
        created_before: Instant | None = None,
    ) -> Iterator[Page]:
        """Every page."""
        query = _given(type=type, created_after=created_after, created_before=created_before)
        return pages(self._request, "/v1/events", query)

    def iterate(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the API's own word
        created_after: Instant | None = None,
        created_before: Instant | None = None,
    ) -> Iterator[JsonObject]:
        """Every event, newest first."""
        return items(self.pages(type=type, created_after=created_after, created_before=created_before))

    def get(self, event: str) -> JsonObject:
        """One event, by its id, with its `body`, the envelope as it is sent."""
        return _object(self._request("GET", _event(event)))

    def fetch(self, event: str) -> AnyEvent:
        """One event as `Webhook.unwrap` gives it. What answers is trusted because of TLS; no signature is checked."""
        body = self.get(event).get("body")
        if isinstance(body, dict):
            try:
                return read_event(body, None)
            except WebhookVerificationError as error:
                raise ApiUnreachable(f"What answered for the event {event} is no event: {error.cause}") from error
        raise ApiUnreachable(f"The answer for the event {event} has no body.")

    def send(
        self,
        type: str,  # noqa: A002 - the API's own word
        data: JsonObject,
        *,
        id: str | None = None,  # noqa: A002 - the API's own word
        idempotency_key: str | None = None,
        expires_at: str | None = None,
    ) -> JsonObject:
        """Send an event: its `id`, `created_at`, and whether it is a `duplicate`. Needs the scope `events:write`."""
        body = _given(type=type, data=data, id=id, expires_at=expires_at)
        return _object(self._request("POST", "/v1/events", body=body, headers=_repeatable(idempotency_key)))

    def deliveries(self, event: str, *, limit: int | None = None, cursor: str | None = None) -> Page:
        """One page of what is, or was, owed because of an event."""
        return get_page(self._request, f"{_event(event)}/deliveries", {"limit": limit, "cursor": cursor})

    def explain(self, event: str, *, endpoint: str | None = None) -> Page:
        """Why it did or did not reach each endpoint, or one: `reason`, `text` and `hint`."""
        return get_page(self._request, f"{_event(event)}/explain", {"endpoint": endpoint})


class Deliveries:
    """`/v1/deliveries`."""

    def __init__(self, request: Request) -> None:
        self._request: Final = request

    def list(
        self,
        *,
        status: Status | None = None,
        endpoint: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's own word
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page:
        """One page, those of the newest events first."""
        query = _given(status=status, endpoint=endpoint, type=type)
        instants = _given(created_after=created_after, created_before=created_before)
        return get_page(self._request, "/v1/deliveries", {**query, **instants, "limit": limit, "cursor": cursor})

    def pages(
        self,
        *,
        status: Status | None = None,
        endpoint: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's own word
        created_after: Instant | None = None,
        created_before: Instant | None = None,
    ) -> Iterator[Page]:
        """Every page."""
        query = _given(status=status, endpoint=endpoint, type=type)
        instants = _given(created_after=created_after, created_before=created_before)
        return pages(self._request, "/v1/deliveries", {**query, **instants})

    def iterate(
        self,
        *,
        status: Status | None = None,
        endpoint: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's own word
        created_after: Instant | None = None,
        created_before: Instant | None = None,
    ) -> Iterator[JsonObject]:
        """Every delivery, those of the newest events first."""
        found = self.pages(
            status=status, endpoint=endpoint, type=type, created_after=created_after, created_before=created_before
        )
        return items(found)

    def get(self, delivery: str) -> JsonObject:
        """One delivery, by its id."""
        return _object(self._request("GET", _delivery(delivery)))

    def attempts(self, delivery: str, *, limit: int | None = None, cursor: str | None = None) -> Page:
        """One page of its attempts, newest first: what was sent, what was answered, and a `hint`."""
        return get_page(self._request, f"{_delivery(delivery)}/attempts", {"limit": limit, "cursor": cursor})

    def resend(self, delivery: str) -> JsonObject:
        """Attempt it once more, now, whatever became of it."""
        return _object(self._request("POST", f"{_delivery(delivery)}/resend"))

    def cancel(self, delivery: str) -> JsonObject:
        """Do not attempt it any more."""
        return _object(self._request("POST", f"{_delivery(delivery)}/cancel"))


class EventTypes:
    """`/v1/event-types`: the catalog."""

    def __init__(self, request: Request) -> None:
        self._request: Final = request

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> Page:
        """One page."""
        return get_page(self._request, "/v1/event-types", {"limit": limit, "cursor": cursor})

    def pages(self) -> Iterator[Page]:
        """Every page."""
        return pages(self._request, "/v1/event-types", {})

    def iterate(self) -> Iterator[JsonObject]:
        """Every event type."""
        return items(self.pages())

    def get(self, name: str) -> JsonObject:
        """One event type, by its name, with the `schema` and an `example` of its data."""
        return _object(self._request("GET", f"/v1/event-types/{segment(name)}"))


class ListenSessions:
    """`/v1/listen-sessions`: streams of events to a developer's machine. `uplift listen` does all of this."""

    def __init__(self, request: Request) -> None:
        self._request: Final = request

    def create(self, *, event_types: Iterable[str] | None = None, since: Instant | None = None) -> JsonObject:
        """Make a session; its `secret` is that of all sessions made with this key."""
        instant = since.isoformat() if since is not None and not isinstance(since, str) else since
        body = _given(event_types=None if event_types is None else [*event_types], since=instant)
        return _object(self._request("POST", "/v1/listen-sessions", body=body))

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> Page:
        """One page, newest first."""
        return get_page(self._request, "/v1/listen-sessions", {"limit": limit, "cursor": cursor})

    def pages(self) -> Iterator[Page]:
        """Every page."""
        return pages(self._request, "/v1/listen-sessions", {})

    def iterate(self) -> Iterator[JsonObject]:
        """Every session, newest first."""
        return items(self.pages())

    def get(self, session: str) -> JsonObject:
        """One session, by its id."""
        return _object(self._request("GET", f"/v1/listen-sessions/{segment(session)}"))

    def answers(self, session: str, *, limit: int | None = None, cursor: str | None = None) -> Page:
        """One page of what the developer's server answered, newest first."""
        path = f"/v1/listen-sessions/{segment(session)}/answers"
        return get_page(self._request, path, {"limit": limit, "cursor": cursor})

    def test(self, session: str, type: str | None = None) -> JsonObject:  # noqa: A002 - the API's own word
        """Send an example to this session alone: its `event`, and the `answer` if one came in time."""
        return _object(self._request("POST", f"/v1/listen-sessions/{segment(session)}/test", body=_given(type=type)))

    def delete(self, session: str) -> None:
        """End a session; whoever is connected is told."""
        self._request("DELETE", f"/v1/listen-sessions/{segment(session)}")


def _endpoint(endpoint: str) -> str:
    return f"/v1/endpoints/{segment(endpoint)}"


def _event(event: str) -> str:
    return f"/v1/events/{segment(event)}"


def _delivery(delivery: str) -> str:
    return f"/v1/deliveries/{segment(delivery)}"


def _given(**fields: object) -> JsonObject:
    """What was given, without what was left out."""
    return {name: value for name, value in fields.items() if value is not None}


def _repeatable(idempotency_key: str | None) -> dict[str, str] | None:
    """One of the caller's own; else `Client.request` makes one."""
    return None if idempotency_key is None else {"idempotency-key": idempotency_key}


def _object(answer: object) -> JsonObject:
    if isinstance(answer, dict):
        return cast("JsonObject", answer)
    raise ApiUnreachable("What answered is no Uplift Webhooks server: it gave no object.")
