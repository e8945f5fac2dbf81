"""Ingest of events: `POST /v1/events` and `POST /v1/events/batch` as a plain ASGI callable.

In measurements on one core, a FastAPI route added 110 µs to each request. All other steps until the event arrives at
its receiver took about as long in total. FastAPI serves all other routes.
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from uplift_server.api import repeats
from uplift_server.api.problems import error_response_of
from uplift_server.api.single_headers import check_single
from uplift_server.core.events.idempotency import KEY_INVALID, check_key
from uplift_server.core.ids import uuid_text
from uplift_server.core.limits import BATCH_EVENTS_MAX, BATCH_KEY_CHARACTERS_MAX, EVENT_BODY_BYTES_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.suggestions import unknown_fields
from uplift_server.core.timestamps import format_timestamp
from uplift_server.service.authentication import Authenticator
from uplift_server.service.errors import (
    IdempotencyConflict,
    Invalid,
    Malformed,
    NotFound,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from uplift_server.service.event_bodies import conflict_text, decode_batch, decode_event, wrong_count
from uplift_server.service.ingest import Incoming, Ingest
from uplift_server.service.principals import Caller
from uplift_server.service.unfinished_bodies import UnfinishedBodies
from uplift_server.store import hot_records

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_INCLUDE: Final = "include"
_ENDPOINTS: Final = "endpoints"
_KEY_HEADER: Final = "Idempotency-Key"
SINGLE: Final = "/v1/events"
BATCH: Final = "/v1/events/batch"
_JSON: Final = (b"content-type", b"application/json")
_REPLAYED: Final = (repeats.HEADER.encode(), b"true")


_ACCOUNT_TEXTS: Final = dict.fromkeys(
    ("account", "account_id", "accountId"),
    "This field is not allowed in a single event. Send the account's ID in the header `Uplift-Account: acc_…`.",
)
"""Error messages for account fields of a single event. The keys are field names."""


class _Headers(msgspec.Struct, frozen=True, gc=False):
    """The request headers that the ingest routes read."""

    authorization: bytes | None
    account: str | None
    idempotency_key: str | None
    content_type: bytes | None
    content_length: int | None
    query: bytes
    """The URL's query, before decoding."""


class _Accepted(msgspec.Struct, frozen=True, gc=False):
    """The content of the response to accepted events."""

    body: bytes
    replayed: bool
    """Whether earlier requests created all of the events."""


