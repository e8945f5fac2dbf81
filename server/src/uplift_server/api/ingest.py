"""The way in for events: `POST /v1/events` and `POST /v1/events/batch` as a plain ASGI callable.

Measured on one core: a route of the framework costs 110 µs a request more than this, which is as much as the whole rest
of an event's way to its receiver. Everything that is not one of the two routes goes on to the framework.
"""

import itertools
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from uplift_server.api import repeats
from uplift_server.api.problems import refusal_of
from uplift_server.api.single_headers import check_single
from uplift_server.core.ids import uuid_text
from uplift_server.core.instants import instant_text
from uplift_server.core.limits import (
    BATCH_BODY_BYTES_MAX,
    BATCH_EVENTS_MAX,
    EVENT_BODY_BYTES_MAX,
    PROBLEMS_TOLD_MAX,
    REQUEST_CONTAINERS_MAX,
)
from uplift_server.core.problems import Problem
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


class _BatchEvent(_Event, forbid_unknown_fields=True):
    account: str | None = None


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    events: list[_BatchEvent]


_single = msgspec.json.Decoder(_Event)
_batch = msgspec.json.Decoder(_Batch)


class _Headers(NamedTuple):
    """The request headers these routes look at."""

    authorization: bytes | None
    account: str | None
    idempotency_key: str | None
    content_type: bytes | None
    content_length: int | None


class _Accepted(NamedTuple):
    """The answer to accepted events."""

    body: bytes
    replayed: bool
    """Whether all of them had been accepted before."""


class IngestRoutes:
    """Serves the two routes and passes everything else on to `rest`."""

    def __init__(
        self, rest: App, authenticator: Authenticator, ingest: Ingest, unfinished_bodies: UnfinishedBodies
    ) -> None:
        self._rest = rest
        self._authenticator = authenticator
        self._ingest = ingest
        self._unfinished_bodies = unfinished_bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
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
            accepted = await serve(_headers(scope["headers"]), receive)
        except Exception as error:
            refusal = refusal_of(error)
            await _send(send, refusal.status, list(refusal.headers), refusal.body)
            return
        await _send(send, 202, [_JSON, _REPLAYED] if accepted.replayed else [_JSON], accepted.body)

    async def _one(self, headers: _Headers, receive: Receive) -> _Accepted:
        caller = self._authenticator.caller(headers.authorization, headers.account)
        # Before the body is read, which takes memory.
        self._ingest.sender(caller)
        body = await self._read(caller, receive, headers, EVENT_BODY_BYTES_MAX)
        event = _decode(_single, body, _problems_of_one)
        problems: list[Problem] = []
        key = event.idempotency_key
        if headers.idempotency_key is not None:
            if key is not None and key != headers.idempotency_key:
                text = "The header Idempotency-Key says something else. Send one of the two."
                problems.append(Problem("idempotency_key", "idempotency_key_ambiguous", text))
            key = headers.idempotency_key
        incoming = Incoming(event.type, bytes(event.data), event.id, key, event.expires_at)
        (stored,) = _stored(await self._ingest.one(caller, incoming, problems))
        return _Accepted(_rendered(stored, event.type), replayed=stored.duplicate)

    async def _many(self, headers: _Headers, receive: Receive) -> _Accepted:
        caller = self._authenticator.caller(headers.authorization, headers.account)
        caller.require_operator()
        body = await self._read(caller, receive, headers, BATCH_BODY_BYTES_MAX)
        events = _decode(_batch, body, _problems_of_batch).events
        if not 1 <= len(events) <= BATCH_EVENTS_MAX:
            text = f"A batch has 1 to {BATCH_EVENTS_MAX} events, this one {len(events)}."
            raise Invalid([Problem("events", "events_count", text)])
        incoming = [
            Incoming(
                event.type,
                bytes(event.data),
                event.id,
                event.idempotency_key or _key_of(headers.idempotency_key, index),
                event.expires_at,
                event.account,
            )
            for index, event in enumerate(events)
        ]
        stored = _stored(await self._ingest.batch(caller, incoming))
        parts = [_rendered(appended, event.type) for appended, event in zip(stored, events, strict=True)]
        return _Accepted(
            b'{"data":[' + b",".join(parts) + b"]}", replayed=all(appended.duplicate for appended in stored)
        )

    async def _read(self, caller: Caller, receive: Receive, headers: _Headers, bytes_max: int) -> bytes:
        """The complete body, at most `bytes_max`."""
        _check_head(headers, bytes_max)
        message = await receive()
        if not message.get("more_body", False):
            complete: bytes = message.get("body", b"")
            return complete
        with self._unfinished_bodies.reservation(caller.principal.account_seq) as reservation:
            # At once if the size is known: otherwise several bodies could run out of room half way.
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
                    raise Malformed("The request ended before its body was complete.")


