"""Ingest of events: `POST /v1/events` and `POST /v1/events/batch` as a plain ASGI callable.

Measured on one core, a FastAPI route costs 110 µs more per request, as much as the rest of an event's path to its
receiver. FastAPI serves all other routes.
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qs

import msgspec

from uplift_server.api import repeats
from uplift_server.api.problems import error_response_of
from uplift_server.api.single_headers import check_single
from uplift_server.core.ids import uuid_text
from uplift_server.core.limits import (
    BATCH_EVENTS_MAX,
    EVENT_BODY_BYTES_MAX,
    PROBLEMS_LISTED_MAX,
)
from uplift_server.core.problems import Problem
from uplift_server.core.suggestions import unknown_fields
from uplift_server.core.timestamps import format_timestamp
from uplift_server.service.authentication import Authenticator
from uplift_server.service.errors import (
    IdempotencyConflict,
    Invalid,
    Malformed,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from uplift_server.service.ingest import Incoming, Ingest
from uplift_server.service.principals import Caller
from uplift_server.service.unfinished_bodies import UnfinishedBodies
from uplift_server.store import hot_records

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
T = TypeVar("T")

_ENDPOINTS: Final = "endpoints"
SINGLE: Final = "/v1/events"
BATCH: Final = "/v1/events/batch"
_JSON: Final = (b"content-type", b"application/json")
_REPLAYED: Final = (repeats.HEADER.encode(), b"true")


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    data: msgspec.Raw
    id: str | None = None
    idempotency_key: str | None = None
    expires_at: str | None = None
    ordering_key: str | None = None


class _BatchEvent(_Event, forbid_unknown_fields=True):
    account: str | None = None


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    events: list[_BatchEvent]


_single = msgspec.json.Decoder(_Event)
_batch = msgspec.json.Decoder(_Batch)
# For bodies of the wrong shape. The fields stay undecoded, so a large body costs little.
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)
_TEXT_FIELDS: Final = ("id", "idempotency_key", "expires_at", "ordering_key", "account")
_FIELDS: Final = frozenset({"type", "data", "id", "idempotency_key", "expires_at", "ordering_key"})
_BATCH_FIELDS: Final = _FIELDS | {"account"}
_BATCH_BODY_FIELDS: Final = frozenset({"events"})
_ACCOUNT_TEXTS: Final = dict.fromkeys(
    ("account", "account_id", "accountId"),
    "Only the events of a batch name an account. Send its ID in the header `Uplift-Account: acc_…`.",
)
"""Error messages for an account in the body of a single event."""


class _Headers(NamedTuple):
    """The request headers that these routes use."""

    authorization: bytes | None
    account: str | None
    idempotency_key: str | None
    content_type: bytes | None
    content_length: int | None
    query: bytes
    """The query of the URL."""


class _Accepted(NamedTuple):
    """The response to accepted events."""

    body: bytes
    replayed: bool
    """Whether earlier requests created all events."""


class IngestRoutes:
    """ASGI application of the two routes. It passes all other requests to `rest`."""

    def __init__(
        self, rest: App, authenticator: Authenticator, ingest: Ingest, unfinished_bodies: UnfinishedBodies
    ) -> None:
        self._rest = rest
        self._authenticator = authenticator
        self._ingest = ingest
        self._unfinished_bodies = unfinished_bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the ASGI application."""
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"]
            if path == SINGLE:
                return await self._answer(self._one, scope, receive, send)
            if path == BATCH:
                return await self._answer(self._many, scope, receive, send)
        return await self._rest(scope, receive, send)

    async def _answer(
        self, serve: Callable[[_Headers, Receive], Awaitable[_Accepted]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            accepted = await serve(_headers(scope["headers"], scope["query_string"]), receive)
        except Exception as error:
            error_response = error_response_of(error)
            await _send(send, error_response.status, list(error_response.headers), error_response.body)
            return
        await _send(send, 202, [_JSON, _REPLAYED] if accepted.replayed else [_JSON], accepted.body)

    async def _one(self, headers: _Headers, receive: Receive) -> _Accepted:
        caller = self._authenticator.caller(headers.authorization, headers.account)
        # Checked before the body is read, because the body takes memory.
        account_seq = self._ingest.sending_account(caller)
        with_endpoints = bool(headers.query) and _includes_endpoints(headers.query)
        body = await self._read(caller, receive, headers, EVENT_BODY_BYTES_MAX)
        event: _Event | Incoming | None = _decode(_single, body)
        problems: list[Problem] = []
        if event is None:
            event, problems = _readable_one(body)
        key = event.idempotency_key
        if headers.idempotency_key is not None:
            if key is not None and key != headers.idempotency_key:
                text = "The field differs from the header `Idempotency-Key`. Send only one of them."
                problems.append(Problem("idempotency_key", "idempotency_key_ambiguous", text))
            key = headers.idempotency_key
        data = None if event.data is None else bytes(event.data)
        incoming = Incoming(event.type, data, event.id, key, event.expires_at, event.ordering_key)
        result = await self._ingest.accept(account_seq, incoming, problems)
        if isinstance(result, hot_records.IdempotencyConflict):
            raise IdempotencyConflict(_conflict_text(result, incoming))
        (stored,) = result
        body = _rendered(stored, incoming.type)
        if with_endpoints:
            (body,) = await self._with_endpoints([stored], [body])
        return _Accepted(body, replayed=stored.duplicate)

    async def _many(self, headers: _Headers, receive: Receive) -> _Accepted:
        caller = self._authenticator.caller(headers.authorization, headers.account)
        # Checked before the body is read, because the body takes memory.
        bytes_max = self._ingest.batch_bytes_max(caller)
        with_endpoints = bool(headers.query) and _includes_endpoints(headers.query)
        body = await self._read(caller, receive, headers, bytes_max)
        events, problems = _events_of(body)
        if not 1 <= len(events) <= BATCH_EVENTS_MAX:
            raise Invalid([*problems, _wrong_count(len(events))])
        incoming = [
            Incoming(
                event.type,
                None if event.data is None else bytes(event.data),
                event.id,
                event.idempotency_key or _key_of(headers.idempotency_key, index),
                event.expires_at,
                event.ordering_key,
                event.account,
            )
            for index, event in enumerate(events)
        ]
        stored = await (await self._ingest.accept_batch(caller, incoming, problems))
        if isinstance(stored, hot_records.IdempotencyConflict):
            raise _batch_conflict(stored, incoming[stored.index])
        parts = [_rendered(appended, event.type) for appended, event in zip(stored, events, strict=True)]
        if with_endpoints:
            parts = await self._with_endpoints(stored, parts)
        return _Accepted(
            b'{"data":[' + b",".join(parts) + b"]}", replayed=all(appended.duplicate for appended in stored)
        )

    async def _with_endpoints(self, stored: Sequence[hot_records.Appended], parts: Sequence[bytes]) -> list[bytes]:
        """Add the matched endpoints to the rendered events."""
        found = await self._ingest.endpoints_of(stored)
        endpoints = [None] * len(parts) if found is None else found
        return [
            part[:-1] + b',"endpoints":' + msgspec.json.encode(each) + b"}"
            for part, each in zip(parts, endpoints, strict=True)
        ]

    async def _read(self, caller: Caller, receive: Receive, headers: _Headers, bytes_max: int) -> bytes:
        """Return the complete body of at most `bytes_max` bytes."""
        if headers.content_type != b"application/json" or (headers.content_length or 0) > bytes_max:
            _check_head(headers, bytes_max)
        message = await receive()
        if not message.get("more_body", False):
            complete: bytes = message.get("body", b"")
            return complete
        with self._unfinished_bodies.reservation_of(caller.principal) as reservation:
            # Reserve a known size at once. Otherwise, several incomplete bodies could exceed the limit together.
            reservation.grow_to(headers.content_length or 0)
            body = bytearray()
            while True:
                body += message.get("body", b"")
                if len(body) > bytes_max:
                    raise _too_large(bytes_max)
                reservation.grow_to(len(body))
                if not message.get("more_body", False):
                    return bytes(body)
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Malformed("The request body is incomplete. Retry the request.")


def _key_of(batch_key: str | None, index: int) -> str | None:
    """Derive the key of an event without a key from the request header and the event's position in the batch."""
    return None if batch_key is None else f"{batch_key}/{index}"


def _headers(raw: Sequence[tuple[bytes, bytes]], query: bytes) -> _Headers:
    found = dict(raw)
    if len(found) < len(raw):
        check_single(raw)
    account, key = found.get(b"uplift-account"), found.get(b"idempotency-key")
    length = found.get(b"content-length", b"")
    return _Headers(
        found.get(b"authorization"),
        None if account is None else account.decode("latin-1"),
        None if key is None else key.decode("latin-1"),
        found.get(b"content-type"),
        int(length) if length.isdigit() else None,
        query,
    )


def _includes_endpoints(query: bytes) -> bool:
    """Whether the response lists the matched endpoints. Raises Invalid."""
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("include", [])
    if any(value != _ENDPOINTS for value in values):
        text = f"The value is not allowed. Use {_ENDPOINTS}, or omit the parameter."
        raise Invalid([Problem("include", "value_unknown", text)])
    return bool(values)


def _check_head(headers: _Headers, bytes_max: int) -> None:
    """Raise UnsupportedMediaType or PayloadTooLarge if the headers show that the body is not acceptable."""
    content_type = headers.content_type
    if content_type is not None and content_type.split(b";", 1)[0].strip().lower() != b"application/json":
        raise UnsupportedMediaType(
            f"The content type {content_type[:100].decode('latin-1')} is not supported. Send"
            " `Content-Type: application/json`."
        )
    if headers.content_length is not None and headers.content_length > bytes_max:
        raise _too_large(bytes_max)


def _too_large(bytes_max: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body has more than {bytes_max} bytes. Send a smaller body.")


def _decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T | None:
    """Return the decoded body; None if its shape is wrong. Raises Malformed."""
    try:
        # The decoder does not read `data`, so only this check finds bytes that are not UTF-8.
        body.decode()
        return decoder.decode(body)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error


def _events_of(body: bytes) -> tuple[Sequence[_BatchEvent | Incoming], list[Problem]]:
    """Return the events of a batch. If its shape is wrong, return its readable fields and its problems."""
    batch = _decode(_batch, body)
    return (batch.events, []) if batch is not None else _readable_batch(body)


def _fields_of(body: bytes) -> dict[str, msgspec.Raw] | None:
    """Return the undecoded fields of an object; None for any other JSON.

    Called after the first decoder stopped at an invalid field. Raises Malformed if the rest is not JSON.
    """
    try:
        return _fields.decode(body)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> Malformed:
    return Malformed(f"The request body is not valid JSON in UTF-8: {error}. Correct the body.")


def _readable_one(body: bytes) -> tuple[Incoming, list[Problem]]:
    """Return the readable fields of an event with invalid fields, and the problems of the others."""
    problems: list[Problem] = []
    event = _readable(body, "", _FIELDS, problems)
    if event is None:
        raise Invalid(problems)
    return event, problems


def _readable_batch(body: bytes) -> tuple[list[Incoming], list[Problem]]:
    """Return the readable fields of the events of a batch with invalid fields, and the problems of the others."""
    fields = _fields_of(body)
    try:
        events = None if fields is None else _list.decode(fields["events"])
    except (KeyError, msgspec.ValidationError):
        events = None
    if fields is None or events is None:
        unknown = unknown_fields(fields or {}, _BATCH_BODY_FIELDS)
        text = 'The body must be an object with a list of events. Send {"events": […]}.'
        raise Invalid([*unknown, Problem("events", "required", text)])
    problems = unknown_fields(fields, _BATCH_BODY_FIELDS)
    if not 1 <= len(events) <= BATCH_EVENTS_MAX:
        raise Invalid([*problems, _wrong_count(len(events))])
    found = []
    for index, raw in enumerate(events):
        if len(problems) > PROBLEMS_LISTED_MAX:
            raise Invalid(problems)
        event = _readable(bytes(raw), f"events.{index}.", _BATCH_FIELDS, problems)
        found.append(Incoming(None, None) if event is None else event)
    return found, problems


def _readable(body: bytes, prefix: str, known: frozenset[str], problems: list[Problem]) -> Incoming | None:
    """Return the readable fields of one event; None if it is not an object."""
    fields = _fields_of(body)
    if fields is None:
        text = "The event must be a JSON object with `type` and `data`."
        problems.append(Problem(prefix.rstrip("."), "type_object", text))
        return None
    problems += unknown_fields(fields, known, prefix, {} if "account" in known else _ACCOUNT_TEXTS)
    texts: dict[str, str] = {}
    for name in ("type", *(each for each in _TEXT_FIELDS if each in known)):
        raw = fields.get(name)
        if raw is None or (name != "type" and bytes(raw) == b"null"):
            continue
        try:
            texts[name] = _text.decode(raw)
        except msgspec.ValidationError:
            text = (
                "The event type must be a string."
                if name == "type"
                else "The field must be a string. Correct or omit it."
            )
            problems.append(Problem(prefix + name, "type_text", text))
    if "type" not in fields:
        problems.append(Problem(f"{prefix}type", "required", "The event type is missing. See GET /v1/event-types."))
    data = fields.get("data")
    if data is None:
        problems.append(Problem(f"{prefix}data", "required", "The event's data is missing. Send a JSON object."))
    return Incoming(texts.pop("type", None), None if data is None else bytes(data), **texts)


def _wrong_count(count: int) -> Problem:
    return Problem("events", "events_count", f"The batch has {count} events. Send 1 to {BATCH_EVENTS_MAX}.")


def _batch_conflict(conflict: hot_records.IdempotencyConflict, event: Incoming) -> IdempotencyConflict:
    """Return the error for the first event of a batch whose key or ID belongs to another event."""
    text = _conflict_text(conflict, event)
    field = f"events.{conflict.index}.{conflict.field}"
    return IdempotencyConflict(
        f"The batch was rejected because of event {conflict.index}. {text}",
        [Problem(field, IdempotencyConflict.code, text)],
    )


def _conflict_text(conflict: hot_records.IdempotencyConflict, event: Incoming) -> str:
    what, used = "idempotency key", event.idempotency_key
    if conflict.field == "id":
        what, used = "event ID", event.id
    return (
        f"The {what} {used} was already used for event {uuid_text(conflict.event_id)} with different content. Use a new"
        " one for a new event."
    )


def _rendered(appended: hot_records.Appended, event_type: str | None) -> bytes:
    assert event_type is not None
    return b'{"id":"%b","type":"%b","created_at":"%b","duplicate":%b}' % (
        uuid_text(appended.id).encode(),
        event_type.encode(),
        format_timestamp(appended.created_at).encode(),
        b"true" if appended.duplicate else b"false",
    )


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