class IngestRoutes:
    """ASGI application for the two ingest routes. It passes all other requests to `rest`."""

    def __init__(
        self, rest: App, authenticator: Authenticator, ingest: Ingest, unfinished_bodies: UnfinishedBodies
    ) -> None:
        self._rest = rest
        self._authenticator = authenticator
        self._ingest = ingest
        self._unfinished_bodies = unfinished_bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ingest request, or pass any other request to `rest`."""
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

    async def _caller(self, headers: _Headers) -> Caller:
        try:
            return self._authenticator.caller(headers.authorization, headers.account)
        except NotFound as error:
            # Another process may have just created the account.
            await self._ingest.wait_for_newer_cache(error)
            return self._authenticator.caller(headers.authorization, headers.account)

    async def _one(self, headers: _Headers, receive: Receive) -> _Accepted:
        caller = await self._caller(headers)
        # Check the caller before reading the body, because the body takes memory.
        account_seq = self._ingest.sending_account(caller)
        with_endpoints = bool(headers.query) and _includes_endpoints(headers.query)
        body = await self._read(caller, receive, headers, EVENT_BODY_BYTES_MAX)
        event, problems = decode_event(body, _ACCOUNT_TEXTS)
        key = event.idempotency_key
        if headers.idempotency_key is not None:
            if key is not None and key != headers.idempotency_key:
                text = "The field differs from the header `Idempotency-Key`. Send only one of them."
                problems.append(Problem("idempotency_key", "idempotency_key_ambiguous", text))
            key = headers.idempotency_key
        data = None if event.data is None else bytes(event.data)
        incoming = Incoming(event.type, data, event.id, key, event.expires_at, event.ordering_key)
        try:
            accepting = self._ingest.accept(account_seq, incoming, problems)
        except Invalid as error:
            await self._ingest.wait_for_newer_cache(error)
            accepting = self._ingest.accept(account_seq, incoming, problems)
        result = await accepting
        if isinstance(result, hot_records.IdempotencyConflict):
            raise IdempotencyConflict(conflict_text(result, key, incoming.id))
        (stored,) = result
        body = _rendered(stored, incoming.type)
        if with_endpoints:
            (body,) = await self._with_endpoints([stored], [body])
        return _Accepted(body, replayed=stored.duplicate)

    async def _many(self, headers: _Headers, receive: Receive) -> _Accepted:
        caller = await self._caller(headers)
        # Check the caller before reading the body, because the body takes memory.
        bytes_max = self._ingest.batch_bytes_max(caller)
        with_endpoints = bool(headers.query) and _includes_endpoints(headers.query)
        body = await self._read(caller, receive, headers, bytes_max)
        events, problems = decode_batch(body)
        if not 1 <= len(events) <= BATCH_EVENTS_MAX:
            raise Invalid([*problems, wrong_count(len(events))])
        batch_key = headers.idempotency_key
        wrong_key = None if batch_key is None else _batch_key_problem(batch_key)
        if wrong_key is not None:
            problems.append(wrong_key)
            batch_key = None
        incoming = [
            Incoming(
                event.type,
                None if event.data is None else bytes(event.data),
                event.id,
                _key_of(batch_key, index) if event.idempotency_key is None else event.idempotency_key,
                event.expires_at,
                event.ordering_key,
                event.account,
            )
            for index, event in enumerate(events)
        ]
        try:
            accepting = await self._ingest.accept_batch(caller, incoming, problems)
        except Invalid as error:
            await self._ingest.wait_for_newer_cache(error)
            accepting = await self._ingest.accept_batch(caller, incoming, problems)
        stored = await accepting
        if isinstance(stored, hot_records.IdempotencyConflict):
            raise _batch_conflict(stored, incoming[stored.index])
        parts = [_rendered(appended, event.type) for appended, event in zip(stored, events, strict=True)]
        if with_endpoints:
            parts = await self._with_endpoints(stored, parts)
        return _Accepted(
            b'{"data":[' + b",".join(parts) + b"]}", replayed=all(appended.duplicate for appended in stored)
        )

    async def _with_endpoints(self, stored: Sequence[hot_records.Appended], parts: Sequence[bytes]) -> list[bytes]:
        """Add the IDs of the matched endpoints to the events in the response."""
        found = await self._ingest.endpoints_of(stored)
        endpoints = [None] * len(parts) if found is None else found
        return [
            part[:-1] + b',"endpoints":' + msgspec.json.encode(each) + b"}"
            for part, each in zip(parts, endpoints, strict=True)
        ]

    async def _read(self, caller: Caller, receive: Receive, headers: _Headers, bytes_max: int) -> bytes:
        """Receive the complete body. Raises PayloadTooLarge if the body has more than `bytes_max` bytes."""
        if headers.content_type != b"application/json" or (headers.content_length or 0) > bytes_max:
            _check_head(headers, bytes_max)
        message = await receive()
        if not message.get("more_body", False):
            complete: bytes = message.get("body", b"")
            return complete
        with self._unfinished_bodies.reservation_of(caller.principal) as reservation:
            # If the size is known, reserve all of it now. Otherwise, several bodies could start to arrive, and together
            # exceed the memory limit before any of them is complete.
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


def _batch_key_problem(key: str) -> Problem | None:
    """Return the problem with the idempotency key of a batch, if any."""
    problem = check_key(key, _KEY_HEADER)
    if problem is None and len(key) > BATCH_KEY_CHARACTERS_MAX:
        text = f"The idempotency key of a batch has more than {BATCH_KEY_CHARACTERS_MAX} characters. Use a shorter key."
        return Problem(_KEY_HEADER, KEY_INVALID, text)
    return problem


def _key_of(batch_key: str | None, index: int) -> str | None:
    """Return the default idempotency key for an event in a batch.

    The key consists of the request's idempotency key and the event's position in the batch. Return None if the request
    has no idempotency key.
    """
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
    """Return whether the response must list the matched endpoints. Raises Invalid if the query is not valid."""
    parameters = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    values = parameters.pop(_INCLUDE, [])
    problems = unknown_fields(parameters, (_INCLUDE,))
    if any(value != _ENDPOINTS for value in values):
        text = f"The value is not allowed. Use {_ENDPOINTS}, or omit the parameter."
        problems.append(Problem(_INCLUDE, "value_unknown", text))
    if problems:
        raise Invalid(problems)
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


def _batch_conflict(conflict: hot_records.IdempotencyConflict, event: Incoming) -> IdempotencyConflict:
    """Return the error for a rejected batch.

    `event` is the first event in the batch whose idempotency key or ID belongs to a different event.
    """
    text = conflict_text(conflict, event.idempotency_key, event.id)
    field = f"events.{conflict.index}.{conflict.field}"
    return IdempotencyConflict(
        f"The server rejected the batch because of the event at index {conflict.index}. {text}",
        [Problem(field, IdempotencyConflict.code, text)],
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
