"""Calls for integrators, one class for each noun."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from uplift_webhooks.api.calls import Call, Noun, Way, change, delete, every, get, get_page, given, post, texts, verb
from uplift_webhooks.api.failures import ApiUnreachable
from uplift_webhooks.api.pages import Instant, JsonObject, Page, segment
from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.events import AnyEvent, read_event

Status = Literal["pending", "delivered", "failed", "held", "cancelled"]
State = Literal["enabled", "paused", "disabled", "failing"]
Held = Literal["send", "drop", "keep"]
Period = Literal["24h", "7d", "30d"]
_ENDPOINTS: Final = "/v1/endpoints"
_EVENTS: Final = "/v1/events"
_DELIVERIES: Final = "/v1/deliveries"
_REPLAYS: Final = "/v1/replays"
_LISTEN_SESSIONS: Final = "/v1/listen-sessions"


class Endpoints(Noun[Way]):
    """`/v1/endpoints`."""

    @verb
    def list(
        self,
        *,
        state: State | None = None,
        text: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[Page]:
        """One page, newest first. Filter by `state`, or by a `text` in the URL or description."""
        return get_page(_ENDPOINTS, state=state, text=text, limit=limit, cursor=cursor)

    iterate = every(list)

    @verb
    def get(self, endpoint: str) -> Call[JsonObject]:
        """One endpoint by its ID."""
        return get(_path(_ENDPOINTS, endpoint))

    @verb
    def create(
        self,
        url: str,
        *,
        description: str | None = None,
        event_types: Iterable[str] | None = None,
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        rate_limit_per_second: Annotated[int | None, "Maximum attempts per second."] = None,
        max_in_flight: Annotated[int | None, "Maximum attempts in flight."] = None,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Create an endpoint. Only this response contains its `secret`."""
        body = given(
            url=url,
            description=description,
            event_types=texts(event_types),
            secret=secret,
            headers=None if headers is None else {**headers},
            rate_limit_per_second=rate_limit_per_second,
            max_in_flight=max_in_flight,
        )
        return post(_ENDPOINTS, body, idempotency_key=idempotency_key)

    @verb
    def update(self, endpoint: str, /, **changes: Any) -> Call[JsonObject]:
        """Update fields of an endpoint. Omitted fields stay, None means the default."""
        return change("PATCH", _path(_ENDPOINTS, endpoint), changes)

    @verb
    def delete(self, endpoint: str) -> Call[None]:
        """Delete an endpoint. Its pending deliveries are cancelled."""
        return delete(_path(_ENDPOINTS, endpoint))

    @verb
    def deliveries(
        self,
        endpoint: str,
        *,
        status: Status | None = None,
        type: str | None = None,
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[Page]:
        """One page of an endpoint's deliveries, newest events first."""
        return get_page(
            _path(_ENDPOINTS, endpoint, "deliveries"),
            status=status,
            type=type,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
            cursor=cursor,
        )

    @verb
    def stats(self, endpoint: str, period: Period | None = None) -> Call[JsonObject]:
        """Its statistics of a period (24h): `totals`, `buckets` that begin `at`, and `failures`."""
        return get(_path(_ENDPOINTS, endpoint, "stats"), period=period)

    @verb
    def pause(self, endpoint: str) -> Call[JsonObject]:
        """Pause an endpoint. Its deliveries are held."""
        return post(_path(_ENDPOINTS, endpoint, "pause"))

    @verb
    def enable(self, endpoint: str, held: Held = "send") -> Call[JsonObject]:
        """Enable an endpoint, and choose what happens to its held deliveries."""
        return post(_path(_ENDPOINTS, endpoint, "enable"), {"held": held})

    @verb
    def disable(self, endpoint: str) -> Call[JsonObject]:
        """Disable an endpoint, with an operator's key. Its owner can enable it."""
        return post(_path(_ENDPOINTS, endpoint, "disable"))

    @verb
    def test(
        self,
        endpoint: str,
        type: str | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Send a test event now. Returns the attempt, or the delivery if the attempt takes too long."""
        return post(_path(_ENDPOINTS, endpoint, "test"), given(type=type), idempotency_key=idempotency_key)

    @verb
    def secret(self, endpoint: str) -> Call[JsonObject]:
        """Its `secret`, and whether a previous one is still valid."""
        return get(_path(_ENDPOINTS, endpoint, "secret"))

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
        """Replace its secret. The old one stays valid for a day, or for `overlap_seconds`."""
        body = given(secret=secret, overlap_seconds=overlap_seconds, uplift_header=uplift_header)
        return post(_path(_ENDPOINTS, endpoint, "secret", "rotate"), body, idempotency_key=idempotency_key)

    @verb
    def expire_old_secret(self, endpoint: str) -> Call[JsonObject]:
        """Expire the old secret now."""
        return post(_path(_ENDPOINTS, endpoint, "secret", "expire-old"))


class Events(Noun[Way]):
    """`/v1/events`."""

    @verb
    def list(
        self,
        *,
        type: str | None = None,
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        order: Literal["asc"] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[Page]:
        """One page, newest first. With `order` `asc`, oldest first, and `next_cursor` is always set."""
        return get_page(
            _EVENTS,
            type=type,
            created_after=created_after,
            created_before=created_before,
            order=order,
            limit=limit,
            cursor=cursor,
        )

    iterate = every(list)

    @verb
    def get(self, event: str) -> Call[JsonObject]:
        """One event by its ID, with its `body`, the envelope as it is sent."""
        return get(_path(_EVENTS, event))

    @verb
    def fetch(self, event: str) -> Call[AnyEvent]:
        """One event in the form of `Webhook.unwrap`. TLS authenticates the server; no signature is checked."""
        return Call("GET", _path(_EVENTS, event), _as_sent)

    @verb
    def send(
        self,
        type: str,
        data: JsonObject,
        *,
        id: str | None = None,
        idempotency_key: str | None = None,
        expires_at: Instant | None = None,
    ) -> Call[JsonObject]:
        """Send an event: its `id`, `created_at`, and whether it is a `duplicate`. Needs the scope `events:write`."""
        body = given(type=type, data=data, id=id, expires_at=expires_at)
        return post(_EVENTS, body, idempotency_key=idempotency_key)

    @verb
    def send_batch(self, events: Sequence[JsonObject], *, idempotency_key: str | None = None) -> Call[JsonObject]:
        """Send up to 1000 events, all or none. `data` has the result of `send` for each. Needs an operator's key.

        An event has `type` and `data`, and may have `id`, `idempotency_key`, `expires_at` and `account`.
        """
        return post(f"{_EVENTS}/batch", {"events": [*events]}, idempotency_key=idempotency_key)

    @verb
    def deliveries(self, event: str, *, limit: int | None = None, cursor: str | None = None) -> Call[Page]:
        """One page of an event's deliveries."""
        return get_page(_path(_EVENTS, event, "deliveries"), limit=limit, cursor=cursor)

    @verb
    def explain(self, event: str, *, endpoint: str | None = None) -> Call[Page]:
        """Why it reached or did not reach each endpoint, or one: `reason`, `text` and `hint`."""
        return get_page(_path(_EVENTS, event, "explain"), endpoint=endpoint)


class Deliveries(Noun[Way]):
    """`/v1/deliveries`."""

    @verb
    def list(
        self,
        *,
        status: Status | None = None,
        endpoint: str | None = None,
        type: str | None = None,
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[Page]:
        """One page, newest events first."""
        return get_page(
            _DELIVERIES,
            status=status,
            endpoint=endpoint,
            type=type,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
            cursor=cursor,
        )

    iterate = every(list)

    @verb
    def get(self, delivery: str) -> Call[JsonObject]:
        """One delivery by its ID."""
        return get(_path(_DELIVERIES, delivery))

    @verb
    def attempts(self, delivery: str, *, limit: int | None = None, cursor: str | None = None) -> Call[Page]:
        """One page of its attempts, newest first: request, response and `hint`."""
        return get_page(_path(_DELIVERIES, delivery, "attempts"), limit=limit, cursor=cursor)

    @verb
    def resend(self, delivery: str) -> Call[JsonObject]:
        """Make one more attempt now, in any status."""
        return post(_path(_DELIVERIES, delivery, "resend"))

    @verb
    def cancel(self, delivery: str) -> Call[JsonObject]:
        """Cancel a pending or held delivery."""
        return post(_path(_DELIVERIES, delivery, "cancel"))


class Replays(Noun[Way]):
    """`/v1/replays`: jobs that resend an endpoint's ended deliveries, each once, in the order of events."""

    @verb
    def list(self, *, limit: int | None = None, cursor: str | None = None) -> Call[Page]:
        """One page, newest first."""
        return get_page(_REPLAYS, limit=limit, cursor=cursor)

    iterate = every(list)

    @verb
    def get(self, replay: str) -> Call[JsonObject]:
        """One replay by its ID, with its progress."""
        return get(_path(_REPLAYS, replay))

    @verb
    def create(
        self,
        endpoint: str,
        *,
        status: Iterable[Literal["failed", "cancelled", "delivered"]] | None = None,
        types: Iterable[str] | None = None,
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        rate_per_second: int | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Replay an endpoint's failed deliveries, or those of each `status`. `dry_run` only counts them."""
        body = given(
            endpoint=endpoint,
            status=texts(status),
            types=texts(types),
            created_after=created_after,
            created_before=created_before,
            rate_per_second=rate_per_second,
            dry_run=dry_run or None,
        )
        return post(_REPLAYS, body, idempotency_key=idempotency_key)

    @verb
    def pause(self, replay: str) -> Call[JsonObject]:
        """Pause a replay. Attempts in flight finish."""
        return post(_path(_REPLAYS, replay, "pause"))

    @verb
    def resume(self, replay: str) -> Call[JsonObject]:
        """Resume a replay."""
        return post(_path(_REPLAYS, replay, "resume"))

    @verb
    def cancel(self, replay: str) -> Call[JsonObject]:
        """Cancel a replay. Attempts in flight finish, and the other deliveries stay as they were."""
        return post(_path(_REPLAYS, replay, "cancel"))


class ListenSessions(Noun[Way]):
    """`/v1/listen-sessions`: streams of events to a developer's machine, for `uplift listen`."""

    @verb
    def create(
        self,
        *,
        event_types: Iterable[str] | None = None,
        since: Instant | None = None,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Create a session. All sessions of a key have the same `secret`."""
        body = given(event_types=texts(event_types), since=since, description=description)
        return post(_LISTEN_SESSIONS, body, idempotency_key=idempotency_key)

    @verb
    def list(self, *, limit: int | None = None, cursor: str | None = None) -> Call[Page]:
        """One page, newest first."""
        return get_page(_LISTEN_SESSIONS, limit=limit, cursor=cursor)

    iterate = every(list)

    @verb
    def get(self, session: str) -> Call[JsonObject]:
        """One session by its ID."""
        return get(_path(_LISTEN_SESSIONS, session))

    @verb
    def answers(self, session: str, *, limit: int | None = None, cursor: str | None = None) -> Call[Page]:
        """One page of the responses of the developer's server, newest first."""
        return get_page(_path(_LISTEN_SESSIONS, session, "answers"), limit=limit, cursor=cursor)

    @verb
    def test(self, session: str, type: str | None = None) -> Call[JsonObject]:
        """Send an example to this session only: its `event`, and the `answer` if it came in time."""
        return post(_path(_LISTEN_SESSIONS, session, "test"), given(type=type))

    @verb
    def delete(self, session: str) -> Call[None]:
        """End a session. Connected developers are notified."""
        return delete(_path(_LISTEN_SESSIONS, session))


def _path(noun: str, name: str, *more: str) -> str:
    """Return the path of an object or of an action on it."""
    return "/".join([noun, segment(name), *more])


def _as_sent(path: str, answer: object) -> AnyEvent:
    body = answer.get("body") if isinstance(answer, dict) else None
    if not isinstance(body, dict):
        raise ApiUnreachable(f"The answer for {path} has no body.")
    try:
        return read_event(body, None)
    except WebhookVerificationError as error:
        raise ApiUnreachable(f"What answered for {path} is no event: {error.cause}") from error