def _key_of(batch_key: str | None, index: int) -> str | None:
    """The key of an event without one of its own, from the header's and the event's place in the batch."""
    return None if batch_key is None else f"{batch_key}/{index}"


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> _Headers:
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
    )


def _check_head(headers: _Headers, bytes_max: int) -> None:
    """Raise UnsupportedMediaType or PayloadTooLarge for what the headers say of the body."""
    content_type = headers.content_type
    if content_type is not None and content_type.split(b";", 1)[0].strip().lower() != b"application/json":
        raise UnsupportedMediaType(
            f"The body must be JSON: send `content-type: application/json`, not {content_type[:100].decode('latin-1')}."
        )
    if headers.content_length is not None and headers.content_length > bytes_max:
        raise _too_large(bytes_max)


def _too_large(bytes_max: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request's body has more than {bytes_max} bytes. Send less at once.")


def _decode(decoder: "msgspec.json.Decoder[T]", body: bytes, problems_of: Callable[[Any], list[Problem]]) -> T:
    """The decoded body; where its shape is wrong, everything that is wrong with it at once."""
    try:
        # The decoder passes `data` on unread, so nothing else would notice bytes that are no text.
        body.decode()
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Invalid(_shape_problems(body, problems_of) or [Problem("", "invalid", str(error))]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"The body is no valid JSON in UTF-8: {error}.") from error


def _shape_problems(body: bytes, problems_of: Callable[[Any], list[Problem]]) -> list[Problem]:
    """What is wrong with the shape of a body; nothing where a number inside is too large, or too much to be read.

    The decoder stopped at the first wrong field, so what follows may still be no JSON: then raises Malformed.
    """
    if body.count(b"[") + body.count(b"{") > REQUEST_CONTAINERS_MAX:
        return []
    try:
        return problems_of(msgspec.json.decode(body))
    except msgspec.ValidationError:
        return []
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"The body is no valid JSON in UTF-8: {error}.") from error


_TEXT_FIELDS: Final = ("id", "idempotency_key", "expires_at", "account")


def _problems_of_batch(value: Any) -> list[Problem]:
    if not isinstance(value, dict) or not isinstance(value.get("events"), list):
        return [Problem("events", "required", 'The body is an object with a list of events: {"events": […]}.')]
    problems = _unknown_fields(value, "", {"events"})
    for index, event in enumerate(value["events"][:BATCH_EVENTS_MAX]):
        if len(problems) > PROBLEMS_TOLD_MAX:
            break
        problems.extend(_problems_of_event(event, f"events.{index}.", {"type", "data", *_TEXT_FIELDS}))
    return problems


def _problems_of_one(value: Any) -> list[Problem]:
    return _problems_of_event(value, "", {"type", "data", "id", "idempotency_key", "expires_at"})


def _problems_of_event(value: Any, prefix: str, known: set[str]) -> list[Problem]:
    if not isinstance(value, dict):
        return [Problem(prefix.rstrip("."), "type_object", "An event is a JSON object with `type` and `data`.")]
    problems = _unknown_fields(value, prefix, known)
    if "type" not in value:
        problems.append(Problem(f"{prefix}type", "required", "Name the event's type. See GET /v1/event-types."))
    elif not isinstance(value["type"], str):
        problems.append(Problem(f"{prefix}type", "type_text", "An event type is a text."))
    if "data" not in value:
        problems.append(Problem(f"{prefix}data", "required", "Give the event's data, a JSON object."))
    problems.extend(
        Problem(prefix + name, "type_text", "This field is a text, or is left out.")
        for name in _TEXT_FIELDS
        if name in known and not isinstance(value.get(name), str | None)
    )
    return problems


def _unknown_fields(value: dict[str, Any], prefix: str, known: set[str]) -> list[Problem]:
    """A problem for each field there is none of; of very many, one more than are told."""
    unknown = (prefix + name for name in value if name not in known)
    text = "There is no such field. Check its spelling, or leave it out."
    return [Problem(name[:200], "unknown_field", text) for name in itertools.islice(unknown, PROBLEMS_TOLD_MAX + 1)]


def _stored(result: list[hot_records.Appended] | hot_records.IdempotencyConflict) -> list[hot_records.Appended]:
    if isinstance(result, hot_records.IdempotencyConflict):
        raise IdempotencyConflict(
            f"This {result.field} was used before for event {uuid_text(result.event_id)}, whose content is different."
            " Use another one for other content."
        )
    return result


def _rendered(appended: hot_records.Appended, event_type: str) -> bytes:
    return b'{"id":"%b","type":"%b","created_at":"%b","duplicate":%b}' % (
        uuid_text(appended.id).encode(),
        event_type.encode(),
        instant_text(appended.created_at).encode(),
        b"true" if appended.duplicate else b"false",
    )


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
